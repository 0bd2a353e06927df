"""Sweeps in which objects are sabotaged and processes killed; and the time of a sweep over Ray against hydra's own."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from neuralrecon.sweep import Outcome, read_outcomes
from neuralrecon.train.folder_lock import holder_of, is_locked

# what the reason of a sabotaged object must name
_REASONS = {
    "corrupt": "image is truncated",
    "uncalibrated": "calibration",
    "unmasked": "no pixel is object",
    "no_disk": "[Errno ",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep came to. `true_reasons` of the `sabotaged`; objects that the second run did, of `due_again`."""

    engine: str
    exit_status: int
    n_objects: int
    statuses: dict[str, int]
    sabotaged: int
    true_reasons: int
    killed: int
    retried: int
    done_again: int
    due_again: int
    seconds: float

    @property
    def as_promised(self) -> bool:
        """No abort, every verdict there, the reasons true, the killed retried, nothing done twice for nothing."""
        return (
            self.exit_status == int(self.sabotaged > 0)
            and sum(self.statuses.values()) == self.n_objects
            and self.statuses.get("failed", 0) == self.true_reasons == self.sabotaged
            and self.retried == self.killed
            and self.done_again == self.due_again
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds of a way to do the same objects, the median over the rounds, and its ratio to hydra's basic launcher."""

    way: str
    seconds: float
    ratio: float


def swept(engine: str, folders: Sequence[Path], root: Path, settings: Sequence[str], args: argparse.Namespace) -> Swept:
    """Copy the captures, sabotage some, kill the processes of others once, sweep; and sweep once more."""
    root, out = root / engine, root / engine / "out"
    shutil.rmtree(root, ignore_errors=True)
    copies = [Path(shutil.copytree(folder, root / "captures" / folder.name)) for folder in folders]
    kinds = list(_REASONS)
    sabotaged = {copy.name: kinds[i % len(kinds)] for i, copy in enumerate(copies[: args.sabotaged])}
    for name, kind in sabotaged.items():
        _sabotage(root / "captures" / name, kind, out)
    words = [
        f"captures={root / 'captures'}/*",
        f"out={out}",
        f"engine={engine}",
        f"workers={args.workers}",
        "cores_each=1",
    ]
    victims = [copy.name for copy in copies[args.sabotaged :]][: args.killed_processes]
    over = threading.Event()
    killers = [threading.Thread(target=_kill_once, args=(out / "runs" / name, over.is_set)) for name in victims]
    for killer in killers:
        killer.start()
    started = time.monotonic()
    status = _sweep(words, settings, root)
    seconds = time.monotonic() - started
    over.set()
    for killer in killers:
        killer.join()
    found, before = read_outcomes(out), _times(out)
    _sweep(words, settings, root)
    return Swept(
        engine=engine,
        exit_status=status,
        n_objects=len(copies),
        statuses={s: sum(o.status == s for o in found.values()) for s in ("ok", "poor", "failed")},
        sabotaged=len(sabotaged),
        true_reasons=sum(_is_told(found.get(name), kind) for name, kind in sabotaged.items()),
        killed=len(victims),
        retried=sum(found[name].attempts == 2 for name in victims if name in found),
        done_again=sum(_times(out)[path] != before.get(path) for path in _times(out)),
        due_again=sum(kind == "no_disk" for kind in sabotaged.values()),
        seconds=round(seconds, 1),
    )


def measured_overhead(folders: Sequence[Path], root: Path, settings: Sequence[str], rounds: int) -> list[Timed]:
    """The same objects one after the other, in turns: by `-m`, by a serial sweep, by a sweep over Ray on one core."""
    ways: dict[str, Callable[[Path], int]] = {
        "basic": lambda where: _multirun(folders, settings, where),
        "serial": lambda where: _sweep([*_given(folders, where), "engine=serial", "cores_each=1"], settings, where),
        "ray": lambda where: _sweep([*_given(folders, where), "engine=ray", "cores_each=1"], settings, where),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            where = root / way
            shutil.rmtree(where, ignore_errors=True)
            where.mkdir(parents=True)
            started = time.monotonic()
            if run(where):
                raise SystemExit(f"reliability: an object failed by {way}; see {where}")
            seconds[way].append(time.monotonic() - started)
    return [
        Timed(
            way=way,
            seconds=median(seconds[way]),
            ratio=median(ours / basic for ours, basic in zip(seconds[way], seconds["basic"], strict=True)),
        )
        for way in ways
    ]


def _given(folders: Sequence[Path], where: Path) -> list[str]:
    return [f"captures={','.join(str(folder.absolute()) for folder in folders)}", f"out={where / 'out'}"]


def _multirun(folders: Sequence[Path], settings: Sequence[str], where: Path) -> int:
    paths = ",".join(f"'{folder.absolute()}'" for folder in folders)
    return _run(["neuralrecon.train", "-m", f"capture={paths}", *settings], where)


def _sweep(words: Sequence[str], settings: Sequence[str], where: Path) -> int:
    return _run(["neuralrecon.sweep", "run", *words, *settings], where)


def _run(words: Sequence[str], where: Path) -> int:
    one_core = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    path = os.pathsep.join([str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")])
    with (where / "said.txt").open("a") as said:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=where,
            env=os.environ | one_core | {"PYTHONPATH": path},
            stdout=said,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return done.returncode


def _sabotage(capture: Path, kind: str, out: Path) -> None:
    if kind == "corrupt":
        photo = next(capture.glob("N1_*.jpg"))
        photo.write_bytes(photo.read_bytes()[:400])
    elif kind == "uncalibrated":
        (capture / "calibration.h5").unlink()
    elif kind == "unmasked":
        for mask in (capture / "masks").iterdir():
            with Image.open(mask) as image:
                Image.new("1", image.size, 1).save(mask)
    else:  # where its run is to be written there is nothing: a disk that is not mounted
        (out / "runs").mkdir(parents=True, exist_ok=True)
        (out / "sweep.json").write_text('{"objects": {}}')
        (out / "runs" / capture.name).symlink_to(out / "not_mounted" / "disk")


def _kill_once(folder: Path, over: Callable[[], bool]) -> None:
    while not over():
        holder = holder_of(folder)
        if holder is not None and is_locked(folder):
            os.kill(holder.pid, signal.SIGKILL)
            return
        time.sleep(0.05)


def _is_told(outcome: Outcome | None, kind: str) -> bool:
    return outcome is not None and outcome.status == "failed" and _REASONS[kind] in outcome.reasons[0]


def _times(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (out / "outcomes").rglob("*.json")}
