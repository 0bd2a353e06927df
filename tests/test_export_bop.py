"""BOP data sets, read by the format's own description: json, struct, a projection by K, R and t; and by `read_bop`."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image
from run_folders import write_run

from neuralrecon.capture import Capture, SensorKind, read_bop, read_capture, read_depth, read_mask
from neuralrecon.errors import ConfigError, ExportError
from neuralrecon.export import BopConfig, ExportFormat, write_bop_dataset
from neuralrecon.export.bop_model import diameter
from neuralrecon.export.registered import depth_partners, registered_depth
from neuralrecon.export.run import export_run
from neuralrecon.export.undistort import Undistortion
from neuralrecon.geometry import Camera, Rigid
from neuralrecon.simulate import SimulateConfig, simulate

RADIUS_MM, CENTRE_MM = 50.0, np.array([6.0, -4.0, 50.0])


def ball() -> trimesh.Trimesh:
    """What the capture shows, as the simulator places it, with a colour that tells the way up."""
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=RADIUS_MM / 1e3)
    mesh.apply_translation(CENTRE_MM / 1e3)
    height = np.clip(mesh.vertices[:, 2] / 0.1 * 255, 0, 255).astype(np.uint8)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.stack([height, height, 0 * height], axis=1))
    return mesh


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """The ball at two stops, with lens distortion, exactly calibrated, 40 px wide in NP3's photographs and depth."""
    config = SimulateConfig(
        mesh="sphere",
        n_stops=2,
        n_width=240,
        np_width=320,
        depth_width=320,
        supersample=1,
        sensor_rotation_deg=0.0,
        sensor_translation_mm=0.0,
        focal_percent=0.0,
    )
    folder = simulate(config, tmp_path_factory.mktemp("captures") / "ball")
    return read_capture(folder).restricted(sensors=["N1", "NP3", "NP3_depth"])


@pytest.fixture(scope="module")
def data_set(capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "ball", ball(), capture)
    [done] = export_run(run, [ExportFormat.bop])
    assert done.folder == run / "export" / "bop"
    return done.folder


def scenes(data_set: Path) -> list[Path]:
    return sorted((data_set / "train").iterdir())


def told(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def binary_ply(file: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Properties of the vertices and the faces of a little-endian binary PLY, by its header."""
    head, _, body = file.read_bytes().partition(b"end_header\n")
    lines = head.decode().splitlines()
    assert lines[1] == "format binary_little_endian 1.0"
    letters = {"float": "f4", "uchar": "u1"}
    start = next(i for i, line in enumerate(lines) if line.startswith("element vertex"))
    end = next(i for i, line in enumerate(lines) if line.startswith("element face"))
    row = np.dtype([(words[2], f"<{letters[words[1]]}") for words in map(str.split, lines[start + 1 : end])])
    n_vertices, n_faces = int(lines[start].split()[2]), int(lines[end].split()[2])
    assert lines[end + 1] == "property list uchar int vertex_indices"
    vertices = np.frombuffer(body, row, n_vertices)
    faces = np.frombuffer(body, np.dtype([("n", "u1"), ("i", "<i4", 3)]), n_faces, offset=n_vertices * row.itemsize)
    assert (faces["n"] == 3).all()
    assert len(body) == n_vertices * row.itemsize + n_faces * struct.calcsize("<Biii")
    return {name: vertices[name] for name in row.names or ()}, faces["i"]


def points_of(vertices: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([vertices[a] for a in "xyz"], axis=1).astype(np.float64)


def drawn(points: np.ndarray, faces: np.ndarray, camera: dict, pose: dict, size: tuple[int, int]) -> np.ndarray:
    """The model's outline: s * p_i = K [R, t] p_m, triangles filled by OpenCV (pixel centres at integers there)."""
    matrix = np.array(camera["cam_K"]).reshape(3, 3)
    rotation, shift = np.array(pose["cam_R_m2c"]).reshape(3, 3), np.array(pose["cam_t_m2c"])
    homogeneous = (points @ rotation.T + shift) @ matrix.T
    pixels = homogeneous[:, :2] / homogeneous[:, 2:]
    # four times finer: OpenCV also fills pixels that an edge only touches
    image = np.zeros((size[1] * 4, size[0] * 4), np.uint8)
    for triangle in np.rint((pixels[faces] + 0.5) * 4 - 0.5).astype(np.int32):
        cv2.fillConvexPoly(image, triangle, 1)
    return image.reshape(size[1], 4, size[0], 4).mean(axis=(1, 3)) > 0.5


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_the_model_is_in_millimetres_about_its_middle(data_set: Path) -> None:
    vertices, faces = binary_ply(data_set / "models" / "obj_000001.ply")
    points = points_of(vertices)
    np.testing.assert_allclose(points.min(axis=0), -RADIUS_MM, atol=1e-3)
    np.testing.assert_allclose(points.max(axis=0), RADIUS_MM, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), RADIUS_MM, atol=1e-3)
    assert len(faces) == 20480
    a, b, c = (points[faces[:, i]] for i in range(3))
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), a) > 0).all()
    normals = np.stack([vertices[f"n{a}"] for a in "xyz"], axis=1)
    # normals of a sphere of 20480 faces are off by less than a tenth of an edge's angle (2 degrees)
    assert (np.einsum("ij,ij->i", normals, points / RADIUS_MM) > np.cos(np.radians(0.2))).all()
    np.testing.assert_allclose(vertices["red"], (points[:, 2] + 50) * 2.55, atol=1.01)
    info = told(data_set / "models" / "models_info.json")
    assert info.keys() == {"1"}
    assert info["1"]["diameter"] == pytest.approx(2 * RADIUS_MM, abs=2e-3)
    for axis in "xyz":
        assert info["1"][f"min_{axis}"] == pytest.approx(-RADIUS_MM, abs=1e-3)
        assert info["1"][f"size_{axis}"] == pytest.approx(2 * RADIUS_MM, abs=2e-3)
    assert len(info["1"]) == 7


def test_the_projected_model_covers_the_masks(data_set: Path, capture: Capture) -> None:
    """By K, R and t alone; the photograph's own outline, undistorted by OpenCV, agrees as well as its pixels allow.

    An outline of n pixels with a border of b pixels that may each go either way has an IoU above 1 - b / n.
    """
    vertices, faces = binary_ply(data_set / "models" / "obj_000001.ply")
    assert len(scenes(data_set)) == 2
    for scene, sensor in zip(scenes(data_set), ("N1", "NP3"), strict=True):
        cameras, poses = told(scene / "scene_camera.json"), told(scene / "scene_gt.json")
        images = [i for i in capture.images if i.sensor == sensor]
        assert len(cameras) == len(poses) == len(images) == 2
        for number, image in enumerate(images):
            with Image.open(next((scene / "rgb").glob(f"{number:06d}.*"))) as rgb:
                size = rgb.size
            [pose] = poses[str(number)]
            assert pose["obj_id"] == 1
            model = drawn(points_of(vertices), faces, cameras[str(number)], pose, size)
            masks = [np.asarray(Image.open(scene / f / f"{number:06d}_000000.png")) for f in ("mask", "mask_visib")]
            assert all(m.dtype == np.uint8 and set(np.unique(m)) == {0, 255} for m in masks)
            border = 4 * np.sqrt(np.pi * model.sum())
            assert iou(model, masks[0] > 0) > 1 - 0.5 * border / model.sum()
            camera = capture.sensor(sensor).camera
            matrix, outline = camera.opencv_matrix().numpy(), read_mask(capture, image)
            straight = cv2.undistort(outline.astype(np.uint8) * 255, matrix, np.array(camera.distortion)) > 127
            assert iou(model, straight) > 1 - border / model.sum()
            assert not ((masks[1] > 0) & ~(masks[0] > 0)).any()
            np.testing.assert_allclose(cameras[str(number)]["cam_K"], matrix.ravel(), rtol=1e-12)


def test_what_is_told_of_the_masks_is_counted_from_them(data_set: Path) -> None:
    for scene in scenes(data_set):
        has_depth = (scene / "depth").exists()
        for number, [info] in told(scene / "scene_gt_info.json").items():
            name = f"{int(number):06d}"
            mask, visible = (
                np.asarray(Image.open(scene / f / f"{name}_000000.png")) > 0 for f in ("mask", "mask_visib")
            )
            v, u = np.nonzero(mask)
            assert info["bbox_obj"] == [u.min(), v.min(), u.max() - u.min(), v.max() - v.min()]
            assert info["px_count_all"] == mask.sum()
            assert info["px_count_visib"] == visible.sum()
            assert info["visib_fract"] == pytest.approx(visible.sum() / mask.sum())
            depth = np.asarray(Image.open(scene / "depth" / f"{name}.png")) if has_depth else np.zeros(mask.shape)
            assert info["px_count_valid"] == ((depth > 0) & mask).sum()
    assert [(s / "depth").exists() for s in scenes(data_set)] == [False, True]


def test_depth_is_of_the_model(data_set: Path) -> None:
    """Points of the depth image, by K and depth_scale, lie on the ball: sensor noise is 2 mm, and its edges bleed."""
    scene = scenes(data_set)[1]
    for number, camera in told(scene / "scene_camera.json").items():
        [pose] = told(scene / "scene_gt.json")[number]
        assert camera["depth_scale"] == pytest.approx(0.1)
        image = Image.open(scene / "depth" / f"{int(number):06d}.png")
        assert image.mode == "I;16"
        z_mm = np.asarray(image) * camera["depth_scale"]
        mask = np.asarray(Image.open(scene / "mask" / f"{int(number):06d}_000000.png")) > 0
        assert ((z_mm > 0) & mask).sum() > 0.7 * mask.sum()
        v, u = np.nonzero((z_mm > 0) & cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool))
        rays = np.stack([u, v, np.ones_like(u)], axis=1) @ np.linalg.inv(np.array(camera["cam_K"]).reshape(3, 3)).T
        off = np.linalg.norm(rays * z_mm[v, u, None] - np.array(pose["cam_t_m2c"]), axis=1) - RADIUS_MM
        assert np.median(np.abs(off)) < 2
        assert abs(np.median(off)) < 1


def test_our_own_reader_has_the_cameras_back(data_set: Path, capture: Capture) -> None:
    for scene, sensor in zip(scenes(data_set), ("N1", "NP3"), strict=True):
        back = read_bop(scene)
        assert not back.left_out
        ours = [i for i in capture.images if i.sensor == sensor]
        theirs = back.images_of(SensorKind.color)
        world_from_model = Rigid.identity().matrix()
        world_from_model[:3, 3] = world_from_model.new_tensor(CENTRE_MM / 1e3)
        for mine, other in zip(ours, theirs, strict=True):
            pose = capture.sensor_from_world(mine).matrix() @ world_from_model
            # the middle of the bounding box of an icosphere is the centre but for the PLY's float32
            np.testing.assert_allclose(back.sensor_from_world(other).matrix(), pose, atol=1e-7)
            want = replace(capture.sensor(sensor).camera, distortion=(0.0,) * 5)
            got = back.sensor(other.sensor).camera
            np.testing.assert_allclose([got.fx, got.fy, got.cx, got.cy], [want.fx, want.fy, want.cx, want.cy])
            assert (got.width, got.height) == (want.width, want.height)
            assert read_mask(back, other).any()


def test_undistorted_photographs_are_those_of_opencv(capture: Capture) -> None:
    """Of a smooth picture OpenCV's fixed-point bilinear sampling is within 2 grey levels."""
    camera = replace(capture.sensor("N1").camera, distortion=(-0.2, 0.05, 0.002, -0.003, 0.01))
    v, u = np.mgrid[: camera.height, : camera.width]
    rgb = np.stack([u * 200 / camera.width, v * 200 / camera.height, 0 * u + 90], axis=-1).astype(np.uint8)
    ours = Undistortion.of(camera).image(rgb).astype(int)
    theirs = cv2.undistort(rgb, camera.opencv_matrix().numpy(), np.array(camera.distortion)).astype(int)
    inner = (slice(3, -3), slice(3, -3))
    assert np.abs(ours - theirs)[inner].max() <= 2
    assert np.abs(ours - rgb.astype(int))[inner].max() > 4


def test_registered_depth_of_a_plane(tmp_path: Path) -> None:
    """A wall 0.5 m before the depth camera, seen by another camera 50 mm aside, nearer by 100 mm: 0.4 m all over."""
    from tiny_captures import write_plain_folder

    capture = read_capture(write_plain_folder(tmp_path / "plain"))
    image = capture.images_of(SensorKind.depth)[0]
    own = capture.sensor(image.sensor).camera
    Image.fromarray(np.full((own.height, own.width), 500, np.uint16)).save(image.path)
    aside = Rigid.identity()
    aside.translation[:] = aside.translation.new_tensor([0.05, 0.0, -0.1])
    other = Camera(width=40, height=30, fx=60.0, fy=60.0, cx=20.0, cy=15.0, distortion=(-0.1, 0.05, 0.0, 0.0, 0.0))
    seen = registered_depth(capture, image, other, aside @ capture.sensor_from_world(image))
    assert (seen > 0).mean() > 0.4
    np.testing.assert_allclose(seen[seen > 0], 0.4, rtol=1e-5)
    same = registered_depth(capture, image, own, capture.sensor_from_world(image))
    np.testing.assert_array_equal(same, read_depth(capture, image))


def test_depth_goes_to_the_nearest_photographs(sphere_folder: Path) -> None:
    partners = depth_partners(read_capture(sphere_folder))
    assert {color: depth.sensor for (color, _), depth in partners.items()} == {
        f"NP{i}": f"NP{i}_depth" for i in range(1, 6)
    }


def test_the_largest_distance_of_points() -> None:
    points = np.random.default_rng(0).normal(size=(700, 3))
    brute = np.linalg.norm(points[:, None] - points[None], axis=2).max()
    assert diameter(points) == pytest.approx(brute, rel=1e-12)


def test_smaller_photographs_and_symmetries(tmp_path: Path, capture: Capture) -> None:
    file = tmp_path / "symmetries.json"
    known = {"symmetries_continuous": [{"axis": [0, 0, 1], "offset": [0, 0, 0]}]}
    file.write_text(json.dumps(known), encoding="utf-8")
    few = capture.restricted(sensors=["N1"], every_nth_stop=2)
    config = BopConfig(obj_id=7, split="test_real", downscale=2, symmetries=file, model_faces=500)
    write_bop_dataset(ball(), few, tmp_path / "small", config, name="ball")
    scene = tmp_path / "small" / "test_real" / "000001"
    camera = capture.sensor("N1").camera
    with Image.open(scene / "rgb" / "000000.jpg") as rgb:
        assert rgb.size == (camera.width // 2, camera.height // 2)
    matrix = np.array(told(scene / "scene_camera.json")["0"]["cam_K"])
    assert matrix[0] == pytest.approx(camera.fx / 2)
    assert matrix[2] + 0.5 == pytest.approx(camera.cx / 2)
    info = told(tmp_path / "small" / "models" / "models_info.json")["7"]
    assert {k: info[k] for k in known} == known
    assert len(binary_ply(tmp_path / "small" / "models" / "obj_000007.ply")[1]) <= 500
    file.write_text('{"symmetries_discrete": [[1, 2]]}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"symmetries\.json: .*want an object"):
        write_bop_dataset(ball(), few, tmp_path / "wrong", config, name="ball")


def test_a_world_without_a_unit_is_refused(tmp_path: Path, capture: Capture) -> None:
    run = write_run(tmp_path / "run", ball(), capture, is_metric=False)
    for wanted in (ExportFormat.bop, ExportFormat.urdf):
        with pytest.raises(ExportError, match="sphere: the run is unscaled"):
            export_run(run, [wanted])
    assert not (run / "export").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"obj_id": 0}, "obj_id must be"), ({"jpeg_quality": 0}, "jpeg_quality"), ({"split": "../up"}, "plain word")],
)
def test_settings_out_of_range(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BopConfig(**settings)
