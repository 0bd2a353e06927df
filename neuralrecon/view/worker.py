"""One thread that computes what is shown, so seldom that a training beside it hardly notices."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from ..errors import NeuralReconError

_log = logging.getLogger(__name__)

REST = 40.0  # beside a training: after a job that took t seconds, nothing for so many t
_LOOKS_EVERY_S = 0.25


class Worker:
    """Does named jobs one after the other, the first of `jobs` first. A job that is asked for twice is done once.

    Args:
        jobs: what to do, by name, the most urgent first.
        look: called four times a second while somebody watches; it may ask for jobs.
        is_watched: whether anybody sees the result; else jobs wait.
        is_beside_training: whether there is to be a rest of `REST` times a job's duration after it.
        tell: what went wrong, in words for the user; None when a job has gone well again.
    """

    def __init__(
        self,
        jobs: Mapping[str, Callable[[], None]],
        *,
        look: Callable[[], None],
        is_watched: Callable[[], bool],
        is_beside_training: Callable[[], bool],
        tell: Callable[[str, str | None], None],
    ) -> None:
        self._jobs, self._look, self._is_watched = dict(jobs), look, is_watched
        self._is_beside_training, self._tell = is_beside_training, tell
        self._due: dict[str, float] = {}
        self._change = threading.Condition()
        self._stopped = self._is_busy = False
        self._rest_until = 0.0
        self.busy_s = 0.0
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="neuralrecon-view", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask(self, *names: str, after_s: float = 0.0) -> None:
        """Do these jobs; `after_s` from now, unless they are asked for again before."""
        with self._change:
            for name in names:
                assert name in self._jobs, name
                self._due[name] = time.monotonic() + after_s
            self._change.notify()

    def stop(self) -> None:
        """Return when the job at hand is done and the thread has ended."""
        with self._change:
            self._stopped = True
            self._change.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is asked for and nothing is being done."""
        with self._change:
            return not self._due and not self._is_busy

    @property
    def rest_s(self) -> float:
        """Seconds until the next job may begin."""
        return max(0.0, self._rest_until - time.monotonic())

    def _work(self) -> None:
        while True:
            with self._change:
                if not self._stopped and self._next() is None:
                    self._change.wait(_LOOKS_EVERY_S)
                if self._stopped:
                    return
            if not self._is_watched():
                time.sleep(_LOOKS_EVERY_S)
                continue
            self._guarded("look", self._look)
            with self._change:
                name = self._next()
                if name is None:
                    continue
                del self._due[name]
                self._is_busy = True
            started = time.monotonic()
            self._guarded(name, self._jobs[name])
            took = time.monotonic() - started
            self.busy_s += took
            with self._change:
                self._is_busy = False
            if self._is_beside_training():
                self._rest_until = time.monotonic() + REST * took

    def _next(self) -> str | None:
        now = time.monotonic()
        if now < self._rest_until:
            return None
        return next((name for name in self._jobs if self._due.get(name, now + 1) <= now), None)

    def _guarded(self, name: str, job: Callable[[], None]) -> None:
        try:
            job()
        except (NeuralReconError, OSError) as error:
            self._tell(name, " ".join(str(error).split()))
        except Exception as error:  # a bug of ours: told, kept for whoever asks, and the viewer goes on
            self.failure = error
            _log.exception("the viewer could not do '%s'", name)
            self._tell(name, f"{type(error).__name__}: {error}")
        else:
            self._tell(name, None)
