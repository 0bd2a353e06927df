"""One process that reads broken files, within bounds of memory and time, and what it tells its parent.

The parent learns of the process's progress through shared memory, so that nothing is lost when a reader takes the whole
process down. An input is a function of seed, reader and number alone.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from neuralrecon.errors import NeuralReconError

from .fuzz_mutations import mutated
from .fuzz_targets import Target

CRASHES_FILE = "crashes.jsonl"
_MB = 2**20
_NOTICED_KB = 8 * 1024  # of growth; less is the interpreter's own coming and going
_PLACE = struct.Struct("=9q")


class Folder:
    """Stands for a folder where a file should be."""


Broken = dict[str, bytes | Folder | None]
"""Path -> content, a folder, or None for a file that is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one input: memory beyond what the process held before, time of the processor, time of the clock."""

    memory_mb: int = 1000
    cpu_s: float = 10.0
    wall_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Inputs `start` to `stop` of a reader; `valid` are its files, `others` contents of all kinds."""

    target: Target
    valid: Mapping[str, bytes]
    others: list[bytes]
    seed: int
    start: int
    stop: int


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the inputs so far, and which took the most time of the processor and the most memory."""

    at: int = 0
    accepted: int = 0
    refused: int = 0
    crashed: int = 0
    slowest_us: int = 0
    slowest_at: int = 0
    most_kb: int = 0
    most_at: int = 0
    peak_kb: int = 0


class Shared:
    """A tally in memory that a forked process shares with its parent."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _PLACE.size)

    def write(self, tally: Tally) -> None:
        self._memory[:] = _PLACE.pack(*(getattr(tally, name) for name in Tally.__slots__))

    def read(self) -> Tally:
        return Tally(**dict(zip(Tally.__slots__, _PLACE.unpack(self._memory[:]), strict=True)))


def broken(job: Job, index: int) -> tuple[Broken, Random]:
    """What input number `index` changes, and the generator that goes on to draw how it is read."""
    rng = Random(f"{job.seed}/{job.target.name}/{index}")
    names = sorted(name for name in job.valid if not name.startswith(job.target.kept or "\0"))
    changes: Broken = {}
    for name in rng.sample(names, min(len(names), rng.choice((1, 1, 1, 1, 1, 1, 1, 2)))):
        draw = rng.random()
        if draw < 0.005:
            changes[name] = None
        elif draw < 0.01:
            changes[name] = Folder()
        elif draw < 0.02:
            changes[name] = job.valid[rng.choice(names)]
        else:
            changes[name] = mutated(job.valid[name], job.others, rng)
    return changes, rng


def put(root: Path, files: Mapping[str, bytes | Folder | None]) -> None:
    """Write these files, whatever was at their places."""
    for name, content in files.items():
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        if isinstance(content, bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        elif content is None:
            path.unlink(missing_ok=True)
        else:
            path.unlink(missing_ok=True)
            path.mkdir(parents=True)


def work(job: Job, shared: Shared, root: Path, out: Path, limits: Limits) -> None:
    """Read all inputs of the job; called in a process of its own, which may not survive it."""
    sys.stderr.flush()
    silence = os.open(root.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    warnings.simplefilter("ignore")
    root.mkdir(parents=True)
    os.chdir(root)
    put(root, job.valid)
    _bound_memory(limits)
    tally = Tally(at=job.start)
    for index in range(job.start, job.stop):
        tally.at = index
        shared.write(tally)
        changes, rng = broken(job, index)
        put(root, changes)
        before, started = _settled_kb(), time.process_time()
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)
        signal.setitimer(signal.ITIMER_REAL, limits.wall_s)
        found = outcome(job, root, changes, rng)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        grown_kb = _peak_kb() - before
        _note(tally, index, int(1e6 * (time.process_time() - started)), grown_kb)
        if grown_kb > limits.memory_mb * 1024:
            found = f"{grown_kb // 1024} MB of memory"
        if found in ("accepted", "refused"):
            tally.accepted += found == "accepted"
            tally.refused += found == "refused"
        else:
            tally.crashed += 1
            keep_crash(job, index, found, out)
        _restore(job, root, changes)
    tally.at = job.stop
    shared.write(tally)


def outcome(job: Job, root: Path, changes: Broken, rng: Random) -> str:
    """accepted, refused, or what is wrong: another exception, memory used up, an error that names no file."""
    try:
        job.target.read(root, [root / name for name, content in changes.items() if isinstance(content, bytes)], rng)
    except NeuralReconError as error:
        if any(isinstance(cause, MemoryError) for cause in _causes(error)):
            return f"out of memory, told as {type(error).__name__}: {_short(error, root)}"
        named = str(root) in str(error) or any(Path(name).name in str(error) for name in job.valid)
        return "refused" if named else f"names no file: {type(error).__name__}: {_short(error, root)}"
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "neuralrecon" in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"{type(error).__name__} at {where}: {_short(error, root)}"
    return "accepted"


def _short(error: BaseException, root: Path) -> str:
    """Its text without what differs from run to run."""
    return str(error).replace(str(root), "")[:300]


def keep_crash(job: Job, index: int, reason: str, out: Path) -> None:
    """A line in the list of crashes, and beside it the files as they were read."""
    put(out / "crashes" / f"{job.target.name}-{index}", broken(job, index)[0])
    line = json.dumps({"reader": job.target.name, "input": index, "seed": job.seed, "reason": reason}) + "\n"
    with (out / CRASHES_FILE).open("a") as file:
        file.write(line)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _note(tally: Tally, index: int, used_us: int, grown_kb: int) -> None:
    if used_us > tally.slowest_us:
        tally.slowest_us, tally.slowest_at = used_us, index
    tally.peak_kb = max(tally.peak_kb, _peak_kb())
    if grown_kb > _NOTICED_KB:
        if grown_kb > tally.most_kb:
            tally.most_kb, tally.most_at = grown_kb, index
        _forget_peak()


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _settled_kb() -> int:
    """The peak; if making the input has raised it, what is held now."""
    held_kb = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    if _peak_kb() - held_kb > _NOTICED_KB:
        _forget_peak()
    return _peak_kb()


def _forget_peak() -> None:
    """Let the next peak be measured from what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def _bound_memory(limits: Limits) -> None:
    """A wall behind the limit, so that what breaks it is told and does not take the machine down."""
    _forget_peak()
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    most = held + 2 * limits.memory_mb * _MB
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _restore(job: Job, root: Path, changes: Broken) -> None:
    if job.target.is_pure:
        put(root, {name: job.valid[name] for name in changes})
        return
    for entry in root.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    put(root, job.valid)
