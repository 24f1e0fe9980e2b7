"""Variance, averages, order statistics, reductions that leave NaN out, and questions about elements."""

import numpy as np

from fastgrad._core.engine import (
    Tensor, broadcast_to, equal, greater, is_recorded, is_tracked, isnan, logical_not, logical_or, max, maximum, mean,
    min, reshape, sqrt, square, sum, tensor, tracing, transpose,
)
from fastgrad.numpy.arguments import axes_of, floating, host, operand, pick, result_into, rows_of
from fastgrad.numpy.reductions import prod
from fastgrad.numpy.rounding import where as choose

__all__ = ["var", "std", "average", "ptp", "median", "percentile", "quantile", "nansum", "nanprod", "nanmean", "nanmax", "nanmin",
           "nanvar", "nanstd", "any", "all", "argmax", "argmin", "nanargmax", "nanargmin", "count_nonzero"]


# ------------------------------------------------------------------------------------------------------------- variance

def _variance(x, axis, keepdims, ddof, used, center, who, empty=None):
    """The mean of squared distances, the mean, and the divisor; ``used`` says which elements count, None: all of them."""
    axes = axes_of(axis, x.ndim, who)
    if used is None:
        count = int(np.prod([x.shape[d] for d in axes]))
        divisor = count - ddof if count > ddof else 0
        center = mean(x, axis, True) if center is None else center
        distance = x - center
    else:
        count = sum(used.astype(x.dtype), axis, True)
        divisor = maximum(count - ddof, 0.0)
        if empty is not None:
            divisor = choose(greater(divisor, 0.0), divisor, empty)
        if center is None:
            center = sum(choose(used, x, 0.0), axis, True) / count
        distance = choose(used, x - center, 0.0)
    total = sum(square(distance), axis, keepdims)
    if isinstance(divisor, Tensor) and not keepdims:
        divisor = reshape(divisor, total.shape)
    return total / divisor, center, divisor


def _mask(where, x, who):
    """``where=`` in the shape of x; None where all elements count."""
    if where is True:
        return None
    where = operand(where)
    if where.dtype != bool:
        raise TypeError(f"{who}: where= has to be bool, not {where.dtype}")
    try:
        return broadcast_to(where, x.shape)
    except ValueError:
        raise ValueError(f"{who}: where= of shape {where.shape} cannot be broadcast to the shape of a, {x.shape}") from None


def _deviation(x, axis, keepdims, ddof, used, center, who, empty=None):
    """The root of the variance, whose gradient is 0 where there is no spread."""
    variance, found, divisor = _variance(x, axis, keepdims, ddof, used, center, who, empty)
    flat, nothing = equal(variance, 0.0), 0.0
    if center is None and x.size and _may_be_flat(x.size, variance, found):
        # Equal elements differ from their mean by its rounding error, and the root would make much of that.
        high = low = x.detach()
        if used is not None:
            high, low = choose(used, high, -np.inf), choose(used, low, np.inf)
        spread = max(high, axis, keepdims) - min(low, axis, keepdims)
        flat = logical_or(flat, equal(spread, 0.0))
        nothing = spread * 0.0 / divisor        # NaN where ddof leaves nothing to divide by
    return choose(flat, nothing, sqrt(variance))


def _may_be_flat(size, variance, center):
    """Whether some spread is so small that elements may be equal: a glance that spares large arrays a closer look."""
    if size < 1000 or tracing():
        return True
    variance, center = variance.detach().numpy(), center.detach().numpy().reshape(variance.shape)
    with np.errstate(over="ignore"):
        return bool(np.any(variance <= np.finfo(variance.dtype).eps * np.square(center)))


def _freedom(ddof, correction, who):
    if correction is None:
        return ddof
    if ddof != 0:
        raise ValueError(f"{who}: ddof and correction are the same thing; give one of them")
    return correction


def var(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None, correction=None):
    """Variance over axes: the mean of squared distances from the mean.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
        All by default.
    dtype : dtype, optional
    out : Tensor or ndarray, optional
    ddof : int or float
        The divisor is the number of elements less this; as NumPy's, the result is not finite where that leaves nothing.
    keepdims : bool
    where : Tensor or array_like of bool
        Which elements count.
    mean : Tensor or array_like, optional
        The mean if it is known, with the axes kept; gradients flow to it.
    correction : int or float, optional
        Another name of ``ddof``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad as fg
    >>> import fastgrad.numpy as fnp
    >>> fnp.var([1.0, 2.0, 6.0], ddof=1)
    Tensor(7.0)
    >>> fg.grad(fnp.var)(fg.tensor([1.0, 3.0]))
    Tensor([-1.,  1.])
    """
    x = floating(a, dtype)
    result = _variance(x, axis, bool(keepdims), _freedom(ddof, correction, "var"), _mask(where, x, "var"), mean, "var")[0]
    return result_into(out, result)


def std(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None, correction=None):
    """Standard deviation over axes; where all elements are equal it is 0, and so is its gradient.

    Parameters
    ----------
    a, axis, dtype, out, ddof, keepdims, where, mean, correction
        As for ``var``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad as fg
    >>> import fastgrad.numpy as fnp
    >>> fnp.std([1.0, 3.0])
    Tensor(1.0)
    >>> fg.grad(fnp.std)(fg.tensor([0.1, 0.1, 0.1]))
    Tensor([0., 0., 0.])
    """
    x = floating(a, dtype)
    result = _deviation(x, axis, bool(keepdims), _freedom(ddof, correction, "std"), _mask(where, x, "std"), mean, "std")
    return result_into(out, result)


def average(a, axis=None, weights=None, returned=False, *, keepdims=False):
    """Weighted mean over axes; gradients flow to the elements and to the weights.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
    weights : Tensor or array_like, optional
        Of the shape of ``a``, or of its axes ``axis``; all 1 by default.
    returned : bool
        Whether the sum of the weights is returned too.
    keepdims : bool

    Returns
    -------
    Tensor, or tuple of two

    Raises
    ------
    ZeroDivisionError
        If the weights sum to 0; under fg.compile and fg.vmap the result is not finite instead.
    TypeError, ValueError
        If the shape of the weights does not fit.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.average([1.0, 5.0], weights=[3.0, 1.0])
    Tensor(2.0)
    """
    x, keepdims = floating(a), bool(keepdims)
    axes = axes_of(axis, x.ndim, "average")
    if weights is None:
        result = mean(x, axis, keepdims)
        total = float(np.prod([x.shape[d] for d in axes]))
        return (result, tensor(np.full(result.shape, total, result.dtype))) if returned else result
    w = operand(weights)
    if w.shape != x.shape:
        if axis is None:
            raise TypeError(f"average: a has shape {x.shape} and the weights {w.shape}; where these differ, say by axis= which "
                            "axes of a the weights belong to")
        if w.shape != tuple(x.shape[d] for d in axes):
            raise ValueError(f"average: weights of shape {w.shape} do not fit axes {axes} of a, whose shape is {x.shape}")
        if len(axes) > 1:
            w = transpose(w, tuple(int(k) for k in np.argsort(axes)))
        w = broadcast_to(reshape(w, tuple(n if d in axes else 1 for d, n in enumerate(x.shape))), x.shape)
    if w.dtype.kind != "f":
        w = w.astype(np.float64)
    total = sum(w, axis, keepdims)
    if not tracing() and np.any(total.detach().numpy() == 0):
        raise ZeroDivisionError("average: the weights sum to 0 and cannot be normalized")
    result = sum(x * w, axis, keepdims) / total
    return (result, total.astype(result.dtype)) if returned else result


def ptp(a, axis=None, out=None, keepdims=False):
    """Largest less smallest over axes; ties share the gradient evenly.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
    out : Tensor or ndarray, optional
    keepdims : bool

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.ptp([1.0, 4.0, 2.0])
    Tensor(3.0)
    """
    x, keepdims = operand(a), bool(keepdims)
    if x.dtype.kind != "f":
        return result_into(out, host(np.ptp, (x, axis), {"keepdims": keepdims}))
    return result_into(out, max(x, axis, keepdims=keepdims) - min(x, axis, keepdims=keepdims))


# ----------------------------------------------------------------------------------------------------- order statistics

def order_statistics(rows, kth):
    """Where the elements stand that would be at kth if each row were sorted; in a row with NaN, where that is."""
    places = np.argpartition(rows, sorted(set(kth)), axis=-1)[..., kth]
    missing = np.isnan(rows)
    return np.where(missing.any(-1, keepdims=True), missing.argmax(-1)[..., None], places)


_METHODS = ("linear", "lower", "higher", "nearest", "midpoint")


def _quantile(x, q, axis, keepdims, method, who):
    """Quantiles q, an array of numbers from 0 to 1."""
    if method not in _METHODS:
        raise ValueError(f"{who}: method {method!r} is not supported; there are {', '.join(_METHODS)}")
    if x.dtype.kind != "f":
        if method in ("lower", "higher", "nearest"):        # they stay integers
            return host(np.quantile, (x, q, axis), {"method": method, "keepdims": keepdims})
        x = x.astype(np.float64)
    rows, rest, kept = rows_of(x, axes_of(axis, x.ndim, who))
    shape = q.shape + (kept if keepdims else rest)
    n = rows.shape[-1]
    if n == 0:
        lost = reshape(sum(rows, -1), (1,) * q.ndim + (kept if keepdims else rest)) * np.nan
        return broadcast_to(lost, shape)
    position = np.ravel(q) * (n - 1)
    if method != "linear" and method != "midpoint":
        position = {"lower": np.floor, "higher": np.ceil, "nearest": np.rint}[method](position)
    low = np.floor(position).astype(int)
    part = position - low
    if method == "midpoint":
        part = np.where(part > 0, 0.5, 0.0)
    high = np.where(part > 0, low + 1, low)
    several = bool(np.any(part > 0))
    found = pick(rows, host(order_statistics, (rows,), {"kth": [*low.tolist(), *high.tolist()] if several else low.tolist()}))
    m = len(low)
    if several and m == 1 and part[0] == 0.5:
        found = mean(found, -1)
    elif several:
        below, above, part = found[..., :m], found[..., m:], part.astype(x.dtype)
        found = below * (1 - part) + above * part
        if np.any(part == 0):           # infinity times 0 is no number
            found = choose(part == 0, below, found)
    if rows.ndim == 2 and m != 1:
        found = transpose(found)
    return found if found.shape == shape else reshape(found, shape)


def _levels(q, largest, who):
    """The quantiles that are asked for, from 0 to 1."""
    if isinstance(q, Tensor):
        if is_tracked(q) or is_recorded(q):
            raise TypeError(f"{who}: q is differentiated, batched or an argument of a compiled function, and can be none of these; "
                            "it has to be numbers")
        q = q.numpy()
    q = np.asarray(q, float)
    if not np.all((0 <= q) & (q <= largest)):
        raise ValueError(f"{who}: q must be from 0 to {largest}, not {q}")
    return q / largest


def median(a, axis=None, out=None, overwrite_input=False, keepdims=False):
    """Median over axes; the gradient goes to the middle element, or half to each of the two.

    Parameters
    ----------
    a : Tensor or array_like
        NaN where there is NaN.
    axis : int or tuple of int, optional
    out : Tensor or ndarray, optional
    overwrite_input : bool
        Accepted as NumPy has it; nothing is overwritten.
    keepdims : bool

    Returns
    -------
    Tensor

    Notes
    -----
    Of equal elements, one is taken for the middle one.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import fastgrad.numpy as fnp
    >>> fnp.median([3.0, 1.0, 2.0])
    Tensor(2.0)
    >>> fg.grad(fnp.median)(fg.tensor([3.0, 1.0, 2.0, 9.0]))
    Tensor([0.5, 0. , 0.5, 0. ])
    """
    return result_into(out, _quantile(operand(a), np.array(0.5), axis, bool(keepdims), "linear", "median"))


def quantile(a, q, axis=None, out=None, overwrite_input=False, method="linear", keepdims=False):
    """Quantiles over axes; the gradient goes to the two elements between which each lies.

    Parameters
    ----------
    a : Tensor or array_like
        NaN where there is NaN.
    q : float or array_like of float
        From 0 to 1; no gradient.
    axis : int or tuple of int, optional
    out : Tensor or ndarray, optional
    overwrite_input : bool
        Accepted as NumPy has it; nothing is overwritten.
    method : {"linear", "lower", "higher", "nearest", "midpoint"}
        What is taken between two elements.
    keepdims : bool

    Returns
    -------
    Tensor
        Its first axes are those of ``q``.

    Notes
    -----
    Of equal elements, one is taken.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import fastgrad.numpy as fnp
    >>> fnp.quantile([1.0, 2.0, 5.0], [0.0, 0.75])
    Tensor([1. , 3.5])
    >>> fg.grad(lambda x: fnp.quantile(x, 0.25))(fg.tensor([7.0, 2.0, 5.0, 3.0]))
    Tensor([0.  , 0.25, 0.  , 0.75])
    """
    return result_into(out, _quantile(operand(a), _levels(q, 1, "quantile"), axis, bool(keepdims), method, "quantile"))


def percentile(a, q, axis=None, out=None, overwrite_input=False, method="linear", keepdims=False):
    """Percentiles over axes: ``quantile`` with q from 0 to 100.

    Parameters
    ----------
    a, axis, out, overwrite_input, method, keepdims
        As for ``quantile``.
    q : float or array_like of float
        From 0 to 100; no gradient.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.percentile([1.0, 2.0, 5.0], 75)
    Tensor(3.5)
    """
    return result_into(out, _quantile(operand(a), _levels(q, 100, "percentile"), axis, bool(keepdims), method, "percentile"))


# ---------------------------------------------------------------------------------------------------------- without NaN

def _left_out(x, where, who):
    """Which elements do not count."""
    used = _mask(where, x, who)
    return isnan(x) if used is None else logical_or(isnan(x), logical_not(used))


def nansum(a, axis=None, dtype=None, out=None, keepdims=False, *, where=True):
    """Sum over axes with 0 for NaN; the gradient of a NaN is 0.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
    dtype : dtype, optional
    out : Tensor or ndarray, optional
    keepdims : bool
    where : Tensor or array_like of bool
        Which elements count.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nansum([1.0, fnp.nan, 2.0])
    Tensor(3.0)
    """
    x = operand(a, dtype)
    if x.dtype.kind == "f" or where is not True:
        x = choose(_left_out(x, where, "nansum"), 0.0 if x.dtype.kind == "f" else np.zeros((), x.dtype), x)
    return result_into(out, sum(x, axis, bool(keepdims)))


def nanprod(a, axis=None, dtype=None, out=None, keepdims=False, *, where=True):
    """Product over axes with 1 for NaN; the gradient of a NaN is 0.

    Parameters
    ----------
    a, axis, dtype, out, keepdims, where
        As for ``nansum``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nanprod([3.0, fnp.nan, 2.0])
    Tensor(6.0)
    """
    x = operand(a, dtype)
    if x.dtype.kind == "f" or where is not True:
        x = choose(_left_out(x, where, "nanprod"), 1.0 if x.dtype.kind == "f" else np.ones((), x.dtype), x)
    return result_into(out, prod(x, axis, bool(keepdims)))


def nanmean(a, axis=None, dtype=None, out=None, keepdims=False, *, where=True):
    """Mean over axes of the elements that are not NaN; NaN where there is none.

    Parameters
    ----------
    a, axis, dtype, out, keepdims, where
        As for ``nansum``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nanmean([1.0, fnp.nan, 2.0])
    Tensor(1.5)
    """
    x, keepdims = floating(a, dtype), bool(keepdims)
    left_out = _left_out(x, where, "nanmean")
    count = sum(logical_not(left_out).astype(x.dtype), axis, keepdims)
    return result_into(out, sum(choose(left_out, 0.0, x), axis, keepdims) / count)


def _nan_extreme(function, bound, a, axis, out, keepdims, where):
    x, keepdims = operand(a), bool(keepdims)
    if x.dtype.kind != "f":
        if where is not True:
            x = x.astype(np.float64)
        else:
            return result_into(out, function(x, axis, keepdims))
    left_out = _left_out(x, where, "nan" + function.__name__)
    result = function(choose(left_out, bound, x), axis, keepdims)
    return result_into(out, choose(all(left_out, axis, keepdims=keepdims), np.nan, result))


def nanmax(a, axis=None, out=None, keepdims=False, *, where=True):
    """Largest over axes of the elements that are not NaN; NaN where there is none.  Ties share the gradient evenly.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
    out : Tensor or ndarray, optional
    keepdims : bool
    where : Tensor or array_like of bool
        Which elements count.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nanmax([1.0, fnp.nan, 2.0])
    Tensor(2.0)
    """
    return _nan_extreme(max, -np.inf, a, axis, out, keepdims, where)


def nanmin(a, axis=None, out=None, keepdims=False, *, where=True):
    """Smallest over axes of the elements that are not NaN; NaN where there is none.  Ties share the gradient evenly.

    Parameters
    ----------
    a, axis, out, keepdims, where
        As for ``nanmax``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nanmin([1.0, fnp.nan, 2.0])
    Tensor(1.0)
    """
    return _nan_extreme(min, np.inf, a, axis, out, keepdims, where)


def nanvar(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None, correction=None):
    """Variance over axes of the elements that are not NaN; NaN where ``ddof`` leaves nothing to divide by.

    Parameters
    ----------
    a, axis, dtype, out, ddof, keepdims, where, mean, correction
        As for ``var``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nanvar([1.0, fnp.nan, 3.0])
    Tensor(1.0)
    """
    x = floating(a, dtype)
    used = logical_not(_left_out(x, where, "nanvar"))
    result, _, _ = _variance(x, axis, bool(keepdims), _freedom(ddof, correction, "nanvar"), used, mean, "nanvar", np.nan)
    return result_into(out, result)


def nanstd(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None, correction=None):
    """Standard deviation over axes of the elements that are not NaN; 0 with gradient 0 where these are equal.

    Parameters
    ----------
    a, axis, dtype, out, ddof, keepdims, where, mean, correction
        As for ``var``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nanstd([1.0, fnp.nan, 3.0])
    Tensor(1.0)
    """
    x = floating(a, dtype)
    used = logical_not(_left_out(x, where, "nanstd"))
    return result_into(out, _deviation(x, axis, bool(keepdims), _freedom(ddof, correction, "nanstd"), used, mean, "nanstd", np.nan))


# ------------------------------------------------------------------------------------------- questions, without gradient

def _truth(function, a, axis, out, keepdims, where):
    x = operand(a)
    if where is True:
        return result_into(out, getattr(x, function.__name__)(axis, bool(keepdims)))
    return result_into(out, host(function, (x, axis, None, bool(keepdims)), {"where": where}))


def any(a, axis=None, out=None, keepdims=False, *, where=True):
    """Whether any element over axes differs from 0; no gradient.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
    out : Tensor or ndarray, optional
    keepdims : bool
    where : Tensor or array_like of bool
        Which elements count.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.any([0.0, 2.0])
    Tensor(True)
    """
    return _truth(np.any, a, axis, out, keepdims, where)


def all(a, axis=None, out=None, keepdims=False, *, where=True):
    """Whether all elements over axes differ from 0; no gradient.

    Parameters
    ----------
    a, axis, out, keepdims, where
        As for ``any``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.all([0.0, 2.0])
    Tensor(False)
    """
    return _truth(np.all, a, axis, out, keepdims, where)


def _place(function, a, axis, out, keepdims):
    return result_into(out, host(function, (operand(a), axis), {"keepdims": bool(keepdims)}))


def argmax(a, axis=None, out=None, *, keepdims=False):
    """Where the largest element is, the first of equal ones; no gradient.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int, optional
        None: the place in ``a`` laid flat.
    out : Tensor or ndarray, optional
    keepdims : bool

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.argmax([1.0, 3.0, 2.0])
    Tensor(1, dtype=int64)
    """
    return _place(np.argmax, a, axis, out, keepdims)


def argmin(a, axis=None, out=None, *, keepdims=False):
    """Where the smallest element is, the first of equal ones; no gradient.

    Parameters
    ----------
    a, axis, out, keepdims
        As for ``argmax``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.argmin([1.0, 3.0, 2.0])
    Tensor(0, dtype=int64)
    """
    return _place(np.argmin, a, axis, out, keepdims)


def nanargmax(a, axis=None, out=None, *, keepdims=False):
    """Where the largest element that is not NaN is; no gradient.

    Parameters
    ----------
    a, axis, out, keepdims
        As for ``argmax``.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If a row is all NaN.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nanargmax([fnp.nan, 3.0, 2.0])
    Tensor(1, dtype=int64)
    """
    return _place(np.nanargmax, a, axis, out, keepdims)


def nanargmin(a, axis=None, out=None, *, keepdims=False):
    """Where the smallest element that is not NaN is; no gradient.

    Parameters
    ----------
    a, axis, out, keepdims
        As for ``argmax``.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If a row is all NaN.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.nanargmin([fnp.nan, 3.0, 2.0])
    Tensor(2, dtype=int64)
    """
    return _place(np.nanargmin, a, axis, out, keepdims)


def count_nonzero(a, axis=None, *, keepdims=False):
    """How many elements over axes differ from 0; no gradient.

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
    >>> fnp.count_nonzero([0.0, 3.0, 2.0])
    Tensor(2, dtype=int64)
    """
    result = host(np.count_nonzero, (operand(a), axis), {"keepdims": bool(keepdims)})
    return result if isinstance(result, Tensor) else tensor(result)
