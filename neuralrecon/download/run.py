"""The whole of it: what is wanted, what is there, what is fetched, unpacked and placed."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..errors import ArchiveError, DamagedArchiveError, DownloadError
from .fetch import Fetched, checksum, clear, fetch, locate
from .lockfile import LockFile
from .place import finished_parts, new_folder, place, recover
from .progress import Progress
from .room import GB, check_room, needed_bytes
from .sets import Archive, archives_of
from .settings import DownloadConfig
from .unpack import unpack
from .workers import alone, for_each

_log = logging.getLogger(__name__)


def download(objects: Sequence[str], config: DownloadConfig | None = None) -> list[Path]:
    """Fetch objects of YCB and BigBIRD and unpack them to where `object=` of a run looks for them.

    Parts that are there are not fetched again, halves of archives are gone on with. An object's folder shows a part
    with all its files or with none. What fails does not keep the others from coming.

    Args:
        objects: folders under the data root: "ycb/003_cracker_box", "bigbird/cheez_it_white_cheddar".

    Returns:
        The objects' folders, in the order in which they were asked for.

    Raises:
        ConfigError: an object or part is none that the data sets have; nothing was written.
        DownloadError: a part could not be fetched (the message names each), the disk has too little room, or another
            download is at work on the data root.

    Example:
        >>> download(["ycb/003_cracker_box"], DownloadConfig(data=Path("data")))  # doctest: +SKIP
    """
    config = config or DownloadConfig()
    wanted = archives_of(objects, config)
    folders = [config.data / folder for folder in dict.fromkeys(archive.folder for archive in wanted)]
    with alone(config.data):
        failures = _Download(config=config, lock=LockFile(config.data)).all(wanted)
        for archive in wanted:
            _drop_if_empty(archive.packed(config.data).parent, below=config.data / "archives")
    if failures:
        raise DownloadError(f"{len(failures)} of {len(wanted)} archives failed: " + " | ".join(failures.values()))
    return folders


def _is_finished(archive: Archive, config: DownloadConfig) -> bool:
    """Whether nothing is to be done for an archive; what a killed call has left of it is cleared away."""
    folder = config.data / archive.folder
    recover(folder)
    note = finished_parts(folder).get(archive.part)
    if note is None or config.overwrite:
        return False
    clear(archive, config.data, keep=note["archive_is_kept"])
    return True


@dataclass(slots=True, kw_only=True)
class _Download:
    """One call's work; its threads share this."""

    config: DownloadConfig
    lock: LockFile
    failures: dict[str, str] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    placing: threading.Lock = field(default_factory=threading.Lock)

    def all(self, archives: Sequence[Archive]) -> dict[str, str]:
        """Fetch and unpack these; what went wrong, by archive, in their order.

        Raises:
            DownloadError: the disk has too little room for them.
        """
        located: dict[str, Archive] = {}
        asking = Progress({})
        for_each(archives, lambda a: self._look_up(a, located, asking), at_once=self.config.at_once, progress=asking)
        found = [located[a.key] for a in archives if a.key in located]
        _log.info("%d of %d archives are there already", len(archives) - len(found) - len(self.failures), len(archives))
        self._check_room(found)
        progress = Progress({archive.key: archive.size for archive in found})
        with progress.shown() as show:
            for_each(found, lambda a: self._one(a, progress), at_once=self.config.at_once, progress=progress, show=show)
        return {a.key: self.failures[a.key] for a in archives if a.key in self.failures}

    def _look_up(self, archive: Archive, located: dict[str, Archive], progress: Progress) -> None:
        """Where it is and how large, unless it is unpacked already."""
        progress.check()
        try:
            with self.placing:
                if _is_finished(archive, self.config):
                    return
            packed = archive.packed(self.config.data)
            here = packed.exists()
            located[archive.key] = (
                replace(archive, size=packed.stat().st_size) if here else locate(archive, self.config)
            )
        except (DownloadError, OSError) as error:
            self._failed(archive, error, progress)

    def _check_room(self, archives: Sequence[Archive]) -> None:
        if not archives:
            return
        sizes = [archive.size for archive in archives if archive.size is not None]
        unknown = len(archives) - len(sizes)
        _log.info(
            "to fetch: %d archives, %.2f GB%s",
            len(archives),
            sum(sizes) / GB,
            f" and {unknown} of unknown size" * bool(unknown),
        )
        needed = needed_bytes(archives, self.config)
        check_room(self.config.data / "archives", needed, self.config.limits.spare_gb, f"{len(archives)} archives")

    def _failed(self, archive: Archive, error: DownloadError | OSError, progress: Progress) -> None:
        """Note and tell it, with the archive's name and what to do."""
        text, packed = str(error), archive.packed(self.config.data)
        if isinstance(error, ArchiveError):
            text += f"; delete {packed} to have it fetched anew" if packed.exists() else "; it was deleted, run again"
        elif isinstance(error, OSError):
            text += "; what was fetched is kept, run again when that is mended"
        self.failures[archive.key] = text if archive.key in text else f"{archive.key}: {text}"
        progress.say(f"failed: {self.failures[archive.key]}", logging.ERROR)

    def _one(self, archive: Archive, progress: Progress) -> None:
        try:
            self._fetch_and_unpack(archive, progress)
            progress.say(f"{archive.key}: done")
        except (DownloadError, OSError) as error:
            self._failed(archive, error, progress)
        finally:
            progress.done(archive.key)

    def _fetch_and_unpack(self, archive: Archive, progress: Progress, *, again: bool = False) -> None:
        """All of one archive; once more from the start if one that was put together from pieces proves damaged."""
        fetched = fetch(archive, self.config, self.lock.get(archive.key), progress, self.given_up)
        try:
            self._unpack(archive, fetched, progress)
        except DamagedArchiveError as error:
            fetched.path.unlink()
            if not fetched.doubtful or again:
                raise
            progress.say(f"{error}; fetching it once more from the start", logging.WARNING)
            self._fetch_and_unpack(archive, progress, again=True)
            return
        clear(archive, self.config.data, keep=self.config.keep_archives)

    def _unpack(self, archive: Archive, fetched: Fetched, progress: Progress) -> None:
        config, folder = self.config, self.config.data / archive.folder
        found = checksum(fetched, self.lock.get(archive.key))
        new = new_folder(folder, archive.part)
        try:
            unpacked = unpack(fetched.path, new, archive.object, config.limits, progress.check)
            self.lock.record(archive.key, found)
            counts = {"files": unpacked.n_files, "bytes": unpacked.n_bytes}
            note = asdict(found) | counts | {"archive_is_kept": config.keep_archives}
            with self.placing:
                place(unpacked.folder, folder, archive.part, note, overwrite=config.overwrite)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _drop_if_empty(folder: Path, *, below: Path) -> None:
    while folder != below:
        if folder.is_dir():
            if any(folder.iterdir()):
                return
            folder.rmdir()
        folder = folder.parent
