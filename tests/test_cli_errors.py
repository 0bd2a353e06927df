"""What a user mistypes is told in one line with the nearest valid names, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

USAGE = 2


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEURALRECON_DATA", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], command: str, *words: str) -> str:
    """The one line on stderr that a wrong command line gives; nothing else may have happened."""
    status = import_module(f"neuralrecon.{command}.__main__").cli(words)
    out, err = capsys.readouterr()
    assert status == USAGE
    assert err.count("\n") == 1
    assert err.startswith(f"neuralrecon.{command}: ")
    assert "Traceback" not in out + err
    assert not list(Path.cwd().iterdir())
    return err


WRONG = {
    # an unknown setting, with the nearest known one
    "key": (["train", "every_nth_stops=2"], "no setting 'every_nth_stops'; did you mean every_nth_stop?"),
    "nested key": (["train", "simulate.materiel=glass"], "did you mean simulate.material?"),
    "added key": (["train", "+sede=1"], "no setting 'sede'; did you mean seed?"),
    "added again": (["train", "+seed=1"], "without the +"),
    "taken away": (["train", "~seed"], "give it a value"),
    # objects
    "object": (["train", "object=bigbird/cheez-it"], "did you mean bigbird/cheez_it"),
    "object without set": (["train", "object=006_mustard_botle"], "did you mean ycb/006_mustard_bottle?"),
    "object in a sweep": (["train", "-m", "object=demo/box,demo/mgu"], "did you mean demo/mug"),
    "glob": (["train", "-m", "object=glob(*)"], "object=a,b,c"),
    "object not on disk": (["train", "object=ycb/003_cracker_box"], "set data=DIR or NEURALRECON_DATA"),
    "no object": (["train", "object="], "no value"),
    # values
    "number": (["train", "seed=one"], "seed: Value 'one'"),
    "choice": (["train", "simulate.material=plastic"], "expected one of [matte, glossy, mirror, glass]"),
    "format": (["train", "formats=[obj,stp]"], "expected one of [ply, obj, glb, stl]"),
    "range": (["train", "downscale=0"], "downscale 1 or more"),
    "several values": (["train", "seed=1,2"], "add -m"),
    "one folder": (["train", "-m", "seed=1,2", "out=x"], "2 runs would write into x"),
    # words that are no settings
    "no equals sign": (["train", "demo/box"], "written key=value"),
    "unquoted": (["train", "capture=a (b"], "in quotes"),
    "option": (["train", "--multrun"], "did you mean --multirun"),
    "config folder": (["train", "--config-dir", "nowhere"], "nowhere: no such folder"),
    # paths
    "capture": (["train", "capture=captuer/cup"], "captuer/cup: no such folder"),
    "run": (["extract", "run=outputs/nothing"], "run=outputs/nothing: no such folder"),
    "no run": (["extract", "voxel_mm=1"], "run must be given"),
    "mesh file": (["evaluate", "mesh=a.ply", "gt=b.ply"], "mesh=a.ply: no such file"),
    "no truth": (["evaluate", f"mesh={__file__}"], "give gt=FILE"),
    "mesh or run": (["label", "n_points=10"], "give run=DIR or mesh=FILE"),
    "layout": (["label", "mesh=a.ply", "layouts=[ifnet]"], "if_net"),
    "no out": (["simulate", "mesh=box"], "out must be given"),
    "mesh to simulate": (["simulate", "mesh=bxo", "out=x"], "box"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG.keys())
def test_is_told_in_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in told(capsys, *words)


def test_the_data_root_is_in_the_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEURALRECON_DATA", "/elsewhere")
    assert "no folder /elsewhere/bigbird/cheez_it_white_cheddar" in told(capsys, "train", "object=bigbird/cheez_it")


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent), **environment},
        check=False,
    )


def test_as_a_process() -> None:
    done = python("neuralrecon.train", "object=demo/bxo")
    assert done.returncode == USAGE
    assert done.stderr.startswith("neuralrecon.train: no object 'demo/bxo'; did you mean demo/box")
    assert done.stderr.count("\n") == 1
    assert not done.stdout
    assert not list(Path.cwd().iterdir())


def test_traceback_on_request() -> None:
    done = python("neuralrecon.train", "seed=one", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
