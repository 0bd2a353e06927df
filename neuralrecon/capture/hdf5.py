"""Small arrays in HDF5 files: calibration and poses."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np

from ..errors import CalibrationError, CaptureError
from .headers import decoding, own_dataset

_MAX_NUMBERS = 64


def read_small_arrays(path: Path, what: str) -> dict[str, np.ndarray]:
    """All top-level datasets of at most 64 numbers.

    Raises:
        CalibrationError: no such file, or it cannot be read.
    """
    try:
        with decoding(path, what), h5py.File(path, "r") as file:
            return {
                key: item[()]
                for key in file.keys()  # noqa: SIM118, whose type says that they are texts
                if (item := own_dataset(file, key)) is not None and item.dtype.kind in "fiu" and _is_small(item.shape)
            }
    except CaptureError as error:
        raise CalibrationError(str(error)) from error


def _is_small(shape: tuple[int, ...] | None) -> bool:
    """HDF5 also has datasets without a shape, which hold nothing."""
    return shape is not None and math.prod(shape) <= _MAX_NUMBERS
