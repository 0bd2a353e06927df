"""How well each outline agrees with what all the others say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .grabcut import depth_px
from .views import Outline, View
from .votes import VotedHull


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewConsistency:
    """One outline against the visual hull of all others, as it looks from there.

    `iou` is their intersection over their union, where what is nearer to the other's edge than a tolerance counts as
    common. `missing` is the share of the hull that the outline lacks (never 0:
    the others leave more than the object), `extra` the share of the outline that the hull lacks (an error here, or in
    several others). `kept` says whether the outline is used.
    """

    image: str
    iou: float
    missing: float
    extra: float
    kept: bool


def compared(
    views: Sequence[View],
    outlines: Sequence[Outline],
    hull: VotedHull,
    least_iou: float,
    tolerance_px: float = 0.0,
) -> tuple[ViewConsistency, ...]:
    """Every outline against the hull without it; those below `least_iou` are not kept."""
    return tuple(_compared(v, o, hull, least_iou, tolerance_px) for v, o in zip(views, outlines, strict=True))


def _compared(view: View, outline: Outline, hull: VotedHull, least_iou: float, tolerance_px: float) -> ViewConsistency:
    others = hull.outline(view, without=outline)
    either = outline | others
    if tolerance_px > 0:
        missing = others & ~outline & (depth_px(others) > tolerance_px)
        extra = outline & ~others & (depth_px(~others) > tolerance_px)
        iou = 1 - float((missing | extra).sum() / max(int(either.sum()), 1))
    else:
        iou = float((outline & others).sum() / max(int(either.sum()), 1))
    both = int((outline & others).sum())
    return ViewConsistency(
        image=f"{view.image.sensor}/{view.image.frame}/{view.name}",
        iou=round(iou, 4),
        missing=round(1 - both / max(int(others.sum()), 1), 4),
        extra=round(1 - both / max(int(outline.sum()), 1), 4),
        kept=iou >= least_iou,
    )
