"""A run as a BOP data set: a model in millimetres, and a scene of photographs for each camera.

Source: the BOP toolkit's description of its format, and what its scripts compute masks and boxes from.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Bool
from PIL import Image as PILImage

from ..capture import Capture, Image, Sensor, SensorKind, camera_of, read_color, read_mask, write_bop
from ..errors import ConfigError, ExportError
from ..files import replacing
from ..geometry import Rigid
from .body import require_metres, unscaled
from .bop_model import Symmetries, write_models
from .photographs import write_depth, write_mask
from .registered import depth_partners, registered_depth
from .silhouette import Caster, Silhouette
from .undistort import Undistortion
from .visual import simplified

_log = logging.getLogger(__name__)
_DEPTH_UNIT_M = 1e-4
_UNDISTORTED_SUFFIX = ".jpg"
_COPIED = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True, kw_only=True)
class BopConfig:
    """How a BOP data set is written.

    Attributes:
        obj_id: the object's number.
        split: the folder of the scenes, such as train or test.
        model_faces: the model is simplified to about this many faces; 0 keeps all.
        downscale: divide the sides of the photographs by this.
        jpeg_quality: of photographs that are resampled; others are copied.
        symmetries: a JSON file with the model's symmetries_discrete and symmetries_continuous, in its millimetres.
    """

    obj_id: int = 1
    split: str = "train"
    model_faces: int = 100_000
    downscale: int = 1
    jpeg_quality: int = 95
    symmetries: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.obj_id < 10**6 or self.downscale < 1 or self.model_faces < 0:
            raise ConfigError(
                f"obj_id must be 1 to 999999, downscale 1 or more, model_faces 0 (all) or more; got {self.obj_id}, "
                f"{self.downscale} and {self.model_faces}"
            )
        if not 1 <= self.jpeg_quality <= 100 or not self.split.replace("_", "").isalnum():
            raise ConfigError(
                f"jpeg_quality must be 1 to 100 and split a plain word; got {self.jpeg_quality} and {self.split!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """What is in the data set: the mesh in its own frame, and where that is in the world."""

    caster: Caster
    world_from_model: Rigid


def write_bop_dataset(
    mesh: trimesh.Trimesh, capture: Capture, folder: Path, config: BopConfig | None = None, *, name: str
) -> Path:
    """``models/``, ``{split}/{scene}/``, ``camera.json`` and ``dataset_info.md`` in an existing folder; returns it.

    The model's frame has its axes as the world and its origin in the middle of the bounding box. Each sensor of
    photographs is a scene, numbered from 1: `cam_K` and the image size are then the same all over a scene. BOP has no
    lens distortion: photographs and outlines are resampled for the same K without any. ``mask/`` is the model's outline
    at its pose, ``mask_visib/`` what of it lies in the outline found in the photograph. A depth sensor's readings are
    shown in the pixels of the photographs nearest to it (`registered_depth`), in units of 0.1 mm up to 6.5 m.

    Raises:
        ExportError: the run is not metric, or there is no photograph.
        CaptureError: a photograph, a mask or a depth map cannot be read.
    """
    config = config or BopConfig()
    if not capture.is_metric:
        raise ExportError(unscaled(name))
    require_metres(mesh, name)
    sensors = [s for s in capture.sensors if any(i.sensor == s.name for i in capture.images_of(SensorKind.color))]
    if not sensors:
        raise ExportError(f"{name}: no photograph in the capture; a BOP scene is made of photographs")
    model_mesh = simplified(mesh, config.model_faces)
    middle = np.asarray(model_mesh.bounds, np.float64).mean(axis=0)
    symmetries = None if config.symmetries is None else Symmetries.read(config.symmetries)
    write_models(model_mesh, middle, folder / "models", config.obj_id, symmetries)
    model = _Model(
        caster=Caster.of(np.asarray(model_mesh.vertices, np.float64) - middle, model_mesh.faces),
        world_from_model=Rigid(rotation=torch.eye(3, dtype=torch.float64), translation=torch.from_numpy(middle)),
    )
    partners = depth_partners(capture)
    full = replace(capture, downscale=config.downscale)
    for number, sensor in enumerate(sensors, 1):
        scene = folder / config.split / f"{number:06d}"
        _write_scene(full, sensor, partners, model, scene, config)
        _log.info("bop: scene %d of %d, sensor %s", number, len(sensors), sensor.name)
    _write_json(folder / "camera.json", _simulated_camera(full, sensors[0]))
    with replacing(folder / "dataset_info.md") as temporary:
        temporary.write_text(_info(name, config, sensors, middle), encoding="utf-8")
    return folder


def _write_scene(
    capture: Capture,
    sensor: Sensor,
    partners: dict[tuple[str, str], Image],
    model: _Model,
    scene: Path,
    config: BopConfig,
) -> None:
    images = [i for i in capture.images_of(SensorKind.color) if i.sensor == sensor.name]
    undistortion = Undistortion.of(camera_of(capture, images[0]))
    straight = replace(sensor, camera=undistortion.camera)
    depth_sensor = replace(straight, name="depth", kind=SensorKind.depth, metres_per_unit=_DEPTH_UNIT_M)
    there: list[Image] = []
    info: dict[str, list[dict[str, Any]]] = {}
    scene.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=scene.parent, prefix=".scene_") as temporary:
        work = Path(temporary)
        for number, image in enumerate(images):
            cam_from_world = capture.sensor_from_world(image)
            seen = model.caster.seen_by(undistortion.camera, cam_from_world @ model.world_from_model)
            mask = seen.in_image()
            outline = mask if image.mask_path is None else mask & undistortion.mask(read_mask(capture, image))
            write_mask(mask, scene / "mask" / f"{number:06d}_000000.png")
            visible = write_mask(outline, work / f"{number}_mask.png")
            photo = _photograph(capture, image, undistortion, work / f"{number}{_UNDISTORTED_SUFFIX}", config)
            there.append(replace(image, path=photo, mask_path=visible, object_is_black=False))
            depth = partners.get((image.sensor, image.frame))
            metres = None if depth is None else registered_depth(capture, depth, undistortion.camera, cam_from_world)
            if metres is not None:
                file = write_depth(metres, work / f"{number}_depth.png", _DEPTH_UNIT_M)
                there.append(Image(sensor=depth_sensor.name, frame=image.frame, path=file))
            info[str(number)] = [_gt_info(seen, outline, metres)]
        described = replace(
            capture,
            sensors=(straight, depth_sensor),
            frames=tuple(replace(f, rig_from_world=f.rig_from_world @ model.world_from_model) for f in capture.frames),
            images=tuple(there),
            downscale=1,
        )
        write_bop(described, scene, obj_id=config.obj_id)
    _write_json(scene / "scene_gt_info.json", info)


def _photograph(capture: Capture, image: Image, undistortion: Undistortion, file: Path, config: BopConfig) -> Path:
    """The photograph's own file if its pixels may stay, else `file`, with new pixels."""
    as_it_is = undistortion.grid is None and capture.downscale == 1
    if as_it_is and image.path.suffix.lower() in _COPIED:
        return image.path
    pixels = undistortion.image(read_color(capture, image))
    PILImage.fromarray(pixels).save(file, quality=config.jpeg_quality)
    return file


def _gt_info(seen: Silhouette, visible: Bool[np.ndarray, "v u"], metres: np.ndarray | None) -> dict[str, Any]:
    """The entry of one object in ``scene_gt_info.json``; the whole outline counts, also beyond the image's border."""
    n_all, n_visible = int(seen.mask.sum()), int(visible.sum())
    missing = [-1, -1, -1, -1]
    return {
        "px_count_all": n_all,
        "px_count_valid": 0 if metres is None else int((metres[seen.in_image()] > 0).sum()),
        "px_count_visib": n_visible,
        "visib_fract": n_visible / n_all if n_all else 0.0,
        "bbox_obj": _box(seen.mask, seen.u0, seen.v0) if n_visible else missing,
        "bbox_visib": _box(visible, 0, 0) if n_visible else missing,
    }


def _box(mask: Bool[np.ndarray, "v u"], u0: int, v0: int) -> list[int]:
    """x, y, width, height; the toolkit's width is the difference of the last and the first column."""
    v, u = np.nonzero(mask)
    return [int(u.min()) + u0, int(v.min()) + v0, int(np.ptp(u)), int(np.ptp(v))]


def _simulated_camera(capture: Capture, sensor: Sensor) -> dict[str, Any]:
    camera = camera_of(capture, next(i for i in capture.images if i.sensor == sensor.name))
    matrix = camera.opencv_matrix()
    focal = {"fx": float(matrix[0, 0]), "fy": float(matrix[1, 1])}
    centre = {"cx": float(matrix[0, 2]), "cy": float(matrix[1, 2])}
    return {**focal, **centre, "width": camera.width, "height": camera.height, "depth_scale": _DEPTH_UNIT_M * 1e3}


def _info(name: str, config: BopConfig, sensors: list[Sensor], middle: np.ndarray) -> str:
    scenes = "\n".join(f"- {config.split}/{n:06d}: sensor {s.name}" for n, s in enumerate(sensors, 1))
    offset = ", ".join(f"{value * 1e3:.6f}" for value in middle)
    return (
        f"# {name}\n\nObject {config.obj_id}. Written by neuralrecon.export.\n\n"
        "The model's axes are those of the run's world (z up). Its origin, the middle of its bounding box, is at\n"
        f"({offset}) mm in that world: x_world = x_model + this.\n\n{scenes}\n"
    )


def _write_json(file: Path, values: dict[str, Any]) -> None:
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(values, indent=1, allow_nan=False), encoding="utf-8")
