"""Sets of pixels as runs: a few bytes for each stretch of a row, where a list of pixels takes some for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Pixels in ascending order: run i begins at `firsts[i]`, and `ends[i]` pixels lie in it and in those before."""

    firsts: Int[Tensor, "runs"]
    ends: Int[Tensor, "runs"]

    @staticmethod
    def of(masks: Sequence[tuple[np.ndarray, np.ndarray]], starts: Sequence[int]) -> Spans:
        """From the `runs` of several masks, the first pixel of each being `starts`."""
        firsts = [begins.astype(np.int64) + start for (begins, _), start in zip(masks, starts, strict=True)]
        lengths = [ends - begins for begins, ends in masks]
        return Spans(
            firsts=torch.from_numpy(np.concatenate(firsts)),
            ends=torch.from_numpy(np.cumsum(np.concatenate(lengths), dtype=np.int64)),
        )

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def at(self, ranks: Int[Tensor, "chosen"]) -> Int[Tensor, "chosen"]:
        """The pixels of these ranks, counted from 0."""
        run = torch.searchsorted(self.ends, ranks, right=True)
        before = torch.where(run > 0, self.ends[run - 1], 0)
        return self.firsts[run] + ranks - before


def runs(mask: Bool[np.ndarray, "..."]) -> tuple[np.ndarray, np.ndarray]:
    """Where, in a flat mask, the stretches of True begin, and where they end (exclusive)."""
    edges = np.flatnonzero(np.diff(mask.ravel(), prepend=False, append=False)).astype(np.int32)
    return edges[::2], edges[1::2]


def grown(mask: Bool[np.ndarray, "v u"], steps: int) -> Bool[np.ndarray, "v u"]:
    """With all pixels that are at most so many steps along rows and columns away."""
    for _ in range(steps):
        wide = mask.copy()
        wide[1:] |= mask[:-1]
        wide[:-1] |= mask[1:]
        wide[:, 1:] |= mask[:, :-1]
        wide[:, :-1] |= mask[:, 1:]
        mask = wide
    return mask
