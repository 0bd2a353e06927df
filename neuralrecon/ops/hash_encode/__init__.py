"""Multiresolution hash encoding with its Jacobian (Müller et al. 2022, "Instant neural graphics primitives", §3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..backends import Backend, backend_for


@dataclass(frozen=True, slots=True, kw_only=True)
class HashGrid:
    """Layout of the table. Level l is a grid of `resolution(l)` cells a side over the unit cube.

    Resolutions grow geometrically from `base_resolution` to `finest_resolution`. Vertices are stored in bricks of
    2 x 2 x 2, one line of a processor's cache with two features, so that a cell's corners lie in few lines (3.4 on
    average, against 4.5 without bricks). A level whose bricks fit into 2^log2_table_size entries is stored densely; of
    others the bricks are hashed (Teschner et al. 2003, eq. 4 of the paper).
    """

    levels: int = 14
    features_per_level: int = 2
    log2_table_size: int = 18
    base_resolution: int = 16
    finest_resolution: int = 1024

    @property
    def n_features(self) -> int:
        return self.levels * self.features_per_level

    @property
    def resolutions(self) -> tuple[int, ...]:
        if self.levels == 1:
            return (self.base_resolution,)
        growth = math.log(self.finest_resolution / self.base_resolution) / (self.levels - 1)
        return tuple(round(self.base_resolution * math.exp(growth * level)) for level in range(self.levels))

    @property
    def offsets(self) -> tuple[int, ...]:
        """First entry of each level, and one past the last."""
        starts = [0]
        for resolution in self.resolutions:
            starts.append(starts[-1] + min(8 * (resolution // 2 + 1) ** 3, 1 << self.log2_table_size))
        return tuple(starts)

    @property
    def n_entries(self) -> int:
        return self.offsets[-1]

    def is_dense(self, level: int) -> bool:
        return 8 * (self.resolutions[level] // 2 + 1) ** 3 <= 1 << self.log2_table_size


def hash_encode(
    points: Float[Tensor, "points 3"],
    table: Float[Tensor, "entries features_per_level"],
    grid: HashGrid,
    active_levels: int | None = None,
) -> tuple[Float[Tensor, "points features"], Float[Tensor, "points features 3"]]:
    """Trilinear features at points of the unit cube, and their derivative by position.

    Points outside [0, 1] are clamped to it (with the derivative of the clamped cell). Levels from `active_levels` on
    give zeros. Both outputs are differentiable once with respect to `table`; `points` are taken as constants.
    Being piecewise trilinear, the Jacobian jumps at cell faces.

    Example:
        >>> grid = HashGrid(levels=2, log2_table_size=14, finest_resolution=32)
        >>> features, jacobian = hash_encode(torch.rand(5, 3), torch.zeros(grid.n_entries, 2), grid)
        >>> features.shape, jacobian.shape
        (torch.Size([5, 4]), torch.Size([5, 4, 3]))
    """
    levels = grid.levels if active_levels is None else min(active_levels, grid.levels)
    backend = backend_for(table)
    if backend == Backend.cpu:
        from ._cpu import hash_encode_cpu

        return hash_encode_cpu(points.detach(), table, grid, levels)
    if backend == Backend.triton:
        from ._triton import hash_encode_triton

        return hash_encode_triton(points.detach(), table, grid, levels)
    from ._torch import hash_encode_torch

    return hash_encode_torch(points.detach(), table, grid, levels)


def hash_features(
    points: Float[Tensor, "points 3"],
    table: Float[Tensor, "entries features_per_level"],
    grid: HashGrid,
    active_levels: int | None = None,
) -> Float[Tensor, "points features"]:
    """The features of `hash_encode` alone; differentiable once with respect to `points`, too."""
    levels = grid.levels if active_levels is None else min(active_levels, grid.levels)
    backend = backend_for(table)
    if backend == Backend.cpu:
        from ._cpu import hash_features_cpu

        return hash_features_cpu(points, table, grid, levels)
    if backend == Backend.triton:
        from ._triton import hash_features_triton

        return hash_features_triton(points, table, grid, levels)
    from ._torch import hash_encode_torch

    return hash_encode_torch(points, table, grid, levels)[0]
