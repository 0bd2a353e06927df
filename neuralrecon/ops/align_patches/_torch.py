"""Definition of `align_patches`."""

from __future__ import annotations

import torch
from torch import Tensor

from . import Alignment, Patches, offsets


def sampled(channels: Tensor, patches: Patches, center: Tensor, n_samples: int) -> tuple[Tensor, Tensor]:
    """All three channels at every sample (patches, samples, 3), and which patches lie inside of the photograph."""
    steps = offsets(n_samples).to(channels)
    by_step = steps @ patches.by_step.mT
    pixels = center[:, None] + by_step / (1 + patches.tilt @ steps.t())[..., None]
    size = torch.tensor([channels.shape[2], channels.shape[1]]).to(channels)
    inside = ((pixels > 1) & (pixels < size - 1)).all(dim=2).all(dim=1)
    grid = (2 * pixels / size - 1)[None]
    values = torch.nn.functional.grid_sample(channels[None], grid, align_corners=False, padding_mode="border")
    return values[0].permute(1, 2, 0), inside


def align_patches_torch(channels: Tensor, patches: Patches, templates: Tensor, n_steps: int) -> Alignment:
    center = patches.center
    correlation = last_step = torch.zeros_like(center[:, 0])
    inside = torch.ones_like(last_step, dtype=torch.bool)
    for _ in range(n_steps):
        values, now_inside = sampled(channels, patches, center, templates.shape[1])
        inside = inside & now_inside
        centred = values - values.mean(dim=1, keepdim=True)
        norm = centred[..., 0].norm(dim=1).clamp_min(1e-6)[:, None]
        patch = centred[..., 0] / norm
        slope = centred[..., 1:] / norm[..., None]
        slope = slope - (slope * patch[..., None]).sum(dim=1, keepdim=True) * patch[..., None]
        correlation = (patch * templates).sum(dim=1)
        hessian = slope.mT @ slope + 1e-9 * torch.eye(2).to(slope)
        step = torch.linalg.solve(hessian, slope.mT @ (templates - patch)[..., None])[..., 0].clamp(-1, 1)
        center = center + step
        last_step = step.abs().amax(dim=1)
    return Alignment(center=center, correlation=correlation, last_step=last_step, inside=inside)
