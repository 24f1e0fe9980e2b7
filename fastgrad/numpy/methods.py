"""What NumPy's arrays have as methods and the engine's Tensor has not, and the methods of ufuncs.

A method that is missing leads to the function of the same name, here or in NumPy, which refuses where a gradient would be
lost.  They are put into the class once, so calling any method costs what it did.
"""

import numpy as np

from fastgrad._core import engine
from fastgrad._core.engine import Tensor, refuse_numpy

# In place, about memory, or with another order of arguments than the function of the name.
NOT_BY_NAME = {"compress", "fill", "nonzero", "partition", "put", "resize", "setfield", "setflags", "sort"}


def methods(functions):
    """The missing methods by name.

    Parameters
    ----------
    functions : dict
        fastgrad.numpy's by name.

    Returns
    -------
    dict
    """
    found = {}
    for name in dir(np.ndarray):
        if name.startswith("_") or name in NOT_BY_NAME or hasattr(Tensor, name):
            continue
        function = functions.get(name, getattr(np, name, None))
        if callable(getattr(np.ndarray, name)) and callable(function) and not isinstance(function, type):
            found[name] = _method(name, function)
    found.update({name: each for name, each in vars(_Methods).items() if not name.startswith("_") and not hasattr(Tensor, name)})
    return found


def _method(name, function):
    def method(self, *arguments, **keywords):
        return function(self, *arguments, **keywords)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"As ``ndarray.{name}``; see ``fastgrad.numpy.{name}``."
    return method


class _Methods:
    """Those that no function of the same name and order of arguments stands for."""

    def fill(self, value):
        """Sets every element to a value, in place; gradients flow from the value."""
        self[...] = value

    def compress(self, condition, axis=None):
        """The elements along an axis (of all, flat, by default) where a condition holds."""
        x, axis = (self.reshape(-1), 0) if axis is None else (self, axis % self.ndim)
        return x[(slice(None),) * axis + (np.flatnonzero(np.asarray(condition)),)]

    def sort(self, axis=-1):
        """Sorts in place along an axis; gradients go with the elements."""
        order = engine.call_host(np.argsort, (self.detach(), axis, "stable"))
        index = list(np.ogrid[tuple(slice(n) for n in self.shape)]) if self.ndim else []
        if self.ndim:
            index[axis] = order
            self[...] = self[tuple(index)]

    def nonzero(self):
        """Where elements differ from 0, an array of indices for each axis; no gradient."""
        return engine.call_host(np.nonzero, (self.detach(),))

    def tobytes(self):
        """The numbers as bytes, in C order."""
        return self.detach().numpy().tobytes()

    @property
    def flat(self):
        """An iterator over the elements in C order, each a 0-d Tensor."""
        return iter(self.reshape(-1))

    @property
    def imag(self):
        """Zeros: there are no complex Tensors."""
        return engine.zeros_for(self) if self.dtype.kind == "f" else self * 0


# ----------------------------------------------------------------------------------------------------------- ufuncs' methods

def _running(combine, x, axis):
    """combine over all elements up to each, along an axis: by doubling, as few operations deep as can be."""
    from fastgrad.numpy.joining import concatenate

    n, step = x.shape[axis], 1
    before = (slice(None),) * (axis % x.ndim)
    while step < n:
        later = combine(x[before + (slice(0, n - step),)], x[before + (slice(step, None),)])
        x = concatenate([x[before + (slice(0, step),)], later], axis)
        step *= 2
    return x


def ufunc_accumulate(ufunc, x, axis=0):
    """``np.add.accumulate(tensor)`` and the like."""
    combine = {"add": engine.add, "multiply": engine.multiply, "maximum": engine.maximum, "minimum": engine.minimum,
               "logaddexp": engine.logaddexp}.get(ufunc.__name__)
    if combine is None or x.dtype.kind != "f":
        refuse_numpy(f"numpy.{ufunc.__name__}.accumulate", (x,))
        return engine.call_host(ufunc.accumulate, (x, axis))
    if x.ndim == 0:
        raise TypeError(f"numpy.{ufunc.__name__}.accumulate: cannot accumulate on a 0-d Tensor; give it an axis")
    if not -x.ndim <= axis < x.ndim:
        raise np.exceptions.AxisError(axis, x.ndim)
    return _running(combine, engine.copy(x), axis)


def ufunc_reduce_some(ufunc, x, axis, keepdims, where, initial):
    """A reduction with ``where=`` or ``initial=``: what does not count is the neutral element, the start one more operand."""
    from fastgrad.numpy.reductions import prod

    reduced = {"add": (engine.sum, 0.0, engine.add), "multiply": (prod, 1.0, engine.multiply),
               "maximum": (engine.max, -np.inf, engine.maximum), "minimum": (engine.min, np.inf, engine.minimum),
               "logaddexp": (engine.logsumexp, -np.inf, engine.logaddexp)}.get(ufunc.__name__)
    if reduced is None or x.dtype.kind != "f":
        return NotImplemented
    function, neutral, combine = reduced
    if where is not True:
        if initial is None and neutral not in (0.0, 1.0):
            raise ValueError(f"numpy.{ufunc.__name__}.reduce: where= needs initial=, for there is no neutral element")
        x = engine.where(where, x, neutral)
    result = function(x, axis, keepdims)
    return result if initial is None else combine(result, initial)


def ufunc_outer(function, x, y):
    """``np.multiply.outer(x, y)``: the operation on each pair of elements."""
    x, y = (t if isinstance(t, Tensor) else engine.as_operand(np.asarray(t)) for t in (x, y))
    return function(x.reshape(x.shape + (1,) * y.ndim), y)


def ufunc_at(ufunc, function, target, index, *values):
    """``np.add.at(tensor, index, values)``, in place, where places that repeat count each time."""
    name = f"numpy.{ufunc.__name__}.at"
    if not isinstance(target, Tensor):
        refuse_numpy(name, values)
        getattr(ufunc, "at")(target, index, *[v.numpy() if isinstance(v, Tensor) else v for v in values])
        return
    if function is None or len(values) + 1 != ufunc.nin:
        refuse_numpy(name, (target, values))
        raise TypeError(f"{name} is not supported for Tensors; write x[index] = ... with the function")
    if ufunc.__name__ in ("add", "subtract") and target.dtype.kind == "f":
        shape = target[index].shape
        v = values[0] if isinstance(values[0], Tensor) else engine.as_operand(np.asarray(values[0], target.dtype))
        v = engine.broadcast_to(v if v.dtype == target.dtype else v.astype(target.dtype), shape)
        # a sum over places, also those that repeat: what a gather sends back
        places = np.arange(target.size).reshape(target.shape)[engine.plain_index(index)]
        total = engine.HOOKS["scatter_add"](v.reshape(-1), np.asarray(places).reshape(-1), (target.size,)).reshape(target.shape)
        target[...] = function(target, total)
        return
    places = np.arange(target.size).reshape(target.shape)[engine.plain_index(index)].reshape(-1)
    if len(np.unique(places)) != places.size:
        raise TypeError(f"{name} with places that repeat is supported for add and subtract; do it place by place")
    target[index] = function(target[index], *values)


def ufunc_other(ufunc, method, function, inputs, out, where, keywords):
    """What is left of a ufunc's ways to be called; NotImplemented where it is NumPy's, without a gradient."""
    from fastgrad.numpy.reductions import ufunc_reduce

    if method == "__call__":
        return _call(ufunc, function, inputs, out, where, keywords)
    function = engine.UFUNCS.get(ufunc.__name__)
    if method == "reduce" and isinstance(inputs[0], Tensor) and (ufunc is np.logaddexp or where is not True or "initial" in keywords) \
            and set(keywords) <= {"axis", "keepdims", "initial"} and len(inputs) == 1:
        result = ufunc_reduce_some(ufunc, inputs[0], keywords.get("axis", 0), keywords.get("keepdims", False), where,
                                   keywords.get("initial"))
        if result is not NotImplemented:
            return _given(result, out, f"numpy.{ufunc.__name__}.reduce")
    if method == "reduce":
        return ufunc_reduce(ufunc, inputs[0], out, where, keywords)
    name = f"numpy.{ufunc.__name__}.{method}"
    if method == "at":
        return ufunc_at(ufunc, function, *inputs)
    if method == "accumulate" and set(keywords) <= {"axis"}:
        x = inputs[0] if isinstance(inputs[0], Tensor) else engine.as_operand(np.asarray(inputs[0]))
        return _given(ufunc_accumulate(ufunc, x, *inputs[1:], **keywords), out, name)
    if method == "outer" and function is not None and not keywords and where is True:
        return _given(ufunc_outer(function, *inputs), out, name)
    return NotImplemented


def _given(result, out, name):
    """The result, in the Tensor of out= if there is one."""
    if out is None:
        return result
    target = out[0] if isinstance(out, tuple) else out
    if not isinstance(target, Tensor):
        if not engine.is_tracked(result) and not engine.tracing():
            target[...] = result.numpy()
            return target
        raise TypeError(f"{name}: out= takes a Tensor, not {type(target).__name__}: a gradient would be lost in a bare array")
    target[...] = result
    return target


def _call(ufunc, function, inputs, out, where, keywords):
    if ufunc is np.divmod and not keywords and where is True and out is None:
        return divmod(*(x if isinstance(x, Tensor) else engine.as_operand(np.asarray(x)) for x in inputs))
    if ufunc is np.modf and not keywords and where is True and out is None and inputs[0].dtype.kind == "f":
        whole = engine.trunc(inputs[0])
        return engine.subtract(inputs[0], whole), whole
    if function is None or not set(keywords) <= {"dtype", "casting", "order", "subok"}:
        return NotImplemented
    if keywords.get("order", "K") != "K" or keywords.get("casting", "same_kind") != "same_kind" or not keywords.get("subok", True):
        return NotImplemented
    dtype = keywords.get("dtype")
    if dtype is not None:
        dtype = np.dtype(dtype)
        if dtype.kind != "f":
            return NotImplemented
        inputs = tuple((x if isinstance(x, Tensor) else engine.as_operand(np.asarray(x))).astype(dtype) for x in inputs)
    if where is True:
        return _given(function(*inputs), out, f"numpy.{ufunc.__name__}")
    if out is None:
        return NotImplemented       # elements that are not computed have no value
    target = out[0] if isinstance(out, tuple) else out
    if not isinstance(target, Tensor):
        target = engine.as_operand(np.array(target))
    result = engine.where(where, function(*inputs), target.copy())
    if result.shape != target.shape:
        raise ValueError(f"numpy.{ufunc.__name__}: out= of shape {target.shape} for a result of shape {result.shape}")
    return _given(result, out, f"numpy.{ufunc.__name__}")
