"""The visual hull: the largest solid that all silhouettes allow (Laurentini 1994), carved coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes, mesh_surface_area
from torch import Tensor

from ..errors import EvidenceError
from ..geometry import Box, Similarity
from .distance import signed_distance
from .silhouettes import Silhouette

_COARSEST = 16
# The lowest layers of the hull are seen at grazing angles only, where a small error of a pose carves all of them: the
# solid below the table takes its section from this height.
_FOOT_MM = 5.0
_ENOUGH = 0.999  # sum of the silhouettes' weights against a cell; 1 but for rounding
_LEAST_SHARE_SEEN = 0.25  # a cell that fewer images show is no part of the hull


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualHull:
    """Signed distance (unit lengths, positive outside) to the hull at the centres of a grid over the unit cube."""

    sdf: Float[Tensor, "x y z"]

    @staticmethod
    def carve(
        silhouettes: Sequence[Silhouette],
        unit_from_world: Similarity,
        resolution: int,
        tolerance_px: float,
        floor_m: float | None,
        world_per_mm: float = 1e-3,
    ) -> VisualHull:
        """Carve at `resolution` cells a side (16 times a power of two).

        Below the table (z = `floor_m`), where no camera sees, the solid goes straight down: an underside that is merely
        unseen must not look like a surface. It is cut at the table when a mesh is made.

        Raises:
            EvidenceError: nothing is left.
        """
        solid = carve(silhouettes, unit_from_world, resolution, tolerance_px, floor_m)
        if not bool(solid.any()):
            raise EvidenceError(
                f"the visual hull of {len(silhouettes)} silhouettes is empty: poses and masks contradict each other; "
                "check the calibration, the masks' polarity (object_is_black) and single masks that are far off"
            )
        if floor_m is not None:
            knee = (floor_m + _FOOT_MM * world_per_mm) * unit_from_world.scale + float(unit_from_world.translation[2])
            layer = min(max(int(knee * resolution), 0), resolution - 1)
            solid[:, :, :layer] |= solid[:, :, layer : layer + 1]
        beyond = np.pad(solid.numpy(), 1)
        if floor_m is not None:
            beyond[:, :, 0] = beyond[:, :, 1]
        cells = signed_distance(solid.numpy(), beyond)
        return VisualHull(sdf=torch.from_numpy((cells / resolution).astype(np.float32)))

    def without(self, free: Bool[Tensor, "x y z"]) -> VisualHull:
        """What is left of the solid where some cells (of another grid over the unit cube) are known to be free."""
        n = self.sdf.shape[0]
        wide = torch.nn.functional.interpolate(free[None, None].float(), size=(n, n, n), mode="trilinear")[0, 0] > 0.5
        solid = (self.sdf < 0) & ~wide
        if not bool(solid.any()):
            return self
        cells = signed_distance(solid.numpy(), np.pad(solid.numpy(), 1, mode="edge"))
        return VisualHull(sdf=torch.from_numpy((cells / n).astype(np.float32)))

    def crust(self, cells: float) -> Float[Tensor, "points 3"]:
        """Centres (unit) of the grid's cells that are less than so many cells from the surface."""
        n = self.sdf.shape[0]
        return ((self.sdf.abs() < cells / n).nonzero() + 0.5) / n

    @property
    def area(self) -> float:
        """Of the surface, in unit lengths squared."""
        # smoothed, as the distances to a solid of whole cells have its steps
        closed = gaussian_filter(np.pad(self.sdf.numpy(), 1, constant_values=1.0), 1.0)
        vertices, faces, _, _ = marching_cubes(closed, 0.0, spacing=(1 / self.sdf.shape[0],) * 3)
        return float(mesh_surface_area(vertices, faces))

    def slopes(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """Differences of the signed distance over four cells along each axis: the gradient but for its length."""
        step = 2.0 / self.sdf.shape[0]
        return torch.stack([self.look_up(points + n) - self.look_up(points - n) for n in step * torch.eye(3)], dim=1)

    def look_up(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points"]:
        """Trilinear signed distance at points of the unit cube (clamped to it)."""
        grid = self.sdf[None, None]
        at = (points.clamp(0, 1) * 2 - 1).flip(-1)[None, None, None]
        return torch.nn.functional.grid_sample(grid, at, align_corners=False, padding_mode="border")[0, 0, 0, 0]


def carve(
    silhouettes: Sequence[Silhouette],
    unit_from_world: Similarity,
    resolution: int,
    tolerance_px: float,
    floor_m: float | None,
) -> Bool[Tensor, "x y z"]:
    """Which cells' centres project into every silhouette that shows them, to within `tolerance_px`.

    Cells that are wholly in or out at a coarse level are settled there; only the others are divided.
    """
    world_from_unit = unit_from_world.inverse()
    side = _COARSEST
    state = torch.zeros(side, side, side, dtype=torch.int8)  # 0 to be settled, 1 inside, -1 outside
    while True:
        index = (state == 0).nonzero()
        centers = world_from_unit.apply((index + 0.5) / side)
        half = 0.5 * 3**0.5 / side * world_from_unit.scale if side < resolution else 0.0
        settled = _settle(silhouettes, centers, half, tolerance_px, floor_m)
        state[tuple(index.t())] = settled
        if side >= resolution:
            return state > 0
        side *= 2
        state = state.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)


def _settle(
    silhouettes: Sequence[Silhouette], centers: Tensor, half: float, tolerance_px: float, floor_m: float | None
) -> Tensor:
    """Of balls with radius `half` metres: 1 wholly inside, -1 wholly outside, 0 undecided (never if `half` is 0)."""
    floor = -torch.inf if floor_m is None else floor_m
    under = centers[:, 2] + half < floor
    against, doubt = torch.zeros(2, len(centers))
    n_seen = torch.zeros(len(centers), dtype=torch.int32)
    for silhouette in silhouettes:
        alive = (~under & (against < _ENOUGH)).nonzero()[:, 0]
        distance, px_per_metre = silhouette.look_up(centers[alive])
        radius = half * px_per_metre + (1.5 * silhouette.stride if half else 0.0)
        seen = distance > -torch.inf
        n_seen[alive] += seen
        against[alive] += silhouette.weight * (distance > tolerance_px + radius)
        in_doubt = (distance > tolerance_px - radius) | (~seen if half else torch.zeros_like(seen))
        doubt[alive] += silhouette.weight * in_doubt
    out = under | (against >= _ENOUGH)
    inside = (centers[:, 2] - half >= floor) & (doubt < _ENOUGH)
    if half == 0:
        hardly_seen = n_seen < max(1.0, _LEAST_SHARE_SEEN * len(silhouettes))
        out |= hardly_seen
        inside &= ~hardly_seen
    return inside.to(torch.int8) - out.to(torch.int8)


def locate(silhouettes: Sequence[Silhouette], tolerance_px: float, floor_m: float | None) -> Box:
    """The box (world, metres) around the hull, found without any prior guess of where the object is.

    Start: the point nearest to all rays through the silhouettes' middles, and the widest silhouette's reach there.

    Raises:
        EvidenceError: the silhouettes leave nothing.
    """
    starts, directions, halves = zip(*(s.center_ray() for s in silhouettes), strict=True)
    origins, axes = torch.stack(starts).double(), torch.stack(directions).double()
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    # a faint pull to the centres keeps the system regular when all cameras look the same way
    system = across.sum(0) + 1e-6 * torch.eye(3, dtype=torch.float64)
    right = (across @ origins[:, :, None]).sum(0)[:, 0] + 1e-6 * origins.mean(0)
    center = torch.linalg.solve(system, right)
    reach = 1.3 * float(((origins - center).norm(dim=1) * torch.tensor(halves, dtype=torch.float64)).max())
    box = Box(low=(center - reach).float(), high=(center + reach).float())
    for _ in range(2):
        cube = unit_cube(box)
        solid = carve(silhouettes, cube, 64, tolerance_px, floor_m)
        if not bool(solid.any()):
            raise EvidenceError(
                f"{len(silhouettes)} silhouettes have no common solid near {[round(x, 3) for x in center.tolist()]} m: "
                "poses and masks contradict each other; check calibration and masks"
            )
        cells = solid.nonzero()
        low = cube.inverse().apply((cells.amin(0) - 1.0) / 64)
        high = cube.inverse().apply((cells.amax(0) + 2.0) / 64)
        box = Box(low=low, high=high)
    return box


def unit_cube(box: Box) -> Similarity:
    """The similarity that puts the smallest cube around `box` onto [0, 1]^3, centre on centre."""
    scale = 1.0 / float(box.size.max())
    return Similarity(scale=scale, translation=0.5 - scale * 0.5 * (box.low + box.high))
