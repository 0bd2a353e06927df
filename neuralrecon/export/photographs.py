"""A capture's photographs, outlines and depth gathered in one folder, under names that other programs expect."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from ..capture import Capture, Image, Sensor, SensorKind, read_mask
from ..errors import ExportError
from .folders import file_names
from .registered import depth_partners, registered_depth

IMAGE_FOLDER, MASK_FOLDER, DEPTH_FOLDER = "images", "masks", "depth"
_MOST_RAW = 65535


class Images(StrEnum):
    """How photographs come into another folder: as copies, or as hard links, which take no room."""

    copy = "copy"
    link = "link"


def gathered(capture: Capture, folder: Path, images: Images, *, depth_unit_m: float | None = None) -> Capture:
    """The capture's photographs and outlines in `folder`, at full size, and the capture that describes them there.

    Files are called ``images/SENSOR/FRAME.jpg``, ``masks/SENSOR/FRAME.jpg.png`` (white is object) and, if
    `depth_unit_m` asks for it, ``depth/SENSOR/FRAME.png``: 16 bits in that unit, 0 where nothing is known, in the
    pixels of the photograph whose sensor the depth sensor is nearest to (`registered_depth`). Readings beyond 65535
    units become 0. Files are written one by one: `whole_folder` is for those who want all or none.

    Raises:
        ExportError: no photograph, or a file cannot be linked.
        CaptureError: a mask or a depth map cannot be read.
    """
    full = replace(capture, downscale=1)
    photographs = full.images_of(SensorKind.color)
    if not photographs:
        raise ExportError(f"{capture.root}: no photograph in it; this layout is made of photographs")
    sensors, frames = file_names([s.name for s in full.sensors]), file_names([f.name for f in full.frames])
    partners = {} if depth_unit_m is None else depth_partners(full)
    there: list[Image] = []
    for image in photographs:
        name = f"{sensors[image.sensor]}/{frames[image.frame]}"
        photo = folder / IMAGE_FOLDER / f"{name}{image.path.suffix.lower()}"
        _place(image.path, photo, images)
        mask = None
        if image.mask_path is not None:
            mask = folder / MASK_FOLDER / f"{name}{photo.suffix}.png"
            write_mask(read_mask(full, image), mask)
        there.append(replace(image, path=photo, mask_path=mask, object_is_black=False))
        depth = partners.get((image.sensor, image.frame))
        if depth is not None and depth_unit_m is not None:
            file = folder / DEPTH_FOLDER / f"{name}.png"
            metres = registered_depth(full, depth, full.sensor(image.sensor).camera, full.sensor_from_world(image))
            write_depth(metres, file, depth_unit_m)
            there.append(Image(sensor=_depth_name(image.sensor), frame=image.frame, path=file))
    used = {image.sensor for image in there}
    own = [s for s in full.sensors if s.name in used]
    depth_sensors = [_depth_sensor(s, depth_unit_m) for s in own if depth_unit_m and _depth_name(s.name) in used]
    taken = {image.frame for image in there}
    return replace(
        full,
        root=folder,
        sensors=(*own, *depth_sensors),
        frames=tuple(f for f in full.frames if f.name in taken),
        images=tuple(there),
        points_path=None,
        left_out=(),
    )


def write_mask(mask: np.ndarray, file: Path) -> Path:
    """An outline as 8-bit PNG, object white."""
    file.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(file)
    return file


def write_depth(metres: np.ndarray, file: Path, unit_m: float) -> Path:
    """Depth as 16-bit PNG in this unit, 0 where there is none or it is too far."""
    raw = np.rint(metres / unit_m)
    raw[raw > _MOST_RAW] = 0
    file.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(raw.astype(np.uint16)).save(file)
    return file


def _depth_name(color: str) -> str:
    return f"{color}/registered_depth"


def _depth_sensor(color: Sensor, unit_m: float) -> Sensor:
    return replace(color, name=_depth_name(color.name), kind=SensorKind.depth, metres_per_unit=unit_m)


def _place(source: Path, target: Path, images: Images) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if images == Images.copy:
        shutil.copyfile(source, target)
        return
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        raise ExportError(
            f"{source}: cannot be linked from {target.parent} ({error.strerror}), such as on another disk; "
            "take images=copy"
        ) from error
