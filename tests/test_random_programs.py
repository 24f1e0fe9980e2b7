"""Random programs: over numbers against the pure-Python engine, over arrays against differences, and random histories.

The histories record, drop, sweep, change in place and take views in any order; each Tensor has a twin of plain
``fastgrad.reference`` numbers that is never told about tapes, retained graphs or shared memory.
"""

import gc
import os

import numpy as np
import pytest

hypothesis = pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, assume, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule  # noqa: E402

import fastgrad as fg  # noqa: E402
import fastgrad.numpy as fnp  # noqa: E402
from fastgrad import reference as ref  # noqa: E402
from fastgrad._core import engine  # noqa: E402

settings.register_profile("ci", derandomize=True, deadline=None, database=None,
                          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.register_profile("search", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
PROFILE = settings.get_profile("search" if os.environ.get("FASTGRAD_SEARCH") else "ci")


def examples(n):
    return settings(PROFILE) if os.environ.get("FASTGRAD_SEARCH") else settings(PROFILE, max_examples=n)


# Programs over numbers

UNARY = ["exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid", "relu"]
BINARY = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b, "**": lambda a, b: a**b,
}
NAMED = ["maximum", "minimum"]
number = st.floats(-3.0, 3.0).map(lambda v: round(v, 2) + 0.0)
place = st.integers(0, 10**6)
scalar_step = st.one_of(
    st.tuples(st.sampled_from(UNARY), place),
    st.tuples(st.sampled_from(["neg", "abs"]), place),
    st.tuples(st.sampled_from(list(BINARY) + NAMED + ["where"]), place, place),
    st.tuples(st.sampled_from(list(BINARY)), place, number),
    st.tuples(st.sampled_from(list(BINARY)), number, place),
)


def run_scalar(steps, inputs, library):
    values = list(inputs)
    for name, *operands in steps:
        picked = [values[o % len(values)] if isinstance(o, int) else o for o in operands]
        if name in UNARY or name in NAMED:
            values.append(getattr(library, name)(*picked))
        elif name == "neg":
            values.append(-picked[0])
        elif name == "abs":
            values.append(abs(picked[0]))
        elif name == "where":
            values.append(library.where(picked[0] > picked[1], picked[0], picked[1]))
        else:
            values.append(BINARY[name](*picked))
    total = values[-1]
    for v in values[-4:-1]:
        total = total + v
    return total


def agree(ours, theirs, scale=1.0):
    ours, theirs = float(ours), float(theirs)
    if np.isnan(theirs) or np.isinf(theirs) or abs(theirs) > 1e290:
        return
    assert abs(ours - theirs) <= 1e-9 * max(abs(theirs), scale), (ours, theirs)


def tame(gradient):
    return all(np.isfinite(g) and abs(g) < 1e8 for g in gradient)


@examples(400)
@given(st.lists(scalar_step, min_size=1, max_size=14), st.lists(number, min_size=1, max_size=3))
def test_a_program_over_numbers_has_the_reference_value_and_gradient(steps, inputs):
    with np.errstate(all="ignore"):
        value, gradient = ref.value_and_grad(lambda *v: run_scalar(steps, v, ref))(*inputs)
        assume(np.isfinite(value) and abs(value) < 1e8 and tame(gradient))
        ours, found = fg.value_and_grad(lambda *v: run_scalar(steps, v, fnp), tuple(range(len(inputs))))(*inputs)
    agree(ours, value)
    scale = max(1.0, *map(abs, gradient))
    for a, b in zip(found, gradient):
        agree(a, b, scale)


@examples(200)
@given(st.lists(scalar_step, min_size=1, max_size=10), st.lists(number, min_size=1, max_size=3))
def test_backward_grad_and_jvp_agree_on_a_program_over_numbers(steps, inputs):
    f = lambda *v: run_scalar(steps, v, fnp)  # noqa: E731
    slots = tuple(range(len(inputs)))
    gradient = fg.grad(f, slots)(*inputs)
    assume(tame(gradient))
    leaves = [fg.tensor(v, requires_grad=True) for v in inputs]
    out = f(*leaves)
    if out.requires_grad:
        out.backward(retain_graph=True)
        for leaf, g in zip(leaves, gradient):
            assert leaf.grad is None or np.array_equal(leaf.grad.item(), g)
            leaf.zero_grad()
        out.backward(create_graph=True)
        for leaf, g in zip(leaves, gradient):
            agree(0.0 if leaf.grad is None else leaf.grad.item(), g)
            leaf.zero_grad()
    scale = max(1.0, *map(abs, gradient))
    for k in slots:
        pushed = fg.jvp(f, tuple(inputs), tuple(float(j == k) for j in slots))[1]
        assume(np.isfinite(pushed))     # cotangents can cancel to the 0 that stops at an infinite partial; tangents cannot
        agree(pushed, gradient[k], scale * 10)


@examples(150)
@given(st.lists(scalar_step.filter(lambda s: s[0] not in ("where", "**")), min_size=1, max_size=7), number, number)
def test_second_derivatives_agree_over_every_mixture(steps, x, y):
    f = lambda x, y: run_scalar(steps, (x, y), fnp)  # noqa: E731
    x, y = np.float64(x), np.float64(y)         # which divide by zero
    found = []
    with np.errstate(all="ignore"):
        for first, second in ((fg.grad, fg.grad), (fg.grad, fg.jacfwd), (fg.jacfwd, fg.grad), (fg.jacfwd, fg.jacfwd)):
            found.append([float(second(first(f, i), j)(x, y)) for i in range(2) for j in range(2)])
    assume(all(tame(f) for f in found))     # see above
    scale = max(1.0, *map(abs, found[0]))
    for other in found[1:]:
        for a, b in zip(other, found[0]):
            agree(a, b, scale)
    agree(found[0][1], found[0][2], scale)


# Programs over arrays: smooth, so that differences converge

array_step = st.tuples(st.sampled_from([
    "tanh", "sin", "sigmoid", "square", "add", "multiply", "subtract", "divide", "matmul", "transpose", "reshape", "sum0", "mean1", "prod",
    "logsumexp", "softmax", "slice", "reverse", "gather", "mask", "concatenate", "stack", "broadcast", "assign", "assign_add", "scale", "copy",
    "max", "where", "newaxis", "cast", "dot"]), place, place)


def apply_array(name, a, b):
    """An operation on whatever shapes there are; the result has at most 64 elements and two axes."""
    column = lambda t: t.reshape(-1)  # noqa: E731
    if name in ("tanh", "sin", "sigmoid", "square"):
        return getattr(fnp, name)(a)
    if name in ("add", "multiply", "subtract", "divide"):
        try:
            np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            b = b.mean()
        return a / (1.5 + b * b) if name == "divide" else getattr(fnp, name)(a, b)
    if name == "matmul":
        return fnp.tanh(a @ a.T) if a.ndim == 2 else column(a) @ column(a) * 0.1
    if name == "dot":
        return fnp.dot(column(a)[:1], column(b)[:1]) * a
    if name == "transpose":
        return a.T
    if name == "reshape":
        return a.reshape(-1) if a.ndim == 2 else a.reshape(-1, 1)
    if name == "sum0":
        return a.sum(axis=0) if a.ndim else a.sum()
    if name == "mean1":
        return a.mean(axis=-1, keepdims=True) if a.ndim else a.mean()
    if name == "prod":
        return fnp.prod(a * 0.5 + 1.0, axis=-1) if a.ndim else a * 1.0
    if name in ("logsumexp", "softmax"):
        return getattr(fnp, name)(a, axis=-1) if a.ndim else a * 1.0
    if name == "max":
        return (a * 1.0).max(axis=-1) if a.ndim and a.shape[-1] == 1 else a.sum()
    if name == "where":
        return fnp.where(np.arange(a.size).reshape(a.shape) % 2 == 0, a, a * a)
    if name == "cast":
        return a.astype(np.float64) * a
    if not a.ndim:
        return a + 1.0
    n = a.shape[0]
    if name == "slice":
        return a[1:] if n > 1 else a[:1]
    if name == "reverse":
        return a[::-1]
    if name == "newaxis":
        return a[None] if a.ndim == 1 else a[..., 0]
    if name == "gather":
        return a[np.array([0, n - 1, 0])]
    if name == "mask":
        return a[np.arange(n) % 2 == 0]
    if name == "concatenate":
        return fnp.concatenate([a, a[:1] * 2.0]) if a.size < 32 else a[:2]
    if name == "stack":
        return fnp.stack([a, a * a]) if a.ndim == 1 and a.size < 32 else a
    if name == "broadcast":
        return fnp.broadcast_to(a[:1], (3,) + a.shape[1:])
    if name == "assign":
        y = a.copy()
        y[n // 2] = b.mean()
        return y
    if name == "assign_add":
        y = a * 1.0
        y[[0]] += b.sum() * 0.1
        y *= 0.5
        return y
    return a * 0.7 if name == "scale" else a.copy()


def run_array(steps, inputs):
    values = list(inputs)
    for name, i, j in steps:
        values.append(apply_array(name, values[i % len(values)], values[j % len(values)]))
    total = 0.0
    for v in values[-3:]:
        total = total + (v * 0.3).sum()
    return total


shapes = st.sampled_from([(), (1,), (3,), (4,), (2, 3), (3, 1), (1, 2), (3, 3)])


@examples(400)
@given(st.lists(array_step, min_size=1, max_size=9), st.lists(shapes, min_size=1, max_size=2), st.integers(0, 2**32 - 1))
def test_a_program_over_arrays_agrees_with_jvp_and_differences(steps, input_shapes, seed):
    rng = np.random.default_rng(seed)
    inputs = [rng.uniform(-1, 1, s) for s in input_shapes]
    tangents = [rng.uniform(-1, 1, s) for s in input_shapes]
    f = lambda *v: run_array(steps, v)  # noqa: E731
    slots = tuple(range(len(inputs)))
    value, gradient = fg.value_and_grad(f, slots)(*inputs)
    assume(np.isfinite(value) and abs(value) < 1e4)
    along = sum(np.sum(g * t) for g, t in zip(gradient, tangents))
    assert all(g.shape == a.shape and g.dtype == np.float64 for g, a in zip(gradient, inputs))
    assume(abs(along) < 1e4)
    out, pushed = fg.jvp(f, tuple(inputs), tuple(tangents))
    assert out == value
    assert abs(pushed - along) <= 1e-10 * max(1.0, abs(along))
    h = 1e-5
    up, down = (f(*[fg.tensor(a + s * h * t) for a, t in zip(inputs, tangents)]).item() for s in (1, -1))
    assert abs((up - down) / (2 * h) - along) <= 1e-5 * max(1.0, abs(along))


@examples(200)
@given(st.lists(array_step, min_size=1, max_size=8), shapes, st.integers(0, 2**32 - 1))
def test_the_recorded_sweep_and_the_compiled_one_agree_and_differentiate_again(steps, shape, seed):
    rng = np.random.default_rng(seed)
    a, t = rng.uniform(-1, 1, shape), rng.uniform(-1, 1, shape)
    f = lambda x: run_array(steps, [x])  # noqa: E731
    x = fg.tensor(a, requires_grad=True)
    y = f(x)
    assume(abs(y.item()) < 1e3)
    y.backward(retain_graph=True)
    compiled = x.grad.numpy().copy()
    assume(np.abs(compiled).max(initial=0) < 1e4)
    x.zero_grad()
    y.backward(create_graph=True)
    np.testing.assert_allclose(x.grad.detach().numpy(), compiled, rtol=1e-11, atol=1e-12)
    x.zero_grad()
    product = fg.hvp(f, (a,), (t,))
    h = 1e-5
    difference = (fg.grad(f)(a + h * t) - fg.grad(f)(a - h * t)) / (2 * h)
    np.testing.assert_allclose(product, difference, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(product).max(initial=0)))
    again = fg.grad(lambda x: (fg.grad(f)(x) * t).sum())(a)
    np.testing.assert_allclose(again, product, rtol=1e-9, atol=1e-10 * max(1.0, np.abs(product).max(initial=0)))


@examples(150)
@given(st.lists(array_step.filter(lambda s: s[0] != "cast"), min_size=1, max_size=8), shapes, st.integers(0, 2**32 - 1))
def test_float32_programs_stay_float32_and_near(steps, shape, seed):
    a = np.random.default_rng(seed).uniform(-1, 1, shape)
    f = lambda x: run_array(steps, [x])  # noqa: E731
    value, gradient = fg.value_and_grad(f)(a)
    assume(abs(value) < 1e2 and np.abs(gradient).max(initial=0) < 1e2)
    narrow, found = fg.value_and_grad(f)(a.astype(np.float32))
    assert narrow.dtype == found.dtype == np.float32
    np.testing.assert_allclose(found, gradient, rtol=1e-2, atol=1e-2)


@examples(200)
@given(st.lists(array_step, min_size=1, max_size=8), shapes, st.integers(0, 3), st.booleans(), st.integers(0, 2**32 - 1))
def test_vmap_of_a_program_and_of_its_derivatives_is_a_loop(steps, shape, n, shared, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(-1, 1, (n,) + shape), rng.uniform(-1, 1, shape if shared else (n,) + shape)
    f = lambda x, y: run_array(steps, [x, y])  # noqa: E731
    axes = (0, None if shared else 0)
    pairs = [(a[i], b if shared else b[i]) for i in range(n)]

    def product(x, y):
        return fg.jvp(lambda x: fg.grad(f)(x, y), (x,), (x,))[1]

    for function, tolerance in ((f, 1e-13), (fg.grad(f, 1), 1e-11), (product, 1e-9)):
        wanted = [function(fg.tensor(x), fg.tensor(y)).detach().numpy() for x, y in pairs]
        assume(all(np.abs(w).max(initial=0) < 1e4 for w in wanted))
        found = fg.vmap(function, axes)(a, b)
        assert len(found) == n and found.dtype == np.float64
        for x, w in zip(found, wanted):
            np.testing.assert_allclose(x, w, rtol=tolerance, atol=tolerance * max(1.0, np.abs(w).max(initial=0)))
    if n:
        whole = fg.grad(lambda y: fg.vmap(f, (0, None))(a, y).sum())(pairs[0][1])
        wanted = sum(fg.grad(f, 1)(fg.tensor(x), pairs[0][1]) for x in a)
        assume(np.abs(wanted).max(initial=0) < 1e4)
        np.testing.assert_allclose(whole, wanted, rtol=1e-9, atol=1e-9 * max(1.0, np.abs(wanted).max(initial=0)))


# Histories

SIZE = 3


class Twin:
    """What a Tensor of SIZE elements should be: reference numbers of its own."""

    def __init__(self, numbers):
        self.numbers = list(numbers)


class Histories(RuleBasedStateMachine):
    """Tensors in use, each beside its twin; leaves keep the gradient they should have."""

    live = Bundle("live")

    @initialize(target=live, values=st.lists(number, min_size=SIZE, max_size=SIZE))
    def begin(self, values):
        self.nodes = engine.tape_statistics()["nodes"]
        self.tape = ref.Tape()
        self.leaves, self.pairs, self.let_go = [], [], False
        return self.leaf(values)

    def pair(self, tensor, numbers):
        np.testing.assert_allclose(tensor.detach().numpy(), [ref.value_of(n) for n in numbers], rtol=1e-9, atol=1e-9)
        self.pairs.append([tensor, Twin(numbers)])
        return self.pairs[-1]

    @rule(target=live, values=st.lists(number, min_size=SIZE, max_size=SIZE))
    def leaf(self, values):
        tensor = fg.tensor(values, requires_grad=True)
        numbers = [self.tape.variable(v) for v in values]
        self.leaves.append((tensor, numbers, np.zeros(SIZE)))
        return self.pair(tensor, numbers)

    @rule(target=live, values=st.lists(number, min_size=SIZE, max_size=SIZE))
    def constant(self, values):
        return self.pair(fg.tensor(values), values)

    @rule(target=live, a=live, b=live, op=st.sampled_from(["+", "-", "*"]))
    def binary(self, a, b, op):
        f = BINARY[op]
        return self.pair(fnp.tanh(f(a[0], b[0])), [ref.tanh(f(p, q)) for p, q in zip(a[1].numbers, b[1].numbers)])

    @rule(target=live, a=live, op=st.sampled_from(["sin", "tanh", "sigmoid", "relu"]))
    def unary(self, a, op):
        return self.pair(getattr(fnp, op)(a[0]), [getattr(ref, op)(p) for p in a[1].numbers])

    @rule(target=live, a=live, index=st.sampled_from([slice(None, None, -1), [1, 1, 0], [2, 0, 1], slice(None)]))
    def view(self, a, index):
        order = np.arange(SIZE)[index]
        return self.pair(a[0][index], [a[1].numbers[k] for k in order])

    @rule(target=live, a=live, b=live)
    def join(self, a, b):
        return self.pair(fnp.concatenate([a[0][:1], b[0][1:]]), a[1].numbers[:1] + b[1].numbers[1:])

    @rule(a=live, b=live, k=st.integers(0, SIZE - 1), j=st.integers(0, SIZE - 1))
    def assign_element(self, a, b, k, j):
        if a[0].is_leaf and a[0].requires_grad:
            with pytest.raises(RuntimeError, match="leaf"):
                a[0][k] = b[0][j]
            return
        a[0][k] = b[0][j]
        a[1].numbers[k] = b[1].numbers[j]

    @rule(a=live, b=live, factor=st.sampled_from([0.5, -1.0]))
    def change_in_place(self, a, b, factor):
        if a[0].is_leaf and a[0].requires_grad:
            return
        tensor = a[0]
        tensor *= factor
        tensor += b[0]
        # b may be a itself, and is changed by then.
        halved = [p * factor for p in a[1].numbers]
        a[1].numbers = [p + q for p, q in zip(halved, halved if b is a else b[1].numbers)]

    @rule(target=live, a=live)
    def detach(self, a):
        return self.pair(a[0].detach(), [ref.value_of(n) for n in a[1].numbers])

    @rule(a=live)
    def nobody_writes_a_recorded_value(self, a):
        if a[0].requires_grad:
            assert not a[0].numpy().flags.writeable

    @rule(a=consumes(live))
    def drop(self, a):
        a.clear()

    @rule(a=live)
    def compute_and_forget(self, a):
        y = fnp.exp(a[0] * 0.1).sum() * a[0]
        del y

    @rule(a=live, weights=st.lists(number, min_size=SIZE, max_size=SIZE), how=st.sampled_from(["retain", "create", "let go"]))
    def sweep(self, a, weights, how):
        """Right, or an error that changes nothing once a graph has been let go: never stale."""
        if not a[0].requires_grad:
            with pytest.raises(RuntimeError, match="nothing was recorded"):
                a[0].backward(weights)
            return
        try:
            a[0].backward(np.array(weights), retain_graph=how == "retain", create_graph=how == "create")
        except RuntimeError as error:
            assert self.let_go and "swept before" in str(error)
            return
        self.let_go |= how == "let go"
        for tensor, _, _ in self.leaves:
            if how == "create" and tensor.grad is not None:
                tensor.grad = tensor.grad.detach()      # or every gradient would keep its graph
        total = 0.0
        for n, w in zip(a[1].numbers, weights):
            total = total + n * w
        for _, numbers, gradient in self.leaves:
            gradient += ref.gradient(total, numbers)

    @rule(a=live)
    def sweep_twice(self, a):
        if a[0].requires_grad:
            y = (a[0] * 0.0).detach() + 1.0
            leaf = fg.tensor(y, requires_grad=True)
            z = (leaf * leaf * a[0].detach()).sum()
            z.backward()
            np.testing.assert_allclose(leaf.grad.numpy(), 2 * a[0].detach().numpy())
            with pytest.raises(RuntimeError, match="swept before"):
                z.backward()

    @rule()
    def churn(self):
        x = fg.tensor(1.0, requires_grad=True)
        for _ in range(1500):
            x * 2.0

    @precondition(lambda self: hasattr(self, "leaves"))
    @invariant()
    def every_leaf_has_the_gradient_it_should_have(self):
        for tensor, _, gradient in self.leaves:
            found = np.zeros(SIZE) if tensor.grad is None else tensor.grad.numpy()
            np.testing.assert_allclose(found, gradient, rtol=1e-8, atol=1e-8)

    def teardown(self):
        if not hasattr(self, "leaves"):
            return
        self.leaves.clear()
        for pair in self.pairs:
            pair.clear()
        if engine.tape_statistics()["nodes"] > self.nodes:
            gc.collect()
        assert engine.tape_statistics()["nodes"] <= self.nodes
        assert engine.recording_now()


TestHistories = Histories.TestCase
TestHistories.settings = settings(PROFILE, max_examples=40, stateful_step_count=25)
