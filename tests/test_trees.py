"""Types registered as nodes of pytrees, and trees as flat arrays, under every transform."""

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.tree import tree_prefix


class Pair:
    def __init__(self, x, y, name="p"):
        self.x, self.y, self.name = x, y, name


fg.register_pytree_node(Pair, lambda p: ((p.x, p.y), p.name), lambda name, children: Pair(*children, name))


@fg.register_pytree_node_class
class Bag(dict):
    def tree_flatten(self):
        return list(self.values()), tuple(self)

    @classmethod
    def tree_unflatten(cls, keys, children):
        return cls(zip(keys, children))


X, Y = np.array([1.0, 2.0]), np.array([3.0, -1.0])
PAIR = Pair(X, {"in": Y})


def f(p):
    return (p.x * p.y["in"] ** 2).sum()


def test_leaves_and_structure():
    leaves, structure = fg.tree_flatten(PAIR)
    assert leaves[0] is X and leaves[1] is Y
    back = fg.tree_unflatten(structure, [1, 2])
    assert type(back) is Pair and (back.x, back.y, back.name) == (1, {"in": 2}, "p")
    assert fg.tree_leaves((Bag(b=1, a=2), None, Pair(3, [4]))) == [1, 2, 3, 4]
    assert fg.tree_flatten(Pair(1, 2, "q"))[1] != fg.tree_flatten(Pair(1, 2))[1] == fg.tree_flatten(Pair(3, 4))[1]
    with pytest.raises(ValueError, match="structure"):
        fg.tree_map(lambda a, b: a, Pair(1, 2, "q"), Pair(1, 2))
    assert tree_prefix(Pair(0, None), Pair(1, (2, 3))) == [0, None, None]


def test_every_transform_takes_and_gives_them():
    g = fg.grad(f)(PAIR)
    assert type(g) is Pair and g.name == "p"
    assert np.allclose(g.x, Y**2) and np.allclose(g.y["in"], 2 * X * Y)
    out, pull = fg.vjp(lambda p: Pair(p.x * 2, p.y["in"] * 3, "out"), PAIR)
    assert out.name == "out" and np.allclose(pull(Pair(X, Y, "out"))[0].y["in"], 3 * Y)
    ones = Pair(np.ones(2), {"in": np.zeros(2)})
    assert np.allclose(fg.jvp(f, (PAIR,), (ones,))[1], (Y**2).sum())
    assert np.allclose(fg.hvp(f, (PAIR,), (ones,)).y["in"], 2 * Y)
    assert np.allclose(fg.jacrev(lambda p: p.x * p.y["in"])(PAIR).x, np.diag(Y))
    assert fg.hessian(f)(PAIR).x.y["in"].shape == (2, 2)
    assert np.allclose(fg.grad(lambda b: b["u"] * b["v"])(Bag(u=2.0, v=5.0))["u"], 5.0)


def test_vmap():
    stacked = Pair(np.stack([X, 2 * X]), {"in": Y})
    found = fg.vmap(fg.grad(f), in_axes=(Pair(0, None),))(stacked)
    assert type(found) is Pair and np.allclose(found.y["in"], np.stack([2 * X * Y, 4 * X * Y]))
    found = fg.vmap(lambda p: Pair(p.x, p.x.sum(), "o"), out_axes=Pair(1, 0, "o"))(Pair(np.stack([X, 2 * X, Y]), 0 * np.ones((3, 1))))
    assert found.x.shape == (2, 3) and found.y.shape == (3,)


def test_compile_tells_them_apart_by_aux():
    def named(p):
        return f(p) * (2.0 if p.name == "twice" else 1.0)

    program = fg.compile(fg.grad(named))
    assert np.allclose(program(PAIR).x, Y**2) and np.allclose(program(Pair(X, {"in": 2 * Y})).x, 4 * Y**2)
    assert program.recordings == 1
    assert np.allclose(program(Pair(X, {"in": Y}, "twice")).x, 2 * Y**2)
    assert program.recordings == 2

    class Unhashable(Pair):
        pass

    fg.register_pytree_node(Unhashable, lambda p: ((p.x, p.y), [p.name]), lambda aux, c: Unhashable(*c, *aux))
    assert np.allclose(fg.grad(f)(Unhashable(X, {"in": Y})).x, Y**2)
    with pytest.raises(TypeError, match="cannot be hashed"):
        fg.compile(f)(Unhashable(X, {"in": Y}))


def test_saving_a_program_refuses_them(tmp_path):
    program = fg.compile(f).program(PAIR)
    with pytest.raises(TypeError, match="Pair"):
        program.save(tmp_path / "p.fgp")


def test_custom_rules_and_checkpoint_take_them():
    assert np.allclose(fg.grad(lambda p: fg.checkpoint(f)(p))(PAIR).x, Y**2)
    h = fg.custom_vjp(lambda p: p.x * 1.0)
    h.defvjp(lambda p: (p.x * 1.0, p), lambda p, g: (Pair(g * 4.0, {"in": 0.0 * p.y["in"]}),))
    assert np.allclose(fg.grad(lambda p: h(p).sum())(PAIR).x, 4.0)


def test_registration_refuses_what_makes_no_sense():
    for kind in (dict, tuple, type(None), Pair, fg.nn.Linear):
        with pytest.raises(ValueError, match="already"):
            fg.register_pytree_node(kind, None, None)
    with pytest.raises(TypeError, match="no type"):
        fg.register_pytree_node("x", None, None)
    with pytest.raises(TypeError, match="tree_flatten"):
        fg.register_pytree_node_class(type("Bare", (), {}))

    class Wrong:
        pass

    fg.register_pytree_node(Wrong, lambda w: 3, None)
    with pytest.raises(TypeError, match="Wrong returned no pair"):
        fg.tree_flatten(Wrong())


def test_ravel_pytree():
    tree = {"w": np.arange(6.0).reshape(2, 3), "b": [np.float32(7), 8], "s": Pair(X, None)}
    flat, unravel = fg.ravel_pytree(tree)
    assert flat.shape == (10,) and np.array_equal(flat, [7, 8, 1, 2, 0, 1, 2, 3, 4, 5])
    back = unravel(flat)
    assert np.array_equal(back["w"], tree["w"]) and back["b"][0].dtype == np.float32 and back["b"][1].dtype.kind == "i"
    assert type(back["s"]) is Pair
    loss = lambda t: (t["w"] ** 2).sum() + t["s"].x.sum()
    g = fg.grad(lambda v: loss(unravel(v)))(flat)
    assert np.allclose(g, [0, 0, 1, 1, *(2 * np.arange(6.0))])
    # through ravel itself, under vmap and in a Program
    weights = np.arange(4.0)
    r = lambda p: (fg.ravel_pytree(p)[0] * weights).sum()
    small = Pair(X, Y)
    for g in (fg.grad(r), fg.compile(fg.grad(r))):
        assert np.allclose(g(small).x, [0, 1]) and np.allclose(g(small).y, [2, 3])
    assert np.allclose(fg.vmap(fg.grad(r))(Pair(np.stack([X, Y]), np.stack([Y, X]))).y, [[2, 3], [2, 3]])
    assert fg.ravel_pytree({})[0].shape == (0,)
    with pytest.raises(ValueError, match=r"shape \(3,\) for a tree of 10"):
        unravel(np.zeros(3))
    with pytest.raises(TypeError, match="str"):
        fg.ravel_pytree(["a"])
