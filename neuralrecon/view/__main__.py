"""Look at runs in a browser: cameras, surface, labels, sdf, rendered views and loss curves. Ctrl-C ends it."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from ..config import Command, part_of
from ..errors import ConfigError
from . import ViewConfig, show

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewCommand(ViewConfig):
    """Settings of the command.

    Attributes:
        run: the output folder of a run, finished or being trained, or of a sweep.
        runs: several of them, in place of or beside run.
    """

    run: Path | None = None
    runs: list[Path] = field(default_factory=list)


def main(config: ViewCommand) -> float:
    """The number of runs that were shown, when the user has ended it."""
    folders = [*([config.run] if config.run is not None else []), *config.runs]
    if not folders:
        raise ConfigError("no run: give run=DIR, or runs=[DIR,DIR] for several")
    logging.getLogger("neuralrecon.extract").setLevel(logging.WARNING)  # a line for every surface that is drawn
    with show(folders, part_of(config, ViewConfig)) as viewer:
        log.info("%d run%s at %s (Ctrl-C ends it)", n := len(viewer.jobs.runs), "s" * (n != 1), viewer.url)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return float(n)


cli = Command(
    name="view",
    schema=ViewCommand,
    main=main,
    about=__doc__ or "",
    examples=[
        ("run=outputs/cup", "a run, finished or being trained, at http://127.0.0.1:8080"),
        ("run=outputs/sweep port=8081", "all objects of a sweep, to flip through"),
        ("runs=[outputs/cup,outputs/mug]", "several runs"),
    ],
)

if __name__ == "__main__":
    sys.exit(cli())
