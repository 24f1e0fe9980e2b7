"""Optimisers: they move leaf Tensors along their `grad`, in place, with PyTorch's rules and defaults.

Knows nothing about Modules: parameters are any leaf Tensors that ask for a gradient.
"""

import math

import numpy as np

import fastgrad as fg
import fastgrad.numpy as fnp

__all__ = ["SGD", "Adam", "Optimizer"]


class Optimizer:
    """Base class: holds the parameters and what is remembered for each; a subclass says how one moves.

    A subclass names its hyperparameters in ``options``, sets them as attributes (they may be changed between
    steps: ``optimizer.lr *= 0.5``), and defines ``update(parameter, gradient, state)``, which is run without
    recording. ``state`` is that parameter's own dict, empty before its first step; its values are Tensors, changed in place, so that a step can be
    compiled; one named ``step`` counts, 0-d.

    Parameters
    ----------
    params : iterable of Tensor
        Leaf Tensors with ``requires_grad``, such as ``model.parameters()``.

    Raises
    ------
    TypeError
        When `params` is a single Tensor, or holds something else than Tensors.
    ValueError
        When `params` is empty, names a Tensor twice, or holds one that is no leaf or asks for no gradient.

    Examples
    --------
    >>> import fastgrad as fg
    >>> from fastgrad import optim
    >>> class SignDescent(optim.Optimizer):
    ...     options = ("lr",)
    ...     def __init__(self, params, lr=0.1):
    ...         super().__init__(params)
    ...         self.lr = lr
    ...     def update(self, parameter, gradient, state):
    ...         parameter -= self.lr * fg.numpy.sign(gradient)
    >>> x = fg.tensor([1.0, -2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> SignDescent([x]).step()
    >>> x.detach().numpy()
    array([ 0.9, -1.9])
    """

    options = ()

    def __init__(self, params):
        name = type(self).__name__
        if isinstance(params, fg.Tensor):
            raise TypeError(f"{name}: params must be an iterable of Tensors; put the Tensor in a list")
        self.params = list(params)
        if not self.params:
            raise ValueError(f"{name}: params is empty; an iterator such as model.parameters() serves only once")
        for index, parameter in enumerate(self.params):
            if not isinstance(parameter, fg.Tensor):
                raise TypeError(f"{name}: params[{index}] is {type(parameter).__name__}, not a Tensor")
            if not (parameter.is_leaf and parameter.requires_grad):
                raise ValueError(
                    f"{name}: params[{index}], of shape {parameter.shape}, is not a leaf that asks for a gradient; "
                    f"make it with fg.tensor(..., requires_grad=True)"
                )
        if len({id(parameter) for parameter in self.params}) != len(self.params):
            raise ValueError(f"{name}: a Tensor stands in params twice and would move twice a step")
        self.state = [{} for _ in self.params]

    def update(self, parameter, gradient, state):
        """Move one parameter, in place. Subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} has no update()")

    def step(self):
        """Move every parameter that has a `grad`, in place and unrecorded; the others stay as they are."""
        with fg.no_grad():
            for parameter, state in zip(self.params, self.state):
                gradient = parameter.grad
                if gradient is not None:
                    self.update(parameter, gradient, state)

    def zero_grad(self):
        """Forget the gradients: every parameter's `grad` becomes None."""
        for parameter in self.params:
            parameter.zero_grad()

    def state_dict(self):
        """Copy the hyperparameters and the memory of each parameter out.

        Returns
        -------
        dict
            ``{"options": {name: value}, "state": [{name: ndarray or int}, ...]}``, in the order of the parameters.
        """
        return {
            "options": {name: getattr(self, name) for name in self.options},
            "state": [
                {name: int(value.item()) if name == "step" else value.numpy().copy() for name, value in state.items()}
                for state in self.state
            ],
        }

    def load_state_dict(self, state_dict):
        """Take over what `state_dict` returned, by an optimiser of the same class and for the same shapes.

        Nothing is changed unless everything fits.

        Raises
        ------
        ValueError
            When the hyperparameters' names, the number of parameters or a shape differ.
        """
        name = type(self).__name__
        options, states = state_dict["options"], state_dict["state"]
        if set(options) != set(self.options):
            raise ValueError(f"{name}.load_state_dict: options are {sorted(options)}, not {sorted(self.options)}")
        if len(states) != len(self.params):
            raise ValueError(f"{name}.load_state_dict: state of {len(states)} parameters for {len(self.params)}")
        loaded = []
        for index, (parameter, state) in enumerate(zip(self.params, states)):
            loaded.append({})
            for key, value in state.items():
                if isinstance(value, np.ndarray):
                    if value.shape != parameter.shape:
                        raise ValueError(
                            f"{name}.load_state_dict: {key!r} of params[{index}] has shape {value.shape}, "
                            f"not {parameter.shape}"
                        )
                    value = fg.tensor(value, dtype=parameter.dtype)
                loaded[-1][key] = fg.tensor(float(value)) if key == "step" else value
        for key, value in options.items():
            setattr(self, key, value)
        self.state = loaded

    def __repr__(self):
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.options)
        return f"{type(self).__name__}({len(self.params)} parameters, {options})"


class SGD(Optimizer):
    """Gradient descent, plain or with momentum.

    ``g = grad + weight_decay * p``; with momentum ``b = g`` at the first step, then
    ``b = momentum * b + (1 - dampening) * g``, and ``g = b``, or ``g + momentum * b`` with `nesterov`; ``p -= lr * g``.
    That is PyTorch's form of B. Polyak, 1964, and of I. Sutskever et al., "On the importance of initialization
    and momentum in deep learning", 2013.

    Parameters
    ----------
    params : iterable of Tensor
    lr, momentum, dampening, weight_decay : float
    nesterov : bool
        Needs momentum > 0 and dampening = 0.

    Raises
    ------
    ValueError
        When a hyperparameter is out of its range; see also `Optimizer`.

    Examples
    --------
    >>> import fastgrad as fg
    >>> from fastgrad import optim
    >>> x = fg.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = optim.SGD([x], lr=0.1)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> x.detach().numpy()
    array([0.8, 1.6])
    """

    options = ("lr", "momentum", "dampening", "weight_decay", "nesterov")

    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        super().__init__(params)
        self.lr = not_negative("SGD", "lr", lr)
        self.momentum = not_negative("SGD", "momentum", momentum)
        self.weight_decay = not_negative("SGD", "weight_decay", weight_decay)
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(f"SGD: nesterov needs momentum > 0 and dampening = 0, not {momentum!r} and {dampening!r}")
        self.dampening = float(dampening)
        self.nesterov = bool(nesterov)

    def update(self, parameter, gradient, state):
        if self.weight_decay:
            gradient = gradient + self.weight_decay * parameter
        if self.momentum:
            velocity = state.get("velocity")
            if velocity is None:
                velocity = state["velocity"] = fg.tensor(gradient)
            else:
                velocity *= self.momentum
                velocity += (1 - self.dampening) * gradient
            gradient = gradient + self.momentum * velocity if self.nesterov else velocity
        parameter -= float(self.lr) * gradient  # a NumPy scalar would widen float32


class Adam(Optimizer):
    """Steps scaled by running moments of the gradient.

    ``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g**2``,
    ``p -= lr / (1 - b1**t) * m / (sqrt(v) / sqrt(1 - b2**t) + eps)`` at step t: D. Kingma and J. Ba, "Adam: a method
    for stochastic optimization", 2015. `weight_decay` adds ``weight_decay * p`` to the gradient, as in PyTorch's Adam;
    `amsgrad` divides by the largest v so far (S. Reddi et al., "On the convergence of Adam and beyond", 2018).

    Parameters
    ----------
    params : iterable of Tensor
    lr : float
    betas : pair of float
        From 0 to below 1.
    eps, weight_decay : float
    amsgrad : bool

    Raises
    ------
    ValueError
        When a hyperparameter is out of its range; see also `Optimizer`.

    Examples
    --------
    >>> import fastgrad as fg
    >>> from fastgrad import optim
    >>> x = fg.tensor([1.0, 200.0], requires_grad=True)
    >>> optimizer = optim.Adam([x], lr=0.1)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> x.detach().numpy().round(6)
    array([  0.9, 199.9])
    """

    options = ("lr", "betas", "eps", "weight_decay", "amsgrad")

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False):
        super().__init__(params)
        self.lr = not_negative("Adam", "lr", lr)
        self.eps = not_negative("Adam", "eps", eps)
        self.weight_decay = not_negative("Adam", "weight_decay", weight_decay)
        betas = tuple(float(beta) for beta in betas)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"Adam: betas must be two numbers from 0 to below 1, not {betas!r}")
        self.betas = betas
        self.amsgrad = bool(amsgrad)

    def update(self, parameter, gradient, state):
        if not state:
            state["step"] = fg.tensor(0.0)
            state["mean"] = zeros_like(parameter)
            state["square"] = zeros_like(parameter)
        # The step count is a Tensor, so that a compiled step counts on; the bias corrections are exact in float64.
        step, mean, square = state["step"], state["mean"], state["square"]
        step += 1.0
        beta1, beta2 = self.betas
        step_size = float(self.lr) / (1.0 - beta1**step)
        scale = 1.0 / fnp.sqrt(1.0 - beta2**step)
        if parameter.dtype != step.dtype:
            step_size, scale = step_size.astype(parameter.dtype), scale.astype(parameter.dtype)
        if self.weight_decay:
            gradient = gradient + self.weight_decay * parameter
        mean += (1 - beta1) * (gradient - mean)
        square *= beta2
        square += ((1 - beta2) * gradient) * gradient
        if self.amsgrad:
            if "largest" not in state:
                state["largest"] = fg.tensor(square)
            largest = state["largest"]
            largest[...] = square = fnp.maximum(largest, square)
        parameter -= (step_size * mean) / (scale * fnp.sqrt(square) + self.eps)


def zeros_like(parameter):
    return fg.tensor(np.zeros(parameter.shape, parameter.dtype))


def not_negative(optimizer, name, value):
    if not value >= 0 or value == math.inf:
        raise ValueError(f"{optimizer}: {name} must be a finite number >= 0, not {value!r}")
    return float(value)
