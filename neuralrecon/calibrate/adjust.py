"""Bundle adjustment of a rig: every sensor keeps one pose, every stop turns about one axis, priors hold the rest.

COLMAP's bundle adjustment knows rigs, but neither a common axis of all stops, nor depth images, nor a prior with a
sigma on each sensor's pose and intrinsics. A rig has so few parameters that the normal equations without the points
(the Schur complement: Triggs et al., "Bundle Adjustment, a Modern Synthesis", 2000, section 6.1) are small and dense.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from .projection import BY_FACTOR, INTRINSICS, Linearised, Observations, RigState, linearised, residuals

_SEEN_AT_ONCE = 30_000
_SMALLEST_DAMPING, _LARGEST_DAMPING = 1e-9, 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Standard deviations of a state's parameters about their values in `mean`; 0 holds one fixed, inf frees it.

    The units are those of `RigState.moved`: rad and metres of poses, log of f and aspect, pixels, distortion's own.
    """

    mean: RigState
    sensors: Float[np.ndarray, "sensors 16"]
    stops: Float[np.ndarray, "stops 6"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjusted:
    """The adjusted state, what its robust cost was at each step, and the standard deviations of its parameters.

    Those come from the inverse of the normal equations without the points, priors included, scaled by the residuals'
    own spread; of a parameter held fixed they are 0.
    """

    state: RigState
    costs: tuple[float, ...]
    sensor_sigma: Float[np.ndarray, "sensors 16"]
    stop_sigma: Float[np.ndarray, "stops 6"]


def adjust(state: RigState, seen: Observations, prior: Prior, *, cauchy: float = 2.0, n_steps: int = 30) -> Adjusted:
    """Levenberg-Marquardt on all free parameters and all points, with Cauchy's loss of scale `cauchy` sigmas.

    `state` is where it starts. Stops after `n_steps` or when the cost falls by less than 1e-6 of itself.

    Raises:
        np.linalg.LinAlgError: the normal equations cannot be solved, however damped (parameters that nothing holds).
    """
    seen = seen[np.argsort(seen.point, kind="stable")]
    free = _Free.of(prior)
    cost = _cost(state, seen, prior, free, cauchy)
    costs, damping = [cost], 1e-4
    while len(costs) <= n_steps:
        system = _normal_equations(state, seen, prior, free, cauchy, damping)
        while True:
            trial = _step(state, system, free)
            trial_cost = _cost(trial, seen, prior, free, cauchy)
            if trial_cost < cost or damping > _LARGEST_DAMPING:
                break
            damping *= 10
            system = _normal_equations(state, seen, prior, free, cauchy, damping)
        if trial_cost >= cost:
            break
        state, gain, cost = trial, cost - trial_cost, trial_cost
        costs.append(cost)
        damping = max(damping / 10, _SMALLEST_DAMPING)
        if gain < 1e-6 * cost:
            break
    sensor_sigma, stop_sigma = _spread(state, seen, prior, free, cauchy)
    return Adjusted(state=state, costs=tuple(costs), sensor_sigma=sensor_sigma, stop_sigma=stop_sigma)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Free:
    """Columns of the free parameters in the reduced system; fixed ones share the last column, which is cut off."""

    sensor_column: np.ndarray
    stop_column: np.ndarray
    n: int

    @staticmethod
    def of(prior: Prior) -> _Free:
        sensors, stops = prior.sensors > 0, prior.stops > 0
        n_sensor, n_stop = int(sensors.sum()), int(stops.sum())
        n = n_sensor + n_stop
        sensor_column, stop_column = np.full(sensors.shape, n), np.full(stops.shape, n)
        sensor_column[sensors] = np.arange(n_sensor)
        stop_column[stops] = np.arange(n_sensor, n)
        return _Free(sensor_column=sensor_column, stop_column=stop_column, n=n)

    def gathered(self, of_sensors: np.ndarray, of_stops: np.ndarray) -> np.ndarray:
        values = np.zeros(self.n + 1)
        values[self.sensor_column] = of_sensors
        values[self.stop_column] = of_stops
        return values[:-1]

    def scattered(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        padded = np.append(values, 0.0)
        return padded[self.sensor_column], padded[self.stop_column]


@dataclass(frozen=True, slots=True, kw_only=True)
class _System:
    """Reduced normal equations, and what gives the points back: ``step = own - coupling @ step_of_cameras``."""

    matrix: np.ndarray
    right: np.ndarray
    point_own: np.ndarray
    point_coupling: list[np.ndarray]


def off_prior(state: RigState, prior: Prior) -> tuple[Float[np.ndarray, "sensors 16"], Float[np.ndarray, "stops 6"]]:
    """The step from the prior's mean to a state, in the units of `RigState.moved`."""
    mean = prior.mean
    turned = _rotation_vectors(state.sensor_rotation @ mean.sensor_rotation.transpose(0, 2, 1))
    stop_turned = _rotation_vectors(stop_turn := state.stop_rotation @ mean.stop_rotation.transpose(0, 2, 1))
    stop_shift = state.stop_translation - np.einsum("sij,sj->si", stop_turn, mean.stop_translation)
    intrinsics = state.intrinsics - mean.intrinsics
    for i in map(INTRINSICS.index, BY_FACTOR):
        intrinsics[:, i] = np.log(state.intrinsics[:, i] / mean.intrinsics[:, i])
    sensors = np.concatenate([turned, state.sensor_center - mean.sensor_center, intrinsics], axis=1)
    return sensors, np.concatenate([stop_turned, stop_shift], axis=1)


def _pull(state: RigState, prior: Prior, free: _Free) -> tuple[np.ndarray, np.ndarray]:
    """Residuals of the priors in sigmas, and 1 / sigma, both by column."""
    sigma = free.gathered(prior.sensors, prior.stops)
    off = free.gathered(*off_prior(state, prior))
    return off / sigma, 1 / sigma


def _cost(state: RigState, seen: Observations, prior: Prior, free: _Free, cauchy: float) -> float:
    squared = (residuals(state, seen) ** 2).sum(axis=1)
    pull, _ = _pull(state, prior, free)
    return float(0.5 * (cauchy**2 * np.log1p(squared / cauchy**2)).sum() + 0.5 * (pull**2).sum())


def _normal_equations(
    state: RigState, seen: Observations, prior: Prior, free: _Free, cauchy: float, damping: float
) -> _System:
    pull, per_sigma = _pull(state, prior, free)
    matrix = np.diag(per_sigma**2)
    right = -pull * per_sigma
    point_own, point_coupling = np.zeros_like(state.points), []
    diagonal = np.diag(matrix).copy()
    for chunk, first, last in _chunks(seen, len(state.points)):
        line = linearised(state, chunk)
        weight = np.sqrt(1 / (1 + (line.residual**2).sum(axis=1) / cauchy**2))[:, None]
        rows = _camera_rows(line, chunk, free, weight)
        residual = (line.residual * weight).ravel()
        by_point = _point_matrix(line, chunk, first, last, weight)
        own = _blocks(by_point, last - first)
        own += damping * own * np.eye(3) + 1e-12 * np.eye(3)
        gradient = (by_point.T @ residual).reshape(-1, 3)
        coupling = (by_point.T @ rows).reshape(last - first, 3, free.n)
        inverse = np.linalg.inv(own)
        solved = inverse @ coupling
        own_step = -np.einsum("pij,pj->pi", inverse, gradient)
        flat = coupling.reshape(3 * (last - first), free.n)
        square = rows.T @ rows
        diagonal += np.diag(square)
        matrix += square - flat.T @ solved.reshape(flat.shape)
        right -= rows.T @ residual + flat.T @ own_step.ravel()
        point_own[first:last] = own_step
        point_coupling.append(solved)
    matrix[np.diag_indices(free.n)] += damping * diagonal
    return _System(matrix=matrix, right=right, point_own=point_own, point_coupling=point_coupling)


def _step(state: RigState, system: _System, free: _Free) -> RigState:
    step = scipy.linalg.solve(system.matrix, system.right, assume_a="pos") if free.n else np.zeros(0)
    points = system.point_own - np.concatenate([coupling @ step for coupling in system.point_coupling])
    return state.moved(*free.scattered(step), points)


def _spread(
    state: RigState, seen: Observations, prior: Prior, free: _Free, cauchy: float
) -> tuple[np.ndarray, np.ndarray]:
    if not free.n:
        return np.zeros_like(prior.sensors), np.zeros_like(prior.stops)
    system = _normal_equations(state, seen, prior, free, cauchy, 0.0)
    variance = np.diag(scipy.linalg.inv(system.matrix))
    squared = (residuals(state, seen) ** 2).sum(axis=1)
    typical = float(np.median(squared)) / (2 * np.log(2))  # of two normal components, the median of r^2 is 2 ln 2
    return free.scattered(np.sqrt(np.maximum(variance * max(typical, 1.0), 0)))


def _chunks(seen: Observations, n_points: int):
    """Runs of observations (sorted by point) that hold all observations of the points first to last."""
    starts = np.searchsorted(seen.point, np.arange(n_points + 1))
    first = 0
    while first < n_points:
        last = int(np.searchsorted(starts, starts[first] + _SEEN_AT_ONCE, side="right")) - 1
        last = min(max(last, first + 1), n_points)
        yield seen[slice(int(starts[first]), int(starts[last]))], first, last
        first = last


def _camera_rows(line: Linearised, seen: Observations, free: _Free, weight: np.ndarray) -> np.ndarray:
    rows = np.zeros((len(seen), 2, free.n + 1))
    each, both = np.arange(len(seen))[:, None, None], np.arange(2)[None, :, None]
    rows[each, both, free.sensor_column[seen.sensor][:, None, :]] = line.by_sensor * weight[:, :, None]
    rows[each, both, free.stop_column[seen.stop][:, None, :]] = line.by_stop * weight[:, :, None]
    return rows[:, :, :-1].reshape(2 * len(seen), free.n)


def _point_matrix(line: Linearised, seen: Observations, first: int, last: int, weight: np.ndarray):
    """Sparse derivative of the chunk's residuals by its points."""
    columns = 3 * (seen.point - first)[:, None, None] + np.arange(3)[None, None, :]
    columns = np.broadcast_to(columns, line.by_point.shape)
    values = line.by_point * weight[:, :, None]
    indptr = np.arange(0, values.size + 1, 3)
    return scipy.sparse.csr_matrix((values.ravel(), columns.ravel(), indptr), shape=(2 * len(seen), 3 * (last - first)))


def _blocks(by_point: scipy.sparse.csr_matrix, n_points: int) -> np.ndarray:
    """The 3 x 3 blocks of by_point.T @ by_point."""
    rows = by_point.data.reshape(-1, 3)
    point = by_point.indices.reshape(-1, 3)[:, 0] // 3
    blocks = np.zeros((n_points, 3, 3))
    np.add.at(blocks, point, rows[:, :, None] * rows[:, None, :])
    return blocks


def _rotation_vectors(rotation: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(rotation).as_rotvec()
