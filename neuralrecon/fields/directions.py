"""Directions as network inputs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def reflect(directions: Float[Tensor, "samples 3"], normals: Float[Tensor, "samples 3"]) -> Float[Tensor, "samples 3"]:
    """Ray directions mirrored at the surface (Verbin et al. 2022, "Ref-NeRF", eq. 4; our rays point inwards)."""
    return directions - 2 * (directions * normals).sum(dim=-1, keepdim=True) * normals


def spherical_harmonics(directions: Float[Tensor, "samples 3"]) -> Float[Tensor, "samples 9"]:
    """Real spherical harmonics up to degree 2 of unit directions, orthonormal on the sphere."""
    x, y, z = directions.unbind(-1)
    one = torch.ones_like(x)
    return torch.stack(
        [
            0.28209479177387814 * one,
            0.4886025119029199 * y,
            0.4886025119029199 * z,
            0.4886025119029199 * x,
            1.0925484305920792 * x * y,
            1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * z * z - 1),
            1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ],
        dim=-1,
    )
