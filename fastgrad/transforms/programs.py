"""Programs as Python sees them: the trees of their arguments and results, what they do as a text, saving and loading."""

import numpy as np

from fastgrad._core import engine
from fastgrad._core.engine import Tensor
from fastgrad.transforms import threads
from fastgrad.tree import count_leaves, tree_flatten

__all__ = ["load_program", "ProgramFormatError"]

ARRAY, NUMBER, TENSOR = 0, 1, 2
KINDS = ("array", "number", "tensor")
MOST_BYTES = 1 << 32            # what a loaded Program may need, unless load_program is told otherwise


class ProgramFormatError(ValueError):
    """A file that ``fg.load_program`` refuses: truncated, damaged, or asking for what no Program does."""


class _Static:
    """An argument that is taken by its value, whatever it is: a leaf."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class _Leaf:
    """What one leaf of the arguments must be.  Any float is a number; it is promoted as the recorded one was."""

    __slots__ = ("kind", "dtype", "shape", "value", "state", "alias")

    def __init__(self, kind, dtype=None, shape=None, value=None, state=None, alias=None):
        self.kind, self.dtype, self.shape, self.value = kind, dtype, shape, value
        self.state = state          # of a Tensor: (requires_grad, whether its gradient is None); None: either way
        self.alias = alias          # the first leaf that is the same Tensor; None: either way

    def __repr__(self):
        if self.kind == "constant":
            return repr(self.value)
        return "float" if self.kind == "number" else f"{self.dtype}{list(self.shape)}" + (" Tensor" if self.kind == "tensor" else "")


class Binding:
    """How a Program is called.

    who : str, the function's name.
    structure : the tree of (positional arguments, keyword arguments), static ones as leaves.
    leaves : list of _Leaf
    static : positions of static arguments.
    results : (structure, constants, plain) of the results, as Compiled keeps it.
    form : what results shall be: ARRAY or TENSOR.
    plain : whether every positional argument is one leaf to be replayed and there is nothing else.
    """

    def __init__(self, who, structure, leaves, static, results, form, owns_out=False, held_names=None):
        self.who, self.structure, self.leaves, self.static = who, structure, leaves, static
        self.results, self.form, self.owns_out = results, form, owns_out
        self.held_names = held_names or {}
        positional, keywords = structure[2]
        self.plain = not keywords[1] and not static and all(part == () for part in positional[2]) and all(
            leaf.kind != "constant" and leaf.state in (None, (False, True)) for leaf in leaves) \
            and all(leaf.alias in (None, k) for k, leaf in enumerate(leaves))

    @classmethod
    def of_call(cls, who, call, results):
        """Of a call that was recorded, from its Signature."""
        static = sorted(call.static)
        (kind, n, parts), keywords = call.structure[2]
        parts, places, at = list(parts), [], 0
        replayed = dict(zip(call.places, range(len(call.leaves))))
        constants = dict(call.constants)
        first, leaves = {}, []

        def add(place):
            if place in constants:
                leaves.append(_Leaf("constant", value=constants[place]))
                return
            leaf, kind = call.leaves[replayed[place]], KINDS[call.forms[replayed[place]]]
            if kind == "tensor":
                alias = first.setdefault(id(leaf), len(leaves))
                leaves.append(_Leaf(kind, leaf.dtype, leaf.shape, state=(leaf.requires_grad, leaf.grad is None), alias=alias))
            elif kind == "array":
                leaves.append(_Leaf(kind, leaf.dtype, leaf.shape))
            else:
                leaves.append(_Leaf(kind, np.dtype(float), ()))

        rest = iter(parts)
        full = []
        for k in range(n + len(static)):
            if k in call.static:
                full.append(())
                leaves.append(_Leaf("constant", value=call.static[k]))
                continue
            part = next(rest)
            full.append(part)
            for _ in range(count_leaves(part)):
                add(at)
                at += 1
        for _ in range(count_leaves(keywords)):
            add(at)
            at += 1
        structure = (tuple, 2, ((tuple, len(full), tuple(full)), keywords))
        return cls(who, structure, leaves, static, results, call.form, has_parameter(call.function, "out"))

    def paths(self):
        """For each leaf what a caller calls it."""
        found = []
        positional, keywords = self.structure[2]
        for k, part in enumerate(positional[2]):
            _walk(part, f"argument {k}", found)
        for key, part in zip(keywords[1], keywords[2]):
            _walk(part, f"argument {key!r}", found)
        return found

    def name_of(self, k):
        """The name of the k-th leaf that is replayed."""
        return [path for path, leaf in zip(self.paths(), self.leaves) if leaf.kind != "constant"][k]

    def leaves_of(self, arguments, keywords):
        """The leaves of a call, for a replay; ValueError where it does not fit."""
        arguments = tuple(_Static(a) if k in self.static else a for k, a in enumerate(arguments))
        leaves, structure = tree_flatten((arguments, keywords), sort=False)
        if structure != self.structure:
            self._refuse(f"it was recorded for other arguments: {_describe(self.structure)}, not {_describe(structure)}")
        given, first = [], {}
        for k, (leaf, wanted) in enumerate(zip(leaves, self.leaves)):
            found = self._check(k, leaf, wanted)
            if isinstance(leaf, Tensor) and wanted.alias is not None and first.setdefault(id(leaf), k) != wanted.alias:
                self._refuse(f"{self.paths()[k]} and another argument are one Tensor in one of the two calls and two in the other")
            if wanted.kind != "constant":
                given.append(found)
        return tuple(given)

    def _check(self, k, leaf, wanted):
        if isinstance(leaf, _Static):
            leaf = leaf.value
        if wanted.kind == "constant":
            if leaf is not wanted.value and not (type(leaf) is type(wanted.value) and _equal(leaf, wanted.value)):
                self._refuse(f"{self.paths()[k]} is {leaf!r}, and was recorded as {wanted.value!r}, by its value")
            return leaf
        if isinstance(leaf, Tensor):
            found = "tensor"
            if engine.is_tracked(leaf) and engine.recording_now() and not (leaf.is_leaf and wanted.state and wanted.state[0]):
                raise TypeError(f"{self.who}: {self.paths()[k]} is being differentiated, and a Program's results carry no gradient; "
                                "record the function that takes the gradient, or pass t.detach()")
        elif isinstance(leaf, float) and not (isinstance(leaf, np.generic) and wanted.kind == "array"):
            found = "number"
        elif isinstance(leaf, (np.ndarray, np.generic)):
            leaf, found = np.asarray(leaf), "array"
        else:
            self._refuse(f"{self.paths()[k]} is {leaf!r}, and was recorded as {wanted!r}")
        if found != wanted.kind:
            self._refuse(f"{self.paths()[k]} is {_article(found)}, and was recorded as {_article(wanted.kind)}")
        if found == "number":
            return float(leaf)
        if leaf.shape != wanted.shape:
            self._refuse(f"{self.paths()[k]} has shape {tuple(leaf.shape)}, and was recorded with shape {tuple(wanted.shape)}")
        if leaf.dtype != wanted.dtype:
            self._refuse(f"{self.paths()[k]} has dtype {leaf.dtype}, and was recorded with dtype {wanted.dtype}")
        if found == "tensor" and wanted.state is not None:
            for now, then, what in zip((leaf.requires_grad, leaf.grad is None), wanted.state, ("requires_grad", "grad is None")):
                if now != then:
                    self._refuse(f"{self.paths()[k]} has {what} {now}, and was recorded with {then}")
        return leaf

    def _refuse(self, text):
        raise ValueError(f"{self.who}: this Program does not fit the call: {text}; the function that fg.compile made records again for "
                         "such a call")

    def out_leaves(self, out):
        """The leaves of out= that are to be filled."""
        leaves, structure = tree_flatten(out, sort=False)
        if structure != self.results[0]:
            raise ValueError(f"{self.who}: out= is no tree like the result: {_describe(structure)} instead of {_describe(self.results[0])}")
        found = []
        for leaf, constant in zip(leaves, self.results[1]):
            if constant is None:
                found.append(leaf)
            elif leaf is not constant[0] and not (type(leaf) is type(constant[0]) and _equal(leaf, constant[0])):
                raise ValueError(f"{self.who}: out= has {leaf!r} where the result is always {constant[0]!r}")
        return found


def _equal(a, b):
    try:
        return bool(a == b)
    except Exception:       # arrays, and objects whose == is not a truth value
        return False


def _article(kind):
    return {"array": "an array", "number": "a number", "tensor": "a Tensor"}[kind]


def _walk(structure, path, found):
    if structure == ():
        found.append(path)
        return
    keys = structure[1] if structure[0] is dict else range(len(structure[2]))
    for key, part in zip(keys, structure[2]):
        _walk(part, f"{path}[{key!r}]", found)


def _describe(structure):
    """A tree as Python would write it, leaves as *."""
    if structure == ():
        return "*"
    kind, extra, parts = structure
    inside = [_describe(part) for part in parts]
    if kind is None:
        return "None"
    if kind is dict:
        return "{" + ", ".join(f"{key!r}: {part}" for key, part in zip(extra, inside)) + "}"
    if kind is tuple:
        return "(" + ", ".join(inside) + ("," if len(inside) == 1 else "") + ")"
    return "[" + ", ".join(inside) + "]" if kind is list else f"{kind.__name__}({', '.join(inside)})"


def has_parameter(function, name):
    """Whether a function has a parameter of that name itself."""
    import inspect

    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):     # not known to Python
        return False


# ------------------------------------------------------------------------------------------------------- saving, loading


def save(program, path):
    """See Program.save."""
    data = to_bytes(program)
    with open(path, "wb") as file:
        file.write(data)


def to_bytes(program):
    """What a file of a Program holds; also what pickle keeps."""
    from fastgrad.transforms import store

    return store.to_bytes(program)


def load_program(path, limit=MOST_BYTES):
    """The Program that ``Program.save`` wrote, planned anew.

    Parameters
    ----------
    path : str or path-like
    limit : int
        Bytes that the file, its arrays, a workspace or the results may take each.

    Returns
    -------
    Program
        Called like the one that was saved.  ``held`` has, by name, the Tensors that stand for what the function read from
        outside; they can be given new values in place (``program.held["tensor0"][...] = w``).

    Raises
    ------
    ProgramFormatError
        A ValueError: the file is no Program, truncated, damaged, hostile, of a newer version or larger than the limit.

    Notes
    -----
    Nothing in the file is executed, and everything is checked before it is used: loading a file that somebody else made
    is safe, and so is calling what was loaded (it may take long).  docs/program-format.md describes the format.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fastgrad as fg
    >>> path = os.path.join(tempfile.mkdtemp(), "square.fg")
    >>> fg.compile(lambda x: x * x).program(1.0).save(path)
    >>> fg.load_program(path)(3.0)
    np.float64(9.0)
    """
    from fastgrad.transforms import store

    return load_bytes(store.read_file(path, limit), limit)


def load_bytes(data, limit=MOST_BYTES):
    """The same from a file's bytes; also what pickle calls."""
    if not isinstance(data, bytes):
        raise TypeError(f"a Program is loaded from bytes, not {type(data).__name__}")
    from fastgrad.transforms import store

    program, (who, structure, leaves, result_structure, constants, form), held = store.from_bytes(data, limit)
    threads.register()
    plain = -1
    if all(c is None for c in constants):
        if result_structure == ():
            plain = 0
        elif result_structure[0] is tuple and all(part == () for part in result_structure[2]):
            plain = len(constants)
    leaves = [_Leaf(*leaf) for leaf in leaves]
    binding = Binding(who, structure, leaves, [], (result_structure, constants, plain), form, held_names=dict(enumerate(held)))
    engine.finish_loaded(program, binding, held)
    return program


# --------------------------------------------------------------------------------------------------------------- as text


def short_text(program):
    """repr(program)."""
    if program.binding is None:
        return "<Program>"
    arguments = [repr(leaf) for leaf in program.binding.leaves if leaf.kind != "constant"]
    if len(arguments) > 6:
        arguments[5:] = [f"... {len(arguments) - 5} more"]
    return f"<Program of {program.binding.who}({', '.join(arguments)}): {len(program)} operations>"


def explain(program, most):
    """See Program.explain."""
    facts = engine.program_facts(program)
    binding, steps = program.binding, facts["steps"]
    lines = [f"Program of {binding.who}: {_plural(facts['arguments'], 'argument')}, {_plural(facts['results'], 'result')}, "
             f"{_plural(len(steps), 'step')}"]
    paths = [(path, repr(leaf)) for path, leaf in zip(binding.paths(), binding.leaves)]
    lines += _aligned([("  " + path, text) for path, text in paths[:most]], "ll")
    if len(paths) > most:
        lines.append(f"  ... {len(paths) - most} more")
    names = engine.step_names(program)
    rows, listed = [], range(len(steps))
    if len(steps) > most:
        listed = sorted(sorted(listed, key=lambda i: -(steps[i]["flops"] + steps[i]["bytes"]))[:most])
    for i in listed:
        fact = steps[i]
        rows.append((str(i), fact["step"], _shape(fact["shape"]), _count(fact.get("loads")), _count(fact.get("operations")),
                     _count(fact.get("instructions")), _count(fact.get("stores")), _count(fact.get("sums")), _count(fact.get("lanes")),
                     _unit(fact["flops"], ""), _unit(fact["bytes"], "B"), _names(names[i] or [fact["operation"]])))
    if rows:
        head = ("#", "step", "shape", "loads", "ops", "fused", "stores", "sums", "lanes", "flops", "bytes", "operations")
        lines += ["", *_aligned([head, *rows], "rllrrrrrrrrl")]
    if len(steps) > most:
        rest = [steps[i] for i in set(range(len(steps))) - set(listed)]
        lines.append(f"... and {_plural(len(rest), 'step')} of {_unit(sum(f['flops'] for f in rest), '')} flops and "
                     f"{_unit(sum(f['bytes'] for f in rest), 'B')} together")
    lines += ["", *_aligned([
        ("values", f"{facts['values']} recorded, {facts['instructions']} operations replayed"),
        ("arena", f"{_unit(facts['arena'], 'B')}: at most {_unit(facts['live'], 'B')} alive at a time, constants "
                  f"{_unit(facts['constants'], 'B')}"),
        ("scratch", _unit(facts["scratch"] + facts["temporaries"], "B")),
        ("flops, bytes", f"{_unit(sum(f['flops'] for f in steps), '')}, {_unit(sum(f['bytes'] for f in steps), 'B')} a call"),
        ("guards", _guards(program, facts)),
        ("outside", f"{_plural(facts['slots'], 'Tensor')} and {_plural(facts['arrays'], 'array')} read, {facts['writes']} written, "
                    f"{_plural(len(program.cleared), 'gradient')} cleared"),
        ("threads", f"at most {engine.num_threads()}, in long steps"),
        ("refused calls", str(facts["refused"]))], "ll")]
    return "\n".join(line.rstrip() for line in lines)


def _guards(program, facts):
    texts = engine.guard_texts(program)
    return f"{facts['guards']}" + (": " if texts else "") + ", ".join(texts[:4]) + (", ..." if len(texts) > 4 else "")


def _plural(n, what):
    return f"{n} {what}{'' if n == 1 else 's'}"


def _shape(shape):
    return "x".join(map(str, shape)) or "()"


def _count(n):
    return "" if n is None else str(n)


def _unit(x, unit):
    if x < 10000:
        return f"{x:.0f}{' ' + unit if unit else ''}"
    for prefix in ("k", "M", "G", "T"):
        x /= 1000
        if x < 1000:
            break
    return f"{x:.3g} {prefix}{unit}"


def _names(names):
    """Operations by name, in order, equal ones counted."""
    counted = {}
    for name in names:
        counted[name] = counted.get(name, 0) + 1
    parts = [name if n == 1 else f"{n} {name}" for name, n in counted.items()]
    return ", ".join(parts[:12]) + (f", ... {len(parts) - 12} kinds more" if len(parts) > 12 else "")


def _aligned(rows, sides):
    widths = [max(len(row[k]) for row in rows) for k in range(len(sides))]
    return ["  ".join(cell.rjust(w) if side == "r" else cell.ljust(w) for cell, w, side in zip(row, widths, sides)) for row in rows]
