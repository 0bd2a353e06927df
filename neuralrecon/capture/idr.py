"""The layout of IDR and NeuS: numbered images and masks, projection matrices in one npz. DTU comes this way."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import scipy.linalg
import torch

from ..errors import CalibrationError, CaptureError
from ..files import read_npz, replacing, write_npz
from ..geometry import Camera, Rigid
from .findings import Findings, listed
from .headers import decoding, image_size, opened_image
from .types import Capture, Frame, Image, Sensor, SensorKind
from .views import views_of, write_white_mask

_CAMERA_FILES = ("cameras_sphere.npz", "cameras.npz")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_MATRIX = re.compile(r"world_mat_(\d+)")
_SAME_INTRINSICS = 1e-4
_OFF_CENTRE = 0.15
_MAX_FRACTION = 8
_MAX_MATRIX_BYTES = 4096

Bounds = tuple[tuple[float, float, float], tuple[float, float, float]]


def idr_cameras(root: Path) -> Path | None:
    """The file of camera matrices, where a folder has one."""
    return next((root / name for name in _CAMERA_FILES if (root / name).exists()), None)


def read_idr(path: str | Path, *, allow_partial: bool = False) -> Capture:
    """A folder with ``image/``, ``mask/`` (object white) and ``cameras_sphere.npz`` or ``cameras.npz``.

    `world_mat_i` is K [R | t] (pixel centres at integers) of the i-th image by number. The world is kept as it is
    (millimetres on DTU, so `is_metric` is False); `bounds` is the box around the unit sphere of `scale_mat_0`.
    Every image is its own frame with the rig frame in its camera; images of equal intrinsics (1e-4 of the focal
    length) share a sensor, named ``camera0``, ``camera1``, ...

    The images may be smaller than those that the matrices are for: the layout states no size, so the principal point
    tells it. The fraction 1/n (n = 1 to 8) that brings it nearest to the middle is taken, and resampling follows the
    half-pixel rule of `Camera.resized`.

    Raises:
        CalibrationError: matrices are missing, unreadable, no projection, or fit no fraction of the image size.
        CaptureError: images are missing, broken or not one for each matrix, or no masks. With `allow_partial` what is
            broken is listed in `left_out`, and images go with the matrices of their own number.

    Example:
        >>> capture = read_idr("data/dtu_scan65")  # doctest: +SKIP
    """
    root = Path(path)
    findings = Findings(allow_partial)
    cameras_file = idr_cameras(root)
    if cameras_file is None:
        raise CalibrationError(f"{root}: neither {' nor '.join(_CAMERA_FILES)} is there; restore one")
    matrices = _read_npz(cameras_file)
    numbers = sorted(int(m[1]) for key in matrices if (m := _MATRIX.fullmatch(key)))
    if not numbers:
        raise CalibrationError(f"{cameras_file}: no key world_mat_0, ...; it has {sorted(matrices)[:8]}")
    files = _by_number(root / "image", numbers, findings)
    if not files:
        raise CaptureError(f"{root / 'image'}: no usable {'|'.join(_SUFFIXES)} file; restore the images")
    masks = _by_number(root / "mask", numbers, findings)
    sensors: list[Sensor] = []
    frames, images = [], []
    for number, file in files.items():
        try:
            size = image_size(file)
            camera, cam_from_world = _decomposed(matrices[f"world_mat_{number}"], f"{cameras_file}: world_mat_{number}")
            sensor = _shared_sensor(_fitted(camera, size, f"{cameras_file}: world_mat_{number}", file), sensors)
        except CaptureError as error:
            findings.broken(error)
            continue
        mask = _whole_mask(masks.get(number), size, findings)
        frames.append(Frame(name=file.stem, rig_from_world=cam_from_world))
        images.append(Image(sensor=sensor.name, frame=file.stem, path=file, mask_path=mask))
    if not images:
        raise CaptureError(f"{root}: nothing usable is left: {' | '.join(findings.lines)}")
    return Capture(
        name=root.resolve().name,
        root=root,
        layout="idr",
        sensors=tuple(sensors),
        frames=tuple(frames),
        images=tuple(images),
        has_table=False,
        is_metric=False,
        bounds=_sphere_bounds(matrices, cameras_file),
        left_out=tuple(findings.lines),
    )


def write_idr(capture: Capture, folder: str | Path) -> Path:
    """Writes photographs and masks as PNG and their matrices as ``cameras_sphere.npz``, which comes last.

    `scale_mat_i` is the sphere around `bounds`, of a cube the one inside, so that what `read_idr` read comes back.
    Without a mask for every photograph only a partial reading takes the folder.

    Raises:
        CaptureError: no bounds, depth (the layout has none), or photographs with lens distortion (likewise).

    Example:
        >>> write_idr(capture, "out/neus/mug")  # doctest: +SKIP
    """
    root, views = Path(folder), views_of(capture)
    if capture.bounds is None:
        raise CaptureError(f"{capture.root}: the capture has no bounds, which IDR's scale matrices need; set them")
    low, high = np.array(capture.bounds)
    sides = high - low
    is_cube = np.ptp(sides) < 1e-6 * sides.max()
    scale = np.diag([*[(sides.max() if is_cube else np.linalg.norm(sides)) / 2] * 3, 1.0])
    scale[:3, 3] = (low + high) / 2
    matrices = {}
    for number, view in enumerate(views):
        if view.depth or view.color is None or any(view.camera.distortion):
            raise CaptureError(
                f"{view.color}: IDR has neither depth nor lens distortion; leave depth out by capture.restricted and "
                "undistort the photographs"
            )
        with opened_image(view.color, "photograph") as image, replacing(root / "image" / f"{view.name}.png") as file:
            image.convert("RGB").save(file)
        if view.mask:
            write_white_mask(view, root / "mask" / f"{view.name}.png")
        world_mat = view.cam_from_world.matrix().numpy().copy()
        world_mat[:3] = view.camera.opencv_matrix().numpy() @ world_mat[:3]
        matrices |= {f"world_mat_{number}": world_mat, f"scale_mat_{number}": scale}
    write_npz(root / _CAMERA_FILES[0], **matrices)
    return root


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    def is_matrix(key: str) -> bool:
        return key.startswith(("world_mat_", "scale_mat_"))

    try:
        with decoding(file, "camera file"):
            return read_npz(file, is_matrix, most_bytes=_MAX_MATRIX_BYTES)
    except CaptureError as error:
        raise CalibrationError(str(error)) from error


def _by_number(folder: Path, numbers: list[int], findings: Findings) -> dict[int, Path]:
    """Files in the order of their names' numbers go with the matrices in order, as in NeuS.

    Where their counts differ that is broken; a partial capture then pairs equal numbers.
    """
    files = [p for p in folder.iterdir() if _is_image(p)] if folder.is_dir() else []
    files.sort(key=lambda p: (_last_number(p), p.name))
    if len(files) == len(numbers):
        return dict(zip(numbers, files, strict=True))
    findings.broken(
        CaptureError(
            f"{folder}: {len(files)} images ({'|'.join(_SUFFIXES)}) for {len(numbers)} world matrices; "
            "restore the missing ones or remove the extra ones"
        )
    )
    numbered = {_last_number(p): p for p in files}
    alone = [p.name for p in files if _last_number(p) not in numbers]
    if alone:
        findings.absent(f"{folder}: no world matrix for {listed(alone)}")
    return {n: numbered[n] for n in numbers if n in numbered}


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")


def _last_number(file: Path) -> int:
    digits = re.findall(r"\d+", file.stem)
    return int(digits[-1][-9:]) if digits else -1


def _decomposed(matrix: np.ndarray, where: str) -> tuple[np.ndarray, Rigid]:
    """K (3 x 3, pixel centres at integers) and cam_from_world of a projection matrix, by RQ decomposition."""
    if matrix.shape not in ((3, 4), (4, 4)) or matrix.dtype.kind != "f" or not np.isfinite(matrix).all():
        raise CalibrationError(f"{where} must be a finite 3 x 4 or 4 x 4 matrix, got {matrix.tolist()}")
    projection = matrix[:3].astype(np.float64)
    size = np.linalg.norm(projection[2, :3])
    if size < 1e-12 or abs(np.linalg.det(projection[:, :3])) < 1e-12 * np.abs(projection[:, :3]).max() ** 3:
        raise CalibrationError(f"{where} is no projection matrix (its 3 x 3 block is singular): {matrix.tolist()}")
    projection *= np.sign(np.linalg.det(projection[:, :3])) / size
    upper, rotation = scipy.linalg.rq(projection[:, :3])
    signs = np.sign(np.diag(upper))
    k, rotation = upper * signs, rotation * signs[:, None]
    translation = np.linalg.solve(k, projection[:, 3])
    if abs(k[0, 1]) > 1e-3 * k[0, 0]:
        raise CalibrationError(f"{where} has skew {k[0, 1]:.3g} px, which cameras here do not have; rectify the images")
    return k, Rigid(rotation=torch.from_numpy(rotation), translation=torch.from_numpy(translation))


def _fitted(k: np.ndarray, size: tuple[int, int], where: str, file: Path) -> Camera:
    """The camera at the images' own size: 1/n of the size that puts the principal point nearest to its middle."""
    centre = (k[:2, 2] + 0.5) / size
    n = min(range(1, _MAX_FRACTION + 1), key=lambda n: np.abs(centre / n - 0.5).max())
    if np.abs(centre / n - 0.5).max() > _OFF_CENTRE:
        raise CalibrationError(
            f"{where} has its principal point at ({k[0, 2]:.1f}, {k[1, 2]:.1f}) px, but {file} is "
            f"{size[0]} x {size[1]} px: no fraction 1/1 to 1/{_MAX_FRACTION} brings it to the middle; "
            "use the images that the matrices are for"
        )
    return Camera.from_opencv(torch.from_numpy(k), size[0] * n, size[1] * n).resized(*size)


def _shared_sensor(camera: Camera, sensors: list[Sensor]) -> Sensor:
    """The sensor that has this camera already, or a new one, added to `sensors`."""
    for sensor in sensors:
        known = sensor.camera
        off = max(abs(getattr(known, name) - getattr(camera, name)) for name in ("fx", "fy", "cx", "cy"))
        if (known.width, known.height) == (camera.width, camera.height) and off < _SAME_INTRINSICS * known.fx:
            return sensor
    name = f"camera{len(sensors)}"
    sensors.append(Sensor(name=name, kind=SensorKind.color, camera=camera, sensor_from_rig=Rigid.identity()))
    return sensors[-1]


def _whole_mask(mask: Path | None, size: tuple[int, int], findings: Findings) -> Path | None:
    if mask is None:
        return None
    try:
        got = image_size(mask, "mask")
        if got == size:
            return mask
        error = CaptureError(f"{mask}: mask is {got[0]} x {got[1]} px, its image {size[0]} x {size[1]}; make it so")
    except CaptureError as broken:
        error = broken
    findings.broken(error)
    return None


def _sphere_bounds(matrices: dict[str, np.ndarray], file: Path) -> Bounds | None:
    """The box around the image of the unit sphere under `scale_mat_0` (the same for all views in this layout)."""
    key = next((k for k in sorted(matrices) if k.startswith("scale_mat_")), None)
    if key is None:
        return None
    matrix = matrices[key].astype(np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or np.linalg.det(matrix[:3, :3]) <= 0:
        raise CalibrationError(f"{file}: {key} must be a 4 x 4 scaling, got {matrix.tolist()}; restore the file")
    reach = np.linalg.norm(matrix[:3, :3], axis=1)
    low, high = matrix[:3, 3] - reach, matrix[:3, 3] + reach
    return (float(low[0]), float(low[1]), float(low[2])), (float(high[0]), float(high[1]), float(high[2]))
