"""A visual hull by vote: a cell is gone if several outlines leave it out, so that one wrong outline carves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor

from ..errors import EvidenceError
from .views import Outline, View

_LEAST_SHARE_SEEN = 0.5  # a cell that fewer images show is no part of the hull
_LOCATING_CELLS = 48
_NEIGHBOURS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class VotedHull:
    """Cells (centres in world, cubes of side `cell`) that the hull has, or has without some single outline.

    `excess` is how many more outlines leave a cell out than may: the hull is where it is below 1. Of `n` outlines that
    show a cell, `contrary_share` n may.
    """

    centers: Float[Tensor, "cells 3"]
    excess: Float[Tensor, "cells"]
    contrary_share: float
    cell: float

    def box(self) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
        """Low and high corner of the hull in world."""
        inside = self.centers[self.excess < 1]
        return (inside.amin(0) - self.cell / 2).numpy(), (inside.amax(0) + self.cell / 2).numpy()

    def outline(self, view: View, without: Outline | None = None) -> Outline:
        """How the hull looks in a view; if the view's own outline is given, the hull of all others."""
        uv, seen, depth = view.project(self.centers)
        excess = self.excess
        if without is not None:
            excess = excess - (seen & ~_at(without, uv, seen)).float() + self.contrary_share * seen.float()
        keep = seen & (excess < 1)
        image = np.zeros((view.camera.height, view.camera.width), bool)
        if not bool(keep.any()):
            return image
        pixel = uv[keep].floor().long().numpy()
        # half a cell's diagonal, in pixels, closes the gaps between the cells' centres
        reach = max(1, round(0.87 * self.cell * view.camera.fx / float(depth[keep].median())))
        low, high = pixel.min(axis=0), pixel.max(axis=0) + 1
        crop = np.zeros(tuple((high - low + 2 * reach + 2)[::-1]), bool)
        crop[tuple((pixel - low + reach + 1).T[::-1])] = True
        around = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
        closed = cv2.morphologyEx(crop.astype(np.uint8), cv2.MORPH_CLOSE, around) > 0
        image[low[1] : high[1], low[0] : high[0]] = closed[reach + 1 : -reach - 1, reach + 1 : -reach - 1]
        return image


def vote(
    views: Sequence[View],
    outlines: Sequence[Outline],
    box: tuple[np.ndarray, np.ndarray],
    *,
    resolution: int,
    contrary_share: float,
) -> VotedHull:
    """Carve the box, `resolution` cells along its longest side.

    A cell goes when more than `contrary_share` of the outlines that show it leave it out, and one of them at least.
    Outlines count one pixel wider than they are.

    Raises:
        EvidenceError: nothing is left.
    """
    low, high = box
    cell = float((high - low).max()) / resolution
    axes = [torch.arange(a + cell / 2, b, cell) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    centers = torch.cartesian_prod(*axes).float()
    hull = _voted(centers, views, outlines, cell, contrary_share)
    if not bool((hull.excess < 1).any()):
        raise EvidenceError(
            f"{len(views)} outlines have no common solid in the box {low.round(4).tolist()} to "
            f"{high.round(4).tolist()}: poses and outlines contradict each other; check the calibration, or give masks"
        )
    return hull


def _voted(
    centers: Float[Tensor, "cells 3"], views: Sequence[View], outlines: Sequence[Outline], cell: float, share: float
) -> VotedHull:
    contrary, n_seen = torch.zeros(2, len(centers))
    for view, outline in zip(views, outlines, strict=True):
        alive = contrary - share * len(views) < 2
        centers, contrary, n_seen = centers[alive], contrary[alive], n_seen[alive]
        uv, seen, _ = view.project(centers)
        contrary += seen & ~_at(outline, uv, seen)
        n_seen += seen
    excess = contrary - share * n_seen
    alive = (excess < 2) & (n_seen >= max(1.0, _LEAST_SHARE_SEEN * len(views)))
    return VotedHull(centers=centers[alive], excess=excess[alive], contrary_share=share, cell=cell)


def vote_finer(hull: VotedHull, views: Sequence[View], outlines: Sequence[Outline]) -> VotedHull:
    """The same hull of half the cells' side, along its surface only, as its look needs no more."""
    low = hull.centers.amin(0)
    index = ((hull.centers - low) / hull.cell).round().long() + 1
    solid = np.zeros(tuple((index.amax(0) + 2).tolist()), bool)
    solid[tuple(index[hull.excess < 1].t())] = True
    deep = np.asarray(binary_erosion(solid, iterations=2), bool)
    shell = torch.from_numpy(np.argwhere(np.asarray(binary_dilation(solid), bool) & ~deep))
    corners = (torch.cartesian_prod(*[torch.tensor([-0.25, 0.25])] * 3) + 0.0)[None]
    centers = (low + hull.cell * ((shell - 1)[:, None] + corners)).reshape(-1, 3).float()
    return _voted(centers, views, outlines, hull.cell / 2, hull.contrary_share)


def locate(views: Sequence[View], outlines: Sequence[Outline], contrary_share: float) -> tuple[np.ndarray, np.ndarray]:
    """Low and high corner (world) of a box around the voted hull, without any guess of where the object is.

    Raises:
        EvidenceError: the outlines have nothing in common.
    """
    middles = [np.argwhere(o)[:, ::-1].mean(axis=0) + 0.5 for o in outlines]
    rays = np.stack([view.ray(m) for view, m in zip(views, middles, strict=True)])
    centers = np.stack([v.center for v in views])
    middle = nearest_to_rays(centers, rays)
    # half the outlines' extent, seen at the middle's distance
    reach = max(
        np.linalg.norm(np.ptp(np.argwhere(o), axis=0)) / 2 / v.camera.fx * np.linalg.norm(v.center - middle)
        for v, o in zip(views, outlines, strict=True)
    )
    box = middle - 1.3 * reach, middle + 1.3 * reach
    for _ in range(2):
        hull = vote(views, outlines, box, resolution=_LOCATING_CELLS, contrary_share=contrary_share)
        low, high = hull.box()
        box = low - 1.5 * hull.cell, high + 1.5 * hull.cell
    return box


def nearest_to_rays(origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"]) -> np.ndarray:
    """The point nearest to all lines in the mean of squares, after the half that miss it most were let go."""
    keep = np.ones(len(origins), bool)
    point = origins.mean(axis=0)
    for _ in range(5):
        across = np.eye(3) - directions[keep][:, :, None] * directions[keep][:, None, :]
        # a faint pull to the origins keeps the system regular when all lines are parallel
        system = across.sum(0) + 1e-6 * np.eye(3)
        point = np.linalg.solve(system, (across @ origins[keep][:, :, None]).sum(0)[:, 0] + 1e-6 * origins.mean(0))
        miss = np.linalg.norm(np.cross(point - origins, directions), axis=1)
        keep = miss <= max(2 * float(np.median(miss)), 1e-12)
    return point


def _at(outline: Outline, uv: Tensor, seen: Tensor) -> Tensor:
    wide = torch.from_numpy(cv2.dilate(outline.astype(np.uint8), _NEIGHBOURS) > 0)
    height, width = outline.shape
    pixel = uv.nan_to_num(0.0, 0.0, 0.0).floor().long()
    return wide[pixel[:, 1].clamp(0, height - 1), pixel[:, 0].clamp(0, width - 1)] & seen
