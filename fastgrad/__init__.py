"""Gradients at compiled speed from Python, with nothing but NumPy.

Write an ordinary NumPy-looking function; fastgrad records it on a flat tape in C memory and sweeps the tape backwards
in compiled loops.

>>> import fastgrad as fg
>>> import numpy as np
>>> fg.grad(lambda x: np.sum(np.tanh(x) ** 2))(np.zeros(3))
array([0., 0., 0.])
"""

try:
    from fastgrad._core.engine import (
        Program, Tensor, TapeView as Tape, enable_grad, get_num_threads, no_grad, set_num_threads, tensor,
    )
except ImportError as error:
    if "fastgrad" in str(error):
        raise ImportError(
            "fastgrad's compiled engine is missing or was built for another Python: install the package with "
            "`pip install .` in the checkout (it needs a C compiler), and do not import it from the source folder"
        ) from error
    raise

from fastgrad import nn, numpy, optim, special, testing
from fastgrad._core import engine as _engine
from fastgrad.transforms import (
    ProgramFormatError, checkpoint, compile, custom_jvp, custom_vjp, grad, hessian, hvp, jacfwd, jacobian, jacrev, jvp, linearize,
    load_program, ravel_pytree, remat, stop_gradient, value_and_grad, vjp, vmap,
)
from fastgrad.tree import (
    register_pytree_node, register_pytree_node_class, tree_flatten, tree_leaves, tree_map, tree_unflatten,
)

__version__ = "0.1.0"

__all__ = ["ProgramFormatError", "Tape", "Tensor", "check_derivation", "checkpoint", "compile", "custom_jvp",
           "custom_vjp", "detect_anomaly", "draw", "enable_grad", "explain", "get_num_threads", "grad", "hessian",
           "hvp", "jacfwd", "jacobian", "jacrev", "jvp", "learn", "linearize", "load_program", "mark", "names", "nn",
           "no_grad", "numpy", "optim", "ravel_pytree", "register_pytree_node", "register_pytree_node_class", "remat",
           "set_num_threads", "special", "stop_gradient", "tensor", "testing", "tree_flatten", "tree_leaves",
           "tree_map", "tree_unflatten", "value_and_grad", "vjp", "vmap"]

# fastgrad.learn is imported when one of its names is asked for: who only computes does not wait for it.
_FROM_LEARN = ("check_derivation", "detect_anomaly", "draw", "explain", "mark", "names")


def __getattr__(name):
    if name != "learn" and name not in _FROM_LEARN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import fastgrad.learn as learn

    globals().update({each: getattr(learn, each) for each in _FROM_LEARN})
    return globals()[name] if name in _FROM_LEARN else learn


def __dir__():
    return sorted({*globals(), *__all__})


_engine.install(place=lambda: __getattr__("learn").places.here())        # until fastgrad.learn installs its own
