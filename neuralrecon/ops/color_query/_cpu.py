"""`color_query` in Numba: encoding and network of one tile of points after the other, within the cache.

Every layer's inputs have a last row of ones, whose weight is the bias. They are kept for the backward pass, which goes
through the tiles once more; a hidden unit above zero is one that was active.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..buffers import take_zeros
from ..hash_encode import HashGrid
from ..hash_encode._cpu import layout, morton_order, within_cube
from ..hash_encode._cpu_kernels import TILE, encode, gather_tile, pull_points, scatter_values
from ..products import BLOCK, add_outer, product, rounded
from ..simd import LANES, load, select, splat, store
from ..threads import use_threads
from . import ColorNetwork


def color_query_cpu(
    points: Float[Tensor, "points 3"], extras: Float[Tensor, "points extras"], network: ColorNetwork, grid: HashGrid
) -> Float[Tensor, "points 3"]:
    return _ColorQuery.apply(  # pyright: ignore[reportReturnType]
        points.contiguous(),
        extras.contiguous(),
        network.table,
        network.hidden_weight,
        network.hidden_bias,
        network.middle_weight,
        network.middle_bias,
        network.out_weight,
        network.out_bias,
        grid,
    )


class _ColorQuery(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points, extras, table, w1, b1, w2, b2, w3, b3, grid):
        order, n_tiles = morton_order(points), -(-len(points) // TILE)
        layers = [_with_bias(w, b) for w, b in ((w1, b1), (w2, b2), (w3, b3))]
        width = layers[0].shape[1]
        inputs = torch.empty(n_tiles, len(layers[0]), TILE)
        hidden, middle = torch.empty(2, n_tiles, width + 1, TILE).unbind(0)
        n_slopes = 3 * grid.n_features if ctx.needs_input_grad[0] else 0
        slopes = torch.empty(n_tiles, n_slopes, TILE)
        colors = torch.empty(len(points), 3)
        # between two layers the biases' row of ones comes after the rounded width
        layers[1:] = [_padded(layer, width) for layer in layers[1:]]
        _forward(
            points.numpy(),
            extras.numpy(),
            order,
            table.contiguous().numpy(),
            *layout(grid),
            tuple(layer.numpy() for layer in layers),
            use_threads(),
            (inputs.numpy(), slopes.numpy(), hidden.numpy(), middle.numpy()),
            colors.numpy(),
        )
        ctx.save_for_backward(points, inputs, slopes, hidden, middle, colors, table, w1, w2, w3)
        ctx.order, ctx.grid = order, grid
        return colors

    @staticmethod
    def backward(ctx, d_colors):
        points, inputs, slopes, hidden, middle, colors, table, w1, w2, w3 = ctx.saved_tensors
        threads, width, n_inputs = use_threads(), hidden.shape[1] - 1, w1.shape[1]
        d_table, d_points = take_zeros(table.shape), torch.zeros_like(points)
        d_extras = torch.empty(len(points), n_inputs - ctx.grid.n_features)
        columns = torch.empty(3, len(inputs) * TILE)
        pushed = torch.empty(rounded(n_inputs, BLOCK), columns.shape[1])
        rows = rounded(n_inputs + 1, 4), rounded(width + 1, 4)
        sums = (
            torch.zeros(threads, width * rows[0], LANES),
            torch.zeros(threads, width * rows[1], LANES),
            torch.zeros(threads, 4 * rows[1], LANES),
        )
        _backward(
            points.numpy(),
            (d_colors * colors * (1 - colors)).numpy(),
            ctx.order,
            (_padded_to(w1, width, rounded(n_inputs, BLOCK)), _padded_to(w2, width, width), _padded_to(w3, 4, width)),
            threads,
            (inputs.numpy(), slopes.numpy(), hidden.numpy(), middle.numpy()),
            tuple(s.numpy() for s in sums),
            (columns.numpy(), pushed.numpy(), d_points.numpy(), d_extras.numpy()),
        )
        scatter_values(columns.numpy(), pushed.numpy(), *layout(ctx.grid), ctx.grid.levels, threads, d_table.numpy())
        s1, s2, s3 = (s.sum(dim=(0, 2)) for s in sums)
        n = w1.shape[0]
        s1, s2, s3 = s1.view(width, -1)[:n], s2.view(width, -1)[:n], s3.view(4, -1)[:3]
        return (
            within_cube(d_points, points) if ctx.needs_input_grad[0] else None,
            d_extras,
            d_table,
            s1[:, :n_inputs],
            s1[:, n_inputs],
            s2[:, :n],
            s2[:, width],
            s3[:, :n],
            s3[:, width],
            None,
        )


def _with_bias(weight: Tensor, bias: Tensor) -> Tensor:
    """[inputs and 1, outputs rounded up]."""
    layer = torch.zeros(weight.shape[1] + 1, rounded(weight.shape[0], BLOCK))
    layer[:-1, : weight.shape[0]] = weight.t()
    layer[-1, : weight.shape[0]] = bias
    return layer


def _padded(layer: Tensor, width: int) -> Tensor:
    """The same with zeros between the weights and the bias, so that the inputs are `width` and one."""
    padded = torch.zeros(width + 1, layer.shape[1])
    padded[: len(layer) - 1], padded[-1] = layer[:-1], layer[-1]
    return padded


def _padded_to(weight: Tensor, rows: int, columns: int) -> np.ndarray:
    padded = torch.zeros(rows, columns)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    return padded.numpy()


@numba.njit(parallel=True, cache=True)
def _forward(points, extras, order, table, resolutions, offsets, dense, mask, layers, threads, kept, colors):
    n_tiles = len(kept[0])
    run = (n_tiles + threads - 1) // threads
    grid = resolutions, offsets, dense, mask
    for thread in numba.prange(threads):
        first, last = thread * run, min(n_tiles, (thread + 1) * run)
        _forward_tiles(first, last, points, extras, order, table, grid, layers, kept, colors)


@numba.njit(cache=True)
def _forward_tiles(first, last, points, extras, order, table, grid, layers, kept, colors):
    w1, w2, w3 = layers
    inputs, slopes, hidden, middle = kept
    resolutions, offsets, dense, mask = grid
    levels, n_extras = len(resolutions), extras.shape[1]
    columns, out = np.empty((3, TILE), np.float32), np.empty((w3.shape[1], TILE), np.float32)
    for tile in range(first, last):
        x = inputs[tile]
        count = gather_tile(points, order, tile, columns)
        encode(columns, 0, TILE, table, resolutions, offsets, dense, mask, levels, x, 0, slopes[tile])
        for i in range(TILE):
            source = order[tile * TILE + min(i, count - 1)]
            for e in range(n_extras):
                x[2 * levels + e, i] = extras[source, e]
            x[2 * levels + n_extras, i] = np.float32(1.0)
        product(w1, x, TILE, hidden[tile])
        _rectify(hidden[tile])
        product(w2, hidden[tile], TILE, middle[tile])
        _rectify(middle[tile])
        product(w3, middle[tile], TILE, out)
        for i in range(count):
            for c in range(3):
                colors[order[tile * TILE + i], c] = np.float32(1.0) / (np.float32(1.0) + np.exp(-out[c, i]))


@numba.njit(cache=True)
def _rectify(units):
    """All rows but the last in place; that one becomes ones."""
    zero, one = splat(np.float32(0.0)), splat(np.float32(1.0))
    last = len(units) - 1
    for i in range(0, TILE, LANES):
        for j in range(last):
            h = load(units, j, i)
            store(units, j, i, select(h > zero, h, zero))
        store(units, last, i, one)


@numba.njit(parallel=True, cache=True)
def _backward(points, d_out, order, weights, threads, kept, sums, pulled):
    n_tiles = len(kept[0])
    run = (n_tiles + threads - 1) // threads
    for thread in numba.prange(threads):
        first, last = thread * run, min(n_tiles, (thread + 1) * run)
        own = sums[0][thread], sums[1][thread], sums[2][thread]
        _backward_tiles(first, last, points, d_out, order, weights, kept, own, pulled)


@numba.njit(cache=True)
def _backward_tiles(first_tile, last_tile, points, d_out, order, weights, kept, sums, pulled):
    w1, w2, w3 = weights
    inputs, slopes, hidden, middle = kept
    sums1, sums2, sums3 = sums
    columns, pushed, d_points, d_extras = pulled
    width, n_extras = len(w1), d_extras.shape[1]
    n_features = inputs.shape[1] - 1 - n_extras
    d3, d2, d1 = (
        np.zeros((4, TILE), np.float32),
        np.empty((width, TILE), np.float32),
        np.empty((width, TILE), np.float32),
    )
    # the rows of a layer's inputs, filled up with zeros to a multiple of four
    x = np.zeros((len(sums1) // width, TILE), np.float32)
    y = np.zeros((len(sums2) // width, TILE), np.float32)
    for tile in range(first_tile, last_tile):
        first = tile * TILE
        count = gather_tile(points, order, tile, columns[:, first : first + TILE])
        for i in range(TILE):
            for c in range(3):
                d3[c, i] = d_out[order[first + i], c] if i < count else np.float32(0.0)
        _copy(middle[tile], y)
        add_outer(d3, y, TILE, sums3)
        product(w3, d3, TILE, d2)
        _switch_off(d2, y)
        _copy(hidden[tile], y)
        add_outer(d2, y, TILE, sums2)
        product(w2, d2, TILE, d1)
        _switch_off(d1, y)
        _copy(inputs[tile], x)
        add_outer(d1, x, TILE, sums1)
        here = pushed[:, first : first + TILE]
        product(w1, d1, TILE, here)
        for i in range(count):
            for e in range(n_extras):
                d_extras[order[first + i], e] = here[n_features + e, i]
        if slopes.shape[1]:
            pull_points(slopes[tile], here, order, first, count, d_points)


@numba.njit(cache=True)
def _copy(rows, out):
    for j in range(len(rows)):
        for i in range(0, TILE, LANES):
            store(out, j, i, load(rows, j, i))


@numba.njit(cache=True)
def _switch_off(gradients, units):
    zero = splat(np.float32(0.0))
    for j in range(len(gradients)):
        for i in range(0, TILE, LANES):
            store(gradients, j, i, select(load(units, j, i) > zero, load(gradients, j, i), zero))
