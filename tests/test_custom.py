"""custom_vjp, custom_jvp, stop_gradient, checkpoint: against derivatives by hand, and in every combination."""

import gc

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import engine

X = np.array([0.3, -1.2, 2.0])
Y = np.array([1.5, 0.5, -0.7])


def marked():
    """x * x * y whose rule says 3x and 5x of the truth, so that it shows when the rule was used."""
    f = fg.custom_vjp(lambda x, y: x * x * y)
    f.defvjp(lambda x, y: (x * x * y, (x, y)), lambda r, g: (3.0 * g * 2.0 * r[0] * r[1], 5.0 * g * r[0] * r[0]))
    return f


def marked_jvp():
    f = fg.custom_jvp(lambda x, y: x * x * y)

    @f.defjvp
    def rule(primals, tangents):
        (x, y), (s, t) = primals, tangents
        return f(x, y), 3.0 * 2.0 * x * y * s + 5.0 * x * x * t

    return f


BOTH = pytest.mark.parametrize("make", [marked, marked_jvp])


@BOTH
def test_the_rule_is_used(make):
    f = make()
    gx, gy = fg.grad(lambda x, y: f(x, y).sum(), argnums=(0, 1))(X, Y)
    assert np.allclose(gx, 6 * X * Y, rtol=1e-15) and np.allclose(gy, 5 * X * X, rtol=1e-15)
    assert np.array_equal(f(X, Y), X * X * Y) and type(f(X, Y)) is np.ndarray
    a, b = fg.tensor(X, requires_grad=True), fg.tensor(Y, requires_grad=True)
    f(a, b).sum().backward()
    assert np.allclose(a.grad.numpy(), 6 * X * Y, rtol=1e-15) and np.allclose(b.grad.numpy(), 5 * X * X, rtol=1e-15)


@BOTH
def test_by_one_argument_and_by_keyword(make):
    f = make()
    assert np.allclose(fg.grad(lambda y: f(X, y).sum())(Y), 5 * X * X, rtol=1e-15)
    if make is marked:
        def g(x, y):
            return x * y
        h = fg.custom_vjp(g)
        h.defvjp(lambda x, y: (x * y, y), lambda y, c: (c * y * 7.0, None))
        assert np.allclose(fg.grad(lambda x: h(y=Y, x=x).sum())(X), 7 * Y)


@BOTH
def test_second_order_goes_through_the_rule(make):
    f = make()
    # the rule's gradient by x is 6 x y, whose derivative by x is 6 y
    first = fg.grad(lambda x: f(x, Y).sum())
    assert np.allclose(fg.grad(lambda x: first(x).sum())(X), 6 * Y, rtol=1e-15)
    a = fg.tensor(X, requires_grad=True)
    f(a, Y).sum().backward(create_graph=True)
    g, a.grad = a.grad, None
    g.sum().backward()
    assert np.allclose(a.grad.numpy(), 6 * Y, rtol=1e-15)
    assert np.allclose(fg.hessian(lambda x: f(x, Y).sum())(X), np.diag(6 * Y), rtol=1e-15)
    third = fg.grad(lambda x: fg.grad(lambda x: first(x * x).sum())(x).sum())(X)        # 6 x**2 y, twice
    assert np.allclose(third, 12 * Y, rtol=1e-14)


@BOTH
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_vmap_uses_the_rule_for_each_example(make, axes):
    f = make()
    xs = np.stack([X, 2 * X, -X]) if axes[0] == 0 else X
    ys = np.stack([Y, Y + 1, 3 * Y]) if axes[1] == 0 else Y
    weights = np.arange(1.0, 10.0).reshape(3, 3)
    of_example = fg.vmap(fg.grad(lambda x, y: f(x, y).sum(), argnums=(0, 1)), in_axes=axes)(xs, ys)
    wx, wy = np.broadcast_arrays(xs, ys)
    assert np.allclose(of_example[0], 6 * wx * wy) and np.allclose(of_example[1], 5 * wx * wx)
    around = fg.grad(lambda x, y: (fg.vmap(f, in_axes=axes)(x, y) * weights).sum(), argnums=(0, 1))(xs, ys)
    ex, ey = 6 * wx * wy * weights, 5 * wx * wx * weights
    assert np.allclose(around[0], ex if axes[0] == 0 else ex.sum(0))
    assert np.allclose(around[1], ey if axes[1] == 0 else ey.sum(0))
    assert np.allclose(fg.vmap(f, in_axes=axes)(xs, ys), wx * wx * wy)
    # the second derivative around a vmap
    twice = fg.grad(lambda x: fg.grad(lambda x: (fg.vmap(f, in_axes=axes)(x, ys) * weights).sum())(x).sum())(xs)
    ex = 6 * wy * weights
    assert np.allclose(twice, ex if axes[0] == 0 else ex.sum(0))


@BOTH
def test_vmap_of_vmap(make):
    f = make()
    xs = np.arange(12.0).reshape(2, 2, 3) - 5
    g = fg.grad(lambda x: fg.vmap(fg.vmap(f, in_axes=(0, None)), in_axes=(0, None))(x, Y).sum())(xs)
    assert np.allclose(g, 6 * xs * Y)
    g = fg.vmap(fg.grad(lambda x: fg.vmap(f, in_axes=(0, None))(x, Y).sum()))(xs)
    assert np.allclose(g, 6 * xs * Y)


@BOTH
def test_vmap_around_what_no_example_changes(make):
    f = make()
    g = fg.grad(lambda w: fg.vmap(lambda x: (f(w, Y) * x).sum())(np.stack([X, 2 * X])).sum())(X)
    assert np.allclose(g, 6 * X * Y * 3 * X)


@BOTH
def test_compiled_is_eager(make):
    f = make()
    loss = lambda x, y: (np.tanh(f(np.sin(x), y)) * f(x, y)).sum()
    plain = fg.value_and_grad(loss, argnums=(0, 1))
    program = fg.compile(plain)
    for s in (1.0, 1.5, 1.0):
        (v, (gx, gy)), (w, (hx, hy)) = program(s * X, Y), plain(s * X, Y)
        assert np.allclose(v, w, rtol=1e-14) and np.allclose(gx, hx, rtol=1e-13) and np.allclose(gy, hy, rtol=1e-13)
    assert program.recordings == 1
    second = lambda x: fg.grad(lambda x: fg.grad(lambda x: f(x, Y).sum())(x).sum())(x)
    assert np.allclose(fg.compile(second)(X), 6 * Y)
    assert np.allclose(fg.compile(fg.vmap(fg.grad(lambda x: f(x, Y).sum())))(np.stack([X, X])), 6 * X * Y)


@BOTH
@pytest.mark.filterwarnings("ignore:fg.compile")
def test_the_derivative_of_a_program_is_the_rule(make):
    f = make()

    def long(x):
        for _ in range(60):
            x = np.sin(x) + x * 0.01
        return f(x, Y)

    inner = fg.compile(long)
    for _ in range(3):
        got = fg.grad(lambda x: inner(x).sum())(X)
    assert np.allclose(got, fg.grad(lambda x: long(x).sum())(X), rtol=1e-12)


def test_a_custom_vjp_has_no_forward_mode_but_around_its_gradient():
    f = marked()
    with pytest.raises(TypeError, match="custom_vjp.*reverse mode"):
        fg.jvp(lambda x: f(x, Y), (X,), (X,))
    with pytest.raises(TypeError, match="custom_vjp"):
        fg.jvp(lambda x: fg.jvp(lambda x: f(x, Y), (x,), (X,))[1], (X,), (X,))
    # forward over reverse, where the gradient depends on the value
    loss = lambda x: (f(x, Y) ** 2).sum()
    # gradient 2 f * 6 x y = 12 x^3 y^2; the value goes by the operations of fwd
    assert np.allclose(fg.jvp(fg.grad(loss), (X,), (np.ones(3),))[1], 36 * X**2 * Y**2)


def test_jvp_and_vjp_of_a_custom_jvp_agree():
    f = marked_jvp()
    out, tangent = fg.jvp(f, (X, Y), (np.ones(3), 2 * np.ones(3)))
    assert np.allclose(tangent, 6 * X * Y + 10 * X * X)
    assert np.allclose(fg.jacfwd(lambda x: f(x, Y))(X), fg.jacrev(lambda x: f(x, Y))(X))
    assert np.allclose(fg.vmap(lambda x: fg.jvp(lambda x: f(x, Y), (x,), (X,))[1])(np.stack([X, Y])), 6 * np.stack([X, Y]) * Y * X)


def test_defjvps():
    f = fg.custom_jvp(lambda x, y: x * y)
    f.defjvps(lambda t, ans, x, y: 2.0 * t * y, None)
    gx, gy = fg.grad(lambda x, y: f(x, y).sum(), argnums=(0, 1))(X, Y)
    assert np.allclose(gx, 2 * Y) and np.array_equal(gy, np.zeros(3))
    g = fg.custom_jvp(lambda x: np.exp(x))
    g.defjvps(lambda t, ans, x: t * ans)
    assert np.allclose(fg.grad(lambda x: fg.grad(lambda x: g(x).sum())(x).sum())(X), np.exp(X))


def test_trees_in_and_out():
    @fg.custom_vjp
    def f(p, k):
        return {"s": p["a"] + p["b"][0], "n": np.sum(p["a"]) * k}

    def bwd(res, g):
        return {"a": g["s"] * 10.0, "b": [g["n"] * np.ones(3)]}, None

    f.defvjp(lambda p, k: (f(p, k), None), bwd)
    loss = lambda p: (f(p, 2)["s"] * X).sum() + 3.0 * f(p, 2)["n"]
    g = fg.grad(loss)({"a": X, "b": [Y]})
    # two calls: from the first s carries X, from the second n carries 3
    assert np.allclose(g["a"], 10 * X) and np.allclose(g["b"][0], 3.0)
    batch = {"a": np.stack([X, Y]), "b": [np.stack([Y, X])]}
    h = fg.grad(lambda p: fg.vmap(loss)(p).sum())(batch)
    assert np.allclose(h["a"], 10 * np.stack([X, X])) and np.allclose(h["b"][0], 3.0)
    h = fg.vmap(fg.grad(loss))(batch)
    assert np.allclose(h["a"], 10 * np.stack([X, X])) and np.allclose(h["b"][0], 3.0)


def test_results_that_carry_no_gradient_and_float32():
    f = fg.custom_vjp(lambda x: (x * 2, x.argmax()))
    f.defvjp(lambda x: ((x * 2, x.argmax()), None), lambda r, g: (g[0] * 9.0,))
    g = fg.grad(lambda x: f(x)[0].sum())(X.astype(np.float32))
    assert g.dtype == np.float32 and np.array_equal(g, np.full(3, 9, np.float32))
    g = fg.grad(lambda x: fg.vmap(lambda v: f(v)[0])(x).sum())(np.ones((2, 3), np.float32))
    assert g.dtype == np.float32 and np.array_equal(g, np.full((2, 3), 9, np.float32))


def test_nondiff_argnums():
    f = fg.custom_vjp(lambda function, x, n: function(x) * n, nondiff_argnums=(0, 2))
    f.defvjp(lambda function, x, n: (function(x) * n, x), lambda function, n, x, g: (g * function(x) * 100.0 * n,))
    assert np.allclose(fg.grad(lambda x: f(np.sin, x, 3).sum())(X), 300 * np.sin(X))
    h = fg.custom_jvp(lambda n, x: x * n, nondiff_argnums=0)
    h.defjvp(lambda n, p, t: (p[0] * n, t[0] * n * 50.0))
    assert np.allclose(fg.grad(lambda x: h(2, x).sum())(X), 100.0)
    with pytest.raises(TypeError, match="nondiff_argnums"):
        fg.grad(lambda n: h(n, X).sum())(2.0)


def test_a_custom_rule_in_a_custom_rule():
    inner = marked()
    outer = fg.custom_vjp(lambda x: inner(x, Y))
    outer.defvjp(lambda x: (inner(x, Y), x), lambda x, g: (fg.vjp(lambda x: inner(x, Y), x)[1](g)[0] * 2.0,))
    assert np.allclose(fg.grad(lambda x: outer(x).sum())(X), 12 * X * Y)
    assert np.allclose(fg.grad(lambda x: fg.grad(lambda x: outer(x).sum())(x).sum())(X), 12 * Y)
    assert np.allclose(fg.vmap(fg.grad(lambda x: outer(x).sum()))(np.stack([X, Y])), 12 * np.stack([X, Y]) * Y)


def test_the_fixed_point_of_the_manuals():
    """Implicit differentiation: x = cos(a x), against the formula."""
    def solve(a):
        x = 0.5
        for _ in range(200):
            x = float(np.cos(a * x))
        return x

    fixed = fg.custom_vjp(lambda a: fnp.asarray(solve(float(a.item() if isinstance(a, fg.Tensor) else a))))

    def fwd(a):
        x = fixed(a)
        return x, (a, x)

    def bwd(res, g):
        a, x = res
        s = -np.sin(a * x)
        return (g * s * x / (1 - s * a),)

    fixed.defvjp(fwd, bwd)
    h = 1e-6
    assert abs(fg.grad(fixed)(0.8) - (solve(0.8 + h) - solve(0.8 - h)) / (2 * h)) < 1e-8


def test_errors_say_what_is_wrong():
    f = fg.custom_vjp(lambda x, y: x * y)
    with pytest.raises(AttributeError, match="defvjp"):
        f(X, Y)
    f.defvjp(lambda x, y: (x * y, None), lambda r, g: (g,))
    with pytest.raises(TypeError, match="each of 2 arguments"):
        fg.grad(lambda x: f(x, Y).sum())(X)
    f.defvjp(lambda x, y: (x * y, None), lambda r, g: (g.sum(), None))
    with pytest.raises(ValueError, match=r"shape \(\) for an argument of shape \(3,\)"):
        fg.grad(lambda x: f(x, Y).sum())(X)
    f.defvjp(lambda x, y: x * y, lambda r, g: (g, g))
    with pytest.raises(TypeError, match="pair"):
        fg.grad(lambda x: f(x, Y).sum())(X)
    f.defvjp(lambda x, y: (x * y, None), lambda r, g: ({"a": g}, g))
    with pytest.raises(TypeError, match="structure"):
        fg.grad(lambda x: f(x, Y).sum())(X)
    g = fg.custom_jvp(lambda x: x)
    with pytest.raises(AttributeError, match="defjvp"):
        g(X)
    g.defjvp(lambda p, t: (p[0], t[0].sum()))
    with pytest.raises(ValueError, match="tangent of shape"):
        fg.jvp(g, (X,), (X,))
    w = fg.tensor(X, requires_grad=True)
    h = fg.custom_vjp(lambda x: x * w)
    h.defvjp(lambda x: (x * w, None), lambda r, g: (g,))
    with pytest.raises(TypeError, match="pass the Tensor as an argument"):
        h(fg.tensor(Y, requires_grad=True))


def test_random_numbers_in_fwd_are_noticed_at_second_order():
    rng = np.random.default_rng(0)
    f = fg.custom_vjp(lambda x: x)

    def fwd(x):
        mask = fnp.asarray(rng.normal(size=3))
        return x * mask, mask

    f.defvjp(fwd, lambda mask, g: (g * mask * np.exp(g),))
    assert np.isfinite(fg.grad(lambda x: f(x).sum())(X)).all()
    with pytest.raises(RuntimeError, match="other residuals"):
        fg.grad(lambda x: fg.grad(lambda x: (f(x) ** 2).sum())(x).sum())(X)


def test_arguments_changed_after_the_call_change_no_gradient():
    f = fg.custom_vjp(lambda x, y: x * y)
    f.defvjp(lambda x, y: (x * y, (x, y)), lambda r, g: (g * r[1], None))
    y = Y.copy()
    x = fg.tensor(X, requires_grad=True)
    out = f(x, y)
    y[:] = 100.0
    out.sum().backward()
    assert np.allclose(x.grad.numpy(), Y)


# ------------------------------------------------------------------------------------------------------------ stop_gradient

def test_stop_gradient():
    stopped = lambda x: (x * fg.stop_gradient({"a": x * 3})["a"]).sum()
    assert np.allclose(fg.grad(stopped)(X), 3 * X)
    assert np.allclose(fg.compile(fg.grad(stopped))(X), 3 * X)
    assert np.allclose(fg.vmap(fg.grad(stopped))(np.stack([X, Y])), 3 * np.stack([X, Y]))
    assert np.allclose(fg.grad(lambda x: fg.vmap(stopped)(x).sum())(np.stack([X, Y])), 3 * np.stack([X, Y]))
    assert np.allclose(fg.jvp(stopped, (X,), (np.ones(3),))[1], (3 * X).sum())
    assert fg.stop_gradient({"a": 1, "b": "s", "c": X})["c"] is X


# --------------------------------------------------------------------------------------------------------------- checkpoint

def chain(x, n=20):
    for k in range(n):
        x = np.tanh(x * 1.1 + 0.01 * k) + 0.1 * np.exp(-x * x)
    return x


def test_checkpoint_has_the_same_gradient_bit_for_bit_at_every_order():
    whole, pieces = (lambda x: chain(chain(x)).sum()), (lambda x: fg.checkpoint(chain)(fg.checkpoint(chain)(x)).sum())
    x = np.linspace(-2, 2, 7)
    assert np.array_equal(fg.grad(whole)(x), fg.grad(pieces)(x))
    assert np.array_equal(fg.value_and_grad(whole)(x)[0], fg.value_and_grad(pieces)(x)[0])
    second = lambda f: fg.grad(lambda x: (fg.grad(f)(x) ** 2).sum())(x)
    assert np.allclose(second(whole), second(pieces), rtol=1e-12)
    assert np.allclose(fg.hessian(whole)(x), fg.hessian(pieces)(x), rtol=1e-12)
    assert np.allclose(fg.jvp(whole, (x,), (x,))[1], fg.jvp(pieces, (x,), (x,))[1], rtol=1e-13)
    f32 = x.astype(np.float32)
    assert np.array_equal(fg.grad(whole)(f32), fg.grad(pieces)(f32))


def test_checkpoint_keeps_no_intermediates():
    x = np.linspace(-1, 1, 10_000)

    def held(f):
        gc.collect()
        before = engine.tape_statistics()["array_bytes"]
        t = fg.tensor(x, requires_grad=True)
        out = f(t)
        held = engine.tape_statistics()["array_bytes"] - before
        out.sum().backward()
        return held, t.grad.numpy()

    plain, expected = held(chain)
    kept, found = held(fg.checkpoint(chain))
    assert plain > 60 * x.nbytes and kept <= 3 * x.nbytes
    assert np.array_equal(expected, found)


def test_checkpoint_within_checkpoint_and_the_peak_of_a_long_chain():
    x = np.linspace(-1, 1, 5_000)
    peak = [0]

    def look(x):
        peak[0] = max(peak[0], engine.tape_statistics()["array_bytes"])
        return x

    def step(x):
        return look(np.tanh(x * 1.1) + 0.1 * np.exp(-x * x))

    def piece(x):
        for _ in range(8):
            x = step(x)
        return x

    def whole(x, piece):
        for _ in range(8):
            x = piece(x)
        return x.sum()

    results, peaks = [], []
    for p in (piece, fg.checkpoint(piece), fg.checkpoint(lambda x: fg.checkpoint(piece)(x))):
        start = peak[0] = engine.tape_statistics()["array_bytes"]
        results.append(fg.grad(lambda x: whole(x, p))(x))
        peaks.append(peak[0] - start)
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
    assert peaks[1] < peaks[0] / 3


def test_checkpoint_of_what_reads_parameters_from_outside():
    def loss(w, x, b, keep):
        h = w * 2.0                                         # no leaf, and not the argument
        layer = keep(lambda x: np.tanh(x @ h) + b)
        return (layer(layer(x)) ** 2).sum()

    rng = np.random.default_rng(1)
    w, x, b = rng.normal(size=(3, 3)), rng.normal(size=(2, 3)), rng.normal(size=3)
    plain = fg.grad(lambda *a: loss(*a, lambda f: f), argnums=(0, 1, 2))(w, x, b)
    saved = fg.grad(lambda *a: loss(*a, fg.checkpoint), argnums=(0, 1, 2))(w, x, b)
    for p, s in zip(plain, saved):
        assert np.allclose(p, s, rtol=1e-13)
    second = [fg.grad(lambda w: (fg.grad(lambda w: loss(w, x, b, keep))(w) ** 2).sum())(w) for keep in (lambda f: f, fg.checkpoint)]
    assert np.allclose(*second, rtol=1e-11)
    pushed = [fg.jvp(lambda w: loss(w, x, b, keep), (w,), (w,))[1] for keep in (lambda f: f, fg.checkpoint)]
    assert np.allclose(*pushed, rtol=1e-12)


def test_checkpoint_of_a_module():
    rng = np.random.default_rng(0)
    model = fg.nn.Sequential(fg.nn.Linear(3, 4, rng=rng), fg.nn.Tanh(), fg.nn.Linear(4, 1, rng=rng))
    x = np.ones((5, 3))
    found = []
    for f in (model, fg.checkpoint(model)):
        for p in model.parameters():
            p.zero_grad()
        (f(fg.tensor(x)) ** 2).sum().backward()
        found.append([p.grad.numpy().copy() for p in model.parameters()])
    assert all(np.array_equal(a, b) for a, b in zip(*found))
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


def test_checkpoint_that_cannot_repeat_itself_says_so():
    rng = np.random.default_rng(0)
    with pytest.raises(RuntimeError, match="another result"):
        fg.grad(lambda x: fg.checkpoint(lambda x: x * rng.normal())(x).sum())(X)
    w = fg.tensor(Y, requires_grad=True)
    x = fg.tensor(X, requires_grad=True)
    out = fg.checkpoint(lambda x: x * w)(x).sum()
    with fg.no_grad():
        w -= 1.0
    with pytest.raises(RuntimeError, match="changed since"):
        out.backward()
    assert x.grad is None and w.grad is None


def test_checkpoint_with_vmap_compile_trees_and_keywords():
    f = fg.remat(lambda p, scale=1.0: {"y": np.sin(p["x"]) * scale, "z": p["x"] ** 2})
    loss = lambda p: (f(p, scale=2.0)["y"] * f(p)["z"]).sum()
    expected = 2 * np.cos(X) * X**2 + 2 * np.sin(X) * 2 * X
    assert np.allclose(fg.grad(loss)({"x": X})["x"], expected)
    assert np.allclose(fg.compile(fg.grad(loss))({"x": X})["x"], expected)
    assert np.allclose(fg.vmap(fg.grad(loss))({"x": np.stack([X, X])})["x"], expected)
    assert np.allclose(fg.grad(lambda p: fg.vmap(loss)(p).sum())({"x": np.stack([X, X])})["x"], expected)
    mapped = fg.checkpoint(fg.vmap(lambda x: np.sin(x) * x))
    assert np.allclose(fg.grad(lambda x: mapped(x).sum())(np.stack([X, Y])), fg.grad(lambda x: (np.sin(x) * x).sum())(np.stack([X, Y])))


def test_checkpoint_of_custom_rules_and_in_them():
    for f in (marked(), marked_jvp()):
        g = fg.checkpoint(lambda x: f(x, Y) * 2.0)
        assert np.allclose(fg.grad(lambda x: g(x).sum())(X), 12 * X * Y)
    h = fg.custom_vjp(lambda x: x)
    h.defvjp(lambda x: (x, x), lambda x, g: (fg.grad(lambda x: fg.checkpoint(chain)(x).sum())(x),))
    assert np.allclose(fg.grad(lambda x: h(x).sum())(X), fg.grad(lambda x: chain(x).sum())(X))


def test_nothing_is_left_on_the_tape_or_to_gc():
    gc.collect()
    f = marked()
    before = engine.tape_statistics()["nodes"]
    gc.disable()
    try:
        for _ in range(3):
            fg.grad(lambda x: (f(fg.checkpoint(chain)(x), Y) ** 2).sum())(X)
        assert engine.tape_statistics()["nodes"] == before
    finally:
        gc.enable()


def test_explain_tells_of_them():
    for f in (marked(), marked_jvp(), fg.checkpoint(lambda x, y: x * y)):
        assert "Backward" in str(fg.explain(lambda x: f(x, Y).sum(), X))
