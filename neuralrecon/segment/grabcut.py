"""GrabCut (Rother, Kolmogorov, Blake 2004) as OpenCV has it: the only module that knows OpenCV."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

_N_GAUSSIANS = 5
_N_VALUES = _N_GAUSSIANS * 13  # of OpenCV's mixtures: a weight, a mean and a covariance each, in its order of colours
_STEP, _N_STEPS = 4, 64  # of the looked up colours
# log odds: what a pixel can count for at most, what lying well within the hull of the others counts, what makes sure
_MOST_ODDS, _ODDS_WITHIN, _SURE_ODDS = 4.0, 3.0, 2.0
_HULL_EXCESS_PX = 2.0  # how much wider than the object a hull by vote is all around, at least
_LEVELS_AN_ODD = 24.0
_ODDS_WEIGHT = 14.0  # of a log odd of 1, against 50 for an edge between equal neighbours
_SMOOTHING = 0.01  # of the object's size: over which colours are taken together

Outline = Bool[np.ndarray, "v u"]
Mixtures = tuple[np.ndarray, np.ndarray]  # of the background, of the object


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """What is known of an outline before its photograph is looked at; all that is in neither is background.

    `likely` is the first guess within `undecided`.
    """

    surely: Outline
    undecided: Outline
    likely: Outline

    @staticmethod
    def around(
        prior: Outline, *, outwards: float, inwards: float, log_odds: Float32[np.ndarray, "v u"] | None = None
    ) -> Region:
        """Undecided along the edge of `prior`.

        With the colours' `log_odds` (positive for object) a pixel inside is sure by both together: its depth and the
        colours around it. So a print that looks like the background here and there stays, and a gap stays that only
        this photograph shows. Widths are shares of the side of a square as large as `prior`, at least 2 px.
        """
        size = float(np.sqrt(prior.sum()))
        depth, reach = depth_px(prior), max(inwards * size, 2.0)
        surely = depth > reach
        if log_odds is not None and size > 0:
            within = ((depth - _HULL_EXCESS_PX) / reach).clip(0, 1)
            clipped = np.clip(log_odds, -_MOST_ODDS, _MOST_ODDS)
            evidence = cv2.GaussianBlur(clipped, (0, 0), max(_SMOOTHING * size, 1.0)) + _ODDS_WITHIN * within
            surely = prior & (evidence > _SURE_ODDS)
        return Region(surely=surely, undecided=(depth_px(~prior) <= max(outwards * size, 2.0)) & ~surely, likely=prior)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorModel:
    """Mixtures of Gaussians of the background's and of the object's colours, learned from all photographs together.

    Example:
        >>> model = ColorModel.learned(object_colors, background_colors)  # doctest: +SKIP
        >>> outline = model.cut(rgb, region)  # doctest: +SKIP
    """

    background: Float64[np.ndarray, "1 65"]
    object: Float64[np.ndarray, "1 65"]
    odds: Float32[np.ndarray, "colors"]

    @staticmethod
    def learned(of_object: UInt8[np.ndarray, "pixels 3"], of_background: UInt8[np.ndarray, "others 3"]) -> ColorModel:
        """Always the same model from the same colours."""
        rgb = np.concatenate([of_object, of_background])[:, None]
        labels = np.full(rgb.shape[:2], cv2.GC_BGD, np.uint8)
        labels[: len(of_object)] = cv2.GC_FGD
        background, foreground = _no_mixtures()
        _grabcut(rgb, labels, (background, foreground), 1, cv2.GC_INIT_WITH_MASK)
        levels = np.arange(_N_STEPS) * _STEP + (_STEP - 1) / 2
        colors = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)[:, ::-1]
        odds = _log_likelihood(foreground, colors) - _log_likelihood(background, colors)
        return ColorModel(background=background, object=foreground, odds=odds.astype(np.float32))

    def log_odds(self, rgb: UInt8[np.ndarray, "v u 3"]) -> Float32[np.ndarray, "v u"]:
        """Of object to background by each pixel's colour alone, looked up to `_STEP` grey levels."""
        coarse = (rgb // _STEP).astype(np.int32)
        return self.odds[(coarse[..., 0] * _N_STEPS + coarse[..., 1]) * _N_STEPS + coarse[..., 2]]

    def cut(self, rgb: UInt8[np.ndarray, "v u 3"], region: Region) -> Outline:
        """The object in a photograph: what goes with it in colour, cut along edges. The models stay as they are."""
        mixtures = (self.background.copy(), self.object.copy())
        return _cut(rgb, region, mixtures, 1, surround=0.0, mode=cv2.GC_EVAL_FREEZE_MODEL)


def cut_alone(rgb: UInt8[np.ndarray, "v u 3"], region: Region, *, n_iterations: int, surround: float) -> Outline:
    """The object in a photograph by that photograph's own colours.

    The background's are learned up to `surround` times the region's size around it.
    """
    return _cut(rgb, region, _no_mixtures(), n_iterations, surround=surround, mode=cv2.GC_INIT_WITH_MASK)


def cut_by_odds(log_odds: Float32[np.ndarray, "v u"], region: Region) -> Outline:
    """The object by each pixel's log odds, cut where these change.

    The odds are looked at as grey levels of a picture with a model of one Gaussian each, whose densities have them.
    """
    grey = np.clip(128 + log_odds * _LEVELS_AN_ODD, 0, 255).round().astype(np.uint8)
    # two densities, 2 m apart, of variance s2: their log ratio has slope 2 m / s2 in the grey level
    apart = 64.0
    variance = 2 * apart / (_ODDS_WEIGHT / _LEVELS_AN_ODD)
    mixtures = (_one_gaussian(128 - apart, variance), _one_gaussian(128 + apart, variance))
    return _cut(np.repeat(grey[..., None], 3, axis=2), region, mixtures, 1, surround=0.0, mode=cv2.GC_EVAL_FREEZE_MODEL)


def depth_px(mask: Outline) -> Float32[np.ndarray, "v u"]:
    """How far each pixel of the mask lies from the nearest one that is not in it, 0 off the mask.

    The image's border is no edge.
    """
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _cut(
    rgb: np.ndarray, region: Region, mixtures: Mixtures, n_iterations: int, *, surround: float, mode: int
) -> Outline:
    guess = region.undecided & region.likely
    rows, columns = np.flatnonzero(region.undecided.any(axis=1)), np.flatnonzero(region.undecided.any(axis=0))
    if not guess.any():
        return region.surely.copy()
    pad = int(surround * max(np.ptp(rows), np.ptp(columns))) + 2
    crop = (slice(max(0, rows[0] - pad), rows[-1] + pad + 1), slice(max(0, columns[0] - pad), columns[-1] + pad + 1))
    labels = np.full(rgb.shape[:2], cv2.GC_BGD, np.uint8)
    labels[region.undecided] = cv2.GC_PR_BGD
    labels[guess] = cv2.GC_PR_FGD
    labels[region.surely] = cv2.GC_FGD
    found = np.zeros(rgb.shape[:2], bool)
    if (labels[crop] & 1).all():
        found[crop] = True  # no background to tell it from
        return found
    found[crop] = (_grabcut(rgb[crop], labels[crop], mixtures, n_iterations, mode) & 1).astype(bool)
    return found


def _grabcut(rgb: np.ndarray, labels: np.ndarray, mixtures: Mixtures, n_iterations: int, mode: int) -> np.ndarray:
    """The labels after the cut; odd ones are object. The mixtures are filled."""
    cv2.setRNGSeed(0)  # of this thread: k-means starts the mixtures
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    labels = np.ascontiguousarray(labels).copy()
    no_rectangle = (0, 0, 0, 0)  # it is for another mode
    cv2.grabCut(bgr, labels, no_rectangle, mixtures[0], mixtures[1], n_iterations, mode)
    return labels


def _log_likelihood(mixture: np.ndarray, bgr: Float64[np.ndarray, "colors 3"]) -> Float64[np.ndarray, "colors"]:
    weights, means, covariances = np.split(mixture[0], [_N_GAUSSIANS, 4 * _N_GAUSSIANS])
    terms = []
    for weight, mean, covariance in zip(weights, means.reshape(-1, 3), covariances.reshape(-1, 3, 3), strict=True):
        if weight > 0:
            broad = covariance + np.eye(3) * _STEP**2 / 12  # a looked up colour stands for a cube of colours
            off = bgr - mean
            fit = -0.5 * np.einsum("ci,ij,cj->c", off, np.linalg.inv(broad), off)
            terms.append(fit + np.log(weight) - 0.5 * np.linalg.slogdet(broad)[1])
    return np.logaddexp.reduce(np.stack(terms))


def _one_gaussian(level: float, variance: float) -> Float64[np.ndarray, "1 65"]:
    """A mixture that knows the first channel only."""
    mixture = np.zeros((1, _N_VALUES))
    mixture[0, 0] = 1.0
    mixture[0, _N_GAUSSIANS : _N_GAUSSIANS + 3] = (level, 128.0, 128.0)
    mixture[0, 4 * _N_GAUSSIANS : 4 * _N_GAUSSIANS + 9] = np.diag([variance, 1e6, 1e6]).ravel()
    return mixture


def _no_mixtures() -> Mixtures:
    return np.zeros((1, _N_VALUES)), np.zeros((1, _N_VALUES))
