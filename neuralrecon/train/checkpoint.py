"""Fits on disk: one safetensors file, written whole, with everything that `Fit` and a resumed training need.

While a fit is not finished the checkpoint before the last one stays beside it, and is taken if the last is damaged.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zlib
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ConfigError, FitError
from ..fields import FieldConfig, SurfaceModel
from ..files import flush, replacing
from ..geometry import Box, Similarity
from ..render import Occupancy
from .fit_types import Fit, FitConfig

log = logging.getLogger(__name__)

FIT_FILE, PREVIOUS_FILE = "fit.safetensors", "fit.previous.safetensors"
_VERSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """What continues a training: the optimiser's moments, in the order of the model's parameters, and the generator."""

    moments: dict[str, Tensor]
    generator: Tensor
    seed: int


def save_fit(fit: Fit, folder: Path, training: TrainingState | None = None) -> Path:
    """Write `fit` (and, if it is not finished, what continues it) to `folder`/fit.safetensors; then it is on the disk.

    The file that was there becomes fit.previous.safetensors; after a finished fit there is none.
    """
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
    if training is not None:
        tensors |= {f"moments.{name}": value for name, value in training.moments.items()}
        tensors["generator"] = training.generator
        facts["seed"] = training.seed
    here = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    path, previous = folder / FIT_FILE, folder / PREVIOUS_FILE
    keeps = training is not None and path.exists()
    # The one before gets its name last: until the new one has its own, a damaged last one may be all that is beside it.
    with replacing(previous) if keeps else nullcontext() as older:
        if older is not None:
            _second_name(path, older)
        with replacing(path) as temporary:
            save_file(here, temporary, metadata={"facts": json.dumps(facts | {"crc32": _checksum(facts, here)})})
            flush(temporary)
    flush(folder)
    if training is None:
        previous.unlink(missing_ok=True)
    return path


def _second_name(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:  # a file system without links
        shutil.copyfile(path, other)


def _checksum(facts: Mapping[str, object], tensors: Mapping[str, Tensor]) -> int:
    """Of everything in the file: safetensors itself does not see a flipped bit."""
    found = zlib.crc32(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        found = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, zlib.crc32(name.encode(), found))
    return found


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
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            if facts.get("version") != _VERSION:
                found = facts.get("version", "none")
                raise FitError(f"{path}: a fit of version {_VERSION} is needed, this has {found}; train it anew")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        if (told := facts.pop("crc32", None)) is not None and told != _checksum(facts, tensors):
            raise FitError(f"{path}: not a fit of ours, or damaged (its checksum differs); train it anew")
        return _fit_of(facts, tensors)
    except (SafetensorError, OSError, LookupError, AttributeError, TypeError, RuntimeError) as error:
        raise FitError(f"{path}: not a fit of ours, or damaged ({error}); train it anew") from error
    except (json.JSONDecodeError, UnicodeDecodeError, ConfigError) as error:
        raise FitError(f"{path}: not a fit of ours, or damaged ({error}); train it anew") from error


def _fit_of(facts: dict, tensors: dict[str, Tensor]) -> tuple[Fit, TrainingState | None]:
    known = dict(facts["config"])
    config = FitConfig(field=FieldConfig(**known.pop("field")), **known)
    model = SurfaceModel(config.field, facts["n_sensors"], facts["n_stops"], torch.Generator())
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
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
