"""`align_patches` in Numba: one patch at a time, which stays in the cache."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from ..threads import use_threads
from . import Alignment, Patches, offsets


def align_patches_cpu(channels: Tensor, patches: Patches, templates: Tensor, n_steps: int) -> Alignment:
    use_threads()
    n = len(templates)
    center = patches.center.clone()
    correlation, last_step, inside = torch.zeros(n), torch.zeros(n), torch.ones(n, dtype=torch.bool)
    given = (channels, patches.by_step, patches.tilt, offsets(templates.shape[1]), templates)
    arrays = tuple(x.contiguous().numpy() for x in given)
    found = center.numpy(), correlation.numpy(), last_step.numpy(), inside.numpy()
    _align(*arrays, n_steps, *found)  # pyright: ignore[reportCallIssue]
    return Alignment(center=center, correlation=correlation, last_step=last_step, inside=inside)


@numba.njit(parallel=True, cache=True, fastmath=False)
def _align(channels, by_step, tilt, steps, templates, n_steps, center, correlation, last_step, inside):
    n_samples = len(steps)
    _, height, width = channels.shape
    for p in numba.prange(len(templates)):
        values = np.empty((3, n_samples), np.float32)
        a, b, c, d = by_step[p, 0, 0], by_step[p, 0, 1], by_step[p, 1, 0], by_step[p, 1, 1]
        for _ in range(n_steps):
            for s in range(n_samples):
                i, j = steps[s, 0], steps[s, 1]
                scale = np.float32(1) / (np.float32(1) + tilt[p, 0] * i + tilt[p, 1] * j)
                u = center[p, 0] + (a * i + b * j) * scale
                v = center[p, 1] + (c * i + d * j) * scale
                if not (u > 1 and v > 1 and u < width - 1 and v < height - 1):
                    inside[p] = False
                    break
                u -= np.float32(0.5)
                v -= np.float32(0.5)
                u0, v0 = int(u), int(v)
                fu, fv = u - np.float32(u0), v - np.float32(v0)
                w00 = (1 - fu) * (1 - fv)
                w01, w10, w11 = fu * (1 - fv), (1 - fu) * fv, fu * fv
                for k in range(3):
                    values[k, s] = (
                        w00 * channels[k, v0, u0]
                        + w01 * channels[k, v0, u0 + 1]
                        + w10 * channels[k, v0 + 1, u0]
                        + w11 * channels[k, v0 + 1, u0 + 1]
                    )
            if not inside[p]:
                break
            correlation[p], du, dv = _step(values, templates[p])
            center[p, 0] += du
            center[p, 1] += dv
            last_step[p] = max(abs(du), abs(dv))


@numba.njit(inline="always")
def _step(values, template):
    """Correlation of a patch with its template and the Gauss-Newton step, from sums over the samples only."""
    n = values.shape[1]
    g = x = y = gg = gx = gy = xx = xy = yy = tg = tx = ty = 0.0
    for s in range(n):
        vg, vx, vy, t = float(values[0, s]), float(values[1, s]), float(values[2, s]), float(template[s])
        g += vg
        x += vx
        y += vy
        gg += vg * vg
        gx += vg * vx
        gy += vg * vy
        xx += vx * vx
        xy += vx * vy
        yy += vy * vy
        tg += t * vg
        tx += t * vx
        ty += t * vy
    norm = max(np.sqrt(max(gg - g * g / n, 0.0)), 1e-6)
    # the template's mean is 0, so centring the values changes none of the sums with t
    rho = tg / norm
    ax, ay = (gx - g * x / n) / norm, (gy - g * y / n) / norm  # patch . centred slope
    hxx = ((xx - x * x / n) - ax * ax) / norm**2 + 1e-9
    hxy = ((xy - x * y / n) - ax * ay) / norm**2
    hyy = ((yy - y * y / n) - ay * ay) / norm**2 + 1e-9
    rx, ry = (tx - rho * ax) / norm, (ty - rho * ay) / norm
    determinant = hxx * hyy - hxy * hxy
    du = (hyy * rx - hxy * ry) / determinant
    dv = (hxx * ry - hxy * rx) / determinant
    return rho, min(max(du, -1.0), 1.0), min(max(dv, -1.0), 1.0)
