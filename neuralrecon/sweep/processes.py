"""The processes that objects run in. One that ended its object well takes the next: Python, torch and the compiled
loops take seconds to start, as long as a small object does. After anything else a new one is started.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, cast

_LOOKS_EVERY_S = 0.1
TIME_TO_END_S = 60.0  # a step and a checkpoint of a large model


class Stopped(Exception):
    """The sweep ends before this object did."""


@dataclass(frozen=True, slots=True)
class _Worker:
    """A process and what it was started with; the GPU that it was given is in the environment."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    here: Path


class Processes:
    """Starts them and keeps those that wait; several threads may ask at once. Closing ends them.

    Example:
        >>> with Processes() as processes:  # doctest: +SKIP
        ...     processes.train(["object=demo/box"], Path("log.txt"), Path.cwd(), threads=2)
        0
    """

    def __init__(self) -> None:
        self._waiting: list[_Worker] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._waiting:
            _end(self._waiting.pop().process, asked=False)

    def train(
        self, words: Sequence[str], log: Path, here: Path, threads: int, stops: Callable[[], bool] = lambda: False
    ) -> int:
        """The exit status of `python -m neuralrecon.train` with these words in the folder `here`; -n if by signal n.

        Raises:
            Stopped: `stops` said so; the process was asked to end, and waited for.
            OSError: the log cannot be written.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")
        if stops():
            raise Stopped
        counts = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        worker = self._taken(os.environ | counts, here) or _started(os.environ | counts, here, log)
        process, ended_well = worker.process, False
        try:
            with suppress(BrokenPipeError):  # it has just been killed, as its status will tell
                print(json.dumps({"words": list(words), "log": str(log)}), file=process.stdin, flush=True)
            while process.poll() is None:
                if stops():
                    raise Stopped
                if ended_well := _answers(process):
                    break
        finally:
            if not ended_well:
                _end(process, asked=True)
        if ended_well:
            self._waiting.append(worker)  # from here on another thread may have it
            return 0
        return process.returncode

    def _taken(self, environment: dict[str, str], here: Path) -> _Worker | None:
        """One that waits, was started alike and is still there; any other that comes up is ended."""
        while self._waiting:
            with suppress(IndexError):  # another thread was faster
                worker = self._waiting.pop()
                if worker.process.poll() is None and (worker.environment, worker.here) == (environment, here):
                    return worker
                _end(worker.process, asked=False)
        return None


def _started(environment: dict[str, str], here: Path, log: Path) -> _Worker:
    with log.open("a") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "neuralrecon.sweep.child", str(os.getpid())],
            cwd=here,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            start_new_session=True,  # Ctrl-C comes to the sweep, which asks the processes to end, once
        )
    return _Worker(process, environment, here)


def _answers(process: subprocess.Popen[str]) -> bool:
    """Whether the object has ended well, soon; an end of the stream is the process's own."""
    answers = cast(IO[str], process.stdout)
    ready, _, _ = select.select([answers], [], [], _LOOKS_EVERY_S)
    if ready and answers.readline():
        return True
    if ready:
        time.sleep(_LOOKS_EVERY_S)
    return False


def _end(process: subprocess.Popen[str], *, asked: bool) -> None:
    """Wait for its end, for long; one that waits for an object ends by itself, for none will come."""
    if asked and process.poll() is None:
        process.terminate()
    with suppress(BrokenPipeError):
        cast(IO[str], process.stdin).close()
    try:
        process.wait(TIME_TO_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    cast(IO[str], process.stdout).close()
