"""From a view that is wished for to a picture with its caption."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from ..capture import Capture, Image
from ..label import Solid
from ..train import Fit
from .eyes import Eye, Window, eye_of, through, window_on
from .inliers import Readings, believed_at, nearest_depth_images, read_all
from .maps import Maps, rendered
from .pictures import DOUBT, NOTHING, SEQUENTIAL, Picture, bar, colored, normals_colored, side_by_side
from .runs import Run
from .thumbnails import is_depth, part_of_map, part_of_photograph

_BACKGROUND = np.array(NOTHING) / 255


class Shows(StrEnum):
    """What a rendered view shows."""

    color = "colour"
    normal = "normal"
    depth = "depth"
    inliers = "inliers of depth"


@dataclass(slots=True, kw_only=True)
class Subject:
    """What views are of; `readings` are depth images that were read before, by file."""

    run: Run
    fit: Fit
    capture: Capture | None
    solid: Solid | None
    readings: dict[str, Readings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A picture, and what it shows in words."""

    picture: Picture
    caption: str


def seen_from(subject: Subject, eye: Eye, shows: Shows) -> Seen:
    """The fit from a camera that took no image.

    Raises:
        CaptureError: inliers are asked for and a depth image cannot be read.
    """
    maps = rendered(subject.fit, eye)
    match shows:
        case Shows.depth:
            low, high = _depth_range(maps.depth_m)
            picture = colored(maps.depth_m, low, high, SEQUENTIAL)
        case Shows.inliers:
            picture = colored(_believed(subject, eye, maps), 0, 1, DOUBT)
        case _:
            picture = _plain(maps, shows)
    caption = "Rendered from this window's camera" + (
        ", with the lights of the stop most alike" * (shows == Shows.color)
    )
    return Seen(picture=_with_bar(picture, shows), caption=f"{caption}. {_legend(shows, maps.depth_m)}")


def seen_beside(subject: Subject, capture: Capture, image: Image, shows: Shows, longest_px: int) -> Seen:
    """The fit from an image's camera, after the image itself; both cropped to the object.

    Raises:
        CaptureError: the image cannot be read, or one of the depth images that inliers are told by.
    """
    whole = eye_of(capture, image)
    window = window_on(whole, subject.fit.box, longest_px)
    eye = through(whole, window)
    maps = rendered(subject.fit, eye)
    taken, kind = _taken(subject, capture, image, window, shows, maps)
    match shows:
        case Shows.depth:
            low, high = _depth_range(maps.depth_m)
            picture = colored(maps.depth_m, low, high, SEQUENTIAL)
        case Shows.inliers:
            picture = colored(_believed(subject, eye, maps, image), 0, 1, DOUBT)
        case _:
            picture = _plain(maps, shows)
    wide = window.width > 1.25 * window.height
    places = ("Above", "below") if wide else ("Left", "right")
    caption = f"{places[0]}: {kind} {image.path.name}, {places[1]}: the fit. {_legend(shows, maps.depth_m)}"
    return Seen(picture=_with_bar(side_by_side([taken, picture]), shows), caption=caption)


def _taken(
    subject: Subject, capture: Capture, image: Image, window: Window, shows: Shows, maps: Maps
) -> tuple[Picture, str]:
    """What the camera itself recorded, in the colours in which the fit is shown."""
    if not is_depth(capture, image):
        return part_of_photograph(capture, image, window), "photograph"
    [one] = read_all(subject.run, capture, [image], subject.fit, subject.readings)
    depth = part_of_map(one.depth_m, window)
    read = np.where(depth > 0, depth, np.nan)
    if shows == Shows.inliers:
        believed = part_of_map(one.probability, window)
        return colored(np.where(depth > 0, believed, np.nan), 0, 1, DOUBT), "inliers of the readings of"
    low, high = _depth_range(maps.depth_m)
    return colored(read, low, high, SEQUENTIAL), "depth readings of"


def _believed(subject: Subject, eye: Eye, maps: Maps, image: Image | None = None) -> np.ndarray:
    """A depth image tells of itself; for other eyes the depth images that look from directions most alike tell."""
    capture = subject.capture
    if capture is None:
        return np.full(maps.opacity.shape, np.nan)
    own = image is not None and is_depth(capture, image)
    images = (image,) if own and image is not None else nearest_depth_images(capture, eye.cam_from_world, subject.fit)
    readings = read_all(subject.run, capture, images, subject.fit, subject.readings)
    return believed_at(maps.points, maps.normals, readings, subject.solid)


def _plain(maps: Maps, shows: Shows) -> Picture:
    if shows == Shows.normal:
        return normals_colored(maps.normals)
    over = maps.colors + (1 - maps.opacity[..., None]) * _BACKGROUND
    return np.round(np.clip(over, 0, 1) * 255).astype(np.uint8)


def _depth_range(depth_m: np.ndarray) -> tuple[float, float]:
    told = depth_m[np.isfinite(depth_m)]
    return (float(told.min()), float(told.max())) if len(told) else (0.0, 1.0)


def _legend(shows: Shows, depth_m: np.ndarray) -> str:
    match shows:
        case Shows.depth:
            low, high = _depth_range(depth_m)
            return f"{low:.4g} (violet) to {high:.4g} (yellow) along the optical axis, in the world's unit."
        case Shows.inliers:
            return "Red: readings there are taken for errors, green: for the surface, grey: none was read."
        case Shows.normal:
            return "x, y, z of the world as red, green, blue; grey is 0."
    return ""


def _with_bar(picture: Picture, shows: Shows) -> Picture:
    colors = {Shows.depth: SEQUENTIAL, Shows.inliers: DOUBT}.get(shows)
    if colors is None:
        return picture
    gap = np.full((4, picture.shape[1], 3), 255, np.uint8)
    return np.concatenate([picture, gap, bar(colors, picture.shape[1], max(6, picture.shape[1] // 40))])
