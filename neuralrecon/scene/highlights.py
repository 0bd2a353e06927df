"""How often a place on the object looks much brighter than the light that falls on its normal explains."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.camera import distort
from .hull import VisualHull
from .photographs import Pixels
from .readings import Readings

_PLACES, _BELIEVED = 3000, 0.7
_FACING = 0.35
_STEPS, _WAY = 12, 0.12  # how far towards the camera the way must be free, in unit lengths
_BRIGHTER = 0.4  # of the logarithm of luminance above what the normal explains
_DARKEST = 0.03
_LEAST_VIEWS = 4


def highlight_share(pixels: Pixels, readings: Readings, hull: VisualHull) -> float | None:
    """Share of the views of places that depth is sure of; None where too little is seen.

    Matte: luminance is the place's own times a quadratic form of its normal in the room (Ramamoorthi and Hanrahan
    2001). What is left above that is shine.
    """
    sure = (readings.inlier > _BELIEVED).nonzero()[:, 0]
    if len(sure) < _PLACES // 10:
        return None
    places = readings.points[sure[torch.linspace(0, len(sure) - 1, _PLACES, dtype=torch.float64).long()]]
    normals = normalize(hull.slopes(places), dim=1)
    seen = [_luminance(pixels, i, places, normals, hull) for i in range(len(pixels.origins))]
    of_place = torch.cat([at for at, _, _ in seen])
    if len(of_place) < _PLACES:
        return None
    log_light = torch.cat([light for _, light, _ in seen]).clamp_min(_DARKEST).log()
    forms = torch.cat([form for _, _, form in seen])
    counts = torch.bincount(of_place, minlength=_PLACES)
    left = _residual(of_place, log_light, forms, counts)
    often = (counts >= _LEAST_VIEWS)[of_place]
    return float((left[often] > _BRIGHTER).float().mean()) if bool(often.any()) else None


def _luminance(
    pixels: Pixels, image: int, places: Tensor, normals: Tensor, hull: VisualHull
) -> tuple[Tensor, Tensor, Tensor]:
    """Which places this photograph shows, how bright, and the monomials of their normals in the room."""
    to_eye = normalize(pixels.origins[image] - places, dim=1)
    at = ((normals * to_eye).sum(dim=1) > _FACING).nonzero()[:, 0]
    at = at[_is_free(places[at], to_eye[at], hull)]
    in_cam = (places[at] - pixels.origins[image]) @ pixels.rotations[image]
    k = pixels.intrinsics[image]
    uv = (distort(in_cam[:, :2] / in_cam[:, 2:].clamp_min(1e-6), k[4:].expand(len(at), 5)) * k[:2] + k[2:4]).floor()
    u0, v0, width = pixels.corners[image].tolist()
    first, last = pixels.starts[image : image + 2].tolist()
    u, v = uv[:, 0].long() - u0, uv[:, 1].long() - v0
    within = (u >= 0) & (v >= 0) & (u < width) & (v < (last - first) // width)
    at, local = at[within], (v * width + u)[within]
    first_pixel, first_byte = pixels.firsts[image].tolist()
    inside = (pixels.bits[first_byte + local // 8] >> (7 - local % 8)) % 2 > 0
    at, local = at[inside], local[inside]
    light = pixels.rgb[first_pixel + local].float().mean(dim=1) / 255
    x, y, z = (normals[at] @ pixels.rig_from_world[image].T).unbind(1)
    return at, light, torch.stack([x, y, z, x * x, y * y, x * y, y * z, z * x], dim=1)


def _is_free(places: Tensor, to_eye: Tensor, hull: VisualHull) -> Bool[Tensor, "places"]:
    steps = torch.linspace(0.2, 1.0, _STEPS) * _WAY
    way = places[:, None] + steps[:, None] * to_eye[:, None]
    return (hull.look_up(way.reshape(-1, 3)).reshape(len(places), _STEPS) > -1e-3).all(dim=1)


def _residual(of_place: Tensor, values: Tensor, forms: Tensor, counts: Tensor) -> Float[Tensor, "views"]:
    """What neither the place nor its normal explains: least squares with one constant a place."""

    def without_mean(x: Tensor) -> Tensor:
        mean = torch.zeros(len(counts), *x.shape[1:]).index_add(0, of_place, x)
        mean = mean / counts.clamp_min(1).reshape(-1, *[1] * (x.dim() - 1))
        return x - mean[of_place]

    y, a = without_mean(values), without_mean(forms)
    solution = np.linalg.lstsq(a.double().numpy(), y.double().numpy(), rcond=None)[0]
    return y - a @ torch.from_numpy(solution).float()
