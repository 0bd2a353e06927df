"""Points with what is known about them: inside or outside, how far the surface is, seen by a camera or not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Bool, Float32

from ..errors import CaptureError
from ..files import read_npz, write_npz
from .observed import Sight
from .sampling import in_box, near_surface, padded_bounds
from .solid import Solid


class Sampling(StrEnum):
    """Where points are drawn: all over the padded box, near the surface, or half of each (uniform ones first)."""

    uniform = "uniform"
    near_surface = "near_surface"
    mixed = "mixed"


# Type and shape of each array in a file; None is the number of points.
_STORED: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "points_in_world": ("float32", (None, 3)),
    "occupancy": ("bool", (None,)),
    "sdf_m": ("float32", (None,)),
    "near_surface": ("bool", (None,)),
    "sigma_m": ("float64", ()),
    "observed": ("bool", (None,)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OccupancyLabels:
    """Labelled points, in the world frame and metres.

    `sdf_m` is positive outside. `near_surface` tells the points drawn near the surface from the uniform ones;
    `sigma_m` is the standard deviation along each axis of the former. `observed` is None where no sight was given.
    """

    points_in_world: Float32[np.ndarray, "points 3"]
    occupancy: Bool[np.ndarray, "points"]
    sdf_m: Float32[np.ndarray, "points"]
    near_surface: Bool[np.ndarray, "points"]
    sigma_m: float
    observed: Bool[np.ndarray, "points"] | None = None

    def save(self, path: Path) -> Path:
        """An .npz file with these names as keys (without `observed` where that is None)."""
        arrays = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}
        return write_npz(path, **arrays)

    @staticmethod
    def load(path: Path) -> OccupancyLabels:
        """What `save` wrote.

        Raises:
            CaptureError: the file is missing or damaged, or holds other arrays.
        """
        try:
            values = read_npz(path)
            n_points = len(np.atleast_1d(values["points_in_world"]))
            for name, (kind, shape) in _STORED.items():
                found = values.get(name) if name == "observed" else values[name]
                want = tuple(n_points if side is None else side for side in shape)
                if found is not None and (found.dtype != kind or found.shape != want):
                    raise ValueError(f"{name} is {found.dtype} of shape {found.shape}, want {kind} of {want}")
            return OccupancyLabels(**{**values, "sigma_m": float(values["sigma_m"])})
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise CaptureError(f"{path}: not readable as labels ({error}); write them anew") from error


def label_occupancy(
    mesh: trimesh.Trimesh | Solid,
    n_points: int = 100_000,
    *,
    sampling: Sampling = Sampling.uniform,
    sigma_m: float = 0.001,
    padding: float = 0.1,
    sight: Sight | None = None,
    seed: int = 0,
) -> OccupancyLabels:
    """Draws points and labels them against a closed mesh (world frame, metres).

    Uniform points fill the mesh's bounding box, grown on every side by `padding` times its longest side. The points
    are rounded to float32 before they are labelled, so that the labels are those of the points as they are stored.
    `sight` says what was looked at, and, if it is to count, which parts of the surface have evidence.

    Raises:
        MeshError: the mesh is not closed or not oriented outward.

    Example:
        >>> labels = label_occupancy(trimesh.creation.icosphere(radius=0.05), n_points=1000)
        >>> bool((labels.occupancy == (labels.sdf_m < 0)).all())
        True
    """
    solid = mesh if isinstance(mesh, Solid) else Solid.of(mesh)
    solid.require_closed()
    rng = np.random.default_rng(seed)
    n_near = {Sampling.uniform: 0, Sampling.near_surface: n_points, Sampling.mixed: n_points - n_points // 2}[sampling]
    uniform = in_box(*padded_bounds(solid.mesh, padding), n_points - n_near, rng)
    near = near_surface(solid.mesh, n_near, sigma_m, rng)
    points = np.concatenate([uniform, near]).astype(np.float32)
    exact = points.astype(np.float64)
    sdf = solid.signed_distance(exact)
    observed = None if sight is None else sight.observes(exact, solid)
    return OccupancyLabels(
        points_in_world=points,
        occupancy=sdf < 0,
        sdf_m=sdf.astype(np.float32),
        near_surface=np.arange(n_points) >= n_points - n_near,
        sigma_m=sigma_m,
        observed=observed,
    )
