"""`sdf_query` in Numba: encoding, network and gradient of one tile of points after the other, within the cache.

Tiles are runs of points in Morton order. What the backward pass needs of a tile is kept: its inputs and their slopes,
the derivative by each input, and one bit for each hidden unit. The algebra is in the contract.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..buffers import take_zeros
from ..hash_encode import HashGrid
from ..hash_encode._cpu import layout, morton_order
from ..hash_encode._cpu_kernels import TILE, encode, gather_tile, scatter_product
from ..products import BLOCK, add_outer, product, rounded
from ..simd import LANES, load, load_mask, select, splat, store, store_mask
from ..threads import use_threads
from . import SdfNetwork


def sdf_query_cpu(
    points: Float[Tensor, "points 3"], network: SdfNetwork, grid: HashGrid, levels: int
) -> tuple[Float[Tensor, "points"], Float[Tensor, "points 3"]]:
    return _SdfQuery.apply(  # pyright: ignore[reportReturnType]
        points.contiguous(),
        network.table,
        network.hidden_weight,
        network.hidden_bias,
        network.out_weight,
        network.out_bias,
        grid,
        levels,
    )


class _SdfQuery(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points, table, hidden_weight, hidden_bias, out_weight, out_bias, grid, levels):
        used, n_hidden = 3 + 2 * levels, hidden_weight.shape[0]
        weights, out = _layers(hidden_weight, hidden_bias, out_weight, used)
        width, depth = len(out), rounded(used, BLOCK)
        pulls = torch.zeros(width, depth)
        pulls[:n_hidden, :used] = hidden_weight[:, :used] * out_weight[:, None]
        order, n_tiles = morton_order(points), -(-len(points) // TILE)
        inputs, slopes = torch.empty(n_tiles, used + 1, TILE), torch.empty(n_tiles, 3 * 2 * levels, TILE)
        by_input, masks = (
            torch.empty(depth, n_tiles * TILE),
            torch.empty(n_tiles, width, TILE // LANES, dtype=torch.int16),
        )
        columns = torch.empty(3, n_tiles * TILE)
        sdf, gradient = torch.empty(len(points)), torch.empty(len(points), 3)
        _forward(
            points.numpy(),
            order,
            table.contiguous().numpy(),
            *layout(grid),
            levels,
            (weights.numpy(), pulls.numpy(), out.numpy(), np.float32(out_bias)),
            use_threads(),
            (columns.numpy(), inputs.numpy(), slopes.numpy(), by_input.numpy(), masks.numpy().view(np.uint16)),
            sdf.numpy(),
            gradient.numpy(),
        )
        ctx.save_for_backward(columns, inputs, slopes, by_input, masks, hidden_weight, hidden_bias, out_weight, table)
        ctx.order, ctx.grid, ctx.levels = order, grid, levels
        return sdf, gradient

    @staticmethod
    def backward(ctx, d_sdf, d_gradient):
        columns, inputs, slopes, by_input, masks, hidden_weight, hidden_bias, out_weight, table = ctx.saved_tensors
        used, n_hidden = 3 + 2 * ctx.levels, hidden_weight.shape[0]
        width, depth = masks.shape[1], rounded(used + 1, 4)
        threads = use_threads()
        pushed = torch.empty(4, columns.shape[1])
        sums = torch.zeros(threads, width * depth, LANES)
        d_table = take_zeros(table.shape)
        _backward(
            d_sdf.contiguous().numpy(),
            d_gradient.contiguous().numpy(),
            ctx.order,
            (inputs.numpy(), slopes.numpy(), masks.numpy().view(np.uint16)),
            threads,
            pushed.numpy(),
            sums.numpy(),
        )
        _scatter(
            columns.numpy(),
            by_input[3:].numpy(),
            pushed.numpy(),
            *layout(ctx.grid),
            ctx.levels,
            threads,
            d_table.numpy(),
        )
        products = sums.sum(dim=(0, 2)).view(width, depth)[:n_hidden]
        by_weight, by_bias = products[:, :used], products[:, used]
        d_hidden_weight = torch.zeros_like(hidden_weight)
        d_hidden_weight[:, :used] = out_weight[:, None] * by_weight
        d_out_weight = (hidden_weight[:, :used] * by_weight).sum(dim=1) + hidden_bias * by_bias
        return None, d_table, d_hidden_weight, out_weight * by_bias, d_out_weight, d_sdf.sum(), None, None


def sdf_values_cpu(
    points: Float[Tensor, "points 3"], network: SdfNetwork, grid: HashGrid, levels: int
) -> Float[Tensor, "points"]:
    points, values = points.contiguous(), torch.empty(len(points))
    weights, out = _layers(network.hidden_weight, network.hidden_bias, network.out_weight, 3 + 2 * levels)
    _values(
        points.numpy(),
        morton_order(points),
        network.table.detach().contiguous().numpy(),
        *layout(grid),
        levels,
        (weights.detach().numpy(), out.detach().numpy(), np.float32(network.out_bias.detach())),
        use_threads(),
        values.numpy(),
    )
    return values


def _layers(hidden_weight: Tensor, hidden_bias: Tensor, out_weight: Tensor, used: int) -> tuple[Tensor, Tensor]:
    """[inputs and 1, hidden rounded up], whose last row is the bias; [hidden rounded up]."""
    n_hidden = len(out_weight)
    weights = torch.zeros(used + 1, rounded(n_hidden, BLOCK))
    weights[:used, :n_hidden] = hidden_weight[:, :used].t()
    weights[used, :n_hidden] = hidden_bias
    out = torch.zeros(weights.shape[1])
    out[:n_hidden] = out_weight
    return weights, out


@numba.njit(parallel=True, cache=True)
def _values(points, order, table, resolutions, offsets, dense, mask, levels, network, threads, values):
    n_tiles = (len(order) + TILE - 1) // TILE
    run = (n_tiles + threads - 1) // threads
    grid = resolutions, offsets, dense, mask, levels
    for thread in numba.prange(threads):
        _values_tiles(thread * run, min(n_tiles, (thread + 1) * run), points, order, table, grid, network, values)


@numba.njit(cache=True)
def _values_tiles(first_tile, last_tile, points, order, table, grid, network, values):
    weights, out_weight, out_bias = network
    resolutions, offsets, dense, mask, levels = grid
    columns, x = np.empty((3, TILE), np.float32), np.empty((len(weights), TILE), np.float32)
    hidden, sums = np.empty((weights.shape[1], TILE), np.float32), np.empty((1, TILE), np.float32)
    no_slopes, masks = np.empty((0, TILE), np.float32), np.empty((len(out_weight), TILE // LANES), np.uint16)
    for tile in range(first_tile, last_tile):
        count = gather_tile(points, order, tile, columns)
        for i in range(TILE):
            for axis in range(3):
                x[axis, i] = columns[axis, i] - np.float32(0.5)
            x[3 + 2 * levels, i] = np.float32(1.0)
        encode(columns, 0, TILE, table, resolutions, offsets, dense, mask, levels, x, 3, no_slopes)
        product(weights, x, TILE, hidden)
        _activate(hidden, out_weight, out_bias, masks, sums)
        for i in range(count):
            values[order[tile * TILE + i]] = sums[0, i]


@numba.njit(parallel=True, cache=True)
def _forward(points, order, table, resolutions, offsets, dense, mask, levels, network, threads, kept, sdf, gradient):
    n_tiles = len(kept[1])
    run = (n_tiles + threads - 1) // threads
    grid = resolutions, offsets, dense, mask, levels
    for thread in numba.prange(threads):
        first, last = thread * run, min(n_tiles, (thread + 1) * run)
        _forward_tiles(first, last, points, order, table, grid, network, kept, sdf, gradient)


@numba.njit(cache=True)
def _forward_tiles(first_tile, last_tile, points, order, table, grid, network, kept, sdf, gradient):
    weights, pulls, out_weight, out_bias = network
    columns, inputs, slopes, by_input, masks = kept
    resolutions, offsets, dense, mask, levels = grid
    hidden, values = np.empty((weights.shape[1], TILE), np.float32), np.empty((4, TILE), np.float32)
    for tile in range(first_tile, last_tile):
        first = tile * TILE
        here, pulled, x = columns[:, first : first + TILE], by_input[:, first : first + TILE], inputs[tile]
        count = gather_tile(points, order, tile, here)
        for i in range(TILE):
            for axis in range(3):
                x[axis, i] = here[axis, i] - np.float32(0.5)
            x[3 + 2 * levels, i] = np.float32(1.0)
        encode(here, 0, TILE, table, resolutions, offsets, dense, mask, levels, x, 3, slopes[tile])
        product(weights, x, TILE, hidden)
        _activate(hidden, out_weight, out_bias, masks[tile], values)
        product(pulls, hidden, TILE, pulled)
        _pull(slopes[tile], pulled, values)
        for i in range(count):
            source = order[first + i]
            sdf[source] = values[0, i]
            for axis in range(3):
                gradient[source, axis] = values[1 + axis, i]


@numba.njit(cache=True)
def _activate(hidden, out_weight, out_bias, masks, values):
    """Sum up the sdf; what was hidden becomes 1 where it counts, else 0."""
    zero, one = splat(np.float32(0.0)), splat(np.float32(1.0))
    for i in range(0, TILE, LANES):
        total = splat(out_bias)
        for j in range(len(hidden)):
            h = load(hidden, j, i)
            active = h > zero
            total = total + splat(out_weight[j]) * select(active, h, zero)
            store_mask(masks, j, i // LANES, active)
            store(hidden, j, i, select(active, one, zero))
        store(values, 0, i, total)


@numba.njit(cache=True)
def _pull(slopes, by_input, values):
    """Gradient by position from the derivative by each input."""
    by_axis = len(slopes) // 3
    for i in range(0, TILE, LANES):
        x, y, z = load(by_input, 0, i), load(by_input, 1, i), load(by_input, 2, i)
        for r in range(by_axis):
            g = load(by_input, 3 + r, i)
            x = x + g * load(slopes, r, i)
            y = y + g * load(slopes, by_axis + r, i)
            z = z + g * load(slopes, 2 * by_axis + r, i)
        store(values, 1, i, x)
        store(values, 2, i, y)
        store(values, 3, i, z)


@numba.njit(parallel=True, cache=True)
def _backward(d_sdf, d_gradient, order, kept, threads, pushed, sums):
    """pushed = [d sdf, d gradient] in Morton order, sums[thread] = products of masks and inputs (the contract's A)."""
    n_tiles = len(kept[0])
    run = (n_tiles + threads - 1) // threads
    for thread in numba.prange(threads):
        first, last = thread * run, min(n_tiles, (thread + 1) * run)
        _backward_tiles(first, last, d_sdf, d_gradient, order, kept, pushed, sums[thread])


@numba.njit(cache=True)
def _backward_tiles(first_tile, last_tile, d_sdf, d_gradient, order, kept, pushed, sums):
    inputs, slopes, masks = kept
    width, used = masks.shape[1], inputs.shape[1] - 1
    active, q = np.empty((width, TILE), np.float32), np.zeros((len(sums) // width, TILE), np.float32)
    for tile in range(first_tile, last_tile):
        first = tile * TILE
        here = pushed[:, first : first + TILE]
        for i in range(TILE):
            source = order[min(first + i, len(order) - 1)]
            valid = first + i < len(order)
            here[0, i] = d_sdf[source] if valid else np.float32(0.0)
            for axis in range(3):
                here[1 + axis, i] = d_gradient[source, axis] if valid else np.float32(0.0)
        _push(inputs[tile], slopes[tile], here, used, q)
        _unpack(masks[tile], active)
        add_outer(active, q, TILE, sums)


@numba.njit(cache=True)
def _push(inputs, slopes, pushed, used, q):
    by_axis = len(slopes) // 3
    for i in range(0, TILE, LANES):
        d, gx, gy, gz = load(pushed, 0, i), load(pushed, 1, i), load(pushed, 2, i), load(pushed, 3, i)
        store(q, 0, i, load(inputs, 0, i) * d + gx)
        store(q, 1, i, load(inputs, 1, i) * d + gy)
        store(q, 2, i, load(inputs, 2, i) * d + gz)
        for r in range(by_axis):
            along = gx * load(slopes, r, i) + gy * load(slopes, by_axis + r, i) + gz * load(slopes, 2 * by_axis + r, i)
            store(q, 3 + r, i, load(inputs, 3 + r, i) * d + along)
        store(q, used, i, d)


@numba.njit(cache=True)
def _unpack(masks, active):
    zero, one = splat(np.float32(0.0)), splat(np.float32(1.0))
    for j in range(len(masks)):
        for i in range(0, TILE, LANES):
            store(active, j, i, select(load_mask(masks, j, i // LANES), one, zero))


@numba.njit(parallel=True, cache=True)
def _scatter(columns, weights, pushed, resolutions, offsets, dense, mask, levels, threads, d_table):
    for thread in numba.prange(threads):
        for level in range(thread, levels, threads):
            scatter_product(
                columns, weights, pushed, resolutions, offsets, dense, mask, level, columns.shape[1], d_table
            )
