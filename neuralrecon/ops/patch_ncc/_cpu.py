"""`patch_ncc` in Numba: a patch of one photograph at a time, its derivative by the points along with it."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from ..threads import use_threads
from . import LEAST_DEPTH, LEAST_SPREAD, Likeness, Photographs


def patch_ncc_cpu(
    points: Tensor, shifts: Tensor, templates: Tensor, images: Tensor, photographs: Photographs
) -> Likeness:
    found = _PatchNcc.apply(points, shifts, templates, images, photographs)
    correlation, contrast, inside = found  # pyright: ignore[reportGeneralTypeIssues]
    return Likeness(correlation=correlation, contrast=contrast, inside=inside)


class _PatchNcc(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points: Tensor, shifts: Tensor, templates: Tensor, images: Tensor, photographs: Photographs):
        n_patches, n_views = images.shape
        correlation, contrast = torch.zeros(2, n_patches, n_views).unbind(0)
        inside = torch.zeros(n_patches, n_views, dtype=torch.bool)
        by_point = torch.zeros(n_patches, n_views, points.shape[1], 3)
        p = photographs
        given = (
            points,
            shifts,
            templates,
            images,
            p.rgb,
            p.bits,
            p.firsts,
            p.crops,
            p.intrinsics,
            p.rotations,
            p.origins,
        )
        use_threads()
        arrays = [x.contiguous().numpy() for x in given]
        found = correlation.numpy(), contrast.numpy(), inside.numpy(), by_point.numpy()
        _correlate(*arrays, *found)  # pyright: ignore[reportCallIssue]
        ctx.save_for_backward(by_point)
        ctx.mark_non_differentiable(contrast, inside)
        return correlation, contrast, inside

    @staticmethod
    def backward(ctx, d_correlation: Tensor, _contrast: Tensor, _inside: Tensor):
        d_point = ctx.saved_tensors[0] * d_correlation[..., None, None]
        return d_point.sum(dim=1), d_point.sum(dim=2), None, None, None


@numba.njit(parallel=True, cache=True)
def _correlate(
    points, shifts, templates, images, rgb, bits, firsts, crops, intrinsics, rotations, origins,
    correlation, contrast, inside, by_point,
):  # fmt: skip
    n_patches, n_views = images.shape
    n_samples = points.shape[1]
    for job in numba.prange(n_patches * n_views):
        p, j = job // n_views, job % n_views
        i = images[p, j]
        if i < 0:
            continue
        values = np.empty(n_samples, np.float32)
        # out of photographs first, then out of sight: memory is waited for sample by sample
        complete = True
        for s in range(n_samples):
            values[s] = _sample(
                points[p, s], shifts[p, j], intrinsics[i], rotations[i], origins[i], crops[i], firsts[i], rgb, bits,
                by_point[p, j, s],
            )  # fmt: skip
            if values[s] < 0:
                complete = False
                break
        if not complete:
            by_point[p, j] = 0
            continue
        inside[p, j] = True
        mean = np.float32(values.mean())
        square = np.float32(0)
        rho = np.float32(0)
        for s in range(n_samples):
            values[s] -= mean
            square += values[s] * values[s]
            rho += values[s] * templates[p, s]
        norm = max(np.sqrt(square), np.float32(LEAST_SPREAD))
        rho /= norm
        correlation[p, j] = rho
        contrast[p, j] = norm / np.sqrt(np.float32(n_samples))
        # the mean's own derivative falls out, since templates and values have mean 0
        pull = rho if square > np.float32(LEAST_SPREAD) ** 2 else np.float32(0)
        for s in range(n_samples):
            by_value = (templates[p, s] - pull * values[s] / norm) / norm
            for axis in range(3):
                by_point[p, j, s, axis] *= by_value


@numba.njit(inline="always")
def _sample(point, shift, k, rotation, origin, crop, first, rgb, bits, by_point):
    """A photograph's grey value at a point, -1 out of the silhouette, and its derivative by the point."""
    one, two, half = np.float32(1), np.float32(2), np.float32(0.5)
    a, b, c = point[0] + (shift[0] - origin[0]), point[1] + (shift[1] - origin[1]), point[2] + (shift[2] - origin[2])
    z = rotation[0, 2] * a + rotation[1, 2] * b + rotation[2, 2] * c
    if not z > np.float32(LEAST_DEPTH):
        return np.float32(-1)
    x = (rotation[0, 0] * a + rotation[1, 0] * b + rotation[2, 0] * c) / z
    y = (rotation[0, 1] * a + rotation[1, 1] * b + rotation[2, 1] * c) / z
    k1, k2, p1, p2, k3 = k[4], k[5], k[6], k[7], k[8]
    r2 = x * x + y * y
    radial = one + r2 * (k1 + r2 * (k2 + r2 * k3))
    u = (x * radial + two * p1 * x * y + p2 * (r2 + two * x * x)) * k[0] + k[2] - np.float32(crop[0]) - half
    v = (y * radial + p1 * (r2 + two * y * y) + two * p2 * x * y) * k[1] + k[3] - np.float32(crop[1]) - half
    width, height = crop[2], crop[3]
    if not (u >= 0 and v >= 0 and u < width - 1 and v < height - 1):
        return np.float32(-1)
    local = int(v + half) * width + int(u + half)
    if not (bits[first[1] + local // 8] >> (7 - local % 8)) & 1:
        return np.float32(-1)
    u0, v0 = int(u), int(v)
    fu, fv = u - np.float32(u0), v - np.float32(v0)
    at = first[0] + v0 * width + u0
    g00, g01 = _grey(rgb, at), _grey(rgb, at + 1)
    g10, g11 = _grey(rgb, at + width), _grey(rgb, at + width + 1)
    upper, lower = g00 + (g01 - g00) * fu, g10 + (g11 - g10) * fu
    by_u = ((g01 - g00) * (one - fv) + (g11 - g10) * fv) * k[0]
    by_v = (lower - upper) * k[1]
    # through the distortion, then the projection, then the rotation
    slope = two * (k1 + r2 * (two * k2 + np.float32(3) * r2 * k3))  # of `radial` by x, over x
    uu = radial + x * x * slope + two * p1 * y + np.float32(6) * p2 * x
    uv = x * y * slope + two * p1 * x + two * p2 * y
    vv = radial + y * y * slope + np.float32(6) * p1 * y + two * p2 * x
    by_x, by_y = (by_u * uu + by_v * uv) / z, (by_u * uv + by_v * vv) / z
    by_z = -(by_x * x + by_y * y)
    for axis in range(3):
        by_point[axis] = rotation[axis, 0] * by_x + rotation[axis, 1] * by_y + rotation[axis, 2] * by_z
    return upper + (lower - upper) * fv


@numba.njit(inline="always")
def _grey(rgb, at):
    return np.float32(int(rgb[at, 0]) + int(rgb[at, 1]) + int(rgb[at, 2])) * np.float32(1 / 765)
