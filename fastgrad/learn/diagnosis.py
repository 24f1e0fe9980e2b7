"""What is wrong with a wrong derivative: every mistake that people make is made on purpose, and compared with the claim.

Mistakes in a whole result (a sign, a factor, a transposition, a sum) are made in the exact derivative.  Mistakes in one step
(its local derivative forgotten, taken twice, one of two ways to the output left out) are made in the sweep: it runs again
with another rule at that step.  A mistake explains a claim if it gives the claim at all points.

Knows nothing about how claims are read.
"""

import itertools
import math
from fractions import Fraction

import numpy as np

from fastgrad.learn.arrangements import arranged
from fastgrad.learn.expressions import parse
from fastgrad.learn.graph import ROWS
from fastgrad.learn.layouts import layouts, plain, squeezed
from fastgrad.learn.mistakes import mistakes
from fastgrad.learn.naming import factor_name, operand_text, quantity, text_of
from fastgrad.learn.questions import with_abbreviations
from fastgrad.learn.verdict import Verdict, numbers

__all__ = ["at_a_kink", "diagnose", "of_failure"]

MOST_ELEMENTS = 64          # of which a table is printed
MOST_SWEEPS = 3000          # for mistakes in steps
MOST_PAIRS = 1600           # of factors
KINKS = ("relu", "leaky_relu", "absolute", "sign", "maximum", "minimum", "fmax", "fmin", "clip", "hypot", "max", "min")
CONSTANTS = {"ln 2": math.log(2), "ln 10": math.log(10), "pi": math.pi, "e": math.e,
             "sqrt(pi)": math.sqrt(math.pi), "sqrt(2 pi)": math.sqrt(2 * math.pi)}


class Finding:
    """A cause, the sentence, and lines to be read after it."""

    def __init__(self, cause, message, details=()):
        self.cause, self.message, self.details = cause, message, list(details)


class Claim:
    """A wrong claim and the exact derivative in the same layout, at each point."""

    def __init__(self, question, text, points, layout):
        self.question, self.text, self.points, self.layout = question, text, points, layout
        self.name = question.quantity
        self.claimed = [point.claimed for point in points]
        read = [layout.read(point.exact) for point in points]
        self.fits = squeezed(read[0].shape) == squeezed(self.claimed[0].shape)
        self.exact = [r.reshape(c.shape) for r, c in zip(read, self.claimed)] if self.fits else read
        self.shape = self.exact[0].shape
        self.only_numbers = points[0].digits is not None

    def given(self, point):
        """The exact derivative at a point in the layout of the claim."""
        exact = self.layout.read(point.exact)
        return exact.reshape(point.claimed.shape) if self.fits else exact

    def read(self, point, jacobian):
        """A Jacobian of other rules, as the claim would have it."""
        return self.layout.read(point.asked(jacobian)).reshape(self.shape)

    def explained(self, make):
        """Whether ``make(k, point)`` is the claim at every point, and at one is more than a rounding error."""
        telling = False
        for k, point in enumerate(self.points):
            made = make(k, point)
            if made is None or made.shape != self.claimed[k].shape or not np.isfinite(made).all() \
                    or not point.close(made, self.claimed[k]).all():
                return False
            telling = telling or bool((np.abs(made) > 10 * point.small).any())
        return telling

    def would_be_right(self, make):
        """Whether ``make(k, point)``, a mended claim, is the exact derivative at every point."""
        for k, point in enumerate(self.points):
            made = make(k, point)
            if made is None or made.shape != self.exact[k].shape or not np.isfinite(made).all() \
                    or not point.close(made, self.exact[k]).all():
                return False
        return any((np.abs(self.exact[k]) > 10 * point.small).any() for k, point in enumerate(self.points))


def diagnose(question, text, points):
    """The verdict on a wrong claim.

    Parameters
    ----------
    question : Question
    text : str, callable or array_like
        The claim as it was given.
    points : list of Point
        The given one first.

    Returns
    -------
    Verdict
    """
    given = points[0]
    points = [p for p in points if p.claimed.shape == given.claimed.shape and p.exact.shape == given.exact.shape
              and p.shape_of_steps == given.shape_of_steps]
    telling = [p for p in points if max(p.scale, np.abs(p.claimed).max(initial=0.0)) > 1e5 * p.small or p is given]
    points = telling if len(telling) > 1 else points        # elsewhere, rounding errors say more than mistakes
    if len(points) > 1 and at_a_kink(given):
        points = points[1:]                                 # there, claims may differ for another reason
    found_layouts = layouts([p.exact for p in points], given.n)
    fitting = [one for one in found_layouts if squeezed(one.read(given.exact).shape) == squeezed(given.claimed.shape)]
    claim = Claim(question, text, points, (fitting or found_layouts)[0])
    finding = None
    if not np.isfinite(given.claimed).all() and np.isfinite(given.exact).all():
        finding = Finding("not finite", f"The claim for {claim.name} is {numbers(given.claimed)}; the derivative is finite.")
    elif not np.isfinite(given.exact).all():
        finding = Finding("not finite", f"{claim.name} is not finite at the given point ({numbers(given.exact)}), and "
                          "the claim differs there.")
    for search in (SAME_SHAPE if claim.fits else OTHER_SHAPE):
        finding = finding or search(claim)
    finding = finding or general(claim)
    details = list(finding.details)
    if claim.fits and given is claim.points[0] and given.close(claim.claimed[0], claim.exact[0]).all():
        sentence = finding.message[0].lower() + finding.message[1:] if finding.message.startswith("The ") else finding.message
        finding.message = f"Right at the given point, wrong at others: {sentence}"
    wrong = [k for k, p in enumerate(claim.points) if claim.fits and not p.close(claim.claimed[k], claim.exact[k]).all()]
    details += table(claim, wrong[0] if wrong else 0)
    return Verdict(finding.cause, finding.message, details, error_of(claim), given.claimed, claim.given(given))


def error_of(claim):
    if not claim.fits:
        return np.nan
    return max(np.max(np.abs(c - e), initial=0.0) / (p.scale or 1.0)
               for c, e, p in zip(claim.claimed, claim.exact, claim.points))


def table(claim, k):
    """Claim and derivative side by side, element by element where there are few."""
    point, c, e = claim.points[k], claim.claimed[k], claim.exact[k]
    where = "" if point.kind == "given" else f" at {arguments(point)}"
    if not claim.fits:
        return [f"the claim has shape {c.shape}: {numbers(c)}",
                f"{claim.name} has shape {e.shape}: {numbers(e)}"]
    if e.size == 1:
        return [f"the claim is {float(c.ravel()[0]):.6g}, {claim.name} is {float(e.ravel()[0]):.6g}{where}"]
    right = point.close(c, e)
    lines = [f"{int(right.sum())} of {right.size} elements are right{where}"]
    if e.ndim > 2 or e.size > MOST_ELEMENTS:
        wrong = np.argwhere(~right)
        lines += [f"[{', '.join(map(str, index))}] is {e[tuple(index)]:.4g}, not {c[tuple(index)]:.4g}" for index in wrong[:6]]
        return lines + ([f"and {len(wrong) - 6} more"] if len(wrong) > 6 else [])
    cells = [[f"{x + 0.0:.4g}" if ok else f"{x + 0.0:.4g} (not {y + 0.0:.4g})" for x, y, ok in zip(*rows)]
             for rows in zip(np.atleast_2d(e), np.atleast_2d(c), np.atleast_2d(right))]
    width = max(len(cell) for row in cells for cell in row)
    return lines + ["  ".join(cell.ljust(width) for cell in row).rstrip() for row in cells]


def arguments(point):
    """The arguments of a point in few words."""
    parts = []
    for name, arg in zip(point.question.places, point.args):
        array = np.asarray(arg) if not isinstance(arg, (dict, list, tuple)) else None
        if array is not None and array.dtype.kind in "fiu" and array.size <= 4:
            parts.append(f"{name}={numbers(array)}")
    return ", ".join(parts) if parts and len(parts) == len(point.args) else "another point"


# Mistakes in a whole result

def nothing_there(c):
    """The derivative is 0 throughout."""
    if any((np.abs(e) > 0).any() for e in c.exact):
        if all(not x.any() for x in c.claimed):
            return Finding("should not be zero", f"The claim is 0, and {c.name} is not.")
        return None
    also = same_as_another(c)
    why = f"{c.question.of}{c.question.of_text} does not depend on {c.question.wrt}{c.question.wrt_text}"
    return Finding("should be zero", f"{c.name} should be 0: {why}." + (f" The claim is {also}." if also else ""))


def sign(c):
    if c.explained(lambda k, p: -c.exact[k]):
        return Finding("sign", f"The sign is wrong: the claim is -{c.name}.", its_other_name(c))
    return None


def another_number(c):
    """One number is taken for another derivative first: the ratio of two numbers says little."""
    return another_quantity(c) if c.only_numbers and c.claimed[0].size == 1 else None


def transposed(c):
    if c.claimed[0].ndim != len(c.shape):
        return None
    for order in itertools.permutations(range(len(c.shape))):
        if order != tuple(range(len(c.shape))) and c.would_be_right(lambda k, p: c.claimed[k].transpose(order)):
            return Finding(
                "transposed", f"The claim is {c.name} transposed: it has shape {c.claimed[0].shape}, and should have "
                           f"{c.shape}." if c.claimed[0].shape != c.shape else f"The claim is {c.name} transposed.")
    return None


def factor(c):
    """The same number everywhere."""
    ratios = []
    for k, point in enumerate(c.points):
        solid = np.abs(c.exact[k]) > 1e3 * point.small
        if solid.any():
            ratios.append(c.claimed[k][solid] / c.exact[k][solid])
    if not ratios:
        return None
    ratios = np.concatenate(ratios)
    ratio = float(np.median(ratios))
    if ratio == 0 or not c.explained(lambda k, p: ratio * c.exact[k]):
        return None
    name = number_name(ratio, 1e-4 if c.points[0].digits is not None and c.points[0].digits.any() else 1e-7)
    if name is None and ratios.size < 2:
        return None
    return Finding("factor", factor_sentence(c, ratio, name or f"{ratio:.6g}"), its_other_name(c))


def number_name(x, tolerance):
    """A fraction, or a constant that people know; None for any other number."""
    for most in (1, 12, 100):
        fraction = Fraction(x).limit_denominator(most)
        if fraction and abs(float(fraction) - x) <= tolerance * abs(x) and (most <= 12 or tolerance < 1e-6):
            if most == 1 and abs(fraction) > 10**4:
                return None
            return str(fraction)
    square = Fraction(x * x).limit_denominator(12) if abs(x) < 1e4 else Fraction(0)
    if square and abs(math.sqrt(square) - abs(x)) <= tolerance * abs(x) and tolerance < 1e-6:
        return f"{'-' if x < 0 else ''}{'1/' if square.numerator == 1 else ''}sqrt({square if square.numerator > 1 else square.denominator})"
    for name, value in CONSTANTS.items():
        for sign_name, sign_value in (("", 1), ("-", -1)):
            if abs(sign_value * value - x) <= tolerance * abs(x):
                return sign_name + name
            if abs(sign_value / value - x) <= tolerance * abs(x):
                return f"{sign_name}1/({name})" if " " in name else f"{sign_name}1/{name}"
    return None


def factor_sentence(c, ratio, name):
    if ratio < 0:
        size = name.removeprefix("-")
        return f"The claim is {name} times {c.name}: the sign and a factor {size} are wrong."
    if ratio > 1:
        text = f"The claim is {name} times too large."
        n = ratio
    else:
        inverse = number_name(1 / ratio, 1e-4) or f"{1 / ratio:.6g}"
        text = f"The claim is {inverse} times too small."
        n = 1 / ratio
    if abs(n - round(n)) < 1e-6 and round(n) > 1:
        where = dimension(c, round(n))
        if where and ratio > 1:
            text += f" {round(n)} is {where}: is the 1/{round(n)} of a mean missing?"
        elif where:
            text += f" {round(n)} is {where}: is there a mean where a sum should be?"
        elif round(n) == 2 and ratio < 1:
            text += " Is the 2 of a square missing?"
    return text


def dimension(c, n):
    """The array of which n is a dimension."""
    for step in c.points[0].graph.steps:
        if step.operation == "mean" and step.operands[0] is not None and step.operands[0].value.size == n * step.value.size:
            return "the number of elements that the mean is taken of"
    for place, arg in zip(c.question.places, c.points[0].args):
        shape = np.shape(arg) if not isinstance(arg, (dict, list, tuple)) else ()
        if n in shape and n > 2:
            return f"{place}.shape[{shape.index(n)}]"
    return None


def summed(c):
    """A sum too much or too few, with the shape as it should be."""
    axes = [axis for axis, n in enumerate(c.shape) if n > 1]
    for chosen in subsets(axes):
        if c.explained(lambda k, p: np.broadcast_to(c.exact[k].sum(chosen, keepdims=True), c.shape)):
            return Finding(
                "extra sum", f"The claim is summed over {axes_text(chosen, c.shape)} of {c.name}, which should not be summed.")
        if c.would_be_right(lambda k, p: np.broadcast_to(c.claimed[k].sum(chosen, keepdims=True), c.shape)):
            return Finding(
                "missing sum", f"A sum is missing: {c.name} is the claim summed over {axes_text(chosen, c.shape)}.")
    return None


def subsets(axes):
    return [chosen for count in range(1, len(axes) + 1) for chosen in itertools.combinations(axes, count)]


def axes_text(chosen, shape):
    if len(chosen) == len(squeezed(shape)):
        return "all elements"
    if len(shape) == 2:
        return f"axis {chosen[0]} (the {shape[chosen[0]]} {'rows' if chosen[0] == 0 else 'columns'})"
    return f"ax{'i' if len(chosen) == 1 else 'e'}s {', '.join(map(str, chosen))}"


def shifted(c):
    for axis, n in enumerate(c.shape):
        if n < 2:
            continue
        for by in range(1, n):
            if c.explained(lambda k, p: np.roll(c.exact[k], by, axis)):
                way = by if by <= n // 2 else by - n
                return Finding(
                    "shifted", f"The elements of {c.name} are in the wrong places: shifted by {way} along axis {axis}.")
        if c.explained(lambda k, p: np.flip(c.exact[k], axis)):
            return Finding("shifted", f"The elements of {c.name} are in reverse order along axis {axis}.")
        if n <= 5:
            for order in itertools.permutations(range(n)):
                if c.explained(lambda k, p: np.take(c.exact[k], order, axis)):
                    return Finding(
                        "shifted", f"The elements of {c.name} are in another order along axis {axis}: the claim has "
                                   f"{', '.join(map(str, order))}.")
        if n >= 3:
            for by in (1, -1):
                here, there = (slice(by, None), slice(None, -by)) if by > 0 else (slice(None, by), slice(-by, None))
                cut = (slice(None),) * axis
                ends_meet = all(p.close(c.claimed[k][cut + (here,)], c.exact[k][cut + (there,)]).all()
                                for k, p in enumerate(c.points))
                if ends_meet and np.ptp(c.exact[0]) > 1e3 * c.points[0].small:
                    return Finding(
                        "shifted", f"The elements of {c.name} are in the wrong places: shifted by {by} along axis {axis}.")
    return None


def parts(c):
    """Some elements are wrong: which, and what they have in common."""
    right = np.ones(c.shape, bool)
    for k, point in enumerate(c.points):
        right &= point.close(c.claimed[k], c.exact[k])
    wrong = ~right
    if not c.shape or not right.any() or not wrong.any():
        return None
    which = pattern(wrong)
    are = "is" if which.startswith(("row ", "column ", "element ", "the diagonal")) else "are"
    claimed, exact = [x[wrong] for x in c.claimed], [x[wrong] for x in c.exact]
    if all(not e.any() for e in exact):
        return Finding("should be zero", f"{which[0].upper() + which[1:]} of {c.name} should be 0.")
    if all(not x.any() for x in claimed):
        return Finding(
            "should not be zero", f"{which[0].upper() + which[1:]} of {c.name} {are} 0 in the claim, and should not be.")
    wrong_index = index_mistake(c, wrong)
    if wrong_index:
        return Finding("index", f"{which[0].upper() + which[1:]} {are} wrong: {wrong_index}")
    if all(p.close(-x, e).all() for p, x, e in zip(c.points, claimed, exact)):
        return Finding("sign", f"The sign of {which} of {c.name} is wrong.")
    solid = [np.abs(e) > 1e3 * p.small for p, e in zip(c.points, exact)]
    ratios = np.concatenate([x[s] / e[s] for x, e, s in zip(claimed, exact, solid)])
    if ratios.size > 1 and np.ptp(ratios) <= 1e-6 * abs(ratios[0]):
        return Finding("factor", f"{which[0].upper() + which[1:]} of {c.name} {are} off by a factor "
                       f"{number_name(float(ratios[0]), 1e-6) or f'{ratios[0]:.6g}'}; the other elements are right.")
    return Finding("elements", f"{which[0].upper() + which[1:]} of {c.name} {are} wrong; the other elements are right.")


def pattern(wrong):
    """Words for where elements are."""
    if wrong.ndim == 2:
        n, m = wrong.shape
        eye = np.eye(n, m, dtype=bool)
        if n > 1 and m > 1:
            if n == m and (wrong == ~eye).all():
                return "the elements off the diagonal"
            if n == m and (wrong == eye).all():
                return "the diagonal"
            if n == m and not wrong[~np.triu(np.ones_like(wrong), 1)].any() and wrong.sum() == n * (n - 1) // 2:
                return "the elements above the diagonal"
            if n == m and not wrong[~np.tril(np.ones_like(wrong), -1)].any() and wrong.sum() == n * (n - 1) // 2:
                return "the elements below the diagonal"
            rows, columns = wrong.any(1), wrong.any(0)
            if (wrong == rows[:, None]).all():
                return counted("row", np.flatnonzero(rows))
            if (wrong == columns[None, :]).all():
                return counted("column", np.flatnonzero(columns))
            if n == m and not wrong[eye].any():
                return "elements off the diagonal"
            if n == m and not wrong[~eye].any():
                return "elements of the diagonal"
    indices = [f"[{', '.join(map(str, index))}]" for index in np.argwhere(wrong)]
    if len(indices) == 1:
        return f"element {indices[0]}"
    return f"the elements {', '.join(indices[:4])}" + (f" and {len(indices) - 4} more" if len(indices) > 4 else "")


def counted(what, indices):
    listed = ", ".join(map(str, indices))
    return f"{what} {listed}" if len(indices) == 1 else f"{what}s {listed}"


def index_mistake(c, wrong):
    """v[i] where v[j] should be."""
    if len(c.shape) != 2 or wrong.sum() < 2:
        return None
    n, m = c.shape
    for name, values in vectors(c).items():
        if values[0].size not in (n, m) or np.ptp(values[0]) == 0:
            continue
        if n == m and values[0].size == n:
            for (here, there), (one, other) in ((("i", "j"), (1, 0)), (("j", "i"), (0, 1))):
                if all(p.close((x * np.expand_dims(v, other))[wrong], (e * np.expand_dims(v, one))[wrong]).all()
                       for p, x, e, v in zip(c.points, c.claimed, c.exact, values)):
                    return f"element [i, j] has {name}[{here}] where {name}[{there}] should be."
    return None


def vectors(c):
    """The values that are rows, columns or vectors."""
    found = {}
    for name, make in values_of(c).items():
        arrays = [make(k, p) for k, p in enumerate(c.points)]
        if all(a is not None and len(squeezed(a.shape)) == 1 for a in arrays):
            found[name] = [a.ravel() for a in arrays]
    return found


def difference(c):
    """A value or a number too much or too few."""
    if not c.shape and len(c.points) < 2:
        return None
    deltas = [x - e for x, e in zip(c.claimed, c.exact)]
    first = float(deltas[0].ravel()[0])
    if all(p.close(d + e, first + e).all() for p, d, e in zip(c.points, deltas, c.exact)) and len(c.points) > 1:
        number = number_name(abs(first), 1e-6) or f"{abs(first):.6g}"
        return Finding("difference", f"The claim is {c.name} {'+' if first > 0 else '-'} {number}.")
    for name, make in values_of(c).items():
        if c.explained(lambda k, p: fitted(make(k, p), c.shape, c.exact[k], np.add)):
            return Finding("difference", f"The claim is {c.name} + {name}: a term too much.")
        if c.would_be_right(lambda k, p: fitted(make(k, p), c.shape, c.claimed[k], np.add)):
            return Finding("difference", f"The claim lacks the term {name}.")
    return None


# Mistakes in a step

def mistaken_step(c):
    """One step with another rule."""
    found = possible_mistakes(c, ways(c))
    most = MOST_SWEEPS // (steps_size(c) * max(1, len(c.points[0].graph.steps) // 20))
    for mistake in found[:most]:
        if made_by(c, mistake):
            left_out = (m for m in found if m.cause == "missing term" and m.index == mistake.index and made_by(c, m))
            mistake = next(left_out, mistake)       # the simpler explanation
            return Finding(mistake.cause, mistake.sentence(c.name), its_other_name(c))
    return None


def made_by(c, mistake):
    return c.explained(lambda k, p: c.read(p, p.jacobian(p.a, p.b, mistake.change())))


def possible_mistakes(c, steps):
    """Those in the steps on the way, the most frequent first."""
    found = [m for step, j in steps for m in mistakes([by_index(p, step.index) for p in c.points], j)]
    return sorted(found, key=lambda m: m.rank)


def forgotten_factors(c):
    return [m for m in possible_mistakes(c, ways(c)) if m.cause == "missing factor" and m.rank == 0]


def two_missing(c):
    """Two local derivatives forgotten, or two ways to the result."""
    for cause in ("missing factor", "missing term"):
        forgotten = [m for m in possible_mistakes(c, ways(c)) if m.cause == cause and m.rank in (0, 6)]
        if len(forgotten) > 16 or steps_size(c) > 20:
            continue
        for one, two in itertools.combinations(forgotten, 2):
            change = {**one.change(), **two.change()}
            if one.index != two.index and c.explained(lambda k, p: c.read(p, p.jacobian(p.a, p.b, change))):
                if cause == "missing factor":
                    return Finding(cause, f"The claim for {c.name} lacks two factors, {one.name} and {two.name}: multiply by both.")
                through = [text_of(by_index(c.points[0], m.index)) for m in (one, two)]
                return Finding(cause, f"The claim for {c.name} lacks two terms: what comes through {' and '.join(through)}.")
    return None


def steps_size(c):
    return 1 if c.points[0].a is None else int(np.prod(c.points[0].a.shape))


def ways(c):
    """(step, position) of every operand on a way from b to a."""
    point = c.points[0]
    if point.a is None or point.b is None:
        return []
    reached, found = {point.b.index}, []
    for step in point.graph.steps:
        if step.index > point.a.index:
            break
        for j, operand in enumerate(step.operands):
            if operand is not None and operand.index in reached and step.index != point.b.index:
                reached.add(step.index)
                found.append((step, j))
    seeds = {point.a.index}
    for step in reversed(point.graph.steps):
        if step.index in seeds and step.index != point.b.index:
            seeds.update(o.index for o in step.operands if o is not None)
    return [(step, j) for step, j in found if step.index in seeds and flows(step, j)]


def flows(step, j):
    return step.operation not in ROWS or step.local(j) is not None


# Factors among the values

def values_of(c):
    """A function (k, point) for each value and local derivative that a claim may have too much or too few, by name."""
    found = {}
    steps = c.points[0].graph.steps

    def value(index):
        return lambda k, p: np.asarray(by_index(p, index).value, float)

    def local(index, j):
        return lambda k, p: by_index(p, index).local(j)

    def primal(name):
        return lambda k, p: np.asarray(p.values[name], float)

    def element(name, index):
        return lambda k, p: np.asarray(p.values[name][index])

    for step in sorted(steps, key=lambda s: s.name is None):
        if step.value is not None and step.operation != "constant" and step.value.dtype.kind == "f":
            found.setdefault(text_of(step), value(step.index))
    for step in steps:
        if step.operation in ROWS and step.operation not in ("add", "subtract", "negative", "positive", "multiply"):
            for j in range(len(step.operands)):
                array = step.local(j)
                if array is not None and not (np.abs(array) == 1).all():
                    found.setdefault(factor_name(step, j), local(step.index, j))
    if c.shape == () and (c.question.of_index or c.question.wrt_index):
        for name in [name for name, v in c.points[0].values.items() if name in named_steps(c) and 1 < np.size(v) <= 16]:
            for index in np.ndindex(c.points[0].values[name].shape):
                found[f"{name}[{', '.join(map(str, index))}]"] = element(name, index)
    for name, make in slopes(c):
        found.setdefault(name, make)
    for name, array in c.points[0].values.items():
        if name not in found and name in c.question.places and not isinstance(array, (list, tuple)):
            found[name] = primal(name)
    return found


def slopes(c):
    """The derivatives of one number by another, between values on the way that have names: ``dL/dz3``."""
    point = c.points[0]
    on_the_way = {step.index for step, _ in ways(c)}
    named = [s for s in point.graph.steps
             if s.index in on_the_way and s.value.size == 1 and (s.name or s is point.graph.output)]
    pairs = [(a, b) for a, b in itertools.product(named, named) if b.index < a.index]
    return [(quantity(c.question.output if a is point.graph.output else a.label, b.label), slope(a.index, b.index))
            for a, b in pairs[:60]]


def slope(a, b):
    return lambda k, p: p.jacobian(by_index(p, a), by_index(p, b)).reshape(())


def named_steps(c):
    return {step.label for step in c.points[0].graph.steps if step.name}


def by_index(point, index):
    cached = point.__dict__.setdefault("_by_index", {s.index: s for s in point.graph.steps})
    return cached[index]


def fitted(value, shape, other, operation=np.multiply):
    """``other * value``, where value fits as it is, as a row, as a column or transposed."""
    if value is None or value.size == 0:
        return None
    for one in shaped(value, shape):
        return operation(other, one)
    return None


def shaped(value, shape):
    """value as it may be multiplied with an array of a shape."""
    if value.size == 1:
        return [value.reshape(())]
    ways_ = [value] if len(value.shape) <= len(shape) else []
    if value.ndim == 1 and len(shape) == 2:
        ways_ = [value[:, None], value[None, :]]
    elif value.ndim == 2:
        ways_ += [value.T]
        if 1 in value.shape and len(shape) == 1:
            ways_ += [value.ravel()]
    return [way for way in ways_ if _fits(way.shape, shape)]


def _fits(one, shape):
    try:
        return np.broadcast_shapes(one, shape) == tuple(shape)
    except ValueError:
        return False


def multiples(c, make):
    """The ways to bring a value into the shape of the claim, as functions (k, point)."""
    first = make(0, c.points[0])
    if first is None or first.size == 0 or (first.size == 1 and abs(float(first.ravel()[0])) == 1 and len(c.points) == 1):
        return
    for way in range(len(shaped(first, c.shape))):
        yield lambda k, p, way=way: shaped(make(k, p), c.shape)[way]


def missing_value(c):
    for name, make in values_of(c).items():
        for way in multiples(c, make):
            if c.would_be_right(lambda k, p: c.claimed[k] * way(k, p)):
                return Finding(
                    "missing factor", f"The claim for {c.name} lacks the factor {name}: multiply by it.", its_other_name(c))
    return None


def extra_value(c):
    if c.only_numbers and not c.shape:
        named = {name for name in values_of(c) if name.isidentifier()}
    else:
        named = None
    for name, make in values_of(c).items():
        if named is not None and name not in named:
            continue
        for way in multiples(c, make):
            if c.explained(lambda k, p: c.exact[k] * way(k, p)):
                return Finding(
                    "extra factor", f"The claim for {c.name} has the factor {name} too much: divide by it.", its_other_name(c))
    return None


def two_values(c):
    """Two factors too few or too many, or one in the place of another."""
    if c.only_numbers and not c.shape:
        return None
    found = [(name, way) for name, make in values_of(c).items() for way in multiples(c, make)]
    if len(found) ** 2 > MOST_PAIRS:
        found = found[:int(MOST_PAIRS ** 0.5)]
    pairs = list(itertools.combinations(found, 2))
    for (one, u), (two, v) in pairs:
        if c.would_be_right(lambda k, p: c.claimed[k] * u(k, p) * v(k, p)):
            return Finding(
                "missing factor", f"The claim for {c.name} lacks two factors, {one} and {two}: multiply by both.")
    for (one, u), (two, v) in pairs:
        if c.explained(lambda k, p: c.exact[k] * u(k, p) * v(k, p)):
            return Finding(
                "extra factor", f"The claim for {c.name} has two factors too many, {one} and {two}: divide by both.")
    slope_names = {name for name, _ in slopes(c)}
    for (one, u), (two, v) in itertools.permutations([pair for pair in found if pair[0] not in slope_names], 2):
        if c.explained(lambda k, p: c.exact[k] * u(k, p) / v(k, p)):
            return Finding("wrong factor", f"The claim for {c.name} has the factor {one} where {two} should be.")
    return None


# Right answers to other questions

def quantities(c):
    """(name, of the same a or b, function (k, point) giving a Jacobian) of the other derivatives of the graph."""
    point = c.points[0]
    steps = [s for s in point.graph.steps if s.operation != "constant"]
    named = [s for s in steps if s.name] + ([point.graph.output] if not point.graph.output.name else [])
    found = []
    for a in named:
        if a.is_source or a.value.size > 64:
            continue
        for b in steps:
            if b.index >= a.index and not (b.is_source and b.name) or b is a or (b.name is None and a is not point.a):
                continue
            if a is point.a and b is point.b and not (c.question.of_index or c.question.wrt_index):
                continue
            label = c.question.output if a is point.graph.output else a.label
            found.append((quantity(label, text_of(b)), 2 * (a is not point.a) + (b is not point.b) + 4 * (b.name is None),
                          a.index, b.index))
    return sorted(found, key=lambda q: q[1])


def same_as_another(c, named=False):
    """The name of another derivative that is the claim, by something that has a name if ``named``; None."""
    if all(np.isin(np.abs(x), (0, 1)).all() for x in c.claimed) or not np.isfinite(c.claimed[0]).all():
        return None
    for name, far, a, b in quantities(c)[:200]:
        if named and far >= 4:
            continue
        n = by_index(c.points[0], a).value.ndim
        there = c.points[0].jacobian(by_index(c.points[0], a), by_index(c.points[0], b))
        if there.size > 10_000 or there.size < c.claimed[0].size:
            continue

        def jacobian(p):
            return p.jacobian(by_index(p, a), by_index(p, b))

        for row, column in part_indices(c, there, n):
            if c.explained(lambda k, p: part_of(jacobian(p), row, column, n, c.claimed[0].shape)):
                return part_name(name, row, column)
        for layout in layouts([there], n) if there.size < 2000 else [plain(there.ndim)]:
            if squeezed(layout.read(there).shape) == squeezed(c.claimed[0].shape) and \
                    c.explained(lambda k, p: layout.read(jacobian(p)).reshape(c.claimed[0].shape)):
                return name
    return None


def part_indices(c, jacobian, n):
    """Rows of a Jacobian, where a part was asked for: the same part of another element."""
    if not (c.question.of_index or c.question.wrt_index) or jacobian.ndim > 4:
        return []
    rows = list(np.ndindex(*jacobian.shape[:n])) if c.question.of_index and n else [()]
    first = list(range(jacobian.shape[n])) if c.question.wrt_index and jacobian.ndim > n else [None]
    return [(row, column) for row in rows for column in first][:200]


def part_of(jacobian, row, column, n, shape):
    part = jacobian[row]
    part = part if column is None else part[(slice(None),) * (n - len(row)) + (column,)]
    return part.reshape(shape) if squeezed(part.shape) == squeezed(shape) else None


def part_name(name, row, column):
    a, b = name[1:].split("/d")
    if row:
        a = f"({a.strip('()')}[{', '.join(map(str, row))}])"
    if column is not None:
        b = f"({b.strip('()')}[{column}])"
    return f"d{a}/d{b}"


def another_quantity(c):
    name = same_as_another(c)
    return Finding("other quantity", f"This is {name}, not {c.name}.") if name else None


def its_other_name(c):
    """What the claim happens to be besides."""
    name = same_as_another(c, named=True)
    return [f"as it stands it is {name}"] if name else []


def a_value(c):
    for name, make in values_of(c).items():
        first = make(0, c.points[0])
        if first is not None and squeezed(first.shape) == squeezed(c.claimed[0].shape) and first.size and \
                c.explained(lambda k, p: make(k, p).reshape(c.claimed[0].shape)):
            return Finding("other quantity", f"This is {name} itself, not {c.name}.")
    return None


# Shapes that are wrong

def missing_sum(c):
    for chosen in subsets(range(c.claimed[0].ndim)):
        if c.would_be_right(lambda k, p: as_shape(c.claimed[k].sum(chosen), c.shape)):
            return Finding(
                "missing sum", f"A sum is missing: summed over {axes_text(chosen, c.claimed[0].shape)}, the claim is {c.name}.")
    return None


def extra_sum(c):
    for chosen in subsets(range(len(c.shape))):
        if c.explained(lambda k, p: as_shape(c.exact[k].sum(chosen), c.claimed[0].shape)):
            return Finding(
                "extra sum", f"The claim is summed over {axes_text(chosen, c.shape)} of {c.name}, which should not be summed.")
    return None


def as_shape(array, shape):
    return array.reshape(shape) if squeezed(array.shape) == squeezed(shape) else None


def outer(c):
    """A vector where the outer product of two should be."""
    if len(squeezed(c.shape)) != 2 or len(squeezed(c.claimed[0].shape)) > 1:
        return None
    found = vectors(c)
    for name, values in found.items():
        for text, build in ((f"outer(claim, {name})", np.outer), (f"outer({name}, claim)", lambda u, v: np.outer(v, u))):
            if c.would_be_right(lambda k, p: as_shape(build(c.claimed[k].ravel(), values[k]), c.shape)):
                return Finding(
                    "outer product", f"The claim lacks the outer product with {name}: {c.name} is {text}, of shape {c.shape}.")
    return None


def diagonal_of_outer(c):
    """A product element by element, or an inner one, where the outer product of two vectors should be."""
    sizes = squeezed(c.shape)
    if len(sizes) != 2 or sizes[0] != sizes[1] or not all(np.linalg.matrix_rank(e.reshape(sizes)) <= 1 for e in c.exact):
        return None
    shape = c.claimed[0].shape
    if c.explained(lambda k, p: as_shape(np.diagonal(c.exact[k].reshape(sizes)), shape)):
        return Finding(
            "outer product", "The claim multiplies element by element where the outer product should be: it is the diagonal "
                       f"of {c.name}, which has shape {c.shape}.")
    if c.explained(lambda k, p: as_shape(np.trace(c.exact[k].reshape(sizes)), shape)):
        return Finding(
            "outer product", f"The claim is an inner product where the outer product should be, of shape {c.shape}.")
    return None


def diagonal_alone(c):
    """The diagonal of a Jacobian that has more."""
    sizes = squeezed(c.shape)
    if len(sizes) == 2 and sizes[0] == sizes[1] and c.explained(
            lambda k, p: as_shape(np.diagonal(c.exact[k].reshape(sizes)), c.claimed[k].shape)):
        return Finding(
            "shape", f"The claim is the diagonal of {c.name} alone, and its elements off the diagonal are not 0: {c.name} has shape "
                       f"{c.shape}.")
    return None


def repeated(c):
    """One row for all, where all are equal."""
    if c.claimed[0].ndim and _fits(c.claimed[0].shape, c.shape) and c.would_be_right(
            lambda k, p: np.broadcast_to(c.claimed[k], c.shape)):
        return Finding("shape", f"The numbers are right, the shape is not: {c.name} has shape {c.shape}, and repeats the "
                       f"claim, of shape {c.claimed[0].shape}.")
    return None


def reshaped(c):
    if c.claimed[0].size == c.exact[0].size:
        for order in itertools.permutations(range(len(c.shape))) if len(c.shape) <= 4 else [tuple(range(len(c.shape)))]:
            if c.explained(lambda k, p: c.exact[k].transpose(order).reshape(c.claimed[0].shape)):
                return Finding(
                    "shape", f"The numbers are right, the shape is not: {c.name} has shape {c.shape}, the claim "
                               f"{c.claimed[0].shape}.")
    return None


def sum_of_another(c):
    """A number that is the sum of another derivative."""
    if c.claimed[0].size != 1:
        return None
    for name, _, a, b in quantities(c)[:60]:
        jacobians = [p.jacobian(by_index(p, a), by_index(p, b)) for p in c.points]
        if jacobians[0].size > 1 and c.explained(lambda k, p: jacobians[k].sum().reshape(c.claimed[0].shape)):
            lacking = [m.name for m in forgotten_factors(c) if m.name.startswith("relu'")]
            lacking += [operand_text(step, 1 - j) for step, j in ways(c)
                        if step.operation == "matmul" and step.operands[j] is c.points[0].b]
            lacks = f" It lacks {' and '.join(lacking)}, and the sum should not be there." if lacking else ""
            return Finding(
                "extra sum", f"The claim is the sum of the elements of {name}; {c.name} has shape {c.shape}.{lacks}")
    return None


def arrangement(c):
    """The same factors in another order, transposed, element by element or as matrices."""
    found = arranged(c.question, c.text, c.points, c.exact)
    if found is None:
        return None
    if c.fits:
        return Finding("order", f"The factors are right, their order or transposition is not: {c.name} is {found}.")
    cause = "outer product" if found.startswith("outer(") and "outer(" not in c.text else "shape"
    return Finding(cause, f"The shape is wrong, {c.claimed[0].shape} and not {c.shape}; the same factors fit as {found}.")


# What is left

def coincidence(c):
    if c.points[0].kind == "given" and c.points[0].close(c.claimed[0], c.exact[0]).all():
        bad = next(k for k, p in enumerate(c.points) if not p.close(c.claimed[k], c.exact[k]).all())
        return Finding(
            "coincidence", f"the claim is {c.name} for these numbers only, and not at {arguments(c.points[bad])}.")
    return None


def general(c):
    if not c.fits:
        return Finding("shape", f"The shape is wrong: the claim has {c.claimed[0].shape}, {c.name} has {c.shape}.")
    return Finding("elements", f"The claim is not {c.name}.")


SAME_SHAPE = (nothing_there, sign, another_number, transposed, factor, mistaken_step, summed, missing_value,
              another_quantity, two_missing, extra_value, shifted, parts, difference, arrangement, two_values, a_value, coincidence)
OTHER_SHAPE = (nothing_there, transposed, outer, missing_sum, extra_sum, repeated, diagonal_of_outer, diagonal_alone,
               arrangement, another_quantity, reshaped, sum_of_another, a_value)


def of_failure(question, text, point, error):
    """The verdict on a claim whose shapes do not fit together."""
    exact = point.exact
    found = arranged(question, text, [point], [exact])
    message = f"The claim cannot be computed{', ' if str(error).startswith('in ') else ': '}{error}"
    details = []
    if isinstance(text, str):
        names = sorted(parse(text, question.known | set(question.where)).names)
        values = with_abbreviations(point, question.where)
        details.append("shapes: " + ", ".join(f"{name} {np.shape(values[name])}" for name in names))
    cause = "outer product" if found and found.startswith("outer(") and "outer(" not in text else "shape"
    if found:
        message = f"The shapes do not fit: {question.quantity} has shape {exact.shape}, and the same factors give it as {found}."
        details.insert(0, str(error))
    else:
        message = message.rstrip(".") + f"; {question.quantity} has shape {exact.shape}."
    return Verdict(cause, message, details, np.nan, None, exact)


def at_a_kink(point):
    """The name of a value at whose kink a point lies; None."""
    for step in point.graph.steps:
        if step.operation in KINKS and step.operands and step.operands[0] is not None and step.operands[0].value is not None:
            x = step.operands[0].value
            other = step.operands[1].value if len(step.operands) > 1 and step.operands[1] is not None else 0.0
            if step.operation not in ("max", "min") and other is not None and (x == other).any():
                return text_of(step)
    return None
