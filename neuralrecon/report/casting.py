"""A mesh as a camera sees it, by ray casting: for pictures, so without the trees that `Solid` builds for distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Bool, Float, Int
from scipy.spatial import ConvexHull

from ..geometry import Camera, Rigid
from ..label import View

_MARGIN = 0.06
_TOWARDS_LIGHT = np.array([-0.35, -0.5, -0.8]) / np.linalg.norm([0.35, 0.5, 0.8])  # in the camera's frame, y down
_AMBIENT = 0.28


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A rectangle of an image in its pixels, and the size of the picture that is made of it."""

    low: tuple[int, int]
    high: tuple[int, int]
    width: int
    height: int

    @staticmethod
    def around(points_in_world: Float[np.ndarray, "points 3"], view: View, longest_px: int) -> Window | None:
        """Around the points' projections, with a margin; None if the image shows nothing of them."""
        in_cam = view.cam_from_world.to(torch.float64).apply(torch.from_numpy(points_in_world))
        pixels = view.camera.project(in_cam[in_cam[:, 2] > 1e-6]).numpy()
        size = np.array([view.camera.width, view.camera.height])
        if len(pixels) == 0:
            return None
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        margin = _MARGIN * (high - low).max() + 2
        low, high = np.clip(low - margin, 0, size).astype(int), np.clip(high + margin + 1, 0, size).astype(int)
        return Window.of(low, high, longest_px) if (high - low).min() > 1 else None

    @staticmethod
    def of(low: Int[np.ndarray, "2"], high: Int[np.ndarray, "2"], longest_px: int) -> Window:
        """The rectangle from `low` to `high` (exclusive); the picture is no larger than it."""
        extent = high - low
        width, height = np.maximum(np.round(extent * min(1.0, longest_px / extent.max())), 1).astype(int)
        return Window(
            low=(int(low[0]), int(low[1])), high=(int(high[0]), int(high[1])), width=int(width), height=int(height)
        )

    def centres(self, supersample: int = 1) -> Float[np.ndarray, "v u 2"]:
        """Where in the image the picture's pixels have their centres."""
        axes = [
            self.low[i] + (np.arange(n * supersample) + 0.5) * (self.high[i] - self.low[i]) / (n * supersample)
            for i, n in enumerate((self.width, self.height))
        ]
        return np.stack(np.meshgrid(*axes), axis=-1)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """u0, v0, u1, v1, as `read_color` takes it."""
        return (*self.low, *self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What each pixel's ray meets first: face (-1 for none), barycentric weights, depth along the optical axis."""

    face: Int[np.ndarray, "v u"]
    weights: Float[np.ndarray, "v u 3"]
    depth: Float[np.ndarray, "v u"]

    @property
    def hit(self) -> Bool[np.ndarray, "v u"]:
        return self.face >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Caster:
    """A mesh in the world frame, ready to be looked at.

    `corners` are the vertices of its convex hull: what they span in an image, the whole mesh spans.
    """

    mesh: trimesh.Trimesh
    scene: EmbreeScene
    corners: Float[np.ndarray, "corners 3"]
    centre: Float[np.ndarray, "3"]
    radius: float

    @staticmethod
    def of(mesh: trimesh.Trimesh) -> Caster:
        low, high = np.asarray(mesh.bounds, dtype=np.float64)
        centre, scene = (low + high) / 2, EmbreeScene()
        vertices = (np.asarray(mesh.vertices) - centre).astype(np.float32)
        TriangleMesh(scene=scene, vertices=vertices, indices=np.ascontiguousarray(mesh.faces, dtype=np.int32))
        hull = ConvexHull(vertices, qhull_options="QJ").vertices  # joggled: it may be flat
        return Caster(
            mesh=mesh,
            scene=scene,
            corners=np.asarray(mesh.vertices, dtype=np.float64)[hull],
            centre=centre,
            radius=float(np.linalg.norm(high - low)) / 2,
        )

    def look(self, view: View, pixels: Float[np.ndarray, "v u 2"]) -> Sighting:
        """Along the rays through these places of the image, the lens' distortion undone."""
        world_from_cam = view.cam_from_world.to(torch.float64).inverse()
        in_cam = view.camera.rays(torch.from_numpy(pixels.reshape(-1, 2)))
        lengths = in_cam.norm(dim=1)
        directions = world_from_cam.rotate(in_cam / lengths[:, None]).numpy()
        eye = world_from_cam.translation.numpy() - self.centre
        # float32 is finest near the object: rays start where its bounding sphere may begin
        start = max(float(np.linalg.norm(eye)) - 1.01 * self.radius, 0.0)
        origins = (eye + start * directions).astype(np.float32)
        found = self.scene.run(origins, directions.astype(np.float32), output=True)
        shape, u, v = pixels.shape[:2], found["u"], found["v"]
        depth = np.where(found["primID"] >= 0, (start + found["tfar"].astype(np.float64)) / lengths.numpy(), np.inf)
        return Sighting(
            face=found["primID"].reshape(shape),
            weights=np.stack([1 - u - v, u, v], axis=-1).reshape(*shape, 3),
            depth=depth.reshape(shape),
        )

    def values(self, seen: Sighting, of_vertices: Float[np.ndarray, "vertices n"]) -> Float[np.ndarray, "v u n"]:
        """Values of the mesh's vertices, interpolated over the faces; 0 where there is none."""
        shown = np.zeros((*seen.face.shape, of_vertices.shape[1]))
        corners = np.asarray(self.mesh.faces)[seen.face[seen.hit]]
        shown[seen.hit] = np.einsum("pk,pkn->pn", seen.weights[seen.hit], of_vertices[corners])
        return shown


def brightness(normals_in_world: Float[np.ndarray, "v u 3"], view: View) -> Float[np.ndarray, "v u"]:
    """Of a grey, matte surface lit from over the camera's left shoulder, 0 to 1."""
    in_cam = normals_in_world @ view.cam_from_world.rotation.numpy().astype(np.float64).T
    return _AMBIENT + (1 - _AMBIENT) * (in_cam @ _TOWARDS_LIGHT).clip(0, 1)


def viewpoint(
    centre: Float[np.ndarray, "3"], radius: float, *, azimuth_deg: float, elevation_deg: float, side_px: int
) -> View:
    """A camera of one's own that shows a sphere in full, z up, from an angle about the z axis and a height."""
    tangent = 0.22  # of half the field of view: little perspective
    azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
    away = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    rotation = np.stack([right, -np.cross(away, right), -away])
    eye = centre + away * radius / np.sin(np.arctan(tangent))
    focal = side_px / 2 / tangent
    camera = Camera(width=side_px, height=side_px, fx=focal, fy=focal, cx=side_px / 2, cy=side_px / 2)
    rotation_t = torch.from_numpy(rotation)
    return View(
        camera=camera, cam_from_world=Rigid(rotation=rotation_t, translation=-rotation_t @ torch.from_numpy(eye))
    )
