"""The backend of compiled Programs against the table's own loops, in C: see c/lanes_test.c."""

import importlib.util
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "fastgrad" / "_core" / "kernels"
SOURCES = [KERNELS / f"{name}.c" for name in ("choose", "lanes", "scalars", "threads", "level_baseline")]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The test program, with the kernels of the baseline alone and hardly optimised: that compiles in seconds."""
    compiler = shutil.which("cc")
    if compiler is None or not all(path.exists() for path in SOURCES):
        pytest.skip("needs a C compiler and the sources")
    folder = tmp_path_factory.mktemp("lanes")
    spec = importlib.util.spec_from_file_location("fastgrad_generate", KERNELS.parent / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    generate.generate(folder)

    def compile_one(source):
        target = folder / f"{source.stem}.o"
        subprocess.run([compiler, "-O1", "-std=c11", f"-I{KERNELS}", f"-I{folder}", "-c", source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor() as pool:
        objects = list(pool.map(compile_one, [*SOURCES, Path(__file__).parent / "c" / "lanes_test.c"]))
    subprocess.run([compiler, *objects, "-o", folder / "lanes_test", "-lm", "-lpthread"], check=True)
    return folder / "lanes_test"


@pytest.mark.parametrize("seed", range(1, 4))
def test_groups_and_scalar_code_have_the_bits_of_the_loops_one_by_one(program, seed):
    done = subprocess.run([program, "200", str(seed)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
