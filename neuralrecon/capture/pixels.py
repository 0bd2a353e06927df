"""Pixels of a capture, one file at a time: photographs, silhouettes, depth in metres."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from ..errors import CaptureError
from ..geometry import Camera
from .headers import opened_depth, opened_image, require_depth_mode
from .types import Capture, Image, SensorKind

_COLOR_MODES = ("RGB", "L", "RGBA", "P", "CMYK", "YCbCr")
_MASK_MODES = ("1", "L", "P", "RGB", "RGBA", "LA")


def camera_of(capture: Capture, image: Image) -> Camera:
    """Intrinsics of the pixels that `read_color` or `read_depth` returns: photographs are smaller by `downscale`."""
    sensor = capture.sensor(image.sensor)
    n = capture.downscale
    if sensor.kind == SensorKind.depth or n == 1:
        return sensor.camera
    width, height = sensor.camera.width // n, sensor.camera.height // n
    if width == 0 or height == 0:
        raise CaptureError(
            f"{image.path}: {sensor.camera.width} x {sensor.camera.height} px cannot be made smaller {n} times; "
            "choose a smaller downscale"
        )
    return replace(sensor.camera, width=width * n, height=height * n).resized(width, height)


def read_color(
    capture: Capture, image: Image, box: tuple[int, int, int, int] | None = None
) -> UInt8[np.ndarray, "v u 3"]:
    """A photograph as sRGB bytes, its sides divided by `capture.downscale` (areas averaged, a remainder cut off).

    EXIF orientation is not applied: the calibration belongs to the pixels as stored.

    Args:
        box: u0, v0, u1, v1 (ends exclusive) of the part that is wanted, in the pixels returned; all by default.

    Raises:
        CaptureError: missing, undecodable, of another size than the sensor's, or not 8 bits a channel.

    Example:
        >>> rgb = read_color(capture, capture.images_of(SensorKind.color)[0])  # doctest: +SKIP
    """
    camera = camera_of(capture, image)
    n = capture.downscale
    with opened_image(image.path, "photograph") as file:
        _require_size(capture, image, file.size)
        if file.mode not in _COLOR_MODES:
            raise CaptureError(
                f"{image.path}: photograph has pixels of type {file.mode}, want 8 bits a channel; convert it"
            )
        by_dct = _dct_downscale(n) if file.format == "JPEG" else 1
        if by_dct > 1:
            file.draft(None, (file.width // by_dct, file.height // by_dct))
        rest = n // by_dct
        u0, v0, u1, v1 = box or (0, 0, camera.width, camera.height)
        rgb = file.crop((u0 * rest, v0 * rest, u1 * rest, v1 * rest)).convert("RGB")
        return np.asarray(rgb.reduce(rest) if rest > 1 else rgb)


def read_mask(capture: Capture, image: Image) -> Bool[np.ndarray, "v u"]:
    """Silhouette at the size of `read_color`'s pixels, True = object; a smaller pixel goes with the majority.

    Raises:
        CaptureError: no mask, missing, undecodable, of another size than its image, or it tells nothing (all object
            or no object).
    """
    if image.mask_path is None:
        raise CaptureError(f"{image.path}: this image has no mask; look at mask_path before asking for it")
    camera = camera_of(capture, image)
    n = 1 if camera == capture.sensor(image.sensor).camera else capture.downscale
    with opened_image(image.mask_path, "mask") as file:
        _require_size(capture, image, file.size, image.mask_path)
        if file.mode not in _MASK_MODES:
            raise CaptureError(f"{image.mask_path}: mask has pixels of type {file.mode}, want 8 bits or 1 bit")
        grey = np.asarray(file.convert("L"))
    mask = (grey < 128) == image.object_is_black
    if n > 1:
        blocks = mask[: camera.height * n, : camera.width * n].reshape(camera.height, n, camera.width, n)
        mask = 2 * blocks.sum(axis=(1, 3)) >= n * n
    if mask.all() or not mask.any():
        says = "every pixel is object" if mask.all() else "no pixel is object"
        color = "black" if image.object_is_black else "white"
        raise CaptureError(
            f"{image.mask_path}: {says} (object = {color}, grey values {grey.min()} to {grey.max()}); "
            "check the polarity and the segmentation, or remove this mask"
        )
    return mask


def read_depth(capture: Capture, image: Image) -> Float32[np.ndarray, "v u"]:
    """Metres along the optical axis at the sensor's own size, 0 = missing.

    Raises:
        CaptureError: missing, undecodable, of another size than the sensor's, or not 16 bits a pixel.
    """
    sensor = capture.sensor(image.sensor)
    if sensor.metres_per_unit is None:
        raise CaptureError(f"{image.path}: sensor {sensor.name} has no metres_per_unit; it is no depth sensor")
    return _raw_depth(capture, image).astype(np.float32) * np.float32(sensor.metres_per_unit)


def _raw_depth(capture: Capture, image: Image) -> np.ndarray:
    if image.path.suffix == ".h5":
        with opened_depth(image.path) as depth:
            _require_size(capture, image, depth.shape[::-1])
            return depth[()]
    with opened_image(image.path, "depth map") as file:
        require_depth_mode(image.path, file)
        _require_size(capture, image, file.size)
        return np.asarray(file)


def _dct_downscale(n: int) -> int:
    """The part of a downscale by n that the JPEG decoder does itself: its largest divisor among 8, 4, 2, 1."""
    return next(d for d in (8, 4, 2, 1) if n % d == 0)


def _require_size(capture: Capture, image: Image, size: tuple[int, ...], path: Path | None = None) -> None:
    camera = capture.sensor(image.sensor).camera
    if tuple(size) != (camera.width, camera.height):
        raise CaptureError(
            f"{path or image.path}: {size[0]} x {size[1]} px, want {camera.width} x {camera.height} as sensor "
            f"{image.sensor} is calibrated for; use the file of the capture's own size"
        )
