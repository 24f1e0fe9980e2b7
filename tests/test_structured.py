"""Structured operations: reductions, shape, joining, indexing, assignment, matmul; CONTRACT 4, 11, 13, 16, 18-24, 27.

Every case of CASES is held against NumPy (value), the complex step (gradient), itself (forward against reverse, compiled
against recorded pullback, layouts, float32) and finite differences of its gradient (second order).  What calculus does
not say follows below, one promise a test.
"""

import itertools
import zlib

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

inf, nan = np.inf, np.nan


class Oracle:
    """NumPy under the names the cases use, on real and complex numbers."""

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def logsumexp(x, axis=None, keepdims=False):
        x = np.asarray(x)
        top = np.max(x.real, axis=axis, keepdims=True) if x.size else 0.0
        total = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
        return total if keepdims else np.squeeze(total, axis=axis)

    def softmax(self, x, axis=-1):
        return np.exp(self.log_softmax(x, axis))

    def log_softmax(self, x, axis=-1):
        x = np.asarray(x)
        if x.size == 0:
            return x.copy()
        axis = None if x.ndim == 0 else axis
        return x - self.logsumexp(x, axis, True)


oracle = Oracle()


def assigned(x, index, value):
    y = x.copy()
    y[index] = value
    return y


def added(x, index, value):
    y = x.copy()
    y[index] += value
    return y


CASES = {}


def case(name, function, *shapes):
    assert name not in CASES
    CASES[name] = (function, shapes)


for name in ("sum", "mean", "prod", "max", "min", "logsumexp"):
    for shape, axis in [((), None), ((), ()), ((4,), None), ((4,), 0), ((1,), -1), ((2, 3), 0), ((2, 3), -1), ((2, 3), (0, 1)),
                        ((2, 3, 4), 1), ((2, 3, 4), (0, 2)), ((2, 3, 4), (-1, -2)), ((2, 3, 4), (0, 1)), ((2, 3), ()),
                        ((2, 1, 3, 2), (1, 3)), ((0, 3), 1), ((3, 0), 0)]:
        if shape == (3, 0) and name == "logsumexp":
            continue
        for keepdims in (False, True):
            case(f"{name} {shape} axis={axis}{' keepdims' if keepdims else ''}",
                 lambda xp, x, f=name, a=axis, k=keepdims: getattr(xp, f)(x, axis=a, keepdims=k), shape)
for name in ("sum", "mean", "prod"):
    case(f"{name} of nothing", lambda xp, x, f=name: getattr(xp, f)(x, axis=0), (0,)) if name != "mean" else None
    case(f"{name} of a long row", lambda xp, x, f=name: getattr(xp, f)(x * 0.1 + 1, axis=1), (2, 37))
for name in ("softmax", "log_softmax"):
    for shape, axis in [((), -1), ((4,), 0), ((4,), -1), ((2, 3), 0), ((2, 3), 1), ((2, 3), None), ((2, 3, 4), 1), ((0, 3), -1),
                        ((3, 0), -1), ((3, 1), -1)]:
        case(f"{name} {shape} axis={axis}", lambda xp, x, f=name, a=axis: getattr(xp, f)(x, axis=a), shape)

for name, function, shape in [
    ("reshape (6,)", lambda xp, x: xp.reshape(x, (6,)), (2, 3)),
    ("reshape -1", lambda xp, x: xp.reshape(x, -1), (2, 3)),
    ("reshape (3, -1, 1)", lambda xp, x: xp.reshape(x, (3, -1, 1)), (2, 3)),
    ("reshape to 0-d", lambda xp, x: xp.reshape(x, ()), (1, 1)),
    ("reshape from 0-d", lambda xp, x: xp.reshape(x, (1, 1)), ()),
    ("reshape of nothing", lambda xp, x: xp.reshape(x, (3, 0, 2)), (0, 3)),
    ("reshape of a transpose", lambda xp, x: xp.reshape(xp.transpose(x), (2, 3)), (2, 3)),
    ("method reshape", lambda xp, x: x.reshape(3, 2), (2, 3)),
    ("ravel", lambda xp, x: xp.ravel(x), (2, 3)),
    ("ravel of a transpose", lambda xp, x: x.T.ravel(), (2, 3)),
    ("flatten", lambda xp, x: x.flatten(), (2, 3)),
    ("squeeze", lambda xp, x: xp.squeeze(x), (1, 3, 1)),
    ("squeeze axis", lambda xp, x: xp.squeeze(x, axis=-1), (1, 3, 1)),
    ("squeeze axes", lambda xp, x: xp.squeeze(x, axis=(0, 2)), (1, 3, 1)),
    ("expand_dims 0", lambda xp, x: xp.expand_dims(x, 0), (2, 3)),
    ("expand_dims -1", lambda xp, x: xp.expand_dims(x, -1), (2, 3)),
    ("expand_dims (0, 2)", lambda xp, x: xp.expand_dims(x, (0, 2)), (2, 3)),
    ("transpose", lambda xp, x: xp.transpose(x), (2, 3)),
    ("transpose 0-d", lambda xp, x: xp.transpose(x), ()),
    ("transpose axes", lambda xp, x: xp.transpose(x, (1, -1, 0)), (2, 3, 4)),
    ("method transpose", lambda xp, x: x.transpose(2, 0, 1), (2, 3, 4)),
    ("T", lambda xp, x: x.T, (2, 3)),
    ("swapaxes", lambda xp, x: xp.swapaxes(x, 0, -1), (2, 3, 4)),
    ("swapaxes with itself", lambda xp, x: xp.swapaxes(x, 1, 1), (2, 3)),
    ("moveaxis", lambda xp, x: xp.moveaxis(x, 0, -1), (2, 3, 4)),
    ("moveaxis of two", lambda xp, x: xp.moveaxis(x, (0, 1), (-1, 0)), (2, 3, 4)),
    ("broadcast_to", lambda xp, x: xp.broadcast_to(x, (4, 2, 3)), (2, 3)),
    ("broadcast_to along 1", lambda xp, x: xp.broadcast_to(x, (2, 3)), (2, 1)),
    ("broadcast_to from 0-d", lambda xp, x: xp.broadcast_to(x, (2, 3)), ()),
    ("broadcast_to nothing", lambda xp, x: xp.broadcast_to(x, (0, 3)), (3,)),
    ("broadcast_to itself", lambda xp, x: xp.broadcast_to(x, (3,)), (3,)),
    ("copy", lambda xp, x: xp.copy(x), (2, 3)),
    ("fan-out through views", lambda xp, x: x.T @ x + xp.sum(x) + x.reshape(3, 2) @ x, (2, 3)),
]:
    case(name, function, shape)

for name, function, shapes in [
    ("concatenate", lambda xp, a, b: xp.concatenate([a, b]), ((2, 3), (1, 3))),
    ("concatenate axis=-1", lambda xp, a, b: xp.concatenate((a, b), axis=-1), ((2, 3), (2, 1))),
    ("concatenate axis=None", lambda xp, a, b: xp.concatenate([a, b], axis=None), ((2, 3), (2,))),
    ("concatenate with nothing", lambda xp, a, b: xp.concatenate([a, b]), ((0, 3), (1, 3))),
    ("concatenate the same twice", lambda xp, a: xp.concatenate([a, a, a]), ((2,),)),
    ("concatenate with a constant", lambda xp, a: xp.concatenate([np.ones(2, a.real.dtype), a, np.zeros(1, a.real.dtype)]), ((2,),)),
    ("stack", lambda xp, a, b: xp.stack([a, b]), ((2, 3), (2, 3))),
    ("stack axis=1", lambda xp, a, b: xp.stack([a, b], axis=1), ((2, 3), (2, 3))),
    ("stack axis=-1", lambda xp, a, b: xp.stack([a, b, a], axis=-1), ((2, 3), (2, 3))),
    ("stack of 0-d", lambda xp, a, b: xp.stack([a, b]), ((), ())),
    ("stack of one", lambda xp, a: xp.stack([a]), ((3,),)),
]:
    case(name, function, *shapes)

INDICES = {
    "2": ((4,), 2),
    "-1": ((4,), -1),
    "1:3": ((4,), slice(1, 3)),
    "::-1": ((4,), slice(None, None, -1)),
    "3:0:-2": ((5,), slice(3, 0, -2)),
    "2:2": ((4,), slice(2, 2)),
    "5:9": ((4,), slice(5, 9)),
    "None": ((4,), None),
    "...": ((2, 3), ...),
    "()": ((2, 3), ()),
    "() of 0-d": ((), ()),
    "... of 0-d": ((), ...),
    "None of 0-d": ((), None),
    "1 of a row": ((2, 3), 1),
    "..., 0": ((2, 3, 4), (..., 0)),
    ":, None, ::-2": ((2, 5), (slice(None), None, slice(None, None, -2))),
    "0, ..., None, 1:": ((2, 3, 4), (0, ..., None, slice(1, None))),
    "1, 2": ((2, 3), (1, 2)),
    "[0, 2]": ((4, 2), [0, 2]),
    "[0, 0, -1, 0]": ((4, 2), np.array([0, 0, -1, 0])),
    "[]": ((4, 2), np.array([], int)),
    "an empty list": ((4, 2), []),
    "[[0, 1], [1, 1]]": ((3,), np.array([[0, 1], [1, 1]])),
    "[0, 1], [2, 2]": ((2, 3), ([0, 1], [2, 2])),
    "[1, 1], [2, 2]": ((2, 3), ([1, 1], [2, 2])),
    "broadcast integers": ((2, 3), (np.array([[0], [1]]), np.array([0, 2]))),
    "mask": ((4,), np.array([True, False, True, True])),
    "mask of 2-d": ((2, 3), np.array([[True, False, True], [False, False, True]])),
    "mask of rows": ((2, 3), np.array([False, True])),
    "empty mask": ((2, 3), np.zeros((2, 3), bool)),
    "mask of nothing": ((0,), np.zeros(0, bool)),
    "mask, 1": ((2, 3), (np.array([True, True]), 1)),
    "[1, 0], ::-1": ((2, 3), ([1, 0], slice(None, None, -1))),
    "0, :, [1, 1]": ((2, 3, 4), (0, slice(None), [1, 1])),
    ":, [1, 1], None, mask": ((2, 3, 2), (slice(None), [1, 1], None, np.array([True, True]))),
    "[1], ..., [0]": ((2, 3, 4), ([1], ..., [0])),
}
for name, (shape, index) in INDICES.items():
    case(f"x[{name}]", lambda xp, x, i=index: x[i], shape)
case("x[i][j][k]", lambda xp, x: x[1:][..., ::-1][0], (3, 4))
case("sum of rows by index", lambda xp, x: x[0] + x[1] * x[0] - x[-1], (3, 2))

for name, index in {"2": 2, "-1": -1, "1:3": slice(1, 3), "::-2": slice(None, None, -2), "[0, 2]": [0, 2], "...": ...,
                    "[3, 3, 1]": np.array([3, 3, 1]), "mask": np.array([True, False, True, False]),
                    "empty mask": np.zeros(4, bool), "[]": np.array([], int)}.items():
    value_shape = np.empty((4, 2))[index].shape
    case(f"x[{name}] = v", lambda xp, x, v, i=index: assigned(x, i, v), (4, 2), value_shape)
    case(f"x[{name}] = a v that broadcasts", lambda xp, x, v, i=index: assigned(x, i, v), (4, 2), (1,))
    case(f"x[{name}] = a 0-d v", lambda xp, x, v, i=index: assigned(x, i, v), (4, 2), ())
    case(f"x[{name}] = 2.0", lambda xp, x, i=index: assigned(x, i, 2.0), (4, 2))
    case(f"x[{name}] += v", lambda xp, x, v, i=index: added(x, i, v), (4, 2), (2,))
case("x[i] = v with more axes", lambda xp, x, v: assigned(x, 1, v), (3, 2), (1, 1, 2))
case("constant[i] = v", lambda xp, v: assigned(xp.zeros(4, dtype=v.dtype), [1, 1], v), (2,))
case("x[i] = f(x)", lambda xp, x: assigned(x, 0, x[1] * x[2]), (3,))
case("x[0, 1] = v", lambda xp, x, v: assigned(x, (0, 1), v), (2, 3), ())

MATMUL_SHAPES = [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)), ((1, 1), (1, 1)), ((2, 3, 4), (4,)),
                 ((3,), (2, 3, 4)), ((2, 3, 4), (4, 2)), ((2, 3), (4, 3, 2)), ((2, 2, 3), (2, 3, 2)), ((1, 2, 3), (4, 3, 2)),
                 ((4, 2, 3), (1, 3, 2)), ((2, 1, 2, 3), (3, 3, 2)), ((2, 1, 2, 3), (1, 2, 3, 1)), ((2,), (2, 1, 2, 3)),
                 ((2, 2, 2, 3), (3,)), ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((2, 3), (3, 0)), ((0,), (0,)), ((0, 2, 3), (3, 2)),
                 ((2, 0, 3), (2, 3, 0)), ((9, 11), (11, 8)), ((20, 21), (21, 22))]
for a, b in MATMUL_SHAPES:
    if np.prod(a) < 100:
        case(f"matmul {a} {b}", lambda xp, x, y: xp.matmul(x, y), a, b)
case("x @ x", lambda xp, x: x @ x, (3, 3))
case("x @ x.T", lambda xp, x: x @ x.T, (2, 3))
case("x.T @ constant", lambda xp, x: x.T @ np.arange(6, dtype=x.real.dtype).reshape(2, 3), (2, 4))
case("constant @ x", lambda xp, x: np.arange(6, dtype=x.real.dtype).reshape(3, 2) @ x, (2, 4))
DOT_SHAPES = [((), ()), ((), (3,)), ((2, 3), ()), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)),
              ((2, 3, 4), (4,)), ((3,), (2, 3, 4)), ((2, 3), (4, 3, 2)), ((2, 2, 3), (3, 2)), ((2, 1, 3), (2, 3, 2)),
              ((1, 2, 1, 2), (2, 1)), ((2,), (1, 2, 2, 1)), ((0,), (0,)), ((2, 0), (0, 3)), ((2, 0, 3), (2, 3, 1))]
for a, b in DOT_SHAPES:
    case(f"dot {a} {b}", lambda xp, x, y: xp.dot(x, y), a, b)

every_case = pytest.mark.parametrize("name", CASES)


def prepared(name):
    """The function and operands of a case, with points and weights that are the same in every run."""
    function, shapes = CASES[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    arrays = [np.asarray(rng.permutation(np.linspace(-1.7, 1.9, int(np.prod(s)) or 1))[:int(np.prod(s))].reshape(s))
              for s in shapes]
    value = np.asarray(function(oracle, *arrays))
    return function, arrays, value, rng.uniform(0.5, 1.5, value.shape), rng


def close(actual, expected, rtol=1e-12, atol=1e-13):
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def weighted(function, weights):
    return lambda *arrays: fnp.sum(function(fnp, *arrays) * weights)


def complex_gradients(function, arrays, weights):
    found = []
    for k, a in enumerate(arrays):
        gradient = np.zeros(a.shape)
        for place in np.ndindex(a.shape):
            moved = [np.array(b, complex) for b in arrays]
            moved[k][place] += 1e-100j
            gradient[place] = np.sum(function(oracle, *moved) * weights).imag * 1e100
        found.append(gradient)
    return found


def gradients(function, arrays, weights):
    return fg.grad(weighted(function, weights), tuple(range(len(arrays))))(*arrays)


@every_case
def test_the_value_is_numpys(name):
    function, arrays, value, _, _ = prepared(name)
    for kind in (lambda a: fg.tensor(a), lambda a: fg.tensor(a, requires_grad=True)):
        out = function(fnp, *map(kind, arrays))
        assert type(out) is fg.Tensor and out.dtype == np.float64
        close(out.detach().numpy(), value, 1e-14, 1e-14)


@every_case
def test_the_gradient_is_the_complex_steps(name):
    function, arrays, _, weights, _ = prepared(name)
    for found, expected in zip(gradients(function, arrays, weights), complex_gradients(function, arrays, weights)):
        close(found, expected)


@every_case
def test_forward_and_reverse_agree(name):
    function, arrays, value, weights, rng = prepared(name)
    tangents = tuple(rng.standard_normal(a.shape) for a in arrays)
    out, pushed = fg.jvp(lambda *a: function(fnp, *a), tuple(arrays), tangents)
    close(out, value, 1e-14, 1e-14)
    assert np.shape(pushed) == value.shape
    reverse = sum(np.sum(g * t) for g, t in zip(gradients(function, arrays, weights), tangents))
    close(np.sum(weights * pushed), reverse)


@every_case
def test_the_second_order_is_the_difference_of_gradients(name):
    function, arrays, _, weights, rng = prepared(name)

    def bent(*a):
        out = function(fnp, *a)
        return fnp.sum(out * out * weights)

    slots = tuple(range(len(arrays)))
    gradient = fg.grad(bent, slots)
    tangents = [rng.standard_normal(a.shape) for a in arrays]
    h = 1e-5
    up, down = (gradient(*[a + s * h * t for a, t in zip(arrays, tangents)]) for s in (1, -1))
    forward = fg.hvp(bent, tuple(arrays), tuple(tangents))
    forward = (forward,) if len(arrays) == 1 else forward
    reverse = fg.grad(lambda *a: sum(fnp.sum(g * t) for g, t in zip(gradient(*a), tangents)), slots)(*arrays)
    for a, b, over, again in zip(up, down, forward, reverse):
        close(over, (a - b) / (2 * h), 1e-6, 1e-7)
        close(again, over, 1e-11, 1e-12)


@every_case
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_compiled_pullback_is_the_recorded_one(name, dtype):
    function, arrays, _, weights, _ = prepared(name)
    found = []
    for create_graph in (False, True):
        leaves = [fg.tensor(a.astype(dtype), requires_grad=True) for a in arrays]
        function(fnp, *leaves).backward(weights.astype(dtype), create_graph=create_graph)
        found.append([leaf.grad.detach().numpy() for leaf in leaves])
    for compiled, recorded in zip(*found):
        assert compiled.dtype == recorded.dtype == dtype
        ulp = np.finfo(dtype).eps * 8
        close(compiled, recorded, ulp, ulp * max(1, np.max(np.abs(compiled), initial=0)))


@every_case
def test_contract_27_float32_stays_float32(name):
    function, arrays, value, weights, _ = prepared(name)
    narrow = [a.astype(np.float32) for a in arrays]
    out = function(fnp, *map(fg.tensor, narrow))
    assert out.dtype == np.float32 and out.shape == value.shape
    close(out.numpy(), value, 2e-5, 2e-5)
    for found, wide in zip(gradients(function, narrow, weights.astype(np.float32)), gradients(function, arrays, weights)):
        assert found.dtype == np.float32
        close(found, wide, 2e-4, 2e-4)


LAYOUTS = {
    "Fortran order": lambda a: np.array(a, order="F"),
    "every second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    "backwards": lambda a: np.flip(a).copy()[(slice(None, None, -1),) * a.ndim],
    "transposed memory": lambda a: np.array(a.T, order="C").T,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "read-only": lambda a: np.lib.stride_tricks.as_strided(a.copy(), writeable=False),
    "unaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape) if a.size else a,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("start", ["sum", "mean", "prod", "max", "logsumexp", "softmax", "reshape", "ravel", "transpose",
                                   "moveaxis", "broadcast_to", "concatenate", "stack", "x[", "matmul", "dot"])
def test_contract_24_every_layout_is_like_a_contiguous_native_copy(start, layout):
    for name in CASES:
        if not name.startswith(start) or (start == "max" and "softmax" in name):
            continue
        function, arrays, value, weights, _ = prepared(name)
        laid = [LAYOUTS[layout](a) for a in arrays]
        close(function(fnp, *laid if len(laid) > 1 else [fg.tensor(laid[0])]).numpy()
              if start in ("matmul", "dot") else fg.vjp(lambda *a: function(fnp, *a), *laid)[0], value, 1e-14, 1e-14)
        for found, plain in zip(gradients(function, laid, weights), gradients(function, arrays, weights)):
            close(found, plain, 1e-14, 1e-15)


# Reductions


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1)])
def test_contract_04_ties_share_the_gradient_evenly(name, axis):
    x = np.array([[2.0, 2.0, 1.0], [2.0, 2.0, 2.0]]) * (1 if name == "max" else -1)
    found = fg.grad(lambda x: getattr(fnp, name)(x, axis=axis).sum())(x)
    hit = x == getattr(x, name)(axis=axis, keepdims=True)
    close(found, hit / hit.sum(axis=axis, keepdims=True))
    close(found.sum(axis=axis), np.ones_like(found.sum(axis=axis)))


@pytest.mark.parametrize("name", ["max", "min"])
def test_contract_04_ties_share_tangents_too(name):
    x, t = np.array([3.0, 1.0, 3.0, 1.0]), np.array([1.0, 2.0, 4.0, 8.0])
    pushed = fg.jvp(getattr(fnp, name), (x,), (t,))[1]
    assert pushed == (2.5 if name == "max" else 5.0)


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("extreme", [inf, -inf])
def test_an_infinite_extreme_passes_its_gradient(name, extreme):
    close(fg.grad(getattr(fnp, name))(np.array([extreme, extreme])), [0.5, 0.5])


@pytest.mark.parametrize("name", ["max", "min", "sum", "mean", "prod", "logsumexp"])
def test_a_nan_makes_the_value_nan(name):
    assert np.isnan(getattr(fnp, name)(np.array([1.0, nan, 2.0])).item())


@pytest.mark.parametrize("name", ["max", "min"])
def test_contract_16_nan_in_one_row_stays_in_its_row(name):
    x = np.array([[1.0, nan, 2.0], [4.0, 3.0, 5.0]])
    value, pull = fg.vjp(lambda x: getattr(fnp, name)(x, axis=1), x)
    np.testing.assert_array_equal(value, getattr(x, name)(axis=1))
    (found,) = pull(np.ones(2))
    assert np.isnan(found[0, 1])
    close(found[1], (x[1] == value[1]) * 1.0)
    assert found[0, 0] == 0 and found[0, 2] == 0


@pytest.mark.parametrize("name", ["sum", "mean"])
def test_contract_16_a_linear_reduction_has_no_nan_in_its_gradient(name):
    found = fg.grad(getattr(fnp, name))(np.array([1.0, nan, inf]))
    close(found, [1.0, 1.0, 1.0] if name == "sum" else [1 / 3] * 3)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("name", ["max", "min"])
def test_contract_22_the_largest_of_nothing_is_numpys_error(name, shape):
    with pytest.raises(ValueError, match="zero-size array to reduction operation " + name):
        getattr(fnp, name)(fg.tensor(np.ones(shape)))


def test_contract_22_the_mean_of_nothing_is_nan_and_its_gradient_is_empty():
    value, found = fg.value_and_grad(fnp.mean)(np.ones(0))
    assert np.isnan(value) and found.shape == (0,)


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "min", "logsumexp"])
@pytest.mark.parametrize("axis", [2, -3, (0, 5)])
def test_contract_47_a_wrong_axis_is_numpys_error(name, axis):
    with pytest.raises(np.exceptions.AxisError, match="is out of bounds for array of dimension 2"):
        getattr(fnp, name)(fg.tensor(np.ones((2, 3))), axis=axis)


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "min", "logsumexp"])
def test_contract_47_a_repeated_axis_is_numpys_error(name):
    with pytest.raises(ValueError, match="duplicate value in 'axis'|repeated axis"):
        getattr(fnp, name)(fg.tensor(np.ones((2, 3))), axis=(0, -2))


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "mean"])
@pytest.mark.parametrize("data", [[[1, 2], [3, 4]], [[True, False], [True, True]]])
def test_integers_reduce_as_in_numpy(name, data):
    out = getattr(fnp, name)(fg.tensor(data), axis=0)
    expected = getattr(np, name)(np.array(data), axis=0)
    assert out.dtype == expected.dtype
    np.testing.assert_array_equal(out.numpy(), expected)


def test_float32_is_summed_pairwise():
    x = np.full(1 << 22, 0.1, np.float32)
    assert abs(fnp.sum(x).item() - 0.1 * x.size) < 1e-5 * 0.1 * x.size


@pytest.mark.parametrize("values, expected", [
    ([2.0, 3.0, 5.0], [15.0, 10.0, 6.0]), ([0.0, 3.0, 5.0], [15.0, 0.0, 0.0]), ([0.0, 3.0, 0.0], [0.0, 0.0, 0.0]),
    ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]), ([-0.0, 2.0], [2.0, -0.0]), ([4.0], [1.0])])
def test_contract_13_prod_with_zeros_is_exact(values, expected):
    np.testing.assert_array_equal(fg.grad(fnp.prod)(np.array(values)), expected)


@pytest.mark.parametrize("values", [[2.0, 3.0, 5.0, 7.0], [0.0, 3.0, 5.0, 7.0], [0.0, 3.0, 0.0, 7.0], [0.0, 0.0, 0.0, 7.0]])
def test_contract_13_prod_with_zeros_is_exact_at_second_order(values):
    x = np.array(values)
    expected = np.zeros((4, 4))
    for i, j in itertools.permutations(range(4), 2):
        expected[i, j] = np.prod(np.delete(x, [i, j]))
    np.testing.assert_array_equal(fg.hessian(fnp.prod)(x), expected)


@pytest.mark.parametrize("zeros", [(), (0,), (0, 3)])
def test_contract_13_prod_pushes_tangents_through_zeros(zeros):
    x = np.array([2.0, 3.0, 5.0, 7.0])
    x[list(zeros)] = 0
    t = np.array([1.0, -2.0, 0.5, 3.0])
    expected = sum(t[i] * np.prod(np.delete(x, i)) for i in range(4))
    assert fg.jvp(fnp.prod, (x,), (t,))[1] == expected


# softmax and its kin

LOGSUMEXP = [
    ([-inf, 0.0, 0.0], np.log(2.0), [0.0, 0.5, 0.5]),
    ([-inf, 3.0], 3.0, [0.0, 1.0]),
    ([inf, 0.0], inf, [1.0, 0.0]),
    ([inf, inf], inf, [0.5, 0.5]),
    ([inf, -inf, 1.0], inf, [1.0, 0.0, 0.0]),
    ([1e300, -1e300], 1e300, [1.0, 0.0]),
    ([1000.0, 1000.0], 1000 + np.log(2.0), [0.5, 0.5]),
    ([-1000.0, -1000.0], -1000 + np.log(2.0), [0.5, 0.5]),
]


@pytest.mark.parametrize("x, value, gradient", LOGSUMEXP)
@pytest.mark.parametrize("create_graph", [False, True])
def test_contract_11_logsumexp_at_infinity(x, value, gradient, create_graph):
    leaf = fg.tensor(x, requires_grad=True)
    out = fnp.logsumexp(leaf)
    assert out.item() == pytest.approx(value, rel=1e-15)
    out.backward(create_graph=create_graph)
    close(leaf.grad.detach().numpy(), gradient, 1e-12, 1e-15)


@pytest.mark.parametrize("create_graph", [False, True])
def test_contract_11_logsumexp_of_minus_infinities_has_no_nan(create_graph):
    leaf = fg.tensor([-inf, -inf], requires_grad=True)
    out = fnp.logsumexp(leaf)
    out.backward(create_graph=create_graph)
    assert out.item() == -inf
    assert not np.isnan(leaf.grad.detach().numpy()).any()


def test_contract_11_an_infinite_row_does_not_poison_the_others():
    x = np.array([[-inf, -inf], [1.0, 1.0], [inf, 0.0]])
    value, pull = fg.vjp(lambda x: fnp.logsumexp(x, axis=1), x)
    np.testing.assert_allclose(value, [-inf, 1 + np.log(2.0), inf])
    close(pull(np.ones(3))[0][1:], [[0.5, 0.5], [1.0, 0.0]])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_contract_11_masked_scores_have_gradient_zero(name):
    x = np.array([-inf, 1.0, 2.0])
    value, pull = fg.vjp(getattr(fnp, name), x)
    plain, pull_plain = fg.vjp(getattr(fnp, name), x[1:])
    close(value[1:], plain)
    assert value[0] == (0.0 if name == "softmax" else -inf)
    (found,) = pull(np.array([0.0, 0.3, 0.4]))
    close(found[1:], pull_plain(np.array([0.3, 0.4]))[0])
    assert found[0] == 0


def test_contract_11_softmax_of_masked_scores_differentiates_twice():
    x = np.array([-inf, 1.0, 2.0])
    w = np.array([5.0, 1.0, -2.0])
    full = fg.hessian(lambda x: (fnp.softmax(x) * w).sum())(x)
    close(full[1:, 1:], fg.hessian(lambda x: (fnp.softmax(x) * w[1:]).sum())(x[1:]))
    assert not np.isnan(full).any()


def test_contract_11_logsumexp_of_masked_scores_differentiates_twice():
    full = fg.hessian(fnp.logsumexp)(np.array([-inf, 1.0, 2.0]))
    close(full[1:, 1:], fg.hessian(fnp.logsumexp)(np.array([1.0, 2.0])))
    assert not np.isnan(full).any()


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_contract_11_large_scores_do_not_overflow(name):
    x = np.array([1e4, 1e4 - 1, -1e4])
    shifted = np.array([0.0, -1.0, -2e4])
    close(fg.jacobian(getattr(fnp, name))(x), fg.jacobian(getattr(fnp, name))(shifted), 1e-11)


def test_logsumexp_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="logsumexp"):
        fnp.logsumexp(fg.tensor(np.ones((3, 0))), axis=1)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_integer_scores_become_floats(name):
    close(getattr(fnp, name)([1, 2]).numpy(), getattr(oracle, name)(np.array([1.0, 2.0])))


# Shape


@pytest.mark.parametrize("shape", [(4,), (2, 2, 2), (-1, 4), (-1, -1), (0, -1)])
def test_contract_47_reshape_to_another_size_names_both(shape):
    with pytest.raises(ValueError, match="reshape: "):
        fnp.reshape(fg.tensor(np.ones((2, 3))), shape)


@pytest.mark.parametrize("call, error, text", [
    (lambda x: fnp.transpose(x, (0,)), ValueError, "transpose"),
    (lambda x: fnp.transpose(x, (0, 0)), ValueError, "repeated axis"),
    (lambda x: fnp.transpose(x, (0, 2)), np.exceptions.AxisError, "out of bounds"),
    (lambda x: fnp.swapaxes(x, 0, 2), np.exceptions.AxisError, "swapaxes"),
    (lambda x: fnp.moveaxis(x, 0, 5), np.exceptions.AxisError, "moveaxis"),
    (lambda x: fnp.moveaxis(x, (0, 1), 0), ValueError, "moveaxis"),
    (lambda x: fnp.squeeze(x, 0), ValueError, r"squeeze.*\(2, 3\)"),
    (lambda x: fnp.expand_dims(x, 4), np.exceptions.AxisError, "expand_dims"),
    (lambda x: fnp.broadcast_to(x, (2, 4)), ValueError, r"broadcast_to: shape \(2, 3\) cannot be broadcast to \(2, 4\)"),
    (lambda x: fnp.broadcast_to(x, (3,)), ValueError, "broadcast_to"),
    (lambda x: fnp.concatenate([]), ValueError, "need at least one array"),
    (lambda x: fnp.concatenate([x, np.ones((2, 2))]), ValueError, r"concatenate.*\(2, 3\).*\(2, 2\)"),
    (lambda x: fnp.concatenate([x, np.ones(3)]), ValueError, r"concatenate.*\(2, 3\).*\(3,\)"),
    (lambda x: fnp.concatenate([x, x], axis=2), np.exceptions.AxisError, "concatenate"),
    (lambda x: fnp.concatenate([fg.tensor(1.0)]), ValueError, "zero-dimensional arrays cannot be concatenated"),
    (lambda x: fnp.stack([]), ValueError, "need at least one array"),
    (lambda x: fnp.stack([x, np.ones(3)]), ValueError, r"stack.*same shape.*\(2, 3\).*\(3,\)"),
    (lambda x: fnp.stack([x, x], axis=4), np.exceptions.AxisError, None),
    (lambda x: fnp.matmul(x, x), ValueError, r"matmul: shapes \(2, 3\) and \(2, 3\)"),
    (lambda x: x @ np.ones(2), ValueError, r"matmul: shapes \(2, 3\) and \(2,\)"),
    (lambda x: x @ fg.tensor(1.0), ValueError, r"matmul.*0-d"),
    (lambda x: x @ 2.0, (ValueError, TypeError), None),
    (lambda x: fnp.matmul(np.ones((2, 2, 3)), np.ones((3, 3, 1)) * x[0, 0]), ValueError, "matmul"),
    (lambda x: fnp.dot(x, x), ValueError, r"\(2, 3\)"),
    (lambda x: fnp.dot(x, np.ones((4, 2, 2))), ValueError, "dot"),
    (lambda x: x[2], IndexError, r"index 2 is out of bounds for axis 0 with size 2.*\(2, 3\)"),
    (lambda x: x[0, 0, 0], IndexError, "too many indices"),
    (lambda x: x[..., ...], IndexError, "single ellipsis"),
    (lambda x: x[[0, 5]], IndexError, "out of bounds"),
    (lambda x: x[np.ones(3, bool)], IndexError, "boolean index"),
    (lambda x: x[1.0], (IndexError, TypeError), None),
    (lambda x: x[fg.tensor(1.0)], IndexError, "float64 is no index"),
    (lambda x: x["a"], (IndexError, TypeError), None),
    (lambda x: fg.tensor(1.0)[0], IndexError, "0-d Tensor cannot be indexed"),
    (lambda x: x[0].__setitem__(slice(None), np.ones(2)), ValueError, r"\(2,\)"),
    (lambda x: x.copy().__setitem__(7, 1.0), IndexError, "out of bounds"),
])
def test_contract_47_errors_have_numpys_class_and_say_what_is_wrong(call, error, text):
    for x in (fg.tensor(np.ones((2, 3))), fg.tensor(np.ones((2, 3)), requires_grad=True)):
        with pytest.raises(error, match=text):
            call(x)
        assert fnp.sum(x).item() == 6.0


# Indexing


@pytest.mark.parametrize("name", [n for n in INDICES if INDICES[n][0]])
def test_contract_21_indexing_scatters_back_exactly(name):
    shape, index = INDICES[name]
    x = np.arange(1.0, np.prod(shape) + 1).reshape(shape)
    weights = np.arange(1.0, x[index].size + 1).reshape(x[index].shape)
    expected = np.zeros(shape)
    np.add.at(expected, index, weights)
    np.testing.assert_array_equal(fg.grad(lambda x: (x[index] * weights).sum())(x), expected)


def test_contract_19_repeated_indices_accumulate():
    found = fg.grad(lambda x: (x[np.array([1, 1, 1, 0])] * np.array([1.0, 2.0, 4.0, 8.0])).sum())(np.ones(3))
    np.testing.assert_array_equal(found, [8.0, 7.0, 0.0])


@pytest.mark.parametrize("operation", [lambda x: x * x, lambda x: x @ x, lambda x: fnp.maximum(x, x), lambda x: x + x,
                                       lambda x: fnp.concatenate([x, x]), lambda x: fnp.where(np.array(True), x, x)])
def test_contract_19_the_same_tensor_twice_accumulates(operation):
    x = np.array([1.5, -2.0])
    found = fg.grad(lambda x: operation(x).sum())(x)
    h = 1e-6
    for k in range(2):
        step = np.eye(2)[k] * h
        difference = (operation(fg.tensor(x + step)).sum() - operation(fg.tensor(x - step)).sum()).item() / (2 * h)
        assert found[k] == pytest.approx(difference, rel=1e-8)


@pytest.mark.parametrize("index", [[1, 1, 1], ([0, 0, 1], [0, 0, 1]), np.array([[2, 2], [0, 2]])])
def test_contract_20_of_duplicates_the_last_write_wins_and_the_gradient_agrees(index):
    x = np.zeros((3, 2)) if isinstance(index, tuple) else np.zeros(3)
    v = np.arange(1.0, x[index].size + 1).reshape(x[index].shape)
    expected = x.copy()
    expected[index] = v
    out, pull = fg.vjp(lambda x, v: assigned(x, index, v), x, v)
    np.testing.assert_array_equal(out, expected)
    gx, gv = pull(np.ones_like(x))
    np.testing.assert_array_equal(gx, (expected == 0) * 1.0)
    np.testing.assert_array_equal(gv, np.isin(v, expected) * 1.0)
    assert gv.sum() + gx.sum() == x.size


def test_contract_20_plus_equals_with_duplicates_is_numpys():
    x, v = np.array([1.0, 2.0]), np.array([10.0, 20.0])
    out, pull = fg.vjp(lambda x, v: added(x, [0, 0], v), x, v)
    np.testing.assert_array_equal(out, [21.0, 2.0])
    gx, gv = pull(np.ones(2))
    np.testing.assert_array_equal(gx, [1.0, 1.0])
    np.testing.assert_array_equal(gv, [0.0, 1.0])


def test_assignment_leaves_what_was_computed_before_alone():
    x = fg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 1.0
    z = y * y
    y[0] = 10.0
    w = y * y
    (z.sum() + w.sum()).backward()
    np.testing.assert_array_equal(w.detach().numpy(), [100.0, 4.0, 9.0])
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 8.0, 12.0])


def test_assignment_does_not_reach_through_views():
    x = fg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1.0
    view = y[:1]
    y[0] = 5.0
    assert view.detach().numpy()[0] == 1.0 and y.detach().numpy()[0] == 5.0


def test_assignment_to_a_tensor_that_is_not_recorded_does_not_reach_its_detached_twin():
    x = fg.tensor([1.0, 2.0])
    twin = x.detach()
    x[0] = 5.0
    assert x.numpy()[0] == 5.0
    assert twin.numpy()[0] in (1.0, 5.0)
    y = fg.tensor([1.0, 1.0], requires_grad=True)
    product = y * twin
    before = twin.numpy().copy()
    x[1] = 7.0
    product.sum().backward()
    np.testing.assert_array_equal(y.grad.numpy(), before)


def test_a_tensor_made_of_zeros_can_be_filled_in_a_loop():
    def fibonacci(a, b):
        f = fnp.zeros(10)
        f[0], f[1] = a, b
        for i in range(2, 10):
            f[i] = f[i - 1] + f[i - 2]
        return f[9]

    assert fg.grad(fibonacci, (0, 1))(1.0, 1.0) == (21.0, 34.0)


def test_a_mask_can_be_a_tensor():
    x = np.array([-1.0, 2.0, -3.0])

    def f(x):
        y = x * 2.0
        y[y < 0] = 0.0
        return (y[y > 0] ** 2).sum()

    np.testing.assert_array_equal(fg.grad(f)(x), [0.0, 16.0, 0.0])


def test_an_index_can_be_a_tensor_of_integers():
    found = fg.grad(lambda x: x[fg.tensor([0, 0, 2])].sum())(np.ones(3))
    np.testing.assert_array_equal(found, [2.0, 0.0, 1.0])


def test_a_changed_index_array_does_not_change_the_gradient():
    index = np.array([0, 1])
    x = fg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = (x[index] * np.array([1.0, 10.0])).sum()
    index[:] = 2
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1.0, 10.0, 0.0])


def test_a_changed_mask_does_not_change_the_gradient_of_an_assignment():
    mask = np.array([True, False])
    x = fg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1.0
    y[mask] = 5.0
    out = y.sum()
    mask[:] = [False, True]
    out.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0.0, 1.0])


# Broadcasting (CONTRACT 18)

SHAPES = [(), (1,), (3,), (2, 1), (2, 3), (1, 3), (4, 2, 3), (4, 1, 1), (1, 1, 1)]


@pytest.mark.parametrize("a, b", [(a, b) for a in SHAPES for b in SHAPES])
def test_contract_18_every_broadcast_gives_the_inputs_shape(a, b):
    x, y = np.full(a, 2.0), np.full(b, 3.0)
    size = np.broadcast(x, y).size
    gx, gy = fg.grad(lambda x, y: fnp.sum(x * y), (0, 1))(x, y)
    close(gx, np.full(a, 3.0 * size / x.size))
    close(gy, np.full(b, 2.0 * size / y.size))
    for create_graph in (False, True):
        s, t = fg.tensor(x, requires_grad=True), fg.tensor(y, requires_grad=True)
        fnp.sum(s * t).backward(create_graph=create_graph)
        close(s.grad.detach().numpy(), gx)
        close(t.grad.detach().numpy(), gy)


@pytest.mark.parametrize("a", [(), (1,), (3,), (2, 1)])
@pytest.mark.parametrize("b", [(), (3,), (2, 3), (1, 1)])
@pytest.mark.parametrize("condition", [(), (3,), (2, 1)])
def test_contract_18_where_broadcasts_all_three(condition, a, b):
    c = np.resize([True, False, True], condition)
    x, y = np.full(a, 2.0), np.full(b, 3.0)
    gx, gy = fg.grad(lambda x, y: fnp.sum(fnp.where(c, x, y)), (0, 1))(x, y)
    full = np.broadcast_shapes(condition, a, b)
    taken = np.broadcast_to(c, full).sum()
    assert gx.shape == a and gy.shape == b
    assert gx.sum() == taken and gy.sum() == np.prod(full) - taken


@pytest.mark.parametrize("low", [(), (3,), (2, 1)])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1,)])
def test_contract_18_clip_broadcasts_its_bounds(low, shape):
    x, bound = np.full(shape, 2.0), np.full(low, 3.0)
    gx, gl = fg.grad(lambda x, low: fnp.sum(fnp.clip(x, low, 10.0)), (0, 1))(x, bound)
    close(gx, np.zeros(shape))
    assert gl.shape == low and gl.sum() == np.broadcast(x, bound).size


# matmul of sizes that go to BLAS, and mixed dtypes


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("m, k, n", [(1, 40, 50), (40, 1, 30), (33, 47, 29), (64, 64, 64), (50, 40, 1), (2, 300, 2)])
@pytest.mark.parametrize("left", ["C", "F", "strided"])
@pytest.mark.parametrize("right", ["C", "F", "strided"])
def test_matmul_of_any_size_and_layout_is_numpys(dtype, m, k, n, left, right):
    rng = np.random.default_rng(1)
    lay = {"C": np.ascontiguousarray, "F": np.asfortranarray, "strided": lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3]}
    a = lay[left](rng.standard_normal((m, k)).astype(dtype))
    b = lay[right](rng.standard_normal((k, n)).astype(dtype))
    g = rng.standard_normal((m, n)).astype(dtype)
    out, pull = fg.vjp(fnp.matmul, a, b)
    tolerance = 1e-12 if dtype is np.float64 else 2e-4
    close(out, a @ b, tolerance, tolerance)
    ga, gb = pull(g)
    assert ga.dtype == gb.dtype == dtype
    close(ga, g @ b.T, tolerance, tolerance)
    close(gb, a.T @ g, tolerance, tolerance)


def test_contract_28_matmul_of_float32_and_float64_promotes_and_each_gradient_keeps_its_dtype():
    a, b = np.ones((2, 3), np.float32), np.ones((3, 2))
    out, pull = fg.vjp(fnp.matmul, a, b)
    assert out.dtype == np.float64
    ga, gb = pull(np.ones((2, 2)))
    assert ga.dtype == np.float32 and gb.dtype == np.float64


def test_matmul_with_integers():
    found = fg.grad(lambda x: (x @ np.array([1, 2])).sum())(np.ones((3, 2)))
    np.testing.assert_array_equal(found, np.tile([1.0, 2.0], (3, 1)))
    assert (fg.tensor([1, 2]) @ fg.tensor([3, 4])).item() == 11


@pytest.mark.parametrize("value", [nan, inf])
def test_matmul_keeps_nan_and_infinity(value):
    a = np.ones((3, 3))
    a[1, 1] = value
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal((fg.tensor(a) @ np.eye(3)).numpy(), a @ np.eye(3))


def test_joining_float32_and_float64_promotes_and_each_gradient_keeps_its_dtype():
    a, b = np.ones(2, np.float32), np.ones(2)
    for join in (fnp.concatenate, fnp.stack):
        out, pull = fg.vjp(lambda a, b: join([a, b]), a, b)
        assert out.dtype == np.float64
        ga, gb = pull(np.ones_like(out))
        assert ga.dtype == np.float32 and gb.dtype == np.float64


def test_a_float32_place_keeps_its_dtype_when_a_float64_is_assigned():
    x = fg.tensor(np.ones(3, np.float32))
    v = fg.tensor(2.0, requires_grad=True)
    x[1] = v
    assert x.dtype == np.float32
    x.sum().backward()
    assert v.grad.dtype == np.float64 and v.grad.item() == 1.0


def test_create_graph_gradients_of_assignment_differentiate_again():
    def f(x, v):
        y = x * x
        y[1:] = v * v * x[0]
        return (y * y).sum()

    x, v = np.array([1.0, 2.0, 3.0]), np.array([0.5, -1.0])
    h = fg.hessian(f, (0, 1))(x, v)
    gradient = fg.grad(f, (0, 1))
    for k in range(3):
        step = 1e-6 * np.eye(3)[k]
        difference = [(a - b) / 2e-6 for a, b in zip(gradient(x + step, v), gradient(x - step, v))]
        np.testing.assert_allclose(h[0][0][:, k], difference[0], atol=1e-7)
        np.testing.assert_allclose(h[1][0][:, k], difference[1], atol=1e-7)
