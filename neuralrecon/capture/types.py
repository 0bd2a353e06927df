"""A capture: which sensor took which file at which stop of the turntable. Calibration and paths, no pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from ..errors import CaptureError
from ..geometry import Camera, Rigid


class SensorKind(StrEnum):
    """What a sensor's pixels mean."""

    color = "color"
    depth = "depth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """One camera of the rig, standing still in the room.

    `metres_per_unit` turns a depth sensor's raw integers into metres along its optical axis; raw 0 is missing.
    """

    name: str
    kind: SensorKind
    camera: Camera
    sensor_from_rig: Rigid
    metres_per_unit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One stop of the turntable. `world` is the object's own frame, `rig` the room's.

    For a capture without a turntable every image has its own frame, and the rig frame is that camera's or the world's.
    """

    name: str
    rig_from_world: Rigid
    angle_deg: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One file: a photograph or a depth map, with the silhouette that belongs to it.

    `mask_path` is None if the object's outline in this image is not known. `object_is_black` says which value of the
    mask file means object: BigBIRD draws the object black on white.
    """

    sensor: str
    frame: str
    path: Path
    mask_path: Path | None = None
    object_is_black: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Everything that is known before a pixel is read.

    `has_table` says that the world's plane z = 0 is the table on which the object stands (z up).
    `is_metric` is False when world units are not known to be metres.
    `bounds` are the low and high corner of a box around the object in world units, where the layout states one.
    `points_path` is a PLY file of points on what was seen, or the folder of a COLMAP model (`read_points` reads both).
    `depth_is_masked` says that every depth reading is of the object: the rest of each depth map was set to 0.
    `masks_are_found` says that masks were cut out of the photographs here, and may be wrong where they look alike.
    `left_out` lists, one line each, what a partial capture lacks; nothing is dropped without a line here.

    Example:
        >>> capture = read_capture("data/bigbird/cheez_it")  # doctest: +SKIP
        >>> few = capture.restricted(sensors=["N1", "N3"], every_nth_stop=3, downscale=2)  # doctest: +SKIP
    """

    name: str
    root: Path
    layout: str
    sensors: tuple[Sensor, ...]
    frames: tuple[Frame, ...]
    images: tuple[Image, ...]
    has_table: bool = True
    is_metric: bool = True
    downscale: int = 1
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    depth_is_masked: bool = False
    masks_are_found: bool = False
    points_path: Path | None = None
    left_out: tuple[str, ...] = ()

    def sensor(self, name: str) -> Sensor:
        return next(s for s in self.sensors if s.name == name)

    def frame(self, name: str) -> Frame:
        return next(f for f in self.frames if f.name == name)

    def sensor_from_world(self, image: Image) -> Rigid:
        return self.sensor(image.sensor).sensor_from_rig @ self.frame(image.frame).rig_from_world

    def images_of(self, kind: SensorKind) -> tuple[Image, ...]:
        names = {s.name for s in self.sensors if s.kind == kind}
        return tuple(i for i in self.images if i.sensor in names)

    def restricted(
        self, *, sensors: Iterable[str] | None = None, every_nth_stop: int = 1, downscale: int = 1
    ) -> Capture:
        """Fewer sensors, every n-th stop, smaller photographs (each side divided by `downscale`; depth keeps its size).

        Raises:
            CaptureError: a sensor that is not there, a number below one, or nothing left.
        """
        known = [s.name for s in self.sensors]
        wanted = known if sensors is None else list(sensors)
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise CaptureError(f"{self.root}: no sensor {', '.join(unknown)}; this capture has {', '.join(known)}")
        if every_nth_stop < 1 or downscale < 1:
            raise CaptureError(f"every_nth_stop and downscale must be 1 or more, got {every_nth_stop} and {downscale}")
        frames = self.frames[::every_nth_stop]
        names = {f.name for f in frames}
        images = tuple(i for i in self.images if i.sensor in wanted and i.frame in names)
        if not images:
            raise CaptureError(f"{self.root}: no image is left with sensors={wanted}, every_nth_stop={every_nth_stop}")
        used = {i.sensor for i in images}
        return replace(
            self,
            sensors=tuple(s for s in self.sensors if s.name in used),
            frames=frames,
            images=images,
            downscale=self.downscale * downscale,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsePoints:
    """n points in world units, with m observations of them in order of the points.

    Observation i says that image `image_index[i]` of `Capture.images` shows point `point_index[i]` at `pixel[i]`
    (u, v; a pixel's centre is at +0.5). `error_px` is each point's mean reprojection error, NaN where unknown.
    """

    xyz: Float64[np.ndarray, "points 3"]
    rgb: UInt8[np.ndarray, "points 3"]
    error_px: Float64[np.ndarray, "points"]
    image_index: Int64[np.ndarray, "observations"]
    point_index: Int64[np.ndarray, "observations"]
    pixel: Float64[np.ndarray, "observations 2"]
