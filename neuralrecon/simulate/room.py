"""What stands still around the turntable: desk, walls, backdrop, lamps, window. All in the rig frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from .prints import Sheet, cloud, wood_sheet

DISC_THICKNESS_M = 0.02
_LOW, _HIGH = np.array([-1.7, -1.9, -0.75], np.float32), np.array([2.3, 1.7, 1.85], np.float32)
_DESK_HALF_M = 0.62
_MIDDLE = np.array([0.0, 0.0, 0.07])
# wall (axis, is high), first low and high, second low and high, radiance: bright panels with soft edges
_LAMPS = (
    ((2, True), (0.0, 0.75), (0.45, 1.0), (30.0, 29.2, 28.0)),
    ((2, True), (-1.1, -0.65), (-1.2, -0.7), (14.0, 14.0, 14.4)),
    ((1, True), (-0.5, 0.4), (0.1, 1.2), (4.2, 4.6, 5.2)),
    ((0, True), (-1.3, -0.7), (0.3, 1.3), (5.0, 4.8, 4.4)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A room of 4.0 x 3.6 x 2.6 m with a desk at the disc's underside; every surface has a fixed radiance.

    `irradiance` fits the light that falls on a surface by its normal, from all around, as a quadratic form
    (second-order spherical harmonics carry 99 % of it; Ramamoorthi and Hanrahan 2001).
    """

    wood: Sheet
    plaster: Sheet
    disc_radius_m: float
    irradiance_form: Float[np.ndarray, "10 3"]
    exposure: float

    @staticmethod
    def build(seed: int, disc_radius_m: float) -> Room:
        rng = np.random.default_rng([seed, 3])
        stains = 1 + 0.07 * np.stack([cloud(rng, 256)] * 3, axis=-1)
        empty = Room(
            wood=wood_sheet(int(rng.integers(2**31))),
            plaster=Sheet.from_image(stains, 0.01),
            disc_radius_m=disc_radius_m,
            irradiance_form=np.zeros((10, 3)),
            exposure=1.0,
        )
        light = sphere_directions(8192)
        radiance = empty.radiance(np.broadcast_to(_MIDDLE, light.shape), light)
        normals = sphere_directions(256)
        irradiance = np.maximum(normals @ light.T, 0) @ radiance * (4 * np.pi / len(light))
        form = np.linalg.lstsq(_monomials(normals), irradiance, rcond=None)[0]
        return Room(
            wood=empty.wood,
            plaster=empty.plaster,
            disc_radius_m=disc_radius_m,
            irradiance_form=form.astype(np.float32),
            exposure=float(0.95 * np.pi / irradiance.mean(axis=1).max()),
        )

    def irradiance(self, normals: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
        """Unshadowed light on surfaces near the table's centre, by their unit normals."""
        return np.maximum(_monomials(normals).astype(np.float32) @ self.irradiance_form, 0.0)

    def distance(
        self, origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"]
    ) -> Float[np.ndarray, "rays"]:
        """Way to the desk or to a wall, from inside the room."""
        wall, _ = _wall(origins, directions)
        return np.minimum(self._desk(origins, directions), wall)

    def radiance(
        self, origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"]
    ) -> Float[np.ndarray, "rays 3"]:
        """Linear colour seen along rays that start inside the room."""
        origins, directions = origins.astype(np.float32), directions.astype(np.float32)
        desk = self._desk(origins, directions)
        wall, face = _wall(origins, directions)
        color = np.empty((len(origins), 3), dtype=np.float32)
        on_desk = desk < wall
        at = origins[on_desk] + directions[on_desk] * desk[on_desk, None]
        edge = np.maximum(np.hypot(at[:, 0], at[:, 1]) - self.disc_radius_m, 0)[:, None]
        color[on_desk] = self.wood.sample_metres(at[:, :2], 0.001) * 1.9 * (1 - 0.5 * np.exp(-edge / 0.025))
        at = origins[~on_desk] + directions[~on_desk] * wall[~on_desk, None]
        color[~on_desk] = self._walls(at, face[~on_desk])
        return color

    def _desk(self, origins: ndarray, directions: ndarray) -> ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (-DISC_THICKNESS_M - origins[:, 2]) / directions[:, 2]
            at = origins[:, :2] + directions[:, :2] * t[:, None]
            reaches = (t > 0) & (np.abs(at - [0.1, 0.0]) < _DESK_HALF_M).all(axis=1)
        return np.where(reaches, t, np.inf).astype(np.float32)

    def _walls(self, at: ndarray, face: ndarray) -> ndarray:
        axis, high = face // 2, face % 2
        first, second = np.where(axis == 0, at[:, 1], at[:, 0]), np.where(axis == 2, at[:, 1], at[:, 2])
        paint = np.array(
            [
                [0.5, 0.5, 0.5],
                [0.34, 0.4, 0.46],
                [0.5, 0.45, 0.38],
                [0.42, 0.44, 0.4],
                [0.2, 0.17, 0.15],
                [0.7, 0.7, 0.68],
            ],
            dtype=np.float32,
        )[face]
        color = paint * self.plaster.sample_metres(np.stack([first, second], 1), 0.01)
        color *= np.where(axis == 2, 1.0, 0.75 + 0.25 * (at[:, 2] - _LOW[2]) / (_HIGH[2] - _LOW[2]))[:, None]
        shelf = (axis == 1) & (high == 0) & (np.abs(second - 0.55) < 0.5) & (np.abs(first - 0.2) < 0.9)
        book = np.floor(first / 0.055) + 17 * np.floor(second / 0.25)
        hue = np.stack([np.sin(book * k) for k in (12.9, 78.2, 37.7)], axis=1) * 0.25 + 0.35
        color = np.where(shelf[:, None], np.where((second % 0.25 < 0.03)[:, None], 0.1, hue), color)
        poster = (axis == 0) & (high == 1) & (np.abs(first - 0.7) < 0.4) & (np.abs(second - 0.5) < 0.5)
        checks = (np.floor(first / 0.1) + np.floor(second / 0.1)) % 2
        color = np.where(poster[:, None], np.where(checks[:, None] > 0, [0.75, 0.7, 0.2], [0.1, 0.2, 0.5]), color)
        for (wall_axis, is_high), (low_1, high_1), (low_2, high_2), radiance in _LAMPS:
            inside = _panel(first, low_1, high_1) * _panel(second, low_2, high_2)
            weight = np.where((axis == wall_axis) & (high == is_high), inside, 0.0)[:, None]
            color = color * (1 - weight) + weight * np.array(radiance)
        return color.astype(np.float32)


def sphere_directions(count: int) -> Float[np.ndarray, "count 3"]:
    """Unit vectors spread evenly over the sphere (Fibonacci spiral)."""
    k = np.arange(count) + 0.5
    z = 1 - 2 * k / count
    angle = np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - z * z)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=1).astype(np.float32)


def _panel(x: ndarray, low: float, high: float) -> ndarray:
    return np.clip(np.minimum(x - low, high - x) / 0.04, 0, 1)


def _wall(origins: ndarray, directions: ndarray) -> tuple[ndarray, ndarray]:
    """Distance to the wall in front, and its number: 2 * axis + (1 for the higher one)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (np.where(directions > 0, _HIGH, _LOW) - origins) / directions
    t = np.where(directions == 0, np.inf, t)
    axis = t.argmin(axis=1)
    rows = np.arange(len(t))
    return t[rows, axis], 2 * axis + (directions[rows, axis] > 0)


def _monomials(n: ndarray) -> ndarray:
    x, y, z = n[:, 0], n[:, 1], n[:, 2]
    return np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, y * z, z * x], axis=1)
