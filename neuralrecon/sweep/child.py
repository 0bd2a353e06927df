"""The process of one object: the train command, which ends if the one that started it is killed.

Without that a killed worker would leave a run behind that keeps the object's folder to itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_SET_SIGNAL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of Linux


def main(argv: Sequence[str]) -> int:
    """The exit status of `python -m neuralrecon.train` with the words after the first, which is the parent's id."""
    parent, *words = argv
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_SIGNAL_OF_PARENTS_DEATH, signal.SIGKILL)
        if os.getppid() != int(parent):  # it has gone before we asked
            return 128 + signal.SIGKILL
    from ..train.__main__ import cli

    return cli(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
