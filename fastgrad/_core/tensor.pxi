# Tensor: a value and, while it is being differentiated, its place on a tape.
#
# A 0-d float64 (or bool) keeps its number inline and has no Array.  In-place operations give the Tensor a new value and
# a new place; memory that a recording reads is never written.  Knows operations only by the functions it calls.

@cython.final
@cython.no_gc           # nothing a Tensor refers to refers back: Arrays, a tape it does not own, its gradient
cdef class Tensor:
    """An n-d array of float64 or float32 that can be differentiated; also integers and bool, which cannot.

    Made by ``fg.tensor`` and by every operation.  Has NumPy's attributes, methods and operators, and PyTorch's
    ``requires_grad``, ``grad``, ``backward`` and ``detach``.

    Thread-safety: a Tensor that was recorded belongs to the thread that recorded it; a leaf can be used by any thread.

    Attributes
    ----------
    shape, ndim, size, dtype, T : as in NumPy.
    requires_grad : bool
        Whether gradients flow to or through it.
    is_leaf : bool
        Whether it was made by the user rather than by a recorded operation.
    grad : Tensor or None
        The gradient accumulated by ``backward``; None until then.

    Examples
    --------
    >>> import fastgrad as fg
    >>> x = fg.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([2., 4.])
    """
    cdef CTape* tape
    cdef index_t node               # 0: not on a tape
    cdef index_t stale              # of a leaf: the last of its nodes that recorded an older value, 0: none
    cdef short dtype_number
    cdef unsigned char requires     # a leaf that asked for gradients
    cdef unsigned char weak         # stands for a Python number: takes the dtype of the others
    cdef unsigned long long traced  # its value in an open Trace: see trace.pxi
    cdef double number              # the value where array is NULL
    cdef Array* array
    cdef object gradient

    def __init__(self, *arguments, **keywords):
        raise TypeError("make a Tensor with fg.tensor(data, dtype=None, requires_grad=False)")

    # -- what it is

    @property
    def shape(self):
        """Lengths of the axes, a tuple of int."""
        return () if self.array == NULL else shape_tuple(self.array.shape)

    @property
    def ndim(self):
        """How many axes."""
        return 0 if self.array == NULL else self.array.shape.ndim

    @property
    def size(self):
        """How many elements."""
        return 1 if self.array == NULL else self.array.shape.size

    @property
    def dtype(self):
        """The NumPy dtype."""
        return cnp.PyArray_DescrFromType(self.dtype_number)

    @property
    def itemsize(self):
        """Bytes an element."""
        return item_size(self.dtype_number)

    @property
    def nbytes(self):
        """Bytes of all elements."""
        return self.size * item_size(self.dtype_number)

    @property
    def T(self):
        """The axes reversed."""
        return transpose(self)

    @property
    def mT(self):
        """The last two axes swapped."""
        return swapaxes(self, -1, -2)

    @property
    def real(self):
        """The Tensor itself: there are no complex ones."""
        return self

    @property
    def is_leaf(self):
        """Whether it was made by the user rather than by a recorded operation."""
        return self.requires or not self.node

    @property
    def requires_grad(self):
        """Whether gradients flow to or through it.  Can be set on a leaf."""
        return tracked(self)

    @requires_grad.setter
    def requires_grad(self, bint value):
        if self.node and not self.requires:
            raise RuntimeError("requires_grad can be set on leaves only; use .detach() to cut a recorded Tensor loose")
        if value == self.requires:
            return
        if value:
            refuse_integer_leaf(self.dtype_number, "this Tensor")
            self.requires = True
        else:
            leave_tape(self)
            self.requires = False

    @property
    def grad(self):
        """The gradient accumulated by ``backward``: a Tensor, or None."""
        if fg_mark:
            open_trace().look_at_gradient(self)
        return self.gradient

    @grad.setter
    def grad(self, value):
        if fg_mark:
            open_trace().look_at_gradient(self)
        if value is None or (type(value) is Tensor and (<Tensor>value) is not self):
            if value is not None and value.shape != self.shape:
                raise ValueError(f"grad of shape {value.shape} for a Tensor of shape {self.shape}")
            self.gradient = value
            return
        raise TypeError("grad can be None or another Tensor of the same shape")

    @grad.deleter
    def grad(self):
        self.zero_grad()

    # -- out of fastgrad

    def item(self, *index):
        """One element as a Python number: the only one, or that of an index.  Carries no gradient, by its name.

        Parameters
        ----------
        *index : int
            One for each axis, or one that counts in C order; may be left out where there is one element.

        Raises
        ------
        ValueError
            If there is not exactly one element.
        """
        if fg_mark:
            refuse_reading(self, "t.item()")
        if index:
            return numbers_of(self).item(*index)
        if self.array == NULL:
            return self.number if self.dtype_number == NPY_DOUBLE else bool(self.number)
        if self.array.shape.size != 1:
            raise ValueError(f"item: a Tensor of shape {self.shape} has {self.size} elements, not one")
        return view_ndarray(self.array, False).item()

    def tolist(self):
        """The elements as nested lists of Python numbers, without gradients."""
        return bare(self).numpy().tolist()

    def numpy(self):
        """The value as a NumPy array, without copying.

        Returns
        -------
        ndarray
            Shares memory.  Read-only where the Tensor is being differentiated, so that nobody changes a recorded value.
        """
        return to_ndarray(self)

    def detach(self):
        """The same value, not on any tape.

        Returns
        -------
        Tensor
            Shares memory; gradients do not flow through it.
        """
        cdef Tensor t = bare(self)
        if fg_mark:
            t.traced = fg_mark | open_trace().detached(open_trace().of_tensor(self))
            open_trace().cuts = True
        return t

    def __array__(self, dtype=None, copy=None):
        refuse_lost_gradient(self, "np.asarray(t)")
        a = to_ndarray(self)
        if dtype is not None and a.dtype != dtype:
            if copy is False:
                raise ValueError("a Tensor cannot become an array of another dtype without a copy")
            return a.astype(dtype)
        return a.copy() if copy else a

    def __float__(self):
        refuse_lost_gradient(self, "float(t)")
        return float(self.item())

    def __int__(self):
        refuse_lost_gradient(self, "int(t)")
        return int(self.item())

    def __complex__(self):
        refuse_lost_gradient(self, "complex(t)")
        return complex(self.item())

    def __index__(self):
        if self.dtype_number == NPY_DOUBLE or self.dtype_number == NPY_FLOAT:
            raise TypeError("only integer Tensors can be an index; use int(t.item())")
        if fg_mark:
            refuse_reading(self, "a Tensor as a Python index")
        return self.item().__index__()

    def __bool__(self):
        if fg_mark and self.size == 1:
            return open_trace().truth(self)
        if self.array == NULL:
            return self.number != 0
        if self.array.shape.size != 1:
            raise ValueError("The truth value of a Tensor with more than one element is ambiguous. Use t.any() or t.all()")
        return bool(view_ndarray(self.array, False).item())

    def __hash__(self):
        return <Py_ssize_t><size_t><PyObject*>self >> 4

    def __len__(self):
        if self.array == NULL or self.array.shape.ndim == 0:
            raise TypeError("len() of a 0-d Tensor")
        return self.array.shape.dims[0]

    def __iter__(self):
        if self.array == NULL or self.array.shape.ndim == 0:
            raise TypeError("iteration over a 0-d Tensor")
        return iter([get_item(self, i) for i in range(self.array.shape.dims[0])])

    def __contains__(self, value):
        return bool(apply2(FG_EQUAL, self, value).any())

    def __repr__(self):
        if fg_mark:
            return untraced(repr, self)
        text = np.array2string(to_ndarray(self), separator=", ", prefix="Tensor(") if self.array != NULL else repr(self.item())
        if self.dtype_number != NPY_DOUBLE and self.dtype_number != NPY_BOOL:
            text += f", dtype={self.dtype}"
        if self.requires:
            text += ", requires_grad=True"
        elif self.node:
            text += f", op={op_name(self.tape.nodes + self.node)!r}"
        return f"Tensor({text})"

    def __str__(self):
        if fg_mark:
            return untraced(str, self)
        return str(to_ndarray(self)) if self.array != NULL else str(self.item())

    def __format__(self, spec):
        if fg_mark:
            return untraced(format, self, spec)
        return format(self.item(), spec) if self.size == 1 and spec else format(str(self), spec)

    def __copy__(self):
        return copy(self)

    def __deepcopy__(self, memo):
        if self.node and not self.requires:
            raise TypeError("deepcopy of a Tensor that is being differentiated; use .detach() first, or leaves")
        result = rebuild(to_ndarray(self), self.requires)
        memo[id(self)] = result
        return result

    def __reduce__(self):
        if self.node and not self.requires:
            raise TypeError("pickle of a Tensor that is being differentiated; use .detach() first, or leaves")
        return rebuild, (np.array(to_ndarray(self)), self.requires)

    # -- differentiation

    def backward(self, gradient=None, bint retain_graph=False, bint create_graph=False):
        """Adds the gradient of this Tensor to ``grad`` of every leaf it was computed from.

        Parameters
        ----------
        gradient : array_like, optional
            The cotangent to start from, of this Tensor's shape.  May be left out where there is one element.
        retain_graph : bool
            Whether to keep the graph for another backward.
        create_graph : bool
            Whether to record the gradients' own computation, so that they can be differentiated; implies retain_graph.

        Raises
        ------
        RuntimeError
            If nothing was recorded, or the graph was swept before without ``retain_graph=True``.
        ValueError
            If ``gradient`` is missing or of another shape.

        Examples
        --------
        >>> import fastgrad as fg
        >>> x = fg.tensor(3.0, requires_grad=True)
        >>> (x * x).backward()
        >>> x.grad
        Tensor(6.0)
        """
        backward(self, gradient, retain_graph, create_graph)

    def retain_grad(self):
        """Makes ``backward`` set ``grad`` on this Tensor too, though it is not a leaf."""
        if self.requires:
            return
        if not self.node:
            raise RuntimeError("retain_grad: this Tensor is not being differentiated")
        self.tape.nodes[self.node].flags |= RETAINS

    def zero_grad(self):
        """Forgets the gradient: ``grad`` is None again."""
        if fg_mark:
            open_trace().look_at_gradient(self)
        self.gradient = None

    def requires_grad_(self, bint value=True):
        """Sets ``requires_grad`` and returns the Tensor."""
        self.requires_grad = value
        return self

    # -- operators

    def __add__(x, y):
        return quick2(FG_ADD, x, y)

    def __sub__(x, y):
        return quick2(FG_SUBTRACT, x, y)

    def __mul__(x, y):
        return quick2(FG_MULTIPLY, x, y)

    def __truediv__(x, y):
        return quick2(FG_DIVIDE, x, y)

    def __floordiv__(x, y):
        return operator2(FG_FLOOR_DIVIDE, x, y)

    def __mod__(x, y):
        return operator2(FG_MOD, x, y)

    def __divmod__(x, y):
        return operator2(FG_FLOOR_DIVIDE, x, y), operator2(FG_MOD, x, y)

    def __pow__(x, y, modulus):
        if modulus is not None:
            return NotImplemented
        return power_operator(x, y)

    def __matmul__(x, y):
        return matmul(x, y) if is_array_like(x) and is_array_like(y) else NotImplemented

    def __neg__(self):
        return operator1(FG_NEGATIVE, self)

    def __pos__(self):
        return operator1(FG_POSITIVE, self)

    def __abs__(self):
        return operator1(FG_ABSOLUTE, self)

    def __invert__(self):
        if self.dtype_number == NPY_BOOL:
            return operator1(FG_LOGICAL_NOT, self)
        return with_numpy("invert", (self,))

    def __lshift__(x, y):
        return with_numpy("left_shift", (x, y))

    def __rshift__(x, y):
        return with_numpy("right_shift", (x, y))

    def __trunc__(self):
        return int(self)

    def __round__(self, decimals=None):
        return HOOKS["round"](self, 0 if decimals is None else decimals)

    def __and__(x, y):
        return bit_operator("bitwise_and", FG_LOGICAL_AND, x, y)

    def __or__(x, y):
        return bit_operator("bitwise_or", FG_LOGICAL_OR, x, y)

    def __xor__(x, y):
        return bit_operator("bitwise_xor", FG_LOGICAL_XOR, x, y)

    def __iadd__(self, y):
        return assign(self, operator2(FG_ADD, self, y), "+=")

    def __isub__(self, y):
        return assign(self, operator2(FG_SUBTRACT, self, y), "-=")

    def __imul__(self, y):
        return assign(self, operator2(FG_MULTIPLY, self, y), "*=")

    def __itruediv__(self, y):
        return assign(self, operator2(FG_DIVIDE, self, y), "/=")

    def __ifloordiv__(self, y):
        return assign(self, operator2(FG_FLOOR_DIVIDE, self, y), "//=")

    def __imod__(self, y):
        return assign(self, operator2(FG_MOD, self, y), "%=")

    def __ipow__(self, y):
        return assign(self, power_operator(self, y), "**=")

    def __imatmul__(self, y):
        return assign(self, matmul(self, y) if is_array_like(y) else NotImplemented, "@=")

    def __richcmp__(x, y, int how):
        if how == Py_LT:
            return operator2(FG_LESS, x, y)
        if how == Py_LE:
            return operator2(FG_LESS_EQUAL, x, y)
        if how == Py_EQ:
            return operator2(FG_EQUAL, x, y)
        if how == Py_NE:
            return operator2(FG_NOT_EQUAL, x, y)
        if how == Py_GT:
            return operator2(FG_GREATER, x, y)
        return operator2(FG_GREATER_EQUAL, x, y)

    def __getitem__(self, index):
        return get_item(self, index)

    def __setitem__(self, index, value):
        set_item(self, index, value)

    # -- NumPy's protocols

    __array_priority__ = 1000.0

    def __array_ufunc__(self, ufunc, str method, *inputs, **keywords):
        return numpy_ufunc(ufunc, method, inputs, keywords)

    def __array_function__(self, function, types, arguments, keywords):
        return numpy_function(function, arguments, keywords)

    # -- NumPy's methods

    def astype(self, dtype, copy=True):
        """A Tensor of another dtype; from float to float gradients flow.  See ``ndarray.astype``."""
        return cast(self, dtype)

    def copy(self):
        """A Tensor with its own memory; gradients flow through it."""
        return copy(self)

    def sum(self, axis=None, keepdims=False):
        """Sum over axes; see ``fastgrad.numpy.sum``."""
        return sum(self, axis, keepdims)

    def mean(self, axis=None, keepdims=False):
        """Mean over axes; see ``fastgrad.numpy.mean``."""
        return mean(self, axis, keepdims)

    def prod(self, axis=None, keepdims=False):
        """Product over axes; see ``fastgrad.numpy.prod``."""
        return prod(self, axis, keepdims)

    def max(self, axis=None, keepdims=False):
        """Largest over axes; see ``fastgrad.numpy.max``."""
        return max(self, axis, keepdims)

    def min(self, axis=None, keepdims=False):
        """Smallest over axes; see ``fastgrad.numpy.min``."""
        return min(self, axis, keepdims)

    def any(self, axis=None, keepdims=False):
        """Whether any element differs from 0; no gradient."""
        return truth_over(np.any, self, axis, bool(keepdims))

    def all(self, axis=None, keepdims=False):
        """Whether all elements differ from 0; no gradient."""
        return truth_over(np.all, self, axis, bool(keepdims))

    def argmax(self, axis=None, keepdims=False):
        """Where the largest is; no gradient."""
        return call_host(np.argmax, (self, axis), {"keepdims": bool(keepdims)})

    def argmin(self, axis=None, keepdims=False):
        """Where the smallest is; no gradient."""
        return call_host(np.argmin, (self, axis), {"keepdims": bool(keepdims)})

    def argsort(self, axis=-1, kind=None):
        """The order that sorts; no gradient."""
        return call_host(np.argsort, (self, axis, kind))

    def dot(self, other):
        """Dot product; see ``fastgrad.numpy.dot``."""
        return dot(self, other)

    def reshape(self, *shape):
        """The same elements in another shape; see ``fastgrad.numpy.reshape``."""
        return reshape(self, shape[0] if len(shape) == 1 else shape)

    def ravel(self, order="C"):
        """The elements in one axis; see ``fastgrad.numpy.ravel``."""
        return reshape(self, -1) if order == "C" else HOOKS["ravel"](self, order)

    def flatten(self):
        """The elements in one axis, copied."""
        return copy(reshape(self, -1))

    def squeeze(self, axis=None):
        """Without axes of length 1; see ``fastgrad.numpy.squeeze``."""
        return squeeze(self, axis)

    def transpose(self, *axes):
        """The axes in another order; see ``fastgrad.numpy.transpose``."""
        return transpose(self, (axes[0] if len(axes) == 1 else axes) if axes else None)

    def swapaxes(self, axis1, axis2):
        """Two axes exchanged."""
        return swapaxes(self, axis1, axis2)

    def clip(self, min=None, max=None):
        """Kept between bounds; see ``fastgrad.numpy.clip``."""
        return clip_bounds(self, min, max)

    def round(self, decimals=0):
        """Rounded; no gradient."""
        return call_host(np.round, (self, decimals))


# ------------------------------------------------------------------------------------------------------------- making

cdef Tensor bare(Tensor t):
    """The same value, not on any tape: what t.detach() says in so many words."""
    cdef Tensor same = new_blank()
    same.dtype_number = t.dtype_number
    same.number = t.number
    if t.array != NULL:
        same.array = array_keep(t.array)
    if fg_mark:
        same.traced = fg_mark | open_trace().of_tensor(t)
        same.weak = t.weak
    return same


def off_tape(Tensor t):
    """What a transform gives back of a value that it recorded for itself."""
    return bare(t)


cdef inline bint tracked(Tensor t) noexcept:
    return t.requires or t.node != 0


cdef inline bint is_array_like(object x):
    return type(x) is Tensor or isinstance(x, (np.ndarray, np.generic, list, tuple, float, int))


cdef inline bint is_number(Tensor t) noexcept:
    """A 0-d float64 kept inline."""
    return t.array == NULL and t.dtype_number == NPY_DOUBLE


# Tensors are made and freed more often than anything else, so their memory waits in a list of our own, and their
# destructor does only what a Tensor needs (Cython's saves and restores the exception state around it).

cdef enum:
    WAITING = 1024

cdef PyObject* waiting[WAITING]
cdef int n_waiting = 0


cdef inline Tensor new_blank():
    """A Tensor with nothing in it."""
    global n_waiting
    cdef Tensor t
    if n_waiting == 0:
        t = Tensor.__new__(Tensor)
    else:
        n_waiting -= 1
        t = <Tensor>fg_revive(waiting[n_waiting])
    t.traced = fg_mark
    if fg_mark:
        (<Trace>fg_trace).alive = (<Trace>fg_trace).alive + 1
    return t


cdef void tensor_dealloc(PyObject* o) noexcept:
    global n_waiting
    cdef index_t i = (<Tensor>o).node
    cdef CTape* tape
    if (<Tensor>o).traced and fg_mark and ((<Tensor>o).traced ^ fg_mark) >> MARK_BITS == 0:
        (<Trace>fg_trace).alive = (<Trace>fg_trace).alive - 1
    if i:
        tape = (<Tensor>o).tape
        tape.nodes[i].tensor = NULL
        (<Tensor>o).node = 0
        if (<Tensor>o).requires:        # a leaf's node is not counted by it
            pass
        elif tape.nodes[i].refcount > 1:
            tape.nodes[i].refcount -= 1
        else:
            node_drop(tape, i)
    while (<Tensor>o).stale:
        i = (<Tensor>o).stale
        tape = (<Tensor>o).tape
        tape.nodes[i].tensor = NULL
        (<Tensor>o).stale = tape.nodes[i].b
        tape.nodes[i].b = 0
    if (<Tensor>o).array != NULL:
        array_drop((<Tensor>o).array)
        (<Tensor>o).array = NULL
    if (<Tensor>o).gradient is not None:
        (<Tensor>o).gradient = None
    if FG_KEEPS_FREED and n_waiting < WAITING:
        (<Tensor>o).requires = False
        (<Tensor>o).weak = False
        waiting[n_waiting] = o
        n_waiting += 1
    else:
        Py_DECREF((<Tensor>o).gradient)         # None, counted since the Tensor was made
        (<PyTypeObject*>Tensor).tp_free(<void*>o)


fg_set_dealloc(<PyTypeObject*>Tensor, tensor_dealloc)


cdef inline Tensor new_number(double value):
    cdef Tensor t = new_blank()
    t.number = value
    t.dtype_number = NPY_DOUBLE
    return t


cdef inline Tensor new_tensor(Array* array):
    """Takes over the array; a 0-d float64 or bool becomes inline."""
    cdef Tensor t = new_blank()
    t.dtype_number = array.dtype
    if array.shape.ndim == 0 and (array.dtype == NPY_DOUBLE or array.dtype == NPY_BOOL):
        t.number = (<double*>array.data)[0] if array.dtype == NPY_DOUBLE else (<unsigned char*>array.data)[0]
        array_drop(array)
    else:
        t.array = array
    return t


cdef Tensor from_ndarray(object value):
    """A Tensor on a NumPy array's memory or with a NumPy scalar's value."""
    return new_tensor(array_from_numpy(np.asarray(value)))


cdef cnp.ndarray to_ndarray(Tensor t):
    cdef cnp.ndarray result
    if fg_mark:
        refuse_reading(t, "reading a Tensor's numbers (t.numpy(), np.asarray(t), or a function that is not supported)")
    if t.array == NULL:
        result = cnp.PyArray_EMPTY(0, NULL, t.dtype_number, 0)
        if t.dtype_number == NPY_DOUBLE:
            (<double*>cnp.PyArray_DATA(result))[0] = t.number
        else:
            (<unsigned char*>cnp.PyArray_DATA(result))[0] = <unsigned char>t.number
        if tracked(t):
            result.setflags(write=False)
        return result
    if tracked(t):
        return view_ndarray(t.array, False)
    if t.array.refcount > 1 and not t.array.foreign:
        # Somebody else may read these numbers: a recording, or a Tensor that is recorded later.
        t.array = replace_array(t.array)
    if t.array.owner != NULL and t.array.base == NULL:
        return view_ndarray(t.array, PyArray_ISWRITEABLE(<cnp.ndarray>t.array.owner))
    t.array.foreign = 1
    if t.array.base != NULL:
        t.array.base.foreign = 1
    return view_ndarray(t.array, True)


cdef Array* replace_array(Array* shared) except NULL:
    cdef Array* own = array_new(shared.shape, shared.dtype)
    array_copy_into(shared, own)
    array_drop(shared)
    return own


def rebuild(array, bint requires_grad):
    """A Tensor from its pickled parts."""
    return tensor(array, requires_grad=requires_grad)


cdef int refuse_integer_leaf(int dtype, str who) except -1:
    if dtype != NPY_DOUBLE and dtype != NPY_FLOAT:
        raise TypeError(
            f"{who} is of dtype {cnp.PyArray_DescrFromType(dtype)}, and only float64 and float32 carry gradients; "
            "convert it first, for example with .astype(np.float64)")
    return 0


cdef int refuse_lost_gradient(Tensor t, str how) except -1:
    if tracked(t) and current_tape().recording:
        raise TypeError(
            f"{how} of a Tensor that is being differentiated would lose its gradient; if that is meant, "
            "use t.detach(), or t.item() for a number")
    return 0


def tensor(data, dtype=None, bint requires_grad=False):
    """A Tensor with its own copy of the data.

    Parameters
    ----------
    data : array_like or Tensor
        Numbers of any shape.  Python floats become float64, float32 arrays stay float32.
    dtype : dtype, optional
        float64, float32, bool or an integer type.
    requires_grad : bool
        Whether ``backward`` shall accumulate a gradient here.

    Returns
    -------
    Tensor
        A leaf, not connected to ``data``.

    Raises
    ------
    TypeError
        If the dtype is not supported, or is an integer or bool and ``requires_grad`` is set.

    Examples
    --------
    >>> import fastgrad as fg
    >>> fg.tensor([1.0, 2.0], requires_grad=True)
    Tensor([1., 2.], requires_grad=True)
    """
    cdef Tensor t
    cdef cnp.ndarray source
    cdef Array* array
    cdef Shape* shape
    if type(data) is float and dtype is None:
        t = new_number(<double>data)
        t.requires = requires_grad
        return t
    if fg_mark and holds_traced(data):
        return tensor_of_traced(data, dtype, requires_grad)
    source = np.asarray(plain(data), dtype=dtype)
    if not is_supported(cnp.PyArray_TYPE(source)):
        array_drop(array_from_numpy(source))        # raises
    if requires_grad:
        refuse_integer_leaf(cnp.PyArray_TYPE(source), "fg.tensor: data")
    shape = shape_new(cnp.PyArray_NDIM(source), <Py_ssize_t*>cnp.PyArray_DIMS(source))
    try:
        array = array_new(shape, cnp.PyArray_TYPE(source))
    finally:
        shape_drop(shape)
    if shape_is_plain(source):
        memcpy(array.data, cnp.PyArray_DATA(source), <size_t>array.shape.size * <size_t>item_size(array.dtype))
    else:
        view_ndarray(array, True)[...] = source
    t = new_tensor(array)
    t.requires = requires_grad
    return t


cdef bint holds_traced(object data):
    if type(data) is Tensor:
        return True
    if type(data) is list or type(data) is tuple:
        for item in data:
            if holds_traced(item):
                return True
    return False


cdef Tensor tensor_of_traced(object data, object dtype, bint requires_grad):
    """fg.tensor of Tensors while a trace is open: the same value, no gradient."""
    cdef Tensor t = as_tensor(data, "fg.tensor")
    t = bare(cast(bare(t), t.dtype if dtype is None else dtype))
    if requires_grad:
        refuse_integer_leaf(t.dtype_number, "fg.tensor: data")
        t.requires = True
    return t


cdef bint shape_is_plain(cnp.ndarray source) noexcept:
    return (cnp.PyArray_FLAGS(source) & cnp.NPY_ARRAY_C_CONTIGUOUS) and PyArray_ISNOTSWAPPED(source) \
        and (cnp.PyArray_FLAGS(source) & cnp.NPY_ARRAY_ALIGNED)


cdef object plain(object data):
    """Nested lists and Tensors as NumPy takes them."""
    if type(data) is Tensor:
        return to_ndarray(bare(<Tensor>data))
    if type(data) is list or type(data) is tuple:
        return [plain(item) for item in data]
    return data


# ------------------------------------------------------------------------------------------------- places on the tape

cdef inline index_t node_of(Tensor t, CTape* tape) noexcept:
    """The node of a tracked Tensor; registers a leaf.  The caller has reserved room and checked the tape."""
    cdef index_t i
    cdef Node* node
    if t.node and t.tape == tape:
        return t.node
    i = node_new(tape, OP_LEAF, 0, 0)
    node = tape.nodes + i
    node.refcount -= 1              # counted by its readers alone
    node.tensor = <PyObject*>t
    node.dtype = <unsigned char>t.dtype_number
    if t.array == NULL:
        node.value.number = t.number
    else:
        node.shape = shape_keep(t.array.shape)
    if t.tape == NULL or t.tape == tape:
        t.node = i
        t.tape = tape
        if fg_mark:
            note_leaf(t, i)
    else:                           # registered on another thread's tape: here it is registered anew at every use
        node.flags |= STRONG
        Py_INCREF(t)
    return i


cdef inline int check_tape(Tensor t, CTape* tape) except -1:
    if t.node and t.tape != tape and not t.requires:
        raise RuntimeError(
            "this Tensor was recorded by another thread, and a recording belongs to its thread; "
            "pass t.detach() or a leaf between threads")
    return 0


cdef void leave_tape(Tensor t) noexcept:
    """Takes a Tensor off its tape; its node lives on for its readers."""
    cdef Node* node
    cdef index_t i = t.node
    if i == 0:
        return
    node = t.tape.nodes + i
    t.node = 0
    if t.requires:                  # what was recorded goes on to send its gradient here
        node.b = t.stale
        t.stale = i
    else:
        node.tensor = NULL
        node_drop(t.tape, i)
        if t.stale == 0:
            t.tape = NULL


cdef void forget_leaf(Tensor t) noexcept:
    """No recording sends its gradient here any more."""
    cdef index_t i
    leave_tape(t)
    while t.stale:
        i = t.stale
        t.tape.nodes[i].tensor = NULL
        t.stale = t.tape.nodes[i].b
        t.tape.nodes[i].b = 0
    t.tape = NULL


cdef inline int put_on_tape(Tensor t, CTape* tape, index_t i) except -1:
    """Makes t the Tensor of node i, which counts it already."""
    cdef Node* node = tape.nodes + i
    node.tensor = <PyObject*>t
    node.dtype = <unsigned char>t.dtype_number
    if t.array == NULL:
        node.value.number = t.number
    else:
        node.shape = shape_keep(t.array.shape)
    t.tape = tape
    t.node = i
    if fg_mark:
        note_place(t, i)
    if tape.watching:
        watch(t, tape, i)
    return 0


cdef Tensor tensor_of_node(CTape* tape, index_t i):
    """The Tensor of a node: the one that is there, or a new one on it."""
    cdef Node* node = tape.nodes + i
    cdef Tensor t
    if node.tensor != NULL and ((<Tensor>node.tensor).node == i or node.op != OP_LEAF):
        return <Tensor>node.tensor
    t = new_blank()
    if fg_mark:
        t.traced = traced_of_node(i)
    t.dtype_number = node.dtype
    if node.shape == NULL:
        t.number = node.value.number
    elif node.value.array != NULL:
        t.array = array_keep(node.value.array)
    else:
        t.array = array_new(node.shape, node.dtype)        # numbers that no derivative reads
        memset(t.array.data, 0, <size_t>t.array.shape.size * <size_t>item_size(node.dtype))
    if node.op == OP_CONSTANT or node.op == OP_LEAF:    # a leaf that has another value by now
        return t
    node.tensor = <PyObject*>t
    node.refcount += 1
    t.tape = tape
    t.node = i
    return t


cdef Tensor assign(Tensor t, object value, str how):
    """Gives t a new value and place: what every in-place operation does."""
    cdef Tensor v
    cdef Array* array
    if value is NotImplemented or t.weak:       # a number does not change: the name gets another
        return value
    v = value
    if t.requires and current_tape().recording:
        raise RuntimeError(
            f"{how} on a leaf that requires a gradient would lose the leaf; do it inside `with fg.no_grad():`, "
            "or on a copy")
    if v.dtype_number != t.dtype_number:
        if (t.dtype_number != NPY_DOUBLE and t.dtype_number != NPY_FLOAT):
            raise TypeError(f"{how}: cannot cast a result of dtype {v.dtype} to {t.dtype}, same_kind; use t = t op value")
        v = cast(v, t.dtype)
    if not same_shape(shape_of(v), shape_of(t)):
        raise ValueError(f"{how}: the result of shape {v.shape} does not fit the Tensor of shape {t.shape}")
    if fg_mark:
        open_trace().assigned(t, fg_mark | open_trace().of_tensor(v))
    leave_tape(t)
    if v.node and not v.requires and not t.requires:    # v is fresh, and its place becomes t's
        if t.stale and t.tape != v.tape:
            forget_leaf(t)
        t.tape = v.tape
        t.node = v.node
        v.tape.nodes[v.node].tensor = <PyObject*>t
        v.node = 0
    t.number = v.number
    array = t.array
    t.array = array_keep(v.array) if v.array != NULL else NULL
    if array != NULL:
        array_drop(array)
    return t


cdef object assign_out(object out, Tensor value):
    """The result of an operation with ``out=``."""
    if type(out) is tuple and len(out) == 1:
        out = out[0]
    if isinstance(out, np.ndarray) and not tracked(value) and not fg_mark:     # also array += tensor
        np.copyto(out, to_ndarray(value), casting="same_kind")
        return out
    if type(out) is not Tensor:
        raise TypeError(f"out= takes a Tensor, not {type(out).__name__}: a gradient would be lost in a bare array; instead of "
                        "array += tensor write array = array + tensor")
    return assign(<Tensor>out, value, "out=")


cdef inline Shape* shape_of(Tensor t) noexcept:
    return SCALAR_SHAPE if t.array == NULL else t.array.shape
