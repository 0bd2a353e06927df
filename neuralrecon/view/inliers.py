"""How far depth readings are believed, seen from anywhere: by the depth images that look at the same places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from ..capture import Capture, Image, SensorKind, camera_of, read_depth
from ..errors import CaptureError
from ..geometry import Camera, Rigid
from ..label import Solid, read_depth_inliers
from ..train import Fit
from ..train.depth_probes import posterior
from .runs import Run

_UNDECIDED = 0.5  # prior of readings while no inlier images are written
_LEAST_COSINE = 0.25  # between a surface's normal and the way to a depth camera that is to tell of it
_MOST_IMAGES = 6
_HIDDEN_BEHIND_M = 0.004


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """One depth image: metres along the axis (0: nothing was read), and how probable each reading is the surface."""

    camera: Camera
    cam_from_world: Rigid
    depth_m: Float[np.ndarray, "v u"]
    probability: Float[np.ndarray, "v u"]


def readings_of(run: Run, capture: Capture, image: Image, fit: Fit) -> Readings:
    """From the run's images of probabilities; before those are written, from the fit as it stands.

    The latter is the mixture by which the fit weighs readings, with an even prior in place of the scene's.

    Raises:
        CaptureError: the depth image, or what the run wrote of it, cannot be read.
    """
    depth, camera, pose = read_depth(capture, image), camera_of(capture, image), capture.sensor_from_world(image)
    folder = run.inlier_folder
    if folder is not None:
        probability = read_depth_inliers(folder, image, camera)
    else:
        probability = _by_fit(depth, camera, pose, capture, image, fit)
    return Readings(camera=camera, cam_from_world=pose, depth_m=depth, probability=probability)


def nearest_depth_images(capture: Capture, cam_from_world: Rigid, fit: Fit) -> tuple[Image, ...]:
    """The depth images whose cameras look at the object from directions most alike, nearest first."""
    images = capture.images_of(SensorKind.depth)
    if not images:
        return ()
    middle = ((fit.box.low + fit.box.high) / 2).double().cpu()
    centers = torch.stack([capture.sensor_from_world(image).inverse().translation for image in images]).double()
    towards = torch.nn.functional.normalize(centers - middle, dim=1)
    own = cam_from_world.to(torch.float64).inverse().translation - middle
    order = (towards @ torch.nn.functional.normalize(own, dim=0)).argsort(descending=True, stable=True)
    return tuple(images[i] for i in order[:_MOST_IMAGES].tolist())


def believed_at(
    points: Float[np.ndarray, "v u 3"],
    normals: Float[np.ndarray, "v u 3"],
    readings: Sequence[Readings],
    solid: Solid | None,
) -> Float[np.ndarray, "v u"]:
    """Mean probability of the readings on the rays to these places (world); nan where no camera has a reading.

    A camera counts where it looks at the surface's outer side at no grazing angle and, with a `solid`, nothing of it
    is in the way.
    """
    told = np.isfinite(points).all(axis=-1)
    places, facing = points[told], normals[told]
    total, count = np.zeros(len(places)), np.zeros(len(places))
    for one in readings:
        seen, values = _looked_up(one, places, facing, solid)
        total[seen] += values[seen]
        count[seen] += 1
    found = np.full(points.shape[:2], np.nan)
    found[told] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def _looked_up(
    one: Readings, places: Float[np.ndarray, "n 3"], facing: Float[np.ndarray, "n 3"], solid: Solid | None
) -> tuple[Bool[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    pose = one.cam_from_world.to(torch.float64)
    in_cam = pose.apply(torch.from_numpy(places))
    center = pose.inverse().translation.numpy()
    away = places - center
    length = np.linalg.norm(away, axis=1)
    towards = away / length[:, None]
    pixels = np.floor(one.camera.project(in_cam).numpy())
    height, width = one.depth_m.shape
    u, v = np.clip(pixels, 0, [width - 1, height - 1]).astype(np.int64).T
    inside = (pixels >= 0).all(axis=1) & (pixels < [width, height]).all(axis=1) & (in_cam[:, 2] > 0).numpy()
    seen = inside & (-(facing * towards).sum(axis=1) > _LEAST_COSINE) & (one.depth_m[v, u] > 0)
    if solid is not None and seen.any():
        first = solid.first_hit(np.broadcast_to(center, (int(seen.sum()), 3)), towards[seen])
        seen[seen] = first > length[seen] - _HIDDEN_BEHIND_M
    return seen, one.probability[v, u]


@torch.no_grad()
def _by_fit(
    depth: Float[np.ndarray, "v u"], camera: Camera, pose: Rigid, capture: Capture, image: Image, fit: Fit
) -> Float[np.ndarray, "v u"]:
    v, u = np.nonzero(depth > 0)
    probability = np.zeros(depth.shape, np.float32)
    in_cam = camera.rays(torch.from_numpy(np.stack([u, v], axis=1) + 0.5)) * torch.from_numpy(depth[v, u])[:, None]
    in_unit = fit.unit_from_world.apply(pose.to(torch.float64).inverse().apply(in_cam.double()))
    near = ((in_unit >= 0) & (in_unit <= 1)).all(dim=1)
    sensor = [s.name for s in capture.sensors].index(image.sensor)
    unit_per_mm = fit.unit_from_world.scale * fit.world_per_mm
    off_mm = fit.model.sdf(in_unit[near].float().to(fit.device)).cpu() / unit_per_mm
    spread = fit.model.sensors.spread_mm[sensor].cpu()
    prior = torch.full_like(off_mm, _UNDECIDED)
    probability[v[near.numpy()], u[near.numpy()]] = posterior(prior, off_mm, spread).numpy()
    return probability


def read_all(
    run: Run, capture: Capture, images: Sequence[Image], fit: Fit, known: dict[str, Readings]
) -> list[Readings]:
    """The readings of these images; those in `known`, by file, are not read again, and the others are added to it.

    Raises:
        CaptureError: one of them cannot be read.
    """
    for image in images:
        if str(image.path) not in known:
            known[str(image.path)] = readings_of(run, capture, image, fit)
    if not images:
        raise CaptureError(f"{capture.root}: no depth images, so there are no inliers to show; choose another map")
    return [known[str(image.path)] for image in images]
