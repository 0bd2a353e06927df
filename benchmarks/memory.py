"""Seconds and memory of preparing a capture's evidence: from nothing, again from the cache, and drawing batches.

    python -m benchmarks.memory CAPTURE_DIR [CAPTURE_DIR ...] [--out DIR] [--json FILE] [--batches N]

Each figure comes from a process of its own. See README.md here.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from neuralrecon.capture import SensorKind, read_capture
from neuralrecon.scene import Scene
from neuralrecon.train import FitConfig

from .report import table, write_json

_COLUMNS = (
    "capture", "photographs", "depth maps", "seconds", "peak MB", "again: seconds", "peak MB",
    "on disk MB", "batch ms", "worst ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """One process that prepared a scene; `peak_mb` before a batch was drawn.

    Drawing maps the crops into memory, which the system takes back when it needs to: that counts for no one.
    """

    seconds: float
    peak_mb: float
    cache_mb: float
    batch_ms: float
    worst_batch_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One capture: first from nothing, then from the cache."""

    name: str
    n_photographs: int
    n_depth_maps: int
    first: Preparation
    again: Preparation


def main(words: Sequence[str] | None = None) -> int:
    """0 if every capture could be prepared."""
    args = _parser().parse_args(words)
    if args.prepare:
        print(json.dumps(asdict(prepare(args.captures[0], args.out, args.batches))))
        return 0
    results = [measured(capture, args.out, args.batches) for capture in args.captures]
    rows = [
        [
            r.name, r.n_photographs, r.n_depth_maps, f"{r.first.seconds:.1f}", f"{r.first.peak_mb:.0f}",
            f"{r.again.seconds:.1f}", f"{r.again.peak_mb:.0f}", f"{r.again.cache_mb:.0f}",
            f"{r.again.batch_ms:.1f}", f"{r.again.worst_batch_ms:.1f}",
        ]
        for r in results
    ]  # fmt: skip
    print(table(_COLUMNS, rows))
    if args.json:
        print(write_json(args.json, batches=args.batches, results=results))
    return 0


def measured(path: Path, out: Path | None, n_batches: int) -> Result:
    """Two processes, one behind the other, with an empty cache at first."""
    capture = read_capture(path)
    with TemporaryDirectory(dir=out) as folder:
        command = [sys.executable, "-m", "benchmarks.memory", str(path), "--out", folder, "--batches", str(n_batches)]
        lines = [
            subprocess.run([*command, "--prepare"], stdout=subprocess.PIPE, text=True, check=True).stdout
            for _ in range(2)
        ]
    first, again = (Preparation(**json.loads(line)) for line in lines)
    return Result(
        name=capture.name,
        n_photographs=len(capture.images_of(SensorKind.color)),
        n_depth_maps=len(capture.images_of(SensorKind.depth)),
        first=first,
        again=again,
    )


def prepare(path: Path, folder: Path, n_batches: int) -> Preparation:
    """Make the scene in this process and draw from it as a fit does by default."""
    capture = read_capture(path)
    started = time.perf_counter()
    scene = Scene.from_capture(capture, folder=folder)
    seconds = time.perf_counter() - started
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    config, generator, times = FitConfig(), torch.Generator().manual_seed(0), []
    for _ in range(n_batches):
        began = time.perf_counter()
        if scene.pixels is not None:
            scene.pixels.draw(config.interior_rays, config.edge_rays, generator)
        if scene.readings is not None:
            scene.readings.draw(config.depth_rays, generator)
        times.append(1e3 * (time.perf_counter() - began))
    return Preparation(
        seconds=round(seconds, 2),
        peak_mb=round(peak_mb, 1),
        cache_mb=round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6, 1),
        batch_ms=round(sorted(times)[len(times) // 2], 2),
        worst_batch_ms=round(max(times), 2),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("captures", nargs="+", type=Path, metavar="CAPTURE_DIR")
    parser.add_argument("--out", type=Path, help="folder on the disk that is to hold the cache (a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--batches", type=int, default=200, help="how many are drawn (%(default)s)")
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
