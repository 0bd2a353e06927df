"""How the object answers light: print, gloss, mirror, glass. Rays are in the table frame, colours linear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from .settings import Material
from .solid import SKIN_M, Hits, Solid
from .stage import Stop

GLASS_INDEX = 1.5
_GLOSS_AT_NORMAL = 0.05
_METAL = np.array([0.90, 0.91, 0.92], dtype=np.float32)
_ABSORPTION_PER_M = np.array([5.0, 1.5, 3.0], dtype=np.float32)
_MIRROR_BOUNCES = 3
_GLASS_EVENTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Where rays go after the object has bent them: they leave it for good from `origins` along `directions`.

    `weights` is what is left of the light, `lengths` the way inside and between, in metres.
    """

    origins: Float[np.ndarray, "rays 3"]
    directions: Float[np.ndarray, "rays 3"]
    weights: Float[np.ndarray, "rays 3"]
    lengths: Float[np.ndarray, "rays"]


def radiance(
    stop: Stop, origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"], footprint_m: float
) -> tuple[Float[np.ndarray, "rays 3"], Hits]:
    """Linear colour along unit rays that start in the room, and where they first met the object."""
    hits = stop.stage.solid.hit(origins, directions)
    free = np.ones(len(origins), dtype=bool)
    free[hits.rays] = False
    color = np.empty((len(origins), 3), dtype=np.float32)
    color[free] = stop.surroundings(origins[free], directions[free], footprint_m)
    if len(hits.rays):
        color[hits.rays] = _object_radiance(stop, directions[hits.rays], hits, footprint_m)
    return color, hits


def off_mirror(solid: Solid, directions: Float[np.ndarray, "rays 3"], hits: Hits) -> Path:
    """Follow a perfect reflection until it leaves the object, three times at most."""
    path = _reflected(directions, hits)
    weights = np.repeat(_METAL[None], len(directions), axis=0)
    origins, directions, lengths = path.origins.copy(), path.directions.copy(), path.lengths.copy()
    rays = np.arange(len(origins))
    for _ in range(_MIRROR_BOUNCES - 1):
        again = solid.hit(origins[rays], directions[rays])
        rays = rays[again.rays]
        if not len(rays):
            break
        bounced = _reflected(directions[rays], again)
        origins[rays], directions[rays] = bounced.origins, bounced.directions
        lengths[rays] += again.distances
        weights[rays] *= _METAL
    return Path(origins=origins, directions=directions, weights=weights, lengths=lengths)


def through_glass(
    solid: Solid,
    origins: Float[np.ndarray, "rays 3"],
    directions: Float[np.ndarray, "rays 3"],
    n_events: int = _GLASS_EVENTS,
) -> Path:
    """Follow the transmitted part of each ray (Snell, exact Fresnel; total reflections stay inside; Beer's absorption).

    A ray that is still caught after `n_events` surfaces is let go where it is.
    """
    origins, directions = origins.astype(np.float32).copy(), directions.astype(np.float32).copy()
    weights, lengths = np.ones((len(origins), 3), np.float32), np.zeros(len(origins), np.float32)
    rays = np.arange(len(origins))
    for _ in range(n_events):
        hits = solid.hit(origins[rays], directions[rays])
        rays = rays[hits.rays]
        if not len(rays):
            break
        d = directions[rays]
        leaving = (d * hits.facets).sum(1) > 0
        bent, fresnel = _refracted(d, hits, leaving)
        total = fresnel >= 1
        origins[rays], directions[rays] = _lifted(hits, bent), bent
        weights[rays] *= np.where(total, 1, 1 - fresnel)[:, None]
        inside = np.where(leaving, hits.distances, 0)[:, None]
        weights[rays] *= np.exp(-_ABSORPTION_PER_M * inside)
        lengths[rays] += hits.distances
    return Path(origins=origins, directions=directions, weights=weights, lengths=lengths)


def _object_radiance(stop: Stop, directions: ndarray, hits: Hits, footprint_m: float) -> ndarray:
    material = stop.stage.material
    if material == Material.matte:
        return stop.object_diffuse(hits, footprint_m)
    if material == Material.mirror:
        return _carried(stop, off_mirror(stop.stage.solid, directions, hits), footprint_m)
    shine = _reflected(directions, hits)
    cosine = -(directions * _facing(directions, hits)).sum(1)
    if material == Material.glossy:
        part = _GLOSS_AT_NORMAL + (1 - _GLOSS_AT_NORMAL) * (1 - np.clip(cosine, 0, 1)) ** 5
        return (1 - part[:, None]) * stop.object_diffuse(hits, footprint_m) + part[:, None] * _reflection(
            stop, shine, footprint_m
        )
    part = _fresnel(cosine, 1 / GLASS_INDEX)[0]
    outside = _moved_back(directions, hits)
    through = _carried(stop, through_glass(stop.stage.solid, outside, directions), footprint_m)
    glints = _carried(stop, through_glass(stop.stage.solid, shine.origins, shine.directions, 4), footprint_m)
    return through + part[:, None] * glints


def _reflection(stop: Stop, path: Path, footprint_m: float) -> ndarray:
    """What a glossy surface mirrors: the surroundings, or the print elsewhere on the object."""
    again = stop.stage.solid.hit(path.origins, path.directions)
    color = stop.surroundings(path.origins, path.directions, footprint_m)
    if len(again.rays):
        color[again.rays] = stop.object_diffuse(again, footprint_m)
    return color


def _carried(stop: Stop, path: Path, footprint_m: float) -> ndarray:
    return path.weights * stop.surroundings(path.origins, path.directions, footprint_m)


def _moved_back(directions: ndarray, hits: Hits) -> ndarray:
    return hits.points - directions * (10 * SKIN_M)


def _facing(directions: ndarray, hits: Hits) -> ndarray:
    """Smooth normals on the side that the rays come from; the triangle's own where smoothing turned one away."""
    side = np.sign((directions * hits.facets).sum(1))
    agrees = (directions * hits.normals).sum(1) * side > 1e-3
    normals = np.where(agrees[:, None], hits.normals, hits.facets)
    return -np.where(side == 0, -1, side)[:, None] * normals


def _reflected(directions: ndarray, hits: Hits) -> Path:
    """One reflection, off the outside of the surface; `lengths` is zero."""
    normals = _facing(directions, hits)
    away = directions - 2 * (directions * normals).sum(1, keepdims=True) * normals
    facets = hits.facets * np.where((directions * hits.facets).sum(1) > 0, -1.0, 1.0)[:, None]
    sunk = np.minimum((away * facets).sum(1, keepdims=True) - 1e-3, 0)
    away = away - sunk * facets
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return Path(
        origins=_lifted(hits, away),
        directions=away.astype(np.float32),
        weights=np.ones((len(away), 3), np.float32),
        lengths=np.zeros(len(away), np.float32),
    )


def _lifted(hits: Hits, directions: ndarray) -> ndarray:
    """Where to start along `directions` so as not to meet the same surface again: on the ray, a skin off the facet."""
    slope = np.abs((directions * hits.facets).sum(1, keepdims=True))
    return (hits.points + SKIN_M / np.maximum(slope, 0.05) * directions).astype(np.float32)


def _fresnel(cosine: ndarray, ratio: ndarray | float) -> tuple[ndarray, ndarray]:
    """Unpolarised reflectance (1 where total) and the cosine behind; `ratio` = index here / index behind."""
    c = np.clip(cosine, 0, 1)
    sine2 = ratio**2 * (1 - c * c)
    behind = np.sqrt(np.maximum(1 - sine2, 0))
    s = (ratio * c - behind) / np.maximum(ratio * c + behind, 1e-9)
    p = (ratio * behind - c) / np.maximum(ratio * behind + c, 1e-9)
    return np.where(sine2 >= 1, 1.0, (s * s + p * p) / 2), behind


def _refracted(directions: ndarray, hits: Hits, leaving: ndarray) -> tuple[ndarray, ndarray]:
    """Directions after the surface (reflected inside where total) and the Fresnel reflectance."""
    normals = _facing(directions, hits)
    ratio = np.where(leaving, GLASS_INDEX, 1 / GLASS_INDEX)
    cosine = -(directions * normals).sum(1)
    fresnel, behind = _fresnel(cosine, ratio)
    on = ratio[:, None] * directions + (ratio * cosine - behind)[:, None] * normals
    back = directions + 2 * cosine[:, None] * normals
    bent = np.where((fresnel >= 1)[:, None], back, on)
    return (bent / np.linalg.norm(bent, axis=1, keepdims=True)).astype(np.float32), fresnel
