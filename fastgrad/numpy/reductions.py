"""Reductions that are made of other operations."""

import numpy as np

from fastgrad._core.engine import Tensor, call_host, max, min, multiply, refuse_numpy, reshape, sum, transpose

_REDUCTIONS = {"add": sum, "maximum": max, "minimum": min}


def prod(a, axis=None, keepdims=False, *, out=None, dtype=None):
    """Product of elements over axes, by pairs: exact at every order also where elements are 0.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
        All by default.
    keepdims : bool

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.prod([2.0, 3.0, 4.0])
    Tensor(24.0)
    """
    from fastgrad.numpy.creation import asarray

    x = asarray(a, dtype)
    if x.dtype.kind != "f":
        return call_host(np.prod, (x, axis), {"keepdims": bool(keepdims)})
    axes = tuple(range(x.ndim)) if axis is None else tuple(np.lib.array_utils.normalize_axis_tuple(axis, x.ndim, "axis"))
    kept = tuple(1 if d in axes else n for d, n in enumerate(x.shape))
    rest = tuple(d for d in range(x.ndim) if d not in axes)
    shape = tuple(x.shape[d] for d in rest)
    rows = reshape(transpose(x, rest + axes) if x.ndim else x, shape + (int(np.prod([x.shape[d] for d in axes])),))
    if rows.shape[-1] == 0:
        rows = sum(rows, -1, True) + 1        # depends on x, if only in name
    while (n := rows.shape[-1]) > 1:
        product = multiply(rows[..., : n // 2], rows[..., n // 2 : n - n % 2])
        if n % 2:
            last = multiply(product[..., -1:], rows[..., -1:])
            product = last if n == 3 else _join(product[..., :-1], last)
        rows = product
    result = reshape(rows, kept if keepdims else shape)
    if out is not None:
        out[...] = result
        return out
    return result


def _join(a, b):
    from fastgrad.numpy.joining import concatenate

    return concatenate([a, b], -1)


def ufunc_reduce(ufunc, a, out, where, keywords):
    """``np.add.reduce(tensor)`` and the like: NumPy reduces over axis 0 unless told."""
    function = {**_REDUCTIONS, "multiply": prod}.get(ufunc.__name__)
    axis, keepdims = keywords.pop("axis", 0), keywords.pop("keepdims", False)
    if function is None or where is not True or keywords or out is not None:
        refuse_numpy(f"numpy.{ufunc.__name__}.reduce", (a,))
        return call_host(ufunc.reduce, (a,), {"axis": axis, "keepdims": keepdims, "where": where, **keywords})
    return function(a, axis, keepdims)
