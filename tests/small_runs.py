"""The train command at its smallest: a sphere at six stops, four sensors, a dozen steps."""

from __future__ import annotations

import os
import sys
from pathlib import Path

SMALL = [
    *("calibration=given", "masks=given", "surface=matte", "sensors=[N1,N3,NP3,NP3_depth]", "scene.hull_resolution=32"),
    *("fit.steps=12", "fit.checkpoint_every=4", "fit.interior_rays=64", "fit.edge_rays=32", "fit.depth_rays=128"),
    *("fit.occupancy_resolution=32", "fit.first_levels=2", "fit.field.levels=3", "fit.field.log2_table_size=10"),
    *("fit.field.color_levels=3", "fit.field.color_log2_table_size=10", "mesh.voxel_mm=6", "label.n_points=200"),
    *("label.n_points_deep_sdf=200", "label.layouts=[if_net]", "evaluate.n_samples=1000"),
    "evaluate.with_alignment=false",
]
# what so short a fit can reach
EASY = ["verdict.least_silhouette_iou=0.3", "verdict.least_psnr_db=5", "verdict.most_depth_residual_mm=40"]


def environment() -> dict[str, str]:
    """That of a child which imports the package under test and computes on one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    here = str(Path(__file__).resolve().parent.parent)
    return os.environ | threads | {"PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}


def python(*words: str) -> list[str]:
    return [sys.executable, *words]
