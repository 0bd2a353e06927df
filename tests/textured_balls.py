"""Photographs of objects with known colours, made without the package's renderer, and fits that know the colours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import trimesh
from skimage.measure import marching_cubes

from neuralrecon.fields import FieldConfig, SurfaceModel
from neuralrecon.geometry import Box, Camera, Rigid, Similarity
from neuralrecon.render import Occupancy
from neuralrecon.scene import Photograph
from neuralrecon.train import Fit, FitConfig

CAMERA = Camera(width=160, height=160, fx=400.0, fy=400.0, cx=80.0, cy=80.0, distortion=(-0.05, 0.02, 0, 0, 0))
DISTANCE = 0.5
Colors = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def eyes_around(n_stops: int = 8, heights_deg: tuple[float, ...] = (10.0, 50.0)) -> list[tuple[Rigid, Rigid]]:
    """For each stop and height (cam_from_world, rig_from_world): the cameras stand still in the room."""
    found = []
    for stop in range(n_stops):
        rig_from_world = Rigid.about_axis("z", 360.0 * stop / n_stops)
        for height in np.radians(heights_deg):
            centre = DISTANCE * np.array([np.cos(height), 0.0, np.sin(height)])
            forward = -centre / np.linalg.norm(centre)
            right = np.cross(forward, [0, 0, 1.0])
            right /= np.linalg.norm(right)
            rotation = torch.from_numpy(np.stack([right, np.cross(forward, right), forward]))
            cam_from_rig = Rigid(rotation=rotation, translation=-(rotation @ torch.from_numpy(centre)))
            found.append((cam_from_rig @ rig_from_world, rig_from_world))
    return found


def photographs_of(mesh: trimesh.Trimesh, colors: Colors, poses: list[tuple[Rigid, Rigid]]) -> list[Photograph]:
    """`colors` are of points (world), directions they are seen along, and a photograph's number; 3 x 3 rays a pixel."""
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    steps = (np.arange(3) + 0.5) / 3
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(1, 9, 2)
    uv = np.stack([u.ravel(), v.ravel()], axis=1)[:, None] + offsets
    in_cam = CAMERA.rays(torch.from_numpy(uv.reshape(-1, 2))).numpy()
    in_cam /= np.linalg.norm(in_cam, axis=1, keepdims=True)
    photographs = []
    for number, (cam_from_world, rig_from_world) in enumerate(poses):
        world_from_cam = cam_from_world.inverse()
        directions = in_cam @ world_from_cam.rotation.numpy().T
        origin = world_from_cam.translation.numpy()
        places, rays, _ = mesh.ray.intersects_location(
            np.broadcast_to(origin, directions.shape), directions, multiple_hits=False
        )
        image, hit = np.zeros((len(directions), 3)), np.zeros(len(directions))
        image[rays], hit[rays] = colors(places, directions[rays], number), 1
        image, hit = (x.reshape(CAMERA.height, CAMERA.width, 9, -1).mean(axis=2) for x in (image, hit))
        photographs.append(
            Photograph.cropped(
                (image.clip(0, 1) * 255).round().astype(np.uint8),
                hit[..., 0] > 0.999,
                4,
                name=f"{number}.png",
                camera=CAMERA,
                cam_from_world=cam_from_world,
                rig_from_world=rig_from_world.rotation,
                sensor=0,
                stop=number % 2,
            )
        )
    return photographs


def fit_that_knows(colors: Colors, mesh: trimesh.Trimesh, poses: list[tuple[Rigid, Rigid]]) -> Fit:
    """A fit whose colour is `colors` at every point of the mesh, of the photograph that looks along the direction."""
    generator = torch.Generator().manual_seed(0)
    field = FieldConfig(levels=2, color_levels=2, log2_table_size=10, color_log2_table_size=10, hidden=8)
    model = SurfaceModel(field, 1, 2, generator)
    low, high = (torch.from_numpy(x) for x in np.array(mesh.bounds))
    scale = 0.8 / float((high - low).max())
    unit_from_world = Similarity(scale=scale, translation=0.5 - scale * (low + high) / 2)
    centers = torch.stack([pose.inverse().translation for pose, _ in poses])

    def known(points, normals, directions, rig_from_world, displacement=None):
        in_world = unit_from_world.inverse().apply(points.double())
        towards = torch.nn.functional.normalize(in_world[:, None] - centers[None], dim=2)
        number = (towards * directions[:, None].double()).sum(dim=2).argmax(dim=1).numpy()
        found = np.zeros((len(points), 3))
        for one in np.unique(number):
            which = number == one
            found[which] = colors(in_world.numpy()[which], directions.numpy()[which], int(one))
        return torch.from_numpy(found).float()

    model.color = known  # type: ignore[method-assign]
    return Fit(
        name="known",
        model=model,
        config=FitConfig(field=field, first_levels=1),
        unit_from_world=unit_from_world,
        box=Box(low=low.float(), high=high.float()),
        floor_m=None,
        is_metric=True,
        world_per_mm=1e-3,
        occupancy=Occupancy.from_sdf(torch.ones(16, 16, 16), 0.1),
        view_origins=unit_from_world.apply(centers).float()[:5],
        view_rig_from_world=torch.stack([rig.rotation for _, rig in poses]).float()[:5],
        blur=0.01,
        step=1,
    )


def step_with_wall() -> trimesh.Trimesh:
    """A plate 80 mm wide and 10 mm high, on which a wall 8 mm thick stands 50 mm high: it hides much of the plate."""
    axis = np.arange(-0.05, 0.0701, 0.001)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")

    def box(low, high):
        middle, half = (np.array(low) + high) / 2, (np.array(high) - low) / 2
        away = np.stack([np.abs(c - m) - h for c, m, h in zip((x, y, z), middle, half, strict=True)])
        return np.linalg.norm(np.maximum(away, 0), axis=0) + np.minimum(away.max(axis=0), 0)

    plate = box([-0.0404, -0.0404, 0.0004], [0.0404, 0.0404, 0.0104])
    wall = box([-0.0044, -0.0404, 0.0004], [0.0044, 0.0404, 0.0604])
    vertices, faces, _, _ = marching_cubes(np.minimum(plate, wall), 0.0, spacing=(0.001,) * 3)
    mesh = trimesh.Trimesh(vertices - 0.05, faces, process=False)
    return mesh if mesh.volume > 0 else trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False)
