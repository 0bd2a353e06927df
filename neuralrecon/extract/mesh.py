"""Marching cubes on the band, closed by construction."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import fast_simplification
import numpy as np
import torch
import trimesh
import trimesh.visual
from jaxtyping import Float32
from scipy import ndimage
from skimage.measure import marching_cubes
from torch import Tensor

from ..errors import ConfigError, MeshError
from ..train import Fit

log = logging.getLogger(__name__)

_LARGEST_GRID = 1 << 29  # cells; four bytes each


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshConfig:
    """How the mesh is made.

    Attributes:
        voxel_mm: side of the marching cubes' cells (if the world is not metric: of an object 200 mm long).
        target_faces: simplify to about this many faces, still closed; 0 keeps all.
        vertex_colors: whether vertices carry the colour that the fit shows to the cameras that see them best.
    """

    voxel_mm: float = 0.7
    target_faces: int = 0
    vertex_colors: bool = True

    def __post_init__(self) -> None:
        if self.voxel_mm <= 0:
            raise ConfigError(f"voxel_mm must be above 0, got {self.voxel_mm}")
        if self.target_faces != 0 and self.target_faces < 100:
            raise ConfigError(f"target_faces must be 0 (all) or at least 100, got {self.target_faces}")


def extract_mesh(fit: Fit, config: MeshConfig | None = None) -> trimesh.Trimesh:
    """The zero level of the sdf as one closed, outward-oriented body in the world frame (metres).

    With a table, the solid is cut at the table's plane: the underside, which no camera sees, is that plane wherever
    the field is solid above it. Without one, the edge of the box around the hull is outside. Of several bodies the
    largest is kept, and cavities that do not reach the outside are filled.

    Raises:
        MeshError: nothing is solid, or the grid would be too large.
    """
    config = config or MeshConfig()
    sdf, low, voxel = sample_sdf(fit, config.voxel_mm * fit.world_per_mm)
    _keep_one_solid(sdf, voxel, fit.name)
    # a value of exactly zero would put several vertices on one spot
    tiny = 1e-3 * voxel
    sdf[np.abs(sdf) < tiny] = tiny
    vertices, faces, _, _ = marching_cubes(sdf, 0.0, spacing=(voxel,) * 3)
    mesh = trimesh.Trimesh(vertices + low, faces, process=False)
    if mesh.volume < 0:
        mesh.invert()
    if config.target_faces and config.target_faces < len(mesh.faces):
        mesh = _simplified(mesh, config.target_faces)
    mesh = _largest_body(mesh)
    if not (mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0):
        raise MeshError(f"{fit.name}: the mesh did not come out closed; try another voxel_mm or no target_faces")
    if config.vertex_colors and len(fit.view_origins):
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=_vertex_colors(fit, mesh))
    mesh.metadata["unit"] = "m" if fit.is_metric else "unscaled"
    size = " x ".join(f"{length:.4g}" for length in mesh.extents)
    log.info("mesh: %d faces, %s %s, closed", len(mesh.faces), size, "m" if fit.is_metric else "world units")
    return mesh


def write_mesh(mesh: trimesh.Trimesh, path: Path) -> None:
    """Write in the format of the suffix: .ply, .obj, .glb or .stl (which has no colours).

    Units are metres; if `metadata` says that the mesh is unscaled, a comment says so too (.ply), or the extras (.glb).

    Raises:
        MeshError: another suffix.
    """
    if path.suffix not in (".ply", ".obj", ".glb", ".stl"):
        raise MeshError(f"{path}: meshes are written as .ply, .obj, .glb or .stl")
    if path.suffix == ".ply" and mesh.metadata.get("unit") == "unscaled":
        data = mesh.export(file_type="ply")
        assert isinstance(data, bytes)
        path.write_bytes(data.replace(b"comment ", b"comment unit unscaled: not metres\ncomment ", 1))
    else:
        mesh.export(path)


def sample_sdf(fit: Fit, voxel: float) -> tuple[Float32[np.ndarray, "x y z"], np.ndarray, float]:
    """Signed distance (world units) on a grid with cells of side `voxel`, its first vertex, and `voxel`.

    The model is asked in the band only; elsewhere the occupancy grid's last value has the right sign. A shell of
    outside closes the grid.

    Raises:
        MeshError: more than 2^29 cells.
    """
    margin = 0.5 * float(1 / fit.unit_from_world.scale - fit.box.size.max())
    low, high = (fit.box.low - margin).double(), (fit.box.high + margin).double()
    if fit.floor_m is not None:
        low[2] = fit.floor_m - 1.5 * voxel
    shape = [int(np.ceil(float(extent) / voxel)) + 3 for extent in high - low]
    if np.prod(shape, dtype=np.float64) > _LARGEST_GRID:
        raise MeshError(f"{fit.name}: a voxel of {voxel:g} makes a grid of {shape} cells; choose a larger voxel_mm")
    low = low - voxel
    axes = [low[a] + voxel * torch.arange(shape[a]) for a in range(3)]
    sdf = np.full(shape, voxel, np.float32)
    y, z = torch.meshgrid(axes[1][1:-1], axes[2][1:-1], indexing="ij")
    for i in range(1, shape[0] - 1):
        points = torch.stack([axes[0][i].expand_as(y), y, z], dim=-1).reshape(-1, 3)
        values = _ask(fit, fit.unit_from_world.apply(points).float())
        sdf[i, 1:-1, 1:-1] = values.reshape(y.shape).numpy()
    if fit.floor_m is not None:
        below = (fit.floor_m - axes[2]).numpy().astype(np.float32)
        np.maximum(sdf, below, out=sdf)
    return sdf, low.numpy(), voxel


def _ask(fit: Fit, points: Tensor) -> Tensor:
    grid = fit.occupancy.sdf
    side = grid.shape[0]
    cell = (points * side).floor().long()
    in_cube = ((cell >= 0) & (cell < side)).all(dim=1)
    x, y, z = cell.clamp(0, side - 1).unbind(1)
    sdf = torch.where(in_cube, grid[x, y, z], 1.0)
    near = sdf.abs() < 2.0 / side + 3 * fit.blur
    sdf[near] = fit.model.sdf(points[near])
    return sdf / fit.unit_from_world.scale


def _keep_one_solid(sdf: np.ndarray, voxel: float, name: str) -> None:
    """In place: all solids but the largest become outside, all cavities become inside."""
    solids, count = _labelled(sdf < 0)
    if count == 0:
        raise MeshError(f"{name}: the fitted sdf is nowhere negative, so there is no solid; look at masks and depth")
    sizes = np.bincount(solids.ravel())
    sizes[0] = 0
    sdf[(solids > 0) & (solids != sizes.argmax())] = voxel
    del solids
    rooms, count = _labelled(sdf >= 0)
    if count > 1:
        sdf[(rooms > 0) & (rooms != rooms[0, 0, 0])] = -voxel


def _labelled(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Parts connected through cells' faces, numbered from 1."""
    parts = np.empty(mask.shape, np.int32)
    return parts, int(ndimage.label(mask, output=parts))  # pyright: ignore[reportArgumentType]


def _largest_body(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    bodies = mesh.split(only_watertight=False)
    return mesh if len(bodies) == 1 else max(bodies, key=lambda body: body.volume)


def _simplified(mesh: trimesh.Trimesh, target_faces: int) -> trimesh.Trimesh:
    """Quadric edge collapse (Garland and Heckbert 1997)."""
    simplified = fast_simplification.simplify(
        mesh.vertices.astype(np.float64), np.asarray(mesh.faces), target_count=target_faces
    )
    vertices, faces = simplified[:2]
    return trimesh.Trimesh(vertices, faces, process=False)


def _vertex_colors(fit: Fit, mesh: trimesh.Trimesh) -> np.ndarray:
    """Mean colour that the three views facing each vertex most would see (not asking what hides it)."""
    points = fit.unit_from_world.apply(torch.from_numpy(np.array(mesh.vertices))).float()
    normals = torch.from_numpy(np.array(mesh.vertex_normals)).float()
    colors = torch.empty(len(points), 3)
    with torch.no_grad():
        for block in torch.arange(len(points)).split(1 << 15):
            towards = torch.nn.functional.normalize(points[block, None] - fit.view_origins[None], dim=2)
            facing = -(towards * normals[block, None]).sum(dim=2)
            best = facing.topk(min(3, len(fit.view_origins)), dim=1).indices
            seen = [
                fit.model.color(
                    points[block],
                    normals[block],
                    towards[torch.arange(len(block)), view],
                    fit.view_rig_from_world[view],
                )
                for view in best.unbind(1)
            ]
            colors[block] = torch.stack(seen).mean(dim=0)
    return (colors.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
