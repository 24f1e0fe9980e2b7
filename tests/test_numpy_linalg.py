"""fastgrad.numpy.linalg: every function in every way that an operation is used; CONTRACT 1, 2, 17, 27, 47."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

sys.path.insert(0, str(Path(__file__).parent))
from everywhere import check  # noqa: E402

RNG = np.random.default_rng(11)
LA, NLA = fnp.linalg, np.linalg
inf = np.inf


def array(*shape):
    return RNG.normal(size=shape)


def matrices(*shape):
    """Well-conditioned, with singular values apart."""
    a = array(*shape)
    u, s, vt = NLA.svd(a, full_matrices=False)
    return u * (1.0 + 0.7 * np.arange(s.shape[-1])[::-1]) @ vt


def symmetric(f):
    """A function of symmetric matrices as one of all."""
    return lambda a, *more: f((a + (np if isinstance(a, np.ndarray) else fnp).matrix_transpose(a)) * 0.5, *more)


def definite(f):
    def of_any(a, *more):
        library = np if isinstance(a, np.ndarray) else fnp
        return f(library.matmul(a, library.matrix_transpose(a)) + np.eye(a.shape[-1], dtype=a.dtype), *more)
    return of_any


SQUARE = [((3, 3),), ((2, 2, 2),), ((1, 1),), ((2, 1, 3, 3),)]
ANY = [((3, 3),), ((4, 2),), ((2, 4),), ((2, 3, 2),)]
CASES = {
    "det": (LA.det, NLA.det, SQUARE),
    "slogdet": (lambda a: LA.slogdet(a).logabsdet, lambda a: NLA.slogdet(a).logabsdet, SQUARE),
    "slogdet_sign": (lambda a: LA.slogdet(a)[0] * LA.slogdet(a)[1], lambda a: NLA.slogdet(a)[0] * NLA.slogdet(a)[1], SQUARE),
    "inv": (LA.inv, NLA.inv, SQUARE),
    "pinv": (LA.pinv, NLA.pinv, ANY),
    "pinv_rtol": (lambda a: LA.pinv(a, rtol=1e-10), lambda a: NLA.pinv(a, rtol=1e-10), ANY[:1]),
    "solve": (LA.solve, NLA.solve, [((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (3, 2)), ((3, 3), (2, 3, 1)), ((2, 3, 3), (3,))]),
    "lstsq": (lambda a, b: LA.lstsq(a, b)[0], lambda a, b: NLA.lstsq(a, b, rcond=None)[0], [
        ((4, 2), (4,)), ((4, 2), (4, 3)), ((2, 4), (2, 2)), ((3, 3), (3,))]),
    "lstsq_residuals": (lambda a, b: LA.lstsq(a, b)[1], lambda a, b: NLA.lstsq(a, b, rcond=None)[1], [((4, 2), (4, 3)), ((4, 2), (4,))]),
    "tensorinv": (lambda a: LA.tensorinv(a, 1), lambda a: NLA.tensorinv(a, 1), [((4, 2, 2),)]),
    "tensorsolve": (LA.tensorsolve, NLA.tensorsolve, [((2, 2, 4), (2, 2))]),
    "cholesky": (definite(LA.cholesky), definite(NLA.cholesky), SQUARE),
    "cholesky_upper": (definite(lambda a: LA.cholesky(a, upper=True)), definite(lambda a: NLA.cholesky(a, upper=True)), SQUARE[:2]),
    "qr_q": (lambda a: LA.qr(a).Q, lambda a: NLA.qr(a).Q, ANY),
    "qr_r": (lambda a: LA.qr(a, "r"), lambda a: NLA.qr(a, "r"), ANY),
    "qr_complete": (lambda a: LA.qr(a, "complete").Q, lambda a: NLA.qr(a, "complete").Q, [((3, 3),), ((2, 4),)]),
    "qr": (lambda a: LA.qr(a).Q[..., :1] * LA.qr(a).R[..., :1], lambda a: NLA.qr(a).Q[..., :1] * NLA.qr(a).R[..., :1], [((3, 3),)]),
    "eigh_values": (symmetric(lambda a: LA.eigh(a).eigenvalues), symmetric(lambda a: NLA.eigh(a).eigenvalues), SQUARE),
    "eigh_vectors": (symmetric(lambda a: LA.eigh(a).eigenvectors), symmetric(lambda a: NLA.eigh(a).eigenvectors), SQUARE),
    "eigh_upper": (symmetric(lambda a: LA.eigh(a, "U").eigenvectors), symmetric(lambda a: NLA.eigh(a, "U").eigenvectors), SQUARE[:1]),
    "eigvalsh": (symmetric(LA.eigvalsh), symmetric(NLA.eigvalsh), SQUARE),
    "svd_u": (lambda a: LA.svd(a, False).U, lambda a: NLA.svd(a, False).U, ANY),
    "svd_s": (lambda a: LA.svd(a, False).S, lambda a: NLA.svd(a, False).S, ANY),
    "svd_vh": (lambda a: LA.svd(a, False).Vh, lambda a: NLA.svd(a, False).Vh, ANY),
    "svd_full": (lambda a: LA.svd(a).U, lambda a: NLA.svd(a).U, [((3, 3),)]),
    "svdvals": (LA.svdvals, NLA.svdvals, ANY),
    "svd_values": (lambda a: LA.svd(a, compute_uv=False), lambda a: NLA.svd(a, compute_uv=False), ANY),
    "cond": (LA.cond, NLA.cond, ANY),
    "diagonal": (LA.diagonal, NLA.diagonal, ANY),
    "trace": (LA.trace, NLA.trace, ANY),
    "outer": (LA.outer, NLA.outer, [((2,), (3,))]),
    "cross": (LA.cross, NLA.cross, [((3,), (2, 3))]),
    "vecdot": (LA.vecdot, NLA.vecdot, [((3,), (2, 3))]),
    "matmul": (LA.matmul, NLA.matmul, [((2, 3), (3, 2))]),
    "tensordot": (LA.tensordot, NLA.tensordot, [((2, 3), (2, 3))]),
    "matrix_transpose": (LA.matrix_transpose, NLA.matrix_transpose, ANY[1:]),
    "matrix_power": (lambda a: LA.matrix_power(a, -2), lambda a: NLA.matrix_power(a, -2), SQUARE[:2]),
    "vector_norm": (LA.vector_norm, NLA.vector_norm, [((3,),), ((2, 3),)]),
    "matrix_norm": (LA.matrix_norm, NLA.matrix_norm, ANY),
    "norm": (LA.norm, NLA.norm, [((3,),), ((2, 3),), ((2, 3, 2),)]),
}
for k in (-2, -1, 1, 2, 5):
    CASES[f"diagonal {k}"] = (lambda a, k=k: LA.diagonal(a, offset=k), lambda a, k=k: NLA.diagonal(a, offset=k), ANY)
    CASES[f"trace {k}"] = (lambda a, k=k: LA.trace(a, offset=k), lambda a, k=k: NLA.trace(a, offset=k), ANY)
for p in (1, 2, 3, 0.5, 2.5, -1, -2, inf, -inf):
    CASES[f"norm of vectors {p}"] = (lambda x, p=p: LA.norm(x, p, axis=-1), lambda x, p=p: NLA.norm(x, p, axis=-1), [((3,),), ((2, 3),)])
    CASES[f"vector_norm {p}"] = (lambda x, p=p: LA.vector_norm(x, ord=p, keepdims=True), lambda x, p=p: NLA.vector_norm(x, ord=p, keepdims=True), [((2, 3),)])
for p in ("fro", "nuc", 1, -1, 2, -2, inf, -inf):
    CASES[f"norm of matrices {p}"] = (lambda x, p=p: LA.norm(x, p), lambda x, p=p: NLA.norm(x, p), ANY[:3])
    CASES[f"norm of axes {p}"] = (lambda x, p=p: LA.norm(x, p, (0, 2), True), lambda x, p=p: NLA.norm(x, p, (0, 2), True), [((3, 2, 3),)])
    CASES[f"matrix_norm {p}"] = (lambda x, p=p: LA.matrix_norm(x, ord=p), lambda x, p=p: NLA.matrix_norm(x, ord=p), [((2, 3, 2),)])
    CASES[f"cond {p}"] = (lambda x, p=p: LA.cond(x, p), lambda x, p=p: NLA.cond(x, p), SQUARE[:2])


@pytest.mark.parametrize("name", CASES)
def test_a_function(name):
    f, theirs, every = CASES[name]
    for shapes in every:
        arrays = [matrices(*s) if len(s) > 1 else array(*s) for s in shapes]
        check(f, theirs, *arrays, tolerance=1e-6)
        single = [a.astype(np.float32) for a in arrays]
        assert f(*map(fg.tensor, single)).dtype == np.float32
        for g in fg.grad(lambda *a: f(*a).sum(), tuple(range(len(single))))(*single):
            assert g.dtype == np.float32


def test_what_has_no_gradient():
    check(lambda x: LA.norm(x, 0), lambda x: NLA.norm(x, 0), np.array([1.0, 0.0, 2.0]), order=0)
    check(LA.matrix_rank, NLA.matrix_rank, np.array([[1.0, 2.0], [2.0, 4.0]]), order=0)
    assert LA.matrix_rank(matrices(4, 3, 2)).shape == (4,)
    tall = fg.tensor(array(3, 2))
    assert LA.svd(tall).U.shape == LA.qr(tall, "complete").Q.shape == (3, 3)
    for f in (lambda a: LA.svd(a).U, lambda a: LA.qr(a, "complete").Q):
        with pytest.raises(TypeError, match="not supported for a Tensor that is being differentiated"):
            fg.grad(lambda a: f(a).sum())(array(3, 2))


def test_numpy_names_lead_here():
    x = fg.tensor(matrices(3, 3), requires_grad=True)
    for f in (NLA.det, lambda a: NLA.slogdet(a)[1], NLA.inv, NLA.pinv, lambda a: NLA.solve(a, a), lambda a: NLA.lstsq(a, a)[0],
              lambda a: NLA.cholesky(a @ a.T), lambda a: NLA.qr(a).R, lambda a: NLA.eigh(a)[0], NLA.eigvalsh, lambda a: NLA.svd(a)[1],
              NLA.svdvals, NLA.norm, NLA.cond, lambda a: NLA.matrix_power(a, 2), NLA.trace, NLA.diagonal,
              lambda a: NLA.multi_dot([a, a]), NLA.matrix_norm, NLA.vector_norm, NLA.matrix_transpose):
        assert f(x).requires_grad
    assert type(NLA.eigh(x)).__name__ == "EighResult" and type(NLA.svd(x)).__name__ == "SVDResult"


def test_contract_1_a_norm_at_zero_has_gradient_zero():
    for f in (LA.norm, lambda x: LA.norm(x, axis=0).sum(), LA.vector_norm, LA.matrix_norm,
              *[lambda x, p=p: LA.norm(x, p) for p in ("fro", "nuc", 1, 2, inf)],
              *[lambda x, p=p: LA.norm(x, p, 0).sum() for p in (1, 2, 3, 0.5, inf)]):
        for function in (f, fg.compile(fg.grad(f))):
            g = fg.grad(f)(np.zeros((3, 3))) if function is f else function(np.zeros((3, 3)))
            assert np.array_equal(g, np.zeros((3, 3)))
        assert fg.jvp(f, (np.zeros((3, 3)),), (np.ones((3, 3)),))[1] == 0
    assert np.array_equal(fg.hessian(LA.norm)(np.zeros(2)), np.zeros((2, 2)))


def test_contract_2_orders_below_one_and_zeros():
    x = np.array([0.0, 4.0, -9.0])
    g = fg.grad(lambda x: LA.norm(x, 0.5))(x)
    assert g[0] == 0 and np.allclose(g[1:], [2.5, -5 / 3])
    assert np.allclose(fg.compile(fg.grad(lambda x: LA.norm(x, 0.5)))(x), g)
    np.testing.assert_allclose(fg.grad(lambda x: LA.norm(x, 3))(np.array([0.0, 2.0])), [0, 1], rtol=1e-15)


def test_a_determinant_of_zero_has_its_gradient():
    a = np.array([[1.0, 2.0], [2.0, 4.0]])
    np.testing.assert_allclose(fg.grad(LA.det)(a), [[4.0, -2.0], [-2.0, 1.0]], atol=1e-14)
    np.testing.assert_allclose(fg.grad(LA.det)(np.zeros((1, 1))), [[1.0]])
    assert np.array_equal(fg.grad(LA.det)(np.zeros((3, 3))), np.zeros((3, 3)))
    with np.errstate(all="ignore"):
        assert np.isnan(fg.grad(lambda a: LA.slogdet(a)[1])(np.zeros((2, 2)))).all()
    assert LA.cond(np.zeros((2, 2)) + np.eye(2) * [1, 0], 1) == inf


def rotated(values):
    q = NLA.qr(array(3, 3)).Q
    return q @ np.diag(values) @ q.T


@pytest.mark.parametrize("values", [(1.0, 1.0, 3.0), (2.0, 2.0, 2.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)])
def test_contract_17_equal_eigenvalues(values):
    for a in (np.diag(values), rotated(values)):
        a = (a + a.T) / 2
        np.testing.assert_allclose(fg.grad(lambda a: LA.eigvalsh(a).sum())(a), np.eye(3), atol=1e-12)
        np.testing.assert_allclose(fg.grad(lambda a: (LA.eigvalsh(a) ** 2).sum())(a), 2 * a, atol=1e-12)
        v = lambda a: LA.eigh(a).eigenvectors  # noqa: E731
        with np.errstate(all="ignore"):
            g = fg.grad(lambda a: (v(a) * np.arange(9.0).reshape(3, 3)).sum())(a)
            assert not np.isfinite(g).all()                                         # depends on the basis
            second = fg.jvp(fg.grad(lambda a: (LA.eigvalsh(a) ** 2).sum()), (a,), (np.ones((3, 3)),))[1]
            assert not np.isfinite(second).all() or np.allclose(second, 2.0)        # never quietly wrong
            second = fg.grad(lambda a: fg.grad(lambda a: (LA.eigvalsh(a) ** 2).sum())(a).sum())(a)
            if 0.0 not in values:       # a cotangent of exactly 0 counts as none
                assert not np.isfinite(second).all() or np.allclose(second, 2.0)
        with np.errstate(all="ignore"):
            if 0.0 in values:
                continue
            g = fg.grad(lambda a: fnp.sum((v(a) * LA.eigvalsh(a)) @ v(a).T * np.arange(9.0).reshape(3, 3)))(a)
            assert np.isnan(g).any()                                                # 0 / 0: better NaN than half of it


def test_contract_17_vectors_of_single_values_keep_their_gradient():
    a = rotated((1.0, 1.0, 3.0))
    a = (a + a.T) / 2
    top = symmetric(lambda a: LA.eigh(a).eigenvectors[:, 2] ** 2)
    check(top, symmetric(lambda a: NLA.eigh(a).eigenvectors[:, 2] ** 2), a, order=1, tolerance=1e-6)
    b = rotated((1.0, 1.0, 3.0)) @ NLA.qr(array(3, 3)).Q
    check(lambda a: LA.svd(a).U[:, 0] ** 2, lambda a: NLA.svd(a).U[:, 0] ** 2, b, order=1, tolerance=1e-6)


@pytest.mark.parametrize("values", [(1.0, 1.0, 3.0), (2.0, 2.0, 2.0), (0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.0, 0.0, 0.0)])
def test_contract_17_equal_singular_values(values):
    for a in (np.diag(values), rotated(values) @ NLA.qr(array(3, 3)).Q):
        np.testing.assert_allclose(fg.grad(lambda a: (LA.svdvals(a) ** 2).sum())(a), 2 * a, atol=1e-12)
        with np.errstate(all="ignore"):
            g = fg.grad(lambda a: (LA.svd(a).U * np.arange(9.0).reshape(3, 3)).sum())(a)
            assert not np.isfinite(g).all()

        def back(a):
            u, s, vh = LA.svd(a)
            return ((u * s) @ vh * np.arange(9.0).reshape(3, 3)).sum()

        with np.errstate(all="ignore"):
            assert np.isnan(fg.grad(back)(a)).any() or 0.0 in values
    a = matrices(3, 3)
    np.testing.assert_allclose(fg.grad(back)(a), np.arange(9.0).reshape(3, 3), atol=1e-10)
    tall = np.zeros((3, 2)) + [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    np.testing.assert_allclose(fg.grad(lambda a: LA.norm(a, "nuc"))(tall), tall, atol=1e-12)


def test_contract_22_empty_matrices():
    assert LA.det(np.zeros((0, 0))) == 1
    assert LA.inv(np.zeros((0, 3, 3))).shape == (0, 3, 3)
    assert fg.grad(lambda a: LA.det(a).sum())(np.zeros((0, 3, 3))).shape == (0, 3, 3)
    assert LA.solve(np.zeros((2, 2)) + np.eye(2), np.zeros((2, 0))).shape == (2, 0)


ERRORS = [
    (LA.inv, np.ones((2, 3)), "same length"), (LA.det, np.ones(3), "at least two axes"), (LA.inv, np.zeros((2, 2)), "singular"),
    (lambda a: LA.solve(a, np.ones(2)), np.zeros((2, 2)), "singular"), (LA.cholesky, -np.eye(2), "positive definite"),
    (lambda a: LA.lstsq(a, np.ones(3)), np.ones((2, 2)), "lstsq"), (LA.tensorinv, np.ones((2, 3, 4)), "tensorinv"),
    (LA.eigh, np.ones((2, 3)), "eigh"), (LA.qr, np.ones(3), "qr"), (LA.svd, np.ones(3), "svd"),
]


@pytest.mark.parametrize("f, a, words", ERRORS, ids=lambda v: str(v)[:20])
def test_contract_47_what_does_not_fit_is_said(f, a, words):
    with pytest.raises(NLA.LinAlgError, match=words):
        f(a)
    x = fg.tensor(np.eye(2), requires_grad=True)            # and the next call works
    LA.det(x).backward()
    assert np.allclose(x.grad, np.eye(2))


def test_other_errors():
    with pytest.raises(ValueError, match="solve: shapes"):
        LA.solve(np.eye(2), np.ones(3))
    with pytest.raises(ValueError, match="norm: ord 7"):
        LA.norm(np.eye(2), 7)
    with pytest.raises(ValueError, match="norm: shape"):
        LA.norm(np.ones((2, 2, 2)), 2)
    with pytest.raises(ValueError, match="qr: mode"):
        LA.qr(np.eye(2), "raw")
    with pytest.raises(ValueError, match="UPLO"):
        LA.eigh(np.eye(2), "X")


def test_no_warnings_from_an_ordinary_gradient():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fg.grad(lambda a: LA.svd(a).U.sum() + LA.eigh(a + a.T).eigenvectors.sum() + LA.norm(a, 3, 0).sum())(matrices(3, 3))
