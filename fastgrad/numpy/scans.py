"""Running sums and products, differences, and what is made of these."""

import numpy as np

from fastgrad._core.engine import Rule, Tensor, broadcast_to, call_host, isnan, multiply, reshape, sum, tensor
from fastgrad.numpy.arguments import axes_of, axis_of, floating, operand, result_into
from fastgrad.numpy.joining import concatenate
from fastgrad.numpy.rounding import where as choose

__all__ = ["cumsum", "cumprod", "nancumsum", "nancumprod", "cumulative_sum", "cumulative_prod", "diff", "ediff1d", "gradient",
           "trapezoid"]


def _part(x, axis, start, stop=None, step=None):
    """A slice along one axis."""
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


# ----------------------------------------------------------------------------------------------------------------- scans

def _cumsum_value(x, axis, reverse):
    return np.flip(np.cumsum(np.flip(x, axis), axis), axis) if reverse else np.cumsum(x, axis)


# The axis counts from the end, so that a batch axis in front changes nothing.
_cumsum = Rule(
    "cumsum",
    _cumsum_value,
    lambda g, out, x, axis, reverse: _cumsum(g, axis=axis, reverse=not reverse),
    batch=lambda size, x, axis, reverse: _cumsum(x.tensor, axis=axis, reverse=reverse))


def _scanned(a, axis, dtype, who):
    """The operand and its axis: a laid flat where there is none."""
    x = operand(a, dtype)
    if axis is None:
        return (x if x.ndim == 1 else reshape(x, -1)), 0
    return x, axis_of(axis, x.ndim, who)


def cumsum(a, axis=None, dtype=None, out=None):
    """Running sum along an axis.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int, optional
        None: of ``a`` laid flat.
    dtype : dtype, optional
    out : Tensor or ndarray, optional

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad as fg
    >>> import fastgrad.numpy as fnp
    >>> fnp.cumsum([1.0, 2.0, 3.0])
    Tensor([1., 3., 6.])
    >>> fg.grad(lambda x: fnp.cumsum(x).sum())(fg.tensor([1.0, 2.0, 3.0]))
    Tensor([3., 2., 1.])
    """
    x, axis = _scanned(a, axis, dtype, "cumsum")
    if x.dtype.kind != "f":
        return result_into(out, call_host(np.cumsum, (x, axis)))
    return result_into(out, _cumsum(x, axis=axis - x.ndim, reverse=False))


def cumprod(a, axis=None, dtype=None, out=None):
    """Running product along an axis, by doubling: derivatives of every order are exact also where elements are 0.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int, optional
        None: of ``a`` laid flat.
    dtype : dtype, optional
    out : Tensor or ndarray, optional

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad as fg
    >>> import fastgrad.numpy as fnp
    >>> fnp.cumprod([2.0, 3.0, 4.0])
    Tensor([ 2.,  6., 24.])
    >>> fg.grad(lambda x: fnp.cumprod(x)[-1])(fg.tensor([2.0, 0.0, 4.0]))
    Tensor([0., 8., 0.])
    """
    x, axis = _scanned(a, axis, dtype, "cumprod")
    if x.dtype.kind != "f":
        return result_into(out, call_host(np.cumprod, (x, axis)))
    if x.shape[axis] < 2:
        return result_into(out, x * 1.0)
    shift = 1
    while shift < x.shape[axis]:        # now each element is the product of the last ``shift`` ones
        product = multiply(_part(x, axis, shift), _part(x, axis, None, -shift))
        x = concatenate([_part(x, axis, None, shift), product], axis)
        shift *= 2
    return result_into(out, x)


def _nan_scan(function, neutral, a, axis, dtype, out):
    x = operand(a, dtype)
    if x.dtype.kind == "f":
        x = choose(isnan(x), neutral, x)
    return function(x, axis, None, out)


def nancumsum(a, axis=None, dtype=None, out=None):
    """Running sum along an axis with 0 for NaN; the gradient of a NaN is 0.

    Parameters
    ----------
    a, axis, dtype, out
        As for ``cumsum``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nancumsum([1.0, fnp.nan, 3.0])
    Tensor([1., 1., 4.])
    """
    return _nan_scan(cumsum, 0.0, a, axis, dtype, out)


def nancumprod(a, axis=None, dtype=None, out=None):
    """Running product along an axis with 1 for NaN; the gradient of a NaN is 0.

    Parameters
    ----------
    a, axis, dtype, out
        As for ``cumprod``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nancumprod([2.0, fnp.nan, 3.0])
    Tensor([2., 2., 6.])
    """
    return _nan_scan(cumprod, 1.0, a, axis, dtype, out)


def _cumulative(function, neutral, x, axis, dtype, out, include_initial, who):
    x = operand(x, dtype)
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"{who}: axis= has to be given for shape {x.shape}; it may be left out where there is one axis")
        axis = 0
    axis = axis_of(axis, x.ndim, who)
    result = function(x, axis)
    if include_initial:
        first = np.full(x.shape[:axis] + (1,) + x.shape[axis + 1:], neutral, result.dtype)
        result = concatenate([first, result], axis)
    return result_into(out, result)


def cumulative_sum(x, /, *, axis=None, dtype=None, out=None, include_initial=False):
    """Running sum along an axis: ``cumsum`` as the array API has it.

    Parameters
    ----------
    x : Tensor or array_like
    axis : int, optional
        May be left out where there is one axis.
    dtype : dtype, optional
    out : Tensor or ndarray, optional
    include_initial : bool
        Whether a 0 comes first.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.cumulative_sum([1.0, 2.0], include_initial=True)
    Tensor([0., 1., 3.])
    """
    return _cumulative(cumsum, 0, x, axis, dtype, out, include_initial, "cumulative_sum")


def cumulative_prod(x, /, *, axis=None, dtype=None, out=None, include_initial=False):
    """Running product along an axis: ``cumprod`` as the array API has it.

    Parameters
    ----------
    x : Tensor or array_like
    axis : int, optional
        May be left out where there is one axis.
    dtype : dtype, optional
    out : Tensor or ndarray, optional
    include_initial : bool
        Whether a 1 comes first.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.cumulative_prod([2.0, 3.0], include_initial=True)
    Tensor([1., 2., 6.])
    """
    return _cumulative(cumprod, 1, x, axis, dtype, out, include_initial, "cumulative_prod")


# ----------------------------------------------------------------------------------------------------------- differences

def diff(a, n=1, axis=-1, prepend=None, append=None):
    """Differences of neighbours along an axis.

    Parameters
    ----------
    a : Tensor or array_like
    n : int
        How often differences are taken.
    axis : int
    prepend, append : Tensor, array_like or number, optional
        What stands before and after ``a`` along the axis.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.diff([1.0, 4.0, 9.0])
    Tensor([3., 5.])
    """
    x = operand(a)
    if n < 0:
        raise ValueError(f"diff: n must not be negative, but is {n}")
    if x.ndim == 0:
        raise ValueError("diff: a has to have at least one axis, and is 0-d")
    axis = axis_of(axis, x.ndim, "diff")
    if n == 0:
        return x
    parts = []
    for part in (prepend, x, append):
        if part is None:
            continue
        part = operand(part, x.dtype if type(part) in (int, float) and x.dtype.kind == "f" else None)
        if part.ndim == 0:
            part = broadcast_to(part, x.shape[:axis] + (1,) + x.shape[axis + 1:])
        if part.ndim != x.ndim or part.shape[:axis] + part.shape[axis + 1:] != x.shape[:axis] + x.shape[axis + 1:]:
            raise ValueError(f"diff: what is put before or after has shape {part.shape}, which differs from that of a, {x.shape}, "
                             f"in more than axis {axis}")
        parts.append(part)
    if len(parts) > 1:
        x = concatenate(parts, axis)
    if x.dtype.kind != "f":
        return call_host(np.diff, (x, n, axis))
    for _ in range(n):
        x = _part(x, axis, 1) - _part(x, axis, None, -1)
    return x


def ediff1d(ary, to_end=None, to_begin=None):
    """Differences of neighbours of the array laid flat, with more before and after them.

    Parameters
    ----------
    ary : Tensor or array_like
    to_end, to_begin : Tensor, array_like or number, optional
        What comes after and before the differences.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.ediff1d([1.0, 4.0, 9.0], to_begin=0.0)
    Tensor([0., 3., 5.])
    """
    x = operand(ary)
    result = diff(x if x.ndim == 1 else reshape(x, -1))
    if to_end is None and to_begin is None:
        return result
    parts = []
    for part in (to_begin, result, to_end):
        if part is None:
            continue
        if part is not result:
            part = operand(part)
            if not np.can_cast(part.dtype, result.dtype, "same_kind"):
                raise TypeError(f"ediff1d: to_begin and to_end of dtype {part.dtype} do not fit differences of dtype {result.dtype}")
            part = reshape(part.astype(result.dtype), -1)
        parts.append(part)
    return concatenate(parts)


def _gradient_along(f, distance, axis, edge_order):
    """np.gradient along one axis; the distance is a number, or those of neighbours."""
    n = f.shape[axis]
    at = lambda k, stop=None: _part(f, axis, k, k + 1 or None)      # noqa: E731
    below, middle, above = _part(f, axis, None, -2), _part(f, axis, 1, -1), _part(f, axis, 2)
    if isinstance(distance, Tensor) and distance.ndim:
        along = (1,) * axis + (-1,) + (1,) * (f.ndim - axis - 1)
        d = reshape(distance, along)
        p, q = _part(d, axis, None, -1), _part(d, axis, 1)
        inner = -q / (p * (p + q)) * below + (q - p) / (p * q) * middle + p / (q * (p + q)) * above
        first, last = _part(d, axis, 0, 1), _part(d, axis, -1)
        if edge_order == 1:
            start, end = (at(1) - at(0)) / first, (at(-1) - at(-2)) / last
        else:
            p, q = first, _part(d, axis, 1, 2)
            start = -(2 * p + q) / (p * (p + q)) * at(0) + (p + q) / (p * q) * at(1) - p / (q * (p + q)) * at(2)
            p, q = _part(d, axis, -2, -1), last
            end = q / (p * (p + q)) * at(-3) - (p + q) / (p * q) * at(-2) + (2 * q + p) / (q * (p + q)) * at(-1)
    else:
        inner = (above - below) / (2.0 * distance)
        if edge_order == 1:
            start, end = (at(1) - at(0)) / distance, (at(-1) - at(-2)) / distance
        else:
            start = (-1.5 * at(0) + 2.0 * at(1) - 0.5 * at(2)) / distance
            end = (0.5 * at(-3) - 2.0 * at(-2) + 1.5 * at(-1)) / distance
    return concatenate([start, inner, end] if n > 2 else [start, end], axis).astype(f.dtype)


def gradient(f, *varargs, axis=None, edge_order=1):
    """Slopes of sampled values, by central differences inside and one-sided ones at the ends.

    Parameters
    ----------
    f : Tensor or array_like
    *varargs : number, Tensor or array_like
        Nothing: the samples have distance 1.  One number: their distance.  For each axis a number, or the coordinates of
        the samples.  Gradients flow to these, too.
    axis : int or tuple of int, optional
        All by default.
    edge_order : {1, 2}
        Of the differences at the ends.

    Returns
    -------
    Tensor, or a tuple of one for each axis

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.gradient([0.0, 1.0, 4.0, 9.0])
    Tensor([1., 2., 4., 5.])
    """
    f = floating(f)
    axes = axes_of(axis, f.ndim, "gradient")
    if edge_order not in (1, 2):
        raise ValueError(f"gradient: edge_order must be 1 or 2, not {edge_order}")
    distances = []
    for k, d in enumerate(axes):
        if f.shape[d] < edge_order + 1:
            raise ValueError(f"gradient: axis {d} of shape {f.shape} is too short; edge_order={edge_order} needs "
                             f"{edge_order + 1} elements")
        if not varargs:
            distances.append(1.0)
            continue
        if len(varargs) not in (1, len(axes)):
            raise TypeError(f"gradient: there are {len(axes)} axes and {len(varargs)} distances; give one number, or one for each "
                            "axis")
        h = varargs[k if len(varargs) > 1 else 0]
        if type(h) not in (int, float):
            h = operand(h)
            if h.dtype.kind != "f":
                h = h.astype(np.float64)
        if isinstance(h, Tensor) and h.ndim:
            if len(varargs) < len(axes):
                raise TypeError(f"gradient: there are {len(axes)} axes and 1 array of coordinates; give one for each axis")
            if h.shape != (f.shape[d],):
                raise ValueError(f"gradient: coordinates of shape {h.shape} do not fit axis {d} of f, whose shape is {f.shape}")
            h = h[1:] - h[:-1]
        distances.append(h)
    results = tuple(_gradient_along(f, h, d, edge_order) for h, d in zip(distances, axes))
    return results[0] if len(results) == 1 else results


def trapezoid(y, x=None, dx=1.0, axis=-1):
    """Integral along an axis by the trapezoidal rule.

    Parameters
    ----------
    y : Tensor or array_like
    x : Tensor or array_like, optional
        Where the samples are; gradients flow to it, too.
    dx : number or Tensor
        Their distance, without ``x``.
    axis : int

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.trapezoid([1.0, 2.0, 3.0])
    Tensor(4.0)
    """
    y = floating(y)
    axis = axis_of(axis, y.ndim, "trapezoid")
    if x is None:
        distance = dx
    else:
        x = operand(x)
        if x.ndim == 1:
            if x.shape[0] != y.shape[axis]:
                raise ValueError(f"trapezoid: x of shape {x.shape} does not fit axis {axis} of y, whose shape is {y.shape}")
            distance = reshape(x[1:] - x[:-1], (-1,) + (1,) * (y.ndim - axis - 1))
        else:
            distance = diff(x, axis=axis)
    return sum(distance * (_part(y, axis, 1) + _part(y, axis, None, -1)) / 2.0, axis)
