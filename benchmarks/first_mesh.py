"""From nothing to the demo's mesh: the README's first command in a copy of the checkout, timed by its stages.

    python -m benchmarks first_mesh [--at-most-s 300] [--keep DIR] [--json FILE]

The copy has no environment, no data and no compiled loops. `pip` may take what it has downloaded before: say
`--no-pip-cache` for a machine that never had it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from neuralrecon.train.run_folder import MESH_FILE, SUMMARY_FILE

from .report import table, write_json

_ROOT = Path(__file__).resolve().parent.parent
_OUT = Path("outputs") / "demo"
_PARTS = ("environment", "install", "run")  # of the command, between its &&
_OWN = ("PYTHONPATH", "VIRTUAL_ENV", "NUMBA_CACHE_DIR", "NEURALRECON_DATA")  # of this process, none of a new user
_TRACE = re.compile(r"^\++@(\d+\.\d+) ", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstMesh:
    """Seconds by stage, in their order; `until_mesh` from the start until mesh.ply is there, `total` to the end.

    `cpu` are the seconds of all cores together: where other programs run, it says more than the clock does.
    """

    exit_code: int
    stages: dict[str, float]
    until_mesh: float | None
    total: float
    cpu: float
    peak_mb: float | None
    verdict: str | None


def main(words: Sequence[str] | None = None) -> int:
    """0 if there is a mesh within the time."""
    args = _parser().parse_args(words)
    command = args.command or readme_command(_ROOT / "README.md")
    print(command)
    with TemporaryDirectory() as temporary:
        folder = copied(_ROOT, args.keep or Path(temporary) / "checkout")
        result = timed(command, folder, pip_cache=not args.no_pip_cache)
        print(table(["stage", "s"], [[name, f"{seconds:.1f}"] for name, seconds in result.stages.items()]))
        if result.until_mesh is None:
            print(f"no mesh; the command said:\n{(folder / 'first_mesh.log').read_text()[-2000:]}", file=sys.stderr)
        else:
            print(f"{MESH_FILE} after {result.until_mesh:.1f} s, all after {result.total:.1f} s; {result.verdict}")
            print(f"{result.cpu:.1f} s of processor time, {result.peak_mb:.0f} MB at most")
    print(write_json(args.json, command=command, result=result))
    return int(result.exit_code != 0 or result.until_mesh is None or result.until_mesh > args.at_most_s)


def readme_command(readme: Path) -> str:
    """The first line of the README that makes an environment and ends in a mesh.

    Example:
        >>> readme_command(Path("README.md")).endswith("out=outputs/demo")
        True
    """
    line = re.compile(r"^python3 -m venv \.venv && .* -m neuralrecon\.train out=outputs/demo$", re.MULTILINE)
    found = line.search(readme.read_text())
    if found is None:
        raise SystemExit(f"first_mesh: {readme} has no line that starts with python3 -m venv and makes the demo")
    return found[0]


def copied(root: Path, folder: Path) -> Path:
    """The checkout's files as git knows them, with what is not committed yet and without what is ignored."""
    listed = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    return folder


def timed(command: str, folder: Path, *, pip_cache: bool = True) -> FirstMesh:
    """Run a command of three parts joined by && in a folder, with its output in `first_mesh.log` there."""
    environment = {key: value for key, value in os.environ.items() if key not in _OWN}
    environment |= {"LC_ALL": "C"} | ({} if pip_cache else {"PIP_NO_CACHE_DIR": "1"})
    log, started, used = folder / "first_mesh.log", time.time(), _cpu_seconds()
    with log.open("w") as stream:
        # said inside, since bash takes no PS4 from the environment of root
        words = ["bash", "-c", f"PS4='+@$EPOCHREALTIME '; set -x\n{command}"]
        done = subprocess.run(words, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT, check=False)
    total = time.time() - started
    at = [float(stamp) for stamp in _TRACE.findall(log.read_text())]
    lasted = [after - before for before, after in pairwise([*at, started + total])]
    stages, summary = dict(zip(_PARTS, lasted, strict=False)), _summary(folder)
    if summary is not None and "run" in stages:
        run = stages.pop("run")
        own = {"simulation" if name == "capture" else name: float(s) for name, s in summary["seconds"].items()}
        stages |= {"start of the program": run - sum(own.values())} | own
    mesh = folder / _OUT / MESH_FILE
    return FirstMesh(
        exit_code=done.returncode,
        stages={name: round(seconds, 2) for name, seconds in stages.items()},
        until_mesh=round(mesh.stat().st_mtime - started, 2) if mesh.exists() else None,
        total=round(total, 2),
        cpu=round(_cpu_seconds() - used, 2),
        peak_mb=None if summary is None else max(summary["peak_memory_mb"].values()),
        verdict=None if summary is None else summary["verdict"]["status"],
    )


def _cpu_seconds() -> float:
    """Of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _summary(folder: Path) -> dict[str, Any] | None:
    file = folder / _OUT / SUMMARY_FILE
    return json.loads(file.read_text()) if file.exists() else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks first_mesh", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--at-most-s", type=float, default=300.0, help="exit code 1 if the mesh takes longer")
    parser.add_argument("--command", help="in place of the README's, also of three parts joined by &&")
    parser.add_argument("--keep", type=Path, help="a new folder for the copy, which then stays")
    parser.add_argument("--no-pip-cache", action="store_true", help="download everything")
    parser.add_argument("--json", type=Path, default=Path("outputs/benchmarks/first_mesh.json"))
    return parser
