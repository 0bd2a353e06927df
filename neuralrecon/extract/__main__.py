"""Extract a run's mesh anew, such as finer or in another format. The fit is not repeated."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from ..config import Command, part_of
from ..errors import ConfigError
from ..files import replacing
from ..train import Device, device_of, load_fit
from ..train.run import MeshFormat
from ..train.run_folder import FIT_FOLDER, require_run
from . import MeshConfig, extract_mesh, write_mesh


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractCommand(MeshConfig):
    """Settings of the command.

    Attributes:
        run: the output folder of a run.
        out: the file to write; by default mesh_{voxel}mm in the run's folder, in each of `formats`.
        overwrite: whether the file may be replaced.
        device: where the fit is asked: cpu, cuda, or auto, which is cuda if torch sees a GPU.
        formats: the files in which the mesh is written if `out` does not say.
    """

    run: Path
    out: Path | None = None
    overwrite: bool = False
    device: Device = Device.auto
    formats: list[MeshFormat] = field(default_factory=lambda: [MeshFormat.ply])


def main(config: ExtractCommand) -> float:
    """The mesh's volume in cubic metres."""
    files = [config.out] if config.out else [config.run / f"mesh_{config.voxel_mm:g}mm.{f}" for f in config.formats]
    for file in files:
        if file.suffix[1:] not in list(MeshFormat):
            raise ConfigError(f"out={file}: the name must end in .{', .'.join(MeshFormat)}")
        if file.exists() and not config.overwrite:
            raise ConfigError(f"{file} is there already; add overwrite=true to replace it, or give another out=FILE")
    device = device_of(config.device)
    require_run(config.run, FIT_FOLDER)
    mesh = extract_mesh(load_fit(config.run / FIT_FOLDER).to(device), part_of(config, MeshConfig))
    for file in files:
        with replacing(file) as temporary:
            write_mesh(mesh, temporary)
        print(file)
    return float(mesh.volume)


cli = Command(
    name="extract",
    schema=ExtractCommand,
    main=main,
    about=__doc__ or "",
    examples=[
        ("run=outputs/cup voxel_mm=0.3", "a finer mesh, outputs/cup/mesh_0.3mm.ply"),
        ("run=outputs/cup out=cup.glb", "with another name, in another format"),
    ],
)

if __name__ == "__main__":
    sys.exit(cli())
