"""Fits on disk: one safetensors file, written whole, with everything that `Fit` and a resumed training need.

While a fit is not finished the checkpoint before the last one stays beside it, and is taken if the last is damaged. The
file carries a checksum of all that is in it: a byte that has changed on the disk is told, and not trained on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import ConfigError, FitError, MachineError
from ..fields import FieldConfig, SurfaceModel
from ..files import flush, replacing
from ..geometry import Box, Similarity
from ..render import Occupancy
from .fit_types import Fit, FitConfig

log = logging.getLogger(__name__)

FIT_FILE, PREVIOUS_FILE = "fit.safetensors", "fit.previous.safetensors"
_VERSION = 7
_KINDS: dict[str, type] = {
    **dict.fromkeys(("blur", "half_width", "world_per_mm", "scale"), float),
    **dict.fromkeys(("step", "n_sensors", "n_stops"), int),
    "name": str,
    "is_metric": bool,
}
_OF_FOREIGN_FACTS = (LookupError, AttributeError, TypeError, RuntimeError, ValueError, ArithmeticError)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """What continues a training: the optimiser's moments, in the order of the model's parameters, and the generator."""

    moments: dict[str, Tensor]
    generator: Tensor
    seed: int


def save_fit(fit: Fit, folder: Path, training: TrainingState | None = None) -> Path:
    """Write `fit` (and, if it is not finished, what continues it) to `folder`/fit.safetensors; then it is on the disk.

    The file that was there becomes fit.previous.safetensors; after a finished fit there is none.

    Raises:
        MachineError: it cannot be written; what was there before still is.
    """
    facts, tensors = _parts_of(fit)
    if training is not None:
        tensors |= {f"moments.{name}": value for name, value in training.moments.items()}
        tensors["generator"] = training.generator
        facts["seed"] = training.seed
    _write(facts, {k: v.cpu().contiguous() for k, v in tensors.items()}, folder, keeps=training is not None)
    return folder / FIT_FILE


def save_snapshot(fit: Fit, path: Path) -> None:
    """Write `fit` for somebody who looks on: what `load_snapshot` reads. It replaces the file, but may be lost.

    The disk is not waited for: a power cut may leave an empty file, as no training goes on from it.

    Raises:
        OSError: it cannot be written.
    """
    facts, tensors = _parts_of(fit)
    told, tensors = json.dumps(facts), {name: value.cpu().contiguous() for name, value in tensors.items()}
    with replacing(path, flushed=False) as temporary:
        temporary.write_bytes(save(tensors, metadata_of(told, tensors)))


def load_snapshot(path: Path) -> Fit:
    """What `save_snapshot` wrote; it comes on the CPU.

    Raises:
        FitError: no such file, not one of ours, damaged, or of another version.
    """
    return _read(path)[0]


def _parts_of(fit: Fit) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = {f"model.{name}": value.detach() for name, value in fit.model.state_dict().items()}
    tensors["occupancy.sdf"] = fit.occupancy.sdf
    tensors["occupancy.cells"] = fit.occupancy.cells
    tensors["world.translation"] = fit.unit_from_world.translation
    tensors["world.box"] = torch.stack([fit.box.low, fit.box.high])
    tensors["views.origins"] = fit.view_origins
    tensors["views.rig_from_world"] = fit.view_rig_from_world
    facts = {
        "version": _VERSION,
        "name": fit.name,
        "step": fit.step,
        "blur": fit.blur,
        "half_width": fit.occupancy.half_width,
        "floor_m": fit.floor_m,
        "is_metric": fit.is_metric,
        "world_per_mm": fit.world_per_mm,
        "scale": fit.unit_from_world.scale,
        "n_sensors": len(fit.model.sensors.log_gain),
        "n_stops": len(fit.model.sensors.stop),
        "config": asdict(fit.config),
    }
    return facts, tensors


def _write(facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, *, keeps: bool) -> None:
    """`keeps`: whether the file that is there stays, as the one before."""
    path, previous, told = folder / FIT_FILE, folder / PREVIOUS_FILE, json.dumps(facts)
    # save_file would write to a temporary file of its own, which a kill leaves behind under a random name
    content = save(tensors, metadata_of(told, tensors))
    try:
        for rest in folder.glob(f".{path.stem}.*{path.suffix}"):
            rest.unlink(missing_ok=True)  # of a process that was killed while it wrote
        # The one before gets its name last: until the new one has its own, the last may be a damaged one.
        with replacing(previous) if keeps and path.exists() else nullcontext() as older:
            if older is not None:
                _second_name(path, older)
            with replacing(path) as temporary:
                temporary.write_bytes(content)
        flush(folder)
        if not keeps:
            previous.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(
            f"{path}: the checkpoint cannot be written ({error}), the one before it is still there; make room on the "
            "disk and give the same command again: it goes on from there"
        ) from error


def _second_name(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:  # a file system without links
        shutil.copyfile(path, other)


def has_fit(folder: Path) -> bool:
    """Whether a fit was saved to the folder, be it whole or not."""
    return (folder / FIT_FILE).exists() or (folder / PREVIOUS_FILE).exists()


def load_fit(folder: Path) -> Fit:
    """Read what `save_fit` wrote, whatever it was computed on; it comes on the CPU, see `Fit.to`.

    Raises:
        FitError: no such file, not one of ours, damaged, or of another version.
    """
    return load_training(folder)[0]


def load_training(folder: Path) -> tuple[Fit, TrainingState | None]:
    """A fit and, if it was not finished, what continues it; raises as `load_fit` does.

    Where the last checkpoint is damaged the one before it is taken, and the log says so.
    """
    path, previous = folder / FIT_FILE, folder / PREVIOUS_FILE
    if not has_fit(folder):
        raise FitError(f"{path}: no such file; give the folder that a fit was saved to")
    try:
        return _read(path)
    except FitError as error:
        with suppress(FitError):
            found = _read(previous)
            log.warning("%s; going back to the checkpoint before it, of step %d", error, found[0].step)
            return found
        raise


def _read(path: Path) -> tuple[Fit, TrainingState | None]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            told, _, checksum = metadata.get("facts", "{}").partition("\n")
            facts = json.loads(told)
            version = facts.get("version", "none")
            if version != _VERSION:
                raise FitError(f"{path}: a fit of version {_VERSION} is needed, this has {version}; train it anew")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        if checksum != _checksum(told, tensors):
            raise FitError(f"{path}: not a fit of ours, or damaged (its checksum differs); delete it, train it anew")
        return _fit_of(facts, tensors)
    except FitError:
        raise
    except (SafetensorError, OSError, *_OF_FOREIGN_FACTS) as error:
        raise FitError(f"{path}: not a fit of ours, or damaged ({error}); delete it, train it anew") from error


def metadata_of(told: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The facts' text and, on a line of its own, the checksum: of several entries safetensors makes up the order."""
    return {"facts": f"{told}\n{_checksum(told, tensors)}"}


def _checksum(told: str, tensors: Mapping[str, Tensor]) -> str:
    """Of the facts and of every tensor's name, type, shape and bytes."""
    found = hashlib.blake2b(told.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _fit_of(facts: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[Fit, TrainingState | None]:
    kinds = _KINDS if facts["floor_m"] is None else {**_KINDS, "floor_m": float}
    _require_kinds(facts, kinds if "seed" not in facts else {**kinds, "seed": int}, "facts")
    config = _config_of(facts["config"])
    model = _model_of(config.field, facts["n_sensors"], facts["n_stops"], tensors)
    low, high = tensors["world.box"]
    fit = Fit(
        name=facts["name"],
        model=model,
        config=config,
        unit_from_world=Similarity(scale=facts["scale"], translation=tensors["world.translation"]),
        box=Box(low=low, high=high),
        floor_m=facts["floor_m"],
        is_metric=facts["is_metric"],
        world_per_mm=facts["world_per_mm"],
        occupancy=Occupancy(
            cells=tensors["occupancy.cells"], sdf=tensors["occupancy.sdf"], half_width=facts["half_width"]
        ),
        view_origins=tensors["views.origins"],
        view_rig_from_world=tensors["views.rig_from_world"],
        blur=facts["blur"],
        step=facts["step"],
    )
    if "generator" not in tensors:
        return fit, None
    moments = {k.removeprefix("moments."): v for k, v in tensors.items() if k.startswith("moments.")}
    return fit, TrainingState(moments=moments, generator=tensors["generator"], seed=facts["seed"])


def _config_of(told: dict[str, Any]) -> FitConfig:
    known = dict(told)
    field = dict(known.pop("field"))
    for values, kind in ((field, FieldConfig), (known, FitConfig)):
        hints = get_type_hints(kind)
        _require_kinds(values, {f.name: hints[f.name] for f in fields(kind) if f.name != "field"}, "config")
    try:
        return FitConfig(field=FieldConfig(**field), **known)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _require_kinds(values: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    """JSON has one kind of number, and texts where numbers should be would be found out late."""
    for name, kind in kinds.items():
        value = values[name]
        right = type(value) is kind or (kind is float and type(value) is int)
        if not right or (kind is float and not math.isfinite(value)):
            raise ValueError(f"{name} in its {where} is {value!r}, want {kind.__name__}")


def _model_of(config: FieldConfig, n_sensors: int, n_stops: int, tensors: dict[str, Tensor]) -> SurfaceModel:
    """The model, made only if its tables are as large as those that are there: facts can claim any size."""
    state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    wanted = {
        "sdf_table": config.sdf_grid.n_entries,
        "color_table": config.color_grid.n_entries,
        "sdf_hidden.bias": config.hidden,
        "sensors.log_gain": n_sensors,
        "sensors.stop": n_stops,
    }
    for name, n_rows in wanted.items():
        if len(state[name]) != n_rows:
            raise ValueError(f"{name} has {len(state[name])} rows, its facts say {n_rows}")
    model = SurfaceModel(config, n_sensors, n_stops, torch.Generator())
    model.load_state_dict(state)
    return model
