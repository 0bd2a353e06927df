"""Depth maps of photographs by COLMAP's PatchMatch (Schönberger et al. 2016), as depth images beside the sensors' own.

PatchMatch runs on CUDA only; everything around it runs anywhere. What it finds on shiny or clear parts is as wrong as
what a depth sensor reads there, and is to be weighed like it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap
import torch
from jaxtyping import Bool, Float32
from PIL import Image as PILImage

from ..capture import Capture, Image, Sensor, SensorKind
from ..capture.colmap import write_colmap
from ..capture.description import relative
from ..capture.headers import decoding
from ..capture.pixels import camera_of, read_mask
from ..errors import CalibrationError, CaptureError, ConfigError
from ..geometry import Camera
from .checks import looked_at
from .features import n_threads, quiet_colmap
from .pairs import pairs_by_rig

SUFFIX = "_stereo"
_NEAR, _FAR = 0.5, 1.5  # of the cameras' distances from what they look at
_STEPS = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchMatchConfig:
    """How depth is sought.

    Attributes:
        longest_side: photographs longer than this are made smaller.
        n_partners: photographs that each is compared with, up to 40 degrees aside.
        least_consistent: photographs that must agree on a depth, within 1 px, for it to be kept.
        least_correlation: normalised cross-correlation below which a depth is dropped.
    """

    longest_side: int = 1600
    n_partners: int = 10
    least_consistent: int = 2
    least_correlation: float = 0.3

    def __post_init__(self) -> None:
        if min(self.longest_side, self.n_partners, self.least_consistent) < 1:
            raise ConfigError("longest_side, n_partners and least_consistent must be 1 or more")
        if not -1 <= self.least_correlation < 1:
            raise ConfigError(f"least_correlation must be -1 to 1, got {self.least_correlation}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A folder as PatchMatch wants it, with undistorted photographs, for a capture; lengths are the world's.

    `photographs` are those that have partners to be compared with, `cameras` theirs, without distortion. `near` and
    `far` are the depths between which is sought.
    """

    capture: Capture
    folder: Path
    photographs: tuple[Image, ...]
    cameras: tuple[Camera, ...]
    near: float
    far: float

    def depth_path(self, image: Image) -> Path:
        """Where PatchMatch leaves the depth map of a photograph."""
        return self.folder / "stereo" / "depth_maps" / f"{relative(image.path, self.capture.root)}.geometric.bin"


def stereo_depth(capture: Capture, folder: Path, config: PatchMatchConfig | None = None) -> Capture:
    """The calibrated capture with a depth map for every photograph, by PatchMatch, as images of further depth sensors.

    They are called as their photograph's sensor with ``_stereo`` behind it, and kept in ``folder/depth``. On a GPU the
    same input does not give the same depth bit for bit.

    Raises:
        ConfigError: pycolmap is built without CUDA.
        CaptureError: no photographs, or one that COLMAP cannot read.
        CalibrationError: PatchMatch failed, or left no depth map.

    Example:
        >>> with_stereo = stereo_depth(capture, Path("stereo"))  # doctest: +SKIP
    """
    config = config or PatchMatchConfig()
    require_cuda()
    space = prepare(capture, folder / "work", config)
    options = pycolmap.PatchMatchOptions()
    options.depth_min, options.depth_max = space.near, space.far
    options.geom_consistency, options.filter = True, True
    options.filter_min_num_consistent, options.filter_min_ncc = config.least_consistent, config.least_correlation
    options.num_threads = n_threads()
    try:
        with quiet_colmap():
            pycolmap.patch_match_stereo(space.folder, options=options)
    except RuntimeError as error:
        raise CalibrationError(
            f"{space.folder}: PatchMatch failed ({error}); look at nvidia-smi and the GPU's memory"
        ) from error
    return with_depth_maps(space, folder / "depth")


def require_cuda() -> None:
    """Raises:
    ConfigError: pycolmap is built without CUDA.
    """
    if not pycolmap.has_cuda:
        raise ConfigError(
            f"stereo depth: pycolmap {pycolmap.__version__} is built without CUDA, wanted one with it; install "
            "pycolmap-cuda12 in its place on a machine with an NVIDIA GPU, or do without stereo depth"
        )


def prepare(capture: Capture, folder: Path, config: PatchMatchConfig) -> Workspace:
    """Undistorts the photographs into a workspace for PatchMatch with the capture's poses; replaces an older one.

    Raises:
        CaptureError: no photographs, or one that COLMAP cannot read.
    """
    images = capture.images_of(SensorKind.color)
    if len(images) < 2:
        raise CaptureError(f"{capture.root}: {len(images)} photographs, want 2 or more to compare")
    shutil.rmtree(folder, ignore_errors=True)
    used = {image.sensor for image in images}
    photographs = replace(capture, images=images, sensors=tuple(s for s in capture.sensors if s.name in used))
    model = write_colmap(photographs, folder / "given")
    names = [relative(image.path, capture.root) for image in images]
    cameras = _undistorted(model, folder, capture.root, config.longest_side)
    for name, image in zip(names, images, strict=True):
        if not (folder / "images" / name).exists():
            raise CaptureError(f"{image.path}: COLMAP could not read this photograph; convert it to JPEG or PNG")
    poses = np.stack([capture.sensor_from_world(image).matrix().numpy() for image in images])
    middle, _ = looked_at(poses)
    centers = -(poses[:, :3, :3].swapaxes(1, 2) @ poses[:, :3, 3:])[..., 0]
    pairs = pairs_by_rig(centers, middle, config.n_partners)
    _write_partners(folder / "stereo" / "patch-match.cfg", names, pairs)
    compared = sorted(set(pairs.ravel().tolist()))
    distances = np.linalg.norm(centers - middle, axis=1)
    return Workspace(
        capture=replace(capture, left_out=(*capture.left_out, *_alone(images, compared))),
        folder=folder,
        photographs=tuple(images[i] for i in compared),
        cameras=tuple(cameras[names[i]] for i in compared),
        near=_NEAR * float(distances.min()),
        far=_FAR * float(distances.max()),
    )


def with_depth_maps(space: Workspace, folder: Path) -> Capture:
    """The workspace's capture with its depth maps as 16-bit PNG files in `folder`; outside of the masks they are empty.

    Raises:
        CalibrationError: a photograph has no depth map, or it is broken or of another size.
    """
    capture, sensors, images = space.capture, {}, []
    metres_per_unit = space.far / _STEPS
    for image, camera in zip(space.photographs, space.cameras, strict=True):
        own = capture.sensor(image.sensor)
        depth = read_depth_map(space.depth_path(image))
        if depth.shape != (camera.height, camera.width):
            raise CalibrationError(
                f"{space.depth_path(image)}: {depth.shape[1]} x {depth.shape[0]} px, want {camera.width} x "
                f"{camera.height} as its photograph; delete {space.folder} and start again"
            )
        keep = (depth >= space.near) & (depth <= space.far)
        if image.mask_path is not None:
            keep &= _mask_seen_by(camera, read_mask(capture, image), camera_of(capture, image))
        raw = np.where(keep, np.round(depth / metres_per_unit), 0).astype(np.uint16)
        path = folder / f"{relative(image.path, capture.root)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(raw).save(path)
        name = own.name + SUFFIX
        sensors[name] = Sensor(
            name=name,
            kind=SensorKind.depth,
            camera=camera,
            sensor_from_rig=own.sensor_from_rig,
            metres_per_unit=metres_per_unit,
        )
        images.append(Image(sensor=name, frame=image.frame, path=path))
    return replace(capture, sensors=(*capture.sensors, *sensors.values()), images=(*capture.images, *images))


def read_depth_map(path: Path) -> Float32[np.ndarray, "v u"]:
    """COLMAP's depth map: depth along the axis in the world's unit, 0 where none was found.

    Raises:
        CalibrationError: missing or broken.
    """
    if not path.exists():
        raise CalibrationError(f"{path}: no depth map; PatchMatch did not come to this photograph, run it again")
    with path.open("rb") as file:
        fields = file.read(64).split(b"&", 3)
    n_head = sum(len(field) + 1 for field in fields[:3])
    if len(fields) != 4 or not all(field.isdigit() for field in fields[:3]):
        raise CalibrationError(
            f"{path}: no depth map of COLMAP's, want width&height&1& and numbers; run PatchMatch again"
        )
    width, height, channels = (int(field) for field in fields[:3])
    want = n_head + 4 * width * height * channels
    if channels != 1 or path.stat().st_size != want:
        raise CalibrationError(
            f"{path}: {path.stat().st_size} bytes, want {want} for {width} x {height} px; run PatchMatch again"
        )
    depth = pycolmap.DepthMap()
    with quiet_colmap(), decoding(path, "depth map"):
        depth.read(path)
    return depth.to_array()


def _undistorted(model: Path, folder: Path, root: Path, longest_side: int) -> dict[str, Camera]:
    """Cameras of the photographs as they are then, by name."""
    options = pycolmap.UndistortCameraOptions()
    options.max_image_size = longest_side
    with quiet_colmap():
        pycolmap.undistort_images(folder, model, root, undistort_options=options, num_threads=n_threads())
        undistorted = pycolmap.Reconstruction(folder / "sparse")  # its cameras must not outlive it
    return {image.name: _pinhole(image.camera) for image in undistorted.images.values()}


def _alone(images: Sequence[Image], compared: Sequence[int]) -> list[str]:
    return [f"{x.path}: no stereo depth, no photograph is near" for i, x in enumerate(images) if i not in compared]


def _write_partners(path: Path, names: Sequence[str], pairs: np.ndarray) -> None:
    """Each photograph and, below it, those it is compared with. One that has none is left out."""
    partners: dict[int, list[int]] = {}
    for i, j in pairs.tolist():
        partners.setdefault(i, []).append(j)
        partners.setdefault(j, []).append(i)
    lines = [f"{names[i]}\n{', '.join(names[j] for j in sorted(partners[i]))}\n" for i in sorted(partners)]
    path.write_text("".join(lines), encoding="utf-8")


def _pinhole(camera: pycolmap.Camera) -> Camera:
    return Camera(
        width=camera.width,
        height=camera.height,
        fx=camera.focal_length_x,
        fy=camera.focal_length_y,
        cx=camera.principal_point_x,
        cy=camera.principal_point_y,
    )


def _mask_seen_by(camera: Camera, mask: Bool[np.ndarray, "v u"], of_mask: Camera) -> Bool[np.ndarray, "v u"]:
    """The mask in another camera with the same place and axes; outside of its image there is nothing."""
    v, u = np.mgrid[: camera.height, : camera.width]
    pixels = torch.from_numpy(np.stack([u, v], axis=-1).reshape(-1, 2) + 0.5)
    at = of_mask.project(camera.rays(pixels)).floor().long().numpy()
    within = ((at >= 0) & (at < (of_mask.width, of_mask.height))).all(axis=1)
    out = np.zeros(len(at), dtype=bool)
    out[within] = mask[at[within, 1], at[within, 0]]
    return out.reshape(v.shape)
