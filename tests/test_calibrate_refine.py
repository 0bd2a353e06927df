"""A rig whose sensors were knocked comes back to where the simulator knows them to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuralrecon.calibrate.refine import refine
from neuralrecon.calibrate.rig_state import calibrated, state_of
from neuralrecon.calibrate.types import CalibrateConfig, Calibration
from neuralrecon.capture import Capture, SensorKind, read_capture
from neuralrecon.simulate import SimulateConfig, simulate

TURN_DEG, SHIFT_MM, FOCAL = 0.5, 2.0, 0.003


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """A printed box on the printed turntable, 15 stops, five photographs and five depth images each."""
    config = SimulateConfig(
        n_stops=15, n_width=420, np_width=160, depth_width=160, supersample=1,
        sensor_rotation_deg=0.0, sensor_translation_mm=0.0, focal_percent=0.0,
    )  # fmt: skip
    capture = read_capture(simulate(config, tmp_path_factory.mktemp("rig") / "box"))
    return capture.restricted(sensors=[f"N{i}" for i in range(1, 6)] + ["NP3_depth", "NP4_depth"])


def knocked(capture: Capture, seed: int) -> Capture:
    """Every sensor turned about its own centre, shifted, and colour sensors' focal lengths changed."""
    rng = np.random.default_rng(seed)
    state, room = state_of(capture, turntable=True)
    n = len(capture.sensors)
    step = np.zeros((n, 16))
    for columns, length in ((slice(0, 3), np.radians(TURN_DEG)), (slice(3, 6), SHIFT_MM / 1000)):
        direction = rng.normal(size=(n, 3))
        step[:, columns] = length * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    color = [s.kind == SensorKind.color for s in capture.sensors]
    step[color, 6] = FOCAL * rng.choice([-1, 1], sum(color))
    moved = state.moved(step, np.zeros((len(capture.frames), 6)), np.zeros((0, 3)))
    return calibrated(capture, moved, room)


@pytest.fixture(scope="module")
def found(exact: Capture, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return refine(knocked(exact, 0), CalibrateConfig(n_points=1000, n_features=700), tmp_path_factory.mktemp("work"))


def errors(capture: Capture, exact: Capture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each sensor at the first stop: turn in degrees, shift in mm, and the axis' direction in degrees."""
    turns, shifts, axes = [], [], []
    for sensor in exact.sensors:
        ours, true = ((c.sensor(sensor.name).sensor_from_rig @ c.frames[0].rig_from_world) for c in (capture, exact))
        between = (ours.rotation @ true.rotation.mT).numpy()
        turns.append(np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1))))
        shifts.append(1e3 * float((ours.inverse().translation - true.inverse().translation).norm()))
        axes.append(np.degrees(np.arccos(np.clip(float(ours.rotation[:, 2] @ true.rotation[:, 2]), -1, 1))))
    return np.array(turns), np.array(shifts), np.array(axes)


def test_a_knocked_rig_comes_back(found: Calibration, exact: Capture):
    turn, shift, axis = errors(found.capture, exact)
    color = np.array([s.kind == SensorKind.color for s in exact.sensors])
    # scale and angle 0 are what the sensors' given places agree on: 2 mm / sqrt(3 x 7) at 0.7 m is 0.06 % and 0.04 deg
    assert np.median(turn[color]) < 0.12
    assert np.median(axis[color]) < 0.05
    assert np.median(shift[color]) < 1.2
    off = [
        found.capture.sensor(s.name).camera.fx / s.camera.fx - 1 for s in exact.sensors if s.kind == SensorKind.color
    ]
    assert np.median(np.abs(off)) < 0.0015


def test_the_report_says_what_changed(found: Calibration, exact: Capture):
    assert [c.name for c in found.sensors] == [s.name for s in exact.sensors]
    color = [c for c in found.sensors if not c.name.endswith("_depth")]
    for change in color:
        assert not change.reason
        assert change.residual_after < 0.3 < change.residual_before
        assert 0.2 < change.turned_deg < 0.9
        assert 0 < change.turn_sigma_deg < 0.5
    assert found.figures["residual_after_px"] < 0.3
    assert len(found.points.xyz) == found.figures["n_points"]
    assert found.points.pixel.shape == (found.figures["n_observations"], 2)
    table = np.abs(found.points.xyz[:, 2]) < 5e-4
    assert table.mean() > 0.2  # the table is at z = 0


def test_points_project_to_their_pixels(found: Calibration):
    """The written capture and points, through the library's own camera, give the reported residual."""
    import torch

    capture, points = found.capture, found.points
    off = []
    for i in np.unique(points.image_index):
        own = points.image_index == i
        image = capture.images[i]
        pose = capture.sensor_from_world(image)
        in_cam = pose.apply(torch.from_numpy(points.xyz[points.point_index[own]]))
        pixel = capture.sensor(image.sensor).camera.project(in_cam).numpy()
        off.append(np.linalg.norm(pixel - points.pixel[own], axis=1))
    assert np.median(np.concatenate(off)) == pytest.approx(found.figures["residual_after_px"], abs=1e-6)


def test_a_blind_sensor_keeps_what_it_was_given(exact: Capture, tmp_path: Path):
    """One camera sees only grey: it is named, and stays exactly where it was."""
    from PIL import Image as PillowImage

    blind = tmp_path / "grey.jpg"
    size = (exact.sensor("N4").camera.width, exact.sensor("N4").camera.height)
    PillowImage.new("RGB", size, (90, 90, 90)).save(blind)
    few = exact.restricted(sensors=["N2", "N3", "N4"])
    copies = []
    for image in few.images:
        target = tmp_path / image.path.name
        target.symlink_to(blind if image.sensor == "N4" else image.path.resolve())
        copies.append(replace(image, path=target))
    given = knocked(replace(few, root=tmp_path, images=tuple(copies)), 1)
    found = refine(given, CalibrateConfig(n_points=300, n_features=400, n_partners=6), tmp_path / "work")
    assert any("N4" in warning for warning in found.warnings)
    before, after = given.sensor("N4"), found.capture.sensor("N4")
    assert after.camera.fx == pytest.approx(before.camera.fx, rel=1e-9)
    np.testing.assert_allclose(after.sensor_from_rig.matrix(), before.sensor_from_rig.matrix(), atol=1e-9)


def test_the_same_twice(exact: Capture, tmp_path: Path):
    few = exact.restricted(sensors=["N3", "N4", "NP4_depth"])
    config = CalibrateConfig(n_points=300, n_features=300, n_partners=6)
    one, two = (refine(few, config, tmp_path / name) for name in ("a", "b"))
    np.testing.assert_array_equal(one.points.xyz, two.points.xyz)
    assert one.sensors == two.sensors
