"""What a running fit shows: a log line now and then, and every term of every step in a CSV file."""

from __future__ import annotations

import csv
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

SCALARS_FILE = "scalars.csv"
_SECONDS_BETWEEN_LINES = 10.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """Counts samples and time; `path` is the CSV file, None for none."""

    steps: int
    first_step: int
    path: Path | None = None
    started: float = field(default_factory=time.monotonic)
    last_line: float = 0.0
    n_samples: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)

    def step(self, step: int, terms: dict[str, float], n_samples: int) -> None:
        """Note one step: its weighted terms, and how many points the model was asked at."""
        self.n_samples += n_samples
        self.rows.append({"step": step, "loss": sum(terms.values()), **terms, "samples": n_samples})
        now = time.monotonic()
        if now - self.last_line < _SECONDS_BETWEEN_LINES and step + 1 < self.steps:
            return
        self.last_line = now
        seconds = max(now - self.started, 1e-9)
        left = seconds / (step + 1 - self.first_step) * (self.steps - step - 1)
        shown = " ".join(f"{name} {value:.4f}" for name, value in terms.items())
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
        kept: list[dict[str, str]] = []
        if self.path.exists() and self.first_step > 0:
            with self.path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(float(row["step"])) < self.rows[0]["step"]]
        # a term that sets in later has a column too, empty before
        names = list(dict.fromkeys(name for row in [*kept, *self.rows] for name in row))
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(kept)
            writer.writerows(self.rows)
        temporary.replace(self.path)
