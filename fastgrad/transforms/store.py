"""Programs in files: what ``Program.save`` writes and ``fastgrad.load_program`` reads.

A file is a zip of ``program.json`` and arrays in NumPy's .npy format; docs/program-format.md describes it.  It holds no
code: operations by name, operands by number, shapes.  Reading trusts nothing.  Every value is checked against its
operands here, in ``_Checker``, before the engine plans the Program anew; the engine's kernels index raw memory and rely
on that.  Whatever is wrong with a file, the answer is a ``ProgramFormatError``.
"""

import io
import json
import math
import os
import re
import zipfile

import numpy as np

from fastgrad._core import engine
from fastgrad.numpy import indexing, joining
from fastgrad.transforms.programs import ProgramFormatError

FORMAT, VERSION = "fastgrad program", 1
MOST_TEXT = 1 << 28             # of program.json
MOST_VALUES = 1 << 25
MOST_TOTAL = 1 << 50            # bytes of all values together, views included: no sum of sizes overflows
MOST_NDIM = 32
MOST_DEPTH = 64                 # of trees

DTYPES = {name: np.dtype(name) for name in ("float64", "float32", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16",
                                            "uint32", "uint64")}
FLOATS = ("float64", "float32")
LOOPS = {"float64": engine.LOOP_TYPES[0], "float32": engine.LOOP_TYPES[1]}
FORMS = {"array": 0, "number": 1, "tensor": 2}
ROW_OPERATIONS = ("logsumexp", "softmax", "log_softmax")
# Rules that a file may name, with their parameters.
RULES = {
    "concatenate": (joining._concatenate, ("axis", "lengths")),
    "getitem": (indexing._gather, ("index", "shape")),
    "scatter_add": (indexing._scatter, ("index", "shape")),
    "setitem": (indexing._set, ("index", "shape")),
}


def _refuse(text):
    raise ProgramFormatError(f"load_program: {text}")


# ------------------------------------------------------------------------------------------------------------- writing


def to_bytes(program):
    """A Program as the bytes of a file."""
    binding = program.binding
    members = {}
    nodes, results, guards, (tensors, arrays), impure = engine.program_parts(program)
    who = f"{binding.who}: the Program cannot be saved"
    if program.writes or program.cleared:
        raise TypeError(f"{who}: it changes Tensors from outside (in place, or their gradients); return what it computes instead")
    if impure:
        raise TypeError(f"{who}: it calls Python at each replay ({impure[0].name})")
    place = {0: 0}
    values, held, names = [], [], {}
    for i, node in nodes.items():
        place[i] = len(values) + 1
        values.append(_value_out(who, node, place, members, held, binding.held_names))
    for number, (kind, k, name) in enumerate(held):
        array = arrays[k] if kind == "array" else None if tensors[k] is None else tensors[k].numpy()
        if array is None:
            raise TypeError(f"{who}: it reads a gradient that is None now")
        held[number] = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape),
                        "member": _member(members, f"held{number}", array)}
    document = {
        "format": FORMAT,
        "version": VERSION,
        "name": binding.who,
        "arguments": {"tree": _tree_out(who, binding.structure), "leaves": [_leaf_out(who, leaf) for leaf in binding.leaves]},
        "results": {
            "tree": _tree_out(who, binding.results[0]),
            "leaves": _results_out(who, binding.results[1], [place[i] for i in results], members),
            "kind": "tensor" if binding.form == FORMS["tensor"] else "array",
        },
        "held": held,
        "values": values,
        "guards": [{"value": place[i], "truth": bool(truth)} for i, truth in guards],
    }
    text = json.dumps(document, allow_nan=False, separators=(",", ":")).replace('},{"op"', '},\n{"op"').encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _write_member(archive, "program.json", text, True)
        for name, array in members.items():
            _write_member(archive, name, _npy_bytes(array), False)
    return buffer.getvalue()


def _write_member(archive, name, data, deflated):
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))     # the same Program gives the same bytes
    info.compress_type = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    archive.writestr(info, data)


def _npy_bytes(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape), (1, 0),
                              allow_pickle=False)
    return buffer.getvalue()


def _member(members, name, array):
    name = f"{name}.npy"
    members[name] = np.array(array)
    return name


def _number_out(x):
    x = float(x)
    return x if math.isfinite(x) else str(x)


def _value_out(who, node, place, members, held, held_names):
    """A value as its entry of program.json."""
    name = node.name
    kind = engine.FILE_OPERATIONS.get(name, (0, "", 0))[1]
    entry = {"op": name}
    operands = [place[i] for i in node.operands]
    if node.op == engine.FILE_OPERATIONS["constant"][0]:
        entry["op"], operands = "constant", []
        if node.number is None:
            entry["member"] = _member(members, f"constant{len(members)}", node.value)
        else:
            entry["number"] = _number_out(node.number)
    elif node.op == engine.FILE_OPERATIONS["rule"][0]:
        rule = node.value.function
        if getattr(rule, "name", None) not in RULES or RULES[rule.name][0] is not rule:
            raise TypeError(f"{who}: it calls Python at each replay ({node.name}); write that part with operations of fastgrad.numpy")
        entry["op"], entry["rule"], entry["arrays"] = "rule", rule.name, len(node.value.arguments)
        entry["parameters"] = {key: _parameter_out(who, v, members) for key, v in node.value.keywords.items()}
    elif name in ("slot", "array"):
        entry["op"], entry["held"] = "held", len(held)
        default = f"{'tensor' if name == 'slot' else 'array'}{node.parameter}"
        held.append((name, node.parameter, held_names.get(node.parameter, default)))
    elif name == "argument":
        entry["argument"] = node.parameter
    elif kind == "truth":
        entry["loop"] = "float64" if node.parameter == LOOPS["float64"] else "float32"
    elif name in ("sum", "max", "min", "extreme_pull"):
        entry["axes"] = [d for d in range(32) if node.parameter >> d & 1]
    elif name == "transpose":
        entry["axes"] = list(node.numbers)
    elif name in ("getitem", "scatter"):
        entry["offset"], entry["strides"] = node.numbers[0], list(node.numbers[1:])
    elif name == "row_pull":
        entry["of"] = next(n for n in ROW_OPERATIONS if engine.FILE_OPERATIONS[n][0] == node.parameter)
    elif name not in engine.FILE_OPERATIONS:
        raise TypeError(f"{who}: this version has no entry for {name}")
    if operands:
        entry["in"] = operands
    entry["dtype"], entry["shape"] = node.dtype.name, list(node.shape)
    return entry


def _parameter_out(who, value, members):
    """A parameter of a rule: scalars as they are, the rest as {kind: content}."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if value is Ellipsis:
        return {"ellipsis": None}
    if isinstance(value, slice):
        return {"slice": [_parameter_out(who, part, members) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, engine.Hole):
        return {"operand": value.place}
    if type(value) in (tuple, list):
        return {type(value).__name__: [_parameter_out(who, part, members) for part in value]}
    if isinstance(value, np.ndarray) and value.dtype.name in DTYPES:
        return {"member": _member(members, f"constant{len(members)}", value), "dtype": value.dtype.name, "shape": list(value.shape)}
    raise TypeError(f"{who}: {type(value).__name__} as a parameter of an operation")


def _tree_out(who, structure, depth=0):
    if structure == ():
        return "*"
    kind, extra, parts = structure
    if kind is None:
        return None
    if kind is dict and all(isinstance(key, str) for key in extra):
        content = {key: _tree_out(who, part, depth + 1) for key, part in zip(extra, parts)}
    elif kind in (list, tuple):
        content = [_tree_out(who, part, depth + 1) for part in parts]
    else:
        raise TypeError(f"{who}: its arguments or results are in {'a dict with other keys than strings' if kind is dict else kind.__name__}; "
                        "tuples, lists and dicts with string keys are saved")
    if depth >= MOST_DEPTH:
        raise TypeError(f"{who}: its arguments or results are nested more than {MOST_DEPTH} deep")
    return {kind.__name__: content}


def _leaf_out(who, leaf):
    if leaf.kind == "constant":
        return {"constant": _constant_out(who, leaf.value)}
    return {"kind": leaf.kind, "dtype": leaf.dtype.name, "shape": list(leaf.shape)}


def _constant_out(who, value):
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    raise TypeError(f"{who}: it was recorded for a {type(value).__name__} that was taken by its value; only None, bool, int, float and "
                    "str are saved")


def _results_out(who, constants, places, members):
    leaves, places = [], iter(places)
    for constant in constants:
        if constant is None:
            leaves.append({"value": next(places)})
        elif isinstance(constant[0], np.ndarray) and constant[0].dtype.name in DTYPES:
            leaves.append({"member": _member(members, f"constant{len(members)}", constant[0]), "dtype": constant[0].dtype.name,
                           "shape": list(constant[0].shape)})
        else:
            leaves.append({"constant": _constant_out(who, constant[0])})
    return leaves


# ------------------------------------------------------------------------------------------------------------- reading


def from_bytes(data, limit):
    """The Program that a file's bytes describe, its Binding's parts and what it holds: (program, parts, held)."""
    if len(data) > limit:
        _refuse(f"the file has {len(data)} bytes, and {limit} are allowed (limit=)")
    archive = _Archive(data, limit)
    document = archive.document()
    checker = _Checker(document, archive, limit)
    return checker.program()


class _Archive:
    """The members of a file, each read once, none larger than it may be."""

    def __init__(self, data, limit):
        try:
            self.zip = zipfile.ZipFile(io.BytesIO(data))
            self.entries = self.zip.infolist()
        except Exception as error:
            raise ProgramFormatError(f"load_program: no zip file, or a damaged one: {error}") from error
        names = [entry.filename for entry in self.entries]
        if len(set(names)) != len(names):
            _refuse("two members of one name")
        self.sizes = {entry.filename: entry for entry in self.entries}
        self.left = limit

    def read(self, name, most):
        entry = self.sizes.get(name) if isinstance(name, str) else None
        if entry is None:
            _refuse(f"the member {name!r} is missing")
        if entry.file_size > most or entry.file_size > self.left:
            _refuse(f"the member {name!r} has {entry.file_size} bytes, more than is allowed (limit=)")
        self.left -= entry.file_size
        try:
            with self.zip.open(entry) as stream:
                data = stream.read(entry.file_size + 1)
        except Exception as error:
            raise ProgramFormatError(f"load_program: the member {name!r} is damaged: {error}") from error
        if len(data) != entry.file_size:
            _refuse(f"the member {name!r} is truncated")
        return data

    def document(self):
        text = self.read("program.json", MOST_TEXT)
        if re.search(rb"[0-9]{400}", text):     # an integer that takes long to read
            _refuse("program.json has a number of more than 400 digits")
        try:
            return json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        except ProgramFormatError:
            raise
        except Exception as error:      # not JSON, not UTF-8, nested too deeply
            raise ProgramFormatError(f"load_program: program.json is no JSON: {type(error).__name__}: {str(error)[:200]}") from error

    def array(self, name, dtype, shape):
        """An array of the dtype and shape that program.json says."""
        size = math.prod(shape) * dtype.itemsize
        data = self.read(name, size + 4096)
        match = _NPY.match(data[:4096])
        if match is None:
            _refuse(f"the member {name!r} is no .npy file of version 1")
        found = tuple(int(n) for n in match[3].split(b",") if n.strip())
        length = int.from_bytes(match[1], "little") + 10
        if match[2].decode() != dtype.newbyteorder("<").str or found != shape or len(data) != length + size or match.end() > length:
            _refuse(f"the member {name!r} is no array of shape {shape} and dtype {dtype.name}")
        return np.frombuffer(data, dtype.newbyteorder("<"), offset=length).reshape(shape).astype(dtype)


_NPY = re.compile(rb"\x93NUMPY\x01\x00(..)\{'descr': '([<|][a-z][0-9]{1,2})', 'fortran_order': False, "
                  rb"'shape': \(((?:[0-9]{1,18}(?:, ?|,)?)*)\), \} *\n", re.S)


def _no_duplicates(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("program.json has an object with two equal keys")
    return found


def _no_constant(name):
    _refuse(f"program.json has {name}, which is no JSON")


class _Checker:
    """program.json against the rules of each operation.

    Everything is taken for hostile: a number is looked at before it is used, a shape is computed from the operands and
    compared.  What passes can be planned and replayed without reading or writing outside of any array.
    """

    def __init__(self, document, archive, limit):
        self.archive, self.limit = archive, limit
        self.at = "program.json"
        self.document = self.of(document, dict)
        if self.document.get("format") != FORMAT:
            _refuse("no fastgrad Program")
        version = self.whole(self.document.get("version"), 1, 1 << 31)
        if version > VERSION:
            _refuse(f"the file has version {version} of the format, and this fastgrad reads up to {VERSION}")
        self.dtypes, self.shapes, self.sizes = [None], [None], [0]
        self.total = self.constants = 0

    # -- small things

    def refuse(self, text):
        _refuse(f"{self.at}: {text}")

    def of(self, value, kind):
        if type(value) is not kind:
            self.refuse(f"a {type(value).__name__} where a {kind.__name__} belongs")
        return value

    def whole(self, value, least, most):
        if type(value) is not int or not least <= value <= most:
            self.refuse(f"{str(value)[:40]!r} where an integer from {least} to {most} belongs")
        return value

    def wholes(self, values, n, least, most):
        values = self.of(values, list)
        if n is not None and len(values) != n:
            self.refuse(f"{len(values)} numbers where {n} belong")
        return tuple(self.whole(v, least, most) for v in values)

    def number(self, value):
        if type(value) is str and value in ("nan", "inf", "-inf"):
            return float(value)
        if type(value) is not float and type(value) is not int:
            self.refuse(f"{str(value)[:40]!r} where a number belongs")
        try:
            return float(value)
        except OverflowError:
            self.refuse("a number that is too large")

    def dtype(self, name):
        if type(name) is not str or name not in DTYPES:
            self.refuse(f"unknown dtype {str(name)[:40]!r}")
        return name

    def shape(self, dims):
        dims = self.of(dims, list)
        if len(dims) > MOST_NDIM:
            self.refuse(f"{len(dims)} dimensions; at most {MOST_NDIM} are read")
        shape = self.wholes(dims, None, 0, MOST_TOTAL)
        if math.prod(d for d in shape if d) > MOST_TOTAL // 8:
            self.refuse(f"a shape that is too large: {shape}")
        return shape

    def keys(self, entry, *allowed):
        for key in self.of(entry, dict):
            if key not in allowed:
                self.refuse(f"unknown key {key[:40]!r}")
        return entry

    def text(self, value):
        if type(value) is not str or len(value) > 1000:
            self.refuse("a name that is no short string")
        return value

    # -- trees and leaves

    def tree(self, tree, depth=0):
        """The structure that tree_flatten would give."""
        if tree == "*":
            return ()
        if tree is None:
            return (None, None, ())
        if depth > MOST_DEPTH:
            self.refuse(f"a tree of more than {MOST_DEPTH} levels")
        if type(tree) is not dict or len(tree) != 1:
            self.refuse("a tree that is none")
        (kind, content), = tree.items()
        if kind == "dict":
            content = self.of(content, dict)
            keys = list(content)
            return (dict, tuple(keys), tuple(self.tree(content[key], depth + 1) for key in keys))
        if kind not in ("tuple", "list"):
            self.refuse(f"a tree of {kind[:40]!r}")
        parts = tuple(self.tree(part, depth + 1) for part in self.of(content, list))
        return (tuple if kind == "tuple" else list, len(parts), parts)

    def constant(self, value):
        if type(value) is dict:
            return self.number(self.keys(value, "float").get("float"))
        if value is not None and type(value) not in (bool, int, float, str):
            self.refuse("a constant that is none")
        return value

    def leaf(self, entry):
        """An argument: (kind, dtype, shape, value)."""
        if "constant" in self.of(entry, dict):
            return ("constant", None, None, self.constant(self.keys(entry, "constant")["constant"]))
        self.keys(entry, "kind", "dtype", "shape")
        kind, dtype, shape = self.text(entry.get("kind")), self.dtype(entry.get("dtype")), self.shape(entry.get("shape"))
        if kind not in FORMS or (kind == "number" and (dtype != "float64" or shape != ())):
            self.refuse(f"no argument: {kind[:40]!r}")
        return (kind, DTYPES[dtype], shape, None)

    # -- values

    def operands(self, entry, n):
        """Numbers of earlier values; 0 is none."""
        found = self.wholes(entry.get("in", []), None, 0, len(self.dtypes) - 1)
        if n is not None and (len(found) != n or 0 in found):
            self.refuse(f"{len(found)} operands; it takes {n}")
        return found

    def same(self, what, given, wanted):
        if given != wanted:
            self.refuse(f"its {what} is {given}, and follows as {wanted}")

    def float_operand(self, i):
        if self.dtypes[i] not in FLOATS:
            self.refuse(f"operand {i} is {self.dtypes[i]}")
        return self.dtypes[i], self.shapes[i]

    def looped_operand(self, i):
        if self.dtypes[i] not in FLOATS and self.dtypes[i] != "bool":
            self.refuse(f"operand {i} is {self.dtypes[i]}")
        return self.shapes[i]

    def broadcast(self, shapes):
        """NumPy's rule."""
        ndim = max(len(s) for s in shapes)
        dims = [1] * ndim
        for s in shapes:
            for d, n in enumerate(s, ndim - len(s)):
                if n != 1:
                    if dims[d] not in (1, n):
                        self.refuse(f"operands of shapes {', '.join(map(str, shapes))} do not broadcast")
                    dims[d] = n
        return tuple(dims)

    def axes(self, entry, shape, least=0):
        """Axes of a reduction as bits, the shapes that its result can have, and how many elements one takes."""
        if len(shape) > 31:
            self.refuse("a reduction over more than 31 dimensions")
        axes = self.wholes(entry.get("axes"), None, 0, len(shape) - 1)
        if list(axes) != sorted(set(axes)):
            self.refuse("axes that are not in order")
        if math.prod(shape[d] for d in axes) < least:
            self.refuse("an extreme of nothing")
        gone = tuple(n for d, n in enumerate(shape) if d not in axes)
        kept = tuple(1 if d in axes else n for d, n in enumerate(shape))
        return sum(1 << d for d in axes), (gone, kept)

    def window(self, entry, whole, part):
        """Offset and strides of a basic index, which stay inside."""
        self.keys(entry, "op", "in", "dtype", "shape", "offset", "strides")
        size = math.prod(whole)
        offset = self.whole(entry.get("offset"), 0, MOST_TOTAL)
        strides = self.wholes(entry.get("strides"), len(part), -MOST_TOTAL, MOST_TOTAL)
        if 0 in part:
            return (0,) * (1 + len(part))
        strides = tuple(0 if n == 1 else s for s, n in zip(strides, part))
        low = offset + sum(s * (n - 1) for s, n in zip(strides, part) if s < 0)
        high = offset + sum(s * (n - 1) for s, n in zip(strides, part) if s > 0)
        if low < 0 or high >= size:
            self.refuse(f"an index from {low} to {high} of an array of {size} elements")
        return (offset, *strides)

    def value(self, entry):
        """One entry of "values" as a row for the engine."""
        entry = self.of(entry, dict)
        name = self.text(entry.get("op"))
        if name not in engine.FILE_OPERATIONS:
            self.refuse(f"unknown operation {name[:40]!r}")
        op, kind, reads = engine.FILE_OPERATIONS[name]
        dtype, shape = self.dtype(entry.get("dtype")), self.shape(entry.get("shape"))
        parameter, numbers, what = 0, None, None
        if kind in ("value", "truth"):
            self.keys(entry, "op", "in", "dtype", "shape", "loop")
            operands = self.operands(entry, reads)
            loop = entry.get("loop") if kind == "truth" else dtype
            if loop not in FLOATS:
                self.refuse("a loop over neither float64 nor float32")
            self.same("dtype", dtype, "bool" if kind == "truth" else loop)
            self.same("shape", shape, self.broadcast([self.looped_operand(i) for i in operands]))
            parameter = LOOPS[loop]
        elif kind == "pull":
            self.keys(entry, "op", "in", "dtype", "shape")
            operands = self.operands(entry, None)
            if len(operands) > 5 or sum((i != 0) << k for k, i in enumerate(operands)) != reads:
                self.refuse("operands that this pullback does not take")
            given, wanted = self.float_operand(operands[0])
            self.same("dtype", dtype, given)
            self.same("shape", shape, wanted)
            self.same("shape", shape, self.broadcast([self.looped_operand(i) for i in operands if i]))
            parameter = LOOPS[dtype]
        else:
            check = getattr(self, "_" + name, None)
            operands, parameter, numbers, what = check(entry, dtype, shape)
        self.total += max(math.prod(shape), 1) * DTYPES[dtype].itemsize
        if self.total > MOST_TOTAL:
            self.refuse("values that are too large together")
        self.dtypes.append(dtype)
        self.shapes.append(shape)
        return (op, DTYPES[dtype].num, shape, operands, parameter, numbers, what)

    # One method for each structured operation: (operands, parameter, numbers, what).

    def _argument(self, entry, dtype, shape):
        k = self.whole(self.keys(entry, "op", "dtype", "shape", "argument").get("argument"), 0, len(self.wanted) - 1)
        if self.wanted[k] is None:
            self.refuse(f"argument {k} is there twice")
        kind, wanted, wanted_shape = self.wanted[k][:3]
        self.same("dtype", dtype, wanted.name)
        self.same("shape", shape, wanted_shape)
        self.wanted[k] = None
        return (), k, None, None

    def _held(self, entry, dtype, shape):
        k = self.whole(self.keys(entry, "op", "dtype", "shape", "held").get("held"), 0, len(self.held) - 1)
        self.same("dtype", dtype, self.held[k][1].dtype.name)
        self.same("shape", shape, self.held[k][1].shape)
        if k in self.held_seen:
            self.refuse(f"held {k} is there twice")
        self.held_seen.add(k)
        return (), k, None, None

    def _constant(self, entry, dtype, shape):
        self.keys(entry, "op", "dtype", "shape", "number", "member")
        if ("number" in entry) == ("member" in entry):
            self.refuse("a constant has a number or a member")
        self.constants += math.prod(shape) * DTYPES[dtype].itemsize
        if self.constants > self.limit:
            self.refuse("constants that are larger than is allowed (limit=)")
        if "member" in entry:
            return (), 0, None, self.archive.array(entry["member"], DTYPES[dtype], shape)
        number = self.number(entry["number"])
        if dtype not in FLOATS and (dtype != "bool" or number not in (0.0, 1.0)):
            self.refuse(f"{number} as {dtype}")
        return (), 0, None, number

    def _plain(self, entry, n, *more):
        self.keys(entry, "op", "in", "dtype", "shape", *more)
        return self.operands(entry, n)

    def _astype(self, entry, dtype, shape):
        x, = operands = self._plain(entry, 1)
        if dtype not in FLOATS:
            self.refuse(f"a conversion to {dtype}")
        self.same("shape", shape, self.shapes[x])
        return operands, 0, None, None

    def _reduction(self, entry, dtype, shape, least):
        x, = operands = self._plain(entry, 1, "axes")
        given, whole = self.float_operand(x)
        if whole == ():
            self.refuse("a reduction of a number")
        self.same("dtype", dtype, given)
        mask, possible = self.axes(entry, whole, least)
        if shape not in possible:
            self.same("shape", shape, possible[0])
        return operands, mask, None, None

    def _sum(self, entry, dtype, shape):
        return self._reduction(entry, dtype, shape, 0)

    def _max(self, entry, dtype, shape):
        return self._reduction(entry, dtype, shape, 1)

    _min = _max

    def _reshape(self, entry, dtype, shape):
        x, = operands = self._plain(entry, 1)
        self.same("dtype", dtype, self.dtypes[x])
        self.same("size", math.prod(shape), math.prod(self.shapes[x]))
        return operands, 0, None, None

    def _transpose(self, entry, dtype, shape):
        x, = operands = self._plain(entry, 1, "axes")
        axes = self.wholes(entry.get("axes"), len(self.shapes[x]), 0, MOST_NDIM)
        if sorted(axes) != list(range(len(axes))) or not axes:
            self.refuse(f"axes {axes} are no order of {len(self.shapes[x])} axes")
        self.same("dtype", dtype, self.dtypes[x])
        self.same("shape", shape, tuple(self.shapes[x][d] for d in axes))
        return operands, 0, axes, None

    def _broadcast_to(self, entry, dtype, shape):
        x, = operands = self._plain(entry, 1)
        self.same("dtype", dtype, self.dtypes[x])
        gap = len(shape) - len(self.shapes[x])
        if gap < 0 or any(n != 1 and n != m for n, m in zip(self.shapes[x], shape[gap:])):
            self.refuse(f"shape {self.shapes[x]} does not broadcast to {shape}")
        return operands, 0, None, None

    def _getitem(self, entry, dtype, shape):
        x, = operands = self.operands(entry, 1)
        self.same("dtype", dtype, self.dtypes[x])
        if self.shapes[x] == ():
            self.refuse("an index into a number")
        return operands, 0, self.window(entry, self.shapes[x], shape), None

    def _scatter(self, entry, dtype, shape):
        x, = operands = self.operands(entry, 1)
        self.same("dtype", dtype, self.float_operand(x)[0])
        if shape == ():
            self.refuse("an index into a number")
        return operands, 0, self.window(entry, shape, self.shapes[x]), None

    def _matmul(self, entry, dtype, shape):
        x, y = operands = self._plain(entry, 2)
        (a, p), (b, q) = self.float_operand(x), self.float_operand(y)
        self.same("dtype", (a, b), (dtype, dtype))
        if not p or not q or p[-1] != q[-2 if len(q) > 1 else 0]:
            self.refuse(f"no product of shapes {p} and {q}")
        stack = self.broadcast([p[:-2], q[:-2]])
        self.same("shape", shape, stack + p[-2:-1] + (q[-1:] if len(q) > 1 else ()))
        return operands, 0, None, None

    def _rows(self, entry, dtype, shape, reduced):
        x, = operands = self._plain(entry, 1)
        given, whole = self.float_operand(x)
        self.same("dtype", dtype, given)
        if not whole or (reduced and whole[-1] == 0):
            self.refuse(f"rows of shape {whole}")
        self.same("shape", shape, whole[:-1] if reduced else whole)
        return operands, 0, None, None

    def _logsumexp(self, entry, dtype, shape):
        return self._rows(entry, dtype, shape, True)

    def _softmax(self, entry, dtype, shape):
        return self._rows(entry, dtype, shape, False)

    _log_softmax = _softmax

    def _softmax_cross_entropy(self, entry, dtype, shape):
        x, labels = operands = self._plain(entry, 2)
        given, whole = self.float_operand(x)
        if not whole:
            self.refuse("rows of a number")
        self.same("dtype", (dtype, self.dtypes[labels]), (given, "int64"))
        self.same("shape", (shape, self.shapes[labels]), (whole[:-1], whole[:-1]))
        return operands, 0, None, None

    def _cross_entropy_pull(self, entry, dtype, shape):
        g, x, labels = self.pull_operands(entry, 2, dtype)
        self.same("dtype", self.dtypes[labels], "int64")
        if not shape:
            self.refuse("rows of a number")
        self.same("shape", (shape, self.shapes[g], self.shapes[labels]), (self.shapes[x], shape[:-1], shape[:-1]))
        return (g, x, 0, 0, labels), 0, None, None

    def pull_operands(self, entry, n, dtype, *more):
        """g, x and out of a pullback over rows: the first n of g and x float, like the result; out is checked by the caller."""
        operands = self._plain(entry, None, *more)
        if len(operands) != 5 or operands[2] or operands[3] or not operands[0] or not operands[4] or (operands[1] != 0) != (n == 2):
            self.refuse("operands that this pullback does not take")
        for i in operands[:n]:
            self.same("dtype", dtype, self.float_operand(i)[0])
        return operands[0], operands[1], operands[4]

    def _row_pull(self, entry, dtype, shape):
        name = self.text(entry.get("of"))
        if name not in ROW_OPERATIONS:
            self.refuse(f"the pullback of {name[:40]!r}")
        g, x, out = self.pull_operands(entry, 2 if name == "logsumexp" else 1, dtype, "of")
        self.same("dtype", dtype, self.dtypes[out])
        if not shape or (name == "logsumexp" and shape[-1] == 0):
            self.refuse(f"rows of shape {shape}")
        if name == "logsumexp":
            self.same("shape", (shape, self.shapes[g], self.shapes[out]), (self.shapes[x], shape[:-1], shape[:-1]))
        else:
            self.same("shape", (shape, shape), (self.shapes[g], self.shapes[out]))
        return (g, x, 0, 0, out), engine.FILE_OPERATIONS[name][0], None, None

    def _extreme_pull(self, entry, dtype, shape):
        g, x, out = self.pull_operands(entry, 2, dtype, "axes")
        self.same("dtype", dtype, self.dtypes[out])
        self.same("shape", shape, self.shapes[x])
        if not shape:
            self.refuse("a reduction of a number")
        mask, possible = self.axes(entry, shape, 1)
        if mask and mask + (mask & -mask) != 1 << len(shape):
            self.refuse("axes that are not the last ones")
        if self.shapes[out] not in possible:
            self.same("shape of the value", self.shapes[out], possible[0])
        self.same("shape of the cotangent", self.shapes[g], self.shapes[out])
        return (g, x, 0, 0, out), mask, None, None

    def _rule(self, entry, dtype, shape):
        """A rule of fastgrad's own, by name.  What it gives is compared with dtype and shape at each replay."""
        self.keys(entry, "op", "in", "dtype", "shape", "rule", "arrays", "parameters")
        name = self.text(entry.get("rule"))
        if name not in RULES:
            self.refuse(f"unknown rule {name[:40]!r}")
        rule, names = RULES[name]
        operands = self.operands(entry, None)
        if not operands or 0 in operands:
            self.refuse("a rule without operands")
        n = self.whole(entry.get("arrays"), 1, len(operands))
        parameters = self.of(entry.get("parameters"), dict)
        if sorted(parameters) != sorted(names):
            self.refuse(f"the parameters of {name} are {', '.join(names)}")
        parameters = {key: self.parameter(v, len(operands), 0) for key, v in parameters.items()}
        if name == "concatenate":
            axis = self.whole(parameters["axis"], 0, len(shape) - 1)
            parts = [self.shapes[i] for i in operands[:n]]
            if n != len(operands) or any(len(p) != len(shape) or p[:axis] + p[axis + 1:] != shape[:axis] + shape[axis + 1:] for p in parts):
                self.refuse("parts that do not fit")
            self.same("shape", shape[axis], sum(p[axis] for p in parts))
        elif n != (2 if name == "setitem" else 1):
            self.refuse(f"{n} arrays")
        if name == "scatter_add":
            self.same("shape", parameters["shape"], shape)
        return operands, 0, None, engine.HostCall(rule, tuple(engine.Hole(k) for k in range(n)), parameters, False)

    def parameter(self, value, n, depth):
        if value is None or type(value) in (bool, str):
            return value
        if type(value) is int:
            return self.whole(value, -MOST_TOTAL, MOST_TOTAL)
        if type(value) is float:
            return value
        if type(value) is not dict or depth > 8:
            self.refuse("a parameter that is none")
        if "member" in value:
            self.keys(value, "member", "dtype", "shape")
            dtype, shape = self.dtype(value.get("dtype")), self.shape(value.get("shape"))
            if math.prod(shape) * DTYPES[dtype].itemsize > self.limit:
                self.refuse("an array that is larger than is allowed (limit=)")
            return self.archive.array(value["member"], DTYPES[dtype], shape)
        if len(value) != 1:
            self.refuse("a parameter that is none")
        (kind, content), = value.items()
        if kind == "float":
            return self.number(content)
        if kind == "ellipsis" and content is None:
            return Ellipsis
        if kind == "operand":
            return engine.Hole(self.whole(content, 0, n - 1))
        if kind in ("tuple", "list", "slice"):
            parts = [self.parameter(part, n, depth + 1) for part in self.of(content, list)]
            if kind != "slice":
                return tuple(parts) if kind == "tuple" else parts
            if len(parts) == 3 and all(part is None or type(part) is int for part in parts):
                return slice(*parts)
        self.refuse("a parameter that is none")

    # -- the whole

    def program(self):
        document = self.keys(self.document, "format", "version", "name", "arguments", "results", "held", "values", "guards")
        name = self.text(document.get("name"))
        self.at = "arguments"
        arguments = self.keys(self.of(document.get("arguments"), dict), "tree", "leaves")
        structure = self.tree(arguments.get("tree"))
        leaves = [self.leaf(entry) for entry in self.of(arguments.get("leaves"), list)]
        if _count(structure) != len(leaves) or structure == () or structure[0] is not tuple or structure[1] != 2 \
                or structure[2][0][:1] != (tuple,) or structure[2][1][:1] != (dict,):
            self.refuse("its tree is no pair of positional and keyword arguments with these leaves")
        self.wanted = [leaf for leaf in leaves if leaf[0] != "constant"]
        forms = [FORMS[leaf[0]] for leaf in self.wanted]

        self.at, self.held, self.held_seen = "held", [], set()
        for entry in self.of(document.get("held"), list):
            self.keys(self.of(entry, dict), "name", "dtype", "shape", "member")
            dtype, shape = self.dtype(entry.get("dtype")), self.shape(entry.get("shape"))
            if math.prod(shape) * DTYPES[dtype].itemsize > self.limit:
                self.refuse("an array that is larger than is allowed (limit=)")
            self.held.append((self.text(entry.get("name")), self.archive.array(entry.get("member"), DTYPES[dtype], shape)))
        if len({n for n, _ in self.held}) != len(self.held):
            self.refuse("two of one name")

        values = self.of(document.get("values"), list)
        if len(values) > MOST_VALUES:
            _refuse(f"{len(values)} values; at most {MOST_VALUES} are read")
        rows = []
        for i, entry in enumerate(values, 1):
            self.at = f"value {i}"
            rows.append(self.value(entry))
        self.at = "values"
        if any(self.wanted) or len(self.held_seen) != len(self.held):
            self.refuse("an argument or a held array that no value stands for")

        self.at, guards = "guards", []
        for entry in self.of(document.get("guards"), list):
            i = self.whole(self.keys(self.of(entry, dict), "value", "truth").get("value"), 1, len(rows))
            if self.dtypes[i] not in FLOATS and self.dtypes[i] != "bool" or math.prod(self.shapes[i]) != 1:
                self.refuse(f"value {i} has no truth")
            guards.append((i, self.of(entry.get("truth"), bool)))

        self.at = "results"
        results = self.keys(self.of(document.get("results"), dict), "tree", "leaves", "kind")
        result_structure = self.tree(results.get("tree"))
        if results.get("kind") not in ("array", "tensor"):
            self.refuse("results are of kind array or tensor")
        places, constants = [], []
        for entry in self.of(results.get("leaves"), list):
            if "value" in self.of(entry, dict):
                places.append(self.whole(self.keys(entry, "value")["value"], 1, len(rows)))
                constants.append(None)
            elif "member" in entry:
                constants.append((self.parameter(entry, 0, 0),))
            else:
                if "constant" not in self.keys(entry, "constant"):
                    self.refuse("an empty result")
                constants.append((self.constant(entry["constant"]),))
        if _count(result_structure) != len(constants):
            self.refuse("its tree has another number of leaves")

        held = {n: engine.plain_tensor(array) for n, array in self.held}
        try:
            program = engine.build_program(rows, list(held.values()), forms, places, guards)
        except MemoryError as error:
            raise ProgramFormatError(f"load_program: it needs more memory than there is: {error}") from error
        needed, given = engine.program_memory(program)
        if needed > self.limit or given > self.limit:
            _refuse(f"it needs {max(needed, given)} bytes, and {self.limit} are allowed (limit=)")
        return program, (name, structure, leaves, result_structure, constants, FORMS["tensor"] if results["kind"] == "tensor" else 0), held


def _count(structure):
    return 1 if structure == () else sum(_count(part) for part in structure[2])


def read_file(path, limit):
    """The bytes of a file that is not too long."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            _refuse(f"the file has {size} bytes, and {limit} are allowed (limit=)")
        return file.read(limit + 1)
