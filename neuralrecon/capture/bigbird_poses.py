"""Poses of BigBIRD's turntable stops."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from ..errors import CalibrationError
from ..geometry import Rigid
from .findings import Findings, listed
from .hdf5 import read_small_arrays
from .types import Frame

_POSE = re.compile(r"NP5_(?P<stop>\d+(?:\.\d+)?)_pose\.h5")
_KEY = "H_table_from_reference_camera"
_ANGLE_TOLERANCE_DEG = 3.0


def read_frames(folder: Path, stops: set[str], findings: Findings) -> list[Frame]:
    """Posed stops among `stops`, by angle. The rig frame is the reference camera's (NP5 colour).

    Raises:
        CalibrationError: a stop has no pose, or a pose is unreadable, no rotation, or contradicts its angle; with
            partial captures allowed such stops are left out.
    """
    files = {m["stop"]: p for p in (folder.iterdir() if folder.is_dir() else ()) if (m := _POSE.fullmatch(p.name))}
    unused = sorted(files.keys() - stops, key=float)
    if unused:
        findings.absent(f"{folder}: {len(unused)} stops have a pose but no usable image: {listed(unused)}")
    poses: dict[str, Rigid] = {}
    for stop in sorted(stops, key=float):
        try:
            poses[stop] = _table_from_reference(folder / f"NP5_{stop}_pose.h5")
        except CalibrationError as error:
            findings.broken(error)
    for stop, off_deg in _contradictions(poses).items():
        findings.broken(
            CalibrationError(
                f"{folder / f'NP5_{stop}_pose.h5'}: the pose is turned by {off_deg:.1f} degrees against its stop angle "
                f"{stop}, as the other stops tell it; restore the stop's own pose file"
            )
        )
        del poses[stop]
    return [
        Frame(name=stop, rig_from_world=table_from_rig.inverse(), angle_deg=float(stop))
        for stop, table_from_rig in poses.items()
    ]


def _table_from_reference(file: Path) -> Rigid:
    arrays = read_small_arrays(file, "pose file")
    if _KEY not in arrays:
        raise CalibrationError(f"{file}: no key {_KEY}; it has {sorted(arrays)[:8]}; restore the pose file")
    try:
        return Rigid.from_matrix(torch.from_numpy(arrays[_KEY].astype(np.float64)))
    except CalibrationError as error:
        raise CalibrationError(f"{file}: {_KEY}: {error}; restore the pose file") from error


def _contradictions(poses: dict[str, Rigid]) -> dict[str, float]:
    """Stops whose pose is not the other stops' pose turned about the table's z axis by their angles, in degrees.

    `table_from_rig` at angle A is `Rz(+-A)` times that at angle 0, with one sign for the whole capture: undo the turn,
    and most poses agree. Small errors of the measured stop angles (and any translation) are left to calibration.
    """
    if not poses:
        return {}
    turned = torch.stack([pose.rotation for pose in poses.values()])
    best: torch.Tensor | None = None
    for sign in (-1.0, 1.0):
        undo = torch.stack([Rigid.about_axis("z", sign * float(stop)).rotation for stop in poses])
        at_zero = undo @ turned
        between = torch.einsum("aij,bij->ab", at_zero, at_zero)
        off_deg = torch.rad2deg(torch.acos(((between - 1) / 2).clamp(-1, 1)))
        most_agreed = off_deg[(off_deg < _ANGLE_TOLERANCE_DEG).sum(dim=1).argmax()]
        if best is None or (most_agreed < _ANGLE_TOLERANCE_DEG).sum() > (best < _ANGLE_TOLERANCE_DEG).sum():
            best = most_agreed
    assert best is not None
    return {stop: float(off) for stop, off in zip(poses, best, strict=True) if off >= _ANGLE_TOLERANCE_DEG}
