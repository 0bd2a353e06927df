"""What a colour may depend on besides its place: normal and mirrored direction as the room sees them."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..backends import Backend, backend_for

N_SHADING = 3 + 9 + 1


def shading(
    normals: Float[Tensor, "samples 3"],
    directions: Float[Tensor, "samples 3"],
    rig_from_world: Float[Tensor, "samples 3 3"],
) -> Float[Tensor, "samples 13"]:
    """Normal in the rig (3), spherical harmonics of the mirrored direction in the rig (9), cosine to the viewer (1).

    The mirrored direction is d - 2 (d . n) n (Verbin et al. 2022, "Ref-NeRF", eq. 4; our rays point inwards); harmonics
    are real, up to degree 2, orthonormal on the sphere. Differentiable once with respect to `normals`.

    Args:
        normals: of unit length.
        directions: of the rays, of unit length.
    """
    if backend_for(normals) == Backend.cpu:
        from ._cpu import shading_cpu

        return shading_cpu(normals, directions.detach(), rig_from_world)
    from ._torch import shading_torch

    return shading_torch(normals, directions.detach(), rig_from_world)
