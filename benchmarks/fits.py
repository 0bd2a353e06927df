"""What the benchmarks of fits share: settings from the command line, a small capture, stamps of every step."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuralrecon.config import to_dataclass, writable_schema
from neuralrecon.errors import ConfigError
from neuralrecon.simulate import SimulateConfig, simulate
from neuralrecon.train import FitConfig
from neuralrecon.train.progress import SCALARS_FILE

SMALL = SimulateConfig(mesh="box", n_stops=10, n_width=320, np_width=240, depth_width=240)
_SMALL_FOLDER = Path("outputs/benchmarks/captures/small_box")


def small_capture(folder: Path = _SMALL_FOLDER) -> Path:
    """A printed box seen by a small rig at ten stops, simulated the first time."""
    return simulate(SMALL, folder)


def fit_config(words: Sequence[str]) -> FitConfig:
    """The default with settings such as `field.levels=14`.

    Raises:
        ConfigError: no such setting, or a value that it cannot have.
    """
    for word in words:
        if "=" not in word:
            raise ConfigError(f"--set {word}: settings of the fit are written key=value, as in field.levels=14")
    try:
        settings = writable_schema(FitConfig)
        settings.merge_with(OmegaConf.from_dotlist(list(words)))
        return to_dataclass(settings)
    except OmegaConfBaseException as error:
        raise ConfigError(f"--set {' '.join(words)}: {str(error).splitlines()[0]}") from error


@dataclass(slots=True, kw_only=True)
class Stamps:
    """When each step of a fit was done; give `note` to `fit` as `on_step`."""

    started: float = field(default_factory=time.perf_counter)
    at: dict[int, float] = field(default_factory=dict)

    def note(self, step: int, terms: dict[str, float]) -> None:
        """Called after every step."""
        self.at[step] = time.perf_counter()

    @property
    def until_first_s(self) -> float:
        """From the call of `fit` to the end of its first step: start from the hull, and what there is to compile."""
        return min(self.at.values()) - self.started

    def seconds(self, steps: Sequence[int]) -> float:
        """Of these steps, each of which must have one before it."""
        return sum(self.at[step] - self.at[step - 1] for step in steps)


def samples_of(folder: Path) -> dict[int, int]:
    """How many points the model was asked at in each step of a finished fit in a folder."""
    with (folder / SCALARS_FILE).open(newline="") as file:
        return {int(float(row["step"])): int(float(row["samples"])) for row in csv.DictReader(file)}
