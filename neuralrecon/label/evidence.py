"""Which parts of a surface anything speaks for: depth readings, outlines, colours. A rule has filled in the rest."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, UInt8
from scipy.ndimage import maximum_filter

from ..capture import Capture, Image, SensorKind, read_depth
from ..capture.pixels import camera_of, read_mask
from ..scene.silhouettes import Silhouette
from ..train import Fit
from .depth_inliers import BELIEVED, read_depth_inliers
from .observed import View, centre_of, seen_from
from .solid import Solid

_READ_WITHIN_M = 0.003
_LEAST_IMAGES = 2
_TANGENT_COSINE = 0.12
_OUTLINE_PX = 2.0
_AWAY_AT_M, _AWAY_M = 0.012, 0.0001
_HIT_M = 1e-4
_MOST_DOUBT = 0.7
_MOST_PHOTOGRAPHS = 150
_NEIGHBOURS = [(dv, du) for dv in (-1, 0, 1) for du in (-1, 0, 1)]


class Evidence(IntEnum):
    """What speaks for a place of a surface: the first of depth, colours and outlines that does.

    `some` is of files that do not tell which.
    """

    none = 0
    depth = 1
    colors = 2
    outlines = 3
    some = 4


def surface_evidence(
    mesh: trimesh.Trimesh | Solid,
    capture: Capture,
    *,
    inlier_folder: Path | None = None,
    fit: Fit | None = None,
) -> Bool[np.ndarray, "vertices"]:
    """For each vertex of a mesh (world frame, metres), whether any evidence says that the surface is there.

    - Depth: readings of two images, each believed at 0.5 or more, lie within 3 mm.
    - Outlines: a photograph's ray touches the surface there (cosine below 0.12) within 2 px of the edge of its mask,
      and the ray is off it 12 mm before and behind. Where a surface follows the ray for longer, as the hull of a hollow
      does, the outline may belong to any place along it.
    - Colours, only if a `fit` is given: two photographs see it, and the fit's colours explain them.

    Args:
        inlier_folder: what `write_depth_inliers` wrote; without it, depth is no evidence.
        fit: of an opaque object, matte or glossy; on clear and mirror-like ones colours say nothing about the surface.

    Raises:
        CaptureError: an image, a mask or a file of the folder is missing or broken.

    Example:
        >>> evidence = surface_evidence(mesh, capture, inlier_folder=folder)  # doctest: +SKIP
        >>> labels = label_occupancy(mesh, sight=Sight(views=views_of(capture), evidence=evidence))  # doctest: +SKIP
    """
    return evidence_kinds(mesh, capture, inlier_folder=inlier_folder, fit=fit) != Evidence.none


def evidence_kinds(
    mesh: trimesh.Trimesh | Solid,
    capture: Capture,
    *,
    inlier_folder: Path | None = None,
    fit: Fit | None = None,
) -> UInt8[np.ndarray, "vertices"]:
    """For each vertex the `Evidence` for it, as `surface_evidence` describes it; raises what that raises.

    Depth is asked first, then colours, then outlines: only where nothing before spoke.
    """
    solid = mesh if isinstance(mesh, Solid) else Solid.of(mesh)
    found = np.full(len(solid.vertices), Evidence.none, dtype=np.uint8)
    if inlier_folder is not None:
        found[_read(solid, capture, inlier_folder)] = Evidence.depth
    photographs = capture.images_of(SensorKind.color)
    if len(photographs) > _MOST_PHOTOGRAPHS:
        spread = np.linspace(0, len(photographs) - 1, _MOST_PHOTOGRAPHS).round().astype(int)
        photographs = tuple(photographs[i] for i in spread)
    if fit is not None:
        explained = _explained(solid, fit) & _looked_at(solid, capture, photographs)
        found[explained & (found == Evidence.none)] = Evidence.colors
    for image in photographs:
        todo = np.nonzero(found == Evidence.none)[0]
        if image.mask_path is not None and len(todo):
            found[todo[_on_outline(solid, todo, capture, image)]] = Evidence.outlines
    return found


def _read(solid: Solid, capture: Capture, folder: Path) -> Bool[np.ndarray, "vertices"]:
    """Near believed readings of two images: of the nine pixels around where a vertex projects."""
    points, count = solid.vertices + solid.centre, np.zeros(len(solid.vertices), dtype=int)
    for image in capture.images_of(SensorKind.depth):
        todo = np.nonzero(count < _LEAST_IMAGES)[0]
        count[todo] += _read_in(points[todo], capture, image, folder)
    return count >= _LEAST_IMAGES


def _read_in(points, capture: Capture, image: Image, folder: Path):
    camera, depth = camera_of(capture, image), read_depth(capture, image)
    believed = (read_depth_inliers(folder, image, camera) >= BELIEVED) & (depth > 0)
    v, u = np.nonzero(believed)
    rays = camera.rays(torch.from_numpy(np.stack([u, v], axis=1) + 0.5)).numpy()
    readings = np.full((camera.height + 2, camera.width + 2, 3), np.inf)  # a pixel wider on every side
    readings[v + 1, u + 1] = rays * depth[v, u, None].astype(np.float64)
    in_cam = capture.sensor_from_world(image).to(torch.float64).apply(torch.from_numpy(points))
    pixels = camera.project(in_cam).numpy()
    in_image = (in_cam[:, 2].numpy() > 0) & ((pixels >= 0) & (pixels < [camera.width, camera.height])).all(axis=1)
    at = np.nonzero(in_image)[0]
    column, row = pixels[at].astype(int).T
    beside = np.asarray(maximum_filter(believed, 3), dtype=bool)[row, column]
    at, row, column = at[beside], row[beside], column[beside]
    near = np.zeros(len(points), dtype=bool)
    for dv, du in _NEIGHBOURS:
        offsets = readings[row + 1 + dv, column + 1 + du] - in_cam.numpy()[at]
        near[at] |= np.square(offsets).sum(axis=1) < _READ_WITHIN_M**2
    return near


def _explained(solid: Solid, fit: Fit) -> Bool[np.ndarray, "vertices"]:
    points = fit.unit_from_world.apply(torch.from_numpy(solid.vertices + solid.centre)).float()
    with torch.no_grad():
        return (fit.model.color_doubt(points.to(fit.device)) < _MOST_DOUBT).cpu().numpy()


def _looked_at(solid: Solid, capture: Capture, photographs: Sequence[Image]) -> Bool[np.ndarray, "vertices"]:
    """Seen by two photographs."""
    points, count = solid.vertices + solid.centre, np.zeros(len(solid.vertices), dtype=int)
    for image in photographs:
        todo = np.nonzero(count < _LEAST_IMAGES)[0]
        count[todo[seen_from(points[todo], solid, _view(capture, image), tolerance_m=_HIT_M)]] += 1
    return count >= _LEAST_IMAGES


def _on_outline(solid: Solid, todo, capture: Capture, image: Image) -> Bool[np.ndarray, "todo"]:
    """Of the vertices `todo`, those that the outline of a photograph tells."""
    pose = capture.sensor_from_world(image)
    silhouette = Silhouette.from_mask(read_mask(capture, image), camera_of(capture, image), pose, 8)
    points, normals = (solid.vertices + solid.centre)[todo], np.asarray(solid.mesh.vertex_normals)[todo]
    along = points - centre_of(_view(capture, image))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    cosines = (normals * along).sum(axis=1)
    on = np.abs(cosines) < _TANGENT_COSINE
    distance = silhouette.look_up(torch.from_numpy(points[on]).float())[0].abs().numpy()
    on[on] = distance <= max(_OUTLINE_PX, silhouette.stride)
    at = np.nonzero(on)[0]
    for side in (-1, 1):
        step = side * _AWAY_AT_M
        at = at[solid.signed_distance(points[at] + step * along[at]) > _AWAY_M]
    told = np.zeros(len(todo), dtype=bool)
    told[at] = True
    return told


def _view(capture: Capture, image: Image) -> View:
    return View(camera=capture.sensor(image.sensor).camera, cam_from_world=capture.sensor_from_world(image))
