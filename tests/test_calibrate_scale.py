"""Scale from depth, the table, sharp frames: against closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from neuralrecon.calibrate.scale import DepthView, inverse_depth_at, scale_from_depth
from neuralrecon.calibrate.table import find_ground
from neuralrecon.calibrate.video import sharpest_of_stretches, sharpness, write_frames
from neuralrecon.errors import CalibrationError, CaptureError, ConfigError
from neuralrecon.geometry import Camera, Rigid

DEPTH_CAMERA = Camera(width=160, height=120, fx=150.0, fy=151.0, cx=79.0, cy=61.0)
PLANE_NORMAL, PLANE_OFFSET = np.array([0.2, -0.1, 1.0]), 0.8
METRES_PER_UNIT = 0.137


def plane_depth(normal: np.ndarray = PLANE_NORMAL) -> np.ndarray:
    """Depth (z) of the plane normal . x = offset at every pixel's centre, in closed form."""
    v, u = np.mgrid[:120, :160] + 0.5
    rays = np.stack([(u - 79.0) / 150.0, (v - 61.0) / 151.0, np.ones_like(u)], axis=-1)
    return PLANE_OFFSET / (rays @ normal)


def view(seed: int, depth: np.ndarray | None = None, normal: np.ndarray = PLANE_NORMAL) -> DepthView:
    """Points on the plane, in the units of a colour camera 30 mm beside and turned by 3 degrees."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform((5, 5), (155, 115), (400, 2))
    rays = np.stack([(pixels[:, 0] - 79.0) / 150.0, (pixels[:, 1] - 61.0) / 151.0, np.ones(400)], axis=1)
    in_depth = rays * (PLANE_OFFSET / (rays @ normal))[:, None]
    turn = Rotation.from_rotvec(np.deg2rad([1.0, -2.5, 1.0])).as_matrix()
    depth_from_color = Rigid(
        rotation=torch.from_numpy(turn), translation=torch.tensor([0.03, -0.004, 0.006], dtype=torch.float64)
    )
    in_color = depth_from_color.inverse().apply(torch.from_numpy(in_depth)).numpy()
    return DepthView(
        depth=plane_depth(normal) if depth is None else depth,
        camera=DEPTH_CAMERA,
        depth_from_color=depth_from_color,
        points_in_color=in_color / METRES_PER_UNIT,
    )


def test_exact_depth_gives_the_exact_scale() -> None:
    """Inverse depth is linear on a plane, so interpolation is exact; what is left is the iteration's own limit."""
    scale = scale_from_depth([view(0), view(1)])
    assert abs(scale.metres_per_unit / METRES_PER_UNIT - 1) < 1e-6
    assert scale.n_images == 2
    assert scale.n_readings > 700


def test_a_third_of_wrong_readings_and_noise_move_the_scale_by_its_own_error() -> None:
    rng = np.random.default_rng(7)
    views = []
    for seed in range(20):
        depth = plane_depth() * (1 + rng.normal(0, 0.003, (120, 160)))
        depth[:40] *= 1.2
        depth[40:44] = 0
        views.append(view(seed, depth))
    scale = scale_from_depth(views)
    # A third lies 20 % too far: of the rest's symmetric spread (0.3 %) the median is its 75th percentile, + 0.2 %.
    assert -0.0005 < scale.metres_per_unit / METRES_PER_UNIT - 1 < 0.0035
    assert scale.relative_error < 0.0005


def test_no_overlap_is_an_error_that_says_what_to_check() -> None:
    with pytest.raises(CalibrationError, match=r"0 sparse points fall on depth readings, want 30"):
        scale_from_depth([view(0, np.zeros((120, 160)))])


def test_inverse_depth_is_bilinear_and_stops_at_edges() -> None:
    depth = np.full((4, 5), 2.0)
    depth[:, 3:] = 2.5
    depth[0, 0] = 0.0
    got = inverse_depth_at(depth, np.array([[2.0, 2.0], [3.0, 2.0], [0.9, 0.9], [0.2, 2.0], [4.2, 3.1]]))
    np.testing.assert_allclose(got, [0.5, np.nan, np.nan, np.nan, 0.4])


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A disc of table points at z = 0 with a box on it (3 cm aside), cameras around at 0.4 m height; metres."""
    rng = np.random.default_rng(seed)
    radius, angle = 0.15 * np.sqrt(rng.random(800)), rng.uniform(0, 2 * np.pi, 800)
    table = np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.normal(0, 2e-4, 800)], axis=1)
    box = rng.uniform((-0.02, -0.03, 0.0), (0.08, 0.03, 0.2), (700, 3))
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    cameras = np.stack([0.6 * np.cos(turn), 0.6 * np.sin(turn), np.full(24, 0.4)], axis=1)
    return np.concatenate([table, box]), cameras


@pytest.mark.parametrize("on_axis", [True, False])
def test_the_table_becomes_z_0(on_axis: bool) -> None:
    points, cameras = scene(1)
    turn = Rotation.from_rotvec([0.7, -1.9, 0.4]).as_matrix()
    shift = np.array([0.3, -2.0, 1.1])
    looked = turn @ np.array([0.0, 0.0, 0.05]) + shift
    axis = None
    if on_axis:  # an axis frame upside down, with its origin 0.7 m along the axis
        axis = np.eye(4)
        axis[:3, :3] = np.diag([1, -1, -1]) @ turn.T
        axis[:3, 3] = -axis[:3, :3] @ shift + (0, 0, 0.7)
    ground = find_ground(points @ turn.T + shift, cameras @ turn.T + shift, looked, axis_from_points=axis)
    assert ground.has_table
    back = ground.world_from_points[:3, :3] @ (turn @ np.eye(3)) @ np.array([0, 0, 1.0])
    # 800 points of 0.2 mm noise over 15 cm: a plane's tilt has sigma 0.2 mm / (7.5 cm sqrt(800)) = 1e-4 rad.
    assert np.degrees(np.arccos(min(1.0, back[2]))) < (1e-5 if on_axis else 0.03)
    origin = ground.world_from_points @ np.append(shift, 1.0)
    assert np.abs(origin[:3]).max() < 1e-4
    assert ground.share == pytest.approx(800 / 1500, abs=0.1)


def test_a_wall_behind_or_nothing_flat_is_no_table() -> None:
    rng = np.random.default_rng(2)
    points = rng.normal(0, 0.1, (500, 3))
    _, cameras = scene(1)
    assert not find_ground(points, cameras, np.zeros(3)).has_table


def test_the_sharpest_frame_of_each_stretch() -> None:
    assert sharpest_of_stretches([1, 5, 2, 9, 3, 3, 0, 7], 8, 4) == [1, 3, 4, 7]
    assert sharpest_of_stretches([1.0, 2.0], 2, 10) == [0, 1]


def test_blur_lowers_sharpness() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    blurred = ((picture[:, :-1].astype(int) + picture[:, 1:]) // 2).astype(np.uint8)
    assert sharpness(blurred) < 0.7 * sharpness(picture)


def test_video_errors(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such video file"):
        write_frames(tmp_path / "none.mp4", tmp_path / "out", 5)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises((CaptureError, ConfigError), match=r"PyAV|cannot be decoded"):
        write_frames(tmp_path / "bad.mp4", tmp_path / "out", 5)
