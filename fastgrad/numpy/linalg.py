"""numpy.linalg for Tensors: determinants, inverses, equations, decompositions and norms, of single matrices and of stacks.

Decompositions are rules: NumPy computes the value, and vjp and jvp are written in operations of Tensors, so that they can be
differentiated again.  Their formulas are those of

- M. B. Giles, Collected matrix derivative results for forward and reverse mode algorithmic differentiation (2008): det, inv,
  solve, eigh, svd;
- M. Seeger, A. Hetzel, Z. Dai, E. Meissner, N. D. Lawrence, Auto-differentiating linear algebra (2017), and S. F. Walter,
  L. Lehmann, Algorithmic differentiation of linear algebra functions (2010): qr;
- I. Murray, Differentiation of the Cholesky decomposition (2016): cholesky;
- G. H. Golub, V. Pereyra, The differentiation of pseudo-inverses and nonlinear least squares problems (1973): pinv, lstsq;
- J. Townsend, Differentiating the singular value decomposition (2016): svd.

Where values are equal (up to rounding), their vectors in ``eigh`` and ``svd`` are one basis of many, and have no derivative.  A
loss that reads only values, or only the vectors of values that are single, has its finite gradient; one that reads the others
gets NaN, never a number that is quietly wrong (even where the basis cancels out of the loss: what is left to compute is
0 / 0).  A cotangent of exactly 0 counts as not reading, by the zero-cotangent rule.  Second derivatives that go through such vectors are NaN as well.  Complex results (eig, eigvals) are left out.
"""

from builtins import max as builtin_max, min as builtin_min

import numpy as np
from numpy.linalg import LinAlgError

from fastgrad._core.engine import (
    Batched, Rule, absolute, call_host, divide, guarded_multiply, less_equal, matmul, max, min, multiply, not_equal, power,
    refuse_numpy, reshape, sqrt, sum, swapaxes, tracing, transpose, where,
)
from fastgrad.numpy.joining import concatenate
from fastgrad.numpy.products import (
    _operand, cross as _cross, diagonal_of, matrix_power, matrix_transpose, multi_dot, outer as _outer,
    tensordot, vecdot,
)

__all__ = ["LinAlgError", "cholesky", "cond", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "lstsq", "matmul",
           "matrix_norm", "matrix_power", "matrix_rank", "matrix_transpose", "multi_dot", "norm", "outer", "pinv", "qr", "slogdet",
           "solve", "svd", "svdvals", "tensordot", "tensorinv", "tensorsolve", "trace", "vecdot", "vector_norm"]

_EigenResult = type(np.linalg.eigh(np.eye(1)))
_QRResult = type(np.linalg.qr(np.eye(1)))
_SlogdetResult = type(np.linalg.slogdet(np.eye(1)))
_SVDResult = type(np.linalg.svd(np.eye(1)))


def _matrices(name, a, square=False):
    """The operand as a float Tensor of matrices."""
    t = _operand(a)
    if t.ndim < 2:
        raise LinAlgError(f"{name}: shape {t.shape}: a matrix or a stack of matrices is due, at least two axes")
    if square and t.shape[-1] != t.shape[-2]:
        raise LinAlgError(f"{name}: shape {t.shape}: the last two axes must have the same length")
    return t if t.dtype.kind == "f" else t.astype(np.float64)


def _T(x):
    return swapaxes(x, -1, -2)


def _unit(n, dtype):
    return np.eye(n, dtype=dtype)


def _on_stacks(rule):
    """The batch function of a rule of matrices: the same rule, for NumPy takes stacks."""
    def batch(size, *operands, **parameters):
        rank = builtin_max(t.tensor.ndim - 1 if isinstance(t, Batched) else t.ndim for t in operands)
        aligned = [reshape(t.tensor, (size,) + (1,) * (rank + 1 - t.tensor.ndim) + t.tensor.shape[1:]) if isinstance(t, Batched) else t
                   for t in operands]
        return rule()(*aligned, **parameters)
    return batch


def _across(x):
    """A number for each matrix, as a matrix that broadcasts."""
    return reshape(x, (*x.shape, 1, 1))


def _diagonal_matrix(d):
    """Matrices with these diagonals."""
    return multiply(reshape(d, (*d.shape, 1)), _unit(d.shape[-1], d.dtype))


def _columns(d):
    return reshape(d, (*d.shape[:-1], 1, d.shape[-1]))


def _rows(d):
    return reshape(d, (*d.shape, 1))


# ------------------------------------------------------------------------------------------- determinant, inverse, equations


def _inverse(a, singular):
    try:
        return np.linalg.inv(a)
    except LinAlgError:
        if singular == "raise":
            raise LinAlgError(f"inv: a matrix of shape {a.shape[-2:]} is singular; pinv gives the pseudo-inverse") from None
    if a.ndim == 2:
        return np.full_like(a, np.nan)
    return np.stack([_inverse(each, singular) for each in a])


_inv = Rule(
    "inv",
    lambda a, singular: _inverse(a, singular),
    lambda g, out, a, singular: -matmul(matmul(_T(out), g), _T(out)),
    lambda tangents, out, a, singular: -matmul(matmul(out, tangents[0]), out),
    saves="out", batch=_on_stacks(lambda: _inv))


def inv(a):
    """The inverse of a square matrix, or of each of a stack.

    Parameters
    ----------
    a : Tensor or array_like
        (..., n, n)

    Returns
    -------
    Tensor

    Raises
    ------
    LinAlgError
        If a matrix is not square, or singular.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.inv([[2.0, 0.0], [0.0, 4.0]])
    Tensor([[0.5 , 0.  ],
            [0.  , 0.25]])
    """
    return _inv(_matrices("inv", a, True), singular="raise")


def _cofactor_value(a):
    """det(a) times the transposed inverse, also where a is singular: from the singular values, each product without its own."""
    u, s, vt = np.linalg.svd(a)
    n = s.shape[-1]
    others = np.stack([np.prod(np.delete(s, k, -1), -1) for k in range(n)], -1) if n else s
    sign = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    return np.asarray(np.matmul(u * (others * sign[..., None])[..., None, :], vt), a.dtype)


def _cofactor_vjp(g, out, a):
    inverse = _T(_inv(a, singular="nan"))
    return _across(sum(g * out, (-1, -2))) * inverse - matmul(matmul(inverse, _T(g)), out)


def _cofactor_jvp(tangents, out, a):
    inverse, t = _T(_inv(a, singular="nan")), tangents[0]
    return _across(sum(inverse * t, (-1, -2))) * out - matmul(matmul(out, _T(t)), inverse)


_cofactor = Rule("cofactor", _cofactor_value, _cofactor_vjp, _cofactor_jvp, saves="operands out", batch=_on_stacks(lambda: _cofactor))

_det = Rule(
    "det",
    lambda a: np.asarray(np.linalg.det(a)),
    lambda g, out, a: _across(g) * _cofactor(a),
    lambda tangents, out, a: sum(_cofactor(a) * tangents[0], (-1, -2)),
    saves="operands", batch=_on_stacks(lambda: _det))


def det(a):
    """The determinant of a square matrix, or of each of a stack.

    The derivative is the matrix of cofactors, also where the determinant is 0; second derivatives at a singular matrix are NaN.

    Parameters
    ----------
    a : Tensor or array_like
        (..., n, n)

    Returns
    -------
    Tensor
        (...)

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> float(fnp.linalg.det([[2.0, 0.0], [0.0, 1.0]]))
    2.0
    """
    return _det(_matrices("det", a, True))


_sign = Rule(
    "slogdet_sign",
    lambda a: np.asarray(np.linalg.slogdet(a)[0]),
    lambda g, out, a: None,
    lambda tangents, out, a: sum(tangents[0] * 0, (-1, -2)),
    batch=_on_stacks(lambda: _sign))

_logdet = Rule(
    "slogdet",
    lambda a: np.asarray(np.linalg.slogdet(a)[1]),
    lambda g, out, a: _across(g) * _T(_inv(a, singular="nan")),
    lambda tangents, out, a: sum(_T(_inv(a, singular="nan")) * tangents[0], (-1, -2)),
    saves="operands", batch=_on_stacks(lambda: _logdet))


def slogdet(a):
    """Sign and logarithm of the absolute value of the determinant.

    Parameters
    ----------
    a : Tensor or array_like
        (..., n, n)

    Returns
    -------
    SlogdetResult
        ``sign``, whose gradient is 0, and ``logabsdet``, whose gradient is the transposed inverse: NaN at a singular matrix.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.slogdet([[0.0, 1.0], [1.0, 0.0]]).sign
    Tensor(-1.0)
    """
    x = _matrices("slogdet", a, True)
    return _SlogdetResult(_sign(x), _logdet(x))


def _solve_value(a, b):
    try:
        return np.linalg.solve(a, b)
    except LinAlgError:
        raise LinAlgError(f"solve: a matrix of shape {a.shape[-2:]} is singular; lstsq or pinv give the nearest solution") from None


def _solve_vjp(g, out, a, b):
    to_b = _solve(_T(a), g)
    return -matmul(to_b, _T(out)), to_b


def _solve_jvp(tangents, out, a, b):
    ta, tb = tangents
    if ta is None:
        right = tb
    else:
        right = -matmul(ta, out) if tb is None else tb - matmul(ta, out)
    return _solve(a, right + out * 0 if right.shape != out.shape else right)


_solve = Rule("solve", _solve_value, _solve_vjp, _solve_jvp, saves="operands out", batch=_on_stacks(lambda: _solve))


def solve(a, b):
    """The solution x of a @ x = b, for each matrix of a stack.

    Parameters
    ----------
    a : Tensor or array_like
        (..., n, n)
    b : Tensor or array_like
        (n,) or (..., n, k)

    Returns
    -------
    Tensor
        Of the shape of b, broadcast with a.

    Raises
    ------
    LinAlgError
        If a matrix is not square, or singular.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.solve([[2.0, 0.0], [0.0, 4.0]], [1.0, 1.0])
    Tensor([0.5 , 0.25])
    """
    x, y = _matrices("solve", a, True), _operand(b)
    if y.ndim == 0 or x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        raise ValueError(f"solve: shapes {x.shape} and {y.shape} do not fit: (..., n, n) and (n,) or (..., n, k) are due")
    common = np.result_type(x.dtype, y.dtype)
    x, y = (t if t.dtype == common else t.astype(common) for t in (x, y))
    if y.ndim > 1:
        return _solve(x, y)
    result = _solve(x, reshape(y, (-1, 1)))
    return reshape(result, result.shape[:-1])


def _pinv_parameters(rcond, rtol, hermitian):
    keywords = {"hermitian": bool(hermitian)}
    if rcond is not None:
        keywords["rcond"] = rcond
    if rtol is not None:
        keywords["rtol"] = rtol
    return keywords


def _pinv_vjp(g, out, a, keywords):
    p, pt = out, _T(out)
    left = _unit(a.shape[-2], a.dtype) - matmul(a, p)
    right = _unit(a.shape[-1], a.dtype) - matmul(p, a)
    return (matmul(matmul(left, _T(g)), matmul(p, pt)) + matmul(matmul(pt, p), matmul(_T(g), right))
            - matmul(matmul(pt, g), pt))


def _pinv_jvp(tangents, out, a, keywords):
    p, pt, t = out, _T(out), tangents[0]
    left = _unit(a.shape[-2], a.dtype) - matmul(a, p)
    right = _unit(a.shape[-1], a.dtype) - matmul(p, a)
    return (matmul(matmul(p, pt), matmul(_T(t), left)) + matmul(matmul(right, _T(t)), matmul(pt, p))
            - matmul(matmul(p, t), p))


_pinv = Rule("pinv", lambda a, keywords: np.array(np.linalg.pinv(a, **keywords)), _pinv_vjp, _pinv_jvp, saves="operands out",
             batch=_on_stacks(lambda: _pinv))


def pinv(a, rcond=None, hermitian=False, *, rtol=None):
    """The Moore-Penrose pseudo-inverse; its derivative is that among matrices of the same rank.

    Parameters
    ----------
    a : Tensor or array_like
        (..., m, n)
    rcond, rtol : float, optional
        Singular values below this part of the largest count as 0.
    hermitian : bool
        Whether a is symmetric.

    Returns
    -------
    Tensor
        (..., n, m)

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.pinv([[2.0], [0.0]]).shape
    (1, 2)
    """
    return _pinv(_matrices("pinv", a), keywords=_pinv_parameters(rcond, rtol, hermitian))


def _lstsq_value(a, b, rcond):
    if a.ndim == b.ndim == 2:
        return np.array(np.linalg.lstsq(a, b, rcond=rcond)[0])
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = np.broadcast_to(a, stack + a.shape[-2:]), np.broadcast_to(b, stack + b.shape[-2:])
    if not a.size:
        return np.zeros(stack + (a.shape[-1], b.shape[-1]), a.dtype)
    return np.stack([_lstsq_value(x, y, rcond) for x, y in zip(a, b)])


def _rcond_of(a, rcond):
    """What lstsq takes for None, for pinv."""
    return np.finfo(a.dtype).eps * builtin_max(a.shape[-2:]) if rcond is None else 0.0 if rcond == -1 else rcond


def _lstsq_vjp(g, out, a, b, rcond):
    p = pinv(a, _rcond_of(a, rcond))
    to_b = matmul(_T(p), g)
    rest = b - matmul(a, out)
    to_a = (matmul(rest, _T(matmul(p, to_b))) + matmul(matmul(_T(p), out), _T(g - matmul(_T(a), to_b)))
            - matmul(to_b, _T(out)))
    return to_a, to_b


def _lstsq_jvp(tangents, out, a, b, rcond):
    ta, tb = tangents
    p = pinv(a, _rcond_of(a, rcond))
    result = None if tb is None else matmul(p, tb)
    if ta is not None:
        rest = b - matmul(a, out)
        back = matmul(_T(ta), matmul(_T(p), out))
        moved = matmul(p, matmul(_T(p), matmul(_T(ta), rest))) + back - matmul(p, matmul(a, back)) - matmul(p, matmul(ta, out))
        result = moved if result is None else result + moved
    return result


_lstsq = Rule("lstsq", _lstsq_value, _lstsq_vjp, _lstsq_jvp, saves="operands out", batch=_on_stacks(lambda: _lstsq))


def lstsq(a, b, rcond=None):
    """The x for which a @ x is nearest to b; where there are several, the shortest.

    Parameters
    ----------
    a : Tensor or array_like
        (m, n)
    b : Tensor or array_like
        (m,) or (m, k)
    rcond : float, optional
        Singular values below this part of the largest count as 0.

    Returns
    -------
    tuple of (x, residuals, rank, s)
        As NumPy's; x and residuals have gradients by a and b, s by a.  While a function is recorded by ``fg.compile`` or
        ``fg.vmap``, residuals are there also for matrices of a lower rank.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.lstsq([[1.0], [1.0]], [1.0, 3.0])[0].shape
    (1,)
    """
    x, y = _matrices("lstsq", a), _operand(b)
    if x.ndim != 2 or y.ndim not in (1, 2) or x.shape[0] != y.shape[0]:
        raise LinAlgError(f"lstsq: shapes {x.shape} and {y.shape} do not fit: (m, n) and (m,) or (m, k) are due")
    common = np.result_type(x.dtype, y.dtype)
    x, y = (t if t.dtype == common else t.astype(common) for t in (x, y))
    columns = reshape(y, (-1, 1)) if y.ndim == 1 else y
    found = _lstsq(x, columns, rcond=rcond)
    rank = call_host(_rank, (x,), {"rcond": _rcond_of(x, rcond)})
    rest = columns - matmul(x, found)
    residuals = sum(rest * rest, 0)
    if x.shape[0] <= x.shape[1] or not tracing() and int(rank) < x.shape[1]:
        residuals = residuals[:0]
    return (reshape(found, (-1,)) if y.ndim == 1 else found), residuals, rank, svdvals(x)


def _rank(a, rcond):
    s = np.linalg.svd(a, compute_uv=False)
    return np.asarray(np.count_nonzero(s > rcond * s.max(initial=0)))


def tensorinv(a, ind=2):
    """The inverse of the linear map that an array stands for.

    Parameters
    ----------
    a : Tensor or array_like
    ind : int
        How many of the first axes are those of the result of the map.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.tensorinv(fnp.reshape(fnp.eye(6), (6, 2, 3)), 1).shape
    (2, 3, 6)
    """
    x = _operand(a)
    if ind <= 0:
        raise ValueError(f"tensorinv: ind is {ind}, and must be above 0")
    n = int(np.prod(x.shape[:ind]))
    if n * n != x.size:
        raise LinAlgError(f"tensorinv: shape {x.shape}: the first {ind} axes and the others need as many elements")
    return reshape(inv(reshape(x, (n, n))), x.shape[ind:] + x.shape[:ind])


def tensorsolve(a, b, axes=None):
    """The x with tensordot(a, x, x.ndim) = b.

    Parameters
    ----------
    a, b : Tensor or array_like
    axes : sequence of int, optional
        Axes of a that are moved to its end first.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.tensorsolve(fnp.reshape(fnp.eye(6), (2, 3, 6)), fnp.ones((2, 3))).shape
    (6,)
    """
    x, y = _operand(a), _operand(b)
    if axes is not None:
        moved = [int(d) % x.ndim for d in axes]
        x = transpose(x, (*[d for d in range(x.ndim) if d not in moved], *moved))
    rest = x.shape[y.ndim:]
    n = int(np.prod(rest))
    if n * n != x.size or y.size != n:
        raise LinAlgError(f"tensorsolve: shapes {x.shape} and {y.shape} do not fit: b and the other axes of a need as many elements")
    return reshape(solve(reshape(x, (n, n)), reshape(y, (n,))), rest)


# ------------------------------------------------------------------------------------------------------------ decompositions


def _lower_half(n, dtype):
    """What takes of a matrix the lower half, and half of the diagonal."""
    return np.tril(np.ones((n, n), dtype)) - 0.5 * np.eye(n, dtype=dtype)


def _cholesky_value(a):
    try:
        return np.linalg.cholesky(a)
    except LinAlgError:
        raise LinAlgError(f"cholesky: a matrix of shape {a.shape[-2:]} is not positive definite; add a multiple of the unit matrix, or "
                          "use eigh") from None


def _cholesky_vjp(g, out, a):
    inner = matmul(_T(out), g) * _lower_half(out.shape[-1], out.dtype)
    half = _solve(_T(out), _T(_solve(_T(out), _T(inner))))
    return (half + _T(half)) * 0.5


def _cholesky_jvp(tangents, out, a):
    t = (tangents[0] + _T(tangents[0])) * 0.5
    return matmul(out, _solve(out, _T(_solve(out, t))) * _lower_half(out.shape[-1], out.dtype))


_cholesky = Rule("cholesky", _cholesky_value, _cholesky_vjp, _cholesky_jvp, saves="out", batch=_on_stacks(lambda: _cholesky))


def cholesky(a, /, *, upper=False):
    """The lower triangular L with L @ L.T = a; a counts as symmetric, and so is its gradient.

    Parameters
    ----------
    a : Tensor or array_like
        (..., n, n), positive definite
    upper : bool
        The upper triangular L.T instead.

    Returns
    -------
    Tensor

    Raises
    ------
    LinAlgError
        If a matrix is not positive definite.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.cholesky([[4.0, 2.0], [2.0, 5.0]])
    Tensor([[2., 0.],
            [1., 2.]])
    """
    x = _matrices("cholesky", a, True)
    return _T(_cholesky(_T(x))) if upper else _cholesky(x)


# A rule gives one Tensor: decompositions in several parts give them side by side, laid flat for each matrix.

def _packed(*parts):
    """Arrays or Tensors (..., and one or two axes) in one axis; with them how to unpack."""
    return np.concatenate([np.reshape(p, (*p.shape[:p.ndim - k], -1)) for p, k in parts], -1)


def _unpacked(t, *shapes):
    lead, parts, start = t.shape[:-1], [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        parts.append(reshape(t[..., start : start + size], lead + shape))
        start += size
    return parts


def _side_by_side(*parts):
    """The same of Tensors."""
    lead = parts[0][0].shape[: parts[0][0].ndim - parts[0][1]]
    return concatenate([reshape(p, (*lead, int(np.prod(p.shape[len(lead):])))) for p, _ in parts], -1)


def _qr_value(a, m, n):
    q, r = np.linalg.qr(a)
    return _packed((q, 2), (r, 2))


def _over_triangle(x, r):
    """x @ inv(r)"""
    return _T(_solve(_T(r), _T(x)))


def _qr_vjp(g, out, a, m, n):
    q, r = _unpacked(out, (m, n), (n, n))
    gq, gr = _unpacked(g, (m, n), (n, n))
    gr = gr * np.triu(np.ones((n, n), out.dtype))
    inner = matmul(r, _T(gr)) - matmul(_T(gq), q)
    low = np.tril(np.ones((n, n), out.dtype), -1)
    symmetric = inner * (low + _unit(n, out.dtype)) + _T(inner * low)
    return _over_triangle(gq + matmul(q, symmetric), _T(r))


def _qr_jvp(tangents, out, a, m, n):
    q, r = _unpacked(out, (m, n), (n, n))
    t = _over_triangle(tangents[0], r)
    c = matmul(_T(q), t)
    low = c * np.tril(np.ones((n, n), out.dtype), -1)
    turn = low - _T(low)
    return _side_by_side((t - matmul(q, c - turn), 2), (matmul(c - turn, r), 2))


_qr = Rule("qr", _qr_value, _qr_vjp, _qr_jvp, saves="out", batch=_on_stacks(lambda: _qr))


def qr(a, mode="reduced"):
    """The decomposition of a into a matrix of orthonormal columns and an upper triangular one.

    Parameters
    ----------
    a : Tensor or array_like
        (..., m, n), whose first min(m, n) columns are independent
    mode : {"reduced", "r", "complete"}
        "complete" has a gradient only for m <= n: the additional columns of Q are one basis of many.

    Returns
    -------
    QRResult or Tensor
        ``Q`` and ``R``; R alone for mode="r".

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> q, r = fnp.linalg.qr([[3.0, 1.0], [4.0, 2.0]])
    >>> bool(fnp.linalg.norm(q @ r - fnp.array([[3.0, 1.0], [4.0, 2.0]])) < 1e-12)
    True
    """
    x = _matrices("qr", a)
    m, n = x.shape[-2:]
    if mode not in ("reduced", "r", "complete"):
        raise ValueError(f"qr: mode {mode!r}: 'reduced', 'r' and 'complete' are supported")
    if mode == "complete" and m > n:
        refuse_numpy("numpy.linalg.qr with mode='complete' of more rows than columns", (x,))
        return _QRResult(*call_host(_plain_qr, (x,)))
    if m >= n:
        q, r = _unpacked(_qr(x, m=m, n=n), (m, n), (n, n))
    else:               # the other columns in the basis that the first ones give
        q, r = _unpacked(_qr(x[..., :m], m=m, n=m), (m, m), (m, m))
        r = concatenate([r, matmul(_T(q), x[..., m:])], -1)
    return r if mode == "r" else _QRResult(q, r)


def _plain_qr(a):
    return tuple(np.linalg.qr(a, "complete"))


def _inverse_gaps(gaps, size, n):
    """1 / gaps; NaN where a gap is nothing but rounding, 0 on the diagonal.

    Multiplied with ``guarded_multiply``, NaN reaches nobody who sends exactly 0 there: who does not read these vectors.
    """
    noise = size * (4 * n * np.finfo(gaps.dtype).eps)
    none = less_equal(absolute(gaps), noise)
    inverse = where(none, np.nan, divide(1.0, where(none, 1.0, gaps)))
    return where(_unit(n, bool), 0.0, inverse).astype(gaps.dtype)


def _eigh_value(a, n, UPLO):
    w, v = np.linalg.eigh(a, UPLO)
    return _packed((w, 1), (v, 2))


def _eigh_gaps(w, n):
    size = _across(max(absolute(w.detach()), -1))
    return _inverse_gaps(_columns(w) - _rows(w), size, n)


def _eigh_vjp(g, out, a, n, UPLO):
    w, v = _unpacked(out, (n,), (n, n))
    gw, gv = _unpacked(g, (n,), (n, n))
    inner = guarded_multiply(matmul(_T(v), gv), _eigh_gaps(w, n))
    return matmul(v, matmul(_diagonal_matrix(gw) + (inner + _T(inner)) * 0.5, _T(v)))


def _eigh_jvp(tangents, out, a, n, UPLO):
    w, v = _unpacked(out, (n,), (n, n))
    t = (tangents[0] + _T(tangents[0])) * 0.5
    x = matmul(_T(v), matmul(t, v))
    turn = guarded_multiply(x, _eigh_gaps(w, n))
    return _side_by_side((diagonal_of(x, x.ndim - 2, x.ndim - 1), 1), (matmul(v, turn), 2))


_eigh = Rule("eigh", _eigh_value, _eigh_vjp, _eigh_jvp, saves="out", batch=_on_stacks(lambda: _eigh))


def eigh(a, UPLO="L"):
    """Eigenvalues and eigenvectors of a symmetric matrix; its gradient is symmetric, too.

    Where eigenvalues are equal, their vectors are one basis of many: a loss that reads them gets a gradient of NaN, and one
    that does not its finite gradient.

    Parameters
    ----------
    a : Tensor or array_like
        (..., n, n)
    UPLO : {"L", "U"}
        The triangle that is read.

    Returns
    -------
    EighResult
        ``eigenvalues`` in ascending order, and ``eigenvectors``, one a column.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.eigh([[2.0, 0.0], [0.0, 1.0]]).eigenvalues
    Tensor([1., 2.])
    """
    x = _matrices("eigh", a, True)
    if UPLO not in ("L", "U", "l", "u"):
        raise ValueError(f"eigh: UPLO is {UPLO!r}, and must be 'L' or 'U'")
    n = x.shape[-1]
    return _EigenResult(*_unpacked(_eigh(x, n=n, UPLO=UPLO), (n,), (n, n)))


def eigvalsh(a, UPLO="L"):
    """The eigenvalues of a symmetric matrix, in ascending order; see ``eigh``.

    Parameters
    ----------
    a : Tensor or array_like
        (..., n, n)
    UPLO : {"L", "U"}
        The triangle that is read.

    Returns
    -------
    Tensor
        (..., n)

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.eigvalsh([[2.0, 0.0], [0.0, 1.0]])
    Tensor([1., 2.])
    """
    return eigh(a, UPLO).eigenvalues


def _svd_value(a, m, n, k):
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return _packed((u, 2), (s, 1), (vt, 2))


def _svd_gaps(s, k):
    size = _across(max(s.detach(), -1))
    return _inverse_gaps(_columns(s) - _rows(s), size, k), _inverse_gaps(_columns(s) + _rows(s), size, k)


def _inverse_values(s, k):
    none = less_equal(s, max(s.detach(), -1, True) * (4 * k * np.finfo(s.dtype).eps))
    return _columns(where(none, np.nan, divide(1.0, where(none, 1.0, s))).astype(s.dtype))


def _svd_vjp(g, out, a, m, n, k):
    # Townsend's formulas, with 1 / (sj**2 - si**2) taken apart: what both bases send together has 1 / (sj - si), what they
    # send against each other 1 / (sj + si).
    u, s, vt = _unpacked(out, (m, k), (k,), (k, n))
    gu, gs, gvt = _unpacked(g, (m, k), (k,), (k, n))
    v, gv = _T(vt), _T(gvt)
    apart, together = _svd_gaps(s, k)
    x, y = matmul(_T(u), gu), matmul(_T(v), gv)
    even = guarded_multiply(x, apart) + guarded_multiply(y, apart)
    odd = guarded_multiply(x, together) - guarded_multiply(y, together)
    inner = (even + _T(even) + odd - _T(odd)) * 0.5
    gs = where(not_equal(s, 0.0), gs, 0.0)
    result = matmul(u, matmul(_diagonal_matrix(gs) + inner, vt))
    if m > k:
        result = result + matmul(guarded_multiply(gu - matmul(u, x), _inverse_values(s, k)), vt)
    if n > k:
        result = result + matmul(u, _T(guarded_multiply(gv - matmul(v, y), _inverse_values(s, k))))
    return result


def _svd_jvp(tangents, out, a, m, n, k):
    u, s, vt = _unpacked(out, (m, k), (k,), (k, n))
    v, t = _T(vt), tangents[0]
    apart, together = _svd_gaps(s, k)
    p = matmul(_T(u), matmul(t, v))
    even = guarded_multiply(p + _T(p), apart)
    odd = guarded_multiply(p - _T(p), together)
    tu, tv = matmul(u, (even + odd) * 0.5), matmul(v, (even - odd) * 0.5)
    if m > k:
        tu = tu + guarded_multiply(matmul(t, v) - matmul(u, p), _inverse_values(s, k))
    if n > k:
        tv = tv + guarded_multiply(matmul(_T(t), u) - matmul(v, _T(p)), _inverse_values(s, k))
    ts = where(not_equal(s, 0.0), diagonal_of(p, p.ndim - 2, p.ndim - 1), 0.0)
    return _side_by_side((tu, 2), (ts, 1), (_T(tv), 2))


_svd = Rule("svd", _svd_value, _svd_vjp, _svd_jvp, saves="out", batch=_on_stacks(lambda: _svd))


def svd(a, full_matrices=True, compute_uv=True, hermitian=False):
    """Singular values and vectors: a = U @ diag(S) @ Vh.

    Where singular values are equal, their vectors are one basis of many: a loss that reads them gets a gradient of NaN, and
    one that does not its finite gradient.  A singular value of exactly 0 has gradient 0.

    Parameters
    ----------
    a : Tensor or array_like
        (..., m, n)
    full_matrices : bool
        Whether U and Vh are square.  The additional vectors are one basis of many: only square matrices have a gradient then.
    compute_uv : bool
        False: the singular values alone.
    hermitian : bool
        Accepted as NumPy has it.

    Returns
    -------
    SVDResult or Tensor
        ``U``, ``S`` in descending order, ``Vh``.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.svd([[0.0, 2.0], [1.0, 0.0]]).S
    Tensor([2., 1.])
    """
    x = _matrices("svd", a)
    m, n = x.shape[-2:]
    k = builtin_min(m, n)
    if compute_uv and full_matrices and m != n:
        refuse_numpy("numpy.linalg.svd with full_matrices=True of a matrix that is not square", (x,))
        return _SVDResult(*call_host(_plain_svd, (x,)))
    u, s, vt = _unpacked(_svd(x, m=m, n=n, k=k), (m, k), (k,), (k, n))
    return _SVDResult(u, s, vt) if compute_uv else s


def _plain_svd(a):
    return tuple(np.linalg.svd(a))


def svdvals(x, /):
    """The singular values in descending order; see ``svd``.

    Parameters
    ----------
    x : Tensor or array_like
        (..., m, n)

    Returns
    -------
    Tensor
        (..., min(m, n))

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.svdvals([[0.0, 2.0], [1.0, 0.0]])
    Tensor([2., 1.])
    """
    return svd(x, compute_uv=False)


# --------------------------------------------------------------------------------------------------------------------- norms


def _length_of(x, axes, keepdims):
    """The root of the sum of squares, whose derivative at 0 is 0."""
    total = sum(x * x, axes, keepdims)
    zero = less_equal(total, 0.0)
    return where(zero, 0.0, sqrt(where(zero, 1.0, total))).astype(x.dtype)


def _power_norm(x, p, axes, keepdims):
    size = absolute(x)
    if p < 0:
        return power(sum(power(size, p), axes, keepdims), 1.0 / p).astype(x.dtype)
    zero = less_equal(size, 0.0)
    total = sum(where(zero, 0.0, power(where(zero, 1.0, size), p)), axes, keepdims)
    none = less_equal(total, 0.0)
    return where(none, 0.0, power(where(none, 1.0, total), 1.0 / p)).astype(x.dtype)


def _vector_norm(name, x, ord, axes, keepdims):
    if ord is None or ord == 2:
        return _length_of(x, axes, keepdims)
    if isinstance(ord, str):
        raise ValueError(f"{name}: ord {ord!r} is none of vectors; 'fro' and 'nuc' are of matrices, over two axes")
    if ord == np.inf:
        return max(absolute(x), axes, keepdims)
    if ord == -np.inf:
        return min(absolute(x), axes, keepdims)
    if ord == 0:
        return sum(not_equal(x, 0).astype(x.dtype), axes, keepdims)
    if ord == 1:
        return sum(absolute(x), axes, keepdims)
    return _power_norm(x, ord, axes, keepdims)


def _matrix_norm(name, x, ord, axes, keepdims):
    row, column = axes
    if row == column:
        raise ValueError(f"{name}: duplicate axes given")
    if ord is None or ord == "fro":
        return _length_of(x, axes, keepdims)
    if ord in (1, -1, np.inf, -np.inf):
        inner, rest = (row, column) if ord in (1, -1) else (column, row)
        result = (max if ord > 0 else min)(sum(absolute(x), inner, True), rest, True)
        result = sum(result, axes)
    elif ord in (2, -2, "nuc"):
        order = [d for d in range(x.ndim) if d not in axes]
        values = svdvals(transpose(x, (*order, row, column)))
        result = sum(values, -1) if ord == "nuc" else max(values, -1) if ord == 2 else min(values, -1)
    else:
        raise ValueError(f"{name}: ord {ord!r} is none of matrices; those are 'fro', 'nuc', 1, -1, 2, -2, inf and -inf")
    if keepdims:
        result = reshape(result, tuple(1 if d in axes else n for d, n in enumerate(x.shape)))
    return result


def norm(x, ord=None, axis=None, keepdims=False):
    """A norm of vectors or of matrices; the gradient at 0 is 0.

    Parameters
    ----------
    x : Tensor or array_like
    ord : number, "fro" or "nuc", optional
        None is the root of the sum of squares.  Of vectors the order p: below 1 an element that is 0 gets gradient 0; of
        matrices 1, -1, 2, -2, inf, -inf, "fro" and "nuc".
    axis : int or pair of int, optional
        One axis: norms of vectors; two: of matrices; None: of all.
    keepdims : bool

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If there is no such norm.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import fastgrad.numpy as fnp
    >>> import numpy as np
    >>> fnp.linalg.norm([3.0, 4.0])
    Tensor(5.0)
    >>> fg.grad(fnp.linalg.norm)(np.zeros(2))
    array([0., 0.])
    """
    t = _operand(x)
    t = t if t.dtype.kind == "f" else t.astype(np.float64)
    if axis is None:
        if ord is None or (ord in ("f", "fro") and t.ndim == 2) or (ord == 2 and t.ndim == 1):
            result = _length_of(reshape(t, -1), None, False)
            return reshape(result, (1,) * t.ndim) if keepdims else result
        axes = tuple(range(t.ndim))
    else:
        axes = np.lib.array_utils.normalize_axis_tuple(axis, t.ndim, "axis")
    if len(axes) == 1:
        return _vector_norm("norm", t, ord, axes, keepdims)
    if len(axes) == 2:
        return _matrix_norm("norm", t, "fro" if ord == "f" else ord, axes, keepdims)
    raise ValueError(f"norm: shape {t.shape}, axis {axis}: one axis, for vectors, or two, for matrices, are due")


def vector_norm(x, /, *, axis=None, keepdims=False, ord=2):
    """A norm of vectors; see ``norm``.

    Parameters
    ----------
    x : Tensor or array_like
    axis : int or tuple of int, optional
        None: all elements as one vector.
    keepdims : bool
    ord : number

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.vector_norm([3.0, -4.0], ord=1)
    Tensor(7.0)
    """
    t = _operand(x)
    t = t if t.dtype.kind == "f" else t.astype(np.float64)
    axes = tuple(range(t.ndim)) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, t.ndim, "axis")
    return _vector_norm("vector_norm", t, ord, axes, keepdims)


def matrix_norm(x, /, *, keepdims=False, ord="fro"):
    """A norm of the matrices in the last two axes; see ``norm``.

    Parameters
    ----------
    x : Tensor or array_like
        (..., m, n)
    keepdims : bool
    ord : number, "fro" or "nuc"

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.matrix_norm([[3.0, 0.0], [0.0, 4.0]], ord="nuc")
    Tensor(7.0)
    """
    t = _matrices("matrix_norm", x)
    return _matrix_norm("matrix_norm", t, ord, (t.ndim - 2, t.ndim - 1), keepdims)


def cond(x, p=None):
    """The condition number: the norm of a matrix times that of its inverse.

    Parameters
    ----------
    x : Tensor or array_like
        (..., m, n); square but for p None, 2 and -2
    p : number or "fro", "nuc", optional
        Which norm; None: 2.

    Returns
    -------
    Tensor
        Infinite for a singular matrix.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.cond([[2.0, 0.0], [0.0, 4.0]])
    Tensor(2.0)
    """
    t = _matrices("cond", x, square=p not in (None, 2, -2))
    if p in (None, 2, -2):
        s = svdvals(t)
        first, last = s[..., 0], s[..., -1]
        return divide(last, first) if p == -2 else divide(first, last)
    inverse = _inv(t, singular="nan")
    axes = (t.ndim - 2, t.ndim - 1)
    result = multiply(_matrix_norm("cond", t, p, axes, False), _matrix_norm("cond", inverse, p, axes, False))
    none = sum(not_equal(inverse, inverse), axes) > sum(not_equal(t, t), axes)
    return where(none, np.inf, result).astype(t.dtype)


def matrix_rank(A, tol=None, hermitian=False, *, rtol=None):
    """The rank of a matrix, or of each of a stack: an integer, without a gradient.

    Parameters
    ----------
    A : Tensor or array_like
    tol, hermitian, rtol
        As NumPy has them.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> int(fnp.linalg.matrix_rank([[1.0, 2.0], [2.0, 4.0]]))
    1
    """
    keywords = {"hermitian": hermitian, **({} if rtol is None else {"rtol": rtol})}
    return call_host(_matrix_rank, (_operand(A), tol), keywords)


def _matrix_rank(a, tol, **keywords):
    return np.asarray(np.linalg.matrix_rank(a, tol, **keywords))


# ------------------------------------------------------------------------------------- those that differ from numpy's own


def diagonal(x, /, *, offset=0):
    """The diagonals of the matrices in the last two axes.

    Parameters
    ----------
    x : Tensor or array_like
        (..., m, n)
    offset : int
        Above 0: above the main diagonal.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.diagonal([[1.0, 2.0], [3.0, 4.0]])
    Tensor([1., 4.])
    """
    t = _operand(x)
    if t.ndim < 2:
        raise ValueError(f"diagonal: shape {t.shape}: at least two axes are due")
    return diagonal_of(t, t.ndim - 2, t.ndim - 1, offset)


def trace(x, /, *, offset=0, dtype=None):
    """The sums of the diagonals of the matrices in the last two axes.

    Parameters
    ----------
    x : Tensor or array_like
        (..., m, n)
    offset : int
        Above 0: above the main diagonal.
    dtype : dtype, optional
        Of the result.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.trace([[1.0, 2.0], [3.0, 4.0]])
    Tensor(5.0)
    """
    t = _operand(x)
    if t.ndim < 2:
        raise ValueError(f"trace: shape {t.shape}: at least two axes are due")
    if dtype is not None:
        t = t.astype(dtype)
    return sum(diagonal_of(t, t.ndim - 2, t.ndim - 1, offset), -1)


def outer(x1, x2, /):
    """All products of an element of one vector and one of another.

    Parameters
    ----------
    x1, x2 : Tensor or array_like
        Of one axis.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.outer([1.0, 2.0], [3.0])
    Tensor([[3.],
            [6.]])
    """
    x, y = _operand(x1), _operand(x2)
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"outer: shapes {x.shape} and {y.shape}: two vectors are due; numpy.outer lays others flat")
    return _outer(x, y)


def cross(x1, x2, /, *, axis=-1):
    """Cross product of vectors of three components.

    Parameters
    ----------
    x1, x2 : Tensor or array_like
        Whose other axes broadcast.
    axis : int
        Of the components.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.cross([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    Tensor([0., 0., 1.])
    """
    return _cross(x1, x2, axis=axis)


def functions():
    """NumPy's functions -> ours, for ``__array_function__``."""
    found = {getattr(np.linalg, name): globals()[name] for name in __all__ if name != "LinAlgError" and hasattr(np.linalg, name)}
    return {theirs: ours for theirs, ours in found.items() if not isinstance(theirs, np.ufunc)}


def __dir__():
    return __all__
