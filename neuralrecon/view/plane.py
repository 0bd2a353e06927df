"""One movable plane: what it cuts away, and the sdf on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from ..train import Fit

AXES = ("x", "y", "z")
# Of each axis, the picture's right and down directions in world: seen from the side to which the axis points.
_RIGHT = {"x": (0, 1, 0), "y": (-1, 0, 0), "z": (1, 0, 0)}
_DOWN = {"x": (0, 0, -1), "y": (0, 0, -1), "z": (0, -1, 0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Square to an axis of the world, at `offset_m` along it. What lies beyond is cut; `flipped`, what lies before."""

    axis: str
    offset_m: float
    flipped: bool = False

    @property
    def normal(self) -> Float[np.ndarray, "3"]:
        """Towards what is cut away."""
        found = np.zeros(3)
        found[AXES.index(self.axis)] = -1.0 if self.flipped else 1.0
        return found

    def beyond(self, points: Float[np.ndarray, "*points 3"]) -> Float[np.ndarray, "*points"]:
        """Metres beyond the plane, negative on the side that stays."""
        along = np.asarray(points)[..., AXES.index(self.axis)] - self.offset_m
        return -along if self.flipped else along

    def keeps(self, points: Float[np.ndarray, "points 3"]) -> Bool[np.ndarray, "points"]:
        """Which of the points stay."""
        return self.beyond(points) <= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The sdf in mm (positive outside) on a plane, in rows and columns; `wxyz` and `position` place the picture.

    In the picture's own frame x runs right and y down, z is the camera's viewing direction; it is `width_m` wide.
    """

    sdf_mm: Float[np.ndarray, "v u"]
    wxyz: Float[np.ndarray, "4"]
    position: Float[np.ndarray, "3"]
    width_m: float
    height_m: float


def clipped(
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    colors: Float[np.ndarray, "vertices channels"],
    plane: Plane,
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"], Float[np.ndarray, "n channels"]]:
    """The part of a mesh that stays, open where it is cut; colours are interpolated along cut edges."""
    beyond = plane.beyond(vertices)
    stays = beyond <= 0
    n_in = stays[faces].sum(axis=1)
    whole, one, two = faces[n_in == 3], faces[n_in == 1], faces[n_in == 2]
    # turned so that the odd corner, the only one of its side, comes first
    one = _first_where(one, stays[one])
    two = _first_where(two, ~stays[two])
    cuts = np.concatenate([one[:, [0, 1]], one[:, [0, 2]], two[:, [0, 1]], two[:, [0, 2]]])
    keys, which = np.unique(np.sort(cuts, axis=1), axis=0, return_inverse=True)
    a, b = keys.T
    share = (beyond[a] / np.where(beyond[a] == beyond[b], 1.0, beyond[a] - beyond[b]))[:, None]
    new = [values[a] + share * (values[b] - values[a]) for values in (vertices, colors)]
    at = len(vertices) + which.reshape(-1)
    n1, n2 = len(one), len(two)
    p, q, r, s = at[:n1], at[n1 : 2 * n1], at[2 * n1 : 2 * n1 + n2], at[2 * n1 + n2 :]
    kept = np.concatenate(
        [
            whole,
            np.stack([one[:, 0], p, q], axis=1),
            np.stack([r, two[:, 1], two[:, 2]], axis=1),
            np.stack([r, two[:, 2], s], axis=1),
        ]
    )
    used, names = np.unique(kept, return_inverse=True)
    every = [np.concatenate([values, added]) for values, added in zip((vertices, colors), new, strict=True)]
    return every[0][used], names.reshape(-1, 3), every[1][used]


def sliced(fit: Fit, plane: Plane, longest_px: int) -> Slice:
    """The fit's sdf on a plane, over the box around its hull with the unit cube's margin, not below the table."""
    margin = 0.5 * float(1 / fit.unit_from_world.scale - fit.box.size.max())
    low, high = (fit.box.low - margin).double().cpu().numpy(), (fit.box.high + margin).double().cpu().numpy()
    if fit.floor_m is not None:
        low[2] = max(low[2], fit.floor_m)
    right, down = (np.array(of[plane.axis], dtype=np.float64) for of in (_RIGHT, _DOWN))
    size = high - low
    width, height = float(abs(right) @ size), float(abs(down) @ size)
    n_u, n_v = (max(2, round(longest_px * side / max(width, height))) for side in (width, height))
    middle = (low + high) / 2
    middle[AXES.index(plane.axis)] = plane.offset_m
    u = ((np.arange(n_u) + 0.5) / n_u - 0.5) * width
    v = ((np.arange(n_v) + 0.5) / n_v - 0.5) * height
    points = middle + u[None, :, None] * right + v[:, None, None] * down
    turn = np.stack([right, down, np.cross(right, down)], axis=1)
    return Slice(
        sdf_mm=sdf_mm_at(fit, points.reshape(-1, 3)).reshape(n_v, n_u),
        wxyz=Rotation.from_matrix(turn).as_quat(scalar_first=True),
        position=middle,
        width_m=width,
        height_m=height,
    )


@torch.no_grad()
def sdf_mm_at(fit: Fit, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points"]:
    """The model's sdf at points (world), in mm (see `Fit.world_per_mm`), positive outside."""
    in_unit = fit.unit_from_world.apply(torch.from_numpy(points)).clamp(0, 1).float().to(fit.device)
    unit_per_mm = fit.unit_from_world.scale * fit.world_per_mm
    return (fit.model.sdf(in_unit).cpu() / unit_per_mm).double().numpy()


def _first_where(faces: Int[np.ndarray, "n 3"], marked: Bool[np.ndarray, "n 3"]) -> Int[np.ndarray, "n 3"]:
    """Corners turned round so that the marked one comes first; each face has one."""
    turn = marked.argmax(axis=1)
    return faces[np.arange(len(faces))[:, None], (turn[:, None] + np.arange(3)) % 3]
