"""The fit: schedules and losses in closed form, the same model from the same seed, with or without a stop between."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from neuralrecon.capture import read_capture
from neuralrecon.errors import ConfigError, FitError
from neuralrecon.fields import FieldConfig
from neuralrecon.scene import Scene, SceneConfig
from neuralrecon.train import Fit, FitConfig, fit, load_fit, losses, save_fit
from neuralrecon.train import start as start_module
from neuralrecon.train.schedule import active_levels, geometric, learning_rate

TINY = FitConfig(
    field=FieldConfig(
        levels=4,
        log2_table_size=12,
        base_resolution=8,
        finest_resolution=64,
        color_levels=3,
        color_log2_table_size=12,
        color_finest_resolution=64,
        hidden=16,
    ),
    steps=20,
    interior_rays=96,
    edge_rays=48,
    depth_rays=128,
    first_levels=2,
    occupancy_resolution=32,
    checkpoint_every=10,
)


class Stopped(Exception):
    """Stands for Ctrl-C, a full disk, a lost machine."""


@pytest.fixture(scope="module")
def scene(sphere_folder: Path) -> Scene:
    return Scene.from_capture(read_capture(sphere_folder), SceneConfig(hull_resolution=64))


@pytest.fixture(scope="module")
def whole(scene: Scene) -> Fit:
    return fit(scene, TINY, seed=3)


def stop_at(last: int) -> Callable[[int, dict[str, float]], None]:
    def on_step(step: int, _: dict[str, float]) -> None:
        if step == last:
            raise Stopped

    return on_step


def assert_same(a: Fit, b: Fit) -> None:
    """Bit for bit, model and occupancy."""
    ours, theirs = a.model.state_dict(), b.model.state_dict()
    assert list(ours) == list(theirs)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert torch.equal(a.occupancy.cells, b.occupancy.cells)
    assert torch.equal(a.occupancy.sdf, b.occupancy.sdf)
    assert (a.step, a.blur, a.config) == (b.step, b.blur, b.config)


# ------------------------------------------------------------------------------------------------------- schedules


def test_schedules_at_their_ends() -> None:
    assert geometric(2.0, 0.5, 0.0) == 2.0
    assert geometric(2.0, 0.5, 0.5) == pytest.approx(1.0)
    assert geometric(2.0, 0.5, 1.0) == pytest.approx(0.5)
    assert geometric(2.0, 0.5, 7.0) == pytest.approx(0.5)  # held
    assert learning_rate(0.0, 0.02, 0.05) == 0.0
    assert learning_rate(0.01, 0.02, 0.05) == pytest.approx(0.5)
    assert learning_rate(0.02, 0.02, 0.05) == pytest.approx(1.0)
    assert learning_rate(0.51, 0.02, 0.05) == pytest.approx(0.525)  # half way down the cosine
    assert learning_rate(1.0, 0.02, 0.05) == pytest.approx(0.05)
    assert active_levels(0.0, 4, 12, 0.5) == 4
    assert active_levels(0.5, 4, 12, 0.5) == active_levels(1.0, 4, 12, 0.5) == 12
    opened = [active_levels(p, 4, 12, 0.5) for p in np.linspace(0, 1, 500)]
    assert sorted(set(opened)) == list(range(4, 13))
    assert opened == sorted(opened)
    counts = [opened.count(n) for n in range(4, 12)]
    assert max(counts) - min(counts) <= 1  # at even times


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "steps"),
        ({"blur_start_mm": 0.1, "blur_end_mm": 0.2}, "blur_end_mm"),
        ({"all_levels_from": 0.0}, "all_levels_from"),
        ({"first_levels": 13}, "first_levels must be 1 to 12"),
        ({"occupancy_resolution": 8}, "occupancy_resolution"),
    ],
)
def test_settings_that_no_fit_has_are_an_error(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        FitConfig(**change)


# ---------------------------------------------------------------------------------------------------------- losses


def test_color_loss_is_hubers_over_the_silhouette() -> None:
    """Of colours at the rays' own opacity: covering more of the silhouette must not pay."""
    recorded, opacity = torch.full((5, 3), 0.8), torch.tensor([1.0, 0.5, 1.0, 1.0, 0.0])
    rendered = torch.tensor([[0.85] * 3, [0.9] * 3, [9.0] * 3, [0.8] * 3, [0.0] * 3])
    inside = torch.tensor([True, True, False, True, True])
    # 0.5 d^2 / delta up to delta = 0.1, d - delta / 2 beyond it
    expected = (0.5 * 0.05**2 / 0.1 + 0.5 - 0.05 + 0.0 + 0.0) / 4
    errors, sure = losses.color_errors(rendered, opacity, recorded), torch.zeros(5)
    assert float(losses.color_loss(errors, sure, inside)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.color_loss(errors, sure, torch.zeros(5, dtype=torch.bool))) == 0.0


def test_doubt_settles_where_errors_are_as_usual() -> None:
    """The best doubt of an error is the logarithm of how many times the usual one it is."""
    errors, inside = torch.tensor([0.08, 0.01, 0.3]), torch.ones(3, dtype=torch.bool)
    doubt = torch.zeros(3, requires_grad=True)
    for _ in range(4000):
        (gradient,) = torch.autograd.grad(losses.color_loss(errors, doubt, inside), doubt)
        doubt = (doubt - 20 * gradient).clamp_min(0).detach().requires_grad_()
    assert doubt.detach().numpy() == pytest.approx(np.log([8.0, 1.0, 30.0]), abs=1e-3)


def test_silhouette_loss_is_the_cross_entropy() -> None:
    opacity, inside = torch.tensor([0.9, 0.2, 0.0]), torch.tensor([True, False, False])
    expected = -(math.log(0.9) + math.log(0.8) + math.log(0.999)) / 3
    assert float(losses.silhouette_loss(opacity, inside)) == pytest.approx(expected, rel=1e-5)
    certain_and_wrong = losses.silhouette_loss(torch.tensor([0.0]), torch.tensor([True]))
    assert float(certain_and_wrong) == pytest.approx(math.log(1000), rel=1e-4)


def test_eikonal_and_smoothness_losses() -> None:
    gradients = torch.tensor([[0.0, 0.0, 1.0], [3.0, 0.0, 4.0]])
    assert float(losses.eikonal_loss(gradients)) == pytest.approx((0 + 16) / 2)
    beside = torch.tensor([[0.0, 1.0, 0.0], [3.0, 0.0, 4.0]])
    assert float(losses.bending_loss(gradients, beside)) == pytest.approx(2 / 2)
    assert float(losses.straight_down_loss(gradients)) == pytest.approx((1 + 16) / 2)
    # of four points: deeper than before; risen by 0.5; risen, but still deeper than the 2 mm that are enough; out
    sdf, last = torch.tensor([-5.0, -0.5, -2.5, 1.0]), torch.tensor([-4.0, -1.0, -9.0, -9.0])
    assert float(losses.deep_inside_loss(sdf, last, 2.0)) == pytest.approx((0 + 0.5 + 0 + 3.0) / 4)


def test_depth_losses() -> None:
    before, facing = torch.tensor([2.0, -1.0, 1.0]), torch.tensor([1.0, 0.5, 1.0])
    # a plane seen under a cosine: the sdf is how far before it, times that; nothing to lose
    assert float(losses.truncated_sdf_loss(before * facing, before, facing, torch.ones(3))) == 0.0
    off = before * facing + torch.tensor([0.5, -3.0, 100.0])
    inlier = torch.tensor([1.0, 0.5, 0.0])
    # 0.5 d^2 up to 1 mm, then d - 0.5; weighted, over the sum of weights
    expected = (0.125 * 1 + 2.5 * 0.5) / 1.5
    assert float(losses.truncated_sdf_loss(off, before, facing, inlier)) == pytest.approx(expected, rel=1e-5)
    sdf = torch.tensor([5.0, 0.25, -1.0, -1.0])
    inlier = torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert float(losses.free_space_loss(sdf, 1.0, inlier)) == pytest.approx((0 + 0.75 + 2.0 + 0) / 4)


# ------------------------------------------------------------------------------------------------------------ fits


def test_the_hull_is_where_a_fit_starts(scene: Scene) -> None:
    from neuralrecon.fields import SurfaceModel

    generator = torch.Generator().manual_seed(0)
    model = SurfaceModel(TINY.field, 2, 1, generator)
    start_module.start_from_hull(model, scene, TINY.first_levels, generator)
    points = torch.rand(20_000, 3, generator=generator)
    target = scene.hull.look_up(points)
    near = target.abs() < 0.1
    error = (model.sdf(points, TINY.first_levels) - target)[near]
    # trilinear cells of 1 / 8 and 1 / 16 and sixteen ReLUs cannot do better than a fraction of a cell
    assert float(error.abs().mean()) < 0.25 / 16
    decided = target.abs() > 0.5 / 16
    sign = model.sdf(points, TINY.first_levels) > 0
    assert float((sign == (target > 0))[decided].float().mean()) > 0.97


def test_the_same_seed_gives_the_same_fit(scene: Scene, whole: Fit) -> None:
    seen: list[int] = []
    again = fit(scene, TINY, seed=3, on_step=lambda step, terms: seen.append(step))
    assert seen == list(range(20))
    assert_same(again, whole)
    assert whole.step == 20
    assert whole.blur == pytest.approx(TINY.blur_end_mm * scene.unit_per_mm)


def test_another_seed_gives_another_fit(scene: Scene, whole: Fit) -> None:
    other = fit(scene, replace(TINY, steps=1), seed=4)
    assert not torch.equal(other.model.sdf_table, whole.model.sdf_table)


def test_a_stopped_fit_goes_on_as_if_it_had_not(scene: Scene, whole: Fit, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(scene, TINY, seed=3, folder=tmp_path, on_step=stop_at(15))
    assert load_fit(tmp_path).step == 10
    seen: list[int] = []
    resumed = fit(scene, TINY, seed=3, folder=tmp_path, on_step=lambda step, terms: seen.append(step))
    assert seen == list(range(10, 20))
    assert_same(resumed, whole)
    assert_same(load_fit(tmp_path), whole)
    with (tmp_path / "scalars.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(20))
    for row in rows:
        terms = [float(v) for k, v in row.items() if k not in ("step", "loss", "samples") and v]
        assert float(row["loss"]) == pytest.approx(sum(terms), rel=1e-9)


def test_a_saved_fit_comes_back_whole(whole: Fit, tmp_path: Path) -> None:
    save_fit(whole, tmp_path)
    back = load_fit(tmp_path)
    assert_same(back, whole)
    assert back.unit_from_world.scale == whole.unit_from_world.scale
    assert torch.equal(back.unit_from_world.translation, whole.unit_from_world.translation)
    assert torch.equal(back.box.low, whole.box.low)
    assert torch.equal(back.box.high, whole.box.high)
    assert torch.equal(back.view_origins, whole.view_origins)
    assert (back.name, back.floor_m, back.is_metric) == (whole.name, whole.floor_m, whole.is_metric)
    assert [p.name for p in tmp_path.iterdir()] == ["fit.safetensors"]  # no half-written file beside it


def test_a_folder_with_another_fit_is_refused(scene: Scene, whole: Fit, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(scene, TINY, seed=3, folder=tmp_path, on_step=stop_at(10))
    for settings, seed in ((replace(TINY, w_color=0.1), 3), (TINY, 4)):
        with pytest.raises(FitError, match=r"fit\.safetensors.*other settings"):
            fit(scene, settings, seed=seed, folder=tmp_path)
    save_fit(whole, tmp_path)
    with pytest.raises(FitError, match=r"fit\.safetensors: a finished fit"):
        fit(scene, TINY, seed=3, folder=tmp_path)


def test_files_that_are_no_fit_are_refused_by_name(whole: Fit, tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    with pytest.raises(FitError, match=r"fit\.safetensors: no such file"):
        load_fit(tmp_path)
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(FitError, match=r"fit\.safetensors: not a fit of ours"):
        load_fit(tmp_path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(FitError, match=r"fit\.safetensors: a fit of version"):
        load_fit(tmp_path)
    save_file({"weight": torch.zeros(3)}, path, metadata={"facts": json.dumps({"version": 10_000})})
    with pytest.raises(FitError, match=r"fit\.safetensors: a fit of version . is needed, this has 10000"):
        load_fit(tmp_path)
    save_fit(whole, tmp_path)
    content = path.read_bytes()
    for length in (4, 500, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(FitError, match=r"fit\.safetensors: not a fit of ours, or damaged"):
            load_fit(tmp_path)


def test_a_loss_that_is_not_finite_ends_the_fit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(gradients: Tensor, _: Tensor) -> Tensor:
        return gradients.sum() * math.nan

    monkeypatch.setattr(losses, "bending_loss", broken)
    monkeypatch.setattr(start_module, "_STEPS", 1)
    with pytest.raises(FitError, match=r"step 0: the loss is no longer finite.*bending nan"):
        fit(scene, replace(TINY, w_bending=0.1), seed=0)


def test_a_fit_needs_only_one_kind_of_evidence(scene: Scene) -> None:
    """Photographs alone, or depth alone: the other's terms are not there."""
    seen: dict[str, set[str]] = {}

    def note(name: str) -> Callable[[int, dict[str, float]], None]:
        return lambda step, terms: seen.setdefault(name, set()).update(terms)

    short = replace(TINY, steps=2)
    fit(replace(scene, readings=None), short, on_step=note("photographs"))
    fit(replace(scene, pixels=None), short, on_step=note("depth"))
    assert {"color", "silhouette"} <= seen["photographs"]
    assert not {"depth", "free", "bending"} & seen["photographs"]
    assert {"depth", "free", "bending"} <= seen["depth"]
    assert not {"color", "silhouette"} & seen["depth"]
