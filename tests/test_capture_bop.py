"""BOP scenes: hand-computed values, the choice of an object, written and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from tiny_captures import object_mask, photograph, pose, write_bigbird, write_plain_folder
from tiny_layouts import N_VIEWS, SIZE, assert_same_views, project, raw_mm, save, write_bop_scene

from neuralrecon.capture import (
    SensorKind,
    read_bop,
    read_capture,
    read_color,
    read_depth,
    read_mask,
    write_bop,
)
from neuralrecon.errors import CalibrationError, CaptureError


def test_values_computed_by_hand(tmp_path: Path) -> None:
    """K has f = 100, c = (49.5, 39.5) at integer centres, the object is 500 mm away, a raw unit is 0.1 mm.

    A point 50 mm to the right is 10 px to the right of the middle, which is (50, 40) with centres at +0.5.
    """
    save(tmp_path / "rgb/000000.png", photograph((100, 80), 1))
    save(tmp_path / "depth/000000.png", np.full((80, 100), 5000, dtype=np.uint16))
    camera = {"cam_K": [100, 0, 49.5, 0, 100, 39.5, 0, 0, 1], "depth_scale": 0.1}
    instance = {"cam_R_m2c": np.eye(3).flatten().tolist(), "cam_t_m2c": [0, 0, 500], "obj_id": 1}
    (tmp_path / "scene_camera.json").write_text(json.dumps({"0": camera}), encoding="utf-8")
    (tmp_path / "scene_gt.json").write_text(json.dumps({"0": [instance]}), encoding="utf-8")
    capture = read_capture(tmp_path)
    assert (capture.layout, capture.is_metric, capture.has_table, capture.left_out) == ("bop", True, False, ())
    color, depth = capture.images
    in_cam = capture.sensor_from_world(color).apply(torch.tensor([0.05, 0.0, 0.0], dtype=torch.float64))
    np.testing.assert_allclose(in_cam, [0.05, 0, 0.5], atol=1e-15)
    np.testing.assert_allclose(capture.sensor(color.sensor).camera.project(in_cam), [60, 40], atol=1e-12)
    np.testing.assert_allclose(read_depth(capture, depth), 0.5, rtol=3e-7)
    assert color.mask_path is None


def test_the_chosen_object_s_frame_is_the_world(tmp_path: Path) -> None:
    root = write_bop_scene(tmp_path / "000048")
    capture = read_bop(root, obj_id=7)
    assert capture.name == "000048_obj_000007"
    assert any("object 9, too" in line for line in capture.left_out)
    points = np.array([[0.1, -0.2, 3.0], [0.0, 0.1, 4.0]])
    for i, image in enumerate(capture.images_of(SensorKind.color)):
        assert image.path.name == f"{3 + i:06d}.png"
        in_cam = capture.sensor_from_world(image).apply(torch.from_numpy(points))
        pixels = capture.sensor(image.sensor).camera.project(in_cam)
        np.testing.assert_allclose(pixels, project(points, pose(i)), rtol=1e-12)
        np.testing.assert_array_equal(read_color(capture, image), photograph(SIZE, i))
        np.testing.assert_array_equal(read_mask(capture, image), object_mask(SIZE))
    for i, image in enumerate(capture.images_of(SensorKind.depth)):
        np.testing.assert_allclose(read_depth(capture, image), raw_mm(i) * 1e-4, rtol=3e-7)
    first = read_capture(root)
    assert first.name == "000048_obj_000009"
    assert all(i.mask_path is None for i in first.images)
    np.testing.assert_allclose(first.sensor_from_world(first.images[0]).translation, [0, 0, 0.7])


def test_images_without_the_object_are_said(tmp_path: Path) -> None:
    root = write_bop_scene(tmp_path / "scene")
    poses = json.loads((root / "scene_gt.json").read_text(encoding="utf-8"))
    poses["4"].pop()
    poses["5"].append(poses["5"][1])
    (root / "scene_gt.json").write_text(json.dumps(poses), encoding="utf-8")
    capture = read_bop(root, obj_id=7)
    assert [f.name for f in capture.frames] == ["000003", "000005", "000006"]
    assert any("object 7 is not in image 4" in line for line in capture.left_out)
    assert any("more than once; the first is read" in line for line in capture.left_out)
    with pytest.raises(CalibrationError, match=r"scene_gt\.json: no object 8; it has 9, 7; choose obj_id"):
        read_bop(root, obj_id=8)


def test_whole_masks_are_taken_where_there_are_no_visible_ones(tmp_path: Path) -> None:
    root = write_bop_scene(tmp_path / "scene")
    (root / "mask_visib").rename(root / "mask")
    masks = [i.mask_path for i in read_bop(root, obj_id=7).images_of(SensorKind.color)]
    assert [m and m.parent.name for m in masks] == ["mask"] * N_VIEWS


def test_written_and_read_back(tmp_path: Path) -> None:
    """Millimetres and back cost one rounding each: 1e-15 of the largest translation."""
    capture = read_bop(write_bop_scene(tmp_path / "scene"), obj_id=7)
    again = read_capture(write_bop(capture, tmp_path / "out" / "000001", obj_id=3))
    assert (again.name, again.left_out) == ("000001_obj_000003", ())
    assert_same_views(again, capture)
    for mine, other in zip(again.images, capture.images, strict=True):
        if again.sensor(mine.sensor).kind == SensorKind.depth:
            np.testing.assert_array_equal(read_depth(again, mine), read_depth(capture, other))
        else:
            np.testing.assert_array_equal(read_color(again, mine), read_color(capture, other))
            np.testing.assert_array_equal(read_mask(again, mine), read_mask(capture, other))


def test_a_rig_becomes_single_images_with_white_masks(tmp_path: Path) -> None:
    whole = read_capture(write_bigbird(tmp_path / "mug"))
    colors = whole.restricted(sensors=["N1", "NP2"])
    with pytest.raises(CalibrationError, match="no lens distortion; undistort"):
        write_bop(colors, tmp_path / "out")
    straight = tuple(replace(s, camera=replace(s.camera, distortion=(0.0, 0.0, 0.0, 0.0, 0.0))) for s in colors.sensors)
    colors = replace(colors, sensors=straight)
    again = read_capture(write_bop(colors, tmp_path / "out"))
    assert_same_views(again, colors)
    np.testing.assert_array_equal(read_mask(again, again.images[0]), object_mask(SIZE))
    assert (tmp_path / "out/rgb/000000.jpg").read_bytes() == colors.images[0].path.read_bytes()


def test_what_bop_cannot_say_is_refused(tmp_path: Path) -> None:
    capture = read_capture(write_plain_folder(tmp_path / "folder"))
    with pytest.raises(CaptureError, match=r"depth_0\.png: depth of sensor tof"):
        write_bop(capture, tmp_path / "out")
    colors = replace(capture.restricted(sensors=["left"]), is_metric=False)
    with pytest.raises(CaptureError, match=r"not metric.*scale the capture"):
        write_bop(colors, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_depth_of_another_shape_is_refused(tmp_path: Path) -> None:
    root = write_bop_scene(tmp_path / "scene")
    PILImage.fromarray(np.ones((10, 10), dtype=np.uint16)).save(root / "depth/000003.png")
    with pytest.raises(CaptureError, match=r"000003\.png: 10 x 10 px is another shape.*aligned"):
        read_capture(root)
