"""The model of a BOP data set: PLY in millimetres, and what is known of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
import trimesh.visual
from jaxtyping import Float

from ..errors import ConfigError
from ..files import read_json, replacing
from .visual import vertex_colors

_AT_ONCE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Symmetries:
    """As BOP's ``models_info.json`` has them: 4 x 4 matrices by rows; axes with a point on each, in mm."""

    discrete: tuple[tuple[float, ...], ...]
    continuous: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]

    @staticmethod
    def read(file: Path) -> Symmetries:
        """Of a JSON object with ``symmetries_discrete`` or ``symmetries_continuous`` or both.

        Raises:
            ConfigError: missing, no JSON, or another object.
        """
        try:
            told = read_json(file)
            unknown = set(told) - {"symmetries_discrete", "symmetries_continuous"}
            if unknown:
                raise ValueError(f"unknown key {min(unknown)!r}")
            discrete = tuple(_floats(m, 16) for m in told.get("symmetries_discrete", []))
            axes = told.get("symmetries_continuous", [])
            continuous = tuple((_floats(a["axis"], 3), _floats(a["offset"], 3)) for a in axes)
            for matrix in discrete:
                _require_rigid(np.array(matrix).reshape(4, 4))
        except (OSError, TypeError, AttributeError, LookupError, ValueError) as error:
            raise ConfigError(
                f"symmetries={file}: {type(error).__name__}: {error}; want an object with symmetries_discrete (lists "
                "of 16 numbers, rigid) and symmetries_continuous (objects with axis and offset)"
            ) from error
        return Symmetries(discrete=discrete, continuous=continuous)

    def as_json(self) -> dict[str, Any]:
        axes = [{"axis": list(axis), "offset": list(offset)} for axis, offset in self.continuous]
        told = {"symmetries_discrete": [list(m) for m in self.discrete], "symmetries_continuous": axes}
        return {key: value for key, value in told.items() if value}


def write_models(
    mesh: trimesh.Trimesh,
    middle_m: Float[np.ndarray, "3"],
    folder: Path,
    obj_id: int,
    symmetries: Symmetries | None = None,
) -> Path:
    """``obj_NNNNNN.ply`` (binary, with normals and colours) and ``models_info.json``; returns the PLY's path.

    Args:
        mesh: in metres.
        middle_m: the place in it that becomes the model's origin.
    """
    vertices_mm = (np.asarray(mesh.vertices, np.float64) - middle_m) * 1e3
    model = trimesh.Trimesh(vertices_mm, mesh.faces, process=False)
    model.visual = trimesh.visual.ColorVisuals(model, vertex_colors=vertex_colors(mesh))
    file = folder / f"obj_{obj_id:06d}.ply"
    data = model.export(file_type="ply", vertex_normal=True)
    assert isinstance(data, bytes)
    with replacing(file) as temporary:
        temporary.write_bytes(data)
    with replacing(folder / "models_info.json") as temporary:
        told = model_info(vertices_mm) | (symmetries.as_json() if symmetries else {})
        temporary.write_text(json.dumps({str(obj_id): told}, indent=1, allow_nan=False), encoding="utf-8")
    return file


def model_info(vertices_mm: Float[np.ndarray, "vertices 3"]) -> dict[str, float]:
    """Bounding box and diameter (largest distance between any two vertices), in mm."""
    low, size = vertices_mm.min(axis=0), np.ptp(vertices_mm, axis=0)
    box = {f"min_{a}": float(x) for a, x in zip("xyz", low, strict=True)}
    return {
        "diameter": diameter(vertices_mm),
        **box,
        **{f"size_{a}": float(x) for a, x in zip("xyz", size, strict=True)},
    }


def diameter(points: Float[np.ndarray, "points 3"]) -> float:
    """The largest distance between any two points; both are corners of the convex hull."""
    hull = np.asarray(trimesh.convex.convex_hull(points).vertices, np.float64)
    squared = np.square(hull).sum(axis=1)
    farthest = 0.0
    for start in range(0, len(hull), _AT_ONCE):
        block = slice(start, start + _AT_ONCE)
        apart = squared[block, None] + squared[None] - 2 * hull[block] @ hull.T
        farthest = max(farthest, float(apart.max()))
    return float(np.sqrt(farthest))


def _floats(values: Any, n: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != n or not np.isfinite(numbers).all():
        raise ValueError(f"{values} is no list of {n} finite numbers")
    return numbers


def _require_rigid(matrix: np.ndarray) -> None:
    block = matrix[:3, :3]
    if not (np.allclose(block @ block.T, np.eye(3), atol=1e-3) and np.linalg.det(block) > 0):
        raise ValueError(f"{matrix.tolist()} is not rigid")
