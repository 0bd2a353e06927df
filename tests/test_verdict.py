"""Verdicts by stated thresholds, their figures in closed form, and one run at a time in a folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from small_runs import python

from neuralrecon.capture import read_capture
from neuralrecon.errors import CaptureError, ConfigError, MachineError
from neuralrecon.evaluate import depth_residual_mm
from neuralrecon.scene import Scene, SceneConfig
from neuralrecon.train.folder_lock import LOCK_FILE, alone_in, holder_of, is_locked
from neuralrecon.train.run_folder import RunFolder, Stages, held
from neuralrecon.train.verdict import Figures, Status, VerdictConfig, judged, observed_share

GOOD = Figures(silhouette_iou=0.9, psnr_db=16.0, depth_residual_mm=2.0, is_closed=True, n_bodies=1, observed_share=0.5)
NAN = float("nan")


def test_at_the_thresholds_all_is_well() -> None:
    found = judged(GOOD, VerdictConfig())
    assert (found.status, found.reasons, found.figures) == (Status.ok, (), GOOD)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"silhouette_iou": 0.8994}, "silhouette IoU 0.899, want 0.9 or more"),
        ({"silhouette_iou": NAN}, "silhouette IoU nan, want 0.9 or more"),
        ({"psnr_db": 15.9}, "held-out PSNR in dB 15.9, want 16 or more"),
        ({"depth_residual_mm": 2.01}, "depth residual 2.01 mm, want 2 or less"),
        ({"depth_residual_mm": NAN}, "depth residual nan mm, want 2 or less"),
        ({"observed_share": 0.49}, "share of the surface observed 0.490, want 0.5 or more"),
        ({"is_closed": False, "n_bodies": 2}, "the mesh is not closed"),
        ({"n_bodies": 2}, "the mesh is of 2 bodies"),
    ],
)
def test_each_missed_threshold_is_a_reason(change: dict[str, float], reason: str) -> None:
    found = judged(replace(GOOD, **change), VerdictConfig())
    assert (found.status, found.reasons) == (Status.poor, (reason,))


def test_what_was_not_measured_is_not_judged() -> None:
    unknown = replace(GOOD, silhouette_iou=None, psnr_db=None, depth_residual_mm=None, observed_share=None)
    assert judged(unknown, VerdictConfig()).status == Status.ok
    several = replace(GOOD, silhouette_iou=0.1, is_closed=False)
    assert len(judged(several, VerdictConfig()).reasons) == 2
    assert len(judged(several, VerdictConfig(must_be_closed=False, least_silhouette_iou=0.1)).reasons) == 0
    with pytest.raises(ConfigError, match="shares: 0 to 1"):
        VerdictConfig(least_silhouette_iou=90)


def test_the_observed_share_is_of_the_area() -> None:
    """A box of 1 x 1 x 3: with evidence at the four vertices of its top, that counts whole and each side by half."""
    box = trimesh.creation.box((1.0, 1.0, 3.0))
    top = np.asarray(box.vertices)[:, 2] > 0
    # of each side's two triangles one has two vertices on top and one has one
    assert observed_share(box, top) == pytest.approx((1 + 12 * (2 / 3 + 1 / 3) / 2) / 14)
    assert observed_share(box, np.ones(8, bool)) == pytest.approx(1.0)


def test_the_depth_residual_is_how_far_off_the_mesh_is(sphere_folder: Path) -> None:
    """Balls about the true middle: growing one by 4 mm moves the median of the distances by as much."""
    capture = read_capture(sphere_folder).restricted(sensors=["N1", "N3", "NP3", "NP3_depth"])
    scene = Scene.from_capture(capture, SceneConfig(hull_resolution=32))

    def residual(radius: float) -> float:
        ball = trimesh.creation.icosphere(subdivisions=4, radius=radius)
        ball.apply_translation((0.006, -0.004, 0.05))
        return depth_residual_mm(scene, ball)

    assert residual(0.05) < 1.0  # quantised to 1 mm and noisy
    # readings on the table's side or off the ball count too, so that it is no exact shift
    assert residual(0.058) == pytest.approx(8.0, abs=residual(0.05) + 0.5)
    assert residual(0.042) == pytest.approx(8.0, abs=residual(0.05) + 0.5)
    assert depth_residual_mm(replace(scene, readings=None), trimesh.creation.icosphere()) is None


# ------------------------------------------------------------------------------------------------------------ the lock

HOLDS = """
import fcntl, json, os, sys
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(handle, fcntl.LOCK_EX)
os.write(handle, json.dumps({"pid": os.getpid(), "host": "the-host", "since": "yesterday"}).encode())
print("holds", flush=True)
sys.stdin.read()
"""


def test_another_run_is_named_and_a_killed_one_is_no_block(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By a process that knows the file's format only."""
    with subprocess.Popen(
        python("-c", HOLDS, str(tmp_path / LOCK_FILE)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "holds\n"
        assert is_locked(tmp_path)
        told = f"another run is at work there (process {other.pid} on the-host, since yesterday); wait for it"
        with pytest.raises(ConfigError) as raised, alone_in(tmp_path, patience_s=0.2):
            raise AssertionError
        assert told in str(raised.value)
        other.kill()
    assert (tmp_path / LOCK_FILE).exists()
    assert not is_locked(tmp_path)
    with caplog.at_level("INFO"), alone_in(tmp_path, patience_s=0):
        assert f"taking over from process {other.pid} on the-host" in caplog.text
        holder = holder_of(tmp_path)
        assert (holder.pid, holder.host) == (os.getpid(), socket.gethostname())
    assert not (tmp_path / LOCK_FILE).exists()


def test_who_waits_gets_the_lock_and_not_a_file_that_is_gone(tmp_path: Path) -> None:
    """The one that waits has the old file open when its holder removes it."""
    entered: list[bool] = []

    def wait() -> None:
        with alone_in(tmp_path, patience_s=10):
            entered.append(is_locked(tmp_path))

    waiting = threading.Thread(target=wait)
    with alone_in(tmp_path, patience_s=0):
        waiting.start()
        waiting.join(0.5)
        assert entered == []
    waiting.join()
    assert entered == [True]


def test_without_locks_of_the_system_a_run_goes_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none_here(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none_here)
    with alone_in(tmp_path, patience_s=0):
        assert "no locks on this file system" in caplog.text


def test_two_runs_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is told before it touches anything; once the first is done, that a finished run is there."""
    monkeypatch.setattr("neuralrecon.train.folder_lock.PATIENCE_S", 0.0)
    first, second = (RunFolder.chosen(tmp_path / "o", "cup", "a: 1\n", overwrite=False) for _ in range(2))
    logs: list[Path] = []
    with held(first, Stages(), logs.append) as open_first:
        opened = open_first()
        (tmp_path / "o" / "mesh.ply").write_text("the first one's")
        with (
            pytest.raises(ConfigError, match="another run is at work"),
            held(second, Stages(), logs.append) as open_second,
        ):
            open_second()
        assert (tmp_path / "o" / "mesh.ply").read_text() == "the first one's"
        opened.finish({})
    with pytest.raises(ConfigError, match="a finished run"), held(second, Stages(), logs.append) as open_second:
        open_second()
    assert logs == [tmp_path / "o" / "log.txt"]


# ------------------------------------------------------------------------------------------------------------ failures


def failed(folder: RunFolder, error: Exception, *, opens: bool) -> None:
    """A run that fails as it reads its capture, before or after it has opened its folder."""
    stages = Stages()

    def run() -> None:
        with held(folder, stages, lambda _: None) as open_folder:
            if opens:
                open_folder()
            with stages.timed("capture"):
                raise error

    with pytest.raises(type(error)):
        run()


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize(
    ("error", "lies_in_input"),
    [
        (CaptureError("a.png: cut off"), True),
        (OSError(28, "No space left"), False),
        (MachineError("ran out of memory"), False),
    ],
)
def test_why_a_run_failed_is_in_its_folder(tmp_path: Path, error: Exception, lies_in_input: bool, opens: bool) -> None:
    failed(RunFolder.chosen(tmp_path / "o", "cup", "a: 1\n", overwrite=False), error, opens=opens)
    told = json.loads((tmp_path / "o" / "failure.json").read_text())
    assert (told["status"], told["stage"], told["error"]) == ("failed", "capture", type(error).__name__)
    assert (told["message"], told["lies_in_input"]) == (str(error), lies_in_input)
    again = RunFolder.chosen(tmp_path / "o", "cup", "a: 1\n", overwrite=False)
    assert again.goes_on
    again.open()
    assert not (tmp_path / "o" / "failure.json").exists()


def test_a_wrong_command_leaves_nothing_and_a_finished_run_stays(tmp_path: Path) -> None:
    failed(RunFolder.chosen(tmp_path / "o", "cup", "", overwrite=False), ConfigError("no such object"), opens=False)
    assert not (tmp_path / "o").exists()
    done = RunFolder.chosen(tmp_path / "o", "cup", "", overwrite=False)
    done.open()
    done.finish({"name": "cup"})
    before = {p.name: p.read_bytes() for p in (tmp_path / "o").iterdir()}
    failed(RunFolder.chosen(tmp_path / "o", "cup", "", overwrite=True), CaptureError("a.png: cut off"), opens=False)
    assert {p.name: p.read_bytes() for p in (tmp_path / "o").iterdir()} == before
