"""Which photographs see a place from nearby: partners for stereo."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

NONE = -1


def neighbours(
    origins: Float[Tensor, "images 3"],
    middle: Float[Tensor, "3"],
    n_neighbours: int,
    *,
    least_deg: float = 6.0,
    most_deg: float = 40.0,
    best_deg: float = 18.0,
) -> Int[Tensor, "images neighbours"]:
    """For every photograph those that look at `middle` from a little aside, on different sides; NONE where none is.

    Closer than `least_deg` two photographs tell no depth, further apart than `most_deg` they no longer look alike.
    They are chosen one by one, near `best_deg` and on another side than those already chosen: what one neighbour sees
    along its parallax (an edge) the next sees across.

    Args:
        origins: the cameras' centres, in the frame of `middle`.

    Example:
        >>> around = torch.tensor([[1.0, 0, 0], [0.97, 0.26, 0], [0.97, -0.26, 0], [-1, 0, 0]])
        >>> neighbours(around, torch.zeros(3), 2).tolist()
        [[1, 2], [0, 2], [0, 1], [-1, -1]]
    """
    sights = torch.nn.functional.normalize(origins.double() - middle.double(), dim=1)
    chosen = torch.full((len(origins), n_neighbours), NONE)
    for i, sight in enumerate(sights):
        along = sights @ sight
        angle = along.clamp(-1, 1).acos().rad2deg()
        cost = (angle.clamp_min(1e-6) / best_deg).log().abs()
        cost[(angle < least_deg) | (angle > most_deg)] = torch.inf
        sides = torch.nn.functional.normalize(sights - along[:, None] * sight, dim=1)
        for k in range(n_neighbours):
            best = int(cost.argmin())
            if cost[best].isinf():
                break
            chosen[i, k] = best
            cost = cost + (sides @ sides[best]).clamp_min(0)
            cost[best] = torch.inf
    return chosen
