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
from ..fields import SurfaceModel
from ..fields.sensors import SensorModel
from ..ops.march import INSIDE
from ..render import Occupancy, free_room
from ..scene import Scene
from .batches import Batches
from .checkpoint import FIT_FILE, TrainingState, load_training, save_fit
from .fit_types import Fit, FitConfig
from .optimizer import Optimizer
from .progress import SCALARS_FILE, Progress
from .questions import Questions
from .schedule import BAND, Moment
from .start import first_occupancy, start_from_hull

log = logging.getLogger(__name__)

_REFRESH_EVERY, _REFRESH_WHOLE_EVERY = 20, 400
_KEPT_VIEWS = 40


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
    model, occupancy, allowed, generator, optimizer, first_step = _begin_or_resume(scene, config, seed, folder)
    room = free_room(scene.unit_from_world, scene.floor_m)
    batches = Batches(scene=scene, config=config, seed=seed)
    progress = Progress(
        steps=config.steps, first_step=first_step, path=folder / SCALARS_FILE if folder is not None else None
    )

    for step in range(first_step, config.steps):
        now = Moment.at(step / config.steps, config, scene.unit_per_mm)
        if step % _REFRESH_EVERY == 0:
            occupancy = _refreshed(occupancy, model, now, allowed, whole=step % _REFRESH_WHOLE_EVERY == 0)
        if step % _REFRESH_EVERY == 0 or step == first_step:
            deep_cells = (occupancy.cells == INSIDE).nonzero()

        asked = Questions.draw(batches.at(step), config, model.sensors, occupancy, deep_cells, room, now, generator)
        sdf, gradients = model.surface(asked.points, now.levels)
        displacement = asked.displacement(model.sensors) if now.refines_sensors else None
        if displacement is not None:
            sdf = sdf + (gradients.detach() * displacement).sum(dim=1)
        terms = asked.terms(model, config, sdf, gradients, now, displacement)
        _descend(optimizer, terms, now, step)
        values = {name: float(term.detach()) for name, term in terms.items()}
        progress.step(step, values, len(sdf))
        on_step(step, values)
        if folder is not None and (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            state = TrainingState(moments=optimizer.moments(), generator=generator.get_state(), seed=seed)
            save_fit(_fit_of(scene, config, model, occupancy, step + 1), folder, state)
            progress.flush()

    occupancy = _refreshed(occupancy, model, Moment.at(1.0, config, scene.unit_per_mm), allowed, whole=True)
    result = _fit_of(scene, config, model, occupancy, config.steps)
    if folder is not None:
        save_fit(result, folder)
        progress.flush()
    return result


def _begin_or_resume(
    scene: Scene, config: FitConfig, seed: int, folder: Path | None
) -> tuple[SurfaceModel, Occupancy, Tensor, torch.Generator, Optimizer, int]:
    generator = torch.Generator().manual_seed(seed)
    occupancy, allowed = first_occupancy(scene, config, BAND * config.blur_start_mm * scene.unit_per_mm)
    if folder is not None and (folder / FIT_FILE).exists():
        fit, state = load_training(folder)
        same_world = fit.unit_from_world.scale == scene.unit_from_world.scale and torch.equal(
            fit.unit_from_world.translation, scene.unit_from_world.translation
        )
        same_settings = asdict(fit.config) == asdict(config) and fit.name == scene.name
        if state is None or not (same_world and same_settings) or state.seed != seed:
            raise FitError(
                f"{folder / FIT_FILE}: a finished fit, or one with other settings; name another folder or delete it"
            )
        optimizer = Optimizer(fit.model, config)
        optimizer.restore(state.moments)
        generator.set_state(state.generator)
        log.info("fit: going on from step %d", fit.step)
        return fit.model, fit.occupancy, allowed, generator, optimizer, fit.step
    model = SurfaceModel(config.field, len(scene.sensor_names), len(scene.stop_names), generator)
    _set_scales(model.sensors, scene, config)
    start_from_hull(model, scene, config.first_levels, generator)
    return model, occupancy, allowed, generator, Optimizer(model, config), 0


def _set_scales(sensors: SensorModel, scene: Scene, config: FitConfig) -> None:
    """On a turntable the stops turn about the world's z axis only; elsewhere they are free."""
    turn, stop = math.radians(config.sensor_turn_deg), math.radians(config.stop_turn_deg)
    shift, reach, stop_shift = (
        mm * scene.unit_per_mm for mm in (config.sensor_shift_mm, config.sensor_reach_mm, config.stop_shift_mm)
    )
    sensors.set_scales(turn, shift, reach, config.lens_percent / 100)
    if scene.on_turntable:
        sensors.set_stop_scales((0.0, 0.0, stop), 0.0, scene.unit_from_world.apply(torch.zeros(3)))
    else:
        sensors.set_stop_scales((stop, stop, stop), stop_shift, torch.full((3,), 0.5))


def _descend(optimizer: Optimizer, terms: dict[str, Tensor], now: Moment, step: int) -> None:
    loss = torch.stack(list(terms.values())).sum()
    if not bool(torch.isfinite(loss)):
        listed = ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
        raise FitError(
            f"step {step}: the loss is no longer finite ({listed}); lower learning_rate_table, or look at the capture"
        )
    optimizer.descend(loss, now.rate)


def _refreshed(occupancy: Occupancy, model: SurfaceModel, now: Moment, allowed: Tensor, *, whole: bool) -> Occupancy:
    return occupancy.refreshed(lambda points: model.sdf(points, now.levels), BAND * now.blur, allowed, whole=whole)


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
        world_per_mm=scene.world_per_mm,
        occupancy=occupancy,
        view_origins=origins,
        view_rig_from_world=rotations,
        blur=Moment.at(step / config.steps, config, scene.unit_per_mm).blur,
        step=step,
    )
