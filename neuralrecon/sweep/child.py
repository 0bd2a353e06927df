"""A process that does one object after another: the train command for each line on its standard input.

It ends with the first object that does not end well, and with the process that started it: a killed worker would
otherwise leave a run behind that keeps the object's folder to itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence

_SET_SIGNAL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of Linux


def main(argv: Sequence[str]) -> int:
    """The exit status of the object that did not end well, else 0 when no more come; `argv` is the parent's id.

    A line is JSON: the words of `python -m neuralrecon.train`, and the file for all that the run prints. An object that
    ended well is answered with a line.
    """
    [parent] = argv
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_SIGNAL_OF_PARENTS_DEATH, signal.SIGKILL)
        if os.getppid() != int(parent):  # it has gone before we asked
            return 128 + signal.SIGKILL
    from ..train.__main__ import cli

    with os.fdopen(os.dup(0)) as lines, os.fdopen(os.dup(1), "w") as answers:
        _point(0, os.devnull, os.O_RDONLY)
        for line in lines:
            told = json.loads(line)
            _point(1, told["log"], os.O_WRONLY | os.O_APPEND)
            os.dup2(1, 2)
            if status := cli(told["words"]):
                return status
            sys.stdout.flush()
            print("done", file=answers, flush=True)
    return 0


def _point(descriptor: int, path: str, flags: int) -> None:
    opened = os.open(path, flags)
    os.dup2(opened, descriptor)
    os.close(opened)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
