"""Settings of a sweep: which objects, where to, on what."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ..errors import ConfigError


class Engine(StrEnum):
    """Who hands out objects: `serial` one after the other, `processes` several at once, `ray` here or on a cluster."""

    serial = "serial"
    processes = "processes"
    ray = "ray"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepConfig:
    """Which objects are reconstructed, and on what. All other words are settings of every run.

    Attributes:
        objects: names or patterns of objects; object=a,b is the same as objects=[a,b].
        captures: capture folders or patterns of them, in place of or beside objects.
        out: the folder for runs, logs and results; the same one again goes on with what is missing there.
        engine: serial, processes on this machine, or ray.
        workers: objects at a time; with a Ray cluster, its cores and GPUs say how many.
        cores_each: CPU cores of each object; 0 shares out this machine's among the workers.
        gpus_each: GPUs of each object, also a share of one; with engine=ray only.
        retries: how often an object is tried again whose process was killed.
        address: of a Ray cluster, such as auto or ray://HOST:10001; by default Ray is started on this machine.
        force: also do anew what is there.
    """

    out: Path
    objects: list[str] = field(default_factory=list)
    captures: list[str] = field(default_factory=list)
    engine: Engine = Engine.processes
    workers: int = 1
    cores_each: int = 0
    gpus_each: float = 0.0
    retries: int = 2
    address: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1 or min(self.cores_each, self.gpus_each, self.retries) < 0:
            raise ConfigError(
                f"workers must be 1 or more, cores_each, gpus_each and retries 0 or more; got {self.workers}, "
                f"{self.cores_each}, {self.gpus_each} and {self.retries}"
            )
        if self.engine != Engine.ray and (self.gpus_each or self.address):
            raise ConfigError("gpus_each and address are for engine=ray; CUDA_VISIBLE_DEVICES chooses a GPU without it")

    @property
    def threads(self) -> int:
        """CPU threads of each object; the same whichever attempt it is, for they decide how sums are rounded."""
        at_once = 1 if self.engine == Engine.serial else self.workers
        return self.cores_each or max(1, (os.cpu_count() or 1) // at_once)
