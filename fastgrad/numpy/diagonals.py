"""Diagonals and triangles."""

import operator

import numpy as np

from fastgrad._core import engine
from fastgrad._core.engine import Tensor, apply_scatter, moveaxis, refuse_numpy, reshape, sum
from fastgrad.numpy.creation import _from_numpy, zeros
from fastgrad.numpy.shapes import axis_of, operand

__all__ = ["diag", "diagflat", "diagonal", "trace", "tril", "triu", "tri", "fill_diagonal"]

tri = _from_numpy("tri")


def diagonal(a, offset=0, axis1=0, axis2=1):
    """The elements on a diagonal, as the last axis.

    Parameters
    ----------
    a : Tensor or array_like
        Of two axes or more.
    offset : int
        Above the main diagonal, or below if negative.
    axis1, axis2 : int
        The rows and columns; one matrix, and one diagonal, for each place along the other axes.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.diagonal([[1.0, 2.0], [3.0, 4.0]])
    Tensor([1., 4.])
    """
    return _diagonal("diagonal", a, offset, axis1, axis2)


def _diagonal(who, a, offset, axis1, axis2):
    x, offset = operand(a, who), operator.index(offset)
    if x.ndim < 2:
        raise ValueError(f"{who}: requires an array of at least two dimensions, not the shape {x.shape}")
    axis1, axis2 = axis_of(axis1, x.ndim, who), axis_of(axis2, x.ndim, who)
    if axis1 == axis2:
        raise ValueError(f"{who}: axis1 and axis2 cannot be the same, both are {axis1}")
    if (axis1, axis2) != (x.ndim - 2, x.ndim - 1):
        x = moveaxis(x, (axis1, axis2), (-2, -1))
    rows, columns = x.shape[-2:]
    length = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    start = offset if offset >= 0 else -offset * columns
    flat = reshape(x, (*x.shape[:-2], rows * columns))
    if not length:
        return flat[..., :0]
    return flat[..., start : start + (length - 1) * (columns + 1) + 1 : columns + 1]


def diag(v, k=0):
    """The matrix with a vector on a diagonal, or the diagonal of a matrix.

    Parameters
    ----------
    v : Tensor or array_like
        Of one or two axes.
    k : int
        The diagonal: above the main one, or below if negative.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.diag([1.0, 2.0])
    Tensor([[1., 0.],
            [0., 2.]])
    >>> fnp.diag([[1.0, 2.0], [3.0, 4.0]], k=1)
    Tensor([2.])
    """
    x, k = operand(v, "diag"), operator.index(k)
    if x.ndim == 2:
        return _diagonal("diag", x, k, 0, 1)
    if x.ndim != 1:
        raise ValueError(f"diag: input must be 1- or 2-d, not of shape {x.shape}; use diagonal for stacks of matrices, diagflat "
                         "to lay it flat")
    n = x.shape[0] + abs(k)
    if not x.size:
        return zeros((n, n), x.dtype)
    if x.dtype.kind != "f":
        return engine.call_host(np.diag, (x, k))
    return apply_scatter(x, (k if k >= 0 else -k * n, n + 1), (n, n))


def diagflat(v, k=0):
    """The matrix with all elements, laid flat, on a diagonal.

    Parameters
    ----------
    v : Tensor or array_like
    k : int
        The diagonal: above the main one, or below if negative.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.diagflat([[1.0], [2.0]])
    Tensor([[1., 0.],
            [0., 2.]])
    """
    x = operand(v, "diagflat")
    return diag(reshape(x, (x.size,)), k)


def trace(a, offset=0, axis1=0, axis2=1, dtype=None, out=None):
    """The sum of a diagonal.

    Parameters
    ----------
    a : Tensor or array_like
        Of two axes or more.
    offset : int
        Above the main diagonal, or below if negative.
    axis1, axis2 : int
        The rows and columns.
    dtype : dtype, optional
        In which it is summed.
    out : Tensor, optional
        Gets the result.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.trace([[1.0, 2.0], [3.0, 4.0]])
    Tensor(5.0)
    """
    result = sum(_diagonal("trace", a, offset, axis1, axis2), -1, dtype=dtype)
    if out is not None:
        out[...] = result
        return out
    return result


def tril(m, k=0):
    """The lower triangle: 0 above a diagonal.

    Parameters
    ----------
    m : Tensor or array_like
        A matrix, or a stack of them; a vector is the row of a square one.
    k : int
        The diagonal: above the main one, or below if negative.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.tril([[1.0, 2.0], [3.0, 4.0]])
    Tensor([[1., 0.],
            [3., 4.]])
    """
    x = operand(m, "tril")
    return engine.where(_lower("tril", x, k), x, np.zeros((), x.dtype))


def triu(m, k=0):
    """The upper triangle: 0 below a diagonal.

    Parameters
    ----------
    m : Tensor or array_like
        A matrix, or a stack of them; a vector is the row of a square one.
    k : int
        The diagonal: above the main one, or below if negative.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.triu([[1.0, 2.0], [3.0, 4.0]])
    Tensor([[1., 2.],
            [0., 4.]])
    """
    x = operand(m, "triu")
    return engine.where(~_lower("triu", x, operator.index(k) - 1), x, np.zeros((), x.dtype))


def _lower(who, x, k):
    """True on the diagonal and below."""
    if x.ndim == 0:
        raise TypeError(f"{who}: input must have an axis, and a number has none")
    return np.tri(*x.shape[-2:], k=operator.index(k), dtype=bool)


def fill_diagonal(a, val, wrap=False):
    """Changes the main diagonal; gradients follow.

    Parameters
    ----------
    a : Tensor
        Of two axes, or of more of one length; changed in place.  A leaf that asks for a gradient cannot be.
    val : Tensor or array_like
        A number, or what is written along the diagonal, again and again.
    wrap : bool
        Whether the diagonal of a high matrix begins again after each square.

    Returns
    -------
    None

    Examples
    --------
    >>> import fastgrad as fg, fastgrad.numpy as fnp
    >>> x = fg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> fnp.fill_diagonal(x, 0.0)
    >>> x
    Tensor([[0., 2.],
            [3., 0.]])
    """
    if not isinstance(a, Tensor):
        refuse_numpy("numpy.fill_diagonal of an array", (val,))
        np.fill_diagonal(a, np.asarray(val), wrap)
        return
    if a.ndim < 2:
        raise ValueError(f"fill_diagonal: array must be at least 2-d, not of shape {a.shape}")
    if a.ndim > 2 and len(set(a.shape)) > 1:
        raise ValueError(f"fill_diagonal: all dimensions of input must be of equal length, not {a.shape}")
    if a.ndim == 2:
        step, end = a.shape[1] + 1, a.size if wrap else a.shape[1] ** 2
    else:
        step, end = 1 + int(np.cumprod(a.shape[:-1]).sum()), a.size
    places = np.arange(0, min(end, a.size), step)
    if not places.size:
        return
    val = operand(val, "fill_diagonal")
    if val.dtype != a.dtype:
        val = val.astype(a.dtype)
    number = np.full(a.size, -1)            # of the value that is written at each place
    number[places] = np.arange(places.size)
    written = (number >= 0).reshape(a.shape)
    if val.ndim:
        if not val.size:
            raise ValueError(f"fill_diagonal: no values, of shape {val.shape}, for {places.size} places")
        val = reshape(val, (val.size,))[np.where(written, number.reshape(a.shape) % val.size, 0)]
    a[...] = engine.where(written, val, a)
