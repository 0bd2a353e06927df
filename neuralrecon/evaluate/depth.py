"""How far the depth readings that are believed lie from the mesh."""

from __future__ import annotations

import numpy as np
import torch
import trimesh

from ..label import Solid
from ..scene import Scene

_AT_MOST = 20_000
_BELIEVED = 0.5


def depth_residual_mm(scene: Scene, mesh: trimesh.Trimesh) -> float | None:
    """Median distance of the readings from the mesh, in mm of the object; None if none is believed.

    Readings count whose probability before the fit, by what other images read there, is 0.5 or more; of many readings
    20,000 spread over all images.
    """
    if scene.readings is None:
        return None
    believed = torch.nonzero(scene.readings.inlier >= _BELIEVED).flatten()
    if len(believed) == 0:
        return None
    chosen = believed[torch.linspace(0, len(believed) - 1, min(len(believed), _AT_MOST)).round().long()]
    points = scene.unit_from_world.inverse().apply(scene.readings.points[chosen].double().cpu())
    distances = Solid.of(mesh).closest(points.numpy())[0]
    return float(np.median(distances)) * scene.unit_from_world.scale / scene.unit_per_mm
