"""The mistakes that people make in one step of a chain rule, as rules for a sweep.

A local derivative is forgotten, taken twice, taken wrong; a way to the output is left out.  Each mistake has its sentence.
Knows nothing about claims: ``diagnosis.py`` tries which mistake gives one.
"""

import numpy as np

from fastgrad.learn.graph import ROWS
from fastgrad.learn.naming import factor_name, operand_text, text_of

__all__ = ["Mistake", "fit", "mistakes"]


class Mistake:
    """A step with another rule.

    Attributes
    ----------
    cause : str
    rank : int
        The order in which mistakes are tried: those that people make most come first.
    index : int
        The step.
    positions : tuple of int
        Which of its operands.
    rule : callable
        Gives, for (step, operand, cotangent, contribution), another contribution.
    name : str
        Of the local derivative.
    words : str
        With places for the claim and the name.
    """

    def __init__(self, cause, rank, step, positions, rule, name, words):
        self.cause, self.rank, self.index, self.positions = cause, rank, step.index, positions
        self.rule, self.name, self.words = rule, name, words

    def change(self):
        """The rules of the sweep that makes the mistake."""
        return {(self.index, j): self.rule for j in self.positions}

    def sentence(self, quantity):
        """What is wrong with a claim for a quantity."""
        return self.words.replace("{claim}", f"The claim for {quantity}").replace("{name}", self.name)


def mistakes(steps, j):
    """The mistakes that are made with operand j of a step.

    Parameters
    ----------
    steps : list of Step
        The same step at each point.
    j : int

    Returns
    -------
    list of Mistake
    """
    step = steps[0]
    found = []

    def add(cause, rank, rule, words, positions=(j,)):
        found.append(Mistake(cause, rank, step, positions, rule, factor_name(step, j), words))

    def scaled(change):
        """A rule: the cotangent times ``change(step)``, an array of the shape of the value."""
        def rule(index_step, operand, cotangent, value):
            return fit(cotangent * change(index_step), operand.shape)
        return rule

    def nothing(index_step, operand, cotangent, value):
        return np.zeros(operand.shape)

    if step.operation == "multiply" and step.operands[0] is step.operands[1]:
        if j == 0:
            square, x = text_of(step), operand_text(step, 0)
            add("missing factor", 0, scaled(lambda s: 1.0), "{claim} lacks the factor {name}: multiply by it.", (0, 1))
            add("local derivative", 2, nothing,
                f"{{claim}} has a wrong local derivative in the step {square}: the 2 of 2 * {x} is missing.")
            add("sign", 3, scaled(lambda s: -s.local(0)),
                "{claim} has a wrong sign at the term that comes through " + square + ".", (0, 1))
            add("missing term", 6, nothing, "{claim} lacks a term: what comes through " + square + ".", (0, 1))
        return found
    if step.operation in ROWS:
        locals_ = [one.local(j) for one in steps]
        if all((local == -1).all() for local in locals_):
            add("sign", 2, scaled(lambda s: 1.0), "{claim} has lost the minus sign of " + text_of(step) + ".")
        elif not all((local == 1).all() for local in locals_):
            add("missing factor", 0, scaled(lambda s: 1.0), "{claim} lacks the factor {name}: multiply by it.")
            minus = found[-1].name.startswith("-")
            add("missing factor", 1, scaled(lambda s: -1.0), "{claim} lacks the factor {name}" + (
                ", but for its sign: multiply by the rest." if minus else ", and the sign is wrong: multiply by -{name}."))
            add("extra factor", 1, scaled(lambda s: s.local(j) ** 2), "{claim} has the factor {name} twice.")
            add("extra factor", 4, scaled(lambda s: 1 / s.local(j)), "{claim} divides by {name} where it should multiply by it.")
            add("sign", 3, scaled(lambda s: -s.local(j)), "{claim} has a wrong sign at the factor {name}.")
        else:
            add("sign", 3, scaled(lambda s: -1.0), 
                "{claim} has a wrong sign at the term that comes through " + text_of(step) + ".")
        for change, words in wrong_locals(step, j):
            add("local derivative", 2, scaled(change),
                f"{{claim}} has a wrong local derivative in the step {text_of(step)}: {words}.")
    elif step.operation == "softmax":
        add("local derivative", 2, scaled(lambda s: s.value * (1 - s.value)),
            "{claim} uses only the diagonal of the Jacobian of the softmax, A_i (1 - A_i); "
            "the elements -A_i A_j off it are missing.")
        add("missing factor", 3, scaled(lambda s: 1.0), "{claim} lacks the Jacobian of the softmax.")
    elif step.operation == "matmul" and len(step.operands) == 2 and step.operands[1 - j] is not None:
        add("transposed", 5, untransposed(j),
            f"{{claim}} has {text_of(step.operands[1 - j])} where its transpose should be, "
            f"in the step {text_of(step)}.")
    elif step.operation == "mean":
        add("factor", 3, lambda s, operand, cotangent, value: value * (operand.value.size / max(s.value.size, 1)),
            f"{{claim}} lacks the 1/{step.operands[0].value.size // max(step.value.size, 1)} of {text_of(step)}.")
    add("missing term", 6, nothing, f"{{claim}} lacks a term: what comes through {text_of(step)}"
        + (f", operand {j + 1}" if len(step.operands) == 2 and step.operands[0] is step.operands[1] else "") + ".")
    return found


def untransposed(j):
    def rule(step, operand, cotangent, value):
        other = step.operands[1 - j].value
        try:
            made = cotangent @ other if j == 0 else other @ cotangent
        except ValueError:
            return np.full(operand.shape, np.nan)
        return made if made.shape == operand.shape else np.full(operand.shape, np.nan)
    return rule


def fit(array, shape):
    """Summed to the shape of what was broadcast."""
    extra = array.ndim - len(shape)
    array = array.sum(tuple(range(extra)))
    axes = tuple(k for k, n in enumerate(shape) if n == 1 and array.shape[k] != 1)
    return array.sum(axes, keepdims=True) if axes else array


def wrong_locals(step, j):
    """What is written instead of a local derivative: (function of the step, words)."""
    def x(s):
        return s.operands[0].value

    def y(s):
        return s.operands[1].value

    def v(s):
        return s.value

    operation, name, value = step.operation, operand_text(step, 0), text_of(step)
    if operation == "sigmoid":
        return [(lambda s: v(s), f"it has {value} where {value} * (1 - {value}) should be"),
                (lambda s: 1 - v(s), f"it has 1 - {value} where {value} * (1 - {value}) should be; in e^-z / (1 + e^-z)**2 "
                                     "that is the square lost"),
                (lambda s: np.exp(x(s)) * v(s)**2, "e^z where e^-z should be, in the numerator of e^-z / (1 + e^-z)**2"),
                (lambda s: v(s) * (1 + v(s)), f"it has {value} * (1 + {value}) where {value} * (1 - {value}) should be"),
                (lambda s: v(s)**2, f"it has {value}**2 where {value} * (1 - {value}) should be"),
                (lambda s: 1 - v(s)**2, f"it has the derivative of tanh, 1 - {value}**2"),
                (lambda s: x(s) * (1 - x(s)), f"{name} * (1 - {name}) takes the argument where the value {value} should be")]
    if operation == "tanh":
        return [(lambda s: 1 - v(s), f"it has 1 - {value} where 1 - {value}**2 should be: the square is lost"),
                (lambda s: 1 + v(s)**2, f"it has 1 + {value}**2 where 1 - {value}**2 should be"),
                (lambda s: v(s) * (1 - v(s)), f"it has the derivative of sigmoid, {value} * (1 - {value})"),
                (lambda s: v(s)**2, f"it has {value}**2 where 1 - {value}**2 should be"),
                (lambda s: 1 - x(s)**2, f"1 - {name}**2 takes the argument where the value {value} should be")]
    if operation == "relu":
        return [(lambda s: v(s), f"it has {value} itself where [{name} > 0] should be"),
                (lambda s: (x(s) < 0) * 1.0, f"it has [{name} < 0] where [{name} > 0] should be"),
                (lambda s: np.sign(x(s)), f"it has the sign of {name} where [{name} > 0] should be")]
    if operation == "exp":
        return [(lambda s: 1 / v(s), f"the exponent has the wrong sign, e^-({name}) where e^({name}) should be"),
                (lambda s: x(s) * np.exp(x(s) - 1), "the power rule does not apply to exp, which is its own derivative")]
    if operation == "log":
        return [(lambda s: v(s), f"it has {value} itself where 1 / ({name}) should be")]
    if operation == "sqrt":
        return [(lambda s: 1 / v(s), f"the 1/2 of 1 / (2 {value}) is missing"),
                (lambda s: v(s) / 2, f"it has {value} / 2 where 1 / (2 {value}) should be")]
    if operation == "square":
        return [(lambda s: x(s), f"the 2 of 2 * {name} is missing"),
                (lambda s: 2.0 + 0 * x(s), f"the {name} of 2 * {name} is missing"),
                (lambda s: 2 * v(s), f"it has 2 * {value}: the exponent was not lowered"),
                (lambda s: v(s), f"it has {value} itself")]
    if operation == "power" and j == 0:
        return [(lambda s: x(s) ** (y(s) - 1), "the exponent in front is missing"),
                (lambda s: y(s) * v(s), "the exponent was not lowered"),
                (lambda s: y(s) + 0 * x(s), f"the power of {name} is missing"),
                (lambda s: v(s), f"it has {value} itself"),
                (lambda s: v(s) / y(s), "it divides by the exponent where it should multiply by it"),
                (lambda s: y(s) * x(s) ** (y(s) + 1), "the exponent was raised, not lowered")]
    if operation == "divide" and j == 1:
        formula = f"-({name}) / ({operand_text(step, 1)})**2"
        return [(lambda s: -x(s) / y(s), f"the square of the denominator is lost, in {formula}"),
                (lambda s: -1 / y(s)**2, f"the numerator {name} is missing, in {formula}"),
                (lambda s: x(s) / y(s), "the square of the denominator and the minus sign are lost")]
    if operation == "reciprocal":
        return [(lambda s: -v(s), "the square of the denominator is lost")]
    if operation in ("sin", "cos"):
        return [(lambda s: v(s), f"it has {value} itself")]
    return []
