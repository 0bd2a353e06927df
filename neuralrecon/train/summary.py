"""What a run did, as one value."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..evaluate import Closedness, MeshReport
from ..evaluate.views import ViewReport
from ..label import LabelSummary, SensorInliers
from ..texture import TextureReport
from .verdict import Verdict

_VERSIONS_OF = (
    "neuralrecon", "torch", "numpy", "scipy", "numba", "trimesh", "libigl", "scikit-image", "hydra-core", "pycolmap",
    "opencv-python-headless",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run did, as in its summary.json.

    `seconds` and `peak_memory_mb` are per stage; the latter is the most that the process had held by the stage's end.
    `verdict` says whether the mesh is of use. `report` is None without ground truth, `views` without photographs held
    out, `texture` if none was asked for. `left_out` is what the capture lacks. `calibration` is given, refined or
    photos; `surface` is the kind that was taken, `surface_reason` why. `depth` tells what the depth sensors read on the
    object and what is believed of it. `unit` of the world and the mesh is m or unscaled. `size_mm` is None if that is
    not known.
    """

    name: str
    folder: Path
    capture: Path
    n_images: int
    calibration: str
    surface: str
    surface_reason: str
    depth: tuple[SensorInliers, ...]
    unit: str
    is_metric: bool
    warnings: tuple[str, ...]
    left_out: tuple[str, ...]
    verdict: Verdict
    mesh: Closedness
    size_mm: tuple[float, ...] | None
    labels: LabelSummary
    report: MeshReport | None
    views: ViewReport | None
    texture: TextureReport | None
    seconds: dict[str, float]
    peak_memory_mb: dict[str, float]
    versions: dict[str, str]

    @property
    def score(self) -> float:
        """What a sweep minimises: Chamfer distance to the truth in mm, else minus the held-out PSNR, else nan."""
        if self.report is not None:
            return self.report.raw.chamfer_mm
        return -self.views.psnr_db if self.views is not None else math.nan


def versions() -> dict[str, str]:
    """Of Python, this package and what it stands on; and the machine."""
    found = {"python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    for name in _VERSIONS_OF:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
