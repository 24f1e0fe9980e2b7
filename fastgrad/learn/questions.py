"""The question of ``fg.check_derivation``: what is differentiated by what, at which points, and what is claimed there.

Computes both sides at each point, and does not compare them.
"""

import ast
import inspect
import re

import numpy as np

from fastgrad._core import engine
from fastgrad.learn.expressions import Misfit, parse
from fastgrad.learn.graph import Graph, _argument_names, _called
from fastgrad.learn.naming import quantity
from fastgrad.learn.neighbours import neighbours
from fastgrad.tree import tree_flatten, tree_unflatten

MOST_ELEMENTS = 5_000_000       # of a Jacobian
MANY_ELEMENTS = 100_000         # of one that is compared at three points only

__all__ = ["Point", "Question", "Reader", "points_of", "with_abbreviations"]


class Question:
    """What is asked: d a / d b of a function.

    Attributes
    ----------
    quantity : str
        ``"dL/dz1"``.
    of, wrt : str
        Labels.
    """

    def __init__(self, fun, args, wrt, of, where):
        self.fun, self.args = fun, tuple(_widened(arg) for arg in args)
        self.places = _argument_names(fun, args, {})
        self.where = dict(where or {})
        graph = Graph.run(fun, *self.args)
        output = graph.output
        name = _called(fun)
        self.output = output.label if output.name else name if name.isidentifier() else "f"
        self.of, self.of_index = self._found(graph, self.output if of is None else of, "of")
        if wrt is None:
            inside = [step.label for step in graph.arguments if _owner(step.name) == self.places[0]]
            wrt = inside[0] if inside else self.places[0]
        elif isinstance(wrt, (int, np.integer)) and not isinstance(wrt, bool):
            if not -len(args) <= wrt < len(args):
                raise ValueError(f"wrt={wrt}: there are {len(args)} arguments, {', '.join(self.places)}")
            wrt = self.places[int(wrt)]
        self.wrt, self.wrt_index = self._found(graph, wrt, "wrt")
        self.known = {step.label for step in graph.steps if step.label.isidentifier() and step.operation != "constant"}
        self.known |= {place for place, arg in zip(self.places, self.args) if _is_numbers(arg)} | {self.output}
        names = [step.name for step in graph.steps
                 if step.name and step.name not in self.places and step.name.isidentifier()]
        self.repeated = {name: names.count(name) for name in names if names.count(name) > 1}
        self.listed = {name for name in self._names(graph) if name.isidentifier()}
        self.quantity = quantity(self.of + self.of_text, self.wrt + self.wrt_text)

    def _found(self, graph, asked, which):
        """The label of a step or argument, and an index."""
        if not isinstance(asked, str):
            raise ValueError(f"{which}={asked!r}: a name is a string")
        setattr(self, which + "_text", "")
        asked = asked.strip()
        if self._known(graph, asked):
            return asked, ()
        match = re.fullmatch(r"([^\[]+?)\s*(\[.*\])", asked)
        if match and self._known(graph, match[1]):
            setattr(self, which + "_text", match[2])
            return match[1], _read_index(match[2], asked)
        inside = [step.label for step in graph.arguments if step.name and _owner(step.name) == asked]
        if inside:
            raise ValueError(f"{which}={asked!r} has several parts: write one of {', '.join(inside)}")
        raise ValueError(f"{which}={asked!r} is not a name here; there are {', '.join(self._names(graph))}")

    def _known(self, graph, name):
        return name == self.output or any(step.label == name for step in graph.steps if step.operation != "constant") \
            or name in self.places and _is_numbers(self.args[self.places.index(name)])

    def _names(self, graph):
        names = [step.label for step in graph.steps if step.operation != "constant" and step.name]
        names += [place for place, arg in zip(self.places, self.args) if place not in names and _is_numbers(arg)]
        return names if self.output in names else names + [self.output]

    def step(self, graph, label):
        """The step of a label; None for an argument that the result does not depend on."""
        found = next((step for step in graph.steps if step.label == label and step.operation != "constant"), None)
        return graph.output if found is None and label == self.output else found


class Point:
    """One point: what was computed there, the exact derivative, and the claim.

    Attributes
    ----------
    graph : Graph
    values : dict
        A number or array for each name that a claim may use.
    exact : ndarray
        The Jacobian, of the shape of a followed by that of b.
    claimed : ndarray
    digits : ndarray or None
        For numbers that were written with few digits, half a unit of the last.
    small : float
        Below this, numbers are rounding errors.
    """

    def __init__(self, question, args):
        self.question, self.args = question, args
        self.graph = graph = Graph.run(question.fun, *args)
        self.a, self.b = question.step(graph, question.of), question.step(graph, question.wrt)
        self.values = {step.label: _plain(step.value) for step in graph.steps
                       if step.label.isidentifier() and step.value is not None and step.operation != "constant"}
        for place, arg in zip(question.places, args):
            if place not in self.values and _is_numbers(arg):
                self.values[place] = _plain(np.asarray(arg)) if not isinstance(arg, (list, tuple)) else arg
        self.values.setdefault(question.output, _plain(graph.output.value))
        self.claimed = self.digits = None
        self._swept = {}
        self.b_shape = self.b.shape if self.b is not None else np.shape(args[question.places.index(question.wrt)])
        a_shape = () if self.a is None else self.a.shape
        self.n = len(a_shape) - sum(isinstance(k, int) for k in question.of_index)
        self.exact = self.asked(self.jacobian(self.a, self.b))
        finite = np.abs(self.exact[np.isfinite(self.exact)])
        self.scale = float(finite.max()) if finite.size else 0.0
        single = any(step.dtype == np.float32 for step in graph.steps if step.operation != "constant")
        self.relative, self.rounding = (2e-4, 1e-5) if single else (1e-7, 1e-12)
        epsilon = np.finfo(np.float32 if single else np.float64).eps
        sizes = [float(np.max(np.abs(v), initial=0.0)) for v in self.values.values()
                 if not isinstance(v, (list, tuple)) and np.asarray(v).dtype.kind == "f"]
        size = max([v for v in sizes if np.isfinite(v)], default=1.0)
        self.small = self.rounding * self.scale + 8 * epsilon * min(size, 1e3 * max(1.0, self.scale))
        self.shape_of_steps = [step.operation for step in graph.steps]

    def asked(self, jacobian):
        """The part of a Jacobian that is asked for."""
        question = self.question
        try:
            part = jacobian[question.of_index]
            return part[(slice(None),) * self.n + question.wrt_index]
        except IndexError:
            raise ValueError(f"{question.quantity}: there is no such element; {question.of} has shape "
                             f"{jacobian.shape[:jacobian.ndim - len(self.b_shape)]}, {question.wrt} {self.b_shape}") from None

    def jacobian(self, a, b, change=None):
        """d a / d b in full: one sweep for each element of a; with other rules at some steps (``change``)."""
        if a is None or b is None:
            return np.zeros((() if a is None else a.shape) + self.b_shape)
        if np.prod(a.shape, dtype=float) * np.prod(b.shape, dtype=float) > MOST_ELEMENTS and a.shape != ():
            raise ValueError(f"{self.question.quantity}: a Jacobian of {a.shape} by {b.shape} is too large; "
                             "differentiate a sum, or a smaller case")
        key = a.index
        if change is None and key in self._swept:
            sweeps = self._swept[key]
        else:
            sweeps = []
            for k in range(int(np.prod(a.shape))):
                seed = np.zeros(a.shape, a.dtype)
                seed.flat[k] = 1.0
                sweeps.append(sweep(self.graph, a, seed, change, b.index if change else -1))
            if change is None:
                self._swept[key] = sweeps
        zero = np.zeros(b.shape)
        return np.array([s.get(b.index, zero) for s in sweeps], float).reshape(a.shape + b.shape)

    def close(self, x, y):
        """Where two arrays are equal but for rounding."""
        with np.errstate(invalid="ignore"):
            bound = self.relative * np.maximum(np.abs(x), np.abs(y)) + self.small
            if self.digits is not None:
                bound = np.maximum(bound, self.digits if self.digits.shape == np.shape(x) else self.digits.max(initial=0.0))
            return (np.abs(x - y) <= bound) | (x == y) | (np.isnan(x) & np.isnan(y))


def sweep(graph, a, seed, change=None, lowest=-1):
    """The gradient of ``seed`` times a by each step, by index; ``change[step index, position]`` is a rule of its own."""
    gradients = {a.index: seed}
    for step in reversed(graph.steps):
        cotangent = gradients.get(step.index)
        if cotangent is None or step.is_source or step.index <= lowest or not np.any(cotangent):
            continue
        for j, operand, value in step.pull(cotangent):
            if change and (step.index, j) in change:
                value = change[step.index, j](step, operand, cotangent, value)
            before = gradients.get(operand.index)
            gradients[operand.index] = value if before is None else before + value
    return gradients


# The claim

class Reader:
    """What gives the claim at a point."""

    def __init__(self, question, claim):
        self.question, self.claim, self.numbers = question, claim, False
        self.formula = None
        if isinstance(claim, str):
            self.formula = parse(claim, question.known | set(question.where), question.listed | set(question.where))
            for name in sorted(self.formula.names & set(question.repeated)):
                raise ValueError(f"{claim!r}: {name} names {question.repeated[name]} values here; give each a name "
                                 "of its own, with fg.mark or a variable of its own")
            self.numbers = not self.formula.names
        elif not callable(claim):
            if isinstance(claim, engine.Tensor):
                claim = claim.numpy()
            try:
                self.array = np.asarray(claim, float)
            except (TypeError, ValueError):
                raise ValueError(f"a claim is a formula, a function or numbers, not {claim!r}") from None
            self.numbers = True

    def __call__(self, point):
        """The claim as an array; Misfit where its shapes do not fit."""
        if self.formula is not None:
            value = self.formula(with_abbreviations(point, self.question.where, self.formula.names))
        elif self.numbers:
            value = self.array
        else:
            try:
                value = _called_with(self.claim, point, self.question, self.question.where)
            except ValueError as error:
                if isinstance(error, _Unknown):
                    raise
                raise Misfit(str(error), of_shapes=True) from None
        return as_numbers(value)

    def digits(self, array):
        """Half a unit of the last digit of numbers that were written with two to six digits."""
        if not self.numbers:
            return None
        return np.array([_half_unit(float(x)) for x in array.ravel()]).reshape(array.shape)

    def noise(self, point):
        """How much the claim and the derivative change when the arguments do by a rounding error."""
        if self.numbers:
            return 0.0
        epsilon = np.finfo(float).eps
        moved = tuple(_each_float(arg, lambda x: x * (1 + 2 * epsilon)) for arg in point.args)
        try:
            other = Point(self.question, moved)
            other.claimed = self(other)
            if other.claimed.shape != point.claimed.shape or other.exact.shape != point.exact.shape:
                return 0.0
            changes = [np.abs(other.claimed - point.claimed), np.abs(other.exact - point.exact)]
            noise = max(float(np.max(c[np.isfinite(c)], initial=0.0)) for c in changes)
        except (ValueError, ArithmeticError):
            return 0.0
        return min(noise, 1e-6 * max(point.scale, point.small))


def as_numbers(value):
    """What a claim gave as an array of floats."""
    if isinstance(value, engine.Tensor):
        value = value.detach().numpy()
    if isinstance(value, (list, tuple)):
        value = [part.detach().numpy() if isinstance(part, engine.Tensor) else part for part in value]
    try:
        array = np.asarray(value)
        if array.dtype.kind in "OUSc":
            raise ValueError
        return array.astype(float)
    except (TypeError, ValueError):
        raise _Unknown(f"the claim gives {type(value).__name__}, and not numbers") from None


class _Unknown(ValueError):
    """About the question, not about the shapes of a claim."""


def with_abbreviations(point, where, used=None):
    values = dict(point.values)
    for name, meaning in where.items():
        if used is not None and name not in used and not any(isinstance(m, str) for m in where.values()):
            continue
        if isinstance(meaning, str):
            values[name] = parse(meaning, values, point.question.listed | set(where))(values)
        elif callable(meaning):
            values[name] = as_numbers(_called_with(meaning, point, point.question, {}, values))
        else:
            values[name] = np.asarray(meaning, float)
    return values


def _called_with(function, point, question, where, values=None):
    """A function called with the names that it asks for, or with the arguments."""
    values = with_abbreviations(point, where) if values is None else values
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = None
    if parameters is not None:
        required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        by_name = {**values, **dict(zip(question.places, point.args))}
        by_position = any(p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL) for p in parameters) or required == question.places
        if not by_position and all(name in by_name for name in required):
            return function(**{name: by_name[name] for name in required})
        if not by_position and len(required) != len(point.args):
            unknown = ", ".join(name for name in required if name not in by_name)
            listed = ", ".join(sorted(question.listed | set(where)))
            raise _Unknown(f"the claim asks for {unknown}; there are {listed}")
    return function(*point.args)


def _half_unit(x):
    digits, _, exponent = repr(x).partition("e")
    whole, _, decimals = digits.lstrip("-").partition(".")
    significant = (whole + decimals).strip("0")
    if x == int(x) if np.isfinite(x) else True:
        return 0.0
    return 0.505 * 10.0 ** (int(exponent or 0) - len(decimals)) if 2 <= len(significant) <= 7 else 0.0


# The points

def points_of(question, ask, at):
    """The points at which claim and derivative are compared, the given one first; and why the claim could not be computed."""
    given = _at(question, ask, question.args, "given", strict=True)
    if isinstance(given, tuple):
        return [given[0]], given[1]
    if ask.numbers or isinstance(at, str) and at == "given":
        return [given], None
    if at is None:
        moved = list(_random(question))
        if given.exact.size > MANY_ELEMENTS and given.a.shape != ():
            moved = moved[1:3]
    elif isinstance(at, str):
        raise ValueError(f"at={at!r}: write at='given', or a sequence of tuples of arguments")
    else:
        moved = []
        for args in at:
            args = args if isinstance(args, tuple) else (args,)
            if len(args) != len(question.args):
                raise ValueError(f"at: a point is a tuple of {len(question.args)}, and {args!r} has {len(args)}")
            moved.append((tuple(_widened(arg) for arg in args), "asked", ()))
    points = [given]
    for args, kind, kept in moved:
        point = _at(question, ask, args, kind, strict=kind == "asked")
        if isinstance(point, tuple):
            return [point[0]], point[1]
        if point is not None:
            point.kept = kept
            points.append(point)
    return points, None


def _at(question, ask, args, kind, strict):
    """A Point; (Point, error) where the claim cannot be computed; None where there is nothing to compare."""
    try:
        point = Point(question, args)
    except Exception:           # at a random point: one that the function does not take
        if strict:
            raise
        return None
    point.kind, point.kept = kind, ()
    if not strict and not np.isfinite(point.exact).all():
        return None
    try:
        point.claimed = ask(point)
    except Misfit as error:
        if not error.of_shapes:
            raise ValueError(str(error)) from None
        return (point, error) if strict else None
    if not strict and not np.isfinite(point.claimed).all():
        return None
    point.digits = ask.digits(point.claimed)
    return point


def _random(question):
    """Points near the given one: (arguments, kind, what arguments look like)."""
    floats, owners = [], []
    for name, arg in zip(question.places, question.args):
        found = []
        _each_float(arg, lambda x: found.append(x) or x)
        floats, owners = floats + found, owners + [name] * len(found)
    for arrays, kind, kept in neighbours(floats, [name != _owner(question.wrt) for name in owners]):
        rest = iter(arrays)
        moved = tuple(_each_float(arg, lambda x: next(rest)) for arg in question.args)
        yield moved, kind, tuple(f"{owners[k]} {words}" for k, words in kept)


# Numbers

def _widened(tree):
    """Arrays and Tensors of float32 in float64, so that the rounding is that of the claim."""
    return _each_float(tree, lambda x: x)


def _each_float(tree, change):
    leaves, structure = tree_flatten(tree)
    return tree_unflatten(structure, [_changed(leaf, change) for leaf in leaves])


def _changed(leaf, change):
    array = leaf.detach().numpy() if isinstance(leaf, engine.Tensor) else leaf
    if isinstance(array, (float, np.ndarray, np.generic)) and np.asarray(array).dtype.kind == "f":
        wide = np.array(array, float)
        moved = np.asarray(change(wide), float)
        return float(moved) if moved.ndim == 0 else moved
    return leaf


def _is_numbers(arg):
    if isinstance(arg, engine.Tensor):
        return True
    if isinstance(arg, (list, tuple)):
        return all(_is_numbers(part) for part in arg)
    return isinstance(arg, (int, float, np.ndarray, np.generic)) and np.asarray(arg).dtype.kind in "iufb"


def _plain(value):
    return np.asarray(value, float)[()] if np.asarray(value).dtype.kind == "f" else np.asarray(value)[()]


def _owner(name):
    return re.match(r"[^.\[]*", name)[0]


def _read_index(text, asked):
    """The index in ``"[1, :]"``."""
    def part(node):
        if isinstance(node, ast.Slice):
            return slice(*(None if p is None else part(p) for p in (node.lower, node.upper, node.step)))
        value = ast.literal_eval(node)
        if type(value) is not int:
            raise ValueError
        return value

    try:
        index = ast.parse("x" + text, mode="eval").body.slice
        return tuple(part(node) for node in (index.elts if isinstance(index, ast.Tuple) else [index]))
    except (SyntaxError, ValueError, AttributeError, RecursionError):
        raise ValueError(f"{asked!r}: an index has whole numbers and colons") from None
