"""A mesh cut into charts that lie flat in one picture, by xatlas, and the texels of that picture on the mesh."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import trimesh
from jaxtyping import Float32, Float64, Int32, Int64
from scipy.ndimage import distance_transform_edt

from ..errors import ConfigError, MeshError

_PADDING_PX = 4
_FILLED = 0.7  # share of the picture that charts are expected to cover
_MOST_CELLS = 1 << 23
_CREASE_DEG = 40.0  # faces that meet at more than this do not share a normal


def require_xatlas() -> None:
    """Raises ConfigError where xatlas, which cuts the mesh, is not installed."""
    if find_spec("xatlas") is None:
        raise ConfigError('textures need xatlas, which is not installed; pip install -e ".[texture]"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Atlas:
    """A mesh with its vertices split along the charts' borders, and where they lie in a square picture.

    `uv` are in [0, 1], v upwards: the picture's first row is at v = 1. `normals` are unit vectors, one for each split
    vertex, not averaged across creases. `n_charts` counts the pieces, `size` the picture's pixels a side.
    """

    vertices: Float64[np.ndarray, "vertices 3"]
    normals: Float32[np.ndarray, "vertices 3"]
    faces: Int32[np.ndarray, "faces 3"]
    uv: Float64[np.ndarray, "vertices 2"]
    size: int
    n_charts: int

    @staticmethod
    def of(mesh: trimesh.Trimesh, size: int) -> Atlas:
        """Cut and pack (least squares conformal maps, Levy et al. 2002, on charts grown by their flatness).

        Raises:
            ConfigError: xatlas is not installed.
            MeshError: xatlas left faces out.
        """
        require_xatlas()
        import xatlas

        vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
        # in lengths of a texel: what xatlas takes for flat depends on the unit, and metres make three times the charts
        texel = float(np.sqrt(mesh.area / _FILLED)) / size
        atlas = xatlas.Atlas()
        atlas.add_mesh(((vertices - vertices.mean(axis=0)) / texel).astype(np.float32), faces.astype(np.uint32))
        charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
        packing.padding, packing.resolution = _PADDING_PX, size
        atlas.generate(charts, packing)
        origins, split, uv = atlas.get_mesh(0)
        if split.shape != faces.shape or not np.array_equal(origins[split], faces):
            raise MeshError(f"xatlas laid out {len(split)} of {len(faces)} faces; give another target_faces")
        uv = uv.astype(np.float64) * [atlas.width, atlas.height] / max(atlas.width, atlas.height)
        split = split.astype(np.int32)
        return Atlas(
            vertices=vertices[origins],
            normals=_normals(vertices, faces, origins, split),
            faces=split,
            uv=np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1),
            size=size,
            n_charts=atlas.chart_count,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Texels:
    """The pixels of a square picture whose centres lie on charts: flat index (row by row), face, weights of corners."""

    size: int
    index: Int64[np.ndarray, "texels"]
    face: Int32[np.ndarray, "texels"]
    weights: Float32[np.ndarray, "texels 3"]

    @staticmethod
    def of(atlas: Atlas) -> Texels:
        corners = np.stack([atlas.uv[:, 0], 1.0 - atlas.uv[:, 1]], axis=1)[atlas.faces] * atlas.size
        low = np.ceil(corners.min(axis=1) - 0.5).astype(np.int64)
        high = np.floor(corners.max(axis=1) - 0.5).astype(np.int64)
        extent = np.clip(high - low + 1, 0, None)
        cells = extent.prod(axis=1)
        parts = [_covered(corners, low, extent, cells, faces) for faces in _portions(cells)]
        u, v, face, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        index, first = np.unique(v * atlas.size + u, return_index=True)  # a centre on an edge has two faces
        return Texels(
            size=atlas.size, index=index, face=face[first].astype(np.int32), weights=weights[first].astype(np.float32)
        )

    def of_corners(self, values: np.ndarray, faces: np.ndarray) -> Float32[np.ndarray, "texels k"]:
        """Values of vertices at the texels."""
        corners = faces[self.face]
        first, second, third = (self.weights[:, i, None] * values[corners[:, i]].astype(np.float32) for i in range(3))
        return first + second + third

    def picture(self, colors: Float32[np.ndarray, "texels 3"]) -> Float32[np.ndarray, "v u 3"]:
        """The whole picture: between the charts the colour of the nearest texel, so that filters mix in nothing else.

        That is what makes coarser levels of the picture, and interpolation at borders, safe.
        """
        found = np.zeros((self.size * self.size, 3), np.float32)
        found[self.index] = colors
        empty = np.ones(self.size * self.size, bool)
        empty[self.index] = False
        nearest = distance_transform_edt(
            empty.reshape(self.size, self.size), return_distances=False, return_indices=True
        )
        assert isinstance(nearest, np.ndarray)
        return found.reshape(self.size, self.size, 3)[nearest[0], nearest[1]]


def _portions(cells: np.ndarray) -> list[np.ndarray]:
    """Faces in groups of bounded memory."""
    group = np.cumsum(cells) // _MOST_CELLS
    return np.split(np.arange(len(cells)), np.flatnonzero(np.diff(group)) + 1)


def _covered(corners, low, extent, cells, faces):
    """Which pixels' centres lie in these triangles: u, v, face and weights of the corners."""
    face = np.repeat(faces, cells[faces])
    starts = np.cumsum(cells[faces]) - cells[faces]
    local = np.arange(len(face)) - np.repeat(starts, cells[faces])
    u, v = low[face, 0] + local % extent[face, 0], low[face, 1] + local // extent[face, 0]
    a, b, c = (corners[:, i] for i in range(3))
    across = _cross(b - a, c - a)
    across = np.where(np.abs(across) < 1e-12, np.inf, across)
    x, y = u + 0.5, v + 0.5
    to_a = np.stack([x, y], axis=1) - a[face]
    second = _cross(to_a, (c - a)[face]) / across[face]
    third = _cross((b - a)[face], to_a) / across[face]
    weights = np.stack([1 - second - third, second, third], axis=1)
    inside = (weights >= -1e-9).all(axis=1) & np.isfinite(across[face])
    return u[inside], v[inside], face[inside], weights[inside]


def _cross(a, b):
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _normals(vertices, faces, origins, split) -> Float32[np.ndarray, "vertices 3"]:
    """Of each split vertex: by area over its chart's faces, then over the vertices at its place if they agree."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    own = _summed(split.ravel(), np.repeat(across, 3, axis=0), len(origins))
    whole = _summed(origins, own, len(vertices))[origins]
    agree = (_unit(own) * _unit(whole)).sum(axis=1) > np.cos(np.radians(_CREASE_DEG / 2))
    return _unit(np.where(agree[:, None], whole, own)).astype(np.float32)


def _summed(group, values, n):
    return np.stack([np.bincount(group, values[:, axis], minlength=n) for axis in range(3)], axis=1)


def _unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
