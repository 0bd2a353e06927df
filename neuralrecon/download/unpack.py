"""Unpacking an archive that nobody vouches for.

Only plain files and folders are written, by our own calls, into a folder that nothing else writes to; links are refused
and not followed, so no member can lead out of it. Every read is bounded: in size, in memory, against the packed size.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from ..errors import ArchiveError, DamagedArchiveError, DownloadError
from .members import Names, is_junk, plain_path, refused
from .room import GB, free_bytes
from .settings import LimitsConfig

_CHUNK = 1 << 20
# small archives of text may grow more than large ones of pictures
_GROWTH_THAT_IS_FINE = 64_000_000
_HEADER_BYTES, _HEADERS_BYTES_A_FILE = 1 << 20, 4096
_ANEW = "it must be fetched anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What an archive held; `folder` is where its files are. Junk was left out."""

    folder: Path
    n_files: int
    n_bytes: int
    n_junk: int


def unpack(
    path: Path, into: Path, root: str, limits: LimitsConfig | None = None, check: Callable[[], None] = lambda: None
) -> Unpacked:
    """Unpack a .tgz into a new folder.

    Args:
        path: the archive.
        into: the folder to make; it may be half full after an error.
        root: the archive's own top folder, which is left out of the result; an archive without one is taken as it is.
        check: called now and then; what it raises ends the unpacking.

    Raises:
        DamagedArchiveError: the archive is cut off, altered, or none.
        ArchiveError: a member is a link, a device or leads elsewhere, or there is too much of something.
        DownloadError: the disk is full.

    Example:
        >>> unpack(Path("rgbd.tgz"), Path("new"), "003_cracker_box").n_files  # doctest: +SKIP
    """
    if not path.is_file():
        raise DamagedArchiveError(f"{path}: no such file, want a .tgz; {_ANEW}")
    limits = limits or LimitsConfig()
    into.mkdir(parents=True)
    with path.open("rb") as file:
        _check_magic(file, path)
        stream = _Stream(file, path, limits)
        members, names, counts = _Members(stream, path), Names(str(path)), [0, 0, 0]
        while (member := members.next()) is not None:
            check()
            if members.n > limits.files:
                raise ArchiveError(f"{path}: more than {limits.files} members; raise limits.files if you trust it")
            relative = plain_path(member, str(path))
            names.add(relative, is_folder=member.isdir()) if relative.parts else None
            n_bytes = _write(member, relative, into, stream, limits, check)
            if not member.isdir():
                counts[0 if n_bytes is not None else 2] += 1
                counts[1] += n_bytes or 0
        stream.check_end()
    if not counts[0]:
        raise DamagedArchiveError(f"{path}: holds no file, want those of {root}; {_ANEW}")
    return Unpacked(folder=_content(into, root, path), n_files=counts[0], n_bytes=counts[1], n_junk=counts[2])


def _check_magic(file: IO[bytes], path: Path) -> None:
    try:
        start = file.read(512)
        file.seek(0)
    except OSError as error:
        raise _unreadable_disk(path, error) from error
    if not start.startswith(b"\x1f\x8b"):
        what = f"starts with {start[:40]!r}" if start else "is empty"
        raise DamagedArchiveError(f"{path}: {what}, want a gzip file (.tgz); the server sent something else; {_ANEW}")


def _unreadable_disk(path: Path, error: OSError) -> DownloadError:
    return DownloadError(f"{path}: cannot be read ({error}); look after the disk and run again")


def _write(
    member: tarfile.TarInfo,
    relative: PurePosixPath,
    into: Path,
    stream: _Stream,
    limits: LimitsConfig,
    check: Callable[[], None],
) -> int | None:
    """Write a member; the bytes of a file, None for folders and junk."""
    if member.isdir():
        if not is_junk(relative):
            (into / relative).mkdir(parents=True, exist_ok=True)
        return None
    stream.announce(member.size)
    if is_junk(relative):
        stream.skip(member.size)
        return None
    if member.size + limits.spare_gb * GB > free_bytes(into):
        raise DownloadError(
            f"{stream.path}: {member.name} has {member.size} bytes, want {limits.spare_gb:g} GB left on the disk of "
            f"{into.parent} after it; free some and run again, nothing is fetched twice"
        )
    target = into / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        for chunk in stream.content(member.size):
            file.write(chunk)
            check()
    return member.size


def _content(into: Path, root: str, path: Path) -> Path:
    """Where the object's files are: in the archive's top folder, or without one."""
    found = sorted(entry.name for entry in into.iterdir())
    if found == [root] and (into / root).is_dir():
        return into / root
    if root in found and len(found) > 1:
        other = next(name for name in found if name != root)
        raise refused(f"{path}:", f"{other!r} lies beside the folder {root!r}")
    if len(found) == 1 and (into / found[0]).is_dir():
        raise refused(f"{path}:", f"all is in the folder {found[0]!r} instead of {root!r}")
    return into


class _Members:
    """The members of an archive in their order, by the standard library's reader."""

    def __init__(self, stream: _Stream, path: Path) -> None:
        self.n, self._path, self._stream = 0, path, stream
        self._tar: tarfile.TarFile | None = None

    def next(self) -> tarfile.TarInfo | None:
        """The next member, None at the end.

        Raises:
            DamagedArchiveError: its header cannot be read.
        """
        try:
            if self._tar is None:
                file = cast(IO[bytes], self._stream)  # it reads, tells and skips, which is all that a reader needs
                self._tar = tarfile.open(fileobj=file, mode="r:", encoding="utf-8")  # noqa: SIM115
            member = self._tar.next()
        except (DownloadError, OSError):
            raise
        except Exception as error:  # hostile headers make it fail in ways that it does not list
            raise self._stream.unreadable(f"{type(error).__name__}: {error}") from error
        if member is not None:
            self.n += 1
            whole_file = member.isfile() and not member.issparse()
            if member.size < 0 or (whole_file and member.offset_data != self._stream.tell()):
                raise self._stream.unreadable(f"member {member.name!r} says it has {member.size} bytes")
        return member


class _Stream(io.RawIOBase):
    """The unpacked bytes of a .tgz, forwards only and within bounds."""

    def __init__(self, file: IO[bytes], path: Path, limits: LimitsConfig) -> None:
        super().__init__()
        self.path = path
        self._gzip, self._position, self._last = gzip.GzipFile(fileobj=file, mode="rb"), 0, b""
        self._headers_left = limits.files * _HEADERS_BYTES_A_FILE + _HEADER_BYTES
        packed = path.stat().st_size
        self._most = int(min(limits.unpacked_gb * GB, limits.ratio * packed + _GROWTH_THAT_IS_FINE))
        self._bound = (
            f"{self.path}: unpacks to more than {self._most} bytes from {packed}, which looks like an archive made to "
            "fill disks; raise limits.ratio or limits.unpacked_gb if you trust it"
        )

    def unreadable(self, reason: str) -> DamagedArchiveError:
        return DamagedArchiveError(
            f"{self.path}: a header near byte {self._position} is unreadable ({reason}); {_ANEW}"
        )

    def _bytes(self, size: int) -> bytes:
        try:
            data = self._gzip.read(size)
        except EOFError:
            raise DamagedArchiveError(f"{self.path}: is cut off at {self._position} unpacked bytes; {_ANEW}") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DamagedArchiveError(f"{self.path}: damaged near byte {self._position} ({error}); {_ANEW}") from None
        except OSError as error:
            raise _unreadable_disk(self.path, error) from error
        self._position += len(data)
        if self._position > self._most:
            raise ArchiveError(self._bound)
        return data

    def read(self, size: int = -1, /) -> bytes:
        """For the reader of headers alone: it would take a header of any size into memory."""
        if not 0 <= size <= _HEADER_BYTES:
            raise self.unreadable(f"it says that it has {size} bytes")
        self._last = self._bytes(size)
        self._headers_left -= len(self._last)
        if self._headers_left < 0:
            raise ArchiveError(f"{self.path}: has more headers than files; do not unpack it")
        return self._last

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Forwards, over the padding behind a file."""
        if whence or not 0 <= offset - self._position <= _HEADER_BYTES:
            raise self.unreadable(f"it leads from byte {self._position} to {offset}")
        self._bytes(offset - self._position)
        return self._position

    def announce(self, size: int) -> None:
        """A file of this size is next; refuse it before a byte is written, if it is too large."""
        if self._position + size > self._most:
            raise ArchiveError(self._bound)

    def content(self, size: int) -> Iterator[bytes]:
        """The bytes of a file, in pieces."""
        while size:
            data = self._bytes(min(size, _CHUNK))
            if not data:
                raise DamagedArchiveError(f"{self.path}: is cut off at {self._position} unpacked bytes; {_ANEW}")
            size -= len(data)
            yield data

    def skip(self, size: int) -> None:
        for _ in self.content(size):
            pass

    def check_end(self) -> None:
        """After the last member: the end's mark and zeros, and the gzip's own checksum, which only the end checks.

        The standard library's reader takes an unreadable header in the middle for the end.
        """
        if not self._last:
            raise DamagedArchiveError(f"{self.path}: is cut off at {self._position} bytes, no end's mark; {_ANEW}")
        rest = self._last
        while rest:
            if rest.strip(b"\0"):
                raise self.unreadable("neither a member nor the end")
            rest = self._bytes(_CHUNK)
