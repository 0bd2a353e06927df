"""IDR and plain folders read back, plain ones written too, and the one door to all layouts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from tiny_captures import (
    DISTORTION,
    SIZES,
    idr_matrix,
    object_mask,
    photograph,
    plain_description,
    pose,
    raw_depth,
    write_bigbird,
    write_idr,
    write_plain_folder,
)

from neuralrecon.capture import (
    Capture,
    SensorKind,
    looks_like_photos,
    read_capture,
    read_color,
    read_depth,
    read_mask,
    write_plain,
)
from neuralrecon.errors import CalibrationError, CaptureError, EvidenceError
from neuralrecon.geometry import Rigid
from neuralrecon.scene import Scene


def assert_same(a: Capture, b: Capture) -> None:
    """Equal up to the rounding of one orthonormalisation."""
    same = Rigid.identity()
    for mine, other in zip(a.sensors, b.sensors, strict=True):
        assert dataclasses.replace(mine, sensor_from_rig=same) == dataclasses.replace(other, sensor_from_rig=same)
        np.testing.assert_allclose(mine.sensor_from_rig.matrix(), other.sensor_from_rig.matrix(), atol=1e-14)
    for mine, other in zip(a.frames, b.frames, strict=True):
        assert (mine.name, mine.angle_deg) == (other.name, other.angle_deg)
        np.testing.assert_allclose(mine.rig_from_world.matrix(), other.rig_from_world.matrix(), atol=1e-14)
    rest = {"root": Path(), "layout": "", "sensors": (), "frames": (), "images": ()}
    assert dataclasses.replace(a, **rest) == dataclasses.replace(b, **rest)
    resolved = [
        [dataclasses.replace(i, path=i.path.resolve(), mask_path=i.mask_path and i.mask_path.resolve()) for i in images]
        for images in (a.images, b.images)
    ]
    assert resolved[0] == resolved[1]


@pytest.mark.parametrize("fraction", [1, 2, 4])
def test_idr_projects_like_its_own_matrix(tmp_path: Path, fraction: int) -> None:
    """u' = (u + 0.5) / fraction in our pixels, where u is what the layout's K [R | t] gives at the full size."""
    capture = read_capture(write_idr(tmp_path / "scan", fraction=fraction))
    assert (capture.layout, capture.is_metric, capture.has_table, len(capture.sensors)) == ("idr", False, False, 1)
    point = np.array([0.3, -0.2, 0.4])
    for i, image in enumerate(capture.images):
        in_cam = pose(i)[:3] @ np.append(point, 1)
        sensor_from_world = capture.sensor_from_world(image)
        np.testing.assert_allclose(sensor_from_world.apply(torch.from_numpy(point)), in_cam, atol=1e-12)
        full = idr_matrix(fraction) @ in_cam
        camera = capture.sensor(image.sensor).camera
        pixel = camera.project(sensor_from_world.apply(torch.from_numpy(point)))
        np.testing.assert_allclose(pixel, (full[:2] / full[2] + 0.5) / fraction, rtol=1e-10)


def test_idr_files_belong_together(tmp_path: Path) -> None:
    capture = read_capture(write_idr(tmp_path / "scan"))
    assert capture.bounds == ((-40.0, -30.0, 550.0), (60.0, 70.0, 650.0))
    for i, image in enumerate(capture.images):
        assert (image.path.name, image.mask_path and image.mask_path.name) == (f"{i:06d}.png", f"{i:03d}.png")
        np.testing.assert_array_equal(read_color(capture, image), photograph(SIZES["N"], i))
        np.testing.assert_array_equal(read_mask(capture, image), object_mask(SIZES["N"]))


def test_idr_images_numbered_from_one_go_by_order(tmp_path: Path) -> None:
    root = write_idr(tmp_path / "scan", n=11)
    for i in reversed(range(11)):
        (root / "image" / f"{i:06d}.png").rename(root / "image" / f"view_{i + 1}.png")
    capture = read_capture(root)
    assert [i.path.name for i in capture.images] == [f"view_{i + 1}.png" for i in range(11)]
    np.testing.assert_allclose(capture.frames[9].rig_from_world.matrix(), pose(9), atol=1e-12)


def test_idr_intrinsics_that_differ_are_other_sensors(tmp_path: Path) -> None:
    root = write_idr(tmp_path / "scan", fraction=1)
    arrays = dict(np.load(root / "cameras_sphere.npz"))
    wider = idr_matrix(1) * [[1.01], [1.01], [1]]
    wider[:2, 2] = idr_matrix(1)[:2, 2]
    arrays["world_mat_3"][:3] = wider @ pose(3)[:3]
    np.savez(root / "cameras_sphere.npz", **arrays)
    capture = read_capture(root)
    assert [i.sensor for i in capture.images] == ["camera0"] * 3 + ["camera1"] + ["camera0"]
    assert capture.sensor("camera1").camera.fx == pytest.approx(1.01 * idr_matrix(1)[0, 0])


def test_plain_reads_what_the_description_says(tmp_path: Path) -> None:
    capture = read_capture(write_plain_folder(tmp_path / "folder"))
    assert (capture.name, capture.layout, capture.is_metric, capture.has_table) == ("mug", "plain", True, True)
    assert capture.bounds == ((-0.1, -0.1, 0.0), (0.1, 0.1, 0.2))
    assert capture.sensor("left").camera.distortion == tuple(DISTORTION)
    assert capture.sensor("left").camera.cx == SIZES["N"][0] / 2 + 0.25
    np.testing.assert_allclose(capture.sensor("tof").sensor_from_rig.matrix(), pose(2), atol=1e-14)
    np.testing.assert_allclose(capture.frame("001").rig_from_world.matrix(), pose(6), atol=1e-14)
    assert [f.angle_deg for f in capture.frames] == [0.0, 30.0]
    color, depth = capture.images_of(SensorKind.color)[1], capture.images_of(SensorKind.depth)[1]
    np.testing.assert_array_equal(read_color(capture, color), photograph(SIZES["N"], 1))
    np.testing.assert_array_equal(read_mask(capture, color), object_mask(SIZES["N"]))
    np.testing.assert_allclose(read_depth(capture, depth), raw_depth(1, 1) * 1e-3, rtol=3e-7)


def test_masked_depth_alone_is_a_capture(tmp_path: Path) -> None:
    root = write_plain_folder(tmp_path / "folder")
    description = plain_description()
    description["images"] = description["images"][2:]
    description["depth_is_masked"] = True
    (root / "capture.json").write_text(json.dumps(description), encoding="utf-8")
    capture = read_capture(root)
    assert capture.depth_is_masked
    assert [i.sensor for i in capture.images] == ["tof", "tof"]


@pytest.mark.parametrize("write", [write_bigbird, write_idr, write_plain_folder], ids=["bigbird", "idr", "plain"])
def test_any_layout_can_be_described_plainly(tmp_path: Path, write) -> None:
    root = write(tmp_path / "one")
    capture = read_capture(root).restricted(every_nth_stop=2, downscale=2)
    capture = dataclasses.replace(capture, depth_is_masked=True, left_out=("said before",))
    before = sorted(root.rglob("*"))
    assert write_plain(capture, root) == root / "capture.json"
    assert sorted(root.rglob("*")) == sorted({*before, root / "capture.json"})
    again = read_capture(root)
    assert again.layout == "plain"
    assert_same(again, capture)
    image = capture.images_of(SensorKind.color)[0]
    np.testing.assert_array_equal(read_color(again, again.images[0]), read_color(capture, image))


def test_a_failed_write_leaves_the_old_description(tmp_path: Path) -> None:
    root = write_plain_folder(tmp_path / "folder")
    old = (root / "capture.json").read_bytes()
    capture = read_capture(root)
    outside = dataclasses.replace(capture.images[0], path=tmp_path / "elsewhere.png")
    with pytest.raises(CaptureError, match=r"elsewhere\.png.*lies outside of.*copy it there first"):
        write_plain(dataclasses.replace(capture, images=(outside,)), root)
    unreal = dataclasses.replace(capture, bounds=((0.0, 0.0, 0.0), (1.0, 1.0, float("nan"))))
    with pytest.raises(ValueError, match="JSON"):
        write_plain(unreal, root)
    assert (root / "capture.json").read_bytes() == old
    assert not list(root.glob(".capture*"))


def test_a_sixteen_bit_photograph_is_refused_when_read(tmp_path: Path) -> None:
    root = write_plain_folder(tmp_path / "folder")
    width, height = SIZES["N"]
    PILImage.fromarray(np.zeros((height, width), dtype=np.uint16)).save(root / "color_0.png")
    capture = read_capture(root)
    with pytest.raises(CaptureError, match=r"color_0\.png.*8 bits a channel"):
        read_color(capture, capture.images[0])


def test_a_missing_folder_names_its_neighbours(tmp_path: Path) -> None:
    for name in ("cheez_it_white_cheddar", "detergent", "zzz"):
        (tmp_path / name).mkdir()
    with pytest.raises(CaptureError, match=r"cheez_it_white: no such folder;.*has cheez_it_white_cheddar"):
        read_capture(tmp_path / "cheez_it_white")
    with pytest.raises(CaptureError, match=r"the nearest that exists is .*detergent"):
        read_capture(tmp_path / "detergent" / "a" / "b")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = write_plain_folder(tmp_path / "folder") / "capture.json"
    with pytest.raises(CaptureError, match=r"capture\.json: is a file.*give .*folder"):
        read_capture(file)


def test_a_folder_of_no_layout_says_what_was_looked_for_and_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "more").mkdir()
    known = ("capture.json", "calibration.h5", "cameras_sphere.npz", "transforms.json", "scene_gt.json", "cameras.bin")
    with pytest.raises(CaptureError, match=r"_par\.txt.*the folder has more, notes\.txt") as caught:
        read_capture(tmp_path)
    assert all(name in str(caught.value) for name in known)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaptureError, match="nothing in it"):
        read_capture(tmp_path / "empty")


@pytest.mark.parametrize("name", ["a.JPG", "left/a.png", "clip.mp4"])
def test_photographs_alone_are_to_be_calibrated(tmp_path: Path, name: str) -> None:
    (tmp_path / "set" / name).parent.mkdir(parents=True)
    (tmp_path / "set" / name).touch()
    assert looks_like_photos(tmp_path / "set")
    with pytest.raises(CalibrationError, match=r"python -m neuralrecon\.calibrate capture=.*set"):
        read_capture(tmp_path / "set")


def test_a_video_file_is_to_be_calibrated(tmp_path: Path) -> None:
    (tmp_path / "clip.mov").touch()
    with pytest.raises(CalibrationError, match=r"python -m neuralrecon\.calibrate capture=.*clip\.mov"):
        read_capture(tmp_path / "clip.mov")


def test_folders_of_masks_alone_are_no_photographs(tmp_path: Path) -> None:
    for name in ("masks/a.png", "depth/a.png", ".hidden/a.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert not looks_like_photos(tmp_path)
    assert not looks_like_photos(tmp_path / "nothing")


def test_a_plain_capture_without_masks_is_one(tmp_path: Path) -> None:
    root = write_plain_folder(tmp_path / "folder")
    description = plain_description()
    for image in description["images"]:
        image.pop("mask", None)
    (root / "capture.json").write_text(json.dumps(description), encoding="utf-8")
    capture = read_capture(root)
    assert [i.mask_path for i in capture.images] == [None] * 4
    assert capture.left_out == ()
    with pytest.raises(EvidenceError, match="no image has a mask"):
        Scene.from_capture(capture)


def test_a_plain_capture_s_points_are_kept(tmp_path: Path) -> None:
    capture = read_capture(write_plain_folder(tmp_path / "folder"))
    assert capture.points_path is None
    write_plain(dataclasses.replace(capture, points_path=capture.root / "sparse" / "points.ply"), capture.root)
    assert read_capture(capture.root).points_path == capture.root / "sparse" / "points.ply"
