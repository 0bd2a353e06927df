"""What a report says is held against closed forms: a sphere of known size, cameras that are known exactly."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from math import pi
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
import yaml
from PIL import Image
from small_runs import EASY, SMALL

from neuralrecon.capture import SensorKind
from neuralrecon.errors import CaptureError, ConfigError
from neuralrecon.label import Evidence, View
from neuralrecon.report import Run, write_report
from neuralrecon.report.__main__ import cli
from neuralrecon.report.casting import Caster, Window, brightness, viewpoint
from neuralrecon.report.charts import curve
from neuralrecon.report.depths import residuals
from neuralrecon.report.evidence import area_shares
from neuralrecon.report.page import data_block, tag
from neuralrecon.report.pictures import data_uri, diverging
from neuralrecon.report.run_files import parsed_settings, scalars_in
from neuralrecon.report.silhouettes import overlap, painted
from neuralrecon.report.surface import ON_TABLE, Surface, nice_limit
from neuralrecon.train.__main__ import cli as train
from neuralrecon.train.run_config import RunConfig
from neuralrecon.train.run_folder import as_yaml

RADIUS_M, CENTRE = 0.05, np.array([0.006, -0.004, 0.05])


def sphere(radius: float = RADIUS_M) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    mesh.apply_translation(CENTRE)
    return mesh


@pytest.fixture(scope="module")
def done(sphere_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "sphere"
    assert train([f"capture={sphere_folder}", f"out={out}", *SMALL, *EASY, "scene.hold_out_every=5"]) == 0
    return out


@pytest.fixture
def run(done: Path) -> Run:
    return Run.read(done)


class Page(HTMLParser):
    """Ids of sections, what they say instead of showing something, links, and all addresses that are loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.links: list[str] = []
        self.sources: list[str] = []
        self._absent = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "section":
            self.sections[known["id"] or ""] = ""
        self._absent = bool(self.sections) and tag == "p" and known.get("class") == "absent" and "hidden" not in known
        self.links += [known["href"] or ""] if "href" in known else []
        self.sources += [known[key] or "" for key in ("src", "srcset", "data", "poster") if key in known]

    def handle_data(self, data: str) -> None:
        if self._absent:
            self.sections[list(self.sections)[-1]] += data


def page_of(run: Run) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------------------- casting


def test_depth_of_a_sphere_is_that_of_the_quadratic() -> None:
    view = viewpoint(CENTRE, RADIUS_M, azimuth_deg=35, elevation_deg=25, side_px=64)
    window = Window.around(sphere().vertices, view, 64)
    assert window is not None
    seen = Caster.of(sphere()).look(view, window.centres())
    in_cam = view.camera.rays(torch.from_numpy(window.centres().reshape(-1, 2))).numpy()
    centre = view.cam_from_world.apply(torch.from_numpy(CENTRE)).numpy()
    a, b, c = (in_cam**2).sum(1), in_cam @ centre, centre @ centre - RADIUS_M**2
    root = b**2 - a * c
    near_edge = np.abs(root) < 0.02 * a * RADIUS_M**2  # there a facet's chord decides
    truth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    hit = seen.hit.reshape(-1)
    assert (hit == (root > 0))[~near_edge].all()
    # facets lie within the sphere, by 1 / sqrt(0.02) of that along a ray that sees them aslant
    within = RADIUS_M - np.linalg.norm(sphere().triangles_center - CENTRE, axis=1).min()
    inner = hit & ~near_edge
    assert np.abs(seen.depth.reshape(-1)[inner] - truth[inner]).max() < within / np.sqrt(0.02)
    normals = Caster.of(sphere()).values(seen, np.asarray(sphere().vertex_normals))
    assert np.abs(np.linalg.norm(normals[seen.hit], axis=-1) - 1).max() < 1e-3
    assert 0.25 < brightness(normals, view)[seen.hit].min() < brightness(normals, view)[seen.hit].max() <= 1


def test_a_viewpoint_shows_the_whole_sphere_upright() -> None:
    view = viewpoint(CENTRE, RADIUS_M, azimuth_deg=200, elevation_deg=-40, side_px=100)
    assert torch.allclose(view.cam_from_world.rotation @ view.cam_from_world.rotation.T, torch.eye(3).double())
    assert torch.linalg.det(view.cam_from_world.rotation) > 0
    places = torch.from_numpy(np.stack([CENTRE, CENTRE + np.array([0, 0, RADIUS_M])]))
    middle, top = view.camera.project(view.cam_from_world.apply(places)).numpy()
    assert np.allclose(middle, 50)
    assert top[1] < middle[1] - 10
    pixels = view.camera.project(view.cam_from_world.apply(torch.from_numpy(sphere().vertices))).numpy()
    assert 0 <= pixels.min() < 1.5
    assert 98.5 < pixels.max() <= 100


def test_what_is_behind_the_camera_has_no_window() -> None:
    view = viewpoint(CENTRE, RADIUS_M, azimuth_deg=0, elevation_deg=0, side_px=64)
    behind = sphere().vertices + np.array([10, 0, 0])
    assert Window.around(behind, view, 64) is None


# ------------------------------------------------------------------------------------------------------------ residuals


@pytest.mark.parametrize(("radius", "which"), [(RADIUS_M, ""), (1.1 * RADIUS_M, "in"), (0.9 * RADIUS_M, "out")])
def test_outlines_differ_by_the_areas_of_the_discs(run: Run, radius: float, which: str) -> None:
    """A tangent cone's disc has an area of pi f^2 r^2 / (d^2 - r^2) about its axis: the ratio of two is known."""
    image = run.capture.images_of(SensorKind.color)[0]
    found = overlap(run, Caster.of(sphere(radius)), image)
    assert found is not None
    eye = run.capture.sensor_from_world(image).inverse().translation.numpy()
    d2 = float(((eye - CENTRE) ** 2).sum())
    ratio = radius**2 / (d2 - radius**2) / (RADIUS_M**2 / (d2 - RADIUS_M**2))
    given = found.both + found.false_out
    # half a pixel of the mask along the outline: its disc has a radius of 15 px and more
    assert (found.both + found.false_in) / given == pytest.approx(ratio, abs=0.07)
    assert (found.false_in > 0.1 * given, found.false_out > 0.1 * given) == (which == "in", which == "out")
    assert found.iou == pytest.approx(min(ratio, 1 / ratio), abs=0.07)


def test_differences_of_outlines_have_their_colours() -> None:
    cast, given = np.zeros((2, 9, 9), bool)
    cast[4, 2], given[4, 6] = True, True
    shown = painted(np.full((9, 9, 3), 100, np.uint8), cast, given)
    assert shown[4, 2].tolist() == shown[4, 3].tolist() == [230, 97, 1]
    assert shown[4, 6].tolist() == shown[3, 6].tolist() == [64, 120, 220]
    assert len(np.unique(shown[0])) == 1


def test_depth_is_in_front_of_a_mesh_that_is_moved_away(run: Run) -> None:
    """Moved along the optical axis, a sphere's depth in its middle changes by just that, and so does the residual."""
    run = replace(run, folder=run.folder / "none")  # all readings count
    image = run.capture.images_of(SensorKind.depth)[0]
    axis = run.capture.sensor_from_world(image).inverse().rotation.numpy()[:, 2]

    def off_mm(shift_mm: float) -> float:
        mesh = sphere()
        mesh.apply_translation(axis * shift_mm * 1e-3)
        found = residuals(run, Caster.of(mesh), image)
        assert found is not None
        v, u = (size // 2 for size in found.off.shape)
        return float(np.nanmedian(found.off[v - 4 : v + 5, u - 4 : u + 5]))

    assert abs(off_mm(0)) < 1.5  # the sensor reads in steps of 2.94e-3 z^2 m, 1.5 mm at 0.7 m
    assert off_mm(4) - off_mm(0) == pytest.approx(-4, abs=0.3)
    assert off_mm(-4) - off_mm(0) == pytest.approx(4, abs=0.3)


def test_readings_that_are_not_believed_are_told_apart(run: Run) -> None:
    assert run.inlier_folder is not None
    image = run.capture.images_of(SensorKind.depth)[0]
    found = residuals(run, Caster.of(run.mesh), image)
    assert found is not None
    with Image.open(run.inlier_folder / f"{image.path.stem}.png") as stored:
        believed = np.asarray(stored) >= 127.5
    assert found.believed.sum() == believed.sum()  # all that is believed lies in the window


# ------------------------------------------------------------------------------------------------- truth and evidence


@pytest.mark.parametrize("radius", [0.052, 0.048])
def test_the_error_is_positive_outside_of_the_truth(run: Run, radius: float) -> None:
    surface = Surface.of(replace(run, mesh=sphere(radius), truth=sphere(), evidence=None))
    assert surface.error is not None
    # facets lie within the sphere by r (1 - cos 1.1 degrees) at most
    assert surface.error == pytest.approx((radius - RADIUS_M) * 1e3, abs=0.02)
    assert surface.limit == 5 if radius > 0.05 + 0.0019 else 2


def test_simplification_keeps_size_and_colours(run: Run) -> None:
    fine = trimesh.creation.icosphere(subdivisions=7, radius=RADIUS_M)
    half = np.where(fine.vertices[:, 2] > 0, Evidence.depth, Evidence.none).astype(np.uint8)
    surface = Surface.of(replace(run, mesh=fine, evidence=half, truth=None))
    assert 70_000 < len(surface.mesh.faces) <= 80_000
    assert abs(surface.mesh.volume / (4 / 3 * pi * RADIUS_M**3) - 1) < 1e-3
    assert surface.evidence is not None
    above = surface.mesh.vertices[:, 2] > 1e-3
    assert (surface.evidence[above] == Evidence.depth).all()
    assert (surface.evidence[surface.mesh.vertices[:, 2] < -1e-3] == Evidence.none).all()


def test_shares_of_evidence_are_areas(run: Run) -> None:
    """A cap of height h has 2 pi r h; what lies on the table without evidence is closed by rule."""
    ball = sphere()
    kinds = np.where(ball.vertices[:, 2] > 0.075, Evidence.depth, Evidence.none).astype(np.uint8)
    shares = area_shares(replace(run, mesh=ball, evidence=kinds))
    assert shares[Evidence.depth] == pytest.approx(0.25, abs=0.01)
    assert sum(shares.values()) == pytest.approx(1)
    box = trimesh.creation.box((0.1, 0.1, 0.1))
    box.apply_translation([0, 0, 0.05])
    box = box.subdivide_loop(0).subdivide().subdivide().subdivide().subdivide()
    shares = area_shares(replace(run, mesh=box, evidence=np.zeros(len(box.vertices), np.uint8)))
    assert shares[ON_TABLE] == pytest.approx(1 / 6, abs=0.03)  # the rim's faces have a corner or two of it


def test_the_run_keeps_the_kind_of_evidence(done: Path) -> None:
    with np.load(done / "evidence.npz") as told:
        assert ((told["kind"] != Evidence.none) == told["evidence"]).all()
        assert set(np.unique(told["kind"])) <= {0, 1, 2, 3}


def test_scales_end_at_round_numbers() -> None:
    assert [nice_limit(x) for x in (0.3, 0.5, 1.2, 7, 0.0)] == pytest.approx([0.5, 0.5, 2, 10, 0.001])
    ends = diverging(np.array([-9.0, -1, 0, 1, 9]), 1.0)
    assert (ends[0] == ends[1]).all()
    assert (ends[3] == ends[4]).all()
    assert ends[0][2] > ends[0][0]
    assert ends[4][0] > ends[4][2]
    assert np.ptp(ends[2].astype(int)) < 5


# -------------------------------------------------------------------------------------------------------------- files


def test_settings_are_read_as_yaml_reads_them() -> None:
    text = as_yaml(RunConfig(capture=Path("a: b/'c'"), sensors=["N1", "N2"]))

    def flat(tree: dict, above: str = "") -> dict:
        found = {}
        for key, value in tree.items():
            found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
        return found

    assert parsed_settings(text) == flat(yaml.safe_load(text))


def test_damaged_lines_of_scalars_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("step,loss,late\n0,1.5,\n1,x,2\n2,1.25\n3,1,0.5\n")
    found = scalars_in(tmp_path / "s.csv")
    assert found["step"].tolist() == [0, 3]
    assert found["loss"].tolist() == [1.5, 1]
    assert np.isnan(found["late"][0])
    assert scalars_in(tmp_path / "none.csv") == {}


def test_a_curve_goes_through_its_values() -> None:
    """Of 100 values each bin holds one: the line's heights are their logarithms, turned upside down."""
    values = np.logspace(0, -3, 100)
    line = re.search(r'<path d="M([^"]+)" class="line"', curve("a < b", np.arange(100.0), values))
    assert line is not None
    x, y = np.array([point.split(",") for point in line[1].split("L")], float).T
    assert np.corrcoef(y, -np.log10(values))[0, 1] > 0.9999
    assert (np.diff(x) > 0).all()


def test_texts_are_texts() -> None:
    evil = '</script><script>alert("1")</script>&'
    assert tag("p", evil, title=evil).count("<script") == 0
    block = data_block("a", {"name": evil})
    assert block.count("</script") == 1
    assert json.loads(block.partition(">")[2].rpartition("<")[0])["name"] == evil


def test_a_picture_is_the_picture() -> None:
    colors = np.zeros((4, 6, 4), np.uint8)
    colors[..., 0], colors[..., 3] = 200, 255
    kind, _, text = data_uri(colors, lossless=True).partition(";base64,")
    assert kind == "data:image/webp"
    with Image.open(BytesIO(base64.b64decode(text))) as picture:
        assert (np.asarray(picture.convert("RGBA")) == colors).all()


# --------------------------------------------------------------------------------------------------------------- page

SECTIONS = [
    "view-3d", "views", "held-out", "silhouettes", "depth", "truth", "observed", "calibration", "training", "capture",
    "cost", "settings", "log",
]  # fmt: skip


def test_a_run_writes_its_report(done: Path) -> None:
    text = (done / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert list(page.sections) == SECTIONS
    assert [id for id, absent in page.sections.items() if absent] == ["calibration"]
    assert "calibration=given" in page.sections["calibration"]
    assert page.links == [f"#{id}" for id in SECTIONS]
    assert page.sources
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert not re.search(r"(?:src|href)=\"?(?:https?:)?//|@import|url\(", text)
    summary = json.loads((done / "summary.json").read_text())
    assert f"{summary['report']['raw']['chamfer_mm']:.3f} mm" in text
    assert summary["seconds"]["report"] > 0
    assert len(text) < 5e6
    with Image.open(done / "preview.jpg") as preview:
        assert (preview.format, preview.size) == ("JPEG", (320, 320))
        grey = np.asarray(preview.convert("L"), float)
    assert grey[:8, :8].std() < 3  # the ground
    assert abs(grey[160, 160] - grey[0, 0]) > 20  # and the sphere on it


def test_the_command_writes_the_same(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(done, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    assert cli([f"run={tmp_path / 'run'}"]) == 0
    assert str(tmp_path / "run" / "report.html") in capsys.readouterr().out
    # but for the log's last lines, which come after the report, and the report's own seconds
    again, before = (Page((folder / "report.html").read_text()).sources for folder in (tmp_path / "run", done))
    assert again == before


def test_without_a_report_there_is_none(sphere_folder: Path, tmp_path: Path) -> None:
    assert train([f"capture={sphere_folder}", f"out={tmp_path / 'o'}", *SMALL, "report=false"]) == 0
    assert not (tmp_path / "o" / "report.html").exists()
    assert not (tmp_path / "o" / "preview.jpg").exists()
    assert "report" not in json.loads((tmp_path / "o" / "summary.json").read_text())["seconds"]


def test_what_is_absent_is_left_out_with_a_reason(run: Run, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "log.txt").write_text("")
    few = run.capture.restricted(sensors=["NP3_depth"])
    mesh = run.mesh.copy()
    mesh.visual = trimesh.visual.ColorVisuals()
    summary = {**run.summary, "report": None, "views": None, "is_metric": False, "unit": "unscaled", "size_mm": None}
    summary |= {"warnings": ["<u>unscaled</u>"], "name": "<i>x</i>"}
    capture = replace(few, is_metric=False, has_table=False)
    page = page_of(
        replace(run, folder=bare, capture=capture, mesh=mesh, summary=summary, evidence=None, fit=None, truth=None)
    )
    absent = {id: told for id, told in page.sections.items() if told}
    assert set(absent) == {"held-out", "silhouettes", "truth", "observed", "calibration", "training", "log"}
    assert "no photograph was held out" in absent["held-out"]
    assert "no photograph has an outline" in absent["silhouettes"]
    assert "no ground truth" in absent["truth"]
    assert "unscaled" in absent["observed"]
    text = (bare / "report.html").read_text()
    assert "seen here from four sides" in text
    assert "‰ of the longest side" in text
    assert "&lt;u&gt;unscaled" in text
    assert "<u>" not in text
    assert "<i>x" not in text


def test_without_depth_the_section_says_so(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder / "fit", tmp_path / "fit")
    page = page_of(replace(run, folder=tmp_path, capture=run.capture.restricted(sensors=["N1", "N3"]), fit=None))
    assert "no depth images" in page.sections["depth"]
    assert "no fit" in page.sections["held-out"]


def test_damage_is_told(done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(done, folder)
    np.savez(folder / "evidence.npz", kind=np.zeros(3, np.uint8))
    with pytest.raises(CaptureError, match=r"evidence\.npz: not the evidence of this mesh"):
        Run.read(folder)
    (folder / "evidence.npz").unlink()
    (folder / "config.yaml").write_text("a: {")
    with pytest.raises(ConfigError, match=r"config\.yaml: not the settings"):
        Run.read(folder)
    (folder / "summary.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"summary\.json"):
        Run.read(folder)


def test_a_lens_distortion_is_undone(run: Run) -> None:
    """Points of the mesh that are seen where they project: the ray through a point's pixel meets the point."""
    image = run.capture.images_of(SensorKind.color)[0]
    camera = run.capture.sensor(image.sensor).camera
    assert any(camera.distortion)
    view = View(camera=camera, cam_from_world=run.capture.sensor_from_world(image))
    mesh = sphere()
    in_cam = view.cam_from_world.apply(torch.from_numpy(mesh.vertices))
    front = torch.argmin(in_cam[:, 2])
    pixel = view.camera.project(in_cam[front]).numpy()
    seen = Caster.of(mesh).look(view, pixel[None, None])
    assert seen.depth[0, 0] == pytest.approx(float(in_cam[front, 2]), abs=2e-6)
