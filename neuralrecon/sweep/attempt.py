"""One object, from its first try to its outcome. Whatever happens there, the sweep goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..files import read_json
from ..train.run_folder import FAILURE_FILE, SUMMARY_FILE
from .jobs import Job
from .outcome import LOGS, RUNS, Outcome, Status, write_outcome
from .processes import Processes, Stopped

_SIGNALLED = {128 + signum for signum in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A job with all that a worker elsewhere needs: where to, from which folder, with how many threads and tries."""

    job: Job
    out: Path
    here: Path
    threads: int
    retries: int


def attempted(task: Task, processes: Processes, stops: Callable[[], bool] = lambda: False) -> Outcome:
    """Run the object in a process, again if that was killed or memory ran out, and write the outcome down.

    After memory has run out in the fit the next try asks for half of it, and so on; the outcome says so.

    Raises:
        Stopped: `stops` said so; the process has left a checkpoint if it was fitting.
    """
    started, attempts, smaller = time.monotonic(), 0, ()
    try:
        again = True
        while again and attempts <= task.retries:
            attempts += 1
            code = _process(task, smaller, processes, stops)
            halved = _halved(task, code)
            again = _was_killed(code) or bool(halved)
            smaller = halved if halved and attempts <= task.retries else smaller
        outcome = _outcome(task, code)
        if smaller:
            outcome = replace(outcome, reasons=(*outcome.reasons, f"memory ran out; done with {' '.join(smaller)}"))
    except Stopped:
        raise
    except Exception as error:  # a full disk, a lost mount: this object's end, not the sweep's
        outcome = _failed(task, f"{type(error).__name__}: {error}", error=type(error).__name__)
    seconds = round(time.monotonic() - started, 2)
    outcome = replace(outcome, attempts=attempts, seconds=seconds, fingerprint=task.job.fingerprint)
    with suppress(OSError):  # then it is done again next time
        write_outcome(outcome, task.out)
    return outcome


def _was_killed(code: int) -> bool:
    return code < 0 or code in _SIGNALLED


def _halved(task: Task, code: int) -> tuple[str, ...]:
    """The settings that need half the memory, if that is what the process lacked."""
    failure = task.out / RUNS / task.job.name / FAILURE_FILE
    return tuple(read_json(failure)["smaller"]) if code == 1 and failure.is_file() else ()


def _process(task: Task, smaller: tuple[str, ...], processes: Processes, stops: Callable[[], bool]) -> int:
    words = [*task.job.words, *smaller, f"out='{task.out / RUNS / task.job.name}'", "overwrite=true"]
    return processes.train(words, task.out / LOGS / f"{task.job.name}.txt", task.here, task.threads, stops)


def _outcome(task: Task, code: int) -> Outcome:
    folder, name = task.out / RUNS / task.job.name, task.job.name
    if code == 0:
        told = read_json(folder / SUMMARY_FILE)["verdict"]
        return Outcome(
            name=name, status=Status(told["status"]), reasons=tuple(told["reasons"]), figures=told["figures"]
        )
    if _was_killed(code):
        which = signal.Signals(-code if code < 0 else code - 128).name
        hint = "; out of memory is the usual cause" if which == "SIGKILL" else ""
        return _failed(task, f"its process was ended by {which}, {task.retries + 1} times{hint}", error="Killed")
    if code == 1 and (folder / FAILURE_FILE).is_file():
        told = read_json(folder / FAILURE_FILE)
        return _failed(
            task, told["message"], error=told["error"], stage=told["stage"], lies_in_input=told["lies_in_input"]
        )
    wrong_settings = code == 2
    return _failed(
        task, _last_words(task), error="ConfigError" * wrong_settings, stage="start", lies_in_input=wrong_settings
    )


def _failed(task: Task, reason: str, *, error: str, stage: str = "", lies_in_input: bool = False) -> Outcome:
    return Outcome(
        name=task.job.name,
        status=Status.failed,
        reasons=(reason,),
        error=error,
        stage=stage,
        lies_in_input=lies_in_input,
    )


def _last_words(task: Task) -> str:
    """What the command said at its end: its own line, else the last of a traceback."""
    lines = (task.out / LOGS / f"{task.job.name}.txt").read_text(errors="replace").splitlines()
    told = [line.partition(": ")[2] for line in lines if line.startswith("neuralrecon.train: ")]
    return (told or [line for line in lines if line.strip()] or ["it ended without a word"])[-1]
