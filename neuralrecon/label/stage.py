"""From a mesh to a folder of labels."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Bool

from ..capture import Capture, SensorKind, read_depth
from ..errors import ConfigError
from .depth_inliers import read_depth_inliers
from .layouts import Truth, write_deep_sdf, write_if_net, write_occupancy_networks, write_shape_completion
from .observed import Sight, View, views_of
from .occupancy import OccupancyLabels, Sampling, label_occupancy
from .partial import partial_cloud
from .solid import Solid

_log = logging.getLogger(__name__)
_TABLE_Z_M = 0.0


class Layout(StrEnum):
    """The programs whose files can be written."""

    occupancy_networks = "occupancy_networks"
    if_net = "if_net"
    deep_sdf = "deep_sdf"
    shape_completion = "shape_completion"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelConfig:
    """What to write beside `labels.npz` (mixed points in metres), and how much of it.

    `category` and `data_set` are the folders under which the consumers expect an object. `observed_views` is how many
    of the capture's images, evenly spread, decide what was observed: more take longer and find little more.
    """

    n_points: int = 100_000
    n_points_deep_sdf: int = 500_000
    sigma_m: float = 0.001
    layouts: list[Layout] = field(default_factory=lambda: list(Layout))
    half_precision: bool = False
    category: str = "objects"
    data_set: str = "neuralrecon"
    observed_views: int = 60
    partial_clouds: bool = True
    partial_margin_m: float = 0.02
    partial_distance_m: float = 0.003

    def __post_init__(self) -> None:
        counts = (self.n_points, self.n_points_deep_sdf, self.observed_views)
        lengths = (self.sigma_m, self.partial_margin_m, self.partial_distance_m)
        if min(counts) < 1 or min(lengths) <= 0:
            raise ConfigError(f"label: counts must be 1 or more and lengths positive, got {counts} and {lengths} m")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSummary:
    """What was written. Points per second are those of inside or outside alone, with the trees built.

    `observed_share` is of the uniform points of `labels.npz`, None without a capture.
    """

    n_files: int
    n_partial_clouds: int
    points_per_second: float
    occupied_share: float
    observed_share: float | None
    seconds: float


def write_labels(
    mesh: trimesh.Trimesh,
    folder: Path,
    config: LabelConfig,
    *,
    name: str,
    capture: Capture | None = None,
    evidence: Bool[np.ndarray, "vertices"] | None = None,
    inlier_folder: Path | None = None,
    seed: int = 0,
) -> LabelSummary:
    """Writes `labels.npz`, one folder for each layout, and `partial/` into `folder`; each file whole or not at all.

    Args:
        mesh: closed, world frame, metres.
        folder: made if missing; files of the same name are replaced.
        config: how much of what.
        name: the object's name in the consumers' folders.
        capture: tells what was observed and gives the partial clouds; without one there is neither.
        evidence: of each vertex, from `surface_evidence`: what lies on a surface without it is not observed.
        inlier_folder: what `write_depth_inliers` wrote: it decides which readings the cleaned clouds keep.
        seed: of every draw.

    Raises:
        MeshError: the mesh is not closed.
        CaptureError: a depth map cannot be read.
    """
    started = time.perf_counter()
    solid = Solid.of(mesh)
    solid.require_closed()
    sight = None if capture is None else _sight(capture, config, evidence)
    labels = label_occupancy(
        solid,
        2 * config.n_points,
        sampling=Sampling.mixed,
        sigma_m=config.sigma_m,
        sight=sight,
        seed=seed,
    )
    speed = _speed(solid, labels)
    files = [labels.save(folder / "labels.npz")]
    _log.info("labels: %d points, inside or outside at %.2f M points/s", len(labels.occupancy), speed / 1e6)
    truth = Truth(solid=solid, sight=sight)
    for number, layout in enumerate(config.layouts):
        at = time.perf_counter()
        rng = np.random.default_rng([seed, number + 1])
        written = _write_layout(layout, truth, folder / layout.value, config, name, rng)
        files += written
        _log.info("labels: %s, %d files in %.1f s", layout.value, len(written), time.perf_counter() - at)
    clouds = _write_partial(capture, solid, folder / "partial", config, inlier_folder) if capture else []
    uniform = ~labels.near_surface
    return LabelSummary(
        n_files=len(files) + len(clouds),
        n_partial_clouds=len(clouds),
        points_per_second=speed,
        occupied_share=float(labels.occupancy[uniform].mean()),
        observed_share=None if labels.observed is None else float(labels.observed[uniform].mean()),
        seconds=time.perf_counter() - started,
    )


def _sight(capture: Capture, config: LabelConfig, evidence: Bool[np.ndarray, "vertices"] | None) -> Sight:
    views = views_of(capture, at_most=config.observed_views)
    return Sight(views=views, table_z_m=_table_z_m(capture), evidence=evidence)


def _table_z_m(capture: Capture) -> float | None:
    return _TABLE_Z_M if capture.has_table else None


def _write_layout(
    layout: Layout, truth: Truth, folder: Path, config: LabelConfig, name: str, rng: np.random.Generator
) -> list[Path]:
    place = folder / config.category / name
    n = config.n_points
    match layout:
        case Layout.occupancy_networks:
            return write_occupancy_networks(truth, place, n_points=n, half_precision=config.half_precision, rng=rng)
        case Layout.if_net:
            return write_if_net(truth, place, n_points=n, rng=rng)
        case Layout.deep_sdf:
            names = {"data_set": config.data_set, "category": config.category, "name": name}
            return write_deep_sdf(truth, folder, **names, n_points=config.n_points_deep_sdf, rng=rng)
        case Layout.shape_completion:
            return write_shape_completion(truth, place, n_points=n, rng=rng)


def _write_partial(
    capture: Capture, solid: Solid, folder: Path, config: LabelConfig, inlier_folder: Path | None
) -> list[Path]:
    images = capture.images_of(SensorKind.depth) if config.partial_clouds else ()
    files = []
    for image in images:
        view = View(camera=capture.sensor(image.sensor).camera, cam_from_world=capture.sensor_from_world(image))
        cloud = partial_cloud(
            np.asarray(read_depth(capture, image)),
            view,
            solid,
            margin_m=config.partial_margin_m,
            distance_m=config.partial_distance_m,
            table_z_m=_table_z_m(capture),
            probability=None if inlier_folder is None else read_depth_inliers(inlier_folder, image, view.camera),
        )
        files.append(cloud.save(folder / f"{image.path.stem}.npz"))
    if files:
        _log.info("labels: %d partial clouds", len(files))
    return files


def _speed(solid: Solid, labels: OccupancyLabels) -> float:
    """Points per second of inside or outside, on the labels' own points."""
    at = time.perf_counter()
    solid.contains(labels.points_in_world.astype(np.float64))
    return len(labels.occupancy) / (time.perf_counter() - at)
