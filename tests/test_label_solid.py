"""Inside, outside and distance against closed forms, and against winding numbers as the second route."""

from __future__ import annotations

import igl
import numpy as np
import pytest
import trimesh

from neuralrecon import files
from neuralrecon.errors import MeshError
from neuralrecon.label import OccupancyLabels, Sampling, Solid, label_occupancy
from neuralrecon.label.sampling import in_ball, near_surface, on_surface

R = 0.05
N = 20_000


def ball(radius: float = R, subdivisions: int = 5) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)


def sag(mesh: trimesh.Trimesh) -> float:
    """How far the ball's flat faces lie inside the sphere at most."""
    distances = np.einsum("ij,ij->i", mesh.face_normals, mesh.triangles[:, 0])
    return float(np.linalg.norm(mesh.vertices[0]) - distances.min())


def box(size=(0.1, 0.2, 0.3), centre=(0.02, -0.03, 0.15)) -> trimesh.Trimesh:
    mesh = trimesh.creation.box(extents=size)
    mesh.apply_translation(centre)
    return mesh


def box_sdf(points: np.ndarray, size=(0.1, 0.2, 0.3), centre=(0.02, -0.03, 0.15)) -> np.ndarray:
    q = np.abs(points - np.array(centre)) - np.array(size) / 2
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)


def test_ball_is_inside_where_the_radius_is_smaller():
    mesh = ball()
    points = np.random.default_rng(0).uniform(-1.2 * R, 1.2 * R, (N, 3))
    radius = np.linalg.norm(points, axis=1)
    clear = (radius < R - sag(mesh)) | (radius > R)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(Solid.of(mesh).contains(points)[clear], (radius < R)[clear])


def test_ball_distance_is_radius_within_the_facets():
    mesh = ball()
    points = np.random.default_rng(1).uniform(-1.5 * R, 1.5 * R, (N, 3))
    off = Solid.of(mesh).signed_distance(points) - (np.linalg.norm(points, axis=1) - R)
    assert off.min() >= -1e-12
    assert off.max() <= sag(mesh) + 1e-12


def test_box_distance_is_exact():
    points = np.random.default_rng(2).uniform(-0.3, 0.4, (N, 3))
    np.testing.assert_allclose(Solid.of(box()).signed_distance(points), box_sdf(points), atol=1e-12)


def test_torus_has_its_hole_outside():
    mesh = trimesh.creation.torus(major_radius=0.05, minor_radius=0.02, major_sections=256, minor_sections=128)
    points = np.random.default_rng(3).uniform(-0.075, 0.075, (N, 3))
    ring = np.hypot(np.hypot(points[:, 0], points[:, 1]) - 0.05, points[:, 2]) - 0.02
    # Chords of 256 and 128 sections lie at most this far from the circles.
    tolerance = 0.07 * (1 - np.cos(np.pi / 256)) + 0.02 * (1 - np.cos(np.pi / 128))
    clear = np.abs(ring) > tolerance
    solid = Solid.of(mesh)
    np.testing.assert_array_equal(solid.contains(points)[clear], (ring < 0)[clear])
    assert np.abs(solid.signed_distance(points) - ring).max() <= tolerance


def test_rays_agree_with_exact_winding_numbers_near_a_rough_surface():
    mesh = ball(subdivisions=4)
    rough = np.random.default_rng(4).normal(0, 2e-4, (len(mesh.vertices), 1))
    mesh = trimesh.Trimesh(mesh.vertices * (1 + rough / R), mesh.faces, process=False)
    solid = Solid.of(mesh)
    assert solid.rays_decide
    points = near_surface(mesh, 3000, 1e-3, np.random.default_rng(5))
    exact = igl.winding_number(np.array(mesh.vertices), np.array(mesh.faces, dtype=np.int64), points)
    np.testing.assert_array_equal(solid.contains(points), np.asarray(exact) > 0.5)


def test_hollow_ball():
    inner = ball(R / 2)
    inner.invert()
    solid = Solid.of(trimesh.util.concatenate([ball(), inner]))
    assert solid.closed
    radius = np.linspace(0.001, 1.2 * R, 2000)
    points = radius[:, None] * np.array([[0.6, 0.48, 0.64]])
    clear = (np.abs(radius - R) > sag(ball())) & (np.abs(radius - R / 2) > sag(ball()))
    np.testing.assert_array_equal(solid.contains(points)[clear], ((radius > R / 2) & (radius < R))[clear])


def test_overlapping_bodies_are_told_by_winding_numbers():
    other = ball()
    other.apply_translation([R, 0, 0])
    solid = Solid.of(trimesh.util.concatenate([ball(), other]))
    assert solid.closed
    assert not solid.rays_decide  # the first face met may be the other body's front
    points = np.random.default_rng(6).uniform([-R, -R, -R], [2 * R, R, R], (N, 3))
    radius = np.minimum(np.linalg.norm(points, axis=1), np.linalg.norm(points - [R, 0, 0], axis=1))
    clear = (radius < R - sag(other)) | (radius > R)
    np.testing.assert_array_equal(solid.contains(points)[clear], (radius < R)[clear])


def test_far_from_the_origin_nothing_is_lost():
    shift = np.array([10.0, -20.0, 30.0])
    points = np.random.default_rng(7).uniform(-0.3, 0.4, (N, 3))
    moved = Solid.of(box(centre=np.array((0.02, -0.03, 0.15)) + shift))
    np.testing.assert_array_equal(moved.contains(points + shift), box_sdf(points) < 0)


@pytest.mark.parametrize("sampling", list(Sampling))
def test_labels_are_those_of_the_stored_points(sampling):
    labels = label_occupancy(box(), N, sampling=sampling, sigma_m=0.002, seed=3)
    truth = box_sdf(labels.points_in_world.astype(np.float64))
    np.testing.assert_array_equal(labels.occupancy, truth < 0)
    np.testing.assert_allclose(labels.sdf_m, truth, atol=1e-7)
    assert labels.observed is None
    near = {"uniform": 0, "near_surface": N, "mixed": N // 2}[sampling]
    assert labels.near_surface.sum() == near


def test_sampling_has_the_stated_distribution():
    labels = label_occupancy(box(), 2 * N, sampling=Sampling.mixed, sigma_m=0.001, seed=0)
    uniform = labels.points_in_world[~labels.near_surface]
    volume = 0.1 * 0.2 * 0.3 / ((0.1 + 0.06) * (0.2 + 0.06) * (0.3 + 0.06))
    assert abs(labels.occupancy[~labels.near_surface].mean() - volume) < 4 * np.sqrt(volume * (1 - volume) / N)
    np.testing.assert_allclose(uniform.min(axis=0), [-0.06, -0.16, -0.03], atol=1e-3)
    # Away from edges the distance is one normal deviate of sigma; edges (few) only make it smaller.
    assert abs(np.sqrt((labels.sdf_m[labels.near_surface] ** 2).mean()) - 0.001) < 0.03e-3


def test_surface_points_are_uniform_by_area():
    points, face = on_surface(box(), N, np.random.default_rng(0))
    np.testing.assert_allclose(box_sdf(points), 0, atol=1e-12)
    share = np.bincount(face, minlength=12) / N
    np.testing.assert_allclose(share, box().area_faces / box().area, atol=4 * np.sqrt(0.25 / N))
    np.testing.assert_allclose(points.mean(axis=0), box().bounds.mean(axis=0), atol=4 * 0.15 / np.sqrt(N))


def test_points_fill_the_ball():
    radius = np.linalg.norm(in_ball(2.0, N, np.random.default_rng(0)), axis=1)
    np.testing.assert_allclose(np.quantile(radius / 2, [0.125, 0.5, 1]), [0.5, 0.5 ** (1 / 3), 1], atol=0.01)


def test_a_seed_decides_everything():
    first, same, other = (label_occupancy(box(), 500, sampling=Sampling.mixed, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.points_in_world, same.points_in_world)
    np.testing.assert_array_equal(first.sdf_m, same.sdf_m)
    assert not np.array_equal(first.points_in_world, other.points_in_world)


def test_open_and_inverted_meshes_have_no_labels():
    open_box, inverted = box(), box()
    open_box.update_faces(np.arange(12) > 0)
    inverted.invert()
    with pytest.raises(MeshError, match="3 edges that are not shared"):
        label_occupancy(open_box, 10)
    with pytest.raises(MeshError, match="volume of -6000"):
        label_occupancy(inverted, 10)
    with pytest.raises(MeshError, match="no face"):
        Solid.of(trimesh.Trimesh(np.zeros((3, 3)), np.zeros((0, 3), dtype=int)))


def test_an_open_mesh_is_still_told_by_winding_numbers():
    mesh = ball()
    mesh.update_faces(mesh.triangles_center[:, 2] > -0.9 * R)
    solid = Solid.of(mesh)
    assert not solid.closed
    assert solid.contains(np.array([[0, 0, 0.01], [0, 0, 2 * R]])).tolist() == [True, False]


def test_labels_come_back_from_their_file(tmp_path):
    labels = label_occupancy(box(), 100, seed=1)
    back = OccupancyLabels.load(labels.save(tmp_path / "deep" / "labels.npz"))
    np.testing.assert_array_equal(back.points_in_world, labels.points_in_world)
    np.testing.assert_array_equal(back.occupancy, labels.occupancy)
    assert (back.sigma_m, back.observed) == (labels.sigma_m, None)
    assert (back.points_in_world.dtype, back.occupancy.dtype, back.sdf_m.dtype) == (np.float32, bool, np.float32)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = files.write_npz(tmp_path / "a.npz", x=np.arange(3))
    before = path.read_bytes()

    def broken(file, **arrays):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(files.np, "savez", broken)
    with pytest.raises(OSError, match="disk full"):
        files.write_npz(path, x=np.arange(4))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
