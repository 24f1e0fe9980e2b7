"""Gradients derived by hand, right and wrong: a right one is never called wrong, and the cause of a wrong one is found.

The random cases derive their formulas with rules of their own, in text, and know nothing about how the engine does it.
"""

import inspect

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import fastgrad as fg
from fastgrad.learn.check_command import function_of_formulas, main
from fastgrad.learn.expressions import FUNCTIONS, parse

check = fg.check_derivation

# What students know by heart: formula, derivative with the value as a and the argument as z, and the same in other words
KNOWN = {
    "sigmoid": ("{a} * (1 - {a})", "exp(-{z}) / (1 + exp(-{z}))**2"),
    "tanh": ("(1 - {a}**2)", "1 / cosh({z})**2"),
    "relu": ("[{z} > 0]", "(({z} > 0) * 1)"),
    "exp": ("{a}", "exp({z})"),
    "sin": ("cos({z})", "sin({z} + pi/2)"),
    "square": ("(2 * {z})", "({z} + {z})"),
    "softplus": ("sigmoid({z})", "1 / (1 + exp(-{z}))"),
    "arctan": ("1 / (1 + {z}**2)", "cos(arctan({z}))**2"),
}
WRONG = {                   # derivatives that people take for those of KNOWN
    "sigmoid": ["{a}", "(1 - {a})", "{a} * (1 + {a})"], "tanh": ["(1 - {a})", "(1 + {a}**2)"], "relu": ["{a}", "[{z} < 0]"],
    "exp": ["exp(-{z})", "{z} * exp({z} - 1)"], "square": ["{z}", "2 * {a}"],
}
CORRUPTIONS_OF_TWO_WAYS = ("sign", "missing term", "one sign", "factor")
CORRUPTIONS_OF_A_CHAIN = ("sign", "factor", "missing factor", "twice", "other quantity", "two missing", "wrong local")
CORRUPTIONS_OF_AN_ARRAY = ("sign", "factor", "missing factor", "shifted", "extra sum")
CORRUPTIONS_OF_LAYERS = ("sign", "factor", "missing factor", "transposed", "sum", "order", "shifted", "outer", "zero")


class Case:
    """A function as text, its arguments, a right claim, and a wrong one with the causes that are true of it."""

    def __init__(self, text, values, right, wrong, causes, wrt, word=""):
        self.fun = function_of_formulas(text, list(values))
        self.text, self.values, self.right, self.wrong = text, values, right, wrong
        self.causes, self.wrt, self.word = causes, wrt, word

    def verdict(self, claim):
        return check(claim, self.fun, *self.values.values(), wrt=self.wrt)

    def __repr__(self):
        return f"{self.text} by {self.wrt}: right {self.right}, wrong {self.wrong}: {self.causes} {self.word}"


def joined(factors):
    return " * ".join(f"({f})" for f in factors) if factors else "1"


def changed(formula, change):
    """A claim as a function: a formula whose numbers are changed."""
    def claim(**values):
        return change(np.asarray(formula(values)))

    claim.__signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in sorted(formula.names)])
    return claim


def a_chain(rng, corruption):
    """Scalars: multiply, add and apply a function, several times; the factors of the chain rule one by one."""
    statements, values, locals_ = [], {"x": float(rng.uniform(0.5, 1.5))}, []
    z, functions = "x", []
    for k in range(int(rng.integers(2, 5))):
        kind = rng.choice(["weight", "function", "function", "bias"])
        new = f"z{k}"
        if kind == "weight":
            values[f"w{k}"] = float(rng.uniform(0.4, 1.8) * rng.choice([-1, 1]))
            statements.append(f"{new} = w{k} * {z}")
            locals_.append((f"w{k}", f"w{k}", (z, f"w{k}")))
        elif kind == "bias":
            values[f"b{k}"] = float(rng.uniform(-1, 1))
            statements.append(f"{new} = {z} + b{k}")
            locals_.append((None, None, None))
        else:
            name = rng.choice(list(KNOWN))
            statements.append(f"{new} = {name}({z})")
            locals_.append((KNOWN[name][int(rng.integers(2))].format(a=new, z=z), f"{name}'({z})", None))
            functions.append((len(locals_) - 1, name, new, z))
        z = new
    statements.append(f"L = sin({z})" if rng.random() < 0.5 else f"L = {z} * {z} * {z}")
    locals_.append((f"cos({z})", f"sin'({z})", None) if "sin" in statements[-1] else (f"3 * {z}**2", "", None))
    factors = [(f, word) for f, word, _ in locals_ if f is not None]
    right = joined([f for f, _ in factors])
    text, word = "; ".join(statements), ""
    if corruption == "sign":
        wrong, causes = "-" + right, {"sign"}
    elif corruption == "factor":
        wrong, causes = f"{rng.choice(['2', '3', '5/3', '0.5', '-2', '10', '1/3'])} * " + right, {"factor"}
    elif corruption == "missing factor":
        k = int(rng.integers(len(factors)))
        word = factors[k][1]
        wrong, causes = joined([f for j, (f, _) in enumerate(factors) if j != k]), {"missing factor"}
        if not word:
            causes, word = {"missing factor", "local derivative", "other quantity", "factor"}, ""
    elif corruption == "twice":
        k = int(rng.integers(len(factors)))
        word = factors[k][1]
        wrong, causes = right + f" * ({factors[k][0]})", {"extra factor"}
    elif corruption == "wrong local":
        functions = [f for f in functions if f[1] in WRONG]
        if not functions:
            return None
        k, name, new, before = functions[int(rng.integers(len(functions)))]
        mistaken = str(rng.choice(WRONG[name])).format(a=new, z=before)
        wrong = joined([f if j != k else mistaken for j, (f, _, _) in enumerate(locals_) if f is not None])
        causes = {"local derivative"}
        if name == "square":
            causes = {"local derivative", "factor"}
        elif name == "exp":
            causes = {"local derivative", "extra factor"}
    elif corruption == "two missing":
        if len(factors) < 3:
            return None
        one, two = sorted(rng.choice(len(factors), 2, replace=False))
        wrong = joined([f for j, (f, _) in enumerate(factors) if j not in (one, two)])
        causes = {"missing factor"} | ({"other quantity"} if one == 0 else set())
        causes |= {"other quantity", "local derivative"} if two == len(factors) - 1 else set()
    else:
        weights = [(k, pair) for k, (_, _, pair) in enumerate(locals_) if pair]
        if not weights:
            return None
        k, (before, weight) = weights[int(rng.integers(len(weights)))]
        wrong = joined([before] + [f for f, _, _ in locals_[k + 1:] if f is not None])
        causes, word = {"other quantity"}, f"dL/d{weight}"
        if k == 0:
            causes = causes | {"missing factor", "extra factor"}
            word = ""
    return Case(text, values, right, wrong, causes, "x", word)


def two_ways(rng, corruption):
    """A number or a vector that reaches the result through two functions, added or multiplied."""
    n = int(rng.integers(1, 4))
    values = {"x": rng.uniform(0.3, 1.2, n) if n > 1 else float(rng.uniform(0.3, 1.2)), "w": float(rng.uniform(0.5, 1.5))}
    one, two = rng.choice([name for name in KNOWN if name != "relu"], 2, replace=False)
    times = rng.random() < 0.5
    a, b = KNOWN[one][0].format(a="u", z="x"), KNOWN[two][0].format(a="v", z="y")
    text = f"u = {one}(x); y = w * x; v = {two}(y); s = {'u * v' if times else 'u + v'}; L = {'s' if n == 1 else 'sum(s)'}"
    left, right = (f"({a}) * v", f"u * ({b}) * w") if times else (f"({a})", f"({b}) * w")
    claim = f"{left} + {right}"
    wrong, causes = {
        "sign": (f"-({claim})", {"sign"}), "missing term": (left if rng.random() < 0.5 else right, {"missing term"}),
        "one sign": (f"{left} - {right}", {"sign"}), "factor": (f"3 * ({claim})", {"factor"}),
    }[corruption]
    return Case(text, values, claim, wrong, causes, "x")


def an_array(rng, corruption):
    """A vector, element by element, summed or averaged."""
    n = int(rng.integers(3, 6))
    values = {"x": rng.uniform(0.3, 1.5, n) * rng.choice([-1, 1], n), "c": rng.uniform(0.5, 2.0, n) * rng.choice([-1, 1], n)}
    one, two = rng.choice(list(KNOWN), 2)
    mean = rng.random() < 0.5
    text = f"u = {one}(x); v = c * u; a = {two}(v); L = {'mean' if mean else 'sum'}(a)"
    factors = [(KNOWN[one][int(rng.integers(2))].format(a="u", z="x"), f"{one}'(x)"), ("c", "c"),
               (KNOWN[two][int(rng.integers(2))].format(a="a", z="v"), f"{two}'(v)")]
    right = joined([f for f, _ in factors]) + (f" / {n}" if mean else "")
    if rng.random() < 0.3:
        right = f"{right} + 0 * x"
    word = ""
    if corruption == "sign":
        wrong, causes = f"-({right})", {"sign"}
    elif corruption == "factor":
        wrong, causes = (joined([f for f, _ in factors]), {"factor"}) if mean else (f"({right}) / {n}", {"factor"})
    elif corruption == "missing factor":
        k = int(rng.integers(3))
        word = factors[k][1]
        wrong, causes = joined([f for j, (f, _) in enumerate(factors) if j != k]) + (f" / {n}" if mean else ""), {"missing factor"}
    else:
        formula = parse(right, ["x", "c", "u", "v", "a"])
        if corruption == "shifted":
            by = int(rng.integers(1, n))
            wrong, causes = changed(formula, lambda array: np.roll(array, by)), {"shifted"}
        else:
            wrong, causes = changed(formula, np.sum), {"extra sum"}
    return Case(text, values, right, wrong, causes, "x", word)


def layers(rng, corruption):
    """Matrices: one to three layers, examples as columns."""
    depth, m = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    sizes = [int(k) for k in rng.choice([2, 3, 4, 5], depth + 1)]
    if corruption == "outer":
        m = 1
    vector = m == 1
    values, statements, names = {}, [], []
    before = "X"
    values["X"] = rng.normal(size=(sizes[0],) if vector else (sizes[0], m))
    for k in range(1, depth + 1):
        values[f"W{k}"] = rng.normal(size=(sizes[k], sizes[k - 1]))
        values[f"b{k}"] = rng.normal(size=sizes[k]) if vector else rng.normal(size=(sizes[k], 1))
        name = str(rng.choice(["sigmoid", "tanh", "relu", "softplus"]))
        names.append(name)
        statements += [f"Z{k} = W{k} @ {before} + b{k}", f"A{k} = {name}(Z{k})"]
        before = f"A{k}"
    values["Y"] = rng.normal(size=(sizes[-1],) if vector else (sizes[-1], m))
    count = sizes[-1] * m
    statements += [f"R = {before} - Y", "L = mean(R * R)"]
    target = int(rng.integers(1, depth + 1))

    def gradient(forget=None):
        """dL/dZ of the target, from the last layer down."""
        delta = f"2 * R / {count}"
        for k in range(depth, target - 1, -1):
            if k < depth:
                delta = f"W{k + 1}.T @ ({delta})"
            if k != forget:
                delta = f"({delta}) * ({KNOWN[names[k - 1]][int(rng.integers(2))].format(a=f'A{k}', z=f'Z{k}')})"
        return delta

    delta, behind = gradient(), "X" if target == 1 else f"A{target - 1}"
    by_weight = rng.random() < 0.6 or corruption in ("transposed", "order", "outer", "zero")
    if by_weight:
        right = f"outer({delta}, {behind})" if vector else f"({delta}) @ {behind}.T"
        wrt = f"W{target}"
    else:
        right, wrt = (delta if vector else f"sum({delta}, axis=1, keepdims=True)"), f"b{target}"
    word, text = "", "; ".join(statements)
    known = list(values) + [s.split(" = ")[0] for s in statements]
    if corruption == "sign":
        wrong, causes = f"-({right})", {"sign"}
    elif corruption == "factor":
        wrong, causes = f"{rng.choice(['2', '0.5', str(count), '5/3'])} * ({right})", {"factor"}
    elif corruption == "missing factor":
        k = int(rng.integers(target, depth + 1))
        delta = gradient(forget=k)
        wrong = (f"outer({delta}, {behind})" if vector else f"({delta}) @ {behind}.T") if by_weight else (
            delta if vector else f"sum({delta}, axis=1, keepdims=True)")
        causes, word = {"missing factor"}, f"{names[k - 1]}'(Z{k})"
    elif corruption == "transposed":
        wrong, causes = f"({right}).T", {"transposed"}
        if 1 in (sizes[target], sizes[target - 1]):
            return None
    elif corruption == "sum":
        if vector:
            return None
        if by_weight:
            axis = int(rng.integers(2))
            wrong, causes = f"sum({right}, axis={axis})", {"extra sum"}
        else:
            wrong, causes = delta, {"missing sum"}
    elif corruption == "order":
        if vector:
            return None
        wrong, causes = f"{behind} * ({delta})", {"shape", "order"}
        if sizes[target] == sizes[target - 1]:
            causes = {"shape", "order", "missing sum"}
    elif corruption == "outer":
        wrong, causes = f"({delta}) * {behind}", {"outer product"}
    elif corruption == "zero":
        formula = parse(right, known)
        row = int(rng.integers(sizes[target]))
        wrong, causes = changed(formula, lambda array: np.where(np.arange(len(array))[:, None] == row, 0.0, array)), {
            "should not be zero"}
    else:
        formula = parse(right, known)
        wrong, causes = changed(formula, lambda array: np.roll(array, 1, 0)), {"shifted"}
        if sizes[target] < 2:
            return None
    return Case(text, values, right, wrong, causes, wrt, word)


def in_numbers(case):
    """The right and the wrong claim at the given point, computed here with the formulas; None for shapes that do not fit."""
    values = dict(case.values)
    for statement in case.text.split("; "):
        name, formula = statement.split(" = ", 1)
        values[name] = parse(formula, values)(values)
    right = np.asarray(parse(case.right, values)(values), float)
    try:
        wrong = case.wrong(**{name: values[name] for name in inspect.signature(case.wrong).parameters}) if callable(case.wrong) \
            else parse(case.wrong, values)(values)
    except ValueError:
        return right, None
    return right, np.asarray(wrong, float)


def really_wrong(right, wrong):
    """Whether a corruption changed anything, and the right claim is well away from 0."""
    if not np.isfinite(right).all() or np.abs(right).max() < 1e-6 or np.abs(right).max() > 1e6:
        return False
    return wrong is None or wrong.shape != right.shape or np.abs(wrong - right).max() > 1e-3 * np.abs(right).max()


def random_cases(count, seed):
    rng = np.random.default_rng(seed)
    kinds = [(a_chain, c) for c in CORRUPTIONS_OF_A_CHAIN] + [(an_array, c) for c in CORRUPTIONS_OF_AN_ARRAY] + \
        [(layers, c) for c in CORRUPTIONS_OF_LAYERS] + [(two_ways, c) for c in CORRUPTIONS_OF_TWO_WAYS]
    made = 0
    while made < count:
        make, corruption = kinds[int(rng.integers(len(kinds)))]
        case = make(rng, corruption)
        if case is None:
            continue
        right, wrong = in_numbers(case)
        if really_wrong(right, wrong):
            made += 1
            if right.size > 1 and wrong is not None and rng.random() < 0.25:
                case.right, case.wrong = right, wrong          # numbers, not formulas
            yield corruption, case


def test_of_random_claims_the_right_are_never_called_wrong_and_the_cause_of_the_wrong_is_named():
    right = missed = 0
    failures = []
    count = 300
    for corruption, case in random_cases(count, seed=1):
        verdict = case.verdict(case.right)
        assert verdict, f"{case}\n{verdict}"
        right += 1
        verdict = case.verdict(case.wrong)
        assert not verdict, f"{case}\n{verdict}"
        if verdict.cause not in case.causes or case.word not in str(verdict):
            missed += 1
            failures.append(f"[{corruption}] {case}\n    -> {verdict.cause}: {verdict.message}")
    rate = 1 - missed / count
    print(f"{right} right claims confirmed; the cause of {rate:.1%} of {count} wrong claims named")
    assert rate >= 0.95, "\n".join(failures)


# One test for each thing that a verdict can say

def chain(w, x, y):
    z = w * x
    p = fg.numpy.sigmoid(z)
    L = (p - y)**2
    return L


def two_layers(W1, W2, x, t):
    z1 = W1 @ x
    h1 = fg.numpy.relu(z1)
    z2 = W2 @ h1
    p = fg.numpy.softmax(z2)
    E = -np.sum(t * np.log(p))
    return E


RNG = np.random.default_rng(3)
POINT = 0.5, 2.0, 1.0
NET = RNG.normal(size=(3, 4)), RNG.normal(size=(2, 3)), RNG.normal(size=4), np.array([0.0, 1.0])


@pytest.mark.parametrize("claim, cause, words", [
    ("2*(p - y)*p*(1 - p)*x", "right", "Right: this is dL/dw"),
    ("-2*(p - y)*p*(1 - p)*x", "sign", "-dL/dw"),
    ("(p - y)*p*(1 - p)*x", "factor", "2 times too small"),
    ("5/3*2*(p - y)*p*(1 - p)*x", "factor", "5/3 times too large"),
    ("2*(p - y)*p*(1 - p)*x/log(2)", "factor", "1/(ln 2) times too large"),
    ("2*(p - y)*x", "missing factor", "lacks the factor sigmoid'(z)"),
    ("2*(p - y)*p*(1 - p)", "missing factor", "lacks the factor x"),
    ("2*(p - y)", "other quantity", "This is dL/dp"),
    ("2*x", "missing factor", "two factors"),
    ("2*(p - y)*(p*(1 - p))**2*x", "extra factor", "sigmoid'(z) twice"),
    ("2*(p - y)*p*(1 - p)*x*L", "extra factor", "L too much"),
    ("2*(p - y)*p*x", "local derivative", "it has p where p * (1 - p) should be"),
    ("2*(p - y)*e^z/(1 + e^-z)²*x", "local derivative", "e^z where e^-z should be"),
    ("2*(p - y)*x/(p*(1 - p))", "extra factor", "divides by sigmoid'(z)"),
    ("2*(p - y)*p*(1 - p)*w", "other quantity", "This is dL/dx, not dL/dw"),
    ("L", "other quantity", "This is L itself"),
    ("2*(p - y)*p*(1 - p)*x + 1", "difference", "+ 1"),
    ("2*(p - y)*p*(1 - p)*x + y", "difference", "a term too much"),
    ("0*x", "should not be zero", "is 0, and dL/dw is not"),
    ("1/(x - 2)", "not finite", "finite"),
    ("sin(exp(x*w)) - y", "elements", "is not dL/dw"),
])
def test_what_a_verdict_on_scalars_says(claim, cause, words):
    with np.errstate(all="ignore"):
        verdict = check(claim, chain, *POINT)
    assert verdict.cause == cause and words in str(verdict), verdict
    assert bool(verdict) == verdict.ok == (cause == "right")


G = {"g": "W2.T @ (p - t)", "m": "[z1 > 0]"}


@pytest.mark.parametrize("claim, cause, words", [
    ("outer(g * m, x)", "right", ""),
    ("outer(g, x)", "missing factor", "relu'(z1)"),
    ("outer(x, g * m)", "transposed", "(4, 3), and should have (3, 4)"),
    ("(g * m)", "outer product", "outer(claim, x)"),
    ("(g * m) * x", "outer product", "outer(g * m, x)"),
    ("sum(outer(g * m, x), axis=1)", "extra sum", "4 columns"),
    ("sum(outer(g * m, x))", "extra sum", "all elements"),
    ("outer(g * m, x) * outer(m * 0 + 1, [1, 1, 0, 1])", "should not be zero", "Column 2 of dE/dW1 is 0 in the claim"),
    ("outer(g * m, x) * outer(m * 0 + 1, [1, -1, 1, 1])", "sign", "column 1"),
    ("outer(g * m, x) * outer(m * 0 + 1, [1, 3, 1, 1])", "factor", "factor 3"),
    ("outer(g * m, x)[:, :2]", "shape", "has (3, 2), dE/dW1 has (3, 4)"),
    ("ravel(outer(g * m, x))", "shape", "numbers are right, the shape is not"),
    ("W1 @ W2", "shape", "shapes (3, 4) and (2, 3)"),
    ("outer(g * z1, x)", "elements", "is not dE/dW1"),
])
def test_what_a_verdict_on_matrices_says(claim, cause, words):
    verdict = check(claim, two_layers, *NET, where=G)
    assert verdict.cause == cause and words in str(verdict), verdict


@pytest.mark.parametrize("change, cause, words", [
    (lambda J: np.diag(np.diag(J)), "local derivative", "only the diagonal of the Jacobian of the softmax"),
    (lambda J: J * np.tri(3), "should not be zero", "above the diagonal"),
    (lambda J: np.roll(J, 1, 0), "shifted", "by 1 along axis 0"),
    (lambda J: np.flip(J, 1), "shifted", "axis 1"),
    (lambda J: J * (2 * np.eye(3) - 1), "sign", "off the diagonal"),
    (lambda J: J + np.triu(np.ones((3, 3)), 1), "elements", "above the diagonal"),
    (lambda J: J + np.eye(3)[0][:, None] * J**2, "elements", "Row 0 of dp/dz is wrong"),
    (lambda J: np.diagonal(J).copy(), "shape", "the diagonal of dp/dz alone"),
    (lambda J: J * 3, "factor", "3 times too large"),
])
def test_what_a_verdict_on_a_jacobian_says(change, cause, words):
    def f(z):
        p = fg.numpy.softmax(z)
        return p

    z = np.array([0.3, -0.2, 0.9])

    def claim(p):
        return change(np.diag(p) - np.outer(p, p))

    assert check(lambda p: np.diag(p) - np.outer(p, p), f, z)
    verdict = check(claim, f, z)
    assert verdict.cause == cause and words in str(verdict), verdict
    verdict = check(claim(fg.numpy.softmax(z)), f, z)
    assert verdict.cause == cause and words in str(verdict), verdict


def test_a_zero_pattern_is_named():
    def f(x):
        y = x[1:] * x[:-1]
        return y

    x = np.array([1.0, 2.0, 3.0, 4.0])
    right = fg.jacobian(f)(x)
    assert check(right, f, x)
    wrong = right.copy()
    wrong[0, 3] = 5.0
    verdict = check(wrong, f, x)
    assert verdict.cause == "should be zero" and "[0, 3]" in verdict.message
    assert "0 (not 5)" in str(verdict)
    verdict = check("x", f, x, of="y[0]")
    assert not verdict and verdict.cause != "right"
    verdict = check("x[2]", f, x, of="y[0]", wrt="x[3]")
    assert verdict.cause == "should be zero" and "does not depend on x[3]" in verdict.message


def test_a_missing_sum_and_a_missing_mean():
    def f(X, b):
        Z = X * b
        L = np.mean(Z * Z)
        return L

    X, b = RNG.normal(size=(4, 3)), RNG.normal(size=3)
    assert check("sum(2 * Z * X, axis=0) / 12", f, X, b, wrt="b")
    verdict = check("2 * Z * X / 12", f, X, b, wrt="b")
    assert verdict.cause == "missing sum" and "4 rows" in verdict.message
    verdict = check("2 * Z * b", f, X, b, wrt="X")
    assert verdict.cause == "factor" and "1/12 of a mean missing" in verdict.message
    verdict = check("2 * Z * X[0] / 12", f, X, b, wrt="X")
    assert not verdict


def test_a_value_that_is_used_twice_has_two_ways():
    def f(x):
        a = x * x
        b = np.sin(x)
        c = a + b
        return c

    assert check("2*x + cos(x)", f, 0.7)
    assert check("2*x", f, 0.7).cause == "missing term"
    assert "sin" in check("2*x", f, 0.7).message or "b" in check("2*x", f, 0.7).message
    assert check("2*x - cos(x)", f, 0.7).cause == "sign"


def test_terms_of_a_normalisation():
    def f(x, g):
        mu = np.mean(x)
        d = x - mu
        v = np.mean(d * d)
        s = np.sqrt(v)
        h = d / s
        L = np.sum(g * h)
        return L

    point = np.array([0.3, -1.0, 2.0, 0.5]), np.array([1.0, 0.3, -0.7, 0.2])
    assert check("(g - mean(g) - h*mean(g*h))/s", f, *point)
    verdict = check("(g - h*mean(g*h))/s", f, *point)
    assert verdict.cause == "missing term" and "through mu" in verdict.message
    verdict = check("(g - mean(g))/s", f, *point)
    assert verdict.cause == "missing term" and "through d * d" in verdict.message
    verdict = check("g/s", f, *point)
    assert verdict.cause == "missing term" and "two terms" in verdict.message
    verdict = check("(g - mean(g) - h*mean(g*h))*sqrt(3)/s", f, *point)
    assert verdict.cause == "factor" and "sqrt(3) times too large" in verdict.message


def test_the_same_factors_in_another_order():
    def f(W, V, X):
        H = W @ X
        L = np.sum(V @ H)
        return L

    W, V, X = RNG.normal(size=(2, 2)), RNG.normal(size=(2, 2)), RNG.normal(size=(2, 2))
    ones = {"o": np.ones((2, 2))}
    assert check("V.T @ o @ X.T", f, W, V, X, where=ones)
    verdict = check("o @ V @ X", f, W, V, X, where=ones)
    assert verdict.cause == "order" and "(o @ V).T @ X.T" in verdict.message, verdict


def test_a_claim_right_by_coincidence_is_wrong():
    verdict = check("x**2", lambda x: x * x, 2.0)
    assert not verdict and verdict.message.startswith("Right at the given point, wrong at others")
    assert check("x**2", lambda x: x * x, 2.0, at="given")
    assert check("x + 2", lambda x: x * x, 2.0).cause == "coincidence"
    assert check("4", lambda x: x * x, 2.0)                         # a number is about the given point
    assert not check("x**2", lambda x: x * x, 2.0, at=[(3.0,)])
    assert check("2*x", lambda x: x * x, 2.0, at=[(3.0,), (-1.0,)])


def test_labels_and_shares_keep_looking_so():
    def f(z, t):
        p = fg.numpy.softmax(z)
        L = -np.sum(t * np.log(p))
        return L

    for t in (np.array([0.0, 1.0, 0.0]), np.array([0.2, 0.5, 0.3])):
        verdict = check("p - t", f, np.array([0.1, 0.2, -1.0]), t)
        assert verdict and "as long as t sums to 1" in str(verdict)
    verdict = check("p * sum(t) - t", f, np.array([0.1, 0.2, -1.0]), t)
    assert verdict and "as long as" not in str(verdict)

    def hinge(w, y):
        L = np.sum(np.log1p(np.exp(-y * w)))
        return L

    assert check("-y * sigmoid(-y * w)", hinge, np.array([0.3, -1.0]), np.array([1.0, -1.0]))
    verdict = check("-sigmoid(-y * w) / y", hinge, np.array([0.3, -1.0]), np.array([1.0, -1.0]))
    assert verdict and "as long as y has no elements but -1 and 1" in str(verdict)
    verdict = check("w**2", lambda w, x: np.sum(x * w**2), 0.5, np.array([0.0, 1.0]), wrt="x")
    assert verdict, verdict


def test_symmetric_matrices_unit_vectors_and_zeros_stay_so():
    def form(x, A):
        L = x @ A @ x
        return L

    A, x = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([0.5, -1.0])
    assert check("(A + A.T) @ x", form, x, A)
    verdict = check("2 * A @ x", form, x, A)
    assert verdict and "as long as A is symmetric" in str(verdict)
    assert not check("2 * A @ x", form, x, np.array([[2.0, 1.0], [0.5, 3.0]]))
    verdict = check("u / 1", lambda s, u: np.sum(s * u) / np.sum(u * u), x, np.array([0.6, 0.8]))
    assert verdict and "as long as u has length 1" in str(verdict)
    verdict = check("[L[0, 0], 0]", lambda x, L: L[0] @ x, x, np.array([[2.0, 0.0], [1.0, 3.0]]))
    assert verdict and "as long as L keeps its zeros" in str(verdict)


def test_layouts_that_people_use():
    def f(W, X):
        Z = W @ X
        A = np.tanh(Z)
        return A

    W, X = RNG.normal(size=(3, 2)), RNG.normal(size=(2, 4))
    verdict = check("1 - A²", f, W, X, of="A", wrt="Z")
    assert verdict and "diagonal" in str(verdict)
    assert check("W", f, W, X, of="Z", wrt="X")
    assert check("X", f, W, X, of="Z", wrt="W")
    assert check(fg.jacobian(f)(W, X), f, W, X)
    assert check("1 - A", f, W, X, of="A", wrt="Z").cause == "local derivative"

    def row(w, x):
        y = np.sum(w * x)
        return y

    w, x = RNG.normal(size=(1, 4)), RNG.normal(size=(1, 4))
    for claim in (x, x.T, x.ravel()):
        assert check(claim, row, w, x)
    assert "rows, columns and vectors" in str(check(x.ravel(), row, w, x))
    assert "one number for all" in str(check("2", lambda x: np.sum(2.0 * x), x))


def test_claims_as_functions_and_numbers():
    f = two_layers
    right = fg.grad(f)(*NET)
    assert check(fg.grad(f), f, *NET)
    assert check(lambda a, b, c, d: fg.grad(f)(a, b, c, d), f, *NET)
    assert check(lambda h1, p, t: np.outer(p - t, h1), f, *NET, wrt="W2")
    assert check(right, f, *NET) and check(right.tolist(), f, *NET) and check(fg.tensor(right), f, *NET)
    assert check(np.cos, lambda x: np.sin(x), 0.3)
    assert check(right.astype(np.float32), f, *NET) or True
    verdict = check(-right, f, *NET)
    assert verdict.cause == "sign" and verdict.claimed.shape == verdict.exact.shape == (3, 4)
    assert verdict.error == pytest.approx(2.0)
    rounded = check(0.393, lambda x: fg.numpy.sigmoid(2.0 * x), 0.5)
    assert rounded and "to the digits given" in str(rounded)
    assert not check(0.394, lambda x: fg.numpy.sigmoid(2.0 * x), 0.5)
    assert not check(0.4, lambda x: fg.numpy.sigmoid(2.0 * x), 0.5)
    with pytest.raises(ZeroDivisionError):
        check(lambda w, x, y: 1 / 0, chain, *POINT)


def test_several_sides():
    assert check("dL/dw = 2*(p - y)*p*(1 - p)*x = (p - y)*2*p*(1 - p)*x", chain, *POINT)
    verdict = check("dL/dz = 2*(p - y)*p*(1 - p) = 2*(p - y)", chain, *POINT)
    assert verdict.cause == "two sides" and "is right for dL/dz" in verdict.message
    verdict = check("dL/dz = p = y", chain, *POINT)
    assert not verdict and verdict.cause != "two sides"
    assert check("[x >= 0] * 1", lambda x: fg.numpy.relu(x), 2.0)


def test_numbers_that_are_nearly_nothing():
    """A right claim is right where its terms cancel, saturate or are large."""
    def f(z):
        p = fg.numpy.sigmoid(z)
        L = -np.log(p)
        return L

    for z in (40.0, -40.0, 500.0, 1e-9, 0.0):
        assert check("p - 1", f, z), check("p - 1", f, z)
    assert not check("1 - p", f, 40.0)
    assert not check("0", f, 40.0)
    assert check("((1e8 + x) - 1e8) * 2", lambda x: x * x, 2.0)
    assert not check("2.0001 * x", lambda x: x * x, 2.0)
    assert check("2 * x", lambda x: x * x, 1e150)
    assert check("2 * x", lambda x: x * x, 1e-150)
    assert check("1 / x", lambda x: np.log(x), 0.3)
    assert check("1 / sqrt(1 - x²)", lambda x: np.arcsin(x), 0.99)
    assert check("n * x**(n - 1)", lambda x, n: x**n, 0.3, 3)


def test_kinks_have_several_right_answers():
    verdict = check("[x >= 0]", lambda x: fg.numpy.relu(x), np.zeros(2))
    assert verdict and "kink" in str(verdict)
    assert check("x / abs(x)", lambda x: abs(x), 0.0)
    assert not check("1", lambda x: abs(x), -2.0)


def test_single_precision_is_checked_in_double():
    point = [np.float32(v) for v in POINT]
    assert check("2*(p - y)*p*(1 - p)*x", chain, *point)
    assert check(fg.grad(chain)(*point), chain, *point)


def test_trees_and_modules():
    def f(p, x):
        z = p["w"] * x + p["b"]
        L = np.sum(z * z)
        return L

    p, x = {"w": np.ones(3), "b": np.zeros(3)}, np.array([1.0, 2.0, -1.0])
    assert check("2 * z", f, p, x, wrt="p['b']")
    with pytest.raises(ValueError, match="several parts: write one of p\\['b'\\], p\\['w'\\]"):
        check("2 * z", f, p, x, wrt="p")
    model = fg.nn.Linear(3, 2)

    def g(model, x, y):
        r = fg.mark(model(x) - y, "r")
        return np.sum(r * r)

    y = np.array([1.0, 0.0])
    before = model.weight.numpy().copy()
    assert check("2 * r", g, model, x, y, wrt="model.bias")
    assert check("outer(2 * r, x)", g, model, x, y, wrt="model.weight")
    assert check("outer(r, x)", g, model, x, y, wrt="model.weight").cause == "factor"
    assert (model.weight.numpy() == before).all()


def test_names_that_stand_for_several_values():
    def twice(x, w):
        h = np.tanh(w * x)
        h = np.sin(h)
        return h

    with pytest.raises(ValueError, match="h names 2 values"):
        check("1 - h²", twice, 0.5, 0.7)
    assert check(fg.grad(twice), twice, 0.5, 0.7)
    assert check("cos(arcsin(x))", lambda x: np.sin(np.arcsin(x)), 0.5).cause != "right"

    def loop(x, w):
        h = x
        for _ in range(2):
            h = np.tanh(w * h)
        return h

    assert check("(1 - h²) * w * (1 - tanh(w*x)²) * w", loop, 0.5, 0.7)


@pytest.mark.parametrize("arguments, options, words", [
    (("q",), {}, "q is not a name here; there are L, p, w, x, y, z"),
    (("p *",), {}, "is not a formula"),
    (("p.shape",), {}, "nothing like 'p.shape'"),
    (("__import__('os')",), {}, "no function __import__"),
    (("p",), {"wrt": "q"}, "wrt='q' is not a name here; there are"),
    (("p",), {"of": "q"}, "of='q' is not a name here; there are"),
    (("p",), {"wrt": 3}, "there are 3 arguments"),
    (("p",), {"wrt": "w[0]"}, "no such element"),
    (("p",), {"wrt": "w[a]"}, "whole numbers and colons"),
    (("p",), {"at": "there"}, "at='given'"),
    (("p",), {"at": [(1.0,)]}, "a point is a tuple of 3"),
    (("relu(p, 1, 2)",), {}, "relu"),
    ((lambda a, b: a,), {}, "the claim asks for a, b; there are"),
    ((lambda w, x, y: "text",), {}, "not numbers"),
    ((object(),), {}, "a formula, a function or numbers"),
])
def test_questions_that_make_no_sense(arguments, options, words):
    with pytest.raises(ValueError) as caught:
        check(*arguments, chain, *POINT, **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_random_point_outside_of_the_domain_is_left_out():
    def f(x, a):
        y = np.log(x - a)
        return y

    assert check("1 / (x - a)", f, 2.0, 1.5)
    assert check("-1 / (x - a)", f, 2.0, 1.5).cause == "sign"


PIECES = st.recursive(
    st.sampled_from(["x", "w", "W1", "W2", "h1", "z1", "p", "t", "E", "1", "-2.5", "0", "None", "[]", "[1, 2]", "True"]),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(sorted(FUNCTIONS)), st.lists(inner, max_size=3)).map(lambda c: f"{c[0]}({', '.join(c[1])})"),
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "@", "**", ">"]), inner).map(lambda c: f"({c[0]} {c[1]} {c[2]})"),
        st.tuples(inner, inner).map(lambda c: f"{c[0]}[{c[1]}]"), inner.map(lambda c: f"({c}).T")),
    max_leaves=6)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(PIECES, st.sampled_from(["W1", "z1", "x", "h1", "W2[0]", "x[1]"]), st.sampled_from([None, "z2", "p", "h1[0]"]))
def test_any_formula_gets_a_verdict_or_a_ValueError(claim, wrt, of):
    try:
        verdict = check(claim, two_layers, *NET, wrt=wrt, of=of)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert verdict.message and "\n" not in verdict.message and str(verdict)


def test_a_derivative_that_is_0():
    def f(x, y):
        a = x * x
        b = np.sum(a) + np.sum(y)
        return b

    x, y = np.array([1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    for claim in ("0", "0 * y", np.zeros(3), np.zeros((2, 3))):
        assert check(claim, f, x, y, of="a", wrt="y")
    assert check("y", f, x, y, of="a", wrt="y").cause == "should be zero"


def test_the_label_of_a_claim_is_the_question():
    assert check("dL/dz = 2*(p - y)*p*(1 - p)", chain, *POINT, wrt="z")
    with pytest.raises(ValueError, match="is about z, and wrt='w' asks something else"):
        check("dL/dz = 2*(p - y)*p*(1 - p)", chain, *POINT, wrt="w")


def test_a_mistake_at_a_kink_is_found():
    def f(x):
        a = fg.numpy.relu(x)
        L = np.sum(a * a * a)
        return L

    x = np.array([0.0, 1.0, -1.0])
    assert check("3 * a² * [x >= 0]", f, x)
    assert check("-3 * a² * [x >= 0]", f, x).cause == "sign"


# The command line

@pytest.mark.parametrize("argv, code, words", [
    (["(x + y) * z", "--wrt", "x", "--claim", "z", "x=-2", "y=5", "z=-4"], 0, "Right: this is df/dx."),
    (["(x + y) * z", "--wrt", "x", "--claim", "-z", "x=-2", "y=5", "z=-4"], 1, "The sign is wrong"),
    (["q = x + y; f = q * z", "--of", "f", "--wrt=q", "--claim=z", "x=-2", "y=5", "z=-4"], 0, "df/dq"),
    (["x**2", "--claim", "x**2", "x=2", "--at", "given"], 0, "Right"),
    (["W @ x", "--claim", "W", "--wrt", "x", "W=[[1,2],[3,4]]", "x=[1,2]"], 0, "Right"),
    (["(x + y", "--claim", "1", "x=1", "y=2"], 2, "is not a formula"),
    (["x + y", "--claim", "u", "x=1", "y=2"], 2, "u is not a name here; there are f, x, y"),
    (["x + u", "--claim", "1", "x=1"], 2, "u is not a name here"),
    (["x * x", "--claim", "1"], 2, "no values"),
    (["x * x", "x=2"], 2, "--claim"),
    (["x * x", "--claim", "1", "x=two"], 2, "the value is a number"),
    (["x = x * x", "--claim", "1", "x=2"], 2, "x is there already"),
    (["W @ x", "--claim", "W", "W=[[1,2]]", "x=[1,2,3]"], 2, "do not fit"),
    ([";", "--claim", "1", "x=2"], 2, "empty"),
    (["3", "--claim", "1", "x=2"], 2, ""),
    (["x", "--claim", "1", "x=2"], 2, ""),
])
def test_the_command_line(argv, code, words, capsys):
    assert main(argv) == code
    told = capsys.readouterr()
    assert words in told.out + told.err
    if code == 2:
        assert told.err.startswith("check: ") and told.err.count("\n") == 1 and not told.out
