"""The outline of a mesh as a camera sees it, also beyond the image's border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Bool, Float

from ..geometry import Camera, Rigid
from .registered import pixel_centres


@dataclass(frozen=True, slots=True, kw_only=True)
class Silhouette:
    """Which pixels' centres look at the mesh: `mask` is a block of pixels whose first one is (`u0`, `v0`).

    The block holds the whole outline, but for what is further from the image than the image is wide or high.
    """

    mask: Bool[np.ndarray, "v u"]
    u0: int
    v0: int
    width: int
    height: int

    def in_image(self) -> Bool[np.ndarray, "height width"]:
        """The part inside of the image, at the image's size."""
        image = np.zeros((self.height, self.width), dtype=bool)
        rows, columns = self.mask.shape
        top, left = max(self.v0, 0), max(self.u0, 0)
        bottom, right = min(self.v0 + rows, self.height), min(self.u0 + columns, self.width)
        if top < bottom and left < right:
            part = self.mask[top - self.v0 : bottom - self.v0, left - self.u0 : right - self.u0]
            image[top:bottom, left:right] = part
        return image


@dataclass(frozen=True, slots=True, kw_only=True)
class Caster:
    """A mesh that camera rays are cast at; build it once. Vertices should lie around the origin."""

    vertices: Float[np.ndarray, "vertices 3"]
    scene: EmbreeScene

    @staticmethod
    def of(vertices: Float[np.ndarray, "vertices 3"], faces: np.ndarray) -> Caster:
        scene = EmbreeScene()
        TriangleMesh(scene=scene, vertices=vertices.astype(np.float32), indices=np.asarray(faces, np.int32))
        return Caster(vertices=np.asarray(vertices, np.float64), scene=scene)

    def seen_by(self, camera: Camera, cam_from_mesh: Rigid) -> Silhouette:
        """What a camera at this place has of the mesh in its sight; empty if the mesh is behind it."""
        u0, v0, u1, v1 = self._block(camera, cam_from_mesh)
        mesh_from_cam = cam_from_mesh.inverse()
        rays = mesh_from_cam.rotate(camera.rays(pixel_centres(u1 - u0, v1 - v0, u0, v0)).reshape(-1, 3))
        origin = np.broadcast_to(mesh_from_cam.translation.numpy().astype(np.float32), rays.shape)
        hit = self.scene.run(np.ascontiguousarray(origin), rays.numpy().astype(np.float32)) >= 0
        mask = np.asarray(hit).reshape(v1 - v0, u1 - u0)
        return Silhouette(mask=mask, u0=u0, v0=v0, width=camera.width, height=camera.height)

    def _block(self, camera: Camera, cam_from_mesh: Rigid) -> tuple[int, int, int, int]:
        """u0, v0, u1, v1 (ends exclusive) around all vertices, one image's size beyond the image at most."""
        size = np.array([camera.width, camera.height])
        in_cam = cam_from_mesh.apply(torch.from_numpy(self.vertices))
        if bool((in_cam[:, 2] <= 0).any()):
            low, high = -size, 2 * size
        else:
            pixels = camera.project(in_cam).numpy()
            low = np.clip(np.floor(pixels.min(axis=0)), -size, 2 * size - 1)
            high = np.clip(np.ceil(pixels.max(axis=0)), low + 1, 2 * size)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])
