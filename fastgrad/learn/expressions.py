"""Formulas in text: parsed, their names checked, and evaluated; never run as code.

``(1 - y**2) * (-2/t**2 - 24*t)``, ``((W2.T @ (S1 * S2)) * (z1 > 0)) @ X.T``.  Python's arithmetic, and what people write
by hand: ``σ`` for sigmoid, ``⊙`` and ``·`` for ``*``, ``Wᵀ`` for ``W.T``, ``x²``, ``f'(x)`` for the derivative of f, and
``[z > 0]`` for 1 where that holds and 0 elsewhere.
"""

import ast
import operator
import re
import warnings

import numpy as np

import fastgrad.numpy as fnp
from fastgrad._core import engine, ops

__all__ = ["Expression", "FUNCTIONS", "Misfit", "parse", "parse_values", "readable"]

MOST_CHARACTERS = 10_000
MOST_DEPTH = 100

OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow,
    ast.MatMult: operator.matmul, ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Eq: operator.eq, ast.NotEq: operator.ne,
}

FUNCTIONS = {row.name: getattr(fnp, row.name) for row in ops.OPS if row.name != "guarded_multiply"}
FUNCTIONS.update(
    {name: getattr(fnp, name) for name in (
        "sum", "mean", "prod", "max", "min", "logsumexp", "softmax", "log_softmax", "transpose", "dot", "matmul", "ravel",
        "reshape", "concatenate", "stack", "squeeze", "expand_dims", "broadcast_to")},
    outer=lambda a, b: fnp.ravel(a)[:, None] * fnp.ravel(b)[None, :],
    diag=lambda a: fnp.expand_dims(a, -1) * np.eye(np.shape(a)[-1]),
    abs=fnp.absolute, ln=fnp.log, relu=fnp.relu, sigma=fnp.sigmoid, logistic=fnp.sigmoid,
    ones_like=lambda a: np.ones(np.shape(a)), zeros_like=lambda a: np.zeros(np.shape(a)),
)
MOST_ARGUMENTS = {row.name: row.arity for row in ops.OPS}      # of others two: what comes after could be out=, which is written to
MOST_ARGUMENTS.update(abs=1, ln=1, sigma=1, logistic=1)
KEYWORDS = ("axis", "keepdims")
CONSTANTS = {"pi": np.pi, "e": np.e, "inf": np.inf, "nan": np.nan, "True": True, "False": False, "None": None}
SIGNS = {"⊙": "*", "·": "*", "×": "*", "÷": "/", "−": "-", "ᵀ": ".T", "²": "**2", "³": "**3", "≥": ">=", "≤": "<=",
         "≠": "!=", "π": "pi", "∘": "*", "^": "**"}
PRIME = "_prime_of_"


def parse(text, names=(), listed=None):
    """A formula.

    Parameters
    ----------
    text : str
    names : container of str
        What it may use besides functions and ``pi``, ``e``.
    listed : iterable of str, optional
        Those that an error lists; all of them by default.

    Returns
    -------
    Expression

    Raises
    ------
    ValueError
        If it is no formula, or uses a name that is neither given nor a function: says where, and what there is.
    """
    if not isinstance(text, str):
        raise TypeError(f"a formula is a string, not a {type(text).__name__}")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"a formula of {len(text)} characters; at most {MOST_CHARACTERS} are read")
    plain = text
    for sign, meaning in SIGNS.items():
        plain = plain.replace(sign, meaning)
    if "σ" not in names:
        plain = re.sub(r"\bσ\b", "sigma", plain)
    plain = re.sub(r"\b([A-Za-z]\w*)'\s*\(", PRIME + r"\1(", plain).strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)          # of 2else and its like
            body = ast.parse(plain, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" near character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        raise ValueError(f"{text!r} is not a formula{where}: use numbers, names, + - * / ** @, comparisons and functions") from None
    used = set()
    _check(body, text, names, used, 0, names if listed is None else listed)
    return Expression(text, body, frozenset(used))


def _check(node, text, names, used, depth, listed):
    """Refuses whatever is not arithmetic."""
    if depth > MOST_DEPTH:
        raise ValueError(f"{text[:40]!r}... is nested more than {MOST_DEPTH} deep")
    children = ()
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        if type(node.value) is int and abs(node.value) > 2**53:
            raise ValueError(f"{text!r}: {node.value} is too large for a whole number; write {float(node.value)!r}")
    elif isinstance(node, ast.Constant) and node.value in (True, False, None):
        pass
    elif isinstance(node, ast.Name):
        if node.id not in CONSTANTS or node.id in names:
            if node.id not in names:
                known = ", ".join(sorted(map(str, listed))) or "none"
                what = "is a function: write its argument after it" if node.id in FUNCTIONS else "is not a name here"
                raise ValueError(f"{text!r}: {node.id} {what}; there are {known}")
            used.add(node.id)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        children = (node.left, node.right)
    elif isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        children = (node.operand,)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPERATORS:
        children = (node.left, node.comparators[0])
    elif isinstance(node, ast.IfExp):
        children = (node.test, node.body, node.orelse)
    elif isinstance(node, (ast.List, ast.Tuple)):
        children = node.elts
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        children = (node.value,)
    elif isinstance(node, ast.Subscript):
        children = [node.value] + [part for part in (node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice])]
    elif isinstance(node, ast.Slice):
        children = [part for part in (node.lower, node.upper, node.step) if part is not None]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and all(k.arg in KEYWORDS for k in node.keywords):
        name = node.func.id.removeprefix(PRIME)
        if name not in FUNCTIONS:
            raise ValueError(f"{text!r}: there is no function {name}")
        if len(node.args) > MOST_ARGUMENTS.get(name, 2):
            raise ValueError(f"{text!r}: {name} takes at most {MOST_ARGUMENTS.get(name, 2)} arguments, besides axis= and keepdims=")
        if name != node.func.id and (len(node.args) != 1 or node.keywords):
            raise ValueError(f"{text!r}: {name}' has one argument")
        children = node.args + [k.value for k in node.keywords]
    else:
        raise ValueError(f"{text!r}: a formula has numbers, names, + - * / ** @, comparisons, .T, [i, j] and functions, "
                         f"and nothing like {ast.unparse(node)!r}")
    for child in children:
        _check(child, text, names, used, depth + 1, listed)


class Misfit(ValueError):
    """A part of a formula that cannot be computed.

    Attributes
    ----------
    of_shapes : bool
        Whether shapes are why: numbers of other shapes would do.
    """

    def __init__(self, message, of_shapes):
        self.of_shapes = of_shapes
        super().__init__(" ".join(message.split()))


class Expression:
    """A formula that was parsed.

    Attributes
    ----------
    text : str
    names : frozenset of str
        What it uses.
    body : ast.expr
        What was parsed, for those who look at its parts.
    """

    def __init__(self, text, body, names):
        self.text, self.body, self.names = text, body, names

    def __call__(self, values):
        """Its value.

        Parameters
        ----------
        values : dict
            An array, number or Tensor for each name.

        Returns
        -------
        ndarray, float or Tensor

        Raises
        ------
        ValueError
            If shapes do not fit: says which part of the formula.
        """
        return _value(self.body, values)

    def __repr__(self):
        return f"<formula {self.text}>"


def _value(node, values):
    try:
        return _evaluate(node, values)
    except (ValueError, TypeError, IndexError, AttributeError, ArithmeticError, MemoryError, RuntimeError) as error:
        if isinstance(error, Misfit):
            raise
        told = f"in {readable(node)}: {str(error) or type(error).__name__}"
        raise Misfit(told, isinstance(error, (ValueError, IndexError))) from None


def _evaluate(node, values):
    if isinstance(node, ast.Constant):
        return float(node.value) if type(node.value) is int else node.value
    if isinstance(node, ast.Name):
        return values[node.id] if node.id in values else CONSTANTS[node.id]
    if isinstance(node, ast.BinOp):
        left = _array(_value(node.left, values))
        if isinstance(node.op, ast.Pow) and isinstance(node.right, ast.Constant):
            return _real(left ** node.right.value)
        right = _array(_value(node.right, values))
        try:
            return _real(OPERATORS[type(node.op)](left, right))
        except ValueError:
            if np.shape(left) == np.shape(right) and not isinstance(node.op, ast.MatMult):
                raise
            raise ValueError(f"shapes {np.shape(left)} and {np.shape(right)} do not fit") from None
    if isinstance(node, ast.UnaryOp):
        return OPERATORS[type(node.op)](_array(_value(node.operand, values)))
    if isinstance(node, ast.Compare):
        holds = OPERATORS[type(node.ops[0])](_value(node.left, values), _value(node.comparators[0], values))
        return fnp.where(holds, 1.0, 0.0) if isinstance(holds, engine.Tensor) else np.asarray(holds, float)
    if isinstance(node, ast.IfExp):
        return fnp.where(_value(node.test, values), _value(node.body, values), _value(node.orelse, values))
    if isinstance(node, ast.List):
        if len(node.elts) == 1 and isinstance(node.elts[0], ast.Compare):
            return _value(node.elts[0], values)             # [z > 0]
        return [_value(part, values) for part in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(part, values) for part in node.elts)
    if isinstance(node, ast.Attribute):
        value = _array(_value(node.value, values))
        return value if isinstance(value, float) else value.T
    if isinstance(node, ast.Subscript):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return _array(_value(node.value, values))[tuple(_index(part, values) for part in parts)]
    arguments = [_value(part, values) for part in node.args]
    options = {k.arg: _index(k.value, values) for k in node.keywords}
    name = node.func.id
    if name.startswith(PRIME):
        return _derivative(FUNCTIONS[name.removeprefix(PRIME)], *arguments)
    return _plain(FUNCTIONS[name](*arguments, **options), arguments)


def _real(value):
    """What stays among the real numbers: (-1)**0.5 does not."""
    if isinstance(value, complex):
        raise TypeError("no real number")
    return value


def _array(value):
    """Lists become arrays; numbers stay."""
    return np.asarray(value, float) if isinstance(value, (list, tuple)) else value


def _plain(result, arguments):
    """Arrays in, arrays out."""
    if isinstance(result, engine.Tensor) and not any(isinstance(a, engine.Tensor) for a in arguments):
        return result.numpy() if result.ndim else float(result)
    return result


def _derivative(function, x):
    """The derivative of a function of one number, element by element."""
    with engine.enable_grad():
        x = engine.tensor(np.asarray(x, float), requires_grad=True)
        value = function(x)
        if not isinstance(value, engine.Tensor) or not value.requires_grad:
            return np.zeros(x.shape)
        fnp.sum(value).backward()
    return x.grad.numpy()


def _index(node, values):
    """A whole number, a slice, or what an option is given."""
    if isinstance(node, ast.Slice):
        return slice(*(None if part is None else _index(part, values) for part in (node.lower, node.upper, node.step)))
    if isinstance(node, ast.Constant):
        return node.value
    value = _value(node, values)
    if isinstance(value, tuple):
        return tuple(int(part) for part in value)
    return int(value)


def readable(node):
    """A part of a formula as text."""
    text = ast.unparse(ast.fix_missing_locations(node))
    return re.sub(PRIME + r"(\w+)", r"\1'", text)


def parse_values(pairs):
    """Numbers and arrays by name, as a command line has them.

    Parameters
    ----------
    pairs : list of str
        ``"x=2"``, ``"W=[[1, 2], [3, 4]]"``.

    Returns
    -------
    dict
        Floats, and arrays of floats.

    Raises
    ------
    ValueError
        In one line: what is no pair, no number, a ragged list, or said twice.

    Examples
    --------
    >>> parse_values(["x=-2", "v=[1, 2.5]"])
    {'x': -2.0, 'v': array([1. , 2.5])}
    """
    values = {}
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not name.isidentifier():
            raise ValueError(f"{pair!r}: write name=value, such as x=2 or v=[1,2]")
        if name in values:
            raise ValueError(f"{name} is given twice")
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"{name}: at most {MOST_CHARACTERS} characters are read")
        try:
            value = np.asarray(ast.literal_eval(text.replace("−", "-")))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            value = np.asarray(None)
        if value.dtype.kind not in "iuf":
            raise ValueError(f"{pair!r}: the value is a number or a list of numbers, all rows of one length")
        values[name] = float(value) if value.ndim == 0 else value.astype(float)
    return values
