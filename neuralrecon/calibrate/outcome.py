"""The outcome of a refinement: the calibrated capture, its points, and what changed."""

from __future__ import annotations

import numpy as np

from ..capture.types import SparsePoints
from .adjust import Adjusted, off_prior
from .checks import inverted
from .problem import Problem
from .projection import N_POSE, Observations, RigState, residuals
from .rig_state import calibrated
from .types import Calibration, SensorChange

LEAST_OBSERVATIONS = 60


def reported(
    problem: Problem, before: RigState, adjusted: Adjusted, seen: Observations, links: Observations
) -> Calibration:
    """The result in figures and in world units. `before` is the rig as given, `links` are those of depth images."""
    state, capture = adjusted.state, problem.capture
    world_from_axis = inverted(problem.room.axis_from_world)
    changes = tuple(_change(problem, before, adjusted, seen.and_(links), i) for i in range(len(capture.sensors)))
    figures = {
        "n_points": float(len(state.points)),
        "n_observations": float(len(seen)),
        "n_depth_readings": float(len(links)),
        "residual_before_px": _typical(before, seen),
        "residual_after_px": _typical(state, seen),
        "stops_off_axis_deg": problem.room.off_axis_deg,
        "stops_off_axis_mm": problem.room.off_axis_m / problem.per_mm,
    }
    return Calibration(
        capture=calibrated(capture, state, problem.room),
        points=_sparse_points(problem, state, seen, world_from_axis),
        method="rig",
        sensors=changes,
        figures=figures,
        warnings=tuple(f"sensor {c.name} keeps its given calibration: {c.reason}" for c in changes if c.reason),
    )


def _change(problem: Problem, before: RigState, adjusted: Adjusted, seen: Observations, sensor: int) -> SensorChange:
    own = seen[seen.sensor == sensor]
    step, _ = off_prior(adjusted.state, problem.prior)
    sigma, prior = adjusted.sensor_sigma[sensor], problem.prior.sensors[sensor]
    unknown = len(own) < LEAST_OBSERVATIONS
    return SensorChange(
        name=problem.capture.sensors[sensor].name,
        n_observations=len(own),
        residual_before=None if unknown else _typical(before, own),
        residual_after=None if unknown else _typical(adjusted.state, own),
        turned_deg=float(np.degrees(np.linalg.norm(step[sensor, :3]))),
        shifted_mm=float(np.linalg.norm(step[sensor, 3:N_POSE])) / problem.per_mm,
        focal_percent=100 * float(np.expm1(step[sensor, N_POSE])),
        depth_percent=100 * float(np.expm1(step[sensor, -1])),
        turn_sigma_deg=float(np.degrees(sigma[:3].max())),
        shift_sigma_mm=float(sigma[3:N_POSE].max()) / problem.per_mm,
        reason=f"{len(own)} observations, want {LEAST_OBSERVATIONS}" if unknown and prior[:N_POSE].any() else "",
    )


def _typical(state: RigState, seen: Observations) -> float:
    """Median residual: px, or mm of depth readings; 0 without any."""
    if not len(seen):
        return 0.0
    off = np.linalg.norm(residuals(state, seen), axis=1) * seen.sigma
    return float(np.median(off)) * (1e3 if seen.is_depth[0] else 1.0)


def _sparse_points(problem: Problem, state: RigState, seen: Observations, world_from_axis: np.ndarray) -> SparsePoints:
    order = np.argsort(seen.point, kind="stable")
    seen = seen[order]
    off = np.linalg.norm(residuals(state, seen), axis=1) * seen.sigma
    count = np.maximum(np.bincount(seen.point, minlength=len(state.points)), 1)
    images = [problem.photographs[at] for at in zip(seen.sensor.tolist(), seen.stop.tolist(), strict=True)]
    return SparsePoints(
        xyz=state.points @ world_from_axis[:3, :3].T + world_from_axis[:3, 3],
        rgb=_colors(problem, seen, len(state.points)),
        error_px=np.bincount(seen.point, off, len(state.points)) / count,
        image_index=np.array(images, np.int64),
        point_index=seen.point.astype(np.int64),
        pixel=seen.pixel,
    )


def _colors(problem: Problem, seen: Observations, n_points: int) -> np.ndarray:
    """Each point's colour in the first photograph that shows it."""
    rgb = np.zeros((n_points, 3), np.uint8)
    _, first = np.unique(seen.point, return_index=True)
    for at in sorted({(int(s), int(f)) for s, f in zip(seen.sensor[first], seen.stop[first], strict=True)}):
        own = first[(seen.sensor[first] == at[0]) & (seen.stop[first] == at[1])]
        photograph = problem.read_rgb(*at)
        u, v = np.floor(seen.pixel[own]).astype(int).T
        rgb[seen.point[own]] = photograph[v.clip(0, photograph.shape[0] - 1), u.clip(0, photograph.shape[1] - 1)]
    return rgb
