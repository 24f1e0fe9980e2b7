"""Special functions, under the names of scipy.special: of Tensors and arrays, with derivatives of every order.

``erf``, ``gammaln``, ``digamma``, ``polygamma`` and the softmax family are the engine's own; ``expit``, ``logit``, ``xlogy``, ``ndtr`` and
their like are made of those.  The values of ``gamma``, ``beta``, ``erfinv``, Bessel functions and some others are SciPy's, which must
then be installed; nothing else in fastgrad needs it.  Derivatives are those of the NIST Digital Library of Mathematical
Functions (https://dlmf.nist.gov), by chapter: 5.9 and 5.12 (gamma, beta), 7.10 (error functions), 10.29 (Bessel functions).
"""

import numpy as np

from fastgrad import numpy as fnp
from fastgrad._core import engine
from fastgrad._core.engine import (
    Batched, Rule, arctanh, digamma, erf, erfc, exp, gammaln, guarded_multiply, isfinite, isnan, log, log1p, multiply,
    negative, polygamma, reshape, sigmoid, sign, sqrt, where,
)

__all__ = ["beta", "betaln", "digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "expit", "gamma", "gammaln", "i0", "i0e", "i1", "i1e",
           "log_expit", "log_ndtr", "log_softmax", "logit", "logsumexp", "ndtr", "ndtri", "polygamma", "psi", "softmax", "xlog1py", "xlogy"]

psi = digamma
_SQRT_HALF = float(np.sqrt(0.5))


def _operand(x):
    t = fnp.asarray(x)
    return t if t.dtype.kind == "f" else t.astype(np.float64)


def _scipy(name, *operands):
    try:
        import scipy.special
    except ImportError:
        raise ImportError(f"fastgrad.special.{name} needs SciPy, whose values it takes: install scipy") from None
    with np.errstate(all="ignore"):
        return np.asarray(getattr(scipy.special, name)(*operands))


def _elementwise(name, partials, value=None):
    """A rule whose value is SciPy's, with its derivatives by each operand as functions of out and the operands."""
    value = value or (lambda *arrays: _scipy(name, *arrays))

    def vjp(g, out, *operands, **parameters):
        return tuple(guarded_multiply(g, partial(out, *operands, **parameters)) for partial in partials)

    def jvp(tangents, out, *operands, **parameters):
        total = None
        for t, partial in zip(tangents, partials):
            if t is not None:
                part = guarded_multiply(t, partial(out, *operands, **parameters))
                total = part if total is None else total + part
        return total

    def batch(size, *operands, **parameters):
        rank = max(t.tensor.ndim - 1 if isinstance(t, Batched) else t.ndim for t in operands)
        return rule(*[reshape(t.tensor, (size,) + (1,) * (rank + 1 - t.tensor.ndim) + t.tensor.shape[1:]) if isinstance(t, Batched) else t
                      for t in operands], **parameters)

    rule = Rule(name, value, vjp, jvp, saves="operands out", batch=batch)
    return rule


def _together(*operands):
    """Operands in one dtype; Python numbers take that of the others."""
    tensors = [_operand(x) for x in operands]
    strong = [t.dtype for t, x in zip(tensors, operands) if not isinstance(x, (int, float))] or [np.dtype(np.float64)]
    common = np.result_type(*strong)
    return [t if t.dtype == common else t.astype(common) for t in tensors]


_gamma = _elementwise("gamma", [lambda out, x: out * digamma(x)])
_beta = _elementwise("beta", [lambda out, a, b: out * (digamma(a) - digamma(a + b)), lambda out, a, b: out * (digamma(b) - digamma(a + b))])
_betaln = _elementwise("betaln", [lambda out, a, b: digamma(a) - digamma(a + b), lambda out, a, b: digamma(b) - digamma(a + b)])
_erfinv = _elementwise("erfinv", [lambda out, x: exp(out * out) * float(np.sqrt(np.pi) / 2)])
_ndtri = _elementwise("ndtri", [lambda out, x: exp(out * out * 0.5) * float(np.sqrt(2 * np.pi))])
_erfcx = _elementwise("erfcx", [lambda out, x: 2.0 * x * out - float(2 / np.sqrt(np.pi))])
_log_ndtr = _elementwise("log_ndtr", [lambda out, x: float(np.sqrt(2 / np.pi)) / _erfcx(x * -_SQRT_HALF)])


def _bessel(x, order):
    if order == 0:
        return _scipy("i0", x)
    return _scipy("i1", x) if order == 1 else _scipy("iv", order, x).astype(x.dtype, copy=False)


def _scaled_bessel(x, order):
    if order == 0:
        return _scipy("i0e", x)
    return _scipy("i1e", x) if order == 1 else _scipy("ive", order, x).astype(x.dtype, copy=False)


# I(-1) is I(1); no division, so that 0 is an ordinary place.
_iv = _elementwise("iv", [lambda out, x, order: (_iv(x, order=abs(order - 1)) + _iv(x, order=order + 1)) * 0.5], _bessel)
_ive = _elementwise("ive", [lambda out, x, order: (_ive(x, order=abs(order - 1)) + _ive(x, order=order + 1)) * 0.5 - sign(x) * out],
                    _scaled_bessel)


def _documented(name, says, notes, rule, arity=1):
    names = ("a", "b")[:arity] if arity > 1 else ("x",)
    if arity == 1:
        def function(x):
            return rule(_operand(x))
    else:
        def function(a, b):
            x, y = _together(a, b)
            try:
                np.broadcast_shapes(x.shape, y.shape)
            except ValueError:
                raise ValueError(f"{name}: shapes {x.shape} and {y.shape} do not broadcast together") from None
            return rule(x, y)
    function.__name__ = function.__qualname__ = name
    function.__module__ = __name__
    function.__doc__ = f"""{says}

    Parameters
    ----------
    {', '.join(names)} : Tensor or array_like

    Returns
    -------
    Tensor

    Raises
    ------
    ImportError
        If SciPy, which computes the value, is not installed.

    Notes
    -----
    {notes}
    """
    return function


gamma = _documented("gamma", "The gamma function.", "d/dx = ``gamma(x) * digamma(x)``", _gamma)
beta = _documented("beta", "The beta function, gamma(a) gamma(b) / gamma(a + b).", "d/da = ``beta(a, b) * (digamma(a) - digamma(a + b))``",
                   _beta, 2)
betaln = _documented("betaln", "The logarithm of |beta(a, b)|.", "d/da = ``digamma(a) - digamma(a + b)``", _betaln, 2)
erfinv = _documented("erfinv", "The inverse of erf.", "d/dx = ``sqrt(pi) / 2 * exp(erfinv(x)**2)``", _erfinv)
erfcx = _documented("erfcx", "The scaled complement exp(x**2) * erfc(x).", "d/dx = ``2 * x * erfcx(x) - 2 / sqrt(pi)``", _erfcx)
ndtri = _documented("ndtri", "The quantiles of the normal distribution: the inverse of ndtr.", "d/dx = ``sqrt(2 * pi) * exp(ndtri(x)**2 / 2)``", _ndtri)
log_ndtr = _documented("log_ndtr", "The logarithm of ndtr, accurate far below 0.", "d/dx = ``sqrt(2 / pi) / erfcx(-x / sqrt(2))``", _log_ndtr)
i0 = _documented("i0", "The modified Bessel function of the first kind, of order 0.", "d/dx = ``i1(x)``", lambda x: _iv(x, order=0))
i1 = _documented("i1", "The modified Bessel function of the first kind, of order 1.", "d/dx = ``(i0(x) + iv(2, x)) / 2``",
                 lambda x: _iv(x, order=1))
i0e = _documented("i0e", "The scaled function exp(-|x|) * i0(x).", "d/dx = ``i1e(x) - sign(x) * i0e(x)``", lambda x: _ive(x, order=0))
i1e = _documented("i1e", "The scaled function exp(-|x|) * i1(x).", "d/dx = ``(i0e(x) + ive(2, x)) / 2 - sign(x) * i1e(x)``",
                  lambda x: _ive(x, order=1))


def expit(x):
    """The logistic function 1 / (1 + exp(-x)).

    Parameters
    ----------
    x : Tensor or array_like

    Returns
    -------
    Tensor

    Examples
    --------
    >>> from fastgrad import special
    >>> special.expit(0.0)
    Tensor(0.5)
    """
    return sigmoid(_operand(x))


def log_expit(x):
    """The logarithm of ``expit``, accurate far below 0.

    Parameters
    ----------
    x : Tensor or array_like

    Returns
    -------
    Tensor

    Examples
    --------
    >>> from fastgrad import special
    >>> special.log_expit(-800.0)
    Tensor(-800.0)
    """
    return negative(engine.softplus(negative(_operand(x))))


def logit(x):
    """The inverse of ``expit``: log(x / (1 - x)).

    Parameters
    ----------
    x : Tensor or array_like
        Between 0 and 1.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> from fastgrad import special
    >>> special.logit([0.0, 0.5, 1.0])
    Tensor([-inf,   0.,  inf])
    """
    t = _operand(x)
    middle = engine.less(engine.absolute(t - 0.5), 0.25)        # where 2 x - 1 is exact
    return where(middle, arctanh(where(middle, t, 0.5) * 2.0 - 1.0) * 2.0, log(t) - log1p(negative(t)))


def xlogy(x, y):
    """x * log(y), 0 where x is 0; at (0, 0) both gradients are 0.

    Parameters
    ----------
    x, y : Tensor or array_like

    Returns
    -------
    Tensor

    Examples
    --------
    >>> from fastgrad import special
    >>> special.xlogy([0.0, 2.0], [0.0, 1.0])
    Tensor([0., 0.])
    """
    a, b = _together(x, y)
    return where(isnan(b), b, guarded_multiply(a, log(b)))


def xlog1py(x, y):
    """x * log(1 + y), 0 where x is 0; at (0, -1) both gradients are 0.

    Parameters
    ----------
    x, y : Tensor or array_like

    Returns
    -------
    Tensor

    Examples
    --------
    >>> from fastgrad import special
    >>> special.xlog1py([0.0, 2.0], [-1.0, 0.0])
    Tensor([0., 0.])
    """
    a, b = _together(x, y)
    return where(isnan(b), b, guarded_multiply(a, log1p(b)))


def entr(x):
    """Entropy -x * log(x); 0 at 0, -inf below.

    Parameters
    ----------
    x : Tensor or array_like

    Returns
    -------
    Tensor

    Examples
    --------
    >>> from fastgrad import special
    >>> special.entr([-1.0, 0.0, 1.0])
    Tensor([-inf,   0.,   0.])
    """
    t = _operand(x)
    zero = engine.equal(t, 0.0)
    inside = where(engine.less_equal(t, 0.0), 1.0, t)
    at_zero = sqrt(where(zero, t, 1.0))         # 0, and its derivative is +inf as it should be
    return where(engine.less(t, 0.0), -np.inf, where(zero, at_zero, 0.0 - inside * log(inside))).astype(t.dtype)


def ndtr(x):
    """The distribution function of the standard normal distribution.

    Parameters
    ----------
    x : Tensor or array_like

    Returns
    -------
    Tensor

    Examples
    --------
    >>> from fastgrad import special
    >>> special.ndtr(0.0)
    Tensor(0.5)
    """
    return erfc(_operand(x) * -_SQRT_HALF) * 0.5


def logsumexp(a, axis=None, b=None, keepdims=False):
    """The logarithm of sum(b * exp(a)), without overflow.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
        All by default.
    b : Tensor or array_like, optional
        Factors that broadcast with a; where one is 0, a does not count.
    keepdims : bool

    Returns
    -------
    Tensor
        NaN where the sum is negative.

    Examples
    --------
    >>> from fastgrad import special
    >>> special.logsumexp([1000.0, 1000.0], b=[1.0, 0.0])
    Tensor(1000.0)
    """
    if b is None:
        return fnp.logsumexp(_operand(a), axis, keepdims)
    x, factor = _together(a, b)
    shape = np.broadcast_shapes(x.shape, factor.shape)
    x, factor = fnp.broadcast_to(x, shape), fnp.broadcast_to(factor, shape)
    counts = engine.not_equal(factor, 0.0)
    top = fnp.max(where(counts, x.detach(), -np.inf), axis, True)
    top = where(isfinite(top), top, 0.0).astype(x.dtype).detach()
    # A factor of 0 still has a gradient of its own where exp does not overflow.
    total = fnp.sum(multiply(factor, exp(engine.minimum(x, where(counts, np.inf, top)) - top)), axis, True)
    result = log(total) + top
    if keepdims:
        return result
    return reshape(result, fnp.sum(x.detach(), axis).shape)


def softmax(x, axis=None):
    """In proportion to exp(x), with the sum 1 over an axis; as in SciPy over all elements unless told.

    Parameters
    ----------
    x : Tensor or array_like
    axis : int, optional

    Returns
    -------
    Tensor

    Examples
    --------
    >>> from fastgrad import special
    >>> special.softmax([[0.0, 0.0], [0.0, 0.0]])
    Tensor([[0.25, 0.25],
            [0.25, 0.25]])
    """
    return fnp.softmax(_operand(x), axis)


def log_softmax(x, axis=None):
    """The logarithm of ``softmax``; as in SciPy over all elements unless told.

    Parameters
    ----------
    x : Tensor or array_like
    axis : int, optional

    Returns
    -------
    Tensor

    Examples
    --------
    >>> from fastgrad import special
    >>> special.log_softmax([0.0]).tolist()
    [0.0]
    """
    return fnp.log_softmax(_operand(x), axis)


def __dir__():
    return __all__
