"""Scores of meshes and labels whose values are known in closed form."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import trimesh

from neuralrecon.errors import ConfigError, MeshError
from neuralrecon.evaluate import (
    EvaluateConfig,
    align,
    closedness,
    compare_labels,
    evaluate_files,
    evaluate_mesh,
    write_report,
)
from neuralrecon.evaluate.mesh import f_score, moved
from neuralrecon.geometry import Camera, Rigid
from neuralrecon.label import Sampling, Solid, View, label_occupancy
from neuralrecon.label.sampling import on_surface

R, N = 0.05, 20_000
QUICK = EvaluateConfig(n_samples=N, with_alignment=False)


def ball(radius: float = R) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=5, radius=radius)


def sag_mm(mesh: trimesh.Trimesh) -> float:
    """How far the ball's flat faces lie inside the sphere at most."""
    distances = np.einsum("ij,ij->i", mesh.face_normals, mesh.triangles[:, 0])
    return float(np.linalg.norm(mesh.vertices[0]) - distances.min()) * 1e3


def box() -> trimesh.Trimesh:
    mesh = trimesh.creation.box(extents=(0.06, 0.1, 0.16))
    mesh.apply_translation([0.01, -0.02, 0.08])
    return mesh


def small_motion() -> Rigid:
    turned = Rigid.about_axis("z", 1.2) @ Rigid.about_axis("x", -0.7)
    return Rigid(rotation=turned.rotation, translation=torch.tensor([0.002, -0.001, 0.0015], dtype=torch.float64))


def test_a_mesh_is_itself():
    report = evaluate_mesh(box(), box(), EvaluateConfig(n_samples=N))
    assert report.aligned is not None
    for scores in (report.raw, report.aligned):
        assert scores.chamfer_mm < 1e-6
        assert (scores.f_score_0_5mm, scores.iou) == (1.0, 1.0)
        assert scores.normal_consistency == pytest.approx(1.0)
    assert report.rotation_deg == pytest.approx(0, abs=1e-4)
    assert report.shift_mm == pytest.approx(0, abs=1e-6)


def test_an_inflated_ball():
    grown = 0.7e-3
    scores = evaluate_mesh(ball(R + grown), ball(), QUICK).raw
    tolerance = sag_mm(ball(R + grown))
    for value in (scores.accuracy_mm, scores.completeness_mm, scores.chamfer_mm, scores.accuracy_median_mm):
        assert value == pytest.approx(0.7, abs=tolerance)
    assert (scores.f_score_0_5mm, scores.f_score_1mm, scores.f_score_2mm) == (0.0, 1.0, 1.0)
    iou = (R / (R + grown)) ** 3
    in_union = N * 4 / 3 * math.pi * (R + grown) ** 3 / (2 * R * 1.2) ** 3
    assert scores.iou == pytest.approx(iou, abs=4 * math.sqrt(iou * (1 - iou) / in_union))
    # Normals of neighbouring facets differ by the angle of one edge at most.
    assert scores.normal_consistency > math.cos(float(ball().face_adjacency_angles.max()))


def test_accuracy_and_completeness_look_in_opposite_directions():
    two = trimesh.util.concatenate([ball(), ball().apply_translation([0.3, 0, 0])])
    missing, extra = evaluate_mesh(ball(), two, QUICK).raw, evaluate_mesh(two, ball(), QUICK).raw
    assert missing.accuracy_mm < 1e-6 < 50 < missing.completeness_mm
    assert extra.completeness_mm < 1e-6 < 50 < extra.accuracy_mm
    assert missing.f_score_1mm == pytest.approx(2 / 3, abs=0.01)  # precision 1, recall one half
    assert missing.iou == pytest.approx(0.5, abs=0.1)


def test_f_score_by_construction():
    assert f_score(np.array([0.4, 0.6]), np.array([0.4, 0.4]), 0.5) == pytest.approx(2 / 3)
    assert f_score(np.array([0.5]), np.array([0.1]), 0.5) == 0.0  # below the threshold, not at it
    assert f_score(np.array([2.0]), np.array([2.0]), 1.0) == 0.0


def test_alignment_recovers_a_small_motion():
    truth_from_mesh = small_motion()
    points = on_surface(moved(box(), truth_from_mesh.inverse()), 5000, np.random.default_rng(0))[0]
    found = align(points, Solid.of(box()))
    off = found @ truth_from_mesh.inverse()
    assert float((off.rotation - torch.eye(3)).abs().max()) < 1e-7
    assert float(off.translation.abs().max()) < 1e-8


def test_alignment_takes_a_motion_out_of_the_scores():
    truth_from_mesh = small_motion()
    report = evaluate_mesh(moved(box(), truth_from_mesh.inverse()), box(), EvaluateConfig(n_samples=N))
    assert report.aligned is not None
    assert report.raw.chamfer_mm > 0.5
    assert report.aligned.chamfer_mm < 1e-4
    assert report.aligned.iou == pytest.approx(1.0, abs=1e-3)
    angle = math.degrees(math.acos((float(torch.trace(truth_from_mesh.rotation)) - 1) / 2))
    assert report.rotation_deg == pytest.approx(angle, abs=1e-4)
    middle = torch.from_numpy(box().centroid.copy())
    shift = float((truth_from_mesh.apply(middle) - middle).norm()) * 1e3
    assert report.shift_mm == pytest.approx(shift, abs=0.05)  # the middle of the samples, not of the box


def test_what_the_surface_does_not_resist_stays():
    points = on_surface(ball().apply_translation([0.002, 0, -0.001]), 5000, np.random.default_rng(0))[0]
    found = align(points, Solid.of(ball()))
    # The facets of the two balls differ in place: a few of their sags over the square root of the count.
    np.testing.assert_allclose(found.translation.numpy(), [-0.002, 0, 0.001], atol=2e-5)
    assert float((found.rotation - torch.eye(3)).abs().max()) < 0.01


def from_far_above() -> View:
    rotation = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    centre = torch.tensor([0.0, 0.0, 10.0], dtype=torch.float64)
    camera = Camera(width=100, height=100, fx=2000.0, fy=2000.0, cx=50.0, cy=50.0)
    return View(camera=camera, cam_from_world=Rigid(rotation=rotation, translation=-(rotation @ centre)))


def test_only_what_is_seen_has_to_be_there():
    half = ball()
    half.update_faces(half.triangles_center[:, 2] > 0)
    whole = evaluate_mesh(half, ball(), QUICK)
    seen = evaluate_mesh(half, ball(), QUICK, views=[from_far_above()])
    assert whole.seen_share == 1.0
    assert whole.raw.completeness_mm > 5
    # Less than 85 degrees between normal and view, from 10 m away: the cap's height over the diameter.
    assert seen.seen_share == pytest.approx((1 - math.cos(math.radians(85 - math.degrees(R / 10)))) / 2, abs=0.015)
    assert seen.raw.completeness_mm < 1e-6
    all_of_it = evaluate_mesh(half, ball(), replace(QUICK, only_seen=False), views=[from_far_above()])
    assert all_of_it.raw == whole.raw
    assert not seen.closedness.is_watertight
    assert seen.closedness.n_bodies == 1


def test_on_a_table_its_contact_does_not_count():
    dented = box()
    dented.vertices[dented.vertices[:, 2] < 1e-6, 2] = -0.02
    scores = evaluate_mesh(dented, box(), QUICK, on_table=True).raw
    assert scores.accuracy_mm < 1e-6
    assert scores.completeness_mm < 0.01  # the points right above the table's 1.5 mm see the wall: all but none
    assert evaluate_mesh(dented, box(), QUICK).raw.accuracy_mm > 1


def test_closedness_of_bodies_and_holes():
    two = trimesh.util.concatenate([ball(), ball().apply_translation([0.3, 0, 0])])
    found = closedness(two)
    assert (found.is_watertight, found.is_winding_consistent, found.n_bodies) == (True, True, 2)
    assert found.volume_cm3 == pytest.approx(2 * 4 / 3 * math.pi * 125, rel=0.005)
    soup = trimesh.Trimesh(box().triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    assert closedness(soup).is_watertight  # repeated vertices are one
    flipped = box()
    flipped.faces[0] = flipped.faces[0][::-1]
    assert not closedness(flipped).is_winding_consistent


def test_a_seed_decides_everything():
    first, same, other = (
        evaluate_mesh(ball(R + 0.001), ball(), replace(QUICK, n_samples=1000, seed=s)) for s in (1, 1, 2)
    )
    assert first == same
    assert first.raw.chamfer_mm != other.raw.chamfer_mm


def test_labels_against_a_larger_truth():
    labels = label_occupancy(ball(), N, sampling=Sampling.mixed, sigma_m=0.001, seed=0)
    truth = ball(R + 0.001)
    found = compare_labels(labels, truth)
    shell = (truth.volume - ball().volume) / (2 * R * 1.2) ** 3
    assert found.uniform == pytest.approx(1 - shell, abs=4 * math.sqrt(shell / (N / 2)))
    # Near the surface a point is in the shell if its normal deviate lies between 0 and 1 sigma.
    assert found.near_surface == pytest.approx(1 - 0.3413, abs=0.02)
    assert found.false_inside == 0.0
    assert found.false_outside == pytest.approx((2 - found.uniform - found.near_surface) / 2)
    flipped = compare_labels(replace(labels, occupancy=~labels.occupancy), truth)
    assert flipped.uniform == pytest.approx(1 - found.uniform)
    assert flipped.false_outside > 0.2
    seen = compare_labels(replace(labels, observed=labels.sdf_m > 0.002), truth)
    assert (found.observed, seen.observed) == (None, 1.0)


def test_files_and_report(tmp_path):
    ball(R + 0.001).export(tmp_path / "mesh.stl")  # without shared vertices
    ball().export(tmp_path / "truth.ply")
    config = replace(QUICK, n_samples=2000)
    report = evaluate_files(tmp_path / "mesh.stl", tmp_path / "truth.ply", config)
    assert report.closedness.is_watertight
    assert report.chamfer_mm == pytest.approx(1.0, abs=0.05)
    back = json.loads(write_report(tmp_path / "deep" / "report.json", report).read_text())
    assert back == asdict(report)
    nowhere = replace(report, truth_volume_cm3=math.inf)
    assert json.loads(write_report(tmp_path / "x.json", nowhere).read_text())["truth_volume_cm3"] is None


def test_bad_files_and_settings(tmp_path):
    ball().export(tmp_path / "ball.ply")
    (tmp_path / "broken.ply").write_bytes((tmp_path / "ball.ply").read_bytes()[:5000])
    trimesh.PointCloud(np.zeros((3, 3))).export(tmp_path / "cloud.ply")
    for name, message in (("no.ply", "no such file"), ("broken.ply", "not readable"), ("cloud.ply", "no triangles")):
        with pytest.raises(MeshError, match=f"{name}.*{message}"):
            evaluate_files(tmp_path / name, tmp_path / "ball.ply", QUICK)
    with pytest.raises(ConfigError, match="1000 or more, got 10"):
        EvaluateConfig(n_samples=10)
    far = ball().apply_translation([0, 0, -1])
    with pytest.raises(MeshError, match="nothing to compare"):
        evaluate_mesh(ball(), far, QUICK, on_table=True)
    with pytest.raises(MeshError, match="no part of the mesh"):
        evaluate_mesh(far, ball(), QUICK, on_table=True)
