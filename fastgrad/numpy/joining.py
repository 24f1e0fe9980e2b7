"""Putting Tensors together, and laying them flat."""

import numpy as np

from fastgrad._core.engine import Batched, Rule, Tensor, broadcast_to, expand_dims, reshape


def _split(g, axis, lengths):
    """g cut into parts of these lengths."""
    parts, start = [], 0
    before = (slice(None),) * axis
    for length in lengths:
        parts.append(g[before + (slice(start, start + length),)])
        start += length
    return tuple(parts)


def _concatenate_jvp(tangents, out, *operands, axis, lengths):
    some = next(t for t in tangents if t is not None)
    filled = []
    for t, n in zip(tangents, lengths):
        if t is None:
            t = np.zeros(some.shape[:axis] + (n,) + some.shape[axis + 1:], some.dtype)
        filled.append(t)
    return _concatenate(*filled, axis=axis, lengths=lengths)


def _concatenate_batch(size, *operands, axis, lengths):
    parts = [t.tensor if isinstance(t, Batched) else broadcast_to(t, (size,) + t.shape) for t in operands]
    return _concatenate(*parts, axis=axis + 1, lengths=lengths)


_concatenate = Rule(
    "concatenate",
    lambda *arrays, axis, lengths: np.concatenate(arrays, axis=axis),
    lambda g, out, *operands, axis, lengths: _split(g, axis, lengths),
    _concatenate_jvp,
    batch=_concatenate_batch)


def concatenate(arrays, axis=0, *, out=None, dtype=None, casting="same_kind"):
    """Tensors joined along an existing axis.

    Parameters
    ----------
    arrays : sequence of Tensor or array_like
        Of one shape but for the axis.
    axis : int or None
        None: all are laid flat first.
    out : Tensor, optional
        Gets the result.
    dtype : dtype, optional
        Of the result.
    casting : str
        What kind of cast ``dtype`` may be.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If the shapes do not fit, or there is nothing to join.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.concatenate([[1.0], [2.0, 3.0]])
    Tensor([1., 2., 3.])
    """
    arrays = [a if isinstance(a, Tensor) else np.asarray(a) for a in arrays]
    if axis is None:
        arrays, axis = [reshape(a, -1) for a in arrays], 0
    if not arrays:
        raise ValueError("concatenate: need at least one array to concatenate")
    ndim = arrays[0].ndim
    if ndim == 0:
        raise ValueError("concatenate: zero-dimensional arrays cannot be concatenated; use stack")
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(axis, ndim, "concatenate")
    axis %= ndim
    shapes = [tuple(a.shape) for a in arrays]
    if any(s[:axis] + s[axis + 1:] != shapes[0][:axis] + shapes[0][axis + 1:] or len(s) != ndim for s in shapes):
        raise ValueError(f"concatenate: shapes {shapes} differ in more than axis {axis}")
    result = _concatenate(*arrays, axis=axis, lengths=[s[axis] for s in shapes])
    if dtype is not None and result.dtype != dtype:
        if not np.can_cast(result.dtype, dtype, casting):
            raise TypeError(f"concatenate: cannot cast {result.dtype} to {np.dtype(dtype)} with casting={casting!r}")
        result = result.astype(dtype)
    if out is not None:
        out[...] = result
        return out
    return result


def stack(arrays, axis=0, *, out=None):
    """Tensors of one shape joined along a new axis.

    Parameters
    ----------
    arrays : sequence of Tensor or array_like
    axis : int
        Where the new axis goes.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.stack([1.0, 2.0])
    Tensor([1., 2.])
    """
    arrays = [a if isinstance(a, Tensor) else np.asarray(a) for a in arrays]
    if not arrays:
        raise ValueError("stack: need at least one array to stack")
    shapes = [tuple(a.shape) for a in arrays]
    if any(s != shapes[0] for s in shapes):
        raise ValueError(f"stack: all input arrays must have the same shape, not {shapes}")
    return concatenate([expand_dims(a, axis) for a in arrays], axis, out=out)


def ravel(a, order="C"):
    """The elements in one axis; see ``reshape``."""
    if order not in ("C", "K", "A"):
        raise ValueError("ravel: only order='C' is supported; transpose first")
    return reshape(a, -1)
