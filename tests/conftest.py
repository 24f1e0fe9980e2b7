"""With FASTGRAD_COMPILED=1 the transforms that tests call are compiled too, and compared.

``fg.grad(f)(x)`` then answers as ever, and besides: a compiled twin is recorded on other numbers of the same shapes,
replayed on x, and must give the same.  Where a call cannot be compiled it is left alone: under another transform or a
trace, where f reads numbers (the TypeError says so), where an argument or the answer is being differentiated, and where
the twin warns that it runs uncompiled.  ``LEFT_OUT`` names the tests whose subject is what a call does besides its
answer: how often f runs, what is on the tape, what memory it takes.
"""

import os
import warnings

import numpy as np
import pytest

LEFT_OUT = {
    "test_main.py": "runs the demonstration in a process of its own",
    "test_docs.py": "runs the documents",
    "test_random_programs.py": "has its own compiled twins",
    "test_compile.py": "compiles by itself",
    "test_vmap.py": "is compiled in test_vmap.py",
    "test_contract_35_an_argument_that_changes_after_it_was_recorded": "changes its arguments while it runs",
    "test_a_compiled_function_runs_as_python": "compiles by itself",
    "test_a_user_object_in_a_cycle_frees_its_graph_when_gc_finds_it": "counts nodes",
    "test_contract_42_transforms_leave_nothing_to_gc": "counts objects",
}
TRANSFORMS = ("grad", "value_and_grad", "jacobian", "jacrev", "jacfwd", "hessian")
REFUSALS = ("records a function", "cannot record", "random numbers", "recorded outside of it")
counts = {"compared": 0, "uncompiled": 0, "refused": 0}


def moved(tree):
    """The same tree with other numbers in its floats."""
    import fastgrad as fg

    def move(leaf):
        if type(leaf) is float or isinstance(leaf, (np.float64, np.float32)):
            return type(leaf)(leaf * 0.875 + 0.0625)
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f":
            return (leaf * leaf.dtype.type(0.875) + leaf.dtype.type(0.0625)).astype(leaf.dtype)
        if isinstance(leaf, fg.Tensor) and leaf.dtype.kind == "f":
            return fg.tensor(move(leaf.detach().numpy()))
        return leaf

    return fg.tree_map(move, tree)


def agree(ours, theirs):
    import fastgrad as fg
    from fastgrad.tree import tree_flatten

    a, structure = tree_flatten(ours)
    b, expected = tree_flatten(theirs)
    assert structure == expected
    for x, y in zip(a, b):
        x, y = (v.detach().numpy() if isinstance(v, fg.Tensor) else np.asarray(v) for v in (x, y))
        assert x.shape == y.shape and x.dtype == y.dtype, (x.shape, x.dtype, y.shape, y.dtype)
        if x.dtype.kind != "f":
            assert np.array_equal(x, y)
            continue
        with np.errstate(all="ignore"):
            size = np.max(np.abs(y), initial=0, where=np.isfinite(y))
            right = (x == y) | (np.abs(x - y) <= 64 * np.spacing(size.astype(y.dtype))) | (np.isnan(x) & np.isnan(y))
        assert right.all(), (x, y)


def compare(run, arguments, answer):
    """Holds the compiled run(*arguments) against an answer of it."""
    import fastgrad as fg
    from fastgrad._core import engine
    from fastgrad.tree import tree_flatten

    leaves = tree_flatten((arguments, answer))[0]
    if engine.tracing() or engine.recording_outside() or any(isinstance(v, fg.Tensor) and v.requires_grad for v in leaves):
        return
    twin = fg.compile(run)
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            twin(*moved(arguments))
        except Exception:
            pass                # other numbers may not be in the function's domain
        try:
            answers = twin(*arguments), twin(*arguments)
        except (TypeError, RuntimeError) as error:
            if not any(said in str(error) for said in REFUSALS):
                raise
            counts["refused"] += 1
            return
    if any("runs uncompiled" in str(w.message) for w in caught):
        counts["uncompiled"] += 1
        return
    counts["compared"] += 1
    for found in answers:
        agree(found, answer)


def compared(transform):
    def make(*given, **options):
        function = transform(*given, **options)

        def call(*arguments, **keywords):
            answer = function(*arguments, **keywords)
            compare(lambda *a: function(*a, **keywords), arguments, answer)
            return answer

        call.__name__, call.__doc__, call.__wrapped__ = function.__name__, function.__doc__, function
        return call

    return make


def compared_at_once(transform):
    def call(function, *arguments, **options):
        answer = transform(function, *arguments, **options)
        compare(lambda *a: transform(function, *a, **options), arguments, answer)
        return answer

    return call


def compared_vjp(transform):
    def call(function, *primals, **options):
        answer = transform(function, *primals, **options)
        pull = answer[1]

        def compared_pull(cotangent):
            found = pull(cotangent)
            compare(lambda p, c: transform(function, *p, **options)[1](c), (primals, cotangent), found)
            return found

        return (answer[0], compared_pull) + answer[2:]

    return call


@pytest.fixture(autouse=bool(os.environ.get("FASTGRAD_COMPILED")))
def compiled_twins(request, monkeypatch):
    import fastgrad as fg

    if {request.node.path.name, request.node.name, request.node.originalname} & set(LEFT_OUT):
        return
    for name in TRANSFORMS:
        monkeypatch.setattr(fg, name, compared(getattr(fg, name)))
    for name in ("jvp", "hvp"):
        monkeypatch.setattr(fg, name, compared_at_once(getattr(fg, name)))
    monkeypatch.setattr(fg, "vjp", compared_vjp(fg.vjp))


def pytest_terminal_summary(terminalreporter):
    if os.environ.get("FASTGRAD_COMPILED"):
        terminalreporter.write_line("compiled twins: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
