"""Ours with one part off: a name, and what it changes of the evidence and of the fit's settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from neuralrecon.scene import Scene
from neuralrecon.train import FitConfig

Ablation = Callable[[Scene, FitConfig], tuple[Scene, FitConfig]]


def _room_frame(scene: Scene, config: FitConfig) -> tuple[Scene, FitConfig]:
    """Lights turn with the object: normals and directions are in the object's frame at every stop."""
    assert scene.pixels is not None
    still = torch.eye(3).expand_as(scene.pixels.rig_from_world).contiguous()
    return replace(scene, pixels=replace(scene.pixels, rig_from_world=still)), config


def _silhouettes(scene: Scene, config: FitConfig) -> tuple[Scene, FitConfig]:
    """No loss on the outlines. The hull, from which the fit starts and which bounds the depth, stays."""
    return scene, replace(config, w_silhouette=0.0)


def _depth(scene: Scene, config: FitConfig) -> tuple[Scene, FitConfig]:
    """No depth readings at all."""
    return replace(scene, readings=None, start=scene.hull), config


def _mirrored(scene: Scene, config: FitConfig) -> tuple[Scene, FitConfig]:
    """Colours depend on place and normal only."""
    return scene, replace(config, field=replace(config.field, mirrored=False))


def _inliers(scene: Scene, config: FitConfig) -> tuple[Scene, FitConfig]:
    """Every reading near the hull is believed, and nothing is known to be free before the fit."""
    assert scene.readings is not None
    readings = scene.readings
    trusting = replace(readings, inlier=torch.ones_like(readings.inlier), free=torch.zeros_like(readings.free))
    return replace(scene, readings=trusting, start=scene.hull), replace(config, robust_depth=False)


def _exactness(scene: Scene, config: FitConfig) -> tuple[Scene, FitConfig]:
    """Readings of all depth cameras count alike, however far they spread about the surface."""
    return scene, replace(config, depth_exact_mm=1e3)


def _waves(scene: Scene, config: FitConfig) -> tuple[Scene, FitConfig]:
    """The surface's bend may change as it likes, as it always may on matte and glossy objects."""
    return scene, replace(config, w_waves=0.0)


def _patches(scene: Scene, config: FitConfig) -> tuple[Scene, FitConfig]:
    """Neighbouring photographs are not compared, as they never are on mirror and clear objects."""
    return scene, replace(config, w_patches=0.0)


ABLATIONS: dict[str, Ablation] = {
    "room_frame": _room_frame,
    "mirrored": _mirrored,
    "inliers": _inliers,
    "exactness": _exactness,
    "waves": _waves,
    "silhouettes": _silhouettes,
    "depth": _depth,
    "patches": _patches,
}
