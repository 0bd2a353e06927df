"""What speaks for a surface: outlines of a filled cup in closed form, depth and outlines of a simulated ball."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image as Pillow

from neuralrecon.capture import Capture, Frame, Image, Sensor, SensorKind, read_capture
from neuralrecon.geometry import Camera, Rigid
from neuralrecon.label import (
    Sight,
    Solid,
    depth_inliers,
    evidence,
    label_occupancy,
    surface_evidence,
    views_of,
    write_depth_inliers,
)
from neuralrecon.scene import Scene, SceneConfig

R, H = 0.04, 0.09  # of the cup
CAMERA_R, CAMERA_Z, STOPS = 0.5, 0.2, 20
RISE = (CAMERA_Z - H) / (CAMERA_R + R)  # slope of the ray to the far rim
CAMERA = Camera(width=320, height=320, fx=700.0, fy=700.0, cx=160.0, cy=160.0)


def filled_cup() -> trimesh.Trimesh:
    """A cup whose opening is filled up to its visual hull: a cone over the rim that follows the rays to the far rim."""
    bottom = [(r, 0.0) for r in np.linspace(0, R, 8)[:-1]]
    wall = [(R, z) for z in np.linspace(0, H, 30)[:-1]]
    lid = [(r, H + (R - r) * RISE) for r in np.linspace(R, 0, 14)]
    mesh = trimesh.creation.revolve(np.array(bottom + wall + lid), sections=120)
    assert mesh.is_volume
    return mesh


def pose_at(angle: float) -> Rigid:
    centre = np.array([CAMERA_R * math.cos(angle), CAMERA_R * math.sin(angle), CAMERA_Z])
    forward = np.array([0, 0, 0.05]) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    rotation = torch.from_numpy(np.stack([right, np.cross(forward, right), forward]))
    return Rigid(rotation=rotation, translation=-(rotation @ torch.from_numpy(centre)))


@pytest.fixture
def cup(tmp_path: Path) -> tuple[Solid, Capture]:
    """The filled cup, whose outlines are those of the open one, and 20 outlines of it from 13 degrees above."""
    solid, frames, images = Solid.of(filled_cup()), [], []
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    rays = CAMERA.rays(torch.from_numpy(np.stack([u.ravel(), v.ravel()], axis=1) + 0.5)).numpy()
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    for stop in range(STOPS):
        pose = pose_at(2 * math.pi * stop / STOPS)
        world_from_cam = pose.inverse()
        directions = rays @ world_from_cam.rotation.numpy().T
        origins = np.broadcast_to(world_from_cam.translation.numpy(), directions.shape)
        mask = np.isfinite(solid.first_hit(origins, directions)).reshape(v.shape)
        file = tmp_path / f"{stop}.png"
        Pillow.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(file)
        frames.append(Frame(name=str(stop), rig_from_world=pose))
        images.append(Image(sensor="camera", frame=str(stop), path=file, mask_path=file))
    sensor = Sensor(name="camera", kind=SensorKind.color, camera=CAMERA, sensor_from_rig=Rigid.identity())
    told = {"name": "cup", "root": tmp_path, "layout": "plain"}
    return solid, Capture(**told, sensors=(sensor,), frames=tuple(frames), images=tuple(images))


def parts_of(solid: Solid) -> tuple[np.ndarray, np.ndarray]:
    """Which vertices are the wall's and the lid's, 12 mm off the rim."""
    x, y, z = (solid.vertices + solid.centre).T
    radius = np.hypot(x, y)
    return (z > 0.005) & (z < H - 0.005) & (radius > R - 1e-6), (z > H) & (radius < R - 0.0125)


def test_outlines_tell_the_wall_of_a_cup_and_not_what_fills_it(cup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ray is 0.1 mm off the wall 12 mm before and behind up to an angle of 12 / (2 * 40) - 0.1 / 12 (8 degrees):
    strips that cover it at steps of 18. The lid only follows rays, to 12 mm from the rim, where they leave it.
    """
    solid, capture = cup
    wall, lid = parts_of(solid)
    told = surface_evidence(solid, capture)
    assert told[wall].all()
    assert not told[lid].any()
    monkeypatch.setattr(evidence, "_AWAY_M", -1.0)
    assert surface_evidence(solid, capture)[lid].mean() > 0.1  # the canary: the outlines do touch the lid


def test_what_lies_on_a_filled_opening_is_not_observed(cup) -> None:
    """Points up to 1 mm above the lid are not; 5 mm above it, and on the wall, they are, as without evidence."""
    solid, capture = cup
    wall, _ = parts_of(solid)
    sight = Sight(views=views_of(capture), evidence=surface_evidence(solid, capture))
    angles = np.linspace(0, 2 * math.pi, 36, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(36)], axis=1)
    on_lid = 0.6 * R * ring + [0, 0, H + 0.4 * R * RISE]
    off_lid = {up: on_lid + np.array([0, 0, up]) for up in (0.0001, 0.001, 0.005)}
    on_wall = (solid.vertices + solid.centre)[wall] * [1 + 0.001 / R, 1 + 0.001 / R, 1]
    before = Sight(views=sight.views)
    for up, points in off_lid.items():
        assert before.observes(points, solid).all()
        assert sight.observes(points, solid).all() == (up == 0.005)
        assert sight.observes(points, solid).any() == (up == 0.005)
    assert sight.observes(on_wall, solid).all()
    assert not sight.observes(np.zeros((0, 3)), solid).any()


def test_labels_without_evidence_are_as_before(cup) -> None:
    solid, capture = cup
    views = views_of(capture)
    nothing, everything = np.zeros(len(solid.vertices), bool), np.ones(len(solid.vertices), bool)
    without, full, none = (
        label_occupancy(solid, 4000, sight=Sight(views=views, evidence=told)) for told in (None, everything, nothing)
    )
    assert without.observed is not None
    assert none.observed is not None
    np.testing.assert_array_equal(without.observed, full.observed)
    np.testing.assert_array_equal(none.observed, without.observed & (none.sdf_m > 0.002))
    assert label_occupancy(solid, 10).observed is None


def test_depth_and_outlines_tell_a_ball(sphere_folder: Path, tmp_path: Path) -> None:
    """Above 20 mm, where depth cameras see it well, nearly all of it: nothing changes there. A ball of 15 mm in
    radius at its centre has none: no reading is within 3 mm, no outline within 2 px, which are at most 20 mm."""
    capture = read_capture(sphere_folder)
    scene = Scene.from_capture(capture, SceneConfig(hull_resolution=64))
    truth = trimesh.load_mesh(sphere_folder / "gt" / "gt_mesh.ply")
    write_depth_inliers(depth_inliers(capture, scene, truth), tmp_path)
    told = surface_evidence(truth, capture, inlier_folder=tmp_path)
    assert told[truth.vertices[:, 2] > 0.02].mean() > 0.98
    points = np.random.default_rng(0).uniform([-0.05, -0.06, 0.02], [0.06, 0.05, 0.11], (4000, 3))
    views = views_of(capture)
    plain = Sight(views=views).observes(points, truth)
    assert (Sight(views=views, evidence=told).observes(points, truth) != plain).mean() < 0.01
    small = trimesh.creation.icosphere(subdivisions=4, radius=0.015).apply_translation(Solid.of(truth).centre)
    assert not surface_evidence(small, capture, inlier_folder=tmp_path).any()
