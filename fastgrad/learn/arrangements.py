"""The factors of a product in another order: transposed, element by element, as matrices, or as an outer product.

A derivative is often a product of the right factors in an order in which their shapes do not fit.  All arrangements of the
factors of a formula, each used once, are tried from small ones up.
"""

import ast
import itertools

import numpy as np

from fastgrad.learn.expressions import parse
from fastgrad.learn.layouts import squeezed
from fastgrad.learn.questions import with_abbreviations

__all__ = ["arranged"]

MOST_ARRANGEMENTS = 300     # of each set of factors


def arranged(question, text, points, exact):
    """A formula of the factors of a product, each used once, that is the exact derivative; None."""
    if not isinstance(text, str):
        return None
    tree = parse(text, question.known | set(question.where)).body
    tried = set()
    for depth in (1, 2, 3, 4, 100):
        leaves = factors_of(tree, depth)
        if 2 <= len(leaves) <= 6 and len(leaves) not in tried:
            tried.add(len(leaves))
            found = arranged_leaves(question, leaves, points, exact)
            if found is not None:
                return found
    return None


def arranged_leaves(question, leaves, points, exact):
    """The same for factors that are given."""
    texts = [ast.unparse(leaf).replace("_prime_of_", "") for leaf in leaves]
    texts = [t if leaf_is_plain(leaf) else f"({t})" for t, leaf in zip(texts, leaves)]
    point = points[0]
    values = with_abbreviations(point, question.where)
    known = set(values)
    try:
        arrays = [np.asarray(parse(_text(leaf), known)(values), float) for leaf in leaves]
    except (ValueError, TypeError):
        return None
    target = exact[0]
    full = (1 << len(leaves)) - 1
    made = {}
    for k, (array, text_) in enumerate(zip(arrays, texts)):
        made[1 << k] = [(array, text_)] + ([(array.T, text_ + ".T")] if array.ndim == 2 and array.size > 1 else [])
    for mask in range(1, full + 1):
        if mask in made:
            continue
        rows, seen = [], set()
        part = (mask - 1) & mask
        while part:
            for (u, s), (v, t) in itertools.product(made[part], made[mask ^ part]):
                for array, text_ in combined(u, s, v, t, part < (mask ^ part)):
                    key = (array.shape, np.round(array / (np.abs(array).max() or 1.0), 9).tobytes())
                    if key not in seen and len(rows) < MOST_ARRANGEMENTS:
                        seen.add(key)
                        rows.append((array, text_))
            part = (part - 1) & mask
        made[mask] = rows
    for array, text_ in sorted(made[full], key=lambda row: len(row[1])):
        if squeezed(array.shape) == squeezed(target.shape) and point.close(array.reshape(target.shape), target).all():
            text_ = unwrapped(text_)
            if all(_same_as(text_, p, e, question) for p, e in zip(points[1:], exact[1:])):
                return text_
    return None


def _same_as(text, point, exact, question):
    try:
        values = with_abbreviations(point, question.where)
        array = np.asarray(parse(text, set(values))(values), float)
    except ValueError:
        return False
    return squeezed(array.shape) == squeezed(exact.shape) and point.close(array.reshape(exact.shape), exact).all()


def combined(u, s, v, t, once):
    """Products of two arrays with their texts."""
    if once and _product_shape(u, v):
        yield u * v, f"({s} * {t})"
    if u.ndim == v.ndim == 2 and u.shape[1] == v.shape[0] and u.size > 1 and v.size > 1:
        yield u @ v, f"({s} @ {t})"
    if u.ndim == 2 and v.ndim == 1 and u.shape[1] == v.shape[0]:
        yield u @ v, f"({s} @ {t})"
    if u.ndim == 1 and v.ndim == 2 and u.shape[0] == v.shape[0]:
        yield u @ v, f"({s} @ {t})"
    if u.ndim == v.ndim == 1:
        yield np.outer(u, v), f"outer({unwrapped(s)}, {unwrapped(t)})"


def _product_shape(u, v):
    if u.ndim == 0 or v.ndim == 0 or u.shape == v.shape:
        return True
    return u.ndim == v.ndim == 2 and all(n == m or 1 in (n, m) for n, m in zip(u.shape, v.shape)) and \
        np.broadcast_shapes(u.shape, v.shape) in (u.shape, v.shape)


def unwrapped(text):
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for k, sign_ in enumerate(text):
        depth += (sign_ == "(") - (sign_ == ")")
        if depth == 0 and k < len(text) - 1:
            return text
    return text[1:-1]


def factors_of(node, depth):
    """The factors of a product, and of its factors, so deep; a division is one factor with its divisor turned over."""
    if depth == 0:
        return [node]
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.MatMult)):
        return factors_of(node.left, depth - 1) + factors_of(node.right, depth - 1)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return [ast.Constant(-1)] + factors_of(node.operand, depth - 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return factors_of(node.left, depth - 1) + [ast.BinOp(ast.Constant(1), ast.Div(), node.right)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("outer", "dot", "matmul", "multiply"):
        return [factor_ for part in node.args for factor_ in factors_of(part, depth - 1)]
    return [node]


def leaf_is_plain(leaf):
    return isinstance(leaf, (ast.Name, ast.Attribute, ast.Call, ast.Subscript)) or isinstance(leaf, ast.Constant) and leaf.value >= 0


def _text(node):
    text = ast.unparse(ast.fix_missing_locations(node))
    return text.replace("_prime_of_", "")
