"""Formulas in text: what they mean, what they may not do, and that nothing but ValueError comes out of them."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fastgrad.learn.expressions import FUNCTIONS, parse, parse_values

X, M = 0.5, np.array([[1.0, 2.0], [3.0, 4.0]])
VALUES = {"x": X, "v": np.array([1.0, -2.0]), "M": M, "σ2": 2.0, "δ": 3.0}


def value(text):
    return parse(text, VALUES)(VALUES)


@pytest.mark.parametrize("text, expected", [
    ("1 + 2 * 3", 7), ("-x**2", -0.25), ("(-x)**2", 0.25), ("2^3^2", 512), ("2**-1", 0.5), ("7 // 2", 3), ("7 % 4", 3),
    ("x² + x³", 0.375), ("σ(0)", 0.5), ("σ'(0)", 0.25), ("tanh'(x)", 1 - np.tanh(X)**2), ("ln(e)", 1), ("2·x×2÷2−1", 0),
    ("[x > 0]", 1), ("[x ≤ 0]", 0), ("(x ≠ 0) * 2", 2), ("1 if x > 0 else 2", 1), ("σ2 + δ", 5), ("π", np.pi),
    ("M[0, 1]", 2), ("M[-1, 0]", 3), ("sum(M)", 10), ("mean(v)", -0.5), ("e^-x", np.exp(-X)),
])
def test_what_a_number_means(text, expected):
    assert float(value(text)) == pytest.approx(expected)


@pytest.mark.parametrize("text, expected", [
    ("M @ v", M @ [1, -2]), ("Mᵀ", M.T), ("M.T @ M", M.T @ M), ("v ⊙ v", [1, 4]), ("[v > 0]", [1, 0]), ("outer(v, v)", [[1, -2], [-2, 4]]),
    ("diag(v)", [[1, 0], [0, -2]]), ("sum(M, axis=0)", [4, 6]), ("sum(M, axis=1, keepdims=True)", [[3], [7]]), ("M[:, 0]", [1, 3]),
    ("v[:, None]", [[1], [-2]]), ("[1, 2] * v", [1, -4]), ("ones_like(v)", [1, 1]), ("relu'(v)", [1, 0]), ("x.T", X),
])
def test_what_an_array_means(text, expected):
    assert np.allclose(value(text), expected)


@pytest.mark.parametrize("text", [
    "__import__('os').system('true')", "().__class__", "x.shape", "x.__class__", "lambda: 1", "[x for x in v]", "open('f')", "'text'",
    "x := 1", "x = 1", "f'{x}'", "x and v", "not x", "{1: 2}", "{x}", "sum(*v)", "sum(**v)", "v.T.base", "sum.__globals__", "x; x", "",
    "x if", "1j", "b'1'", "...", "exec('1')", "sum(v, out=x)", "await x", "`x`", "x\ny", "x @", "σ''(x)", "99999999999999999999",
])
def test_what_is_no_formula(text):
    with pytest.raises(ValueError) as caught:
        value(text)
    assert "\n" not in str(caught.value)


def test_names_are_checked_and_listed():
    with pytest.raises(ValueError, match="q is not a name here; there are M, v, x, δ, σ2"):
        parse("q + 1", VALUES)
    with pytest.raises(ValueError, match="there are v"):
        parse("q + 1", VALUES, ["v"])
    with pytest.raises(ValueError, match="tanh is a function: write its argument after it"):
        parse("tanh + 1", VALUES)
    assert parse("x * sum(v)", VALUES).names == {"x", "v"}
    assert float(parse("e + pi", {"e": 1.0})({"e": 1.0})) == pytest.approx(1 + np.pi)


@pytest.mark.parametrize("text, words", [
    ("M @ [1, 2, 3]", "in M @ [1, 2, 3]: shapes (2, 2) and (3,) do not fit"), ("v * [1, 2, 3]", "shapes (2,) and (3,) do not fit"), ("M[5, 5]", "out of bounds"), ("1 / 0", "division by zero"),
    ("(-1)**0.5", "no real number"), ("sum(M, axis=7)", "axis"), ("9.0**9.0**9.0", "out of range"), ("tanh()", "argument"),
])
def test_what_cannot_be_computed_says_where(text, words):
    with pytest.raises(ValueError) as caught:
        value(text)
    assert words in str(caught.value) and str(caught.value).startswith("in ")


def test_a_formula_of_tensors_is_a_tensor():
    import fastgrad as fg

    x = fg.tensor([1.0, 2.0], requires_grad=True)
    formula = parse("sum(σ(x) * x²)", ["x"])
    formula({"x": x}).backward()
    assert np.allclose(x.grad.numpy(), fg.grad(lambda x: np.sum(fg.numpy.sigmoid(x) * x**2))(np.array([1.0, 2.0])))


def test_long_and_deep_formulas_are_refused():
    for text in ("x" * 20_000, "(" * 300 + "x" + ")" * 300, "+".join(["x"] * 4000), "-" * 5000 + "x", "[" * 150 + "x" + "]" * 150):
        with pytest.raises(ValueError):
            value(text)


PIECES = ["x", "v", "M", "1", "2.5", "0", "+", "-", "*", "/", "**", "@", "(", ")", "[", "]", ",", ":", ".T", "²", "ᵀ", "⊙", "σ", "'", ">", "==",
          "if", "else", "None", "True", "axis=", "e", "∘", "^", " ", "=", "#", "\\", "\n", "λ", *sorted(FUNCTIONS)]


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join),
                 st.text(max_size=30)))
def test_nothing_but_ValueError_comes_out(text):
    with np.errstate(all="ignore"):
        try:
            value(text)
        except ValueError as error:
            assert str(error)


CALLS = st.recursive(
    st.sampled_from(["x", "v", "M", "1", "-2.5", "0", "None", "[]", "[1, 2]", "(1, 2)", "True"]),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(sorted(FUNCTIONS)), st.lists(inner, max_size=3)).map(lambda c: f"{c[0]}({', '.join(c[1])})"),
        st.tuples(st.sampled_from(sorted(FUNCTIONS)), inner).map(lambda c: f"{c[0]}'({c[1]})"),
        st.tuples(inner, st.sampled_from(["+", "*", "/", "@", "**", ">", "//", "%"]), inner).map(lambda c: f"({c[0]} {c[1]} {c[2]})"),
        st.tuples(inner, inner).map(lambda c: f"{c[0]}[{c[1]}]"), inner.map(lambda c: f"({c}).T"), inner.map(lambda c: f"[{c}]")),
    max_leaves=6)


@settings(max_examples=600, deadline=None)
@given(CALLS)
def test_nothing_but_ValueError_comes_out_of_calls(text):
    with np.errstate(all="ignore"):
        try:
            value(text)
        except ValueError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("pairs, expected", [
    (["x=2"], {"x": 2.0}), (["x = -2.5", "y=1e3"], {"x": -2.5, "y": 1000.0}), (["v=[1, 2]"], {"v": np.array([1.0, 2.0])}),
    (["W=((1,2),(3,4))"], {"W": M}), (["δ=−1"], {"δ": -1.0}), ([], {}),
])
def test_values_on_a_command_line(pairs, expected):
    values = parse_values(pairs)
    assert list(values) == list(expected)
    for name, wanted in expected.items():
        assert type(values[name]) is type(wanted) and np.array_equal(values[name], wanted)


@pytest.mark.parametrize("pairs, words", [
    (["x"], "write name=value"), (["=2"], "write name=value"), (["2=x"], "write name=value"), (["x=2", "x=3"], "given twice"),
    (["x="], "a number or a list"), (["x=y"], "a number or a list"), (["x='2'"], "a number or a list"), (["x=[1, [2, 3]]"], "rows of one length"),
    (["x=__import__('os')"], "a number or a list"), (["x=2j"], "a number or a list"), (["x=None"], "a number or a list"),
    (["x=" + "[" * 2000], "a number or a list"), (["x=" + "9" * 20_000], "characters"), (["x=True"], "a number or a list"),
])
def test_values_that_make_no_sense(pairs, words):
    with pytest.raises(ValueError) as caught:
        parse_values(pairs)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["max(M, 0, M)", "sum(M, 0, None, M)", "sin(M, M)", "add(M, M, M)", "dot(M, M, M)", "mean(M, 0, None, M)", "abs(M, M)", "ln(M, M)",
                                  "σ(M, M)"])
def test_a_formula_writes_to_nothing(text):
    kept = np.array([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match="at most"):
        parse(text, {"M": kept})({"M": kept})
    np.testing.assert_array_equal(kept, [[1, 2], [3, 4]])
