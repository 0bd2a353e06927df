"""Each op on each backend that is there, against its torch definition in the same run.

    python -m benchmarks micro [--points N] [--only WORD ...] [--device cpu|cuda] [--gate BASELINE.json]

See README.md here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import torch

from neuralrecon.errors import ConfigError
from neuralrecon.ops import Backend, use_backend

from .gate import add_arguments, baseline_of, judged
from .ops_cases import Case, cases
from .report import table, write_json
from .timing import Call, Timing, installed, interleaved

_COLUMNS = ("op", "inputs", "backend", "count", "ms", "± %", "M/s", "x torch", "first s")
_POINTS = 1 << 15  # about as many as one step asks the sdf at


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One op on one backend; `per_second` counts what is in `unit`."""

    op: str
    inputs: str
    backend: str
    n: int
    unit: str
    per_second: float
    timing: Timing

    @property
    def key(self) -> str:
        return f"{self.op} | {self.inputs} | {self.backend}"


def main(words: Sequence[str] | None = None) -> int:
    """0, or 1 if the gate is closed; 2 if the words are wrong."""
    args = _parser().parse_args(words)
    try:
        baseline = baseline_of(args.gate, args.tolerance) if args.gate else None
        device = _device(args.device)
        results = measured(device, args.points, args.only, args.seconds)
        if not results:
            raise ConfigError(f"--only {' '.join(args.only)}: no op's name holds any of these; leave it out to see all")
    except ConfigError as error:
        print(f"benchmarks micro: {error}", file=sys.stderr)
        return 2
    ratios = {r.key: round(r.timing.speedup, 3) for r in results if r.backend != Backend.torch}
    print(table(_COLUMNS, [_row(r) for r in results]))
    file = args.json or Path("outputs/benchmarks") / f"micro_{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = {"points": args.points, "device": str(device), "threads": torch.get_num_threads()}
    print(write_json(file, **settings, versions=installed(), ratios=ratios, results=results))
    if baseline is None:
        return 0
    return judged({k: v for k, v in baseline.items() if _is_wanted(k, args.only)}, ratios, args.tolerance)


def measured(device: torch.device, n_points: int, only: Sequence[str], seconds: float) -> list[Result]:
    """All cases whose op is wanted, each for about so many seconds."""
    found = []
    for case in cases(n_points, device):
        if _is_wanted(case.op, only):
            found += _measured(case, device, seconds)
            print(f"{case.op}, {case.inputs}: done", file=sys.stderr)
    return found


def backends_for(op: str, device: torch.device) -> list[Backend]:
    """The definition, and what runs on the device; backends that have nothing of their own for an op are left out."""
    if device.type == "cpu":
        return [Backend.torch, Backend.cpu]
    there = [Backend.torch]
    folder = Path(__file__).parents[1] / "neuralrecon" / "ops" / op.partition(" ")[0]
    for backend in (Backend.triton, Backend.nerfacc):
        if find_spec(backend) is not None and (folder / f"_{backend}.py").is_file():
            there.append(backend)
    return there


def _measured(case: Case, device: torch.device, seconds: float) -> list[Result]:
    calls = {str(b): _within(b, case.made(b)) for b in backends_for(case.op, device)} | case.peers
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = interleaved(calls, Backend.torch, seconds, wait)
    return [
        Result(
            op=case.op,
            inputs=case.inputs,
            backend=name,
            n=case.n,
            unit=case.unit,
            per_second=case.n / timing.seconds,
            timing=timing,
        )
        for name, timing in times.items()
    ]


def _within(backend: Backend, call: Call) -> Call:
    def run() -> None:
        with use_backend(backend):
            call.run()

    return replace(call, run=run)


def _row(r: Result) -> list[object]:
    t = r.timing
    return [
        r.op, r.inputs, r.backend, f"{r.n} {r.unit}", f"{1e3 * t.seconds:.2f}", f"{100 * t.spread:.0f}",
        f"{r.per_second / 1e6:.2f}", f"{t.speedup:.2f}", f"{t.first:.2f}",
    ]  # fmt: skip


def _is_wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(word in name.partition(" | ")[0] for word in only)


def _device(name: str | None) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no CUDA device; leave it out, or take --device cpu")
    return torch.device(name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks micro", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--points", type=_count, default=_POINTS, help="about how many (%(default)s)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="only ops whose name holds a word")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="a GPU if there is one")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each case, at least three rounds (%(default)s)")
    add_arguments(parser)
    return parser


def _count(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number
