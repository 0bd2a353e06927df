"""Opacity against numerical integration, pictures of a sphere against closed forms, the grid of occupied cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from neuralrecon.geometry import Box, Rays, Similarity
from neuralrecon.ops import Samples, neus_alpha
from neuralrecon.ops.march import BAND, INSIDE, OUTSIDE
from neuralrecon.render import Occupancy, Rendering, render, render_view, sample_rays
from neuralrecon.render.rendering import free_room
from neuralrecon.render.sections import section_ends
from neuralrecon.scene import ColorRays

CENTER, RADIUS, BLUR = torch.tensor([0.5, 0.52, 0.47]), 0.3, 0.01
CUBE = Box(low=torch.zeros(3), high=torch.ones(3))


def sphere(points: Tensor) -> Tensor:
    return (points - CENTER.to(points)).norm(dim=-1) - RADIUS


def box(points: Tensor) -> Tensor:
    q = (points - CENTER.to(points)).abs() - torch.tensor([0.31, 0.2, 0.123])
    return q.clamp_min(0).norm(dim=-1) + q.amax(dim=-1).clamp_max(0)


@dataclass(frozen=True)
class SphereModel:
    """The parts of a `SurfaceModel` that rendering uses: its colours are the normals as the room sees them."""

    def surface(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return sphere(points), 1.7 * torch.nn.functional.normalize(points - CENTER.to(points), dim=1)

    def color(
        self, points: Tensor, normals: Tensor, directions: Tensor, rig_from_world: Tensor, _: Tensor | None = None
    ) -> Tensor:
        assert points.shape == normals.shape == directions.shape
        return (rig_from_world @ normals[:, :, None])[:, :, 0]

    @property
    def sensors(self) -> SphereModel:
        return self

    def recorded(self, colors: Tensor, opacity: Tensor, sensors: Tensor) -> Tensor:
        return colors + opacity[:, None] * sensors[:, None]


MODEL: Any = SphereModel()


def rays_past_the_sphere(n: int, dtype: torch.dtype = torch.float32) -> tuple[ColorRays, Tensor, Tensor]:
    """Parallel to nothing, passing the centre at known distances; those, and the distance along each ray to that."""
    generator = torch.Generator().manual_seed(7)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=torch.float64), dim=1)
    across = torch.linalg.cross(directions, torch.randn(n, 3, generator=generator, dtype=torch.float64))
    passing = torch.linspace(0, 1.25 * RADIUS, n, dtype=torch.float64)
    nearest = CENTER + passing[:, None] * torch.nn.functional.normalize(across, dim=1)
    turns, _ = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator, dtype=torch.float64))
    batch = ColorRays(
        rays=Rays(origins=(nearest - 2 * directions).to(dtype), directions=directions.to(dtype)),
        colors=torch.zeros(n, 3),
        inside=torch.zeros(n, dtype=torch.bool),
        rig_from_world=turns.to(dtype),
        world_from_cam=torch.eye(3, dtype=dtype).expand(n, 3, 3),
        sensors=torch.zeros(n, dtype=torch.long),
        stops=torch.zeros(n, dtype=torch.long),
        images=torch.zeros(n, dtype=torch.long),
    )
    return batch, passing, torch.full((n,), 2.0, dtype=torch.float64)


def occupancy_of(sdf: Callable[[Tensor], Tensor], half_width: float, size: int = 48) -> Occupancy:
    axis = (torch.arange(size) + 0.5) / size
    centers = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return Occupancy.from_sdf(sdf(centers), half_width)


def picture(batch: ColorRays, occupancy: Occupancy, step: float) -> tuple[Rendering, Tensor, Tensor]:
    """The rendering, each ray's mean depth by weight, and how many samples it took."""
    samples = sample_rays(batch, CUBE, occupancy, step, torch.full((len(batch.inside),), 0.5))
    sdf = sphere(samples.points)
    gradients = torch.nn.functional.normalize(samples.points - CENTER, dim=1)
    seen = render(MODEL, samples, sdf, gradients, inv_s=1 / BLUR)
    n = len(batch.inside)
    of_ray = samples.packed.ray_indices
    moment = torch.zeros(n).index_add(0, of_ray, seen.weights * samples.packed.t_mids)
    return seen, moment / seen.opacity.clamp_min(1e-6), torch.bincount(of_ray, minlength=n)


# -------------------------------------------------------------------------------------------------------- opacity


def test_alpha_is_the_integral_of_the_density() -> None:
    """1 - exp(-integral of rho) with rho = max(-dPhi/dt / Phi, 0), by the trapezoidal rule on 20,001 points."""
    generator = torch.Generator().manual_seed(0)
    inv_s = 40.0
    before, after = (torch.rand(200, generator=generator, dtype=torch.float64) * 0.4 - 0.2 for _ in range(2))
    t = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    phi = torch.sigmoid(inv_s * torch.lerp(before[:, None], after[:, None], t))
    density = (inv_s * (before - after)[:, None] * phi * (1 - phi) / phi).clamp_min(0)
    expected = 1 - torch.exp(-torch.trapezoid(density, t, dim=1))
    assert torch.allclose(neus_alpha(before, after, inv_s), expected, atol=1e-7)


def test_a_ray_that_leaves_meets_nothing() -> None:
    sdf = torch.linspace(-0.3, 0.3, 50)
    assert torch.equal(neus_alpha(sdf, sdf, 100.0), torch.zeros(50))
    assert torch.equal(neus_alpha(sdf, sdf + torch.linspace(1e-6, 1, 50), 100.0), torch.zeros(50))


def test_deep_inside_the_opacity_is_exact() -> None:
    """There Phi(x) = exp(x / s) to every digit, so that alpha = 1 - exp(inv_s * fall), whatever the depth."""
    inv_s, fall = 1000.0, torch.tensor([2e-3, 1e-3, 2e-5], dtype=torch.float64)
    for depth in (0.5, 5.0, 50.0):  # Phi itself is exp(-500) … exp(-50000), zero in float64 from the second on
        before = torch.full((3,), -depth, dtype=torch.float64)
        alpha = neus_alpha(before, before - fall, inv_s)
        assert torch.allclose(alpha, 1 - torch.exp(-inv_s * fall), rtol=1e-9)
    # in float32 both ends, at 5, are good to 2.4e-7 each, times inv_s
    before = torch.full((3,), -5.0)
    alpha = neus_alpha(before, before - fall.float(), inv_s)
    assert torch.allclose(alpha, (1 - torch.exp(-inv_s * fall)).float(), atol=1000 * 2.4e-7 * 2)


def test_alpha_has_the_right_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    before = (torch.rand(30, generator=generator, dtype=torch.float64) * 0.2 - 0.1).requires_grad_()
    change = torch.rand(30, generator=generator, dtype=torch.float64) * 0.04 - 0.02
    after = (before + torch.where(change.abs() < 1e-3, 0.01, change)).detach().requires_grad_()
    assert gradcheck(lambda b, a: neus_alpha(b, a, 30.0), (before, after))


def test_noise_along_a_grazing_ray_makes_nothing_opaque() -> None:
    """Neighbouring intervals share their ends, so that opacities telescope whatever the slopes say: over 40 samples
    that pass a surface at two blurs and fall nowhere, slopes off by 0.2 either way would make 0.2 of nothing."""
    generator = torch.Generator().manual_seed(4)
    n, blur, step = 40, 0.3, 0.45
    t = (torch.arange(n, dtype=torch.float64) + 0.5) * step
    packed = Samples(t_mids=t, ray_indices=torch.zeros(n, dtype=torch.long), ray_starts=torch.tensor([0, n]))
    sdf = torch.full((n,), 2 * blur, dtype=torch.float64)
    slope = 0.2 * torch.randn(n, generator=generator, dtype=torch.float64)
    slope[[0, -1]] = 0.0

    def opacity(before: Tensor, after: Tensor) -> float:
        return 1 - float((1 - neus_alpha(before, after, 1 / blur)).prod())

    assert opacity(*section_ends(packed, sdf, slope, step)) == 0.0
    fall = torch.relu(-slope) * step / 2
    assert opacity(sdf + fall, sdf - fall) > 0.2

    # with noise in the sdf itself: what is left is Phi(least end) / Phi(first), as for one that falls to there at once
    sdf = sdf + 0.02 * torch.randn(n, generator=generator, dtype=torch.float64)
    before, after = section_ends(packed, sdf, slope, step)
    assert torch.equal(before[1:], after[:-1])


def test_sections_end_where_a_ray_or_a_stretch_of_it_ends() -> None:
    """There the slope says how the sdf goes on; a rise is no opacity."""
    packed = Samples(
        t_mids=torch.tensor([0.5, 1.5, 4.5, 5.5, 0.5]),
        ray_indices=torch.tensor([0, 0, 0, 0, 1]),
        ray_starts=torch.tensor([0, 4, 5]),
    )
    sdf, slope = torch.tensor([3.0, 2.0, 1.0, 0.0, 7.0]), torch.tensor([-1.0, -0.5, -0.2, 0.5, -1.0])
    before, after = section_ends(packed, sdf, slope, 1.0)
    assert torch.allclose(before, torch.tensor([3.5, 2.5, 1.1, 0.5, 7.5]))
    assert torch.allclose(after, torch.tensor([2.5, 1.75, 0.5, 0.0, 6.5]))


# ------------------------------------------------------------------------------------------------------- pictures


def test_the_opacity_of_a_sphere_is_that_of_its_least_distance() -> None:
    """Sampled all along, a ray's light left is Phi(least sdf) / Phi(sdf at entry), for every distance of passing."""
    batch, passing, _ = rays_past_the_sphere(400)
    seen, _, _ = picture(batch, occupancy_of(sphere, 10.0, 4), 0.25 * BLUR)
    expected = 1 - torch.sigmoid((passing - RADIUS) / BLUR)
    # the density's midpoints miss about (step / blur)^2 / 24 = 0.003 of it
    assert float((seen.opacity - expected).abs().max()) < 0.004
    assert bool((seen.weights >= 0).all())


def test_in_a_narrow_band_a_sphere_is_opaque_and_in_its_place() -> None:
    half_width, step = 3 * BLUR, 1.5 * BLUR  # as coarse as trainings sample
    batch, passing, nearest = rays_past_the_sphere(400)
    seen, depth, n_samples = picture(batch, occupancy_of(sphere, half_width), step)
    deep = passing < RADIUS - half_width - 0.02
    # the band from +3 to -3 blurs holds 1 - Phi(-3) / Phi(3) of the opacity, more where whole cells widen it; samples
    # 1.5 blurs apart stand for it to (1.5)^2 / 24 of the densest third
    lost = torch.sigmoid(torch.tensor(-3.0)) / torch.sigmoid(torch.tensor(3.0))
    assert float(seen.opacity[deep].min()) > 1 - float(lost) - 0.03
    beside = passing > RADIUS + half_width + 1 / 48
    assert float(seen.opacity[beside].abs().max()) == 0.0
    assert int(n_samples[beside].max()) == 0
    assert int(n_samples[deep].max()) < 40
    # where the light stops: along the ray at t0, spread by blur / cos, which the sphere's bend shifts by
    # variance / 2 * bend = 1.65 blur^2 / r * (1 - cos^2) / cos^2, measured across the surface
    front = passing < 0.8 * RADIUS
    t0 = nearest - (RADIUS**2 - passing.clamp_max(RADIUS) ** 2).sqrt()
    cosine = (1 - (passing / RADIUS) ** 2).clamp_min(0).sqrt()
    bend = 1.65 * BLUR**2 / RADIUS * (1 / cosine**2 - 1)
    off = (depth - t0).abs() * cosine
    assert bool((off[front] < bend[front] + 0.15 * BLUR).all())
    assert float(((depth - t0) * cosine)[passing < 0.3 * RADIUS].mean().abs()) < 0.03 * BLUR


def test_the_middle_of_a_ray_is_where_its_light_stops() -> None:
    """The mean by weight, summed ray by ray; a ray without samples stays where it starts."""
    batch, passing, _ = rays_past_the_sphere(60)
    samples = sample_rays(batch, CUBE, occupancy_of(sphere, 3 * BLUR), BLUR, torch.full((60,), 0.5))
    seen, _, n_samples = picture(batch, occupancy_of(sphere, 3 * BLUR), BLUR)
    weights = seen.weights.clone().requires_grad_()
    middles = samples.middles(weights)
    assert not middles.requires_grad
    for i in range(60):
        mine = samples.packed.ray_indices == i
        total = weights[mine].sum().detach()
        t = (weights.detach()[mine] * samples.packed.t_mids[mine]).sum() / total.clamp_min(1e-6)
        assert torch.allclose(middles[i], batch.rays.origins[i] + t * batch.rays.directions[i], atol=1e-5)
    assert torch.equal(middles[n_samples == 0], batch.rays.origins[n_samples == 0])
    assert bool((n_samples == 0).any())
    opaque = passing < 0.8 * RADIUS
    assert float(sphere(middles[opaque]).abs().max()) < BLUR


def test_colours_come_from_unit_normals_seen_from_the_room() -> None:
    batch, passing, nearest = rays_past_the_sphere(200)
    view = render_view(MODEL, batch, CUBE, occupancy_of(sphere, 8 * BLUR), inv_s=1 / BLUR, step=0.5 * BLUR)
    # the model's gradients are 1.7 long: for the opacity that is a steeper slope, for the colour only a direction
    hit = (nearest - (RADIUS**2 - passing.clamp_max(RADIUS) ** 2).sqrt()).float()
    normals = (batch.rays.at(hit) - CENTER) / RADIUS
    expected = (batch.rig_from_world @ normals[:, :, None])[:, :, 0]
    front = passing < 0.7 * RADIUS
    # samples below 0.002 are not coloured, at most 30 of them; the normal turns by up to blur * tan / r on the way
    assert float((view.colors - expected * view.opacity[:, None])[front].abs().max()) < 0.06 + BLUR / RADIUS
    assert float(view.opacity[front].min()) > 0.995


def test_what_the_sensor_makes_of_it_is_kept() -> None:
    batch, passing, _ = rays_past_the_sphere(40)
    batch = replace(batch, sensors=torch.arange(40))
    plain, _, _ = rays_past_the_sphere(40)
    occupancy = occupancy_of(sphere, 5 * BLUR)
    with_sensors, without = (picture(b, occupancy, BLUR)[0] for b in (batch, plain))
    shift = with_sensors.opacity[:, None] * torch.arange(40)[:, None]
    assert torch.allclose(with_sensors.colors - without.colors, shift.expand(-1, 3), atol=1e-5)
    assert float(with_sensors.colors[passing > 1.2 * RADIUS].abs().max()) == 0.0


def test_gradients_reach_the_sdf_through_the_whole_rendering() -> None:
    """Derivative of what the rays see by a shift of the surface, against central differences."""
    batch, _, _ = rays_past_the_sphere(60, torch.float64)
    axis = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    grid = sphere(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1))
    samples = sample_rays(batch, CUBE, Occupancy.from_sdf(grid, 10.0), BLUR, torch.full((60,), 0.5).double())
    gradients = torch.nn.functional.normalize(samples.points - CENTER, dim=1)

    def seen(shift: Tensor) -> Tensor:
        rendering = render(MODEL, samples, sphere(samples.points) + shift, gradients, inv_s=1 / BLUR)
        return rendering.opacity.square().sum()

    zero, h = torch.zeros((), dtype=torch.float64, requires_grad=True), 1e-6
    (slope,) = torch.autograd.grad(seen(zero), zero)
    difference = (seen(torch.tensor(h).double()) - seen(torch.tensor(-h).double())) / (2 * h)
    assert float(slope) == pytest.approx(float(difference), rel=1e-6)
    assert float(slope) < 0  # a shrinking solid covers less


# ------------------------------------------------------------------------------------------------------ occupancy


@pytest.mark.parametrize("sdf", [sphere, box])
@pytest.mark.parametrize("half_width", [0.002, 0.03])
def test_no_cell_that_the_band_crosses_is_left_out(sdf: Callable[[Tensor], Tensor], half_width: float) -> None:
    occupancy = occupancy_of(sdf, half_width, 40)
    points = torch.rand(400_000, 3, generator=torch.Generator().manual_seed(3))
    x, y, z = (points * 40).long().unbind(1)
    state, distance = occupancy.cells[x, y, z], sdf(points)
    assert bool((state[distance.abs() < half_width] == BAND).all())
    assert bool((state[distance > half_width + 2 * 0.867 / 40] == OUTSIDE).all())
    assert bool((distance[state == INSIDE] < 0).all())
    assert bool((distance[state == OUTSIDE] > 0).all())
    near = occupancy.look_up(points).abs() < occupancy.band.reach
    assert bool(near[distance.abs() < half_width].all())
    assert not bool(near[distance.abs() > half_width + 1 / 40].any())


def test_refreshing_asks_the_cells_that_may_have_changed() -> None:
    size, half_width = 32, 0.02
    occupancy = occupancy_of(sphere, half_width, size)
    allowed = torch.ones(size, size, size, dtype=torch.uint8)
    allowed[: size // 2] = 0
    asked: list[Tensor] = []

    def grown(points: Tensor) -> Tensor:
        asked.append(points)
        return sphere(points) - 0.01

    axis = (torch.arange(size) + 0.5) / size
    centers = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    near = occupancy.refreshed(grown, half_width, allowed, whole=False)
    changed = near.sdf != occupancy.sdf
    band = (occupancy.cells == BAND) & (allowed > 0)
    assert bool(changed[band].all())
    assert not bool(changed[allowed == 0].any())
    far = sphere(centers).abs() > half_width + 3 / size
    assert not bool(changed[far].any())
    assert len(asked[0]) == int(changed.sum())
    assert torch.allclose(near.sdf[changed], sphere(centers)[changed] - 0.01, atol=1e-6)
    whole = occupancy.refreshed(grown, half_width, allowed, whole=True)
    assert torch.allclose(whole.sdf[allowed > 0], sphere(centers)[allowed > 0] - 0.01, atol=1e-6)
    assert torch.equal(whole.sdf[allowed == 0], occupancy.sdf[allowed == 0])
    reference = Occupancy.from_sdf(whole.sdf, half_width)
    assert torch.equal(whole.cells, reference.cells)


def test_rays_end_at_the_table() -> None:
    unit_from_world = Similarity(scale=4.0, translation=torch.tensor([0.5, 0.5, 0.1]))
    room = free_room(unit_from_world, 0.05)
    assert room.low.tolist() == pytest.approx([0.0, 0.0, 0.3])
    assert room.high.tolist() == [1.0, 1.0, 1.0]
    assert free_room(unit_from_world, None).low.tolist() == [0.0, 0.0, 0.0]
    assert free_room(unit_from_world, -1.0).low.tolist() == [0.0, 0.0, 0.0]
    batch, _, _ = rays_past_the_sphere(200)
    jitter = torch.rand(200, generator=torch.Generator().manual_seed(5))
    cut = sample_rays(batch, room, occupancy_of(sphere, 10.0, 4), 0.01, jitter)
    assert float(cut.points[:, 2].min()) > 0.3 - 1e-5
    assert float(cut.points[:, 2].min()) < 0.31
