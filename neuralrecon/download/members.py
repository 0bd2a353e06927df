"""What a member of a data set's archive may be: a file or a folder with a plain name, once."""

from __future__ import annotations

import tarfile
import unicodedata
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ..errors import ArchiveError

_LONGEST_PART_BYTES, _LONGEST_PATH_BYTES, _DEEPEST = 255, 1024, 32
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
# a backslash or a colon starts another path on Windows
_FORBIDDEN = {"\\": "a backslash", ":": "a colon"}
_DO = "want plain files and folders inside the object's own; do not unpack it, tell the keepers of the data set"
_JUNK_NAMES = {".DS_Store", "__MACOSX"}


def refused(where: str, got: str) -> ArchiveError:
    """The error for an archive with something that no archive of a data set has."""
    return ArchiveError(f"{where} {got}, {_DO}")


def plain_path(member: tarfile.TarInfo, where: str) -> PurePosixPath:
    """The member's path inside the archive, "." for the archive's root.

    Raises:
        ArchiveError: it is no file or folder, or its name leads elsewhere or is no plain name.
    """
    where = f"{where}: member {member.name!r}"
    if member.issparse() or not (member.isfile() or member.isdir()) or member.type == tarfile.CONTTYPE:
        kind = "a sparse file" if member.issparse() else _KINDS.get(member.type, f"of the unknown kind {member.type!r}")
        raise refused(where, f"is {kind}{f' to {member.linkname!r}' if member.linkname else ''}")
    _check_characters(member.name, where)
    if member.name.startswith("/"):
        raise refused(where, "is an absolute path")
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if not parts and not member.isdir():
        raise refused(where, "has no name")
    if ".." in parts:
        raise refused(where, "climbs out of its folder by '..'")
    if len(parts) > _DEEPEST:
        raise refused(where, f"lies {len(parts)} folders deep, at most {_DEEPEST} are")
    if len(member.name.encode()) > _LONGEST_PATH_BYTES or any(len(p.encode()) > _LONGEST_PART_BYTES for p in parts):
        raise refused(
            where[:200],
            f"has a name of more than {_LONGEST_PART_BYTES} bytes or a path of more than {_LONGEST_PATH_BYTES}",
        )
    return PurePosixPath(*parts)


def _check_characters(name: str, where: str) -> None:
    for character, what in _FORBIDDEN.items():
        if character in name:
            raise refused(where, f"has {what} in its name")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise refused(where, "has control characters in its name, or bytes that are no UTF-8")


def is_junk(path: PurePosixPath) -> bool:
    """Whether it is what macOS adds to archives (`._N1_0.jpg` and the like)."""
    return any(part.startswith("._") or part in _JUNK_NAMES for part in path.parts)


@dataclass(slots=True)
class Names:
    """The paths of an archive so far, so that none comes twice, also where a disk ignores case or accents' spelling."""

    where: str
    _seen: dict[str, tuple[PurePosixPath, bool]] = field(default_factory=dict)

    def add(self, path: PurePosixPath, *, is_folder: bool) -> None:
        """Note a member and the folders that it lies in.

        Raises:
            ArchiveError: the path is there already, in this or another spelling.
        """
        for folder in [p for p in path.parents if p.parts]:
            self._add(folder, is_folder=True)
        self._add(path, is_folder=is_folder)

    def _add(self, path: PurePosixPath, *, is_folder: bool) -> None:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())
        before, was_folder = self._seen.setdefault(key, (path, is_folder))
        first_time = before is path
        if first_time or (before == path and was_folder and is_folder):
            return
        if before != path:
            raise refused(
                f"{self.where}:", f"members {str(before)!r} and {str(path)!r} are one name where case is ignored"
            )
        what = "comes twice" if was_folder == is_folder else "is a file and a folder"
        raise refused(f"{self.where}:", f"member {str(path)!r} {what}")
