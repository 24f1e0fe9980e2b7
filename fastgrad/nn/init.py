"""Initial values of parameters, as NumPy arrays. Knows nothing about layers."""

import numpy as np

__all__ = ["fan_in_uniform"]


def fan_in_uniform(shape, fan_in, dtype=None, rng=None):
    """Draw from the uniform distribution on (-1/sqrt(fan_in), 1/sqrt(fan_in)).

    PyTorch's default for weights and biases of a linear layer. A sum of `fan_in` inputs of unit variance
    weighted so has variance 1/3, whatever `fan_in` is (Y. LeCun et al., "Efficient BackProp", 1998, 4.6).

    Parameters
    ----------
    shape : int or tuple of int
    fan_in : int
        How many inputs each output sums over. With 0 the result is 0.
    dtype : dtype, optional
        A floating dtype; float64 by default.
    rng : None, int or numpy.random.Generator, optional
        Where the numbers come from: fresh entropy, a seed, or a generator.

    Returns
    -------
    numpy.ndarray
        Of the given shape and dtype.

    Raises
    ------
    TypeError
        When `dtype` is not a floating dtype.

    Examples
    --------
    >>> from fastgrad import nn
    >>> w = nn.init.fan_in_uniform((3, 4), fan_in=4, rng=0)
    >>> w.shape, bool(abs(w).max() <= 0.5)
    ((3, 4), True)
    """
    dtype = np.dtype(np.float64 if dtype is None else dtype)
    if dtype.kind != "f":
        raise TypeError(f"fan_in_uniform: parameters need a floating dtype, not {dtype}")
    bound = 1.0 / np.sqrt(fan_in) if fan_in > 0 else 0.0
    return np.random.default_rng(rng).uniform(-bound, bound, shape).astype(dtype)
