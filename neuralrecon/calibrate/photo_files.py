"""Which photographs there are, which camera took each, and at which stop: folders and names, no calibration."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..capture.findings import listed
from ..capture.headers import image_size, opened_image
from ..errors import CaptureError

_SUFFIXES = (".jpg", ".jpeg", ".png")
_MASKS = "masks"
_CAMERA_AND_STOP = re.compile(r"(?P<camera>.*[A-Za-z]\d*)_(?P<stop>\d+(?:\.\d+)?)")
_EXIF = 0x8769
_MODEL, _FOCAL_MM, _FOCAL_35_MM = 0x0110, 0x920A, 0xA405


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One photograph: `name` is its path below the photos' root, with slashes.

    `camera` is what stood in one place or was carried around (a folder or the beginning of the name, "" for the only
    one), `stop` what photographs taken together share, and `sensor` the camera with one size and focal length.
    """

    name: str
    path: Path
    camera: str
    stop: str
    sensor: str
    size: tuple[int, int]
    mask_path: Path | None = None
    object_is_black: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoSet:
    """Photographs by sensor, then in the order of their stops' numbers.

    `is_rig` says that several cameras took every stop together.
    """

    root: Path
    photos: tuple[Photo, ...]
    is_rig: bool
    findings: tuple[str, ...]

    @property
    def sensors(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(p.sensor for p in self.photos))

    @property
    def stops(self) -> tuple[str, ...]:
        return tuple(sorted({p.stop for p in self.photos}, key=in_order))


def list_photos(root: Path, *, rig: bool | None = None, masks: str = "", object_is_black: bool = False) -> PhotoSet:
    """The JPEG and PNG files of a folder, or of its subfolders (one camera each).

    Files named ``camera_number`` (N1_0.jpg, N2_0.jpg, ...) in one folder are of several cameras if two or more of
    them share most of their numbers. Cameras whose stops are named alike are taken for a rig (`rig` overrides).
    Masks are ``masks/{name}`` or ``masks/{name}_mask`` with any image suffix, in the folder or beside the photographs.

    Raises:
        CaptureError: no such folder, fewer than three photographs, one that cannot be read, or a rig that is none.
    """
    if not root.is_dir():
        raise CaptureError(f"{root}: no such folder; give the folder of the photographs, or a video file")
    files = _image_files(root)
    if len(files) < 3:
        raise CaptureError(
            f"{root}: {len(files)} photographs ({'|'.join(_SUFFIXES)}) in the folder or its subfolders, want 3 or more"
        )
    named = _cameras_and_stops(root, files)
    mask_root = Path(masks) if masks else root / _MASKS
    photos = [replace(_photo(root, f, *named[f], mask_root), object_is_black=object_is_black) for f in files]
    photos.sort(key=lambda p: (in_order(p.sensor), in_order(p.stop)))
    is_rig, line = _is_rig(root, photos, rig)
    n_masks = sum(p.mask_path is not None for p in photos)
    lines = [line] if line else []
    if n_masks:
        lines.append(f"{n_masks} of {len(photos)} photographs have a mask")
    return PhotoSet(root=root, photos=tuple(photos), is_rig=is_rig, findings=tuple(lines))


def in_order(name: str) -> tuple[tuple[int, float, str], ...]:
    """Sort key by which 2 comes before 10."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", name)
    return tuple((0, float(p), "") if p[0].isdigit() else (1, 0.0, p) for p in parts)


def _image_files(root: Path) -> list[Path]:
    def of(folder: Path) -> list[Path]:
        return [p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".")]

    files = of(root)
    if not files:
        folders = [p for p in root.iterdir() if p.is_dir() and p.name != _MASKS and not p.name.startswith(".")]
        files = [file for folder in folders for file in of(folder)]
    return sorted(files)


def _cameras_and_stops(root: Path, files: list[Path]) -> dict[Path, tuple[str, str]]:
    if files[0].parent != root:
        return {f: (f.parent.name, f.stem) for f in files}
    matches = {f: _CAMERA_AND_STOP.fullmatch(f.stem) for f in files}
    if all(matches.values()):
        named = {f: (m["camera"], m["stop"]) for f, m in matches.items() if m}
        stops: dict[str, set[str]] = {}
        for camera, stop in named.values():
            stops.setdefault(camera, set()).add(stop)
        shared = set.intersection(*stops.values())
        if len(stops) > 1 and 2 * len(shared) >= max(len(s) for s in stops.values()):
            return named
    return {f: ("", f.stem) for f in files}


def _photo(root: Path, file: Path, camera: str, stop: str, masks: Path) -> Photo:
    size = image_size(file, "photograph")
    lens = "_".join(str(part) for part in (*size, *_lens(file)))
    below = file.relative_to(root)
    folders = [masks / below.parent, file.parent / _MASKS]
    names = (f"{file.stem}_mask", file.stem)
    candidates = (f / f"{n}{s}" for f in folders for n in names for s in (".png", ".pbm", ".jpg"))
    return Photo(
        name=below.as_posix(),
        path=file,
        camera=camera,
        stop=stop,
        sensor=f"{camera}|{lens}",
        size=size,
        mask_path=next((c for c in candidates if c.exists()), None),
    )


def _lens(file: Path) -> tuple[str, ...]:
    """Camera model and focal length by EXIF, as far as they are there."""
    with opened_image(file, "photograph") as image:
        exif = image.getexif()
        details = exif.get_ifd(_EXIF)
    values = (exif.get(_MODEL), details.get(_FOCAL_MM), details.get(_FOCAL_35_MM))
    return tuple(str(v).strip() for v in values if v is not None)


def _is_rig(root: Path, photos: list[Photo], wanted: bool | None) -> tuple[bool, str]:
    cameras: dict[str, set[str]] = {}
    for p in photos:
        cameras.setdefault(p.camera, set()).add(p.stop)
    n_sensors = len({p.sensor for p in photos})
    shared = set.intersection(*cameras.values())
    can_be = len(cameras) > 1 and n_sensors == len(cameras) and len(shared) >= 3
    if wanted and not can_be:
        raise CaptureError(
            f"{root}: rig=true, but the {len(cameras)} cameras ({listed(cameras)}) share {len(shared)} stop names and "
            f"have {n_sensors} kinds of pictures; want one subfolder per camera, the same file names in each, and one "
            "image size and focal length per camera"
        )
    alike = 2 * len(shared) >= max(len(s) for s in cameras.values())
    if wanted or (wanted is None and can_be and alike):
        return True, f"{len(cameras)} cameras ({listed(cameras)}) share {len(shared)} stops: taken for a rig"
    return False, ""
