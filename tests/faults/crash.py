"""Runs a module as `python -m` does, and kills the process at one of its calls that make a file durable.

  python -m tests.faults.crash COUNT BEFORE TORN MODULE ARGUMENTS...

The process ends by SIGKILL at call COUNT of `os.fsync`, `os.replace`, `os.rename`, `os.unlink` or `os.rmdir`: before it
takes effect if BEFORE is 1, else after it. If TORN is over 0, a file that was to be synchronised loses that many bytes.
"""

import os
import runpy
import signal
import sys

CALLS = ("fsync", "replace", "rename", "unlink", "rmdir")


def main() -> None:
    left, before, torn = (int(argument) for argument in sys.argv[1:4])

    def killing(call):
        def wrapped(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0 and call.__name__ == "fsync" and torn:
                size = os.fstat(arguments[0]).st_size
                os.ftruncate(arguments[0], max(0, size - torn))
            if left == 0 and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **options)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    for name in CALLS:
        setattr(os, name, killing(getattr(os, name)))
    del sys.argv[:4]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
