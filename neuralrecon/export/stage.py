"""From a mesh and its capture to the folders of other programs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import trimesh

from ..capture import Capture, SensorKind, SparsePoints
from ..errors import ExportError
from .body import BodyConfig, RigidBody, require_metres, rigid_body, unscaled
from .bop import BopConfig, write_bop_dataset
from .colmap import write_colmap_project
from .folders import whole_folder
from .nerfstudio import surface_points, write_nerfstudio
from .photographs import Images
from .simulators import write_mjcf, write_urdf
from .usd import write_usd

_log = logging.getLogger(__name__)


class ExportFormat(StrEnum):
    """What can be written; each goes to a folder of its own."""

    bop = "bop"
    urdf = "urdf"
    mjcf = "mjcf"
    usd = "usd"
    nerfstudio = "nerfstudio"
    colmap = "colmap"


_OF_BODIES = (ExportFormat.urdf, ExportFormat.mjcf, ExportFormat.usd)
_OF_CAPTURES = (ExportFormat.bop, ExportFormat.nerfstudio, ExportFormat.colmap)
_IN_METRES = (*_OF_BODIES, ExportFormat.bop)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """How a run is written for other programs.

    Attributes:
        images: whether photographs are copied, or hard links that take no room (nerfstudio and colmap).
        surface_points: so many points of the mesh stand for sparse points where the calibration found none.
        body: how the mesh becomes a rigid body (urdf, mjcf, usd).
        bop: how a BOP data set is written.
    """

    images: Images = Images.copy
    surface_points: int = 20_000
    body: BodyConfig = field(default_factory=BodyConfig)
    bop: BopConfig = field(default_factory=BopConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One format that was written: its folder, and how long that took, convex parts with the first that needs them."""

    format: ExportFormat
    folder: Path
    seconds: float


def export(
    mesh: trimesh.Trimesh,
    folder: Path,
    formats: Sequence[ExportFormat],
    config: ExportConfig | None = None,
    *,
    name: str,
    capture: Capture | None = None,
    points: SparsePoints | None = None,
    overwrite: bool = False,
) -> tuple[Exported, ...]:
    """Each format in ``folder/FORMAT``, whole or not at all.

    Args:
        mesh: closed, world frame, metres.
        folder: made if missing.
        formats: which to write, in this order.
        config: how.
        name: of the object.
        capture: needed by bop, nerfstudio and colmap: calibrated, in the mesh's world.
        points: sparse points of the capture, observed in its photographs in their order; points of the mesh if None.
        overwrite: whether folders that are there may be replaced.

    Raises:
        ExportError: an unscaled run and a format with a unit, no photographs, or a mesh that is not closed.
        ConfigError: a folder is there already, or an extra is not installed.
    """
    config = config or ExportConfig()
    _require_possible(mesh, formats, name, capture)
    body: RigidBody | None = None
    done = []
    for wanted in dict.fromkeys(formats):
        started = time.perf_counter()
        with whole_folder(folder / wanted.value, overwrite=overwrite) as place:
            if wanted in _OF_BODIES:
                body = body or rigid_body(mesh, config.body, name=name)
                _write_body(body, wanted, place)
            else:
                assert capture is not None
                _write_capture(mesh, capture, points, wanted, place, config, name)
        done.append(
            Exported(format=wanted, folder=folder / wanted.value, seconds=round(time.perf_counter() - started, 2))
        )
        _log.info("export: %s in %.1f s", done[-1].folder, done[-1].seconds)
    return tuple(done)


def _require_possible(
    mesh: trimesh.Trimesh, formats: Sequence[ExportFormat], name: str, capture: Capture | None
) -> None:
    """Before anything is written, that the mesh and the capture have what the formats need."""
    for wanted in formats:
        if wanted in _IN_METRES:
            require_metres(mesh, name)
            if capture is not None and not capture.is_metric:
                raise ExportError(unscaled(name))
        if wanted in _OF_CAPTURES and (capture is None or not capture.images_of(SensorKind.color)):
            raise ExportError(f"{name}: {wanted} needs the photographs of a capture, and there are none")


def _write_body(body: RigidBody, wanted: ExportFormat, folder: Path) -> Path:
    write = {ExportFormat.urdf: write_urdf, ExportFormat.mjcf: write_mjcf, ExportFormat.usd: write_usd}[wanted]
    return write(body, folder)


def _write_capture(
    mesh: trimesh.Trimesh,
    capture: Capture,
    points: SparsePoints | None,
    wanted: ExportFormat,
    folder: Path,
    config: ExportConfig,
    name: str,
) -> Path:
    if wanted == ExportFormat.bop:
        return write_bop_dataset(mesh, capture, folder, config.bop, name=name)
    known = points if points is not None else surface_points(mesh, config.surface_points)
    if wanted == ExportFormat.nerfstudio:
        return write_nerfstudio(capture, folder, known, images=config.images)
    return write_colmap_project(capture, folder, known, images=config.images)
