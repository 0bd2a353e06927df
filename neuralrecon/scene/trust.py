"""How far depth readings can be believed before any surface is known, and what room the believed ones tell free.

On clear and mirror-like objects most readings are of something else: of what lies behind, or of a mirrored picture.
Each is wrong in its own way, while right ones from many sides meet on the surface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import maximum_filter
from torch import Tensor

from .parallel import in_parallel

_CELL_MM = 2.0
_MOST_CELLS = 192  # a side of the grid
_CLEAR_CELLS = 4  # so far before a reading the way to it counts
_WAY_CELLS = 60
_ALONE, _AGAINST = 0.5, 0.3  # what no other image need confirm; what readings before it count
_CONFIRMED = 0.5  # a reading believed so far tells free room
_FREE_IMAGES = 5  # so many images must tell it
_FREE_MM = 5.0  # and end so far before their readings: more than the sensors' errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """The readings of one depth image, in unit lengths, from its camera's centre."""

    origin: Float32[np.ndarray, "3"]
    points: Float32[np.ndarray, "readings 3"]

    def before(self, first: int, last: int, length: float, stride: int = 1) -> Iterator[Float32[np.ndarray, "n 3"]]:
        """Points on the way to each reading: `first` to `last` times `length` before it, nearest first."""
        along = self.points - self.origin
        along *= length / np.linalg.norm(along, axis=1, keepdims=True)
        for k in range(first, last, stride):
            yield self.points - along * np.float32(k)


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """In how many images a reading lies in each cell of a grid over the unit cube, or in the next cell."""

    images: Float32[np.ndarray, "x y z"]
    unit_per_mm: float

    @staticmethod
    def of(ways: Sequence[Ways], unit_per_mm: float) -> Support:
        n = max(8, min(_MOST_CELLS, round(1 / (_CELL_MM * unit_per_mm))))
        total = np.zeros((n, n, n), np.float32)
        for hit in in_parallel("depth images compared", lambda w: _hit_cells(w.points, n), ways):
            total += hit
        return Support(images=total, unit_per_mm=unit_per_mm)

    @property
    def side(self) -> int:
        return self.images.shape[0]

    def at(self, points: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n"]:
        """At points; 0 out of the cube."""
        inside = ((points >= 0) & (points < 1)).all(axis=1)
        return np.where(inside, self.images[_cells(points, self.side)], 0)

    def probabilities(self, ways: Sequence[Ways]) -> list[Float32[np.ndarray, "readings"]]:
        """That each reading is the object's surface: what other images read there, against what they read before it."""
        return list(in_parallel("depth images weighed", self._probability, ways))

    def _probability(self, way: Ways) -> Float32[np.ndarray, "readings"]:
        others = self.at(way.points) - 1
        against = np.zeros(len(way.points), np.float32)
        for points in way.before(_CLEAR_CELLS, _WAY_CELLS, 1 / self.side):
            against += self.at(points)
        return (others + _ALONE) / (others + _AGAINST * against + _ALONE + 1)

    def free(
        self, ways: Sequence[Ways], probabilities: Sequence[Float32[np.ndarray, "readings"]]
    ) -> Bool[np.ndarray, "x y z"]:
        """Cells that several images have looked through on their way to readings that are believed."""
        length = 1 / self.side
        first = int(np.ceil(_FREE_MM * self.unit_per_mm / length))

        def passed(pair: tuple[Ways, np.ndarray]) -> np.ndarray:
            way, probability = pair
            seen = np.zeros(self.images.shape, bool)
            believed = Ways(origin=way.origin, points=way.points[probability > _CONFIRMED])
            for points in believed.before(first, _WAY_CELLS, length):
                inside = ((points >= 0) & (points < 1)).all(axis=1)
                seen[_cells(points[inside], self.side)] = True
            return seen

        count = np.zeros(self.images.shape, np.float32)
        for seen in in_parallel("free room told", passed, list(zip(ways, probabilities, strict=True))):
            count += seen
        return (count >= _FREE_IMAGES) & (count > self.images)


def split(points: Float[Tensor, "readings 3"], frames: Tensor, origins: Float[Tensor, "depth_images 3"]) -> list[Ways]:
    """Readings by image; `frames` counts up."""
    counts = torch.bincount(frames.long(), minlength=len(origins)).tolist()
    return [
        Ways(origin=origin.numpy(), points=part.numpy())
        for origin, part in zip(origins, points.split(counts), strict=True)
    ]


def _hit_cells(points: np.ndarray, n: int) -> np.ndarray:
    hit = np.zeros((n, n, n), np.uint8)
    hit[_cells(points, n)] = 1
    return maximum_filter(hit, 3)


def _cells(points: np.ndarray, n: int) -> tuple[np.ndarray, ...]:
    return tuple(np.clip((points * n).astype(np.int32), 0, n - 1).T)
