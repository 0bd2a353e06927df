"""How well a fit predicts the photographs that training never saw."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float

from ..render import free_room, render_view
from ..scene import Scene
from ..scene.batch import moved
from ..scene.photographs import Photograph, Pixels
from ..train import Fit
from .image import evaluate_image

_log = logging.getLogger(__name__)
_RAYS_PER_BLOCK = 4096

# Of a photograph's crop: colours over black in [0, 1] as its sensor records them, and opacity.
Render = Callable[[Photograph], tuple[Float[np.ndarray, "v u 3"], Float[np.ndarray, "v u"]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewScores:
    """One photograph: PSNR and SSIM over its silhouette, and how much the silhouettes overlap."""

    name: str
    psnr_db: float
    ssim: float
    silhouette_iou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewReport:
    """The photographs held out, and the means over them."""

    psnr_db: float
    ssim: float
    silhouette_iou: float
    views: tuple[ViewScores, ...]


def evaluate_views(fit: Fit, scene: Scene) -> ViewReport:
    """Render each photograph that the scene holds out, and compare. Around the silhouettes both images are black."""
    report = compare_views(scene.held_out, partial(render_photograph, fit))
    _log.info(
        "%d photographs held out: PSNR %.2f dB, silhouette IoU %.4f",
        len(report.views),
        report.psnr_db,
        report.silhouette_iou,
    )
    return report


def compare_views(photographs: Sequence[Photograph], render: Render) -> ViewReport:
    """Compare each photograph with what `render` shows in its crop: colours over black, and opacity."""
    views = []
    for photograph in photographs:
        colors, opacity = render(photograph)
        inside = photograph.inside
        photo = photograph.rgb.astype(np.float64) / 255 * inside[..., None]
        report = evaluate_image(colors, photo, silhouette=opacity > 0.5, photo_silhouette=inside)
        views.append(
            ViewScores(
                name=photograph.name,
                psnr_db=float(report.object_psnr_db or 0.0),
                ssim=float(report.object_ssim or 0.0),
                silhouette_iou=float(report.silhouette_iou or 0.0),
            )
        )
    means = {
        name: float(np.mean([getattr(view, name) for view in views])) for name in ("psnr_db", "ssim", "silhouette_iou")
    }
    return ViewReport(**means, views=tuple(views))


def render_photograph(fit: Fit, photograph: Photograph) -> tuple[Float[np.ndarray, "v u 3"], Float[np.ndarray, "v u"]]:
    """What the fit shows in the photograph's crop: colours over black as its sensor records them, and opacity."""
    pixels = Pixels.gather([photograph], fit.unit_from_world, 1)
    room = free_room(fit.unit_from_world, fit.floor_m).to(fit.device)
    parts = []
    for block in torch.arange(photograph.inside.size, device=pixels.starts.device).split(_RAYS_PER_BLOCK):
        rays = fit.model.sensors.corrected_color(moved(pixels.rays(block), fit.device))
        seen = render_view(fit.model, rays, room, fit.occupancy, inv_s=1 / fit.blur, step=fit.blur)
        parts.append(torch.cat([seen.colors, seen.opacity[:, None]], dim=1))
    image = torch.cat(parts).reshape(*photograph.inside.shape, 4).double().cpu().numpy()
    return image[..., :3].clip(0, 1), image[..., 3]
