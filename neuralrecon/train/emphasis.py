"""What counts more or less on some objects, by their surface, their depth, and whence their masks are."""

from __future__ import annotations

from dataclasses import replace

from ..scene import Scene
from .fit_types import FitConfig

_DENSE_PER_MM2 = 6.0  # readings on the surface, from which on outlines count as they are set
_OUTLINES_WITHOUT_DEPTH = 5.0
# on mirror and clear objects, where next to nothing else speaks:
_OUTLINES, _SMOOTHNESS = 40.0, 8.0
_RAYS_MOVED = 0.5  # of the interior rays, to the outlines: a step costs the same


def emphasised(config: FitConfig, scene: Scene) -> FitConfig:
    """The settings with weights and rays as they suit the object and its capture."""
    if not scene.masks_are_found:
        config = replace(config, silhouette_robustness=0.0)
    if not scene.surface.is_opaque_and_rough:
        moved = int(_RAYS_MOVED * config.interior_rays)
        return replace(
            config,
            interior_rays=config.interior_rays - moved,
            edge_rays=config.edge_rays + moved,
            w_silhouette=_OUTLINES * config.w_silhouette,
            w_bending=_SMOOTHNESS * config.w_bending,
            w_patches=0.0,
        )
    per_mm2 = 0.0
    if scene.readings is not None:
        per_mm2 = scene.readings.per_mm2(scene.start.area / scene.unit_per_mm**2)
    missing = max(0.0, 1.0 - per_mm2 / _DENSE_PER_MM2)
    outlines = 1.0 + (_OUTLINES_WITHOUT_DEPTH - 1.0) * missing
    return replace(
        config,
        w_silhouette=outlines * config.w_silhouette,
        w_waves=0.0,
    )
