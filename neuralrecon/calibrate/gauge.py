"""What the photographs cannot tell of a turntable's rig: its scale, its height, and where angle 0 points.

The adjustment leaves these three to the priors, whose pull it spreads over all it does not know. Here they are set once
more by what speaks of them most clearly: the table is at z = 0, then the places that the sensors were given, and
the scale that the depth sensors read in.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.optimize
from jaxtyping import Bool
from scipy.spatial.transform import Rotation

from .checks import inverted
from .problem import Problem
from .projection import N_POSE, RigState

_SAME_TABLE_MM, _THIN_MM, _LEAST_ON_TABLE = 10.0, 0.7, 100


def with_gauge(problem: Problem, state: RigState, refined: Bool[np.ndarray, "sensors"]) -> RigState:
    """The state scaled, turned about the axis and lifted; nothing that the photographs say changes.

    Only `refined` sensors speak and move: the others are not tied to the points.
    """
    prior = problem.prior
    sigma, gain_sigma = prior.sensors[:, 3:N_POSE], prior.sensors[:, -1]
    known = (sigma > 0).all(axis=1) & refined
    reads = (gain_sigma > 0) & refined
    table, height = _table_heights(problem, state)

    def off(gauge: np.ndarray) -> np.ndarray:
        moved = _moved(state, gauge, table, height, refined)
        places = (moved.sensor_center - prior.mean.sensor_center)[known] / sigma[known]
        gains = np.log(moved.intrinsics[reads, -1]) / gain_sigma[reads]
        return np.concatenate([places.ravel(), gains])

    if not known.any():
        return state
    found = scipy.optimize.least_squares(off, np.zeros(3), x_scale=[1e-3, 1e-3, problem.per_mm])
    return _moved(state, found.x, table, height, refined)


def _moved(state: RigState, gauge: np.ndarray, table: float | None, height: float, refined: np.ndarray) -> RigState:
    """By log scale, turn in rad, and lift; with a `table`, the lift that brings it to its `height`."""
    scale, turn = np.exp(gauge[0]), Rotation.from_rotvec([0.0, 0.0, gauge[1]]).as_matrix()
    lift = gauge[2] if table is None else height - scale * table
    to = np.array([0.0, 0.0, lift])
    intrinsics = state.intrinsics.copy()
    intrinsics[refined, -1] *= scale
    return replace(
        state,
        sensor_rotation=np.where(refined[:, None, None], state.sensor_rotation @ turn.T, state.sensor_rotation),
        sensor_center=np.where(refined[:, None], scale * state.sensor_center @ turn.T + to, state.sensor_center),
        intrinsics=intrinsics,
        points=scale * state.points @ turn.T + to,
    )


def _table_heights(problem: Problem, state: RigState) -> tuple[float | None, float]:
    """Along the axis: where the points show the table now (None if they do not), and where it belongs.

    The table is the fullest layer within 10 mm of the world's plane z = 0.
    """
    height = float(problem.room.axis_from_world[2, 3])
    if not problem.capture.has_table:
        return None, height
    world_from_axis = inverted(problem.room.axis_from_world)
    above = state.points @ world_from_axis[2, :3] + world_from_axis[2, 3]
    above = above[np.abs(above) < _SAME_TABLE_MM * problem.per_mm]
    thin = _THIN_MM * problem.per_mm
    if len(above) < _LEAST_ON_TABLE:
        return None, height
    middle = above[np.argmax([(np.abs(above - one) < thin).sum() for one in above])]
    on_table = above[np.abs(above - middle) < thin]
    if len(on_table) < _LEAST_ON_TABLE:
        return None, height
    return height + float(np.median(on_table)), height
