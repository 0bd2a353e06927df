"""Broken files of every kind, read by every reader: accepted, refused by one of our errors, or a crash.

    python -m benchmarks fuzz [--inputs N] [--seconds S] [--only READER ...] [--seed N] [--workers N] [--out DIR]
    python -m benchmarks fuzz --again READER:INPUT [--seed N]

A crash is any other exception, a killed process, more than 1 GB or 10 s for one input, or an error that names no file.
See README.md here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .fuzz_targets import TARGETS, Target
from .fuzz_worker import CRASHES_FILE, Job, Limits, Shared, Tally, broken, keep_crash, put, work
from .report import table, write_json

_CHUNK = 1000  # inputs of one process, which then makes room for a fresh one
_COLUMNS = ("reader", "inputs", "accepted", "refused", "crashes", "inputs/s", "slowest s", "most MB", "peak MB")


@dataclass(slots=True, kw_only=True)
class Row:
    """One reader's figures: of the processor's seconds, of memory beyond what the process held before, of all of it."""

    reader: str
    accepted: int = 0
    refused: int = 0
    crashed: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    slowest_input: int = 0
    most_mb: float = 0.0
    most_input: int = 0
    peak_mb: float = 0.0

    @property
    def n_inputs(self) -> int:
        return self.accepted + self.refused + self.crashed

    def add(self, tally: Tally) -> None:
        self.accepted += tally.accepted
        self.refused += tally.refused
        self.crashed += tally.crashed
        self.peak_mb = max(self.peak_mb, tally.peak_kb / 1024)
        if tally.slowest_us / 1e6 > self.slowest_s:
            self.slowest_s, self.slowest_input = tally.slowest_us / 1e6, tally.slowest_at
        if tally.most_kb / 1024 > self.most_mb:
            self.most_mb, self.most_input = tally.most_kb / 1024, tally.most_at


@dataclass(slots=True, kw_only=True)
class _Process:
    pid: int
    job: Job
    shared: Shared
    root: Path
    started: float = field(default_factory=time.monotonic)


def main(words: Sequence[str] | None = None) -> int:
    """0 if nothing crashed, else 1."""
    args = _parser().parse_args(words)
    targets = [t for t in TARGETS if args.only is None or t.name in args.only]
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_fast_disk()) as scratch:
        valid = {t.name: valid_files(t, Path(scratch) / "valid") for t in targets}
        others = [content for files in valid.values() for content in files.values()]
        jobs = [
            Job(target=t, valid=valid[t.name], others=others, seed=args.seed, start=0, stop=n)
            for t, n in _shared_out(targets, args.inputs)
        ]
        if args.again:
            return _again(jobs, args.again, Path(scratch))
        args.out = args.out.resolve()  # each process has a working folder of its own
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / CRASHES_FILE).unlink(missing_ok=True)
        shutil.rmtree(args.out / "crashes", ignore_errors=True)
        started = time.monotonic()
        rows = run(jobs, args.workers, Path(scratch), args.out, seconds=args.seconds)
        seconds = time.monotonic() - started
    return _report(rows, seconds, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks fuzz", description=__doc__.partition("\n")[0])
    names = [t.name for t in TARGETS]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--inputs", type=int, default=200_000, help="over all readers (default %(default)s)")
    parser.add_argument("--seconds", type=float, help="begin no more work after this time")
    parser.add_argument("--only", nargs="+", choices=names, metavar="READER", help=", ".join(names))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=cores, help="processes at a time (default: all cores)")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/fuzz"))
    parser.add_argument("--again", metavar="READER:INPUT", help="read one input here, with its traceback")
    return parser


def _fast_disk() -> str | None:
    """A disk in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def valid_files(target: Target, folder: Path) -> dict[str, bytes]:
    """The valid files that a reader is fuzzed from, by path."""
    target.write(folder)
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    shutil.rmtree(folder)
    return files


def _shared_out(targets: Sequence[Target], n_inputs: int) -> Iterator[tuple[Target, int]]:
    total = sum(t.share for t in targets)
    return ((t, max(1, round(n_inputs * t.share / total))) for t in targets)


def run(
    jobs: list[Job],
    n_workers: int,
    scratch: Path,
    out: Path,
    *,
    seconds: float | None = None,
    limits: Limits | None = None,
) -> list[Row]:
    """All jobs in pieces, the readers in turn, so that a run that ends early has asked all of them."""
    limits = limits or Limits()
    rows = {job.target.name: Row(reader=job.target.name) for job in jobs}
    waiting = _pieces(jobs)
    running: list[_Process] = []
    deadline = time.monotonic() + (seconds if seconds is not None else float("inf"))
    while waiting or running:
        if time.monotonic() > deadline:
            waiting.clear()
        while waiting and len(running) < n_workers:
            running.append(_started(waiting.pop(0), scratch, out, limits))
        for process in list(running):
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                running.remove(process)
                rest = _ended(process, status, rows[process.job.target.name], out, limits)
                waiting[:0] = [rest] if rest else []
        time.sleep(0.003)
    return list(rows.values())


def _pieces(jobs: list[Job]) -> list[Job]:
    pieces = [
        (start / job.stop, replace(job, start=start, stop=min(start + _CHUNK, job.stop)))
        for job in jobs
        for start in range(0, job.stop, _CHUNK)
    ]
    return [piece for _, piece in sorted(pieces, key=lambda item: item[0])]


def _started(job: Job, scratch: Path, out: Path, limits: Limits) -> _Process:
    shared, root = Shared(), scratch / f"{job.target.name}-{job.start}"
    pid = os.fork()
    if pid == 0:
        try:
            work(job, shared, root, out, limits)
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(70)
    return _Process(pid=pid, job=job, shared=shared, root=root)


def _ended(process: _Process, status: int, row: Row, out: Path, limits: Limits) -> Job | None:
    """Book what the process did; if it was killed, the rest of its job after the input that did it."""
    tally, job, log = process.shared.read(), process.job, process.root.with_suffix(".log")
    said = log.read_bytes()[-2000:].decode(errors="replace").strip() if log.exists() else ""
    shutil.rmtree(process.root, ignore_errors=True)
    log.unlink(missing_ok=True)
    row.add(tally)
    row.seconds += time.monotonic() - process.started
    if status == 0:
        return None
    if os.WIFEXITED(status):
        raise RuntimeError(f"the fuzzer itself failed on {job.target.name}, input {tally.at}: {said}")
    row.crashed += 1
    name = signal.Signals(os.WTERMSIG(status)).name
    told = {"SIGPROF": f"more than {limits.cpu_s:g} s of the processor", "SIGALRM": f"more than {limits.wall_s:g} s"}
    reason = told.get(name, f"killed by {name}")
    keep_crash(job, tally.at, f"{reason}: {said[-300:]}", out)
    return replace(job, start=tally.at + 1) if tally.at + 1 < job.stop else None


def _again(jobs: list[Job], which: str, scratch: Path) -> int:
    """One input once more, in this process."""
    name, _, index = which.partition(":")
    job = next(job for job in jobs if job.target.name == name)
    changes, rng = broken(job, int(index))
    root = scratch / "again"
    put(root, job.valid)
    put(root, changes)
    os.chdir(root)
    shown = {path: content[:80] if isinstance(content, bytes) else content for path, content in changes.items()}
    print(f"changed: {shown}", file=sys.stderr)
    job.target.read(root, [root / path for path, content in changes.items() if isinstance(content, bytes)], rng)
    print("accepted")
    return 0


def _report(rows: list[Row], seconds: float, args: argparse.Namespace) -> int:
    cells = [
        (r.reader, r.n_inputs, r.accepted, r.refused, r.crashed, round(r.n_inputs / max(r.seconds, 1e-9)),
         round(r.slowest_s, 2), round(r.most_mb), round(r.peak_mb)) for r in rows
    ]  # fmt: skip
    n_inputs, n_crashed = sum(r.n_inputs for r in rows), sum(r.crashed for r in rows)
    slowest, most = max(rows, key=lambda r: r.slowest_s), max(rows, key=lambda r: r.most_mb)
    print(table(_COLUMNS, cells))
    print(
        f"\n{n_inputs} inputs in {seconds:.0f} s, {n_crashed} crashes; slowest {slowest.slowest_s:.2f} s "
        f"({slowest.reader}:{slowest.slowest_input}), most memory {most.most_mb:.0f} MB "
        f"({most.reader}:{most.most_input})"
    )
    file = args.out / CRASHES_FILE
    crashes = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for (reader, reason), n in Counter((c["reader"], c["reason"][:160]) for c in crashes).most_common(40):
        first = next(c["input"] for c in crashes if c["reader"] == reader and c["reason"].startswith(reason))
        print(f"  {n} x {reader}:{first} {reason}")
    write_json(args.out / "fuzz.json", seed=args.seed, seconds=seconds, rows=[asdict(r) for r in rows], crashes=crashes)
    return 1 if n_crashed else 0
