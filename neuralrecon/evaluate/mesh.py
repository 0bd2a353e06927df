"""How far a mesh is from the truth: distances both ways, F-scores, normals, overlap, closedness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float

from ..errors import ConfigError, MeshError
from ..geometry import Rigid
from ..label import Solid, View, observed_by
from ..label.observed import centre_of
from ..label.sampling import in_box, on_surface, padded_bounds
from .register import align

_SEEN_TOLERANCE_M = 2e-4
_STEEPEST_DEG = 85.0
_BOX_PADDING = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """How meshes are compared.

    `n_samples` points are drawn on each surface and in the box. `with_alignment`: also after rigid ICP. `only_seen`:
    of the truth, only what the views see has to be there. `z_min_mm` leaves out what stands on a table.
    """

    n_samples: int = 200_000
    with_alignment: bool = True
    only_seen: bool = True
    z_min_mm: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_samples < 1000:
            raise ConfigError(f"evaluate.n_samples must be 1000 or more, got {self.n_samples}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceScores:
    """Exact distances between points drawn uniformly by area on one surface and the other surface, in millimetres.

    Accuracy goes from the mesh to the truth, completeness from the truth to the mesh, Chamfer is the mean of the two.
    F-scores are harmonic means of the shares below the threshold, normal consistency the mean of |n . n'| at closest
    points both ways. `iou` is that of the two solids, by uniform points in the truth's box, grown on every side by a
    tenth of its longest side.
    """

    accuracy_mm: float
    completeness_mm: float
    chamfer_mm: float
    accuracy_median_mm: float
    completeness_median_mm: float
    f_score_0_5mm: float
    f_score_1mm: float
    f_score_2mm: float
    normal_consistency: float
    iou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Closedness:
    """Is the mesh the boundary of a solid? Vertices at the same place count as one."""

    is_watertight: bool
    is_winding_consistent: bool
    n_bodies: int
    n_faces: int
    volume_cm3: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshReport:
    """A mesh against the truth as it is (`raw`) and after a rigid alignment (`aligned`, None if none was asked for).

    `shift_mm` is how far the alignment moves the middle of the compared part of the truth, `seen_share` which share of
    the truth's surface above the height limit was compared.
    """

    closedness: Closedness
    truth_volume_cm3: float
    seen_share: float
    raw: SurfaceScores
    aligned: SurfaceScores | None
    rotation_deg: float | None
    shift_mm: float | None

    @property
    def chamfer_mm(self) -> float:
        """Without alignment."""
        return self.raw.chamfer_mm


@dataclass(frozen=True, slots=True, kw_only=True)
class _TruthPoints:
    points: Float[np.ndarray, "points 3"]
    normals: Float[np.ndarray, "points 3"]
    seen_share: float


def evaluate_mesh(
    mesh: trimesh.Trimesh,
    truth: trimesh.Trimesh,
    config: EvaluateConfig | None = None,
    *,
    views: Sequence[View] | None = None,
    on_table: bool = False,
) -> MeshReport:
    """Compares two meshes in the same frame, in metres.

    Args:
        mesh: what was reconstructed; it may be open.
        truth: what it should be.
        config: how; the defaults if None.
        views: with them and `only_seen`, completeness asks only for the part of the truth that one of them sees (in
            its image, less than 85 degrees from the normal, nothing before it). Accuracy always takes the whole mesh.
        on_table: points of both surfaces below `z_min_mm` are left out, since nobody sees what stands on the table.

    Raises:
        MeshError: a mesh without faces, or nothing of the truth is left to compare.

    Example:
        >>> ball = trimesh.creation.icosphere(subdivisions=4, radius=0.05)
        >>> evaluate_mesh(ball, ball, EvaluateConfig(n_samples=1000)).raw.f_score_1mm
        1.0
    """
    config = config or EvaluateConfig()
    truth_solid, z_min_m = Solid.of(truth), config.z_min_mm * 1e-3 if on_table else -math.inf
    wanted = _truth_points(truth_solid, views if config.only_seen else None, z_min_m, config)
    raw = _scores(Solid.of(mesh), truth_solid, wanted, z_min_m, config)
    aligned = rotation_deg = shift_mm = None
    if config.with_alignment:
        start = on_surface(mesh, config.n_samples // 10, np.random.default_rng([config.seed, 1]))[0]
        truth_from_mesh = align(start[start[:, 2] >= z_min_m], truth_solid)
        aligned = _scores(Solid.of(moved(mesh, truth_from_mesh)), truth_solid, wanted, z_min_m, config)
        rotation_deg, shift_mm = _size(truth_from_mesh, wanted.points.mean(axis=0))
    return MeshReport(
        closedness=closedness(mesh),
        truth_volume_cm3=float(truth.volume) * 1e6,
        seen_share=wanted.seen_share,
        raw=raw,
        aligned=aligned,
        rotation_deg=rotation_deg,
        shift_mm=shift_mm,
    )


def closedness(mesh: trimesh.Trimesh) -> Closedness:
    """Looks at a copy whose vertices are merged by place, as files may repeat them."""
    merged = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    merged.merge_vertices(merge_tex=True, merge_norm=True)
    bodies = trimesh.graph.connected_component_labels(merged.face_adjacency, node_count=len(merged.faces))
    return Closedness(
        is_watertight=bool(merged.is_watertight),
        is_winding_consistent=bool(merged.is_winding_consistent),
        n_bodies=int(bodies.max()) + 1,
        n_faces=len(merged.faces),
        volume_cm3=float(merged.volume) * 1e6,
    )


def moved(mesh: trimesh.Trimesh, target_from_mesh: Rigid) -> trimesh.Trimesh:
    """A copy with its vertices in another frame."""
    vertices = target_from_mesh.apply(torch.from_numpy(np.array(mesh.vertices, dtype=np.float64))).numpy()
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


def f_score(to_truth: Float[np.ndarray, "a"], to_mesh: Float[np.ndarray, "b"], threshold: float) -> float:
    """Harmonic mean of precision and recall: the shares of distances below the threshold (Knapitsch et al. 2017)."""
    precision, recall = float((to_truth < threshold).mean()), float((to_mesh < threshold).mean())
    return 2 * precision * recall / max(precision + recall, 1e-12)


def _truth_points(solid: Solid, views: Sequence[View] | None, z_min_m: float, config: EvaluateConfig) -> _TruthPoints:
    points, face = on_surface(solid.mesh, config.n_samples, np.random.default_rng([config.seed, 0]))
    above = points[:, 2] >= z_min_m
    points, normals = points[above], _face_normals(solid)[face[above]]
    seen = np.ones(len(points), dtype=bool) if views is None else _seen(points, normals, solid, views)
    if not seen.any():
        raise MeshError(
            f"nothing to compare: of {config.n_samples} points on the truth, {len(points)} lie above z = {z_min_m} m "
            f"and none of these is seen by a view; check that the truth and the capture are in the same frame"
        )
    return _TruthPoints(points=points[seen], normals=normals[seen], seen_share=float(seen.mean()))


def _seen(points, normals, solid: Solid, views: Sequence[View]) -> Bool[np.ndarray, "points"]:
    """Seen by a view that does not look along the surface. Facing and sight must hold for the same view."""
    seen = np.zeros(len(points), dtype=bool)
    for view in views:
        todo = np.nonzero(~seen)[0]
        to_camera = centre_of(view) - points[todo]
        cosine = np.einsum("ij,ij->i", to_camera, normals[todo]) / np.linalg.norm(to_camera, axis=1)
        todo = todo[cosine > math.cos(math.radians(_STEEPEST_DEG))]
        seen[todo] = observed_by(points[todo], solid, [view], tolerance_m=_SEEN_TOLERANCE_M)
    return seen


def _scores(solid: Solid, truth: Solid, wanted: _TruthPoints, z_min_m: float, config: EvaluateConfig) -> SurfaceScores:
    points, face = on_surface(solid.mesh, config.n_samples, np.random.default_rng([config.seed, 2]))
    above = points[:, 2] >= z_min_m
    points, normals = points[above], _face_normals(solid)[face[above]]
    if len(points) == 0:
        raise MeshError(f"nothing to compare: no part of the mesh lies above z = {z_min_m} m; is it in metres?")
    to_truth, cosines = _to_surface(points, normals, truth)
    to_mesh, cosines_back = _to_surface(wanted.points, wanted.normals, solid)
    return SurfaceScores(
        accuracy_mm=float(to_truth.mean()),
        completeness_mm=float(to_mesh.mean()),
        chamfer_mm=float(to_truth.mean() + to_mesh.mean()) / 2,
        accuracy_median_mm=float(np.median(to_truth)),
        completeness_median_mm=float(np.median(to_mesh)),
        f_score_0_5mm=f_score(to_truth, to_mesh, 0.5),
        f_score_1mm=f_score(to_truth, to_mesh, 1.0),
        f_score_2mm=f_score(to_truth, to_mesh, 2.0),
        normal_consistency=float(cosines.mean() + cosines_back.mean()) / 2,
        iou=_iou(solid, truth, config.n_samples, np.random.default_rng([config.seed, 3])),
    )


def _to_surface(points, normals, solid: Solid):
    """Distances in millimetres and |cosine| between the normals at the closest points."""
    distance, face, _ = solid.closest(points)
    return distance * 1e3, np.abs(np.einsum("ij,ij->i", normals, _face_normals(solid)[face]))


def _iou(solid: Solid, truth: Solid, n_samples: int, rng: np.random.Generator) -> float:
    points = in_box(*padded_bounds(truth.mesh, _BOX_PADDING), n_samples, rng)
    mine, theirs = solid.contains(points), truth.contains(points)
    return float((mine & theirs).sum() / max(1, (mine | theirs).sum()))


def _face_normals(solid: Solid) -> Float[np.ndarray, "faces 3"]:
    a, b, c = (solid.vertices[solid.faces[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)


def _size(truth_from_mesh: Rigid, middle) -> tuple[float, float]:
    cosine = (float(torch.trace(truth_from_mesh.rotation)) - 1) / 2
    shift = truth_from_mesh.apply(torch.from_numpy(middle)).numpy() - middle
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine)))), float(np.linalg.norm(shift)) * 1e3
