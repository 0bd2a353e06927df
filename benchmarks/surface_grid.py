"""Runs the cells of the surface benchmark, each in a process of its own, and keeps one file a cell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from neuralrecon.files import replacing
from neuralrecon.train.run_folder import plain

from .report import machine
from .surface_cases import CAPTURE, Cell, Settings
from .surface_cell import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A cell that was computed, or that failed with `error`. `scores` are those of `SurfaceScores` by name.

    `bad_depth` is a capture's share of depth on the object that is missing or wrong; `total_s` the whole process.
    """

    cell: Cell
    digest: str
    total_s: float
    n_threads: int
    machine: dict[str, Any]
    error: str | None = None
    scores: dict[str, float] | None = None
    closed: bool | None = None
    depth_auroc: float | None = None
    psnr_db: float | None = None
    bad_depth: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where a grid's files are, and what runs it."""

    groups: list[list[Cell]]
    settings: Settings
    out: Path
    python: str
    n_workers: int
    keep_meshes: bool

    @property
    def n_threads(self) -> int:
        """Of each process."""
        n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, n_cores // self.n_workers)

    def record(self, cell: Cell) -> Record | None:
        """What is there of a cell with these settings."""
        file = self._file(cell)
        if not file.is_file():
            return None
        told = json.loads(file.read_text())
        found = Record(**told | {"cell": Cell(**told["cell"])})
        return found if found.digest == self.settings.digest(cell) else None

    def records(self) -> list[Record]:
        """All that is there, in the grid's order."""
        return [found for group in self.groups for cell in group if (found := self.record(cell))]

    def write(self, record: Record) -> None:
        """Whole or not at all."""
        with replacing(self._file(record.cell)) as temporary:
            temporary.write_text(json.dumps(plain(asdict(record)), indent=1, allow_nan=False) + "\n")

    def capture_folder(self, cell: Cell) -> Path:
        """A folder of its own for other settings."""
        capture = replace(cell, method=CAPTURE)
        return self.out / "captures" / f"{capture.name}_{self.settings.digest(capture)}"

    def _file(self, cell: Cell) -> Path:
        return self.out / "cells" / f"{cell.name}.json"


def wanted(plan: Plan, group: Sequence[Cell]) -> list[Cell]:
    """The cells of one capture that are not there or failed; with the capture itself, if its folder is gone."""
    missing = [cell for cell in group if (found := plan.record(cell)) is None or found.error is not None]
    capture = group[0]
    if missing and capture not in missing and not plan.capture_folder(capture).is_dir():
        missing.insert(0, capture)
    return missing


def run_grid(plan: Plan, say: Callable[[str], None]) -> int:
    """Computes what is not there; returns how many cells it computed. Progress goes to `say`."""
    todo = [cells for group in plan.groups if (cells := wanted(plan, group))]
    clock = Clock.of(plan.records(), [cell for cells in todo for cell in cells], plan.n_workers)
    here, stopped = machine(), threading.Event()

    def run_group(cells: list[Cell]) -> None:
        broken = None
        for cell in cells:
            if stopped.is_set():
                return
            if broken is None:
                record = _run_cell(plan, cell, here)
            else:
                known = {"digest": plan.settings.digest(cell), "n_threads": plan.n_threads, "machine": here}
                record = Record(cell=cell, total_s=0.0, error=f"no capture: {broken}", **known)
            if stopped.is_set():
                return
            plan.write(record)
            say(clock.note(record))
            broken = record.error if cell.method == CAPTURE else broken

    with ThreadPoolExecutor(plan.n_workers) as pool:
        try:
            for done in [pool.submit(run_group, cells) for cells in todo]:
                done.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sum(map(len, todo))


def _run_cell(plan: Plan, cell: Cell, here: dict[str, Any]) -> Record:
    """In a process of its own; what it says goes to a file, the last line of a failed one's into the record."""
    mesh = plan.out / "meshes" / f"{cell.name}.ply" if plan.keep_meshes and cell.method != CAPTURE else None
    job = Job(
        cell=cell,
        settings=plan.settings,
        capture=plan.capture_folder(cell),
        python=plan.python,
        n_threads=plan.n_threads,
        mesh=mesh,
    )
    threads = str(plan.n_threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    words = [sys.executable, "-m", "benchmarks", "surfaces", "--cell", job.as_json()]
    began = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    record = Record(
        cell=cell,
        digest=plan.settings.digest(cell),
        total_s=round(time.perf_counter() - began, 2),
        n_threads=plan.n_threads,
        machine=here,
    )
    log = plan.out / "logs" / f"{cell.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(done.stderr)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return replace(record, error=lines[-1] if lines else f"ended with {done.returncode}")
    return replace(record, **json.loads(done.stdout.splitlines()[-1]))


@dataclass(slots=True, kw_only=True)
class Clock:
    """How long the cells that are left will take, by what others of their methods took."""

    seconds: dict[str, list[float]]
    left: list[Cell]
    n_all: int
    n_workers: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def of(records: Sequence[Record], left: Sequence[Cell], n_workers: int) -> Clock:
        """Learns from records that are there."""
        seconds: dict[str, list[float]] = {}
        for record in records:
            if record.error is None:
                seconds.setdefault(record.cell.method, []).append(record.total_s)
        return Clock(seconds=seconds, left=list(left), n_all=len(left), n_workers=n_workers)

    def note(self, record: Record) -> str:
        """A line about a cell that is done."""
        with self.lock:
            self.left.remove(record.cell)
            if record.error is None:
                self.seconds.setdefault(record.cell.method, []).append(record.total_s)
            count, minutes = self.n_all - len(self.left), self.left_s() / 60
        result = "done" if record.scores is None else f"{record.scores['chamfer_mm']:.3f} mm"
        said = result if record.error is None else f"FAILED: {record.error}"
        cell = record.cell
        where = f"{cell.shape}, {cell.material}, {cell.method}, seed {cell.seed}"
        return f"[{count}/{self.n_all}] {where}: {said} ({record.total_s:.0f} s; about {minutes:.0f} min left)"

    def left_s(self) -> float:
        """Methods of which nothing is known yet take as long as the mean of the others."""
        means = {method: sum(values) / len(values) for method, values in self.seconds.items()}
        unknown = sum(means.values()) / len(means) if means else 0.0
        return sum(means.get(cell.method, unknown) for cell in self.left) / self.n_workers
