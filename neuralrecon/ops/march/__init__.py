"""Samples along rays, only where the surface may be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ..backends import Backend, backend_for

OUTSIDE, BAND, INSIDE = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Packed samples: those of ray r are `ray_starts[r] : ray_starts[r + 1]`, front to back.

    `t_mids` are distances along the ray; every sample stands for an interval of the length `march` was given.
    """

    t_mids: Float[Tensor, "samples"]
    ray_indices: Int[Tensor, "samples"]
    ray_starts: Int[Tensor, "rays_plus_one"]

    def where(self, keep: Bool[Tensor, "samples"]) -> Samples:
        """Only those samples, packed again."""
        kept_before = torch.nn.functional.pad(keep.long().cumsum(0), (1, 0))
        return Samples(
            t_mids=self.t_mids[keep],
            ray_indices=self.ray_indices[keep],
            ray_starts=kept_before[self.ray_starts],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Where samples are wanted, on a grid over the unit cube.

    `cells` say of whole cells OUTSIDE, BAND or INSIDE; within BAND cells, samples are kept where the sdf, interpolated
    between the cells' centres, is nearer to zero than `reach`.
    """

    cells: UInt8[Tensor, "x y z"]
    sdf: Float[Tensor, "x y z"]
    reach: float

    def look_up(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points"]:
        """The sdf interpolated between the cells' centres; beyond them as at the border."""
        at = (points.clamp(0, 1) * 2 - 1).flip(-1)[None, None, None]
        grid = self.sdf[None, None]
        return torch.nn.functional.grid_sample(grid, at, align_corners=False, padding_mode="border")[0, 0, 0, 0]


def march(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    near: Float[Tensor, "rays"],
    far: Float[Tensor, "rays"],
    band: Band,
    step: float,
    jitter: Float[Tensor, "rays"],
) -> Samples:
    """Equidistant samples at near + (i + jitter) * step < far that lie in the band.

    A ray ends where it comes upon an INSIDE cell after a BAND cell: it has gone through the surface and sees no more.
    (A ray that starts inside the solid is not a ray of a camera.) Never capped in number.

    Args:
        jitter: in [0, 1), one per ray.
    """
    backend = backend_for(origins)
    if backend == Backend.cpu:
        from ._cpu import march_cpu

        return march_cpu(origins, directions, near, far, band, step, jitter)
    if backend == Backend.triton:
        from ._triton import march_triton

        return march_triton(origins, directions, near, far, band, step, jitter)
    from ._torch import march_torch

    samples = march_torch(origins, directions, near, far, band.cells, step, jitter)
    points = origins[samples.ray_indices] + directions[samples.ray_indices] * samples.t_mids[:, None]
    return samples.where(band.look_up(points).abs() < band.reach)
