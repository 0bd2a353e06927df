"""Room on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ..errors import DownloadError
from .sets import Archive
from .settings import DownloadConfig

GB = 10**9
# real archives unpack to 1.6 times their size
_GROWTH = 2.0


def check_room(place: Path, n_bytes: int, spare_gb: float, what: str) -> None:
    """See that the disk of `place` has room for so many bytes more.

    Raises:
        DownloadError: it has not; nothing was written.
    """
    free = free_bytes(place)
    if n_bytes + spare_gb * GB > free:
        raise DownloadError(
            f"{what}: needs {n_bytes / GB:.1f} GB on the disk of {place.parent} and {spare_gb:g} GB to spare, "
            f"{free / GB:.1f} GB are free; free some, choose fewer objects or parts, or set data=DIR on another disk"
        )


def free_bytes(place: Path) -> int:
    """Free bytes on the disk that a file or folder is on, or will be."""
    there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def needed_bytes(archives: Sequence[Archive], config: DownloadConfig) -> int:
    """The most that these archives take on the disk at one time, beyond what is there; unknown sizes count nothing."""
    sizes = sorted((archive.size or 0 for archive in archives), reverse=True)
    at_one_time = sizes if config.keep_archives else sizes[: config.at_once]
    here = sum(_here(archive, config.data) for archive in archives)
    return max(0, int(sum(at_one_time) + _GROWTH * sum(sizes)) - here)


def _here(archive: Archive, data: Path) -> int:
    """Bytes of the archive that are on the disk already."""
    packed = archive.packed(data)
    halves = packed.parent.glob(f"{packed.stem}.*.part") if packed.parent.is_dir() else ()
    return min(archive.size or 0, max((p.stat().st_size for p in (packed, *halves) if p.exists()), default=0))
