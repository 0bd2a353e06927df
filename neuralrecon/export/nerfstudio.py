"""The calibrated capture for radiance-field programs: `transforms.json` with images, masks, depth and sparse points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh

from ..capture import Capture, SparsePoints, write_transforms
from ..files import replacing
from .photographs import Images, gathered
from .visual import vertex_colors

POINT_FILE = "points.ply"
# what nerfstudio takes a raw unit of depth for unless it is told otherwise
_DEPTH_UNIT_M = 1e-3


def write_nerfstudio(
    capture: Capture, folder: Path, points: SparsePoints | None = None, *, images: Images = Images.copy
) -> Path:
    """``transforms.json`` in an existing folder, with the capture's photographs beside it; returns that file.

    Poses are world-from-camera in OpenGL's camera axes, in the capture's world. Distortion stays in the photographs and
    in the file. Masks are white on the object. Depth is in whole millimetres in the photograph's pixels, for metric
    captures. `points` go to ``points.ply``, which ``ply_file_path`` names.

    Raises:
        ExportError: no photograph, or a file cannot be linked.
        CaptureError: a mask or a depth map cannot be read.
    """
    there = gathered(capture, folder, images, depth_unit_m=_DEPTH_UNIT_M if capture.is_metric else None)
    if points is not None:
        cloud = trimesh.PointCloud(points.xyz, colors=points.rgb)
        with replacing(folder / POINT_FILE) as temporary:
            cloud.export(temporary)
        there = replace(there, points_path=folder / POINT_FILE)
    return write_transforms(there, folder)


def surface_points(mesh: trimesh.Trimesh, n_points: int, seed: int = 0) -> SparsePoints:
    """Points on a mesh with its colours, seen by nobody: for captures whose calibration found none.

    Vertices are drawn without replacement, all of them if there are fewer than `n_points`.
    """
    rng = np.random.default_rng(seed)
    n_vertices = len(mesh.vertices)
    chosen = rng.choice(n_vertices, min(n_points, n_vertices), replace=False)
    return SparsePoints(
        xyz=np.asarray(mesh.vertices, np.float64)[chosen],
        rgb=vertex_colors(mesh)[chosen],
        error_px=np.full(len(chosen), np.nan),
        image_index=np.zeros(0, np.int64),
        point_index=np.zeros(0, np.int64),
        pixel=np.zeros((0, 2)),
    )
