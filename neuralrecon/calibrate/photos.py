"""A capture from photographs alone: poses, lenses and sparse points, checked by what the poses must have in common."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pycolmap

from ..capture.findings import listed
from ..capture.types import Capture, SparsePoints
from ..errors import CalibrationError, ConfigError
from .hull_check import silhouette_shares
from .mapping import (
    Epipolar,
    MatchingConfig,
    epipolar_support,
    find_features,
    guess_focal_lengths,
    map_globally,
    map_incrementally,
    match_features,
    posed,
    read_grey,
    without,
)
from .photo_files import PhotoSet, list_photos
from .place import DepthCamera, KnownSize, camera_of_lens, placed_world
from .scale import Scale
from .settle import Settled, settled
from .structure import Structure, recognised_structure
from .video import VIDEO_SUFFIXES, write_frames

_LOG = logging.getLogger(__name__)
_GROWS_FROM = 0.2
_ENOUGH_AGREE = 0.95
_NEARLY_ALL = 0.9
_LEAST_COVERED = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotosConfig:
    """How photographs become a capture.

    `rig`: several cameras took every stop together (None: see whether their file names say so). `incremental` skips
    global mapping. `masks` is a folder other than ``masks`` in the photographs' own. One of `camera_distance_mm` (the
    cameras' median distance from what they look at), `object_height_mm` (highest point above the table) or
    `metres_per_unit` makes the result metric where no depth does. `n_video_frames` are taken of a video.
    """

    rig: bool | None = None
    incremental: bool = False
    masks: str = ""
    n_video_frames: int = 100
    camera_distance_mm: float | None = None
    object_height_mm: float | None = None
    metres_per_unit: float | None = None
    matching: MatchingConfig = field(default_factory=MatchingConfig)

    def __post_init__(self) -> None:
        names = ("camera_distance_mm", "object_height_mm", "metres_per_unit")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} both give the scale; keep one")
        for name in given:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0")

    @property
    def size(self) -> KnownSize:
        return KnownSize(
            camera_distance_mm=self.camera_distance_mm,
            object_height_mm=self.object_height_mm,
            metres_per_unit=self.metres_per_unit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotosResult:
    """The capture (layout "photos"), its sparse points in world units, and what was found on the way.

    `kind` is "rig, turntable", "turntable", "rig, free motion" or "free motion". `axis_off_deg` and
    `axis_off_share` are the median residuals of the turntable's fit (share of the cameras' distance), None without.
    """

    capture: Capture
    points: SparsePoints
    kind: str
    n_photos: int
    n_registered: int
    mean_error_px: float
    axis_off_deg: float | None
    axis_off_share: float | None
    epipolar_share: float
    scale: Scale | None
    findings: tuple[str, ...]


def calibrate_photos(
    source: str | Path, config: PhotosConfig, work_folder: str | Path, depth_cameras: Sequence[DepthCamera] = ()
) -> PhotosResult:
    """Poses and lenses of the photographs in a folder (one subfolder per camera) or of a video, from nothing.

    Global mapping, then growing from the views that agree with each other; what contradicts the rig's rigidity, the
    one axis of a turntable, epipolar geometry or the silhouettes is left out by name, however small its reprojection
    error. The world is metric where `depth_cameras` or the config say how large it is.

    Raises:
        CaptureError: no photographs, or unreadable ones.
        CalibrationError: fewer than three photographs could be placed.

    Example:
        >>> result = calibrate_photos("photos/mug", PhotosConfig(), "runs/mug")  # doctest: +SKIP
        >>> result.capture.left_out  # doctest: +SKIP
    """
    work = Path(work_folder)
    work.mkdir(parents=True, exist_ok=True)
    root = Path(source)
    if root.suffix.lower() in VIDEO_SUFFIXES:
        root = write_frames(root, work / "frames", config.n_video_frames)
    photos = list_photos(root, rig=config.rig, masks=config.masks, object_is_black=config.matching.object_is_black)
    findings = list(photos.findings)
    database = work / "photos.db"
    _LOG.info("%d photographs: features", len(photos.photos))
    findings += find_features(photos, database, config.matching)
    n_pairs = match_features(photos, database, config.matching)
    _LOG.info("%d pairs matched: mapping", n_pairs)
    model, structure = _mapped(photos, database, work, config)
    _LOG.info("%s: %d views agree; settling", structure.kind, int(structure.agrees.sum()))
    result = settled(photos, structure, model, database, seed=config.matching.seed)
    final = recognised_structure(
        photos, dict(zip(result.names, result.cam_from_world, strict=True)), _shares(structure), config.matching.seed
    )
    findings += _views_left_out(photos, structure, result)
    dropped, lines = _against_silhouettes(photos, result)
    findings += lines
    dropped |= {n for n, ok in zip(final.names, final.agrees, strict=True) if not ok}
    world = placed_world(photos, result, final, dropped, config.size, depth_cameras)
    findings += world.findings
    turntable = final.turntable
    return PhotosResult(
        capture=replace(world.capture, left_out=tuple(findings)),
        points=world.points,
        kind=final.kind,
        n_photos=len(photos.photos),
        n_registered=len(result.names) - len(dropped),
        mean_error_px=result.mean_error_px,
        axis_off_deg=None if turntable is None else float(np.median(turntable.agreement.rotation_deg)),
        axis_off_share=None if turntable is None else float(np.median(turntable.agreement.centre_share)),
        epipolar_share=float(np.median(structure.epipolar_share)),
        scale=world.scale,
        findings=tuple(findings),
    )


def _shares(structure: Structure) -> dict[str, float]:
    return dict(zip(structure.names, structure.epipolar_share.tolist(), strict=True))


def _mapped(
    photos: PhotoSet, database: Path, work: Path, config: PhotosConfig
) -> tuple[pycolmap.Reconstruction, Structure]:
    """The mapping that holds best: by the views on a rig or turntable that agree, else by the matches it contradicts.

    Where a rig or turntable tells which views of global mapping are right, incremental mapping grows from those. Free
    motion has no such witness: two halves may each be right and wrongly joined, so both mappers are always run.
    """
    seed, matching = config.matching.seed, config.matching
    best: _Attempt | None = None
    if not config.incremental:
        guess_focal_lengths(database, seed)
        best = _judged(photos, database, map_globally(photos, database, work / "global", matching, seed), seed)
    if best is not None and best.is_witnessed and _GROWS_FROM <= best.share_agreed < _ENOUGH_AGREE:
        wrong = {p.name for p in photos.photos} - best.agreed
        grown = map_incrementally(photos, database, work / "grown", matching, without(best.model, wrong))
        best = _better(best, _judged(photos, database, grown, seed))
    if best is None or not best.is_witnessed or best.share_agreed < _ENOUGH_AGREE:
        again = map_incrementally(photos, database, work / "incremental", matching)
        best = _better(best, _judged(photos, database, again, seed))
    if best is None:
        raise CalibrationError(
            f"{photos.root}: none of the {len(photos.photos)} photographs could be placed; take more of them, closer "
            "together, of an object (or a table) with texture"
        )
    return best.model, best.structure


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """A mapping and what speaks for it."""

    model: pycolmap.Reconstruction
    structure: Structure
    n_photos: int
    support: Epipolar

    @property
    def is_witnessed(self) -> bool:
        return self.structure.rig is not None or self.structure.turntable is not None

    @property
    def agreed(self) -> set[str]:
        return {n for n, ok in zip(self.structure.names, self.structure.agrees, strict=True) if ok}

    @property
    def share_agreed(self) -> float:
        return len(self.agreed) / self.n_photos


def _judged(photos: PhotoSet, database: Path, model: pycolmap.Reconstruction | None, seed: int) -> _Attempt | None:
    if model is None or model.num_reg_images() < 3:
        return None
    support = epipolar_support(model, database)
    structure = recognised_structure(photos, posed(model), support.shares, seed)
    agreed = int(structure.agrees.sum())
    n_against = len(support.contradicted)
    _LOG.info("%s: %d of %d agree, %d pairs contradict", structure.kind, agreed, len(photos.photos), n_against)
    return _Attempt(model=model, structure=structure, n_photos=len(photos.photos), support=support)


def _better(a: _Attempt | None, b: _Attempt | None) -> _Attempt | None:
    if a is None or b is None:
        return a if b is None else b
    if a.is_witnessed or b.is_witnessed:
        return max(a, b, key=lambda x: (x.is_witnessed, len(x.agreed), x.support.n_explained))
    most = max(len(a.agreed), len(b.agreed))
    whole = [x for x in (a, b) if len(x.agreed) >= _NEARLY_ALL * most]
    return min(whole, key=lambda x: (len(x.support.contradicted), -x.support.n_explained))


def _views_left_out(photos: PhotoSet, structure: Structure, result: Settled) -> list[str]:
    """A line for the views that are not in the result, and for those that the rig put right."""
    settled_names = set(result.names)
    wrong = [n for n, ok in zip(structure.names, structure.agrees, strict=True) if not ok]
    never = [p.name for p in photos.photos if p.name not in structure.names]
    check = "the rig and its axis" if structure.rig is not None else f"the others ({structure.kind})"
    lines = []
    for names, what in (
        ([n for n in wrong if n not in settled_names], f"posed in contradiction to {check} and left out"),
        ([n for n in never if n not in settled_names], "could not be placed and left out"),
        ([n for n in (*wrong, *never) if n in settled_names], "not placed by matching: posed by the rig"),
        ([n for n in result.unsupported if n not in (*wrong, *never)], "saw too little that others see and left out"),
    ):
        if names:
            lines.append(f"{len(names)} photographs {what}: {listed(names)}")
    return lines


def _against_silhouettes(photos: PhotoSet, result: Settled) -> tuple[set[str], list[str]]:
    """Views whose mask the hull of the other views does not cover."""
    masks = {p.name: p.mask_path for p in photos.photos if p.mask_path is not None and p.name in result.names}
    if len(masks) < 4:
        return set(), []
    by_name = {p.name: p for p in photos.photos}
    chosen = [i for i, name in enumerate(result.names) if name in masks]
    own = [by_name[result.names[i]] for i in chosen]
    shares = silhouette_shares(
        [(read_grey(masks[p.name]) < 128) == p.object_is_black for p in own],
        [camera_of_lens(result.intrinsics[p.sensor], p.size) for p in own],
        result.cam_from_world[chosen],
    )
    off = {result.names[i] for i, share in zip(chosen, shares, strict=True) if share < _LEAST_COVERED}
    line = f"silhouettes: the other views' hull covers {np.median(shares):.1%} of a mask (median)"
    lines = [f"{line}; left out as contradicting it: {listed(sorted(off))}" if off else line]
    if len(off) > 0.3 * len(chosen):
        return set(), [f"{line}; {len(off)} masks contradict it, too many to be the poses' fault: check the masks"]
    return off, lines
