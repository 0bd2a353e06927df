"""Marching cubes on the band, closed by construction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from scipy import ndimage
from skimage.measure import marching_cubes

from ..errors import ConfigError, MeshError
from ..train import Fit


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshConfig:
    """How the mesh is made.

    Attributes:
        voxel_mm: side of the marching cubes' cells (thousandths of the longest side if the world is not metric).
    """

    voxel_mm: float = 0.7

    def __post_init__(self) -> None:
        if not 0.05 <= self.voxel_mm <= 20:
            raise ConfigError(f"voxel_mm must be between 0.05 and 20, got {self.voxel_mm}")


def extract_mesh(fit: Fit, config: MeshConfig | None = None) -> trimesh.Trimesh:
    """The zero level of the sdf as a closed, outward-oriented single body in the world frame."""
    config = config or MeshConfig()
    low, high = fit.box.low - 0.006, fit.box.high + 0.006
    voxel = config.voxel_mm * 1e-3
    if fit.floor_m is not None:
        low[2] = fit.floor_m - 1.5 * voxel
    n = [int(np.ceil(float(s) / voxel)) + 1 for s in (high - low)]
    cells = fit.occupancy.cells
    sdf = np.full(n, 1.0, np.float32)
    xs = [low[a] + voxel * torch.arange(n[a]) for a in range(3)]
    res = cells.shape[0]
    for i in range(n[0]):
        yy, zz = torch.meshgrid(xs[1], xs[2], indexing="ij")
        p = torch.stack([torch.full_like(yy, float(xs[0][i])), yy, zz], -1).reshape(-1, 3)
        u = fit.unit_from_world.apply(p)
        idx = (u * res).floor().long()
        ok = ((idx >= 0) & (idx < res)).all(1)
        idx = idx.clamp(0, res - 1)
        coarse = fit.occupancy.sdf[idx[:, 0], idx[:, 1], idx[:, 2]].clone()
        near = ok & (coarse.abs() < 2.0 / res + 4 * fit.blur)
        coarse[near] = fit.model.sdf(u[near])
        coarse[~ok] = 1.0
        sdf[i] = coarse.reshape(n[1], n[2]).numpy()
    sdf = sdf / fit.unit_from_world.scale
    if fit.floor_m is not None:
        z = xs[2].numpy()
        sdf = np.maximum(sdf, (fit.floor_m - z)[None, None, :])
    sdf = np.pad(sdf, 1, constant_values=voxel)
    solid, count = ndimage.label(sdf < 0)
    if count == 0:
        raise MeshError(f"{fit.name}: the fitted sdf is nowhere negative; nothing to extract")
    sizes = np.bincount(solid.ravel())[1:]
    sdf[(solid != 0) & (solid != 1 + sizes.argmax())] = voxel
    hollow, _ = ndimage.label(sdf >= 0)
    sdf[(sdf >= 0) & (hollow != hollow[0, 0, 0])] = -voxel
    verts, faces, _, _ = marching_cubes(sdf, 0.0, spacing=(voxel,) * 3)
    verts = verts + low.numpy() - voxel
    mesh = trimesh.Trimesh(verts, faces, process=True)
    if mesh.volume < 0:
        mesh.invert()
    return mesh
