"""Rays and axis-aligned boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Rays:
    """Origins and unit directions, in one frame."""

    origins: Float[Tensor, "rays 3"]
    directions: Float[Tensor, "rays 3"]

    def at(self, distance: Float[Tensor, "rays"]) -> Float[Tensor, "rays 3"]:
        """Points at a distance along each ray."""
        return self.origins + self.directions * distance[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Axis-aligned box from `low` to `high`, in metres of the world frame."""

    low: Float[Tensor, "3"]
    high: Float[Tensor, "3"]

    @property
    def size(self) -> Float[Tensor, "3"]:
        return self.high - self.low

    def to(self, device: torch.device) -> Box:
        return Box(low=self.low.to(device), high=self.high.to(device))

    def padded(self, margin: float) -> Box:
        return Box(low=self.low - margin, high=self.high + margin)

    def intersect(self, rays: Rays) -> tuple[Float[Tensor, "rays"], Float[Tensor, "rays"]]:
        """Distances of entry (never behind the origin) and exit; a ray that misses has exit <= entry."""
        inverse = 1.0 / torch.where(rays.directions.abs() < 1e-12, 1e-12, rays.directions)
        to_low = (self.low.to(rays.origins) - rays.origins) * inverse
        to_high = (self.high.to(rays.origins) - rays.origins) * inverse
        entry = torch.minimum(to_low, to_high).amax(dim=-1).clamp_min(0.0)
        leave = torch.maximum(to_low, to_high).amin(dim=-1)
        return entry, leave
