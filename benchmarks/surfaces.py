"""Surfaces of simulated objects of four materials: ours, classical methods, and ours with one part off.

    python -m benchmarks surfaces [--shapes box mug …] [--meshes DIR] [--materials …] [--methods …] [--small]

Every cell of the grid is computed once and kept; the same command goes on where it was left. See README.md here.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from neuralrecon.errors import ConfigError, NeuralReconError
from neuralrecon.files import replacing

from .report import machine, write_json
from .surface_ablations import ABLATIONS
from .surface_baselines import require_open3d
from .surface_cases import MATERIALS, METHODS, SHAPES, WITH_CAVITY, Settings, groups_of, shapes_of
from .surface_cell import run_job
from .surface_grid import Plan, Record, run_grid
from .surface_tables import Table, tables_of

_SMALL = {
    "shapes": ["duck"],
    "materials": ["matte", "mirror"],
    "methods": ["ours", "hull", "silhouettes"],
    "n_stops": 10,
    "n_width": 240,
    "np_width": 160,
    "depth_width": 160,
    "set": ["steps=60"],
    "voxel_mm": 1.5,
    "n_samples": 20_000,
    "out": Path("outputs/benchmarks/surfaces_small"),
}
_UNTOLD = ("--out", "--docs", "--python")  # where files are says nothing about the figures


def main(words: Sequence[str] | None = None) -> int:
    """0, or 1 if a cell failed; 2 if the words are wrong."""
    words = [*(sys.argv[1:] if words is None else words)]
    args = _parsed(words)
    if args.cell:
        return run_job(args.cell)
    try:
        plan = _plan(args)
        if not args.report_only:
            n_done = run_grid(plan, lambda line: print(line, flush=True))
            print(f"{n_done} cells computed\n")
    except NeuralReconError as error:
        print(f"benchmarks surfaces: {error}", file=sys.stderr)
        return 2
    records = plan.records()
    tables = tables_of(records)
    print("\n".join(one.as_text() for one in tables))
    print(write_json(plan.out / "surfaces.json", settings=plan.settings, tables=tables, records=records))
    if args.docs:
        _write_docs(args.docs, words, plan, records, tables)
        print(args.docs)
    return int(any(record.error for record in records))


def _plan(args: argparse.Namespace) -> Plan:
    for option, known in (("materials", MATERIALS), ("methods", METHODS)):
        for name in getattr(args, option):
            if name not in known:
                raise ConfigError(f"--{option} {name}: there are {', '.join(known)}")
    if args.workers < 1 or args.seeds < 1:
        raise ConfigError(f"--workers {args.workers} --seeds {args.seeds}: want 1 or more of each")
    default = [] if args.meshes else SHAPES
    shapes = shapes_of(default if args.shapes is None else args.shapes, args.meshes)
    cells = groups_of(shapes, args.cavities, args.materials, args.methods, args.seeds)
    settings = Settings(
        n_stops=args.n_stops,
        n_width=args.n_width,
        np_width=args.np_width,
        depth_width=args.depth_width,
        fit=tuple(args.set),
        voxel_mm=args.voxel_mm,
        n_samples=args.n_samples,
        refines=args.refine,
    )
    if {"tsdf", "poisson"} & set(args.methods) and not args.report_only:
        require_open3d(args.python)
    settings.simulate_config(cells[0][0])
    settings.digest(cells[0][-1])  # settings that cannot be are told before anything runs
    return Plan(
        groups=cells,
        settings=settings,
        out=args.out,
        python=args.python,
        n_workers=args.workers,
        keep_meshes=args.keep_meshes,
    )


def _write_docs(file: Path, words: Sequence[str], plan: Plan, records: Sequence[Record], tables: list[Table]) -> None:
    """The tables as markdown, under what they come from."""
    n_cells = sum(map(len, plan.groups))
    here = machine()
    commits = ", ".join(dict.fromkeys(str(record.machine["commit"]) for record in records))
    dates = sorted(str(record.machine["date"])[:10] for record in records) or [here["date"][:10]]
    cores = f"{here['machine']}, {here['cores']} cores, {plan.n_workers} processes at a time"
    lines = [
        "# Surfaces of simulated objects",
        "",
        f"`{_told(words)}`",
        "",
        f"{len(records)} of {n_cells} cells ({sum(r.error is not None for r in records)} failed), "
        f"{dates[0]} to {dates[-1]}, commit {commits}; {cores}, Python {here['python']}, torch {here['torch']}. "
        "What the columns are, and how captures are made, is told in `benchmarks/README.md`.",
        "",
        *(one.as_markdown() for one in tables),
    ]
    with replacing(file) as temporary:
        temporary.write_text("\n".join(lines))


def _told(words: Sequence[str]) -> str:
    """The command that computes all, without the options that tell where files are."""
    kept, skip = [], False
    for word in (word for word in words if word != "--report-only"):
        name = word.partition("=")[0]
        if not skip and name not in _UNTOLD:
            kept.append(word)
        skip = not skip and name in _UNTOLD and "=" not in word
    return shlex.join(["python", "-m", "benchmarks", "surfaces", *kept])


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    if parser.parse_args(words).small:
        parser.set_defaults(**_SMALL)
    return parser.parse_args(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks surfaces", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("--shapes", nargs="*", metavar="NAME", help=f"built-in ones ({' '.join(SHAPES)}; none with --meshes)")
    add("--meshes", type=Path, metavar="DIR", help="and all meshes in a folder, in metres, z up")
    add("--cavities", nargs="*", default=WITH_CAVITY, metavar="NAME", help="shapes with a deep one (mug)")
    add("--materials", nargs="+", default=MATERIALS, metavar="NAME", help=" ".join(MATERIALS))
    add("--methods", nargs="+", default=METHODS, metavar="NAME",
        help=f"{' '.join(METHODS)}; parts to take off ours: {' '.join(ABLATIONS)}")  # fmt: skip
    add("--seeds", type=int, default=1, help="captures of each shape and material (default 1)")
    add("--small", action="store_true", help="one shape, two materials, few steps: a trial of two minutes")
    add("--n-stops", type=int, default=20, help="of the turntable (%(default)s)")
    add("--n-width", type=int, default=534, help="of the large photographs, in pixels (%(default)s)")
    add("--np-width", type=int, default=320, help="of the small ones (%(default)s)")
    add("--depth-width", type=int, default=320, help="of the depth maps (%(default)s)")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="setting of the fit")
    add("--refine", action="store_true", help="refine the calibration before, as a run does")
    add("--voxel-mm", type=float, default=0.7, help="of the extraction (%(default)s)")
    add("--n-samples", type=int, default=200_000, help="points on each surface (%(default)s)")
    add("--out", type=Path, default=Path("outputs/benchmarks/surfaces"), help="for cells and captures (%(default)s)")
    add("--workers", type=int, default=1, help="processes at a time; they share the cores (default 1)")
    add("--python", default=sys.executable, help="an interpreter that has Open3D, for tsdf and poisson (this one)")
    add("--keep-meshes", action="store_true", help="in the out folder")
    add("--docs", type=Path, metavar="FILE", help="write the tables as markdown")
    add("--report-only", action="store_true", help="compute nothing, show what is there")
    add("--cell", help=argparse.SUPPRESS)
    return parser
