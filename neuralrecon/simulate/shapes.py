"""Built-in objects: closed, printed, in metres, standing on z = 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Float
from numpy import ndarray

from ..errors import ConfigError
from .implicit import capsule, closed_mesh, intersection, union
from .prints import print_sheet, solid_noise

Albedo = Callable[[Float[np.ndarray, "points k"], float], Float[np.ndarray, "points 3"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TexturedMesh:
    """A mesh with a print. `albedo(coordinates, footprint_m)` gives the linear colour in 0 … 1 at coordinates that are
    interpolated from `corner_coordinates`: positions in the object's own frame, image coordinates, or colours.
    """

    mesh: trimesh.Trimesh
    corner_coordinates: Float[np.ndarray, "faces 3 k"]
    albedo: Albedo

    @staticmethod
    def with_solid(mesh: trimesh.Trimesh, albedo: Albedo) -> TexturedMesh:
        """A print that is a function of the position on the mesh as it is now."""
        return TexturedMesh(mesh=mesh, corner_coordinates=np.asarray(mesh.triangles, dtype=np.float32), albedo=albedo)

    @staticmethod
    def plain(mesh: trimesh.Trimesh, color: tuple[float, float, float]) -> TexturedMesh:
        """One linear colour all over."""
        value = np.asarray(color, dtype=np.float32)
        return TexturedMesh.with_solid(mesh, lambda points, _: np.broadcast_to(value, (len(points), 3)))


def builtin_mesh(name: str) -> TexturedMesh:
    """One of `BUILTIN_MESHES`.

    Raises:
        ConfigError: an unknown name.

    Example:
        >>> builtin_mesh("mug").mesh.euler_number
        0
    """
    if name not in _MAKERS:
        raise ConfigError(f"no built-in mesh {name!r}; there are {', '.join(BUILTIN_MESHES)}")
    made = _MAKERS[name]()
    made.mesh.apply_translation([0, 0, -made.mesh.bounds[0, 2]])
    return made


def rounded_box(size: tuple[float, float, float], radius: float, spacing: float = 0.004) -> trimesh.Trimesh:
    """A box on z = 0 with rounded edges: a gridded cube whose margin of `radius` is wrapped around the edges."""
    half = np.asarray(size) / 2
    inner = half - radius
    ticks = []
    for a in range(3):
        arc = inner[a] + radius * np.tan(np.linspace(0, np.pi / 4, 5)[1:])
        flat = np.linspace(-inner[a], inner[a], max(2, round(2 * inner[a] / spacing) + 1))
        ticks.append(np.concatenate([-arc[::-1], flat, arc]))
    vertices, faces = [], []
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        p, q = np.meshgrid(ticks[i], ticks[j], indexing="ij")
        index = np.arange(p.size).reshape(p.shape)
        a, b, c, d = index[:-1, :-1].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel(), index[:-1, 1:].ravel()
        quads = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
        for sign in (-1, 1):
            side = np.empty((p.size, 3))
            side[:, axis], side[:, i], side[:, j] = sign * half[axis], p.ravel(), q.ravel()
            faces.append((quads if sign > 0 else quads[:, ::-1]) + sum(len(v) for v in vertices))
            vertices.append(side)
    points = np.concatenate(vertices)
    core = np.clip(points, -inner, inner)
    outward = points - core
    points = core + radius * outward / np.linalg.norm(outward, axis=1, keepdims=True)
    mesh = trimesh.Trimesh(points + np.array([0, 0, half[2]]), np.concatenate(faces), process=False)
    mesh.merge_vertices(digits_vertex=9)
    return mesh


def revolved(profile: Float[np.ndarray, "points 2"], n_turns: int = 160, spacing: float = 0.002) -> trimesh.Trimesh:
    """The solid swept by a profile (radius, height) from the axis below to the axis above, its corners rounded."""
    for _ in range(4):
        cut = np.stack([0.75 * profile[:-1] + 0.25 * profile[1:], 0.25 * profile[:-1] + 0.75 * profile[1:]], axis=1)
        profile = np.concatenate([profile[:1], cut.reshape(-1, 2)[1:-1], profile[-1:]])
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])
    at = np.unique(np.concatenate([length, np.arange(0, length[-1], spacing)]).round(7))
    at = at[np.concatenate([[True], np.diff(at) > 2e-4])]
    at[-1] = length[-1]
    ring = np.stack([np.interp(at, length, profile[:, 0]), np.interp(at, length, profile[:, 1])], axis=1)
    angle = np.arange(n_turns) * 2 * np.pi / n_turns
    middle = ring[1:-1]
    body = np.stack([middle[:, :1] * np.cos(angle), middle[:, :1] * np.sin(angle), middle[:, 1:] + 0 * angle], axis=-1)
    vertices = np.concatenate([body.reshape(-1, 3), [[0, 0, ring[0, 1]], [0, 0, ring[-1, 1]]]])
    index = np.arange(body.shape[0] * n_turns).reshape(-1, n_turns)
    turned = np.roll(index, -1, axis=1)
    a, b, c, d = index[:-1].ravel(), turned[:-1].ravel(), turned[1:].ravel(), index[1:].ravel()
    bottom, top = np.full(n_turns, len(vertices) - 2), np.full(n_turns, len(vertices) - 1)
    faces = [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
    faces += [np.stack([bottom, turned[0], index[0]], 1), np.stack([top, index[-1], turned[-1]], 1)]
    return trimesh.Trimesh(vertices, np.concatenate(faces), process=False)


def _around(points: ndarray, radius_m: float) -> ndarray:
    """Metres along a cylinder's side, and downwards: how a label is wrapped around."""
    return np.stack([np.arctan2(points[:, 1], points[:, 0]) * radius_m, -points[:, 2]], axis=1)


def _box() -> TexturedMesh:
    half = np.array([0.055, 0.03, 0.08])
    sheet = print_sheet(11, (0.55, 0.06, 0.05))
    shift = np.array([[0.0, 0.0], [0.07, 0.02], [0.12, 0.09], [0.02, 0.13], [0.17, 0.05], [0.21, 0.16]])

    def albedo(points: ndarray, footprint_m: float) -> ndarray:
        centred = (points - [0, 0, half[2]]) / half
        axis = np.abs(centred).argmax(axis=1)
        across = np.where(axis == 0, points[:, 1], points[:, 0])
        down = np.where(axis == 2, points[:, 1], -points[:, 2])
        side = axis * 2 + (np.take_along_axis(centred, axis[:, None], 1)[:, 0] > 0)
        return sheet.sample_metres(np.stack([across, down], 1) + shift[side], footprint_m)

    return TexturedMesh.with_solid(rounded_box(tuple(2 * half), 0.0025), albedo)


def _bottle() -> TexturedMesh:
    lower = [[0, 0.004], [0.024, 0.004], [0.028, 0], [0.036, 0], [0.038, 0.002], [0.038, 0.03], [0.036, 0.05]]
    upper = [[0.036, 0.115], [0.038, 0.135], [0.036, 0.155], [0.014, 0.172], [0.0135, 0.19], [0.0172, 0.19]]
    cap = [[0.0175, 0.192], [0.0175, 0.21], [0.0155, 0.212], [0, 0.212]]
    profile = np.array(lower + upper + cap)
    sheet = print_sheet(23, (0.75, 0.72, 0.6))
    lattice = np.random.default_rng(24).random((32, 32, 32)).astype(np.float32)

    def albedo(points: ndarray, footprint_m: float) -> ndarray:
        z = points[:, 2:]
        color = sheet.sample_metres(_around(points, 0.036), footprint_m)
        mottle = 1 + 0.25 * (solid_noise(points, lattice, 0.006) - 0.5)[:, None]
        plastic = np.array([0.08, 0.2, 0.42], dtype=np.float32) * mottle
        ribs = np.sin(np.arctan2(points[:, 1], points[:, 0]) * 36)[:, None]
        cap = np.array([0.7, 0.12, 0.05], dtype=np.float32) * (1 + 0.25 * ribs) * mottle
        return np.where(z > 0.189, cap, np.where((z > 0.028) & (z < 0.14), color, plastic)).astype(np.float32)

    return TexturedMesh.with_solid(revolved(profile), albedo)


def _mug() -> TexturedMesh:
    radius, height, wall = 0.041, 0.095, 0.0045

    def distance(p: ndarray) -> ndarray:
        r = np.hypot(p[:, 0], p[:, 1])
        outer = intersection(r - radius, np.abs(p[:, 2] - height / 2) - height / 2, 0.004)
        cavity = intersection(r - (radius - wall), 0.007 - p[:, 2], 0.012)
        ring = np.hypot(np.hypot((p[:, 0] - radius) * 1.1, p[:, 2] - 0.05) - 0.028, p[:, 1]) - 0.0055
        handle = intersection(ring, radius - wall / 2 - r, 0.002)
        return intersection(union(outer, handle, 0.006), -cavity, 0.003)

    sheet = print_sheet(37, (0.12, 0.32, 0.5))
    lattice = np.random.default_rng(38).random((32, 32, 32)).astype(np.float32)

    def albedo(points: ndarray, footprint_m: float) -> ndarray:
        r = np.hypot(points[:, 0], points[:, 1])[:, None]
        speckle = (
            solid_noise(points, lattice, 0.002)[:, None] * 0.5 + solid_noise(points, lattice, 0.011)[:, None] * 0.5
        )
        glaze = np.array([0.7, 0.66, 0.55], dtype=np.float32) * (0.45 + 0.75 * speckle)
        color = sheet.sample_metres(_around(points, radius), footprint_m)
        return np.where(np.abs(r - radius) < 0.0008, color, glaze).astype(np.float32)

    mesh = closed_mesh(distance, (-0.045, -0.045, -0.003), (0.078, 0.045, 0.099), 0.0015)
    return TexturedMesh.with_solid(mesh, albedo)


def _figure() -> TexturedMesh:
    limbs = [
        ((0.0, -0.017, 0.062), (0.0, -0.02, 0.008), 0.0055, 0.0045),
        ((0.0, 0.017, 0.062), (0.004, 0.02, 0.008), 0.0055, 0.0045),
        ((0.0, -0.02, 0.0055), (0.016, -0.023, 0.0055), 0.0065, 0.0055),
        ((0.004, 0.02, 0.0055), (0.02, 0.023, 0.0055), 0.0065, 0.0055),
        ((0.0, -0.016, 0.108), (0.006, -0.045, 0.088), 0.0045, 0.004),
        ((0.006, -0.045, 0.088), (0.028, -0.05, 0.1), 0.004, 0.0045),
        ((0.0, 0.016, 0.108), (0.0, 0.042, 0.128), 0.0045, 0.004),
        ((0.0, 0.042, 0.128), (0.004, 0.05, 0.156), 0.004, 0.0045),
        ((0.002, -0.012, 0.158), (0.0, -0.017, 0.176), 0.005, 0.004),
        ((0.002, 0.012, 0.158), (0.0, 0.017, 0.176), 0.005, 0.004),
        ((-0.016, 0.0, 0.066), (-0.042, 0.0, 0.082), 0.0055, 0.004),
        ((0.0, 0.0, 0.11), (0.002, 0.0, 0.14), 0.009, 0.01),
    ]

    def distance(p: ndarray) -> ndarray:
        body = capsule(p, (0.0, 0.0, 0.07), (0.0, 0.0, 0.102), 0.021, 0.016)
        body = union(body, np.linalg.norm((p - [0.003, 0.0, 0.146]) / [1.05, 1, 0.9], axis=1) - 0.019, 0.006)
        body = union(body, capsule(p, (0.016, 0.0, 0.142), (0.026, 0.0, 0.14), 0.008, 0.005), 0.004)
        for start, end, a, b in limbs:
            body = union(body, capsule(p, start, end, a, b), 0.005)
        return intersection(body, -p[:, 2], 0.002)

    lattice = np.random.default_rng(53).random((48, 48, 48)).astype(np.float32)

    def albedo(points: ndarray, footprint_m: float) -> ndarray:
        cells = (0.016, 0.005, 0.0018, 0.0008)
        layers = [solid_noise(points + 0.01 * k, lattice, cell) for k, cell in enumerate(cells) if cell > footprint_m]
        fur = sum(w * (layer - 0.5) for w, layer in zip((0.9, 1.0, 1.1, 0.8), layers, strict=False))
        tone = 1 / (1 + np.exp(-5 * np.asarray(fur)))[:, None]
        bands = (np.sin(points[:, 2] * 420 + 5 * (layers[0] - 0.5)) > 0.55)[:, None]
        warm = np.array([0.08, 0.05, 0.04]) + tone * np.array([0.6, 0.42, 0.2])
        return np.where(bands, [0.1, 0.2, 0.35] * (0.4 + tone), warm).astype(np.float32)

    mesh = closed_mesh(distance, (-0.05, -0.06, -0.003), (0.04, 0.06, 0.185), 0.0013)
    return TexturedMesh.with_solid(mesh, albedo)


def _wrapped(
    mesh: trimesh.Trimesh, seed: int, radius_m: float, ground: tuple[float, float, float] = (0.5, 0.45, 0.2)
) -> TexturedMesh:
    sheet = print_sheet(seed, ground)
    return TexturedMesh.with_solid(mesh, lambda points, foot: sheet.sample_metres(_around(points, radius_m), foot))


def _sphere() -> TexturedMesh:
    mesh = trimesh.creation.icosphere(subdivisions=6, radius=0.05)
    mesh.apply_translation([0, 0, 0.05])
    return _wrapped(mesh, 61, 0.05)


def _torus() -> TexturedMesh:
    mesh = trimesh.creation.torus(0.05, 0.02, major_sections=160, minor_sections=64)
    mesh.apply_translation([0, 0, 0.02])
    return _wrapped(mesh, 67, 0.06)


def _can() -> TexturedMesh:
    side = [[0, 0.0015], [0.027, 0.0015], [0.0295, 0], [0.033, 0.004], [0.033, 0.104], [0.0295, 0.11]]
    return _wrapped(revolved(np.array([*side, [0.0275, 0.1085], [0, 0.1085]])), 71, 0.033, (0.1, 0.35, 0.12))


def _vase() -> TexturedMesh:
    lower = [[0, 0], [0.03, 0], [0.034, 0.004], [0.044, 0.03], [0.046, 0.055], [0.036, 0.085], [0.021, 0.11]]
    upper = [[0.018, 0.13], [0.026, 0.152], [0.032, 0.16], [0.03, 0.164], [0, 0.166]]
    return _wrapped(revolved(np.array(lower + upper)), 73, 0.036, (0.2, 0.25, 0.55))


def _wedge() -> TexturedMesh:
    """A slice of a round cheese: 50 degrees of a cylinder, its edges rounded."""
    half_angle, reach, height = np.radians(25), 0.1, 0.06
    left, right = (np.array([-np.sin(half_angle), sign * np.cos(half_angle), 0]) for sign in (1, -1))

    def distance(p: ndarray) -> ndarray:
        sides = intersection(p @ left, p @ right, 0.006)
        slab = np.abs(p[:, 2] - height / 2) - height / 2
        return intersection(intersection(sides, np.hypot(p[:, 0], p[:, 1]) - reach, 0.006), slab, 0.006)

    sheet = print_sheet(79, (0.75, 0.5, 0.08))

    def albedo(points: ndarray, footprint_m: float) -> ndarray:
        flat = np.minimum(points[:, 2], height - points[:, 2]) < 0.002
        # along the slanted sides from the tip, around the rind, and from above on top
        along = np.hypot(points[:, 0], points[:, 1]) + 0.4 * np.arctan2(points[:, 1], points[:, 0])
        side = np.stack([along, -points[:, 2]], axis=1)
        return sheet.sample_metres(np.where(flat[:, None], points[:, :2] + 0.11, side), footprint_m)

    mesh = closed_mesh(distance, (-0.002, -0.046, -0.002), (0.104, 0.046, 0.064), 0.0012)
    return TexturedMesh.with_solid(mesh, albedo)


def _duck() -> TexturedMesh:
    def distance(p: ndarray) -> ndarray:
        body = capsule(p, (-0.012, 0.0, 0.031), (0.014, 0.0, 0.03), 0.031, 0.031)
        body = union(body, capsule(p, (-0.02, 0.0, 0.04), (-0.052, 0.0, 0.058), 0.02, 0.005), 0.015)
        body = union(body, capsule(p, (0.022, 0.0, 0.045), (0.026, 0.0, 0.07), 0.016, 0.015), 0.01)
        body = union(body, np.linalg.norm(p - [0.029, 0.0, 0.082], axis=1) - 0.0215, 0.006)
        body = union(body, capsule(p, (0.046, 0.0, 0.079), (0.06, 0.0, 0.077), 0.0085, 0.0055), 0.004)
        for side in (-1, 1):
            wing = capsule(p, (0.006, 0.029 * side, 0.037), (-0.026, 0.028 * side, 0.043), 0.012, 0.006)
            body = union(body, wing, 0.004)
        return intersection(body, 0.004 - p[:, 2], 0.003)

    sheet = print_sheet(83, (0.7, 0.55, 0.05))

    def albedo(points: ndarray, footprint_m: float) -> ndarray:
        print_ = sheet.sample_metres(_around(points, 0.035), footprint_m)
        bill = (points[:, 0] > 0.0475) & (points[:, 2] > 0.065)
        return (
            np.where(bill[:, None], np.array([0.7, 0.16, 0.02]) * (0.4 + print_), print_).clip(0, 1).astype(np.float32)
        )

    mesh = closed_mesh(distance, (-0.062, -0.048, -0.003), (0.07, 0.048, 0.108), 0.0013)
    return TexturedMesh.with_solid(mesh, albedo)


_MAKERS: dict[str, Callable[[], TexturedMesh]] = {
    "box": _box,
    "bottle": _bottle,
    "mug": _mug,
    "figure": _figure,
    "sphere": _sphere,
    "torus": _torus,
    "can": _can,
    "vase": _vase,
    "wedge": _wedge,
    "duck": _duck,
}
BUILTIN_MESHES = tuple(_MAKERS)
