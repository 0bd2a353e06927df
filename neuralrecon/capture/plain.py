"""A plain folder of colour and depth images, described by one file `capture.json`.

The file holds one object. Lengths are in metres unless `is_metric` is false, matrices are 4 x 4 lists of rows::

    {"version": 1, "name": "mug",
     "is_metric": true, "has_table": true,        world: z up, table at z = 0 (both default to true)
     "depth_is_masked": false,                    true: every depth reading is of the object (default false)
     "points": "points.ply",                      optional: sparse points, a PLY file or a COLMAP model's folder
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
from dataclasses import replace
from pathlib import Path

from ..errors import CaptureError
from ..files import replacing
from .description import capture_of, described, read_description
from .findings import Findings
from .headers import depth_size, image_size
from .types import Capture, Image, Sensor, SensorKind

CAPTURE_FILE = "capture.json"


def read_plain(path: str | Path, *, allow_partial: bool = False) -> Capture:
    """A folder with a `capture.json` (see this module's text). Every file is looked at, none is decoded.

    Raises:
        CaptureError: `capture.json` or one of its entries is wrong (the message names it), a file is missing, broken
            or of another size than its sensor's, or there is only depth that shows more than the object. With
            `allow_partial` broken files are listed in `left_out`; errors in `capture.json` itself always raise.

    Example:
        >>> capture = read_plain("data/my_mug")  # doctest: +SKIP
    """
    root = Path(path)
    file = root / CAPTURE_FILE
    findings = Findings(allow_partial)
    capture = whole(capture_of(read_description(file), root, "plain"), file, findings)
    if not (capture.depth_is_masked or capture.images_of(SensorKind.color)):
        findings.broken(
            CaptureError(
                f"{file}: no image is a photograph and 'depth_is_masked' is false: the object cannot be told from its "
                "surroundings; add masked photographs, or set the depth around the object to 0"
            )
        )
    return replace(capture, left_out=(*capture.left_out, *findings.lines))


def write_plain(capture: Capture, folder: str | Path) -> Path:
    """Describes a capture whose files lie under `folder` by a `capture.json` there; returns that file's path.

    The file appears whole or not at all. Rotations and lengths are written with all digits of float64.

    Raises:
        CaptureError: an image, a mask or the points lie outside of the folder.

    Example:
        >>> write_plain(capture, "data/my_mug")  # doctest: +SKIP
    """
    file = Path(folder) / CAPTURE_FILE
    text = json.dumps(described(capture, Path(folder)), indent=1, allow_nan=False)
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return file


def whole(capture: Capture, file: Path, findings: Findings) -> Capture:
    """The capture with those images, and masks of them, whose files are whole and of their sensor's size.

    `file` is what says so; it is named in the errors.

    Raises:
        CaptureError: a file is not (unless `findings` allow it), or nothing usable is left.
    """
    sensors = {s.name: s for s in capture.sensors}
    images = [w for i in capture.images if (w := _whole(i, sensors[i.sensor], file, findings))]
    if not images:
        raise CaptureError(f"{file}: nothing usable is left: {' | '.join(findings.lines)}")
    return replace(capture, images=tuple(images))


def _whole(image: Image, sensor: Sensor, file: Path, findings: Findings) -> Image | None:
    is_depth = sensor.kind == SensorKind.depth
    try:
        size = depth_size(image.path) if is_depth else image_size(image.path)
        _require_size(image.path, size, sensor, file)
    except CaptureError as error:
        findings.broken(error)
        return None
    try:
        if image.mask_path:
            _require_size(image.mask_path, image_size(image.mask_path, "mask"), sensor, file)
    except CaptureError as error:
        findings.broken(error)
        return replace(image, mask_path=None)
    return image


def _require_size(image: Path, size: tuple[int, int], sensor: Sensor, file: Path) -> None:
    want = (sensor.camera.width, sensor.camera.height)
    if size != want:
        raise CaptureError(
            f"{image}: {size[0]} x {size[1]} px, but sensor {sensor.name} in {file} is {want[0]} x {want[1]}; "
            "correct the one or the other"
        )
