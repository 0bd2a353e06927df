"""Outlines before a turntable's backdrop: given ones that may be wrong made right, or new ones from nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from jaxtyping import Float32, Int8
from scipy.ndimage import binary_closing, binary_opening

from ..capture import Capture, Image
from ..errors import EvidenceError
from .backdrop import EDGE, Axis, Window, backdrop_odds, found_axis, top_radius
from .grabcut import Region, cut_by_odds, depth_px
from .outlines import Box, Round, carved, in_threads, telling
from .pieces import filled, largest_piece, tidied, without_specks
from .views import Outline, View
from .votes import VotedHull, locate, vote_finer

log = logging.getLogger(__name__)

_COARSE_PX, _FINE_PX = 400, 1600  # longer side of a photograph, at most
_ROUNDS = (
    Round(cells=96, contrary_share=0.10, outwards=0.06, inwards=0.08),
    Round(cells=112, contrary_share=0.05, outwards=0.04, inwards=0.04),
)
_FIRST_SHARE = 0.3  # of wrong first guesses
_SMOOTH_PX = 1.0
# log odds, at most, of lying within the hull of the others (wider than the object), and within the last outline
_ODDS_OF_HULL, _ODDS_OF_LAST, _EXCESS_PX = 0.6, 0.4, 1.5
_LEAST_VIEWS = 3
_LEAST_AREA = 0.002  # of the photograph
_SURE_ODDS, _SPECK_PX = 0.35, 12
_WINDOW = 0.07  # of the object's extent at all stops: what is looked at around it
_GREY = 24.0  # a log odd of 1 in the int8 in which they are kept
_PADDING = 3.0

Odds = Int8[np.ndarray, "v u"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A photograph at working size, and what its window tells: log odds of object to backdrop times `_GREY`."""

    view: View
    window: Window
    odds: Odds


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Outlines of all photographs at the views' size, and the box around their hull."""

    views: tuple[View, ...]
    outlines: tuple[Outline, ...]
    box: Box


def before_backdrop(capture: Capture, images: Sequence[Image], *, from_given: bool) -> Settled:
    """Outlines of the object by what differs from the turntable's backdrop, such that the views agree.

    Args:
        capture: of a turntable, all stops of which a sensor took one photograph each.
        from_given: start with the capture's masks, whatever holes they have, and keep what lies well within both them
            and the hull of the others; from nothing if a photograph has none. Else as if there were no masks.

    Raises:
        CaptureError: a file that cannot be read.
        EvidenceError: the photographs have nothing in common that differs from their backdrop.
    """
    wanted = images if from_given else [replace(image, mask_path=None) for image in images]
    coarse = _read(capture, wanted, _COARSE_PX)
    axis = found_axis(coarse)
    axis = replace(axis, radius=top_radius(coarse, axis))
    log.info("outlines: the turntable's top reaches to %.4f from its axis", axis.radius)
    views = _read(capture, wanted, _FINE_PX)
    first = [filled(v.given) for v in views if v.given is not None]
    if len(first) < len(views):
        first = _resized(_settled(coarse, None, axis)[0], views)
    outlines, box = _settled(views, first, axis)
    return Settled(views=tuple(views), outlines=tuple(outlines), box=box)


def _settled(views: Sequence[View], first: Sequence[Outline] | None, axis: Axis) -> tuple[list[Outline], Box]:
    """Outlines that agree, from what is known at first or from nothing, and the box around their hull."""
    seen = _compared(views, first, axis)
    outlines = in_threads(_guessed, list(zip(seen, first or _never_background(seen), strict=True)))
    told = [(v, o) for v, o in zip(views, outlines, strict=True) if o.any()]
    if len(told) < _LEAST_VIEWS:
        raise EvidenceError(
            f"{views[0].image.path.parent}: something that differs from the turntable's backdrop was found in "
            f"{len(told)} of {len(views)} photographs, need {_LEAST_VIEWS}; give masks"
        )
    box = locate([v for v, _ in told], [o for _, o in told], _FIRST_SHARE)
    for number, step in enumerate(_ROUNDS):
        box, outlines = _agreed(seen, outlines, box, step)
        log.info("outlines: round %d of %d before the backdrop", number + 1, len(_ROUNDS))
    return outlines, box


def _agreed(seen: Sequence[Seen], outlines: Sequence[Outline], box: Box, step: Round) -> tuple[Box, list[Outline]]:
    """The outlines cut again with the hull of the others as their prior, and the box around it."""
    views = [s.view for s in seen]
    hull = carved(views, outlines, box, step)
    priors = _priors(vote_finer(hull, *telling(views, outlines)), views, outlines)
    return _around(hull), in_threads(partial(_cut, step), list(zip(seen, priors, outlines, strict=True)))


def _resized(outlines: Sequence[Outline], views: Sequence[View]) -> list[Outline]:
    sizes = [v.rgb.shape[1::-1] for v in views]
    return [cv2.resize(o.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
            for o, size in zip(outlines, sizes, strict=True)]  # fmt: skip


def _read(capture: Capture, images: Sequence[Image], longest_px: int) -> list[View]:
    def read(image: Image) -> View:
        camera = capture.sensor(image.sensor).camera
        return View.read(capture, image, max(1, -(-max(camera.width, camera.height) // longest_px)))

    return in_threads(read, images)


def _guessed(known: tuple[Seen, Outline]) -> Outline:
    """What differs from the backdrop, and what is known to be object."""
    seen, first = known
    apart = first.copy()
    apart[seen.window] |= _different(seen)
    return largest_piece(np.asarray(binary_opening(filled(apart))), _LEAST_AREA)


def _different(seen: Seen) -> Outline:
    return without_specks(seen.odds > _SURE_ODDS * _GREY, _SPECK_PX)


def _never_background(seen: Sequence[Seen]) -> list[Outline]:
    """What lies between places that the object hides at some stops, and looks the same at all: it hides that always.

    The places of a turning object are a solid of revolution, whose middle no stop may uncover.
    """
    found = [np.zeros(s.view.rgb.shape[:2], bool) for s in seen]
    for at in _stops([s.view for s in seen]):
        n_apart = np.sum([_different(seen[i]) for i in at], axis=0)
        ever = largest_piece(np.asarray(binary_closing(n_apart >= 2, iterations=2)), 0.0)
        swept = np.logical_or.accumulate(ever, axis=1) & np.logical_or.accumulate(ever[:, ::-1], axis=1)[:, ::-1]
        for i in at:
            found[i][seen[i].window] = swept & (n_apart <= 1)
    return found


def _stops(views: Sequence[View]) -> list[list[int]]:
    """Where each sensor's photographs are."""
    of_sensor: dict[str, list[int]] = {}
    for i, view in enumerate(views):
        of_sensor.setdefault(view.image.sensor, []).append(i)
    return list(of_sensor.values())


def _compared(views: Sequence[View], outlines: Sequence[Outline] | None, axis: Axis) -> list[Seen]:
    """Each photograph with its backdrop, which the object hides at most where the outlines are.

    All of the photographs if nothing is known of the object, or else the window around all outlines of the sensor.
    """
    found: dict[int, Seen] = {}
    for at in _stops(views):
        some = [views[i] for i in at]
        hidden = None if outlines is None else [outlines[i] for i in at]
        window = _window(some[0], hidden)
        for view, i, odds in zip(some, at, backdrop_odds(some, hidden, window, axis), strict=True):
            smooth = cv2.GaussianBlur(odds, (0, 0), _SMOOTH_PX)
            found[i] = Seen(view=view, window=window, odds=(smooth * _GREY).round().astype(np.int8))
    return [found[i] for i in range(len(views))]


def _cut(step: Round, known: tuple[Seen, Outline, Outline]) -> Outline:
    seen, whole_prior, last = known
    prior = whole_prior[seen.window]
    outline = np.zeros_like(whole_prior)
    size = float(np.sqrt(prior.sum()))
    if size == 0:
        return outline
    odds = seen.odds.astype(np.float32) / _GREY
    soft = max(step.inwards * size / 2, 2.0)
    in_hull = np.clip((_signed_px(prior) - _EXCESS_PX) / soft, -1, 1)
    in_last = np.clip(_signed_px(last[seen.window]) / soft, -1, 1)
    by_all: Float32[np.ndarray, "v u"] = odds + _ODDS_OF_HULL * in_hull + _ODDS_OF_LAST * in_last
    region = Region.around(prior, outwards=step.outwards, inwards=step.inwards)
    if seen.view.given is not None:
        # glass may look like the backdrop even there
        deep = prior & (depth_px(seen.view.given)[seen.window] > max(EDGE * size, 2.0))
        region = replace(region, surely=region.surely | deep, undecided=region.undecided & ~deep)
    outline[seen.window] = tidied(cut_by_odds(by_all, region))
    return outline


def _signed_px(outline: Outline) -> Float32[np.ndarray, "v u"]:
    """Depth inside, negative outside."""
    return depth_px(outline) - depth_px(~outline)


def _priors(hull: VotedHull, views: Sequence[View], outlines: Sequence[Outline]) -> list[Outline]:
    def look(known: tuple[View, Outline]) -> Outline:
        view, outline = known
        return hull.outline(view, without=outline if outline.any() else None)

    return in_threads(look, list(zip(views, outlines, strict=True)))


def _window(view: View, hidden: Sequence[Outline] | None) -> Window:
    """What holds the object at all stops, and as much around it as shows the backdrop's noise."""
    height, width = view.rgb.shape[:2]
    ever = np.zeros((height, width), bool) if hidden is None else np.any(hidden, axis=0)
    if not ever.any():
        return slice(0, height), slice(0, width)
    rows, columns = np.flatnonzero(ever.any(axis=1)), np.flatnonzero(ever.any(axis=0))
    pad = max(8, round(_WINDOW * max(np.ptp(rows), np.ptp(columns))))
    return (
        slice(max(0, int(rows[0]) - pad), min(height, int(rows[-1]) + pad + 1)),
        slice(max(0, int(columns[0]) - pad), min(width, int(columns[-1]) + pad + 1)),
    )


def _around(hull: VotedHull) -> Box:
    low, high = hull.box()
    low, high = low - _PADDING * hull.cell, high + _PADDING * hull.cell
    low[2] = max(low[2], 0.0)
    return low, high
