"""Whether a reconstruction can be used unseen: figures that need no truth, against stated thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import trimesh
from jaxtyping import Bool

from ..errors import ConfigError


class Status(StrEnum):
    """How an object ends: usable, to be looked at, or without a mesh."""

    ok = "ok"
    poor = "poor"
    failed = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictConfig:
    """From which figures on a run is ok; below them it is poor. What a capture does not let measure is not judged.

    Attributes:
        least_silhouette_iou: overlap of rendered and given silhouettes, over the photographs held out.
        least_psnr_db: of the photographs held out, over the silhouettes.
        most_depth_residual_mm: median distance of believed depth readings from the mesh.
        least_observed_share: share of the surface for which depth, outlines or colours speak.
        must_be_closed: whether the mesh must be watertight, consistently wound and one body.
    """

    least_silhouette_iou: float = 0.90
    least_psnr_db: float = 16.0
    most_depth_residual_mm: float = 2.0
    least_observed_share: float = 0.5
    must_be_closed: bool = True

    def __post_init__(self) -> None:
        if not (0 <= self.least_silhouette_iou <= 1 and 0 <= self.least_observed_share <= 1):
            raise ConfigError("verdict.least_silhouette_iou and least_observed_share are shares: 0 to 1")
        if self.most_depth_residual_mm < 0:
            raise ConfigError(f"verdict.most_depth_residual_mm must be 0 or more, got {self.most_depth_residual_mm}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a verdict looks at; None where the capture does not let it be measured."""

    silhouette_iou: float | None
    psnr_db: float | None
    depth_residual_mm: float | None
    is_closed: bool
    n_bodies: int
    observed_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A status and why; `reasons` is empty if all is well."""

    status: Status
    reasons: tuple[str, ...]
    figures: Figures


def judged(figures: Figures, config: VerdictConfig) -> Verdict:
    """Ok, or poor with a reason for each threshold that is missed.

    Example:
        >>> found = Figures(silhouette_iou=0.6, psnr_db=None, depth_residual_mm=0.3, is_closed=True, n_bodies=1,
        ...     observed_share=0.9)
        >>> judged(found, VerdictConfig()).reasons
        ('silhouette IoU 0.600, want 0.9 or more',)
    """
    least = [
        ("silhouette IoU", figures.silhouette_iou, config.least_silhouette_iou, ".3f"),
        ("held-out PSNR in dB", figures.psnr_db, config.least_psnr_db, ".1f"),
        ("share of the surface observed", figures.observed_share, config.least_observed_share, ".3f"),
    ]
    reasons = [
        f"{name} {value:{shown}}, want {wanted:g} or more"
        for name, value, wanted, shown in least
        if value is not None and not value >= wanted
    ]
    residual = figures.depth_residual_mm
    if residual is not None and not residual <= config.most_depth_residual_mm:
        reasons.append(f"depth residual {residual:.2f} mm, want {config.most_depth_residual_mm:g} or less")
    if config.must_be_closed and not (figures.is_closed and figures.n_bodies == 1):
        reasons.append("the mesh is " + (f"of {figures.n_bodies} bodies" if figures.is_closed else "not closed"))
    return Verdict(status=Status.poor if reasons else Status.ok, reasons=tuple(reasons), figures=figures)


def observed_share(mesh: trimesh.Trimesh, evidence: Bool[np.ndarray, "vertices"]) -> float:
    """Share of the surface's area that anything speaks for; each face counts by its vertices with evidence."""
    areas = np.asarray(mesh.area_faces)
    return float((areas * evidence[np.asarray(mesh.faces)].mean(axis=1)).sum() / areas.sum())
