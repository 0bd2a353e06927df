"""A picture at texture coordinates."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import grid_sample


def looked_up(image: UInt8[np.ndarray, "v u 3"], uv: Float[Tensor, "points 2"]) -> Float[Tensor, "points 3"]:
    """The picture at texture coordinates (v upwards), between texels' centres, in [0, 1]."""
    picture = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    at = torch.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1]], dim=1)
    return grid_sample(picture, at[None, None], align_corners=False, padding_mode="border")[0, :, 0].T
