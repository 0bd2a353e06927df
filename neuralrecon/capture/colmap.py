"""COLMAP models (cameras, rigs, frames, images, points) in and out: the one place where captures meet pycolmap.

COLMAP's conventions are ours: x right, y down, z forward, a pixel's centre at +0.5. A model that `write_colmap` wrote
has beside it `neuralrecon.json` with what COLMAP has no place for (names, kinds, masks, units, the table).
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import CalibrationError, CaptureError
from .colmap_folders import MODEL_FILES, SIDECAR, image_folder, model_folder, unposed, with_masks
from .colmap_model import Model, load_model, observed_points, posed, write_model
from .description import capture_of, described, read_description, relative
from .entries import confined
from .findings import Findings, listed
from .plain import whole
from .types import Capture, Frame, Sensor, SparsePoints


def read_colmap(path: str | Path, *, allow_partial: bool = False) -> Capture:
    """A folder with a COLMAP model in ``sparse/0``, ``sparse``, ``colmap/sparse/0`` or itself, and its images.

    Images are in ``images/`` or beside the model; masks, if there, in ``masks/`` as ``NAME.jpg.png`` or ``NAME.png``,
    white where the object is. COLMAP does not know metres or a table: `is_metric` and `has_table` are False. Rigs and
    frames are kept: the rig frame is that of its reference sensor. Sensors are named ``camera`` and their number in
    the model. Images in the folder that the model does not pose are listed in `left_out`.

    A model that `write_colmap` wrote gives the capture it was written from: names, kinds, masks, units, root.

    Raises:
        CalibrationError: no model, a broken one, or a camera that is none of OpenCV's five parameters.
        CaptureError: images are missing, broken or of another size than their camera. With `allow_partial` those are
            listed in `left_out`.

    Example:
        >>> capture = read_colmap("data/photos_of_a_mouse")  # doctest: +SKIP
    """
    root, findings = Path(path), Findings(allow_partial)
    folder = model_folder(root)
    if folder is None:
        raise CalibrationError(f"{root}: no COLMAP model (cameras, images, points3D as .bin or .txt); restore it")
    model = load_model(folder)
    if (folder / SIDECAR).exists():
        capture = _restored(model, folder)
        capture = _at(capture, root) if capture.root.resolve() == root.resolve() else capture
    else:
        images = image_folder(root, folder, model.image_names)
        capture = replace(posed(model, images), name=root.resolve().name, root=root)
        capture = with_masks(capture, images, findings)
        for line in unposed(capture, images):
            findings.absent(line)
        if folder.name == "0" and (others := sorted(p.name for p in folder.parent.iterdir() if p.name != "0")):
            findings.absent(f"{folder}: only this model is read; {listed(others)} lies beside it")
    capture = whole(capture, folder, findings)
    return replace(capture, left_out=(*capture.left_out, *findings.lines))


def write_colmap(
    capture: Capture, folder: str | Path, points: SparsePoints | None = None, *, image_folder: str = "."
) -> Path:
    """Writes a COLMAP model with rigs and frames, and what it cannot say beside it; `read_colmap` gives all of it back.

    Images are named by their paths from the capture's root, or from its `image_folder`; depth sensors are cameras like
    others. Sensors that share frames form a rig around the first of them that has the rig's own frame (else the first
    photograph's sensor). Cameras are PINHOLE, OPENCV, or with k3 FULL_OPENCV. The folder appears whole or not at all
    and replaces an older model.

    Raises:
        CaptureError: an image lies outside of that folder, or the model's folder holds other things than a model.

    Example:
        >>> write_colmap(capture, "data/mug/sparse/0")  # doctest: +SKIP
    """
    target = Path(folder)
    foreign = sorted(p.name for p in target.iterdir() if p.name not in MODEL_FILES) if target.exists() else []
    if foreign:
        raise CaptureError(f"{target}: holds {listed(foreign)}, which is no part of a model; choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = {"root": os.path.relpath(capture.root.resolve(), target.resolve()), "image_folder": image_folder}
    beside |= described(replace(capture, points_path=None), capture.root)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        write_model(capture, points, new, capture.root / image_folder)
        (new / SIDECAR).write_text(json.dumps(beside, indent=1, allow_nan=False), encoding="utf-8")
        if target.exists():
            target.rename(old)
        new.rename(target)
    return target


def calibrated_by(capture: Capture, folder: str | Path) -> Capture:
    """The same capture (names, images, masks, root) with the cameras and poses of a COLMAP model of its images.

    Images are matched by name, the path from the capture's root. What the poses decide comes from the model, too:
    `is_metric`, `has_table`, `bounds`, `points_path`, and a depth sensor's `metres_per_unit`.

    Raises:
        CalibrationError: no model, an image that the model lacks, a sensor of another size, or the model groups the
            images into sensors and frames in another way.

    Example:
        >>> calibrated = calibrated_by(read_capture("data/bigbird/cheez_it"), "cache/cheez_it")  # doctest: +SKIP
    """
    where = Path(folder)
    model = load_model(where)
    has_sidecar = (where / SIDECAR).exists()
    known = _restored(model, where, capture.root) if has_sidecar else posed(model, capture.root)
    return replace(
        _recalibrated(capture, known, where),
        is_metric=known.is_metric,
        has_table=known.has_table,
        bounds=known.bounds,
        points_path=known.points_path,
    )


def model_points(capture: Capture, folder: Path) -> SparsePoints:
    """The points of a COLMAP model, in the order of their numbers there, seen in those images that the capture has.

    Raises:
        CalibrationError: no model, or a broken one.
    """
    model = load_model(folder)
    if (folder / SIDECAR).exists():
        beside = read_description(folder / SIDECAR)
        return observed_points(model, capture, confined(beside.text("image_folder", "."), capture.root, beside.where))
    return observed_points(model, capture, image_folder(capture.root, folder, model.image_names))


def _restored(model: Model, folder: Path, root: Path | None = None) -> Capture:
    """The capture that was written: the sidecar's, with cameras and poses as the model has them now."""
    entry = read_description(folder / SIDECAR)
    written_root = Path(os.path.normpath(folder.resolve() / entry.text("root")))
    images = confined(entry.text("image_folder", "."), root or written_root, entry.where)
    capture = capture_of(entry, root or written_root, "colmap")
    own = {k: s.sensor_from_rig for k, s in enumerate(capture.sensors, 1)}
    known = replace(posed(model, images, own), root=capture.root)
    n_known, n_images = len(known.images), len(capture.images)
    if n_known > n_images:
        raise CalibrationError(
            f"{folder}: the model poses {n_known} images, {SIDECAR} beside it is for {n_images}, so "
            "it is of another model; write the model again, or remove that file"
        )
    return replace(_recalibrated(capture, known, folder), points_path=known.points_path)


def _at(capture: Capture, root: Path) -> Capture:
    """The same files, named from another spelling of the capture's root."""

    def moved(path: Path | None) -> Path | None:
        return None if path is None else root / path.relative_to(capture.root)

    images = tuple(
        replace(i, path=root / i.path.relative_to(capture.root), mask_path=moved(i.mask_path)) for i in capture.images
    )
    return replace(capture, root=root, images=images)


def _recalibrated(capture: Capture, known: Capture, where: Path) -> Capture:
    """The capture with the cameras and poses of `known`, whose images have the same paths."""
    other_of = {_name(i.path, known.root): i for i in known.images}
    names = [_name(i.path, capture.root) for i in capture.images]
    missing = [name for name in names if name not in other_of]
    if missing:
        raise CalibrationError(
            f"{where}: the model lacks {len(missing)} of the capture's {len(names)} images: {listed(missing)}; "
            "calibrate this capture again, or restrict it to what the model has"
        )
    pairs = [(image, other_of[name]) for image, name in zip(capture.images, names, strict=True)]
    sensors = _one_to_one([(image.sensor, other.sensor) for image, other in pairs], f"{where}: sensor")
    frames = _one_to_one([(image.frame, other.frame) for image, other in pairs], f"{where}: frame")
    known_sensors, known_frames = {s.name: s for s in known.sensors}, {f.name: f for f in known.frames}

    def sensor(own: Sensor) -> Sensor:
        return _recalibrated_sensor(own, known_sensors[sensors[own.name]], where) if own.name in sensors else own

    def frame(own: Frame) -> Frame:
        if own.name not in frames:
            return own
        return replace(own, rig_from_world=known_frames[frames[own.name]].rig_from_world)

    return replace(capture, sensors=tuple(map(sensor, capture.sensors)), frames=tuple(map(frame, capture.frames)))


def _recalibrated_sensor(own: Sensor, known: Sensor, where: Path) -> Sensor:
    have, want = own.camera, known.camera
    if (have.width, have.height) != (want.width, want.height):
        raise CalibrationError(
            f"{where}: the model's camera for sensor {own.name} is {want.width} x {want.height} px, the capture's "
            f"{have.width} x {have.height}; calibrate this capture again"
        )
    metres_per_unit = known.metres_per_unit or own.metres_per_unit
    return replace(own, camera=want, sensor_from_rig=known.sensor_from_rig, metres_per_unit=metres_per_unit)


def _one_to_one(pairs: list[tuple[str, str]], what: str) -> dict[str, str]:
    """The model's name for each of the capture's sensors or frames."""
    names = dict(pairs)
    for own, other in pairs:
        if names[own] != other:
            raise CalibrationError(
                f"{what} {own} of the capture is both {other} and {names[own]} in the model: it groups the images in "
                "another way; calibrate this capture again"
            )
    return names


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else relative(path, root)
