"""Picking elements by numbers and conditions, and putting them there."""

import numpy as np

from fastgrad._core import engine
from fastgrad._core.engine import Tensor, broadcast_to, call_host, refuse_numpy, reshape
from fastgrad.numpy.indexing import take as _take
from fastgrad.numpy.joining import stack
from fastgrad.numpy.shapes import along, axis_of, broadcast_arrays, operand, shape_together

__all__ = ["take", "take_along_axis", "put_along_axis", "choose", "select", "compress", "extract", "piecewise", "copyto",
           "nonzero", "flatnonzero", "argwhere"]


def take(a, indices, axis=None, out=None, mode="raise"):
    """The elements at given places along an axis.

    Parameters
    ----------
    a : Tensor or array_like
    indices : Tensor or array_like of int
        Repeated places add up their gradients.
    axis : int, optional
        By default the array is laid flat.
    out : Tensor, optional
        Gets the result.
    mode : {"raise", "wrap", "clip"}
        What places outside do: raise IndexError, count on from the other end, or mean the nearest one.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.take([1.0, 2.0, 3.0], [2, 0, 2])
    Tensor([3., 1., 3.])
    """
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"take: mode must be 'raise', 'wrap' or 'clip', not {mode!r}")
    x = operand(a, "take")
    if not isinstance(indices, Tensor):
        indices = np.asarray(indices)
    if indices.size == 0 and indices.dtype.kind == "f":
        indices = np.zeros(indices.shape, np.intp)          # an empty list
    if indices.dtype == bool or indices.dtype.kind == "f" or isinstance(out, np.ndarray):
        return _take(a, indices, axis, out, mode)
    if axis is None:
        x, axis = reshape(x, (x.size,)), 0
    axis = axis_of(axis, x.ndim, "take")
    result = along(x, axis, _within(indices, x.shape[axis], mode))
    if out is not None:
        out[...] = result
        return out
    return result


def _within(indices, n, mode):
    """Places along an axis of length n as the mode has them."""
    if mode == "raise" or n == 0:
        return indices
    if not isinstance(indices, Tensor):
        return indices % n if mode == "wrap" else np.clip(indices, 0, n - 1)
    if mode == "wrap":
        return call_host(np.remainder, (indices, n))
    return call_host(np.minimum, (call_host(np.maximum, (indices, 0)), n - 1))


def _index_along(who, x, indices, axis):
    """The index that takes, at each place, the element with the given number along the axis."""
    indices = operand(indices, who) if not isinstance(indices, Tensor) else indices
    if indices.dtype.kind not in "iu":
        raise IndexError(f"{who}: indices must be integers, not of dtype {indices.dtype}")
    if indices.ndim != x.ndim:
        raise ValueError(f"{who}: indices of shape {indices.shape} and the array of shape {x.shape} must have the same number "
                         "of dimensions")
    shape = tuple(x.shape)
    both = [(n, m) for d, (n, m) in enumerate(zip(shape, indices.shape)) if d != axis]
    if any(n != m and 1 not in (n, m) for n, m in both):
        raise IndexError(f"{who}: indices of shape {indices.shape} and the array of shape {shape} do not broadcast besides axis "
                         f"{axis}")
    return tuple(indices if d == axis else np.arange(n).reshape((-1,) + (1,) * (x.ndim - d - 1)) for d, n in enumerate(shape))


def take_along_axis(arr, indices, axis=-1):
    """At each place the element with the given number along an axis, as ``argsort`` and ``argmax`` give them.

    Parameters
    ----------
    arr : Tensor or array_like
    indices : Tensor or array_like of int
        Broadcasts with ``arr`` along the other axes.
    axis : int or None
        None: ``arr`` is laid flat, and ``indices`` has one axis.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.take_along_axis([[3.0, 1.0], [2.0, 4.0]], [[1, 0], [0, 1]], axis=1)
    Tensor([[1., 3.],
            [2., 4.]])
    """
    x = operand(arr, "take_along_axis")
    if axis is None:
        if np.ndim(indices) != 1:
            raise ValueError(f"take_along_axis: when axis=None, indices must have a single dimension, not the shape "
                             f"{np.shape(indices)}")
        x, axis = reshape(x, (x.size,)), 0
    axis = axis_of(axis, x.ndim, "take_along_axis")
    return x[_index_along("take_along_axis", x, indices, axis)]


def put_along_axis(arr, indices, values, axis):
    """Changes, at each place, the element with the given number along an axis; gradients follow.

    Parameters
    ----------
    arr : Tensor
        Changed in place; a leaf that asks for a gradient cannot be.
    indices : Tensor or array_like of int
        Broadcasts with ``arr`` along the other axes.
    values : Tensor or array_like
        Broadcast to the indices.
    axis : int or None
        None: ``arr`` counts as laid flat, and ``indices`` has one axis.

    Returns
    -------
    None

    Examples
    --------
    >>> import fastgrad as fg, fastgrad.numpy as fnp
    >>> x = fg.tensor([[3.0, 1.0], [2.0, 4.0]])
    >>> fnp.put_along_axis(x, [[0], [1]], 9.0, axis=1)
    >>> x
    Tensor([[9., 1.],
            [2., 9.]])
    """
    if not isinstance(arr, Tensor):
        refuse_numpy("numpy.put_along_axis on an array", (values,))
        np.put_along_axis(arr, np.asarray(indices), np.asarray(values), axis)
        return
    if axis is None:
        if np.ndim(indices) != 1:
            raise ValueError(f"put_along_axis: when axis=None, indices must have a single dimension, not the shape "
                             f"{np.shape(indices)}")
        flat = reshape(arr, (arr.size,)).copy()
        flat[_index_along("put_along_axis", flat, indices, 0)] = values
        arr[...] = reshape(flat, arr.shape)
        return
    axis = axis_of(axis, arr.ndim, "put_along_axis")
    arr[_index_along("put_along_axis", arr, indices, axis)] = values


def choose(a, choices, out=None, mode="raise"):
    """At each place the element of one of several arrays.

    Parameters
    ----------
    a : Tensor or array_like of int
        The number of the array.
    choices : sequence of Tensor or array_like
        The arrays; they broadcast with each other and with ``a``.
    out : Tensor, optional
        Gets the result.
    mode : {"raise", "wrap", "clip"}
        What numbers outside do: raise ValueError, count on from the other end, or mean the nearest one.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.choose([0, 1, 0], [[1.0, 2.0, 3.0], 10.0])
    Tensor([ 1., 10.,  3.])
    """
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"choose: mode must be 'raise', 'wrap' or 'clip', not {mode!r}")
    which = a if isinstance(a, Tensor) else np.asarray(a)
    if which.dtype.kind not in "iub":
        raise TypeError(f"choose: a must be integers, not of dtype {which.dtype}")
    if which.dtype == bool:
        which = which.astype(np.intp)
    choices = [operand(c, "choose") for c in choices]
    if not choices:
        raise ValueError("choose: needs at least one array to choose from")
    shape = shape_together("choose", [which, *choices])
    if mode == "raise":
        which = call_host(_checked, (which, len(choices))) if isinstance(which, Tensor) else _checked(which, len(choices))
    picked = stack(broadcast_arrays(*choices))
    picked = broadcast_to(reshape(picked, picked.shape[:1] + (1,) * (len(shape) + 1 - picked.ndim) + picked.shape[1:]),
                          (len(choices), *shape))
    grid = [np.arange(n).reshape((-1,) + (1,) * (len(shape) - d - 1)) for d, n in enumerate(shape)]
    which = _within(which, len(choices), mode)
    result = picked[(broadcast_to(which, shape) if isinstance(which, Tensor) else np.broadcast_to(which, shape), *grid)]
    if out is not None:
        out[...] = result
        return out
    return result


def _checked(which, n):
    """The numbers of choices, if there are such choices."""
    if np.size(which) and not (0 <= np.min(which) and np.max(which) < n):
        raise ValueError(f"choose: invalid entry in a: from {np.min(which)} to {np.max(which)}, for {n} choices; use mode='wrap' "
                         "or 'clip'")
    return np.array(which)


def select(condlist, choicelist, default=0):
    """At each place the element of the first array whose condition holds.

    Parameters
    ----------
    condlist : sequence of Tensor or array_like of bool
    choicelist : sequence of Tensor or array_like
        One for each condition.
    default : Tensor or array_like
        Where no condition holds.

    Returns
    -------
    Tensor
        Where an array is not taken, its gradient is exactly 0.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> x = fnp.array([-2.0, 0.5, 3.0])
    >>> fnp.select([x < 0, x > 1], [-x, x**2])
    Tensor([2., 0., 9.])
    """
    if len(condlist) != len(choicelist):
        raise ValueError(f"select: list of cases must be same length as list of conditions, not {len(choicelist)} and "
                         f"{len(condlist)}")
    if not len(condlist):
        raise ValueError("select: with an empty condition list is not possible")
    conditions = [operand(c, "select") for c in condlist]
    for k, condition in enumerate(conditions):
        if condition.dtype != bool:
            raise TypeError(f"select: invalid entry {k} in condlist: should be boolean, not {condition.dtype}")
    values = [c if isinstance(c, (Tensor, int, float)) else np.asarray(c) for c in (*choicelist, default)]
    dtype = np.result_type(*[v if isinstance(v, (int, float)) else v.dtype for v in values])
    shape_together("select", [*conditions, *(v for v in values if not isinstance(v, (int, float)))])
    result = values.pop()
    for condition, value in zip(reversed(conditions), reversed(values)):
        result = engine.where(condition, value, result)
    return result if result.dtype == dtype else result.astype(dtype)


def compress(condition, a, axis=None, out=None):
    """The parts of an array along an axis for which a condition holds.

    Parameters
    ----------
    condition : Tensor or array_like of bool
        Of one axis; parts for which it has no element are left out.
    a : Tensor or array_like
    axis : int, optional
        By default the array is laid flat.
    out : Tensor, optional
        Gets the result.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.compress([True, False, True], [1.0, 2.0, 3.0])
    Tensor([1., 3.])
    """
    x = operand(a, "compress")
    if axis is None:
        x, axis = reshape(x, (x.size,)), 0
    axis = axis_of(axis, x.ndim, "compress")
    condition = _truth(condition, "compress")
    if condition.ndim != 1:
        raise ValueError(f"compress: condition must be a 1-d array, not of shape {condition.shape}")
    n = condition.shape[0]
    if n > x.shape[axis]:
        raise IndexError(f"compress: condition of {n} elements is longer than axis {axis} of the shape {x.shape}")
    result = along(along(x, axis, slice(0, n)) if n < x.shape[axis] else x, axis, condition)
    if out is not None:
        out[...] = result
        return out
    return result


def _truth(condition, who):
    """A condition as a Tensor or array of bool."""
    if not isinstance(condition, Tensor):
        return np.asarray(condition, bool)
    return condition if condition.dtype == bool else condition != 0


def extract(condition, arr):
    """The elements for which a condition holds, laid flat.

    Parameters
    ----------
    condition : Tensor or array_like of bool
        Of as many elements as the array.
    arr : Tensor or array_like

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> x = fnp.array([[1.0, -2.0], [-3.0, 4.0]])
    >>> fnp.extract(x > 0, x)
    Tensor([1., 4.])
    """
    x, condition = operand(arr, "extract"), _truth(condition, "extract")
    if condition.size > x.size:
        raise IndexError(f"extract: condition of shape {condition.shape} has more elements than the array of shape {x.shape}")
    return compress(reshape(condition, (condition.size,)), x)


def piecewise(x, condlist, funclist, *args, **kw):
    """A function given by pieces.

    Parameters
    ----------
    x : Tensor or array_like
    condlist : sequence of Tensor or array_like of bool
        Where each piece holds; where several do, the last one counts, and where none does, 0.
    funclist : sequence of callable or number
        One for each condition, and if there is one more, that for where none holds.  A function gets all of ``x``, not only
        the elements for which it counts as in NumPy, and must be elementwise.
    *args, **kw
        Further arguments of the functions.

    Returns
    -------
    Tensor
        Of the dtype of ``x``; a piece that does not count has a gradient of exactly 0.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> x = fnp.array([-2.0, 0.0, 4.0])
    >>> fnp.piecewise(x, [x < 0, x > 0], [lambda x: -x, fnp.sqrt])
    Tensor([2., 0., 2.])
    """
    x = operand(x, "piecewise")
    if isinstance(condlist, (bool, np.bool_)) or not isinstance(condlist, (list, tuple)) and np.ndim(condlist) <= min(x.ndim, 1) \
            or isinstance(condlist, (list, tuple)) and len(condlist) and x.ndim \
            and not isinstance(condlist[0], (list, tuple, np.ndarray, Tensor)):
        condlist = [condlist]
    conditions, functions = [_truth(c, "piecewise") for c in condlist], list(funclist)
    if len(functions) not in (len(conditions), len(conditions) + 1):
        raise ValueError(f"piecewise: with {len(conditions)} condition(s), either {len(conditions)} or {len(conditions) + 1} "
                         f"functions are expected, not {len(functions)}")

    def value(function):
        result = function(x, *args, **kw) if callable(function) else function
        if getattr(result, "dtype", x.dtype) != x.dtype or x.dtype.kind != "f":
            result = operand(result, "piecewise").astype(x.dtype)
        return result

    result = value(functions.pop()) if len(functions) > len(conditions) else np.zeros((), x.dtype)
    for condition, function in zip(conditions, functions):
        result = engine.where(condition, value(function), result)
    result = operand(result, "piecewise")
    if result.dtype != x.dtype:
        result = result.astype(x.dtype)
    if tuple(result.shape) != tuple(x.shape):
        try:
            result = broadcast_to(result, x.shape)
        except ValueError:
            raise ValueError(f"piecewise: the conditions and pieces have the shape {result.shape} together, and x the shape "
                             f"{x.shape}; functions must be elementwise") from None
    return result


def copyto(dst, src, casting="same_kind", where=True):
    """Copies the elements of one array into another, all or where a condition holds; gradients follow.

    Parameters
    ----------
    dst : Tensor
        Changed in place; a leaf that asks for a gradient cannot be.
    src : Tensor or array_like
        Broadcast to ``dst``.
    casting : str
        What kind of cast from one dtype to the other is allowed.
    where : Tensor or array_like of bool
        Broadcast to ``dst``.

    Returns
    -------
    None

    Examples
    --------
    >>> import fastgrad as fg, fastgrad.numpy as fnp
    >>> x = fg.tensor([1.0, 2.0, 3.0])
    >>> fnp.copyto(x, [7.0, 8.0, 9.0], where=[True, False, True])
    >>> x
    Tensor([7., 2., 9.])
    """
    if not isinstance(dst, Tensor):
        refuse_numpy("numpy.copyto into an array", (src,))
        np.copyto(dst, np.asarray(src), casting, np.asarray(where))
        return
    weak = isinstance(src, (int, float))
    src = operand(src, "copyto")
    if not (np.can_cast(src.dtype, dst.dtype, casting) or weak and dst.dtype.kind == "f"):
        raise TypeError(f"copyto: cannot cast from {src.dtype} to {dst.dtype} with casting={casting!r}")
    if src.dtype != dst.dtype:
        src = src.astype(dst.dtype)
    try:
        src = broadcast_to(src, dst.shape)
    except ValueError:
        raise ValueError(f"copyto: could not broadcast the shape {src.shape} into {dst.shape}") from None
    dst[...] = src if where is True else engine.where(broadcast_to(_truth(where, "copyto"), dst.shape), src, dst)


# ----------------------------------------------------------------------------------------------------------------- places

def nonzero(a):
    """The places where elements are not 0, an array of numbers for each axis.

    Parameters
    ----------
    a : Tensor or array_like

    Returns
    -------
    tuple of Tensor
        Of int.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nonzero([0.0, 2.0, 3.0])
    (Tensor([1, 2], dtype=int64),)
    """
    return call_host(np.nonzero, (a,))


def flatnonzero(a):
    """The places where elements are not 0, counted over all elements.

    Parameters
    ----------
    a : Tensor or array_like

    Returns
    -------
    Tensor
        Of int.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.flatnonzero([[0.0, 2.0], [3.0, 0.0]])
    Tensor([1, 2], dtype=int64)
    """
    return call_host(np.flatnonzero, (a,))


def argwhere(a):
    """The places where elements are not 0, a row for each.

    Parameters
    ----------
    a : Tensor or array_like

    Returns
    -------
    Tensor
        Of int.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.argwhere([[0.0, 2.0], [3.0, 0.0]])
    Tensor([[0, 1],
            [1, 0]], dtype=int64)
    """
    return call_host(np.argwhere, (a,))
