"""Losses, as functions of predictions and targets. Knows nothing about Modules.

All take ``reduction``: "mean" (the default), "sum", or "none" for the separate losses. A target is data:
an array, or a Tensor; gradients flow to a Tensor target too where the loss has a derivative by it.
"""

import numpy as np

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import engine

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "mse_loss"]


def mse_loss(input, target, reduction="mean"):
    """Squared error, ``(input - target)**2``.

    Parameters
    ----------
    input, target : array_like
        Floating, of one shape. Broadcasting is refused: (n, 1) against (n,) is the classic silent mistake.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    Tensor
        0-d, or with "none" of the inputs' shape.

    Raises
    ------
    ValueError
        When the shapes differ or `reduction` is unknown.

    Examples
    --------
    >>> from fastgrad import nn
    >>> nn.mse_loss([1.0, 2.0], [1.0, 4.0]).item()
    2.0
    """
    input, target = operands("mse_loss", input, target)
    return reduce("mse_loss", fnp.square(input - target), reduction)


def binary_cross_entropy(input, target, weight=None, reduction="mean"):
    """Cross-entropy of probabilities, ``-(target * log(input) + (1 - target) * log(1 - input))``.

    As in PyTorch each logarithm is at least -100, so the loss is finite. The gradient is that of this
    bounded loss: 0 where the bound holds. Where `input` is a sigmoid,
    `binary_cross_entropy_with_logits` is faster and loses no digits.

    Parameters
    ----------
    input : array_like
        Probabilities, from 0 to 1; outside the loss is NaN.
    target : array_like
        Of the shape of `input`, from 0 to 1.
    weight : array_like, optional
        Factor of each loss; broadcasts to the shape of `input`.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    Tensor
        0-d, or with "none" of the shape of `input`.

    Raises
    ------
    ValueError
        When the shapes do not fit or `reduction` is unknown.

    Examples
    --------
    >>> from fastgrad import nn
    >>> round(nn.binary_cross_entropy([0.5, 1.0], [1.0, 1.0]).item(), 6)
    0.346574
    """
    input, target = operands("binary_cross_entropy", input, target)
    losses = -(target * fnp.maximum(fnp.log(input), -100.0) + (1.0 - target) * fnp.maximum(fnp.log1p(-input), -100.0))
    return reduce("binary_cross_entropy", weigh("binary_cross_entropy", losses, weight), reduction)


def binary_cross_entropy_with_logits(input, target, weight=None, reduction="mean", pos_weight=None):
    """Cross-entropy of ``sigmoid(input)``, without computing it: no overflow, no lost digits.

    ``pos_weight * target * softplus(-input) + (1 - target) * softplus(input)``, from
    ``-log sigmoid(z) = softplus(-z)`` and ``-log(1 - sigmoid(z)) = softplus(z)``.

    Parameters
    ----------
    input : array_like
        Logits: any real numbers.
    target : array_like
        Of the shape of `input`, from 0 to 1.
    weight : array_like, optional
        Factor of each loss; broadcasts to the shape of `input`.
    reduction : {"mean", "sum", "none"}
    pos_weight : array_like, optional
        Factor of the positive part; broadcasts to the shape of `input`.

    Returns
    -------
    Tensor
        0-d, or with "none" of the shape of `input`.

    Raises
    ------
    ValueError
        When the shapes do not fit or `reduction` is unknown.

    Examples
    --------
    >>> from fastgrad import nn
    >>> nn.binary_cross_entropy_with_logits([1000.0, -1000.0], [0.0, 0.0], reduction="none").numpy()
    array([1000.,    0.])
    """
    name = "binary_cross_entropy_with_logits"
    input, target = operands(name, input, target)
    positive = weigh(name, target * fnp.softplus(-input), pos_weight, "pos_weight")
    losses = positive + (1.0 - target) * fnp.softplus(input)
    return reduce(name, weigh(name, losses, weight), reduction)


def cross_entropy(input, target, weight=None, reduction="mean", label_smoothing=0.0):
    """Cross-entropy of ``softmax(input)`` over classes: ``-log_softmax(input)[target]``, stable for any logits.

    Parameters
    ----------
    input : array_like, shape (N, C) or (C,)
        Logits of C classes.
    target : array_like
        Either class numbers from 0 to C - 1, integers of shape (N,) or (); or class probabilities, floating,
        of the shape of `input`.
    weight : array_like, shape (C,), optional
        Factor of each class. With class numbers "mean" divides by the sum of the factors used, as in PyTorch.
    reduction : {"mean", "sum", "none"}
    label_smoothing : float
        From 0 to 1: how much of the target is spread evenly over all classes (C. Szegedy et al., "Rethinking the
        Inception Architecture", 2016, section 7).

    Returns
    -------
    Tensor
        0-d, or with "none" of shape (N,) or ().

    Raises
    ------
    ValueError
        When the shapes do not fit, `reduction` is unknown or `label_smoothing` is out of range.
    IndexError
        When a class number is negative or not below C.
    TypeError
        When `target` is neither integer nor floating.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgrad as fg
    >>> from fastgrad import nn
    >>> logits = fg.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    >>> loss = nn.cross_entropy(logits, np.array([0, 2]))
    >>> loss.backward()
    >>> logits.grad.numpy().round(3)
    array([[-0.107,  0.053,  0.053],
           [ 0.167,  0.167, -0.333]])
    """
    input, target = as_floating(input), as_operand(target)
    if input.ndim not in (1, 2):
        raise ValueError(
            f"cross_entropy: logits have shape {input.shape}; it takes (N, C) or (C,), "
            f"so move the classes to the last axis and reshape to (-1, C)"
        )
    classes = input.shape[-1]
    if weight is not None:
        weight = as_dtype(as_operand(weight), input.dtype)
        if weight.shape != (classes,):
            raise ValueError(
                f"cross_entropy: weight has shape {weight.shape}, not ({classes},): one factor for each class"
            )
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"cross_entropy: label_smoothing is {label_smoothing!r}, not from 0 to 1")
    if target.dtype.kind in "iu":
        return cross_entropy_of_classes(input, target, weight, reduction, label_smoothing)
    if target.dtype.kind != "f":
        raise TypeError(
            f"cross_entropy: target holds {target.dtype}; it takes integer class numbers or floating probabilities"
        )
    if target.shape != input.shape:
        raise ValueError(
            f"cross_entropy: a floating target holds class probabilities and needs the shape of the logits, "
            f"{input.shape}, not {target.shape}; class numbers must be integers (target.astype(int))"
        )
    target = as_dtype(target, input.dtype)
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / classes
    terms = target * fnp.log_softmax(input, axis=-1)
    return reduce("cross_entropy", -fnp.sum(terms if weight is None else terms * weight, axis=-1), reduction)


def cross_entropy_of_classes(input, labels, weight, reduction, label_smoothing):
    classes = input.shape[-1]
    losses = engine.softmax_cross_entropy(input, labels)
    if weight is None and not label_smoothing:
        return reduce("cross_entropy", losses, reduction)
    factors = None if weight is None else engine.as_operand(weight)[labels]
    if factors is not None:
        losses = losses * factors
    if label_smoothing:
        terms = fnp.log_softmax(input, axis=-1)
        terms = terms if weight is None else terms * weight
        losses = (1.0 - label_smoothing) * losses - (label_smoothing / classes) * fnp.sum(terms, axis=-1)
    if reduction == "mean" and factors is not None:
        return fnp.sum(losses) / fnp.sum(factors)
    return reduce("cross_entropy", losses, reduction)


def as_operand(value):
    """A Tensor as it is, anything else as an array: something with shape, ndim and dtype."""
    return value if isinstance(value, fg.Tensor) else np.asarray(value)


def as_dtype(operand, dtype):
    return operand if operand.dtype == dtype else operand.astype(dtype)


def as_floating(value):
    operand = as_operand(value)
    return operand if operand.dtype.kind == "f" else operand.astype(np.float64)


def operands(name, input, target):
    """Both of one shape and of the input's dtype: float64 or integer labels must not widen a float32 loss."""
    input, target = as_floating(input), as_operand(target)
    if input.shape != target.shape:
        raise ValueError(
            f"{name}: input has shape {input.shape} and target {target.shape}; they must be one shape, "
            f"reshape or broadcast_to one of them"
        )
    return input, as_dtype(target, input.dtype)


def weigh(name, losses, weight, called="weight"):
    if weight is None:
        return losses
    weight = as_operand(weight)
    try:
        fits = np.broadcast_shapes(weight.shape, losses.shape) == losses.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name}: {called} has shape {weight.shape}, which does not broadcast to {losses.shape}")
    return losses * as_dtype(weight, losses.dtype)


def reduce(name, losses, reduction):
    if reduction == "mean":
        return fnp.mean(losses)
    if reduction == "sum":
        return fnp.sum(losses)
    if reduction == "none":
        return losses
    raise ValueError(f'{name}: reduction is {reduction!r}; it takes "mean", "sum" or "none"')
