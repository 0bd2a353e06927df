"""What a run has left in its folder, as far as a report shows it."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, UInt8

from ..capture import Capture
from ..capture.mesh_files import load_mesh
from ..errors import CaptureError, ConfigError, FitError
from ..files import read_json, read_npz
from ..label.evidence import Evidence
from ..train import Fit, load_fit
from ..train.checkpoint import has_fit
from ..train.run_folder import (
    CONFIG_FILE,
    EVIDENCE_FILE,
    FIT_FOLDER,
    INLIER_FOLDER,
    LOG_FILE,
    MESH_FILE,
    SUMMARY_FILE,
    TRUTH_FILE,
    require_run,
    used_capture,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How lengths are shown: `per_world` turns world units into `name`."""

    name: str
    per_world: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: its `summary` as in summary.json, its settings by dotted name, the mesh as it was written.

    `evidence` says of each vertex what speaks for it (`Evidence`), None if that is not known; `fit` is None if there is
    none, `truth` if the capture has none.
    """

    folder: Path
    summary: Mapping[str, Any]
    settings: Mapping[str, Any]
    capture: Capture
    mesh: trimesh.Trimesh
    evidence: UInt8[np.ndarray, "vertices"] | None
    fit: Fit | None
    truth: trimesh.Trimesh | None

    @staticmethod
    def read(folder: Path) -> Run:
        """From a finished run's folder.

        Raises:
            ConfigError: no finished run's folder, or its summary is damaged.
            NeuralReconError: another of its files is missing or damaged.
        """
        require_run(folder, SUMMARY_FILE, MESH_FILE)
        path, capture = folder / SUMMARY_FILE, used_capture(folder)
        try:
            summary = read_json(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: damaged ({error}); give the run's command again with overwrite=true") from error
        return Run.of(folder, summary, capture, _fit(folder / FIT_FOLDER))

    @staticmethod
    def of(folder: Path, summary: Mapping[str, Any], capture: Capture, fit: Fit | None) -> Run:
        """The same where summary, capture and fit are at hand.

        Raises:
            ConfigError: the summary has no verdict, as those of earlier versions.
        """
        if "verdict" not in summary:
            raise ConfigError(f"{folder / SUMMARY_FILE}: has no verdict; give the run's command again, overwrite=true")
        mesh, truth = load_mesh(folder / MESH_FILE, process=False), capture.root / TRUTH_FILE
        return Run(
            folder=folder,
            summary=summary,
            settings=settings_in(folder / CONFIG_FILE),
            capture=capture,
            mesh=mesh,
            evidence=_evidence(folder / EVIDENCE_FILE, len(mesh.vertices)),
            fit=fit,
            truth=load_mesh(truth, skip_materials=True) if truth.is_file() else None,
        )

    @property
    def length(self) -> Length:
        """Millimetres; without a known unit, thousandths of the mesh's longest side."""
        if self.capture.is_metric:
            return Length(name="mm", per_world=1e3)
        return Length(name="‰ of the longest side", per_world=1e3 / float(np.ptp(self.mesh.bounds, axis=0).max()))

    @property
    def inlier_folder(self) -> Path | None:
        """Where it is told how far each depth reading is believed, if it is."""
        return self.folder / INLIER_FOLDER if (self.folder / INLIER_FOLDER).is_dir() else None

    @property
    def log(self) -> str:
        path = self.folder / LOG_FILE
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def settings_in(file: Path) -> dict[str, Any]:
    """The settings of a config.yaml as `as_yaml` writes it, by dotted name.

    Raises:
        ConfigError: it is not of that form, or missing.
    """
    try:
        return parsed_settings(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: not the settings that a run writes ({error}); restore the file") from error


def parsed_settings(text: str) -> dict[str, Any]:
    """The same of a text; what is not of that form raises ValueError."""
    found, above = {}, []
    for line in text.splitlines():
        key, _, value = line.strip().partition(":")
        above = above[: (len(line) - len(line.lstrip())) // 2]
        if value.strip():
            found[".".join([*above, key])] = json.loads(value)
        else:
            above.append(key)
    return found


def scalars_in(file: Path) -> dict[str, Float[np.ndarray, "steps"]]:
    """The columns of a fit's scalars.csv, nan where a term was not in force; empty if there is no file.

    Damaged lines are left out, which the log says: a curve has enough without them.
    """
    if not file.is_file():
        return {}
    kept, n_damaged = [], 0
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        head, *lines = list(csv.reader(stream)) or [[]]
    for line in lines:
        try:
            row = [float(cell) if cell else math.nan for cell in line]
        except ValueError:
            row = []
        n_damaged += len(row) != len(head)
        kept += [row] if len(row) == len(head) else []
    if n_damaged:
        _log.warning("%s: %d damaged lines are left out", file, n_damaged)
    return dict(zip(head, np.array(kept).reshape(-1, len(head)).T, strict=True))


def _fit(folder: Path) -> Fit | None:
    """The fit, None if there is none or it is of no use any more, which the log says."""
    if not has_fit(folder):
        return None
    try:
        return load_fit(folder)
    except FitError as error:
        _log.warning("photographs held out are not rendered: %s", error)
        return None


def _evidence(file: Path, n_vertices: int) -> UInt8[np.ndarray, "vertices"] | None:
    if not file.is_file():
        return None
    try:
        told = read_npz(file)
        kinds = (
            told["kind"] if "kind" in told else np.where(told["evidence"], Evidence.some, Evidence.none).astype("u1")
        )
        if kinds.shape != (n_vertices,) or kinds.dtype != np.uint8:
            raise ValueError(f"{kinds.dtype} of shape {kinds.shape}, want one byte for each of {n_vertices} vertices")
    except (OSError, ValueError, LookupError) as error:
        raise CaptureError(f"{file}: not the evidence of this mesh ({error}); remove it and report again") from error
    return kinds
