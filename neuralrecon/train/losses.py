"""The terms of the objective: pure functions to a scalar, each with its unit. They are weighted in `fit` alone."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import huber_loss

_USUAL_ERROR = 0.01
_OPAQUE_ENOUGH = 0.9
_EDGE = 0.3  # change of the gradient's change, about radian: 17 degrees


def color_errors(
    rendered: Float[Tensor, "rays 3"], opacity: Float[Tensor, "rays"], recorded: Float[Tensor, "rays 3"]
) -> Float[Tensor, "rays"]:
    """Huber (corner at 0.1) over sRGB; unit: sRGB, white = 1.

    Premultiplied colours are compared with the photograph at the same opacity: covering more pixels must not pay here,
    or every silhouette that is slightly off would swell the solid. How far it reaches is the silhouettes' business.
    """
    return huber_loss(rendered, opacity[:, None] * recorded, delta=0.1, reduction="none").mean(dim=1) / 0.1


def color_loss(errors: Float[Tensor, "rays"], inside: Bool[Tensor, "rays"]) -> Tensor:
    """Mean error of the pixels in the silhouettes; unit: sRGB, white = 1."""
    return (errors * inside).sum() / inside.sum().clamp_min(1)


def doubt_loss(errors: Float[Tensor, "rays"], doubt: Float[Tensor, "rays"], inside: Bool[Tensor, "rays"]) -> Tensor:
    """Lowest where doubt is the logarithm of how many times `_USUAL_ERROR` errors are; unit: sRGB, white = 1.

    Minus the logarithm of an exponential distribution whose scale is learned (after Kendall and Gal 2017, eq. 8). Only
    the doubt learns: errors are what they are.
    """
    per_ray = errors.detach() * torch.exp(-doubt) + _USUAL_ERROR * doubt
    return (per_ray * inside).sum() / inside.sum().clamp_min(1)


def silhouette_loss(opacity: Float[Tensor, "rays"], inside: Bool[Tensor, "rays"], robustness: float = 0.0) -> Tensor:
    """Generalised cross entropy between opacity and silhouette (Zhang and Sabuncu 2018, eq. 6); unit: nat.

    Pixels inside ask for no more than `_OPAQUE_ENOUGH`. Where a ray enters a flat face just before its far edge it
    does not get fully opaque at any finite blur, and would push the face out, which nothing there pushes back.

    Args:
        robustness: how much less a pixel pulls the surer all others are that it is wrong: 0, the cross entropy, to 1.
    """
    # torch's cross entropy stops at nan without saying why; the other terms, which are nan too, say it
    opacity = opacity.nan_to_num(0.5).clamp(1e-3, 1 - 1e-3)
    entropy = torch.nn.functional.binary_cross_entropy(opacity, inside.to(opacity), reduction="none")
    if robustness:
        entropy = -torch.expm1(-robustness * entropy) / robustness
    return (entropy * ~(inside & (opacity.detach() > _OPAQUE_ENOUGH))).mean()


def eikonal_loss(gradients: Float[Tensor, "points 3"]) -> Tensor:
    """Mean of (|grad sdf| - 1)^2 (Gropp et al. 2020); no unit."""
    return (gradients.norm(dim=1) - 1).square().mean()


def truncated_sdf_loss(
    sdf_mm: Float[Tensor, "points"],
    before_mm: Float[Tensor, "points"],
    facing: Float[Tensor, "points"],
    inlier: Float[Tensor, "points"],
    exact: Float[Tensor, "points"],
) -> Tensor:
    """How far the sdf near a depth reading is from what the reading says; unit: mm, Huber with its corner at 1 mm.

    Args:
        before_mm: how far before the reading the point lies, along the ray (negative: behind it).
        facing: |cosine| between ray and surface, which turns the distance along the ray into one to the surface.
        inlier: probability that the reading is right.
        exact: what a right reading of its sensor counts, at most 1: unlike doubt, it is not made up for by the others.
    """
    error = huber_loss(sdf_mm, before_mm * facing, delta=1.0, reduction="none")
    return (error * inlier * exact).sum() / inlier.sum().clamp_min(1e-6)


def free_space_loss(sdf_mm: Float[Tensor, "points"], clearance_mm: float, inlier: Float[Tensor, "points"]) -> Tensor:
    """Points that a depth ray has passed lie outside, by `clearance_mm` at least; unit: mm."""
    return (torch.relu(clearance_mm - sdf_mm) * inlier).mean()


def known_free_loss(sdf_mm: Float[Tensor, "points"], clearance_mm: float) -> Tensor:
    """Points that many depth images have looked through lie outside, by `clearance_mm` at least; unit: mm."""
    return torch.relu(clearance_mm - sdf_mm).mean()


def bending_loss(gradients: Float[Tensor, "points 3"], gradients_beside: Float[Tensor, "points 3"]) -> Tensor:
    """Mean squared difference of the gradients of neighbouring points: damps ripples; no unit (about radian^2)."""
    return (gradients - gradients_beside).square().sum(dim=1).mean()


def waves_loss(
    gradients: Float[Tensor, "points 3"],
    before: Float[Tensor, "points 3"],
    beyond: Float[Tensor, "points 3"],
    counts: Bool[Tensor, "points"],
) -> Tensor:
    """How much the surface's bend changes: gradients at points, and as far before as beyond each; no unit.

    A plane, a cylinder or a ball costs next to nothing, a wave does (after the minimum variation surfaces of Moreton
    and Séquin 1992). What is sharper than `_EDGE` is an edge, which is left alone (Geman and McClure 1985).

    Args:
        counts: which points do, the others are 0.
    """
    square = (before + beyond - 2 * gradients).square().sum(dim=1)
    return (_EDGE**2 * square / (_EDGE**2 + square) * counts).mean()


def straight_down_loss(gradients: Float[Tensor, "points 3"]) -> Tensor:
    """Mean of (d sdf / dz)^2 at points below the table: the unseen solid goes straight down; no unit."""
    return gradients[:, 2].square().mean()


def deep_inside_loss(sdf_mm: Float[Tensor, "points"], last_mm: Float[Tensor, "points"], enough_mm: float) -> Tensor:
    """Points in the solid, out of sight of every ray, do not rise above where they last were; unit: mm.

    Nothing else speaks for them, and left to themselves they drift until a cavity opens. Those deeper than `enough_mm`
    may rise as far as that.
    """
    return torch.relu(sdf_mm - last_mm.clamp_min(-enough_mm)).mean()
