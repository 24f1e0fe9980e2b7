"""fg.draw: what is in a picture, how it is written down, and that large graphs are put together."""

import importlib.util
import shutil
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import nn

draw_module = importlib.import_module("fastgrad.learn.draw")        # fg.learn.draw is the function
graphviz = pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
ODD = ['a"b', "a\\Nb", "<b>&amp;", "two\nlines", "λ∂é", "`#;|{}[]", "\\", "-->", "%%", "\x00\x1b", '"];', "end", "x" * 200, "", " "]


def product_of_sum(x, y, z):
    q = x + y
    return q * z


def diamond(x):
    a = x * x
    b = np.sin(x)
    return a + b


class Net(nn.Module):
    def __init__(self):
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.layers(x))


def texts(drawing, *kinds):
    return [" ".join(box.lines) for box in drawing.picture.boxes if box.kind in (kinds or ("operation", "value", "constant", "group"))]


def wire_of(drawing, name):
    return next(w for w in drawing.picture.wires if w.name == name or w.source.lines == [name])


# ------------------------------------------------------------------------------------------------------ what is drawn

def test_a_formula_has_its_values_and_gradients():
    d = fg.draw(product_of_sum, -2.0, 5.0, -4.0)
    assert texts(d) == ["x", "y", "+", "z", "×"]
    assert [(w.name, w.value, w.gradient) for w in d.picture.wires] == [
        ("", "-2", "-4"), ("", "5", "-4"), ("q", "3", "-4"), ("", "-4", "3"), ("", "-12", "1")]
    assert "gradient of the output" in d.picture.legend


def test_a_value_that_is_used_twice_has_a_contribution_on_each_branch():
    d = fg.draw(diamond, 1.0, digits=6)
    x = wire_of(d, "x")
    assert [box.lines[0] for box, _ in x.ends] == ["×", "×", "sin"]
    assert np.isclose(sum(float(g) for _, g in x.ends), float(x.gradient)) and np.isclose(float(x.gradient), 2 + np.cos(1))


def test_a_number_is_written_into_its_operation():
    assert texts(fg.draw(lambda x: 3.0 - 2.0 * x / 4.0 + x ** 3, 1.5), "operation") == ["× 2", "÷ 4", "3 − ·", "x³", "+"]
    assert texts(fg.draw(lambda x: 2.0 ** x, 1.5), "operation") == ["2 ** ·"]
    assert texts(fg.draw(lambda x: fg.numpy.clip(x, 0.0, 1.0), 1.5), "constant") == ["0", "1"]


def test_arrays_are_shown_by_shape_and_norm_and_small_ones_in_full():
    d = fg.draw(lambda W, x: np.sum(np.tanh(W @ x)), np.full((3, 4), 0.5), np.array([1.0, 1.0, 1.0, 1.0]), digits=3)
    assert wire_of(d, "W").value == "(3, 4) norm 1.73" and wire_of(d, "W").gradient.startswith("norm ")
    assert wire_of(d, "@").value == "[2, 2, 2]"
    assert "shape and norm" in d.picture.legend
    assert "Σ" in texts(d)
    assert fg.draw(lambda x: np.sum(x, axis=0), np.ones((4, 0))).picture.wires[0].value == "(4, 0)"


def test_axes_and_shapes_stand_in_the_operations():
    d = fg.draw(lambda x: np.max(np.sum(x.T, axis=1).reshape(2, 2), axis=(0, 1)), np.ones((3, 4)))
    assert texts(d, "operation") == [".T", "Σ axis 1", "reshape (2, 2)", "max"]


def test_float32_and_digits():
    d = fg.draw(lambda x: x / 3.0, np.float32(1.0), digits=3)
    assert d.picture.wires[-1].value == "0.333"
    assert fg.draw(lambda x: x * 1.0, 1 / 3, digits=8).picture.wires[0].value == "0.33333333"
    assert fg.draw(lambda x: -x, 0.0).picture.wires[-1].value == "0"


def test_forward_only():
    d = fg.draw(diamond, 1.0, gradients=False)
    assert all(w.gradient == "" and all(g == "" for _, g in w.ends) for w in d.picture.wires)
    assert "gradient" not in d.picture.legend and "#b3261e" not in d.dot()


def test_a_value_without_a_gradient_says_so():
    d = fg.draw(lambda x: np.sum(x) + np.sum(np.where(np.sign(x) > 0, 1.0, 2.0)), np.ones(3))
    assert texts(d)[0] == "x"
    d = fg.draw(lambda x, y: x * np.floor(y), 1.0, 2.0)
    assert [w.gradient for w in d.picture.wires if w.source.lines == ["y"]] in ([], ["none"], ["0"])


def test_a_tensor_is_drawn_with_what_its_tape_kept():
    x = fg.tensor(np.ones(5), requires_grad=True)
    t = np.sum(np.tanh(x * 2.0 + 1.0))
    d = fg.draw(t)
    assert "?" in texts(d, "constant") and "× 2" in texts(d, "operation")
    assert "?: the tape did not keep it" in d.picture.legend
    assert wire_of(d, "× 2").value == "(5,)"                    # no derivative reads its numbers
    assert "x" in texts(d) and "v1" in texts(fg.draw(fg.learn.Graph.of(t)))        # a Graph has the names that it was given
    t.backward()
    with pytest.raises(RuntimeError, match="swept"):
        fg.draw(t)


def test_names_are_on_the_edges():
    def f(x):
        return fg.mark(np.exp(x), "e") * 2.0
    assert wire_of(fg.draw(f, 1.0), "e").value == "2.718"
    x = fg.tensor(1.0, requires_grad=True)
    with fg.names("n."):
        a = np.exp(x)
    assert wire_of(fg.draw(a * 2.0), "n.a").value == "2.718"


def test_what_cannot_be_drawn():
    x = fg.tensor(1.0, requires_grad=True)
    with pytest.raises(TypeError, match="function or a Tensor"):
        fg.draw(3.0)
    with pytest.raises(TypeError, match="arguments are for functions"):
        fg.draw(x * 2.0, 1.0)
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        fg.draw(x.detach())
    for wrong in ({"digits": 0}, {"depth": -1}, {"most": 0}, {"most": 2.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            fg.draw(diamond, 1.0, **wrong)


# ------------------------------------------------------------------------------------------------------------ modules

def test_modules_are_frames_with_class_and_path():
    net = Net()
    d = fg.draw(net, np.ones((5, 3)))
    calls = {call.title: call for box in d.picture.boxes for call in box.calls}
    assert set(calls) == {"Net", "Sequential: layers", "Linear: layers.0", "Tanh: layers.1", "Linear: head"}
    assert calls["Linear: layers.0"].parent is calls["Sequential: layers"] and calls["Net"].parent is None
    weights = [box for box in d.picture.boxes if box.lines == ["weight"]]
    assert [box.calls[-1].title for box in weights] == ["Linear: layers.0", "Linear: head"]
    assert [box.calls for box in d.picture.boxes if box.kind == "value" and box.lines[0] not in ("weight", "bias")] == [()]
    assert d.dot().count("subgraph cluster_") == 5 and d.mermaid().count("subgraph ") == 5


def test_a_parameter_that_two_modules_share_stands_outside_of_both_by_its_path():
    class Tied(nn.Module):
        def __init__(self):
            self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(np.tanh(self.first(x)))
    d = fg.draw(Tied(), np.ones((2, 3)))
    (weight,) = [box for box in d.picture.boxes if box.kind == "value" and "weight" in box.lines[0]]
    assert weight.lines == ["first.weight"] and [call.title for call in weight.calls] == ["Tied"]


@pytest.mark.parametrize("depth, groups", [(0, ["Net 7 operations"]), (1, ["Sequential: layers 4 operations", "Linear: head 3 operations"]),
                                           (2, ["Linear: layers.0 3 operations", "Tanh: layers.1 1 operation"]), (3, [])])
def test_depth_closes_modules(depth, groups):
    d = fg.draw(lambda x: np.sum(Net()(x)), np.ones((5, 3)), depth=depth)
    assert texts(d, "group")[:len(groups)] == groups and len(texts(d, "group")) == len(groups)
    whole = fg.draw(lambda x: np.sum(Net()(x)), np.ones((5, 3)))
    assert d.picture.wires[-1].gradient == whole.picture.wires[-1].gradient == "1"


def test_the_gradient_of_what_enters_a_closed_module_is_the_sum_of_what_comes_back():
    class Twice(nn.Module):
        def forward(self, x):
            return x * x + x
    d = fg.draw(lambda x: Twice()(x) * x, 3.0, depth=0)
    x = wire_of(d, "x")
    assert [(" ".join(box.lines), g) for box, g in x.ends] == [("×", "12"), ("Twice 2 operations", "21")]
    assert x.gradient == "33"


# --------------------------------------------------------------------------------------------------------- large graphs

def chain(x):
    for _ in range(5000):
        x = np.tanh(x * 1.01)
    return x


def loop(x, w):
    y = x
    for _ in range(2500):
        y = y + w * np.sin(y)
        y = y - x * 0.1
    return y


def layers(x):
    return nn.Sequential(*[nn.Sequential(nn.Linear(2, 2), nn.Tanh()) for _ in range(30)])(x)


def many_arguments(weights):
    return sum(w * w for w in weights)


@pytest.mark.parametrize("f, arguments, boxes", [
    (chain, (0.3,), 2), (loop, (0.3, 0.1), 4), (layers, (np.ones((1, 2)),), None), (many_arguments, ([1.0] * 3000,), 2)],
    ids=lambda v: getattr(v, "__name__", None))
def test_a_large_graph_is_put_together_in_a_moment(f, arguments, boxes):
    start = time.perf_counter()
    d = fg.draw(f, *arguments)
    text, mermaid = d.dot(), d.mermaid()
    assert time.perf_counter() - start < 10                     # a second or two
    assert len(texts(d)) <= 61 and (boxes is None or len(texts(d)) == boxes)
    assert len(text) < 100_000 and len(mermaid) < 50_000


def test_a_chain_says_what_it_is_made_of():
    d = fg.draw(chain, 0.3)
    assert texts(d) == ["x", "× 1.01 → tanh → × 1.01 → … 10000 operations"]
    assert [w.gradient for w in d.picture.wires][-1] == "1"


def test_a_loop_is_drawn_by_its_lines():
    d = fg.draw(loop, 0.3, 0.1)
    assert any("y = y + w * np.sin(y)" in text and "7500 operations" in text for text in texts(d))
    assert "2500 values" in [w.value for w in d.picture.wires]
    x = wire_of(d, "x")
    assert np.isclose(sum(float(g) for _, g in x.ends), float(x.gradient), rtol=1e-3)


def test_a_tape_without_lines_is_cut_in_parts():
    d = fg.draw(loop(fg.tensor(0.3, requires_grad=True), fg.tensor(0.1, requires_grad=True)))
    assert 3 < len(texts(d)) <= 12 and texts(d, "group")[0].startswith("steps ")


def test_modules_close_from_the_innermost():
    groups = texts(fg.draw(layers, np.ones((1, 2))), "group")
    assert len(groups) == 30 and groups[0] == "Sequential: 0 4 operations"
    assert len(texts(fg.draw(layers, np.ones((1, 2)), most=20), "group")) == 1


def test_most_is_kept_or_all_is_drawn():
    for most in (1, 2, 5, 20, 1000):
        assert sum(box.kind in ("operation", "group") for box in fg.draw(loop, 0.3, 0.1, most=most).picture.boxes) <= max(most, 1)
    assert len(texts(fg.draw(diamond, 1.0, most=1), "operation")) == 0
    assert len(texts(fg.draw(lambda x: loop_of_hundred(x), 1.0, most=1000), "operation")) == 200


def loop_of_hundred(x):
    for _ in range(100):
        x = np.sin(x) * x
    return x


# --------------------------------------------------------------------------------------------------- how it is written

def test_dot_and_mermaid_of_a_formula():
    d = fg.draw(product_of_sum, -2.0, 5.0, -4.0)
    assert d.dot().startswith("digraph {") and "rankdir=LR" in d.dot() and "bgcolor=white" in d.dot()
    assert "<B>q =</B>" in d.dot() and '<FONT COLOR="#116329">3</FONT>' in d.dot()
    assert d.mermaid().splitlines()[2:11] == [
        '  b0["x"]', '  b1["y"]', '  b2(("#43;"))', '  b3["z"]', '  b4(("×"))', '  b5[" "]:::plain',
        '  b0 -->|"-2<br/>-4"| b2', '  b1 -->|"5<br/>-4"| b2', '  b2 -->|"q = 3<br/>-4"| b4']


def odd_pictures():
    def f(x):
        for name in ODD:
            x = fg.mark(np.sin(x), name)
        return x

    class Odd(nn.Module):
        def forward(self, x):
            return np.sin(x) * 2.0
    Odd.__name__ = 'a"<\\N\n'
    return [fg.draw(f, 0.5), fg.draw(lambda d: sum(v * v for v in d.values()), {name: 1.0 for name in ODD}), fg.draw(Odd(), 1.0),
            fg.draw(Odd(), 1.0, depth=0)]


@graphviz
def test_odd_names_arrive_in_the_svg():
    pictures = odd_pictures()
    said = ["".join(ElementTree.fromstring(d.svg()).itertext()) for d in pictures]
    for name in ['a"b', "a\\Nb", "<b>&amp;", "two\\nlines", "λ∂é", "`#;|{}[]", "-->", "%%", "\\x00\\x1b", '"];']:
        assert name + " =" in said[0]
        assert repr(name).replace("\\\\n", "\\n").replace("\\\\x", "\\x")[1:-1] in said[1]
    assert 'a"<\\N\\n' in said[2] and 'a"<\\N\\n' in said[3]


def test_odd_names_are_harmless_in_mermaid():
    for d in odd_pictures():
        for line in d.mermaid().splitlines()[2:-3]:
            quoted = line.split('"')
            assert len(quoted) in (1, 3), line              # no quote of a name closes the text
            if len(quoted) == 3:
                inside = quoted[1].replace("<br/>", "")
                assert not set(inside) & set("<>&`|{}\\\n%"), line
                assert all(part.split(";")[0].isdigit() for part in inside.split("#")[1:]), line


@graphviz
@pytest.mark.parametrize("f, arguments", [
    (diamond, (1.0,)), (lambda x: np.sum(Net()(x)), (np.ones((2, 3)),)), (loop, (0.3, 0.1)), (loop_of_hundred, (1.0,)),
    (lambda x, y: (y - x) / (x ** y), (1.0, 2.0)), (lambda x: np.concatenate([x, x])[1:4].max(), (np.ones(3),)),
    (layers, (np.ones((1, 2)),)), (lambda W: np.sum(W @ W), (np.eye(2),))], ids=str)
def test_graphviz_draws_it(f, arguments):
    for options in ({}, {"gradients": False}, {"depth": 0}, {"most": 3}, {"most": 1000}):
        d = fg.draw(f, *arguments, **options)
        root = ElementTree.fromstring(d.svg())
        assert root.tag.endswith("svg")
        assert d.picture.legend in "".join(root.itertext())
    assert d.png()[:8] == b"\x89PNG\r\n\x1a\n"


@graphviz
def test_the_operands_of_a_difference_stand_in_their_order():
    for f, order in ((lambda x, y: x - y, "xy"), (lambda x, y: y - x, "yx")):
        root = ElementTree.fromstring(fg.draw(f, 1.0, 2.0).svg())
        heights = {t.text: float(t.get("y")) for t in root.iter("{http://www.w3.org/2000/svg}text")}
        assert heights[order[0]] < heights[order[1]]


@graphviz
def test_saving(tmp_path):
    d = fg.draw(diamond, 1.0)
    for suffix, start in ((".svg", b"<?xml"), (".PNG", b"\x89PNG"), (".dot", b"digraph"), (".mmd", b"flowchart")):
        d.save(tmp_path / f"picture{suffix}")
        assert (tmp_path / f"picture{suffix}").read_bytes().startswith(start)
    with pytest.raises(ValueError, match=r"\.svg, \.png, \.dot or \.mmd"):
        d.save(tmp_path / "picture.jpeg")
    assert not (tmp_path / "picture.jpeg").exists()


def test_without_graphviz_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    d = fg.draw(diamond, 1.0)
    for make in (d.svg, d.png, lambda: d.save(tmp_path / "a.svg")):
        with pytest.raises(RuntimeError, match=r"install graphviz, or use \.mermaid\(\)"):
            make()
    assert not (tmp_path / "a.svg").exists()
    assert d._repr_svg_() is None
    assert d._repr_mimebundle_()["text/markdown"].startswith("```mermaid\nflowchart LR\n")
    d.save(tmp_path / "a.mmd")


def test_graphviz_that_hangs_or_fails(monkeypatch, tmp_path):
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\nsleep 5\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    monkeypatch.setattr(draw_module, "SECONDS", 0.2)
    with pytest.raises(RuntimeError, match="not finished after"):
        fg.draw(diamond, 1.0).svg()
    program.write_text("#!/bin/sh\ncat > /dev/null\necho broken >&2\nexit 3\n")
    monkeypatch.setattr(draw_module, "SECONDS", 20)
    with pytest.raises(RuntimeError, match="could not draw this: broken"):
        fg.draw(diamond, 1.0).svg()


@graphviz
def test_notebooks():
    d = fg.draw(diamond, 1.0)
    assert d._repr_svg_() == d.svg()
    assert set(d._repr_mimebundle_()) == {"text/plain", "image/svg+xml"}
    assert set(d._repr_mimebundle_(include={"text/plain"})) == {"text/plain"} == set(d._repr_mimebundle_(exclude={"image/svg+xml"}))
    assert repr(d) == "<Drawing of 4 boxes>"


def test_transforms_are_drawn_too():
    assert "sin" in texts(fg.draw(fg.grad(np.cos), 1.0))
    with pytest.warns(RuntimeWarning, match="runs uncompiled"):
        assert "exp" in texts(fg.draw(fg.compile(lambda x: np.exp(x) * x), 1.0))
    assert fg.draw(fg.grad(lambda x: x ** 3), 2.0).picture.wires[0].gradient == "12"


def test_drawing_changes_nothing():
    net = Net()
    x = fg.tensor(np.ones((2, 3)), requires_grad=True)
    t = np.sum(net(x))
    before = fg.draw(t).dot()
    assert fg.draw(t).dot() == before and x.grad is None and net.head.bias.grad is None
    t.backward()
    assert x.grad.shape == (2, 3)


# -------------------------------------------------------------------------------------------------- pictures in documents

MAKE = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "make.py"


@pytest.mark.skipif(not MAKE.exists(), reason="the documents are not here")
def test_the_pictures_of_the_documents_belong_to_their_examples():
    spec = importlib.util.spec_from_file_location("make_pictures", MAKE)
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert "backprop.md" in [page.name for page in make.pages()]
    shown = set()
    for page in make.pages():
        for name, drawing in make.drawings(page).items():
            shown.add(name)
            text = (MAKE.parent / f"{name}.svg").read_text(encoding="utf-8")
            assert text.endswith(make.stamp(drawing)), f"{name}.svg is out of date: python docs/pictures/make.py"
            said = "".join(ElementTree.fromstring(text).itertext())
            assert all(line in said for box in drawing.picture.boxes for line in box.lines)
    assert shown == {path.stem for path in MAKE.parent.glob("*.svg")}
