"""Every fenced block of README and docs runs on small captures, or is in a list here with the reason why it does not.

Programs and commands run in this process, in a folder of their own that has what they name (`tiny_programs`). What is
only composed is read by the very parser of its command; see test_docs.py for what is asked of all of them.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import SMALL, environment
from test_cli_calibrate import made_up
from tiny_programs import laid_out, make_desk, make_programs_small, small_words

import neuralrecon as nr
from neuralrecon.calibrate import stage as calibrate_stage

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
_FENCE = re.compile(r"^ *(```+|~~~+)(.*)$", re.MULTILINE)
_BLOCK = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
KINDS = {"bash", "python", "json", "text"}

# Lines that are composed (settings resolved, nothing run), and why. Each pattern is needed: a test sees to it.
COMPOSED = {
    r"^python3 -m venv .*\[test\]": "makes an environment: .ci/run runs this very line",
    r"^python3 -m venv .*neuralrecon\.train": "makes an environment: benchmarks first_mesh runs this very line",
    r"^source ": "changes the shell",
    r"^pip install": "asks a package index",
    r"neuralrecon\.download ": "asks servers; test_download_faults.py has some of its own",
    r"neuralrecon\.(train|sweep run) .*object=(ycb|bigbird)/": "needs a data set",
    r"capture=data/photos_of_a_mug": "photographs without calibration take a minute; test_calibrate_photos.py",
    r"masks=refined": "needs larger pictures than these; test_segment_masks.py",
    r"formats=\[urdf": "convex parts take long; test_export_bodies.py",
    r"formats=\[nerfstudio\]": "names sensors of a whole rig; test_export_photographs.py",
    r"neuralrecon\.view ": "serves until it is stopped; test_view.py",
    r"engine=ray": "needs Ray, and a cluster; test_sweep.py",
    r"neuralrecon\.train -m ": "several whole runs; test_sweep.py",
    r"neuralrecon\.sweep (run captures=\[data/mine/cup,data/mine/mug\] out=outputs/mine$|status)": (
        "processes of their own; example 06 runs such a sweep, test_sweep.py the rest"
    ),
}


def blocks() -> list[tuple[str, str, str]]:
    """(where, kind, body) of every fenced block."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append((f"{page.relative_to(ROOT).as_posix()}:{line}", match[2].strip(), match[3]))
    return found


def of_kind(kind: str) -> list[Any]:
    return [pytest.param(body, id=where) for where, found, body in blocks() if found == kind]


def lines() -> list[str]:
    """Every command of the bash blocks once, without comments."""
    found: dict[str, None] = {}
    for _, kind, body in blocks():
        if kind == "bash":
            for line in body.splitlines():
                text = re.sub(r"(^|\s+)#.*", "", line)
                found |= {text: None} if text else {}
    return list(found)


def why_composed(line: str) -> str | None:
    return next((reason for pattern, reason in COMPOSED.items() if re.search(pattern, line)), None)


def test_every_block_is_of_a_known_kind() -> None:
    assert {kind for _, kind, _ in blocks()} == KINDS
    for page in PAGES:
        text = page.read_text()
        n_fences = len(_FENCE.findall(text))
        assert n_fences == 2 * len(_BLOCK.findall(text)), f"{page}: a fence is not closed, or not of three backticks"


def test_every_reason_is_needed() -> None:
    for pattern in COMPOSED:
        assert any(re.search(pattern, line) for line in lines()), pattern


def lines_to_run() -> list[str]:
    """Those that are not only composed; of lines that differ in sizes alone, which are made small, the first."""
    found: dict[object, str] = {}
    for line in lines():
        if why_composed(line) is None:
            found.setdefault(_what_it_does(line), line)
    return list(found.values())


def _what_it_does(line: str) -> object:
    if line.startswith("python examples/"):
        return line
    name, words = command_of(line)
    return name, frozenset(word for word in small_words(name, words) if not word.startswith("out="))


def test_most_commands_are_run() -> None:
    """Of each command at least one line is run, but for those that ask servers or start many processes."""
    run = {command_of(line)[0] for line in lines() if why_composed(line) is None and "neuralrecon." in line}
    assert run == {p.parent.name for p in (ROOT / "neuralrecon").glob("*/__main__.py")} - {"download", "sweep", "view"}


def command_of(line: str) -> tuple[str, list[str]]:
    """(NAME, words) of `python -m neuralrecon.NAME words`.

    Raises:
        ValueError: it is nothing that this test knows.
    """
    words = shlex.split(line)
    if words[:2] == ["python", "-m"] and words[2].startswith("neuralrecon."):
        return words[2].partition(".")[2], words[3:]
    raise ValueError(f"{line}: neither a command of the library nor in the list of what is only composed")


def test_an_unknown_command_is_told() -> None:
    """A canary for the tests below."""
    with pytest.raises(ValueError, match="neither"):
        command_of("curl somewhere")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, sphere_folder: Path) -> Path:
    return make_desk(tmp_path_factory.mktemp("desk"), sphere_folder)


@pytest.fixture
def here(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a command or program: the desk's things, and a stand-in for bundle adjustment."""
    monkeypatch.setattr(calibrate_stage, "refine", lambda capture, config, folder: made_up(capture))
    monkeypatch.chdir(laid_out(desk, tmp_path / "here"))
    return Path.cwd()


@pytest.mark.parametrize("line", lines_to_run(), ids=str)
def test_commands_run(line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if line.startswith("python examples/"):
        assert ROOT / line.split()[1] in EXAMPLES, "test_examples_run runs it"
        return
    name, words = command_of(line)
    out = next((here / w.partition("=")[2] for w in words if w.startswith("out=")), None)
    if out is not None:
        shutil.rmtree(out, ignore_errors=True)
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    assert import_module(f"neuralrecon.{name}.__main__").cli(small_words(name, words)) == 0
    new = [path for path in here.rglob("*") if path.is_file() and before.get(path) != path.stat().st_mtime_ns]
    if name in ("objects", "evaluate"):
        assert capsys.readouterr().out
        assert not new
    elif name == "label":
        assert any(path.suffix == ".npz" for path in (here / "outputs").rglob("labels*/**/*") if path.is_file()) or new
    else:
        assert new
    if name == "train":
        written = [path for path in new if path.name == "summary.json"]
        assert [json.loads(path.read_text())["verdict"]["status"] in ("ok", "poor") for path in written] == [True]


def test_sizes_alone_are_replaced() -> None:
    said = small_words("train", ["capture=x", "fit.steps=4000", "surface=clear", "masks=refined", "out=y"])
    assert {"capture=x", "surface=clear", "masks=refined", "out=y", "fit.steps=12"} <= set(said)
    assert not {"fit.steps=4000", "surface=matte", "masks=given"} & set(said)
    assert set(small_words("extract", ["run=a", "voxel_mm=0.5"])) == {"run=a", "voxel_mm=6"}
    with pytest.raises(ValueError, match="SMALL_WORDS"):
        small_words("paint", ["run=a"])


@pytest.mark.parametrize("body", of_kind("python"))
def test_programs_run(body: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_programs_small(monkeypatch)
    exec(compile(body, "block", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("body", of_kind("json"))
def test_json_of_captures_is_read(body: str, tmp_path: Path) -> None:
    """The capture that it describes, with made-up files of the sizes that it says, is read whole."""
    told = json.loads(body)
    sizes = {s["name"]: (s["height"], s["width"]) for s in told["sensors"]}
    kinds = {s["name"]: s["kind"] for s in told["sensors"]}
    for image in told["images"]:
        for key in {"path", "mask"} & set(image):
            path = tmp_path / image[key]
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = np.uint16 if kinds[image["sensor"]] == "depth" else np.uint8
            Image.fromarray(np.full(sizes[image["sensor"]], 200, kind)).save(path)
    (tmp_path / "capture.json").write_text(body)
    capture = nr.read_capture(tmp_path)
    assert len(capture.images) == len(told["images"])
    assert not capture.left_out
    for image in capture.images:  # the world's origin, on the table, lies before each camera and in its picture
        seen = capture.sensor_from_world(image).translation
        assert 0.1 < seen[2] < 2
        camera = capture.sensor(image.sensor).camera
        u, v = camera.project(seen[None])[0].tolist()
        assert 0 < u < camera.width
        assert 0 < v < camera.height


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_programs_small(monkeypatch)
    monkeypatch.setattr(calibrate_stage, "refine", lambda capture, config, folder: made_up(capture))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    if path.name.startswith("06"):
        example = runpy.run_path(str(path))
        example["SETTINGS"][:] = SMALL  # its processes do not see what is patched here
        example["main"]()
    else:
        runpy.run_path(str(path), run_name="__main__")
    told = capsys.readouterr().out
    assert told
    assert "outputs/examples" in told or path.name.startswith("07")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_say_what_they_do(path: Path) -> None:
    """The docstring has the command, and the examples are numbered without a gap."""
    assert f"python examples/{path.name}" in path.read_text().split('"""')[1]
    assert [int(p.name[:2]) for p in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))


def test_the_notebook_runs(tmp_path: Path) -> None:
    """As it is, in a kernel of its own; it has no outputs in the repository, and every picture is one."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "examples" / "tour.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment())
    told = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in told) == 5
    assert "closed: True" in "".join(output.get("text", "") for output in told)
    assert not [output for output in told if output.output_type == "error"]
