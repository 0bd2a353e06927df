"""The sdf where one sample's interval of a ray ends and the next one's begins."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..ops import Samples


def section_ends(
    samples: Samples, sdf: Float[Tensor, "samples"], slope: Float[Tensor, "samples"], step: float
) -> tuple[Float[Tensor, "samples"], Float[Tensor, "samples"]]:
    """The sdf before and after each sample's interval of length `step`.

    Neighbours share their common end, the mean of both. So the opacities of a stretch telescope to
    1 - Phi(least) / Phi(first), as they should. Ends guessed from each sample's own slope do not meet, and where the
    guesses are noisy every fall counts and no rise does: a ray that passes a surface at a grazing angle collects
    opacity from nothing, and silhouettes then push the surface in. Where a stretch begins or ends, the slope where it
    falls is all there is.

    Args:
        slope: d sdf / d distance along the ray.
    """
    t, of_ray = samples.t_mids, samples.ray_indices
    meet = (t[1:] - t[:-1] < 1.5 * step) & (of_ray[1:] == of_ray[:-1])
    shared = 0.5 * (sdf[1:] + sdf[:-1])
    fall = torch.relu(-slope) * (0.5 * step)
    before, after = sdf + fall, sdf - fall
    return (
        torch.cat([before[:1], torch.where(meet, shared, before[1:])]),
        torch.cat([torch.where(meet, shared, after[:-1]), after[-1:]]),
    )
