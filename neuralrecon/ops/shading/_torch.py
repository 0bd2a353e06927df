"""The definition of `shading`: gradients by autograd."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def shading_torch(
    normals: Float[Tensor, "samples 3"],
    directions: Float[Tensor, "samples 3"],
    rig_from_world: Float[Tensor, "samples 3 3"],
) -> Float[Tensor, "samples 13"]:
    normals_in_rig = (rig_from_world @ normals[:, :, None])[:, :, 0]
    mirrored_in_rig = (rig_from_world @ reflect(directions, normals)[:, :, None])[:, :, 0]
    facing = -(directions * normals).sum(dim=1, keepdim=True)
    return torch.cat([normals_in_rig, spherical_harmonics(mirrored_in_rig), facing], dim=1)


def reflect(directions: Float[Tensor, "samples 3"], normals: Float[Tensor, "samples 3"]) -> Float[Tensor, "samples 3"]:
    """Ray directions mirrored at the surface."""
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
