"""Colour cameras: what they see at a stop, the silhouette, and the file they make of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from scipy.ndimage import maximum_filter

from ..capture.types import Sensor
from ..geometry import Camera
from .materials import radiance
from .room import DISC_THICKNESS_M
from .settings import SimulateConfig
from .stage import Stage, Stop

_ROWS_AT_ONCE = 64
_PIXELS_AT_ONCE = 65536
_POINTS_ON_ONE_THREAD = 12000
_HAIR = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A colour sensor in the room. Only `active` pixels (flat indices), which may see the disc or the object, change
    from stop to stop; all others show `background`. An active pixel that lies on the disc wholly is `plain` (one
    filtered sample will do), one that sees the disc and something else is `mixed`.
    """

    camera: Camera
    origin_in_rig: Float[np.ndarray, "3"]
    active: Int[np.ndarray, "active"]
    plain: Bool[np.ndarray, "active"]
    mixed: Bool[np.ndarray, "active"]
    rays_in_rig: Float[np.ndarray, "active samples 3"]
    background: Float[np.ndarray, "pixels 3"]
    footprint_m: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Linear colour in the room's units, the share of each pixel on the object, and the mean point seen there.

    A share is never a half: of a pixel half covered the middle decides, by a hair's breadth.
    """

    color: Float[np.ndarray, "v u 3"]
    coverage: Float[np.ndarray, "v u"]
    points: Float[np.ndarray, "v u 3"]


def view_of(sensor: Sensor, stop: Stop, supersample: int) -> View:
    """Rays and still background of a sensor, with `supersample` squared samples a pixel. Any stop will do."""
    camera, stage = sensor.camera, stop.stage
    rig_from_cam = sensor.sensor_from_rig.inverse()
    rotation, origin = rig_from_cam.rotation.numpy(), rig_from_cam.translation.numpy()
    origin_in_table = (stop.table_from_rig @ origin).astype(np.float32)
    turn = stop.table_from_rig.T.astype(np.float32)
    footprint = float(np.linalg.norm(origin)) / camera.fx
    height = float(stage.solid.vertices[:, 2].max()) + 2 * footprint
    background = np.zeros((camera.width * camera.height, 3), dtype=np.float32)
    active, on_disc, rays = [], [], []
    for top in range(0, camera.height, _ROWS_AT_ONCE):
        rows = range(top, min(top + _ROWS_AT_ONCE, camera.height))
        directions = (sample_rays(camera, rows, supersample) @ rotation.T).astype(np.float32)
        meets = _meets_cylinder(
            origin,
            _pixel_means(directions, supersample**2),
            stage.disc_radius_m + 2 * footprint,
            -DISC_THICKNESS_M - 2 * footprint,
            height,
        )
        first = top * camera.width
        active.append(first + np.nonzero(meets)[0])
        rays.append(directions[meets])
        share = np.zeros(len(meets), dtype=np.float32)
        flat = directions[meets].reshape(-1, 3) @ turn
        share[meets] = (
            stop.sees_disc(np.broadcast_to(origin_in_table, flat.shape), flat).reshape(-1, supersample**2).mean(1)
        )
        on_disc.append(share[meets])
        still = directions[share < 1].reshape(-1, 3) @ turn
        color = stop.surroundings(np.broadcast_to(origin_in_table, still.shape), still, footprint)
        background[first + np.nonzero(share < 1)[0]] = _pixel_means(color, supersample**2)
    share = np.concatenate(on_disc)
    return View(
        camera=camera,
        origin_in_rig=origin,
        active=np.concatenate(active),
        plain=share == 1,
        mixed=(share > 0) & (share < 1),
        rays_in_rig=np.concatenate(rays),
        background=background,
        footprint_m=footprint,
    )


def sample_rays(camera: Camera, rows: range, supersample: int) -> Float[np.ndarray, "pixels samples 3"]:
    """Unit directions in the camera frame through a regular grid of samples in each pixel of some rows.

    Several samples are interpolated between the pixel's corners: the lens bends less than 1e-4 px away from that.
    """
    if supersample == 1:
        rays = _grid_rays(camera, np.array(rows) + 0.5, np.arange(camera.width) + 0.5)[:, :, None]
    else:
        corners = _grid_rays(camera, np.arange(rows.start, rows.stop + 1.0), np.arange(camera.width + 1.0))
        step = ((np.arange(supersample) + 0.5) / supersample)[:, None]
        left, right = corners[:, :-1, None], corners[:, 1:, None]
        across = left + (right - left) * step
        upper, lower = across[:-1, :, None], across[1:, :, None]
        rays = upper + (lower - upper) * step[:, None]
    rays = rays.reshape(-1, supersample**2, 3)
    return rays / np.sqrt(np.einsum("psk,psk->ps", rays, rays))[..., None]


def _grid_rays(camera: Camera, v: ndarray, u: ndarray) -> ndarray:
    pixels = torch.from_numpy(np.stack(np.broadcast_arrays(u[None], v[:, None]), axis=-1).reshape(-1, 2))
    # small pieces stay on the calling thread: torch's own threads stall when every core is busy already
    rays = torch.cat([camera.rays(piece) for piece in pixels.split(_POINTS_ON_ONE_THREAD)])
    return rays.numpy().reshape(len(v), len(u), 3)


def take_picture(view: View, stop: Stop) -> Picture:
    """Render one stop."""
    size = (view.camera.height, view.camera.width)
    n_samples = view.rays_in_rig.shape[1]
    color = view.background.copy()
    coverage, points = np.zeros(len(color), np.float32), np.zeros((len(color), 3), np.float32)
    origin = (stop.table_from_rig @ view.origin_in_rig).astype(np.float32)
    turn = stop.table_from_rig.T.astype(np.float32)
    middle = _pixel_means(view.rays_in_rig, n_samples) @ turn
    near = _near_object(view, stop, np.broadcast_to(origin, middle.shape), middle)
    flat = np.nonzero(view.plain & ~near)[0]
    color[view.active[flat]] = stop.surroundings(
        np.broadcast_to(origin, (len(flat), 3)), middle[flat], view.footprint_m
    )
    full = np.nonzero(near | view.mixed)[0]
    footprint = view.footprint_m / np.sqrt(n_samples)
    for start in range(0, len(full), _PIXELS_AT_ONCE):
        pick = full[start : start + _PIXELS_AT_ONCE]
        pixels = view.active[pick]
        directions = view.rays_in_rig[pick].reshape(-1, 3) @ turn
        seen, hits = radiance(stop, np.broadcast_to(origin, directions.shape), directions, footprint)
        color[pixels] = _pixel_means(seen, n_samples)
        owner = hits.rays // n_samples
        count = np.bincount(owner, minlength=len(pixels))
        coverage[pixels] = count / n_samples
        half = 2 * count == n_samples
        on_object = stop.stage.solid.blocked(np.broadcast_to(origin, (half.sum(), 3)), middle[pick[half]])
        coverage[pixels[half]] += np.where(on_object, _HAIR, -_HAIR)
        total = np.stack([np.bincount(owner, hits.points[:, k], minlength=len(pixels)) for k in range(3)], axis=1)
        points[pixels] = total / np.maximum(count, 1)[:, None]
    return Picture(color=color.reshape(*size, 3), coverage=coverage.reshape(size), points=points.reshape(*size, 3))


def _near_object(view: View, stop: Stop, origins: ndarray, directions: ndarray) -> Bool[np.ndarray, "active"]:
    """Pixels at most two away from one whose middle sees the object."""
    met = np.zeros(view.camera.height * view.camera.width, dtype=bool)
    met[view.active] = stop.stage.solid.blocked(origins, directions)
    grown = maximum_filter(met.reshape(view.camera.height, view.camera.width), 5)
    return grown.reshape(-1)[view.active]


def develop(
    color: Float[np.ndarray, "v u 3"], gain: Float[np.ndarray, "3"], color_noise: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "v u 3"]:
    """Exposure, shot and read noise, sRGB's curve, 8 bit."""
    linear = color * gain.astype(np.float32)
    sigma = color_noise * np.sqrt(1.5e-4 * np.maximum(linear, 0) + 1e-6)
    linear = linear + sigma * rng.standard_normal(linear.shape, dtype=np.float32)
    linear = np.clip(linear, 0, 1)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    return np.round(curve * 255).astype(np.uint8)


def gains(stage: Stage, config: SimulateConfig, sensor_seed: int, angle_deg: int) -> Float[np.ndarray, "3"]:
    """File units per unit of radiance: the room's exposure, the sensor's white balance, a jitter per image."""
    balance = np.random.default_rng([config.seed, 4, sensor_seed]).normal(0, config.white_balance_jitter, 3)
    exposure = np.random.default_rng([config.seed, 5, sensor_seed, angle_deg]).normal(0, config.exposure_jitter)
    return stage.room.exposure * np.exp(balance + exposure)


def _pixel_means(values: ndarray, n_samples: int) -> ndarray:
    return np.einsum("psk->pk", values.reshape(-1, n_samples, 3)) / np.float32(n_samples)


def _meets_cylinder(
    origin: ndarray, directions: ndarray, radius: float, low: float, high: float
) -> Bool[np.ndarray, "n"]:
    """Which rays pass an upright cylinder around the z axis."""
    d = np.where(np.abs(directions) < 1e-9, 1e-9, directions).astype(np.float64)
    a = (d[:, :2] ** 2).sum(axis=1)
    b = d[:, :2] @ origin[:2]
    root = b * b - a * (origin[:2] @ origin[:2] - radius**2)
    half = np.sqrt(np.maximum(root, 0))
    near, far = (-b - half) / a, (-b + half) / a
    to_low, to_high = (low - origin[2]) / d[:, 2], (high - origin[2]) / d[:, 2]
    near = np.maximum(near, np.minimum(to_low, to_high))
    far = np.minimum(far, np.maximum(to_low, to_high))
    return (root > 0) & (far > np.maximum(near, 0))
