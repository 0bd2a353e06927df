"""Where the object and its table are, before a single outline is known."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from ..capture import Capture
from ..capture.types import SparsePoints
from ..geometry import Rigid
from .report import TableFrom
from .table import Gaze, Plane, above, resting_plane, seen_table, table_from_world, trusted_points
from .views import View
from .votes import nearest_to_rays

log = logging.getLogger(__name__)

Box = tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]

_LEAST_POINTS = 30
_MARGIN = 0.3  # of the points' longest extent: how far the object may go beyond them


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the calibration and the sparse points tell, in the world of the result.

    `move` leads there from the capture's world; None if it is the same. `box` surely holds the object.
    """

    table: TableFrom
    move: Rigid | None
    on_object: Float[np.ndarray, "points 3"] | None
    box: Box | None


def find_place(capture: Capture, views: Sequence[View], points: SparsePoints | None, *, assume_table: bool) -> Place:
    """The table and the points that lie on the object.

    Args:
        assume_table: let the object rest on the plane under its points if no points show a table.
    """
    bounds = None if capture.bounds is None else (np.array(capture.bounds[0]), np.array(capture.bounds[1]))
    if points is None or len(points.xyz) < _LEAST_POINTS:
        table = TableFrom.given if capture.has_table else TableFrom.nothing
        return Place(table=table, move=None, on_object=None, box=bounds)
    gaze = _gaze(views)
    trusted = trusted_points(points, gaze)
    if bounds is not None:
        reach = _MARGIN * float((bounds[1] - bounds[0]).max())
        trusted = trusted[((trusted > bounds[0] - reach) & (trusted < bounds[1] + reach)).all(axis=1)]
    plane, table = _table(capture, trusted, gaze, assume_table)
    on_object = trusted if plane is None or table == TableFrom.resting else above(trusted, plane, gaze)
    log.info("outlines: table %s, %d of %d points on the object", table.value, len(on_object), len(points.xyz))
    move = None
    if plane is not None and table != TableFrom.given:
        move = table_from_world(plane, on_object.mean(axis=0))
        on_object = move.apply(torch.from_numpy(on_object)).numpy()
        bounds = None  # its axes are others now
    if bounds is not None:
        return Place(table=table, move=move, on_object=on_object, box=bounds)
    if len(on_object) < _LEAST_POINTS:
        return Place(table=table, move=move, on_object=on_object, box=None)
    low, high = on_object.min(axis=0), on_object.max(axis=0)
    margin = _MARGIN * float((high - low).max())
    low, high = low - margin, high + margin
    if plane is not None:
        low[2] = 0.0
    return Place(table=table, move=move, on_object=on_object, box=(low, high))


def _table(
    capture: Capture, points: Float[np.ndarray, "points 3"], gaze: Gaze, assume_table: bool
) -> tuple[Plane | None, TableFrom]:
    if capture.has_table:
        return Plane(normal=np.array([0.0, 0.0, 1.0]), offset=0.0), TableFrom.given
    seen = seen_table(points, gaze)
    if seen is not None:
        return seen, TableFrom.seen
    resting = resting_plane(points, gaze) if assume_table and len(points) >= _LEAST_POINTS else None
    return resting, TableFrom.nothing if resting is None else TableFrom.resting


def _gaze(views: Sequence[View]) -> Gaze:
    rotations = np.stack([v.cam_from_world.rotation.numpy() for v in views])
    centers = np.stack([v.center for v in views])
    up = -rotations[:, 1].mean(axis=0)
    return Gaze(centers=centers, target=nearest_to_rays(centers, rotations[:, 2]), up=up / np.linalg.norm(up))
