"""Every public name is documented, and every example in the documentation runs."""

import doctest
import inspect
import re
from pathlib import Path

import pytest

import fastgrad as fg
import fastgrad.learn
import fastgrad.learn.formulas
import fastgrad.nn
import fastgrad.numpy
import fastgrad.numpy.linalg
import fastgrad.optim
import fastgrad.special
import fastgrad.testing
import fastgrad.transforms
import fastgrad.tree

MODULES = [fg, fastgrad.numpy, fastgrad.transforms, fastgrad.nn, fastgrad.optim, fastgrad.tree, fastgrad.learn,
           fastgrad.learn.formulas, fastgrad.numpy.linalg, fastgrad.special, fastgrad.testing]


def public_names(module):
    names = getattr(module, "__all__", None)
    if names is None:
        names = [n for n, v in vars(module).items()
                 if not n.startswith("_") and getattr(v, "__module__", None) == module.__name__]
    return names


def collect():
    """What a user can name: functions, classes and the methods that classes define, each once."""
    found, seen = {}, set()

    def add(name, thing):
        if id(thing) not in seen:
            seen.add(id(thing))
            found[name] = thing

    for module in MODULES:
        for name in public_names(module):
            thing = getattr(module, name)
            full = f"{module.__name__}.{name}"
            if inspect.ismodule(thing) or not callable(thing):
                continue
            if isinstance(thing, type) and not thing.__module__.startswith("fastgrad"):
                continue  # NumPy's dtypes
            add(full, thing)
            if isinstance(thing, type):
                for method, value in vars(thing).items():
                    if inspect.ismemberdescriptor(value) or type(value).__name__ == "_tuplegetter":
                        continue    # the class says what its attributes are
                    if not method.startswith("_") and (inspect.isroutine(value) or inspect.isdatadescriptor(value)):
                        add(f"{full}.{method}", value)
    return found


PUBLIC = collect()
WITH_EXAMPLES = {name: thing for name, thing in PUBLIC.items() if ">>>" in (getattr(thing, "__doc__", None) or "")}
ROWS = set(fastgrad._core.engine.UFUNCS_BY_NAME)


def text_of(thing):
    """The docstring without the signature that Cython puts on its first line."""
    text = inspect.getdoc(thing) or ""  # a method's own, or that of the method it overrides
    first, _, rest = text.partition("\n")
    return rest.strip() if re.match(r"\w+\(.*\)", first) and rest else text


def run(name, text, context=None):
    example = doctest.DocTestParser().get_doctest(text, context or {}, name, None, 0)
    report = []
    failed = doctest.DocTestRunner(verbose=False).run(example, out=report.append).failed
    assert failed == 0, "".join(report)


def test_the_public_names_are_found():
    for name in ("fastgrad.grad", "fastgrad.tensor", "fastgrad.numpy.sin", "fastgrad.nn.Linear", "fastgrad.optim.Adam",
                 "fastgrad.Tensor", "fastgrad.Tensor.backward", "fastgrad.tree_map"):
        assert name in PUBLIC
    assert len(WITH_EXAMPLES) > 80


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_a_public_list_names_what_exists(module):
    names = public_names(module)
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(module, name)


@pytest.mark.parametrize("name", list(PUBLIC))
def test_a_public_name_has_a_docstring_with_a_summary(name):
    text = text_of(PUBLIC[name])
    assert text, f"{name} has no docstring"
    summary = text.split("\n\n")[0]
    assert summary.rstrip().endswith((".", ":")), f"{name}: its summary is no sentence: {summary!r}"
    assert len(summary.splitlines()) <= 3


@pytest.mark.parametrize("name", [n for n, t in PUBLIC.items() if n.count(".") == 2 and n.startswith("fastgrad.numpy.")])
def test_a_function_of_arrays_says_what_it_takes_and_gives(name):
    text = text_of(PUBLIC[name])
    if "with the arguments of ``numpy." in text or len(text.splitlines()) == 1:
        pytest.skip("refers to NumPy's, or one line")
    assert re.search(r"^Parameters\n-{10}$", text, re.M)
    assert re.search(r"^(Returns|Yields)\n-+$", text, re.M)


@pytest.mark.parametrize("name", list(WITH_EXAMPLES))
def test_the_examples_run(name):
    run(name, WITH_EXAMPLES[name].__doc__)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_a_module_says_what_it_is_and_its_examples_run(module):
    assert module.__doc__ and module.__doc__.strip()
    run(module.__name__, module.__doc__)


MAIN = ["grad", "value_and_grad", "vjp", "jvp", "linearize", "jacrev", "jacfwd", "jacobian", "hessian", "hvp", "tensor",
        "no_grad", "enable_grad", "Tape", "tree_map", "vmap", "explain"]


@pytest.mark.parametrize("name", MAIN)
def test_the_main_functions_have_an_example(name):
    assert ">>>" in getattr(fg, name).__doc__


@pytest.mark.parametrize("name", sorted(ROWS))
def test_an_elementary_function_states_its_derivative(name):
    notes = fastgrad._core.engine.UFUNCS_BY_NAME[name].__doc__.split("Notes")[1]
    assert re.search(r"d/d\w+ = ``.+``", notes) or "Carries no gradient." in notes


def test_documents_outside_the_code_run():
    root = Path(__file__).resolve().parent.parent
    pages = [p for p in [root / "README.md", *sorted((root / "docs").glob("*.md"))] if p.exists()]
    context = {}
    for page in pages:
        if ">>>" in page.read_text():
            text = re.sub(r"^```.*$", "", page.read_text(), flags=re.M)
            run(page.name, text, context)
