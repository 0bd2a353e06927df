"""Runs that are killed, sweeps with sabotaged objects, and what Ray costs.

    python -m benchmarks reliability [--parts kills sweep overhead] [--kills 50] [--objects 24] [--set KEY=VALUE]

Captures are simulated, small. See README.md here.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuralrecon.simulate import SimulateConfig, simulate
from neuralrecon.train.run_folder import LOG_FILE, SUMMARY_FILE

from .report import table, write_json

SMALL = [
    *("calibration=given", "surface=matte", "scene.hull_resolution=64", "fit.checkpoint_every=25", "mesh.voxel_mm=3"),
    *("fit.interior_rays=128", "fit.edge_rays=64", "fit.depth_rays=256", "fit.occupancy_resolution=64"),
    *("fit.field.log2_table_size=14", "label.n_points=2000", "label.n_points_deep_sdf=2000", "evaluate.n_samples=2000"),
    "evaluate.with_alignment=false",
]
SHAPES = ("box", "mug", "bottle", "sphere", "figure", "can", "vase", "wedge", "duck")
_COMPARED = ("fit/fit.safetensors", "fit/scalars.csv", "mesh.ply", "evidence.npz")
# the last of these that a log has tells the stage that a kill came in
_MARKS = {
    "held out": "evaluation",
    "labels:": "labels",
    "mesh": "mesh",
    "fit ": "fit",
    "hull of": "scene",
    "photographs": "scene",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """One object: kills by the stage that they came in, runs that ended, those of them with the very same files."""

    name: str
    kills: dict[str, int]
    n_ended: int
    n_same: int


def main(words: Sequence[str] | None = None) -> int:
    """0 if all that is promised was kept."""
    from .reliability_sweep import measured_overhead, swept

    args = _parser().parse_args(words)
    args.out.mkdir(parents=True, exist_ok=True)
    settings = [*SMALL, f"fit.steps={args.steps}", *args.set]
    kept, figures = True, {}
    if "kills" in args.parts:
        folders = captures(args.out / "captures", 2)
        each = [killed(f, args.out / "kills", settings, args.kills // 2, args.seed) for f in folders]
        kept &= all(found.n_ended == found.n_same for found in each)
        figures["kills"] = each
        rows = [[k.name, sum(k.kills.values()), k.n_ended, k.n_same, dict(sorted(k.kills.items()))] for k in each]
        print(table(["killed", "kills", "ended", "same files", "by stage"], rows), flush=True)
    if "sweep" in args.parts:
        folders = captures(args.out / "captures", args.objects)
        for engine in args.engines:
            found = swept(engine, folders, args.out / "sweeps", settings, args)
            kept &= found.as_promised
            figures.setdefault("sweeps", []).append(found)
            print(found, flush=True)
    if "overhead" in args.parts:
        folders = captures(args.out / "captures", args.overhead_objects)
        ratios = measured_overhead(folders, args.out / "overhead", settings, args.rounds)
        figures["overhead"] = ratios
        print(table(["way", "s", "x basic"], [[r.way, f"{r.seconds:.1f}", f"{r.ratio:.3f}"] for r in ratios]))
    print(write_json(args.json or args.out / "reliability.json", settings=settings, **figures))
    return 0 if kept else 1


def captures(root: Path, n: int) -> list[Path]:
    """So many small simulated captures, of different shapes and noise; those that are there are taken."""
    folders = []
    for i in range(n):
        shape = SHAPES[i % len(SHAPES)]
        folder = root / f"{shape}_{i:03d}"
        if not folder.is_dir():
            config = SimulateConfig(
                mesh=shape, n_stops=6, n_width=120, np_width=96, depth_width=96, supersample=1, seed=i
            )
            simulate(config, folder)
        folders.append(folder)
    return folders


def killed(capture: Path, root: Path, settings: Sequence[str], n_kills: int, seed: int) -> Killed:
    """Kill the train command after random times, until there are so many kills; then let it end.

    Each time that it ends its files are compared with those of a run that nobody killed, and it starts anew.
    """
    whole, out = root / f"{capture.name}_whole", root / capture.name
    for folder in (whole, out):
        shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    if _command(capture, whole, settings).wait():
        raise SystemExit(f"reliability: {capture}: the run that nobody killed failed; see {whole / LOG_FILE}")
    lasts, pick = time.monotonic() - started, random.Random(seed)
    kills: Counter[str] = Counter()
    n_ended = n_same = 0
    while kills.total() < n_kills or not n_ended or out.exists():
        process = _command(capture, out, settings)
        try:
            process.wait(pick.uniform(0.0, 1.2 * lasts) if kills.total() < n_kills else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills[stage_of(out)] += 1
            continue
        n_ended += 1
        n_same += (out / SUMMARY_FILE).exists() and files(out) == files(whole)
        if files(out) == files(whole):
            shutil.rmtree(out)
        else:
            break  # left to be looked at
    return Killed(name=capture.name, kills=dict(kills), n_ended=n_ended, n_same=n_same)


def files(out: Path) -> dict[str, bytes | None]:
    """What a run is for: the fit, the mesh, the labels."""
    labels = sorted(p.relative_to(out).as_posix() for p in (out / "labels").rglob("*") if p.is_file())
    return {name: (out / name).read_bytes() if (out / name).exists() else None for name in [*_COMPARED, *labels]}


def stage_of(out: Path) -> str:
    """The stage that a run was in when it was killed, as far as its log tells."""
    try:
        lines = (out / LOG_FILE).read_text(errors="replace").splitlines()
    except OSError:
        return "start"
    for line in reversed(lines):
        for mark, stage in _MARKS.items():
            if mark in line:
                return stage
    return "capture"


def _command(capture: Path, out: Path, settings: Sequence[str]) -> subprocess.Popen[bytes]:
    words = [f"capture='{capture.absolute()}'", f"out='{out.absolute()}'", *settings]
    command = [sys.executable, "-m", "neuralrecon.train", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks reliability", description=(__doc__ or "").split("\n")[0]
    )
    parts = ["kills", "sweep", "overhead"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--kills", type=int, default=50, help="over two objects (%(default)s)")
    parser.add_argument("--objects", type=int, default=24, help="of a sweep (%(default)s)")
    parser.add_argument("--sabotaged", type=int, default=4, help="of these (%(default)s)")
    parser.add_argument("--killed-processes", type=int, default=3, help="objects killed once (%(default)s)")
    parser.add_argument("--engines", nargs="+", default=["processes", "ray"], help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="objects at a time (%(default)s)")
    parser.add_argument("--overhead-objects", type=int, default=6, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of the ways in turn (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="of each fit (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of every run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/reliability"), help="(%(default)s)")
    parser.add_argument("--json", type=Path, help="file for the figures (reliability.json in the out folder)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
