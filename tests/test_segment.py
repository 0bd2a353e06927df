"""Outlines found without masks, against exact ones: closed-form silhouettes and the simulator's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image as Picture
from scipy.spatial.transform import Rotation

from neuralrecon.capture import Capture, Frame, Image, Sensor, SensorKind, read_capture, read_mask
from neuralrecon.errors import CaptureError, ConfigError, EvidenceError
from neuralrecon.geometry import Camera, Rigid
from neuralrecon.segment import SegmentConfig, read_report, segment
from neuralrecon.segment.grabcut import ColorModel, Region, depth_px
from neuralrecon.segment.pieces import tidied
from neuralrecon.segment.report import TableFrom
from neuralrecon.segment.table import Gaze, resting_plane, seen_table, table_from_world
from neuralrecon.segment.views import View
from neuralrecon.segment.votes import locate, nearest_to_rays, vote
from neuralrecon.simulate import SimulateConfig, simulate

# Two spheres, one on the other: closed-form silhouettes, not convex.
SPHERES = ((np.array([0.02, -0.01, 0.05]), 0.05), (np.array([0.03, 0.0, 0.12]), 0.03))
CAMERA = Camera(width=240, height=180, fx=420.0, fy=420.0, cx=121.0, cy=88.0)
N_VIEWS = 16


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def ring(n: int = N_VIEWS) -> list[Rigid]:
    """cam_from_world of cameras around the spheres, at three heights, 0.6 m away."""
    poses = []
    for i in range(n):
        azimuth, elevation = 2 * np.pi * i / n, np.radians((15, 35, 60)[i % 3])
        forward = -np.array(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        )
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rotation = torch.from_numpy(np.stack([right, np.cross(forward, right), forward]))
        center = torch.from_numpy(np.array([0.02, 0.0, 0.07]) - 0.6 * forward)
        poses.append(Rigid(rotation=rotation, translation=-(rotation @ center)))
    return poses


def traced(cam_from_world: Rigid) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels' rays meet a sphere, and how much light falls there from above (0 … 1)."""
    v, u = torch.meshgrid(torch.arange(CAMERA.height), torch.arange(CAMERA.width), indexing="ij")
    world_from_cam = cam_from_world.inverse()
    origin = world_from_cam.translation.numpy()
    rays = world_from_cam.rotate(CAMERA.rays(torch.stack([u, v], dim=-1).double() + 0.5)).numpy()
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    nearest, light = np.full(rays.shape[:2], np.inf), np.zeros(rays.shape[:2])
    for center, radius in SPHERES:
        along = rays @ (center - origin)
        inside = along**2 - ((center - origin) ** 2).sum() + radius**2
        distance = along - np.sqrt(np.maximum(inside, 0))
        first = (inside > 0) & (distance < nearest)
        normal = (origin + distance[..., None] * rays - center) / radius
        nearest[first], light[first] = distance[first], (0.5 + 0.5 * normal[..., 2])[first]
    return np.isfinite(nearest), light


@pytest.fixture(scope="module")
def on_backdrop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, dict[str, np.ndarray]]:
    """The spheres before black cloth, with a faint stripe across each photograph; the true outlines by file name.

    The undersides are as dark as a twelfth of the light: 15 grey levels, three times the cloth's noise.
    """
    folder = tmp_path_factory.mktemp("backdrop")
    rng, truth, frames, images = np.random.default_rng(1), {}, [], []
    for i, pose in enumerate(ring()):
        inside, light = traced(pose)
        grey = np.where(inside, 15 + 180 * light, 0.0)
        grey[:, 30 + 3 * i : 40 + 3 * i] += np.where(inside[:, 30 + 3 * i : 40 + 3 * i], 0.0, 20.0)
        rgb = grey[..., None] * [1.0, 0.95, 0.9] + rng.normal(3, 3, (*grey.shape, 3))
        path = folder / f"photo_{i:02d}.png"
        Picture.fromarray(np.clip(rgb, 0, 255).astype(np.uint8)).save(path)
        truth[path.name] = inside
        frames.append(Frame(name=str(i), rig_from_world=pose))
        images.append(Image(sensor="camera", frame=str(i), path=path))
    sensor = Sensor(name="camera", kind=SensorKind.color, camera=CAMERA, sensor_from_rig=Rigid.identity())
    capture = Capture(
        name="spheres",
        root=folder,
        layout="test",
        sensors=(sensor,),
        frames=tuple(frames),
        images=tuple(images),
        has_table=False,
    )
    return capture, truth


@pytest.fixture(scope="module")
def with_masks(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """A printed box on the turntable, four photographs at each of six stops, with the true masks."""
    config = SimulateConfig(
        mesh="box",
        n_stops=6,
        n_width=320,
        np_width=40,
        depth_width=40,
        supersample=1,
        sensor_rotation_deg=0.0,
        sensor_translation_mm=0.0,
        focal_percent=0.0,
    )
    root = simulate(config, tmp_path_factory.mktemp("segment") / "box")
    return read_capture(root).restricted(sensors=["N1", "N2", "N3", "N4"])


@pytest.fixture(scope="module")
def on_table(with_masks: Capture) -> tuple[Capture, Rigid]:
    """The same without masks, in a tilted world that knows no table, with points on the box and the table around it.

    Returns:
        The capture, and table_from_world.
    """
    rng = np.random.default_rng(2)
    mesh = trimesh.load_mesh(with_masks.root / "gt" / "gt_mesh.ply")
    on_box = trimesh.sample.sample_surface(mesh, 1500, seed=3)[0]
    angle, radius = rng.uniform(0, 2 * np.pi, 2500), 0.14 * np.sqrt(rng.uniform(0, 1, 2500))
    on_disc = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(2500)], axis=1)
    in_table = np.concatenate([on_box[on_box[:, 2] > 0.004], on_disc]) + rng.normal(0, 3e-4, (1, 3))
    in_table += rng.normal(0, 2e-4, in_table.shape)
    turn = Rotation.from_euler("xyz", [100, 20, 30], degrees=True).as_matrix()
    table_from_tilted = Rigid(
        rotation=torch.from_numpy(turn), translation=torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64)
    )
    tilted = table_from_tilted.inverse().apply(torch.from_numpy(in_table)).numpy()
    file = with_masks.root / "points.ply"
    trimesh.PointCloud(tilted, colors=np.full((len(tilted), 3), 128, np.uint8)).export(file)
    frames = tuple(replace(f, rig_from_world=f.rig_from_world @ table_from_tilted) for f in with_masks.frames)
    images = tuple(replace(i, mask_path=None) for i in with_masks.images)
    hidden = replace(with_masks, frames=frames, images=images, has_table=False, points_path=file)
    return hidden, table_from_tilted


@pytest.fixture(scope="module")
def found_on_backdrop(on_backdrop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Path]:
    folder = tmp_path_factory.mktemp("found") / "masks"
    return segment(on_backdrop[0], SegmentConfig(), folder), folder


@pytest.fixture(scope="module")
def found_on_table(on_table, tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Path]:
    folder = tmp_path_factory.mktemp("found") / "masks"
    return segment(on_table[0], SegmentConfig(), folder), folder


def test_outlines_on_a_backdrop_are_the_true_ones(on_backdrop, found_on_backdrop) -> None:
    """The object is about 60 px wide: half a pixel all around is IoU 0.967, and no single view may be worse by much."""
    _, truth = on_backdrop
    outlined, _ = found_on_backdrop
    scores = [iou(read_mask(outlined, i), truth[i.path.name]) for i in outlined.images]
    assert np.mean(scores) > 0.97
    assert min(scores) > 0.95
    assert not outlined.has_table
    assert outlined.left_out == ()


def test_bounds_hold_the_object_closely(found_on_backdrop) -> None:
    outlined, _ = found_on_backdrop
    low, high = (np.array(corner) for corner in outlined.bounds or ())
    true_low = np.min([c - r for c, r in SPHERES], axis=0)
    true_high = np.max([c + r for c, r in SPHERES], axis=0)
    assert (low < true_low).all()
    assert (high > true_high).all()
    # a margin of 5 % each side, and what sixteen views from above leave beneath: 15 degrees of elevation under 50 mm
    assert (high - low <= 1.35 * (true_high - true_low)).all()


def test_outlines_on_a_table_are_the_true_ones(found_on_table, with_masks: Capture) -> None:
    """The box is 25 to 40 px wide, on a patterned table: a pixel all around is IoU 0.88."""
    outlined, _ = found_on_table
    assert outlined.left_out == ()
    pairs = zip(outlined.images, with_masks.images, strict=True)
    scores = [iou(read_mask(outlined, a), read_mask(with_masks, b)) for a, b in pairs]
    assert np.median(scores) > 0.9
    assert min(scores) > 0.75


def test_world_is_moved_onto_the_table(on_table, found_on_table) -> None:
    """Points have 0.2 mm of noise, the disc a radius of 140 mm: the plane is good to a hundredth of a degree."""
    capture, table_from_tilted = on_table
    moved, folder = found_on_table
    report = read_report(folder)
    assert moved.has_table
    assert report.table == TableFrom.seen
    assert report.move is not None
    for image in moved.images:
        again = moved.sensor_from_world(image) @ report.move
        torch.testing.assert_close(again.matrix(), capture.sensor_from_world(image).matrix(), atol=1e-9, rtol=0)
    up = (report.move @ table_from_tilted.inverse()).rotation @ torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert float(up[2]) > np.cos(np.radians(0.05))
    origin = (report.move @ table_from_tilted.inverse()).translation
    assert abs(float(origin[2])) < 1e-3
    points = np.asarray(trimesh.load(moved.points_path).vertices)
    assert abs(np.median(points[np.abs(points[:, 2]) < 0.002, 2])) < 2e-4
    assert moved.bounds is not None
    assert moved.bounds[0][2] == 0.0


def test_masks_are_used_again_and_made_again_for_other_settings(on_backdrop, found_on_backdrop) -> None:
    capture, _ = on_backdrop
    first, folder = found_on_backdrop
    paths = [i.mask_path for i in first.images if i.mask_path]
    times, contents = [p.stat().st_mtime_ns for p in paths], [p.read_bytes() for p in paths]
    assert [i.mask_path for i in segment(capture, SegmentConfig(), folder).images] == paths
    assert [p.stat().st_mtime_ns for p in paths] == times
    segment(capture, SegmentConfig(least_iou=0.5), folder)
    assert all(p.stat().st_mtime_ns > t for p, t in zip(paths, times, strict=True))
    assert [p.read_bytes() for p in paths] == contents  # nothing is left to chance


def test_a_wrong_mask_is_named_and_left_out(with_masks: Capture, tmp_path: Path) -> None:
    """All are given; one is shifted by half its width."""
    wrong = with_masks.images[7]
    mask = read_mask(with_masks, wrong)
    shift = (mask.any(axis=0).sum() + 1) // 2
    file = tmp_path / "wrong.png"
    Picture.fromarray(np.roll(mask, shift, axis=1)).save(file)
    spoiled = replace(with_masks.images[7], mask_path=file, object_is_black=False)
    capture = replace(with_masks, images=(*with_masks.images[:7], spoiled, *with_masks.images[8:]))
    result = segment(capture, SegmentConfig(), tmp_path / "out")
    bad = [v.image for v in read_report(tmp_path / "out").views if not v.kept]
    assert bad == [f"{wrong.sensor}/{wrong.frame}/{wrong.path.name}"]
    assert [i.mask_path is None for i in result.images] == [k == 7 for k in range(len(result.images))]
    assert len(result.left_out) == 1
    assert str(wrong.path) in result.left_out[0]


def test_given_masks_tell_the_others(with_masks: Capture, tmp_path: Path) -> None:
    """Every third photograph has no mask, and there are no points: the hull of the given ones says where to look."""
    images = tuple(replace(i, mask_path=None) if k % 3 == 0 else i for k, i in enumerate(with_masks.images))
    outlined = segment(replace(with_masks, images=images), SegmentConfig(), tmp_path)
    assert all(a.mask_path == b.mask_path for a, b in zip(outlined.images, images, strict=True) if b.mask_path)
    pairs = zip(outlined.images[::3], with_masks.images[::3], strict=True)
    scores = [iou(read_mask(outlined, a), read_mask(with_masks, b)) for a, b in pairs]
    assert np.median(scores) > 0.9
    assert min(scores) > 0.75


def test_without_evidence_it_says_what_is_needed(on_table, tmp_path: Path) -> None:
    capture, _ = on_table
    with pytest.raises(EvidenceError, match="need 30: nothing tells where the object is; give masks"):
        segment(replace(capture, points_path=None), SegmentConfig(), tmp_path)
    with pytest.raises(EvidenceError, match="2 photographs, need 3"):
        segment(replace(capture, images=capture.images[:2]), SegmentConfig(), tmp_path)


def test_settings_and_reports_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="working_px"):
        SegmentConfig(working_px=10)
    (tmp_path / "segment.json").write_text('{"settings": "x"}')
    with pytest.raises(CaptureError, match="no readable report"):
        read_report(tmp_path)


def gaze(target: np.ndarray, rotation: np.ndarray) -> Gaze:
    """Cameras in a ring 30 degrees above a tilted table."""
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    centers = np.stack([np.cos(angle), np.sin(angle), np.full(20, 0.6)], axis=1) @ rotation.T + target
    return Gaze(centers=centers, target=target, up=rotation @ np.array([0.1, -0.15, 1.0]) / np.sqrt(1.0325))


def cuboid(n: int) -> np.ndarray:
    """Points on the top and the sides of a box of 0.3 x 0.2 x 0.1 on z = 0; none underneath."""
    points = trimesh.sample.sample_surface(trimesh.creation.box((0.3, 0.2, 0.1)), n, seed=0)[0] + [0, 0, 0.05]
    return points[points[:, 2] > 1e-6]


@pytest.mark.parametrize("seed", range(3))
def test_resting_plane_is_found_from_a_hint_ten_degrees_off(seed: int) -> None:
    """Under 0.5 % of the points, so 0.5 mm above the lower edge of sides that are 100 mm high, or a little more."""
    rotation, target = Rotation.random(random_state=seed).as_matrix(), np.array([1.0, 2.0, 3.0])
    points = cuboid(4000) @ rotation.T + target
    plane = resting_plane(points, gaze(target, rotation))
    assert plane is not None
    assert plane.normal @ rotation[:, 2] > np.cos(np.radians(1.0))
    assert abs(plane.height(target[None])[0]) < 0.003
    moved = table_from_world(plane, points.mean(axis=0)).apply(torch.from_numpy(points)).numpy()
    assert abs(moved[:, :2].mean()) < 1e-9
    assert np.linalg.det(table_from_world(plane, target).rotation.numpy()) == pytest.approx(1)


def test_a_wall_or_the_object_itself_is_no_table() -> None:
    """A plane with a tenth of the points below it, or with cameras on both sides, is not taken."""
    rng, eye = np.random.default_rng(0), np.eye(3)
    level = np.concatenate([rng.uniform(-0.3, 0.3, (900, 3)) * [1, 1, 0], rng.uniform(-0.1, 0, (100, 3))])
    assert seen_table(level, gaze(np.zeros(3), eye)) is None
    wall = rng.uniform(-0.3, 0.3, (900, 3)) * [0, 1, 1]
    assert seen_table(wall, gaze(np.zeros(3), eye)) is None


def test_nearest_to_rays_lets_go_of_a_stray_one() -> None:
    rng = np.random.default_rng(0)
    origins = rng.normal(0, 1, (12, 3))
    target = np.array([0.3, -0.2, 0.5])
    directions = (target - origins) / np.linalg.norm(target - origins, axis=1, keepdims=True)
    directions[4] = [1.0, 0.0, 0.0]
    assert np.abs(nearest_to_rays(origins, directions) - target).max() < 1e-5  # the pull to the origins


def test_hull_by_vote_forgives_one_wrong_outline(on_backdrop) -> None:
    """One outline emptied but for a corner: strict carving would leave nothing, the vote leaves the spheres."""
    capture, truth = on_backdrop
    views = [View.read(capture, image, 1) for image in capture.images]
    outlines = [truth[view.name].copy() for view in views]
    outlines[3] = np.zeros_like(outlines[3])
    outlines[3][:5, :5] = True
    low, high = locate(views, outlines, 0.1)
    hull = vote(views, outlines, (low, high), resolution=64, contrary_share=0.1)
    box_low, box_high = hull.box()
    assert (box_low < np.min([c - r for c, r in SPHERES], axis=0) + hull.cell).all()
    assert (box_high > np.max([c + r for c, r in SPHERES], axis=0) - hull.cell).all()
    # what the others see from there: the spheres, a cell of 1.8 px and a pixel of tolerance wider all around
    assert iou(hull.outline(views[3], without=outlines[3]), truth[views[3].name]) > 0.8


def test_depth_in_a_mask_is_the_distance_to_its_edge() -> None:
    v, u = np.mgrid[:60, :80]
    disc = np.hypot(u - 40, v - 30) < 20
    depth = depth_px(disc)
    assert depth[~disc].max() == 0
    assert np.abs(depth[disc] - (20 - np.hypot(u - 40, v - 30)[disc])).max() < 1.0


def test_log_odds_are_those_of_two_gaussians() -> None:
    """Two clouds of equal spread s, d apart: the log odds are linear, d (x - middle) / s^2, along their axis."""
    rng = np.random.default_rng(0)
    spread, first, second = 12.0, np.array([150.0, 100.0, 90.0]), np.array([110.0, 100.0, 90.0])
    draw = lambda mean: np.clip(rng.normal(mean, spread, (40_000, 3)), 0, 255).astype(np.uint8)  # noqa: E731
    model = ColorModel.learned(draw(first), draw(second))
    x = np.array([[[118, 100, 90], [126, 100, 90], [134, 100, 90], [142, 100, 90]]], np.uint8)
    expected = 40.0 * (x[0, :, 0].astype(float) - 130) / spread**2
    # a bin is 4 levels wide (0.56 at its edge); five components each instead of one add their own unevenness
    assert np.abs(model.log_odds(x)[0] - expected).max() < 1.0


def test_cut_keeps_what_is_sure_and_finds_the_edge() -> None:
    rng = np.random.default_rng(0)
    v, u = np.mgrid[:90, :120]
    disc = np.hypot(u - 60, v - 45) < 25
    rgb = np.clip(np.where(disc[..., None], [160, 90, 60], [90, 110, 140]) + rng.normal(0, 8, (90, 120, 3)), 0, 255)
    rgb = rgb.astype(np.uint8)
    model = ColorModel.learned(rgb[disc], rgb[~disc])
    rough = np.hypot(u - 63, v - 43) < 27
    found = tidied(model.cut(rgb, Region.around(rough, outwards=0.15, inwards=0.25, log_odds=model.log_odds(rgb))))
    assert iou(found, disc) > 0.99


def test_tidied_drops_specks_and_fills_pinholes() -> None:
    mask = np.zeros((60, 60), bool)
    mask[10:40, 10:40] = True
    whole = mask.copy()
    mask[20, 20] = False
    mask[50, 50] = True
    assert (tidied(mask) == whole).all()
    mask[22:32, 22:32] = False  # a real hole stays
    assert not tidied(mask)[25, 25]
