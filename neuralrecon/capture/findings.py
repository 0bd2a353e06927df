"""What a reader found missing or broken on the way to a capture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..errors import CaptureError

_NAMED = 8


@dataclass(slots=True)
class Findings:
    """Collects the lines of `Capture.left_out`. Absent things are noted, broken ones raise unless allowed."""

    allow_partial: bool
    lines: list[str] = field(default_factory=list)

    def absent(self, line: str) -> None:
        """A capture may lack this: say so and go on."""
        self.lines.append(line)

    def broken(self, error: CaptureError) -> None:
        """Raise `error` with a word on how to go on, or note it where a partial capture was asked for."""
        if not self.allow_partial:
            raise type(error)(f"{error}; or read with allow_partial=True to leave it out") from error
        self.lines.append(str(error))


def listed(names: Iterable[str]) -> str:
    """A few names in full, then how many more."""
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
