"""A viewer beside a training: a process of its own, of the lowest priority, which reads what the training leaves.

So the training shares neither an interpreter nor a random generator with it, and computes the same with it and without.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .server import require_port, require_viser, url_of

log = logging.getLogger(__name__)

_PATIENCE_S = 5.0  # for a job at hand and the end of connections
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@contextmanager
def viewer_beside(wanted: bool, host: str, port: int) -> Iterator[Callable[[Path], None]]:
    """Give a function that starts the viewer of a run's folder, if one is `wanted`; it ends with the block.

    Raises:
        ConfigError: viser is not installed, or the port is taken.
    """
    if wanted:
        require_viser()
        require_port(host, port)
    with ExitStack() as stack:

        def start(folder: Path) -> None:
            if wanted:
                stack.enter_context(_process(folder, host, port))
                log.info("viewer: %s (while this run lasts)", url_of(host, port))

        yield start


@contextmanager
def _process(folder: Path, host: str, port: int) -> Iterator[None]:
    words = [sys.executable, "-m", "neuralrecon.view.child", str(folder.resolve()), host, str(port)]
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    # its standard input ends when this process does, however that happens; a group of its own keeps Ctrl-C from it
    child = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | _ONE_THREAD | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        process_group=0 if os.name == "posix" else None,
    )
    assert child.stdin is not None
    try:
        yield
    finally:
        with suppress(OSError):
            child.stdin.close()
        try:
            child.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
