"""Products of fastgrad.numpy: every form of einsum and its kin, in every way that an operation is used; CONTRACT 26, 27, 47."""

import sys
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

sys.path.insert(0, str(Path(__file__).parent))
from everywhere import check  # noqa: E402

RNG = np.random.default_rng(5)


def array(*shape):
    return RNG.normal(size=shape)


EINSUMS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("ij,jk->ki", (2, 3), (3, 4)), ("ba,cb", (2, 3), (4, 2)),
    ("ii", (3, 3)), ("ii->i", (3, 3)), ("iij->j", (3, 3, 2)), ("iji->j", (3, 2, 3)), ("iii->i", (3, 3, 3)), ("ij->", (2, 3)),
    ("ij->j", (2, 3)), ("ij->ji", (2, 3)), ("i,j->ij", (2,), (3,)), ("i,i->", (3,), (3,)), ("i,i->i", (3,), (3,)),
    ("i,i", (3,), (3,)), (",i->i", (), (3,)), (",", (), ()), ("ij,ij->ij", (2, 3), (2, 3)), ("bij,bjk->bik", (2, 3, 4), (2, 4, 2)),
    ("bij,bj->bi", (2, 3, 4), (2, 4)), ("bi,bi->b", (2, 3), (2, 3)), ("...ij,...jk->...ik", (2, 3, 4), (4, 2)),
    ("...ij,...jk", (2, 1, 3, 4), (5, 4, 2)), ("...i->...", (2, 3)), ("i...->...", (2, 3)), ("...,...", (3,), (2, 3)),
    ("i...j->j...i", (2, 3, 4)), ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)), ("ij,jk,ki", (2, 3), (3, 4), (4, 2)),
    ("i,j,k->ijk", (2,), (3,), (2,)), ("ij,j,i", (2, 3), (3,), (2,)), ("ij,ik,il->jkl", (2, 3), (2, 2), (2, 4)),
    ("ij,jk->ik", (2, 1), (3, 4)), ("ij,ij->i", (2, 1), (2, 3)), ("ij,jk", (1, 3), (3, 1)), ("ij,kl->i", (2, 3), (3, 2)),
    ("ij,kj->", (2, 3), (4, 3)), ("ijj,jk->ik", (2, 3, 3), (3, 2)), ("aab,bcc->ac", (2, 2, 3), (3, 2, 2)), ("ij,ij,ij->j", (2, 3), (2, 3), (2, 3)),
    ("ij,j->ij", (2, 3), (3,)), ("abcd,cdef->abef", (2, 1, 2, 3), (2, 3, 2, 2)), ("ij , jk -> ik", (2, 3), (3, 4)),
]


@pytest.mark.parametrize("case", EINSUMS, ids=str)
def test_contract_26_einsum(case):
    subscripts, *shapes = case
    f = lambda *a: fnp.einsum(subscripts, *a)  # noqa: E731
    check(f, lambda *a: np.einsum(subscripts, *a), *[array(*s) for s in shapes])


def test_einsum_interleaved_and_paths():
    a, b, c = array(2, 3), array(3, 4), array(4, 2)
    check(lambda a, b: fnp.einsum(a, [0, 1], b, [1, 2]), lambda a, b: a @ b, a, b)
    check(lambda a, b: fnp.einsum(a, [5, 1], b, [1, 2], [2, 5]), lambda a, b: (a @ b).T, a, b)
    check(lambda a, b: fnp.einsum(a, [..., 1], b, [1, ...], [...]), lambda a, b: np.einsum(a, [..., 1], b, [1, ...], [...]), a, array(3, 2))
    for optimize in (False, True, "greedy", "optimal", ["einsum_path", (1, 2), (0, 1)], ["einsum_path", (0, 1, 2)], ("greedy", 100)):
        np.testing.assert_allclose(fnp.einsum("ij,jk,kl->il", a, b, c, optimize=optimize).numpy(), a @ b @ c)
    many = [array(2, 2) for _ in range(5)]
    np.testing.assert_allclose(fnp.einsum("ab,bc,cd,de,ef", *many).numpy(), np.linalg.multi_dot(many))


def test_einsum_of_integers_types_and_empties():
    i = np.arange(6).reshape(2, 3)
    assert fnp.einsum("ij->j", i).dtype == i.dtype
    assert np.array_equal(fnp.einsum(i, [0, 1], i, [0, 2], [1, 2]).numpy(), i.T @ i)
    x = array(2, 3).astype(np.float32)
    assert fnp.einsum("ij,kj", x, x).dtype == np.float32
    assert fnp.einsum("ij,kj", x, x.astype(float)).dtype == np.float64
    assert fnp.einsum("ij,kj", x, i).dtype == np.result_type(x, i)
    assert fnp.einsum("ij->i", x, dtype=np.float64).dtype == np.float64
    assert np.array_equal(fnp.einsum("ij,jk", np.zeros((2, 0)), np.zeros((0, 3))).numpy(), np.zeros((2, 3)))
    assert fg.grad(lambda a: fnp.einsum("ij,jk->", a, np.zeros((0, 3))))(np.zeros((2, 0))).shape == (2, 0)
    assert fg.grad(lambda a: fnp.einsum("ii->", a))(np.zeros((0, 0))).shape == (0, 0)


@pytest.mark.parametrize("call", [
    ("ij,jk", (2, 3), (4, 5)), ("ii", (2, 3)), ("ij", (2,)), ("i->ii", (2,)), ("i->j", (2,)), ("i,j", (2,)), ("i%", (2,)),
    ("...i->i", (2, 3)), ("i", (2, 3)),
], ids=str)
def test_contract_47_einsum_says_what_does_not_fit(call):
    subscripts, *shapes = call
    with pytest.raises(ValueError, match="einsum"):
        fnp.einsum(subscripts, *[np.ones(s) for s in shapes])
    with pytest.raises(ValueError):
        np.einsum(subscripts, *[np.ones(s) for s in shapes])


PRODUCTS = {
    "inner": [(fnp.inner, np.inner, s) for s in [((3,), (3,)), ((2, 3), (3,)), ((2, 3), (4, 3)), ((), (3,)), ((2, 2, 3), (4, 3))]],
    "outer": [(fnp.outer, np.outer, s) for s in [((2,), (3,)), ((2, 2), (3,)), ((), (3,))]],
    "vdot": [(fnp.vdot, np.vdot, s) for s in [((3,), (3,)), ((2, 3), (3, 2)), ((1,), ())]],
    "vecdot": [(fnp.vecdot, np.vecdot, s) for s in [((3,), (3,)), ((2, 3), (3,)), ((4, 1, 3), (2, 3))]],
    "vecdot_axis": [(lambda a, b: fnp.vecdot(a, b, axis=0), lambda a, b: np.vecdot(a, b, axis=0), ((3, 2), (3, 2)))],
    "matvec": [(fnp.matvec, np.matvec, s) for s in [((2, 3), (3,)), ((4, 2, 3), (3,)), ((2, 3), (4, 3))]],
    "vecmat": [(fnp.vecmat, np.vecmat, s) for s in [((2,), (2, 3)), ((2,), (4, 2, 3)), ((4, 2), (2, 3))]],
    "tensordot": [(fnp.tensordot, np.tensordot, s) for s in [((2, 3), (2, 3)), ((4, 2, 3), (2, 3, 5))]],
    "tensordot_axes": [(lambda a, b, k=k: fnp.tensordot(a, b, k), lambda a, b, k=k: np.tensordot(a, b, k), s) for k, s in [
        (0, ((2,), (3,))), (1, ((2, 3), (3, 4))), ((0, 1), ((2, 3), (4, 2))), (([1, 0], [0, 2]), ((2, 3, 2), (3, 4, 2))), ((-1, 0), ((2, 3), (3,)))]],
    "kron": [(fnp.kron, np.kron, s) for s in [((2,), (3,)), ((2, 2), (2, 3)), ((2,), (2, 3)), ((), (3,)), ((2, 1, 2), (2, 2))]],
    "cross": [(fnp.cross, np.cross, s) for s in [((3,), (3,)), ((2, 3), (3,)), ((2, 1, 3), (4, 3))]],
    "cross_axes": [(lambda a, b: fnp.cross(a, b, 0, 1, 0), lambda a, b: np.cross(a, b, 0, 1, 0), ((3, 2), (2, 3))),
                   (lambda a, b: fnp.cross(a, b, axis=0), lambda a, b: np.cross(a, b, axis=0), ((3, 2), (3, 2)))],
    "matrix_power": [(lambda a, n=n: fnp.matrix_power(a, n), lambda a, n=n: np.linalg.matrix_power(a, n), ((2, 3, 3),)) for n in (0, 1, 2, 3, 5, -1, -2)],
    "matrix_transpose": [(fnp.matrix_transpose, np.matrix_transpose, ((2, 3, 4),))],
    "multi_dot": [(lambda *a: fnp.linalg.multi_dot(a), lambda *a: np.linalg.multi_dot(a), s) for s in [
        ((2, 3), (3, 4)), ((2, 3), (3, 1), (1, 4)), ((3,), (3, 2), (2, 4), (4,)), ((5, 2), (2, 5), (5, 2), (2,))]],
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product(name):
    for f, theirs, shapes in PRODUCTS[name]:
        check(f, theirs, *[array(*s) for s in shapes])
        single = [array(*s).astype(np.float32) for s in shapes]
        assert f(*map(fg.tensor, single)).dtype == np.float32
        assert fg.grad(lambda *a: f(*a).sum())(*single).dtype == np.float32


def test_numpy_names_lead_here():
    x, y = fg.tensor(array(3, 3), requires_grad=True), fg.tensor(array(3, 3))
    for f in (np.inner, np.outer, np.vdot, np.vecdot, np.matvec, np.vecmat, np.tensordot, np.kron, np.cross,
              lambda a, b: np.einsum("ij,jk", a, b), lambda a, b: np.linalg.multi_dot([a, b]), lambda a, b: np.matrix_transpose(a)):
        assert f(x, y).requires_grad
    assert np.einsum_path("ij,jk,kl", x, y, y)[0][0] == "einsum_path"


@pytest.mark.parametrize("f, shapes, error", [
    (fnp.inner, ((2,), (3,)), ValueError), (fnp.vdot, ((2,), (3,)), ValueError), (fnp.vecdot, ((2,), (3,)), ValueError),
    (fnp.matvec, ((2, 2), (3,)), ValueError), (fnp.vecmat, ((3,), (2, 2)), ValueError), (fnp.tensordot, ((2, 3), (3, 2)), ValueError),
    (fnp.cross, ((2,), (2,)), ValueError), (lambda a: fnp.matrix_power(a, 2), ((2, 3),), np.linalg.LinAlgError),
    (lambda *a: fnp.linalg.multi_dot(a), ((2, 3), (2, 3)), ValueError), (fnp.matrix_transpose, ((2,),), ValueError),
])
def test_contract_47_products_say_what_does_not_fit(f, shapes, error):
    with pytest.raises(error, match=r"\w+: .*\("):
        f(*[np.ones(s) for s in shapes])
