"""``python -m fastgrad``: the demonstration in ``fastgrad.demo``, or one of the commands ``explain`` and ``check``."""

import sys


def main(argv=None):
    """Runs the command that the first argument names, else the demonstration; the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["explain"]:
        from .learn.explain_command import main as command
        return command(argv[1:])
    if argv[:1] == ["check"]:
        from .learn.check_command import main as command
        return command(argv[1:])
    from .demo import main as demonstration
    return demonstration(argv)


if __name__ == "__main__":
    sys.exit(main())
