"""Compare a mesh with the truth: accuracy, completeness, Chamfer distance, F-scores, normals, IoU, closedness."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ..capture import read_capture
from ..config import Command, part_of
from ..errors import ConfigError
from ..train.run import TRUTH_FILE
from ..train.run_folder import MESH_FILE, origin_of, plain, require_run, used_capture
from . import EvaluateConfig, evaluate_files, write_report


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateCommand(EvaluateConfig):
    """Settings of the command.

    Attributes:
        mesh: the mesh to judge, in metres.
        gt: the true mesh, in metres and the same frame.
        capture: the capture behind the mesh: its cameras tell what could be seen, its gt/ has the truth.
        run: the output folder of a run, for its mesh and its capture.
        out: a JSON file to write all figures to.
    """

    mesh: Path | None = None
    gt: Path | None = None
    capture: Path | None = None
    run: Path | None = None
    out: Path | None = None


def main(config: EvaluateCommand) -> float:
    """Chamfer distance in mm, without alignment."""
    mesh, root = config.mesh, config.capture
    if config.run is not None:
        require_run(config.run, MESH_FILE)
        mesh, root = mesh or config.run / MESH_FILE, root or origin_of(config.run)[1]
    truth = config.gt or (root / TRUTH_FILE if root else None)
    for key, file in (("mesh", mesh), ("gt", truth)):
        if file is None:
            raise ConfigError(f"give {key}=FILE, or run=DIR for the mesh and the truth of a run")
        if not file.is_file():
            raise ConfigError(f"{key}={file}: no such file")
    assert mesh is not None
    assert truth is not None
    settings = part_of(config, EvaluateConfig)
    if config.run is not None and config.capture is None:
        capture = used_capture(config.run)
    else:
        capture = read_capture(root) if root else None
    report = evaluate_files(mesh, truth, settings, capture=capture)
    for title, scores in (("as it is", report.raw), ("aligned", report.aligned)):
        if scores is not None:
            print(f"{title}:")
            print("\n".join(f"  {name} {value:.4f}" for name, value in plain(scores).items()))
    print("\n".join(f"{name} {value}" for name, value in plain(report.closedness).items()))
    if config.out:
        write_report(config.out, report)
    return report.raw.chamfer_mm


cli = Command(
    name="evaluate",
    schema=EvaluateCommand,
    main=main,
    about=__doc__ or "",
    examples=[
        ("mesh=cup.ply gt=true_cup.ply", "any two meshes in one frame"),
        ("run=outputs/2026-11-22_10-00-00", "a run whose capture has gt/gt_mesh.ply"),
    ],
)

if __name__ == "__main__":
    sys.exit(cli())
