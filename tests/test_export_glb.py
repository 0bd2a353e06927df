"""The GLB mesh of a run: read by trimesh, and shown by three.js in a browser."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from neuralrecon.extract import write_mesh

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
]
ORANGE = (255, 96, 0)
_SIZE = (480, 360)


@pytest.fixture(scope="module")
def glb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torus, written as a run's mesh is."""
    mesh = trimesh.creation.torus(0.05, 0.02, major_sections=48, minor_sections=24)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.full((len(mesh.vertices), 3), ORANGE, np.uint8))
    path = tmp_path_factory.mktemp("meshes") / "mesh.glb"
    write_mesh(mesh, path)
    return path


def test_trimesh_reads_it_back(glb: Path) -> None:
    """In metres, in the same frame, closed, with its colours; 2 pi^2 R r^2 less what 24 x 48 facets cut off (2 %)."""
    mesh = trimesh.load(glb, force="mesh")
    assert mesh.is_volume
    assert mesh.volume == pytest.approx(2 * np.pi**2 * 0.05 * 0.02**2, rel=0.02)
    np.testing.assert_allclose(mesh.extents, [0.14, 0.14, 0.04], rtol=1e-3)
    np.testing.assert_array_equal(np.unique(mesh.visual.vertex_colors[:, :3], axis=0), [ORANGE])


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_it(glb: Path, tmp_path: Path) -> None:
    """three.js, which trimesh's page brings along, draws the file's own bytes: orange, with a hole in the middle."""
    api = pytest.importorskip("playwright.sync_api")
    from trimesh.viewer.notebook import scene_to_html

    page_text = scene_to_html(trimesh.load(glb))
    # the page carries a GLB of the scene as text: put the run's own file in its place
    start = page_text.index('base64_data = "') + len('base64_data = "')
    end = page_text.index('"', start)
    assert base64.b64decode(page_text[start:end])[:4] == b"glTF"
    own = base64.b64encode(glb.read_bytes()).decode()
    page_file = tmp_path / "page.html"
    page_file.write_text(page_text[:start] + own + page_text[end:], encoding="utf-8")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_SWITCHES)
        try:
            page = browser.new_page(viewport={"width": _SIZE[0], "height": _SIZE[1]})
            complaints: list[str] = []
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(page_file.as_uri())
            page.wait_for_selector("canvas", timeout=30_000)
            pixels = _settled(page)
        finally:
            browser.close()
    assert complaints == []
    red, green, blue = (pixels[..., i].astype(int) for i in range(3))
    orange = (red > 90) & (red > 1.5 * green) & (blue < 0.5 * red)
    assert 0.02 < orange.mean() < 0.9
    rows, columns = np.nonzero(orange)
    middle = pixels[int(rows.mean()), int(columns.mean())]
    background = pixels[2, 2]
    assert np.abs(middle.astype(int) - background).max() < 10


def _settled(page) -> np.ndarray:
    """The picture, once it shows more than one colour; at most 20 s."""
    for _ in range(40):
        page.wait_for_timeout(500)
        pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        if len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20:
            break
    return pixels
