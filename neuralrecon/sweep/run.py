"""A sweep in one folder: what is due, in which order, and the table that is true after every object."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ..errors import ConfigError, SweepError
from ..files import read_json, replacing
from ..train.folder_lock import LOCK_FILE, alone_in
from ..train.interrupts import interrupts
from .attempt import Task
from .engines import outcomes_of
from .jobs import Job, is_due
from .outcome import Outcome, Status, read_outcomes
from .results import HTML_FILE, write_results
from .settings import SweepConfig

_log = logging.getLogger(__name__)

SWEEP_FILE = "sweep.json"


def sweep(jobs: Sequence[Job], config: SweepConfig) -> list[Outcome]:
    """Reconstruct each object in a process apart, the largest captures first; the outcomes in the jobs' order.

    What was done before stays; see `is_due`. The results are written after every object.

    Raises:
        ConfigError: nothing to do, or `out` holds something else or another sweep is at work there.
        SweepError: all is done, but some objects failed; the message names them.
        StoppedError: a signal asked for the end; the same sweep goes on from there.
    """
    out = config.out
    if not jobs:
        raise ConfigError("nothing to reconstruct: give objects or captures, as in captures='data/mine/*'")
    if out.is_dir() and not (out / SWEEP_FILE).exists() and any(p.name != LOCK_FILE for p in out.iterdir()):
        raise ConfigError(f"out={out} has files in it that are no sweep's; name a new or empty folder")
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out), interrupts():
        names = _noted(jobs, out)
        known = read_outcomes(out)
        due = [job for job in jobs if is_due(job, known.get(job.name), force=config.force)]
        due.sort(key=lambda job: (-job.size, job.name))
        _log.info("%d of %d objects to do", len(due), len(jobs))
        for job in due:
            known.pop(job.name, None)
        write_results(names, known, out)
        if due:
            _do(due, config, names, known)
    return _told([known[job.name] for job in jobs], out)


def _do(due: Sequence[Job], config: SweepConfig, names: Sequence[str], known: dict[str, Outcome]) -> None:
    here, out = Path.cwd(), config.out.resolve()
    tasks = [Task(job=job, out=out, here=here, threads=config.threads, retries=config.retries) for job in due]
    with closing(outcomes_of(tasks, config)) as outcomes:  # type: ignore[type-var]
        for number, outcome in enumerate(outcomes, 1):
            known[outcome.name] = outcome
            write_results(names, known, out)
            reasons = f": {'; '.join(outcome.reasons)}" if outcome.reasons else ""
            line = "%d of %d: %s is %s after %.0f s%s"
            _log.info(line, number, len(due), outcome.name, outcome.status, outcome.seconds, reasons)


def _noted(jobs: Sequence[Job], out: Path) -> list[str]:
    """The names of all objects of the folder, these and those of earlier sweeps there; sweep.json keeps them."""
    path = out / SWEEP_FILE
    before = names_in(out)
    words = {job.name: list(job.words) for job in jobs}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"objects": before | words}, indent=1) + "\n")
    return list(before | words)


def names_in(out: Path) -> dict[str, list[str]]:
    """The objects of a sweep's folder, each with the words of its run.

    Raises:
        ConfigError: the list is damaged.
    """
    path = out / SWEEP_FILE
    if not path.exists():
        return {}
    try:
        return dict(read_json(path)["objects"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: not a sweep's list of objects ({error}); delete it and give the sweep again"
        ) from error


def _told(outcomes: list[Outcome], out: Path) -> list[Outcome]:
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in Status}
    _log.info("%s; see %s", ", ".join(f"{n} {status}" for status, n in counts.items()), out / HTML_FILE)
    if counts[Status.failed]:
        failed = [f"{o.name} ({'; '.join(o.reasons)})" for o in outcomes if o.status == Status.failed]
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise SweepError(f"{len(failed)} of {len(outcomes)} objects failed: {' | '.join(failed[:3])}{more}")
    return outcomes
