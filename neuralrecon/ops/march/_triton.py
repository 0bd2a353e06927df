"""`march` in Triton: a program takes one ray, its lanes neighbouring lattice points; count, prefix sum, fill.

The total of the samples must be known on the host before they can be allocated: the op's, and the step's, only wait.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import BAND, INSIDE, Band, Samples

# A kernel is launched with more than its function takes, and with plain numbers for its constants.
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

# Lattice points at a time: 4 for each lane of one warp, so that the running sums stay within the warp.
BLOCK = 128


def march_triton(
    origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, band: Band, step: float, jitter: Tensor
) -> Samples:
    given = tuple(x.contiguous() for x in (origins, directions, near, far, jitter, band.cells, band.sdf))
    n_rays = len(near)
    starts = torch.zeros(n_rays + 1, dtype=torch.long, device=near.device)
    _launch(given, band.reach, step, starts, near, starts[1:], fill=False)
    starts = starts.cumsum(0)
    total = int(starts[-1])
    t_mids, ray_indices = near.new_empty(total), starts.new_empty(total)
    _launch(given, band.reach, step, starts, t_mids, ray_indices, fill=True)
    return Samples(t_mids=t_mids, ray_indices=ray_indices, ray_starts=starts)


def _launch(
    given: tuple[Tensor, ...],
    reach: float,
    step: float,
    starts: Tensor,
    t_mids: Tensor,
    longs: Tensor,
    *,
    fill: bool,
) -> None:
    cells = given[-2]
    n_rays = len(starts) - 1
    if n_rays == 0:
        return
    with torch.cuda.device_of(starts):
        # Without fused multiply-adds both passes, and the definition, round alike: a sample on a cell's face falls to
        # the same side, so what is counted is what is filled.
        _walk[(n_rays,)](
            *given,
            reach,
            step,
            *cells.shape,
            starts,
            t_mids,
            longs,
            BAND=BAND,
            INSIDE=INSIDE,
            FILL=fill,
            BLOCK=BLOCK,
            num_warps=1,
            enable_fp_fusion=False,
        )


@triton.jit
def _lattice_index(position, size):
    """Cell along one axis, as a float (an integer would overflow far outside), and whether the grid has it."""
    n_cells = tl.cast(size, tl.float32)
    cell = tl.floor(position * n_cells)
    there = (cell >= 0.0) & (cell < n_cells)
    return tl.where(there, cell, 0.0).to(tl.int64), there


@triton.jit
def _between(position, size):
    """The two cells whose centres enclose a position along one axis, and how far it is from one to the other."""
    n_cells = tl.cast(size, tl.float32)
    at = tl.minimum(tl.maximum(position * n_cells - 0.5, 0.0), n_cells - 1.0)
    low = tl.minimum(tl.floor(at), tl.maximum(n_cells - 2.0, 0.0))
    high = tl.minimum(low + 1.0, n_cells - 1.0)
    return low.to(tl.int64), high.to(tl.int64), at - low


@triton.jit
def _along_row(row, low, high, fraction, wanted):
    first = tl.load(row + low, mask=wanted, other=0.0)
    return first + fraction * (tl.load(row + high, mask=wanted, other=0.0) - first)


@triton.jit
def _look_up(sdf, px, py, pz, nx, ny, nz, wanted):
    """`Band.look_up`, where wanted."""
    x0, x1, fx = _between(px, nx)
    y0, y1, fy = _between(py, ny)
    z0, z1, fz = _between(pz, nz)
    a = _along_row(sdf + (x0 * ny + y0) * nz, z0, z1, fz, wanted)
    b = _along_row(sdf + (x0 * ny + y1) * nz, z0, z1, fz, wanted)
    c = _along_row(sdf + (x1 * ny + y0) * nz, z0, z1, fz, wanted)
    d = _along_row(sdf + (x1 * ny + y1) * nz, z0, z1, fz, wanted)
    ab, cd = a + fy * (b - a), c + fy * (d - c)
    return ab + fx * (cd - ab)


@triton.jit
def _walk(
    origins,
    directions,
    near,
    far,
    jitter,
    cells,
    sdf,
    reach,
    step,
    nx,
    ny,
    nz,
    starts,
    t_mids,
    longs,
    BAND: tl.constexpr,
    INSIDE: tl.constexpr,
    FILL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes each ray's number of samples to `longs`, or (FILL) the samples to `t_mids` and their rays to `longs`."""
    ray = tl.program_id(0)
    ox, oy, oz = tl.load(origins + 3 * ray), tl.load(origins + 3 * ray + 1), tl.load(origins + 3 * ray + 2)
    dx, dy, dz = tl.load(directions + 3 * ray), tl.load(directions + 3 * ray + 1), tl.load(directions + 3 * ray + 2)
    begin, end, offset = tl.load(near + ray), tl.load(far + ray), tl.load(jitter + ray)
    start = tl.load(starts + ray)
    count, entered, going = tl.cast(0, tl.int32), tl.cast(0, tl.int32), tl.cast(1, tl.int32)
    lane = tl.arange(0, BLOCK)
    i = lane
    while going > 0:
        t = begin + (i.to(tl.float32) + offset) * step
        px, py, pz = ox + dx * t, oy + dy * t, oz + dz * t
        x, there_x = _lattice_index(px, nx)
        y, there_y = _lattice_index(py, ny)
        z, there_z = _lattice_index(pz, nz)
        before_end = t < end
        state = tl.load(cells + (x * ny + y) * nz + z, mask=before_end & there_x & there_y & there_z, other=0)
        band = (state == BAND).to(tl.int32)
        been_in = (tl.cumsum(band, axis=0) + entered) > 0
        stop = ((state == INSIDE) & been_in).to(tl.int32)
        seen = (band > 0) & (tl.cumsum(stop, axis=0) == 0)
        keep = (seen & (tl.abs(_look_up(sdf, px, py, pz, nx, ny, nz, seen)) < reach)).to(tl.int32)
        if FILL:
            at = start + count + tl.cumsum(keep, axis=0) - 1
            tl.store(t_mids + at, t, mask=keep > 0)
            tl.store(longs + at, ray.to(tl.int64), mask=keep > 0)
        count += tl.sum(keep, axis=0)
        entered += tl.sum(band, axis=0)
        going = tl.min(before_end.to(tl.int32), axis=0) * (tl.sum(stop, axis=0) == 0).to(tl.int32)
        i += BLOCK
    if not FILL:
        tl.store(longs + ray, count.to(tl.int64))
