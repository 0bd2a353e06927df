"""Bundle adjustment against closed forms, finite differences, the library's own camera, and COLMAP's minimum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pycolmap
import pytest
import torch
from scipy.spatial.transform import Rotation

from neuralrecon.calibrate.adjust import Prior, adjust, off_prior
from neuralrecon.calibrate.depth_links import link_depth
from neuralrecon.calibrate.projection import (
    INTRINSICS,
    N_POSE,
    N_SENSOR,
    N_STOP,
    Observations,
    RigState,
    in_camera,
    linearised,
    project,
    rays,
    residuals,
)
from neuralrecon.calibrate.tracks import triangulate
from neuralrecon.geometry import Camera

N_SENSORS, N_STOPS, N_POINTS = 3, 8, 60
DISTORTION = (0.05, -0.1, 1e-3, -5e-4, 0.02)


def looking_at_origin(center: np.ndarray) -> np.ndarray:
    z = -center / np.linalg.norm(center)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def rig(seed: int = 0) -> RigState:
    """Three cameras on an arc, a table turned in steps of 45 degrees, points in a box 0.2 m wide."""
    rng = np.random.default_rng(seed)
    elevation = np.radians([10.0, 40.0, 75.0])
    center = 0.8 * np.stack([np.cos(elevation), 0.1 * np.ones(3), np.sin(elevation)], axis=1)
    intrinsics = np.tile([900.0, 1.001, 330.0, 250.0, *DISTORTION, 1.0], (N_SENSORS, 1))
    turns = Rotation.from_euler("z", 45.0 * np.arange(N_STOPS)[:, None], degrees=True).as_matrix()
    return RigState(
        sensor_rotation=np.stack([looking_at_origin(c) for c in center]),
        sensor_center=center,
        intrinsics=intrinsics,
        stop_rotation=turns,
        stop_translation=np.zeros((N_STOPS, 3)),
        points=rng.uniform(-0.1, 0.1, (N_POINTS, 3)),
    )


def everything_seen(state: RigState, noise_px: float = 0.0, sigma: float = 1.0) -> Observations:
    sensor, stop, point = (
        x.ravel() for x in np.meshgrid(*map(np.arange, (N_SENSORS, N_STOPS, len(state.points))), indexing="ij")
    )
    n = len(sensor)
    blank = Observations(
        sensor=sensor,
        stop=stop,
        point=point,
        pixel=np.zeros((n, 2)),
        sigma=np.full(n, sigma),
        reading=np.full(n, np.nan),
        slope=np.full((n, 2), np.nan),
    )
    pixel = project(state.intrinsics[sensor], in_camera(state, blank)[1])
    return replace(blank, pixel=pixel + noise_px * np.random.default_rng(1).normal(size=pixel.shape))


def prior_of(state: RigState, pose: float, intrinsics: float, angle: float) -> Prior:
    sensors, stops = np.zeros((N_SENSORS, N_SENSOR)), np.zeros((N_STOPS, N_STOP))
    sensors[:, :N_POSE] = pose
    sensors[:, N_POSE] = intrinsics
    stops[:, 2] = angle
    return Prior(mean=state, sensors=sensors, stops=stops)


def test_projection_is_that_of_the_camera():
    state = rig()
    seen = everything_seen(state)
    _, in_cam = in_camera(state, seen)
    camera = Camera(width=640, height=480, fx=900.0, fy=900.0 * 1.001, cx=330.0, cy=250.0, distortion=DISTORTION)
    expected = camera.project(torch.from_numpy(in_cam)).numpy()
    np.testing.assert_allclose(seen.pixel, expected, atol=1e-9)
    np.testing.assert_allclose(np.abs(residuals(state, seen)).max(), 0, atol=1e-12)


def test_rays_go_through_the_points():
    state = rig()
    seen = everything_seen(state)
    center, direction = rays(state, seen)
    towards = state.points[seen.point] - center
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    np.testing.assert_allclose(direction, towards, atol=1e-9)
    np.testing.assert_allclose(triangulate(state, seen, N_POINTS), state.points, atol=1e-8)


@pytest.mark.parametrize("depth", [False, True])
def test_derivatives_are_those_of_finite_differences(depth: bool):
    state = rig()
    seen = everything_seen(state)[:200:7]
    if depth:
        n = len(seen)
        slope = np.random.default_rng(2).normal(0, 1e-3, (n, 2))
        seen = replace(seen, reading=in_camera(state, seen)[1][:, 2] + 0.002, slope=slope, sigma=np.full(n, 0.01))
    line = linearised(state, seen)
    h = 1e-6
    for of, analytic, n_parameters in (
        ("sensors", line.by_sensor, N_SENSOR),
        ("stops", line.by_stop, N_STOP),
        ("points", line.by_point, 3),
    ):
        for k in range(n_parameters):
            steps = {
                "sensors": np.zeros((N_SENSORS, N_SENSOR)),
                "stops": np.zeros((N_STOPS, N_STOP)),
                "points": np.zeros((N_POINTS, 3)),
            }
            steps[of][:, k] = h
            forward = residuals(state.moved(**steps), seen)
            backward = residuals(state.moved(**{name: -step for name, step in steps.items()}), seen)
            numeric = (forward - backward) / (2 * h)
            # h^2 times third derivatives (f ~ 1e3 px, sigma 1e-2 m), rounding 1e-13 / h
            np.testing.assert_allclose(analytic[:, :, k], numeric, rtol=1e-5, atol=2e-3)


def test_exact_pixels_give_back_the_rig():
    true = rig()
    rng = np.random.default_rng(3)
    step = np.zeros((N_SENSORS, N_SENSOR))
    step[:, :3] = rng.normal(0, np.radians(0.5), (N_SENSORS, 3))
    step[:, 3:N_POSE] = rng.normal(0, 2e-3, (N_SENSORS, 3))
    step[:, N_POSE] = [0.003, -0.003, 0.003]
    stops = np.zeros((N_STOPS, N_STOP))
    stops[1:, 2] = np.radians(rng.normal(0, 0.05, N_STOPS - 1))
    start = true.moved(step, stops, np.zeros((N_POINTS, 3)))
    seen = everything_seen(true, sigma=1e-3)
    start = start.with_points(triangulate(start, seen, N_POINTS))
    prior = prior_of(start, 0.01, 0.01, np.radians(0.1))
    found = adjust(start, seen, prior, n_steps=60)
    off = np.linalg.norm(residuals(found.state, seen), axis=1) * 1e-3
    assert np.median(off) < 1e-4
    # up to the gauge (scale, height, angle 0): cameras against the points they see at the first stop
    seen_points = found.state.points @ found.state.stop_rotation[0].T
    middle, true_middle = seen_points.mean(0), true.points.mean(0)
    scale = np.linalg.norm(seen_points - middle) / np.linalg.norm(true.points - true_middle)
    turn, _ = Rotation.align_vectors(seen_points - middle, true.points - true_middle)
    back = turn.inv().apply(found.state.sensor_center - middle) / scale + true_middle
    np.testing.assert_allclose(back, true.sensor_center, atol=2e-5)
    np.testing.assert_allclose(found.state.intrinsics[:, 0], 900.0, rtol=3e-5)
    assert all(a >= b for a, b in zip(found.costs, found.costs[1:], strict=False))


def test_nothing_seen_leaves_the_prior_and_its_sigma():
    """A sensor without observations stays where it was given, as sure as it was given."""
    true = rig()
    seen = everything_seen(true, noise_px=0.2)
    seen = seen[seen.sensor != 2]
    found = adjust(true, seen, prior_of(true, 0.01, 0.01, 0.0), n_steps=5)
    step, _ = off_prior(found.state, prior_of(true, 0.01, 0.01, 0.0))
    np.testing.assert_allclose(step[2], 0, atol=1e-12)
    np.testing.assert_allclose(found.sensor_sigma[2, : N_POSE + 1], 0.01, rtol=1e-6)
    assert (found.sensor_sigma[:2, :3] < 0.009).all()


def test_the_minimum_is_colmaps():
    """Free stops, one camera, fixed lens: COLMAP's bundle adjustment from the same start ends at the same cost."""
    true = rig()
    seen = everything_seen(true, noise_px=0.3)
    seen = seen[seen.sensor == 1]
    rng = np.random.default_rng(5)
    start = true.moved(
        np.zeros((N_SENSORS, N_SENSOR)), rng.normal(0, 2e-3, (N_STOPS, N_STOP)), rng.normal(0, 1e-3, (N_POINTS, 3))
    )
    sensors, stops = np.zeros((N_SENSORS, N_SENSOR)), np.full((N_STOPS, N_STOP), 1.0)
    stops[0] = 1e-6
    ours = adjust(start, seen, Prior(mean=start, sensors=sensors, stops=stops), cauchy=1e6, n_steps=50).state
    cost = float((residuals(ours, seen) ** 2).sum())
    assert colmaps_cost(start, seen) == pytest.approx(cost, rel=1e-4)


def colmaps_cost(start: RigState, seen: Observations) -> float:
    model = pycolmap.Reconstruction()
    k = start.intrinsics[1]
    parameters = [k[0], k[0] * k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8], 0.0, 0.0, 0.0]
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model="FULL_OPENCV", width=640, height=480, params=parameters)
    )
    for stop in range(N_STOPS):
        own = seen[seen.stop == stop]
        turn = start.sensor_rotation[1] @ start.stop_rotation[stop]
        shift = start.sensor_rotation[1] @ (start.stop_translation[stop] - start.sensor_center[1])
        image = pycolmap.Image(name=f"{stop}.png", camera_id=1, image_id=stop + 1, keypoints=own.pixel)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pycolmap.Rotation3d(turn), shift))
    for point in range(N_POINTS):
        track = pycolmap.Track()
        for stop in range(N_STOPS):
            own = seen.point[seen.stop == stop].tolist()
            track.add_element(stop + 1, own.index(point))
        model.add_point3D(start.points[point], track)
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = options.refine_extra_params = options.refine_principal_point = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.TRIVIAL
    options.ceres.solver_options.function_tolerance = 1e-12
    options.print_summary = False
    pycolmap.bundle_adjustment(model, options)
    cost = 0.0
    for point in model.points3D.values():
        for element in point.track.elements:
            image = model.images[element.image_id]
            off = image.project_point(point.xyz) - image.points2D[element.point2D_idx].xy
            cost += float((off**2).sum())
    return cost


def test_depth_images_give_scale_and_gain():
    """A slanted plane read 1 % too short: the links lie on it, and only the gain can say so."""
    state = rig()
    normal, offset = state.sensor_rotation[1].T @ np.array([0.1, -0.2, -1.0]), -0.75
    v, u = np.mgrid[0:500, 0:660] + 0.5
    pixel = np.stack([u.ravel(), v.ravel()], axis=1)
    n = len(pixel)
    every = Observations(
        sensor=np.ones(n, int),
        stop=np.zeros(n, int),
        point=np.zeros(n, int),
        pixel=pixel,
        sigma=np.ones(n),
        reading=np.full(n, np.nan),
        slope=np.full((n, 2), np.nan),
    )
    center, direction = rays(state, every)
    along = (offset - (center - state.sensor_center[1]) @ normal) / (direction @ normal)
    depth = (along * (direction @ state.sensor_rotation[1][2])).reshape(500, 660)
    at = np.random.default_rng(7).choice(n, N_POINTS, replace=False)
    state = state.with_points(center[at] + along[at, None] * direction[at])
    links = link_depth(
        state, [(1, 0)], lambda _sensor, _stop: depth / 1.01, tolerance_m=0.02, sigma_m=lambda z: np.full(len(z), 1e-4)
    )
    assert len(links) > 0.8 * N_POINTS
    # the plane's depth is not linear in the pixel: over half a pixel by less than 1e-6 m here
    np.testing.assert_allclose(residuals(state, links)[:, 0] * 1e-4, 0.01 / 1.01 * links.reading * 1.01, atol=1e-5)
    sensors = np.zeros((N_SENSORS, N_SENSOR))
    sensors[1, N_POSE + INTRINSICS.index("depth_gain")] = 0.1
    fixed = everything_seen(state, sigma=1e-4)
    found = adjust(state, fixed.and_(links), Prior(mean=state, sensors=sensors, stops=np.zeros((N_STOPS, N_STOP))))
    assert found.state.intrinsics[1, -1] == pytest.approx(1.01, abs=1e-4)
