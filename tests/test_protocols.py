"""Tensors where NumPy's arrays are expected: ufuncs' methods, ndarray's methods, operators, containers, copies."""

import copy
import math
import pickle

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad.testing import check_grads

A = np.array([[0.3, 1.0, 2.5], [4.0, 0.5, 0.7]])
B = np.array([[1.3, -0.4, 0.2], [0.9, 2.1, -1.7]])
MASK = np.array([[True, False, True], [False, True, True]])


def same(f, *arrays, tolerance=1e-13):
    """f of Tensors, of leaves that are being differentiated, and of arrays."""
    expected = f(*arrays)
    for requires in (False, True):
        found = f(*[fg.tensor(a, requires_grad=requires and a.dtype.kind == "f") for a in arrays])
        for x, y in zip(found if isinstance(found, tuple) else (found,), expected if isinstance(expected, tuple) else (expected,)):
            x = x.detach().numpy() if isinstance(x, fg.Tensor) else x
            assert np.shape(x) == np.shape(y)
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


# --------------------------------------------------------------------------------------------------------- ufuncs' methods

UFUNC_METHODS = {
    "add.accumulate": lambda x: np.add.accumulate(x, 1),
    "add.accumulate axis 0": lambda x: np.add.accumulate(x),
    "multiply.accumulate": lambda x: np.multiply.accumulate(x, axis=-1),
    "maximum.accumulate": lambda x: np.maximum.accumulate(x, axis=1),
    "minimum.accumulate": lambda x: np.minimum.accumulate(x, axis=0),
    "multiply.outer": lambda x: np.multiply.outer(x[0], x),
    "subtract.outer": lambda x: np.subtract.outer(B, x),
    "arctan2.outer": lambda x: np.arctan2.outer(x[0], B),
    "add.reduce where": lambda x: np.add.reduce(x, axis=1, where=MASK),
    "multiply.reduce where": lambda x: np.multiply.reduce(x, axis=None, where=MASK),
    "maximum.reduce where initial": lambda x: np.maximum.reduce(x, axis=0, where=MASK, initial=0.6),
    "add.reduce initial": lambda x: np.add.reduce(x, initial=3.0, keepdims=True),
    "logaddexp.reduce": lambda x: np.logaddexp.reduce(x, axis=0),
    "dtype": lambda x: np.add(x, 1, dtype=np.float64),
    "divmod": lambda x: np.divmod(x, 0.45)[1],
    "modf": lambda x: np.modf(x * 1.3)[0],
}


@pytest.mark.parametrize("name", list(UFUNC_METHODS))
def test_methods_of_ufuncs_give_numpys_values_and_derivatives(name):
    f = UFUNC_METHODS[name]
    same(f, A)
    check_grads(f, (A,))
    assert np.allclose(fg.compile(lambda x: f(x))(A), f(A))
    assert np.allclose(fg.vmap(f)(np.stack([A, A + 0.01]))[0], f(A))


def test_accumulate_of_every_length_and_its_errors():
    for n in range(1, 12):
        same(np.add.accumulate, np.arange(1.0, n + 1))
        same(np.multiply.accumulate, np.arange(1.0, n + 1))
    same(np.add.accumulate, np.array([3, 1, 2]))
    with pytest.raises(TypeError, match="0-d"):
        np.add.accumulate(fg.tensor(1.0))
    with pytest.raises(np.exceptions.AxisError):
        np.add.accumulate(fg.tensor(A), 2)
    with pytest.raises(TypeError, match="numpy.hypot.accumulate is not supported"):
        np.hypot.accumulate(fg.tensor(A, requires_grad=True))


def test_a_reduction_with_where_but_no_neutral_element_asks_for_initial():
    with pytest.raises(ValueError, match="initial"):
        np.maximum.reduce(fg.tensor(A), where=MASK)


def test_ufunc_at_is_in_place_and_repeats_count():
    def at(x, v):
        t = fg.tensor(x) if type(x) is np.ndarray else x * 1.0
        np.add.at(t, ([0, 0, 1], [1, 1, 2]), v)
        np.subtract.at(t, (slice(None), 0), 2.0 * v[:2])
        np.multiply.at(t, ([1, 0], [1, 2]), v[1:])
        return t

    expected = A.copy()
    v = np.array([10.0, 20.0, 30.0])
    np.add.at(expected, ([0, 0, 1], [1, 1, 2]), v)
    np.subtract.at(expected, (slice(None), 0), 2.0 * v[:2])
    np.multiply.at(expected, ([1, 0], [1, 2]), v[1:])
    assert np.allclose(at(A, v).numpy(), expected)
    t = fg.tensor(A)
    np.add.at(t, MASK, 1.0)
    assert np.array_equal(t.numpy(), A + MASK)
    check_grads(lambda x, v: at(x * 1.0 if isinstance(x, fg.Tensor) else fg.tensor(x), v), (A, v))
    with pytest.raises(TypeError, match="multiply.at with places that repeat"):
        np.multiply.at(fg.tensor(A), ([0, 0], [1, 1]), 2.0)


def test_out_and_where():
    out = fg.tensor(np.full((2, 3), 9.0))
    got = np.add(fg.tensor(A), B, out=out, where=MASK)
    assert got is out and np.allclose(out.numpy(), np.where(MASK, A + B, 9.0))

    def f(x, y):
        out = x * 2.0
        np.exp(y, out=out, where=MASK)
        return out

    check_grads(lambda x, y: f(fnp.asarray(x), y), (A, B))
    x = fg.tensor(A, requires_grad=True)
    with pytest.raises(TypeError, match="bare array"):
        np.exp(x, out=np.zeros((2, 3)))
    plain = np.zeros((2, 3))
    assert np.exp(x.detach(), out=plain) is plain and np.allclose(plain, np.exp(A))
    with pytest.raises(TypeError, match="where="):
        np.add(x, 1.0, where=MASK)


def test_an_array_takes_a_tensor_in_place_where_no_gradient_is_lost():
    a = np.zeros((2, 3))
    a += fg.tensor(A)
    a *= fg.tensor(2.0)
    assert type(a) is np.ndarray and np.allclose(a, 2 * A)
    with pytest.raises(TypeError, match=r"array = array \+ tensor"):
        a += fg.tensor(A, requires_grad=True)


# ------------------------------------------------------------------------------------------------------- ndarray's methods

METHODS = {
    "compress": lambda x: x.compress([True, False, True], axis=1),
    "compress flat": lambda x: x.compress([True, False, True]),
    "conj": lambda x: x.conj(), "conjugate": lambda x: x.conjugate(), "real": lambda x: x.real,
    "take": lambda x: x.take([2, 0, 2], axis=1), "ravel": lambda x: x.ravel("C"), "flatten": lambda x: x.flatten(),
    "clip": lambda x: x.clip(max=0.9), "round": lambda x: x.round(1), "prod": lambda x: x.prod(0), "dot": lambda x: x.dot(B.T),
    "swapaxes": lambda x: x.swapaxes(0, 1), "squeeze": lambda x: x.squeeze(), "imag": lambda x: x.imag,
    "argmax": lambda x: x.argmax(1), "nonzero": lambda x: x.nonzero(), "item": lambda x: x.item(1, 2), "item flat": lambda x: x.item(4),
    "tolist": lambda x: x.tolist(), "flat": lambda x: float(list(x.flat)[4].item()),
}


@pytest.mark.parametrize("name", list(METHODS))
def test_methods_of_arrays(name):
    same(METHODS[name], A)


def test_methods_that_numpy_has_and_fastgrad_lacks_refuse_to_lose_a_gradient():
    methods = {"cumsum": (), "std": (), "var": (), "trace": (), "diagonal": (), "repeat": (2,), "cumprod": ()}
    for name, arguments in methods.items():
        expected = getattr(A, name)(*arguments)
        assert np.allclose(getattr(fg.tensor(A), name)(*arguments).numpy(), expected), name
        if name in fnp.__all__:
            check_grads(lambda x: getattr(fnp.asarray(x), name)(*arguments), (A,))
        else:
            with pytest.raises(TypeError, match=name):
                getattr(fg.tensor(A, requires_grad=True), name)(*arguments)
    assert "cumsum" in dir(fg.Tensor)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        fg.tensor(A).nonsense


def test_fill_and_sort_in_place():
    t = fg.tensor(A)
    t.sort(0)
    assert np.array_equal(t.numpy(), np.sort(A, 0))
    t.fill(3.0)
    assert np.array_equal(t.numpy(), np.full((2, 3), 3.0)) and t.tobytes() == t.numpy().tobytes()

    def ordered(x):
        y = fnp.asarray(x) * 1.0
        y.sort()
        return y * np.arange(6.0).reshape(2, 3)

    check_grads(ordered, (A,))
    assert np.array_equal(fg.grad(lambda x: (lambda y: (y.fill(x), y.sum())[1])(fg.tensor(A)))(2.0), 6.0)


# --------------------------------------------------------------------------------------------------- operators and containers

OPERATORS = {
    "array + t": lambda x: B + x, "array * t": lambda x: B * x, "array @ t": lambda x: np.ones((4, 2)) @ x, "t @ array": lambda x: x @ B.T,
    "array ** t": lambda x: np.abs(B) ** x, "array // t": lambda x: B // x, "array % t": lambda x: B % x, "array < t": lambda x: B < x,
    "array == t": lambda x: B == x, "scalar * t": lambda x: np.float64(3) * x, "divmod": lambda x: divmod(x, 0.7),
    "rdivmod": lambda x: divmod(3.0, x), "abs": abs, "neg": lambda x: -x, "pos": lambda x: +x, "pow": lambda x: pow(x, 2),
    "in": lambda x: (0.5 in x, 77.0 in x), "len": len, "iter": lambda x: sum(row * 2 for row in x), "reversed": lambda x: list(reversed(x))[0],
    "unpack": lambda x: [*x][1], "not equal": lambda x: x != 0.5,
}


@pytest.mark.parametrize("name", list(OPERATORS))
def test_operators_with_arrays_on_either_side(name):
    same(OPERATORS[name], A)
    assert not isinstance(OPERATORS[name](fg.tensor(A)), np.ndarray)


@pytest.mark.parametrize("name", ["<<", ">>", "&", "|", "^"])
def test_bits_of_integers(name):
    def f(i):
        return eval(f"(i {name} 1, 5 {name} i, i {name} i)", {"i": i})

    same(f, np.array([3, 1, 2]))


def test_in_place_operators():
    for name in ("+=", "-=", "*=", "/=", "//=", "%=", "**="):
        def f(x):
            y = x * 1.0
            scope = {"y": y, "B": np.abs(B)}
            exec(f"y {name} B", scope)
            if isinstance(y, fg.Tensor):
                assert scope["y"] is y
            return scope["y"]

        same(f, A)


def test_python_numbers_of_a_tensor():
    t = fg.tensor(2.75)
    assert (float(t), int(t), complex(t), math.floor(t), math.ceil(t), math.trunc(t)) == (2.75, 2, 2.75 + 0j, 2, 3, 2)
    assert round(t).item() == 3.0 and round(fg.tensor(A), 1).numpy()[1, 2] == 0.7
    assert f"{t:.1f}" == "2.8" and f"{t}" == "2.75" and format(fg.tensor(A)) == str(A)
    assert [10, 20, 30][fg.tensor(2)] == 30
    for convert in (float, int, complex, math.trunc):
        with pytest.raises(TypeError, match="lose its gradient"):
            convert(fg.tensor(2.75, requires_grad=True))
    for bad in (len, iter):
        with pytest.raises(TypeError, match="0-d"):
            bad(t)


def test_repr_says_value_dtype_and_how_it_was_made():
    x = fg.tensor([1.0, 2.0], requires_grad=True)
    assert repr(x) == "Tensor([1., 2.], requires_grad=True)"
    assert repr(x * 2) == "Tensor([2., 4.], op='multiply')"
    assert repr(fg.tensor([1, 2], dtype=np.float32)) == "Tensor([1., 2.], dtype=float32)"


def test_copies():
    x = fg.tensor(A, requires_grad=True)
    for f in (copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))):
        y = f(x)
        assert y.requires_grad and y.is_leaf and np.array_equal(y.detach().numpy(), A)
        with fg.no_grad():
            y += 1.0
        assert np.array_equal(x.detach().numpy(), A)
        with pytest.raises(TypeError, match="detach"):
            f(x * 2)
    copy.copy(x).sum().backward()
    assert np.array_equal(x.grad.numpy(), np.ones((2, 3)))
