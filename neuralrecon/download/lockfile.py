"""The lock file: size and checksum of every archive as it was when it was first fetched.

The data sets publish no checksums, so the first download is taken as it comes, and every later one is held to it. The
file may be copied to another data root, or kept with a paper's code, so that others get the same bytes.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import DownloadError
from ..files import read_json, replacing

LOCK_FILE = "download.lock.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An archive as it was: where it came from, its size in bytes, its sha256 in hexadecimal."""

    url: str
    size: int
    sha256: str

    def differs(self, got: str, want: str) -> str:
        """What to tell when an archive is another one."""
        return (
            f"got {got}, want {want} as {LOCK_FILE} has it: the server's file has changed since; "
            f"if you trust the new one, take its entry out of {LOCK_FILE} and run again"
        )


class LockFile:
    """The lock file of a data root. Several threads may record."""

    def __init__(self, data: Path) -> None:
        """Read it.

        Raises:
            DownloadError: it is there and cannot be read.
        """
        self.path = data / LOCK_FILE
        self._one_at_a_time = threading.Lock()
        self._archives: dict[str, Recorded] = {}
        for rest in data.glob(f".{self.path.stem}.*.json"):
            rest.unlink()  # a killed call's
        if not self.path.exists():
            return
        try:
            entries = read_json(self.path)["archives"]
            self._archives = {key: _entry(entry) for key, entry in entries.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DownloadError(
                f"{self.path}: not readable as a lock file ({type(error).__name__}: {error}), want "
                '{"archives": {NAME: {"url", "size", "sha256"}}}; restore it, or delete it to trust what servers have'
            ) from error

    def get(self, key: str) -> Recorded | None:
        return self._archives.get(key)

    def record(self, key: str, found: Recorded) -> None:
        """Add an entry and write the file, whole or not at all; an entry that is there stays."""
        with self._one_at_a_time:
            if key in self._archives:
                return
            self._archives[key] = found
            entries = {name: asdict(entry) for name, entry in sorted(self._archives.items())}
            with replacing(self.path) as temporary:
                temporary.write_text(json.dumps({"archives": entries}, indent=1) + "\n")


def _entry(entry: dict[str, object]) -> Recorded:
    url, size, digest = entry["url"], entry["size"], entry["sha256"]
    if not (isinstance(url, str) and isinstance(size, int) and isinstance(digest, str)):
        raise TypeError(f"url, size or sha256 of another kind: {url!r}, {size!r}, {digest!r}")
    return Recorded(url=url, size=size, sha256=digest)
