"""A folder of depth frames that are masked to the object, with their cameras in one JSON file, made a plain capture.

    FOLDER/cameras_parsed.json     depth_unit_m, width, height, frames: a list of
        file                       name of a 16-bit PNG in FOLDER/masked_depth; 0 = no reading
        camera, angle              name of the depth camera, degrees of the turntable
        K                          [fx, fy, cx, cy] in px, pixel centres at integers
        T_table_from_depthcam      4 x 4, metres; the camera's axes: x right, y down, z forward

The table's frame has z up and the table at z = 0. No photograph is needed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image as Pillow

from neuralrecon.capture import Capture, Frame, Image, Sensor, SensorKind, read_plain, write_plain
from neuralrecon.errors import CaptureError
from neuralrecon.geometry import Camera, Rigid

CAMERAS_FILE, DEPTH_FOLDER = "cameras_parsed.json", "masked_depth"


def read_cameras(folder: Path) -> dict[str, Any]:
    """What `cameras_parsed.json` says.

    Raises:
        CaptureError: there is none.
    """
    file = folder / CAMERAS_FILE
    if not file.is_file():
        raise CaptureError(f"{file}: no such file; give a folder of depth frames with their cameras")
    return json.loads(file.read_text())


def to_plain(folder: Path, work: Path) -> Capture:
    """The folder's frames copied to `work` and described there by a capture.json; the capture as read back from it.

    Each frame stands for itself: its rig frame is its camera's, as for a camera that is carried around the object.

    Raises:
        CaptureError: a file is missing or broken.
    """
    described = read_cameras(folder)
    (work / DEPTH_FOLDER).mkdir(parents=True, exist_ok=True)
    sensors: dict[tuple, Sensor] = {}
    frames, images = [], []
    for entry in described["frames"]:
        source = folder / DEPTH_FOLDER / entry["file"]
        if not source.is_file():
            raise CaptureError(f"{source}: no such file, but {folder / CAMERAS_FILE} names it; restore it")
        copied = Path(shutil.copyfile(source, work / DEPTH_FOLDER / entry["file"]))
        key = (entry["camera"], *entry["K"])
        sensor = sensors.setdefault(key, _sensor(entry, described, [s.name for s in sensors.values()]))
        pose = Rigid.from_matrix(torch.tensor(entry["T_table_from_depthcam"], dtype=torch.float64)).inverse()
        frames.append(Frame(name=copied.stem, rig_from_world=pose, angle_deg=float(entry["angle"])))
        images.append(Image(sensor=sensor.name, frame=copied.stem, path=copied))
    capture = Capture(
        name=folder.resolve().name,
        root=work,
        layout="plain",
        sensors=tuple(sensors.values()),
        frames=tuple(frames),
        images=tuple(images),
        depth_is_masked=True,
    )
    write_plain(capture, work)
    return read_plain(work)


def split(capture: Capture, every: int) -> tuple[Capture, list[str]]:
    """The capture without every n-th of its frames, and the names of the files left out."""
    held_out = capture.frames[every - 1 :: every]
    names = {frame.name for frame in held_out}
    kept = tuple(image for image in capture.images if image.frame not in names)
    frames = tuple(frame for frame in capture.frames if frame.name not in names)
    files = [image.path.name for image in capture.images if image.frame in names]
    return replace(capture, frames=frames, images=kept), files


def points_of_file(folder: Path, name: str) -> Float[np.ndarray, "readings 3"]:
    """Readings of one frame in the table's frame, metres, straight from the folder: not by way of the capture."""
    described = read_cameras(folder)
    entry = next(e for e in described["frames"] if e["file"] == name)
    with Pillow.open(folder / DEPTH_FOLDER / name) as file:
        depth = np.asarray(file).astype(np.float64) * described["depth_unit_m"]
    v, u = np.nonzero(depth)
    fx, fy, cx, cy = entry["K"]
    z = depth[v, u]
    in_cam = np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z], axis=1)
    table_from_cam = np.array(entry["T_table_from_depthcam"], dtype=np.float64)
    return in_cam @ table_from_cam[:3, :3].T + table_from_cam[:3, 3]


def _sensor(entry: dict[str, Any], described: dict[str, Any], taken: Sequence[str]) -> Sensor:
    fx, fy, cx, cy = entry["K"]
    matrix = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    same = sum(name == entry["camera"] or name.startswith(f"{entry['camera']}-") for name in taken)
    return Sensor(
        name=f"{entry['camera']}-{same + 1}" if same else entry["camera"],
        kind=SensorKind.depth,
        camera=Camera.from_opencv(matrix, described["width"], described["height"]),
        sensor_from_rig=Rigid.identity(),
        metres_per_unit=described["depth_unit_m"],
    )
