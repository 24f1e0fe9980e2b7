"""Which variables of the user hold the values of a graph: the names that ``fg.explain`` and ``fg.draw`` call them by."""

import inspect

import numpy as np

from fastgrad._core import engine
from fastgrad.learn.places import paths_of
from fastgrad.nn import Module
from fastgrad.tree import tree_flatten

__all__ = ["name_after", "variables"]


def variables(frame, function=None):
    """What variables hold in a frame, and in a function: a list of (name, value) of Tensors, arrays and Modules."""
    return list(_held(frame, function))


def name_after(graph, found):
    """Gives the values of a graph the names of the variables that hold them."""
    graph.name((name, value) for name, value in found if isinstance(value, engine.Tensor))
    graph.name_constants((name, value) for name, value in found if isinstance(value, np.ndarray) and value.size > 1
                         and value.dtype.kind in "fiub")


def _held(frame, function):
    spaces = [frame.f_locals, frame.f_globals]
    code = getattr(function, "__code__", None)
    if code is not None:
        cells = getattr(function, "__closure__", None) or ()
        filled = [(name, cell) for name, cell in zip(code.co_freevars, cells)]
        spaces.insert(0, {name: cell.cell_contents for name, cell in filled if _is_filled(cell)})
        spaces.append({name: function.__globals__[name] for name in code.co_names if name in function.__globals__})
    owner = getattr(function, "__self__", None)
    if owner is not None and not inspect.ismodule(owner):
        spaces.insert(0, vars(owner) if hasattr(owner, "__dict__") else {})
    for space in spaces:
        held = [(name, value) for name, value in space.items() if not name.startswith("_")]
        for name, value in held:
            if isinstance(value, (engine.Tensor, np.ndarray)):
                yield name, value
            elif isinstance(value, Module):
                yield name, value
                for path, parameter in value.named_parameters():
                    yield f"{name}.{path}", parameter
        for name, value in held:
            if type(value) in (dict, list, tuple) and 0 < len(value) <= 100 and name not in ("In", "Out"):      # a notebook's
                for path, part in zip(*_parts(name, value)):
                    if isinstance(part, engine.Tensor):
                        yield path, part
    if isinstance(function, Module):
        yield "model", function
        for path, parameter in function.named_parameters():
            yield path if not path[0].isdigit() else f"model.{path}", parameter


def _is_filled(cell):
    try:
        cell.cell_contents
    except ValueError:
        return False
    return True


def _parts(name, tree):
    """Names and leaves of a small tree; nothing where it is no tree of Tensors."""
    try:
        leaves = tree_flatten(tree)[0]
        names = paths_of(tree, name)
    except (TypeError, ValueError, RecursionError):
        return [], []
    return (names, leaves) if len(names) == len(leaves) else ([], [])
