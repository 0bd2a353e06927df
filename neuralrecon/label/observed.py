"""Which points did any camera see, as free space or as surface?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Int

from ..capture.types import Capture, SensorKind
from ..geometry import Camera, Rigid
from .solid import Solid

OBSERVED_TOLERANCE_M = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One camera where it stood, in the world frame."""

    camera: Camera
    cam_from_world: Rigid


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What was looked at, and on what the surface rests.

    With `table_z_m`, cameras above that height see nothing below it. `evidence` tells, for each of the mesh's vertices,
    whether anything but sight speaks for the surface there (`surface_evidence`); None: it is not asked.
    """

    views: Sequence[View]
    table_z_m: float | None = None
    evidence: Bool[np.ndarray, "vertices"] | None = None

    def observes(
        self, points_in_world: Float[np.ndarray, "points 3"], mesh: trimesh.Trimesh | Solid
    ) -> Bool[np.ndarray, "points"]:
        """`observed_by` the views, and, where the surface is nearer than its tolerance, on a surface with evidence."""
        solid = mesh if isinstance(mesh, Solid) else Solid.of(mesh)
        seen = observed_by(points_in_world, solid, self.views, table_z_m=self.table_z_m)
        return seen if self.evidence is None else _with_evidence(points_in_world, seen, solid, self.evidence)


def views_of(
    capture: Capture, *, kinds: Sequence[SensorKind] = tuple(SensorKind), at_most: int | None = None
) -> tuple[View, ...]:
    """One view for each image of these kinds; with `at_most`, that many, spread evenly over the images in their order.

    Cameras are the sensors' own: a capture's `downscale` changes how finely one looks, not what is in sight.
    """
    images = [image for kind in kinds for image in capture.images_of(kind)]
    if at_most is not None and len(images) > at_most:
        images = [images[i] for i in np.linspace(0, len(images) - 1, at_most).round().astype(int)]
    return tuple(
        View(camera=capture.sensor(image.sensor).camera, cam_from_world=capture.sensor_from_world(image))
        for image in images
    )


def observed_by(
    points_in_world: Float[np.ndarray, "points 3"],
    mesh: trimesh.Trimesh | Solid,
    views: Sequence[View],
    *,
    tolerance_m: float = OBSERVED_TOLERANCE_M,
    table_z_m: float | None = None,
) -> Bool[np.ndarray, "points"]:
    """True where at least one view has the point in its image and meets nothing before it.

    A point counts as met if it lies in front of the first surface along the ray from the camera's centre, or at most
    `tolerance_m` behind it. With `table_z_m`, cameras above that height see nothing that lies more than the tolerance
    below it.

    Example:
        >>> observed_by(labels.points_in_world, mesh, views_of(capture), table_z_m=0.0)  # doctest: +SKIP
    """
    solid = mesh if isinstance(mesh, Solid) else Solid.of(mesh)
    points = np.asarray(points_in_world, dtype=np.float64)
    seen = np.zeros(len(points), dtype=bool)
    # Deeper inside than the tolerance, a point is further than that behind any first surface: no ray is needed.
    hopeless = _deep_inside(points, solid, tolerance_m)
    if table_z_m is not None and all(centre_of(view)[2] > table_z_m for view in views):
        hopeless |= points[:, 2] < table_z_m - tolerance_m
    for view in _far_apart_first(views):
        todo = np.nonzero(~seen & ~hopeless)[0]
        if len(todo) == 0:
            break
        seen[todo[seen_from(points[todo], solid, view, tolerance_m, table_z_m)]] = True
    return seen


def centre_of(view: View) -> Float[np.ndarray, "3"]:
    """The camera's centre in the world frame."""
    return view.cam_from_world.inverse().translation.numpy().astype(np.float64)


def _with_evidence(points, seen, solid: Solid, evidence):
    """Without those of `seen` at most the tolerance off a surface that has no evidence: inside, none is further off."""
    at = np.nonzero(seen)[0]
    if len(at) == 0:
        return seen
    distance, face, place = solid.closest(points[at])
    corners = solid.faces[face]
    nearest = np.square(solid.vertices[corners] + solid.centre - place[:, None]).sum(axis=2).argmin(axis=1)
    told = seen.copy()
    told[at] = (distance > OBSERVED_TOLERANCE_M) | evidence[corners[np.arange(len(at)), nearest]]
    return told


def seen_from(
    points: Float[np.ndarray, "points 3"],
    solid: Solid,
    view: View,
    tolerance_m: float,
    table_z_m: float | None = None,
) -> Int[np.ndarray, "seen"]:
    """Indices into `points` of those that this view sees, as in `observed_by`."""
    kept = _in_image(points, view)
    centre = centre_of(view)
    if table_z_m is not None and centre[2] > table_z_m:
        kept = kept[points[kept, 2] >= table_z_m - tolerance_m]
    offsets = points[kept] - centre
    distances = np.sqrt(np.einsum("ij,ij->i", offsets, offsets))
    # Rays start where the solid's bounding sphere may begin: float32 is finest near the solid.
    radius = float(np.linalg.norm(solid.half_size))
    start = max(float(np.linalg.norm(centre - solid.centre)) - 1.01 * radius, 0.0)
    directions = offsets / distances[:, None]
    first = start + solid.first_hit(centre + directions * start, directions)
    return kept[distances <= first + tolerance_m]


def _in_image(points, view: View) -> Int[np.ndarray, "kept"]:
    """Indices of the points whose projection falls into the image.

    The distortion's polynomial may fold far-off directions back into the image, so the undistorted coordinates must
    lie within those of the image's border too.
    """
    camera = view.camera
    cam_from_world = view.cam_from_world.to(torch.float64)
    in_cam = points @ cam_from_world.rotation.numpy().T + cam_from_world.translation.numpy()
    front = np.nonzero(in_cam[:, 2] > 1e-6)[0]
    plane = in_cam[front, :2] / in_cam[front, 2:]
    low, high = _border(camera)
    front = front[_within(plane, low, high)]
    pixels = camera.project(torch.from_numpy(in_cam[front])).numpy()
    return front[_within(pixels, (0.0, 0.0), (camera.width, camera.height))]


def _within(plane, low, high):
    x, y = plane[:, 0], plane[:, 1]
    return (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1])


def _border(camera: Camera):
    """Smallest and largest undistorted x and y (at z = 1) on the image's border."""
    steps = np.linspace(0.0, 1.0, 65)
    sides = [np.stack([steps, np.full(65, end)], axis=1) for end in (0.0, 1.0)]
    border = np.concatenate([*sides, *(side[:, ::-1] for side in sides)]) * [camera.width, camera.height]
    plane = camera.rays(torch.from_numpy(border)).numpy()[:, :2]
    return plane.min(axis=0) - 1e-6, plane.max(axis=0) + 1e-6


def _deep_inside(points, solid: Solid, tolerance_m: float):
    """Inside a closed solid and further than the tolerance from its surface."""
    deep = np.zeros(len(points), dtype=bool)
    if solid.closed and len(points):
        inside = np.nonzero(solid.contains(points))[0]
        deep[inside] = solid.closest(points[inside])[0] > tolerance_m
    return deep


def _far_apart_first(views: Sequence[View]) -> list[View]:
    """The same views in an order in which the first few already look from all sides (golden-ratio steps)."""
    order = np.argsort((np.arange(len(views)) * 0.6180339887498949) % 1.0)
    return [views[i] for i in order]
