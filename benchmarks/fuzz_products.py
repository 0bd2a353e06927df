"""Small valid files of what the package itself leaves and reads again, for the fuzzer to break."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image as PILImage
from trimesh.visual import TextureVisuals

from neuralrecon.calibrate import SensorChange
from neuralrecon.fields import FieldConfig, SurfaceModel
from neuralrecon.files import write_npz
from neuralrecon.geometry import Box, Similarity
from neuralrecon.label import OccupancyLabels
from neuralrecon.render import Occupancy
from neuralrecon.scene.crop_cache import CropFile, Source
from neuralrecon.train import Fit, FitConfig, save_fit
from neuralrecon.train.checkpoint import TrainingState
from neuralrecon.train.run_folder import RunFolder

from .fuzz_seeds import capture_in, pixels, write_plain_folder

URL = "http://127.0.0.1/a.tgz"
_SUMMARY = {"name": "demo/box", "capture": "source", "unit": "m"}


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
    textured.visual = TextureVisuals(uv=np.zeros((8, 2)), image=PILImage.fromarray(pixels()))
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
