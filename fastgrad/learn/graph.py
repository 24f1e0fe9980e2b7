"""A computation with its gradients, step by step: what is explained, drawn and checked.

Knows nothing about how it is shown.
"""

import ast
import inspect

import numpy as np

from fastgrad._core import engine, ops
from fastgrad.learn.places import paths_of
from fastgrad.tree import tree_flatten, tree_unflatten

__all__ = ["Contribution", "Graph", "Step"]

ROWS = {row.name: row for row in ops.OPS}
SOURCES = ("leaf", "input", "constant")


class Contribution:
    """What one consumer of a value adds to its gradient.

    Attributes
    ----------
    consumer : Step
    position : int
        Which operand of the consumer the value is.
    value : ndarray
        Of the shape of the value.
    """

    __slots__ = ("consumer", "position", "value")

    def __init__(self, consumer, position, value):
        self.consumer, self.position, self.value = consumer, position, value

    def __repr__(self):
        return f"<{self.value} from {self.consumer.label}>"


class Step:
    """One value of a computation.

    Attributes
    ----------
    index : int
        Its place in the order of recording.
    operation : str
        ``"tanh"``, ``"matmul"``, ...; ``"leaf"`` and ``"constant"`` for what was given.
    operands : list of (Step or None)
        None where the tape did not keep an operand, because no derivative reads it.
    parameters : dict
        What the operation was given besides: ``{"axis": 0}``.
    value : ndarray or None
        None where the tape did not keep the numbers.
    gradient : ndarray or None
        Of the output with respect to this value; None where none arrives.
    contributions : list of Contribution
        Their sum is the gradient.
    name : str or None
        The user's: of an argument, by ``fg.mark``, ``fg.names``, or of a variable.
    label : str
        The name, or a number of its own, such as ``v3``.
    place : Place or None
        The line of code that recorded it.
    """

    def __init__(self, graph, index, operation, parameters, value, shape, dtype, note):
        self._graph = graph
        self.index, self.operation, self.parameters = index, operation, parameters
        self.value = None if value is None else np.asarray(value)
        self.shape, self.dtype = shape, dtype
        self.operands = []
        self.gradient, self.contributions = None, []
        self.name = None if note is None else note.name
        self.place = None if note is None else note.place
        self.label = None

    @property
    def is_source(self):
        """Whether it was given, not computed."""
        return self.operation in SOURCES

    @property
    def needs_gradient(self):
        return self.operation != "constant"

    def local(self, j):
        """The partial derivative by operand j, for an elementwise operation.

        Parameters
        ----------
        j : int

        Returns
        -------
        ndarray or None
            Of the shape of the value, element by element; None for operations that are not elementwise, and for operands
            without a derivative.
        """
        return self._graph._engine.partial(self.index, j) if self.operation in ROWS else None

    def pull(self, cotangent):
        """What the operands get where the value gets ``cotangent``: a list of (position, Step, ndarray)."""
        return [(j, self._graph._at[k], np.asarray(c)) for j, k, c in self._graph._engine.pull(self.index, cotangent)]

    def __repr__(self):
        given = ", ".join("?" if step is None else step.label for step in self.operands)
        return f"<{self.label} = {self.operation}({given})>"


class Graph:
    """What a value was computed from, and its gradients.

    Made by ``Graph.of(t)`` from what was recorded already, or by ``Graph.run(f, *args)``, which also knows lines, names and
    constants.

    Attributes
    ----------
    steps : list of Step
        In the order of recording; the last is the output.
    output : Step
    seed : ndarray
        The gradient of the output that the sweep began with: ones.
    arguments : list of Step
        ``Graph.run``: the leaves of the differentiated arguments that the output depends on.
    """

    @classmethod
    def of(cls, t, names=()):
        """The graph of a Tensor.

        Parameters
        ----------
        t : Tensor
            Recorded, and not swept yet.
        names : iterable of (str, Tensor)
            Of leaves.

        Raises
        ------
        RuntimeError
            If nothing was recorded for it, or ``backward()`` has swept it.
        """
        if not isinstance(t, engine.Tensor):
            raise TypeError(f"a Tensor is asked for, not a {type(t).__name__}; for a function write the function, and its "
                            "arguments after it")
        return cls(t, names)

    @classmethod
    def run(cls, function, *args, wrt=None, **keywords):
        """The graph of a call, recorded with lines of code, names and constants.

        Parameters
        ----------
        function : callable
            Returns a Tensor, of any shape.
        *args, **keywords
            Arrays, Tensors, floats and pytrees of these are differentiated; everything else is passed as it is.
        wrt : int, str, or sequence of these, optional
            Which arguments to differentiate, by position or name; all by default.

        Returns
        -------
        Graph
        """
        given, named = _as_leaves(function, args, keywords, wrt)
        with engine.Watch():
            out = function(*given[0], **given[1])
        if not isinstance(out, engine.Tensor):
            kind = type(out).__name__
            raise TypeError(f"{_called(function)} returned a {kind}, and what is explained is one Tensor: return a single value that "
                            "depends on the arguments")
        if not out.requires_grad or out.is_leaf:
            raise ValueError(f"{_called(function)}: the result does not depend on any argument that can be differentiated"
                             if not out.is_leaf else f"{_called(function)} returns an argument as it is: there is nothing to explain")
        graph = cls(out, named)
        graph._name_after_lines()
        return graph

    def __init__(self, t, names):
        self._engine = engine.Graph([t])
        self.steps, self._at = [], []
        for index in range(len(self._engine)):
            record, operands, parameters = self._engine.node(index)
            operands = [None if k < 0 else self._at[k] for k in operands]
            if record.op == "alias" and operands[0] is not None:        # the same value: one step, one name
                step = operands[0]
                if record.note is not None and step.name is None:
                    step.name = record.note.name
            else:
                step = Step(self, index, record.op, parameters, record.value, record.shape, record.dtype, record.note)
                step.operands = operands
                self.steps.append(step)
            self._at.append(step)
        self.output = self._at[-1]
        self.arguments = []
        for name, leaf in names:
            index = self._engine.position_of(leaf)
            if index >= 0:
                step = self._at[index]
                step.name = step.name or name
                if step not in self.arguments:
                    self.arguments.append(step)
        self.seed = np.ones(self.output.shape, self.output.dtype)
        self._label()
        self._sweep()

    def _label(self):
        """A label for each step, all different."""
        taken, count = set(), 0
        for step in self.steps:
            label, k = step.name, 2
            while label in taken:
                label, k = f"{step.name}#{k}", k + 1
            if label is None:
                if step.operation == "constant":
                    label = _constant(step)
                else:
                    count += 1
                    while f"v{count}" in taken:
                        count += 1
                    label = f"v{count}"
            if step.operation != "constant":
                taken.add(label)
            step.label = label

    def _sweep(self):
        """Gradients and contributions, from the output down."""
        self.output.gradient = self.seed
        for step in reversed(self.steps):
            if step.contributions:
                total = step.contributions[0].value
                for more in step.contributions[1:]:
                    total = total + more.value
                step.gradient = total if step is not self.output else total + self.seed
            if step.gradient is None or step.is_source:
                continue
            for j, operand, value in step.pull(step.gradient):
                operand.contributions.append(Contribution(step, j, value))

    def _name_after_lines(self):
        """Names the last step of each line that assigns one variable after it, once a name."""
        last = {}
        for step in self.steps:
            if step.place is not None and not step.is_source and step.place.function != "<lambda>":
                last[step.place.file, step.place.line] = step
        for step in last.values():
            target = assigned_variable(step.place.text)
            if step.name is None and target is not None:
                step.name = target
        self._label()

    def named(self, name):
        """The steps of a name, in the order of recording."""
        return [step for step in self.steps if name in (step.name, step.label)]

    def __len__(self):
        return len(self.steps)

    def __repr__(self):
        return f"<Graph of {len(self.steps)} steps>"


def assigned_variable(text):
    """The name on the left of a line ``name = expression``; None for any other line."""
    try:
        statement, = ast.parse(text).body
    except (SyntaxError, ValueError):
        return None
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name) \
            and isinstance(statement.value, (ast.BinOp, ast.UnaryOp, ast.Call, ast.Subscript)):
        return statement.targets[0].id
    return None


def _constant(step):
    if step.value is None:
        return "constant"
    return f"{step.value:.6g}" if step.value.ndim == 0 else f"constant{list(step.shape)}"


def _called(function):
    return getattr(function, "__name__", type(function).__name__)


def _as_leaves(function, args, keywords, wrt):
    """The arguments with leaves for what is differentiated, and (name, leaf) of each leaf."""
    places = _argument_names(function, args, keywords)
    chosen = _chosen(places, wrt)
    named = []

    def leaf_of(name, value, differentiated):
        if isinstance(value, engine.Tensor):
            if value.requires_grad and value.is_leaf:
                named.append((name, value))
                return value
            if value.dtype.kind != "f" or not differentiated:
                return value
            value = value.detach()
        elif isinstance(value, (bool, np.bool_, int, str)) or not differentiated:
            return value
        elif not isinstance(value, (float, np.ndarray, np.generic)) or np.asarray(value).dtype.kind != "f":
            return value
        leaf = engine.tensor(value, requires_grad=True)
        named.append((name, leaf))
        return leaf

    def tree_of(name, tree, differentiated):
        leaves, structure = tree_flatten(tree)
        paths = paths_of(tree, name)
        return tree_unflatten(structure, [leaf_of(path, leaf, differentiated) for path, leaf in zip(paths, leaves)])

    made = [tree_of(name, value, name in chosen) for name, value in zip(places, list(args) + list(keywords.values()))]
    if not named:
        raise TypeError(f"{_called(function)}: no argument can be differentiated; pass floats, floating arrays or Tensors "
                        "(2.0, not 2)")
    return (made[:len(args)], dict(zip(keywords, made[len(args):]))), named


def _argument_names(function, args, keywords):
    """A name for each argument of a call: the function's own where it has them."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        parameters = ()
    found = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:len(args)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "arg")
    found += [f"{rest}{k}" for k in range(len(args) - len(found))]
    return found + list(keywords)


def _chosen(places, wrt):
    if wrt is None:
        return set(places)
    chosen = set()
    for which in wrt if isinstance(wrt, (tuple, list)) else [wrt]:
        if isinstance(which, str) and which in places:
            chosen.add(which)
        elif isinstance(which, int) and -len(places) <= which < len(places):
            chosen.add(places[which])
        else:
            raise ValueError(f"wrt={which!r} names no argument; there are {', '.join(places)}")
    return chosen
