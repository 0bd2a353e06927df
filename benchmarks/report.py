"""What every benchmark writes: a table to read, and the same figures as JSON with the machine they come from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from neuralrecon.files import replacing
from neuralrecon.train.run_folder import plain

_HERE = Path(__file__).resolve().parent


def write_json(file: Path, **figures: Any) -> Path:
    """The figures beside the machine, the versions, the commit and the date; whole or not at all."""
    with replacing(file) as temporary:
        temporary.write_text(json.dumps({**machine(), **plain(figures)}, indent=2, allow_nan=False) + "\n")
    return file


def machine() -> dict[str, Any]:
    """Where and when this ran, and what ran."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, the first flush left, the others flush right.

    Example:
        >>> print(table(["object", "mm"], [["box", 0.25], ["bottle", None]]))
        object    mm
        box     0.25
        bottle     -
    """
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _commit() -> str | None:
    """The commit that this file belongs to, "-dirty" if tracked files differ from it; None outside of a checkout."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=_HERE, capture_output=True, text=True
    )
    return done.stdout.strip() or None
