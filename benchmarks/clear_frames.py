"""A folder of RGB-D frames of an object on a table, from a camera that is carried around it, made a plain capture.

    FOLDER/camera_*.yaml              image_width, image_height, camera_matrix (9 numbers, pixel centres at integers)
    FOLDER/groundtruth_handeye.txt    a line a frame: index tx ty tz qx qy qz qw = world_from_camera, metres;
                                      the camera's axes: x right, y down, z forward
    FOLDER/poses.yaml                 a list; the first entry's pose is world_from_object, 16 numbers by rows, metres
    FOLDER/rgb, masks, depth          000001.jpg (or .png), 000001.png (object white), 000001.png (16 bit, mm, 0 = none;
                                      as the photograph's camera sees it)

Frames whose photograph is not there are left alone. The table is the plane that most depth around the object lies on;
the capture's world has its origin there below the object's, z up.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Bool, Float
from PIL import Image as Pillow
from scipy.spatial.transform import Rotation

from neuralrecon.capture import Capture, Frame, Image, Sensor, SensorKind, read_plain, write_plain
from neuralrecon.errors import CalibrationError, CaptureError
from neuralrecon.geometry import Camera, Rigid
from neuralrecon.segment.table import Gaze, seen_table, table_from_world

POSES_FILE, OBJECT_FILE = "groundtruth_handeye.txt", "poses.yaml"
METRES_PER_UNIT = 1e-3
_TABLE_REACH_M = 0.25  # depth so near to the object's origin tells where the table is
_N_TABLE_POINTS = 20_000
_EVERY_NTH_PX = 8  # of the depth images, across and down, is looked at for the table


def to_plain(folder: Path, work: Path) -> Capture:
    """The folder's frames copied to `work` and described there by a capture.json; the capture as read back from it.

    Raises:
        CalibrationError: a frame has no pose, or its depth shows no table under the object.
        CaptureError: a file is missing or broken.
    """
    photographs = sorted((folder / "rgb").glob("*.jpg")) + sorted((folder / "rgb").glob("*.png"))
    if not photographs:
        raise CaptureError(f"{folder / 'rgb'}: no photograph (000001.jpg or .png); give a folder of RGB-D frames")
    camera, poses = read_camera(folder), read_poses(folder)
    without = [photograph.name for photograph in photographs if int(photograph.stem) not in poses]
    if without:
        raise CalibrationError(f"{folder / POSES_FILE}: no pose of {', '.join(without)}; restore the file")
    world_from_cams = {photograph.stem: poses[int(photograph.stem)] for photograph in photographs}
    table_from_world = _table_from_world(folder, camera, world_from_cams)
    frames, images = [], []
    for photograph in photographs:
        name = photograph.stem
        color, mask, depth = (
            _copied(folder, work, part) for part in (f"rgb/{photograph.name}", f"masks/{name}.png", f"depth/{name}.png")
        )
        cam_from_table = (table_from_world @ world_from_cams[name]).inverse()
        frames.append(Frame(name=name, rig_from_world=cam_from_table))
        images.append(Image(sensor="color", frame=name, path=color, mask_path=mask))
        images.append(Image(sensor="depth", frame=name, path=depth))
    capture = Capture(
        name=folder.resolve().name,
        root=work,
        layout="plain",
        sensors=tuple(
            Sensor(name=kind, kind=kind, camera=camera, sensor_from_rig=Rigid.identity(), metres_per_unit=unit)
            for kind, unit in ((SensorKind.color, None), (SensorKind.depth, METRES_PER_UNIT))
        ),
        frames=tuple(frames),
        images=tuple(images),
    )
    write_plain(capture, work)
    return read_plain(work)


def without_depth(capture: Capture, every: int) -> Capture:
    """The capture without the depth of every n-th frame, of which a scene holds out the photograph."""
    names = {frame.name for frame in capture.frames[every - 1 :: every]}
    depths = capture.images_of(SensorKind.depth)
    return replace(capture, images=tuple(i for i in capture.images if i not in depths or i.frame not in names))


def read_camera(folder: Path) -> Camera:
    """What the one `camera_*.yaml` says.

    Raises:
        CaptureError: there is none.
    """
    file = next(iter(sorted(folder.glob("camera_*.yaml"))), None)
    if file is None:
        raise CaptureError(f"{folder}: no camera_*.yaml; give a folder of RGB-D frames")
    said = yaml.safe_load(file.read_text())
    matrix = torch.tensor(said["camera_matrix"], dtype=torch.float64).reshape(3, 3)
    return Camera.from_opencv(matrix, said["image_width"], said["image_height"])


def read_poses(folder: Path) -> dict[int, Rigid]:
    """world_from_camera by the frame's index.

    Raises:
        CaptureError: no such file.
    """
    poses = {}
    for line in _text(folder / POSES_FILE).splitlines():
        index, *numbers = line.split()
        rotation = Rotation.from_quat([float(x) for x in numbers[3:]]).as_matrix()
        translation = torch.tensor([float(x) for x in numbers[:3]], dtype=torch.float64)
        poses[int(index)] = Rigid(rotation=torch.from_numpy(rotation), translation=translation)
    return poses


def read_place(folder: Path) -> Float[np.ndarray, "3"]:
    """The origin of the first object's frame in world, metres.

    Raises:
        CaptureError: no such file.
    """
    objects: Sequence[Mapping[str, Any]] = yaml.safe_load(_text(folder / OBJECT_FILE))
    return np.array(objects[0]["pose"], dtype=np.float64).reshape(4, 4)[:3, 3]


def points_of(
    depth: Float[np.ndarray, "v u"], camera: Camera, world_from_cam: Rigid, wanted: Bool[np.ndarray, "v u"]
) -> Float[np.ndarray, "readings 3"]:
    """The wanted readings (metres, 0 = none) as points in world."""
    v, u = np.nonzero(wanted & (depth > 0))
    rays = camera.rays(torch.from_numpy(np.stack([u, v], axis=1) + 0.5))
    return world_from_cam.apply(rays / rays[:, 2:] * torch.from_numpy(depth[v, u, None])).numpy()


def read_image(file: Path) -> np.ndarray:
    """A mask or a depth image as it is stored.

    Raises:
        CaptureError: no such file.
    """
    if not file.is_file():
        raise CaptureError(f"{file}: no such file, but there is a photograph of that frame; restore it")
    with Pillow.open(file) as image:
        return np.asarray(image)


def _table_from_world(folder: Path, camera: Camera, world_from_cams: Mapping[str, Rigid]) -> Rigid:
    place = read_place(folder)
    around = []
    for name, world_from_cam in world_from_cams.items():
        depth = read_image(folder / "depth" / f"{name}.png") * METRES_PER_UNIT
        wanted = np.zeros(depth.shape, dtype=bool)
        wanted[::_EVERY_NTH_PX, ::_EVERY_NTH_PX] = True
        wanted &= read_image(folder / "masks" / f"{name}.png") == 0
        points = points_of(depth, camera, world_from_cam, wanted)
        around.append(points[np.linalg.norm(points - place, axis=1) < _TABLE_REACH_M])
    points = np.concatenate(around)
    points = points[:: max(1, len(points) // _N_TABLE_POINTS)]
    centers = np.stack([pose.translation.numpy() for pose in world_from_cams.values()])
    plane = seen_table(points, Gaze(centers=centers, target=place, up=np.zeros(3)))
    if plane is None:
        raise CalibrationError(f"{folder / 'depth'}: the depth around the object shows no table below it; add frames")
    return table_from_world(plane, place)


def _copied(folder: Path, work: Path, part: str) -> Path:
    if not (folder / part).is_file():
        raise CaptureError(f"{folder / part}: no such file, but there is a photograph of that frame; restore it")
    (work / part).parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(folder / part, work / part))


def _text(file: Path) -> str:
    if not file.is_file():
        raise CaptureError(f"{file}: no such file; give a folder of RGB-D frames with their poses")
    return file.read_text()
