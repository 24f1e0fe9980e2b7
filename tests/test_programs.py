"""Programs as objects: calls, out=, explain, files, C functions, threads."""

import ctypes
import gc
import io
import json
import pickle
import random
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import engine
from fastgrad.transforms import programs
from fastgrad.tree import tree_flatten

ROOT = Path(__file__).resolve().parent.parent
RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(3, 4)), RNG.normal(size=4)


def loss(x, p):
    return np.sum(np.tanh(x @ p["w"] + p["b"]) ** 2)


P = {"w": RNG.normal(size=(4, 2)), "b": RNG.normal(size=2)}


def make():
    return fg.compile(fg.value_and_grad(loss, argnums=(0, 1)))


def equal(a, b):
    (a, structure), (b, other) = tree_flatten(a), tree_flatten(b)
    assert structure == other
    for x, y in zip(a, b):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


# ------------------------------------------------------------------------------------------- what the planner got wrong


@pytest.mark.parametrize("function", [
    lambda x: fnp.softmax(x.T), lambda x: fnp.logsumexp(x.T, axis=-1), lambda x: fnp.log_softmax(fnp.broadcast_to(x, (2, 3, 4))),
    fg.grad(lambda x: np.sum(np.max(x.T, axis=-1) ** 2)), fg.grad(lambda x: np.sum(x[1:, ::2].T * np.arange(4.0).reshape(2, 2))),
    fg.grad(lambda x: np.sum(fnp.logsumexp(x.T, axis=-1) ** 2)), lambda x: engine.softmax_cross_entropy(x.T, np.array([0, 2, 1, 0])),
    fg.grad(lambda x: np.sum(engine.softmax_cross_entropy(x.T, np.array([0, 2, 1, 0])) ** 2))])
def test_views_go_to_kernels_over_rows_as_copies(function):
    compiled = fg.compile(function)
    compiled(X + 1.0)
    np.testing.assert_allclose(compiled(X), fg.tensor(function(X)).numpy(), rtol=1e-13)
    assert compiled.recordings == 1


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("floats", ["float64", "float32"])
def test_integers_beside_floats(dtype, floats):
    function = fg.compile(lambda x, n: x * n + n[::-1])
    x, n = Y.astype(floats), np.arange(4, dtype=dtype)
    for _ in range(2):
        result = function(x, n)
        assert result.dtype == (x * n).dtype
        np.testing.assert_allclose(result, x * n + n[::-1], rtol=1e-6)


def test_a_gradient_beside_integers():
    function = fg.compile(fg.grad(lambda x, n: np.sum(x ** n)))
    for n in ([1, 2, 3, 4], [2, 2, 0, 1]):
        np.testing.assert_allclose(function(np.abs(Y), np.array(n)), n * np.abs(Y) ** (np.array(n) - 1.0))


def test_a_guard_on_integers_looks_at_all_bytes():
    function = fg.compile(lambda x, n: x * 2 if n else x)
    for n in (256, 0, 1 << 40, 1):
        assert function(3.0, np.array(n)) == (6.0 if n else 3.0)


@pytest.mark.parametrize("labels", [[0, 4, 1], [0, -1, 1], [1 << 40, 0, 0]])
@pytest.mark.parametrize("function", [lambda x, n: engine.softmax_cross_entropy(x, n), fg.grad(
    lambda x, n: np.sum(engine.softmax_cross_entropy(x, n)))])
def test_class_numbers_out_of_range_are_an_index_error_at_each_replay(function, labels):
    compiled = fg.compile(function)
    good = np.array([0, 3, 1])
    first = compiled(X, good)
    for _ in range(2):
        with pytest.raises(IndexError, match=r"class numbers go from 0 to 3, not from .* to"):
            compiled(X, np.array(labels))
        np.testing.assert_array_equal(compiled(X, good), first)
    with pytest.raises(IndexError):
        compiled.program(X, good)(X, np.array(labels))


# ----------------------------------------------------------------------------------------------------------------- calls


def test_a_program_returns_the_tree_of_the_function():
    function = make()
    program = function.program(X, P)
    equal(program(X, P), function(X, P))
    equal(program(2 * X, P), function(2 * X, P))
    assert isinstance(program(X, P)[0], np.float64)
    assert function.program(X, P) is program


def test_tensors_in_tensors_out():
    program = fg.compile(lambda x: {"a": x * 2, "b": (x, [np.sum(x)])}).program(fg.tensor(X))
    result = program(fg.tensor(X))
    assert type(result["a"]) is fg.Tensor and type(result["b"][1][0]) is fg.Tensor
    np.testing.assert_array_equal(result["a"].numpy(), 2 * X)


def test_keywords_statics_and_constants():
    function = fg.compile(lambda x, n, *, scale, mode="a": (x * scale, n, mode, None), static_argnums=1)
    program = function.program(X, 3, scale=2.0)
    equal(program(X, 3, scale=4.0)[0], X * 4.0)
    assert program(X, 3, scale=4.0)[1:] == (3, "a", None)
    with pytest.raises(ValueError, match="argument 1 is 4, and was recorded as 3"):
        program(X, 4, scale=2.0)
    with pytest.raises(ValueError, match="recorded for other arguments"):
        program(X, 3, scale=2.0, mode="a")


@pytest.mark.parametrize("arguments, text", [
    ((X[:2], P), r"argument 0 has shape \(2, 4\), and was recorded with shape \(3, 4\)"),
    ((X.astype("f"), P), "argument 0 has dtype float32, and was recorded with dtype float64"),
    ((X, {"w": P["w"]}), r"recorded for other arguments: .*\{'w': \*, 'b': \*\}"),
    ((X, {**P, "b": np.zeros(3)}), r"argument 1\['b'\] has shape \(3,\)"),
    ((fg.tensor(X), P), "argument 0 is a Tensor, and was recorded as an array"),
    ((1.0, P), "argument 0 is a number, and was recorded as an array"),
    ((1, P), "argument 0 is 1, and was recorded as"),
    ((X,), "recorded for other arguments")])
def test_a_call_that_does_not_fit_says_what_differs(arguments, text):
    program = make().program(X, P)
    with pytest.raises(ValueError, match=text + r".*fg\.compile made records again"):
        program(*arguments)
    with pytest.raises(ValueError, match=text):
        pickle.loads(pickle.dumps(program))(*arguments)


def test_a_plain_call_that_does_not_fit_says_so_too():
    program = fg.compile(lambda x, y: x * y).program(X, 2.0)
    for arguments, text in [((X[0], 2.0), "argument 0 has shape"), ((X, X), "argument 1 is an array"), ((X,), "other arguments"),
                            ((X, 2), "argument 1 is 2")]:
        with pytest.raises(ValueError, match=text):
            program(*arguments)
    equal(program(X, 3.0), X * 3.0)
    equal(program(X, np.float64(3.0)), X * 3.0)


def test_a_guard_that_fails_is_named():
    program = fg.compile(lambda x: x * 2 if x > 0 else x).program(1.0)
    assert program(2.0) == 4.0
    with pytest.raises(ValueError, match=r"a guard failed: bool\(greater\(argument 0, 0.0\)\) was True when"):
        program(-1.0)
    assert program(2.0) == 4.0 and program.refused == 1


def test_a_program_refuses_what_would_lose_a_gradient():
    program = fg.compile(lambda x: x * 2).program(fg.tensor(1.0))
    x = fg.tensor(1.0, requires_grad=True)
    for argument in (x, x * 1.0):
        with pytest.raises((TypeError, ValueError), match="being differentiated|requires_grad"):
            program(argument)
    with fg.no_grad():
        assert program(x * 1.0).item() == 2.0
    with pytest.raises(TypeError, match="while fg.compile or fg.vmap records"):
        fg.compile(lambda x: program(x))(fg.tensor(1.0))


def test_a_program_reads_tensors_from_outside_at_each_call_and_keeps_no_argument_alive():
    import weakref
    w, x = fg.tensor([1.0, 2.0, 3.0, 4.0]), fg.tensor(X)
    program = fg.compile(lambda x: x @ w).program(x)
    before = program(fg.tensor(X)).numpy()
    w *= 2.0
    np.testing.assert_allclose(program(fg.tensor(X)).numpy(), 2 * before)
    assert not hasattr(program, "signature")
    big = np.zeros(1000)
    seen = weakref.ref(big)
    kept = fg.compile(lambda x: x * 2).program(big)
    del big
    gc.collect()
    assert seen() is None and kept is not None


# ------------------------------------------------------------------------------------------------------------------ out=


def rooms(result):
    if isinstance(result, tuple):
        return tuple(rooms(r) for r in result)
    if isinstance(result, dict):
        return {key: rooms(r) for key, r in result.items()}
    return np.full_like(np.asarray(result), 7)


@pytest.mark.parametrize("call", [lambda f: f, lambda f: f.program(X, P), lambda f: pickle.loads(pickle.dumps(f.program(X, P)))])
def test_out_is_filled_and_returned(call):
    function = make()
    function(X, P)
    wanted = function(X, P)
    out = rooms(wanted)
    for _ in range(2):
        assert call(function)(X, P, out=out) is out
        equal(out, wanted)


def test_out_of_the_first_call_which_records():
    out = np.zeros(())
    assert fg.compile(lambda x: np.sum(x))(X, out=out) is out and out == np.sum(fg.tensor(X)).item()


@pytest.mark.parametrize("n", [3, 100000])
def test_a_call_with_out_allocates_no_array(n):
    program = fg.compile(fg.value_and_grad(lambda x: np.sum(np.exp(x) * x[::-1]))).program(np.zeros(n))
    x, out = np.linspace(0, 1, n), (np.array(0.0), np.zeros(n))
    program(x, out=out)
    import tracemalloc
    tracemalloc.start()
    for _ in range(3):
        before = engine.tape_statistics()["array_bytes"]
        program(x, out=out)
        assert engine.tape_statistics()["array_bytes"] == before
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20000


@pytest.mark.parametrize("bad, text", [
    ((np.zeros(1), np.zeros(4)), r"result 0 has shape \(1,\)"), ((np.zeros(()), np.zeros(4, "f")), "dtype float32"),
    ((np.zeros(()), np.zeros(8)[::2]), "C-contiguous"), ((np.zeros(()), np.zeros(4, ">f8")), "native"),
    (np.zeros(4), "no tree like the result"), ((np.zeros(()), [1.0] * 4), "no tree like|holds list"), ((0.0, np.zeros(4)), "arrays only"),
    ((np.zeros(()), np.zeros(4), None), "no tree like")])
def test_out_that_does_not_fit(bad, text):
    function = fg.compile(fg.value_and_grad(lambda x: np.sum(x * x)))
    with pytest.raises(ValueError, match=text):
        function.program(Y)(Y, out=bad)
    with pytest.raises(ValueError, match=text):
        function(Y, out=bad)


def test_out_that_is_read_only_or_shared():
    program = fg.compile(lambda x: (x + 1, x * 2)).program(Y)
    frozen = np.zeros(4)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        program(Y, out=(frozen, np.zeros(4)))
    memory = np.zeros(6)
    with pytest.raises(ValueError, match="results 0 and 1 share memory"):
        program(Y, out=(memory[:4], memory[2:]))


@pytest.mark.parametrize("n", [4, 5000])
def test_contract_35_out_over_an_argument(n):
    x = np.linspace(0, 1, n)
    wanted = (np.sum(x) + x[::-1], x * np.roll(x, 0))
    program = fg.compile(lambda x: (np.sum(x) + x[::-1], x * x)).program(x)
    y = x.copy()
    out = (y, np.zeros(n))
    program(y, out=out)
    np.testing.assert_allclose(out[0], wanted[0])
    np.testing.assert_allclose(out[1], x * x)


def test_contract_35_out_over_an_array_or_tensor_from_outside():
    table = np.linspace(0, 1, 3000)
    function = fg.compile(lambda x: (x * 2, table + x))
    x = np.ones(3000)
    before = table + x
    function(x)
    out = (table, np.zeros(3000))
    function.program(x)(x, out=out)
    np.testing.assert_array_equal(out[1], before)
    np.testing.assert_array_equal(table, 2 * x)


def test_a_refused_replay_leaves_an_argument_whole_that_out_lies_over():
    function = fg.compile(lambda x: x * 2 if np.sum(x) > 0 else x * 3)
    x = np.ones(3000)
    function(x)
    y = -np.ones(3000)
    function(y, out=y)
    np.testing.assert_array_equal(y, -3 * np.ones(3000))


def test_a_function_with_a_parameter_out_keeps_it():
    function = fg.compile(lambda x, out=2.0: x * out)
    equal(function(X, out=3.0), X * 3.0)
    equal(function.program(X, out=3.0)(X, out=5.0), X * 5.0)


def test_out_refuses_to_lose_a_gradient():
    w = fg.tensor(2.0, requires_grad=True)
    function = fg.compile(lambda x: x * w)
    with pytest.warns(RuntimeWarning), pytest.raises(TypeError, match="lose the gradient"):
        function(fg.tensor(Y), out=np.zeros(4))
    with pytest.raises(TypeError, match="lose the gradient"):
        function(fg.tensor(Y), out=np.zeros(4))


def test_out_of_tensors_is_arrays():
    program = fg.compile(lambda x: (x * 2, np.sum(x))).program(fg.tensor(X))
    out = np.zeros((3, 4)), np.zeros(())
    assert program(fg.tensor(X), out=out) is out
    np.testing.assert_array_equal(out[0], 2 * X)


# --------------------------------------------------------------------------------------------------------------- explain


def test_explain_names_steps_operations_memory_guards_and_what_is_outside():
    w = fg.tensor(P["w"])

    def function(x):
        if np.sum(x) > -1e9:
            return np.sum(np.tanh(x @ w) * 2.0)
        return np.sum(x)

    text = fg.compile(function).program(X).explain()
    for part in ("Program of function: 1 argument, 1 result", "argument 0", "float64[3, 4]", "product", "3x2", "matmul", "tanh", "lanes",
                 "flops", "arena", "alive at a time", "constants", "guards", "1: greater(sum(...), -1000000000.0)", "1 Tensor and 0 arrays read",
                 "threads"):
        assert part in text, part
    assert max(map(len, text.splitlines())) < 200


def test_explain_of_a_large_program_is_short():
    def function(x):
        for k in range(60):
            x = np.tanh(x @ P["w"] @ P["w"].T)
        return x

    text = fg.compile(function).program(X).explain(most=10)
    assert len(text.splitlines()) < 30 and "steps of" in text


def test_repr_names_the_function_and_its_arguments():
    program = make().program(X, P)
    assert repr(program) == str(program) == f"<Program of value_and_grad_loss(float64[3, 4], float64[4, 2], float64[2]): {len(program)} operations>"


@pytest.mark.parametrize("thing", [engine.Program, engine.Program.explain, engine.Program.save, engine.Program.c_function])
def test_the_examples_of_a_program_run(thing):
    import doctest
    example = doctest.DocTestParser().get_doctest(thing.__doc__, {}, str(thing), None, 0)
    report = []
    assert example.examples and doctest.DocTestRunner(verbose=False).run(example, out=report.append).failed == 0, "".join(report)


# ----------------------------------------------------------------------------------------------------------------- files

FUZZ = runpy.run_path(str(ROOT / ".ci" / "fuzz")) if (ROOT / ".ci" / "fuzz").exists() else None


@pytest.mark.skipif(FUZZ is None, reason="no .ci/fuzz here")
def test_contract_45_damaged_files_are_refused_or_harmless():
    rng, files = random.Random(11), FUZZ["corpus"]()
    with np.errstate(all="ignore"):
        for data in files:
            assert FUZZ["use"](data)
        for _ in range(300):
            FUZZ["use"](FUZZ["damage"](rng, rng.choice(files)))


def test_a_saved_program_gives_the_same_bits(tmp_path):
    program = make().program(X, P)
    program.save(tmp_path / "p.fg")
    loaded = fg.load_program(tmp_path / "p.fg")
    equal(loaded(X, P), program(X, P))
    equal(loaded(2 * X, P), program(2 * X, P))
    assert programs.to_bytes(loaded) == programs.to_bytes(program)
    assert repr(loaded) == repr(program)


@pytest.mark.parametrize("function, arguments", [
    (lambda x: (np.array([1.0, np.nan, -0.0, np.inf]) * x, x * np.nan, x + np.inf), (Y,)),
    (lambda x: fnp.where(x > 0, x, -x), (Y.astype("f"),)),
    (lambda a, b: (a < b, a and b, None, 3, "text", np.arange(3)), (1.0, 2.0)),
    (lambda x, y: {"a": [x * y, (x,)], "b": x[..., None]}, (Y, fg.tensor(2.0))),
    (lambda x, n: engine.softmax_cross_entropy(x, n), (X, np.array([1, 2, 3]))),
    (fg.grad(lambda x, n: np.sum(x[n, [3, 0, 1]] * x[:, n][0]) + np.sum(x[..., [2, -1]] ** 3)), (X, np.array([1, 2, -1]))),
    (lambda x: x[[0, 2, 2], 1:], (X,)), (fg.grad(lambda x: np.sum(x[[0, 2, 2], 1:] ** 2)), (X,)),
    (lambda x: x[x > 0] if False else fnp.concatenate([x, x * 2], axis=1), (X,)),
    (fg.hessian(lambda x: np.sum(np.log1p(np.exp(x)) * x[::-1])), (Y,)),
    (lambda x: (x.T, x[::-1], x), (np.zeros((0, 3)),)), (lambda x: x.T, (np.arange(6).reshape(2, 3),))])
def test_what_is_saved_loads(function, arguments):
    program = fg.compile(function).program(*arguments)
    loaded = pickle.loads(pickle.dumps(program))
    equal(jsonable(loaded(*arguments)), jsonable(program(*arguments)))


def jsonable(tree):
    leaves, _ = tree_flatten(tree)
    return [np.asarray(leaf.numpy() if isinstance(leaf, fg.Tensor) else leaf) for leaf in leaves]


def test_tensors_and_arrays_from_outside_are_held():
    w, table = fg.tensor([1.0, 2.0, 3.0, 4.0]), np.ones(3)
    program = fg.compile(lambda x: x @ w + table).program(X)
    loaded = pickle.loads(pickle.dumps(program))
    table += 1
    w *= 3.0
    np.testing.assert_allclose(loaded(X), X @ [1, 2, 3, 4] + 1)
    assert sorted(loaded.held) == ["array0", "tensor0"]
    loaded.held["tensor0"][...] = w
    np.testing.assert_allclose(loaded(X), X @ [3, 6, 9, 12] + 1)
    again = pickle.loads(pickle.dumps(loaded))
    assert sorted(again.held) == sorted(loaded.held)
    np.testing.assert_array_equal(again(X), loaded(X))


def test_a_program_of_a_million_operations_is_saved_and_loaded(tmp_path):
    def function(x):
        for k in range(20000):
            x = x * 0.999 + 0.001 * (k % 7)
        return x

    program = fg.compile(function).program(1.5)
    loaded = pickle.loads(pickle.dumps(program))
    assert loaded(1.5) == program(1.5) == function(1.5)


def test_what_cannot_be_saved_says_why(tmp_path):
    w = fg.tensor([1.0, 2.0], requires_grad=True)

    def step(x):
        w.grad = None
        (w * x).sum().backward()
        return x * 1.0

    generator = np.random.default_rng(0)
    import collections
    Pair = collections.namedtuple("Pair", "a b")
    for function, arguments, text in [
            (step, (2.0,), "changes Tensors from outside"),
            (lambda g, x: x + g.normal(size=4), (generator, Y), "calls Python at each replay"),
            (lambda x: np.linalg.det(x[:3, :3]), (fg.tensor(X),), "calls Python at each replay"),
            (lambda x: Pair(x, x), (Y,), "Pair"), (lambda d: d[1] * 2, ({1: Y},), "dict with other keys"),
            (lambda x, s: x, (Y, object), "taken by its value")]:
        program = fg.compile(function).program(*arguments)
        with pytest.raises(TypeError, match=text):
            program.save(tmp_path / "p.fg")
        with pytest.raises(TypeError, match=text):
            pickle.dumps(program)
        assert not (tmp_path / "p.fg").exists()


def document_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return json.loads(archive.read("program.json")), {n: archive.read(n) for n in archive.namelist()}


def with_document(data, document):
    members = {**document_of(data)[1], "program.json": json.dumps(document)}
    return FUZZ["packed"](members.items())


def broken(change):
    table = np.arange(8.0)
    data = programs.to_bytes(fg.compile(lambda x: np.sum(x[:, 1:3] @ table.reshape(2, 4)[:, ::2], axis=0) > 0.5).program(X))
    document, _ = document_of(data)
    change(document, {v["op"]: v for v in document["values"]})
    return with_document(data, document)


CHANGES = {
    "unknown operation": lambda d, v: v["matmul"].update(op="system"),
    "unknown key": lambda d, v: v["matmul"].update(code="print()"),
    "an integer from 0": lambda d, v: v["matmul"].update({"in": [1, 99]}),
    "where an integer": lambda d, v: v["matmul"].update({"in": [1, True]}),
    "follows as": lambda d, v: v["matmul"].update(shape=[3, 3]),
    "an index from": lambda d, v: v["getitem"].update(offset=12),
    "an index from -": lambda d, v: v["getitem"].update(strides=[-4, 1]),
    "axes": lambda d, v: v["sum"].update(axes=[0, 0]),
    "version": lambda d, v: d.update(version=2),
    "no fastgrad Program": lambda d, v: d.update(format="other"),
    "too large": lambda d, v: v["matmul"].update(shape=[1 << 40, 1 << 40]),
    "unknown dtype": lambda d, v: v["matmul"].update(dtype="object"),
    "no value stands for": lambda d, v: d["arguments"]["leaves"].append({"kind": "array", "dtype": "float64", "shape": []}) or
        d["arguments"].update(tree={"tuple": [{"tuple": ["*", "*"]}, {"dict": {}}]}),
    "is missing": lambda d, v: d["held"][0].update(member="../../etc/passwd"),
    "no array of shape": lambda d, v: (d["held"][0].update(shape=[2, 4]), v["held"].update(shape=[2, 4])),
    "more than 64 levels": lambda d, v: d["results"].update(tree=__import__("functools").reduce(lambda t, _: {"list": [t]}, range(200), "*")),
    "another number of leaves": lambda d, v: d["results"].update(tree=None),
    "larger than is allowed": lambda d, v: (d["held"][0].update(shape=[1 << 35]), v["held"].update(shape=[1 << 35])),
}


@pytest.mark.skipif(FUZZ is None, reason="no .ci/fuzz here")
@pytest.mark.parametrize("text", list(CHANGES))
def test_contract_45_a_hostile_file_is_refused_with_what_is_wrong(text):
    with pytest.raises(fg.ProgramFormatError, match=text):
        programs.load_bytes(broken(CHANGES[text]))


def test_contract_45_files_that_are_none(tmp_path):
    path = tmp_path / "p.fg"
    data = programs.to_bytes(make().program(X, P))
    for content in (b"", b"PK", data[:-30], data[:100], pickle.dumps(3), b"\x00" * 1000):
        path.write_bytes(content)
        with pytest.raises(fg.ProgramFormatError):
            fg.load_program(path)
    path.write_bytes(data)
    with pytest.raises(fg.ProgramFormatError, match="limit="):
        fg.load_program(path, limit=100)
    with pytest.raises(FileNotFoundError):
        fg.load_program(tmp_path / "nothing")
    assert issubclass(fg.ProgramFormatError, ValueError)


def test_contract_45_a_bomb_is_refused_before_it_is_unpacked():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("program.json", b" " * (300 << 20))
    assert len(buffer.getvalue()) < 1 << 20
    start = time.perf_counter()
    with pytest.raises(fg.ProgramFormatError, match="more than is allowed"):
        programs.load_bytes(buffer.getvalue())
    assert time.perf_counter() - start < 1


# ----------------------------------------------------------------------------------------------------------- C functions


def pointer(a):
    return a.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


def call_c(f, x, workspace=None):
    workspace = workspace or f.workspace()
    value, gradient = np.full(f.n_value, 7.0), np.full(f.n_gradient, 7.0)
    code = f.ctypes(pointer(x), pointer(value), pointer(gradient), workspace.address)
    return code, value, gradient


@pytest.mark.parametrize("n", [2, 10, 3000])
def test_a_c_function_gives_the_same_bits(n):
    program = fg.compile(fg.value_and_grad(lambda x, s: np.sum(np.exp(-s * x * x) * x[::-1]), argnums=(0, 1))).program(np.zeros(n), 1.0)
    f = program.c_function()
    assert (f.n_inputs, f.n_value, f.n_gradient) == (n + 1, 1, n + 1)
    x = RNG.normal(size=n + 1)
    workspace = f.workspace()
    for _ in range(2):
        code, value, gradient = call_c(f, x, workspace)
        wanted = program(x[:n], x[n])
        assert code == 0 and value[0] == wanted[0]
        np.testing.assert_array_equal(gradient, np.append(wanted[1][0], wanted[1][1]))
    assert f.ctypes(pointer(x), None, None, workspace.address) == 0
    same = x.copy()                 # gradient over x
    assert f.ctypes(pointer(same), None, pointer(same), workspace.address) == 0
    np.testing.assert_array_equal(same, gradient)


def test_an_index_into_nothing_is_refused_at_the_replay():
    data = programs.to_bytes(fg.compile(lambda x, n: x[n]).program(np.ones((1, 3)), np.array([0, 0])))

    def empty(document, by_name):
        document["arguments"]["leaves"][0]["shape"] = by_name["argument"]["shape"] = [0, 3]
        by_name["rule"]["parameters"]["shape"] = {"tuple": [0, 3]}

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(members["program.json"])
    empty(document, {value["op"]: value for value in reversed(document["values"])})
    members["program.json"] = json.dumps(document).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    with pytest.raises((ValueError, IndexError)):
        programs.load_bytes(buffer.getvalue())(np.ones((0, 3)), np.array([0, 0]))


def test_what_a_c_function_returns():
    branch = fg.compile(lambda x: x * 2 if x > 0 else x).program(1.0).c_function()
    assert call_c(branch, np.array([3.0]))[0] == 0 and call_c(branch, np.array([-3.0]))[0] == 1
    assert branch.ctypes(pointer(np.ones(1)), None, None, None) == 4
    assert branch.ctypes(None, None, None, branch.workspace().address) == 4
    number = fg.compile(lambda x: x * 2 if x > 0 else x).program(1.0).c_function("number")
    workspace = number.workspace()
    assert number.ctypes(3.0, workspace.address) == 6.0 and np.isnan(number.ctypes(-3.0, workspace.address))
    value = fg.compile(lambda x: np.sum(x)).program(np.zeros(2)).c_function("value")
    assert np.isnan(value.ctypes(3, pointer(np.ones(3)), value.workspace().address))
    labels = np.array([0, 1, 0])
    lossy = fg.compile(lambda x: engine.softmax_cross_entropy(x, labels)).program(X).c_function()
    workspace = lossy.workspace()
    assert call_c(lossy, X.ravel(), workspace)[0] == 0
    labels[0] = 9
    assert call_c(lossy, X.ravel(), workspace)[0] == 0
    workspace.refresh()
    assert call_c(lossy, X.ravel(), workspace)[0] == 2
    labels[0] = -1
    picked = fg.compile(lambda x: x[:, labels] * 2).program(X).c_function()
    code, values = call_c(picked, X.ravel(), picked.workspace())[:2]
    assert code == 0 and np.array_equal(np.ravel(values), np.ravel(X[:, labels] * 2))
    labels[0] = 9
    assert call_c(picked, X.ravel(), picked.workspace())[0] == 2


def test_a_c_function_reads_what_is_outside_when_its_workspace_is_made_or_refreshed():
    w = fg.tensor([1.0, 2.0, 3.0, 4.0])
    f = fg.compile(lambda x: x @ w).program(Y).c_function()
    workspace = f.workspace()
    np.testing.assert_allclose(call_c(f, Y, workspace)[1], Y @ [1, 2, 3, 4])
    w *= 2.0
    np.testing.assert_allclose(call_c(f, Y, workspace)[1], Y @ [1, 2, 3, 4])
    workspace.refresh()
    np.testing.assert_allclose(call_c(f, Y, workspace)[1], 2 * Y @ [1, 2, 3, 4])


def test_what_is_no_c_function_says_why():
    w = fg.tensor([1.0, 2.0], requires_grad=True)

    def step(x):
        w.grad = None
        (w * x).sum().backward()
        return x * 1.0

    for function, arguments, text in [(lambda x: x * 2, (Y.astype("f"),), "float32"), (lambda x: x > 0, (Y,), "result 0 is bool"),
                                      (lambda x: np.linalg.det(x[:3, :3]), (fg.tensor(X),), "calls Python"), (step, (2.0,), "from outside")]:
        with pytest.raises(TypeError, match=text):
            fg.compile(function).program(*arguments).c_function()
    program = fg.compile(lambda x: x * 2).program(Y)
    for signature in ("value", "number"):
        with pytest.raises(TypeError, match="4 numbers"):
            program.c_function(signature)
    with pytest.raises(ValueError, match="signature is"):
        program.c_function("other")


def test_a_capsule_owns_its_workspace_and_nothing_leaks():
    f = fg.compile(lambda x: x * x).program(1.0).c_function("number")
    capsules = [f.capsule for _ in range(3)]
    assert "double (double, void *)" in repr(capsules[0])
    del capsules, f
    gc.collect()


def test_scipy_integrates_a_c_function():
    integrate = pytest.importorskip("scipy.integrate")
    from scipy import LowLevelCallable
    gauss = fg.compile(lambda x: np.exp(-x * x)).program(1.0)
    for f in (gauss.c_function("number"), gauss.c_function("value")):
        assert abs(integrate.quad(LowLevelCallable(f.capsule), -6, 6)[0] - np.sqrt(np.pi)) < 1e-9
    f = gauss.c_function("number")
    workspace = f.workspace()
    call = LowLevelCallable(f.ctypes, ctypes.c_void_p(workspace.address))
    assert abs(integrate.quad(call, -6, 6)[0] - np.sqrt(np.pi)) < 1e-9
    plane = fg.compile(lambda x: np.exp(-np.sum(x * x))).program(np.zeros(2)).c_function("value")
    assert abs(integrate.nquad(LowLevelCallable(plane.capsule), [[-5, 5], [-5, 5]])[0] - np.pi) < 1e-7


@pytest.fixture(scope="module")
def hmc(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    source = ROOT / "docs" / "examples" / "hmc.c"
    if compiler is None or not source.exists():
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("hmc") / "hmc.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-lm"], check=True)
    run = ctypes.CDLL(str(library)).hmc
    double = ctypes.POINTER(ctypes.c_double)
    run.restype = ctypes.c_long
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, double, ctypes.c_double, ctypes.c_int, ctypes.c_long, ctypes.c_uint64, double]
    return run


@pytest.mark.parametrize("n", [2, 10])
def test_the_sampler_in_c_finds_mean_and_variance(hmc, n):
    mean, scale = np.linspace(-1, 1, n), np.linspace(0.5, 1.5, n)
    program = fg.compile(fg.value_and_grad(lambda x: -0.5 * np.sum(((x - mean) / scale) ** 2))).program(np.zeros(n))
    f = program.c_function()

    def sample(seed):
        workspace, start, samples = f.workspace(), np.zeros(n), np.zeros((20000, n))
        accepted = hmc(f.address, workspace.address, n, pointer(start), 0.25, 8, len(samples), seed, pointer(samples))
        assert accepted > 0.8 * len(samples)
        return samples

    with ThreadPoolExecutor(2) as pool:
        first, again = pool.map(sample, [1, 1])
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(first.std(0), scale, rtol=0.05)


# --------------------------------------------------------------------------------------------------------------- threads


def test_contract_43_one_program_from_many_threads():
    program = fg.compile(fg.value_and_grad(lambda x: np.sum(np.tanh(x @ x.T) * np.exp(-x[:, :1])))).program(np.zeros((64, 64)))
    inputs = [RNG.normal(size=(64, 64)) for _ in range(8)]
    wanted = [program(x) for x in inputs]

    def work(k):
        for i in range(30):
            x = inputs[(k + i) % 8]
            equal(program(x), wanted[(k + i) % 8])
            out = (np.zeros(()), np.zeros((64, 64)))
            program(x, out=out)
            equal(out, wanted[(k + i) % 8])
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(16)))


def test_contract_43_one_c_function_from_many_threads():
    program = fg.compile(fg.value_and_grad(lambda x: np.sum(np.tanh(x) * np.exp(-x[::-1])))).program(np.zeros(20000))
    f = program.c_function()
    x = RNG.normal(size=20000)
    wanted = program(x)

    def work(_):
        workspace = f.workspace()
        for _ in range(20):
            code, value, gradient = call_c(f, x, workspace)
            assert code == 0 and value[0] == wanted[0]
            np.testing.assert_array_equal(gradient, wanted[1])
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def long_program():
    """About half a second, and a Tensor outside that it changes."""
    state = fg.tensor(np.zeros(200000))

    def function(x):
        y = x
        for _ in range(1000):
            y = np.tanh(y + np.sum(y) * 1e-9)
        state.__iadd__(y)
        return np.sum(y)

    with fg.no_grad():
        compiled = fg.compile(function)
        compiled(np.ones(200000))
    return compiled, state


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
def test_contract_37_ctrl_c_in_a_long_replay():
    compiled, state = long_program()
    x = np.ones(200000)
    start = time.perf_counter()
    with fg.no_grad():
        compiled(x)
    whole = time.perf_counter() - start
    if whole < 0.1:
        pytest.skip("too fast a machine")
    before = state.numpy().copy()
    rung = []

    def ring(*_):
        rung.append(time.perf_counter())
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, ring)
    try:
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.03)
            start = time.perf_counter()
            with pytest.raises(KeyboardInterrupt), fg.no_grad():
                compiled(x)
            assert time.perf_counter() - start < 0.13
            np.testing.assert_array_equal(state.numpy(), before)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    with fg.no_grad():
        compiled(x)
    assert compiled.recordings == 1 and np.all(state.numpy() > before)


# ---------------------------------------------------------------------------------------------------------------- memory


def test_contract_38_a_replay_that_cannot_allocate():
    small = fg.tensor(1.0)
    program = fg.compile(lambda x: np.sum(fnp.broadcast_to(x, (2, 2)) * 2.0)).program(small)
    data = programs.to_bytes(program)
    document, _ = document_of(data)
    for value in document["values"]:
        if value["shape"] == [2, 2]:
            value["shape"] = [1 << 20, 1 << 25]
    with pytest.raises(fg.ProgramFormatError, match="limit="):
        # a result or a value in memory of 2**48 bytes
        bigger = json.loads(json.dumps(document))
        bigger["results"]["leaves"] = [{"value": len(bigger["values"]) - 1}]
        programs.load_bytes(with_document(data, bigger))
    huge = json.loads(json.dumps(document))
    huge["results"]["leaves"] = [{"value": len(huge["values"]) - 1}]
    loaded = programs.load_bytes(with_document(data, huge), 1 << 62)
    start = engine.tape_statistics()["array_bytes"]
    for _ in range(3):
        with pytest.raises(MemoryError):
            loaded(small)
        with pytest.raises(MemoryError):
            loaded.c_function().workspace()
    assert engine.tape_statistics()["array_bytes"] <= start + 1024
    assert program(small).item() == 8.0


def test_programs_that_come_and_go_leave_nothing():
    def once():
        program = make().program(X, P)
        loaded = pickle.loads(pickle.dumps(program))
        loaded(X, P, out=rooms(loaded(X, P)))
        program.c_function().workspace()
        program.c_function().capsule
        for bad in (b"", programs.to_bytes(program)[:-7]):
            with pytest.raises(ValueError):
                programs.load_bytes(bad)

    once()
    gc.collect()
    start = engine.tape_statistics()["array_bytes"]
    for _ in range(20):
        once()
    gc.collect()
    assert engine.tape_statistics()["array_bytes"] <= start
