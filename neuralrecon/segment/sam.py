"""Outlines by Segment Anything (Kirillov et al. 2023), asked where a first outline is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import ConfigError
from .grabcut import depth_px
from .pieces import tidied
from .views import Outline

_MODELS = ("vit_b", "vit_l", "vit_h")
_MARGIN = 0.06  # of the box's longer side
_N_POINTS, _APART = 3, 0.25  # points well inside, so far from each other in shares of the outline's size


class Predictor(Protocol):
    """What is asked for outlines: `segment_anything.SamPredictor`, or anything like it."""

    def set_image(self, image: UInt8[np.ndarray, "v u 3"]) -> None:
        """The photograph that is asked about next."""
        ...

    def predict(
        self,
        point_coords: np.ndarray,
        point_labels: np.ndarray,
        box: np.ndarray,
        multimask_output: bool = True,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks (n v u), their scores (n), and low-resolution logits, which are not used."""
        ...


def load_predictor(weights: Path | None, model: str) -> Predictor:
    """Segment Anything with local weights, on the CPU or, if there is one, a CUDA device.

    Raises:
        ConfigError: no weights are named, or they are not there, or the package is missing, or the model is unknown.
    """
    if model not in _MODELS:
        raise ConfigError(f"segment.sam_model: got {model}, want one of {', '.join(_MODELS)}")
    if weights is None or not weights.is_file():
        got = "none is named" if weights is None else f"{weights.absolute()} is no file"
        raise ConfigError(
            f"masks=sam needs Segment Anything's weights in a local file, but {got}; download the file of the model "
            f"{model} (sam_{model}_….pth) from its authors and set segment.sam_weights=FILE"
        )
    try:
        import torch
        from segment_anything import SamPredictor, sam_model_registry  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            f"masks=sam needs the package segment-anything, which cannot be imported ({error}); "
            "install it by: pip install 'neuralrecon[sam]', or choose masks=refined or masks=background"
        ) from error
    network = sam_model_registry[model](checkpoint=str(weights))
    return SamPredictor(network.to("cuda" if torch.cuda.is_available() else "cpu"))


def outline_by_prompt(rgb: UInt8[np.ndarray, "v u 3"], prior: Outline, predictor: Predictor) -> Outline:
    """What the predictor takes for the object, from a box around its prior and points in the middle of that.

    Of the predictor's proposals the one nearest to the prior by IoU is taken.
    """
    predictor.set_image(np.ascontiguousarray(rgb))
    points = _deepest(prior)
    proposed, _, _ = predictor.predict(
        point_coords=points, point_labels=np.ones(len(points), np.int64), box=_box(prior), multimask_output=True
    )
    proposals = [np.asarray(p) > 0 for p in proposed]
    return tidied(max(proposals, key=lambda p: float((p & prior).sum() / (p | prior).sum())))


def _box(prior: Outline) -> Float[np.ndarray, "4"]:
    """u0, v0, u1, v1 around the prior, a little wider."""
    rows, columns = np.flatnonzero(prior.any(axis=1)), np.flatnonzero(prior.any(axis=0))
    pad = _MARGIN * max(np.ptp(rows), np.ptp(columns))
    height, width = prior.shape
    return np.array(
        [
            max(0, columns[0] - pad),
            max(0, rows[0] - pad),
            min(width, columns[-1] + 1 + pad),
            min(height, rows[-1] + 1 + pad),
        ],
        np.float64,
    )


def _deepest(prior: Outline) -> Float[np.ndarray, "points 2"]:
    """Up to three points (u, v) far from the prior's edge and from each other."""
    depth = depth_px(np.pad(prior, 1))[1:-1, 1:-1]
    v, u = np.indices(prior.shape)
    apart = (_APART * np.sqrt(prior.sum())) ** 2
    points = []
    while len(points) < _N_POINTS and depth.max() > 0:
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        points.append((column, row))
        depth = np.where((v - row) ** 2 + (u - column) ** 2 < apart, 0, depth)
    return np.array(points, np.float64)
