"""Indexing with arrays of integers and bool, and assignment by index.  Basic indexing is in the engine."""

import numpy as np

from fastgrad._core.engine import Rule, Tensor, call_host, plain_index, tracing


def _gather_value(x, index):
    return np.array(x[index])


def _gather_vjp(g, out, x, index, shape):
    return scatter_add(g, index, shape)


_gather = Rule("getitem", lambda x, index, shape: _gather_value(x, index), _gather_vjp)


def _own(index):
    """An index that its author cannot change any more: the recording reads it again."""
    if tracing():
        return index
    if isinstance(index, tuple):
        return tuple(_own(part) for part in index)
    if isinstance(index, list) and not index:
        return np.zeros(0, np.intp)
    return np.array(index) if isinstance(index, (np.ndarray, list)) else index


def gather(x, index):
    """``x[index]`` with arrays in the index; repeated places accumulate their gradients."""
    return _gather(x, index=_own(plain_index(index)), shape=x.shape)


def _scatter_value(v, index, shape):
    out = np.zeros(shape, v.dtype)
    np.add.at(out, index, v)
    return out


_scatter = Rule("scatter_add", _scatter_value, lambda g, out, v, index, shape: gather(g, index))


def scatter_add(v, index, shape):
    """Zeros of ``shape`` with v added at the index; the transpose of ``gather``."""
    return _scatter(v, index=index, shape=shape)


def _set_value(x, v, index):
    out = np.array(x)
    out[index] = v
    return out


def _set_vjp(g, out, x, v, index, shape):
    return set_item(g, index, 0.0), _fit(last_written(g, index), shape)


def _set_jvp(tangents, out, x, v, index, shape):
    tx, tv = tangents
    if tx is None:
        tx = x.detach() * 0.0
    return set_item(tx, index, 0.0 if tv is None else tv)


_set = Rule("setitem", lambda x, v, index, shape: _set_value(x, v, index), _set_vjp, _set_jvp, saves="operands")


def set_item(x, index, value):
    """x with ``x[index] = value`` done to a copy; of duplicates the last one wins, and the gradient agrees."""
    return _set(x, value, index=_own(plain_index(index)), shape=value.shape if isinstance(value, Tensor) else np.shape(value))


def last_written(g, index):
    """g at the index, but 0 where a later duplicate of the place wins."""
    return gather(g, index) * call_host(_winners, (g.shape, g.dtype, index))


def _winners(shape, dtype, index):
    """1 at the places of an index that are written last, else 0."""
    size = int(np.prod(shape))
    places = np.arange(size).reshape(shape)[index]
    flat = places.ravel()
    winner = np.zeros(size, dtype=np.intp)
    winner[flat] = np.arange(flat.size)
    return (winner[flat] == np.arange(flat.size)).reshape(places.shape).astype(dtype)


def _fit(g, shape):
    """g summed back to the shape of the value that was broadcast into the place."""
    gap = g.ndim - len(shape)
    axes = tuple(range(gap)) if gap > 0 else ()
    if axes:
        g = g.sum(axes)
    spread = tuple(d for d in range(g.ndim) if shape[len(shape) - g.ndim + d] == 1 and g.shape[d] != 1)
    if spread:
        g = g.sum(spread, keepdims=True)
    return g.reshape(shape)
