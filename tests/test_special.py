"""fastgrad.special: values against SciPy and mpmath, derivatives in every way that an operation is used."""

import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest

import fastgrad as fg
from fastgrad import special

sys.path.insert(0, str(Path(__file__).parent))
from everywhere import check  # noqa: E402

theirs = pytest.importorskip("scipy.special")

X = np.array([[0.3, 1.7, 2.6], [0.9, 4.2, 3.1]])        # also moved a little by vmap's examples
UNIT = np.array([0.12, 0.31, 0.55, 0.86])
ANY = np.array([-2.3, -0.7, 0.4, 1.9])
CASES = {
    "erf": [(ANY,)], "erfc": [(ANY,)], "erfcx": [(ANY,)], "gammaln": [(X,)], "digamma": [(X,)], "psi": [(X,)], "gamma": [(X,)],
    "beta": [(X, X[:, ::-1].copy()), (X, X[0])], "betaln": [(X, X[:, ::-1].copy()), (X[0], X)], "logit": [(UNIT,)], "expit": [(ANY,)],
    "log_expit": [(ANY,)], "xlogy": [(X, X[::-1].copy()), (ANY[:3], X)], "xlog1py": [(X, X[::-1].copy())], "entr": [(X,)],
    "log_ndtr": [(ANY,)], "ndtr": [(ANY,)], "ndtri": [(UNIT,)], "erfinv": [(UNIT,), (-UNIT,)], "i0": [(ANY,)], "i1": [(ANY,)],
    "i0e": [(ANY,)], "i1e": [(ANY,)], "logsumexp": [(X,), (ANY,)], "softmax": [(X,)], "log_softmax": [(X,)],
}


@pytest.mark.parametrize("name", CASES)
def test_a_function(name):
    for arrays in CASES[name]:
        f = getattr(special, name)
        check(f, getattr(theirs, name), *arrays, tolerance=1e-6)
        single = [a.astype(np.float32) for a in arrays]
        assert f(*map(fg.tensor, single)).dtype == np.float32
        for g in fg.grad(lambda *a: f(*a).sum(), tuple(range(len(single))))(*single):
            assert g.dtype == np.float32


def test_numbers_and_integers():
    assert special.gamma(5) == 24 and special.expit(0).dtype == np.float64
    assert special.xlogy(2.0, np.float32([1.0])).dtype == np.float32
    check(lambda x: special.polygamma(1.0, x), lambda x: theirs.polygamma(1, x), X, tolerance=1e-6)


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_with_factors(axis, keepdims):
    b = np.array([[0.5, 2.0, 1.0], [0.25, 3.0, 0.75]])
    check(lambda x, b: special.logsumexp(x, axis, b, keepdims), lambda x, b: theirs.logsumexp(x, axis, b=b, keepdims=keepdims), X, b)
    for k in (0, 1):
        check(lambda x: special.softmax(x, k), lambda x: theirs.softmax(x, k), X)


def test_contract_11_logsumexp_far_out():
    assert special.logsumexp(np.array([1e4, -np.inf]), b=np.array([2.0, 1.0])) == 1e4 + np.log(2.0)
    assert special.logsumexp(np.array([1.0, 1e4]), b=np.array([1.0, 0.0])) == 1.0
    g = fg.grad(lambda x: special.logsumexp(x, b=np.array([1.0, 0.0])))(np.array([1.0, 1e4]))
    assert g.tolist() == [1.0, 0.0]
    assert fg.grad(lambda x: special.logsumexp(x, b=np.array([1.0, 1.0])))(np.array([1.0, -np.inf])).tolist() == [1.0, 0.0]
    assert special.logsumexp(np.full(2, -np.inf), b=np.ones(2)) == -np.inf


EXACT = {
    "gamma": (mpmath.gamma, [1e-3, 0.5, 3.3, 30.0]), "logit": (lambda p: mpmath.log(p / (1 - p)), [1e-12, 0.3, 0.4999999, 0.5000001, 0.9]),
    "ndtr": (mpmath.ncdf, [-20.0, -1.0, 0.0, 3.0]), "log_ndtr": (lambda x: mpmath.log(mpmath.ncdf(x)), [-30.0, -1.0, 0.3, 5.0]),
    "erfinv": (mpmath.erfinv, [-0.9, 1e-9, 0.5]), "i0": (lambda x: mpmath.besseli(0, x), [0.0, 1.0, 20.0]),
    "i1": (lambda x: mpmath.besseli(1, x), [0.0, 1.0, 20.0]), "entr": (lambda x: -x * mpmath.log(x), [1e-30, 0.3, 7.0]),
    "log_expit": (lambda x: -mpmath.log(1 + mpmath.exp(-x)), [-700.0, -1.0, 30.0]),
}


@pytest.mark.parametrize("name", EXACT)
def test_values_and_derivatives_are_accurate(name):
    exact, points = EXACT[name]
    f = getattr(special, name)
    with mpmath.workdps(60):
        for x in points:
            for ours, right in ((float(f(x)), exact(mpmath.mpf(x))), (float(fg.grad(f)(x)), mpmath.diff(exact, mpmath.mpf(x)))):
                assert abs(ours - right) <= 1e-13 * abs(right) + 1e-300, (name, x, ours, right)


def test_special_places():
    grad = fg.grad
    assert special.xlogy(0.0, 0.0) == 0 and np.isnan(float(special.xlogy(0.0, np.nan)))
    assert grad(special.xlogy)(0.0, 2.0) == np.log(2.0) and grad(special.xlogy, 1)(0.0, 0.0) == 0
    assert grad(special.xlogy)(0.0, 0.0) == 0 and special.xlog1py(0.0, -1.0) == 0
    assert grad(special.entr)(0.0) == np.inf and special.entr(-1.0) == -np.inf and grad(special.entr)(-1.0) == 0
    assert grad(special.i1)(0.0) == 0.5 and grad(special.i0)(0.0) == 0 and grad(special.i1e)(0.0) == 0.5
    assert grad(special.log_ndtr)(100.0) == 0 and abs(float(grad(special.log_ndtr)(-1e8)) / 1e8 - 1) < 1e-12
    assert special.logit(0.0) == -np.inf and special.logit(1.0) == np.inf and np.isnan(float(special.logit(2.0)))
    assert grad(special.logit)(0.0) == np.inf and grad(special.logit)(0.5) == 4
    x = np.array([0.5, np.nan, 2.0])
    assert np.isnan(grad(lambda x: special.gamma(x).sum())(x)).tolist() == [False, True, False]


def test_contract_47_shapes_that_do_not_fit_are_said():
    with pytest.raises(ValueError, match=r"beta: shapes \(2,\) and \(3,\)"):
        special.beta(np.ones(2), np.ones(3))


def test_without_scipy_one_sentence_says_what_to_install():
    code = ("import sys; sys.modules['scipy'] = None; sys.modules['scipy.special'] = None\n"
            "import fastgrad as fg\n"
            "assert fg.special.erf(0.0) == 0 and fg.special.expit(0.0) == 0.5\n"
            "try:\n    fg.special.gamma(1.0)\nexcept ImportError as e:\n    assert 'install scipy' in str(e), e\nelse:\n    raise SystemExit(1)\n")
    import os
    path = str(Path(fg.__file__).parent.parent)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
