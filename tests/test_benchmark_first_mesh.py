"""The benchmark of the first mesh: the README's command is found, and its stages add up."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from benchmarks.first_mesh import copied, main, readme_command, timed

ROOT = Path(__file__).resolve().parent.parent


def test_the_command_is_the_readmes() -> None:
    command = readme_command(ROOT / "README.md")
    assert command.count(" && ") == 2
    assert command in (ROOT / "README.md").read_text().splitlines()


def test_a_readme_without_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("pip install neuralrecon\n")
    with pytest.raises(SystemExit, match="no line"):
        readme_command(tmp_path / "README.md")


def test_the_copy_has_the_program_and_nothing_that_was_made(tmp_path: Path) -> None:
    copy = copied(ROOT, tmp_path / "copy")
    assert (copy / "neuralrecon" / "__init__.py").is_file()
    assert (copy / "constraints.txt").is_file()
    assert not list(copy.rglob("__pycache__"))
    assert not {".venv", "outputs", "data"} & {path.name for path in copy.iterdir()}


# Leaves what a run leaves, at known times.
PROGRAM = """
import json, time
from pathlib import Path
time.sleep(0.4)
out = Path("outputs/demo")
out.mkdir(parents=True)
(out / "mesh.ply").write_text("ply")
time.sleep(0.5)
told = {"seconds": {"capture": 0.1, "fit": 0.2, "labels": 0.5}, "peak_memory_mb": {"capture": 300, "fit": 700}}
(out / "summary.json").write_text(json.dumps({**told, "verdict": {"status": "ok"}}))
"""


def test_stages_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"sleep 0.3 && sleep 0.6 && {shlex.join([sys.executable, '-c', PROGRAM])}"
    file = tmp_path / "figures.json"
    assert main(["--command", command, "--json", str(file), "--keep", str(tmp_path / "copy")]) == 0
    result = json.loads(file.read_text())["result"]
    stages = result["stages"]
    assert list(stages) == ["environment", "install", "start of the program", "simulation", "fit", "labels"]
    assert stages["environment"] >= 0.3
    assert stages["install"] >= 0.6
    assert (stages["simulation"], stages["fit"], stages["labels"]) == (0.1, 0.2, 0.5)
    assert stages["start of the program"] >= 0.1 - 0.01
    assert sum(stages.values()) == pytest.approx(result["total"], abs=0.3)  # what bash itself takes
    assert 0 < result["cpu"] < result["total"]
    assert 0.3 + 0.6 + 0.4 <= result["until_mesh"] <= result["total"] - 0.5 + 0.01
    assert (result["peak_mb"], result["verdict"], result["exit_code"]) == (700, "ok", 0)
    assert "mesh.ply after" in capsys.readouterr().out
    late = ["--command", command, "--json", str(file), "--keep", str(tmp_path / "again"), "--at-most-s", "0.5"]
    assert main(late) == 1


def test_a_command_that_fails_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = timed("true && echo no such package && exit 3", tmp_path)
    assert (result.exit_code, result.until_mesh, result.verdict) == (3, None, None)
    assert set(result.stages) == {"environment", "install", "run"}
    command = ["--command", "true && false && true", "--json", str(tmp_path / "f.json"), "--keep", str(tmp_path / "c")]
    assert main(command) == 1
    assert "no mesh" in capsys.readouterr().err
