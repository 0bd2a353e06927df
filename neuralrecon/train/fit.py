"""`fit`: from a scene to a solid, in one visible loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import ConfigError, FitError
from ..fields import FieldConfig, SurfaceModel
from ..geometry import Box, Similarity
from ..render import Occupancy, render, sample_rays
from ..scene import DepthRays, Scene
from . import losses
from .schedule import active_levels, geometric, learning_rate

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How the model is trained. Lengths are millimetres of the object.

    Attributes:
        steps: optimiser steps.
        interior_rays, edge_rays, depth_rays: rays a step: pixels inside the silhouettes, pixels along their outlines,
            depth readings.
        learning_rate_table, learning_rate_network: Adam's, at their highest.
        blur_start_mm, blur_end_mm: 1/inv_s of the opacity, falling until `blur_until` of the fit.
        first_levels, all_levels_from: hash levels at the start, and the share of the fit from which all are on.
        truncation_mm: how far around a depth reading the sdf is told its value.
        w_*: weights of the loss terms; zero skips a term.
    """

    field: FieldConfig = field(default_factory=FieldConfig)
    steps: int = 2400
    interior_rays: int = 768
    edge_rays: int = 384
    depth_rays: int = 3072
    learning_rate_table: float = 5e-3
    learning_rate_network: float = 2e-3
    blur_start_mm: float = 2.0
    blur_end_mm: float = 0.3
    blur_until: float = 0.6
    first_levels: int = 5
    all_levels_from: float = 0.5
    truncation_mm: float = 4.0
    occupancy_resolution: int = 192
    w_color: float = 0.5
    w_silhouette: float = 0.1
    w_eikonal: float = 0.1
    w_depth: float = 0.3
    w_free: float = 0.1
    w_bending: float = 0.02

    def __post_init__(self) -> None:
        if self.steps < 1 or min(self.interior_rays, self.edge_rays, self.depth_rays) < 1:
            raise ConfigError("steps, interior_rays, edge_rays and depth_rays must be 1 or more")
        if not 0 < self.blur_end_mm <= self.blur_start_mm:
            raise ConfigError(f"need 0 < blur_end_mm <= blur_start_mm, got {self.blur_end_mm} and {self.blur_start_mm}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A trained solid and how it lies in the world: everything that extraction and rendering need."""

    name: str
    model: SurfaceModel
    config: FitConfig
    unit_from_world: Similarity
    box: Box
    floor_m: float | None
    is_metric: bool
    occupancy: Occupancy
    blur: float
    step: int


def fit(
    scene: Scene,
    config: FitConfig | None = None,
    *,
    seed: int = 0,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
) -> Fit:
    """Train a model on a scene. The same seed on the same machine gives the same model, bit for bit.

    Args:
        on_step: called after every step with its loss terms, already weighted.

    Raises:
        FitError: the loss is no longer finite.
    """
    config = config or FitConfig()
    generator = torch.Generator().manual_seed(seed)
    model = SurfaceModel(config.field, len(scene.sensor_names), generator)
    unit_per_mm = scene.unit_per_mm
    start_from_hull(model, scene, config.first_levels, generator)
    occupancy, allowed = _first_occupancy(scene, config)
    optimizer = _optimizer(model, config)
    base_rates = [group["lr"] for group in optimizer.param_groups]

    for step in range(config.steps):
        progress = step / config.steps
        levels = active_levels(progress, config.first_levels, config.field.levels, config.all_levels_from)
        blur = geometric(config.blur_start_mm, config.blur_end_mm, progress / config.blur_until) * unit_per_mm
        if step % 20 == 0:
            occupancy = occupancy.refreshed(
                lambda points, levels=levels: model.sdf(points, levels), 4 * blur, allowed, whole=step % 400 == 0
            )

        batch = scene.pixels.draw(config.interior_rays, config.edge_rays, generator) if scene.pixels else None
        seen = None
        if batch is not None:
            seen = sample_rays(batch, occupancy, blur, torch.rand(len(batch.inside), generator=generator))
        probes = None
        if scene.readings is not None:
            probes = _probes(scene.readings.draw(config.depth_rays, generator), config, unit_per_mm, generator)
        asked = [x.points for x in (seen, probes) if x is not None]
        sdf, gradients = model.surface(torch.cat(asked), levels)
        n_seen = len(seen.points) if seen is not None else 0

        terms = {"eikonal": config.w_eikonal * losses.eikonal_loss(gradients)}
        if batch is not None and seen is not None:
            image = render(
                model, seen, sdf[:n_seen], gradients[:n_seen], inv_s=1 / blur, cos_anneal=min(1.0, 4 * progress)
            )
            terms["color"] = config.w_color * losses.color_loss(image.colors, batch.colors, batch.inside)
            terms["silhouette"] = config.w_silhouette * losses.silhouette_loss(image.opacity, batch.inside)
        if probes is not None:
            terms |= _depth_terms(probes, sdf[n_seen:], gradients[n_seen:], config, unit_per_mm)

        loss = torch.stack(list(terms.values())).sum()
        if not bool(torch.isfinite(loss)):
            raise FitError(f"step {step}: the loss is {float(loss)} ({ {k: float(v) for k, v in terms.items()} })")
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * learning_rate(progress, 0.02, 0.02)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        on_step(step, {k: float(v.detach()) for k, v in terms.items()})

    return Fit(
        name=scene.name,
        model=model,
        config=config,
        unit_from_world=scene.unit_from_world,
        box=scene.box,
        floor_m=scene.floor_m,
        is_metric=scene.is_metric,
        occupancy=occupancy,
        blur=config.blur_end_mm * unit_per_mm,
        step=config.steps,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthProbes:
    """Points at which depth readings say something: near the reading, in the free room before it, and beside it."""

    readings: DepthRays
    points: Tensor
    before: Tensor
    n_near: int
    n_free: int


def _probes(readings: DepthRays, config: FitConfig, unit_per_mm: float, generator: torch.Generator) -> DepthProbes:
    rays, n = readings.rays, len(readings.distances)
    reach = config.truncation_mm * unit_per_mm
    before = (torch.rand(n, generator=generator) * 2 - 1) * reach
    near = rays.at(readings.distances - before)
    room = readings.distances - reach
    entry = (room - 0.5).clamp_min(0)
    free = rays.at(entry + (room - entry) * torch.rand(n, generator=generator))
    beside = near + 0.75 * unit_per_mm * torch.randn(n, 3, generator=generator)
    half = n // 2
    points = torch.cat([near, free[:half], beside[:half]])
    return DepthProbes(readings=readings, points=points, before=before, n_near=n, n_free=half)


def _depth_terms(
    probes: DepthProbes, sdf: Tensor, gradients: Tensor, config: FitConfig, unit_per_mm: float
) -> dict[str, Tensor]:
    """Truncated sdf around each reading, free space before it, and evenness of the surface beside it."""
    n, m = probes.n_near, probes.n_near + probes.n_free
    normals = torch.nn.functional.normalize(gradients[:n].detach(), dim=1)
    facing = (normals * probes.readings.rays.directions).sum(dim=1).abs().clamp_min(0.2)
    in_cube = ((probes.points >= 0) & (probes.points <= 1)).all(dim=1)
    inlier = probes.readings.inlier
    sdf_mm, before_mm = sdf / unit_per_mm, probes.before / unit_per_mm
    near = losses.truncated_sdf_loss(sdf_mm[:n], before_mm, facing, inlier * in_cube[:n])
    free = losses.free_space_loss(sdf_mm[n:m], 1.0, inlier[: m - n] * in_cube[n:m])
    bending = losses.bending_loss(gradients[: probes.n_free], gradients[m:])
    return {"depth": config.w_depth * near, "free": config.w_free * free, "bending": config.w_bending * bending}


def start_from_hull(model: SurfaceModel, scene: Scene, levels: int, generator: torch.Generator) -> None:
    """Teach the sdf the hull's, so that rays find a surface from the first step."""
    optimizer = torch.optim.Adam(
        [
            {"params": [model.sdf_table], "lr": 5e-3},
            {"params": [*model.sdf_hidden.parameters(), *model.sdf_out.parameters()], "lr": 3e-3},
        ]
    )
    for _ in range(200):
        points = torch.rand(8192, 3, generator=generator)
        sdf, gradients = model.surface(points, levels)
        target = scene.hull.look_up(points)
        # what matters is near the hull; far away the sign is enough
        loss = ((sdf - target).abs() / (0.02 + target.abs())).mean() + 0.05 * losses.eikonal_loss(gradients)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def _first_occupancy(scene: Scene, config: FitConfig) -> tuple[Occupancy, Tensor]:
    """The band around the hull, and the cells that may ever hold surface: those in or near the hull."""
    n = config.occupancy_resolution
    axis = (torch.arange(n) + 0.5) / n
    centers = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    sdf = scene.hull.look_up(centers).reshape(n, n, n)
    half_width = 4 * config.blur_start_mm * scene.unit_per_mm
    return Occupancy.from_sdf(sdf, half_width), (sdf < 6 * scene.unit_per_mm).to(torch.uint8)


def _optimizer(model: SurfaceModel, config: FitConfig) -> torch.optim.Adam:
    tables = [model.sdf_table, model.color_table]
    sensors = [model.sensor_log_gain, model.sensor_offset]
    known = {id(p) for p in tables + sensors}
    networks = [p for p in model.parameters() if id(p) not in known]
    return torch.optim.Adam(
        [
            {"params": tables, "lr": config.learning_rate_table},
            {"params": networks, "lr": config.learning_rate_network},
            {"params": sensors, "lr": 1e-3},
        ],
        betas=(0.9, 0.99),
        eps=1e-15,
        fused=True,
    )
