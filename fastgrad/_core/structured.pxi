# Structured operations that are hot enough for compiled code: reductions, shape, basic indexing, matmul, softmax.
#
# Each states, one below the other: its value, its compiled pullback on Arrays (`..._back`), its pullback on Tensors,
# which differentiates again (`pull_...`), and its pushforward (`push_...`; an operation that is linear pushes by
# itself).  A test holds both pullbacks equal.  Where a compiled pullback does not cover a layout it returns NULL and
# the sweep takes the other one.

# -------------------------------------------------------------------------------------------------------- preparation

cdef Tensor as_tensor(object x, str who):
    """An operand as a Tensor; arrays are looked at, not copied."""
    cdef Operand o
    if type(x) is Tensor:
        return typed(<Tensor>x)
    if isinstance(x, (list, tuple)):
        for item in x:
            if type(item) is Tensor or isinstance(item, (list, tuple)):
                return stack([as_tensor(item, who) for item in x])
    if not coerce(x, &o):
        raise TypeError(f"{who}: {type(x).__name__} is not a Tensor, an array or a number")
    if o.array != NULL:
        return new_tensor(o.array)
    if PyLong_CheckExact(x) or PyBool_Check(x):
        return from_ndarray(np.asarray(x))
    return new_number(o.number)


cpdef Tensor typed(Tensor t):
    """A Tensor as it is; one that stands for a Python number becomes a float64, as a number does in a function."""
    if t.weak:
        t = bare(t)
        t.weak = False
    return t


cdef inline bint is_float(Tensor t) noexcept:
    return t.dtype_number == NPY_DOUBLE or t.dtype_number == NPY_FLOAT


cdef inline Array* array_of(Tensor t) except NULL:
    """The numbers of a Tensor, counted; an inline number gets an Array."""
    cdef Array* a
    if t.array != NULL:
        return array_keep(t.array)
    a = array_new(SCALAR_SHAPE, t.dtype_number)
    if t.dtype_number == NPY_DOUBLE:
        (<double*>a.data)[0] = t.number
    else:
        (<unsigned char*>a.data)[0] = <unsigned char>t.number
    return a


cdef inline CTape* recording_tape(Tensor x) except? NULL:
    """The tape on which to record an operation on x; NULL where none is needed."""
    cdef CTape* tape
    if not tracked(x):
        return NULL
    tape = current_tape()
    if not tape.recording:
        return NULL
    check_tape(x, tape)
    return tape


cdef enum:
    SAVE_X = 1
    SAVE_OUT = 2


cdef int record1(int op, Tensor x, Tensor result, index_t parameter, Extra* extra, int saves) except -1:
    """Appends the node of a one-operand operation.  Takes over extra."""
    cdef CTape* tape
    cdef index_t i, a
    cdef Operand o
    cdef Array* saved = NULL
    try:
        if fg_mark:
            note_structured(op, x, result, parameter, extra)
        tape = recording_tape(x)
        if tape == NULL:
            PyMem_RawFree(extra)
            return 0
        tape_reserve(tape, 2)
        if saves & SAVE_X and x.array != NULL:
            saved = array_owned(x.array)
    except BaseException:
        PyMem_RawFree(extra)
        raise
    a = node_of(x, tape)
    if saved != NULL:
        o.array = x.array
        o.tensor = <PyObject*>x
        keep_saved(tape.nodes + a, saved, &o)
    i = node_new(tape, op, a, parameter)
    tape.nodes[i].extra = extra
    put_on_tape(result, tape, i)
    if saves & SAVE_OUT and result.array != NULL:
        tape.nodes[i].value.array = array_keep(result.array)
    return 0


cdef unsigned int axis_mask(object axis, Py_ssize_t ndim, str who) except? 0xFFFFFFFF:
    """Axes as bits; None means all."""
    cdef unsigned int mask = 0
    cdef Py_ssize_t k
    if ndim > 31:
        raise ValueError(f"{who}: {ndim} dimensions; at most 31 are supported")
    if axis is None:
        return (<unsigned int>1 << ndim) - 1
    if type(axis) is int:
        k = axis
        if k < -ndim or k >= ndim:
            raise np.exceptions.AxisError(k, ndim, who)
        return <unsigned int>1 << (k + ndim if k < 0 else k)
    for one in (axis if isinstance(axis, (tuple, list)) else (axis,)):
        k = one.__index__()
        if k < -ndim or k >= ndim:
            raise np.exceptions.AxisError(k, ndim, who)
        if k < 0:
            k += ndim
        if mask >> k & 1:
            raise ValueError(f"{who}: duplicate value in 'axis'")
        mask |= <unsigned int>1 << k
    return mask


cdef tuple axes_of(unsigned int mask, Py_ssize_t ndim):
    return tuple([d for d in range(ndim) if mask >> d & 1])


cdef Shape* reduced_shape(Shape* shape, unsigned int mask, bint keepdims) except NULL:
    cdef Py_ssize_t dims[FG_MAX_NDIM]
    cdef Py_ssize_t d, n = 0
    for d in range(shape.ndim):
        if not mask >> d & 1:
            dims[n] = shape.dims[d]
            n += 1
        elif keepdims:
            dims[n] = 1
            n += 1
    return shape_new(n, dims)


cdef bint axes_trail(unsigned int mask, Py_ssize_t ndim) noexcept:
    """Whether the axes are the last ones."""
    cdef unsigned int all_axes = (<unsigned int>1 << ndim) - 1
    cdef unsigned int rest = all_axes & ~mask
    return (rest & (rest + 1)) == 0


cdef bint axes_lead(unsigned int mask) noexcept:
    """Whether the axes are the first ones."""
    return (mask & (mask + 1)) == 0


cdef Py_ssize_t size_over(const Shape* shape, unsigned int mask) noexcept:
    cdef Py_ssize_t d, n = 1
    for d in range(shape.ndim):
        if mask >> d & 1:
            n *= shape.dims[d]
    return n


cdef Array* axes_last(Array* a, unsigned int mask) except NULL:
    """A contiguous copy with the masked axes moved last (a itself, kept, where they are)."""
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Py_ssize_t dims[FG_MAX_NDIM]
    cdef Py_ssize_t own[FG_MAX_NDIM]
    cdef Py_ssize_t d, n = 0
    cdef int part
    cdef Shape* shape
    cdef Array* view
    cdef Array* result
    if axes_trail(mask, a.shape.ndim):
        return array_contiguous(a)
    strides_of(a, own)
    for part in range(2):
        for d in range(a.shape.ndim):
            if <int>(mask >> d & 1) == part:
                dims[n] = a.shape.dims[d]
                strides[n] = own[d]
                n += 1
    shape = shape_new(n, dims)
    try:
        view = array_view(a, shape, a.data, strides)
    finally:
        shape_drop(shape)
    try:
        result = array_contiguous(view)
    finally:
        array_drop(view)
    return result


# --------------------------------------------------------------------------------------------------------- reductions

cdef enum:
    MOST_TRUTHS = 1 << 14


cdef object truth_over(object function, Tensor x, object axis, bint keepdims):
    """np.any or np.all; while a trace is open as a sum of ones, which a group makes: of many, NumPy's loop over bytes is faster."""
    if not fg_mark or not (is_float(x) or x.dtype_number == NPY_BOOL) or shape_of(x).size > MOST_TRUTHS:
        return call_host(function, (x, axis, None, keepdims))
    counted = apply1(FG_LOGICAL_NOT, x) if function is np.all else x if x.dtype_number == NPY_BOOL \
        else apply2(FG_NOT_EQUAL, x, 0.0)
    return apply2(FG_EQUAL if function is np.all else FG_GREATER,
                  reduce(OP_SUM, cast(counted, np.dtype(np.float32)), axis, keepdims, "sum"), 0.0)


cdef Tensor reduce(int op, object x_, object axis, bint keepdims, str who):
    """sum, mean, max, min over axes."""
    cdef Tensor x = as_tensor(x_, who), result
    cdef unsigned int mask
    cdef Shape* shape
    cdef Array* a
    cdef Array* out
    cdef Py_ssize_t n, rows, i
    cdef int type
    cdef double value
    if fg_mark and op == OP_MEAN and x.dtype_number == NPY_BOOL:
        x = cast(x, np.dtype(np.float64))
    if not is_float(x):
        return call_host(getattr(np, who), (x,), {"axis": axis, "keepdims": bool(keepdims)})
    if x.array == NULL:
        mask = axis_mask(axis, 0, who)
        result = new_number(x.number)
        record1(OP_ALIAS, x, result, 0, NULL, 0)
        return result
    mask = axis_mask(axis, x.array.shape.ndim, who)
    n = size_over(x.array.shape, mask)
    if n == 0 and op >= OP_MAX:
        raise ValueError(f"zero-size array to reduction operation {who} which has no identity; its shape is {x.shape}")
    type = type_index(x.array.dtype)
    if op == OP_SUM or op == OP_MEAN and axes_lead(mask) and not axes_trail(mask, x.array.shape.ndim):
        out = sum_over(x.array, mask, keepdims)
        if op == OP_MEAN:
            scale_array(out, 1.0 / n if n else NAN)
    else:
        a = axes_last(x.array, mask)
        shape = reduced_shape(x.array.shape, mask, keepdims)
        out = array_new(shape, a.dtype)
        rows = shape.size
        for i in range(rows):
            if op == OP_MAX:
                value = fg_kernels.max[type](n, a.data + i * n * item_size(a.dtype))
            elif op == OP_MIN:
                value = fg_kernels.min[type](n, a.data + i * n * item_size(a.dtype))
            else:
                value = fg_kernels.sum[type](n, a.data + i * n * item_size(a.dtype)) / n if n else NAN
            if type == FG_F64:
                (<double*>out.data)[i] = value
            else:
                (<float*>out.data)[i] = <float>value
        array_drop(a)
        shape_drop(shape)
    result = new_tensor(out)
    record1(op, x, result, mask, NULL, SAVE_X | SAVE_OUT if op >= OP_MAX else 0)
    return result


cdef Array* sum_over(Array* x, unsigned int mask, bint keepdims) except NULL:
    """The sum over axes, with few rounding errors however many there are."""
    cdef int type = type_index(x.dtype)
    cdef bint rows_of_it = axes_lead(mask) and not axes_trail(mask, x.shape.ndim)
    cdef Py_ssize_t i, n = size_over(x.shape, mask)
    cdef Shape* shape = reduced_shape(x.shape, mask, keepdims)
    cdef Array* a = NULL
    cdef Array* out = NULL
    try:
        a = array_contiguous(x) if rows_of_it else axes_last(x, mask)
        out = array_new(shape, x.dtype)
        if rows_of_it:
            fg_kernels.fill[type](shape.size, 0, out.data)
            sum_rows(type, n, shape.size, a.data, out.data)
            return out
        for i in range(shape.size):
            if type == FG_F64:
                (<double*>out.data)[i] = fg_kernels.sum[type](n, a.data + i * n * 8)
            else:
                (<float*>out.data)[i] = <float>fg_kernels.sum[type](n, a.data + i * n * 4)
        return out
    except BaseException:
        if out != NULL:
            array_drop(out)
        raise
    finally:
        if a != NULL:
            array_drop(a)
        shape_drop(shape)


cdef enum:
    FEW_ROWS = 32                   # that are added one after another


cdef int sum_rows(int type, Py_ssize_t n, Py_ssize_t columns, const char* x, char* to) except -1:
    """to += the sum of n rows, by halves, so that rounding errors grow with the logarithm of n."""
    cdef Py_ssize_t half = FEW_ROWS
    cdef char* rest
    if n <= FEW_ROWS:
        fg_kernels.add_rows[type](n, columns, x, to)
        return 0
    while 2 * half < n:
        half *= 2
    rest = <char*>PyMem_RawMalloc(<size_t>columns * (8 if type == FG_F64 else 4) + 1)
    if rest == NULL:
        raise MemoryError("cannot allocate a row of a sum")
    try:
        sum_rows(type, half, columns, x, to)
        fg_kernels.fill[type](columns, 0, rest)
        sum_rows(type, n - half, columns, x + half * columns * (8 if type == FG_F64 else 4), rest)
        fg_kernels.add[type](columns, rest, to)
    finally:
        PyMem_RawFree(rest)
    return 0


cdef void scale_array(Array* a, double factor) noexcept:
    """a *= factor, contiguous."""
    cdef Py_ssize_t i
    if a.dtype == NPY_DOUBLE:
        for i in range(a.shape.size):
            (<double*>a.data)[i] *= factor
    else:
        for i in range(a.shape.size):
            (<float*>a.data)[i] = <float>((<float*>a.data)[i] * factor)


cdef Array* spread(Array* g, Shape* shape, unsigned int mask) except NULL:
    """A reduced cotangent seen over the shape that was reduced: strides of 0, no copy."""
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Py_ssize_t own[FG_MAX_NDIM]
    cdef Py_ssize_t d, k = 0
    cdef bint kept = g.shape.ndim == shape.ndim
    strides_of(g, own)
    for d in range(shape.ndim):
        if mask >> d & 1:
            strides[d] = 0
            if kept:
                k += 1
        else:
            strides[d] = own[k]
            k += 1
    return array_view(g, shape, g.data, strides)


cdef Array* sum_back(Array* g, Shape* shape, unsigned int mask, double factor) except NULL:
    cdef Array* scaled
    cdef Array* result
    if factor == 1:
        return spread(g, shape, mask)
    scaled = array_new(g.shape, g.dtype)
    array_copy_into(g, scaled)
    scale_array(scaled, factor)
    try:
        result = spread(scaled, shape, mask)
    finally:
        array_drop(scaled)
    return result


cdef tuple kept_shape(Shape* shape, unsigned int mask):
    return tuple([1 if mask >> d & 1 else shape.dims[d] for d in range(shape.ndim)])


cdef Tensor pull_sum(Tensor g, Shape* shape, unsigned int mask):
    return broadcast_to(reshape(g, kept_shape(shape, mask)), shape_tuple(shape))


cdef Tensor pull_mean(Tensor g, Shape* shape, unsigned int mask):
    return pull_sum(apply2(FG_MULTIPLY, g, 1.0 / size_over(shape, mask)), shape, mask)


cdef Array* extreme_back(Array* g, Array* x, Array* out, unsigned int mask) except? NULL:
    cdef Array* to
    cdef int type = type_index(x.dtype)
    if not axes_trail(mask, x.shape.ndim) or x.strides != NULL or out.strides != NULL or g.dtype != x.dtype:
        return NULL
    g = array_contiguous(g)
    to = array_new(x.shape, x.dtype)
    fg_kernels.extreme_pull[type](out.shape.size, size_over(x.shape, mask), g.data, x.data, out.data, to.data)
    array_drop(g)
    return to


cdef tuple extreme_share(Tensor x, Tensor out, unsigned int mask):
    """How much of the extreme one each element of x is (a Tensor without a gradient), and the kept shape."""
    cdef Tensor plain = bare(x), hit
    shape = kept_shape(x.array.shape, mask)
    hit = cast(apply2(FG_EQUAL, plain, reshape(bare(out), shape)), x.dtype)
    count = sum(hit, axes_of(mask, x.array.shape.ndim), True)
    share = apply3(FG_WHERE, apply2(FG_GREATER, hit, 0.0), apply2(FG_DIVIDE, 1.0, count), 0.0)
    return apply3(FG_WHERE, apply1(FG_ISNAN, plain), np.nan, share), shape


cdef Tensor pull_extreme(Tensor g, Tensor x, Tensor out, unsigned int mask):
    share, shape = extreme_share(x, out, mask)
    g = broadcast_to(reshape(g, shape), x.shape)
    return where_nonzero(share, apply2(FG_GUARDED_MULTIPLY, g, share))


cdef Tensor where_nonzero(object share, Tensor value):
    """Exactly 0 where the share is, even if the value is infinite."""
    return apply3(FG_WHERE, apply2(FG_NOT_EQUAL, share, 0.0), value, 0.0)


cdef Tensor push_extreme(Tensor t, Tensor x, Tensor out, unsigned int mask):
    share, shape = extreme_share(x, out, mask)
    total = sum(where_nonzero(share, apply2(FG_GUARDED_MULTIPLY, t, share)), axes_of(mask, x.array.shape.ndim))
    return reshape(total, out.shape)


def sum(a, axis=None, keepdims=False, *, out=None, dtype=None):
    """Sum of elements over axes; float32 is summed pairwise and stays float32.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
        The axes to sum over; all by default.
    keepdims : bool
        Whether they stay, with length 1.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.sum([[1.0, 2.0], [3.0, 4.0]], axis=0)
    Tensor([4., 6.])
    """
    if dtype is not None:
        a = cast(as_tensor(a, "sum"), dtype)
    result = reduce(OP_SUM, a, axis, keepdims, "sum")
    return result if out is None else assign_out(out, result)


def mean(a, axis=None, keepdims=False, *, out=None, dtype=None):
    """Mean of elements over axes.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
    keepdims : bool

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.mean([1.0, 2.0, 6.0])
    Tensor(3.0)
    """
    if dtype is not None:
        a = cast(as_tensor(a, "mean"), dtype)
    result = reduce(OP_MEAN, a, axis, keepdims, "mean")
    return result if out is None else assign_out(out, result)


def max(a, axis=None, keepdims=False, *, out=None):
    """Largest element over axes, NaN if there is one; ties share the gradient evenly.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
    keepdims : bool

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If there is nothing to choose from.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.max([1.0, 3.0, 2.0])
    Tensor(3.0)
    """
    result = reduce(OP_MAX, a, axis, keepdims, "max")
    return result if out is None else assign_out(out, result)


def min(a, axis=None, keepdims=False, *, out=None):
    """Smallest element over axes, NaN if there is one; ties share the gradient evenly.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
    keepdims : bool

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If there is nothing to choose from.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.min([1.0, 3.0, 2.0])
    Tensor(1.0)
    """
    result = reduce(OP_MIN, a, axis, keepdims, "min")
    return result if out is None else assign_out(out, result)


# ------------------------------------------------------------------------------------------------- softmax and its kin

cdef Tensor row_operation(int op, Tensor x):
    """logsumexp, softmax or log_softmax over the last axis."""
    cdef Array* a = array_contiguous(x.array)
    cdef Array* out
    cdef Shape* shape
    cdef int type = type_index(a.dtype)
    cdef Py_ssize_t n = a.shape.dims[a.shape.ndim - 1], rows
    cdef Tensor result
    if n == 0 and a.shape.size == 0 and op == OP_LOGSUMEXP:
        array_drop(a)
        raise ValueError("zero-size array to reduction operation logsumexp which has no identity")
    rows = a.shape.size // n if n else 0
    if op == OP_LOGSUMEXP:
        shape = reduced_shape(a.shape, <unsigned int>1 << (a.shape.ndim - 1), False)
        out = array_new(shape, a.dtype)
        shape_drop(shape)
        fg_kernels.logsumexp[type](rows, n, a.data, out.data)
    else:
        out = array_new(a.shape, a.dtype)
        if op == OP_SOFTMAX:
            fg_kernels.softmax[type](rows, n, a.data, out.data)
        else:
            fg_kernels.log_softmax[type](rows, n, a.data, out.data)
    array_drop(a)
    result = new_tensor(out)
    record1(op, x, result, 0, NULL, SAVE_X | SAVE_OUT if op == OP_LOGSUMEXP else SAVE_OUT)
    return result


cdef Array* row_back(int op, Array* g, Array* x, Array* out, Shape* shape, double number) except? NULL:
    cdef Array* to
    cdef Array* rows_out
    cdef int type = type_index(g.dtype)
    cdef Py_ssize_t n = shape.dims[shape.ndim - 1], rows
    rows = shape.size // n if n else 0
    if op == OP_LOGSUMEXP and (x.strides != NULL or (out != NULL and out.dtype != g.dtype)):
        return NULL
    g = array_contiguous(g)
    to = array_new(shape, g.dtype)
    if op == OP_LOGSUMEXP:
        fg_kernels.logsumexp_pull[type](rows, n, g.data, x.data, <void*>&number if out == NULL else out.data, to.data)
    elif op == OP_SOFTMAX:
        fg_kernels.softmax_pull[type](rows, n, g.data, out.data, to.data)
    else:
        fg_kernels.log_softmax_pull[type](rows, n, g.data, out.data, to.data)
    array_drop(g)
    return to


cdef Tensor softmax_from(Tensor x, Tensor out):
    """exp(x - logsumexp(x)); where that is infinite, ties share 1 evenly."""
    top = reshape(out, out.shape + (1,))
    cdef Tensor hit, plain = bare(top)
    infinite = apply1(FG_ISINF, plain)
    soft = apply1(FG_EXP, apply2(FG_SUBTRACT, x, top))
    if not fg_mark and not np.any(to_ndarray(infinite)):
        return soft
    hit = cast(apply2(FG_EQUAL, bare(x), plain), x.dtype)
    return apply3(FG_WHERE, infinite, apply2(FG_DIVIDE, hit, sum(hit, -1, True)), soft)


cdef Tensor pull_row(int op, Tensor g, Tensor x, Tensor out):
    if op == OP_LOGSUMEXP:
        return apply2(FG_GUARDED_MULTIPLY, reshape(g, g.shape + (1,)), softmax_from(x, out))
    if op == OP_SOFTMAX:
        return apply2(FG_GUARDED_MULTIPLY, out,
                      apply2(FG_SUBTRACT, g, sum(apply2(FG_GUARDED_MULTIPLY, out, g), -1, True)))
    return apply2(FG_SUBTRACT, g, apply2(FG_GUARDED_MULTIPLY, apply1(FG_EXP, out), sum(g, -1, True)))


cdef Tensor push_row(int op, Tensor t, Tensor x, Tensor out):
    if op == OP_LOGSUMEXP:
        return sum(apply2(FG_GUARDED_MULTIPLY, t, softmax_from(x, out)), -1)
    if op == OP_SOFTMAX:        # the Jacobian is symmetric
        return pull_row(OP_SOFTMAX, t, x, out)
    return apply2(FG_SUBTRACT, t, sum(apply2(FG_GUARDED_MULTIPLY, apply1(FG_EXP, out), t), -1, True))


cdef Tensor float_tensor(object x, str who):
    cdef Tensor t = as_tensor(x, who)
    return t if is_float(t) else cast(t, np.float64)


def logsumexp(a, axis=None, keepdims=False):
    """log(sum(exp(a))) over axes, without overflow; -inf where all are, +inf where one is.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
    keepdims : bool

    Returns
    -------
    Tensor

    Notes
    -----
    The gradient is the softmax.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgrad.numpy as fnp
    >>> bool(fnp.logsumexp([1000.0, 1000.0]).item() == 1000.0 + np.log(2.0))
    True
    """
    cdef Tensor x = float_tensor(a, "logsumexp"), rows, result
    cdef unsigned int mask = axis_mask(axis, x.ndim, "logsumexp")
    if x.array == NULL or mask == 0:
        return apply1(FG_POSITIVE, x)
    ndim = x.array.shape.ndim
    if mask == <unsigned int>1 << (ndim - 1):
        result = row_operation(OP_LOGSUMEXP, x)
    else:
        axes = axes_of(mask, ndim)
        rest = tuple([d for d in range(ndim) if d not in axes])
        rows = x if axes_trail(mask, ndim) else transpose(x, rest + axes)
        shape = tuple([x.shape[d] for d in rest]) + (size_over(x.array.shape, mask),)
        result = row_operation(OP_LOGSUMEXP, reshape(rows, shape))
    return reshape(result, kept_shape(x.array.shape, mask)) if keepdims else result


cdef Tensor along_axis(int op, object a, object axis, str who):
    cdef Tensor x = float_tensor(a, who)
    if x.array == NULL or x.array.shape.ndim == 0:
        axis_mask(axis, 1, who)
        return reshape(row_operation(op, reshape(x, (1,))), ())
    if axis is None:
        return reshape(row_operation(op, reshape(x, -1)), x.shape)
    if axis_mask(axis, x.array.shape.ndim, who) == <unsigned int>1 << (x.array.shape.ndim - 1):
        return row_operation(op, x)
    return swapaxes(row_operation(op, swapaxes(x, axis, -1)), axis, -1)


def softmax(a, axis=-1):
    """exp(a) / sum(exp(a)) along an axis, without overflow.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or None
        The axis whose elements sum to 1; None: all.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.softmax([0.0, 0.0])
    Tensor([0.5, 0.5])
    """
    return along_axis(OP_SOFTMAX, a, axis, "softmax")


def log_softmax(a, axis=-1):
    """log(softmax(a)) along an axis, without overflow.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or None

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> bool((fnp.log_softmax([0.0, 0.0]) == -fnp.log(2.0)).all())
    True
    """
    return along_axis(OP_LOG_SOFTMAX, a, axis, "log_softmax")


def softmax_cross_entropy(logits, labels):
    """-log_softmax(logits)[label] for each row, in one pass each way.

    Parameters
    ----------
    logits : Tensor or array_like
        Of shape (..., classes), float.
    labels : array_like of int
        Of shape (...); from 0 to classes - 1.

    Returns
    -------
    Tensor
        Of the shape of the labels.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    IndexError
        If a label is out of range.

    Notes
    -----
    The gradient is g * (softmax(logits) - one_hot(labels)).

    Examples
    --------
    >>> import numpy as np
    >>> from fastgrad._core.engine import softmax_cross_entropy
    >>> bool(softmax_cross_entropy([[0.0, 0.0]], [1]).item() == np.log(2.0))
    True
    """
    cdef Tensor x = float_tensor(logits, "softmax_cross_entropy"), result
    cdef Tensor classes = labels_tensor(labels)
    cdef cnp.ndarray numbers = np.array(plain_operands([classes])[0], dtype=np.int64)
    cdef const int64_t* label
    cdef Py_ssize_t i, n, rows
    cdef Array* a
    cdef Array* out
    cdef Array* kept
    cdef Shape* shape
    cdef int type = type_index(x.dtype_number)
    cdef CTape* tape
    cdef Operand o
    cdef index_t id, other
    if x.ndim == 0 or (<object>numbers).shape != x.shape[:-1]:
        raise ValueError(f"cross_entropy: logits of shape {x.shape} go with class numbers of shape {x.shape[:-1]}, "
                         f"not {(<object>numbers).shape}")
    n = x.array.shape.dims[x.array.shape.ndim - 1]
    rows = numbers.size
    label = <const int64_t*>cnp.PyArray_DATA(numbers)
    for i in range(rows):
        if label[i] < 0 or label[i] >= n:
            raise IndexError(f"cross_entropy: class numbers go from 0 to {n - 1}, not from {(<object>numbers).min()} to "
                             f"{(<object>numbers).max()}")
    a = array_contiguous(x.array)
    shape = reduced_shape(a.shape, <unsigned int>1 << (a.shape.ndim - 1), False)
    out = array_new(shape, a.dtype)
    shape_drop(shape)
    fg_kernels.cross_entropy[type](rows, n, a.data, label, out.data)
    array_drop(a)
    result = new_tensor(out)
    if fg_mark:
        note_two(OP_CROSS_ENTROPY, result, x, classes, 0)
    tape = recording_tape(x)
    if tape == NULL:
        return result
    tape_reserve(tape, 4)
    kept = array_from_numpy(numbers)
    kept.foreign = 0                    # made above, for this recording alone
    a = array_owned(x.array)
    id = node_of(x, tape)
    o.array, o.tensor = x.array, <PyObject*>x
    keep_saved(tape.nodes + id, a, &o)
    other = node_new(tape, OP_CONSTANT, 0, 0)
    tape.nodes[other].refcount -= 1
    tape.nodes[other].dtype = NPY_INT64
    tape.nodes[other].shape = shape_keep(kept.shape)
    tape.nodes[other].value.array = kept
    if fg_mark:
        open_trace().note_node(other, open_trace().of_tensor(classes))
    put_on_tape(result, tape, node_new(tape, OP_CROSS_ENTROPY, id, other))
    return result


cdef Tensor labels_tensor(object labels):
    """Class numbers as a Tensor of int64."""
    cdef Tensor t = <Tensor>labels if type(labels) is Tensor else from_ndarray(np.asarray(labels))
    return t if t.dtype_number == NPY_INT64 else cast(t, np.int64)


cdef Array* cross_entropy_back(Array* g, Array* x, Array* labels) except NULL:
    cdef Array* to
    cdef int type = type_index(x.dtype)
    g = array_contiguous(g)
    x = array_contiguous(x)
    to = array_new(x.shape, x.dtype)
    fg_kernels.cross_entropy_pull[type](labels.shape.size, x.shape.dims[x.shape.ndim - 1], g.data, x.data,
                                        <const int64_t*>labels.data, to.data)
    array_drop(g)
    array_drop(x)
    return to


cdef Tensor cross_entropy_slope(Tensor x, Tensor labels):
    """softmax(x) - one_hot(labels)."""
    hot = call_host(one_hot, (labels, x.shape[-1], x.dtype))
    return apply2(FG_SUBTRACT, row_operation(OP_SOFTMAX, x), hot)


def one_hot(labels, n, dtype):
    """1 at each label, else 0, along a new last axis of length n; of arrays."""
    return (np.arange(n) == labels[..., None]).astype(dtype)


cdef Tensor pull_cross_entropy(Tensor g, Tensor x, Tensor labels):
    return apply2(FG_GUARDED_MULTIPLY, reshape(g, g.shape + (1,)), cross_entropy_slope(x, labels))


cdef Tensor push_cross_entropy(Tensor t, Tensor x, Tensor labels):
    return sum(apply2(FG_GUARDED_MULTIPLY, t, cross_entropy_slope(x, labels)), -1)


# -------------------------------------------------------------------------------------------------------------- shape

def reshape(a, shape, *, order="C"):
    """The same elements in another shape.

    Parameters
    ----------
    a : Tensor or array_like
    shape : int or tuple of int
        One entry may be -1 and is inferred.

    Returns
    -------
    Tensor
        A view where the memory allows it.

    Raises
    ------
    ValueError
        If the sizes differ.
    """
    cdef Tensor x = as_tensor(a, "reshape"), result
    cdef Py_ssize_t dims[FG_MAX_NDIM]
    cdef Py_ssize_t n = 0, known = 1, unknown = -1, size
    cdef Shape* to
    cdef Array* from_array
    cdef Array* base
    if order != "C":
        raise ValueError("reshape: only order='C' is supported; transpose first")
    if not isinstance(shape, (tuple, list)):
        shape = (shape,)
    if len(shape) > FG_MAX_NDIM:
        raise ValueError(f"reshape: at most {FG_MAX_NDIM} dimensions")
    for dim in shape:
        dims[n] = dim.__index__()
        if dims[n] < 0:
            if unknown >= 0 or dims[n] != -1:
                raise ValueError(f"reshape: can only specify one unknown dimension, got {tuple(shape)}")
            unknown = n
        elif dims[n] and known > (<Py_ssize_t>1 << 56) // dims[n]:
            raise ValueError(f"reshape: cannot reshape array of size {x.size} into shape {tuple(shape)}")
        else:
            known *= dims[n]
        n += 1
    size = x.size
    if unknown >= 0:
        if known == 0 or size % known:
            raise ValueError(f"reshape: cannot reshape array of size {size} into shape {tuple(shape)}")
        dims[unknown] = size // known
        known *= dims[unknown]
    if known != size:
        raise ValueError(f"reshape: cannot reshape array of size {size} into shape {tuple(shape)}")
    if n == 0 and is_number(x):
        result = new_number(x.number)
        record1(OP_ALIAS, x, result, 0, NULL, 0)
        return result
    from_array = array_of(x)
    base = array_contiguous(from_array)
    array_drop(from_array)
    to = shape_new(n, dims)
    try:
        result = new_tensor(array_view(base, to, base.data, NULL))
    finally:
        shape_drop(to)
        array_drop(base)
    record1(OP_RESHAPE, x, result, 0, NULL, 0)
    return result


cdef Array* reshape_back(Array* g, Shape* shape) except NULL:
    cdef Array* base = array_contiguous(g)
    cdef Array* result = array_view(base, shape, base.data, NULL)
    array_drop(base)
    return result


cdef Tensor permute(Tensor x, const Py_ssize_t* axes):
    """Axes in another order; axes are checked."""
    cdef Py_ssize_t own[FG_MAX_NDIM]
    cdef Py_ssize_t dims[FG_MAX_NDIM]
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Py_ssize_t d, n = x.array.shape.ndim
    cdef Shape* shape
    cdef Tensor result
    cdef Extra* extra = NULL
    strides_of(x.array, own)
    for d in range(n):
        dims[d] = x.array.shape.dims[axes[d]]
        strides[d] = own[axes[d]]
    shape = shape_new(n, dims)
    try:
        result = new_tensor(array_view(x.array, shape, x.array.data, strides))
    finally:
        shape_drop(shape)
    if tracked(x) or fg_mark:
        extra = extra_new(0, n)
        memcpy(extra.numbers, axes, <size_t>n * sizeof(Py_ssize_t))
        record1(OP_TRANSPOSE, x, result, 0, extra, 0)
    return result


cdef void inverse_axes(const Extra* extra, Py_ssize_t* inverse) noexcept:
    cdef Py_ssize_t d
    for d in range(extra.n_numbers):
        inverse[extra.numbers[d]] = d


cdef Array* permute_back(Array* g, Shape* shape, Extra* extra) except NULL:
    cdef Py_ssize_t own[FG_MAX_NDIM]
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Py_ssize_t d
    strides_of(g, own)
    for d in range(shape.ndim):
        strides[extra.numbers[d]] = own[d]
    return array_view(g, shape, g.data, strides)


def transpose(a, axes=None):
    """The axes in another order, reversed by default; a view.

    Parameters
    ----------
    a : Tensor or array_like
    axes : sequence of int, optional

    Returns
    -------
    Tensor
    """
    cdef Tensor x = as_tensor(a, "transpose")
    cdef Py_ssize_t order[FG_MAX_NDIM]
    cdef Py_ssize_t d, k, n = x.ndim
    cdef unsigned int seen = 0
    if x.array == NULL:
        if axes is not None and len(axes):
            raise ValueError("axes don't match array")
        return reshape(x, ())
    if axes is None:
        for d in range(n):
            order[d] = n - 1 - d
    else:
        if len(axes) != n:
            raise ValueError(f"transpose: axes {tuple(axes)} don't match array of shape {x.shape}")
        for d in range(n):
            k = axes[d].__index__()
            if k < -n or k >= n:
                raise np.exceptions.AxisError(k, n, "transpose")
            if k < 0:
                k += n
            if seen >> k & 1:
                raise ValueError("transpose: repeated axis")
            seen |= <unsigned int>1 << k
            order[d] = k
    return permute(x, order)


def swapaxes(a, axis1, axis2):
    """Two axes exchanged; a view.

    Parameters
    ----------
    a : Tensor or array_like
    axis1, axis2 : int

    Returns
    -------
    Tensor
    """
    cdef Tensor x = as_tensor(a, "swapaxes")
    cdef Py_ssize_t order[FG_MAX_NDIM]
    cdef Py_ssize_t i = axis1, j = axis2, d, n = x.ndim
    for k in (i, j):
        if k < -n or k >= n:
            raise np.exceptions.AxisError(k, n, "swapaxes")
    for d in range(n):
        order[d] = d
    i = i + n if i < 0 else i
    j = j + n if j < 0 else j
    order[i], order[j] = j, i
    return permute(x, order)


def squeeze(a, axis=None):
    """Without axes of length 1.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional

    Returns
    -------
    Tensor
    """
    cdef Tensor x = as_tensor(a, "squeeze")
    cdef unsigned int mask
    if axis is None:
        return reshape(x, tuple([d for d in x.shape if d != 1]))
    mask = axis_mask(axis, x.ndim, "squeeze")
    for d in range(x.ndim):
        if mask >> d & 1 and x.shape[d] != 1:
            raise ValueError(f"squeeze: cannot select an axis with size not equal to one: axis {d} of shape {x.shape}")
    return reshape(x, tuple([x.shape[d] for d in range(x.ndim) if not mask >> d & 1]))


def expand_dims(a, axis):
    """With a new axis of length 1 at each given place.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int

    Returns
    -------
    Tensor
    """
    cdef Tensor x = as_tensor(a, "expand_dims")
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    cdef unsigned int mask = axis_mask(tuple(axes), x.ndim + len(axes), "expand_dims")
    old = iter(x.shape)
    return reshape(x, tuple([1 if mask >> d & 1 else next(old) for d in range(x.ndim + len(axes))]))


def broadcast_to(a, shape):
    """Repeated along new and length-1 axes; a view.

    Parameters
    ----------
    a : Tensor or array_like
    shape : int or tuple of int

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If the shapes are not compatible.
    """
    cdef Tensor x = as_tensor(a, "broadcast_to"), result
    cdef Py_ssize_t dims[FG_MAX_NDIM]
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Py_ssize_t own[FG_MAX_NDIM]
    cdef Py_ssize_t d, gap, n = 0
    cdef Shape* to
    cdef Array* array
    if not isinstance(shape, (tuple, list)):
        shape = (shape,)
    if shape == x.shape:
        return apply_alias(x)
    if len(shape) > FG_MAX_NDIM:
        raise ValueError(f"broadcast_to: at most {FG_MAX_NDIM} dimensions")
    for dim in shape:
        dims[n] = dim.__index__()
        n += 1
    array = array_of(x)
    gap = n - array.shape.ndim
    strides_of(array, own)
    for d in range(n):
        strides[d] = 0
        if d >= gap:
            if array.shape.dims[d - gap] == dims[d]:
                strides[d] = own[d - gap]
            elif array.shape.dims[d - gap] == 1:
                strides[d] = 0
            else:
                gap = -1
        if gap < 0:
            array_drop(array)
            raise ValueError(f"broadcast_to: shape {x.shape} cannot be broadcast to {tuple(shape)}")
    to = shape_new(n, dims)
    try:
        result = new_tensor(array_view(array, to, array.data, strides))
    finally:
        shape_drop(to)
        array_drop(array)
    record1(OP_BROADCAST, x, result, 0, NULL, 0)
    return result


cdef Tensor apply_alias(Tensor x):
    """The same value in a place of its own."""
    cdef Tensor result = bare(x)
    record1(OP_ALIAS, x, result, 0, NULL, 0)
    return result


cdef Array* unbroadcast(Array* g, Shape* shape, int dtype) except NULL:
    """g summed over the axes along which `shape` was repeated; in the given dtype."""
    cdef Array* summed
    cdef unsigned int mask = 0
    cdef Py_ssize_t d, gap = g.shape.ndim - shape.ndim
    if same_shape(g.shape, shape) and g.dtype == dtype:
        return array_keep(g)
    if g.shape.size > FEW_ROWS * shape.size and g.shape.ndim <= 32:
        for d in range(g.shape.ndim):
            if d < gap or shape.dims[d - gap] != g.shape.dims[d]:
                mask |= <unsigned int>1 << d
        summed = sum_over(g, mask, True)
        try:
            return sum_of_few(summed, shape, dtype)
        finally:
            array_drop(summed)
    return sum_of_few(g, shape, dtype)


cdef Array* sum_of_few(Array* g, Shape* shape, int dtype) except NULL:
    """The same, one added after another."""
    cdef Array* to
    cdef fg_view source, sink
    cdef fg_extent extent
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Py_ssize_t unused[FG_MAX_NDIM]
    to = array_new(shape, dtype)
    fg_kernels.fill[type_index(dtype)](shape.size, 0, to.data)
    view_of_value(g, 0, g.shape, unused, &source)
    view_of_value(to, 0, g.shape, strides, &sink)
    extent_of(g.shape, &extent)
    fg_run_add(type_index(g.dtype), &extent, &source, &sink)
    return to


cdef Tensor unbroadcast_tensor(Tensor g, tuple shape):
    """The same on Tensors."""
    cdef Py_ssize_t gap
    if g.shape == shape:
        return g
    gap = len(g.shape) - len(shape)
    axes = tuple(range(gap)) + tuple([gap + d for d in range(len(shape)) if shape[d] == 1 and g.shape[gap + d] != 1])
    return reshape(sum(g, axes), shape)


def copy(a):
    """A Tensor with its own memory; gradients flow through it.

    Parameters
    ----------
    a : Tensor or array_like

    Returns
    -------
    Tensor
    """
    cdef Tensor x = as_tensor(a, "copy"), result
    cdef Array* own
    if x.array == NULL:
        return apply_alias(x)
    own = array_new(x.array.shape, x.array.dtype)
    array_copy_into(x.array, own)
    result = new_tensor(own)
    record1(OP_ALIAS, x, result, 0, NULL, 0)
    return result


cdef Tensor cast(Tensor x, object dtype):
    """Another dtype; gradients flow between the float ones."""
    cdef Tensor result
    cdef int number = (<cnp.dtype>np.dtype(dtype)).num
    if number == x.dtype_number:
        return apply_alias(x) if tracked(x) else x
    if fg_mark and not (castable(number) and (castable(x.dtype_number) or x.dtype_number == NPY_BOOL)):
        return call_host(np.asarray, (x, np.dtype(dtype)))
    result = from_ndarray(plain_operands([x])[0].astype(dtype))
    if result.array != NULL:
        result.array.foreign = 0        # astype made it for us alone
    if is_float(result):
        record1(OP_CAST, x, result, 0, NULL, 0)
    elif fg_mark:
        note_structured(OP_CAST, x, result, 0, NULL)
    return result


cdef inline bint castable(int dtype) noexcept:
    """Whether a Program converts it by itself."""
    return dtype == NPY_DOUBLE or dtype == NPY_FLOAT


# -------------------------------------------------------------------------------------------------------------- index

cdef int basic_index(Tensor x, object index, Py_ssize_t* ndim, Py_ssize_t* dims, Py_ssize_t* strides,
                     Py_ssize_t* plain_strides, Py_ssize_t* offset, Py_ssize_t* plain_offset) except -1:
    """Reads integers, slices, newaxis and Ellipsis; returns 0 where the index is anything else.

    strides and offset are in bytes over x's memory, the plain ones in elements over a contiguous x.
    """
    cdef Py_ssize_t own[FG_MAX_NDIM]
    cdef Py_ssize_t plain_own[FG_MAX_NDIM]
    cdef Py_ssize_t d = 0, n = 0, i, k, start, stop, step, length, used = 0, step_plain = 1
    cdef Shape* shape = x.array.shape
    cdef Py_ssize_t item = item_size(x.array.dtype)
    cdef tuple parts = index if type(index) is tuple else (index,)
    cdef bint seen_ellipsis = False
    strides_of(x.array, own)
    for k in range(shape.ndim - 1, -1, -1):
        plain_own[k] = step_plain
        step_plain *= shape.dims[k]
    for part in parts:
        if part is None:
            continue
        if part is Ellipsis:
            if seen_ellipsis:
                raise IndexError("an index can only have a single ellipsis ('...')")
            seen_ellipsis = True
        elif isinstance(part, (bool, np.bool_)) or not (isinstance(part, (int, slice, np.integer))):
            return 0
        else:
            used += 1
    if used > shape.ndim:
        raise IndexError(f"too many indices: shape {x.shape} is {shape.ndim}-dimensional, but {used} were indexed")
    if not seen_ellipsis:
        parts = parts + (Ellipsis,)
    offset[0] = 0
    plain_offset[0] = 0
    for part in parts:
        if n + shape.ndim - d > FG_MAX_NDIM - 1:
            raise IndexError("too many dimensions in index")
        if part is None:
            dims[n] = 1
            strides[n] = 0
            plain_strides[n] = 0
            n += 1
        elif part is Ellipsis:
            for k in range(shape.ndim - used):
                dims[n] = shape.dims[d]
                strides[n] = own[d]
                plain_strides[n] = plain_own[d]
                n += 1
                d += 1
        elif isinstance(part, slice):
            start, stop, step = part.indices(shape.dims[d])
            if step > 0:
                length = (stop - start + step - 1) // step if stop > start else 0
            else:
                length = (start - stop - step - 1) // -step if stop < start else 0
            dims[n] = length
            strides[n] = own[d] * step
            plain_strides[n] = plain_own[d] * step
            if length:
                offset[0] += start * own[d]
                plain_offset[0] += start * plain_own[d]
            n += 1
            d += 1
        else:
            i = part
            if i < -shape.dims[d] or i >= shape.dims[d]:
                raise IndexError(f"index {i} is out of bounds for axis {d} with size {shape.dims[d]}; the shape is {x.shape}")
            if i < 0:
                i += shape.dims[d]
            offset[0] += i * own[d]
            plain_offset[0] += i * plain_own[d]
            d += 1
    ndim[0] = n
    return 1


cdef object get_item(Tensor x, object index):
    cdef Py_ssize_t dims[FG_MAX_NDIM]
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Py_ssize_t plain_strides[FG_MAX_NDIM]
    cdef Py_ssize_t n, offset, plain_offset
    cdef Shape* shape
    cdef Tensor result
    cdef Extra* extra
    if x.array == NULL:
        x = reshape(x, (1,))
        parts = index if type(index) is tuple else (index,)
        for part in parts:
            if part is not None and part is not Ellipsis:
                raise IndexError("too many indices: a 0-d Tensor cannot be indexed; use t.item() for its number")
        return reshape(x, (1,) * parts.count(None))
    if not basic_index(x, index, &n, dims, strides, plain_strides, &offset, &plain_offset):
        return gather(x, index)
    shape = shape_new(n, dims)
    try:
        result = new_tensor(array_view(x.array, shape, x.array.data + offset, strides))
    finally:
        shape_drop(shape)
    if tracked(x) or fg_mark:
        extra = extra_new(0, n + 1)
        extra.numbers[0] = plain_offset
        memcpy(extra.numbers + 1, plain_strides, <size_t>n * sizeof(Py_ssize_t))
        record1(OP_INDEX, x, result, 0, extra, 0)
    return result


cdef int index_add(Array* to, Array* g, double number, Shape* shape, const Extra* extra) except -1:
    """Adds g, or a number, into the indexed part of the contiguous array `to`."""
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Py_ssize_t unused[FG_MAX_NDIM]
    cdef Py_ssize_t d, item = item_size(to.dtype)
    cdef fg_view source, sink
    cdef fg_extent extent
    for d in range(extra.n_numbers - 1):
        strides[d] = extra.numbers[1 + d] * item
    sink.kind = FG_STRIDED
    sink.type = type_index(to.dtype)
    sink.data = to.data + extra.numbers[0] * item
    sink.strides = strides
    if g == NULL:
        (<double*>sink.data)[0] += number
        return 0
    view_of_value(g, 0, g.shape, unused, &source)
    extent_of(g.shape, &extent)
    fg_run_add(type_index(g.dtype), &extent, &source, &sink)
    return 0


cdef Extra* copy_numbers(const Extra* extra) except NULL:
    cdef Extra* own = extra_new(0, extra.n_numbers)
    memcpy(own.numbers, extra.numbers, <size_t>extra.n_numbers * sizeof(Py_ssize_t))
    return own


cdef Tensor index_again(Tensor x, const Extra* extra, Shape* shape):
    """The part of x that an index recorded in extra takes, of the given shape: the transpose of scatter."""
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Py_ssize_t d, item = item_size(x.dtype_number)
    cdef Array* from_array = array_of(x)
    cdef Array* base = array_contiguous(from_array)
    cdef Tensor result
    cdef Extra* own = copy_numbers(extra)
    array_drop(from_array)
    for d in range(shape.ndim):
        strides[d] = own.numbers[1 + d] * item
    result = new_tensor(array_view(base, shape, base.data + own.numbers[0] * item, strides))
    array_drop(base)
    record1(OP_INDEX, x, result, 0, own, 0)
    return result


cdef Tensor scatter(Tensor g, const Extra* extra, Shape* shape):
    """Zeros of the given shape with g added where the index recorded in extra leads."""
    cdef Array* to = array_new(shape, g.dtype_number)
    cdef Array* from_array = array_of(g)
    cdef Tensor result
    memset(to.data, 0, <size_t>shape.size * <size_t>item_size(g.dtype_number))
    index_add(to, from_array, 0, shape, extra)
    array_drop(from_array)
    result = new_tensor(to)
    record1(OP_SCATTER, g, result, 0, copy_numbers(extra), 0)
    return result


# ------------------------------------------------------------------------------------------------------------- matmul

cdef enum:
    # multiplications up to which our own loops are faster than a call of BLAS (benches/products.py): one row, and more
    SMALL_PRODUCT = 2000
    MIDDLE_PRODUCT = 6000000


cdef int product(int type, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, char* a, Py_ssize_t a_row, Py_ssize_t a_column,
                 char* b, Py_ssize_t b_row, Py_ssize_t b_column, char* to) except -1:
    """to = a b, by the fastest way there is."""
    cdef double work = <double>m * k * n
    if m * n == 0:
        return 0
    if k == 0:
        fg_kernels.fill[type](m * n, 0, to)
    elif work <= 256 or (m == 1 and work <= SMALL_PRODUCT):
        fg_kernels.matmul[type](m, k, n, a, a_row, a_column, b, b_row, b_column, to, False)
    elif m == 1 and numpy_matmul[type] != NULL:
        call_numpy_matmul(type, m, k, n, a, a_row, a_column, b, b_row, b_column, to)
    elif work <= MIDDLE_PRODUCT and work <= LONG:
        fg_kernels.gemm[type](m, k, n, a, a_row, a_column, b, b_row, b_column, to)
    elif work <= MIDDLE_PRODUCT:
        with nogil:
            fg_kernels.gemm[type](m, k, n, a, a_row, a_column, b, b_row, b_column, to)
    elif numpy_matmul[type] == NULL:
        fg_kernels.matmul[type](m, k, n, a, a_row, a_column, b, b_row, b_column, to, False)
    elif work > LONG:
        with nogil:
            call_numpy_matmul(type, m, k, n, a, a_row, a_column, b, b_row, b_column, to)
    else:
        call_numpy_matmul(type, m, k, n, a, a_row, a_column, b, b_row, b_column, to)
    return 0


cdef struct Matrix:
    Py_ssize_t rows, columns, row, column      # sizes, and strides in elements


cdef void matrix_of(Array* a, bint left, Matrix* matrix) noexcept:
    """An Array of one or two axes as a matrix: a row on the left, a column on the right."""
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Py_ssize_t item = item_size(a.dtype)
    strides[0] = 0                      # there is an axis, which the compiler does not know
    strides_of(a, strides)
    if a.shape.ndim == 2:
        matrix.rows, matrix.columns = a.shape.dims[0], a.shape.dims[1]
        matrix.row, matrix.column = strides[0] // item, strides[1] // item
    elif left:
        matrix.rows, matrix.columns, matrix.row, matrix.column = 1, a.shape.dims[0], 0, strides[0] // item
    else:
        matrix.rows, matrix.columns, matrix.row, matrix.column = a.shape.dims[0], 1, strides[0] // item, 0


def _time_products(Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, int way, Py_ssize_t repeat, bint turn):
    """For benches/products.py: repeats one product by our simple loop (0), gemm (1) or NumPy's BLAS (2)."""
    cdef cnp.ndarray a = np.ones((m, k)), b = np.ones((n, k)).T if turn else np.ones((k, n)), c = np.empty((m, n))
    cdef Py_ssize_t b_row = 1 if turn else n, b_column = k if turn else 1, i
    cdef char* x = cnp.PyArray_BYTES(a)
    cdef char* y = cnp.PyArray_BYTES(b)
    cdef char* to = cnp.PyArray_BYTES(c)
    for i in range(repeat):
        if way == 0:
            fg_kernels.matmul[0](m, k, n, x, k, 1, y, b_row, b_column, to, False)
        elif way == 1:
            fg_kernels.gemm[0](m, k, n, x, k, 1, y, b_row, b_column, to)
        else:
            call_numpy_matmul(0, m, k, n, x, k, 1, y, b_row, b_column, to)


def matmul(a, b, /, *, out=None):
    """Matrix product, by NumPy's rules for every rank: 1-d operands are a row and a column, others stacks of matrices.

    Parameters
    ----------
    a, b : Tensor or array_like
        Of at least one dimension; (..., m, k) and (..., k, n).

    Returns
    -------
    Tensor
        (..., m, n); the axes of 1-d operands are left out.

    Raises
    ------
    ValueError
        If the inner lengths differ.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.matmul([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0])
    Tensor([3., 7.])
    """
    cdef Tensor x, y, result
    cdef Shape* shape
    cdef Array* to
    cdef Matrix p, q
    cdef Py_ssize_t dims[2]
    cdef Py_ssize_t n = 0, inner
    x = as_tensor(a, "matmul")
    y = as_tensor(b, "matmul")
    if not is_float(x) or not is_float(y) or x.dtype_number != y.dtype_number:
        if not tracked(x) and not tracked(y) and not (is_float(x) or is_float(y)):
            return with_numpy("matmul", (x, y))
        common = np.result_type(x.dtype, y.dtype)
        x, y = cast(x, common), cast(y, common)
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError(f"matmul: shapes {x.shape} and {y.shape}: 0-d operands are not allowed, use * instead")
    inner = y.array.shape.dims[y.array.shape.ndim - 2 if y.array.shape.ndim > 1 else 0]
    if x.array.shape.dims[x.array.shape.ndim - 1] != inner:
        raise ValueError(
            f"matmul: shapes {x.shape} and {y.shape} do not fit: the last axis of the first and the "
            f"{'second to last' if y.ndim > 1 else 'only'} axis of the second must have the same length")
    if x.array.shape.ndim > 2 or y.array.shape.ndim > 2:
        for d in range(3, (x.ndim if x.ndim < y.ndim else y.ndim) + 1):
            if x.shape[-d] != y.shape[-d] and x.shape[-d] != 1 and y.shape[-d] != 1:
                raise ValueError(f"matmul: shapes {x.shape} and {y.shape} do not fit: the axes before the last two must "
                                 "broadcast together")
        result = from_ndarray(np.matmul(*plain_operands([x, y])))
        if result.array != NULL:
            result.array.foreign = 0
    else:
        matrix_of(x.array, True, &p)
        matrix_of(y.array, False, &q)
        if x.array.shape.ndim == 2:
            dims[n] = p.rows
            n += 1
        if y.array.shape.ndim == 2:
            dims[n] = q.columns
            n += 1
        shape = shape_new(n, dims)
        try:
            to = array_new(shape, x.array.dtype)
        finally:
            shape_drop(shape)
        product(type_index(x.array.dtype), p.rows, p.columns, q.columns, x.array.data, p.row, p.column,
                y.array.data, q.row, q.column, to.data)
        result = new_tensor(to)
    if fg_mark:
        note_two(OP_MATMUL, result, x, y, 0)
    record_matmul(x, y, result)
    return result if out is None else assign_out(out, result)


cdef int record_matmul(Tensor x, Tensor y, Tensor result) except -1:
    cdef CTape* tape = current_tape()
    cdef Operand o[2]
    cdef bint flows[2]
    cdef index_t id[2]
    cdef Array* saved[2]
    cdef index_t i
    cdef int k
    flows[0], flows[1] = tracked(x), tracked(y)
    if not tape.recording or not (flows[0] or flows[1]):
        return 0
    check_tape(x, tape)
    check_tape(y, tape)
    tape_reserve(tape, 4)
    saved[0] = saved[1] = NULL
    o[0].tensor, o[0].array = <PyObject*>x, x.array
    o[1].tensor, o[1].array = <PyObject*>y, y.array
    if flows[1]:
        saved[0] = array_owned(x.array)
    if flows[0]:
        try:
            saved[1] = array_owned(y.array)
        except BaseException:
            if saved[0] != NULL:
                array_drop(saved[0])
            raise
    for k in range(2):
        id[k] = 0
        if flows[k]:
            id[k] = node_of(<Tensor>o[k].tensor, tape)
        elif saved[k] != NULL:
            id[k] = node_new(tape, OP_CONSTANT, 0, 0)
            tape.nodes[id[k]].refcount -= 1
            tape.nodes[id[k]].shape = shape_keep(saved[k].shape)
            tape.nodes[id[k]].dtype = <unsigned char>saved[k].dtype
            if fg_mark:
                open_trace().note_node(id[k], open_trace().of_tensor(<Tensor>o[k].tensor))
        if saved[k] != NULL:
            keep_saved(tape.nodes + id[k], saved[k], o + k)
    i = node_new(tape, OP_MATMUL, id[0], id[1])
    put_on_tape(result, tape, i)
    return 0


cdef Array* matmul_back(int k, Array* g, double number, Array* other, Shape* shape, int dtype) except? NULL:
    """The cotangent of operand k of a product of one- or two-axis Arrays, of the given shape."""
    cdef Matrix p, q
    cdef Array* to
    cdef char* data
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Py_ssize_t rows, columns, row = 0, column = 0
    cdef Py_ssize_t item = item_size(dtype)
    cdef int type = type_index(dtype)
    if shape.ndim > 2 or other.shape.ndim > 2:
        return NULL
    if g == NULL:
        data = <char*>&number
        strides[0] = strides[1] = 0
    else:
        data = g.data
        strides_of(g, strides)
    to = array_new(shape, dtype)
    if k == 0:                      # (m, n) times the transposed (k, n)
        matrix_of(other, False, &q)
        rows = shape.dims[0] if shape.ndim == 2 else 1
        if g != NULL and g.shape.ndim == 2:
            row, column = strides[0] // item, strides[1] // item
        elif g != NULL and g.shape.ndim == 1:
            if shape.ndim == 2:
                row = strides[0] // item
            else:
                column = strides[0] // item
        product(type, rows, q.columns, q.rows, data, row, column, other.data, q.column, q.row, to.data)
    else:                           # the transposed (m, k) times (m, n)
        matrix_of(other, True, &p)
        columns = shape.dims[1] if shape.ndim == 2 else 1
        if g != NULL and g.shape.ndim == 2:
            row, column = strides[0] // item, strides[1] // item
        elif g != NULL and g.shape.ndim == 1:
            if shape.ndim == 2:
                column = strides[0] // item
            else:
                row = strides[0] // item
        product(type, p.columns, p.rows, columns, other.data, p.column, p.row, data, row, column, to.data)
    return to


cdef Tensor pull_matmul(int k, Tensor g, Tensor other, tuple shape):
    """The same for every rank, on Tensors."""
    cdef Tensor result
    cdef bint row = len(shape) == 1 if k == 0 else other.ndim == 1
    cdef bint column = len(shape) == 1 if k == 1 else other.ndim == 1
    full = g.shape + (1,) if column else g.shape
    if row:
        full = full[:-1] + (1,) + full[-1:]
    g = reshape(g, full)
    if k == 0:
        other = reshape(other, other.shape + (1,)) if column else other
        result = matmul(g, swapaxes(other, -1, -2))
    else:
        other = reshape(other, (1,) + other.shape) if row else other
        result = matmul(swapaxes(other, -1, -2), g)
    whole = (1,) + shape if (k == 0 and row) else shape + (1,) if (k == 1 and column) else shape
    return reshape(unbroadcast_tensor(result, whole), shape)


def dot(a, b, /, *, out=None):
    """Dot product by NumPy's rules: of vectors a number, of matrices their product, with a number a multiple.

    Parameters
    ----------
    a, b : Tensor or array_like

    Returns
    -------
    Tensor
        For higher ranks the sum over the last axis of a and the second to last of b.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.dot([1.0, 2.0], [3.0, 4.0])
    Tensor(11.0)
    """
    cdef Tensor x = as_tensor(a, "dot"), y = as_tensor(b, "dot")
    inner = y.shape[-2 if y.ndim > 1 else 0] if y.ndim else None
    if x.ndim and y.ndim and x.shape[-1] != inner:
        raise ValueError(f"dot: shapes {x.shape} and {y.shape} not aligned: {x.shape[-1]} != {inner}")
    if x.ndim == 0 or y.ndim == 0:
        result = apply2(FG_MULTIPLY, x, y)
    elif x.ndim <= 2 and y.ndim <= 2:
        result = matmul(x, y)
    elif y.ndim == 1:
        result = matmul(x, y)
    else:
        # (a.., k) . (b.., k, n) -> (a.., b.., n)
        moved_y = moveaxis(y, -2, 0)
        product_ = matmul(reshape(x, (-1, x.shape[-1])), reshape(moved_y, (moved_y.shape[0], -1)))
        result = reshape(product_, x.shape[:-1] + y.shape[:-2] + y.shape[-1:])
    return result if out is None else assign_out(out, result)


def moveaxis(a, source, destination):
    """Axes moved to other places, the others kept in order; a view.

    Parameters
    ----------
    a : Tensor or array_like
    source, destination : int or sequence of int

    Returns
    -------
    Tensor
    """
    cdef Tensor x = as_tensor(a, "moveaxis")
    from_axes = [axes_of(axis_mask(s, x.ndim, "moveaxis"), x.ndim)[0] for s in np.atleast_1d(source).tolist()]
    to_axes = [axes_of(axis_mask(d, x.ndim, "moveaxis"), x.ndim)[0] for d in np.atleast_1d(destination).tolist()]
    if len(from_axes) != len(to_axes):
        raise ValueError("moveaxis: `source` and `destination` arguments must have the same number of elements")
    if len(set(from_axes)) != len(from_axes) or len(set(to_axes)) != len(to_axes):
        raise ValueError("moveaxis: repeated axis")
    order = [d for d in range(x.ndim) if d not in from_axes]
    for to, source_axis in sorted(zip(to_axes, from_axes)):
        order.insert(to, source_axis)
    return transpose(x, order)
