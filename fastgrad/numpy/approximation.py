"""Interpolation, convolution and polynomials."""

import numpy as np

from fastgrad._core.engine import Rule, call_host, less, mod, reshape, where
from fastgrad.numpy.joining import concatenate, stack
from fastgrad.numpy.products import _no_float, _operand

__all__ = ["interp", "convolve", "correlate", "polyval", "vander"]


def _floats(*operands):
    tensors = [_operand(a) for a in operands]
    common = np.result_type(*[t.dtype for t in tensors])
    common = common if common.kind == "f" else np.dtype(np.float64)
    return [t if t.dtype == common else t.astype(common) for t in tensors]


def _segment(x, xp):
    """The segment of xp in which each x lies, the last one for what is beyond."""
    return np.asarray(np.clip(np.searchsorted(xp, x, "right") - 1, 0, len(xp) - 2))


def interp(x, xp, fp, left=None, right=None, period=None):
    """Piecewise linear interpolation, with gradients by x, by the values fp and by the places xp.

    At one of the places the derivative by x is that of the segment to its right; beyond the first and the last place it is 0.

    Parameters
    ----------
    x : Tensor or array_like
    xp, fp : Tensor or array_like
        Of one axis: places, ascending unless there is a period, and the values there.
    left, right : number or Tensor, optional
        What is taken beyond the first and the last place; fp[0] and fp[-1] unless told.
    period : float, optional
        Of x and xp.

    Returns
    -------
    Tensor
        Of the shape of x.

    Raises
    ------
    ValueError
        If xp and fp are no vectors of one length.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.interp([0.5, 3.0], [0.0, 1.0, 2.0], [0.0, 10.0, 30.0])
    Tensor([ 5., 30.])
    """
    t, places, values = _floats(x, xp, fp)
    if places.ndim != 1 or places.shape != values.shape or not places.size:
        raise ValueError(f"interp: xp of shape {places.shape} and fp of shape {values.shape}: two vectors of one length are due")
    if period is not None:
        if period == 0:
            raise ValueError("interp: period must be a non-zero value")
        period = abs(period)
        t, places, left, right = mod(t, period), mod(places, period), None, None
        order = call_host(np.argsort, (places.detach(),))
        places, values = places[order], values[order]
        places = concatenate([places[-1:] - period, places, places[:1] + period])
        values = concatenate([values[-1:], values, values[:1]])
    left = values[0] if left is None else left
    right = values[-1] if right is None else right
    if places.shape[0] == 1:
        inside = values[0] + t * 0.0
    else:
        k = call_host(_segment, (t.detach(), places.detach()))
        start, low = places[k], values[k]
        inside = low + (values[k + 1] - low) / (places[k + 1] - start) * (t - start)
    inside = where(less(places[-1], t), right, where(less(t, places[0]), left, inside))
    return inside.astype(t.dtype) if inside.dtype != t.dtype else inside


def _convolve_vjp(g, out, a, v):
    # g is long: each operand's share is where the other one lies wholly inside of it
    return (_convolve(g, v[::-1])[v.shape[0] - 1 : g.shape[0]], _convolve(g, a[::-1])[a.shape[0] - 1 : g.shape[0]])


def _convolve_jvp(tangents, out, a, v):
    ta, tv = tangents
    parts = [_convolve(*pair) for pair in ((ta, v), (a, tv)) if pair[0] is not None and pair[1] is not None]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


_convolve = Rule("convolve", lambda a, v: np.convolve(a, v), _convolve_vjp, _convolve_jvp, saves="operands")


def _vectors(name, a, v, mode):
    x, y = _operand(a), _operand(v)
    x, y = (reshape(t, (1,)) if t.ndim == 0 else t for t in (x, y))
    if x.ndim != 1 or y.ndim != 1 or not x.size or not y.size:
        raise ValueError(f"{name}: shapes {x.shape} and {y.shape}: two vectors that are not empty are due")
    if mode not in ("full", "same", "valid"):
        raise ValueError(f"{name}: mode {mode!r} is none of 'full', 'same' and 'valid'")
    return (x, y) if _no_float(x, y) else _floats(x, y)


def _part(full, mode, n, m):
    """Of the full convolution of n and m <= n elements what a mode keeps."""
    if mode == "full":
        return full
    start = m - 1 if mode == "valid" else m - 1 - m // 2
    return full[start : start + (n - m + 1 if mode == "valid" else n)]


def convolve(a, v, mode="full"):
    """The convolution of two vectors: the coefficients of the product of two polynomials.

    Parameters
    ----------
    a, v : Tensor or array_like
    mode : {"full", "same", "valid"}
        All sums, as many as the longer vector has elements, or only where both overlap completely.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.convolve([1.0, 2.0], [1.0, 3.0])
    Tensor([1., 5., 6.])
    """
    x, y = _vectors("convolve", a, v, mode)
    if _no_float(x, y):
        return call_host(np.convolve, (x, y, mode))
    if x.shape[0] < y.shape[0]:
        x, y = y, x
    return _part(_convolve(x, y), mode, x.shape[0], y.shape[0])


def correlate(a, v, mode="valid"):
    """The correlation of two vectors: sums of a[k + i] * v[i].

    Parameters
    ----------
    a, v : Tensor or array_like
    mode : {"valid", "same", "full"}
        Only where both overlap completely, as many as the longer vector has elements, or all.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.correlate([1.0, 2.0, 3.0], [0.0, 1.0])
    Tensor([2., 3.])
    """
    x, y = _vectors("correlate", a, v, mode)
    if _no_float(x, y):
        return call_host(np.correlate, (x, y, mode))
    if x.shape[0] < y.shape[0]:
        return _part(_convolve(y, x[::-1]), mode, y.shape[0], x.shape[0])[::-1]
    return _part(_convolve(x, y[::-1]), mode, x.shape[0], y.shape[0])


def polyval(p, x):
    """The polynomial p[0] * x**(n-1) + ... + p[n-1], by Horner's rule.

    Parameters
    ----------
    p : Tensor or array_like
        Coefficients, the highest power first.
    x : Tensor or array_like

    Returns
    -------
    Tensor
        Of the shape of x.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.polyval([1.0, 0.0, -1.0], 3.0)
    Tensor(8.0)
    """
    coefficients, t = _operand(p), _operand(x)
    if coefficients.ndim == 0:
        coefficients = reshape(coefficients, (1,))
    if coefficients.ndim != 1:
        raise ValueError(f"polyval: coefficients of shape {coefficients.shape}: a vector is due")
    result = t * 0
    for k in range(coefficients.shape[0]):
        result = result * t + coefficients[k]
    return result


def vander(x, N=None, increasing=False):
    """The powers of each element, a row for each.

    Parameters
    ----------
    x : Tensor or array_like
        Of one axis.
    N : int, optional
        How many powers; as many as there are elements unless told.
    increasing : bool
        Whether the powers ascend.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.vander([2.0, 3.0], 3)
    Tensor([[4., 2., 1.],
            [9., 3., 1.]])
    """
    t = _operand(x)
    if t.ndim != 1:
        raise ValueError(f"vander: shape {t.shape}: a vector is due")
    N = t.shape[0] if N is None else N
    if N == 0:
        return reshape(t[:0], (0, 0)) if not t.size else stack([t], -1)[:, :0]
    columns = [t * 0 + 1]
    for _ in range(1, N):
        columns.append(columns[-1] * t)
    return stack(columns if increasing else columns[::-1], -1)
