"""The speed benchmarks' own parts: tables, ratios, the gate; their figures are no matter of tests."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import micro, objects, step
from benchmarks.__main__ import main
from benchmarks.fits import Stamps, fit_config
from benchmarks.gate import baseline_of, failures
from benchmarks.inputs import GRIDS, RayInputs, sdf_of_box
from benchmarks.ops_cases import cases
from benchmarks.parts import PARTS
from benchmarks.timing import Call, interleaved
from neuralrecon.capture import read_capture
from neuralrecon.errors import ConfigError
from neuralrecon.fields import FieldConfig, SurfaceModel
from neuralrecon.scene import Scene
from neuralrecon.train import FitConfig

CPU = torch.device("cpu")


def test_calls_take_turns_and_are_compared_within_rounds() -> None:
    """The slower sleeps five times as long; sleeping is never shorter than asked, and on a busy machine longer."""
    said: list[str] = []

    def sleeper(name: str, seconds: float) -> Call:
        return Call(run=lambda: (said.append(name), time.sleep(seconds)), reset=lambda: said.append(f"{name} reset"))

    times = interleaved({"a": sleeper("a", 0.05), "b": sleeper("b", 0.01)}, "a", budget_s=0.0)
    assert said[-12:] == ["a", "a reset", "b", "b reset"] * 3
    assert times["a"].speedup == 1.0
    assert 1 < times["b"].speedup < 6
    assert times["a"].seconds >= 0.05
    assert {t.n_rounds for t in times.values()} == {3}


def test_only_what_got_slower_closes_the_gate() -> None:
    """A ratio may fall to three quarters, to the digit."""
    baseline = {"op | cpu": 20.0, "other | cpu": 4.0}
    assert failures(baseline, {"op | cpu": 15.0, "other | cpu": 400.0}, 0.25) == []
    assert failures(baseline, {"op | cpu": 14.99, "other | cpu": 4.0, "new": 0.1}, 0.25) == [
        "op | cpu: 14.99 x the reference, was 20.00: 25 % less"
    ]
    assert failures(baseline, {"op | cpu": 20.0}, 0.25) == ["other | cpu: not measured, was 4.00 x the reference"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ratios": 3}', '{"ratios": {"a": "fast"}}'])
def test_a_file_without_ratios_is_no_baseline(tmp_path: Path, text: str) -> None:
    file = tmp_path / "b.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"b\.json: holds no"):
        baseline_of(file, 0.25)


def test_rays_meet_the_band_around_the_box() -> None:
    """Samples lie within the band's reach (and what interpolation between cells loses); cameras see them from outside.

    Where the nearest face is nearer than any edge, its normal is one of the axes.
    """
    inputs = RayInputs.about(4000, CPU)
    assert 0.8 < len(inputs.points) / 4000 < 1.25
    distance = sdf_of_box(inputs.points)
    assert float(distance.abs().max()) < inputs.band.reach + 0.5 / 128
    assert float((distance.abs() < inputs.band.reach).float().mean()) > 0.8
    torch.testing.assert_close(inputs.normals.norm(dim=1), torch.ones(len(inputs.points)))
    first = inputs.samples.ray_starts[:-1][inputs.samples.ray_starts.diff() > 0]
    assert float((distance[first] > 0).float().mean()) > 0.99
    corner = torch.tensor([[0.5 + 0.32 + 0.1, 0.5, 0.5], [0.5, 0.5, 0.5]])
    torch.testing.assert_close(sdf_of_box(corner), torch.tensor([0.1, -0.2]))


def test_every_case_runs_on_every_backend_here() -> None:
    """Twice: what a call leaves behind must not be in the way of the next."""
    told = set()
    for case in cases(64, CPU):
        told.add(case.op)
        for backend in micro.backends_for(case.op, CPU):
            call = micro._within(backend, case.made(backend))
            for _ in range(2):
                call.run()
                call.reset()
    assert told >= {"hash_encode + backward", "sdf_query + backward", "color_query + backward", "march", "adam_step"}
    assert GRIDS["14 x 2^18"].n_features == 28


def test_micro_writes_what_its_gate_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    words = ["micro", "--points", "500", "--seconds", "0", "--only", "composite", "--json", str(file)]
    assert main(words) == 0
    written = json.loads(file.read_text())
    assert set(written["ratios"]) == {"composite | rays | cpu", "composite + backward | rays | cpu"}
    assert {"date", "commit", "cores", "torch", "versions", "threads"} <= set(written)
    for row in written["results"]:
        assert row["per_second"] == pytest.approx(row["n"] / row["timing"]["seconds"])
        assert (row["backend"] == "torch") == (row["timing"]["speedup"] == 1.0 and "cpu" not in row["backend"])

    slow, fast = tmp_path / "slow.json", tmp_path / "fast.json"
    slow.write_text(json.dumps({"ratios": dict.fromkeys(written["ratios"], 1e-6) | {"sdf_query | x | cpu": 9.0}}))
    fast.write_text(json.dumps({"ratios": dict.fromkeys(written["ratios"], 1e6) | {"composite | y | cpu": 9.0}}))
    again = [*words[:-1], str(tmp_path / "again.json")]
    assert main([*again, "--gate", str(slow)]) == 0  # the op that was not asked for is not missed
    assert "none of 2 ratios" in capsys.readouterr().out
    assert main([*again, "--gate", str(fast)]) == 1
    out = capsys.readouterr().out
    assert "3 of 3 ratios fell" in out
    assert "100 % less" in out
    assert "composite | y | cpu: not measured" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["micro", "--only", "sorting"], "no op's name holds"),
        (["micro", "--gate", "nowhere.json"], "nowhere.json: no such file"),
        (["micro", "--gate", "nowhere.json", "--tolerance", "1.5"], "below 1; got 1.5"),
        (["step", "--set", "field.level=14"], "field.level=14"),
        (["step", "--set", "field.levels"], "key=value"),
        (["step", "nowhere"], "nowhere"),
        (["object", "--agree-steps", "0"], "nothing to do"),
        (["object", "nowhere"], "no such file"),
        (["object", "--set", "steps=many"], "steps=many"),
        (["speed"], "no benchmark 'speed'"),
        ([], "no benchmark ''"),
    ],
)
def test_wrong_words_are_told(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) in (1, 2)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("words", [["micro", "--points", "0"], ["step", "--steps", "70"], ["step", "--steps", "40"]])
def test_wrong_numbers_end_it(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


def test_settings_are_the_fits() -> None:
    found = fit_config(["field.levels=14", "steps=40"])
    assert found == replace(FitConfig(), steps=40, field=FieldConfig(levels=14))
    with pytest.raises(ConfigError, match="first_levels"):
        fit_config(["first_levels=30"])


def test_stamps_count_from_the_step_before() -> None:
    stamps = Stamps(started=10.0, at={0: 13.0, 1: 14.0, 2: 14.5, 3: 16.5})
    assert stamps.until_first_s == 3.0
    assert stamps.seconds([1, 3]) == 3.0


def test_a_step_is_measured_by_both_backends(sphere_folder: Path) -> None:
    """The parts make up the whole: what is outermost, with the rest, is the time of a step."""
    scene = Scene.from_capture(read_capture(sphere_folder))
    config = fit_config(["steps=60", "interior_rays=24", "edge_rays=12", "depth_rays=24", "occupancy_resolution=32"])
    small = FieldConfig(levels=5, log2_table_size=12, color_levels=3, color_log2_table_size=12)
    found = step.measured("small", scene, replace(config, field=small), 1)
    assert found.late["torch"].speedup == 1.0
    assert found.late["auto"].speedup == pytest.approx(
        found.late["auto"].samples_per_s / found.late["torch"].samples_per_s, rel=1e-2
    )
    assert 24 < found.samples_per_step < 7000  # 2,048 of them beside others
    assert min(found.whole_per_s, found.last_half_per_s, found.first_step_s) > 0
    assert set(found.parts_ms) == set(PARTS)
    assert min(found.parts_ms.values()) > 0
    assert found.parts_ms["  backward"] < found.parts_ms["backward + optimiser"]


def fitted(name: str, steps: int, chamfer_mm: float) -> objects.Fitted:
    return objects.Fitted(
        name=name,
        backend="auto",
        steps=steps,
        seconds={"scene": 1.0, "fit": steps / 100, "mesh": 2.0},
        first_step_s=0.5,
        chamfer_mm=chamfer_mm,
        f_score_0_5mm=0.9,
        peak_mb={"scene": 1.0, "fit": 2.0, "mesh": 3.0},
        digest="",
    )


def test_nearly_converged_is_the_shortest_within_a_twentieth() -> None:
    """Of 0.2 mm: 0.21 mm and no more. Better than the longest is near, too."""
    fits = [fitted("a", n, mm) for n, mm in ((1500, 0.2), (300, 0.22), (500, 0.2101), (750, 0.2099), (1000, 0.19))]
    found = objects.nearly(fits)
    assert (found.steps, found.fit_s, found.chamfer_mm, found.converged_mm) == (750, 7.5, 0.2099, 0.2)


def test_digests_tell_single_bits() -> None:
    def made() -> SurfaceModel:
        small = FieldConfig(levels=2, log2_table_size=10, color_levels=2, color_log2_table_size=10)
        return SurfaceModel(small, 1, 1, torch.Generator().manual_seed(0))

    first, second = made(), made()
    assert objects.digest_of(first) == objects.digest_of(second)
    with torch.no_grad():
        second.color_table[3, 1].nextafter_(torch.tensor(1.0))
    assert objects.digest_of(first) != objects.digest_of(second)


def test_a_fit_is_scored_against_the_truth(sphere_folder: Path, tmp_path: Path) -> None:
    """Hardly trained it is about the hull of six stops, some millimetres off."""
    settings = [
        "interior_rays=16", "edge_rays=16", "depth_rays=16", "occupancy_resolution=32", "field.levels=5",
        "field.log2_table_size=12", "field.color_levels=2", "field.color_log2_table_size=10",
    ]  # fmt: skip
    found = objects.fit_once(sphere_folder, 3, settings, tmp_path, voxel_mm=3.0)
    assert 0.1 < found.chamfer_mm < 20
    assert found.peak_mb["scene"] <= found.peak_mb["fit"] <= found.peak_mb["mesh"]
    assert 0 < found.first_step_s < found.seconds["fit"] + 0.01
