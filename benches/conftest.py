"""Makes the modules of this folder importable, and asks for one thread before any test file imports NumPy."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import one_thread  # noqa: E402, F401
