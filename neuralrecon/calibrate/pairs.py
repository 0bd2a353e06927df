"""Which photographs to match: those that, by the known rig, look at the object from near enough."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

# Angles between two views of the object in degrees, and how many partners a photograph gets in each ring. SIFT
# matches well up to 30 degrees; the wider ones tie the tracks together.
_RINGS = ((0.0, 12.0, 0.3), (12.0, 24.0, 0.4), (24.0, 40.0, 0.3))


def pairs_by_rig(
    center_in_world: Float[np.ndarray, "photographs 3"], middle: Float[np.ndarray, "3"], n_partners: int
) -> Int[np.ndarray, "pairs 2"]:
    """Pairs (i < j) of photographs by the angle between their views of `middle`.

    Each photograph gets about `n_partners`, spread evenly over every ring of angles: the number of pairs grows with
    that of the photographs, however dense the stops.
    """
    direction = center_in_world - middle
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    pairs = set()
    for i, one in enumerate(direction):
        angle = np.degrees(np.arccos(np.clip(direction @ one, -1, 1)))
        order = np.argsort(angle, kind="stable")
        order = order[order != i]
        for low, high, share in _RINGS:
            ring = order[(angle[order] >= low) & (angle[order] < high)]
            n = min(len(ring), round(share * n_partners))
            # offset by the photograph's number, so that neighbours do not all choose alike
            picked = ring[(np.arange(n) * len(ring) // max(n, 1) + i) % max(len(ring), 1)]
            pairs |= {(min(i, int(j)), max(i, int(j))) for j in picked}
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)
