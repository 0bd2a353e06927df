"""What of a mesh is shown: fewer faces, colours at its vertices."""

from __future__ import annotations

import numpy as np
import trimesh
import trimesh.visual
from jaxtyping import UInt8

from ..extract.mesh import simplified as fewer_faces

_GREY = 160


def simplified(mesh: trimesh.Trimesh, n_faces: int) -> trimesh.Trimesh:
    """About so many faces, with the colours of the nearest vertices; 0, or more faces than there are: as it is."""
    if not n_faces or n_faces >= len(mesh.faces):
        return mesh
    vertices, faces = fewer_faces(np.asarray(mesh.vertices), np.asarray(mesh.faces), n_faces)
    fewer = trimesh.Trimesh(vertices, faces, process=False)
    if has_colors(mesh):
        _, nearest = mesh.kdtree.query(fewer.vertices)
        fewer.visual = trimesh.visual.ColorVisuals(fewer, vertex_colors=vertex_colors(mesh)[nearest])
    return fewer


def has_colors(mesh: trimesh.Trimesh) -> bool:
    """Whether the mesh carries colours or a texture."""
    return mesh.visual is not None and mesh.visual.kind is not None


def vertex_colors(mesh: trimesh.Trimesh) -> UInt8[np.ndarray, "vertices 3"]:
    """sRGB colours at the vertices, looked up in the texture if there is one; grey where there are none."""
    visual = mesh.visual
    if visual is None or not has_colors(mesh):
        return np.full((len(mesh.vertices), 3), _GREY, np.uint8)
    colors = visual.to_color() if isinstance(visual, trimesh.visual.TextureVisuals) else visual
    return np.asarray(colors.vertex_colors, np.uint8)[:, :3]
