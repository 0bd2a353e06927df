"""The viewer's process beside a training: `python -m neuralrecon.view.child FOLDER HOST PORT`.

It ends when its standard input does. It has one thread for computing and what the machine has left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

_LEAST_PRIORITY = 19


def main(argv: Sequence[str]) -> int:
    """0, or 2 if it cannot be shown; the reason is on stderr."""
    folder, host, port = argv
    if hasattr(os, "nice"):
        os.nice(_LEAST_PRIORITY)
    from ..errors import NeuralReconError
    from .settings import ViewConfig
    from .viewer import show

    try:
        with show(Path(folder), ViewConfig(host=host, port=int(port), cells=64, picture_px=192)):
            while sys.stdin.buffer.read(1):
                pass
    except NeuralReconError as error:
        sys.stderr.write(f"viewer: {error}; the training goes on without it\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
