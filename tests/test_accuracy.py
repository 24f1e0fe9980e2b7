"""The elementary functions: accuracy in ulp, special values, no dependence on position.

Samples are deterministic and cover the whole range of each function: random
magnitudes over all exponents, dense samples near the points where a formula
cancels, the edges of overflow and underflow, random bit patterns.  References
are mpmath's.  This file knows nothing about derivatives.
"""

import itertools
import zlib

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

mp = pytest.importorskip("mpmath")

DTYPES = [np.float64, np.float32]
PRECISION = 160  # bits


def call(name, *arrays):
    return getattr(fnp, name)(*[fg.tensor(a) for a in arrays]).numpy()


# ---------------------------------------------------------------- references

def _gammaln(x):
    return mp.log(abs(mp.gamma(x))) if abs(x) < 200 else mp.re(mp.loggamma(x))


UNARY = {
    "exp": mp.exp,
    "exp2": lambda x: mp.mpf(2) ** x,
    "expm1": mp.expm1,
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
    "sinh": mp.sinh,
    "cosh": mp.cosh,
    "tanh": mp.tanh,
    "arcsinh": lambda x: mp.sign(x) * mp.log1p(abs(x) + x * x / (1 + mp.sqrt(1 + x * x))),
    "arccosh": lambda x: mp.log1p(x - 1 + mp.sqrt((x - 1) * (x + 1))),
    "arctanh": lambda x: (mp.log1p(x) - mp.log1p(-x)) / 2,
    "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)),
    "sqrt": mp.sqrt,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "softplus": lambda x: max(x, mp.mpf(0)) + mp.log1p(mp.exp(-abs(x))),
    "erf": mp.erf,
    "erfc": mp.erfc,
    "gammaln": _gammaln,
    "digamma": lambda x: mp.psi(0, x),
    "sinc": lambda x: mp.sinpi(x) / (mp.pi * x) if x else mp.mpf(1),
}

BINARY = {
    "power": mp.power,
    "arctan2": mp.atan2,
    "hypot": lambda x, y: mp.sqrt(x * x + y * y),
    "logaddexp": lambda x, y: max(x, y) + mp.log1p(mp.exp(-abs(x - y))),
    "logaddexp2": lambda x, y: max(x, y) + mp.log1p(mp.mpf(2) ** -abs(x - y)) / mp.log(2),
}

# Near a zero away from the origin the error is bounded absolutely: error over
# ulp(max(|reference|, floor)).
FLOOR = {"gammaln": 1.0, "digamma": 1.0, "logaddexp": 1.0, "logaddexp2": 1.0}
BOUND = {"gammaln": 8.0, "digamma": 16.0}


def bound(name):
    return BOUND.get(name, 2.0)


def reference(function, arrays):
    """The exact values as hi + lo, two float64 arrays."""
    hi, lo = [], []
    for values in zip(*arrays):
        big = max(abs(float(v)) for v in values) > 1e9
        with mp.workprec(PRECISION + (1100 if big else 0)):
            exact = function(*[mp.mpf(float(v)) for v in values])
            head = float(exact)
            hi.append(head)
            lo.append(float(exact - head) if np.isfinite(head) else 0.0)
    return np.array(hi), np.array(lo)


def ulp_error(got, hi, lo, floor=0.0):
    """|got - (hi + lo)| in units of the last place of the result's dtype; an
    overflow to infinity is right where the exact value is next to the limit."""
    largest = float(np.finfo(got.dtype).max)
    magnitude = np.clip(np.abs(hi), floor, largest).astype(got.dtype)
    with np.errstate(all="ignore"):
        error = np.abs((got.astype(np.float64) - hi) - lo) / np.spacing(magnitude).astype(np.float64)
    beyond = np.abs(hi) >= largest
    error = np.where(beyond & (np.abs(got) >= largest), 0.0, error)
    return np.where(np.isnan(error), np.inf, error)


# ------------------------------------------------------------------- samples


class Samples:
    """Random arguments of one function and dtype, the same in every run."""

    def __init__(self, name, dtype, seed=0):
        self.rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
        self.dtype = dtype
        info = np.finfo(dtype)
        self.low, self.high = int(info.minexp), int(info.maxexp) - 1
        self.bits = int(info.nmant)

    def uniform(self, low, high, n):
        return self.rng.uniform(low, high, n)

    def magnitudes(self, low, high, n, signed=True):
        """2**e with e uniform."""
        values = 2.0 ** self.rng.uniform(low, high, n)
        return values * self.rng.choice([-1, 1], n) if signed else values

    def patterns(self, n):
        """Random bit patterns."""
        raw = self.rng.bytes(n * np.dtype(self.dtype).itemsize)
        with np.errstate(all="ignore"):
            return np.frombuffer(raw, self.dtype).astype(np.float64)


def _range(s, single, double):
    return single if s.dtype is np.float32 else double


def _exponential(single, double):
    def draw(s):
        low, high = _range(s, single, double)
        edges = np.concatenate([low + np.linspace(0, 1, 40), high - np.linspace(0, 1, 40)])
        return [s.uniform(low, high, 250), s.uniform(-1.5, 1.5, 200), s.magnitudes(-40, 4, 100),
                s.magnitudes(s.low, -20, 30), edges]
    return draw


def _logarithm(s):
    return [s.magnitudes(s.low - s.bits + 4, s.high, 250, signed=False), s.uniform(0.5, 2, 250),
            1 + s.magnitudes(-s.bits, -3, 100)]


def _trigonometric(s):
    multiples = s.rng.integers(-60000, 60000, 100) * (np.pi / 2)
    return [s.magnitudes(-40, 3, 100), s.uniform(-10, 10, 250), s.uniform(-1e5, 1e5, 200), multiples,
            np.arange(-20, 20) * (np.pi / 4), s.magnitudes(16, 60, 50), s.magnitudes(60, s.high, 20),
            s.magnitudes(s.low, -20, 20)]


def _within_one(s):
    edge = s.magnitudes(-s.bits, -1, 100, signed=False)
    return [s.uniform(-1, 1, 400), s.magnitudes(-40, -1, 100), 1 - edge, edge - 1, s.uniform(0.45, 0.55, 60)]


def _everywhere(s):
    return [s.uniform(-3, 3, 400), s.magnitudes(-40, 70, 200), s.magnitudes(s.low, s.high, 80)]


UNARY_SAMPLES = {
    "exp": _exponential((-103.9, 88.7), (-745, 709.7)),
    "exp2": _exponential((-149, 127.9), (-1074, 1023.9)),
    "expm1": _exponential((-20, 88.7), (-40, 709.7)),
    "sinh": _exponential((-89.4, 89.4), (-710.4, 710.4)),
    "cosh": _exponential((-89.4, 89.4), (-710.4, 710.4)),
    "tanh": _exponential((-11, 11), (-22, 22)),
    "sigmoid": _exponential((-103.9, 40), (-745, 40)),
    "softplus": _exponential((-103.9, 40), (-745, 40)),
    "erf": _exponential((-4.5, 4.5), (-6.5, 6.5)),
    "erfc": _exponential((-10, 10.05), (-27.2, 26.5)),
    "log": _logarithm,
    "log2": _logarithm,
    "log10": _logarithm,
    "sqrt": _logarithm,
    "log1p": lambda s: [s.magnitudes(-60, s.high, 200), s.uniform(-0.999, 2, 250), s.uniform(-0.5, 0.5, 150),
                        -1 + s.magnitudes(-s.bits, -1, 60, signed=False)],
    "sin": _trigonometric,
    "cos": _trigonometric,
    "tan": _trigonometric,
    "arcsin": _within_one,
    "arccos": _within_one,
    "arctanh": _within_one,
    "arctan": _everywhere,
    "arcsinh": _everywhere,
    "cbrt": _everywhere,
    "arccosh": lambda s: [s.uniform(1, 3, 300), 1 + s.magnitudes(-s.bits, 0, 200, signed=False),
                          s.magnitudes(0, s.high, 150, signed=False)],
    "gammaln": lambda s: [s.uniform(0, 12, 150), s.uniform(-8, 0, 100), s.uniform(0.9, 2.2, 100),
                          s.magnitudes(-30, 90, 60, signed=False)],
    "digamma": lambda s: [s.uniform(0, 12, 150), s.uniform(-8, 0, 100), s.uniform(1.3, 1.6, 100),
                          s.magnitudes(-30, 90, 60, signed=False)],
    "sinc": lambda s: [s.uniform(-5, 5, 400), s.uniform(-1000, 1000, 100), s.magnitudes(-40, s.bits - 2, 100)],
}


def _power_samples(s):
    edge = _range(s, 85, 705)
    x = np.concatenate([s.uniform(0, 4, 200), s.magnitudes(s.low, s.high, 200, signed=False),
                        1 + s.magnitudes(3 - s.bits, -2, 200)]).astype(s.dtype)
    y = np.concatenate([s.uniform(-5, 5, 200), s.uniform(-edge, edge, 400)])
    with np.errstate(divide="ignore"):
        y[200:] /= np.log(x[200:].astype(np.float64))
    return x, y


def _sum_samples(s):
    x = np.concatenate([s.uniform(-30, 30, 250), s.uniform(1, 80, 250)])
    return x, np.concatenate([s.uniform(-30, 30, 250), x[250:] + s.uniform(-20, 20, 250)])


BINARY_SAMPLES = {
    "power": _power_samples,
    "arctan2": lambda s: tuple(
        np.concatenate([s.uniform(-3, 3, 300), s.magnitudes(-60, 60, 200), s.magnitudes(s.low, s.high, 60)])
        for _ in range(2)),
    "hypot": lambda s: tuple(
        np.concatenate([s.uniform(-3, 3, 200), m, m * s.uniform(0.1, 1, m.size)][:3])
        for m in (s.magnitudes(s.low - 10, s.high - 1, 150), s.magnitudes(s.low - 10, s.high - 1, 150))),
    "logaddexp": _sum_samples,
    "logaddexp2": _sum_samples,
}


def unary_samples(name, dtype, seed):
    s = Samples(name, dtype, seed)
    with np.errstate(all="ignore"):
        x = np.concatenate(UNARY_SAMPLES[name](s) + [s.patterns(60)]).astype(dtype)
        x = np.unique(x[np.isfinite(x)])
        keep = {
            "log": x > 0, "log2": x > 0, "log10": x > 0, "sqrt": x > 0, "log1p": x > -1, "arccosh": x >= 1,
            "arcsin": abs(x) <= 1, "arccos": abs(x) <= 1, "arctanh": abs(x) < 1,
            # mpmath needs minutes for these beyond
            "gammaln": (x > -100) & (x < 1e30) & ((x > 0) | (x != np.floor(x))),
            "digamma": (x > -100) & (x < 1e30) & ((x > 0) | (x != np.floor(x))),
            "exp": abs(x) < 1e4, "exp2": abs(x) < 1e4, "expm1": abs(x) < 1e4, "sigmoid": abs(x) < 1e4,
            "softplus": abs(x) < 1e4, "erf": abs(x) < 30, "erfc": abs(x) < 30, "sinh": abs(x) < 1e4,
            "cosh": abs(x) < 1e4, "tanh": abs(x) < 1e4, "sinc": abs(x) < 1e30,
        }.get(name, np.ones(x.shape, bool))
    return x[keep]


def binary_samples(name, dtype, seed):
    with np.errstate(all="ignore"):
        x, y = [a.astype(dtype) for a in BINARY_SAMPLES[name](Samples(name, dtype, seed))]
    keep = np.isfinite(x) & np.isfinite(y) & (x != 0)
    return x[keep], y[keep]


def samples(name, dtype, seed=0):
    return (unary_samples(name, dtype, seed),) if name in UNARY else binary_samples(name, dtype, seed)


# ------------------------------------------------------------------ accuracy


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_error_is_within_the_bound(name, dtype, seed):
    arrays = samples(name, dtype, seed)
    got = call(name, *arrays)
    assert got.dtype == dtype
    hi, lo = reference({**UNARY, **BINARY}[name], arrays)
    error = ulp_error(got, hi, lo, FLOOR.get(name, 0.0))
    worst = int(np.argmax(error))
    assert error[worst] <= bound(name), (
        f"{name}{tuple(float(a[worst]) for a in arrays)} = {got[worst]!r}, exactly {hi[worst]!r}: "
        f"{error[worst]:.3g} ulp")


# ------------------------------------------------------------ special values

NUMPY = {"round": np.rint}
EXACT_UNARY = ["floor", "ceil", "trunc", "round"]
EXACT_BINARY = ["fmod", "mod", "floor_divide"]


def special_values(dtype):
    info = np.finfo(dtype)
    positive = [0.0, info.smallest_subnormal, info.tiny / 2, info.tiny, 1e-30, 0.3, 0.5, 1, 1.5, 2, 2.5, 3, 7,
                100, 1000, 2.0**22 + 0.5, 2.0**23 + 1, 2.0**31, 2.0**52 + 1, 1e30, float(info.max), np.inf]
    with np.errstate(over="ignore"):
        return np.array([*positive, *[-v for v in positive], np.nan]).astype(dtype)


def assert_same(got, expected, inputs, ulps, floor=0.0):
    """Equal NaNs, infinities, zeros and signs; finite values within some ulp."""
    with np.errstate(all="ignore"):
        same = (got == expected) & (np.signbit(got) == np.signbit(expected))
        close = np.abs(got - expected) <= ulps * np.spacing(
            np.maximum(np.maximum(np.abs(got), np.abs(expected)), got.dtype.type(floor)))
        close &= np.isfinite(expected) & (expected != 0) & (np.signbit(got) == np.signbit(expected))
    wrong = ~(same | (np.isnan(got) & np.isnan(expected)) | close)
    assert not wrong.any(), [
        (tuple(float(a[i]) for a in inputs), float(got[i]), float(expected[i])) for i in np.flatnonzero(wrong)[:5]]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", [n for n in UNARY if hasattr(np, n) and n != "sinc"] + EXACT_UNARY)
def test_special_values_are_numpys(name, dtype):
    x = special_values(dtype)
    with np.errstate(all="ignore"):
        expected = NUMPY.get(name, getattr(np, name))(x)
    assert_same(call(name, x), expected, (x,), 0 if name in EXACT_UNARY else 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", [*BINARY, *EXACT_BINARY])
def test_special_pairs_are_numpys(name, dtype):
    pairs = np.array(list(itertools.product(special_values(dtype), repeat=2)))
    x, y = pairs[:, 0].copy(), pairs[:, 1].copy()
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x, y)
    assert_same(call(name, x, y), expected, (x, y), 0 if name in EXACT_BINARY else 4, FLOOR.get(name, 0.0))


INF, NAN = np.inf, np.nan
LIMITS = {
    "sigmoid": [(INF, 1.0), (-INF, 0.0), (0.0, 0.5), (NAN, NAN), (1e4, 1.0), (-1e4, 0.0)],
    "softplus": [(INF, INF), (-INF, 0.0), (NAN, NAN), (1e4, 1e4), (-1e4, 0.0)],
    "erf": [(INF, 1.0), (-INF, -1.0), (0.0, 0.0), (-0.0, -0.0), (NAN, NAN)],
    "erfc": [(INF, 0.0), (-INF, 2.0), (0.0, 1.0), (NAN, NAN)],
    "gammaln": [(INF, INF), (0.0, INF), (-0.0, INF), (-1.0, INF), (-100.0, INF), (1.0, 0.0), (2.0, 0.0), (NAN, NAN)],
    "digamma": [(INF, INF), (0.0, -INF), (-0.0, INF), (-1.0, NAN), (-100.0, NAN), (NAN, NAN)],
    "sinc": [(0.0, 1.0), (-0.0, 1.0), (1.0, 0.0), (-2.0, 0.0), (1e30, 0.0), (NAN, NAN), (INF, NAN), (-INF, NAN)],
}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", list(LIMITS))
def test_limits(name, dtype):
    x, expected = np.array(LIMITS[name]).T.astype(dtype)
    assert_same(call(name, x), expected, (x,), 0)


# ------------------------------------------------- exact functions, positions


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", EXACT_BINARY)
def test_remainders_are_numpys_bit_for_bit(name, dtype):
    s = Samples(name, dtype)
    n = 20000
    x = (s.rng.standard_normal(n) * 10 ** s.uniform(-3, 9, n)).astype(dtype)
    y = (s.rng.standard_normal(n) * 10 ** s.uniform(-5, 5, n)).astype(dtype)
    y[::3] = np.round(y[::3]) + 1
    x[::5] = np.round(x[::5])
    x[1::7] = y[1::7] * np.round(s.uniform(-1000, 1000, x[1::7].size)).astype(dtype)  # exact multiples, nearly
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x, y)
    assert_same(call(name, x, y), expected, (x, y), 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", EXACT_UNARY)
def test_rounding_is_numpys_bit_for_bit(name, dtype):
    s = Samples(name, dtype)
    x = np.concatenate([s.uniform(-100, 100, 3000), s.magnitudes(-5, 70, 3000), np.arange(-50, 50) / 2,
                        s.patterns(500)]).astype(dtype)
    with np.errstate(all="ignore"):
        x = np.concatenate([x, np.nextafter(x, dtype(0))])
        expected = NUMPY.get(name, getattr(np, name))(x)
    assert_same(call(name, x), expected, (x,), 0)


def some_arguments(name, dtype, n):
    if name in EXACT_UNARY or name in EXACT_BINARY:
        s = Samples(name, dtype)
        return tuple(s.uniform(0.1, 50, n).astype(dtype) for _ in range(1 if name in EXACT_UNARY else 2))
    arrays = samples(name, dtype)
    pick = Samples(name, dtype).rng.permutation(arrays[0].size)[:n]
    return tuple(a[pick] for a in arrays)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", [*UNARY, *BINARY, *EXACT_UNARY, *EXACT_BINARY])
def test_result_depends_neither_on_length_nor_position(name, dtype):
    arrays = some_arguments(name, dtype, 61)
    whole = call(name, *arrays)
    for n in (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33):
        np.testing.assert_array_equal(call(name, *[a[:n].copy() for a in arrays]), whole[:n])
    for i in range(0, 61, 6):
        everywhere = call(name, *[np.full(37, a[i], dtype) for a in arrays])
        np.testing.assert_array_equal(everywhere, np.full(37, whole[i], dtype))
