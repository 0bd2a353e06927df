"""Eyes: a camera where it stands, with what the fit's colours need to know of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from ..capture import Capture, Image, SensorKind, camera_of
from ..geometry import Box, Camera, Rays, Rigid
from ..scene import ColorRays
from ..scene.scene import lights_from_world
from ..train import Fit

_WINDOW_MARGIN = 0.08  # of the object's size in the picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Eye:
    """One camera in the world frame.

    `rig_from_world` is a rotation into the frame in which the lights stand still; `sensor` and `stop` count as in the
    capture. `is_taken`: the capture has an image from here, so that the fit's corrections of sensor and stop hold.
    """

    camera: Camera
    cam_from_world: Rigid
    rig_from_world: Float[Tensor, "3 3"]
    sensor: int
    stop: int
    is_taken: bool

    def rays(self, fit: Fit) -> ColorRays:
        """Rays through all pixels' centres, row by row, in the fit's unit frame and on its device."""
        camera, world_from_cam = self.camera, self.cam_from_world.to(torch.float64).inverse()
        v, u = torch.meshgrid(
            torch.arange(camera.height, dtype=torch.float64), torch.arange(camera.width, dtype=torch.float64),
            indexing="ij",
        )  # fmt: skip
        in_cam = camera.rays(torch.stack([u, v], dim=-1).reshape(-1, 2) + 0.5)
        directions = torch.nn.functional.normalize(world_from_cam.rotate(in_cam), dim=1).float()
        n = len(directions)
        origin = fit.unit_from_world.apply(world_from_cam.translation[None]).float()
        where = fit.device
        rays = ColorRays(
            rays=Rays(origins=origin.expand(n, 3).to(where), directions=directions.to(where)),
            colors=torch.zeros(n, 3, device=where),
            inside=torch.ones(n, dtype=torch.bool, device=where),
            rig_from_world=self.rig_from_world.float().to(where).expand(n, 3, 3),
            world_from_cam=world_from_cam.rotation.float().to(where).expand(n, 3, 3),
            sensors=torch.full((n,), self.sensor, device=where),
            stops=torch.full((n,), self.stop, device=where),
            images=torch.zeros(n, dtype=torch.int64, device=where),
        )
        return fit.model.sensors.corrected_color(rays) if self.is_taken else rays


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The part of a sensor's image, from pixel (u0, v0) on, that is seen `scale` times as large."""

    u0: int
    v0: int
    u1: int
    v1: int
    width: int
    height: int


def eye_of(capture: Capture, image: Image) -> Eye:
    """The camera that took an image of the capture, at the size of the pixels that are read."""
    frames = [frame.name for frame in capture.frames]
    return Eye(
        camera=camera_of(capture, image),
        cam_from_world=capture.sensor_from_world(image),
        rig_from_world=lights_from_world(capture.frame(image.frame)),
        sensor=[sensor.name for sensor in capture.sensors].index(image.sensor),
        stop=frames.index(image.frame),
        is_taken=True,
    )


def free_eye(camera: Camera, cam_from_world: Rigid, capture: Capture | None, fit: Fit) -> Eye:
    """A camera where none of the capture's stood: sensor and lights are those of the photograph most alike.

    Without a capture the lights are those of the fit's most alike view.
    """
    world_from_cam = cam_from_world.to(torch.float64).inverse()
    eye = Eye(
        camera=camera,
        cam_from_world=cam_from_world,
        rig_from_world=torch.eye(3),
        sensor=0,
        stop=0,
        is_taken=False,
    )
    taken = () if capture is None else capture.images_of(SensorKind.color)
    if capture is not None and taken:
        near = eye_of(capture, _nearest(capture, taken, world_from_cam.translation, _middle(fit)))
        return replace(eye, rig_from_world=near.rig_from_world, sensor=near.sensor, stop=near.stop)
    if len(fit.view_origins):
        middle = fit.unit_from_world.apply(_middle(fit)[None]).float()
        towards = torch.nn.functional.normalize(fit.view_origins.cpu() - middle, dim=1)
        wanted = fit.unit_from_world.apply(world_from_cam.translation[None]).float() - middle
        view = int((towards @ wanted[0]).argmax())
        return replace(eye, rig_from_world=fit.view_rig_from_world[view].cpu())
    return eye


def viewer_camera(fov_rad: float, aspect: float, longest_px: int) -> Camera:
    """A pinhole camera with this vertical field of view and ratio of width to height."""
    width = longest_px if aspect >= 1 else max(1, round(longest_px * aspect))
    height = max(1, round(longest_px / aspect)) if aspect >= 1 else longest_px
    f = height / 2 / math.tan(fov_rad / 2)
    return Camera(width=width, height=height, fx=f, fy=f, cx=width / 2, cy=height / 2)


def window_on(eye: Eye, box: Box, longest_px: int) -> Window:
    """The part of the image in which a box (world) lies, with a margin; all of it if a corner is behind the camera."""
    camera = eye.camera
    corners = torch.cartesian_prod(*torch.stack([box.low, box.high], dim=1).double().cpu().unbind(0))
    in_cam = eye.cam_from_world.to(torch.float64).apply(corners)
    low, high = np.zeros(2), np.array([camera.width, camera.height], dtype=np.float64)
    if bool((in_cam[:, 2] > 1e-6).all()):
        pixels = camera.project(in_cam).numpy()
        margin = _WINDOW_MARGIN * float(np.ptp(pixels, axis=0).max())
        low, high = np.clip(pixels.min(axis=0) - margin, 0, high), np.clip(pixels.max(axis=0) + margin, 0, high)
    if (high - low < 2).any():
        low, high = np.zeros(2), np.array([camera.width, camera.height], dtype=np.float64)
    (u0, v0), (u1, v1) = np.floor(low).astype(int).tolist(), np.ceil(high).astype(int).tolist()
    shrink = min(1.0, longest_px / max(u1 - u0, v1 - v0))
    width, height = max(1, round((u1 - u0) * shrink)), max(1, round((v1 - v0) * shrink))
    return Window(u0=u0, v0=v0, u1=u1, v1=v1, width=width, height=height)


def through(eye: Eye, window: Window) -> Eye:
    """The same eye with the window's pixels only."""
    c = eye.camera
    sx, sy = window.width / (window.u1 - window.u0), window.height / (window.v1 - window.v0)
    camera = Camera(
        width=window.width,
        height=window.height,
        fx=c.fx * sx,
        fy=c.fy * sy,
        cx=(c.cx - window.u0) * sx,
        cy=(c.cy - window.v0) * sy,
        distortion=c.distortion,
    )
    return replace(eye, camera=camera)


def pose_of(cam_from_world: Rigid) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "3"]]:
    """Rotation out of the camera's frame as a unit quaternion (w, x, y, z), and the camera's centre in world."""
    world_from_cam = cam_from_world.to(torch.float64).inverse()
    turn = Rotation.from_matrix(world_from_cam.rotation.numpy()).as_quat(scalar_first=True)
    return turn, world_from_cam.translation.numpy()


def rigid_of(wxyz: Float[np.ndarray, "4"], position: Float[np.ndarray, "3"]) -> Rigid:
    """cam_from_world of a camera with this rotation out of its frame, at this place: inverse of `pose_of`."""
    turn = Rotation.from_quat(np.asarray(wxyz, dtype=np.float64), scalar_first=True).as_matrix()
    place = np.asarray(position, dtype=np.float64)
    return Rigid(rotation=torch.from_numpy(turn.copy()), translation=torch.from_numpy(place.copy())).inverse()


def field_of_view(camera: Camera) -> tuple[float, float]:
    """Vertical field of view in radians, and width over height of a symmetric frustum as wide and high as the image.

    Distortion and the principal point's distance from the middle are not in it.
    """
    return 2 * math.atan(camera.height / 2 / camera.fy), (camera.width / camera.fx) / (camera.height / camera.fy)


def _middle(fit: Fit) -> Float[Tensor, "3"]:
    return ((fit.box.low + fit.box.high) / 2).double().cpu()


def _nearest(capture: Capture, images: tuple[Image, ...], center: Tensor, middle: Tensor) -> Image:
    """The image whose camera looks from the direction most alike."""
    wanted = torch.nn.functional.normalize(center - middle, dim=0)
    centers = torch.stack([capture.sensor_from_world(image).inverse().translation for image in images])
    towards = torch.nn.functional.normalize(centers.double() - middle, dim=1)
    return images[int((towards @ wanted).argmax())]
