"""A run's folder as what `export` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..capture import Capture, SensorKind, SparsePoints, read_points
from ..evaluate import read_mesh
from ..files import read_json
from ..train.run_folder import CALIBRATION_FOLDER, MESH_FILE, SUMMARY_FILE, origin_of, require_run, used_capture
from .stage import ExportConfig, Exported, ExportFormat, export

EXPORT_FOLDER = "export"


def export_run(
    run: Path,
    formats: Sequence[ExportFormat],
    config: ExportConfig | None = None,
    *,
    out: Path | None = None,
    sensors: Sequence[str] = (),
    every_nth_stop: int = 1,
    overwrite: bool = False,
) -> tuple[Exported, ...]:
    """The mesh and the capture of a finished run, in ``out/FORMAT`` (by default ``export/`` in its folder).

    Raises:
        ConfigError: no finished run, a folder is there already, or an extra is not installed.
        ExportError: the run lacks what a format needs, such as a scale.
        CaptureError: a file of the capture is missing or broken.
    """
    require_run(run, MESH_FILE)
    name = origin_of(run)[0].rpartition("/")[2]
    capture = used_capture(run).restricted(sensors=sensors or None, every_nth_stop=every_nth_stop)
    mesh = read_mesh(run / MESH_FILE)
    mesh.metadata["unit"] = "m" if capture.is_metric else "unscaled"
    needs_points = {ExportFormat.nerfstudio, ExportFormat.colmap} & set(formats)
    return export(
        mesh,
        out or run / EXPORT_FOLDER,
        formats,
        config,
        name=name,
        capture=capture,
        points=_points(run, capture) if needs_points else None,
        overwrite=overwrite,
    )


def _points(run: Path, capture: Capture) -> SparsePoints | None:
    """What the calibration found, seen in the capture's photographs; None if the run's calibration was given."""
    model = run / CALIBRATION_FOLDER / "model"
    if read_json(run / SUMMARY_FILE).get("calibration") == "given" or not model.is_dir():
        return None
    photographs = replace(capture, images=capture.images_of(SensorKind.color), points_path=model)
    points = read_points(photographs)
    return points if points is not None and len(points.xyz) else None
