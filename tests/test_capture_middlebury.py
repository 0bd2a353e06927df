"""Middlebury's sets against the projection matrix of their own definition, and IDR's written from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_captures import photograph, pose, write_bigbird, write_idr
from tiny_layouts import N_VIEWS, SIZE, assert_same_views, opencv_matrix, write_middlebury

from neuralrecon.capture import read_capture, read_color, read_mask
from neuralrecon.capture import write_idr as write_as_idr
from neuralrecon.errors import CaptureError


def test_it_projects_like_its_own_matrix(tmp_path: Path) -> None:
    """u = u' + 0.5 where u' is what the layout's K [R t] gives."""
    capture = read_capture(write_middlebury(tmp_path / "set"))
    assert (capture.layout, capture.name, capture.is_metric, capture.has_table) == ("middlebury", "dino", True, False)
    assert (len(capture.sensors), len(capture.frames), capture.bounds) == (1, N_VIEWS, None)
    point = np.array([0.3, -0.2, 4.0])
    for i, image in enumerate(capture.images):
        full = opencv_matrix() @ pose(i)[:3] @ np.append(point, 1)
        in_cam = capture.sensor_from_world(image).apply(torch.from_numpy(point))
        pixel = capture.sensor(image.sensor).camera.project(in_cam)
        np.testing.assert_allclose(pixel, full[:2] / full[2] + 0.5, rtol=1e-12)
        np.testing.assert_array_equal(read_color(capture, image), photograph(SIZE, i))
        assert image.mask_path is None


def test_written_as_idr(tmp_path: Path) -> None:
    """RQ decomposition gives the matrices back to about 1e-12 of the focal length; a cube's sphere comes back as it."""
    capture = read_capture(write_middlebury(tmp_path / "set"))
    with pytest.raises(CaptureError, match="no bounds"):
        write_as_idr(capture, tmp_path / "out")
    bounds = ((-0.5, 0.25, 0.0), (0.5, 1.25, 1.0))
    again = read_capture(write_as_idr(replace(capture, bounds=bounds), tmp_path / "out"), allow_partial=True)
    assert (again.layout, again.bounds) == ("idr", bounds)
    for mine, other in zip(again.images, capture.images, strict=True):
        np.testing.assert_array_equal(read_color(again, mine), read_color(capture, other))
        a, b = again.sensor(mine.sensor).camera, capture.sensor(other.sensor).camera
        np.testing.assert_allclose((a.fx, a.fy, a.cx, a.cy), (b.fx, b.fy, b.cx, b.cy), rtol=1e-12)
        np.testing.assert_allclose(
            again.sensor_from_world(mine).matrix(), capture.sensor_from_world(other).matrix(), atol=1e-12
        )


def test_idr_written_from_idr(tmp_path: Path) -> None:
    capture = read_capture(write_idr(tmp_path / "scan", fraction=1))
    again = read_capture(write_as_idr(capture, tmp_path / "out"))
    assert again.bounds == capture.bounds
    for mine, other in zip(again.images, capture.images, strict=True):
        np.testing.assert_array_equal(read_mask(again, mine), read_mask(capture, other))
    assert_same_views(
        replace(again, sensors=tuple(replace(s, camera=capture.sensors[0].camera) for s in again.sensors)), capture
    )


def test_the_sphere_of_a_box_goes_around_it(tmp_path: Path) -> None:
    capture = read_capture(write_middlebury(tmp_path / "set"))
    out = write_as_idr(replace(capture, bounds=((0.0, 0.0, 0.0), (2.0, 3.0, 6.0))), tmp_path / "out")
    scale = np.load(out / "cameras_sphere.npz")["scale_mat_0"]
    np.testing.assert_allclose(scale, [[3.5, 0, 0, 1], [0, 3.5, 0, 1.5], [0, 0, 3.5, 3], [0, 0, 0, 1]])


def test_what_idr_cannot_say_is_refused(tmp_path: Path) -> None:
    capture = read_capture(write_bigbird(tmp_path / "mug")).restricted(sensors=["N1"])
    with pytest.raises(CaptureError, match=r"neither depth nor lens distortion.*undistort"):
        write_as_idr(replace(capture, bounds=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))), tmp_path / "out")
