"""Ended at any moment, by a signal or a kill, a run goes on to the same files as one that was not."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, environment, python

from neuralrecon.capture import read_capture
from neuralrecon.errors import FitError
from neuralrecon.fields import FieldConfig
from neuralrecon.files import replacing
from neuralrecon.scene import Scene, SceneConfig
from neuralrecon.train import Fit, FitConfig, fit, load_fit
from neuralrecon.train.checkpoint import FIT_FILE, PREVIOUS_FILE, TrainingState, load_training
from neuralrecon.train.interrupts import Interrupts, StoppedError, interrupts

TINY = FitConfig(
    field=FieldConfig(
        levels=3,
        log2_table_size=10,
        base_resolution=8,
        finest_resolution=32,
        color_levels=3,
        color_log2_table_size=10,
        color_finest_resolution=32,
        hidden=16,
    ),
    steps=44,
    interior_rays=32,
    edge_rays=16,
    depth_rays=64,
    first_levels=2,
    occupancy_resolution=32,
    checkpoint_every=15,
)


@pytest.fixture(scope="module")
def scene(sphere_folder: Path) -> Scene:
    capture = read_capture(sphere_folder).restricted(sensors=["N1", "N3", "NP3_depth"])
    return Scene.from_capture(capture, SceneConfig(hull_resolution=32))


@pytest.fixture(scope="module")
def whole(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    fit(scene, TINY, seed=5, folder=folder)
    return folder


def stopped(scene: Scene, folder: Path, step: int, signum: int = signal.SIGTERM) -> StoppedError:
    """What a fit raises that a signal came to during a step."""

    def on_step(now: int, _: dict[str, float]) -> None:
        if now == step:
            os.kill(os.getpid(), signum)

    with pytest.raises(StoppedError) as raised, interrupts() as asked, asked.noted():
        fit(scene, TINY, seed=5, folder=folder, on_step=on_step, interrupts=asked)
    return raised.value


def halfway(scene: Scene, folder: Path) -> Path:
    """A folder with the checkpoints of steps 15 and 30."""

    def on_step(now: int, _: dict[str, float]) -> None:
        if now == 31:
            raise KeyError

    with pytest.raises(KeyError):
        fit(scene, TINY, seed=5, folder=folder, on_step=on_step)
    assert {p.name for p in folder.iterdir()} == {FIT_FILE, PREVIOUS_FILE, "scalars.csv"}
    return folder


# --------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("steps", [(0,), (19, 20), (7, 26, 41)], ids=str)
def test_a_signal_leaves_a_checkpoint_and_the_fit_goes_on_bit_for_bit(
    scene: Scene, whole: Path, tmp_path: Path, steps: tuple[int, ...]
) -> None:
    """At the end of the step that it came in; the last file and every row of the scalars are those of the whole fit."""
    for step in steps:
        assert stopped(scene, tmp_path, step).status == 128 + 15
        assert load_fit(tmp_path).step == step + 1
    fit(scene, TINY, seed=5, folder=tmp_path)
    for name in (FIT_FILE, "scalars.csv"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (tmp_path / PREVIOUS_FILE).exists()


def test_a_signal_in_the_last_step_loses_nothing(scene: Scene, whole: Path, tmp_path: Path) -> None:
    assert stopped(scene, tmp_path, TINY.steps - 1, signal.SIGINT).status == 128 + 2
    assert (tmp_path / FIT_FILE).read_bytes() == (whole / FIT_FILE).read_bytes()


def test_signals_end_what_does_not_look_for_them_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    for signum in (signal.SIGTERM, signal.SIGINT):
        with pytest.raises(StoppedError, match="goes on from here") as raised, interrupts():
            os.kill(os.getpid(), signum)
        assert raised.value.status == 128 + signum
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_second_signal_does_not_wait() -> None:
    asked = Interrupts()
    with asked.noted() as noted:
        noted.handle(signal.SIGTERM, None)
        with pytest.raises(StoppedError):
            noted.handle(signal.SIGTERM, None)
        asked.signum = None


# ------------------------------------------------------------------------------------------------------ checkpoints


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    scene: Scene, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut off anywhere, or with any one bit flipped, in the header, the facts or the tensors. The fit ends as ever."""
    folder = halfway(scene, tmp_path)
    path, good = folder / FIT_FILE, (folder / FIT_FILE).read_bytes()
    assert load_fit(folder).step == 30
    damaged = [good[:length] for length in (0, 4, 700, len(good) // 2, len(good) - 1)]
    places = torch.randint(len(good), (60,), generator=torch.Generator().manual_seed(0)).tolist()
    for place in [0, 9, 200, 1500, len(good) - 1, *places]:
        flipped = bytearray(good)
        flipped[place] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    with caplog.at_level(logging.WARNING):
        for content in damaged:
            caplog.clear()
            path.write_bytes(content)
            found, training = load_training(folder)
            # a flipped bit of the header's own padding or of a key's order changes nothing that is read
            assert (found.step == 15 and "going back" in caplog.text) or same(found, good, tmp_path / "other")
            assert training is not None
    path.write_bytes(good[:-1])
    fit(scene, TINY, seed=5, folder=folder)
    for name in (FIT_FILE, "scalars.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def same(found: Fit, good: bytes, folder: Path) -> bool:
    """Whether a fit is that of the undamaged file."""
    folder.mkdir(exist_ok=True)
    (folder / FIT_FILE).write_bytes(good)
    ours, theirs = found.model.state_dict(), load_fit(folder).model.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_damaged_checkpoints_are_told_by_name(scene: Scene, tmp_path: Path) -> None:
    folder = halfway(scene, tmp_path)
    for name in (FIT_FILE, PREVIOUS_FILE):
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    with pytest.raises(FitError, match=r"fit\.safetensors: not a fit of ours, or damaged"):
        load_fit(folder)
    (folder / FIT_FILE).unlink()
    with pytest.raises(FitError, match=r"fit\.safetensors: not a fit of ours, or damaged"):
        fit(scene, TINY, seed=5, folder=folder)


# Each child is forked, so that starting Python does not take minutes, and dies before its k-th change of the disk.
KILLED_WHILE_SAVING = """
import os, sys
from dataclasses import replace
from pathlib import Path
from neuralrecon.train.checkpoint import load_training, save_fit

folder = Path(sys.argv[1])
found, training = load_training(folder)
CHANGES = {"os.rename", "os.remove", "os.link", "os.truncate"}

def dies(k):
    seen = 0
    def hook(event, args):
        nonlocal seen
        if event in CHANGES or event == "open" and ".fit." in str(args[0]):
            seen += 1
            if seen == k:
                os._exit(9)
    return hook

step, killed, k = found.step, 0, 0
while killed < 104:
    k += 1
    child = os.fork()
    if child == 0:
        sys.addaudithook(dies(k))
        save_fit(replace(found, step=step + 1), folder, training)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    now = load_training(folder)[0].step
    assert now in ((step, step + 1) if status == 9 else (step + 1,)), (k, status, step, now)
    step, killed = now, killed + (status == 9)
    if status == 0:
        assert k > 4, k
        k = 0
print(killed)
"""


def test_a_hundred_kills_while_a_checkpoint_is_written(scene: Scene, tmp_path: Path) -> None:
    """At every change of the disk in turn: the last or the one before can always be read, whichever step it is of."""
    folder = halfway(scene, tmp_path)
    done = subprocess.run(
        python("-c", KILLED_WHILE_SAVING, str(folder)), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["104"]


def test_scalars_are_there_before_the_checkpoint_that_needs_them(
    scene: Scene, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the two may leave rows that a resumed fit writes again, never a gap."""
    module = sys.modules["neuralrecon.train.fit"]  # the package's name for it is the function's
    save = module.save_fit

    def dies(kept: Fit, folder: Path, training: TrainingState | None = None) -> Path:
        if kept.step == 30:
            raise KeyError
        return save(kept, folder, training)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_fit", dies)
        with pytest.raises(KeyError):
            fit(scene, TINY, seed=5, folder=tmp_path)
    assert load_fit(tmp_path).step == 15
    assert len((tmp_path / "scalars.csv").read_text().splitlines()) == 1 + 30
    fit(scene, TINY, seed=5, folder=tmp_path)
    assert (tmp_path / "scalars.csv").read_bytes() == (whole / "scalars.csv").read_bytes()


# ------------------------------------------------------------------------------------------------- the whole command

# One process has imported all, and forks a run for each line that it is told: words, and the CPU seconds after which
# the run is ended as by SIGKILL. It answers the run's id, then its status and the CPU seconds that it took.
RUNS = """
import json, os, signal, sys
from neuralrecon.train.__main__ import cli
import neuralrecon.train.run, neuralrecon.extract.mesh, neuralrecon.ops

for line in sys.stdin:
    words, seconds = json.loads(line)
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        os._exit(cli(words))
    print(child, flush=True)
    _, status, used = os.wait4(child, 0)
    print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, flush=True)
"""
KILLED = -signal.SIGPROF


@pytest.fixture(scope="module")
def runner() -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        python("-c", RUNS), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield child
    child.stdin.close()
    child.wait()
    child.stdout.close()


def started(runner: subprocess.Popen[str], words: list[str], cpu_seconds: float = 0.0) -> int:
    """The id of the process of a run."""
    runner.stdin.write(json.dumps([words, cpu_seconds]) + "\n")
    runner.stdin.flush()
    return int(runner.stdout.readline())


def ended(runner: subprocess.Popen[str]) -> tuple[int, float]:
    """Its status and its CPU seconds."""
    status, seconds = runner.stdout.readline().split()
    return int(status), float(seconds)


def files(out: Path) -> dict[str, bytes]:
    """What a run is for: the fit, the mesh, the labels."""
    names = ["fit/fit.safetensors", "fit/scalars.csv", "mesh.ply", "evidence.npz"]
    labels = sorted(path.relative_to(out).as_posix() for path in (out / "labels").rglob("*") if path.is_file())
    return {name: (out / name).read_bytes() for name in [*names, *labels]}


def test_kills_at_any_moment_change_nothing(runner: subprocess.Popen[str], sphere_folder: Path, tmp_path: Path) -> None:
    """Four to eight, after random shares of the CPU time that the whole command takes; then the command to its end.

    Where the machine was slow for the whole command and is not any more, a run ends before it is killed so often: it is
    done again then from the start, and killed sooner.
    """
    words = [f"capture={sphere_folder}", *SMALL]
    started(runner, [*words, f"out={tmp_path / 'whole'}"])
    status, lasts = ended(runner)
    assert status == 0
    out, pick, n_kills = tmp_path / "killed", random.Random(11), 0
    while n_kills < 8 and not (out / "summary.json").exists():
        started(runner, [*words, f"out={out}"], pick.uniform(0.02, 0.8) * lasts)
        status, _ = ended(runner)
        assert status in (KILLED, 0)
        n_kills += status == KILLED
        if status == 0 and n_kills < 4:
            shutil.rmtree(out)
            lasts, n_kills = lasts / 2, 0
    if not (out / "summary.json").exists():
        started(runner, [*words, f"out={out}"])
        assert ended(runner)[0] == 0
    assert files(out) == files(tmp_path / "whole")
    assert [path for path in out.rglob(".*") if path.suffix != ".json"] == []  # nothing half is left


def test_sigterm_ends_the_command_with_143_and_a_checkpoint(
    runner: subprocess.Popen[str], sphere_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    words = [f"capture={sphere_folder}", *SMALL, "fit.steps=400", "fit.checkpoint_every=400", f"out={out}"]
    process = started(runner, words)
    log = out / "log.txt"
    while not (log.exists() and "fit 1/400" in log.read_text()):
        time.sleep(0.02)
    os.kill(process, signal.SIGTERM)
    assert ended(runner)[0] == 143
    assert 0 < load_fit(out / "fit").step < 400
    assert "SIGTERM; the same command goes on from here" in log.read_text()
    assert not (out / "failure.json").exists()
    assert not (out / ".lock").exists()


def test_a_kill_in_a_write_leaves_halves_that_the_next_run_clears(tmp_path: Path) -> None:
    from neuralrecon.train.run_folder import RunFolder

    folder = RunFolder.chosen(tmp_path / "o", "cup", "a: 1\n", overwrite=False)
    folder.open()
    for path in ("fit/fit.safetensors", "fit/fit.previous.safetensors", "mesh.ply", "crops/a.bin", "summary.json"):
        with replacing(tmp_path / "o" / path) as temporary:
            temporary.write_text("half")
            os.link(temporary, temporary.with_name(temporary.name.replace(str(os.getpid()), "4711")))
            (tmp_path / "o" / path).unlink(missing_ok=True)
        (tmp_path / "o" / path).unlink()
    (tmp_path / "o" / ".mine.1.txt").write_text("not the run's")
    replace(folder, goes_on=True).open()
    assert {p.name for p in (tmp_path / "o").rglob("*") if p.is_file()} == {"config.yaml", ".mine.1.txt"}
