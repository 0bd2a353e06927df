"""The sdf on a fine grid, by bricks: signs everywhere, values only beside the surface.

The model is asked coarse to fine: at every second node only where the coarser nodes leave room for a surface.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int32, UInt8
from torch import Tensor

from ..train import Fit

SIDE = 64
_COARSEST = 8
# A surface is looked for between nodes at distance d if they are nearer to it than 1.5 d: an sdf whose slope stays
# below 1.5 hides none.
_STEEPEST = 1.5
_LEAST = 1e-3  # voxels; a value of exactly zero would put several vertices on one spot

Index = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Brick:
    """64^3 nodes: a bit each for inside, packed along z, and the values (voxels) of those beside a change of sign."""

    inside: UInt8[np.ndarray, "x y eighths"]
    near: Int32[np.ndarray, "near"]  # flat [x, y, z]
    values: Float32[np.ndarray, "near"]

    def dense(self, first: tuple[bool, bool, bool] = (False, False, False)) -> Float32[np.ndarray, "x y z"]:
        """All values, or the first plane only along some axes; away from the surface they are 1 or -1."""
        cut = [slice(0, 1 if only else SIDE) for only in first]
        inside = np.unpackbits(self.inside[cut[0], cut[1]], axis=2)[:, :, cut[2]]
        at = np.unravel_index(self.near, (SIDE,) * 3)
        kept = np.ones(len(self.near), bool)
        for axis in range(3):
            if first[axis]:
                kept &= at[axis] == 0
        found = 1.0 - 2.0 * inside.astype(np.float32)
        found[tuple(a[kept] for a in at)] = self.values[kept]
        return found

    def with_sign(self, flipped: Bool[np.ndarray, "x y z"], inside: bool) -> Brick:
        """These nodes one voxel inside, or outside."""
        bits = np.packbits(flipped, axis=2)
        values = self.values.copy()
        values[flipped.ravel()[self.near]] = -1.0 if inside else 1.0
        return Brick(inside=self.inside | bits if inside else self.inside & ~bits, near=self.near, values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bricks:
    """Signed distance in voxels, positive outside, at nodes `low` + `voxel` * index (world).

    A brick all of one sign is -1 (inside) or 1 in `signs`, the others are 0 and in `mixed`. Beyond the grid is outside.
    """

    low: np.ndarray
    voxel: float
    signs: np.ndarray
    mixed: dict[Index, Brick]

    def block(self, index: Index) -> Float32[np.ndarray, "x y z"] | None:
        """A brick with the next ones' first planes, 65^3 nodes; None if all have the same sign."""
        x, y, z = index
        nexts = [(x + d[0], y + d[1], z + d[2]) for d in np.ndindex(2, 2, 2)]
        signs = [int(self.signs[i]) if self._has(i) else 1 for i in nexts]
        if set(signs) in ({1}, {-1}):
            return None
        found = np.ones((SIDE + 1,) * 3, np.float32)
        for d, i, sign in zip(np.ndindex(2, 2, 2), nexts, signs, strict=True):
            first = (d[0] == 1, d[1] == 1, d[2] == 1)
            part = tuple(slice(SIDE, SIDE + 1) if only else slice(0, SIDE) for only in first)
            found[part] = self.mixed[i].dense(first) if sign == 0 else sign
        inside = found < 0
        return None if inside.all() or not inside.any() else found

    def _has(self, index: Index) -> bool:
        return all(n < size for n, size in zip(index, self.signs.shape, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """The nodes of a fit's box: node (0, 0, 0) at `low` (world); the outermost ones are outside.

    All values are the sdf minus `level` (unit lengths).
    """

    fit: Fit
    guesses: Float[Tensor, "cells cells cells"]  # the occupancy grid's, on the CPU, where the nodes are chosen
    low: np.ndarray
    voxel: float
    shape: Index
    level: float = 0.0

    @staticmethod
    def around(fit: Fit, voxel: float, level: float = 0.0) -> Lattice:
        """Over the box around the hull with its margin; with a table from one and a half voxels below it on."""
        margin = 0.5 * float(1 / fit.unit_from_world.scale - fit.box.size.max())
        low, high = (fit.box.low - margin).double().numpy(), (fit.box.high + margin).double().numpy()
        if fit.floor_m is not None:
            low[2] = fit.floor_m - 1.5 * voxel
        x, y, z = (int(np.ceil(extent / voxel)) + 3 for extent in high - low)
        guesses = fit.occupancy.sdf.cpu() - level
        return Lattice(fit=fit, guesses=guesses, low=low - voxel, voxel=voxel, shape=(x, y, z), level=level)

    def sample(self) -> Bricks:
        """Ask the model in the band only; elsewhere the occupancy grid's last value has the right sign."""
        counts = [-(-n // SIDE) for n in self.shape]
        signs, mixed = np.zeros(counts, np.int8), {}
        for index in np.ndindex(*counts):
            found = self._brick(np.array(index) * SIDE)
            if isinstance(found, Brick):
                mixed[index] = found
            else:
                signs[index] = found
        return Bricks(low=self.low, voxel=self.voxel, signs=signs, mixed=mixed)

    def _brick(self, start: np.ndarray) -> Brick | int:
        """The brick from node `start` on, or its sign if all of it and around it has the same."""
        step = self._coarsest()
        axes = self._axes(start, step)
        values = self._guess(axes)
        asked = np.abs(values) < self._reach()
        settled = not asked.any()
        if settled and (values > 0).all():
            return 1
        if settled and (values < 0).all() and (start > 0).all() and (start + SIDE + 1 < self.shape).all():
            return -1
        values[asked] = self._ask(axes, asked)
        while step > 1:
            step //= 2
            axes, values, asked = self._axes(start, step), _twice_as_fine(values), _spread_out(asked)
            wanted = (np.abs(values) < _STEEPEST * 3**0.5 * step) & ~asked
            values[wanted] = self._ask(axes, wanted)
            asked |= wanted
        self._follow(axes, values, asked)
        return self._cut(start, values)

    def _follow(self, axes: list[np.ndarray], values: np.ndarray, asked: np.ndarray) -> None:
        """Ask on where the surface leaves the nodes that were asked, within the band."""
        while (missing := _beside_change(values < 0) & ~asked).any():
            at = np.nonzero(missing)
            asked |= missing
            in_band = np.abs(self._guess(axes, at)) < self._reach()
            missing[at] = in_band
            values[missing] = self._ask(axes, missing)

    def _cut(self, start: np.ndarray, values: np.ndarray) -> Brick | int:
        """With the outermost nodes outside, and all that is below the table."""
        axes = [np.arange(SIDE + 2) + s - 1 for s in start]
        for axis in range(3):
            beyond = (axes[axis] < 1) | (axes[axis] > self.shape[axis] - 2)
            np.moveaxis(values, axis, 0)[beyond] = 1.0
        if self.fit.floor_m is not None:
            below = (self.fit.floor_m - self.low[2]) / self.voxel - axes[2]
            np.maximum(values, below.astype(np.float32), out=values)
        values[np.abs(values) < _LEAST] = _LEAST
        inside = values < 0
        core = (slice(1, -1),) * 3
        near = np.flatnonzero(_beside_change(inside)[core])
        if len(near) == 0:
            return -1 if inside[1, 1, 1] else 1
        return Brick(
            inside=np.packbits(inside[core], axis=2),
            near=near.astype(np.int32),
            values=np.ascontiguousarray(values[core]).ravel()[near],
        )

    def _coarsest(self) -> int:
        """Every how many nodes to begin with: no further apart than the occupancy grid's cells."""
        cell = 1 / (self.fit.unit_from_world.scale * self.fit.occupancy.sdf.shape[0] * self.voxel)
        step = _COARSEST
        while step > max(cell, 1):
            step //= 2
        return step

    def _reach(self) -> float:
        """Half the width of the band, in voxels."""
        unit = 2.0 / self.fit.occupancy.sdf.shape[0] + 3 * self.fit.blur
        return unit / (self.fit.unit_from_world.scale * self.voxel)

    def _axes(self, start: np.ndarray, step: int) -> list[np.ndarray]:
        """Coordinates in the unit cube of every `step`-th node, from the one before the brick to the one behind it."""
        scale, shift = self.fit.unit_from_world.scale, self.fit.unit_from_world.translation.double().numpy()
        nodes = np.arange(-step, SIDE + 1, step)
        return [scale * (self.low[a] + self.voxel * (start[a] + nodes)) + shift[a] for a in range(3)]

    def _guess(self, axes: list[np.ndarray], at: tuple[np.ndarray, ...] | None = None) -> np.ndarray:
        """The occupancy grid's value, in voxels, at all nodes or at those with these indices."""
        grid = self.guesses
        side = grid.shape[0]
        cells = [torch.from_numpy(np.clip(np.floor(axis * side), 0, side - 1).astype(np.int64)) for axis in axes]
        if at is None:
            values = grid[cells[0][:, None, None], cells[1][None, :, None], cells[2][None, None, :]]
        else:
            values = grid[tuple(cell[torch.from_numpy(i)] for cell, i in zip(cells, at, strict=True))]
        return values.numpy() / np.float32(self.fit.unit_from_world.scale * self.voxel)

    def _ask(self, axes: list[np.ndarray], wanted: Bool[np.ndarray, "x y z"]) -> np.ndarray:
        """The model's value, in voxels."""
        points = np.stack([axis[i] for axis, i in zip(axes, np.nonzero(wanted), strict=True)], axis=1)
        in_cube = torch.from_numpy(points).clamp(0, 1).float().to(self.fit.device)
        values = self.fit.model.sdf(in_cube).cpu().numpy() - np.float32(self.level)
        return values / np.float32(self.fit.unit_from_world.scale * self.voxel)


def _twice_as_fine(values: np.ndarray) -> np.ndarray:
    """Linear between the nodes, without what comes before the last node that precedes the brick."""
    for axis in range(3):
        coarse = np.moveaxis(values, axis, 0)
        fine = np.empty((2 * len(coarse) - 2, *coarse.shape[1:]), values.dtype)
        fine[1::2] = coarse[1:]
        fine[::2] = 0.5 * (coarse[:-1] + coarse[1:])
        values = np.moveaxis(fine, 0, axis)
    return np.ascontiguousarray(values)


def _spread_out(asked: np.ndarray) -> np.ndarray:
    """Where the nodes that were asked are among twice as many."""
    fine = np.zeros([2 * n - 2 for n in asked.shape], bool)
    fine[1::2, 1::2, 1::2] = asked[1:, 1:, 1:]
    return fine


def _beside_change(inside: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Nodes of cells whose corners differ in sign."""
    return _wider(inside) & _wider(~inside)


def _wider(mask: np.ndarray) -> np.ndarray:
    for axis in range(3):
        wide = mask.copy()
        here, there = np.moveaxis(wide, axis, 0), np.moveaxis(mask, axis, 0)
        here[1:] |= there[:-1]
        here[:-1] |= there[1:]
        mask = wide
    return mask
