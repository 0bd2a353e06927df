"""What the refinement of one capture works on: its calibration as arrays, how sure it is, and its images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8

from ..capture import Capture, SensorKind
from ..capture.pixels import read_color, read_depth
from .adjust import Prior
from .checks import looked_at
from .projection import INTRINSICS, N_POSE, N_SENSOR, N_STOP, RigState
from .rig_state import Room, is_turntable, state_of
from .types import CalibrateConfig, Stops


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What one refinement works on, in the frames of `room`; lengths in the world's unit.

    `photographs` and `depths` are images by (sensor, stop). `per_mm` is a millimetre in world units (of an unscaled
    world: a thousandth of the cameras' distance over 0.8).
    """

    capture: Capture
    room: Room
    prior: Prior
    stops: Stops
    per_mm: float
    config: CalibrateConfig
    photographs: dict[tuple[int, int], int]
    depths: dict[tuple[int, int], int]

    @staticmethod
    def of(capture: Capture, config: CalibrateConfig) -> Problem:
        stops = config.stops
        if stops == Stops.auto:
            stops = Stops.axis if is_turntable(capture) else Stops.free
        start, room = state_of(capture, turntable=stops == Stops.axis)
        sensors, frames = [s.name for s in capture.sensors], [f.name for f in capture.frames]
        place = [(sensors.index(i.sensor), frames.index(i.frame)) for i in capture.images]
        kinds = [capture.sensors[s].kind for s, _ in place]
        per_mm = 1e-3
        if not capture.is_metric:
            poses = np.stack([capture.sensor_from_world(i).matrix().numpy() for i in capture.images])
            per_mm = looked_at(poses)[1] / 800
        return Problem(
            capture=capture,
            room=room,
            prior=_prior(capture, start, stops, config, per_mm),
            stops=stops,
            per_mm=per_mm,
            config=config,
            photographs={at: i for i, at in enumerate(place) if kinds[i] == SensorKind.color},
            depths={at: i for i, at in enumerate(place) if kinds[i] == SensorKind.depth},
        )

    def read_rgb(self, sensor: int, stop: int) -> UInt8[np.ndarray, "v u 3"]:
        full_size = replace(self.capture, downscale=1)
        return read_color(full_size, self.capture.images[self.photographs[sensor, stop]])

    def read_grey(self, sensor: int, stop: int) -> Float[np.ndarray, "v u"]:
        return self.read_rgb(sensor, stop).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)

    def read_depth(self, sensor: int, stop: int) -> Float[np.ndarray, "v u"]:
        return read_depth(self.capture, self.capture.images[self.depths[sensor, stop]])


def _prior(capture: Capture, start: RigState, stops: Stops, config: CalibrateConfig, per_mm: float) -> Prior:
    sensors, stop_sigma = np.zeros((len(capture.sensors), N_SENSOR)), np.zeros((len(capture.frames), N_STOP))
    color = np.array([s.kind == SensorKind.color for s in capture.sensors])
    if stops != Stops.free or len(capture.frames) < len(capture.images):
        # where every image has its own frame the frames move, and the sensors need not
        sensors[:, :3], sensors[:, 3:N_POSE] = np.radians(config.turn_deg), config.shift_mm * per_mm
    width = np.array([s.camera.width for s in capture.sensors])
    of = {name: N_POSE + i for i, name in enumerate(INTRINSICS)}
    sensors[color, of["f"]] = config.focal_percent / 100
    sensors[color, of["cx"]] = sensors[color, of["cy"]] = config.principal_percent / 100 * width[color]
    for name, factor in (("k1", 1.0), ("k2", 2.0), ("p1", 0.1), ("p2", 0.1)):
        sensors[color, of[name]] = factor * config.distortion
    sensors[~color, of["depth_gain"]] = config.depth_percent / 100
    if stops == Stops.axis:
        stop_sigma[:, 2] = np.radians(config.stop_deg)
    elif stops == Stops.free:
        stop_sigma[:, :3], stop_sigma[:, 3:] = np.radians(config.stop_deg), config.stop_mm * per_mm
    return Prior(mean=start, sensors=sensors, stops=stop_sigma)
