"""The loops of `hash_encode` on the CPU, over tiles or columns of points; others' kernels build on them.

Columns are arrays [3, points]: sixteen points are worked on at a time, so arrays must reach to a multiple of that.
"""

from __future__ import annotations

import numba
import numpy as np

from ..simd import (
    LANES,
    add_high,
    add_low,
    firsts,
    gather_high,
    gather_low,
    load,
    seconds,
    select,
    splat,
    store,
    to_floats,
    to_ints,
    zip_high,
    zip_low,
)

TILE = 512  # points whose features and derivatives stay in a core's cache while they are worked on
_PRIME_Y, _PRIME_Z = np.int32(2654435761 - (1 << 32)), np.int32(805459861)


@numba.njit(cache=True)
def sort_by_morton(points, bits, order):
    """A stable counting sort by the interleaved upper bits of the coordinates."""
    n, side = len(points), 1 << bits
    keys = np.empty(n, np.int32)
    spread = np.zeros(side, np.int32)
    for c in range(side):
        for b in range(bits):
            spread[c] |= ((c >> b) & 1) << (3 * b)
    starts = np.zeros(side * side * side + 1, np.int32)
    for i in range(n):
        key = 0
        for axis in range(3):
            key |= spread[min(max(int(points[i, axis] * side), 0), side - 1)] << axis
        keys[i] = key
        starts[key + 1] += 1
    for key in range(1, len(starts)):
        starts[key] += starts[key - 1]
    for i in range(n):
        order[starts[keys[i]]] = i
        starts[keys[i]] += 1


@numba.njit(cache=True)
def gather_tile(points, order, tile, columns):
    """The tile's points as columns, the last one again where there are none left; returns how many there are."""
    first = tile * TILE
    count = min(TILE, len(order) - first)
    for i in range(TILE):
        source = order[first + min(i, count - 1)]
        for axis in range(3):
            columns[axis, i] = points[source, axis]
    return count


@numba.njit
def _cell(x, resolution, last):
    """Cell and fraction within it, both clamped to the cube."""
    zero, one = splat(np.float32(0.0)), splat(np.float32(1.0))
    scaled = x * resolution
    scaled = select(scaled > zero, scaled, zero)
    index = to_ints(scaled)
    index = select(index < last, index, last)
    fraction = scaled - to_floats(index)
    return index, select(one > fraction, fraction, one)


@numba.njit
def _corners(ix, iy, iz, resolution, dense, mask):
    """Entries, within the level, of the cell's eight corners, x fastest (see `HashGrid`: bricks of 2 x 2 x 2)."""
    one, two, three = splat(np.int32(1)), splat(np.int32(2)), splat(np.int32(3))
    jx, jy, jz = ix + one, iy + one, iz + one
    x0, x1 = ((ix >> one) << three) | (ix & one), ((jx >> one) << three) | (jx & one)
    y0, y1, z0, z1 = iy >> one, jy >> one, iz >> one, jz >> one
    in_y0, in_y1, in_z0, in_z1 = (iy & one) << one, (jy & one) << one, (iz & one) << two, (jz & one) << two
    if dense:
        side = np.int32(resolution // 2 + 1)
        by_y, by_z = splat(np.int32(8) * side), splat(np.int32(8) * side * side)
        y0, y1, z0, z1 = y0 * by_y + in_y0, y1 * by_y + in_y1, z0 * by_z + in_z0, z1 * by_z + in_z1
        a, b, c, d = y0 + z0, y1 + z0, y0 + z1, y1 + z1
        return x0 + a, x1 + a, x0 + b, x1 + b, x0 + c, x1 + c, x0 + d, x1 + d
    by_y, by_z, within = splat(_PRIME_Y), splat(_PRIME_Z), splat(np.int32(mask))
    y0, y1 = ((y0 * by_y) << three) | in_y0, ((y1 * by_y) << three) | in_y1
    z0, z1 = ((z0 * by_z) << three) | in_z0, ((z1 * by_z) << three) | in_z1
    a, b, c, d = y0 ^ z0, y1 ^ z0, y0 ^ z1, y1 ^ z1
    return (
        (x0 ^ a) & within,
        (x1 ^ a) & within,
        (x0 ^ b) & within,
        (x1 ^ b) & within,
        (x0 ^ c) & within,
        (x1 ^ c) & within,
        (x0 ^ d) & within,
        (x1 ^ d) & within,
    )


@numba.njit
def _placed(columns, i, scale, top, resolution, dense, mask):
    """Entries of the eight corners around sixteen points, and where in the cell the points lie."""
    ix, fx = _cell(load(columns, 0, i), scale, top)
    iy, fy = _cell(load(columns, 1, i), scale, top)
    iz, fz = _cell(load(columns, 2, i), scale, top)
    return _corners(ix, iy, iz, resolution, dense, mask), (fx, fy, fz)


@numba.njit
def _value_and_slopes(v0, v1, v2, v3, v4, v5, v6, v7, fx, fy, fz, scale):
    d0, d1, d2, d3 = v1 - v0, v3 - v2, v5 - v4, v7 - v6
    x00, x10, x01, x11 = v0 + fx * d0, v2 + fx * d1, v4 + fx * d2, v6 + fx * d3
    t0, t1 = x10 - x00, x11 - x01
    y0, y1 = x00 + fy * t0, x01 + fy * t1
    s0, s1 = d0 + fy * (d1 - d0), d2 + fy * (d3 - d2)
    return y0 + fz * (y1 - y0), scale * (s0 + fz * (s1 - s0)), scale * (t0 + fz * (t1 - t0)), scale * (y1 - y0)


@numba.njit(cache=True)
def encode(columns, first, last, table, resolutions, offsets, dense, mask, levels, features, row, slopes):
    """features[row + 2 level + f, i] and slopes[(axis, 2 level + f), i] of points [3, i], first <= i < last.

    `slopes` may have no rows. Columns are worked on in sixteens, so they must reach that far.
    """
    by_axis = slopes.shape[0] // 3
    for level in range(levels):
        scale, top = splat(np.float32(resolutions[level])), splat(np.int32(resolutions[level] - 1))
        start, r = offsets[level], 2 * level
        for i in range(first, last, LANES):
            entries, (fx, fy, fz) = _placed(columns, i, scale, top, resolutions[level], dense[level], mask)
            e0, e1, e2, e3, e4, e5, e6, e7 = entries
            low, low_x, low_y, low_z = _value_and_slopes(
                gather_low(table, start, e0),
                gather_low(table, start, e1),
                gather_low(table, start, e2),
                gather_low(table, start, e3),
                gather_low(table, start, e4),
                gather_low(table, start, e5),
                gather_low(table, start, e6),
                gather_low(table, start, e7),
                zip_low(fx, fx),
                zip_low(fy, fy),
                zip_low(fz, fz),
                scale,
            )
            high, high_x, high_y, high_z = _value_and_slopes(
                gather_high(table, start, e0),
                gather_high(table, start, e1),
                gather_high(table, start, e2),
                gather_high(table, start, e3),
                gather_high(table, start, e4),
                gather_high(table, start, e5),
                gather_high(table, start, e6),
                gather_high(table, start, e7),
                zip_high(fx, fx),
                zip_high(fy, fy),
                zip_high(fz, fz),
                scale,
            )
            store(features, row + r, i, firsts(low, high))
            store(features, row + r + 1, i, seconds(low, high))
            if by_axis:
                store(slopes, r, i, firsts(low_x, high_x))
                store(slopes, r + 1, i, seconds(low_x, high_x))
                store(slopes, by_axis + r, i, firsts(low_y, high_y))
                store(slopes, by_axis + r + 1, i, seconds(low_y, high_y))
                store(slopes, 2 * by_axis + r, i, firsts(low_z, high_z))
                store(slopes, 2 * by_axis + r + 1, i, seconds(low_z, high_z))


@numba.njit(parallel=True, cache=True)
def encode_columns(columns, table, resolutions, offsets, dense, mask, levels, threads, features, slopes):
    n = columns.shape[1]
    run = ((n + threads - 1) // threads + LANES - 1) // LANES * LANES
    for thread in numba.prange(threads):
        first, last = thread * run, min(n, (thread + 1) * run)
        encode(columns, first, last, table, resolutions, offsets, dense, mask, levels, features, 0, slopes)


@numba.njit(cache=True)
def pull_points(slopes, pushed, order, first, count, d_points):
    """Gradient by position from that by the features, of one tile."""
    by_axis = len(slopes) // 3
    along = np.empty((1, LANES), np.float32)
    for i in range(0, count, LANES):
        for axis in range(3):
            total = splat(np.float32(0.0))
            for r in range(by_axis):
                total = total + load(slopes, axis * by_axis + r, i) * load(pushed, r, i)
            store(along, 0, 0, total)
            for k in range(min(LANES, count - i)):
                d_points[order[first + i + k], axis] = along[0, k]


@numba.njit
def _corner_gradients(d, jx, jy, jz, fx, fy, fz):
    """d loss / d corner value, from the gradients of the value and of its three slopes."""
    one = splat(np.float32(1.0))
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


@numba.njit
def _scatter(d_table, start, entries, fractions, a, b):
    """Add to the corners' two features; `a` and `b` are each feature's gradients by value and by the slopes."""
    e0, e1, e2, e3, e4, e5, e6, e7 = entries
    fx, fy, fz = fractions
    g0, g1, g2, g3, g4, g5, g6, g7 = _corner_gradients(
        zip_low(a[0], b[0]),
        zip_low(a[1], b[1]),
        zip_low(a[2], b[2]),
        zip_low(a[3], b[3]),
        zip_low(fx, fx),
        zip_low(fy, fy),
        zip_low(fz, fz),
    )
    add_low(d_table, start, e0, g0)
    add_low(d_table, start, e1, g1)
    add_low(d_table, start, e2, g2)
    add_low(d_table, start, e3, g3)
    add_low(d_table, start, e4, g4)
    add_low(d_table, start, e5, g5)
    add_low(d_table, start, e6, g6)
    add_low(d_table, start, e7, g7)
    g0, g1, g2, g3, g4, g5, g6, g7 = _corner_gradients(
        zip_high(a[0], b[0]),
        zip_high(a[1], b[1]),
        zip_high(a[2], b[2]),
        zip_high(a[3], b[3]),
        zip_high(fx, fx),
        zip_high(fy, fy),
        zip_high(fz, fz),
    )
    add_high(d_table, start, e0, g0)
    add_high(d_table, start, e1, g1)
    add_high(d_table, start, e2, g2)
    add_high(d_table, start, e3, g3)
    add_high(d_table, start, e4, g4)
    add_high(d_table, start, e5, g5)
    add_high(d_table, start, e6, g6)
    add_high(d_table, start, e7, g7)


@numba.njit(parallel=True, cache=True)
def scatter_columns(columns, pushed, resolutions, offsets, dense, mask, levels, threads, d_table):
    """pushed [(by value, by slope along x, y, z) x features, points]."""
    rows = pushed.shape[0] // 4
    for thread in numba.prange(threads):
        for level in range(thread, levels, threads):
            scale, top = splat(np.float32(resolutions[level])), splat(np.int32(resolutions[level] - 1))
            start, r = offsets[level], 2 * level
            for i in range(0, columns.shape[1], LANES):
                entries, fractions = _placed(columns, i, scale, top, resolutions[level], dense[level], mask)
                ax, bx = scale * load(pushed, rows + r, i), scale * load(pushed, rows + r + 1, i)
                ay, by = scale * load(pushed, 2 * rows + r, i), scale * load(pushed, 2 * rows + r + 1, i)
                az, bz = scale * load(pushed, 3 * rows + r, i), scale * load(pushed, 3 * rows + r + 1, i)
                a, b = (load(pushed, r, i), ax, ay, az), (load(pushed, r + 1, i), bx, by, bz)
                _scatter(d_table, start, entries, fractions, a, b)


@numba.njit(parallel=True, cache=True)
def scatter_values(columns, pushed, resolutions, offsets, dense, mask, levels, threads, d_table):
    """The same for values alone: pushed [at least features, points]."""
    for thread in numba.prange(threads):
        for level in range(thread, levels, threads):
            scale, top = splat(np.float32(resolutions[level])), splat(np.int32(resolutions[level] - 1))
            zero = splat(np.float32(0.0))
            start, r = offsets[level], 2 * level
            for i in range(0, columns.shape[1], LANES):
                entries, fractions = _placed(columns, i, scale, top, resolutions[level], dense[level], mask)
                a, b = (load(pushed, r, i), zero, zero, zero), (load(pushed, r + 1, i), zero, zero, zero)
                _scatter(d_table, start, entries, fractions, a, b)


@numba.njit(cache=True)
def scatter_product(columns, weights, by_slope, resolutions, offsets, dense, mask, level, n, d_table):
    """One level's gradients where a feature's are its weight times (d sdf, d gradient): columns, weights, by_slope.

    points [3, n], weights [features, n], by_slope [4, n].
    """
    scale, top = splat(np.float32(resolutions[level])), splat(np.int32(resolutions[level] - 1))
    start, r = offsets[level], 2 * level
    for i in range(0, n, LANES):
        entries, fractions = _placed(columns, i, scale, top, resolutions[level], dense[level], mask)
        d, jx, jy, jz = load(by_slope, 0, i), load(by_slope, 1, i), load(by_slope, 2, i), load(by_slope, 3, i)
        jx, jy, jz = scale * jx, scale * jy, scale * jz
        u, v = load(weights, r, i), load(weights, r + 1, i)
        a, b = (u * d, u * jx, u * jy, u * jz), (v * d, v * jx, v * jy, v * jz)
        _scatter(d_table, start, entries, fractions, a, b)
