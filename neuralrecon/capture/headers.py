"""Opening image and depth files: their size and wholeness from the header and the end, without decoding.

Every failure of a decoder becomes a `CaptureError` that names the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from PIL import Image as PILImage
from PIL import ImageFile

from ..errors import CaptureError

_FORMATS = ("JPEG", "PNG", "PPM")
MAX_PIXELS = 2**26
_MAX_BLOCK_BYTES = 2**28
_JPEG_END = b"\xff\xd9"
_JPEG_TAIL_BYTES = 4096
_DEPTH_PNG_MODES = ("I;16", "I;16B", "I;16L", "I;16N")


@contextmanager
def decoding(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a decoder raises on a bad file into a `CaptureError` that names it."""
    try:
        yield
    except CaptureError:
        raise
    except FileNotFoundError as error:
        raise CaptureError(f"{path}: {what} is missing; restore the file") from error
    except MemoryError as error:
        raise CaptureError(
            f"{path}: {what} needs more memory than there is; close other programs, or read fewer or smaller images"
        ) from error
    # Decoders of hostile or damaged bytes raise nearly every type there is (struct.error, SyntaxError, KeyError, ...).
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise CaptureError(
            f"{path}: {what} is truncated or cannot be decoded ({reason}); copy the file again"
        ) from error


@contextmanager
def opened_image(path: Path, what: str) -> Iterator[ImageFile.ImageFile]:
    """A JPEG, PNG or PBM file with its header read; pixels are decoded on demand, errors told by `decoding`.

    Raises:
        CaptureError: also for more than 67 million pixels, which a few kilobytes can claim and which take most of a
            gigabyte to decode.
    """
    # Pillow leaves a file open that it cannot read; this one is closed in any case
    with decoding(path, what), path.open("rb") as stream:
        try:
            image = PILImage.open(stream, formats=_FORMATS)
        except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning) as error:
            raise CaptureError(_too_large(path, what, "more than 10^8")) from error
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise CaptureError(_too_large(path, what, f"{image.width} x {image.height}"))
            yield image


def _too_large(path: Path, what: str, got: str) -> str:
    return f"{path}: {what} says that it has {got} px, want at most {MAX_PIXELS}; make it smaller"


@contextmanager
def opened_depth(path: Path) -> Iterator[h5py.Dataset]:
    """The two-dimensional uint16 dataset ``depth`` of an HDF5 file, not yet read.

    Raises:
        CaptureError: no such file or dataset, truncated, another dtype or rank, or an absurd size.
    """
    with decoding(path, "depth file"), h5py.File(path, "r") as file:
        depth = own_dataset(file, "depth")
        if depth is None:
            raise CaptureError(f"{path}: no dataset 'depth'; it has {sorted(file.keys())[:8]}; export the depth again")
        if depth.ndim != 2 or depth.dtype != np.uint16:
            raise CaptureError(
                f"{path}: dataset 'depth' is {depth.dtype} of shape {depth.shape}, want uint16 of [v, u]; "
                "export the sensor's raw integers"
            )
        if not 0 < depth.shape[0] * depth.shape[1] <= MAX_PIXELS:
            raise CaptureError(f"{path}: dataset 'depth' has shape {depth.shape}, want 1 to {MAX_PIXELS} pixels")
        yield depth


def own_dataset(file: h5py.File, key: str) -> h5py.Dataset | None:
    """A dataset whose numbers lie in the file itself, in blocks that may be unpacked; None if there is none so called.

    A file can also name datasets and raw bytes of other files, which nobody who hands on a capture means.
    """
    item = file[key] if isinstance(file.get(key, getlink=True), h5py.HardLink) else None
    if not isinstance(item, h5py.Dataset) or item.is_virtual or item.external:
        return None
    blocks = math.prod(item.chunks or (0,)) * item.dtype.itemsize
    return item if blocks <= _MAX_BLOCK_BYTES else None


def image_size(path: Path, what: str = "image") -> tuple[int, int]:
    """(width, height) of a photograph or mask whose file is whole, as far as that shows without decoding it.

    Raises:
        CaptureError: missing, truncated or not an image.
    """
    with opened_image(path, what) as image:
        if image.format == "JPEG":
            if not _has_jpeg_end(path):
                image.load()
        elif image.format == "PNG":
            size = image.size
            image.verify()
            return size
        elif image.mode == "1" and image.tile and image.tile[0][0] == "raw":
            wanted = image.tile[0][2] + (image.width + 7) // 8 * image.height
            if os.path.getsize(path) < wanted:
                raise CaptureError(
                    f"{path}: {what} is truncated: {os.path.getsize(path)} bytes, want {wanted} for "
                    f"{image.width} x {image.height} px; copy the file again"
                )
        else:
            image.load()
        return image.size


def depth_size(path: Path) -> tuple[int, int]:
    """(width, height) of a depth map: HDF5 (`.h5`) or 16-bit PNG.

    Raises:
        CaptureError: missing, truncated, or not 16 bits a pixel.
    """
    if path.suffix == ".h5":
        with opened_depth(path) as depth:
            return depth.shape[1], depth.shape[0]
    with opened_image(path, "depth map") as image:
        require_depth_mode(path, image)
        size = image.size
        image.verify()
        return size


def require_depth_mode(path: Path, image: ImageFile.ImageFile) -> None:
    """A depth PNG holds 16 bits a pixel, one channel.

    Raises:
        CaptureError: it does not.
    """
    if image.format != "PNG" or image.mode not in _DEPTH_PNG_MODES:
        raise CaptureError(
            f"{path}: depth map is {image.format} of mode {image.mode}, want a PNG of 16-bit grey values; "
            "export the sensor's raw integers"
        )


def _has_jpeg_end(path: Path) -> bool:
    """The end marker is near the end: cameras may pad, but within the coded pixels it cannot occur."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _JPEG_TAIL_BYTES))
        return _JPEG_END in file.read()
