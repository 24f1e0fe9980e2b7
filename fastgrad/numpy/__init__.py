"""NumPy's names for Tensors.

Elementwise operations come from the table, the hot structured ones from the engine; the others live here, a module a
family, each operation next to its derivative.  ``np.f(tensor)`` leads to the same functions.

Left out: what has complex results, the family of ``numpy.fft`` and ``numpy.linalg.eig``.
"""

import numpy as _np

from fastgrad._core import engine as _engine
from fastgrad._core.engine import (  # noqa: F401
    Tensor, broadcast_to, copy, dot, expand_dims, log_softmax, logsumexp, matmul, max, mean, min, moveaxis, reshape,
    softmax, squeeze, sum, swapaxes, transpose,
)
from fastgrad.numpy.creation import *  # noqa: F401,F403
from fastgrad.numpy.creation import __all__ as _creation_names
from fastgrad.numpy.indexing import _gather, _scatter, gather, scatter_add, set_item
from fastgrad.numpy.joining import _concatenate, concatenate, ravel, stack
from fastgrad.numpy.methods import methods as _methods, ufunc_other as _ufunc_other
from fastgrad.numpy.reductions import prod
from fastgrad.numpy.rounding import around, clip, round, where
from fastgrad.numpy.scans import *  # noqa: F401,F403
from fastgrad.numpy.scans import __all__ as _scans_names
from fastgrad.numpy.sorting import *  # noqa: F401,F403
from fastgrad.numpy.sorting import __all__ as _sorting_names
from fastgrad.numpy.statistics import *  # noqa: F401,F403
from fastgrad.numpy.statistics import __all__ as _statistics_names
from fastgrad.numpy.shapes import *  # noqa: F401,F403
from fastgrad.numpy.shapes import __all__ as _shapes_names
from fastgrad.numpy.parts import *  # noqa: F401,F403
from fastgrad.numpy.parts import __all__ as _parts_names
from fastgrad.numpy.picking import *  # noqa: F401,F403
from fastgrad.numpy.picking import __all__ as _picking_names
from fastgrad.numpy.diagonals import *  # noqa: F401,F403
from fastgrad.numpy.diagonals import __all__ as _diagonals_names
from fastgrad.numpy.products import *  # noqa: F401,F403
from fastgrad.numpy.products import __all__ as _product_names
from fastgrad.numpy import linalg
from fastgrad.numpy.approximation import *  # noqa: F401,F403
from fastgrad.numpy.approximation import __all__ as _approximation_names

_ELEMENTARY = [name for name in _engine.NAMES if name and name not in ("where", "clip")]
for _name in _ELEMENTARY:
    globals()[_name] = getattr(_engine, _name)
abs = _engine.absolute
remainder = _engine.mod
true_divide = _engine.divide
fabs = _engine.absolute
fix = _engine.trunc
conj = conjugate = real = _engine.positive
amax, amin = max, min
permute_dims = transpose
acos, acosh, asin, asinh, atan, atanh, atan2 = (
    _engine.arccos, _engine.arccosh, _engine.arcsin, _engine.arcsinh, _engine.arctan, _engine.arctanh, _engine.arctan2)
degrees, radians = _engine.rad2deg, _engine.deg2rad
pow = _engine.power
concat = concatenate
pi, e, inf, nan, newaxis = _np.pi, _np.e, _np.inf, _np.nan, None
float32, float64, int32, int64, bool_ = _np.float32, _np.float64, _np.int32, _np.int64, _np.bool_

_STRUCTURED = [
    "sum", "mean", "prod", "max", "min", "amax", "amin", "reshape", "ravel", "squeeze", "expand_dims", "transpose",
    "swapaxes", "moveaxis", "broadcast_to", "concatenate", "stack", "matmul", "dot", "copy", "clip", "where",
    "round", "around", "real", "sinc",
]
_ACTIVATIONS = ["logsumexp", "softmax", "log_softmax"]
_ALIASES = ["abs", "remainder", "true_divide", "fabs", "fix", "conj", "conjugate", "permute_dims", "acos", "acosh",
            "asin", "asinh", "atan", "atanh", "atan2", "degrees", "radians", "pow", "concat"]
_FAMILIES = [*_creation_names, *_scans_names, *_sorting_names, *_statistics_names, *_shapes_names, *_parts_names, *_picking_names,
             *_diagonals_names, *_product_names, *_approximation_names]
_CONSTANTS = ["pi", "e", "inf", "nan", "newaxis", "float32", "float64", "int32", "int64", "bool_"]
__all__ = sorted({*_ELEMENTARY, *_STRUCTURED, *_ACTIVATIONS, *_ALIASES, *_CONSTANTS, *_FAMILIES, "linalg"})


def _functions():
    """NumPy's functions that are no ufuncs -> ours, for ``__array_function__``."""
    found = {}
    for name in [*_STRUCTURED, *_FAMILIES, "conj", "fix", "permute_dims", "concat", "pow"]:
        theirs = getattr(_np, name, None)
        if callable(theirs) and not isinstance(theirs, (_np.ufunc, type)):
            found[theirs] = globals()[name]
    found.update(linalg.functions())
    # What they answer is no number that could carry a gradient.
    found[_np.shape] = lambda a: a.shape
    found[_np.ndim] = lambda a: a.ndim
    found[_np.size] = lambda a, axis=None: a.size if axis is None else a.shape[axis]
    return found


for _alias in ("fabs", "conjugate", "remainder", "degrees", "radians"):
    _engine.UFUNCS[_alias] = globals()[_alias]
for _gufunc in ("vecdot", "matvec", "vecmat"):
    _engine.UFUNCS[_gufunc] = globals()[_gufunc]
_engine.install(gather=gather, scatter_add=scatter_add, set_item=set_item, stack=stack, prod=prod, clip=clip,
                round=round, ravel=ravel, ufunc_other=_ufunc_other, functions=_functions(),
                native={_concatenate: "concatenate", _gather: "getitem", _scatter: "scatter_add"})
_engine.add_methods(_methods({_name: globals()[_name] for _name in __all__}))


def __dir__():
    return __all__
