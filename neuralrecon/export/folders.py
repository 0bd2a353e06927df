"""Folders that are there whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@contextmanager
def whole_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder beside `target` to write into; it takes that name only if the block ends well.

    Raises:
        ConfigError: `target` is a file, or has something in it and may not be replaced.
    """
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file; name a folder")
    if not overwrite and target.is_dir() and any(target.iterdir()):
        raise ConfigError(f"{target} is there already; add overwrite=true to replace it, or give another out=DIR")
    target.parent.mkdir(parents=True, exist_ok=True)
    new, old = (target.with_name(f".{target.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        if target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def file_name(name: str) -> str:
    """A name that is safe as a part of any path: letters, digits, dot, dash and underscore.

    Example:
        >>> file_name("../left camera/0")
        'left_camera_0'
    """
    return _UNSAFE.sub("_", name).strip("._") or "unnamed"


def file_names(names: list[str]) -> dict[str, str]:
    """`file_name` of each name; those that would be the same get a number."""
    taken: dict[str, str] = {}
    for name in dict.fromkeys(names):
        wanted = file_name(name)
        taken[name] = next(w for w in (wanted, *(f"{wanted}_{i}" for i in range(2, 10**6))) if w not in taken.values())
    return taken
