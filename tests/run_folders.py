"""A finished run's folder without a fit: a known mesh and a capture, as a run would leave them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import trimesh

from neuralrecon.capture import Capture
from neuralrecon.train.run_folder import SUMMARY_FILE, RunFolder


def write_run(folder: Path, mesh: trimesh.Trimesh, capture: Capture, *, is_metric: bool = True) -> Path:
    run = RunFolder.chosen(folder, "sphere", "seed: 0\n", overwrite=False)
    run.open()
    run.write_capture(replace(capture, is_metric=is_metric))
    mesh.export(folder / "mesh.ply")
    told = {"name": "demo/sphere", "capture": str(capture.root.resolve()), "calibration": "given"}
    (folder / SUMMARY_FILE).write_text(json.dumps(told), encoding="utf-8")
    return folder
