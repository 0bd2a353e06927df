"""Statistics of the surface benchmark: intervals of means and of paired differences, ratios, ranking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata, t

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and its 95 % interval by Student's t; with fewer than two values there is no interval."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside; False without an interval."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def mean_interval(values: Sequence[float]) -> Interval:
    """Of values that are independent and about normal: one a shape.

    Example:
        >>> mean_interval([1.0, 2.0, 3.0]).mean
        2.0
    """
    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    if n < 2:
        return Interval(mean=mean, low=None, high=None, n=n)
    half = float(t.ppf(0.5 + CONFIDENCE / 2, n - 1) * array.std(ddof=1) / math.sqrt(n))
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n)


def paired_difference(changed: Mapping[str, float], ours: Mapping[str, float]) -> Interval | None:
    """`changed` minus `ours` over the shapes that both have; None if they share none."""
    shared = sorted(changed.keys() & ours.keys())
    return mean_interval([changed[name] - ours[name] for name in shared]) if shared else None


def ratio_of_means(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """Mean of one over mean of the other, over the shapes that both have; None if they share none."""
    shared = sorted(one.keys() & other.keys())
    return sum(one[name] for name in shared) / sum(other[name] for name in shared) if shared else None


def auroc(scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]) -> float | None:
    """How probable it is that a positive has a higher score than a negative, ties half; None if one kind is missing.

    By ranks (Mann and Whitney 1947).

    Example:
        >>> auroc(np.array([0.1, 0.9]), np.array([False, True]))
        1.0
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
