"""Arrays put together from parts, cut into parts, and with parts put in or taken out."""

import operator

import numpy as np

from fastgrad._core.engine import Tensor, broadcast_to, moveaxis, reshape
from fastgrad.numpy.creation import zeros
from fastgrad.numpy.joining import concatenate
from fastgrad.numpy.shapes import along, along_runs, atleast_1d, atleast_2d, atleast_3d, axis_of, operand

__all__ = ["vstack", "hstack", "dstack", "column_stack", "block", "split", "array_split", "hsplit", "vsplit", "dsplit",
           "unstack", "append", "insert", "delete"]


# --------------------------------------------------------------------------------------------------------------- together

def _operands(arrays, who):
    if not isinstance(arrays, (list, tuple, np.ndarray, Tensor)):
        raise TypeError(f"{who}: arrays to stack must be a sequence such as list or tuple, not {type(arrays).__name__}")
    arrays = [operand(a, who) for a in arrays]
    if not arrays:
        raise ValueError(f"{who}: need at least one array to concatenate")
    return arrays


def _joined(who, arrays, axis, dtype=None, casting="same_kind"):
    """concatenate, with messages that name another operation."""
    shapes = [tuple(a.shape) for a in arrays]
    if any(s[:axis] + s[axis + 1:] != shapes[0][:axis] + shapes[0][axis + 1:] or len(s) != len(shapes[0]) for s in shapes):
        raise ValueError(f"{who}: shapes {', '.join(map(str, shapes))} differ in more than axis {axis}, along which they are "
                         "joined")
    return concatenate(arrays, axis, dtype=dtype, casting=casting)


def vstack(tup, *, dtype=None, casting="same_kind"):
    """Arrays below each other: joined along the first axis, vectors as rows.

    Parameters
    ----------
    tup : sequence of Tensor or array_like
        Of one shape but for the first axis.
    dtype : dtype, optional
        Of the result.
    casting : str
        What kind of cast ``dtype`` may be.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.vstack([[1.0, 2.0], [3.0, 4.0]])
    Tensor([[1., 2.],
            [3., 4.]])
    """
    return _joined("vstack", [atleast_2d(a) for a in _operands(tup, "vstack")], 0, dtype, casting)


def hstack(tup, *, dtype=None, casting="same_kind"):
    """Arrays beside each other: joined along the second axis, vectors along their only one.

    Parameters
    ----------
    tup : sequence of Tensor or array_like
        Of one shape but for the second axis; vectors of any length.
    dtype : dtype, optional
        Of the result.
    casting : str
        What kind of cast ``dtype`` may be.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.hstack([[1.0, 2.0], [3.0]])
    Tensor([1., 2., 3.])
    """
    arrays = [atleast_1d(a) for a in _operands(tup, "hstack")]
    return _joined("hstack", arrays, 0 if arrays[0].ndim == 1 else 1, dtype, casting)


def dstack(tup):
    """Arrays behind each other: joined along the third axis.

    Parameters
    ----------
    tup : sequence of Tensor or array_like
        Of one shape but for the third axis; see ``atleast_3d`` for those that have none.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.dstack([[1.0, 2.0], [3.0, 4.0]])
    Tensor([[[1., 3.],
             [2., 4.]]])
    """
    return _joined("dstack", [atleast_3d(a) for a in _operands(tup, "dstack")], 2)


def column_stack(tup):
    """Vectors as the columns of a matrix; matrices among them are joined as they are.

    Parameters
    ----------
    tup : sequence of Tensor or array_like
        Of one length of the first axis.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.column_stack([[1.0, 2.0], [3.0, 4.0]])
    Tensor([[1., 3.],
            [2., 4.]])
    """
    arrays = [a if a.ndim > 1 else reshape(a, (a.size, 1)) for a in _operands(tup, "column_stack")]
    return _joined("column_stack", arrays, 1)


def block(arrays):
    """An array from nested lists of blocks.

    Parameters
    ----------
    arrays : nested list of Tensor or array_like
        The innermost lists are joined along the last axis, those around them along the one before, and so on.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.block([[fnp.eye(2), fnp.zeros((2, 1))], [fnp.ones((1, 2)), fnp.full((1, 1), 5.0)]])
    Tensor([[1., 0., 0.],
            [0., 1., 0.],
            [1., 1., 5.]])
    """
    leaves = []
    depth = _depth(arrays, leaves, ())
    rank = max(depth, *(a.ndim for a in leaves)) if leaves else depth
    leaf = iter(leaves)

    def joined(part, level):
        if level == depth:
            a = next(leaf)
            return a if a.ndim == rank else reshape(a, (1,) * (rank - a.ndim) + tuple(a.shape))
        return _joined("block", [joined(inner, level + 1) for inner in part], rank - depth + level)

    result = joined(arrays, 0)
    return result if depth else result.copy()


def _depth(part, leaves, place):
    """How deep lists are nested; the leaves go into a list."""
    name = "arrays" + "".join(f"[{k}]" for k in place)
    if isinstance(part, tuple):
        raise TypeError(f"block: {name} is a tuple; only lists can be used to arrange blocks")
    if not isinstance(part, list):
        leaves.append(operand(part, "block"))
        return 0
    if not part:
        raise ValueError(f"block: {name} is empty; a list of blocks cannot be")
    depths = [_depth(inner, leaves, (*place, k)) for k, inner in enumerate(part)]
    if len(set(depths)) > 1:
        raise ValueError(f"block: list depths are mismatched: the parts of {name} are {depths} lists deep; all must be equally deep")
    return depths[0] + 1


# ------------------------------------------------------------------------------------------------------------------ apart

def split(ary, indices_or_sections, axis=0):
    """An array cut into parts along an axis.

    Parameters
    ----------
    ary : Tensor or array_like
    indices_or_sections : int or sequence of int
        Into how many parts of one length, or the places where to cut.
    axis : int

    Returns
    -------
    list of Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.split([1.0, 2.0, 3.0, 4.0], 2)
    [Tensor([1., 2.]), Tensor([3., 4.])]
    >>> fnp.split([1.0, 2.0, 3.0, 4.0], [1, 3])
    [Tensor([1.]), Tensor([2., 3.]), Tensor([4.])]
    """
    return _cut("split", ary, indices_or_sections, axis)


def array_split(ary, indices_or_sections, axis=0):
    """An array cut into parts along an axis, the first ones longer by one where the length does not divide.

    Parameters
    ----------
    ary : Tensor or array_like
    indices_or_sections : int or sequence of int
        Into how many parts, or the places where to cut.
    axis : int

    Returns
    -------
    list of Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.array_split([1.0, 2.0, 3.0], 2)
    [Tensor([1., 2.]), Tensor([3.])]
    """
    return _cut("array_split", ary, indices_or_sections, axis, even=False)


def hsplit(ary, indices_or_sections):
    """``split`` along the second axis; of a vector along its only one.

    Parameters
    ----------
    ary : Tensor or array_like
        Of one axis or more.
    indices_or_sections : int or sequence of int
        Into how many parts of one length, or the places where to cut.

    Returns
    -------
    list of Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.hsplit([[1.0, 2.0]], 2)
    [Tensor([[1.]]), Tensor([[2.]])]
    """
    x = operand(ary, "hsplit")
    if x.ndim == 0:
        raise ValueError("hsplit only works on arrays of 1 or more dimensions, and a number has none")
    return _cut("hsplit", x, indices_or_sections, 1 if x.ndim > 1 else 0)


def vsplit(ary, indices_or_sections):
    """``split`` along the first axis.

    Parameters
    ----------
    ary : Tensor or array_like
        Of two axes or more.
    indices_or_sections : int or sequence of int
        Into how many parts of one length, or the places where to cut.

    Returns
    -------
    list of Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.vsplit([[1.0], [2.0]], 2)
    [Tensor([[1.]]), Tensor([[2.]])]
    """
    x = operand(ary, "vsplit")
    if x.ndim < 2:
        raise ValueError(f"vsplit only works on arrays of 2 or more dimensions, not on the shape {x.shape}; use split")
    return _cut("vsplit", x, indices_or_sections, 0)


def dsplit(ary, indices_or_sections):
    """``split`` along the third axis.

    Parameters
    ----------
    ary : Tensor or array_like
        Of three axes or more.
    indices_or_sections : int or sequence of int
        Into how many parts of one length, or the places where to cut.

    Returns
    -------
    list of Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.dsplit([[[1.0, 2.0]]], 2)
    [Tensor([[[1.]]]), Tensor([[[2.]]])]
    """
    x = operand(ary, "dsplit")
    if x.ndim < 3:
        raise ValueError(f"dsplit only works on arrays of 3 or more dimensions, not on the shape {x.shape}; use split with axis=")
    return _cut("dsplit", x, indices_or_sections, 2)


def _cut(who, ary, where, axis, even=True):
    x = operand(ary, who)
    axis = axis_of(axis, x.ndim, who)
    n = x.shape[axis]
    if np.ndim(where):
        places = list(map(operator.index, where))
    else:
        count = operator.index(where)
        if count <= 0:
            raise ValueError(f"{who}: number of sections must be larger than 0, not {count}")
        if even and n % count:
            raise ValueError(f"{who}: array split does not result in an equal division: axis {axis} of the shape {x.shape} into "
                             f"{count} parts; use array_split, or say where to cut")
        each, more = divmod(n, count)
        places = [k * each + min(k, more) for k in range(1, count)]
    return [along(x, axis, slice(start, end)) for start, end in zip([0, *places], [*places, n])]


def unstack(x, /, *, axis=0):
    """The parts of an array along an axis, without it: the reverse of ``stack``.

    Parameters
    ----------
    x : Tensor or array_like
        Of one axis or more.
    axis : int

    Returns
    -------
    tuple of Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.unstack([[1.0, 2.0], [3.0, 4.0]], axis=1)
    (Tensor([1., 3.]), Tensor([2., 4.]))
    """
    x = operand(x, "unstack")
    if x.ndim == 0:
        raise ValueError("unstack: input must be at least 1-d, and a number has no axis")
    axis = axis_of(axis, x.ndim, "unstack")
    return tuple(along(x, axis, k) for k in range(x.shape[axis]))


# ------------------------------------------------------------------------------------------------------ put in, taken out

def append(arr, values, axis=None):
    """An array with values after it.

    Parameters
    ----------
    arr : Tensor or array_like
    values : Tensor or array_like
        Of the shape of ``arr`` but for the axis.
    axis : int, optional
        By default both are laid flat.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.append([1.0, 2.0], [[3.0], [4.0]])
    Tensor([1., 2., 3., 4.])
    """
    x, values = operand(arr, "append"), operand(values, "append")
    if axis is None:
        x, values, axis = reshape(x, (x.size,)), reshape(values, (values.size,)), 0
    return _joined("append", [x, values], axis_of(axis, x.ndim, "append"))


def insert(arr, obj, values, axis=None):
    """An array with values put in before given places.

    Parameters
    ----------
    arr : Tensor or array_like
    obj : int, slice, or sequence of int or bool
        The places, in the array as it was.
    values : Tensor or array_like
        They broadcast to what is put in, and take the dtype of ``arr``.
    axis : int, optional
        By default the array is laid flat.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.insert([1.0, 2.0, 3.0], 1, 9.0)
    Tensor([1., 9., 2., 3.])
    >>> fnp.insert([[1.0, 2.0], [3.0, 4.0]], [0, 2], 0.0, axis=1)
    Tensor([[0., 1., 2., 0.],
            [0., 3., 4., 0.]])
    """
    x, values = operand(arr, "insert"), operand(values, "insert")
    if axis is None:
        x, axis = reshape(x, (x.size,)), 0
    axis = axis_of(axis, x.ndim, "insert")
    n = x.shape[axis]
    places = _places(obj, n, "insert")
    if values.dtype != x.dtype:
        values = values.astype(x.dtype)
    if values.ndim < x.ndim:
        values = reshape(values, (1,) * (x.ndim - values.ndim) + tuple(values.shape))
    if places.size == 1:
        if places.ndim == 0:            # what is at one place has the axis first
            values = moveaxis(values, 0, axis)
        count = values.shape[axis] if values.ndim == x.ndim else 1
    else:
        count = places.size
    region = x.shape[:axis] + (count,) + x.shape[axis + 1:]
    try:
        values = broadcast_to(values, region)
        order = np.insert(np.arange(n), places, n + np.arange(count))
    except ValueError:
        raise ValueError(f"insert: values of shape {values.shape} do not fit {region}, what is put into {x.shape} along axis "
                         f"{axis}") from None
    except IndexError as error:
        raise IndexError(f"insert: {error}; the shape is {x.shape}, the axis {axis}") from None
    if places.size != 1:
        return along(concatenate([x, values], axis), axis, order)
    place = int(places.reshape(()))
    place += n if place < 0 else 0
    return concatenate([along(x, axis, slice(0, place)), values, along(x, axis, slice(place, n))], axis)


def _places(obj, n, who):
    """The places that a slice, integers or bool mean."""
    if isinstance(obj, slice):
        return np.arange(n)[obj]
    if isinstance(obj, list) and not obj:
        return np.zeros(0, np.intp)
    places = np.asarray(obj)
    if places.dtype == bool:
        if places.ndim != 1:
            raise ValueError(f"{who}: boolean array argument obj must be one dimensional, not of shape {places.shape}")
        if who == "delete" and places.size != n:
            raise ValueError(f"{who}: boolean array argument obj must be of the length {n} of the axis, not {places.size}")
        places = np.flatnonzero(places)
    if places.ndim > 1:
        raise ValueError(f"{who}: index array argument obj must be one dimensional or scalar, not of shape {places.shape}")
    if places.dtype.kind not in "iu":
        raise IndexError(f"{who}: places must be integers, slices or bool, not of dtype {places.dtype}")
    return places


def delete(arr, obj, axis=None):
    """An array without what is at given places.

    Parameters
    ----------
    arr : Tensor or array_like
    obj : int, slice, or sequence of int or bool
        The places.
    axis : int, optional
        By default the array is laid flat.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.delete([1.0, 2.0, 3.0], 1)
    Tensor([1., 3.])
    """
    x = operand(arr, "delete")
    if axis is None:
        x, axis = reshape(x, (x.size,)), 0
    axis = axis_of(axis, x.ndim, "delete")
    n = x.shape[axis]
    places = _places(obj, n, "delete")
    try:
        kept = np.delete(np.arange(n), places)
    except IndexError as error:
        raise IndexError(f"delete: {error}; the shape is {x.shape}, the axis {axis}") from None
    return along_runs(x, axis, kept)
