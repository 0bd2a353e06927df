"""Measured depth as another camera would see it: what programs mean that keep depth in a photograph's own pixels."""

from __future__ import annotations

import numpy as np
import torch
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Float, Float32, Int

from ..capture import Capture, Image, SensorKind, read_depth
from ..geometry import Camera, Rigid

# Neighbouring readings belong to one surface if their depths differ by less than this many pixels' width there:
# a surface that is turned by up to 79 degrees from the camera.
_STEEPEST = 5.0
_SAME_POSE = 1e-9


def depth_partners(capture: Capture) -> dict[tuple[str, str], Image]:
    """By sensor and frame of a photograph, the depth map that is to be shown in its pixels.

    Each depth sensor goes with the one photographs' sensor whose centre is nearest to its own, by the frames that they
    share; photographs of other sensors get no depth. Of several depth sensors the nearest is taken.
    """
    colors = [i for i in capture.images_of(SensorKind.color)]
    distances: dict[tuple[str, str], float] = {}
    for depth in capture.images_of(SensorKind.depth):
        for color in colors:
            pair = (depth.sensor, color.sensor)
            if color.frame == depth.frame and pair not in distances:
                between = capture.sensor(color.sensor).sensor_from_rig @ (
                    capture.sensor(depth.sensor).sensor_from_rig.inverse()
                )
                distances[pair] = float(between.translation.norm())
    nearest_color = {d: min((v, c) for (e, c), v in distances.items() if e == d)[1] for d, _ in distances}
    partner_of: dict[str, str] = {}
    for depth, color in sorted(nearest_color.items(), key=lambda pair: -distances[pair]):
        partner_of[color] = depth
    maps = {(i.sensor, i.frame): i for i in capture.images_of(SensorKind.depth)}
    found = {(c.sensor, c.frame): maps.get((partner_of.get(c.sensor, ""), c.frame)) for c in colors}
    return {key: depth for key, depth in found.items() if depth is not None}


def registered_depth(
    capture: Capture, image: Image, camera: Camera, cam_from_world: Rigid
) -> Float32[np.ndarray, "v u"]:
    """A depth map as another camera sees it: metres along that camera's axis at its pixels' centres, 0 = unknown.

    Readings side by side on one surface are joined by triangles, and the other camera's rays take the nearest. Where
    depth jumps, nothing is joined; what lies behind an edge stays unknown, and so does what is met from behind. A map
    that the camera took itself is returned as it is.

    Raises:
        CaptureError: the depth map cannot be read.
    """
    depth = read_depth(capture, image)
    own = capture.sensor(image.sensor).camera
    cam_from_depth = cam_from_world @ capture.sensor_from_world(image).inverse()
    off = cam_from_depth.matrix() - torch.eye(4, dtype=torch.float64)
    if own == camera and float(off.abs().max()) < _SAME_POSE:
        return depth
    vertices = cam_from_depth.apply(_points(depth, own)).numpy()
    faces = _faces(depth, own.fx)
    seen = np.zeros((camera.height, camera.width), np.float32)
    if len(faces):
        scene = EmbreeScene()
        TriangleMesh(scene=scene, vertices=vertices.astype(np.float32), indices=faces.astype(np.int32))
        rays = camera.rays(pixel_centres(camera.width, camera.height)).reshape(-1, 3)
        # rays have z = 1: what the tree measures along them is depth
        out = scene.run(np.zeros(rays.shape, np.float32), rays.numpy().astype(np.float32), output=True)
        from_front = np.einsum("ij,ij->i", out["Ng"], rays.numpy()) < 0
        hit = (out["primID"] >= 0) & from_front
        seen = np.where(hit, out["tfar"], 0).astype(np.float32).reshape(seen.shape)
    return seen


def pixel_centres(width: int, height: int, u0: int = 0, v0: int = 0) -> Float[torch.Tensor, "v u 2"]:
    """(u, v) of the centres of a block of pixels whose first one is (u0, v0)."""
    u = torch.arange(u0, u0 + width, dtype=torch.float64) + 0.5
    v = torch.arange(v0, v0 + height, dtype=torch.float64) + 0.5
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)


def _points(depth: np.ndarray, camera: Camera) -> Float[torch.Tensor, "pixels 3"]:
    rays = camera.rays(pixel_centres(camera.width, camera.height))
    return (rays * torch.from_numpy(depth.astype(np.float64))[..., None]).reshape(-1, 3)


def _faces(depth: np.ndarray, focal_px: float) -> Int[np.ndarray, "faces 3"]:
    """Two triangles for each four neighbours, without those that miss a reading or bridge a jump."""
    number = np.arange(depth.size).reshape(depth.shape)
    a, b, c, d = (x.ravel() for x in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    faces = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
    corners = depth.ravel()[faces]
    low, high = corners.min(axis=1), corners.max(axis=1)
    return faces[(low > 0) & (high - low < _STEEPEST * low / focal_px)]
