"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` only if the block ends well.

    The temporary name keeps the suffix, for writers that choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """A file's bytes or a folder's names, to the disk; where it cannot be opened for that (Windows) nothing is done."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_npz(path: Path, **arrays: np.ndarray | np.generic | float) -> Path:
    """An .npz file of these arrays, whole or not at all."""
    with replacing(path) as temporary:
        np.savez(temporary, allow_pickle=False, **{name: np.asarray(value) for name, value in arrays.items()})
    return path
