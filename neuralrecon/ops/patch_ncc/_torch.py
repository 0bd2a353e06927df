"""Definition of `patch_ncc`."""

from __future__ import annotations

import torch
from torch import Tensor

from ...geometry.camera import distort
from . import LEAST_DEPTH, LEAST_SPREAD, Likeness, Photographs


def patch_ncc_torch(
    points: Tensor, shifts: Tensor, templates: Tensor, images: Tensor, photographs: Photographs
) -> Likeness:
    seen_by = images.clamp_min(0)[..., None]
    k = photographs.intrinsics.to(points)[seen_by]
    in_world = points[:, None] + (shifts - photographs.origins.to(points)[images.clamp_min(0)])[:, :, None]
    in_cam = in_world @ photographs.rotations.to(points)[images.clamp_min(0)]
    before = in_cam[..., 2] > LEAST_DEPTH
    xy = in_cam[..., :2] / torch.where(before, in_cam[..., 2], 1)[..., None]
    crop = photographs.crops[seen_by]
    at = distort(xy, k[..., 4:]) * k[..., :2] + k[..., 2:4] - crop[..., :2] - 0.5
    u, v = at.detach().floor().unbind(-1)
    width, height = crop[..., 2], crop[..., 3]
    inside = before & (u >= 0) & (v >= 0) & (u < width - 1) & (v < height - 1)
    local = torch.where(inside, v * width + u, 0).long()
    inside &= _in_silhouette(at.detach() + 0.5, width, seen_by, inside, photographs)
    inside = inside.all(dim=2) & (images >= 0)
    first, row = photographs.firsts[seen_by, 0] + local, torch.where(inside[..., None], width, 0)
    one = inside[..., None].long()
    around = torch.stack([first, first + one, first + row, first + row + one])
    values = _between(photographs.rgb[around].to(points).mean(dim=-1) / 255, at - torch.stack([u, v], dim=-1))
    centred = torch.where(inside[..., None], values - values.mean(dim=2, keepdim=True), 0)
    norm = centred.square().sum(dim=2).clamp_min(LEAST_SPREAD**2).sqrt()
    correlation = (centred * templates[:, None]).sum(dim=2) / norm
    contrast = torch.where(inside, norm.detach() / values.shape[2] ** 0.5, 0)
    return Likeness(correlation=correlation, contrast=contrast, inside=inside)


def _between(corners: Tensor, part: Tensor) -> Tensor:
    """Bilinear between left and right above, left and right below."""
    (a, b, c, d), (part_u, part_v) = corners, part.unbind(-1)
    return torch.lerp(torch.lerp(a, b, part_u), torch.lerp(c, d, part_u), part_v)


def _in_silhouette(uv: Tensor, width: Tensor, seen_by: Tensor, inside: Tensor, photographs: Photographs) -> Tensor:
    """Of the pixels that places lie in; only asked where `inside` of the crop."""
    u, v = uv.floor().unbind(-1)
    local = torch.where(inside, v * width + u, 0).long()
    bits = photographs.bits[photographs.firsts[seen_by, 1] + local // 8]
    return (bits >> (7 - local % 8)) % 2 > 0
