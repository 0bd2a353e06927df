"""What changes over the fit, as functions of progress in [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .fit_types import FitConfig

_SPREAD_MM, _SPREAD_UNTIL = (10.0, 0.3), 0.5
BAND = 3.0  # half width of the band of samples, in blurs: 95 % of the opacity, and half a cell more on each side


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is in force at one step: hash levels, blur (1/inv_s) in unit lengths, factor on the learning rates."""

    levels: int
    blur: float
    rate: float
    refines_sensors: bool
    compares_patches: bool
    unit_per_mm: float
    least_spread_mm: float

    @staticmethod
    def at(done: float, config: FitConfig, unit_per_mm: float) -> Moment:
        """At a share `done` of the fit."""
        return Moment(
            levels=active_levels(done, config.first_levels, config.field.levels, config.all_levels_from),
            blur=geometric(config.blur_start_mm, config.blur_end_mm, done / config.blur_until) * unit_per_mm,
            rate=learning_rate(done, 0.02, 0.02),
            refines_sensors=config.refine_from <= done < 1,
            compares_patches=config.w_patches > 0 and config.patches_from <= done < 1,
            unit_per_mm=unit_per_mm,
            least_spread_mm=geometric(*_SPREAD_MM, done / _SPREAD_UNTIL),
        )


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
