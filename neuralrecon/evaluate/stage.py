"""From files to a report."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trimesh

from ..capture import Capture, SensorKind
from ..capture.mesh_files import load_mesh
from ..errors import MeshError
from ..files import replacing
from ..label import views_of
from .image import ImageReport
from .labels import LabelAgreement
from .mesh import EvaluateConfig, MeshReport, evaluate_mesh

_log = logging.getLogger(__name__)


def evaluate_files(
    mesh_path: Path, truth_path: Path, config: EvaluateConfig, *, capture: Capture | None = None
) -> MeshReport:
    """Compares two mesh files, both in metres and in the same frame.

    A capture tells what of the truth its photographs see (its depth maps, if it has no photographs), and whether the
    object stands on a table; without one, everything is compared.

    Raises:
        MeshError: a file is missing, cannot be read, or holds no faces.
    """
    mesh, truth = read_mesh(mesh_path), read_mesh(truth_path)
    views = None
    if capture is not None and config.only_seen:
        kinds = (SensorKind.color,) if capture.images_of(SensorKind.color) else tuple(SensorKind)
        views = views_of(capture, kinds=kinds)
    report = evaluate_mesh(
        mesh,
        truth,
        config,
        views=views,
        on_table=capture is not None and capture.has_table,
    )
    _log.info("evaluate: Chamfer %.3f mm, IoU %.4f", report.raw.chamfer_mm, report.raw.iou)
    return report


def read_mesh(path: Path) -> trimesh.Trimesh:
    """PLY, OBJ, GLB, STL or OFF as one mesh with vertices at the same place merged, without textures.

    Raises:
        MeshError: missing, unreadable, or without faces.
    """
    if not path.is_file():
        raise MeshError(f"{path}: no such file; give a mesh as PLY, OBJ, GLB or STL")
    mesh = load_mesh(path, skip_materials=True)
    try:
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
    except (ArithmeticError, LookupError, ValueError) as error:  # of texture coordinates or normals out of bounds
        raise MeshError(f"{path}: its vertices cannot be told apart ({error}); export the mesh again") from error
    return mesh


def write_report(path: Path, report: MeshReport | ImageReport | LabelAgreement) -> Path:
    """The report as JSON with the fields as keys, whole or not at all. Numbers that are not finite become null."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_plain(asdict(report)), indent=2, allow_nan=False) + "\n")
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
