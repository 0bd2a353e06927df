"""What a running fit shows: a log line now and then, and every term of every step in a CSV file.

Terms stay where they were computed until several steps' are read at once, for a GPU stands still while one is read.
"""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import FitError
from ..files import replacing

log = logging.getLogger(__name__)

SCALARS_FILE = "scalars.csv"
_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unread:
    """One step's terms, still where they were computed."""

    step: int
    names: tuple[str, ...]
    values: Float[Tensor, "terms"]
    n_samples: int


@dataclass(slots=True, kw_only=True)
class Progress:
    """Counts samples and time; `path` is the CSV file, None for none. `terms` are those of the last step read."""

    steps: int
    first_step: int
    path: Path | None = None
    started: float = field(default_factory=time.monotonic)
    last_line: float = 0.0
    n_samples: int = 0
    terms: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    unread: list[_Unread] = field(default_factory=list)

    def step(self, step: int, names: Iterable[str], values: Float[Tensor, "terms"], n_samples: int) -> None:
        """Note one step: its weighted terms, to be read later, and how many points the model was asked at."""
        self.unread.append(_Unread(step=step, names=tuple(names), values=values.detach(), n_samples=n_samples))

    def read(self) -> None:
        """Fetch the terms of all steps noted since the last time.

        Raises:
            FitError: one of them is not finite; the message names the first step at which that is so.
        """
        if not self.unread:
            return
        values = iter(torch.cat([noted.values for noted in self.unread]).tolist())
        for noted in self.unread:
            self._keep(noted, {name: next(values) for name in noted.names})
        self.unread.clear()
        self._show(int(self.rows[-1]["step"]))

    def _keep(self, noted: _Unread, terms: dict[str, float]) -> None:
        if not all(math.isfinite(value) for value in terms.values()):
            listed = ", ".join(f"{name} {value:g}" for name, value in terms.items())
            raise FitError(
                f"step {noted.step}: the loss is no longer finite ({listed}); lower learning_rate_table, "
                "or look at the capture"
            )
        self.terms = terms
        self.n_samples += noted.n_samples
        self.rows.append({"step": noted.step, "loss": sum(terms.values()), **terms, "samples": noted.n_samples})

    def _show(self, step: int) -> None:
        now = time.monotonic()
        if now - self.last_line < _SECONDS_BETWEEN_LINES and step + 1 < self.steps:
            return
        self.last_line = now
        seconds = max(now - self.started, 1e-9)
        left = seconds / (step + 1 - self.first_step) * (self.steps - step - 1)
        shown = " ".join(f"{name} {value:.4f}" for name, value in self.terms.items())
        log.info(
            "fit %d/%d: %s | %.2f M samples/s, %.0f s left",
            step + 1,
            self.steps,
            shown,
            self.n_samples / seconds / 1e6,
            left,
        )

    def flush(self) -> None:
        """Append the rows since the last flush to the CSV file; rows that a resumed fit repeats are dropped first."""
        if self.path is None or not self.rows:
            return
        kept = rows_before(int(self.rows[0]["step"]), self.path) if self.first_step > 0 else []
        # a term that sets in later has a column too, empty before
        names = list(dict.fromkeys(name for row in [*kept, *self.rows] for name in row))
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(kept)
            writer.writerows(self.rows)


def rows_before(step: int, path: Path) -> list[dict[str, str]]:
    """The file's rows of earlier steps; without those that are damaged, for nothing but a curve is read from them."""
    kept, n_damaged = [], 0
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, strict=False):
                try:
                    whole = None not in row and None not in row.values()
                    is_earlier = int(float(row["step"])) < step
                except (KeyError, TypeError, ValueError, OverflowError):
                    whole = is_earlier = False
                n_damaged += not whole
                kept += [row] if whole and is_earlier else []
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        log.warning("%s: is damaged (%s); what cannot be read of it is lost", path, error)
    if n_damaged:
        log.warning("%s: %d damaged lines are left out", path, n_damaged)
    return kept
