# What fg.grad and its kin stand on: a function's recording between its inputs and its outputs.
#
# An input is a node at which sweeps stop.  An argument that is itself being differentiated, by a transform around this
# one, enters as an alias: the inner sweep stops at the alias, the outer one goes through it.  So nested transforms
# need no levels and cannot confuse their perturbations.

cdef Tensor input_tensor(CTape* tape, object x, str who, object place):
    """An argument as an input: a Tensor at whose node sweeps stop.  ``who`` and ``place`` are for messages."""
    cdef Tensor t, source
    cdef index_t i, a = 0
    if type(x) is Tensor:
        source = <Tensor>x
        if not is_float(source):
            refuse_integer_leaf(source.dtype_number, f"{who}: argument {place}")
        check_tape(source, tape)
        t = bare(source)
        t.weak = False              # an input has a dtype of its own
        tape_reserve(tape, 3)
        if tracked(source):
            a = node_of(source, tape)
    elif PyFloat_CheckExact(x):
        t = new_number(PyFloat_AS_DOUBLE(x))
    else:
        if isinstance(x, (bool, int)):
            raise TypeError(f"{who}: argument {place} is a Python {type(x).__name__}, and only floats carry gradients; "
                            f"write float({x})")
        if not isinstance(x, (np.ndarray, np.generic, float)):
            raise TypeError(f"{who}: argument {place} is a {type(x).__name__}: "
                            "not an array, a Tensor, a float or a tree of these")
        t = from_ndarray(x)
        if not is_float(t):
            refuse_integer_leaf(t.dtype_number, f"{who}: argument {place}")
    tape_reserve(tape, 1)
    i = node_new(tape, OP_ALIAS if a else OP_INPUT, a, 0)
    put_on_tape(t, tape, i)
    return t


cdef enum:
    OTHERS = 1                      # a bit that no node's flags use here: see look


cdef inline unsigned short look(const Node* nodes, index_t id, index_t first) noexcept:
    """What an operand says of its reader: NEEDED where it lies downstream of an input; else OTHERS where it is tracked,
    and SWEPT where a backward has gone through it since the first input."""
    cdef unsigned short flags
    if id == 0:
        return 0
    flags = nodes[id].flags if id >= first else 0
    if flags & NEEDED:
        return NEEDED
    return 0 if nodes[id].op == OP_CONSTANT else OTHERS | (flags & SWEPT)


cdef class Linearization(Holder):
    """A recording between inputs and outputs, to be swept as often as wanted.

    It holds their nodes, not their Tensors, which the function and its caller may change in place.  Sweeps of it are
    not thread-safe: it belongs to the thread that recorded it.
    """
    cdef readonly list inputs           # Tensors, for their shapes and dtypes
    cdef readonly list outputs          # Tensors
    cdef readonly bint outside          # whether the outputs depend on tracked values besides the inputs
    cdef bint swept                     # whether a backward has gone through part of it
    cdef index_t first                  # the lowest input
    cdef size_t marking                 # the tape's count when the marks were set: while it stands, so do they

    def __dealloc__(self):
        cdef Py_ssize_t k
        if self.tape != NULL:
            for k in range(self.n):
                if self.nodes[k]:
                    node_drop(self.tape, self.nodes[k])
            self.let_go()

    cdef int set_inputs(self, CTape* tape, list arguments, str who, list places) except -1:
        """Makes the inputs."""
        cdef Py_ssize_t k
        cdef Tensor t
        self.hold(tape, len(arguments))
        self.inputs = []
        self.outputs = []
        for k in range(self.n):
            t = input_tensor(tape, arguments[k], who, places[k])
            self.inputs.append(t)
            self.nodes[k] = t.node
            tape.nodes[t.node].refcount += 1
        return 0

    cdef int set_outputs(self, list outputs) except -1:
        cdef Py_ssize_t k, n = len(self.inputs)
        cdef index_t* grown = <index_t*>PyMem_RawRealloc(self.nodes, <size_t>(n + len(outputs) + 1) * sizeof(index_t))
        cdef Tensor t
        if grown == NULL:
            raise MemoryError("cannot allocate a recording")
        self.nodes = grown
        self.outputs = outputs
        for k in range(len(outputs)):
            t = outputs[k]
            self.nodes[n + k] = 0
            if t.node and t.tape == self.tape and not t.requires:
                self.nodes[n + k] = t.node
                self.tape.nodes[t.node].refcount += 1
            elif tracked(t):
                self.outside = True
        self.n = n + len(outputs)
        self.marking = 0
        self.mark()
        self.unmark()
        return 0

    cdef inline index_t output(self, Py_ssize_t k) noexcept:
        """The node of an output that lies downstream of the inputs, else 0."""
        cdef index_t i = self.nodes[len(self.inputs) + k]
        return i if i >= self.first and self.tape.nodes[i].flags & NEEDED else 0

    def size(self):
        """How many nodes lie between inputs and outputs: numbers, and arrays."""
        cdef index_t i, last = 0
        cdef Py_ssize_t k, numbers = 0, arrays = 0
        self.mark()
        for k in range(len(self.outputs)):
            i = self.output(k)
            last = i if i > last else last
        for i in range(self.first, last + 1):
            if self.tape.nodes[i].flags & NEEDED:
                if self.tape.nodes[i].shape == NULL:
                    numbers += 1
                else:
                    arrays += 1
        self.unmark()
        return numbers, arrays

    cdef int mark(self) except -1:
        """Marks the nodes between inputs and outputs; notes whether anything tracked enters from outside."""
        cdef CTape* tape = self.tape
        cdef Node* nodes = tape.nodes
        cdef Node* node
        cdef index_t first, last = 0, i
        cdef Py_ssize_t j, k, n = len(self.inputs)
        cdef unsigned short found, seen = 0
        if self.marking == tape.marking:
            for k in range(n):
                nodes[self.nodes[k]].flags |= STOPS
            return 0
        tape.marking += 1
        self.marking = tape.marking
        self.first = 0xFFFFFFFF
        for k in range(n):
            i = self.nodes[k]
            self.first = i if i < self.first else self.first
            tape.nodes[i].flags |= STOPS
            if tape.nodes[i].op == OP_ALIAS:
                self.outside = True
        for k in range(n, self.n):
            i = self.nodes[k]
            last = i if i > last else last
            if i and i < self.first:
                self.outside = True
        first = self.first
        for i in range(first, last + 1):
            node = nodes + i
            found = 0
            if node.flags & STOPS:
                for k in range(n):
                    if self.nodes[k] == i:
                        found = NEEDED
            else:
                found = look(nodes, node.a, first)
                if op_has_b(node.op):
                    found |= look(nodes, node.b, first)
                if node.extra != NULL:
                    for j in range(node.extra.n_operands):
                        found |= look(nodes, node.extra.operands[j], first)
            node.flags = (node.flags & ~NEEDED) | (found & NEEDED)
            seen |= found
        seen &= OTHERS | SWEPT
        if seen:
            self.outside = True
        self.swept = seen & SWEPT
        for k in range(n, self.n):
            if self.nodes[k] >= self.first and self.nodes[k] and tape.nodes[self.nodes[k]].flags & SWEPT:
                self.swept = True
        return 0

    cdef void unmark(self) noexcept:
        """Inputs are ordinary nodes again: the sweeps of a transform around this one go through them."""
        cdef Py_ssize_t k
        for k in range(len(self.inputs)):
            self.tape.nodes[self.nodes[k]].flags &= ~STOPS

    cdef int refuse_swept(self) except -1:
        if self.swept:
            self.unmark()
            raise RuntimeError(
                "part of this recording was swept by backward(), and its saved values are gone; "
                "use backward(retain_graph=True) inside the function, or detach what it returns")
        return 0

    cpdef list pull(self, list cotangents):
        """Cotangents of the inputs, given those of the outputs; not recorded.  None where nothing arrives."""
        cdef Sweep s
        cdef Tensor t
        cdef Py_ssize_t k
        cdef index_t i, high = 1
        cdef list result = []
        cdef Node* node
        if fg_mark:
            return self.pull_on_tensors(cotangents, False)
        self.mark()
        self.refuse_swept()
        for k in range(len(self.outputs)):
            i = self.output(k)
            high = i if i > high else high
        sweep_begin(&s, self.tape, high)
        s.restricted = True
        s.first = self.first
        try:
            for k in range(len(self.outputs)):
                i = self.output(k)
                if i and cotangents[k] is not None:
                    seed(&s, i, <Tensor?>cotangents[k])
            run_backward(&s)
            for k in range(len(self.inputs)):
                i = self.nodes[k]
                node = self.tape.nodes + i
                if i > high or not node.flags & REACHED:
                    result.append(None)
                else:
                    result.append(tensor_from_adjoint(node, s.adjoints[i]))
        finally:
            sweep_end(&s)
            self.unmark()
        return result

    cpdef list pull_recorded(self, list cotangents):
        """The same, recorded, so that the result differentiates again."""
        return self.pull_on_tensors(cotangents, True)

    cdef list pull_on_tensors(self, list cotangents, bint recorded):
        cdef Sweep s
        cdef CTape* tape = self.tape
        cdef Py_ssize_t k
        cdef int recording = tape.recording
        self.mark()
        self.refuse_swept()
        sweep_clear(&s, tape)
        s.restricted = True
        s.first = self.first
        tape.sweeps += 1
        tape.recording = recorded and recording_of(tape)
        before = self.detach_saved(recorded)
        try:
            seeds = []
            for k in range(len(self.outputs)):
                if cotangents[k] is not None and self.output(k):
                    seeds.append((self.output(k), cotangents[k]))
            found = recorded_sweep(&s, seeds) if seeds else {}
            return [found.get(self.nodes[k]) for k in range(len(self.inputs))]
        finally:
            self.restore_saved(before)
            self.unmark()
            tape.recording = recording
            tape.sweeps -= 1

    cdef bint detach_saved(self, bint recorded) except -1:
        """Where a trace was opened after the recording was made, what a sweep that is not recorded reads carries no gradient."""
        cdef Trace trace
        cdef bint before
        if not fg_mark:
            return False
        trace = open_trace()
        before = trace.detaching
        trace.detaching = not recorded and trace.of_example and self.first < trace.first_node
        return before

    cdef int restore_saved(self, bint before) except -1:
        if fg_mark:
            open_trace().detaching = before
        return 0

    cpdef list push(self, list tangents, bint recorded):
        """Tangents of the outputs, given those of the inputs.  None where nothing arrives."""
        cdef CTape* tape = self.tape
        cdef Py_ssize_t k
        cdef index_t i, last = 0
        cdef dict at = {}
        cdef int recording = tape.recording
        self.mark()
        self.refuse_swept()
        for k in range(len(self.inputs)):
            if tangents[k] is not None:
                at[self.nodes[k]] = tangents[k]
        for k in range(len(self.outputs)):
            i = self.output(k)
            last = i if i > last else last
        tape.sweeps += 1
        tape.recording = recorded and recording_of(tape)
        before = self.detach_saved(recorded)
        try:
            for i in range(self.first, last + 1):
                if tape.nodes[i].flags & STOPS or not tape.nodes[i].flags & NEEDED:
                    continue
                made = push_tensors(tape, i, at)
                if made is not None:
                    at[i] = made
            return [at.get(self.output(k)) if self.output(k) else None for k in range(len(self.outputs))]
        finally:
            self.restore_saved(before)
            self.unmark()
            tape.recording = recording
            tape.sweeps -= 1


cdef class Recorder:
    """Recording switched on and one transform deeper, for the length of a with block."""
    cdef CTape* tape
    cdef int recording

    def __enter__(self):
        self.tape = current_tape()
        self.recording = self.tape.recording
        self.tape.recording = recording_of(self.tape)
        self.tape.depth += 1
        return self

    def __exit__(self, *exception):
        self.tape.depth -= 1
        self.tape.recording = self.recording
        return False


def make_linearization(str who, list arguments, list places):
    """A Linearization whose inputs are these arguments; its outputs are set by ``finish_linearization``."""
    cdef Linearization line = Linearization.__new__(Linearization)
    line.set_inputs(current_tape(), arguments, who, places)
    return line


def finish_linearization(Linearization line, list outputs):
    """Sets the outputs, Tensors."""
    line.set_outputs(outputs)


def recording_outside():
    """Whether the tape records and a transform is under way."""
    cdef CTape* tape = current_tape()
    return bool(tape.recording and tape.depth > 0)


def recording_now():
    """Whether the tape records."""
    return bool(current_tape().recording)


def is_tracked(Tensor t):
    """Whether gradients flow to or through t."""
    return tracked(t)


cdef object lower(Tensor t, object like):
    """A Tensor as what the caller gave: ndarray for ndarray, NumPy scalar for a number, Tensor for Tensor."""
    if type(like) is Tensor or (fg_mark and is_recorded(t)):
        return bare(t)
    if t.array == NULL:
        if isinstance(like, np.ndarray):
            return to_ndarray(bare(t))
        return np.float64(t.number) if t.dtype_number == NPY_DOUBLE else np.bool_(t.number != 0)
    if t.array.shape.ndim == 0 and not isinstance(like, np.ndarray):
        return view_ndarray(t.array, False)[()]
    if t.array.shape.size * item_size(t.array.dtype) <= 4096 or t.array.owner != NULL or t.array.base != NULL \
            or t.array.refcount > 1:
        return copy_ndarray(t.array)
    return view_ndarray(t.array, True)


def lower_to(Tensor t, like):
    """See lower."""
    return lower(t, like)


@cython.final
cdef class ValueAndGrad:
    """The callable that fg.value_and_grad and fg.grad return."""
    cdef readonly object __wrapped__
    cdef object argnums
    cdef bint has_aux, wants_value
    cdef object by_tree             # the general path, in Python
    cdef dict __dict__

    def __init__(self, function, argnums, bint has_aux, bint wants_value, by_tree):
        self.__wrapped__ = function
        self.argnums = argnums
        self.has_aux = has_aux
        self.wants_value = wants_value
        self.by_tree = by_tree
        self.__name__ = ("value_and_grad_" if wants_value else "grad_") + getattr(function, "__name__", "f")
        self.__doc__ = getattr(function, "__doc__", None)

    def __get__(self, instance, owner):
        if instance is None:
            return self
        return functools.partial(self, instance)

    def __call__(self, *arguments, **keywords):
        cdef CTape* tape = current_tape()
        cdef Linearization line
        cdef Tensor out, g
        cdef int recording = tape.recording
        cdef Py_ssize_t k, n = len(arguments)
        cdef list given, places, gradients
        cdef bint any_tensor = False
        cdef object x
        places = [self.argnums] if type(self.argnums) is int else list(self.argnums)
        given = []
        for x in places:
            k = x
            if k < -n or k >= n:
                raise ValueError(f"{self.__name__}: argnums names argument {k}, and the call has {n} positional ones")
            x = arguments[k]
            if type(x) is not cnp.ndarray and type(x) is not float and type(x) is not Tensor:
                return self.by_tree(self.__wrapped__, self.argnums, self.has_aux, self.wants_value, arguments, keywords)
            if type(x) is Tensor:
                any_tensor = True
            given.append(x)
        line = Linearization.__new__(Linearization)
        passed = list(arguments)
        tape.recording = recording_of(tape)
        tape.depth += 1
        try:
            line.set_inputs(tape, given, self.__name__, places)
            for k in range(len(given)):
                passed[places[k]] = line.inputs[k]
            aux = None
            result = self.__wrapped__(*passed, **keywords)
            if self.has_aux:
                if type(result) is not tuple or len(result) != 2:
                    raise TypeError(f"{self.__name__}: has_aux=True, and the function returned no pair (value, aux)")
                result, aux = result
            out = scalar_output(result, self.__name__)
            line.set_outputs([out])
            seeds = [new_number(1.0) if out.array == NULL else from_ndarray(np.ones((), out.dtype))]
            if line.outside and recording and (tape.depth > 1 or any_tensor):
                gradients = line.pull_recorded(seeds)
                for k in range(len(given)):
                    if gradients[k] is None:
                        gradients[k] = zeros_for(line.inputs[k])
            else:
                gradients = line.pull(seeds)
                for k in range(len(given)):
                    g = gradients[k]
                    if g is None:
                        g = zeros_for(line.inputs[k])
                    gradients[k] = lower(g, given[k])
                if not (line.outside and recording and tape.depth > 1):
                    out = bare(out)
                    if not any_tensor:
                        result = lower(out, 0.0)
                    else:
                        result = out
        finally:
            tape.depth -= 1
            tape.recording = recording
        if self.has_aux:
            result = (result, aux if tape.depth else HOOKS["lower_aux"](aux, any_tensor))
        answer = gradients[0] if type(self.argnums) is int else tuple(gradients)
        if self.wants_value:
            return result, answer
        return (answer, result[1]) if self.has_aux else answer


cdef Tensor scalar_output(object result, str who):
    """What a function to be differentiated returned, if it is one float."""
    cdef Tensor out
    if type(result) is Tensor:
        out = <Tensor>result
        if out.array == NULL and out.dtype_number == NPY_DOUBLE:
            return out
    elif isinstance(result, (float, int, np.ndarray, np.generic)):
        out = from_ndarray(np.asarray(result))
        if not is_float(out):
            out = cast(out, np.float64)
    else:
        raise TypeError(f"{who}: the function returned {type(result).__name__}, and a gradient is of one number; "
                        "use fg.vjp or fg.jacobian for other results, has_aux=True for more than one")
    if out.array != NULL and out.array.shape.ndim:
        raise ValueError(f"{who}: the function returned shape {out.shape}, and a gradient is of one number; "
                         "reduce it, for example with .sum(), or use fg.jacobian or fg.vjp")
    refuse_integer_leaf(out.dtype_number, f"{who}: the result")
    return out


def check_scalar_output(result, who):
    """See scalar_output."""
    return scalar_output(result, who)


def zeros_for(Tensor t):
    """Zeros of t's shape and dtype."""
    if t.array == NULL:
        return new_number(0.0)
    return own_zeros(t.array.shape, t.array.dtype)


cdef Tensor own_zeros(Shape* shape, int dtype):
    cdef Array* a = array_new(shape, dtype)
    memset(a.data, 0, <size_t>shape.size * <size_t>item_size(dtype))
    return new_tensor(a)


# ------------------------------------------------------------------------------------------------- recording on and off

@cython.final
cdef class Recording:
    """What fg.no_grad() and fg.enable_grad() return: a context manager, a decorator."""
    cdef int value
    cdef list before                # of each block it is open in, with its tape's state

    def __init__(self, bint value):
        self.value = value
        self.before = []

    def __enter__(self):
        cdef CTape* tape = current_tape()
        self.before.append((tape.recording, open_trace().hidden if fg_mark else 0))
        tape.recording = self.value and recording_of(tape)
        if fg_mark:
            open_trace().hidden = not self.value
        return self

    def __exit__(self, *exception):
        recording, hidden = self.before.pop()
        current_tape().recording = recording
        if fg_mark:
            open_trace().hidden = hidden
        return False

    def __call__(self, function):
        return recorded_as(bool(self.value), function)


@cython.binding(True)
def recorded_as(value, function):
    """A function whose calls record, or do not."""
    @functools.wraps(function)
    def inner(*arguments, **keywords):
        with Recording(value):
            return function(*arguments, **keywords)
    return inner


def no_grad():
    """Records nothing: ``with fg.no_grad(): ...`` or ``@fg.no_grad()``.

    Examples
    --------
    >>> import fastgrad as fg
    >>> x = fg.tensor(1.0, requires_grad=True)
    >>> with fg.no_grad():
    ...     y = x * 2.0
    >>> y.requires_grad
    False
    """
    return Recording(False)


def enable_grad():
    """Records again inside ``no_grad``.

    Examples
    --------
    >>> import fastgrad as fg
    >>> x = fg.tensor(1.0, requires_grad=True)
    >>> with fg.no_grad(), fg.enable_grad():
    ...     y = x * 2.0
    >>> y.requires_grad
    True
    """
    return Recording(True)


def tape_statistics():
    """What this thread's tape holds, for tests and benches.

    Returns
    -------
    dict
        ``nodes`` alive, ``length`` of the list, ``bytes`` of the list and its adjoints, ``array_bytes`` handed out by
        the pool of all threads, ``pool_bytes`` it keeps.
    """
    cdef CTape* tape = current_tape()
    return {"nodes": tape.live, "length": tape.n - 1,
            "bytes": tape.capacity * sizeof(Node) + tape.adjoints_capacity * sizeof(Adjoint),
            "array_bytes": bytes_in_use, "pool_bytes": pool_bytes, "node_bytes": sizeof(Node) + sizeof(Adjoint)}


def cpu_level(wanted=None):
    """The instruction-set level in use; with a name, switches to it (for tests), ValueError where it cannot run."""
    if wanted is not None and not use_level(wanted.encode()):
        raise ValueError(f"this CPU or build has no level {wanted!r}")
    return fg_kernels.level.decode()
