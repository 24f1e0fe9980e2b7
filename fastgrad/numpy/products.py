"""Products of vectors, matrices and arrays: compositions of transposes, diagonals, sums and matrix products.

Each is written in operations that are there, so that it differentiates to any order, batches, compiles and explains itself.
"""

import functools
import operator

import numpy as np

from fastgrad._core.engine import (
    Tensor, call_host, expand_dims, matmul, moveaxis, multiply, reshape, subtract, sum, swapaxes, transpose,
)

__all__ = ["inner", "outer", "vdot", "vecdot", "matvec", "vecmat", "tensordot", "einsum", "einsum_path", "kron", "cross",
           "matrix_power", "matrix_transpose"]


def _operand(a):
    from fastgrad.numpy.creation import asarray

    return asarray(a)


def _no_float(*operands):
    """Whether NumPy does it: of integers and bool, which carry no gradient."""
    return all(t.dtype.kind != "f" for t in operands)


def _given(out, result):
    if out is None:
        return result
    out[...] = result
    return out


# ------------------------------------------------------------------------------------------------------------------ einsum


def _read_call(operands):
    """The arguments of einsum as (operands, labels of each, labels of the result or None).

    Labels are any hashables; Ellipsis stands for itself.
    """
    if not operands:
        raise ValueError("einsum: must specify the subscripts string and at least one operand, or alternating operands and lists")
    if isinstance(operands[0], str):
        subscripts, arrays = operands[0].replace(" ", ""), operands[1:]
        given, arrow, result = subscripts.partition("->")
        if not arrow and any(c in subscripts for c in "->"):
            raise ValueError(f"einsum: {subscripts!r}: '->' stands once, between operands and result")
        terms = [_read_term(term, subscripts) for term in given.split(",")]
        if len(terms) != len(arrays):
            raise ValueError(f"einsum: {subscripts!r} is for {len(terms)} operands, and {len(arrays)} are given")
        return arrays, terms, _read_term(result, subscripts) if arrow else None
    arrays, terms = operands[:-1:2] if len(operands) % 2 else operands[::2], operands[1::2]
    terms = [list(term) for term in terms]
    return arrays, terms, list(operands[-1]) if len(operands) % 2 else None


def _read_term(term, subscripts):
    labels, rest = [], term
    while rest:
        if rest.startswith("..."):
            labels.append(Ellipsis)
            rest = rest[3:]
        elif rest[0].isalpha():
            labels.append(rest[0])
            rest = rest[1:]
        else:
            raise ValueError(f"einsum: {subscripts!r}: {rest[0]!r} is no label; labels are letters, '...' the axes without one")
    return labels


def _spell_out(arrays, terms, result):
    """The same with a label in place of each axis that an ellipsis stands for: ("...", how many axes are to its right)."""
    longest, spelled = 0, []
    for k, (t, term) in enumerate(zip(arrays, terms)):
        gap = t.ndim - (len(term) - (Ellipsis in term))
        if term.count(Ellipsis) > 1 or gap < 0 or (gap and Ellipsis not in term):
            raise ValueError(f"einsum: operand {k} has shape {t.shape}, and {len(term) - (Ellipsis in term)} labels; an axis without "
                             "a label needs '...'")
        if Ellipsis in term:
            at = term.index(Ellipsis)
            term = term[:at] + [("...", gap - 1 - d) for d in range(gap)] + term[at + 1:]
            longest = max(longest, gap)
        spelled.append(term)
    dots = [("...", longest - 1 - d) for d in range(longest)]
    every = [label for term in spelled for label in term]
    if result is None:          # those that stand once, in alphabetical order
        plain = [label for label in every if not isinstance(label, tuple)]
        return spelled, dots + sorted(label for label in set(plain) if plain.count(label) == 1)
    if result.count(Ellipsis) > 1 or len(set(result)) != len(result):
        raise ValueError("einsum: the result has a label twice; each of its axes needs one of its own")
    if Ellipsis in result:
        at = result.index(Ellipsis)
        result = result[:at] + dots + result[at + 1:]
    elif longest:
        raise ValueError("einsum: the operands have axes under '...', and the result has no '...' for them; sum over labels")
    for label in result:
        if label not in every:
            raise ValueError(f"einsum: the result has the label {label!r}, which no operand has")
    return spelled, result


def _lengths(arrays, terms):
    lengths = {}
    for k, (t, term) in enumerate(zip(arrays, terms)):
        own = {}
        for label, n in zip(term, t.shape):
            if own.setdefault(label, n) != n:
                raise ValueError(f"einsum: operand {k} has shape {t.shape}: axes with the same label {label!r} have lengths "
                                 f"{own[label]} and {n}")
            if lengths.get(label, 1) == 1:
                lengths[label] = n
            elif n not in (1, lengths[label]):
                raise ValueError(f"einsum: operand {k} has shape {t.shape}: its axis {label!r} has length {n}, and that of another "
                                 f"operand {lengths[label]}")
    return lengths


def diagonal_of(t, i, j, offset=0):
    """The diagonal of axes i and j of a Tensor, as its last axis."""
    m, n = t.shape[i], t.shape[j]
    rest = [d for d in range(t.ndim) if d not in (i, j)]
    length = max(0, min(m, n - offset) if offset >= 0 else min(m + offset, n))
    flat = reshape(transpose(t, (*rest, i, j)), (*[t.shape[d] for d in rest], m * n))
    start = offset if offset >= 0 else -offset * n
    return flat[..., start : start + length * (n + 1) : n + 1] if length else flat[..., :0]


def _prepare(t, term, lengths, needed):
    """An operand with each label once, and without those that nobody else needs."""
    term = list(term)
    while len(set(term)) < len(term):
        label = next(label for label in term if term.count(label) > 1)
        i = term.index(label)
        j = term.index(label, i + 1)
        t = diagonal_of(t, i, j)
        term = [term[d] for d in range(len(term)) if d not in (i, j)] + [label]
    spread = [d for d, label in enumerate(term) if t.shape[d] == 1 != lengths[label]]      # broadcast: as if without the label
    if spread:
        t = reshape(t, tuple(n for d, n in enumerate(t.shape) if d not in spread))
        term = [label for d, label in enumerate(term) if d not in spread]
    out = tuple(d for d, label in enumerate(term) if label not in needed)
    if out:
        t = sum(t, out)
        term = [label for label in term if label in needed]
    return t, term


def _arranged(t, term, order):
    """A Tensor with its axes in the order of these labels."""
    axes = [term.index(label) for label in order]
    return t if axes == list(range(t.ndim)) else transpose(t, axes)


def _length(shape):
    return functools.reduce(operator.mul, shape, 1)


def _pair(x, a, y, b, needed):
    """The product of two operands, summed over labels that both have and nobody needs."""
    both = [label for label in a if label in b]
    summed = [label for label in both if label not in needed]
    stacked = [label for label in both if label in needed]
    left, right = [label for label in a if label not in both], [label for label in b if label not in both]
    if not summed:              # no sums: elementwise
        x, y = _arranged(x, a, stacked + left), _arranged(y, b, stacked + right)
        if left and right:
            k = len(stacked)
            x = reshape(x, x.shape + (1,) * len(right))
            y = reshape(y, y.shape[:k] + (1,) * len(left) + y.shape[k:])
        elif left or right:     # the shorter one is spread over the axes of the longer
            x = reshape(x, x.shape + (1,) * len(right)) if right else x
            y = reshape(y, y.shape + (1,) * len(left)) if left else y
        return multiply(x, y), stacked + left + right
    x, y = _arranged(x, a, stacked + left + summed), _arranged(y, b, stacked + summed + right)
    k, n = len(stacked), len(summed)
    stack, rows, columns = x.shape[:k], x.shape[k : k + len(left)], y.shape[k + n :]
    inner = _length(y.shape[k : k + n])
    vector = not k and not right           # a matrix times a vector needs no axis of length 1
    x = reshape(x, (*stack, *((_length(rows),) if left or k else ()), inner))
    y = reshape(y, (*stack, inner, *(() if vector else (_length(columns),))))
    return reshape(matmul(x, y), (*stack, *rows, *columns)), stacked + left + right


@functools.lru_cache(512)
def _path(terms, shapes, result, optimize):
    """Pairs of places in the list of operands, in the order in which they are multiplied."""
    if len(terms) < 3:
        return ((0, 1),) * (len(terms) - 1)
    if optimize is False:
        return tuple((0, 1) for _ in terms[1:])
    number = {label: k for k, label in enumerate(dict.fromkeys(label for term in terms for label in term))}
    if len(number) > 52:        # more than einsum_path has letters for
        return tuple((0, 1) for _ in terms[1:])
    call = []
    for term, shape in zip(terms, shapes):
        call += [np.broadcast_to(0.0, shape), [number[label] for label in term]]
    path = np.einsum_path(*call, [number[label] for label in result], optimize=optimize)[0][1:]
    pairs = []
    for places in path:         # several at once: one after another
        places, n = sorted(places), len(terms) - len(pairs)
        pairs.append(tuple(places[:2]))
        for k, place in enumerate(places[2:], 2):
            pairs.append((place - k, n - k))
    return tuple(pairs)


def einsum(*operands, out=None, dtype=None, order="K", casting="safe", optimize="greedy"):
    """Sums of products by labels of axes (Einstein's convention); gradients by every operand.

    Done by diagonals, sums, transposes and matrix products of two operands at a time.

    Parameters
    ----------
    *operands
        ``einsum("ij,jk->ik", a, b)`` or ``einsum(a, [0, 1], b, [1, 2], [0, 2])``: labels that the result does not have are
        summed over, a label that one operand has twice is its diagonal, ``...`` stands for the other axes, and without
        ``->`` the result has the labels that stand once, in alphabetical order.
    out : Tensor, optional
    dtype : dtype, optional
        That operands are cast to first.
    order, casting
        Accepted as NumPy has them.
    optimize : bool, str or list
        The order of the products of three and more operands: "greedy", "optimal", a path as from ``numpy.einsum_path``, or
        False: from left to right.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If labels and shapes do not fit.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.einsum("ij,j->i", [[1.0, 2.0], [3.0, 4.0]], [1.0, 10.0])
    Tensor([21., 43.])
    >>> fnp.einsum("ii", [[1.0, 2.0], [3.0, 4.0]])
    Tensor(5.0)
    """
    arrays, terms, result = _read_call(operands)
    if not arrays or len(arrays) != len(terms):
        raise ValueError("einsum: each operand needs its list of labels")
    arrays = [_operand(a) for a in arrays]
    if dtype is not None:
        arrays = [t.astype(dtype) for t in arrays]
    if _no_float(*arrays):
        call = operands if isinstance(operands[0], str) else [a for pair in zip(arrays, operands[1::2]) for a in pair]
        call = (operands[0], *arrays) if isinstance(operands[0], str) else (*call, *([result] if result is not None else []))
        return _given(out, call_host(np.einsum, tuple(call)))
    terms, result = _spell_out(arrays, terms, result)
    lengths = _lengths(arrays, terms)
    if optimize is True:
        optimize = "greedy"
    elif isinstance(optimize, list):
        optimize = tuple(optimize)
    if isinstance(optimize, tuple) and optimize and isinstance(optimize[-1], (int, float)):     # (name, memory)
        optimize = optimize[0]
    values = []
    for k, (t, term) in enumerate(zip(arrays, terms)):
        needed = {*result, *(label for other, labels in enumerate(terms) if other != k for label in labels)}
        values.append(_prepare(t, term, lengths, needed))
    if isinstance(optimize, tuple):
        pairs = _given_path(optimize, len(values))
    else:
        pairs = _path(tuple(tuple(term) for _, term in values), tuple(t.shape for t, _ in values), tuple(result), optimize)
    for i, j in pairs:
        y, b = values.pop(max(i, j))
        x, a = values.pop(min(i, j))
        needed = {*result, *(label for _, term in values for label in term)}
        values.append(_pair(x, a, y, b, needed))
        t, term = values[-1]
        values[-1] = _prepare(t, term, lengths, needed)
    t, term = values[0]
    t = _arranged(t, term, result)
    common = np.result_type(*[a.dtype for a in arrays])
    return _given(out, t if t.dtype == common else t.astype(common))


def _given_path(path, n):
    path = [step for step in path if not isinstance(step, str)]
    pairs = []
    for step in path:
        places, left = sorted(step), n - len(pairs)
        if len(places) < 2:
            continue
        pairs.append(tuple(places[:2]))
        for k, place in enumerate(places[2:], 2):
            pairs.append((place - k, left - k))
    if len(pairs) != n - 1:
        raise ValueError(f"einsum: the path {path} does not leave one operand of {n}")
    return pairs


def einsum_path(*operands, optimize="greedy", einsum_call=False):
    """The order of products that ``einsum`` would take, as ``numpy.einsum_path``.

    Parameters
    ----------
    *operands
        As for ``einsum``.
    optimize, einsum_call
        As NumPy has them.

    Returns
    -------
    tuple of (list, str)

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.einsum_path("ij,jk,kl->il", fnp.ones((2, 3)), fnp.ones((3, 4)), fnp.ones((4, 5)))[0]
    ['einsum_path', (1, 2), (0, 1)]
    """
    plain = [np.broadcast_to(np.zeros((), a.dtype), a.shape) if isinstance(a, Tensor) else a for a in operands]
    return np.einsum_path(*plain, optimize=optimize, einsum_call=einsum_call)


# ---------------------------------------------------------------------------------------------------------------- products


def tensordot(a, b, axes=2):
    """Sum of products over axes of both: their last and first ones, or two lists of axes.

    Parameters
    ----------
    a, b : Tensor or array_like
    axes : int, or pair of int or sequences of int
        How many axes, or which ones of a and of b.

    Returns
    -------
    Tensor
        The other axes of a, then those of b.

    Raises
    ------
    ValueError
        If the axes have other lengths.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.tensordot([[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [0.0, 1.0]])
    Tensor(7.0)
    """
    x, y = _operand(a), _operand(b)
    if _no_float(x, y):
        return call_host(np.tensordot, (x, y, axes))
    if isinstance(axes, (int, np.integer)):
        if axes > min(x.ndim, y.ndim):
            raise ValueError(f"tensordot: {axes} axes of shapes {x.shape} and {y.shape} are more than there are")
        first, second = list(range(x.ndim - int(axes), x.ndim)), list(range(int(axes)))
    else:
        first, second = ([part] if isinstance(part, (int, np.integer)) else list(part) for part in axes)
    first = list(np.lib.array_utils.normalize_axis_tuple(first, x.ndim, "axes"))
    second = list(np.lib.array_utils.normalize_axis_tuple(second, y.ndim, "axes"))
    if [x.shape[d] for d in first] != [y.shape[d] for d in second]:
        raise ValueError(f"tensordot: shapes {x.shape} and {y.shape} do not fit: axes {first} of the first and {second} of the second "
                         "must have the same lengths")
    a_labels, b_labels = [("a", d) for d in range(x.ndim)], [("b", d) for d in range(y.ndim)]
    for i, j in zip(first, second):
        b_labels[j] = a_labels[i]
    left = [label for d, label in enumerate(a_labels) if d not in first]
    right = [label for d, label in enumerate(b_labels) if d not in second]
    t, term = _pair(x, a_labels, y, b_labels, {*left, *right})
    return _arranged(t, term, left + right)


def inner(a, b, /):
    """Sum of products over the last axes.

    Parameters
    ----------
    a, b : Tensor or array_like

    Returns
    -------
    Tensor
        The other axes of a, then those of b.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.inner([1.0, 2.0], [[3.0, 4.0], [5.0, 6.0]])
    Tensor([11., 17.])
    """
    x, y = _operand(a), _operand(b)
    if _no_float(x, y):
        return call_host(np.inner, (x, y))
    if x.ndim == 0 or y.ndim == 0:
        return multiply(x, y)
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"inner: shapes {x.shape} and {y.shape} do not fit: the last axes must have the same length")
    return tensordot(x, y, (-1, -1))


def outer(a, b, out=None):
    """All products of an element of a and an element of b, both laid flat.

    Parameters
    ----------
    a, b : Tensor or array_like
    out : Tensor, optional

    Returns
    -------
    Tensor
        (a.size, b.size)

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.outer([1.0, 2.0], [3.0, 4.0])
    Tensor([[3., 4.],
            [6., 8.]])
    """
    return _given(out, multiply(reshape(_operand(a), (-1, 1)), reshape(_operand(b), (1, -1))))


def vdot(a, b, /):
    """Sum of the products of all elements.

    Parameters
    ----------
    a, b : Tensor or array_like
        Of one size; laid flat.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.vdot([[1.0, 2.0]], [[3.0], [4.0]])
    Tensor(11.0)
    """
    x, y = _operand(a), _operand(b)
    if x.size != y.size:
        raise ValueError(f"vdot: shapes {x.shape} and {y.shape} do not fit: both need as many elements")
    if _no_float(x, y):
        return call_host(np.vdot, (x, y))
    return matmul(reshape(x, -1), reshape(y, -1))


def vecdot(x1, x2, /, *, axis=-1):
    """Sum of products along an axis, for each pair of vectors of two stacks.

    Parameters
    ----------
    x1, x2 : Tensor or array_like
        Whose other axes broadcast.
    axis : int

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.vecdot([[1.0, 2.0], [3.0, 4.0]], [1.0, 10.0])
    Tensor([21., 43.])
    """
    x, y = _vectors("vecdot", x1, x2, axis)
    return sum(multiply(x, y), -1)


def _vectors(name, x1, x2, axis):
    """Both with the axis last, and of one length along it."""
    x, y = _operand(x1), _operand(x2)
    for t in (x, y):
        if not -t.ndim <= axis < t.ndim:
            raise np.exceptions.AxisError(axis, t.ndim, name)
    x, y = (t if axis in (-1, t.ndim - 1) else moveaxis(t, axis, -1) for t in (x, y))
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"{name}: shapes {tuple(np.shape(x1))} and {tuple(np.shape(x2))} do not fit: axis {axis} must have the same length")
    return x, y


def matvec(x1, x2, /):
    """Each matrix of a stack times a vector of a stack.

    Parameters
    ----------
    x1 : Tensor or array_like
        (..., m, n)
    x2 : Tensor or array_like
        (..., n)

    Returns
    -------
    Tensor
        (..., m)

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.matvec([[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]])
    Tensor([[1., 3.],
            [2., 4.]])
    """
    a, v = _operand(x1), _operand(x2)
    if a.ndim < 2 or v.ndim < 1 or a.shape[-1] != v.shape[-1]:
        raise ValueError(f"matvec: shapes {a.shape} and {v.shape} do not fit: (..., m, n) and (..., n) are due")
    return reshape_last(matmul(a, expand_dims(v, -1)), -1)


def vecmat(x1, x2, /):
    """Each vector of a stack times a matrix of a stack.

    Parameters
    ----------
    x1 : Tensor or array_like
        (..., n)
    x2 : Tensor or array_like
        (..., n, m)

    Returns
    -------
    Tensor
        (..., m)

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.vecmat([1.0, 10.0], [[1.0, 2.0], [3.0, 4.0]])
    Tensor([31., 42.])
    """
    v, a = _operand(x1), _operand(x2)
    if a.ndim < 2 or v.ndim < 1 or a.shape[-2] != v.shape[-1]:
        raise ValueError(f"vecmat: shapes {v.shape} and {a.shape} do not fit: (..., n) and (..., n, m) are due")
    return reshape_last(matmul(expand_dims(v, -2), a), -2)


def reshape_last(t, axis):
    """A Tensor without one of its last axes, which has length 1."""
    shape = list(t.shape)
    del shape[axis]
    return reshape(t, tuple(shape))


def kron(a, b):
    """Kronecker product: a with each element replaced by its product with all of b.

    Parameters
    ----------
    a, b : Tensor or array_like
        The one with fewer axes gets axes of length 1 in front.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.kron([1.0, 10.0], [1.0, 2.0])
    Tensor([ 1.,  2., 10., 20.])
    """
    x, y = _operand(a), _operand(b)
    rank = max(x.ndim, y.ndim)
    first, second = (1,) * (rank - x.ndim) + x.shape, (1,) * (rank - y.ndim) + y.shape
    if rank == 0:
        return multiply(x, y)
    product = multiply(reshape(x, tuple(n for m in first for n in (m, 1))), reshape(y, tuple(n for m in second for n in (1, m))))
    return reshape(product, tuple(m * n for m, n in zip(first, second)))


def cross(a, b, axisa=-1, axisb=-1, axisc=-1, axis=None):
    """Cross product of vectors of three components.

    Parameters
    ----------
    a, b : Tensor or array_like
        Whose other axes broadcast.
    axisa, axisb, axisc : int
        The axis of the components, in a, in b and in the result.
    axis : int, optional
        One for all three.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If there are not three components.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.cross([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    Tensor([0., 0., 1.])
    """
    from fastgrad.numpy.joining import stack

    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = _operand(a), _operand(b)
    for t, at in ((x, axisa), (y, axisb)):
        if not -t.ndim <= at < t.ndim:
            raise np.exceptions.AxisError(at, t.ndim, "cross")
    if x.shape[axisa] != 3 or y.shape[axisb] != 3:
        raise ValueError(f"cross: shapes {x.shape} and {y.shape}: both need three components; for two, x[0] * y[1] - x[1] * y[0]")
    x = x if axisa in (-1, x.ndim - 1) else moveaxis(x, axisa, -1)
    y = y if axisb in (-1, y.ndim - 1) else moveaxis(y, axisb, -1)
    p, q = [x[..., k] for k in range(3)], [y[..., k] for k in range(3)]
    parts = [subtract(multiply(p[i], q[j]), multiply(p[j], q[i])) for i, j in ((1, 2), (2, 0), (0, 1))]
    return stack(parts, axisc)


def matrix_power(a, n):
    """A square matrix times itself, n times; of a stack each.

    Parameters
    ----------
    a : Tensor or array_like
        (..., m, m)
    n : int
        0: the unit matrix; below 0: powers of the inverse.

    Returns
    -------
    Tensor

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrices are not square, or n is negative and one has no inverse.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.matrix_power([[1.0, 1.0], [0.0, 1.0]], 3)
    Tensor([[1., 3.],
            [0., 1.]])
    """
    x = _operand(a)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise np.linalg.LinAlgError(f"matrix_power: shape {x.shape}: the last two axes must have the same length")
    n = operator.index(n)
    if _no_float(x) and n >= 0:
        return call_host(np.linalg.matrix_power, (x, n))
    if n == 0:          # depends on a, if only in name
        return x * 0 + np.eye(x.shape[-1], dtype=x.dtype) if x.size else x
    if n < 0:
        from fastgrad.numpy.linalg import inv
        x, n = inv(x), -n
    result = None
    while n:            # by squares
        if n & 1:
            result = x if result is None else matmul(result, x)
        n >>= 1
        if n:
            x = matmul(x, x)
    return result


def matrix_transpose(x, /):
    """The last two axes exchanged.

    Parameters
    ----------
    x : Tensor or array_like
        (..., m, n)

    Returns
    -------
    Tensor
        (..., n, m)

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.matrix_transpose([[1.0, 2.0]])
    Tensor([[1.],
            [2.]])
    """
    t = _operand(x)
    if t.ndim < 2:
        raise ValueError(f"matrix_transpose: shape {t.shape}: at least two axes are due")
    return swapaxes(t, -1, -2)


def multi_dot(arrays, *, out=None):
    """Product of several matrices, in the order of multiplications that takes the fewest.

    The order is found by dynamic programming (Cormen et al., Introduction to Algorithms, 15.2).

    Parameters
    ----------
    arrays : sequence of Tensor or array_like
        At least two; the first and the last may be vectors, a row and a column.
    out : Tensor, optional

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.linalg.multi_dot([[1.0, 2.0], [[0.0, 1.0], [1.0, 0.0]], [1.0, 10.0]])
    Tensor(12.0)
    """
    parts = [_operand(a) for a in arrays]
    n = len(parts)
    if n < 2:
        raise ValueError("multi_dot: expecting at least two arrays")
    for k, t in enumerate(parts):
        if t.ndim != 2 and not (t.ndim == 1 and k in (0, n - 1)):
            raise np.linalg.LinAlgError(f"multi_dot: array {k} has shape {t.shape}; matrices are due, vectors at the ends")
    rows = [t.shape[0] if t.ndim == 2 else 1 for t in parts[:1]] + [t.shape[0] for t in parts[1:]]
    sizes = rows + [parts[-1].shape[1] if parts[-1].ndim == 2 else 1]
    inner = [t.shape[-1] for t in parts[:-1]]
    if inner != sizes[1:-1]:
        raise ValueError(f"multi_dot: shapes {[t.shape for t in parts]} do not fit")
    cost = {(k, k): 0 for k in range(n)}
    cut = {}
    for span in range(1, n):
        for i in range(n - span):
            j = i + span
            cost[i, j], cut[i, j] = min((cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j))

    def product(i, j):
        return parts[i] if i == j else matmul(product(i, cut[i, j]), product(cut[i, j] + 1, j))

    return _given(out, product(0, n - 1))
