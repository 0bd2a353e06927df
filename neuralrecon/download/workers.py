"""Several archives at once, and one download at a time on a data root."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from ..errors import DownloadError
from .progress import Progress, StoppedError

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_STOP = 2.0
Item = TypeVar("Item")


def for_each(
    items: Sequence[Item],
    action: Callable[[Item], None],
    *,
    at_once: int,
    progress: Progress,
    show: Callable[[], None] = lambda: None,
) -> None:
    """Call `action` with each item, on so many threads; `show` is called from this one now and then.

    What an action raises stops all others and is raised here, and so is an interrupt from the keyboard. The threads
    are daemons: one that still waits for a silent server does not keep the program from ending.
    """
    work = _Work(left=deque(items), action=action, progress=progress)
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(items)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_SECONDS_BETWEEN_LOOKS)
                show()
    except BaseException:
        progress.stop()
        for thread in threads:
            thread.join(_SECONDS_TO_STOP)
        raise
    if work.raised:
        raise work.raised[0]


@dataclass(slots=True, kw_only=True)
class _Work(Generic[Item]):
    """What the threads share: each takes the next item until there is none or one has failed."""

    left: deque[Item]
    action: Callable[[Item], None]
    progress: Progress
    raised: list[BaseException] = field(default_factory=list)

    def __call__(self) -> None:
        try:
            for item in self._items():
                self.progress.check()
                self.action(item)
        except StoppedError:
            pass
        except BaseException as error:  # raised again in the thread that asked
            self.raised.append(error)
            self.progress.stop()

    def _items(self) -> Iterator[Item]:
        while True:
            try:
                item = self.left.popleft()
            except IndexError:
                return
            yield item


@contextmanager
def alone(data: Path) -> Iterator[None]:
    """Keep other downloads off the data root while the block runs; a kill lets go of it.

    Raises:
        DownloadError: another one is at work there.
    """
    folder = data / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".in_use").open("ab") as file:
        if not _taken(file.fileno()):
            raise DownloadError(f"{data}: another download is at work there; wait for it, or use another data=DIR")
        yield


def _taken(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: there a second download is the user's own care
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
