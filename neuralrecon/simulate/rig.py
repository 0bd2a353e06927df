"""The rig's geometry: fifteen sensors on a quarter arc, as on the real one, and what its calibration files say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch

from ..capture.types import Sensor, SensorKind
from ..geometry import Camera, Rigid
from .settings import SimulateConfig

METRES_PER_RAW = 1e-4
STATIONS = (1, 2, 3, 4, 5)
_ELEVATION_DEG = (12.6, 34.2, 54.7, 73.75, 85.0)
_DISTANCE_M = (0.744, 0.834, 0.881, 0.943, 0.977)
_DOWN_TILT_DEG = (1.3, 27.9, 51.5, 69.7, 89.0)
_DEPTH_F_PX = (570.94, 572.33, 568.94, 567.99, 572.76)
_N_SIDE_M, _NP_SIDE_M = 0.045, -0.035


def build_rig(config: SimulateConfig) -> tuple[Sensor, ...]:
    """All sensors, exact: ``N1 … N5``, ``NP1 … NP5`` and ``NP1_depth … NP5_depth``. The rig frame is the table frame at
    stop 0, so `sensor_from_rig` is also sensor-from-table there.
    """
    rng = np.random.default_rng([config.seed, 1])
    bend = 1.0 if config.lens_distortion else 0.0
    colors, depths = [], []
    for station in STATIONS:
        f, c = 4597.93 + rng.normal(0, 8), rng.normal((2136, 1424), (20, 12))
        lens = bend * rng.normal((-0.042, 0.05, 3e-4, 3e-4, 0), (0.008, 0.01, 4e-4, 4e-4, 0))
        camera = _camera(4272, 2848, f, c, lens, config.n_width)
        colors.append(_color(f"N{station}", camera, _pose(station, _N_SIDE_M, rng)))
    for station in STATIONS:
        f, c = 1081.15 + rng.normal(0, 4), rng.normal((621.3, 512), (8, 6))
        lens = bend * rng.normal((0.055, -0.11, 3e-4, 1e-4, 0), (0.012, 0.02, 5e-4, 4e-4, 0))
        camera = _camera(1280, 1024, f, c, lens, config.np_width)
        color = _color(f"NP{station}", camera, _pose(station, _NP_SIDE_M, rng))
        colors.append(color)
        c = rng.normal((315.2, 243), (3, 3))
        camera = _camera(640, 480, _DEPTH_F_PX[station - 1], c, np.zeros(5), config.depth_width)
        offset = Rigid(
            rotation=_small_rotation(rng.normal(0, 0.2, 3)),
            translation=torch.tensor([0.0259, *rng.normal(0, 4e-4, 2)], dtype=torch.float64),
        )
        depths.append(
            Sensor(
                name=f"{color.name}_depth",
                kind=SensorKind.depth,
                camera=camera,
                sensor_from_rig=offset @ color.sensor_from_rig,
                metres_per_unit=METRES_PER_RAW * (1 + rng.normal(0, 1e-3)),
            )
        )
    return (*colors, *depths)


def perturbed(sensors: tuple[Sensor, ...], config: SimulateConfig) -> tuple[Sensor, ...]:
    """The rig as a calibration finds it: focal lengths and poses off by the stated amounts, each sensor turned about
    its own centre. NP5's colour camera keeps its pose: all others are calibrated against it.
    """
    rng = np.random.default_rng([config.seed, 2])
    found = []
    for sensor in sensors:
        zoom = 1 + rng.normal(0, config.focal_percent / 100)
        camera = replace(sensor.camera, fx=sensor.camera.fx * zoom, fy=sensor.camera.fy * zoom)
        turn = _small_rotation(rng.normal(0, 1, 3) * config.sensor_rotation_deg)
        shift = torch.from_numpy(rng.normal(0, 1, 3) * config.sensor_translation_mm * 1e-3)
        pose = Rigid(rotation=turn, translation=shift) @ sensor.sensor_from_rig
        if sensor.name == "NP5":
            pose = sensor.sensor_from_rig
        found.append(replace(sensor, camera=camera, sensor_from_rig=pose))
    return tuple(found)


def write_calibration(path: Path, sensors: tuple[Sensor, ...]) -> None:
    """``calibration.h5`` with all of BigBIRD's keys, intrinsics at the size of the images on disk."""
    reference = _named(sensors, "NP5").sensor_from_rig
    with h5py.File(path, "w") as file:
        for sensor in sensors:
            camera, matrix = sensor.camera, sensor.camera.opencv_matrix().numpy()
            pose = (sensor.sensor_from_rig @ reference.inverse()).matrix().numpy()
            if sensor.kind == SensorKind.color:
                file[f"{sensor.name}_rgb_K"] = matrix
                file[f"{sensor.name}_rgb_d"] = np.array(camera.distortion)
                file[f"H_{sensor.name}_from_NP5"] = pose
                continue
            name = sensor.name.removesuffix("_depth")
            file[f"{name}_depth_K"] = matrix
            file[f"{name}_ir_K"] = _ir_matrix(camera)
            file[f"{name}_ir_d"] = np.array(camera.distortion)
            file[f"H_{name}_ir_from_NP5"] = pose
            file[f"{name}_ir_depth_scale"] = np.array([(sensor.metres_per_unit or METRES_PER_RAW) / METRES_PER_RAW])
            file[f"{name}_ir_depth_bias"] = np.zeros(1)
            file[f"{name}_depth_scale"] = np.ones(1)
            file[f"{name}_depth_bias"] = np.zeros(1)


def write_poses(folder: Path, sensors: tuple[Sensor, ...], angles_deg: list[int]) -> None:
    """``NP5_{a}_pose.h5`` per stop and ``turntable.h5`` (the table's centre and normal in NP5's colour frame)."""
    reference = _named(sensors, "NP5").sensor_from_rig
    for angle in angles_deg:
        table_from_reference = Rigid.about_axis("z", float(angle)) @ reference.inverse()
        with h5py.File(folder / f"NP5_{angle}_pose.h5", "w") as file:
            file["H_table_from_reference_camera"] = table_from_reference.matrix().numpy()
            file["board_frame_offset"] = np.zeros(3)
    with h5py.File(folder / "turntable.h5", "w") as file:
        file["center"] = reference.translation.numpy()
        file["normal"] = reference.rotation[:, 2].numpy()


def write_rig(path: Path, sensors: tuple[Sensor, ...], angles_deg: list[int]) -> None:
    """The exact rig as arrays: ``{sensor}_K``, ``_d``, ``_T`` (table from camera at angle 0), ``_res``; ``angles``."""
    arrays = {"angles": np.array(angles_deg)}
    for sensor in sensors:
        name = sensor.name.replace("_depth", "_ir")
        arrays[f"{name}_K"] = sensor.camera.opencv_matrix().numpy()
        arrays[f"{name}_d"] = np.array(sensor.camera.distortion)
        arrays[f"{name}_T"] = sensor.sensor_from_rig.inverse().matrix().numpy()
        arrays[f"{name}_res"] = np.array([sensor.camera.width, sensor.camera.height])
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]


def _named(sensors: tuple[Sensor, ...], name: str) -> Sensor:
    return next(s for s in sensors if s.name == name)


def _color(name: str, camera: Camera, pose: Rigid) -> Sensor:
    return Sensor(name=name, kind=SensorKind.color, camera=camera, sensor_from_rig=pose)


def _camera(width: int, height: int, f: float, c: np.ndarray, lens: np.ndarray, wanted_width: int) -> Camera:
    k1, k2, p1, p2, k3 = (float(x) for x in lens)
    full = Camera(
        width=width, height=height, fx=f, fy=f, cx=float(c[0]), cy=float(c[1]), distortion=(k1, k2, p1, p2, k3)
    )
    return full.resized(wanted_width, round(wanted_width * height / width))


def _pose(station: int, side_m: float, rng: np.random.Generator) -> Rigid:
    """Camera-from-rig: on the arc over the x axis, `side_m` to its side, turned back towards the table's axis."""
    elevation, tilt = np.radians(_ELEVATION_DEG[station - 1]), np.radians(_DOWN_TILT_DEG[station - 1])
    distance = _DISTANCE_M[station - 1] + rng.normal(0, 3e-3)
    forward = np.array([-np.cos(tilt), 0.0, -np.sin(tilt)])
    right = np.array([0.0, 1.0, 0.0])
    rig_from_level = np.stack([right, np.cross(forward, right), forward], axis=1)
    centre = torch.tensor([distance * np.cos(elevation), side_m, distance * np.sin(elevation)])
    turn = (
        Rigid.about_axis("y", -float(np.degrees(np.arctan2(side_m, distance))) + rng.normal(0, 0.3)).rotation
        @ Rigid.about_axis("x", rng.normal(0, 0.3)).rotation
        @ Rigid.about_axis("z", rng.normal(0, 1.5)).rotation
    )
    return Rigid(rotation=torch.from_numpy(rig_from_level) @ turn, translation=centre.double()).inverse()


def _small_rotation(vector_deg: np.ndarray) -> torch.Tensor:
    x, y, z = (float(v) for v in np.radians(vector_deg))
    return torch.linalg.matrix_exp(torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64))


def _ir_matrix(camera: Camera) -> np.ndarray:
    """The infrared camera on the grid twice as wide as the depth image, 4.8 px (of 640) to the right of its centre."""
    twice = camera.resized(2 * camera.width, 2 * camera.height).opencv_matrix().numpy()
    twice[0, 2] += 2 * 4.8 * camera.width / 640
    return twice
