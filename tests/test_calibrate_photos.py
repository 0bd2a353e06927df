"""From photographs alone: what holds poses together, against closed forms; the whole way on a rendered capture."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from neuralrecon.calibrate.backdrop import sharing_pairs, standing_still
from neuralrecon.calibrate.checks import (
    about_z,
    epipolar_distances,
    fit_rig,
    fit_turntable,
    inverted,
    looked_at,
    pose_differences,
)
from neuralrecon.calibrate.hull_check import silhouette_shares
from neuralrecon.calibrate.mapping import EXHAUSTIVE_UP_TO, MatchingConfig, candidate_pairs
from neuralrecon.calibrate.photo_files import Photo, PhotoSet, in_order, list_photos
from neuralrecon.calibrate.photos import PhotosConfig, calibrate_photos
from neuralrecon.calibrate.structure import recognised_structure
from neuralrecon.capture import read_capture
from neuralrecon.errors import CaptureError, ConfigError
from neuralrecon.geometry import Camera
from neuralrecon.simulate import SimulateConfig, simulate

STOPS = [float(a) for a in range(0, 360, 24)]


def looking_at(centre: np.ndarray, target: np.ndarray, roll_deg: float = 0.0) -> np.ndarray:
    """cam_from_world of a camera at `centre` whose axis meets `target`."""
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(forward, (0.1, 0.2, 1.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = -pose[:3, :3] @ centre
    return about_z(np.array(roll_deg)) @ pose


def turntable_views(seed: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Three cameras on an arc, the object turned to 15 stops, in a world turned, shifted and 3.7 times as large.

    Poses by camera then stop, the sensor and stop of each, and axis_from_world (at world's scale).
    """
    arc = [np.array([0.8 * np.cos(e), 0.1, 0.8 * np.sin(e)]) for e in np.deg2rad([10, 45, 80])]
    axis_from_world = np.eye(4)
    axis_from_world[:3, :3] = Rotation.from_rotvec([0.4, -1.1, 2.0]).as_matrix()
    axis_from_world[:3, 3] = (1.0, -2.0, 0.5)
    poses, sensors, stops = [], [], []
    for sensor, centre in enumerate(arc):
        cam_from_room = looking_at(3.7 * centre, np.array([0.05, 0.02, 0.2]), roll_deg=20.0 * sensor)
        for stop, angle in enumerate(STOPS):
            poses.append(cam_from_room @ about_z(np.array(-angle)) @ axis_from_world)
            sensors.append(sensor)
            stops.append(stop)
    return np.stack(poses), np.array(sensors), np.array(stops), axis_from_world


def spoilt(poses: np.ndarray, wrong: list[int]) -> np.ndarray:
    """Some views turned by 4 degrees to 180 degrees about odd axes, as mapping does with look-alike sides."""
    out = poses.copy()
    for k, i in enumerate(wrong):
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_rotvec(np.deg2rad([4.0 + 44 * k, 10.0 * k, -7.0 * k])).as_matrix()
        out[i] = turn @ out[i]
    return out


def test_the_turntable_of_exact_poses_is_found_exactly() -> None:
    poses, sensors, _, axis_from_world = turntable_views()
    fit = fit_turntable(poses, sensors, looked_at(poses)[1])
    z = fit.axis_from_world[2, :3]
    assert abs(abs(z @ axis_from_world[2, :3]) - 1) < 1e-12
    sign = np.sign(z @ axis_from_world[2, :3])
    turned = sign * (fit.angle_deg - fit.angle_deg[0])
    for sensor in range(3):
        own = turned[sensors == sensor]
        np.testing.assert_allclose((own - own[0] - np.array(STOPS) + 180) % 360, 180, atol=1e-9)
    # the axis passes through the true one: its points map onto x = y = 0
    on_axis = inverted(fit.axis_from_world)[:3, 3]
    assert np.linalg.norm((axis_from_world[:3, :3] @ on_axis + axis_from_world[:3, 3])[:2]) < 1e-9
    assert fit.agreement.rotation_deg.max() < 1e-6
    assert fit.agreement.centre_share.max() < 1e-9
    rebuilt = fit.cam_from_room[sensors] @ about_z(-fit.angle_deg) @ fit.axis_from_world
    np.testing.assert_allclose(rebuilt, poses, atol=1e-9)


def test_wrong_views_are_named_by_the_axis_and_by_the_rig() -> None:
    poses, sensors, stops, _ = turntable_views()
    wrong = [0, 3, 7, 17, 20, 21, 23, 31, 44]
    bad = spoilt(poses, wrong)
    reach = looked_at(bad)[1]
    assert reach == pytest.approx(looked_at(poses)[1], rel=0.05)
    expected = np.ones(len(poses), dtype=bool)
    expected[wrong] = False
    axis = fit_turntable(bad, sensors, reach)
    np.testing.assert_array_equal(axis.agreement.agrees, expected)
    rig = fit_rig(bad, sensors, stops, reach)
    np.testing.assert_array_equal(rig.agreement.agrees, expected)
    # what the rig says of the wrong views is where they were
    predicted = rig.cam_from_rig[sensors] @ rig.rig_from_world[stops]
    off_deg, off_share = pose_differences(inverted(predicted), inverted(poses), reach)
    assert off_deg.max() < 1e-6
    assert off_share.max() < 1e-9


def test_noise_of_poses_comes_back_as_residuals() -> None:
    poses, sensors, _, axis_from_world = turntable_views()
    rng = np.random.default_rng(0)
    noisy = poses.copy()
    for i in range(len(noisy)):
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_rotvec(rng.normal(0, np.deg2rad(0.05), 3)).as_matrix()
        noisy[i] = noisy[i] @ inverted(turn)
    fit = fit_turntable(noisy, sensors, looked_at(poses)[1])
    z = fit.axis_from_world[2, :3]
    # 45 views of 0.05 degrees each: the axis is known to about 0.05 / sqrt(45) = 0.0075 degrees per direction
    assert np.degrees(np.arccos(min(1.0, abs(z @ axis_from_world[2, :3])))) < 0.03
    # two of three components of the noise remain (the third is the free angle): median of a Rayleigh variable
    assert 0.03 < np.median(fit.agreement.rotation_deg) < 0.09


def photo_set(stops: int, cameras: int, *, rig: bool) -> PhotoSet:
    photos = [
        Photo(
            name=f"c{c}/{s}.jpg", path=Path(f"c{c}/{s}.jpg"), camera=f"c{c}", stop=str(s), sensor=f"c{c}", size=(8, 8)
        )
        for c in range(cameras)
        for s in range(stops)
    ]
    return PhotoSet(root=Path("."), photos=tuple(photos), is_rig=rig, findings=())


@pytest.mark.parametrize("rig", [True, False])
def test_structure_is_recognised_and_wrong_views_disagree(rig: bool) -> None:
    poses, _, _, _ = turntable_views()
    photos = photo_set(15, 3, rig=rig)
    bad = spoilt(poses, [4, 30])
    named = {p.name: pose for p, pose in zip(photos.photos, bad, strict=True)}
    structure = recognised_structure(photos, named, {}, seed=0)
    assert structure.kind == ("rig, turntable" if rig else "turntable")
    assert [n for n, ok in zip(structure.names, structure.agrees, strict=True) if not ok] == ["c0/4.jpg", "c2/0.jpg"]


def test_a_walk_around_an_object_is_no_turntable() -> None:
    """A hand wobbles by more than 2 % of its distance and a degree."""
    rng = np.random.default_rng(1)
    angles = np.deg2rad(np.array(STOPS))
    centres = np.stack([np.cos(angles), np.sin(angles), 0.4 + 0 * angles], axis=1) + rng.normal(0, 0.1, (15, 3))
    poses = np.stack([looking_at(c, rng.normal(0, 0.05, 3), rng.normal(0, 5)) for c in centres])
    photos = photo_set(15, 1, rig=False)
    named = {p.name: pose for p, pose in zip(photos.photos, poses, strict=True)}
    shares = {p.name: 0.9 for p in photos.photos} | {"c0/3.jpg": 0.1}
    structure = recognised_structure(photos, named, shares, seed=0)
    assert structure.kind == "free motion"
    assert structure.names[int(np.flatnonzero(~structure.agrees)[0])] == "c0/3.jpg"
    assert structure.agrees.sum() == 14


def test_epipolar_distance_is_zero_on_the_truth_and_a_pixel_off_it() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform((-0.2, -0.2, 0.9), (0.2, 0.2, 1.3), (50, 3))
    first, second = np.eye(4), np.eye(4)
    second[0, 3] = -0.3  # beside the first, so that epipolar lines are rows
    motion = second @ inverted(first)
    in_first, in_second = (points @ p[:3, :3].T + p[:3, 3] for p in (first, second))
    xy1, xy2 = in_first[:, :2] / in_first[:, 2:], in_second[:, :2] / in_second[:, 2:]
    assert epipolar_distances(motion, xy1, xy2).max() < 1e-12
    # across the epipolar lines by d in one image: Sampson shares it between two, d / sqrt(2)
    off = epipolar_distances(motion, xy1, xy2 + np.array([0.0, 1e-3]))
    np.testing.assert_allclose(off, 1e-3 / np.sqrt(2), rtol=1e-9)
    behind = epipolar_distances(motion, xy1, -xy2)
    assert np.isinf(behind).mean() > 0.5


def test_silhouettes_name_the_wrong_view() -> None:
    """A ball's outline is a disc in every view; turn one camera by 6 degrees and its disc lies beside the hull."""
    angles = np.deg2rad(np.array(STOPS))
    centres = np.stack([0.8 * np.cos(angles), 0.8 * np.sin(angles), 0.3 + 0.2 * np.cos(3 * angles)], axis=1)
    target = np.array([0.02, 0.01, 0.05])
    poses = np.stack([looking_at(c, np.zeros(3)) for c in centres])
    camera = Camera(width=160, height=120, fx=200.0, fy=200.0, cx=80.0, cy=60.0)
    v, u = np.mgrid[:120, :160] + 0.5
    rays = np.stack([(u - 80) / 200, (v - 60) / 200, np.ones_like(u)], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    masks = []
    for pose in poses:
        middle = pose[:3, :3] @ target + pose[:3, 3]
        masks.append(np.linalg.norm(np.cross(rays, middle), axis=-1) < 0.08)
    right = silhouette_shares(masks, [camera] * len(poses), poses)
    assert right.min() > 0.98
    bad = poses.copy()
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.deg2rad([0.0, 6.0, 0.0])).as_matrix()
    bad[6] = turn @ bad[6]
    shares = silhouette_shares(masks, [camera] * len(poses), bad)
    assert shares.argmin() == 6
    assert shares[6] < 0.6


def keypoints_at(xy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([xy, np.tile([2.0, 0.0, 0.0, 2.0], (len(xy), 1))], axis=1)


def test_what_stands_still_is_backdrop_and_what_turns_is_not() -> None:
    rng = np.random.default_rng(0)
    still_xy, still_d = rng.uniform(0, 500, (40, 2)), rng.integers(0, 120, (40, 128), dtype=np.uint8)
    moving_d = rng.integers(0, 120, (60, 128), dtype=np.uint8)
    keypoints, descriptors = [], []
    for _ in range(8):
        moving_xy = rng.uniform(0, 500, (60, 2))
        keypoints.append(keypoints_at(np.concatenate([still_xy + rng.normal(0, 0.2, (40, 2)), moving_xy]), rng))
        descriptors.append(np.concatenate([still_d, moving_d]))
    for mask in standing_still(keypoints, descriptors):
        np.testing.assert_array_equal(mask, np.arange(100) < 40)


def test_pairs_that_share_features_go_ahead() -> None:
    rng = np.random.default_rng(0)
    shared, others = rng.integers(0, 120, (20, 128), dtype=np.uint8), rng.integers(0, 120, (3, 60, 128), dtype=np.uint8)
    descriptors = [np.concatenate([shared, others[0]]), np.concatenate([shared, others[1]]), others[2]]
    keypoints = [keypoints_at(rng.uniform(0, 500, (len(d), 2)), rng) for d in descriptors]
    assert sharing_pairs(keypoints, descriptors, [(0, 1), (0, 2), (1, 2)]) == [(0, 1)]


def test_pairs_grow_linearly_beyond_exhaustive_matching() -> None:
    assert len(candidate_pairs(photo_set(EXHAUSTIVE_UP_TO, 1, rig=False))) == 120 * 119 // 2
    small, large = (len(candidate_pairs(photo_set(n, 5, rig=True))) for n in (60, 120))
    assert large < 2.1 * small


def test_cameras_and_stops_are_read_from_names_and_folders(tmp_path: Path) -> None:
    for camera in ("N1", "NP2"):
        for stop in (0, 30, 120):
            Image.new("RGB", (12, 8)).save(tmp_path / f"{camera}_{stop}.jpg")
    (tmp_path / "masks").mkdir()
    Image.new("L", (12, 8)).save(tmp_path / "masks" / "N1_30_mask.png")
    flat = list_photos(tmp_path)
    assert flat.is_rig
    assert [p.name for p in flat.photos][:3] == ["N1_0.jpg", "N1_30.jpg", "N1_120.jpg"]
    assert [p.name for p in flat.photos if p.mask_path is not None] == ["N1_30.jpg"]
    assert flat.stops == ("0", "30", "120")
    assert "2 cameras (N1, NP2) share 3 stops: taken for a rig" in flat.findings

    folders = tmp_path / "folders"
    for camera, size in (("left", (12, 8)), ("right", (8, 12))):
        (folders / camera).mkdir(parents=True)
        for stop in range(4):
            Image.new("RGB", size).save(folders / camera / f"IMG_{stop}.png")
    listed = list_photos(folders)
    assert listed.is_rig
    assert len(listed.sensors) == 2
    assert not list_photos(folders, rig=False).is_rig

    single = list_photos(folders / "left")
    assert not single.is_rig
    assert {p.camera for p in single.photos} == {""}


def test_listing_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such folder"):
        list_photos(tmp_path / "none")
    with pytest.raises(CaptureError, match="0 photographs"):
        list_photos(tmp_path)
    for i in range(3):
        Image.new("RGB", (12, 8)).save(tmp_path / f"{i}.jpg")
    with pytest.raises(CaptureError, match="rig=true, but"):
        list_photos(tmp_path, rig=True)


def test_two_scales_are_refused() -> None:
    with pytest.raises(ConfigError, match="both give the scale"):
        PhotosConfig(camera_distance_mm=500.0, object_height_mm=100.0)


def test_names_sort_by_their_numbers() -> None:
    assert sorted(["b10", "a2", "a10", "a1.5"], key=in_order) == ["a1.5", "a2", "a10", "b10"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A printed box on the printed turntable, 12 stops, seen by two of the rig's cameras."""
    config = SimulateConfig(n_stops=12, n_width=420, np_width=40, depth_width=40, supersample=1, focal_percent=0.0)
    return simulate(config, tmp_path_factory.mktemp("photos") / "box")


def test_two_cameras_and_a_turntable_from_nothing(rendered: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in [*rendered.glob("N2_*.jpg"), *rendered.glob("N4_*.jpg")]:
        shutil.copy(file, folder / file.name)
    config = PhotosConfig(camera_distance_mm=900.0, matching=MatchingConfig(n_features=700))
    result = calibrate_photos(folder, config, tmp_path / "work")
    assert result.kind == "rig, turntable"
    assert result.n_registered == result.n_photos == 24
    capture = result.capture
    assert capture.has_table
    assert capture.is_metric
    assert [s.name for s in capture.sensors] == ["N2", "N4"]
    # 30 degrees a stop, in either direction as the file names have it, from the first stop on
    angles = np.array([frame.angle_deg for frame in capture.frames])
    np.testing.assert_allclose((angles - angles[0] - [30 * k for k in range(12)] + 180) % 360, 180, atol=0.1)

    exact = _exact(rendered)
    est = np.stack([capture.sensor_from_world(i).matrix().numpy() for i in capture.images])
    true = np.stack([exact[i.path.name] for i in capture.images])
    turn_deg, centre_mm = _after_similarity(est, true)
    # Lenses' principal points are known to 1 % of the width beforehand, 4.2 px of f = 580 px: 0.4 degrees, which at
    # 0.9 m is 6.5 mm of a sensor's centre; that part is common to all its views.
    assert np.median(turn_deg) < 0.5
    assert np.median(centre_mm) < 7.0
    for sensor in ("N2", "N4"):
        own = np.array([i.sensor == sensor for i in capture.images])
        alone_deg, alone_mm = _after_similarity(est[own], true[own])
        # Between the views of one sensor a pixel is 0.1 degrees and, at 0.9 m, 1.6 mm: the features average well below.
        assert np.ptp(alone_deg) < 0.1
        assert np.median(alone_mm) < 1.6


def _exact(root: Path) -> dict[str, np.ndarray]:
    """cam_from_world by file name, from the simulator's exact calibration."""
    shutil.copy(root / "gt" / "calibration_exact.h5", root / "calibration.h5")
    capture = read_capture(root)
    return {i.path.name: capture.sensor_from_world(i).matrix().numpy() for i in capture.images}


def _after_similarity(est: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Degrees and millimetres that camera poses are off after the best similarity of their centres."""
    a, b = inverted(est)[:, :3, 3], inverted(true)[:, :3, 3]
    turn, _ = Rotation.align_vectors(b - b.mean(0), a - a.mean(0))
    moved = turn.apply(a - a.mean(0))
    scale = (moved * (b - b.mean(0))).sum() / (moved**2).sum()
    apart = np.linalg.norm(scale * moved - (b - b.mean(0)), axis=1)
    between = Rotation.from_matrix(est[:, :3, :3]) * turn.inv() * Rotation.from_matrix(true[:, :3, :3]).inv()
    return np.degrees(between.magnitude()), 1000 * apart
