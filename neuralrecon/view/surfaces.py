"""The surface that is drawn: a level of the fit's sdf, or the run's mesh file; colours of its vertices."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8
from trimesh.visual import ColorVisuals

from ..extract import MeshConfig, extract_mesh
from ..extract.mesh import simplified
from ..train import Fit
from .plane import Plane, clipped

_MOST_FACES = 300_000
_CLAY = (186, 190, 198)


class Paint(StrEnum):
    """What the surface's colours show."""

    clay = "clay"
    color = "colour"
    normal = "normal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A mesh in world as it is drawn; a colour for each vertex."""

    vertices: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    colors: UInt8[np.ndarray, "vertices 3"]


def level_mesh(fit: Fit, voxel_mm: float, level_mm: float, *, colored: bool) -> trimesh.Trimesh:
    """The mesh that `extract_mesh` makes of the fit at this level.

    Raises:
        MeshError: nothing is solid there, or the grid would be too large.
    """
    return extract_mesh(fit, MeshConfig(voxel_mm=voxel_mm, vertex_colors=colored), level_mm=level_mm)


def light_enough(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh, or one of 300,000 faces if it has more: browsers draw it, and a network carries it, in good time.

    The simplified one has no colours.
    """
    if len(mesh.faces) <= _MOST_FACES:
        return mesh
    vertices, faces = simplified(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int32), _MOST_FACES)
    return trimesh.Trimesh(vertices, faces, process=False)


def drawn(mesh: trimesh.Trimesh, paint: Paint, plane: Plane | None) -> Drawn:
    """With its colours, and without what lies beyond the plane."""
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    colors = _colors(mesh, paint).astype(np.float64)
    if plane is not None:
        vertices, faces, colors = clipped(vertices, faces, colors, plane)
    return Drawn(vertices=vertices, faces=faces, colors=np.clip(np.round(colors), 0, 255).astype(np.uint8))


def _colors(mesh: trimesh.Trimesh, paint: Paint) -> np.ndarray:
    if paint == Paint.normal:
        return (np.asarray(mesh.vertex_normals) * 0.5 + 0.5) * 255
    if paint == Paint.color and isinstance(mesh.visual, ColorVisuals) and mesh.visual.kind == "vertex":
        return np.asarray(mesh.visual.vertex_colors)[:, :3]
    return np.tile(_CLAY, (len(mesh.vertices), 1))
