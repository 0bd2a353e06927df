"""The part of every photograph that shows the object, read once, held in memory or in a file (see `crop_cache`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from ..capture import Capture, Image
from ..capture.pixels import read_color, read_mask
from .parallel import in_parallel
from .silhouettes import crop_around

Box = tuple[int, int, int, int]  # u0, v0, u1, v1; ends exclusive


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Colours of pixels, and masks with eight pixels a byte; both may be files mapped into memory."""

    rgb: UInt8[np.ndarray, "pixels 3"]
    bits: UInt8[np.ndarray, "bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """Where one photograph's crop lies in its image, and where in the store: its first pixel, its mask's first byte."""

    u0: int
    v0: int
    width: int
    height: int
    first: int
    first_byte: int

    @property
    def n_pixels(self) -> int:
        return self.width * self.height

    @property
    def n_bytes(self) -> int:
        """Of its mask."""
        return -(-self.n_pixels // 8)


def laid_out(boxes: Sequence[Box]) -> list[Crop]:
    """Crops one behind the other."""
    crops, first, first_byte = [], 0, 0
    for u0, v0, u1, v1 in boxes:
        crop = Crop(u0=u0, v0=v0, width=u1 - u0, height=v1 - v0, first=first, first_byte=first_byte)
        first, first_byte = first + crop.n_pixels, first_byte + crop.n_bytes
        crops.append(crop)
    return crops


def cut_mask(mask: np.ndarray, margin_px: int) -> tuple[Box, np.ndarray]:
    """The bounds of the object, `margin_px` wider, and the mask within, eight pixels a byte."""
    u0, v0, u1, v1 = box = crop_around(mask, margin_px)
    return box, np.packbits(mask[v0:v1, u0:u1].ravel())


def crops_in_memory(capture: Capture, images: Sequence[Image], margin_px: int) -> tuple[Store, list[Crop]]:
    """Cut all photographs to their masks, `margin_px` wider.

    Raises:
        CaptureError: a file that cannot be read.
    """
    cuts = list(in_parallel("outlines read", lambda i: cut_mask(read_mask(capture, i), margin_px), images))
    crops = laid_out([box for box, _ in cuts])
    store = Store(
        rgb=np.empty((sum(crop.n_pixels for crop in crops), 3), np.uint8),
        bits=np.concatenate([np.zeros(0, np.uint8), *(bits for _, bits in cuts)]),
    )

    def fill(job: tuple[Image, Crop, Box]) -> None:
        image, crop, box = job
        rgb = read_color(capture, image, box).reshape(-1, 3)
        store.rgb[crop.first : crop.first + crop.n_pixels] = rgb

    for _ in in_parallel("photographs read", fill, list(zip(images, crops, (box for box, _ in cuts), strict=True))):
        pass
    return store, crops
