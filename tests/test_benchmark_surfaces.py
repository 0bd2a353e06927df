"""The surface benchmark's own parts: statistics, baselines, resuming, tables; its figures are no matter of tests."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import trimesh

from benchmarks import surface_grid, surfaces
from benchmarks.depth_truth import bad_depth_share, is_wrong
from benchmarks.paired import auroc, mean_interval, paired_difference, ratio_of_means
from benchmarks.surface_ablations import ABLATIONS
from benchmarks.surface_baselines import ClassicalConfig, from_depth, hull_mesh, require_open3d
from benchmarks.surface_cases import CAPTURE, METHODS, SHAPES, Cell, Settings, groups_of, shapes_of
from benchmarks.surface_cell import Job
from benchmarks.surface_grid import Plan, Record, run_grid
from benchmarks.surface_tables import means, ratios, shapes, tables_of, without
from neuralrecon.capture import read_capture
from neuralrecon.errors import ConfigError, EvidenceError
from neuralrecon.label import Solid
from neuralrecon.scene import Scene
from neuralrecon.train import FitConfig

CENTER, RADIUS = np.array([0.006, -0.004, 0.05]), 0.05  # of the sphere in `sphere_folder`
# where another interpreter than that of the tests has Open3D
WITH_OPEN3D = os.environ.get("PYTHON_WITH_OPEN3D", sys.executable)
HAS_OPEN3D = sys.executable != WITH_OPEN3D or find_spec("open3d") is not None
SETTINGS = Settings(n_stops=6, n_width=96, np_width=80, depth_width=80, fit=("steps=2",), voxel_mm=3.0, n_samples=2000)
TINY = ["--shapes", "box", "--materials", "matte", "--n-stops", "6", "--n-width", "96", "--np-width", "80",
        "--depth-width", "80", "--voxel-mm", "3", "--n-samples", "2000", "--set", "steps=2", "interior_rays=64",
        "edge_rays=64", "depth_rays=64"]  # fmt: skip


def test_intervals_are_those_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    ours = {f"s{i}": float(v) for i, v in enumerate(rng.normal(1, 0.2, 9))}
    changed = {name: value + float(rng.normal(0.1, 0.05)) for name, value in ours.items()}
    found = paired_difference(changed | {"other": 9.0}, ours | {"another": 1.0})
    assert found is not None
    truth = scipy.stats.ttest_rel(list(changed.values()), list(ours.values())).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((truth.low, truth.high), rel=1e-12)
    assert found.n == 9
    assert found.excludes_zero
    assert not mean_interval([-1.0, 1.0, 0.5]).excludes_zero
    alone = mean_interval([2.0])
    assert (alone.mean, alone.low, alone.excludes_zero) == (2.0, None, False)
    assert paired_difference({"a": 1.0}, {"b": 1.0}) is None
    # two values: t with one degree of freedom is Cauchy's, whose 97.5 % point is tan(0.475 pi)
    assert mean_interval([0.0, 2.0]).high == pytest.approx(1 + np.tan(0.475 * np.pi))
    assert ratio_of_means({"a": 3.0, "b": 1.0, "c": 7.0}, {"a": 1.0, "b": 1.0}) == 2.0


def test_ranking_counts_pairs() -> None:
    rng = np.random.default_rng(1)
    scores, positive = rng.integers(0, 12, 300) / 12, rng.random(300) < 0.3
    pairs = scores[positive][:, None] - scores[~positive][None]
    assert auroc(scores, positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean(), abs=1e-12)
    assert auroc(scores, np.ones(300, dtype=bool)) is None


def test_readings_are_wrong_by_more_than_five_millimetres() -> None:
    """On rays through a ball's centre: 4 and 6 mm before it and behind, through it, and beside it."""
    ball = Solid.of(trimesh.creation.icosphere(subdivisions=5, radius=RADIUS))
    origins = np.tile([0.5, 0.0, 0.0], (6, 1))
    points = np.array([[0.054, 0, 0], [0.056, 0, 0], [0.046, 0, 0], [0.044, 0, 0], [-0.05, 0, 0], [0.0, 0.054, 0]])
    assert is_wrong(origins, points, ball).tolist() == [False, True, False, True, True, False]


def test_bad_depth_of_a_matte_ball_is_its_rim(sphere_folder: Path) -> None:
    """The ball is about 10 px wide here: the outermost pixels are a third of it, and nothing else is bad."""
    capture = read_capture(sphere_folder)
    truth = Solid.of(trimesh.load_mesh(sphere_folder / "gt" / "gt_mesh.ply"))
    share = bad_depth_share(capture, truth)
    assert share is not None
    assert 0.02 < share < 0.6
    moved = trimesh.creation.icosphere(subdivisions=4, radius=RADIUS)
    moved.apply_translation(np.array([0.0, 0.0, 0.2]))  # nothing is there: what is read lies behind
    assert bad_depth_share(capture, Solid.of(moved)) == 1.0


def test_the_hull_holds_the_ball(sphere_folder: Path) -> None:
    """Outlines are right to half a pixel's diagonal, 0.71 of 0.85 m / 81 px: 7.5 mm. Closed, above the table."""
    mesh = hull_mesh(read_capture(sphere_folder), ClassicalConfig(hull_cells=64))
    assert mesh.is_volume
    assert -1e-4 < mesh.bounds[0, 2] < 0.0075
    core = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS - 0.0075)
    assert Solid.of(mesh).contains(core.vertices + CENTER).all()
    distance = np.linalg.norm(mesh.vertices - CENTER, axis=1) - RADIUS
    assert np.abs(np.median(distance)) < 0.0075


@pytest.mark.parametrize("method", ["tsdf", "poisson"])
def test_depth_gives_the_ball(sphere_folder: Path, method: str) -> None:
    """Half of the surface lies within 3 mm (a cell of the octree; a voxel is 4 mm), the median is right: noise
    is 1 mm, and a pixel's centre half a pixel off would be 5 mm. The rest are readings that fly at the rim.

    Without Open3D, the error says what to do.
    """
    config = ClassicalConfig(voxel_mm=4.0, least_weight=1.0, poisson_depth=6)
    if not HAS_OPEN3D:
        with pytest.raises(ConfigError, match=r"has no Open3D.*neuralrecon\[benchmarks\].*--python"):
            require_open3d(WITH_OPEN3D)
        return
    require_open3d(WITH_OPEN3D)
    mesh = from_depth(read_capture(sphere_folder), method, config, WITH_OPEN3D)
    high = mesh.vertices[mesh.vertices[:, 2] > 0.01]
    distance = np.linalg.norm(high - CENTER, axis=1) - RADIUS
    assert abs(np.median(distance)) < 0.001
    assert np.median(np.abs(distance)) < 0.003
    assert method == "tsdf" or mesh.is_watertight


def test_an_interpreter_that_is_none_is_told(sphere_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give an interpreter"):
        require_open3d(str(tmp_path / "python"))
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no surface here >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(EvidenceError, match="tsdf: no surface here"):
        from_depth(read_capture(sphere_folder), "tsdf", ClassicalConfig(), str(broken))


def test_parts_are_taken_off_and_nothing_else(sphere_folder: Path) -> None:
    scene, config = Scene.from_capture(read_capture(sphere_folder)), FitConfig()
    assert scene.pixels is not None
    changed, same = ABLATIONS["room_frame"](scene, config)
    assert changed.pixels is not None
    assert same == config
    assert torch.equal(changed.pixels.rig_from_world, torch.eye(3).repeat(len(changed.pixels.rig_from_world), 1, 1))
    assert not torch.equal(scene.pixels.rig_from_world, changed.pixels.rig_from_world)
    assert changed.pixels.origins is scene.pixels.origins
    same_scene, changed_config = ABLATIONS["silhouettes"](scene, config)
    assert same_scene is scene
    assert changed_config == replace(config, w_silhouette=0.0)
    assert ABLATIONS["depth"](scene, config)[0].readings is None
    assert ABLATIONS["patches"](scene, config) == (scene, replace(config, w_patches=0.0))
    assert set(ABLATIONS) < set(METHODS)


def test_shapes_come_by_name_and_from_folders(tmp_path: Path) -> None:
    assert len(SHAPES) >= 8
    assert "mug" in SHAPES
    for name in ("a/textured.obj", "b/textured.obj", "c/ball.ply", "c/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = shapes_of(["box"], tmp_path)
    assert list(found) == ["box", "a", "b", "ball"]
    assert found["a"] == str(tmp_path / "a" / "textured.obj")
    with pytest.raises(ConfigError, match="no built-in mesh"):
        shapes_of(["teapot"], None)
    (tmp_path / "d" / "ball").mkdir(parents=True)
    (tmp_path / "d" / "ball" / "textured.obj").touch()
    with pytest.raises(ConfigError, match="two shapes are called ball"):
        shapes_of([], tmp_path)
    with pytest.raises(ConfigError, match="no shapes"):
        shapes_of([], None)


def test_a_digest_changes_with_what_the_cell_depends_on(tmp_path: Path) -> None:
    ours, hull, capture = (cell("ours"), cell("hull"), cell(CAPTURE))
    other_fit, finer = replace(SETTINGS, fit=("steps=3",)), replace(SETTINGS, n_width=120)
    assert SETTINGS.digest(ours) != other_fit.digest(ours)
    assert SETTINGS.digest(hull) == other_fit.digest(hull)
    assert SETTINGS.digest(capture) == replace(SETTINGS, n_samples=5000).digest(capture)
    refining = replace(SETTINGS, refines=True)
    assert SETTINGS.digest(capture) == refining.digest(capture)
    assert SETTINGS.digest(ours) != refining.digest(ours)
    assert len({s.digest(c) for s in (SETTINGS, finer) for c in (ours, hull, capture)}) == 6
    mesh = tmp_path / "ball.ply"
    mesh.write_bytes(b"one")
    before = SETTINGS.digest(replace(capture, mesh=str(mesh)))
    mesh.write_bytes(b"two")
    assert SETTINGS.digest(replace(capture, mesh=str(mesh))) != before
    job = Job(cell=ours, settings=SETTINGS, capture=tmp_path, python="p", n_threads=1, mesh=None)
    assert Job.from_json(job.as_json()) == job


def cell(method: str, shape: str = "box", material: str = "matte", has_cavity: bool = False, seed: int = 0) -> Cell:
    return Cell(shape=shape, mesh="box", has_cavity=has_cavity, material=material, method=method, seed=seed)


def record(of: Cell, chamfer_mm: float | None = None, **known: object) -> Record:
    scores = None if chamfer_mm is None else {"chamfer_mm": chamfer_mm, "f_score_0_5mm": 0.9, "iou": 0.99}
    base = {"digest": SETTINGS.digest(of), "total_s": 60.0, "n_threads": 1, "machine": {"commit": "abc", "date": "2"}}
    return Record(**{**base, "cell": of, "scores": scores, "closed": None if scores is None else True, **known})


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    groups = groups_of({"box": "box", "can": "can"}, (), ["matte", "glass"], ["ours", "hull"], 1)
    return Plan(groups=groups, settings=SETTINGS, out=tmp_path, python="", n_workers=2, keep_meshes=False)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """Cells that ran; hulls of cans fail."""
    done: list[Cell] = []

    def run(plan: Plan, of: Cell, here: dict) -> Record:
        done.append(of)
        if of.method == CAPTURE:
            plan.capture_folder(of).mkdir(parents=True, exist_ok=True)
            return record(of)
        digest = plan.settings.digest(of)
        if (of.method, of.shape) == ("hull", "can"):
            return record(of, error="it broke", digest=digest)
        return record(of, 1.0, digest=digest)

    monkeypatch.setattr(surface_grid, "_run_cell", run)
    return done


def test_what_is_there_is_not_computed_again(plan: Plan, ran: list[Cell]) -> None:
    said: list[str] = []
    assert run_grid(plan, said.append) == 12
    assert sorted(c.name for c in ran) == sorted(c.name for group in plan.groups for c in group)
    assert len(said) == 12
    assert said[-1].startswith("[12/12]")
    assert sum("FAILED: it broke" in line for line in said) == 2
    before = ran.copy()
    ran.clear()
    assert run_grid(plan, said.append) == 2  # what failed is tried again, and nothing else
    assert {c.name for c in ran} == {c.name for c in before if (c.method, c.shape) == ("hull", "can")}
    ran.clear()
    run_grid(replace(plan, settings=replace(SETTINGS, fit=("steps=9",))), said.append)
    assert {c.method for c in ran if c.shape == "box"} == {"ours"}
    assert len(plan.records()) == 8  # the others belong to other settings now
    ran.clear()
    (plan.capture_folder(cell(CAPTURE))).rmdir()
    run_grid(plan, said.append)
    assert [c.method for c in ran if (c.shape, c.material) == ("box", "matte")] == [CAPTURE, "ours"]


def test_without_its_capture_nothing_can_be_done(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface_grid, "_run_cell", lambda plan, of, here: record(of, error="no disk"))
    run_grid(plan, lambda _: None)
    errors = {r.cell.method: r.error for r in plan.records()}
    assert errors == {CAPTURE: "no disk", "ours": "no capture: no disk", "hull": "no capture: no disk"}


def test_time_left_is_by_method(plan: Plan) -> None:
    """Two hulls of 10 s and two fits of 100 s, by two workers: 110 s; what is unknown takes the mean of both."""
    known = [record(cell("hull"), 1.0, total_s=10.0), record(cell("ours"), 1.0, total_s=100.0)]
    left = [cell("hull", "can"), cell("hull", "mug"), cell("ours", "can"), cell("ours", "mug")]
    assert surface_grid.Clock.of(known, left, 2).left_s() == pytest.approx(110)
    assert surface_grid.Clock.of(known, [cell("tsdf")], 1).left_s() == pytest.approx(55)


@pytest.fixture
def records() -> list[Record]:
    """Three shapes, the mug with a cavity; ours 0.1, 0.2, 0.3 mm on matte and twice that on mirror."""
    found = []
    for i, shape in enumerate(("box", "can", "mug")):
        known = {"shape": shape, "has_cavity": shape == "mug"}
        found.append(record(cell(CAPTURE, material="mirror", **known), bad_depth=0.9))
        for material, factor in (("matte", 1), ("mirror", 2)):
            found.append(record(cell("ours", material=material, **known), factor * (i + 1) / 10))
        found.append(record(cell("tsdf", material="mirror", **known), 4.0) if i else
                     record(cell("tsdf", material="mirror", **known), error="no surface | at all"))  # fmt: skip
        without_depth = (i + 1) / 10 + (0.05, 0.06, 0.07)[i]
        found.append(record(cell("depth", **known), without_depth))
    return found


def test_tables_say_what_was_measured(records: list[Record]) -> None:
    by_name = {row[0]: row[1:] for row in means(records).rows}
    assert by_name["ours, matte"] == [
        "3/3",
        "0.200",
        "0.900",
        "0.9900",
        "3/3",
        "0.150",
        "0.9900",
        None,
        None,
        None,
        "60",
    ]
    assert by_name["ours, mirror"][1] == "0.400"
    assert by_name["ours, mirror"][9] == "90 %"
    assert by_name["tsdf, mirror"][:2] == ["2/3", "4.000"]
    assert by_name["ours without depth, matte"][1] == "0.260"
    # the ratio to ours is over can and mug alone: 4 mm to 0.5 mm
    assert ratios(records).rows == [["ours, mirror", "2.00", None], ["tsdf, mirror", None, "8.00"]]
    half = scipy.stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    (row,) = without(records).rows
    assert row[:3] == ["depth, matte", 3, 3]
    assert row[4] == f"+0.0600 [{0.06 - half:+.4f}, {0.06 + half:+.4f}]"
    logs = np.log([1.5, 1.3, 0.37 / 0.3])
    half = scipy.stats.t.ppf(0.975, 2) * logs.std(ddof=1) / np.sqrt(3)
    low, high = np.exp(logs.mean() - half), np.exp(logs.mean() + half)
    assert row[3] == f"{np.exp(logs.mean()):.4f} [{low:.4f}, {high:.4f}]"
    assert row[-2:] == ["helps", "unclear"]
    assert shapes(records).header[-1] == "without depth"
    assert shapes(records).rows[1] == ["box, mirror", "0.200", "failed", None]
    markdown = "\n".join(one.as_markdown() for one in tables_of(records))
    assert "| box_mirror_tsdf_s0 | no surface \\| at all |" in markdown
    assert "| mug, mirror (cavity) | 0.600 | 4.000 | - |" in markdown


def test_only_captures_that_both_have_are_compared(records: list[Record]) -> None:
    """Another seed of ours, ten times as bad: it counts in the mean of ours and in no comparison."""
    more = [*records, record(cell("ours", "can", "matte", seed=1), 2.0)]
    assert without(more).rows == without(records).rows
    assert ratios(more).rows == ratios(records).rows
    assert means(more).rows[0][2] == "0.500"
    more.append(record(cell("depth", "can", "matte", seed=1), 2.1))
    assert without(more).rows[0][1:3] == [3, 4]


def test_the_command_runs_resumes_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hulls' worth of processes for real; then nothing, then a report with a part that never ran."""
    words = [*TINY, "--methods", "hull", "--out", str(tmp_path / "out")]
    assert surfaces.main(words) == 0
    said = capsys.readouterr().out
    assert "[2/2] box, matte, hull, seed 0" in said
    written = json.loads((tmp_path / "out" / "cells" / "box_matte_hull_s0.json").read_text())
    assert written["closed"] is True
    assert 0 < written["scores"]["chamfer_mm"] < 9  # a pixel is 8 mm
    monkeypatch.setattr(surface_grid, "_run_cell", must_not_run)
    assert surfaces.main([*words, "--docs", str(tmp_path / "s.md")]) == 0
    assert "0 cells computed" in capsys.readouterr().out
    told = (tmp_path / "s.md").read_text()
    assert "--methods hull`" in told
    assert str(tmp_path) not in told
    assert "2 of 2 cells (0 failed)" in told
    assert surfaces.main([*TINY, "--methods", "hull", "ours", "--out", str(tmp_path / "out"), "--report-only"]) == 0


def must_not_run(*_: object) -> Record:
    raise AssertionError("a cell ran")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shapes", "teapot"], "no built-in mesh"),
        (["--methods", "magic"], "there are ours, tsdf"),
        (["--materials", "wood"], "there are matte"),
        (["--workers", "0"], "want 1 or more"),
        (["--methods", "tsdf", "--python", "nowhere/python"], "give an interpreter"),
        (["--methods", "hull", "--n-stops", "7"], "n_stops=7"),
        (["--methods", "ours", "--set", "stepz=3"], "stepz"),
    ],
)
def test_wrong_words_are_told_before_anything_runs(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert surfaces.main([*words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
