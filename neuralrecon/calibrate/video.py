"""A video as photographs: sharp frames, evenly spaced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import scipy.ndimage
from jaxtyping import Float, UInt8
from PIL import Image as PILImage

from ..errors import CaptureError, ConfigError

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
_JPEG_QUALITY = 95


def write_frames(video: Path, folder: Path, n_frames: int) -> Path:
    """The sharpest frame of each of `n_frames` equal stretches of a video, as JPEG files in `folder`; returns it.

    Raises:
        CaptureError: no such file, or it cannot be decoded, or it has no frames.
        ConfigError: PyAV is not installed.
    """
    if not video.is_file():
        raise CaptureError(f"{video}: no such video file; check the path")
    n_total = sum(1 for _ in _decoded(video))
    if n_total == 0:
        raise CaptureError(f"{video}: no frame could be decoded; convert it to MP4 (H.264)")
    folder.mkdir(parents=True, exist_ok=True)
    chosen = set(sharpest_of_stretches((sharpness(f) for f in _decoded(video)), n_total, n_frames))
    for i, frame in enumerate(_decoded(video)):
        if i in chosen:
            PILImage.fromarray(frame).save(folder / f"{i:06d}.jpg", quality=_JPEG_QUALITY)
    return folder


def sharpest_of_stretches(sharpnesses: Iterable[float], n_total: int, n_frames: int) -> list[int]:
    """The index of the sharpest of each of `n_frames` stretches of nearly equal length, in order."""
    bounds = np.linspace(0, n_total, min(n_frames, n_total) + 1).round().astype(int)
    values = list(sharpnesses)
    return [int(a + np.argmax(values[a:b])) for a, b in pairwise(bounds.tolist())]


def sharpness(rgb: UInt8[np.ndarray, "v u 3"]) -> float:
    """Variance of the Laplacian of the grey values: falls with blur (of one scene; noise raises it)."""
    grey: Float[np.ndarray, "v u"] = rgb.astype(np.float32).mean(axis=2)
    return float(scipy.ndimage.laplace(grey).var())


def _decoded(video: Path) -> Iterator[UInt8[np.ndarray, "v u 3"]]:
    try:
        import av  # An optional extra, wanted for videos only.
    except ImportError as error:
        raise ConfigError(
            f"{video}: reading a video needs PyAV, which is not installed; install it (pip install av), or give a "
            "folder of photographs"
        ) from error
    try:
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.error.FFmpegError, IndexError) as error:
        raise CaptureError(f"{video}: cannot be decoded ({error}); convert it to MP4 (H.264)") from error
