"""The table -> C kernels, at build time.

Reads ``ops.py`` and writes, into one folder:

``ops.h``         the enumeration of operations and what recording must keep for each
``rows.h``        a value function and a pullback function per row and precision
``loops.h``       loops over these, and the table of them
``scalar.h``      the same on single doubles, as two switches
``machine.h``     the same on an array of doubles, as the cases of a virtual machine
``machine_ops.h`` how the compiler of that machine finds them, and which pullbacks are simpler operations
``fused.h``       loops over cheap operations of cheap operations, and the table of them
``fused_ops.h``   how the compiler of groups finds them
``borrow.h``      NumPy's loops under our signature, for the rows that ask for them
``names.pxi``     the enumeration for Cython
``functions.pxi`` the Python functions with their docstrings, and the rules as text for higher orders

Knows nothing about arrays, strides or Python objects: every loop reads and writes contiguous memory.
"""

import ast
import importlib.util
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TYPES = (("f64", "double"), ("f32", "float"))
OPERANDS = ("x", "y", "z")
NEEDS = {"x": 1, "y": 2, "z": 4, "out": 8}
BUILTINS = {"fabs": "fg_fabs", "round": "fg_round"}
HEADER = "/* Generated from ops.py by generate.py: never edit this file. */\n"


def load_table():
    """The module ops.py, without importing the package (which may not be built yet)."""
    import sys

    spec = importlib.util.spec_from_file_location("fastgrad_ops", HERE / "ops.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TABLE = load_table()
ROWS = {op.name: op for op in TABLE.OPS}


def twins_of(kind):
    """Names like ``sin_f64`` of the functions that have another form besides the one that vectorises by itself.

    SLOW: for the arguments where that one is not valid.  WIDE: on a whole register, at a level that defines it.
    """
    names = set()
    for header in (HERE / "kernels").glob("vecmath*.h"):
        names |= set(re.findall(rf"#define\s+FG_{kind}_(\w+_f(?:64|32))\b", header.read_text()))
    return names


def parse(text):
    return ast.parse(text, mode="eval").body


def names_in(text):
    """Free names of an expression among the operands and ``out``."""
    return {n.id for n in ast.walk(parse(text)) if isinstance(n, ast.Name)} & set(NEEDS)


def is_primitive(op):
    """Whether a row's value is its own name: then C has the function, not the table."""
    body = parse(op.value)
    return isinstance(body, ast.Call) and body.func.id == op.name


def number(node):
    """The value of a literal or named constant, None for anything else."""
    if isinstance(node, ast.Constant):
        return float(node.value)
    if isinstance(node, ast.Name) and node.id in TABLE.CONSTANTS:
        return TABLE.CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and number(node.operand) is not None:
        return -number(node.operand)
    return None


# ---------------------------------------------------------------------------------------------- expressions in C


class ToC(ast.NodeVisitor):
    """Writes an expression in C at one precision; remembers the arguments that a fast function cannot take."""

    BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.BitAnd: "&", ast.BitOr: "|"}
    COMPARE = {ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<=", ast.Eq: "==", ast.NotEq: "!="}

    def __init__(self, suffix, slow=False, twins=frozenset()):
        self.suffix, self.slow, self.twins = suffix, slow, twins
        self.type = dict(TYPES)[suffix]
        self.predicates = []

    def literal(self, value):
        if value != value:
            return f"(({self.type})NAN)"
        if value in (float("inf"), float("-inf")):
            return f"(({self.type}){'-' if value < 0 else ''}INFINITY)"
        return f"(({self.type}){value!r})"

    def visit_Constant(self, node):
        return self.literal(float(node.value))

    def visit_Name(self, node):
        return self.literal(TABLE.CONSTANTS[node.id]) if node.id in TABLE.CONSTANTS else node.id

    def visit_UnaryOp(self, node):
        return f"(-{self.visit(node.operand)})"

    def visit_BinOp(self, node):
        return f"({self.visit(node.left)} {self.BINARY[type(node.op)]} {self.visit(node.right)})"

    def visit_Compare(self, node):
        (operator,), (right,) = node.ops, node.comparators
        return f"({self.visit(node.left)} {self.COMPARE[type(operator)]} {self.visit(right)})"

    def visit_Call(self, node):
        name, arguments = node.func.id, [self.visit(a) for a in node.args]
        if name == "select":
            return "({} ? {} : {})".format(*arguments)
        if name in BUILTINS or is_primitive(ROWS[name]):
            stem = BUILTINS.get(name, "fg_" + name)
            if f"{name}_{self.suffix}" in self.twins:
                predicate = f"{stem}_isslow_{self.suffix}({', '.join(arguments)})"
                self.predicates.append(predicate)
                if self.slow:
                    slow = f"{stem}_slow_{self.suffix}({', '.join(arguments)})"
                    return f"({predicate} ? {slow} : {stem}_{self.suffix}({', '.join(arguments)}))"
            return f"{stem}_{self.suffix}({', '.join(arguments)})"
        arguments += [self.literal(0.0)] * (3 - len(arguments))
        return f"fg_value_{name}_{self.suffix}({', '.join(arguments)})"

    def pull(self, node):
        """g times a partial: exactly 0 where g or a literal branch is 0."""
        if isinstance(node, ast.Call) and node.func.id == "select":
            condition, yes, no = node.args
            return f"({self.visit(condition)} ? {self.pull(yes)} : {self.pull(no)})"
        value = number(node)
        if value == 0:
            return self.literal(0.0)
        if value in (1, -1):
            return "g" if value == 1 else "(-g)"
        if value is not None and value == value:
            return f"(g * {self.literal(value)})"
        return f"(g == 0 ? {self.literal(0.0)} : g * {self.visit(node)})"


# ----------------------------------------------------------------------------------------- expressions on Tensors


class ToPython(ast.NodeTransformer):
    """Rewrites an expression so that Python evaluates it on Tensors."""

    def visit_Call(self, node):
        self.generic_visit(node)
        if node.func.id == "select":
            node.func.id = "where"
        return node

    def pull(self, node):
        if isinstance(node, ast.Call) and node.func.id == "select":
            condition, yes, no = node.args
            return f"where({self.text(condition)}, {self.pull(yes)}, {self.pull(no)})"
        value = number(node)
        if value == 0:
            return "0.0"
        if value in (1, -1):
            return "g" if value == 1 else "negative(g)"
        if value is not None and value == value:
            return f"multiply(g, {self.text(node)})"
        return f"guarded_multiply(g, {self.text(node)})"

    def text(self, node):
        return ast.unparse(self.visit(ast.parse(ast.unparse(node), mode="eval").body))


# ------------------------------------------------------------------------------------------------------- the files


def calls_a_function(text):
    return any(isinstance(n, ast.Call) and n.func.id != "select" for n in ast.walk(parse(text)))


CHEAP_CALLS = {"select", "fabs", "sqrt", "absolute", "sign", "copysign"}


def costly_calls(text):
    """How many functions an expression calls that are more than a few instructions."""
    return sum(isinstance(n, ast.Call) and n.func.id not in CHEAP_CALLS for n in ast.walk(parse(text)))


def weight(text):
    """About what an expression costs an element of a long loop, in tenths of a ns."""
    calls = costly_calls(text)
    divisions = sum(isinstance(n, ast.Div) for n in ast.walk(parse(text)))
    return 1 + 10 * calls + 2 * divisions


def write_ops():
    lines = [HEADER, "#ifndef FG_OPS_H\n#define FG_OPS_H\n", "typedef enum {", "    FG_NONE = 0,"]
    lines += [f"    FG_{op.name.upper()}," for op in TABLE.OPS]
    lines += ["    FG_N_ELEMENTARY", "} fg_op;\n"]
    lines.append("/* What the partial by each operand reads: 1 x, 2 y, 4 z, 8 out; 16: it exists; 32: it is 1. */")
    lines.append("static const unsigned char fg_needs[FG_N_ELEMENTARY][3] = {\n    {0, 0, 0},")
    for op in TABLE.OPS:
        masks = [sum(NEEDS[n] for n in names_in(p)) + 16 + 32 * (number(parse(p)) == 1) if p else 0 for p in op.partials]
        masks += [0] * (3 - len(masks))
        lines.append(f"    {{{masks[0]}, {masks[1]}, {masks[2]}}}, /* {op.name} */")
    lines.append("};\n")
    for field, of in (("arity", lambda op: op.arity), ("is_bool", lambda op: int(op.kind == "bool"))):
        values = ", ".join(str(of(op)) for op in TABLE.OPS)
        lines.append(f"static const unsigned char fg_{field}[FG_N_ELEMENTARY] = {{0, {values}}};")
    lines.append(f"\n/* Fused loops: see fused.h. */\nenum {{ FG_N_FUSED = {len(list(fused_shapes()))} }};")
    lines.append("\n/* About what an element of a long loop costs, in tenths of a ns: the value, then each pullback. */\n"
                 "static const unsigned char fg_weight[FG_N_ELEMENTARY][4] = {\n    {0, 0, 0, 0},")
    for op in TABLE.OPS:
        weights = [weight(op.value)] + [weight(p) if p else 0 for p in op.partials] + [0] * (3 - op.arity)
        lines.append(f"    {{{', '.join(map(str, weights))}}}, /* {op.name} */")
    lines.append("};")
    lines.append("\n/* A node of the tape keeps its operation in a byte, together with the structured ones. */\n"
                 '_Static_assert(FG_N_ELEMENTARY + 40 < 256, "too many operations for a byte");')
    lines.append("\n#endif")
    return "\n".join(lines) + "\n"


def wrap(text):
    return "\n".join(textwrap.wrap(text, 110, subsequent_indent="        ", break_long_words=False)) + "\n"


def function(name, parameters, suffix, expression, twins, pull):
    """A C function of an expression, its careful twin and its predicate where a fast form has limits."""
    c_type = dict(TYPES)[suffix]
    signature = ", ".join(f"{c_type} {p}" for p in parameters)
    used = "".join(f" (void){p};" for p in parameters)
    out = []

    def body(slow):
        writer = ToC(suffix, slow=slow, twins=twins)
        return (writer.pull if pull else writer.visit)(parse(expression)), writer.predicates

    text, predicates = body(slow=False)
    out.append(wrap(f"static inline {c_type} {name}_{suffix}({signature}) {{{used} return {text}; }}"))
    if predicates:
        slow, _ = body(slow=True)
        out.append(wrap(f"static {c_type} {name}_slow_{suffix}({signature}) {{{used} return {slow}; }}"))
        out.append(wrap(f"static inline int {name}_isslow_{suffix}({signature}) {{{used} return "
                        f"{' | '.join(predicates)}; }}"))
    return "".join(out), bool(predicates)


def order_rows():
    """Rows such that a row's value function comes after those its value uses."""
    done, ordered = set(), []

    def visit(op):
        if op.name in done:
            return
        done.add(op.name)
        if not is_primitive(op):
            for node in ast.walk(parse(op.value)):
                if isinstance(node, ast.Call) and node.func.id in ROWS:
                    visit(ROWS[node.func.id])
        ordered.append(op)

    for op in TABLE.OPS:
        visit(op)
    return ordered


VALUE = ("x", "y", "z")
PULL = ("g", "x", "y", "z", "out")


def write_rows(twins):
    """Returns the text and the set of (name, suffix) of functions that have a careful twin."""
    lines, careful = [HEADER], set()
    for suffix, _ in TYPES:
        for op in order_rows():
            text, slow = function(f"fg_value_{op.name}", VALUE, suffix, op.value, twins, pull=False)
            lines.append(f"/* {op.name} = {op.value} */\n{text}")
            if slow:
                careful.add((f"fg_value_{op.name}", suffix))
        for op in TABLE.OPS:
            for operand, partial in zip(OPERANDS, op.partials):
                if partial is None:
                    continue
                text, slow = function(f"fg_pull_{op.name}_{operand}", PULL, suffix, partial, twins, pull=True)
                lines.append(f"/* {op.name}, d{operand} = {partial} */\n{text}")
                if slow:
                    careful.add((f"fg_pull_{op.name}_{operand}", suffix))
    return "\n".join(lines), careful


def loop(name, suffix, parameters, reads, result_type, careful):
    """A loop over contiguous memory applying one of the functions of rows.h."""
    c_type = dict(TYPES)[suffix]
    signature = ", ".join(f"const void *{p}_" for p in parameters)
    arguments = ", ".join(f"{p}[i]" if p in reads else f"({c_type})0" for p in parameters)
    pointers = "".join(
        f"    const {c_type} *restrict {p} = {p}_;\n" if p in reads else f"    (void){p}_;\n" for p in parameters)
    call = f"{name}_{suffix}({arguments})"
    lines = [f"static void loop_{name}_{suffix}(ptrdiff_t n, {signature}, void *to_) {{\n", pointers,
             f"    {result_type} *restrict to = to_;\n"]
    if careful:
        lines.append(
            "    for (ptrdiff_t start = 0; start < n; start += FG_BLOCK) {\n"
            "        ptrdiff_t end = n - start < FG_BLOCK ? n : start + FG_BLOCK;\n"
            "        int slow = 0;\n"
            f"        for (ptrdiff_t i = start; i < end; i++) {{ to[i] = {call}; "
            f"slow |= {name}_isslow_{suffix}({arguments}); }}\n"
            "        if (slow)\n"
            "            for (ptrdiff_t i = start; i < end; i++)\n"
            f"                if ({name}_isslow_{suffix}({arguments})) to[i] = {name}_slow_{suffix}({arguments});\n"
            "    }\n")
    else:
        lines.append(f"    for (ptrdiff_t i = 0; i < n; i++) to[i] = {call};\n")
    lines.append("}\n")
    return "".join(lines)


def either(op, suffix, wide, narrow):
    """C that uses the wide twin of a row's value, at levels that have one, and C that does not."""
    return f"#if defined(FG_WIDE_{op.name}_{suffix})\n{wide}#else\n{narrow}#endif\n"


def wide_loop(op, suffix):
    """A loop over contiguous memory applying the wide twin of a function of one argument."""
    c_type, upper = dict(TYPES)[suffix], suffix.upper()
    return (f"static void loop_fg_value_{op.name}_{suffix}(ptrdiff_t n, const void *x_, const void *y_, const void *z_, "
            f"void *to_) {{\n    const {c_type} *restrict x = x_;\n    (void)y_;\n    (void)z_;\n"
            f"    {c_type} *restrict to = to_;\n    FG_WIDE_LOOP_{upper}(fg_{op.name}_wide_{suffix}, n, x, to);\n}}\n")


def write_loops(careful, wide):
    lines = [HEADER]
    for op in TABLE.OPS:
        for suffix, c_type in TYPES:
            result = "unsigned char" if op.kind == "bool" else c_type
            reads = names_in(op.value)
            name = f"fg_value_{op.name}"
            text = loop(name, suffix, VALUE, reads, result, (name, suffix) in careful)
            lines.append(either(op, suffix, wide_loop(op, suffix), text) if f"{op.name}_{suffix}" in wide else text)
            for operand, partial in zip(OPERANDS, op.partials):
                if partial is not None:
                    name = f"fg_pull_{op.name}_{operand}"
                    reads = names_in(partial) | {"g"}
                    lines.append(loop(name, suffix, PULL, reads, c_type, (name, suffix) in careful))
        # The same on one double, for 0-d values.
        name = f"fg_value_{op.name}"
        if (name, "f64") in careful:
            body = f"{name}_isslow_f64(x, y, z) ? {name}_slow_f64(x, y, z) : {name}_f64(x, y, z)"
        else:
            body = f"{name}_f64(x, y, z)"
        signature = f"static double one_{name}(double x, double y, double z)"
        text = f"{signature} {{ return {body}; }}\n"
        if f"{op.name}_f64" in wide:
            one = f"FG_WIDE_ONE_F64(fg_{op.name}_wide_f64, x)"
            text = either(op, "f64", f"{signature} {{ (void)y; (void)z; return {one}; }}\n", text)
        lines.append(text)
        for operand, partial in zip(OPERANDS, op.partials):
            if partial is not None:
                name = f"fg_pull_{op.name}_{operand}"
                arguments = ", ".join(PULL)
                if (name, "f64") in careful:
                    body = f"{name}_isslow_f64({arguments}) ? {name}_slow_f64({arguments}) : {name}_f64({arguments})"
                else:
                    body = f"{name}_f64({arguments})"
                lines.append(f"static double one_{name}(double g, double x, double y, double z, double out) "
                             f"{{ return {body}; }}\n")
    value_rows, pull_rows, one_rows, one_pulls = [], [], [], []
    for op in TABLE.OPS:
        value_rows.append("    {%s}," % ", ".join(f"loop_fg_value_{op.name}_{s}" for s, _ in TYPES))
        pulls = []
        for operand, partial in list(zip(OPERANDS, op.partials)) + [("", None)] * (3 - op.arity):
            pulls.append("{%s}" % (", ".join(f"loop_fg_pull_{op.name}_{operand}_{s}" for s, _ in TYPES)
                                   if partial else "0, 0"))
        pull_rows.append("    {%s}," % ", ".join(pulls))
        one_rows.append(f"    one_fg_value_{op.name},")
        one_pulls.append("    {%s}," % ", ".join(
            [f"one_fg_pull_{op.name}_{o}" if p else "0" for o, p in zip(OPERANDS, op.partials)]
            + ["0"] * (3 - op.arity)))
    lines.append("#define FG_VALUE_LOOPS { {0, 0}, \\\n" + " \\\n".join(value_rows) + " }\n")
    lines.append("#define FG_PULL_LOOPS { {{0, 0}, {0, 0}, {0, 0}}, \\\n" + " \\\n".join(pull_rows) + " }\n")
    lines.append("#define FG_VALUE_ONES { 0, \\\n" + " \\\n".join(one_rows) + " }\n")
    lines.append("#define FG_PULL_ONES { {0, 0, 0}, \\\n" + " \\\n".join(one_pulls) + " }\n")
    return "\n".join(lines)


def write_scalar():
    """Cheap rows inline, the others through the table of the instruction-set level."""
    lines = [HEADER, "#ifndef FG_SCALAR_H\n#define FG_SCALAR_H\n",
             "static inline double fg_scalar_value(int op, double x, double y, double z) {\n    switch (op) {"]
    for op in TABLE.OPS:
        if not calls_a_function(op.value):
            lines.append(wrap(f"    case FG_{op.name.upper()}: return {ToC('f64').visit(parse(op.value))};").rstrip())
    lines.append("    default: return fg_kernels->value_one[op](x, y, z);\n    }\n}\n")
    lines.append("/* g times the partials by the first two operands, those that are wanted. */\n"
                 "static inline void fg_scalar_pulls(int op, int want_a, int want_b, double g, double x, double y, double out,\n"
                 "                                   double *a, double *b) {")
    lines.append("    switch (op) {")
    for op in TABLE.OPS:
        if op.arity > 2 or not op.differentiable or any(p and calls_a_function(p) for p in op.partials):
            continue
        lines.append(f"    case FG_{op.name.upper()}:")
        for name, partial in zip("ab", op.partials):
            if partial is not None:
                lines.append(wrap(f"        if (want_{name}) *{name} = {ToC('f64').pull(parse(partial))};").rstrip())
        lines.append("        return;")
    lines.append("    default:\n"
                 "        if (want_a) *a = fg_kernels->pull_one[op][0](g, x, y, 0, out);\n"
                 "        if (want_b) *b = fg_kernels->pull_one[op][1](g, x, y, 0, out);\n"
                 "    }\n}\n\n#endif")
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------ the scalar machine


@dataclass(frozen=True)
class Instruction:
    """What the machine can do: an operation's value or pullback, by its C name."""

    name: str    # add, pull_multiply_x
    code: str    # its number in lanes.h
    reads: tuple  # operands in the order of lanes.h, without those that it does not read
    text: str    # the C expression of these
    costly: bool

    def define(self):
        """The call that costly instructions share."""
        signature = ", ".join(f"double {r}" for r in self.reads)
        parameters = PULL if self.code.startswith("FG_PULL") else VALUE
        arguments = ", ".join(p if p in self.reads else "0" for p in parameters)
        return f"static FG_NOINLINE double machine_{self.name}({signature}) {{ return one_{self.text}({arguments}); }}\n"

    def expression(self):
        return f"machine_{self.name}({', '.join(self.reads)})" if self.costly else self.text


def instructions(careful):
    for op in TABLE.OPS:
        name = f"fg_value_{op.name}"
        costly = (name, "f64") in careful or costly_calls(op.value) > 0
        reads = tuple(r for r in VALUE if r in names_in(op.value))
        text = name if costly else ToC("f64").visit(parse(op.value))
        yield Instruction(op.name, f"FG_{op.name.upper()}", reads, text, costly)
    for op in TABLE.OPS:
        for k, (operand, partial) in enumerate(zip(OPERANDS, op.partials)):
            if partial is None or simpler(partial):
                continue
            name = f"fg_pull_{op.name}_{operand}"
            costly = (name, "f64") in careful or costly_calls(partial) > 0
            reads = ("g", *(r for r in PULL[1:] if r in names_in(partial)))
            text = name if costly else ToC("f64").pull(parse(partial))
            yield Instruction(f"pull_{op.name}_{operand}", f"FG_PULL + 3 * FG_{op.name.upper()} + {k}", reads, text, costly)
    yield Instruction("cast_f32", "FG_CAST", ("x",), "(double)(float)x", False)
    yield Instruction("cast_bool", "FG_CAST", ("x",), "x != 0", False)
    yield Instruction("move", "FG_MOVE", ("x",), "x", False)


def simpler(partial):
    """The operation that a pullback by this partial is, of g or of g and the one operand that it reads."""
    if number(parse(partial)) in (1, -1):
        return "FG_MOVE" if number(parse(partial)) == 1 else "FG_NEGATIVE"
    return "FG_GUARDED_MULTIPLY" if partial in NEEDS else None


# What follows what in one instruction, the first result being the operand named: sums of products and their pullbacks.
PAIRS = tuple(
    (first, second, operand)
    for first in ("add", "subtract", "multiply", "guarded_multiply", "negative", "square", "divide", "tanh", "exp", "sqrt",
                  "pull_tanh_x", "pull_square_x", "pull_divide_x")
    for second, operand in (("add", "x"), ("add", "y"), ("subtract", "x"), ("subtract", "y"), ("multiply", "x"),
                            ("multiply", "y"), ("guarded_multiply", "x"), ("guarded_multiply", "y"), ("tanh", "x"),
                            ("exp", "x"), ("square", "x"), ("negative", "x"))
)


def case(name, number, parts):
    """The C of one case: `parts` are instructions with the operand that is the result before, None for none."""
    lines, word = [f"CASE({name}, {number}) {{"], 1
    for instruction, accumulated in parts:
        loads, to = [], word
        word += 1
        for r in instruction.reads:
            if r == accumulated:
                loads.append(f"{r} = result")
            else:
                loads.append(f"{r} = cells[code[{word}]]")
                word += 1
        lines.append(f"    {{\n        double {', '.join(loads)};")
        lines.append(textwrap.indent(wrap(f"result = {instruction.expression()};"), "        ").rstrip())
        lines.append(f"        cells[code[{to}]] = result;\n    }}")
    return "\n".join(lines) + f"\n    NEXT({word})\n}}\n"


def machine_cases(careful):
    """(case, parts) for all, in the order of their numbers."""
    known = {i.name: i for i in instructions(careful)}
    for i in known.values():
        yield i.name, [(i, None)]
        for r in i.reads:
            yield f"{i.name}_after_{r}", [(i, r)]
    for first, second, operand in PAIRS:
        yield f"{first}_{second}_{operand}", [(known[first], None), (known[second], operand)]
        r = known[first].reads[0]
        yield f"{first}_after_{r}_{second}_{operand}", [(known[first], r), (known[second], operand)]


def write_machine(careful):
    """To be included twice: before the machine, and, with MACHINE_CASES defined, inside."""
    cases = list(machine_cases(careful))
    lines = [HEADER, "#ifndef MACHINE_CASES\n", *(i.define() for i in instructions(careful) if i.costly)]
    lines.append("#define MACHINE_LABELS \\")
    lines.append(" \\\n".join(f"    LABEL({name})," for name, _ in cases) + "\n\n#else\n")
    lines += [case(name, k, parts) for k, (name, parts) in enumerate(cases)]
    return "\n".join(lines) + "\n#endif\n"


def write_machine_ops(careful):
    names = [name for name, _ in machine_cases(careful)]
    numbers = {name: k for k, name in enumerate(names)}
    lines = [HEADER, "#ifndef FG_MACHINE_OPS_H\n#define FG_MACHINE_OPS_H\n",
             "/* Cases of the scalar machine.  A case that takes its j-th operand from the instruction before is 1 + j further. */",
             "enum {", *(f"    FG_CASE_{name.upper()} = {k}," for k, name in enumerate(names) if "_after_" not in name),
             f"    FG_N_CASES = {len(names)}", "};\n", "static const uint16_t fg_case[FG_N_LANE_OPS] = {"]
    lines += [f"    [{i.code}] = {numbers[i.name]}," for i in instructions(careful) if not i.name.startswith("cast")]
    lines.append("};\n\n/* Two instructions in one case, the first one's result being this operand of the second (by the order of "
                 "what it reads);\n   the next case takes the first operand of all from the instruction before. */\n"
                 "static const struct {\n    uint16_t first, second, operand, number;\n} fg_pairs[] = {")
    known = {i.name: i for i in instructions(careful)}
    for first, second, operand in PAIRS:
        a, b = known[first], known[second]
        lines.append(f"    {{{a.code}, {b.code}, {b.reads.index(operand)}, {numbers[f'{first}_{second}_{operand}']}}},")
    lines.append("};\n\n/* Pullbacks that are another operation of what they read. */\n"
                 "static const uint16_t fg_simpler[FG_N_ELEMENTARY][3] = {")
    for op in TABLE.OPS:
        for k, partial in enumerate(op.partials):
            if partial and simpler(partial):
                lines.append(f"    [FG_{op.name.upper()}][{k}] = {simpler(partial)},")
    lines.append("};\n\n#endif")
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------- fused loops

INNER = ("add", "subtract", "multiply", "guarded_multiply", "square")
BOTH_SIDES = ("add", "subtract", "multiply", "guarded_multiply")
FIRST_ONLY = ("divide", "negative", "square", "sqrt", "pull_tanh_x", "pull_sqrt_x", "pull_square_x", "pull_divide_x")
INNER_ALONE = ("pull_tanh_x", "pull_sqrt_x", "pull_square_x", "pull_divide_x")  # where the other operand is in memory
COMMUTE = ("add", "multiply")


def fused_shapes():
    """(outer, what computes its first operand, what computes its second): "" for memory."""
    for outer in BOTH_SIDES:
        for i, left in enumerate(("", *INNER)):
            for j, right in enumerate(("", *INNER)):
                if outer not in COMMUTE or j <= i:
                    yield outer, left, right
        for pull in INNER_ALONE:
            yield outer, pull, ""
            if outer not in COMMUTE:
                yield outer, "", pull
    for outer in FIRST_ONLY:
        for left in ("", *INNER):
            yield outer, left, ""
    for right in INNER:
        yield "divide", "", right


def call(instruction, suffix, operands):
    """An instruction's C function, applied."""
    given = dict(zip(instruction.reads, operands))
    pull = instruction.code.startswith("FG_PULL")
    stem = f"fg_{instruction.name}" if pull else f"fg_value_{instruction.name}"
    return f"{stem}_{suffix}({', '.join(given.get(p, '0') for p in (PULL if pull else VALUE))})"


def fused_loop(shape, known, suffix):
    """One pass over up to four operands; the result may be in the memory of one of them."""
    outer, *inner = shape
    names, operands = iter("abcd"), []
    for stem in inner[: len(known[outer].reads)]:
        if stem:
            operands.append(call(known[stem], suffix, [f"{next(names)}[i]" for _ in known[stem].reads]))
        else:
            operands.append(f"{next(names)}[i]")
    expression = call(known[outer], suffix, operands)
    used = [n for n in "abcd" if f"{n}[i]" in expression]
    c_type = dict(TYPES)[suffix]
    lines = [f"static void {fused_name(shape, suffix)}("
             "ptrdiff_t n, const void *a_, const void *b_, const void *c_, const void *d_,\n        void *to_) {"]
    lines += [f"    const {c_type} *{n} = {n}_;" if n in used else f"    (void){n}_;" for n in "abcd"]
    lines += [f"    {c_type} *to = to_;", "    SAME_ELEMENTS_ONLY",
              "    for (ptrdiff_t i = 0; i < n; i++)\n" + textwrap.indent(wrap(f"to[i] = {expression};"), "        ").rstrip(),
              "}\n"]
    return "\n".join(lines)


def fused_name(shape, suffix):
    outer, left, right = shape
    return f"fused_{'_'.join(filter(None, (outer, left or 'load', right)))}_{suffix}"


def write_fused(careful):
    known = {i.name: i for i in instructions(careful)}
    lines = [HEADER, *(fused_loop(shape, known, suffix) for shape in fused_shapes() for suffix, _ in TYPES)]
    rows = [f"    {{{', '.join(fused_name(shape, s) for s, _ in TYPES)}}}," for shape in fused_shapes()]
    return "\n".join([*lines, "#define FG_FUSED_LOOPS { \\\n" + " \\\n".join(rows) + " }"]) + "\n"


def write_fused_ops(careful):
    known = {i.name: i for i in instructions(careful)}
    outer = {name: k for k, name in enumerate((*BOTH_SIDES, *FIRST_ONLY), 1)}
    inner = {name: k for k, name in enumerate((*INNER, *INNER_ALONE), 1)}
    shapes = list(fused_shapes())
    lines = [HEADER, "#ifndef FG_FUSED_OPS_H\n#define FG_FUSED_OPS_H\n",
             "/* What an operation is as the outer or as an inner one of a fused loop; 0: neither. */",
             "static const uint8_t fg_outer[FG_N_LANE_OPS] = {"]
    lines += [f"    [{known[name].code}] = {k}," for name, k in outer.items()]
    lines += ["};\n", "static const uint8_t fg_inner[FG_N_LANE_OPS] = {"]
    lines += [f"    [{known[name].code}] = {k}," for name, k in inner.items()]
    lines += ["};\n", "/* The loop, by the outer operation and what computes its first and second operand (0: memory); 1 + its "
              "number, 0: none. */", f"static const uint8_t fg_fused[{len(outer) + 1}][{len(inner) + 1}][{len(inner) + 1}] = {{"]
    lines += [f"    [{outer[o]}][{inner.get(a, 0)}][{inner.get(b, 0)}] = {k}," for k, (o, a, b) in enumerate(shapes, 1)]
    lines += ["};\n\n#endif"]
    return "\n".join(lines) + "\n"


def docstring(op):
    required = op.arity - len(op.defaults)
    names = list(OPERANDS[:required]) + [name for name, _ in op.defaults]
    points = [round((low + high) / 2 + 0.25 * (high - low) * (0.5 if k else 1), 2) for k, (low, high) in enumerate(op.domain)]
    parts = [op.says, "", "Parameters", "----------"]
    parts.append(f"{', '.join(names)} : Tensor, array_like or number")
    parts.append("    Operands of any shapes that broadcast together; float32 stays float32.")
    parts += ["out : Tensor, optional", "    A Tensor that becomes the result, as in NumPy."]
    parts += ["", "Returns", "-------", "Tensor", f"    Of the broadcast shape, {'bool' if op.kind == 'bool' else 'float'}."]
    parts += ["", "Notes", "-----"]
    if op.differentiable:
        for name, partial in zip(names, op.partials):
            parts.append(f"d/d{name} = ``{rename(partial, names)}``" if partial else f"{name} carries no gradient.")
    else:
        parts.append("Carries no gradient.")
    arguments = ", ".join(repr(p) for p in points)
    parts += ["", "Examples", "--------", ">>> import fastgrad.numpy as fnp",
              f">>> bool(fnp.{op.name}({arguments}) == fnp.{op.name}({arguments}))", "True"]
    return "\n".join(parts)


def rename(partial, names):
    for old, new in zip(OPERANDS, names):
        if old != new:
            partial = re.sub(rf"\b{old}\b", new, partial)
    return partial


def write_borrow():
    """Loops of NumPy's under our signature, for the rows that ask for them."""
    lines = [HEADER, "#ifndef FG_BORROW_H\n#define FG_BORROW_H\n",
             "typedef void (*fg_numpy_loop)(char **, const ptrdiff_t *, const ptrdiff_t *, void *);\n",
             "typedef struct {\n    int op, type;\n    fg_numpy_loop *loop;\n    void **data;\n    fg_value_loop run;\n"
             "} fg_borrowable;\n"]
    table = []
    for op in TABLE.OPS:
        for suffix in op.borrow:
            name, size = f"{op.name}_{suffix}", {"f64": 8, "f32": 4}[suffix]
            operands = OPERANDS[: op.arity]
            arguments = ", ".join(f"(char *){x}" for x in operands)
            unused = "".join(f" (void){x};" for x in OPERANDS[op.arity:])
            steps = ", ".join([str(size)] * (op.arity + 1))
            lines.append(
                f"static fg_numpy_loop numpy_{name};\nstatic void *numpy_{name}_data;\n"
                f"static void borrowed_{name}(ptrdiff_t n, const void *x, const void *y, const void *z, void *out) {{\n"
                f"    char *arguments[] = {{{arguments}, (char *)out}};\n"
                f"    const ptrdiff_t steps[] = {{{steps}}};\n   {unused}\n"
                f"    numpy_{name}(arguments, &n, steps, numpy_{name}_data);\n}}\n")
            table.append(f"    {{FG_{op.name.upper()}, {0 if suffix == 'f64' else 1}, &numpy_{name}, &numpy_{name}_data, "
                         f"borrowed_{name}}},")
    lines.append("static const fg_borrowable fg_borrowables[] = {\n" + "\n".join(table) + "\n    {0, 0, 0, 0, 0}};\n\n#endif")
    return "\n".join(lines) + "\n"


def write_names():
    """The enumeration as Cython sees it."""
    lines = ["# Generated from ops.py by generate.py: never edit this file.\n", 'cdef extern from "ops.h" nogil:', "    enum:"]
    lines += [f"        FG_{op.name.upper()}" for op in TABLE.OPS] + ["        FG_N_ELEMENTARY"]
    return "\n".join(lines) + "\n"


def write_functions():
    lines = ["# Generated from ops.py by generate.py: never edit this file.\n"]
    for op in TABLE.OPS:
        required = op.arity - len(op.defaults)
        operands = list(OPERANDS[:required])
        signature = ", ".join(operands) + ", /"
        signature += "".join(f", {name}={value!r}" for name, value in op.defaults) + ", out=None"
        passed = ", ".join(operands + [name for name, _ in op.defaults])
        call = {1: "apply1", 2: "apply2", 3: "apply3"}[op.arity]
        doc = textwrap.indent(docstring(op), "    ").strip()
        lines.append(f'def {op.name}({signature}):\n    """{doc}\n    """\n'
                     f"    if out is None:\n        return {call}(FG_{op.name.upper()}, {passed})\n"
                     f"    return assign_out(out, {call}(FG_{op.name.upper()}, {passed}))\n\n")
    lines.append("UFUNCS_BY_NAME = {" + ", ".join(f"{op.name!r}: {op.name}" for op in TABLE.OPS) + "}")
    lines.append("UFUNCS = {" + ", ".join(f"{op.numpy_name!r}: {op.name}" for op in TABLE.OPS if op.numpy_name) + "}")
    lines.append("NAMES = (None, " + ", ".join(repr(op.name) for op in TABLE.OPS) + ")\n")
    lines.append("RULES = (\n    None,")
    for op in TABLE.OPS:
        writer = ToPython()
        rules = [writer.pull(parse(p)) if p else None for p in op.partials] + [None] * (3 - op.arity)
        lines.append(f"    {tuple(rules)!r},")
    lines.append(")\nCONSTANTS = {")
    for name, value in TABLE.CONSTANTS.items():
        lines.append(f"    {name!r}: float({str(value)!r}),")
    lines.append("}\n")
    return "\n".join(lines)


def generate(folder):
    """Writes the files into ``folder``, each only when its text has changed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows, careful = write_rows(twins_of("SLOW"))
    texts = {"ops.h": write_ops(), "rows.h": rows, "loops.h": write_loops(careful, twins_of("WIDE")), "scalar.h": write_scalar(),
             "borrow.h": write_borrow(), "machine.h": write_machine(careful), "machine_ops.h": write_machine_ops(careful),
             "fused.h": write_fused(careful), "fused_ops.h": write_fused_ops(careful),
             "names.pxi": write_names(), "functions.pxi": write_functions()}
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    import sys

    generate(sys.argv[1])
