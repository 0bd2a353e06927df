"""What a whole data set costs: stages and bytes of finished runs, a queue of such objects, and the table of a sweep.

    python -m benchmarks scale outputs/cup outputs/box [--objects 202 100000] [--photos 1800] [--workers 8 1000]

Stages whose time grows with the images, depth frames too, are scaled to --photos; the rest is as measured. See
README.md here.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import mean

from neuralrecon.files import read_json
from neuralrecon.sweep import Outcome, read_outcomes
from neuralrecon.sweep.outcome import write_outcome
from neuralrecon.sweep.results import write_results
from neuralrecon.train.run_folder import CROP_FOLDER, MASK_FOLDER, SUMMARY_FILE, require_run
from neuralrecon.train.verdict import Status

from .report import table, write_json

BY_PHOTOGRAPH = ("capture", "calibration", "masks", "segmentation", "scene", "depth")
_MAY_GO = (CROP_FOLDER, MASK_FOLDER, "calibration")  # found or made again from the capture


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One finished run. `seconds` by stage; megabytes of what must be kept, and of what can be made again."""

    name: str
    n_photos: int
    seconds: dict[str, float]
    peak_mb: float
    kept_mb: float
    remade_mb: float

    def total(self, n_photos: int) -> float:
        """Seconds with so many images."""
        more = n_photos / self.n_photos
        return sum(s * (more if stage in BY_PHOTOGRAPH else 1.0) for stage, s in self.seconds.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """So many objects over so many workers: hours until the last ends, and how busy the workers are until then."""

    n_objects: int
    n_workers: int
    hours: float
    busy: float
    worker_hours: float
    kept_tb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookkeeping:
    """Seconds that a sweep of so many objects takes to write its tables once, and to read all outcomes."""

    n_objects: int
    write_s: float
    read_s: float


def main(words: Sequence[str] | None = None) -> int:
    """0; what is wrong with a folder is told by an error."""
    args = _parser().parse_args(words)
    costs = [cost_of(run) for run in args.runs]
    rows = [
        [
            c.name,
            *map(round, (c.n_photos, sum(c.seconds.values()), c.total(args.photos), c.peak_mb, c.kept_mb, c.remade_mb)),
        ]
        for c in costs
    ]
    header = ["run", "images", "s", f"s with {args.photos}", "peak MB", "kept MB", "made again MB"]
    print(table(header, rows))
    queues = [queued(costs, n, w, args) for n, w in zip(args.objects, args.workers, strict=True)]
    header = ["objects", "workers", "hours", "busy", "worker hours", "kept TB"]
    print(table(header, [_rounded(q) for q in queues]))
    books = [bookkeeping(n) for n in args.tables]
    print(table(["objects", "tables written s", "outcomes read s"], [_rounded(b) for b in books]))
    print(write_json(args.out / "scale.json", photos=args.photos, costs=costs, queues=queues, bookkeeping=books))
    return 0


def cost_of(run: Path) -> Cost:
    """Of a finished run, from its summary and its files."""
    require_run(run, SUMMARY_FILE)
    told = read_json(run / SUMMARY_FILE)
    sizes = {file: file.stat().st_size / 1e6 for file in run.rglob("*") if file.is_file()}
    remade = sum(size for file, size in sizes.items() if file.relative_to(run).parts[0] in _MAY_GO)
    return Cost(
        name=run.name,
        n_photos=told["n_images"],
        seconds=told["seconds"],
        peak_mb=max(told["peak_memory_mb"].values()),
        kept_mb=sum(sizes.values()) - remade,
        remade_mb=remade,
    )


def queued(costs: Sequence[Cost], n_objects: int, n_workers: int, args: argparse.Namespace) -> Queue:
    """Objects as long as the measured ones, give or take a third, the longest first, as a sweep takes them.

    Some are killed half-way and done again.
    """
    pick = random.Random(args.seed)
    lengths = [pick.choice(costs).total(args.photos) * pick.uniform(0.67, 1.33) for _ in range(n_objects)]
    lengths = sorted((s * (1.5 if pick.random() < args.killed else 1.0) for s in lengths), reverse=True)
    free_at = [0.0] * n_workers
    for length in lengths:
        heapq.heapreplace(free_at, free_at[0] + length)
    hours = max(free_at) / 3600
    return Queue(
        n_objects=n_objects,
        n_workers=n_workers,
        hours=hours,
        busy=sum(lengths) / 3600 / (hours * n_workers),
        worker_hours=sum(lengths) / 3600,
        kept_tb=n_objects * mean(cost.kept_mb for cost in costs) / 1e6,
    )


def bookkeeping(n_objects: int) -> Bookkeeping:
    """Measured in a temporary folder, with an outcome for every object."""
    figures = {"silhouette_iou": 0.99, "psnr_db": 25.0, "depth_residual_mm": 0.5, "observed_share": 0.9}
    names = [f"set/object_{i:06d}" for i in range(n_objects)]
    known = {name: Outcome(name=name, status=Status.ok, figures=dict(figures), seconds=240.0) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for outcome in known.values():
            write_outcome(outcome, Path(folder))
        started = time.perf_counter()
        write_results(names, known, Path(folder))
        written = time.perf_counter()
        assert len(read_outcomes(Path(folder))) == n_objects
        return Bookkeeping(n_objects=n_objects, write_s=written - started, read_s=time.perf_counter() - written)


def _rounded(row: Queue | Bookkeeping) -> list[float]:
    return [round(value, 3) for value in astuple(row)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("runs", nargs="+", type=Path, help="folders of finished runs")
    add("--objects", nargs="+", type=int, default=[202, 100_000], help="(%(default)s)")
    add("--workers", nargs="+", type=int, default=[8, 1000], help="objects at a time, one for each of --objects")
    add("--photos", type=int, default=1800, help="images of a capture, depth frames too (%(default)s)")
    add("--tables", nargs="+", type=int, default=[202, 1000, 4000], help="objects in a sweep's table (%(default)s)")
    add("--killed", type=float, default=0.02, help="share of objects that are killed half-way (%(default)s)")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("outputs/benchmarks/scale"), help="(%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
