"""Are labels right? Compared with another mesh, usually the true one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Bool

from ..label import OccupancyLabels, Solid


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAgreement:
    """Shares of points, None where there is no such point. `false_inside`: labelled inside, truly outside."""

    n_points: int
    uniform: float | None
    near_surface: float | None
    observed: float | None
    false_inside: float
    false_outside: float


def compare_labels(labels: OccupancyLabels, truth: trimesh.Trimesh) -> LabelAgreement:
    """Share of the labels that agree with the truth, for uniform, near-surface and observed points.

    Raises:
        MeshError: the truth is not closed.
    """
    solid = Solid.of(truth)
    solid.require_closed()
    truly_inside = solid.contains(labels.points_in_world.astype(np.float64))
    right = labels.occupancy == truly_inside
    return LabelAgreement(
        n_points=len(right),
        uniform=_share(right, ~labels.near_surface),
        near_surface=_share(right, labels.near_surface),
        observed=None if labels.observed is None else _share(right, labels.observed),
        false_inside=float((labels.occupancy & ~truly_inside).mean()),
        false_outside=float((~labels.occupancy & truly_inside).mean()),
    )


def _share(right: Bool[np.ndarray, "points"], of: Bool[np.ndarray, "points"]) -> float | None:
    return float(right[of].mean()) if of.any() else None
