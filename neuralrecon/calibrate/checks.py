"""Do poses contradict each other? Tests without the reprojection error, which can be normal for a wrong pose.

Poses are homogeneous ``cam_from_world`` matrices in a world of any size; `reach` (the cameras' distance from what they
look at) makes lengths comparable. Residuals of a view are a rotation in degrees and a shift of the camera's centre as a
share of `reach`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.spatial.transform import Rotation

from ..errors import CalibrationError

AGREED_DEG = 1.0
AGREED_SHARE = 0.02
_N_PAIRS = 600
_N_CANDIDATES = 200
_LEAST_TURN_DEG = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far each view is from what the others say; a view that nothing speaks about has infinite residuals."""

    rotation_deg: Float[np.ndarray, "views"]
    centre_share: Float[np.ndarray, "views"]

    @property
    def agrees(self) -> Bool[np.ndarray, "views"]:
        return (self.rotation_deg <= AGREED_DEG) & (self.centre_share <= AGREED_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurntableFit:
    """One axis about which all cameras turn. The axis is z of the frame `axis`; its sign and origin are arbitrary.

    ``cam_from_world[i] = cam_from_room[sensor_of[i]] @ Rz(-angle_deg[i]) @ axis_from_world``, up to the residuals:
    with growing angle the cameras go round counter-clockwise as seen from +z.
    """

    axis_from_world: Float[np.ndarray, "4 4"]
    cam_from_room: Float[np.ndarray, "sensors 4 4"]
    angle_deg: Float[np.ndarray, "views"]
    agreement: Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class RigFit:
    """``cam_from_world[i] = cam_from_rig[sensor_of[i]] @ rig_from_world[frame_of[i]]``, up to the residuals.

    Sensors and frames that could not be placed are NaN. The rig frame is that of the sensor with the most views.
    """

    cam_from_rig: Float[np.ndarray, "sensors 4 4"]
    rig_from_world: Float[np.ndarray, "frames 4 4"]
    agreement: Agreement


def inverted(poses: Float[np.ndarray, "*n 4 4"]) -> Float[np.ndarray, "*n 4 4"]:
    """Inverse of rigid transforms."""
    turned = np.swapaxes(poses[..., :3, :3], -1, -2)
    out = np.zeros_like(poses)
    out[..., :3, :3] = turned
    out[..., :3, 3] = -(turned @ poses[..., :3, 3:])[..., 0]
    out[..., 3, 3] = 1
    return out


def looked_at(cam_from_world: Float[np.ndarray, "views 4 4"]) -> tuple[Float[np.ndarray, "3"], float]:
    """The point nearest to all optical axes, and the cameras' median distance from it (`reach`).

    Robust against wrong views: the point is refitted to the half of the axes that passes nearest.
    """
    world_from_cam = inverted(cam_from_world)
    centres, axes = world_from_cam[:, :3, 3], world_from_cam[:, :3, 2]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    weight = np.ones(len(centres))
    point = np.median(centres, axis=0)
    for _ in range(20):
        normal = (weight[:, None, None] * across).sum(0) + 1e-9 * weight.sum() * np.eye(3)
        point = np.linalg.solve(normal, (weight[:, None] * (across @ centres[:, :, None])[..., 0]).sum(0))
        off = np.linalg.norm((across @ (point - centres)[:, :, None])[..., 0], axis=1)
        weight = 1 / np.maximum(off, max(1e-3 * float(np.median(off)), 1e-12))
    return point, float(np.median(np.linalg.norm(centres - point, axis=1)))


def fit_turntable(
    cam_from_world: Float[np.ndarray, "views 4 4"], sensor_of: Int[np.ndarray, "views"], reach: float, seed: int = 0
) -> TurntableFit:
    """The axis that most views of standing cameras around a turning object agree on (or the reverse motion).

    RANSAC over the motions between two views of one sensor, least squares over those that agree. Every sensor's own
    place in the room is then the one of its views that most others repeat.

    Raises:
        CalibrationError: fewer than three views of any sensor, or no motion has a turn to speak of.
    """
    world_from_cam = inverted(cam_from_world)
    pairs = _pairs_within(sensor_of, np.random.default_rng(seed))
    motions = world_from_cam[pairs[:, 1]] @ cam_from_world[pairs[:, 0]]
    turns = Rotation.from_matrix(motions[:, :3, :3]).as_rotvec()
    turned = np.rad2deg(np.linalg.norm(turns, axis=1)) > _LEAST_TURN_DEG
    if np.count_nonzero(turned) < 3:
        raise CalibrationError(f"{len(cam_from_world)} views have no turn between them; want views all around")
    normal, point = _common_axis(motions[turned], turns[turned], reach)
    axis_from_world = _frame_about(normal, point)
    axis_from_cam = axis_from_world @ world_from_cam
    n_sensors = int(sensor_of.max()) + 1
    room_from_cam = np.full((n_sensors, 4, 4), np.nan)
    angle_deg = np.zeros(len(sensor_of))
    rotation_deg, share = np.full(len(sensor_of), np.inf), np.full(len(sensor_of), np.inf)
    for sensor in range(n_sensors):
        own = np.nonzero(sensor_of == sensor)[0]
        if len(own) >= 3:
            room_from_cam[sensor], fit = _on_circle(axis_from_cam[own], reach)
            angle_deg[own], rotation_deg[own], share[own] = fit
    return TurntableFit(
        axis_from_world=axis_from_world,
        cam_from_room=inverted(room_from_cam),
        angle_deg=angle_deg,
        agreement=Agreement(rotation_deg=rotation_deg, centre_share=share),
    )


def fit_rig(
    cam_from_world: Float[np.ndarray, "views 4 4"],
    sensor_of: Int[np.ndarray, "views"],
    frame_of: Int[np.ndarray, "views"],
    reach: float,
) -> RigFit:
    """One place per sensor in the rig and one pose per frame, as most views have it.

    Sensors are tied to the reference through the frames they share with any sensor that is tied already.
    """
    n_sensors, n_frames = int(sensor_of.max()) + 1, int(frame_of.max()) + 1
    poses = np.full((n_sensors, n_frames, 4, 4), np.nan)
    poses[sensor_of, frame_of] = cam_from_world
    seen = ~np.isnan(poses[:, :, 0, 0])
    cam_from_rig = np.full((n_sensors, 4, 4), np.nan)
    cam_from_rig[int(seen.sum(1).argmax())] = np.eye(4)
    for _ in range(n_sensors):
        rig_from_world = _frames_of(poses, cam_from_rig, reach)
        placed = ~np.isnan(rig_from_world[:, 0, 0])
        for sensor in range(n_sensors):
            shared = seen[sensor] & placed
            if shared.any():
                rig_from_cam = rig_from_world[shared] @ inverted(poses[sensor, shared])
                cam_from_rig[sensor] = inverted(agreed_pose(rig_from_cam, reach))
        if not np.isnan(cam_from_rig[:, 0, 0]).any():
            break
    rig_from_world = _frames_of(poses, cam_from_rig, reach)
    predicted = cam_from_rig[sensor_of] @ rig_from_world[frame_of]
    rotation_deg, share = pose_differences(inverted(predicted), inverted(cam_from_world), reach)
    unknown = np.isnan(rotation_deg)
    rotation_deg[unknown] = share[unknown] = np.inf
    return RigFit(
        cam_from_rig=cam_from_rig,
        rig_from_world=rig_from_world,
        agreement=Agreement(rotation_deg=rotation_deg, centre_share=share),
    )


def epipolar_distances(
    from_first: Float[np.ndarray, "4 4"], xy1: Float[np.ndarray, "matches 2"], xy2: Float[np.ndarray, "matches 2"]
) -> Float[np.ndarray, "matches"]:
    """Sampson distances of matched directions (x/z, y/z) under the motion ``second_from_first``.

    In units of the image plane at z = 1 (times the focal length: px). A match whose point would lie behind a camera
    is infinitely off.
    """
    rotation, t = from_first[:3, :3], from_first[:3, 3]
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    essential = cross @ rotation
    x1, x2 = np.pad(xy1, ((0, 0), (0, 1)), constant_values=1), np.pad(xy2, ((0, 0), (0, 1)), constant_values=1)
    line2, line1 = x1 @ essential.T, x2 @ essential
    off = np.abs((x2 * line2).sum(1))
    size = np.sqrt((line1[:, :2] ** 2).sum(1) + (line2[:, :2] ** 2).sum(1))
    # depths by z2 x2 = z1 R x1 + t, each from the component across the other ray
    turned = x1 @ rotation.T
    z1 = -_dot(np.cross(x2, turned), np.cross(x2, t))
    z2 = _dot(np.cross(turned, x2), np.cross(turned, t))
    return np.where((z1 > 0) & (z2 > 0), off / np.maximum(size, 1e-12), np.inf)


def agreed_pose(poses: Float[np.ndarray, "n 4 4"], reach: float) -> Float[np.ndarray, "4 4"]:
    """The pose most others repeat (target_from_cam), averaged over those that agree with it."""
    one, other = np.divmod(np.arange(len(poses) ** 2), len(poses))
    rotation_deg, share = pose_differences(poses[one], poses[other], reach)
    off = np.maximum(rotation_deg / AGREED_DEG, share / AGREED_SHARE).reshape(len(poses), -1)
    best = int(np.minimum(off, 3.0).sum(1).argmin())
    return _mean_pose(poses[off[best] <= max(1.0, 2 * float(np.median(off[best])) if len(poses) < 4 else 1.0)])


def pose_differences(
    a: Float[np.ndarray, "n 4 4"], b: Float[np.ndarray, "n 4 4"], reach: float
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Angle in degrees between orientations and distance of origins as a share of reach, of ``target_from_cam``s."""
    chord = np.linalg.norm(a[:, :3, :3] - b[:, :3, :3], axis=(1, 2)) / np.sqrt(8)
    angle = 2 * np.arcsin(np.minimum(chord, 1.0))
    return np.rad2deg(angle), np.linalg.norm(a[:, :3, 3] - b[:, :3, 3], axis=1) / reach


def about_z(angle_deg: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 4 4"]:
    """Right-handed turns about z."""
    angle = np.deg2rad(angle_deg)
    out = np.zeros((*np.shape(angle), 4, 4))
    out[..., 0, 0] = out[..., 1, 1] = np.cos(angle)
    out[..., 1, 0] = np.sin(angle)
    out[..., 0, 1] = -out[..., 1, 0]
    out[..., 2, 2] = out[..., 3, 3] = 1
    return out


def _frames_of(poses: ndarray, cam_from_rig: ndarray, reach: float) -> ndarray:
    """rig_from_world of every frame by its placed sensors, NaN where there is none."""
    out = np.full((poses.shape[1], 4, 4), np.nan)
    for frame in range(poses.shape[1]):
        usable = ~np.isnan(poses[:, frame, 0, 0]) & ~np.isnan(cam_from_rig[:, 0, 0])
        if usable.any():
            world_from_rig = inverted(poses[usable, frame]) @ cam_from_rig[usable]
            out[frame] = inverted(agreed_pose(world_from_rig, reach))
    return out


def _pairs_within(sensor_of: ndarray, rng: np.random.Generator) -> Int[np.ndarray, "pairs 2"]:
    first, second = np.triu_indices(len(sensor_of), 1)
    same = sensor_of[first] == sensor_of[second]
    pairs = np.stack([first[same], second[same]], axis=1)
    if len(pairs) < 3:
        raise CalibrationError(f"{len(sensor_of)} views are too few to find a turntable's axis, want 3 of one camera")
    return pairs if len(pairs) <= _N_PAIRS else pairs[rng.choice(len(pairs), _N_PAIRS, replace=False)]


def _common_axis(motions: ndarray, turns: ndarray, reach: float) -> tuple[ndarray, ndarray]:
    """Direction of, and a point on, the axis of most motions x -> Q x + t."""
    q, t = motions[:, :3, :3], motions[:, :3, 3]
    candidates = np.unique(np.linspace(0, len(q) - 1, _N_CANDIDATES).astype(int))
    best, good = -1.0, np.ones(len(q), dtype=bool)
    for i in candidates:
        normal = turns[i] / np.linalg.norm(turns[i])
        off = _off_axis(q, t, normal, np.linalg.pinv(np.eye(3) - q[i], rcond=1e-6) @ t[i], reach)
        score = np.maximum(1 - off**2, 0).sum()
        if score > best:
            best, good = score, off < 1
    for _ in range(3):
        moved = q[good] - np.eye(3)
        normal = np.linalg.eigh(np.einsum("nki,nkj->ij", moved, moved))[1][:, 0]
        stacked = np.concatenate([*(-moved), normal[None]])
        point = np.linalg.lstsq(stacked, np.append(t[good].ravel(), 0.0), rcond=None)[0]
        good = _off_axis(q, t, normal, point, reach) < 1
        if np.count_nonzero(good) < 2:
            break
    return normal, point


def _off_axis(q: ndarray, t: ndarray, normal: ndarray, point: ndarray, reach: float) -> ndarray:
    """How far motions are from turns about an axis; 1 is the limit of agreement."""
    tilt_deg = np.rad2deg(np.linalg.norm(q @ normal - normal, axis=1))
    shift = np.linalg.norm(q @ point + t - point, axis=1) / reach
    return np.maximum(tilt_deg / AGREED_DEG, shift / AGREED_SHARE)


def _frame_about(normal: ndarray, point: ndarray) -> ndarray:
    """target_from_world with `normal` as z and `point` as origin."""
    side = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    side /= np.linalg.norm(side)
    out = np.eye(4)
    out[:3, :3] = np.stack([side, np.cross(normal, side), normal])
    out[:3, 3] = -out[:3, :3] @ point
    return out


def _on_circle(axis_from_cam: ndarray, reach: float) -> tuple[ndarray, tuple[ndarray, ndarray, ndarray]]:
    """room_from_cam of one sensor, and its views' angles, rotation and centre residuals."""

    def against(reference: ndarray) -> tuple[ndarray, ndarray, ndarray]:
        between = axis_from_cam[:, :3, :3] @ reference[:3, :3].T
        angle = np.arctan2(between[:, 1, 0] - between[:, 0, 1], between[:, 0, 0] + between[:, 1, 1])
        angle_deg = np.rad2deg(angle)
        turned = about_z(angle_deg) @ reference
        return angle_deg, *pose_differences(turned, axis_from_cam, reach)

    def off(fit: tuple[ndarray, ndarray, ndarray]) -> ndarray:
        return np.maximum(fit[1] / AGREED_DEG, fit[2] / AGREED_SHARE)

    reference = min(axis_from_cam, key=lambda pose: float(np.minimum(off(against(pose)), 3.0).sum()))
    for _ in range(3):
        fit = against(reference)
        good = off(fit) <= 1
        reference = _mean_pose(about_z(-fit[0][good]) @ axis_from_cam[good])
    return reference, against(reference)


def _mean_pose(poses: ndarray) -> ndarray:
    out = np.eye(4)
    u, _, vt = np.linalg.svd(poses[:, :3, :3].sum(0))
    out[:3, :3] = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    out[:3, 3] = poses[:, :3, 3].mean(0)
    return out


def _dot(a: ndarray, b: ndarray) -> ndarray:
    return (a * b).sum(-1)
