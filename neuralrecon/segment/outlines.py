"""From first guesses to outlines that agree: a hull by vote, its look in each view, a cut along the edges near it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import EvidenceError
from .first import backdrop_color, outline_by_points, outline_on_backdrop
from .grabcut import ColorModel, Region, depth_px
from .pieces import tidied
from .views import Outline, View
from .votes import VotedHull, locate, vote

log = logging.getLogger(__name__)

Box = tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """How far one round trusts the one before it.

    `contrary_share` of the outlines carve a cell of the hull. The outline may move by `outwards` and `inwards`, shares
    of the side of a square as large as the object.
    """

    cells: int
    contrary_share: float
    outwards: float
    inwards: float


_ROUNDS = (
    Round(cells=64, contrary_share=0.25, outwards=0.05, inwards=0.10),
    Round(cells=96, contrary_share=0.10, outwards=0.04, inwards=0.08),
    Round(cells=112, contrary_share=0.05, outwards=0.03, inwards=0.05),
    Round(cells=112, contrary_share=0.05, outwards=0.02, inwards=0.03),
)
_LAST = _ROUNDS[-1]
_LEAST_POINTS = 30
_N_COLORS = 500  # of the object and of its surroundings, from each photograph
_NEAR, _FAR = 0.03, 0.4  # where the surroundings' colours are taken from, in shares as above
_DEEP = 0.1  # where the object's are: further in than its shadow may have crept into the outlines
_LEAST_BRIGHT = 40.0  # a darker surrounding tells nothing about the photograph's exposure
_LIFT = 0.03  # of the height
_PADDING = 3.0  # cells around the hull
_FINE_PX = 2.5  # of the coarse photograph: how far the last cut at full size may move the outline


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Outlines at the views' size, the hull that they leave, and what a finer cut of each photograph needs.

    `gains` bring each photograph's surroundings to one brightness.
    """

    outlines: tuple[Outline, ...]
    gains: tuple[Float[np.ndarray, "3"], ...]
    colors: ColorModel
    box: Box


def find_outlines(
    views: Sequence[View],
    points: Float[np.ndarray, "points 3"] | None,
    box: Box | None,
    floor: float | None,
    firsts: Sequence[Outline] | None = None,
) -> Found:
    """Outlines of the one object that all views show; given ones stay as they are.

    Args:
        views: at least three.
        points: on the object, in world.
        box: around the object in world, if it is known.
        floor: height of the table in world, None without one.
        firsts: first guesses; made from backdrop or points by default.

    Raises:
        EvidenceError: nothing tells where the object is, or the views contradict each other.
    """
    outlines = _first_outlines(views, points) if firsts is None else list(firsts)
    box = box or locate(*telling(views, outlines), _ROUNDS[0].contrary_share)
    for number, step in enumerate(_ROUNDS):
        hull = carved(views, outlines, _lifted(box, floor), step)
        priors = in_threads(partial(_without, hull), list(zip(views, outlines, strict=True)))
        gains = _gains(views, priors)
        evened = [_evened(v.rgb, gain) for v, gain in zip(views, gains, strict=True)]
        colors = _learned(evened, priors, outlines)
        known = list(zip(views, priors, evened, strict=True))
        outlines = in_threads(partial(_cut_again, colors, step), known)
        low, high = hull.box()
        box = (low - _PADDING * hull.cell, high + _PADDING * hull.cell)
        if floor is not None:
            box[0][2] = floor
        log.info("outlines: round %d of %d", number + 1, len(_ROUNDS))
    return Found(outlines=tuple(outlines), gains=tuple(gains), colors=colors, box=box)


def located(views: Sequence[View]) -> Box:
    """A box around the object by given outlines alone."""
    told = [v for v in views if v.given is not None]
    return locate(told, [v.given for v in told if v.given is not None], _LAST.contrary_share)


def carved(views: Sequence[View], outlines: Sequence[Outline], box: Box, step: Round = _LAST) -> VotedHull:
    """The hull by vote of those outlines that are not empty."""
    return vote(*telling(views, outlines), box, resolution=step.cells, contrary_share=step.contrary_share)


def telling(views: Sequence[View], outlines: Sequence[Outline]) -> tuple[list[View], list[Outline]]:
    """Without the views of which nothing is known yet.

    Raises:
        EvidenceError: fewer than three are left.
    """
    pairs = [(v, o) for v, o in zip(views, outlines, strict=True) if o.any()]
    if len(pairs) < 3:
        raise EvidenceError(
            f"{views[0].image.path.parent}: an outline was found in {len(pairs)} of {len(views)} photographs, need 3; "
            "give masks"
        )
    return [v for v, _ in pairs], [o for _, o in pairs]


def finer(found: Found, at: int, coarse: View, fine: View) -> Outline:
    """Outline number `at` cut again on the same photograph at another size."""
    ratio = coarse.downscale / fine.downscale
    height, width = fine.rgb.shape[:2]
    outline = found.outlines[at]
    rows = np.minimum((np.arange(height) + 0.5) / ratio, outline.shape[0] - 1).astype(int)
    columns = np.minimum((np.arange(width) + 0.5) / ratio, outline.shape[1] - 1).astype(int)
    prior = outline[rows[:, None], columns]
    reach = _FINE_PX * ratio / max(float(np.sqrt(prior.sum())), 1.0)
    rgb = _evened(fine.rgb, found.gains[at])
    region = Region.around(prior, outwards=reach, inwards=reach, log_odds=found.colors.log_odds(rgb))
    return tidied(found.colors.cut(rgb, region))


def in_threads(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """In order; OpenCV lets go of the interpreter while it cuts."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, items))


def _first_outlines(views: Sequence[View], points: Float[np.ndarray, "points 3"] | None) -> list[Outline]:
    unknown = [v for v in views if v.given is None]
    color = backdrop_color(unknown) if unknown else None
    if color is not None:
        log.info("outlines: all photographs have a backdrop of one colour, %s", color.astype(int).tolist())
        return in_threads(lambda v: outline_on_backdrop(v, color) if v.given is None else v.given, views)
    if points is not None and len(points) >= _LEAST_POINTS:
        log.info("outlines: around %d points of the object", len(points))
        return in_threads(lambda v: outline_by_points(v, points) if v.given is None else v.given, views)
    if len(views) - len(unknown) >= 3:
        log.info("outlines: from the hull of %d given ones", len(views) - len(unknown))
        return [np.zeros(v.rgb.shape[:2], bool) if v.given is None else v.given for v in views]
    raise EvidenceError(
        f"{unknown[0].image.path.parent}: {len(unknown)} photographs have no mask, their backdrop is not of one "
        f"colour, and there are {0 if points is None else len(points)} sparse points on the object, need "
        f"{_LEAST_POINTS}: nothing tells where the object is; give masks (three will do), or points "
        "(a COLMAP model with points), or photographs before a plain backdrop"
    )


def _lifted(box: Box, floor: float | None) -> Box:
    """Without the lowest layer above the table, where shadows lie: they look the same to all views."""
    if floor is None:
        return box
    low, high = box[0].copy(), box[1]
    low[2] = floor + _LIFT * (high[2] - floor)
    return low, high


def _without(hull: VotedHull, known: tuple[View, Outline]) -> Outline:
    """How the hull of all other outlines looks."""
    view, outline = known
    return hull.outline(view, without=outline if outline.any() else None)


def _cut_again(colors: ColorModel, step: Round, known: tuple[View, Outline, UInt8[np.ndarray, "v u 3"]]) -> Outline:
    """A given outline stays as it is."""
    view, prior, rgb = known
    if view.given is not None:
        return view.given
    region = Region.around(prior, outwards=step.outwards, inwards=step.inwards, log_odds=colors.log_odds(rgb))
    return tidied(colors.cut(rgb, region))


def _gains(views: Sequence[View], priors: Sequence[Outline]) -> list[Float[np.ndarray, "3"]]:
    """Factors that bring the surroundings of the object to the same brightness in all photographs."""
    medians = [np.median(v.rgb[_surroundings(p)], axis=0) for v, p in zip(views, priors, strict=True)]
    usual = np.median(medians, axis=0)
    if not bool((usual > _LEAST_BRIGHT).all()):
        return [np.ones(3) for _ in views]
    return [np.clip(usual / np.maximum(m, 1.0), 0.5, 2.0) for m in medians]


def _evened(rgb: UInt8[np.ndarray, "v u 3"], gain: Float[np.ndarray, "3"]) -> UInt8[np.ndarray, "v u 3"]:
    return np.clip(rgb * gain.astype(np.float32), 0, 255).astype(np.uint8)


def _learned(
    evened: Sequence[UInt8[np.ndarray, "v u 3"]], priors: Sequence[Outline], outlines: Sequence[Outline]
) -> ColorModel:
    """From the same number of pixels of every photograph that shows the object.

    The object's colours are those well within both hull and outline.
    """
    inside, outside = [], []
    for rgb, prior, outline in zip(evened, priors, outlines, strict=True):
        agreed = prior & outline
        deep = rgb[depth_px(agreed) > _DEEP * np.sqrt(agreed.sum())]
        around = rgb[_surroundings(prior)]
        if len(deep) and len(around):
            inside.append(deep[np.linspace(0, len(deep) - 1, _N_COLORS).astype(int)])
            outside.append(around[np.linspace(0, len(around) - 1, _N_COLORS).astype(int)])
    if not inside:
        raise EvidenceError(
            "the outlines and their hull have nothing in common: poses and outlines contradict each other"
        )
    return ColorModel.learned(np.concatenate(inside), np.concatenate(outside))


def _surroundings(prior: Outline) -> Outline:
    """A wide ring around the object; the whole image if the object is not in it."""
    if not prior.any():
        return np.ones_like(prior)
    off, size = depth_px(~prior), np.sqrt(prior.sum())
    ring = (off > _NEAR * size) & (off < _FAR * size)
    return ring if ring.any() else ~prior
