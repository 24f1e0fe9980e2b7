"""``python -m fastgrad check``: is a derivative that was found by hand right?

    python -m fastgrad check "(x + y) * z" --wrt x --claim "z" x=-2 y=5 z=-4
    python -m fastgrad check "z = w * x + b; p = σ(z); L = (p - y)²" --claim "dL/dw = 2*(p - y)*p*(1 - p)*x" w=1 x=2 b=0 y=1

The function is a formula, or several with names, divided by semicolons; formulas are parsed, and never run as code.  Knows
the command line only; the verdict is that of ``fg.check_derivation``.
"""

import argparse
import inspect
import sys

from fastgrad._core import engine
from fastgrad.learn.derivation import check_derivation
from fastgrad.learn.expressions import parse, parse_values

__all__ = ["function_of_formulas", "main"]


def function_of_formulas(text, names):
    """A function of arguments, whose names are given, from formulas.

    Parameters
    ----------
    text : str
        ``"q = x + y; q * z"``. What has a name is an intermediate of that name; the last one is what is returned.
    names : sequence of str
        Of the arguments.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        If a formula is none, or uses a name before it is there.
    """
    known, statements = list(names), []
    for part in (part.strip() for part in text.split(";")):
        if not part:
            continue
        name, formula = None, part
        head, equals, tail = part.partition("=")
        if equals and head.strip().isidentifier() and not tail.startswith("="):
            name, formula = head.strip(), tail.strip()
            if name in known:
                raise ValueError(f"{name} is there already: give {part!r} another name")
        statements.append((name, parse(formula, known)))
        if name is not None:
            known.append(name)
    if not statements:
        raise ValueError("the function is empty: write a formula, such as \"(x + y) * z\"")

    def f(*args):
        values = dict(zip(names, args))
        for name, formula in statements:
            value = formula(values)
            if name is not None and isinstance(value, engine.Tensor):
                value = engine.mark(value, name)
            values[name] = value
        return value

    f.__signature__ = inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names])
    return f


def _joined(argv):
    """An option and its value as one word, so that a formula may begin with a minus sign."""
    words = iter(argv)
    return [word + "=" + next(words, "") if word in ("--claim", "--wrt", "--of", "--at") else word for word in words]


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(message)


def main(argv=None):
    """Runs the command.

    Parameters
    ----------
    argv : list of str, optional
        What follows ``check``.

    Returns
    -------
    int
        0 if the claim is right, 1 if it is wrong, 2 for input that makes no sense, which is told in one line.
    """
    parser = _Parser(prog="python -m fastgrad check", description="Is a derivative that was found by hand right?",
                     epilog="example: python -m fastgrad check \"q = x + y; f = q * z\" --wrt x --claim \"z\" x=-2 y=5 z=-4")
    parser.add_argument("function", help="a formula, or several with names: \"q = x + y; f = q * z\"")
    parser.add_argument("values", nargs="*", metavar="name=value", help="the point: x=2, W=[[1,2],[3,4]]")
    parser.add_argument("--claim", required=True, help="the derivative that was found: \"z\", or \"df/dx = z\"")
    parser.add_argument("--wrt", help="by what is differentiated; the first argument by default")
    parser.add_argument("--of", help="what is differentiated; the result by default")
    parser.add_argument("--at", choices=["given"], help="compare at the given point only, and not at random ones too")
    try:
        given = parser.parse_intermixed_args(_joined(sys.argv[1:] if argv is None else argv))
        values = parse_values(given.values)
        if not values:
            raise ValueError("no values: write them as x=2 after the function")
        function = function_of_formulas(given.function, list(values))
        verdict = check_derivation(given.claim, function, *values.values(), wrt=given.wrt, of=given.of, at=given.at)
    except (ValueError, TypeError, RuntimeError) as error:
        print(f"check: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(verdict)
    return 0 if verdict else 1


if __name__ == "__main__":
    sys.exit(main())
