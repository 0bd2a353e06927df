"""From a run's mesh and its photographs to a mesh with a picture on it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import trimesh
import trimesh.visual
from jaxtyping import UInt8
from PIL import Image
from trimesh.visual.material import PBRMaterial

from ..errors import ConfigError, EvidenceError
from ..evaluate import Closedness, closedness
from ..extract import simplify_mesh
from ..scene import Photograph, SurfaceKind
from ..train import Fit
from .atlas import Atlas, Texels, require_xatlas
from .blend import Points, blended, found_light, matte_colors
from .caster import Caster
from .choice import Choice
from .eyes import eyes_of
from .light import Light
from .seams import SeamSteps, seam_steps

_log = logging.getLogger(__name__)

_LIGHT_POINTS = 4000
_BLOCK = 2  # texels a side that share what the field expects
_TAKEN_WHOLE = 0.98  # from which the photographs' colour is taken as it is
MOST_SIZE = 4096
# of glTF's materials, where 1 scatters light evenly
ROUGHNESS = {
    SurfaceKind.matte: 0.9,
    SurfaceKind.glossy: 0.4,
    SurfaceKind.mirror: 0.1,
    SurfaceKind.clear: 0.1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextureConfig:
    """How a texture is made.

    Attributes:
        size: pixels a side of the square picture.
        target_faces: simplify the mesh to about this many faces first, still closed; 0 keeps all.
        n_views: photographs that take part in the colour of a face, at most.
    """

    size: int = 2048
    target_faces: int = 20_000
    n_views: int = 6

    def __post_init__(self) -> None:
        if not 64 <= self.size <= MOST_SIZE:
            raise ConfigError(f"size must be 64 to {MOST_SIZE}, got {self.size}")
        if self.target_faces != 0 and self.target_faces < 100:
            raise ConfigError(f"target_faces must be 0 (all) or at least 100, got {self.target_faces}")
        if self.n_views < 1:
            raise ConfigError(f"n_views must be 1 or more, got {self.n_views}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BakeReport:
    """What was baked. Shares are of the texels on charts: `seen_share` those that any photograph shows."""

    closedness: Closedness
    size: int
    n_charts: int
    n_photographs: int
    filled_share: float
    seen_share: float
    seams: SeamSteps
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TexturedMesh:
    """A mesh (world, metres) whose vertices are split along charts' borders, and its picture.

    `mesh.visual` holds the same texture coordinates (v upwards) and picture in a PBR material. `image` is sRGB, its
    first row at v = 1: the object's colour in the mean of the room's light, `light` how that differs by normal.
    """

    mesh: trimesh.Trimesh
    uv: np.ndarray
    image: UInt8[np.ndarray, "v u 3"]
    light: Light
    report: BakeReport


@torch.no_grad()
def bake(
    mesh: trimesh.Trimesh,
    fit: Fit,
    photographs: Sequence[Photograph],
    config: TextureConfig | None = None,
    *,
    surface: SurfaceKind = SurfaceKind.matte,
) -> TexturedMesh:
    """Cut the mesh into charts and colour them from photographs.

    Args:
        mesh: closed, world frame, metres; a simpler one is textured.
        fit: tells where the cameras are, what their sensors do to colours, and what no photograph shows.
        photographs: with outlines, in the fit's capture; `read_photographs` gives those that training drew from.
        surface: decides how rough the material is.

    Raises:
        ConfigError: xatlas is not installed.
        EvidenceError: there are no photographs.
        MeshError: the mesh is not closed, or does not stay so when it is made simpler.

    Example:
        >>> kept, held_out = read_photographs(capture, SceneConfig())  # doctest: +SKIP
        >>> textured = bake(extract_mesh(fit), fit, kept)  # doctest: +SKIP
        >>> write_textured(textured, Path("outputs/cup"))  # doctest: +SKIP
    """
    config = config or TextureConfig()
    require_xatlas()
    if not photographs:
        raise EvidenceError(f"{fit.name}: no photograph with an outline, so there is nothing to make a texture of")
    seconds: dict[str, float] = {}
    fit = fit.to(torch.device("cpu"))
    with _timed("simplify", seconds):
        simple = simplify_mesh(mesh, config.target_faces)
    with _timed("unwrap", seconds):
        atlas = Atlas.of(simple, config.size)
        texels = Texels.of(atlas)
    with _timed("visibility", seconds):
        caster = Caster.of(_in_unit(fit, atlas.vertices), atlas.faces)
        eyes = eyes_of(photographs, fit, caster)
        choice = _choice(fit, simple, eyes, config.n_views)
    with _timed("light", seconds):
        points = _points(fit, simple, atlas, texels, choice)
        few = torch.linspace(0, len(texels.index) - 1, _LIGHT_POINTS, dtype=torch.float64).long().unique()
        light = found_light(fit, points[few], eyes)
    with _timed("field", seconds):
        first, block = _blocks(texels)
        expected = matte_colors(fit, points[first], choice, eyes, light)[block]
    with _timed("blend", seconds):
        colors, taken = blended(fit, points, choice, eyes, light, expected)
        rest = (taken < _TAKEN_WHOLE).nonzero()[:, 0]  # few, so the field is asked at each
        own = matte_colors(fit, points[rest], choice, eyes, light)
        colors[rest] = own.lerp(colors[rest], taken[rest, None])
        image = (texels.picture(colors.clamp(0, 1).numpy()) * 255).round().astype(np.uint8)
    report = BakeReport(
        closedness=closedness(simple),
        size=config.size,
        n_charts=atlas.n_charts,
        n_photographs=len(photographs),
        filled_share=len(texels.index) / config.size**2,
        seen_share=float((taken > 0).float().mean()),
        seams=seam_steps(atlas, image),
        seconds=seconds,
    )
    _log.info(
        "texture: %d faces in %d charts of %d x %d px, %.1f %% of them seen, in %.1f s",
        len(atlas.faces), atlas.n_charts, config.size, config.size, 100 * report.seen_share, sum(seconds.values()),
    )  # fmt: skip
    return TexturedMesh(
        mesh=_with_picture(atlas, image, ROUGHNESS.get(surface, 0.9), fit),
        uv=atlas.uv,
        image=image,
        light=light,
        report=report,
    )


@contextmanager
def _timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 2)


def _in_unit(fit: Fit, points: np.ndarray) -> np.ndarray:
    return fit.unit_from_world.apply(torch.from_numpy(np.array(points, np.float64))).numpy()


def _choice(fit: Fit, simple: trimesh.Trimesh, eyes, n_views: int) -> Choice:
    centers = torch.from_numpy(_in_unit(fit, simple.triangles_center)).float()
    normals = torch.from_numpy(np.array(simple.face_normals)).float()
    faces = torch.from_numpy(np.array(simple.faces, np.int64))
    return Choice.among(eyes, centers, normals, faces, len(simple.vertices), n_views)


def _points(fit: Fit, simple: trimesh.Trimesh, atlas: Atlas, texels: Texels, choice: Choice) -> Points:
    places = texels.of_corners(_in_unit(fit, atlas.vertices), atlas.faces)
    normals = texels.of_corners(atlas.normals, atlas.faces)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    thresholds = texels.of_corners(choice.thresholds.numpy()[:, None], np.asarray(simple.faces))
    return Points(
        places=torch.from_numpy(places),
        normals=torch.from_numpy(normals),
        thresholds=torch.from_numpy(thresholds[:, 0]),
        faces=torch.from_numpy(texels.face.astype(np.int64)),
    )


def _blocks(texels: Texels) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each block of texels the first one, and the block of each texel."""
    v, u = np.divmod(texels.index, texels.size)
    _, first, block = np.unique((v // _BLOCK) * texels.size + u // _BLOCK, return_index=True, return_inverse=True)
    return torch.from_numpy(first), torch.from_numpy(block)


def _with_picture(atlas: Atlas, image: np.ndarray, roughness: float, fit: Fit) -> trimesh.Trimesh:
    material = PBRMaterial(
        name="mesh_textured",
        baseColorTexture=Image.fromarray(image),
        metallicFactor=0.0,
        roughnessFactor=roughness,
    )
    visual = trimesh.visual.TextureVisuals(uv=atlas.uv, material=material)
    mesh = trimesh.Trimesh(
        atlas.vertices, atlas.faces, vertex_normals=atlas.normals.astype(np.float64), visual=visual, process=False
    )
    mesh.metadata["unit"] = "m" if fit.is_metric else "unscaled"
    return mesh
