"""The calibrated capture for radiance-field programs: `transforms.json` with images, masks, depth and sparse points."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh

from ..capture import Capture, SensorKind, SparsePoints, write_transforms
from ..files import replacing
from .photographs import Images, gathered
from .registered import depth_partners
from .visual import vertex_colors

_log = logging.getLogger(__name__)

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
    outlined = _outlined(capture)
    there = gathered(outlined, folder, images, depth_unit_m=_DEPTH_UNIT_M if _has_depth(outlined) else None)
    if points is not None:
        cloud = trimesh.PointCloud(points.xyz, colors=points.rgb)
        with replacing(folder / POINT_FILE) as temporary:
            cloud.export(temporary)
        there = replace(there, points_path=folder / POINT_FILE)
    return write_transforms(there, folder)


def _outlined(capture: Capture) -> Capture:
    """Without photographs that have no outline, if others have one."""
    photographs = capture.images_of(SensorKind.color)
    bare = {i for i in photographs if i.mask_path is None}
    if not bare or len(bare) == len(photographs):
        return capture
    _log.warning("nerfstudio: %d of %d photographs have no outline and are left out", len(bare), len(photographs))
    return replace(capture, images=tuple(i for i in capture.images if i not in bare))


def _has_depth(capture: Capture) -> bool:
    """Whether all photographs can have depth."""
    if not capture.is_metric or not capture.images_of(SensorKind.depth):
        return False
    partners = depth_partners(capture)
    without = dict.fromkeys(
        i.sensor for i in capture.images_of(SensorKind.color) if (i.sensor, i.frame) not in partners
    )
    if without:
        _log.warning(
            "nerfstudio: depth is left out, for no depth sensor is nearest to photographs of %s; leave those sensors "
            "out (sensors=) to have it",
            ", ".join(without),
        )
    return not without


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
