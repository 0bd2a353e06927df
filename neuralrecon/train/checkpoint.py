"""Fits on disk: one safetensors file, written whole, with everything that `Fit` and a resumed training need."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ConfigError, FitError
from ..fields import FieldConfig, SurfaceModel
from ..files import replacing
from ..geometry import Box, Similarity
from ..render import Occupancy
from .fit_types import Fit, FitConfig

FIT_FILE = "fit.safetensors"
_VERSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """What continues a training: the optimiser's moments, in the order of the model's parameters, and the generator."""

    moments: dict[str, Tensor]
    generator: Tensor
    seed: int


def save_fit(fit: Fit, folder: Path, training: TrainingState | None = None) -> Path:
    """Write `fit` (and, if it is not finished, what continues it) to `folder`/fit.safetensors."""
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
    path = folder / FIT_FILE
    with replacing(path) as temporary:
        save_file(
            {k: v.cpu().contiguous() for k, v in tensors.items()}, temporary, metadata={"facts": json.dumps(facts)}
        )
    return path


def load_fit(folder: Path) -> Fit:
    """Read what `save_fit` wrote, whatever it was computed on; it comes on the CPU, see `Fit.to`.

    Raises:
        FitError: no such file, not one of ours, damaged, or of another version.
    """
    return load_training(folder)[0]


def load_training(folder: Path) -> tuple[Fit, TrainingState | None]:
    """A fit and, if it was not finished, what continues it; raises as `load_fit` does."""
    path = folder / FIT_FILE
    if not path.is_file():
        raise FitError(f"{path}: no such file; give the folder that a fit was saved to")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            if facts.get("version") != _VERSION:
                found = facts.get("version", "none")
                raise FitError(f"{path}: a fit of version {_VERSION} is needed, this has {found}; train it anew")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        return _fit_of(facts, tensors)
    except (SafetensorError, OSError, LookupError, AttributeError, TypeError, RuntimeError) as error:
        raise FitError(f"{path}: not a fit of ours, or damaged ({error}); train it anew") from error
    except (json.JSONDecodeError, ConfigError) as error:
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
