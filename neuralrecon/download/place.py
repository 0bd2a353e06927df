"""A part's files into the object's folder, all of them at once.

The folder as it will be is made beside the object's own, with the files that are there as hard links, and then takes
its name. What a kill leaves at any moment is either the old folder or the new one, under its own name or (between two
renames) beside it, from where `recover` brings it back.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DownloadError
from ..files import flush, read_json, replacing

MARKER = ".downloaded.json"


def finished_parts(folder: Path) -> dict[str, Any]:
    """What the marker in an object's folder says: part -> its archive; empty if there is none.

    Raises:
        DownloadError: the marker cannot be read.
    """
    path = folder / MARKER
    if not path.exists():
        return {}
    try:
        parts = read_json(path)["parts"]
        return {part: dict(note) | {"archive_is_kept": bool(note["archive_is_kept"])} for part, note in parts.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(
            f'{path}: not readable ({type(error).__name__}: {error}), want {{"parts": {{NAME: …}}}}; '
            "delete it to have the object's parts fetched again"
        ) from error


def new_folder(folder: Path, part: str) -> Path:
    """Where a part is unpacked to before it is placed: beside the object's folder, on the same disk."""
    return folder.resolve().parent / f".{folder.resolve().name}.{part}.new"


def _old_folder(folder: Path) -> Path:
    return folder.resolve().parent / f".{folder.resolve().name}.old"


def recover(folder: Path) -> None:
    """Clear what a killed call has left beside an object's folder, and bring the folder back if it has no name."""
    folder, old = folder.resolve(), _old_folder(folder)
    if old.exists():
        if folder.exists():
            shutil.rmtree(old)
        else:
            os.rename(old, folder)
    if folder.parent.is_dir():
        for entry in folder.parent.iterdir():
            if entry.name.startswith(f".{folder.name}.") and entry.name.endswith(".new"):
                shutil.rmtree(entry)


def place(new: Path, folder: Path, part: str, note: dict[str, Any], *, overwrite: bool = False) -> None:
    """Make the files of `new` part of the object's folder, with a note of it in the folder's marker.

    `new` is used up. Files that are there already and are the same stay.

    Raises:
        DownloadError: a file is there already and differs, and `overwrite` is not set; nothing was changed.
    """
    folder, old = folder.resolve(), _old_folder(folder)
    parts = finished_parts(folder) | {part: note}
    if folder.exists():
        _drop_what_is_there(new, folder, overwrite)
        _link_all(folder, new)
    marker = new / MARKER
    marker.unlink(missing_ok=True)  # a link of the old one's, which must stay as it is
    with replacing(marker) as temporary:
        temporary.write_text(json.dumps({"parts": parts}, indent=1) + "\n")
    _flush_all(new)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    flush(folder.parent)
    if old.exists():
        shutil.rmtree(old)


def _below(folder: Path) -> Iterator[tuple[Path, Path]]:
    """(path relative to the folder, path) of all files and links in it, and of its folders before what they hold."""
    for entry in sorted(folder.iterdir()):
        yield entry.relative_to(folder), entry
        if entry.is_dir() and not entry.is_symlink():
            yield from ((entry.relative_to(folder) / inner, path) for inner, path in _below(entry))


def _drop_what_is_there(new: Path, folder: Path, overwrite: bool) -> None:
    """Take out of `new` the files that the folder has too; with `overwrite` only those that are the same."""
    clashes = []
    for relative, path in list(_below(new)):
        there = folder / relative
        if not os.path.lexists(there) or (there.is_dir() and path.is_dir()):
            continue
        if there.is_file() and path.is_file() and filecmp.cmp(there, path, shallow=False):
            path.unlink()
        elif not overwrite or there.is_dir() or path.is_dir():
            clashes.append(str(relative))
    if clashes:
        raise DownloadError(
            f"{folder / clashes[0]}: is there already and differs from the archive's (so do {len(clashes) - 1} more "
            "files); move them away, or give overwrite=true to have the archive's"
        )


def _link_all(folder: Path, new: Path) -> None:
    """The folder's files in `new` too, without a copy where the disk can do that."""
    for relative, path in _below(folder):
        there = new / relative
        if path.is_symlink():
            if not os.path.lexists(there):
                os.symlink(os.readlink(path), there)
        elif path.is_dir():
            there.mkdir(exist_ok=True)
        elif not there.exists():
            try:
                os.link(path, there)
            except OSError:
                shutil.copy2(path, there)


def _flush_all(folder: Path) -> None:
    """To the disk, before the folder gets its name: else a power cut could leave empty files under it.

    After all are written, for then the first one flushed takes most of the others along.
    """
    for _, path in _below(folder):
        if not path.is_symlink():
            flush(path)
    flush(folder)
