"""The engine's threads among those that threadpoolctl knows, so that ``threadpool_limits`` holds for Programs too."""

import functools
import os

from fastgrad._core import engine


@functools.cache
def register():
    """Makes the engine's library known to threadpoolctl, where that is installed.

    To be called before threads can be at work: by whoever makes a Program.  Not by ``import fastgrad``, which would import
    threadpoolctl for all who never make one.
    """
    try:
        from threadpoolctl import LibController, register
    except ImportError:         # not there, or before 3.2, which knows its own libraries only
        return

    class EngineController(LibController):
        user_api = "fastgrad"
        internal_api = "fastgrad"
        filename_prefixes = (os.path.basename(engine.__file__).lower(),)
        check_symbols = ("fg_get_threads", "fg_set_threads")

        def get_num_threads(self):
            return self.dynlib.fg_get_threads()

        def set_num_threads(self, num_threads):
            self.dynlib.fg_set_threads(num_threads)     # takes any number and keeps to what there can be

        def get_version(self):
            return None

    register(EngineController)
