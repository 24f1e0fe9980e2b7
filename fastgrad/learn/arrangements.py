"""The factors of a product in another order: transposed, element by element, as matrices, or as an outer product.

A derivative is often a product of the right factors in an order in which their shapes do not fit.  All arrangements of the
factors of a formula, each used once, are tried from small ones up.
"""

import ast
import itertools

import numpy as np

from fastgrad.learn.expressions import parse, readable
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
    texts = [readable(leaf) if leaf_is_plain(leaf) else f"({readable(leaf)})" for leaf in leaves]
    fullest = max(range(len(points)), key=lambda k: np.count_nonzero(exact[k]))
    point, target = points[fullest], exact[fullest]
    values = with_abbreviations(point, question.where)
    try:
        arrays = [np.asarray(parse(text, values)(values), float) for text in texts]
    except (ValueError, TypeError):
        return None
    full = (1 << len(leaves)) - 1
    made = {}
    for k, (array, text) in enumerate(zip(arrays, texts)):
        made[1 << k] = [(array, text)] + ([(array.T, text + ".T")] if array.ndim == 2 and array.size > 1 else [])
    for mask in range(1, full):
        if mask not in made:
            made[mask] = _different(_products(made, mask))
    fitting = {unwrapped(text) for array, text in _products(made, full)
               if squeezed(array.shape) == squeezed(target.shape) and point.close(array.reshape(target.shape), target).all()}
    for text in sorted(fitting, key=lambda text: (len(text), text)):
        if all(_same_as(text, p, e, question) for p, e in zip(points, exact)):
            return text
    return None


def _products(made, mask):
    """All products of a set of factors, from those of its parts."""
    part = (mask - 1) & mask
    while part:
        for (u, s), (v, t) in itertools.product(made[part], made[mask ^ part]):
            yield from combined(u, s, v, t, part < (mask ^ part))
        part = (part - 1) & mask


def _different(rows):
    found = {}
    for array, text in rows:
        size = np.abs(array).max(initial=0.0) or 1.0
        found.setdefault((array.shape, np.round(array / size, 9).tobytes()), (array, text))
        if len(found) >= MOST_ARRANGEMENTS:
            break
    return list(found.values())


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
    if isinstance(node, ast.Call) and node.func.id in ("outer", "dot", "matmul", "multiply"):
        return [factor_ for part in node.args for factor_ in factors_of(part, depth - 1)]
    return [node]


def leaf_is_plain(leaf):
    return isinstance(leaf, (ast.Name, ast.Attribute, ast.Call, ast.Subscript)) or (
        isinstance(leaf, ast.Constant) and isinstance(leaf.value, (int, float)) and leaf.value >= 0)
