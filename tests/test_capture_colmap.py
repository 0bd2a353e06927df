"""COLMAP models against pycolmap's own projection and against files written by hand; written and read back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image as PILImage
from tiny_captures import object_mask, pose, write_bigbird, write_idr, write_plain_folder
from tiny_layouts import (
    N_VIEWS,
    SIZE,
    K,
    assert_equal_captures,
    facing,
    save,
    sparse_points,
    write_photos_with_model,
)

from neuralrecon.capture import Capture, SensorKind, SparsePoints, read_capture, read_mask, read_points
from neuralrecon.capture.colmap import calibrated_by, read_colmap, write_colmap
from neuralrecon.capture.colmap_lengths import require_whole_model
from neuralrecon.errors import CalibrationError, CaptureError
from neuralrecon.geometry import Camera, Rigid

MODELS = {
    "SIMPLE_PINHOLE": [130.0, 62.5, 47.25],
    "PINHOLE": [130.0, 131.0, 62.5, 47.25],
    "SIMPLE_RADIAL": [130.0, 62.5, 47.25, 0.05],
    "RADIAL": [130.0, 62.5, 47.25, 0.05, -0.02],
    "OPENCV": [130.0, 131.0, 62.5, 47.25, 0.05, -0.02, 0.001, -0.002],
    "FULL_OPENCV": [130.0, 131.0, 62.5, 47.25, 0.05, -0.02, 0.001, -0.002, 0.01, 0, 0, 0],
}


def write_synthetic_rig(root: Path, model: str) -> pycolmap.Reconstruction:
    """Two rigs of three cameras at four frames each, as COLMAP synthesizes and writes them."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 2, 3, 4
    options.num_points3D, options.num_points2D_without_point3D = 30, 2
    options.camera_width, options.camera_height = 128, 96
    options.camera_model_id, options.camera_params = getattr(pycolmap.CameraModelId, model), MODELS[model]
    options.sensor_from_rig_translation_stddev, options.sensor_from_rig_rotation_stddev = 0.1, 5.0
    pycolmap.set_random_seed(3)
    reconstruction = pycolmap.synthesize_dataset(options)
    for image in reconstruction.images.values():
        save(root / "images" / image.name, np.zeros((96, 128), dtype=np.uint8))
    (root / "sparse" / "0").mkdir(parents=True)
    reconstruction.write_binary(str(root / "sparse" / "0"))
    return reconstruction


@pytest.mark.parametrize("model", list(MODELS))
def test_a_rig_projects_as_pycolmap_projects_it(tmp_path: Path, model: str) -> None:
    reconstruction = write_synthetic_rig(tmp_path, model)
    capture = read_capture(tmp_path)
    assert (capture.layout, capture.is_metric, capture.has_table) == ("colmap", False, False)
    assert (len(capture.sensors), len(capture.frames), len(capture.images)) == (6, 8, 24)
    xyz = np.array([p.xyz for p in reconstruction.points3D.values()])
    for image in capture.images:
        theirs = reconstruction.find_image_with_name(image.path.name)
        assert theirs is not None
        in_cam = capture.sensor_from_world(image).apply(torch.from_numpy(xyz))
        pixels = capture.sensor(image.sensor).camera.project(in_cam)
        np.testing.assert_allclose(in_cam, theirs.cam_from_world() * xyz, atol=1e-12)
        np.testing.assert_allclose(pixels, theirs.camera.img_from_cam(theirs.cam_from_world() * xyz), atol=1e-9)


def test_a_rig_s_sensors_and_frames_are_kept(tmp_path: Path) -> None:
    reconstruction = write_synthetic_rig(tmp_path, "PINHOLE")
    capture = read_capture(tmp_path)
    for number, rig in reconstruction.rigs.items():
        names = [f"camera{s.id}" for s in (rig.ref_sensor_id, *rig.non_ref_sensors)]
        frames = [n for n, f in reconstruction.frames.items() if f.rig_id == number]
        images = [i for i in capture.images if i.sensor in names]
        assert len({i.frame for i in images}) == len(frames) == 4
        torch.testing.assert_close(capture.sensor(names[0]).sensor_from_rig.matrix(), Rigid.identity().matrix())
        for sensor, sensor_from_rig in rig.non_ref_sensors.items():
            assert sensor_from_rig is not None
            ours = capture.sensor(f"camera{sensor.id}").sensor_from_rig.matrix()
            np.testing.assert_allclose(ours[:3], sensor_from_rig.matrix(), atol=1e-15)


def test_points_reproject_where_they_were_seen(tmp_path: Path) -> None:
    """Synthesized without noise: the only error is rounding."""
    reconstruction = write_synthetic_rig(tmp_path, "OPENCV")
    capture = read_capture(tmp_path)
    points = read_points(capture)
    assert points is not None
    assert len(points.image_index) == sum(p.track.length() for p in reconstruction.points3D.values())
    assert len(np.unique(np.stack([points.image_index, points.point_index]), axis=1).T) == len(points.image_index)
    np.testing.assert_allclose(reprojected(capture, points), points.pixel, atol=1e-9)
    few = capture.restricted(sensors=["camera1"])
    seen = read_points(few)
    assert seen is not None
    assert len(seen.xyz) == len(points.xyz)
    np.testing.assert_allclose(reprojected(few, seen), seen.pixel, atol=1e-9)
    in_few = [capture.images[k].sensor == "camera1" for k in points.image_index]
    np.testing.assert_array_equal(seen.pixel, points.pixel[in_few])


def reprojected(capture: Capture, points: SparsePoints) -> np.ndarray:
    pixels = np.empty((len(points.image_index), 2))
    for k, image in enumerate(capture.images):
        here = points.image_index == k
        in_cam = capture.sensor_from_world(image).apply(torch.from_numpy(points.xyz[points.point_index[here]]))
        pixels[here] = capture.sensor(image.sensor).camera.project(in_cam)
    return pixels


def test_a_model_of_before_rigs(tmp_path: Path) -> None:
    """Text files written by hand: one shared camera is one sensor, every image a frame of its own."""
    root = write_photos_with_model(tmp_path / "photos")
    capture = read_capture(root)
    assert (capture.name, capture.layout, capture.points_path) == ("photos", "colmap", root / "sparse" / "0")
    assert [(i.sensor, i.frame) for i in capture.images] == [("camera3", f"view_{i}") for i in range(N_VIEWS)]
    camera = Camera(width=SIZE[0], height=SIZE[1], fx=K[0], fy=K[1], cx=K[2], cy=K[3])
    assert [s.camera for s in capture.sensors] == [camera]
    for i, image in enumerate(capture.images):
        np.testing.assert_allclose(capture.sensor_from_world(image).matrix(), facing(i), atol=1e-15)
    assert capture.left_out == (f"{root / 'images'}: 1 images have no pose in the model: view_{N_VIEWS}.png",)
    points = read_points(capture)
    assert points is not None
    np.testing.assert_array_equal(points.xyz, sparse_points())
    np.testing.assert_array_equal(points.rgb[5], [5, 2, 3])
    np.testing.assert_array_equal(points.error_px, 0.25)
    np.testing.assert_allclose(reprojected(capture, points), points.pixel, atol=1e-12)


@pytest.mark.parametrize("place", ["sparse", ".", "colmap/sparse/0"])
@pytest.mark.parametrize("images", ["images", "."])
def test_the_usual_places(tmp_path: Path, place: str, images: str) -> None:
    root = write_photos_with_model(tmp_path / "photos")
    expected = read_capture(root)
    (root / "sparse" / "0").rename(tmp_path / "model")
    (root / "sparse").rmdir()
    (root / place).mkdir(parents=True, exist_ok=True)
    for folder, target in ((tmp_path / "model", root / place), (root / "images", root / images)):
        for file in list(folder.iterdir()):
            file.rename(target / file.name)
    capture = read_capture(root)
    assert capture.points_path == root / place
    assert [i.path for i in capture.images] == [root / images / i.path.name for i in expected.images]


def test_the_model_s_own_folder_may_be_given(tmp_path: Path) -> None:
    root = write_photos_with_model(tmp_path / "photos")
    images = read_colmap(root / "sparse" / "0").images
    assert [i.path for i in images] == [i.path for i in read_colmap(root).images]


@pytest.mark.parametrize("name", ["{}.png.png", "{}.png"])
def test_masks_in_both_spellings(tmp_path: Path, name: str) -> None:
    root = write_photos_with_model(tmp_path / "photos")
    for i in range(1, N_VIEWS):
        save(root / "masks" / name.format(f"view_{i}"), object_mask(SIZE))
    capture = read_capture(root)
    assert capture.images[0].mask_path is None
    assert any("no mask (NAME.jpg.png or NAME.png) for view_0.png" in line for line in capture.left_out)
    for image in capture.images[1:]:
        np.testing.assert_array_equal(read_mask(capture, image), object_mask(SIZE))


def test_a_second_model_is_said(tmp_path: Path) -> None:
    root = write_photos_with_model(tmp_path / "photos")
    shutil.copytree(root / "sparse" / "0", root / "sparse" / "1")
    assert any("only this model is read; 1 lies beside it" in line for line in read_capture(root).left_out)


@pytest.mark.parametrize(
    ("model", "parameters", "words"),
    [
        ("FULL_OPENCV", [45, 45, 18, 12, 0, 0, 0, 0, 0, 0.1, 0, 0], r"k4 to k6 = \[0\.1, 0\.0, 0\.0\]"),
        ("SIMPLE_RADIAL_FISHEYE", [45, 18, 12, 0.1], "the model SIMPLE_RADIAL_FISHEYE"),
        ("PINHOLE", [45, -45, 18, 12], r"positive.*focal"),
    ],
)
def test_cameras_that_are_none_of_ours(tmp_path: Path, model: str, parameters: list, words: str) -> None:
    root = write_photos_with_model(tmp_path / "photos")
    line = f"3 {model} {SIZE[0]} {SIZE[1]} {' '.join(map(str, parameters))}\n"
    (root / "sparse" / "0" / "cameras.txt").write_text(line, encoding="utf-8")
    with pytest.raises(CalibrationError, match=rf"camera 3.*{words}"):
        read_capture(root)


def bigbird(root: Path) -> Capture:
    capture = read_capture(write_bigbird(root))
    return replace(capture, bounds=((-0.1, -0.1, 0.0), (0.1, 0.1, 0.25)), left_out=("said before",))


def plain(root: Path) -> Capture:
    """No sensor has the rig's own frame."""
    return read_capture(write_plain_folder(root))


def idr(root: Path) -> Capture:
    return read_capture(write_idr(root))


def some_points(capture: Capture) -> SparsePoints:
    """Five points; observations in order of the points, and for one point two in one image."""
    rng = np.random.default_rng(0)
    n_images = len(capture.images)
    index = np.array([0, 0, 1, 2, 2, 2, 4])
    return SparsePoints(
        xyz=rng.normal(size=(5, 3)),
        rgb=rng.integers(0, 255, (5, 3)).astype(np.uint8),
        error_px=np.array([0.5, 1.0, 2.0, np.nan, 0.25]),
        image_index=np.array([n_images - 1, 0, 1, 0, 1, 1, n_images - 1]),
        point_index=index,
        pixel=rng.uniform(0, 30, (7, 2)),
    )


@pytest.mark.parametrize("make", [bigbird, plain, idr])
@pytest.mark.parametrize("where", ["mug/sparse/0", "cache/abc"])
def test_written_and_read_back(tmp_path: Path, make, where: str) -> None:
    """Poses go through quaternions: a few times 1e-16; all else is exact. The same from the root or the model."""
    capture = make(tmp_path / "mug")
    assert write_colmap(capture, tmp_path / where) == tmp_path / where
    again = read_colmap(tmp_path / where)
    assert (again.layout, again.points_path) == ("colmap", None)
    assert_equal_captures(again, capture, atol=1e-14)
    if where.endswith("sparse/0"):
        from_root = read_colmap(capture.root)
        assert from_root.root == capture.root
        assert_equal_captures(from_root, capture, atol=1e-14)
    written_twice = write_colmap(again, tmp_path / "twice")
    for file in ("cameras.bin", "rigs.bin"):
        assert (written_twice / file).stat().st_size == (tmp_path / where / file).stat().st_size


@pytest.mark.parametrize("make", [bigbird, plain, idr])
def test_pycolmap_itself_projects_alike(tmp_path: Path, make) -> None:
    """What another program sees in the model: no sidecar is read here."""
    capture = make(tmp_path / "mug")
    theirs = pycolmap.Reconstruction(str(write_colmap(capture, tmp_path / "model")))
    n_rigs = {"idr": 1}.get(capture.layout, 1)
    assert (theirs.num_rigs(), theirs.num_images(), theirs.num_cameras()) == (
        n_rigs,
        len(capture.images),
        len(capture.sensors),
    )
    for image in capture.images:
        other = theirs.find_image_with_name(image.path.relative_to(capture.root).as_posix())
        assert other is not None
        sensor_from_world = capture.sensor_from_world(image)
        point = sensor_from_world.inverse().apply(torch.tensor([0.1, -0.05, 1.0], dtype=torch.float64))
        pixel = capture.sensor(image.sensor).camera.project(sensor_from_world.apply(point))
        np.testing.assert_allclose(other.project_point(point.numpy()), pixel, atol=1e-9)


def test_points_go_through(tmp_path: Path) -> None:
    capture = plain(tmp_path / "mug")
    points = some_points(capture)
    again = read_colmap(write_colmap(capture, tmp_path / "model", points))
    assert again.points_path == tmp_path / "model"
    back = read_points(again)
    assert back is not None
    for name in ("xyz", "rgb", "error_px", "image_index", "point_index", "pixel"):
        np.testing.assert_array_equal(getattr(back, name), getattr(points, name))


def test_sensors_that_never_meet_are_rigs_of_their_own(tmp_path: Path) -> None:
    capture = idr(tmp_path / "scan")
    wider = replace(capture.sensors[0], name="other", camera=replace(capture.sensors[0].camera, fx=99.0))
    images = tuple(replace(i, sensor="other") if k % 2 else i for k, i in enumerate(capture.images))
    unused = replace(wider, name="unused")
    capture = replace(capture, sensors=(*capture.sensors, unused, wider), images=images)
    folder = write_colmap(capture, tmp_path / "model")
    theirs = pycolmap.Reconstruction(str(folder))
    assert (theirs.num_rigs(), theirs.num_cameras()) == (2, 2)
    assert_equal_captures(read_colmap(folder), capture, atol=1e-14)


def test_an_older_model_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    capture = plain(tmp_path / "mug")
    folder = write_colmap(capture, tmp_path / "model", some_points(capture))
    before = sorted(p.name for p in folder.iterdir())
    unreal = replace(capture, bounds=((0.0, 0.0, 0.0), (1.0, 1.0, float("nan"))))
    with pytest.raises(ValueError, match="JSON"):
        write_colmap(unreal, folder)
    assert_equal_captures(read_colmap(folder), capture)
    write_colmap(capture.restricted(every_nth_stop=2), folder)
    assert len(read_colmap(folder).images) == 2
    assert sorted(p.name for p in folder.iterdir()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "mug"]
    (folder / "notes.txt").touch()
    with pytest.raises(CaptureError, match=r"model: holds notes\.txt.*choose another folder"):
        write_colmap(capture, folder)
    with pytest.raises(CaptureError, match=r"color_0\.png: lies outside of"):
        write_colmap(replace(capture, root=tmp_path / "elsewhere"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def moved(capture: Capture) -> Capture:
    """Other intrinsics, places of sensors and poses of stops, as a calibration would find them."""

    def shifted(transform: Rigid, seed: int) -> Rigid:
        return Rigid.from_matrix(torch.from_numpy(pose(seed))) @ transform

    sensors = tuple(
        replace(
            s,
            camera=replace(s.camera, fx=s.camera.fx * 1.01, distortion=(0.1, 0.02, 0.003, 0.0004, 0.0)),
            sensor_from_rig=shifted(s.sensor_from_rig, 40 + k),
            metres_per_unit=s.metres_per_unit and s.metres_per_unit * 1.01,
        )
        for k, s in enumerate(capture.sensors)
    )
    frames = tuple(replace(f, rig_from_world=shifted(f.rig_from_world, 70 + k)) for k, f in enumerate(capture.frames))
    return replace(capture, sensors=sensors, frames=frames)


@pytest.mark.parametrize("make", [bigbird, plain])
def test_a_cached_calibration_is_applied(tmp_path: Path, make) -> None:
    raw = make(tmp_path / "mug")
    calibrated = replace(moved(raw), is_metric=False, bounds=((0.0, 0.0, 0.0), (1.0, 2.0, 3.0)))
    folder = write_colmap(calibrated, tmp_path / "cache")
    again = calibrated_by(raw, folder)
    assert again.layout == raw.layout
    assert again.root == raw.root
    assert_equal_captures(again, calibrated, atol=1e-14)
    few = calibrated_by(raw.restricted(every_nth_stop=2, downscale=2), folder)
    assert_equal_captures(few, calibrated.restricted(every_nth_stop=2, downscale=2), atol=1e-14)


def test_names_of_the_capture_stay(tmp_path: Path) -> None:
    """A calibration that calls sensors and stops otherwise, in another order, is matched by the images' names."""
    raw = plain(tmp_path / "mug")
    other = moved(raw)
    sensors = tuple(replace(s, name=f"x_{s.name}") for s in reversed(other.sensors))
    frames = tuple(replace(f, name=f"y_{f.name}") for f in reversed(other.frames))
    images = tuple(replace(i, sensor=f"x_{i.sensor}", frame=f"y_{i.frame}") for i in reversed(other.images))
    folder = write_colmap(replace(other, sensors=sensors, frames=frames, images=images), tmp_path / "cache")
    assert_equal_captures(calibrated_by(raw, folder), other, atol=1e-14)


def test_a_foreign_model_without_a_sidecar_is_applied(tmp_path: Path) -> None:
    """Its rig frame is the reference sensor's: the images' poses agree, and the world is of no known unit."""
    raw = plain(tmp_path / "mug")
    other = moved(raw)
    folder = write_colmap(other, tmp_path / "cache")
    (folder / "neuralrecon.json").unlink()
    again = calibrated_by(raw, folder)
    assert (again.is_metric, again.has_table) == (False, False)
    for image in raw.images:
        assert again.sensor(image.sensor).camera == other.sensor(image.sensor).camera
        ours, theirs = again.sensor_from_world(image), other.sensor_from_world(image)
        np.testing.assert_allclose(ours.matrix(), theirs.matrix(), atol=1e-14)


def test_a_calibration_of_something_else_is_refused(tmp_path: Path) -> None:
    raw = plain(tmp_path / "mug")
    with pytest.raises(CalibrationError, match=r"cache.*missing|cache.*truncated|cache.*do not exist"):
        calibrated_by(raw, tmp_path / "cache")
    part = write_colmap(raw.restricted(every_nth_stop=2), tmp_path / "part")
    with pytest.raises(CalibrationError, match=r"part: the model lacks 2 of the capture's 4 images: color_1\.png"):
        calibrated_by(raw, part)
    small = tuple(replace(s, camera=s.camera.resized(10, 8)) for s in raw.sensors)
    resized = write_colmap(replace(raw, sensors=small), tmp_path / "small")
    with pytest.raises(
        CalibrationError, match=r"small: the model's camera for sensor left is 10 x 8 px, the capture's 36"
    ):
        calibrated_by(raw, resized)
    each = tuple(replace(raw.frames[0], name=f"f{k}") for k in range(4))
    split = replace(raw, frames=each, images=tuple(replace(i, frame=f"f{k}") for k, i in enumerate(raw.images)))
    with pytest.raises(CalibrationError, match=r"split: frame 000 of the capture is both .*groups the images"):
        calibrated_by(raw, write_colmap(split, tmp_path / "split"))


def test_a_sidecar_of_another_model_is_refused(tmp_path: Path) -> None:
    raw = plain(tmp_path / "mug")
    whole = write_colmap(raw, tmp_path / "whole")
    part = write_colmap(raw.restricted(every_nth_stop=2), tmp_path / "part")
    shutil.copy(part / "neuralrecon.json", whole)
    with pytest.raises(CalibrationError, match=r"poses 4 images, neuralrecon\.json beside it is for 2"):
        read_colmap(whole)


def test_depth_sensors_stay_depth_sensors(tmp_path: Path) -> None:
    capture = bigbird(tmp_path / "mug")
    again = read_colmap(write_colmap(capture, tmp_path / "model"))
    assert len(again.images_of(SensorKind.depth)) == len(capture.images_of(SensorKind.depth)) > 0


def test_every_length_of_pycolmap_s_files_is_known(tmp_path: Path) -> None:
    """Whole files pass; cut anywhere they are refused before pycolmap, which may take all memory, sees them."""
    write_synthetic_rig(tmp_path, "FULL_OPENCV")
    folder = tmp_path / "sparse" / "0"
    require_whole_model(folder)
    for file in sorted(folder.glob("*.bin")):
        data = file.read_bytes()
        for n_bytes in {*range(0, len(data), max(1, len(data) // 40)), len(data) - 1}:
            file.write_bytes(data[:n_bytes])
            with pytest.raises(CalibrationError, match=rf"{file.name}: is truncated.*copy the file again"):
                require_whole_model(folder)
        file.write_bytes(data)
    require_whole_model(folder)


def test_photographs_are_only_looked_at(tmp_path: Path) -> None:
    """A photograph of another size than its camera names both."""
    root = write_photos_with_model(tmp_path / "photos")
    PILImage.new("RGB", (10, 8)).save(root / "images" / "view_0.png")
    with pytest.raises(CaptureError, match=r"view_0\.png: 10 x 8 px, but sensor camera3 in .*0 is 36 x 24"):
        read_capture(root)
