"""README, docs and examples stay true: commands compose, names exist, calls fit their signatures, links exist."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import neuralrecon as nr
from neuralrecon.usage import described_keys

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BENCHMARKS = ROOT / "benchmarks"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in _BLOCK.findall(page.read_text()) if name == language]


def prose(page: Path) -> str:
    return _BLOCK.sub("", page.read_text())


def commands(pages: Iterable[Path]) -> Iterator[tuple[str, list[str]]]:
    """(NAME, words) of every `python -m neuralrecon.NAME words` in the pages' code blocks."""
    for body in (body for page in pages for body in blocks(page, "bash")):
        for line in body.splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                module = next((word for word in words if word.startswith("neuralrecon.")), None)
                if module is not None:
                    yield module.partition(".")[2], words[words.index(module) + 1 :]


COMMANDS = [(name, list(words)) for name, words in dict.fromkeys((n, tuple(w)) for n, w in commands(PAGES))]


def composes(name: str, words: list[str]) -> int:
    """The exit status of the command that prints its settings and stops."""
    return import_module(f"neuralrecon.{name}.__main__").cli([*words, "--cfg", "job"])


def test_the_readme_shows_every_command() -> None:
    packages = {p.parent.name for p in (ROOT / "neuralrecon").glob("*/__main__.py")}
    assert {name for name, _ in commands([README])} == packages


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_modules_that_are_run_exist(page: Path) -> None:
    for name in re.findall(r"python -m ((?:neuralrecon|benchmarks)[\w.]*)", page.read_text()):
        assert importlib.util.find_spec(name) is not None, name
        if name.startswith("neuralrecon."):
            assert importlib.util.find_spec(f"{name}.__main__") is not None, name


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=[" ".join([n, *w]) for n, w in COMMANDS])
def test_commands_compose(
    name: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "objects":
        assert import_module("neuralrecon.objects.__main__").cli(words) == 0
        assert capsys.readouterr().out
    else:
        assert composes(name, words) == 0
    assert not list(tmp_path.iterdir())


def test_a_wrong_word_does_not_compose(capsys: pytest.CaptureFixture[str]) -> None:
    """A canary for the test above."""
    assert composes("train", ["fit.stepps=3"]) == 2
    assert composes("train", ["object=demo/bocks"]) == 2
    assert composes("extract", ["run=a", "voxel_mm=fine"]) == 2
    assert "fit.steps" in capsys.readouterr().err


def test_set_up_commands_stand_once_on_lines_of_their_own() -> None:
    lines = README.read_text().splitlines()
    found = [line for line in lines if ".venv" in line]
    assert len(found) == 2
    assert all(line.startswith("python3 -m venv .venv && ") for line in found)
    assert found[0].endswith("-m neuralrecon.train out=outputs/demo")
    assert "-m pytest" in found[1]
    pattern = re.search(r"grep -m 1 -E '([^']+)' README\.md", (ROOT / ".ci" / "run").read_text())
    assert pattern is not None
    assert [line for line in lines if re.search(pattern[1], line)] == [found[1]]
    assert all("-c constraints.txt" in line for line in found)
    assert (ROOT / "constraints.txt").is_file()


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"\.\[([\w,]+)\]", README.read_text())
    assert named
    assert {extra for names in named for extra in names.split(",")} <= set(extras)


def programs() -> list[tuple[str, str]]:
    shown = [(f"{page.name}, block {i}", body) for page in PAGES for i, body in enumerate(blocks(page, "python"))]
    return shown + [(path.name, path.read_text()) for path in EXAMPLES]


def bindings(tree: ast.Module) -> dict[str, object]:
    """What a program imports from this package, by the name it uses."""
    bound: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            bound |= {a.asname or a.name: import_module(a.name) for a in node.names if a.name.startswith("neuralrecon")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("neuralrecon"):
            home = import_module(node.module or "")
            bound |= {a.asname or a.name: getattr(home, a.name) for a in node.names}
    return bound


def resolved(node: ast.expr, bound: dict[str, object]) -> object | None:
    """The object that `nr.a.b` or an imported name stands for, None for what the program made itself.

    Raises:
        AttributeError: the package has no such name.
    """
    if isinstance(node, ast.Name):
        return bound.get(node.id)
    if isinstance(node, ast.Attribute):
        parent = resolved(node.value, bound)
        return None if parent is None else getattr(parent, node.attr)
    return None


def calls_that_do_not_fit(source: str) -> list[str]:
    tree = ast.parse(source)
    bound, wrong = bindings(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            resolved(node, bound)
        if not isinstance(node, ast.Call) or not callable(target := resolved(node.func, bound)):
            continue
        keywords = {k.arg: None for k in node.keywords if k.arg is not None}
        try:
            inspect.signature(target).bind(*node.args, **keywords)
        except TypeError as error:
            wrong.append(f"{ast.unparse(node)}: {error}")
    return wrong


@pytest.mark.parametrize(("where", "source"), programs(), ids=[where for where, _ in programs()])
def test_programs_name_and_call_what_is_there(where: str, source: str) -> None:
    compile(source, where, "exec")
    assert not calls_that_do_not_fit(source)


def test_the_first_program_has_five_lines() -> None:
    assert len(blocks(README, "python")[0].strip().replace("\n\n", "\n").splitlines()) == 5


def test_wrong_calls_are_found() -> None:
    """A canary for the test above."""
    assert calls_that_do_not_fit("import neuralrecon as nr\nnr.FitConfig(stepps=3)")
    assert calls_that_do_not_fit("import neuralrecon as nr\nnr.fit()")
    with pytest.raises(AttributeError):
        calls_that_do_not_fit("import neuralrecon as nr\nnr.fitt(1)")


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_source_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"`((?:neuralrecon|benchmarks|\w+)/[\w/]+\.py)`", prose(page)):
        assert (ROOT / name).is_file() or (ROOT / "neuralrecon" / name).is_file(), name


def test_settings_in_the_method_exist() -> None:
    from neuralrecon.train.run import RunConfig

    settings = {key.rpartition(".")[2] for key, *_ in described_keys(RunConfig, {})}
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", (ROOT / "docs" / "method.md").read_text()))
    assert len(named) > 15
    assert named - {"rig_from_world"} <= settings


def test_the_method_lists_every_loss() -> None:
    page = (ROOT / "docs" / "method.md").read_text()
    weights = {key.rpartition(".")[2] for key, *_ in described_keys(nr.FitConfig, {}) if key.startswith("w_")}
    assert set(re.findall(r"^\| `(w_\w+)` \|", page, re.MULTILINE)) == weights


def test_every_example_is_in_the_readme() -> None:
    linked = {Path(link).name for link in _LINK.findall(README.read_text()) if link.startswith("examples/")}
    assert linked == {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".ipynb")}


def test_every_example_is_on_its_page() -> None:
    page = (ROOT / "docs" / "examples.md").read_text()
    listed = set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))
    assert listed == {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".ipynb")}


def test_the_picture_is_small() -> None:
    path = ROOT / "docs" / "images" / "overview.png"
    assert path.stat().st_size <= 300_000
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width == 3 * picture.height


def test_labels_example_runs(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "03_labels_of_a_mesh.py")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    written = sorted((tmp_path / "outputs" / "examples" / "03").rglob("*.npz"))
    assert f"{len(written)} files in" in done.stdout
    assert all(str(path.relative_to(tmp_path / "outputs" / "examples" / "03")) in done.stdout for path in written)


def test_depth_frames_of_the_example_lie_on_its_object(tmp_path: Path) -> None:
    """Written, read back and cast by the capture's own reader, each reading is within its 16-bit step of the mug."""
    from neuralrecon.capture import camera_of, read_depth
    from neuralrecon.label import Solid
    from neuralrecon.scene.readings import points_of
    from neuralrecon.simulate import builtin_mesh

    example = runpy.run_path(str(ROOT / "examples" / "02_own_depth_frames.py"))
    assert example["write_capture"](tmp_path / "capture") == tmp_path / "capture" / "capture.json"
    capture = nr.read_capture(tmp_path / "capture")
    assert capture.depth_is_masked
    solid = Solid.of(builtin_mesh("mug").mesh)
    for image in capture.images[:: len(capture.images) // 4]:
        camera, pose = camera_of(capture, image), capture.sensor_from_world(image)
        points = points_of(read_depth(capture, image), camera, pose).numpy()
        assert len(points) > 1000
        # half a step of 0.1 mm along the axis, 1 / cos of the corner's angle along the ray, and float32 at 0.5 m
        steepest = float(np.hypot(np.hypot(160, 120) / 400, 1))
        assert solid.closest(points)[0].max() <= 0.5e-4 * steepest + 1e-6


@functools.cache
def pinned() -> set[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {line.partition("==")[0] for line in lines if "==" in line}


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["test"], *extras["docs"]]
    assert {re.split(r"[^\w-]", name)[0] for name in wanted} <= pinned()
