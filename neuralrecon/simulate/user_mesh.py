"""Meshes from files, and their place on the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import UInt8
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from ..capture.mesh_files import load_mesh
from ..capture.srgb import linear_of
from ..errors import ConfigError, MeshError
from .prints import Sheet
from .settings import SimulateConfig
from .shapes import BUILTIN_MESHES, TexturedMesh, builtin_mesh

_SMALLEST_M, _LARGEST_M = 0.01, 0.6
_MOST_TEXELS = 2**24  # the simulator holds them as floats
_GREY = (0.5, 0.5, 0.5)


def placed_mesh(config: SimulateConfig) -> TexturedMesh:
    """The object of `config.mesh` on the table: scaled, turned, moved, lowest point at z = 0.

    Raises:
        ConfigError: neither a built-in name nor a file, or a size that no table takes.
        MeshError: the file holds no triangles.
    """
    if config.mesh in BUILTIN_MESHES:
        textured = builtin_mesh(config.mesh)
    elif Path(config.mesh).is_file():
        textured = load_textured(Path(config.mesh))
    else:
        raise ConfigError(
            f"mesh={config.mesh}: no such file, nor a built-in mesh; these are {', '.join(BUILTIN_MESHES)}"
        )
    mesh = textured.mesh.copy()
    mesh.apply_scale(config.scale)
    largest = float(mesh.extents.max())
    if not _SMALLEST_M < largest < _LARGEST_M:
        raise ConfigError(
            f"mesh={config.mesh}: {largest:.3g} m across, want {_SMALLEST_M} to {_LARGEST_M} m; "
            "meshes are in metres, set scale (0.001 for a mesh in mm)"
        )
    centre = mesh.bounds.mean(axis=0)
    centre[2] = mesh.bounds[0, 2]
    mesh.apply_translation(-centre)
    mesh.apply_transform(trimesh.transformations.rotation_matrix(np.radians(config.yaw_deg), [0, 0, 1]))
    mesh.apply_translation([config.offset_x_mm * 1e-3, config.offset_y_mm * 1e-3, 0.0])
    return replace(textured, mesh=mesh)


def load_textured(path: Path) -> TexturedMesh:
    """A mesh file with its image texture, its vertex colours, or else grey. Vertices at the same place become one.

    Raises:
        MeshError: it, or its texture, is missing or damaged.
    """
    loaded = load_mesh(path, process=False)
    place, index = np.unique(loaded.vertices, axis=0, return_inverse=True)
    faces = index.reshape(-1)[loaded.faces]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    if not whole.any():
        raise MeshError(f"{path}: all its triangles are degenerate; export the mesh again")
    mesh = trimesh.Trimesh(place, faces[whole], process=False)
    corners = loaded.faces[whole]
    visual = loaded.visual
    if isinstance(visual, TextureVisuals) and visual.uv is not None:
        image = _image_of(visual.material)
        if image is not None:
            return _with_image(mesh, _corner_uv(np.asarray(visual.uv), corners, path), _decoded(image, path))
    if isinstance(visual, ColorVisuals) and visual.kind == "vertex":
        colors = _linear(np.asarray(visual.vertex_colors)[:, :3] / 255)
        return TexturedMesh(mesh=mesh, corner_coordinates=colors[corners], albedo=lambda color, _: color)
    return TexturedMesh.plain(mesh, _GREY)


def _image_of(material: PBRMaterial | SimpleMaterial) -> Image.Image | None:
    """The texture; of a damaged file it may be anything."""
    return material.baseColorTexture if isinstance(material, PBRMaterial) else material.image


def _corner_uv(uv: np.ndarray, corners: np.ndarray, path: Path) -> np.ndarray:
    if uv.ndim != 2 or uv.shape[1] < 2 or len(uv) <= corners.max() or not np.isfinite(uv).all():
        raise MeshError(f"{path}: its texture coordinates are not two finite numbers a vertex; export the mesh again")
    return uv[corners][..., :2].astype(np.float64)


def _decoded(image: Image.Image, path: Path) -> np.ndarray:
    if not isinstance(image, Image.Image):
        raise MeshError(f"{path}: its texture is {type(image).__name__}, want an image; restore it, or remove it")
    if image.width * image.height > _MOST_TEXELS:
        raise MeshError(
            f"{path}: its texture has {image.width} x {image.height} px, want at most {_MOST_TEXELS}; make it smaller"
        )
    try:
        return np.asarray(image.convert("RGB"))
    except Exception as error:  # decoders of damaged images raise nearly every type there is
        raise MeshError(f"{path}: its texture cannot be decoded ({error}); restore it, or remove it") from error


def _with_image(mesh: trimesh.Trimesh, corner_uv: np.ndarray, srgb: UInt8[np.ndarray, "v u 3"]) -> TexturedMesh:
    pixels = _linear(np.arange(256, dtype=np.float32) / 255)[srgb]
    a, b = corner_uv[:, 1] - corner_uv[:, 0], corner_uv[:, 2] - corner_uv[:, 0]
    texels = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2 * pixels.shape[0] * pixels.shape[1]
    sheet = Sheet.from_image(pixels, float(np.sqrt(mesh.area / max(texels, 1.0))))
    flipped = corner_uv * [1, -1] + [0, 1]
    return TexturedMesh(mesh=mesh, corner_coordinates=flipped, albedo=sheet.sample)


def _linear(srgb: np.ndarray) -> np.ndarray:
    return np.clip(linear_of(srgb), 0.01, 0.92).astype(np.float32)
