"""What calibration tells: a table to read, the same as JSON, and how far points project from where they were seen."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ..capture import Capture, SensorKind
from ..capture.types import SparsePoints
from ..errors import CalibrationError
from ..files import read_json, replacing
from .types import Calibration, SensorChange

_COLUMNS = (
    "sensor", "seen", "before", "after", "unit", "turned deg", "± deg", "shifted mm", "± mm", "f %", "depth %",
)  # fmt: skip


def table_of(calibration: Calibration) -> str:
    """A line per sensor: observations, median residual before and after, how far it moved and one sigma of that.

    Below it the figures, and why sensors could not be refined.
    """
    kinds = {s.name: s.kind for s in calibration.capture.sensors}
    rows = [_row(change, kinds[change.name]) for change in calibration.sensors]
    lines = _aligned([_COLUMNS, *rows])
    lines += ["", *(f"{name} {value:.6g}" for name, value in calibration.figures.items())]
    lines += [f"warning: {line}" for line in calibration.warnings]
    if not calibration.capture.is_metric:
        lines.append("unscaled: the world is not in metres; what is given in mm is a share of the cameras' distance")
    return "\n".join(lines)


def write_report(calibration: Calibration, inputs: str, file: Path) -> Path:
    """The report as JSON, whole or not at all; `inputs` names all that it was made from. What is not finite is null."""
    told = {
        "inputs": inputs,
        "method": calibration.method,
        "is_metric": calibration.capture.is_metric,
        "figures": calibration.figures,
        "warnings": list(calibration.warnings),
        "sensors": [asdict(change) for change in calibration.sensors],
    }
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(_finite(told), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return file


def recorded_inputs(file: Path) -> str | None:
    """What the report in a file was made from; None if there is no report."""
    if not file.exists():
        return None
    try:
        return read_json(file)["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_report(file: Path, capture: Capture, points: SparsePoints) -> Calibration:
    """The calibration that `write_report` told about.

    Raises:
        CalibrationError: the file is missing or broken.
    """
    optional = {"residual_before", "residual_after"}
    try:
        told = read_json(file)
        sensors: list[dict[str, Any]] = [
            {key: math.nan if value is None and key not in optional else value for key, value in sensor.items()}
            for sensor in told["sensors"]
        ]
        return Calibration(
            capture=capture,
            points=points,
            method=str(told["method"]),
            sensors=tuple(SensorChange(**sensor) for sensor in map(_require_kinds, sensors)),
            figures={name: math.nan if value is None else float(value) for name, value in told["figures"].items()},
            warnings=tuple(map(str, told["warnings"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CalibrationError(f"{file}: no readable report of a calibration ({error}); calibrate again") from error


def _require_kinds(sensor: dict[str, Any]) -> dict[str, Any]:
    """That texts are texts, and numbers numbers or absent."""
    for name, value in sensor.items():
        wanted = str if name in ("name", "reason") else int | float | None
        if not isinstance(value, wanted):
            raise TypeError(f"{name} of a sensor is {value!r}")
    return sensor


def residuals_px(capture: Capture, points: SparsePoints) -> Float[np.ndarray, "observations 2"]:
    """Where the points project minus where they were seen, in pixels of the full-size photographs."""
    off = np.zeros_like(points.pixel)
    poses = [capture.sensor_from_world(image) for image in capture.images]
    cameras = [capture.sensor(image.sensor).camera for image in capture.images]
    for i in np.unique(points.image_index):
        own = points.image_index == i
        in_cam = poses[i].apply(torch.from_numpy(points.xyz[points.point_index[own]]))
        off[own] = cameras[i].project(in_cam).numpy() - points.pixel[own]
    return off


def unmoved(capture: Capture, points: SparsePoints) -> tuple[SensorChange, ...]:
    """A report of sensors that had no calibration before: their residuals alone."""
    off = np.linalg.norm(residuals_px(capture, points), axis=1)
    sensor_of = np.array([image.sensor for image in capture.images])[points.image_index]
    unknown: dict[str, Any] = {f.name: math.nan for f in fields(SensorChange) if f.type == "float"}
    return tuple(
        SensorChange(
            name=sensor.name,
            n_observations=int(own.sum()),
            residual_before=None,
            residual_after=float(np.median(off[own])) if own.any() else None,
            **unknown,
        )
        for sensor in capture.sensors
        for own in [sensor_of == sensor.name]
    )


def _row(change: SensorChange, kind: SensorKind) -> list[str]:
    is_depth = kind == SensorKind.depth
    cells = [
        change.name,
        str(change.n_observations),
        _number(change.residual_before, 2 if is_depth else 3),
        _number(change.residual_after, 2 if is_depth else 3),
        "mm" if is_depth else "px",
        _number(change.turned_deg, 3),
        _number(change.turn_sigma_deg, 3),
        _number(change.shifted_mm, 2),
        _number(change.shift_sigma_mm, 2),
        "-" if is_depth else _number(change.focal_percent, 3, "+"),
        _number(change.depth_percent, 3, "+") if is_depth else "-",
    ]
    return [*cells, "not refined"] if change.reason else cells


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:{sign}.{digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column flush left, the others flush right; a note after the last one is not aligned."""
    n = len(rows[0])
    widths = [max(len(row[column]) for row in rows) for column in range(n)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(row[column].rjust(widths[column]) for column in range(1, n)), *row[n:]]
        lines.append("  ".join(cells).rstrip())
    return lines


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
