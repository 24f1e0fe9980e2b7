"""Sorting, searching and counting.  What is an order or a number of elements carries no gradient; values do."""

import numpy as np

from fastgrad._core.engine import Tensor, is_recorded, is_tracked, moveaxis, refuse_numpy, reshape, tracing
from fastgrad.numpy.arguments import axis_of, host, operand, pick, rows_of
from fastgrad.numpy.indexing import gather, scatter_add, take
from fastgrad.numpy.statistics import order_statistics

__all__ = ["sort", "argsort", "partition", "argpartition", "unique", "searchsorted", "digitize", "nonzero", "flatnonzero",
           "argwhere", "isin", "bincount", "histogram"]


def _along(a, axis, who):
    """The operand and its axis: a laid flat where there is none."""
    x = operand(a)
    if axis is None:
        return reshape(x, -1), 0
    return x, axis_of(axis, x.ndim, who)


def _ordered(x, axis, places_of, *arguments, **keywords):
    """The elements along an axis in the order that a function of rows gives."""
    rows, rest, _ = rows_of(x, (axis,))
    picked = pick(rows, host(places_of, (rows, *arguments), keywords))
    if x.ndim == 1:
        return picked
    picked = reshape(picked, rest + (x.shape[axis],))
    return picked if axis == x.ndim - 1 else moveaxis(picked, -1, axis)


def stable_order(rows):
    """The order that sorts each row, equal elements as they stand."""
    if rows.shape[-1] > 100:        # NumPy's default is three times faster, and the same where no two elements are equal
        order = np.argsort(rows, axis=-1)
        values = np.take_along_axis(rows, order, -1)
        if not (np.any(values[..., 1:] == values[..., :-1]) or np.any(np.isnan(values[..., -2]))):
            return order
    return np.argsort(rows, axis=-1, kind="stable")


def values_in_order(x, axis):
    """What a stable sort gives: of equal elements only 0 and -0 can be told apart."""
    values = np.sort(x, axis)
    zeros = np.signbit(values[values == 0])
    return np.sort(x, axis, "stable") if zeros.any() and not zeros.all() else values


def partial_order(rows, kth):
    """The order that partitions each row."""
    return np.argpartition(rows, kth, axis=-1)


# Functions of arrays that treat each row by itself, so that a batch of examples is more rows.
OF_ROWS = {stable_order, partial_order, order_statistics}


def _no_fields(order, who):
    if order is not None:
        raise TypeError(f"{who}: order= names fields of structured arrays, which Tensors do not have")


def _in_bounds(kth, shape, axis, who):
    length = shape[axis]
    if np.any((np.asarray(kth) >= length) | (np.asarray(kth) < -length)):
        raise ValueError(f"{who}: kth={kth} is out of bounds for axis {axis} of shape {shape}")


def sort(a, axis=-1, kind=None, order=None, *, stable=None):
    """Elements in ascending order along an axis; each keeps its gradient.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or None
        None: of ``a`` laid flat.
    kind, stable : optional
        Accepted as NumPy has them; sorting is always stable: of equal elements the first one in ``a`` comes first.
    order : None

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad as fg
    >>> import fastgrad.numpy as fnp
    >>> fnp.sort([3.0, 1.0, 2.0])
    Tensor([1., 2., 3.])
    >>> fg.grad(lambda x: fnp.sort(x)[0])(fg.tensor([3.0, 1.0, 2.0]))
    Tensor([0., 1., 0.])
    """
    _no_fields(order, "sort")
    x, axis = _along(a, axis, "sort")
    if x.dtype.kind != "f":
        return host(np.sort, (x, axis))
    if not (tracing() or is_tracked(x)):
        return host(values_in_order, (x, axis))
    return _ordered(x, axis, stable_order)


def argsort(a, axis=-1, kind=None, order=None, *, stable=None):
    """The order that sorts along an axis; no gradient.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or None
        None: of ``a`` laid flat.
    kind, stable : optional
        As NumPy has them.
    order : None

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.argsort([3.0, 1.0, 2.0])
    Tensor([1, 2, 0], dtype=int64)
    """
    _no_fields(order, "argsort")
    x, axis = _along(a, axis, "argsort")
    return host(np.argsort, (x, axis, kind), {} if stable is None else {"stable": stable})


def partition(a, kth, axis=-1, kind="introselect", order=None):
    """Elements in an order in which the kth are where sorting would put them, smaller ones before; each keeps its gradient.

    Parameters
    ----------
    a : Tensor or array_like
    kth : int or sequence of int
    axis : int or None
        None: of ``a`` laid flat.
    kind, order
        As NumPy has them.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.partition([3.0, 1.0, 2.0], 0)[0]
    Tensor(1.0)
    """
    _no_fields(order, "partition")
    x, axis = _along(a, axis, "partition")
    _in_bounds(kth, x.shape, axis, "partition")
    if x.dtype.kind != "f":
        return host(np.partition, (x, kth, axis))
    return _ordered(x, axis, partial_order, kth)


def argpartition(a, kth, axis=-1, kind="introselect", order=None):
    """The order that partitions along an axis; no gradient.

    Parameters
    ----------
    a, kth, axis, kind, order
        As for ``partition``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.argpartition([3.0, 1.0, 2.0], 0)[0]
    Tensor(1, dtype=int64)
    """
    _no_fields(order, "argpartition")
    x, axis = _along(a, axis, "argpartition")
    _in_bounds(kth, x.shape, axis, "argpartition")
    return host(np.argpartition, (x, kth, axis))


def unique(ar, return_index=False, return_inverse=False, return_counts=False, axis=None, *, equal_nan=True, sorted=True):
    """The different elements in ascending order; the gradient goes to the first of equal ones.

    Parameters
    ----------
    ar : Tensor or array_like
    return_index, return_inverse, return_counts : bool
        Whether the places of the first ones, the places of the elements among the result, and how many there are of each come
        too.
    axis : int, optional
        None: of ``ar`` laid flat; else the different parts along the axis.
    equal_nan : bool
        Whether all NaN are one.
    sorted : bool
        Accepted as NumPy has it; the result is always sorted.

    Returns
    -------
    Tensor, or tuple of these

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.unique([2.0, 1.0, 2.0])
    Tensor([1., 2.])
    """
    x = operand(ar)
    if axis is not None:
        axis = axis_of(axis, x.ndim, "unique")
    found = host(np.unique, (x, True, bool(return_inverse), bool(return_counts), axis), {"equal_nan": bool(equal_nan)})
    values, index, *more = found
    if x.dtype.kind == "f":
        values = gather(x if x.ndim == 1 else reshape(x, -1), index) if axis is None else take(x, index, axis)
    result = (values, *([index] if return_index else []), *more)
    return result if len(result) > 1 else values


def searchsorted(a, v, side="left", sorter=None):
    """Where elements would have to stand in a sorted array; no gradient.

    Parameters
    ----------
    a : Tensor or array_like
        Sorted, with one axis.
    v : Tensor or array_like
    side : {"left", "right"}
        Before or after equal elements.
    sorter : Tensor or array_like of int, optional
        The order that sorts ``a``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.searchsorted([1.0, 2.0, 3.0], [2.5, 0.0])
    Tensor([2, 0], dtype=int64)
    """
    return host(np.searchsorted, (operand(a), operand(v), side, sorter))


def digitize(x, bins, right=False):
    """The number of the bin of each element; no gradient.

    Parameters
    ----------
    x : Tensor or array_like
    bins : Tensor or array_like
        Their edges, ascending or descending.
    right : bool
        Whether a bin holds its right edge and not its left one.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.digitize([0.5, 2.5], [0.0, 1.0, 2.0])
    Tensor([1, 3], dtype=int64)
    """
    return host(np.digitize, (operand(x), operand(bins), bool(right)))


def nonzero(a):
    """Where elements differ from 0, an array for each axis; no gradient.

    Parameters
    ----------
    a : Tensor or array_like

    Returns
    -------
    tuple of Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nonzero([0.0, 3.0, 2.0])
    (Tensor([1, 2], dtype=int64),)
    """
    return host(np.nonzero, (operand(a),))


def flatnonzero(a):
    """Where elements of the array laid flat differ from 0; no gradient.

    Parameters
    ----------
    a : Tensor or array_like

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.flatnonzero([0.0, 3.0, 2.0])
    Tensor([1, 2], dtype=int64)
    """
    return host(np.flatnonzero, (operand(a),))


def argwhere(a):
    """Where elements differ from 0, a row for each; no gradient.

    Parameters
    ----------
    a : Tensor or array_like

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.argwhere([0.0, 3.0, 2.0])
    Tensor([[1],
            [2]], dtype=int64)
    """
    return host(np.argwhere, (operand(a),))


def isin(element, test_elements, assume_unique=False, invert=False, *, kind=None):
    """Whether each element is among others; no gradient.

    Parameters
    ----------
    element, test_elements : Tensor or array_like
    assume_unique : bool
        Whether no element comes twice on either side, which is faster.
    invert : bool
        Whether it is asked which are not.
    kind : {None, "sort", "table"}

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.isin([1.0, 2.0, 3.0], [3.0, 1.0])
    Tensor([ True, False,  True])
    """
    return host(np.isin, (operand(element), operand(test_elements), bool(assume_unique), bool(invert)), {"kind": kind})


def bincount(x, /, weights=None, minlength=0):
    """How often each number from 0 on comes, or the sum of its weights; gradients flow to the weights.

    Parameters
    ----------
    x : Tensor or array_like of int
        With one axis.
    weights : Tensor or array_like, optional
    minlength : int

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.bincount([0, 2, 2])
    Tensor([1, 0, 2], dtype=int64)
    >>> fnp.bincount([0, 2, 2], [1.0, 2.0, 3.0])
    Tensor([1., 0., 5.])
    """
    x = operand(x)
    if not (isinstance(weights, Tensor) and (is_tracked(weights) or is_recorded(weights))):
        return host(np.bincount, (x, weights, minlength))
    if is_recorded(x):
        raise TypeError("bincount: with weights that are arguments of the function, x may not depend on its arguments, because the "
                        "length of the result depends on x; make x outside, or use fastgrad.numpy.zeros(n) and t[x] += weights")
    counts = np.bincount(x.numpy(), minlength=minlength)        # checks x
    if weights.shape != x.shape:
        raise ValueError(f"bincount: x has shape {x.shape} and the weights {weights.shape}; these must be the same")
    return scatter_add(weights.astype(np.float64), x.numpy(), counts.shape)


def histogram(a, bins=10, range=None, density=None, weights=None):
    """How many elements fall into each bin, and the edges of the bins; no gradient, neither to ``a`` nor by the edges.

    Parameters
    ----------
    a : Tensor or array_like
    bins : int, str, Tensor or array_like
        How many, a rule that says so, or the edges.
    range : (float, float), optional
    density : bool, optional
        Whether the integral is 1.
    weights : Tensor or array_like, optional

    Returns
    -------
    hist, bin_edges : Tensor

    Raises
    ------
    TypeError
        If the weights are being differentiated.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.histogram([1.0, 2.0, 2.0], bins=[0.0, 1.5, 3.0])[0]
    Tensor([1, 2], dtype=int64)
    """
    refuse_numpy("numpy.histogram", (weights,), ["weights"])
    return host(np.histogram, (operand(a), bins, range, density, weights))
