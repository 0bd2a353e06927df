"""How far each depth reading can be believed once the surface is known: as numbers, and as a folder of images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Float32, Int
from PIL import Image as Pillow

from ..capture import Capture, Image, SensorKind, read_depth
from ..capture.headers import opened_image
from ..capture.pixels import camera_of
from ..errors import CaptureError
from ..fields.sensors import SensorModel
from ..files import replacing
from ..geometry import Camera, Rays, Rigid
from ..scene import DepthRays, Scene
from ..train import Fit
from ..train.depth_probes import posterior
from .solid import Solid

SUMMARY_FILE = "depth_inliers.json"
BELIEVED = 0.5  # a reading at least so probable is taken for the object's surface

_UNKEPT = 0.1  # prior of a reading that the scene has left out, where the way to it meets the surface
_SURFACE_WRONG = 0.05  # share of the surface that may be somewhere else altogether: there the prior stands
_LEAST_COSINE = 0.2
_SPREAD_MM = 1.5  # of a sensor that no fit has learned
_WINDOW_PX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthInliers:
    """One depth image: how probable each reading is the object's first surface on its ray, 0 where nothing was read.

    `on_object` are the pixels whose rays meet the surface, `was_read` those with a reading.
    """

    image: Image
    probability: Float32[np.ndarray, "v u"]
    on_object: Bool[np.ndarray, "v u"]
    was_read: Bool[np.ndarray, "v u"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorInliers:
    """Of the pixels of a sensor that look at the object: the shares that were not read, are believed, are not."""

    sensor: str
    missing: float
    believed: float
    not_believed: float
    pixels: int


def depth_inliers(
    capture: Capture, scene: Scene, mesh: trimesh.Trimesh | Solid, fit: Fit | None = None
) -> Iterator[DepthInliers]:
    """For each depth image, in the capture's order, the probability that a reading is the object's first surface.

    The scene's prior of a reading (what other images read there, and on the way to it) and its distance from the
    surface go into the mixture that the fit weighs readings by: right ones normal about the surface with the sensor's
    learned spread, wrong ones anywhere. The distance is that to the first face on the ray, along the face's normal; on
    a ray that misses the mesh, that to the nearest place of it. Readings that the scene left out, being off the hull or
    too low above the table, have a small prior where their ray meets the mesh, and are none of the object elsewhere.
    As the mesh too may be wrong, a twentieth of the prior stands whatever the distance.

    Args:
        capture: the one that the scene was made from.
        mesh: the surface, in the world frame.
        fit: gives the sensors' corrected places and their spread; without it, those of the capture and 1.5 mm.

    Raises:
        CaptureError: a depth image that cannot be read.

    Example:
        >>> for found in depth_inliers(capture, scene, mesh, fit):  # doctest: +SKIP
        ...     print(found.image.path.name, (found.probability >= 0.5).sum())
    """
    solid = mesh if isinstance(mesh, Solid) else Solid.of(mesh)
    sensors = None if fit is None else deepcopy(fit.model.sensors).cpu()
    for index, image in enumerate(capture.images_of(SensorKind.depth)):
        yield _of_image(index, image, capture, scene, solid, sensors)


def write_depth_inliers(inliers: Iterable[DepthInliers], folder: Path) -> tuple[SensorInliers, ...]:
    """An 8-bit PNG per depth image, 255 = certain, named by the image's stem; at last `depth_inliers.json`.

    The latter holds what is returned, by sensor; it is missing where the writing broke off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY_FILE).unlink(missing_ok=True)
    counts: dict[str, Int[np.ndarray, "3"]] = {}
    for found in inliers:
        with replacing(_file_of(folder, found.image)) as temporary:
            Pillow.fromarray(np.round(found.probability * 255).astype(np.uint8)).save(temporary)
        read, believed = found.was_read[found.on_object], found.probability[found.on_object] >= BELIEVED
        of_image = np.array([(~read).sum(), believed.sum(), (read & ~believed).sum()])
        counts[found.image.sensor] = counts.get(found.image.sensor, np.zeros(3, np.int64)) + of_image
    told = tuple(_shares(sensor, count) for sensor, count in counts.items())
    with replacing(folder / SUMMARY_FILE) as temporary:
        sensors = {s.sensor: {name: getattr(s, name) for name in s.__slots__ if name != "sensor"} for s in told}
        temporary.write_text(json.dumps({"believed_from": BELIEVED, "sensors": sensors}, indent=2) + "\n")
    return told


def read_depth_inliers(folder: Path, image: Image, camera: Camera) -> Float32[np.ndarray, "v u"]:
    """What `write_depth_inliers` wrote for a depth image, to 1 / 255.

    Raises:
        CaptureError: no such file, or one of another size than the camera's.
    """
    file = _file_of(folder, image)
    with opened_image(file, "image of probabilities") as opened:
        values = np.asarray(opened.convert("L"))
    if values.shape != (camera.height, camera.width):
        raise CaptureError(
            f"{file}: {values.shape[1]} x {values.shape[0]} px, want {camera.width} x {camera.height} as "
            f"{image.path.name}; write it anew"
        )
    return values.astype(np.float32) / 255


def _file_of(folder: Path, image: Image) -> Path:
    return folder / f"{image.path.stem}.png"


def _shares(sensor: str, counts: Int[np.ndarray, "3"]) -> SensorInliers:
    n = int(counts.sum())
    missing, believed, not_believed = (round(float(count) / max(n, 1), 4) for count in counts)
    return SensorInliers(sensor=sensor, missing=missing, believed=believed, not_believed=not_believed, pixels=n)


def _of_image(
    index: int, image: Image, capture: Capture, scene: Scene, solid: Solid, sensors: SensorModel | None
) -> DepthInliers:
    depth, camera = read_depth(capture, image), camera_of(capture, image)
    cam_from_world = capture.sensor_from_world(image).to(torch.float64)
    priors = _priors(scene, index, camera, cam_from_world)
    v, u = np.nonzero(_window(camera, cam_from_world, solid) | (priors > 0))
    if len(v) == 0:
        nowhere = np.zeros(depth.shape, bool)
        return DepthInliers(image=image, probability=np.zeros_like(depth), on_object=nowhere, was_read=depth > 0)
    read, prior = depth[v, u], priors[v, u]
    rays = _rays_in_unit(u, v, np.where(read > 0, read, 1), image, capture, scene)
    if sensors is not None:
        rays = sensors.corrected_depth(rays)
    off, hit = _off_surface(rays, prior > 0, scene, solid)
    sensor = scene.sensor_names.index(image.sensor)
    spread_mm = _SPREAD_MM if sensors is None else float(sensors.spread_mm[sensor])
    believed = np.where(hit, np.maximum(prior, _UNKEPT), prior)
    off_mm, spread = torch.from_numpy(off / scene.world_per_mm), torch.tensor(spread_mm)
    from_surface = posterior(torch.from_numpy(believed), off_mm, spread).numpy()
    of_reading = (1 - _SURFACE_WRONG) * from_surface + _SURFACE_WRONG * believed
    probability, on_object = np.zeros(depth.shape, np.float32), np.zeros(depth.shape, bool)
    probability[v, u] = np.where(read > 0, of_reading, 0)
    on_object[v, u] = hit
    return DepthInliers(image=image, probability=probability, on_object=on_object, was_read=depth > 0)


def _priors(scene: Scene, index: int, camera: Camera, cam_from_world: Rigid) -> Float32[np.ndarray, "v u"]:
    """What the scene believed of each pixel's reading before there was a surface; 0 where it kept none.

    Its readings were made from the pixels' centres, so that each falls back into its own pixel.
    """
    priors = np.zeros((camera.height, camera.width), np.float32)
    if scene.readings is not None:
        of_image = scene.readings.frames == index
        in_world = scene.unit_from_world.inverse().apply(scene.readings.points[of_image].double())
        u, v = np.floor(camera.project(cam_from_world.apply(in_world)).numpy()).astype(np.int64).T
        priors[v, u] = scene.readings.inlier[of_image].numpy()
    return priors


def _window(camera: Camera, cam_from_world: Rigid, solid: Solid) -> Bool[np.ndarray, "v u"]:
    """Pixels in the rectangle around the mesh's bounding box; all of them if a part of it is not before the camera."""
    signs = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(-1, 3)
    corners = cam_from_world.apply(torch.from_numpy(solid.centre + signs * solid.half_size))
    window = np.zeros((camera.height, camera.width), bool)
    low, high = np.zeros(2, np.int64), np.array([camera.width, camera.height])
    if bool((corners[:, 2] > 1e-6).all()):
        pixels = camera.project(corners).numpy()
        low = np.clip(pixels.min(axis=0) - _WINDOW_PX, 0, high).astype(np.int64)
        high = np.clip(pixels.max(axis=0) + _WINDOW_PX + 1, 0, high).astype(np.int64)
    window[low[1] : high[1], low[0] : high[0]] = True
    return window


def _rays_in_unit(
    u: Int[np.ndarray, "pixels"],
    v: Int[np.ndarray, "pixels"],
    z: Float[np.ndarray, "pixels"],
    image: Image,
    capture: Capture,
    scene: Scene,
) -> DepthRays:
    """Rays through the pixels' centres, as far as to depth `z`."""
    n, camera = len(u), camera_of(capture, image)
    world_from_cam = capture.sensor_from_world(image).to(torch.float64).inverse()
    in_cam = camera.rays(torch.from_numpy(np.stack([u, v], axis=1) + 0.5))
    lengths = in_cam.norm(dim=1)
    origin = scene.unit_from_world.apply(world_from_cam.translation[None])
    return DepthRays(
        rays=Rays(
            origins=origin.expand(n, 3).float(), directions=world_from_cam.rotate(in_cam / lengths[:, None]).float()
        ),
        distances=(torch.from_numpy(z.astype(np.float64)) * lengths * scene.unit_from_world.scale).float(),
        inlier=torch.ones(n),
        world_from_cam=world_from_cam.rotation.float().expand(n, 3, 3),
        sensors=torch.full((n,), scene.sensor_names.index(image.sensor)),
        stops=torch.full((n,), scene.stop_names.index(image.frame)),
    )


def _off_surface(
    readings: DepthRays, kept: Bool[np.ndarray, "rays"], scene: Scene, solid: Solid
) -> tuple[Float[np.ndarray, "rays"], Bool[np.ndarray, "rays"]]:
    """How far each reading lies from the surface in world units, and whether its ray meets the mesh.

    Where it does not and the scene has not `kept` the reading, nobody asks how far: inf.
    """
    world_from_unit = scene.unit_from_world.inverse()
    directions = readings.rays.directions.double().numpy()
    origins = world_from_unit.apply(readings.rays.origins.double()).numpy()
    lengths = readings.distances.double().numpy() * world_from_unit.scale
    first, face = solid.first_face(origins, directions)
    hit = face >= 0
    off = np.full(len(face), np.inf)
    normals = np.asarray(solid.mesh.face_normals)[face[hit]]
    cosines = np.abs((normals * directions[hit]).sum(axis=1)).clip(_LEAST_COSINE)
    off[hit] = np.abs(lengths[hit] - first[hit]) * cosines
    past = kept & ~hit
    off[past] = solid.closest(origins[past] + directions[past] * lengths[past, None])[0]
    return off, hit
