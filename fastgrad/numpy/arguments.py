"""What the families share: arguments as Tensors, axes, rows."""

import numpy as np

from fastgrad._core.engine import Tensor, as_operand, call_host, reshape, transpose
from fastgrad.numpy.creation import asarray
from fastgrad.numpy.indexing import gather


def operand(a, dtype=None):
    """An argument as a Tensor; gradients flow through Tensors in lists."""
    if isinstance(a, (Tensor, list, tuple)):
        x = asarray(a)
    else:
        x = as_operand(np.asarray(a))
    return x if dtype is None or x.dtype == dtype else x.astype(dtype)


def floating(a, dtype=None):
    """The same in a floating dtype: float64 for integers and bool, as NumPy's statistics have it."""
    x = operand(a, dtype)
    return x if x.dtype.kind == "f" else x.astype(np.float64)


def axes_of(axis, ndim, who):
    """The axes of a reduction, none of them negative."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(np.lib.array_utils.normalize_axis_tuple(axis, ndim, who))


def axis_of(axis, ndim, who):
    """One axis, not negative."""
    return int(np.lib.array_utils.normalize_axis_index(axis, ndim, who))


def result_into(out, result):
    """The result, in the memory of ``out=`` if there is one."""
    if out is None:
        return result
    out[...] = result
    return out


def host(function, arguments, keywords=None):
    """``call_host``, whose errors name the operation and the shapes."""
    try:
        return call_host(function, arguments, keywords)
    except np.exceptions.AxisError:
        raise
    except (ValueError, TypeError) as error:
        text, name = str(error), function.__name__
        if text.startswith(name) or "fg.compile" in text or "t.detach()" in text:
            raise
        shapes = " and ".join(str(a.shape) for a in arguments if isinstance(a, Tensor))
        raise type(error)(f"{name} of shape {shapes}: {text}") from None


def rows_of(x, axes):
    """x with some axes laid out as the last one: one row, or rows below each other.

    Returns
    -------
    rows : Tensor
        Of one axis where nothing but the row is left, else of two.
    rest : tuple of int
        The shape of the other axes.
    kept : tuple of int
        The same with the axes in it, of length 1.
    """
    others = tuple(d for d in range(x.ndim) if d not in axes)
    rest = tuple(x.shape[d] for d in others)
    kept = tuple(1 if d in axes else n for d, n in enumerate(x.shape))
    order = others + tuple(axes)
    if order != tuple(range(x.ndim)):
        x = transpose(x, order)
    length = int(np.prod([x.shape[d] for d in range(len(others), x.ndim)]))
    shape = (int(np.prod(rest)), length) if rest else (length,)
    return (x if x.shape == shape else reshape(x, shape)), rest, kept


def pick(rows, places):
    """Of each row the elements at its places."""
    if rows.ndim == 1:
        return gather(rows, places)
    return gather(rows, (np.arange(rows.shape[0])[:, None], places))
