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
from playwright.sync_api import sync_playwright
from trimesh.viewer.notebook import scene_to_html

from neuralrecon.evaluate import read_mesh
from neuralrecon.extract import write_mesh

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
]
ORANGE = (255, 96, 0)


@pytest.fixture(scope="module")
def glb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torus, written as a run's mesh is."""
    mesh = trimesh.creation.torus(0.05, 0.02, major_sections=48, minor_sections=24)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.full((len(mesh.vertices), 3), ORANGE, np.uint8))
    path = tmp_path_factory.mktemp("meshes") / "mesh.glb"
    write_mesh(mesh, path)
    return path


def test_trimesh_reads_it_back(glb: Path) -> None:
    """In metres, y up, closed, with its colours; 2 pi^2 R r^2 less what 24 x 48 facets cut off (2 %)."""
    mesh = trimesh.load(glb, force="mesh", skip_materials=True)  # trimesh has colours or a material
    assert mesh.is_volume
    assert mesh.volume == pytest.approx(2 * np.pi**2 * 0.05 * 0.02**2, rel=0.02)
    np.testing.assert_allclose(mesh.extents, [0.14, 0.04, 0.14], rtol=1e-3)
    np.testing.assert_allclose(read_mesh(glb).extents, [0.14, 0.14, 0.04], rtol=1e-3)
    colors = mesh.visual.vertex_colors[:, :3]
    np.testing.assert_array_equal(np.unique(colors, axis=0), [(255, 30, 0)])  # linear


# Looks at the mesh from above its front, in even light.
_SHOW = """
(data) => new Promise((resolve, reject) => {
  new THREE.GLTFLoader().load("data:application/octet-stream;base64," + data, (gltf) => {
    const renderer = new THREE.WebGLRenderer({ preserveDrawingBuffer: true });
    renderer.setSize(240, 240);
    renderer.setClearColor(0x0000ff);
    const camera = new THREE.PerspectiveCamera(45, 1, 0.01, 10);
    camera.position.set(0, 0.18, 0.12);
    camera.lookAt(0, 0, 0);
    const scene = new THREE.Scene();
    scene.add(gltf.scene, new THREE.AmbientLight(0xffffff, Math.PI));
    renderer.render(scene, camera);
    resolve(renderer.domElement.toDataURL("image/png"));
  }, undefined, reject);
})
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_it(glb: Path, tmp_path: Path) -> None:
    """three.js (trimesh's page brings it along) draws the file's own bytes: an orange ring on blue."""
    page_file = tmp_path / "page.html"
    page_file.write_text(scene_to_html(trimesh.Scene(trimesh.creation.box())), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_SWITCHES)
        try:
            page = browser.new_page()
            page.goto(page_file.as_uri())
            page.wait_for_selector("canvas", timeout=60_000)
            address = page.evaluate(_SHOW, base64.b64encode(glb.read_bytes()).decode())
        finally:
            browser.close()
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB")
    red, green, blue = (np.asarray(picture).astype(int)[..., i] for i in range(3))
    ring, ground = (red > 40) & (red > 1.3 * green) & (blue < 0.8 * red), (blue > 200) & (red < 30)
    assert (ring | ground).mean() > 0.98
    np.testing.assert_allclose(np.median(np.asarray(picture)[ring], axis=0), ORANGE, atol=8)
    assert 0.1 < ring.mean() < 0.5
    rows, columns = np.nonzero(ring)
    assert ground[int(rows.mean()), int(columns.mean())]
