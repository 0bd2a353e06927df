"""Do COLMAP's binary files end where they say? pycolmap, reading on past an end, may take all memory.

Only counts are followed here; what the records mean is pycolmap's. Source: COLMAP's documentation of its output format.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import CalibrationError

_POSE = 56
_OBSERVATION = 24
# Parameters of a camera by the number of its model, from SIMPLE_PINHOLE to EQUIRECTANGULAR.
_N_PARAMETERS = (3, 4, 4, 5, 8, 8, 12, 5, 4, 5, 12, 16, 4, 5, 3, 4, 6, 2)


def require_whole_model(folder: Path) -> None:
    """Every binary file of the model has all the records that it announces.

    Raises:
        CalibrationError: one has not.
    """
    for name, skip_record in _RECORDS.items():
        file = folder / f"{name}.bin"
        if file.exists():
            _require_whole(file, skip_record)


def _require_whole(file: Path, skip_record: Callable[[_Walk], None]) -> None:
    walk = _Walk(data=file.read_bytes())
    try:
        for _ in range(walk.take("Q")):
            skip_record(walk)
            if walk.at > len(walk.data):
                raise EOFError
    except (struct.error, EOFError, ValueError, IndexError) as error:
        raise CalibrationError(
            f"{file}: is truncated or damaged: {len(walk.data)} bytes are fewer than it announces; copy the file again"
        ) from error


@dataclass(slots=True)
class _Walk:
    """A place in a file, moved on by what is taken or skipped."""

    data: bytes
    at: int = 0

    def take(self, form: str) -> int:
        (value,) = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return value

    def skip(self, n_bytes: int) -> None:
        self.at += n_bytes


def _skip_camera(walk: _Walk) -> None:
    walk.skip(4)
    model = walk.take("I")
    walk.skip(16 + 8 * _N_PARAMETERS[model])


def _skip_rig(walk: _Walk) -> None:
    walk.skip(4)
    n_sensors = walk.take("I")
    walk.skip(8 if n_sensors else 0)
    for _ in range(n_sensors - 1):
        walk.skip(8)
        walk.skip(_POSE if walk.take("B") else 0)


def _skip_frame(walk: _Walk) -> None:
    walk.skip(8 + _POSE)
    walk.skip(16 * walk.take("I"))


def _skip_image(walk: _Walk) -> None:
    walk.skip(4 + _POSE + 4)
    walk.at = walk.data.index(b"\0", walk.at) + 1
    walk.skip(_OBSERVATION * walk.take("Q"))


def _skip_point(walk: _Walk) -> None:
    walk.skip(8 + 24 + 3 + 8)
    walk.skip(8 * walk.take("Q"))


_RECORDS = {
    "cameras": _skip_camera,
    "rigs": _skip_rig,
    "frames": _skip_frame,
    "images": _skip_image,
    "points3D": _skip_point,
}
