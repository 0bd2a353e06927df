"""Which photographs colour which face, and how much each counts at a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .eyes import Eye

_FLATTEST = 0.17  # cosine at which a view no longer counts: 80 degrees


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Of each face the best views, best first, and of each vertex the score that a view must be above to count.

    A view that leaves a face's best ones has fallen to the threshold before, so weights have no steps.
    """

    views: Int[Tensor, "faces best"]
    scores: Float[Tensor, "faces best"]
    thresholds: Float[Tensor, "vertices"]

    @staticmethod
    def among(
        eyes: Sequence[Eye], centers: Float[Tensor, "faces 3"], normals: Float[Tensor, "faces 3"], faces: Tensor,
        n_vertices: int, n_views: int,
    ) -> Choice:  # fmt: skip
        """The `n_views` best for each face, by its centre and normal."""
        scores = torch.stack([score(eye, centers, normals) for eye in eyes], dim=1)
        n = min(n_views + 1, len(eyes))
        best = scores.topk(n, dim=1)
        last = best.values[:, n_views] if n > n_views else torch.zeros(len(centers))
        thresholds = torch.zeros(n_vertices)
        for corner in faces.unbind(1):
            thresholds.scatter_reduce_(0, corner, last, "amax")
        return Choice(views=best.indices[:, :n_views], scores=best.values[:, :n_views], thresholds=thresholds)


def score(
    eye: Eye,
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    pixels: Float[Tensor, "points 2"] | None = None,
) -> Float[Tensor, "points"]:
    """How good a view of points is: pixels per area on the surface, by sharpness and by trust; 0 is none.

    The density of pixels is (f / distance)^2 cos(angle); another factor cos(angle), less that of 80 degrees, since
    errors of the surface shift colours by their tangent.
    """
    directions, distances = eye.directions(points)
    facing = -(directions * normals).sum(dim=1)
    trusted = eye.trusted(eye.pixels(points) if pixels is None else pixels, distances)
    camera = eye.photograph.camera
    density = (min(camera.fx, camera.fy) / 1000 / distances).square() * facing.clamp_min(0)
    return eye.sharpness * trusted * density * (facing - _FLATTEST).clamp_min(0)
