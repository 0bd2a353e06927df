"""Photographs with one camera and pose each: the form that layouts without rigs have in common."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from ..errors import CaptureError
from ..files import replacing
from ..geometry import Camera, Rigid
from .findings import Findings
from .headers import depth_size, image_size, opened_image
from .types import Capture, Frame, Image, Sensor, SensorKind

_SAME_POSE = 1e-9
_SAME_SHAPE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A photograph or a depth map, or both taken by one camera, and what is known of them.

    `camera` is that of the photograph; depth may be smaller or larger, of the same field of view.
    `metres_per_unit` turns raw depth into world units.
    """

    name: str
    camera: Camera
    cam_from_world: Rigid
    color: Path | None = None
    mask: Path | None = None
    object_is_black: bool = False
    depth: Path | None = None
    metres_per_unit: float | None = None


def sensors_of(
    views: Iterable[View], findings: Findings
) -> tuple[tuple[Sensor, ...], tuple[Frame, ...], tuple[Image, ...]]:
    """Sensors, frames and images of views: every view is a frame with the rig frame in its camera.

    Views of equal intrinsics share a sensor: ``camera0``, ``camera1``, ... for photographs, ``depth0``, ... for depth.
    Masks and depth maps are looked at here, photographs by who made the view.
    """
    sensors: dict[tuple[Camera, float | None], Sensor] = {}
    frames: list[Frame] = []
    images: list[Image] = []
    n_sensors: Counter[SensorKind] = Counter()

    def sensor(camera: Camera, metres_per_unit: float | None) -> str:
        kind, word = (SensorKind.color, "camera") if metres_per_unit is None else (SensorKind.depth, "depth")
        if (camera, metres_per_unit) not in sensors:
            sensors[camera, metres_per_unit] = Sensor(
                name=f"{word}{n_sensors[kind]}",
                kind=kind,
                camera=camera,
                sensor_from_rig=Rigid.identity(),
                metres_per_unit=metres_per_unit,
            )
            n_sensors[kind] += 1
        return sensors[camera, metres_per_unit].name

    for view in views:
        n_before = len(images)
        if view.color:
            name = sensor(view.camera, None)
            mask = _whole_mask(view, findings)
            black = view.object_is_black and mask is not None
            images.append(Image(sensor=name, frame=view.name, path=view.color, mask_path=mask, object_is_black=black))
        if view.depth and (camera := _depth_camera(view, view.depth, findings)):
            images.append(Image(sensor=sensor(camera, view.metres_per_unit), frame=view.name, path=view.depth))
        if len(images) > n_before:
            frames.append(Frame(name=view.name, rig_from_world=view.cam_from_world))
    return tuple(sensors.values()), tuple(frames), tuple(images)


def views_of(capture: Capture) -> list[View]:
    """A capture as views, in its own order; inverse of `sensors_of` but for names and for how sensors hang together.

    Raises:
        CaptureError: a depth sensor sees from another place than the photographs do (or there are none), which layouts
            of views cannot say.
    """
    sensors = {s.name: s for s in capture.sensors}
    depths = {i.frame: [] for i in capture.images}
    for image in capture.images_of(SensorKind.depth):
        depths[image.frame].append(image)
    views = []
    for image in capture.images_of(SensorKind.color):
        camera, pose = sensors[image.sensor].camera, capture.sensor_from_world(image)
        aligned = next((d for d in depths[image.frame] if _is_aligned(capture, d, camera, pose)), None)
        if aligned:
            depths[image.frame].remove(aligned)
        views.append(
            View(
                name=f"{len(views):06d}",
                camera=camera,
                cam_from_world=pose,
                color=image.path,
                mask=image.mask_path,
                object_is_black=image.object_is_black,
                depth=aligned.path if aligned else None,
                metres_per_unit=sensors[aligned.sensor].metres_per_unit if aligned else None,
            )
        )
    left = [d for frame in depths.values() for d in frame]
    if left:
        colors = [s.name for s in capture.sensors if s.kind == SensorKind.color]
        raise CaptureError(
            f"{left[0].path}: depth of sensor {left[0].sensor} is not seen from a photograph's place, which this "
            f"layout cannot say; leave depth out by capture.restricted(sensors={colors}), or write a COLMAP model"
        )
    return views


def require_size(file: Path, size: tuple[int, int], camera: Camera, where: str) -> None:
    """The file has the size that `where` calibrates it for.

    Raises:
        CaptureError: it has not.
    """
    if size != (camera.width, camera.height):
        raise CaptureError(
            f"{file}: {size[0]} x {size[1]} px, but {where} is for {camera.width} x {camera.height}; "
            "use the images of that size"
        )


def write_white_mask(view: View, file: Path) -> Path:
    """The view's mask as an 8-bit PNG, object white on black."""
    assert view.mask is not None
    with opened_image(view.mask, "mask") as image:
        grey = np.asarray(image.convert("L"))
    with replacing(file) as temporary:
        PILImage.fromarray(np.where((grey < 128) == view.object_is_black, 255, 0).astype(np.uint8)).save(temporary)
    return file


def _whole_mask(view: View, findings: Findings) -> Path | None:
    if view.mask is None:
        return None
    try:
        require_size(view.mask, image_size(view.mask, "mask"), view.camera, f"its image {view.name}")
    except CaptureError as error:
        findings.broken(error)
        return None
    return view.mask


def _depth_camera(view: View, depth: Path, findings: Findings) -> Camera | None:
    camera = view.camera
    try:
        width, height = depth_size(depth)
        if abs(width * camera.height / (height * camera.width) - 1) > _SAME_SHAPE:
            raise CaptureError(
                f"{depth}: {width} x {height} px is another shape than its image {view.name}, {camera.width} x "
                f"{camera.height}; use depth that is aligned with the photograph"
            )
    except CaptureError as error:
        findings.broken(error)
        return None
    return camera if (width, height) == (camera.width, camera.height) else camera.resized(width, height)


def _is_aligned(capture: Capture, depth: Image, camera: Camera, cam_from_world: Rigid) -> bool:
    own = capture.sensor(depth.sensor).camera
    off = capture.sensor_from_world(depth).matrix() - cam_from_world.matrix()
    return camera.resized(own.width, own.height) == own and float(off.abs().max()) < _SAME_POSE


def distinct_names(files: list[Path], root: Path) -> list[str]:
    """A short name for each file: its stem, or its path from `root` where stems repeat."""
    stems = [f.stem for f in files]
    if len(set(stems)) == len(stems):
        return stems
    return [Path(os.path.relpath(f, root)).with_suffix("").as_posix() for f in files]
