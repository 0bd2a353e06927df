"""What one training step looks at, in the unit frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..geometry import Rays


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorRays:
    """Rays through pixels of photographs.

    `colors` are sRGB in [0, 1]; `inside` says whether the pixel lies in the silhouette; `rig_from_world` are rotations
    (one per ray) into the frame in which the lights stand still, `world_from_cam` those out of the camera's; `sensors`
    and `images` count from 0.
    """

    rays: Rays
    colors: Float[Tensor, "rays 3"]
    inside: Bool[Tensor, "rays"]
    rig_from_world: Float[Tensor, "rays 3 3"]
    world_from_cam: Float[Tensor, "rays 3 3"]
    sensors: Int[Tensor, "rays"]
    stops: Int[Tensor, "rays"]
    images: Int[Tensor, "rays"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthRays:
    """Readings of depth cameras: where the ray started, which way it went, how far it got (all in unit lengths).

    `inlier` is the probability in [0, 1] that the reading is the object's surface and not an error of the sensor.
    """

    rays: Rays
    distances: Float[Tensor, "rays"]
    inlier: Float[Tensor, "rays"]
    world_from_cam: Float[Tensor, "rays 3 3"]
    sensors: Int[Tensor, "rays"]
    stops: Int[Tensor, "rays"]


Batch = TypeVar("Batch", ColorRays, DepthRays)


def part_of(batch: Batch, part: slice) -> Batch:
    """Some of its rays, nothing copied."""
    return _each(batch, lambda tensor: tensor[part])


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device. The host does not wait for a GPU: it copies from memory that stays where it is."""
    if device.type == "cuda":
        return _each(batch, lambda tensor: tensor.pin_memory().to(device, non_blocking=True))
    return _each(batch, lambda tensor: tensor.to(device))


def _each(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    rays = values.pop("rays")
    changed = {name: change(value) for name, value in values.items()}
    return type(batch)(rays=Rays(origins=change(rays.origins), directions=change(rays.directions)), **changed)
