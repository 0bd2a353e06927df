"""Where a COLMAP model, its images and its masks lie. No pycolmap here: this also tells whether a folder is one."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..errors import CalibrationError, CaptureError
from .findings import Findings, listed
from .types import Capture

SIDECAR = "neuralrecon.json"
MODEL_FILES = frozenset(
    [
        SIDECAR,
        *(f"{name}.{kind}" for name in ("cameras", "images", "points3D", "rigs", "frames") for kind in ("bin", "txt")),
    ]
)
_MODELS = ("sparse/0", "sparse", "colmap/sparse/0", ".")
_SUFFIXES = (".png", ".jpg", ".jpeg")


def model_folder(root: Path) -> Path | None:
    """The folder of the COLMAP model that belongs to a folder, if there is one."""
    return next((root / name for name in _MODELS if _is_model(root / name)), None)


def image_folder(root: Path, model: Path, names: list[str]) -> Path:
    """The folder that the model's image names are relative to: where most of them are.

    Raises:
        CalibrationError: the names lead elsewhere. CaptureError: none of the images is found.
    """
    outside = [n for n in names if PurePosixPath(n).is_absolute() or ".." in PurePosixPath(n).parts or "\\" in n]
    if outside:
        raise CalibrationError(f"{model}: names the image {outside[0]!r}, want a path inside of the image folder")
    bases = dict.fromkeys([root, model, *model.parents[:2]] if model.is_absolute() else [root, model, model.parent])
    candidates = [folder for base in bases for folder in (base / "images", base)]
    counts = [sum(_is_file(folder / name) for name in names) for folder in candidates]
    if not max(counts, default=0):
        raise CaptureError(
            f"{model}: none of its images ({listed(names)}) is in {root / 'images'} or {root}; restore the images"
        )
    return candidates[counts.index(max(counts))]


def _is_file(path: Path) -> bool:
    """Whether it is there; a name that is too long for any file is not."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def with_masks(capture: Capture, images: Path, findings: Findings) -> Capture:
    """The capture with the silhouettes of ``masks/``, beside the images' folder or in the capture's, where they are."""
    folder = next((f for f in (capture.root / "masks", images.parent / "masks") if f.is_dir()), None)
    if folder is None:
        return capture
    found = []
    for image in capture.images:
        name = image.path.relative_to(images)
        names = (f"{name}.png", str(name.with_suffix(".png")), str(name))
        found.append(replace(image, mask_path=next((m for n in names if _is_file(m := folder / n)), None)))
    missing = [i.path.name for i in found if i.mask_path is None]
    if missing:
        findings.absent(f"{folder}: no mask (NAME.jpg.png or NAME.png) for {listed(missing)}")
    return replace(capture, images=tuple(found))


def unposed(capture: Capture, images: Path) -> list[str]:
    """A line on the images that lie beside those that the model poses."""
    posed = {i.path for i in capture.images}
    suffixes = {*_SUFFIXES, *(p.suffix.lower() for p in posed)}
    folders = sorted({p.parent for p in posed if p.parent.is_dir()})
    there = sorted(p for f in folders for p in f.iterdir() if p.suffix.lower() in suffixes and p not in posed)
    if not there:
        return []
    return [f"{images}: {len(there)} images have no pose in the model: {listed(p.name for p in there)}"]


def _is_model(folder: Path) -> bool:
    return any(all((folder / f"{name}.{kind}").exists() for name in ("cameras", "images")) for kind in ("bin", "txt"))
