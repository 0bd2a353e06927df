"""What kind of capture the poses make (rig, turntable, hand-held), and which views contradict it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ..errors import CalibrationError
from .checks import RigFit, TurntableFit, fit_rig, fit_turntable, looked_at
from .photo_files import PhotoSet

_LEAST_VIEWS = 8
_LEAST_PER_SENSOR = 3
_RECOGNISED = 0.7
_LEAST_SPREAD_DEG = 30.0
LEAST_EPIPOLAR_SHARE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """Posed photographs with what holds them together.

    `names` are the posed photographs, `cam_from_world` theirs. `agrees` is by the strongest check there is: the rig's
    rigidity, one turntable axis, or epipolar geometry. `turntable` is fitted to the rig's frames (`frame_names`) where
    there is a rig, to the views of each sensor else; None unless recognised.
    """

    names: tuple[str, ...]
    cam_from_world: Float[np.ndarray, "views 4 4"]
    reach: float
    agrees: Bool[np.ndarray, "views"]
    rig: RigFit | None
    frame_names: tuple[str, ...]
    turntable: TurntableFit | None
    epipolar_share: Float[np.ndarray, "views"]

    @property
    def kind(self) -> str:
        moved = "turntable" if self.turntable is not None else "free motion"
        return f"rig, {moved}" if self.rig is not None else moved


def recognised_structure(
    photos: PhotoSet, poses: dict[str, Float[np.ndarray, "4 4"]], epipolar_shares: dict[str, float], seed: int
) -> Structure:
    """Fit rig and turntable to the poses of a mapping and say which views agree."""
    views = [p for p in photos.photos if p.name in poses]
    if len(views) < 3:
        raise CalibrationError(
            f"{photos.root}: {len(views)} of {len(photos.photos)} photographs could be placed, want 3 or more; take "
            "more of them, closer together, of an object (or a table) with texture"
        )
    cam_from_world = np.stack([poses[p.name] for p in views])
    sensor_of = np.array([photos.sensors.index(p.sensor) for p in views])
    frame_of = np.array([photos.stops.index(p.stop) for p in views])
    reach = looked_at(cam_from_world)[1]
    shares = np.array([epipolar_shares.get(p.name, 0.0) for p in views])
    rig = fit_rig(cam_from_world, sensor_of, frame_of, reach) if photos.is_rig else None
    if rig is not None:
        rig = _believable(rig, sensor_of, frame_of)
        placed = np.nonzero(~np.isnan(rig.rig_from_world[:, 0, 0]))[0]
        frame_poses = rig.rig_from_world[placed]
        turntable = _turntable(frame_poses, np.zeros(len(placed), dtype=int), reach, seed)
        agrees = rig.agreement.agrees
        if turntable is not None:
            on_axis = dict(zip(placed.tolist(), turntable.agreement.agrees.tolist(), strict=True))
            agrees = agrees & np.array([on_axis.get(f, False) for f in frame_of.tolist()])
        frames = tuple(photos.stops[i] for i in placed)
    else:
        turntable = _turntable(cam_from_world, sensor_of, reach, seed)
        agrees = shares >= LEAST_EPIPOLAR_SHARE if turntable is None else turntable.agreement.agrees
        frames = tuple(p.name for p in views)
    return Structure(
        names=tuple(p.name for p in views),
        cam_from_world=cam_from_world,
        reach=reach,
        agrees=agrees,
        rig=rig,
        frame_names=frames,
        turntable=turntable,
        epipolar_share=shares,
    )


def _believable(rig: RigFit, sensor_of: np.ndarray, frame_of: np.ndarray) -> RigFit:
    """Forget sensors that fewer than three views speak for, and frames that none does."""
    agrees = rig.agreement.agrees
    cam_from_rig, rig_from_world = rig.cam_from_rig.copy(), rig.rig_from_world.copy()
    cam_from_rig[np.bincount(sensor_of[agrees], minlength=len(cam_from_rig)) < _LEAST_PER_SENSOR] = np.nan
    lost = np.isnan(cam_from_rig[sensor_of, 0, 0])
    agrees = agrees & ~lost
    rig_from_world[np.bincount(frame_of[agrees], minlength=len(rig_from_world)) < 1] = np.nan
    rig.agreement.rotation_deg[lost] = np.inf
    return RigFit(cam_from_rig=cam_from_rig, rig_from_world=rig_from_world, agreement=rig.agreement)


def _turntable(poses: np.ndarray, sensor_of: np.ndarray, reach: float, seed: int) -> TurntableFit | None:
    """The turntable if most views go round one axis; eight views are the least that can tell it from chance."""
    if np.bincount(sensor_of).max() < _LEAST_VIEWS:
        return None
    try:
        fit = fit_turntable(poses, sensor_of, reach, seed)
    except CalibrationError:
        return None
    agrees = fit.agreement.agrees
    if agrees.mean() < _RECOGNISED:
        return None
    spread = max(_spread_deg(fit.angle_deg[agrees & (sensor_of == s)]) for s in np.unique(sensor_of[agrees]))
    return fit if spread >= _LEAST_SPREAD_DEG else None


def _spread_deg(angle_deg: np.ndarray) -> float:
    """The arc that angles cover."""
    turned = np.sort(angle_deg % 360)
    return float(360 - np.diff(turned, append=turned[:1] + 360).max()) if len(turned) else 0.0
