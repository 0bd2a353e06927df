"""nerfstudio's and instant-ngp's `transforms.json`: against hand-computed pixels, written and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_captures import object_mask, photograph, pose, write_bigbird, write_idr
from tiny_layouts import N_VIEWS, SIZE, K, assert_same_views, raw_mm, save, write_nerfstudio

from neuralrecon.capture import (
    SensorKind,
    read_capture,
    read_color,
    read_depth,
    read_mask,
    read_points,
    read_transforms,
    write_transforms,
)
from neuralrecon.errors import CalibrationError, CaptureError


def write_one(root: Path, top: dict[str, Any], frame: dict[str, Any], file: str = "transforms.json") -> Path:
    """A photograph `a.png` from (0, 0, 2) looking down at the origin: OpenGL's own axes, unturned."""
    save(root / "a.png", photograph((100, 80), 1))
    matrix = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]
    described = top | {"frames": [{"file_path": "a.png", "transform_matrix": matrix} | frame]}
    (root / file).write_text(json.dumps(described), encoding="utf-8")
    return root


def test_a_pose_computed_by_hand(tmp_path: Path) -> None:
    """From (0, 0, 2) the origin is 2 away; one unit along x is f / 2 to the right, one along y f / 2 upwards."""
    capture = read_capture(write_one(tmp_path, {"fl_x": 120, "fl_y": 130, "cx": 51, "cy": 39}, {}))
    assert (capture.layout, capture.is_metric, capture.has_table) == ("transforms", False, False)
    image = capture.images[0]
    in_cam = capture.sensor_from_world(image).apply(torch.eye(4, 3, dtype=torch.float64).roll(1, 0))
    pixels = capture.sensor(image.sensor).camera.project(in_cam)
    np.testing.assert_allclose(in_cam[0], [0, 0, 2], atol=1e-15)
    np.testing.assert_allclose(pixels[:3], [[51, 39], [51 + 60, 39], [51, 39 - 65]], atol=1e-12)
    np.testing.assert_allclose(in_cam[3, 2], 1, atol=1e-15)


def test_a_field_of_view_is_a_focal_length(tmp_path: Path) -> None:
    """90 degrees across 100 px are f = 50 px; the principal point is the middle, and fy is fx. No suffix is needed."""
    root = write_one(tmp_path, {"camera_angle_x": np.pi / 2}, {"file_path": "./a"}, "transforms_train.json")
    (root / "transforms_test.json").write_text("{}", encoding="utf-8")
    capture = read_capture(root)
    camera = capture.sensors[0].camera
    np.testing.assert_allclose((camera.fx, camera.fy, camera.cx, camera.cy), (50, 50, 50, 40), rtol=1e-14)
    assert (camera.width, camera.height) == (100, 80)
    assert capture.left_out == (f"{root}: only transforms_train.json is read; transforms_test.json are not",)


def test_everything_in_the_file_is_read(tmp_path: Path) -> None:
    capture = read_capture(write_nerfstudio(tmp_path / "mug"))
    assert [s.name for s in capture.sensors] == ["camera0", "depth0"]
    assert (len(capture.frames), len(capture.images), capture.is_metric) == (N_VIEWS, 2 * N_VIEWS, True)
    for i, image in enumerate(capture.images_of(SensorKind.color)):
        np.testing.assert_allclose(capture.sensor_from_world(image).matrix(), pose(i), atol=1e-12)
        np.testing.assert_array_equal(read_color(capture, image), photograph(SIZE, i))
        np.testing.assert_array_equal(read_mask(capture, image), object_mask(SIZE))
    for i, image in enumerate(capture.images_of(SensorKind.depth)):
        np.testing.assert_allclose(read_depth(capture, image), raw_mm(i) * 1e-3, rtol=3e-7)
        np.testing.assert_allclose(capture.sensor_from_world(image).matrix(), pose(i), atol=1e-12)
    camera = capture.sensors[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == K
    assert camera.distortion == (0.02, -0.01, 0.001, -0.002, 0.0)


def test_a_frame_s_own_intrinsics_come_before_those_at_the_top(tmp_path: Path) -> None:
    root = write_nerfstudio(tmp_path / "mug")
    top = json.loads((root / "transforms.json").read_text(encoding="utf-8"))
    top["frames"][2] |= {"fl_x": 50.0, "k1": 0.5, "depth_unit_scale_factor": 1e-4}
    (root / "transforms.json").write_text(json.dumps(top), encoding="utf-8")
    capture = read_capture(root)
    colors, depths = capture.images_of(SensorKind.color), capture.images_of(SensorKind.depth)
    assert [i.sensor for i in colors] == ["camera0", "camera0", "camera1", "camera0"]
    assert capture.sensor("camera1").camera == replace(
        capture.sensor("camera0").camera, fx=50.0, distortion=(0.5, -0.01, 0.001, -0.002, 0.0)
    )
    np.testing.assert_allclose(read_depth(capture, depths[2]), raw_mm(2) * 1e-4, rtol=3e-7)


def test_depth_of_half_the_size_has_half_the_focal_length(tmp_path: Path) -> None:
    root = write_nerfstudio(tmp_path / "mug")
    for i in range(N_VIEWS):
        save(root / f"depth/frame_{i}.png", raw_mm(i)[::2, ::2].copy())
    camera = read_capture(root).sensor("depth0").camera
    assert (camera.width, camera.height, camera.fx, camera.cy) == (SIZE[0] // 2, SIZE[1] // 2, K[0] / 2, K[3] / 2)


@pytest.mark.parametrize("write", [write_nerfstudio, write_idr], ids=["transforms", "idr"])
def test_written_and_read_back(tmp_path: Path, write) -> None:
    root = write(tmp_path / "mug")
    capture = read_capture(root)
    described = replace(capture, has_table=True, is_metric=True)
    (root / "cameras_sphere.npz").unlink(missing_ok=True)
    assert write_transforms(described, root) == root / "transforms.json"
    again = read_capture(root)
    assert (again.layout, again.has_table, again.is_metric) == ("transforms", True, True)
    assert_same_views(again, capture)
    for mine, other in zip(again.images, capture.images, strict=True):
        assert (mine.path, mine.mask_path) == (other.path, other.mask_path)
        assert again.sensor(mine.sensor).metres_per_unit == capture.sensor(other.sensor).metres_per_unit


def test_a_rig_of_distorted_cameras_with_black_masks(tmp_path: Path) -> None:
    """All five coefficients and every photograph's pose survive; masks come out white."""
    root = write_bigbird(tmp_path / "mug")
    whole = read_capture(root)
    with pytest.raises(CaptureError, match=r"NP\d_\d+\.h5: depth of sensor NP\d_depth.*capture\.restricted"):
        write_transforms(whole, root)
    colors = whole.restricted(sensors=[s.name for s in whole.sensors if s.kind == SensorKind.color])
    write_transforms(colors, root)
    again = read_transforms(root)
    assert_same_views(again, colors)
    assert all(i.mask_path and i.mask_path.parent.name == "masks_white" and not i.object_is_black for i in again.images)
    np.testing.assert_array_equal(read_mask(again, again.images[0]), object_mask(SIZE))


def test_sparse_points_of_a_ply_file(tmp_path: Path) -> None:
    ply = "ply\nformat ascii 1.0\nelement vertex 2\n" + "".join(f"property float {c}\n" for c in "xyz")
    ply += "".join(f"property uchar {c}\n" for c in ("red", "green", "blue")) + "end_header\n"
    root = write_one(tmp_path, {"fl_x": 120, "ply_file_path": "points.ply"}, {})
    assert "points.ply: the sparse points" in read_capture(root).left_out[0]
    assert read_points(read_capture(root)) is None
    (root / "points.ply").write_text(ply + "0.5 0.25 -1 255 0 7\n1 2 3 4 5 6\n", encoding="utf-8")
    points = read_points(read_capture(root))
    assert points is not None
    np.testing.assert_array_equal(points.xyz, [[0.5, 0.25, -1], [1, 2, 3]])
    np.testing.assert_array_equal(points.rgb, [[255, 0, 7], [4, 5, 6]])
    assert len(points.pixel) == 0
    assert np.isnan(points.error_px).all()
    (root / "points.ply").write_text("ply\nformat", encoding="utf-8")
    with pytest.raises(CaptureError, match=r"points\.ply"):
        read_points(read_capture(root))


@pytest.mark.parametrize(
    ("top", "frame", "words"),
    [
        ({"fl_x": 120, "camera_model": "OPENCV_FISHEYE"}, {}, "camera_model OPENCV_FISHEYE, want.*undistort"),
        ({"fl_x": 120, "is_fisheye": True}, {}, "camera_model fisheye, want.*undistort"),
        ({"fl_x": 120, "k4": 0.1}, {}, "k4.*undistort"),
        ({}, {}, "neither fl_x nor camera_angle_x.*calibrate"),
        ({"fl_x": -3}, {}, "positive.*focal"),
        ({"fl_x": 120, "w": 100.5}, {}, "'w' = 100.5, want a whole number"),
        ({"fl_x": 120}, {"transform_matrix": (2 * np.eye(4)).tolist()}, "transform_matrix.*no rotation"),
        ({"fl_x": 120}, {"depth_unit_scale_factor": 0}, "depth_unit_scale_factor = 0.*positive"),
    ],
)
def test_cameras_that_are_none(tmp_path: Path, top: dict, frame: dict, words: str) -> None:
    with pytest.raises(CalibrationError, match=rf"transforms\.json: frames\[0\].*{words}"):
        read_capture(write_one(tmp_path, top, frame))


def test_an_alpha_channel_is_no_mask(tmp_path: Path) -> None:
    root = write_one(tmp_path, {"fl_x": 120}, {})
    save(root / "a.png", np.zeros((80, 100, 4), dtype=np.uint8))
    with pytest.raises(CaptureError, match=r"a\.png: has an alpha channel.*mask_path"):
        read_capture(root)
