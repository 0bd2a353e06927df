"""What a sweep is at, as a table that follows it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ..errors import ConfigError
from ..train.folder_lock import is_locked
from ..train.run_folder import LOG_FILE
from .outcome import RUNS, Outcome, read_outcomes
from .results import MISSING
from .run import SWEEP_FILE, names_in

RUNNING = "running"
_EVERY_S = 2.0
_TAIL_BYTES = 4096
# those that need attention come first
_ORDER = [RUNNING, "failed", "poor", "ok", MISSING]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One object: its status, what there is to say, and its seconds so far."""

    name: str
    status: str
    told: str
    seconds: float | None


def rows_of(out: Path) -> list[Row]:
    """Every object of a sweep's folder.

    Raises:
        ConfigError: it is none.
    """
    if not (out / SWEEP_FILE).is_file():
        raise ConfigError(f"run={out}: no {SWEEP_FILE} in it; give the folder that a sweep writes to (its out=)")
    outcomes, busy = read_outcomes(out), is_locked(out)
    rows = [_row(name, outcomes.get(name), out / RUNS / name, busy) for name in names_in(out)]
    return sorted(rows, key=lambda row: (_ORDER.index(row.status), row.name))


def show(out: Path, *, follow: bool, at_most: int) -> None:
    """Print the table once, or until no sweep is at work in the folder."""
    console = Console()
    if not follow:
        console.print(_table(rows_of(out), at_most))
        return
    with Live(_table(rows_of(out), at_most), console=console, auto_refresh=False) as live:
        while is_locked(out):
            time.sleep(_EVERY_S)
            live.update(_table(rows_of(out), at_most), refresh=True)


def _row(name: str, outcome: Outcome | None, folder: Path, busy: bool) -> Row:
    if busy and is_locked(folder):
        return Row(name=name, status=RUNNING, told=_last_line(folder / LOG_FILE), seconds=None)
    if outcome is None:
        return Row(name=name, status=MISSING, told="", seconds=None)
    return Row(name=name, status=outcome.status.value, told="; ".join(outcome.reasons), seconds=outcome.seconds)


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1].partition(" ")[2].partition(" ")[2] if lines else ""


def _table(rows: list[Row], at_most: int) -> Table:
    counts = ", ".join(f"{sum(row.status == s for row in rows)} {s}" for s in _ORDER)
    left = f"; {len(rows) - at_most} more" if len(rows) > at_most else ""
    table = Table("object", "status", "s", "", caption=f"{len(rows)} objects: {counts}{left}")
    for row in rows[:at_most]:
        table.add_row(row.name, row.status, "" if row.seconds is None else f"{row.seconds:.0f}", row.told)
    return table
