"""Where the first NaN or infinity appears: what the engine says when it finds one, in words.

Knows nothing about how values are recorded and swept: the engine looks at the numbers, and asks for the error to raise.
"""

import contextlib

import numpy as np

from fastgrad._core import engine, ops

__all__ = ["detect_anomaly"]

ELEMENTARY = {row.name for row in ops.OPS}
GIVEN = {"leaf": "is an argument or a leaf", "input": "is an argument", "constant": "was passed in as data"}


class detect_anomaly(contextlib.ContextDecorator):
    """Raises where the first NaN or infinity appears: ``with fg.detect_anomaly(): ...``, or as a decorator.

    The error names the operation, the numbers that it was given and the line of code that recorded it. It is raised by
    that line, or, where it is a gradient that is not finite, by the sweep: ``backward()``, ``fg.grad`` and its kin.

    Looked at is what is being differentiated: the value of every operation that is recorded, and every gradient that a
    sweep backwards sends on. Numbers that no gradient flows through are not seen: arrays, and Tensors inside ``no_grad``
    or computed from nothing that asks for a gradient. Nor are the tangents of ``jvp``. Functions made by ``fg.compile`` run
    as Python inside, since a replay looks at nothing between its arguments and its results; a Program that is called by
    itself is replayed, and not looked into. A gradient inside a function that ``fg.vmap`` batches is looked at for the first
    example.

    It holds for the thread that entered it. Of nested blocks the innermost decides. Recording takes some microseconds an
    operation, and keeps all values; so it is for finding an error, not for production.

    Parameters
    ----------
    infinities : bool
        Whether infinity is an error too; if not, only NaN is.

    Raises
    ------
    FloatingPointError
        Inside of the block. ``.grad`` of all leaves stays as it was.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgrad as fg
    >>> def loss(p):
    ...     return -np.sum(np.log(p))
    >>> with fg.detect_anomaly():                                   # doctest: +ELLIPSIS
    ...     fg.grad(loss)(np.array([0.5, 0.0]))
    Traceback (most recent call last):
    FloatingPointError: log: its value is -inf at [1] of 2 elements, where x = 0.0; recorded at ...: `return -np.sum(np.log(p))`
    """

    def __init__(self, infinities=True):
        self._infinities = bool(infinities)
        self._open = []

    def _recreate_cm(self):
        return type(self)(self._infinities)

    def __enter__(self):
        watch = engine.Watch(numbers=True, infinities=self._infinities)
        watch.__enter__()
        self._open.append(watch)
        return self

    def __exit__(self, *exception):
        return self._open.pop().__exit__(*exception)


def anomaly(story, nan_only, backward=None):
    """The error for a node.

    Parameters
    ----------
    story : tuple
        The node's NodeRecord, and the list of its operands' (None for one that was not kept).
    nan_only : bool
        Whether infinity is fine.
    backward : tuple, optional
        What its pullback did: the position of an operand, the gradient that arrived, and the gradient of the operand.

    Returns
    -------
    FloatingPointError
    """
    node, operands = story
    is_bad = np.isnan if nan_only else _not_finite
    if backward is None:
        return FloatingPointError(_forward(node, operands, is_bad) + _recorded(node))
    return FloatingPointError(_backward(node, operands, is_bad, *backward) + _recorded(node))


def _forward(node, operands, is_bad):
    at = _first(node.value, is_bad)
    said = f"{node.op}: its value is {_number(node.value, at)}{_where(node.value, at, is_bad)}"
    guilty = _came_in(node, operands, at, is_bad)
    return said + (guilty or _given(node, operands, at))


def _backward(node, operands, is_bad, position, arrived, made):
    if is_bad(arrived).any():
        at = _first(arrived, is_bad)
        return (f"the gradient that the sweep was given for the value of {node.op} is {_number(arrived, at)}"
                f"{_where(arrived, at, is_bad)} already")
    at = _first(made, is_bad)
    name = _name(operands[position], position)
    said = f"the pullback of {node.op} made a gradient of {_number(made, at)} for {name}{_where(made, at, is_bad)}"
    guilty = _came_in(node, operands, at if node.op in ELEMENTARY and made.shape == node.shape else None, is_bad)
    if node.op in ELEMENTARY and arrived.shape == made.shape:
        return said + (guilty or _given(node, operands, at)) + f", from an incoming gradient of {_number(arrived, at)}"
    return said + (guilty or _given(node, operands, None)) + f", from an incoming gradient of {_summary(arrived)}"


def _not_finite(value):
    return ~np.isfinite(value)


def _first(value, is_bad):
    """The index of the first element that is bad."""
    value = np.asarray(value)
    return tuple(int(k) for k in np.unravel_index(int(np.argmax(is_bad(value))), value.shape)) if value.ndim else ()


def _where(value, at, is_bad):
    """Which elements are bad: nothing to say of a number."""
    if not at:
        return ""
    value, more = np.asarray(value), int(np.sum(is_bad(value))) - 1
    others = f" and at {more} more" if more else ""
    return f" at {list(at)}{others} of {value.size} elements"


def _came_in(node, operands, at, is_bad):
    """That an operand was bad before; None if none was."""
    for j, record in enumerate(operands):
        if record is None or record.value is None:
            continue
        value = np.asarray(record.value)
        if value.dtype.kind == "f" and node.op in ELEMENTARY and at is not None:
            seen = _element(value, at, node.shape)
            bad, number = bool(is_bad(seen)), f"{_plain(seen)}"
        else:
            bad = value.dtype.kind == "f" and bool(is_bad(value).any())
            number = ""
            if bad:
                k = _first(value, is_bad)
                number = _number(value, k) + _where(value, k, is_bad)
        if bad:
            how = GIVEN.get(record.op, "was computed before, outside of fg.detect_anomaly")
            joined = "where" if node.op in ELEMENTARY and at else "because"
            return f", {joined} {_name(record, j)} = {number} already; {_name(record, j)} {how}"
    return None


def _given(node, operands, at):
    """The operands, at an element of an elementary operation, else as a whole."""
    said = []
    for j, record in enumerate(operands):
        name = _name(record, j)
        if record is None or record.value is None:
            said.append(f"{name} is not known")
        elif node.op in ELEMENTARY and at is not None:
            said.append(f"{name} = {_plain(_element(np.asarray(record.value), at, node.shape))}")
        else:
            said.append(f"{name} = {_summary(record.value)}")
    return ", where " + ", ".join(said) if said else ""


def _element(value, at, shape):
    return np.broadcast_to(value, shape)[at] if value.shape != shape else value[at]


def _name(record, position):
    if record is not None and record.note is not None and record.note.name:
        return record.note.name
    return "xyz"[position] if position < 3 else f"operand {position}"


def _number(value, at):
    return _plain(np.asarray(value)[at])


def _plain(number):
    return repr(number.item()) if number.dtype == np.float64 or number.dtype.kind != "f" else str(number)


def _summary(value):
    """A number, a few numbers, or the shape and the largest."""
    value = np.asarray(value)
    if value.ndim == 0:
        return _plain(value[()])
    if value.size <= 6:
        return np.array2string(value, separator=", ", precision=6).replace("\n", "")
    with np.errstate(all="ignore"):
        return f"{value.dtype}{list(value.shape)} of numbers from {float(np.min(value)):.6g} to {float(np.max(value)):.6g}"


def _recorded(node):
    place = None if node.note is None else node.note.place
    if place is None:
        return f"; the line is not known: {node.op} was recorded before the block of fg.detect_anomaly"
    inside = " > ".join(type(module).__name__ for module in place.modules)
    text = f": `{place.text}`" if place.text else ""
    return f"; recorded at {place}, in {place.function}{f', module {inside}' if inside else ''}{text}"


engine.install(anomaly=anomaly)
