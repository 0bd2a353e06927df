"""The visual hull of a run, carved anew from a few of its outlines."""

from __future__ import annotations

import numpy as np
import trimesh
from skimage.measure import marching_cubes

from ..capture import Capture, Image, SensorKind, camera_of, read_mask
from ..errors import EvidenceError
from ..scene import SceneConfig
from ..scene.hull import VisualHull
from ..scene.scene import silhouette_of_depth
from ..scene.silhouettes import Silhouette
from ..train import Fit

_MOST_OUTLINES = 40
_CELLS = 64
_MARGIN_PX = 8


def hull_mesh(fit: Fit, capture: Capture) -> trimesh.Trimesh:
    """The hull as a mesh in world, on 64 cells a side: coarser than the scene's, and of at most 40 images.

    Raises:
        CaptureError: a mask or a depth image cannot be read.
        EvidenceError: no image tells an outline, or the outlines leave nothing.
    """
    silhouettes = _silhouettes(capture)
    if not silhouettes:
        raise EvidenceError(f"{capture.root}: no image has a mask, and depth is not masked, so there is no hull")
    hull = VisualHull.carve(
        silhouettes,
        fit.unit_from_world,
        _CELLS,
        SceneConfig().hull_tolerance_px,
        fit.floor_m,
        fit.world_per_mm,
    )
    closed = np.pad(hull.sdf.numpy(), 1, constant_values=1.0)
    vertices, faces, _, _ = marching_cubes(closed, 0.0)
    in_unit = (vertices - 0.5) / _CELLS  # the centre of cell i, which the padding has moved by one, is at (i + 0.5) / n
    world_from_unit = fit.unit_from_world.inverse()
    in_world = in_unit * world_from_unit.scale + world_from_unit.translation.double().cpu().numpy()
    if fit.floor_m is not None:
        in_world[:, 2] = np.maximum(in_world[:, 2], fit.floor_m)
    mesh = trimesh.Trimesh(in_world, faces, process=False)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def _silhouettes(capture: Capture) -> list[Silhouette]:
    masked = [image for image in capture.images_of(SensorKind.color) if image.mask_path is not None]
    if masked or not capture.depth_is_masked:
        return [_of_mask(capture, image) for image in _spread(masked)]
    depths = capture.images_of(SensorKind.depth)
    return [silhouette_of_depth(capture, image, 1.0) for image in _spread(list(depths))]


def _of_mask(capture: Capture, image: Image) -> Silhouette:
    mask = read_mask(capture, image)
    return Silhouette.from_mask(mask, camera_of(capture, image), capture.sensor_from_world(image), _MARGIN_PX)


def _spread(images: list[Image]) -> list[Image]:
    """Evenly over the list."""
    if len(images) <= _MOST_OUTLINES:
        return images
    return [images[i] for i in np.linspace(0, len(images) - 1, _MOST_OUTLINES).round().astype(int)]
