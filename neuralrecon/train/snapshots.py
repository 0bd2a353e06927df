"""A running fit as files for somebody who looks on: written when asked for, and so seldom that the fit hardly notices.

Who looks on makes `WANTED_FILE` in the fit's folder and reads what then appears. It may be another process, another
machine with the same disk, or nobody, in which case nothing is written.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files import replacing
from .checkpoint import save_snapshot
from .fit_types import Fit
from .progress import Progress

log = logging.getLogger(__name__)

SNAPSHOT_FILE, CURVES_FILE, WANTED_FILE = "snapshot.safetensors", "snapshot.json", "snapshot.wanted"
MOST_ROWS = 400
_LOOKS_EVERY_S = 0.25
_REST = 100.0  # after a snapshot that took t seconds, none for so many t: less than one per cent of the fit's time


@dataclass(slots=True, kw_only=True)
class Snapshots:
    """Give it to `fit`; `folder` is the fit's, where the files go. Without one nobody can ask."""

    folder: Path | None = None
    not_before: float = 0.0

    def take_if_wanted(self, fit_now: Callable[[], Fit], progress: Progress) -> None:
        """Write the fit and the loss terms so far if somebody asks and the last time is long enough ago.

        The disk is looked at now and then only. That it is full is no reason to end a fit.
        """
        now = time.monotonic()
        if self.folder is None or now < self.not_before:
            return
        self.not_before = now + _LOOKS_EVERY_S
        if not (self.folder / WANTED_FILE).exists():
            return
        progress.read()
        try:
            (self.folder / WANTED_FILE).unlink(missing_ok=True)
            fit = fit_now()
            save_snapshot(fit, self.folder / SNAPSHOT_FILE)
            with replacing(self.folder / CURVES_FILE, flushed=False) as temporary:
                temporary.write_text(json.dumps({"step": fit.step, "rows": thinned(progress.rows)}))
        except OSError as error:
            log.warning("%s: no snapshot could be written (%s); the fit goes on", self.folder, error)
        ended = time.monotonic()
        self.not_before = ended + max(_LOOKS_EVERY_S, _REST * (ended - now))

    def end(self) -> None:
        """The fit is there: what was written on the way to it goes."""
        if self.folder is None:
            return
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
