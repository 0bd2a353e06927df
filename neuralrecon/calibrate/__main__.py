"""Calibrate a capture: refine the calibration that it has, or find poses and lenses from its photographs alone.

Features are matched between photographs, guided by the rig if it is known; sensors, stops and lenses are adjusted to
them and to the depth images. The output folder gets a COLMAP model with rigs, which is a capture for the other
commands, a report per sensor and a picture of the rig. What is there already is used again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from ..capture import Capture
from ..config import Command, part_of
from ..errors import ConfigError
from . import CalibrateConfig, Method, PhotosConfig, calibrate_capture, table_of
from .report import recorded_inputs
from .stage import MODEL_FOLDER, PICTURE_FILE, REPORT_FILE, WRITTEN, inputs_of, source_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateCommand(CalibrateConfig):
    """Settings of the command.

    Attributes:
        capture: a capture folder, a folder of photographs (or one with a folder for each camera), or a video.
        out: the folder to write; by default outputs/calibration/ and the capture's name.
        method: refine the calibration that came with the capture, or use its photographs alone; auto refines if it can.
        overwrite: begin anew, and replace what other settings or another capture have left in `out`.
        every_nth_stop: use every n-th stop of a capture that has a calibration.
        photos: for photographs without a calibration.
    """

    capture: Path
    out: Path | None = None
    method: Method = Method.auto
    overwrite: bool = False
    every_nth_stop: int = 1
    photos: PhotosConfig = field(default_factory=PhotosConfig)


def main(config: CalibrateCommand) -> float:
    """The median residual of all observations in photographs, in pixels."""
    if not config.capture.exists():
        raise ConfigError(f"capture={config.capture}: no such folder or video; check the path")
    folder = config.out or Path("outputs") / "calibration" / config.capture.resolve().stem
    settings = part_of(config, CalibrateConfig)
    source = source_of(config.capture, config.method)
    if isinstance(source, Capture):
        source = source.restricted(every_nth_stop=config.every_nth_stop)
    _require_ours(folder, inputs_of(source, settings, config.photos), config.overwrite)
    method = Method.refine if isinstance(source, Capture) else Method.photos
    found = calibrate_capture(
        source, settings, method=method, photos=config.photos, folder=folder, force=config.overwrite
    )
    print(table_of(found))
    print(f"{folder / PICTURE_FILE}\n{folder / REPORT_FILE}")
    print(f"{folder / MODEL_FOLDER}: the calibrated capture, as in capture={folder / MODEL_FOLDER}")
    return found.figures["residual_after_px"]


def _require_ours(folder: Path, inputs: str, overwrite: bool) -> None:
    """That nothing of the user's is in the output folder, and no finished calibration of something else.

    Raises:
        ConfigError: it is.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"out={folder} is a file; name a folder")
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in WRITTEN and not p.name.startswith("."))
    if foreign:
        raise ConfigError(f"out={folder} holds {foreign[0]}, which no calibration wrote; name a new or empty folder")
    there = recorded_inputs(folder / REPORT_FILE)
    if there not in (None, inputs) and not overwrite:
        raise ConfigError(
            f"out={folder} holds a calibration of another capture, with other settings or by another version; add "
            "overwrite=true to replace it, or name another folder"
        )


cli = Command(
    name="calibrate",
    schema=CalibrateCommand,
    main=main,
    about=__doc__ or "",
    examples=[
        ("capture=data/bigbird/cheez_it out=outputs/cheez_it_calibration", "refine the calibration of a rig"),
        ("capture=data/photos_of_a_mug photos.object_height_mm=96", "photographs alone; a known height gives metres"),
        ("capture=data/rig turn_deg=0.2 shift_mm=1 distortion=0", "a rig that is known better, lenses held"),
    ],
)

if __name__ == "__main__":
    sys.exit(cli())
