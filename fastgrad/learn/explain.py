"""``fg.explain``: a computation and its gradients in words and numbers, as text, Markdown, HTML or LaTeX.

What is said is put together once, as headings, sentences and tables; four writers turn that into a format. What an operation's
formula is, ``formulas`` knows; what was computed, ``graph``.
"""

import html
import inspect
import math
import sys

import numpy as np

from fastgrad._core import engine
from fastgrad.learn.formulas import ROWS, SIGNED, derivative, escaped, expression, name_in_latex, number, number_in_latex
from fastgrad.learn.graph import Graph
from fastgrad.learn.variables import name_after, variables
from fastgrad.nn import Module

__all__ = ["Explanation", "explain"]

FORMATS = ("text", "markdown", "html", "latex")
MOST_STEPS = 60         # that are shown one by one unless asked otherwise
MOST_ROWS = 30          # of a collapsed graph
MOST_HOPS = 14          # of a longest path
MOST_ELEMENTS = 6       # of an array that is shown in full
FAR = 1e3               # a gradient that shrinks or grows by more vanishes or explodes


def explain(t, *args, format="text", digits=5, depth=None, order=False, wrt=None, width=120):
    """Explains how a value was computed, and how its gradients came about, step by step.

    Parameters
    ----------
    t : Tensor or callable
        A value that is being differentiated, not swept yet; or a function, which is run on ``args``. Only then, and for what was
        recorded inside ``fg.Tape(lines=True)``, are the lines of code known, and all values.
    *args
        For a function: arrays, floats, Tensors and pytrees of these are differentiated, everything else is passed as it is.
    format : {"text", "markdown", "html", "latex"}
        What ``str()`` of the result is. A notebook shows HTML in any case.
    digits : int
        Significant digits; what is shown is rounded.
    depth : int, optional
        How finely large graphs are shown: 0 the arguments and the output alone, 1 the outermost modules and lines, 2 the modules in
        these, and so on. By default all steps, and of more than 60 as many levels as fit.
    order : bool
        Whether to say why the values are visited in this order.
    wrt : int, str, or sequence of these, optional
        For a function: which arguments to differentiate; all by default.
    width : int
        Where the column of code is cut off. Nothing else ever is.

    Returns
    -------
    Explanation

    Raises
    ------
    RuntimeError
        If nothing was recorded for t, or ``backward()`` has swept it.
    TypeError
        If the function returns something other than one Tensor, or no argument can be differentiated.

    Examples
    --------
    >>> import fastgrad as fg
    >>> def f(x, y, z):
    ...     s = x + y
    ...     return s * z
    >>> fg.explain(f, -2.0, 5.0, -4.0)      # doctest: +ELLIPSIS
    f = -12, from x, y, z in 2 operations
    <BLANKLINE>
    Forward
      name  computed as  value  line
      x     argument        -2
      y     argument         5
      s     x + y            3  <doctest ...>:2  s = x + y
      z     argument        -4
      f     s * z          -12  <doctest ...>:3  return s * z
    <BLANKLINE>
    Backward: incoming gradient * local derivative, from the output back
      d f/d  gradient  through  incoming  local derivative
      f             1                     the sweep begins with 1
      z             3  f               1  s = 3
      s            -4  f               1  z = -4
      y            -4  s              -4  1
      x            -4  s              -4  1
    <BLANKLINE>
    Longest path: f, s, x: the product of its local derivatives is -4.
    """
    if format not in FORMATS:
        raise ValueError(f"fg.explain: format={format!r} is none of {', '.join(map(repr, FORMATS))}")
    if isinstance(digits, bool) or not isinstance(digits, int) or not 1 <= digits <= 17:
        raise ValueError(f"fg.explain: digits={digits!r} is no whole number from 1 to 17")
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
        raise ValueError(f"fg.explain: depth={depth!r} is no whole number from 0 on, nor None")
    around = sys._getframe(1)
    if isinstance(t, engine.Tensor) or not callable(t):
        if args or wrt is not None:
            raise TypeError("fg.explain: arguments and wrt= belong to a function; a Tensor is explained as it was recorded")
        graph, title, recorded = Graph.of(t), None, True
    else:
        graph, title, recorded = Graph.run(t, *args, wrt=wrt), _title(t), False
        graph.name_constants(_arrays(t, args))
    found = variables(around, t)
    name_after(graph, found)
    if recorded:
        graph.name_lines()
    graph.name_output(title or "out")
    modules = {}
    for name, value in found:
        if isinstance(value, Module):
            modules.setdefault(id(value), name)
    return Explanation(graph, format, digits, depth, order, width, modules)


def _title(function):
    function = getattr(function, "func", function)      # of functools.partial
    name = getattr(function, "__name__", None) or ("" if isinstance(function, Module) else type(function).__name__)
    return name if name.isidentifier() else None


def _arrays(function, args):
    """(name, array) of the arguments of a call."""
    try:
        parameters = inspect.signature(function).parameters.values()
        names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    except (TypeError, ValueError):
        return []
    return [(name, value) for name, value in zip(names, args) if isinstance(value, (np.ndarray, list)) and _is_numeric(value)]


def _is_numeric(value):
    try:
        return np.asarray(value).dtype.kind in "fiub"
    except (ValueError, TypeError):
        return False


class Explanation:
    """A computation and its gradients, explained: what ``fg.explain`` returns.

    ``print`` shows it in the format that was asked for; a notebook shows HTML.

    Attributes
    ----------
    graph : Graph
        The steps, with their values, gradients and contributions.

    Examples
    --------
    >>> import fastgrad as fg
    >>> told = fg.explain(lambda x: x * x, 3.0)
    >>> "| x | 6 |" in told.markdown()
    True
    """

    def __init__(self, graph, format="text", digits=5, depth=None, order=False, width=120, modules=None):
        self.graph = graph
        self._format, self._digits, self._depth, self._order, self._width = format, digits, depth, order, width
        self._modules = modules or {}
        self._ways = {}                 # of a place, as they are asked for
        self._incoming = "incoming" if graph.named("G") else "G"
        with np.errstate(all="ignore"):
            self._said = self._parts()  # now: a sweep takes the numbers away

    def text(self):
        """For a terminal."""
        return _as_text(self._said, self._width)

    def markdown(self):
        """Headings and tables in Markdown."""
        return _as_markdown(self._said)

    def html(self):
        """Headings and tables in HTML."""
        return _as_html(self._said)

    def latex(self):
        """Equations for a LaTeX document that uses amsmath."""
        return _as_latex(self)

    def __str__(self):
        return getattr(self, self._format)()

    __repr__ = __str__

    def _repr_html_(self):
        return self.html()

    def _repr_markdown_(self):
        return self.markdown()

    # What is said.

    def _parts(self):
        self._said_incoming = False
        parts = [("title", self._headline())]
        groups = self._groups()
        parts += self._steps() if groups is None else self._collapsed(*groups)
        parts += self._path()
        if self._order:
            parts += self._reasons()
        return parts + self._footnotes()

    def _headline(self):
        graph, output = self.graph, self.graph.output
        leaves = self._leaves()
        told = ", ".join(leaf.label for leaf in leaves[:5]) + (f", ... {len(leaves) - 5} more" if len(leaves) > 5 else "")
        count = sum(not step.is_source for step in graph.steps)
        return (f"{output.label} = {self._value(output.value, output)}, from {told or 'no argument'} in {count} "
                f"operation{'s' if count != 1 else ''}")

    def _leaves(self):
        return [step for step in self.graph.steps if step.is_source and step.needs_gradient]

    def _number(self, value):
        return number(value, self._digits)

    def _value(self, value, step=None, room=44):
        """A value: a number, a few numbers, or what there is to say of many."""
        if value is None:
            return "not kept" if step is None else f"{_kind(step.shape, step.dtype)}, not kept"
        if value.ndim == 0:
            return self._number(value[()])
        if value.size == 0:
            return f"{_kind(value.shape, value.dtype)}, empty"
        if value.size <= MOST_ELEMENTS:
            text = self._listed(value)
            if len(text) <= room:
                return text
        kind = _kind(value.shape, value.dtype)
        if value.dtype.kind == "b":
            return f"{kind}, {np.count_nonzero(value)} true"
        return f"{kind} {self._norm_and_range(value)}" if value.dtype.kind == "f" else f"{kind}, {value.min()} to {value.max()}"

    def _size(self, step):
        """A value in a few words: a number, or the norm of an array."""
        if step.value is None or step.value.ndim == 0 or step.value.size == 0:
            return self._value(step.value, step)
        return f"{_kind(step.shape, step.dtype)} norm {self._number(norm_of(step.value))}"

    def _listed(self, value):
        if value.ndim == 0:
            return self._number(value[()])
        return f"[{', '.join(self._listed(part) for part in value)}]"

    def _norm_and_range(self, value):
        finite = value[np.isfinite(value)]
        if finite.size == value.size > 1 and finite.min() == finite.max():
            return f"norm {self._number(norm_of(finite))}, {self._number(finite.flat[0])} everywhere"
        counts = (("NaN", np.count_nonzero(np.isnan(value))), ("inf", np.count_nonzero(np.isinf(value))))
        odd = [f"{count} {name}" for name, count in counts if count]
        told = []
        if finite.size:
            told = [f"norm {self._number(norm_of(finite))}, {self._number(finite.min())} to {self._number(finite.max())}"]
        return "; ".join(told + [" and ".join(odd)] if odd else told)

    def _gradient(self, value, room=46):
        """A gradient: as a value, but its kind is that of the value."""
        if value is None:
            return "none"
        if value.ndim == 0 or value.size == 0:
            return self._value(value)
        if value.size <= MOST_ELEMENTS:
            text = self._listed(value)
            if len(text) <= room:
                return text
        return self._norm_and_range(value)

    def _short(self, value):
        """An incoming gradient, whose numbers stand in a row of their own."""
        if value.ndim == 0 or value.size == 0:
            return self._value(value)
        text = self._listed(value) if value.size <= 3 else ""
        return text if text and len(text) <= 22 else f"norm {self._number(norm_of(value))}"

    def _local(self, step, j):
        """A local derivative: formula, number, and how it is applied."""
        text, words = self._derivative(step, j)
        local = step.local(j)
        if local is not None and _is_a_name_for_itself(text):
            local = None
        if local is not None and local.size and local.ndim:
            few = self._listed(local) if local.size <= 3 else ""
            if few and len(few) <= 26:
                text += f" = {few}"
            elif np.isfinite(local).all():
                low, high = self._number(local.min()), self._number(local.max())
                if local.min() == local.max():
                    text += f" = {low} everywhere"
                else:
                    text += f" in {low} to {high}" if low != high else f" about {low}"
            else:
                text += f" = {self._norm_and_range(local)}"
        elif local is not None and local.size:
            text += f" = {self._number(local[()])}"
        return f"{text}, {words}" if words else text

    def _derivative(self, step, j):
        if "\0" in derivative(step, j, incoming="\0")[0]:
            self._said_incoming = True
        return derivative(step, j, incoming=self._incoming)

    def _line(self, step, before=None):
        """The line of a step; its text where the step before was recorded by another one."""
        if step.place is None:
            return ""
        text = step.place.text
        modules = step.place.modules
        if modules:
            self._module_name(modules[-1], modules[0])
            text = f"in {self._modules[id(modules[-1])]}" + (f":  {text}" if _is_the_users(modules[-1]) else "")
        if before is not None and before.place == step.place:
            text = ""
        return f"{step.place}  {text}".rstrip()

    def _steps(self):
        graph = self.graph
        lines = any(step.place is not None for step in graph.steps)
        rows, before = [], None
        for step in graph.steps:
            if step.operation == "constant" and not step.shape and step.name is None:
                continue
            rows.append([step.label, expression(step), self._value(step.value, step)] + ([self._line(step, before)] if lines else []))
            if not step.is_source:
                before = step
        parts = [("heading", "Forward"),
                 ("table", ["name", "computed as", "value"] + (["line"] if lines else []), rows)]
        rows = []
        for step in reversed(graph.steps):
            if step.needs_gradient:
                rows += self._backward_rows(step)
        parts += [("heading", "Backward: incoming gradient * local derivative, from the output back"),
                  ("table", [f"d {graph.output.label}/d", "gradient", "through", "incoming", "local derivative"], rows)]
        return parts

    def _backward_rows(self, step):
        gradient = self._gradient(step.gradient)
        if step is self.graph.output:
            ones = "1" if step.value is None or step.value.ndim == 0 else "ones, as for the sum of its elements"
            return [[step.label, gradient, "", "", f"the sweep begins with {ones}"]]
        given = step.contributions
        if not given:
            return [[step.label, gradient, "", "", "no derivative leads here"]]
        rows = [[c.consumer.label, self._short(c.consumer.gradient), self._local(c.consumer, c.position)] for c in given]
        if len(given) == 1:
            return [[step.label, gradient] + rows[0]]
        return [[step.label, gradient, "", "", f"the sum of {len(given)}:"]] + [
            ["", "+ " + self._gradient(c.value, 44)] + row for c, row in zip(given, rows)]

    # The longest path.

    def _path(self):
        hops = longest_path(self.graph)
        if not hops or not self.graph.seed.size:
            return []
        first, last = hops[0].step, hops[-1].operand
        total = hops[-1].running
        scalar = all(hop.scalar for hop in hops)
        product = "the product of its local derivatives" if scalar else "the product of its factors, norm out / norm in,"
        names = [first.label] + [hop.operand.label for hop in hops]
        way = ", ".join(names if len(names) <= 9 else names[:4] + [f"... {len(names) - 8} more ..."] + names[-4:])
        verdict = self._verdict(hops)
        if verdict is None:
            return [("text", f"Longest path: {way}: {product} is {self._number(total)}.")]
        if len(hops) == 1 or verdict.startswith("Along"):
            return [("text", f"Longest path: {way}. {verdict}")]
        chosen = _telling(hops)
        rows, before = [], -1
        for index, hop in enumerate(hops):
            if index in chosen:
                left_out = hops[before + 1:index]
                before = index
                if left_out:
                    rows.append([f"... {len(left_out)} more", "", self._number(math.prod(h.factor for h in left_out)),
                                 self._number(left_out[-1].running), ""])
                text, words = self._derivative(hop.step, hop.position)
                rows.append([f"{hop.step.label} -> {hop.operand.label}", f"{text}, {words}" if words else text,
                             self._number(hop.factor), self._number(hop.running), str(hop.step.place or "")])
        if not any(row[-1] for row in rows):
            rows = [row[:-1] for row in rows]
        columns = ["from -> to", "local derivative", "factor", "running product", "line"][:len(rows[0])]
        return [("heading", f"Longest path, {len(hops)} operations from {first.label} back to {last.label}"
                            + ("" if scalar else "; factor: norm out / norm in")),
                ("table", columns, rows), ("text", verdict)]

    def _verdict(self, hops):
        """A sentence where the gradient is lost, or grows out of hand; None where all is well."""
        first, leaf = hops[0].step, hops[-1].operand
        total = abs(hops[-1].running)
        arrives = norm_of(leaf.gradient) / (norm_of(self.graph.seed) or 1.0) if leaf.gradient is not None else 0.0
        if not (math.isfinite(total) and math.isfinite(arrives)):
            bad = next((hop for hop in hops if not math.isfinite(hop.factor)), hops[-1])
            kind = "NaN" if math.isnan(bad.factor) else "infinite" if math.isinf(bad.factor) else "too large"
            return f"The gradient becomes {kind}: at {self._factor(bad)}."
        if not total and not arrives:
            return f"No gradient arrives at {leaf.label}: the first factor that is 0 is " \
                   f"{self._factor(next((hop for hop in hops if hop.factor == 0), hops[-1]), False)}."
        small, large = min(hops, key=lambda hop: abs(hop.factor)), max(hops, key=lambda hop: abs(hop.factor))
        seen = arrives if not 1 / FAR <= arrives <= FAR else total
        if 1 / FAR <= seen <= FAR:
            return None
        vanishes = seen < 1
        extreme = self._factor(small if vanishes else large)
        word, which = ("vanishes", "smallest") if vanishes else ("explodes", "largest")
        if 1 / FAR <= arrives <= FAR:
            return (f"Along this path the gradient {word}: {self._number(total)} of it is left; by shorter ones {leaf.label} "
                    f"still gets {self._number(arrives)}. The {which} factor is {extreme}.")
        if vanishes:
            return f"The gradient vanishes: {self._number(seen)} of it arrives at {leaf.label}; the smallest factor is {extreme}."
        return (f"The gradient explodes: it arrives at {leaf.label} {self._number(seen)} times as large; the largest factor is "
                f"{extreme}.")

    def _factor(self, hop, numbered=True):
        step, operand = hop.step, hop.operand
        elementwise = step.operation in ROWS and ROWS[step.operation].arity == 1 and step.operation not in SIGNED
        what = f"{step.operation}'({operand.label})" if elementwise else f"d {step.label}/d {operand.label}"
        if numbered:
            what += f" = {self._number(hop.factor)}"
        return f"{what} at {step.place}" if step.place else what

    # The order.

    def _reasons(self):
        rows = []
        for k, step in enumerate((s for s in reversed(self.graph.steps) if s.needs_gradient), 1):
            if k > 2 * MOST_STEPS:
                rows.append(["", "...", f"{sum(s.needs_gradient for s in self.graph.steps) - k + 1} more"])
                break
            done = []
            for c in step.contributions:
                if c.consumer.label not in done:
                    done.append(c.consumer.label)
            if step is self.graph.output:
                why = "the output: its gradient is given"
            elif not done:
                why = "nobody sends it a gradient"
            else:
                names = ", ".join(done[:6]) + (f" and {len(done) - 6} more" if len(done) > 6 else "")
                why = f"its consumer {names} is done" if len(done) == 1 else f"its consumers {names} are done"
            rows.append([str(k), step.label, why])
        return [("heading", "Order"),
                ("text", "A value is recorded after what it was computed from. Backwards, then, every value comes after all of "
                         "its consumers: when it is visited its gradient is complete, and no sorting is needed."),
                ("table", ["visit", "name", "because"], rows)]

    # What needs a word.

    def _footnotes(self):
        notes, graph = [], self.graph
        computed = [step for step in graph.steps if not step.is_source]
        if any(operand is None for step in computed for operand in step.operands) or any(step.value is None for step in computed):
            notes.append("Numbers that no derivative reads were not kept (\"constant\", \"not kept\"); fg.explain(f, *args) and "
                         "fg.Tape(lines=True) keep them.")
        if self._said_incoming:
            notes.append(f"{self._incoming} is the gradient that comes in.")
        if graph.output.shape:
            notes.append(f"{graph.output.label} is an array: its gradient begins as ones, so all gradients are of the sum of its "
                         "elements.")
        if len(graph.steps) <= 2000 and any(self._is_held_back(c) for step in graph.steps for c in step.contributions):
            notes.append("Where the incoming gradient is exactly 0 what goes out is 0, though the local derivative is not finite.")
        return [("text", " ".join(notes))] if notes else []

    def _is_held_back(self, c):
        local = c.consumer.local(c.position)
        return local is not None and bool(np.any((c.consumer.gradient == 0) & ~np.isfinite(local)))

    # Large graphs.

    def _groups(self):
        """(groups of steps, depth) where the graph is to be collapsed, else None."""
        steps = [step for step in self.graph.steps if not step.is_source]
        rows = sum(step.operation != "constant" or bool(step.shape) for step in self.graph.steps)
        if self._depth is None and rows <= MOST_STEPS:
            return None
        if self._depth == 0:
            return [("everything", steps)], 0
        paths = [self._way(step) for step in steps]
        deepest = max(map(len, paths), default=0)
        if self._depth is not None:
            if self._depth > deepest and (deepest or rows <= MOST_STEPS):
                return None
            depths = [min(self._depth, deepest)]
        else:
            depths = list(range(deepest, 0, -1))
        if not deepest:
            depths = []
        for depth in depths:
            for merge in (False, True):
                groups = _grouped(steps, paths, depth, merge)
                if len(groups) <= (MOST_ROWS if self._depth is None else 4 * MOST_ROWS):
                    return groups, depth
        size = -(-len(steps) // 30)
        chunks = [steps[k:k + size] for k in range(0, len(steps), size)]
        return [(f"{part[0].label} to {part[-1].label}", part) for part in chunks], None

    def _way(self, step):
        """The modules and the line that a step belongs to, the outermost first: each (identity, name)."""
        place = step.place
        if place is None:
            return ()
        known = self._ways.get(place)
        if known is None:
            way = [(id(module), self._module_name(module, place.modules[0])) for module in place.modules]
            if not way or _is_the_users(place.modules[-1]):
                of = f"{self._modules[id(place.modules[-1])]}, " if way else ""
                way.append((place[:2], f"{of}{place}  {place.text}".rstrip()))
            known = self._ways[place] = tuple(way)
        return known

    def _module_name(self, module, root):
        """``model.0 (Linear)``: the variable of the outermost module, the way to this one, and its class."""
        if id(root) not in self._modules or id(module) not in self._modules:
            base = self._modules.setdefault(id(root), type(root).__name__)
            for name, part in root.named_modules():
                self._modules.setdefault(id(part), f"{base}.{name}" if name else base)
        name, kind = self._modules.get(id(module), type(module).__name__), type(module).__name__
        return name if name == kind else f"{name} ({kind})"

    def _collapsed(self, groups, depth):
        graph = self.graph
        consumers = {}
        for step in graph.steps:
            for operand in step.operands:
                if operand is not None:
                    consumers.setdefault(operand.index, []).append(step)
        rows = []
        for name, steps in groups:
            inside = {step.index for step in steps}
            inputs, outputs = {}, []
            for step in steps:
                for operand in step.operands:
                    if operand is not None and operand.index not in inside and operand.needs_gradient:
                        inputs[operand.index] = operand
                if step is graph.output or any(c.index not in inside for c in consumers.get(step.index, ())):
                    outputs.append(step)
            incoming = math.hypot(*(norm_of(step.gradient) for step in outputs if step.gradient is not None))
            outgoing = []
            for step in inputs.values():
                sent = [c.value for c in step.contributions if c.consumer.index in inside]
                if sent:
                    outgoing.append(norm_of(sum(sent[1:], sent[0])))
            leaving = math.hypot(*outgoing)
            sources_last = sorted(inputs.values(), key=lambda step: step.is_source)
            rows.append([_cut(name, 52), str(len(steps)), _few(sources_last), _few(outputs),
                         self._size(outputs[-1]) if outputs else "", self._number(incoming), self._number(leaving)])
        count = sum(not step.is_source for step in graph.steps)
        how = f"{count} operation{'s' if count != 1 else ''}"
        how += f", depth={depth}" if depth is not None else f" in {len(groups)} parts, as they were recorded"
        parts = [("heading", f"Forward and backward, collapsed: {how}"),
                 ("table", ["part", "steps", "from", "to", "value", "gradient in", "gradient out"], rows)]
        parts.append(("text", "Gradient in and out: the norms of what comes to the values under \"to\", and of what goes to those "
                              "under \"from\"."))
        leaves = self._leaves()
        rows = [[leaf.label, self._value(leaf.value, leaf), self._gradient(leaf.gradient)] for leaf in leaves[:MOST_ROWS]]
        if len(leaves) > MOST_ROWS:
            rows.append([f"... {len(leaves) - MOST_ROWS} more", "", ""])
        return parts + [("heading", "Arguments"), ("table", ["name", "value", f"gradient of {graph.output.label}"], rows)]


# -------------------------------------------------------------------------------------------------------------- numbers


def norm_of(value):
    """The Euclidean norm, in float64 and without overflow; NaN where there is a NaN."""
    if value is None:
        return 0.0
    value = np.abs(np.asarray(value, np.float64)).ravel()
    largest = value.max(initial=0.0)
    if not np.isfinite(largest) or not largest:
        return float(largest)
    return float(largest * math.sqrt(float(np.sum(np.square(value / largest)))))


def _is_the_users(module):
    """Whether the lines that run in a module are the user's, not fastgrad's."""
    return not type(module).__module__.startswith("fastgrad.")


def _kind(shape, dtype):
    return f"{dtype}[{', '.join(map(str, shape))}]"


def _is_a_name_for_itself(text):
    """Whether a formula is a number already."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _few(steps):
    names = [step.label for step in steps]
    return ", ".join(names[:2]) + (f", ... {len(names) - 2} more" if len(names) > 2 else "")


def _cut(text, width):
    return text if len(text) <= width else text[:max(width - 3, 1)].rstrip() + "..."


def _grouped(steps, ways, depth, merge):
    """Groups of steps that have the first ``depth`` levels of their way in common: runs of them, or all together."""
    groups, last = {}, None
    runs = 0
    for step, way in zip(steps, ways):
        key = tuple(part[0] for part in way[:depth])
        if key != last:
            runs += 1
            last = key
        name = way[min(depth, len(way)) - 1][1] if way else "recorded without lines"
        groups.setdefault(key if merge else (runs, key), (name, []))[1].append(step)
    return list(groups.values())


class Hop:
    """One operation on a path back from the output.

    Attributes
    ----------
    step, operand : Step
        The value that the gradient comes from, and the one that it goes to.
    position : int
        Which operand it is.
    factor : float
        What goes out over what comes in: the local derivative where both are numbers, else the ratio of the norms.
    running : float
        The product of the factors so far.
    scalar : bool
    """

    __slots__ = ("step", "operand", "position", "factor", "running", "scalar")

    def __init__(self, step, operand, position, factor, running, scalar):
        self.step, self.operand, self.position = step, operand, position
        self.factor, self.running, self.scalar = factor, running, scalar


def longest_path(graph):
    """The path of most operations from the output back to an argument, as a list of Hop."""
    contributions = {}                      # by consumer: what it sends
    for step in graph.steps:
        for c in step.contributions:
            contributions.setdefault(c.consumer.index, []).append((c.position, step, c))
    length, towards = {}, {}
    for step in graph.steps:                # operands come first
        best = max(contributions.get(step.index, ()), key=lambda sent: (length.get(sent[1].index, 0), -sent[0]), default=None)
        length[step.index] = 0 if best is None else length[best[1].index] + 1
        towards[step.index] = best
    hops, step, running = [], graph.output, 1.0
    while towards[step.index] is not None:
        position, operand, c = towards[step.index]
        scalar = not step.shape and not operand.shape
        local = step.local(position) if scalar else None
        if local is not None:
            factor = float(local)
        else:
            incoming = norm_of(step.gradient)
            factor = norm_of(c.value) / incoming if incoming else 0.0
        running *= factor
        hops.append(Hop(step, operand, position, factor, running, scalar and local is not None))
        step = operand
    return hops


def _telling(hops, most=MOST_HOPS):
    """Which hops of a long path are shown: the ends, and those that change most."""
    if len(hops) <= most:
        return set(range(len(hops)))
    def change(k):
        factor = abs(hops[k].factor)
        return -math.inf if not math.isfinite(factor) or not factor else -abs(math.log(factor))
    chosen = set(sorted(range(len(hops)), key=lambda k: (change(k), k))[:most - 4]) | {0, 1, len(hops) - 2, len(hops) - 1}
    return chosen | {k for k in range(1, len(hops) - 1) if k - 1 in chosen and k + 1 in chosen}    # "1 more" takes a row, too


# -------------------------------------------------------------------------------------------------------------- writers


def _as_text(parts, width):
    lines, before = [], None
    for part in parts:
        kind = part[0]
        if kind == "table":
            lines += _text_table(part[1], part[2], width)
            before = kind
            continue
        if lines and not (kind == "text" and before == "heading"):
            lines.append("")
        before = kind
        lines += _wrapped(part[1], width)
    return "\n".join(lines)


def _wrapped(text, width):
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return lines + [line]


def _text_table(columns, rows, width):
    shown = [columns] + rows
    widths = [max(len(row[k]) for row in shown) for k in range(len(columns))]
    right = [all(_is_a_name_for_itself(row[k].removeprefix("+ ")) for row in rows if row[k]) and any(row[k] for row in rows)
             for k in range(len(columns))]
    lines = []
    for row in shown:
        cells = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right)]
        if columns[-1] == "line":
            taken = 2 + sum(widths[:-1]) + 2 * (len(columns) - 1)
            cells[-1] = _cut(row[-1], max(width - taken, 32))
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _as_markdown(parts):
    blocks = []
    for part in parts:
        if part[0] == "title":
            blocks.append(f"**{_markdown(part[1])}**")
        elif part[0] == "heading":
            blocks.append(f"### {_markdown(part[1])}")
        elif part[0] == "text":
            blocks.append(_markdown(part[1]))
        else:
            rows = [part[1], ["---"] * len(part[1])] + [[_markdown(cell) for cell in row] for row in part[2]]
            blocks.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
    return "\n\n".join(blocks)


def _markdown(text):
    return "".join("\\" + sign if sign in "\\`*_|<>#[]" else sign for sign in text)


_STYLE = ("<style>.fg-explain td,.fg-explain th{text-align:left;padding:0.1em 0.8em;font-family:monospace;white-space:pre}"
          ".fg-explain table{border-collapse:collapse}.fg-explain th{border-bottom:1px solid}</style>")


def _as_html(parts):
    lines = ['<div class="fg-explain">', _STYLE]
    for part in parts:
        if part[0] == "table":
            lines += ["<table>", "<thead><tr>" + "".join(f"<th>{html.escape(c)}</th>" for c in part[1]) + "</tr></thead>", "<tbody>"]
            lines += ["<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in part[2]]
            lines += ["</tbody>", "</table>"]
        else:
            tag = {"title": "p", "heading": "h4", "text": "p"}[part[0]]
            text = html.escape(part[1])
            lines.append(f"<{tag}><b>{text}</b></{tag}>" if part[0] == "title" else f"<{tag}>{text}</{tag}>")
    return "\n".join(lines + ["</div>"])


def _as_latex(told):
    """Forward and backward as equations; what has no equations, and large graphs, as tables."""
    blocks, parts = [], told._said
    shown = told._groups() is None
    for part in parts:
        if part[0] in ("title", "text"):
            blocks.append(escaped(part[1]))
        elif part[0] == "heading":
            blocks.append(rf"\paragraph{{{escaped(part[1])}}}")
            if shown and part[1] == "Forward":
                blocks.append(_aligned(_latex_forward(told)))
            elif shown and part[1].startswith("Backward"):
                blocks.append(_aligned(_latex_backward(told)))
        elif shown and part[1][1] in ("computed as", "gradient"):     # the equations say it
            continue
        else:
            rows = [part[1]] + part[2]
            body = " \\\\\n".join(" & ".join(escaped(cell) for cell in row) for row in rows)
            blocks.append(rf"\begin{{tabular}}{{{'l' * len(part[1])}}}" + "\n" + body + "\n" + r"\end{tabular}")
    return "\n\n".join(blocks)


def _aligned(lines):
    return "\\begin{align*}\n" + " \\\\\n".join(lines) + "\n\\end{align*}"


def _latex_value(told, value, step=None):
    text = told._value(value, step)
    return number_in_latex(text) if _is_a_name_for_itself(text) else rf"\text{{{escaped(text)}}}"


def _latex_forward(told):
    lines = []
    for step in told.graph.steps:
        if step.operation == "constant" and not step.shape and step.name is None:
            continue
        middle = "" if step.is_source else expression(step, latex=True) + " = "
        lines.append(f"{name_in_latex(step.label)} &= {middle}{_latex_value(told, step.value, step)}")
    return lines


def _latex_backward(told):
    output = told.graph.output

    def slope(step):
        return rf"\frac{{\partial {name_in_latex(output.label)}}}{{\partial {name_in_latex(step.label)}}}"

    lines = []
    for step in reversed(told.graph.steps):
        if not step.needs_gradient:
            continue
        if step is output or not step.contributions:
            lines.append(f"{slope(step)} &= " + (r"\text{none}" if step.gradient is None else _latex_value(told, step.gradient)))
            continue
        terms, numbers = [], []
        for c in step.contributions:
            text, words = derivative(c.consumer, c.position, True, incoming=slope(c.consumer))
            if slope(c.consumer) not in text:
                text, words = derivative(c.consumer, c.position, True, factor=True)
                text = rf"{slope(c.consumer)} \cdot {text}"
            terms.append(text + (rf"\ \text{{({escaped(words)})}}" if words else ""))
            value = told._gradient(c.value)
            numbers.append(number_in_latex(value) if _is_a_name_for_itself(value) else "")
        line = f"{slope(step)} &= {' + '.join(terms)}"
        if len(numbers) > 1 and all(numbers):
            line += " = " + " + ".join(n if not n.startswith("-") else rf"\left({n}\right)" for n in numbers)
        lines.append(f"{line} = {_latex_value(told, step.gradient)}")
    return lines
