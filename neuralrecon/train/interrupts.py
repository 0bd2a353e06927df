"""Signals that ask a run to end (Ctrl-C, Slurm's pre-emption): a fit writes a checkpoint first, others just end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(KeyboardInterrupt):
    """A signal asked for the end; `status` is the exit status that a shell expects then."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"ended by {signal.Signals(signum).name}; the same command goes on from here")
        self.status = 128 + signum


@dataclass(slots=True)
class Interrupts:
    """What has been asked for so far. The first signal is only noted where somebody looks; any other ends at once."""

    signum: int | None = None
    _looks: bool = field(default=False, init=False)

    @contextmanager
    def noted(self) -> Iterator[Interrupts]:
        """Within the block the first signal raises nothing: who runs there looks at `asked` now and then."""
        self._looks = True
        try:
            yield self
        finally:
            self._looks = False
        self.end_if(self.asked())

    def asked(self) -> bool:
        return self.signum is not None

    def end_if(self, now: bool) -> None:
        """Raise what a signal has asked for, if `now`.

        Raises:
            StoppedError: so it is.
        """
        if now and self.signum is not None:
            raise StoppedError(self.signum)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        second, self.signum = self.signum is not None, signum
        self.end_if(second or not self._looks)


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Take SIGTERM and SIGINT over for the block; outside of the main thread, where Python cannot, nothing changes."""
    found = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = {signum: signal.signal(signum, found.handle) for signum in _SIGNALS}
    try:
        yield found
    except KeyboardInterrupt as error:
        if not isinstance(error, StoppedError):  # a library that waits made one of its own of ours
            found.end_if(found.asked())
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
