"""How an object ended, as a file in the sweep's folder."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..files import read_json, replacing
from ..train.verdict import Status as Status

log = logging.getLogger(__name__)

OUTCOMES, RUNS, LOGS = "outcomes", "runs", "logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One object's end. `stage` and `error` are those of a failure, which `lies_in_input` if a retry cannot help.

    `attempts` counts processes, `seconds` is the time of all of them, `figures` are the verdict's.
    """

    name: str
    status: Status
    reasons: tuple[str, ...] = ()
    stage: str = ""
    error: str = ""
    lies_in_input: bool = False
    figures: dict[str, float | bool | None] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 1
    fingerprint: str = ""


def write_outcome(outcome: Outcome, out: Path) -> None:
    """Whole or not at all."""
    with replacing(out / OUTCOMES / f"{outcome.name}.json") as temporary:
        temporary.write_text(json.dumps(asdict(outcome), indent=1) + "\n")


def read_outcomes(out: Path) -> dict[str, Outcome]:
    """Those of a sweep so far, by name; a file that cannot be read is as if it were not there, which the log says."""
    found = {}
    for path in sorted((out / OUTCOMES).rglob("*.json")):
        if path.name.startswith("."):
            continue  # half of one that a kill has left
        try:
            outcome = _outcome(read_json(path))
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s: unreadable (%s); that object is done again", path, error)
        else:
            found[outcome.name] = outcome
    return found


def _outcome(told: dict[str, Any]) -> Outcome:
    known = {item.name: told[item.name] for item in fields(Outcome)}
    return Outcome(**known | {"status": Status(told["status"]), "reasons": tuple(told["reasons"])})
