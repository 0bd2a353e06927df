"""What a camera sees of a ball, by ray casting against the closed form; partial clouds of a box."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh

from neuralrecon.geometry import Camera, Rigid
from neuralrecon.label import Solid, View, observed_by, partial_cloud

R = 0.05
TOLERANCE = 0.002


def looking_down(x: float = 0.0, y: float = 0.0, height: float = 0.6, **changes) -> View:
    """A camera above the table whose image's right is the world's x, and whose up is the world's y."""
    rotation = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    centre = torch.tensor([x, y, height], dtype=torch.float64)
    camera = Camera(**({"width": 320, "height": 240, "fx": 400.0, "fy": 400.0, "cx": 160.0, "cy": 120.0} | changes))
    return View(camera=camera, cam_from_world=Rigid(rotation=rotation, translation=-(rotation @ centre)))


def ball_on_table() -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=R)
    mesh.apply_translation([0, 0, R])
    return mesh


def depth_behind_ball(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """How far each point lies behind the first surface along its ray; negative in front, -inf past the ball."""
    offsets = points - camera
    distance = np.linalg.norm(offsets, axis=1)
    directions = offsets / distance[:, None]
    along = directions @ (np.array([0, 0, R]) - camera)
    miss = np.linalg.norm(camera + directions * along[:, None] - [0, 0, R], axis=1)
    half = np.sqrt(np.maximum(R**2 - miss**2, 0))
    return np.where(miss < R, distance - (along - half), -np.inf)


def test_ball_casts_its_shadow():
    view = looking_down()
    points = np.random.default_rng(0).uniform([-0.1, -0.08, 0.0], [0.1, 0.08, 0.15], (20_000, 3))
    behind = depth_behind_ball(points, np.array([0, 0, 0.6]))
    # The facets lie up to 1e-4 m inside the ball, which tells in depth where the ray grazes: leave the rim out.
    rim = np.abs(np.linalg.norm(points[:, :2] / (0.6 - points[:, 2:]), axis=1) - math.tan(math.asin(R / 0.55))) < 2e-3
    clear = (np.abs(behind - TOLERANCE) > 5e-4) & ~rim
    assert clear.mean() > 0.95
    seen = observed_by(points, ball_on_table(), [view], tolerance_m=TOLERANCE)
    np.testing.assert_array_equal(seen[clear], (behind < TOLERANCE)[clear])
    assert 0.1 < seen[clear].mean() < 0.9


def test_points_under_the_ball_need_a_camera_that_sees_below():
    under = np.array([[0.0, 0.0, 0.001], [0.02, 0.0, 0.002]])
    beside = np.array([[0.09, 0.0, 0.001]])
    ball = ball_on_table()
    assert observed_by(under, ball, [looking_down()]).tolist() == [False, False]
    assert observed_by(beside, ball, [looking_down()]).tolist() == [True]
    # A point at the foot of the ball, hidden from above by its bulge, is in plain sight of a low camera on its side.
    toward = torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    centre = torch.tensor([-0.6, 0.0, 0.02], dtype=torch.float64)
    side = View(camera=looking_down().camera, cam_from_world=Rigid(rotation=toward, translation=-(toward @ centre)))
    left = np.array([[-0.04, 0.0, 0.001]])
    assert not observed_by(left, ball, [looking_down()]).any()
    assert observed_by(left, ball, [looking_down(), side]).all()


def test_the_table_hides_what_lies_below_it():
    points = np.array([[0.09, 0.0, -0.001], [0.09, 0.0, -0.01]])
    assert observed_by(points, ball_on_table(), [looking_down()], table_z_m=0.0).tolist() == [True, False]
    assert observed_by(points, ball_on_table(), [looking_down()]).tolist() == [True, True]


def test_depth_below_the_surface_counts_up_to_the_tolerance():
    points = np.array([[0.0, 0.0, 2 * R - depth] for depth in (-0.01, 0.001, 0.0019, 0.0022, 0.01)])
    seen = observed_by(points, ball_on_table(), [looking_down()], tolerance_m=TOLERANCE)
    assert seen.tolist() == [True, True, True, False, False]


def test_outside_the_image_and_behind_the_camera_nothing_is_seen():
    edge = 160 / 400 * 0.6  # half the image's width at the table
    points = np.array([[edge - 1e-4, 0, 0], [edge + 1e-4, 0, 0], [0, 0.18 - 1e-4, 0], [0, 0.18 + 1e-4, 0], [0, 0, 0.7]])
    far_ball = ball_on_table().apply_translation([5.0, 0, 0])
    assert observed_by(points, far_ball, [looking_down()]).tolist() == [True, False, True, False, False]


def test_distortion_does_not_fold_far_points_into_the_image():
    view = looking_down(distortion=(-0.3, 0.0, 0.0, 0.0, 0.0))
    far = np.array([[1.7 * 0.6, 0.0, 0.0]])
    pixel = view.camera.project(view.cam_from_world.apply(torch.from_numpy(far))).numpy()[0]
    assert 0 < pixel[0] < 320  # the canary: the polynomial does put it into the image
    far_ball = ball_on_table().apply_translation([5.0, 0, 0])
    assert not observed_by(far, far_ball, [view]).any()


def test_no_views_see_nothing():
    assert not observed_by(np.zeros((3, 3)), ball_on_table(), []).any()


def box_depth(view: View, top: float, half: float, height: float) -> np.ndarray:
    """Depth of a square box from straight above: its top within `half`, else the table."""
    u, v = np.meshgrid(np.arange(view.camera.width) + 0.5, np.arange(view.camera.height) + 0.5)
    x = (u - view.camera.cx) / view.camera.fx * (height - top)
    y = (v - view.camera.cy) / view.camera.fy * (height - top)
    return np.where(np.maximum(np.abs(x), np.abs(y)) < half, height - top, height).astype(np.float32)


@pytest.fixture
def box_and_cloud():
    view = looking_down(x=0.01, y=-0.02)
    mesh = trimesh.creation.box(extents=(0.1, 0.1, 0.08))
    mesh.apply_translation([0.01, -0.02, 0.04])
    depth = box_depth(view, 0.08, 0.05, 0.6)
    n_top = int((depth < 0.59).sum())
    depth[120, 160] = 0.0  # missing
    depth[110, 150] = 0.50  # 20 mm above the top: a flying pixel
    depth[112, 150] = 0.30  # far outside the padded box
    return (
        view,
        mesh,
        depth,
        n_top,
        partial_cloud(depth, view, Solid.of(mesh), margin_m=0.03, distance_m=0.003, table_z_m=0.0),
    )


def test_raw_cloud_is_what_was_measured_near_the_object(box_and_cloud):
    _, _, _, n_top, cloud = box_and_cloud
    assert len(cloud.raw) == n_top - 2
    # float32 depth of half a metre: 3e-8 m, twice that after the projection.
    on_top = np.abs(cloud.raw[:, 2] - 0.08) < 1e-6
    assert on_top.sum() == n_top - 3
    low, high = cloud.raw[on_top, :2].min(axis=0), cloud.raw[on_top, :2].max(axis=0)
    pixel = 0.52 / 400
    assert np.abs(low - [-0.04, -0.07]).max() < pixel
    assert np.abs(high - [0.06, 0.03]).max() < pixel
    # Pixel centres at +0.5: the middle of a symmetric patch is the camera's own axis.
    np.testing.assert_allclose((low + high) / 2, [0.01, -0.02], atol=1e-7)


def test_cleaned_cloud_lies_on_the_mesh(box_and_cloud):
    view, mesh, depth, n_top, cloud = box_and_cloud
    assert len(cloud.cleaned) == n_top - 3
    assert Solid.of(mesh).closest(cloud.cleaned.astype(np.float64))[0].max() < 1e-6
    in_cam = cloud.cleaned @ cloud.cam_from_world[:3, :3].T + cloud.cam_from_world[:3, 3]
    pixels = view.camera.project(torch.from_numpy(in_cam)).numpy()
    u, v = np.floor(pixels).astype(int).T
    np.testing.assert_allclose(in_cam[:, 2], depth[v, u], atol=1e-6)


def test_lonely_points_are_dropped(box_and_cloud):
    view, mesh, _, _, _ = box_and_cloud
    depth = np.zeros((240, 320), dtype=np.float32)
    depth[110:130, 150:170] = 0.52
    depth[90, 130] = 0.52  # on the box's top, but twenty pixels from its neighbours
    cloud = partial_cloud(depth, view, Solid.of(mesh), margin_m=0.03, distance_m=0.003)
    assert (len(cloud.raw), len(cloud.cleaned)) == (401, 400)


def test_an_empty_depth_map_gives_an_empty_cloud(box_and_cloud, tmp_path):
    view, mesh, depth, _, _ = box_and_cloud
    cloud = partial_cloud(np.zeros_like(depth), view, Solid.of(mesh), margin_m=0.03, distance_m=0.003)
    with np.load(cloud.save(tmp_path / "cloud.npz")) as back:
        assert back["raw"].shape == back["cleaned"].shape == (0, 3)
        np.testing.assert_array_equal(back["world_from_mesh"], np.eye(4))
