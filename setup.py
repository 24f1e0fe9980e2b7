"""What pyproject.toml cannot say: generating the kernels, the extension, and the instruction-set levels."""

import importlib.util
import os
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = Path("fastgrad/_core")
GENERATED = Path("build/generated")
OPTIMISE = ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-std=c11", 
            "-Werror=implicit-function-declaration"]
LEVELS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mprefer-vector-width=512"],
}
X86 = platform.machine().lower() in ("x86_64", "amd64") and sys.platform != "win32"
SANITIZE = os.environ.get("FASTGRAD_SANITIZE", "")  # for example "address,undefined": a build for testing only


class BuildWithLevels(build_ext):
    """Compiles each instruction-set level of the kernels with its own flags, at the same time."""

    def build_extension(self, extension):
        flags = [] if self.compiler.compiler_type == "msvc" else OPTIMISE
        if SANITIZE:
            flags = [*flags, "-O1", f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=undefined", "-g", "-fno-omit-frame-pointer"]
            extension.extra_link_args += [f"-fsanitize={SANITIZE}"]
        extension.extra_compile_args += flags
        macros = [("FG_X86_LEVELS", "1")] if X86 else []
        includes = [str(CORE / "kernels"), str(GENERATED)]

        def compile_one(source, more):
            return self.compiler.compile(
                [str(source)], output_dir=self.build_temp, include_dirs=includes, macros=macros,
                extra_postargs=flags + more, depends=extension.depends)

        jobs = [(CORE / "kernels" / name, []) for name in ("choose.c", "lanes.c", "products.c", "scalars.c", "threads.c")]
        jobs += [(CORE / "kernels" / f"level_{name}.c", more) for name, more in LEVELS.items() if X86 or not more]
        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                pending = [pool.submit(compile_one, *job) for job in jobs]
                for job in pending:
                    extension.extra_objects += job.result()
            super().build_extension(extension)
        except Exception as error:
            command = (getattr(self.compiler, "compiler_so", None) or ["cl"])[0]
            if shutil.which(command) is None:
                raise SystemExit(f"fastgrad: building from source needs a C compiler and the Python headers, and "
                                 f"{command!r} was not found; install one (gcc or clang), or use a wheel.") from error
            raise


spec = importlib.util.spec_from_file_location("fastgrad_generate", CORE / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)
generate.generate(GENERATED)

sources = [*CORE.glob("*.pyx"), *CORE.glob("*.pxi"), *CORE.glob("kernels/*"), CORE / "ops.py", CORE / "generate.py"]
engine = Extension(
    "fastgrad._core.engine",
    [str(CORE / "engine.pyx")],
    include_dirs=[numpy.get_include(), str(CORE / "kernels"), str(GENERATED)],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION")],
    depends=[str(path) for path in sources],
    extra_link_args=["-pthread"] if sys.platform.startswith("linux") else [],
)

setup(
    ext_modules=cythonize(
        [engine],
        build_dir="build/cython",
        include_path=[str(GENERATED)],
        annotate=bool(os.environ.get("FASTGRAD_ANNOTATE")),
        compiler_directives={
            "language_level": "3",
            "initializedcheck": False,
            "cdivision": True,
            "c_api_binop_methods": True,
            "binding": False,
            "embedsignature": True,
            "embedsignature.format": "python",
            "freethreading_compatible": False,
        },
    ),
    cmdclass={"build_ext": BuildWithLevels},
)
