"""A scene of the BOP benchmark: millimetres, one camera entry and one list of object poses for each image.

Source: the BOP toolkit's description of its data format. Pixel centres are at integers there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage

from ..errors import CalibrationError, CaptureError
from ..files import replacing
from ..geometry import Camera, Rigid
from .description import read_description
from .entries import Entry
from .findings import Findings, listed
from .headers import image_size, opened_depth, opened_image
from .types import Capture
from .views import View, sensors_of, views_of, write_white_mask

_SUFFIXES = (".png", ".jpg", ".jpeg")
_COLOR_FOLDERS = ("rgb", "gray")
_MASK_FOLDERS = ("mask_visib", "mask")
_CAMERAS, _POSES = "scene_camera.json", "scene_gt.json"


def looks_like_bop(root: Path) -> bool:
    """Both of a scene's JSON files are there."""
    return (root / _CAMERAS).exists() and (root / _POSES).exists()


def read_bop(path: str | Path, *, obj_id: int | None = None, allow_partial: bool = False) -> Capture:
    """A scene folder with ``scene_camera.json``, ``scene_gt.json``, ``rgb/`` and, if there, ``depth/`` and masks.

    The world is the object's own frame in metres, every image a frame with the rig frame in its camera. The object is
    the first of the scene, or the first with this `obj_id`; what else is in the scene is said in `left_out`. The mask
    is that of the visible part (``mask_visib/``), or of the whole object where there is only ``mask/``. Depth is seen
    by the camera of the photograph.

    Raises:
        CalibrationError: a camera or a pose is missing or wrong, or there is no such object.
        CaptureError: images are missing or broken. With `allow_partial` what is broken is listed in `left_out`.

    Example:
        >>> capture = read_bop("data/bop/ycbv/test/000048", obj_id=5)  # doctest: +SKIP
    """
    root = Path(path)
    findings = Findings(allow_partial)
    cameras, poses = (
        read_description(root / _CAMERAS, "file of cameras"),
        read_description(root / _POSES, "file of poses"),
    )
    instances = _instances(poses)
    wanted = _wanted_object(instances, obj_id, root / _POSES, findings)
    views, without = [], []
    for number, objects in instances.items():
        index = next((i for i, o in enumerate(objects) if o.count("obj_id") == wanted), None)
        if index is None:
            without.append(str(number))
            continue
        try:
            camera = Entry.of(cameras.values.get(str(number)), f"{root / _CAMERAS}: {number}")
            views.append(_view(root, number, index, camera, objects[index]))
        except CaptureError as error:
            findings.broken(error)
    if without:
        findings.absent(f"{root / _POSES}: object {wanted} is not in image {listed(without)}")
    sensors, frames, images = sensors_of(views, findings)
    if not images:
        raise CaptureError(f"{root}: nothing usable is left: {' | '.join(findings.lines)}")
    return Capture(
        name=f"{root.resolve().name}_obj_{wanted:06d}",
        root=root,
        layout="bop",
        sensors=sensors,
        frames=frames,
        images=images,
        has_table=False,
        left_out=tuple(findings.lines),
    )


def write_bop(capture: Capture, folder: str | Path, *, obj_id: int = 1) -> Path:
    """Writes a scene folder of a capture of one object: ``rgb/``, ``depth/``, ``mask_visib/`` and the two JSON files.

    The object's frame is the capture's world. Photographs are copied as they are, depth becomes 16-bit PNG. The JSON
    files come last.

    Raises:
        CaptureError: the world is not metric, a depth sensor is not aligned with a photograph, a photograph is no PNG
            or JPEG, or is distorted (BOP has no distortion).

    Example:
        >>> write_bop(capture, "out/bop/test/000001", obj_id=3)  # doctest: +SKIP
    """
    root = Path(folder)
    views = views_of(capture)
    _require_writable(capture, views)
    cameras: dict[str, Any] = {}
    poses: dict[str, Any] = {}
    for number, view in enumerate(views):
        assert view.color is not None
        with replacing(root / "rgb" / f"{view.name}{_suffix(view.color)}") as temporary:
            shutil.copyfile(view.color, temporary)
        if view.mask:
            write_white_mask(view, root / "mask_visib" / f"{view.name}_000000.png")
        cameras[str(number)] = {"cam_K": view.camera.opencv_matrix().flatten().tolist()}
        if view.depth and view.metres_per_unit:
            _write_depth(view.depth, root / "depth" / f"{view.name}.png")
            cameras[str(number)]["depth_scale"] = view.metres_per_unit * 1e3
        rotation, translation_m = view.cam_from_world.rotation, view.cam_from_world.translation
        pose = {"cam_R_m2c": rotation.flatten().tolist(), "cam_t_m2c": (translation_m * 1e3).tolist()}
        poses[str(number)] = [pose | {"obj_id": obj_id}]
    for name, values in ((_CAMERAS, cameras), (_POSES, poses)):
        with replacing(root / name) as temporary:
            temporary.write_text(json.dumps(values, indent=1, allow_nan=False), encoding="utf-8")
    return root


def _instances(poses: Entry) -> dict[int, list[Entry]]:
    """The objects of each image, in the order of the images' numbers."""
    file = poses.where.removesuffix(": the file")
    if not poses.values or not all(key.isdecimal() and len(key) < 10 for key in poses.values):
        raise CalibrationError(f"{file}: has the keys {listed(poses.values)}, want images' numbers; restore the file")
    instances = {}
    for key in sorted(poses.values, key=int):
        objects = poses.values[key]
        if not isinstance(objects, list):
            raise CalibrationError(f"{file}: image {key} must be a list of objects; restore the file")
        instances[int(key)] = [Entry.of(o, f"{file}: image {key}, object {i}") for i, o in enumerate(objects)]
    return instances


def _wanted_object(instances: dict[int, list[Entry]], obj_id: int | None, file: Path, findings: Findings) -> int:
    ids = [[o.count("obj_id") for o in objects] for objects in instances.values()]
    there = list(dict.fromkeys(i for image in ids for i in image))
    wanted = obj_id if obj_id is not None else next(iter(there), None)
    if wanted is None or wanted not in there:
        raise CalibrationError(f"{file}: no object {wanted}; it has {listed(map(str, there)) or 'none'}; choose obj_id")
    others = [str(i) for i in there if i != wanted]
    if others:
        findings.absent(f"{file}: object {wanted} is read; the scene has object {listed(others)}, too (obj_id chooses)")
    if any(image.count(wanted) > 1 for image in ids):
        findings.absent(f"{file}: object {wanted} is in some images more than once; the first is read")
    return wanted


def _view(root: Path, number: int, index: int, camera: Entry, pose: Entry) -> View:
    color = next((f for folder in _COLOR_FOLDERS if (f := _numbered(root / folder, f"{number:06d}"))), None)
    if color is None:
        raise CaptureError(f"{root / 'rgb' / f'{number:06d}'}: image is missing; restore the file")
    depth = _numbered(root / "depth", f"{number:06d}")
    matrix = torch.tensor(camera.numbers("cam_K", 9), dtype=torch.float64).reshape(3, 3)
    if abs(float(matrix[0, 1])) > 1e-3 * abs(float(matrix[0, 0])):
        raise CalibrationError(f"{camera.where}: cam_K has skew, which cameras here do not have; rectify the images")
    homogeneous = torch.eye(4, dtype=torch.float64)
    homogeneous[:3, :3] = torch.tensor(pose.numbers("cam_R_m2c", 9), dtype=torch.float64).reshape(3, 3)
    homogeneous[:3, 3] = torch.tensor(pose.numbers("cam_t_m2c", 3), dtype=torch.float64) * 1e-3
    raw_mm = camera.number("depth_scale", None) if depth else None
    if depth and not (raw_mm and raw_mm > 0):
        raise CalibrationError(f"{camera.where}: depth_scale is {raw_mm}, want the mm of a raw unit; correct it")
    try:
        intrinsics, cam_from_object = Camera.from_opencv(matrix, *image_size(color)), Rigid.from_matrix(homogeneous)
    except CalibrationError as error:
        raise CalibrationError(f"{pose.where}: {error}; correct {_CAMERAS} or {_POSES}") from error
    masks = (_numbered(root / folder, f"{number:06d}_{index:06d}") for folder in _MASK_FOLDERS)
    return View(
        name=f"{number:06d}",
        camera=intrinsics,
        cam_from_world=cam_from_object,
        color=color,
        mask=next((mask for mask in masks if mask), None),
        depth=depth,
        metres_per_unit=raw_mm * 1e-3 if raw_mm else None,
    )


def _numbered(folder: Path, stem: str) -> Path | None:
    return next((f for suffix in _SUFFIXES if (f := folder / f"{stem}{suffix}").exists()), None)


def _require_writable(capture: Capture, views: list[View]) -> None:
    if not capture.is_metric:
        raise CaptureError(f"{capture.root}: the world is not metric, a BOP scene is in mm; scale the capture first")
    for view in views:
        assert view.color is not None
        if any(view.camera.distortion):
            raise CalibrationError(f"{view.color}: BOP has no lens distortion; undistort the photographs first")
        if view.color.suffix.lower() not in _SUFFIXES:
            raise CaptureError(f"{view.color}: want one of {', '.join(_SUFFIXES)}; convert the photographs")


def _suffix(photograph: Path) -> str:
    return ".png" if photograph.suffix.lower() == ".png" else ".jpg"


def _write_depth(source: Path, file: Path) -> None:
    if source.suffix == ".h5":
        with opened_depth(source) as dataset:
            raw = dataset[()]
    else:
        with opened_image(source, "depth map") as image:
            raw = np.asarray(image)
    with replacing(file) as temporary:
        PILImage.fromarray(raw.astype(np.uint16)).save(temporary)
