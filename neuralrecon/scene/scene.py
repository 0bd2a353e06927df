"""`Scene`: the evidence of one capture around one object."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from skimage.morphology import convex_hull_image

from ..capture import Capture, Frame, Image, SensorKind
from ..capture.pixels import camera_of, read_color, read_depth, read_mask
from ..errors import ConfigError, EvidenceError
from ..geometry import Box, Rigid, Similarity
from .hull import VisualHull, locate, unit_cube
from .photographs import Photograph, Pixels
from .readings import Readings, on_object, points_of
from .silhouettes import Silhouette

log = logging.getLogger(__name__)

_ASSUMED_SIZE_MM = 200.0  # of an object in a world of unknown unit


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneConfig:
    """How evidence is taken from a capture.

    Attributes:
        hold_out_every: every n-th photograph is kept from training, to be compared with the rendering; 0 keeps none.
        margin_mm: free room between the object's hull and the unit cube.
        hull_resolution: cells a side of the hull's grid, 16 times a power of two.
        hull_tolerance_px: how far off a silhouette may be before it carves.
        edge_px: half the width of the strip along the outlines from which silhouette rays are drawn.
        depth_floor_mm: depth readings lower than this above the table count as table.
        depth_tolerance_mm: how far outside the hull a depth reading may lie.
    """

    hold_out_every: int = 20
    margin_mm: float = 10.0
    hull_resolution: int = 128
    hull_tolerance_px: float = 3.0
    edge_px: int = 6
    depth_floor_mm: float = 3.0
    depth_tolerance_mm: float = 4.0

    def __post_init__(self) -> None:
        power = self.hull_resolution // 16
        if self.hull_resolution % 16 or power & (power - 1) or not 16 <= self.hull_resolution <= 512:
            raise ConfigError(f"hull_resolution must be 16, 32, 64, 128, 256 or 512, got {self.hull_resolution}")
        if self.hold_out_every < 0 or self.hold_out_every == 1:
            raise ConfigError(f"hold_out_every must be 0 (none) or 2 and more, got {self.hold_out_every}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What training draws from, and how its unit cube lies in the world.

    `pixels` or `readings` is None if the capture has no photographs or no depth. `floor_m` is the height of the table
    in world, None without a table. `world_per_mm` is what all settings in mm mean in world units: 0.001, or, if the
    world is not metric, so much that the object is 200 mm long. `held_out` are photographs that training never sees.

    Example:
        >>> scene = Scene.from_capture(read_capture("data/bigbird/cheez_it"))  # doctest: +SKIP
    """

    name: str
    unit_from_world: Similarity
    box: Box
    hull: VisualHull
    floor_m: float | None
    pixels: Pixels | None
    readings: Readings | None
    held_out: tuple[Photograph, ...]
    sensor_names: tuple[str, ...]
    stop_names: tuple[str, ...]
    on_turntable: bool
    is_metric: bool
    world_per_mm: float

    @staticmethod
    def from_capture(capture: Capture, config: SceneConfig | None = None) -> Scene:
        """Read every image once, keep only what shows the object.

        Raises:
            CaptureError: a file that cannot be read.
            EvidenceError: neither silhouettes nor masked depth say where the object is, or they contradict each other.
        """
        config = config or SceneConfig()
        floor_m = 0.0 if capture.has_table else None
        photographs = _read_photographs(capture, config.edge_px + 2)
        depths = _read_depths(capture)
        held_out, kept = _split(photographs, config.hold_out_every)
        silhouettes = [Silhouette.from_mask(_placed(p), p.camera, p.cam_from_world, config.edge_px) for p in kept]
        if capture.depth_is_masked:
            weight = 1 / min(max(len(depths) // 8, 1), 4)
            silhouettes += [_silhouette_of_depth(*known, weight) for known in depths]
        if not silhouettes:
            raise EvidenceError(
                f"{capture.root}: no image has a mask and the depth is not masked to the object, so nothing says where "
                "the object is; add masks, or set depth_is_masked if zero depth means background"
            )
        box = locate(silhouettes, config.hull_tolerance_px, floor_m)
        world_per_mm = 1e-3 if capture.is_metric else float(box.size.max()) / _ASSUMED_SIZE_MM
        unit_from_world = unit_cube(box.padded(config.margin_mm * world_per_mm))
        hull = VisualHull.carve(
            silhouettes, unit_from_world, config.hull_resolution, config.hull_tolerance_px, floor_m, world_per_mm
        )
        unit = "m" if capture.is_metric else "world units"
        log.info("hull of %d silhouettes: %s %s", len(silhouettes), [round(x, 4) for x in box.size.tolist()], unit)
        return Scene(
            name=capture.name,
            unit_from_world=unit_from_world,
            box=box,
            hull=hull,
            floor_m=floor_m,
            pixels=Pixels.gather(kept, unit_from_world, config.edge_px) if kept else None,
            readings=_gather_readings(depths, hull, unit_from_world, config, floor_m, world_per_mm),
            held_out=tuple(held_out),
            sensor_names=tuple(s.name for s in capture.sensors),
            stop_names=tuple(f.name for f in capture.frames),
            on_turntable=all(f.angle_deg is not None for f in capture.frames),
            is_metric=capture.is_metric,
            world_per_mm=world_per_mm,
        )

    @property
    def unit_per_mm(self) -> float:
        """Unit lengths in a millimetre."""
        return self.unit_from_world.scale * self.world_per_mm


def _read_photographs(capture: Capture, margin_px: int) -> list[Photograph]:
    names = [s.name for s in capture.sensors]
    stops = {f.name: i for i, f in enumerate(capture.frames)}
    images = [i for i in capture.images_of(SensorKind.color) if i.mask_path is not None]
    log.info("reading %d photographs with silhouettes", len(images))
    return [
        Photograph.cropped(
            read_color(capture, image),
            read_mask(capture, image),
            margin_px,
            name=image.path.name,
            camera=camera_of(capture, image),
            cam_from_world=capture.sensor_from_world(image),
            rig_from_world=_lights_from_world(capture.frame(image.frame)),
            sensor=names.index(image.sensor),
            stop=stops[image.frame],
        )
        for image in images
    ]


def _lights_from_world(frame: Frame) -> torch.Tensor:
    """Rotation into the frame in which the lights stand still: the rig's on a turntable, else the world itself."""
    return torch.eye(3, dtype=torch.float64) if frame.angle_deg is None else frame.rig_from_world.rotation


def _split(photographs: Sequence[Photograph], every: int) -> tuple[list[Photograph], list[Photograph]]:
    if every == 0:
        return [], list(photographs)
    held_out = [p for i, p in enumerate(photographs) if i % every == every - 1]
    return held_out, [p for i, p in enumerate(photographs) if i % every != every - 1]


def _placed(photograph: Photograph) -> np.ndarray:
    """The mask back at its image's size."""
    mask = np.zeros((photograph.camera.height, photograph.camera.width), bool)
    height, width = photograph.inside.shape
    mask[photograph.v0 : photograph.v0 + height, photograph.u0 : photograph.u0 + width] = photograph.inside
    return mask


def _read_depths(capture: Capture) -> list[tuple[np.ndarray, Image, Capture]]:
    images = capture.images_of(SensorKind.depth)
    log.info("reading %d depth images", len(images))
    return [(read_depth(capture, image), image, capture) for image in images]


def _silhouette_of_depth(depth: np.ndarray, image: Image, capture: Capture, weight: float) -> Silhouette:
    """The outline that depth masked to the object tells: a guess, as readings are missing on dark and steep parts.

    The readings' convex hull, 3 px wider; where there are many images only several that agree carve: `weight` is the
    share of one.

    Raises:
        EvidenceError: an image without a reading.
    """
    if not depth.any():
        raise EvidenceError(f"{image.path}: no reading in a depth image that is masked to the object; leave it out")
    mask = convex_hull_image(depth > 0)
    silhouette = Silhouette.from_mask(mask, camera_of(capture, image), capture.sensor_from_world(image), 8)
    return replace(silhouette, distance_px=silhouette.distance_px - 3.0, weight=weight)


def _gather_readings(
    depths: Sequence[tuple[np.ndarray, Image, Capture]],
    hull: VisualHull,
    unit_from_world: Similarity,
    config: SceneConfig,
    floor_m: float | None,
    world_per_mm: float,
) -> Readings | None:
    points: list[torch.Tensor] = []
    sensors: list[int] = []
    stops: list[int] = []
    poses: list[Rigid] = []
    for depth, image, capture in depths:
        pose = capture.sensor_from_world(image)
        found = points_of(depth, camera_of(capture, image), pose)
        floor = None if floor_m is None else floor_m + config.depth_floor_mm * world_per_mm
        points.append(found[on_object(found, hull, unit_from_world, config.depth_tolerance_mm * world_per_mm, floor)])
        poses.append(pose)
        sensors.append([s.name for s in capture.sensors].index(image.sensor))
        stops.append([f.name for f in capture.frames].index(image.frame))
    if not sum(len(p) for p in points):
        return None
    return Readings.gather(points, poses, sensors, stops, unit_from_world)
