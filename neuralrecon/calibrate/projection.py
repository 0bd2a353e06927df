"""How a rig sees points, and the derivatives of that by every parameter, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

INTRINSICS = ("f", "aspect", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "depth_gain")
BY_FACTOR = ("f", "aspect", "depth_gain")
N_POSE = 6
N_SENSOR = N_POSE + len(INTRINSICS)
N_STOP = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RigState:
    """All that bundle adjustment may change, in float64.

    A sensor looks along ``x_cam = sensor_rotation @ (x_rig - sensor_center)``, a stop of the turntable puts the world
    into the rig by ``x_rig = stop_rotation @ x_world + stop_translation``. Intrinsics are f (of u, in px), aspect
    (f of v over f of u), cx, cy (px, pixel centres at +0.5), OpenCV's k1 k2 p1 p2 k3, and the factor by which a depth
    sensor's readings are too short (1 for photographs).
    """

    sensor_rotation: Float[np.ndarray, "sensors 3 3"]
    sensor_center: Float[np.ndarray, "sensors 3"]
    intrinsics: Float[np.ndarray, "sensors 10"]
    stop_rotation: Float[np.ndarray, "stops 3 3"]
    stop_translation: Float[np.ndarray, "stops 3"]
    points: Float[np.ndarray, "points 3"]

    def moved(
        self,
        sensors: Float[np.ndarray, "sensors 16"],
        stops: Float[np.ndarray, "stops 6"],
        points: Float[np.ndarray, "points 3"],
    ) -> RigState:
        """The state after a step: turns (rad) and shifts of sensors about their own centres, of stops about the rig's
        origin; f, aspect and depth gain change by a factor exp(step)."""
        turn = rotations(stops[:, :3])
        intrinsics = self.intrinsics.copy()
        by_factor = [INTRINSICS.index(name) for name in BY_FACTOR]
        added = [i for i in range(len(INTRINSICS)) if i not in by_factor]
        intrinsics[:, by_factor] *= np.exp(sensors[:, N_POSE:][:, by_factor])
        intrinsics[:, added] += sensors[:, N_POSE:][:, added]
        return RigState(
            sensor_rotation=rotations(sensors[:, :3]) @ self.sensor_rotation,
            sensor_center=self.sensor_center + sensors[:, 3:6],
            intrinsics=intrinsics,
            stop_rotation=turn @ self.stop_rotation,
            stop_translation=np.einsum("sij,sj->si", turn, self.stop_translation) + stops[:, 3:],
            points=self.points + points,
        )

    def with_points(self, points: Float[np.ndarray, "points 3"]) -> RigState:
        return replace(self, points=points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Which sensor saw which point at which stop, and where.

    A photograph gives a `pixel` with `sigma` in px. A depth image gives the plane of readings around a pixel:
    `reading` in metres along the axis at `pixel` and its `slope` in metres per pixel, with `sigma` in metres.
    `reading` is NaN for photographs.
    """

    sensor: Int[np.ndarray, "seen"]
    stop: Int[np.ndarray, "seen"]
    point: Int[np.ndarray, "seen"]
    pixel: Float[np.ndarray, "seen 2"]
    sigma: Float[np.ndarray, "seen"]
    reading: Float[np.ndarray, "seen"]
    slope: Float[np.ndarray, "seen 2"]

    def __len__(self) -> int:
        return len(self.sensor)

    def __getitem__(self, keep: np.ndarray | slice) -> Observations:
        return Observations(**{name: getattr(self, name)[keep] for name in self.__slots__})

    def and_(self, other: Observations) -> Observations:
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in self.__slots__}
        return Observations(**{name: np.concatenate(pair) for name, pair in pairs.items()})

    @property
    def is_depth(self) -> np.ndarray:
        return np.isfinite(self.reading)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linearised:
    """Residuals in units of sigma (a depth image's second one is 0) and their derivatives by a step of `moved`."""

    residual: Float[np.ndarray, "seen 2"]
    by_sensor: Float[np.ndarray, "seen 2 16"]
    by_stop: Float[np.ndarray, "seen 2 6"]
    by_point: Float[np.ndarray, "seen 2 3"]


def in_camera(state: RigState, seen: Observations) -> tuple[np.ndarray, np.ndarray]:
    """The observed points in the rig's and in the camera's frame."""
    in_rig = np.einsum("mij,mj->mi", state.stop_rotation[seen.stop], state.points[seen.point])
    in_rig += state.stop_translation[seen.stop]
    in_cam = np.einsum("mij,mj->mi", state.sensor_rotation[seen.sensor], in_rig - state.sensor_center[seen.sensor])
    return in_rig, in_cam


def project(
    intrinsics: Float[np.ndarray, "seen 10"], in_cam: Float[np.ndarray, "seen 3"]
) -> Float[np.ndarray, "seen 2"]:
    """Pixels of points in front of the camera, by OpenCV's distortion model."""
    return _distorted(intrinsics, in_cam)[0]


def residuals(state: RigState, seen: Observations) -> Float[np.ndarray, "seen 2"]:
    """Predicted minus observed, in units of sigma; points behind the camera are far off."""
    _, in_cam = in_camera(state, seen)
    intrinsics = state.intrinsics[seen.sensor]
    return _residual(seen, intrinsics, project(intrinsics, in_cam), in_cam)


def linearised(state: RigState, seen: Observations) -> Linearised:
    """Residuals and derivatives at a state."""
    in_rig, in_cam = in_camera(state, seen)
    intrinsics = state.intrinsics[seen.sensor]
    pixel, by_cam, by_intrinsics = _distorted(intrinsics, in_cam)
    depth = seen.is_depth
    along_slope = np.where(depth[:, None], -np.nan_to_num(seen.slope), 0.0)
    by_cam[depth, 0] = np.einsum("mi,mij->mj", along_slope[depth], by_cam[depth]) + np.eye(3)[2]
    by_intrinsics[depth, 0] = np.einsum("mi,mij->mj", along_slope[depth], by_intrinsics[depth])
    by_intrinsics[depth, 0, -1] = -seen.reading[depth] * intrinsics[depth, -1]
    by_cam[depth, 1] = by_intrinsics[depth, 1] = 0.0
    weight = 1 / seen.sigma[:, None, None]
    by_cam, by_intrinsics = by_cam * weight, by_intrinsics * weight
    turned = state.sensor_rotation[seen.sensor]
    by_rig = by_cam @ turned
    return Linearised(
        residual=_residual(seen, intrinsics, pixel, in_cam),
        by_sensor=np.concatenate([-by_cam @ _cross(in_cam), -by_rig, by_intrinsics], axis=2),
        by_stop=np.concatenate([-by_rig @ _cross(in_rig), by_rig], axis=2),
        by_point=by_rig @ state.stop_rotation[seen.stop],
    )


def rays(state: RigState, seen: Observations) -> tuple[Float[np.ndarray, "seen 3"], Float[np.ndarray, "seen 3"]]:
    """Camera centre and unit direction of each observed pixel, in world."""
    intrinsics = state.intrinsics[seen.sensor]
    xy = (seen.pixel - intrinsics[:, 2:4]) / np.stack([intrinsics[:, 0], intrinsics[:, 0] * intrinsics[:, 1]], axis=1)
    ideal = xy
    for _ in range(8):  # fixed point, as in geometry.camera
        ideal = ideal - (_distortion(intrinsics, ideal)[0] - xy)
    in_cam = np.concatenate([ideal, np.ones((len(ideal), 1))], axis=1)
    in_cam /= np.linalg.norm(in_cam, axis=1, keepdims=True)
    rig_from_world = state.stop_rotation[seen.stop]
    direction = np.einsum("mji,mkj,mk->mi", rig_from_world, state.sensor_rotation[seen.sensor], in_cam)
    from_origin = state.sensor_center[seen.sensor] - state.stop_translation[seen.stop]
    return np.einsum("mji,mj->mi", rig_from_world, from_origin), direction


def rotations(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Rotation matrices of rotation vectors (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    cross = _cross(vectors)
    a = np.sinc(angle / np.pi)
    b = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + a * cross + b * (cross @ cross)


def _residual(seen: Observations, intrinsics: np.ndarray, pixel: np.ndarray, in_cam: np.ndarray) -> np.ndarray:
    residual = pixel - seen.pixel
    depth = seen.is_depth
    expected = seen.reading[depth] * intrinsics[depth, -1] + (seen.slope[depth] * residual[depth]).sum(axis=1)
    residual[depth, 0] = in_cam[depth, 2] - expected
    residual[depth, 1] = 0.0
    residual[in_cam[:, 2] < 1e-6] = 1e3
    return residual / seen.sigma[:, None]


def _distorted(intrinsics: np.ndarray, in_cam: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, and their derivatives by the point in the camera and by the intrinsics (log f, log aspect, ...)."""
    z = np.maximum(in_cam[:, 2], 1e-6)
    xy = in_cam[:, :2] / z[:, None]
    bent, by_xy, by_coefficients = _distortion(intrinsics, xy)
    focal = np.stack([intrinsics[:, 0], intrinsics[:, 0] * intrinsics[:, 1]], axis=1)
    by_z = -np.einsum("mij,mj->mi", by_xy, xy)
    by_cam = focal[:, :, None] * np.concatenate([by_xy, by_z[:, :, None]], axis=2) / z[:, None, None]
    by_intrinsics = np.zeros((len(z), 2, len(INTRINSICS)))
    by_intrinsics[:, :, 0] = focal * bent
    by_intrinsics[:, 1, 1] = focal[:, 1] * bent[:, 1]
    by_intrinsics[:, 0, 2] = by_intrinsics[:, 1, 3] = 1.0
    by_intrinsics[:, :, 4:9] = focal[:, :, None] * by_coefficients
    return focal * bent + intrinsics[:, 2:4], by_cam, by_intrinsics


def _distortion(intrinsics: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """OpenCV's five-parameter distortion of the plane z = 1, and its derivatives by xy and by k1 k2 p1 p2 k3."""
    k1, k2, p1, p2, k3 = intrinsics[:, 4:9].T
    x, y = xy.T
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    slope = k1 + r2 * (2 * k2 + 3 * r2 * k3)
    bent = np.stack(
        [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y],
        axis=1,
    )
    mixed = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    by_xy = np.stack(
        [
            np.stack([radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x, mixed], axis=1),
            np.stack([mixed, radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x], axis=1),
        ],
        axis=1,
    )
    by_k = xy[:, :, None] * np.stack([r2, r2**2, r2**3], axis=1)[:, None, :]
    by_p = np.stack(
        [np.stack([2 * x * y, r2 + 2 * x * x], axis=1), np.stack([r2 + 2 * y * y, 2 * x * y], axis=1)], axis=1
    )
    return bent, by_xy, np.concatenate([by_k[:, :, :2], by_p, by_k[:, :, 2:]], axis=2)


def _cross(vectors: np.ndarray) -> np.ndarray:
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
