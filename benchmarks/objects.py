"""Seconds of a fit until its mesh is nearly as good as it gets, and whether backends and repetitions agree.

    python -m benchmarks object CAPTURE [CAPTURE ...] [--steps N ...] [--set field.levels=14 ...]

Each capture has its true mesh in gt/gt_mesh.ply. Every fit runs in a process of its own. See README.md here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from neuralrecon.capture import read_capture
from neuralrecon.errors import ConfigError, FitError, NeuralReconError
from neuralrecon.evaluate import EvaluateConfig, evaluate_files
from neuralrecon.extract import MeshConfig, extract_mesh, write_mesh
from neuralrecon.fields import SurfaceModel
from neuralrecon.ops import Backend, use_backend
from neuralrecon.scene import Scene
from neuralrecon.train import fit
from neuralrecon.train.run import TRUTH_FILE
from neuralrecon.train.run_folder import Stages

from .fits import Stamps, fit_config, small_capture
from .report import table, write_json
from .timing import installed

_COLUMNS = (
    "fit", "steps", "scene s", "fit s", "first step s", "extraction s", "Chamfer mm", "F@0.5mm", "MB after scene",
    "after fit", "after mesh",
)  # fmt: skip
_NEAR = 1.05
_COARSE_MM = 1.0  # of fits that are to agree: the definitions take minutes to extract finer


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One fit with its mesh against the truth. `peak_mb` is by stage: the most that the process had held by its end.

    `digest` is a hash of all that was learned.
    """

    name: str
    backend: str
    steps: int
    seconds: dict[str, float]
    first_step_s: float
    chamfer_mm: float
    f_score_0_5mm: float
    peak_mb: dict[str, float]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearly:
    """The shortest fit whose mesh's Chamfer distance is within 5 % of the longest one's."""

    name: str
    steps: int
    fit_s: float
    chamfer_mm: float
    converged_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of a fit by the definitions, two by `auto` with the same seed and one with another, on a small capture.

    `difference` is that of the Chamfer distances, as a share of the definitions'; `by_chance` that between the seeds.
    """

    steps: int
    reference_mm: float
    auto_mm: float
    difference: float
    by_chance: float
    same_bits: bool


def main(words: Sequence[str] | None = None) -> int:
    """0, or 1 if a fit fails or the same seed gives two models; 2 if the words are wrong."""
    args = _parser().parse_args(words)
    if args.fit_once:
        return _fit_here(args)
    try:
        fit_config(args.set)
        _check(args.captures, args.agree_steps)
        fits = [_fitted(c, n, Backend.auto, args) for c in args.captures for n in sorted(set(args.steps))]
        agreement, small = _agreement(args) if args.agree_steps else (None, [])
    except NeuralReconError as error:
        print(f"benchmarks object: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    near = [nearly([f for f in fits if f.name == name]) for name in dict.fromkeys(f.name for f in fits)]
    print(table(_COLUMNS, [_row(f) for f in [*fits, *small]]))
    for line in [*map(_told, near), *([_agreed(agreement)] if agreement else [])]:
        print(line)
    file = args.json or Path("outputs/benchmarks") / f"object_{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = {"settings": args.set, "voxel_mm": args.voxel_mm, "threads": torch.get_num_threads()}
    print(write_json(file, **settings, versions=installed(), near=near, agreement=agreement, fits=[*fits, *small]))
    return int(agreement is not None and not agreement.same_bits)


def nearly(fits: Sequence[Fitted]) -> Nearly:
    """Of fits of one capture that differ in their steps."""
    longest = max(fits, key=lambda f: f.steps)
    enough = min((f for f in fits if f.chamfer_mm <= _NEAR * longest.chamfer_mm), key=lambda f: f.steps)
    return Nearly(
        name=longest.name,
        steps=enough.steps,
        fit_s=enough.seconds["fit"],
        chamfer_mm=enough.chamfer_mm,
        converged_mm=longest.chamfer_mm,
    )


def fit_once(
    path: Path, steps: int, settings: Sequence[str], folder: Path, *, voxel_mm: float = 0.5, seed: int = 0
) -> Fitted:
    """Scene, fit, mesh and evaluation in this process, on the backend in force.

    Args:
        folder: for the mesh.
    """
    capture, stages = read_capture(path), Stages()
    with stages.timed("scene"):
        scene = Scene.from_capture(capture)
    stamps = Stamps()
    with stages.timed("fit"):
        found = fit(scene, replace(fit_config(settings), steps=steps), seed=seed, on_step=stamps.note)
    with stages.timed("mesh"):
        mesh = extract_mesh(found, MeshConfig(voxel_mm=voxel_mm))
    write_mesh(mesh, folder / "mesh.ply")
    report = evaluate_files(
        folder / "mesh.ply", capture.root / TRUTH_FILE, EvaluateConfig(with_alignment=False), capture=capture
    )
    return Fitted(
        name=capture.name,
        backend="",
        steps=steps,
        seconds=stages.seconds,
        first_step_s=round(stamps.until_first_s, 2),
        chamfer_mm=round(report.raw.chamfer_mm, 5),
        f_score_0_5mm=round(report.raw.f_score_0_5mm, 5),
        peak_mb=stages.peak_memory_mb,
        digest=digest_of(found.model),
    )


def digest_of(model: SurfaceModel) -> str:
    """The same for two models only if all their parameters are the same, bit for bit."""
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _fitted(capture: Path, steps: int, backend: Backend, args: argparse.Namespace, seed: int = 0) -> Fitted:
    """In a process of its own, whose peak memory is the fit's alone."""
    began = time.perf_counter()
    words = [str(capture), "--fit-once", backend, "--steps", str(steps), "--voxel-mm", str(args.voxel_mm)]
    words += ["--seed", str(seed)]
    settings = ["--set", *args.set] if args.set else []
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "object", *words, *settings], capture_output=True, text=True
    )
    if done.returncode:
        raise FitError(f"{capture}: the fit of {steps} steps on the backend {backend} ended: {done.stderr.strip()}")
    found = Fitted(**json.loads(done.stdout.splitlines()[-1]))
    seconds = time.perf_counter() - began
    print(f"{found.name}, {backend}, {steps} steps: {seconds:.0f} s, {found.chamfer_mm:.3f} mm", file=sys.stderr)
    return found


def _fit_here(args: argparse.Namespace) -> int:
    try:
        with TemporaryDirectory() as folder, use_backend(args.fit_once):
            found = fit_once(
                args.captures[0], args.steps[0], args.set, Path(folder), voxel_mm=args.voxel_mm, seed=args.seed
            )
    except NeuralReconError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(replace(found, backend=args.fit_once))))
    return 0


def _agreement(args: argparse.Namespace) -> tuple[Agreement, list[Fitted]]:
    capture, steps = small_capture(), args.agree_steps
    coarse = argparse.Namespace(**{**vars(args), "voxel_mm": max(args.voxel_mm, _COARSE_MM)})
    wanted = [(Backend.torch, 0), (Backend.auto, 0), (Backend.auto, 0), (Backend.auto, 1)]
    fits = [_fitted(capture, steps, backend, coarse, seed) for backend, seed in wanted]
    reference, first, second, other = fits
    agreement = Agreement(
        steps=steps,
        reference_mm=reference.chamfer_mm,
        auto_mm=first.chamfer_mm,
        difference=round(abs(first.chamfer_mm / reference.chamfer_mm - 1), 4),
        by_chance=round(abs(other.chamfer_mm / first.chamfer_mm - 1), 4),
        same_bits=first.digest == second.digest,
    )
    return agreement, fits


def _check(captures: Sequence[Path], agree_steps: int) -> None:
    if not captures and not agree_steps:
        raise ConfigError("nothing to do: give a capture with gt/gt_mesh.ply, or --agree-steps above 0")
    for capture in captures:
        if not (capture / TRUTH_FILE).is_file():
            raise ConfigError(f"{capture / TRUTH_FILE}: no such file; this measures against the truth")


def _told(n: Nearly) -> str:
    return (
        f"{n.name}: {n.fit_s:.1f} s of fit ({n.steps} steps) to {n.chamfer_mm:.3f} mm, within 5 % of the longest fit's "
        f"{n.converged_mm:.3f} mm"
    )


def _agreed(a: Agreement) -> str:
    same = "the same bits" if a.same_bits else "OTHER BITS"
    return (
        f"backends: {a.auto_mm:.3f} mm against the definitions' {a.reference_mm:.3f} mm after {a.steps} steps, "
        f"{100 * a.difference:.1f} % apart (another seed: {100 * a.by_chance:.1f} %); the same seed twice: {same}"
    )


def _row(f: Fitted) -> list[object]:
    s, mb = f.seconds, f.peak_mb
    return [
        f"{f.name}, {f.backend}", f.steps, f"{s['scene']:.1f}", f"{s['fit']:.1f}", f"{f.first_step_s:.1f}",
        f"{s['mesh']:.1f}", f"{f.chamfer_mm:.3f}", f"{f.f_score_0_5mm:.4f}", f"{mb['scene']:.0f}", f"{mb['fit']:.0f}",
        f"{mb['mesh']:.0f}",
    ]  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks object", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    known: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument("captures", nargs="*", type=Path, metavar="CAPTURE")
    parser.add_argument("--steps", nargs="+", type=int, default=[300, 500, 750, 1000, 1500], help="of the fits")
    parser.add_argument("--set", metavar="KEY=VALUE", help="setting of the fit", **known)
    parser.add_argument("--voxel-mm", type=float, default=0.5, help="of the extraction (%(default)s)")
    parser.add_argument("--agree-steps", type=int, default=200, help="of the fits that are to agree; 0 for none")
    parser.add_argument("--json", type=Path, help="file for the figures (a dated one in outputs/benchmarks)")
    parser.add_argument("--fit-once", type=Backend, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return parser
