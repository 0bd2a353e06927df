"""The BigBIRD and YCB layout: five DSLRs and five RGB-D cameras around a turntable, one folder an object."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..errors import CalibrationError, CaptureError
from ..geometry import Camera, Rigid
from .bigbird_poses import read_frames
from .findings import Findings, listed
from .hdf5 import read_small_arrays
from .headers import decoding, depth_size, image_size
from .types import Capture, Frame, Image, Sensor, SensorKind

_STOP = r"(?P<stop>\d+(?:\.\d+)?)"
_IMAGE = re.compile(rf"(?P<sensor>NP?[1-5])_{_STOP}\.jpg")
_DEPTH = re.compile(rf"(?P<sensor>NP[1-5])_{_STOP}\.h5")
_MASK = re.compile(rf"(?P<sensor>NP?[1-5])_{_STOP}_mask\.pbm")
_COLOR_SENSORS = tuple(f"{kind}{i}" for kind in ("N", "NP") for i in range(1, 6))
_SENSORS = _COLOR_SENSORS + tuple(f"NP{i}_depth" for i in range(1, 6))
_METRES_PER_RAW = 1e-4
_OFF_CENTRE = 0.15

Files = dict[str, dict[str, Path]]
"""Sensor -> stop -> file."""


def looks_like_bigbird(root: Path) -> bool:
    """Whether a folder has BigBIRD's calibration or file names."""
    return (root / "calibration.h5").exists() or any(_IMAGE.fullmatch(p.name) for p in root.iterdir())


def read_bigbird(path: str | Path, *, allow_partial: bool = False) -> Capture:
    """One object in BigBIRD's layout. Every file is looked at (size, wholeness), none is decoded.

    Sensors are ``N1..N5``, ``NP1..NP5`` and ``NP1_depth..NP5_depth``; the rig frame is that of NP5's colour camera,
    the world is the table (z up, metres), one frame a stop. Image sizes are those of the files, which the intrinsics
    must fit. Depth images have no masks of their own. Sensors, stops, masks that are absent are listed in `left_out`.

    Raises:
        CalibrationError: intrinsics or poses are missing, unreadable, or contradict the images or each other.
        CaptureError: an image, depth or mask file is broken, or there is none. With `allow_partial` what is broken
            is listed in `left_out`, and only a capture without anything usable raises.

    Example:
        >>> capture = read_bigbird("data/bigbird/cheez_it_white_cheddar")  # doctest: +SKIP
    """
    root = Path(path)
    findings = Findings(allow_partial)
    files = _image_files(root)
    if not files:
        raise CaptureError(f"{root}: no image named like N1_0.jpg, NP1_0.jpg or NP1_0.h5; unpack the capture here")
    calibration = read_small_arrays(root / "calibration.h5", "calibration file")
    sensors, usable = [], {}
    for name in (s for s in _SENSORS if s in files):
        size, whole = _whole_files(files[name], depth_size if name.endswith("_depth") else image_size, findings)
        try:
            sensor = _sensor(name, size, calibration, root / "calibration.h5") if whole else None
        except CalibrationError as error:
            findings.broken(error)
            continue
        if sensor:
            sensors.append(sensor)
            usable[name] = whole
    stops = {stop for by_stop in usable.values() for stop in by_stop}
    frames = read_frames(root / "poses", stops, findings)
    sensors, images = _images(root, sensors, frames, usable, findings)
    if not images:
        raise CaptureError(f"{root}: nothing usable is left: {' | '.join(findings.lines)}")
    _tell_gaps(sensors, frames, images, findings)
    return Capture(
        name=root.resolve().name,
        root=root,
        layout="bigbird",
        sensors=tuple(sensors),
        frames=tuple(frames),
        images=tuple(images),
        left_out=tuple(findings.lines),
    )


def _image_files(root: Path) -> Files:
    """Files by the names of the layout; all others (archives' `._*` junk among them) are none of ours."""
    files: Files = {}
    with decoding(root, "capture folder"):
        for entry in root.iterdir():
            if match := _IMAGE.fullmatch(entry.name):
                files.setdefault(match["sensor"], {})[match["stop"]] = entry
            elif match := _DEPTH.fullmatch(entry.name):
                files.setdefault(f"{match['sensor']}_depth", {})[match["stop"]] = entry
    return files


def _whole_files(
    files: dict[str, Path], size_of: Callable[[Path], tuple[int, int]], findings: Findings
) -> tuple[tuple[int, int], dict[str, Path]]:
    """The size that most files of one sensor have, and the whole files of that size."""
    sizes = {}
    for stop, file in sorted(files.items(), key=lambda item: float(item[0])):
        try:
            sizes[stop] = size_of(file)
        except CaptureError as error:
            findings.broken(error)
    if not sizes:
        return (0, 0), {}
    usual = Counter(sizes.values()).most_common(1)[0][0]
    for stop, size in sizes.items():
        if size != usual:
            findings.broken(
                CaptureError(
                    f"{files[stop]}: {size[0]} x {size[1]} px, want {usual[0]} x {usual[1]} like the sensor's other "
                    "images; restore the original file"
                )
            )
    return usual, {stop: files[stop] for stop, size in sizes.items() if size == usual}


def _sensor(name: str, size: tuple[int, int], calibration: dict[str, np.ndarray], file: Path) -> Sensor:
    is_depth = name.endswith("_depth")
    body = name.removesuffix("_depth")

    def entry(key: str, n: int) -> np.ndarray:
        if key not in calibration:
            raise CalibrationError(f"{file}: no key {key}, which sensor {name} needs; restore the session's own file")
        values = calibration[key]
        if values.size != n or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise CalibrationError(f"{file}: {key} must be {n} finite numbers, got {values.tolist()}; calibrate again")
        return values.astype(np.float64)

    matrix_key = f"{body}_depth_K" if is_depth else f"{body}_rgb_K"
    distortion = (0.0,) * 5 if is_depth else tuple(entry(f"{body}_rgb_d", 5).ravel().tolist())
    camera = _camera(entry(matrix_key, 9), size, distortion, f"{file}: {matrix_key}")
    pose_key = f"H_{body}_ir_from_NP5" if is_depth else f"H_{body}_from_NP5"
    try:
        sensor_from_rig = Rigid.from_matrix(torch.from_numpy(entry(pose_key, 16).reshape(4, 4)))
    except CalibrationError as error:
        raise error if str(file) in str(error) else CalibrationError(f"{file}: {pose_key}: {error}") from None
    scale = None
    if is_depth:
        scale = float(entry(f"{body}_ir_depth_scale", 1).item())
        if not 0.5 < scale < 2:
            raise CalibrationError(f"{file}: {body}_ir_depth_scale is {scale}, want a factor near 1; calibrate again")
    return Sensor(
        name=name,
        kind=SensorKind.depth if is_depth else SensorKind.color,
        camera=camera,
        sensor_from_rig=sensor_from_rig,
        metres_per_unit=None if scale is None else _METRES_PER_RAW * scale,
    )


def _camera(matrix: np.ndarray, size: tuple[int, int], distortion: tuple[float, ...], where: str) -> Camera:
    """Intrinsics that fit the files: a principal point far from the middle means another image size."""
    k = matrix.reshape(3, 3)
    if abs(k[2] - (0, 0, 1)).max() > 1e-9 or abs(k[1, 0]) > 1e-9 or abs(k[0, 1]) > 1e-3 * abs(k[0, 0]):
        raise CalibrationError(
            f"{where} is {k.tolist()}, want [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] (row-major, no skew); "
            "check whether it was stored transposed"
        )
    width, height = size
    if max(abs(k[0, 2] / width - 0.5), abs(k[1, 2] / height - 0.5)) > _OFF_CENTRE:
        raise CalibrationError(
            f"{where} has its principal point at ({k[0, 2]:.1f}, {k[1, 2]:.1f}) px, far from the middle of the "
            f"{width} x {height} px images: they are of another size than the calibration; "
            "use the images at their original size, or scale the matrix with them"
        )
    k1, k2, p1, p2, k3 = distortion
    try:
        return Camera.from_opencv(torch.from_numpy(k), width, height, (k1, k2, p1, p2, k3))
    except CalibrationError as error:
        raise CalibrationError(f"{where}: {error}; calibrate again") from error


def _images(
    root: Path, sensors: list[Sensor], frames: list[Frame], files: Files, findings: Findings
) -> tuple[list[Sensor], list[Image]]:
    """Images at posed stops with their masks, and the sensors that have any."""
    masks = _mask_files(root / "masks", sensors, files, findings)
    images = []
    for sensor in sensors:
        for frame in frames:
            if file := files[sensor.name].get(frame.name):
                mask = masks.get(sensor.name, {}).get(frame.name)
                images.append(
                    Image(
                        sensor=sensor.name,
                        frame=frame.name,
                        path=file,
                        mask_path=mask,
                        object_is_black=mask is not None,
                    )
                )
    used = {image.sensor for image in images}
    return [s for s in sensors if s.name in used], images


def _mask_files(folder: Path, sensors: list[Sensor], files: Files, findings: Findings) -> Files:
    """Whole masks of their image's size. No mask at all is broken, a few absent ones are not."""
    found: Files = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        if match := _MASK.fullmatch(entry.name):
            found.setdefault(match["sensor"], {})[match["stop"]] = entry
    if not found:
        findings.broken(
            CaptureError(
                f"{folder}: no mask named like N1_0_mask.pbm, and the object cannot be told from its surroundings; "
                "unpack the masks"
            )
        )
    without_image = [f.name for s, by_stop in found.items() for t, f in by_stop.items() if t not in files.get(s, {})]
    if without_image:
        findings.absent(f"{folder}: {len(without_image)} masks without a usable image: {listed(sorted(without_image))}")
    masks: Files = {}
    for sensor in (s for s in sensors if s.kind == SensorKind.color):
        size = (sensor.camera.width, sensor.camera.height)
        by_stop = found.get(sensor.name, {})
        masks[sensor.name] = {t: f for t, f in by_stop.items() if t in files[sensor.name] and _fits(f, size, findings)}
        absent = [t for t in files[sensor.name] if t not in by_stop]
        if absent and found:
            findings.absent(
                f"{sensor.name}: {len(absent)} of {len(files[sensor.name])} images have no mask: stops {listed(absent)}"
            )
    return masks


def _fits(mask: Path, size: tuple[int, int], findings: Findings) -> bool:
    try:
        got = image_size(mask, "mask")
        if got == size:
            return True
        error = CaptureError(
            f"{mask}: mask is {got[0]} x {got[1]} px, its image {size[0]} x {size[1]}; make the mask at the image's "
            "size"
        )
    except CaptureError as broken:
        error = broken
    findings.broken(error)
    return False


def _tell_gaps(sensors: list[Sensor], frames: list[Frame], images: list[Image], findings: Findings) -> None:
    """What a full capture would have: fifteen sensors, every one at every stop."""
    present = {s.name for s in sensors}
    absent = [name for name in _SENSORS if name not in present]
    if absent:
        findings.absent(f"no images of {len(absent)} of {len(_SENSORS)} sensors: {', '.join(absent)}")
    taken = {(image.sensor, image.frame) for image in images}
    for sensor in sensors:
        gaps = [f.name for f in frames if (sensor.name, f.name) not in taken]
        if gaps:
            findings.absent(f"{sensor.name}: no image at {len(gaps)} of {len(frames)} stops: {listed(gaps)}")
