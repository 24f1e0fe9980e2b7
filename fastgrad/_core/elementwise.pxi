# Operations of the table on Tensors: coercion, promotion, broadcasting, recording.
#
# Order of the paths: two inline numbers; arrays of one dtype; everything else NumPy would promote; integers alone, which
# NumPy computes itself.  benches/test_eager.py shows what the first two cost.

cdef enum:
    WEAK = -1                       # a Python number: takes the dtype of the others (NEP 50)
    BY_PROMOTION = -3

cdef struct Operand:
    Array* array                    # counted; NULL: the number
    double number
    int dtype                       # NumPy's type number, or WEAK
    bint whole                      # of a WEAK one: a Python int, not a float
    PyObject* tensor                # borrowed; NULL: not a Tensor


cdef inline void drop_operands(Operand* o, int n) noexcept:
    cdef int k
    for k in range(n):
        if o[k].array != NULL:
            array_drop(o[k].array)


cdef int coerce(object x, Operand* o) except -1:
    """Reads an operand; returns 0 where it is nothing that NumPy can make numbers of."""
    cdef Tensor t
    o.array = NULL
    o.tensor = NULL
    o.number = 0
    o.dtype = WEAK
    o.whole = False
    if type(x) is Tensor:
        t = <Tensor>x
        o.tensor = <PyObject*>t
        o.dtype = WEAK if t.weak else t.dtype_number
        if t.array != NULL:
            o.array = array_keep(t.array)
        else:
            o.number = t.number
        return 1
    if PyFloat_CheckExact(x):
        o.number = PyFloat_AS_DOUBLE(x)
        return 1
    if PyLong_CheckExact(x) or PyBool_Check(x):
        o.number = PyLong_AsDouble(x)
        o.whole = True
        return 1
    if isinstance(x, cnp.ndarray):
        o.array = array_from_numpy(x)
        o.dtype = o.array.dtype
        return 1
    if isinstance(x, np.float64):
        o.number = PyFloat_AS_DOUBLE(x)
        o.dtype = NPY_DOUBLE
        return 1
    if isinstance(x, (np.generic, list, tuple)):
        if isinstance(x, (list, tuple)):
            for item in x:
                if type(item) is Tensor:
                    return coerce_copy(stack(x), o)
        o.array = array_from_numpy(np.asarray(x))
        o.dtype = o.array.dtype
        return 1
    return 0


cdef int coerce_copy(Tensor t, Operand* o) except -1:
    """An operand made on the spot; only its recorded node, if any, keeps the Tensor alive."""
    coerce(t, o)
    temporaries.append(t)
    return 1


cdef list temporaries = []          # Tensors made while coercing, until the operation has recorded them


cdef int compute_type(int op, Operand* o, int n) except -2:
    """FG_F64 or FG_F32, in which the loops run; -1 where NumPy shall compute."""
    cdef bint has64 = False, has32 = False, has_other = False, all_weak = True, weak_float = False
    cdef int k, first = 1 if (op == FG_WHERE or op == FG_POLYGAMMA) else 0
    if op == FG_FLOAT_POWER:
        return FG_F64
    for k in range(first, n):
        if o[k].dtype == NPY_DOUBLE:
            has64 = True
        elif o[k].dtype == NPY_FLOAT:
            has32 = True
        elif o[k].dtype == WEAK:
            continue
        else:
            has_other = True
        all_weak = False
    if has64 or all_weak:
        return FG_F64
    if has32:
        if not has_other:
            return FG_F32
        kinds = [np.float32] + [cnp.PyArray_DescrFromType(o[k].dtype) for k in range(first, n)
                                if o[k].dtype != WEAK and o[k].dtype != NPY_FLOAT]
        return FG_F32 if np.result_type(*kinds) == np.float32 else FG_F64
    return -1


cdef inline void view_of(const Operand* o, Shape* shape, Py_ssize_t* strides, fg_view* view) noexcept:
    """How an operand lies over the shape of the result."""
    view_of_value(o.array, o.number, shape, strides, view)


cdef inline void view_of_value(const Array* a, double number, const Shape* shape, Py_ssize_t* strides,
                               fg_view* view) noexcept:
    cdef Py_ssize_t d, gap
    cdef Py_ssize_t own[FG_MAX_NDIM]
    if a == NULL:
        view.kind = FG_ONE
        view.one = number
        view.data = NULL
        return
    view.type = type_index(a.dtype)
    view.data = a.data
    if same_shape(a.shape, shape):
        if a.strides == NULL:
            view.kind = FG_CONTIGUOUS
        else:
            view.kind = FG_STRIDED
            view.strides = a.strides
        return
    strides_of(a, own)
    gap = shape.ndim - a.shape.ndim
    for d in range(gap):
        strides[d] = 0
    for d in range(a.shape.ndim):
        strides[gap + d] = 0 if a.shape.dims[d] == 1 else own[d]
    view.kind = FG_STRIDED
    view.strides = strides


cdef inline void extent_of(const Shape* shape, fg_extent* extent) noexcept:
    extent.ndim = <int>shape.ndim
    extent.dims = shape.dims
    extent.size = shape.size


cdef Shape* broadcast_shape(int op, Operand* o, int n) except NULL:
    """The common shape; counted.  Shared with an operand where one has it already."""
    cdef Py_ssize_t dims[FG_MAX_NDIM]
    cdef Py_ssize_t ndim = 0, d, dim, gap
    cdef int k
    cdef Shape* shape = SCALAR_SHAPE
    cdef bint differ = False
    for k in range(n):
        if o[k].array != NULL and o[k].array.shape.ndim:
            if shape.ndim == 0:
                shape = o[k].array.shape
            elif not same_shape(shape, o[k].array.shape):
                differ = True
    if not differ:
        return shape_keep(shape)
    for k in range(n):
        if o[k].array != NULL and o[k].array.shape.ndim > ndim:
            ndim = o[k].array.shape.ndim
    for d in range(ndim):
        dims[d] = 1
    for k in range(n):
        if o[k].array == NULL:
            continue
        shape = o[k].array.shape
        gap = ndim - shape.ndim
        for d in range(shape.ndim):
            dim = shape.dims[d]
            if dim != 1 and dims[gap + d] != dim:
                if dims[gap + d] != 1:
                    shapes = " ".join([str(shape_tuple(o[j].array.shape)) if o[j].array != NULL else "()" for j in range(n)])
                    raise ValueError(
                        f"{NAMES[op]}: operands could not be broadcast together with shapes {shapes}; "
                        "aligned from the right, lengths must be equal or 1 (reshape, or insert axes with x[:, None])")
                dims[gap + d] = dim
    for k in range(n):
        if o[k].array != NULL and o[k].array.shape.ndim == ndim and \
                memcmp(o[k].array.shape.dims, dims, <size_t>ndim * sizeof(Py_ssize_t)) == 0:
            return shape_keep(o[k].array.shape)
    return shape_new(ndim, dims)


cdef inline Tensor elementwise(int op, Operand* o, int n):
    """The operation on operands of any kind; takes over and drops them."""
    return elementwise_as(op, BY_PROMOTION, o, n)


cdef Tensor elementwise_as(int op, int type, Operand* o, int n):
    """The same by the loops of a type: FG_F64, FG_F32 or BY_PROMOTION."""
    cdef int k
    cdef Shape* shape = NULL
    cdef Array* out = NULL
    cdef Array* converted
    cdef Tensor result
    cdef fg_view views[3]
    cdef fg_extent extent
    cdef Py_ssize_t strides[3][FG_MAX_NDIM]
    try:
        if type == BY_PROMOTION:
            type = compute_type(op, o, n)
        if type < 0 and fg_mark and fg_is_bool[op] and are_truth_values(o, n):
            type = FG_F64                   # NumPy's answer, and no call of Python in the replay
        if type < 0:
            return elementwise_in_numpy(op, o, n)
        for k in range(n):
            if o[k].array != NULL and type_index(o[k].array.dtype) < 0:
                if fg_mark and o[k].tensor == NULL:     # a trace reads the array where it lies
                    temporaries.append(new_tensor(array_keep(o[k].array)))
                    o[k].tensor = <PyObject*>temporaries[len(temporaries) - 1]
                floats = view_ndarray(o[k].array, False).astype(np.float64 if type == FG_F64 else np.float32)
                converted = array_from_numpy(floats)
                array_drop(o[k].array)
                o[k].array = converted
        shape = broadcast_shape(op, o, n)
        if shape.ndim == 0 and type == FG_F64 and o[0].array == NULL and o[1].array == NULL and o[2].array == NULL:
            result = new_number(fg_scalar_value(op, o[0].number, o[1].number, o[2].number))
            if fg_is_bool[op]:
                result.dtype_number = NPY_BOOL
        else:
            out = array_new(shape, NPY_BOOL if fg_is_bool[op] else NPY_DOUBLE if type == FG_F64 else NPY_FLOAT)
            for k in range(3):
                if k < n:
                    view_of(o + k, shape, strides[k], views + k)
                else:
                    views[k].kind = FG_ABSENT
                    views[k].data = NULL
            extent_of(shape, &extent)
            if shape.size > LONG:
                with nogil:
                    fg_run_value(op, type, &extent, views, out.data)
            else:
                fg_run_value(op, type, &extent, views, out.data)
            result = new_tensor(out)
        if fg_mark:
            note_elementwise(op, type, result, o, n)
        record_elementwise(op, result, o, n)
        return result
    finally:
        if shape != NULL:
            shape_drop(shape)
        drop_operands(o, n)
        if fg_mark and temporaries:
            temporaries.clear()


cdef enum:
    LONG = 20000        # elements above which a loop is worth releasing the GIL


cdef int record_elementwise(int op, Tensor result, Operand* o, int n) except -1:
    """Appends the node of an operation if a gradient can flow through it."""
    cdef CTape* tape = current_tape()
    cdef int k, mask = 0
    cdef bint flows[3]
    cdef index_t id[3]
    cdef Array* saved[3]
    cdef Extra* extra = NULL
    cdef Node* node
    cdef index_t i
    if not tape.recording:
        return 0
    for k in range(n):
        flows[k] = o[k].tensor != NULL and fg_needs[op][k] and tracked(<Tensor>o[k].tensor)
        if flows[k]:
            check_tape(<Tensor>o[k].tensor, tape)
            mask |= fg_needs[op][k]
    if not mask:
        return 0
    if tape.watching:
        mask |= (1 << n) - 1            # whoever looks wants to see all operands
    # What can fail comes first.
    tape_reserve(tape, 8)
    if n == 3:
        extra = extra_new(1, 0)
    for k in range(3):
        saved[k] = NULL
        id[k] = 0
    try:
        for k in range(n):
            if mask & (1 << k) and o[k].array != NULL:
                saved[k] = array_owned(o[k].array)
    except BaseException:
        for k in range(n):
            if saved[k] != NULL:
                array_drop(saved[k])
        PyMem_RawFree(extra)
        raise
    for k in range(n):
        if flows[k]:
            id[k] = node_of(<Tensor>o[k].tensor, tape)
        elif mask & (1 << k):
            id[k] = node_new(tape, OP_CONSTANT, 0, 0)
            if fg_mark:
                note_constant(o + k, id[k])
            node = tape.nodes + id[k]
            node.refcount -= 1          # counted by this operation alone
            if saved[k] == NULL:
                node.value.number = o[k].number
            else:
                node.shape = shape_keep(saved[k].shape)
                node.dtype = <unsigned char>saved[k].dtype
        if saved[k] != NULL:
            keep_saved(tape.nodes + id[k], saved[k], o + k)
    if n == 3:
        extra.operands[0] = id[2]
        tape.nodes[id[2]].refcount += 1
    i = node_new(tape, op, id[0], id[1])
    tape.nodes[i].extra = extra
    put_on_tape(result, tape, i)
    if mask & 8 and result.array != NULL:
        tape.nodes[i].value.array = array_keep(result.array)
    return 0


cdef inline void keep_saved(Node* node, Array* saved, Operand* o) noexcept:
    """Leaves saved numbers with a node; a Tensor on foreign memory goes on with the copy, so that both agree."""
    cdef Tensor t
    if node.value.array == NULL:
        node.value.array = array_keep(saved)
        if o.tensor != NULL and saved != o.array:
            t = <Tensor>o.tensor
            if t.array == o.array:
                array_drop(t.array)
                t.array = array_keep(saved)
    array_drop(saved)


cdef bint are_truth_values(Operand* o, int n) noexcept:
    """And numbers of Python, which doubles hold."""
    cdef int k
    for k in range(n):
        if o[k].dtype != NPY_BOOL and o[k].dtype != WEAK:
            return False
    return True


cdef Tensor elementwise_in_numpy(int op, Operand* o, int n):
    """Integers and bool, which carry no gradient."""
    cdef int k
    name = NAMES[op]
    if fg_mark and hasattr(np, name):
        return call_host(getattr(np, name), tuple([operand_object(o + k) for k in range(n)]))
    values = []
    for k in range(n):
        if o[k].array != NULL:
            values.append(view_ndarray(o[k].array, False))
        elif o[k].dtype == NPY_BOOL:
            values.append(np.bool_(o[k].number != 0))
        elif o[k].whole:
            values.append(int(o[k].number))
        else:
            values.append(o[k].number)
    function = getattr(np, name, None)
    if function is None:
        values = [cast(<Tensor>o[k].tensor, np.float64) if o[k].tensor != NULL else np.asarray(values[k], dtype=np.float64)
                  for k in range(n)]
        return elementwise_again(op, values)
    return from_ndarray(function(*values))


cdef Tensor elementwise_again(int op, list values):
    cdef Operand o[3]
    cdef int k, n = <int>len(values)
    for k in range(n):
        coerce(values[k], o + k)
    for k in range(n, 3):
        o[k].array = NULL
        o[k].number = 0
    return elementwise(op, o, n)


# ------------------------------------------------------------------------------------------------------- entry points

cdef inline Tensor number1(int op, Tensor x):
    """One inline number."""
    cdef Tensor result = new_number(fg_scalar_value(op, x.number, 0, 0))
    cdef CTape* tape = <CTape*>fg_this_thread_tape
    cdef index_t i, a = x.node
    cdef Node* node
    if fg_is_bool[op]:
        result.dtype_number = NPY_BOOL
    if fg_mark:
        note_numbers(op, result, <PyObject*>x, 0, NULL, 0)
    if fg_is_bool[op]:
        return result
    if a == 0 or x.tape != tape or tape.n + 2 > tape.capacity or tape.recording != True or not fg_needs[op][0]:
        if not tracked(x) or not fg_needs[op][0] or not current_tape().recording:
            return result
        tape = current_tape()
        check_tape(x, tape)
        tape_reserve(tape, 2)
        a = node_of(x, tape)
    i = node_new(tape, op, a, 0)
    node = tape.nodes + i
    node.flags |= PLAIN | FLOWS_A
    node.value.number = result.number
    node.tensor = <PyObject*>result
    result.tape = tape
    result.node = i
    if fg_mark:
        note_place(result, i)
    if tape.watching:
        watch(result, tape, i)
    return result


cdef inline object number2(int op, PyObject* x, double xv, PyObject* y, double yv):
    """Two numbers, on the tape already; x and y are NULL where a number is no Tensor.

    The path that scalar code lives by: whatever is rarer goes to number2_slowly.
    """
    cdef Tensor result = new_number(fg_scalar_value(op, xv, yv, 0))
    cdef CTape* tape = <CTape*>fg_this_thread_tape
    cdef index_t a = 0, b = 0, i
    cdef Node* node
    cdef int mask
    cdef unsigned short flags
    if fg_is_bool[op]:
        result.dtype_number = NPY_BOOL
    if fg_mark:
        note_numbers(op, result, x, xv, y, yv)
        return number2_slowly(op, result, x, xv, y, yv)
    if fg_is_bool[op]:
        return result
    if x != NULL:
        a = (<Tensor>x).node
        if (<Tensor>x).tape != tape if a else (<Tensor>x).requires:
            return number2_slowly(op, result, x, xv, y, yv)
    if y != NULL:
        b = (<Tensor>y).node
        if (<Tensor>y).tape != tape if b else (<Tensor>y).requires:
            return number2_slowly(op, result, x, xv, y, yv)
    if not (a or b):
        return result
    if not fg_needs[op][0] or not fg_needs[op][1] or tape.n + 4 > tape.capacity or tape.recording != True:
        return number2_slowly(op, result, x, xv, y, yv)
    mask = (fg_needs[op][0] if a else 0) | (fg_needs[op][1] if b else 0)
    flags = PLAIN | (FLOWS_A if a else 0) | (FLOWS_B if b else 0)
    if not a and mask & 1:
        a = constant_number(tape, xv)
    if not b and mask & 2:
        b = constant_number(tape, yv)
    i = node_new(tape, op, a, b)
    node = tape.nodes + i
    node.flags |= flags
    node.value.number = result.number
    node.tensor = <PyObject*>result
    result.tape = tape
    result.node = i
    return result


cdef object number2_slowly(int op, Tensor result, PyObject* x, double xv, PyObject* y, double yv):
    """The same with leaves to register, operands without a derivative, a full tape, or recording off."""
    cdef CTape* tape = current_tape()
    cdef index_t i, a = 0, b = 0
    cdef int mask = 0
    cdef bint fx = x != NULL and fg_needs[op][0] and tracked(<Tensor>x)
    cdef bint fy = y != NULL and fg_needs[op][1] and tracked(<Tensor>y)
    if not tape.recording or not (fx or fy):
        return result
    if fx:
        mask = fg_needs[op][0]
        check_tape(<Tensor>x, tape)
    if fy:
        mask |= fg_needs[op][1]
        check_tape(<Tensor>y, tape)
    if tape.watching:
        mask = 3
    tape_reserve(tape, 4)
    if fx:
        a = node_of(<Tensor>x, tape)
    elif mask & 1:
        a = constant_number(tape, xv)
        if fg_mark and x != NULL:
            open_trace().note_node(a, open_trace().of_tensor(<Tensor>x))
    if fy:
        b = node_of(<Tensor>y, tape)
    elif mask & 2:
        b = constant_number(tape, yv)
        if fg_mark and y != NULL:
            open_trace().note_node(b, open_trace().of_tensor(<Tensor>y))
    i = node_new(tape, op, a, b)
    tape.nodes[i].flags |= PLAIN | (FLOWS_A if fx else 0) | (FLOWS_B if fy else 0)
    tape.nodes[i].value.number = result.number
    tape.nodes[i].tensor = <PyObject*>result
    result.tape = tape
    result.node = i
    if fg_mark:
        note_place(result, i)
    if tape.watching:
        watch(result, tape, i)
    return result


cdef inline index_t constant_number(CTape* tape, double value) noexcept:
    cdef index_t i = node_new(tape, OP_CONSTANT, 0, 0)
    tape.nodes[i].refcount -= 1
    tape.nodes[i].value.number = value
    return i


# Functions: apply1, apply2, apply3.  Python's operators: operator1, operator2, quick2.  They differ in what comes of Python
# numbers alone, which only a trace sees: a function gives a float64, an operator a number that takes the others' dtype.

cdef object apply1(int op, object x):
    return strong(operator1(op, x))


cdef inline object strong(object result):
    """A result of a function: has a dtype of its own."""
    if fg_mark and type(result) is Tensor:
        (<Tensor>result).weak = False
    return result


cdef object operator1(int op, object x):
    cdef Operand o[3]
    if type(x) is Tensor and is_number(<Tensor>x):
        return number1(op, <Tensor>x)
    if not coerce(x, o):
        raise TypeError(f"{NAMES[op]}: {type(x).__name__} is not a Tensor, an array or a number")
    o[1].array = NULL
    o[2].array = NULL
    o[1].number = 0
    o[2].number = 0
    return elementwise(op, o, 1)


cdef object apply2(int op, object x, object y):
    cdef object result = operator2(op, x, y)
    if result is NotImplemented:
        bad = y if type(x) is Tensor or isinstance(x, (float, int, np.ndarray, np.generic, list, tuple)) else x
        raise TypeError(f"{NAMES[op]}: {type(bad).__name__} is not a Tensor, an array or a number")
    return strong(result)


cdef inline object quick2(int op, object x, object y):
    """Two operands, 0-d numbers first; inlined into the operators, where op is known."""
    if type(x) is Tensor and is_number(<Tensor>x):
        if type(y) is Tensor:
            if is_number(<Tensor>y):
                return number2(op, <PyObject*>x, (<Tensor>x).number, <PyObject*>y, (<Tensor>y).number)
        elif PyFloat_CheckExact(y):
            return number2(op, <PyObject*>x, (<Tensor>x).number, NULL, PyFloat_AS_DOUBLE(y))
    elif PyFloat_CheckExact(x) and type(y) is Tensor and is_number(<Tensor>y):
        return number2(op, NULL, PyFloat_AS_DOUBLE(x), <PyObject*>y, (<Tensor>y).number)
    return arrays2(op, x, y)


cdef object operator2(int op, object x, object y):
    """Two operands; NotImplemented where one is nothing that NumPy can make numbers of."""
    return quick2(op, x, y)


cdef object alike2(int op, Tensor x, Tensor y):
    """Two contiguous arrays of one shape and dtype."""
    cdef Operand o[2]
    cdef Array* out = array_new(x.array.shape, x.array.dtype)
    cdef Tensor result
    fg_kernels.value[op][type_index(out.dtype)](out.shape.size, x.array.data, y.array.data, NULL, out.data)
    result = new_tensor(out)
    if tracked(x) or tracked(y):
        o[0].array, o[0].tensor = x.array, <PyObject*>x
        o[1].array, o[1].tensor = y.array, <PyObject*>y
        record_elementwise(op, result, o, 2)
    return result


cdef object arrays2(int op, object x, object y):
    cdef Operand o[3]
    if type(x) is Tensor and type(y) is Tensor and (<Tensor>x).array != NULL and (<Tensor>y).array != NULL \
            and (<Tensor>x).dtype_number == (<Tensor>y).dtype_number and is_float(<Tensor>x) \
            and (<Tensor>x).array.strides == NULL and (<Tensor>y).array.strides == NULL \
            and same_shape((<Tensor>x).array.shape, (<Tensor>y).array.shape) \
            and (<Tensor>x).array.shape.ndim and (<Tensor>x).array.shape.size <= LONG and not fg_is_bool[op] \
            and op != FG_FLOAT_POWER and not fg_mark:
        return alike2(op, <Tensor>x, <Tensor>y)
    if not coerce(x, o):
        return NotImplemented
    o[1].array = NULL
    o[2].array = NULL
    o[2].number = 0
    try:
        if not coerce(y, o + 1):
            drop_operands(o, 1)
            return NotImplemented
    except BaseException:
        drop_operands(o, 1)
        raise
    result = elementwise(op, o, 2)
    if temporaries:
        temporaries.clear()
    return result


cdef object apply3(int op, object x, object y, object z):
    cdef Operand o[3]
    cdef int k = 0
    for operand in (x, y, z):
        if not coerce(operand, o + k):
            drop_operands(o, k)
            raise TypeError(f"{NAMES[op]}: {type(operand).__name__} is not a Tensor, an array or a number")
        k += 1
    result = elementwise(op, o, 3)
    if temporaries:
        temporaries.clear()
    return strong(result)


cdef object power_operator(object x, object y):
    """x ** y; the exponents that NumPy also treats by themselves."""
    if type(y) is float or type(y) is int:
        if y == 2:
            return operator1(FG_SQUARE, x)
        if y == 1:
            return operator1(FG_POSITIVE, x)
        if y == 0.5:
            return operator1(FG_SQRT, x)
        if y == -1 and (<Tensor>x).dtype_number in (NPY_DOUBLE, NPY_FLOAT):
            return operator1(FG_RECIPROCAL, x)
    return operator2(FG_POWER, x, y)


cdef object bit_operator(str name, int op, object x, object y):
    """& | ^ of truth values and integers; `op` is the one of truth values."""
    for operand in (x, y):
        if type(operand) is Tensor and (<Tensor>operand).dtype_number in (NPY_DOUBLE, NPY_FLOAT):
            raise TypeError(f"ufunc '{name}' not supported for float Tensors; compare first, as in (x > 0) & (y > 0)")
    if fg_mark and is_truth(x) and is_truth(y):
        return operator2(op, x, y)
    return with_numpy(name, (x, y))


cdef bint is_truth(object x):
    return type(x) is bool or getattr(x, "dtype", None) == np.bool_


cdef object with_numpy(str name, tuple operands):
    """A NumPy function of values that carry no gradient."""
    return call_host(getattr(np, name), operands)
