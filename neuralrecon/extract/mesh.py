"""Marching cubes on the band, closed by construction."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fast_simplification
import numpy as np
import torch
import trimesh
import trimesh.visual
from jaxtyping import Float, Int
from trimesh.visual import ColorVisuals

from ..capture.mesh_files import stand_up
from ..capture.srgb import linear_of
from ..errors import ConfigError, MeshError
from ..train import Fit
from .bricks import Lattice
from .solid import keep_one_solid
from .surface import Surface

log = logging.getLogger(__name__)

_MOST_FACES = 5e7  # about 150 bytes each while the mesh is made


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


def extract_mesh(fit: Fit, config: MeshConfig | None = None, *, level_mm: float = 0.0) -> trimesh.Trimesh:
    """A level of the sdf as one closed, outward-oriented body in the world frame (metres); by default level 0.

    With a table, the solid is cut at the table's plane: the underside, which no camera sees, is that plane wherever
    the field is solid above it. Without one, the edge of the box around the hull is outside. Of several bodies the
    largest is kept, and cavities that do not reach the outside are filled.

    Args:
        level_mm: which level; above zero it lies outside of the surface. Far from the surface the sdf is no distance.

    Raises:
        MeshError: nothing is solid, or the grid would be too large.
    """
    config = config or MeshConfig()
    voxel = config.voxel_mm * fit.world_per_mm
    _require_room(fit, voxel)
    level = level_mm * fit.world_per_mm * fit.unit_from_world.scale
    surface = Surface.of(keep_one_solid(Lattice.around(fit, voxel, level).sample(), fit.name))
    if config.target_faces and config.target_faces < len(surface.faces):
        surface = _simplified(surface, config.target_faces)
    surface = surface.largest_body()
    if not surface.is_closed():
        raise MeshError(f"{fit.name}: the mesh did not come out closed; try another voxel_mm or no target_faces")
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    if config.vertex_colors and len(fit.view_origins):
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=_vertex_colors(fit, surface))
    mesh.metadata["unit"] = "m" if fit.is_metric else "unscaled"
    size = " x ".join(f"{length:.4g}" for length in mesh.extents)
    log.info("mesh: %d faces, %s %s, closed", len(mesh.faces), size, "m" if fit.is_metric else "world units")
    return mesh


def simplify_mesh(mesh: trimesh.Trimesh, target_faces: int) -> trimesh.Trimesh:
    """A closed mesh with about this many faces, still one closed, outward-oriented body; without colours.

    Positions are those that float32 can hold, as meshes are written.

    Raises:
        MeshError: it is not closed, or does not stay so.
    """
    surface = Surface(vertices=np.asarray(mesh.vertices, np.float64), faces=np.asarray(mesh.faces, np.int32))
    if target_faces and target_faces < len(surface.faces):
        surface = _simplified(surface, target_faces)
    exact = surface.largest_body()
    surface = Surface(vertices=exact.vertices.astype(np.float32).astype(np.float64), faces=exact.faces)
    if not surface.is_closed():
        raise MeshError(
            f"a mesh of {len(mesh.faces)} faces made simpler to {len(surface.faces)} is not closed; give a closed one, "
            "or another target_faces"
        )
    return trimesh.Trimesh(surface.vertices, surface.faces, process=False)


def write_mesh(mesh: trimesh.Trimesh, path: Path) -> None:
    """Write in the format of the suffix: .ply, .obj, .glb or .stl (which has no colours).

    Units are metres; if `metadata` says that the mesh is unscaled, a comment says so too (.ply), or the extras (.glb).
    z is up; in a .glb, whose readers take y for up, a node turns it.

    Raises:
        MeshError: another suffix.
    """
    if path.suffix not in (".ply", ".obj", ".glb", ".stl"):
        raise MeshError(f"{path}: meshes are written as .ply, .obj, .glb or .stl")
    if path.suffix == ".ply" and mesh.metadata.get("unit") == "unscaled":
        data = mesh.export(file_type="ply")
        assert isinstance(data, bytes)
        path.write_bytes(data.replace(b"comment ", b"comment unit unscaled: not metres\ncomment ", 1))
    elif path.suffix == ".glb":
        path.write_bytes(glb_of(mesh))
    else:
        mesh.export(path)


def glb_of(mesh: trimesh.Trimesh, *, double_sided: bool = False, y_up: bool = True) -> bytes:
    """The mesh as glTF 2.0, of a dull material (without one it counts as rough metal) and shaded smoothly.

    Vertex colours are linear there (glTF 2.0, 3.7.2.1): sRGB of 96 becomes 30.

    Args:
        y_up: whether the mesh, whose z is up, is turned as glTF wants it; its vertices stay as they are.
    """
    shown = mesh.copy()
    if isinstance(mesh.visual, ColorVisuals) and mesh.visual.defined:
        linear = linear_of(np.asarray(mesh.visual.vertex_colors, np.float64)[:, :3] / 255)
        shown.visual = ColorVisuals(shown, vertex_colors=np.round(linear * 255).astype(np.uint8))
    shown.vertex_normals  # noqa: B018  computed now, so that they are exported

    def made_dull(tree: dict[str, Any]) -> None:
        dull = {"metallicFactor": 0.0, "roughnessFactor": 0.9}
        tree["materials"] = [{"doubleSided": double_sided, "pbrMetallicRoughness": dull}]
        for part in tree["meshes"]:
            for primitive in part["primitives"]:
                primitive["material"] = 0
        if y_up:
            stand_up(tree)

    data = shown.export(file_type="glb", include_normals=True, tree_postprocessor=made_dull)
    assert isinstance(data, bytes)
    return data


def _require_room(fit: Fit, voxel: float) -> None:
    """That the mesh will have no more than 50 million faces, guessed from the area of the occupancy grid's surface.

    Raises:
        MeshError: it will.
    """
    side, scale = fit.occupancy.sdf.shape[0], fit.unit_from_world.scale
    # a shell one cell thick on both sides; marching cubes make two to three triangles a square voxel
    area = float((fit.occupancy.sdf.abs() < 1 / side).sum()) / 2 / (side * scale) ** 2
    n_faces = 2.5 * area / voxel**2
    if n_faces > _MOST_FACES:
        raise MeshError(
            f"{fit.name}: a voxel of {voxel:g} makes about {n_faces:.1g} faces, {_MOST_FACES:.0g} at most; "
            "choose a larger voxel_mm"
        )


def _simplified(surface: Surface, target_faces: int) -> Surface:
    vertices, faces = simplified(surface.vertices, surface.faces, target_faces)
    return Surface(vertices=vertices, faces=faces.astype(np.int32)).without_folds()


def simplified(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"], target_faces: int
) -> tuple[Float[np.ndarray, "fewer 3"], Int[np.ndarray, "fewer_faces 3"]]:
    """Quadric edge collapse (Garland and Heckbert 1997) to about `target_faces` faces."""
    vertices, faces = fast_simplification.simplify(vertices, faces, target_count=target_faces)[:2]
    return np.asarray(vertices, np.float64), np.asarray(faces, np.int32)


def _vertex_colors(fit: Fit, surface: Surface) -> np.ndarray:
    """Mean colour that the three views facing each vertex most would see (not asking what hides it)."""
    points = fit.unit_from_world.apply(torch.from_numpy(surface.vertices)).float().to(fit.device)
    normals = torch.from_numpy(surface.normals()).to(fit.device)
    colors = torch.empty_like(points)
    with torch.no_grad():
        for block in torch.arange(len(points), device=fit.device).split(1 << 15):
            towards = torch.nn.functional.normalize(points[block, None] - fit.view_origins[None], dim=2)
            facing = -(towards * normals[block, None]).sum(dim=2)
            best = facing.topk(min(3, len(fit.view_origins)), dim=1).indices
            seen = [
                fit.model.color(
                    points[block],
                    normals[block],
                    towards[torch.arange(len(block), device=fit.device), view],
                    fit.view_rig_from_world[view],
                )
                for view in best.unbind(1)
            ]
            colors[block] = torch.stack(seen).mean(dim=0)
    return (colors.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
