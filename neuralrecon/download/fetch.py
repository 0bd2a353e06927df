"""One archive from its servers to the disk, whole, however often the connection breaks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import DamagedArchiveError, DownloadError
from ..files import read_json, replacing
from .lockfile import Recorded
from .progress import Progress
from .room import GB, check_room
from .sets import Archive
from .settings import DownloadConfig
from .transfer import AbsentError, Answer, NotHereError, PassingError, SpoiltError, asked, body

_WORTHWHILE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An archive on the disk. `doubtful`: it came in pieces, in an earlier call, or without an announced size."""

    path: Path
    url: str
    doubtful: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """The bytes of one address that are there so far, and beside them which version of the file they are of."""

    path: Path
    url: str
    validator: str = ""
    size: int | None = None

    @classmethod
    def of(cls, packed: Path, url: str) -> Half:
        """What an earlier try left. Each address has its own, so that no two servers' files are ever spliced."""
        half = cls(path=packed.with_name(f"{packed.stem}.{zlib.crc32(url.encode()):08x}.part"), url=url)
        try:
            noted = read_json(half._note)
            size = noted["size"]
            half = replace(half, validator=str(noted["validator"]), size=None if size is None else int(size))
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            half.drop()  # nothing says what its bytes are of
        return half

    @property
    def _note(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def n_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def drop(self) -> None:
        for path in (self.path, self._note):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def begun(self, answer: Answer) -> Half:
        """A new, empty one for this answer; the note comes before the first byte."""
        self.drop()
        half = replace(self, validator=answer.validator, size=answer.size)
        with replacing(half._note) as temporary:
            temporary.write_text(json.dumps({"validator": half.validator, "size": half.size}))
        return half


def locate(archive: Archive, config: DownloadConfig) -> Archive:
    """The archive with the addresses that may have it, the one that says so first, and the size that it announces.

    Raises:
        DownloadError: no server has it.
    """
    reasons = []
    for index, url in enumerate(archive.urls):
        try:
            with asked(url, config.http, head=True) as answer:
                return replace(archive, urls=archive.urls[index:], size=answer.size)
        except AbsentError as error:
            reasons.append(f"{url}: {error}")
        except (NotHereError, PassingError):
            # it may only dislike being asked for headers, and the fetch itself has patience
            return replace(archive, urls=archive.urls[index:])
    raise _no_server(archive, reasons)


def _no_server(archive: Archive, reasons: list[str]) -> DownloadError:
    setting = f"{archive.folder.partition('/')[0]}_servers"
    return DownloadError(
        f"{archive.key}: no server gave the archive ({'; '.join(reasons)}); what was fetched so far is kept: try again "
        f"later, or set {setting}=[ADDRESS] to a server that has it"
    )


def fetch(
    archive: Archive, config: DownloadConfig, recorded: Recorded | None, progress: Progress, given_up: set[str]
) -> Fetched:
    """The whole archive under `archive.packed(data)`: as it is if it is there, else fetched from where it broke off.

    Args:
        recorded: what the lock file says of it; a server whose file has another size is not asked for the bytes.
        given_up: hosts that have failed for another archive after all retries; each gets one try now, so that hundreds
            of archives do not each wait for a dead one. This call adds and removes hosts.

    Raises:
        DownloadError: no server gave it, or it is larger than the settings allow or than the disk has room for.
    """
    packed = archive.packed(config.data)
    if packed.exists():
        return Fetched(path=packed, url=recorded.url if recorded else archive.urls[0], doubtful=True)
    packed.parent.mkdir(parents=True, exist_ok=True)
    reasons: list[str] = []
    silent: set[str] = set()
    for url in archive.urls:
        host = urlsplit(url).netloc
        if host in silent:
            continue
        retries = 0 if host in given_up else config.http.retries
        patience = replace(config, http=replace(config.http, retries=retries))
        try:
            fetched = _from(url, archive, patience, recorded, progress)
            given_up.discard(host)
            return fetched
        except NotHereError as error:
            reasons.append(f"{url}: {error}")
        except PassingError as error:
            reasons.append(f"{url}: {error}, after {retries + 1} {'tries' if retries else 'try'}")
            silent.add(host)
            given_up.add(host)
    raise _no_server(archive, reasons)


def _from(url: str, archive: Archive, config: DownloadConfig, recorded: Recorded | None, progress: Progress) -> Fetched:
    """The archive from one address, asked again and again."""
    packed, n_breaks, n_vain, most = archive.packed(config.data), 0, 0, 0
    n_breaks += Half.of(packed, url).n_bytes > 0
    while True:
        half = Half.of(packed, url)
        try:
            if half.size is None or half.n_bytes != half.size:
                half = _one_try(half, archive, config, recorded, progress)
            _finish(half, packed)
            clear(archive, config.data, keep=True)
            return Fetched(path=packed, url=url, doubtful=n_breaks > 0 or half.size is None)
        except PassingError as error:
            if isinstance(error, SpoiltError):
                half.drop()
            n_breaks += 1
            have = half.n_bytes
            n_vain = 0 if have >= most + _WORTHWHILE_BYTES else n_vain + 1
            most = max(most, have)
            if n_vain > config.http.retries:
                raise
            doubled = config.http.first_wait_s * 2.0 ** min(max(n_vain - 1, 0), 60)  # 60: what a float holds
            wait = min(max(doubled, error.wait_s), config.http.longest_wait_s)
            progress.say(f"{archive.key}: {error} at {have / 1e6:.1f} MB; again in {wait:.0f} s")
            progress.pause(wait)


def _one_try(
    half: Half, archive: Archive, config: DownloadConfig, recorded: Recorded | None, progress: Progress
) -> Half:
    """Ask once and keep what comes; returns only when the file is whole."""
    limit = int(config.limits.archive_gb * GB)
    with asked(half.url, config.http, start=half.n_bytes, validator=half.validator) as answer:
        if answer.start and half.size not in (None, answer.size):
            raise SpoiltError(f"the file on the server has {answer.size} bytes now, {half.size} before")
        if recorded and answer.size not in (None, recorded.size):
            raise NotHereError(recorded.differs(f"{answer.size} bytes", f"{recorded.size} bytes"))
        if (answer.size or 0) > limit:
            raise DownloadError(_too_large(half.url, f"{answer.size} bytes", config))
        if answer.size:
            check_room(half.path, answer.size - answer.start, config.limits.spare_gb, archive.key)
        if not answer.start:
            half = half.begun(answer)
        have = answer.start
        progress.begin(archive.key, have, answer.size)
        with half.path.open("ab") as file:
            for chunk in body(answer, config.http):
                file.write(chunk)
                have += len(chunk)
                progress.at(archive.key, have)
                if have > limit:
                    raise DownloadError(_too_large(half.url, f"more than {limit} bytes", config))
    if answer.size is not None and have < answer.size:
        raise PassingError(f"the connection was cut, {have} of {answer.size} bytes came")
    if answer.size is not None and have > answer.size:
        raise SpoiltError(f"{have} bytes came, {answer.size} were announced")
    return half


def _too_large(url: str, got: str, config: DownloadConfig) -> str:
    return f"{url}: {got}, want {config.limits.archive_gb:g} GB at most; raise limits.archive_gb if you trust it"


def _finish(half: Half, packed: Path) -> None:
    """The half takes the archive's name."""
    with half.path.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(half.path, packed)


def clear(archive: Archive, data: Path, *, keep: bool) -> None:
    """Remove all halves of an archive that is done with, and the archive itself unless `keep`."""
    packed = archive.packed(data)
    for pattern in (f"{packed.stem}.*.part", f"{packed.stem}.*.json", f".{packed.stem}.*"):
        for rest in packed.parent.glob(pattern):
            rest.unlink()
    if not keep:
        packed.unlink(missing_ok=True)


def checksum(fetched: Fetched, recorded: Recorded | None) -> Recorded:
    """Size and sha256 of a fetched archive, for the lock file.

    Raises:
        DamagedArchiveError: they are not those that the lock file has.
    """
    with fetched.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    found = Recorded(url=fetched.url, size=fetched.path.stat().st_size, sha256=digest)
    if recorded and (recorded.size, recorded.sha256) != (found.size, found.sha256):
        got, want = f"{found.size} bytes with sha256 {found.sha256}", f"{recorded.size} bytes with {recorded.sha256}"
        raise DamagedArchiveError(f"{fetched.path}: {recorded.differs(got, want)}")
    return recorded or found
