"""The whole command on captures whose truth is known: quality, labels, time and memory.

    python -m benchmarks.captures CAPTURE_DIR [CAPTURE_DIR ...] [--out DIR] [--json FILE] [--judge "PYTHON JUDGE.py"]

Each capture has its true mesh in gt/gt_mesh.ply (table frame, metres), as the simulator writes it. See README.md here.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from neuralrecon.evaluate import LabelAgreement, compare_labels
from neuralrecon.evaluate.stage import read_mesh
from neuralrecon.label import OccupancyLabels
from neuralrecon.train.run import TRUTH_FILE
from neuralrecon.train.run_folder import LABEL_FOLDER, MESH_FILE, SUMMARY_FILE

from .report import table, write_json

_COLUMNS = (
    "capture", "Chamfer mm", "F@0.5mm", "IoU", "closed", "bodies",
    "labels uniform", "labels near", "M points/s", "minutes", "peak MB",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A command that ran to its end: exit code, wall clock, and the memory that its largest process held at most."""

    exit_code: int
    seconds: float
    peak_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One capture. `summary` is the run's own, None if the command failed; `judge` is another program's opinion."""

    name: str
    folder: Path
    command: Measured
    summary: dict[str, Any] | None
    labels: LabelAgreement | None
    judge: dict[str, Any] | None


def main(words: Sequence[str] | None = None) -> int:
    """0 if every command ran to its end."""
    parser = _parser()
    args = parser.parse_args(words)
    names = [capture.resolve().name for capture in args.captures]
    if len(set(names)) < len(names):
        parser.error(f"two captures have the same name: {', '.join(names)}")
    for capture in args.captures:
        if not (capture / TRUTH_FILE).is_file():
            parser.error(f"{capture / TRUTH_FILE}: no such file; this measures against the truth")
    # All commands first: a process inherits the peak memory of the one that started it, which so far is small.
    folders = [args.out / name for name in names]
    commands = [_train(*pair, args.set) for pair in zip(args.captures, folders, strict=True)]
    results = [_judged(*row, args.judge) for row in zip(args.captures, folders, commands, strict=True)]
    print(table(_COLUMNS, [row for result in results for row in rows_of(result)]))
    file = args.json or args.out / "captures.json"
    print(write_json(file, settings=args.set, results=results))
    return int(any(command.exit_code for command in commands))


def measured(words: Sequence[str], log: Path) -> Measured:
    """Run a command with its output in `log` (POSIX only)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with log.open("w") as stream:
        process = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    per_mb = 2**20 if sys.platform == "darwin" else 2**10
    return Measured(
        exit_code=process.returncode,
        seconds=round(time.perf_counter() - started, 2),
        peak_mb=round(usage.ru_maxrss / per_mb, 1),
    )


def rows_of(result: Result) -> list[list[object]]:
    """The table's lines about one capture: ours, and the judge's below it."""
    minutes, peak = f"{result.command.seconds / 60:.2f}", f"{result.command.peak_mb:.0f}"
    summary, labels = result.summary, result.labels
    if summary is None or labels is None:
        return [[result.name, f"failed, see {_log_of(result.folder)}", *[None] * 7, minutes, peak]]
    raw, mesh = summary["report"]["raw"], summary["mesh"]
    rows: list[list[object]] = [
        [
            result.name,
            *_scores(raw["chamfer_mm"], raw["f_score_0_5mm"], raw["iou"]),
            mesh["is_watertight"] and mesh["is_winding_consistent"] and mesh["volume_cm3"] > 0,
            mesh["n_bodies"],
            None if labels.uniform is None else f"{labels.uniform:.4f}",
            None if labels.near_surface is None else f"{labels.near_surface:.4f}",
            f"{summary['labels']['points_per_second'] / 1e6:.2f}",
            minutes,
            peak,
        ]
    ]
    if result.judge is not None:
        raw = result.judge.get("raw", {})
        scores = _scores(raw.get("chamfer_mm"), raw.get("f0.5mm"), raw.get("iou"))
        closed, bodies = result.judge.get("is_watertight"), result.judge.get("components")
        rows.append([f"{result.name}, judge", *scores, closed, bodies, *[None] * 5])
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.captures", description=(__doc__ or "").partition("\n")[0]
    )
    dated = Path("outputs/benchmarks") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    parser.add_argument("captures", nargs="+", type=Path, metavar="CAPTURE_DIR")
    parser.add_argument("--out", type=Path, default=dated, help="where each capture's run folder goes (%(default)s)")
    parser.add_argument("--json", type=Path, help="file for the figures (captures.json in the out folder)")
    parser.add_argument("--judge", type=shlex.split, help="command to be given MESH CAPTURE_DIR; prints JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the train command")
    return parser


def _train(capture: Path, folder: Path, settings: Sequence[str]) -> Measured:
    print(f"{capture} -> {folder}", flush=True)
    words = [f"capture={quoted(capture)}", f"out={quoted(folder)}", *settings]
    command = measured([sys.executable, "-m", "neuralrecon.train", *words], _log_of(folder))
    if command.exit_code:
        print(_log_of(folder).read_text(), file=sys.stderr)
    return command


def _judged(capture: Path, folder: Path, command: Measured, judge: Sequence[str] | None) -> Result:
    name = capture.resolve().name
    if command.exit_code:
        return Result(name=name, folder=folder, command=command, summary=None, labels=None, judge=None)
    opinion = None
    if judge:
        words = [*judge, str(folder / MESH_FILE), str(capture)]
        opinion = json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)
    written = OccupancyLabels.load(folder / LABEL_FOLDER / "labels.npz")
    return Result(
        name=name,
        folder=folder,
        command=command,
        summary=json.loads((folder / SUMMARY_FILE).read_text()),
        labels=compare_labels(written, read_mesh(capture / TRUTH_FILE)),
        judge=opinion,
    )


def _scores(*values: float | None) -> list[str | None]:
    return [None if value is None else f"{value:.{digits}f}" for value, digits in zip(values, (3, 3, 4), strict=True)]


def _log_of(folder: Path) -> Path:
    """The command's output, beside its folder: in it would be a file that is no run's."""
    return folder.with_name(f"{folder.name}.txt")


def quoted(path: Path) -> str:
    """A path as the value of a setting; hydra wants backslashes doubled before quotes, and only there."""
    doubled = re.sub(r"\\*(?='|$)", lambda found: found[0] * 2, str(path))
    return "'" + doubled.replace("'", "\\'") + "'"


if __name__ == "__main__":
    sys.exit(main())
