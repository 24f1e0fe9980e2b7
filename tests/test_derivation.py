"""Gradients derived by hand, right and wrong: a right one is never called wrong, and the cause of a wrong one is found.

The random cases derive their formulas with rules of their own, in text, and know nothing about how the engine does it.
"""

import inspect

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.learn.check_command import function_of_formulas, main
from fastgrad.learn.expressions import parse

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
CORRUPTIONS_OF_A_CHAIN = ("sign", "factor", "missing factor", "twice", "other quantity", "two missing")
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
    z = "x"
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
            continue_ = (None, None, None)
            locals_.append(continue_)
        else:
            name = rng.choice(list(KNOWN))
            statements.append(f"{new} = {name}({z})")
            locals_.append((KNOWN[name][int(rng.integers(2))].format(a=new, z=z), f"{name}'({z})", None))
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


def really_wrong(case):
    """Whether a corruption changed anything, and the right claim is well away from 0: computed here, with the formulas."""
    values = dict(case.values)
    for statement in case.text.split("; "):
        name, formula = statement.split(" = ", 1)
        values[name] = parse(formula, values)(values)
    right = np.asarray(parse(case.right, values)(values), float)
    if not np.isfinite(right).all() or np.abs(right).max() < 1e-6 or np.abs(right).max() > 1e6:
        return False
    try:
        wrong = case.wrong(**{name: values[name] for name in inspect.signature(case.wrong).parameters}) if callable(case.wrong) \
            else parse(case.wrong, values)(values)
    except ValueError:
        return True
    wrong = np.asarray(wrong, float)
    return wrong.shape != right.shape or np.abs(wrong - right).max() > 1e-3 * np.abs(right).max()


def random_cases(count, seed):
    rng = np.random.default_rng(seed)
    kinds = [(a_chain, c) for c in CORRUPTIONS_OF_A_CHAIN] + [(an_array, c) for c in CORRUPTIONS_OF_AN_ARRAY] + \
        [(layers, c) for c in CORRUPTIONS_OF_LAYERS]
    made = 0
    while made < count:
        make, corruption = kinds[int(rng.integers(len(kinds)))]
        case = make(rng, corruption)
        if case is not None and really_wrong(case):
            made += 1
            yield corruption, case


def test_of_random_claims_the_right_are_never_called_wrong_and_the_cause_of_the_wrong_is_named():
    right = missed = 0
    failures = []
    count = 200
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
