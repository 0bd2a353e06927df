"""From what the user named to the capture that is reconstructed: read, calibrated, outlined."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..calibrate import CalibrateConfig, Method, PhotosConfig, calibrate_capture
from ..capture import Capture, SensorKind, has_known_layout, looks_like_photos
from ..errors import CalibrationError

log = logging.getLogger(__name__)


class CalibrationFrom(StrEnum):
    """Whose calibration a run takes.

    `given` is the capture's own, `refine` that one refined, `photos` a new one from the photographs alone, and `auto`
    the refined one, or the given one where too little can be matched. Photographs that come without a calibration are
    calibrated from nothing, but for `refine`.
    """

    given = "given"
    refine = "refine"
    photos = "photos"
    auto = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A capture with poses, whence they are (given, refined or photos), and what the user is to be warned of."""

    capture: Capture
    calibration: str
    warnings: tuple[str, ...]


def is_from_photos(path: Path, wanted: CalibrationFrom) -> bool:
    """Whether poses are to be found from nothing."""
    is_bare = looks_like_photos(path) and not has_known_layout(path)
    return wanted == CalibrationFrom.photos or (wanted != CalibrationFrom.refine and is_bare)


def from_photos(path: Path, config: PhotosConfig, folder: Path) -> Prepared:
    """A calibration of photographs or a video, kept in `folder`.

    Raises:
        CaptureError: too few photographs, or unreadable ones, or they could not be placed.
    """
    found = calibrate_capture(path, method=Method.photos, photos=config, folder=folder)
    return _told(Prepared(capture=found.capture, calibration="photos", warnings=found.warnings))


def refined(capture: Capture, wanted: CalibrationFrom, config: CalibrateConfig, folder: Path) -> Prepared:
    """The capture with its calibration refined, kept in `folder`; for `auto` as it was if that cannot be.

    Raises:
        CalibrationError: too few features match, or the poses contradict each other.
        CaptureError: an image cannot be read.
    """
    try:
        if not capture.images_of(SensorKind.color):
            raise CalibrationError(
                f"{capture.root}: no photographs, by which a calibration is refined; use calibration=given"
            )
        found = calibrate_capture(capture, config, folder=folder)
    except CalibrationError as error:
        if wanted != CalibrationFrom.auto:
            raise
        line = f"the calibration is taken as it was given, for it cannot be refined: {error}"
        return _told(Prepared(capture=capture, calibration="given", warnings=(line,)))
    return _told(Prepared(capture=found.capture, calibration="refined", warnings=found.warnings))


def lacks_outlines(capture: Capture) -> bool:
    """Whether most photographs have no mask, and there is no depth of the object alone: outlines are to be found."""
    photographs = capture.images_of(SensorKind.color)
    return not capture.depth_is_masked and 2 * sum(i.mask_path is None for i in photographs) > len(photographs)


def _told(prepared: Prepared) -> Prepared:
    for line in prepared.warnings:
        log.warning("calibration: %s", line)
    return prepared
