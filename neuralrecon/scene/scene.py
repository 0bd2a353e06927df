"""`Scene`: the evidence of one capture around one object."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from skimage.morphology import convex_hull_image
from torch import Tensor

from ..capture import Capture, Frame, Image, SensorKind
from ..capture.pixels import camera_of, read_depth
from ..errors import ConfigError, EvidenceError
from ..geometry import Box, Similarity
from .crop_cache import crops_on_disk
from .crops import crops_in_memory
from .highlights import highlight_share
from .hull import VisualHull, locate, unit_cube
from .mirrored import of_mirrored_table
from .parallel import in_parallel
from .photographs import Photograph, Pixels
from .readings import Readings, on_object, points_of
from .silhouettes import Silhouette
from .surface_kind import DepthSurvey, Surface, SurfaceKind, judged, outline_of, survey_depth

log = logging.getLogger(__name__)

_CRUST_CELLS = 1.0
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
        cache_limit_gb: the most disk that the photographs' crops may take.
    """

    hold_out_every: int = 20
    margin_mm: float = 10.0
    hull_resolution: int = 128
    hull_tolerance_px: float = 3.0
    edge_px: int = 6
    depth_floor_mm: float = 3.0
    depth_tolerance_mm: float = 4.0
    cache_limit_gb: float = 20.0

    def __post_init__(self) -> None:
        power = self.hull_resolution // 16
        if self.hull_resolution % 16 or power & (power - 1) or not 16 <= self.hull_resolution <= 512:
            raise ConfigError(f"hull_resolution must be 16, 32, 64, 128, 256 or 512, got {self.hull_resolution}")
        if self.cache_limit_gb <= 0:
            raise ConfigError(f"cache_limit_gb must be above 0, got {self.cache_limit_gb}")
        if self.hold_out_every < 0 or self.hold_out_every == 1:
            raise ConfigError(f"hold_out_every must be 0 (none) or 2 and more, got {self.hold_out_every}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What training draws from, and how its unit cube lies in the world.

    `pixels` or `readings` is None if the capture has no photographs or no depth. `floor_m` is the height of the table
    in world, None without a table. `world_per_mm` is what all settings in mm mean in world units: 0.001, or, if the
    world is not metric, so much that the object is 200 mm long. `start` is the hull without what depth says is free.
    `surface` is the kind of surface with its reason. `held_out` are photographs that training never sees.
    `masks_are_found` is as in `Capture`.

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
    start: VisualHull
    surface: Surface
    held_out: tuple[Photograph, ...]
    sensor_names: tuple[str, ...]
    stop_names: tuple[str, ...]
    on_turntable: bool
    masks_are_found: bool
    is_metric: bool
    world_per_mm: float

    @staticmethod
    def from_capture(
        capture: Capture,
        config: SceneConfig | None = None,
        *,
        surface: SurfaceKind = SurfaceKind.auto,
        folder: Path | None = None,
    ) -> Scene:
        """Read every image once, keep only what shows the object.

        Args:
            surface: matte, glossy, mirror or clear; auto judges by missing and wrong depth and by highlights. On mirror
                and clear neighbouring photographs are not compared in the fit, silhouettes and smoothness count more,
                and readings that may be of the table, mirrored, are left out. All else is the same for all.
            folder: where the photographs' crops are kept as a file, from which training draws, and from which this is
                done again in no time; without it they are held in memory.

        Raises:
            CaptureError: a file that cannot be read.
            ConfigError: the crops do not fit on the disk, or are more than `cache_limit_gb`.
            EvidenceError: neither silhouettes nor masked depth say where the object is, or they contradict each other.
        """
        config = config or SceneConfig()
        floor_m = 0.0 if capture.has_table else None
        depths = capture.images_of(SensorKind.depth)
        kept, held_out = read_photographs(capture, config, folder)
        silhouettes = list(in_parallel("outlines measured", lambda p: p.silhouette(config.edge_px), kept))
        if capture.depth_is_masked:
            weight = 1 / min(max(len(depths) // 8, 1), 4)
            silhouettes += in_parallel(
                "depth outlines read", lambda image: silhouette_of_depth(capture, image, weight), depths
            )
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
        readings, survey = _gather_readings(capture, hull, unit_from_world, config, floor_m, world_per_mm)
        pixels = Pixels.gather(kept, unit_from_world, config.edge_px) if kept else None
        judged_surface = _surface(surface, pixels, readings, hull, survey)
        if readings is not None and floor_m is not None and not judged_surface.is_opaque_and_rough:
            readings = _without_mirrored_table(readings, hull, unit_from_world, floor_m, world_per_mm)
        unit = "m" if capture.is_metric else "world units"
        log.info("hull of %d silhouettes: %s %s", len(silhouettes), [round(x, 4) for x in box.size.tolist()], unit)
        return Scene(
            name=capture.name,
            unit_from_world=unit_from_world,
            box=box,
            hull=hull,
            floor_m=floor_m,
            pixels=pixels,
            readings=readings,
            surface=judged_surface,
            start=hull if readings is None else hull.without(readings.free),
            held_out=tuple(held_out),
            sensor_names=tuple(s.name for s in capture.sensors),
            stop_names=tuple(f.name for f in capture.frames),
            on_turntable=all(f.angle_deg is not None for f in capture.frames),
            masks_are_found=capture.masks_are_found,
            is_metric=capture.is_metric,
            world_per_mm=world_per_mm,
        )

    def known_free(self, beyond_mm: float) -> Float[Tensor, "points 3"]:
        """Centres (unit) of cells in the hull, or less than this outside of it, that depth says are free."""
        if self.readings is None:
            return torch.zeros(0, 3)
        cells = self.readings.free.nonzero()
        centers = (cells + 0.5) / self.readings.free.shape[0]
        return centers[self.hull.look_up(centers) < beyond_mm * self.unit_per_mm]

    @property
    def unit_per_mm(self) -> float:
        """Unit lengths in a millimetre."""
        return self.unit_from_world.scale * self.world_per_mm


def read_photographs(
    capture: Capture, config: SceneConfig, folder: Path | None = None
) -> tuple[list[Photograph], list[Photograph]]:
    """The photographs that have outlines, cropped: those that training draws from, and those held out.

    Args:
        folder: where the crops are kept as a file; without it they are held in memory.

    Raises:
        CaptureError: a file that cannot be read.
        ConfigError: the crops do not fit on the disk, or are more than `cache_limit_gb`.
    """
    names = [s.name for s in capture.sensors]
    stops = {f.name: i for i, f in enumerate(capture.frames)}
    images = [i for i in capture.images_of(SensorKind.color) if i.mask_path is not None]
    if not images:
        return [], []
    margin_px = config.edge_px + 2
    if folder is None:
        store, crops = crops_in_memory(capture, images, margin_px)
    else:
        store, crops = crops_on_disk(capture, images, margin_px, folder, config.cache_limit_gb)
    photographs = [
        Photograph(
            name=image.path.name,
            camera=camera_of(capture, image),
            cam_from_world=capture.sensor_from_world(image),
            rig_from_world=lights_from_world(capture.frame(image.frame)),
            sensor=names.index(image.sensor),
            stop=stops[image.frame],
            store=store,
            crop=crop,
        )
        for image, crop in zip(images, crops, strict=True)
    ]
    every = config.hold_out_every
    held_out = [p for i, p in enumerate(photographs) if every and i % every == every - 1]
    kept = [p for i, p in enumerate(photographs) if not every or i % every != every - 1]
    return kept, held_out


def lights_from_world(frame: Frame) -> torch.Tensor:
    """Rotation into the frame in which the lights stand still: the rig's on a turntable, else the world itself."""
    return torch.eye(3, dtype=torch.float64) if frame.angle_deg is None else frame.rig_from_world.rotation


def silhouette_of_depth(capture: Capture, image: Image, weight: float) -> Silhouette:
    """The outline that depth masked to the object tells: a guess, as readings are missing on dark and steep parts.

    The readings' convex hull, 3 px wider; where there are many images only several that agree carve: `weight` is the
    share of one.

    Raises:
        EvidenceError: an image without a reading.
    """
    depth = read_depth(capture, image)
    if not depth.any():
        raise EvidenceError(f"{image.path}: no reading in a depth image that is masked to the object; leave it out")
    mask = convex_hull_image(depth > 0)
    silhouette = Silhouette.from_mask(mask, camera_of(capture, image), capture.sensor_from_world(image), 8)
    return replace(silhouette, distance_px=silhouette.distance_px - 3.0, weight=weight)


def _gather_readings(
    capture: Capture,
    hull: VisualHull,
    unit_from_world: Similarity,
    config: SceneConfig,
    floor_m: float | None,
    world_per_mm: float,
) -> tuple[Readings | None, DepthSurvey]:
    images = capture.images_of(SensorKind.depth)
    floor = None if floor_m is None else floor_m + config.depth_floor_mm * world_per_mm
    tolerance = config.depth_tolerance_mm * world_per_mm

    solid = unit_from_world.inverse().apply(hull.crust(_CRUST_CELLS))
    spacing = 1 / (unit_from_world.scale * hull.sdf.shape[0])
    if floor is not None:
        solid = solid[solid[:, 2] > floor]

    def read(image: Image) -> tuple[Tensor, DepthSurvey]:
        pose, camera, depth = capture.sensor_from_world(image), camera_of(capture, image), read_depth(capture, image)
        found = points_of(depth, camera, pose)
        kept = on_object(found, hull, unit_from_world, tolerance, floor)
        return found[kept], survey_depth(np.asarray(depth), kept, outline_of(solid, camera, pose, spacing))

    points, surveys = [], DepthSurvey()
    for found, survey in in_parallel("depth images read", read, images):
        points.append(found)
        surveys += survey
    if not sum(len(p) for p in points):
        return None, surveys
    sensors, stops = [s.name for s in capture.sensors], [f.name for f in capture.frames]
    readings = Readings.gather(
        points,
        [capture.sensor_from_world(image) for image in images],
        [sensors.index(image.sensor) for image in images],
        [stops.index(image.frame) for image in images],
        unit_from_world,
        world_per_mm,
    )
    return readings, surveys


def _without_mirrored_table(
    readings: Readings, hull: VisualHull, unit_from_world: Similarity, floor_m: float, world_per_mm: float
) -> Readings:
    unit_per_mm = unit_from_world.scale * world_per_mm
    floor = floor_m * unit_from_world.scale + float(unit_from_world.translation[2])
    origins = readings.origins[readings.frames.long()]
    mirrored = of_mirrored_table(readings.points, origins, hull, floor, unit_per_mm)
    log.info("%.1f %% of the depth readings may be of the table, mirrored", 100 * float(mirrored.float().mean()))
    return readings.disbelieving(mirrored, unit_per_mm)


def _surface(
    wanted: SurfaceKind, pixels: Pixels | None, readings: Readings | None, hull: VisualHull, survey: DepthSurvey
) -> Surface:
    if wanted != SurfaceKind.auto:
        return Surface(kind=wanted, reason="as set", survey=survey)
    highlights = None if pixels is None or readings is None else highlight_share(pixels, readings, hull)
    surface = judged(survey, highlights)
    log.info("surface: %s (%s)", surface.kind, surface.reason)
    return surface
