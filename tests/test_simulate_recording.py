"""The capture folder: layout, round trip, determinism, nothing half-written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy.ndimage import binary_dilation

import neuralrecon.simulate.recording as recording
from neuralrecon.capture import SensorKind, read_capture, read_color, read_depth, read_mask
from neuralrecon.errors import ConfigError
from neuralrecon.simulate import Material, SimulateConfig, simulate
from neuralrecon.simulate.rig import build_rig, perturbed

SMALL = SimulateConfig(mesh="torus", n_stops=2, n_width=120, np_width=96, depth_width=96)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def capture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(SMALL, tmp_path_factory.mktemp("simulated") / "torus")


def test_layout_is_complete(capture_folder: Path) -> None:
    colors = [f"{kind}{i}" for kind in ("N", "NP") for i in range(1, 6)]
    expected = {"calibration.h5", "poses/turntable.h5"}
    expected |= {f"gt/{name}" for name in ("gt_mesh.ply", "calibration_exact.h5", "rig.npz", "params.json")}
    for angle in (0, 180):
        expected |= {f"{name}_{angle}.jpg" for name in colors}
        expected |= {f"masks/{name}_{angle}_mask.pbm" for name in colors}
        expected |= {f"NP{i}_{angle}.h5" for i in range(1, 6)} | {f"poses/NP5_{angle}_pose.h5"}
    assert set(digests(capture_folder)) == expected
    with h5py.File(capture_folder / "calibration.h5") as file:
        keys = {f"{n}_rgb_{x}" for n in colors for x in "Kd"} | {f"H_{n}_from_NP5" for n in colors}
        for i in range(1, 6):
            keys |= {f"NP{i}_{x}" for x in ("ir_K", "ir_d", "depth_K", "depth_scale", "depth_bias")}
            keys |= {f"NP{i}_ir_depth_scale", f"NP{i}_ir_depth_bias", f"H_NP{i}_ir_from_NP5"}
        assert set(file) == keys
        # the infrared grid is twice the depth image's, its centre 4.8 px (of 640) further right
        ir, depth = file["NP2_ir_K"][()], file["NP2_depth_K"][()]
        assert ir[0, 0] == pytest.approx(2 * depth[0, 0])
        assert (ir[0, 2] + 0.5) / 2 - 0.5 - depth[0, 2] == pytest.approx(4.8 * 96 / 640)
    with h5py.File(capture_folder / "NP1_0.h5") as file:
        assert list(file) == ["depth"]
        assert file["depth"].dtype == np.uint16
        assert file["depth"].shape == (72, 96)


def test_the_reader_gets_back_what_was_simulated(capture_folder: Path) -> None:
    capture = read_capture(capture_folder)
    assert capture.layout == "bigbird"
    assert len(capture.sensors) == 15
    assert [f.angle_deg for f in capture.frames] == [0.0, 180.0]
    assert len(capture.images) == 30
    truth = {s.name: s for s in perturbed(build_rig(SMALL), SMALL)}
    world = torch.tensor([[0.03, 0.01, 0.02], [-0.02, 0.05, 0.1]], dtype=torch.float64)
    for image in capture.images:
        sensor = capture.sensor(image.sensor)
        angle = capture.frame(image.frame).angle_deg or 0.0
        turned = world.clone()
        turned[:, :2] *= -1 if angle == 180 else 1
        expected = truth[sensor.name].camera.project(truth[sensor.name].sensor_from_rig.apply(turned))
        assert sensor.camera.project(capture.sensor_from_world(image).apply(world)) == pytest.approx(expected, abs=1e-6)
        if sensor.kind == SensorKind.depth:
            assert sensor.metres_per_unit == pytest.approx(truth[sensor.name].metres_per_unit)


def test_ground_truth_projects_into_the_masks_and_under_the_depth(tmp_path: Path) -> None:
    config = replace(SMALL, focal_percent=0, sensor_rotation_deg=0, sensor_translation_mm=0, depth_noise=0, n_width=267)
    folder = simulate(config, tmp_path / "exact")
    with h5py.File(folder / "calibration.h5") as a, h5py.File(folder / "gt" / "calibration_exact.h5") as b:
        # a turn by nothing is a product all the same, which rounds as the processor does
        assert all(np.allclose(a[key][()], b[key][()], rtol=0, atol=1e-14) for key in a)
    capture = read_capture(folder)
    mesh = trimesh.load_mesh(folder / "gt" / "gt_mesh.ply")
    assert mesh.is_volume
    for image in capture.images:
        sensor, sensor_from_world = capture.sensor(image.sensor), capture.sensor_from_world(image)
        if sensor.kind == SensorKind.color:
            assert read_color(capture, image).shape == (sensor.camera.height, sensor.camera.width, 3)
            mask = read_mask(capture, image)
            points = torch.from_numpy(np.array(mesh.triangles_center))
            uv = np.floor(sensor.camera.project(sensor_from_world.apply(points)).numpy()).astype(int)
            within = (uv >= 0).all(1) & (uv < [sensor.camera.width, sensor.camera.height]).all(1)
            drawn = np.zeros_like(mask)
            drawn[uv[within, 1], uv[within, 0]] = True
            assert mask.sum() > 80
            # a pixel that is half covered goes by its neighbours: a thin tip may lose more than one
            assert (drawn & ~binary_dilation(mask)).sum() <= 2
            assert not (drawn & ~binary_dilation(mask, iterations=3)).any()
            assert not (mask & ~binary_dilation(drawn)).any()
        else:
            z = read_depth(capture, image)
            v, u = np.nonzero(z)
            rays = sensor.camera.rays(torch.tensor(np.stack([u, v], 1) + 0.5))
            in_world = (
                sensor_from_world.inverse().apply(rays * torch.from_numpy(z[v, u].astype(float))[:, None]).numpy()
            )
            near = in_world[(np.hypot(in_world[:, 0], in_world[:, 1]) < 0.15) & (in_world[:, 2] > 0.005)]
            assert len(near) > 20
            # 0.1 mm units along the ray
            assert np.abs(trimesh.proximity.signed_distance(mesh, near)).max() < 0.1e-3


def test_same_seed_same_bytes_whatever_the_threads(capture_folder: Path, tmp_path: Path) -> None:
    again = simulate(replace(SMALL, workers=1), tmp_path / "again")
    assert digests(again) == digests(capture_folder)
    other = simulate(replace(SMALL, seed=1, n_stops=1), tmp_path / "other")
    assert digests(other)["N1_0.jpg"] != digests(again)["N1_0.jpg"]


def test_the_same_simulation_is_kept_and_another_refused(capture_folder: Path, monkeypatch) -> None:
    before = digests(capture_folder)
    monkeypatch.setattr(recording, "placed_mesh", lambda _: pytest.fail("rendered again"))
    assert simulate(replace(SMALL, workers=1), capture_folder) == capture_folder
    with pytest.raises(ConfigError, match=r"holds another simulation, material=matte \(want glass\)"):
        simulate(replace(SMALL, material=Material.glass), capture_folder)
    assert digests(capture_folder) == before


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(ConfigError, match="no simulated capture"):
        simulate(SMALL, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_nothing_is_left_of_an_interrupted_simulation(tmp_path: Path, monkeypatch, error: BaseException) -> None:
    develop = recording.develop
    calls = []

    def fail_later(*args):
        calls.append(1)
        if len(calls) == 5:
            raise error
        return develop(*args)

    monkeypatch.setattr(recording, "develop", fail_later)
    with pytest.raises(type(error)):
        simulate(SMALL, tmp_path / "captures" / "half")
    assert len(calls) >= 5
    assert list((tmp_path / "captures").iterdir()) == []


@pytest.mark.parametrize("material", [Material.glossy, Material.mirror, Material.glass])
def test_all_materials_make_a_capture(tmp_path: Path, material: Material) -> None:
    folder = simulate(replace(SMALL, material=material, n_stops=1), tmp_path / "torus")
    capture = read_capture(folder)
    assert len(capture.images) == 15
    pixels = np.asarray(Image.open(folder / "N2_0.jpg"))
    assert 30 < pixels.mean() < 220
    assert (pixels == 255).all(-1).mean() < 0.02


def test_an_open_mesh_is_rendered_with_a_warning(tmp_path: Path) -> None:
    bowl = trimesh.creation.icosphere(subdivisions=3, radius=0.05).slice_plane([0, 0, 0.01], [0, 0, -1])
    bowl.export(tmp_path / "bowl.ply")
    folder = simulate(replace(SMALL, mesh=str(tmp_path / "bowl.ply"), n_stops=1), tmp_path / "bowl")
    params = json.loads((folder / "gt" / "params.json").read_text())
    assert "no closed" in params["warnings"][0]
    assert params["settings"]["mesh_sha256"] == hashlib.sha256((tmp_path / "bowl.ply").read_bytes()).hexdigest()
    assert len(trimesh.load_mesh(folder / "gt" / "gt_mesh.ply").faces) == len(
        trimesh.load_mesh(tmp_path / "bowl.ply").faces
    )


def test_perturbation_has_the_stated_size() -> None:
    amounts = SimulateConfig(sensor_rotation_deg=0.5, sensor_translation_mm=2.0, focal_percent=1.0)
    rotation, shift, zoom = [], [], []
    for seed in range(8):
        exact = build_rig(replace(amounts, seed=seed))
        for a, b in zip(exact, perturbed(exact, replace(amounts, seed=seed)), strict=True):
            zoom.append(b.camera.fx / a.camera.fx - 1)
            change = b.sensor_from_rig @ a.sensor_from_rig.inverse()
            if a.name == "NP5":
                assert change.translation.abs().max() < 1e-12
                continue
            turn = change.rotation - change.rotation.T
            rotation += [float(turn[2, 1]) / 2, float(turn[0, 2]) / 2, float(turn[1, 0]) / 2]
            shift += change.translation.tolist()
    # 336 samples: the standard deviation is known to 1 / sqrt(2 n) = 4 %, 120 to 6.5 %; four times that
    assert np.degrees(np.std(rotation)) == pytest.approx(0.5, rel=0.16)
    assert np.std(shift) == pytest.approx(2e-3, rel=0.16)
    assert np.std(zoom) == pytest.approx(0.01, rel=0.26)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("n_stops", 7), ("n_stops", 0), ("n_width", 5000), ("supersample", 0), ("mask_holes", 1.0), ("workers", 0)],
)
def test_settings_out_of_range(setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=setting):
        SimulateConfig(**{setting: value})


def test_rig_stands_as_on_the_real_one() -> None:
    sensors = {s.name: s for s in build_rig(SimulateConfig(n_width=4272, np_width=1280, depth_width=640))}
    for i, elevation in enumerate((12.6, 34.2, 54.7, 73.75, 85.0), start=1):
        rig_from_cam = sensors[f"NP{i}"].sensor_from_rig.inverse()
        x, _, z = rig_from_cam.translation.tolist()
        assert np.degrees(np.arctan2(z, x)) == pytest.approx(elevation, abs=0.2)
        color_from_depth = sensors[f"NP{i}"].sensor_from_rig @ sensors[f"NP{i}_depth"].sensor_from_rig.inverse()
        assert color_from_depth.translation[0] == pytest.approx(-0.0259, abs=5e-4)
        for name in (f"N{i}", f"NP{i}", f"NP{i}_depth"):
            camera = sensors[name].camera
            middle = camera.project(sensors[name].sensor_from_rig.apply(torch.tensor([0.0, 0.0, 0.08]).double()))
            assert 0.2 < middle[0] / camera.width < 0.8
            assert 0.15 < middle[1] / camera.height < 0.85
    assert (sensors["N1"].camera.width, sensors["N1"].camera.height) == (4272, 2848)
    assert sensors["N1"].camera.fx == pytest.approx(4598, abs=40)
