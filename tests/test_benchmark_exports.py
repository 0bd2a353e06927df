"""The benchmark of exports on a run whose mesh is the truth itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from run_folders import write_run

from benchmarks.__main__ import main
from benchmarks.exports import drawn
from neuralrecon.capture import read_capture
from neuralrecon.evaluate import read_mesh


def test_a_run_that_has_the_true_mesh(sphere_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mass, centre and inertia are exact to the PLY's float32; outlines are 30 px wide: a pixel's border is 13 %."""
    capture = read_capture(sphere_folder).restricted(sensors=["N1", "N3"])
    run = write_run(tmp_path / "ball", read_mesh(sphere_folder / "gt" / "gt_mesh.ply"), capture)
    words = ["exports", str(run), "--every-nth-stop", "3", "--json", str(tmp_path / "exports.json")]
    assert main([*words, "--concavity", "0.1", "--part-faces", "500"]) == 0
    assert "inertia %" in capsys.readouterr().out
    [result] = json.loads((tmp_path / "exports.json").read_text())["results"]
    assert abs(result["mass_percent"]) < 1e-3
    assert result["centre_mm"] < 1e-3
    assert result["inertia_percent"] < 1e-3
    assert result["n_parts"] == 1
    assert result["parts_share"] == pytest.approx(1, abs=0.03)
    assert abs(result["fall"]["rest_mm"]) < 1
    assert abs(result["true_fall"]["rest_mm"]) < 1
    assert len(result["iou"]) == 4
    assert min(result["iou"]) > 0.85


def test_a_cube_is_drawn_where_it_is() -> None:
    """A cube of 100 mm, 1 m away behind a lens of 100 px: its near face is w = 100 * 100 / 950 px wide.

    Edges are drawn on a grid of a quarter of a pixel: w is right to that on both sides.
    """
    cube = trimesh.creation.box((100, 100, 100))
    camera = {"cam_K": [100, 0, 19.5, 0, 100, 14.5, 0, 0, 1]}
    pose = {"cam_R_m2c": np.eye(3).ravel().tolist(), "cam_t_m2c": [0, 0, 1000]}
    mask = drawn(np.asarray(cube.vertices), np.asarray(cube.faces), camera, pose, (40, 30))
    v, u = np.nonzero(mask)
    assert (u.min() + u.max()) / 2 == 19.5
    assert (v.min() + v.max()) / 2 == 14.5
    assert abs(np.sqrt(mask.sum()) - 100 * 100 / 950) <= 0.55
