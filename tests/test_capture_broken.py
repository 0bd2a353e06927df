"""Broken captures: one clear error that names the file, or, where it is allowed, the rest and a list of what is not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pycolmap
import pytest
from PIL import Image as PILImage
from tiny_captures import (
    SIZES,
    STOPS,
    object_mask,
    photograph,
    plain_description,
    pose,
    raw_depth,
    table_from_reference,
    write_arrays,
    write_bigbird,
    write_idr,
    write_plain_folder,
)
from tiny_layouts import N_VIEWS, write_bop_scene, write_middlebury, write_nerfstudio, write_photos_with_model

from neuralrecon.capture import Capture, read_capture, read_color, read_depth, read_mask
from neuralrecon.capture.colmap_folders import image_folder
from neuralrecon.errors import CalibrationError, CaptureError

N_WHOLE = 15 * len(STOPS)


@dataclass(frozen=True)
class Broken:
    """How to break a capture, what must be said, and how many images a partial reading keeps (None: none)."""

    name: str
    do: Callable[[Path], Any]
    error: type[CaptureError]
    file: str
    words: str
    images_left: int | None


def truncate(file: str, share: float = 0.5) -> Callable[[Path], Any]:
    def do(root: Path) -> None:
        data = (root / file).read_bytes()
        (root / file).write_bytes(data[: int(share * len(data))])

    return do


def overwrite(file: str, data: bytes) -> Callable[[Path], Any]:
    return lambda root: (root / file).write_bytes(data)


def remove(pattern: str) -> Callable[[Path], Any]:
    return lambda root: [file.unlink() for file in root.glob(pattern)]


def calibration_key(key: str, change: Callable[[np.ndarray], np.ndarray] | None) -> Callable[[Path], Any]:
    def do(root: Path) -> None:
        with h5py.File(root / "calibration.h5", "r+") as h:
            old = h[key][()]
            del h[key]
            if change:
                h[key] = change(old)

    return do


def pose_file(stop: int, arrays: dict[str, np.ndarray]) -> Callable[[Path], Any]:
    return lambda root: write_arrays(root / "poses" / f"NP5_{stop}_pose.h5", arrays)


def resize_image(pattern: str, size: tuple[int, int]) -> Callable[[Path], Any]:
    return lambda root: [PILImage.fromarray(photograph(size, 1)).save(f) for f in root.glob(pattern)]


def swap_poses(root: Path) -> None:
    a, b = root / "poses/NP5_30_pose.h5", root / "poses/NP5_180_pose.h5"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def rename_stop(root: Path) -> None:
    for file in [*root.glob("N*_180.*"), *root.glob("masks/*_180_mask.pbm")]:
        file.rename(file.with_name(file.name.replace("_180", "_183")))


def corrupt_png_checksum(file: str) -> Callable[[Path], Any]:
    def do(root: Path) -> None:
        data = bytearray((root / file).read_bytes())
        data[data.index(b"IDAT") + 6] ^= 0xFF
        (root / file).write_bytes(data)

    return do


H_KEY = "H_table_from_reference_camera"
RGB, DEPTH = SIZES["N"], SIZES["depth"]
STRETCHED = {H_KEY: np.diag([1.2, 1, 1, 1]) @ table_from_reference(30)}
BIGBIRD = [
    Broken("calibration gone", remove("calibration.h5"), CalibrationError, "calibration.h5", "missing.*restore", None),
    Broken("calibration cut", truncate("calibration.h5"), CalibrationError, "calibration.h5", "truncated.*copy", None),
    Broken(
        "intrinsics gone",
        calibration_key("N3_rgb_K", None),
        CalibrationError,
        "calibration.h5",
        "no key N3_rgb_K.*sensor N3.*restore",
        N_WHOLE - 4,
    ),
    Broken(
        "distortion gone",
        calibration_key("NP1_rgb_d", None),
        CalibrationError,
        "calibration.h5",
        "no key NP1_rgb_d",
        N_WHOLE - 4,
    ),
    Broken(
        "extrinsics gone",
        calibration_key("H_NP4_from_NP5", None),
        CalibrationError,
        "calibration.h5",
        "no key H_NP4_from_NP5",
        N_WHOLE - 4,
    ),
    Broken(
        "depth scale gone",
        calibration_key("NP2_ir_depth_scale", None),
        CalibrationError,
        "calibration.h5",
        "no key NP2_ir_depth_scale, which sensor NP2_depth needs",
        N_WHOLE - 4,
    ),
    Broken(
        "depth scale zero",
        calibration_key("NP2_ir_depth_scale", np.zeros_like),
        CalibrationError,
        "calibration.h5",
        "NP2_ir_depth_scale is 0.*near 1.*calibrate",
        N_WHOLE - 4,
    ),
    Broken(
        "intrinsics transposed",
        calibration_key("N1_rgb_K", np.transpose),
        CalibrationError,
        "calibration.h5",
        "N1_rgb_K.*transposed",
        N_WHOLE - 4,
    ),
    Broken(
        "intrinsics of another shape",
        calibration_key("N1_rgb_K", lambda k: k[:2]),
        CalibrationError,
        "calibration.h5",
        "N1_rgb_K must be 9 finite numbers",
        N_WHOLE - 4,
    ),
    Broken(
        "intrinsics for twice the size",
        calibration_key("NP3_rgb_K", lambda k: k * [[2], [2], [1]]),
        CalibrationError,
        "calibration.h5",
        "NP3_rgb_K.*another size.*original size",
        N_WHOLE - 4,
    ),
    Broken(
        "depth images of ir_K's grid",
        calibration_key("NP1_depth_K", lambda k: k * [[2], [2], [1]]),
        CalibrationError,
        "calibration.h5",
        "NP1_depth_K.*another size",
        N_WHOLE - 4,
    ),
    Broken(
        "focal length negative",
        calibration_key("N2_rgb_K", lambda k: k * [[-1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        CalibrationError,
        "calibration.h5",
        "N2_rgb_K.*positive",
        N_WHOLE - 4,
    ),
    Broken(
        "distortion not finite",
        calibration_key("N2_rgb_d", lambda d: d * np.nan),
        CalibrationError,
        "calibration.h5",
        "N2_rgb_d must be 5 finite",
        N_WHOLE - 4,
    ),
    Broken(
        "extrinsics no rotation",
        calibration_key("H_N5_from_NP5", lambda h: h * 2),
        CalibrationError,
        "calibration.h5",
        "H_N5_from_NP5.*no rotation",
        N_WHOLE - 4,
    ),
    Broken("photograph cut", truncate("N2_90.jpg"), CaptureError, "N2_90.jpg", "truncated.*copy", N_WHOLE - 1),
    Broken("photograph empty", overwrite("N2_90.jpg", b""), CaptureError, "N2_90.jpg", "decoded.*copy", N_WHOLE - 1),
    Broken("photograph is text", overwrite("N2_90.jpg", b"<html>404"), CaptureError, "N2_90.jpg", "copy", N_WHOLE - 1),
    Broken("depth cut", truncate("NP1_30.h5", 0.9), CaptureError, "NP1_30.h5", "truncated.*copy", N_WHOLE - 1),
    Broken("depth is text", overwrite("NP1_30.h5", b"no"), CaptureError, "NP1_30.h5", "decoded.*copy", N_WHOLE - 1),
    Broken(
        "depth under another name",
        lambda root: write_arrays(root / "NP1_30.h5", {"Depth": raw_depth(1, 30)}),
        CaptureError,
        "NP1_30.h5",
        r"no dataset 'depth'; it has \['Depth'\]",
        N_WHOLE - 1,
    ),
    Broken(
        "depth in metres",
        lambda root: write_arrays(root / "NP1_30.h5", {"depth": np.ones(DEPTH[::-1], dtype=np.float32)}),
        CaptureError,
        "NP1_30.h5",
        "float32.*want uint16.*raw integers",
        N_WHOLE - 1,
    ),
    Broken(
        "depth with channels",
        lambda root: write_arrays(root / "NP1_30.h5", {"depth": np.ones((12, 16, 1), dtype=np.uint16)}),
        CaptureError,
        "NP1_30.h5",
        r"\(12, 16, 1\)",
        N_WHOLE - 1,
    ),
    Broken(
        "one depth map of another size",
        lambda root: write_arrays(root / "NP1_30.h5", {"depth": raw_depth(1, 30)[::2, ::2].copy()}),
        CaptureError,
        "NP1_30.h5",
        "8 x 6 px, want 16 x 12",
        N_WHOLE - 1,
    ),
    Broken(
        "one photograph of another size",
        resize_image("N4_30.jpg", (18, 12)),
        CaptureError,
        "N4_30.jpg",
        "18 x 12 px, want 36 x 24.*restore the original",
        N_WHOLE - 1,
    ),
    Broken(
        "a sensor's photographs all halved",
        resize_image("N4_*.jpg", (18, 12)),
        CalibrationError,
        "calibration.h5",
        "N4_rgb_K.*18 x 12 px images: they are of another size",
        N_WHOLE - 4,
    ),
    Broken("no masks", remove("masks/*"), CaptureError, "masks", "no mask named like.*unpack the masks", N_WHOLE),
    Broken(
        "mask cut",
        truncate("masks/NP2_0_mask.pbm", 0.8),
        CaptureError,
        "NP2_0_mask.pbm",
        "mask is truncated.*copy",
        N_WHOLE,
    ),
    Broken(
        "mask of another size",
        lambda root: PILImage.fromarray(object_mask((10, 8))).save(root / "masks/N1_0_mask.pbm"),
        CaptureError,
        "N1_0_mask.pbm",
        "10 x 8 px, its image 36 x 24",
        N_WHOLE,
    ),
    Broken("pose gone", remove("poses/NP5_30_*"), CalibrationError, "NP5_30_pose.h5", "missing.*restore", N_WHOLE - 15),
    Broken("pose cut", truncate("poses/NP5_30_pose.h5"), CalibrationError, "NP5_30_pose.h5", "truncated", N_WHOLE - 15),
    Broken(
        "pose without its key",
        pose_file(30, {"pose": np.eye(4)}),
        CalibrationError,
        "NP5_30_pose.h5",
        f"no key {H_KEY}",
        N_WHOLE - 15,
    ),
    Broken("pose stretched", pose_file(30, STRETCHED), CalibrationError, "NP5_30_pose.h5", "no rotation", N_WHOLE - 15),
    Broken(
        "pose of another shape",
        pose_file(30, {H_KEY: np.eye(3)}),
        CalibrationError,
        "NP5_30_pose.h5",
        "4 x 4",
        N_WHOLE - 15,
    ),
    Broken(
        "poses of two stops swapped",
        swap_poses,
        CalibrationError,
        "NP5_30_pose.h5",
        "turned by 150.0 degrees against its stop angle 30",
        N_WHOLE - 30,
    ),
    Broken("no poses", remove("poses/*"), CalibrationError, "NP5_0_pose.h5", "missing.*restore", None),
    Broken("stops misnamed", rename_stop, CalibrationError, "NP5_183_pose.h5", "missing.*restore", N_WHOLE - 15),
    Broken("no images", remove("N*"), CaptureError, "mug", "no image named like.*unpack", None),
]


def change_matrix(key: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[Path], Any]:
    def do(root: Path) -> None:
        arrays = dict(np.load(root / "cameras_sphere.npz"))
        changed = change(arrays.pop(key))
        np.savez(root / "cameras_sphere.npz", **arrays, **({} if changed is None else {key: changed}))

    return do


NPZ = "cameras_sphere.npz"
IDR = [
    Broken("npz cut", truncate(NPZ), CalibrationError, NPZ, "decoded.*copy", None),
    Broken(
        "npz of objects", lambda root: np.savez(root / NPZ, world_mat_0=np.array([{}])), CalibrationError, NPZ, "", None
    ),
    Broken(
        "no matrices", lambda root: np.savez(root / NPZ, a=np.eye(4)), CalibrationError, NPZ, "no key world_mat_0", None
    ),
    Broken(
        "a matrix missing", change_matrix("world_mat_4", lambda _: None), CaptureError, "image", "5 images.*for 4", 4
    ),
    Broken(
        "a matrix not finite",
        change_matrix("world_mat_2", lambda m: m * np.nan),
        CalibrationError,
        f"{NPZ}: world_mat_2",
        "finite",
        4,
    ),
    Broken("a matrix singular", change_matrix("world_mat_2", np.zeros_like), CalibrationError, NPZ, "singular", 4),
    Broken(
        "a matrix with skew",
        change_matrix("world_mat_2", lambda m: np.eye(4) @ m + 0.2 * np.eye(4)[:, :1] @ m[1:2]),
        CalibrationError,
        f"{NPZ}: world_mat_2",
        "skew",
        4,
    ),
    Broken(
        "images cropped",
        lambda root: [PILImage.fromarray(photograph((36, 8), 1)).save(f) for f in root.glob("image/*")],
        CalibrationError,
        NPZ,
        "36 x 8 px: no fraction.*use the images",
        None,
    ),
    Broken("scale singular", change_matrix("scale_mat_0", np.zeros_like), CalibrationError, NPZ, "scale_mat_0", None),
    Broken("an image missing", remove("image/000003.png"), CaptureError, "image", "4 images.*for 5.*restore", 4),
    Broken("all images missing", remove("image/*"), CaptureError, "image", "0 images.*for 5", None),
    Broken("an image cut", truncate("image/000003.png", 0.7), CaptureError, "000003.png", "truncated.*copy", 4),
    Broken(
        "an image damaged", corrupt_png_checksum("image/000003.png"), CaptureError, "000003.png", "decoded.*copy", 4
    ),
    Broken("masks missing", remove("mask/*"), CaptureError, "mask", "0 images.*for 5", 5),
    Broken(
        "mask of another size",
        lambda root: PILImage.fromarray(object_mask((10, 8))).save(root / "mask/001.png"),
        CaptureError,
        "001.png",
        "10 x 8 px, its image 36 x 24",
        5,
    ),
]

PLAIN_FILES = [
    Broken("json cut", truncate("capture.json"), CaptureError, "capture.json", "decoded.*copy", None),
    Broken("json no object", overwrite("capture.json", b"[1]"), CaptureError, "capture.json", "want an object", None),
    Broken("json not utf-8", overwrite("capture.json", b"\xff\xfe{}"), CaptureError, "capture.json", "decoded", None),
    Broken("json too deep", overwrite("capture.json", b"[" * 100_000), CaptureError, "capture.json", "decoded", None),
    Broken("photograph gone", remove("color_0.png"), CaptureError, "color_0.png", "missing.*restore", 3),
    Broken("mask gone", remove("mask_1.png"), CaptureError, "mask_1.png", "mask is missing", 4),
    Broken("depth cut", truncate("depth_0.png", 0.7), CaptureError, "depth_0.png", "truncated.*copy", 3),
    Broken(
        "depth of 8 bits",
        lambda root: PILImage.fromarray(np.ones(DEPTH[::-1], dtype=np.uint8)).save(root / "depth_0.png"),
        CaptureError,
        "depth_0.png",
        "mode L, want a PNG of 16-bit",
        3,
    ),
    Broken(
        "photograph of another size", resize_image("color_1.png", (10, 8)), CaptureError, "color_1.png", "want|36", 3
    ),
]


def change_json(file: str, *path: str | int, to: Any) -> Callable[[Path], Any]:
    def do(root: Path) -> None:
        values = json.loads((root / file).read_text(encoding="utf-8"))
        set_in(*path, to=to)(values)
        (root / file).write_text(json.dumps(values), encoding="utf-8")

    return do


def change_text(file: str, old: str, new: str) -> Callable[[Path], Any]:
    def do(root: Path) -> None:
        text = (root / file).read_text(encoding="utf-8")
        assert old in text
        (root / file).write_text(text.replace(old, new, 1), encoding="utf-8")

    return do


def as_binary(then: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """The model of text files as binary ones, and then what breaks it."""

    def do(root: Path) -> None:
        pycolmap.Reconstruction(str(root / MODEL)).write_binary(str(root / MODEL))
        for file in (root / MODEL).glob("*.txt"):
            file.unlink()
        then(root)

    return do


TJ = "transforms.json"
N_RGBD = 2 * N_VIEWS
TRANSFORMS = [
    Broken("json cut", truncate(TJ), CaptureError, TJ, "decoded.*copy", None),
    Broken("json no object", overwrite(TJ, b"[]"), CaptureError, TJ, "want an object", None),
    Broken("no frames", change_json(TJ, "frames", to=[]), CaptureError, TJ, "'frames'.*not empty", None),
    Broken(
        "a frame without a pose",
        change_json(TJ, "frames", 1, "transform_matrix", to=KeyError),
        CaptureError,
        TJ,
        r"frames\[1\] has no 'transform_matrix'",
        N_RGBD - 2,
    ),
    Broken(
        "a path out of the folder",
        change_json(TJ, "frames", 0, "file_path", to="../x.png"),
        CaptureError,
        TJ,
        r"frames\[0\] has the path '../x.png', want one relative to and inside of",
        None,
    ),
    Broken("photograph gone", remove("images/frame_2.png"), CaptureError, "frame_2", "missing.*restore", N_RGBD - 2),
    Broken("photograph cut", truncate("images/frame_2.png", 0.7), CaptureError, "frame_2", "truncated", N_RGBD - 2),
    Broken(
        "photograph of another size",
        resize_image("images/frame_2.png", (18, 12)),
        CaptureError,
        "frame_2.png",
        "18 x 12 px, but .*frames\\[2\\] is for 36 x 24",
        N_RGBD - 2,
    ),
    Broken("mask gone", remove("masks/frame_1.png"), CaptureError, "masks/frame_1.png", "mask is missing", N_RGBD),
    Broken("depth gone", remove("depth/frame_1.png"), CaptureError, "depth/frame_1.png", "missing", N_RGBD - 1),
]

SC, GT = "scene_camera.json", "scene_gt.json"
BOP = [
    Broken("cameras cut", truncate(SC), CaptureError, SC, "decoded.*copy", None),
    Broken("poses no objects", overwrite(GT, b'{"3": 1}'), CalibrationError, GT, "image 3 must be a list", None),
    Broken("poses of names", overwrite(GT, b'{"a": []}'), CalibrationError, GT, "keys a, want images' numbers", None),
    Broken("no objects", overwrite(GT, b'{"3": []}'), CalibrationError, GT, "no object None; it has none", None),
    Broken("a camera gone", change_json(SC, "4", to=KeyError), CaptureError, SC, "4 is None, want an", N_RGBD - 2),
    Broken(
        "a camera with skew",
        change_json(SC, "4", "cam_K", 1, to=3.0),
        CalibrationError,
        f"{SC}: 4",
        "skew.*rectify",
        N_RGBD - 2,
    ),
    Broken(
        "depth scale gone",
        change_json(SC, "4", "depth_scale", to=KeyError),
        CalibrationError,
        f"{SC}: 4",
        "depth_scale is None",
        N_RGBD - 2,
    ),
    Broken(
        "a pose stretched",
        change_json(GT, "5", 0, "cam_R_m2c", to=[2, 0, 0, 0, 2, 0, 0, 0, 2]),
        CalibrationError,
        f"{GT}: image 5, object 0",
        "no rotation",
        N_RGBD - 2,
    ),
    Broken("photograph gone", remove("rgb/000003.png"), CaptureError, "rgb/000003", "missing.*restore", N_RGBD - 2),
    Broken("depth cut", truncate("depth/000003.png"), CaptureError, "depth/000003.png", "truncated", N_RGBD - 1),
]

PAR = "dino_par.txt"
MIDDLEBURY = [
    Broken("parameters cut", truncate(PAR), CalibrationError, PAR, "says '4' images, . lines follow", None),
    Broken("parameters empty", overwrite(PAR, b""), CalibrationError, PAR, "says '' images, 0 lines", None),
    Broken("parameters no text", overwrite(PAR, b"\xff\xfe\n"), CaptureError, PAR, "decoded.*copy", None),
    Broken("a name twice", change_text(PAR, "dino0001", "dino0000"), CalibrationError, PAR, "more than one line", None),
    Broken(
        "a word", change_text(PAR, "dino0001.png 45", "dino0001.png x45"), CalibrationError, f"{PAR}: line 3", "x45", 3
    ),
    Broken(
        "a number gone", change_text(PAR, "dino0001.png 45", "dino0001.png"), CalibrationError, PAR, "20 numbers", 3
    ),
    Broken(
        "a matrix stretched",
        change_text(PAR, " 1 0", " 1 9"),
        CalibrationError,
        f"{PAR}: line 2",
        "no rotation",
        3,
    ),
    Broken("an image gone", remove("dino0002.png"), CaptureError, "dino0002.png", "missing.*restore", 3),
]

MODEL = "sparse/0"
COLMAP = [
    Broken("cameras cut", truncate(f"{MODEL}/cameras.txt", 0.6), CalibrationError, MODEL, "truncated or", None),
    Broken("images cut", truncate(f"{MODEL}/images.txt"), CalibrationError, MODEL, "truncated or", None),
    Broken("points gone", remove(f"{MODEL}/points3D.txt"), CalibrationError, MODEL, "do not exist", None),
    Broken(
        "a camera of another model",
        change_text(f"{MODEL}/cameras.txt", f"PINHOLE {RGB[0]} {RGB[1]}", f"OPENCV_FISHEYE {RGB[0]} {RGB[1]} 0 0 0 0"),
        CalibrationError,
        f"{MODEL}: camera 3",
        "the model OPENCV_FISHEYE, want one of.*undistort",
        None,
    ),
    Broken(
        "an image outside",
        change_text(f"{MODEL}/images.txt", "view_2.png", "../view_2.png"),
        CalibrationError,
        MODEL,
        "names the image '../view_2.png', want a path inside",
        None,
    ),
    Broken("photograph gone", remove("images/view_1.png"), CaptureError, "view_1.png", "missing.*restore", 3),
    Broken("photograph cut", truncate("images/view_1.png", 0.7), CaptureError, "view_1.png", "truncated", 3),
    Broken(
        "photograph of another size",
        resize_image("images/view_1.png", (18, 12)),
        CaptureError,
        "view_1.png",
        "18 x 12 px, but sensor camera3 in .* is 36 x 24",
        3,
    ),
    Broken("all photographs gone", remove("images/*"), CaptureError, MODEL, "none of its images.*restore", None),
    *(
        Broken(
            f"{name} cut at {share}",
            as_binary(truncate(f"{MODEL}/{name}.bin", share)),
            CalibrationError,
            MODEL,
            "",
            None,
        )
        for name in ("cameras", "images", "points3D", "rigs", "frames")
        for share in (0, 0.5, 0.95)
    ),
]


def check(root: Path, broken: Broken) -> None:
    broken.do(root)
    with pytest.raises(CaptureError) as caught:
        read_capture(root)
    message = str(caught.value)
    assert type(caught.value) is broken.error
    assert broken.file in message
    assert re.search(broken.words, message, re.DOTALL)
    if broken.images_left is None:
        with pytest.raises(CaptureError):
            read_capture(root, allow_partial=True)
        return
    assert "allow_partial=True" in message
    capture = read_capture(root, allow_partial=True)
    assert len(capture.images) == broken.images_left
    assert any(broken.file in line for line in capture.left_out)
    assert not any("allow_partial" in line for line in capture.left_out)


def named(cases: list[Broken]) -> Any:
    return pytest.mark.parametrize("broken", cases, ids=[c.name.replace(" ", "-") for c in cases])


@named(BIGBIRD)
def test_broken_bigbird(tmp_path: Path, broken: Broken) -> None:
    check(write_bigbird(tmp_path / "mug"), broken)


@named(IDR)
def test_broken_idr(tmp_path: Path, broken: Broken) -> None:
    check(write_idr(tmp_path / "scan"), broken)


@named(PLAIN_FILES)
def test_broken_plain(tmp_path: Path, broken: Broken) -> None:
    check(write_plain_folder(tmp_path / "folder"), broken)


@named(TRANSFORMS)
def test_broken_transforms(tmp_path: Path, broken: Broken) -> None:
    check(write_nerfstudio(tmp_path / "mug"), broken)


@named(BOP)
def test_broken_bop(tmp_path: Path, broken: Broken) -> None:
    check(write_bop_scene(tmp_path / "scene"), broken)


@named(MIDDLEBURY)
def test_broken_middlebury(tmp_path: Path, broken: Broken) -> None:
    check(write_middlebury(tmp_path / "dino"), broken)


@named(COLMAP)
def test_broken_colmap(tmp_path: Path, broken: Broken) -> None:
    check(write_photos_with_model(tmp_path / "photos"), broken)


def set_in(*path: str | int, to: Any) -> Callable[[dict], None]:
    def change(description: dict) -> None:
        place: Any = description
        for key in path[:-1]:
            place = place[key]
        if to is KeyError:
            del place[path[-1]]
        else:
            place[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_in("version", to=2), "version 2.*reads version 1"),
        (set_in("version", to=True), "'version' = True, want a whole number"),
        (set_in("name", to=KeyError), "the file has no 'name'"),
        (set_in("name", to=""), "'name' = ''.*not empty"),
        (set_in("has_tabel", to=True), "unknown key 'has_tabel'; did you mean 'has_table'"),
        (set_in("sensors", to=[]), "'sensors'.*list that is not empty"),
        (set_in("sensors", 0, to=3), r"sensors\[0\] is 3, want an object"),
        (set_in("sensors", 0, "kind", to="lidar"), r"sensors\[0\].*'lidar', want color or depth"),
        (set_in("sensors", 0, "width", to=36.5), r"sensors\[0\] has 'width' = 36.5, want a whole number"),
        (set_in("sensors", 0, "K", to=[1, 2, 3]), r"sensors\[0\] has 'K'.*4 finite numbers"),
        (set_in("sensors", 0, "K", to=[0, 41, 18, 12]), r"sensors\[0\].*focal length"),
        (set_in("sensors", 0, "distortion", to=[1e999] * 5), r"sensors\[0\] has 'distortion'.*5 finite"),
        (set_in("sensors", 0, "metres_per_unit", to=0.001), r"sensors\[0\] \(color\) has 'metres_per_unit'"),
        (set_in("sensors", 1, "metres_per_unit", to=KeyError), r"sensors\[1\] \(depth\) has 'metres_per_unit' = None"),
        (set_in("sensors", 1, "metres_per_unit", to=-1), r"sensors\[1\] \(depth\).*positive"),
        (set_in("sensors", 1, "name", to="left"), "sensors has more than one entry for left"),
        (set_in("sensors", 1, "sensor_from_rig", to=(2 * pose(1)).tolist()), r"sensors\[1\], sensor_from.*no rotation"),
        (set_in("frames", 0, "rig_from_world", 2, to=[0, 0, 1]), r"frames\[0\] has 'rig_from_world'.*4 x 4"),
        (set_in("frames", 1, "angle_deg", to="30"), r"frames\[1\] has 'angle_deg' = '30', want a finite number"),
        (set_in("images", 0, "sensor", to="right"), r"images\[0\] has 'sensor' = 'right', .*none of the sensors"),
        (set_in("images", 0, "frame", to="7"), r"images\[0\] has 'frame' = '7'"),
        (set_in("images", 1, "frame", to="000"), "images has more than one entry for left at 000"),
        (set_in("images", 0, "path", to="/etc/passwd"), r"images\[0\] has the path '/etc/passwd'.*inside of"),
        (set_in("images", 0, "path", to="a/../../b.png"), r"images\[0\] has the path.*relative to and inside of"),
        (set_in("images", 0, "mask", to="outside/b.png"), r"images\[0\] has the path 'outside/b.png'"),
        (set_in("images", 0, "maks", to="b.png"), r"images\[0\] has the unknown key 'maks'; did you mean 'mask'"),
        (set_in("images", 0, "object_is_black", to=1), r"images\[0\] has 'object_is_black' = 1, want true or false"),
        (set_in("bounds", to=[[0, 0, 0]]), "bounds.*has no 'high'"),
        (set_in("bounds", 1, 2, to=-1), "bounds.*want low below high"),
        (set_in("bounds", to=None), "bounds.*has no 'low'"),
        (set_in("left_out", to="x"), "'left_out' = 'x', want a list of texts"),
    ],
)
@pytest.mark.parametrize("allow_partial", [False, True])
def test_wrong_descriptions_always_raise(tmp_path: Path, change, words: str, allow_partial: bool) -> None:
    root = write_plain_folder(tmp_path / "folder")
    (root / "outside").symlink_to(tmp_path)
    description = plain_description()
    change(description)
    (root / "capture.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(CaptureError, match=words) as caught:
        read_capture(root, allow_partial=allow_partial)
    assert "capture.json" in str(caught.value)


def test_depth_of_everything_alone_tells_so(tmp_path: Path) -> None:
    root = write_plain_folder(tmp_path / "folder")
    description = plain_description()
    description["images"] = description["images"][2:]
    (root / "capture.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(CaptureError, match=r"capture\.json: no image is a photograph and.*add masked photographs"):
        read_capture(root)
    assert any("no image is a photograph" in line for line in read_capture(root, allow_partial=True).left_out)


@pytest.fixture
def whole(tmp_path: Path) -> Capture:
    return read_capture(write_bigbird(tmp_path / "mug"))


def test_pixels_damaged_after_reading_are_told(whole: Capture) -> None:
    color = next(i for i in whole.images if i.sensor == "N1")
    data = color.path.read_bytes()
    color.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CaptureError, match=r"N1_0\.jpg: photograph is truncated.*copy"):
        read_color(whole, color)
    color.path.unlink()
    with pytest.raises(CaptureError, match=r"N1_0\.jpg: photograph is missing"):
        read_color(whole, color)


def test_a_replaced_photograph_of_another_size_is_told(whole: Capture) -> None:
    color = next(i for i in whole.images if i.sensor == "N1")
    PILImage.fromarray(photograph((50, 24), 1)).save(color.path)
    with pytest.raises(CaptureError, match=r"N1_0\.jpg: 50 x 24 px, want 36 x 24 as sensor N1"):
        read_color(whole, color)


def test_damaged_depth_is_told(whole: Capture) -> None:
    depth = next(i for i in whole.images if i.sensor == "NP1_depth")
    with h5py.File(depth.path, "w") as h:
        h.create_dataset("depth", data=raw_depth(1, 0), chunks=DEPTH[::-1], compression="gzip")
        offset = h["depth"].id.get_chunk_info(0).byte_offset
    data = bytearray(depth.path.read_bytes())
    data[offset : offset + 20] = bytes(20)
    depth.path.write_bytes(data)
    with pytest.raises(CaptureError, match=r"NP1_0\.h5: depth file.*copy"):
        read_depth(whole, depth)
    color = next(i for i in whole.images if i.sensor == "N1")
    with pytest.raises(CaptureError, match=r"N1_0\.jpg.*no depth sensor"):
        read_depth(whole, color)


@pytest.mark.parametrize(("value", "says"), [(True, "no pixel is object"), (False, "every pixel is object")])
def test_a_mask_that_tells_nothing_is_told(whole: Capture, value: bool, says: str) -> None:
    color = next(i for i in whole.images if i.sensor == "N1")
    assert color.mask_path is not None
    PILImage.fromarray(np.full(RGB[::-1], value)).save(color.mask_path)
    with pytest.raises(CaptureError, match=rf"N1_0_mask\.pbm: {says} \(object = black.*check the polarity"):
        read_mask(whole, color)
    PILImage.fromarray(object_mask((10, 8))).save(color.mask_path)
    with pytest.raises(CaptureError, match=r"N1_0_mask\.pbm: 10 x 8 px, want 36 x 24"):
        read_mask(whole, color)


def test_a_decompression_bomb_is_refused_unread(whole: Capture) -> None:
    color = next(i for i in whole.images if i.sensor == "N1")
    bomb = color.path.with_suffix(".pbm")
    bomb.write_bytes(b"P4\n100000 100000\n\0")
    with pytest.raises(CaptureError, match=r"N1_0\.pbm: photograph says that it has more than 10\^8 px, want at most"):
        read_color(whole, replace(color, path=bomb))
    with h5py.File(whole.root / "NP1_0.h5", "w") as h:
        h.create_dataset("depth", shape=(100_000, 100_000), dtype=np.uint16, chunks=(1000, 1000))
    with pytest.raises(CaptureError, match=r"NP1_0\.h5.*want 1 to"):
        read_capture(whole.root)


def test_an_image_with_a_name_too_long_for_any_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"none of its images \(9999"):
        image_folder(tmp_path, tmp_path / "sparse", ["9" * 300])
