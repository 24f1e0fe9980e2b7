"""Another order, other repetitions or another shape of the same elements; padding.

All are made of basic indexing, gathering, joining and broadcasting, which carry the derivatives.
"""

import operator
from math import prod

import numpy as np

from fastgrad._core import engine
from fastgrad._core.engine import (
    Tensor, as_operand, broadcast_to, call_host, expand_dims, refuse_numpy, reshape, swapaxes, transpose, typed,
)
from fastgrad.numpy.creation import array as as_tensor
from fastgrad.numpy.creation import zeros
from fastgrad.numpy.joining import concatenate

__all__ = ["flip", "fliplr", "flipud", "roll", "rollaxis", "rot90", "repeat", "tile", "resize", "pad", "atleast_1d",
           "atleast_2d", "atleast_3d", "broadcast_arrays", "meshgrid", "matrix_transpose"]


def operand(a, who):
    """An argument as a Tensor."""
    if isinstance(a, Tensor):
        return typed(a)
    try:
        return typed(as_operand(a))
    except TypeError:
        raise TypeError(f"{who}: {type(a).__name__} is not a Tensor, an array or a number") from None


def axis_of(axis, ndim, who):
    """An axis counted from the front."""
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(axis, ndim, who)
    return axis % ndim


def axes_of(axes, ndim, who):
    """One axis or several, each counted from the front; none may come twice."""
    axes = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
    axes = tuple(axis_of(axis, ndim, who) for axis in axes)
    if len(set(axes)) < len(axes):
        raise ValueError(f"{who}: repeated axis in {axes}")
    return axes


def along(x, axis, index):
    """x indexed along one axis."""
    return x[(slice(None),) * axis + (index,)]


MOST_RUNS = 8


def along_runs(x, axis, places):
    """x at places along one axis: slices joined, if there are few runs of neighbours, which costs less than picking each."""
    runs = _runs(places)
    if runs is None:
        return along(x, axis, places)
    return along(x, axis, runs[0]) if len(runs) == 1 else concatenate([along(x, axis, run) for run in runs], axis)


def _runs(places):
    """Places as slices, of step 1 or -1; None if these are none or many."""
    steps, n = np.diff(places), len(places)
    runs, start = [], 0
    while start < n:
        if len(runs) == MOST_RUNS:
            return None
        end, step = start + 1, 1
        if start < n - 1 and abs(steps[start]) == 1:
            step = int(steps[start])
            others = np.flatnonzero(steps[start:] != step)
            end = start + 1 + int(others[0]) if others.size else n
        first, beyond = int(places[start]), int(places[end - 1]) + step
        runs.append(slice(first, None if beyond < 0 else beyond, step))
        start = end
    return runs or None


# ---------------------------------------------------------------------------------------------------------- another order

def flip(m, axis=None):
    """The elements in reverse order along axes.

    Parameters
    ----------
    m : Tensor or array_like
    axis : int or tuple of int, optional
        All by default.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.flip([[1.0, 2.0], [3.0, 4.0]], axis=0)
    Tensor([[3., 4.],
            [1., 2.]])
    """
    return _flip("flip", m, axis)


def _flip(who, m, axis):
    x = operand(m, who)
    axes = range(x.ndim) if axis is None else axes_of(axis, x.ndim, who)
    return x[tuple([slice(None, None, -1) if d in axes else slice(None) for d in range(x.ndim)])]


def fliplr(m):
    """The columns in reverse order: ``flip`` along axis 1.

    Parameters
    ----------
    m : Tensor or array_like
        Of two axes or more.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.fliplr([[1.0, 2.0], [3.0, 4.0]])
    Tensor([[2., 1.],
            [4., 3.]])
    """
    x = operand(m, "fliplr")
    if x.ndim < 2:
        raise ValueError(f"fliplr: input must have two axes or more, not the shape {x.shape}; use flip for one axis")
    return _flip("fliplr", x, 1)


def flipud(m):
    """The rows in reverse order: ``flip`` along axis 0.

    Parameters
    ----------
    m : Tensor or array_like
        Of one axis or more.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.flipud([1.0, 2.0, 3.0])
    Tensor([3., 2., 1.])
    """
    x = operand(m, "flipud")
    if x.ndim < 1:
        raise ValueError("flipud: input must have an axis, and a number has none")
    return _flip("flipud", x, 0)


def roll(a, shift, axis=None):
    """The elements moved along axes; those that leave at one end enter at the other.

    Parameters
    ----------
    a : Tensor or array_like
    shift : int or tuple of int
        By how many places; for several axes each has its own.
    axis : int or tuple of int, optional
        By default over all elements, laid flat.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.roll([1.0, 2.0, 3.0, 4.0], 1)
    Tensor([4., 1., 2., 3.])
    """
    x = operand(a, "roll")
    if axis is None:
        return reshape(roll(reshape(x, (x.size,)), np.sum(np.asarray(shift)), 0), x.shape)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = [axis_of(d, x.ndim, "roll") for d in axes]
    shifts = np.asarray(shift)
    if shifts.ndim > 1:
        raise ValueError(f"roll: 'shift' and 'axis' should be scalars or 1D sequences, not {shift!r}")
    try:
        pairs = np.broadcast(shifts, axes)
    except ValueError:
        raise ValueError(f"roll: {shifts.size} shifts for {len(axes)} axes; give one shift, or one for each axis") from None
    moves = {}
    for by, d in pairs:
        moves[int(d)] = moves.get(int(d), 0) + operator.index(by)
    for d, by in moves.items():
        n = x.shape[d]
        by = by % n if n else 0
        if by:
            x = concatenate([along(x, d, slice(n - by, None)), along(x, d, slice(None, n - by))], d)
    return x if moves else x.copy()


def rollaxis(a, axis, start=0):
    """One axis moved to where it comes before another; ``moveaxis`` says the same more plainly.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int
        The axis to move.
    start : int
        The axis before which it comes.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.rollaxis(fnp.ones((2, 3, 4)), 2).shape
    (4, 2, 3)
    """
    x = operand(a, "rollaxis")
    axis = axis_of(axis, x.ndim, "rollaxis")
    if not -x.ndim <= start <= x.ndim:
        raise np.exceptions.AxisError(f"rollaxis: start={start} is not from {-x.ndim} to {x.ndim}, for the shape {x.shape}")
    start += x.ndim if start < 0 else 0
    order = [d for d in range(x.ndim) if d != axis]
    order.insert(start - 1 if axis < start else start, axis)
    return transpose(x, order)


def rot90(m, k=1, axes=(0, 1)):
    """Turned by quarters, from the first axis to the second.

    Parameters
    ----------
    m : Tensor or array_like
        Of two axes or more.
    k : int
        How many quarters.
    axes : tuple of (int, int)
        The plane.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.rot90([[1.0, 2.0], [3.0, 4.0]])
    Tensor([[2., 4.],
            [1., 3.]])
    """
    x = operand(m, "rot90")
    axes = tuple(axes)
    if len(axes) != 2:
        raise ValueError(f"rot90: len(axes) must be 2, not {len(axes)}")
    if any(not -x.ndim <= d < x.ndim for d in axes):
        raise ValueError(f"rot90: axes {axes} out of range for an array of the shape {x.shape}")
    a, b = (d % x.ndim for d in axes)
    if a == b:
        raise ValueError(f"rot90: axes must be different, not {axes}")
    k %= 4
    if k == 0:
        return x[...]
    if k == 2:
        return _flip("rot90", x, (a, b))
    return swapaxes(_flip("rot90", x, b), a, b) if k == 1 else _flip("rot90", swapaxes(x, a, b), b)


# ------------------------------------------------------------------------------------------------------------ repetitions

def repeat(a, repeats, axis=None):
    """Each element repeated.

    Parameters
    ----------
    a : Tensor or array_like
    repeats : int or array_like of int
        How often: each, or one number for each place along the axis.
    axis : int, optional
        By default over all elements, laid flat.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.repeat([1.0, 2.0], 2)
    Tensor([1., 1., 2., 2.])
    >>> fnp.repeat([1.0, 2.0], [1, 3])
    Tensor([1., 2., 2., 2.])
    """
    x = operand(a, "repeat")
    if axis is None:
        x, axis = reshape(x, (x.size,)), 0
    axis = axis_of(axis, x.ndim, "repeat")
    n, times = x.shape[axis], np.asarray(repeats)
    if not np.can_cast(times.dtype, np.intp, "safe") and times.size:
        raise TypeError(f"repeat: repeats must be integers, not of dtype {times.dtype}")
    if times.ndim > 1 or times.size not in (1, n):
        raise ValueError(f"repeat: repeats of shape {times.shape} do not fit the {n} places along axis {axis} of the shape "
                         f"{x.shape}; give one number, or {n}")
    if np.any(times < 0):
        raise ValueError("repeat: repeats may not contain negative values")
    if times.size != 1:
        return along(x, axis, np.repeat(np.arange(n), times))
    times = int(times.reshape(()))
    before, after = x.shape[:axis + 1], x.shape[axis + 1:]
    spread = broadcast_to(expand_dims(x, axis + 1), before + (times,) + after)
    return reshape(spread, x.shape[:axis] + (n * times,) + after)


def tile(A, reps):
    """The whole repeated along axes.

    Parameters
    ----------
    A : Tensor or array_like
    reps : int or tuple of int
        How often along each axis, the last ones where these are fewer; new axes come in front where they are more.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.tile([1.0, 2.0], (2, 2))
    Tensor([[1., 2., 1., 2.],
            [1., 2., 1., 2.]])
    """
    x = operand(A, "tile")
    times = tuple(map(operator.index, reps)) if np.ndim(reps) else (operator.index(reps),)
    if any(n < 0 for n in times):
        raise ValueError(f"tile: reps may not be negative, not {times}")
    rank = max(x.ndim, len(times))
    shape = (1,) * (rank - x.ndim) + tuple(x.shape)
    times = (1,) * (rank - len(times)) + times
    if all(n == 1 for n in times):
        return reshape(x, shape).copy()
    apart, spread = [], []
    for n, length in zip(times, shape):
        if n != 1:
            apart.append(1)
            spread.append(n)
        apart.append(length)
        spread.append(length)
    return reshape(broadcast_to(reshape(x, tuple(apart)), tuple(spread)), tuple(n * m for n, m in zip(times, shape)))


def resize(a, new_shape):
    """The elements, laid flat, repeated or cut so that they fill another shape.

    Parameters
    ----------
    a : Tensor or array_like
    new_shape : int or tuple of int

    Returns
    -------
    Tensor
        Zeros if there are no elements.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.resize([1.0, 2.0, 3.0], (2, 2))
    Tensor([[1., 2.],
            [3., 1.]])
    """
    x = operand(a, "resize")
    shape = tuple(map(operator.index, new_shape)) if np.ndim(new_shape) else (operator.index(new_shape),)
    if any(n < 0 for n in shape):
        raise ValueError(f"resize: all elements of new_shape must be non-negative, not {shape}")
    size = prod(shape)
    if x.size == 0:
        return zeros(shape, x.dtype)
    flat = reshape(x, (x.size,))
    if size > x.size:
        flat = tile(flat, -(-size // x.size))
    return reshape(flat[:size], shape)


# ------------------------------------------------------------------------------------------------------------------ padding

def pad(array, pad_width, mode="constant", **keywords):
    """Something put around the elements.

    Parameters
    ----------
    array : Tensor or array_like
    pad_width : int, (before, after), one such pair for each axis, or dict
        How much is put before and after the elements of each axis; a dict has an entry for each axis that is padded.
    mode : str
        - "constant": ``constant_values``, 0 by default.
        - "edge": the outermost element.
        - "reflect", "symmetric": the elements mirrored at the outermost one, or beyond it; with ``reflect_type="odd"`` as
          twice the outermost one less the mirrored ones.
        - "wrap": the elements from the other end.
        - "linear_ramp": a ramp from the outermost element to ``end_values``, 0 by default.
        - "maximum", "minimum", "mean", "median": of all elements of the row, or of the ``stat_length`` outermost ones.
        - "empty": nothing in particular; here 0.
    **keywords
        ``constant_values``, ``end_values`` (Tensors among these get gradients), ``reflect_type``, ``stat_length``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.pad([1.0, 2.0, 3.0], (1, 2))
    Tensor([0., 1., 2., 3., 0., 0.])
    >>> fnp.pad([1.0, 2.0, 3.0], 2, "reflect")
    Tensor([3., 2., 1., 2., 3., 2., 1.])
    """
    if callable(mode):
        refuse_numpy("numpy.pad with a function as mode", (array,))
        return call_host(np.pad, (array, pad_width, mode), keywords)
    x = operand(array, "pad")
    if mode not in _PAD_KEYWORDS:
        raise ValueError(f"pad: mode {mode!r} is not one of {', '.join(_PAD_KEYWORDS)}")
    unknown = set(keywords) - {_PAD_KEYWORDS[mode]}
    if unknown:
        takes = f"it takes {_PAD_KEYWORDS[mode]}" if _PAD_KEYWORDS[mode] else "it takes none"
        raise ValueError(f"pad: unsupported keyword arguments for mode {mode!r}: {', '.join(sorted(unknown))}; {takes}")
    widths = _widths(x, pad_width)
    if x.dtype.kind != "f" and (mode in ("linear_ramp", "mean", "median") or keywords.get("reflect_type") == "odd"):
        return call_host(np.pad, (x, widths, mode), keywords)        # rounded, as NumPy does
    if mode not in ("constant", "empty"):
        for d, width in enumerate(widths):
            if x.shape[d] == 0 and any(width):
                raise ValueError(f"pad: can't extend empty axis {d} of the shape {x.shape} using modes other than 'constant' "
                                 "or 'empty'")
    if mode in ("constant", "empty"):
        values = _for_each_end(keywords.get("constant_values", 0), x, "constant_values")
        for d, width in enumerate(widths):
            x = _pad_constant(x, d, width, values(d))
    elif mode in ("edge", "wrap"):
        x = _pad_picked(x, widths, mode)
    elif mode in ("reflect", "symmetric"):
        kind = keywords.get("reflect_type", "even")
        if kind == "odd":
            for d, width in enumerate(widths):
                x = _pad_odd(x, d, width, mode)
        else:
            x = _pad_picked(x, widths, mode)
    elif mode == "linear_ramp":
        ends = _for_each_end(keywords.get("end_values", 0), x, "end_values")
        for d, width in enumerate(widths):
            x = _pad_ramp(x, d, width, ends(d))
    else:
        lengths = _lengths(keywords.get("stat_length"), x)
        for d, width in enumerate(widths):
            x = _pad_statistic(x, d, width, _STATISTICS[mode], lengths[d])
    return x if any(map(any, widths)) else x.copy()


_PAD_KEYWORDS = {"constant": "constant_values", "edge": None, "reflect": "reflect_type", "symmetric": "reflect_type",
                 "wrap": None, "linear_ramp": "end_values", "maximum": "stat_length", "minimum": "stat_length",
                 "mean": "stat_length", "median": "stat_length", "empty": None}


def _widths(x, pad_width):
    """How much is put before and after each axis: a list of pairs of int."""
    if isinstance(pad_width, dict):
        given, pad_width = pad_width, [(0, 0)] * x.ndim
        for axis, width in given.items():
            pad_width[axis_of(axis, x.ndim, "pad")] = tuple(width) if np.ndim(width) else (width, width)
        if x.ndim == 0:
            return []
    widths = np.asarray(pad_width)
    if widths.dtype.kind not in "iu":
        raise TypeError(f"pad: pad_width must be of integral type, not {widths.dtype}")
    try:
        widths = np.broadcast_to(widths, (x.ndim, 2)).tolist()
    except ValueError:
        raise ValueError(f"pad: pad_width of shape {widths.shape} does not fit an array of the shape {x.shape}; give one number, "
                         f"(before, after), or {x.ndim} such pairs") from None
    if any(n < 0 for width in widths for n in width):
        raise ValueError(f"pad: pad_width can't contain negative values, as in {widths}; cut with a slice instead")
    return [tuple(width) for width in widths]


def _for_each_end(values, x, name):
    """The pair of values of each axis, in the dtype of x, as a function."""
    ndim, values = x.ndim, as_tensor(values) if isinstance(values, (Tensor, list, tuple)) else np.asarray(values)
    if values.dtype != x.dtype:
        values = values.astype(x.dtype)
    try:
        values = broadcast_to(values, (ndim, 2))
    except ValueError:
        raise ValueError(f"pad: {name} of shape {values.shape} do not fit {ndim} axes; give one number, (before, after), or "
                         f"{ndim} such pairs") from None
    return lambda d: (values[d, 0], values[d, 1])


def _lengths(given, x):
    """Of how many elements a statistic is taken at each end of each axis."""
    if given is None:
        return [(n, n) for n in x.shape]
    given = np.broadcast_to(np.asarray(given, object), (x.ndim, 2)).tolist()
    if any(n is not None and n <= 0 for pair in given for n in pair):
        raise ValueError(f"pad: stat_length must be positive, as there is no value for padding else, not {given}")
    return [tuple(n if k is None else min(int(k), n) for k in pair) for pair, n in zip(given, x.shape)]


def _pad_joined(x, axis, left, right):
    """x between two parts, of which either may be None."""
    return concatenate([part for part in (left, x, right) if part is not None], axis)


def _pad_constant(x, axis, width, values):
    """Values on both sides, each stretched to what is missing."""
    if not any(width):
        return x
    parts = []
    for n, value in zip(width, values):
        parts.append(broadcast_to(value, x.shape[:axis] + (n,) + x.shape[axis + 1:]) if n else None)
    return _pad_joined(x, axis, *parts)


def _pad_picked(x, widths, mode):
    """The modes that repeat elements: NumPy says of the places which."""
    for axis, width in enumerate(widths):
        n = x.shape[axis]
        if any(width) and mode == "edge":
            ends = [along(x, axis, slice(place, place + 1)) for place in (0, n - 1)]
            x = _pad_constant(x, axis, width, ends)
        elif any(width):
            x = along_runs(x, axis, np.pad(np.arange(n), width, mode))
    return x


def _pad_odd(x, axis, width, mode):
    """Mirrored with the outermost element as the middle, again and again.

    With n places and p = 2(n - 1) to a period (2n for "symmetric"), a place r + k p has the value of place r, plus 2k times
    last less first; a place -r before the first, twice the first less place r.
    """
    n = x.shape[axis]
    if not any(width):
        return x
    if n == 1 and mode == "reflect":
        return _pad_picked(x, [width if d == axis else (0, 0) for d in range(x.ndim)], "edge")
    beyond = mode == "symmetric"            # a place before the first is mirrored at -1/2, else at 0
    period = 2 * n if beyond else 2 * (n - 1)
    first, last = along(x, axis, slice(0, 1)), along(x, axis, slice(n - 1, n))
    parts = []
    for places in (np.arange(-width[0], 0), np.arange(n, n + width[1])):
        if not places.size:
            parts.append(None)
            continue
        turns = np.floor_divide(places + (period - n), period)
        rest = places - turns * period      # from n - period to n - 1
        mirrored = rest < 0
        picked = along(x, axis, np.where(mirrored, -rest - beyond, rest))
        shape = (-1,) + (1,) * (x.ndim - axis - 1)
        sign = np.where(mirrored, -1.0, 1.0).astype(x.dtype).reshape(shape)
        of_first = (2.0 * mirrored - 2.0 * turns).astype(x.dtype).reshape(shape)
        of_last = (2.0 * turns).astype(x.dtype).reshape(shape)
        part = sign * picked + of_first * first
        parts.append(part + of_last * last if turns.any() else part)
    return _pad_joined(x, axis, *parts)


def _pad_ramp(x, axis, width, ends):
    parts = []
    for n, end, place in zip(width, ends, (0, x.shape[axis] - 1)):
        if not n:
            parts.append(None)
            continue
        steps = np.arange(n) / n
        if parts:
            steps = steps[::-1]             # down to the end on the right
        steps = steps.astype(x.dtype).reshape((-1,) + (1,) * (x.ndim - axis - 1))
        parts.append(end + (along(x, axis, slice(place, place + 1)) - end) * steps)
    return _pad_joined(x, axis, *parts) if any(width) else x


def _median(part, axis, keepdims):
    """The middle of the sorted elements, or the mean of the two in the middle; NaN where there is one."""
    n = part.shape[axis]
    order = call_host(np.argsort, (part, axis))
    middle = order[(slice(None),) * axis + (slice((n - 1) // 2, n // 2 + 1),)]
    grid = [np.arange(m).reshape((-1,) + (1,) * (part.ndim - d - 1)) for d, m in enumerate(part.shape)]
    grid[axis] = middle
    found = engine.mean(part[tuple(grid)], axis, True)
    return engine.where(engine.isnan(part).any(axis, True), np.asarray(np.nan, part.dtype), found)


_STATISTICS = {"maximum": engine.max, "minimum": engine.min, "mean": engine.mean, "median": _median}


def _pad_statistic(x, axis, width, statistic, lengths):
    parts, n = [], x.shape[axis]
    for many, place in zip(width, (slice(0, lengths[0]), slice(n - lengths[1], n))):
        part = statistic(along(x, axis, place), axis, True) if many else None
        parts.append(broadcast_to(part, x.shape[:axis] + (many,) + x.shape[axis + 1:]) if many else None)
    return _pad_joined(x, axis, *parts) if any(width) else x


# --------------------------------------------------------------------------------------------------------- another shape

def _at_least(who, arrays, change):
    results = tuple(change(operand(a, who)) for a in arrays)
    return results[0] if len(results) == 1 else results


def atleast_1d(*arys):
    """Numbers as arrays of one element.

    Parameters
    ----------
    *arys : Tensor or array_like

    Returns
    -------
    Tensor or tuple of Tensor
        One for each argument.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.atleast_1d(2.0)
    Tensor([2.])
    """
    return _at_least("atleast_1d", arys, lambda x: x if x.ndim else reshape(x, (1,)))


def atleast_2d(*arys):
    """Numbers and vectors as matrices of one row.

    Parameters
    ----------
    *arys : Tensor or array_like

    Returns
    -------
    Tensor or tuple of Tensor
        One for each argument.

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.atleast_2d([1.0, 2.0])
    Tensor([[1., 2.]])
    """
    return _at_least("atleast_2d", arys, lambda x: x if x.ndim > 1 else reshape(x, (1, x.size)))


def atleast_3d(*arys):
    """Arrays of fewer axes with axes of length 1 around them, so that there are three.

    Parameters
    ----------
    *arys : Tensor or array_like

    Returns
    -------
    Tensor or tuple of Tensor
        One for each argument: a vector of n becomes (1, n, 1), a matrix of m rows of n becomes (m, n, 1).

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.atleast_3d([1.0, 2.0]).shape
    (1, 2, 1)
    """
    def change(x):
        if x.ndim > 2:
            return x
        return reshape(x, (*x.shape, 1) if x.ndim == 2 else (1, x.size, 1))

    return _at_least("atleast_3d", arys, change)


def broadcast_arrays(*args, subok=False):
    """Arrays stretched to the shape that they have together.

    Parameters
    ----------
    *args : Tensor or array_like
    subok : bool
        As NumPy has it; without effect.

    Returns
    -------
    tuple of Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.broadcast_arrays([1.0, 2.0], 3.0)
    (Tensor([1., 2.]), Tensor([3., 3.]))
    """
    arrays = [operand(a, "broadcast_arrays") for a in args]
    shape = shape_together("broadcast_arrays", arrays)
    return tuple(a if a.shape == shape else broadcast_to(a, shape) for a in arrays)


def shape_together(who, arrays):
    """The shape to which arrays broadcast."""
    shapes = [tuple(a.shape) for a in arrays]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"{who}: the shapes {', '.join(map(str, shapes))} do not broadcast together; lengths of an axis must "
                         "be equal or 1, counted from the last axis") from None


def meshgrid(*xi, copy=True, sparse=False, indexing="xy"):
    """The coordinates of a grid from those along its axes.

    Parameters
    ----------
    *xi : Tensor or array_like
        Vectors.
    copy : bool
        As NumPy has it; a change of one result is never seen in another.
    sparse : bool
        Whether axes along which nothing changes have length 1.
    indexing : {"xy", "ij"}
        Whether the first vector runs along the second axis, as x does in a picture, or along the first.

    Returns
    -------
    tuple of Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> x, y = fnp.meshgrid([1.0, 2.0], [3.0, 4.0, 5.0])
    >>> x
    Tensor([[1., 2.],
            [1., 2.],
            [1., 2.]])
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: valid values for indexing are 'xy' and 'ij', not {indexing!r}")
    rank = len(xi)
    parts = []
    for k, x in enumerate(xi):
        x = operand(x, "meshgrid")
        axis = 1 - k if indexing == "xy" and rank > 1 and k < 2 else k
        parts.append(reshape(x, (1,) * axis + (x.size,) + (1,) * (rank - axis - 1)))
    return tuple(parts) if sparse else broadcast_arrays(*parts)


def matrix_transpose(x, /):
    """The last two axes exchanged.

    Parameters
    ----------
    x : Tensor or array_like
        Of two axes or more.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.matrix_transpose(fnp.ones((5, 2, 3))).shape
    (5, 3, 2)
    """
    x = operand(x, "matrix_transpose")
    if x.ndim < 2:
        raise ValueError(f"matrix_transpose: input must have two axes or more, not the shape {x.shape}")
    return swapaxes(x, -1, -2)
