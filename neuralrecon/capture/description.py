"""A `Capture` as one JSON object and back (the text of `plain` describes it). No image file is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from pathlib import Path
from typing import Any

import torch

from ..errors import CalibrationError, CaptureError
from ..files import read_json
from ..geometry import Camera, Rigid
from .entries import Entry, confined
from .headers import decoding
from .types import Capture, Frame, Image, Sensor, SensorKind

_VERSION = 1


def read_description(file: Path, what: str = "description of the capture") -> Entry:
    """The one object of a JSON file.

    Raises:
        CaptureError: missing, too large, no JSON, or no object.
    """
    with decoding(file, what):
        return Entry.of(read_json(file), f"{file}: the file")


def capture_of(entry: Entry, root: Path, layout: str) -> Capture:
    """The capture that a JSON object describes; every key is checked, no image file is.

    Raises:
        CaptureError: a key is missing, wrong or unknown; the message names the entry.
    """
    file = entry.where.removesuffix(": the file")
    version = entry.count("version")
    if version != _VERSION:
        raise CaptureError(f"{file}: version {version}, this program reads version {_VERSION}; convert the file")
    sensors = tuple(_sensor(e) for e in entry.entries("sensors"))
    frames = tuple(_frame(e) for e in entry.entries("frames"))
    _require_unique([s.name for s in sensors], f"{file}: sensors")
    _require_unique([f.name for f in frames], f"{file}: frames")
    sensor_names, frame_names = {s.name for s in sensors}, {f.name for f in frames}
    images = tuple(_image(e, root, sensor_names, frame_names) for e in entry.entries("images"))
    _require_unique([f"{i.sensor} at {i.frame}" for i in images], f"{file}: images")
    points = entry.text("points", None)
    capture = Capture(
        name=entry.text("name"),
        root=root,
        layout=layout,
        sensors=sensors,
        frames=frames,
        images=images,
        has_table=entry.flag("has_table", True),
        is_metric=entry.flag("is_metric", True),
        downscale=entry.count("downscale", 1),
        bounds=_bounds(entry),
        depth_is_masked=entry.flag("depth_is_masked", False),
        points_path=None if points is None else confined(points, root, entry.where),
        left_out=entry.texts("left_out", ()),
    )
    entry.finish()
    return capture


def described(capture: Capture, root: Path) -> dict[str, Any]:
    """The JSON object of a capture whose files lie under `root`: `capture_of` undoes it.

    Raises:
        CaptureError: an image, mask or file of points lies outside of `root`.
    """
    values: dict[str, Any] = {
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
            {"sensor": i.sensor, "frame": i.frame, "path": relative(i.path, root)}
            | ({"mask": relative(i.mask_path, root), "object_is_black": i.object_is_black} if i.mask_path else {})
            for i in capture.images
        ],
    }
    if capture.bounds:
        values["bounds"] = [list(corner) for corner in capture.bounds]
    if capture.points_path:
        values["points"] = relative(capture.points_path, root)
    return values


def relative(path: Path, root: Path) -> str:
    """`path` as seen from `root`, with slashes.

    Raises:
        CaptureError: it lies outside of `root`.
    """
    resolved, inside = path.resolve(), root.resolve()
    if not resolved.is_relative_to(inside):
        raise CaptureError(f"{path}: lies outside of {root}, which is to name it; copy it there first")
    return resolved.relative_to(inside).as_posix()


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


def _image(entry: Entry, root: Path, sensors: Set[str], frames: Set[str]) -> Image:
    sensor, frame, mask = entry.text("sensor"), entry.text("frame"), entry.text("mask", None)
    for what, name, known in (("sensor", sensor, sensors), ("frame", frame, frames)):
        if name not in known:
            raise CaptureError(f"{entry.where} has {what!r} = {name!r}, which is none of the {what}s; correct it")
    image = Image(
        sensor=sensor,
        frame=frame,
        path=confined(entry.text("path"), root, entry.where),
        mask_path=None if mask is None else confined(mask, root, entry.where),
        object_is_black=entry.flag("object_is_black", False),
    )
    entry.finish()
    return image


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


def _require_unique(names: list[str], where: str) -> None:
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
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
