# A Program as a C function: numbers in, numbers out, no Python and no GIL.  docs/c-abi.md is its contract.
#
# The functions themselves are three, for all Programs; which Program runs is in the workspace that the caller passes.
# A workspace has all the memory that a call needs, so a call allocates nothing.  Knows nothing about trees.

cdef enum:
    C_DONE = 0                  # what a call returns
    C_GUARD = 1
    C_LABELS = 2
    C_MEMORY = 3
    C_WORKSPACE = 4

cdef unsigned long long C_MAGIC = 0x6661737467726164

cdef struct CArgument:
    int base
    Py_ssize_t place, first, n          # from x[first] on, n numbers

cdef struct CHeld:
    int base
    Py_ssize_t place
    size_t bytes
    char* data                          # owned: the numbers when the workspace was made

cdef struct CResult:
    const Output* output
    Py_ssize_t first, n                 # to value[first] or gradient[first] on
    bint gradient
    char* room                          # owned: where it is computed when it may not go straight to the caller

cdef struct CWorkspace:
    unsigned long long magic
    PyObject* owner                     # borrowed
    const Step* steps
    index_t n_steps
    const Value* values
    Py_ssize_t n_inputs, n_arguments, n_held, n_results
    CArgument* arguments
    CHeld* held
    CResult* results
    Workspace* memory


cdef int c_full(const double* x, double* value, double* gradient, void* workspace) noexcept nogil:
    """One call; what it returns is in docs/c-abi.md."""
    cdef CWorkspace* c = <CWorkspace*>workspace
    cdef Workspace* w
    cdef CResult* r
    cdef Py_ssize_t k
    cdef index_t i
    cdef int code
    cdef char* to
    cdef const char* source
    if c == NULL or c.magic != C_MAGIC or (x == NULL and c.n_inputs):
        return C_WORKSPACE
    w = c.memory
    for k in range(c.n_arguments):
        if c.arguments[k].base == BASE_ARENA:
            memcpy(w.arena + c.arguments[k].place, x + c.arguments[k].first, <size_t>c.arguments[k].n * 8)
        else:
            w.bases[c.arguments[k].base] = <char*>(x + c.arguments[k].first)
    for k in range(c.n_held):
        if c.held[k].base == BASE_ARENA:
            memcpy(w.arena + c.held[k].place, c.held[k].data, c.held[k].bytes)
        else:
            w.bases[c.held[k].base] = c.held[k].data
    for k in range(c.n_results):
        r = c.results + k
        if r.output.base > 0:
            to = c_target(r, value, gradient)
            if to == NULL or (<const char*>x < to + r.n * 8 and to < <const char*>(x + c.n_inputs)):
                to = r.room
            w.bases[r.output.base] = to
    for i in range(c.n_steps):
        w.step = i
        code = run_step(c.steps + i, w, c.values, NULL)
        if code != RUN_DONE:
            return C_GUARD if code == RUN_REFUSED else C_LABELS if code == RUN_LABELS else C_MEMORY
    for k in range(c.n_results):
        r = c.results + k
        to = c_target(r, value, gradient)
        source = w.bases[r.output.from_base] + r.output.place
        if to != NULL and to != source:
            copy_strided(source, r.output.strides, r.output.shape, 8, to)
    return C_DONE


cdef inline char* c_target(const CResult* r, double* value, double* gradient) noexcept nogil:
    cdef double* to = gradient if r.gradient else value
    return NULL if to == NULL else <char*>(to + r.first)


cdef double c_value(int n, double* x, void* workspace) noexcept nogil:
    """The value alone; NaN where there is none."""
    cdef CWorkspace* c = <CWorkspace*>workspace
    cdef double value = NAN
    if c == NULL or c.magic != C_MAGIC or n != c.n_inputs or c_full(x, &value, NULL, workspace) != C_DONE:
        return NAN
    return value


cdef double c_number(double x, void* workspace) noexcept nogil:
    return c_value(1, &x, workspace)


cdef extern from "Python.h":
    object PyCapsule_New(void* pointer, const char* name, void (*destructor)(PyObject*) noexcept)
    int PyCapsule_SetContext(object capsule, void* context) except -1
    void* PyCapsule_GetContext(PyObject* capsule)


cdef void capsule_ends(PyObject* capsule) noexcept:
    """A capsule owns its workspace."""
    cdef CWorkspace* c = <CWorkspace*>PyCapsule_GetContext(capsule)
    if c != NULL:
        Py_DECREF(<object>c.owner)


@cython.final
cdef class CFunctionWorkspace:
    """What one thread passes to a Program's C function: all the memory that a call needs.

    Attributes
    ----------
    address : int
        The ``void *workspace``; valid as long as this object lives.

    Notes
    -----
    Tensors and arrays that the function read from outside are copied when the workspace is made; ``refresh()`` reads them
    again.

    Thread-safety: one call at a time may use a workspace; take one for each thread.
    """
    cdef CWorkspace* c
    cdef Program program                # keeps the code alive

    def __init__(self):
        raise TypeError("take a workspace from program.c_function().workspace()")

    def __dealloc__(self):
        cdef Py_ssize_t k
        if self.c == NULL:
            return
        self.c.magic = 0
        if self.c.held != NULL:
            for k in range(self.c.n_held):
                PyMem_RawFree(self.c.held[k].data)
        if self.c.results != NULL:
            for k in range(self.c.n_results):
                PyMem_RawFree(self.c.results[k].room)
        PyMem_RawFree(self.c.arguments)
        PyMem_RawFree(self.c.held)
        PyMem_RawFree(self.c.results)
        if self.c.memory != NULL:
            workspace_free(self.c.memory)
        PyMem_RawFree(self.c)

    @property
    def address(self):
        """The ``void *workspace``."""
        return <size_t>self.c

    def refresh(self):
        """Reads the Tensors and arrays from outside again.

        Raises
        ------
        ValueError
            If one has another shape or dtype than when the function was recorded.
        """
        cdef Py_ssize_t k
        cdef Input* input = self.program.inputs + self.program.n_arguments
        cdef object outside
        cdef cnp.ndarray array
        for k in range(self.c.n_held):
            outside = self.program.slots[k] if k < <Py_ssize_t>self.program.n_slots else self.program.arrays[k - self.program.n_slots]
            if type(outside) is tuple:
                outside = (<Tensor>outside[0]).gradient
            if outside is None:
                raise ValueError(f"{self.program.binding.who}: it reads a gradient that is None now")
            array = to_ndarray(<Tensor>outside) if type(outside) is Tensor else outside
            if cnp.PyArray_TYPE(array) != input[k].dtype or (<object>array).shape != shape_tuple(input[k].shape):
                raise ValueError(f"{self.program.binding.who}: it reads a Tensor or array of shape {(<object>array).shape} and dtype "
                                 f"{array.dtype}, and was recorded with shape {shape_tuple(input[k].shape)}")
            if not shape_is_plain(array):
                array = native_copy(array)
            if not input[k].used:
                continue
            if input[k].cell and input[k].dtype == NPY_BOOL:
                (<double*>self.c.held[k].data)[0] = (<unsigned char*>cnp.PyArray_DATA(array))[0] != 0
            else:
                memcpy(self.c.held[k].data, cnp.PyArray_DATA(array), self.c.held[k].bytes)


@cython.final
cdef class CFunction:
    """A Program as a C function; see ``Program.c_function`` and docs/c-abi.md.

    Attributes
    ----------
    signature : str
        "full", "value" or "number".
    address : int
        The function pointer.
    n_inputs : int
        Doubles in ``x``: all arguments, one after the other.
    n_value, n_gradient : int
        Doubles in ``value``, the first result, and in ``gradient``, the others.
    """
    cdef readonly Program program
    cdef readonly str signature
    cdef readonly Py_ssize_t n_inputs, n_value, n_gradient
    cdef void* pointer
    cdef object made_ctypes

    def __repr__(self):
        return f"<{c_types(self.signature)} of {self.program.binding.who}: {self.n_inputs} inputs>"

    @property
    def address(self):
        """The function pointer."""
        return <size_t>self.pointer

    @property
    def ctypes(self):
        """The function for ctypes, its argument types set; the last argument is a workspace's address."""
        import ctypes
        if self.made_ctypes is None:
            double, pointer = ctypes.c_double, ctypes.POINTER(ctypes.c_double)
            types = {"full": (ctypes.c_int, pointer, pointer, pointer), "value": (double, ctypes.c_int, pointer),
                     "number": (double, double)}[self.signature]
            self.made_ctypes = ctypes.CFUNCTYPE(*types, ctypes.c_void_p)(<size_t>self.pointer)
        return self.made_ctypes

    @property
    def capsule(self):
        """A PyCapsule named with the C signature, for ``scipy.LowLevelCallable``; it has a workspace of its own as its context."""
        cdef CFunctionWorkspace workspace = self.workspace()
        cdef const char* name = c_names(self.signature)
        capsule = PyCapsule_New(self.pointer, name, capsule_ends)
        PyCapsule_SetContext(capsule, workspace.c)
        Py_INCREF(workspace)
        return capsule

    def workspace(self):
        """A fresh workspace, for one thread.

        Returns
        -------
        CFunctionWorkspace

        Raises
        ------
        MemoryError
        """
        cdef CFunctionWorkspace made = CFunctionWorkspace.__new__(CFunctionWorkspace)
        cdef Program program = self.program
        cdef CWorkspace* c = <CWorkspace*>PyMem_RawCalloc(1, sizeof(CWorkspace))
        cdef Py_ssize_t k, n = 0
        cdef Py_ssize_t at[2]
        cdef Input* input
        cdef CResult* r
        if c == NULL:
            raise MemoryError("cannot allocate a workspace")
        made.c = c
        made.program = program
        c.owner = <PyObject*>made
        c.steps, c.n_steps, c.values = program.steps, program.n_steps, program.trace.values
        c.n_inputs = self.n_inputs
        c.memory = program.new_workspace()
        c.arguments = <CArgument*>PyMem_RawCalloc(program.n_arguments + 1, sizeof(CArgument))
        c.held = <CHeld*>PyMem_RawCalloc(program.n_slots + program.n_arrays + 1, sizeof(CHeld))
        c.results = <CResult*>PyMem_RawCalloc(program.n_results + 1, sizeof(CResult))
        if c.arguments == NULL or c.held == NULL or c.results == NULL:
            raise MemoryError("cannot allocate a workspace")
        for k in range(program.n_arguments):
            input = program.inputs + k
            if input.used:
                c.arguments[c.n_arguments].base = input.base
                c.arguments[c.n_arguments].place = input.place
                c.arguments[c.n_arguments].first = n
                c.arguments[c.n_arguments].n = input.shape.size
                c.n_arguments += 1
            n += input.shape.size
        for k in range(program.n_slots + program.n_arrays):
            input = program.inputs + program.n_arguments + k
            c.held[k].base = input.base
            c.held[k].place = input.place
            c.held[k].bytes = 0 if not input.used else 8 if input.cell else <size_t>input.bytes
            c.held[k].data = <char*>PyMem_RawCalloc(c.held[k].bytes + 8, 1)
            c.n_held += 1
            if c.held[k].data == NULL:
                raise MemoryError("cannot allocate a workspace")
        at[0] = at[1] = 0
        for k in range(program.n_results):
            r = c.results + k
            r.output = program.outputs + k
            r.gradient = k > 0
            r.first = at[r.gradient]
            r.n = r.output.shape.size
            at[r.gradient] += r.n
            c.n_results += 1
            if r.output.base > 0:
                if <size_t>r.n * 8 <= MAX_BLOCK:
                    r.room = <char*>PyMem_RawMalloc(<size_t>r.n * 8 + 8)
                if r.room == NULL:
                    raise MemoryError("cannot allocate a workspace")
        made.refresh()
        c.magic = C_MAGIC
        return made


cdef const char* c_names(str signature) noexcept:
    if signature == "full":
        return b"int (const double *, double *, double *, void *)"
    return b"double (int, double *, void *)" if signature == "value" else b"double (double, void *)"


cdef str c_types(str signature):
    return c_names(signature).decode()


cdef CFunction c_function_of(Program program, object signature):
    """See Program.c_function."""
    cdef CFunction f = CFunction.__new__(CFunction)
    cdef Py_ssize_t k
    cdef str who = f"{program.binding.who}: no C function"
    if signature not in ("full", "value", "number"):
        raise ValueError(f"{who}: signature is 'full', 'value' or 'number', not {signature!r}")
    if program.writes or program.cleared:
        raise TypeError(f"{who}: it changes Tensors from outside; return what it computes instead")
    for k in range(program.n_steps):
        if program.steps[k].kind == STEP_HOST:
            raise TypeError(f"{who}: it calls Python ({value_name(program.trace.values + program.steps[k].value)})")
    for k in range(program.n_arguments):
        if program.inputs[k].dtype != NPY_DOUBLE:
            raise TypeError(f"{who}: {program.binding.name_of(k)} is {cnp.PyArray_DescrFromType(program.inputs[k].dtype)}; arguments must "
                            "be float64")
        f.n_inputs += program.inputs[k].shape.size
    for k in range(program.n_results):
        if program.outputs[k].dtype != NPY_DOUBLE:
            raise TypeError(f"{who}: result {k} is {cnp.PyArray_DescrFromType(program.outputs[k].dtype)}; results must be float64")
        if k == 0:
            f.n_value = program.outputs[k].shape.size
        else:
            f.n_gradient += program.outputs[k].shape.size
    if program.n_results == 0:
        raise TypeError(f"{who}: it returns no number")
    if signature != "full" and f.n_value != 1:
        raise TypeError(f"{who} of signature {signature!r}: its first result has {f.n_value} numbers")
    if signature == "number" and f.n_inputs != 1:
        raise TypeError(f"{who} of signature 'number': it takes {f.n_inputs} numbers")
    f.program, f.signature = program, signature
    f.pointer = <void*>c_full if signature == "full" else <void*>c_value if signature == "value" else <void*>c_number
    return f
