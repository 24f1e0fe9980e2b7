"""Layers, losses and initialisers: thin Python over `fastgrad.numpy`, with PyTorch's names and defaults."""

from . import init
from .layers import Linear, ModuleList, ReLU, Sequential, Sigmoid, Tanh
from .losses import binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy, mse_loss
from .module import Module, Parameter

__all__ = [
    "Linear",
    "Module",
    "ModuleList",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "init",
    "mse_loss",
]
