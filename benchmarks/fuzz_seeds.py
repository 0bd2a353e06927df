"""Small valid captures in every layout, and pictures in every encoding, for the fuzzer to break: a few pixels each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch
import trimesh
from PIL import Image as PILImage

from neuralrecon.capture import (
    Capture,
    Frame,
    Image,
    Sensor,
    SensorKind,
    SparsePoints,
    write_bop,
    write_idr,
    write_plain,
    write_transforms,
)
from neuralrecon.capture.colmap import write_colmap
from neuralrecon.geometry import Camera, Rigid

SIZE = (16, 12)
CAMERA = Camera(width=16, height=12, fx=20.0, fy=20.5, cx=8.0, cy=6.0)
POINTS = SparsePoints(
    xyz=np.array([[0.0, 0.0, 0.1], [0.01, 0.0, 0.1]]),
    rgb=np.full((2, 3), 9, np.uint8),
    error_px=np.ones(2),
    image_index=np.array([0, 1, 0, 2]),
    point_index=np.array([0, 0, 1, 1]),
    pixel=np.array([[5.0, 5.0], [6.0, 5.0], [7.0, 5.0], [8.0, 5.0]]),
)
_N_VIEWS = 3


def pixels(seed: int = 0) -> np.ndarray:
    """A photograph of noise."""
    return np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3)).astype(np.uint8)


def _mask() -> np.ndarray:
    mask = np.zeros(SIZE[::-1], dtype=bool)
    mask[3:9, 4:12] = True
    return mask


def _depth(view: int = 0) -> np.ndarray:
    return (7000 + view + np.arange(SIZE[0] * SIZE[1]).reshape(SIZE[::-1])).astype(np.uint16)


def _pose(view: int) -> Rigid:
    turned = Rigid.about_axis("z", 30.0 * view) @ Rigid.about_axis("x", 100.0)
    return Rigid(rotation=turned.rotation, translation=torch.tensor([0.01, 0.02, 0.7], dtype=torch.float64))


def _image(file: Path, pixels: np.ndarray, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(pixels).save(file, **options)
    return file


def capture_in(root: Path, *, depth: bool = True, camera: Camera = CAMERA) -> Capture:
    """A capture of three stops with its files below `root`; depth is aligned with the photographs."""
    images = []
    for view in range(_N_VIEWS):
        color = _image(root / f"images/{view}.png", pixels(view))
        mask = _image(root / f"masks/{view}.png", _mask())
        images.append(Image(sensor="left", frame=str(view), path=color, mask_path=mask))
        if depth:
            file = _image(root / f"depth/{view}.png", _depth(view))
            images.append(Image(sensor="tof", frame=str(view), path=file))
    common = {"camera": camera, "sensor_from_rig": Rigid.identity()}
    sensors = [Sensor(name="left", kind=SensorKind.color, **common)]
    if depth:
        sensors.append(Sensor(name="tof", kind=SensorKind.depth, metres_per_unit=1e-4, **common))
    return Capture(
        name="mug",
        root=root,
        layout="plain",
        sensors=tuple(sensors),
        frames=tuple(
            Frame(name=str(view), rig_from_world=_pose(view), angle_deg=30.0 * view) for view in range(_N_VIEWS)
        ),
        images=tuple(images),
        bounds=((-0.1, -0.1, 0.0), (0.1, 0.1, 0.2)),
    )


def write_plain_folder(root: Path) -> None:
    """Also with points."""
    ply = root / "points.ply"
    root.mkdir(parents=True, exist_ok=True)
    trimesh.PointCloud(np.eye(3), colors=np.full((3, 4), 99, np.uint8)).export(ply)
    write_plain(replace(capture_in(root), points_path=ply), root)


def write_transforms_folder(root: Path) -> None:
    """`transforms.json` with masks and depth."""
    write_transforms(capture_in(root), root)


def write_bop_folder(root: Path) -> None:
    """A scene of one object."""
    write_bop(capture_in(root / "source"), root)
    _remove(root / "source")


def write_idr_folder(root: Path) -> None:
    """Camera matrices in an .npz."""
    write_idr(capture_in(root / "source", depth=False), root)
    _remove(root / "source")


def write_middlebury_folder(root: Path) -> None:
    """A text file of cameras."""
    lines = [str(_N_VIEWS)]
    for view in range(_N_VIEWS):
        _image(root / f"dino{view}.png", pixels(view))
        numbers = [*CAMERA.opencv_matrix().flatten().tolist(), *_pose(view).rotation.flatten().tolist(), 0.1, 0.2, 0.7]
        lines.append(" ".join([f"dino{view}.png", *map(repr, numbers)]))
    (root / "dino_par.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_bigbird_folder(root: Path) -> None:
    """Two bodies, two stops."""
    arrays = {"NP5_rgb_K": np.eye(3)}
    matrix = CAMERA.opencv_matrix().numpy()
    for body in ("N1", "NP1"):
        arrays |= {f"{body}_rgb_K": matrix, f"{body}_rgb_d": np.zeros(5), f"H_{body}_from_NP5": np.eye(4)}
    arrays |= {"NP1_depth_K": matrix, "NP1_ir_depth_scale": np.ones(1), "H_NP1_ir_from_NP5": np.eye(4)}
    _hdf5(root / "calibration.h5", arrays)
    for stop in (0, 3):
        pose = Rigid.about_axis("z", stop).matrix().numpy()
        _hdf5(root / f"poses/NP5_{stop}_pose.h5", {"H_table_from_reference_camera": pose})
        _hdf5(root / f"NP1_{stop}.h5", {"depth": _depth()}, compression="gzip" if stop else None)
        for body in ("N1", "NP1"):
            _image(root / f"{body}_{stop}.jpg", pixels(), progressive=bool(stop))
            _image(root / f"masks/{body}_{stop}_mask.pbm", ~_mask())


def _hdf5(file: Path, arrays: dict[str, np.ndarray], compression: str | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as opened:
        for key, values in arrays.items():
            opened.create_dataset(key, data=values, compression=compression)


def write_colmap_binary(root: Path) -> None:
    """A model as COLMAP itself leaves it, with rigs."""
    _write_model(root)
    (root / "sparse/0/neuralrecon.json").unlink()


def write_colmap_text(root: Path) -> None:
    """The same as text."""
    import pycolmap  # takes a while to load

    write_colmap_binary(root)
    folder = root / "sparse/0"
    pycolmap.Reconstruction(str(folder)).write_text(str(folder))
    for file in folder.glob("*.bin"):
        file.unlink()


def write_colmap_with_names(root: Path) -> None:
    """A model that the package wrote, with its file of names beside it."""
    _write_model(root)


def _write_model(root: Path) -> None:
    capture = capture_in(root, depth=False, camera=replace(CAMERA, distortion=(0.01, 0.0, 0.0, 0.0, 0.0)))
    write_colmap(capture, root / "sparse/0", POINTS)


def write_pictures(root: Path) -> None:
    """Photographs, masks and depth of every encoding, all of one size."""
    color, mask, depth = pixels(), _mask(), _depth()
    _image(root / "color_baseline.jpg", color)
    _image(root / "color_progressive.jpg", color, progressive=True, exif=_exif())
    _image(root / "color_grey.jpg", color[..., 0])
    PILImage.fromarray(color).convert("CMYK").save(root / "color_cmyk.jpg")
    _image(root / "color_rgb.png", color, dpi=(72, 72))
    PILImage.fromarray(color).convert("P").save(root / "color_palette.png")
    _image(root / "color_binary.ppm", color)
    (root / "color_text.ppm").write_bytes(b"P3\n16 12\n255\n" + b" ".join(b"%d" % x for x in color.flat))
    _image(root / "mask_bits.pbm", mask)
    _image(root / "mask_bits.png", mask)
    _image(root / "mask_grey.png", np.where(mask, 255, 0).astype(np.uint8))
    (root / "mask_text.pbm").write_bytes(b"P1\n16 12\n" + b" ".join(b"%d" % x for x in mask.flat))
    _image(root / "depth_16.png", depth)
    _hdf5(root / "depth_plain.h5", {"depth": depth})
    _hdf5(root / "depth_packed.h5", {"depth": depth}, compression="gzip")


def _exif() -> PILImage.Exif:
    exif = PILImage.Exif()
    exif[0x0110] = "A camera"
    exif.get_ifd(0x8769).update({0x920A: 50.0, 0xA405: 75})
    return exif


def write_photos(root: Path) -> None:
    """Photographs without any calibration, with EXIF."""
    for view in range(3):
        _image(root / f"N1_{view}.jpg", pixels(view), exif=_exif())


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
