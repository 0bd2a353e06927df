"""The layout of Middlebury's multi-view stereo sets: images and one text file of their projection matrices."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from ..errors import CalibrationError, CaptureError
from ..geometry import Camera, Rigid
from .entries import confined
from .findings import Findings
from .headers import decoding, image_size
from .types import Capture
from .views import View, sensors_of

_PATTERN = "*_par.txt"
_NUMBERS = 21


def middlebury_cameras(root: Path) -> Path | None:
    """The file of camera parameters, where a folder has one."""
    return next(iter(sorted(root.glob(_PATTERN))), None)


def read_middlebury(path: str | Path, *, allow_partial: bool = False) -> Capture:
    """A folder with ``NAME_par.txt`` and the images it names.

    The file's first line is the number of images, then one line each: name, K (9 numbers), R (9), t (3), all by rows,
    with the projection K [R | t] and pixel centres at integers. There are no masks. The layout states no unit; its
    sets (the dino is 87 mm high) are in metres, so `is_metric` is True. Images of equal K share a sensor.

    Raises:
        CalibrationError: the file is broken, or a line of it is no camera.
        CaptureError: images are missing or broken. With `allow_partial` those are listed in `left_out`.

    Example:
        >>> capture = read_middlebury("data/dinoSparseRing")  # doctest: +SKIP
    """
    root = Path(path)
    file = middlebury_cameras(root)
    if file is None:
        raise CalibrationError(f"{root}: no {_PATTERN} is there; restore it")
    findings = Findings(allow_partial)
    views = []
    for number, words in _lines(file):
        where = f"{file}: line {number}"
        image = confined(words[0], root, where)
        try:
            views.append(_view(image, words[1:], where))
        except CaptureError as error:
            findings.broken(error)
    sensors, frames, images = sensors_of(views, findings)
    if not images:
        raise CaptureError(f"{root}: nothing usable is left: {' | '.join(findings.lines)}")
    return Capture(
        name=file.name.removesuffix(_PATTERN[1:]),
        root=root,
        layout="middlebury",
        sensors=sensors,
        frames=frames,
        images=images,
        has_table=False,
        left_out=tuple(findings.lines),
    )


def _lines(file: Path) -> list[tuple[int, list[str]]]:
    """Numbered lines of the file, split into words, after the first, which counts them."""
    with decoding(file, "file of cameras"):
        lines = [(i, line.split()) for i, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)]
    (_, first), *rest = [line for line in lines if line[1]] or [(1, [])]
    if len(first) != 1 or first[0] != str(len(rest)):
        raise CalibrationError(
            f"{file}: the first line says {' '.join(first)!r} images, {len(rest)} lines follow; restore the file"
        )
    twice = sorted(name for name, n in Counter(words[0] for _, words in rest).items() if n > 1)
    if twice:
        raise CalibrationError(f"{file}: has more than one line for {', '.join(twice[:4])}; remove the others")
    return rest


def _view(image: Path, words: list[str], where: str) -> View:
    try:
        numbers = torch.tensor([float(w) for w in words], dtype=torch.float64)
    except ValueError as error:
        raise CalibrationError(f"{where}: {error}; want {_NUMBERS} numbers after the name") from error
    if len(numbers) != _NUMBERS:
        raise CalibrationError(f"{where}: {len(numbers)} numbers after the name, want {_NUMBERS}; restore the file")
    matrix, pose = numbers[:9].reshape(3, 3), torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[:3, 3] = numbers[9:18].reshape(3, 3), numbers[18:]
    if abs(float(matrix[0, 1])) > 1e-3 * abs(float(matrix[0, 0])):
        raise CalibrationError(f"{where}: K has skew, which cameras here do not have; rectify the images")
    size = image_size(image)
    try:
        camera, cam_from_world = Camera.from_opencv(matrix, *size), Rigid.from_matrix(pose)
    except CalibrationError as error:
        raise CalibrationError(f"{where}: {error}; correct it") from error
    return View(name=image.stem, camera=camera, cam_from_world=cam_from_world, color=image)
