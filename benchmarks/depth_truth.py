"""Which depth readings of a simulated capture are wrong, by the true mesh."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float

from neuralrecon.capture import Capture, Image, SensorKind
from neuralrecon.capture.pixels import camera_of, read_depth
from neuralrecon.label import Solid

WRONG_M = 0.005
_MOST_IMAGES = 25


def is_wrong(
    origins: Float[np.ndarray, "readings 3"], points: Float[np.ndarray, "readings 3"], truth: Solid
) -> Bool[np.ndarray, "readings"]:
    """More than 5 mm from the first surface on the way from the camera, or, where there is none, from the nearest.

    All in the table's frame. A reading through the object, or of what is mirrored in it, is wrong by that.
    """
    along = points - origins
    distance = np.linalg.norm(along, axis=1)
    error = np.abs(truth.first_hit(origins, along / distance[:, None]) - distance)
    missed = ~np.isfinite(error)
    if missed.any():
        error[missed] = truth.closest(points[missed])[0]
    return error > WRONG_M


def bad_depth_share(capture: Capture, truth: Solid) -> float | None:
    """Of the depth pixels that look at the object: the share without a reading or with a wrong one.

    Pixels are told by their rays, over 25 images at most. None without depth.
    """
    images = capture.images_of(SensorKind.depth)
    n_bad = n_all = 0
    for image in images[:: -(-len(images) // _MOST_IMAGES)] if images else ():
        error = depth_error(capture, image, truth)
        n_bad, n_all = n_bad + int((error > WRONG_M).sum()), n_all + int((~np.isnan(error)).sum())
    return n_bad / n_all if n_all else None


def depth_error(capture: Capture, image: Image, truth: Solid) -> Float[np.ndarray, "v u"]:
    """How far along the ray each reading is off the truth's first surface, in metres, without sign.

    nan where the ray misses the truth, inf where nothing was read.
    """
    depth, camera = read_depth(capture, image), camera_of(capture, image)
    v, u = np.mgrid[: camera.height, : camera.width]
    pixels = torch.from_numpy(np.stack([u.ravel(), v.ravel()], axis=1) + 0.5)
    world_from_cam = capture.sensor_from_world(image).to(torch.float64).inverse()
    rays = camera.rays(pixels).to(torch.float64)  # of depth 1 along the axis
    directions = world_from_cam.rotate(rays).numpy()
    lengths = np.linalg.norm(directions, axis=1)
    origins = np.broadcast_to(world_from_cam.translation.numpy(), directions.shape)
    first = truth.first_hit(origins, directions / lengths[:, None])
    read = np.where(depth.ravel() > 0, depth.ravel() * lengths, np.inf)
    return np.abs(read - np.where(np.isfinite(first), first, np.nan)).reshape(depth.shape)
