"""Crops of photographs in a file, made once and taken again by later runs.

`crops-{layout}.bin` holds the colours of all crops, then their masks with eight pixels a byte. Beside it a description
says what each crop was made from: path, size and time of photograph and mask, a hash of their content, a hash of the
crop. A photograph whose size or time has changed is read again unless its content is the same; a change under the same
size and time goes unnoticed. A crop that is not as it was written is read again. A run that breaks off leaves what it
has finished.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..capture import Capture, Image
from ..capture.pixels import camera_of, read_color, read_mask
from ..errors import ConfigError
from ..files import read_json, replacing
from .crops import Box, Crop, Store, cut_mask, laid_out
from .parallel import in_parallel

log = logging.getLogger(__name__)

_VERSION = 1
_SECONDS_BETWEEN_SAVES = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a crop is made from, and how; `checksum` is of the crop, empty as long as it is not in the file."""

    key: str
    state: tuple[int, ...]
    box: Box
    digest: str = ""
    checksum: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CropFile:
    """A file of crops with its description."""

    path: Path
    sources: tuple[Source, ...]

    @staticmethod
    def named(folder: Path, sources: Sequence[Source]) -> CropFile:
        """By what decides where each crop lies in it."""
        layout = json.dumps([_VERSION, [[s.key, s.box] for s in sources]])
        name = hashlib.blake2b(layout.encode(), digest_size=6).hexdigest()
        return CropFile(path=folder / f"crops-{name}.bin", sources=tuple(sources))

    @staticmethod
    def described(file: Path) -> CropFile | None:
        """Of a description; None if it, or the file, is not as we write them."""
        try:
            told = read_json(file)
            if told["version"] != _VERSION:
                raise ValueError("of another version")
            sources = tuple(map(_source_of, told["sources"]))
            found = CropFile(path=file.with_suffix(".bin"), sources=sources)
            if found.path.stat().st_size != found.n_bytes:
                raise ValueError(f"{found.path.name} has another size")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: describes no crops that are there (%s); they are read again", file, error)
            return None
        return found

    def describe(self, sources: Sequence[Source]) -> None:
        told = {"version": _VERSION, "sources": [asdict(source) for source in sources]}
        with replacing(self.path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(told, indent=1) + "\n")

    @property
    def crops(self) -> list[Crop]:
        return laid_out([source.box for source in self.sources])

    @property
    def n_pixels(self) -> int:
        return sum(crop.n_pixels for crop in self.crops)

    @property
    def n_bytes(self) -> int:
        return sum(3 * crop.n_pixels + crop.n_bytes for crop in self.crops)

    def save(self, crop: Crop, n_pixels: int, rgb: np.ndarray, bits: np.ndarray) -> None:
        with self.path.open("r+b") as stream:
            stream.seek(3 * crop.first)
            stream.write(np.ascontiguousarray(rgb).data)
            stream.seek(3 * n_pixels + crop.first_byte)
            stream.write(np.ascontiguousarray(bits).data)

    def load(self, crop: Crop, n_pixels: int) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.fromfile(self.path, np.uint8, 3 * crop.n_pixels, offset=3 * crop.first),
            np.fromfile(self.path, np.uint8, crop.n_bytes, offset=3 * n_pixels + crop.first_byte),
        )

    def mapped(self) -> Store:
        """Copy-on-write: nothing reaches the file, and torch takes no arrays that are read-only."""
        data, n = np.memmap(self.path, np.uint8, "c"), 3 * self.n_pixels
        return Store(rgb=data[:n].reshape(-1, 3), bits=data[n:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A crop that an earlier run has finished."""

    file: CropFile
    source: Source
    crop: Crop
    n_pixels: int


def crops_on_disk(
    capture: Capture, images: Sequence[Image], margin_px: int, folder: Path, limit_gb: float
) -> tuple[Store, list[Crop]]:
    """As `crops_in_memory`, but in a file in `folder`.

    Raises:
        CaptureError: a file that cannot be read.
        ConfigError: the crops need more disk than `limit_gb`, or than there is. Nothing is written then.
    """
    left = crops_left_in(folder)

    def outline(image: Image) -> tuple[Source, np.ndarray | None]:
        """What is known of an image, or its mask cut to the object."""
        key, state = _key(capture, image, margin_px), _state(image)
        if key in left and (left[key].source.state == state or left[key].source.digest == _digest(image)):
            return replace(left[key].source, state=state), None
        box, bits = cut_mask(read_mask(capture, image), margin_px)
        return Source(key=key, state=state, box=box), bits

    outlines = list(in_parallel("outlines read", outline, images))
    file = CropFile.named(folder, [source for source, _ in outlines])
    n_pixels, crops = file.n_pixels, file.crops
    _make_room(file, limit_gb)

    def fill(job: tuple[Image, Crop, tuple[Source, np.ndarray | None]]) -> Source:
        """Put one crop into the file if it is not there."""
        image, crop, (source, bits) = job
        if bits is None:
            old = left[source.key]
            parts = old.file.load(old.crop, old.n_pixels)
            if _checksum(*parts) == source.checksum:
                if old.file.path != file.path:
                    file.save(crop, n_pixels, *parts)
                return source
            log.warning("%s: the crop of %s is damaged; it is read again", old.file.path, image.path.name)
            bits = cut_mask(read_mask(capture, image), margin_px)[1]
        rgb = read_color(capture, image, source.box)
        file.save(crop, n_pixels, rgb, bits)
        return replace(source, digest=_digest(image), checksum=_checksum(rgb, bits))

    _fill_all(file, left, in_parallel("photographs read", fill, list(zip(images, crops, outlines, strict=True))))
    for old in folder.glob("crops-*"):
        if old.stem != file.path.stem:
            old.unlink()
    return file.mapped(), crops


def crops_left_in(folder: Path) -> dict[str, Left]:
    """By their keys; descriptions that are damaged count for nothing."""
    found = {}
    for file in filter(None, map(CropFile.described, sorted(folder.glob("crops-*.json")))):
        n_pixels = file.n_pixels
        for source, crop in zip(file.sources, file.crops, strict=True):
            if source.checksum:
                found[source.key] = Left(file=file, source=source, crop=crop, n_pixels=n_pixels)
    return found


def _source_of(told: dict[str, Any]) -> Source:
    """Of a description.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none of ours.
    """
    source = Source(**{**told, "state": tuple(told["state"]), "box": tuple(told["box"])})
    texts, numbers = (source.key, source.digest, source.checksum), (*source.state, *source.box)
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        raise TypeError(f"{source} has values of other kinds")
    u0, v0, u1, v1 = source.box
    if not (0 <= u0 < u1 and 0 <= v0 < v1):
        raise ValueError(f"the box {source.box} is empty")
    return source


def _make_room(file: CropFile, limit_gb: float) -> None:
    needed = (
        f"{file.path.parent}: the crops of {len(file.sources)} photographs need {file.n_bytes / 1e9:.3g} GB of disk"
    )
    if file.n_bytes > limit_gb * 1e9:
        raise ConfigError(f"{needed}, but cache_limit_gb={limit_gb:g}; raise it, or use downscale")
    if file.path.exists() and file.path.stat().st_size == file.n_bytes:
        return
    there = next(p for p in file.path.absolute().parents if p.is_dir())
    free = shutil.disk_usage(there).free
    if file.n_bytes > free:
        raise ConfigError(f"{needed}, {free / 1e9:.3g} GB are free; make room, or use downscale")
    file.path.parent.mkdir(parents=True, exist_ok=True)
    with file.path.open("wb") as stream:
        stream.truncate(file.n_bytes)


def _fill_all(file: CropFile, left: dict[str, Left], filled: Iterator[Source]) -> None:
    """Note in the description what is finished, now and then and at the end."""
    here = {key for key, crop in left.items() if crop.file.path == file.path}
    sources = [source if source.key in here else replace(source, checksum="") for source in file.sources]
    saved = time.monotonic()
    try:
        for i, source in enumerate(filled):
            sources[i] = source
            if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                saved = time.monotonic()
                file.describe(sources)
    finally:
        file.describe(sources)


def _key(capture: Capture, image: Image, margin_px: int) -> str:
    """Which files, cut how."""
    camera = camera_of(capture, image)
    paths = [str(path.resolve()) for path in _files(image)]
    return json.dumps([*paths, image.object_is_black, camera.width, camera.height, margin_px])


def _files(image: Image) -> list[Path]:
    return [path for path in (image.path, image.mask_path) if path is not None]


def _state(image: Image) -> tuple[int, ...]:
    """Size and time of the source files; zeros for one that is missing, which reading it will tell."""
    stats = [path.stat() if path.exists() else None for path in _files(image)]
    return tuple(n for stat in stats for n in ((stat.st_size, stat.st_mtime_ns) if stat else (0, 0)))


def _digest(image: Image) -> str:
    """Of the source files' content."""
    return _checksum(*(np.fromfile(path, np.uint8) for path in _files(image)))


def _checksum(*parts: np.ndarray) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(np.ascontiguousarray(part).data)
    return found.hexdigest()
