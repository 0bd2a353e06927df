"""Label files as the programs that train on them read them: one writer a consumer, each returns the files it wrote.

Every file carries `loc` and `scale`, so that ``metres_in_world = points * scale + loc``, and, if sight is given, an
`observed` flag per point; the consumers' loaders leave keys alone that they do not know. Points are rounded to the
precision of the file before they are labelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from ..files import write_npz
from .observed import Sight
from .sampling import in_ball, in_box, near_surface, on_surface
from .solid import Solid

# In the unit cube or sphere, as the consumers' own preparation has them.
_PADDED_HALF = 0.55
_IF_NET_SIGMAS = (0.1, 0.01)
_COMPLETION_SIGMAS = (0.001, 0.0015, 0.0025, 0.01, 0.015, 0.025, 0.05, 0.1, 0.15, 0.25)
_COMPLETION_RADII = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_DEEP_SDF_VARIANCES = (0.005, 0.0005)
_DEEP_SDF_UNIFORM_SHARE = 0.06
_DEEP_SDF_BUFFER = 1.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What labels are read off: the closed solid, and what was looked at (None: unknown)."""

    solid: Solid
    sight: Sight | None = None

    def observed(self, points_in_world: Float[np.ndarray, "points 3"]) -> dict[str, Bool[np.ndarray, "points"]]:
        """The key `observed`, or nothing without sight."""
        return {} if self.sight is None else {"observed": self.sight.observes(points_in_world, self.solid)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A consumer's frame: ``metres_in_world = points * scale + loc``."""

    loc: Float[np.ndarray, "3"]
    scale: float

    @staticmethod
    def cube(solid: Solid) -> Unit:
        """The bounding box's centre at the origin, its longest side of length one."""
        return Unit(loc=solid.centre, scale=2 * float(solid.half_size.max()))

    @staticmethod
    def sphere(solid: Solid) -> Unit:
        """The bounding box's centre at the origin, the farthest vertex at 1 / 1.03."""
        return Unit(loc=solid.centre, scale=_DEEP_SDF_BUFFER * float(np.linalg.norm(solid.vertices, axis=1).max()))

    def to_world(self, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
        return points.astype(np.float64) * self.scale + self.loc

    def from_world(self, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
        return (points - self.loc) / self.scale

    def keys(self) -> dict[str, np.ndarray | np.generic]:
        return {"loc": self.loc, "scale": np.float64(self.scale)}


def write_occupancy_networks(
    truth: Truth, folder: Path, *, n_points: int, half_precision: bool, rng: np.random.Generator
) -> list[Path]:
    """`points.npz` and `pointcloud.npz` of Occupancy Networks and ConvONet.

    Points are uniform in a cube of side 1.1, occupancies are bits (`unpackbits: true` in the consumer's config). The
    loader adds noise of 1e-4 to points that come as float16, which single precision avoids.
    """
    unit = Unit.cube(truth.solid)
    dtype = np.float16 if half_precision else np.float32
    points = _uniform(n_points, rng).astype(dtype)
    arrays = _packed(truth, unit, points)
    cloud, normals = _surface(truth.solid, unit, n_points, dtype, rng)
    return [
        write_npz(folder / "points.npz", **arrays),
        write_npz(folder / "pointcloud.npz", points=cloud, normals=normals, **unit.keys()),
    ]


def write_if_net(truth: Truth, folder: Path, *, n_points: int, rng: np.random.Generator) -> list[Path]:
    """`boundary_{0.1,0.01}_samples.npz` of IF-Net: near-surface points in the unit cube, occupancies as booleans.

    `grid_coords` are the points in the order z, y, x, doubled, as its feature grids are addressed.
    """
    unit, files = Unit.cube(truth.solid), []
    for sigma in _IF_NET_SIGMAS:
        points = _near(truth.solid, unit, n_points, sigma, rng).astype(np.float32)
        in_world = unit.to_world(points)
        path = write_npz(
            folder / f"boundary_{sigma}_samples.npz",
            points=points,
            grid_coords=2 * points[:, ::-1],
            occupancies=truth.solid.contains(in_world),
            **unit.keys(),
            **truth.observed(in_world),
        )
        files.append(path)
    return files


def write_deep_sdf(
    truth: Truth, folder: Path, *, data_set: str, category: str, name: str, n_points: int, rng: np.random.Generator
) -> list[Path]:
    """`SdfSamples/{data_set}/{category}/{name}.npz` of DeepSDF, and its normalisation beside them.

    Rows are x, y, z, sdf in the unit sphere, float32: `pos` outside, `neg` inside. Of the points 47 % lie near the
    surface with variance 0.005, 47 % with a tenth of it, and 6 % are uniform in the cube of side 2. In
    `NormalizationParameters` its evaluation finds ``metres = points / scale - offset``.
    """
    unit = Unit.sphere(truth.solid)
    n_uniform = round(_DEEP_SDF_UNIFORM_SHARE * n_points)
    n_wide = (n_points - n_uniform) // 2
    counts = (n_wide, n_points - n_uniform - n_wide)
    drawn = [
        _near(truth.solid, unit, n, variance**0.5, rng) for n, variance in zip(counts, _DEEP_SDF_VARIANCES, strict=True)
    ]
    points = np.concatenate([*drawn, in_box(-np.ones(3), np.ones(3), n_uniform, rng)]).astype(np.float32)
    in_world = unit.to_world(points)
    sdf = (truth.solid.signed_distance(in_world) / unit.scale).astype(np.float32)
    rows, outside = np.column_stack([points, sdf]), sdf > 0
    seen = truth.observed(in_world).get("observed")
    flags = {} if seen is None else {"observed_pos": seen[outside], "observed_neg": seen[~outside]}
    place = Path(data_set) / category / f"{name}.npz"
    return [
        write_npz(folder / "SdfSamples" / place, pos=rows[outside], neg=rows[~outside], **unit.keys(), **flags),
        write_npz(
            folder / "NormalizationParameters" / place,
            offset=(-unit.loc).astype(np.float32),
            scale=np.array([1 / unit.scale], dtype=np.float32),
        ),
    ]


def write_shape_completion(truth: Truth, folder: Path, *, n_points: int, rng: np.random.Generator) -> list[Path]:
    """`samples/*.npz` of DLR-RM/shape-completion, float16, occupancies as bits.

    Its loader takes every bit there is, also those that pad the last byte, so the number of points is rounded up to a
    multiple of eight. `surface_random` holds equal shares of ten standard deviations from 0.001 to 0.25,
    `uniform_sphere_0..5` fill balls of radius 1, 2, 5, 10, 20 and 50.
    """
    unit, n_points = Unit.cube(truth.solid), -(-n_points // 8) * 8
    shares = [len(part) for part in np.array_split(np.arange(n_points), len(_COMPLETION_SIGMAS))]
    near = [_near(truth.solid, unit, n, s, rng) for n, s in zip(shares, _COMPLETION_SIGMAS, strict=True)]
    drawn = {"uniform_random": _uniform(n_points, rng), "surface_random": np.concatenate(near)}
    drawn |= {f"uniform_sphere_{i}": in_ball(radius, n_points, rng) for i, radius in enumerate(_COMPLETION_RADII)}
    cloud, normals = _surface(truth.solid, unit, n_points, np.float16, rng)
    files = [write_npz(folder / "samples" / "surface.npz", points=cloud, normals=normals, **unit.keys())]
    for stem, points in drawn.items():
        arrays = _packed(truth, unit, points.astype(np.float16))
        files.append(write_npz(folder / "samples" / f"{stem}.npz", **arrays))
    return files


def _packed(truth: Truth, unit: Unit, points) -> dict[str, np.ndarray | np.generic]:
    in_world = unit.to_world(points)
    bits = np.packbits(truth.solid.contains(in_world))
    return {"points": points, "occupancies": bits, **unit.keys(), **truth.observed(in_world)}


def _uniform(n_points: int, rng: np.random.Generator):
    return in_box(np.full(3, -_PADDED_HALF), np.full(3, _PADDED_HALF), n_points, rng)


def _near(solid: Solid, unit: Unit, n_points: int, sigma: float, rng: np.random.Generator):
    return unit.from_world(near_surface(solid.mesh, n_points, sigma * unit.scale, rng))


def _surface(solid: Solid, unit: Unit, n_points: int, dtype: type, rng: np.random.Generator):
    points, face = on_surface(solid.mesh, n_points, rng)
    return unit.from_world(points).astype(dtype), np.asarray(solid.mesh.face_normals)[face].astype(dtype)
