"""Everything that a run depends on, as one value."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ..calibrate import CalibrateConfig, PhotosConfig
from ..errors import ConfigError
from ..evaluate import EvaluateConfig
from ..extract import MeshConfig
from ..label import LabelConfig
from ..scene import SceneConfig, SurfaceKind
from ..segment import MasksFrom, SegmentConfig
from ..simulate import SimulateConfig
from . import Device, FitConfig
from .prepared import CalibrationFrom
from .verdict import VerdictConfig


class MeshFormat(StrEnum):
    """File formats that meshes are written in."""

    ply = "ply"
    obj = "obj"
    glb = "glb"
    stl = "stl"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectConfig:
    """An object of a data set. `folder` is relative to the data root; objects of the set "demo" are simulated there."""

    name: str = ""
    set: str = ""
    folder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that a run depends on.

    Attributes:
        object: which object of a data set.
        capture: any capture folder, in place of an object.
        data: the data root, which holds bigbird/, ycb/ and demo/; NEURALRECON_DATA if that is set.
        out: the output folder; by default a dated one in outputs/.
        overwrite: whether a finished run in `out` may be replaced.
        seed: of everything random.
        device: where the fit is computed: cpu, cuda, or auto, which is cuda if torch sees a GPU.
        viewer: show the run in a browser while it lasts; needs the extra `view`.
        viewer_host: the address at which it is shown; 0.0.0.0 for whoever reaches this machine.
        viewer_port: the port at which it is shown.
        allow_partial: go on with a capture in which files are broken; what was left out is listed in the summary.
        sensors: the sensors to use, such as [N1,N3,NP5]; all if empty.
        every_nth_stop: use every n-th stop of the turntable.
        downscale: divide the sides of the photographs by this.
        formats: further formats of the mesh, beside mesh.ply.
        texture: whether mesh_textured.glb and .obj are made, too; needs the extra "texture".
        calibration: the capture's own (given), that one refined, or a new one from the photographs alone (photos);
            auto refines, and takes the given one where too little can be matched. Photographs without a calibration
            are calibrated from nothing, but for refine.
        masks: the capture's own (given), those made right (refined), new ones from what differs from a turntable's
            backdrop (background), or by Segment Anything (sam); auto refines given masks only if they contradict each
            other. Where most photographs have none, auto and given find outlines by colours.
        surface: matte, glossy, mirror or clear; auto judges by missing and wrong depth and by highlights.
        simulate: how a demo object's capture is made.
        calibrate: how a calibration is refined.
        photos: how photographs are calibrated from nothing.
        segment: how outlines are found and refined.
        verdict: from which figures on the result is ok, and not poor.
        report: whether report.html and preview.jpg are written.
    """

    object: ObjectConfig = field(default_factory=ObjectConfig)
    capture: Path | None = None
    data: Path = field(default_factory=lambda: Path(os.environ.get("NEURALRECON_DATA", "data")))
    out: Path | None = None
    overwrite: bool = False
    seed: int = 0
    device: Device = Device.auto
    viewer: bool = False
    viewer_host: str = "127.0.0.1"
    viewer_port: int = 8080
    allow_partial: bool = False
    sensors: list[str] = field(default_factory=list)
    every_nth_stop: int = 1
    downscale: int = 1
    formats: list[MeshFormat] = field(default_factory=list)
    texture: bool = False
    calibration: CalibrationFrom = CalibrationFrom.auto
    masks: MasksFrom = MasksFrom.auto
    surface: SurfaceKind = SurfaceKind.auto
    simulate: SimulateConfig = field(default_factory=SimulateConfig)
    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    photos: PhotosConfig = field(default_factory=PhotosConfig)
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    scene: SceneConfig = field(default_factory=SceneConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    label: LabelConfig = field(default_factory=LabelConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    verdict: VerdictConfig = field(default_factory=VerdictConfig)
    report: bool = True

    def __post_init__(self) -> None:
        if self.seed < 0 or self.every_nth_stop < 1 or self.downscale < 1:
            raise ConfigError(
                f"seed must be 0 or more, every_nth_stop and downscale 1 or more; "
                f"got {self.seed}, {self.every_nth_stop} and {self.downscale}"
            )
        if not (1 <= self.viewer_port <= 65535 and self.viewer_host):
            raise ConfigError(
                f"viewer_port must be 1 to 65535 and viewer_host an address of this machine, such as 127.0.0.1; "
                f"got {self.viewer_port} and '{self.viewer_host}'"
            )
