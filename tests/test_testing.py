"""fg.testing.check_grads passes what is right, and finds and names what is wrong."""

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad.testing import check_grads

X = np.array([0.3, -1.2, 2.0])
M = np.random.default_rng(3).normal(size=(4, 5))

RIGHT = {
    "elementwise": (lambda x: np.exp(x) * np.sin(x), (X,)),
    "abs away from 0": (lambda x: np.abs(x) * x, (X,)),
    "products": (lambda a, b: np.tanh(a @ b.T), (M, M[:3] + 0.5)),
    "a number": (lambda x: x ** 3, (1.5,)),
    "trees": (lambda p: {"a": p["w"] * p["b"][0], "n": 3}, ({"w": X, "b": (2.0,)},)),
    "integers pass": (lambda x, k: x ** k, (X, 3)),
    "softmax": (lambda x: fnp.log_softmax(x), (M,)),
    "float32": (lambda x: np.tanh(x) ** 2, (X.astype(np.float32),)),
    "large": (lambda x: (np.sin(x) ** 2).sum(), (1000 * np.random.default_rng(1).normal(size=40),)),
    "not complex": (lambda x: fnp.where(x > 0, x * x, np.sin(x)), (X,)),
    "reductions": (lambda x: x.max(0) * x.mean(0), (M,)),
}


@pytest.mark.parametrize("name", list(RIGHT))
@pytest.mark.parametrize("modes", [("fwd", "rev"), ("rev",), "fwd"])
def test_right_derivatives_pass(name, modes):
    f, args = RIGHT[name]
    check_grads(f, args, modes=modes)
    check_grads(f, args, order=1, modes=modes)


def wrong(vjp, value=lambda x: np.sin(x)):
    f = fg.custom_vjp(value)
    f.defvjp(lambda x: (value(x), x), vjp)
    return f


CAUSES = {
    "sign": (wrong(lambda x, g: (-g * np.cos(x),)), "the sign"),
    "factor": (wrong(lambda x, g: (g * np.cos(x) / 2,)), "factor of 2 that is missing"),
    "too much": (wrong(lambda x, g: (g * np.cos(x) * 3,)), "factor of 3 too much"),
    "lost": (wrong(lambda x, g: (None,)), "lost"),
    "detached": (lambda x: np.sin(fg.stop_gradient(x)), "lost"),
    "nan": (wrong(lambda x, g: (g * np.nan,)), "NaN"),
    "other": (wrong(lambda x, g: (g * np.cos(x) + 0.123 * x,)), "a rule that is wrong"),
}


@pytest.mark.parametrize("name", list(CAUSES))
def test_a_wrong_derivative_is_named_with_its_cause(name):
    f, cause = CAUSES[name]
    with pytest.raises(AssertionError, match=cause) as caught:
        check_grads(f, (X,), modes="rev", order=1)
    text = str(caught.value)
    assert "argument 0, element (0,)" in text and "reverse mode" in text


def test_both_numbers_are_named():
    with pytest.raises(AssertionError, match=r"gives -0.955336489 where 0.955336489 is due \(the result"):
        check_grads(lambda x: CAUSES["sign"][0](x), (0.3,), modes="rev")


def test_a_wrong_rule_in_forward_mode():
    f = fg.custom_jvp(lambda x: np.sin(x))
    f.defjvp(lambda p, t: (f(p[0]), -t[0] * np.cos(p[0])))
    with pytest.raises(AssertionError, match="forward mode"):
        check_grads(f, (X,))


def test_the_element_of_a_large_argument():
    def vjp(x, g):
        c = g * np.cos(x)
        return (c * np.where(np.arange(20) == 13, 1.5, 1.0),)

    with pytest.raises(AssertionError, match=r"argument 0, element \(13,\)"):
        check_grads(wrong(vjp), (np.linspace(-1, 1, 20),), modes="rev")


def test_the_second_derivative_alone_is_wrong():
    # the gradient is right, and cut off from what it depends on
    f = wrong(lambda x, g: (g * fg.stop_gradient(np.cos(x)),))
    check_grads(f, (X,), order=1, modes="rev")
    with pytest.raises(AssertionError, match="second derivative"):
        check_grads(f, (X,), modes="rev")


def test_a_kink_is_named():
    with pytest.raises(AssertionError, match="kink"):
        check_grads(lambda x: np.abs(x), (np.array([1.0, 4e-6]),), order=1)
    check_grads(lambda x: np.abs(x), (np.array([1.0, 0.5]),), order=1)


def test_float32_precision_is_named():
    f = lambda x: (x * 1000.0 + x) - x * 1000.0
    with pytest.raises(AssertionError, match="float32 precision"):
        check_grads(f, (np.array([0.3], np.float32),), order=1, eps=3e-4, rtol=1e-4, atol=1e-5)


def test_the_complex_step_sees_what_differences_cannot():
    f = wrong(lambda x, g: (g * np.cos(x) * (1 + 3e-6),))
    with pytest.raises(AssertionError):
        check_grads(f, (X,), modes="rev", order=1, rtol=1e-8, atol=1e-12)
    check_grads(lambda x: np.sin(x) ** 2, (X,), order=1, rtol=1e-13, atol=1e-14)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="modes"):
        check_grads(np.sin, (X,), modes="both")
    with pytest.raises(ValueError, match="order"):
        check_grads(np.sin, (X,), order=3)
    with pytest.raises(ValueError, match="nothing to differentiate"):
        check_grads(np.sin, (3,))
