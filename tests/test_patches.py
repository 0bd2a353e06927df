"""Stereo: neighbours and crossings in closed form, patches of a simulated box at its true surface and off it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trimesh

from neuralrecon.capture import read_capture
from neuralrecon.fields import SensorModel
from neuralrecon.ops.march import Samples
from neuralrecon.render import Occupancy
from neuralrecon.scene import ColorRays, Scene, SceneConfig, SurfaceKind
from neuralrecon.scene.neighbours import NONE, neighbours
from neuralrecon.simulate import Material, SimulateConfig, simulate
from neuralrecon.train import FitConfig, fit
from neuralrecon.train.patches import Crossings, Views, compare, is_free, patch_loss


def on_sphere(*azimuths_and_elevations: tuple[float, float]) -> torch.Tensor:
    a, e = torch.tensor(azimuths_and_elevations).deg2rad().unbind(1)
    return torch.stack([a.cos() * e.cos(), a.sin() * e.cos(), e.sin()], 1) * 3 + 0.5


MIDDLE = torch.full((3,), 0.5)


def test_neighbours_on_a_ring_are_those_on_both_sides() -> None:
    ring = on_sphere(*((18.0 * i, 0.0) for i in range(20)))
    for i, pair in enumerate(neighbours(ring, MIDDLE, 2).tolist()):
        assert sorted(pair) == sorted([(i + 1) % 20, (i - 1) % 20])


def test_neighbours_are_neither_too_near_nor_too_far() -> None:
    places = on_sphere((0, 0), (5, 0), (30, 0), (41, 0), (180, 0))
    # from the first: 5 degrees are too near, 41 too far
    assert neighbours(places, MIDDLE, 2)[0].tolist() == [2, NONE]
    assert neighbours(places, MIDDLE, 2)[4].tolist() == [NONE, NONE]


def test_the_second_neighbour_is_on_another_side() -> None:
    # 18 and 20 degrees to the right, 25 above: after 18, above comes before 20
    places = on_sphere((0, 0), (18, 0), (20, 0), (0, 25))
    assert neighbours(places, MIDDLE, 3)[0].tolist() == [1, 3, 2]


def packed(rays: list[list[float]]) -> Samples:
    counts = torch.tensor([0, *(len(r) for r in rays)])
    return Samples(
        t_mids=torch.tensor([t for r in rays for t in r]),
        ray_indices=torch.repeat_interleave(torch.arange(len(rays)), counts[1:]),
        ray_starts=counts.cumsum(0),
    )


def test_crossings_are_where_a_plane_is() -> None:
    # a plane at distance 1.23, met at a slope of 0.8; a ray that misses; one that leaves first; one across a gap
    samples = packed([[1.0, 1.1, 1.2, 1.3, 1.4], [1.0, 1.1], [1.0, 1.1, 1.2, 1.3], [1.0, 1.4], [1.2, 1.3]])
    sdf = torch.tensor([0.8 * (1.23 - t) for t in (1.0, 1.1, 1.2, 1.3, 1.4)] + [0.3, 0.2] + [-0.1, 0.1, -0.1, 0.2])
    sdf = torch.cat([sdf, torch.tensor([0.1, -0.1, 0.3, -0.1])]).requires_grad_()
    gradients = torch.tensor([[0.0, 0.6, -0.8]]).expand(len(sdf), 3) * 1.3
    found = Crossings.find(samples, 4, sdf, gradients, 0.1)
    assert found.ray_indices.tolist() == [0, 2]
    torch.testing.assert_close(found.distances, torch.tensor([1.23, 1.15]), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.normals, torch.tensor([[0.0, 0.6, -0.8]]).expand(2, 3))
    found.distances[0].backward()
    # raising the sdf everywhere by e moves the plane by e / 0.8 along the ray
    assert sdf.grad is not None
    assert float(sdf.grad.sum()) == pytest.approx(1 / 0.8, rel=1e-5)
    assert sdf.grad.nonzero()[:, 0].tolist() == [2, 3]
    assert len(Crossings.find(samples, 0, sdf, gradients, 0.1).distances) == 0


def test_a_ball_hides_what_is_behind_it() -> None:
    grid = (torch.stack(torch.meshgrid(*[torch.arange(64)] * 3, indexing="ij"), -1) + 0.5) / 64
    two = torch.minimum(
        (grid - torch.tensor([0.3, 0.5, 0.5])).norm(dim=-1), (grid - torch.tensor([0.7, 0.5, 0.5])).norm(dim=-1)
    )
    occupancy = Occupancy.from_sdf(two - 0.15, 0.02)
    left_of_first, right_of_first = torch.tensor([0.15, 0.5, 0.5]), torch.tensor([0.45, 0.5, 0.5])
    points = torch.stack([left_of_first, right_of_first, right_of_first])
    sight = torch.tensor([[-1.0, 0, 0], [1, 0, 0], [0.6, 0, 0.8]])
    assert is_free(occupancy, points, sight).tolist() == [True, False, True]


def test_the_loss_is_of_the_better_half_and_fades_where_nothing_agrees() -> None:
    correlation = torch.tensor([[0.9, 0.8, 0.7, 0.1], [1.0, 0.9, 0.0, 0.0], [0.3, 0.5, 0.0, 0.0]]).requires_grad_()
    valid = torch.tensor([[True] * 4, [True, False, False, False], [True, True, False, False]])
    # 0.1 and 0.2 of the first; 0 of the second; the third is capped at 0.4; two of three agree: in full
    loss = patch_loss(correlation, valid, 4)
    assert loss.item() == pytest.approx((0.15 + 0.0 + 0.4) / 3)
    loss.backward()
    assert correlation.grad is not None
    expected = torch.tensor([[-1 / 6, -1 / 6, 0, 0], [-1 / 3, 0, 0, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(correlation.grad, expected)
    # one of two agrees: (1/2 - 0.3) / 0.3 of the weight; none: nothing
    assert patch_loss(correlation[1:], valid[1:], 4).item() == pytest.approx(0.2 * (2 / 3))
    assert patch_loss(correlation[2:], valid[2:], 4).item() == 0
    assert patch_loss(correlation[:0], valid[:0], 4).item() == 0
    # 3 patches of 96 rays count as 3 of 24
    assert patch_loss(correlation, valid, 96).item() == pytest.approx((0.15 + 0.4) / 24)


def recorded(folder: Path, material: Material) -> Scene:
    config = SimulateConfig(
        mesh="box",
        material=material,
        n_stops=10,
        n_width=240,
        np_width=144,
        depth_width=48,
        supersample=1,
        sensor_rotation_deg=0,
        sensor_translation_mm=0,
        focal_percent=0,
    )
    return Scene.from_capture(read_capture(simulate(config, folder)), SceneConfig(hull_resolution=64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("patches")


@pytest.fixture(scope="module")
def matte(folder: Path) -> Scene:
    return recorded(folder / "matte", Material.matte)


def true_crossings(scene: Scene, folder: Path, rays: ColorRays) -> Crossings:
    """Where rays meet the mesh that the capture was made of."""
    mesh = trimesh.load(folder / "gt" / "gt_mesh.ply")
    world_from_unit = scene.unit_from_world.inverse()
    origins = world_from_unit.apply(rays.rays.origins.double()).numpy()
    places, ray, face = mesh.ray.intersects_location(origins, rays.rays.directions.numpy(), multiple_hits=False)
    ray = torch.from_numpy(ray)
    at = scene.unit_from_world.apply(torch.from_numpy(places)).float()
    return Crossings(
        ray_indices=ray,
        distances=(at - rays.rays.origins[ray]).norm(dim=1),
        normals=torch.from_numpy(mesh.face_normals[face]).float(),
    )


def free_air() -> Occupancy:
    """The box is convex: what faces a camera is not hidden."""
    return Occupancy.from_sdf(torch.ones(16, 16, 16), 0.1)


def moved(scene: Scene, rays: ColorRays, crossings: Crossings, inwards_mm: float) -> Crossings:
    """The surface shifted along its normals."""
    facing = -(crossings.normals * rays.rays.directions[crossings.ray_indices]).sum(dim=1).clamp_max(-0.2)
    along = inwards_mm * scene.unit_per_mm / facing
    return Crossings(
        ray_indices=crossings.ray_indices, distances=crossings.distances + along, normals=crossings.normals
    )


def seen(scene: Scene, folder: Path, n_rays: int) -> tuple[Views, ColorRays, Crossings, SensorModel]:
    views = Views.of(scene.pixels, MIDDLE, torch.device("cpu"))
    rays = scene.pixels.draw(n_rays, 0, torch.Generator().manual_seed(0))
    sensors = SensorModel(len(scene.sensor_names), len(scene.stop_names))
    return views, rays, true_crossings(scene, folder, rays), sensors


def test_a_printed_box_agrees_at_its_surface_and_pulls_towards_it(matte: Scene, folder: Path) -> None:
    views, rays, true, sensors = seen(matte, folder / "matte", 1500)
    costs, pulls = {}, {}
    correlation, valid = compare(views, rays, true, sensors, free_air(), refines=False)
    assert valid.sum() > 1000
    assert correlation[valid].median() > 0.85  # noise, JPEG, and print finer than a pixel
    for mm in (-2.0, 0.0, 2.0):
        off = moved(matte, rays, true, mm)
        off.distances.requires_grad_()
        correlation, valid = compare(views, rays, off, sensors, free_air(), refines=False)
        loss = patch_loss(correlation, valid, len(rays.inside))
        (pull,) = torch.autograd.grad(loss, off.distances)
        costs[mm], pulls[mm] = loss.item(), float(pull.sum())
    assert pulls[-2.0] < 0
    assert pulls[2.0] > 0
    # a pixel is 1.2 mm wide there: the parabola's lowest place is good to 0.15 px of parallax at 18 degrees
    lowest = (costs[-2.0] - costs[2.0]) / (costs[-2.0] - 2 * costs[0.0] + costs[2.0])
    assert costs[0.0] < min(costs[-2.0], costs[2.0])
    assert abs(lowest) < 0.6


def test_motion_takes_corrected_rays_back_to_the_given_ones(matte: Scene, folder: Path) -> None:
    views, rays, true, sensors = seen(matte, folder / "matte", 200)
    sensors.set_scales(1e-3, 1e-3, 1e-3, 1e-3)
    sensors.set_stop_scales((0.0, 0.0, 1e-3), 0.0, torch.tensor([0.5, 0.5, 0.1]))
    for parameter in sensors.corrections():
        parameter.data.normal_(generator=torch.Generator().manual_seed(1))
    ray = true.ray_indices
    corrected = sensors.corrected_color(rays).rays
    at = corrected.origins[ray] + corrected.directions[ray] * true.distances[:, None]
    back = at - views.motion(at, rays.images[ray], sensors, refines=False)
    off = torch.linalg.cross(back - rays.rays.origins[ray], rays.rays.directions[ray]).norm(dim=1)
    # what was moved by about 3 thousandths comes back up to the product of two of these, three unit lengths away
    assert (at - rays.rays.at(torch.zeros_like(rays.rays.origins[:, 0]))[ray]).norm(dim=1).min() > 1
    assert off.max() < 5e-5
    assert torch.linalg.cross(at - rays.rays.origins[ray], rays.rays.directions[ray]).norm(dim=1).median() > 1e-3


def test_sensors_get_the_gradient_of_finite_differences(matte: Scene, folder: Path) -> None:
    views, rays, true, sensors = seen(matte, folder / "matte", 1500)
    sensors.set_scales(1e-3, 3e-3, 1e-3, 1e-3)
    sensors.set_stop_scales((0.0, 0.0, 1e-3), 0.0, torch.tensor([0.5, 0.5, 0.1]))
    weights = torch.rand(len(true.distances), 4, generator=torch.Generator().manual_seed(2))

    def agreement() -> torch.Tensor:
        now = sensors.corrected_color(rays)
        correlation, valid = compare(views, now, true, sensors, free_air(), refines=True)
        return (correlation * weights)[valid & everywhere].sum()

    everywhere = compare(views, rays, true, sensors, free_air(), refines=False)[1]
    agreement().backward()
    for parameter, index in (
        (sensors.pose, (0, 1)),
        (sensors.pose, (2, 3)),
        (sensors.lens, (1,)),
        (sensors.stop, (4, 2)),
    ):
        values = []
        for step in (-0.05, 0.05):  # 0.05 of a thousandth: a few hundredths of a pixel
            parameter.data[index] = step
            values.append(float(agreement().detach()))
            parameter.data[index] = 0.0
        assert parameter.grad is not None
        expected = (values[1] - values[0]) / 0.1
        assert float(parameter.grad[index]) == pytest.approx(expected, rel=0.05, abs=0.5)


def test_a_mirror_switches_it_off(folder: Path) -> None:
    scene = recorded(folder / "mirror", Material.mirror)
    views, rays, true, sensors = seen(scene, folder / "mirror", 1500)
    off = {}
    for mm in (-1.0, 0.0, 1.0):
        correlation, valid = compare(views, rays, moved(scene, rays, true, mm), sensors, free_air(), refines=False)
        best = torch.where(valid, correlation, -1).amax(dim=1)
        off[mm] = float((best[valid.any(dim=1)] > 0.6).float().mean()), patch_loss(correlation, valid, 1500).item()
    assert max(loss for _, loss in off.values()) == 0


@pytest.mark.parametrize("kind", [SurfaceKind.matte, SurfaceKind.glossy, SurfaceKind.mirror, SurfaceKind.clear])
@pytest.mark.parametrize("has_depth", [True, False])
def test_they_are_compared_where_photographs_tell_most(matte: Scene, kind: SurfaceKind, has_depth: bool) -> None:
    """On opaque surfaces that mirror nothing, beside depth as without."""
    scene = replace(matte, surface=replace(matte.surface, kind=kind))
    if not has_depth:
        scene = replace(scene, readings=None, start=scene.hull)
    terms: list[set[str]] = []
    small = {"interior_rays": 64, "edge_rays": 16, "depth_rays": 16, "occupancy_resolution": 32}
    fit(scene, FitConfig(steps=2, patches_from=0.5, **small), on_step=lambda _, now: terms.append(set(now)))
    assert "patches" not in terms[0]
    assert ("patches" in terms[1]) == (kind in (SurfaceKind.matte, SurfaceKind.glossy))


def test_patches_are_of_neighbouring_pixels_where_those_are_large(matte: Scene) -> None:
    """Of every other one where twelve of them are less than a twentieth of the cube: all samples lie as far apart."""
    assert matte.pixels is not None
    pixels = matte.pixels
    large = Views.of(pixels, MIDDLE, torch.device("cpu"))
    assert large.spacings.tolist() == [1] * len(pixels.origins)
    finer = pixels.intrinsics.clone()
    finer[::2, :4] *= 16
    mixed = Views.of(replace(pixels, intrinsics=finer), MIDDLE, torch.device("cpu"))
    assert mixed.spacings.tolist() == [2 - i % 2 for i in range(len(pixels.origins))]
    rays = pixels.draw(50, 0, torch.Generator().manual_seed(0))
    for view, spacing in ((large, 1), (replace(large, spacings=torch.full_like(large.spacings, 2)), 2)):
        directions, _, _ = view.own_patches(rays.rays, rays.images)
        in_cam = (directions @ pixels.rotations[rays.images])[..., :2]
        # the simulator's lenses have no distortion to speak of: a pixel is 1 / f
        across = (in_cam[:, 48] - in_cam[:, 0]) * pixels.intrinsics[rays.images, :2]
        torch.testing.assert_close(across, torch.full_like(across, 6.0 * spacing), rtol=0.02, atol=0)
