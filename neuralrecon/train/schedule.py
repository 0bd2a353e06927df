"""What changes over the fit, as functions of progress in [0, 1]."""

from __future__ import annotations

import math


def geometric(start: float, end: float, progress: float) -> float:
    """From `start` to `end` at an even ratio a step, then held."""
    return start * (end / start) ** min(max(progress, 0.0), 1.0)


def learning_rate(progress: float, warm_up: float, end: float) -> float:
    """Factor on the base rate: linear up over the first `warm_up`, then a cosine down to `end`."""
    if progress < warm_up:
        return progress / warm_up
    along = (progress - warm_up) / (1 - warm_up)
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * along))


def active_levels(progress: float, first: int, levels: int, all_from: float) -> int:
    """Hash levels in use: `first` at the start, one more at even times, all of them from `all_from` on."""
    return min(levels, first + int((levels - first + 1) * progress / all_from))
