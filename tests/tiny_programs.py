"""What programs and commands of the docs are run on: a desk with captures, runs and meshes, and small settings."""

from __future__ import annotations

import functools
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import trimesh
from small_runs import SMALL

import neuralrecon as nr
from neuralrecon import label as label_package
from neuralrecon import simulate as simulate_package
from neuralrecon.evaluate import EvaluateConfig, MeshReport
from neuralrecon.label import LabelConfig
from neuralrecon.simulate import SimulateConfig, simulate

RUNS = ("demo", "cup")  # finished runs that the docs go on with
CAPTURES = ("mine/cup", "mine/mug", "mine/glass", "bigbird/cheez_it_white_cheddar")
SIMULATED = ["simulate.n_stops=5", "simulate.n_width=72", "simulate.np_width=60", "simulate.depth_width=60",
             "simulate.supersample=1"]  # fmt: skip
SMALL_FIT = {
    "steps": 8, "interior_rays": 64, "edge_rays": 32, "patch_rays": 16, "depth_rays": 128, "occupancy_resolution": 32,
    "first_levels": 2,
}  # fmt: skip
# The settings that make a command small, by its name. They take the place of what a line says for the same keys.
SMALL_WORDS = {
    "train": [*SMALL, *SIMULATED, "every_nth_stop=1", "downscale=1"],
    "calibrate": [],
    "extract": ["voxel_mm=6"],
    "label": ["n_points=200", "n_points_deep_sdf=200"],
    "evaluate": ["n_samples=1000", "with_alignment=false"],
    "simulate": ["n_stops=2", "n_width=48", "np_width=40", "depth_width=40", "supersample=1"],
    "objects": [],
    "texture": ["size=256", "target_faces=300"],
    "export": [],
    "report": [],
}
_NOT_ASKED_OF_THE_LINE = {"calibration", "masks", "surface", "sensors"}  # what a line says of these is its point


def small_words(name: str, words: list[str]) -> list[str]:
    """The words of a command with small settings; what the line says stays but for sizes.

    Raises:
        ValueError: a command that has no small settings here yet.
    """
    if name not in SMALL_WORDS:
        raise ValueError(f"neuralrecon.{name}: give it small settings in SMALL_WORDS of tests/tiny_programs.py")
    said = {word.partition("=")[0] for word in words}
    small = [w for w in SMALL_WORDS[name] if w.partition("=")[0] not in said & _NOT_ASKED_OF_THE_LINE]
    keys = {word.partition("=")[0] for word in small}
    needed = [w for w in words if w.partition("=")[0] not in keys]
    if name == "train" and not any(w.startswith("data=") for w in needed):
        needed.append("data=data")
    return [*needed, *small]


def make_desk(folder: Path, sphere: Path) -> Path:
    """A folder with all that the docs' commands and programs name.

    `data/` has captures, `outputs/` finished small runs, and there are the meshes of a ball of 50 mm.
    """
    for name in CAPTURES:
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).symlink_to(sphere)
    first = folder / "outputs" / RUNS[0]
    words = [*SMALL, f"capture={folder / 'data/mine/cup'}", f"out={first}"]
    assert import_module("neuralrecon.train.__main__").cli(words) == 0
    for name in RUNS[1:]:
        shutil.copytree(first, folder / "outputs" / name)
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.05)
    for name in ("cup.ply", "cup_truth.ply"):
        ball.export(folder / name)
    ball.apply_scale(1000).export(folder / "scan.obj")  # in millimetres
    return folder


def laid_out(desk: Path, folder: Path) -> Path:
    """The desk once more, its captures shared, its runs and meshes as copies that may be changed."""
    (folder / "data").mkdir(parents=True)
    for path in (desk / "data").iterdir():
        (folder / "data" / path.name).symlink_to(path)
    shutil.copytree(desk / "outputs", folder / "outputs")
    for path in desk.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    return folder


def make_programs_small(patch: pytest.MonkeyPatch) -> None:
    """Every stage that a program calls by its public name takes small settings, whatever it was told."""
    fit, extract, occupancy, write, compare = (
        nr.fit, nr.extract_mesh, nr.label_occupancy, nr.write_labels, nr.evaluate_mesh,
    )  # fmt: skip
    field = {"levels": 3, "log2_table_size": 10, "color_levels": 3, "color_log2_table_size": 10}

    @functools.wraps(fit)
    def small_fit(scene: nr.Scene, config: nr.FitConfig | None = None, **more: Any) -> nr.Fit:
        config = config or nr.FitConfig()
        return fit(scene, replace(config, field=replace(config.field, **field), **SMALL_FIT), **more)

    @functools.wraps(extract)
    def small_mesh(found: nr.Fit, config: nr.MeshConfig | None = None) -> trimesh.Trimesh:
        return extract(found, replace(config or nr.MeshConfig(), voxel_mm=6.0, target_faces=0))

    @functools.wraps(occupancy)
    def few_labels(mesh: Any, n_points: int = 500, **more: Any) -> label_package.OccupancyLabels:
        return occupancy(mesh, min(n_points, 500), **more)

    @functools.wraps(write)
    def few_files(mesh: Any, folder: Path, config: LabelConfig, **more: Any) -> label_package.LabelSummary:
        return write(mesh, folder, replace(config, n_points=300, n_points_deep_sdf=300, observed_views=4), **more)

    @functools.wraps(compare)
    def few_samples(mesh: Any, truth: Any, config: EvaluateConfig, **more: Any) -> MeshReport:
        return compare(mesh, truth, replace(config, n_samples=1000), **more)

    @functools.wraps(simulate)
    def small_capture(config: SimulateConfig, folder: Path) -> Path:
        sizes = {"n_stops": 6, "n_width": 96, "np_width": 80, "depth_width": 80, "supersample": 1}
        return simulate(replace(config, **sizes), folder)

    for name, small in (("fit", small_fit), ("extract_mesh", small_mesh), ("label_occupancy", few_labels)):
        patch.setattr(nr, name, small, raising=False)
    patch.setattr(nr, "write_labels", few_files, raising=False)
    patch.setattr(nr, "evaluate_mesh", few_samples, raising=False)
    patch.setattr(simulate_package, "simulate", small_capture)
