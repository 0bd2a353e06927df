"""Refining the calibration that a rig came with: features, tracks, patches, depth images, one adjustment."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..capture import Capture
from ..errors import CalibrationError
from .adjust import Adjusted, Prior, adjust, off_prior
from .checks import inverted, looked_at
from .depth_links import link_depth
from .features import extract_features, match_features, read_keypoints
from .gauge import with_gauge
from .outcome import LEAST_OBSERVATIONS, reported
from .pairs import pairs_by_rig
from .problem import Problem
from .projection import N_POSE, Observations, RigState, residuals
from .sharpen import sharpen
from .tracks import (
    Keypoints,
    fitting,
    gather_keypoints,
    gather_matches,
    join_tracks,
    off_epipolar_px,
    renumbered,
    spread_over_space,
    triangulate,
)
from .types import CalibrateConfig, Calibration, Stops

log = logging.getLogger(__name__)

_SIFT_SIGMA_PX, _PATCH_SIGMA_PX = 1.0, 0.15
_SHORTEST = 3
_LEAST_ANGLE_DEG = 4.0
_LEAST_MATCHES = 100
_WELL_SEEN, _ENOUGH_SENSORS = 500, 3
_ALIGNMENTS = (6, 20)  # steps of adjustment after each
_DEPTH_SIGMA_MM, _DEPTH_SHARED_MM = 3.0, 0.3  # of one reading at 0.8 m; of what all readings of a sensor have in common
_DEPTH_ROUNDS_MM = ((30.0, 8), (10.0, 5), (6.0, 5))  # how far a reading may be off, and steps of adjustment


def refine(capture: Capture, config: CalibrateConfig, folder: Path) -> Calibration:
    """A capture whose poses are roughly known, calibrated.

    Features and matches are kept in `folder` and used again. The stops of a turntable end on one axis, and the table,
    where it can be seen, at z = 0; the sense of the other axes and the scale are what all sensors' priors agree on.

    Raises:
        CalibrationError: no features match, or the stops of a turntable have no common axis.
        CaptureError: an image cannot be read.
    """
    problem = Problem.of(capture, config)
    state, seen = by_features(problem, *found_tracks(problem, folder))
    for n_steps in _ALIGNMENTS:
        adjusted, seen = by_patches(problem, state, seen, n_steps)
        state = adjusted.state
    problem = replace(problem, prior=as_found(problem.prior, state, seen))
    adjusted, links = with_depth(problem, state, seen)
    if problem.stops == Stops.axis:
        count = np.bincount(seen.and_(links).sensor, minlength=len(capture.sensors))
        state = with_gauge(problem, adjusted.state, count >= LEAST_OBSERVATIONS)
        adjusted = replace(adjusted, state=state)
    before = _given(problem, adjusted.state, seen)
    return reported(problem, before, adjusted, seen, links)


def found_tracks(problem: Problem, folder: Path) -> tuple[Keypoints, np.ndarray]:
    """Features of all photographs and their matches, the backdrop's left out.

    Raises:
        CalibrationError: no features match.
        CaptureError: a photograph cannot be read.
    """
    capture, config = problem.capture, problem.config
    places = list(problem.photographs)
    paths = [capture.images[i].path for i in problem.photographs.values()]
    names = [p.relative_to(capture.root).as_posix() for p in paths]
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "features.db"
    log.info("finding features in %d photographs", len(names))
    extract_features(database, capture.root, names, longest_side=config.longest_side_px, max_features=config.n_features)
    poses = np.stack(
        [capture.sensor_from_world(capture.images[i]).matrix().numpy() for i in problem.photographs.values()]
    )
    middle, _ = looked_at(poses)
    pairs = pairs_by_rig(inverted(poses)[:, :3, 3], middle, config.n_partners)
    log.info("matching %d pairs", len(pairs))
    if not len(pairs):
        raise CalibrationError(
            f"{capture.root}: no two photographs look at the object from less than 40 deg apart, so none match; "
            "take more of them, or keep the given calibration"
        )
    matches = match_features(database, [(names[a], names[b]) for a, b in pairs], folder / "pairs.txt")
    keypoints, index_of = gather_keypoints(
        names, read_keypoints(database), [s for s, _ in places], [f for _, f in places]
    )
    found = gather_matches(matches, index_of, keypoints)
    if len(found) < _LEAST_MATCHES:
        raise CalibrationError(
            f"{capture.root}: {len(found)} features match between the photographs, want {_LEAST_MATCHES} or more; put "
            "something with texture onto the turntable, or keep the given calibration"
        )
    return keypoints, found


def by_features(problem: Problem, keypoints: Keypoints, matches: np.ndarray) -> tuple[RigState, Observations]:
    """Adjusted to the features, in rounds that join matches ever nearer to the rig's geometry."""
    state = problem.prior.mean
    f = float(np.median(state.intrinsics[[s for s, _ in problem.photographs], 0]))
    wide = f * 4 * (np.radians(problem.config.turn_deg) + problem.config.shift_mm / 800)
    few = problem.config.n_points // 3
    for within_px, n_points, n_steps in ((max(wide, 4.0), few, 10), (6.0, few, 10), (3.0, problem.config.n_points, 3)):
        joined = matches[off_epipolar_px(state, keypoints, matches) < within_px]
        which, track = join_tracks(keypoints, joined, shortest=_SHORTEST)
        seen = keypoints.seen(which, track, _SIFT_SIGMA_PX)
        state = state.with_points(triangulate(state, seen, int(track.max(initial=-1)) + 1))
        keep = fitting(state, seen, within_px=1.5 * within_px, least_angle_deg=_LEAST_ANGLE_DEG, shortest=_SHORTEST)
        state, seen = renumbered(state, seen[keep])
        chosen = spread_over_space(state.points, np.bincount(seen.point), n_points)
        state, seen = renumbered(state, seen[chosen[seen.point]])
        state = adjust(state, seen, problem.prior, n_steps=n_steps).state
        log.info("%d points, %d observations: %s", len(state.points), len(seen), told(state, seen))
    return state, seen


def by_patches(problem: Problem, state: RigState, seen: Observations, n_steps: int) -> tuple[Adjusted, Observations]:
    """Adjusted to aligned patches."""
    pixel, aligned = sharpen(state, seen, problem.read_grey)
    seen = replace(seen, pixel=pixel, sigma=np.full(len(seen), _PATCH_SIGMA_PX))[aligned]
    keep = fitting(state, seen, within_px=3.0, least_angle_deg=_LEAST_ANGLE_DEG, shortest=_SHORTEST)
    state, seen = renumbered(state, seen[keep])
    adjusted = adjust(state, seen, problem.prior, n_steps=n_steps)
    log.info("%d aligned patches: %s", len(seen), told(adjusted.state, seen))
    return adjusted, seen


def as_found(prior: Prior, state: RigState, seen: Observations) -> Prior:
    """The priors of places, turns and lenses no wider than the sensors that are seen best have turned out to be off.

    So a sensor that hardly any point speaks for is held as the given calibration deserves. At most ten times narrower.
    """
    count = np.bincount(seen.sensor, minlength=len(prior.sensors))
    best = count >= max(_WELL_SEEN, np.median(count[count > 0]))
    if best.sum() < _ENOUGH_SENSORS:
        return prior
    off, _ = off_prior(state, prior)
    sensors = prior.sensors.copy()
    for of_kind in (slice(0, 3), slice(3, N_POSE), slice(N_POSE, N_POSE + 1)):
        typical = np.sqrt(np.mean(off[best, of_kind] ** 2))
        given = prior.sensors[:, of_kind]
        sensors[:, of_kind] = np.clip(np.where(given > 0, typical, 0.0), 0.1 * given, given)
    return replace(prior, sensors=sensors)


def with_depth(problem: Problem, state: RigState, seen: Observations) -> tuple[Adjusted, Observations]:
    """Adjusted to patches and depth images together: these give the scale, the patches the depth sensors' places."""
    adjusted = adjust(state, seen, problem.prior, n_steps=0)
    links = seen[:0]
    for tolerance_mm, n_steps in _DEPTH_ROUNDS_MM if problem.depths else ():
        links = link_depth(
            adjusted.state,
            problem.depths,
            problem.read_depth,
            tolerance_m=tolerance_mm * problem.per_mm,
            sigma_m=lambda z: _DEPTH_SIGMA_MM * problem.per_mm * (z / (800 * problem.per_mm)) ** 2,
        )
        count = np.maximum(np.bincount(links.sensor, minlength=1), 1)[links.sensor]
        links = replace(links, sigma=links.sigma * np.maximum(1, _DEPTH_SHARED_MM / _DEPTH_SIGMA_MM * np.sqrt(count)))
        adjusted = adjust(adjusted.state, seen.and_(links), problem.prior, n_steps=n_steps)
        log.info("%d depth readings: %s", len(links), told(adjusted.state, links))
    return adjusted, links


def _given(problem: Problem, state: RigState, seen: Observations) -> RigState:
    """The calibration as given, with the points where it puts them."""
    given = problem.prior.mean
    return given.with_points(triangulate(given, seen, len(state.points)))


def told(state: RigState, seen: Observations) -> str:
    """The median residual in words."""
    if not len(seen):
        return "none"
    off = np.linalg.norm(residuals(state, seen), axis=1) * seen.sigma
    return f"{1e3 * np.median(off):.2f} mm" if seen.is_depth[0] else f"{np.median(off):.3f} px"
