"""Sweeps: every object ends with its verdict and the true reason, whatever happens to it; nothing is done twice."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_runs import EASY, SMALL, environment, python

from neuralrecon.errors import ConfigError, FitError, SweepError
from neuralrecon.sweep import Engine, Job, Outcome, SweepConfig, read_outcomes, sweep
from neuralrecon.sweep import attempt as attempt_module
from neuralrecon.sweep.__main__ import cli
from neuralrecon.sweep.attempt import Task, attempted
from neuralrecon.sweep.jobs import is_due, names_of_captures
from neuralrecon.sweep.outcome import write_outcome
from neuralrecon.sweep.processes import Processes, Stopped
from neuralrecon.sweep.results import COLUMNS, write_results
from neuralrecon.sweep.status import rows_of
from neuralrecon.train import FitConfig, load_fit
from neuralrecon.train.folder_lock import alone_in, holder_of, is_locked
from neuralrecon.train.out_of_memory import telling_memory
from neuralrecon.train.run_folder import RunFolder
from neuralrecon.train.verdict import Status
from neuralrecon.usage import as_list

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install -e '.[sweep]'"
)
needs_joblib = pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins") is None
    or importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None,
    reason="hydra's joblib launcher is not installed: pip install -e '.[sweep]'",
)


def job(name: str, size: int = 0, fingerprint: str = "1") -> Job:
    return Job(name=name, words=(f"capture={name}",), size=size, fingerprint=fingerprint)


def outcome(name: str, status: Status = Status.ok, **facts: object) -> Outcome:
    return Outcome(name=name, status=status, **({"fingerprint": "1"} | facts))


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def when(condition: Callable[[], object], within_s: float = 120.0) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


# ------------------------------------------------------------------------------------- what is due, and in which order


def test_what_is_due() -> None:
    """(outcome, whether it is due again with the same settings and files, and with others)"""
    poor = outcome("a", Status.poor)
    wrong = outcome("a", Status.failed, lies_in_input=True)
    machine = outcome("a", Status.failed, lies_in_input=False)
    cases = [(None, True, True), (outcome("a"), False, False), (poor, False, True), (wrong, False, True)]
    for known, same, other in [*cases, (machine, True, True)]:
        assert is_due(job("a"), known, force=False) == same, known
        assert is_due(job("a", fingerprint="2"), known, force=False) == other, known
        assert is_due(job("a"), known, force=True)


def test_captures_are_named_by_as_little_as_tells_them_apart(tmp_path: Path) -> None:
    assert names_of_captures([tmp_path / "x" / "cup", tmp_path / "x" / "mug"]) == ["cup", "mug"]
    assert names_of_captures([tmp_path / "x" / "cup", tmp_path / "y" / "cup"]) == ["x/cup", "y/cup"]
    assert names_of_captures([]) == []
    with pytest.raises(ConfigError, match="named twice"):
        names_of_captures([tmp_path / "cup", tmp_path / "." / "cup"])


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the objects whose process was started, in order; each ends at once and is ok."""
    started: list[str] = []

    def process(task: Task, smaller: tuple[str, ...], *_: object) -> int:
        started.append(task.job.name)
        folder = task.out / "runs" / task.job.name
        folder.mkdir(parents=True, exist_ok=True)
        verdict = {"status": "ok", "reasons": [], "figures": {"psnr_db": 20.0}}
        (folder / "summary.json").write_text(json.dumps({"verdict": verdict}))
        return 0

    monkeypatch.setattr(attempt_module, "_process", process)
    return started


def test_the_largest_come_first_and_only_what_is_missing_is_done(tmp_path: Path, done: list[str]) -> None:
    config = SweepConfig(out=tmp_path / "o", engine=Engine.serial)
    jobs = [job("a", 1), job("b", 30), job("c", 2), job("set/d", 30)]
    assert [found.name for found in sweep(jobs, config)] == ["a", "b", "c", "set/d"]
    assert done == ["b", "set/d", "c", "a"]
    assert {name: row["status"] for name, row in rows(tmp_path / "o").items()} == dict.fromkeys(
        ["a", "b", "c", "set/d"], "ok"
    )
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "o" / "outcomes").rglob("*")}
    sweep(jobs, config)
    assert len(done) == 4
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "o" / "outcomes").rglob("*")} == before
    sweep([*jobs, job("e", 5)], config)
    assert done[4:] == ["e"]
    (tmp_path / "o" / "outcomes" / "c.json").write_text("{")  # damaged: done again
    sweep([job("c", 2)], config)
    assert done[5:] == ["c"]
    assert set(rows(tmp_path / "o")) == {"a", "b", "c", "set/d", "e"}
    sweep([job("a", 1)], SweepConfig(out=tmp_path / "o", force=True))
    assert done[6:] == ["a"]


def test_a_process_that_is_killed_is_tried_again_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {"once": [-9, 1], "always": [-9, -9, -9, -9], "asked": [143, 2], "wrong": [1, 1], "odd": [7, 7]}

    def process(task: Task, smaller: tuple[str, ...], *_: object) -> int:
        (task.out / "logs").mkdir(exist_ok=True)
        (task.out / "logs" / f"{task.job.name}.txt").write_text("…\nneuralrecon.train: the reason: it is\n\n")
        return codes[task.job.name].pop(0)

    monkeypatch.setattr(attempt_module, "_process", process)
    with pytest.raises(SweepError, match=r"5 of 5 objects failed: .* and 2 more"):
        sweep([job(name) for name in codes], SweepConfig(out=tmp_path / "o", retries=2, workers=3))
    found = read_outcomes(tmp_path / "o")
    assert {name: o.attempts for name, o in found.items()} == {
        "once": 2, "always": 3, "asked": 2, "wrong": 1, "odd": 1,
    }  # fmt: skip
    assert found["always"].reasons == ("its process was ended by SIGKILL, 3 times; out of memory is the usual cause",)
    assert {found[name].reasons for name in ("once", "asked", "wrong", "odd")} == {("the reason: it is",)}
    assert [name for name in codes if found[name].lies_in_input] == ["asked"]  # status 2: a wrong setting


def test_an_object_that_ran_out_of_memory_is_tried_again_with_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller at every try, and the outcome says how; other failures are not tried again."""
    asked: list[tuple[str, ...]] = []

    def process(task: Task, smaller: tuple[str, ...], *_: object) -> int:
        asked.append(smaller)
        n_rays = int(smaller[0].partition("=")[2]) if smaller else 768
        folder = RunFolder.chosen(task.out / "runs" / task.job.name, "a", "", overwrite=True)
        folder.open()
        if n_rays > int(task.job.name):
            try:
                telling_memory(run_out)(FitConfig(interior_rays=n_rays))
            except FitError as error:
                folder.fail(error, "fit")
            return 1
        folder.write_text("summary.json", json.dumps({"verdict": {"status": "ok", "reasons": [], "figures": {}}}))
        return 0

    def run_out(config: FitConfig) -> None:
        raise MemoryError

    monkeypatch.setattr(attempt_module, "_process", process)
    jobs = [job("768"), job("384"), job("192"), job("96")]
    with pytest.raises(SweepError, match="1 of 4 objects failed"):
        sweep(jobs, SweepConfig(out=tmp_path / "o", retries=2, engine=Engine.serial))
    found = read_outcomes(tmp_path / "o")
    assert {name: (o.status.value, o.attempts) for name, o in found.items()} == {
        "768": ("ok", 1), "384": ("ok", 2), "192": ("ok", 3), "96": ("failed", 3),
    }  # fmt: skip
    assert found["768"].reasons == ()
    assert "memory ran out; done with fit.interior_rays=192 fit.edge_rays=" in found["192"].reasons[0]
    assert "ran out of memory" in found["96"].reasons[0]
    words = dict(word.split("=") for word in asked[-1])
    assert (words["fit.interior_rays"], words["fit.depth_rays"]) == ("192", "1536")


def test_what_goes_wrong_around_an_object_is_its_own_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for its log, and at last for its outcome too."""

    def process(*given: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(attempt_module, "_process", process)
    monkeypatch.setattr(attempt_module, "write_outcome", process)
    task = Task(job=job("a"), out=tmp_path, here=tmp_path, threads=1, retries=0)
    found = attempted(task, Processes())
    assert (found.status, found.error, found.lies_in_input) == (Status.failed, "OSError", False)
    assert "No space left" in found.reasons[0]


def test_a_sweep_that_ends_takes_its_processes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked to end, and waited for."""
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(143));"
        "print('up', file=sys.stderr, flush=True); time.sleep(60)"
    )
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def other(_: object, **settings: Any) -> subprocess.Popen[str]:
        started.append(popen([sys.executable, "-c", code], **settings))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", other)
    task = Task(job=job("a"), out=tmp_path, here=tmp_path, threads=1, retries=5)
    with pytest.raises(Stopped):
        attempted(task, Processes(), lambda: bool(started) and "up" in (tmp_path / "logs" / "a.txt").read_text())
    assert [child.returncode for child in started] == [143]
    assert not (tmp_path / "outcomes").exists()


def test_a_process_takes_the_next_object_until_one_does_not_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The train command's help is the object here; each log has the words of its own object only."""
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def noted(*words: Any, **settings: Any) -> subprocess.Popen[str]:
        started.append(popen(*words, **settings))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)

    def train(processes: Processes, word: str, name: str, here: Path = tmp_path) -> int:
        return processes.train([word], tmp_path / "logs" / name, here, 1)

    with Processes() as processes:
        assert [train(processes, "--help", name) for name in "ab"] == [0, 0]
        assert len(started) == 1
        assert train(processes, "fit.stepps=3", "c") == 2
        assert started[0].returncode == 2
        assert train(processes, "--help", "d") == 0
        assert len(started) == 2
        os.kill(started[1].pid, signal.SIGKILL)  # while it waits
        started[1].wait()
        assert train(processes, "--help", "e") == 0
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # another GPU: what CUDA has seen cannot be changed
        assert train(processes, "--help", "f") == 0
        (tmp_path / "elsewhere").mkdir()
        assert train(processes, "--help", "g", tmp_path / "elsewhere") == 0
        assert len(started) == 5
        assert started[-1].returncode is None
    assert started[-1].returncode is not None
    logs = {name: (tmp_path / "logs" / name).read_text() for name in "abcdefg"}
    assert "did you mean fit.steps" in logs.pop("c")
    assert len(set(logs.values())) == 1
    assert "python -m neuralrecon.train" in logs["a"]


def test_folders_that_are_others_are_left_alone(
    tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuralrecon.train.folder_lock.PATIENCE_S", 0.0)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="no sweep's"):
        sweep([job("a")], SweepConfig(out=tmp_path))
    with pytest.raises(ConfigError, match="nothing to reconstruct"):
        sweep([], SweepConfig(out=tmp_path / "o"))
    (tmp_path / "o").mkdir()
    with alone_in(tmp_path / "o"), pytest.raises(ConfigError, match=f"another run is at work.*{os.getpid()}"):
        sweep([job("a")], SweepConfig(out=tmp_path / "o"))
    assert not done


# ------------------------------------------------------------------------------------------------------------- results


class Cells(HTMLParser):
    """Texts of the table's cells, row by row; every tag's attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and self.get_starttag_text() not in (None, "<script>"):
            self.rows[-1][-1] += data.strip()


def test_the_table_has_every_object_and_nothing_of_it_is_code(tmp_path: Path) -> None:
    evil = '<script>alert("a")</script>, "quoted"\n'
    figures = {"silhouette_iou": 0.95, "psnr_db": 21.25, "is_closed": True, "n_bodies": 1}
    outcomes = {
        "b": outcome("b", Status.ok, figures=figures, seconds=1.5),
        "a": outcome("a", Status.failed, reasons=(evil, "two"), stage="fit", error="FitError"),
    }
    write_results(["c", "b", "a"], outcomes, tmp_path)
    found = rows(tmp_path)
    assert list(found) == ["a", "b", "c"]
    assert list(found["a"]) == COLUMNS
    assert [row["status"] for row in found.values()] == ["failed", "ok", "missing"]
    assert found["a"]["reasons"] == f"{evil}; two"
    assert (found["b"]["psnr_db"], found["b"]["is_closed"], found["b"]["observed_share"]) == ("21.25", "True", "")
    page = (tmp_path / "results.html").read_text()
    cells = Cells()
    cells.feed(page)
    assert len(cells.rows) == 4
    assert cells.rows[1][1:3] == ["failed", f"{evil.strip()}two"]
    assert page.count("<script>") == 1
    assert "3 objects: 1 ok, 0 poor, 1 failed, 1 missing" in page
    assert not [value for key, value in cells.attributes if key in ("src", "href") and "//" in str(value)]


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install -e '.[sweep]'")
    write_results(["a", "b"], {"a": outcome("a", figures={"psnr_db": 21.25, "n_bodies": 1})}, tmp_path)
    found = parquet.read_table(tmp_path / "results.parquet")
    assert found.column_names == COLUMNS
    assert found.column("psnr_db").to_pylist() == [21.25, None]
    assert found.column("status").to_pylist() == ["ok", "missing"]


def test_status_tells_what_runs(tmp_path: Path, done: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o"
    sweep([job(name) for name in "abcd"], SweepConfig(out=out))
    write_outcome(outcome("b", Status.poor, reasons=("the mesh is not closed",)), out)
    for name in "ad":
        (out / "outcomes" / f"{name}.json").unlink()
    (out / "runs" / "a" / "log.txt").write_text("2026-01-01 10:00:00,000 fit 3/4: color 1\n")
    with alone_in(out), alone_in(out / "runs" / "a"):
        found = [(row.name, row.status, row.told) for row in rows_of(out)]
    assert found == [
        ("a", "running", "fit 3/4: color 1"), ("b", "poor", "the mesh is not closed"), ("c", "ok", ""),
        ("d", "missing", ""),
    ]  # fmt: skip
    assert cli(["status", f"run={out}"]) == 0
    assert "4 objects: 0 running, 0 failed, 1 poor, 1 ok, 2 missing" in " ".join(capsys.readouterr().out.split())
    assert cli(["status", f"run={tmp_path}"]) == 2
    assert "no sweep.json" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["go"], "wanted run or status"),
        (["run", "object=demo/box"], "out must be given"),
        (["run", "out=o"], "nothing to reconstruct"),
        (["run", "out=o", "object=demo/boxx"], "did you mean demo/box"),
        (["run", "out=o", "object=demo/*x*z"], "no object fits 'demo/*x*z'"),
        (["run", "out=o", "captures=nothing/*"], "no folder fits 'nothing/*'"),
        (["run", "out=o", "object=demo/box", "fit.stepps=3"], "did you mean fit.steps"),
        (["run", "out=o", "object=demo/box", "seed=1,2"], "several values"),
        (["run", "out=o", "object=demo/box", "overwrite=true"], "force=true"),
        (["run", "out=o", "object=demo/box", "viewer=true"], "python -m neuralrecon.view run=o"),
        (["run", "out=o", "object=demo/box", "workers=0"], "workers must be 1 or more"),
        (["run", "out=o", "object=demo/box", "gpus_each=1"], "for engine=ray"),
    ],
)
def test_a_wrong_command_is_told_and_nothing_is_written(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_lists_and_patterns_name_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], done: list[str]
) -> None:
    """With the words of each run as one would type them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "it's a cup").mkdir(parents=True)
    assert as_list("object=a, b", {"object": "objects"}) == "objects=['a','b']"
    words = ["object=demo/*box,demo/mug", "captures=data/*", "out=o", "engine=serial", "seed=3", "fit.steps=7"]
    assert cli(["run", *words]) == 0
    assert sorted(done) == ["demo/box", "demo/mug", "it's a cup"]
    told = json.loads((tmp_path / "o" / "sweep.json").read_text())["objects"]
    assert told["demo/mug"] == ["seed=3", "fit.steps=7", "object=demo/mug"]
    assert told["it's a cup"][2].startswith("capture='")
    from neuralrecon.train.__main__ import cli as train

    [settings] = train.settings(told["it's a cup"])
    assert (settings.capture, settings.seed, settings.fit.steps) == (tmp_path / "data" / "it's a cup", 3, 7)
    assert "3 ok, 0 poor, 0 failed" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------------- real processes

REASONS = {
    "corrupt": ("capture", "N1_0.jpg: image is truncated"),
    "uncalibrated": ("capture", "calibration.h5"),
    "unmasked": ("masks", "no pixel is object"),
}


@pytest.fixture(scope="module")
def captures(sphere_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good ones, and three that are sabotaged."""
    root = tmp_path_factory.mktemp("sabotaged")
    for name in ("good", "killed", *REASONS):
        shutil.copytree(sphere_folder, root / name)
    photo = root / "corrupt" / "N1_0.jpg"
    photo.write_bytes(photo.read_bytes()[:400])
    (root / "uncalibrated" / "calibration.h5").unlink()
    for mask in (root / "unmasked" / "masks").iterdir():
        with Image.open(mask) as image:
            Image.new("1", image.size, 1).save(mask)
    return root


def kill_once(out: Path, which: Callable[[], int | None]) -> threading.Thread:
    """Kill a process as soon as the object "killed" is being worked on."""

    def kill() -> None:
        when(lambda: is_locked(out / "runs" / "killed") and which())
        os.kill(which() or 0, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_a_sweep_with_sabotaged_objects_and_a_killed_process(
    captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    words = ["run", f"captures={captures}/*", f"out={out}", "workers=2", "cores_each=1", *SMALL, *EASY]
    killer = kill_once(out, lambda: getattr(holder_of(out / "runs" / "killed"), "pid", None))
    assert cli(words) == 1
    killer.join()
    assert "3 of 5 objects failed" in capsys.readouterr().err
    found = read_outcomes(out)
    for name in ("good", "killed"):
        assert (found[name].status, found[name].reasons) == (Status.ok, ())
    assert {name: o.attempts for name, o in found.items()} == {name: 1 for name in found} | {"killed": 2}
    for name, (stage, reason) in REASONS.items():
        assert (found[name].status, found[name].stage, found[name].lies_in_input) == (Status.failed, stage, True)
        assert reason in found[name].reasons[0]
    meshes = [(out / "runs" / name / "mesh.ply").read_bytes() for name in ("good", "killed")]
    assert meshes[0] == meshes[1]
    assert {name: row["status"] for name, row in rows(out).items()} == {name: o.status for name, o in found.items()}

    before = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*")}
    assert cli(words) == 1
    assert "0 of 5 objects to do" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*")} == before

    shutil.copy(captures / "good" / "calibration.h5", captures / "uncalibrated")
    try:
        assert cli(words) == 1
    finally:
        (captures / "uncalibrated" / "calibration.h5").unlink()
    assert "1 of 5 objects to do" in capsys.readouterr().out
    assert read_outcomes(out)["uncalibrated"].status == Status.ok


def test_an_object_is_the_same_whatever_its_process_did_before(captures: Path, tmp_path: Path) -> None:
    """Two copies of one capture, the second in the process of the first."""
    out = tmp_path / "o"
    folders = ",".join(str(captures / name) for name in ("good", "killed"))
    assert cli(["run", f"captures={folders}", f"out={out}", "engine=serial", "cores_each=1", *SMALL, *EASY]) == 0
    runs = [out / "runs" / name for name in ("good", "killed")]
    for file in ("fit/scalars.csv", "mesh.ply", "evidence.npz"):
        first, second = ((run / file).read_bytes() for run in runs)
        assert first == second, file
    first, second = (load_file(run / "fit/fit.safetensors") for run in runs)  # the file has the capture's name, too
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_signal_to_the_sweep_lets_the_object_write_a_checkpoint(captures: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    words = ["run", f"captures={captures / 'good'}", f"out={out}", "cores_each=1", *SMALL, "fit.steps=2000"]
    log = out / "runs" / "good" / "log.txt"

    def terminate() -> None:
        when(lambda: log.exists() and "fit 1/2000" in log.read_text())
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    assert cli([*words, "fit.checkpoint_every=2000"]) == 143
    thread.join()
    assert 0 < load_fit(out / "runs" / "good" / "fit").step < 2000
    assert rows(out)["good"]["status"] == "missing"
    assert not is_locked(out)


def parent_of(process: int | None) -> int | None:
    """Of the object's process: the Ray worker that waits for it."""
    if process is None:
        return None
    told = subprocess.run(["ps", "-o", "ppid=", "-p", str(process)], capture_output=True, text=True, check=False)
    return int(told.stdout) if told.stdout.strip() else None


@needs_ray
def test_over_ray_a_lost_worker_is_replaced(captures: Path, tmp_path: Path) -> None:
    """Its process goes with it, and does not keep the object's folder to itself."""
    out = tmp_path / "o"
    folders = ",".join(str(captures / name) for name in ("killed", "corrupt"))
    words = ["run", f"captures={folders}", f"out={out}", "engine=ray", "workers=2", "cores_each=1", *SMALL, *EASY]
    killer = kill_once(out, lambda: parent_of(getattr(holder_of(out / "runs" / "killed"), "pid", None)))
    command = python("-m", "neuralrecon.sweep", *words)
    first = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, cwd=tmp_path)
    killer.join()
    assert first.returncode == 1, first.stderr
    assert "1 of 2 objects failed: corrupt" in first.stderr
    found = read_outcomes(out)
    assert (found["killed"].status, found["killed"].reasons) == (Status.ok, ())
    assert REASONS["corrupt"][1] in found["corrupt"].reasons[0]
    log = (out / "runs" / "killed" / "log.txt").read_text()
    assert "taking over" in log
    assert "another run" not in log


def test_without_ray_the_engine_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli(["run", "object=demo/box", f"out={tmp_path / 'o'}", "engine=ray"]) == 2
    assert "pip install 'neuralrecon[sweep]'" in capsys.readouterr().err


@needs_joblib
def test_hydras_joblib_launcher_isolates_failures(captures: Path, tmp_path: Path) -> None:
    """The basic one's way too: `-m`, one line for each failure, and exit status 1."""
    paths = ",".join(f"'{captures / name}'" for name in ("corrupt", "good"))
    words = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"capture={paths}", *SMALL]
    command = python("-m", "neuralrecon.train", *words)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("neuralrecon.train: ")]
    assert len(told) == 1
    assert "N1_0.jpg" in told[0]
    names = ["failure.json", "summary.json"]
    assert sorted(p.name for name in names for p in (tmp_path / "outputs").rglob(name)) == names
