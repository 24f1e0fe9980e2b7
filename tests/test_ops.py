"""The table of elementary operations, row by row: values, derivatives of every order, delicate points, layouts, dtypes.

Everything is driven by ``fastgrad._core.ops.OPS``.  What a row computes is stated here once more, independently, in
``REFERENCES``: its value over mpmath numbers.  Derivatives of any order come from central differences of that at 400
bits, which also give the mean of the one-sided slopes at a kink.  Where that is not the answer that the contract gives,
``AT_SPECIAL_POINTS`` states it.  A new row needs a reference, and its special points an answer; the tests ask for both.
"""

import ast
import doctest
import functools
import importlib.util
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import engine, ops

mp = pytest.importorskip("mpmath")

INF, NAN = math.inf, math.nan
ROWS = {op.name: op for op in ops.OPS}
DIFFERENTIABLE = [op.name for op in ops.OPS if op.differentiable]
PARTIALS = [(op.name, k) for op in ops.OPS for k, text in enumerate(op.partials) if text is not None]
UNARY = [op.name for op in ops.OPS if op.arity == 1]
BINARY = [op.name for op in ops.OPS if op.arity == 2]
F64, F32 = np.float64, np.float32

TWINS = [op.name for op in ops.OPS if op.numpy_name is not None]

each_row = pytest.mark.parametrize("name", list(ROWS))
each_differentiable_row = pytest.mark.parametrize("name", DIFFERENTIABLE)
each_row_with_a_numpy_twin = pytest.mark.parametrize("name", TWINS)
each_partial = pytest.mark.parametrize("name, k", PARTIALS, ids=[f"{name}-d{'xyz'[k]}" for name, k in PARTIALS])
each_dtype = pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])


def function(name):
    """The public function of a row."""
    return getattr(fnp, name)


# ------------------------------------------------------------------------------------------------------ the references


def _mod(x, y):
    return x - y * mp.floor(x / y)


def _fmod(x, y):
    q = x / y
    return x - y * (mp.floor(q) if q >= 0 else mp.ceil(q))


def _trunc(x):
    return mp.floor(x) if x >= 0 else mp.ceil(x)


def _expm1(x):
    return mp.expm1(x) if x > -1e4 else mp.mpf(-1)


def _sigmoid(x):
    return 1 / (1 + mp.exp(-x)) if x > -1e6 else mp.mpf(0)


def _power(x, y):
    if x == 0:
        return mp.mpf(1 if y == 0 else 0 if y > 0 else INF)
    return mp.re(mp.power(x, y)) if x > 0 or y == mp.floor(y) else mp.nan


def _logaddexp(x, y):
    return max(x, y) + mp.log1p(mp.exp(-abs(x - y)))


def _hypot(x, y):
    return mp.sqrt(x * x + y * y)


def _minimum(x, y):
    return x if x <= y else y


def _maximum(x, y):
    return x if x >= y else y


REFERENCES = {
    "negative": lambda x: -x,
    "positive": lambda x: x,
    "absolute": lambda x: x if x >= 0 else -x,
    "sign": mp.sign,
    "reciprocal": lambda x: 1 / x,
    "square": lambda x: x * x,
    "sqrt": mp.sqrt,
    "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)),
    "deg2rad": lambda x: x * mp.pi / 180,
    "rad2deg": lambda x: x * 180 / mp.pi,
    "exp": mp.exp,
    "exp2": lambda x: mp.power(2, x),
    "expm1": _expm1,
    "log": mp.log,
    "log2": lambda x: mp.log(x) / mp.log(2),
    "log10": mp.log10,
    "log1p": mp.log1p,
    "sin": mp.sin,
    "cos": mp.cos,
    "tan": mp.tan,
    "arcsin": mp.asin,
    "arccos": mp.acos,
    "arctan": mp.atan,
    "sinc": lambda x: mp.sin(mp.pi * x) / (mp.pi * x) if x else mp.mpf(1),
    "sinh": mp.sinh,
    "cosh": mp.cosh,
    "tanh": lambda x: mp.tanh(x) if abs(x) < 1e6 else mp.sign(x),
    "arcsinh": mp.asinh,
    "arccosh": mp.acosh,
    "arctanh": mp.atanh,
    "sigmoid": _sigmoid,
    "softplus": lambda x: _logaddexp(x, mp.mpf(0)),
    "relu": lambda x: x if x > 0 else mp.mpf(0),
    "leaky_relu": lambda x, slope: x if x > 0 else slope * x,
    "elu": lambda x, alpha: x if x > 0 else alpha * mp.expm1(x),
    "selu": lambda x: ops.CONSTANTS["selu_scale"] * (x if x > 0 else ops.CONSTANTS["selu_alpha"] * mp.expm1(x)),
    "gelu": lambda x: x * mp.ncdf(x),
    "silu": lambda x: x * _sigmoid(x),
    "softsign": lambda x: x / (1 + abs(x)),
    "erf": mp.erf,
    "erfc": mp.erfc,
    "gammaln": lambda x: mp.re(mp.loggamma(x)),
    "digamma": lambda x: mp.psi(0, x),
    "polygamma": lambda n, x: mp.psi(int(n), x),
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "power": _power,
    "float_power": _power,
    "maximum": _maximum,
    "minimum": _minimum,
    "fmax": _maximum,
    "fmin": _minimum,
    "arctan2": mp.atan2,
    "hypot": _hypot,
    "logaddexp": _logaddexp,
    "logaddexp2": lambda x, y: _logaddexp(x * mp.ln2, y * mp.ln2) / mp.ln2,
    "fmod": _fmod,
    "mod": _mod,
    "floor_divide": lambda x, y: mp.floor(x / y),
    "copysign": lambda x, y: abs(x) * (1 if y >= 0 else -1),
    "heaviside": lambda x, y: mp.mpf(1 if x > 0 else 0) if x else y,
    "where": lambda c, x, y: x if c else y,
    "clip": lambda x, low, high: _minimum(_maximum(x, low), high),
    "guarded_multiply": lambda x, y: x * y,
    "floor": mp.floor,
    "ceil": mp.ceil,
    "trunc": _trunc,
    "rint": mp.nint,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "equal": lambda x, y: x == y,
    "not_equal": lambda x, y: x != y,
    "logical_and": lambda x, y: x != 0 and y != 0,
    "logical_or": lambda x, y: x != 0 or y != 0,
    "logical_xor": lambda x, y: (x != 0) != (y != 0),
    "logical_not": lambda x: x == 0,
    "isfinite": mp.isfinite,
    "isnan": mp.isnan,
    "isinf": mp.isinf,
}

# Points besides those drawn from a row's domain: branches that chance does not meet.
MORE_SAMPLES = {
    "where": [(0.0, 1.5, -2.0), (0.0, -0.5, 0.25)],
    "heaviside": [(0.0, 0.5), (0.0, -1.5)],
    "sinc": [(0.2475,), (-0.2475,), (0.2,), (0.125,), (-0.03125,)],
    "digamma": [(-0.5,), (-1.25,)],
    "gammaln": [(-0.5,), (-1.25,)],
    "polygamma": [(2.0, 0.5), (3.0, 1.75)],
    "power": [(-2.0, 3.0), (-1.5, -2.0)],
    "float_power": [(-2.0, 3.0)],
    "arctan2": [(-1.5, 2.0), (1.5, -2.0), (-0.5, -2.0)],
    "maximum": [(1.0, 1.0)],
    "minimum": [(1.0, 1.0)],
    "fmax": [(1.0, 1.0)],
    "fmin": [(1.0, 1.0)],
    "clip": [(0.25, -0.5, 0.5), (-0.125, -0.75, 0.5), (-2.0, -0.75, 0.5), (2.0, -0.75, 0.5), (0.375, -0.5, 0.75)],
    "elu": [(-0.5, 1.25), (0.5, 1.25)],
    "leaky_relu": [(-0.5, 0.125), (0.5, 0.125)],
}

# The gradients at special points where the reference has no number, or not the one that the contract gives.
AT_SPECIAL_POINTS = {
    "absolute": {INF: 1, -INF: -1},
    "reciprocal": {0.0: -INF},
    "square": {INF: INF, -INF: -INF},
    "sqrt": {0.0: INF, INF: 0},
    "cbrt": {0.0: INF, INF: 0},
    "exp": {INF: INF, -INF: 0},
    "exp2": {INF: INF, -INF: 0},
    "expm1": {1e200: INF, -1e200: 0},
    "log": {0.0: INF, INF: 0},
    "log2": {0.0: INF},
    "log10": {0.0: INF},
    "log1p": {-1.0: INF},
    "arcsin": {1.0: INF, -1.0: INF, 2.0: NAN},
    "arccos": {1.0: -INF, -1.0: -INF, 2.0: NAN},
    "arccosh": {1.0: INF},
    "arctanh": {1.0: INF, -1.0: INF},
    "tanh": {1e200: 0, -1e200: 0},
    "sigmoid": {1e200: 0, -1e200: 0},
    "softplus": {1e200: 1, -1e200: 0},
    "relu": {0.0: 0, INF: 1, -INF: 0},
    "leaky_relu": {(0.0, 0.01): (0.01, 0)},
    "selu": {0.0: ops.CONSTANTS["selu_scale"]},
    "divide": {(1.0, 0.0): (INF, -INF)},
    "power": {(0.0, 0.0): (0, -INF), (0.0, 0.5): (INF, 0), (0.0, 1.0): (1, 0), (0.0, 2.0): (0, 0),
              (-2.0, 3.0): (12, NAN), (-2.0, 2.0): (-4, NAN)},
    "float_power": {(0.0, 0.0): (0, -INF), (-2.0, 3.0): (12, NAN)},
    "arctan2": {(0.0, 0.0): (0, 0), (0.0, -1.0): (-1, 0)},
    "hypot": {(0.0, 0.0): (0, 0)},
    "logaddexp": {(-INF, -INF): (0.5, 0.5), (-INF, 1.0): (0, 1), (INF, 1.0): (1, 0)},
    "logaddexp2": {(-INF, -INF): (0.5, 0.5), (-INF, 1.0): (0, 1)},
    "copysign": {(1.0, -0.0): (-1, None)},
    "clip": {(-0.5, -0.5, 0.5): (1, 0, 0), (0.5, -0.5, 0.5): (1, 0, 0)},
    "guarded_multiply": {(0.0, INF): (0, 0)},
}

BITS = 400
FAR_BITS = 1700  # enough to see differences at 1e200


def derivative(f, point, operands, bits=BITS):
    """The derivative of an mpmath function by these operands, one after the other, as a float; () is the value."""
    with mp.workprec(bits):
        step = mp.ldexp(1, -100)

        def at(values, left):
            if not left:
                return f(*values)
            k = left[0]
            h = step * (min(1, abs(values[k])) or 1)
            up, down = list(values), list(values)
            up[k] += h
            down[k] -= h
            return (at(up, left[1:]) - at(down, left[1:])) / (2 * h)

        value = at([mp.mpf(v) for v in point], tuple(operands))
        if isinstance(value, mp.mpc):
            raise ValueError("no real value")
        return float(value)


def as_tuple(point):
    return point if isinstance(point, tuple) else (point,)


@functools.lru_cache(None)
def samples(name):
    """Points as one float64 array an operand; the numbers are float32's too."""
    row = ROWS[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    drawn = [rng.uniform(low, high, 11) for low, high in row.domain]
    more = MORE_SAMPLES.get(name, [])
    arrays = [np.append(a, [point[k] for point in more]).astype(F32).astype(F64) for k, a in enumerate(drawn)]
    for a in arrays:
        a.setflags(write=False)
    return tuple(arrays)


@functools.lru_cache(None)
def expected(name, operands=()):
    """The reference's derivative by these operands at the samples."""
    values = np.array([derivative(REFERENCES[name], point, operands) for point in zip(*samples(name))])
    undefined = [np.isnan(v) for v in values]
    if name in ("power", "float_power") and 1 in operands:
        values[samples(name)[0] < 0] = NAN
    elif any(undefined):
        raise ValueError(f"{name}: the reference has no derivative by {operands} at a sample")
    return values


def special_answer(name, point, k):
    """The derivative by operand k that the contract gives at a special point."""
    given = AT_SPECIAL_POINTS.get(name, {}).get(point if ROWS[name].arity > 1 else as_tuple(point)[0])
    if given is not None and as_tuple(given)[k] is not None:
        return float(as_tuple(given)[k])
    return derivative(REFERENCES[name], as_tuple(point), (k,), FAR_BITS)


# ------------------------------------------------------------------------------------------------------- the questions


def gradient(name, k, arrays, f=None):
    """The gradient of the sum of a row by operand k, from reverse mode."""
    f = f or function(name)
    arrays = list(arrays)

    def total(a):
        return f(*arrays[:k], a, *arrays[k + 1:]).sum()

    return fg.grad(total)(arrays[k])


def along(f, x):
    """The derivative of an elementwise function of one array, from forward mode; differentiable again."""
    return fg.jvp(f, (x,), (fnp.ones(x.shape, x.dtype),))[1]


def back(f, x):
    """The same from reverse mode."""
    return fg.vjp(f, x)[1](fnp.ones(x.shape, x.dtype))[0]


def check(got, exact, dtype=F64, slack=1.0):
    """The comparison of all gradient tests: relative to the exact number, absolute only next to 0."""
    tolerance = slack * (1e-13 if dtype == F64 else 2e-5)
    got = np.asarray(got, F64)
    exact = np.asarray(exact, F64)
    assert got.shape == exact.shape
    with np.errstate(all="ignore"):
        close = np.abs(got - exact) <= tolerance * np.abs(exact) + tolerance / 100
    right = close | (got == exact) | (np.isnan(got) & np.isnan(exact))
    assert right.all(), [(i, float(got[i]), float(exact[i])) for i in np.flatnonzero(~right)[:4]] \
        if got.ndim else (float(got), float(exact))


def ulps_apart(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype and a.shape == b.shape
    if a.dtype == bool:
        return float(np.any(a != b))
    with np.errstate(all="ignore"):
        gap = np.abs(a - b) / np.spacing(np.maximum(np.abs(a), np.abs(b)))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return float(np.max(np.where(same, 0, np.where(np.isnan(gap), INF, gap)), initial=0))


def numpys(name, *arrays):
    """NumPy's value, None for a row without NumPy twin."""
    if ROWS[name].numpy_name is None:
        return None
    with np.errstate(all="ignore"):
        return getattr(np, ROWS[name].numpy_name)(*arrays)


def tensors(arrays, requires_grad=True):
    return [fg.tensor(a, requires_grad=requires_grad) for a in arrays]


def value_and_gradients(name, arrays):
    """A row's value and its gradients by all differentiable operands, the cotangent being 1."""
    row = ROWS[name]
    leaves = [fg.tensor(a, requires_grad=p is not None) for a, p in zip(arrays, row.partials)]
    out = function(name)(*leaves)
    if row.differentiable:
        out.backward(np.ones(out.shape, out.dtype))
    return out.numpy(), [leaf.grad.numpy() for leaf, p in zip(leaves, row.partials) if p is not None]


# ------------------------------------------------------------------------------------------------- the table is covered


@each_row
def test_every_row_has_a_reference(name):
    assert name in REFERENCES, (
        f"the row {name!r} is new: add its value over mpmath numbers to REFERENCES, from a formula that is not the row's")
    assert all(low <= high for low, high in ROWS[name].domain)
    assert np.isfinite(samples(name)).all()


@each_row
def test_every_special_point_has_an_answer(name):
    row = ROWS[name]
    for point in row.special:
        assert len(as_tuple(point)) == row.arity, f"{name}: the special point {point} has not {row.arity} operands"
        for k, text in enumerate(row.partials):
            if text is None:
                continue
            try:
                special_answer(name, point, k)
            except Exception as error:
                pytest.fail(f"{name} at {point}: the reference has no derivative there ({error}); add the answer to "
                            "AT_SPECIAL_POINTS")


def test_references_and_answers_are_of_rows_only():
    assert set(REFERENCES) <= set(ROWS)
    assert set(MORE_SAMPLES) <= set(ROWS)
    for name, answers in AT_SPECIAL_POINTS.items():
        assert set(answers) <= set(ROWS[name].special)


@each_row
def test_a_row_is_public_under_its_name(name):
    assert name in fnp.__all__
    assert callable(getattr(fnp, name))
    if ROWS[name].numpy_name:
        assert callable(getattr(np, ROWS[name].numpy_name))


@each_row
def test_a_row_says_in_one_line_what_it_is(name):
    text = function(name).__doc__
    assert ROWS[name].says.endswith(".")
    assert "Parameters" in text and "Returns" in text


@each_row
def test_the_examples_of_a_docstring_run(name):
    text = getattr(engine, name).__doc__
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert example.examples
    report = []
    assert doctest.DocTestRunner(verbose=False).run(example, out=report.append).failed == 0, "".join(report)


# --------------------------------------------------------------------------------------------------------------- values


@each_dtype
@each_row_with_a_numpy_twin
def test_value_is_numpys(name, dtype):
    arrays = [a.astype(dtype) for a in samples(name)]
    theirs, ours = numpys(name, *arrays), function(name)(*arrays).numpy()
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=16 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


@each_dtype
@each_row
def test_value_is_exact_to_a_few_ulp(name, dtype):
    ours = function(name)(*[a.astype(dtype) for a in samples(name)]).numpy()
    check(ours, expected(name), dtype, slack=0.05)


@each_row_with_a_numpy_twin
def test_numpys_own_name_leads_to_the_row(name):
    arrays = samples(name)
    through = getattr(np, ROWS[name].numpy_name)(*tensors(arrays))
    assert isinstance(through, fg.Tensor)
    assert ulps_apart(through.detach().numpy(), function(name)(*arrays).numpy()) == 0
    assert through.requires_grad == ROWS[name].differentiable


@each_dtype
@pytest.mark.parametrize("name", [n for n in TWINS if ROWS[n].special])
def test_special_values_are_numpys(name, dtype):
    points = [as_tuple(point) for point in ROWS[name].special]
    with np.errstate(over="ignore"):
        arrays = [np.array(a).astype(dtype) for a in zip(*points)]
    ours, theirs = function(name)(*arrays).numpy(), numpys(name, *arrays)
    # sinc(1) is the rounding error of pi in NumPy and exactly 0 here
    np.testing.assert_allclose(ours, theirs, rtol=16 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)
    nonzero = np.abs(theirs) > np.finfo(dtype).eps
    np.testing.assert_array_equal(np.signbit(ours[nonzero]), np.signbit(theirs[nonzero]))


@each_row
def test_value_is_bitwise_the_same_recorded_or_not(name):
    arrays = samples(name)
    plain = function(name)(*arrays).numpy()
    recorded = function(name)(*tensors(arrays)).detach().numpy()
    with fg.no_grad():
        unrecorded = function(name)(*tensors(arrays)).numpy()
    assert plain.tobytes() == recorded.tobytes() == unrecorded.tobytes()
    for point in zip(*(a.tolist() for a in arrays)):
        plain = function(name)(*point)
        recorded = function(name)(*tensors(point)).detach()
        assert plain.numpy().tobytes() == recorded.numpy().tobytes()


@each_row
def test_numbers_give_what_arrays_give(name):
    arrays = samples(name)
    together, gradients = value_and_gradients(name, arrays)
    for i, point in enumerate(zip(*(a.tolist() for a in arrays))):
        alone, slopes = value_and_gradients(name, point)
        assert alone.shape == ()
        assert ulps_apart(alone, together[i]) <= 2
        for one, many in zip(slopes, gradients):
            assert one.shape == ()
            assert ulps_apart(one, many[i]) <= 2


# ---------------------------------------------------------------------------------------------------------- derivatives


@each_dtype
@each_partial
def test_gradient_is_the_derivative(name, k, dtype):
    got = gradient(name, k, [a.astype(dtype) for a in samples(name)])
    assert got.dtype == dtype
    check(got, expected(name, (k,)), dtype)


@each_partial
def test_gradient_of_numbers_is_the_derivative(name, k):
    got = []
    for point in zip(*(a.tolist() for a in samples(name))):
        leaves = tensors(point)
        function(name)(*leaves).backward()
        got.append(leaves[k].grad.item())
    check(got, expected(name, (k,)))


@each_partial
def test_a_cotangent_scales_the_gradient(name, k):
    arrays = samples(name)
    cotangent = np.linspace(-2, 3, arrays[0].size)
    pull = fg.vjp(lambda a: function(name)(*arrays[:k], a, *arrays[k + 1:]), arrays[k])[1]
    check(pull(cotangent)[0], cotangent * expected(name, (k,)))


@each_dtype
@each_partial
def test_forward_mode_equals_reverse_mode(name, k, dtype):
    arrays = [a.astype(dtype) for a in samples(name)]
    primals, tangents = tuple(arrays), tuple(np.full_like(a, 1.0 if j == k else 0.0) for j, a in enumerate(arrays))
    value, slope = fg.jvp(function(name), primals, tangents)
    assert slope.dtype == value.dtype
    check(slope, gradient(name, k, arrays), dtype)
    assert ulps_apart(value, function(name)(*arrays).numpy()) == 0


@pytest.mark.parametrize("mode", [back, along], ids=["reverse", "forward"])
@each_partial
def test_a_float64_with_float32_operands_has_a_float64_derivative(name, k, mode):
    """Not rounded to float32 on the way: samples are numbers of both, so that the derivative is the same."""
    arrays = samples(name)
    for wide in range(len(arrays)):
        given = [a if j == wide else a.astype(F32) for j, a in enumerate(arrays)]
        slope = mode(lambda a: function(name)(*given[:k], a, *given[k + 1:]), given[k])
        if mode is along and not (name in ("where", "polygamma") and wide == 0):      # which takes no part in promotion
            assert slope.dtype == F64
        else:
            assert slope.dtype == given[k].dtype
        check(slope, expected(name, (k,)), slope.dtype)


@each_partial
def test_contract_28_float32_with_numbers_has_float32_derivatives(name, k):
    arrays = samples(name)
    for i, point in enumerate(zip(*(a.tolist() for a in arrays))):
        if i == 4:
            break
        for shape in ((), (3,)):
            x = np.full(shape, point[k], F32)

            def f(a):
                return function(name)(*point[:k], a, *point[k + 1:])

            value, slope = fg.jvp(f, (x,), (np.ones_like(x),))
            pulled = fg.vjp(f, x)[1](fnp.ones(shape, value.dtype))[0]
            if name != "float_power":
                assert value.dtype == F32
            assert slope.dtype == value.dtype and slope.shape == shape and pulled.dtype == F32
            for found in (slope, pulled):
                check(found, np.full(shape, expected(name, (k,))[i]), F32)


ORDERS = {"back back": (back, back), "back along": (back, along), "along back": (along, back),
          "along along": (along, along)}


@pytest.mark.parametrize("modes", list(ORDERS))
@each_partial
def test_second_derivative_in_every_mode(name, k, modes):
    inner, outer = ORDERS[modes]
    arrays = samples(name)
    row = ROWS[name]
    if row.kind == "kink":
        keep = ~tie(name, arrays)
        arrays = [a[keep] for a in arrays]
    else:
        keep = np.ones(arrays[0].shape, bool)
    for other, text in enumerate(row.partials):
        if text is None:
            continue

        def slope(b):
            def f(a):
                operands = list(arrays)
                operands[other] = b
                if other == k:
                    return function(name)(*operands[:k], a, *operands[k + 1:])
                operands[k] = a
                return function(name)(*operands)

            return inner(f, b if other == k else fnp.asarray(arrays[k]))

        got = outer(slope, fnp.asarray(arrays[other]))
        check(got.detach().numpy(), expected(name, (k, other))[keep], slack=20)


def tie(name, arrays):
    return arrays[0] == arrays[1] if name in ("maximum", "minimum", "fmax", "fmin") else np.zeros(arrays[0].shape, bool)


THREE = ["exp", "sin", "tanh", "sqrt", "log", "sigmoid", "square", "erf", "arctan", "sinc", "gammaln", "softplus", "gelu"]


@pytest.mark.parametrize("name", THREE)
def test_third_derivative(name):
    x = samples(name)[0]
    f = function(name)
    exact = np.array([derivative(REFERENCES[name], (v,), (0, 0, 0), 600) for v in x])
    third = fg.grad(lambda c: fg.grad(lambda b: fg.grad(lambda a: f(a).sum())(b).sum())(c).sum())(x)
    check(third, exact, slack=200)
    check(along(lambda c: along(lambda b: along(f, b), c), fnp.asarray(x)).numpy(), exact, slack=200)


@pytest.mark.parametrize("name", ["power", "divide", "hypot", "arctan2", "logaddexp", "multiply"])
def test_third_derivative_mixed(name):
    x, y = (a[:11] for a in samples(name))
    f = function(name)
    exact = np.array([derivative(REFERENCES[name], p, (0, 1, 1), 600) for p in zip(x, y)])

    def by_y(x, y):
        return fg.grad(lambda y: f(x, y).sum())(y)

    def by_yy(x, y):
        return fg.grad(lambda y: by_y(x, y).sum())(y)

    check(fg.grad(lambda x: by_yy(x, fnp.asarray(y)).sum())(x), exact, slack=200)


def test_a_number_nests_to_order_three():
    f = fg.grad(fg.grad(fg.grad(lambda x: fnp.sin(x) * x)))
    check(f(0.7), -3 * math.sin(0.7) - 0.7 * math.cos(0.7))


@pytest.mark.parametrize("name", [n for n in ROWS if n not in DIFFERENTIABLE])
def test_a_row_without_partials_records_nothing(name):
    assert not function(name)(*tensors(samples(name))).requires_grad


@pytest.mark.parametrize("name", [n for n in BINARY if None not in ROWS[n].partials])
def test_the_same_tensor_twice_accumulates(name):
    x = samples(name)[0]
    leaf = fg.tensor(x, requires_grad=True)
    function(name)(leaf, leaf).sum().backward()
    apart = [gradient(name, k, (x, x)) for k in range(2)]
    np.testing.assert_allclose(leaf.grad.numpy(), apart[0] + apart[1], rtol=1e-14, atol=1e-14)


# ------------------------------------------------------------------------------------------------------- special points


@pytest.mark.parametrize("path", ["number", "array", "broadcast", "f32"])
@each_differentiable_row
def test_gradient_at_special_points(name, path):
    row = ROWS[name]
    for point in row.special:
        values = as_tuple(point)
        if path == "f32" and any(0 < abs(v) < 1e-30 or 1e30 < abs(v) < INF or abs(v) > 80 for v in values if v != INF):
            continue
        for k, text in enumerate(row.partials):
            if text is None:
                continue
            if path == "number":
                got = fg.grad(lambda a: function(name)(*values[:k], a, *values[k + 1:]))(float(values[k]))
            elif path == "broadcast":
                got = gradient(name, k, [np.full((3, 1) if j % 2 else (3,), v) for j, v in enumerate(values)])
                got = got.ravel()[0] / (3 if row.arity > 1 else 1)
            else:
                dtype = F32 if path == "f32" else F64
                got = gradient(name, k, [np.full(9, v, dtype) for v in values])[4]
            exact = special_answer(name, point, k)
            try:
                check(got, exact, F32 if path == "f32" else F64)
            except AssertionError:
                pytest.fail(f"{name} at {point} by {'xyz'[k]} ({path}): got {got}, due {exact}")


@each_differentiable_row
def test_contract_16_nan_stays_in_its_element(name):
    arrays = [a.copy() for a in samples(name)]
    arrays = [a[:8] for a in arrays]
    clean, slopes = value_and_gradients(name, arrays)
    for j, text in enumerate(ROWS[name].partials):
        if text is None:
            continue
        spoiled = [a.copy() for a in arrays]
        spoiled[j][3] = NAN
        value, gradients = value_and_gradients(name, spoiled)
        others = np.arange(8) != 3
        np.testing.assert_array_equal(value[others], clean[others])
        for got, want in zip(gradients, slopes):
            np.testing.assert_array_equal(got[others], want[others])


SMOOTH_UNARY = [n for n in DIFFERENTIABLE if ROWS[n].arity == 1 and n not in ("negative", "positive", "deg2rad", "rad2deg")]


@each_dtype
@pytest.mark.parametrize("name", SMOOTH_UNARY)
def test_contract_16_nan_in_gives_nan_out(name, dtype):
    x = np.array([NAN, samples(name)[0][0]], dtype)
    value, (slope,) = value_and_gradients(name, [x])
    np.testing.assert_array_equal(np.isnan(value), [True, False])
    np.testing.assert_array_equal(np.isnan(slope), [True, False])


DELICATE = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 1e-200, 1e200, INF, -INF, NAN)


@each_partial
def test_every_path_agrees_on_delicate_operands(name, k):
    """A number, an array, the recorded sweep and forward mode: the same zeros, infinities and NaNs."""
    row = ROWS[name]
    first = (0.0, 1.0, 2.0) if name == "polygamma" else DELICATE if row.arity < 3 else (0.0, 1.0, -3.0, INF, NAN)
    others = DELICATE if row.arity < 3 else (0.0, 1.0, -3.0, INF, NAN)
    points = np.array(list(itertools.product(first, *[others] * (row.arity - 1)))).reshape(-1, row.arity)
    arrays = list(np.ascontiguousarray(points.T))
    f = function(name)

    def by(a):
        return f(*arrays[:k], a, *arrays[k + 1:])

    x = fnp.asarray(arrays[k])
    array = back(by, x).numpy()
    recorded = fg.tensor(arrays[k], requires_grad=True)
    by(recorded).sum().backward(create_graph=True)
    found = {"recorded": recorded.grad.detach().numpy(), "forward": along(by, x).numpy(), "number": []}
    for point in points.tolist():
        found["number"].append(fg.grad(lambda a: f(*point[:k], a, *point[k + 1:]))(point[k]))
    for path, got in found.items():
        got = np.array(got)
        with np.errstate(all="ignore"):
            close = np.isclose(got, array, rtol=1e-14, atol=0, equal_nan=True)
        assert close.all(), (path, [(points[i].tolist(), got[i], array[i]) for i in np.flatnonzero(~close)[:5]])


def paths(f, *point, k=0):
    """The derivative of f by operand k on every code path: a number, an array, broadcast, f32, forward mode."""
    def by(a):
        return f(*point[:k], a, *point[k + 1:])

    x = point[k]
    found = {
        "number": fg.grad(by)(float(x)),
        "0-d array": fg.grad(lambda a: by(a).sum())(np.array(x)),
        "array": fg.grad(lambda a: by(a).sum())(np.full(9, x))[3],
        "broadcast": fg.grad(lambda a: by(a * np.ones((2, 1))).sum())(np.full(3, x))[1] / 2,
        "f32": fg.grad(lambda a: by(a).sum())(np.full(9, x, F32))[3],
        "forward number": fg.jvp(by, (float(x),), (1.0,))[1],
        "forward": fg.jvp(by, (np.full(9, x),), (np.ones(9),))[1][3],
    }
    return {path: float(np.asarray(v)) for path, v in found.items()}


def everywhere(value, f, *point, k=0, rel=1e-6):
    got = paths(f, *point, k=k)
    want = pytest.approx(value, rel=rel, abs=1e-12, nan_ok=True)
    assert got == {path: want for path in got}


def second(f, *point, by=(0, 0)):
    """The second derivative on every code path."""
    found = {}
    for kind in ("number", "array", "broadcast", "f32"):
        values = [float(v) if kind == "number" else np.full(5, v, F32 if kind == "f32" else F64) for v in point]

        def total(*a):
            if kind == "number":
                return f(*a)
            return (f(*[x * np.ones((2, 1)) for x in a]) / 2 if kind == "broadcast" else f(*a)).sum()

        def first(*a):
            g = fg.grad(total, by[0])(*a)
            return g if kind == "number" else g.sum()

        found[kind] = float(np.asarray(fg.grad(first, by[1])(*values)).ravel()[0])
    return found


def everywhere_second(value, f, *point, by=(0, 0), rel=1e-5):
    got = second(f, *point, by=by)
    want = pytest.approx(value, rel=rel, abs=1e-12, nan_ok=True)
    assert got == {path: want for path in got}


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("name", ["absolute", "relu"])
def test_contract_01_kinks_at_zero_have_gradient_zero(name, zero):
    everywhere(0.0, function(name), zero)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_contract_01_hypot_at_the_origin_has_gradient_zero(zero):
    everywhere(0.0, fnp.hypot, zero, 0.0)
    everywhere(0.0, fnp.hypot, zero, -0.0, k=1)


def test_contract_01_sign_passes_nothing():
    x = fg.tensor([0.0, -0.0, 2.0], requires_grad=True)
    (fnp.sign(x) * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 0, 1])


@pytest.mark.parametrize("f, slope", [
    (fnp.selu, ops.CONSTANTS["selu_scale"]), (fnp.elu, 1.0), (lambda x: fnp.elu(x, 1.5), 1.0),
    (lambda x: fnp.elu(x, 0.5), 0.5), (lambda x: fnp.leaky_relu(x, 0.1), 0.1)],
    ids=["selu", "elu", "elu 1.5", "elu 0.5", "leaky_relu"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_contract_01_a_kink_has_the_minimum_norm_subgradient(f, slope, zero):
    everywhere(slope, f, zero)


@pytest.mark.parametrize("name", ["hypot", "absolute", "relu"])
def test_contract_01_second_derivatives_at_the_kink_are_finite(name):
    got = second(function(name), *[0.0] * ROWS[name].arity)
    assert all(np.isfinite(v) for v in got.values()), got


@pytest.mark.parametrize("name", ["maximum", "minimum", "fmax", "fmin", "logaddexp", "logaddexp2"])
@pytest.mark.parametrize("tied", [0.0, 1.5, -3.0])
def test_contract_03_ties_share_evenly(name, tied):
    everywhere(0.5, function(name), tied, tied)
    everywhere(0.5, function(name), tied, tied, k=1)


@pytest.mark.parametrize("name", ["maximum", "minimum", "fmax", "fmin", "logaddexp"])
def test_contract_03_a_tensor_tied_with_itself_gets_one(name):
    f = function(name)
    everywhere(1.0, lambda x: f(x, x), 1.5)


@pytest.mark.parametrize("name", ["maximum", "minimum", "fmax", "fmin"])
def test_contract_03_zero_ties_with_minus_zero(name):
    everywhere(0.5, function(name), 0.0, -0.0)
    everywhere(0.5, function(name), 0.0, -0.0, k=1)


@pytest.mark.parametrize("x", [-0.5, 0.5])
def test_contract_05_clip_at_a_bound_passes_the_gradient(x):
    everywhere(1.0, fnp.clip, x, -0.5, 0.5)
    everywhere(0.0, fnp.clip, x, -0.5, 0.5, k=1)
    everywhere(0.0, fnp.clip, x, -0.5, 0.5, k=2)


@pytest.mark.parametrize("x, slopes", [(-1.0, (0, 1, 0)), (0.0, (1, 0, 0)), (1.0, (0, 0, 1))])
def test_contract_05_clip_passes_the_gradient_to_the_active_bound(x, slopes):
    for k, slope in enumerate(slopes):
        everywhere(slope, fnp.clip, x, -0.5, 0.5, k=k)


def test_contract_05_a_missing_bound_is_no_bound():
    np.testing.assert_array_equal(fg.grad(lambda x: fnp.clip(x, -1.0).sum())(np.array([-2.0, -1.0, 5.0])), [0, 1, 1])
    np.testing.assert_array_equal(fg.grad(lambda x: fnp.clip(x, None, 1.0).sum())(np.array([-2.0, 1.0, 5.0])), [1, 1, 0])
    np.testing.assert_array_equal(fg.grad(lambda x: fnp.clip(x, None, None).sum())(np.array([-2.0, 5.0])), [1, 1])


@pytest.mark.parametrize("exponent, slope", [(0.0, 0), (0.5, INF), (1.0, 1), (1.5, 0), (2.0, 0), (3.0, 0), (-1.0, -INF)])
def test_contract_06_power_of_zero_by_the_base(exponent, slope):
    everywhere(slope, fnp.power, 0.0, exponent)
    everywhere(slope, lambda x: x ** exponent, 0.0)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_contract_06_power_of_zero_by_a_positive_exponent_is_zero(exponent):
    everywhere(0.0, fnp.power, 0.0, exponent, k=1)


@pytest.mark.parametrize("exponent, slope", [(2.0, -4), (3.0, 12), (-1.0, -0.25), (0.0, 0), (1.0, 1)])
def test_contract_06_a_negative_base_with_a_whole_exponent(exponent, slope):
    everywhere(slope, fnp.power, -2.0, exponent)
    everywhere(slope, lambda x: x ** exponent, -2.0)


def test_contract_06_nan_by_the_exponent_leaves_the_base_alone():
    x, y = tensors([[-2.0, 2.0], [3.0, 3.0]])
    (x ** y).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [12, 12])
    assert np.isnan(y.grad.numpy()[0]) and y.grad.numpy()[1] == pytest.approx(8 * math.log(2))


@pytest.mark.parametrize("exponent, curvature", [(0.0, 0), (1.0, 0), (2.0, 2), (3.0, 0), (4.0, 0), (2.5, 0), (1.5, INF)])
def test_contract_07_second_derivative_of_power_at_zero(exponent, curvature):
    everywhere_second(curvature, fnp.power, 0.0, exponent)


@pytest.mark.parametrize("exponent, curvature", [(0, 0), (1, 0), (2, 2), (3, 0), (4, 0)])
def test_contract_07_second_derivative_of_the_operator_at_zero(exponent, curvature):
    everywhere_second(curvature, lambda x: x ** exponent, 0.0)


def test_contract_07_second_derivative_of_power_at_a_negative_base():
    everywhere_second(-12, fnp.power, -2.0, 3.0)
    everywhere_second(2, fnp.power, -2.0, 2.0)


@pytest.mark.parametrize("exponent, mixed", [(2.0, 0), (3.0, 0)])
def test_contract_07_mixed_derivative_of_power_at_zero(exponent, mixed):
    everywhere_second(mixed, fnp.power, 0.0, exponent, by=(0, 1))
    everywhere_second(mixed, fnp.power, 0.0, exponent, by=(1, 0))


def test_contract_07_a_square_root_of_a_square_plus_one():
    everywhere_second(1.0, lambda x: fnp.sqrt(x * x + 1), 0.0)
    everywhere_second(1.0, lambda x: fnp.hypot(x, 1.0), 0.0)


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("name", ["sqrt", "log", "log2", "log10"])
def test_contract_07_second_derivative_where_the_slope_is_infinite(name, zero):
    everywhere_second(-INF, function(name), zero)


@pytest.mark.parametrize("modes", list(ORDERS))
@pytest.mark.parametrize("name", ["sqrt", "log", "log2", "log10"])
def test_contract_07_every_mode_agrees_where_the_slope_is_infinite(name, modes):
    inner, outer = ORDERS[modes]
    assert outer(lambda x: inner(function(name), x), fnp.zeros(1)).numpy() == -INF


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("name", ["sqrt", "log", "log2", "log10", "cbrt"])
def test_contract_08_infinite_slopes_raise_nothing(name, zero):
    with np.errstate(all="raise"):
        everywhere(INF, function(name), zero)


def test_contract_08_also_from_a_python_float():
    assert fnp.log(0.0).item() == -INF
    assert fnp.sqrt(0.0).item() == 0
    assert fnp.reciprocal(0.0).item() == INF
    assert (fg.tensor(1.0) / 0.0).item() == INF
    assert (1.0 / fg.tensor(0.0)).item() == INF
    assert math.isnan(fnp.log(-1.0).item())
    assert math.isnan((fg.tensor(0.0) ** -1.0 * 0.0).item())


def test_contract_10_sinc_at_zero_to_second_order():
    everywhere(0.0, fnp.sinc, 0.0)
    everywhere(0.0, fnp.sinc, -0.0)
    everywhere_second(-math.pi**2 / 3, fnp.sinc, 0.0)


@pytest.mark.parametrize("a, b, value, slopes", [
    (-INF, 1.0, 1.0, (0, 1)), (1.0, -INF, 1.0, (1, 0)), (-INF, -INF, -INF, (0.5, 0.5)), (INF, 1.0, INF, (1, 0)),
    (1.0, INF, INF, (0, 1)), (INF, INF, INF, (0.5, 0.5)), (-INF, INF, INF, (0, 1)), (1e3, -1e3, 1e3, (1, 0))])
@pytest.mark.parametrize("name", ["logaddexp", "logaddexp2"])
def test_contract_11_logaddexp_with_infinities(name, a, b, value, slopes):
    assert function(name)(a, b).item() == value
    everywhere(slopes[0], function(name), a, b)
    everywhere(slopes[1], function(name), a, b, k=1)


def test_contract_11_logaddexp_second_order_beside_infinity_is_finite():
    everywhere_second(0.0, fnp.logaddexp, 1.0, -INF)
    everywhere_second(0.25, fnp.logaddexp, 1.0, 1.0)


@pytest.mark.parametrize("x, y, slopes", [
    (0.0, 1.0, (1, 0)), (0.0, -1.0, (-1, 0)), (1.0, 0.0, (0, -1)), (-1.0, 0.0, (0, 1)), (0.0, 0.0, (0, 0)),
    (-0.0, -1.0, (-1, 0)), (0.0, -0.0, (0, 0))])
def test_contract_12_arctan2_on_the_axes_and_at_the_origin(x, y, slopes):
    everywhere(slopes[0], fnp.arctan2, x, y)
    everywhere(slopes[1], fnp.arctan2, x, y, k=1)


def test_contract_12_arctan2_neither_overflows_nor_underflows():
    check(gradient("arctan2", 0, [np.array([1e200, 1e-200]), np.array([1e200, 1e-200])]), [0.5e-200, 0.5e200])


@pytest.mark.parametrize("x, y", [(-7.0, 3.0), (7.0, -3.0), (-7.0, -3.0), (7.0, 3.0)])
@pytest.mark.parametrize("name, quotient", [("fmod", math.trunc), ("mod", math.floor)])
def test_contract_14_remainders_with_negative_quotients(name, quotient, x, y):
    everywhere(1.0, function(name), x, y)
    everywhere(-quotient(x / y), function(name), x, y, k=1)


@pytest.mark.parametrize("x, y", [(-7.0, 3.0), (7.0, -3.0)])
def test_contract_14_floor_divide_passes_nothing(x, y):
    leaf = fg.tensor(x, requires_grad=True)
    assert fnp.floor_divide(leaf, y).item() == math.floor(x / y)
    assert not fnp.floor_divide(leaf, y).requires_grad
    assert (leaf // y + leaf % y / y).item() == pytest.approx(x / y)


LIMITS = [("tanh", 0.0, 0.0), ("sigmoid", 0.0, 0.0), ("softplus", 0.0, 1.0), ("log1p", None, 0.0), ("expm1", 0.0, INF),
          ("arcsinh", 0.0, 0.0), ("silu", 0.0, 1.0), ("gelu", 0.0, 1.0), ("arctan", 0.0, 0.0), ("softsign", 0.0, 0.0)]


@pytest.mark.parametrize("far", [1e3, 1e200])
@pytest.mark.parametrize("name, low, high", LIMITS)
def test_contract_15_far_out_no_nan_and_the_right_limit(name, low, high, far):
    if low is not None:
        assert gradient(name, 0, [np.full(9, -far)]) == pytest.approx(low, abs=1.1 / far)
        assert fg.grad(function(name))(-far) == pytest.approx(low, abs=1.1 / far)
    assert gradient(name, 0, [np.full(9, far)]) == pytest.approx(high, abs=1.1 / far)
    assert fg.grad(function(name))(far) == pytest.approx(high, abs=1.1 / far)


@pytest.mark.parametrize("name, points", [
    ("tanh", [5.0, 8.0, 12.0, 15.0, -15.0, 1e-9]), ("sigmoid", [20.0, 35.0, -35.0, 500.0, -500.0]),
    ("softplus", [-40.0, 35.0, 1e-9]), ("log1p", [1e-20, -0.999999, 1e-9, 1e15]), ("expm1", [1e-20, -30.0, 1e-9]),
    ("arcsinh", [1e-9, 1e9, -1e9, 1e150]), ("arctan", [1e9, 1e150]), ("arcsin", [1 - 1e-12, -1 + 1e-12]),
    ("arctanh", [1 - 1e-12, -1 + 1e-12]), ("arccosh", [1 + 1e-12, 1e150]), ("sinc", [1e-9, 1e-5, 0.2499, 0.2501]),
    ("gelu", [-10.0, -30.0]), ("silu", [-40.0, -600.0]), ("erfc", [5.0, 20.0]), ("tan", [1.5707])])
def test_contract_15_small_relative_error_where_formulas_cancel(name, points):
    got = gradient(name, 0, [np.array(points)])
    # tanh differentiates through its rounded value: two units of its last place are this much of 1 - out at 15
    slack = {"tanh": 2e-3}.get(name, 1e-13)
    exact = [derivative(REFERENCES[name], (x,), (0,), FAR_BITS) for x in points]
    np.testing.assert_allclose(got, exact, rtol=slack, atol=1e-300)


@pytest.mark.parametrize("x", [3.0, 5.0, -5.0, 7.0])
def test_contract_15_tanh_differentiates_without_squaring_its_value(x):
    exact = derivative(mp.tanh, (x,), (0,))
    out = math.tanh(x)
    due = abs((1 - out) * (1 + out) - exact)
    assert abs(float(fg.grad(fnp.tanh)(x)) - exact) <= 2 * due + 4 * np.spacing(exact)


# ------------------------------------------------------------------------------------------------ the zero-cotangent rule

GUARDED = {
    "sqrt": lambda x: fnp.where(x > 0, fnp.sqrt(x), 0.0),
    "log": lambda x: fnp.where(x > 0, fnp.log(x), 0.0),
    "reciprocal": lambda x: fnp.where(x != 0, 1 / x, 0.0),
    "divide": lambda x: fnp.where(x != 0, fnp.sin(x) / x, 1.0),
    "power": lambda x: fnp.where(x > 0, x ** 0.3, 0.0),
    "cbrt": lambda x: fnp.where(x > 0, fnp.cbrt(x), 0.0),
    "x log x": lambda x: fnp.where(x > 0, x * fnp.log(x), 0.0),
    "arccosh": lambda x: fnp.where(x > 0, fnp.arccosh(x + 1), 0.0),
    "exp": lambda x: fnp.where(x > 0, fnp.exp(1 / x), 0.0),
}


@pytest.mark.parametrize("name", list(GUARDED))
def test_zero_cotangent_first_order(name):
    everywhere_but_forward = paths(GUARDED[name], 0.0)
    assert everywhere_but_forward == {path: 0.0 for path in everywhere_but_forward}


@pytest.mark.parametrize("name", list(GUARDED))
def test_zero_cotangent_second_order(name):
    got = second(GUARDED[name], 0.0)
    assert got == {path: 0.0 for path in got}


@pytest.mark.parametrize("name", list(GUARDED))
def test_zero_cotangent_third_order(name):
    assert fg.grad(fg.grad(fg.grad(GUARDED[name])))(0.0) == 0


@pytest.mark.parametrize("name", list(GUARDED))
def test_zero_cotangent_leaves_the_taken_branch_alone(name):
    f = GUARDED[name]
    x = np.array([0.0, 0.5, 0.0, 2.0])
    got = fg.grad(lambda a: f(a).sum())(x)
    assert (got[[0, 2]] == 0).all() and (got[[1, 3]] != 0).all() and np.isfinite(got).all()


@pytest.mark.parametrize("size", [1, 9, 513])
@each_dtype
def test_zero_cotangent_by_backward(dtype, size):
    x = fg.tensor(np.zeros(size, dtype), requires_grad=True)
    y = fnp.sqrt(x)
    y.backward(np.zeros(size, dtype))
    np.testing.assert_array_equal(x.grad.numpy(), np.zeros(size, dtype))


def test_zero_cotangent_over_a_broadcast_operand():
    x = np.zeros((3, 1))
    got = fg.grad(lambda a: fnp.where(a > 0, np.ones((3, 4)) / a, 0.0).sum())(x)
    np.testing.assert_array_equal(got, np.zeros((3, 1)))


def test_zero_cotangent_where_other_elements_are_infinite():
    x = fg.tensor(np.zeros(4), requires_grad=True)
    fnp.sqrt(x).backward(np.array([0.0, 1.0, -0.0, -1.0]))
    np.testing.assert_array_equal(x.grad.numpy(), [0, INF, 0, -INF])


@each_partial
def test_zero_cotangent_at_every_special_point(name, k):
    for point in ROWS[name].special:
        leaves = tensors([np.full(9, v) for v in as_tuple(point)])
        function(name)(*leaves).backward(np.zeros(9))
        np.testing.assert_array_equal(leaves[k].grad.numpy(), np.zeros(9))
        leaves = tensors(as_tuple(point))
        function(name)(*leaves).backward(0.0)
        assert leaves[k].grad is None or leaves[k].grad.item() == 0


# -------------------------------------------------------------------------------------------------------------- layouts


def swapped(a):
    return a.astype(a.dtype.newbyteorder())


def read_only(a):
    a = a.copy()
    a.setflags(write=False)
    return a


def spread(a, step):
    """The same numbers at every step-th place of a larger array."""
    room = np.full(tuple(n * step for n in a.shape), NAN, a.dtype)
    view = room[tuple(slice(None, None, step) for _ in a.shape)]
    view[...] = a
    return view


def backwards(a):
    return np.ascontiguousarray(a[tuple(slice(None, None, -1) for _ in a.shape)])[tuple(
        slice(None, None, -1) for _ in a.shape)]


def unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


LAYOUTS = {
    "fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "every second": lambda a: spread(a, 2),
    "negative strides": backwards,
    "read-only": read_only,
    "byte-swapped": swapped,
    "unaligned": unaligned,
    "a view into more": lambda a: np.pad(a, [(2, 1)] * a.ndim, constant_values=NAN)[
        tuple(slice(2, -1) for _ in a.shape)],
}
each_layout = pytest.mark.parametrize("layout", list(LAYOUTS))


def block(name, shape, dtype=F64):
    """Samples of a row, repeated over a shape."""
    return [np.resize(a[:11], shape).astype(dtype) for a in samples(name)]


@each_layout
@each_row
def test_contract_24_a_layout_changes_nothing(name, layout):
    arrays = block(name, (5, 7))
    value, gradients = value_and_gradients(name, arrays)
    laid = [LAYOUTS[layout](a) for a in arrays]
    got, slopes = value_and_gradients(name, laid)
    assert ulps_apart(got, value) == 0
    for a, b in zip(slopes, gradients):
        assert ulps_apart(a, b) == 0
    f = function(name)
    assert ulps_apart(f(*laid).numpy(), value) == 0
    if ROWS[name].arity == 2:
        assert ulps_apart(f(laid[0], arrays[1]).numpy(), value) == 0
        assert ulps_apart(f(arrays[0], laid[1]).numpy(), value) == 0


SEVERAL = ["tanh", "sqrt", "sin", "exp", "square", "multiply", "divide", "power", "maximum", "subtract", "where", "clip",
           "erfc", "absolute"]
LENGTHS = [1, 2, 7, 8, 511, 512, 513, 1500]


@pytest.mark.parametrize("length", LENGTHS)
@each_dtype
@pytest.mark.parametrize("name", SEVERAL)
def test_contract_24_every_length_gives_every_element_its_own_value(name, dtype, length):
    arrays = block(name, (length,), dtype)
    value, gradients = value_and_gradients(name, arrays)
    few, few_gradients = value_and_gradients(name, [a[:11] for a in arrays])
    assert ulps_apart(value, np.resize(few, length)) == 0
    for a, b in zip(gradients, few_gradients):
        assert ulps_apart(a, np.resize(b, length)) == 0


@pytest.mark.parametrize("length", LENGTHS)
@each_layout
@pytest.mark.parametrize("name", ["tanh", "multiply", "divide", "where", "clip"])
def test_contract_24_layouts_at_the_lengths_of_blocks(name, layout, length):
    for shape in ((length,), (3, length), (length, 2)):
        arrays = block(name, shape)
        value, gradients = value_and_gradients(name, arrays)
        for which in range(len(arrays)):
            laid = [LAYOUTS[layout](a) if k == which else a for k, a in enumerate(arrays)]
            got, slopes = value_and_gradients(name, laid)
            assert ulps_apart(got, value) == 0
            for a, b in zip(slopes, gradients):
                assert ulps_apart(a, b) == 0


@each_layout
@pytest.mark.parametrize("name", ["tanh", "multiply", "where"])
def test_contract_24_a_cotangent_of_any_layout(name, layout):
    arrays = block(name, (5, 7))
    out, pull = fg.vjp(function(name), *arrays)
    cotangent = np.linspace(-1, 1, 35).reshape(5, 7)
    for a, b in zip(pull(LAYOUTS[layout](cotangent)), pull(cotangent)):
        np.testing.assert_array_equal(a, b)


@each_layout
@pytest.mark.parametrize("name", ["tanh", "multiply", "divide", "where", "clip"])
def test_contract_24_layouts_of_other_dtypes(name, layout):
    arrays = block(name, (9, 70), F32)
    mixed = [a.astype(F64) if k == 1 else a for k, a in enumerate(arrays)]
    for given in (arrays, mixed):
        value, gradients = value_and_gradients(name, given)
        got, slopes = value_and_gradients(name, [LAYOUTS[layout](a) for a in given])
        assert ulps_apart(got, value) == 0
        for a, b in zip(slopes, gradients):
            assert ulps_apart(a, b) == 0


@each_layout
def test_contract_24_constants_that_are_integers_or_truth_values(layout):
    x = np.linspace(-1, 1, 35).reshape(5, 7)
    for constant in (np.arange(35).reshape(5, 7), np.arange(35).reshape(5, 7) % 2 == 0):
        laid = LAYOUTS[layout](constant) if not (layout == "a view into more" or layout == "every second") \
            else np.repeat(np.repeat(constant, 2, 0), 2, 1)[::2, ::2]
        np.testing.assert_array_equal(fg.grad(lambda a: (a * laid).sum())(x), constant.astype(F64))
        np.testing.assert_array_equal(fg.grad(lambda a: fnp.where(laid, a, 0.0).sum())(x), (constant != 0).astype(F64))


def test_contract_24_views_that_overlap():
    base = np.linspace(0.1, 2, 12)
    windows = np.lib.stride_tricks.sliding_window_view(base, 5)
    for name in ("tanh", "sqrt"):
        assert ulps_apart(function(name)(windows).numpy(), function(name)(windows.copy()).numpy()) == 0
    got, slopes = value_and_gradients("multiply", [base[:-1], base[1:]])
    np.testing.assert_array_equal(got, base[:-1] * base[1:])
    np.testing.assert_array_equal(slopes[0], base[1:])
    np.testing.assert_array_equal(slopes[1], base[:-1])
    still = np.broadcast_to(np.array([2.0]), (4, 3))
    np.testing.assert_array_equal(fg.grad(lambda a: (a * a).sum())(still), np.full((4, 3), 4.0))


def test_contract_24_a_view_of_a_recorded_tensor():
    x = np.arange(12.0).reshape(3, 4)
    got = fg.grad(lambda a: (fnp.exp(a.T[::-1, 1:]) * a[1:, ::-1].T).sum())(x)
    with_copies = fg.grad(lambda a: (fnp.exp(a.T[::-1, 1:].copy()) * a[1:, ::-1].T.copy()).sum())(x)
    np.testing.assert_array_equal(got, with_copies)


SHAPES = [((), ()), ((1,), ()), ((), (1,)), ((3,), ()), ((), (3,)), ((3,), (1,)), ((1,), (3,)), ((4, 3), (3,)),
          ((3,), (4, 3)), ((4, 1), (1, 3)), ((4, 1), (3,)), ((2, 1, 3), (4, 1)), ((1, 1), (5,)), ((0,), ()), ((0,), (1,)),
          ((1,), (0,)), ((0, 3), (3,)), ((3, 0), (3, 1)), ((2, 0), (2, 0)), ((1, 4), (4, 4)), ((2, 3, 4), (2, 3, 4)),
          ((600, 1), (1, 2)), ((1, 600), (2, 1)), ((2, 600), (600,)), ((600, 2), (600, 1))]


@each_dtype
@pytest.mark.parametrize("name", BINARY)
def test_contract_18_every_broadcast_gives_the_inputs_shape(name, dtype):
    pool = [a[:11] for a in samples(name)]
    row = ROWS[name]
    for shapes in SHAPES:
        arrays = [np.resize(a, shape).astype(dtype) if shape else a[0].astype(dtype) for a, shape in zip(pool, shapes)]
        full = [np.array(a) for a in np.broadcast_arrays(*arrays)]
        value, gradients = value_and_gradients(name, arrays)
        whole, slopes = value_and_gradients(name, full)
        assert value.shape == np.broadcast_shapes(*shapes)
        assert ulps_apart(value, whole) == 0
        differentiable = [k for k, text in enumerate(row.partials) if text is not None]
        for k, got, slope in zip(differentiable, gradients, slopes):
            assert got.shape == shapes[k] and got.dtype == dtype
            want = summed_to(slope.astype(F64), shapes[k])
            size = summed_to(np.abs(slope.astype(F64)), shapes[k])
            assert (np.abs(got - want) <= 40 * np.finfo(dtype).eps * size).all()


def summed_to(a, shape):
    """Summed over what was broadcast, in more than float64: NumPy adds rows one after another, and is 50 ulp off over 600."""
    a = a.astype(np.longdouble).sum(tuple(range(a.ndim - len(shape))))
    for d, n in enumerate(shape):
        if n == 1:
            a = a.sum(d, keepdims=True)
    return a


TRIPLES = [((3,), (), ()), ((), (3,), ()), ((), (), (3,)), ((4, 3), (3,), (4, 1)), ((1,), (), (1,)), ((3, 1), (1, 4), ()),
           ((0,), (), (1,)), ((2, 1, 3), (4, 1), (3,)), ((), (), ()), ((2, 600), (600,), ())]


@pytest.mark.parametrize("shapes", TRIPLES, ids=str)
@pytest.mark.parametrize("name", ["where", "clip"])
def test_contract_18_where_and_clip_broadcast_too(name, shapes):
    pool = [a[:11] for a in samples(name)]
    arrays = [np.resize(a, shape) if shape else a[0] for a, shape in zip(pool, shapes)]
    value, gradients = value_and_gradients(name, arrays)
    whole, slopes = value_and_gradients(name, [np.array(a) for a in np.broadcast_arrays(*arrays)])
    assert ulps_apart(value, whole) == 0
    differentiable = [k for k, text in enumerate(ROWS[name].partials) if text is not None]
    for k, got, slope in zip(differentiable, gradients, slopes):
        assert got.shape == shapes[k]
        np.testing.assert_allclose(got, summed_to(slope, shapes[k]), rtol=1e-13)


@pytest.mark.parametrize("name, k", [(n, k) for n, k in PARTIALS if ROWS[n].arity == 2 and ROWS[n].kind != "kink"])
def test_contract_18_second_order_of_a_broadcast(name, k):
    x, y = (a[:5] for a in samples(name))
    arrays = (x[:, None], y[:3])
    full = [np.array(a) for a in np.broadcast_arrays(*arrays)]

    def curvature(arrays):
        def slope(a):
            return fg.grad(lambda b: (function(name)(*arrays[:k], b, *arrays[k + 1:])).sum())(a)

        return fg.grad(lambda a: (slope(a) * slope(a)).sum())(arrays[k]), slope

    got, slope = curvature(arrays)
    assert got.shape == arrays[k].shape
    _, slope_full = curvature(full)
    pull = fg.vjp(slope_full, full[k])[1]
    twice = 2 * np.broadcast_to(slope(arrays[k]), full[k].shape)
    np.testing.assert_allclose(got, summed_to(pull(np.array(twice))[0], arrays[k].shape), rtol=1e-10, atol=1e-12)


def test_shapes_that_do_not_broadcast_are_named():
    with pytest.raises(ValueError, match=r"multiply.*\(2,\).*\(3,\)"):
        fnp.multiply(np.ones(2), np.ones(3))


@each_row
def test_contract_22_zero_size(name):
    for shape in ((0,), (0, 3), (2, 0, 1)):
        arrays = [np.zeros(shape) for _ in range(ROWS[name].arity)]
        value, gradients = value_and_gradients(name, arrays)
        assert value.shape == shape
        assert all(g.shape == shape for g in gradients)


@each_dtype
@each_row
def test_contract_23_zero_dimensions_stay(name, dtype):
    arrays = [np.array(a[0], dtype) for a in samples(name)]
    out = function(name)(*tensors(arrays))
    assert isinstance(out, fg.Tensor) and out.shape == ()
    value, gradients = value_and_gradients(name, arrays)
    assert value.shape == ()
    for g in gradients:
        assert g.shape == () and g.dtype == dtype


@each_partial
def test_contract_23_the_gradient_of_a_0d_array_is_an_array(name, k):
    arrays = [np.array(a[0]) for a in samples(name)]
    got = fg.grad(lambda a: function(name)(*arrays[:k], a, *arrays[k + 1:]))(arrays[k])
    assert isinstance(got, np.ndarray) and got.shape == ()


# ------------------------------------------------------------------------------------------------ instruction-set levels


@pytest.fixture
def level():
    """Switches the level; the one in use comes back afterwards."""
    before = engine.cpu_level()
    yield engine.cpu_level
    engine.cpu_level(before)


@each_dtype
@each_row
def test_levels_agree(name, dtype, level):
    arrays = [np.resize(a[:11], 77).astype(dtype) for a in samples(name)]
    found = {}
    for wanted in ("baseline", "avx2", "avx512"):
        try:
            level(wanted)
        except ValueError:
            continue
        assert level() == wanted
        found[wanted] = value_and_gradients(name, arrays)
    value, gradients = found.pop("baseline")
    for other, slopes in found.values():
        # near a zero away from the origin these are accurate to ulps of 1
        assert (gap_in_ulps if "logaddexp" in name else ulps_apart)(other, value) <= 4
        for a, b in zip(slopes, gradients):
            assert gap_in_ulps(a, b) <= 4


def gap_in_ulps(a, b):
    """As ulps_apart, and 0 within eps: where terms cancel, ulps are of the terms."""
    with np.errstate(all="ignore"):
        near = np.abs(a - b) <= np.finfo(a.dtype).eps
    return ulps_apart(np.where(near, 0, a).astype(a.dtype), np.where(near, 0, b).astype(a.dtype))


@each_dtype
def test_levels_agree_on_special_points(dtype, level):
    def at_special_points():
        with np.errstate(over="ignore"):
            return {name: value_and_gradients(name, [np.array(a).astype(dtype) for a in zip(*map(as_tuple, row.special))])
                    for name, row in ROWS.items() if row.special}

    found = []
    for wanted in ("baseline", "avx2", "avx512"):
        try:
            level(wanted)
        except ValueError:
            continue
        found.append(at_special_points())
    for other in found[1:]:
        for name, (value, gradients) in found[0].items():
            assert ulps_apart(other[name][0], value) <= 4, name
            for a, b in zip(other[name][1], gradients):
                assert gap_in_ulps(a, b) <= 4, name


def test_a_level_that_does_not_exist_is_refused(level):
    with pytest.raises(ValueError, match="sse9"):
        level("sse9")


# --------------------------------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("name", [n for n in ROWS if n != "float_power"])
def test_contract_27_float32_stays_float32(name):
    arrays = [a.astype(F32) for a in samples(name)]
    value, gradients = value_and_gradients(name, arrays)
    assert value.dtype == (bool if ROWS[name].kind == "bool" else F32)
    assert all(g.dtype == F32 for g in gradients)
    scalars = [a[0] for a in arrays]
    assert function(name)(*scalars).dtype == value.dtype


def test_contract_27_float_power_is_float64_and_its_gradient_the_leafs_dtype():
    value, gradients = value_and_gradients("float_power", [a.astype(F32) for a in samples("float_power")])
    assert value.dtype == F64
    assert all(g.dtype == F32 for g in gradients)


@each_partial
def test_contract_27_second_order_stays_float32(name, k):
    arrays = [a.astype(F32) for a in samples(name)]

    def slope(a):
        return fg.grad(lambda b: function(name)(*arrays[:k], b, *arrays[k + 1:]).sum())(a)

    assert fg.grad(lambda a: slope(a).sum())(arrays[k]).dtype == F32


WITH_FLOAT_VALUE = [n for n in BINARY if ROWS[n].kind != "bool" and n not in ("float_power", "polygamma")]


@pytest.mark.parametrize("name", WITH_FLOAT_VALUE)
def test_contract_28_a_python_number_is_weak(name):
    x, y = (a.astype(F32) for a in samples(name))
    for number in (float(y[0]), 1):
        out = function(name)(fg.tensor(x, requires_grad=True), number)
        assert out.dtype == F32
    assert function(name)(float(x[0]), y).dtype == F32


@pytest.mark.parametrize("name", WITH_FLOAT_VALUE)
def test_contract_28_a_numpy_float64_promotes(name):
    x, y = samples(name)
    leaf = fg.tensor(x.astype(F32), requires_grad=True)
    out = function(name)(leaf, np.float64(y[0]))
    assert out.dtype == F64
    assert function(name)(leaf, y).dtype == F64
    assert function(name)(leaf, fg.tensor(y)).dtype == F64
    if ROWS[name].dx is not None:
        out.sum().backward()
        assert leaf.grad.dtype == F32


@pytest.mark.parametrize("name", [n for n in WITH_FLOAT_VALUE if ROWS[n].numpy_name])
def test_contract_28_promotion_is_numpys(name):
    kinds = [np.float32, np.float64, np.int32, np.int64, np.bool_, np.int8, np.uint16]
    with np.errstate(all="ignore"):
        for a, b in itertools.product(kinds, repeat=2):
            if a in (np.float32, np.float64) or b in (np.float32, np.float64):
                x, y = np.ones(3, a), np.ones(3, b)
                assert function(name)(x, y).dtype == numpys(name, x, y).dtype, (a, b)


@pytest.mark.parametrize("name", ["where", "clip"])
def test_contract_28_three_operands(name):
    x, y, z = (a.astype(F32) for a in samples(name))
    condition = (x != 0) if name == "where" else x
    assert function(name)(condition, y, 1.0).dtype == F32
    assert function(name)(condition, 0.0, z).dtype == F32
    assert function(name)(condition, y, np.float64(1.0)).dtype == F64


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.bool_])
def test_contract_29_an_integer_leaf_that_asks_for_a_gradient_is_refused(kind):
    with pytest.raises(TypeError, match=r"argument 0.*" + np.dtype(kind).name):
        fg.grad(lambda x: (x * 1.0).sum())(np.ones(3, kind))
    with pytest.raises(TypeError, match="argument 1"):
        fg.grad(lambda x, y: (x * y).sum(), 1)(np.ones(3), np.ones(3, kind))
    with pytest.raises(TypeError, match="argument 0"):
        fg.vjp(lambda x: x * 1.0, np.ones(3, kind))
    with pytest.raises(TypeError, match="argument 0"):
        fg.jvp(lambda x: x * 1.0, (np.ones(3, kind),), (np.ones(3),))
    with pytest.raises(TypeError, match=np.dtype(kind).name):
        fg.tensor(np.ones(3, kind), requires_grad=True)


def test_contract_29_a_python_int_is_refused_too():
    with pytest.raises(TypeError, match="argument 0"):
        fg.grad(lambda x: x * x)(3)


@pytest.mark.parametrize("name", [n for n in TWINS if n in DIFFERENTIABLE])
def test_integers_compute_as_numpy_does(name):
    arrays = [np.array([1, 2, 3])] * ROWS[name].arity
    theirs = numpys(name, *arrays)
    with np.errstate(all="ignore"):
        ours = function(name)(*arrays).numpy()
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)


# --------------------------------------------------------------------------------------------- names, defaults, out, errors


@pytest.mark.parametrize("name", [n for n in ROWS if ROWS[n].defaults])
def test_defaults_can_be_left_out(name):
    row = ROWS[name]
    required = row.arity - len(row.defaults)
    arrays = samples(name)[:required]
    by_name = function(name)(*arrays, **dict(row.defaults)).numpy()
    np.testing.assert_array_equal(function(name)(*arrays).numpy(), by_name)


@pytest.mark.parametrize("name", [n for n in ROWS if n != "where"])  # which has no out= in NumPy either
def test_out_becomes_the_result(name):
    arrays = samples(name)
    value = function(name)(*arrays)
    out = fg.tensor(np.zeros(value.shape, value.dtype))
    assert function(name)(*arrays, out=out) is out
    np.testing.assert_array_equal(out.numpy(), value.numpy())


@each_row
def test_what_is_no_number_is_refused_by_name(name):
    with pytest.raises(TypeError, match=name):
        getattr(engine, name)(*[object()] * ROWS[name].arity)


# -------------------------------------------------------------------------------------------------- the tests are tested

MUTATIONS = {"x 1.001": lambda g: 1.001 * g, "sign": lambda g: -g, "dropped": lambda g: 0 * g, "swapped": lambda g: g[::-1]}
# Where a mutation gives the same numbers: the derivative is the same at all samples, or 0.
CONSTANT = {"negative", "positive", "deg2rad", "rad2deg", "add", "subtract"}


@pytest.mark.parametrize("mutation", list(MUTATIONS))
@each_partial
def test_the_check_rejects_a_mutated_gradient(name, k, mutation):
    exact = expected(name, (k,))
    if mutation == "swapped" and (name in CONSTANT or (exact == exact[0]).all() or np.array_equal(exact, exact[::-1])):
        pytest.skip("the same at both ends")
    for dtype in (F64, F32):
        got = gradient(name, k, [a.astype(dtype) for a in samples(name)])
        check(got, exact, dtype)
        with pytest.raises(AssertionError):
            check(MUTATIONS[mutation](got), exact, dtype)


class Lazy(ast.NodeTransformer):
    """select(c, a, b) as (a if c else b), so that only the branch that counts is computed."""

    def visit_Call(self, node):
        self.generic_visit(node)
        return ast.IfExp(*node.args) if node.func.id == "select" else node


def number_in_mpmath(text):
    """The text of an expression as a function of mpmath numbers."""
    tree = ast.fix_missing_locations(Lazy().visit(ast.parse(text, mode="eval")))
    code = compile(tree, text, "eval")
    names = {**REFERENCES, **ops.CONSTANTS, "fabs": abs, "round": mp.nint, "pi": mp.pi}

    def f(**operands):
        try:
            return float(eval(code, {**names, **operands}))
        except (ZeroDivisionError, ValueError, TypeError, OverflowError):
            return NAN

    return f


def partial_by_text(name, text):
    f = number_in_mpmath(text)
    with mp.workprec(BITS):
        found = []
        for point in zip(*samples(name)):
            values = [mp.mpf(v) for v in point]
            operands = dict(zip("xyz", values), out=REFERENCES[name](*values))
            found.append(f(**operands))
    return np.array(found)


def spoil_terms(text):
    """Versions of an expression with one term of a sum or one factor dropped."""
    tree = ast.parse(text, mode="eval")

    def operations(tree):
        arithmetic = (ast.Add, ast.Sub, ast.Mult, ast.Div)
        return [n for n in ast.walk(tree) if isinstance(n, ast.BinOp) and isinstance(n.op, arithmetic)]

    places = operations(tree)
    for i in range(len(places)):
        for side in ("left", "right"):
            if side == "left" and isinstance(places[i].op, ast.Add) and getattr(places[i].right, "value", None) == 0:
                continue  # + 0 makes 0 of -0, which test_contract_08_infinite_slopes_raise_nothing holds
            fresh = ast.parse(text, mode="eval")
            target = operations(fresh)[i]

            class Drop(ast.NodeTransformer):
                def visit(self, node):
                    return getattr(target, side) if node is target else self.generic_visit(node)

            yield ast.unparse(Drop().visit(fresh))


def mutants(text):
    yield f"({text}) * 1.001"
    yield f"-({text})"
    yield f"({text}) + 0.001"
    if re.search(r"\bout\b", text):
        yield re.sub(r"\bout\b", "x", text)
    yield from spoil_terms(text)


@each_partial
def test_the_text_of_a_partial_is_the_derivative(name, k):
    check(partial_by_text(name, ROWS[name].partials[k]), expected(name, (k,)))


@each_partial
def test_a_mutated_partial_is_rejected(name, k):
    text, exact = ROWS[name].partials[k], expected(name, (k,))
    survivors = []
    for mutant in mutants(text):
        try:
            check(partial_by_text(name, mutant), exact)
        except AssertionError:
            continue
        survivors.append(mutant)
    if name == "sinc":  # the last term of the series is below the check's tolerance
        def before(text):
            return ast.unparse(ast.parse(text)).split("-9.766")[0].rstrip("(")

        survivors = [mutant for mutant in survivors if before(mutant) != before(text)]
    assert not survivors, f"{name} by {'xyz'[k]}: the samples do not see {survivors}; add some to MORE_SAMPLES"


# ------------------------------------------------------------------------------------------------------ the generated code


@pytest.fixture(scope="module")
def generate():
    """A fresh copy of the generator, whose table a test can change."""
    path = Path(ops.__file__).with_name("generate.py")
    if not path.exists():
        pytest.skip("an installed package has no generator")
    spec = importlib.util.spec_from_file_location("fastgrad_generate_under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def extended(generate, monkeypatch, tmp_path):
    """The files generated from the table with one more row."""
    new = generate.TABLE.Op("cube", "x * x * x", "3 * x * x", says="x * x * x.", numpy=None)
    rows = (*generate.TABLE.OPS, new)
    monkeypatch.setattr(generate.TABLE, "OPS", rows)
    monkeypatch.setattr(generate, "ROWS", {op.name: op for op in rows})
    generate.generate(tmp_path)
    return {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_a_new_row_touches_one_file(extended):
    assert "FG_CUBE," in extended["ops.h"]
    assert "fg_value_cube_f64" in extended["rows.h"] and "fg_pull_cube_x_f32" in extended["rows.h"]
    assert "loop_fg_value_cube_f64" in extended["loops.h"] and "loop_fg_pull_cube_x_f32" in extended["loops.h"]
    assert "case FG_CUBE:" in extended["scalar.h"]
    assert "FG_CUBE" in extended["names.pxi"]
    assert "def cube(x, /, out=None):" in extended["functions.pxi"]
    assert "guarded_multiply(g, 3 * x * x)" in extended["functions.pxi"]


def test_the_engine_and_the_public_names_follow_the_table():
    assert engine.NAMES[1:] == tuple(op.name for op in ops.OPS)
    assert set(ROWS) <= set(fnp.__all__)


def test_generating_again_writes_nothing(generate, tmp_path):
    generate.generate(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    generate.generate(tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


@pytest.fixture(scope="module")
def needs(generate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    generate.generate(folder)
    text = (folder / "ops.h").read_text()
    return {name: tuple(int(v) for v in masks.split(","))
            for masks, name in re.findall(r"\{(\d+, \d+, \d+)\}, /\* (\w+) \*/", text)}


@each_row
def test_recording_keeps_what_the_partials_name(name, needs):
    bits = {"x": 1, "y": 2, "z": 4, "out": 8}
    for mask, text in itertools.zip_longest(needs[name], ROWS[name].partials):
        if text is None:
            assert mask == 0
            continue
        free = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)} & set(bits)
        assert mask & 15 == sum(bits[n] for n in free)
        assert mask & 16
        assert bool(mask & 32) == (text == "1")


@each_row
def test_a_row_uses_known_names_only(name):
    row = ROWS[name]
    known = {*ROWS, *ops.CONSTANTS, "select", "fabs", "round"}
    operands = set("xyz"[: row.arity])
    for text, more in [(row.value, set()), *((p, {"out"}) for p in row.partials if p)]:
        used = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
        assert used <= known | operands | more


def test_a_generated_file_says_so(extended):
    for text in extended.values():
        assert "never edit this file" in text.splitlines()[0]
