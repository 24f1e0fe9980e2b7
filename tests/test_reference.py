"""The pure-Python engine, the oracle of the other tests, held against mathematics alone."""

import cmath
import doctest
import math
import sys

import pytest

from fastgrad import reference as ref
from fastgrad.reference import Tape, gradient, value_and_grad

inf, nan = math.inf, math.nan


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


def test_the_docstring_teaches_what_is_true():
    assert doctest.testmod(ref).failed == 0


ANALYTIC = {
    "exp": (ref.exp, cmath.exp),
    "log": (ref.log, cmath.log),
    "sqrt": (ref.sqrt, cmath.sqrt),
    "sin": (ref.sin, cmath.sin),
    "cos": (ref.cos, cmath.cos),
    "tanh": (ref.tanh, cmath.tanh),
    "sigmoid": (ref.sigmoid, lambda z: 1 / (1 + cmath.exp(-z))),
    "negative": (lambda x: -x, lambda z: -z),
    "add float": (lambda x: x + 3, lambda z: z + 3),
    "float add": (lambda x: 3 + x, lambda z: 3 + z),
    "subtract float": (lambda x: x - 3, lambda z: z - 3),
    "float subtract": (lambda x: 3 - x, lambda z: 3 - z),
    "multiply float": (lambda x: x * 3, lambda z: z * 3),
    "float multiply": (lambda x: 3 * x, lambda z: 3 * z),
    "divide float": (lambda x: x / 3, lambda z: z / 3),
    "float divide": (lambda x: 3 / x, lambda z: 3 / z),
    "power float": (lambda x: x**2.5, lambda z: z**2.5),
    "float power": (lambda x: 2.5**x, lambda z: 2.5**z),
    "composite": (
        lambda x: ref.exp(-x * x / 2) * ref.sin(3 * x) / ref.sqrt(1 + x**2),
        lambda z: cmath.exp(-z * z / 2) * cmath.sin(3 * z) / cmath.sqrt(1 + z**2),
    ),
}


@pytest.mark.parametrize("name", ANALYTIC)
@pytest.mark.parametrize("x", [0.3, 1.0, 4.7])
def test_value_and_derivative_agree_with_the_complex_step(name, x):
    function, analytic = ANALYTIC[name]
    value, (derivative,) = value_and_grad(function)(x)
    step = analytic(complex(x, 1e-200))
    assert value == pytest.approx(step.real, rel=1e-14)
    assert derivative == pytest.approx(step.imag / 1e-200, rel=1e-13)


@pytest.mark.parametrize(
    ("function", "by_x", "by_y"),
    [
        (lambda x, y: x + y, 1, 1),
        (lambda x, y: x - y, 1, -1),
        (lambda x, y: x * y, 0.4, 1.7),
        (lambda x, y: x / y, 1 / 0.4, -1.7 / 0.4**2),
        (lambda x, y: x**y, 0.4 * 1.7**-0.6, 1.7**0.4 * math.log(1.7)),
        (ref.maximum, 1, 0),
        (ref.minimum, 0, 1),
    ],
)
def test_two_operands(function, by_x, by_y):
    assert value_and_grad(function)(1.7, 0.4)[1] == pytest.approx([by_x, by_y], rel=1e-14)


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid"])
@pytest.mark.parametrize("x", [1e-9, 0.1, 2.0, 17.0])
def test_derivatives_keep_their_digits(name, x):
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        function = getattr(mpmath, name, lambda z: 1 / (1 + mpmath.exp(-z)))
        exact = float(mpmath.diff(function, mpmath.mpf(x), h=mpmath.mpf(10) ** -25))
    rel = 0.05 if (name, x) == ("tanh", 17.0) else 1e-13  # there tanh itself has one digit left below 1
    assert value_and_grad(getattr(ref, name))(x)[1][0] == pytest.approx(exact, rel=rel)


KINKS = [
    ("abs at 0", abs, 0.0, 0.0, 0.0),
    ("abs at -0", abs, -0.0, 0.0, 0.0),
    ("relu at 0", ref.relu, 0.0, 0.0, 0.0),
    ("relu at -0", ref.relu, -0.0, 0.0, 0.0),
    ("sqrt at 0", ref.sqrt, 0.0, 0.0, inf),
    ("sqrt at -0", ref.sqrt, -0.0, 0.0, inf),
    ("sqrt of a negative", ref.sqrt, -1.0, nan, nan),
    ("log at 0", ref.log, 0.0, -inf, inf),
    ("log at -0", ref.log, -0.0, -inf, inf),
    ("reciprocal at 0", lambda x: 1 / x, 0.0, inf, -inf),
    ("exp beyond the largest float", ref.exp, 1e3, inf, inf),
    ("exp far below", ref.exp, -1e3, 0.0, 0.0),
    ("tanh far out", ref.tanh, 1e200, 1.0, 0.0),
    ("sigmoid far out", ref.sigmoid, 1e3, 1.0, 0.0),
    ("sigmoid far below", ref.sigmoid, -1e3, 0.0, 0.0),
    ("sin of infinity", ref.sin, inf, nan, nan),
    ("cos of infinity", ref.cos, inf, nan, nan),
    ("x**0 at 0", lambda x: x**0, 0.0, 1.0, 0.0),
    ("x**0.5 at 0", lambda x: x**0.5, 0.0, 0.0, inf),
    ("x**1 at 0", lambda x: x**1, 0.0, 0.0, 1.0),
    ("x**2 at 0", lambda x: x**2, 0.0, 0.0, 0.0),
    ("x**3 of a negative", lambda x: x**3, -2.0, -8.0, 12.0),
    ("x**0.5 of a negative", lambda x: x**0.5, -2.0, nan, nan),
    ("x**-1 at 0", lambda x: x**-1, 0.0, inf, -inf),
    ("power that overflows", lambda x: x**301, -1e3, -inf, inf),
    ("0**y, y > 0", lambda y: 0.0**y, 2.0, 0.0, 0.0),
    ("NaN", ref.relu, nan, nan, nan),
    ("abs of NaN", abs, nan, nan, nan),
    ("zero cotangent meets infinity", lambda x: 0 * ref.sqrt(x), 0.0, 0.0, 0.0),
    ("where hides the other branch", lambda x: ref.where(x > 0, ref.sqrt(x), 0.0), 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize(
    ("function", "x", "value", "derivative"), [row[1:] for row in KINKS], ids=[row[0] for row in KINKS]
)
def test_where_calculus_is_silent(function, x, value, derivative):
    got, (slope,) = value_and_grad(function)(x)
    assert same(got, value), got
    assert same(slope, derivative), slope


@pytest.mark.parametrize("function", [ref.maximum, ref.minimum])
def test_a_tie_is_shared(function):
    assert value_and_grad(function)(2.0, 2.0) == (2.0, [0.5, 0.5])


def test_a_negative_base_leaves_the_gradient_by_the_base_alone():
    value, (by_base, by_exponent) = value_and_grad(lambda x, y: x**y)(-2.0, 3.0)
    assert (value, by_base) == (-8.0, 12.0)
    assert math.isnan(by_exponent)


def test_contributions_of_several_uses_add_up():
    assert value_and_grad(lambda x: x * x * x + x)(3.0)[1] == [28.0]


def test_sixty_diamonds_take_linear_time():
    def diamonds(x):
        for _ in range(60):
            x = x + x
        return x

    assert value_and_grad(diamonds)(1.0) == (2.0**60, [2.0**60])


def test_a_second_sweep_gives_the_same():
    tape = Tape()
    x, y = tape.variable(0.5), tape.variable(2.0)
    out = ref.tanh(x * y)
    assert gradient(out, [x, y]) == gradient(out, [x, y])


def test_an_intermediate_result_has_a_gradient_too():
    tape = Tape()
    x = tape.variable(3.0)
    square = x * x
    assert gradient(square * 5, [square, x]) == [5.0, 30.0]


def test_what_does_not_lead_to_the_output_has_gradient_zero():
    tape = Tape()
    x, unused = tape.variable(3.0), tape.variable(1.0)
    out = 2 * x
    x * unused
    assert gradient(out, [x, unused]) == [2.0, 0.0]
    assert value_and_grad(lambda x: 7.0)(1.0) == (7.0, [0.0])


def test_depth_is_no_matter():
    steps = 20 * sys.getrecursionlimit()

    def walk(x):
        for _ in range(steps):
            x = x + 1.0
        return x

    assert value_and_grad(walk)(0.0) == (steps, [1.0])


def test_functions_of_plain_floats_are_plain_floats():
    assert ref.tanh(0.5) == math.tanh(0.5)
    assert ref.maximum(1.0, 2.0) == 2.0
    assert ref.minimum(1.0, 2.0) == 1.0


def test_comparisons_look_at_the_value():
    x = Tape().variable(2.0)
    assert x > 1 and x >= 2 and x < 3 and x <= 2 and x == 2 and x != 3
    assert not Tape().variable(0.0)
    assert len({x, x}) == 1


def test_tapes_do_not_mix():
    x, y = Tape().variable(1.0), Tape().variable(2.0)
    with pytest.raises(ValueError, match="different tapes"):
        x * y
    with pytest.raises(ValueError, match="another tape"):
        gradient(x * 2, [y])
