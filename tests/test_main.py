"""The main job, run as a newcomer runs it: `python -m fastgrad`."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import demo, optim


# `-m` puts the working folder first on the path: in a checkout that would be the sources, which are not built.
elsewhere = tempfile.gettempdir()


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "fastgrad", *arguments], capture_output=True, text=True, timeout=120,
        **{"cwd": elsewhere, **options}
    )


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    path = tmp_path_factory.mktemp("main") / "results.json"
    done = run("--seconds", "3", "--json", str(path))
    assert done.returncode == 0, done.stderr
    return done, json.loads(path.read_text())


def test_it_learns_the_digits(short):
    done, results = short
    assert results["held_out"]["accuracy"] >= 0.95
    assert results["held_out"]["digits"] == 359
    assert "held-out" in done.stdout


def test_it_checks_its_gradient_first(short):
    done, results = short
    assert results["gradient_error"] < 1e-12
    assert done.stdout.index("complex step") < done.stdout.index("trained on")


def test_it_ends_with_gradients_per_second_and_ratios(short):
    done, results = short
    for batch in ("batch 1", "batch 32"):
        rates = results["gradients_per_second"][batch]
        assert list(rates) == ["pure Python", "NumPy, backward by hand", "fastgrad", "fastgrad, Program",
                               "fastgrad, Program, batch of lanes"]
        assert all(0 < rate < math.inf for rate in rates.values())
    assert "gradients per second" in done.stdout


def test_it_names_the_source_of_its_data(short):
    for text in (short[0].stdout, run("--help").stdout, demo.__doc__):
        text = " ".join(text.split())
        assert "Alpaydin" in text and "CC BY 4.0" in text


def test_no_terminal_no_bar(short):
    assert short[0].stderr == ""


def test_a_terminal_gets_a_bar():
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fastgrad", "--seconds", "0.5"], stdout=subprocess.DEVNULL, stderr=theirs, cwd=elsewhere
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    assert process.wait(timeout=60) == 0
    assert b"[#" in seen and b"epoch 1," in seen


def test_quiet_prints_nothing():
    done = run("--seconds", "0.2", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_same_seed_gives_the_same_training(tmp_path):
    results = []
    for name in ("a", "b"):
        run("--seconds", "3", "--quiet", "--seed", "7", "--json", str(tmp_path / name))
        results.append(json.loads((tmp_path / name).read_text()))
    for key in ("gradient_error", "held_out", "seed"):
        assert results[0][key] == results[1][key]
    assert results[0]["training"]["loss"] == results[1]["training"]["loss"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seconds", "0"], "'0' is not a positive number"),
        (["--seconds", "-1"], "'-1' is not a positive number"),
        (["--seconds", "nan"], "'nan' is not a positive number"),
        (["--seconds", "inf"], "'inf' is not a positive number"),
        (["--seconds", "soon"], "'soon' is not a number"),
        (["--seconds"], "expected one argument"),
        (["--seed", "-1"], "'-1' is negative"),
        (["--seed", "1.5"], "'1.5' is not a number"),
        (["--json", "no/such/folder/results.json"], "cannot write 'no/such/folder/results.json'"),
        (["--json", "."], "cannot write '.'"),
        (["--sec", "3"], "unrecognized arguments"),
        (["surprise"], "unrecognized arguments: surprise"),
    ],
)
def test_bad_arguments_get_one_line_and_exit_code_2(arguments, says):
    begin = time.perf_counter()
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert time.perf_counter() - begin < 5  # before any training


def test_checking_for_writability_changes_no_file(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("precious")
    demo.check_writable(str(kept))
    demo.check_writable(str(tmp_path / "new"))
    assert kept.read_text() == "precious"
    assert os.listdir(tmp_path) == ["kept"]


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_an_interrupt_ends_it_cleanly():
    process = subprocess.Popen(
        [sys.executable, "-m", "fastgrad", "--seconds", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=elsewhere,
    )
    process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_the_data_is_what_it_says():
    images, digits = demo.load_digits()
    assert images.shape == (1797, 64) and digits.shape == (1797,)
    assert images.min() == 0.0 and images.max() == 1.0
    assert np.array_equal(np.unique(digits), np.arange(10))


def test_the_split_holds_out_a_fifth_and_loses_nothing():
    images, digits = demo.load_digits()
    (x, y), (x_test, y_test) = demo.split(images, digits, np.random.default_rng(0))
    assert len(y_test) == 359 and len(y) == 1438
    assert len(x) == len(y) and len(x_test) == len(y_test)
    assert np.array_equal(np.bincount(np.concatenate([y, y_test])), np.bincount(digits))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_four_networks_agree(batch):
    rng = np.random.default_rng(1)
    images, digits = demo.load_digits()
    x, labels = images[:batch], digits[:batch]
    model = demo.network(rng)
    arrays = list(model.state_dict().values())
    loss, exact = demo.numpy_gradients(arrays, x, labels)
    python_loss, flat = demo.python_gradients([a.tolist() for a in arrays], x.tolist(), labels.tolist())
    fastgrad_loss = demo.fastgrad_gradients(model, x, labels).item()
    assert python_loss == pytest.approx(loss, rel=1e-13)
    assert fastgrad_loss == pytest.approx(loss, rel=1e-13)
    w1, b1, w2, b2 = exact
    np.testing.assert_allclose(flat, np.concatenate([w1.ravel(), b1, w2.ravel(), b2]), rtol=1e-11, atol=1e-16)
    for parameter, theirs, step in zip(model.parameters(), exact, demo.complex_step(arrays, x, labels)):
        np.testing.assert_allclose(parameter.grad.numpy(), theirs, rtol=1e-11, atol=1e-16)
        np.testing.assert_allclose(step, theirs, rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_programs_give_the_gradients_of_the_network(batch):
    images, digits = demo.load_digits()
    model = demo.network(np.random.default_rng(1))
    arrays = list(model.state_dict().values())
    many = images[: 4 * batch].reshape(4, batch, -1), digits[: 4 * batch].reshape(4, batch)
    program, lanes = demo.program_of_gradients(model), demo.program_of_lanes()
    for _ in range(2):
        losses, by_lane = lanes(*arrays, *many)
    for k, (x, labels) in enumerate(zip(*many)):
        loss, exact = demo.numpy_gradients(arrays, x, labels)
        assert program(x, labels).item() == pytest.approx(loss, rel=1e-13)
        assert losses[k] == pytest.approx(loss, rel=1e-13)
        for parameter, lane, theirs in zip(model.parameters(), by_lane, exact):
            np.testing.assert_allclose(parameter.grad.numpy(), theirs, rtol=1e-11, atol=1e-16)
            np.testing.assert_allclose(lane[k], theirs, rtol=1e-11, atol=1e-16)
    assert program.recordings <= 2 and lanes.recordings == 1


def test_a_step_of_training_is_one_program_and_trains_as_python_does():
    images, digits = demo.load_digits()
    losses = []
    for compiled in (True, False):
        model = demo.network(np.random.default_rng(1))
        optimizer = optim.Adam(model.parameters(), lr=fg.tensor(0.01))
        step = demo.program_of_training(model, optimizer)
        step = step if compiled else step.__wrapped__
        losses.append([])
        for k in range(10):
            optimizer.lr[...] = 0.01 * (1.0 - k / 10)
            losses[-1].append(step(images[32 * k : 32 * k + 32], digits[32 * k : 32 * k + 32]).item())
        if compiled:
            assert step.recordings <= 2
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)
    assert losses[0][-1] < losses[0][0]
