"""The packages import only those above them, and `import neuralrecon` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "neuralrecon"

# In the order that data flows (docs: design). A package may import itself and what stands before it.
ORDER = [
    "errors", "files", "usage", "objects", "download", "geometry", "ops", "capture", "simulate", "calibrate", "segment",
    "scene", "fields", "render", "train", "extract", "label", "evaluate", "texture", "export", "view", "report",
    "sweep", "config",
]  # fmt: skip
# The wiring of the whole chain may import every stage; command lines import everything.
WIRING = {"train/run.py", "train/run_config.py", "train/summary.py"}
HYDRA = {"hydra", "omegaconf"}
KERNELS = {"numba", "triton", "nerfacc"}
HEAVY = {*HYDRA, *KERNELS, "coacd", "pxr", "pycolmap", "cv2", "skimage", "trimesh", "h5py", "PIL", "igl"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Absolute names of all that a module imports, wherever in the file, `neuralrecon.x.y` for its own package."""
    names: set[str] = set()
    here = ["neuralrecon", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            source = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return names


def part(name: str) -> str:
    """The top-level part of the package that an absolute name lies in, "" for the package itself or another library."""
    words = name.split(".")
    return words[1] if words[0] == "neuralrecon" and len(words) > 1 and words[1] in ORDER else ""


def test_the_parser_sees_relative_imports() -> None:
    """A canary: without it, a broken `imported` would pass everything."""
    assert "neuralrecon.errors.CaptureError" in imported(PACKAGE / "capture" / "types.py")
    assert part("neuralrecon.errors.CaptureError") == "errors"


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_package_imports_only_those_above_it(path: Path) -> None:
    where = path.relative_to(PACKAGE)
    own = where.parts[0].removesuffix(".py")
    if path.name == "__main__.py" or where.as_posix() in WIRING or own == "__init__":
        return
    assert own in ORDER, f"{own} has no place in the order of the packages: give it one"
    below = {name for name in imported(path) if part(name) and ORDER.index(part(name)) > ORDER.index(own)}
    assert not below


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_the_command_line_knows_hydra(path: Path) -> None:
    if path.name == "__main__.py" or path == PACKAGE / "config.py":
        return
    names = imported(path)
    assert not {name for name in names if name.split(".")[0] in HYDRA}
    assert not {name for name in names if part(name) == "config"}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_import_pulls_in_no_heavy_library() -> None:
    code = "import sys, torch; had = set(sys.modules); import neuralrecon; print(*set(sys.modules) - had)"
    assert not HEAVY & set(python(code).split())


def test_import_costs_little_more_than_torch() -> None:
    """At most 0.3 s of wall clock after torch is there; the quickest of three, since the machine may be busy."""
    code = "import time, torch; start = time.perf_counter(); import neuralrecon; print(time.perf_counter() - start)"
    assert min(float(python(code)) for _ in range(3)) <= 0.3
