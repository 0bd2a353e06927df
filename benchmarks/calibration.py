"""How well a disturbed calibration is found again, on simulated captures whose exact calibration is known.

    python -m benchmarks.calibration CAPTURE_DIR [CAPTURE_DIR ...] [--out DIR] [--seeds 3] [--mesh]

Every sensor is turned about its own centre and shifted, each colour sensor's focal length changed, by the amounts that
the options say, in random directions. See README.md here.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from neuralrecon.calibrate import CalibrateConfig, calibrate_capture
from neuralrecon.calibrate.stage import MODEL_FOLDER
from neuralrecon.capture import Capture, Sensor, SensorKind, read_capture
from neuralrecon.errors import NeuralReconError
from neuralrecon.geometry import Rigid
from neuralrecon.train.run import TRUTH_FILE
from neuralrecon.train.run_folder import SUMMARY_FILE

from .captures import measured as measured_command
from .captures import quoted
from .report import table, write_json

EXACT_FILE = Path("gt") / "calibration_exact.h5"
_COLUMNS = (
    "capture", "calibration", "colour deg", "mm", "aligned deg", "mm", "depth deg", "mm", "aligned deg", "mm",
    "axis deg", "scale %", "f %", "px", "minutes",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Of each sensor of one kind: rotation (degrees) and centre (mm), medians first.

    `raw_*` are those in the table's frame at the first stop, the others what is left after a turn about the axis, a
    shift along it and a scale, which no photograph of a turntable tells (one for all sensors, from the colour ones).
    """

    raw_deg: float
    raw_mm: float
    aligned_deg: float
    aligned_mm: float
    raw_deg_of: dict[str, float]
    raw_mm_of: dict[str, float]
    aligned_deg_of: dict[str, float]
    aligned_mm_of: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One calibration against the exact one. `axis_deg`: how far off colour sensors see the turntable's axis (median).

    `turn_deg`, `lift_mm` and `scale_percent` are what aligned it; `focal_percent` is the median error of f.
    """

    color: Errors
    depth: Errors | None
    axis_deg: float
    turn_deg: float
    lift_mm: float
    scale_percent: float
    focal_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: ``given``, or ``perturbed`` or ``calibrated`` with a seed."""

    capture: str
    what: str
    comparison: Comparison
    residual_px: float | None = None
    minutes: float | None = None


def main(words: Sequence[str] | None = None) -> int:
    """0 if all was calibrated (and, with --mesh, trained), 1 with a line on what was not."""
    parser = _parser()
    args = parser.parse_args(words)
    for capture in args.captures:
        if not (capture / EXACT_FILE).is_file():
            parser.error(f"{capture / EXACT_FILE}: no such file; this measures against the exact calibration")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("neuralrecon").setLevel(logging.INFO)
    rows: list[Row] = []
    try:
        for capture in args.captures:
            rows += measured(capture, args)
    except NeuralReconError as error:
        print(f"calibration: {error}", file=sys.stderr)
        return 1
    finally:
        print(table(_COLUMNS, [_cells(row) for row in rows]))
    meshes = [mesh for capture in args.captures for mesh in _meshes(capture, args)] if args.mesh else []
    settings = {key: value for key, value in vars(args).items() if key != "captures"}
    print(write_json(args.out / "calibration.json", settings=settings, rows=rows, meshes=meshes))
    return int(any(mesh["exit_code"] for mesh in meshes))


def measured(folder: Path, args: argparse.Namespace) -> Iterator[Row]:
    """The given calibration, and for each seed the disturbed one before and after."""
    given, name = read_capture(folder), folder.resolve().name
    exact = exact_capture(folder, args.out / name / "exact")
    yield Row(capture=name, what="given", comparison=compared(given, exact))
    for seed in range(args.seeds):
        start = perturbed(given, seed, args.turn_deg, args.shift_mm, args.focal_percent)
        yield Row(capture=name, what=f"perturbed {seed}", comparison=compared(start, exact))
        began = time.perf_counter()
        found = calibrate_capture(start, CalibrateConfig(), folder=args.out / name / f"seed{seed}", force=True)
        yield Row(
            capture=name,
            what=f"calibrated {seed}",
            comparison=compared(found.capture, exact),
            residual_px=found.figures["residual_after_px"],
            minutes=(time.perf_counter() - began) / 60,
        )


def exact_capture(folder: Path, links: Path) -> Capture:
    """The same files with the exact calibration: a folder of links to them, which other commands can read too."""
    links.mkdir(parents=True, exist_ok=True)
    for entry in [*(p for p in folder.iterdir() if p.name != "calibration.h5"), folder / EXACT_FILE]:
        link = links / ("calibration.h5" if entry.name == EXACT_FILE.name else entry.name)
        if not link.is_symlink():
            link.symlink_to(entry.resolve())
    return read_capture(links)


def perturbed(capture: Capture, seed: int, turn_deg: float, shift_mm: float, focal_percent: float) -> Capture:
    """Every sensor turned about its own centre and shifted by these amounts, colour sensors' f changed up or down."""
    rng = np.random.default_rng(seed)

    def one(sensor: Sensor) -> Sensor:
        turn = Rotation.from_rotvec(np.radians(turn_deg) * _unit(rng)).as_matrix()
        center = sensor.sensor_from_rig.inverse().translation.numpy() + shift_mm / 1e3 * _unit(rng)
        factor = 1 + rng.choice([-1, 1]) * focal_percent / 100
        rotation = turn @ sensor.sensor_from_rig.rotation.numpy()
        pose = Rigid(rotation=torch.from_numpy(rotation), translation=torch.from_numpy(-rotation @ center))
        camera = sensor.camera
        if sensor.kind == SensorKind.color:
            camera = replace(camera, fx=camera.fx * factor, fy=camera.fy * factor)
        return replace(sensor, sensor_from_rig=pose, camera=camera)

    return replace(capture, sensors=tuple(one(sensor) for sensor in capture.sensors))


def compared(capture: Capture, exact: Capture) -> Comparison:
    """How far the sensors are from where they are exactly, before and after alignment."""
    stop = exact.frames[0].name
    turned, center = _poses(capture, exact, stop)
    true_turned, true_center = _poses(exact, exact, stop)
    is_color = np.array([s.kind == SensorKind.color for s in exact.sensors])

    def off(gauge: np.ndarray) -> np.ndarray:
        turn = Rotation.from_euler("z", gauge[0]).as_matrix()
        return (1 + gauge[2]) * center @ turn.T + (0, 0, gauge[1]) - true_center

    gauge = least_squares(lambda g: off(g)[is_color].ravel(), np.zeros(3), x_scale=(1e-3, 1e-3, 1e-3)).x
    turn = Rotation.from_euler("z", gauge[0]).as_matrix()
    figures = {
        "raw_deg": _angles_deg(turned, true_turned),
        "raw_mm": 1e3 * np.linalg.norm(center - true_center, axis=1),
        "aligned_deg": _angles_deg(turned @ turn.T, true_turned),
        "aligned_mm": 1e3 * np.linalg.norm(off(gauge), axis=1),
    }
    names = np.array([s.name for s in exact.sensors])
    axis = np.einsum("si,si->s", turned[:, :, 2], true_turned[:, :, 2])[is_color]
    focal = [abs(capture.sensor(s.name).camera.fx / s.camera.fx - 1) for s in exact.sensors if s.kind == "color"]
    return Comparison(
        color=_errors(figures, names, is_color),
        depth=None if is_color.all() else _errors(figures, names, ~is_color),
        axis_deg=float(np.median(np.degrees(np.arccos(np.clip(axis, -1, 1))))),
        turn_deg=float(np.degrees(gauge[0])),
        lift_mm=1e3 * float(gauge[1]),
        scale_percent=100 * float(gauge[2]),
        focal_percent=100 * float(np.median(focal)),
    )


def _poses(
    capture: Capture, order: Capture, stop: str
) -> tuple[Float[np.ndarray, "sensors 3 3"], Float[np.ndarray, "sensors 3"]]:
    """Rotations sensor from table, and centres in the table's frame, at a stop."""
    poses = [capture.sensor(s.name).sensor_from_rig @ capture.frame(stop).rig_from_world for s in order.sensors]
    rotations = np.stack([pose.rotation.numpy() for pose in poses])
    return rotations, np.stack([pose.inverse().translation.numpy() for pose in poses])


def _errors(figures: dict[str, np.ndarray], names: np.ndarray, chosen: np.ndarray) -> Errors:
    medians = {name: float(np.median(values[chosen])) for name, values in figures.items()}
    each = {
        f"{name}_of": dict(zip(names[chosen].tolist(), values[chosen].tolist(), strict=True))
        for name, values in figures.items()
    }
    return Errors(**medians, **each)  # type: ignore[arg-type]


def _angles_deg(a: Float[np.ndarray, "n 3 3"], b: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n"]:
    return np.degrees(Rotation.from_matrix(a @ b.transpose(0, 2, 1)).magnitude())


def _unit(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _meshes(folder: Path, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The train command on the exact calibration and on the first seed's, each scored against the true mesh."""
    if not (folder / TRUTH_FILE).is_file():
        print(f"{folder / TRUTH_FILE}: no such file; no meshes are compared", file=sys.stderr)
        return
    here, rows = args.out / folder.resolve().name, []
    for what, capture in (("exact", here / "exact"), ("calibrated 0", here / "seed0" / MODEL_FOLDER)):
        out = here / f"run_{what.replace(' ', '_')}"
        words = [f"capture={quoted(capture)}", f"out={quoted(out)}", "calibration=given", *args.set]
        log = out.with_suffix(".txt")
        command = measured_command([sys.executable, "-m", "neuralrecon.train", *words], log)
        told = {} if command.exit_code else json.loads((out / SUMMARY_FILE).read_text())["report"]["raw"]
        scores = [told.get(name) for name in ("chamfer_mm", "f_score_0_5mm", "iou")]
        minutes = f"{command.seconds / 60:.2f}"
        rows.append([here.name, what if told else f"failed, see {log}", *scores, minutes])
        yield {"capture": here.name, "calibration": what, **asdict(command), "report": told}
    print(table(["capture", "calibration", "Chamfer mm", "F@0.5mm", "IoU", "minutes"], rows))


def _cells(row: Row) -> list[object]:
    c = row.comparison
    depth = [None] * 4 if c.depth is None else _four(c.depth)
    percent = [f"{c.axis_deg:.4f}", f"{c.scale_percent:+.3f}", f"{c.focal_percent:.3f}"]
    rest = [None if row.residual_px is None else f"{row.residual_px:.3f}"]
    rest += [None if row.minutes is None else f"{row.minutes:.2f}"]
    return [row.capture, row.what, *_four(c.color), *depth, *percent, *rest]


def _four(errors: Errors) -> list[str]:
    return [
        f"{errors.raw_deg:.4f}", f"{errors.raw_mm:.3f}", f"{errors.aligned_deg:.4f}", f"{errors.aligned_mm:.3f}",
    ]  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calibration", description=(__doc__ or "").partition("\n")[0]
    )
    dated = Path("outputs/benchmarks") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    parser.add_argument("captures", nargs="+", type=Path, metavar="CAPTURE_DIR")
    parser.add_argument("--out", type=Path, default=dated, help="where calibrations and runs go (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many disturbed calibrations (default 3)")
    parser.add_argument("--turn-deg", type=float, default=0.5, help="of every sensor (default 0.5)")
    parser.add_argument("--shift-mm", type=float, default=2.0, help="of every sensor (default 2)")
    parser.add_argument("--focal-percent", type=float, default=0.3, help="of every colour sensor (default 0.3)")
    parser.add_argument("--mesh", action="store_true", help="train on the exact and on the first calibrated capture")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the train command")
    return parser


if __name__ == "__main__":
    sys.exit(main())
