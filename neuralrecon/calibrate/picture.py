"""A picture of a calibrated rig: from above, from the side, and what is left of the residuals in each photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from ..capture import Capture, SensorKind
from .report import residuals_px
from .types import Calibration

_SIDE, _MARGIN, _TITLE = 620, 56, 30
_TILE_WIDTH, _TILES_A_ROW, _MOST_TILES = 248, 5, 15
_BACK, _INK, _GREY, _FAINT = (255, 255, 255), (30, 30, 30), (140, 140, 140), (205, 205, 205)
_COLOR, _DEPTH, _BEFORE, _AXIS = (31, 100, 180), (214, 106, 20), (200, 40, 60), (60, 150, 80)
_MOST_POINTS, _MOST_ARROWS = 6000, 250
_MOVE_PX, _ARROW_PX = 42, 9
_STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rig:
    """Centres (world, first stop) of the sensors before and after, of all images, and where the axes look."""

    names: tuple[str, ...]
    is_depth: tuple[bool, ...]
    before: Float[np.ndarray, "sensors 3"]
    after: Float[np.ndarray, "sensors 3"]
    looking: Float[np.ndarray, "sensors 3"]
    views: Float[np.ndarray, "images 3"]


def rig_picture(before: Capture | None, calibration: Calibration) -> Picture.Image:
    """Two views of sensors, turntable axis and sparse points, and below them a tile of residuals for each sensor.

    `before` is the capture as it came; without it nothing is shown to have moved. Moves and residuals are drawn larger
    than they are, by the factors that the picture names.
    """
    rig = _rig(before, calibration.capture)
    tiles = _tiles(calibration)
    rows = [tiles[i : i + _TILES_A_ROW] for i in range(0, len(tiles), _TILES_A_ROW)]
    heights = [max(tile.height for tile in row) for row in rows]
    whole = Picture.new("RGB", (max(2 * _SIDE, _TILES_A_ROW * _TILE_WIDTH), _SIDE + sum(heights)), _BACK)
    across = _across(rig)
    for column, (title, right, up) in enumerate(
        (
            ("from above (x right, y up)", np.array([1.0, 0, 0]), np.array([0, 1.0, 0])),
            ("from the side (z up)", across, np.array([0, 0, 1.0])),
        )
    ):
        whole.paste(_view(rig, calibration, title, np.stack([right, up])), (column * _SIDE, 0))
    top = _SIDE
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            whole.paste(tile, (column * _TILE_WIDTH, top))
        top += height
    return whole


def _rig(before: Capture | None, after: Capture) -> _Rig:
    world_from_rig = after.frames[0].rig_from_world.inverse()
    poses = [world_from_rig @ sensor.sensor_from_rig.inverse() for sensor in after.sensors]
    centers = np.stack([pose.translation.numpy() for pose in poses])
    ahead = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    given = centers
    if before is not None:
        rig = before.frames[0].rig_from_world.inverse()
        given = np.stack([(rig @ s.sensor_from_rig.inverse()).translation.numpy() for s in before.sensors])
    return _Rig(
        names=tuple(s.name for s in after.sensors),
        is_depth=tuple(s.kind == SensorKind.depth for s in after.sensors),
        before=given,
        after=centers,
        looking=np.stack([pose.rotate(ahead)[0].numpy() for pose in poses]),
        views=np.stack([after.sensor_from_world(i).inverse().translation.numpy() for i in after.images]),
    )


def _across(rig: _Rig) -> Float[np.ndarray, "3"]:
    """The level direction in which the sensors lie, from the axis; x if they lie all around."""
    level = rig.after * (1, 1, 0)
    mean = level.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return mean / length if length > 0.3 * np.linalg.norm(level, axis=1).mean() else np.array([1.0, 0, 0])


def _view(rig: _Rig, calibration: Calibration, title: str, axes: Float[np.ndarray, "2 3"]) -> Picture.Image:
    picture = Picture.new("RGB", (_SIDE, _SIDE), _BACK)
    draw = ImageDraw.Draw(picture)
    points = calibration.points
    shown = np.random.default_rng(0).permutation(len(points.xyz))[:_MOST_POINTS]
    xyz = points.xyz[shown]
    inner = np.quantile(xyz, [0.01, 0.99], axis=0) if len(xyz) else np.zeros((2, 3))
    flat = np.concatenate([rig.views, rig.after, inner, np.zeros((1, 3))]) @ axes.T
    low, high = flat.min(axis=0), flat.max(axis=0)
    scale = (_SIDE - 2 * _MARGIN) / max(float((high - low).max()), 1e-12)
    middle = (low + high) / 2

    def px(in_world: np.ndarray) -> np.ndarray:
        return (in_world @ axes.T - middle) * (scale, -scale) + _SIDE / 2

    _draw_axis(draw, px, calibration.capture)
    picture_points = px(xyz).round().astype(int)
    for (u, v), rgb in zip(picture_points.tolist(), points.rgb[shown].tolist(), strict=True):
        draw.rectangle((u, v, u + 1, v + 1), fill=tuple(int(0.8 * c) for c in rgb))
    for u, v in px(rig.views):
        draw.ellipse((u - 1.5, v - 1.5, u + 1.5, v + 1.5), fill=_FAINT)
    factor = _draw_sensors(draw, rig, px, scale)
    draw.text((10, 8), title, fill=_INK, font=_font(16))
    if factor:
        text = f"red: where it was given, the move drawn {factor:g} x larger"
        draw.text((10, _SIDE - 24), text, fill=_BEFORE, font=_font(13))
    _draw_ruler(draw, scale, calibration.capture.is_metric)
    return picture


def _draw_axis(draw: ImageDraw.ImageDraw, px, capture: Capture) -> None:
    """z of the world through its origin, and the table's height."""
    (u, v), (u1, v1) = px(np.zeros(3)), px(np.array([0, 0, 1.0]))
    if np.hypot(u1 - u, v1 - v) < 1:
        draw.line((u - 9, v, u + 9, v), fill=_AXIS, width=2)
        draw.line((u, v - 9, u, v + 9), fill=_AXIS, width=2)
        return
    for dash in range(0, _SIDE, 12):
        draw.line((u, dash, u, dash + 6), fill=_AXIS)
    if capture.has_table:
        draw.line((u - 60, v, u + 60, v), fill=_AXIS)
        draw.text((u + 4, v + 3), "table", fill=_AXIS, font=_font(12))


def _draw_sensors(draw: ImageDraw.ImageDraw, rig: _Rig, px, scale: float) -> float:
    """Sensors as they are now, with a red line to where they were; by how much that is enlarged (0: not shown)."""
    moved = rig.before - rig.after
    longest = float(np.linalg.norm(moved, axis=1).max())
    factor = _round(_MOVE_PX / (scale * longest)) if longest > 1e-9 * np.abs(rig.after).max() else 0.0
    looked = px(rig.after + rig.looking * 22 / scale)
    taken: list[tuple[float, float]] = []
    for i in np.argsort(rig.is_depth, kind="stable").tolist():
        (u, v), color = px(rig.after[i]), _DEPTH if rig.is_depth[i] else _COLOR
        draw.line((u, v, *looked[i]), fill=color)
        draw.ellipse((u - 4, v - 4, u + 4, v + 4), fill=color)
        if factor:
            draw.line((u, v, *px(rig.after[i] + factor * moved[i])), fill=_BEFORE, width=2)
        width = draw.textlength(rig.names[i], font=_font(11))
        u, v = min(u + 7, _SIDE - 4 - width), v + 8
        while any(abs(u - a) < 70 and abs(v - b) < 12 for a, b in taken):
            v += 6
        taken.append((u, v))
        draw.text((u, v), rig.names[i], fill=color, font=_font(11), anchor="lm")
    return factor


def _draw_ruler(draw: ImageDraw.ImageDraw, scale: float, is_metric: bool) -> None:
    length = _round(0.25 * _SIDE / scale)
    right = _SIDE - 14
    text = (f"{length * 1e3:g} mm" if length < 1 else f"{length:g} m") if is_metric else f"{length:g} (unscaled)"
    draw.line((right - length * scale, _SIDE - 14, right, _SIDE - 14), fill=_INK, width=3)
    draw.text((right, _SIDE - 20), text, fill=_INK, font=_font(13), anchor="rs")


def _tiles(calibration: Calibration) -> list[Picture.Image]:
    """A tile for each sensor with photographs, those with most observations if there are many."""
    capture, points = calibration.capture, calibration.points
    off = residuals_px(capture, points)
    sensor_of = np.array([image.sensor for image in capture.images])[points.image_index]
    wide = [s for s in capture.sensors if s.kind == SensorKind.color]
    counts = {s.name: int((sensor_of == s.name).sum()) for s in wide}
    shown = sorted(wide, key=lambda s: -counts[s.name])[:_MOST_TILES]
    changes = {change.name: change for change in calibration.sensors}
    tiles = []
    for sensor in (s for s in wide if s in shown):
        own = sensor_of == sensor.name
        size = (sensor.camera.width, sensor.camera.height)
        change = changes[sensor.name]
        before, after = ("-" if r is None else f"{r:.2f}" for r in (change.residual_before, change.residual_after))
        told = f"{before} > {after} px" if change.residual_before is not None else f"{after} px"
        title = f"{sensor.name}: {told}, {change.n_observations} seen"
        tiles.append(_tile(title, size, points.pixel[own], off[own]))
    return tiles


def _tile(title: str, size: Sequence[int], pixel: np.ndarray, off: np.ndarray) -> Picture.Image:
    """Residuals as arrows where they are in the photograph, and how their lengths are spread."""
    width, strip = _TILE_WIDTH - 12, 44
    height = round(width * size[1] / size[0])
    picture = Picture.new("RGB", (_TILE_WIDTH, _TITLE + height + strip + 22), _BACK)
    draw = ImageDraw.Draw(picture)
    draw.text((6, 8), title, fill=_INK, font=_font(12))
    draw.rectangle((6, _TITLE, 6 + width, _TITLE + height), outline=_GREY)
    length = np.linalg.norm(off, axis=1)
    if not len(length):
        draw.text((14, _TITLE + 10), "nothing seen", fill=_GREY, font=_font(12))
        return picture
    typical = max(float(np.quantile(length, 0.8)), 1e-9)
    factor = _round(_ARROW_PX / typical)
    chosen = np.random.default_rng(0).permutation(len(length))[:_MOST_ARROWS]
    start = pixel[chosen] * (width / size[0]) + (6, _TITLE)
    step = off[chosen] * np.minimum(1, 3 * typical / np.maximum(length[chosen], 1e-12))[:, None] * factor
    for (u, v), (du, dv) in zip(start.tolist(), step.tolist(), strict=True):
        draw.line((u, v, u + du, v + dv), fill=_COLOR)
        draw.point((u, v), fill=_BEFORE)
    _draw_histogram(draw, length, (6, _TITLE + height + 4, width, strip))
    text = f"1 px = {factor:g} px here"
    draw.text((6 + width - 4, _TITLE + height + 6), text, fill=_GREY, font=_font(11), anchor="ra")
    return picture


def _draw_histogram(draw: ImageDraw.ImageDraw, length: np.ndarray, box: tuple[int, int, int, int]) -> None:
    left, top, width, height = box
    end = _round(float(np.quantile(length, 0.98)), up=True)
    counts, _ = np.histogram(length, bins=40, range=(0, end))
    for i, share in enumerate(counts / max(counts.max(), 1)):
        at = left + i * width / 40
        draw.rectangle((at, top + height * (1 - share), at + width / 40 - 1, top + height), fill=_COLOR)
    draw.line((left, top + height, left + width, top + height), fill=_GREY)
    draw.text((left, top + height + 3), "0", fill=_GREY, font=_font(11))
    draw.text((left + width, top + height + 3), f"{end:g} px", fill=_GREY, font=_font(11), anchor="ra")


def _round(value: float, *, up: bool = False) -> float:
    """The largest of 1, 2, 5, 10, ... that is not above `value` (with `up`: the smallest not below)."""
    power = 10.0 ** np.floor(np.log10(max(value, 1e-12)))
    near = 1e-6 * power  # of a round number's own rounding
    if up:
        return float(next(s * power for s in (*_STEPS, 10) if s * power >= value - near))
    return float(max(s * power for s in _STEPS if s * power <= value + near))


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
