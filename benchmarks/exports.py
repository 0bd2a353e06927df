"""Finished runs as other programs read them: inertia, convex parts, a fall in MuJoCo, BOP outlines, seconds.

    python -m benchmarks exports RUN [RUN ...] [--every-nth-stop 1] [--json FILE]

The true solid is gt/gt_mesh.ply of a run's capture. See README.md here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import cv2
import numpy as np
import trimesh
from PIL import Image

from neuralrecon.capture import Capture, SensorKind, read_mask
from neuralrecon.evaluate import read_mesh
from neuralrecon.export import BodyConfig, ExportConfig, Exported, ExportFormat, rigid_body, write_mjcf
from neuralrecon.export.body import mass_properties
from neuralrecon.export.run import export_run
from neuralrecon.train.run import TRUTH_FILE
from neuralrecon.train.run_folder import origin_of, used_capture

from .report import table, write_json

_COLUMNS = (
    "run", "mass %", "centre mm", "inertia %", "parts", "parts / solid", "rest mm", "tilt deg", "true rest",
    "true tilt", "BOP IoU", "worst", "bodies s", "BOP s",
)  # fmt: skip
_FALL_M, _SECONDS = 0.01, 3.0
_FINER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """Where a body is after a fall of 10 mm onto a plane: height of its frame (0 is right), and how far it leans."""

    rest_mm: float
    tilt_deg: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run. The differences are from the true solid, None without one; parts' volume is relative to the solid's.

    `true_fall` is that of the true solid's convex hull, which is all that a plane touches of it: some objects topple.

    `iou` is of each photograph: the model, projected by K, R and t, and the outline that the run had, undistorted by
    OpenCV.
    """

    name: str
    mass_percent: float | None
    centre_mm: float | None
    inertia_percent: float | None
    n_parts: int
    parts_share: float
    fall: Fall
    true_fall: Fall | None
    iou: tuple[float, ...]
    seconds: dict[str, float]


def main(words: Sequence[str] | None = None) -> int:
    """0 if all runs could be written."""
    args = _parser().parse_args(words)
    config = ExportConfig(body=BodyConfig(concavity=args.concavity, part_faces=args.part_faces))
    results = []
    for run in args.runs:
        with TemporaryDirectory() as temporary:
            formats = [ExportFormat.mjcf, ExportFormat.bop]
            stops = args.every_nth_stop
            done = export_run(run, formats, config, out=Path(temporary), every_nth_stop=stops)
            results.append(_judged(run, used_capture(run).restricted(every_nth_stop=stops), done))
    print(table(_COLUMNS, [_row(result) for result in results]))
    if args.json:
        print(write_json(args.json, results=results))
    return 0


def _judged(run: Path, capture: Capture, done: Sequence[Exported]) -> Result:
    folders = {each.format: each.folder for each in done}
    [model] = [file for file in folders[ExportFormat.mjcf].glob("*.xml") if file.name != "scene.xml"]
    mass, centre, inertia = _told(model)
    truth = origin_of(run)[1] / TRUTH_FILE
    off, true_fall = (None, None, None), None
    if truth.is_file():
        want = mass_properties(read_mesh(truth), BodyConfig().density_kg_m3)
        true_fall = _fall_of_hull(read_mesh(truth))
        off = (
            100 * (mass / want[0] - 1),
            1e3 * float(np.linalg.norm(centre - want[1])),
            100 * float(np.linalg.norm(inertia - want[2]) / np.linalg.norm(want[2])),
        )
    parts = [trimesh.load(file, force="mesh") for file in sorted((model.parent / "meshes").glob("part_*.obj"))]
    return Result(
        name=run.resolve().name,
        mass_percent=off[0],
        centre_mm=off[1],
        inertia_percent=off[2],
        n_parts=len(parts),
        parts_share=sum(float(part.volume) for part in parts) * BodyConfig().density_kg_m3 / mass,
        fall=fall(model.parent / "scene.xml"),
        true_fall=true_fall,
        iou=outline_iou(folders[ExportFormat.bop], capture),
        seconds={each.format.value: each.seconds for each in done},
    )


def _told(model: Path) -> tuple[float, np.ndarray, np.ndarray]:
    """Mass, centre of mass and tensor of a MuJoCo model's one body, as its file has them."""
    [inertial] = ElementTree.parse(model).getroot().iter("inertial")
    pos, full = (np.array(inertial.attrib[key].split(), float) for key in ("pos", "fullinertia"))
    xx, yy, zz, xy, xz, yz = full
    return float(inertial.attrib["mass"]), pos, np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def fall(scene: Path) -> Fall:
    """Of the scene's one free body, let go 10 mm above where it stood."""
    import mujoco

    model = mujoco.MjModel.from_xml_path(str(scene))
    data = mujoco.MjData(model)
    data.qpos[2] += _FALL_M
    while data.time < _SECONDS:
        mujoco.mj_step(model, data)
    upright = 1 - 2 * (data.qpos[4] ** 2 + data.qpos[5] ** 2)
    return Fall(rest_mm=1e3 * float(data.qpos[2]), tilt_deg=float(np.degrees(np.arccos(np.clip(upright, -1.0, 1.0)))))


def _fall_of_hull(truth: trimesh.Trimesh) -> Fall:
    with TemporaryDirectory() as temporary:
        body = rigid_body(truth, BodyConfig(most_parts=1, visual_faces=1000), name="truth")
        write_mjcf(body, Path(temporary))
        return fall(Path(temporary) / "scene.xml")


def outline_iou(data_set: Path, capture: Capture) -> tuple[float, ...]:
    """Of each photograph that has an outline, by the files of the data set alone and the capture's masks."""
    mesh = trimesh.load(data_set / "models" / "obj_000001.ply", process=False)
    found = []
    colors = [s for s in capture.sensors if s.kind == SensorKind.color]
    for scene, sensor in zip(sorted((data_set / "train").iterdir()), colors, strict=True):
        cameras, poses = (json.loads((scene / f"scene_{n}.json").read_text()) for n in ("camera", "gt"))
        matrix, lens = sensor.camera.opencv_matrix().numpy(), np.array(sensor.camera.distortion)
        images = [image for image in capture.images if image.sensor == sensor.name]
        for number, image in enumerate(images):
            if image.mask_path is None:
                continue
            with Image.open(scene / "mask" / f"{number:06d}_000000.png") as mask:
                size = mask.size
            [pose] = poses[str(number)]
            model = drawn(np.asarray(mesh.vertices), np.asarray(mesh.faces), cameras[str(number)], pose, size)
            outline = cv2.undistort(read_mask(capture, image).astype(np.uint8) * 255, matrix, lens) > 127
            found.append(float((model & outline).sum() / (model | outline).sum()))
    return tuple(found)


def drawn(vertices: np.ndarray, faces: np.ndarray, camera: dict, pose: dict, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose larger part the model covers: s * p = K [R, t] x, triangles filled by OpenCV on a finer grid."""
    matrix = np.array(camera["cam_K"]).reshape(3, 3)
    turned = vertices @ np.array(pose["cam_R_m2c"]).reshape(3, 3).T + np.array(pose["cam_t_m2c"])
    pixels = turned @ matrix.T
    pixels = (pixels[:, :2] / pixels[:, 2:] + 0.5) * _FINER - 0.5
    image = np.zeros((size[1] * _FINER, size[0] * _FINER), np.uint8)
    for triangle in np.rint(pixels[faces]).astype(np.int32):
        cv2.fillConvexPoly(image, triangle, 1)
    return image.reshape(size[1], _FINER, size[0], _FINER).mean(axis=(1, 3)) > 0.5


def _row(result: Result) -> list[object]:
    def shown(value: float | None, form: str) -> str | None:
        return None if value is None else format(value, form)

    return [
        result.name,
        shown(result.mass_percent, "+.2f"),
        shown(result.centre_mm, ".2f"),
        shown(result.inertia_percent, ".2f"),
        result.n_parts,
        f"{result.parts_share:.3f}",
        f"{result.fall.rest_mm:+.2f}",
        f"{result.fall.tilt_deg:.2f}",
        None if result.true_fall is None else f"{result.true_fall.rest_mm:+.2f}",
        None if result.true_fall is None else f"{result.true_fall.tilt_deg:.2f}",
        shown(float(np.mean(result.iou)) if result.iou else None, ".4f"),
        shown(min(result.iou) if result.iou else None, ".4f"),
        f"{result.seconds['mjcf']:.0f}",
        f"{result.seconds['bop']:.0f}",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks exports", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--every-nth-stop", type=int, default=1, help="of the turntable, for the BOP scenes")
    parser.add_argument("--concavity", type=float, default=BodyConfig().concavity)
    parser.add_argument("--part-faces", type=int, default=BodyConfig().part_faces)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
