"""The viewer in headless Chromium: what a user sees and clicks."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from viewed_runs import CENTER, sphere_fit, write_run

from benchmarks.visitor import browsing, chromium
from neuralrecon.capture import SensorKind, read_capture
from neuralrecon.view import ViewConfig, Viewer, show
from neuralrecon.view.eyes import rigid_of, viewer_camera
from neuralrecon.view.panel import Cameras
from neuralrecon.view.runs import Run
from neuralrecon.view.stage import image_name
from neuralrecon.view.viewpoints import Shows

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium is installed")
WIDTH, HEIGHT, PANEL = 900, 480, 420
_PIXELS = """async image => {
    try { await image.decode(); } catch { return []; }  // it has just been exchanged
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight), context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
}"""


@pytest.fixture(scope="module")
def opened(sphere_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Viewer, object]]:
    """Two runs, the first of them on the screen, without shadows: a CPU draws here."""
    capture = read_capture(sphere_folder)
    fit = sphere_fit(capture)
    folders = [write_run(tmp_path_factory.mktemp(name) / name, sphere_folder) for name in ("cup", "mug")]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "fit", lambda self: fit)
        with (
            show(folders, ViewConfig(port=port, cells=24, picture_px=48)) as viewer,
            browsing(WIDTH, HEIGHT) as page,
        ):
            viewer.server.scene.configure_default_lights(cast_shadow=False)
            page.goto(viewer.url)
            assert eventually(lambda: bool(viewer.server.get_clients()))
            assert viewer.wait_idle(120)
            yield viewer, page
            assert viewer.worker.failure is None


def eventually(holds: Callable[[], bool], seconds: float = 120.0) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.1)
    return holds()


def screen(page) -> np.ndarray:
    """What is seen left of the panel."""
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    return np.asarray(picture)[:, : WIDTH - PANEL].astype(int)


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_the_surface_is_on_the_canvas(opened) -> None:
    """Clay on white: where the sphere projects, it is grey; without it, it is not."""
    viewer, page = opened
    client = next(iter(viewer.server.get_clients().values()))
    viewer.jobs.panel.cameras.value = Cameras.none

    def sphere_is_there() -> bool:
        camera = viewer_camera(client.camera.fov, client.camera.aspect, max(WIDTH, HEIGHT))
        in_cam = rigid_of(client.camera.wxyz, client.camera.position).apply(CENTER)
        u, v = camera.project(in_cam).tolist()
        around = screen(page)[int(v) - 8 : int(v) + 8, int(u) - 8 : int(u) + 8]
        return bool(around.size) and float(around.mean()) < 235

    assert eventually(sphere_is_there)
    viewer.jobs.panel.surface.value = viewer.jobs.panel.table.value = False
    assert eventually(lambda: not sphere_is_there())
    viewer.jobs.panel.surface.value = viewer.jobs.panel.table.value = True
    assert eventually(sphere_is_there)


def test_a_click_on_a_frustum_moves_the_camera_there(opened, sphere_folder: Path) -> None:
    viewer, page = opened
    capture = read_capture(sphere_folder)
    image = next(i for i in capture.images_of(SensorKind.color) if i.sensor == "NP1")
    name, world_from_cam = image_name(image), capture.sensor_from_world(image).inverse()
    client = next(iter(viewer.server.get_clients().values()))
    panel, there = viewer.jobs.panel, world_from_cam.translation.numpy()
    panel.cameras.value, panel.stop.value, panel.depth_cameras.value = Cameras.one_stop, 0, False
    # from behind and from the left, where no other camera of the rig is in the way
    axis = world_from_cam.rotation[:, 2].numpy()
    aside = world_from_cam.rotation[:, 0].numpy()
    middle = there + 0.03 * axis
    with client.atomic():
        client.camera.position = middle - 0.35 * axis - 0.1 * aside
        client.camera.look_at = middle
    assert eventually(lambda: viewer.wait_idle(60) and name in viewer.jobs.shown.pictured)
    time.sleep(1.0)
    camera = viewer_camera(client.camera.fov, WIDTH / HEIGHT, WIDTH)
    u, v = camera.project(rigid_of(client.camera.wxyz, client.camera.position).apply(torch.from_numpy(middle))).tolist()

    def clicked() -> bool:
        page.mouse.move(u, v)
        page.mouse.click(u, v, delay=100)
        time.sleep(1.0)
        return panel.eye.value == name

    assert eventually(clicked)
    assert eventually(lambda: bool(np.abs(client.camera.position - there).max() < 1e-4))
    assert eventually(lambda: not viewer.jobs.stage.frusta[name].visible)  # it would be in the way
    client.camera.position = there + 0.2
    assert eventually(lambda: viewer.jobs.stage.frusta[name].visible)


def test_controls_in_the_browser_change_the_scene(opened) -> None:
    viewer, page = opened
    tab(page, "Plane")
    page.get_by_label("Slice of the sdf").check()
    assert eventually(lambda: "slice" in viewer.jobs.stage.parts)
    page.get_by_label("Clip", exact=True).check()
    assert eventually(lambda: viewer.jobs.panel.clips.value)
    page.get_by_label("Clip", exact=True).uncheck()
    page.get_by_label("Slice of the sdf").uncheck()
    assert eventually(lambda: "slice" not in viewer.jobs.stage.parts)


@pytest.mark.parametrize("name", ["Scene", "Surface", "Plane", "View", "Curves"])
def test_every_tab_opens(opened, name: str) -> None:
    _, page = opened
    tab(page, name)
    shown = {"Scene": "Cameras", "Surface": "Iso level mm", "Plane": "Square to", "View": "Shows", "Curves": "loss"}
    label = page.get_by_text(shown[name], exact=name != "Curves").locator("visible=true")
    assert eventually(lambda: label.count() > 0, 60)
    if name == "View":
        assert page.locator("img").locator("visible=true").count() >= 1
    if name == "Curves":
        assert page.locator(".uplot canvas").locator("visible=true").count() == 1


@pytest.mark.parametrize("shows", list(Shows))
@pytest.mark.parametrize("sensor", ["this window", "N1", "NP1_depth"])
def test_every_view_that_is_rendered_is_on_the_page(opened, shows: Shows, sensor: str) -> None:
    """Chosen by the mouse; pixel by pixel what was computed, which test_view.py compares with the closed form."""
    viewer, page = opened
    panel = viewer.jobs.panel
    tab(page, "View")
    panel.eye.value = next(name for name in panel.eye.options if name.lower().startswith(sensor.lower()))
    page.get_by_label("Shows").locator("visible=true").first.click()
    page.get_by_role("option", name=shows, exact=True).click()
    assert eventually(lambda: panel.shows.value == shows and viewer.wait_idle(60))
    computed = np.asarray(panel.picture.image).astype(int)
    assert len(np.unique(computed.reshape(-1, 3), axis=0)) > 3

    def is_shown() -> bool:
        received = page.locator("img").locator("visible=true").first.evaluate(_PIXELS)
        return np.array_equal(np.array(received, int).reshape(-1, 4)[:, :3], computed.reshape(-1, 3))

    assert eventually(is_shown, 30)
    assert not panel.trouble.visible


def test_the_drop_down_flips_runs(opened) -> None:
    viewer, page = opened
    assert viewer.jobs.shown.run.name == "cup"
    page.get_by_label("Object").first.click()
    page.get_by_role("option", name="mug").click()
    assert eventually(lambda: viewer.jobs.shown.run.name == "mug")
    assert eventually(lambda: page.get_by_text("mug", exact=True).locator("visible=true").count() > 0)
    assert eventually(lambda: "surface" in viewer.jobs.stage.parts)
