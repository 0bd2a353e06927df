"""Write labels for a mesh: inside or outside, signed distance, what was observed, in the layouts of their consumers."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..capture import read_capture
from ..config import Command, part_of
from ..errors import CaptureError, ConfigError
from ..evaluate import read_mesh
from ..files import read_npz
from ..train.run_folder import (
    EVIDENCE_FILE,
    INLIER_FOLDER,
    LABEL_FOLDER,
    MESH_FILE,
    origin_of,
    require_run,
    used_capture,
)
from . import LabelConfig, write_labels

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCommand(LabelConfig):
    """Settings of the command.

    Attributes:
        run: the output folder of a run, whose mesh and capture are taken.
        mesh: a closed mesh in metres, in place of a run.
        capture: a capture that the mesh belongs to: it tells what was observed; the run's by default.
        name: the object's name in the consumers' folders; the run's or the mesh file's by default.
        out: the folder to write; by default labels in the run's folder, else beside the mesh.
        seed: of every draw.
    """

    run: Path | None = None
    mesh: Path | None = None
    capture: Path | None = None
    name: str | None = None
    out: Path | None = None
    seed: int = 0


def main(config: LabelCommand) -> float:
    """The share of the uniform points that are inside."""
    if (config.run is None) == (config.mesh is None):
        raise ConfigError("give run=DIR or mesh=FILE, one of the two")
    if config.run is not None:
        require_run(config.run, MESH_FILE)
    file = config.mesh or Path(config.run or "") / MESH_FILE
    if not file.is_file():
        raise ConfigError(f"mesh={file}: no such file")
    name = origin_of(config.run)[0] if config.run else file.stem
    capture = read_capture(config.capture) if config.capture else None
    if capture is None and config.run is not None:
        capture = used_capture(config.run)
    folder = config.out or file.parent / LABEL_FOLDER
    name = config.name or name.rpartition("/")[2]
    mesh = read_mesh(file)
    inliers = None if config.run is None else config.run / INLIER_FOLDER
    summary = write_labels(
        mesh,
        folder,
        part_of(config, LabelConfig),
        name=name,
        capture=capture,
        evidence=run_evidence(config.run, len(mesh.vertices)),
        inlier_folder=inliers if inliers is not None and inliers.is_dir() else None,
        seed=config.seed,
    )
    print(f"{summary.n_files} files in {folder}")
    return summary.occupied_share


def run_evidence(run: Path | None, n_vertices: int) -> np.ndarray | None:
    """What the run knew of its own mesh, None of one that was extracted anew with other vertices.

    Raises:
        CaptureError: the file is damaged.
    """
    if run is None or not (run / EVIDENCE_FILE).exists():
        return None
    try:
        evidence = read_npz(run / EVIDENCE_FILE)["evidence"]
        if evidence.dtype != np.bool_ or evidence.ndim != 1:
            raise ValueError(f"{evidence.dtype} of shape {evidence.shape}, want one bool a vertex")
    except (OSError, ValueError, LookupError) as error:
        raise CaptureError(
            f"{run / EVIDENCE_FILE}: not readable ({error}); remove it, and observed goes by sight alone"
        ) from error
    if len(evidence) != n_vertices:
        log.warning("%s is of another mesh: observed goes by sight alone", run / EVIDENCE_FILE)
        return None
    return evidence


cli = Command(
    name="label",
    schema=LabelCommand,
    main=main,
    about=__doc__ or "",
    examples=[
        ("run=outputs/cup n_points=1000000", "more points for a run's mesh"),
        ("mesh=cup.ply layouts=[if_net] out=labels/cup", "one consumer's files for any closed mesh"),
    ],
)

if __name__ == "__main__":
    sys.exit(cli())
