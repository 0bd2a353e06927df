"""Whether the masks that a capture came with agree with each other, at a few seconds' cost."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..capture import Capture, Image, SensorKind, camera_of, read_mask
from ..errors import EvidenceError
from .consistency import ViewConsistency, compared
from .outlines import Round, carved, in_threads
from .report import SegmentReport, TableFrom, write_report
from .stage import SegmentConfig, digest, key_of, left_there
from .views import View
from .votes import locate

log = logging.getLogger(__name__)

_LONGEST_PX = 300
_STEP = Round(cells=64, contrary_share=0.10, outwards=0.0, inwards=0.0)
_LOCATING_SHARE = 0.3
_LEAST_VIEWS = 3
_AGREEING_IOU, _MOST_BAD = 0.85, 0.1  # in the median, and the share of views that may fall short of `least_iou`
_TOLERANCE_PX = 2.0  # of the small masks: what a hull of coarse cells is wider, and a pixel
_N_NAMED = 5


def check_masks(capture: Capture, config: SegmentConfig, folder: Path) -> SegmentReport:
    """Every mask against the hull by vote of the others, in `segment.json` of `folder` (`read_report`).

    If the masks leave no common solid, none agrees: every IoU is 0. With fewer than three masks there are no `views`.

    Raises:
        CaptureError: a mask that cannot be read.
    """
    settings = digest(capture, config, "given")
    report = left_there(folder, settings)
    if report is None:
        report = _checked(capture, config, settings)
        write_report(report, folder)
    _tell(report)
    return report


def agree(report: SegmentReport) -> bool:
    """Whether the masks are good enough to be taken as they are, but for single ones."""
    if not report.views:
        return True
    bad = sum(not v.kept for v in report.views)
    median = float(np.median([v.iou for v in report.views]))
    return median >= _AGREEING_IOU and bad <= _MOST_BAD * len(report.views)


def without_bad(capture: Capture, report: SegmentReport) -> Capture:
    """The capture without the masks that the report found to contradict the others, with a line each in `left_out`."""
    bad = {v.image: v.iou for v in report.views if not v.kept}
    images = tuple(replace(i, mask_path=None) if key_of(i) in bad else i for i in capture.images)
    lines = [
        f"{i.path}: its mask agrees with those of the other views by IoU {bad[key_of(i)]:.2f} only"
        for i in capture.images
        if key_of(i) in bad
    ]
    return replace(capture, images=images, left_out=(*capture.left_out, *lines))


def _checked(capture: Capture, config: SegmentConfig, settings: str) -> SegmentReport:
    images = [i for i in capture.images_of(SensorKind.color) if i.mask_path is not None]
    table = TableFrom.given if capture.has_table else TableFrom.nothing
    nowhere = SegmentReport(
        settings=settings, table=table, move=None, bounds=((0, 0, 0), (0, 0, 0)), masks={}, views=()
    )
    if len(images) < _LEAST_VIEWS:
        return nowhere
    views = in_threads(lambda image: _outline_only(capture, image), images)
    outlines = [v.given for v in views if v.given is not None]
    try:
        hull = carved(views, outlines, locate(views, outlines, _LOCATING_SHARE), _STEP)
    except EvidenceError:
        none = [ViewConsistency(image=key_of(i), iou=0.0, missing=1.0, extra=1.0, kept=False) for i in images]
        return replace(nowhere, views=tuple(none))
    low, high = (tuple(corner.tolist()) for corner in hull.box())
    return replace(nowhere, bounds=(low, high), views=compared(views, outlines, hull, config.least_iou, _TOLERANCE_PX))


def _outline_only(capture: Capture, image: Image) -> View:
    """A small view without its photograph."""
    camera = capture.sensor(image.sensor).camera
    n = max(1, round(max(camera.width, camera.height) / _LONGEST_PX))
    small = replace(capture, downscale=max(n, capture.downscale))
    return View(
        image=image,
        downscale=small.downscale,
        rgb=np.zeros((0, 0, 3), np.uint8),
        given=read_mask(small, image),
        camera=camera_of(small, image),
        cam_from_world=capture.sensor_from_world(image),
    )


def _tell(report: SegmentReport) -> None:
    if not report.views:
        return
    bad = sorted((v for v in report.views if not v.kept), key=lambda v: v.iou)
    median = float(np.median([v.iou for v in report.views]))
    log.info("masks: %d given, IoU with the hull of the others %.3f in the median", len(report.views), median)
    if bad:
        named = ", ".join(f"{v.image} (IoU {v.iou:.2f})" for v in bad[:_N_NAMED])
        more = f" and {len(bad) - _N_NAMED} more" if len(bad) > _N_NAMED else ""
        log.warning("masks: %d of %d contradict the others: %s%s", len(bad), len(report.views), named, more)
