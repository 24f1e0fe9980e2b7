"""What every operation computes, and its derivatives, as formulas with the reader's own names in them.

Rows of the table are read from their text there; operations with a structure of their own, and rules written in Python, are
stated here, once.  Knows nothing about explanations: it is given a step of a graph and gives text, or LaTeX.

In a formula ``G`` is the gradient that comes into the operation.  A formula without ``G`` is the local derivative itself, and the
gradient that goes out is their product.
"""

import ast
import copy
import functools
import math
import re

import numpy as np

from fastgrad._core import ops

__all__ = ["expression", "formula", "number"]

ROWS = {row.name: row for row in ops.OPS}

# Values that are written with signs; every other operation is written as a call.
SIGNED = {
    "negative": "-x", "positive": "+x", "reciprocal": "1 / x", "square": "x**2", "add": "x + y", "subtract": "x - y",
    "multiply": "x * y", "divide": "x / y", "power": "x**y", "mod": "x % y", "floor_divide": "x // y", "greater": "x > y",
    "guarded_multiply": "x * y", "greater_equal": "x >= y", "less": "x < y", "less_equal": "x <= y", "equal": "x == y",
    "not_equal": "x != y",
}
# Partials whose text in the table is for machines, as a book has them.
AS_A_BOOK = {
    "sigmoid": ("out * (1 - out)",),
    "sinc": ("(cos(pi * x) - out) / x",),
    "sqrt": ("1 / (2 * out)",),
    "arcsinh": ("1 / sqrt(1 + x**2)",),
    "arcsin": ("1 / sqrt(1 - x**2)",),
    "arccos": ("-1 / sqrt(1 - x**2)",),
    "arccosh": ("1 / sqrt(x**2 - 1)",),
    "arctanh": ("1 / (1 - x**2)",),
    "softsign": ("1 / (1 + absolute(x))**2",),
    "arctan2": ("y / hypot(x, y)**2", "-x / hypot(x, y)**2"),
    "logaddexp": ("sigmoid(x - y)", "sigmoid(y - x)"),
    "logaddexp2": ("sigmoid((x - y) * log(2))", "sigmoid((y - x) * log(2))"),
    "fmod": ("1", "-trunc(x / y)"),
    "mod": ("1", "-floor(x / y)"),
    "clip": ("select((x >= y) & (x <= z), 1, 0)", "select((x < y) & (y <= z), 1, 0)", "select((x > z) | (y > z), 1, 0)"),
    "where": (None, "select(x, 1, 0)", "select(x, 0, 1)"),
    "guarded_multiply": ("y", "x"),
}
CONSTANTS = {
    "ln2": "log(2)", "ln10": "log(10)", "degree": "pi / 180", "sqrt_half": "sqrt(0.5)", "inv_sqrt_2pi": "1 / sqrt(2 * pi)",
    "two_over_sqrt_pi": "2 / sqrt(pi)", "selu_scale": "1.0507", "selu_alpha": "1.67326",
}
FUNCTIONS = {"fabs": "abs", "absolute": "abs"}
OPERANDS = ("x", "y", "z")
COMPARED = {ast.Gt: lambda a, b: a > b, ast.GtE: lambda a, b: a >= b, ast.Lt: lambda a, b: a < b, ast.LtE: lambda a, b: a <= b,
            ast.Eq: lambda a, b: a == b, ast.NotEq: lambda a, b: a != b}


def number(value, digits=5):
    """A number as a reader wants it: ``3``, ``-0.25``, ``1.2e-5``, ``nan``; one that was rounded has all of its digits: ``1.0000``.

    Examples
    --------
    >>> from fastgrad.learn.formulas import number
    >>> number(2 / 3), number(-12.0), number(1.2e-5), number(0.9999999), number(True)
    ('0.66667', '-12', '1.2e-5', '1.0000', 'True')
    """
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    noise = 1e-6 if getattr(value, "dtype", None) == np.float32 else 1e-13
    value = float(value)
    if value == 0:
        return "0"
    if math.isfinite(value) and value == int(value) and abs(value) < 10 ** max(digits, 6):
        return str(int(value))
    mantissa, _, exponent = f"{value:#.{digits}g}".partition("e")
    if not math.isfinite(value):
        return f"{value}"
    if abs(float(f"{value:.{digits}g}") - value) <= noise * abs(value) and "." in mantissa:
        mantissa = mantissa.rstrip("0")
    mantissa = mantissa.rstrip(".")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


# ------------------------------------------------------------------------------------- the table's text, made readable


class _Reader(ast.NodeTransformer):
    """The table's expression language as Python: guards and NaN branches go, ``select`` becomes ``a if c else b``."""

    def visit_Name(self, node):
        return self.visit(_parsed(CONSTANTS[node.id])) if node.id in CONSTANTS else node

    def visit_Call(self, node):
        name, given = node.func.id, [self.visit(part) for part in node.args]
        if name == "select":
            condition, yes, no = given
            if _is_nan(yes):
                return no
            return yes if _is_nan(no) else ast.IfExp(condition, yes, no)
        if name == "power":
            return ast.BinOp(given[0], ast.Pow(), given[1])
        return ast.Call(ast.Name(FUNCTIONS.get(name, name)), given, node.keywords)

    def visit_BinOp(self, node):
        if isinstance(node.op, (ast.BitAnd, ast.BitOr)):
            both = [self.visit(node.left), self.visit(node.right)]
            return ast.BoolOp(ast.And() if isinstance(node.op, ast.BitAnd) else ast.Or(), both)
        node = self.generic_visit(node)
        if isinstance(node.op, ast.Add) and _number_of(node.right) == 0:
            return node.left
        return _squared(node) if isinstance(node.op, ast.Mult) else node


def _squared(node):
    """``a * x * x`` as ``a * x**2``."""
    left, right = node.left, node.right
    if isinstance(left, ast.UnaryOp) and isinstance(left.op, ast.USub) and ast.dump(left.operand) == ast.dump(right):
        return ast.UnaryOp(ast.USub(), ast.BinOp(right, ast.Pow(), ast.Constant(2)))
    if ast.dump(left) == ast.dump(right):
        return ast.BinOp(left, ast.Pow(), ast.Constant(2))
    if isinstance(left, ast.BinOp) and isinstance(left.op, ast.Mult) and ast.dump(left.right) == ast.dump(right):
        return ast.BinOp(left.left, ast.Mult(), ast.BinOp(right, ast.Pow(), ast.Constant(2)))
    return node


def _is_nan(node):
    return isinstance(node, ast.Name) and node.id == "nan"


def _parsed(text):
    return ast.parse(text, mode="eval").body


@functools.lru_cache(None)
def _read(text):
    return _Reader().visit(_parsed(text))


def _number_of(node):
    """The number that a node is; None where it is none."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return -node.operand.value
    return None


def _as_node(value):
    """A number as a node, a whole one without its point."""
    if math.isnan(value) or math.isinf(value):
        name = ast.Name("nan" if math.isnan(value) else "inf")
        return ast.UnaryOp(ast.USub(), name) if value < 0 else name
    if value == 0 and math.copysign(1, value) < 0:
        return ast.UnaryOp(ast.USub(), ast.Constant(0.0))
    value = int(value) if value == int(value) and abs(value) < 1e6 else float(f"{value:.6g}")
    return ast.UnaryOp(ast.USub(), ast.Constant(-value)) if value < 0 else ast.Constant(value)


class _Substitute(ast.NodeTransformer):
    """Puts the reader's names and constant numbers in, and does the arithmetic that constants leave to be done."""

    def __init__(self, names):
        self.names = names

    def visit_Name(self, node):
        return copy.deepcopy(self.names[node.id]) if node.id in self.names else node

    def visit_Call(self, node):
        node.args = [self.visit(part) for part in node.args]
        given = [_number_of(part) for part in node.args]
        if node.func.id == "clip" and None not in given:
            return _as_node(min(max(given[0], given[1]), given[2]))
        return node

    def visit_Compare(self, node):
        node = self.generic_visit(node)
        left, right = _number_of(node.left), _number_of(node.comparators[0])
        if left is not None and right is not None:
            return ast.Constant(COMPARED[type(node.ops[0])](left, right))
        return node

    def visit_BoolOp(self, node):
        parts, neutral = [self.visit(part) for part in node.values], isinstance(node.op, ast.And)
        left = [part for part in parts if not (isinstance(part, ast.Constant) and part.value is neutral)]
        for part in left:
            if isinstance(part, ast.Constant) and part.value is (not neutral):
                return part
        if not left:
            return ast.Constant(neutral)
        return left[0] if len(left) == 1 else ast.BoolOp(node.op, left)

    def visit_IfExp(self, node):
        node = self.generic_visit(node)
        test = node.test
        if isinstance(test, ast.Constant):
            return node.body if test.value else node.orelse
        return node.body if ast.dump(node.body) == ast.dump(node.orelse) else node

    def visit_UnaryOp(self, node):
        node = self.generic_visit(node)
        value = _number_of(node.operand)
        return _as_node(-value) if value is not None and isinstance(node.op, ast.USub) else node

    def visit_BinOp(self, node):
        node = self.generic_visit(node)
        left, right, kind = _number_of(node.left), _number_of(node.right), type(node.op)
        if left is not None and right is not None and kind in (ast.Add, ast.Sub, ast.Mult):
            value = left + right if kind is ast.Add else left - right if kind is ast.Sub else left * right
            if len(repr(value)) <= 8:
                return _as_node(value)
        if kind is ast.Pow and right in (0, 1):
            return node.left if right else ast.Constant(1)
        if kind is ast.Mult and left in (1, -1):
            return node.right if left == 1 else ast.UnaryOp(ast.USub(), node.right)
        return node


# --------------------------------------------------------------------------------- operations with a structure of their own


def _index_text(index):
    """An index as it stands between brackets."""
    def part_text(part):
        if isinstance(part, slice):
            ends = ["" if end is None else str(end) for end in (part.start, part.stop)]
            return ":".join(ends) + (f":{part.step}" if part.step not in (None, 1) else "")
        if isinstance(part, np.ndarray):
            return repr(part.tolist()) if part.size <= 6 else "..."
        return "..." if part is Ellipsis else str(part)
    return ", ".join(part_text(part) for part in (index if isinstance(index, tuple) else (index,))) or "()"


def _axis(step):
    axis = step.parameters.get("axis")
    kept = axis is None or step.operands[0] is None or len(step.shape) < len(step.operands[0].shape)
    if axis is None:
        kept = not step.shape or step.operands[0] is None
    return ("" if axis is None else f", axis={axis}") + ("" if kept else ", keepdims=True")


def _over(axes):
    return f"axis {axes[0]}" if len(axes) == 1 else "axes " + ", ".join(map(str, axes))


def _spread(step):
    """Where a reduced gradient goes."""
    axis = step.parameters.get("axis")
    return "to every element" if axis is None else "to every element along " + _over(axis if isinstance(axis, tuple) else (axis,))


def _share(step):
    """How many elements a mean is of."""
    operand = step.operands[0]
    count = (operand.value.size if operand.value is not None else math.prod(operand.shape)) // max(math.prod(step.shape), 1)
    return f"1 / {count}" if count > 1 else "1"


def _matmul(step, j):
    a, b = (None if s is None else len(s.shape) for s in step.operands)
    if a is None or b is None:      # the other operand is not known, but its rank follows
        a, b = a or 2, b or 2
    if a == 1 and b == 1:
        return ("G * y", "G * x")[j], ""
    if a == 1:
        text = ("y @ G", "outer(x, G)")[j]
    elif b == 1:
        text = ("outer(G, y)", "x.T @ G")[j]
    else:
        text = ("G @ y.T", "x.T @ G")[j]
    if max(a, b) <= 2:
        return text, ""
    shape, batch = step.operands[j].shape, step.shape[:len(step.shape) - (a > 1) - (b > 1)]
    return text, "matrix by matrix" + (", summed over the batch" if tuple(shape[:-2]) != tuple(batch) else "")


def _concatenated(step, j):
    axis, lengths = step.parameters["axis"], step.parameters["lengths"]
    start = sum(lengths[:j])
    return f"G[{':, ' * axis}{start}:{start + lengths[j]}]", ""


def _broadcast(step, j):
    note = _broadcast_note(step.operands[0].shape, step.shape)
    return "G", note


def _broadcast_note(small, large):
    """How a gradient gets back through broadcasting."""
    small, large = tuple(small), tuple(large)
    if small == large:
        return ""
    if math.prod(small) == 1:
        return "summed over all elements"
    gap = len(large) - len(small)
    axes = [d for d in range(len(large)) if d < gap or small[d - gap] == 1 != large[d]]
    return "summed over " + _over(axes) if axes else ""


def _running(step, of, back=False):
    """A sum of all elements up to each one, or from each one on."""
    ndim = len(step.shape)
    axis = f", axis={step.parameters['axis'] + ndim}" if ndim > 1 else ""
    return f"cumsum({of}{axis})", "from the end" if step.parameters["reverse"] != back else ""


def _extreme(step, j):
    return "select(x == out, 1, 0)", "ties share it"


def _rows(step):
    """Where an operation along an axis has several rows."""
    return "along each row" if len(step.operands[0].shape) > 1 else ""


# name: (its value, the formula by operand j as (text, words after it))
STRUCTURED = {
    "alias": (lambda s: "x", lambda s, j: ("1", "")),
    "astype": (lambda s: f"astype(x, {s.dtype})", lambda s, j: ("1", "in the dtype before")),
    "sum": (lambda s: f"sum(x{_axis(s)})", lambda s, j: ("1", _spread(s))),
    "mean": (lambda s: f"mean(x{_axis(s)})", lambda s, j: (_share(s), _spread(s))),
    "max": (lambda s: f"max(x{_axis(s)})", _extreme),
    "min": (lambda s: f"min(x{_axis(s)})", _extreme),
    "reshape": (lambda s: f"reshape(x, {tuple(s.shape)})", lambda s, j: (f"reshape(G, {tuple(s.operands[0].shape)})", "")),
    "transpose": (lambda s: "x.T" if _reverses(s) else f"transpose(x, {s.parameters['axes']})",
                  lambda s, j: ("G.T", "") if _reverses(s) else
                  (f"transpose(G, {tuple(int(k) for k in np.argsort(s.parameters['axes']))})", "")),
    "broadcast_to": (lambda s: f"broadcast_to(x, {tuple(s.shape)})", _broadcast),
    "getitem": (lambda s: f"x[{_index_text(s.parameters.get('index', Ellipsis))}]",
                lambda s, j: ("G", f"put at [{_index_text(s.parameters.get('index', Ellipsis))}], 0 elsewhere")),
    "matmul": (lambda s: "x @ y", _matmul),
    "logsumexp": (lambda s: "logsumexp(x)", lambda s, j: ("softmax(x)", _rows(s))),
    "softmax": (lambda s: "softmax(x)", lambda s, j: ("out * (G - sum(out * G))", _rows(s))),
    "log_softmax": (lambda s: "log_softmax(x)", lambda s, j: ("G - exp(out) * sum(G)", _rows(s))),
    "softmax_cross_entropy": (lambda s: "softmax_cross_entropy(x, y)", lambda s, j: ("softmax(x) - onehot(y)", _rows(s))),
    "scatter_add": (lambda s: f"scatter_add(x, [{_index_text(s.parameters.get('index', Ellipsis))}])",
                    lambda s, j: (f"G[{_index_text(s.parameters.get('index', Ellipsis))}]", "")),
    "concatenate": (lambda s: f"concatenate([{', '.join(f'_{k}' for k in range(len(s.operands)))}]"
                              + (f", axis={s.parameters['axis']})" if s.parameters["axis"] else ")"), _concatenated),
    "cumsum": (lambda s: _running(s, "x")[0], lambda s, j: _running(s, "G", True)),
    "setitem": (lambda s: f"setitem(x, [{_index_text(s.parameters.get('index', Ellipsis))}], y)",
                lambda s, j: (("G", f"with 0 at [{_index_text(s.parameters.get('index', Ellipsis))}]"),
                              (f"G[{_index_text(s.parameters.get('index', Ellipsis))}]", ""))[j]),
}

STRUCTURED["scatter"] = STRUCTURED["scatter_add"]       # of a basic index


def _rule(call, *texts):
    """A rule with the text of its value, and one for each operand: (text, words), or the text."""
    return lambda s: call, lambda s, j: texts[j] if isinstance(texts[j], tuple) else (texts[j], "")


# Linear algebra; for a stack, matrix by matrix.
STRUCTURED.update({
    "det": _rule("det(x)", "cofactor(x)"),
    "cofactor": _rule("cofactor(x)", ("sum(G * out) * inv(x).T - inv(x).T @ G.T @ out", "")),
    "slogdet": _rule("logabsdet(x)", "inv(x).T"),
    "slogdet_sign": _rule("signdet(x)", "0"),
    "inv": _rule("inv(x)", "-out.T @ G @ out.T"),
    "pinv": _rule("pinv(x)", ("-out.T @ G @ out.T + (I - x @ out) @ G.T @ out @ out.T + out.T @ out @ G.T @ (I - out @ x)", "")),
    "solve": _rule("solve(x, y)", "-solve(x.T, G) @ out.T", "solve(x.T, G)"),
    "lstsq": _rule("lstsq(x, y)", ("-pinv(x).T @ G @ out.T", "and, where x is not square, what its residuals and its null space add"),
                   "pinv(x).T @ G"),
    "cholesky": _rule("cholesky(x)", ("inv(out).T @ half(out.T @ G) @ inv(out)", "made symmetric; half is the lower triangle with half "
                                      "of the diagonal")),
    "qr": _rule("qr(x)", ("(GQ + Q @ symmetric(R @ GR.T - GQ.T @ Q)) @ inv(R).T", "symmetric takes the lower triangle for the upper one")),
    "eigh": _rule("eigh(x)", ("V @ (diag(Gw) + F * (V.T @ GV)) @ V.T", "made symmetric, F[i, j] = 1 / (w[j] - w[i])")),
    "svd": _rule("svd(x)", ("U @ diag(Gs) @ V.T", "and what the gradients of U and V add, with 1 / (s[j]**2 - s[i]**2)")),
})
STRUCTURED["convolve"] = _rule("convolve(x, y)", "correlate(G, y)", "correlate(G, x)")

# Special functions whose values are SciPy's.
STRUCTURED.update({
    "gamma": _rule("gamma(x)", "out * digamma(x)"),
    "beta": _rule("beta(x, y)", "out * (digamma(x) - digamma(x + y))", "out * (digamma(y) - digamma(x + y))"),
    "betaln": _rule("betaln(x, y)", "digamma(x) - digamma(x + y)", "digamma(y) - digamma(x + y)"),
    "erfinv": _rule("erfinv(x)", "sqrt(pi) / 2 * exp(out**2)"),
    "erfcx": _rule("erfcx(x)", "2 * x * out - 2 / sqrt(pi)"),
    "ndtri": _rule("ndtri(x)", "sqrt(2 * pi) * exp(out**2 / 2)"),
    "log_ndtr": _rule("log_ndtr(x)", "sqrt(2 / pi) / erfcx(-x / sqrt(2))"),
    "iv": (lambda s: f"iv({s.parameters['order']}, x)",
           lambda s, j: (f"(iv({abs(s.parameters['order'] - 1)}, x) + iv({s.parameters['order'] + 1}, x)) / 2", "")),
    "ive": (lambda s: f"ive({s.parameters['order']}, x)",
            lambda s, j: (f"(ive({abs(s.parameters['order'] - 1)}, x) + ive({s.parameters['order'] + 1}, x)) / 2 - sign(x) * out", "")),
})


def _reverses(step):
    axes = step.parameters.get("axes", ())
    return tuple(axes) == tuple(reversed(range(len(axes)))) and len(axes) <= 2


# --------------------------------------------------------------------------------------------------------------- reading


def _name_node(step):
    """How a step stands in a formula."""
    if step is None:
        return ast.Name("constant")
    if step.operation == "constant" and step.name is None and step.value is not None and step.value.ndim == 0 \
            and step.value.dtype.kind in "fiu":
        return _as_node(float(step.value))
    label = step.label
    return ast.Name(label if re.fullmatch(r"[\w.#\[\]'\"]+", label) else f"({label})")


def _built(text, step, partial):
    """The tree of a formula with the names of a step's operands."""
    names = {f"_{k}": _name_node(operand) for k, operand in enumerate(step.operands)}
    for name, operand in zip(OPERANDS, step.operands):
        names[name] = _name_node(operand)
    if partial:
        names["out"] = _name_node(step)
    tree = copy.deepcopy(_read(text))
    return _Substitute(names).visit(tree) if partial else _Names(names).visit(tree)


class _Names(ast.NodeTransformer):
    """Puts names in, and leaves the rest as it stands."""

    def __init__(self, names):
        self.names = names

    def visit_Name(self, node):
        return copy.deepcopy(self.names[node.id]) if node.id in self.names else node


def expression(step, latex=False):
    """What a step computes, in the names of its operands: ``x + y``, ``tanh(z1)``, ``W1 @ x``, ``sum(a, axis=0)``.

    Parameters
    ----------
    step : Step
    latex : bool
        Whether as LaTeX, without the dollar signs.

    Returns
    -------
    str

    Examples
    --------
    >>> import fastgrad as fg
    >>> from fastgrad.learn.formulas import expression
    >>> graph = fg.learn.Graph.run(lambda x, y: fg.numpy.tanh(x * y) ** 2, 1.0, 2.0)
    >>> [expression(step) for step in graph.steps if not step.is_source]
    ['x * y', 'tanh(v1)', 'v2**2']
    """
    if step.is_source:
        return "constant" if step.operation == "constant" else "argument"
    if step.operation in ROWS:
        row = ROWS[step.operation]
        text = SIGNED.get(row.name) or f"{row.name}({', '.join(OPERANDS[:row.arity])})"
    elif step.operation in STRUCTURED:
        text = STRUCTURED[step.operation][0](step)
    else:
        text = f"{step.operation}({', '.join(f'_{k}' for k in range(len(step.operands)))})"
    return _print(text, step, False, latex)


def formula(step, j, latex=False):
    """The derivative of a step by its operand j, in the names of its operands and its own.

    Parameters
    ----------
    step : Step
    j : int
    latex : bool
        Whether as LaTeX, without the dollar signs.

    Returns
    -------
    str
        The local derivative, as ``(1 - h) * (1 + h)``; where ``G`` stands in it, what the operand gets when ``G`` comes in, as
        ``W2.T @ G``.

    Examples
    --------
    >>> import fastgrad as fg
    >>> from fastgrad.learn.formulas import formula
    >>> graph = fg.learn.Graph.run(lambda x, y: x ** 2 * y, 3.0, 2.0)
    >>> square, product = [step for step in graph.steps if not step.is_source]
    >>> formula(square, 0), formula(product, 0), formula(product, 1)
    ('2 * x', 'y', 'v1')
    """
    told, words = derivative(step, j, latex)
    if not words:
        return told
    return rf"{told}\ \text{{{escaped(words)}}}" if latex else f"{told}, {words}"


def derivative(step, j, latex=False, incoming=None, factor=False):
    """The parts of ``formula``: the formula itself, and the words after it.

    Parameters
    ----------
    step, j, latex
        As for ``formula``.
    incoming : str, optional
        What stands for ``G``.
    factor : bool
        Whether the formula is to be a factor of a product, in parentheses if it needs them, in LaTeX.

    Returns
    -------
    tuple of (str, str)
    """
    words = ""
    if step.operation in ROWS:
        row = ROWS[step.operation]
        text = AS_A_BOOK.get(row.name, row.partials)[j]
        if text is None:
            return "0", ""
        if step.operands[j] is not None:
            words = _broadcast_note(step.operands[j].shape, step.shape)
    elif step.operation in STRUCTURED:
        text, words = STRUCTURED[step.operation][1](step, j)
    else:
        return f"by the rule of {step.operation}" if not latex else rf"\text{{by the rule of {escaped(step.operation)}}}", ""
    return _print(text, step, True, latex, incoming, 2 if factor else 0), words


def _print(text, step, partial, latex, incoming=None, least=0):
    tree = _built(text, step, partial)
    if incoming is not None:
        tree = _Names({"G": ast.Name(incoming)}).visit(tree)
    return in_latex(tree, least) if latex else re.sub(r" \*\* ", "**", ast.unparse(tree))


# ----------------------------------------------------------------------------------------------------------------- LaTeX

_BINDS = {ast.Add: 1, ast.Sub: 1, ast.Mult: 2, ast.MatMult: 2, ast.Mod: 2, ast.FloorDiv: 4, ast.Div: 4, ast.Pow: 5}
_SIGN = {ast.Add: " + ", ast.Sub: " - ", ast.Mult: r" \cdot ", ast.MatMult: r"\, ", ast.Mod: r" \bmod "}
_COMPARE = {ast.Gt: ">", ast.GtE: r"\ge", ast.Lt: "<", ast.LtE: r"\le", ast.Eq: "=", ast.NotEq: r"\ne"}
_NAMED = {"exp": r"\exp", "log": r"\log", "sin": r"\sin", "cos": r"\cos", "tan": r"\tan", "sinh": r"\sinh", "cosh": r"\cosh",
          "tanh": r"\tanh", "arcsin": r"\arcsin", "arccos": r"\arccos", "arctan": r"\arctan", "max": r"\max", "min": r"\min",
          "sigmoid": r"\sigma"}
_GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "nu", "rho", "sigma", "tau", "phi", "omega", "pi",
          "eta", "xi", "kappa")


def escaped(text):
    """Text for LaTeX."""
    signs = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "#": r"\#", "%": r"\%", "&": r"\&", "$": r"\$",
             "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}"}
    return "".join(signs.get(sign, sign) for sign in text)


def name_in_latex(label):
    """A name as LaTeX: ``W1`` has an index, ``sigma`` is the letter."""
    if label == "inf":
        return r"\infty"
    if label.startswith("\\"):
        return label
    found = re.fullmatch(r"([A-Za-z]+?)_?(\d*)", label)
    if found:
        letters, index = found.groups()
        body = letters if len(letters) == 1 else "\\" + letters if letters in _GREEK else rf"\mathrm{{{letters}}}"
        return body + (f"_{{{index}}}" if index else "")
    return rf"\mathtt{{{escaped(label)}}}"


def number_in_latex(text):
    """A number that ``number`` has written."""
    if "e" in text and text[-1].isdigit():
        mantissa, exponent = text.split("e")
        return rf"{mantissa} \cdot 10^{{{exponent}}}"
    return {"inf": r"\infty", "-inf": r"-\infty", "nan": r"\mathrm{NaN}"}.get(text, text)


def in_latex(node, least=0):
    """A tree of a formula as LaTeX, in parentheses where what is around it binds more strongly than ``least``."""
    text, binds = _latex_of(node)
    return rf"\left({text}\right)" if binds < least else text


def _latex_of(node):
    if isinstance(node, ast.Constant):
        return number_in_latex(number(node.value, 6)), 6
    if isinstance(node, ast.Name):
        return name_in_latex(node.id), 6
    if isinstance(node, ast.UnaryOp):
        return ("-" if isinstance(node.op, ast.USub) else "+") + in_latex(node.operand, 3), 1
    if isinstance(node, ast.BinOp):
        kind = type(node.op)
        if kind is ast.Div:
            return rf"\frac{{{in_latex(node.left)}}}{{{in_latex(node.right)}}}", 4
        if kind is ast.FloorDiv:
            return rf"\left\lfloor \frac{{{in_latex(node.left)}}}{{{in_latex(node.right)}}} \right\rfloor", 6
        if kind is ast.Pow:
            return rf"{in_latex(node.left, 6)}^{{{in_latex(node.right)}}}", 5
        return in_latex(node.left, _BINDS[kind]) + _SIGN[kind] + in_latex(node.right, _BINDS[kind] + 1), _BINDS[kind]
    if isinstance(node, ast.Compare):
        sign = _COMPARE[type(node.ops[0])]
        return rf"{in_latex(node.left, 1)} {sign} {in_latex(node.comparators[0], 1)}", 0
    if isinstance(node, ast.BoolOp):
        sign = r" \wedge " if isinstance(node.op, ast.And) else r" \vee "
        return sign.join(in_latex(part, 1) for part in node.values), 0
    if isinstance(node, ast.IfExp):
        cases, rest = [], node
        while isinstance(rest, ast.IfExp):
            cases.append(rf"{in_latex(rest.body)} & {in_latex(rest.test)}")
            rest = rest.orelse
        cases.append(rf"{in_latex(rest)} & \text{{else}}")
        return r"\begin{cases}" + r" \\ ".join(cases) + r"\end{cases}", 6
    if isinstance(node, ast.Attribute):
        return rf"{in_latex(node.value, 6)}^\top", 5
    if isinstance(node, ast.Call):
        name = node.func.id
        given = [in_latex(part) for part in node.args]
        given += [rf"\mathrm{{{escaped(word.arg)}}} = {in_latex(word.value)}" for word in node.keywords]
        if name == "sqrt" and len(given) == 1:
            return rf"\sqrt{{{given[0]}}}", 6
        if name == "abs":
            return rf"\left|{given[0]}\right|", 6
        called = _NAMED.get(name, rf"\mathrm{{{escaped(name)}}}")
        return rf"{called}\left({', '.join(given)}\right)", 6
    return rf"\mathtt{{{escaped(ast.unparse(node))}}}", 6
