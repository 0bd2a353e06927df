"""A capture's calibration as the state that bundle adjustment works on, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from ..capture import Capture, Sensor, SensorKind
from ..errors import CalibrationError
from ..geometry import Rigid
from .checks import about_z, fit_turntable, inverted
from .projection import RigState


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The frames between which a state lies: its rig is the `room`, its world the turntable's `axis` frame.

    Without a turntable room and rig are one, and axis and world. `off_axis_deg` and `off_axis_m` are how far the stops
    that the capture came with were from turning about one axis (the largest of all stops).
    """

    rig_from_room: Float[np.ndarray, "4 4"]
    axis_from_world: Float[np.ndarray, "4 4"]
    off_axis_deg: float = 0.0
    off_axis_m: float = 0.0


def is_turntable(capture: Capture) -> bool:
    """Whether the stops are said to be those of a turntable."""
    return len(capture.frames) >= 3 and all(f.angle_deg is not None for f in capture.frames)


def state_of(capture: Capture, *, turntable: bool) -> tuple[RigState, Room]:
    """Sensors and stops as arrays; with `turntable` the stops are put onto the axis that fits them best.

    Raises:
        CalibrationError: the stops do not turn about one axis.
    """
    rig_from_world = np.stack([f.rig_from_world.matrix().numpy() for f in capture.frames])
    room, stop = Room(rig_from_room=np.eye(4), axis_from_world=np.eye(4)), rig_from_world
    if turntable:
        room, stop = _about_one_axis(rig_from_world, capture)
    sensor_from_room = np.stack([s.sensor_from_rig.matrix().numpy() for s in capture.sensors]) @ room.rig_from_room
    return (
        RigState(
            sensor_rotation=sensor_from_room[:, :3, :3],
            sensor_center=inverted(sensor_from_room)[:, :3, 3],
            intrinsics=np.array([_intrinsics(s) for s in capture.sensors]),
            stop_rotation=stop[:, :3, :3],
            stop_translation=stop[:, :3, 3],
            points=np.zeros((0, 3)),
        ),
        room,
    )


def calibrated(capture: Capture, state: RigState, room: Room) -> Capture:
    """The capture with a state's calibration."""
    room_from_rig = inverted(room.rig_from_room)
    sensor_from_room = np.tile(np.eye(4), (len(capture.sensors), 1, 1))
    sensor_from_room[:, :3, :3] = state.sensor_rotation
    sensor_from_room[:, :3, 3] = -np.einsum("sij,sj->si", state.sensor_rotation, state.sensor_center)
    stop = np.tile(np.eye(4), (len(capture.frames), 1, 1))
    stop[:, :3, :3], stop[:, :3, 3] = state.stop_rotation, state.stop_translation
    rig_from_world = room.rig_from_room @ stop @ room.axis_from_world
    return replace(
        capture,
        sensors=tuple(
            _with(sensor, pose @ room_from_rig, k)
            for sensor, pose, k in zip(capture.sensors, sensor_from_room, state.intrinsics, strict=True)
        ),
        frames=tuple(
            replace(frame, rig_from_world=_rigid(pose))
            for frame, pose in zip(capture.frames, rig_from_world, strict=True)
        ),
    )


def _about_one_axis(rig_from_world: np.ndarray, capture: Capture) -> tuple[Room, np.ndarray]:
    reach = max(float(np.median(np.linalg.norm(rig_from_world[:, :3, 3], axis=1))), 1e-6)
    try:
        fit = fit_turntable(rig_from_world, np.zeros(len(rig_from_world), np.int64), reach)
    except CalibrationError as error:
        raise CalibrationError(f"{capture.root}: {error}; or calibrate with stops=free") from error
    rotation_deg, off_m = fit.agreement.rotation_deg.max(), fit.agreement.centre_share.max() * reach
    if not fit.agreement.agrees.all():
        frame = capture.frames[int(fit.agreement.rotation_deg.argmax())].name
        raise CalibrationError(
            f"{capture.root}: the stops do not turn about one axis: stop {frame} is {rotation_deg:.2g} deg and "
            f"{1e3 * off_m:.2g} mm off it; check the poses, or calibrate with stops=free"
        )
    upright = np.eye(4) if fit.axis_from_world[2, 2] > 0 else np.diag([1.0, -1.0, -1.0, 1.0])
    turned = upright @ about_z(-fit.angle_deg) @ upright
    room = Room(
        rig_from_room=fit.cam_from_room[0] @ upright,
        axis_from_world=upright @ fit.axis_from_world,
        off_axis_deg=float(rotation_deg),
        off_axis_m=float(off_m),
    )
    return room, turned


def _intrinsics(sensor: Sensor) -> list[float]:
    c = sensor.camera
    return [c.fx, c.fy / c.fx, c.cx, c.cy, *c.distortion, 1.0]


def _with(sensor: Sensor, sensor_from_rig: np.ndarray, k: np.ndarray) -> Sensor:
    f, aspect, cx, cy, k1, k2, p1, p2, k3, gain = k.tolist()
    camera = replace(sensor.camera, fx=f, fy=f * aspect, cx=cx, cy=cy, distortion=(k1, k2, p1, p2, k3))
    units = None if sensor.metres_per_unit is None else sensor.metres_per_unit * gain
    if sensor.kind == SensorKind.color:
        units = None
    return replace(sensor, camera=camera, sensor_from_rig=_rigid(sensor_from_rig), metres_per_unit=units)


def _rigid(matrix: np.ndarray) -> Rigid:
    return Rigid.from_matrix(torch.from_numpy(matrix))
