"""What a fit is asked for, and what it gives."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ConfigError
from ..fields import FieldConfig, SurfaceModel
from ..geometry import Box, Similarity
from ..render import Occupancy


class Device(StrEnum):
    """Where a fit is computed; `auto` is the GPU if torch sees one, else the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def device_of(name: Device | str) -> torch.device:
    """The device of that name.

    Raises:
        ConfigError: no such name, or `cuda` where torch sees no GPU.
    """
    if name not in list(Device):
        raise ConfigError(f"device={name}: wanted {', '.join(Device)}; CUDA_VISIBLE_DEVICES says which of several GPUs")
    there = torch.cuda.is_available()
    if name == Device.cuda and not there:
        missing = (
            f"torch {torch.__version__} is built without CUDA; install a build with it"
            if torch.version.cuda is None
            else "torch sees no GPU; look at nvidia-smi, at the driver and at CUDA_VISIBLE_DEVICES"
        )
        raise ConfigError(f"device=cuda: {missing}, or set device=cpu (or auto)")
    return torch.device("cuda" if there and name != Device.cpu else "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How the model is trained. Lengths are millimetres of the object.

    Attributes:
        field: size of the model.
        steps: optimiser steps.
        interior_rays: rays a step through pixels inside the silhouettes.
        edge_rays: rays a step through pixels along the silhouettes' outlines.
        patch_rays: of the interior rays, those whose patches are compared with neighbouring photographs.
        depth_rays: depth readings a step.
        learning_rate_table: Adam's highest rate for the hash tables.
        learning_rate_network: Adam's highest rate for the networks.
        blur_start_mm: 1/inv_s of the opacity at first.
        blur_end_mm: 1/inv_s of the opacity at last.
        blur_until: share of the fit over which the blur falls.
        first_levels: hash levels of the sdf at the start.
        all_levels_from: share of the fit from which all levels are on.
        truncation_mm: how far around a depth reading the sdf is told its value.
        bending_mm: how far apart the points are whose gradients are held alike.
        waves_mm: how far apart the points are across which the surface's bend is held from changing.
        occupancy_resolution: cells a side of the grid that says where rays are sampled.
        checkpoint_every: steps between two checkpoints, if the fit has a folder.
        robust_depth: whether readings count less that contradict the surface as it stands, or whose sensor is inexact.
        depth_exact_mm: spread about the surface up to which a sensor's readings count in full; beyond, by its square.
        w_color: weight of the colours' Huber loss.
        w_silhouette: weight of the silhouettes' cross entropy; up to five times that where depth is sparse or missing.
            On mirror and clear objects 40 times, where `w_bending` counts eight times, and half of the interior rays
            go along the outlines, too.
        silhouette_robustness: how much less pixels of silhouettes count that all others contradict (0 to 1), where
            masks were found rather than given.
        w_eikonal: weight of (|gradient| - 1)^2.
        w_depth: weight of the truncated sdf around depth readings, per mm.
        w_free: weight of the free space before depth readings, per mm.
        w_patches: weight of 1 - correlation of patches in neighbouring photographs, on matte and glossy objects.
        patches_from: share of the fit from which patches are compared.
        w_bending: weight of the difference between gradients of neighbouring points near depth readings, and of the
            same near the surface where photographs see it.
        w_waves: weight of the change of the surface's bend where photographs see it, edges left alone; on mirror
            and clear objects only.
        refine_from: share of the fit from which the sensors' calibration is refined; 1 never does.
        sensor_turn_deg: standard deviation of the error of a sensor's given rotation.
        sensor_shift_mm: standard deviation of the error of a sensor's given position.
        sensor_reach_mm: standard deviation of a constant error of a depth sensor's readings.
        lens_percent: standard deviation of the error of a sensor's focal length.
        stop_turn_deg: standard deviation of the error of a stop's angle (of its rotation, without a turntable).
        stop_shift_mm: standard deviation of the error of a stop's place, without a turntable.
        w_sensors: weight of the squared corrections, in standard deviations.
        w_below: weight of (d sdf / dz)^2 below the table, where the solid goes straight down.
        w_deep: weight of keeping what no ray reaches inside, per mm.
    """

    field: FieldConfig = field(default_factory=FieldConfig)
    steps: int = 1000
    interior_rays: int = 640
    edge_rays: int = 512
    patch_rays: int = 128
    depth_rays: int = 3072
    learning_rate_table: float = 2e-3
    learning_rate_network: float = 2e-3
    blur_start_mm: float = 2.0
    blur_end_mm: float = 0.2
    blur_until: float = 0.5
    first_levels: int = 5
    all_levels_from: float = 0.5
    truncation_mm: float = 4.0
    bending_mm: float = 0.75
    waves_mm: float = 4.0
    depth_exact_mm: float = 0.6
    occupancy_resolution: int = 128
    checkpoint_every: int = 500
    robust_depth: bool = True
    w_color: float = 0.5
    w_silhouette: float = 0.1
    silhouette_robustness: float = 0.4
    w_eikonal: float = 0.2
    w_depth: float = 0.3
    w_free: float = 0.1
    w_bending: float = 0.3
    w_waves: float = 10.0
    w_patches: float = 0.1
    patches_from: float = 0.4
    refine_from: float = 0.2
    sensor_turn_deg: float = 0.03
    sensor_shift_mm: float = 0.3
    sensor_reach_mm: float = 0.5
    lens_percent: float = 0.03
    stop_turn_deg: float = 0.01
    stop_shift_mm: float = 0.1
    w_sensors: float = 5e-4
    w_below: float = 0.2
    w_deep: float = 0.005

    def __post_init__(self) -> None:
        if min(self.steps, self.interior_rays, self.edge_rays, self.depth_rays, self.checkpoint_every) < 1:
            raise ConfigError("steps, interior_rays, edge_rays, depth_rays and checkpoint_every must be 1 or more")
        if not 0 < self.blur_end_mm <= self.blur_start_mm:
            raise ConfigError(f"need 0 < blur_end_mm <= blur_start_mm, got {self.blur_end_mm} and {self.blur_start_mm}")
        if not (0 < self.blur_until <= 1 and 0 < self.all_levels_from <= 1):
            raise ConfigError("blur_until and all_levels_from are shares of the fit: above 0, at most 1")
        if not 0 <= self.silhouette_robustness <= 1:
            raise ConfigError(f"silhouette_robustness must be 0 to 1, got {self.silhouette_robustness}")
        if self.depth_exact_mm <= 0:
            raise ConfigError(f"depth_exact_mm must be above 0, got {self.depth_exact_mm}")
        if not 16 <= self.occupancy_resolution <= 512:
            raise ConfigError(f"occupancy_resolution must be 16 to 512, got {self.occupancy_resolution}")
        if not 1 <= self.first_levels <= self.field.levels:
            raise ConfigError(f"first_levels must be 1 to {self.field.levels}, got {self.first_levels}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A trained solid and how it lies in the world: everything that extraction and rendering need.

    `blur` is 1/inv_s in unit lengths at the time; `view_origins` (unit) and `view_rig_from_world` are a few of the
    photographs' camera centres and rotations, for whoever wants a colour without a view. `step` counts those done.
    Model, occupancy and views are on `device`; how they lie in the world is on the CPU.
    """

    name: str
    model: SurfaceModel
    config: FitConfig
    unit_from_world: Similarity
    box: Box
    floor_m: float | None
    is_metric: bool
    world_per_mm: float
    occupancy: Occupancy
    view_origins: Float[Tensor, "views 3"]
    view_rig_from_world: Float[Tensor, "views 3 3"]
    blur: float
    step: int

    @property
    def device(self) -> torch.device:
        """Where meshes and pictures of it are computed."""
        return self.occupancy.sdf.device

    def to(self, device: torch.device) -> Fit:
        """A copy on another device, or this one if it is there."""
        if device.type == self.device.type:
            return self
        occupancy = replace(self.occupancy, cells=self.occupancy.cells.to(device), sdf=self.occupancy.sdf.to(device))
        return replace(
            self,
            model=deepcopy(self.model).to(device),
            occupancy=occupancy,
            view_origins=self.view_origins.to(device),
            view_rig_from_world=self.view_rig_from_world.to(device),
        )
