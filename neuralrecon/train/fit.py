"""`fit`: from a scene to a solid, in one visible loop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FitError
from ..fields import SurfaceModel
from ..fields.sensors import SensorModel
from ..render import Occupancy, free_room
from ..scene import Scene
from .batches import Batches
from .checkpoint import FIT_FILE, TrainingState, has_fit, load_training, save_fit
from .emphasis import emphasised
from .fit_types import Device, Fit, FitConfig, device_of
from .interrupts import Interrupts
from .optimizer import Optimizer
from .out_of_memory import telling_memory
from .patches import Views
from .progress import SCALARS_FILE, Progress
from .questions import Questions, Unseen
from .schedule import BAND, Moment
from .snapshots import Snapshots
from .start import first_occupancy, start_from_hull

log = logging.getLogger(__name__)

_REFRESH_EVERY, _REFRESH_WHOLE_EVERY = 20, 400
_KEPT_VIEWS, _FREE_BEYOND_MM = 40, 2.0


@telling_memory
def fit(
    scene: Scene,
    config: FitConfig | None = None,
    *,
    seed: int = 0,
    device: Device | str = Device.auto,
    folder: Path | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    interrupts: Interrupts | None = None,
    snapshots: Snapshots | None = None,
) -> Fit:
    """Train a model on a scene. On the CPU, the same seed on the same machine gives the same model, bit for bit.

    Args:
        device: auto (the GPU if torch sees one, else the CPU), cpu or cuda. The fit stays there; see `Fit.to`.
        folder: where checkpoints and scalars.csv go; an unfinished fit with the same settings that lies there is
            continued, on the CPU to the same end as if it had never stopped.
        on_step: called after every step with its weighted loss terms; a GPU is waited for each time.
        interrupts: looked at after every step: once asked to, the fit writes a checkpoint and ends.
        snapshots: where the fit, as it stands, is left for a viewer that asks for it; this changes nothing in the fit.

    Raises:
        ConfigError: the device is not there.
        FitError: the loss is no longer finite, or a checkpoint cannot be read.
        MachineError: memory runs out, or a checkpoint cannot be written.
        StoppedError: a signal asked for the end.

    Example:
        >>> result = fit(scene, FitConfig(steps=500))  # doctest: +SKIP
    """
    config, where, interrupts = config or FitConfig(), device_of(device), interrupts or Interrupts()
    snapshots = snapshots or Snapshots()
    suited = emphasised(config, scene)
    model, occupancy, allowed, generator, optimizer, first_step = _begin_or_resume(scene, config, seed, folder, where)
    room = free_room(scene.unit_from_world, scene.floor_m)
    room_there = room.to(where)
    known_free = scene.known_free(_FREE_BEYOND_MM).to(where)
    views = _neighbouring_views(scene, suited, where)
    batches = Batches(scene=scene, config=suited, seed=seed, device=where)
    progress = Progress(
        steps=config.steps, first_step=first_step, path=folder / SCALARS_FILE if folder is not None else None
    )
    reads_every_step = where.type == "cpu" or on_step is not None

    for step in range(first_step, config.steps):
        now = Moment.at(step / config.steps, config, scene.unit_per_mm)
        if step % _REFRESH_EVERY == 0:
            progress.read()  # a refresh waits for a GPU anyway, and must not see a model that is not finite
            occupancy = _refreshed(occupancy, model, now, allowed, whole=step % _REFRESH_WHOLE_EVERY == 0)
        if step % _REFRESH_EVERY == 0 or step == first_step:
            unseen = Unseen.of(room, occupancy, known_free)

        asked = Questions.draw(batches.at(step), suited, model.sensors, occupancy, unseen, room_there, now, generator)
        sdf, gradients = model.surface(asked.points, now.levels)
        displacement = asked.displacement(model.sensors) if now.refines_sensors else None
        if displacement is not None:
            sdf = sdf + (gradients.detach() * displacement).sum(dim=1)
        sdf = optimizer.damped(sdf)
        terms = asked.terms(model, suited, sdf, gradients, now, displacement, views, occupancy)
        weighted = torch.stack(list(terms.values()))
        optimizer.descend(weighted.sum(), now.rate)
        progress.step(step, terms, weighted, len(sdf))
        if reads_every_step:
            progress.read()
        if on_step is not None:
            on_step(step, progress.terms)
        snapshots.take_if_wanted(partial(_fit_of, scene, config, model, occupancy, step + 1), progress)
        ends = interrupts.asked() and step + 1 < config.steps
        if folder is not None and (ends or (step + 1) % config.checkpoint_every == 0) and step + 1 < config.steps:
            progress.read()
            progress.flush()  # first: a resumed fit drops rows that it repeats, but cannot make up for any
            state = TrainingState(moments=optimizer.moments(), generator=generator.get_state(), seed=seed)
            save_fit(_fit_of(scene, config, model, occupancy, step + 1), folder, state)
        interrupts.end_if(ends)

    progress.read()
    occupancy = _refreshed(occupancy, model, Moment.at(1.0, config, scene.unit_per_mm), allowed, whole=True)
    result = _fit_of(scene, config, model, occupancy, config.steps)
    if folder is not None:
        progress.flush()
        save_fit(result, folder)
    snapshots.end()
    return result


def _neighbouring_views(scene: Scene, config: FitConfig, device: torch.device) -> Views | None:
    """The photographs whose patches are to be compared, if any."""
    if scene.pixels is None or not config.w_patches:
        return None
    middle = scene.unit_from_world.apply((scene.box.low + scene.box.high) / 2)
    return Views.of(scene.pixels, middle, device)


def _begin_or_resume(
    scene: Scene, config: FitConfig, seed: int, folder: Path | None, device: torch.device
) -> tuple[SurfaceModel, Occupancy, Tensor, torch.Generator, Optimizer, int]:
    generator = torch.Generator(device).manual_seed(seed)
    occupancy, allowed = first_occupancy(scene, config, BAND * config.blur_start_mm * scene.unit_per_mm, device)
    if folder is not None and has_fit(folder):
        fit, state = load_training(folder)
        same_world = fit.unit_from_world.scale == scene.unit_from_world.scale and torch.equal(
            fit.unit_from_world.translation, scene.unit_from_world.translation
        )
        same_settings = asdict(fit.config) == asdict(config) and fit.name == scene.name
        if state is None or not (same_world and same_settings) or state.seed != seed:
            raise FitError(
                f"{folder / FIT_FILE}: a finished fit, or one with other settings; name another folder or delete it"
            )
        fit = fit.to(device)
        optimizer = Optimizer(fit.model, config)
        optimizer.restore(state.moments)
        _go_on_drawing(generator, state, fit.step)
        log.info("fit: going on from step %d, on %s", fit.step, device)
        return fit.model, fit.occupancy, allowed, generator, optimizer, fit.step
    model = SurfaceModel(config.field, len(scene.sensor_names), len(scene.stop_names), generator)
    _set_scales(model.sensors, scene, config)
    start_from_hull(model, scene, config.first_levels, generator)
    return model, occupancy, allowed, generator, Optimizer(model, config), 0


def _go_on_drawing(generator: torch.Generator, state: TrainingState, step: int) -> None:
    """Where the checkpoint left off; anew, if its generator was of another device, whose state has another size."""
    if len(state.generator) == len(generator.get_state()):
        generator.set_state(state.generator)
    else:
        generator.manual_seed(state.seed * 1_000_003 + step)


def _set_scales(sensors: SensorModel, scene: Scene, config: FitConfig) -> None:
    """On a turntable the stops turn about the world's z axis only; elsewhere they are free."""
    turn, stop = math.radians(config.sensor_turn_deg), math.radians(config.stop_turn_deg)
    shift, reach, stop_shift = (
        mm * scene.unit_per_mm for mm in (config.sensor_shift_mm, config.sensor_reach_mm, config.stop_shift_mm)
    )
    sensors.set_scales(turn, shift, reach, config.lens_percent / 100)
    if scene.on_turntable:
        sensors.set_stop_scales((0.0, 0.0, stop), 0.0, scene.unit_from_world.apply(sensors.pivot.new_zeros(3)))
    else:
        sensors.set_stop_scales((stop, stop, stop), stop_shift, sensors.pivot.new_full((3,), 0.5))


def _refreshed(occupancy: Occupancy, model: SurfaceModel, now: Moment, allowed: Tensor, *, whole: bool) -> Occupancy:
    return occupancy.refreshed(lambda points: model.sdf(points, now.levels), BAND * now.blur, allowed, whole=whole)


def _fit_of(scene: Scene, config: FitConfig, model: SurfaceModel, occupancy: Occupancy, step: int) -> Fit:
    like = occupancy.sdf
    origins, rotations = like.new_zeros(0, 3), like.new_zeros(0, 3, 3)
    if (pixels := scene.pixels) is not None:
        steps = torch.linspace(0, len(pixels.origins) - 1, _KEPT_VIEWS, device=pixels.origins.device)
        chosen = steps.round().long().unique()
        origins, rotations = pixels.origins[chosen].to(like.device), pixels.rig_from_world[chosen].to(like.device)
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
