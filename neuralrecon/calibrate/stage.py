"""The stage function: a rough calibration, or none, in; a calibrated capture out, kept in a folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..capture import Capture, Image, has_known_layout, looks_like_photos, read_capture
from ..capture.colmap import calibrated_by, read_colmap, write_colmap
from ..capture.description import described
from ..capture.points import read_points
from ..errors import ConfigError
from ..files import replacing
from .photos import PhotosConfig, calibrate_photos
from .picture import rig_picture
from .refine import refine
from .report import read_report, recorded_inputs, residuals_px, table_of, unmoved, write_report
from .types import CalibrateConfig, Calibration
from .video import VIDEO_SUFFIXES

log = logging.getLogger(__name__)

MODEL_FOLDER, REPORT_FILE, TABLE_FILE, PICTURE_FILE, WORK_FOLDER = (
    "model", "report.json", "report.txt", "rig.png", "work",
)  # fmt: skip
WRITTEN = (MODEL_FOLDER, REPORT_FILE, TABLE_FILE, PICTURE_FILE, WORK_FOLDER)
_NOTE = "made_from.txt"


class Method(StrEnum):
    """`refine` the calibration that a capture has, or calibrate from the `photos` alone, whatever came with them.

    `auto` refines where there is a calibration.
    """

    auto = "auto"
    refine = "refine"
    photos = "photos"


def calibrate_capture(
    source: Capture | str | Path,
    config: CalibrateConfig | None = None,
    *,
    method: Method = Method.auto,
    photos: PhotosConfig | None = None,
    folder: str | Path | None = None,
    force: bool = False,
) -> Calibration:
    """A calibrated capture of a capture, its folder, a folder of photographs or a video.

    What is found goes into `folder`, if one is given: ``model`` (a COLMAP model with rigs, which `read_capture` takes
    for the calibrated capture), ``report.json``, ``report.txt`` and ``rig.png``. From there it is used again if source,
    settings and this program are the same, unless `force`; features (``work``) are used again by other settings, too.
    Nothing is kept without a folder, so that `Capture.points_path` is None then.

    Raises:
        CaptureError: no such capture, or a file in it that cannot be read.
        CalibrationError: (a CaptureError) too few features match, or poses contradict each other.
        ConfigError: a video without a folder for its frames.

    Example:
        >>> calibration = calibrate_capture("data/bigbird/cheez_it", folder="outputs/cheez_it")  # doctest: +SKIP
        >>> scene = Scene.from_capture(calibration.capture)  # doctest: +SKIP
    """
    config, photos = config or CalibrateConfig(), photos or PhotosConfig()
    known = source_of(source, method)
    if isinstance(known, Path):
        return _calibrated(known, config, photos, folder, force)
    found = _calibrated(_below_one_root(known), config, photos, folder, force)
    return replace(found, capture=replace(found.capture, root=known.root, images=known.images))


def _calibrated(
    known: Capture | Path, config: CalibrateConfig, photos: PhotosConfig, folder: str | Path | None, force: bool
) -> Calibration:
    if folder is None:
        if isinstance(known, Path) and known.suffix.lower() in VIDEO_SUFFIXES:
            raise ConfigError(f"{known}: the frames of a video need a folder to be kept in; give one")
        with TemporaryDirectory() as temporary:
            return _calibrate(known, config, photos, Path(temporary))
    folder = Path(folder)
    inputs = inputs_of(known, config, photos)
    if not force and recorded_inputs(folder / REPORT_FILE) == inputs and (folder / MODEL_FOLDER).is_dir():
        log.info("calibration: the one in %s is used again", folder)
    else:
        _calibrate_into(folder, known, config, photos, force=force)
    return _read(folder, known)


def source_of(source: Capture | str | Path, method: Method) -> Capture | Path:
    """The capture that is to be refined, or the path of photographs that are to be calibrated from nothing.

    Raises:
        CaptureError: the path has neither.
    """
    if isinstance(source, Capture):
        return source.root if method == Method.photos else source
    path = Path(source)
    is_bare = looks_like_photos(path) and not has_known_layout(path)
    return path if method == Method.photos or (method == Method.auto and is_bare) else read_capture(path)


def inputs_of(source: Capture | Path, config: CalibrateConfig, photos: PhotosConfig) -> str:
    """All that a calibration depends on, in one short text: files by name, size and date, settings, this program."""
    if isinstance(source, Path):
        folders = [source, Path(photos.masks)] if photos.masks else [source]
        files = [f for folder in folders for f in ([folder] if folder.is_file() else sorted(folder.rglob("*")))]
        return _short([[_stamp(f) for f in files if f.is_file()], asdict(photos), _program()])
    source = _below_one_root(source)
    told = described(_with_masks_below_root(source), source.root)
    files = [_stamp(p) for i in source.images for p in (i.path, i.mask_path) if p is not None]
    return _short([told, files, asdict(config), _program()])


def _calibrate(source: Capture | Path, config: CalibrateConfig, photos: PhotosConfig, work: Path) -> Calibration:
    return refine(source, config, work) if isinstance(source, Capture) else _from_photos(source, photos, work)


def _from_photos(path: Path, config: PhotosConfig, work: Path) -> Calibration:
    result = calibrate_photos(path, config, work)
    for database in work.glob("*.db*"):  # large, and never used again
        database.unlink()
    figures = {
        "n_photos": float(result.n_photos),
        "n_registered": float(result.n_registered),
        "n_points": float(len(result.points.xyz)),
        "residual_after_px": float(np.median(np.linalg.norm(residuals_px(result.capture, result.points), axis=1))),
    }
    if result.axis_off_deg is not None:
        figures["stops_off_axis_deg"] = result.axis_off_deg
    return Calibration(
        capture=result.capture,
        points=result.points,
        method="photos",
        sensors=unmoved(result.capture, result.points),
        figures=figures,
        warnings=(f"taken as {result.kind}", *result.findings),
    )


def _calibrate_into(
    folder: Path, source: Capture | Path, config: CalibrateConfig, photos: PhotosConfig, *, force: bool
) -> None:
    """Every file is whole, the report comes last: without it the rest does not count."""
    (folder / REPORT_FILE).unlink(missing_ok=True)
    inputs = inputs_of(source, config, photos)
    work = folder / WORK_FOLDER
    made_from = inputs if isinstance(source, Path) else _features_of(source, config)
    note = work / _NOTE
    if force or not note.exists() or note.read_text() != made_from:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        note.write_text(made_from)
    found = _calibrate(source, config, photos, work)
    write_colmap(_describable(found.capture, source), folder / MODEL_FOLDER, found.points)
    with replacing(folder / PICTURE_FILE) as temporary:
        rig_picture(source if isinstance(source, Capture) else None, found).save(temporary)
    with replacing(folder / TABLE_FILE) as temporary:
        temporary.write_text(table_of(found) + "\n", encoding="utf-8")
    write_report(found, inputs, folder / REPORT_FILE)


def _read(folder: Path, source: Capture | Path) -> Calibration:
    """What `_calibrate_into` wrote: the same value whether that was just now or long ago."""
    model = folder / MODEL_FOLDER
    capture = calibrated_by(source, model) if isinstance(source, Capture) else read_colmap(model)
    points = read_points(replace(capture, points_path=model))
    assert points is not None
    return read_report(folder / REPORT_FILE, capture, points)


def _describable(capture: Capture, source: Capture | Path) -> Capture:
    """The capture as a model's sidecar can describe it: with all of its files below its root.

    Masks may lie elsewhere. Those of a capture are found by that capture again; photographs get a root above both.
    """
    if isinstance(source, Capture):
        return _with_masks_below_root(capture)
    files = [capture.root, *(p for i in capture.images for p in (i.path, i.mask_path) if p is not None)]
    return replace(capture, root=Path(os.path.commonpath([file.resolve() for file in files])))


def _below_one_root(capture: Capture) -> Capture:
    """The capture; if links lead out of its root, its images by their real places and a root above all of them."""
    root, places = capture.root.resolve(), [i.path.resolve() for i in capture.images]
    if all(place.is_relative_to(root) for place in places):
        return capture
    images = tuple(replace(i, path=place) for i, place in zip(capture.images, places, strict=True))
    return replace(capture, root=Path(os.path.commonpath([root, *places])), images=images)


def _with_masks_below_root(capture: Capture) -> Capture:
    root = capture.root.resolve()

    def kept(image: Image) -> Image:
        is_elsewhere = image.mask_path is not None and not image.mask_path.resolve().is_relative_to(root)
        return replace(image, mask_path=None, object_is_black=False) if is_elsewhere else image

    return replace(capture, points_path=None, images=tuple(map(kept, capture.images)))


def _features_of(capture: Capture, config: CalibrateConfig) -> str:
    files = [_stamp(i.path) for i in capture.images]
    return _short([files, config.longest_side_px, config.n_features, _program("features.py")])


def _stamp(file: Path) -> list[Any]:
    status = file.stat()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns]


def _program(files: str = "*.py") -> str:
    """The source text of this package: another one may calibrate differently."""
    return _short([file.read_text(encoding="utf-8") for file in sorted(Path(__file__).parent.glob(files))])


def _short(told: Any) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
