"""Small pictures of what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from PIL import Image

from neuralrecon.files import replacing
from neuralrecon.geometry import Camera, Rigid

_AMBIENT = 0.25
_GAP_PX = 4


def shaded(
    mesh: trimesh.Trimesh, camera: Camera, cam_from_world: Rigid, corner: tuple[int, int], shape: tuple[int, int]
) -> Float[np.ndarray, "v u 3"]:
    """The mesh as a camera sees it: grey, lit from the camera, tinted by its normals; black where there is none.

    Args:
        mesh: in the world frame; its own colours do not show.
        camera: lens distortion included.
        cam_from_world: where the camera stands.
        corner: pixel (u0, v0) of the part of the image that is wanted.
        shape: (height, width) of that part.
    """
    v, u = np.mgrid[: shape[0], : shape[1]].reshape(2, -1)
    pixels = torch.from_numpy(np.stack([u + corner[0], v + corner[1]], axis=1) + 0.5)
    world_from_cam = cam_from_world.to(torch.float64).inverse()
    directions = torch.nn.functional.normalize(world_from_cam.rotate(camera.rays(pixels)), dim=1).numpy()
    origins = np.broadcast_to(world_from_cam.translation.numpy(), directions.shape)
    face = mesh.ray.intersects_first(origins, directions)
    hit = face >= 0
    normals = mesh.face_normals[face[hit]]
    light = _AMBIENT + (1 - _AMBIENT) * np.abs(np.einsum("ij,ij->i", normals, directions[hit]))
    image = np.zeros((len(u), 3))
    image[hit] = light[:, None] * (0.75 + 0.25 * normals)
    return image.reshape(*shape, 3).clip(0, 1)


def write_beside(file: Path, images: Sequence[Float[np.ndarray, "v u 3"]], height: int = 320) -> Path:
    """Images (sRGB in [0, 1]) from left to right in one file, made smaller to at most `height` px; returns the file."""
    parts = []
    for image in images:
        picture = Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8))
        picture.thumbnail((4 * height, height), Image.Resampling.LANCZOS)
        parts.append(picture)
    width = sum(part.width for part in parts) + _GAP_PX * (len(parts) - 1)
    whole = Image.new("RGB", (width, max(part.height for part in parts)))
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + _GAP_PX
    with replacing(file) as temporary:
        whole.save(temporary)
    return file
