"""Training steps: samples a second by backend, in the late phase of a fit and over all of it, and where time goes.

    python -m benchmarks step [CAPTURE] [--set field.levels=14 ...] [--steps N] [--gate BASELINE.json]

See README.md here.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from neuralrecon.capture import read_capture
from neuralrecon.errors import ConfigError, NeuralReconError
from neuralrecon.ops import Backend, use_backend
from neuralrecon.scene import Scene
from neuralrecon.train import FitConfig, fit

from .fits import Stamps, fit_config, samples_of, small_capture
from .gate import add_arguments, baseline_of, judged
from .parts import PARTS, timed_parts
from .report import table, write_json
from .timing import installed

_COLUMNS = (
    "model", "backend", "samples/step", "late M/s", "± %", "x torch", "last half M/s", "whole M/s", "first step s"
)  # fmt: skip
_WINDOW = 20  # steps between two refreshes of the occupancy, so that there is one refresh in it
_BACKENDS = (Backend.torch, Backend.auto)
_LARGE = ("field.levels=14", "field.log2_table_size=18", "field.finest_resolution=1024")


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """A backend in a fit's last steps: samples per second (median over the rounds) and half its range, as a share."""

    samples_per_s: float
    spread: float
    speedup: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One model. `last_half_per_s` and `whole_per_s` are of one fit from its second step on, by the backend `auto`."""

    name: str
    steps: int
    samples_per_step: float
    first_step_s: float
    last_half_per_s: float
    whole_per_s: float
    late: dict[str, Late]
    parts_ms: dict[str, float]


def main(words: Sequence[str] | None = None) -> int:
    """0, or 1 if the gate is closed or a fit fails; 2 if the words are wrong."""
    args = _parser().parse_args(words)
    try:
        baseline = baseline_of(args.gate, args.tolerance) if args.gate else None
        configs = _configs(args.set, args.steps)
        scene = Scene.from_capture(read_capture(args.capture or small_capture()))
        results = []
        for name, config in configs.items():
            print(f"{name} …", file=sys.stderr)
            results.append(measured(name, scene, config, args.rounds))
    except NeuralReconError as error:
        print(f"benchmarks step: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    ratios = {f"step | {r.name} | {b}": late.speedup for r in results for b, late in r.late.items() if b != "torch"}
    print(table(_COLUMNS, [row for r in results for row in _rows(r)]))
    print("\nms a step, indented parts within those above them")
    print(table(["part", *(r.name for r in results)], [_part_row(p, results) for p in PARTS]))
    file = args.json or Path("outputs/benchmarks") / f"step_{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = {"capture": scene.name, "settings": args.set, "steps": args.steps, "threads": torch.get_num_threads()}
    print(write_json(file, **settings, versions=installed(), ratios=ratios, results=results))
    return 0 if baseline is None else judged(baseline, ratios, args.tolerance)


def measured(name: str, scene: Scene, config: FitConfig, rounds: int) -> Result:
    """A whole fit, then its last steps again from a checkpoint, by each backend in turns: the same rays every time."""
    kept = _window(config)[0] - 1
    config = replace(config, checkpoint_every=kept)
    with TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        stamps = _whole(scene, config, folder)
        samples = samples_of(folder / "fit")
        rates: dict[str, list[float]] = {backend: [] for backend in _BACKENDS}
        for _ in range(rounds):
            for backend in _BACKENDS:
                rates[backend].append(_late_rate(scene, config, folder, backend))
        parts = _parts(scene, config, folder)
    # the step after the checkpoint has the writing of it in its time
    steps = [s for s in range(1, config.steps) if s != kept]
    half = [s for s in steps if s >= config.steps // 2]
    return Result(
        name=name,
        steps=config.steps,
        samples_per_step=round(sum(samples[s] for s in half) / len(half)),
        first_step_s=round(stamps.until_first_s, 2),
        last_half_per_s=round(sum(samples[s] for s in half) / stamps.seconds(half)),
        whole_per_s=round(sum(samples[s] for s in steps) / stamps.seconds(steps)),
        late={backend: _summed_up(rates[backend], rates[Backend.torch]) for backend in _BACKENDS},
        parts_ms=parts,
    )


def _whole(scene: Scene, config: FitConfig, folder: Path) -> Stamps:
    """One fit; its last checkpoint is kept beside it."""
    stamps = Stamps()

    def on_step(step: int, terms: dict[str, float]) -> None:
        if step == config.checkpoint_every:  # the one that was just written
            shutil.copytree(folder / "fit", folder / "late")
        stamps.note(step, terms)

    (folder / "fit").mkdir()
    fit(scene, config, folder=folder / "fit", on_step=on_step)
    return stamps


def _again(
    scene: Scene,
    config: FitConfig,
    folder: Path,
    backend: Backend,
    after_step: Callable[[int], object] = lambda step: None,
) -> Stamps:
    """From the kept checkpoint to the end. The first step, which is not in the window, warms up."""
    shutil.rmtree(folder / "again", ignore_errors=True)
    shutil.copytree(folder / "late", folder / "again")
    stamps = Stamps()

    def on_step(step: int, terms: dict[str, float]) -> None:
        stamps.note(step, terms)
        after_step(step)

    with use_backend(backend):
        fit(scene, config, folder=folder / "again", on_step=on_step)
    return stamps


def _late_rate(scene: Scene, config: FitConfig, folder: Path, backend: Backend) -> float:
    """Samples per second of the last steps."""
    stamps, steps = _again(scene, config, folder, backend), _window(config)
    samples = samples_of(folder / "again")
    return sum(samples[s] for s in steps) / stamps.seconds(steps)


def _parts(scene: Scene, config: FitConfig, folder: Path) -> dict[str, float]:
    """Milliseconds of a step in the last steps, by part."""
    steps, until = _window(config), dict[int, dict[str, float]]()
    with timed_parts() as seconds:
        stamps = _again(scene, config, folder, Backend.auto, lambda step: until.__setitem__(step, dict(seconds)))
    ms = {part: 1e3 / _WINDOW * (s - until[steps[0] - 1][part]) for part, s in until[steps[-1]].items()}
    outermost = sum(value for part, value in ms.items() if not part.startswith(" "))
    ms["rest"] = 1e3 / _WINDOW * stamps.seconds(steps) - outermost
    return {part: round(value, 2) for part, value in ms.items()}


def _window(config: FitConfig) -> range:
    return range(config.steps - _WINDOW, config.steps)


def _summed_up(rates: list[float], reference: list[float]) -> Late:
    middle = float(np.median(rates))
    return Late(
        samples_per_s=round(middle),
        spread=round((max(rates) - min(rates)) / 2 / middle, 3),
        speedup=round(float(np.median(np.array(rates) / reference)), 3),
    )


def _configs(settings: Sequence[str], steps: int) -> dict[str, FitConfig]:
    """The settings' model, or without any the default's and the large one."""
    if settings:
        wanted = {" ".join(settings): fit_config(settings)}
    else:
        wanted = {"12 x 2^17": FitConfig(), "14 x 2^18": fit_config(_LARGE)}
    return {name: replace(config, steps=steps) for name, config in wanted.items()}


def _rows(r: Result) -> list[list[object]]:
    rows: list[list[object]] = []
    for backend, late in r.late.items():
        whole: list[object] = [f"{r.last_half_per_s / 1e6:.2f}", f"{r.whole_per_s / 1e6:.2f}", f"{r.first_step_s:.1f}"]
        rows.append(
            [
                r.name, backend, f"{r.samples_per_step:.0f}", f"{late.samples_per_s / 1e6:.3f}",
                f"{100 * late.spread:.0f}", f"{late.speedup:.1f}", *(whole if backend == Backend.auto else [None] * 3),
            ]
        )  # fmt: skip
    return rows


def _part_row(part: str, results: Sequence[Result]) -> list[object]:
    return [part.replace("  ", "- "), *(f"{r.parts_ms.get(part, 0.0):.1f}" for r in results)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks step", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("capture", nargs="?", type=Path, metavar="CAPTURE", help="a small simulated one by default")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="setting of the fit")
    parser.add_argument("--steps", type=_steps, default=200, help="of the fit; a multiple of 20 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="of the last 20 steps, by each backend (%(default)s)")
    add_arguments(parser)
    return parser


def _steps(word: str) -> int:
    number = int(word)
    if number < 3 * _WINDOW or number % _WINDOW:
        raise argparse.ArgumentTypeError(f"must be a multiple of {_WINDOW}, {3 * _WINDOW} or more; got {number}")
    return number
