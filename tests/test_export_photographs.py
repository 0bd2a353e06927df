"""nerfstudio and COLMAP folders: read by our readers, by pycolmap, by the formats' own words; names, links, masks."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
import trimesh
from PIL import Image
from run_folders import write_run
from tiny_captures import write_bigbird, write_plain_folder

from neuralrecon.capture import (
    Capture,
    SensorKind,
    SparsePoints,
    read_capture,
    read_color,
    read_depth,
    read_mask,
    read_points,
)
from neuralrecon.errors import ConfigError, ExportError
from neuralrecon.export import ExportFormat, Images, surface_points, write_colmap_project, write_nerfstudio
from neuralrecon.export.__main__ import cli
from neuralrecon.export.folders import file_names
from neuralrecon.export.run import export_run

N_PHOTOGRAPHS = 12


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    return read_capture(write_bigbird(tmp_path_factory.mktemp("captures") / "mug", bodies=(1, 3), stops=(0, 30, 90)))


def seen_points(n_images: int) -> SparsePoints:
    """Three points, each seen twice."""
    return SparsePoints(
        xyz=np.array([[0.1, 0.2, 0.3], [-0.1, 0.0, 0.2], [0.0, 0.0, 0.1]]),
        rgb=np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8),
        error_px=np.array([0.5, 0.25, np.nan]),
        image_index=np.array([0, n_images - 1, 1, 2, 0, 3], np.int64),
        point_index=np.array([0, 0, 1, 1, 2, 2], np.int64),
        pixel=np.arange(12.0).reshape(6, 2),
    )


def by_picture(capture: Capture) -> dict[str, tuple]:
    """(camera, cam_from_world, pixels, outline) of each photograph, by its sensor and stop."""
    found = {}
    for image in capture.images_of(SensorKind.color):
        name = "_".join(image.path.with_suffix("").parts[-2:]) if image.path.parent.name[0] == "N" else image.path.stem
        pose = capture.sensor_from_world(image).matrix().numpy()
        found[name] = (
            capture.sensor(image.sensor).camera,
            pose,
            read_color(capture, image),
            read_mask(capture, image),
        )
    return found


def assert_same_photographs(back: Capture, capture: Capture) -> None:
    ours, theirs = by_picture(capture), by_picture(back)
    assert ours.keys() == theirs.keys()
    assert len(ours) == N_PHOTOGRAPHS
    for name, (camera, pose, rgb, mask) in ours.items():
        got, got_pose, got_rgb, got_mask = theirs[name]
        assert (got.width, got.height) == (camera.width, camera.height)
        values = ([c.fx, c.fy, c.cx, c.cy, *c.distortion] for c in (got, camera))
        np.testing.assert_allclose(*values, rtol=1e-14)
        np.testing.assert_allclose(got_pose, pose, atol=1e-13)
        np.testing.assert_array_equal(got_rgb, rgb)
        np.testing.assert_array_equal(got_mask, mask)


def test_nerfstudio_comes_back(tmp_path: Path, capture: Capture) -> None:
    write_nerfstudio(capture, tmp_path, seen_points(N_PHOTOGRAPHS))
    back = read_capture(tmp_path)
    assert (back.layout, back.is_metric, back.has_table, back.left_out) == ("transforms", True, True, ())
    assert_same_photographs(back, capture)
    points = read_points(back)
    assert points is not None
    np.testing.assert_allclose(points.xyz, seen_points(N_PHOTOGRAPHS).xyz, atol=1e-7)
    np.testing.assert_array_equal(points.rgb, seen_points(N_PHOTOGRAPHS).rgb)


def test_nerfstudio_s_parser_finds_all_of_it(tmp_path: Path, capture: Capture) -> None:
    """It reads a key from the frames only if that key, or any of distortion's, is not at the top.

    A point before the camera, by OpenGL's axes and the frame's own numbers, is where the capture projects it.
    """
    write_nerfstudio(capture, tmp_path)
    top = json.loads((tmp_path / "transforms.json").read_text(encoding="utf-8"))
    assert top["camera_model"] == "OPENCV"
    assert not {"fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "k3", "p1", "p2"} & set(top)
    assert all("mask_path" in frame for frame in top["frames"])
    assert not any("depth_file_path" in frame for frame in top["frames"])
    images = {f"images/{i.sensor}/{i.frame}.jpg": i for i in capture.images_of(SensorKind.color)}
    assert {frame["file_path"] for frame in top["frames"]} == set(images)
    for frame in top["frames"]:
        x, y, z = 0.1, -0.05, 1.0
        in_world = np.array(frame["transform_matrix"]) @ [x, -y, -z, 1]
        r2 = x * x + y * y
        radial = 1 + frame["k1"] * r2 + frame["k2"] * r2**2 + frame["k3"] * r2**3
        u = x * radial + 2 * frame["p1"] * x * y + frame["p2"] * (r2 + 2 * x * x)
        v = y * radial + frame["p1"] * (r2 + 2 * y * y) + 2 * frame["p2"] * x * y
        pixel = [frame["fl_x"] * u + frame["cx"], frame["fl_y"] * v + frame["cy"]]
        image = images[frame["file_path"]]
        in_cam = capture.sensor_from_world(image).apply(torch.from_numpy(in_world[:3]))
        np.testing.assert_allclose(capture.sensor(image.sensor).camera.project(in_cam), pixel, rtol=1e-10)
        with Image.open(tmp_path / frame["mask_path"]) as mask:
            assert mask.mode == "L"
            np.testing.assert_array_equal(np.asarray(mask) == 255, read_mask(capture, image))


def test_equal_cameras_stand_once_at_the_top(tmp_path: Path) -> None:
    capture = read_capture(write_plain_folder(tmp_path / "plain"))
    write_nerfstudio(capture, tmp_path)
    top = json.loads((tmp_path / "transforms.json").read_text(encoding="utf-8"))
    assert {"fl_x", "k1", "k3", "camera_model", "depth_unit_scale_factor"} <= set(top)
    assert all(set(f) == {"file_path", "transform_matrix", "mask_path", "depth_file_path"} for f in top["frames"])


def test_depth_is_in_the_photograph_s_pixels_in_millimetres(tmp_path: Path) -> None:
    """Two cameras in one place, of other sizes and fields of view; 700 mm everywhere."""
    root = write_plain_folder(tmp_path / "plain")
    told = json.loads((root / "capture.json").read_text(encoding="utf-8"))
    told["sensors"][1]["sensor_from_rig"] = told["sensors"][0]["sensor_from_rig"]
    (root / "capture.json").write_text(json.dumps(told), encoding="utf-8")
    capture = read_capture(root)
    for image in capture.images_of(SensorKind.depth):
        camera = capture.sensor(image.sensor).camera
        Image.fromarray(np.full((camera.height, camera.width), 700, np.uint16)).save(image.path)
    write_nerfstudio(capture, tmp_path / "out")
    back = read_capture(tmp_path / "out")
    depths = back.images_of(SensorKind.depth)
    assert len(depths) == 2
    for image in depths:
        color = next(i for i in back.images_of(SensorKind.color) if i.frame == image.frame)
        assert back.sensor(image.sensor).camera == back.sensor(color.sensor).camera
        metres = read_depth(back, image)
        assert (metres > 0).any()
        np.testing.assert_allclose(metres[metres > 0], 0.7, atol=1e-6)


def test_photographs_without_an_outline_are_left_out_and_said(
    tmp_path: Path, capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    first, *others = capture.images
    bare = replace(capture, images=(replace(first, mask_path=None), *others))
    write_nerfstudio(bare, tmp_path)
    assert len(read_capture(tmp_path).images) == N_PHOTOGRAPHS - 1
    assert "1 of 12 photographs have no outline and are left out" in caplog.text
    assert "depth is left out, for no depth sensor is nearest to photographs of " in caplog.text


def test_colmap_comes_back(tmp_path: Path, capture: Capture) -> None:
    photographs = replace(capture, images=capture.images_of(SensorKind.color))
    model = write_colmap_project(photographs, tmp_path, seen_points(N_PHOTOGRAPHS))
    assert model == tmp_path / "sparse" / "0"
    back = read_capture(tmp_path)
    assert (back.layout, back.is_metric, back.has_table, back.left_out) == ("colmap", True, True, ())
    assert_same_photographs(back, capture)
    assert {i.sensor: i.path.parent.name for i in back.images} == {n: n for n in ("N1", "N3", "NP1", "NP3")}
    points = read_points(back)
    assert points is not None
    np.testing.assert_allclose(points.xyz, seen_points(N_PHOTOGRAPHS).xyz)
    seen = [(back.images[i].path.parent.name, back.images[i].path.stem) for i in points.image_index]
    images = photographs.images
    assert seen == [(images[i].sensor, images[i].frame) for i in seen_points(N_PHOTOGRAPHS).image_index]


def test_colmap_without_our_own_file_has_masks_and_rigs(tmp_path: Path, capture: Capture) -> None:
    """What any other program finds: our sidecar is taken away."""
    (write_colmap_project(capture, tmp_path) / "neuralrecon.json").unlink()
    back = read_capture(tmp_path)
    assert not back.is_metric
    assert back.left_out == ()
    assert_same_photographs(back, capture)
    assert len(back.sensors) == 4
    assert len(back.frames) == 3


def test_pycolmap_has_the_cameras(tmp_path: Path, capture: Capture) -> None:
    model = pycolmap.Reconstruction(str(write_colmap_project(capture, tmp_path, seen_points(N_PHOTOGRAPHS))))
    assert len(model.rigs) == 1
    assert len(model.frames) == 3
    assert len(model.points3D) == 3
    images = {f"{i.sensor}/{i.frame}.jpg": i for i in capture.images_of(SensorKind.color)}
    assert {image.name for image in model.images.values()} == set(images)
    point = np.array([0.11, -0.07, 0.9])
    for image in model.images.values():
        ours = images[image.name]
        assert (tmp_path / "images" / image.name).is_file()
        assert (tmp_path / "masks" / f"{image.name}.png").is_file()
        pose = capture.sensor_from_world(ours)
        np.testing.assert_allclose(image.cam_from_world().matrix(), pose.matrix()[:3], atol=1e-13)
        pixel = model.cameras[image.camera_id].img_from_cam(point)
        want = capture.sensor(ours.sensor).camera.project(torch.from_numpy(point))
        np.testing.assert_allclose(pixel, want, rtol=1e-12)


def test_photographs_are_linked_or_copied(tmp_path: Path, capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    source = capture.images[0].path
    write_colmap_project(capture, tmp_path / "linked", images=Images.link)
    assert (tmp_path / "linked" / "images" / "N1" / "0.jpg").samefile(source)
    assert read_capture(tmp_path / "linked").left_out == ()
    write_colmap_project(capture, tmp_path / "copied")
    copy = tmp_path / "copied" / "images" / "N1" / "0.jpg"
    assert not copy.samefile(source)
    assert copy.read_bytes() == source.read_bytes()

    def other_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    with pytest.raises(ExportError, match=r"Invalid cross-device link.*images=copy"):
        write_colmap_project(capture, tmp_path / "elsewhere", images=Images.link)


def test_names_stay_inside() -> None:
    names = file_names(["../up", "a/b", "a_b", "..", "N1"])
    assert names == {"../up": "up", "a/b": "a_b", "a_b": "a_b_2", "..": "unnamed", "N1": "N1"}


def test_the_command_writes_a_run(tmp_path: Path, capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    mesh = trimesh.creation.icosphere(radius=0.05)
    run = write_run(tmp_path / "run", mesh, capture)
    words = [f"run={run}", "formats=[colmap,nerfstudio,urdf]", "body.most_parts=1", "sensors=[N1,N3]", "images=link"]
    assert cli(words) == 0
    assert f"urdf: {run / 'export' / 'urdf'}" in capsys.readouterr().out
    assert sorted(p.name for p in (run / "export").iterdir()) == ["colmap", "nerfstudio", "urdf"]
    model = pycolmap.Reconstruction(str(run / "export" / "colmap" / "sparse" / "0"))
    assert len(model.points3D) == len(mesh.vertices)
    assert len(model.images) == 6
    assert cli(words) == 2
    assert "overwrite=true" in capsys.readouterr().err
    assert cli([*words, "overwrite=true"]) == 0
    assert cli([f"run={run}"]) == 2
    assert "formats must be given" in capsys.readouterr().err


def test_an_unscaled_run_keeps_its_photographs(tmp_path: Path, capture: Capture) -> None:
    run = write_run(tmp_path / "run", trimesh.creation.icosphere(radius=1.0), capture, is_metric=False)
    export_run(run, [ExportFormat.nerfstudio, ExportFormat.colmap], sensors=["N1"])
    for name in ("nerfstudio", "colmap"):
        assert not read_capture(run / "export" / name).is_metric
    with pytest.raises(ExportError, match="unscaled"):
        export_run(run, [ExportFormat.mjcf])


def test_nothing_is_written_without_a_run_or_photographs(tmp_path: Path, capture: Capture) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        export_run(tmp_path / "none", [ExportFormat.urdf])
    run = write_run(tmp_path / "run", trimesh.creation.icosphere(radius=0.05), capture)
    with pytest.raises(ExportError, match="colmap needs the photographs"):
        export_run(run, [ExportFormat.colmap], sensors=["NP1_depth"])


def test_points_of_a_mesh_are_its_vertices() -> None:
    mesh = trimesh.creation.icosphere(subdivisions=3)
    points = surface_points(mesh, 100)
    assert len(np.unique(points.xyz, axis=0)) == 100
    np.testing.assert_allclose(np.linalg.norm(points.xyz, axis=1), 1, atol=1e-12)
