"""How points on rays move when the rays do, as a derivative without a value."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from ..backends import Backend, backend_for


def ray_motion(
    shift: Float[Tensor, "rays 3"],
    spread: Float[Tensor, "rays 3"],
    distances: Float[Tensor, "points"],
    of_ray: Int[Tensor, "points"],
) -> Float[Tensor, "points 3"]:
    """Zeros whose derivatives are those of shift[of_ray] + distances * spread[of_ray] by `shift` and `spread`."""
    if backend_for(shift) == Backend.cpu:
        from ._cpu import ray_motion_cpu

        return ray_motion_cpu(shift, spread, distances, of_ray)
    from ._torch import ray_motion_torch

    return ray_motion_torch(shift, spread, distances, of_ray)
