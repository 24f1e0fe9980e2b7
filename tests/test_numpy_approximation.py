"""Interpolation, convolution and polynomials of fastgrad.numpy, in every way that an operation is used."""

import sys
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

sys.path.insert(0, str(Path(__file__).parent))
from everywhere import check  # noqa: E402

RNG = np.random.default_rng(3)
XP, FP = np.array([0.0, 1.0, 2.5, 4.0]), np.array([1.0, -2.0, 0.5, 3.0])
X = np.array([[-1.3, 0.33, 0.8], [1.7, 3.4, 5.2]])


def array(*shape):
    return RNG.normal(size=shape)


INTERPS = {"plain": {}, "ends": {"left": 7.0, "right": -7.0}, "period": {"period": 4.7}}


@pytest.mark.parametrize("name", INTERPS)
def test_interp(name):
    keywords = INTERPS[name]
    check(lambda *a: fnp.interp(*a, **keywords), lambda *a: np.interp(*a, **keywords), X, XP, FP)


def test_interp_at_places_and_ends():
    x = np.array([0.0, 1.0, 4.0, -np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(fnp.interp(x, XP, FP).numpy(), np.interp(x, XP, FP))
    assert fnp.interp(0.5, [2.0], [3.0]) == 3.0
    assert fg.grad(fnp.interp)(1.0, XP, FP) == 2.5 / 1.5
    assert fg.grad(fnp.interp)(9.0, XP, FP) == 0.0
    assert fnp.interp(np.float32(0.5), XP.astype(np.float32), FP.astype(np.float32)).dtype == np.float32
    shuffled = np.array([2, 0, 3, 1])
    check(lambda *a: fnp.interp(*a, period=5.0), lambda *a: np.interp(*a, period=5.0), X, XP[shuffled] + 7.1, FP[shuffled])


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("lengths", [(5, 3), (3, 5), (4, 4), (6, 2), (2, 6), (5, 4), (4, 5), (1, 3), (3, 1)])
@pytest.mark.parametrize("name", ["convolve", "correlate"])
def test_convolutions(name, lengths, mode):
    f, theirs = getattr(fnp, name), getattr(np, name)
    a, v = array(lengths[0]), array(lengths[1])
    check(lambda a, v: f(a, v, mode), lambda a, v: theirs(a, v, mode), a, v)
    assert f(a.astype(np.float32), v.astype(np.float32), mode).dtype == np.float32
    assert np.array_equal(f(np.arange(1, 4), [1, 2], mode).numpy(), theirs(np.arange(1, 4), [1, 2], mode))


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((1,), (2, 2)), ((4,), ())])
def test_polyval(shapes):
    check(fnp.polyval, np.polyval, *[array(*s) for s in shapes])


@pytest.mark.parametrize("keywords", [{}, {"N": 5}, {"N": 2, "increasing": True}, {"N": 1}], ids=str)
def test_vander(keywords):
    check(lambda x: fnp.vander(x, **keywords), lambda x: np.vander(x, **keywords), array(3))
    assert fnp.vander(np.ones(3), 0).shape == np.vander(np.ones(3), 0).shape


def test_numpy_names_lead_here():
    x, y = fg.tensor(array(3), requires_grad=True), array(3)
    for f in (lambda x: np.interp(x, XP, FP), lambda x: np.convolve(x, y), lambda x: np.correlate(y, x), lambda x: np.polyval(x, y), np.vander):
        assert f(x).requires_grad


@pytest.mark.parametrize("call, words", [
    (lambda: fnp.interp(1.0, [1.0, 2.0], [1.0]), "interp: xp of shape"), (lambda: fnp.interp(1.0, [1.0], [1.0], period=0), "period"),
    (lambda: fnp.convolve(np.ones((2, 2)), [1.0]), "convolve: shapes"), (lambda: fnp.correlate([1.0], [1.0], "some"), "mode 'some'"),
    (lambda: fnp.convolve([], [1.0]), "not empty"), (lambda: fnp.polyval(np.ones((2, 2)), 1.0), "polyval"),
    (lambda: fnp.vander(np.ones((2, 2))), "vander"),
])
def test_contract_47_what_does_not_fit_is_said(call, words):
    with pytest.raises(ValueError, match=words):
        call()
