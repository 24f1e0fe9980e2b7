"""clip, where and round with NumPy's optional arguments."""

import numpy as np

from fastgrad._core import engine
from fastgrad._core.engine import rint


def clip(a, min=None, max=None, *, out=None):
    """a kept between bounds; exactly at a bound the gradient passes to a.

    Parameters
    ----------
    a : Tensor or array_like
    min, max : Tensor, array_like or None
        Bounds that broadcast with a; None: no bound.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.clip([-2.0, 0.5, 2.0], -1.0, 1.0)
    Tensor([-1. ,  0.5,  1. ])
    """
    low = -np.inf if min is None else min
    high = np.inf if max is None else max
    if min is None and max is None:
        return engine.positive(a, out=out)
    return engine.clip(a, low, high, out=out)


def where(condition, x=None, y=None, /):
    """x where the condition holds, else y; with one argument the places where it holds, as ``numpy.nonzero``.

    Parameters
    ----------
    condition : Tensor or array_like of bool
    x, y : Tensor or array_like
        The branch that is not taken gets a gradient of exactly 0.

    Returns
    -------
    Tensor or tuple of Tensor

    Examples
    --------
    >>> import fastgrad.numpy as fnp
    >>> fnp.where([True, False], [1.0, 2.0], 0.0)
    Tensor([1., 0.])
    """
    if x is None and y is None:
        return engine.call_host(np.nonzero, (condition,))
    if x is None or y is None:
        raise ValueError("where: either both or neither of x and y should be given")
    return engine.where(condition, x, y)


def round(a, decimals=0):
    """Rounded to a number of decimals, ties to even; no gradient.

    Parameters
    ----------
    a : Tensor or array_like
    decimals : int

    Returns
    -------
    Tensor
    """
    if decimals == 0:
        return rint(a)
    return engine.call_host(np.round, (a, decimals))


around = round
