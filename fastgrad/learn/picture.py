"""What a picture of a computation shows: boxes, the wires between them, and modules around them; fewer where there are many.

Knows nothing about how a picture is written down (``fastgrad.learn.draw``).
"""

import os

import numpy as np

from fastgrad._core import ops

__all__ = ["Box", "Call", "Picture", "Wire", "shared"]

ELEMENTARY = {row.name for row in ops.OPS}
SYMBOLS = {
    "add": "+", "subtract": "−", "multiply": "×", "divide": "÷", "power": "**", "float_power": "**", "matmul": "@", "mod": "%",
    "floor_divide": "//", "negative": "neg", "square": "x²", "sqrt": "√", "reciprocal": "1/x", "absolute": "|x|", "sum": "Σ",
    "greater": ">", "greater_equal": "≥", "less": "<", "less_equal": "≤", "equal": "=", "not_equal": "≠", "maximum": "max",
    "minimum": "min", "getitem": "[ ]", "softmax_cross_entropy": "softmax\ncross-entropy", "broadcast_to": "broadcast",
}
COMMUTE = {"add", "multiply", "maximum", "minimum", "equal", "not_equal", "hypot", "logaddexp", "logaddexp2"}
MOST_TEXT = 48
CHAIN = 3               # so many elementwise operations in a row become one box, where boxes are saved
BLOCKS = 10             # in so many parts a recording is cut of which nothing is known
WHOLE = 3               # arrays of so many elements are shown in full


class Call:
    """A call of a Module: what is drawn around the boxes of its operations."""

    def __init__(self, module, parent, title):
        self.module, self.parent, self.title = module, parent, title
        self.path = (() if parent is None else parent.path) + (self,)


class Box:
    """An operation, an argument, a constant, or several operations at once.

    Attributes
    ----------
    kind : str
        ``"operation"``, ``"value"``, ``"constant"``, ``"group"`` or ``"end"``: where the output leaves.
    lines : list of str
        What stands in it.
    calls : tuple of Call
        The modules it is in, the outermost first.
    ordered : bool
        Whether it matters which operand comes first.
    """

    def __init__(self, kind, lines, calls=(), ordered=False):
        self.kind, self.lines, self.calls, self.ordered = kind, lines, calls, ordered


class Wire:
    """A value on its way from where it is computed to those who read it.

    Attributes
    ----------
    source : Box
    name, value, gradient : str
        Empty where there is none.
    ends : list of (Box, str)
        Who reads it, and what each contributes to the gradient.
    """

    def __init__(self, source, name, value, gradient):
        self.source, self.name, self.value, self.gradient, self.ends = source, name, value, gradient, []


class Picture:
    """The boxes and wires of a Graph.

    Parameters
    ----------
    graph : Graph
    digits : int
        Of numbers.
    depth : int or None
        How many levels of modules are open; all by default.
    most : int
        Where there would be more boxes, some are put together.
    gradients : bool

    Attributes
    ----------
    boxes : list of Box
    wires : list of Wire
    legend : str
    """

    def __init__(self, graph, digits=4, depth=None, most=60, gradients=True):
        self._graph, self._digits, self._gradients = graph, digits, gradients
        self._readers = {step: [] for step in graph.steps}
        for step in graph.steps:
            for j, operand in enumerate(step.operands):
                if operand is not None:
                    self._readers[operand].append((step, j))
        self._calls, self._parameters = _calls_of(graph)
        self._place_sources()
        self.boxes, self.wires = [], []
        self._build(self._grouped(depth, most))
        self.legend = self._says()

    def _says(self):
        more = "; of an array, its shape and norm" if any(" norm " in wire.value for wire in self.wires) else ""
        if any(box.lines == ["?"] for box in self.boxes):
            more += "; ?: the tape did not keep it"
        if not self._gradients:
            return "above each edge: the value" + more
        what = "the output" if self._graph.output.shape == () else "the sum of the output"
        return f"above each edge: the value; below: the gradient of {what}{more}"

    # ------------------------------------------------------------------------------------------------- where things are

    def _place_sources(self):
        """Parameters and constants are drawn inside of the module that reads them."""
        for step in self._graph.steps:
            if step.is_source and (step in self._parameters or step.operation == "constant"):
                paths = [self._calls[reader] for reader, _ in self._readers[step]]
                self._calls[step] = shared(paths)

    # --------------------------------------------------------------------------------------------------------- grouping

    def _grouped(self, depth, most):
        """The key of each step's box, by the first way of putting steps together that gives at most `most` boxes."""
        steps = self._graph.steps
        deepest = max((len(path) for path in self._calls.values()), default=0)
        opened = deepest if depth is None else min(depth, deepest)
        chains = self._chains()
        ways = [lambda s: self._in_call(s, opened), lambda s: self._in_call(s, opened) or chains.get(s)]
        ways += [lambda s, d=d: self._in_call(s, d) or chains.get(s) for d in range(opened - 1, -1, -1)]
        runs = self._runs()
        ways.append(lambda s: self._in_call(s, 0) or runs.get(s))
        ways.append(lambda s: self._in_call(s, 0) or _line(s))
        ways.append(lambda s: self._in_call(s, 0) or s.place and ("function", s.place.file, s.place.function))
        size = max(1, -(-len(steps) // max(1, min(most - 2, BLOCKS))))
        ways.append(lambda s: ("block", s.index // size))
        for way in ways:
            keys = {s: way(s) or ("step", s.index) for s in steps if not s.is_source}
            members = {}
            for s, key in keys.items():
                members.setdefault(key, []).append(s)
            keys = {s: key if len(members[key]) > 1 or key[0] == "call" else ("step", s.index) for s, key in keys.items()}
            self._group_sources(keys, most)
            if len(set(keys.values())) <= most:
                break
        return keys

    def _in_call(self, step, opened):
        path = self._calls[step]
        return ("call", path[opened]) if len(path) > opened else None

    def _group_sources(self, keys, most):
        """Constants and unnamed leaves that one group alone reads are in it; arguments of one name are one box if many."""
        families = {}
        for step in self._graph.steps:
            if not step.is_source:
                continue
            readers = {keys[reader] for reader, _ in self._readers[step]}
            alone = next(iter(readers)) if len(readers) == 1 else None
            hidden = step.operation == "constant" or step in self._parameters or step.name is None
            if alone is not None and alone[0] != "step" and hidden and step is not self._graph.output:
                keys[step] = alone
            else:
                keys[step] = ("step", step.index)
                if step.operation != "constant":
                    families.setdefault((step.name or "").partition("[")[0], []).append(step)
        if sum(map(len, families.values())) > most // 2:
            for name, members in families.items():
                if len(members) > 3:
                    keys.update((step, ("family", name)) for step in members)

    def _chains(self):
        """Runs of elementwise operations of one value, each read by the next alone."""
        chains = {}
        for step in self._graph.steps:
            value = _only_operand(step)
            if value is None:
                continue
            alone = len(self._readers[value]) == 1 and self._calls[value] == self._calls[step]
            chains[step] = chains[value] if alone and value in chains else ("chain", step.index)
        lengths = {}
        for key in chains.values():
            lengths[key] = lengths.get(key, 0) + 1
        return {step: key for step, key in chains.items() if lengths[key] >= CHAIN}

    def _runs(self):
        """Operations that one line recorded without others in between."""
        runs, last, first = {}, None, None
        for step in self._graph.steps:
            if step.is_source:
                continue
            line = _line(step)
            if line is None or line != last:
                last, first = line, step.index
            if line is not None:
                runs[step] = ("run", line, first)
        return runs

    # --------------------------------------------------------------------------------------------------------- building

    def _build(self, keys):
        groups = {}
        for step in self._graph.steps:
            groups.setdefault(keys[step], []).append(step)
        folded = {}                             # constants that are written into the operation
        at = {}
        for key, members in groups.items():
            if key[0] == "step" and members[0].operation == "constant":
                continue
            if key[0] == "step":
                constant = _foldable(members[0])
                if constant is not None:
                    folded[members[0]] = constant
            at[key] = self._box(key, members, folded)
        for key, members in groups.items():
            step = members[0]
            if key[0] == "step" and step.operation == "constant" \
                    and any(folded.get(reader) != j for reader, j in self._readers[step]):
                at[key] = self._box(key, members, folded)
        end = Box("end", [])
        for key, members in groups.items():
            if key in at:
                self._wires(key, members, keys, at, folded, end)
        self.boxes = [*at.values(), *self.boxes, end]

    def _box(self, key, members, folded):
        step, calls = members[0], self._calls[members[0]]
        if key[0] == "step":
            if step.operation == "constant":
                return Box("constant", [_numbers(step.value, step.shape, self._digits)], calls)
            if step.is_source:
                return Box("value", [_short(step.name or self._parameter_name(step, calls) or step.label)], calls)
            box = Box("operation", self._symbol(step, folded.get(step)), calls,
                      step.operation not in COMMUTE and len({id(operand) for operand in step.operands}) > 1)
            for j, operand in enumerate(step.operands):
                if operand is None:
                    missing = Box("constant", ["?"], calls)
                    wire = Wire(missing, "", "", "")
                    wire.ends.append((box, ""))
                    self.boxes.append(missing)
                    self.wires.append(wire)
            return box
        computed = [s for s in members if not s.is_source]
        count = _count(len(computed), "operation")
        if key[0] == "family":
            return Box("group", [f"{_short(members[0].label)} … {_short(members[-1].label)}", _count(len(members), "value")])
        calls = shared([self._calls[s] for s in computed])
        if key[0] == "call":
            return Box("group", [key[1].title, count], key[1].path[:-1])
        if key[0] == "chain":
            names = [" ".join(self._symbol(s, _foldable(s))) for s in computed[:3]]
            return Box("group", [" → ".join(names) + (" → …" if len(computed) > 3 else ""), count], calls)
        if key[0] == "block":
            return Box("group", [f"steps {computed[0].index + 1} to {computed[-1].index + 1}", count], calls)
        if key[0] == "function":
            return Box("group", [f"{computed[0].place.function} ({os.path.basename(computed[0].place.file)})", count], calls)
        place = computed[0].place
        return Box("group", [str(place)] + ([_short(place.text)] if place.text else []) + [count], calls)

    def _parameter_name(self, step, calls):
        """A parameter's own name inside of its module, and its whole path elsewhere."""
        path, owner = self._parameters.get(step, (None, None))
        return path.rpartition(".")[2] if path and calls and calls[-1].module is owner else path

    def _symbol(self, step, folded=None):
        symbol = SYMBOLS.get(step.operation, step.operation)
        if folded is not None:
            number = _numbers(step.operands[folded].value, (), self._digits)
            if step.operation in ("power", "float_power") and folded == 1 and number in ("2", "3"):
                return ["x²" if number == "2" else "x³"]
            if folded == 1 or step.operation in COMMUTE:
                return [f"{symbol} {number}"]
            return [f"{number} {symbol} ·" if len(symbol) <= 2 else f"{symbol} {number}, ·"]
        lines = symbol.split("\n")
        axis = step.parameters.get("axis")
        if axis is not None:
            lines = lines + [f"axis {axis}"]
        elif step.operation == "transpose":
            axes = step.parameters.get("axes", ())
            lines = [".T"] if tuple(axes) == (1, 0) else ["transpose", str(axes)]
        elif step.operation == "reshape":
            lines = ["reshape", _shape(step.shape)]
        elif step.operation == "astype":
            lines = [str(step.dtype)]
        return lines

    def _wires(self, key, members, keys, at, folded, end):
        """A wire for the value that leaves a box; where several do, one for each box that they go to."""
        leaving = [s for s in members if s is self._graph.output
                   or any(keys[reader] != key and folded.get(reader) != j for reader, j in self._readers[s])]
        if len(leaving) <= 1:
            for step in leaving:
                self.wires.append(self._wire(at[key], step, self._ends(step, key, keys, at, folded, end)))
            return
        targets = {}
        for step in leaving:
            for box, gradient in self._ends(step, key, keys, at, folded, end):
                targets.setdefault(box, []).append((step, gradient))
        for box, values in targets.items():
            steps = list(dict.fromkeys(step for step, _ in values))
            wire = self._wire(at[key], steps[0], []) if len(steps) == 1 else Wire(at[key], "", f"{len(steps)} values", "")
            wire.ends = [(box, values[0][1] if len(steps) == 1 else "")]
            self.wires.append(wire)

    def _wire(self, source, step, ends):
        wire = Wire(source, "" if source.kind == "value" else _short(step.name or ""), "", "")
        if source.kind != "constant":
            wire.value = _numbers(step.value, step.shape, self._digits)
            wire.gradient = self._gradient(step.gradient)
        wire.ends = ends
        return wire

    def _ends(self, step, key, keys, at, folded, end):
        ends, sums = [], {}
        given = {(c.consumer, c.position): c.value for c in step.contributions}
        for reader, j in self._readers[step]:
            if keys[reader] == key or folded.get(reader) == j:
                continue
            if keys[reader][0] == "step":
                ends.append((at[keys[reader]], self._gradient(given.get((reader, j)), step)))
            else:
                sums.setdefault(keys[reader], []).append(given.get((reader, j)))
        for target, parts in sums.items():
            parts = [part for part in parts if part is not None]
            ends.append((at[target], self._gradient(sum(parts[1:], parts[0]) if parts else None, step)))
        if step is self._graph.output:
            ends.append((end, self._gradient(self._graph.seed)))
        return ends

    def _gradient(self, gradient, step=None):
        if not self._gradients or step is not None and step.operation == "constant":
            return ""
        if gradient is None:
            return "none"
        return _numbers(gradient, np.shape(gradient), self._digits, with_shape=False)


def _calls_of(graph):
    """The calls of modules that each step is part of; and the steps that are parameters, with their path and their module."""
    calls, parameters, open_calls, paths = {}, {}, (), {}
    for step in graph.steps:
        calls[step] = ()
        if step.is_source or step.place is None:
            continue
        modules = step.place.modules
        if modules and modules[0] not in paths:
            paths[modules[0]] = {module: path for path, module in modules[0].named_modules()}
            parameters.update(_parameters_of(graph, modules[0]))
        same = 0
        while same < min(len(modules), len(open_calls)) and open_calls[same].module is modules[same]:
            same += 1
        open_calls = open_calls[:same]
        for module in modules[same:]:
            path = paths[modules[0]].get(module)
            title = f"{type(module).__name__}: {path}" if path else type(module).__name__
            open_calls += (Call(module, open_calls[-1] if open_calls else None, _short(title)),)
        calls[step] = open_calls
    return calls, parameters


def _parameters_of(graph, root):
    """(step, (path, module)) of each parameter in the graph that a module and those below it own."""
    modules = dict(root.named_modules())
    for path, tensor in root.named_parameters():
        position = graph._engine.position_of(tensor)
        if position >= 0:
            yield graph._at[position], (path, modules.get(path.rpartition(".")[0]))


def shared(paths):
    """The calls that all of some paths begin with."""
    first, *rest = paths or [()]
    n = 0
    while n < len(first) and all(len(path) > n and path[n] is first[n] for path in rest):
        n += 1
    return first[:n]


def _line(step):
    return None if step.place is None else ("line", step.place.file, step.place.line)


def _only_operand(step):
    """The operand of an elementwise operation whose other operands are constants or unknown."""
    if step.operation not in ELEMENTARY or step.is_source:
        return None
    values = [operand for operand in step.operands if operand is not None and operand.operation != "constant"]
    return values[0] if len(values) == 1 else None


def _foldable(step):
    """The position of a constant number that is written into an elementwise operation of two operands; None: there is none."""
    if step.operation not in ELEMENTARY or len(step.operands) != 2 or None in step.operands:
        return None
    numbers = [j for j, operand in enumerate(step.operands)
               if operand.operation == "constant" and operand.value is not None and operand.value.ndim == 0]
    return numbers[0] if len(numbers) == 1 and step.operands[1 - numbers[0]].operation != "constant" else None


def _numbers(value, shape, digits, with_shape=True):
    """A number, a few numbers, or shape and norm."""
    if value is None:
        return _shape(shape) if shape else ""
    value = np.asarray(value)
    if 0 < value.size <= WHOLE:
        return _whole(value, digits)
    if value.size == 0:
        return _shape(shape)
    with np.errstate(all="ignore"):
        norm = f"norm {float(np.linalg.norm(value.astype(float).ravel())):.{digits}g}"
    return f"{_shape(shape)} {norm}" if with_shape else norm


def _whole(value, digits):
    if value.ndim == 0:
        return str(bool(value)) if value.dtype.kind == "b" else f"{float(value) + 0.0:.{digits}g}"
    return "[" + ", ".join(_whole(part, digits) for part in value) + "]"


def _shape(shape):
    return str(tuple(int(n) for n in shape))


def _count(n, what):
    return f"{n} {what}{'s' if n != 1 else ''}"


def _short(text):
    """Text on one line, not too long, without what cannot be printed."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT - 1] + "…"
