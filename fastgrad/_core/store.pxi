# Programs as objects: called with trees, results into given arrays, taken apart for a file and built from one.
#
# What a file says is checked in fastgrad.transforms.store before it comes here; build_program trusts its rows.
# Knows nothing about files.

cdef object call_program(Program program, tuple arguments, dict keywords):
    """program(*arguments, **keywords)."""
    cdef object binding = program.binding, out = None
    cdef tuple results
    if binding is None:
        raise TypeError("this Program does not know its arguments; take it from compiled.program(...)")
    if fg_mark:
        raise TypeError(f"{binding.who}: a Program is called while fg.compile or fg.vmap records; call the compiled function "
                        "there instead")
    if keywords and not binding.owns_out:
        out = keywords.pop("out", None)
    if not (binding.plain and not keywords and <index_t>len(arguments) == program.n_arguments
            and form_of(items_of(arguments), <Py_ssize_t>len(arguments)) == binding.form):
        arguments = binding.leaves_of(arguments, keywords)
    for again in (binding.plain and not keywords, False):
        if out is None:
            results = program.replay(items_of(arguments), len(arguments), None, binding.form)
            if results is not None:
                return program.build(results)
        elif replay_into(program, arguments, binding.form, out):
            return out
        if not again or program.stopped_at < program.n_steps:
            break
        arguments = binding.leaves_of(arguments, keywords)      # says what does not fit, or makes it fit
    raise ValueError(f"{binding.who}: {refusal_text(program)}; the function that fg.compile made records again for such a call")


def refusal_text(Program program):
    """Why the last replay was refused."""
    cdef Step* step
    cdef Value* v
    if program.stopped_at >= program.n_steps:
        return ("what the function reads from outside (a Tensor, its gradient, an array, a name or an attribute) is not what it "
                "was when it was recorded")
    step = program.steps + program.stopped_at
    v = program.trace.values + step.value
    if step.kind == STEP_HOST:
        return f"{value_name(v)} gave another shape or dtype than when it was recorded"
    return f"a guard failed: bool({value_text(program, step.value)}) was {bool(step.size[0])} when the function was recorded"


cdef str value_text(Program program, index_t i):
    """A value as a short expression."""
    cdef Value* v = program.trace.values + i
    cdef list parts = []
    cdef Value* x
    for k in range(5):
        if v.o[k]:
            x = program.trace.values + v.o[k]
            if x.op == V_CONSTANT and x.array == NULL:
                parts.append(repr(x.number))
            elif x.op == V_ARGUMENT:
                parts.append(program.binding.name_of(x.parameter))
            else:
                parts.append(value_name(x) + ("(...)" if x.o[0] else ""))
    return f"{value_name(v)}({', '.join(parts)})" if parts else value_name(v) if v.op != V_ARGUMENT \
        else program.binding.name_of(v.parameter)


# ------------------------------------------------------------------------------------------------ results into given arrays

cdef int bounds_of_array(cnp.ndarray a, const char** low, const char** high) except -1:
    """The memory that an array may touch."""
    cdef Py_ssize_t d
    low[0] = high[0] = cnp.PyArray_BYTES(a)
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIMS(a)[d] == 0:
            return 0
    high[0] += cnp.PyArray_ITEMSIZE(a)
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_STRIDES(a)[d] > 0:
            high[0] += (cnp.PyArray_DIMS(a)[d] - 1) * cnp.PyArray_STRIDES(a)[d]
        else:
            low[0] += (cnp.PyArray_DIMS(a)[d] - 1) * cnp.PyArray_STRIDES(a)[d]
    return 0


cdef bint overlaps(cnp.ndarray a, object other) except -1:
    """Whether a shares memory with an ndarray or a Tensor."""
    cdef const char* low
    cdef const char* high
    cdef const char* other_low
    cdef const char* other_high
    if type(other) is Tensor:
        if (<Tensor>other).array == NULL:
            return False
        other = view_ndarray((<Tensor>other).array, False)
    if not isinstance(other, np.ndarray):
        return False
    bounds_of_array(a, &low, &high)
    bounds_of_array(<cnp.ndarray>other, &other_low, &other_high)
    return low < other_high and other_low < high


cdef list rooms_of(Program program, object out):
    """The leaves of out= that are to be filled, checked."""
    cdef object binding = program.binding, constant
    cdef tuple structure = binding.results
    cdef Py_ssize_t plain = structure[2], k, j, d
    cdef Output* output
    cdef cnp.ndarray a
    cdef list leaves
    cdef bint fits
    if plain == 0:
        leaves = [out]
    elif plain > 0 and type(out) is tuple and len(<tuple>out) == plain:
        leaves = list(<tuple>out)
    else:
        leaves = binding.out_leaves(out)
    for k in range(len(leaves)):
        if type(leaves[k]) is not cnp.ndarray and not isinstance(leaves[k], np.ndarray):
            raise ValueError(f"{binding.who}: out= holds {type(leaves[k]).__name__} for result {k}; it takes arrays only")
        output = program.outputs + k
        a = leaves[k]
        fits = cnp.PyArray_TYPE(a) == output.dtype and cnp.PyArray_NDIM(a) == output.shape.ndim
        if fits:
            for d in range(output.shape.ndim):
                fits = fits and cnp.PyArray_DIMS(a)[d] == output.shape.dims[d]
        if not fits:
            raise ValueError(f"{binding.who}: out= for result {k} has shape {(<object>a).shape} and dtype {a.dtype}; the result has "
                             f"shape {shape_tuple(output.shape)} and dtype {cnp.PyArray_DescrFromType(output.dtype)}")
        if not shape_is_plain(a) or not PyArray_ISWRITEABLE(a):
            raise ValueError(f"{binding.who}: out= for result {k} must be writable, C-contiguous and in native byte order")
        for j in range(k):
            if overlaps(a, leaves[j]):
                raise ValueError(f"{binding.who}: out= for results {j} and {k} share memory")
    return leaves


cdef bint replay_into(Program program, tuple leaves, int form, object out) except -1:
    """A replay whose results go into the arrays of `out`; those that share memory with what is read are filled last.
    False where the recording does not hold."""
    cdef list given = rooms_of(program, out), late = []
    cdef tuple results
    cdef Py_ssize_t k
    for k in range(len(given)):
        for others in (leaves, program.slots, program.arrays):
            for other in others:
                if type(other) is tuple:
                    other = (<Tensor>other[0]).gradient
                if overlaps(<cnp.ndarray>given[k], other):
                    late.append((k, given[k]))
                    given[k] = None
                    break
            else:
                continue
            break
    results = program.replay(items_of(leaves), len(leaves), given, form)
    if results is None:
        return False
    for k, array in late:
        array[...] = to_ndarray(results[k]) if type(results[k]) is Tensor else results[k]
    return True


cdef object fill_out(str who, object out, object result):
    """out= of a call that was not replayed."""
    if out is None:
        return result
    leaves, structure = HOOKS["tree_flatten"](result)
    into, into_structure = HOOKS["tree_flatten"](out)
    if structure != into_structure:
        raise ValueError(f"{who}: out= is not a tree like the result")
    plain_leaves = []
    for leaf in leaves:
        if type(leaf) is Tensor:
            if tracked(<Tensor>leaf):
                raise TypeError(f"{who}: out= would lose the gradient of a result that is still being differentiated")
            leaf = to_ndarray(leaf)
        plain_leaves.append(leaf)
    for k, (array, leaf) in enumerate(zip(into, plain_leaves)):
        if isinstance(leaf, (np.ndarray, np.generic)):
            if not isinstance(array, np.ndarray) or array.shape != leaf.shape or array.dtype != leaf.dtype \
                    or not shape_is_plain(<cnp.ndarray>array) or not PyArray_ISWRITEABLE(<cnp.ndarray>array):
                raise ValueError(f"{who}: out= for result {k} must be a writable C-contiguous array of shape {leaf.shape} and dtype "
                                 f"{leaf.dtype}")
    plain_leaves = [np.array(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in plain_leaves]
    for array, leaf in zip(into, plain_leaves):
        if isinstance(array, np.ndarray):
            array[...] = leaf
    return out


# ------------------------------------------------------------------------------------------------------- taken apart

def file_operations():
    """What a Program's values can be, for whoever writes or checks one.

    Returns
    -------
    dict
        Name -> (number, kind, operands).  Kinds: "value" and "truth" of the table, with their arity; "pull", with the
        bits of the operands g, x, y, z, out that it reads; "structured".
    """
    cdef int op, k
    cdef dict found = {}
    for op in range(1, FG_N_ELEMENTARY):
        found[NAMES[op]] = (op, "truth" if fg_is_bool[op] else "value", fg_arity[op])
        for k in range(fg_arity[op]):
            if fg_kernels.pull[op][k][FG_F64] != NULL and fg_kernels.pull[op][k][FG_F32] != NULL:
                found[f"pull_{NAMES[op]}_{'xyz'[k]}"] = (V_PULL + 3 * op + k, "pull", 1 | (fg_needs[op][k] & 15) << 1)
    for op in (OP_CAST, OP_SUM, OP_MAX, OP_MIN, OP_RESHAPE, OP_TRANSPOSE, OP_BROADCAST, OP_INDEX, OP_MATMUL, OP_LOGSUMEXP,
               OP_SOFTMAX, OP_LOG_SOFTMAX, OP_CROSS_ENTROPY, OP_SCATTER):
        found[STRUCTURED_NAMES[op - OP_LEAF]] = (op, "structured", 0)
    found["row_pull"] = (V_ROW_PULL, "structured", 0)
    found["cross_entropy_pull"] = (V_CROSS_ENTROPY_PULL, "structured", 0)
    found["extreme_pull"] = (V_EXTREME_PULL, "structured", 0)
    for name, op in (("argument", V_ARGUMENT), ("held", V_SLOT), ("constant", V_CONSTANT), ("rule", V_HOST)):
        found[name] = (op, "structured", 0)
    return found


def program_parts(Program program):
    """A Program as Python objects.

    Returns
    -------
    nodes : dict of int to TraceNode
        The values that are needed, in order; arguments always.
    results : list of int
        The values of the results.
    guards : list of (int, bool)
    outside : tuple of list
        The Tensors and the arrays that it reads besides its arguments.
    impure : list of TraceNode
        Calls of Python that change something.
    """
    cdef Trace trace = program.trace
    cdef index_t i
    cdef list results = [program.outputs[k].value for k in range(program.n_results)]
    cdef set needed = set(results) | {i for i, _ in trace.guards}
    cdef dict nodes = {}
    i = trace.n
    while i > 1:
        i -= 1
        if trace.values[i].op == V_ARGUMENT:
            needed.add(i)
        if i in needed:
            node = nodes[i] = trace_node(trace, i)
            needed.update(node.operands)
    needed.discard(0)
    outside = [(<Tensor>slot[0]).gradient if type(slot) is tuple else slot for slot in program.slots]
    return ({i: nodes[i] for i in sorted(nodes)}, results, list(trace.guards), (outside, list(program.arrays)),
            [trace_node(trace, i) for i in trace.impure])


# ------------------------------------------------------------------------------------------------------------- built

cdef class _Shapes:
    """Shapes while rows become values; dropped at the end."""
    cdef Shape* shape

    cdef Shape* of(self, tuple dims) except NULL:
        cdef Py_ssize_t d
        cdef Py_ssize_t lengths[FG_MAX_NDIM]
        self.drop()
        if len(dims) > FG_MAX_NDIM:
            raise ValueError("too many dimensions")
        for d in range(len(dims)):
            lengths[d] = dims[d]
        self.shape = shape_new(<Py_ssize_t>len(dims), lengths)
        return self.shape

    cdef void drop(self) noexcept:
        if self.shape != NULL:
            shape_drop(self.shape)
            self.shape = NULL

    def __dealloc__(self):
        self.drop()


def build_program(list rows, list held, list forms, list results, list guards):
    """A Program from values that were checked.

    Parameters
    ----------
    rows : list of tuple
        For each value (operation, dtype's number, shape, operands, parameter, numbers or None, what): `what` is the
        number or array of a constant, the HostCall of a rule.
    held : list of Tensor
        What values of the operation "held" read.
    forms : list of int
        What each argument is: 0 an array, 1 a number, 2 a Tensor.
    results : list of int
    guards : list of (int, bool)

    Returns
    -------
    Program
    """
    cdef Recorded r = Recorded()
    cdef Trace trace = Trace()
    cdef _Shapes shapes = _Shapes()
    cdef Value* v
    cdef Extra* extra
    cdef Array* array
    cdef index_t i
    cdef Py_ssize_t k
    cdef int op
    for op, dtype, shape, operands, parameter, numbers, what in rows:
        i = trace.append(op, dtype, shapes.of(shape))
        v = trace.values + i
        v.parameter = parameter
        if op == V_HOST:
            v.extra = extra = extra_new(<Py_ssize_t>len(operands), 0)
            for k in range(len(operands)):
                extra.operands[k] = operands[k]
            Py_INCREF(what)
            extra.rule = <PyObject*>what
            continue
        for k in range(len(operands)):
            v.o[k] = operands[k]
        if numbers is not None:
            v.extra = extra = extra_new(0, <Py_ssize_t>len(numbers))
            memset(extra.numbers, 0, <size_t>extra.n_numbers * sizeof(Py_ssize_t))
            for k in range(len(numbers)):
                extra.numbers[k] = numbers[k]
        if op == V_ARGUMENT:
            trace.arguments.append(None)
        elif op == V_CONSTANT and isinstance(what, np.ndarray):
            array = array_from_numpy(what)
            array.foreign = 0           # the file's copy
            v.array = array
        elif op == V_CONSTANT:
            v.number = what
    trace.slots = list(held)
    trace.guards = list(guards)
    trace.outputs = list(results)
    r.trace, r.roots, r.writes, r.cleared = trace, list(results), [], []
    return plan_program(r, forms, [])


def finish_loaded(Program program, binding, dict held):
    """What a loaded Program knows besides its steps."""
    program.binding = binding
    program.held = held
    program.structure, constants, program.simple = binding.results
    program.constants = [None if c is None else (c[0], False) for c in constants]


def program_memory(Program program):
    """The bytes of a workspace, and of all results."""
    cdef Py_ssize_t k
    results = 0
    for k in range(program.n_outputs):
        results += program.outputs[k].shape.size * item_size(program.outputs[k].dtype)
    return program.arena_bytes + 8 * program.temporaries + program.scratch_bytes, results


def plain_tensor(array):
    """A Tensor with its own copy of an array."""
    return from_ndarray(np.array(array))


def step_names(Program program):
    """For each step the names of the operations that it does."""
    cdef index_t i
    cdef const index_t* step = <const index_t*><const char*>program.step_of
    names = [[] for _ in range(program.n_steps)]
    for i in range(1, program.trace.n):
        if step[i] < program.n_steps:
            names[step[i]].append(value_name(program.trace.values + i))
    return names


def guard_texts(Program program):
    """The guards of a Program, each as what must hold."""
    return [("" if truth else "not ") + value_text(program, i) for i, truth in program.trace.guards]


def num_threads():
    """How many threads long steps may use."""
    return fg_get_threads()
