"""Files of meshes and points, read by trimesh, which believes what they say of their size: it is looked at first."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from trimesh.resolvers import Resolver

from ..errors import MeshError

Y_UP_FROM_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # glTF 2.0, 3.4: y is up
MESH_SUFFIXES = (".ply", ".obj", ".glb", ".gltf", ".stl", ".off")
_FARTHEST = 1e9
_MOST_CORNERS = 500_000_000
_MOST_BESIDE_BYTES = 2**28


def load_mesh(path: Path, **options: Any) -> trimesh.Trimesh:
    """One mesh with faces, whose corners exist and are not at the end of the world; z up, also of glTF, where y is.

    Args:
        options: of `trimesh.load`.

    Raises:
        MeshError: missing, of another format, damaged, larger than memory, or without faces.
    """
    try:
        mesh = load_geometry(path, force="mesh", **options)
    except MemoryError as error:
        raise MeshError(f"{path}: needs more memory than there is; simplify the mesh") from error
    except Exception as error:  # trimesh's readers raise whatever a broken file provokes
        reason = str(error).strip() or type(error).__name__
        raise MeshError(f"{path}: not readable as a mesh ({reason}); give {_NAMES}") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise MeshError(f"{path}: no triangles in it; give a mesh, not points alone")
    faces, vertices = np.asarray(mesh.faces), np.asarray(mesh.vertices)
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise MeshError(f"{path}: a face has corner {faces.max()} of {len(vertices)}; export the mesh again")
    if not (np.abs(vertices) < _FARTHEST).all():  # nor if one is not a number
        raise MeshError(f"{path}: has vertices that are not finite, or beyond {_FARTHEST:g}; export the mesh again")
    return mesh


def load_geometry(path: Path, **options: Any) -> Any:
    """Whatever trimesh finds in the file; what stands on y in glTF stands on z.

    Raises:
        ValueError: another format, or it says that it has more in it than it can. Others: trimesh cannot read it.
    """
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise ValueError(f"the suffix {suffix or 'none'} is of no format that is read")
    with _Bounded(io.FileIO(str(path))) as file:
        _LOOKED_AT.get(suffix, lambda file: None)(file)
        file.seek(0)
        found: Any = trimesh.load(file, file_type=suffix[1:], resolver=_Beside(path.parent), **options)
    if suffix in (".glb", ".gltf"):
        found.apply_transform(Y_UP_FROM_Z_UP.T)
    return found


def stand_up(gltf: dict[str, Any]) -> None:
    """Turns what a glTF tree shows, from z up, which its vertices keep, to y up."""
    for scene in gltf["scenes"]:
        for root in scene["nodes"]:
            node = gltf["nodes"][root]
            if {"matrix", "rotation", "scale", "translation"} & node.keys():
                raise ValueError(f"node {root} has a place already")
            node["matrix"] = Y_UP_FROM_Z_UP.T.ravel().tolist()  # by columns


class _Bounded(io.BufferedReader):
    """A file that takes no memory for more bytes than it has, whatever number it is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size() - self.tell())
        return super().read(left if size is None or size < 0 else min(int(size), left))

    def size(self) -> int:
        at = self.tell()
        end = self.seek(0, io.SEEK_END)
        self.seek(at)
        return end


class _Beside(Resolver):
    """Materials, textures and buffers that a file names: plain files in its folder, of bounded size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str) -> bytes:
        path = (self.folder / name.strip()).resolve()
        if not (path.is_relative_to(self.folder.resolve()) and path.is_file()):
            raise FileNotFoundError(f"{name!r} is no file in {self.folder}")
        if path.stat().st_size > _MOST_BESIDE_BYTES:
            raise ValueError(f"{path} has {path.stat().st_size} bytes, at most {_MOST_BESIDE_BYTES} are read")
        return path.read_bytes()

    def keys(self) -> list[str]:
        return [p.name for p in self.folder.iterdir()]

    def namespaced(self, namespace: str) -> Resolver:
        return _Beside(self.folder / namespace)

    def write(self, name: str, data: Any) -> None:
        raise NotImplementedError("nothing is written while reading")


def _look_at_ply(file: _Bounded) -> None:
    """Every element takes a byte at least."""
    for line in file.read(2**16).split(b"end_header")[0].splitlines():
        words = line.split()
        if words[:1] == [b"element"] and not 0 <= int(words[2]) <= file.size():
            raise ValueError(f"it says that it has {int(words[2])} of {words[1]!r} in {file.size()} bytes")


def _look_at_glb(file: _Bounded) -> None:
    head = file.read(20)
    if len(head) == 20:
        _look_at_gltf_text(file.read(struct.unpack("<I", head[12:16])[0]), file.size())


def _look_at_gltf(file: _Bounded) -> None:
    _look_at_gltf_text(file.read(), 2**40)  # what it has is in other files


def _look_at_gltf_text(text: bytes, n_bytes: int) -> None:
    """No array is longer than the file, and all places of all meshes together have a bounded number of corners."""
    told = json.loads(text)
    counts = [int(accessor["count"]) for accessor in told.get("accessors", [])]
    if counts and not 0 <= min(counts) <= max(counts) <= n_bytes:
        raise ValueError(f"it says that it has arrays of {min(counts)} to {max(counts)} entries in {n_bytes} bytes")
    corners = [
        sum(counts[p["indices"] if "indices" in p else p["attributes"]["POSITION"]] for p in mesh["primitives"])
        for mesh in told.get("meshes", [])
    ]
    n_corners = sum(corners[node["mesh"]] for node in told.get("nodes", []) if "mesh" in node)
    if n_corners > _MOST_CORNERS:
        raise ValueError(f"it says that it has {n_corners} corners, at most {_MOST_CORNERS} are read")


_LOOKED_AT = {".ply": _look_at_ply, ".glb": _look_at_glb, ".gltf": _look_at_gltf}
_NAMES = "PLY, OBJ, GLB, STL or OFF"
