"""Make a textured model of a run: its mesh, simplified, with a picture baked from the photographs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from ..capture.entries import Entry
from ..config import Command, part_of
from ..errors import ConfigError
from ..evaluate import read_mesh
from ..files import read_json
from ..scene import Photograph, SceneConfig, SurfaceKind, read_photographs
from ..train import load_fit
from ..train.run_folder import (
    CONFIG_FILE,
    CROP_FOLDER,
    FIT_FOLDER,
    MESH_FILE,
    SUMMARY_FILE,
    require_run,
    used_capture,
)
from . import TextureConfig, require_xatlas, texture_run
from .files import FILES


@dataclass(frozen=True, slots=True, kw_only=True)
class TextureCommand(TextureConfig):
    """Settings of the command.

    Attributes:
        run: the output folder of a run.
        out: the folder to write; the run's by default.
        overwrite: whether files of the same names may be replaced.
    """

    run: Path
    out: Path | None = None
    overwrite: bool = False


def main(config: TextureCommand) -> float:
    """Minus the PSNR of the textured mesh in the photographs held out, nan without any."""
    require_xatlas()
    require_run(config.run, MESH_FILE, FIT_FOLDER, CONFIG_FILE, SUMMARY_FILE)
    folder = config.out or config.run
    there = [name for name in FILES if (folder / name).exists()]
    if there and not config.overwrite:
        raise ConfigError(f"{folder / there[0]} is there already; add overwrite=true to replace it, or give out=DIR")
    report = texture_run(
        read_mesh(config.run / MESH_FILE),
        load_fit(config.run / FIT_FOLDER),
        photographs_of(config.run),
        folder,
        part_of(config, TextureConfig),
        surface=surface_of(config.run),
    )
    for name in FILES:
        print(folder / name)
    if report.lit is None or report.field is None or report.bare is None:
        return float("nan")
    print(
        f"PSNR in {len(report.lit.views)} photographs held out: {report.lit.psnr_db:.2f} dB in the room's light, "
        f"{report.bare.psnr_db:.2f} dB bare; the field's {report.field.psnr_db:.2f} dB"
    )
    return -report.lit.psnr_db


def photographs_of(run: Path) -> tuple[list[Photograph], list[Photograph]]:
    """Those that the run trained on, and those that it held out.

    Raises:
        ConfigError: its settings or its summary are damaged, or tell of other photographs held out.
        CaptureError: a photograph cannot be read.
    """
    try:
        told: Any = OmegaConf.load(run / CONFIG_FILE)
        settings: Any = OmegaConf.to_container(told["scene"])
        wanted = SceneConfig(**{name: settings[name] for name in ("hold_out_every", "edge_px", "cache_limit_gb")})
        views = read_json(run / SUMMARY_FILE)["views"]
        names = [] if views is None else [view["name"] for view in views["views"]]
    except (OSError, ValueError, LookupError, TypeError, YAMLError) as error:
        raise ConfigError(
            f"run={run}: {CONFIG_FILE} or {SUMMARY_FILE} is damaged ({error}); give the command of the run again with "
            "overwrite=true"
        ) from error
    kept, held_out = read_photographs(used_capture(run), wanted, run / CROP_FOLDER)
    if [photograph.name for photograph in held_out] != names:
        raise ConfigError(
            f"run={run}: held out {', '.join(names) or 'nothing'}, but by its settings now it would be "
            f"{', '.join(p.name for p in held_out) or 'nothing'}; its capture has changed: run it anew"
        )
    return kept, held_out


def surface_of(run: Path) -> SurfaceKind:
    """The kind of surface that a run took.

    Raises:
        ConfigError: its summary is damaged.
    """
    try:
        return SurfaceKind(Entry.of(read_json(run / SUMMARY_FILE), f"{run / SUMMARY_FILE}: the file").text("surface"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"run={run}: {SUMMARY_FILE} is damaged ({error}); run it anew") from error


cli = Command(
    name="texture",
    schema=TextureCommand,
    main=main,
    about=__doc__ or "",
    examples=[
        ("run=outputs/cup", "outputs/cup/mesh_textured.glb, .obj and texture.json"),
        ("run=outputs/cup size=4096 target_faces=50000 overwrite=true", "a larger picture on a finer mesh"),
    ],
)

if __name__ == "__main__":
    sys.exit(cli())
