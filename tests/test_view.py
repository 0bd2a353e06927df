"""What the viewer puts on the screen, against the run that it shows and a sphere's closed forms. Without a browser."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation
from viewed_runs import CENTER, RADIUS, sphere_fit, write_run

from benchmarks.visitor import visiting
from neuralrecon.capture import SensorKind, read_capture, read_depth
from neuralrecon.errors import ConfigError
from neuralrecon.extract import MeshConfig, extract_mesh
from neuralrecon.render import free_room, render_view
from neuralrecon.view import ViewConfig, Viewer, show
from neuralrecon.view import server as server_module
from neuralrecon.view import worker as worker_module
from neuralrecon.view.captions import of_run
from neuralrecon.view.eyes import Eye, eye_of, free_eye, pose_of, rigid_of, through, viewer_camera, window_on
from neuralrecon.view.hull import hull_mesh
from neuralrecon.view.inliers import believed_at, nearest_depth_images, readings_of
from neuralrecon.view.maps import rendered
from neuralrecon.view.panel import Cameras, Source
from neuralrecon.view.plane import AXES, Plane, clipped, sliced
from neuralrecon.view.points import PointKind, points_by_kind
from neuralrecon.view.runs import Run, runs_of
from neuralrecon.view.stage import image_name
from neuralrecon.view.surfaces import Paint, drawn
from neuralrecon.view.thumbnails import thumbnail
from neuralrecon.view.viewpoints import Shows, Subject, seen_beside
from neuralrecon.view.worker import Worker

VOXEL_MM = 2.5
FIT_OF_RUN = Run.fit


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def run_folder(sphere_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "sphere", sphere_folder)


@pytest.fixture(scope="module")
def capture(sphere_folder: Path):
    return read_capture(sphere_folder)


@pytest.fixture(scope="module")
def fit(capture):
    return sphere_fit(capture)


@pytest.fixture(scope="module")
def viewer(run_folder: Path, fit) -> Iterator[Viewer]:
    """With a visitor, and with the sphere's own field in place of an untrained one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "fit", lambda self: fit)
        with shown(run_folder, cells=40, picture_px=48) as opened:
            yield opened
            assert opened.worker.failure is None


def settled(viewer: Viewer, **chosen: object) -> Viewer:
    """With these controls set and all that follows from them done."""
    for name, value in chosen.items():
        getattr(viewer.jobs.panel, name).value = value
    done(viewer)
    assert not viewer.jobs._troubles
    return viewer


def done(viewer: Viewer) -> None:
    """Wait until all that was asked for is done."""
    assert viewer.wait_idle(120)


class AtOnce:
    """In place of viser's pool of threads: what a control's change asks for is asked for when the change returns."""

    def submit(self, call: Callable[..., object], *args: object) -> Future:
        done: Future = Future()
        done.set_result(call(*args))
        return done


@contextmanager
def shown(folder: Path | list[Path], **settings: int) -> Iterator[Viewer]:
    """A viewer with a visitor, with the first object on the screen."""
    with show(folder, ViewConfig(port=free_port(), **settings)) as viewer:
        viewer.server.gui._thread_executor = AtOnce()  # type: ignore[assignment]
        with visiting(viewer.url):
            done(viewer)
            yield viewer


def surface_of(viewer: Viewer) -> trimesh.Trimesh:
    data = BytesIO(viewer.jobs.stage.parts["surface"].glb_data)
    found = trimesh.load(data, file_type="glb", force="mesh", process=False)
    assert isinstance(found, trimesh.Trimesh)
    return found


# cameras


def test_every_image_has_a_frustum_where_its_camera_stood(viewer: Viewer, capture) -> None:
    settled(viewer, cameras=Cameras.all)
    frusta = viewer.jobs.stage.frusta
    assert len(frusta) == len(capture.images) == sum(handle.visible for handle in frusta.values())
    for image in capture.images:
        handle = frusta[image_name(image)]
        world_from_cam = capture.sensor_from_world(image).inverse()
        turn = Rotation.from_quat(handle.wxyz, scalar_first=True).as_matrix()
        # quaternions of float64 matrices, whose rotation is exact to 1e-15
        assert np.abs(turn - world_from_cam.rotation.numpy()).max() < 1e-9
        assert np.abs(handle.position - world_from_cam.translation.numpy()).max() < 1e-12
        camera = capture.sensor(image.sensor).camera
        assert np.tan(handle.fov / 2) == pytest.approx(camera.height / 2 / camera.fy, rel=1e-9)


def test_the_rig_is_the_cameras_of_one_stop(viewer: Viewer, capture) -> None:
    settled(viewer, cameras=Cameras.one_stop, stop=2, depth_cameras=False)
    visible = {name for name, handle in viewer.jobs.stage.frusta.items() if handle.visible}
    photos = capture.images_of(SensorKind.color)
    assert visible == {image_name(image) for image in photos if image.frame == capture.frames[2].name}
    settled(viewer, cameras=Cameras.none)
    assert not any(handle.visible for handle in viewer.jobs.stage.frusta.values())
    settled(viewer, depth_cameras=True)


def test_frusta_carry_their_photographs(viewer: Viewer, capture) -> None:
    settled(viewer, cameras=Cameras.one_stop, stop=0)
    for image in capture.images:
        if image.frame == capture.frames[0].name:
            picture = viewer.jobs.stage.frusta[image_name(image)].image
            assert picture is not None
            assert np.array_equal(picture, thumbnail(capture, image, viewer.config.thumbnail_px))
            assert max(picture.shape) == viewer.config.thumbnail_px


def test_poses_go_forth_and_back(capture) -> None:
    pose = capture.sensor_from_world(capture.images[7])
    again = rigid_of(*pose_of(pose))
    assert torch.allclose(again.matrix(), pose.matrix().double(), atol=1e-9)


def test_a_click_on_a_frustum_goes_there(viewer: Viewer, capture) -> None:
    image = capture.images_of(SensorKind.color)[3]
    client = next(iter(viewer.server.get_clients().values()))
    home = client.camera.position, client.camera.wxyz
    viewer.jobs._clicked(image_name(image), SimpleNamespace(client=client))  # type: ignore[arg-type]
    world_from_cam = capture.sensor_from_world(image).inverse()
    assert viewer.jobs.panel.eye.value == image_name(image)
    assert np.allclose(client.camera.position, world_from_cam.translation, atol=1e-9)
    turn = Rotation.from_quat(client.camera.wxyz, scalar_first=True).as_matrix()
    assert np.abs(turn - world_from_cam.rotation.numpy()).max() < 1e-6
    settled(viewer, cameras=Cameras.all)
    assert not viewer.jobs.stage.frusta[image_name(image)].visible  # one stands in it
    client.camera.position = np.array([0.0, 0.0, 2.0])
    viewer.jobs._leave(client)
    settled(viewer)
    assert viewer.jobs.stage.frusta[image_name(image)].visible
    client.camera.position, client.camera.wxyz = home


# surface


def test_the_surface_is_the_mesh_that_extract_makes(viewer: Viewer, fit) -> None:
    settled(viewer, voxel_mm=VOXEL_MM, level_mm=0.0, paint=Paint.clay)
    found, wanted = surface_of(viewer), extract_mesh(fit, MeshConfig(voxel_mm=VOXEL_MM, vertex_colors=False))
    assert len(found.vertices) == len(wanted.vertices)
    assert np.abs(found.vertices - wanted.vertices).max() < 1e-7  # float32 at 0.1 m
    assert f"{len(wanted.faces):,} faces" in viewer.jobs.panel.of_surface.content


@pytest.mark.parametrize("level_mm", [-3.0, 2.0])
def test_the_iso_level_moves_the_sphere_by_so_much(viewer: Viewer, fit, level_mm: float) -> None:
    settled(viewer, voxel_mm=VOXEL_MM, level_mm=level_mm)
    found = surface_of(viewer)
    wanted = extract_mesh(fit, MeshConfig(voxel_mm=VOXEL_MM, vertex_colors=False), level_mm=level_mm)
    assert len(found.vertices) == len(wanted.vertices)
    above = found.vertices[found.vertices[:, 2] > VOXEL_MM / 1e3]
    away = np.linalg.norm(above - CENTER.numpy(), axis=1)
    # linear between nodes: a chord of a voxel's diagonal is off by at most d^2 / (8 R)
    off = (3**0.5 * VOXEL_MM / 1e3) ** 2 / 8 / (RADIUS - 0.003)
    assert np.abs(away - RADIUS - level_mm / 1e3).max() < off
    settled(viewer, level_mm=0.0)


def test_the_mesh_file_is_drawn_as_it_is(viewer: Viewer, run_folder: Path) -> None:
    settled(viewer, source=Source.file)
    file = trimesh.load_mesh(run_folder / "mesh.ply")
    assert len(surface_of(viewer).vertices) == len(file.vertices)
    settled(viewer, source=Source.fit)


def test_clipping_splits_area_and_keeps_colours_linear() -> None:
    """Both sides of a plane add up to the sphere's own area; a colour that is the position stays the position."""
    ball = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS)
    vertices, faces = np.asarray(ball.vertices), np.asarray(ball.faces)
    areas = []
    for flipped in (False, True):
        plane = Plane(axis="y", offset_m=0.012, flipped=flipped)
        kept, kept_faces, colors = clipped(vertices, faces, vertices, plane)
        assert (plane.beyond(kept) < 1e-12).all()
        assert np.abs(colors - kept).max() < 1e-15
        part = trimesh.Trimesh(kept, kept_faces, process=False)
        assert part.is_winding_consistent
        away = part.triangles_center * part.face_normals
        assert (away.sum(axis=1) > 0).all()
        areas.append(part.area)
    assert sum(areas) == pytest.approx(ball.area, rel=1e-12)
    # a zone of a sphere has the area 2 pi R h; the icosphere of 1280 faces lacks 0.7 % of the area
    assert areas[0] / areas[1] == pytest.approx((RADIUS + 0.012) / (RADIUS - 0.012), rel=0.01)


def test_a_plane_beyond_the_mesh_leaves_it_whole_and_one_before_it_nothing() -> None:
    ball = trimesh.creation.icosphere(subdivisions=1, radius=RADIUS)
    whole = drawn(ball, Paint.normal, Plane(axis="x", offset_m=1.0))
    assert (len(whole.vertices), len(whole.faces)) == (len(ball.vertices), len(ball.faces))
    assert np.abs(whole.colors / 127.5 - 1 - ball.vertex_normals).max() <= 0.5 / 127.5 + 1e-9
    assert len(drawn(ball, Paint.clay, Plane(axis="x", offset_m=-1.0)).faces) == 0


def test_clipping_in_the_viewer_cuts_surface_and_labels(viewer: Viewer) -> None:
    settled(viewer, axis="z", clips=True)
    viewer.jobs.panel.labels[PointKind.free].value = True
    settled(viewer, offset_mm=40.0)
    assert surface_of(viewer).vertices[:, 2].max() == pytest.approx(0.04, abs=1e-6)
    assert viewer.jobs.stage.parts[PointKind.free].points[:, 2].max() <= 0.04
    settled(viewer, clips=False)
    viewer.jobs.panel.labels[PointKind.free].value = False
    settled(viewer)
    assert surface_of(viewer).vertices[:, 2].max() > 0.095


# slices


@pytest.mark.parametrize("axis", AXES)
def test_slices_are_the_spheres_sdf_where_their_picture_lies(fit, axis: str) -> None:
    """Each pixel's place follows from the node's pose and size alone, as the browser draws it: x right, y down."""
    found = sliced(fit, Plane(axis=axis, offset_m=0.02), 60)
    n_v, n_u = found.sdf_mm.shape
    u, v = np.meshgrid((np.arange(n_u) + 0.5) / n_u - 0.5, (np.arange(n_v) + 0.5) / n_v - 0.5)
    local = np.stack([u * found.width_m, v * found.height_m, np.zeros_like(u)], axis=-1)
    turn = Rotation.from_quat(found.wxyz, scalar_first=True)
    points = (turn.apply(local.reshape(-1, 3)) + found.position).reshape(n_v, n_u, 3)
    assert np.abs(points[..., AXES.index(axis)] - 0.02).max() < 1e-12
    wanted = (np.linalg.norm(points - CENTER.numpy(), axis=-1) - RADIUS) * 1e3
    inside_cube = (np.abs(points - CENTER.numpy()) <= RADIUS + 0.0099).all(axis=-1)  # beyond it the model is not asked
    assert inside_cube.mean() > 0.5
    assert np.abs(found.sdf_mm - wanted)[inside_cube].max() < 1e-4


def test_the_slice_on_the_screen_is_blue_inside_and_red_outside(viewer: Viewer) -> None:
    settled(viewer, axis="z", offset_mm=50.0, slice=True)
    node = viewer.jobs.stage.parts["slice"]
    picture = node.image.astype(int)
    middle, corner = picture[picture.shape[0] // 2, picture.shape[1] // 2], picture[2, 2]
    assert middle[2] > middle[0] + 40
    assert corner[0] > corner[2] + 40
    assert node.position[2] == pytest.approx(0.05, abs=1e-6)
    settled(viewer, slice=False)
    assert "slice" not in viewer.jobs.stage.parts


# views


@pytest.fixture(scope="module")
def eye(capture, fit) -> Eye:
    """Of a photograph's camera as if it had four times as many pixels a side."""
    whole = eye_of(capture, capture.images_of(SensorKind.color)[2])
    fine = whole.camera.resized(4 * whole.camera.width, 4 * whole.camera.height)
    whole = replace(whole, camera=fine)
    return through(whole, window_on(whole, fit.box, 64))


def test_views_are_those_of_render(fit, eye: Eye) -> None:
    maps = rendered(fit, eye)
    room = free_room(fit.unit_from_world, fit.floor_m)
    seen = render_view(fit.model, eye.rays(fit), room, fit.occupancy, inv_s=1 / fit.blur, step=fit.blur)
    shape = maps.opacity.shape
    assert shape == (eye.camera.height, eye.camera.width)
    assert max(shape) == 64
    # blocks of rays round their sums differently
    assert np.abs(maps.colors - seen.colors.reshape(*shape, 3).clamp(0, 1).numpy()).max() < 1e-5
    assert np.abs(maps.opacity - seen.opacity.reshape(shape).numpy()).max() < 1e-5


def first_hit(eye: Eye) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each pixel's ray with the sphere: whether, depth along the axis, and place; in float64."""
    c, pose = eye.camera, eye.cam_from_world.inverse()
    v, u = torch.meshgrid(torch.arange(c.height) + 0.5, torch.arange(c.width) + 0.5, indexing="ij")
    in_cam = c.rays(torch.stack([u, v], dim=-1).double())
    towards = in_cam / in_cam.norm(dim=-1, keepdim=True)
    d, o = pose.rotate(towards).numpy(), pose.translation.numpy() - CENTER.numpy()
    b = d @ o
    inside = b**2 - o @ o + RADIUS**2
    t = -b - np.sqrt(np.maximum(inside, 0))
    return inside > 0, t * towards[..., 2].numpy(), o + CENTER.numpy() + t[..., None] * d


def test_depth_and_normals_are_the_spheres(fit, eye: Eye) -> None:
    """Off the outline, where a ray's samples are of one place; the mean is within a fifth of the blur of 0.3 mm."""
    hit, depth, points = first_hit(eye)
    maps = rendered(fit, eye)
    outward = (points - CENTER.numpy()) / RADIUS
    towards = points - eye.cam_from_world.inverse().translation.numpy()
    towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
    core = hit & ((outward * towards).sum(axis=-1) < -0.5) & (points[..., 2] > 0.005)
    assert core.sum() > 500
    assert np.abs(maps.depth_m - depth)[core].max() < 0.06e-3
    assert (maps.normals * outward).sum(axis=-1)[core].min() > np.cos(np.radians(1))
    assert np.abs(maps.points - points)[core].max() < 0.06e-3
    assert (np.isfinite(maps.depth_m) == (maps.opacity >= 0.5)).all()
    ring = hit ^ np.isfinite(maps.depth_m)
    assert ring.mean() < 0.05  # the outline's own pixels


def test_a_windows_pixels_look_where_the_whole_images_do(capture, fit) -> None:
    whole = eye_of(capture, capture.images_of(SensorKind.color)[2])
    window = window_on(whole, fit.box, 10_000)
    part = through(whole, window)
    assert (part.camera.width, part.camera.height) == (window.u1 - window.u0, window.v1 - window.v0)
    uv = torch.tensor([[3.5, 7.5], [20.5, 11.5]], dtype=torch.float64)
    shifted = uv + torch.tensor([window.u0, window.v0])
    assert torch.allclose(part.camera.rays(uv), whole.camera.rays(shifted), atol=1e-9)


def test_a_free_camera_takes_the_lights_of_the_photograph_nearest(capture, fit) -> None:
    image = capture.images_of(SensorKind.color)[9]
    taken = eye_of(capture, image)
    free = free_eye(viewer_camera(0.8, 4 / 3, 64), taken.cam_from_world, capture, fit)
    assert (free.sensor, free.stop) == (taken.sensor, taken.stop)
    assert torch.equal(free.rig_from_world, taken.rig_from_world)
    assert (free.camera.width, free.camera.height) == (64, 48)
    assert np.tan(0.4) == pytest.approx(24 / free.camera.fy)


@pytest.mark.parametrize("shows", list(Shows))
def test_every_map_is_shown_from_this_window_and_beside_a_photograph(
    viewer: Viewer, capture, fit, shows: Shows
) -> None:
    settled(viewer, eye=viewer.jobs.panel.eye.options[0], shows=shows)
    own = viewer.jobs.panel.picture.image
    assert max(own.shape[:2]) in (48, 48 + 10)  # a colour bar of 6 px and a gap of 4 below some
    assert own.std() > 5
    settled(viewer, eye=image_name(capture.images_of(SensorKind.color)[0]))
    both = viewer.jobs.panel.picture.image
    window = window_on(eye_of(capture, capture.images_of(SensorKind.color)[0]), fit.box, 48)
    assert both.shape[1] == 2 * window.width + 4  # next to each other, with a gap
    assert capture.images_of(SensorKind.color)[0].path.name in viewer.jobs.panel.of_picture.content


def test_beside_the_photograph_stands_the_photograph(run_folder: Path, capture, fit) -> None:
    image = capture.images_of(SensorKind.color)[2]
    subject = Subject(run=Run(name="x", folder=run_folder), fit=fit, capture=capture, solid=None)
    seen = seen_beside(subject, capture, image, Shows.normal, 64)
    from neuralrecon.capture import read_color
    from neuralrecon.view.pictures import resized

    window = window_on(eye_of(capture, image), fit.box, 64)
    photo = read_color(capture, image)[window.v0 : window.v1, window.u0 : window.u1]
    wanted = resized(photo, window.width, window.height)
    assert np.array_equal(seen.picture[: window.height, : window.width], wanted)


def test_readings_on_the_sphere_are_believed_and_others_are_not(run_folder: Path, capture, fit) -> None:
    """Before the run writes inlier images, the fit's own mixture tells: here of true and of 20 mm shorter readings."""
    run, image = Run(name="x", folder=run_folder), capture.images_of(SensorKind.depth)[0]
    whole = eye_of(capture, image)
    maps = rendered(fit, through(whole, window_on(whole, fit.box, 48)))
    one = readings_of(run, capture, image, fit)
    believed = believed_at(maps.points, maps.normals, [one], None)
    told = np.isfinite(believed)
    assert told.sum() > 50
    assert np.median(believed[told]) > 0.6
    assert (one.probability[read_depth(capture, image) == 0] == 0).all()
    with pytest.MonkeyPatch.context() as patch:
        short = np.maximum(one.depth_m - 0.02, 0).astype(np.float32)
        patch.setattr("neuralrecon.view.inliers.read_depth", lambda *_: short)
        wrong = readings_of(run, capture, image, fit)
    assert np.nanmedian(believed_at(maps.points, maps.normals, [wrong], None)) < 0.05


def test_depth_cameras_behind_the_surface_say_nothing(run_folder: Path, capture, fit) -> None:
    images = nearest_depth_images(capture, capture.sensor_from_world(capture.images[0]), fit)
    assert len(images) == 6
    one = readings_of(Run(name="x", folder=run_folder), capture, images[0], fit)
    center = one.cam_from_world.inverse().translation.numpy()
    towards = (CENTER.numpy() - center) / np.linalg.norm(CENTER.numpy() - center)
    near, far = CENTER.numpy() - towards * RADIUS, CENTER.numpy() + towards * RADIUS
    points, normals = np.stack([near, far])[None], np.stack([-towards, towards])[None]
    full = replace(one, depth_m=np.ones_like(one.depth_m), probability=np.ones_like(one.probability))
    assert np.array_equal(np.isnan(believed_at(points, normals, [full], None)), [[False, True]])


def test_the_hull_holds_the_sphere(fit, capture) -> None:
    hull = hull_mesh(fit, capture)
    away = np.linalg.norm(hull.vertices - CENTER.numpy(), axis=1)
    cell = 1 / (64 * fit.unit_from_world.scale)
    assert hull.is_winding_consistent
    assert hull.volume > 0
    assert hull.vertices[:, 2].min() >= 0
    above = hull.vertices[:, 2] > 0.02  # below, the few low cameras leave a foot
    assert away[above].min() > RADIUS - cell
    camera = capture.sensor("N1").camera
    tolerance = 3 * 0.85 / camera.fx  # of 3 px at the cameras' distance
    assert np.median(away[above]) < RADIUS + tolerance + cell


# labels, curves, words


def test_every_label_is_of_one_kind(run_folder: Path) -> None:
    labels = Run(name="x", folder=run_folder).labels()
    assert labels is not None
    found = points_by_kind(labels, 10_000)
    assert sum(len(points) for points in found.values()) == 600
    assert len(found[PointKind.unobserved]) == 200
    away = np.linalg.norm(found[PointKind.occupied] - CENTER.numpy(), axis=1)
    assert away.max() <= RADIUS
    assert sum(len(points) for points in points_by_kind(labels, 100).values()) == 100


def test_labels_on_the_screen(viewer: Viewer) -> None:
    for box in viewer.jobs.panel.labels.values():
        box.value = True
    settled(viewer)
    assert sum(len(viewer.jobs.stage.parts[kind].points) for kind in PointKind) == 600
    for box in viewer.jobs.panel.labels.values():
        box.value = False
    settled(viewer)
    assert not set(PointKind) & set(viewer.jobs.stage.parts)


def test_curves_are_the_fits_scalars(viewer: Viewer) -> None:
    curves = Run(name="x", folder=viewer.jobs.shown.run.folder).curves()
    assert list(curves) == ["step", "loss", "eikonal", "color"]
    assert curves["loss"].tolist() == [3.0, 2.0, 1.0]
    assert np.isnan(curves["color"][0])
    assert viewer.jobs.curves is not None
    step, loss, *_ = viewer.jobs.curves.handle.data
    assert (step.tolist(), loss.tolist()) == ([0, 1, 2], [3, 2, 1])


def test_the_status_tells_verdict_and_size(viewer: Viewer, capture, fit) -> None:
    text = viewer.jobs.panel.status.content
    assert "finished, ok" in text
    assert "Box 100 × 100 × 100 mm" in text
    assert f"{len(capture.images_of(SensorKind.color))} photographs" in text
    half = replace(fit, step=4)
    assert "broke off, step 4 of 10" in of_run(Run(name="x", folder=Path("gone")), half, None, {})


# runs


def test_a_sweeps_runs_and_several_folders_are_found(run_folder: Path, sphere_folder: Path, tmp_path: Path) -> None:
    for name in ("a/cup", "mug"):
        write_run(tmp_path / "sweep" / "runs" / name, sphere_folder)
    (tmp_path / "sweep" / "runs" / "broken").mkdir()
    (tmp_path / "sweep" / "runs" / "broken" / "config.yaml").write_text("")
    assert [run.name for run in runs_of([tmp_path / "sweep"])] == ["a/cup", "mug"]
    both = runs_of([run_folder, tmp_path / "sweep"])
    assert [run.name for run in both] == ["sphere", "a/cup", "mug"]
    assert len(runs_of([run_folder, run_folder])) == 1


def test_another_object_takes_the_place_of_the_first(
    sphere_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run's fit is damaged: said so, with nothing of the first left; the first comes back."""
    monkeypatch.setattr(Run, "fit", FIT_OF_RUN)  # the one that reads files, whatever other tests have put there
    first, second = (write_run(tmp_path / name, sphere_folder) for name in ("one", "two"))
    (second / "fit" / "fit.safetensors").write_bytes(b"no fit")
    with shown([first, second], cells=16, picture_px=32) as viewer:
        n = len(viewer.jobs.stage.frusta)
        viewer.jobs.panel.object.value = "two"
        done(viewer)
        assert "damaged" in viewer.jobs.panel.trouble.content
        assert "surface" not in viewer.jobs.stage.parts
        viewer.jobs.panel.object.value = "one"
        done(viewer)
        assert viewer.jobs.panel.trouble.content == ""
        assert len(viewer.jobs.stage.frusta) == n
        assert viewer.worker.failure is None


# opening and closing


def test_nothing_is_left_after_a_stop(run_folder: Path) -> None:
    before = set(threading.enumerate())
    port = free_port()
    viewer = show(run_folder, ViewConfig(port=port, cells=16, picture_px=32))
    assert viewer.url == f"http://127.0.0.1:{port}"
    with visiting(viewer.url):
        done(viewer)
    viewer.stop()
    viewer.stop()
    assert set(threading.enumerate()) <= before
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that were closed may linger
        probe.bind(("127.0.0.1", port))


def test_without_a_visitor_nothing_is_computed(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "fit", lambda self: pytest.fail("read"))
    with show(run_folder, ViewConfig(port=free_port())) as viewer:
        time.sleep(0.8)
        assert viewer.worker.busy_s == 0.0
        assert viewer.worker.failure is None


def test_a_taken_port_is_told(run_folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 cannot be listened at"):
            show(run_folder, ViewConfig(port=port))


def test_a_host_that_is_not_ours_is_told(run_folder: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be listened at"):
        show(run_folder, ViewConfig(host="192.0.2.1", port=free_port()))


def test_the_missing_extra_is_named(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install -e "\.\[view\]"'):
        show(run_folder, ViewConfig(port=free_port()))


def test_folders_without_a_fit_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        runs_of([tmp_path / "gone"])
    with pytest.raises(ConfigError, match="no run in it"):
        runs_of([tmp_path])
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "failure.json").write_text('{"message": "an empty hull"}')
    with pytest.raises(ConfigError, match=r"has no fit that could be shown.*an empty hull"):
        runs_of([tmp_path])
    with pytest.raises(ConfigError, match="give run=DIR"):
        runs_of([])


@pytest.mark.parametrize("wrong", [{"port": 0}, {"host": ""}, {"cells": 4}, {"picture_px": 9}, {"most_points": 0}])
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        ViewConfig(**wrong)


# the worker


class Recorded:
    """A worker with jobs of known duration, and when each of them began."""

    def __init__(self, *, beside_training: bool, watched: bool = True) -> None:
        self.began: list[tuple[str, float]] = []
        self.told: dict[str, str | None] = {}
        self.worker = Worker(
            {"first": lambda: self._do("first"), "second": lambda: self._do("second"), "wrong": self._fail},
            look=lambda: None,
            is_watched=lambda: watched,
            is_beside_training=lambda: beside_training,
            tell=lambda job, text: self.told.update({job: text}),
        )

    def _do(self, name: str) -> None:
        self.began.append((name, time.monotonic()))
        time.sleep(0.05)

    def _fail(self) -> None:
        raise ConfigError("not so")


def test_beside_a_training_the_worker_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "REST", 10.0)
    found = Recorded(beside_training=True)
    found.worker.ask("second", "first")
    found.worker.start()
    until = time.monotonic() + 30
    while len(found.began) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    found.worker.stop()
    assert [name for name, _ in found.began] == ["first", "second"]
    assert found.began[1][1] - found.began[0][1] >= 0.05 + 10 * 0.05


def test_the_rest_is_forty_times_the_work() -> None:
    """So that even a training that stands still while the viewer computes loses less than 2.5 % of its time."""
    assert 1 / (1 + worker_module.REST) < 0.025


def test_a_job_that_fails_is_told_and_others_go_on() -> None:
    found = Recorded(beside_training=False)
    found.worker.ask("wrong", "first")
    found.worker.start()
    until = time.monotonic() + 10
    while not found.worker.is_idle and time.monotonic() < until:
        time.sleep(0.01)
    found.worker.stop()
    assert found.told["wrong"] == "not so"
    assert found.told["first"] is None


def test_unwatched_jobs_wait() -> None:
    found = Recorded(beside_training=False, watched=False)
    found.worker.ask("first")
    found.worker.start()
    time.sleep(0.4)
    found.worker.stop()
    assert found.began == []
