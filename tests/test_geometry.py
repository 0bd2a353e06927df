"""Transforms, cameras and boxes against closed forms, scipy, and their own definitions written a second time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import root
from scipy.spatial.transform import Rotation

from neuralrecon.errors import CalibrationError
from neuralrecon.geometry import Box, Camera, Rays, Rigid, Similarity

# float64 products of 4 x 4 matrices with entries of order 1
_ROUNDING = 1e-12


def random_rigid(seed: int, n: int = 7) -> tuple[Rigid, np.ndarray]:
    rng = np.random.default_rng(seed)
    matrices = np.tile(np.eye(4), (n, 1, 1))
    matrices[:, :3, :3] = Rotation.random(n, random_state=seed).as_matrix()
    matrices[:, :3, 3] = rng.normal(size=(n, 3))
    return Rigid.from_matrix(torch.from_numpy(matrices)), matrices


def test_rigid_is_its_homogeneous_matrix() -> None:
    a, a_matrix = random_rigid(0)
    b, b_matrix = random_rigid(1)
    points = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    homogeneous = np.concatenate([points.numpy(), np.ones((7, 1))], axis=1)
    np.testing.assert_allclose(a.matrix(), a_matrix, atol=_ROUNDING)
    np.testing.assert_allclose((a @ b).matrix(), a_matrix @ b_matrix, atol=_ROUNDING)
    np.testing.assert_allclose(a.inverse().matrix(), np.linalg.inv(a_matrix), atol=_ROUNDING)
    np.testing.assert_allclose(a.apply(points), np.einsum("nij,nj->ni", a_matrix, homogeneous)[:, :3], atol=_ROUNDING)
    np.testing.assert_allclose(a.rotate(points), a.apply(points) - a.translation, atol=_ROUNDING)


def test_one_rigid_broadcasts_over_points() -> None:
    one = Rigid(rotation=torch.eye(3), translation=torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(one.apply(torch.zeros(4, 5, 3)), torch.tensor([1.0, 2.0, 3.0]).expand(4, 5, 3))
    assert one.to(torch.float64).rotation.dtype == torch.float64


@pytest.mark.parametrize("axis", ["x", "y", "z"])
@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0, -135.0, 357.0])
def test_turn_about_axis_is_scipys(axis: str, angle_deg: float) -> None:
    wanted = Rotation.from_euler(axis, angle_deg, degrees=True).as_matrix()
    np.testing.assert_allclose(Rigid.about_axis(axis, angle_deg).rotation, wanted, atol=1e-15)


def test_nearly_a_rotation_becomes_the_nearest() -> None:
    rotation = Rotation.random(random_state=3).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = rotation + 1e-4 * np.random.default_rng(3).normal(size=(3, 3))
    projected = Rigid.from_matrix(torch.from_numpy(matrix)).rotation.numpy()
    np.testing.assert_allclose(projected @ projected.T, np.eye(3), atol=_ROUNDING)
    # scipy orthogonalises in the same (Frobenius) sense
    np.testing.assert_allclose(projected, Rotation.from_matrix(matrix[:3, :3]).as_matrix(), atol=1e-7)


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([1.0, 1.0, -1.0, 1.0]),
        np.diag([1.1, 1.1, 1.1, 1.0]),
        np.full((4, 4), np.nan),
        np.zeros((4, 4)),
    ],
    ids=["reflection", "scaled", "nan", "zero"],
)
def test_what_is_no_rotation_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(CalibrationError, match="pose"):
        Rigid.from_matrix(torch.from_numpy(matrix))


def test_similarity_goes_there_and_back() -> None:
    unit_from_world = Similarity(scale=8.0, translation=torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64))
    points = torch.randn(9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    there = unit_from_world.apply(points)
    np.testing.assert_allclose(there, 8.0 * points.numpy() + [0.1, -0.2, 0.3], atol=_ROUNDING)
    np.testing.assert_allclose(unit_from_world.inverse().apply(there), points, atol=_ROUNDING)


REAL = Camera(
    width=1068, height=712, fx=1476.0, fy=1475.2, cx=535.0, cy=359.0, distortion=(-0.048, 0.048, 4e-4, 3e-4, 0.01)
)


def opencv_by_hand(camera: Camera, point: np.ndarray) -> np.ndarray:
    """OpenCV's documented model for one point, pixel centres moved from integers to +0.5."""
    k1, k2, p1, p2, k3 = camera.distortion
    x, y = point[0] / point[2], point[1] / point[2]
    r = math.hypot(x, y)
    radial = 1 + k1 * r**2 + k2 * r**4 + k3 * r**6
    k = camera.opencv_matrix().numpy()
    u = k[0, 0] * (x * radial + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2)) + k[0, 2]
    v = k[1, 1] * (y * radial + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y) + k[1, 2]
    return np.array([u + 0.5, v + 0.5])


def some_pixels(camera: Camera, n: int) -> torch.Tensor:
    rng = np.random.default_rng(2)
    corners = np.array([[0, 0], [camera.width, 0], [0, camera.height], [camera.width, camera.height]])
    return torch.from_numpy(np.concatenate([corners, rng.uniform((0, 0), (camera.width, camera.height), (n, 2))]))


def test_projection_is_opencvs_model() -> None:
    points = torch.tensor([[0.1, -0.05, 0.7], [-0.2, 0.15, 0.9], [0.0, 0.0, 1.0]], dtype=torch.float64)
    for point, pixel in zip(points, REAL.project(points), strict=True):
        np.testing.assert_allclose(pixel, opencv_by_hand(REAL, point.numpy()), atol=1e-10)


def test_opencv_matrix_puts_the_first_pixels_centre_at_zero() -> None:
    k = torch.tensor([[500.0, 0, 0], [0, 500.0, 0], [0, 0, 1]], dtype=torch.float64)
    camera = Camera.from_opencv(k, 640, 480)
    on_axis = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
    assert camera.project(on_axis).tolist() == [0.5, 0.5]
    assert torch.equal(camera.opencv_matrix(), k)


def test_rays_undo_the_distortion_as_a_root_finder_does() -> None:
    for pixel in some_pixels(REAL, 20):
        found = root(
            lambda xy, pixel=pixel: opencv_by_hand(REAL, np.array([*xy, 1.0])) - pixel.numpy(), [0.0, 0.0], tol=1e-12
        )
        assert found.success
        # eight steps of a contraction by at most 4 |k1| r^2 < 0.04 at the corner, r = 0.44: below 1e-11
        np.testing.assert_allclose(REAL.rays(pixel)[:2], found.x, atol=1e-10)
        assert REAL.rays(pixel)[2] == 1


@pytest.mark.parametrize(("dtype", "tolerance_px"), [(torch.float64, 1e-8), (torch.float32, 1e-3)])
def test_project_undoes_rays(dtype: torch.dtype, tolerance_px: float) -> None:
    """float32 has 6e-5 px of rounding at 1000 px; some ten operations keep it below 1e-3."""
    pixels = some_pixels(REAL, 200).to(dtype)
    back = REAL.project(3.0 * REAL.rays(pixels))
    assert back.dtype == dtype
    assert float((back - pixels).abs().max()) < tolerance_px


def test_a_camera_without_distortion_is_linear() -> None:
    camera = Camera(width=640, height=480, fx=570.0, fy=571.0, cx=306.9, cy=239.3)
    rays = camera.rays(torch.tensor([[306.9, 239.3], [306.9 + 57.0, 239.3 - 57.1]], dtype=torch.float64))
    np.testing.assert_allclose(rays, [[0, 0, 1], [0.1, -0.1, 1]], atol=1e-14)


@pytest.mark.parametrize(("width", "height"), [(534, 356), (100, 100), (4272, 2848)])
def test_resizing_scales_pixel_coordinates(width: int, height: int) -> None:
    """With pixel centres at +0.5 the image's corners stay corners: u' = u * width' / width, nothing else."""
    points = REAL.rays(some_pixels(REAL, 20)) * 0.8
    wanted = REAL.project(points) * torch.tensor([width / REAL.width, height / REAL.height])
    np.testing.assert_allclose(REAL.resized(width, height).project(points), wanted, atol=1e-9)


def test_gradients_of_projection_and_rays() -> None:
    points = torch.tensor([[0.1, -0.05, 0.7], [-0.2, 0.15, 0.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(REAL.project, (points,))
    pixels = torch.tensor([[10.0, 20.0], [1000.0, 300.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(REAL.rays, (pixels,))


@pytest.mark.parametrize("wrong", [{"width": 0}, {"height": -1}, {"fx": 0.0}, {"fy": -5.0}, {"fx": math.nan}])
def test_cameras_without_size_or_focal_length_are_refused(wrong: dict) -> None:
    right = {"width": 4, "height": 3, "fx": 5.0, "fy": 5.0, "cx": 2.0, "cy": 1.5}
    with pytest.raises(CalibrationError, match="positive size and focal length"):
        Camera(**(right | wrong))


@pytest.mark.parametrize("k", [torch.zeros(2, 3), torch.full((3, 3), math.inf)], ids=["shape", "infinite"])
def test_matrices_that_are_no_intrinsics_are_refused(k: torch.Tensor) -> None:
    with pytest.raises((CalibrationError, TypeError), match=r"3 x 3|shape|type"):
        Camera.from_opencv(k, 4, 3)


def test_box_entry_and_exit_match_dense_sampling() -> None:
    rng = np.random.default_rng(4)
    box = Box(low=torch.tensor([-0.1, -0.2, 0.0]).double(), high=torch.tensor([0.2, 0.1, 0.3]).double())
    origins = rng.normal(size=(300, 3))
    directions = rng.uniform(box.low - 0.2, box.high + 0.2, (300, 3)) - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rays = Rays(origins=torch.from_numpy(origins), directions=torch.from_numpy(directions))
    entry, leave = box.intersect(rays)
    hit = leave > entry
    assert 50 < int(hit.sum()) < 295
    distances = torch.linspace(0, 6, 3001, dtype=torch.float64)
    step = float(distances[1])
    points = rays.origins[:, None] + rays.directions[:, None] * distances[:, None]
    inside = ((points >= box.low) & (points <= box.high)).all(dim=-1)
    # a miss has no sample inside; a hit has exactly those between entry and exit
    assert torch.equal(inside, (distances >= entry[:, None]) & (distances <= leave[:, None]) & hit[:, None])
    for distance in (entry[hit & (entry > 0)], leave[hit]):
        assert float(distance.max()) < 6 - step
    on_surface = rays.at(leave)[hit]
    np.testing.assert_allclose(torch.maximum(on_surface - box.high, box.low - on_surface).amax(dim=-1), 0, atol=1e-12)


def test_box_from_inside_and_along_an_axis() -> None:
    box = Box(low=torch.tensor([0.0, 0.0, 0.0]), high=torch.tensor([1.0, 2.0, 3.0]))
    rays = Rays(
        origins=torch.tensor([[0.5, 0.5, 0.5], [-1.0, 0.5, 0.5], [-1.0, 2.5, 0.5], [2.0, 0.5, 0.5]]),
        directions=torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
    )
    entry, leave = box.intersect(rays)
    assert entry[:2].tolist() == [0.0, 1.0]
    assert leave[:2].tolist() == [2.5, 2.0]
    assert bool((leave[2:] <= entry[2:]).all())
    assert box.padded(0.5).size.tolist() == [2.0, 3.0, 4.0]


def test_a_point_along_a_ray() -> None:
    rays = Rays(origins=torch.tensor([[1.0, 0.0, 0.0]]), directions=torch.tensor([[0.0, 0.6, 0.8]]))
    np.testing.assert_allclose(rays.at(torch.tensor([5.0])), [[1.0, 3.0, 4.0]], atol=1e-6)
