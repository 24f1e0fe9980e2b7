"""``python -m fastgrad explain "(x + y) * z" x=-2 y=5 z=-4``: explains a formula at numbers."""

import argparse
import ast
import sys
import warnings

import numpy as np

from fastgrad.learn import expressions
from fastgrad.learn.explain import FORMATS, Explanation
from fastgrad.learn.graph import Graph

__all__ = ["main"]

MOST_CHARACTERS = 100_000
HELP = """examples:
  python -m fastgrad explain "(x + y) * z" x=-2 y=5 z=-4
  python -m fastgrad explain "sum(tanh(W @ x)**2)" W=[[1,2],[3,4]] x=[0.1,-0.2] --order
  python -m fastgrad explain "sigmoid(w * x + b)" w=2 x=-1 b=0.5 --format latex
"""


class _Parser(argparse.ArgumentParser):
    """Errors are one line."""

    def error(self, message):
        raise ValueError(message)


def main(argv, out=None):
    """Runs the command.

    Parameters
    ----------
    argv : list of str
        What stands after ``explain``.
    out : file, optional
        Standard output by default.

    Returns
    -------
    int
        The exit code: 0, or 2 after one line on standard error that says what is wrong with the input.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")         # Python's own, about a formula that is refused anyway
            told = _explained(argv)
    except Exception as error:          # whatever a formula may lead to: it is input
        line = " ".join(str(error).split()) or type(error).__name__
        print(f"fastgrad explain: {line}", file=sys.stderr)
        return 2
    print(told, file=out or sys.stdout)
    return 0


def _explained(argv):
    parser = _Parser(prog="python -m fastgrad explain", description="Explains the gradients of a formula, step by step.", epilog=HELP,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formula", help='such as "(x + y) * z"; has + - * / ** @, comparisons, functions and names')
    parser.add_argument("values", nargs="*", metavar="name=value", help="a number, or a list such as x=[1,2]")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--digits", type=int, default=5, help="significant digits (default: 5)")
    parser.add_argument("--depth", type=int, default=None, help="0: the arguments and the result alone")
    parser.add_argument("--order", action="store_true", help="why the values are visited in this order")
    # "-x * y" is a formula, and no option
    words = [" " + word if word[:1] == "-" and word[:2] != "--" and word != "-h" else word for word in argv]
    options = parser.parse_intermixed_args(words)
    if not 1 <= options.digits <= 17:
        raise ValueError(f"--digits {options.digits}: a whole number from 1 to 17")
    if options.depth is not None and options.depth < 0:
        raise ValueError(f"--depth {options.depth}: a whole number from 0 on")
    values = {}
    for given in options.values:
        name, value = _value(given.strip())
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = value
    formula = expressions.parse(options.formula.strip(), values)
    unused = [name for name in values if name not in formula.names]
    if unused:
        raise ValueError(f"{options.formula.strip()!r} does not use {', '.join(unused)}")
    if not values:
        raise ValueError(f"{options.formula.strip()!r} has no variable, and so no gradient; write x and add x=2")
    def computed(given):
        return _result(formula, given)

    computed.__name__ = repr(formula.text)
    with np.errstate(all="ignore"):
        graph = Graph.run(computed, values)
        for step in graph.steps:        # the lines are not the reader's, nor are their variables
            step.place = None
            step.name = step.name.removeprefix("given['").removesuffix("']") if step.is_source and step.name else None
        graph.name_output("out")
        return str(Explanation(graph, options.format, options.digits, options.depth, options.order))


def _result(formula, values):
    result = formula(values)
    if isinstance(result, (list, tuple)):
        raise ValueError(f"{formula.text!r} is a list; one number or array is explained: sum(...) makes one of it")
    return result


def _value(text):
    """(name, number or array) of ``x=[1, 2]``."""
    name, sign, value = text.partition("=")
    name = name.strip()
    if not sign or not name:
        raise ValueError(f"{text!r} is no name=value; write it as x=2 or x=[1,2]")
    if not name.isidentifier() or name in expressions.CONSTANTS or name in expressions.FUNCTIONS:
        raise ValueError(f"{name!r} cannot be the name of a value")
    if len(value) > MOST_CHARACTERS:
        raise ValueError(f"{name} has {len(value)} characters; at most {MOST_CHARACTERS} are read")
    try:
        read = float(value)
    except ValueError:
        try:
            read = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            raise ValueError(f"{name}={value}: neither a number nor a list of numbers such as [1,2]") from None
    try:
        array = np.array(read)
    except (ValueError, TypeError):
        raise ValueError(f"{name}={value}: rows of different lengths") from None
    if array.dtype.kind not in "fiu" or isinstance(read, (dict, set, str)):
        raise ValueError(f"{name}={value}: neither a number nor a list of numbers such as [1,2]")
    return name, float(read) if array.ndim == 0 else array.astype(float)
