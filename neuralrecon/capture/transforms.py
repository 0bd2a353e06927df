"""`transforms.json` of nerfstudio and instant-ngp, also as the NeRF-synthetic scenes have it.

Poses there are world-from-camera with OpenGL's camera axes (x right, y up, z backward); pixel centres are at +0.5.
Source: nerfstudio's documentation of its data conventions.
"""

from __future__ import annotations

import json
import math
from collections import ChainMap
from pathlib import Path
from typing import Any

import torch

from ..errors import CalibrationError, CaptureError
from ..files import replacing
from ..geometry import Camera, Rigid
from .description import read_description, relative
from .entries import Entry, confined
from .findings import Findings
from .headers import image_size, opened_image
from .types import Capture, SensorKind
from .views import View, distinct_names, require_size, sensors_of, views_of, write_white_mask

_FILES = ("transforms.json", "transforms_train.json")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".JPG", ".PNG")
_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
_DISTORTION = ("k1", "k2", "p1", "p2", "k3")
_FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
_DEPTH_UNIT_M = 1e-3


def transforms_file(root: Path) -> Path | None:
    """The file of poses, where a folder has one."""
    return next((root / name for name in _FILES if (root / name).exists()), None)


def read_transforms(path: str | Path, *, allow_partial: bool = False) -> Capture:
    """A folder with ``transforms.json``, or NeRF-synthetic's ``transforms_train.json``.

    Intrinsics (``w h fl_x fl_y cx cy k1 k2 k3 p1 p2``, or ``camera_angle_x``) are taken from the frame, else from the
    top. ``mask_path`` is white where pixels are to be used, that is on the object. ``depth_file_path`` is a 16-bit PNG
    seen by the same camera; it becomes a depth sensor of its own, in units of ``depth_unit_scale_factor`` metres
    (1e-3 unless said). Every frame is a frame with the rig frame in its camera.

    The file does not say what a unit of its world is: `is_metric` and `has_table` are read from keys of these names,
    which `write_transforms` writes; without them the world is metric if there is depth, and has no table.

    Raises:
        CalibrationError: no intrinsics, a camera model that is none of OpenCV's five parameters, a pose that is none.
        CaptureError: the file is broken, an image is missing, broken or of another size, or has its silhouette in an
            alpha channel. With `allow_partial` broken images are listed in `left_out`.

    Example:
        >>> capture = read_transforms("data/nerfstudio/mug")  # doctest: +SKIP
    """
    root = Path(path)
    file = transforms_file(root)
    if file is None:
        raise CalibrationError(f"{root}: neither {' nor '.join(_FILES)} is there; restore one")
    findings = Findings(allow_partial)
    top = read_description(file, "file of poses")
    entries = list(top.entries("frames"))
    photographs = [_photograph(entry, root) for entry in entries]
    views, shared = [], dict(top.values)
    for entry, photograph, name in zip(entries, photographs, distinct_names(photographs, root), strict=True):
        entry.values = ChainMap(dict(entry.values), shared)
        try:
            views.append(_view(entry, photograph, name, root))
        except CaptureError as error:
            findings.broken(error)
    sensors, frames, images = sensors_of(views, findings)
    if not images:
        raise CaptureError(f"{file}: nothing usable is left: {' | '.join(findings.lines)}")
    return Capture(
        name=root.resolve().name,
        root=root,
        layout="transforms",
        sensors=sensors,
        frames=frames,
        images=images,
        has_table=top.flag("has_table", False),
        is_metric=top.flag("is_metric", any(s.kind == SensorKind.depth for s in sensors)),
        points_path=_points(top, root, findings),
        left_out=(*_other_splits(root, file), *findings.lines),
    )


def write_transforms(capture: Capture, folder: str | Path) -> Path:
    """Describes a capture whose files lie under `folder` by a ``transforms.json`` there; returns that file's path.

    Intrinsics are written at the top if all frames have the same, else in every frame: nerfstudio, finding one
    coefficient of distortion at the top, looks for no other in the frames. Masks that show the object black are written
    again, white, into ``masks_white/``. Rigs become single cameras: the format has no others.

    Raises:
        CaptureError: a file lies outside of the folder, or a depth sensor is not aligned with a photograph.

    Example:
        >>> write_transforms(capture, "data/my_mug")  # doctest: +SKIP
    """
    root = Path(folder)
    frames: list[dict[str, Any]] = []
    views = views_of(capture)
    cameras = [_intrinsics_as_json(view.camera) for view in views]
    same_camera = all(camera == cameras[0] for camera in cameras)
    for view, camera in zip(views, cameras, strict=True):
        assert view.color is not None
        frame = ({} if same_camera else camera) | {
            "file_path": relative(view.color, root),
            "transform_matrix": _opengl_matrix(view.cam_from_world).tolist(),
        }
        if view.mask:
            shown = (
                write_white_mask(view, root / "masks_white" / f"{view.name}.png") if view.object_is_black else view.mask
            )
            frame["mask_path"] = relative(shown, root)
        if view.depth:
            frame |= {"depth_file_path": relative(view.depth, root), "depth_unit_scale_factor": view.metres_per_unit}
        frames.append(frame)
    model = "OPENCV" if any(any(view.camera.distortion) for view in views) else "PINHOLE"
    top = {"is_metric": capture.is_metric, "has_table": capture.has_table, "camera_model": model}
    top |= cameras[0] if same_camera else {}
    if capture.points_path and capture.points_path.suffix == ".ply":
        top["ply_file_path"] = relative(capture.points_path, root)
    units = {f.get("depth_unit_scale_factor") for f in frames}
    if len(units) == 1 and None not in units:
        top["depth_unit_scale_factor"] = units.pop()
        for frame in frames:
            del frame["depth_unit_scale_factor"]
    top["frames"] = frames
    with replacing(root / _FILES[0]) as temporary:
        temporary.write_text(json.dumps(top, indent=1, allow_nan=False), encoding="utf-8")
    return root / _FILES[0]


def _photograph(entry: Entry, root: Path) -> Path:
    """The photograph's file; a name without suffix, as in NeRF-synthetic, is completed by what is there."""
    file = confined(entry.text("file_path"), root, entry.where)
    if file.exists():
        return file
    return next((f for suffix in _SUFFIXES if (f := file.with_name(file.name + suffix)).exists()), file)


def _view(entry: Entry, photograph: Path, name: str, root: Path) -> View:
    size = image_size(photograph)
    camera = _camera(entry, size)
    require_size(photograph, size, camera, entry.where)
    mask, depth = entry.text("mask_path", None), entry.text("depth_file_path", None)
    if mask is None:
        _require_no_alpha(photograph)
    unit = entry.number("depth_unit_scale_factor", _DEPTH_UNIT_M)
    if not unit > 0:
        raise CalibrationError(
            f"{entry.where} has depth_unit_scale_factor = {unit}, want a positive number; correct it"
        )
    return View(
        name=name,
        camera=camera,
        cam_from_world=_cam_from_world(entry),
        color=photograph,
        mask=None if mask is None else confined(mask, root, entry.where),
        depth=None if depth is None else confined(depth, root, entry.where),
        metres_per_unit=None if depth is None else unit,
    )


def _camera(entry: Entry, size: tuple[int, int]) -> Camera:
    model = entry.text("camera_model", "OPENCV")
    if model not in _MODELS or entry.flag("is_fisheye", False):
        raise CalibrationError(
            f"{entry.where} has camera_model {model if model not in _MODELS else 'fisheye'}, want one of "
            f"{', '.join(_MODELS)}; undistort the images to PINHOLE first"
        )
    if entry.number("k4", 0.0):
        raise CalibrationError(f"{entry.where} has k4, which the camera here has not; undistort the images first")
    width, height = _whole_number(entry, "w", size[0]), _whole_number(entry, "h", size[1])
    angle_x, angle_y = entry.number("camera_angle_x", None), entry.number("camera_angle_y", None)
    fx = entry.number("fl_x", None if angle_x is None else 0.5 * width / math.tan(0.5 * angle_x))
    if fx is None:
        raise CalibrationError(f"{entry.where} has neither fl_x nor camera_angle_x; calibrate the images first")
    try:
        return Camera(
            width=width,
            height=height,
            fx=fx,
            fy=entry.number("fl_y", fx if angle_y is None else 0.5 * height / math.tan(0.5 * angle_y)),
            cx=entry.number("cx", 0.5 * width),
            cy=entry.number("cy", 0.5 * height),
            distortion=tuple(entry.number(key, 0.0) for key in _DISTORTION),  # pyright: ignore[reportArgumentType]
        )
    except CalibrationError as error:
        raise CalibrationError(f"{entry.where}: {error}; correct it") from error


def _whole_number(entry: Entry, key: str, default: int) -> int:
    """Some programs write image sizes as 1920.0."""
    value = entry.number(key, default)
    if value != int(value):
        raise CalibrationError(f"{entry.where} has {key!r} = {value}, want a whole number; correct it")
    return int(value)


def _cam_from_world(entry: Entry) -> Rigid:
    matrix = torch.tensor(entry.matrix("transform_matrix"), dtype=torch.float64)
    try:
        world_from_opengl = Rigid.from_matrix(matrix)
    except CalibrationError as error:
        raise CalibrationError(f"{entry.where}, transform_matrix: {error}; correct it") from error
    turned = Rigid(rotation=world_from_opengl.rotation @ _FLIP, translation=world_from_opengl.translation)
    return turned.inverse()


def _opengl_matrix(cam_from_world: Rigid) -> torch.Tensor:
    world_from_cam = cam_from_world.inverse()
    return Rigid(rotation=world_from_cam.rotation @ _FLIP, translation=world_from_cam.translation).matrix()


def _intrinsics_as_json(camera: Camera) -> dict[str, Any]:
    values = {"w": camera.width, "h": camera.height, "fl_x": camera.fx, "fl_y": camera.fy}
    return values | {"cx": camera.cx, "cy": camera.cy} | dict(zip(_DISTORTION, camera.distortion, strict=True))


def _require_no_alpha(photograph: Path) -> None:
    with opened_image(photograph, "photograph") as image:
        if image.mode in ("RGBA", "LA"):
            raise CaptureError(
                f"{photograph}: has an alpha channel, which is not read as the object's outline; write it to a file of "
                "its own and name that by mask_path, and save the photograph without it"
            )


def _points(top: Entry, root: Path, findings: Findings) -> Path | None:
    name = top.text("ply_file_path", None)
    if name is None:
        return None
    file = confined(name, root, top.where)
    if file.exists():
        return file
    findings.absent(f"{file}: the sparse points that ply_file_path names are not there")
    return None


def _other_splits(root: Path, file: Path) -> list[str]:
    others = sorted(p.name for p in root.glob("transforms_*.json") if p != file)
    return [f"{root}: only {file.name} is read; {', '.join(others)} are not"] if others else []
