"""Square patches of a surface's tangent planes in a photograph: read, and shifted onto templates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..backends import Backend, backend_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """How the tangent plane around a point looks in one photograph.

    The sample o = (i, j) steps from the middle projects to ``center + by_step @ o / (1 + tilt @ o)``: exact for a
    pinhole camera. Pixel centres are at +0.5.
    """

    center: Float[Tensor, "patches 2"]
    by_step: Float[Tensor, "patches 2 2"]
    tilt: Float[Tensor, "patches 2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Where patches were found: `center` in px, `correlation` with the template (-1 to 1), the `last_step` in px.

    `inside` is False where a patch's samples leave the photograph.
    """

    center: Float[Tensor, "patches 2"]
    correlation: Float[Tensor, "patches"]
    last_step: Float[Tensor, "patches"]
    inside: Bool[Tensor, "patches"]


def offsets(n_samples: int) -> Float[Tensor, "samples 2"]:
    """Steps (i, j) from a patch's middle in the order of its samples; `n_samples` is the square of an odd number."""
    half = round(n_samples**0.5) // 2
    step = torch.arange(-half, half + 1, dtype=torch.float32)
    return torch.stack(torch.meshgrid(step, step, indexing="ij"), -1).reshape(-1, 2)


def sample_patches(
    channels: Float[Tensor, "3 v u"], patches: Patches, n_samples: int
) -> tuple[Float[Tensor, "patches samples"], Bool[Tensor, "patches"]]:
    """Grey values of patches, bilinear, and which patches lie inside of the photograph.

    `channels` are grey values and their derivatives by u and by v.
    """
    from ._torch import sampled

    values, inside = sampled(channels, patches, patches.center, n_samples)
    return values[..., 0], inside


def align_patches(
    channels: Float[Tensor, "3 v u"], patches: Patches, templates: Float[Tensor, "patches samples"], n_steps: int
) -> Alignment:
    """Shifts patches, from `patches.center` on, to where they correlate best with their templates.

    Gauss-Newton steps of at most 1 px on the difference of grey values of mean 0 and norm 1 (Baker and Matthews,
    "Lucas-Kanade 20 Years On", 2004, forwards additive). `templates` must have mean 0 and norm 1.
    """
    if backend_for(channels) == Backend.cpu:
        from ._cpu import align_patches_cpu

        return align_patches_cpu(channels, patches, templates, n_steps)
    from ._torch import align_patches_torch

    return align_patches_torch(channels, patches, templates, n_steps)
