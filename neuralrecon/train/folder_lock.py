"""One run at a time in an output folder. The system lets go of the lock when its process ends, however that happens."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from ..errors import ConfigError
from ..files import read_json

_log = logging.getLogger(__name__)

LOCK_FILE = ".lock"
PATIENCE_S = 5.0  # a killed process of some gigabytes takes a while to go


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lock, or held it when it was killed."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def alone_in(folder: Path, *, patience_s: float | None = None) -> Iterator[None]:
    """Keep others out of an existing folder while the block runs.

    The lock is the system's (flock), so that a kill leaves none behind; the file says who has it. Across hosts it holds
    if the file system passes locks on, as NFS does.

    Raises:
        ConfigError: another process works there; the message says which.
    """
    path = folder / LOCK_FILE
    handle = _taken(path, PATIENCE_S if patience_s is None else patience_s)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for it notices that it is another file
        os.close(handle)


def holder_of(folder: Path) -> Holder | None:
    """Who works in a folder, or was killed there; None if nobody."""
    try:
        told = read_json(folder / LOCK_FILE)
        return Holder(pid=int(told["pid"]), host=str(told["host"]), since=str(told["since"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def is_locked(folder: Path) -> bool:
    """Whether somebody holds the folder's lock now."""
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # locks are not known here: the file is all there is
        return True
    finally:
        os.close(handle)
    return False


def _taken(path: Path, patience_s: float) -> int:
    until = time.monotonic() + patience_s
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if _is_ours(handle, path):
            break
        os.close(handle)
        if time.monotonic() >= until:
            holder = holder_of(path.parent) or "a process that does not say which"
            raise ConfigError(
                f"{path.parent}: another run is at work there ({holder}); wait for it, stop it, or name another folder"
            )
        time.sleep(0.1)
    if (before := holder_of(path.parent)) is not None:
        _log.info("%s: taking over from %s, which ended without letting go", path.parent, before)
    us = Holder(pid=os.getpid(), host=socket.gethostname(), since=datetime.now().isoformat(timespec="seconds"))
    os.ftruncate(handle, 0)
    os.pwrite(handle, (json.dumps(asdict(us)) + "\n").encode(), 0)
    return handle


def _is_ours(handle: int, path: Path) -> bool:
    """Whether the lock could be had, on the file that is there now and not on one that its holder has removed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        _log.warning("%s: no locks on this file system (%s); keep other runs out of the folder yourself", path, error)
        return True
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
