"""One small run from simulation to summary, and every stage alone on what it left. Figures of quality are elsewhere."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import trimesh
import yaml

from neuralrecon.errors import MeshError
from neuralrecon.evaluate import evaluate_files
from neuralrecon.train import run as run_module
from neuralrecon.train.__main__ import cli as train

SMALL = [
    "calibration=given",
    *("simulate.n_stops=6", "simulate.n_width=160", "simulate.np_width=120", "simulate.depth_width=120"),
    *("simulate.supersample=1", "scene.hull_resolution=64", "fit.steps=5", "fit.interior_rays=128"),
    *("fit.edge_rays=64", "fit.depth_rays=256", "fit.occupancy_resolution=64", "mesh.voxel_mm=4"),
    *("fit.field.levels=4", "fit.field.log2_table_size=12", "fit.first_levels=2", "fit.field.color_levels=4"),
    *("label.n_points=500", "label.n_points_deep_sdf=500", "evaluate.n_samples=2000", "evaluate.with_alignment=false"),
]


def command(name: str, *words: str) -> int:
    return import_module(f"neuralrecon.{name}.__main__").cli(words)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "box"
    assert train([*SMALL, f"data={data}", f"out={out}", "formats=[glb]"]) == 0
    return out


def test_one_folder_has_all(done: Path, data: Path) -> None:
    assert {p.name for p in done.iterdir()} == {
        "capture_used.json", "config.yaml", "crops", "depth_inliers", "evidence.npz", "fit", "labels", "log.txt",
        "masks", "mesh.glb", "mesh.ply", "preview.jpg", "report.html", "summary.json",
    }  # fmt: skip
    summary = json.loads((done / "summary.json").read_text())
    mesh = trimesh.load_mesh(done / "mesh.ply")
    assert mesh.is_volume
    assert summary["mesh"]["n_faces"] == len(mesh.faces)
    assert summary["size_mm"] == pytest.approx(mesh.extents * 1e3, abs=0.01)
    assert list(summary["seconds"]) == [
        "capture", "masks", "scene", "fit", "mesh", "depth", "labels", "evaluation", "report",
    ]  # fmt: skip
    figures = summary["verdict"]["figures"]
    assert summary["verdict"]["status"] in ("ok", "poor")
    assert (summary["verdict"]["status"] == "ok") == (summary["verdict"]["reasons"] == [])
    assert figures["silhouette_iou"] == summary["views"]["silhouette_iou"]
    assert figures["psnr_db"] == summary["views"]["psnr_db"]
    assert figures["is_closed"]
    assert figures["n_bodies"] == 1
    assert 0 < figures["depth_residual_mm"] < 50
    assert 0 < figures["observed_share"] <= 1
    assert (summary["calibration"], summary["unit"], summary["warnings"]) == ("given", "m", [])
    peaks = list(summary["peak_memory_mb"].values())
    assert peaks == sorted(peaks)
    assert 100 < peaks[-1] < 8000
    assert summary["versions"]["torch"]
    assert summary["surface"] in ("matte", "glossy")
    assert "of the depth on the object is missing" in summary["surface_reason"]
    for sensor in summary["depth"]:
        assert sensor["missing"] + sensor["believed"] + sensor["not_believed"] == pytest.approx(1, abs=2e-4)
    assert summary["views"]["views"]
    settings = yaml.safe_load((done / "config.yaml").read_text())
    assert settings["fit"]["steps"] == 5
    assert settings["simulate"]["mesh"] == "box"
    assert "simulated" in (done / "log.txt").read_text()
    assert [p.name.startswith("box-") for p in (data / "demo").iterdir()] == [True]


def test_the_report_is_the_evaluators(done: Path) -> None:
    """The figures in the summary are those that the evaluation gives for the files of the run."""
    from neuralrecon.capture import read_capture
    from neuralrecon.evaluate import EvaluateConfig

    summary = json.loads((done / "summary.json").read_text())
    capture = Path(summary["capture"])
    config = EvaluateConfig(n_samples=2000, with_alignment=False)
    report = evaluate_files(done / "mesh.ply", capture / "gt" / "gt_mesh.ply", config, capture=read_capture(capture))
    assert summary["report"]["raw"]["chamfer_mm"] == pytest.approx(report.raw.chamfer_mm, rel=1e-9)
    assert summary["report"]["raw"]["iou"] == pytest.approx(report.raw.iou, rel=1e-9)


def test_a_finished_run_is_not_touched(done: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in done.rglob("*")}
    assert train([*SMALL, f"data={data}", f"out={done}"]) == 2
    assert "overwrite=true" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in done.rglob("*")} == before


def test_the_demo_capture_is_kept_and_a_fit_is_not_lost(
    done: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What follows the fit fails; the same command then goes on from the fit and ends with the same mesh."""
    words = [*SMALL, f"data={data}", f"out={tmp_path / 'o'}"]
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_labels", _no_labels)
        patch.setattr(run_module, "simulate", _never)
        assert train(words) == 1
    assert "the mesh is not closed" in capsys.readouterr().err
    assert not (tmp_path / "o" / "summary.json").exists()
    assert "the mesh is not closed" in (tmp_path / "o" / "log.txt").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "fit", _never)
        assert train(words) == 0
    assert (tmp_path / "o" / "mesh.ply").read_bytes() == (done / "mesh.ply").read_bytes()


def _no_labels(*args: object, **kwargs: object) -> None:
    raise MeshError("the mesh is not closed")


def _never(*args: object, **kwargs: object) -> None:
    raise AssertionError("must not be called")


def test_extract_alone(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("extract", f"run={done}", "voxel_mm=4", f"out={tmp_path / 'a.ply'}") == 0
    assert (tmp_path / "a.ply").read_bytes() == (done / "mesh.ply").read_bytes()
    assert command("extract", f"run={done}", f"out={tmp_path / 'a.ply'}") == 2
    assert command("extract", f"run={done}", f"out={tmp_path / 'a.txt'}") == 2
    assert "must end in .ply" in capsys.readouterr().err


def test_label_alone(done: Path, tmp_path: Path) -> None:
    """The same seed gives the same labels as the run's, in a folder of one's choice."""
    words = ("n_points=500", "n_points_deep_sdf=500", f"out={tmp_path / 'l'}")
    assert command("label", f"run={done}", *words) == 0
    names = {p.relative_to(done / "labels") for p in (done / "labels").rglob("*.npz")}
    assert names == {p.relative_to(tmp_path / "l") for p in (tmp_path / "l").rglob("*.npz")}
    assert Path("if_net/objects/box/boundary_0.1_samples.npz") in names
    with np.load(done / "labels" / "labels.npz") as ours, np.load(tmp_path / "l" / "labels.npz") as again:
        np.testing.assert_array_equal(ours["occupancy"], again["occupancy"])
        assert ours["observed"].shape == again["observed"].shape


def test_evaluate_alone(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("n_samples=2000", "with_alignment=false", f"out={tmp_path / 'r.json'}")
    assert command("evaluate", f"run={done}", *words) == 0
    summary, report = (json.loads(p.read_text()) for p in (done / "summary.json", tmp_path / "r.json"))
    assert report == summary["report"]
    assert "chamfer_mm" in capsys.readouterr().out
    truth = Path(summary["capture"]) / "gt" / "gt_mesh.ply"
    assert command("evaluate", f"mesh={truth}", f"gt={truth}", *words) == 0
    assert json.loads((tmp_path / "r.json").read_text())["raw"]["chamfer_mm"] < 1e-4


def test_a_broken_capture_leaves_its_reason(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(json.loads((done / "summary.json").read_text())["capture"], tmp_path / "cup")
    calibration = tmp_path / "cup" / "calibration.h5"
    calibration.write_bytes(calibration.read_bytes()[:1000])
    assert train([f"capture={tmp_path / 'cup'}", f"out={tmp_path / 'o'}"]) == 1
    err = capsys.readouterr().err
    assert "calibration.h5" in err
    assert err.count("\n") == 1
    told = json.loads((tmp_path / "o" / "failure.json").read_text())
    assert (told["status"], told["stage"], told["lies_in_input"]) == ("failed", "capture", True)
    assert told["error"].endswith("Error")
    assert told["message"] == err.partition(": ")[2].strip()
    assert {p.name for p in (tmp_path / "o").iterdir()} == {"config.yaml", "failure.json", "log.txt"}
