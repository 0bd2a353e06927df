"""Rays against the mesh, by Embree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """What each ray meets first: distance (inf for nothing), face (-1), weights of the face's corners."""

    distances: Float[Tensor, "rays"]
    faces: Int[Tensor, "rays"]
    weights: Float[Tensor, "rays 3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caster:
    """A mesh's tree; build it once."""

    scene: EmbreeScene

    @staticmethod
    def of(vertices: np.ndarray, faces: np.ndarray) -> Caster:
        scene = EmbreeScene()
        TriangleMesh(scene=scene, vertices=vertices.astype(np.float32), indices=faces.astype(np.int32))
        nothing = np.zeros((1, 3), np.float32)
        scene.run(nothing, nothing + np.float32(1.0))  # the first call builds the tree, which no two threads may do
        return Caster(scene=scene)

    def cast(self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> Hits:
        """Directions have unit length."""
        rays = (np.ascontiguousarray(x.numpy(), dtype=np.float32) for x in (origins, directions))
        out = self.scene.run(*rays, output=True)
        face = out["primID"]
        second, third = out["u"], out["v"]
        weights = np.stack([1 - second - third, second, third], axis=1)
        return Hits(
            distances=torch.from_numpy(np.where(face >= 0, out["tfar"], np.inf).astype(np.float32)),
            faces=torch.from_numpy(face.astype(np.int64)),
            weights=torch.from_numpy(weights.astype(np.float32)),
        )
