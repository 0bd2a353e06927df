"""Evidence: silhouettes, hull, pixels and readings against closed forms and back-projection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from neuralrecon.capture import SensorKind, read_capture, read_color, read_depth, read_mask
from neuralrecon.errors import ConfigError, EvidenceError
from neuralrecon.geometry import Box, Camera, Rigid, Similarity
from neuralrecon.scene import Scene, SceneConfig, VisualHull
from neuralrecon.scene.distance import signed_distance
from neuralrecon.scene.hull import locate, unit_cube
from neuralrecon.scene.photographs import Photograph, Pixels
from neuralrecon.scene.readings import Readings, on_object, points_of
from neuralrecon.scene.scene import _surface
from neuralrecon.scene.silhouettes import Silhouette
from neuralrecon.scene.surface_kind import DepthSurvey, SurfaceKind

IDENTITY = Rigid.identity()
RADIUS, CENTER = 0.1, torch.tensor([0.3, -0.2, 0.15])


def looking_at(target: torch.Tensor, direction: np.ndarray, distance: float) -> Rigid:
    """cam_from_world of a camera at target - distance * direction with its axis along `direction`."""
    forward = direction / np.linalg.norm(direction)
    side = np.cross(forward, [0.0, 0.0, 1.0] if abs(forward[2]) < 0.9 else [1.0, 0.0, 0.0])
    right = side / np.linalg.norm(side)
    rotation = torch.from_numpy(np.stack([right, np.cross(forward, right), forward]))
    center = target.double() - distance * torch.from_numpy(forward)
    return Rigid(rotation=rotation, translation=-(rotation @ center))


def turned(seed: int) -> torch.Tensor:
    """Some rotation."""
    return torch.from_numpy(Rotation.from_rotvec(np.random.default_rng(seed).normal(0, 2, 3)).as_matrix())


def sphere_mask(camera: Camera, cam_from_world: Rigid) -> np.ndarray:
    """Which pixel centres' rays meet the sphere, by the ray's distance from its centre."""
    v, u = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
    rays = camera.rays(torch.stack([u, v], dim=-1).double() + 0.5)
    rays = rays / rays.norm(dim=-1, keepdim=True)
    center = cam_from_world.apply(CENTER.double())
    return (torch.linalg.cross(rays, center.expand_as(rays)).norm(dim=-1) < RADIUS).numpy()


CAMERA = Camera(width=200, height=190, fx=3000.0, fy=3000.0, cx=97.0, cy=96.0)  # far off: a pixel is 1.7 mm
PIXEL_M = 5 / 3000


def directions(n: int) -> np.ndarray:
    """A Fibonacci lattice on the sphere."""
    i = np.arange(n) + 0.5
    z, phi = 1 - 2 * i / n, i * np.pi * (3 - 5**0.5)
    return np.stack([np.sqrt(1 - z * z) * np.cos(phi), np.sqrt(1 - z * z) * np.sin(phi), z], axis=1)


VIEWS = directions(40)


@pytest.fixture(scope="module")
def silhouettes() -> list[Silhouette]:
    poses = [looking_at(CENTER, d, 5.0) for d in VIEWS]
    return [Silhouette.from_mask(sphere_mask(CAMERA, pose), CAMERA, pose, 6) for pose in poses]


# ---------------------------------------------------------------------------------------------------- silhouettes


@pytest.mark.parametrize(("radius", "stride"), [(60.0, 1), (300.0, 3)])
def test_a_disc_has_the_distances_of_a_circle(radius: float, stride: int) -> None:
    size = int(4 * radius)
    camera = Camera(width=size, height=size + 40, fx=size, fy=size, cx=size / 2, cy=size / 2)
    v, u = np.mgrid[: camera.height, : camera.width] + 0.5
    center = np.array([1.8 * radius, 2.1 * radius])
    silhouette = Silhouette.from_mask(np.hypot(u - center[0], v - center[1]) < radius, camera, IDENTITY, 20)
    assert silhouette.stride == stride
    uv = torch.from_numpy(np.random.default_rng(0).uniform(0, size, (4000, 2)))
    depth = torch.linspace(0.5, 3, 4000, dtype=torch.float64)
    points = torch.cat([(uv - size / 2) / size, torch.ones(4000, 1, dtype=torch.float64)], dim=1) * depth[:, None]
    found, px_per_metre = silhouette.look_up(points.float())
    expected = (uv - torch.from_numpy(center)).norm(dim=1) - radius
    assert torch.allclose(px_per_metre.double(), size / depth, rtol=1e-5)
    near = ((uv - torch.from_numpy(center)).abs() < radius + 18).all(dim=1)
    # rounding to a sample: up to half a diagonal, 0.71 strides; the sample across the outline: up to as much again
    assert (found.double() - expected)[near].abs().max() < 1.42 * stride
    assert abs(float((found.double() - expected)[near].mean())) < 0.15 * stride  # the half sample is on the right side
    beyond = ((uv - torch.from_numpy(center)).abs() > radius + 24).any(dim=1)
    assert found[beyond].min() > 17  # the crop's margin is 20 px wide


def test_what_an_image_does_not_show_is_unknown() -> None:
    camera = Camera(width=20, height=10, fx=10.0, fy=10.0, cx=10.0, cy=5.0)
    silhouette = Silhouette.from_mask(np.pad(np.ones((4, 4), bool), ((3, 3), (8, 8))), camera, IDENTITY, 2)
    points = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.01, 0.0, 1.0], [0.0, -0.51, 1.0], [0.99, 0.0, 1.0]])
    distance, _ = silhouette.look_up(points)
    assert distance[0] < 0  # the middle of the object
    assert distance[1:4].tolist() == [-torch.inf] * 3  # behind, right of and above the picture
    assert distance[4] > 1.5  # in the picture, off the crop, which is 2 px wider than the object


# ----------------------------------------------------------------------------------------------------------- hull


def cube_around(margin: float) -> Similarity:
    return unit_cube(Box(low=CENTER - RADIUS - margin, high=CENTER + RADIUS + margin))


def cells_in_world(cube: Similarity, resolution: int) -> torch.Tensor:
    axis = (torch.arange(resolution) + 0.5) / resolution
    return cube.inverse().apply(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1))


def test_the_hull_of_a_sphere_is_what_its_outlines_leave(silhouettes: list[Silhouette]) -> None:
    cube, resolution = cube_around(0.03), 64
    hull = VisualHull.carve(silhouettes, cube, resolution, 1.0, None)
    away = cells_in_world(cube, resolution) - CENTER
    solid = hull.sdf < 0
    # exact masks, seen to within one pixel, never remove what is solid: a sample is at most 0.71 px beside the point,
    # so that its distance to the outline is below 0.71 + 0.71 - 0.5 px
    assert bool(solid[away.norm(dim=-1) < RADIUS].all())
    # second route: the hull is the intersection of cylinders (cones that narrow by 0.1 / 5). What is left lies within
    # each one, 1 px of tolerance and 1.42 px of sampling wider; 0.5 % for the perspective
    axes = torch.from_numpy(VIEWS).float()
    across = torch.linalg.cross(
        away[..., None, :].expand(*away.shape[:-1], 40, 3), axes.expand(*away.shape[:-1], 40, 3)
    )
    reach = across.norm(dim=-1).amax(dim=-1)
    assert float(reach[solid].max()) < RADIUS * 1.005 + 2.42 * PIXEL_M
    assert bool(solid[reach < RADIUS].all())
    # signed distances, at most: half a cell's diagonal, the tolerance and the sampling, and what the gaps between 40
    # views leave standing (a point of the sphere is at most 12 degrees off the nearest outline: r (1 / cos 12° - 1))
    cell = 1 / (cube.scale * resolution)
    gap = RADIUS * (1 / np.cos(np.radians(12)) - 1)
    error = hull.sdf / cube.scale - (away.norm(dim=-1) - RADIUS)
    assert float(error.max()) < 0.87 * cell
    assert float(error.min()) > -(0.87 * cell + 2.42 * PIXEL_M + gap)
    looked_up = hull.look_up(cube.apply(CENTER + RADIUS * axes))
    assert float(looked_up.abs().max()) / cube.scale < 0.87 * cell + 2.42 * PIXEL_M + gap


def test_coarse_to_fine_carving_settles_as_the_finest_level_would(silhouettes: list[Silhouette]) -> None:
    """Also where a coarse cell's centre lies far off the crops while the cell itself reaches into the object."""
    cube, resolution, tolerance = cube_around(0.15), 64, 1.0
    solid = VisualHull.carve(silhouettes, cube, resolution, tolerance, None).sdf.reshape(-1) < 0
    centers = cells_in_world(cube, resolution).reshape(-1, 3)
    distances = torch.stack([s.look_up(centers)[0] for s in silhouettes])
    farthest, seen = distances.amax(dim=0), (distances > -torch.inf).float().mean(dim=0)
    assert not bool((solid & (farthest > tolerance)).any())
    assert not bool(solid[seen == 0].any())
    lost = ~solid & (farthest <= tolerance) & (seen > 0.25)
    # rounding to a sample moves both centres by up to 0.71 px
    assert not bool((lost & (farthest < tolerance - 1.42)).any())
    assert not bool((lost & ((centers - CENTER).norm(dim=1) < RADIUS)).any())


def test_below_the_table_the_hull_goes_straight_down(silhouettes: list[Silhouette]) -> None:
    """And from a foot's height above it, 5 mm, where cameras see the object at grazing angles only."""
    cube, resolution, floor = cube_around(0.03), 64, 0.12
    free = VisualHull.carve(silhouettes, cube, resolution, 1.0, None).sdf < 0
    with_floor = VisualHull.carve(silhouettes, cube, resolution, 1.0, floor)
    cut = with_floor.sdf < 0
    z = cells_in_world(cube, resolution)[0, 0, :, 2]
    cell = 1 / (cube.scale * resolution)
    above, below = z > floor + 0.005 + cell, z < floor
    assert torch.equal(cut[:, :, above], free[:, :, above])
    foot = free[:, :, (z > floor + 0.005 - cell) & (z < floor + 0.005 + cell)]
    for layer in cut[:, :, below].unbind(2):
        assert bool((layer >= foot.all(dim=2)).all())
        assert bool((layer <= foot.any(dim=2)).all())
    # the unseen underside is no surface: at the cube's lower face the distance is that to the sides
    middle = resolution // 2
    assert float(with_floor.sdf[middle, middle, 0]) / cube.scale < -0.5 * (RADIUS**2 - 0.025**2) ** 0.5


def cube_centers(n: int) -> torch.Tensor:
    axis = (torch.arange(n) + 0.5) / n
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def ball_hull(radius: float, n: int = 64) -> VisualHull:
    """Of a ball in the middle of the unit cube, with the distances that carving gives."""
    solid = ((cube_centers(n) - 0.5).norm(dim=-1) < radius).numpy()
    return VisualHull(sdf=torch.from_numpy(signed_distance(solid) / n).float())


def test_what_is_known_to_be_free_is_taken_off_the_hull() -> None:
    """Half of the cube, told by a coarser grid, leaves half of a ball, whose distances are known where they are exact:
    inside, beside the cut within the ball's section, and on the far side."""
    n, radius = 64, 0.3
    hull = ball_hull(radius, n)
    free = torch.zeros(40, 40, 40, dtype=torch.bool)
    free[20:] = True
    left = hull.without(free)
    away = cube_centers(n) - 0.5
    to_ball, to_cut = away.norm(dim=-1) - radius, away[..., 0]
    half = torch.maximum(to_ball, to_cut)
    assert torch.equal(left.sdf < 0, (hull.sdf < 0) & (to_cut < 0))
    beside = (to_cut > 0) & (away[..., 1:].norm(dim=-1) < radius)
    exact = (half < 0) | beside | ((to_cut < -0.1) & (to_ball > 0))
    assert float((left.sdf - half)[exact].abs().max()) < 0.87 / n  # half a cell's diagonal
    assert float((left.sdf - to_cut)[beside].abs().max()) < 1e-6  # whole cells: nothing is lost
    same = hull.without(torch.zeros_like(free))
    assert torch.allclose(same.sdf, hull.sdf, atol=1e-6)
    assert hull.without(torch.ones_like(free)) is hull  # that nothing is left cannot be


def test_a_single_free_cell_takes_no_more_than_itself() -> None:
    hull, free = ball_hull(0.3), torch.zeros(32, 32, 32, dtype=torch.bool)
    free[16, 14, 17] = True
    taken = ((hull.sdf < 0) & (hull.without(free).sdf >= 0)).nonzero()
    # of 2 x 2 x 2 cells of half the size, all lie 1/4 of a cell off the middle in three directions: (3/4)^3 < 1/2
    assert len(taken) == 0
    free[15:17, 13:15, 16:18] = True
    taken = ((hull.sdf < 0) & (hull.without(free).sdf >= 0)).nonzero()
    assert 0 < len(taken) <= 64
    assert bool((taken >= torch.tensor([30, 26, 32])).all())
    assert bool((taken < torch.tensor([34, 30, 36])).all())


@pytest.mark.parametrize("radius", [0.2, 0.35])
def test_the_area_of_a_ball(radius: float) -> None:
    assert ball_hull(radius).area == pytest.approx(4 * np.pi * radius**2, rel=0.05)


def test_the_area_of_a_box_along_the_axes() -> None:
    """Edges are smoothed by a cell or so: each of the 12 loses less than a cell of its width."""
    solid = np.zeros((128, 128, 128), bool)
    solid[24:104, 14:114, 34:94] = True
    a, b, c = np.array([80, 100, 60]) / 128
    sdf = torch.from_numpy((signed_distance(solid) / 128).astype(np.float32))
    area = 2 * (a * b + b * c + c * a)
    assert area - 4 * (a + b + c) / 128 < VisualHull(sdf=sdf).area < area


def test_the_crust_lies_along_the_surface() -> None:
    crust = ball_hull(0.3).crust(1.0)
    off = (crust - 0.5).norm(dim=1) - 0.3
    assert float(off.abs().max()) < (1 + 0.87) / 64
    # nothing is left open: from every point of the sphere the next one is less than a cell's diagonal away
    gaps = torch.cdist(0.5 + 0.3 * torch.from_numpy(directions(500)).float(), crust).amin(dim=1)
    assert float(gaps.max()) < 3**0.5 / 64


def test_contradicting_silhouettes_are_an_error(silhouettes: list[Silhouette]) -> None:
    pose = looking_at(CENTER, VIEWS[0], 5.0)
    elsewhere = np.zeros((CAMERA.height, CAMERA.width), bool)
    elsewhere[:12, :12] = True
    odd = Silhouette.from_mask(elsewhere, CAMERA, pose, 6)
    with pytest.raises(EvidenceError, match="41 silhouettes is empty"):
        VisualHull.carve([*silhouettes, odd], cube_around(0.03), 64, 1.0, None)
    with pytest.raises(EvidenceError, match="41 silhouettes have no common solid"):
        locate([*silhouettes, odd], 1.0, None)


def test_the_object_is_found_from_its_silhouettes(silhouettes: list[Silhouette]) -> None:
    box = locate(silhouettes, 1.0, None)
    assert bool((box.low < CENTER - RADIUS).all())
    assert bool((box.high > CENTER + RADIUS).all())
    # looser than the hull (see above) by two cells of the last of its grids, which is as wide as the box before it,
    # itself at most 1.3 * sqrt(2) * 2 r wide
    slack = 2.42 * PIXEL_M + RADIUS * (1 / np.cos(np.radians(12)) - 1) + 2.5 * (3.7 * RADIUS / 64)
    assert float((box.high - CENTER - RADIUS).max()) < slack
    assert float((CENTER - RADIUS - box.low).max()) < slack
    cube = unit_cube(Box(low=torch.tensor([1.0, 2.0, 3.0]), high=torch.tensor([1.5, 4.0, 4.0])))
    corners = cube.apply(torch.tensor([[1.0, 2.0, 3.0], [1.5, 4.0, 4.0]]))
    expected = torch.tensor([[0.375, 0.0, 0.25], [0.625, 1.0, 0.75]])
    assert torch.allclose(corners, expected, atol=1e-6)


def test_resolution_must_be_divisible() -> None:
    with pytest.raises(ConfigError, match="hull_resolution must be 16, 32"):
        SceneConfig(hull_resolution=96)
    with pytest.raises(ConfigError, match="hold_out_every"):
        SceneConfig(hold_out_every=1)


# --------------------------------------------------------------------------------------------------------- pixels


def coded_photographs() -> tuple[list[Photograph], Similarity]:
    """Pictures whose red and green are the pixel's column and row, and blue the picture's number."""
    rng = np.random.default_rng(3)
    photographs = []
    for i in range(3):
        camera = Camera(
            width=180 + i, height=150, fx=210.0, fy=205.0 + i, cx=88.0, cy=77.0,
            distortion=(-0.05 * i, 0.06, 1e-3, -8e-4, 0.01),
        )  # fmt: skip
        v, u = np.mgrid[: camera.height, : camera.width]
        mask = np.hypot(u - 80 - 9 * i, v - 70) < 40
        pose = Rigid(
            rotation=turned(i),
            translation=torch.from_numpy(rng.normal(0, 0.5, 3)),
        )
        photographs.append(
            Photograph.cropped(
                np.stack([u, v, np.full_like(u, i)], axis=-1).astype(np.uint8),
                mask,
                9,
                name=f"{i}.jpg",
                camera=camera,
                cam_from_world=pose,
                rig_from_world=turned(10 + i),
                sensor=2 - i,
                stop=i,
            )
        )
    return photographs, Similarity(scale=4.2, translation=torch.tensor([0.4, -0.1, 0.7]))


def test_a_drawn_ray_goes_through_the_pixel_whose_colour_it_has() -> None:
    photographs, unit_from_world = coded_photographs()
    pixels = Pixels.gather(photographs, unit_from_world, 5)
    batch = pixels.draw(900, 300, torch.Generator().manual_seed(0))
    assert len(batch.colors) == 1200
    assert torch.allclose(batch.rays.directions.norm(dim=1), torch.ones(1200), atol=1e-6)
    points = unit_from_world.inverse().apply(batch.rays.at(torch.linspace(0.5, 9, 1200)))
    codes = (batch.colors * 255).round().long()
    assert torch.equal(codes[:, 2], batch.images)
    assert set(batch.images.tolist()) == {0, 1, 2}
    for i, photograph in enumerate(photographs):
        of_image = batch.images == i
        in_cam = photograph.cam_from_world.apply(points[of_image].double())
        assert bool((in_cam[:, 2] > 0).all())
        # float32 directions and points: 1e-7 relative, a few hundred pixels, some tenfold growth on the way
        assert torch.allclose(photograph.camera.project(in_cam), codes[of_image, :2].double() + 0.5, atol=2e-3)
        u, v = codes[of_image, 0].numpy(), codes[of_image, 1].numpy()
        inside = np.hypot(u - 80 - 9 * i, v - 70) < 40
        assert np.array_equal(batch.inside[of_image].numpy(), inside)
        assert bool((batch.sensors[of_image] == photograph.sensor).all())
        assert torch.allclose(batch.rig_from_world[of_image], photograph.rig_from_world.float())
        assert torch.allclose(batch.world_from_cam[of_image], photograph.cam_from_world.rotation.mT.float())


def test_interior_rays_lie_inside_and_edge_rays_along_the_outline() -> None:
    photographs, unit_from_world = coded_photographs()
    pixels, edge_px = Pixels.gather(photographs, unit_from_world, 5), 5
    batch = pixels.draw(2000, 2000, torch.Generator().manual_seed(1))
    assert bool(batch.inside[:2000].all())
    codes = (batch.colors[2000:] * 255).round()
    off = (codes[:, 0] - 80 - 9 * codes[:, 2]).hypot(codes[:, 1] - 70) - 40
    # growing by crosses reaches 5 px along the axes and 5 / sqrt(2) px across them
    assert float(off.abs().max()) <= edge_px + 1
    assert 0.4 < float((off < 0).float().mean()) < 0.6
    assert off.unique().numel() > 100


def test_the_same_generator_draws_the_same_rays_and_a_span_is_one_crop() -> None:
    photographs, unit_from_world = coded_photographs()
    pixels = Pixels.gather(photographs, unit_from_world, 5)
    first, second = (pixels.draw(50, 20, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first.rays.directions, second.rays.directions)
    of_second = pixels.rays(torch.arange(int(pixels.starts[1]), int(pixels.starts[2])))
    seen = (of_second.colors * 255).round().to(torch.uint8)
    assert np.array_equal(seen.numpy(), photographs[1].rgb.reshape(-1, 3))


# ---------------------------------------------------------------------------------------------------------- depth


@pytest.mark.parametrize("distortion", [(0.0,) * 5, (-0.04, 0.05, 5e-4, -3e-4, 0.01)])
def test_readings_project_back_to_their_pixels(distortion: tuple[float, float, float, float, float]) -> None:
    camera = Camera(width=40, height=30, fx=36.0, fy=35.0, cx=20.3, cy=14.6, distortion=distortion)
    rng = np.random.default_rng(5)
    depth = (rng.uniform(0.4, 1.5, (30, 40)) * (rng.random((30, 40)) > 0.3)).astype(np.float32)
    pose = Rigid(rotation=turned(6), translation=torch.randn(3).double())
    points = points_of(depth, camera, pose)
    assert len(points) == (depth > 0).sum()
    in_cam = pose.apply(points)
    v, u = np.nonzero(depth)
    assert torch.allclose(camera.project(in_cam), torch.from_numpy(np.stack([u, v], 1) + 0.5), atol=1e-6)
    assert np.allclose(in_cam[:, 2].numpy(), depth[v, u], rtol=1e-12)


def test_rays_of_readings_end_at_their_points() -> None:
    unit_from_world = Similarity(scale=3.0, translation=torch.tensor([0.5, 0.5, 0.2]))
    poses = [looking_at(CENTER, VIEWS[i], 0.9) for i in (3, 20)]
    points = [torch.rand(30, 3).double() * 0.1, torch.rand(50, 3).double() * 0.1 + 0.2]
    readings = Readings.gather(points, poses, [4, 1], [7, 3], unit_from_world, 1e-3)
    drawn = readings.draw(400, torch.Generator().manual_seed(2))
    ends = drawn.rays.at(drawn.distances)
    gaps = (ends[:, None] - unit_from_world.apply(torch.cat(points)).float()).norm(dim=2)
    nearest = gaps.argmin(dim=1)
    assert float(gaps.amin(dim=1).max()) < 1e-5
    assert len(nearest.unique()) > 70  # all readings have the same chance: 400 draws miss one of 80 with p = 0.007
    centers = torch.stack([CENTER.double() - 0.9 * torch.from_numpy(VIEWS[i]) for i in (3, 20)])
    expected = unit_from_world.apply(centers)[(nearest >= 30).long()].float()
    assert torch.allclose(drawn.rays.origins, expected, atol=1e-5)
    assert torch.equal(drawn.sensors, torch.where(nearest >= 30, 1, 4))
    axes = torch.from_numpy(VIEWS[[3, 20]]).float()[(nearest >= 30).long()]
    assert torch.allclose(drawn.world_from_cam[:, :, 2], axes, atol=1e-6)


def test_readings_of_the_table_and_of_the_room_are_left_out(silhouettes: list[Silhouette]) -> None:
    cube = cube_around(0.03)
    hull = VisualHull.carve(silhouettes, cube, 64, 1.0, None)
    axes = torch.from_numpy(directions(200))
    floor = float(CENTER[2]) - RADIUS + 0.003
    table = torch.cat([CENTER[:2] + 0.12 * axes[:, :2], torch.full((200, 1), floor - 0.003)], dim=1)

    def kept(points: torch.Tensor) -> torch.Tensor:
        return on_object(points, hull, cube, 0.004, floor)

    surface = CENTER.double() + RADIUS * axes
    assert torch.equal(kept(surface), surface[:, 2] > floor)
    assert not bool(kept(table).any())
    # the hull is looser than the sphere by at most 10 mm (see above), and 4 mm are allowed
    assert not bool(kept(CENTER + (RADIUS + 0.015) * axes).any())
    assert not bool(kept(CENTER + 5 * axes).any())
    inside = CENTER.double() + 0.5 * RADIUS * axes
    assert bool(kept(inside).all())


# -------------------------------------------------------------------------------------------------- a whole scene


@pytest.fixture(scope="module")
def small(sphere_folder: Path) -> Scene:
    return Scene.from_capture(read_capture(sphere_folder), SceneConfig(hull_resolution=64, hold_out_every=4))


def test_a_scene_keeps_what_the_crops_need(small: Scene, sphere_folder: Path) -> None:
    capture = read_capture(sphere_folder)
    images = capture.images_of(SensorKind.color)
    masks = [read_mask(capture, image) for image in images]
    n_all = sum(mask.size for mask in masks)
    expected = 0
    for i, mask in enumerate(masks):
        if i % 4 != 3:
            v, u = np.nonzero(mask)
            bottom, right = min(mask.shape[0], v.max() + 9), min(mask.shape[1], u.max() + 9)
            expected += (bottom - max(0, v.min() - 8)) * (right - max(0, u.min() - 8))
    assert small.pixels is not None
    assert int(small.pixels.starts[-1]) == expected
    assert expected < 0.4 * n_all
    assert small.pixels.rgb.dtype == torch.uint8
    picture = read_color(capture, images[0])
    width = int(small.pixels.corners[0, 2])
    u0, v0 = small.pixels.corners[0, :2].tolist()
    first = small.pixels.rgb[: int(small.pixels.starts[1])].reshape(-1, width, 3).numpy()
    assert np.array_equal(first, picture[v0 : v0 + first.shape[0], u0 : u0 + width])


def test_held_out_photographs_are_never_drawn(small: Scene, sphere_folder: Path) -> None:
    capture = read_capture(sphere_folder)
    images = capture.images_of(SensorKind.color)
    assert [p.name for p in small.held_out] == [image.path.name for image in images[3::4]]
    assert small.pixels is not None
    batch = small.pixels.draw(5000, 5000, torch.Generator().manual_seed(0))
    centers = torch.stack([p.cam_from_world.inverse().translation for p in small.held_out])
    gaps = (batch.rays.origins.unique(dim=0)[:, None] - small.unit_from_world.apply(centers).float()).norm(dim=2)
    assert float(gaps.min()) > 0.01  # the cameras stand 80 mm apart or more: half a unit
    assert len(batch.images.unique()) == len(images) - len(small.held_out)


def test_readings_of_a_scene_lie_on_the_object(small: Scene, sphere_folder: Path) -> None:
    """Depth noise is 1.0 mm RMS at 0.8 m, steps included; the hull lets through what is up to 4 mm off it."""
    assert small.readings is not None
    points = small.unit_from_world.inverse().apply(small.readings.points)
    off = (points - torch.tensor([0.006, -0.004, 0.05])).norm(dim=1) - 0.05
    assert float(off.abs().median()) < 0.0015
    assert float((off.abs() < 0.006).float().mean()) > 0.9  # the rest flies at the edges, where the hull ends
    assert float(points[:, 2].min()) > 0.003
    capture = read_capture(sphere_folder)
    n_on_sphere = 0
    for image in capture.images_of(SensorKind.depth):
        camera, pose = capture.sensor(image.sensor).camera, capture.sensor_from_world(image)
        found = points_of(read_depth(capture, image), camera, pose)
        away = (found - torch.tensor([0.006, -0.004, 0.05])).norm(dim=1) - 0.05
        n_on_sphere += int(((away.abs() < 0.002) & (found[:, 2] > 0.004)).sum())
    assert len(points) >= n_on_sphere  # nothing that is on the object is thrown away
    assert len(points) < 1.5 * n_on_sphere


def test_the_scene_holds_the_object(small: Scene) -> None:
    center = torch.tensor([0.006, -0.004, 0.05])
    assert bool((small.box.low < center - 0.05 + 1e-4).all())
    assert bool((small.box.high > center + 0.05 - 1e-4).all())
    assert small.floor_m == 0.0
    corners = small.unit_from_world.apply(torch.stack([small.box.low, small.box.high]))
    margin = 0.01 * small.unit_from_world.scale  # SceneConfig.margin_mm
    assert float(corners.min()) == pytest.approx(margin, abs=1e-5)
    assert float(corners.max()) == pytest.approx(1 - margin, abs=1e-5)
    above = torch.from_numpy(directions(300)).float()
    above = above[above[:, 2] > -0.9]
    on_sphere = small.hull.look_up(small.unit_from_world.apply(center + 0.05 * above))
    assert float(on_sphere.max()) < 0.87 / 64  # no part of the sphere is further out than half a cell's diagonal


def test_free_cells_are_known_near_the_hull_only(small: Scene) -> None:
    """Of a grid that is free all over: those whose middles lie less than 6 mm off the hull, or in it."""
    assert small.readings is not None
    n = 32
    all_free = replace(small, readings=replace(small.readings, free=torch.ones(n, n, n, dtype=torch.bool)))
    found = all_free.known_free(6.0)
    centers = cube_centers(n).reshape(-1, 3)
    expected = centers[small.hull.look_up(centers) < 6.0 * small.unit_per_mm]
    assert torch.allclose(found, expected)
    assert 0 < len(found) < n**3
    assert len(replace(small, readings=None).known_free(6.0)) == 0


def test_a_matte_ball_is_told_to_be_matte_and_keeps_its_start(small: Scene) -> None:
    """Few coarse silhouettes leave a hull up to 15 mm wide of the ball: 1 - (50 / 65)^2 = 0.41 of its picture is beside
    the ball, where nothing is read, or the table."""
    assert small.surface.kind == SurfaceKind.matte
    survey = small.surface.survey
    assert survey is not None
    assert survey.bad < 0.5
    assert survey.pixels > 500
    assert small.readings is not None
    assert float(small.readings.inlier.median()) > 0.7
    # a ball has no hollow: what depth takes off is only what the few silhouettes leave standing around it
    lost = (small.hull.sdf < 0) & (small.start.sdf >= 0)
    in_world = small.unit_from_world.inverse().apply((lost.nonzero() + 0.5) / 64)
    off = (in_world - torch.tensor([0.006, -0.004, 0.05])).norm(dim=1) - 0.05
    assert not bool((off < -0.001).any())


def test_a_kind_that_is_given_is_not_judged(small: Scene) -> None:
    survey = DepthSurvey(pixels=1000, missing=900)
    given = _surface(SurfaceKind.mirror, small.pixels, small.readings, small.hull, survey)
    assert (given.kind, given.reason, given.survey) == (SurfaceKind.mirror, "as set", survey)
    found = _surface(SurfaceKind.auto, small.pixels, None, small.hull, survey)
    assert found.kind == SurfaceKind.clear
    assert "90 % of the depth" in found.reason


def test_without_masks_and_masked_depth_there_is_no_scene(sphere_folder: Path) -> None:
    capture = read_capture(sphere_folder)
    blind = replace(capture, images=tuple(replace(image, mask_path=None) for image in capture.images))
    with pytest.raises(EvidenceError, match="no image has a mask"):
        Scene.from_capture(blind)
