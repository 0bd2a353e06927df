"""Meshes of fits whose field is known in closed form: volume, genus, underside, one body, files."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import marching_cubes
from torch import Tensor
from trimesh.visual import ColorVisuals

from neuralrecon.errors import ConfigError, MeshError
from neuralrecon.evaluate import read_mesh
from neuralrecon.extract import MeshConfig, extract_mesh, write_mesh
from neuralrecon.extract.bricks import SIDE, Lattice
from neuralrecon.extract.solid import keep_one_solid
from neuralrecon.extract.surface import Surface
from neuralrecon.geometry import Box, Similarity
from neuralrecon.render import Occupancy
from neuralrecon.train import Fit, FitConfig

CENTER = torch.tensor([0.02, -0.01, 0.06], dtype=torch.float64)
RADIUS = 0.05
VOXEL_MM = 1.5
Distance = Callable[[Tensor], Tensor]  # of points in world (metres), positive outside


@dataclass(frozen=True)
class KnownModel:
    """The parts of a `SurfaceModel` that extraction uses."""

    distance: Distance
    unit_from_world: Similarity

    def sdf(self, points: Tensor) -> Tensor:
        world = self.unit_from_world.inverse().apply(points.double())
        return (self.distance(world) * self.unit_from_world.scale).float()

    def color(self, points: Tensor, normals: Tensor, directions: Tensor, rig_from_world: Tensor) -> Tensor:
        world = self.unit_from_world.inverse().apply(points)
        low = world[:, 2:] < CENTER[2]
        return torch.where(low, torch.tensor([0.2, 0.4, 0.6]), torch.tensor([1.0, 0.0, 0.2]))


def sphere(points: Tensor) -> Tensor:
    return (points - CENTER).norm(dim=1) - RADIUS


def torus(points: Tensor) -> Tensor:
    away = points - CENTER
    return (away[:, :2].norm(dim=1) - 0.04).hypot(away[:, 2]) - 0.015


def fit_of(distance: Distance, floor_m: float | None = None, side: int = 64) -> Fit:
    box = Box(low=(CENTER - 0.06).float(), high=(CENTER + 0.06).float())
    scale = 1 / 0.14  # 10 mm of margin on each side
    unit_from_world = Similarity(scale=scale, translation=(0.5 - scale * CENTER).float())
    model: Any = KnownModel(distance=distance, unit_from_world=unit_from_world)
    axis = (torch.arange(side) + 0.5) / side
    centers = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    return Fit(
        name="known",
        model=model,
        config=FitConfig(),
        unit_from_world=unit_from_world,
        box=box,
        floor_m=floor_m,
        is_metric=True,
        world_per_mm=1e-3,
        occupancy=Occupancy.from_sdf(model.sdf(centers).reshape(side, side, side), 0.01),
        view_origins=torch.tensor([[2.0, 0.5, 0.5], [0.5, 2.0, 0.7], [0.5, -1.0, 1.5], [-1.0, 0.4, 0.2]]),
        view_rig_from_world=torch.eye(3).expand(4, 3, 3),
        blur=0.002,
        step=1,
    )


def off_surface_m(mesh: trimesh.Trimesh, distance: Distance) -> np.ndarray:
    return distance(torch.from_numpy(np.array(mesh.vertices))).abs().numpy()


def colors_of(mesh: trimesh.Trimesh) -> np.ndarray:
    assert isinstance(mesh.visual, ColorVisuals)
    return np.asarray(mesh.visual.vertex_colors)[:, :3]


# linear interpolation between samples `h` apart puts a vertex off by at most h^2 / 8 * bend of the sdf along the edge
def interpolation_m(radius: float, voxel_mm: float = VOXEL_MM) -> float:
    return (voxel_mm * 1e-3) ** 2 / 8 / radius * 1.1 + 2e-3 * voxel_mm * 1e-3  # and values below h / 1000 are moved


def test_a_sphere_comes_out_closed_in_metres() -> None:
    mesh = extract_mesh(fit_of(sphere), MeshConfig(voxel_mm=VOXEL_MM))
    assert mesh.is_volume
    assert mesh.body_count == 1
    assert mesh.euler_number == 2
    assert off_surface_m(mesh, sphere).max() < interpolation_m(RADIUS)
    # facets cut below the sphere by h^2 / 8r on average less than that, vertices likewise: two layers of it at most
    truth = 4 / 3 * math.pi * RADIUS**3
    thickness = 2 * interpolation_m(RADIUS)
    assert truth - 4 * math.pi * RADIUS**2 * thickness < mesh.volume < truth
    assert np.allclose(mesh.center_mass, CENTER.numpy(), atol=thickness)
    outwards = np.einsum("ij,ij->i", mesh.face_normals, mesh.triangles_center - CENTER.numpy())
    assert (outwards > 0).mean() > 0.999  # slivers may lean
    assert mesh.volume > 0


def test_finer_voxels_are_quadratically_closer() -> None:
    coarse, fine = (extract_mesh(fit_of(sphere), MeshConfig(voxel_mm=v, vertex_colors=False)) for v in (3.0, 1.5))
    truth = 4 / 3 * math.pi * RADIUS**3
    assert (truth - coarse.volume) / (truth - fine.volume) == pytest.approx(4, rel=0.15)


def test_a_torus_keeps_its_hole() -> None:
    mesh = extract_mesh(fit_of(torus), MeshConfig(voxel_mm=VOXEL_MM))
    assert mesh.is_volume
    assert mesh.euler_number == 0
    assert mesh.volume == pytest.approx(2 * math.pi**2 * 0.04 * 0.015**2, rel=4 * interpolation_m(0.015) / 0.015)
    assert off_surface_m(mesh, torus).max() < interpolation_m(0.015)


def test_the_underside_is_the_table() -> None:
    """A sphere that reaches 20 mm below the table is cut there: a flat, closed cap."""
    floor = float(CENTER[2]) - 0.03
    mesh = extract_mesh(fit_of(sphere, floor_m=floor), MeshConfig(voxel_mm=VOXEL_MM))
    assert mesh.is_volume
    assert mesh.euler_number == 2
    low = mesh.vertices[:, 2] < floor + 1e-4
    assert mesh.vertices[:, 2].min() == pytest.approx(floor, abs=2e-6)  # a thousandth of a voxel
    flat = mesh.face_normals[:, 2] < -0.999
    area = math.pi * (RADIUS**2 - 0.03**2)
    # the rim runs within one voxel of the circle
    rim = 2 * math.pi * 0.04 * VOXEL_MM * 1e-3
    assert mesh.area_faces[flat].sum() == pytest.approx(area, abs=rim)
    cap_height = RADIUS - 0.03
    cut_off = math.pi * cap_height**2 * (RADIUS - cap_height / 3)
    truth = 4 / 3 * math.pi * RADIUS**3 - cut_off
    assert mesh.volume == pytest.approx(truth, abs=4 * math.pi * RADIUS**2 * 2 * interpolation_m(RADIUS) + rim * 7e-4)
    rest = off_surface_m(mesh, sphere)[~low & (mesh.vertices[:, 2] > floor + VOXEL_MM * 1e-3)]
    assert rest.max() < interpolation_m(RADIUS)


def test_other_bodies_are_left_out() -> None:
    def two(points: Tensor) -> Tensor:
        small = (points - CENTER - torch.tensor([0.0, 0.045, 0.045], dtype=torch.float64)).norm(dim=1) - 0.008
        return torch.minimum((points - CENTER).norm(dim=1) - 0.03, small)

    mesh = extract_mesh(fit_of(two), MeshConfig(voxel_mm=VOXEL_MM, vertex_colors=False))
    assert mesh.is_volume
    assert mesh.body_count == 1
    assert np.linalg.norm(mesh.vertices - CENTER.numpy(), axis=1).max() < 0.0301


def test_cavities_are_filled() -> None:
    def hollow(points: Tensor) -> Tensor:
        return torch.maximum(sphere(points), 0.02 - (points - CENTER).norm(dim=1))

    mesh = extract_mesh(fit_of(hollow), MeshConfig(voxel_mm=VOXEL_MM, vertex_colors=False))
    assert mesh.is_volume
    assert mesh.body_count == 1
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.01)


def test_a_wall_thinner_than_the_occupancy_cells_is_kept() -> None:
    """A bowl whose wall is 1.6 mm, in cells of 2.2 mm and voxels of 0.8 mm."""

    def bowl(points: Tensor) -> Tensor:
        away = points - CENTER
        return torch.maximum((away.norm(dim=1) - RADIUS).abs() - 0.0008, away[:, 2] - 0.03)

    mesh = extract_mesh(fit_of(bowl), MeshConfig(voxel_mm=0.8, vertex_colors=False))
    assert mesh.is_volume
    assert mesh.euler_number == 2
    # a shell of 1.6 mm over the sphere's part below +30 mm, whose area is 2 pi r (r + 30 mm); the rim's slant and
    # interpolation cost less than 6 %
    assert mesh.volume == pytest.approx(2 * math.pi * RADIUS * (RADIUS + 0.03) * 0.0016, rel=0.06)


# ------------------------------------------------------------------------------- bricks against one dense array


def sponge(points: Tensor) -> Tensor:
    """A ball of labyrinths, tubes, drops and bubbles, some of them touching by corners only; slope at most 1."""
    away = (points - CENTER) * 2 * math.pi
    x, y, z = (away / 0.013).unbind(1)
    gyroid = (x.sin() * y.cos() + y.sin() * z.cos() + z.sin() * x.cos()) * 0.013 / (2 * math.pi * 3**0.5)
    u, v, w = (away / 0.0071).unbind(1)
    drops = (u.sin() * v.sin() * w.sin() + 0.4) * 0.0071 / (2 * math.pi * 3**0.5)
    return torch.maximum((points - CENTER).norm(dim=1) - 0.048, torch.minimum(gyroid.abs() - 0.0006, drops))


def dense_values(fit: Fit, lattice: Lattice) -> np.ndarray:
    """The model at every node, in voxels, with the rules of the edge, the table and zero."""
    axes = [torch.from_numpy(lattice.low[a] + lattice.voxel * np.arange(lattice.shape[a])) for a in range(3)]
    points = torch.stack(torch.meshgrid(axes[0], axes[1], axes[2], indexing="ij"), dim=-1).reshape(-1, 3)
    asked = fit.model.sdf(fit.unit_from_world.apply(points).float()).reshape(lattice.shape).numpy()
    values = np.ones(lattice.shape, np.float32)
    core = (slice(1, -1),) * 3
    values[core] = asked[core] / np.float32(fit.unit_from_world.scale * lattice.voxel)
    if fit.floor_m is not None:
        values = np.maximum(values, ((fit.floor_m - axes[2]) / lattice.voxel).numpy().astype(np.float32))
    values[np.abs(values) < 1e-3] = 1e-3
    return values


def one_solid(values: np.ndarray) -> np.ndarray:
    """The largest solid without its cavities, by labels on the whole array."""
    solids = np.asarray(ndimage.label(values < 0)[0])  # pyright: ignore[reportIndexIssue]
    values = np.where((solids > 0) & (solids != np.bincount(solids[solids > 0]).argmax()), np.float32(1), values)
    rooms = np.asarray(ndimage.label(values >= 0)[0])  # pyright: ignore[reportIndexIssue]
    return np.where((rooms > 0) & (rooms != rooms[0, 0, 0]), np.float32(-1), values)


@pytest.mark.parametrize(
    ("distance", "voxel_mm", "floor_m"),
    [(sphere, 1.7, float(CENTER[2]) - 0.0304), (torus, 1.0, None), (sponge, 1.1, None)],
)
def test_bricks_give_the_surface_of_the_dense_array(distance: Distance, voxel_mm: float, floor_m: float | None) -> None:
    """Same vertices, same triangles: linear interpolation in float32, of values up to 2 voxels."""
    fit = fit_of(distance, floor_m)
    lattice = Lattice.around(fit, voxel_mm * 1e-3)
    assert max(lattice.shape) > SIDE  # there are seams
    values = one_solid(dense_values(fit, lattice))
    vertices, faces = (np.asarray(part) for part in marching_cubes(values, 0.0)[:2])
    found = Surface.of(keep_one_solid(lattice.sample(), "known"))
    in_voxels = (found.vertices - lattice.low) / lattice.voxel
    gaps, named = map(np.asarray, KDTree(vertices).query(in_voxels))
    # float32 at 200 voxels: 1.5e-5; values in voxels off by as much move a vertex by that share of an edge
    assert gaps.max() < 1e-3
    assert len(np.unique(named)) == len(found.vertices) == len(vertices)
    reference = trimesh.Trimesh(vertices, faces, process=False)
    outward = faces if reference.volume > 0 else faces[:, ::-1]
    assert triangles(named[found.faces]) == triangles(outward)
    assert found.volume() == pytest.approx(abs(reference.volume) * lattice.voxel**3, rel=1e-5)
    assert found.is_closed()
    assert found.largest_body() is found


def triangles(faces: np.ndarray) -> set[tuple[int, int, int]]:
    """With the lowest corner first: the winding stays."""
    first = faces.argmin(axis=1)[:, None]
    a, b, c = np.take_along_axis(faces, (first + np.arange(3)) % 3, axis=1).T
    return set(zip(a.tolist(), b.tolist(), c.tolist(), strict=True))


def test_the_model_is_asked_near_the_surface_only() -> None:
    """At 0.35 mm the occupancy grid's band is 10.4 mm wide and holds 30 voxels; a third of that is asked."""
    fit, n_asked = fit_of(sphere), 0
    model: Any = fit.model
    ask = model.sdf

    class Counting:
        def sdf(self, points: Tensor) -> Tensor:
            nonlocal n_asked
            n_asked += len(points)
            return ask(points)

    counting: Any = Counting()
    lattice = Lattice.around(replace(fit, model=counting), 0.35e-3)
    lattice.sample()
    area = 4 * math.pi * RADIUS**2 / 0.35e-3**2
    # 1.5 sqrt(3) voxels on both sides, as much again (an eighth of the nodes of twice the size) in each coarser level,
    # the band itself on every fourth node, and what lies around a brick is asked twice: 66^3 / 64^3 and 68^3 / 64^3
    assert n_asked < 1.3 * area * (5.2 * 1.5 + 30 / 64)


def test_memory_goes_with_the_surface_not_with_the_grid() -> None:
    """A ball of 15 mm in a grid of 1030^3 nodes, whose values alone would take 4.4 GB."""
    small = fit_of(lambda points: (points - CENTER).norm(dim=1) - 0.015)
    assert min(Lattice.around(small, 0.1366e-3).shape) > 1024
    tracemalloc.start()
    mesh = extract_mesh(small, MeshConfig(voxel_mm=0.1366, vertex_colors=False))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert mesh.is_volume
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.015**3, rel=1e-4)
    assert peak < 250e6


def test_a_surface_that_is_not_closed_is_known() -> None:
    ball = trimesh.creation.icosphere(subdivisions=2)
    vertices, faces = np.asarray(ball.vertices), np.asarray(ball.faces, np.int32)
    whole = Surface(vertices=vertices, faces=faces)
    assert whole.is_closed()
    assert whole.volume() == pytest.approx(ball.volume)
    assert (whole.normals() * vertices).sum(axis=1).min() > math.cos(math.radians(3))  # the faces around are not alike
    assert not Surface(vertices=vertices, faces=faces[1:]).is_closed()
    assert not Surface(vertices=vertices, faces=faces[:, ::-1]).is_closed()
    assert not Surface(vertices=vertices, faces=np.concatenate([faces, faces])).is_closed()
    assert not Surface(vertices=vertices, faces=np.concatenate([faces[:1, ::-1], faces[1:]])).is_closed()
    two = Surface(
        vertices=np.concatenate([0.5 * vertices + 3, vertices]), faces=np.concatenate([faces, faces + len(vertices)])
    )
    assert two.is_closed()
    assert np.array_equal(two.largest_body().vertices, vertices)
    assert np.array_equal(two.largest_body().faces, faces)


def test_simplified_meshes_stay_closed() -> None:
    full = extract_mesh(fit_of(torus), MeshConfig(voxel_mm=VOXEL_MM, vertex_colors=False))
    few = extract_mesh(fit_of(torus), MeshConfig(voxel_mm=VOXEL_MM, target_faces=1500))
    assert len(full.faces) > 10_000
    assert 1000 < len(few.faces) <= 1600
    assert few.is_volume
    assert few.euler_number == 0
    assert few.volume == pytest.approx(full.volume, rel=0.02)
    assert len(colors_of(few)) == len(few.vertices)


def test_colours_are_those_of_the_field() -> None:
    mesh = extract_mesh(fit_of(sphere), MeshConfig(voxel_mm=3.0))
    colors = colors_of(mesh)
    low = mesh.vertices[:, 2] < float(CENTER[2]) - 1e-4
    assert (colors[low] == [51, 102, 153]).all()
    assert (colors[mesh.vertices[:, 2] > float(CENTER[2]) + 1e-4] == [255, 0, 51]).all()
    plain = extract_mesh(replace(fit_of(sphere), view_origins=torch.zeros(0, 3)), MeshConfig(voxel_mm=3.0))
    assert plain.visual is not None
    assert not plain.visual.defined


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb", ".stl"])
def test_files_read_back_as_the_same_solid(tmp_path: Path, suffix: str) -> None:
    mesh = extract_mesh(fit_of(torus), MeshConfig(voxel_mm=3.0))
    path = tmp_path / f"mesh{suffix}"
    write_mesh(mesh, path)
    back = trimesh.load(path, force="mesh", skip_materials=True)  # trimesh has colours or a material
    assert isinstance(back, trimesh.Trimesh)
    if suffix == ".glb":  # y is up there, and z towards whoever looks at the front
        back.vertices = back.vertices @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    np.testing.assert_array_equal(read_mesh(path).bounds, back.bounds)
    back.merge_vertices()
    assert back.is_volume
    assert len(back.faces) == len(mesh.faces)
    assert back.euler_number == 0
    assert back.volume == pytest.approx(mesh.volume, rel=1e-4)  # float32, or eight digits of text
    assert np.allclose(back.bounds, mesh.bounds, atol=1e-7)
    if suffix == ".ply":
        assert {tuple(c) for c in colors_of(back)} == {(51, 102, 153), (255, 0, 51)}
    if suffix == ".glb":  # linear: 255 * (((c / 255 + 0.055) / 1.055) ** 2.4)
        assert {tuple(c) for c in colors_of(back)} == {(8, 34, 81), (255, 0, 8)}


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mesh.xyz"
    with pytest.raises(MeshError, match=r"mesh\.xyz: meshes are written as \.ply"):
        write_mesh(trimesh.creation.box(), path)
    assert not path.exists()


def test_what_no_mesh_can_be_made_of_is_an_error() -> None:
    with pytest.raises(MeshError, match="known: the fitted sdf is nowhere negative"):
        extract_mesh(fit_of(lambda points: sphere(points) + 0.2), MeshConfig(voxel_mm=3.0))
    with pytest.raises(MeshError, match="choose a larger voxel_mm"):
        extract_mesh(fit_of(sphere), MeshConfig(voxel_mm=0.02))
    with pytest.raises(ConfigError, match="voxel_mm must be above 0"):
        MeshConfig(voxel_mm=0)
    with pytest.raises(ConfigError, match="target_faces"):
        MeshConfig(target_faces=20)
