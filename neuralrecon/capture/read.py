"""One door for all layouts."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from ..errors import CalibrationError, CaptureError
from .bigbird import looks_like_bigbird, read_bigbird
from .bop import looks_like_bop, read_bop
from .colmap_folders import model_folder
from .findings import listed
from .idr import idr_cameras, read_idr
from .middlebury import middlebury_cameras, read_middlebury
from .plain import CAPTURE_FILE, read_plain
from .transforms import read_transforms, transforms_file
from .types import Capture

_PHOTOS = (".jpg", ".jpeg", ".png")
_VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
_NO_PHOTOS = ("mask", "masks", "depth")


def read_capture(path: str | Path, *, allow_partial: bool = False) -> Capture:
    """A capture folder of any known layout; which one it took is in `Capture.layout`.

    Looked for in this order: ``capture.json`` (plain), ``calibration.h5`` or BigBIRD's file names,
    ``cameras_sphere.npz`` or ``cameras.npz`` (IDR/NeuS), ``transforms.json`` (nerfstudio, instant-ngp),
    ``scene_camera.json`` with ``scene_gt.json`` (BOP), a COLMAP model, ``*_par.txt`` (Middlebury). What is merely
    absent is listed in `left_out`; with `allow_partial` what is broken is, too.

    Raises:
        CaptureError: no such folder, no known layout, or something in it is broken.
        CalibrationError: (a CaptureError) intrinsics or poses are, or there are only photographs or a video.

    Example:
        >>> capture = read_capture("data/bigbird/cheez_it_white_cheddar")  # doctest: +SKIP
        >>> capture.layout, len(capture.images)  # doctest: +SKIP
        ('bigbird', 1800)
    """
    root = Path(path)
    if root.is_dir():
        reader = next((read for is_it, read in _LAYOUTS if is_it(root)), None)
        if reader:
            return reader(root, allow_partial)
    if looks_like_photos(root):
        raise CalibrationError(
            f"{root}: has photographs or a video but no calibration of a known layout; calibrate them first: "
            f"python -m neuralrecon.calibrate capture={root}"
        )
    if not root.is_dir():
        raise CaptureError(_no_folder(root))
    names = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))
    raise CaptureError(
        f"{root}: no capture of a known layout: looked for {CAPTURE_FILE} (plain), calibration.h5 or N1_0.jpg "
        "(BigBIRD, YCB), cameras_sphere.npz or cameras.npz (IDR, NeuS), transforms.json (nerfstudio, instant-ngp), "
        "scene_camera.json and scene_gt.json (BOP), sparse/0/cameras.bin (COLMAP), *_par.txt (Middlebury) and "
        f"photographs; the folder has {listed(names) or 'nothing in it'}; give the folder of one object"
    )


def has_known_layout(path: str | Path) -> bool:
    """Whether `read_capture` knows a reader for the folder, be its calibration whole or not."""
    root = Path(path)
    return root.is_dir() and any(is_it(root) for is_it, _ in _LAYOUTS)


def looks_like_photos(path: str | Path) -> bool:
    """Photographs or a video, whether calibrated or not.

    That is a folder with photographs (one camera), with folders of photographs (one for each camera; those of masks
    and depth do not count) or with a video, or a video file itself.
    """
    root = Path(path)
    if root.is_file():
        return root.suffix.lower() in _VIDEOS
    if not root.is_dir():
        return False
    folders = [d for d in root.iterdir() if d.is_dir() and d.name not in _NO_PHOTOS and not d.name.startswith(".")]
    return _has(root, (*_PHOTOS, *_VIDEOS)) or any(_has(folder, _PHOTOS) for folder in folders)


def _has(folder: Path, suffixes: tuple[str, ...]) -> bool:
    return any(p.suffix.lower() in suffixes and not p.name.startswith(".") and p.is_file() for p in folder.iterdir())


def _read_colmap(root: Path, allow_partial: bool) -> Capture:
    # pycolmap takes a while to load, and only this layout needs it.
    from .colmap import read_colmap

    return read_colmap(root, allow_partial=allow_partial)


_LAYOUTS: tuple[tuple[Callable[[Path], object], Callable[[Path, bool], Capture]], ...] = (
    (lambda root: (root / CAPTURE_FILE).exists(), lambda root, partial: read_plain(root, allow_partial=partial)),
    (looks_like_bigbird, lambda root, partial: read_bigbird(root, allow_partial=partial)),
    (idr_cameras, lambda root, partial: read_idr(root, allow_partial=partial)),
    (transforms_file, lambda root, partial: read_transforms(root, allow_partial=partial)),
    (looks_like_bop, lambda root, partial: read_bop(root, allow_partial=partial)),
    (model_folder, _read_colmap),
    (middlebury_cameras, lambda root, partial: read_middlebury(root, allow_partial=partial)),
)


def _no_folder(path: Path) -> str:
    if path.exists():
        return f"{path}: is a file, want the folder that holds the capture; give {path.parent}"
    parent = next(p for p in path.absolute().parents if p.is_dir())
    if parent != path.absolute().parent:
        return f"{path}: no such folder; the nearest that exists is {parent}; check the path"
    siblings = sorted(p.name for p in parent.iterdir() if p.is_dir())
    near = get_close_matches(path.name, siblings, n=3, cutoff=0.4)
    return f"{path}: no such folder; {parent} has {listed(near or siblings) or 'no folders'}; check the name"
