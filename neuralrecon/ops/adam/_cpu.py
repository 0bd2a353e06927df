"""`adam_step` in Numba: reads the gradient, and only where it is not zero the rest."""

from __future__ import annotations

import numba
import numpy as np
from torch import Tensor

from ..simd import LANES, any_of, load, select, splat, sqrt, store
from ..threads import use_threads
from . import AdamSettings


def adam_step_cpu(parameter: Tensor, gradient: Tensor, mean: Tensor, variance: Tensor, settings: AdamSettings) -> None:
    rows = (x.detach().view(1, -1).numpy() for x in (parameter, gradient, mean, variance))
    numbers = (*settings.betas, *settings.scales, settings.eps)
    _step(*rows, tuple(np.float32(x) for x in numbers), use_threads())  # pyright: ignore[reportCallIssue]


@numba.njit(parallel=True, cache=True)
def _step(parameter, gradient, mean, variance, numbers, threads):
    n = parameter.shape[1]
    run = (n // LANES + threads - 1) // threads * LANES
    for thread in numba.prange(threads):
        first, last = thread * run, min(n // LANES * LANES, (thread + 1) * run)
        _step_run(first, last, parameter, gradient, mean, variance, numbers)
    _step_rest(n // LANES * LANES, parameter, gradient, mean, variance, numbers)


@numba.njit(cache=True)
def _step_run(start, stop, parameter, gradient, mean, variance, numbers):
    first, second, by_mean, by_variance, eps = numbers
    one = np.float32(1.0)
    keep_mean, new_mean = splat(first), splat(one - first)
    keep_variance, new_variance = splat(second), splat(one - second)
    m_scale, v_scale, least, zero = splat(by_mean), splat(by_variance), splat(eps), splat(np.float32(0.0))
    for i in range(start, stop, LANES):
        g = load(gradient, 0, i)
        touched = g != zero
        if any_of(touched):
            m, v, p = load(mean, 0, i), load(variance, 0, i), load(parameter, 0, i)
            m = select(touched, keep_mean * m + new_mean * g, m)
            v = select(touched, keep_variance * v + new_variance * g * g, v)
            change = m_scale * m / (sqrt(v_scale * v) + least)
            store(mean, 0, i, m)
            store(variance, 0, i, v)
            store(parameter, 0, i, select(touched, p - change, p))
            store(gradient, 0, i, zero)


@numba.njit(cache=True)
def _step_rest(start, parameter, gradient, mean, variance, numbers):
    first, second, by_mean, by_variance, eps = numbers
    one = np.float32(1.0)
    for i in range(start, parameter.shape[1]):
        g = gradient[0, i]
        if g != np.float32(0.0):
            mean[0, i] = first * mean[0, i] + (one - first) * g
            variance[0, i] = second * variance[0, i] + (one - second) * g * g
            parameter[0, i] -= by_mean * mean[0, i] / (np.sqrt(by_variance * variance[0, i]) + eps)
            gradient[0, i] = np.float32(0.0)
