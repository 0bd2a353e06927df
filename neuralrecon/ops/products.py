"""Small matrix products over the points of a tile, for kernels that must not leave the cache for them."""

from __future__ import annotations

import numba
import numpy as np

from .simd import LANES, load, splat, store

BLOCK = 8  # rows that `product` makes at a time: the number of a matrix' rows must be a multiple


def rounded(n: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-n // step) * step


@numba.njit(cache=True)
def product(weights, inputs, count, out):
    """out[j, i] = sum over c of weights[c, j] * inputs[c, i], for all j < weights.shape[1] and i < count.

    `count` is a multiple of 32. Sixteen accumulators hide the latency of multiply-add.
    """
    depth, zero = weights.shape[0], splat(np.float32(0.0))
    for i in range(0, count, 2 * LANES):
        for j in range(0, weights.shape[1], BLOCK):
            a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = zero
            b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = zero
            for c in range(depth):
                a, b = load(inputs, c, i), load(inputs, c, i + LANES)
                w = splat(weights[c, j])
                a0, b0 = a0 + w * a, b0 + w * b
                w = splat(weights[c, j + 1])
                a1, b1 = a1 + w * a, b1 + w * b
                w = splat(weights[c, j + 2])
                a2, b2 = a2 + w * a, b2 + w * b
                w = splat(weights[c, j + 3])
                a3, b3 = a3 + w * a, b3 + w * b
                w = splat(weights[c, j + 4])
                a4, b4 = a4 + w * a, b4 + w * b
                w = splat(weights[c, j + 5])
                a5, b5 = a5 + w * a, b5 + w * b
                w = splat(weights[c, j + 6])
                a6, b6 = a6 + w * a, b6 + w * b
                w = splat(weights[c, j + 7])
                a7, b7 = a7 + w * a, b7 + w * b
            store(out, j, i, a0)
            store(out, j, i + LANES, b0)
            store(out, j + 1, i, a1)
            store(out, j + 1, i + LANES, b1)
            store(out, j + 2, i, a2)
            store(out, j + 2, i + LANES, b2)
            store(out, j + 3, i, a3)
            store(out, j + 3, i + LANES, b3)
            store(out, j + 4, i, a4)
            store(out, j + 4, i + LANES, b4)
            store(out, j + 5, i, a5)
            store(out, j + 5, i + LANES, b5)
            store(out, j + 6, i, a6)
            store(out, j + 6, i + LANES, b6)
            store(out, j + 7, i, a7)
            store(out, j + 7, i + LANES, b7)


@numba.njit(cache=True)
def add_outer(left, right, count, sums):
    """sums[j * n_right + c] += left[j, i] * right[c, i] over i < count, sixteen partial sums each.

    Row j * n_right + c of `sums` holds the sixteen partial sums of one element; numbers of rows are multiples of 4.
    """
    n_left, n_right = left.shape[0], right.shape[0]
    for j in range(0, n_left, 4):
        for c in range(0, n_right, 4):
            k0, k1, k2, k3 = j * n_right + c, (j + 1) * n_right + c, (j + 2) * n_right + c, (j + 3) * n_right + c
            s00, s01, s02, s03 = load(sums, k0, 0), load(sums, k0 + 1, 0), load(sums, k0 + 2, 0), load(sums, k0 + 3, 0)
            s10, s11, s12, s13 = load(sums, k1, 0), load(sums, k1 + 1, 0), load(sums, k1 + 2, 0), load(sums, k1 + 3, 0)
            s20, s21, s22, s23 = load(sums, k2, 0), load(sums, k2 + 1, 0), load(sums, k2 + 2, 0), load(sums, k2 + 3, 0)
            s30, s31, s32, s33 = load(sums, k3, 0), load(sums, k3 + 1, 0), load(sums, k3 + 2, 0), load(sums, k3 + 3, 0)
            for i in range(0, count, LANES):
                r0, r1, r2, r3 = load(right, c, i), load(right, c + 1, i), load(right, c + 2, i), load(right, c + 3, i)
                p = load(left, j, i)
                s00, s01, s02, s03 = s00 + p * r0, s01 + p * r1, s02 + p * r2, s03 + p * r3
                p = load(left, j + 1, i)
                s10, s11, s12, s13 = s10 + p * r0, s11 + p * r1, s12 + p * r2, s13 + p * r3
                p = load(left, j + 2, i)
                s20, s21, s22, s23 = s20 + p * r0, s21 + p * r1, s22 + p * r2, s23 + p * r3
                p = load(left, j + 3, i)
                s30, s31, s32, s33 = s30 + p * r0, s31 + p * r1, s32 + p * r2, s33 + p * r3
            store(sums, k0, 0, s00)
            store(sums, k0 + 1, 0, s01)
            store(sums, k0 + 2, 0, s02)
            store(sums, k0 + 3, 0, s03)
            store(sums, k1, 0, s10)
            store(sums, k1 + 1, 0, s11)
            store(sums, k1 + 2, 0, s12)
            store(sums, k1 + 3, 0, s13)
            store(sums, k2, 0, s20)
            store(sums, k2 + 1, 0, s21)
            store(sums, k2 + 2, 0, s22)
            store(sums, k2 + 3, 0, s23)
            store(sums, k3, 0, s30)
            store(sums, k3 + 1, 0, s31)
            store(sums, k3 + 2, 0, s32)
            store(sums, k3 + 3, 0, s33)
