"""The benchmarks' own parts against closed forms; their figures on real data are no matter of tests."""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image
from scipy.spatial.transform import Rotation
from tiny_captures import write_idr

from benchmarks import captures, real
from benchmarks import clear_frames as rgbd
from benchmarks.depth_frames import points_of_file, split, to_plain
from benchmarks.pictures import shaded, write_beside
from benchmarks.report import table
from neuralrecon.capture import SensorKind, camera_of, read_capture, read_depth
from neuralrecon.errors import CalibrationError, CaptureError
from neuralrecon.evaluate import LabelAgreement
from neuralrecon.geometry import Camera, Rigid
from neuralrecon.label import Solid
from neuralrecon.scene import Scene, SceneConfig
from neuralrecon.scene.photographs import Photograph
from neuralrecon.scene.readings import points_of
from neuralrecon.train import FitConfig

CENTER, RADIUS = np.array([0.01, -0.02, 0.06]), 0.05
SIZE, INTRINSICS, UNIT_M = (96, 112), (80.0, 81.0, 46.3, 55.1), 1e-4
N_FRAMES = 8


def table_from_cam(angle_deg: float, height: float, reach: float) -> np.ndarray:
    """A camera `reach` from the z axis that looks at the sphere's centre, x axis level."""
    a = math.radians(angle_deg)
    eye = np.array([reach * math.cos(a), reach * math.sin(a), height])
    z = (CENTER - eye) / np.linalg.norm(CENTER - eye)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    return np.vstack([np.stack([x, np.cross(z, x), z, eye], axis=1), [0, 0, 0, 1]])


def sphere_depth(table_from_cam: np.ndarray) -> np.ndarray:
    """Depth along the axis in metres through the pixels' centres, which OpenCV's matrix has at integers; 0 = miss."""
    fx, fy, cx, cy = INTRINSICS
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(u.shape)], axis=-1)
    center = table_from_cam[:3, :3].T @ (CENTER - table_from_cam[:3, 3])
    a, b = (rays**2).sum(-1), rays @ center
    under_root = b**2 - a * (center @ center - RADIUS**2)
    return np.where(under_root > 0, (b - np.sqrt(under_root.clip(0))) / a, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("frames") / "ball"
    (root / "masked_depth").mkdir(parents=True)
    frames = []
    for i in range(N_FRAMES):
        pose = table_from_cam(360 / N_FRAMES * i, 0.1 + 0.05 * (i % 3), 0.3)
        raw = np.rint(sphere_depth(pose) / UNIT_M).astype(np.uint16)
        Image.fromarray(raw).save(root / "masked_depth" / f"frame{i}.png")
        frames.append(
            {"file": f"frame{i}.png", "camera": f"NP{i % 2}", "angle": 45 * i, "K": INTRINSICS}
            | {"T_table_from_depthcam": pose.tolist()}
        )
    frames[-1]["K"] = [fx + 0.5 for fx in INTRINSICS[:2]] + list(INTRINSICS[2:])
    described = {"depth_unit_m": UNIT_M, "width": SIZE[0], "height": SIZE[1], "frames": frames}
    (root / "cameras_parsed.json").write_text(json.dumps(described))
    return root


def test_depth_frames_become_a_plain_capture(folder: Path, tmp_path: Path) -> None:
    """Read back, the readings lie on the sphere to half a step of the file's unit (times the ray's slope, below 1.3).

    A pixel centre half a pixel off would be 1.5 mm beside: fifty times the tolerance.
    """
    capture = to_plain(folder, tmp_path)
    assert (capture.name, capture.layout, capture.depth_is_masked, capture.has_table) == ("ball", "plain", True, True)
    assert [s.name for s in capture.sensors] == ["NP0", "NP1", "NP1-2"]
    assert len(capture.images_of(SensorKind.depth)) == N_FRAMES
    for image in capture.images[:-1]:
        depth = np.asarray(read_depth(capture, image))
        assert (depth > 0).sum() > 300
        points = points_of(depth, camera_of(capture, image), capture.sensor_from_world(image)).numpy()
        assert np.abs(np.linalg.norm(points - CENTER, axis=1) - RADIUS).max() < 1.3 * UNIT_M / 2 + 1e-6
        np.testing.assert_allclose(points, points_of_file(folder, image.path.name), atol=1e-6)


def test_frames_are_held_out_entirely(folder: Path, tmp_path: Path) -> None:
    training, files = split(to_plain(folder, tmp_path), 3)
    assert files == ["frame2.png", "frame5.png"]
    assert [i.path.name for i in training.images] == [f"frame{i}.png" for i in (0, 1, 3, 4, 6, 7)]
    assert [f.name for f in training.frames] == [i.frame for i in training.images]


def test_missing_frames_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"cameras_parsed.json: no such file"):
        to_plain(tmp_path, tmp_path / "out")
    (tmp_path / "cameras_parsed.json").write_text((folder / "cameras_parsed.json").read_text())
    with pytest.raises(CaptureError, match=r"frame0.png: no such file"):
        to_plain(tmp_path, tmp_path / "out")


def test_depth_frames_end_to_end(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hardly trained, the mesh is about the hull, with the readings within it.

    A hull of depth images is wider by 6 px (3 for readings lost at the rim, 3 of tolerance) of 0.35 m / 80 px at most,
    26 mm, and by a cell.
    """
    words = ["depth-frames", str(folder), "--out", str(tmp_path / "out"), "--hold-out-every", "4"]
    assert real.main([*words, "--steps", "2", "--rays", "16", "--voxel-mm", "3"]) == 0
    written = json.loads((tmp_path / "out" / "depth_frames.json").read_text())
    assert list(written["distances"]) == ["held out", "training", "frame3", "frame7"]
    held_out, single = written["distances"]["held out"], [written["distances"][f"frame{i}"] for i in (3, 7)]
    assert held_out["n_points"] == sum(d["n_points"] for d in single)
    assert -29 < held_out["signed_median_mm"] < 0
    assert written["mesh"]["is_watertight"]
    assert written["settings"]["steps"] == 2
    assert {"date", "commit", "cores", "python", "torch"} <= set(written)
    assert trimesh.load_mesh(tmp_path / "out" / "mesh.ply").is_volume
    assert "held out" in capsys.readouterr().out


# The world of the RGB-D frames from the table's: z down, turned and shifted, as a robot's base may be.
WORLD_FROM_TABLE = np.vstack(
    [
        np.c_[Rotation.from_euler("xyz", [178.0, 1.0, 30.0], degrees=True).as_matrix(), [0.3, -0.2, 1.0]],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
PLACE_IN_TABLE = np.array([CENTER[0], CENTER[1], 0.0])


def ball_on_table(table_from_cam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth in metres of the ball and of the table around it, and where the ball is."""
    ball = sphere_depth(table_from_cam)
    fx, fy, cx, cy = INTRINSICS
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    down = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(u.shape)], axis=-1) @ table_from_cam[2, :3]
    table = np.where(down < -1e-3, -table_from_cam[2, 3] / np.minimum(down, -1e-3), 0.0)
    return np.where(ball > 0, ball, table), ball > 0


@pytest.fixture(scope="module")
def rgbd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of the ball as `clear_frames` describes them; every second of those that have a pose."""
    root = tmp_path_factory.mktemp("rgbd") / "ball"
    for part in ("rgb", "masks", "depth"):
        (root / part).mkdir(parents=True)
    lines = []
    for i in range(2 * N_FRAMES):
        pose = table_from_cam(360 / (2 * N_FRAMES) * i, 0.2 + 0.05 * (i % 3), 0.3)
        in_world = WORLD_FROM_TABLE @ pose
        quaternion = Rotation.from_matrix(in_world[:3, :3]).as_quat()
        lines.append(" ".join(str(x) for x in (i + 1, *in_world[:3, 3], *quaternion)))
        if i % 2 == 0:
            depth, mask = ball_on_table(pose)
            Image.fromarray(np.rint(depth * 1e3).astype(np.uint16)).save(root / "depth" / f"{i + 1:06d}.png")
            Image.fromarray((mask * 255).astype(np.uint8)).save(root / "masks" / f"{i + 1:06d}.png")
            Image.fromarray(np.full((*mask.shape, 3), 90, np.uint8)).save(root / "rgb" / f"{i + 1:06d}.jpg")
    (root / rgbd.POSES_FILE).write_text("\n".join(lines) + "\n")
    fx, fy, cx, cy = INTRINSICS
    matrix = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    (root / "camera_x.yaml").write_text(f"image_width: {SIZE[0]}\nimage_height: {SIZE[1]}\ncamera_matrix: {matrix}\n")
    place = WORLD_FROM_TABLE.copy()
    place[:3, 3] += WORLD_FROM_TABLE[:3, :3] @ PLACE_IN_TABLE
    (root / rgbd.OBJECT_FILE).write_text(f"- id: ball\n  pose: {place.flatten().tolist()}\n")
    return root


def test_rgbd_frames_become_a_plain_capture(rgbd_folder: Path, tmp_path: Path) -> None:
    """The table is found to be z = 0 below the object, and the readings inside the masks lie on the sphere there.

    Depth is whole millimetres: readings are off by at most 0.5 mm times the ray's slope (below 1.3), the table, a mean
    over thousands of them, by 0.2 mm; a tilt of as much over 0.2 m adds 0.05 mm at the ball.
    """
    capture = rgbd.to_plain(rgbd_folder, tmp_path)
    assert (capture.name, capture.layout, capture.depth_is_masked, capture.has_table) == ("ball", "plain", False, True)
    assert [frame.name for frame in capture.frames] == [f"{i:06d}" for i in range(1, 2 * N_FRAMES, 2)]
    center = np.array([0.0, 0.0, CENTER[2]])
    for image in capture.images_of(SensorKind.depth):
        mask_path = next(i.mask_path for i in capture.images if i.frame == image.frame and i.mask_path)
        with Image.open(mask_path) as file:
            mask = np.asarray(file) > 0
        pose, camera = capture.sensor_from_world(image), camera_of(capture, image)
        depth = np.asarray(read_depth(capture, image))
        ball = points_of((depth * mask).astype(np.float32), camera, pose).numpy()
        assert len(ball) > 300
        assert np.abs(np.linalg.norm(ball - center, axis=1) - RADIUS).max() < 1.3 * 0.5e-3 + 0.25e-3
        near = points_of((depth * ~mask).astype(np.float32), camera, pose).numpy()
        near = near[np.linalg.norm(near[:, :2], axis=1) < 0.2]
        assert abs(np.median(near[:, 2])) < 0.2e-3


def test_frames_whose_photographs_are_held_out_lose_their_depth(rgbd_folder: Path, tmp_path: Path) -> None:
    capture = rgbd.to_plain(rgbd_folder, tmp_path)
    left = rgbd.without_depth(capture, 3)
    scene = Scene.from_capture(left, SceneConfig(hold_out_every=3, hull_resolution=32))
    without = {image.frame for image in capture.images} - {i.frame for i in left.images_of(SensorKind.depth)}
    assert {Path(photograph.name).stem for photograph in scene.held_out} == without == {"000005", "000011"}
    assert left.images_of(SensorKind.color) == capture.images_of(SensorKind.color)


def test_rgbd_frames_tell_what_is_missing(rgbd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"rgb: no photograph"):
        rgbd.to_plain(tmp_path, tmp_path / "out")
    root = tmp_path / "ball"
    shutil.copytree(rgbd_folder, root)
    (root / "masks" / "000003.png").unlink()
    with pytest.raises(CaptureError, match=r"000003.png: no such file"):
        rgbd.to_plain(root, tmp_path / "out")
    lines = (root / rgbd.POSES_FILE).read_text().splitlines()
    (root / rgbd.POSES_FILE).write_text("\n".join(lines[1:]))
    with pytest.raises(CalibrationError, match=r"no pose of 000001.jpg"):
        rgbd.to_plain(root, tmp_path / "out")
    (root / "camera_x.yaml").unlink()
    with pytest.raises(CaptureError, match=r"no camera_"):
        rgbd.to_plain(root, tmp_path / "out")


def test_table_must_be_seen(rgbd_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "ball"
    shutil.copytree(rgbd_folder, root)
    for file in (root / "depth").glob("*.png"):
        Image.fromarray(np.zeros((SIZE[1], SIZE[0]), np.uint16)).save(file)
    with pytest.raises(CalibrationError, match=r"shows no table"):
        rgbd.to_plain(root, tmp_path / "out")


def test_silhouette_of_a_mesh_against_that_of_a_photograph() -> None:
    """A ball 1.2 times as large: the ratio of the areas of the two outlines, which differ by their angles' tangents.

    Counting pixels errs by about the root of the rim's length: 9 of 490.
    """
    pose = table_from_cam(0.0, 0.2, 0.3)
    mask = sphere_depth(pose) > 0
    fx, fy, cx, cy = INTRINSICS
    matrix = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    photograph = Photograph.cropped(
        np.zeros((*mask.shape, 3), np.uint8),
        mask,
        4,
        name="ball",
        camera=Camera.from_opencv(matrix, *SIZE),
        cam_from_world=Rigid.from_matrix(torch.from_numpy(pose)).inverse(),
        rig_from_world=torch.eye(3, dtype=torch.float64),
        sensor=0,
        stop=0,
    )
    ball = trimesh.creation.icosphere(subdivisions=5, radius=RADIUS)
    ball.apply_translation(CENTER)
    assert real.silhouette_iou(ball, photograph) > 0.995
    larger = ball.copy()
    larger.apply_translation(-CENTER).apply_scale(1.2).apply_translation(CENTER)
    reach = np.linalg.norm(pose[:3, 3] - CENTER)
    areas = [math.tan(math.asin(scale * RADIUS / reach)) ** 2 for scale in (1.0, 1.2)]
    assert abs(real.silhouette_iou(larger, photograph) - areas[0] / areas[1]) < 9 / 490


def test_real_tells_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert real.main(["photos", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_distances_are_those_to_the_surface() -> None:
    """To a ball of 5 subdivisions, whose faces lie at most r (1 - cos(edge / 2 r)) = 0.03 mm below the sphere."""
    solid = Solid.of(trimesh.creation.icosphere(subdivisions=5, radius=RADIUS))
    directions = np.random.default_rng(0).normal(size=(3000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = real.distances_to(solid, directions * np.repeat([RADIUS + 1e-3, RADIUS - 2e-3], [2000, 1000])[:, None])
    assert found.n_points == 3000
    assert found.median_mm == pytest.approx(1.0, abs=0.03)
    assert found.signed_median_mm == pytest.approx(1.0, abs=0.03)
    assert found.mean_mm == pytest.approx(4 / 3, abs=0.03)
    assert found.p90_mm == pytest.approx(2.0, abs=0.03)


def test_a_world_in_metres_looks_the_same(tmp_path: Path) -> None:
    """Scaling world and cameras together leaves every projection where it was, and the bounds around the same room."""
    given = read_capture(write_idr(tmp_path / "idr"))
    scaled = real.in_metres(given, 0.001)
    points = torch.from_numpy(np.random.default_rng(0).uniform(-10, 10, (50, 3)))
    for image in given.images:
        camera = camera_of(given, image)
        pixels = camera.project(given.sensor_from_world(image).apply(points))
        same = camera.project(scaled.sensor_from_world(image).apply(points * 0.001))
        torch.testing.assert_close(same, pixels, rtol=1e-9, atol=1e-6)
    assert scaled.is_metric
    assert not given.is_metric
    assert given.bounds is not None
    np.testing.assert_allclose(np.array(scaled.bounds), 0.001 * np.array(given.bounds))


def test_trials_keep_the_proportions_of_the_default() -> None:
    default = FitConfig()
    assert real.fit_config(None, None) == default
    few = real.fit_config(60, default.interior_rays // 4)
    assert few == replace(
        default,
        steps=60,
        interior_rays=default.interior_rays // 4,
        edge_rays=default.edge_rays // 4,
        depth_rays=default.depth_rays // 4,
    )


def test_a_shaded_ball_is_a_disc() -> None:
    """Every pixel whose ray passes the centre at less than the radius is lit; a pixel's width at the rim is free."""
    ball = trimesh.creation.icosphere(subdivisions=5, radius=RADIUS)
    ball.apply_translation(CENTER)
    pose = table_from_cam(30, 0.2, 0.3)
    fx, fy, cx, cy = INTRINSICS
    camera = Camera(width=SIZE[0], height=SIZE[1], fx=fx, fy=fy, cx=cx + 0.5, cy=cy + 0.5)
    cam_from_world = Rigid.from_matrix(torch.from_numpy(pose)).inverse()
    whole = shaded(ball, camera, cam_from_world, (0, 0), (SIZE[1], SIZE[0]))
    true_disc = sphere_depth(pose) > 0
    rim = np.zeros_like(true_disc)
    for axis in (0, 1):
        for shift in (-1, 1):
            rim |= np.roll(true_disc, shift, axis) != true_disc
    assert ((whole.max(axis=-1) > 0) == true_disc)[~rim].all()
    part = shaded(ball, camera, cam_from_world, (20, 10), (40, 50))
    np.testing.assert_allclose(part, whole[10:50, 20:70], atol=1e-4)


def test_pictures_stand_side_by_side(tmp_path: Path) -> None:
    file = write_beside(tmp_path / "a.png", [np.ones((50, 80, 3)), np.zeros((100, 40, 3))], height=50)
    with Image.open(file) as picture:
        assert picture.size == (80 + 4 + 20, 50)
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert picture.getpixel((90, 10)) == (0, 0, 0)


def test_tables_are_aligned() -> None:
    rows = [["box", 0.25, True], ["bottle", None, False]]
    assert table(["object", "mm", "closed"], rows) == (
        "object    mm  closed\nbox     0.25     yes\nbottle     -      no"
    )  # fmt: skip


SUMMARY = {
    "report": {"raw": {"chamfer_mm": 0.1849, "f_score_0_5mm": 0.9712, "iou": 0.98765}},
    "mesh": {"is_watertight": True, "is_winding_consistent": True, "volume_cm3": 12.0, "n_bodies": 1},
    "labels": {"points_per_second": 1.5e6},
}
AGREEMENT = LabelAgreement(
    n_points=10, uniform=0.996, near_surface=0.97, observed=None, false_inside=0.0, false_outside=0.0
)


def result(**changes: object) -> captures.Result:
    command = captures.Measured(exit_code=0, seconds=90.0, peak_mb=1234.4)
    known = {"name": "d", "folder": Path("out/d"), "command": command, "summary": SUMMARY, "labels": AGREEMENT}
    return captures.Result(**{**known, "judge": None, **changes})


def test_rows_say_what_was_measured() -> None:
    ours = ["d", "0.185", "0.971", "0.9877", True, 1, "0.9960", "0.9700", "1.50", "1.50", "1234"]
    assert captures.rows_of(result()) == [ours]
    judge = {"raw": {"chamfer_mm": 0.2, "f0.5mm": 0.95, "iou": 0.98}, "is_watertight": True, "components": 1}
    assert captures.rows_of(result(judge=judge)) == [
        ours,
        ["d, judge", "0.200", "0.950", "0.9800", True, 1, *[None] * 5],
    ]
    (failed,) = captures.rows_of(result(summary=None, labels=None))
    assert failed == ["d", "failed, see out/d.txt", *[None] * 7, "1.50", "1234"]


def test_time_and_memory_are_the_commands(tmp_path: Path) -> None:
    code = "import sys, time; kept = bytearray(300 * 2**20); time.sleep(0.3); print('said'); sys.exit(3)"
    found = captures.measured([sys.executable, "-c", code], tmp_path / "log" / "x.txt")
    assert found.exit_code == 3
    assert 0.3 <= found.seconds < 30
    assert found.peak_mb > 300
    assert (tmp_path / "log" / "x.txt").read_text() == "said\n"


@pytest.mark.parametrize("path", ["a/b", "a b", "it's", "x=y,z", "a\\b", "[c]{d}", "a\\'b"])
def test_any_path_can_be_a_setting(path: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"capture={captures.quoted(Path(path))}"])
    assert str(override.value()) == path


def test_without_a_truth_nothing_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        captures.main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert "gt_mesh.ply: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_failed_command_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = tmp_path / "it's empty"
    (capture / "gt").mkdir(parents=True)
    (capture / "gt" / "gt_mesh.ply").touch()
    assert captures.main([str(capture), "--out", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    assert "failed, see" in out
    assert "no capture of a known layout" in err
    written = json.loads((tmp_path / "out" / "captures.json").read_text())
    assert written["results"][0]["command"]["exit_code"] != 0
    assert written["results"][0]["summary"] is None
