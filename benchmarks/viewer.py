"""What a viewer beside a training costs: the same fit without one, with one that nobody watches, and with a visitor.

    python -m benchmarks viewer [CAPTURE] [--set KEY=VALUE ...] [--steps N] [--rounds N] [--visitors light browser]

See README.md here.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError

import numpy as np
import torch

from neuralrecon.capture import Capture, read_capture
from neuralrecon.errors import ConfigError, NeuralReconError
from neuralrecon.scene import Scene
from neuralrecon.train import Fit, FitConfig, fit
from neuralrecon.train.folder_lock import alone_in
from neuralrecon.train.run_folder import FIT_FOLDER, RunFolder
from neuralrecon.train.snapshots import SNAPSHOT_FILE, Snapshots
from neuralrecon.view.beside import viewer_beside

from .fits import Stamps, fit_config, small_capture
from .report import table, write_json
from .timing import installed
from .visitor import BROWSER, LIGHT, chromium

_COLUMNS = ("beside the fit", "seconds", "% longer", "least %", "most %", "snapshots", "same bits")
WITHOUT, UNWATCHED = "nothing", "viewer, no visitor"
_HOST, _PATIENCE_S = "127.0.0.1", 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way of fitting. `longer` are the ratios to the fit without a viewer of the same round, minus one."""

    name: str
    seconds: tuple[float, ...]
    longer: tuple[float, ...]
    n_snapshots: tuple[int, ...]
    same_bits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Seconds from the end of the first step to that of the last, and the model's tensors."""

    seconds: float
    n_snapshots: int
    tensors: dict[str, torch.Tensor]


def main(words: Sequence[str] | None = None) -> int:
    """0, or 1 if a fit with a viewer gave other bits than the one without, or failed; 2 if the words are wrong."""
    args = _parser().parse_args(words)
    visitors = [kind for kind in args.visitors if kind != BROWSER or chromium()]
    for missing in set(args.visitors) - set(visitors):
        print(f"no Chromium here: {missing} is left out", file=sys.stderr)
    names = [WITHOUT, UNWATCHED, *(f"viewer, {kind}" for kind in visitors)]
    try:
        config = replace(fit_config(args.set), steps=args.steps)
        capture = read_capture(args.capture or small_capture())
        scene = Scene.from_capture(capture)
        fits: dict[str, list[Fitted]] = {name: [] for name in names}
        for number in range(args.rounds):
            for name in names if number % 2 == 0 else names[::-1]:  # what changes on the machine favours no one
                fits[name].append(fitted(name, scene, capture, config))
                print(f"round {number + 1}: {name} {fits[name][-1].seconds:.1f} s", file=sys.stderr, flush=True)
    except NeuralReconError as error:
        print(f"benchmarks viewer: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    cases = [compared(name, fits[name], fits[WITHOUT]) for name in names]
    print(table(_COLUMNS, [_row(case) for case in cases]))
    file = args.json or Path("outputs/benchmarks") / f"viewer_{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = {"capture": scene.name, "settings": args.set, "steps": args.steps, "threads": torch.get_num_threads()}
    print(write_json(file, **settings, versions=installed(), cases=cases))
    return int(not all(case.same_bits for case in cases))


def fitted(name: str, scene: Scene, capture: Capture, config: FitConfig) -> Fitted:
    """One fit in a run's folder, with the viewer's process and its visitor up before it begins."""
    port, counted = _free_port(), [0]
    with TemporaryDirectory() as place:
        folder = RunFolder.chosen(Path(place) / "run", "run", "", overwrite=False)
        folder.open()
        folder.write_capture(capture)
        (folder.path / FIT_FOLDER).mkdir()
        with alone_in(folder.path), viewer_beside(name != WITHOUT, _HOST, port) as show:
            show(folder.path)
            if name != WITHOUT:
                _wait_for(port)
            kind = name.removeprefix("viewer, ")
            with _visitor(port, kind) if kind in (LIGHT, BROWSER) else nullcontext():
                stamps, seen = Stamps(), [0.0]

                def on_step(step: int, terms: dict[str, float]) -> None:
                    stamps.note(step, terms)
                    file = folder.path / FIT_FOLDER / SNAPSHOT_FILE
                    if file.exists() and file.stat().st_mtime != seen[0]:
                        seen[0] = file.stat().st_mtime
                        counted[0] += 1

                snapshots = Snapshots(folder=folder.path / FIT_FOLDER)
                result = fit(scene, config, on_step=on_step, snapshots=snapshots)
    return Fitted(
        seconds=stamps.seconds(range(1, config.steps)),
        n_snapshots=counted[0],
        tensors=_tensors(result),
    )


def compared(name: str, ours: Sequence[Fitted], without: Sequence[Fitted]) -> Case:
    """Round by round against the fit without a viewer."""
    same = all(
        one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(tensor, other.tensors[key]) for key, tensor in one.tensors.items())
        for one, other in zip(ours, without, strict=True)
    )
    return Case(
        name=name,
        seconds=tuple(round(one.seconds, 2) for one in ours),
        longer=tuple(round(a.seconds / b.seconds - 1, 4) for a, b in zip(ours, without, strict=True)),
        n_snapshots=tuple(one.n_snapshots for one in ours),
        same_bits=same,
    )


def _tensors(result: Fit) -> dict[str, torch.Tensor]:
    return {
        **result.model.state_dict(),
        "occupancy.sdf": result.occupancy.sdf,
        "occupancy.cells": result.occupancy.cells,
    }


@contextmanager
def _visitor(port: int, kind: str) -> Iterator[None]:
    words = [sys.executable, "-m", "benchmarks.visitor", f"http://{_HOST}:{port}", kind]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline().strip() != "there":
                raise ConfigError(f"the visitor '{kind}' did not come; is the extra 'test' installed?")
            yield
        finally:
            process.stdin.close()
            process.wait()


def _wait_for(port: int) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"http://{_HOST}:{port}", timeout=10):
                return
        except (URLError, OSError):
            if time.monotonic() > until:
                raise ConfigError(f"the viewer at port {port} did not come up in {_PATIENCE_S:.0f} s") from None
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return probe.getsockname()[1]


def _row(case: Case) -> list[object]:
    longer = 100 * np.array(case.longer)
    shown = [f"{value:+.1f}" for value in (np.median(longer), longer.min(), longer.max())]
    counts = "-" if case.name == WITHOUT else "/".join(str(n) for n in case.n_snapshots)
    return [case.name, f"{np.median(case.seconds):.1f}", *shown, counts, case.same_bits]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks viewer", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("capture", nargs="?", type=Path, metavar="CAPTURE", help="a small simulated one by default")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="setting of the fit")
    parser.add_argument("--steps", type=int, default=150, help="of each fit (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of one fit of each kind (%(default)s)")
    parser.add_argument("--visitors", nargs="*", choices=[LIGHT, BROWSER], default=[LIGHT, BROWSER])
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser
