"""Write the report of a finished run anew: report.html and preview.jpg in its folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ..config import Command
from . import Run, write_report


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCommand:
    """Settings of the command.

    Attributes:
        run: the output folder of a run.
    """

    run: Path


def main(config: ReportCommand) -> float:
    """The page's size in bytes."""
    path = write_report(Run.read(config.run))
    print(path)
    return float(path.stat().st_size)


cli = Command(
    name="report",
    schema=ReportCommand,
    main=main,
    about=__doc__ or "",
    examples=[("run=outputs/cup", "outputs/cup/report.html, one file to open or to send")],
)

if __name__ == "__main__":
    sys.exit(cli())
