"""Every reader of the package with the small valid files that it is fuzzed from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from neuralrecon.calibrate.photo_files import list_photos
from neuralrecon.calibrate.report import read_report, recorded_inputs
from neuralrecon.capture import (
    Capture,
    Frame,
    Image,
    Sensor,
    SensorKind,
    camera_of,
    read_capture,
    read_color,
    read_depth,
    read_mask,
    read_points,
)
from neuralrecon.capture.colmap import read_colmap
from neuralrecon.capture.headers import depth_size, image_size
from neuralrecon.download.fetch import Half
from neuralrecon.download.lockfile import LockFile
from neuralrecon.download.place import finished_parts
from neuralrecon.download.unpack import unpack
from neuralrecon.evaluate import read_mesh
from neuralrecon.geometry import Rigid
from neuralrecon.label import OccupancyLabels
from neuralrecon.label.__main__ import run_evidence
from neuralrecon.scene.crop_cache import crops_left_in
from neuralrecon.segment import read_report as read_outlines_report
from neuralrecon.simulate.user_mesh import load_textured
from neuralrecon.train.checkpoint import load_training, metadata_of
from neuralrecon.train.progress import rows_before
from neuralrecon.train.run_folder import RunFolder, origin_of, used_capture

from . import fuzz_products as products
from . import fuzz_seeds as seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One kind of files and its reader; `share` of all inputs, relative to the others'.

    `write` puts valid files into a folder; `read` reads them, given the folder and which files were changed. `is_pure`
    says that reading leaves the files as they are. `kept` names files (by a beginning of their path) that are never
    changed.
    """

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path, list[Path], Random], object]
    share: float = 1.0
    is_pure: bool = True
    kept: tuple[str, ...] = ()


def _read_pixels(capture: Capture, rng: Random) -> None:
    capture = capture.restricted(downscale=rng.choice((1, 1, 2)))
    sensors = {s.name: s for s in capture.sensors}
    for image in capture.images:
        if sensors[image.sensor].kind == SensorKind.depth:
            read_depth(capture, image)
            continue
        read_color(capture, image)
        if image.mask_path:
            read_mask(capture, image)
    read_points(capture)


def _read_layout(root: Path, changed: list[Path], rng: Random) -> None:
    _read_pixels(read_capture(root, allow_partial=rng.random() < 0.5), rng)


def _read_model(root: Path, changed: list[Path], rng: Random) -> None:
    _read_pixels(read_colmap(root, allow_partial=rng.random() < 0.5), rng)


def _read_pictures(root: Path, changed: list[Path], rng: Random) -> None:
    """Every file by what its name says that it is."""
    for file in changed:
        kind = SensorKind.depth if file.name.startswith("depth") else SensorKind.color
        unit = 1e-4 if kind == SensorKind.depth else None
        sensor = Sensor(
            name="s", kind=kind, camera=seeds.CAMERA, sensor_from_rig=Rigid.identity(), metres_per_unit=unit
        )
        image = Image(sensor="s", frame="0", path=file, mask_path=file)
        capture = Capture(
            name="c",
            root=root,
            layout="plain",
            sensors=(sensor,),
            frames=(Frame(name="0", rig_from_world=Rigid.identity()),),
            images=(image,),
            downscale=rng.choice((1, 2, 3, 4)),
        )
        if kind == SensorKind.depth:
            depth_size(file)
            read_depth(capture, image)
        elif file.name.startswith("mask"):
            image_size(file, "mask")
            read_mask(capture, image)
        else:
            image_size(file)
            camera = camera_of(capture, image)
            read_color(capture, image, rng.choice((None, (1, 1, camera.width, camera.height))))


def _read_meshes(root: Path, changed: list[Path], rng: Random) -> None:
    """A material or a texture by the mesh that names it."""
    for file in changed:
        mesh = file if file.suffix in (".ply", ".stl", ".obj", ".glb") else root / "textured.obj"
        read_mesh(mesh)
        load_textured(mesh)


def _read_fit(root: Path, changed: list[Path], rng: Random) -> None:
    """In half of the cases with a checksum that is right again, as an attacker would make it."""
    if changed and rng.random() < 0.5:
        with contextlib.suppress(SafetensorError, OSError, UnicodeError):
            forge_checksum(changed[0])
    load_training(root)


def _read_run(root: Path, changed: list[Path], rng: Random) -> None:
    RunFolder.chosen(root, "x", "seed: 0\nout: null\n", overwrite=True)
    origin_of(root)
    used_capture(root)
    run_evidence(root, 3)
    OccupancyLabels.load(root / "labels.npz")
    rows_before(2, root / "scalars.csv")


def _read_reports(root: Path, changed: list[Path], rng: Random) -> None:
    recorded_inputs(root / "report.json")
    capture = Capture(name="c", root=root, layout="plain", sensors=(), frames=(), images=())
    read_report(root / "report.json", capture, seeds.POINTS)
    read_outlines_report(root)


def _read_crops(root: Path, changed: list[Path], rng: Random) -> None:
    for left in crops_left_in(root).values():
        left.file.load(left.crop, left.n_pixels)
        left.file.mapped()


def _read_download(root: Path, changed: list[Path], rng: Random) -> None:
    LockFile(root)
    finished_parts(root)
    Half.of(root / "a.tgz", products.URL)


def forge_checksum(file: Path) -> None:
    """Make the checkpoint's checksum fit what is in it."""
    with safe_open(file, framework="pt") as opened:
        told = (opened.metadata() or {}).get("facts", "{}").partition("\n")[0]
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, no mapping
    save_file(tensors, file, metadata=metadata_of(told, tensors))


def _unpack(root: Path, changed: list[Path], rng: Random) -> None:
    unpack(root / "rgbd.tgz", root / "new", "a")


TARGETS = (
    Target(name="bigbird", write=seeds.write_bigbird_folder, read=_read_layout, share=2),
    Target(name="idr", write=seeds.write_idr_folder, read=_read_layout),
    Target(name="transforms", write=seeds.write_transforms_folder, read=_read_layout),
    Target(name="bop", write=seeds.write_bop_folder, read=_read_layout),
    Target(name="middlebury", write=seeds.write_middlebury_folder, read=_read_layout),
    Target(name="plain", write=seeds.write_plain_folder, read=_read_layout),
    Target(name="colmap_binary", write=seeds.write_colmap_binary, read=_read_model, share=2, kept=("images", "masks")),
    Target(name="colmap_text", write=seeds.write_colmap_text, read=_read_model, share=2, kept=("images", "masks")),
    Target(name="colmap_named", write=seeds.write_colmap_with_names, read=_read_model, kept=("images", "masks")),
    Target(name="pictures", write=seeds.write_pictures, read=_read_pictures, share=4),
    Target(name="photos", write=seeds.write_photos, read=lambda root, *_: list_photos(root)),
    Target(name="meshes", write=products.write_meshes, read=_read_meshes, share=4),
    Target(name="fit", write=products.write_fit, read=_read_fit, share=3),
    Target(name="run", write=products.write_run, read=_read_run, share=2),
    Target(name="reports", write=products.write_reports, read=_read_reports, share=3),
    Target(name="crops", write=products.write_crops, read=_read_crops),
    Target(name="download", write=products.write_download, read=_read_download, share=3, is_pure=False),
    Target(name="archive", write=products.write_archive, read=_unpack, share=3, is_pure=False),
)
