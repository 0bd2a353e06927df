"""Marching cubes brick by brick, joined without a seam; checks of surfaces with millions of faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes

from .bricks import SIDE, Bricks

_FACES_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """Triangles; outward is where their corners run counterclockwise."""

    vertices: Float64[np.ndarray, "vertices 3"]
    faces: Int32[np.ndarray, "faces 3"]

    @staticmethod
    def of(bricks: Bricks) -> Surface:
        """The zero level by marching cubes (Lewiner et al. 2003), in world."""
        parts, faces, keys = [np.zeros((0, 3))], [np.zeros((0, 3), np.int32)], [np.zeros(0, np.int64)]
        n_vertices = 0
        nodes = [(n + 1) * SIDE for n in bricks.signs.shape]
        for x, y, z in np.ndindex(*bricks.signs.shape):
            block = bricks.block((x, y, z))
            if block is None:
                continue
            start = np.array([x, y, z]) * SIDE
            local, triangles, _, _ = marching_cubes(block, 0.0)
            faces.append(triangles.astype(np.int32) + np.int32(n_vertices))
            keys.append(_edge_keys(local, start, nodes))
            parts.append(local.astype(np.float64) + start)
            n_vertices += len(local)
        kept, names = _merged(np.concatenate(keys))
        del keys
        vertices = np.concatenate(parts)[kept]
        del parts
        vertices *= bricks.voxel
        vertices += bricks.low
        surface = Surface(vertices=vertices, faces=np.concatenate([names[part] for part in faces]))
        return surface if surface.volume() >= 0 else Surface(vertices=vertices, faces=surface.faces[:, ::-1])

    def volume(self) -> float:
        """Enclosed volume, if closed; negative inside out."""
        return float(sum(part.sum() for part in self._volumes()))

    def is_closed(self) -> bool:
        """Whether every edge has one face on each side, wound the same way, and the volume is positive."""
        forth, back = self._edges(up=True), self._edges(up=False)
        forth.sort()
        back.sort()
        return np.array_equal(forth, back) and bool((forth[1:] > forth[:-1]).all()) and self.volume() > 0

    def without_folds(self) -> Surface:
        """Without pairs of faces that lie on each other back to back, as edge collapses leave behind.

        Such a pair hangs on one edge, which it gives two faces too many, and encloses nothing: without it the edge is
        closed again.
        """
        faces = self.faces
        while True:
            _, name, count = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True, return_counts=True)
            single = count[name.ravel()] == 1
            if single.all():
                break
            faces = faces[single]
        used = np.zeros(len(self.vertices), bool)
        used[faces] = True
        names = np.cumsum(used, dtype=np.int32) - np.int32(1)
        return Surface(vertices=self.vertices[used], faces=names[faces])

    def largest_body(self) -> Surface:
        """The connected part that encloses most."""
        count, body = len(self.vertices), np.arange(len(self.vertices), dtype=np.int32)
        for faces in self._portions():
            start, end = body[faces].ravel(), body[np.roll(faces, -1, axis=1)].ravel()
            graph = coo_array((np.ones(len(start), bool), (start, end)), shape=(count, count))
            count, joined = connected_components(graph, directed=False)
            body = joined[body]
        if count == 1:
            return self
        of_face = body[self.faces[:, 0]]
        volumes = np.bincount(of_face, np.concatenate(self._volumes()), minlength=count)
        kept = body == volumes.argmax()
        names = np.cumsum(kept, dtype=np.int32) - np.int32(1)
        return Surface(vertices=self.vertices[kept], faces=names[self.faces[of_face == volumes.argmax()]])

    def normals(self) -> Float32[np.ndarray, "vertices 3"]:
        """Unit normals at the vertices: those of the faces around, by area."""
        sums = np.zeros((3, len(self.vertices)))
        for faces in self._portions():
            a, b, c = (self.vertices[faces[:, i]] for i in range(3))
            across = np.cross(b - a, c - a)
            for axis in range(3):
                weights = np.repeat(across[:, axis], 3)
                sums[axis] += np.bincount(faces.ravel(), weights, minlength=len(self.vertices))
        return (sums / np.maximum(np.linalg.norm(sums, axis=0), 1e-30)).T.astype(np.float32)

    def _volumes(self) -> list[np.ndarray]:
        """Of each face's tetrahedron with the first vertex."""
        origin = self.vertices[0] if len(self.vertices) else np.zeros(3)
        parts = []
        for faces in self._portions():
            a, b, c = (self.vertices[faces[:, i]] - origin for i in range(3))
            parts.append((np.cross(a, b) * c).sum(axis=1) / 6)
        return parts

    def _portions(self) -> list[np.ndarray]:
        return np.array_split(self.faces, len(self.faces) // _FACES_AT_ONCE + 1)

    def _edges(self, *, up: bool) -> Int64[np.ndarray, "edges"]:
        """A number for each pair of vertices that an edge joins, of the edges that go up (or down) in number."""
        parts = []
        for faces in self._portions():
            start, end = faces.ravel().astype(np.int64), np.roll(faces, -1, axis=1).ravel()
            goes = (start < end) == up
            low, high = np.minimum(start, end)[goes], np.maximum(start, end)[goes]
            parts.append(low * len(self.vertices) + high)
        return np.concatenate(parts)


def _edge_keys(local: np.ndarray, start: np.ndarray, nodes: list[int]) -> np.ndarray:
    """A number for the grid's edge on which each vertex lies; -1 if no other brick has it.

    On the faces between bricks a vertex lies within an edge: two of its coordinates are whole numbers.
    """
    shared = np.flatnonzero(((local == 0) | (local == SIDE)).any(axis=1))
    low = np.floor(local[shared])
    axis = (local[shared] != low).argmax(axis=1)
    x, y, z = (low.astype(np.int64) + start).T
    found = np.full(len(local), -1, np.int64)
    found[shared] = ((x * nodes[1] + y) * nodes[2] + z) * 3 + axis
    return found


def _merged(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which vertices stay, one for each edge between bricks, and the new number of every one."""
    shared = np.flatnonzero(keys >= 0)
    _, first, group = np.unique(keys[shared], return_index=True, return_inverse=True)
    kept = keys < 0
    kept[shared[first]] = True
    names = np.cumsum(kept, dtype=np.int32) - np.int32(1)
    names[shared] = names[shared[first]][group]
    return kept, names
