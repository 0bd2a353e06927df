"""The object as rays meet it: Embree's triangles with smooth normals and the print."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import coo_matrix

from .shapes import Albedo, TexturedMesh

# single precision at 1 m resolves 0.1 um; leaving a surface by this much never meets it again
SKIN_M = 2e-5
_CREASE_COS = np.cos(np.radians(40))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """Where rays met the object, one entry per ray that did. `normals` are smooth, `facets` the triangles' own; both
    point out of the solid. `rays` are the indices of the rays.
    """

    rays: Int[np.ndarray, "hits"]
    faces: Int[np.ndarray, "hits"]
    weights: Float[np.ndarray, "hits 3"]
    distances: Float[np.ndarray, "hits"]
    points: Float[np.ndarray, "hits 3"]
    normals: Float[np.ndarray, "hits 3"]
    facets: Float[np.ndarray, "hits 3"]


@dataclass(frozen=True, slots=True)
class Solid:
    """Built once by `Solid.build`, in the table frame; queries may run in many threads at once."""

    vertices: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    corner_normals: Float[np.ndarray, "faces 3 3"]
    facet_normals: Float[np.ndarray, "faces 3"]
    corner_coordinates: Float[np.ndarray, "faces 3 k"]
    albedo_of: Albedo
    embree: EmbreeScene

    @staticmethod
    def build(textured: TexturedMesh, longest_edge_m: float = 0.006) -> Solid:
        """Triangles are split to `longest_edge_m`: shadows are kept per vertex."""
        mesh = textured.mesh
        normals = _corner_normals(mesh)
        coordinates = np.asarray(textured.corner_coordinates, dtype=np.float32)
        split = trimesh.remesh.subdivide_to_size(
            mesh.vertices, mesh.faces, longest_edge_m, max_iter=12, return_index=True
        )
        vertices, faces, origin = split[0], split[1], split[-1]
        corners = vertices[faces]
        if len(faces) != len(mesh.faces):
            flat = corners.reshape(-1, 3)
            weights = trimesh.triangles.points_to_barycentric(np.repeat(mesh.triangles[origin], 3, axis=0), flat)
            parts = weights.reshape(-1, 3, 3)
            normals = np.einsum("fcw,fwk->fck", parts, normals[origin])
            coordinates = np.einsum("fcw,fwk->fck", parts, coordinates[origin])
        else:
            normals, coordinates = normals[origin], coordinates[origin]
        _, first, index = np.unique(vertices.round(8), axis=0, return_index=True, return_inverse=True)
        vertices, faces = vertices[first].astype(np.float32), index.reshape(-1)[faces].astype(np.int32)
        facets = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        embree = EmbreeScene()
        TriangleMesh(embree, vertices, faces)
        solid = Solid(
            vertices,
            faces,
            np.ascontiguousarray(normals, dtype=np.float32),
            _unit(facets).astype(np.float32),
            np.ascontiguousarray(coordinates, dtype=np.float32),
            textured.albedo,
            embree,
        )
        solid.blocked(np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]]))
        return solid

    def hit(self, origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"]) -> Hits:
        """First meeting of each ray (unit directions) with the surface, from either side."""
        found = self.embree.run(_f32(origins), _f32(directions), query="INTERSECT", output=True)
        rays = np.nonzero(found["primID"] >= 0)[0]
        faces, u, v = found["primID"][rays], found["u"][rays], found["v"][rays]
        weights = np.stack([1 - u - v, u, v], axis=1)
        points = np.einsum("nc,nck->nk", weights, self.vertices[self.faces[faces]])
        normals = _unit(np.einsum("nc,nck->nk", weights, self.corner_normals[faces]))
        return Hits(
            rays=rays,
            faces=faces,
            weights=weights,
            distances=found["tfar"][rays],
            points=points,
            normals=normals,
            facets=self.facet_normals[faces],
        )

    def blocked(
        self, origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"]
    ) -> Bool[np.ndarray, "rays"]:
        """Does anything lie along the ray?"""
        return self.embree.run(_f32(origins), _f32(directions), query="OCCLUDED") >= 0

    def albedo(self, hits: Hits, footprint_m: float) -> Float[np.ndarray, "hits 3"]:
        coordinates = np.einsum("nc,nck->nk", hits.weights, self.corner_coordinates[hits.faces])
        return np.asarray(self.albedo_of(coordinates, footprint_m), dtype=np.float32)

    def at_vertices(self, hits: Hits, values: Float[np.ndarray, "vertices"]) -> Float[np.ndarray, "hits"]:
        return (values[self.faces[hits.faces]] * hits.weights).sum(axis=1)

    def vertex_normals(self) -> Float[np.ndarray, "vertices 3"]:
        """Mean of the corners' normals."""
        total = np.zeros_like(self.vertices)
        np.add.at(total, self.faces, self.corner_normals)
        return _unit(total)


def _corner_normals(mesh: trimesh.Trimesh) -> ndarray:
    """Per corner, the mean (by area) of the faces around the vertex whose normal is within 40 deg of the face's own."""
    facets = np.cross(mesh.triangles[:, 1] - mesh.triangles[:, 0], mesh.triangles[:, 2] - mesh.triangles[:, 0])
    units = _unit(facets)
    n_faces, n_vertices = len(mesh.faces), len(mesh.vertices)
    corner_vertices = mesh.faces.reshape(-1)
    ones = np.ones(3 * n_faces, dtype=np.float32)
    face_of_corner = np.repeat(np.arange(n_faces), 3)
    touches = coo_matrix((ones, (corner_vertices, face_of_corner)), shape=(n_vertices, n_faces)).tocsr()
    pairs = touches[corner_vertices].tocoo()
    own, other = face_of_corner[pairs.row], pairs.col
    alike = (units[own] * units[other]).sum(axis=1) > _CREASE_COS
    row, other = pairs.row[alike], other[alike]
    total = np.stack([np.bincount(row, facets[other, k], minlength=3 * n_faces) for k in range(3)], axis=1)
    return _unit(np.where((total == 0).all(1, keepdims=True), units[face_of_corner], total)).reshape(-1, 3, 3)


def _unit(vectors: ndarray) -> ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-20)


def _f32(array: ndarray) -> ndarray:
    return np.ascontiguousarray(array, dtype=np.float32)
