"""What the descriptors tell before images are matched: a backdrop that stands still, pairs that share nothing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from scipy.spatial import KDTree

_STILL_PX = 1.0
_STILL_COSINE = 0.9
_OTHERS = 12
_STILL_SHARE = 0.25
_LEAST_STILL = 3
_N_LARGEST = 256
_RATIO = 0.8
_LEAST_SHARED = 4


def standing_still(
    keypoints: list[Float[np.ndarray, "features 6"]], descriptors: list[UInt8[np.ndarray, "features 128"]]
) -> list[Bool[np.ndarray, "features"]]:
    """Which features of each image of one camera have a twin at the same pixel in many of the others.

    They are the room around a turntable (or dust on the sensor) and contradict the object's motion. A quarter of up
    to twelve other images, and no less than three, must show the twin within a pixel: the turntable's own texture
    does not come back to the same pixel, and features on its axis turn their descriptors' orientation.
    """
    trees = [KDTree(k[:, :2]) for k in keypoints]
    unit = [_unit(d) for d in descriptors]
    directions = [k[:, (2, 4)] / np.maximum(np.hypot(k[:, 2], k[:, 4]), 1e-12)[:, None] for k in keypoints]
    still = []
    for i in range(len(keypoints)):
        others = [j for j in range(len(keypoints)) if j != i]
        others = [others[k] for k in np.unique(np.linspace(0, len(others) - 1, _OTHERS).astype(int))] if others else []
        votes = np.zeros(len(keypoints[i]), dtype=int)
        for j in others:
            near = trees[i].sparse_distance_matrix(trees[j], _STILL_PX, output_type="ndarray")
            a, b = near["i"], near["j"]
            alike = (unit[i][a] * unit[j][b]).sum(1) > _STILL_COSINE
            alike &= (directions[i][a] * directions[j][b]).sum(1) > _STILL_COSINE
            votes[np.unique(a[alike])] += 1
        still.append(votes >= max(_LEAST_STILL, _STILL_SHARE * len(others)))
    return still


def sharing_pairs(
    keypoints: list[Float[np.ndarray, "features 6"]],
    descriptors: list[UInt8[np.ndarray, "features 128"]],
    pairs: list[tuple[int, int]],
) -> list[tuple[int, int]]:
    """Those pairs whose largest features have at least four mutual best matches: worth matching in full."""
    largest = []
    for k, d in zip(keypoints, descriptors, strict=True):
        order = np.argsort(-np.hypot(k[:, 2], k[:, 4]), kind="stable")[:_N_LARGEST]
        largest.append(_unit(d[order]))
    return [(i, j) for i, j in pairs if _n_mutual(largest[i], largest[j]) >= _LEAST_SHARED]


def _n_mutual(a: ndarray, b: ndarray) -> int:
    if min(len(a), len(b)) < 2:
        return 0
    cosine = a @ b.T
    best, back = cosine.argmax(1), cosine.argmax(0)
    top = np.partition(cosine, -2, axis=1)[:, -2:]
    angles = np.arccos(np.clip(top, -1, 1))
    return int(np.count_nonzero((back[best] == np.arange(len(a))) & (angles[:, 1] < _RATIO * angles[:, 0])))


def _unit(descriptors: ndarray) -> Float[np.ndarray, "features 128"]:
    values = descriptors.astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
