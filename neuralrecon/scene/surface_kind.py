"""What kind of surface an object has, judged by how its depth cameras and its colours behave."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import binary_closing, binary_erosion, binary_fill_holes
from torch import Tensor

from ..geometry import Camera, Rigid

_EDGE_PX = 2  # of the hull's outline that are left out: flying pixels
_BAD = 0.5  # a share of missing and wrong depth that no opaque, rough surface has
_HIGHLIGHTS = 0.01  # share of views of a place that are much brighter than its normal explains
_MIRRORED = 0.065  # the same on what mirrors the room's lights: clear objects have less
_LEAST_PIXELS = 500


class SurfaceKind(StrEnum):
    """How a surface answers light; `auto` judges by the evidence."""

    auto = "auto"
    matte = "matte"
    glossy = "glossy"
    mirror = "mirror"
    clear = "clear"


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthSurvey:
    """Pixels of depth images that look at the object: all, those without a reading, those that read something else."""

    pixels: int = 0
    missing: int = 0
    elsewhere: int = 0

    def __add__(self, other: DepthSurvey) -> DepthSurvey:
        return DepthSurvey(
            pixels=self.pixels + other.pixels,
            missing=self.missing + other.missing,
            elsewhere=self.elsewhere + other.elsewhere,
        )

    @property
    def bad(self) -> float:
        """Share of the pixels that have no reading of the object."""
        return (self.missing + self.elsewhere) / max(self.pixels, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """The kind that was chosen, and why, in words for people. `survey` is None without depth."""

    kind: SurfaceKind
    reason: str
    survey: DepthSurvey | None

    @property
    def is_opaque_and_rough(self) -> bool:
        """Whether photographs show the surface itself, so that neighbouring ones can be compared."""
        return self.kind in (SurfaceKind.matte, SurfaceKind.glossy)


def survey_depth(
    depth: Float32[np.ndarray, "v u"], kept: Bool[Tensor, "readings"], looks_at_object: Bool[np.ndarray, "v u"]
) -> DepthSurvey:
    """Of one image; `kept` says which of its readings, in the order of their pixels, are of the object."""
    inside = torch.from_numpy(looks_at_object[depth > 0])
    return DepthSurvey(
        pixels=int(looks_at_object.sum()),
        missing=int((looks_at_object & (depth == 0)).sum()),
        elsewhere=int((inside & ~kept).sum()),
    )


def outline_of(
    solid_in_world: Float[Tensor, "cells 3"], camera: Camera, cam_from_world: Rigid, spacing_m: float
) -> Bool[np.ndarray, "v u"]:
    """Pixels well within the picture of a solid, given by points on it that are `spacing_m` apart."""
    in_cam = cam_from_world.to(torch.float32).apply(solid_in_world)
    in_cam = in_cam[in_cam[:, 2] > 1e-6]
    uv = camera.project(in_cam).floor().long()
    within = ((uv >= 0) & (uv < torch.tensor([camera.width, camera.height]))).all(dim=1)
    uv = uv[within].numpy()
    mask = np.zeros((camera.height, camera.width), bool)
    if len(uv) == 0:
        return mask
    mask[uv[:, 1], uv[:, 0]] = True
    gap = int(np.ceil(spacing_m * camera.fx / float(in_cam[:, 2].min()))) + 1
    padded = np.pad(mask, gap)
    closed = binary_fill_holes(binary_closing(padded, iterations=gap))
    return np.asarray(binary_erosion(closed, iterations=_EDGE_PX))[gap:-gap, gap:-gap]


def judged(survey: DepthSurvey, highlights: float | None) -> Surface:
    """The kind of surface by the depth images' survey and the share of highlights (see `highlight_share`)."""
    if highlights is None:
        colors = "too few places are sure to look for highlights"
    else:
        colors = f"{100 * highlights:.1f} % of the views of a place show a highlight"
    shiny = highlights or 0.0
    opaque = SurfaceKind.glossy if shiny > _HIGHLIGHTS else SurfaceKind.matte
    if survey.pixels < _LEAST_PIXELS:
        return Surface(kind=opaque, reason=f"no depth to judge by; {colors}", survey=None)
    kind = opaque
    if survey.bad > _BAD:
        kind = SurfaceKind.mirror if shiny > _MIRRORED else SurfaceKind.clear
    missing, elsewhere = (round(100 * n / survey.pixels) for n in (survey.missing, survey.elsewhere))
    reason = f"{missing} % of the depth on the object is missing, {elsewhere} % is of something else; {colors}"
    return Surface(kind=kind, reason=reason, survey=survey)
