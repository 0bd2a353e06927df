"""GrabCut (Rother, Kolmogorov, Blake 2004) as OpenCV has it: the only module that knows OpenCV."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

_N_VALUES = 65  # of OpenCV's mixtures: five Gaussians, each a weight, a mean and a covariance

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
    def around(prior: Outline, *, outwards: float, inwards: float) -> Region:
        """Undecided along the edge of `prior`. Widths are shares of the side of a square as large, at least 2 px."""
        size = float(np.sqrt(prior.sum()))
        surely = depth_px(prior) > max(inwards * size, 2.0)
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

    @staticmethod
    def learned(of_object: UInt8[np.ndarray, "pixels 3"], of_background: UInt8[np.ndarray, "others 3"]) -> ColorModel:
        """Always the same model from the same colours."""
        rgb = np.concatenate([of_object, of_background])[:, None]
        labels = np.full(rgb.shape[:2], cv2.GC_BGD, np.uint8)
        labels[: len(of_object)] = cv2.GC_FGD
        background, foreground = _no_mixtures()
        _grabcut(rgb, labels, (background, foreground), 1, cv2.GC_INIT_WITH_MASK)
        return ColorModel(background=background, object=foreground)

    def cut(self, rgb: UInt8[np.ndarray, "v u 3"], region: Region) -> Outline:
        """The object in a photograph: what goes with it in colour, cut along edges. The models stay as they are."""
        mixtures = (self.background.copy(), self.object.copy())
        return _cut(rgb, region, mixtures, 1, surround=0.0, mode=cv2.GC_EVAL_FREEZE_MODEL)


def cut_alone(rgb: UInt8[np.ndarray, "v u 3"], region: Region, *, n_iterations: int, surround: float) -> Outline:
    """The object in a photograph by that photograph's own colours.

    The background's are learned up to `surround` times the region's size around it.
    """
    return _cut(rgb, region, _no_mixtures(), n_iterations, surround=surround, mode=cv2.GC_INIT_WITH_MASK)


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


def _no_mixtures() -> Mixtures:
    return np.zeros((1, _N_VALUES)), np.zeros((1, _N_VALUES))
