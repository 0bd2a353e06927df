"""Small pictures of a capture's images: photographs as they are, depth maps in colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ..capture import Capture, Image, SensorKind, camera_of, read_color, read_depth
from .eyes import Window
from .pictures import SEQUENTIAL, Picture, colored, resized


def is_depth(capture: Capture, image: Image) -> bool:
    """Whether the image is a depth map."""
    return capture.sensor(image.sensor).kind == SensorKind.depth


def thumbnail(capture: Capture, image: Image, longest_px: int) -> Picture:
    """The whole image with its longest side at most so many pixels.

    Raises:
        CaptureError: it cannot be read.
    """
    camera = camera_of(capture, image)
    longest = max(camera.width, camera.height)
    if is_depth(capture, image):
        picture = depth_colored(read_depth(capture, image))
    else:
        # JPEG decoders give halves, quarters and eighths for little
        halvings = next((n for n in (8, 4, 2) if longest // n >= longest_px), 1)
        picture = read_color(replace(capture, downscale=capture.downscale * halvings), image)
    height, width = picture.shape[:2]
    shrink = min(1.0, longest_px / max(width, height))
    return resized(picture, max(1, round(width * shrink)), max(1, round(height * shrink)))


def part_of_photograph(capture: Capture, image: Image, window: Window) -> Picture:
    """A photograph's pixels in the window, at the window's size.

    Raises:
        CaptureError: it cannot be read.
    """
    rgb = read_color(capture, image, (window.u0, window.v0, window.u1, window.v1))
    return resized(rgb, window.width, window.height)


def part_of_map(values: Float[np.ndarray, "v u"], window: Window) -> Float[np.ndarray, "v u"]:
    """A map's values in the window, at the window's size: each the nearest pixel's."""
    part = values[window.v0 : window.v1, window.u0 : window.u1]
    rows = ((np.arange(window.height) + 0.5) * part.shape[0] / window.height).astype(int)
    columns = ((np.arange(window.width) + 0.5) * part.shape[1] / window.width).astype(int)
    return part[rows[:, None], columns]


def depth_colored(depth_m: Float[np.ndarray, "v u"]) -> Picture:
    """From the nearest to the farthest reading but for the outermost 2 %; missing readings have no colour."""
    read = depth_m > 0
    low, high = np.percentile(depth_m[read], [2, 98]) if read.any() else (0.0, 1.0)
    return colored(np.where(read, depth_m, np.nan), float(low), float(high), SEQUENTIAL)
