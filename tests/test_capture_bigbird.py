"""The BigBIRD layout read back: every pose, intrinsic, pixel and depth value that was written."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from tiny_captures import (
    DEPTH_SCALE,
    DISTORTION,
    SIZES,
    STOPS,
    calibration,
    intrinsics,
    object_mask,
    photograph,
    pose,
    raw_depth,
    table_from_reference,
    write_arrays,
    write_bigbird,
)

from neuralrecon.capture import (
    Capture,
    Image,
    SensorKind,
    camera_of,
    read_bigbird,
    read_capture,
    read_color,
    read_depth,
    read_mask,
)
from neuralrecon.errors import CaptureError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_bigbird(tmp_path / "mug")


def image_of(capture: Capture, sensor: str, stop: int) -> Image:
    return next(i for i in capture.images if i.sensor == sensor and i.frame == str(stop))


def test_a_whole_capture_lacks_nothing(root: Path) -> None:
    capture = read_capture(root)
    assert (capture.name, capture.layout, capture.left_out) == ("mug", "bigbird", ())
    assert capture.has_table
    assert capture.is_metric
    assert capture.bounds is None
    wanted = {f"{kind}{i}{tail}" for i in range(1, 6) for kind, tail in (("N", ""), ("NP", ""), ("NP", "_depth"))}
    assert {s.name for s in capture.sensors} == wanted
    assert [(f.name, f.angle_deg) for f in capture.frames] == [(str(a), float(a)) for a in STOPS]
    assert len(capture.images) == 15 * len(STOPS)
    assert len(capture.images_of(SensorKind.depth)) == 5 * len(STOPS)


def test_intrinsics_are_those_of_the_file(root: Path) -> None:
    capture = read_capture(root)
    for i in range(1, 6):
        for name, kind, distortion in ((f"N{i}", "N", DISTORTION * i), (f"NP{i}_depth", "depth", np.zeros(5))):
            camera = capture.sensor(name).camera
            assert (camera.width, camera.height) == SIZES[kind]
            np.testing.assert_array_equal(camera.distortion, distortion)
            np.testing.assert_allclose(camera.opencv_matrix(), intrinsics(SIZES[kind], i), atol=1e-12)


def test_a_table_point_goes_where_the_formats_own_formula_says(root: Path) -> None:
    """cam_from_table(a) = H_cam_from_NP5 @ inv(H_table_from_reference_camera(a))."""
    capture = read_capture(root)
    point = np.array([0.03, -0.02, 0.1, 1.0])
    for stop in STOPS:
        for name, h_cam in (("N2", pose(2)), ("NP3", pose(13)), ("NP5", np.eye(4)), ("NP4_depth", pose(24))):
            wanted = h_cam @ np.linalg.inv(table_from_reference(stop)) @ point
            sensor_from_world = capture.sensor_from_world(image_of(capture, name, stop))
            np.testing.assert_allclose(sensor_from_world.apply(torch.from_numpy(point[:3])), wanted[:3], atol=1e-12)


def test_depth_is_scaled_to_metres_and_zero_stays_missing(root: Path) -> None:
    capture = read_capture(root)
    depth = read_depth(capture, image_of(capture, "NP3_depth", 30))
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, raw_depth(3, 30) * 1e-4 * DEPTH_SCALE, rtol=3e-7)
    assert (depth[:2] == 0).all()


def test_masks_are_true_where_the_file_is_black(root: Path) -> None:
    capture = read_capture(root)
    np.testing.assert_array_equal(read_mask(capture, image_of(capture, "N1", 90)), object_mask(SIZES["N"]))
    # The bits as FORMAT has them: object is 1 in the file.
    data = (root / "masks" / "N1_90_mask.pbm").read_bytes()
    width, height = SIZES["N"]
    rows = np.frombuffer(data[-height * ((width + 7) // 8) :], dtype=np.uint8).reshape(height, -1)
    np.testing.assert_array_equal(np.unpackbits(rows, axis=1)[:, :width], object_mask(SIZES["N"]))


def test_photographs_are_the_files_pixels(root: Path) -> None:
    capture = read_capture(root)
    rgb = read_color(capture, image_of(capture, "NP2", 0))
    assert (rgb.dtype, rgb.shape) == (np.uint8, (*SIZES["NP"][::-1], 3))
    np.testing.assert_array_equal(rgb, np.asarray(PILImage.open(root / "NP2_0.jpg").convert("RGB")))


@pytest.mark.parametrize("downscale", [2, 3, 4, 5, 8])
def test_smaller_photographs_are_area_averages_seen_by_their_own_camera(root: Path, downscale: int) -> None:
    capture = read_capture(root).restricted(downscale=downscale)
    image = image_of(capture, "N2", 0)
    full = np.asarray(PILImage.open(image.path).convert("RGB")).astype(np.float64)
    width, height = SIZES["N"][0] // downscale, SIZES["N"][1] // downscale
    blocks = full[: height * downscale, : width * downscale].reshape(height, downscale, width, downscale, 3)
    rgb = read_color(capture, image)
    assert rgb.shape == (height, width, 3)
    off = rgb - blocks.mean(axis=(1, 3))
    # The decoder's own reduction keeps low frequencies instead of averaging, and rounds once per channel of YCbCr:
    # noise, but no shift. Half a pixel of shift would be 2.8 levels on this ramp, everywhere.
    assert np.sqrt((off**2).mean()) < 1.5
    assert np.abs(off.mean(axis=(0, 1))).max() < 0.7
    camera, whole = camera_of(capture, image), capture.sensor("N2").camera
    assert (camera.width, camera.height) == (width, height)
    point = torch.tensor([0.1, 0.05, 0.9], dtype=torch.float64)
    np.testing.assert_allclose(camera.project(point) * downscale, whole.project(point), atol=1e-10)


def test_smaller_masks_follow_the_majority_and_depth_keeps_its_size(root: Path) -> None:
    capture = read_capture(root).restricted(downscale=2)
    mask = read_mask(capture, image_of(capture, "N1", 0))
    width, height = SIZES["N"]
    share = object_mask(SIZES["N"]).reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(mask, share >= 0.5)
    depth = image_of(capture, "NP1_depth", 0)
    assert read_depth(capture, depth).shape == SIZES["depth"][::-1]
    assert camera_of(capture, depth) == capture.sensor("NP1_depth").camera


def test_a_downscale_to_nothing_is_told(root: Path) -> None:
    capture = read_capture(root).restricted(downscale=100)
    with pytest.raises(CaptureError, match=r"N1_0\.jpg.*choose a smaller downscale"):
        read_color(capture, image_of(capture, "N1", 0))


def test_junk_of_archives_and_strangers_are_ignored(root: Path) -> None:
    for name in ("._N1_0.jpg", "._calibration.h5", "N6_0.jpg", "N1_0.h5", "notes.txt", "N1_0.jpg.bak", ".DS_Store"):
        (root / name).write_bytes(b"\0\5\26\7")
    (root / "masks" / "._N1_0_mask.pbm").write_bytes(b"\0")
    (root / "poses" / "._NP5_0_pose.h5").write_bytes(b"\0")
    write_arrays(root / "poses" / "turntable.h5", {"center": np.zeros(3), "normal": np.ones(3)})
    assert read_capture(root).left_out == ()


def test_a_jpeg_with_bytes_after_its_end_is_whole(root: Path) -> None:
    for n, stop in ((100, 0), (20_000, 30)):
        with (root / f"N1_{stop}.jpg").open("ab") as file:
            file.write(b"\0" * n)
    assert read_capture(root).left_out == ()


def test_absent_sensors_stops_and_masks_are_accepted_and_said(tmp_path: Path) -> None:
    root = write_bigbird(tmp_path / "part", bodies=(1, 2, 5))
    (root / "N1_30.jpg").unlink()
    (root / "masks" / "N2_90_mask.pbm").unlink()
    for stop in STOPS:
        (root / f"NP2_{stop}.h5").unlink()
        (root / f"NP5_{stop}.jpg").unlink()
    capture = read_capture(root)
    said = " | ".join(capture.left_out)
    assert {s.name for s in capture.sensors} == {"N1", "N2", "N5", "NP1", "NP2", "NP1_depth", "NP5_depth"}
    assert "no images of 8 of 15 sensors: N3, N4, NP3, NP4, NP5, NP2_depth, NP3_depth, NP4_depth" in said
    assert "N1: no image at 1 of 4 stops: 30" in said
    assert "N2: 1 of 4 images have no mask: stops 90" in said
    assert "masks without a usable image: N1_30_mask.pbm, NP5_0_mask.pbm" in said
    assert len(capture.left_out) == 4
    assert image_of(capture, "N2", 90).mask_path is None
    with pytest.raises(CaptureError, match=r"N2_90\.jpg.*no mask"):
        read_mask(capture, image_of(capture, "N2", 90))


def test_poses_without_images_are_said(root: Path) -> None:
    for file in root.glob("N*_180.*"):
        file.unlink()
    capture = read_capture(root)
    assert [f.name for f in capture.frames] == ["0", "30", "90"]
    assert any("1 stops have a pose but no usable image: 180" in line for line in capture.left_out)


def test_one_stop_and_fractional_angles_are_fine(tmp_path: Path) -> None:
    root = write_bigbird(tmp_path / "one", stops=(0,))
    for stop in ("22.5",):
        for file in [*root.glob("N*_0.*"), *root.glob("masks/*_0_mask.pbm")]:
            shutil.copy(file, file.with_name(file.name.replace("_0", f"_{stop}")))
        write_arrays(
            root / "poses" / f"NP5_{stop}_pose.h5", {"H_table_from_reference_camera": table_from_reference(22.5)}
        )
    assert [f.angle_deg for f in read_capture(root).frames] == [0.0, 22.5]


def test_a_turntable_that_turns_the_other_way_is_fine(root: Path) -> None:
    for stop in STOPS:
        write_arrays(
            root / "poses" / f"NP5_{stop}_pose.h5", {"H_table_from_reference_camera": table_from_reference(-stop)}
        )
    assert len(read_capture(root).frames) == len(STOPS)


def test_a_slightly_wrong_stop_angle_is_left_to_calibration(root: Path) -> None:
    write_arrays(root / "poses" / "NP5_90_pose.h5", {"H_table_from_reference_camera": table_from_reference(91.0)})
    assert len(read_capture(root).frames) == len(STOPS)


def test_restricting_keeps_evidence_fields(root: Path) -> None:
    capture = read_capture(root).restricted(sensors=["N1", "NP1_depth"], every_nth_stop=2)
    assert [f.name for f in capture.frames] == ["0", "90"]
    assert len(capture.images) == 4
    with pytest.raises(CaptureError, match="no sensor N9"):
        read_capture(root).restricted(sensors=["N9"])


def test_looking_at_1800_files_takes_seconds(tmp_path: Path) -> None:
    """The size of a full capture, by links to a few files: what is timed is the reader's work per file."""
    few = write_bigbird(tmp_path / "few", stops=(0,))
    root = tmp_path / "full"
    (root / "masks").mkdir(parents=True)
    (root / "poses").mkdir()
    write_arrays(root / "calibration.h5", calibration())
    for stop in range(0, 360, 3):
        write_arrays(
            root / "poses" / f"NP5_{stop}_pose.h5", {"H_table_from_reference_camera": table_from_reference(stop)}
        )
        for file in [*few.glob("N*_0.*"), *few.glob("masks/*.pbm")]:
            (root / file.relative_to(few).with_name(file.name.replace("_0", f"_{stop}"))).symlink_to(file)
    start = time.perf_counter()
    capture = read_bigbird(root)
    assert len(capture.images) == 1800
    # The test takes 1.2 s on one core. The bound catches decoding (minutes at full size), not a slow disk.
    assert time.perf_counter() - start < 15


def test_depth_chunked_and_compressed_reads_alike(root: Path) -> None:
    file = root / "NP1_0.h5"
    file.unlink()
    with h5py.File(file, "w") as h:
        h.create_dataset("depth", data=raw_depth(1, 0), chunks=(4, 4), compression="gzip")
    capture = read_capture(root)
    np.testing.assert_allclose(
        read_depth(capture, image_of(capture, "NP1_depth", 0)), raw_depth(1, 0) * 1e-4 * DEPTH_SCALE, rtol=3e-7
    )


def test_the_fixtures_photographs_are_ramps() -> None:
    assert photograph((4, 2), 1).tolist() == [
        [[0, 0, 20], [50, 0, 20], [100, 0, 20], [150, 0, 20]],
        [[0, 100, 20], [50, 100, 20], [100, 100, 20], [150, 100, 20]],
    ]
