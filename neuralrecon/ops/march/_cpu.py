"""`march` in Numba: walks cell by cell, skips whole cells that are not BAND, in two passes (count, then fill)."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from ..threads import use_threads
from . import BAND, INSIDE, Samples


def march_cpu(
    origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, cells: Tensor, step: float, jitter: Tensor
) -> Samples:
    use_threads()
    arrays = tuple(x.contiguous().numpy() for x in (origins, directions, near, far, cells, jitter))
    counts = torch.zeros(len(near), dtype=torch.long)
    nothing = np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64)
    _walk(*arrays, np.float32(step), *nothing, counts.numpy())  # pyright: ignore[reportCallIssue]
    starts = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    t_mids = torch.empty(int(starts[-1]))
    ray_indices = torch.empty(int(starts[-1]), dtype=torch.long)
    filled = starts.numpy(), t_mids.numpy(), ray_indices.numpy(), counts.numpy()
    _walk(*arrays, np.float32(step), *filled)  # pyright: ignore[reportCallIssue]
    return Samples(t_mids=t_mids, ray_indices=ray_indices, ray_starts=starts)


@numba.njit(parallel=True, cache=True)
def _walk(origins, directions, near, far, cells, jitter, step, starts, t_mids, ray_indices, counts):
    fill = len(starts) > 0
    nx, ny, nz = cells.shape
    for ray in numba.prange(len(near)):
        ox, oy, oz = origins[ray]
        dx, dy, dz = directions[ray]
        count, i, entered = 0, 0, False
        while True:
            t = near[ray] + (np.float32(i) + jitter[ray]) * step
            if not t < far[ray]:
                break
            x, y, z = (ox + dx * t) * nx, (oy + dy * t) * ny, (oz + dz * t) * nz
            ix, iy, iz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
            state = 0
            if 0 <= ix < nx and 0 <= iy < ny and 0 <= iz < nz:
                state = cells[ix, iy, iz]
            if state == BAND:
                entered = True
                if fill:
                    t_mids[starts[ray] + count] = t
                    ray_indices[starts[ray] + count] = ray
                count += 1
                i += 1
            elif state == INSIDE and entered:
                break
            else:
                # to the cell's exit, less one step: rounding must not jump over a sample the definition takes
                exit_t = min(_exit(x, ix, dx * nx), _exit(y, iy, dy * ny), _exit(z, iz, dz * nz))
                i += max(1, int(exit_t / step) - 1)
        if not fill:
            counts[ray] = count


@numba.njit(inline="always")
def _exit(x, index, slope):
    """Distance along the ray to where it leaves the cell through this axis' faces."""
    if slope > 1e-9:
        return (np.float32(index) + np.float32(1.0) - x) / slope
    if slope < -1e-9:
        return (np.float32(index) - x) / slope
    return np.float32(1e9)
