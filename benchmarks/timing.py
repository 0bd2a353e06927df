"""Several spellings of one thing, timed in turns (A B A B …), so that what slows the machine down slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

_LEAST_ROUNDS, _MOST_ROUNDS, _LEAST_SECONDS_A_TURN = 3, 25, 0.01
_SLOW_S = 0.3  # a first call of more is no guess at the next, but needs none: it is timed once a turn anyway


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Something to be timed. `reset` runs after every call and does not count."""

    run: Callable[[], object]
    reset: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of one call, medians over the rounds.

    `first` is the very first call, compilation included; `spread` is half the distance between the quartiles, as a
    share of the median; `speedup` is the median over the rounds of the reference's time over this one's in that round.
    """

    seconds: float
    spread: float
    first: float
    speedup: float
    n_rounds: int


def interleaved(
    calls: Mapping[str, Call], reference: str, budget_s: float, wait: Callable[[], object] = lambda: None
) -> dict[str, Timing]:
    """Time each call once a round, quick ones several times in their turn, until the budget is spent (three rounds
    at least).

    Args:
        reference: the name of the call that the others are compared with.
        wait: returns when what was asked of the machine is done; for devices that answer before that.
    """
    first = {name: _seconds_of(call, 1, wait) for name, call in calls.items()}
    guess = {name: s if s > _SLOW_S else _seconds_of(calls[name], 1, wait) for name, s in first.items()}
    repeats = {name: min(100, max(1, round(_LEAST_SECONDS_A_TURN / max(s, 1e-7)))) for name, s in guess.items()}
    rounds: list[dict[str, float]] = []
    started = time.perf_counter()
    while len(rounds) < _MOST_ROUNDS:
        if len(rounds) >= _LEAST_ROUNDS and time.perf_counter() - started > budget_s:
            break
        rounds.append({name: _seconds_of(call, repeats[name], wait) for name, call in calls.items()})
    return {name: _summed_up(name, reference, rounds, first[name]) for name in calls}


def _seconds_of(call: Call, repeats: int, wait: Callable[[], object]) -> float:
    """Of one call, the mean over the repeats."""
    total = 0.0
    for _ in range(repeats):
        wait()
        began = time.perf_counter()
        call.run()
        wait()
        total += time.perf_counter() - began
        call.reset()
    return total / repeats


def _summed_up(name: str, reference: str, rounds: list[dict[str, float]], first: float) -> Timing:
    seconds = np.array([row[name] for row in rounds])
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return Timing(
        seconds=float(middle),
        spread=float((high - low) / 2 / middle),
        first=first,
        speedup=float(np.median(np.array([row[reference] for row in rounds]) / seconds)),
        n_rounds=len(rounds),
    )


def installed() -> dict[str, str | None]:
    """Versions of what kernels are written with, and the GPU's name; None for what is not there."""
    found: dict[str, str | None] = {}
    for name in ("numba", "triton", "nerfacc", "tinycudann"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found | {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}
