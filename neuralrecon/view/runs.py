"""Run folders: which there are, and what each of them has to show at the moment."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float

from ..capture import Capture
from ..errors import CaptureError, ConfigError, FitError
from ..evaluate import read_mesh
from ..files import read_json
from ..label import OccupancyLabels
from ..train import Fit, load_fit
from ..train.checkpoint import FIT_FILE, PREVIOUS_FILE, has_fit, load_snapshot
from ..train.folder_lock import is_locked
from ..train.progress import SCALARS_FILE
from ..train.run_folder import (
    CAPTURE_FILE,
    CONFIG_FILE,
    FIT_FOLDER,
    INLIER_FOLDER,
    LABEL_FOLDER,
    MESH_FILE,
    SUMMARY_FILE,
    described_capture,
    require_run,
    used_capture,
)
from ..train.snapshots import CURVES_FILE, SNAPSHOT_FILE, WANTED_FILE, thinned

_DEEPEST = 4  # folders below the one that is given, in which runs are looked for
_NO_TERMS = ("step", "samples")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run's folder, under a name for the user. What it holds may change while it is being trained."""

    name: str
    folder: Path

    @property
    def is_trained(self) -> bool:
        """Whether a process is at work on it now."""
        return not (self.folder / SUMMARY_FILE).exists() and is_locked(self.folder)

    @property
    def stamp(self) -> tuple[float, ...]:
        """Changes when a newer fit can be read, its capture is described or the run is finished."""
        names = (
            f"{FIT_FOLDER}/{SNAPSHOT_FILE}", f"{FIT_FOLDER}/{CURVES_FILE}", f"{FIT_FOLDER}/{FIT_FILE}",
            CAPTURE_FILE, SUMMARY_FILE,
        )  # fmt: skip
        return tuple(_changed_at(self.folder / name) for name in names)

    def ask_for_snapshot(self) -> None:
        """Let the process that trains it write down how it stands."""
        folder = self.folder / FIT_FOLDER
        if folder.is_dir():
            (folder / WANTED_FILE).touch()

    def fit(self) -> Fit | None:
        """The newest fit, None before there is one.

        Raises:
            FitError: it is damaged, or of another version.
        """
        folder = self.folder / FIT_FOLDER
        snapshot = folder / SNAPSHOT_FILE
        saved = max(_changed_at(folder / name) for name in (FIT_FILE, PREVIOUS_FILE))
        try:
            if _changed_at(snapshot) > saved:
                return load_snapshot(snapshot)
            return load_fit(folder) if has_fit(folder) else None
        except FitError:
            # the fit ended between two looks, and took its snapshot away
            if snapshot.exists() or not has_fit(folder):
                raise
            return load_fit(folder)

    def capture(self) -> Capture | None:
        """As the run has it, calibrated and outlined; None before it is described.

        Raises:
            CaptureError: its description is damaged, or its folder is gone.
        """
        if (self.folder / CAPTURE_FILE).exists():
            return described_capture(self.folder)
        return used_capture(self.folder) if (self.folder / SUMMARY_FILE).exists() else None

    def mesh(self) -> trimesh.Trimesh | None:
        """The mesh that the run has written.

        Raises:
            MeshError: it cannot be read.
        """
        file = self.folder / MESH_FILE
        return read_mesh(file) if file.exists() else None

    def labels(self) -> OccupancyLabels | None:
        """Those that the run has written.

        Raises:
            CaptureError: they cannot be read.
        """
        file = self.folder / LABEL_FOLDER / "labels.npz"
        return OccupancyLabels.load(file) if file.exists() else None

    @property
    def inlier_folder(self) -> Path | None:
        """The images of inlier probabilities, if the run has got so far."""
        folder = self.folder / INLIER_FOLDER
        return folder if folder.is_dir() else None

    def summary(self) -> Mapping[str, Any]:
        """summary.json; empty before the run is finished.

        Raises:
            CaptureError: it is damaged.
        """
        file = self.folder / SUMMARY_FILE
        if not file.exists():
            return {}
        try:
            told = read_json(file)
            if not isinstance(told, dict):
                raise ValueError("no object")
            return told
        except (OSError, ValueError) as error:
            raise CaptureError(f"{file}: damaged ({error}); run again with overwrite=true") from error

    def curves(self) -> dict[str, Float[np.ndarray, "rows"]]:
        """Step, loss and every weighted loss term, thinned out; nan where a term was not in force."""
        folder = self.folder / FIT_FOLDER
        saved, live = _rows_of_csv(folder / SCALARS_FILE), _rows_of_snapshot(folder / CURVES_FILE)
        first = live[0]["step"] if live else float("inf")
        rows = thinned([*(row for row in saved if row["step"] < first), *live])
        names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in _NO_TERMS]
        return {name: np.array([row.get(name, np.nan) for row in rows]) for name in ("step", *names)} if rows else {}


def runs_of(folders: Sequence[Path]) -> list[Run]:
    """The runs that these folders are, or hold some levels down, as a sweep's does. Those without a fit are left out.

    Raises:
        ConfigError: no such folder, or not one run in it that has a fit or is being trained.
    """
    if not folders:
        raise ConfigError("no run: give run=DIR, or runs=[DIR,DIR] for several")
    found: dict[Path, str] = {}
    for folder in folders:
        require_run(folder)
        inside = [path for path in _run_folders(folder, _DEEPEST) if _can_be_shown(path)]
        if not inside:
            raise ConfigError(_why_none(folder))
        for path in inside:
            found.setdefault(path.resolve(), folder.resolve().name if path == folder else _name(path, folder))
    return [Run(name=name, folder=path) for path, name in _told_apart(found).items()]


def _run_folders(folder: Path, deepest: int) -> list[Path]:
    if (folder / CONFIG_FILE).exists() or has_fit(folder / FIT_FOLDER):
        return [folder]
    if deepest == 0:
        return []
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [run for path in inside for run in _run_folders(path, deepest - 1)]


def _can_be_shown(folder: Path) -> bool:
    return has_fit(folder / FIT_FOLDER) or is_locked(folder)


def _why_none(folder: Path) -> str:
    failed = _run_folders(folder, _DEEPEST)
    if not failed:
        return f"run={folder}: no run in it; give the folder that a run or a sweep wrote (its out=)"
    reason = ""
    if len(failed) == 1 and (failed[0] / "failure.json").exists():
        reason = f" ({' '.join((failed[0] / 'failure.json').read_text(errors='replace').split())[:300]})"
    which = "the run has" if len(failed) == 1 else f"{len(failed)} runs have"
    return f"run={folder}: {which} no fit that could be shown{reason}; give the command of the run again"


def _name(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    return "/".join(part for part in parts if part != "runs") or path.name


def _told_apart(found: Mapping[Path, str]) -> dict[Path, str]:
    """Names that occur twice get their folder's path."""
    names = list(found.values())
    return {path: name if names.count(name) == 1 else str(path) for path, name in found.items()}


def _changed_at(file: Path) -> float:
    try:
        return os.stat(file).st_mtime_ns / 1e9
    except OSError:
        return 0.0


def _rows_of_csv(file: Path) -> list[dict[str, float]]:
    """What can be read of it: rows may be cut off, and nothing but a curve is drawn from them."""
    try:
        with file.open(newline="", encoding="utf-8", errors="replace") as stream:
            return [row for told in csv.DictReader(stream) if (row := _numbers(told))]
    except (OSError, csv.Error):
        return []


def _rows_of_snapshot(file: Path) -> list[dict[str, float]]:
    try:
        return [row for told in json.loads(file.read_text(encoding="utf-8"))["rows"] if (row := _numbers(told))]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _numbers(told: Mapping[str, Any]) -> dict[str, float]:
    row = {}
    for name, value in told.items():
        try:
            row[name] = float(value)
        except (TypeError, ValueError):
            continue
    return row if "step" in row else {}
