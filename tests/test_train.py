"""The fit: schedules and losses in closed form, the same model from the same seed, with or without a stop between."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from neuralrecon.capture import read_capture
from neuralrecon.errors import ConfigError, FitError
from neuralrecon.fields import FieldConfig, SensorModel, SurfaceModel
from neuralrecon.geometry import Box, Rays
from neuralrecon.render import Occupancy, free_room
from neuralrecon.scene import DepthRays, Scene, SceneConfig, SurfaceKind, VisualHull
from neuralrecon.train import Fit, FitConfig, fit, load_fit, losses, save_fit
from neuralrecon.train import start as start_module
from neuralrecon.train.batches import Batches
from neuralrecon.train.depth_probes import DepthProbes, posterior
from neuralrecon.train.emphasis import emphasised
from neuralrecon.train.optimizer import Optimizer
from neuralrecon.train.questions import Questions, Unseen
from neuralrecon.train.schedule import Moment, active_levels, geometric, learning_rate
from neuralrecon.train.start import first_occupancy

TINY = FitConfig(
    field=FieldConfig(
        levels=4,
        log2_table_size=12,
        base_resolution=8,
        finest_resolution=64,
        color_levels=3,
        color_log2_table_size=12,
        color_finest_resolution=64,
        hidden=16,
    ),
    steps=20,
    interior_rays=96,
    edge_rays=48,
    depth_rays=128,
    first_levels=2,
    occupancy_resolution=32,
    checkpoint_every=10,
)


class Stopped(Exception):
    """Stands for Ctrl-C, a full disk, a lost machine."""


@pytest.fixture(scope="module")
def scene(sphere_folder: Path) -> Scene:
    """Its hull as tight as many silhouettes would make it: that of so few and coarse ones is 15 mm wide of the ball, so
    that it covers all readings.
    """
    found = Scene.from_capture(read_capture(sphere_folder), SceneConfig(hull_resolution=64))
    axis = (torch.arange(64) + 0.5) / 64
    centers = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    middle = found.unit_from_world.apply(torch.tensor([0.006, -0.004, 0.05]))
    tight = VisualHull(sdf=(centers - middle).norm(dim=-1) - 0.05 * found.unit_from_world.scale)
    return replace(found, hull=tight, start=tight)


@pytest.fixture(scope="module")
def whole(scene: Scene) -> Fit:
    return fit(scene, TINY, seed=3)


def stop_at(last: int) -> Callable[[int, dict[str, float]], None]:
    def on_step(step: int, _: dict[str, float]) -> None:
        if step == last:
            raise Stopped

    return on_step


def assert_same(a: Fit, b: Fit) -> None:
    """Bit for bit, model and occupancy."""
    ours, theirs = a.model.state_dict(), b.model.state_dict()
    assert list(ours) == list(theirs)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert torch.equal(a.occupancy.cells, b.occupancy.cells)
    assert torch.equal(a.occupancy.sdf, b.occupancy.sdf)
    assert (a.step, a.blur, a.config) == (b.step, b.blur, b.config)


# ------------------------------------------------------------------------------------------------------- schedules


def test_schedules_at_their_ends() -> None:
    assert geometric(2.0, 0.5, 0.0) == 2.0
    assert geometric(2.0, 0.5, 0.5) == pytest.approx(1.0)
    assert geometric(2.0, 0.5, 1.0) == pytest.approx(0.5)
    assert geometric(2.0, 0.5, 7.0) == pytest.approx(0.5)  # held
    assert learning_rate(0.0, 0.02, 0.05) == 0.0
    assert learning_rate(0.01, 0.02, 0.05) == pytest.approx(0.5)
    assert learning_rate(0.02, 0.02, 0.05) == pytest.approx(1.0)
    assert learning_rate(0.51, 0.02, 0.05) == pytest.approx(0.525)  # half way down the cosine
    assert learning_rate(1.0, 0.02, 0.05) == pytest.approx(0.05)
    assert active_levels(0.0, 4, 12, 0.5) == 4
    assert active_levels(0.5, 4, 12, 0.5) == active_levels(1.0, 4, 12, 0.5) == 12
    opened = [active_levels(p, 4, 12, 0.5) for p in np.linspace(0, 1, 500)]
    assert sorted(set(opened)) == list(range(4, 13))
    assert opened == sorted(opened)
    counts = [opened.count(n) for n in range(4, 12)]
    assert max(counts) - min(counts) <= 1  # at even times


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "steps"),
        ({"blur_start_mm": 0.1, "blur_end_mm": 0.2}, "blur_end_mm"),
        ({"all_levels_from": 0.0}, "all_levels_from"),
        ({"first_levels": 13}, "first_levels must be 1 to 12"),
        ({"occupancy_resolution": 8}, "occupancy_resolution"),
        ({"silhouette_robustness": 1.5}, "silhouette_robustness"),
    ],
)
def test_settings_that_no_fit_has_are_an_error(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        FitConfig(**change)


# ---------------------------------------------------------------------------------------------------------- losses


def test_color_loss_is_hubers_over_the_silhouette() -> None:
    """Of colours at the rays' own opacity: covering more of the silhouette must not pay."""
    recorded, opacity = torch.full((5, 3), 0.8), torch.tensor([1.0, 0.5, 1.0, 1.0, 0.0])
    rendered = torch.tensor([[0.85] * 3, [0.9] * 3, [9.0] * 3, [0.8] * 3, [0.0] * 3])
    inside = torch.tensor([True, True, False, True, True])
    # 0.5 d^2 / delta up to delta = 0.1, d - delta / 2 beyond it
    expected = (0.5 * 0.05**2 / 0.1 + 0.5 - 0.05 + 0.0 + 0.0) / 4
    errors = losses.color_errors(rendered, opacity, recorded)
    assert float(losses.color_loss(errors, inside)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.color_loss(errors, torch.zeros(5, dtype=torch.bool))) == 0.0


def test_doubt_settles_where_errors_are_as_usual() -> None:
    """The best doubt of an error is the logarithm of how many times the usual one it is; the error learns nothing."""
    errors, inside = torch.tensor([0.08, 0.01, 0.3], requires_grad=True), torch.ones(3, dtype=torch.bool)
    doubt = torch.zeros(3, requires_grad=True)
    for _ in range(4000):
        (gradient,) = torch.autograd.grad(losses.doubt_loss(errors, doubt, inside), doubt)
        doubt = (doubt - 20 * gradient).clamp_min(0).detach().requires_grad_()
    assert doubt.detach().numpy() == pytest.approx(np.log([8.0, 1.0, 30.0]), abs=1e-3)
    losses.doubt_loss(errors, doubt, inside).backward()
    assert errors.grad is None


def test_silhouette_loss_is_the_cross_entropy_of_what_is_not_opaque_enough() -> None:
    opacity, inside = torch.tensor([0.8, 0.2, 0.0, 0.95]), torch.tensor([True, False, False, True])
    expected = -(math.log(0.8) + math.log(0.8) + math.log(0.999)) / 4
    assert float(losses.silhouette_loss(opacity, inside)) == pytest.approx(expected, rel=1e-5)
    certain_and_wrong = losses.silhouette_loss(torch.tensor([0.0]), torch.tensor([True]))
    assert float(certain_and_wrong) == pytest.approx(math.log(1000), rel=1e-4)


def test_the_robust_silhouette_loss_bounds_what_a_wrong_pixel_costs_and_how_it_pulls() -> None:
    """(1 - p^q) / q of the label's probability p, by hand; its gradient is the cross entropy's times p^q."""
    inside = torch.tensor([True, False, True])
    plain, robust = (torch.tensor([0.8, 0.2, 0.05], dtype=torch.float64, requires_grad=True) for _ in range(2))
    agreement = torch.tensor([0.8, 0.8, 0.05], dtype=torch.float64)
    cost = losses.silhouette_loss(robust, inside, 0.4)
    assert float(cost.detach()) == pytest.approx(float(((1 - agreement**0.4) / 0.4).mean()), rel=1e-12)
    cost.backward()
    losses.silhouette_loss(plain, inside).backward()
    assert plain.grad is not None
    assert robust.grad is not None
    assert robust.grad.numpy() == pytest.approx((plain.grad * agreement**0.4).numpy(), rel=1e-12)


def test_only_masks_that_were_found_count_less_where_all_others_contradict_them(scene: Scene) -> None:
    config = FitConfig()
    assert emphasised(config, scene).silhouette_robustness == 0
    found = emphasised(config, replace(scene, masks_are_found=True))
    assert found.silhouette_robustness == config.silhouette_robustness > 0


def test_eikonal_and_smoothness_losses() -> None:
    gradients = torch.tensor([[0.0, 0.0, 1.0], [3.0, 0.0, 4.0]])
    assert float(losses.eikonal_loss(gradients)) == pytest.approx((0 + 16) / 2)
    beside = torch.tensor([[0.0, 1.0, 0.0], [3.0, 0.0, 4.0]])
    assert float(losses.bending_loss(gradients, beside)) == pytest.approx(2 / 2)
    assert float(losses.straight_down_loss(gradients)) == pytest.approx((1 + 16) / 2)
    # of four points: deeper than before; risen by 0.5; risen, but still deeper than the 2 mm that are enough; out
    sdf, last = torch.tensor([-5.0, -0.5, -2.5, 1.0]), torch.tensor([-4.0, -1.0, -9.0, -9.0])
    assert float(losses.deep_inside_loss(sdf, last, 2.0)) == pytest.approx((0 + 0.5 + 0 + 3.0) / 4)


def test_depth_losses() -> None:
    before, facing = torch.tensor([2.0, -1.0, 1.0]), torch.tensor([1.0, 0.5, 1.0])
    # a plane seen under a cosine: the sdf is how far before it, times that; nothing to lose
    ones = torch.ones(3)
    assert float(losses.truncated_sdf_loss(before * facing, before, facing, ones, ones)) == 0.0
    off = before * facing + torch.tensor([0.5, -3.0, 100.0])
    inlier = torch.tensor([1.0, 0.5, 0.0])
    # 0.5 d^2 up to 1 mm, then d - 0.5; weighted, over the sum of weights
    expected = (0.125 * 1 + 2.5 * 0.5) / 1.5
    assert float(losses.truncated_sdf_loss(off, before, facing, inlier, ones)) == pytest.approx(expected, rel=1e-5)
    # an inexact sensor's readings count less, and the others do not make up for it
    exact = torch.tensor([1.0, 0.2, 1.0])
    expected = (0.125 * 1 + 0.2 * 2.5 * 0.5) / 1.5
    assert float(losses.truncated_sdf_loss(off, before, facing, inlier, exact)) == pytest.approx(expected, rel=1e-5)
    sdf = torch.tensor([5.0, 0.25, -1.0, -1.0])
    inlier = torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert float(losses.free_space_loss(sdf, 1.0, inlier)) == pytest.approx((0 + 0.75 + 2.0 + 0) / 4)
    assert float(losses.known_free_loss(sdf, 2.0)) == pytest.approx((0 + 1.75 + 3.0 + 3.0) / 4)


# ----------------------------------------------------------------------------------------- readings that may be wrong


def test_the_posterior_is_prior_odds_times_the_likelihood_ratio() -> None:
    """Normal about the surface, against even over 50 mm."""
    generator = torch.Generator().manual_seed(0)
    prior, off, spread = (torch.rand(200, generator=generator, dtype=torch.float64) for _ in range(3))
    off, spread = off * 12 - 6, spread * 5 + 0.4
    found = posterior(prior, off, spread)
    likelihood = torch.distributions.Normal(0.0, spread).log_prob(off).exp()
    odds = prior / (1 - prior) * likelihood * 50
    assert torch.allclose(found, odds / (1 + odds), atol=1e-9)
    # the bend: right and wrong are as likely where the two densities are as high
    wide, even = torch.full((1,), 2.0, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64)
    corner = wide * (2 * torch.log(50 / (wide * math.sqrt(2 * math.pi)))).sqrt()
    assert float(posterior(even, corner, wide)) == pytest.approx(0.5, abs=1e-9)


def test_the_posterior_at_its_limits() -> None:
    off, spread = torch.tensor([0.0, 3.0, 40.0, 1e4]), torch.full((4,), 1.0)
    assert torch.equal(posterior(torch.zeros(4), off, spread), torch.zeros(4))  # known to be wrong
    sure = posterior(torch.ones(4), off, spread)
    assert sure[:2].tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    assert sure[2:].tolist() == [0.0, 0.0]  # and no 0 / 0
    found = posterior(torch.full((4,), 0.5), off, spread)
    assert float(found[0]) == pytest.approx(1 / (1 + math.sqrt(2 * math.pi) / 50), rel=1e-6)
    assert found.tolist() == sorted(found.tolist(), reverse=True)
    # a spread over all the room: being on the surface says nothing for it
    flat = posterior(torch.full((1,), 0.3), torch.zeros(1), torch.full((1,), 50 / math.sqrt(2 * math.pi)))
    assert float(flat) == pytest.approx(0.3, rel=1e-5)


LOW, HIGH = 0.36, 0.5  # a slab across the whole cube
ROOM, TRUNCATION, UNIT_PER_MM = 0.3, 0.04, 0.01


def slab(points: Tensor) -> Tensor:
    return (points[..., 2] - (LOW + HIGH) / 2).abs() - (HIGH - LOW) / 2


def occupancy_of_slab(size: int = 50) -> Occupancy:
    """Cells whose middles lie on the slab's, so that interpolation is exact."""
    axis = (torch.arange(size) + 0.5) / size
    return Occupancy.from_sdf(slab(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)), 0.02)


def readings_at(heights: Tensor, tilt_deg: float, inlier: float = 1.0) -> DepthRays:
    """Seen from above the cube, all under one angle."""
    n, tilt = len(heights), math.radians(tilt_deg)
    rays = torch.tensor([math.sin(tilt), 0.0, -math.cos(tilt)]).expand(n, 3)
    ends = torch.stack([torch.full((n,), 0.5), torch.linspace(0.3, 0.7, n), heights], dim=1)
    return DepthRays(
        rays=Rays(origins=ends - 1.5 * rays, directions=rays),
        distances=torch.full((n,), 1.5),
        inlier=torch.full((n,), inlier),
        world_from_cam=torch.eye(3).expand(n, 3, 3),
        sensors=torch.zeros(n, dtype=torch.long),
        stops=torch.zeros(n, dtype=torch.long),
    )


def probes_at(readings: DepthRays) -> DepthProbes:
    generator = torch.Generator().manual_seed(1)
    return DepthProbes.place(readings, occupancy_of_slab(), TRUNCATION, 0.0075, ROOM, generator)


@pytest.mark.parametrize("tilt_deg", [0.0, 40.0])
def test_a_reading_is_covered_as_deep_as_its_way_runs_in_the_solid(tilt_deg: float) -> None:
    cosine = math.cos(math.radians(tilt_deg))
    heights = torch.tensor([0.7, HIGH, HIGH - 0.02, 0.42, 0.3, 0.35, LOW - 0.9 * ROOM])
    found = probes_at(readings_at(heights, tilt_deg)).covered
    # the way starts 0.75 truncations before the reading and ends after the room; the deepest is the slab's middle,
    # which 28 steps miss by half of one
    step = (ROOM - 0.75 * TRUNCATION) / 27 * cosine
    first, last = heights + 0.75 * TRUNCATION * cosine, heights + ROOM * cosine
    deepest = torch.full_like(heights, (LOW + HIGH) / 2).clamp(first, last)
    expected = (-slab(deepest[:, None].expand(-1, 3))).clamp_min(0)
    assert bool((found <= expected + 1e-5).all())
    assert bool((found >= expected - step / 2 - 1e-5).all())
    assert found[:3].tolist() == [0.0, 0.0, 0.0]  # before, on, and 2 mm behind the surface: nothing to read through
    assert float(found[4]) > 0.03


def test_near_and_free_points_lie_where_they_are_said_to() -> None:
    readings = readings_at(torch.linspace(0.3, 0.6, 400), 30.0)
    probes = probes_at(readings)
    near, free, beside = probes.points.split([400, 200, 200])
    far = (near - readings.rays.origins).norm(dim=1)
    assert torch.allclose(far, readings.distances - probes.before, atol=1e-5)
    assert float(probes.before.abs().max()) <= TRUNCATION
    assert float(probes.before.std()) == pytest.approx(TRUNCATION / math.sqrt(3), rel=0.1)
    ahead = 1.5 - (free - readings.rays.origins[:200]).norm(dim=1)
    assert float(ahead.min()) >= TRUNCATION - 1e-5
    assert float(ahead.max()) <= TRUNCATION + ROOM + 1e-5
    assert float((beside - near[:200]).std()) == pytest.approx(0.0075, rel=0.1)


@pytest.mark.parametrize("wrong_height", [0.2, LOW - 0.003])
def test_readings_off_a_surface_or_through_a_solid_do_not_count(wrong_height: float) -> None:
    """The depth term of right and wrong readings is that of the right ones; without `robust_depth` it is not.

    The second lie on a surface as well as the right ones, but on the far side.
    """
    right, wrong = torch.full((60,), HIGH + 0.003), torch.full((60,), wrong_height)
    now, config = Moment.at(0.5, TINY, UNIT_PER_MM), replace(TINY, w_free=0.0, w_bending=0.0)

    def depth_term(heights: Tensor, settings: FitConfig) -> tuple[float, float]:
        probes, sensors = probes_at(readings_at(heights, 20.0, 0.8)), SensorModel(1, 1)
        normals = torch.tensor([0.0, 0.0, 1.0]) * (probes.points[:, 2:] - (LOW + HIGH) / 2).sign()
        terms = probes.terms(sensors, slab(probes.points), normals, settings, now)
        return float(terms["depth"]), float(sensors.spread_mm)

    # each right one is off by 0.3 mm; a wrong one, through 6.5 mm of solid or more, counts exp(-(6.5 / 2)^2) = 3e-5
    alone, spread_alone = depth_term(right, config)
    mixed, spread_mixed = depth_term(torch.cat([right, wrong]), config)
    counts = (config.depth_exact_mm / spread_alone) ** 2
    assert counts < 1  # the spread is still near where it starts
    assert alone == pytest.approx(counts * config.w_depth * 0.3**2 / 2, rel=1e-3)
    assert mixed == pytest.approx(alone, rel=0.01)
    assert spread_mixed == pytest.approx(spread_alone, rel=1e-3)
    blind, spread_blind = depth_term(torch.cat([right, wrong]), replace(config, robust_depth=False))
    assert blind > 10 * alone / counts
    assert spread_blind == float(SensorModel(1, 1).spread_mm)  # not learned


def test_the_readings_of_an_inexact_sensor_count_by_the_square_of_its_spread() -> None:
    """Two sensors with the same residuals, one of which is known to spread: alone each gives its share of the term."""
    now, config = Moment.at(1.0, TINY, UNIT_PER_MM), replace(TINY, w_bending=0.0, depth_exact_mm=0.5)
    normals = torch.tensor([0.0, 0.0, 1.0])

    def terms_at(spread_mm: float) -> dict[str, float]:
        probes, sensors = probes_at(readings_at(torch.full((400,), HIGH + 0.003), 20.0, 0.99)), SensorModel(1, 1)
        sensors.spread_mm.fill_(spread_mm)
        low = slab(probes.points) - 0.6 * UNIT_PER_MM  # so that free points cost something, too
        found = probes.terms(sensors, low, normals.expand(len(probes.points), 3), config, now)
        return {name: float(term) for name, term in found.items()} | {"spread": float(sensors.spread_mm)}

    exact, coarse = terms_at(0.4), terms_at(2.0)
    assert exact["spread"] < 0.5
    share = (0.5 / coarse["spread"]) ** 2
    assert coarse["depth"] == pytest.approx(share * exact["depth"], rel=0.02)
    assert coarse["free"] == pytest.approx(share * exact["free"], rel=0.02)


@pytest.mark.parametrize("first_levels", [1, 3, 5])
def test_one_step_changes_slopes_alike_on_all_levels_that_come_later(first_levels: int) -> None:
    """Adam's first step moves every entry by its rate: over the cell's size that is one slope, the first levels'."""
    config = FitConfig(field=FieldConfig(levels=5, log2_table_size=12), first_levels=first_levels)
    model = SurfaceModel(config.field, 1, 1, torch.Generator().manual_seed(0))
    grid, before = config.field.sdf_grid, model.sdf_table.detach().clone()
    color_before = model.color_table.detach().clone()
    optimizer = Optimizer(model, config)
    optimizer.descend(model.sdf_table.sum() + model.color_table.sum(), 1.0)
    moved = (before - model.sdf_table.detach()).double()
    steps = [moved[a:b] for a, b in itertools.pairwise(grid.offsets)]
    for level, step in enumerate(steps):
        wanted = config.learning_rate_table * min(1.0, grid.resolutions[first_levels - 1] / grid.resolutions[level])
        torch.testing.assert_close(step, torch.full_like(step, wanted), rtol=1e-3, atol=0)
    color_moved = (color_before - model.color_table.detach()).double()
    torch.testing.assert_close(color_moved, torch.full_like(color_moved, config.learning_rate_table), rtol=1e-3, atol=0)


def test_doubt_never_falls_below_zero() -> None:
    model = SurfaceModel(TINY.field, 1, 1, torch.Generator().manual_seed(0))
    optimizer = Optimizer(model, TINY)
    push = torch.linspace(-1, 1, model.doubt.numel()).reshape(model.doubt.shape)
    for _ in range(3):
        optimizer.descend((push * model.doubt).sum(), 1.0)
    assert float(model.doubt.detach().min()) == 0.0
    # Adam's first steps are one rate long, whatever the gradient
    assert torch.allclose(model.doubt[push < 0].detach(), torch.tensor(3 * 2e-2), atol=1e-4)
    assert float(model.doubt.detach()[push > 0].abs().max()) == 0.0


def test_points_known_to_be_free_are_asked_first() -> None:
    known = torch.rand(30, 3, generator=torch.Generator().manual_seed(2))
    generator, config = torch.Generator().manual_seed(3), replace(TINY, w_eikonal=0.0)
    room, occupancy = Box(low=torch.zeros(3), high=torch.ones(3)), occupancy_of_slab()
    now, model = Moment.at(0.5, TINY, UNIT_PER_MM), SurfaceModel(TINY.field, 1, 1, torch.Generator().manual_seed(0))
    for free in (known, known[:0]):
        unseen = Unseen.of(room, occupancy, free)
        asked = Questions.draw((None, None), config, model.sensors, occupancy, unseen, room, now, generator)
        drawn = asked.points[: len(asked.free)]
        assert {tuple(p) for p in drawn.tolist()} == {tuple(p) for p in free.tolist()}
        normals = torch.tensor([0.0, 0.0, 1.0]).expand(len(asked.points), 3)
        terms = asked.terms(model, config, slab(asked.points), normals, now, None, None, occupancy)
        assert ("known_free" in terms) == bool(len(free))
        if len(free):
            expected = config.w_free * torch.relu(2.0 - slab(drawn) / UNIT_PER_MM).mean()
            assert float(terms["known_free"]) == pytest.approx(float(expected), rel=1e-5)


# ------------------------------------------------------------------------------------------------------------ fits


def test_the_hull_is_where_a_fit_starts(scene: Scene) -> None:
    generator = torch.Generator().manual_seed(0)
    model = SurfaceModel(TINY.field, 2, 1, generator)
    start_module.start_from_hull(model, scene, TINY.first_levels, generator)
    points = torch.rand(20_000, 3, generator=generator)
    target = scene.hull.look_up(points)
    near = target.abs() < 0.1
    error = (model.sdf(points, TINY.first_levels) - target)[near]
    # trilinear cells of 1 / 8 and 1 / 16 and sixteen ReLUs cannot do better than a fraction of a cell
    assert float(error.abs().mean()) < 0.25 / 16
    decided = target.abs() > 0.5 / 16
    sign = model.sdf(points, TINY.first_levels) > 0
    assert float((sign == (target > 0))[decided].float().mean()) > 0.97


def test_the_same_seed_gives_the_same_fit(scene: Scene, whole: Fit) -> None:
    seen: list[int] = []
    again = fit(scene, TINY, seed=3, on_step=lambda step, terms: seen.append(step))
    assert seen == list(range(20))
    assert_same(again, whole)
    assert whole.step == 20
    assert whole.blur == pytest.approx(TINY.blur_end_mm * scene.unit_per_mm)


def test_a_fit_learns_doubt_and_the_spread_of_readings(whole: Fit) -> None:
    """So that the comparisons of stopped, resumed and saved fits below are of something."""
    doubt, spread = whole.model.doubt.detach(), whole.model.sensors.spread_mm
    assert float(doubt.min()) == 0.0
    assert int((doubt > 0).sum()) > 20
    first = SensorModel(len(spread), 1).spread_mm
    assert 0 < int((spread != first).sum()) < len(spread)  # those of depth cameras; the others have no readings


def test_another_seed_gives_another_fit(scene: Scene, whole: Fit) -> None:
    other = fit(scene, replace(TINY, steps=1), seed=4)
    assert not torch.equal(other.model.sdf_table, whole.model.sdf_table)


def test_a_stopped_fit_goes_on_as_if_it_had_not(scene: Scene, whole: Fit, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(scene, TINY, seed=3, folder=tmp_path, on_step=stop_at(15))
    assert load_fit(tmp_path).step == 10
    seen: list[int] = []
    resumed = fit(scene, TINY, seed=3, folder=tmp_path, on_step=lambda step, terms: seen.append(step))
    assert seen == list(range(10, 20))
    assert_same(resumed, whole)
    assert_same(load_fit(tmp_path), whole)
    with (tmp_path / "scalars.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(20))
    for row in rows:
        terms = [float(v) for k, v in row.items() if k not in ("step", "loss", "samples") and v]
        assert float(row["loss"]) == pytest.approx(sum(terms), rel=1e-9)


def test_a_saved_fit_comes_back_whole(whole: Fit, tmp_path: Path) -> None:
    save_fit(whole, tmp_path)
    back = load_fit(tmp_path)
    assert_same(back, whole)
    assert back.unit_from_world.scale == whole.unit_from_world.scale
    assert torch.equal(back.unit_from_world.translation, whole.unit_from_world.translation)
    assert torch.equal(back.box.low, whole.box.low)
    assert torch.equal(back.box.high, whole.box.high)
    assert torch.equal(back.view_origins, whole.view_origins)
    assert (back.name, back.floor_m, back.is_metric) == (whole.name, whole.floor_m, whole.is_metric)
    assert [p.name for p in tmp_path.iterdir()] == ["fit.safetensors"]  # no half-written file beside it


def test_a_folder_with_another_fit_is_refused(scene: Scene, whole: Fit, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(scene, TINY, seed=3, folder=tmp_path, on_step=stop_at(10))
    for settings, seed in ((replace(TINY, w_color=0.1), 3), (TINY, 4)):
        with pytest.raises(FitError, match=r"fit\.safetensors.*other settings"):
            fit(scene, settings, seed=seed, folder=tmp_path)
    save_fit(whole, tmp_path)
    with pytest.raises(FitError, match=r"fit\.safetensors: a finished fit"):
        fit(scene, TINY, seed=3, folder=tmp_path)


def test_files_that_are_no_fit_are_refused_by_name(whole: Fit, tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    with pytest.raises(FitError, match=r"fit\.safetensors: no such file"):
        load_fit(tmp_path)
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(FitError, match=r"fit\.safetensors: not a fit of ours"):
        load_fit(tmp_path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(FitError, match=r"fit\.safetensors: a fit of version"):
        load_fit(tmp_path)
    save_file({"weight": torch.zeros(3)}, path, metadata={"facts": json.dumps({"version": 10_000})})
    with pytest.raises(FitError, match=r"fit\.safetensors: a fit of version . is needed, this has 10000"):
        load_fit(tmp_path)
    save_fit(whole, tmp_path)
    content = path.read_bytes()
    for length in (4, 500, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(FitError, match=r"fit\.safetensors: not a fit of ours, or damaged"):
            load_fit(tmp_path)


def test_a_loss_that_is_not_finite_ends_the_fit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(gradients: Tensor, _: Tensor) -> Tensor:
        return gradients.sum() * math.nan

    monkeypatch.setattr(losses, "bending_loss", broken)
    monkeypatch.setattr(start_module, "_STEPS", 1)
    with pytest.raises(FitError, match=r"step 0: the loss is no longer finite.*bending nan"):
        fit(scene, replace(TINY, w_bending=0.1), seed=0)


def test_a_fit_needs_only_one_kind_of_evidence(scene: Scene) -> None:
    """Photographs alone, or depth alone: the other's terms are not there."""
    seen: dict[str, set[str]] = {}

    def note(name: str) -> Callable[[int, dict[str, float]], None]:
        return lambda step, terms: seen.setdefault(name, set()).update(terms)

    short = replace(TINY, steps=2)
    fit(replace(scene, readings=None), short, on_step=note("photographs"))
    fit(replace(scene, pixels=None), short, on_step=note("depth"))
    assert {"color", "silhouette"} <= seen["photographs"]
    assert not {"depth", "free", "bending"} & seen["photographs"]
    assert {"depth", "free", "bending"} <= seen["depth"]
    assert not {"color", "silhouette"} & seen["depth"]


def test_outlines_count_more_the_fewer_readings_there_are(scene: Scene) -> None:
    """Once with six readings a square millimetre, five times without any, linear between."""
    assert scene.readings is not None
    area_mm2 = scene.start.area / scene.unit_per_mm**2
    for per_mm2, times in ((12.0, 1.0), (6.0, 1.0), (1.5, 4.0), (0.0, 5.0)):
        share = per_mm2 * area_mm2 / len(scene.readings.inlier)
        readings = replace(scene.readings, inlier=torch.full_like(scene.readings.inlier, share))
        found = emphasised(TINY, replace(scene, readings=readings))
        assert found.w_silhouette == pytest.approx(times * TINY.w_silhouette, rel=1e-4)
        changed = {"w_waves": 0.0, "silhouette_robustness": 0.0}
        assert replace(found, w_silhouette=TINY.w_silhouette) == replace(TINY, **changed)
    assert emphasised(TINY, replace(scene, readings=None)).w_silhouette == 5 * TINY.w_silhouette


@pytest.mark.parametrize("kind", [SurfaceKind.mirror, SurfaceKind.clear])
def test_mirrors_and_glass_are_left_to_outlines_and_smoothness(scene: Scene, kind: SurfaceKind) -> None:
    """A step has as many rays as elsewhere, and the settings that the fit keeps are those that were given."""
    config = FitConfig()
    shiny = replace(scene, surface=replace(scene.surface, kind=kind))
    found = emphasised(config, shiny)
    assert (found.interior_rays, found.edge_rays) == (320, 832)
    assert found.w_silhouette == 40 * config.w_silhouette
    assert found.w_bending == 8 * config.w_bending
    assert found.w_patches == 0
    changed = ("interior_rays", "edge_rays", "w_silhouette", "w_bending", "w_patches", "silhouette_robustness")
    assert replace(found, **{name: getattr(config, name) for name in changed}) == config
    assert fit(shiny, replace(TINY, steps=1), seed=3).config == replace(TINY, steps=1)


def test_waves_cost_what_their_bend_changes_and_edges_and_even_bends_next_to_nothing() -> None:
    """Closed forms: a plane 0; a cylinder of radius r, 2 - 2 cos(d / r) along the normal; a wave by its angles."""
    half, everywhere = 4.0, torch.ones(1, dtype=torch.bool)

    def cost(slope: Callable[[float], float], at: float) -> float:
        angles = torch.tensor([[slope(at)], [slope(at - half)], [slope(at + half)]], dtype=torch.float64)
        gradients = torch.cat([angles.sin(), torch.zeros_like(angles), angles.cos()], dim=1)
        return float(losses.waves_loss(gradients[:1], gradients[1:2], gradients[2:], everywhere))

    def robust(square: float) -> float:
        return 0.09 * square / (0.09 + square)

    assert cost(lambda s: 0.7, 1.0) == pytest.approx(0, abs=1e-12)
    even = cost(lambda s: s / 30, 1.0)
    assert even == pytest.approx(robust((2 - 2 * math.cos(half / 30)) ** 2), rel=1e-9)
    wave = cost(lambda s: 0.1 * math.cos(s * math.pi / 8), 0.0)  # the slope falls from its height to 0 on both sides
    assert wave == pytest.approx(robust((2 * math.sin(0.1)) ** 2 + (2 - 2 * math.cos(0.1)) ** 2), rel=1e-9)
    assert wave > 80 * even
    # at an edge of 90 degrees the pull is a few hundredths of what the square of the change would have
    edge = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], requires_grad=True)
    losses.waves_loss(edge[:1], edge[1:2], edge[2:], everywhere).backward()
    change = torch.tensor([1.0, 0.0, -1.0])  # its square is 2
    torch.testing.assert_close(edge.grad, 2 * (0.09 / 2.09) ** 2 * torch.stack([-2 * change, change, change]))
    none = losses.waves_loss(torch.rand(5, 3), torch.rand(5, 3), torch.rand(5, 3), torch.zeros(5, dtype=torch.bool))
    assert float(none) == 0


def test_waves_are_looked_for_as_far_before_as_beyond_what_photographs_see(scene: Scene) -> None:
    """And without their weight nothing is asked."""
    cpu, now = torch.device("cpu"), Moment.at(0.5, TINY, scene.unit_per_mm)
    occupancy, _ = first_occupancy(scene, TINY, 0.1, cpu)
    batch = Batches(scene=scene, config=TINY, seed=0, device=cpu).at(0)
    room = free_room(scene.unit_from_world, scene.floor_m)
    unseen = Unseen.of(room, occupancy, torch.zeros(0, 3))
    sensors = SensorModel(len(scene.sensor_names), len(scene.stop_names))

    def asked(config: FitConfig) -> Questions:
        return Questions.draw(batch, config, sensors, occupancy, unseen, room, now, torch.Generator().manual_seed(0))

    without = asked(replace(TINY, w_waves=0.0))
    assert len(without.across) == len(without.across_of) == 0
    found = asked(replace(TINY, waves_mm=3.0))
    assert found.seen is not None
    before, beyond = found.across.chunk(2)
    torch.testing.assert_close((before + beyond) / 2, found.seen.points[found.across_of])
    assert float((beyond - before).std()) == pytest.approx(2 * 3.0 * scene.unit_per_mm, rel=0.1)


def test_a_push_of_the_whole_surface_is_held_at_three_times_the_usual_one() -> None:
    """The usual one is the mean of all so far, each counting 5 % less for every step that has come since."""
    model = SurfaceModel(TINY.field, 1, 1, torch.Generator().manual_seed(0))
    optimizer = Optimizer(model, TINY)
    usual = weights = 0.0
    for step, push in enumerate([1.0, -2.0, 0.5, 100.0, 1.0, 0.0, 400.0]):
        sdf = torch.zeros(4, requires_grad=True)
        came_back = torch.autograd.grad((optimizer.damped(sdf * 1.0) * push / 4).sum(), sdf)[0]
        held = min(abs(push), 3 * usual / weights) if step else abs(push)
        assert float(came_back.sum()) == pytest.approx(math.copysign(held, push), rel=1e-5)
        assert float(came_back.std()) == 0
        usual, weights = 0.95 * usual + 0.05 * held, 0.95 * weights + 0.05
        optimizer.descend(model.sdf_out.bias.sum(), 1.0)
    assert torch.equal(optimizer.damped(torch.ones(3)), torch.ones(3))
    restored = Optimizer(model, TINY)
    restored.restore(optimizer.moments())
    assert float(restored._push) == pytest.approx(usual, rel=1e-5)
