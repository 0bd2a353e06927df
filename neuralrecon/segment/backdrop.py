"""What a turntable's photographs would show without the object: the room stands still, the table's top turns.

A fixed camera sees the room at the same pixel at all stops. A place on the table's top turns with the object, but where
it shows at another stop the plane z = 0 says. So both are known from the stops at which the object does not hide them,
whatever the object is made of: glass shows the room behind it in the wrong place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8

from .views import Outline, View

EDGE = 0.02  # of the object's size: how far off an outline may be that is known at first
_MOST_STOPS = 24  # of which the room's picture is made
_LEAST_AGREED = 0.3  # of them, where the object is not known to be
_LEAST_FREE = 0.2  # of the stops do not show the object: fewer may be those at which its mask has a hole
_TURNS = (1 / 15, 1 / 6, 1 / 3, 1 / 2)  # to the stops at which the table's top is looked up, both ways
_REACH = 0.6  # of the camera's distance from the axis: how far out the table's top may matter
_LEAST_SAMPLES = 2
_ALIKE_LEVELS, _EVENED_ALIKE_LEVELS, _LEAST_ALIKE = (
    14.0,
    8.0,
    0.6,
)  # a backdrop is known where this share of its samples is so near the median
_QUIET, _OF_QUIET, _LEAST_LEVELS, _MOST_LEVELS = (
    0.7,
    4.0,
    5.0,
    16.0,
)  # noise: so many times this quantile off the object
_LEAST_ODDS, _MOST_ODDS = -1.5, 3.0  # nearly alike, or smoothing would move outlines
_DARKEST_SHADOW, _SHADED_ALIKE_LEVELS = 0.6, 8  # of the light; by how many levels its colour may be off
_OF_SHADOW = 0.4  # of the odds: what may be a shadow may be the object, too
_N_RINGS = 200
_PLAIN_LEVELS = 40

Window = tuple[slice, slice]
Place = Float[np.ndarray, "v u 3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Where the turntable's axis meets the plane z = 0 (world), and how far its top reaches (0: it shows nowhere)."""

    xy: Float[np.ndarray, "2"]
    radius: float = 0.0


def found_axis(views: Sequence[View]) -> Axis:
    """The point of z = 0 that stays where it is in every camera's own frame, from all stops of each sensor."""
    rows, right = [], []
    for sensor in {v.image.sensor for v in views}:
        poses = [v.cam_from_world for v in views if v.image.sensor == sensor]
        turns = np.stack([p.rotation.numpy() for p in poses])[:, :, :2]
        shifts = np.stack([p.translation.numpy() for p in poses])
        rows.append((turns - turns.mean(0)).reshape(-1, 2))
        right.append(-(shifts - shifts.mean(0)).ravel())
    return Axis(xy=np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0])


def top_radius(views: Sequence[View], axis: Axis) -> float:
    """How far from the axis photographs change as a turning plane does, and not as a room that stands still.

    Args:
        views: of some sensors, all stops of each, in order.
    """
    of_sensor: dict[str, list[View]] = {}
    for view in views:
        of_sensor.setdefault(view.image.sensor, []).append(view)
    farthest = _REACH * max(float(np.linalg.norm(v.center[:2] - axis.xy)) + abs(v.center[2]) for v in views)
    better = np.zeros(_N_RINGS)
    for stops in of_sensor.values():
        whole = (slice(None), slice(None))
        for at in range(0, len(stops), max(1, len(stops) // 3)):
            view, other = stops[at], stops[(at + max(1, len(stops) // 12)) % len(stops)]
            places = _places(view, whole, farthest, axis)
            turned, valid = _looked_up(other, places, None)
            still, moved = _beyond(np.stack([other.rgb, turned]), view.rgb, view.rgb).astype(float).clip(0, 60)
            gain = still - moved
            apart = np.linalg.norm(places[..., :2] - axis.xy, axis=-1)
            ring = (apart[valid] / farthest * _N_RINGS).astype(int).clip(0, _N_RINGS - 1)
            better += np.bincount(ring, weights=gain[valid], minlength=_N_RINGS)
    total = np.cumsum(better)
    best = int(total.argmax())
    return float((best + 1) / _N_RINGS * farthest) if total[best] > 0 else 0.0


def backdrop_odds(
    views: Sequence[View], hidden: Sequence[Outline] | None, window: Window, axis: Axis
) -> Iterator[Float32[np.ndarray, "v u"]]:
    """For each photograph of one sensor, in order, the log odds of object to backdrop at the window's pixels.

    0 where the backdrop is not known: where the object hides it at all stops.

    Args:
        views: all stops of one sensor, one size.
        hidden: what the object may hide, which may be too wide by `EDGE`; None if nothing is known of it.
    """
    whole = [v.rgb for v in views]
    # an outline a little too wide would hide the backdrop beside the object
    surely = None if hidden is None else [_narrower(h, EDGE * float(np.sqrt(h.sum()))) for h in hidden]
    room, is_known = _room(whole, surely, window, _ALIKE_LEVELS)
    gains = [_gain(v.rgb[window], room, is_known if h is None else is_known & ~h[window])
             for v, h in zip(views, hidden or [None] * len(views), strict=True)]  # fmt: skip
    evened = [_scaled(rgb, gain) for rgb, gain in zip(whole, gains, strict=True)]
    room, is_known = _room(evened, surely, window, _EVENED_ALIKE_LEVELS)
    for at, view in enumerate(views):
        places = _places(view, window, axis.radius, axis)
        on_top = np.isfinite(places[..., 0])
        seen = evened[at][window]
        nearby = None if hidden is None else hidden[at][window]
        odds = _odds(_beyond(seen[None], room, room)[0], is_known & ~on_top, nearby)
        if on_top.any():
            top, top_known = _top(views, evened, surely, at, places)
            low, high = _range(top)
            off = _beyond(seen[None], low, high)[0]
            # along the print's edges nearly every colour would fit
            plain = cv2.subtract(high, low).max(axis=-1) < _PLAIN_LEVELS
            tells = plain | (off > _PLAIN_LEVELS)
            on_top_odds = _odds(off, top_known & tells & on_top, nearby)
            odds = np.where(on_top, np.where(plain & _is_shadow(seen, top), _OF_SHADOW, 1) * on_top_odds, odds)
        yield odds


def _narrower(outline: Outline, by_px: float) -> Outline:
    n = 2 * max(1, round(by_px)) + 1
    return cv2.erode(outline.astype(np.uint8), np.ones((n, n), np.uint8)) > 0


def _is_shadow(seen: UInt8[np.ndarray, "v u 3"], picture: UInt8[np.ndarray, "v u 3"]) -> Bool[np.ndarray, "v u"]:
    """Where a picture is seen in a darker light and in no other colour."""
    light = seen.sum(axis=-1, dtype=np.float32) / np.maximum(picture.sum(axis=-1, dtype=np.float32), 1)
    shaded = (picture * light.clip(0, 1)[..., None]).astype(np.uint8)
    return (light > _DARKEST_SHADOW) & (light < 1) & (_beyond(seen[None], shaded, shaded)[0] < _SHADED_ALIKE_LEVELS)


def _odds(off: np.ndarray, known: np.ndarray, hidden: np.ndarray | None) -> Float32[np.ndarray, "v u"]:
    quiet = off[known if hidden is None else known & ~hidden]
    noise = _OF_QUIET * float(np.quantile(quiet, _QUIET)) if len(quiet) else _MOST_LEVELS
    odds = 2 * (off / np.clip(noise, _LEAST_LEVELS, _MOST_LEVELS) - 1.25)
    return np.where(known, odds.clip(_LEAST_ODDS, _MOST_ODDS), 0).astype(np.float32)


def _room(
    photographs: Sequence[UInt8[np.ndarray, "v u 3"]],
    hidden: Sequence[Outline] | None,
    window: Window,
    alike_levels: float,
) -> tuple[UInt8[np.ndarray, "v u 3"], Bool[np.ndarray, "v u"]]:
    """The picture of what stands still: the colour that most stops agree on, and where enough of them do."""
    n = len(photographs)
    chosen = np.unique(np.linspace(0, n - 1, min(n, _MOST_STOPS)).astype(int))
    samples = np.stack([photographs[i][window] for i in chosen])
    free = np.ones(samples.shape[:3], bool) if hidden is None else np.stack([~hidden[i][window] for i in chosen])
    most = np.zeros(samples.shape[1:3], np.int16)
    mode = samples[0].copy()
    for one, is_free in zip(samples, free, strict=True):
        near = (_beyond(samples, one, one) < alike_levels) & free
        n_near = near.sum(axis=0, dtype=np.int16) * is_free
        better = n_near > most
        most[better] = n_near[better]
        weights = near[:, better, None]
        mode[better] = np.rint((samples[:, better] * weights).sum(axis=0) / n_near[better, None]).astype(np.uint8)
    n_free = free.sum(axis=0)
    is_seen = n_free >= _LEAST_FREE * len(chosen)
    return mode, is_seen & (most >= _LEAST_SAMPLES) & (most >= _LEAST_AGREED * n_free)


def _top(
    views: Sequence[View],
    evened: Sequence[UInt8[np.ndarray, "v u 3"]],
    hidden: Sequence[Outline] | None,
    at: int,
    places: Place,
) -> tuple[UInt8[np.ndarray, "v u 3"], Bool[np.ndarray, "v u"]]:
    """How the turning plane would look at stop `at`, from other stops."""
    n = len(views)
    steps = {s for turn in _TURNS for s in (max(1, round(turn * n)), n - max(1, round(turn * n)))}
    others = sorted({(at + s) % n for s in steps} - {at})
    looked = [_looked_up(views[q], places, evened[q], None if hidden is None else hidden[q]) for q in others]
    return _median(np.stack([rgb for rgb, _ in looked]), np.stack([valid for _, valid in looked]), within_px=1)


def _places(view: View, window: Window, radius: float, axis: Axis) -> Place:
    """Where each pixel's ray meets z = 0 in world; nan beyond the radius."""
    columns, rows = np.arange(view.camera.width)[window[1]] + 0.5, np.arange(view.camera.height)[window[0]] + 0.5
    uv = torch.from_numpy(np.stack(np.meshgrid(columns, rows), axis=-1))
    world_from_cam = view.cam_from_world.inverse()
    along = world_from_cam.rotate(view.camera.rays(uv).reshape(-1, 3)).numpy()
    reach = -view.center[2] / np.minimum(along[:, 2], -1e-9)
    found = view.center + reach[:, None] * along
    found[np.linalg.norm(found[:, :2] - axis.xy, axis=1) > radius] = np.nan
    return found.reshape(len(rows), len(columns), 3)


def _looked_up(
    view: View, places: Place, rgb: UInt8[np.ndarray, "v u 3"] | None = None, hidden: Outline | None = None
) -> tuple[UInt8[np.ndarray, "v u 3"], Bool[np.ndarray, "v u"]]:
    """The photograph at places in world, and where it shows them, not hidden."""
    finite = np.isfinite(places[..., 0])
    uv, seen, _ = view.project(torch.from_numpy(places[finite].astype(np.float32)))
    across = np.full((*finite.shape, 2), -1e4, np.float32)
    across[finite] = uv.numpy() - 0.5
    u, v = np.ascontiguousarray(across[..., 0]), np.ascontiguousarray(across[..., 1])
    valid = np.zeros(finite.shape, bool)
    valid[finite] = seen.numpy()
    if hidden is not None:
        shade = cv2.remap(hidden.astype(np.uint8), u, v, cv2.INTER_NEAREST, borderValue=1)
        valid &= shade == 0
    source = view.rgb if rgb is None else rgb
    return cv2.remap(source, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), valid


def _median(
    samples: UInt8[np.ndarray, "stops v u 3"], valid: Bool[np.ndarray, "stops v u"], within_px: int = 0
) -> tuple[UInt8[np.ndarray, "v u 3"], Bool[np.ndarray, "v u"]]:
    """Of the valid samples, by channel; known where enough of them are near it."""
    n_valid = valid.sum(axis=0)
    last = np.where(valid[..., None], samples, 255)
    # invalid samples sort behind all others: the median of the first n
    middle = np.take_along_axis(np.sort(last, axis=0), ((n_valid.clip(1) - 1) // 2)[None, ..., None], axis=0)[0]
    low, high = (middle, middle) if within_px == 0 else _range(middle)
    n_alike = ((_beyond(samples, low, high) < _ALIKE_LEVELS) & valid).sum(axis=0)
    return middle, (n_valid >= _LEAST_SAMPLES) & (n_alike >= _LEAST_ALIKE * n_valid)


def _beyond(
    samples: UInt8[np.ndarray, "stops v u 3"], low: UInt8[np.ndarray, "v u 3"], high: UInt8[np.ndarray, "v u 3"]
) -> UInt8[np.ndarray, "stops v u"]:
    """By how many levels samples are off the range of two pictures, in the worst channel."""
    # saturated: differences below 0 are 0
    off = [cv2.max(cv2.subtract(low, s), cv2.subtract(s, high)) for s in samples]
    return np.stack([np.maximum(np.maximum(o[..., 0], o[..., 1]), o[..., 2]) for o in off])


def _gain(rgb: np.ndarray, room: np.ndarray, known: np.ndarray) -> Float[np.ndarray, "3"]:
    """The photograph's exposure against the room's picture."""
    clear = known & (room.min(axis=-1) > 20) & (rgb.max(axis=-1) < 250)
    if clear.sum() < 200:
        return np.ones(3)
    return np.clip(np.median(rgb[clear] / room[clear], axis=0), 0.8, 1.25)


def _scaled(rgb: UInt8[np.ndarray, "v u 3"], gain: Float[np.ndarray, "3"]) -> UInt8[np.ndarray, "v u 3"]:
    table = np.clip(np.arange(256)[:, None] / gain + 0.5, 0, 255).astype(np.uint8)
    return np.stack([table[rgb[..., c], c] for c in range(3)], axis=-1)


def _range(picture: UInt8[np.ndarray, "v u 3"]) -> tuple[UInt8[np.ndarray, "v u 3"], UInt8[np.ndarray, "v u 3"]]:
    """The least and the most that the picture has within a pixel: poses are good to about that."""
    around = np.ones((3, 3), np.uint8)
    return cv2.erode(picture, around), cv2.dilate(picture, around)
