"""Whose outlines a run takes: the given ones, those made right, or new ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Picture

from ..capture import Capture, Image, SensorKind
from ..errors import EvidenceError
from ..files import replacing
from .consistency import compared
from .given import agree, check_masks, without_bad
from .outlines import Box, carved, in_threads, located
from .refine import before_backdrop
from .report import REPORT_FILE, SegmentReport, TableFrom, write_report
from .sam import Predictor, load_predictor, outline_by_prompt
from .stage import SegmentConfig, digest, key_of, left_there, segment, with_outlines
from .views import Outline, View

log = logging.getLogger(__name__)

_LEAST_STOPS = 5
_LONGEST_ASKED_PX = 1600  # side of a photograph that Segment Anything is shown; it makes that 1024
_BOUNDS_MARGIN = 0.05  # of the longest side


class MasksFrom(StrEnum):
    """Whose outlines a run takes.

    `given` are the capture's masks as they are. `refined` starts from them and makes them right: holes and cut off
    parts that other views contradict are filled, and the outline goes where the photograph changes from the
    turntable's backdrop (without a turntable: where its colours change). `background` finds them without any mask, from
    what differs from that backdrop. `sam` asks Segment Anything, with local weights. `auto` takes given masks that
    agree with each other (single ones that do not are left out), and refines them otherwise.

    Where most photographs have no mask, `given` and `auto` find outlines by colours, as `segment` does.
    """

    auto = "auto"
    given = "given"
    refined = "refined"
    background = "background"
    sam = "sam"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlined:
    """A capture with outlines, whence they are (given, refined, background or sam), and what the user is told."""

    capture: Capture
    masks: MasksFrom
    warnings: tuple[str, ...] = ()


def outlined(
    capture: Capture, masks: MasksFrom, config: SegmentConfig, folder: Path, *, predictor: Predictor | None = None
) -> Outlined:
    """The capture with the outlines that are wanted, new ones as masks in `folder`.

    `segment.json` there tells how well each agrees with the others, given ones too (`read_report`).

    Args:
        predictor: what `sam` asks; Segment Anything with the weights of `config` by default.

    Raises:
        CaptureError: a file that cannot be read.
        ConfigError: no weights for `sam`, or no package.
        EvidenceError: no turntable for `background`, no masks for `refined`, or nothing of the object is found.

    Example:
        >>> found = outlined(capture, MasksFrom.refined, SegmentConfig(), Path("masks"))  # doctest: +SKIP
    """
    folder = Path(folder)
    lack = _why_no_backdrop(capture)
    if masks == MasksFrom.sam:
        asked = predictor or load_predictor(config.sam_weights, config.sam_model)
        return Outlined(capture=_by_prompt(capture, config, folder, asked), masks=masks)
    if masks == MasksFrom.background:
        if lack is not None:
            raise EvidenceError(f"{capture.root}: masks=background needs a turntable's backdrop, but {lack}")
        return Outlined(capture=_before_backdrop(capture, masks, config, folder), masks=masks)
    if masks == MasksFrom.refined:
        return Outlined(capture=_refined(capture, config, folder, lack), masks=masks)
    report = check_masks(capture, config, folder)
    if masks == MasksFrom.given:
        return Outlined(capture=capture, masks=masks)
    if agree(report):
        return Outlined(capture=without_bad(capture, report), masks=MasksFrom.given)
    bad = sum(not v.kept for v in report.views)
    median = float(np.median([v.iou for v in report.views]))
    line = f"{bad} of {len(report.views)} masks contradict the others (IoU {median:.2f} in the median)"
    if lack is not None:
        line = f"{line}; they are taken as they are, for {lack}; masks=refined would cut them anew by colours"
        log.warning("masks: %s", line)
        return Outlined(capture=capture, masks=MasksFrom.given, warnings=(line,))
    line = f"{line}, so they are refined; masks=given takes them as they are"
    log.warning("masks: %s", line)
    return Outlined(capture=_refined(capture, config, folder, lack), masks=MasksFrom.refined, warnings=(line,))


def _why_no_backdrop(capture: Capture) -> str | None:
    photographs = capture.images_of(SensorKind.color)
    if any(f.angle_deg is None for f in capture.frames):
        return "the capture has no turntable with fixed cameras"
    if not capture.has_table:
        return "the height of the turntable's top is not known"
    n_stops = {s: sum(i.sensor == s for i in photographs) for s in {i.sensor for i in photographs}}
    few = [s for s, n in sorted(n_stops.items()) if n < _LEAST_STOPS]
    if few or not photographs:
        return f"sensor {few[0] if few else 'none'} has photographs of fewer than {_LEAST_STOPS} stops"
    return None


def _refined(capture: Capture, config: SegmentConfig, folder: Path, lack: str | None) -> Capture:
    images = capture.images_of(SensorKind.color)
    n_given = sum(i.mask_path is not None for i in images)
    if 2 * n_given < len(images) or not images:
        raise EvidenceError(
            f"{capture.root}: masks=refined needs masks, but {n_given} of {len(images)} photographs have one; "
            "use masks=background on a turntable, or masks=auto"
        )
    if lack is None:
        return _before_backdrop(capture, MasksFrom.refined, config, folder)
    log.info("outlines: cut by colours, for %s", lack)
    return segment(capture, config, folder, again=True)


def _before_backdrop(capture: Capture, masks: MasksFrom, config: SegmentConfig, folder: Path) -> Capture:
    images = capture.images_of(SensorKind.color)
    settings = digest(capture, config, masks.value)
    report = left_there(folder, settings)
    if report is None:
        (folder / REPORT_FILE).unlink(missing_ok=True)
        found = before_backdrop(capture, images, from_given=masks == MasksFrom.refined)
        report = _written(capture, found.views, found.outlines, found.box, config, settings, folder)
    return with_outlines(_without_masks(capture), images, report, folder)


def _by_prompt(capture: Capture, config: SegmentConfig, folder: Path, predictor: Predictor) -> Capture:
    """First the outlines that can be had without the network, which tell it what is meant."""
    lack = _why_no_backdrop(capture)
    some_given = sum(i.mask_path is not None for i in capture.images_of(SensorKind.color)) >= 3
    firsts = folder / "prompts"
    if lack is None:
        way = MasksFrom.refined if some_given else MasksFrom.background
        first = _before_backdrop(capture, way, config, firsts)
    else:
        first = segment(capture, config, firsts, again=some_given)
    images = first.images_of(SensorKind.color)
    settings = digest(first, config, MasksFrom.sam.value)
    report = left_there(folder, settings)
    if report is None:
        asked = [_asked(first, image, predictor) for image in images if image.mask_path is not None]
        views, outlines = [v for v, _ in asked], [o for _, o in asked]
        report = _written(first, views, outlines, located(views), config, settings, folder)
    return with_outlines(_without_masks(first), images, report, folder)


def _asked(capture: Capture, image: Image, predictor: Predictor) -> tuple[View, Outline]:
    """A view (which lets go of its photograph) and what the predictor says of it."""
    camera = capture.sensor(image.sensor).camera
    view = View.read(capture, image, max(1, -(-max(camera.width, camera.height) // _LONGEST_ASKED_PX)))
    assert view.given is not None
    outline = outline_by_prompt(view.rgb, view.given, predictor)
    return replace(view, rgb=np.zeros((0, 0, 3), np.uint8)), outline


def _without_masks(capture: Capture) -> Capture:
    photographs = {key_of(i) for i in capture.images_of(SensorKind.color)}
    bare = tuple(replace(i, mask_path=None) if key_of(i) in photographs else i for i in capture.images)
    return replace(capture, images=bare)


def _written(
    capture: Capture,
    views: Sequence[View],
    outlines: Sequence[Outline],
    box: Box,
    config: SegmentConfig,
    settings: str,
    folder: Path,
) -> SegmentReport:
    """Masks at the photographs' full size, and the report of how they agree."""
    told = [(v, o) for v, o in zip(views, outlines, strict=True) if o.any()]

    def write(at: int) -> tuple[str, str]:
        view, outline = told[at]
        name = f"{at:04d}_{view.image.path.stem}.png"
        with replacing(folder / name) as temporary:
            Picture.fromarray(_at_full_size(capture, view, outline).astype(np.uint8) * 255).save(temporary)
        return key_of(view.image), name

    masks = dict(in_threads(write, range(len(told))))
    log.info("outlines: %d masks in %s", len(masks), folder)
    some = [v for v, _ in told]
    kept = [o for _, o in told]
    hull = carved(some, kept, box)
    low, high = hull.box()
    margin = _BOUNDS_MARGIN * float((high - low).max())
    low, high = (low - margin).tolist(), (high + margin).tolist()
    report = SegmentReport(
        settings=settings,
        table=TableFrom.given if capture.has_table else TableFrom.nothing,
        move=None,
        bounds=((low[0], low[1], 0.0 if capture.has_table else low[2]), (high[0], high[1], high[2])),
        masks=masks,
        views=compared(some, kept, hull, config.least_iou),
    )
    write_report(report, folder)
    return report


def _at_full_size(capture: Capture, view: View, outline: Outline) -> Outline:
    camera = capture.sensor(view.image.sensor).camera
    n = view.downscale
    size = (outline.shape[1] * n, outline.shape[0] * n)
    large = cv2.resize(outline.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) >= 0.5
    return np.pad(large, ((0, camera.height - size[1]), (0, camera.width - size[0])), mode="edge")
