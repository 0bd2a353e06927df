"""`shading` in Numba: one pass forward, one backward, nothing in between is stored."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..threads import use_threads
from . import N_SHADING

_C0, _C1, _C2 = np.float32(0.28209479177387814), np.float32(0.4886025119029199), np.float32(1.0925484305920792)
_C3, _C4 = np.float32(0.31539156525252005), np.float32(0.5462742152960396)
_ONE, _TWO, _THREE = np.float32(1.0), np.float32(2.0), np.float32(3.0)
_BLOCK = 512  # samples that a thread takes at a time


def shading_cpu(
    normals: Float[Tensor, "samples 3"],
    directions: Float[Tensor, "samples 3"],
    rig_from_world: Float[Tensor, "samples 3 3"],
) -> Float[Tensor, "samples 13"]:
    return _Shading.apply(normals, directions, rig_from_world)  # pyright: ignore[reportReturnType]


class _Shading(torch.autograd.Function):
    @staticmethod
    def forward(ctx, normals: Tensor, directions: Tensor, rig_from_world: Tensor) -> Tensor:
        normals, directions, rig_from_world = (x.contiguous() for x in (normals, directions, rig_from_world))
        out = torch.empty(len(normals), N_SHADING)
        use_threads()
        _forward(normals.numpy(), directions.numpy(), rig_from_world.numpy(), out.numpy())
        ctx.save_for_backward(normals, directions, rig_from_world)
        return out

    @staticmethod
    def backward(ctx, d_out: Tensor):
        normals, directions, rig_from_world = ctx.saved_tensors
        d_normals = torch.empty_like(normals)
        use_threads()
        _backward(
            normals.numpy(), directions.numpy(), rig_from_world.numpy(), d_out.contiguous().numpy(), d_normals.numpy()
        )
        return d_normals, None, None


@numba.njit(fastmath=True)
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@numba.njit(fastmath=True)
def _turned(r, v):
    return _dot(r[0], v), _dot(r[1], v), _dot(r[2], v)


@numba.njit(fastmath=True)
def _turned_back(r, v):
    return (
        r[0, 0] * v[0] + r[1, 0] * v[1] + r[2, 0] * v[2],
        r[0, 1] * v[0] + r[1, 1] * v[1] + r[2, 1] * v[2],
        r[0, 2] * v[0] + r[1, 2] * v[1] + r[2, 2] * v[2],
    )


@numba.njit(parallel=True, cache=True)
def _forward(normals, directions, rotations, out):
    for block in numba.prange((len(normals) + _BLOCK - 1) // _BLOCK):
        _shade(block * _BLOCK, min(len(normals), (block + 1) * _BLOCK), normals, directions, rotations, out)


@numba.njit(cache=True, fastmath=True)
def _shade(first, last, normals, directions, rotations, out):
    for i in range(first, last):
        n, d, r, o = normals[i], directions[i], rotations[i], out[i]
        o[0], o[1], o[2] = _turned(r, n)
        along = _dot(d, n)
        mirrored = d[0] - _TWO * along * n[0], d[1] - _TWO * along * n[1], d[2] - _TWO * along * n[2]
        x, y, z = _turned(r, mirrored)
        o[3] = _C0
        o[4], o[5], o[6] = _C1 * y, _C1 * z, _C1 * x
        o[7], o[8], o[10] = _C2 * x * y, _C2 * y * z, _C2 * x * z
        o[9] = _C3 * (_THREE * z * z - _ONE)
        o[11] = _C4 * (x * x - y * y)
        o[12] = -along


@numba.njit(parallel=True, cache=True)
def _backward(normals, directions, rotations, d_out, d_normals):
    for block in numba.prange((len(normals) + _BLOCK - 1) // _BLOCK):
        last = min(len(normals), (block + 1) * _BLOCK)
        _unshade(block * _BLOCK, last, normals, directions, rotations, d_out, d_normals)


@numba.njit(cache=True, fastmath=True)
def _unshade(first, last, normals, directions, rotations, d_out, d_normals):
    for i in range(first, last):
        n, d, r, g = normals[i], directions[i], rotations[i], d_out[i]
        along = _dot(d, n)
        mirrored = d[0] - _TWO * along * n[0], d[1] - _TWO * along * n[1], d[2] - _TWO * along * n[2]
        x, y, z = _turned(r, mirrored)
        dx = _C1 * g[6] + _C2 * (y * g[7] + z * g[10]) + _TWO * _C4 * x * g[11]
        dy = _C1 * g[4] + _C2 * (x * g[7] + z * g[8]) - _TWO * _C4 * y * g[11]
        dz = _C1 * g[5] + _C2 * (y * g[8] + x * g[10]) + _TWO * _THREE * _C3 * z * g[9]
        m = _turned_back(r, (dx, dy, dz))
        by_normal = _turned_back(r, (g[0], g[1], g[2]))
        by_along = _TWO * _dot(m, n) + g[12]
        for axis in range(3):
            d_normals[i, axis] = by_normal[axis] - _TWO * along * m[axis] - by_along * d[axis]
