"""Textured meshes of finished runs against the photographs held out, beside the field's own rendering.

    python -m benchmarks texture RUN [RUN ...] [--size 2048] [--target-faces 20000] [--sensors N] [--out FILE]
        [--picture docs/images/texture.png]

Each run's texture is baked anew into a folder of its own, outputs/benchmarks/texture/NAME. Photographs are those of
sensors whose name is the given letters and a number: N are a rig's DSLRs. The picture shows, of the first run, a
photograph held out, what the field renders there, and the textured mesh in the room's light and bare. See
README.md here.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuralrecon.errors import EvidenceError, NeuralReconError
from neuralrecon.evaluate import read_mesh
from neuralrecon.evaluate.views import ViewReport, render_photograph
from neuralrecon.texture import TextureConfig, TextureReport, bake, texture_run
from neuralrecon.texture.__main__ import photographs_of, surface_of
from neuralrecon.texture.picture import caster_of, render_textured
from neuralrecon.train import load_fit
from neuralrecon.train.run_folder import FIT_FOLDER, MESH_FILE, require_run

from .pictures import write_beside
from .report import table, write_json

_FOLDER = Path("outputs/benchmarks/texture")
_HEADER = (
    "run",
    "views",
    "field dB",
    "lit dB",
    "bare dB",
    "seen",
    "bake s",
    "size",
    "faces",
    "charts",
    "closed",
    "seam p95",
    "within p95",
)


def main(words: Sequence[str] | None = None) -> int:
    """0 if it ran to its end, 1 with one line on what is wrong."""
    args = _parser().parse_args(words)
    try:
        config = TextureConfig(size=args.size, target_faces=args.target_faces)
        reports = {run.resolve().name: _baked(run, config) for run in args.runs}
        if args.picture is not None:
            print(pictured(args.runs[0], config, args.sensors, args.picture))
    except NeuralReconError as error:
        print(f"benchmarks texture: {error}", file=sys.stderr)
        return 1
    print(table(_HEADER, [row(name, report, args.sensors) for name, report in reports.items()]))
    print(write_json(args.out, runs=reports))
    return 0


def row(name: str, report: TextureReport, sensors: str) -> list[object]:
    """The figures of one run, over the photographs of these sensors."""
    bake, file = report.bake, report.file
    psnr = [mean_psnr(views, sensors) for views in (report.field, report.lit, report.bare)]
    n_views = 0 if report.lit is None else len(_of(report.lit, sensors))
    closed = file.is_watertight and file.is_winding_consistent and file.n_bodies == 1
    seconds = round(sum(bake.seconds.values()), 1)
    return [
        name, n_views, *psnr, f"{bake.seen_share:.1%}", seconds, bake.size, file.n_faces, bake.n_charts, closed,
        bake.seams.across_p95, bake.seams.within_p95,
    ]  # fmt: skip


def mean_psnr(views: ViewReport | None, sensors: str) -> float | None:
    """In dB, over the photographs whose names begin with these letters and a digit; None without any."""
    found = [] if views is None else _of(views, sensors)
    return round(float(np.mean(found)), 2) if found else None


def pictured(run: Path, config: TextureConfig, sensors: str, file: Path) -> Path:
    """A photograph held out | the field's rendering | the textured mesh in the room's light | bare, in one file.

    Raises:
        EvidenceError: no photograph of these sensors was held out.
    """
    fit, (kept, held_out) = load_fit(run / FIT_FOLDER), photographs_of(run)
    photograph = next((p for p in held_out if _is_of(p.name, sensors)), None)
    if photograph is None:
        raise EvidenceError(f"{run}: no photograph of {sensors} was held out; train with scene.hold_out_every=20")
    textured = bake(read_mesh(run / MESH_FILE), fit, kept, config, surface=surface_of(run))
    photo = np.where(photograph.inside[..., None], photograph.rgb / 255, 0)
    caster = caster_of(textured, fit)
    rendered = [render_textured(textured, fit, caster, lit, photograph)[0] for lit in (True, False)]
    return write_beside(file, [photo, render_photograph(fit, photograph)[0], *rendered])


def _is_of(name: str, sensors: str) -> bool:
    return re.match(rf"{re.escape(sensors)}\d", name) is not None


def _of(views: ViewReport, sensors: str) -> list[float]:
    return [view.psnr_db for view in views.views if _is_of(view.name, sensors)]


def _baked(run: Path, config: TextureConfig) -> TextureReport:
    require_run(run, MESH_FILE, FIT_FOLDER)
    return texture_run(
        read_mesh(run / MESH_FILE),
        load_fit(run / FIT_FOLDER),
        photographs_of(run),
        _FOLDER / run.resolve().name,
        config,
        surface=surface_of(run),
    )


def _parser() -> argparse.ArgumentParser:
    defaults = TextureConfig()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks texture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--size", type=int, default=defaults.size)
    parser.add_argument("--target-faces", type=int, default=defaults.target_faces)
    parser.add_argument("--sensors", default="N")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="where the picture goes; none is made without it")
    parser.add_argument("--out", type=Path, default=_FOLDER / "texture.json")
    return parser
