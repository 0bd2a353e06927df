"""How alike patches of a surface are in photographs: points of planes seen by distorted cameras, correlated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ..backends import Backend, backend_for

LEAST_DEPTH = 0.1  # of a point before a camera, in unit lengths: cameras stand outside of the unit cube
LEAST_SPREAD = 1e-3  # norm of a patch's centred grey values, which are divided by it


@dataclass(frozen=True, slots=True, kw_only=True)
class Photographs:
    """Crops of photographs in one run of pixels, and their cameras in the points' frame.

    `firsts` are each crop's first pixel in `rgb` and first byte in `bits` (silhouettes, eight pixels a byte), `crops`
    are u0 v0 width height, `intrinsics` fx fy cx cy k1 k2 p1 p2 k3, `rotations` world from camera.
    """

    rgb: UInt8[Tensor, "stored 3"]
    bits: UInt8[Tensor, "bytes"]
    firsts: Int[Tensor, "images 2"]
    crops: Int[Tensor, "images 4"]
    intrinsics: Float[Tensor, "images 9"]
    rotations: Float[Tensor, "images 3 3"]
    origins: Float[Tensor, "images 3"]

    def to(self, device: torch.device) -> Photographs:
        """Copied whole, pixels too, unless they are there."""
        return Photographs(**{name: getattr(self, name).to(device) for name in self.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Correlation (-1 to 1) of patches with their templates, and their standard deviation (grey, white = 1).

    `inside` says whether all of a patch's samples lie before the camera and in the silhouette; if not, both are 0.
    """

    correlation: Float[Tensor, "patches views"]
    contrast: Float[Tensor, "patches views"]
    inside: Bool[Tensor, "patches views"]


def patch_ncc(
    points: Float[Tensor, "patches samples 3"],
    shifts: Float[Tensor, "patches views 3"],
    templates: Float[Tensor, "patches samples"],
    images: Int[Tensor, "patches views"],
    photographs: Photographs,
) -> Likeness:
    """Grey values that photographs `images` have, bilinear, at ``points + shifts``, correlated with the templates.

    `templates` must have mean 0 and norm 1. Image -1 is none. The correlation is differentiable once by `points` and
    `shifts`.
    """
    if backend_for(points) == Backend.cpu:
        from ._cpu import patch_ncc_cpu

        return patch_ncc_cpu(points, shifts, templates, images, photographs)
    from ._torch import patch_ncc_torch

    return patch_ncc_torch(points, shifts, templates, images, photographs)
