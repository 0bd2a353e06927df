"""Settled views as a capture: put on the table, brought to size, taken apart into sensors and frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from ..capture.pixels import read_depth
from ..capture.types import Capture, Frame, Image, Sensor, SensorKind, SparsePoints
from ..geometry import Camera, Rigid
from .checks import about_z, inverted, looked_at
from .photo_files import Photo, PhotoSet, in_order
from .scale import DepthView, Scale, scale_from_depth
from .settle import Settled
from .structure import Structure
from .table import find_ground

_TOP_PERCENTILE = 99.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthCamera:
    """A depth camera beside the colour camera `color_camera` (as `Photo.camera` names it), with its files by stop.

    `depth_from_color` is in metres and `metres_per_unit` turns raw integers into metres.
    """

    name: str
    color_camera: str
    camera: Camera
    depth_from_color: Rigid
    metres_per_unit: float
    files: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSize:
    """At most one of these is known; all None leaves the world unscaled."""

    camera_distance_mm: float | None = None
    object_height_mm: float | None = None
    metres_per_unit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A capture with its points, and how its scale was found."""

    capture: Capture
    points: SparsePoints
    scale: Scale | None
    findings: tuple[str, ...]


def placed_world(
    photos: PhotoSet,
    settled: Settled,
    structure: Structure,
    dropped: set[str],
    size: KnownSize,
    depth_cameras: Sequence[DepthCamera],
) -> World:
    """z up from the table (the turntable's axis is z), metres where depth or the user tell the size.

    On a turntable the rig's frame is the world's at the first stop, `angle_deg` counts from there, and the cameras'
    azimuth grows with it. `structure` is that of the settled views, in their order.
    """
    by_name = {p.name: p for p in photos.photos}
    kept = np.array([name not in dropped for name in settled.names])
    views = [by_name[name] for name, ok in zip(settled.names, kept, strict=True) if ok]
    poses = settled.cam_from_world[kept]
    axis = None if structure.turntable is None else structure.turntable.axis_from_world
    centres = inverted(poses)[:, :3, 3]
    ground = find_ground(settled.points, centres, looked_at(poses)[0], axis_from_points=axis)
    world_from_points = ground.world_from_points
    poses = poses @ inverted(world_from_points)
    xyz = settled.points @ world_from_points[:3, :3].T + world_from_points[:3, 3]
    new_index = np.cumsum(kept) - 1
    seen = kept[settled.tracks[:, 1]]
    tracks = np.stack([settled.tracks[seen, 0], new_index[settled.tracks[seen, 1]]], axis=1)
    factor, scale, lines = _metres_per_unit(views, poses, xyz, tracks, size, depth_cameras, photos.root)
    poses[:, :3, 3] *= factor
    starts = {s: p @ inverted(world_from_points) for s, p in _at_first_stop(photos, structure, views[0]).items()}
    for start in starts.values():
        start[:3, 3] *= factor
    sensors, frames, images = _taken_apart(structure, views, poses, starts, settled)
    if scale is not None:
        sensors, images = _with_depth(sensors, images, views, depth_cameras)
    if not ground.has_table:
        lines = [*lines, "no table was found under the object: z is up only roughly"]
    order = np.argsort(tracks[:, 0], kind="stable")
    points = SparsePoints(
        xyz=xyz * factor,
        rgb=settled.rgb,
        error_px=settled.error_px.astype(np.float64),
        image_index=tracks[order, 1],
        point_index=tracks[order, 0],
        pixel=settled.track_xy[seen][order].astype(np.float64),
    )
    capture = Capture(
        name=photos.root.resolve().name,
        root=photos.root,
        layout="photos",
        sensors=sensors,
        frames=frames,
        images=images,
        has_table=ground.has_table,
        is_metric=scale is not None or size != KnownSize(),
    )
    return World(capture=capture, points=points, scale=scale, findings=tuple(lines))


def camera_of_lens(eight: Float[np.ndarray, "8"], size: tuple[int, int]) -> Camera:
    """The camera of fx fy cx cy k1 k2 p1 p2."""
    fx, fy, cx, cy, k1, k2, p1, p2 = (float(x) for x in eight)
    return Camera(width=size[0], height=size[1], fx=fx, fy=fy, cx=cx, cy=cy, distortion=(k1, k2, p1, p2, 0.0))


def _metres_per_unit(
    views: list[Photo],
    poses: ndarray,
    xyz: ndarray,
    tracks: ndarray,
    size: KnownSize,
    depth_cameras: Sequence[DepthCamera],
    root: Path,
) -> tuple[float, Scale | None, list[str]]:
    if depth_cameras:
        scale = scale_from_depth(list(_depth_views(views, poses, xyz, tracks, depth_cameras, root)))
        line = f"scale from {scale.n_readings} depth readings in {scale.n_images} images, to {scale.relative_error:.3%}"
        return scale.metres_per_unit, scale, [line]
    if size.metres_per_unit is not None:
        return size.metres_per_unit, None, []
    if size.camera_distance_mm is not None:
        return size.camera_distance_mm / 1000 / looked_at(poses)[1], None, []
    if size.object_height_mm is not None:
        return size.object_height_mm / 1000 / float(np.percentile(xyz[:, 2], _TOP_PERCENTILE)), None, []
    return 1.0, None, ["unscaled: nothing says how large the world is; give depth, or a length in mm"]


def _depth_views(
    views: list[Photo],
    poses: ndarray,
    xyz: ndarray,
    tracks: ndarray,
    depth_cameras: Sequence[DepthCamera],
    root: Path,
):
    points_of = [tracks[tracks[:, 1] == i, 0] for i in range(len(views))]
    for depth_camera in depth_cameras:
        sensor = _depth_sensor(depth_camera, Rigid.identity())
        capture = Capture(name="depth", root=root, layout="photos", sensors=(sensor,), frames=(), images=())
        for i, view in enumerate(views):
            if view.camera == depth_camera.color_camera and view.stop in depth_camera.files:
                image = Image(sensor=sensor.name, frame=view.stop, path=depth_camera.files[view.stop])
                yield DepthView(
                    depth=read_depth(capture, image),
                    camera=depth_camera.camera,
                    depth_from_color=depth_camera.depth_from_color,
                    points_in_color=xyz[points_of[i]] @ poses[i, :3, :3].T + poses[i, :3, 3],
                )


def _depth_sensor(depth_camera: DepthCamera, color_from_rig: Rigid) -> Sensor:
    return Sensor(
        name=depth_camera.name,
        kind=SensorKind.depth,
        camera=depth_camera.camera,
        sensor_from_rig=depth_camera.depth_from_color @ color_from_rig,
        metres_per_unit=depth_camera.metres_per_unit,
    )


def _at_first_stop(photos: PhotoSet, structure: Structure, first: Photo) -> dict[str, ndarray]:
    """Where every sensor stands, told by where it is (or would be) when the first photograph is taken."""
    rig, turntable = structure.rig, structure.turntable
    if rig is not None:
        rig_from_world = rig.rig_from_world[photos.stops.index(first.stop)]
        return {
            s: rig.cam_from_rig[i] @ rig_from_world for i, s in enumerate(photos.sensors) if i < len(rig.cam_from_rig)
        }
    if turntable is not None:
        angle_deg = turntable.angle_deg[structure.names.index(first.name)]
        room_from_world = about_z(-angle_deg) @ turntable.axis_from_world
        return {s: c @ room_from_world for s, c in zip(photos.sensors, turntable.cam_from_room, strict=False)}
    return {}


def _taken_apart(
    structure: Structure, views: list[Photo], poses: ndarray, starts: dict[str, ndarray], settled: Settled
) -> tuple[tuple[Sensor, ...], tuple[Frame, ...], tuple[Image, ...]]:
    """Sensors, frames and images whose products are the poses. `starts` are the sensors' poses at angle 0."""
    names = _sensor_names(views)
    frame_names = [v.stop if structure.rig is not None else _stem(v.name) for v in views]
    cam_from_rig = {sensor: starts.get(sensor, np.eye(4)) for sensor in names}
    sizes = {v.sensor: v.size for v in views}
    sensors = tuple(
        Sensor(
            name=name,
            kind=SensorKind.color,
            camera=camera_of_lens(settled.intrinsics[sensor], sizes[sensor]),
            sensor_from_rig=_rigid(cam_from_rig[sensor]),
        )
        for sensor, name in names.items()
    )
    rig_from_world: dict[str, ndarray] = {}
    for view, frame, pose in zip(views, frame_names, poses, strict=True):
        rig_from_world.setdefault(frame, inverted(cam_from_rig[view.sensor]) @ pose)
    turns = structure.turntable is not None
    frames = tuple(
        Frame(name=name, rig_from_world=_rigid(pose), angle_deg=_angle_deg(pose) if turns else None)
        for name, pose in sorted(rig_from_world.items(), key=lambda item: in_order(item[0]))
    )
    images = tuple(
        Image(
            sensor=names[v.sensor],
            frame=frame,
            path=v.path,
            mask_path=v.mask_path,
            object_is_black=v.mask_path is not None and v.object_is_black,
        )
        for v, frame in zip(views, frame_names, strict=True)
    )
    return sensors, frames, images


def _with_depth(
    sensors: tuple[Sensor, ...],
    images: tuple[Image, ...],
    views: list[Photo],
    depth_cameras: Sequence[DepthCamera],
) -> tuple[tuple[Sensor, ...], tuple[Image, ...]]:
    """The depth cameras and their files, beside the colour cameras they belong to."""
    by_name = {s.name: s for s in sensors}
    more_sensors, more_images = [], []
    for depth_camera in depth_cameras:
        own = [(v, i) for v, i in zip(views, images, strict=True) if v.camera == depth_camera.color_camera]
        if own:
            color_from_rig = by_name[own[0][1].sensor].sensor_from_rig
            more_sensors.append(_depth_sensor(depth_camera, color_from_rig))
            more_images += [
                Image(sensor=depth_camera.name, frame=i.frame, path=depth_camera.files[v.stop])
                for v, i in own
                if v.stop in depth_camera.files
            ]
    return (*sensors, *more_sensors), (*images, *more_images)


def _sensor_names(views: list[Photo]) -> dict[str, str]:
    """By sensor: its camera's name, numbered where that camera has several sizes or focal lengths."""
    names: dict[str, str] = {}
    for view in views:
        base = view.camera or "camera"
        n = sum(name == base or name.startswith(f"{base}_lens") for name in names.values())
        if view.sensor not in names:
            names[view.sensor] = base if n == 0 else f"{base}_lens{n + 1}"
    return names


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix().replace("/", "_")


def _angle_deg(rig_from_world: ndarray) -> float:
    """The angle A in rig_from_world = Rz(-A), 0 to 360."""
    sine = rig_from_world[0, 1] - rig_from_world[1, 0]
    angle_deg = float(np.rad2deg(np.arctan2(sine, rig_from_world[0, 0] + rig_from_world[1, 1])))
    return angle_deg if angle_deg >= 0 else max(angle_deg + 360, 0.0) % 360


def _rigid(pose: ndarray) -> Rigid:
    return Rigid(rotation=torch.from_numpy(pose[:3, :3].copy()), translation=torch.from_numpy(pose[:3, 3].copy()))
