"""`fit`: from a scene to a solid, in one visible loop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FitError
from ..fields import SensorModel, SurfaceModel
from ..ops.march import INSIDE
from ..render import Occupancy, RaySamples, free_room, render, sample_rays
from ..scene import Scene
from . import losses
from .checkpoint import FIT_FILE, TrainingState, load_training, save_fit
from .depth_probes import DepthProbes
from .fit_types import Fit, FitConfig
from .progress import SCALARS_FILE, Progress
from .schedule import active_levels, geometric, learning_rate
from .start import first_occupancy, start_from_hull

log = logging.getLogger(__name__)

_REFRESH_EVERY, _REFRESH_WHOLE_EVERY = 20, 400
_BAND = 3.0  # half width of the band of samples, in blurs: 95 % of the opacity, and half a cell more on each side
_STEP = 1.5  # distance of samples, in blurs: less than the standard deviation (1.8) of the logistic density
_FREE_ROOM_MM = 60.0
_KEPT_VIEWS = 40
_DEEP_POINTS = 1024


def fit(
    scene: Scene,
    config: FitConfig | None = None,
    *,
    seed: int = 0,
    folder: Path | None = None,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, terms: None,
) -> Fit:
    """Train a model on a scene. The same seed on the same machine gives the same model, bit for bit.

    Args:
        folder: where checkpoints and scalars.csv go; an unfinished fit with the same settings that lies there is
            continued, to the same end as if it had never stopped.
        on_step: called after every step with its weighted loss terms.

    Raises:
        FitError: the loss is no longer finite.

    Example:
        >>> result = fit(scene, FitConfig(steps=500))  # doctest: +SKIP
    """
    config = config or FitConfig()
    unit_per_mm = scene.unit_per_mm
    model, occupancy, allowed, generator, optimizer, first_step = _begin_or_resume(scene, config, seed, folder)
    room = free_room(scene.unit_from_world, scene.floor_m)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    progress = Progress(
        steps=config.steps, first_step=first_step, path=folder / SCALARS_FILE if folder is not None else None
    )

    deep_cells = torch.zeros(0, 3)
    for step in range(first_step, config.steps):
        done = step / config.steps
        levels = active_levels(done, config.first_levels, config.field.levels, config.all_levels_from)
        blur = _blur(config, done) * unit_per_mm
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * learning_rate(done, 0.02, 0.02)
        if step % _REFRESH_EVERY == 0:
            occupancy = _refreshed(occupancy, model, levels, blur, allowed, whole=step % _REFRESH_WHOLE_EVERY == 0)
            deep_cells = (occupancy.cells == INSIDE).nonzero()

        batch = scene.pixels.draw(config.interior_rays, config.edge_rays, generator) if scene.pixels else None
        seen = probes = None
        if batch is not None:
            batch = model.sensors.corrected_color(batch)
            jitter = torch.rand(len(batch.inside), generator=generator)
            seen = sample_rays(batch, room, occupancy, _STEP * blur, jitter)
        if scene.readings is not None:
            readings = model.sensors.corrected_depth(scene.readings.draw(config.depth_rays, generator))
            probes = DepthProbes.place(
                readings,
                config.truncation_mm * unit_per_mm,
                config.bending_mm * unit_per_mm,
                _FREE_ROOM_MM * unit_per_mm,
                generator,
            )
        deep = _deep_points(deep_cells, len(occupancy.cells), generator)
        n_seen, n_deep = len(seen.points) if seen is not None else 0, len(deep)
        asked = [x.points for x in (seen, probes) if x is not None]
        sdf, gradients = model.surface(torch.cat([deep, *asked]), levels)
        sdf_deep, sdf, gradients = sdf[:n_deep], sdf[n_deep:], gradients[n_deep:]
        moved = _displacement(model.sensors, seen, probes) if config.refine_from <= done else None
        if moved is not None:
            sdf = sdf + (gradients.detach() * moved).sum(dim=1)

        terms = {"eikonal": config.w_eikonal * losses.eikonal_loss(gradients)}
        if batch is not None and seen is not None:
            anneal = min(1.0, 4 * done)
            image = render(
                model,
                seen,
                sdf[:n_seen],
                gradients[:n_seen],
                inv_s=1 / blur,
                cos_anneal=anneal,
                displacement=None if moved is None else moved[:n_seen],
            )
            terms["color"] = config.w_color * losses.color_loss(image.colors, batch.colors, batch.inside)
            terms["silhouette"] = config.w_silhouette * losses.silhouette_loss(image.opacity, batch.inside)
        if moved is not None:
            terms["sensors"] = config.w_sensors * model.sensors.prior()
        if n_deep:
            depth_mm = occupancy.half_width / unit_per_mm
            terms["deep"] = config.w_deep * losses.deep_inside_loss(sdf_deep / unit_per_mm, depth_mm)
        if probes is not None:
            terms |= probes.terms(sdf[n_seen:], gradients[n_seen:], config, unit_per_mm)

        _descend(optimizer, terms, step)
        values = {name: float(term.detach()) for name, term in terms.items()}
        progress.step(step, values, len(sdf))
        on_step(step, values)
        if folder is not None and (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            state = TrainingState(moments=_moments(optimizer), generator=generator.get_state(), seed=seed)
            save_fit(_fit_of(scene, config, model, occupancy, step + 1), folder, state)
            progress.flush()

    blur = _blur(config, 1.0) * unit_per_mm
    occupancy = _refreshed(occupancy, model, config.field.levels, blur, allowed, whole=True)
    result = _fit_of(scene, config, model, occupancy, config.steps)
    if folder is not None:
        save_fit(result, folder)
        progress.flush()
    return result


def _begin_or_resume(
    scene: Scene, config: FitConfig, seed: int, folder: Path | None
) -> tuple[SurfaceModel, Occupancy, Tensor, torch.Generator, torch.optim.Adam, int]:
    generator = torch.Generator().manual_seed(seed)
    occupancy, allowed = first_occupancy(scene, config, _BAND * config.blur_start_mm * scene.unit_per_mm)
    if folder is not None and (folder / FIT_FILE).exists():
        fit, state = load_training(folder)
        same = asdict(fit.config) == asdict(config) and fit.unit_from_world.scale == scene.unit_from_world.scale
        if state is None or not same or state.seed != seed:
            raise FitError(
                f"{folder / FIT_FILE}: a finished fit, or one with other settings; name another folder or delete it"
            )
        optimizer = _optimizer(fit.model, config)
        _restore_moments(optimizer, state.moments, fit.step)
        generator.set_state(state.generator)
        log.info("fit: going on from step %d", fit.step)
        return fit.model, fit.occupancy, allowed, generator, optimizer, fit.step
    model = SurfaceModel(config.field, len(scene.sensor_names), generator)
    model.sensors.set_scales(
        math.radians(config.sensor_turn_deg),
        config.sensor_shift_mm * scene.unit_per_mm,
        config.sensor_reach_mm * scene.unit_per_mm,
    )
    start_from_hull(model, scene, config.first_levels, generator)
    return model, occupancy, allowed, generator, _optimizer(model, config), 0


def _descend(optimizer: torch.optim.Adam, terms: dict[str, Tensor], step: int) -> None:
    loss = torch.stack(list(terms.values())).sum()
    if not bool(torch.isfinite(loss)):
        listed = ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
        raise FitError(
            f"step {step}: the loss is no longer finite ({listed}); lower learning_rate_table, or look at the capture"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _displacement(sensors: SensorModel, seen: RaySamples | None, probes: DepthProbes | None) -> Tensor:
    """How all points asked move with the sensors' corrections: first those on photographs' rays, then the probes."""
    parts = []
    if seen is not None:
        batch, of_ray = seen.batch, seen.packed.ray_indices
        origins, turned = batch.rays.origins[of_ray], batch.world_from_cam[of_ray]
        parts.append(sensors.displacement(seen.points, origins, turned, batch.sensors[of_ray]))
    if probes is not None:
        r, n = probes.readings, len(probes.before)
        near = sensors.displacement(
            probes.points[:n], r.rays.origins, r.world_from_cam, r.sensors, along=r.rays.directions
        )
        parts += [near, torch.zeros(len(probes.points) - n, 3)]
    return torch.cat(parts)


def _deep_points(deep_cells: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Points of the unit cube, in cells that lie inside the solid (also below the table) and beyond the band."""
    if len(deep_cells) == 0:
        return torch.zeros(0, 3)
    chosen = deep_cells[torch.randint(len(deep_cells), (_DEEP_POINTS,), generator=generator)]
    return (chosen + torch.rand(_DEEP_POINTS, 3, generator=generator)) / side


def _blur(config: FitConfig, done: float) -> float:
    return geometric(config.blur_start_mm, config.blur_end_mm, done / config.blur_until)


def _refreshed(
    occupancy: Occupancy, model: SurfaceModel, levels: int, blur: float, allowed: Tensor, *, whole: bool
) -> Occupancy:
    return occupancy.refreshed(lambda points: model.sdf(points, levels), _BAND * blur, allowed, whole=whole)


def _optimizer(model: SurfaceModel, config: FitConfig) -> torch.optim.Adam:
    tables = [model.sdf_table, model.color_table]
    colors = [model.sensors.log_gain, model.sensors.offset]
    corrections = [model.sensors.pose, model.sensors.reach]
    known = {id(p) for p in tables + colors + corrections}
    networks = [p for p in model.parameters() if id(p) not in known]
    return torch.optim.Adam(
        [
            {"params": tables, "lr": config.learning_rate_table},
            {"params": networks, "lr": config.learning_rate_network},
            {"params": colors, "lr": 1e-3},
            {"params": corrections, "lr": 1e-2},
        ],
        betas=(0.9, 0.99),
        eps=1e-15,
        fused=True,
    )


def _moments(optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        f"{i}.{name}": optimizer.state[p][name]
        for i, p in enumerate(parameters)
        if p in optimizer.state
        for name in ("exp_avg", "exp_avg_sq")
    }


def _restore_moments(optimizer: torch.optim.Adam, moments: dict[str, Tensor], step: int) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, p in enumerate(parameters):
        if f"{i}.exp_avg" in moments:
            state = {name: moments[f"{i}.{name}"] for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[p] = {"step": torch.tensor(float(step)), **state}


def _fit_of(scene: Scene, config: FitConfig, model: SurfaceModel, occupancy: Occupancy, step: int) -> Fit:
    origins, rotations = torch.zeros(0, 3), torch.zeros(0, 3, 3)
    if scene.pixels is not None:
        chosen = torch.linspace(0, len(scene.pixels.origins) - 1, _KEPT_VIEWS).round().long().unique()
        origins, rotations = scene.pixels.origins[chosen], scene.pixels.rig_from_world[chosen]
    return Fit(
        name=scene.name,
        model=model,
        config=config,
        unit_from_world=scene.unit_from_world,
        box=scene.box,
        floor_m=scene.floor_m,
        is_metric=scene.is_metric,
        occupancy=occupancy,
        view_origins=origins,
        view_rig_from_world=rotations,
        blur=_blur(config, step / config.steps) * scene.unit_per_mm,
        step=step,
    )
