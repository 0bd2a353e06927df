"""Write a finished run for other programs: BOP, URDF, MJCF, USD, nerfstudio, COLMAP."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from ..config import Command, part_of
from ..errors import ConfigError
from ..train.run_folder import MESH_FILE, require_run
from . import ExportConfig, ExportFormat
from .run import export_run


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCommand(ExportConfig):
    """Settings of the command.

    Attributes:
        run: the output folder of a run.
        formats: what is written, each into a folder of its name.
        out: the folder of these folders; by default export in the run's folder.
        overwrite: whether folders that are there may be replaced.
        sensors: only these sensors of the capture, such as [N1,N3,NP5]; all if empty.
        every_nth_stop: only every n-th stop of the turntable.
    """

    run: Path
    formats: list[ExportFormat]
    out: Path | None = None
    overwrite: bool = False
    sensors: list[str] = field(default_factory=list)
    every_nth_stop: int = 1


def main(config: ExportCommand) -> float:
    """Seconds that it took."""
    require_run(config.run, MESH_FILE)
    if not config.formats:
        raise ConfigError(f"formats=[] names nothing to write; name some of {', '.join(ExportFormat)}")
    done = export_run(
        config.run,
        config.formats,
        part_of(config, ExportConfig),
        out=config.out,
        sensors=config.sensors,
        every_nth_stop=config.every_nth_stop,
        overwrite=config.overwrite,
    )
    for each in done:
        print(f"{each.format}: {each.folder}")
    return sum(each.seconds for each in done)


cli = Command(
    name="export",
    schema=ExportCommand,
    main=main,
    about=__doc__ or "",
    examples=[
        ("run=outputs/cup formats=[urdf,usd] body.mass_kg=0.31", "a rigid body for simulators, with its true mass"),
        ("run=outputs/cup formats=[bop] bop.obj_id=3", "models and scenes for pose estimation"),
        ("run=outputs/cup formats=[nerfstudio,colmap] images=link", "the calibrated photographs, without copies"),
    ],
)

if __name__ == "__main__":
    sys.exit(cli())
