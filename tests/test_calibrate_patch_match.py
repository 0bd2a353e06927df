"""What is around PatchMatch and needs no GPU: its workspace, its depth maps in and out, the way back to the world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image as PILImage

from neuralrecon.calibrate import patch_match
from neuralrecon.calibrate.patch_match import (
    PatchMatchConfig,
    Workspace,
    prepare,
    read_depth_map,
    require_cuda,
    stereo_depth,
    with_depth_maps,
)
from neuralrecon.capture import Capture, Frame, Image, Sensor, SensorKind, read_depth
from neuralrecon.errors import CalibrationError, CaptureError, ConfigError
from neuralrecon.geometry import Camera, Rigid

DISTORTION = (-0.08, 0.05, 4e-4, -3e-4, 0.0)
WIDTH, HEIGHT, DISTANCE = 96, 72, 0.8


def arc(root: Path, angles_deg: tuple[float, ...]) -> Capture:
    """One distorted camera that stands still at (0.8, 0, 0) and looks along -x; the object turns about z."""
    camera = Camera(width=WIDTH, height=HEIGHT, fx=110, fy=111, cx=47.3, cy=36.9, distortion=DISTORTION)
    rotation = torch.tensor([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]], dtype=torch.float64)
    place = torch.tensor([DISTANCE, 0, 0], dtype=torch.float64)
    sensor = Sensor(
        name="A",
        kind=SensorKind.color,
        camera=camera,
        sensor_from_rig=Rigid(rotation=rotation, translation=-rotation @ place),
    )
    frames, images = [], []
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    for angle in angles_deg:
        frames.append(Frame(name=f"{angle:g}", rig_from_world=Rigid.about_axis("z", angle), angle_deg=angle))
        path = root / "A" / f"{angle:g}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # two straight ramps: a pixel's colour says where it is
        PILImage.fromarray(np.stack([2 * u, 2 * v, 0 * u], axis=-1).astype(np.uint8)).save(path)
        mask = root / "masks" / f"{angle:g}.png"
        mask.parent.mkdir(exist_ok=True)
        PILImage.fromarray(((u >= 30) * 255).astype(np.uint8)).save(mask)
        images.append(Image(sensor="A", frame=f"{angle:g}", path=path, mask_path=mask))
    return Capture(name="arc", root=root, layout="plain", sensors=(sensor,), frames=tuple(frames), images=tuple(images))


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return prepare(arc(tmp_path / "capture", (0, 15, 30, 180)), tmp_path / "work", PatchMatchConfig())


def write_depth_map(path: Path, depth: np.ndarray) -> None:
    """COLMAP's format, by hand: width&height&channels& and 32-bit floats, rows first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"{depth.shape[1]}&{depth.shape[0]}&1&".encode() + depth.astype("<f4").tobytes())


def depth_of_plane(camera: Camera, cam_from_world: Rigid) -> np.ndarray:
    """Of the plane x + 0.3 z = 0.05 in the world, 0 where it lies behind."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = camera.rays(torch.from_numpy(np.stack([u, v], -1) + 0.5)).numpy()
    world_from_cam = cam_from_world.inverse()
    normal = np.array([1, 0, 0.3])
    slope = rays @ world_from_cam.rotation.numpy().T @ normal
    depth = (0.05 - normal @ world_from_cam.translation.numpy()) / slope
    return np.where(depth > 0, depth, 0)


def test_photographs_are_undistorted_as_the_camera_says(space: Workspace) -> None:
    image, camera = space.photographs[0], space.cameras[0]
    rgb = np.asarray(PILImage.open(space.folder / "images" / "A" / "0.png").convert("RGB")).astype(float)
    assert rgb.shape[:2] == (camera.height, camera.width)
    v, u = np.mgrid[: camera.height, : camera.width]
    own = space.capture.sensor(image.sensor).camera
    at = own.project(camera.rays(torch.from_numpy(np.stack([u, v], -1) + 0.5))).numpy()
    inner = ((at > 2) & (at < (WIDTH - 2, HEIGHT - 2))).all(-1)
    # grey values are whole numbers, two a pixel, and those of pixel (u, v) are of the place (u + 0.5, v + 0.5)
    assert inner.mean() > 0.8
    assert np.abs(rgb[inner][:, :2] - 2 * (at[inner] - 0.5)).max() < 1.01


def test_the_workspace_says_who_is_compared_with_whom(space: Workspace) -> None:
    lines = (space.folder / "stereo" / "patch-match.cfg").read_text().splitlines()
    partners = {a: set(b.split(", ")) for a, b in zip(lines[::2], lines[1::2], strict=True)}
    assert partners == {
        "A/0.png": {"A/15.png", "A/30.png"},
        "A/15.png": {"A/0.png", "A/30.png"},
        "A/30.png": {"A/0.png", "A/15.png"},
    }
    assert [image.frame for image in space.photographs] == ["0", "15", "30"]
    assert [line.split(": ")[1] for line in space.capture.left_out] == ["no stereo depth, no photograph is near"]
    assert space.near == pytest.approx(0.5 * DISTANCE)
    assert space.far == pytest.approx(1.5 * DISTANCE)
    model = pycolmap.Reconstruction(space.folder / "sparse")
    for image in model.images.values():
        assert image.camera.model == pycolmap.CameraModelId.PINHOLE
        center = image.projection_center()
        angle = np.radians(float(Path(image.name).stem))
        assert np.allclose(center, DISTANCE * np.array([np.cos(angle), -np.sin(angle), 0]), atol=1e-9)


def test_depth_maps_are_pycolmaps(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).uniform(0.5, 1, (5, 7)).astype(np.float32)
    by_hand, by_colmap = tmp_path / "a.bin", tmp_path / "b.bin"
    write_depth_map(by_hand, depth)
    pycolmap.DepthMap.from_array(depth, 0.5, 1.0).write(by_colmap)
    assert by_hand.read_bytes() == by_colmap.read_bytes()
    assert np.array_equal(read_depth_map(by_colmap), depth)


@pytest.mark.parametrize(
    "content", [b"", b"7&5&1&", b"7&5&3&" + bytes(420), b"7&5&1&" + bytes(139), b"P6 7 5 255 " * 20]
)
def test_broken_depth_maps_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.bin"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"broken\.bin.*run PatchMatch again"):
        read_depth_map(path)
    with pytest.raises(CalibrationError, match=r"gone\.bin: no depth map"):
        read_depth_map(tmp_path / "gone.bin")


def test_depth_comes_back_to_the_place_it_was_seen_at(space: Workspace, tmp_path: Path) -> None:
    for image, camera in zip(space.photographs, space.cameras, strict=True):
        write_depth_map(space.depth_path(image), depth_of_plane(camera, space.capture.sensor_from_world(image)))
    capture = with_depth_maps(space, tmp_path / "depth")
    assert [s.name for s in capture.sensors] == ["A", "A_stereo"]
    assert len(capture.images) == 7
    step = space.far / 65535
    for image in capture.images_of(SensorKind.depth):
        depth, sensor = read_depth(capture, image), capture.sensor(image.sensor)
        v, u = np.nonzero(depth)
        assert len(v) > 0.5 * depth.size
        in_cam = sensor.camera.rays(torch.from_numpy(np.stack([u, v], -1) + 0.5))
        in_cam = in_cam * torch.from_numpy(depth[v, u].astype(np.float64))[:, None]
        points = capture.sensor_from_world(image).inverse().apply(in_cam).numpy()
        # half a step of the 16 bits along the ray, which meets the plane at less than its normal's length
        assert np.abs(points @ (1, 0, 0.3) - 0.05).max() < step
        # the mask keeps what the distorted photograph shows right of column 30
        own = capture.sensor("A").camera
        at = own.project(sensor.camera.rays(torch.from_numpy(np.stack([u, v], -1) + 0.5))).numpy()
        assert at[:, 0].min() >= 30
        assert at[:, 0].min() < 31.5


def test_a_depth_map_of_another_size_is_named(space: Workspace, tmp_path: Path) -> None:
    write_depth_map(space.depth_path(space.photographs[0]), np.ones((4, 4)))
    with pytest.raises(CalibrationError, match=r"0\.png\.geometric\.bin: 4 x 4 px, want"):
        with_depth_maps(space, tmp_path / "depth")


def test_without_cuda_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pycolmap, "has_cuda", False)
    with pytest.raises(ConfigError, match="pycolmap-cuda12"):
        stereo_depth(arc(tmp_path / "capture", (0, 15)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(pycolmap, "has_cuda", True)
    require_cuda()


def test_patchmatch_is_asked_for_what_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the GPU's part that leaves the depth maps of a plane where PatchMatch would."""
    capture, asked = arc(tmp_path / "capture", (0, 15)), []

    def stand_in(workspace_path: Path, *, options: pycolmap.PatchMatchOptions) -> None:
        asked.append(options)
        model = pycolmap.Reconstruction(workspace_path / "sparse")
        for image in model.images.values():
            size = image.camera.height, image.camera.width
            write_depth_map(
                workspace_path / "stereo" / "depth_maps" / f"{image.name}.geometric.bin", np.full(size, 0.7)
            )

    monkeypatch.setattr(pycolmap, "has_cuda", True)
    monkeypatch.setattr(patch_match.pycolmap, "patch_match_stereo", stand_in)
    result = stereo_depth(capture, tmp_path / "out", PatchMatchConfig(least_consistent=3, least_correlation=0.25))
    assert asked[0].filter_min_num_consistent == 3
    assert asked[0].filter_min_ncc == pytest.approx(0.25)
    assert (asked[0].depth_min, asked[0].depth_max) == pytest.approx((0.4, 1.2))
    depth = read_depth(result, result.images_of(SensorKind.depth)[0])
    assert np.allclose(depth[depth > 0], 0.7, atol=1.2 / 65535)

    def failing(workspace_path: Path, *, options: pycolmap.PatchMatchOptions) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(patch_match.pycolmap, "patch_match_stereo", failing)
    with pytest.raises(CalibrationError, match="out of memory"):
        stereo_depth(capture, tmp_path / "out")


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    capture = arc(tmp_path / "capture", (0, 15))
    with pytest.raises(CaptureError, match="1 photographs, want 2"):
        prepare(replace(capture, images=capture.images[:1]), tmp_path / "work", PatchMatchConfig())
    capture.images[1].path.write_bytes(b"no image")
    with pytest.raises(CaptureError, match=r"15\.png: COLMAP could not read"):
        prepare(capture, tmp_path / "work", PatchMatchConfig())
    with pytest.raises(ConfigError, match="n_partners"):
        PatchMatchConfig(n_partners=0)
    with pytest.raises(ConfigError, match="least_correlation"):
        PatchMatchConfig(least_correlation=1.0)
