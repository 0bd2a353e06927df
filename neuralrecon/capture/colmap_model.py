"""pycolmap's reconstruction to captures and points, and back. Nothing here knows folders of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pycolmap
import torch

from ..errors import CalibrationError, CaptureError
from ..geometry import Camera, Rigid
from .colmap_lengths import require_whole_model
from .description import relative
from .headers import decoding
from .types import Capture, Frame, Image, Sensor, SensorKind, SparsePoints

# Numbers of focal lengths (they come first, then cx and cy) and of coefficients k1 k2 p1 p2 k3 (they come last).
_MODELS = {
    "SIMPLE_PINHOLE": (1, 0),
    "PINHOLE": (2, 0),
    "SIMPLE_RADIAL": (1, 1),
    "RADIAL": (1, 2),
    "OPENCV": (2, 4),
    "FULL_OPENCV": (2, 5),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A COLMAP model that was read whole, and its folder, which errors name."""

    folder: Path
    reconstruction: pycolmap.Reconstruction

    @property
    def image_names(self) -> list[str]:
        """Names of the posed images, sorted."""
        return sorted(i.name for i in self.reconstruction.images.values() if i.has_pose)


def load_model(folder: Path) -> Model:
    """Reads the model's files, binary ones first.

    Raises:
        CalibrationError: they are missing, truncated or contradict each other.
    """
    try:
        with decoding(folder, "COLMAP model"), _quiet():
            require_whole_model(folder)
            reconstruction = pycolmap.Reconstruction(str(folder))
            _require_names(reconstruction)
    except CaptureError as error:
        raise CalibrationError(str(error)) from error
    return Model(folder=folder, reconstruction=reconstruction)


def _require_names(reconstruction: pycolmap.Reconstruction) -> None:
    """That images are called as files can be: pycolmap decodes names only when they are asked for."""
    for number, image in reconstruction.images.items():
        if not image.name or "\0" in image.name:
            raise ValueError(f"image {number} has the name {image.name!r}")


def posed(model: Model, base: Path, reference_from_rig: Mapping[int, Rigid] | None = None) -> Capture:
    """The posed images, whose names are paths from `base`, as a capture with rigs, not metric and without a table.

    `reference_from_rig` says for cameras by number where the rig frame is to be if such a camera is a rig's reference;
    otherwise it is that reference camera's.

    Raises:
        CalibrationError: no image is posed, or a camera is of another model than OpenCV's five parameters.
    """
    reconstruction, own = model.reconstruction, reference_from_rig or {}
    images = sorted((i for i in reconstruction.images.values() if i.has_pose), key=lambda i: i.name)
    if not images:
        raise CalibrationError(f"{model.folder}: no image of the model has a pose; calibrate again")
    numbers = list(dict.fromkeys(i.frame_id for i in images))
    gauge = {n: own.get(r.ref_sensor_id.id, Rigid.identity()) for n, r in reconstruction.rigs.items()}
    rig_of_camera = {i.camera_id: i.frame.rig for i in images}
    names = _frame_names(images)
    return Capture(
        name=model.folder.name,
        root=base,
        layout="colmap",
        sensors=tuple(
            Sensor(
                name=f"camera{n}",
                kind=SensorKind.color,
                camera=_camera(reconstruction.cameras[n], model.folder),
                sensor_from_rig=_sensor_from_reference(rig, n, model.folder) @ gauge[rig.rig_id],
            )
            for n, rig in sorted(rig_of_camera.items())
        ),
        frames=tuple(
            Frame(name=names[n], rig_from_world=gauge[frame.rig_id].inverse() @ _rigid(frame.rig_from_world))
            for n in numbers
            for frame in [reconstruction.frames[n]]
        ),
        images=tuple(Image(sensor=f"camera{i.camera_id}", frame=names[i.frame_id], path=base / i.name) for i in images),
        has_table=False,
        is_metric=False,
        points_path=model.folder if reconstruction.num_points3D() else None,
    )


def observed_points(model: Model, capture: Capture, base: Path) -> SparsePoints:
    """The model's points, in the order of their numbers, and where the capture's images see them."""
    reconstruction = model.reconstruction
    number_of = {(base / image.name).resolve(): number for number, image in reconstruction.images.items()}
    paths = [i.path.resolve() for i in capture.images]
    index_of = {number_of[p]: k for k, p in enumerate(paths) if p in number_of}
    pixels = {n: [p.xy for p in reconstruction.images[n].points2D] for n in index_of}
    points = [reconstruction.points3D[n] for n in sorted(reconstruction.points3D)]
    seen = [
        (index_of[e.image_id], k, *pixels[e.image_id][e.point2D_idx])
        for k, point in enumerate(points)
        for e in point.track.elements
        if e.image_id in index_of
    ]
    table = np.array(seen, dtype=np.float64).reshape(-1, 4)
    return SparsePoints(
        xyz=np.array([p.xyz for p in points], dtype=np.float64).reshape(-1, 3),
        rgb=np.array([p.color for p in points], dtype=np.uint8).reshape(-1, 3),
        error_px=np.array([p.error if p.has_error() else np.nan for p in points], dtype=np.float64),
        image_index=table[:, 0].astype(np.int64),
        point_index=table[:, 1].astype(np.int64),
        pixel=table[:, 2:],
    )


def write_model(capture: Capture, points: SparsePoints | None, folder: Path, base: Path) -> None:
    """The capture's images with their sensors and frames as a binary COLMAP model in an existing folder.

    Images are named by their paths from `base`. Cameras, frames and images are numbered from 1 in the capture's order;
    those without images are left out.
    """
    reconstruction = pycolmap.Reconstruction()
    used = {i.sensor for i in capture.images}
    numbers = {s.name: k for k, s in enumerate(capture.sensors, 1) if s.name in used}
    for sensor in capture.sensors:
        if sensor.name in used:
            reconstruction.add_camera(_colmap_camera(sensor.camera, numbers[sensor.name]))
    rigs = _rigs(capture)
    for number, sensors in enumerate(rigs, 1):
        reconstruction.add_rig(_colmap_rig(number, sensors, numbers))
    rig_of = {s.name: number for number, sensors in enumerate(rigs, 1) for s in sensors}
    for number, frame in enumerate(capture.frames, 1):
        images = [(k, i.sensor) for k, i in enumerate(capture.images, 1) if i.frame == frame.name]
        if images:
            rig_number = rig_of[images[0][1]]
            new = pycolmap.Frame(frame_id=number, rig_id=rig_number)
            for k, name in images:
                new.add_data_id(pycolmap.data_t(sensor_id=_sensor_number(numbers[name]), id=k))
            new.rig_from_world = _rigid3d(rigs[rig_number - 1][0].sensor_from_rig @ frame.rig_from_world)
            reconstruction.add_frame(new)
    names = [relative(image.path, base) for image in capture.images]
    _add_images(reconstruction, capture, names, numbers, points)
    with _quiet():
        reconstruction.write_binary(str(folder))


def _rigs(capture: Capture) -> list[list[Sensor]]:
    """Sensors that share frames, directly or by way of others, the reference sensor of each rig first."""
    group_of: dict[str, set[str]] = {}
    by_frame: dict[str, set[str]] = {}
    for image in capture.images:
        by_frame.setdefault(image.frame, set()).add(image.sensor)
    for names in by_frame.values():
        joined = names.union(*(group_of.get(name, set()) for name in names))
        group_of |= dict.fromkeys(joined, joined)
    groups = {id(group): group for s in capture.sensors if (group := group_of.get(s.name))}
    rigs = []
    for group in groups.values():
        sensors = [s for s in capture.sensors if s.name in group]
        rigs.append(sorted(sensors, key=lambda s: (not _is_rig_frame(s), s.kind != SensorKind.color)))
    return rigs


def _is_rig_frame(sensor: Sensor) -> bool:
    return torch.equal(sensor.sensor_from_rig.matrix(), torch.eye(4, dtype=torch.float64))


def _colmap_rig(number: int, sensors: list[Sensor], numbers: Mapping[str, int]) -> pycolmap.Rig:
    reference, *others = sensors
    rig = pycolmap.Rig(rig_id=number)
    rig.add_ref_sensor(_sensor_number(numbers[reference.name]))
    for other in others:
        other_from_reference = other.sensor_from_rig @ reference.sensor_from_rig.inverse()
        rig.add_sensor(_sensor_number(numbers[other.name]), _rigid3d(other_from_reference))
    return rig


def _add_images(
    reconstruction: pycolmap.Reconstruction,
    capture: Capture,
    names: list[str],
    numbers: Mapping[str, int],
    points: SparsePoints | None,
) -> None:
    frame_numbers = {f.name: k for k, f in enumerate(capture.frames, 1)}
    image_index = np.zeros(0, dtype=np.int64) if points is None else points.image_index
    by_image = np.argsort(image_index, kind="stable")
    first = np.searchsorted(image_index[by_image], np.arange(len(capture.images) + 1))
    for k, image in enumerate(capture.images):
        pixels = np.zeros((0, 2)) if points is None else points.pixel[by_image[first[k] : first[k + 1]]]
        new = pycolmap.Image(name=names[k], keypoints=pixels, camera_id=numbers[image.sensor], image_id=k + 1)
        new.frame_id = frame_numbers[image.frame]
        reconstruction.add_image(new)
    if points is None:
        return
    # Which of its image's observations each one is.
    rank = np.empty_like(image_index)
    rank[by_image] = np.arange(len(image_index)) - first[image_index[by_image]]
    _add_points(reconstruction, points, rank)


def _add_points(reconstruction: pycolmap.Reconstruction, points: SparsePoints, rank: np.ndarray) -> None:
    order = np.argsort(points.point_index, kind="stable")
    starts = np.searchsorted(points.point_index[order], np.arange(len(points.xyz) + 1))
    for k, (xyz, rgb, error_px) in enumerate(zip(points.xyz, points.rgb, points.error_px, strict=True)):
        track = pycolmap.Track()
        for o in order[starts[k] : starts[k + 1]]:
            track.add_element(int(points.image_index[o]) + 1, int(rank[o]))
        number = reconstruction.add_point3D(xyz, track, rgb)
        if np.isfinite(error_px):
            reconstruction.points3D[number].error = float(error_px)


def _sensor_number(camera_number: int) -> Any:
    return pycolmap.sensor_t(type=pycolmap.SensorType.CAMERA, id=camera_number)


def _colmap_camera(camera: Camera, number: int) -> pycolmap.Camera:
    values = [camera.fx, camera.fy, camera.cx, camera.cy]
    if not any(camera.distortion):
        model = "PINHOLE"
    elif not camera.distortion[4]:
        model, values = "OPENCV", [*values, *camera.distortion[:4]]
    else:
        model, values = "FULL_OPENCV", [*values, *camera.distortion, 0.0, 0.0, 0.0]
    return pycolmap.Camera(camera_id=number, model=model, width=camera.width, height=camera.height, params=values)


def _camera(camera: pycolmap.Camera, folder: Path) -> Camera:
    n_focal, n_distortion = _MODELS.get(camera.model_name, (0, 0))
    rest = camera.params.tolist()[n_focal + 2 + n_distortion :]
    if not n_focal or any(rest):
        what = f"k4 to k6 = {rest}" if n_focal else f"the model {camera.model_name}"
        raise CalibrationError(
            f"{folder}: camera {camera.camera_id} has {what}, want one of {', '.join(_MODELS)} with at most k1 k2 "
            "p1 p2 k3; undistort the images with COLMAP's image_undistorter"
        )
    if not np.isfinite(camera.params).all():
        raise CalibrationError(f"{folder}: camera {camera.camera_id} is not finite: {list(camera.params)}; restore it")
    focal, values = camera.params[:n_focal], [float(p) for p in camera.params[n_focal:]]
    k1, k2, p1, p2, k3 = (values[2 : 2 + n_distortion] + [0.0] * 5)[:5]
    try:
        return Camera(
            width=int(camera.width),
            height=int(camera.height),
            fx=float(focal[0]),
            fy=float(focal[-1]),
            cx=values[0],
            cy=values[1],
            distortion=(k1, k2, p1, p2, k3),
        )
    except CalibrationError as error:
        raise CalibrationError(f"{folder}: camera {camera.camera_id}: {error}; restore it") from error


def _sensor_from_reference(rig: pycolmap.Rig, camera_number: int, folder: Path) -> Rigid:
    sensor = _sensor_number(camera_number)
    if rig.is_ref_sensor(sensor):
        return Rigid.identity()
    sensor_from_rig = rig.sensor_from_rig(sensor) if rig.has_sensor_from_rig(sensor) else None
    if sensor_from_rig is None:
        raise CalibrationError(
            f"{folder}: camera {camera_number} has no place in its rig {rig.rig_id}; calibrate again"
        )
    return _rigid(sensor_from_rig)


def _rigid(transform: Any) -> Rigid:
    """Of a pycolmap.Rigid3d."""
    rotation, translation = transform.rotation.matrix(), np.array(transform.translation, dtype=np.float64)
    return Rigid(rotation=torch.tensor(rotation, dtype=torch.float64), translation=torch.from_numpy(translation))


def _rigid3d(transform: Rigid) -> pycolmap.Rigid3d:
    rotation = pycolmap.Rotation3d(transform.rotation.numpy())
    return pycolmap.Rigid3d(rotation, transform.translation.numpy())


def _frame_names(images: list[pycolmap.Image]) -> dict[int, str]:
    """A frame is called as its images are, where they agree and no other frame is called so, else by its number."""
    stems: dict[int, set[str]] = {}
    for image in images:
        stems.setdefault(image.frame_id, set()).add(PurePosixPath(image.name).stem)
    counts = Counter(min(names) for names in stems.values() if len(names) == 1)
    return {
        n: min(names) if len(names) == 1 and counts[min(names)] == 1 else f"frame{n:06d}" for n, names in stems.items()
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Only errors are logged; what is raised needs no second line."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before
