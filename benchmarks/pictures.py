"""Small pictures of results: a mesh as a camera of the capture sees it, and images side by side in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from PIL import Image as Picture

from neuralrecon.files import replacing
from neuralrecon.geometry import Camera, Rigid
from neuralrecon.label import Solid

_AMBIENT = 0.25


def shaded(
    mesh: trimesh.Trimesh, camera: Camera, cam_from_world: Rigid, corner: tuple[int, int], shape: tuple[int, int]
) -> Float[np.ndarray, "v u 3"]:
    """The bare mesh lit from the camera, in the crop of `shape` (height, width) from pixel `corner` (u, v) on.

    Grey in [0, 1] on black; lens distortion is that of the camera.
    """
    v, u = np.mgrid[: shape[0], : shape[1]]
    pixels = torch.from_numpy(np.stack([u.ravel() + corner[0], v.ravel() + corner[1]], axis=1) + 0.5)
    world_from_cam = cam_from_world.to(torch.float64).inverse()
    directions = world_from_cam.rotate(torch.nn.functional.normalize(camera.rays(pixels), dim=1)).numpy()
    center = world_from_cam.translation.numpy()
    solid = Solid.of(mesh)
    distance = solid.first_hit(np.broadcast_to(center, directions.shape), directions)
    hit = np.isfinite(distance)
    image = np.zeros((len(directions), 3))
    if hit.any():
        _, face, _ = solid.closest(center + directions[hit] * distance[hit, None])
        facing = np.abs(np.einsum("ij,ij->i", np.asarray(mesh.face_normals)[face], directions[hit]))
        image[hit] = (_AMBIENT + (1 - _AMBIENT) * facing)[:, None]
    return image.reshape(*shape, 3)


def write_beside(file: Path, images: Sequence[Float[np.ndarray, "v u 3"]]) -> Path:
    """Images in [0, 1] of one height, from left to right in one file; returns the file."""
    joined = (np.concatenate(list(images), axis=1).clip(0, 1) * 255).round().astype(np.uint8)
    with replacing(file) as temporary:
        Picture.fromarray(joined).save(temporary)
    return file
