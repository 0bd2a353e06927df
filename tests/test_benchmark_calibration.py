"""The calibration benchmark's own parts against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.calibration import EXACT_FILE, compared, exact_capture, main, perturbed
from neuralrecon.capture import Capture, SensorKind, read_capture
from neuralrecon.geometry import Rigid


@pytest.fixture(scope="module")
def capture(sphere_folder: Path) -> Capture:
    """Its calibration file is the exact one, but for the file's own rounding: none."""
    return read_capture(sphere_folder)


def test_every_sensor_is_disturbed_by_as_much_as_was_said(capture: Capture) -> None:
    """Angle, length and share are exact; the directions differ between sensors and seeds."""
    start = perturbed(capture, 0, 0.5, 2.0, 0.3)
    for given, sensor in zip(capture.sensors, start.sensors, strict=True):
        turn = sensor.sensor_from_rig.rotation @ given.sensor_from_rig.rotation.T
        angle = math.degrees(math.acos(float((turn.trace() - 1) / 2)))
        assert angle == pytest.approx(0.5, abs=1e-5)  # acos near 1 keeps half of the digits
        step = sensor.sensor_from_rig.inverse().translation - given.sensor_from_rig.inverse().translation
        assert float(step.norm()) == pytest.approx(2e-3, abs=1e-12)
        share = 0.003 if given.kind == SensorKind.color else 0.0
        assert abs(sensor.camera.fx / given.camera.fx - 1) == pytest.approx(share, abs=1e-12)
        assert sensor.camera.fx / given.camera.fx == pytest.approx(sensor.camera.fy / given.camera.fy)
    found = compared(start, capture)
    assert found.color.raw_deg == pytest.approx(0.5, abs=1e-5)
    assert found.depth is not None
    assert found.depth.raw_mm == pytest.approx(2.0, abs=1e-9)
    assert found.focal_percent == pytest.approx(0.3, abs=1e-9)
    assert 0 < found.axis_deg <= 0.5
    again = perturbed(capture, 1, 0.5, 2.0, 0.3).sensors[0].sensor_from_rig
    assert not torch.allclose(again.matrix(), start.sensors[0].sensor_from_rig.matrix())


def test_what_no_photograph_tells_is_taken_out(capture: Capture) -> None:
    """A turn about the axis, a lift and a scale of the whole rig are found, and nothing is left then."""
    turn_deg, lift_m, scale = 0.2, 0.0015, 1.004
    moved = Rigid.about_axis("z", turn_deg)
    moved = replace(moved, translation=torch.tensor([0.0, 0.0, lift_m], dtype=torch.float64))

    def larger(rigid: Rigid) -> Rigid:
        return replace(rigid, translation=rigid.translation * scale)

    other = replace(
        capture,
        sensors=tuple(replace(s, sensor_from_rig=larger(s.sensor_from_rig)) for s in capture.sensors),
        frames=tuple(replace(f, rig_from_world=larger(f.rig_from_world) @ moved) for f in capture.frames),
    )
    found = compared(other, capture)
    assert found.turn_deg == pytest.approx(turn_deg, abs=1e-6)
    assert found.scale_percent == pytest.approx(100 * (1 / scale - 1), abs=1e-6)
    assert found.lift_mm == pytest.approx(1e3 * lift_m / scale, rel=0.01)
    assert found.color.raw_deg == pytest.approx(turn_deg, abs=1e-9)
    assert max(found.color.aligned_mm_of.values()) < 1e-5
    assert max(found.color.aligned_deg_of.values()) < 1e-5
    assert found.axis_deg < 1e-5


def test_the_exact_capture_is_the_same_files_with_the_exact_calibration(sphere_folder: Path, tmp_path: Path) -> None:
    linked = exact_capture(sphere_folder, tmp_path / "exact")
    given = read_capture(sphere_folder)
    assert [i.path.resolve() for i in linked.images] == [i.path.resolve() for i in given.images]
    assert (tmp_path / "exact" / "calibration.h5").resolve() == (sphere_folder / EXACT_FILE).resolve()
    found = compared(given, linked)
    assert (found.color.raw_mm, found.scale_percent) == pytest.approx((0, 0), abs=1e-6)
    assert np.allclose(list(found.color.raw_deg_of.values()), 0, atol=1e-6)
    exact_capture(sphere_folder, tmp_path / "exact")


def test_a_capture_without_its_truth_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "calibration_exact.h5: no such file" in capsys.readouterr().err
