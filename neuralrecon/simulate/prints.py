"""Procedural prints: what makes the surfaces and the table look like photographs of something."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import gaussian_filter

_SIDE = 1024
_TEXEL_M = 0.00025


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """An image that repeats in both directions, with its halved copies. `texel_m` is the width of level 0's texels."""

    levels: tuple[Float[np.ndarray, "rows columns 3"], ...]
    texel_m: float

    @staticmethod
    def from_image(image: Float[np.ndarray, "rows columns 3"], texel_m: float) -> Sheet:
        levels = [np.ascontiguousarray(image, dtype=np.float32)]
        while min(levels[-1].shape[:2]) >= 4 and len(levels) < 8:
            top = levels[-1]
            top = top[: top.shape[0] // 2 * 2, : top.shape[1] // 2 * 2]
            levels.append(((top[::2, ::2] + top[1::2, ::2] + top[::2, 1::2] + top[1::2, 1::2]) / 4).astype(np.float32))
        return Sheet(levels=tuple(levels), texel_m=texel_m)

    def sample(self, uv: Float[np.ndarray, "points 2"], footprint_m: float) -> Float[np.ndarray, "points 3"]:
        """Linear colour at `uv` (one sheet is 1 x 1, v grows along the rows), blurred to about `footprint_m`."""
        level = int(np.clip(round(np.log2(max(footprint_m / self.texel_m, 1.0))), 0, len(self.levels) - 1))
        image = self.levels[level]
        rows, columns = image.shape[:2]
        x, y = uv[:, 0] * columns - 0.5, uv[:, 1] * rows - 0.5
        left, top = np.floor(x), np.floor(y)
        fx, fy = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
        i0, j0 = left.astype(np.int64) % columns, top.astype(np.int64) % rows
        i1, j1 = (i0 + 1) % columns, (j0 + 1) % rows
        flat = image.reshape(-1, 3)
        upper = flat[j0 * columns + i0] * (1 - fx) + flat[j0 * columns + i1] * fx
        lower = flat[j1 * columns + i0] * (1 - fx) + flat[j1 * columns + i1] * fx
        return upper * (1 - fy) + lower * fy

    def sample_metres(self, xy: Float[np.ndarray, "points 2"], footprint_m: float) -> Float[np.ndarray, "points 3"]:
        """Like `sample`, with positions on the sheet in metres."""
        rows, columns = self.levels[0].shape[:2]
        return self.sample(xy / np.array([columns * self.texel_m, rows * self.texel_m]), footprint_m)


def cloud(rng: np.random.Generator, side: int = _SIDE) -> Float[np.ndarray, "side side"]:
    """Noise of all scales (amplitude falls as frequency to the 1.3), seamless, mean 0 and standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) * side
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) / np.maximum(frequency, 2.0) ** 1.3
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(side, side)).astype(np.float32)
    return noise / noise.std()


def print_sheet(seed: int, ground: tuple[float, float, float]) -> Sheet:
    """A package's print, 25.6 cm square: pictures, blocks, bars and lines of letter-like marks on a ground colour."""
    rng = np.random.default_rng(seed)
    tones = cloud(rng)
    image = np.asarray(ground, dtype=np.float32) * (1 + 0.06 * tones[..., None])
    palette = rng.uniform(0.03, 0.85, (6, 3)).astype(np.float32)
    for _ in range(9):
        rows, columns = _patch(rng, 90, 300)
        image[rows, columns] = palette[rng.integers(6)]
    for _ in range(7):
        rows, columns = _patch(rng, 140, 320)
        tone = np.roll(tones, rng.integers(_SIDE, size=2), (0, 1))[rows, columns, None]
        dark, light = palette[rng.integers(6)] * 0.3, 0.5 + 0.5 * palette[rng.integers(6)]
        image[rows, columns] = dark + (light - dark) / (1 + np.exp(-1.8 * tone))
    for _ in range(4):
        rows, columns = _patch(rng, 60, 160)
        bars = np.repeat(rng.random(_SIDE // 4) < 0.5, 4)[columns]
        image[rows, columns] = np.where(bars, 0.03, 0.85)[None, :, None]
    for _ in range(110):
        _write_line(image, rng)
    return Sheet.from_image(np.clip(image, 0.02, 0.9), _TEXEL_M)


def table_sheet(seed: int) -> Sheet:
    """The turntable's print, 51.2 cm square: black and white blocks of two sizes with a few coloured dots."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.random((64, 64)) < 0.5, np.ones((16, 16)))
    fine = np.kron(rng.random((128, 128)) < 0.5, np.ones((8, 8)))
    pick = np.kron(rng.random((32, 32)) < 0.6, np.ones((32, 32)))
    image = np.where(np.where(pick > 0, coarse, fine) > 0, 0.75, 0.04)[..., None] * np.ones(3)
    v, u = np.mgrid[-12:13, -12:13]
    for _ in range(160):
        top, left = rng.integers(0, _SIDE - 25, 2)
        dot = v**2 + u**2 < rng.integers(5, 13) ** 2
        image[top : top + 25, left : left + 25][dot] = rng.uniform(0.05, 0.8, 3)
    return Sheet.from_image(image, 0.0005)


def wood_sheet(seed: int) -> Sheet:
    """A wooden desk's top, about 1 m square, grain along the columns."""
    rng = np.random.default_rng(seed)
    grain = np.zeros((512, 512))
    for sigma in ((1.0, 30.0), (3.0, 60.0), (10.0, 120.0)):
        streaks = gaussian_filter(rng.standard_normal((512, 512)), sigma, mode="wrap")
        grain += streaks / streaks.std()
    tone = 1 + 0.08 * grain[..., None] / grain.std()
    return Sheet.from_image(np.clip(tone, 0.5, 1.5) * np.array([0.42, 0.33, 0.24]), 0.002)


def solid_noise(
    points: Float[np.ndarray, "points 3"], lattice: Float[np.ndarray, "n n n"], cell_m: float
) -> Float[np.ndarray, "points"]:
    """Trilinear noise through space: random values at the nodes of a repeating lattice of `cell_m`."""
    n = lattice.shape[0]
    x = points / cell_m
    low = np.floor(x)
    f = x - low
    f = f * f * (3 - 2 * f)
    i0 = low.astype(np.int64) % n
    i1 = (i0 + 1) % n
    flat = lattice.reshape(-1)
    total = np.zeros(len(points), dtype=np.float32)
    for corner in range(8):
        pick = [(i1 if corner >> axis & 1 else i0)[:, axis] for axis in range(3)]
        weight = np.prod([f[:, a] if corner >> a & 1 else 1 - f[:, a] for a in range(3)], axis=0)
        total += weight * flat[(pick[0] * n + pick[1]) * n + pick[2]]
    return total


def _patch(rng: np.random.Generator, low: int, high: int) -> tuple[slice, slice]:
    size = rng.integers(low, high, 2)
    start = rng.integers(0, _SIDE - size)
    return slice(start[0], start[0] + size[0]), slice(start[1], start[1] + size[1])


def _write_line(image: ndarray, rng: np.random.Generator) -> None:
    """One line of marks, 7 x 5 dots each, 1.75 to 14 mm tall, in place."""
    dot = int(rng.choice([1, 1, 2, 2, 3, 5, 8]))
    n_marks = int(rng.integers(4, 16))
    half = rng.random((n_marks, 7, 3)) < 0.55
    marks = np.concatenate([half, half[:, :, 1::-1]], axis=2)
    dots = np.concatenate([np.pad(mark, ((0, 0), (0, 1))) for mark in marks], axis=1)
    dots = np.kron(dots, np.ones((dot, dot))) > 0
    dots = dots[:, : _SIDE - 8]
    top, left = rng.integers(0, _SIDE - dots.shape[0]), rng.integers(0, _SIDE - dots.shape[1])
    area = image[top : top + dots.shape[0], left : left + dots.shape[1]]
    ink = np.full(3, 0.03) if area.mean() > 0.3 else rng.uniform(0.6, 0.9, 3)
    area[dots] = ink
