"""How far a download is: bars on a terminal, else a log line now and then. Also how its threads are told to stop."""

from __future__ import annotations

import functools
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from .room import GB

_log = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 10.0
_RATE_OVER_S = 30.0


class StoppedError(Exception):
    """The download was told to stop."""


@dataclass(slots=True)
class _Item:
    n_bytes: int = 0
    size: int | None = None


@dataclass(slots=True)
class Progress:
    """Counts the bytes of all archives; any thread may tell it something.

    `sizes` are the announced bytes by archive, None where unknown.
    """

    sizes: dict[str, int | None]
    _items: dict[str, _Item] = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _n_done: int = field(default=0, init=False)
    _fetched: int = field(default=0, init=False)
    _history: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    _print: Callable[[str], None] | None = field(default=None, init=False)
    _last_line: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        self._items = {key: _Item(size=size) for key, size in self.sizes.items()}

    def begin(self, key: str, n_bytes: int, size: int | None) -> None:
        """An archive is fetched from this byte on; `size` is what the server announces."""
        with self._lock:
            item = self._items[key]
            item.n_bytes, item.size = n_bytes, item.size if size is None else size

    def at(self, key: str, n_bytes: int) -> None:
        """So many bytes of an archive are on the disk.

        Raises:
            StoppedError: the download was told to stop.
        """
        self.check()
        with self._lock:
            self._fetched += n_bytes - self._items[key].n_bytes
            self._items[key].n_bytes = n_bytes

    def done(self, key: str) -> None:
        """Nothing more comes of this archive, whether it went well or not."""
        with self._lock:
            self._n_done += 1
            self._items[key].size = self._items[key].n_bytes

    def check(self) -> None:
        """Raises StoppedError if the download was told to stop."""
        if self._stop.is_set():
            raise StoppedError

    def pause(self, seconds: float) -> None:
        """Wait, unless the download is told to stop (StoppedError)."""
        self._stop.wait(seconds)
        self.check()

    def stop(self) -> None:
        self._stop.set()

    def say(self, text: str, level: int = logging.INFO) -> None:
        """A line to the log, or above the bars, which a line of the log would tear."""
        if self._print is None:
            _log.log(level, "%s", text)
        else:
            self._print(text)

    def figures(self) -> tuple[int, int, float]:
        """Bytes that are there, bytes in all as far as they are known, bytes per second of late."""
        now = time.monotonic()
        with self._lock:
            here = sum(item.n_bytes for item in self._items.values())
            whole = sum(max(item.size or 0, item.n_bytes) for item in self._items.values())
            self._history.append((now, self._fetched))
            while now - self._history[0][0] > _RATE_OVER_S:
                self._history.popleft()
            since, before = self._history[0]
            return here, whole, (self._fetched - before) / max(now - since, 1e-3)

    def line(self) -> str:
        """As in "3 of 12 archives, 1.20 of 20.10 GB, 8.1 MB/s, 39 min left"."""
        here, whole, rate = self.figures()
        left = f"{(whole - here) / rate / 60:.0f} min left" if rate else "time left unknown"
        return (
            f"{self._n_done} of {len(self._items)} archives, {here / GB:.2f} of {whole / GB:.2f} GB, "
            f"{rate / 1e6:.1f} MB/s, {left}"
        )

    def log_line(self) -> None:
        """The line to the log, if the last one is some time ago."""
        if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            _log.info("%s", self.line())

    @contextmanager
    def shown(self) -> Iterator[_Screen]:
        """Show it while the block runs: call the value every now and then."""
        console = Console(file=sys.stderr)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
            if console.is_terminal:
                self._print = functools.partial(console.print, markup=False, highlight=False)
            yield _Screen(self, bars)
        self._print = None

    def running(self) -> dict[str, tuple[int, int | None]]:
        """Bytes there and in all of the archives that are being fetched."""
        with self._lock:
            return {k: (i.n_bytes, i.size) for k, i in self._items.items() if 0 < i.n_bytes != i.size}


class _Screen:
    """Bars for what is being fetched, and one for all of it."""

    def __init__(self, progress: Progress, bars: Bars) -> None:
        self._progress, self._bars = progress, bars
        self._whole = bars.add_task("all", total=None)
        self._tasks = {}

    def __call__(self) -> None:
        if self._bars.disable:
            self._progress.log_line()
            return
        running = self._progress.running()
        for key in [key for key in self._tasks if key not in running]:
            self._bars.remove_task(self._tasks.pop(key))
        for key, (n_bytes, size) in running.items():
            if key not in self._tasks:
                self._tasks[key] = self._bars.add_task(key)
            self._bars.update(self._tasks[key], completed=n_bytes, total=size)
        here, whole, _ = self._progress.figures()
        self._bars.update(self._whole, completed=here, total=whole)
