"""How close a rendered view is to a photograph: PSNR, SSIM, overlap of silhouettes. Arrays are [v, u]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter

_SIGMA_PX = 1.5
_WINDOW_RADIUS_PX = 5
_K1, _K2 = 0.01, 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """One view. The `object_` scores are over the photograph's silhouette, None where that is not known."""

    psnr_db: float
    ssim: float
    object_psnr_db: float | None
    object_ssim: float | None
    silhouette_iou: float | None


def evaluate_image(
    rendered: Float[np.ndarray, "height width channels"],
    photo: Float[np.ndarray, "height width channels"],
    *,
    silhouette: Bool[np.ndarray, "height width"] | None = None,
    photo_silhouette: Bool[np.ndarray, "height width"] | None = None,
) -> ImageReport:
    """Compares two images with values in [0, 1], and the silhouettes where both are given.

    Example:
        >>> round(evaluate_image(np.zeros((16, 16, 3)), np.full((16, 16, 3), 0.1)).psnr_db, 6)
        20.0
    """
    overlap = object_psnr_db = object_ssim = None
    if photo_silhouette is not None:
        overlap = None if silhouette is None else silhouette_iou(silhouette, photo_silhouette)
        if photo_silhouette.any():
            object_psnr_db = psnr_db(rendered, photo, mask=photo_silhouette)
            object_ssim = ssim(rendered, photo, mask=photo_silhouette)
    return ImageReport(
        psnr_db=psnr_db(rendered, photo),
        ssim=ssim(rendered, photo),
        object_psnr_db=object_psnr_db,
        object_ssim=object_ssim,
        silhouette_iou=overlap,
    )


def psnr_db(
    rendered: Float[np.ndarray, "height width channels"],
    photo: Float[np.ndarray, "height width channels"],
    *,
    mask: Bool[np.ndarray, "height width"] | None = None,
) -> float:
    """Peak signal-to-noise ratio for a peak of 1, over the mask's pixels if there is one; inf for equal images."""
    error = np.square(rendered.astype(np.float64) - photo)
    mean = float(error.mean() if mask is None else error[mask].mean())
    return float("inf") if mean == 0 else float(-10 * np.log10(mean))


def ssim(
    rendered: Float[np.ndarray, "height width channels"],
    photo: Float[np.ndarray, "height width channels"],
    *,
    mask: Bool[np.ndarray, "height width"] | None = None,
) -> float:
    """Structural similarity (Wang et al. 2004) for values in [0, 1], the mean over channels and pixels.

    Gaussian window of sigma 1.5 px and 11 px width. Without a mask the outer 5 px, whose windows leave the image, do
    not count; with a mask its pixels count, each with the whole window about it.
    """
    x, y = rendered.astype(np.float64), photo.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    r = _WINDOW_RADIUS_PX
    return float(similarity[r:-r, r:-r].mean() if mask is None else similarity[mask].mean())


def silhouette_iou(
    silhouette: Bool[np.ndarray, "height width"], photo_silhouette: Bool[np.ndarray, "height width"]
) -> float:
    """Pixels in both over pixels in either; 1 for two empty silhouettes."""
    either = int((silhouette | photo_silhouette).sum())
    return 1.0 if either == 0 else float((silhouette & photo_silhouette).sum() / either)


def _blur(image):
    return gaussian_filter(image, sigma=(_SIGMA_PX, _SIGMA_PX, 0), radius=(_WINDOW_RADIUS_PX, _WINDOW_RADIUS_PX, 0))
