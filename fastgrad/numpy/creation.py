"""New Tensors, without gradients."""

import numpy as np

from fastgrad._core.engine import Tensor, is_recorded, is_tracked, tensor, typed

__all__ = ["array", "asarray", "zeros", "ones", "full", "empty", "arange", "linspace", "eye", "identity", "zeros_like",
           "ones_like", "full_like", "empty_like"]


def _plain(argument):
    """The number of a Tensor, which may not be one that is differentiated or traced."""
    return np.asarray(argument)[()] if isinstance(argument, Tensor) else argument


def _from_numpy(name, like=False):
    theirs = getattr(np, name)

    if like:
        def make(prototype, *arguments, **keywords):
            if isinstance(prototype, Tensor):
                prototype = np.broadcast_to(np.zeros((), prototype.dtype), prototype.shape)
            return tensor(theirs(prototype, *arguments, **keywords))
    else:
        def make(*arguments, **keywords):
            return tensor(theirs(*map(_plain, arguments), **{name: _plain(value) for name, value in keywords.items()}))
    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"A new Tensor, without a gradient, with the arguments of ``numpy.{name}``."
    return make


zeros, ones, empty = _from_numpy("zeros"), _from_numpy("ones"), _from_numpy("empty")
arange, linspace = _from_numpy("arange"), _from_numpy("linspace")
eye, identity = _from_numpy("eye"), _from_numpy("identity")
zeros_like, ones_like = _from_numpy("zeros_like", like=True), _from_numpy("ones_like", like=True)
empty_like = _from_numpy("empty_like", like=True)


def full(shape, fill_value, dtype=None):
    """A new Tensor of one value; gradients flow to a ``fill_value`` that is a Tensor.

    Parameters
    ----------
    shape : int or tuple of int
    fill_value : number or Tensor
    dtype : dtype, optional

    Returns
    -------
    Tensor
    """
    from fastgrad._core.engine import broadcast_to, copy

    if isinstance(fill_value, Tensor):
        result = copy(broadcast_to(fill_value, shape))
        return result if dtype is None else result.astype(dtype)
    return tensor(np.full(shape, fill_value, dtype))


def full_like(prototype, fill_value, dtype=None, *, shape=None):
    """A new Tensor of one value, of the shape and dtype of another.

    Parameters
    ----------
    prototype : Tensor or array_like
    fill_value : number or Tensor
    dtype : dtype, optional
    shape : int or tuple of int, optional
        Instead of that of ``prototype``.

    Returns
    -------
    Tensor
    """
    if not isinstance(prototype, Tensor):
        prototype = np.asarray(prototype)
    return full(prototype.shape if shape is None else shape, fill_value, prototype.dtype if dtype is None else dtype)


def array(data, dtype=None, *, copy=True):
    """A Tensor of the data; gradients flow through Tensors among it.

    Parameters
    ----------
    data : Tensor, array_like, or nested lists of these
    dtype : dtype, optional
    copy : bool, optional
        Accepted as NumPy has it: a recorded value is never changed in place, so sharing cannot be seen.

    Returns
    -------
    Tensor
    """
    if isinstance(data, Tensor):
        return data.copy() if dtype is None else data.astype(dtype)
    if isinstance(data, (list, tuple)) and _holds_tracked(data):
        from fastgrad.numpy.joining import stack

        result = stack([array(part) for part in data])
        return result if dtype is None else result.astype(dtype)
    return tensor(data, dtype=dtype)


def asarray(data, dtype=None):
    """A Tensor of the data: a Tensor as it is, anything else copied; see ``array``."""
    if isinstance(data, Tensor) and dtype is None:
        return typed(data)
    return array(data, dtype)


def _holds_tracked(data):
    return any(_holds_tracked(d) if isinstance(d, (list, tuple)) else
               isinstance(d, Tensor) and (is_tracked(d) or is_recorded(d)) for d in data)
