"""Which images of a capture a report shows: a few, spread over the rig and the turntable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..capture import Capture, Image, SensorKind
from ..capture.pixels import camera_of
from ..label import View

_MOST_SENSORS, _STOPS, _VIEWS = 3, 4, 8

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Photographs that belong together, and what they have in common."""

    name: str
    images: tuple[Image, ...]


def rounds(capture: Capture) -> tuple[Round, ...]:
    """The lowest, the middle and the highest camera at four stops each; eight views where there is no such order.

    Sensors with a single image, as in captures without a rig, count as one camera that was carried around.
    """
    photographs = capture.images_of(SensorKind.color)
    by_sensor = {sensor.name: [i for i in photographs if i.sensor == sensor.name] for sensor in capture.sensors}
    turned = {name: images for name, images in by_sensor.items() if len(images) >= _STOPS}
    if len(turned) < 2:
        return (Round(name="photographs", images=tuple(spread(photographs, _VIEWS))),) if photographs else ()
    by_height = sorted(turned, key=lambda name: _height(capture, turned[name]))
    return tuple(
        Round(name=name, images=tuple(spread(_in_order(capture, turned[name]), _STOPS, closed=True)))
        for name in spread(by_height, _MOST_SENSORS)
    )


def spread(items: Sequence[Item], at_most: int, *, closed: bool = False) -> list[Item]:
    """As many of the items, evenly over their order, with both ends; `closed`: the end joins the beginning."""
    if len(items) <= at_most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - (not closed), at_most, endpoint=not closed).astype(int)]


def worst_and_median(ordered: Sequence[Item]) -> dict[str, Item]:
    """Of items with the worst first: up to three different ones, by what they are."""
    places = {"worst": 0, "second worst": 1, "median": len(ordered) // 2}
    return {name: ordered[i] for name, i in places.items() if i < len(ordered) and (i != 1 or len(ordered) > 3)}


def view_of(capture: Capture, image: Image) -> View:
    """The camera of the pixels that `read_color` and `read_depth` return."""
    return View(camera=camera_of(capture, image), cam_from_world=capture.sensor_from_world(image))


def label_of(capture: Capture, image: Image) -> str:
    """How an image is named to a reader: its file, with the sensor where the name does not say it."""
    name = image.path.name
    return name if name.startswith(image.sensor.removesuffix("_depth")) else f"{image.sensor} {name}"


def _height(capture: Capture, images: Sequence[Image]) -> float:
    """Of the cameras' centres above the world's origin, along z, on average."""
    return float(np.mean([float(capture.sensor_from_world(i).inverse().translation[2]) for i in images]))


def _in_order(capture: Capture, images: Sequence[Image]) -> list[Image]:
    angles = {frame.name: frame.angle_deg for frame in capture.frames}
    return sorted(images, key=lambda image: angles[image.frame] or 0.0)
