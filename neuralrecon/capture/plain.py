"""A plain folder of colour and depth images, described by one file `capture.json`.

The file holds one object. Lengths are in metres unless `is_metric` is false, matrices are 4 x 4 lists of rows::

    {"version": 1, "name": "mug",
     "is_metric": true, "has_table": true,        world: z up, table at z = 0 (both default to true)
     "depth_is_masked": false,                    true: every depth reading is of the object (default false)
     "bounds": [[-0.1, -0.1, 0], [0.1, 0.1, 0.2]],  optional: low and high corner of a box around the object
     "sensors": [{"name": "left", "kind": "color", "width": 640, "height": 480,
                  "K": [fx, fy, cx, cy],          px; a pixel's centre is at +0.5 (OpenCV's cx, cy plus 0.5)
                  "distortion": [k1, k2, p1, p2, k3],  optional, OpenCV's model
                  "sensor_from_rig": [[...]],     camera axes: x right, y down, z forward
                  "metres_per_unit": 0.001}],     depth only: raw value -> length along the axis; 0 is missing
     "frames": [{"name": "000", "angle_deg": 0.0, "rig_from_world": [[...]]}],   angle_deg is optional
     "images": [{"sensor": "left", "frame": "000", "path": "left/000.jpg",
                 "mask": "masks/left_000.png",    optional, white is object unless
                 "object_is_black": false}]}

Photographs are JPEG or PNG, masks PNG or PBM, depth is 16-bit PNG or HDF5 (`.h5`, uint16 dataset ``depth``). Paths are
relative to the folder and stay inside it. Optional ``downscale`` and ``left_out`` are those of `Capture`.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from ..errors import CalibrationError, CaptureError
from ..geometry import Camera, Rigid
from .entries import Entry
from .findings import Findings
from .headers import decoding, depth_size, image_size
from .types import Capture, Frame, Image, Sensor, SensorKind

CAPTURE_FILE = "capture.json"
_VERSION = 1
_MAX_BYTES = 64 * 2**20


def read_plain(path: str | Path, *, allow_partial: bool = False) -> Capture:
    """A folder with a `capture.json` (see this module's text). Every file is looked at, none is decoded.

    Raises:
        CaptureError: `capture.json` or one of its entries is wrong (the message names it), a file is missing, broken
            or of another size than its sensor's, or nothing tells object from background. With `allow_partial` broken
            files are listed in `left_out`; errors in `capture.json` itself always raise.

    Example:
        >>> capture = read_plain("data/my_mug")  # doctest: +SKIP
    """
    root = Path(path)
    file = root / CAPTURE_FILE
    findings = Findings(allow_partial)
    entry = _load(file)
    version = entry.count("version")
    if version != _VERSION:
        raise CaptureError(f"{file}: version {version}, this program reads version {_VERSION}; convert the file")
    sensors = tuple(_sensor(e) for e in entry.entries("sensors"))
    frames = tuple(_frame(e) for e in entry.entries("frames"))
    _require_unique([s.name for s in sensors], f"{file}: sensors")
    _require_unique([f.name for f in frames], f"{file}: frames")
    images = [_image(e, root, sensors, frames) for e in entry.entries("images")]
    _require_unique([f"{i.sensor} at {i.frame}" for i in images], f"{file}: images")
    depth_is_masked = entry.flag("depth_is_masked", False)
    whole = [w for i in images if (w := _whole(i, next(s for s in sensors if s.name == i.sensor), findings))]
    _require_evidence(whole, depth_is_masked, file, findings)
    capture = Capture(
        name=entry.text("name"),
        root=root,
        layout="plain",
        sensors=sensors,
        frames=frames,
        images=tuple(whole),
        has_table=entry.flag("has_table", True),
        is_metric=entry.flag("is_metric", True),
        downscale=entry.count("downscale", 1),
        bounds=_bounds(entry),
        depth_is_masked=depth_is_masked,
        left_out=(*entry.texts("left_out", ()), *findings.lines),
    )
    entry.finish()
    return capture


def write_plain(capture: Capture, folder: str | Path) -> Path:
    """Describes a capture whose files lie under `folder` by a `capture.json` there; returns that file's path.

    The file appears whole or not at all. Rotations and lengths are written with all digits of float64.

    Raises:
        CaptureError: an image or mask lies outside of the folder.

    Example:
        >>> write_plain(capture, "data/my_mug")  # doctest: +SKIP
    """
    root = Path(folder)
    described: dict[str, Any] = {
        "version": _VERSION,
        "name": capture.name,
        "is_metric": capture.is_metric,
        "has_table": capture.has_table,
        "depth_is_masked": capture.depth_is_masked,
        "downscale": capture.downscale,
        "left_out": list(capture.left_out),
        "sensors": [_sensor_as_json(s) for s in capture.sensors],
        "frames": [
            {"name": f.name, "rig_from_world": f.rig_from_world.matrix().tolist()}
            | ({} if f.angle_deg is None else {"angle_deg": f.angle_deg})
            for f in capture.frames
        ],
        "images": [
            {"sensor": i.sensor, "frame": i.frame, "path": _relative(i.path, root)}
            | ({"mask": _relative(i.mask_path, root), "object_is_black": i.object_is_black} if i.mask_path else {})
            for i in capture.images
        ],
    }
    if capture.bounds:
        described["bounds"] = [list(corner) for corner in capture.bounds]
    _write_whole(root / CAPTURE_FILE, json.dumps(described, indent=1, allow_nan=False))
    return root / CAPTURE_FILE


def _load(file: Path) -> Entry:
    with decoding(file, "description of the capture"):
        if file.stat().st_size > _MAX_BYTES:
            raise CaptureError(f"{file}: {file.stat().st_size} bytes, want at most {_MAX_BYTES}; this is no capture")
        return Entry.of(json.loads(file.read_text(encoding="utf-8")), f"{file}: the file")


def _sensor(entry: Entry) -> Sensor:
    kind = entry.text("kind")
    if kind not in tuple(SensorKind):
        raise CaptureError(f"{entry.where} has 'kind' = {kind!r}, want {' or '.join(SensorKind)}; correct it")
    fx, fy, cx, cy = entry.numbers("K", 4)
    width, height = entry.count("width"), entry.count("height")
    distortion = entry.numbers("distortion", 5, (0.0,) * 5)
    metres_per_unit = entry.number("metres_per_unit", None)
    if (kind == SensorKind.depth) != (metres_per_unit is not None and metres_per_unit > 0):
        raise CaptureError(
            f"{entry.where} ({kind}) has 'metres_per_unit' = {metres_per_unit}, want a positive number for a depth "
            "sensor and none for a colour sensor; correct it"
        )
    try:
        camera = Camera(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy, distortion=distortion)
    except CalibrationError as error:
        raise CalibrationError(f"{entry.where}: {error}; correct it") from error
    sensor = Sensor(
        name=entry.text("name"),
        kind=SensorKind(kind),
        camera=camera,
        sensor_from_rig=_pose(entry, "sensor_from_rig"),
        metres_per_unit=metres_per_unit,
    )
    entry.finish()
    return sensor


def _frame(entry: Entry) -> Frame:
    frame = Frame(
        name=entry.text("name"),
        rig_from_world=_pose(entry, "rig_from_world"),
        angle_deg=entry.number("angle_deg", None),
    )
    entry.finish()
    return frame


def _pose(entry: Entry, key: str) -> Rigid:
    matrix = torch.tensor(entry.matrix(key), dtype=torch.float64)
    try:
        return Rigid.from_matrix(matrix)
    except CalibrationError as error:
        raise CalibrationError(f"{entry.where}, {key}: {error}; correct it") from error


def _image(entry: Entry, root: Path, sensors: tuple[Sensor, ...], frames: tuple[Frame, ...]) -> Image:
    sensor, frame, mask = entry.text("sensor"), entry.text("frame"), entry.text("mask", None)
    for what, name, known in (
        ("sensor", sensor, [s.name for s in sensors]),
        ("frame", frame, [f.name for f in frames]),
    ):
        if name not in known:
            raise CaptureError(f"{entry.where} has {what!r} = {name!r}, which is none of the {what}s; correct it")
    image = Image(
        sensor=sensor,
        frame=frame,
        path=_confined(entry.text("path"), root, entry.where),
        mask_path=None if mask is None else _confined(mask, root, entry.where),
        object_is_black=entry.flag("object_is_black", False),
    )
    entry.finish()
    return image


def _confined(text: str, root: Path, where: str) -> Path:
    path = PurePosixPath(text)
    inside = not path.is_absolute() and ".." not in path.parts and "\0" not in text and "\\" not in text
    if not inside or not (root / path).resolve().is_relative_to(root.resolve()):
        raise CaptureError(f"{where} has the path {text!r}, want one relative to and inside of {root}; move the file")
    return root / path


def _whole(image: Image, sensor: Sensor, findings: Findings) -> Image | None:
    """The image if its file is whole and of the sensor's size, with its mask if that is, too."""
    is_depth = sensor.kind == SensorKind.depth
    try:
        _require_size(image.path, depth_size(image.path) if is_depth else image_size(image.path), sensor)
    except CaptureError as error:
        findings.broken(error)
        return None
    try:
        if image.mask_path:
            _require_size(image.mask_path, image_size(image.mask_path, "mask"), sensor)
    except CaptureError as error:
        findings.broken(error)
        return replace(image, mask_path=None)
    return image


def _require_size(file: Path, size: tuple[int, int], sensor: Sensor) -> None:
    want = (sensor.camera.width, sensor.camera.height)
    if size != want:
        raise CaptureError(
            f"{file}: {size[0]} x {size[1]} px, but sensor {sensor.name} in {CAPTURE_FILE} is {want[0]} x {want[1]}; "
            "correct the one or the other"
        )


def _bounds(entry: Entry) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
    if "bounds" not in entry.values:
        return None
    corners = entry.values["bounds"]
    pair: dict[str, Any] = dict(zip(("low", "high"), corners, strict=False)) if isinstance(corners, list) else {}
    box = Entry(pair, f"{entry.where.removesuffix(': the file')}: bounds [low, high]")
    low, high = box.numbers("low", 3), box.numbers("high", 3)
    if not all(a < b for a, b in zip(low, high, strict=True)):
        raise CaptureError(f"{box.where} is {corners}, want low below high on every axis; correct it")
    entry.taken.add("bounds")
    return low, high


def _require_evidence(images: list[Image], depth_is_masked: bool, file: Path, findings: Findings) -> None:
    if not images:
        raise CaptureError(f"{file}: nothing usable is left: {' | '.join(findings.lines)}")
    if not depth_is_masked and all(i.mask_path is None for i in images):
        findings.broken(
            CaptureError(
                f"{file}: no image has a 'mask' and 'depth_is_masked' is false: the object cannot be told from its "
                "surroundings; add masks"
            )
        )


def _require_unique(names: list[str], where: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CaptureError(f"{where} has more than one entry for {', '.join(twice[:4])}; remove the others")


def _sensor_as_json(sensor: Sensor) -> dict[str, Any]:
    camera = sensor.camera
    described: dict[str, Any] = {
        "name": sensor.name,
        "kind": str(sensor.kind),
        "width": camera.width,
        "height": camera.height,
        "K": [camera.fx, camera.fy, camera.cx, camera.cy],
        "distortion": list(camera.distortion),
        "sensor_from_rig": sensor.sensor_from_rig.matrix().tolist(),
    }
    if sensor.metres_per_unit is not None:
        described["metres_per_unit"] = sensor.metres_per_unit
    return described


def _relative(path: Path, root: Path) -> str:
    resolved, inside = path.resolve(), root.resolve()
    if not resolved.is_relative_to(inside):
        raise CaptureError(f"{path}: lies outside of {root}, whose {CAPTURE_FILE} is to name it; copy it there first")
    return resolved.relative_to(inside).as_posix()


def _write_whole(file: Path, text: str) -> None:
    """Written beside and moved into place."""
    handle, beside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(beside, file)
    except BaseException:
        os.unlink(beside)
        raise
