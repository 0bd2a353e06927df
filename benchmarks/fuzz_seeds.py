"""Small valid files of every kind that the package reads, for the fuzzer to break: a few pixels, a few numbers."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch
import trimesh
from PIL import Image as PILImage
from trimesh.visual import TextureVisuals

from neuralrecon.calibrate import SensorChange
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
from neuralrecon.fields import FieldConfig, SurfaceModel
from neuralrecon.files import write_npz
from neuralrecon.geometry import Box, Camera, Rigid, Similarity
from neuralrecon.label import OccupancyLabels
from neuralrecon.render import Occupancy
from neuralrecon.scene.crop_cache import CropFile, Source
from neuralrecon.train import Fit, FitConfig, save_fit
from neuralrecon.train.checkpoint import TrainingState
from neuralrecon.train.run_folder import RunFolder

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
URL = "http://127.0.0.1/a.tgz"
_N_VIEWS = 3
_SUMMARY = {"name": "demo/box", "capture": "source", "unit": "m"}


def _pixels(seed: int = 0) -> np.ndarray:
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
        color = _image(root / f"images/{view}.png", _pixels(view))
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
        _image(root / f"dino{view}.png", _pixels(view))
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
            _image(root / f"{body}_{stop}.jpg", _pixels(), progressive=bool(stop))
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
    color, mask, depth = _pixels(), _mask(), _depth()
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
        _image(root / f"N1_{view}.jpg", _pixels(view), exif=_exif())


def write_meshes(root: Path) -> None:
    """Each format, with texture and materials where it has them."""
    box = trimesh.creation.box((0.1, 0.1, 0.1))
    colored = box.copy()
    colored.visual.vertex_colors = np.full((8, 4), 77, np.uint8)
    root.mkdir(parents=True, exist_ok=True)
    colored.export(root / "binary.ply")
    colored.export(root / "text.ply", encoding="ascii")
    box.export(root / "binary.stl")
    box.export(root / "text.stl", file_type="stl_ascii")
    colored.export(root / "plain.glb")
    textured = box.copy()
    textured.visual = TextureVisuals(uv=np.zeros((8, 2)), image=PILImage.fromarray(_pixels()))
    textured.export(root / "textured.glb")
    textured.export(root / "textured.obj")


def tiny_fit() -> Fit:
    """A model of a few kilobytes that was never trained."""
    field = FieldConfig(
        levels=2, log2_table_size=10, base_resolution=4, finest_resolution=8, hidden=8,
        color_levels=2, color_log2_table_size=10, color_finest_resolution=8,
    )  # fmt: skip
    config = FitConfig(field=field, first_levels=1, occupancy_resolution=16, steps=20)
    sdf = torch.linspace(-1, 1, 16**3).reshape(16, 16, 16)
    return Fit(
        name="demo/box",
        model=SurfaceModel(field, 2, 3, torch.Generator().manual_seed(0)),
        config=config,
        unit_from_world=Similarity(scale=5.0, translation=torch.tensor([0.5, 0.5, 0.1])),
        box=Box(low=torch.tensor([-0.1, -0.1, 0.0]), high=torch.tensor([0.1, 0.1, 0.1])),
        floor_m=0.0,
        is_metric=True,
        world_per_mm=1e-3,
        occupancy=Occupancy.from_sdf(sdf, 0.05),
        view_origins=torch.ones(2, 3),
        view_rig_from_world=torch.eye(3).expand(2, 3, 3).contiguous(),
        blur=0.01,
        step=10,
    )


def write_fit(root: Path) -> None:
    """An unfinished fit."""
    generator = torch.Generator().manual_seed(1)
    moments = {"n_steps": torch.tensor(10), "table0.exp_avg": torch.zeros(5, 2)}
    save_fit(tiny_fit(), root, TrainingState(moments=moments, generator=generator.get_state(), seed=1))


def write_run(root: Path) -> None:
    """What later commands read of a finished run."""
    source = root / "source"
    write_plain_folder(source)
    folder = RunFolder(path=root, settings="seed: 0\nout: null\n", goes_on=False)
    folder.open()
    capture = capture_in(source)
    folder.write_capture(capture)
    told = json.loads((root / "capture_used.json").read_text())
    # not where these files happen to lie: the same bytes everywhere
    (root / "capture_used.json").write_text(json.dumps(told | {"base": "source", "root": "source"}))
    folder.finish(_SUMMARY)
    write_npz(root / "evidence.npz", evidence=np.array([True, False, True]))
    OccupancyLabels(
        points_in_world=np.zeros((4, 3), np.float32),
        occupancy=np.ones(4, bool),
        sdf_m=np.zeros(4, np.float32),
        near_surface=np.ones(4, bool),
        sigma_m=0.001,
    ).save(root / "labels.npz")
    (root / "scalars.csv").write_text("step,loss,samples\n0,0.5,10\n1,0.25,20\n")


def write_reports(root: Path) -> None:
    """Reports of a calibration and of outlines."""
    row = {name: 0.0 for name in SensorChange.__slots__} | {"name": "left", "n_observations": 3, "reason": ""}
    told = {"inputs": "abc", "method": "refine", "sensors": [row], "figures": {"axis_deg": None}, "warnings": ["x"]}
    view = {"image": "0", "iou": 0.9, "missing": 0.1, "extra": 0.0, "kept": True}
    outlines = {"settings": "abc", "table": "given", "table_from_capture_world": np.eye(4).tolist()}
    outlines |= {"bounds": [[0, 0, 0], [1, 1, 1]], "masks": {"0": "0.png"}, "views": [view]}
    root.mkdir(parents=True, exist_ok=True)
    (root / "report.json").write_text(json.dumps(told))
    (root / "segment.json").write_text(json.dumps(outlines))


def write_crops(root: Path) -> None:
    """Two crops and their description."""
    boxes = ((0, 0, 8, 4), (2, 2, 6, 9))
    sources = [Source(key=str(i), state=(1, 2), box=box, digest="d", checksum="c") for i, box in enumerate(boxes)]
    file = CropFile.named(root, sources)
    root.mkdir(parents=True, exist_ok=True)
    file.path.write_bytes(bytes(file.n_bytes))
    file.describe(sources)


def write_download(root: Path) -> None:
    """Lock file, marker of finished parts, note of half a file."""
    entry = {"url": URL, "size": 3, "sha256": "0" * 64}
    root.mkdir(parents=True, exist_ok=True)
    (root / "download.lock.json").write_text(json.dumps({"archives": {"ycb/a/rgbd": entry}}))
    (root / ".downloaded.json").write_text(json.dumps({"parts": {"rgbd": entry | {"archive_is_kept": False}}}))
    (root / f"a.{zlib.crc32(URL.encode()):08x}.json").write_text(json.dumps({"validator": "x", "size": 3}))


def write_archive(root: Path) -> None:
    """A small .tgz of an object, in which every byte is the same wherever and whenever it is made."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in (("a/N1_0.jpg", b"x" * 700), ("a/masks/N1_0_mask.pbm", b"y"), ("a/._junk", b"z")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    root.mkdir(parents=True, exist_ok=True)
    (root / "rgbd.tgz").write_bytes(gzip.compress(packed.getvalue(), mtime=0))


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
