"""`hash_encode` in Triton. Arrays are feature-major in memory, so that a block's loads and stores coalesce.

A program takes one block of points on one level. Blocks run fastest along the launch, so the programs at work share one
level, whose table (2 MB at 2^18 entries) stays in the second-level cache. The forward pass is deterministic; the
backward pass adds by atomics, in an order that changes from run to run.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from . import HashGrid

# A kernel is launched with more than its function takes, and with plain numbers for its constants.
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

# One point for each of 128 threads: all the layouts that the compiler picks then put a point's values on one thread. At
# two points a thread it moved every corner's weight between threads, with 87 barriers in place of 7.
BLOCK = 128
# `_torch`'s primes as int32: products wrap around, and the bits that the mask keeps stay the same
PRIME_Y = tl.constexpr(2654435761 - (1 << 32))
PRIME_Z = tl.constexpr(805459861)


def hash_encode_triton(
    points: Float[Tensor, "points 3"], table: Float[Tensor, "entries f"], grid: HashGrid, levels: int
) -> tuple[Float[Tensor, "points features"], Float[Tensor, "points features 3"]]:
    return _HashEncode.apply(points, table, grid, levels, True)  # pyright: ignore[reportReturnType]


def hash_features_triton(
    points: Float[Tensor, "points 3"], table: Float[Tensor, "entries f"], grid: HashGrid, levels: int
) -> Float[Tensor, "points features"]:
    return _HashEncode.apply(points, table, grid, levels, False)[0]  # pyright: ignore[reportOptionalSubscript]


class _HashEncode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, points: Tensor, table: Tensor, grid: HashGrid, levels: int, with_jacobian: bool
    ) -> tuple[Tensor, Tensor]:
        points_soa = points.t().contiguous()
        features = table.new_empty(grid.n_features, len(points))
        jacobian = encode_feature_major(points_soa, table, grid, levels, features, with_jacobian=with_jacobian)
        ctx.save_for_backward(points_soa, table)
        ctx.set_materialize_grads(False)  # a Jacobian that nobody differentiates costs nothing
        ctx.grid, ctx.levels, ctx.with_jacobian = grid, levels, with_jacobian
        return features.t(), jacobian.permute(2, 1, 0)

    @staticmethod
    def backward(ctx, d_features, d_jacobian):
        points_soa, table = ctx.saved_tensors
        d_table = torch.zeros_like(table, memory_format=torch.contiguous_format)
        grid, n = ctx.grid, points_soa.shape[1]
        if n == 0 or ctx.levels == 0:
            return None, d_table, None, None, None
        if d_features is None:
            d_features = table.new_zeros(n, grid.n_features)
        d_features = d_features.t().contiguous()
        with_jacobian = ctx.with_jacobian and d_jacobian is not None
        slopes = d_features if d_jacobian is None else d_jacobian.permute(2, 1, 0).contiguous()
        with torch.cuda.device_of(table):
            _backward[(triton.cdiv(n, BLOCK), ctx.levels)](
                points_soa,
                d_features,
                slopes,
                layout(grid, table.device),
                d_table,
                n,
                grid.n_features,
                brick_mask(grid),
                F=grid.features_per_level,
                WITH_JACOBIAN=with_jacobian,
                BLOCK=BLOCK,
                num_warps=4,
            )
        return None, d_table, None, None, None


def encode_feature_major(
    points_soa: Float[Tensor, "3 points"],
    table: Float[Tensor, "entries f"],
    grid: HashGrid,
    levels: int,
    features: Float[Tensor, "features points"],
    *,
    with_jacobian: bool,
) -> Float[Tensor, "3 features points"]:
    """Fill `features`, whose rows must follow each other in memory, and return the Jacobian (empty if not wanted).

    Rows beyond the levels in use become zero.
    """
    width, n = features.shape
    jacobian = table.new_empty(3, width, n) if with_jacobian else table.new_empty(0, 0, 0)
    used = levels * grid.features_per_level
    features[used:].zero_()
    jacobian[:, used:].zero_()
    if n == 0 or levels == 0:
        return jacobian
    with torch.cuda.device_of(table):
        _forward[(triton.cdiv(n, BLOCK), levels)](
            points_soa,
            table.contiguous(),
            layout(grid, table.device),
            features,
            jacobian if with_jacobian else features,
            n,
            width,
            brick_mask(grid),
            F=grid.features_per_level,
            WITH_JACOBIAN=with_jacobian,
            BLOCK=BLOCK,
            num_warps=4,
        )
    return jacobian


def table_gradient_of_product(
    points_soa: Float[Tensor, "3 points"],
    by_feature: Float[Tensor, "features points"],
    d_sdf: Float[Tensor, "points"],
    d_gradient: Float[Tensor, "3 points"],
    table: Float[Tensor, "entries f"],
    grid: HashGrid,
    levels: int,
) -> Float[Tensor, "entries f"]:
    """The table's gradient for d_features = by_feature * d_sdf, d_jacobian = by_feature * d_gradient, never stored."""
    d_table = torch.zeros_like(table, memory_format=torch.contiguous_format)
    n = points_soa.shape[1]
    if n and levels:
        with torch.cuda.device_of(table):
            _backward_product[(triton.cdiv(n, BLOCK), levels)](
                points_soa,
                by_feature,
                d_sdf,
                d_gradient,
                layout(grid, table.device),
                d_table,
                n,
                brick_mask(grid),
                F=grid.features_per_level,
                BLOCK=BLOCK,
                num_warps=4,
            )
    return d_table


def brick_mask(grid: HashGrid) -> int:
    return (1 << grid.log2_table_size - 3) - 1


@lru_cache(maxsize=16)
def layout(grid: HashGrid, device: torch.device) -> Int[Tensor, "levels 3"]:
    """Resolution, first entry and whether it is dense, of each level; kept, as copying to the GPU would wait."""
    rows = [[grid.resolutions[level], grid.offsets[level], int(grid.is_dense(level))] for level in range(grid.levels)]
    return torch.tensor(rows, dtype=torch.int32, device=device)


@triton.jit
def _cell(points, i, inside, resolution):
    """Index and fraction along one axis; where a lane has no point, those of 0."""
    scaled = tl.minimum(tl.maximum(tl.load(points + i, mask=inside, other=0.0), 0.0), 1.0) * resolution.to(tl.float32)
    index = tl.minimum(scaled.to(tl.int32), resolution - 1)
    return index, scaled - index.to(tl.float32)


@triton.jit
def _entry(ix, iy, iz, side, start, dense, mask, corner: tl.constexpr):
    """Table entry of a cell's corner. Indices that overflow belong to levels that are hashed, and are not taken."""
    x, y, z = ix + (corner & 1), iy + ((corner >> 1) & 1), iz + ((corner >> 2) & 1)
    within = (x & 1) + 2 * (y & 1) + 4 * (z & 1)
    x, y, z = x >> 1, y >> 1, z >> 1
    stored = x + side * (y + side * z)
    hashed = (x ^ (y * PRIME_Y) ^ (z * PRIME_Z)) & mask
    return (start + 8 * tl.where(dense != 0, stored, hashed) + within).to(tl.int64)


@triton.jit
def _side(fraction, upper: tl.constexpr):
    """Weight of a cell's upper or lower side, and the sign of its slope."""
    if upper:
        weight, sign = fraction, 1.0
    else:
        weight, sign = 1.0 - fraction, -1.0
    return weight, sign


@triton.jit
def _weights(fx, fy, fz, corner: tl.constexpr):
    """A corner's trilinear weight, and its derivatives by the fractions."""
    wx, sx = _side(fx, corner & 1)
    wy, sy = _side(fy, (corner >> 1) & 1)
    wz, sz = _side(fz, (corner >> 2) & 1)
    return wx * wy * wz, sx * wy * wz, sy * wx * wz, sz * wx * wy


@triton.jit
def _forward(
    points,
    table,
    layout,
    features,
    jacobian,
    n,
    n_features,
    mask,
    F: tl.constexpr,
    WITH_JACOBIAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    level = tl.program_id(1)
    level_layout = layout + 3 * level
    resolution, start, dense = tl.load(level_layout), tl.load(level_layout + 1), tl.load(level_layout + 2)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    inside = i < n
    ix, fx = _cell(points, i, inside, resolution)
    iy, fy = _cell(points + n, i, inside, resolution)
    iz, fz = _cell(points + 2 * n, i, inside, resolution)
    f = tl.arange(0, F)[None, :]
    value = tl.zeros([BLOCK, F], dtype=tl.float32)
    jx = tl.zeros([BLOCK, F], dtype=tl.float32)
    jy = tl.zeros([BLOCK, F], dtype=tl.float32)
    jz = tl.zeros([BLOCK, F], dtype=tl.float32)
    for corner in tl.static_range(8):
        entry = _entry(ix, iy, iz, resolution // 2 + 1, start, dense, mask, corner)
        v = tl.load(table + entry * F + f, mask=inside, other=0.0)
        w, wx, wy, wz = _weights(fx, fy, fz, corner)
        value += w * v
        if WITH_JACOBIAN:
            jx += wx * v
            jy += wy * v
            jz += wz * v
    at = (level * F + f).to(tl.int64) * n + i
    tl.store(features + at, value, mask=inside)
    if WITH_JACOBIAN:
        scale = resolution.to(tl.float32)
        plane = tl.cast(n, tl.int64) * n_features
        tl.store(jacobian + at, jx * scale, mask=inside)
        tl.store(jacobian + plane + at, jy * scale, mask=inside)
        tl.store(jacobian + 2 * plane + at, jz * scale, mask=inside)


@triton.jit
def _scatter(points, d_table, level_layout, i, n, mask, d, jx, jy, jz, F: tl.constexpr, SLOPES: tl.constexpr):
    """Add to the eight corners' gradients, from those of the value and (times the resolution) of the slopes."""
    resolution, start, dense = tl.load(level_layout), tl.load(level_layout + 1), tl.load(level_layout + 2)
    inside = i < n
    ix, fx = _cell(points, i, inside, resolution)
    iy, fy = _cell(points + n, i, inside, resolution)
    iz, fz = _cell(points + 2 * n, i, inside, resolution)
    f = tl.arange(0, F)[None, :]
    for corner in tl.static_range(8):
        entry = _entry(ix, iy, iz, resolution // 2 + 1, start, dense, mask, corner)
        w, wx, wy, wz = _weights(fx, fy, fz, corner)
        g = w * d
        if SLOPES:
            g += wx * jx + wy * jy + wz * jz
        # relaxed: sums need no order among themselves, and the kernel's end is the only fence that matters
        tl.atomic_add(d_table + entry * F + f, g, mask=inside, sem="relaxed")


@triton.jit
def _backward(
    points,
    d_features,
    d_jacobian,
    layout,
    d_table,
    n,
    n_features,
    mask,
    F: tl.constexpr,
    WITH_JACOBIAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    level = tl.program_id(1)
    level_layout = layout + 3 * level
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    inside = i < n
    at = (level * F + tl.arange(0, F)[None, :]).to(tl.int64) * n + i
    d = tl.load(d_features + at, mask=inside, other=0.0)
    jx, jy, jz = d, d, d
    if WITH_JACOBIAN:
        scale = tl.load(level_layout).to(tl.float32)
        plane = tl.cast(n, tl.int64) * n_features
        jx = scale * tl.load(d_jacobian + at, mask=inside, other=0.0)
        jy = scale * tl.load(d_jacobian + plane + at, mask=inside, other=0.0)
        jz = scale * tl.load(d_jacobian + 2 * plane + at, mask=inside, other=0.0)
    _scatter(points, d_table, level_layout, i, n, mask, d, jx, jy, jz, F, WITH_JACOBIAN)


@triton.jit
def _backward_product(
    points, by_feature, d_sdf, d_gradient, layout, d_table, n, mask, F: tl.constexpr, BLOCK: tl.constexpr
):
    level = tl.program_id(1)
    level_layout = layout + 3 * level
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    inside = i < n
    at = (level * F + tl.arange(0, F)[None, :]).to(tl.int64) * n + i
    w = tl.load(by_feature + at, mask=inside, other=0.0)
    scaled = w * tl.load(level_layout).to(tl.float32)
    d = w * tl.load(d_sdf + i, mask=inside, other=0.0)
    jx = scaled * tl.load(d_gradient + i, mask=inside, other=0.0)
    jy = scaled * tl.load(d_gradient + n + i, mask=inside, other=0.0)
    jz = scaled * tl.load(d_gradient + 2 * n + i, mask=inside, other=0.0)
    _scatter(points, d_table, level_layout, i, n, mask, d, jx, jy, jz, F, True)
