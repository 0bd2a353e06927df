"""A running fit as files for somebody who looks on: written when asked for, and so seldom that the fit hardly notices.

Who looks on makes `WANTED_FILE` in the fit's folder and reads what then appears. It may be another process, another
machine with the same disk, or nobody, in which case nothing is written.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files import replacing
from .checkpoint import save_snapshot
from .fit_types import Fit

log = logging.getLogger(__name__)

SNAPSHOT_FILE, CURVES_FILE, WANTED_FILE = "snapshot.safetensors", "snapshot.json", "snapshot.wanted"
MOST_ROWS = 400
_LOOKS_EVERY_S = 0.25
_REST = 100.0  # after a snapshot that took t seconds, none for so many t: less than one per cent of the fit's time


@dataclass(slots=True, kw_only=True)
class Snapshots:
    """Give it to `fit`; `folder` is the fit's, where the files go."""

    folder: Path
    not_before: float = 0.0

    def are_wanted(self) -> bool:
        """Whether somebody asks for one now and the last one is long enough ago; the disk is looked at now and then."""
        now = time.monotonic()
        if now < self.not_before:
            return False
        self.not_before = now + _LOOKS_EVERY_S
        return (self.folder / WANTED_FILE).exists()

    def take(self, fit: Fit, rows: Sequence[Mapping[str, float]]) -> None:
        """Write the fit, then the loss terms so far (`rows`, thinned out). A full disk is no reason to end a fit."""
        started = time.monotonic()
        try:
            (self.folder / WANTED_FILE).unlink(missing_ok=True)
            save_snapshot(fit, self.folder / SNAPSHOT_FILE)
            with replacing(self.folder / CURVES_FILE, flushed=False) as temporary:
                temporary.write_text(json.dumps({"step": fit.step, "rows": thinned(rows)}))
        except OSError as error:
            log.warning("%s: no snapshot could be written (%s); the fit goes on", self.folder, error)
        ended = time.monotonic()
        self.not_before = ended + max(_LOOKS_EVERY_S, _REST * (ended - started))

    def end(self) -> None:
        """The fit is there: what was written on the way to it goes."""
        for name in (WANTED_FILE, SNAPSHOT_FILE, CURVES_FILE):
            (self.folder / name).unlink(missing_ok=True)


def thinned(rows: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """At most `MOST_ROWS` of them at even distances, with the last one.

    Example:
        >>> len(thinned([{"step": step} for step in range(1000)]))
        334
    """
    every = max(1, -(-len(rows) // MOST_ROWS))
    kept = list(rows[::every])
    return kept if not rows or (len(rows) - 1) % every == 0 else [*kept, rows[-1]]
