"""Rigid and similarity transforms between named frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import CalibrationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rigid:
    """``x_target = rotation @ x_source + translation``, with any leading batch axes.

    Example:
        >>> cam_from_world = Rigid.about_axis("z", 90.0)
        >>> cam_from_world.apply(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)).round().tolist()
        [0.0, 1.0, 0.0]
    """

    rotation: Float[Tensor, "*batch 3 3"]
    translation: Float[Tensor, "*batch 3"]

    @staticmethod
    def identity(dtype: torch.dtype = torch.float64) -> Rigid:
        return Rigid(rotation=torch.eye(3, dtype=dtype), translation=torch.zeros(3, dtype=dtype))

    @staticmethod
    def from_matrix(matrix: Float[Tensor, "*batch 4 4"]) -> Rigid:
        """From homogeneous 4 x 4 matrices; the rotation block is projected onto SO(3).

        Raises:
            CalibrationError: the 3 x 3 block is further than 1e-2 from a rotation, or anything is not finite.
        """
        if matrix.shape[-2:] != (4, 4) or not bool(torch.isfinite(matrix).all()):
            raise CalibrationError(f"a pose must be a finite 4 x 4 matrix, got {matrix.tolist()}")
        block = matrix[..., :3, :3]
        u, _, vh = torch.linalg.svd(block)
        rotation = u @ vh
        off = float((block - rotation).abs().max())
        if off > 1e-2 or bool((torch.linalg.det(rotation) < 0).any()):
            raise CalibrationError(f"a pose's 3 x 3 block is no rotation (off by {off:.2g}): {matrix.tolist()}")
        return Rigid(rotation=rotation, translation=matrix[..., :3, 3])

    @staticmethod
    def about_axis(axis: str, angle_deg: float, dtype: torch.dtype = torch.float64) -> Rigid:
        """Right-handed turn by `angle_deg` about the axis named ``"x"``, ``"y"`` or ``"z"``."""
        c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
        i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        rotation = torch.eye(3, dtype=dtype)
        rotation[i, i] = rotation[j, j] = c
        rotation[i, j], rotation[j, i] = -s, s
        return Rigid(rotation=rotation, translation=torch.zeros(3, dtype=dtype))

    def matrix(self) -> Float[Tensor, "*batch 4 4"]:
        bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=self.rotation.dtype, device=self.rotation.device)
        top = torch.cat([self.rotation, self.translation[..., None]], dim=-1)
        return torch.cat([top, bottom.expand(*top.shape[:-2], 1, 4)], dim=-2)

    def inverse(self) -> Rigid:
        transposed = self.rotation.mT
        return Rigid(rotation=transposed, translation=-(transposed @ self.translation[..., None])[..., 0])

    def __matmul__(self, other: Rigid) -> Rigid:
        """``a_from_b @ b_from_c`` is ``a_from_c``."""
        return Rigid(rotation=self.rotation @ other.rotation, translation=self.apply(other.translation))

    def apply(self, points: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 3"]:
        return self.rotate(points) + self.translation

    def rotate(self, vectors: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 3"]:
        """Directions: the translation does not apply."""
        return (self.rotation @ vectors[..., None])[..., 0]

    def to(self, dtype: torch.dtype) -> Rigid:
        return Rigid(rotation=self.rotation.to(dtype), translation=self.translation.to(dtype))


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """``x_target = scale * x_source + translation``: the axes stay, only size and origin change.

    This is how the unit box of the field hangs together with the world: `unit_from_world.scale` is in 1/metre.
    """

    scale: float
    translation: Float[Tensor, "3"]

    def inverse(self) -> Similarity:
        return Similarity(scale=1.0 / self.scale, translation=-self.translation / self.scale)

    def apply(self, points: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 3"]:
        return points * self.scale + self.translation.to(points)
