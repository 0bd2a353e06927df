"""What depth readings say for and against each other: counts by brute force, made-up scenes in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from neuralrecon.scene.trust import Support, Ways, split

MIDDLE, RADIUS = np.array([0.5, 0.5, 0.5], np.float32), 0.2
UNIT_PER_MM = 0.01  # the cube is 100 mm wide: 50 cells of 2 mm
CELL = 0.02


def directions(n: int, lowest: float = -1.0) -> np.ndarray:
    """A Fibonacci lattice on the part of the sphere above z = `lowest`."""
    i = np.arange(n) + 0.5
    z, phi = 1 - (1 - lowest) * i / n, i * np.pi * (3 - 5**0.5)
    return np.stack([np.sqrt(1 - z * z) * np.cos(phi), np.sqrt(1 - z * z) * np.sin(phi), z], axis=1).astype(np.float32)


def rays_from(origin: np.ndarray, reach: float, spacing: float) -> np.ndarray:
    """Unit directions to a grid of points, `spacing` apart, on the square about the middle of the cube."""
    axis = (MIDDLE - origin) / np.linalg.norm(MIDDLE - origin)
    side = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    steps = np.arange(-reach, reach, spacing) + spacing / 2
    u, v = (x.reshape(-1, 1) for x in np.meshgrid(steps, steps))
    rays = MIDDLE - origin + u * side + v * np.cross(axis, side)
    return (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)


def met_on_sphere(origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rays that meet the sphere, and how far off."""
    along = rays @ (MIDDLE - origin)
    left = along**2 - float((MIDDLE - origin) @ (MIDDLE - origin)) + RADIUS**2
    return rays[left > 0], (along - np.sqrt(np.maximum(left, 0)))[left > 0]


def some_ways(n_images: int, n_points: int) -> list[Ways]:
    rng = np.random.default_rng(1)
    return [
        Ways(
            origin=rng.uniform(-1, 2, 3).astype(np.float32),
            points=rng.uniform(0, 1, (n_points, 3)).astype(np.float32),
        )
        for _ in range(n_images)
    ]


def cells_of(points: np.ndarray, side: int) -> np.ndarray:
    return np.floor(points.astype(np.float64) * side).astype(int)


# -------------------------------------------------------------------------------------------------------- the parts


def test_points_before_a_reading_lie_on_its_way() -> None:
    (way,) = some_ways(1, 20)
    steps = list(way.before(2, 9, 0.03, 3))
    assert len(steps) == 3
    to_reading = way.points - way.origin
    far = np.linalg.norm(to_reading, axis=1)
    for k, points in zip((2, 5, 8), steps, strict=True):
        expected = way.origin + to_reading * ((far - 0.03 * k) / far)[:, None]
        assert np.allclose(points, expected, atol=1e-6)


def test_readings_are_split_by_their_image() -> None:
    """Also where the first, the last and one between have none."""
    frames = torch.tensor([1, 1, 1, 3, 3], dtype=torch.int32)
    points, origins = torch.rand(5, 3), torch.rand(5, 3)
    ways = split(points, frames, origins)
    assert [len(w.points) for w in ways] == [0, 3, 0, 2, 0]
    assert np.array_equal(np.concatenate([w.points for w in ways]), points.numpy())
    assert np.array_equal(np.stack([w.origin for w in ways]), origins.numpy())


def test_images_that_hit_a_cell_or_the_next_are_counted() -> None:
    ways, side = some_ways(4, 15), 10
    support = Support.of(ways, 1 / (2 * side))  # cells of 2 mm
    assert support.side == side
    every = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    expected = sum(
        (np.abs(every - cells_of(way.points, side)).max(axis=-1) <= 1).any(axis=1).astype(int) for way in ways
    )
    assert np.array_equal(support.images.reshape(-1), expected)
    assert len(np.unique(expected)) > 2
    beyond = np.array([[1.0, 0.5, 0.5], [-0.001, 0.5, 0.5], [0.5, 0.5, 7.0]], np.float32)
    assert support.at(beyond).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("unit_per_mm", "side"), [(0.01, 50), (1.0, 8), (1e-3, 192)])
def test_cells_are_two_mm_wide_within_limits(unit_per_mm: float, side: int) -> None:
    assert Support.of(some_ways(1, 1), unit_per_mm).side == side


def test_probabilities_are_those_of_the_formula() -> None:
    """(others + 0.5) / (others + 0.3 against + 1.5), counted one reading and one step at a time."""
    ways, side = some_ways(5, 40), 16
    support = Support.of(ways, 1 / (2 * side))

    def images_at(point: np.ndarray) -> int:
        if not ((point >= 0) & (point < 1)).all():
            return 0
        cell = cells_of(point, side)
        return sum(bool((np.abs(cells_of(w.points, side) - cell).max(axis=1) <= 1).any()) for w in ways)

    for way, found in zip(ways, support.probabilities(ways), strict=True):
        steps = list(way.before(4, 60, 1 / side))
        for i in range(0, 40, 5):
            others = images_at(way.points[i]) - 1
            against = sum(images_at(points[i]) for points in steps)
            assert found[i] == pytest.approx((others + 0.5) / (others + 0.3 * against + 1.5), rel=1e-5)


# ------------------------------------------------------------------------------------------------------ whole scenes


def sphere_ways() -> list[Ways]:
    ways = []
    for d in directions(30):
        origin = MIDDLE + 1.4 * d
        rays, far = met_on_sphere(origin, rays_from(origin, 0.25, 0.012))
        ways.append(Ways(origin=origin, points=origin + rays * far[:, None]))
    return ways


def test_right_readings_from_many_sides_are_believed() -> None:
    """Where a ray is steeper than 45 degrees: from 4 cells before its end on, it passes more than 0.064 over the
    surface, and a reading counts as far as two cells' diagonal, 0.07, in the worst case only. A flatter ray skims
    over right readings and is believed less.
    """
    ways = sphere_ways()
    found = Support.of(ways, UNIT_PER_MM).probabilities(ways)
    cosine = np.concatenate([facing(w) for w in ways])
    believed = np.concatenate(found)
    assert len(believed) > 15_000
    assert believed[cosine > 0.7].min() > 0.8
    assert believed.min() > 0.4
    assert np.mean(believed > 0.5) > 0.995
    assert believed.max() < 1
    means = [believed[(cosine > low) & (cosine <= low + 0.2)].mean() for low in (0.0, 0.2, 0.4, 0.6)]
    assert sorted(means) == means


def facing(way: Ways) -> np.ndarray:
    """Cosine between each ray and the sphere's normal where it ends."""
    rays = way.points - way.origin
    return -((way.points - MIDDLE) / RADIUS * rays).sum(axis=1) / np.linalg.norm(rays, axis=1)


def scattered(rng: np.random.Generator, points: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Anywhere from 1 to 3 radii behind."""
    return points + rays * rng.uniform(RADIUS, 3 * RADIUS, (len(rays), 1)).astype(np.float32)


def on_plane(_: np.random.Generator, points: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Where the ray meets a table 0.05 below the sphere; only rays that do so within the cube."""
    return points + rays * ((0.25 - points[:, 2]) / rays[:, 2])[:, None]


@pytest.mark.parametrize("wrong_points", [scattered, on_plane])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_wrong_readings_are_told_from_right_ones(wrong_points: Callable[..., np.ndarray], share: float) -> None:
    """Through a clear sphere: what lies behind, each elsewhere or all of them on one plane."""
    rng = np.random.default_rng(0)
    ways, is_right = [], []
    for d in directions(30, lowest=0.2):
        origin = MIDDLE + 1.4 * d
        rays, far = met_on_sphere(origin, rays_from(origin, 0.25, 0.012))
        right = origin + rays * far[:, None]
        wrong = wrong_points(rng, right, rays)
        swapped = (rng.random(len(rays)) < share) & ((wrong >= 0) & (wrong < 1)).all(axis=1)
        ways.append(Ways(origin=origin, points=np.where(swapped[:, None], wrong, right)))
        is_right.append(~swapped)
    right, found = np.concatenate(is_right), np.concatenate(Support.of(ways, UNIT_PER_MM).probabilities(ways))
    assert found.min() >= 0
    assert found.max() <= 1
    ranks, n = rankdata(found), int(right.sum())  # Mann and Whitney's statistic is the area under the curve
    area = (ranks[right].sum() - n * (n + 1) / 2) / (n * (len(right) - n))
    assert area > 0.9
    assert np.median(found[right]) > 0.5
    assert np.mean(found[~right] > 0.5) < 0.1


# A cup: wide and deep enough for cells of 2 mm.
OUTER, INNER, FOOT, FLOOR, RIM = 0.35, 0.28, 0.2, 0.3, 0.65


def cylinder(points: np.ndarray, radius: float, low: float, high: float) -> np.ndarray:
    """Signed distance, but for the corners outside, where it is too small."""
    across = np.hypot(points[..., 0] - 0.5, points[..., 1] - 0.5) - radius
    return np.maximum(across, np.abs(points[..., 2] - (low + high) / 2) - (high - low) / 2)


def cup(points: np.ndarray) -> np.ndarray:
    return np.maximum(cylinder(points, OUTER, FOOT, RIM), -cylinder(points, INNER, FLOOR, 2.0))


def test_the_room_in_a_cup_is_told_free_and_nothing_solid() -> None:
    ways = []
    for d in directions(24, lowest=0.6):
        origin = MIDDLE + 1.6 * d
        rays = rays_from(origin, 0.5, 0.012)
        far = np.full(len(rays), 0.9, np.float32)
        for _ in range(120):  # sphere tracing: the distances are never too large
            far += np.minimum(cup(origin + rays * far[:, None]), 0.1)
        points = origin + rays * far[:, None]
        ways.append(Ways(origin=origin, points=points[np.abs(cup(points)) < 1e-3]))
    support = Support.of(ways, UNIT_PER_MM)
    free = support.free(ways, support.probabilities(ways))
    side = support.side
    centers = (np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1) + 0.5) / side
    # a way may graze the rim: the cell's centre is at most half a diagonal beside it
    assert float(cup(centers)[free].min()) > -(3**0.5) / 2 * CELL
    # 5 mm before a reading ways end, at the latest a cell on; readings colour cells up to two off the surface: what
    # lies so far from walls and floor, and is seen past the rim by five cameras, is free
    off = 0.06 + 2 * CELL
    deep = cylinder(centers, INNER - off, FLOOR + off, RIM) < 0
    seen = np.zeros(centers.shape[:3], int)
    for way in ways:
        share = (RIM - centers[..., 2]) / (way.origin[2] - centers[..., 2])
        crossing = centers + (way.origin - centers) * share[..., None]
        seen += np.hypot(crossing[..., 0] - 0.5, crossing[..., 1] - 0.5) < INNER - CELL
    expected = deep & (seen >= 5)
    assert expected.sum() > 500
    assert bool(free[expected].all())
    # and not all that is free: without believed readings none is
    assert not support.free(ways, [np.zeros(len(w.points), np.float32) for w in ways]).any()
