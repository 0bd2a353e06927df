"""The model: gradients against finite differences, directions against quadrature."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from neuralrecon.errors import ConfigError
from neuralrecon.fields import FieldConfig, SensorModel, SurfaceModel
from neuralrecon.geometry import Rays
from neuralrecon.ops.shading._torch import reflect, spherical_harmonics
from neuralrecon.scene import DepthRays

SMALL = FieldConfig(
    levels=4,
    log2_table_size=10,
    base_resolution=4,
    finest_resolution=32,
    color_levels=3,
    color_log2_table_size=10,
    color_finest_resolution=16,
    hidden=16,
)


def model_of(dtype: torch.dtype) -> SurfaceModel:
    """With tables so large that every level matters."""
    model = SurfaceModel(SMALL, 2, 3, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for table in (model.sdf_table, model.color_table):
            table.copy_(torch.randn(table.shape, generator=generator) * 0.3)
        model.sdf_hidden.bias.copy_(torch.randn(16, generator=generator) * 0.2)
    return model.to(dtype)


def unit_vectors(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("active_levels", [2, None])
def test_the_gradient_is_the_derivative_of_the_sdf(active_levels: int | None) -> None:
    model, h = model_of(torch.float64), 1e-7
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.98 + 0.01
    sdf, gradients = model.surface(points, active_levels)
    assert torch.allclose(model.sdf(points, active_levels), sdf, atol=1e-12)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = h
        difference = (model.sdf(points + step, active_levels) - model.sdf(points - step, active_levels)) / (2 * h)
        # no kink (a cell's face, a ReLU's corner) lies within h of these points; rounding: 1e-16 / h
        assert torch.allclose(gradients[:, axis], difference, atol=1e-7)


def test_fewer_levels_are_another_field() -> None:
    model, points = model_of(torch.float64), torch.rand(50, 3, dtype=torch.float64)
    few, all_levels = model.sdf(points, 2), model.sdf(points)
    assert float((few - all_levels).abs().median()) > 0.01
    with torch.no_grad():
        model.sdf_table[SMALL.sdf_grid.n_entries - 2 * 1024 :] = 0  # the two finest levels
    assert torch.allclose(model.sdf(points), few, atol=1e-12)


def test_single_precision_gives_the_same_field() -> None:
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(3))
    double, single = model_of(torch.float64), model_of(torch.float32)
    sdf, gradients = double.surface(points.double())
    sdf32, gradients32 = single.surface(points)
    assert sdf32.dtype == torch.float32
    assert torch.allclose(
        sdf32.double(), sdf, atol=2e-5
    )  # sums of 16 terms of about 1, weights moved by 1e-7 of a cell
    assert torch.allclose(single.sdf(points).double(), sdf, atol=2e-5)
    # gradients jump at cells' faces and ReLU's corners: a point within rounding of one may take the other side
    same = ((gradients32.double() - gradients).abs() < 1e-3).all(dim=1)
    assert int((~same).sum()) <= 4


def test_colours_lie_in_range_and_turn_with_the_room() -> None:
    """The same surface seen under the same angles, object and camera turned together, looks different: the lights
    stand still. Turned back by the frame's rotation it looks the same."""
    model = model_of(torch.float64)
    generator = torch.Generator().manual_seed(4)
    points = torch.rand(100, 3, generator=generator, dtype=torch.float64)
    normals, directions = unit_vectors(100, 5), unit_vectors(100, 6)
    here = torch.eye(3, dtype=torch.float64).expand(100, 3, 3)
    turn = torch.from_numpy(Rotation.from_euler("z", 70, degrees=True).as_matrix())
    model.requires_grad_(False)
    colors = model.color(points, normals, directions, here)
    assert float(colors.min()) >= 0
    assert float(colors.max()) <= 1
    turned = model.color(points, normals @ turn.T, directions @ turn.T, here)
    assert float((turned - colors).abs().median()) > 0.005
    back = model.color(points, normals @ turn.T, directions @ turn.T, turn.T.expand(100, 3, 3))
    assert torch.allclose(back, colors, atol=1e-12)


def test_colours_that_are_not_mirrored_know_place_and_normal_only() -> None:
    mirrored = model_of(torch.float64)
    plain = SurfaceModel(replace(SMALL, mirrored=False), 2, 3, torch.Generator().manual_seed(0)).double()
    plain.load_state_dict(mirrored.state_dict())
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    normals, first, second = (unit_vectors(100, seed) for seed in (5, 6, 7))
    here = torch.eye(3, dtype=torch.float64).expand(100, 3, 3)
    with torch.no_grad():
        assert torch.equal(plain.color(points, normals, first, here), plain.color(points, normals, second, here))
        with_directions = (mirrored.color(points, normals, d, here) for d in (first, second))
        assert float((next(with_directions) - next(with_directions)).abs().median()) > 0.005
        # the light still falls on normals that the room sees
        turned = plain.color(points, normals[:, [1, 2, 0]], first, here)
        assert float((turned - plain.color(points, normals, first, here)).abs().median()) > 0.005


def test_doubt_is_interpolated_between_the_middles_of_its_cells() -> None:
    """Linear functions come back exactly, up to the outer middles' cube; any others as SciPy interpolates them."""
    model = model_of(torch.float64)
    n = len(model.doubt)
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    generator = torch.Generator().manual_seed(13)
    points = torch.rand(500, 3, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        assert float(model.color_doubt(points).abs().max()) == 0.0  # at first there is none
        model.doubt.copy_(0.3 + 2 * x + 3 * y - z)
        held = points.clamp(0.5 / n, 1 - 0.5 / n)
        expected = 0.3 + 2 * held[:, 0] + 3 * held[:, 1] - held[:, 2]
        assert torch.allclose(model.color_doubt(points), expected, atol=1e-12)
        outside = points + torch.tensor([0.0, 5.0, 0.0])
        beyond = model.color_doubt(outside)
        assert torch.allclose(beyond, 0.3 + 2 * held[:, 0] + 3 * (1 - 0.5 / n) - held[:, 2], atol=1e-12)
        model.doubt.copy_(torch.rand(n, n, n, generator=generator, dtype=torch.float64))
        scipys = map_coordinates(model.doubt.numpy(), points.numpy().T * n - 0.5, order=1, mode="nearest")
        assert np.allclose(model.color_doubt(points).numpy(), scipys, atol=1e-12)


def test_doubt_is_learned_in_the_cells_around_and_not_by_moving_the_points() -> None:
    model, n = model_of(torch.float64), 24
    point = torch.tensor([[0.31, 0.62, 0.47]], dtype=torch.float64, requires_grad=True)
    model.color_doubt(point).sum().backward()
    assert point.grad is None
    assert model.doubt.grad is not None
    touched = model.doubt.grad.nonzero()
    assert len(touched) == 8
    middles = (touched + 0.5) / n
    assert float((middles - point.detach()).abs().max()) < 1 / n
    weights = model.doubt.grad[tuple(touched.T)]
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
    assert torch.allclose((weights[:, None] * middles).sum(0), point.detach()[0], atol=1e-12)


def test_the_spread_of_readings_settles_at_their_weighted_rms() -> None:
    """One a sensor; a sensor without readings, or with less than one that counts, keeps what it had."""
    sensors = SensorModel(4, 1).double()
    generator = torch.Generator().manual_seed(14)
    of = torch.arange(900) % 3
    off = torch.randn(900, generator=generator, dtype=torch.float64) * torch.tensor([0.7, 2.0, 0.01]).double()[of]
    inlier = torch.rand(900, generator=generator, dtype=torch.float64)
    off[inlier < 0.3], inlier[inlier < 0.3] = 50.0, 0.0  # wrong ones that are known to be do not count
    first = sensors.spread_mm.clone()
    sensors.learn_spread(off, inlier, of)
    rms = torch.stack([(inlier * off.square())[of == i].sum() / inlier[of == i].sum() for i in range(3)]).sqrt()
    once = (0.95 * first[:3].square() + 0.05 * rms.square()).sqrt()
    assert torch.allclose(sensors.spread_mm[:3], once, atol=1e-6)
    for _ in range(400):  # 0.95^401 of 3 mm squared is 1e-8
        sensors.learn_spread(off, inlier, of)
    assert torch.allclose(sensors.spread_mm[:2], rms[:2], atol=1e-6)
    assert float(sensors.spread_mm[2]) == pytest.approx(0.4)  # never less: no sensor is that good
    assert float(sensors.spread_mm[3]) == float(first[3])
    before = sensors.spread_mm.clone()
    sensors.learn_spread(off[:3], torch.full((3,), 0.9, dtype=torch.float64), of[:3])
    assert torch.equal(sensors.spread_mm, before)


def test_sensors_have_their_own_gain_and_offset() -> None:
    sensors = SensorModel(2, 1).double()
    colors = torch.rand(6, 3, dtype=torch.float64)
    opacity, numbers = torch.linspace(0, 1, 6, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 0, 1])
    assert torch.equal(sensors.recorded(colors, opacity, numbers), colors)  # at first all alike
    with torch.no_grad():
        sensors.log_gain[1] = torch.tensor([0.1, 0.0, -0.2])
        sensors.offset[1] = torch.tensor([0.0, 0.05, 0.0])
        changed = sensors.recorded(colors, opacity, numbers)
    assert torch.equal(changed[::2], colors[::2])
    expected = colors[1::2] * torch.tensor([0.1, 0.0, -0.2]).double().exp()
    expected[:, 1] += 0.05 * opacity[1::2]
    assert torch.allclose(changed[1::2], expected, atol=1e-8)


def depth_rays(n: int, n_sensors: int) -> DepthRays:
    generator = torch.Generator().manual_seed(9)
    return DepthRays(
        rays=Rays(origins=torch.rand(n, 3, generator=generator, dtype=torch.float64), directions=unit_vectors(n, 10)),
        distances=torch.linspace(0.5, 4, n, dtype=torch.float64),
        inlier=torch.ones(n),
        world_from_cam=torch.from_numpy(
            Rotation.from_rotvec(np.random.default_rng(11).normal(0, 2, (n, 3))).as_matrix()
        ),
        sensors=torch.arange(n) % n_sensors,
        stops=torch.arange(n) % 2,
    )


def test_the_displacement_is_the_derivative_of_the_corrected_readings() -> None:
    """Ends of corrected readings, by central differences in each of a sensor's and a stop's corrections."""
    sensors, readings, h = SensorModel(3, 2).double(), depth_rays(30, 3), 1e-3
    sensors.set_scales(0.002, 0.01, 0.02, 0.001)
    sensors.set_stop_scales((0.001, 0.002, 0.003), 0.005, torch.tensor([0.5, 0.4, 0.1]))
    sensors.double()
    moved = sensors.displacement(readings, readings.distances, reaches=True)
    assert torch.equal(moved.detach(), torch.zeros(30, 3, dtype=torch.float64))

    def ends(entry: torch.Tensor, value: float) -> torch.Tensor:
        with torch.no_grad():
            entry.fill_(value)
            corrected = sensors.corrected_depth(readings)
            entry.zero_()
        return corrected.rays.at(corrected.distances)

    of_one, at_one = readings.sensors == 1, readings.stops == 1
    for axis in range(3):
        for chosen, parameters in ((of_one, [sensors.pose, sensors.reach]), (at_one, [sensors.stop])):
            found = torch.autograd.grad(moved[chosen, axis].sum(), parameters, retain_graph=True)
            for parameter, derivative in zip(parameters, found, strict=True):
                assert float(derivative[0].abs().max()) == 0
                for entry, slope in zip(parameter.data[1].reshape(-1), derivative[1].reshape(-1), strict=True):
                    difference = ((ends(entry, h) - ends(entry, -h)) / (2 * h))[chosen, axis].sum()
                    # third order: (turn * h)^2 = 9e-12, times 4 units and 15 readings
                    assert float(slope) == pytest.approx(float(difference), abs=1e-9)


def test_the_displacement_of_a_longer_lens_is_that_of_its_rays() -> None:
    """Square to the ray: along it the corrected ray keeps its length, the displaced point its depth."""
    sensors, readings, h = SensorModel(3, 2).double(), depth_rays(30, 3), 1e-3
    sensors.set_scales(0.0, 0.0, 0.0, 0.01)
    sensors.double()
    moved = sensors.displacement(readings, readings.distances)

    def ends(value: float) -> torch.Tensor:
        with torch.no_grad():
            sensors.lens[1] = value
            return sensors.corrected_depth(readings).rays.at(readings.distances)

    difference = (ends(h) - ends(-h)) / (2 * h)
    of_one = (readings.sensors == 1).nonzero()[:, 0].tolist()
    for i in of_one:
        slope = torch.stack([torch.autograd.grad(moved[i, k], sensors.lens, retain_graph=True)[0][1] for k in range(3)])
        across = slope - readings.rays.directions[i] * (slope @ readings.rays.directions[i])
        assert float(across.norm()) > 1e-4
        assert torch.allclose(across, difference[i], atol=1e-8)


def test_corrections_move_a_sensor_in_its_own_frame() -> None:
    sensors, readings = SensorModel(3, 2).double(), depth_rays(30, 3)
    unmoved = sensors.corrected_depth(readings)
    assert torch.allclose(unmoved.rays.directions, readings.rays.directions, atol=1e-15)
    assert torch.equal(unmoved.distances, readings.distances)
    sensors.set_scales(0.01, 0.1, 0.5, 0.0)
    sensors.double()
    with torch.no_grad():
        sensors.pose[2] = torch.tensor([0.0, 0.0, 2.0, 0.0, 1.0, 0.0])
        sensors.reach[2] = -0.4
    assert float(sensors.prior().detach()) == pytest.approx(2**2 + 1 + 0.4**2)
    corrected = sensors.corrected_depth(readings)
    of_two = readings.sensors == 2
    assert torch.equal(corrected.rays.origins[~of_two], readings.rays.origins[~of_two])
    shift = 0.1 * readings.world_from_cam[of_two][:, :, 1]
    assert torch.allclose(corrected.rays.origins[of_two] - readings.rays.origins[of_two], shift, atol=1e-12)
    assert torch.allclose(corrected.distances[of_two] - readings.distances[of_two], torch.tensor(-0.2).double())
    turn = Rotation.from_rotvec(0.02 * readings.world_from_cam[of_two][:, :, 2].numpy())
    expected = torch.from_numpy(turn.apply(readings.rays.directions[of_two].numpy()))
    # a turn to first order: off by half the angle's square
    assert torch.allclose(corrected.rays.directions[of_two], expected, atol=0.02**2 / 2)


def test_the_same_generator_makes_the_same_model() -> None:
    first, second, other = (SurfaceModel(SMALL, 2, 3, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.sdf_hidden.weight, other.sdf_hidden.weight)


def test_spherical_harmonics_are_orthonormal() -> None:
    """Integrals of products by Gauss-Legendre in z and even steps around: exact for polynomials of degree 4."""
    z, weights = np.polynomial.legendre.leggauss(8)
    angle = np.arange(16) * 2 * np.pi / 16
    r = np.sqrt(1 - z**2)
    grid = np.stack([np.outer(r, np.cos(angle)), np.outer(r, np.sin(angle)), np.outer(z, np.ones(16))], axis=-1)
    values = spherical_harmonics(torch.from_numpy(grid.reshape(-1, 3)))
    area = torch.from_numpy(np.repeat(weights, 16) * 2 * np.pi / 16)
    products = (values * area[:, None]).T @ values
    assert torch.allclose(products, torch.eye(9, dtype=torch.float64), atol=1e-12)


def test_reflection_turns_the_normal_part_and_keeps_the_rest() -> None:
    directions, normals = unit_vectors(100, 7), unit_vectors(100, 8)
    mirrored = reflect(directions, normals)
    assert torch.allclose(mirrored.norm(dim=1), torch.ones(100, dtype=torch.float64), atol=1e-12)
    assert torch.allclose((mirrored * normals).sum(1), -(directions * normals).sum(1), atol=1e-12)
    assert torch.allclose(torch.linalg.cross(mirrored, normals), torch.linalg.cross(directions, normals), atol=1e-12)
    assert torch.allclose(reflect(mirrored, normals), directions, atol=1e-12)


@pytest.mark.parametrize("settings", [{"levels": 0}, {"color_levels": 25}, {"log2_table_size": 30}])
def test_sizes_that_no_model_has_are_an_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        FieldConfig(**settings)
