"""Reading the sparse points that came with a capture."""

from __future__ import annotations

import numpy as np

from ..errors import CaptureError
from .headers import decoding
from .types import Capture, SparsePoints


def read_points(capture: Capture) -> SparsePoints | None:
    """The points that `capture.points_path` names, None if it names none.

    A COLMAP model tells observations too; those in images that are not in the capture (a restricted one) are not among
    them, its points all are. A PLY file tells positions and colours only.

    Raises:
        CaptureError: the file or the model is missing or broken.

    Example:
        >>> points = read_points(read_capture("data/photos_of_a_mouse"))  # doctest: +SKIP
    """
    path = capture.points_path
    if path is None:
        return None
    if path.is_dir():
        # pycolmap is loaded only where a COLMAP model is asked for.
        from .colmap import model_points

        return model_points(capture, path)
    # trimesh is heavy, and only this branch needs it.
    import trimesh

    from .mesh_files import load_geometry

    with decoding(path, "file of points"):
        cloud = load_geometry(path, process=False)
        if not isinstance(cloud, trimesh.PointCloud):
            raise CaptureError(f"{path}: holds {type(cloud).__name__}, want points alone; export them as a PLY file")
        xyz = np.asarray(cloud.vertices, dtype=np.float64)
        n_points, rgb = len(xyz), np.asarray(cloud.colors, dtype=np.uint8).reshape(-1, 4)[:, :3]
    return SparsePoints(
        xyz=xyz,
        rgb=rgb if len(rgb) == n_points else np.full((n_points, 3), 128, dtype=np.uint8),
        error_px=np.full(n_points, np.nan),
        image_index=np.zeros(0, dtype=np.int64),
        point_index=np.zeros(0, dtype=np.int64),
        pixel=np.zeros((0, 2)),
    )
