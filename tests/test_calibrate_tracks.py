"""Matches to tracks, pairs by the rig, patches aligned, and the gauge: each against what is known in closed form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_calibrate_adjust import N_POINTS, N_STOPS, everything_seen, rig

from neuralrecon.calibrate.pairs import pairs_by_rig
from neuralrecon.calibrate.projection import in_camera, project, rays
from neuralrecon.calibrate.sharpen import sharpen, surface_normals
from neuralrecon.calibrate.tracks import (
    Keypoints,
    fitting,
    gather_keypoints,
    gather_matches,
    join_tracks,
    off_epipolar_px,
    spread_over_space,
    triangulate,
    widest_angle_deg,
)


def seen_as_keypoints() -> tuple[Keypoints, np.ndarray]:
    """Every observation of the rig's points as a keypoint of its photograph, and the point of each."""
    seen = everything_seen(rig())
    image = seen.sensor * N_STOPS + seen.stop
    return Keypoints(image=image, sensor=seen.sensor, stop=seen.stop, pixel=seen.pixel), seen.point


def chain(point: np.ndarray) -> np.ndarray:
    """Matches that tie each point's keypoints one to the next."""
    each = [np.flatnonzero(point == p) for p in range(N_POINTS)]
    return np.concatenate([np.stack([own[:-1], own[1:]], axis=1) for own in each])


def test_true_matches_lie_on_their_epipolar_lines_and_false_ones_do_not():
    keypoints, point = seen_as_keypoints()
    matches = chain(point)
    np.testing.assert_allclose(off_epipolar_px(rig(), keypoints, matches), 0, atol=1e-6)
    false = np.stack([matches[:, 0], np.roll(matches[:, 1], 46)], 1)
    apart = keypoints.image[false[:, 0]] != keypoints.image[false[:, 1]]
    assert np.median(off_epipolar_px(rig(), keypoints, false[apart])) > 10


def test_tracks_are_the_points():
    keypoints, point = seen_as_keypoints()
    which, track = join_tracks(keypoints, chain(point), shortest=3)
    assert len(which) == len(point)
    for one in range(N_POINTS):
        assert len(set(track[point[which] == one].tolist())) == 1
    assert track.max() + 1 == N_POINTS


def test_a_track_with_two_places_in_one_photograph_loses_that_photograph():
    keypoints, point = seen_as_keypoints()
    first, second = np.flatnonzero(point == 0), np.flatnonzero(point == 1)
    which, track = join_tracks(keypoints, np.concatenate([chain(point), [[first[0], second[0]]]]), shortest=3)
    # both points are in all photographs, so the joint track has two places in each, and nothing is left of it
    assert not np.isin(np.concatenate([first, second]), which).any()
    assert track.max() + 1 == N_POINTS - 2


def test_what_stands_still_is_no_match():
    keypoints = Keypoints(
        image=np.array([0, 1, 2]), sensor=np.array([0, 0, 1]), stop=np.array([0, 1, 1]), pixel=np.full((3, 2), 50.0)
    )
    index_of = {"a": np.array([0]), "b": np.array([1]), "c": np.array([2])}
    one = np.zeros((1, 2), np.int64)
    found = gather_matches({("a", "b"): one, ("a", "c"): one}, index_of, keypoints)
    assert found.tolist() == [[0, 2]]  # the same pixel in another camera is chance, in the same one it is the backdrop


def test_a_place_with_two_orientations_is_one_keypoint():
    pixels = np.array([[5.0, 6.0], [1.0, 2.0], [5.0, 6.0]])
    keypoints, index_of = gather_keypoints(["a", "b"], {"a": pixels, "b": pixels[:1]}, [0, 3], [2, 4])
    assert len(keypoints.pixel) == 3
    np.testing.assert_array_equal(keypoints.pixel[index_of["a"]], pixels)
    assert keypoints.sensor.tolist() == [0, 0, 3]
    assert keypoints.stop.tolist() == [2, 2, 4]


def test_fitting_drops_what_is_off_and_what_is_seen_from_one_side():
    state = rig()
    seen = everything_seen(state)
    seen.pixel[5] += 10.0
    narrow = (seen.point == 3) & ~((seen.stop == 0) & (seen.sensor < 2))
    seen = seen[~narrow]
    keep = fitting(state, seen, within_px=3.0, least_angle_deg=60.0, shortest=2)
    assert not keep[5]
    assert not keep[seen.point == 3].any()
    assert keep.sum() == len(seen) - 1 - 2
    angle = widest_angle_deg(state, seen, N_POINTS)
    _, direction = rays(state, seen[seen.point == 3])
    between = np.degrees(np.arccos(direction[0] @ direction[1]))
    assert angle[3] == pytest.approx(between, abs=1e-6)


def test_pairs_grow_with_the_photographs_not_with_their_square():
    def count(n_stops: int) -> int:
        angle = np.radians(np.arange(n_stops) * 360 / n_stops)
        rings = [
            np.stack([np.cos(e) * np.cos(angle), np.cos(e) * np.sin(angle), np.full(n_stops, np.sin(e))], axis=1)
            for e in np.radians([5, 25, 45, 65, 85])
        ]
        pairs = pairs_by_rig(np.concatenate(rings), np.zeros(3), 12)
        assert (pairs[:, 0] < pairs[:, 1]).all()
        assert len(np.unique(pairs, axis=0)) == len(pairs)
        touched = np.bincount(pairs.ravel(), minlength=5 * n_stops)
        assert touched.min() >= 4
        return len(pairs)

    for n_stops in (40, 120, 240):
        assert count(n_stops) <= 13 * 5 * n_stops


def test_points_are_spread_over_space():
    rng = np.random.default_rng(0)
    dense, sparse = rng.uniform(0, 0.05, (5000, 3)), rng.uniform(0, 1, (500, 3))
    keep = spread_over_space(np.concatenate([dense, sparse]), np.full(5500, 5), 600)
    assert keep.sum() == 600
    assert keep[5000:].sum() > 300


def textured_plane():
    """Photographs of the plane z = 0 of which the grey value is a smooth function of x and y."""
    state = rig()
    state = state.with_points(np.concatenate([state.points[:, :2] * 0.7, np.zeros((N_POINTS, 1))], axis=1))

    def read_grey(sensor: int, stop: int) -> np.ndarray:
        v, u = np.mgrid[0:500, 0:660] + 0.5
        one = everything_seen(state)[:1]
        n = u.size
        every = dataclasses.replace(
            one,
            sensor=np.full(n, sensor),
            stop=np.full(n, stop),
            point=np.zeros(n, int),
            pixel=np.stack([u.ravel(), v.ravel()], 1),
            sigma=np.ones(n),
            reading=np.full(n, np.nan),
            slope=np.full((n, 2), np.nan),
        )
        center, direction = rays(state, every)
        x, y, _ = (center - center[:, 2:] / direction[:, 2:] * direction).T
        return (100 * np.sin(x / 2e-3) * np.cos(y / 2.5e-3) + 40 * np.sin((x + y) / 5e-3)).reshape(500, 660)

    return state, read_grey


def test_aligned_patches_are_where_the_point_is():
    """Observations half a pixel off come back onto the projection of one place, to hundredths of a pixel."""
    state, read_grey = textured_plane()
    seen = everything_seen(state, noise_px=0.5)
    steep = seen.sensor > 0  # the lowest camera sees the plane at 10 degrees
    seen = seen[steep]
    pixel, aligned = sharpen(state, seen, read_grey)
    assert aligned.mean() > 0.8
    kept = dataclasses.replace(seen, pixel=pixel)[aligned]
    points = triangulate(state, kept, N_POINTS)
    off = project(state.intrinsics[kept.sensor], in_camera(state.with_points(points), kept)[1]) - kept.pixel
    assert np.median(np.linalg.norm(off, axis=1)) < 0.05
    before = triangulate(state, seen, N_POINTS)
    off_before = project(state.intrinsics[seen.sensor], in_camera(state.with_points(before), seen)[1]) - seen.pixel
    assert np.median(np.linalg.norm(off_before, axis=1)) > 0.4


def test_normals_of_a_plane_point_to_the_cameras():
    state, _ = textured_plane()
    normal = surface_normals(state, everything_seen(state))
    np.testing.assert_allclose(normal, np.tile([0.0, 0.0, 1.0], (N_POINTS, 1)), atol=1e-9)
