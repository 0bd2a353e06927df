"""What is to be done for one object, and whether it is still to be done."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..train.run_config import RunConfig
from ..train.run_folder import as_yaml
from .outcome import Outcome, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One object: `words` are those of `python -m neuralrecon.train` but for `out`, `name` is also its place in `out`.

    `size` is that of the capture on the disk in bytes, `fingerprint` changes with the settings and the capture's files.
    """

    name: str
    words: tuple[str, ...]
    size: int
    fingerprint: str


def job_of(name: str, words: Sequence[str], config: RunConfig) -> Job:
    """The job of a run with these settings, which `words` give."""
    folder = config.capture if config.capture is not None else config.data / config.object.folder
    told = hashlib.sha256(as_yaml(config).encode())
    size = 0
    if config.capture is not None or config.object.set != "demo":  # a demo's settings say all about its capture
        for path, stat in _files(folder):
            told.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
            size += stat.st_size
    return Job(name=name, words=tuple(words), size=size, fingerprint=told.hexdigest()[:16])


def is_due(job: Job, known: Outcome | None, *, force: bool) -> bool:
    """Whether a job is to be done: it is missing, or failed or poor and another try may end otherwise.

    A run that failed by what it was given, or is poor, ends the same way until its settings or its capture change.
    """
    if force or known is None:
        return True
    if known.status == Status.ok:
        return False
    return known.fingerprint != job.fingerprint or not (known.status == Status.poor or known.lies_in_input)


def names_of_captures(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with as many of those above as it takes to tell them apart.

    Raises:
        ConfigError: one is named twice.

    Example:
        >>> names_of_captures([Path("a/x/cup"), Path("a/y/cup")])
        ['x/cup', 'y/cup']
    """
    absolute = [folder.resolve() for folder in folders]
    twice = next((folder for folder in absolute if absolute.count(folder) > 1), None)
    if twice is not None:
        raise ConfigError(f"captures: {twice} is named twice")
    for depth in range(1, max((len(folder.parts) for folder in absolute), default=1) + 1):
        names = ["/".join(folder.parts[-depth:]).lstrip("/") for folder in absolute]
        if len(set(names)) == len(names):
            break
    return names


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """(path below the folder, what the system says of it), sorted; nothing if there is no folder."""
    paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    for path in sorted(paths):
        try:
            yield path.relative_to(folder).as_posix(), path.stat()
        except OSError:  # gone or a dead link, about which the run itself says what there is to say
            yield path.relative_to(folder).as_posix(), path.lstat()
