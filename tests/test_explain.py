"""fg.explain: its numbers, its formulas, its formats, and the command."""

import html.parser
import io
import math
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import nn
from fastgrad._core import engine, ops
from fastgrad.learn import Graph, formulas
from fastgrad.learn.explain import longest_path, norm_of
from fastgrad.learn.explain_command import main
from fastgrad.learn.formulas import expression, formula, number

ROWS = {row.name: row for row in ops.OPS}


def stepped(f, *args):
    """The graph of f, its output called out."""
    graph = Graph.run(f, *args)
    graph.name_output("out")
    return graph


def table(told, heading):
    """The rows of a table of an explanation, each a dict by column."""
    parts = told._said
    at = next(k for k, part in enumerate(parts) if part[0] == "heading" and part[1].startswith(heading))
    found = next(part for part in parts[at:] if part[0] == "table")
    return [dict(zip(found[1], row)) for row in found[2]]


def trailing_number(text):
    """The number that a local derivative ends with: ``x = 3``, ``-1``."""
    return float(text.rpartition("=")[2] if "=" in text else text)


# ------------------------------------------------------------------------------------------------------------- formulas

NAMESPACE = {name: getattr(np, name) for name in (
    "exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "sqrt", "hypot", "sign", "trunc", "floor", "pi", "inf", "nan", "outer",
    "copysign", "clip", "sum", "reshape", "transpose")}
NAMESPACE.update(
    abs=np.abs, __builtins__={},
    sigmoid=lambda x: float(fnp.sigmoid(float(x))), erfc=lambda x: float(fnp.erfc(float(x))),
    digamma=lambda x: float(fnp.digamma(float(x))), polygamma=lambda n, x: float(fnp.polygamma(float(n), float(x))),
    exp2=np.exp2, expm1=np.expm1,
    softmax=lambda x: np.exp(x - x.max(-1, keepdims=True)) / np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True),
    onehot=lambda labels: np.eye(3)[labels])


def value_of(text, values):
    with np.errstate(all="ignore"):
        return eval(text, dict(NAMESPACE), {name: np.float64(v) if np.ndim(v) == 0 else v for name, v in values.items()})


DIFFERENTIABLE = [row for row in ops.OPS if row.differentiable and row.name != "guarded_multiply"]


def sample_points(row, count=7):
    rng = np.random.default_rng(len(row.name))
    points = [tuple(float(rng.uniform(low, high)) for low, high in row.domain) for _ in range(count)]
    if row.kind == "kink":
        special = [p if isinstance(p, tuple) else (p,) for p in row.special]
        points += [p + tuple(sum(d) / 2 for d in row.domain[len(p):]) for p in special]
    return points


def run_row(row, point):
    """The graph of one operation, all of its operands being x, y, z."""
    function = getattr(fnp, row.name)
    arguments = [point[0] != 0.5, *point[1:]] if row.name == "where" else point
    names = ("x", "y", "z")[:row.arity]
    leaves = [fg.tensor(v, requires_grad=True) if isinstance(v, float) else v for v in arguments]
    with fg.Tape(lines=True):
        out = function(*leaves)
    if not out.requires_grad:
        return None
    graph = Graph.of(out, [(n, t) for n, t in zip(names, leaves) if isinstance(t, fg.Tensor)])
    graph.name_output("out")
    return graph


@pytest.mark.parametrize("row", DIFFERENTIABLE, ids=lambda row: row.name)
def test_the_formula_of_a_row_is_its_partial(row):
    compared = 0
    for point in sample_points(row):
        graph = run_row(row, point)
        step = graph.output
        assert step.operation == row.name
        values = {s.label: s.value for s in graph.steps}
        for j, partial in enumerate(row.partials):
            if partial is None:
                continue
            expected = float(step.local(j))
            told = value_of(formula(step, j), values)
            if np.isfinite(expected) and np.isfinite(told):
                tolerance = 1e-4 if row.name == "selu" else 1e-10       # whose constants are rounded
                assert told == pytest.approx(expected, rel=tolerance, abs=1e-12), (formula(step, j), point)
                compared += 1
    assert compared >= 4


@pytest.mark.parametrize("row", DIFFERENTIABLE, ids=lambda row: row.name)
def test_the_formula_of_a_row_is_the_slope_of_its_expression(row):
    """By central differences of the value, which know nothing of the table's partials."""
    function = getattr(fnp, row.name)
    for point in sample_points(row, 3)[:3]:
        graph = run_row(row, point)
        values = {s.label: s.value for s in graph.steps}
        for j, partial in enumerate(row.partials):
            if partial is None or row.name in ("where", "heaviside", "polygamma"):
                continue
            h = 1e-6

            def moved(by):
                given = list(point)
                given[j] += by
                return float(function(*given))

            slope = (moved(h) - moved(-h)) / (2 * h)
            assert value_of(formula(graph.output, j), values) == pytest.approx(slope, rel=2e-4, abs=1e-6)


@pytest.mark.parametrize("row", [row for row in ops.OPS], ids=lambda row: row.name)
def test_every_row_has_an_expression_in_signs_or_as_a_call(row):
    assert row.name not in formulas.STRUCTURED
    text = formulas.SIGNED.get(row.name)
    if text:        # the sign is the table's
        point = {name: np.float64(value) for name, value in zip("xyz", (1.7, 0.6, 0.2))}
        ours = value_of(text, point)
        theirs = getattr(fnp, row.name)(*[float(v) for v in point.values()][:row.arity])
        assert float(ours) == pytest.approx(float(theirs), rel=1e-12)


@pytest.mark.parametrize("name", [n for n in engine.STRUCTURED_NAMES if n not in ("leaf", "input", "constant", "rule")])
def test_every_structured_operation_has_a_text(name):
    assert name in formulas.STRUCTURED


def test_every_rule_has_a_text():
    import fastgrad.numpy.indexing
    import fastgrad.numpy.joining
    rules = {thing.name for module in vars(fnp).values() if hasattr(module, "__name__") and not callable(module)
             for thing in vars(module).values() if isinstance(thing, engine.Rule)}
    assert {"getitem", "scatter_add", "setitem", "concatenate"} <= rules
    assert rules <= set(formulas.STRUCTURED)


def test_a_rule_without_a_text_is_named():
    double = engine.Rule("doubled", lambda x: 2 * x, lambda g, out, x: 2.0 * g)
    step = stepped(lambda x: double(x), 3.0).output
    assert expression(step) == "doubled(x)"
    assert formula(step, 0) == "by the rule of doubled"
    assert "doubled" in formula(step, 0, latex=True)


A, B, V, W = np.arange(6.0).reshape(2, 3) + 1, np.ones((3, 2)) * 0.5, np.array([1.0, -2.0, 0.5]), np.array([0.3, 0.7])
T = np.linspace(-1, 1, 24).reshape(2, 3, 4)

TEXTS = [
    (lambda x, y: x @ y, (A, B), "x @ y", ["G @ y.T", "x.T @ G"]),
    (lambda x, y: x @ y, (A, V), "x @ y", ["outer(G, y)", "x.T @ G"]),
    (lambda x, y: x @ y, (W, A), "x @ y", ["y @ G", "outer(x, G)"]),
    (lambda x, y: x @ y, (V, V + 1), "x @ y", ["G * y", "G * x"]),
    (lambda x, y: x @ y, (T, np.ones((4, 2))), "x @ y",
     ["G @ y.T, matrix by matrix", "x.T @ G, matrix by matrix, summed over the batch"]),
    (lambda x: np.sum(x), (A,), "sum(x)", ["1, to every element"]),
    (lambda x: np.sum(x, 0), (A,), "sum(x, axis=0)", ["1, to every element along axis 0"]),
    (lambda x: np.sum(x, 0, keepdims=True), (A,), "sum(x, axis=0, keepdims=True)", ["1, to every element along axis 0"]),
    (lambda x: np.mean(x), (A,), "mean(x)", ["1 / 6, to every element"]),
    (lambda x: np.mean(x, 1), (A,), "mean(x, axis=1)", ["1 / 3, to every element along axis 1"]),
    (lambda x: np.max(x), (A,), "max(x)", ["1 if x == out else 0, ties share it"]),
    (lambda x: np.min(x, 0), (A,), "min(x, axis=0)", ["1 if x == out else 0, ties share it"]),
    (lambda x: x.reshape(3, 2), (A,), "reshape(x, (3, 2))", ["reshape(G, (2, 3))"]),
    (lambda x: x.T, (A,), "x.T", ["G.T"]),
    (lambda x: np.transpose(x, (1, 2, 0)), (T,), "transpose(x, (1, 2, 0))", ["transpose(G, (2, 0, 1))"]),
    (lambda x: np.broadcast_to(x, (2, 3)), (V,), "broadcast_to(x, (2, 3))", ["G, summed over axis 0"]),
    (lambda x: x[1], (A,), "x[1]", ["G, put at [1], 0 elsewhere"]),
    (lambda x: x[:, 1:], (A,), "x[:, 1:]", ["G, put at [:, 1:], 0 elsewhere"]),
    (lambda x: x[::-1, 0], (A,), "x[1::-1, 0]", ["G, put at [1::-1, 0], 0 elsewhere"]),
    (lambda x: x[[0, 0, 2]], (V,), "x[[0, 0, 2]]", ["G, put at [[0, 0, 2]], 0 elsewhere"]),
    (lambda x: x.astype(np.float32), (V,), "astype(x, float32)", ["1, in the dtype before"]),
    (lambda x: fnp.logsumexp(x), (V,), "logsumexp(x)", ["softmax(x)"]),
    (lambda x: fnp.softmax(x), (V,), "softmax(x)", ["out * (G - sum(out * G))"]),
    (lambda x: fnp.log_softmax(x), (V,), "log_softmax(x)", ["G - exp(out) * sum(G)"]),
    (lambda x: engine.softmax_cross_entropy(x, 2), (V,), "softmax_cross_entropy(x, 2)", ["softmax(x) - onehot(2)"]),
    (lambda x, y: np.concatenate([x, y]), (V, W), "concatenate([x, y])", ["G[0:3]", "G[3:5]"]),
    (lambda x, y: np.concatenate([x, y], axis=1), (A, A + 1), "concatenate([x, y], axis=1)", ["G[:, 0:3]", "G[:, 3:6]"]),
    (lambda x, y: x + y, (A, V), "x + y", ["1", "1, summed over axis 0"]),
    (lambda x, y: x * y, (A, 2.0), "x * y", ["y", "x, summed over all elements"]),
    (lambda x: x ** 2.0, (3.0,), "x**2", ["2 * x"]),
    (lambda x: x ** 3.0, (3.0,), "x**3", ["3 * x**2"]),
    (lambda x: x - 1.5, (3.0,), "x - 1.5", ["1"]),
    (lambda x: x * -2.0, (3.0,), "x * -2", ["-2"]),
    (lambda x: (-x) ** 3.0, (3.0,), "v1**3", ["3 * v1**2"]),
    (lambda x: fnp.relu(x), (3.0,), "relu(x)", ["1 if x > 0 else 0"]),
    (lambda x: np.tanh(x), (3.0,), "tanh(x)", ["(1 - out) * (1 + out)"]),
    (lambda x: np.log(x), (3.0,), "log(x)", ["1 / x"]),
    (lambda x: fnp.leaky_relu(x), (3.0,), "leaky_relu(x, 0.01)", ["1 if x > 0 else 0.01"]),
]


@pytest.mark.parametrize("f, args, text, slopes", TEXTS, ids=[t[2] for t in TEXTS])
def test_texts(f, args, text, slopes):
    graph = stepped(f, *args)
    assert expression(graph.output) == text
    assert [formula(graph.output, j) for j in range(len(slopes))] == slopes


IN_G = [t for t in TEXTS if any("G" in s for s in t[3]) and not any(re.search(r"[a-z] [a-z]|, put", s) for s in t[3])]


@pytest.mark.parametrize("f, args, text, slopes", IN_G, ids=[t[2] for t in IN_G])
def test_a_formula_in_the_incoming_gradient_is_the_contribution(f, args, text, slopes):
    graph = stepped(f, *args)
    rng = np.random.default_rng(1)
    incoming = rng.normal(size=graph.output.shape)
    values = {**{s.label: s.value for s in graph.steps}, "G": incoming}
    for j, operand, sent in graph.output.pull(incoming):
        np.testing.assert_allclose(value_of(formula(graph.output, j), values), sent, rtol=1e-12)


@pytest.mark.parametrize("f", [lambda x: engine.softmax_cross_entropy(x, np.array([2])), lambda x: fnp.logsumexp(x, 1)])
def test_a_formula_of_rows_is_the_contribution(f):
    graph = stepped(f, np.array([[0.3, -1.0, 0.5]]))
    values = {s.label: s.value for s in graph.steps}
    step = next(s for s in graph.steps if s.operation in ("softmax_cross_entropy", "logsumexp"))
    told = value_of(formula(step, 0).partition(", along")[0], values)
    np.testing.assert_allclose(np.ravel(told), np.ravel(step.operands[0].contributions[0].value), rtol=1e-12)


def test_parentheses_of_names_and_signs():
    graph = Graph.run(lambda x: fg.mark(x + 1.0, "a b") * 2.0, 1.0)
    assert expression(graph.output) == "(a b) * 2"
    graph = Graph.run(lambda w: np.sin(w["a"]) * w["b"][0], {"a": 1.0, "b": [2.0]})
    assert "w['b'][0]" in expression(graph.output)
    assert graph.steps[1].place is not None


@pytest.mark.parametrize("index", [0, -1, (1, 2), (slice(None), 2), (slice(None, None, 2),), (Ellipsis, 0), (None, 1), (1, None, slice(1, 2)),
                                   (slice(None, None, -1), 1), (2, slice(3, 0, -2)), (slice(0, 0),), slice(1, 2)])
def test_the_index_that_is_told_takes_the_same_elements(index):
    x = np.arange(60.0).reshape(3, 4, 5)
    step = next(s for s in Graph.run(lambda x: np.sum(x[index]), x).steps if s.operation == "getitem")
    told = step.parameters["index"]
    if 0 not in step.shape:
        assert np.array_equal(x[told].ravel(), x[index].ravel())


@pytest.mark.parametrize("value, digits, text", [
    (1 / 3, 5, "0.33333"), (-2.16e-5, 5, "-2.16e-5"), (1e6, 5, "1e6"), (123456.0, 5, "123456"), (1234567.0, 5, "1.2346e6"),
    (0.0, 5, "0"), (-0.0, 5, "0"), (math.inf, 5, "inf"), (math.nan, 3, "nan"), (True, 5, "True"), (7, 5, "7"), (2.5, 1, "2"),
    (1e-300, 4, "1e-300"), (99999.6, 5, "1.0000e5"), (0.99999999, 5, "1.0000"), (0.1 + 0.2, 5, "0.3"), (2.00004, 5, "2.0000"),
    (0.1, 17, "0.10000000000000001"), (np.float32(0.1), 5, "0.1"), (-12.0, 2, "-12")])
def test_numbers(value, digits, text):
    assert number(value, digits) == text
    if text not in ("inf", "nan", "True"):
        assert float(text) == pytest.approx(float(value), rel=0.5 * 10 ** (1 - digits) * 1.01)


# ---------------------------------------------------------------------------------------------------- numbers in the text


def product(x, y, z):
    s = x + y
    return s * z


def test_the_first_example():
    told = fg.explain(product, -2.0, 5.0, -4.0)
    rows = {row["d product/d"]: row for row in table(told, "Backward")}
    assert [rows[n]["gradient"] for n in ("x", "y", "z", "s", "product")] == ["-4", "-4", "3", "-4", "1"]
    assert rows["z"]["local derivative"] == "s = 3" and rows["s"]["local derivative"] == "z = -4"
    forward = table(told, "Forward")
    assert [(r["name"], r["computed as"], r["value"]) for r in forward] == [
        ("x", "argument", "-2"), ("y", "argument", "5"), ("s", "x + y", "3"), ("z", "argument", "-4"), ("product", "s * z", "-12")]
    assert forward[2]["line"].endswith("s = x + y") and forward[2]["line"].startswith("test_explain.py:")
    assert "product = -12, from x, y, z in 2 operations" in str(told)


def messy(x, y):
    a = np.sin(x * y) + x ** 2.0
    b = np.exp(-a) / (1.0 + y)
    return b * a + np.log(x) * b


def test_each_contribution_is_incoming_times_local_and_the_gradient_their_sum():
    told = fg.explain(messy, 0.7, 1.3, digits=15)
    gradient, total, pending = {}, 0.0, None
    several = 0
    for row in table(told, "Backward"):
        label = row["d messy/d"]
        if label:
            if pending is not None:
                assert total == pytest.approx(gradient[pending], rel=1e-12)
            pending, total = None, 0.0
            gradient[label] = float(row["gradient"])
            if row["local derivative"].startswith("the sum of"):
                pending = label
                several += 1
        if row["through"]:
            sent = float(row["gradient"].removeprefix("+ "))
            assert float(row["incoming"]) == pytest.approx(gradient[row["through"]], rel=1e-14)
            assert sent == pytest.approx(float(row["incoming"]) * trailing_number(row["local derivative"]), rel=1e-12)
            total += sent
    assert several >= 3

    def plain(x, y):
        a = math.sin(x * y) + x ** 2
        b = math.exp(-a) / (1 + y)
        return b * a + math.log(x) * b

    h = 1e-6
    assert gradient["x"] == pytest.approx((plain(0.7 + h, 1.3) - plain(0.7 - h, 1.3)) / (2 * h), rel=1e-7)
    assert gradient["y"] == pytest.approx((plain(0.7, 1.3 + h) - plain(0.7, 1.3 - h)) / (2 * h), rel=1e-7)
    values = {row["name"]: float(row["value"]) for row in table(told, "Forward")}
    assert values["messy"] == pytest.approx(plain(0.7, 1.3), rel=1e-13)
    assert values["a"] == pytest.approx(math.sin(0.91) + 0.49, rel=1e-13)


def net(W1, b1, W2, b2, x, y):
    z1 = W1 @ x + b1
    h = np.tanh(z1)
    p = W2 @ h + b2
    return np.mean((p - y) ** 2)


def net_arguments():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 2)), rng.normal(size=3), rng.normal(size=(1, 3)), rng.normal(size=1), rng.normal(size=2), np.array([0.5])


def test_a_network_by_hand():
    W1, b1, W2, b2, x, y = net_arguments()
    told = fg.explain(net, *net_arguments(), wrt=["W1", "b1", "W2", "b2"], digits=12)
    h = np.tanh(W1 @ x + b1)
    dp = 2 * (W2 @ h + b2 - y)
    dz = (W2.T @ dp) * (1 - h ** 2)
    expected = {"W2": np.outer(dp, h), "b2": dp, "b1": dz, "h": W2.T @ dp, "z1": dz}
    rows = {row["d net/d"]: row for row in table(told, "Backward")}
    short = fg.explain(net, *net_arguments(), wrt=["W1", "b1", "W2", "b2"], digits=4)
    brief = {row["d net/d"]: row for row in table(short, "Backward")}
    for name, value in expected.items():
        np.testing.assert_allclose(told.graph.named(name)[0].gradient, value, rtol=1e-12)
        shown = np.array(eval(brief[name]["gradient"]))
        np.testing.assert_allclose(shown, value, rtol=5.1e-4)
    norm = float(re.match(r"norm (\S+),", rows["W1"]["gradient"]).group(1))
    assert norm == pytest.approx(np.linalg.norm(np.outer(dz, x)), rel=1e-11)
    low, high = re.search(r", (\S+) to (\S+)$", rows["W1"]["gradient"]).groups()
    assert (float(low), float(high)) == pytest.approx((np.outer(dz, x).min(), np.outer(dz, x).max()), rel=1e-11)
    assert rows["W1"]["local derivative"] == "outer(G, x)"         # the name of an argument that is not differentiated
    assert "the gradient that comes in" in str(told)


def test_a_network_of_two_layers_fits_on_a_screen():
    lines = str(fg.explain(net, *net_arguments(), wrt=[0, 1, 2, 3])).splitlines()
    assert len(lines) <= 42
    assert max(map(len, lines)) <= 120


def test_modules_are_named_and_their_parameters():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, labels = np.random.default_rng(0).normal(size=(8, 4)), np.array([0, 1, 2, 0, 1, 2, 0, 1])

    def loss(x):
        return nn.cross_entropy(model(x), labels)

    told = fg.explain(loss, x)
    text = str(told)
    for part in ("model.0.weight", "model.2.bias", "in model.1\n", "softmax(v", "onehot(labels)", "summed over axis 0"):
        assert part in text
    logits = model(x).detach().numpy()
    slope = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[labels]) / 8
    bias = told.graph.named("model.2.bias")[0]
    np.testing.assert_allclose(bias.gradient, slope.sum(0), rtol=1e-10)
    assert "in model.0\n" in str(fg.explain(model, x))


def test_a_recorded_tensor_with_the_names_of_variables():
    x = fg.tensor(2.0, requires_grad=True)
    y = fg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    a = x * y + 3.0
    b = np.sin(a) * x
    total = b.sum()
    told = str(fg.explain(total))
    assert told.startswith("total = ") and "\n  a " in told and "sin(a)" in told and "cos(a)" in told
    assert "not kept" in told and "fg.Tape(lines=True)" in told
    assert "line" not in told.split("\n")[3]
    again = fg.explain(total, digits=12).graph
    value = 2 * np.array([1.0, 2, 3]) + 3
    np.testing.assert_allclose(again.named("x")[0].gradient, np.sum(np.sin(value) + 2 * np.cos(value) * np.array([1, 2, 3])), rtol=1e-12)
    kept = fg.explain(total)
    before = str(kept)
    total.backward()            # explaining took nothing away
    np.testing.assert_allclose(x.grad.item(), again.named("x")[0].gradient, rtol=1e-12)
    assert str(kept) == before and kept.latex()
    with pytest.raises(RuntimeError, match="swept"):
        kept.graph.output.pull(1.0)
    with pytest.raises(RuntimeError, match="swept"):
        kept.graph.named("b")[0].local(0)
    with pytest.raises(RuntimeError, match="swept"):
        fg.explain(total)


def test_a_gradient_can_be_explained_itself():
    def cubed(x):
        return np.sum(np.tanh(x) ** 3.0)

    told = fg.explain(lambda x: fg.grad(cubed)(x)[0] * 2.0, np.array([0.1, 0.2]), digits=10)
    assert "<string>" not in str(told) and "guarded" not in str(told)
    t = math.tanh(0.1)
    np.testing.assert_allclose(told.graph.named("x")[0].gradient, [2 * (6 * t * (1 - t * t) ** 2 - 6 * t ** 3 * (1 - t * t)), 0], rtol=1e-12)


def test_lines_of_a_tape():
    x = fg.tensor(2.0, requires_grad=True)
    with fg.Tape(lines=True):
        y = x * 3.0 + 1.0
    told = str(fg.explain(y))
    assert "y = x * 3.0 + 1.0" in told and "x * 3" in told and "not kept" not in told


def test_odd_values():
    told = str(fg.explain(lambda x: x * 2.0, np.zeros((0, 3))))
    assert "float64[0, 3], empty" in told
    told = str(fg.explain(lambda x: np.sqrt(x), np.array([0.0, np.nan, 1.0], np.float32)))
    assert "nan" in told and "inf" in told
    told = str(fg.explain(lambda x: np.sum(np.sqrt(x) * 1.0), np.linspace(-1, 1, 50).astype(np.float32)))
    assert "float32[50]" in told and "25 NaN" in told
    told = str(fg.explain(lambda x, k: np.sum(x[k] * k), np.ones(3), np.array([0, 2])))
    assert "x[[0, 2]]" in told
    told = str(fg.explain(lambda x: np.where(x > 0, np.sqrt(x), 0.0), 0.0))
    assert "exactly 0" in told
    told = str(fg.explain(lambda x: x * np.floor(x), 2.5))
    assert "floor(x)" in told
    told = str(fg.explain(lambda x: x * 2.0, np.ones((2, 2))))
    assert "begins with ones" in told and "of the sum" in told


def test_a_name_that_is_used_twice_and_a_variable_called_G():
    def f(G):
        for _ in range(3):
            G = np.sin(G)
        return G @ G

    told = str(fg.explain(f, np.ones(2)))
    assert "G#2" in told and "incoming is the gradient that comes in" in told


@pytest.mark.parametrize("arguments, options, error", [
    ((3.0,), {}, TypeError), ((fg.tensor(1.0),), {}, RuntimeError), ((lambda x: 3.0, 1.0), {}, TypeError),
    ((lambda x: x, 1.0), {}, ValueError), ((lambda x: x * 1.0, 1), {}, TypeError), ((lambda x: x * x, 1.0), {"format": "pdf"}, ValueError),
    ((lambda x: x * x, 1.0), {"digits": 0}, ValueError), ((lambda x: x * x, 1.0), {"depth": -1}, ValueError),
    ((lambda x: x > 0.0, 1.0), {}, ValueError), ((lambda x: x * x, 1.0), {"wrt": "q"}, ValueError)])
def test_what_cannot_be_explained_is_said_in_one_sentence(arguments, options, error):
    with pytest.raises(error) as caught:
        fg.explain(*arguments, **options)
    assert len(str(caught.value)) < 250


# ------------------------------------------------------------------------------------------------------- the longest path


def three_layers(w1, w2, w3, z1):
    a1 = w1 * z1
    z2 = 0.4 * a1 - 0.03
    a2 = w2 * z2
    z3 = 0.6 * a2
    a3 = w3 * z3
    z4 = 0.04 * a3
    return z4


def test_a_vanishing_gradient_is_shown_layer_by_layer():
    told = fg.explain(three_layers, 0.5, -0.03, 0.3, 0.25)
    rows = table(told, "Longest path")
    assert rows[-1]["from -> to"] == "a1 -> w1"
    running = 1.0
    for row in rows:
        running *= float(row["factor"])
        assert float(row["running product"]) == pytest.approx(running, rel=1e-4)
    assert running == pytest.approx(-2.16e-5, rel=1e-12)
    assert {0.04, 0.6, 0.4, 0.3, -0.03, 0.25} <= {float(row["factor"]) for row in rows}
    text = str(told)
    assert "-2.16e-5" in text
    assert re.search(r"The gradient vanishes: 2\.16e-5 of it arrives at w1; the smallest factor is d a2/d z2 = -0\.03 at "
                     r"test_explain\.py:\d+\.", text)


def test_the_smallest_factor_of_a_function_of_one_operand_is_its_slope():
    told = str(fg.explain(lambda w: np.tanh(np.tanh(4.0 * w) * 5.0) * 0.5, 1.0))
    slope = 1 - math.tanh(5 * math.tanh(4)) ** 2
    found = re.search(r"tanh'\((\w+)\) = (\S+) at", told)
    assert float(found.group(2)) == pytest.approx(slope, rel=1e-4)
    assert "vanishes" in told


def test_an_exploding_gradient():
    told = str(fg.explain(lambda w: ((w * 20.0) * 30.0) * 40.0, 1.0))
    assert "The gradient explodes: it arrives at w 24000 times as large; the largest factor is " in told
    assert "= 40" in told


def test_a_gradient_that_does_not_arrive_and_one_that_breaks():
    assert "No gradient arrives at x: the first factor that is 0 is relu'(v1)" in str(fg.explain(lambda x: fnp.relu(x * 2.0) * 3.0, -1.0))
    assert "becomes infinite: at sqrt'(x) = inf" in str(fg.explain(lambda x: np.sqrt(x), 0.0))
    assert "becomes NaN" in str(fg.explain(lambda x: np.sqrt(x) * 2.0, -1.0))


def test_a_shortcut_is_told_from_a_gradient_that_vanishes():
    def residual(x):
        for _ in range(8):
            x = x + 0.1 * np.tanh(0.01 * x)
        return x

    told = str(fg.explain(residual, 0.3))
    assert "Along this path the gradient vanishes" in told and "by shorter ones x still gets 1.00" in told


def test_the_path_of_arrays_is_in_norms():
    W1, b1, W2, b2, x, y = net_arguments()
    graph = Graph.run(net, *net_arguments(), wrt=[0, 1, 2, 3])
    hops = longest_path(graph)
    assert hops[-1].operand.name == "W1" and len(hops) == 8
    assert hops[-1].running == pytest.approx(np.linalg.norm(graph.named("W1")[0].gradient), rel=1e-12)


def test_norms_do_not_overflow():
    assert norm_of(np.array([3e200, 4e200])) == pytest.approx(5e200)
    assert norm_of(np.array([3e-200, 4e-200])) == pytest.approx(5e-200)
    assert norm_of(np.zeros(0)) == 0 and math.isnan(norm_of(np.array([1.0, np.nan])))


# ----------------------------------------------------------------------------------------------------------- order, depth


def test_the_order_has_a_reason_for_each_value():
    told = fg.explain(messy, 0.7, 1.3, order=True)
    seen = []
    rows = table(told, "Order")
    assert rows[0]["because"].startswith("the output")
    for row in rows:
        found = re.match(r"its consumers? (.*) (is|are) done", row["because"])
        if found:
            assert set(found.group(1).split(", ")) <= set(seen)
        seen.append(row["name"])
    assert len(rows) == sum(step.needs_gradient for step in told.graph.steps)
    assert "after all of its consumers" in str(told)
    assert "Order" not in str(fg.explain(messy, 0.7, 1.3))


class Block(nn.Module):
    def __init__(self, n):
        self.a, self.b = nn.Linear(n, n), nn.Linear(n, n)

    def forward(self, x):
        h = np.tanh(self.a(x))
        return x + self.b(h)


def test_large_graphs_are_collapsed_by_module():
    deep = nn.Sequential(*[Block(3) for _ in range(12)])
    told = fg.explain(lambda x: np.sum(deep(x)), np.ones((2, 3)))
    rows = table(told, "Forward and backward, collapsed")
    assert len(rows) == 13
    assert [row["part"] for row in rows[:2]] == ["deep.0 (Block)", "deep.1 (Block)"]
    assert sum(int(row["steps"]) for row in rows) == sum(not s.is_source for s in told.graph.steps)
    for before, after in zip(rows, rows[1:]):       # what goes out at one part comes in at the one before, but for parameters
        assert before["to"] in after["from"]
    first = told.graph.named(rows[0]["to"])[0]
    assert float(rows[0]["gradient in"]) == pytest.approx(norm_of(first.gradient), rel=1e-4)
    leaves = table(told, "Arguments")
    assert leaves[0]["name"].startswith("deep.0") or leaves[0]["name"] == "x"
    assert len(table(fg.explain(lambda x: np.sum(deep(x)), np.ones((2, 3)), depth=0), "Forward and backward")) == 1
    assert len(table(fg.explain(lambda x: np.sum(deep(x)), np.ones((2, 3)), depth=1), "Forward and backward")) == 2
    everything = fg.explain(lambda x: np.sum(deep(x)), np.ones((2, 3)), depth=99)
    assert len(table(everything, "Forward")) == len(everything.graph.steps)


def test_a_small_graph_can_be_collapsed_by_lines():
    rows = table(fg.explain(net, *net_arguments(), wrt=[0, 1, 2, 3], depth=1), "Forward and backward")
    assert [row["part"].split("  ")[1] for row in rows[:3]] == ["z1 = W1 @ x + b1", "h = np.tanh(z1)", "p = W2 @ h + b2"]
    assert "return np.mean(" in rows[3]["part"]
    assert [row["steps"] for row in rows] == ["2", "1", "2", "3"]


def test_a_loop_is_collapsed_into_its_lines():
    def rnn(W, h):
        for _ in range(100):
            h = np.tanh(W @ h)
        return np.sum(h)

    rows = table(fg.explain(rnn, np.eye(2), np.ones(2)), "Forward and backward")
    assert [row["steps"] for row in rows] == ["200", "1"]


def test_many_steps_without_lines_take_little_time_and_few_rows():
    x = fg.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(10_000):
        y = np.sin(y) * 1.01
    begin = time.perf_counter()
    told = fg.explain(y)
    text = str(told)
    assert time.perf_counter() - begin < 20
    assert len(text.splitlines()) < 100
    rows = table(told, "Forward and backward")
    assert len(rows) <= 30 and sum(int(row["steps"]) for row in rows) == 20_000
    assert told.graph.named("x")[0].gradient == pytest.approx(fg.grad(lambda x: chain(x))(1.0), rel=1e-12)


def chain(x):
    for _ in range(10_000):
        x = np.sin(x) * 1.01
    return x


def test_too_many_steps_are_refused_in_a_sentence(monkeypatch):
    import fastgrad.learn.graph
    monkeypatch.setattr(fastgrad.learn.graph, "MOST_STEPS", 100)
    with pytest.raises(ValueError, match="this graph has 20.. steps"):
        fg.explain(lambda x: sum((np.sin(x) * 1.1 for _ in range(500)), x * 1.0), 1.0)


# --------------------------------------------------------------------------------------------------------------- formats

EXPLAINED = [
    lambda **o: fg.explain(product, -2.0, 5.0, -4.0, **o),
    lambda **o: fg.explain(messy, 0.7, 1.3, order=True, **o),
    lambda **o: fg.explain(net, *net_arguments(), **o),
    lambda **o: fg.explain(three_layers, 0.5, -0.03, 0.3, 0.25, **o),
    lambda **o: fg.explain(lambda w: fnp.relu(w["a<b"]) * w["c_1"], {"a<b": 1.0, "c_1": 2.0}, **o),
    lambda **o: fg.explain(net, *net_arguments(), depth=1, **o),
    lambda **o: fg.explain(lambda x: fnp.softmax(x).T @ np.concatenate([x, x])[:3] + fnp.logsumexp(x), np.ones(3), **o),
]


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.rows, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("told", EXPLAINED)
def test_html_is_well_formed(told):
    text = str(told(format="html"))
    tags = Tags()
    tags.feed(text)
    assert not tags.open and tags.rows
    xml.etree.ElementTree.fromstring(text)
    assert text == told()._repr_html_()
    for part in told()._said:
        if part[0] == "table":
            for row in part[2]:
                for cell in row:
                    assert not cell or cell in tags.text


@pytest.mark.parametrize("told", EXPLAINED)
def test_markdown_tables_have_as_many_cells_in_each_row(told):
    text = str(told(format="markdown"))
    assert text == told()._repr_markdown_()
    columns, tables = None, 0
    for line in text.splitlines():
        if not line.startswith("|"):
            columns = None
            continue
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1
        if columns is None:
            columns, tables = cells, tables + 1
        assert cells == columns
    assert tables >= 2


@pytest.mark.parametrize("told", EXPLAINED)
def test_latex_is_balanced(told):
    text = str(told(format="latex"))
    bare = re.sub(r"\\[{}]", "", text)
    depth = 0
    for sign in bare:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    assert len(re.findall(r"\\left(?![a-z])", text)) == len(re.findall(r"\\right(?![a-z])", text))
    opened = []
    for word, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if word == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    assert not re.search(r"(?<!\\)[#%$]", text)
    for block in re.findall(r"\\begin\{align\*\}(.*?)\\end\{align\*\}", text, re.S):
        for line in block.strip().split(" \\\\\n"):
            assert len(re.findall(r"(?<!\\)&=", line)) == 1


def test_latex_says_the_chain_rule():
    text = str(fg.explain(product, -2.0, 5.0, -4.0, format="latex"))
    assert r"\frac{\partial \mathrm{product}}{\partial z} &= \frac{\partial \mathrm{product}}{\partial \mathrm{product}} \cdot s = 3" in text
    text = str(fg.explain(lambda x: x ** 3.0 / np.sqrt(x), 4.0, format="latex"))
    assert r"3 \cdot x^{2}" in text and r"\frac{v_{1}}{v_{2}}" in text and r"\sqrt{x}" in text


def test_latex_of_cases_and_signs():
    relu = stepped(lambda x: fnp.relu(x), 1.0).output
    assert formula(relu, 0, latex=True) == r"\begin{cases}1 & x > 0 \\ 0 & \text{else}\end{cases}"
    tanh = stepped(lambda x: np.tanh(x), 1.0).output
    assert formula(tanh, 0, latex=True) == r"\left(1 - \mathrm{out}\right) \cdot \left(1 + \mathrm{out}\right)"
    matmul = stepped(lambda W1, x: W1 @ x, np.eye(2), np.ones(2)).output
    assert formula(matmul, 1, latex=True) == r"W_{1}^\top\, G"


def test_text_lines_up():
    lines = str(fg.explain(messy, 0.7, 1.3)).splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("Forward")) + 1
    end = lines.index("", start)
    column = lines[start].index("computed as")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines[start:end])
    assert not any(line != line.rstrip() for line in lines)


# ------------------------------------------------------------------------------------------------------------- the command


def command(*arguments):
    out, error, before = io.StringIO(), io.StringIO(), sys.stderr
    sys.stderr = error
    try:
        code = main(list(arguments), out)
    finally:
        sys.stderr = before
    return code, out.getvalue(), error.getvalue()


def test_the_command_as_it_is_run():
    def run(*arguments):
        return subprocess.run([sys.executable, "-m", "fastgrad", *arguments], capture_output=True, text=True, timeout=60,
                              cwd=tempfile.gettempdir())

    done = run("explain", "(x + y) * z", "x=-2", "y=5", "z=-4")
    assert done.returncode == 0 and not done.stderr
    assert "out = -12, from x, y, z in 2 operations" in done.stdout and "x + y" in done.stdout and ".py" not in done.stdout
    done = run("explain", "x +", "x=1")
    assert done.returncode == 2 and not done.stdout and len(done.stderr.splitlines()) == 1
    done = run("--help")
    assert done.returncode == 0 and "python -m fastgrad explain" in done.stdout and "python -m fastgrad check" in done.stdout
    done = run("explain", "--help")
    assert done.returncode == 0 and "--order" in done.stdout


def test_the_command_with_arrays_and_options():
    code, out, error = command("sum(tanh(W @ x)**2)", "W=[[1,2],[3,4]]", "x=[0.1, -0.2]", "--order", "--digits", "8")
    assert code == 0 and not error and "Order" in out
    W, x = np.array([[1.0, 2], [3, 4]]), np.array([0.1, -0.2])
    h = np.tanh(W @ x)
    expected = W.T @ (2 * h * (1 - h ** 2))
    shown = re.search(r"^  x +(\[.*?\]) +v1 ", out.partition("Backward")[2], re.M).group(1)
    np.testing.assert_allclose(eval(shown), expected, rtol=1e-7)
    assert command("-x * y", "x=2", "y=3")[0] == 0
    assert r"\begin{align*}" in command("x*y", "x=2", "y=3", "--format", "latex")[1]
    assert "everything" in command("x*y", "x=2", "y=3", "--depth", "0")[1]
    assert "inf" in command("log(x)", "x=0")[1]
    assert command("σ(w·x)", "w=2", "x=1")[0] == 0
    assert "given" not in command("out*2", "out=3")[1]


@pytest.mark.parametrize("arguments, words", [
    (("x + q", "x=2"), "q is not a name"), (("x +", "x=2"), "not a formula"), (("x", "x=2"), "nothing to explain"),
    (("x*2", "x=2", "y=3"), "does not use y"), (("2*2",), "no variable"), (("x*2", "x=foo"), "neither a number"),
    (("x*2", "x=[1,[2]]"), "different lengths"), (("x*2", "x"), "name=value"), (("x*2", "=3"), "name=value"),
    (("W @ x", "W=[[1,2]]", "x=[1,2,3]"), "do not fit"), (("x > 0", "x=1"), "does not depend"), (("[x, x]", "x=1"), "is a list"),
    (("__import__('os')", "x=1"), "no function"), (("x*x", "x={1:2}"), "neither a number"), (("x*x", "x=True"), "neither a number"),
    (("x*x", "x=2", "--format", "pdf"), "invalid choice"), ((), "required"), (("x*x", "x=2", "--bogus"), "unrecognized"),
    (("x*x", "x=1", "x=2"), "twice"), (("x*x", "sin=1"), "cannot be the name"), (("x*x", "x=2", "--depth", "-1"), "whole number"),
    (("x*x", "x=2", "--digits", "99"), "1 to 17"), (("x.real", "x=2"), "nothing like"), (("exec(x)", "x=2"), "no function"),
    (("x*x", "x=" + "[" * 500), "neither a number"), (("x" * 20_000, "x=1"), "characters")])
def test_bad_input_gets_one_line_and_exit_code_2(arguments, words):
    code, out, error = command(*arguments)
    assert code == 2 and not out
    assert len(error.splitlines()) == 1 and words in error


def test_commands_are_dispatched(monkeypatch):
    import types

    from fastgrad.__main__ import main as run
    seen = []
    monkeypatch.setitem(sys.modules, "fastgrad.learn.check_command", types.SimpleNamespace(main=lambda argv: seen.append(argv) or 7))
    assert run(["check", "x*x", "2*x"]) == 7 and seen == [["x*x", "2*x"]]
    monkeypatch.setattr("fastgrad.learn.explain_command.main", lambda argv: seen.append(argv) or 3)
    assert run(["explain", "x"]) == 3 and seen[-1] == ["x"]
    monkeypatch.setattr("fastgrad.demo.main", lambda argv: seen.append(argv) or 5)
    assert run(["--seconds", "1"]) == 5 and seen[-1] == ["--seconds", "1"]


def test_parameters_in_lists_and_dicts_are_named_after_them():
    parameters = {"w": fg.tensor(2.0, requires_grad=True), "b": [fg.tensor(1.0, requires_grad=True)]}

    def f(x):
        return parameters["w"] * x + parameters["b"][0]

    told = str(fg.explain(f, 3.0))
    assert "parameters['w'] * x" in told and "parameters['b'][0]" in told


def test_equal_arrays_do_not_lend_their_names():
    a = b = np.array([1.0, 2.0])
    told = str(fg.explain(lambda x, p, q: np.sum(x * p * q), np.ones(2), a.copy(), b.copy(), wrt="x"))
    assert "c1" in told and "c2" in told
