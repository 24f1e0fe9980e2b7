# Program: a planned trace, replayed on new inputs.
#
# A replay looks at its inputs, takes a workspace, runs the steps (without the GIL where there is enough to do), checks
# guards on the way, and only when all has gone well hands over results and writes back what Tensors from outside became.
# So a replay that stops, whatever stops it, has changed nothing.

cdef enum:
    RUN_DONE = 0
    RUN_STOPPED = -1            # an exception is set
    RUN_REFUSED = 1             # a guard failed
    RUN_LABELS = 2              # a class number, or an index, is out of range

    LONG_PROGRAM = 30000        # elements times operations above which a replay releases the GIL
    PIECE = 1 << 21             # elements of a long step after which Ctrl-C is looked for
    PRODUCT_PIECE = 1 << 29     # multiplications, likewise

    FORM_ARRAY = 0              # what an argument was, and what results shall be
    FORM_NUMBER
    FORM_TENSOR

    SMALL_RESULT = 8192         # bytes up to which NumPy has memory for a result sooner than the pool

cdef struct Input:
    int form
    int dtype
    bint used
    bint tracked                # whether gradients flowed through it
    bint leaf                   # of an argument: whether it asks for a gradient itself
    int base                    # BASE_ARENA: copied to `place`; else a pointer
    bint cell
    Py_ssize_t place
    Py_ssize_t bytes
    Shape* shape

cdef struct Output:
    index_t value
    int base                    # > 0: computed straight into the result
    bint cell
    Py_ssize_t place            # of the first element, from its base
    int from_base
    Py_ssize_t* strides         # bytes; NULL: contiguous
    int dtype
    Shape* shape

cdef struct Workspace:
    Workspace* next
    PyObject* kept              # NULL, or a list of what must live until the run is over
    index_t step                # the step that a run stopped at
    char* arena
    char* scratch
    void* arena_block
    void* scratch_block
    char* bases[1]


cdef void* aligned_block(size_t bytes, char** aligned) noexcept nogil:
    cdef void* block = PyMem_RawMalloc(bytes + 128)
    if block != NULL:
        aligned[0] = <char*>((<size_t>block + 63) & ~<size_t>63)
    return block


@cython.final
cdef class Program:
    """A function's recording, optimised and planned, to be replayed on other inputs.

    Made by ``fg.compile``: ``compiled.program(*arguments)`` returns the one for a signature, ``fg.load_program(path)`` one
    that was saved.  Calling it with such arguments replays it and returns what the function would.

    Parameters
    ----------
    *arguments, **keywords
        The function's, of the same tree, shapes and dtypes; what was taken by value must be equal.
    out : pytree of ndarray, optional
        Like the result (0-d arrays for numbers): writable, C-contiguous, of its dtypes.  Is filled and returned, and
        no array is allocated.  Where the call raises, its contents are undefined unless it overlaps an argument.

    Raises
    ------
    ValueError
        Where the call does not fit, or a guard fails: the message says which.
    IndexError
        Where a class number of a cross-entropy, or an index, is out of range.
    TypeError
        Where an argument is being differentiated, or the call is itself recorded.

    Notes
    -----
    Numbers that the function read from elsewhere are those of the recording; Tensors and arrays from outside are read
    at each call.  A call that raises has changed nothing but ``out``.

    Thread-safety: any number of threads may call one Program; each call has its own workspace.  Long replays release the
    GIL.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgrad as fg
    >>> program = fg.compile(fg.value_and_grad(lambda x: np.sum(x * x))).program(np.zeros(2))
    >>> program(np.array([1.0, 2.0]))
    (np.float64(5.0), array([2., 4.]))
    >>> out = np.array(0.0), np.zeros(2)
    >>> program(np.array([3.0, 4.0]), out=out) is out
    True
    >>> out
    (array(25.), array([6., 8.]))
    """
    cdef Step* steps
    cdef index_t n_steps
    cdef Trace trace                    # kept for explain and save
    cdef bytes template
    cdef Py_ssize_t constant_bytes, scratch_bytes, temporaries
    cdef readonly Py_ssize_t arena_bytes    # of a workspace, without scratch for groups and products
    cdef Py_ssize_t live_peak
    cdef int n_bases
    cdef Input* inputs                  # arguments, then slots, then arrays
    cdef index_t n_arguments, n_slots, n_arrays
    cdef Output* outputs                # results, then what is written back
    cdef index_t n_results, n_outputs
    cdef Workspace* spare
    cdef list slots                     # Tensors, and (leaf,) for a leaf's gradient
    cdef list arrays
    # Where it says "target": a Tensor, the number of an argument, or a tuple of one of these for its gradient.
    cdef readonly list writes           # for each output beyond the results its target
    cdef readonly list cleared          # whose gradients become None
    cdef list gradient_states           # (target, whether its gradient was None)
    cdef list changes                   # ids of the slots, if the replay changes anything: no argument may be one of them
    cdef list generators                # that host calls draw from
    cdef Ground ground
    cdef object structure               # of the results
    cdef list rules                     # None, or for each result None or the Rule that puts it on the tape
    cdef list constants                 # for each leaf of the results None, or (what it is, whether to copy it)
    cdef Py_ssize_t simple              # 0: the result is one leaf, n: a tuple of n; -1: anything else
    cdef bint plain                     # arguments need no more looking at than replay does
    cdef double work
    cdef bytes step_of                  # for each value its step, an index_t, for explain
    cdef readonly object binding        # the trees of arguments and results: fastgrad.transforms.programs
    cdef index_t stopped_at             # the step of the guard that refused last; n_steps: the arguments did not fit
    cdef readonly dict held             # of a loaded Program: the Tensors that it reads besides its arguments, by name
    cdef readonly index_t refused       # calls that a guard refused
    cdef readonly bint pure             # changes nothing but its results, and reads nothing but its arguments

    def __cinit__(self):
        self.n_bases = 1
        self.held = {}
        self.writes, self.cleared, self.slots, self.arrays, self.gradient_states = [], [], [], [], []
        self.changes, self.generators = [], []

    def __dealloc__(self):
        cdef index_t i
        cdef Workspace* w
        if self.steps != NULL:
            for i in range(self.n_steps):
                if self.steps[i].group != NULL:
                    fg_group_free(self.steps[i].group)
                if self.steps[i].scalars != NULL:
                    fg_scalars_free(self.steps[i].scalars)
                PyMem_RawFree(self.steps[i].numbers)
            PyMem_RawFree(self.steps)
        if self.inputs != NULL:
            for i in range(self.n_arguments + self.n_slots + self.n_arrays):
                if self.inputs[i].shape != NULL:
                    shape_drop(self.inputs[i].shape)
            PyMem_RawFree(self.inputs)
        if self.outputs != NULL:
            for i in range(self.n_outputs):
                if self.outputs[i].shape != NULL:
                    shape_drop(self.outputs[i].shape)
                PyMem_RawFree(self.outputs[i].strides)
            PyMem_RawFree(self.outputs)
        while self.spare != NULL:
            w = self.spare
            self.spare = w.next
            workspace_free(w)

    def __len__(self):
        """How many operations a replay does."""
        return program_facts(self)["instructions"]

    @property
    def live_bytes(self):
        """The largest number of bytes that are needed at one time, constants included."""
        return self.live_peak + self.constant_bytes

    # -- workspaces

    cdef Workspace* take_workspace(self) except NULL:
        cdef Workspace* w = self.spare
        if w != NULL:
            self.spare = w.next
            return w
        return self.new_workspace()

    cdef Workspace* new_workspace(self) except NULL:
        cdef Workspace* w = <Workspace*>PyMem_RawCalloc(1, sizeof(Workspace) + <size_t>self.n_bases * sizeof(char*))
        cdef size_t arena = <size_t>self.arena_bytes + 8 * <size_t>self.temporaries
        if w == NULL:
            raise MemoryError("cannot allocate a workspace")
        if arena <= MAX_BLOCK and <size_t>self.scratch_bytes <= MAX_BLOCK:
            w.arena_block = aligned_block(arena, &w.arena)
            w.scratch_block = aligned_block(<size_t>self.scratch_bytes, &w.scratch)
        if w.arena_block == NULL or w.scratch_block == NULL:
            workspace_free(w)
            raise MemoryError(f"cannot allocate a workspace of {arena + <size_t>self.scratch_bytes} bytes")
        memcpy(w.arena, <const char*>self.template, len(self.template))
        w.bases[BASE_ARENA] = w.arena
        return w

    cdef inline void give_workspace(self, Workspace* w) noexcept:
        cdef PyObject* kept = w.kept
        w.kept = NULL
        w.next = self.spare
        self.spare = w
        Py_XDECREF(kept)        # last: it may run anything

    # -- a replay

    cdef int load(self, Input* input, Workspace* w, object given) except -1:
        """Puts one argument where the steps look for it.  Returns 0 where it does not fit the recording."""
        cdef Tensor t
        cdef cnp.ndarray a
        cdef Shape* shape = input.shape
        cdef Py_ssize_t d
        if type(given) is cnp.ndarray:
            a = <cnp.ndarray>given
            if input.form != FORM_ARRAY or cnp.PyArray_TYPE(a) != input.dtype or cnp.PyArray_NDIM(a) != shape.ndim:
                return 0
            for d in range(shape.ndim):
                if cnp.PyArray_DIMS(a)[d] != shape.dims[d]:
                    return 0
            if not input.used:
                return 1
            if not shape_is_plain(a):
                a = native_copy(a)
                keep_for_run(w, a)
            if input.cell:
                (<double*>(w.arena + input.place))[0] = \
                    (<double*>cnp.PyArray_DATA(a))[0] if input.dtype == NPY_DOUBLE else (<unsigned char*>cnp.PyArray_DATA(a))[0]
            elif input.base == BASE_ARENA:
                memcpy(w.arena + input.place, cnp.PyArray_DATA(a), <size_t>input.bytes)
            else:
                w.bases[input.base] = cnp.PyArray_BYTES(a)
            return 1
        if type(given) is Tensor:
            if input.form != FORM_TENSOR:
                return 0
            return self.load_tensor(input, w, <Tensor>given)
        if input.form != FORM_NUMBER:
            return 0
        if not PyFloat_CheckExact(given):
            return 0
        if input.used:
            (<double*>(w.arena + input.place))[0] = PyFloat_AS_DOUBLE(given)
        return 1

    cdef int load_tensor(self, Input* input, Workspace* w, Tensor t) except -1:
        cdef Array* a
        if t.dtype_number != input.dtype:
            return 0
        if t.array == NULL:
            if input.shape.ndim:
                return 0
            if input.used:
                (<double*>(w.arena + input.place))[0] = t.number
            return 1
        if not same_shape(t.array.shape, input.shape):
            return 0
        if not input.used:
            return 1
        a = t.array
        if a.strides != NULL:
            a = array_contiguous(a)
            t = new_tensor(a)
            keep_for_run(w, t)
            if t.array == NULL:
                (<double*>(w.arena + input.place))[0] = t.number
                return 1
        if input.base == BASE_ARENA:
            memcpy(w.arena + input.place, a.data, <size_t>input.bytes)
        else:
            w.bases[input.base] = a.data
            keep_for_run(w, lend(a))        # the memory, whatever somebody does to the Tensor meanwhile
        return 1

    cdef int load_outside(self, Workspace* w, PyObject** leaves) except -1:
        """Slots and arrays, and whether leaves have gradients where they had."""
        cdef Input* input = self.inputs + self.n_arguments
        cdef object slot, array
        cdef Tensor t
        cdef bint recording = current_tape().recording
        cdef index_t k
        for slot, was_none in self.gradient_states:
            t = target_tensor(slot, leaves)
            if (t.gradient is None) != was_none:
                return 0
        for slot in self.changes:
            for k in range(self.n_arguments):
                if <size_t>leaves[k] == <size_t>slot:
                    return 0
        for slot in self.slots:
            if type(slot) is tuple:
                slot = target_tensor(slot[0], leaves).gradient
                if type(slot) is not Tensor:
                    return 0
            elif recording and tracked(<Tensor>slot) != input.tracked:
                return 0
            if not self.load_tensor(input, w, <Tensor>slot):
                return 0
            input += 1
        for array in self.arrays:
            if not self.load(input, w, array):
                return 0
            input += 1
        return 1

    cdef tuple replay(self, PyObject** leaves, Py_ssize_t n, list given_outputs, int form):
        """The results, then what Tensors became; None where the recording does not hold.  An exception has changed nothing."""
        cdef list states
        cdef tuple results = None
        self.stopped_at = self.n_steps
        if n != <Py_ssize_t>self.n_arguments or (self.ground is not None and not self.ground.holds()):
            return None
        if not self.generators:
            return self.replay_once(leaves, given_outputs, form)
        states = [generator.bit_generator.state for generator in self.generators]
        try:
            results = self.replay_once(leaves, given_outputs, form)
        finally:
            if results is None:
                for generator, state in zip(self.generators, states):
                    generator.bit_generator.state = state
        return results

    cdef tuple replay_once(self, PyObject** leaves, list given_outputs, int form):
        cdef Workspace* w = self.take_workspace()
        cdef tuple results
        cdef index_t i
        cdef int code
        self.stopped_at = self.n_steps
        try:
            for i in range(self.n_arguments):
                if not self.load(self.inputs + i, w, <object>leaves[i]):
                    return None
            if (self.n_slots or self.n_arrays or self.gradient_states) and not self.load_outside(w, leaves):
                return None
            results = PyTuple_New(self.n_outputs)
            for i in range(self.n_outputs):
                put_item(results, i, self.room_for(self.outputs + i, w.bases, form if i < self.n_results else FORM_TENSOR,
                                                   None if given_outputs is None or i >= self.n_results else given_outputs[i]))
            if self.work > LONG_PROGRAM:
                with nogil:
                    code = self.run(w)
            else:
                code = self.run(w)
            if code == RUN_STOPPED:
                if not PyErr_Occurred():
                    raise MemoryError("fg.compile: a step could not run")
                pass_on_error()
            if code == RUN_LABELS:
                raise_labels(self.steps + w.step, w)
            if code == RUN_REFUSED:
                self.refused += 1
                self.stopped_at = w.step
                return None
            for i in range(self.n_outputs):
                put_item(results, i, self.finish(self.outputs + i, w.bases, form if i < self.n_results else FORM_TENSOR,
                                                 results[i]))
        finally:
            self.give_workspace(w)
        if self.writes or self.cleared:
            self.write_back(results, leaves)
        return results

    cdef object room_for(self, Output* out, char** bases, int form, object given):
        """Where a result goes: memory that the steps write straight into, or None."""
        cdef Array* a
        cdef Tensor t
        cdef cnp.ndarray array
        if given is not None:
            array = given
            if out.base > 0:
                bases[out.base] = cnp.PyArray_BYTES(array)
            return array
        if out.cell:
            return None
        if out.base > 0:
            if form != FORM_TENSOR and out.shape.ndim and out.shape.size * item_size(out.dtype) <= SMALL_RESULT:
                array = cnp.PyArray_EMPTY(<int>out.shape.ndim, <cnp.npy_intp*>out.shape.dims, out.dtype, 0)
                bases[out.base] = cnp.PyArray_BYTES(array)
                return array
            a = array_new(out.shape, out.dtype)
            bases[out.base] = a.data
            return new_tensor(a)
        return None

    cdef object finish(self, Output* out, char** bases, int form, object room):
        """A result as the caller's kind of array."""
        cdef double number
        cdef cnp.ndarray array
        cdef Array* a
        cdef Tensor t
        cdef char* source = bases[out.from_base] + out.place
        if out.cell:
            number = (<double*>source)[0]
            if type(room) is cnp.ndarray:
                if out.dtype == NPY_DOUBLE:
                    (<double*>cnp.PyArray_DATA(<cnp.ndarray>room))[0] = number
                else:
                    (<unsigned char*>cnp.PyArray_DATA(<cnp.ndarray>room))[0] = number != 0
                return room
            if form == FORM_TENSOR:
                t = new_number(number)
                t.dtype_number = out.dtype
                return t
            if out.dtype == NPY_DOUBLE:
                return fg_float64(number)
            return np.bool_(number != 0)
        if out.base > 0:
            if type(room) is Tensor and form != FORM_TENSOR:
                t = room
                return view_ndarray(t.array, True) if out.shape.ndim else view_ndarray(t.array, True)[()]
            return room
        if type(room) is cnp.ndarray:
            copy_strided(source, out.strides, out.shape, item_size(out.dtype), cnp.PyArray_BYTES(<cnp.ndarray>room))
            return room
        if form == FORM_TENSOR:
            a = array_new(out.shape, out.dtype)
            copy_strided(source, out.strides, out.shape, item_size(out.dtype), a.data)
            return new_tensor(a)
        array = cnp.PyArray_EMPTY(<int>out.shape.ndim, <cnp.npy_intp*>out.shape.dims, out.dtype, 0)
        copy_strided(source, out.strides, out.shape, item_size(out.dtype), cnp.PyArray_BYTES(array))
        return array if out.shape.ndim else array[()]

    cdef int write_back(self, tuple results, PyObject** leaves) except -1:
        """Tensors from outside take their new values; nothing here can fail."""
        cdef Py_ssize_t k = self.n_results
        cdef Tensor v
        for target in self.writes:
            v = results[k]
            k += 1
            if type(target) is tuple:           # a gradient
                target_tensor(target[0], leaves).gradient = v
            elif type(target) is int and type(<object>leaves[<int>target]) is cnp.ndarray:
                (<object>leaves[<int>target])[...] = to_ndarray(v)
            elif type(target) is not int or type(<object>leaves[<int>target]) is Tensor:
                take_value(target_tensor(target, leaves), v)
        for target in self.cleared:
            target_tensor(target, leaves).gradient = None
        return 0

    # -- results

    cdef int keep_structure(self, Recorded r, object call, object python) except -1:
        """How results become what the function returned."""
        cdef Py_ssize_t k
        self.structure = r.structure
        self.constants = [None if type(leaf) is Tensor else python.constant_result(leaf, call) for leaf in r.leaves]
        self.simple = -1
        if all([c is None for c in self.constants]):
            if r.structure == ():
                self.simple = 0
            elif r.structure[0] is tuple and all([part == () for part in r.structure[2]]):
                self.simple = len(r.leaves) or -1
        self.plain = call.plain
        for target in self.writes + self.cleared:
            if type(target) is int or (type(target) is tuple and type(target[0]) is int):
                self.plain = False
        return 0

    cdef object build(self, tuple results):
        """What replay returned as the function returned it."""
        cdef Py_ssize_t k, at = 0
        cdef list leaves
        if self.simple == 0:
            return results[0]
        if self.simple > 0:
            return results if self.n_results == self.n_outputs else results[:self.n_results]
        leaves = list(results[:self.n_results])
        for k in range(len(self.constants)):
            if self.constants[k] is not None:
                value, copied = <tuple>self.constants[k]
                leaves.insert(k, value.copy() if copied else value)
        return unflatten_tuples(self.structure, leaves, &at)

    cdef int run(self, Workspace* w) noexcept nogil:
        """The steps in order."""
        cdef index_t i
        cdef Step* step
        cdef int code
        for i in range(self.n_steps):
            step = self.steps + i
            w.step = i
            if step.kind == STEP_HOST:
                code = self.run_host(step, w)
            else:
                code = run_step(step, w, self.trace.values, look_for_signals)
            if code != RUN_DONE:
                return code
            if self.work > LONG_PROGRAM and (step.kind != STEP_SCALARS or step.size[0] > 10000) and look_for_signals(NULL) != 0:
                return RUN_STOPPED
        return RUN_DONE

    # -- what a user calls; the rest of it is in store.pxi and fastgrad.transforms.programs

    def __call__(self, *arguments, **keywords):
        return call_program(self, arguments, keywords)

    def __repr__(self):
        return HOOKS["programs"].short_text(self)

    def __reduce__(self):
        return HOOKS["programs"].load_bytes, (HOOKS["programs"].to_bytes(self),)

    def explain(self, most=40):
        """What a replay does, as a text: steps in order, shapes, bytes, flops, memory, guards, what lies outside.

        Parameters
        ----------
        most : int
            Of more steps than this only the dearest are listed.

        Returns
        -------
        str

        Examples
        --------
        >>> import numpy as np
        >>> import fastgrad as fg
        >>> program = fg.compile(lambda x: np.sum(np.exp(x) * 2.0)).program(np.zeros(1000))
        >>> print(program.explain().splitlines()[0])
        Program of <lambda>: 1 argument, 1 result, 1 step
        """
        return HOOKS["programs"].explain(self, most)

    def save(self, path):
        """Writes the Program to a file that ``fg.load_program`` reads.

        The file is a zip with ``program.json`` and arrays in NumPy's .npy format; it holds no code.  Tensors and arrays
        that the function read from outside are written with their present values: see ``held``.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        TypeError
            If the Program changes Tensors from outside, calls Python, or has arguments or results in containers other
            than tuples, lists and dicts with string keys.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> import fastgrad as fg
        >>> path = os.path.join(tempfile.mkdtemp(), "slope.fg")
        >>> fg.compile(fg.grad(lambda x: np.sum(x ** 3))).program(np.zeros(2)).save(path)
        >>> fg.load_program(path)(np.array([1.0, 2.0]))
        array([ 3., 12.])
        """
        HOOKS["programs"].save(self, path)

    def c_function(self, signature="full"):
        """The Program as a C function that needs neither Python nor the GIL.

        Parameters
        ----------
        signature : {"full", "value", "number"}
            "full": ``int f(const double *x, double *value, double *gradient, void *workspace)``;
            "value": ``double f(int n, double *x, void *workspace)``;
            "number": ``double f(double x, void *workspace)``.

        Returns
        -------
        CFunction

        Raises
        ------
        TypeError
            If arguments or results are not float64, or the Program calls Python or changes Tensors from outside.

        Notes
        -----
        docs/c-abi.md says what the pointers are, what is returned and how threads use it.

        Examples
        --------
        >>> import numpy as np
        >>> import fastgrad as fg
        >>> program = fg.compile(lambda x: x[0] * x[1]).program(np.zeros(2))
        >>> f = program.c_function("value")
        >>> w = f.workspace()
        >>> import ctypes
        >>> f.ctypes(2, (ctypes.c_double * 2)(3.0, 4.0), w.address)
        12.0
        """
        return c_function_of(self, signature)

    cdef int run_host(self, Step* step, Workspace* w) noexcept with gil:
        try:
            return self.call_host_step(step, w)
        except BaseException as error:
            if (<object>(self.trace.values + step.value).extra.rule).pure and isinstance(error, Exception) \
                    and not isinstance(error, MemoryError):
                return RUN_REFUSED      # run again as Python, the function raises its own exception, if any
            restore_error(error)
            return RUN_STOPPED

    cdef int call_host_step(self, Step* step, Workspace* w) except -2:
        """Calls Python with the operands as arrays; refuses where the results have another shape than when recorded."""
        cdef Value* v = self.trace.values + step.value
        cdef Py_ssize_t k, n = v.extra.n_operands
        cdef index_t p
        cdef list operands = []
        cdef const Py_ssize_t* numbers = step.numbers
        cdef object results, call = <object>v.extra.rule
        cdef cnp.ndarray a
        for k in range(n):
            operands.append(array_at(self.trace.values + v.extra.operands[k], w.bases[numbers[0]] + numbers[1], numbers + 2))
            numbers += 2 + self.trace.values[v.extra.operands[k]].shape.ndim
        results = call(operands)
        if type(results) is not tuple and type(results) is not list:
            results = (results,)
        k = 0
        while numbers < step.numbers + step.n_numbers:      # the value itself and its picks, where they are needed
            p = <index_t>numbers[2]
            v = self.trace.values + p
            a = np.asarray(results[numbers[3]])
            if cnp.PyArray_NDIM(a) != v.shape.ndim or (<object>a).shape != shape_tuple(v.shape) or cnp.PyArray_TYPE(a) != v.dtype:
                return RUN_REFUSED
            if in_cell(v):
                (<double*>(w.bases[numbers[0]] + numbers[1]))[0] = float(a)
            else:
                if not shape_is_plain(a):
                    a = np.array(a, order="C")
                memcpy(w.bases[numbers[0]] + numbers[1], cnp.PyArray_DATA(a), <size_t>v.shape.size * <size_t>item_size(v.dtype))
            numbers += 4
        return RUN_DONE


cdef Tensor target_tensor(object target, PyObject** leaves):
    """A Tensor from outside, or an argument by its number."""
    return <Tensor>target if type(target) is Tensor else <Tensor?><object>leaves[<int>target]


cdef inline int put_item(tuple results, Py_ssize_t k, object item) except -1:
    """An item of a tuple that nobody else has seen, in place of the one that is there."""
    cdef PyObject* before = PySequence_Fast_ITEMS(results)[k]
    Py_INCREF(item)
    PyTuple_SET_ITEM(results, k, item)
    Py_XDECREF(before)
    return 0


cdef int keep_for_run(Workspace* w, object what) except -1:
    """Keeps an object until the workspace is given back."""
    if w.kept == NULL:
        kept = []
        Py_INCREF(kept)
        w.kept = <PyObject*>kept
    (<list>w.kept).append(what)
    return 0


cdef Lender lend(Array* a):
    cdef Lender lender = Lender.__new__(Lender)
    lender.array = array_keep(a)
    return lender


cdef void workspace_free(Workspace* w) noexcept:
    PyMem_RawFree(w.arena_block)
    PyMem_RawFree(w.scratch_block)
    PyMem_RawFree(w)


cdef int pass_on_error() except -1:
    """An exception is set: it goes on from here."""
    return -1


cdef void restore_error(object error) noexcept:
    """Sets an exception that was caught, so that it goes on from here."""
    cdef object kind = type(error)
    Py_INCREF(kind)
    Py_INCREF(error)
    PyErr_Restore(<PyObject*>kind, <PyObject*>error, NULL)


cdef object native_copy(object a):
    """A contiguous copy in the machine's byte order, of the same shape."""
    return np.array(a, dtype=a.dtype.newbyteorder("="), order="C")


cdef int look_for_signals(void* context) noexcept nogil:
    """Ctrl-C in a long replay."""
    with gil:
        try:
            PyErr_CheckSignals()
        except BaseException as error:
            restore_error(error)
            return 1
    return 0


cdef int take_value(Tensor t, Tensor v) noexcept:
    """What an in-place operation leaves: t with v's numbers, off the tape."""
    cdef Array* old = t.array
    if t.node:
        leave_tape(t)
    t.number = v.number
    t.array = array_keep(v.array) if v.array != NULL else NULL
    if old != NULL:
        array_drop(old)
    return 0


cdef cnp.ndarray array_at(const Value* v, char* data, const Py_ssize_t* strides):
    """A copy of a value as an array, for a call of Python."""
    cdef cnp.ndarray a = cnp.PyArray_EMPTY(<int>v.shape.ndim, <cnp.npy_intp*>v.shape.dims, v.dtype, 0)
    if in_cell(v) and v.dtype == NPY_BOOL:
        (<unsigned char*>cnp.PyArray_DATA(a))[0] = (<double*>data)[0] != 0
    else:
        copy_strided(data, strides, v.shape, item_size(v.dtype), cnp.PyArray_BYTES(a))
    return a


cdef void copy_strided(const char* source, const Py_ssize_t* strides, const Shape* shape, Py_ssize_t item, char* to) noexcept nogil:
    """Elements of any size into contiguous memory."""
    cdef Py_ssize_t index[FG_MAX_NDIM]
    cdef Py_ssize_t d, last = shape.ndim - 1, i, n, step
    cdef const char* row = source
    if shape.size == 0:
        return
    if strides == NULL or shape.ndim == 0:
        memcpy(to, source, <size_t>shape.size * <size_t>item)
        return
    for d in range(shape.ndim):
        index[d] = 0
    n = shape.dims[last]
    step = strides[last]
    while True:
        if step == item:
            memcpy(to, row, <size_t>n * <size_t>item)
            to += n * item
        elif item == 8:
            for i in range(n):
                (<int64_t*>to)[i] = (<const int64_t*>(row + i * step))[0]
            to += n * item
        else:
            for i in range(n):
                memcpy(to, row + i * step, <size_t>item)
                to += item
        d = last - 1
        while d >= 0:
            index[d] += 1
            row += strides[d]
            if index[d] < shape.dims[d]:
                break
            row -= index[d] * strides[d]
            index[d] = 0
            d -= 1
        if d < 0:
            return


# -------------------------------------------------------------------------------------------------------------- the steps

cdef int run_step(const Step* step, Workspace* w, const Value* values, fg_interrupt interrupt) noexcept nogil:
    """Any step but a call of Python.  RUN_STOPPED: the interrupt asked for it."""
    if step.kind == STEP_SCALARS:
        fg_scalars_run(step.scalars, <double*>w.arena)
    elif step.kind == STEP_GROUP:
        if fg_group_run(step.group, w.bases, w.scratch, interrupt, NULL) != 0:
            return RUN_STOPPED
    elif step.kind == STEP_PRODUCT:
        return run_products(step, w, interrupt)
    elif step.kind == STEP_GUARD:
        if not guard_holds(step, w):
            return RUN_REFUSED
    elif step.kind == STEP_JOIN:
        return run_join(step, w, interrupt)
    elif step.kind == STEP_COPY:
        return run_copy(step, w, values, interrupt)
    elif step.kind == STEP_GATHER or step.kind == STEP_SCATTER:
        return run_picks(step, w, values, interrupt)
    elif step.kind == STEP_SUM or step.kind == STEP_EXTREME:
        return run_reduction(step, values + step.value, values + values[step.value].o[0], w.bases[step.base[1]] + step.place[1],
                             w.bases[step.base[0]] + step.place[0], w.scratch, interrupt)
    else:
        if (step.kind == STEP_CROSS_ENTROPY or step.kind == STEP_CROSS_ENTROPY_PULL) and not labels_hold(step, w):
            return RUN_LABELS
        return run_rows_in_pieces(step, w, values, interrupt)
    return RUN_DONE


cdef inline bint asked_to_stop(fg_interrupt interrupt, Py_ssize_t* done, Py_ssize_t more, Py_ssize_t often) noexcept nogil:
    """Looks at the interrupt each time that about so much has been done."""
    done[0] += more
    if done[0] < often or interrupt == NULL:
        return False
    done[0] = 0
    return interrupt(NULL) != 0


cdef int run_rows_in_pieces(const Step* step, Workspace* w, const Value* values, fg_interrupt interrupt) noexcept nogil:
    """So many rows at a time that Ctrl-C is seen in between."""
    cdef Py_ssize_t n = step.size[1], rows = step.size[0], item = 8 if step.type == FG_F64 else 4, at, k
    cdef Py_ssize_t whole = n * item
    cdef Py_ssize_t row[6]                  # bytes from one row to the next, of the result and each operand
    cdef Py_ssize_t many = PIECE // n if n else rows
    cdef Step part
    if many < 1:
        many = 1
    if rows <= many or step.kind == STEP_ASSEMBLE:
        run_rows(step, w, values)
        return RUN_DONE
    part = step[0]
    row[0], row[1], row[2], row[3], row[4], row[5] = whole, whole, whole, 0, 0, whole
    if step.kind == STEP_ROWS:
        row[0] = item if step.size[2] == OP_LOGSUMEXP else whole
    elif step.kind == STEP_CROSS_ENTROPY:
        row[0], row[2] = item, 8
    elif step.kind == STEP_CROSS_ENTROPY_PULL:
        row[1], row[5] = item, 8
    elif step.kind == STEP_EXTREME_PULL or step.size[2] == OP_LOGSUMEXP:
        row[1], row[5] = item, item
    at = 0
    while at < rows:
        part.size[0] = many if many < rows - at else rows - at
        run_rows(&part, w, values)
        at += part.size[0]
        for k in range(6):
            part.place[k] += row[k] * part.size[0]
        if interrupt != NULL and interrupt(NULL) != 0:
            return RUN_STOPPED
    return RUN_DONE


cdef const int64_t* labels_of(const Step* step, Workspace* w) noexcept nogil:
    cdef int k = 2 if step.kind == STEP_CROSS_ENTROPY else 5
    return <const int64_t*>(w.bases[step.base[k]] + step.place[k])


cdef bint labels_hold(const Step* step, Workspace* w) noexcept nogil:
    """Whether the class numbers are in range: the kernels index by them."""
    cdef const int64_t* label = labels_of(step, w)
    cdef Py_ssize_t i
    for i in range(step.size[0]):
        if label[i] < 0 or label[i] >= step.size[1]:
            return False
    return True


cdef int raise_labels(const Step* step, Workspace* w) except -1:
    cdef const int64_t* label
    cdef Py_ssize_t wrong[3]
    if step.kind == STEP_GATHER or step.kind == STEP_SCATTER:
        find_places(step, w, <Py_ssize_t*>w.scratch, wrong)
        raise IndexError(f"index {wrong[0]} is out of bounds for axis {wrong[1]} with size {wrong[2]}")
    label = labels_of(step, w)
    cdef list labels = [label[i] for i in range(step.size[0])]
    raise IndexError(f"cross_entropy: class numbers go from 0 to {step.size[1] - 1}, not from {sorted(labels)[0]} to "
                     f"{sorted(labels)[-1]}")


cdef bint guard_holds(const Step* step, Workspace* w) noexcept nogil:
    cdef const char* at = w.bases[step.base[0]] + step.place[0]
    cdef bint truth
    cdef Py_ssize_t k
    if step.type == FG_F64:
        truth = (<const double*>at)[0] != 0
    elif step.type == FG_F32:
        truth = (<const float*>at)[0] != 0
    else:                                   # bool and integers
        truth = False
        for k in range(step.size[1]):
            truth = truth or at[k] != 0
    return truth == (step.size[0] != 0)


cdef int run_products(const Step* step, Workspace* w, fg_interrupt interrupt) noexcept nogil:
    cdef const char* a = w.bases[step.base[1]] + step.place[1]
    cdef const char* b = w.bases[step.base[2]] + step.place[2]
    cdef const char* bias = w.bases[step.base[3]] + step.place[3] if step.product.bias else NULL
    cdef char* pre = w.bases[step.base[4]] + step.place[4] if step.size[1] else NULL
    cdef char* to = w.bases[step.base[0]] + step.place[0]
    cdef Py_ssize_t i, rest, d, x, y, item = 8 if step.type == FG_F64 else 4, done = 0, one
    if step.n_numbers == 0:
        return run_product(&step.product, a, b, bias, pre, to, w.scratch, interrupt, &done)
    one = step.product.m * step.product.n * item
    for i in range(step.size[0]):
        rest = i
        x = y = 0
        d = step.n_numbers
        while d:
            d -= 3
            x += (rest % step.numbers[d]) * step.numbers[d + 1]
            y += (rest % step.numbers[d]) * step.numbers[d + 2]
            rest //= step.numbers[d]
        if run_product(&step.product, a + x, b + y, bias, pre + i * one if pre != NULL else NULL, to + i * one, w.scratch,
                       interrupt, &done) != RUN_DONE:
            return RUN_STOPPED
    return RUN_DONE


cdef int run_product(const fg_product* p, const char* a, const char* b, const char* bias, char* pre, char* to, char* scratch,
                     fg_interrupt interrupt, Py_ssize_t* done) noexcept nogil:
    """One product, a long one some rows at a time: as many for each shape, so that the bits are always the same."""
    cdef fg_product part
    cdef Py_ssize_t many, at = 0, item = 8 if p.type == FG_F64 else 4, rows
    cdef double row = <double>p.k * p.n
    many = (<Py_ssize_t>(PRODUCT_PIECE / row) + 255) // 256 * 256 if row > 0 else p.m
    part = p[0]
    part.m = many
    if many < 256 or p.m < 2 * many or fg_product_scratch(&part) > fg_product_scratch(p):
        fg_product_run(p, a, b, bias, pre, to, scratch)
        return RUN_STOPPED if asked_to_stop(interrupt, done, <Py_ssize_t>(row * p.m), <Py_ssize_t>PRODUCT_PIECE) else RUN_DONE
    while at < p.m:
        part.m = many if p.m - at >= 2 * many else p.m - at
        rows = at * p.to_row * item
        fg_product_run(&part, a + at * p.a_row * item, b, bias, pre + rows if pre != NULL else NULL, to + rows, scratch)
        at += part.m
        if interrupt != NULL and interrupt(NULL) != 0:
            return RUN_STOPPED
    return RUN_DONE


cdef int run_join(const Step* step, Workspace* w, fg_interrupt interrupt) noexcept nogil:
    """Parts side by side: for each its base, place, place in a row, and bytes of a row."""
    cdef char* to = w.bases[step.base[0]] + step.place[0]
    cdef Py_ssize_t i, k = 0, done = 0, at, n, piece
    cdef const char* part
    while k < step.n_numbers:
        part = w.bases[step.numbers[k]] + step.numbers[k + 1]
        n = step.numbers[k + 3]
        for i in range(step.size[0]):
            at = 0
            while at < n:
                piece = 8 * PIECE if n - at > 8 * PIECE else n - at
                memcpy(to + i * step.size[1] + step.numbers[k + 2] + at, part + i * n + at, <size_t>piece)
                at += piece
                if asked_to_stop(interrupt, &done, piece, 8 * PIECE):
                    return RUN_STOPPED
        k += 4
    return RUN_DONE


cdef void run_rows(const Step* step, Workspace* w, const Value* values) noexcept nogil:
    """Everything that is a loop over rows."""
    cdef char* to = w.bases[step.base[0]] + step.place[0]
    cdef const char* x = w.bases[step.base[1]] + step.place[1]
    cdef const char* y = w.bases[step.base[2]] + step.place[2]
    cdef const char* out = w.bases[step.base[5]] + step.place[5]
    cdef Py_ssize_t rows = step.size[0], n = step.size[1]
    cdef const Value* v = values + step.value
    cdef int type = step.type
    cdef int op = <int>step.size[2]
    if step.kind == STEP_ASSEMBLE:
        run_assembly(step, w, v, to)
    elif step.kind == STEP_ROWS:
        if op == OP_LOGSUMEXP:
            fg_kernels.logsumexp[type](rows, n, x, to)
        elif op == OP_SOFTMAX:
            fg_kernels.softmax[type](rows, n, x, to)
        else:
            fg_kernels.log_softmax[type](rows, n, x, to)
    elif step.kind == STEP_ROW_PULL:
        if op == OP_LOGSUMEXP:
            fg_kernels.logsumexp_pull[type](rows, n, x, y, out, to)
        elif op == OP_SOFTMAX:
            fg_kernels.softmax_pull[type](rows, n, x, out, to)
        else:
            fg_kernels.log_softmax_pull[type](rows, n, x, out, to)
    elif step.kind == STEP_CROSS_ENTROPY:
        fg_kernels.cross_entropy[type](rows, n, x, <const int64_t*>y, to)
    elif step.kind == STEP_CROSS_ENTROPY_PULL:
        fg_kernels.cross_entropy_pull[type](rows, n, x, y, <const int64_t*>out, to)
    elif step.kind == STEP_EXTREME_PULL:
        fg_kernels.extreme_pull[type](rows, n, x, y, out, to)


cdef int run_copy(const Step* step, Workspace* w, const Value* values, fg_interrupt interrupt) noexcept nogil:
    """A view made contiguous, or numbers in another type."""
    cdef const Value* v = values + step.value
    cdef const Value* x = values + v.o[0]
    cdef char* to = w.bases[step.base[0]] + step.place[0]
    cdef const char* source = w.bases[step.base[1]] + step.place[1]
    cdef double number
    if v.op == OP_CAST:
        integers_to_floats(<int>step.size[2], v.shape.size, source, step.type, to)
    elif step.size[4] or step.size[5]:        # truth values between cells and bytes
        number = (<const double*>source)[0] if step.size[4] else (<const unsigned char*>source)[0]
        if step.size[5]:
            (<double*>to)[0] = number
        else:
            memset(to, number != 0, <size_t>v.shape.size)
    else:
        return copy_in_pieces(source, step.numbers if v.shape.ndim else NULL, v.shape, step.size[3], to, interrupt)
    return RUN_DONE


cdef int copy_in_pieces(const char* source, const Py_ssize_t* strides, const Shape* shape, Py_ssize_t item, char* to,
                        fg_interrupt interrupt) noexcept nogil:
    """copy_strided, a long one some of the first axis at a time."""
    cdef char memory[1024]
    cdef Shape* part = <Shape*>memory               # a Shape of at most 64 axes takes less
    cdef Py_ssize_t inner, many, at = 0
    if strides == NULL or shape.size <= PIECE:
        copy_strided(source, strides, shape, item, to)
        return RUN_DONE
    memcpy(part, shape, sizeof(Shape) + <size_t>shape.ndim * sizeof(Py_ssize_t))
    inner = shape.size // shape.dims[0]
    many = PIECE // inner + 1
    while at < shape.dims[0]:
        part.dims[0] = many if many < shape.dims[0] - at else shape.dims[0] - at
        part.size = part.dims[0] * inner
        copy_strided(source + at * strides[0], strides, part, item, to + at * inner * item)
        at += part.dims[0]
        if interrupt != NULL and interrupt(NULL) != 0:
            return RUN_STOPPED
    return RUN_DONE


ctypedef fused integer:
    signed char
    unsigned char
    short
    unsigned short
    int
    unsigned int
    long
    unsigned long
    long long
    unsigned long long


cdef inline void integers_to(integer* x, Py_ssize_t n, int type, char* to) noexcept nogil:
    cdef Py_ssize_t i
    if type == FG_F64:
        for i in range(n):
            (<double*>to)[i] = <double>x[i]
    else:
        for i in range(n):
            (<float*>to)[i] = <float>x[i]


cdef void integers_to_floats(int dtype, Py_ssize_t n, const char* x, int type, char* to) noexcept nogil:
    """Integers of NumPy's type `dtype` as floats of `type`."""
    if dtype == cnp.NPY_BYTE:
        integers_to(<signed char*>x, n, type, to)
    elif dtype == cnp.NPY_UBYTE:
        integers_to(<unsigned char*>x, n, type, to)
    elif dtype == cnp.NPY_SHORT:
        integers_to(<short*>x, n, type, to)
    elif dtype == cnp.NPY_USHORT:
        integers_to(<unsigned short*>x, n, type, to)
    elif dtype == cnp.NPY_INT:
        integers_to(<int*>x, n, type, to)
    elif dtype == cnp.NPY_UINT:
        integers_to(<unsigned int*>x, n, type, to)
    elif dtype == cnp.NPY_LONG:
        integers_to(<long*>x, n, type, to)
    elif dtype == cnp.NPY_ULONG:
        integers_to(<unsigned long*>x, n, type, to)
    elif dtype == cnp.NPY_LONGLONG:
        integers_to(<long long*>x, n, type, to)
    else:
        integers_to(<unsigned long long*>x, n, type, to)


cdef inline Py_ssize_t integer_at(int dtype, const char* x) noexcept nogil:
    if dtype == cnp.NPY_LONG:
        return <Py_ssize_t>(<const long*>x)[0]
    if dtype == cnp.NPY_LONGLONG:
        return <Py_ssize_t>(<const long long*>x)[0]
    if dtype == cnp.NPY_INT:
        return (<const int*>x)[0]
    if dtype == cnp.NPY_SHORT:
        return (<const short*>x)[0]
    if dtype == cnp.NPY_BYTE:
        return (<const signed char*>x)[0]
    if dtype == cnp.NPY_UBYTE:
        return (<const unsigned char*>x)[0]
    if dtype == cnp.NPY_USHORT:
        return (<const unsigned short*>x)[0]
    if dtype == cnp.NPY_UINT:
        return <Py_ssize_t>(<const unsigned int*>x)[0]
    if dtype == cnp.NPY_ULONG:
        return <Py_ssize_t>(<const unsigned long*>x)[0]
    return <Py_ssize_t>(<const unsigned long long*>x)[0]


cdef bint find_places(const Step* step, Workspace* w, Py_ssize_t* places, Py_ssize_t* wrong) noexcept nogil:
    """Where the index leads, each number looked at.  False: one is out of range; `wrong` has it, the axis and its length."""
    cdef Py_ssize_t index[FG_MAX_NDIM]
    cdef Py_ssize_t k, j, d, i, n = step.size[5]
    cdef const Py_ssize_t* dims = step.numbers
    cdef const Py_ssize_t* numbers = dims + n
    cdef const char* at
    memset(places, 0, <size_t>step.size[1] * sizeof(Py_ssize_t))
    for k in range(step.size[4]):
        at = w.bases[numbers[0]] + numbers[1]
        for d in range(n):
            index[d] = 0
        for j in range(step.size[1]):
            i = integer_at(<int>numbers[2], at)
            if i < -numbers[4] or i >= numbers[4]:
                wrong[0], wrong[1], wrong[2] = i, numbers[3], numbers[4]
                return False
            places[j] += (i + numbers[4] if i < 0 else i) * numbers[5]
            d = n
            while d:
                d -= 1
                index[d] += 1
                at += numbers[6 + d]
                if index[d] < dims[d]:
                    break
                at -= index[d] * numbers[6 + d]
                index[d] = 0
        numbers += 6 + n
    return True


cdef int run_picks(const Step* step, Workspace* w, const Value* values, fg_interrupt interrupt) noexcept nogil:
    """x[index], or zeros with x added there, float32 in double precision, as NumPy's bincount does."""
    cdef const Value* v = values + step.value
    cdef Py_ssize_t* places = <Py_ssize_t*>w.scratch
    cdef const char* x = w.bases[step.base[1]] + step.place[1]
    cdef char* to = w.bases[step.base[0]] + step.place[0]
    cdef double* sums = <double*>to if step.type == FG_F64 else <double*>(places + step.size[1])
    cdef Py_ssize_t wrong[3]
    cdef Py_ssize_t o, j, k, inner = step.size[3], row = inner, done = 0      # of a gather both in bytes
    if step.kind == STEP_SCATTER:
        row *= 8 if step.type == FG_F64 else 4
    if not find_places(step, w, places, wrong):
        return RUN_LABELS
    if step.kind == STEP_SCATTER:
        memset(sums, 0, <size_t>v.shape.size * sizeof(double))
    for o in range(step.size[0]):
        for j in range(step.size[1]):
            if step.kind == STEP_SCATTER:
                if step.type == FG_F64:
                    for k in range(inner):
                        sums[places[j] * inner + k] += (<const double*>x)[k]
                else:
                    for k in range(inner):
                        sums[places[j] * inner + k] += (<const float*>x)[k]
                x += row
            else:
                if row == 8:
                    (<int64_t*>to)[0] = (<const int64_t*>x)[places[j]]
                else:
                    memcpy(to, x + places[j] * row, <size_t>row)
                to += row
            if asked_to_stop(interrupt, &done, inner + 1, PIECE):
                return RUN_STOPPED
        if step.kind == STEP_SCATTER:
            sums += step.size[2] * inner
        else:
            x += step.size[2] * row
    if step.kind == STEP_SCATTER and step.type == FG_F32:
        sums = <double*>(places + step.size[1])
        for k in range(v.shape.size):
            (<float*>to)[k] = <float>sums[k]
    return RUN_DONE


cdef void run_assembly(const Step* step, Workspace* w, const Value* v, char* to) noexcept nogil:
    """Zeros or a whole array, with the parts added where they belong."""
    cdef const Py_ssize_t* numbers = step.numbers
    cdef const Py_ssize_t* end = numbers + step.n_numbers
    cdef const char* source
    cdef Py_ssize_t item = 8 if step.type == FG_F64 else 4
    if numbers[2] < 0:
        memcpy(to, w.bases[numbers[0]] + numbers[1], <size_t>v.shape.size * <size_t>item)
        numbers += 3
    else:
        memset(to, 0, <size_t>v.shape.size * <size_t>item)
    while numbers < end:
        source = w.bases[numbers[0]] + numbers[1]
        if numbers[2] == 0 and step.type == FG_F64:
            (<double*>to)[numbers[3]] += (<const double*>source)[0]
        else:
            add_part(step.type, numbers + 2, source, to)
        numbers += 4 + 2 * numbers[2]


cdef void add_part(int type, const Py_ssize_t* numbers, const char* source, char* to) noexcept nogil:
    """numbers: how many axes, an offset, lengths, strides, in elements of `to`."""
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Py_ssize_t own[FG_MAX_NDIM]
    cdef Py_ssize_t d, n = numbers[0], item = 8 if type == FG_F64 else 4, step = item, size = 1
    cdef fg_view part, sink
    cdef fg_extent extent
    for d in range(n - 1, -1, -1):
        own[d] = step
        step *= numbers[2 + d]
        size *= numbers[2 + d]
        strides[d] = numbers[2 + n + d] * item
    part.kind = sink.kind = FG_STRIDED
    part.type = sink.type = type
    part.data, part.strides = <char*>source, own
    sink.data, sink.strides = to + numbers[1] * item, strides
    extent.ndim = <int>n
    extent.dims = numbers + 2
    extent.size = size
    fg_run_add(type, &extent, &part, &sink)


cdef int run_reduction(const Step* step, const Value* v, const Value* x, const char* source, char* to,
                       char* scratch, fg_interrupt interrupt) noexcept nogil:
    """Sums and extremes over any axes: for each result the elements it takes, gathered if they do not lie in a row."""
    cdef Py_ssize_t outer_index[FG_MAX_NDIM]
    cdef Py_ssize_t outer_dims[FG_MAX_NDIM]
    cdef Py_ssize_t outer_strides[FG_MAX_NDIM]
    cdef Py_ssize_t d, n_outer = 0, i, n = 1, item = 8 if step.type == FG_F64 else 4
    cdef unsigned int mask = v.parameter
    cdef const char* at
    cdef double value
    cdef char* buffer = scratch + 1024
    cdef Shape* inner_shape = <Shape*>scratch       # a Shape of at most 64 axes takes less than 1024 bytes
    cdef Py_ssize_t inner_strides[FG_MAX_NDIM]
    cdef Py_ssize_t n_inner = 0
    cdef bint plain = True
    cdef Py_ssize_t expected = item, done = 0, width
    for d in range(x.shape.ndim):
        if mask >> d & 1:
            inner_shape.dims[n_inner] = x.shape.dims[d]
            inner_strides[n_inner] = step.numbers[d]
            n *= x.shape.dims[d]
            n_inner += 1
        else:
            outer_dims[n_outer] = x.shape.dims[d]
            outer_strides[n_outer] = step.numbers[d]
            n_outer += 1
    width = row_width(step, x, mask, item) if step.kind == STEP_SUM and 1 < n <= FEW_ROWS else 1
    if width > 1:               # rows below each other: whole rows are added
        expected = width
        while expected > 1:
            n_outer -= 1
            expected //= outer_dims[n_outer]
        plain, expected = True, item
    inner_shape.ndim = n_inner
    inner_shape.size = n
    d = n_inner
    while d and width == 1:
        d -= 1
        if inner_shape.dims[d] != 1 and inner_strides[d] != expected:
            plain = False
        expected *= inner_shape.dims[d]
    for d in range(n_outer):
        outer_index[d] = 0
    at = source
    for i in range(v.shape.size // width if width else 0):
        if asked_to_stop(interrupt, &done, n * width, PIECE):
            return RUN_STOPPED
        if width > 1:
            fg_kernels.fill[step.type](width, 0, to + i * width * item)
            fg_kernels.add_rows[step.type](n, width, at, to + i * width * item)
        elif plain:
            value = reduce_row(step, n, at)
        else:
            copy_strided(at, inner_strides, inner_shape, item, buffer)
            value = reduce_row(step, n, buffer)
        if width == 1:
            if step.type == FG_F64:
                (<double*>to)[i] = value
            else:
                (<float*>to)[i] = <float>value
        d = n_outer
        while d:
            d -= 1
            outer_index[d] += 1
            at += outer_strides[d]
            if outer_index[d] < outer_dims[d]:
                break
            at -= outer_index[d] * outer_strides[d]
            outer_index[d] = 0
    return RUN_DONE


cdef Py_ssize_t row_width(const Step* step, const Value* x, unsigned int mask, Py_ssize_t item) noexcept nogil:
    """How many numbers lie in a row below the only axis that is summed over; 1 where they do not."""
    cdef Py_ssize_t d = x.shape.ndim, width = 1
    while d and not mask >> (d - 1) & 1:
        d -= 1
        if x.shape.dims[d] > 1 and step.numbers[d] != width * item:
            return 1
        width *= x.shape.dims[d]
    if mask & (mask - 1) or d == 0 or step.numbers[d - 1] != width * item:
        return 1
    return width


cdef inline double reduce_row(const Step* step, Py_ssize_t n, const char* row) noexcept nogil:
    if step.kind == STEP_SUM:
        return fg_kernels.sum[step.type](n, row)
    if step.size[2] == OP_MAX:
        return fg_kernels.max[step.type](n, row)
    return fg_kernels.min[step.type](n, row)
