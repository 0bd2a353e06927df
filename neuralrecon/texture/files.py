"""Textured meshes on disk."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from trimesh.exchange.obj import export_obj
from trimesh.visual import TextureVisuals
from trimesh.visual.material import SimpleMaterial

from ..capture.mesh_files import stand_up
from ..errors import MeshError
from ..evaluate import Closedness, closedness, read_mesh
from ..evaluate.views import ViewReport
from ..files import replacing
from .light import as_numbers
from .stage import BakeReport, TexturedMesh

NAME, REPORT_FILE = "mesh_textured", "texture.json"
FILES = tuple(f"{NAME}.{suffix}" for suffix in ("glb", "png", "mtl", "obj"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextureReport:
    """What is in texture.json beside the light.

    `file` is the closedness of what was read back from the .glb, its vertices joined again. `field`, `lit` and `bare`
    compare the photographs held out with the fit's own rendering, with the mesh in the room's light, and with its bare
    picture; None without photographs held out.
    """

    bake: BakeReport
    file: Closedness
    field: ViewReport | None
    lit: ViewReport | None
    bare: ViewReport | None


def write_textured(textured: TexturedMesh, folder: Path) -> Closedness:
    """Writes mesh_textured.glb, .obj, .mtl and .png, each whole or not at all; the .obj comes after what it names.

    Frame and unit are the mesh's: z up, metres; in the .glb a node turns it to y up, as glTF wants it. Colours are
    those in the mean light; of the material only its colour, metallic 0 and its roughness are told.

    Returns:
        What the .glb is when it is read back and vertices at one place are joined.

    Raises:
        MeshError: that is no closed mesh.
    """
    mesh = textured.mesh
    with replacing(folder / FILES[0]) as temporary:
        mesh.export(temporary, tree_postprocessor=stand_up)
        found = closedness(read_mesh(temporary))
        if not (found.is_watertight and found.is_winding_consistent and found.n_bodies == 1):
            raise MeshError(f"{folder / FILES[0]}: does not come back as one closed body ({found}); report this")
    text, files = _obj_of(textured)
    for name in FILES[1:3]:
        with replacing(folder / name) as temporary:
            temporary.write_bytes(files[name])
    with replacing(folder / FILES[3]) as temporary:
        temporary.write_text(text)
    return found


def write_texture_report(textured: TexturedMesh, report: TextureReport, folder: Path) -> Path:
    """texture.json: the report, and the room's light. Numbers that are not finite become null."""
    told = {**_plain(asdict(report)), "light": as_numbers(textured.light)}
    with replacing(folder / REPORT_FILE) as temporary:
        temporary.write_text(json.dumps(told, indent=2, allow_nan=False) + "\n")
    return folder / REPORT_FILE


def _obj_of(textured: TexturedMesh) -> tuple[str, dict[str, bytes]]:
    """The text of the .obj, and what goes beside it by name. What is shiny is not in the picture, nor in the .mtl."""
    white, black = [255, 255, 255, 255], [0, 0, 0, 255]
    material = SimpleMaterial(
        image=Image.fromarray(textured.image), diffuse=white, ambient=black, specular=black, name=NAME
    )
    mesh = textured.mesh.copy()
    mesh.visual = TextureVisuals(uv=textured.uv, material=material)
    text, files = export_obj(
        mesh, include_normals=True, return_texture=True, mtl_name=FILES[2], digits=9, header="neuralrecon"
    )
    return text, files


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
