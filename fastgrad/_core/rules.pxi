# Operations whose value NumPy computes and whose derivative is written in Python, and NumPy's two protocols.
#
# A Rule states its value on arrays and its derivatives on Tensors; the tape keeps what it asks for.  The families in
# fastgrad/numpy/ are made of these.

HOOKS = {}      # what Tensor's methods need from the layer above, filled by fastgrad.numpy


def install(**functions):
    """Gives the engine the functions of fastgrad.numpy that Tensor's methods and NumPy's protocols lead to."""
    HOOKS.update(functions)


cdef object gather(Tensor x, object index):
    return HOOKS["gather"](x, index)


cdef object stack(object parts):
    return HOOKS["stack"](parts)


def add_methods(methods):
    """Gives Tensor further methods, which cost nothing to who calls the others."""
    for name, function in methods.items():
        fg_add_attribute(<PyTypeObject*>Tensor, name, function)


def prod(a, axis=None, keepdims=False):
    return HOOKS["prod"](a, axis, keepdims)


cdef object clip_bounds(Tensor x, object low, object high):
    return HOOKS["clip"](x, low, high)


cdef int set_item(Tensor t, object index, object value) except -1:
    cdef CTape* tape = current_tape()
    cdef bint recorded = tape.recording and (tracked(t) or (type(value) is Tensor and tracked(<Tensor>value)))
    if not recorded and not fg_mark and t.array != NULL and t.array.refcount == 1 and not t.array.foreign and t.array.base == NULL \
            and not t.node:
        plain_value = to_ndarray(bare(<Tensor>value)) if type(value) is Tensor else value
        view_ndarray(t.array, True)[plain_index(index)] = plain_value
        return 0
    if not recorded and index is Ellipsis and type(value) is Tensor and same_shape(shape_of(t), shape_of(<Tensor>value)) \
            and (<Tensor>value).dtype_number == t.dtype_number:
        assign(t, apply_alias(<Tensor>value), "x[...] = value")
        return 0
    if type(value) is Tensor or not isinstance(value, (float, int)):
        value = as_tensor(value, "x[index] = value")
        if (<Tensor>value).dtype_number != t.dtype_number:
            value = cast(value, t.dtype)
    assign(t, HOOKS["set_item"](t, index, value), "x[index] = value")
    return 0


def plain_index(index):
    """An index in which Tensors of integers and bool are arrays."""
    if type(index) is tuple:
        return tuple([plain_index(part) for part in index])
    if type(index) is list:
        return [plain_index(part) for part in index]
    if type(index) is Tensor:
        if is_float(<Tensor>index):
            raise IndexError(f"a Tensor of dtype {index.dtype} is no index; indices are integers or bool")
        return index if fg_mark else to_ndarray(bare(<Tensor>index))
    return index


cdef class Rule:
    """An operation given by its value on arrays and its derivatives on Tensors.

    Calling it applies it: ``rule(*operands, **parameters)``; operands are Tensors or array_like, parameters are not
    differentiated.

    Parameters
    ----------
    name : str
        For messages and graphs.
    value : callable
        ``value(*arrays, **parameters) -> array``.
    vjp : callable
        ``vjp(g, out, *operands, **parameters)``: for each operand its cotangent, or None; one for one operand.  Written
        in operations of Tensors, so that it differentiates again.
    jvp : callable or "linear"
        ``jvp(tangents, out, *operands, **parameters) -> tangent``; a tangent that is None is zero.  "linear": the
        operation applied to the tangents (zeros where None).
    saves : str
        Which of "operands" and "out" the derivatives read; the others arrive as None.
    batch : callable, optional
        For ``fg.vmap``: ``batch(size, *operands, **parameters)``, where what differs from example to example is a
        ``Batched``; returns the Tensor of all results, the batch axis first.  Without it fg.vmap calls the rule example by
        example.
    """
    cdef readonly str name
    cdef readonly object value, vjp, jvp, batch
    cdef readonly bint saves_operands, saves_out

    def __init__(self, name, value, vjp, jvp="linear", saves="", batch=None):
        self.name = name
        self.batch = batch
        self.value = value
        self.vjp = vjp
        self.jvp = jvp
        self.saves_operands = "operands" in saves
        self.saves_out = "out" in saves

    def __repr__(self):
        return f"<Rule {self.name}>"

    def __call__(self, *operands, **parameters):
        return apply_rule(self, operands, parameters)


class Batched:
    """A Tensor with a first axis over examples, for the batch function of a Rule."""
    __slots__ = ("tensor",)

    def __init__(self, tensor):
        self.tensor = tensor


cdef object apply_rule(Rule rule, tuple operands, dict parameters):
    cdef list tensors = [as_tensor(x, rule.name) for x in operands]
    cdef Tensor result, t
    cdef CTape* tape
    cdef Py_ssize_t k, n = len(tensors)
    cdef bint any_tracked = False
    cdef Extra* extra
    cdef Operand o
    cdef list saved = [None] * n
    cdef index_t i, id
    cdef Array* keep
    if fg_mark:
        return apply_rule_traced(rule, tensors, parameters)
    value = rule.value(*[to_ndarray(bare(<Tensor>t)) for t in tensors], **parameters)
    result = from_ndarray(value)
    if result.array != NULL and np.asarray(value).base is None:
        result.array.foreign = 0        # made by the rule for us alone
    return record_rule(rule, tensors, parameters, result)


cdef object apply_rule_traced(Rule rule, list tensors, dict parameters):
    """The same while a trace is open: a host call, whose parameters may hold Tensors."""
    global fg_mark
    cdef Tensor result
    cdef mark_t mark = fg_mark
    cdef list operands = list(tensors)
    cdef list ids
    call = HostCall(rule, tuple([Hole(k) for k in range(len(tensors))]), make_holes(parameters, operands), False)
    ids = [open_trace().of_tensor(<Tensor>t) for t in operands]
    fg_mark = 0
    try:
        numbers = [to_ndarray(bare(<Tensor>t)) for t in operands]
        value = rule.value(*numbers[:len(tensors)], **fill_holes(call.keywords, numbers))
        result = from_ndarray(value)
        if result.array != NULL:
            result.array.foreign = 0
    finally:
        fg_mark = mark
    note_host(call, ids, result)
    return record_rule(rule, tensors, parameters, result)


cdef object record_rule(Rule rule, list tensors, dict parameters, Tensor result):
    cdef CTape* tape = current_tape()
    cdef Tensor t
    cdef Py_ssize_t k, n = len(tensors)
    cdef bint any_tracked = False
    cdef Extra* extra
    cdef index_t i, id
    cdef Array* keep
    if not tape.recording:
        return result
    for t in tensors:
        if tracked(t):
            any_tracked = True
            check_tape(t, tape)
    if not any_tracked or not is_float(result):
        return result
    tape_reserve(tape, 2 * <size_t>n + 2)
    if rule.saves_operands or tape.watching:
        for t in tensors:
            if t.array != NULL and t.array.foreign:
                # Nobody else may write what a recording reads.
                keep = array_owned(t.array)
                array_drop(t.array)
                t.array = keep
    extra = extra_new(n, 0)
    for k in range(n):
        t = tensors[k]
        id = 0
        if tracked(t):
            id = node_of(t, tape)
        else:                   # its shape is needed for a tangent of zero, its value only if the rule reads it
            id = node_new(tape, OP_CONSTANT, 0, 0)
            tape.nodes[id].refcount -= 1
            tape.nodes[id].dtype = <unsigned char>t.dtype_number
            if t.array == NULL:
                tape.nodes[id].value.number = t.number
            else:
                tape.nodes[id].shape = shape_keep(t.array.shape)
            if fg_mark:
                open_trace().note_node(id, open_trace().of_tensor(t))
        if (rule.saves_operands or tape.watching) and t.array != NULL and tape.nodes[id].value.array == NULL:
            tape.nodes[id].value.array = array_keep(t.array)
        extra.operands[k] = id
        tape.nodes[id].refcount += 1
    Py_INCREF(rule)
    Py_INCREF(parameters)
    extra.rule = <PyObject*>rule
    extra.parameters = <PyObject*>parameters
    i = node_new(tape, OP_RULE, 0, 0)
    tape.nodes[i].extra = extra
    put_on_tape(result, tape, i)
    if rule.saves_out and result.array != NULL:
        tape.nodes[i].value.array = array_keep(result.array)
    return result


# --------------------------------------------------------------------------------------------------- NumPy's protocols

cdef dict ufunc_operations = {}      # NumPy's ufunc -> our operation, for those of one or two operands


cdef int fill_ufunc_operations() except -1:
    cdef int op
    for name, function in UFUNCS.items():
        theirs = getattr(np, name, None)
        if isinstance(theirs, np.ufunc) and function.__name__ in NAMES:
            op = NAMES.index(function.__name__)
            if fg_arity[op] == theirs.nin:
                ufunc_operations[theirs] = op
    ufunc_operations[np.matmul] = OP_MATMUL
    return 0


cdef object numpy_ufunc(object ufunc, str method, tuple inputs, dict keywords):
    """np.f(tensor): the operation of the same name, or a TypeError; never a lost gradient."""
    if not keywords and method == "__call__":
        if not ufunc_operations:
            fill_ufunc_operations()
        op = ufunc_operations.get(ufunc)
        if op is not None:          # the common case: ndarray * tensor, np.exp(tensor)
            if op == OP_MATMUL:
                return matmul(inputs[0], inputs[1])
            return strong(arrays2(op, inputs[0], inputs[1])) if len(inputs) == 2 else apply1(op, inputs[0])
    out = keywords.pop("out", None)
    where = keywords.pop("where", True)
    function = UFUNCS.get(ufunc.__name__) if method == "__call__" else None
    if ufunc is np.matmul:
        function = matmul
    if method != "__call__" or function is None or where is not True or keywords:
        result = HOOKS["ufunc_other"](ufunc, method, function, inputs, out, where, keywords)
        if result is not NotImplemented:
            return result
    if function is None or where is not True or keywords:
        refuse_numpy(f"numpy.{ufunc.__name__}" + ("" if method == "__call__" else "." + method), inputs,
                     [w for w in (["where"] if where is not True else []) + list(keywords)] if function else None)
        return ufunc_without_gradient(ufunc, method, inputs, out, where, keywords)
    result = function(*inputs)
    if out is None:
        return result
    return assign_out(out, result)


cdef object ufunc_without_gradient(object ufunc, str method, tuple inputs, object out, object where, dict keywords):
    if out is not None:
        raise TypeError(f"numpy.{ufunc.__name__}: out= with these arguments is not supported for Tensors")
    if where is not True:
        keywords["where"] = plain_index(where)
    result = getattr(ufunc, method)(*[to_ndarray(<Tensor>x) if type(x) is Tensor else x for x in inputs], **keywords)
    if type(result) is tuple:
        return tuple([from_ndarray(r) for r in result])
    return from_ndarray(result)


def refuse_numpy(name, arguments, keywords=None):
    """TypeError where a function that is not supported would lose a gradient."""
    if current_tape().recording and holds_tracked(arguments):
        what = f" with {', '.join(k + '=' for k in keywords)}" if keywords else ""
        raise TypeError(
            f"{name}{what} is not supported for a Tensor that is being differentiated, and would lose its gradient; "
            "write it with the functions of fastgrad.numpy, or use t.detach() where no gradient is meant")


cdef bint holds_tracked(object value):
    if type(value) is Tensor:
        return tracked(<Tensor>value)
    if isinstance(value, (tuple, list)):
        for item in value:
            if holds_tracked(item):
                return True
    elif isinstance(value, dict):
        for item in value.values():
            if holds_tracked(item):
                return True
    return False


cdef object without_tensors(object value):
    if type(value) is Tensor:
        return to_ndarray(<Tensor>value)
    if type(value) is tuple:
        return tuple([without_tensors(item) for item in value])
    if type(value) is list:
        return [without_tensors(item) for item in value]
    if type(value) is dict:
        return {key: without_tensors(item) for key, item in value.items()}
    return value


cdef object with_tensors(object value):
    if isinstance(value, (np.ndarray, np.generic)):
        return from_ndarray(value) if is_supported((<cnp.dtype>value.dtype).num) else value
    if type(value) is tuple:
        return tuple([with_tensors(item) for item in value])
    if type(value) is list:
        return [with_tensors(item) for item in value]
    return value


cdef object numpy_function(object function, tuple arguments, dict keywords):
    """np.f(tensor) for the functions that are no ufuncs."""
    ours = HOOKS["functions"].get(function)
    if ours is not None:
        return ours(*arguments, **keywords)
    name = f"{getattr(function, '__module__', 'numpy')}.{function.__name__}"
    refuse_numpy(name, (arguments, keywords))
    if fg_mark:
        return call_host(function, arguments, keywords)
    return with_tensors(function(*without_tensors(arguments), **without_tensors(keywords)))
