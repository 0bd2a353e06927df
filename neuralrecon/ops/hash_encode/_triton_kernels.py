"""`hash_encode`'s kernels for Triton: what one program does for one block of points on one level.

Loops whose length is a tensor are `while` loops: up to Triton 3.6 the interpreter knows no others with NumPy 2.
"""

from __future__ import annotations

import triton
import triton.language as tl

# A kernel's parameters and results are Triton's own, whatever Python's types say.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

# `_torch`'s primes as int32: products wrap around, and the bits that the mask keeps stay the same
PRIME_Y = tl.constexpr(2654435761 - (1 << 32))
PRIME_Z = tl.constexpr(805459861)


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
def encode(
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
def encode_backward(
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
def encode_backward_of_product(
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


@triton.jit
def pull(by_feature, jacobian, gradient, n, rows, BLOCK: tl.constexpr):
    """Add the sum over features of jacobian * by_feature to `gradient`, at one block of points."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    plane = tl.cast(n, tl.int64) * rows
    gx = tl.load(gradient + i, mask=inside, other=0.0)
    gy = tl.load(gradient + n + i, mask=inside, other=0.0)
    gz = tl.load(gradient + 2 * n + i, mask=inside, other=0.0)
    at, slope = by_feature + i, jacobian + i
    row = 0
    while row < rows:
        g = tl.load(at, mask=inside, other=0.0)
        gx += g * tl.load(slope, mask=inside, other=0.0)
        gy += g * tl.load(slope + plane, mask=inside, other=0.0)
        gz += g * tl.load(slope + 2 * plane, mask=inside, other=0.0)
        at += n
        slope += n
        row += 1
    tl.store(gradient + i, gx, mask=inside)
    tl.store(gradient + n + i, gy, mask=inside)
    tl.store(gradient + 2 * n + i, gz, mask=inside)
