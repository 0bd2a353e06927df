"""A structured-light depth camera: what it reads, and how it fails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt16
from numpy import ndarray
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter
from scipy.special import ndtr

from ..capture.types import Sensor
from .materials import off_mirror, through_glass
from .photo import sample_rays
from .settings import Material
from .solid import SKIN_M, Hits
from .stage import Stop

# the step of 1 / z: 2.94e-3 z² m of depth, as on the real sensor
STEP_PER_M = 2.94e-3
# with the step's own 0.54 mm this makes 1.0 mm RMS at 0.8 m
NOISE_PER_M = 1.3e-3
_NEAREST_M, _FARTHEST_M = 0.4, 3.5
_PROJECTOR_IN_CAM = np.array([0.075, 0.0, 0.0])
_EDGE = 0.02
_GRAZING_COS = (0.06, 0.2)
_GLARE_COS = np.cos(np.radians(7))
# shares of the surface that give a hole, or a reading of what lies behind (mirrored in it); the rest reads true
_FAILS = {Material.mirror: (0.5, 0.45), Material.glass: (0.4, 0.45)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthView:
    """A depth sensor in the room; `depth_per_distance` is the cosine between ray and optical axis."""

    size: tuple[int, int]
    metres_per_unit: float
    origin_in_rig: Float[np.ndarray, "3"]
    projector_in_rig: Float[np.ndarray, "3"]
    rays_in_rig: Float[np.ndarray, "pixels 3"]
    depth_per_distance: Float[np.ndarray, "pixels"]
    surroundings_distance: Float[np.ndarray, "pixels"]


def depth_view_of(sensor: Sensor, stop: Stop) -> DepthView:
    """Rays through the pixels' centres. Room and disc are at the same distance at every stop: any will do."""
    camera = sensor.camera
    rig_from_cam = sensor.sensor_from_rig.inverse()
    rotation, origin = rig_from_cam.rotation.numpy(), rig_from_cam.translation.numpy()
    rays = sample_rays(camera, range(camera.height), 1)[:, 0]
    in_rig = (rays @ rotation.T).astype(np.float32)
    table_from_rig = stop.table_from_rig
    still = stop.surroundings_distance(
        np.broadcast_to(table_from_rig @ origin, in_rig.shape), in_rig @ table_from_rig.T.astype(np.float32)
    )
    return DepthView(
        size=(camera.height, camera.width),
        metres_per_unit=sensor.metres_per_unit or 1e-4,
        origin_in_rig=origin,
        projector_in_rig=rotation @ _PROJECTOR_IN_CAM + origin,
        rays_in_rig=in_rig,
        depth_per_distance=rays[:, 2],
        surroundings_distance=still.astype(np.float64),
    )


def measure_depth(
    view: DepthView, stop: Stop, depth_noise: float, rng: np.random.Generator
) -> UInt16[np.ndarray, "v u"]:
    """Raw integers; 0 where there is no reading. `depth_noise` of 0 leaves only the failures on mirror and glass."""
    origin = (stop.table_from_rig @ view.origin_in_rig).astype(np.float32)
    directions = view.rays_in_rig @ stop.table_from_rig.T.astype(np.float32)
    origins = np.broadcast_to(origin, directions.shape)
    hits = stop.stage.solid.hit(origins, directions)
    distance = view.surroundings_distance.copy()
    distance[hits.rays] = hits.distances
    valid = np.ones(len(distance), dtype=bool)
    if stop.stage.material in _FAILS and len(hits.rays):
        reading = _misread(stop, origins[hits.rays], directions[hits.rays], hits, _patches(view.size, rng)[hits.rays])
        distance[hits.rays] = reading
        valid[hits.rays] = np.isfinite(reading)
    z = distance * view.depth_per_distance
    if depth_noise > 0:
        valid &= ~_unlit(view, stop, origins, directions, distance, hits, rng)
        z, dropped = _edges(z.reshape(view.size), rng)
        valid &= ~dropped
        z = _quantised(z, view.size, depth_noise, rng)
    valid &= (z > _NEAREST_M) & (z < _FARTHEST_M)
    raw = np.round(np.where(valid, z, 0) / view.metres_per_unit)
    return raw.astype(np.uint16).reshape(view.size)


def _misread(stop: Stop, origins: ndarray, directions: ndarray, hits: Hits, patches: ndarray) -> ndarray:
    """Distances read on mirror or glass: nan for a hole, else to what is seen in or through it, or to the surface."""
    material = stop.stage.material
    hole, elsewhere = _FAILS[material]
    solid = stop.stage.solid
    if material == Material.mirror:
        path, before = off_mirror(solid, directions, hits), hits.distances
    else:
        path, before = through_glass(solid, origins, directions), 0.0
    far = before + path.lengths + stop.surroundings_distance(path.origins, path.directions)
    reading = np.where(patches < hole + elsewhere, far, hits.distances)
    return np.where(patches < hole, np.nan, reading)


def _unlit(
    view: DepthView,
    stop: Stop,
    origins: ndarray,
    directions: ndarray,
    distance: ndarray,
    hits: Hits,
    rng: np.random.Generator,
) -> ndarray:
    """Where the projector's pattern is hidden, too flat, or (on gloss) thrown straight into the lens."""
    projector = stop.table_from_rig @ view.projector_in_rig
    normals = np.zeros_like(directions)
    normals[:, 2] = 1.0
    normals[hits.rays] = hits.normals
    points = origins + directions * np.nan_to_num(distance, nan=1.0)[:, None]
    points[hits.rays] = hits.points + 5 * SKIN_M * hits.facets
    to_projector = projector - points
    to_projector /= np.linalg.norm(to_projector, axis=1, keepdims=True)
    unlit = stop.stage.solid.blocked(points, to_projector)
    low, high = _GRAZING_COS
    cosine = np.abs((directions * normals).sum(1))
    flat = rng.random(len(cosine)) > (cosine - low) / (high - low)
    flat[(distance > 1.5) & (np.abs(directions[:, 2]) < high)] = False
    unlit |= flat
    if stop.stage.material == Material.glossy:
        bounced = directions - 2 * (directions * normals).sum(1, keepdims=True) * normals
        glare = (bounced * to_projector).sum(1) > _GLARE_COS
        unlit[hits.rays] |= glare[hits.rays]
    return unlit


def _edges(z: ndarray, rng: np.random.Generator) -> tuple[ndarray, ndarray]:
    """Near jumps of depth some pixels fly between both sides, some are dropped."""
    filled = np.nan_to_num(z, nan=0.0)
    low, high = minimum_filter(np.where(filled > 0, filled, np.inf), 3), maximum_filter(filled, 3)
    edge = high - low > _EDGE * filled
    dice, between = rng.random(z.shape), rng.random(z.shape)
    flying = edge & (dice > 0.88) & np.isfinite(low)
    with np.errstate(invalid="ignore"):
        mixed = np.where(flying, low + (high - low) * between, z)
    return mixed.reshape(-1), (edge & (dice < 0.35)).reshape(-1)


def _quantised(z: ndarray, size: tuple[int, int], depth_noise: float, rng: np.random.Generator) -> ndarray:
    """Noise and steps in 1 / z."""
    white = rng.standard_normal(size)
    smooth = gaussian_filter(rng.standard_normal(size), 1.2)
    noise = 0.6 * white + 0.8 * smooth / smooth.std()
    inverse = 1 / z + depth_noise * NOISE_PER_M * noise.reshape(-1)
    return 1 / (np.maximum(np.round(inverse / STEP_PER_M), 1) * STEP_PER_M)


def _patches(size: tuple[int, int], rng: np.random.Generator) -> ndarray:
    """A smooth random field, uniform in 0 … 1."""
    field = gaussian_filter(rng.standard_normal(size), 2.5)
    return ndtr(field / field.std()).reshape(-1)
