"""Indexing with arrays of integers and bool, and assignment by index.  Basic indexing is in the engine."""

import numpy as np

from fastgrad._core import engine
from fastgrad._core.engine import (
    Batched, Rule, Tensor, broadcast_to, call_host, plain_index, refuse_numpy, reshape, tracing, transpose,
)


def _gather_value(x, index):
    return np.array(x[index])


def _gather_vjp(g, out, x, index, shape):
    return scatter_add(g, index, shape)


def _gather_batch(size, x, index, shape):
    layout = _Layout(size, index, shape, isinstance(x, Batched))
    if layout.varying_mask is not None:
        raise ValueError("vmap: x[mask] with a mask that differs from example to example has another length for each; use "
                         "fastgrad.numpy.where")
    if layout.index is None:
        return NotImplemented
    return layout.to_front(gather(x.tensor if isinstance(x, Batched) else x, layout.index))


_gather = Rule("getitem", lambda x, index, shape: _gather_value(x, index), _gather_vjp, batch=_gather_batch)


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
    index = plain_index(index)
    if tracing():
        x, index = _slices_first(x, index)
    return _gather(x, index=_own(index), shape=x.shape)


def _slices_first(x, index):
    """Parts of axes as a view, so that what is left of the index is integers, which a Program picks by itself."""
    if type(index) is not tuple or not any(isinstance(p, slice) and p != slice(None) for p in index):
        return x, index
    if not all(isinstance(p, slice) or _is_integers(p) for p in index):
        return x, index
    return (x[tuple(p if isinstance(p, slice) else slice(None) for p in index)],
            tuple(slice(None) if isinstance(p, slice) else p for p in index))


def _is_integers(part):
    if isinstance(part, list):
        part = np.asarray(part)
    return type(part) is int or getattr(part, "dtype", np.dtype(bool)).kind in "iu"


def take(a, indices, axis=None, out=None, mode="raise"):
    """``np.take`` of Tensors."""
    if not isinstance(indices, Tensor):
        indices = np.asarray(indices)
    if out is not None or mode != "raise" or not np.can_cast(indices.dtype, np.intp) or indices.dtype == bool:
        refuse_numpy("numpy.take", (a,))
        return call_host(np.take, (a, indices, axis, out, mode))
    x = a if isinstance(a, Tensor) else engine.as_operand(np.asarray(a))
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    if not -x.ndim <= axis < x.ndim:
        raise np.exceptions.AxisError(axis, x.ndim)
    return x[(slice(None),) * (axis % x.ndim) + (indices,)]


def _scatter_value(v, index, shape):
    size = int(np.prod(shape))
    if 64 <= v.size and size <= 8 * v.size and v.dtype.kind == "f":         # several times faster than np.add.at
        places = np.arange(size).reshape(shape)[index]
        total = np.bincount(places.ravel(), np.broadcast_to(v, places.shape).ravel(), size)
        return total.reshape(shape).astype(v.dtype, copy=False)
    out = np.zeros(shape, v.dtype)
    np.add.at(out, index, v)
    return out


def _scatter_batch(size, v, index, shape):
    layout = _Layout(size, index, shape, True)
    if layout.index is None:
        return NotImplemented
    v = v.tensor if isinstance(v, Batched) else broadcast_to(v, (size,) + v.shape)
    return scatter_add(layout.from_front(v), layout.index, (size,) + tuple(shape))


_scatter = Rule("scatter_add", _scatter_value, lambda g, out, v, index, shape: gather(g, index), batch=_scatter_batch)


def scatter_add(v, index, shape):
    """Zeros of ``shape`` with v added at the index; the transpose of ``gather``."""
    return _scatter(v, index=plain_index(index), shape=shape)


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


def _set_batch(size, x, v, index, shape):
    example = x.tensor.shape[1:] if isinstance(x, Batched) else x.shape
    layout = _Layout(size, index, example, True)
    x = x.tensor if isinstance(x, Batched) else broadcast_to(x, (size,) + x.shape)
    if layout.varying_mask is not None and len(shape) == 0:
        mask = layout.varying_mask
        value = v.tensor if isinstance(v, Batched) else v
        if value.dtype != x.dtype:
            value = value.astype(x.dtype)
        if isinstance(v, Batched):
            value = reshape(value, (size,) + (1,) * len(example))
        return engine.where(reshape(mask, mask.shape + (1,) * (x.ndim - mask.ndim)), value, x)
    if layout.index is None:
        return NotImplemented
    value = v.tensor if isinstance(v, Batched) else v
    own = value.shape[isinstance(v, Batched):]
    while len(own) > len(layout.region):        # axes of length 1 that assignment leaves out
        own = own[1:]
    if isinstance(v, Batched):
        value = reshape(value, (size,) + (1,) * (len(layout.region) - len(own)) + own)
    else:
        value = reshape(value, own)
    return set_item(x, layout.index, layout.from_front(broadcast_to(value, (size,) + layout.region)))


_set = Rule("setitem", lambda x, v, index, shape: _set_value(x, v, index), _set_vjp, _set_jvp, saves="operands",
            batch=_set_batch)


def set_item(x, index, value):
    """x with ``x[index] = value`` done to a copy; of duplicates the last one wins, and the gradient agrees."""
    return _set(x, value, index=_own(plain_index(index)), shape=value.shape if isinstance(value, Tensor) else np.shape(value))


def last_written(g, index):
    """g at the index, but 0 where a later duplicate of the place wins."""
    if all(part is None or part is Ellipsis or type(part) in (slice, int) for part in (index if type(index) is tuple else (index,))):
        return g[index]         # has no duplicates
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


class _Layout:
    """An index into one example as an index into the batch.

    NumPy puts the axes of index arrays in the place of the first one where they stand side by side, else in front; an index
    array with a batch axis brings it there.  ``to_front`` and ``from_front`` move between that order and the batch axis
    followed by the example's own order.

    Attributes
    ----------
    index : tuple or None
        None: too unusual, to be done example by example.
    region : tuple of int
        The shape of what the index takes of one example.
    varying_mask : Tensor or None
        The index itself where it is one bool array that differs from example to example.
    """

    def __init__(self, size, index, shape, batched):
        self.index = self.order = self.varying_mask = None
        parts = self.plain_parts(index if type(index) is tuple else (index,), len(shape))
        if parts is None:
            return
        arrays = [p for p in parts if hasattr(p, "shape") or isinstance(p, Batched)]
        shapes = [p.tensor.shape[1:] if isinstance(p, Batched) else p.shape for p in arrays]
        together = np.broadcast_shapes(*shapes) if arrays else ()
        rank = len(together)
        indices = [k for k, p in enumerate(parts) if not (p is None or isinstance(p, slice))] if arrays else []
        adjacent = not indices or indices[-1] - indices[0] == len(indices) - 1
        lengths, before, d = [], 0, 0
        for k, p in enumerate(parts):
            if p is None or isinstance(p, slice):
                lengths.append(1 if p is None else len(range(*p.indices(shape[d]))))
                before += bool(indices) and adjacent and k < indices[0]
            d += p is not None
        lengths += shape[d:]
        self.region = (*lengths[:before], *together, *lengths[before:])
        ndim = 1 + len(self.region)
        if not any(isinstance(p, Batched) for p in arrays):
            self.index = (slice(None), *parts)
            if not adjacent:            # (index arrays, batch, the rest)
                self.order = (rank, *range(rank), *range(rank + 1, ndim))
            return
        aligned = [reshape(p.tensor, (size,) + (1,) * (rank + 1 - p.tensor.ndim) + p.tensor.shape[1:])
                   if isinstance(p, Batched) else p for p in parts]
        if batched:                     # (batch, index arrays, the rest)
            self.index = (np.arange(size).reshape((size,) + (1,) * rank), *aligned)
            if before:
                self.order = (0, *range(1 + rank, 1 + rank + before), *range(1, 1 + rank), *range(1 + rank + before, ndim))
        else:                           # (what comes before, batch, index arrays, the rest)
            self.index = tuple(aligned)
            if before:
                self.order = (before, *range(before), *range(before + 1, ndim))

    def plain_parts(self, index, ndim):
        """The index without Ellipsis, lists and masks; None where it has what is left to NumPy."""
        parts = []
        for part in index:
            if isinstance(part, list):
                if not all(isinstance(item, (int, np.integer)) for item in part):
                    return None
                part = np.array(part, np.intp if not part else None)
            if isinstance(part, (bool, np.bool_)):
                return None
            dtype = part.tensor.dtype if isinstance(part, Batched) else getattr(part, "dtype", None)
            if dtype == bool:
                if isinstance(part, Batched):
                    self.varying_mask = part.tensor if len(index) == 1 else None
                    return None
                if part.ndim == 0:
                    return None
                parts += call_host(np.nonzero, (part,))
            else:
                parts.append(int(part) if isinstance(part, np.integer) else part)
        where = [k for k, part in enumerate(parts) if part is Ellipsis]
        if where:
            fill = ndim - sum(1 for part in parts if part is not None and part is not Ellipsis)
            parts[where[0]:where[0] + 1] = [slice(None)] * fill
        return parts

    def to_front(self, t):
        return t if self.order is None else transpose(t, self.order)

    def from_front(self, t):
        return t if self.order is None else transpose(t, np.argsort(self.order).tolist())
