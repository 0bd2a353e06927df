"""Arrays as pictures inside a page: colours for numbers, WebP as text."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image as Pillow

from ..capture.headers import opened_image
from .page import Markup, tag

# blue, light grey, red: told apart with any kind of sight, and the middle is neither
_DIVERGING = np.array(
    [[33, 80, 160], [120, 170, 215], [236, 236, 234], [235, 145, 105], [170, 30, 45]], dtype=np.float64
)
_QUALITY = 82


def data_uri(picture: UInt8[np.ndarray, "v u channels"], *, lossless: bool = False) -> str:
    """RGB or RGBA as a WebP that stands in the page itself; lossless for flat colours with sharp edges."""
    stream = BytesIO()
    Pillow.fromarray(picture).save(stream, "WEBP", quality=_QUALITY, lossless=lossless, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def diverging(values: Float[np.ndarray, "*shape"], limit: float) -> UInt8[np.ndarray, "*shape 3"]:
    """Colours from -limit (blue) over 0 (light grey) to limit (red); what is beyond has the ends' colour."""
    at = (np.clip(values / limit, -1, 1) + 1) / 2
    stops = np.linspace(0, 1, len(_DIVERGING))
    return np.stack([np.interp(at, stops, _DIVERGING[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def diverging_css() -> str:
    """The same colours as a gradient of a style sheet, from left to right."""
    return f"linear-gradient(90deg,{','.join(hexadecimal(color) for color in _DIVERGING)})"


def hexadecimal(color: Float[np.ndarray, "3"] | tuple[int, int, int]) -> str:
    """A colour of bytes as style sheets write it."""
    return "#" + "".join(f"{int(c):02x}" for c in color)


def with_alpha(
    colors: Float[np.ndarray, "v u 3"], opacity: Float[np.ndarray, "v u"], supersample: int
) -> UInt8[np.ndarray, "v u 4"]:
    """Colours in [0, 1] over nothing, averaged over blocks of `supersample` pixels a side."""
    premultiplied = np.concatenate([colors * opacity[..., None], opacity[..., None]], axis=-1)
    v, u, n = premultiplied.shape[0] // supersample, premultiplied.shape[1] // supersample, supersample
    mean = premultiplied[: v * n, : u * n].reshape(v, n, u, n, 4).mean(axis=(1, 3))
    mean[..., :3] /= np.maximum(mean[..., 3:], 1e-6)
    return (mean.clip(0, 1) * 255).round().astype(np.uint8)


def resized(rgb: UInt8[np.ndarray, "v u 3"], width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
    """A photograph at another size."""
    return np.asarray(Pillow.fromarray(rgb).resize((width, height), Pillow.Resampling.LANCZOS))


def enlarged(picture: UInt8[np.ndarray, "v u 4"], longest_px: int) -> UInt8[np.ndarray, "h w 4"]:
    """With every pixel as a square of its one colour, the longer side that long."""
    v, u = picture.shape[:2]
    size = round(u * longest_px / max(u, v)), round(v * longest_px / max(u, v))
    return np.asarray(Pillow.fromarray(picture).resize(size, Pillow.Resampling.NEAREST))


def data_uri_of_file(file: Path, longest_px: int) -> str:
    """A picture on the disk, made smaller to that many pixels if it is larger."""
    with opened_image(file, "picture") as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((longest_px, longest_px), Pillow.Resampling.LANCZOS)
    return data_uri(np.asarray(picture))


def swatch(color: tuple[int, int, int], words: str) -> Markup:
    """A patch of a colour and what it means."""
    return tag("span", tag("i", style=f"background:{hexadecimal(color)}"), words)
