"""Functions of functions: grad and its kin; CONTRACT 23, 29, 36, 39, 41, 47."""

import dataclasses
import gc
import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import nn
from fastgrad._core import engine

A = np.array([1.0, 2.0, 3.0])
M = np.array([[1.0, 2.0, -1.0], [0.5, -3.0, 4.0]])


@pytest.fixture(autouse=True)
def the_state_is_clean():
    yield
    assert engine.recording_now() and not engine.recording_outside()


def cube(x):
    return (x * x * x).sum()


def same(found, expected):
    np.testing.assert_array_equal(found, expected)
    assert np.shape(found) == np.shape(expected)


def close(found, expected, rtol=1e-12):
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)


# grad and value_and_grad


def test_grad_of_an_array():
    same(fg.grad(cube)(A), 3 * A**2)


def test_value_and_grad_gives_both():
    value, gradient = fg.value_and_grad(cube)(A)
    assert value == 36.0
    same(gradient, 3 * A**2)


@pytest.mark.parametrize("argnums", [0, 1, 2, -1, -2, -3, np.int64(1), (0,), (2, 0), [0, -2], ()])
def test_argnums(argnums):
    partials = (20.0, 10.0, 8.0)            # of x y z at (2, 4, 5)
    found = fg.grad(lambda x, y, z: x * y * z, argnums)(2.0, 4.0, 5.0)
    assert found == (partials[argnums] if np.ndim(argnums) == 0 else tuple(partials[k] for k in argnums))


@pytest.mark.parametrize("transform", [fg.grad, fg.value_and_grad, fg.jacrev, fg.jacfwd, fg.jacobian, fg.hessian])
@pytest.mark.parametrize("argnums", [2, -3, (0, 5)])
def test_contract_47_argnums_that_name_no_argument(transform, argnums):
    with pytest.raises(ValueError, match=r"argnums names argument (2|-3|5), and the call has 2 positional ones"):
        transform(lambda x, y: x * y, argnums)(1.0, 2.0)


def test_keywords_are_handed_through():
    f = lambda x, *, power=1, scale: (x**power).sum() * scale  # noqa: E731
    same(fg.grad(f)(A, power=2, scale=10.0), 20 * A)
    same(fg.jacobian(f)(A, power=2, scale=10.0), 20 * A)
    same(fg.hessian(f)(A, power=2, scale=10.0), 20 * np.eye(3))


def test_has_aux():
    f = lambda x: ((x * x).sum(), {"twice": x * 2.0, "name": "aux", "n": 3})  # noqa: E731
    gradient, aux = fg.grad(f, has_aux=True)(A)
    same(gradient, 2 * A)
    assert type(aux["twice"]) is np.ndarray and aux["name"] == "aux" and aux["n"] == 3
    same(aux["twice"], 2 * A)
    (value, aux), gradient = fg.value_and_grad(f, has_aux=True)(A)
    assert value == 14.0
    same(aux["twice"], 2 * A)
    (value, aux), gradient = fg.value_and_grad(lambda p: f(p["x"]), has_aux=True)({"x": A})
    same(aux["twice"], 2 * A)
    same(gradient["x"], 2 * A)
    out, pull, aux = fg.vjp(lambda x: (x * x, x + 1.0), A, has_aux=True)
    same(aux, A + 1)
    same(pull(np.ones(3))[0], 2 * A)


@pytest.mark.parametrize("transform", [fg.grad, fg.value_and_grad])
@pytest.mark.parametrize("result", [lambda x: x.sum(), lambda x: (x.sum(), 1, 2), lambda x: [x.sum(), 1]])
@pytest.mark.parametrize("argument", [A, {"x": A}])
def test_has_aux_without_a_pair_is_a_type_error(transform, result, argument):
    f = lambda a: result(a["x"] if isinstance(a, dict) else a)  # noqa: E731
    with pytest.raises(TypeError, match="has_aux=True, and the function returned no pair"):
        transform(f, has_aux=True)(argument)


def test_aux_of_an_inner_transform_stays_differentiable():
    def outer(x):
        gradient, aux = fg.grad(lambda y: (y * y * x, y * x), has_aux=True)(x)     # 2 x x, x x
        return gradient + aux

    assert fg.grad(outer)(3.0) == pytest.approx(2 * 2 * 3 + 2 * 3)


# NumPy in, NumPy out; Tensor in, Tensor out


@pytest.mark.parametrize("x", [2.0, np.float64(2.0), np.float32(2.0), np.array(2.0), np.array(2.0, np.float32), A, A.astype(np.float32),
                               M.T, np.zeros((0, 2)), A[::-1]])
def test_numpy_in_numpy_out(x):
    f = lambda x: (x * x).sum()  # noqa: E731
    value, gradient = fg.value_and_grad(f)(x)
    assert not isinstance(value, fg.Tensor) and isinstance(gradient, np.ndarray if isinstance(x, np.ndarray) else np.floating)
    assert gradient.dtype == np.asarray(x).dtype and gradient.shape == np.shape(x) and value.dtype == np.asarray(x).dtype
    same(gradient, 2 * x)
    out, pull = fg.vjp(f, x)
    assert not isinstance(out, fg.Tensor)
    (g,) = pull(np.ones((), np.asarray(x).dtype))
    assert g.dtype == gradient.dtype and type(g) is type(gradient)
    for out, tangent in (fg.jvp(f, (x,), (np.ones_like(x),)), (fg.linearize(f, x)[0], fg.linearize(f, x)[1](np.ones_like(x)))):
        assert not isinstance(out, fg.Tensor) and not isinstance(tangent, fg.Tensor)
        assert out.dtype == tangent.dtype == np.asarray(x).dtype
    for transform in (fg.jacrev, fg.jacfwd, fg.jacobian):
        j = transform(f)(x)
        assert not isinstance(j, fg.Tensor) and j.dtype == np.asarray(x).dtype
        same(j, 2 * x)
    h = fg.hessian(f)(x)
    assert not isinstance(h, fg.Tensor) and h.dtype == np.asarray(x).dtype and h.shape == 2 * np.shape(x)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_tensor_in_tensor_out(requires_grad):
    x = fg.tensor(A, requires_grad=requires_grad)
    value, gradient = fg.value_and_grad(cube)(x)
    out, pull = fg.vjp(cube, x)
    results = [value, gradient, out, pull(fg.tensor(1.0))[0], *fg.jvp(cube, (x,), (fg.tensor(A),)), fg.linearize(cube, x)[1](fg.tensor(A)),
               fg.jacrev(cube)(x), fg.jacfwd(cube)(x), fg.jacobian(cube)(x), fg.hessian(cube)(x), fg.hvp(cube, (x,), (fg.tensor(A),))]
    assert all(type(r) is fg.Tensor for r in results)
    same(gradient.detach().numpy(), 3 * A**2)
    same(results[-2].detach().numpy(), np.diag(6 * A))


def test_the_gradient_of_a_tracked_tensor_differentiates_again_by_backward():
    x = fg.tensor(A, requires_grad=True)
    g = fg.grad(cube)(x)
    assert g.requires_grad
    g.sum().backward()
    same(x.grad.numpy(), 6 * A)


def test_the_result_is_nobodys_memory():
    x = A.copy()
    for f in (lambda x: x.sum(), lambda x: (x * 1.0).sum(), lambda x: x[0]):
        g = fg.grad(f)(x)
        assert g.flags.writeable and not np.shares_memory(g, x)
        g[:] = 7.0
        assert fg.grad(f)(x)[0] == 1.0
        out, pull = fg.vjp(lambda x: x, x)
        assert not np.shares_memory(out, x)
        (g,) = pull(ct := np.ones(3))
        assert not np.shares_memory(g, ct)
    same(x, A)


@pytest.mark.parametrize("result", [lambda x: 3.0, lambda x: 3, lambda x: np.float64(3.0), lambda x: np.array(3.0), lambda x: fg.tensor(3.0),
                                    lambda x: x.detach().sum(), lambda x: fnp.floor(x).sum(), lambda x: (x * 0.0).sum()])
def test_contract_41_a_constant_result_has_gradient_zero(result):
    for x in (A, fg.tensor(A)):
        found = fg.grad(result)(x)
        assert type(found) is type(x)
        same(found if type(x) is np.ndarray else found.numpy(), np.zeros(3))
    same(fg.jacrev(result)(A), np.zeros(3))
    same(fg.jacfwd(result)(A), np.zeros(3))
    same(fg.hessian(result)(A), np.zeros((3, 3)))
    assert fg.jvp(result, (A,), (A,))[1] == 0.0
    same(fg.vjp(result, A)[1](1.0)[0], np.zeros(3))


def test_contract_41_an_unused_argument_has_zeros_of_its_shape_and_dtype():
    x, y, z = A, M.astype(np.float32), 2.0
    gx, gy, gz = fg.grad(lambda x, y, z: x.sum(), (0, 1, 2))(x, y, z)
    same(gy, np.zeros((2, 3)))
    assert gy.dtype == np.float32 and gz == 0.0
    jx, jy = fg.jacrev(lambda x, y: x * 2.0, (0, 1))(x, y)
    same(jy, np.zeros((3, 2, 3)))
    jx, jy = fg.jacfwd(lambda x, y: x * 2.0, (0, 1))(x, y)
    same(jy, np.zeros((3, 2, 3)))


def test_contract_41_an_output_that_does_not_depend_on_the_input():
    f = lambda x: (x * 2.0, np.ones(2), fg.tensor([1.0, 2.0]))  # noqa: E731
    (a, b, c), pull = fg.vjp(f, A)
    same(pull((np.ones(3), np.ones(2), np.ones(2)))[0], np.full(3, 2.0))
    _, (ta, tb, tc) = fg.jvp(f, (A,), (A,))
    same(tb, np.zeros(2))
    same(tc, np.zeros(2))


def test_the_identity():
    assert fg.grad(lambda x: x)(2.0) == 1.0
    same(fg.jacrev(lambda x: x)(A), np.eye(3))
    same(fg.jacfwd(lambda x: x)(A), np.eye(3))
    same(fg.jvp(lambda x: x, (A,), (A,))[1], A)
    assert fg.hessian(lambda x: x)(2.0) == 0.0


@pytest.mark.parametrize("bad", [1, True, np.arange(3), np.array([True]), np.int64(3), fg.tensor([1, 2])])
@pytest.mark.parametrize("transform", [fg.grad, fg.value_and_grad, fg.jacrev, fg.jacfwd, fg.hessian])
def test_contract_29_an_integer_argument_is_a_type_error_that_names_it(transform, bad):
    with pytest.raises(TypeError, match=r"argument 1.*only (floats|float64 and float32) carry gradients"):
        transform(lambda x, y: x * fnp.sum(y), 1)(2.0, bad)


@pytest.mark.parametrize("call", [lambda f, bad: fg.vjp(f, 2.0, bad), lambda f, bad: fg.jvp(f, (2.0, bad), (1.0, bad)),
                                  lambda f, bad: fg.grad(f, (0, 1))(2.0, {"n": bad})])
def test_contract_29_for_the_others_too(call):
    with pytest.raises(TypeError, match="argument 1.*carry gradients"):
        call(lambda x, y: x, np.arange(3))


@pytest.mark.parametrize("bad", ["a", object(), {1}, np.array(["a"]), np.zeros(2, complex), 1j])
def test_contract_47_an_argument_that_is_no_array_is_a_type_error(bad):
    with pytest.raises(TypeError):
        fg.grad(lambda x: 1.0)(bad)


def test_integers_that_are_not_differentiated_are_fine():
    same(fg.grad(lambda x, n: (x**n).sum())(A, 2), 2 * A)


@pytest.mark.parametrize("transform", [fg.grad, fg.value_and_grad, fg.hessian])
@pytest.mark.parametrize("argument", [A, {"x": A}])
def test_contract_47_a_result_that_is_not_one_number_says_what_to_do(transform, argument):
    get = (lambda a: a["x"]) if isinstance(argument, dict) else (lambda a: a)
    with pytest.raises(ValueError, match=r"the function returned shape \(3,\).*\.sum\(\).*fg.jacobian"):
        transform(lambda a: get(a) * 2.0)(argument)
    for result in ((1.0, 2.0), "a", {"a": 1.0}):
        with pytest.raises(TypeError, match="the function returned"):
            transform(lambda a: result)(argument)
    with pytest.raises(TypeError, match="the function returned"):
        transform(lambda a: None)(argument)


def test_a_result_of_one_element_is_not_one_number():
    with pytest.raises(ValueError, match=r"returned shape \(1,\)"):
        fg.grad(lambda x: x)(np.ones(1))


def test_an_integer_result_is_a_constant():
    assert fg.grad(lambda x: 3)(2.0) == 0.0
    with pytest.raises(TypeError, match="the result is of dtype int64, and only float64 and float32 carry gradients"):
        fg.grad(lambda x: (x > 0) * 1)(2.0)


# Pytrees


class Pair(NamedTuple):
    a: object
    b: object


@dataclasses.dataclass
class Point:
    x: object
    y: object


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: object
    name: object = None


TREES = {
    "dict": ({"w": A, "b": 2.0}, lambda t: (t["w"] * t["w"]).sum() * t["b"]),
    "list": ([A, 2.0], lambda t: (t[0] * t[0]).sum() * t[1]),
    "tuple": ((A, 2.0), lambda t: (t[0] * t[0]).sum() * t[1]),
    "NamedTuple": (Pair(A, 2.0), lambda t: (t.a * t.a).sum() * t.b),
    "dataclass": (Point(A, 2.0), lambda t: (t.x * t.x).sum() * t.y),
    "frozen dataclass": (Frozen((A, 2.0)), lambda t: (t.x[0] * t.x[0]).sum() * t.x[1]),
    "nested": ({"p": [A, None, (2.0, {})]}, lambda t: (t["p"][0] * t["p"][0]).sum() * t["p"][2][0]),
    "dict with integer keys": ({3: A, 1: 2.0}, lambda t: (t[3] * t[3]).sum() * t[1]),
    "dict with mixed keys": ({"w": A, 1: 2.0}, lambda t: (t["w"] * t["w"]).sum() * t[1]),
    "dict with None": ({"w": A, "none": None, "b": 2.0}, lambda t: (t["w"] * t["w"]).sum() * t["b"]),
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_goes_where_an_array_goes(name):
    tree, f = TREES[name]
    gradient = fg.grad(f)(tree)
    assert type(gradient) is type(tree)
    leaves, structure = fg.tree.tree_flatten(gradient)
    assert structure == fg.tree.tree_flatten(tree)[1]
    expected = [2 * A * 2.0, 14.0]
    for leaf in leaves:
        close(leaf, expected[0] if np.ndim(leaf) else expected[1])
        assert isinstance(leaf, (np.ndarray, np.float64))
    ones = fg.tree_map(lambda a: a * 0 + 1.0, tree)
    value, slope = fg.jvp(f, (tree,), (ones,))
    assert value == 28.0 and slope == pytest.approx(2 * 2 * A.sum() + 14.0)
    out, pull = fg.vjp(f, tree)
    assert fg.tree.tree_flatten(pull(1.0)[0])[1] == structure
    product = fg.hvp(f, (tree,), (ones,))
    assert fg.tree.tree_flatten(product)[1] == structure


def test_an_ordered_tree_keeps_its_keys():
    assert list(fg.grad(lambda t: t["b"] * t["a"])({"b": 2.0, "a": 3.0}).items()) in (
        [("b", 3.0), ("a", 2.0)], [("a", 2.0), ("b", 3.0)])


def test_a_module_is_a_tree():
    model = nn.Sequential(nn.Linear(3, 2, rng=0), nn.Tanh(), nn.Linear(2, 1, rng=1))
    x = np.ones((4, 3))
    gradient = fg.grad(lambda m: (m(x) ** 2).sum())(model)
    assert isinstance(gradient, nn.Sequential)
    (model(x) ** 2).sum().backward()
    for (name, p), (other, g) in zip(model.named_parameters(), gradient.named_parameters()):
        assert name == other
        np.testing.assert_allclose(fg.tensor(g).numpy(), p.grad.numpy(), rtol=1e-13)


def test_results_can_be_trees():
    f = lambda x: {"a": x * x, "b": [x.sum(), None]}  # noqa: E731
    out, pull = fg.vjp(f, A)
    same(out["a"], A * A)
    assert out["b"][0] == 6.0 and out["b"][1] is None
    same(pull({"a": np.ones(3), "b": [1.0, None]})[0], 2 * A + 1)
    _, tangent = fg.jvp(f, (A,), (np.ones(3),))
    same(tangent["a"], 2 * A)
    assert tangent["b"][0] == 3.0
    for transform in (fg.jacrev, fg.jacfwd, fg.jacobian):
        j = transform(f)(A)
        same(j["a"], np.diag(2 * A))
        same(j["b"][0], np.ones(3))


def test_the_jacobian_of_trees_is_a_tree_of_trees():
    f = lambda p, s: {"u": p["x"] * s, "v": p["y"].sum()}  # noqa: E731
    p = {"x": A, "y": M}
    for transform in (fg.jacrev, fg.jacfwd, fg.jacobian):
        j = transform(f, (0, 1))(p, 2.0)
        same(j["u"][0]["x"], 2 * np.eye(3))
        same(j["u"][0]["y"], np.zeros((3, 2, 3)))
        same(j["u"][1], A)
        same(j["v"][0]["y"], np.ones((2, 3)))
        assert j["v"][1] == 0.0


def test_the_hessian_of_trees_is_a_tree_of_trees():
    f = lambda p: (p["x"] * p["x"]).sum() * p["s"]  # noqa: E731
    h = fg.hessian(f)({"x": A, "s": 3.0})
    same(h["x"]["x"], 6 * np.eye(3))
    same(h["x"]["s"], 2 * A)
    same(h["s"]["x"], 2 * A)
    assert h["s"]["s"] == 0.0


@pytest.mark.parametrize("call", [
    lambda: fg.vjp(lambda x: (x, x), A)[1]([np.ones(3), np.ones(3)]), lambda: fg.vjp(lambda x: {"a": x}, A)[1](np.ones(3)),
    lambda: fg.jvp(lambda t: t["a"], ({"a": A},), ({"b": A},)), lambda: fg.jvp(lambda x: x, A, A), lambda: fg.jvp(lambda x: x, (A,), (A, A)),
    lambda: fg.linearize(lambda x: x, A)[1](A, A)])
def test_contract_47_a_tree_of_another_structure_is_a_type_error(call):
    with pytest.raises(TypeError, match="vjp_fn|jvp|linearize"):
        call()


@pytest.mark.parametrize("call, shapes", [
    (lambda: fg.vjp(lambda x: x, A)[1](np.ones(2)), r"\(2,\).*\(3,\)"), (lambda: fg.jvp(lambda x: x, (A,), (np.ones((3, 1)),)), r"\(3, 1\).*\(3,\)"),
    (lambda: fg.hvp(cube, (A,), (1.0,)), r"\(\).*\(3,\)"), (lambda: fg.linearize(cube, A)[1](np.ones(4)), r"\(4,\).*\(3,\)")])
def test_contract_47_a_tangent_or_cotangent_of_another_shape_names_both(call, shapes):
    with pytest.raises(ValueError, match=shapes):
        call()


# The others


def g(x):
    """A function from 3 to 2 numbers."""
    return fnp.stack([x[0] * x[1] * x[2], fnp.exp(x[0]) / x[2]])


def jacobian_of_g(x):
    return np.array([[x[1] * x[2], x[0] * x[2], x[0] * x[1]], [np.exp(x[0]) / x[2], 0.0, -np.exp(x[0]) / x[2] ** 2]])


def test_vjp_can_pull_again_and_again():
    out, pull = fg.vjp(g, A)
    for k in (1, 0, 1):
        close(pull(np.eye(2)[k])[0], jacobian_of_g(A)[k])


def test_linearize_can_push_again_and_again():
    out, push = fg.linearize(g, A)
    for k in (2, 0, 1, 2):
        close(push(np.eye(3)[k]), jacobian_of_g(A)[:, k])


def test_jvp_of_two_arguments_adds_their_parts():
    out, tangent = fg.jvp(lambda x, y: x * y, (2.0, 3.0), (10.0, 100.0))
    assert (out, tangent) == (6.0, 230.0)


@pytest.mark.parametrize("transform", [fg.jacrev, fg.jacfwd, fg.jacobian])
def test_jacobians(transform):
    close(transform(g)(A), jacobian_of_g(A))
    close(transform(lambda m: m.T * 2.0)(M), 2 * np.einsum("ab,cd->cabd", np.eye(2), np.eye(3)))
    same(transform(lambda x: x * 2.0)(2.0), 2.0)
    same(transform(lambda x: fnp.broadcast_to(x, (2, 2)))(2.0), np.ones((2, 2)))
    close(transform(lambda a, b: a * b.sum(), (0, 1))(A, M)[1], np.broadcast_to(A[:, None, None], (3, 2, 3)))
    assert transform(lambda x: x[:0])(A).shape == (0, 3)
    assert transform(lambda x: x * 1.0)(np.zeros(0)).shape == (0, 0)


def test_hessian_and_hvp():
    f = lambda x: x[0] ** 2 * x[1] + fnp.sin(x[2]) * x[0]  # noqa: E731
    h = np.array([[2 * A[1], 2 * A[0], np.cos(A[2])], [2 * A[0], 0, 0], [np.cos(A[2]), 0, -np.sin(A[2]) * A[0]]])
    close(fg.hessian(f)(A), h)
    v = np.array([1.0, -2.0, 0.5])
    close(fg.hvp(f, (A,), (v,)), h @ v)
    close(fg.jacfwd(fg.jacrev(f))(A), h)
    close(fg.jacrev(fg.jacfwd(f))(A), h)
    close(fg.jacfwd(fg.jacfwd(f))(A), h)
    close(fg.jacrev(fg.jacrev(f))(A), h)


def test_the_hessian_of_several_arguments_has_blocks():
    blocks = fg.hessian(lambda x, y: (x * x).sum() * y, (0, 1))(A, 2.0)
    same(blocks[0][0], 4 * np.eye(3))
    same(blocks[0][1], 2 * A)
    same(blocks[1][0], 2 * A)
    assert blocks[1][1] == 0.0


def test_hvp_of_several_arguments():
    a, b = fg.hvp(lambda x, y: (x * x).sum() * y, (A, 2.0), (np.ones(3), 1.0))
    close(a, 4 * np.ones(3) + 2 * A)
    close(b, 2 * A.sum())


# Nested and mixed (CONTRACT 39)

f1 = lambda x: fnp.sin(x) * x  # noqa: E731


def by_grad(f):
    return fg.grad(f)


def by_jvp(f):
    return lambda x: fg.jvp(f, (x,), (1.0,))[1]


def by_vjp(f):
    return lambda x: fg.vjp(f, x)[1](1.0)[0]


def by_linearize(f):
    return lambda x: fg.linearize(f, x)[1](1.0)


def by_jacfwd(f):
    return fg.jacfwd(f)


def by_jacrev(f):
    return fg.jacrev(f)


DERIVATIVES = [by_grad, by_jvp, by_vjp, by_linearize, by_jacfwd, by_jacrev]
# of x sin x, by hand
SERIES = [lambda x: np.sin(x) * x, lambda x: np.sin(x) + x * np.cos(x), lambda x: 2 * np.cos(x) - x * np.sin(x),
          lambda x: -3 * np.sin(x) - x * np.cos(x), lambda x: -4 * np.cos(x) + x * np.sin(x)]


@pytest.mark.parametrize("chain", [c for depth in (1, 2) for c in itertools.product(DERIVATIVES, repeat=depth)]
                         + list(itertools.product([by_grad, by_jvp, by_vjp], repeat=3))
                         + list(itertools.product([by_grad, by_jvp], repeat=4)), ids=lambda c: " ".join(d.__name__[3:] for d in c))
def test_contract_39_nested_derivatives_of_any_mixture(chain):
    f = f1
    for derivative in chain:
        f = derivative(f)
    found = f(0.7)
    assert not isinstance(found, fg.Tensor)
    assert float(found) == pytest.approx(SERIES[len(chain)](0.7), rel=1e-12)


@pytest.mark.parametrize("inner", DERIVATIVES)
@pytest.mark.parametrize("outer", DERIVATIVES)
def test_contract_39_no_perturbation_confusion(outer, inner):
    # d/dx [x * d/dy (x + y)] = 1 (2 where the two are confused)
    assert float(outer(lambda x: x * inner(lambda y: x + y)(1.0))(1.0)) == 1.0
    # d/dx [x * d/dy (x * y)] = 2 x
    assert float(outer(lambda x: x * inner(lambda y: x * y)(2.0))(3.0)) == 6.0
    # d/dx [d/dy (x * x * y)] at y = x
    assert float(outer(lambda x: inner(lambda y: x * x * y)(x))(3.0)) == 6.0
    # the inner derivative at the outer's argument: d/dx [x * 2x] = 4 x
    assert float(outer(lambda x: x * inner(lambda y: y * y)(x))(3.0)) == 12.0
    # an inner function that ignores its argument
    assert float(outer(lambda x: x + inner(lambda y: x * x)(2.0))(3.0)) == 1.0
    # and one whose outer argument is not used
    assert float(outer(lambda x: inner(lambda y: y * y)(2.0))(3.0)) == 0.0


@pytest.mark.parametrize("outer", DERIVATIVES)
@pytest.mark.parametrize("inner", DERIVATIVES)
def test_contract_39_a_function_that_returns_functions_keeps_its_variables_apart(outer, inner):
    # Manzyuk et al., Perturbation confusion in forward automatic differentiation of higher-order functions, 2019
    s = lambda u: lambda f: lambda x: f(x + u)  # noqa: E731
    derivative = lambda f: outer(lambda u: s(u)(f)(1.0))  # noqa: E731
    assert float(derivative(lambda x: inner(fnp.exp)(x))(0.5)) == pytest.approx(np.exp(1.5))


def test_contract_39_closures_over_arrays():
    def outer(w):
        inner = fg.grad(lambda x: (fnp.tanh(x * w)).sum())(A)
        return (inner * inner).sum()

    w = np.array([0.3, -0.2, 0.1])
    h = 1e-6
    expected = [(outer(fg.tensor(w + h * e)).item() - outer(fg.tensor(w - h * e)).item()) / (2 * h) for e in np.eye(3)]
    close(fg.grad(outer)(w), expected, 1e-6)
    close(fg.jacfwd(outer)(w), expected, 1e-6)


def test_a_transform_of_an_untracked_function_inside_another_costs_no_connection():
    assert fg.grad(lambda x: x * fg.grad(lambda y: y * y)(5.0))(2.0) == 10.0
    assert fg.grad(lambda x: x * fg.jvp(lambda y: y * y, (5.0,), (1.0,))[1])(2.0) == 10.0
    assert fg.grad(lambda x: x * fg.hessian(lambda y: y * y * y)(5.0))(2.0) == 30.0


def test_tangents_and_cotangents_are_differentiable_too():
    assert fg.grad(lambda t: fg.jvp(lambda x: x * x, (3.0,), (t,))[1])(5.0) == 6.0
    assert fg.grad(lambda c: fg.vjp(lambda x: x * x, 3.0)[1](c)[0])(5.0) == 6.0
    out, push = fg.linearize(lambda x: x * x, 3.0)
    assert fg.grad(lambda t: push(t) * t)(5.0) == 60.0
    out, pull = fg.vjp(lambda x: x * x, 3.0)
    assert fg.grad(lambda c: pull(c)[0] * c)(5.0) == 60.0


def test_jacobians_inside_a_gradient():
    f = lambda x: fnp.stack([x[0] * x[1], x[1] * x[2]])  # noqa: E731
    for transform in (fg.jacrev, fg.jacfwd, fg.jacobian):
        close(fg.grad(lambda x: (transform(f)(x) ** 2).sum())(A), [2 * A[0], 4 * A[1], 2 * A[2]])
    close(fg.grad(lambda x: (fg.hessian(cube)(x) ** 2).sum())(A), 72 * A)
    close(fg.grad(lambda x: (fg.hvp(cube, (x,), (A,))).sum())(A), 6 * A)


def test_value_and_grad_inside_value_and_grad():
    def f(x):
        value, gradient = fg.value_and_grad(cube)(x)
        return value * gradient.sum()

    value, gradient = fg.value_and_grad(f)(A)
    assert value == 36 * 42
    close(gradient, 3 * A**2 * 42 + 36 * 6 * A)


def test_a_tree_inside_a_tree():
    def f(p):
        inner = fg.grad(lambda q: q["a"] * q["a"] * p["b"])({"a": p["a"]})
        return inner["a"] * p["b"]                                            # 2 a b b

    found = fg.grad(f)({"a": 3.0, "b": 5.0})
    assert found == {"a": 50.0, "b": 60.0}


# With the stateful interface


def test_backward_inside_a_differentiated_function():
    def f(x):
        w = fg.tensor(3.0, requires_grad=True)
        (w * w).backward()
        return x * w.grad

    assert fg.grad(f)(2.0) == 6.0
    assert fg.jvp(f, (2.0,), (1.0,))[1] == 6.0


def test_backward_with_create_graph_inside_a_differentiated_function():
    def f(x):
        w = fg.tensor(3.0, requires_grad=True)
        (w * w * x).backward(create_graph=True)      # 2 w x
        return w.grad * x

    assert fg.grad(f)(5.0) == 60.0
    assert fg.jvp(f, (5.0,), (1.0,))[1] == 60.0


def test_backward_inside_that_reads_the_argument_leaves_the_outer_gradient_right_or_says_no():
    def f(x):
        w = fg.tensor(3.0, requires_grad=True)
        (w * x).backward()
        return x * w.grad.detach()

    assert fg.grad(f)(5.0) == 5.0


def test_a_leaf_in_a_closure_gets_no_gradient_from_a_transform():
    w = fg.tensor(3.0, requires_grad=True)
    assert fg.grad(lambda x: x * w * w)(2.0) == 9.0
    assert w.grad is None
    fg.jvp(lambda x: x * w, (2.0,), (1.0,))
    assert w.grad is None


def test_the_value_of_a_transform_inside_a_loss_is_differentiable_by_backward():
    w = fg.tensor(3.0, requires_grad=True)
    x = fg.tensor(2.0, requires_grad=True)
    slope = fg.grad(lambda x: x * x * w)(x)     # 2 x w
    slope.backward()
    assert (x.grad.item(), w.grad.item()) == (6.0, 4.0)


def test_the_gradient_by_a_float_of_a_loss_with_a_leaf_is_a_number():
    w = fg.tensor(3.0, requires_grad=True)
    found = fg.grad(lambda x: x * w)(2.0)
    assert isinstance(found, float) and found == 3.0


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_a_transform_inside_no_grad_works_and_is_not_recorded(derivative):
    x = fg.tensor(3.0, requires_grad=True)
    with fg.no_grad():
        assert float(derivative(lambda x: x * x)(3.0)) == 6.0
        slope = derivative(lambda x: x * x)(x)
        assert slope.item() == 6.0 and not slope.requires_grad
        assert float(derivative(derivative(lambda x: x * x * x))(3.0)) == 18.0


def test_no_grad_inside_a_differentiated_function_cuts():
    def f(x):
        with fg.no_grad():
            y = x * x
        return x * y

    assert fg.grad(f)(3.0) == 9.0
    assert fg.jvp(f, (3.0,), (1.0,))[1] == 9.0
    assert fg.grad(lambda x: x * x.detach())(3.0) == 3.0


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_contract_36_an_exception_in_the_function_leaves_everything_usable(derivative):
    gc.collect()        # what other tests left
    nodes = engine.tape_statistics()["nodes"]
    for depth in range(3):
        f = lambda x: x * (1 // 0)  # noqa: E731
        for _ in range(depth + 1):
            f = derivative(f)
        with pytest.raises(ZeroDivisionError):
            f(3.0)
        assert not engine.recording_outside()
        assert float(derivative(derivative(lambda x: x * x * x))(3.0)) == 18.0
    assert engine.tape_statistics()["nodes"] == nodes


def test_contract_36_an_exception_caught_inside_the_function_is_harmless():
    def f(x):
        try:
            fg.grad(lambda y: y * (1 // 0))(x)
        except ZeroDivisionError:
            pass
        return x * x

    assert fg.grad(f)(3.0) == 6.0
    assert fg.grad(fg.grad(f))(3.0) == 2.0


def test_contract_36_an_error_of_a_pull_leaves_the_next_pull_right():
    out, pull = fg.vjp(g, A)
    for _ in range(2):
        with pytest.raises(ValueError):
            pull(np.ones(5))
        close(pull(np.eye(2)[0])[0], jacobian_of_g(A)[0])


# Methods, names


class Model:
    def __init__(self, w):
        self.w = w

    def loss(self, x):
        return (x * x).sum() * self.w

    slope = fg.grad(loss, 1)


def test_methods_as_functions():
    model = Model(3.0)
    same(fg.grad(model.loss)(A), 6 * A)
    same(model.slope(A), 6 * A)
    same(Model.slope(model, A), 6 * A)


def test_a_gradient_as_a_decorator_keeps_name_and_wrapped():
    @fg.grad
    def square(x):
        """The square."""
        return x * x

    assert square(3.0) == 6.0
    assert "square" in square.__name__ and square.__wrapped__(2.0) == 4.0 and "square" in square.__doc__
    for transform in (fg.jacrev, fg.jacfwd, fg.jacobian, fg.hessian):
        assert "cube" in transform(cube).__name__ and transform(cube).__wrapped__ is not None


def test_builtin_functions_and_partials():
    from functools import partial

    assert fg.grad(fnp.exp)(0.0) == 1.0
    assert fg.grad(partial(lambda a, x: a * x, 3.0))(2.0) == 3.0
    assert fg.grad(abs)(-2.0) == -1.0


def test_branches_and_loops_are_pythons():
    def f(x):
        total = 0.0
        while x < 10:
            total += x * x if x > 2 else x
            x = x * 2.0
        return total

    # 1 + 2 + 16 + 64
    assert fg.grad(f)(1.0) == 1 + 2 + 2 * 16 + 2 * 64


def test_float32_and_float64_arguments_keep_their_dtypes():
    gx, gy = fg.grad(lambda x, y: (x * y).sum(), (0, 1))(A.astype(np.float32), A)
    assert gx.dtype == np.float32 and gy.dtype == np.float64
    x = A.astype(np.float32)
    assert fg.hvp(cube, (x,), (x,)).dtype == np.float32
    assert fg.hvp(cube, (x,), (A,)).dtype == np.float32


def test_arguments_are_not_changed():
    x = A.copy()

    def f(x):
        x += 1.0
        x[0] = x[1] * x[2]
        return (x * x).sum()

    # (x1 + 1)(x2 + 1), x1 + 1, x2 + 1
    b, c = A[1] + 1, A[2] + 1
    close(fg.grad(f)(x), [0.0, 2 * b * c * c + 2 * b, 2 * b * c * b + 2 * c])
    same(x, A)
    close(fg.jvp(f, (x,), (np.eye(3)[1],))[1], 2 * b * c * c + 2 * b)
    same(x, A)
    t = fg.tensor(A)
    fg.grad(f)(t)
    same(t.numpy(), A)


@pytest.mark.parametrize("data", [3.0, [3.0, 4.0]])
def test_an_output_that_is_changed_in_place_leaves_its_pullback_alone(data):
    x = fg.tensor(data, requires_grad=True)
    kept = []

    def f(x):
        y = x * x
        kept.append(y)
        return y

    out, pull = fg.vjp(f, x)
    out *= 100.0
    kept[0] += 5.0
    close(pull(np.ones(np.shape(data)))[0].detach().numpy(), 2 * np.asarray(data))
    out, push = fg.linearize(f, np.asarray(data))
    kept[1] *= 100.0
    close(push(np.ones(np.shape(data))), 2 * np.asarray(data))


def test_a_vjp_outlives_what_it_was_made_of():
    def make():
        x = np.arange(1.0, 1001.0)
        return fg.vjp(lambda x: fnp.exp(x * 1e-3) * x, x)

    out, pull = make()
    for _ in range(20):
        np.ones(1000) * 3.0
    x = np.arange(1.0, 1001.0)
    close(pull(np.ones(1000))[0], np.exp(x * 1e-3) * (1 + x * 1e-3))


# Against others


def network(xp, w1, b1, w2, x):
    return xp.sum(xp.tanh(xp.matmul(x, w1) + b1) @ w2 * 0.5) + xp.sum(xp.exp(-w1 * w1)) + xp.mean(xp.sin(b1) * w2[:, 0])


def arguments():
    rng = np.random.default_rng(3)
    return [rng.standard_normal(s) for s in ((3, 4), (4,), (4, 2), (5, 3))]


def test_against_jax():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy
    args, slots = arguments(), (0, 1, 2, 3)
    for ours, theirs in zip(fg.grad(lambda *a: network(fnp, *a), slots)(*args), jax.grad(lambda *a: network(jnp, *a), slots)(*args)):
        close(ours, np.asarray(theirs))
    mine = fg.hessian(lambda *a: network(fnp, *a), (0, 1))(*args)
    others = jax.hessian(lambda *a: network(jnp, *a), (0, 1))(*args)
    for i, j in itertools.product(range(2), range(2)):
        close(mine[i][j], np.asarray(others[i][j]), 1e-10)
    tangents = tuple(args[::-1][k].sum() * np.ones_like(a) for k, a in enumerate(args))
    close(fg.jvp(lambda *a: network(fnp, *a), tuple(args), tangents)[1], np.asarray(jax.jvp(lambda *a: network(jnp, *a), tuple(args), tangents)[1]))


def test_against_torch():
    torch = pytest.importorskip("torch")
    args = arguments()

    class Names:
        tanh, matmul, sum, exp, mean, sin = torch.tanh, torch.matmul, torch.sum, torch.exp, torch.mean, torch.sin

    leaves = [torch.tensor(a, requires_grad=True) for a in args]
    network(Names, *leaves).backward()
    mine = [fg.tensor(a, requires_grad=True) for a in args]
    network(fnp, *mine).backward()
    for ours, theirs in zip(mine, leaves):
        close(ours.grad.numpy(), theirs.grad.numpy())


def test_against_autograd():
    autograd = pytest.importorskip("autograd")
    import autograd.numpy as anp

    args = arguments()
    for k in range(4):
        close(fg.grad(lambda *a: network(fnp, *a), k)(*args), autograd.grad(lambda *a: network(anp, *a), k)(*args))


def test_newtons_method_finds_a_root():
    x = 1.0
    for _ in range(8):
        value, slope = fg.value_and_grad(lambda x: x**3 - 2.0)(x)
        x = float(x - value / slope)
    assert x == pytest.approx(math.cbrt(2.0) if hasattr(math, "cbrt") else 2 ** (1 / 3), rel=1e-15)


def test_the_gradient_of_an_implicit_function_by_its_jacobian():
    f = lambda x, a: x * x - a  # noqa: E731
    a = np.array([2.0, 3.0])
    x = np.sqrt(a)
    jx, ja = fg.jacobian(f, (0, 1))(x, a)
    close(-np.linalg.solve(jx, ja), np.diag(0.5 / x))
