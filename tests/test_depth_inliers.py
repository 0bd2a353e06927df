"""Probabilities of depth readings against the true error, on simulated clear and mirror-like balls; their files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image as Pillow

from benchmarks.depth_truth import WRONG_M
from benchmarks.paired import auroc
from neuralrecon.capture import Capture, SensorKind, read_capture, read_depth
from neuralrecon.errors import CaptureError
from neuralrecon.label import (
    DepthInliers,
    Solid,
    View,
    depth_inliers,
    partial_cloud,
    read_depth_inliers,
    write_depth_inliers,
)
from neuralrecon.scene import Scene, SceneConfig
from neuralrecon.simulate import Material, SimulateConfig, simulate


@pytest.fixture(scope="module", params=[Material.glass, Material.mirror])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Scene, Solid]:
    """The true mesh is the surface: no fit is needed."""
    config = SimulateConfig(
        mesh="sphere", material=request.param, n_stops=10, n_width=160, np_width=96, depth_width=160, supersample=1
    )
    folder = simulate(config, tmp_path_factory.mktemp("captures") / request.param)
    capture = read_capture(folder)
    scene = Scene.from_capture(capture, SceneConfig(hull_resolution=64))
    return capture, scene, Solid.of(trimesh.load_mesh(folder / "gt" / "gt_mesh.ply"))


def rays_of(capture: Capture, found: DepthInliers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World directions of all pixels, their depth per distance, and the camera's centre: a second way to them."""
    camera = capture.sensor(found.image.sensor).camera
    v, u = np.mgrid[: camera.height, : camera.width]
    in_cam = camera.rays(torch.from_numpy(np.stack([u.ravel(), v.ravel()], axis=1) + 0.5)).numpy()
    lengths = np.linalg.norm(in_cam, axis=1)
    world_from_cam = capture.sensor_from_world(found.image).matrix().inverse().numpy()
    return in_cam / lengths[:, None] @ world_from_cam[:3, :3].T, 1 / lengths, world_from_cam[:3, 3]


def errors_of(capture: Capture, truth: Solid, found: DepthInliers) -> np.ndarray:
    """Error along the ray in metres; nan where nothing was read or the ray misses the truth."""
    directions, depth_per_distance, centre = rays_of(capture, found)
    depth = read_depth(capture, found.image)
    distance = np.where(depth > 0, depth, np.nan).ravel() / depth_per_distance
    error = distance - truth.first_hit(np.broadcast_to(centre, directions.shape), directions)
    return np.where(np.isfinite(error), error, np.nan).reshape(depth.shape)


def test_they_tell_right_from_wrong(seen: tuple[Capture, Scene, Solid]) -> None:
    capture, scene, truth = seen
    probability, right = [], []
    for found in depth_inliers(capture, scene, truth):
        error = errors_of(capture, truth, found)
        told = np.isfinite(error)
        probability.append(found.probability[told])
        right.append(np.abs(error[told]) <= WRONG_M)
        assert found.probability.min() >= 0
        assert found.probability.max() <= 1
        assert not found.probability[~found.was_read].any()
    believed, truly = np.concatenate(probability), np.concatenate(right)
    assert 0.02 < truly.mean() < 0.5  # the canary: most readings are wrong
    found_auroc = auroc(believed, truly)
    assert found_auroc is not None
    assert found_auroc >= 0.95
    assert truly[believed >= 0.5].mean() > 0.95


def test_a_surface_that_is_elsewhere_believes_nothing(seen: tuple[Capture, Scene, Solid]) -> None:
    """A ball of half the size: where rays meet it within 30 degrees of its normal, what reads 15 mm off lies 13 mm from
    it, nearly 9 times the spread of 1.5 mm. What is left is the twentieth of the prior."""
    capture, scene, truth = seen
    radius = 0.5 * truth.half_size.max()
    small = trimesh.creation.icosphere(subdivisions=4, radius=radius).apply_translation(truth.centre)
    n_asked = 0
    for found in depth_inliers(capture, scene, small):
        directions, _, centre = rays_of(capture, found)
        past = np.linalg.norm(np.cross(directions, truth.centre - centre), axis=1).reshape(found.probability.shape)
        distance = np.abs(errors_of(capture, Solid.of(small), found))
        asked = (past < 0.5 * radius) & (distance > 0.015)
        n_asked += asked.sum()
        assert found.probability[asked].max(initial=0) <= 0.05
    assert n_asked > 100


def test_files_come_back_and_sum_up(seen: tuple[Capture, Scene, Solid], tmp_path: Path) -> None:
    capture, scene, truth = seen
    found = list(depth_inliers(capture, scene, truth))
    told = write_depth_inliers(found, tmp_path / "inliers")
    images = capture.images_of(SensorKind.depth)
    names = {f"{image.path.stem}.png" for image in images} | {"depth_inliers.json"}
    assert {path.name for path in (tmp_path / "inliers").iterdir()} == names
    for one, image in zip(found, images, strict=True):
        camera = capture.sensor(image.sensor).camera
        back = read_depth_inliers(tmp_path / "inliers", image, camera)
        np.testing.assert_allclose(back, one.probability, atol=0.5 / 255 + 1e-6)
        with Pillow.open(tmp_path / "inliers" / f"{image.path.stem}.png") as file:
            assert (file.mode, file.size) == ("L", (camera.width, camera.height))
    summary = json.loads((tmp_path / "inliers" / "depth_inliers.json").read_text())["sensors"]
    for sensor in told:
        of_sensor = [f for f in found if f.image.sensor == sensor.sensor]
        on = np.concatenate([f.on_object.ravel() for f in of_sensor])
        read = np.concatenate([f.was_read.ravel() for f in of_sensor])[on]
        assert sensor.pixels == on.sum()
        assert sensor.missing == pytest.approx(1 - read.mean(), abs=1e-4)
        assert sensor.missing + sensor.believed + sensor.not_believed == pytest.approx(1, abs=2e-4)
        assert summary[sensor.sensor]["believed"] == sensor.believed
    other = replace(capture.sensor(images[0].sensor).camera, width=7)
    with pytest.raises(CaptureError, match="want 7 x"):
        read_depth_inliers(tmp_path / "inliers", images[0], other)


def test_writing_that_breaks_off_leaves_no_summary(seen: tuple[Capture, Scene, Solid], tmp_path: Path) -> None:
    capture, scene, truth = seen
    found = depth_inliers(capture, scene, truth)
    first = next(found)
    write_depth_inliers([first], tmp_path)

    def broken():
        yield first
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_depth_inliers(broken(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{first.image.path.stem}.png"]


def test_cleaned_clouds_keep_what_is_believed(seen: tuple[Capture, Scene, Solid]) -> None:
    capture, scene, truth = seen
    found = next(depth_inliers(capture, scene, truth))
    view = View(camera=capture.sensor(found.image.sensor).camera, cam_from_world=capture.sensor_from_world(found.image))
    depth = read_depth(capture, found.image)
    options = {"margin_m": 0.5, "distance_m": 0.003}
    cloud = partial_cloud(depth, view, truth, **options, probability=found.probability)
    assert len(cloud.raw) > len(cloud.cleaned)
    in_box = np.abs(cloud.raw - truth.centre).max() < 0.6
    assert in_box
    assert len(cloud.cleaned) == (found.probability >= 0.5).sum()
    none = partial_cloud(depth, view, truth, **options, probability=np.zeros_like(found.probability))
    assert len(none.cleaned) == 0
    np.testing.assert_array_equal(none.raw, cloud.raw)
