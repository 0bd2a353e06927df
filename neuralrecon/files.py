"""Files that are there whole or not at all, and files that are not believed before they are looked at."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

_MOST_JSON_BYTES = 32 * 2**20
_MOST_GROWTH_BYTES = 64 * 2**20


@contextmanager
def replacing(path: Path, *, flushed: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` only if the block ends well.

    It is on the disk before it gets the name: else a power cut could leave an empty file under it; not `flushed` is for
    what nobody needs then. The temporary name keeps the suffix, for writers that choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        if flushed:
            flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """A file's bytes or a folder's names, to the disk; nothing is done for folders on Windows."""
    if os.name == "posix" or path.is_file():
        handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_npz(path: Path, **arrays: np.ndarray | np.generic | float) -> Path:
    """An .npz file of these arrays, whole or not at all."""
    with replacing(path) as temporary:
        np.savez(temporary, allow_pickle=False, **{name: np.asarray(value) for name, value in arrays.items()})
    return path


def read_npz(
    path: Path, wanted: Callable[[str], bool] = lambda _: True, *, most_bytes: int | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file whose names are wanted; never objects, and no more than the file can hold.

    Args:
        most_bytes: what one array may have; by default all together may have 64 MB more than the file.

    Raises:
        OSError, ValueError: it cannot be read, is damaged, or holds other or larger things; decoders of damaged
            archives raise more, all of which becomes ValueError.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as npz:
            if not isinstance(npz, np.lib.npyio.NpzFile) or npz.zip is None:
                raise ValueError("no .npz file but a single array")
            names = [name for name in npz.files if wanted(name)]
            members = {name: _member(npz.zip, name) for name in names}
            left = path.stat().st_size + _MOST_GROWTH_BYTES
            for name, member in members.items():
                left -= member.file_size
                if left < 0 or (most_bytes is not None and member.file_size > most_bytes):
                    raise ValueError(f"{name} has {member.file_size} bytes, far more than belong there")
                with npz.zip.open(member) as content:
                    _require_room(content, name, member.file_size)
            return {name: npz[name] for name in names}
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        OSError, ValueError: it cannot be read, is too large, no UTF-8 or no JSON, or nested too deeply.
    """
    size = path.stat().st_size
    if size > _MOST_JSON_BYTES:
        raise ValueError(f"{size} bytes, want at most {_MOST_JSON_BYTES}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Of an array: numpy leaves the suffix of a member's name out."""
    return archive.getinfo(name if name in archive.namelist() else f"{name}.npy")


def _require_room(content: IO[bytes], name: str, size: int) -> None:
    """That the array is no larger than its member, before memory for it is taken."""
    npy = np.lib.format
    version = npy.read_magic(content)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read_header is None:
        raise ValueError(f"{name} is written in version {version} of the format, want 1.0 or 2.0")
    shape, _, dtype = read_header(content)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name} says that it has the shape {shape}, {size} bytes are there")
