"""Layers: Modules with PyTorch's names, shapes and defaults."""

import numpy as np

import fastgrad as fg
import fastgrad.numpy as fnp

from .init import fan_in_uniform
from .module import Module, Parameter

__all__ = ["Linear", "ModuleList", "ReLU", "Sequential", "Sigmoid", "Tanh"]


class Linear(Module):
    """The affine map ``y = x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of `x` and `y`.
    bias : bool
        False leaves the bias out; the attribute is then None.
    dtype : dtype, optional
        Of the parameters; float64 by default, as in NumPy.
    rng : None, int or numpy.random.Generator, optional
        Source of the initial values, U(-1/sqrt(in_features), 1/sqrt(in_features)) as in PyTorch.

    Attributes
    ----------
    weight : Tensor, shape (out_features, in_features)
    bias : Tensor, shape (out_features,), or None

    Raises
    ------
    ValueError
        When a size is not a non-negative integer, or a call's input does not end in `in_features`.
    TypeError
        When `dtype` is not floating.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgrad import nn
    >>> layer = nn.Linear(3, 2, rng=0)
    >>> layer(np.ones((5, 3))).shape
    (5, 2)
    """

    def __init__(self, in_features, out_features, bias=True, dtype=None, rng=None):
        for name, size in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 0:
                raise ValueError(f"Linear: {name} must be a non-negative integer, not {size!r}")
        rng = np.random.default_rng(rng)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(fan_in_uniform((out_features, in_features), in_features, dtype, rng))
        self.bias = Parameter(fan_in_uniform((out_features,), in_features, dtype, rng)) if bias else None

    def forward(self, x):
        if not isinstance(x, fg.Tensor):
            x = np.asarray(x)
        shape = x.shape
        if not shape or shape[-1] != self.in_features:
            raise ValueError(
                f"Linear: an input of shape {shape} does not end in in_features = {self.in_features}, "
                f"as weight {self.weight.shape} needs"
            )
        y = fnp.matmul(x, self.weight.T)
        return y if self.bias is None else y + self.bias

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class ModuleList(Module):
    """Modules in order, whose parameters are seen. Indexes and iterates as a list; what to compute is yours to say.

    Parameters
    ----------
    modules : iterable of Module

    Raises
    ------
    TypeError
        When an item is not a Module.

    Examples
    --------
    >>> from fastgrad import nn
    >>> layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    >>> len(layers), len(list(layers.parameters()))
    (3, 6)
    """

    def __init__(self, modules=()):
        for module in modules:
            self.append(module)

    def append(self, module):
        """Add a Module at the end. Returns the list."""
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__}: takes Modules, not {type(module).__name__}; "
                f"a function becomes one by a subclass of nn.Module whose forward calls it"
            )
        setattr(self, str(len(self)), module)
        return self

    def __len__(self):
        return sum(1 for _ in self.children())

    def __iter__(self):
        return self.children()

    def __getitem__(self, index):
        modules = list(self.children())[index]
        return type(self)._of(modules) if isinstance(index, slice) else modules

    @classmethod
    def _of(cls, modules):
        return cls(modules)


class Sequential(ModuleList):
    """Modules applied one after the other.

    Parameters
    ----------
    *modules : Module

    Raises
    ------
    TypeError
        When an argument is not a Module.

    Examples
    --------
    >>> from fastgrad import nn
    >>> nn.Sequential(nn.Linear(4, 8, rng=0), nn.Tanh(), nn.Linear(8, 3, rng=1))
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): Tanh()
      (2): Linear(in_features=8, out_features=3, bias=True)
    )
    """

    def __init__(self, *modules):
        super().__init__(modules)

    def forward(self, x):
        for module in self:
            x = module(x)
        return x

    @classmethod
    def _of(cls, modules):
        return cls(*modules)


class Tanh(Module):
    """`fastgrad.numpy.tanh` as a layer; any shape."""

    def forward(self, x):
        return fnp.tanh(x)


class ReLU(Module):
    """`fastgrad.numpy.relu` as a layer; any shape."""

    def forward(self, x):
        return fnp.relu(x)


class Sigmoid(Module):
    """`fastgrad.numpy.sigmoid` as a layer; any shape."""

    def forward(self, x):
        return fnp.sigmoid(x)
