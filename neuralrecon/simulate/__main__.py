"""Simulate a turntable rig's capture of a mesh: BigBIRD's layout, with the truth in gt/."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ..config import Command, part_of
from . import SimulateConfig, simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateCommand(SimulateConfig):
    """Settings of the command.

    Attributes:
        out: the capture folder to write: a new one, or an empty one. This very simulation is kept if it is there.
    """

    out: Path


def main(config: SimulateCommand) -> float:
    """The number of stops."""
    print(simulate(part_of(config, SimulateConfig), config.out))
    return float(config.n_stops)


cli = Command(
    name="simulate",
    schema=SimulateCommand,
    main=main,
    about=__doc__ or "",
    examples=[
        ("mesh=mug material=glass out=data/sim/glass_mug", "a built-in mesh"),
        ("mesh=scan.obj scale=0.001 n_stops=40 out=data/sim/scan", "a mesh in millimetres, in 9 degree steps"),
    ],
)

if __name__ == "__main__":
    sys.exit(cli())
