"""The stage function: a capture without outlines in, one with outlines that agree out."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image as Picture

from ..capture import Capture, Image, SensorKind, read_mask
from ..capture.points import read_points
from ..capture.types import SparsePoints
from ..errors import ConfigError, EvidenceError
from ..files import replacing
from ..geometry import Rigid
from .consistency import compared
from .outlines import Box, Found, carved, find_outlines, finer, in_threads, located
from .pieces import filled
from .place import Place, find_place
from .report import REPORT_FILE, SegmentReport, TableFrom, read_report, write_report
from .views import Outline, View

log = logging.getLogger(__name__)

POINTS_FILE = "points.ply"
_METHOD = 5  # raise it when outlines come out otherwise, so that old ones are not used again
_LEAST_VIEWS = 3
_BOUNDS_MARGIN = 0.05  # of the longest side


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentConfig:
    """How outlines are found where a capture has none.

    Attributes:
        working_px: longer side of the photographs while outlines are brought to agree.
        fine_px: longer side of the object in the last cut; the masks are as fine as that, at most as the photographs.
        least_iou: an outline that agrees less with the hull of all others is left out, a given one, too.
        assume_table: take an object whose table shows no points to rest on the plane under its own points.
        sam_weights: file of Segment Anything's weights, for masks=sam.
        sam_model: which of its models that is: vit_b, vit_l or vit_h.
    """

    working_px: int = 480
    fine_px: int = 800
    least_iou: float = 0.75
    assume_table: bool = True
    sam_weights: Path | None = None
    sam_model: str = "vit_b"

    def __post_init__(self) -> None:
        if self.working_px < 64 or self.fine_px < 64 or not 0 <= self.least_iou < 1:
            raise ConfigError(
                f"working_px and fine_px must be 64 or more and least_iou in 0 … 1, got {self.working_px}, "
                f"{self.fine_px} and {self.least_iou}"
            )


def segment(capture: Capture, config: SegmentConfig, out_folder: Path, *, again: bool = False) -> Capture:
    """The capture with an outline of the object in every photograph, as masks in `out_folder` (object = white).

    Outlines that the capture has stay as they are. If it has no table but points that show one, its world is moved so
    that z = 0 is the table, z up, and `points_path` is a file of the moved points; `segment.json` has the move and how
    well each outline agrees with the others (`read_report`). Outlines that agree too little are left out, with a line
    in `left_out`. What is already in `out_folder` from the same capture and settings is used again.

    Args:
        again: find all outlines anew, with the given masks, holes filled, as the first guess.

    Raises:
        CaptureError: a file that cannot be read.
        EvidenceError: nothing tells where the object is: no masks, no points on it, no backdrop of one colour.

    Example:
        >>> capture = read_capture("data/photos_of_a_mouse")  # doctest: +SKIP
        >>> with_masks = segment(capture, SegmentConfig(), Path("outputs/mouse/masks"))  # doctest: +SKIP
    """
    out_folder = Path(out_folder)
    images = capture.images_of(SensorKind.color)
    if len(images) < _LEAST_VIEWS:
        raise EvidenceError(f"{capture.root}: {len(images)} photographs, need {_LEAST_VIEWS} for outlines; add some")
    settings = digest(capture, config, "again" if again else "colors")
    report = left_there(out_folder, settings)
    if report is None:
        report = _segment(capture, images, config, settings, out_folder, again=again)
    return with_outlines(capture, images, report, out_folder)


def left_there(folder: Path, settings: str) -> SegmentReport | None:
    """The report of the same work done before, if all of its files are still there."""
    if not (folder / REPORT_FILE).exists():
        return None
    report = read_report(folder)
    if report.settings != settings or not all((folder / name).exists() for name in report.masks.values()):
        return None
    log.info("outlines: the %d in %s are used again", len(report.masks), folder)
    return report


def _segment(
    capture: Capture, images: Sequence[Image], config: SegmentConfig, settings: str, folder: Path, *, again: bool
) -> SegmentReport:
    log.info("outlines: %d of %d photographs have none", sum(i.mask_path is None for i in images), len(images))
    (folder / REPORT_FILE).unlink(missing_ok=True)
    points = read_points(capture)
    views = in_threads(lambda image: View.read(capture, image, _downscale(capture, image, config.working_px)), images)
    place = find_place(capture, views, points, assume_table=config.assume_table)
    firsts = [np.zeros(v.rgb.shape[:2], bool) if v.given is None else filled(v.given) for v in views] if again else None
    if again:
        views = [replace(v, given=None) for v in views]
    if place.move is not None and points is not None:
        views = [view.moved(place.move) for view in views]
        _write_points(points, place.move, folder / POINTS_FILE)
    if all(view.given is not None for view in views):
        masks, box = {}, place.box or located(views)
    else:
        floor = None if place.table == TableFrom.nothing else 0.0
        found = find_outlines(views, place.on_object, place.box, floor, firsts)
        masks, box = _write_masks(capture, views, found, config, folder), found.box
    report = _report(capture, views, box, place, masks, config, settings, folder)
    write_report(report, folder)
    return report


def _downscale(capture: Capture, image: Image, longest_side_px: int) -> int:
    camera = capture.sensor(image.sensor).camera
    return max(1, round(max(camera.width, camera.height) / longest_side_px))


def _write_masks(
    capture: Capture, views: Sequence[View], found: Found, config: SegmentConfig, folder: Path
) -> dict[str, str]:
    """Masks at the photographs' full size of those views that had none; names of files by the photographs' keys."""

    def write(at: int) -> tuple[str, str] | None:
        view = views[at]
        if view.given is not None or not found.outlines[at].any():
            return None
        rows, columns = np.nonzero(found.outlines[at])
        longest = max(np.ptp(rows), np.ptp(columns)) * view.downscale
        n = min(view.downscale, max(1, int(np.ceil(longest / config.fine_px))))
        fine = View.read(capture, view.image, n)
        mask = np.repeat(np.repeat(finer(found, at, view, fine), n, axis=0), n, axis=1)
        camera = capture.sensor(view.image.sensor).camera
        rest = ((0, camera.height - mask.shape[0]), (0, camera.width - mask.shape[1]))
        name = f"{at:04d}_{view.image.path.stem}.png"
        if not mask.any():
            return None
        with replacing(folder / name) as temporary:
            Picture.fromarray(np.pad(mask, rest, mode="edge").astype(np.uint8) * 255).save(temporary)
        return key_of(view.image), name

    written = in_threads(write, range(len(views)))
    log.info("outlines: %d masks in %s", sum(w is not None for w in written), folder)
    return dict(w for w in written if w is not None)


def _report(
    capture: Capture,
    views: Sequence[View],
    box: Box,
    place: Place,
    masks: dict[str, str],
    config: SegmentConfig,
    settings: str,
    folder: Path,
) -> SegmentReport:
    """How the masks as they are on disk agree."""
    told = [v for v in views if v.given is not None or key_of(v.image) in masks]
    outlines = [_on_disk(capture, v, folder / masks[key_of(v.image)]) if v.given is None else v.given for v in told]
    hull = carved(told, outlines, box)
    low, high = hull.box()
    margin = _BOUNDS_MARGIN * float((high - low).max())
    low, high = (low - margin).tolist(), (high + margin).tolist()
    if place.table != TableFrom.nothing:
        low[2] = 0.0
    return SegmentReport(
        settings=settings,
        table=place.table,
        move=place.move,
        bounds=((low[0], low[1], low[2]), (high[0], high[1], high[2])),
        masks=masks,
        views=compared(told, outlines, hull, config.least_iou),
    )


def _on_disk(capture: Capture, view: View, file: Path) -> Outline:
    small = replace(capture, downscale=view.downscale)
    return read_mask(small, replace(view.image, mask_path=file, object_is_black=False))


def with_outlines(capture: Capture, images: Sequence[Image], report: SegmentReport, folder: Path) -> Capture:
    """The capture with the masks of a report; `images` are those that should have one."""
    for view in report.views:
        if not view.kept:
            log.warning("outlines: %s agrees with the others by IoU %.2f only: left out", view.image, view.iou)
    disagreeing = {view.image: view.iou for view in report.views if not view.kept}
    lines = []
    outlined = []
    for image in capture.images:
        mask = report.masks.get(key_of(image))
        known = image if mask is None else replace(image, mask_path=folder / mask, object_is_black=False)
        if key_of(image) in disagreeing:
            iou = disagreeing[key_of(image)]
            lines.append(f"{image.path}: its outline agrees with those of the other views by IoU {iou:.2f} only")
            known = replace(image, mask_path=None)
        elif image in images and known.mask_path is None:
            lines.append(f"{image.path}: no outline of the object was found")
        outlined.append(known)
    moved = replace(
        capture,
        images=tuple(outlined),
        masks_are_found=bool(report.masks),
        left_out=(*capture.left_out, *lines),
    )
    if report.move is not None:
        world_from_table = report.move.inverse()
        frames = tuple(replace(f, rig_from_world=f.rig_from_world @ world_from_table) for f in capture.frames)
        moved = replace(moved, frames=frames, has_table=True, points_path=folder / POINTS_FILE)
    if capture.bounds is None or report.move is not None:
        moved = replace(moved, bounds=report.bounds)
    return moved


def _write_points(points: SparsePoints, move: Rigid, file: Path) -> None:
    cloud = trimesh.PointCloud(move.apply(torch.from_numpy(points.xyz)).numpy(), colors=points.rgb)
    with replacing(file) as temporary:
        cloud.export(temporary)


def key_of(image: Image) -> str:
    """The name of a photograph in reports."""
    return f"{image.sensor}/{image.frame}/{image.path.name}"


def digest(capture: Capture, config: SegmentConfig, way: str) -> str:
    """All that the outlines depend on: settings, calibration, and the files by name, size and date."""

    def stamp(path: Path | None) -> list[object] | None:
        if path is None:
            return None
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()]

    told = [
        [_METHOD, way, asdict(config) | {"sam_weights": str(config.sam_weights)}],
        [capture.has_table, capture.bounds, stamp(capture.points_path)],
        [[asdict(s.camera), s.sensor_from_rig.matrix().tolist()] for s in capture.sensors],
        [[f.name, f.rig_from_world.matrix().tolist()] for f in capture.frames],
        [[key_of(i), i.object_is_black, stamp(i.path), stamp(i.mask_path)] for i in capture.images],
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
