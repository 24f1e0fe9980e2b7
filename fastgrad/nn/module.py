"""Module: a function that owns parameters.

A Module is also a pytree: wherever fastgrad takes a Tensor it takes a Module, whose leaves are its
parameters (`fg.grad(loss)(model)` returns a Module of gradients). Knows nothing about particular layers.
"""

import numpy as np

import fastgrad as fg

__all__ = ["Module", "Parameter"]


def Parameter(data, dtype=None):
    """A leaf Tensor that asks for a gradient, to be assigned to an attribute of a Module.

    Parameters
    ----------
    data : array_like
        Copied. Any shape.
    dtype : dtype, optional
        A floating dtype; that of `data` by default.

    Returns
    -------
    fastgrad.Tensor
        ``fg.tensor(data, dtype, requires_grad=True)``.

    Raises
    ------
    TypeError
        When the dtype is not floating: integers carry no gradient.

    Examples
    --------
    >>> from fastgrad import nn
    >>> nn.Parameter([1.0, 2.0]).requires_grad
    True
    """
    return fg.tensor(data, dtype=dtype, requires_grad=True)


def is_parameter(value):
    return isinstance(value, fg.Tensor) and value.requires_grad and value.is_leaf


class Module:
    """Base class of layers and networks: assign parameters and Modules to attributes, define `forward`.

    A leaf Tensor that asks for a gradient, once assigned to an attribute, is a parameter of the Module; a
    Module assigned to an attribute is its child. Several children in order go in a `Sequential` or a
    `ModuleList`: a plain list would hide them, and is refused.

    There is no need to call ``super().__init__()``.

    Attributes
    ----------
    training : bool
        True until `eval` is called.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgrad as fg
    >>> from fastgrad import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         self.factor = nn.Parameter(2.0)
    ...     def forward(self, x):
    ...         return self.factor * x
    >>> model = Scale()
    >>> model(np.array([1.0, 3.0])).sum().backward()
    >>> model.factor.grad.item()
    4.0
    """

    training = True

    def forward(self, *inputs):
        """What calling the Module computes. Subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(); a Module defines what calling it computes")

    def __call__(self, *inputs, **options):
        return self.forward(*inputs, **options)

    # Registration. Names of parameters are remembered, not recognised again on every look: a Module of
    # gradients, or of the Tensors a transform traces, keeps its parameters though they are no leaves.

    def __setattr__(self, name, value):
        parameters = self.__dict__.setdefault("_parameters", {})
        if is_parameter(value):
            parameters[name] = None
        else:
            refuse_hidden(self, name, value)
            parameters.pop(name, None)
        object.__setattr__(self, name, value)

    def __delattr__(self, name):
        object.__delattr__(self, name)
        self.__dict__.get("_parameters", {}).pop(name, None)

    def named_children(self):
        """Yield (name, Module) for each child, in order of assignment."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self):
        """Yield each child, in order of assignment."""
        for _, child in self.named_children():
            yield child

    def named_modules(self, prefix=""):
        """Yield (dotted name, Module) for the Module itself, whose name is "", and all below it, each once."""
        seen = set()
        stack = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if module in seen:
                continue
            seen.add(module)
            yield name, module
            dot = f"{name}." if name else ""
            stack += [(dot + key, child) for key, child in module.__dict__.items() if isinstance(child, Module)][::-1]

    def modules(self):
        """Yield the Module itself and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self):
        """Yield (dotted name, Tensor) for each parameter: own ones first, then the children's; a shared one once."""
        seen = set()
        for prefix, module in self.named_modules():
            for name in module.__dict__.get("_parameters", ()):
                tensor = module.__dict__[name]
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield (f"{prefix}.{name}" if prefix else name), tensor

    def parameters(self):
        """Yield each parameter, in the order of `named_parameters`."""
        for _, tensor in self.named_parameters():
            yield tensor

    def zero_grad(self):
        """Forget the gradients of all parameters: their `grad` becomes None."""
        for tensor in self.parameters():
            tensor.zero_grad()

    # Mode

    def train(self, mode=True):
        """Set `training` here and in all Modules below. Returns the Module."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self):
        """``train(False)``. Returns the Module."""
        return self.train(False)

    # State

    def state_dict(self):
        """Copy the parameters out.

        Returns
        -------
        dict of str to numpy.ndarray
            By dotted name; `numpy.savez` takes it as ``**state``.

        Examples
        --------
        >>> from fastgrad import nn
        >>> {name: array.shape for name, array in nn.Linear(3, 2).state_dict().items()}
        {'weight': (2, 3), 'bias': (2,)}
        """
        return {name: tensor.detach().numpy().copy() for name, tensor in self.named_parameters()}

    def load_state_dict(self, state, strict=True):
        """Copy parameters in, in place: the Tensors, and optimisers that hold them, stay what they are.

        Nothing is changed unless everything fits.

        Parameters
        ----------
        state : mapping of str to array_like
            As from `state_dict`. Each array has its parameter's shape; its numbers are cast to the parameter's dtype.
        strict : bool
            When False, names on one side only are passed over. Shapes must fit all the same.

        Raises
        ------
        ValueError
            When names are missing or unexpected (`strict`), or a shape differs.
        TypeError
            When numbers cannot be cast to the parameter's dtype.
        """
        parameters = dict(self.named_parameters())
        problems = []
        missing = [name for name in parameters if name not in state]
        unexpected = [name for name in state if name not in parameters]
        if strict and missing:
            problems.append(f"missing {', '.join(map(repr, missing))}")
        if strict and unexpected:
            problems.append(f"unexpected {', '.join(map(repr, unexpected))}")
        arrays = {name: np.asarray(state[name]) for name in parameters if name in state}
        for name, array in arrays.items():
            if array.shape != parameters[name].shape:
                problems.append(f"{name!r} has shape {array.shape} where {parameters[name].shape} is needed")
        if problems:
            if strict and (missing or unexpected):
                problems.append("strict=False passes over missing and unexpected names")
            raise ValueError(f"load_state_dict of {type(self).__name__}: {'; '.join(problems)}")
        for name, array in arrays.items():
            if not np.can_cast(array.dtype, parameters[name].dtype, "same_kind"):
                raise TypeError(
                    f"load_state_dict of {type(self).__name__}: {name!r} holds {array.dtype}, "
                    f"which does not cast to {parameters[name].dtype}"
                )
        with fg.no_grad():
            for name, array in arrays.items():
                tensor = parameters[name]
                tensor[...] = array.astype(tensor.dtype, copy=False)

    # Pytree: the children are the parameters, all else is structure.

    def _tree_flatten(self):
        return list(self.parameters()), self

    @classmethod
    def _tree_unflatten(cls, template, children):
        """A copy of `template` with these parameters. What is no parameter is shared with it."""
        old = list(template.parameters())
        children = list(children)
        if len(old) != len(children):
            raise ValueError(f"{cls.__name__} has {len(old)} parameters, not {len(children)}")
        replacement = {id(tensor): child for tensor, child in zip(old, children)}
        copies = {id(module): object.__new__(type(module)) for module in template.modules()}
        for module in template.modules():
            state = copies[id(module)].__dict__
            parameters = module.__dict__.get("_parameters", {})
            for name, value in vars(module).items():
                if name in parameters:
                    value = replacement[id(value)]
                elif isinstance(value, Module):
                    value = copies[id(value)]
                state[name] = value
            state["_parameters"] = dict(parameters)
        return copies[id(template)]

    # Text

    def extra_repr(self):
        """What stands in the parentheses of the Module's own line of `repr`."""
        return ""

    def __repr__(self):
        name, extra = type(self).__name__, self.extra_repr()
        lines = [f"({key}): {child!r}".replace("\n", "\n  ") for key, child in self.named_children()]
        if not lines:
            return f"{name}({extra})"
        return f"{name}({extra}\n  " + "\n  ".join(lines) + "\n)"


def refuse_hidden(module, name, value):
    """Parameters in a plain container would be lost to `parameters`, without a word."""
    if isinstance(value, dict):
        items = value.values()
    elif isinstance(value, (list, tuple)):
        items = value
    else:
        return
    if name != "_parameters" and any(isinstance(item, Module) or is_parameter(item) for item in items):
        raise TypeError(
            f"{type(module).__name__}.{name}: a {type(value).__name__} hides the Modules and parameters in it; "
            f"use nn.ModuleList or nn.Sequential, or one attribute each"
        )
