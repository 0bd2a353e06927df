"""`hash_encode` in Numba. Arrays are level-major in memory, so that each level streams; the views are the contract's.

Forward: each thread takes one long run of points, level by level, so that one level's table stays in cache
(runs of 2,048 points were 2.6 times slower: every level's table had to come back from memory for each run).
Backward: each thread owns whole levels, so no two threads write one entry and the sum's order never changes.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..threads import use_threads
from . import HashGrid


def hash_encode_cpu(
    points: Float[Tensor, "points 3"], table: Float[Tensor, "entries f"], grid: HashGrid, levels: int
) -> tuple[Float[Tensor, "points features"], Float[Tensor, "points features 3"]]:
    return _HashEncode.apply(points, table, grid, levels, True)  # pyright: ignore[reportReturnType]


def hash_features_cpu(
    points: Float[Tensor, "points 3"], table: Float[Tensor, "entries f"], grid: HashGrid, levels: int
) -> Float[Tensor, "points features"]:
    return _HashEncode.apply(points, table, grid, levels, False)[0]  # pyright: ignore[reportOptionalSubscript]


class _HashEncode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, points: Tensor, table: Tensor, grid: HashGrid, levels: int, with_jacobian: bool
    ) -> tuple[Tensor, Tensor]:
        points_soa = points.t().contiguous()
        features = torch.empty(grid.n_features, points.shape[0])
        jacobian = encode_level_major(points_soa, table.detach(), grid, levels, features, with_jacobian=with_jacobian)
        ctx.save_for_backward(points_soa)
        ctx.set_materialize_grads(False)  # a Jacobian that nobody differentiates costs nothing
        ctx.grid, ctx.levels, ctx.table_shape, ctx.with_jacobian = grid, levels, table.shape, with_jacobian
        return features.t(), jacobian.permute(2, 1, 0)

    @staticmethod
    def backward(ctx, d_features: Tensor | None, d_jacobian: Tensor | None):
        (points_soa,) = ctx.saved_tensors
        d_table = torch.zeros(ctx.table_shape)
        if d_features is None:
            d_features = torch.zeros(points_soa.shape[1], ctx.grid.n_features)
        if d_jacobian is None or not ctx.with_jacobian:
            d_jacobian = torch.empty(0, 0, 0)
        backward_kernel(
            points_soa.numpy(),
            d_features.t().contiguous().numpy(),
            d_jacobian.permute(2, 1, 0).contiguous().numpy(),
            *layout_arrays(ctx.grid),
            ctx.levels,
            use_threads(),
            d_table.numpy(),
        )
        return None, d_table, None, None, None


def encode_level_major(
    points_soa: Float[Tensor, "3 points"],
    table: Tensor,
    grid: HashGrid,
    levels: int,
    features: Float[Tensor, "features points"],
    *,
    with_jacobian: bool,
) -> Float[Tensor, "3 features points"]:
    """Fill `features`, as they lie in memory, and return the Jacobian (empty if not wanted).

    Rows beyond the levels in use become zero.

    Raises:
        NotImplementedError: not 2 features a level.
    """
    if grid.features_per_level != 2:
        raise NotImplementedError("the compiled encoding takes 2 features per level; others run with use_backend")
    jacobian = torch.empty(3, *features.shape) if with_jacobian else torch.empty(0, 0, 0)
    features[2 * levels :].zero_()
    jacobian[:, 2 * levels :].zero_()
    forward_kernel(
        points_soa.numpy(),
        table.contiguous().numpy(),
        *layout_arrays(grid),
        levels,
        use_threads(),
        features.numpy(),
        jacobian.numpy(),
    )
    return jacobian


def layout_arrays(grid: HashGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    dense = np.array([grid.is_dense(level) for level in range(grid.levels)])
    mask = (1 << grid.log2_table_size) - 1
    return np.array(grid.resolutions, np.int64), np.array(grid.offsets, np.int64), dense, mask


@numba.njit(inline="always")
def _corners(ix, iy, iz, side, dense, mask, start):
    """Table entries of the cell's eight corners, x fastest."""
    if dense:
        e = start + ix + side * (iy + side * iz)
        sy, sz = side, side * side
        return e, e + 1, e + sy, e + sy + 1, e + sz, e + sz + 1, e + sz + sy, e + sz + sy + 1
    y0, z0 = iy * 2654435761, iz * 805459861
    y1, z1 = y0 + 2654435761, z0 + 805459861
    a, b, c, d = y0 ^ z0, y1 ^ z0, y0 ^ z1, y1 ^ z1
    jx = ix + 1
    return (
        start + ((ix ^ a) & mask),
        start + ((jx ^ a) & mask),
        start + ((ix ^ b) & mask),
        start + ((jx ^ b) & mask),
        start + ((ix ^ c) & mask),
        start + ((jx ^ c) & mask),
        start + ((ix ^ d) & mask),
        start + ((jx ^ d) & mask),
    )


@numba.njit(inline="always")
def _cell(x, resolution):
    scaled = x * np.float32(resolution)
    scaled = scaled if scaled > np.float32(0.0) else np.float32(0.0)
    index = np.int64(scaled)
    index = index if index < resolution else resolution - 1
    fraction = scaled - np.float32(index)
    return index, fraction if fraction < np.float32(1.0) else np.float32(1.0)


@numba.njit(inline="always")
def _value_and_slopes(v0, v1, v2, v3, v4, v5, v6, v7, fx, fy, fz, scale):
    d0, d1, d2, d3 = v1 - v0, v3 - v2, v5 - v4, v7 - v6
    x00, x10, x01, x11 = v0 + fx * d0, v2 + fx * d1, v4 + fx * d2, v6 + fx * d3
    y0, y1 = x00 + fy * (x10 - x00), x01 + fy * (x11 - x01)
    s0, s1 = d0 + fy * (d1 - d0), d2 + fy * (d3 - d2)
    t0, t1 = x10 - x00, x11 - x01
    return y0 + fz * (y1 - y0), scale * (s0 + fz * (s1 - s0)), scale * (t0 + fz * (t1 - t0)), scale * (y1 - y0)


@numba.njit(parallel=True, cache=True, fastmath=True)
def forward_kernel(points, table, resolutions, offsets, dense, mask, levels, threads, features, jacobian):
    """Fill features [2 * levels, n] and, unless it is empty, jacobian [3, 2 * levels, n] at points [3, n]."""
    n = points.shape[1]
    with_jacobian = jacobian.shape[0] == 3
    run = (n + threads - 1) // threads
    for thread in numba.prange(threads):
        for level in range(levels):
            resolution, scale = resolutions[level], np.float32(resolutions[level])
            r = 2 * level
            for i in range(thread * run, min(n, (thread + 1) * run)):
                ix, fx = _cell(points[0, i], resolution)
                iy, fy = _cell(points[1, i], resolution)
                iz, fz = _cell(points[2, i], resolution)
                e0, e1, e2, e3, e4, e5, e6, e7 = _corners(
                    ix, iy, iz, resolution + 1, dense[level], mask, offsets[level]
                )
                a0, b0 = table[e0, 0], table[e0, 1]
                a1, b1 = table[e1, 0], table[e1, 1]
                a2, b2 = table[e2, 0], table[e2, 1]
                a3, b3 = table[e3, 0], table[e3, 1]
                a4, b4 = table[e4, 0], table[e4, 1]
                a5, b5 = table[e5, 0], table[e5, 1]
                a6, b6 = table[e6, 0], table[e6, 1]
                a7, b7 = table[e7, 0], table[e7, 1]
                value, jx, jy, jz = _value_and_slopes(a0, a1, a2, a3, a4, a5, a6, a7, fx, fy, fz, scale)
                features[r, i] = value
                if with_jacobian:
                    jacobian[0, r, i], jacobian[1, r, i], jacobian[2, r, i] = jx, jy, jz
                value, jx, jy, jz = _value_and_slopes(b0, b1, b2, b3, b4, b5, b6, b7, fx, fy, fz, scale)
                features[r + 1, i] = value
                if with_jacobian:
                    jacobian[0, r + 1, i], jacobian[1, r + 1, i], jacobian[2, r + 1, i] = jx, jy, jz


@numba.njit(inline="always")
def _corner_gradients(d, jx, jy, jz, fx, fy, fz):
    """d loss / d corner value, from the gradients of the value and of its three slopes."""
    one = np.float32(1.0)
    gx, gy, gz = one - fx, one - fy, one - fz
    w00, w10, w01, w11 = gy * gz, fy * gz, gy * fz, fy * fz
    r00, r10 = w00 * d - jy * gz - jz * gy, w10 * d + jy * gz - jz * fy
    r01, r11 = w01 * d - jy * fz + jz * gy, w11 * d + jy * fz + jz * fy
    s00, s10, s01, s11 = w00 * jx, w10 * jx, w01 * jx, w11 * jx
    return (
        gx * r00 - s00,
        fx * r00 + s00,
        gx * r10 - s10,
        fx * r10 + s10,
        gx * r01 - s01,
        fx * r01 + s01,
        gx * r11 - s11,
        fx * r11 + s11,
    )


@numba.njit(inline="always")
def _scatter(d_table, f, e0, e1, e2, e3, e4, e5, e6, e7, d, jx, jy, jz, fx, fy, fz):
    g0, g1, g2, g3, g4, g5, g6, g7 = _corner_gradients(d, jx, jy, jz, fx, fy, fz)
    d_table[e0, f] += g0
    d_table[e1, f] += g1
    d_table[e2, f] += g2
    d_table[e3, f] += g3
    d_table[e4, f] += g4
    d_table[e5, f] += g5
    d_table[e6, f] += g6
    d_table[e7, f] += g7


@numba.njit(parallel=True, cache=True, fastmath=True)
def backward_kernel(points, d_features, d_jacobian, resolutions, offsets, dense, mask, levels, threads, d_table):
    """Add to d_table [entries, 2]; an empty d_jacobian stands for zeros."""
    n = points.shape[1]
    with_jacobian = d_jacobian.shape[0] == 3
    for thread in numba.prange(threads):
        for level in range(thread, levels, threads):
            resolution, scale = resolutions[level], np.float32(resolutions[level])
            for i in range(n):
                ix, fx = _cell(points[0, i], resolution)
                iy, fy = _cell(points[1, i], resolution)
                iz, fz = _cell(points[2, i], resolution)
                e0, e1, e2, e3, e4, e5, e6, e7 = _corners(
                    ix, iy, iz, resolution + 1, dense[level], mask, offsets[level]
                )
                for f in range(2):
                    row = 2 * level + f
                    jx = jy = jz = np.float32(0.0)
                    if with_jacobian:
                        jx, jy, jz = d_jacobian[0, row, i], d_jacobian[1, row, i], d_jacobian[2, row, i]
                    d = d_features[row, i]
                    jx, jy, jz = scale * jx, scale * jy, scale * jz
                    _scatter(d_table, f, e0, e1, e2, e3, e4, e5, e6, e7, d, jx, jy, jz, fx, fy, fz)


@numba.njit(parallel=True, cache=True, fastmath=True)
def backward_product_kernel(
    points, by_feature, d_sdf, d_gradient, resolutions, offsets, dense, mask, levels, threads, d_table
):
    """`backward_kernel` for d_features = by_feature * d_sdf and d_jacobian = by_feature * d_gradient, never stored."""
    n = points.shape[1]
    for thread in numba.prange(threads):
        for level in range(thread, levels, threads):
            resolution, scale = resolutions[level], np.float32(resolutions[level])
            for i in range(n):
                ix, fx = _cell(points[0, i], resolution)
                iy, fy = _cell(points[1, i], resolution)
                iz, fz = _cell(points[2, i], resolution)
                e0, e1, e2, e3, e4, e5, e6, e7 = _corners(
                    ix, iy, iz, resolution + 1, dense[level], mask, offsets[level]
                )
                d, gx, gy, gz = d_sdf[i], scale * d_gradient[0, i], scale * d_gradient[1, i], scale * d_gradient[2, i]
                for f in range(2):
                    w = by_feature[2 * level + f, i]
                    _scatter(d_table, f, e0, e1, e2, e3, e4, e5, e6, e7, w * d, w * gx, w * gy, w * gz, fx, fy, fz)
