"""`march` in Numba: steps over blocks and cells without a band, one pass that counts, one that copies.

Every sample of a ray is written into a row of its own first, as long as the ray may need; rows are then packed.
"""

from __future__ import annotations

import weakref

import numba
import numpy as np
import torch
from torch import Tensor

from ..threads import use_threads
from . import BAND, INSIDE, OUTSIDE, Band, Samples

_BLOCK = 8  # cells a side


def march_cpu(
    origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, band: Band, step: float, jitter: Tensor
) -> Samples:
    use_threads()
    n = len(near)
    cells, sdf = band.cells.contiguous().numpy(), band.sdf.contiguous().numpy()
    blocks = _blocks_of(band.cells)
    longest = int(((far - near) / step).clamp_min(0).ceil().amax()) + 1 if n else 1
    rows, counts = torch.empty(n, longest), torch.empty(n, dtype=torch.long)
    rays = tuple(x.contiguous().numpy() for x in (origins, directions, near, far, jitter))
    lengths = np.float32(band.reach), np.float32(step)
    _walk(*rays, cells, blocks, sdf, *lengths, rows.numpy(), counts.numpy())  # pyright: ignore[reportCallIssue]
    starts = torch.zeros(n + 1, dtype=torch.long)
    torch.cumsum(counts, 0, out=starts[1:])
    t_mids, ray_indices = torch.empty(int(starts[-1])), torch.empty(int(starts[-1]), dtype=torch.long)
    _pack(rows.numpy(), starts.numpy(), t_mids.numpy(), ray_indices.numpy())
    return Samples(t_mids=t_mids, ray_indices=ray_indices, ray_starts=starts)


_last_blocks: tuple[weakref.ref[Tensor], int, np.ndarray] | None = None


def _blocks_of(cells: Tensor) -> np.ndarray:
    """Which blocks hold a cell that is not OUTSIDE; those of the last cells are kept, as a fit's change seldom."""
    global _last_blocks
    if _last_blocks is not None and _last_blocks[0]() is cells and _last_blocks[1] == cells._version:
        return _last_blocks[2]
    blocks = np.empty([-(-size // _BLOCK) for size in cells.shape], np.bool_)
    _block_up(cells.contiguous().numpy(), blocks)
    _last_blocks = weakref.ref(cells), cells._version, blocks
    return blocks


@numba.njit(parallel=True, cache=True)
def _block_up(cells, blocks):
    for bx in numba.prange(blocks.shape[0]):
        _block_up_slab(cells, bx, blocks)


@numba.njit(cache=True)
def _block_up_slab(cells, bx, blocks):
    for by in range(blocks.shape[1]):
        for bz in range(blocks.shape[2]):
            blocks[bx, by, bz] = False
    for x in range(bx * _BLOCK, min((bx + 1) * _BLOCK, cells.shape[0])):
        for y in range(cells.shape[1]):
            for bz in range(blocks.shape[2]):
                most = np.uint8(0)
                for z in range(bz * _BLOCK, min((bz + 1) * _BLOCK, cells.shape[2])):
                    most |= cells[x, y, z]
                blocks[bx, y // _BLOCK, bz] |= most != OUTSIDE


@numba.njit(parallel=True, cache=True)
def _walk(origins, directions, near, far, jitter, cells, blocks, sdf, reach, step, rows, counts):
    for ray in numba.prange(len(near)):
        span = near[ray], far[ray], jitter[ray]
        counts[ray] = _walk_ray(origins[ray], directions[ray], span, cells, blocks, sdf, reach, step, rows[ray])


@numba.njit(cache=True)
def _walk_ray(origin, direction, span, cells, blocks, sdf, reach, step, row):
    nx, ny, nz = cells.shape
    ox, oy, oz = origin[0], origin[1], origin[2]
    dx, dy, dz = direction[0], direction[1], direction[2]
    first, last, jitter = span
    count, i, entered = 0, 0, False
    while True:
        t = first + (np.float32(i) + jitter) * step
        if not t < last:
            return count
        x, y, z = (ox + dx * t) * nx, (oy + dy * t) * ny, (oz + dz * t) * nz
        ix, iy, iz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
        within = 0 <= ix < nx and 0 <= iy < ny and 0 <= iz < nz
        # what to step over, less one step: rounding must not jump over a sample the definition takes
        if within and not blocks[ix // _BLOCK, iy // _BLOCK, iz // _BLOCK]:
            x, y, z = x / _BLOCK, y / _BLOCK, z / _BLOCK
            exit_t = _exit(x, y, z, dx * nx / _BLOCK, dy * ny / _BLOCK, dz * nz / _BLOCK)
            i += max(1, int(exit_t / step) - 1)
            continue
        state = cells[ix, iy, iz] if within else OUTSIDE
        if state == BAND:
            entered = True
            if abs(_look_up(sdf, x, y, z)) < reach:
                row[count] = t
                count += 1
            i += 1
        elif state == INSIDE and entered:
            return count
        else:
            i += max(1, int(_exit(x, y, z, dx * nx, dy * ny, dz * nz) / step) - 1)


@numba.njit(parallel=True, cache=True)
def _pack(rows, starts, t_mids, ray_indices):
    for ray in numba.prange(len(rows)):
        first = starts[ray]
        for k in range(starts[ray + 1] - first):
            t_mids[first + k] = rows[ray, k]
            ray_indices[first + k] = ray


@numba.njit
def _exit(x, y, z, dx, dy, dz):
    """Distance along the ray to where it leaves the unit cell that it is in."""
    return min(_exit_axis(x, dx), _exit_axis(y, dy), _exit_axis(z, dz))


@numba.njit
def _exit_axis(x, slope):
    if slope > 1e-9:
        return (np.floor(x) + np.float32(1.0) - x) / slope
    if slope < -1e-9:
        return (np.floor(x) - x) / slope
    return np.float32(1e9)


@numba.njit
def _look_up(sdf, x, y, z):
    """Trilinear between cells' centres, in cells; beyond the outermost centres as there."""
    nx, ny, nz = sdf.shape
    x, y, z = _clamped(x, nx), _clamped(y, ny), _clamped(z, nz)
    ix, iy, iz = min(int(x), nx - 2), min(int(y), ny - 2), min(int(z), nz - 2)
    fx, fy, fz = x - np.float32(ix), y - np.float32(iy), z - np.float32(iz)
    a = _lerp(sdf[ix, iy, iz], sdf[ix, iy, iz + 1], fz)
    b = _lerp(sdf[ix, iy + 1, iz], sdf[ix, iy + 1, iz + 1], fz)
    c = _lerp(sdf[ix + 1, iy, iz], sdf[ix + 1, iy, iz + 1], fz)
    d = _lerp(sdf[ix + 1, iy + 1, iz], sdf[ix + 1, iy + 1, iz + 1], fz)
    return _lerp(_lerp(a, b, fy), _lerp(c, d, fy), fx)


@numba.njit
def _clamped(x, n):
    return min(max(x - np.float32(0.5), np.float32(0.0)), np.float32(n - 1))


@numba.njit
def _lerp(a, b, f):
    return a + f * (b - a)
