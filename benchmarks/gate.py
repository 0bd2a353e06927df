"""Whether a run is as fast as a baseline: by ratios between backends within one run, never by times."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from neuralrecon.errors import ConfigError

RATIOS = "ratios"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every benchmark that has a gate."""
    parser.add_argument("--json", type=Path, help="file for the figures (by default a dated one in outputs/benchmarks)")
    parser.add_argument("--gate", type=Path, metavar="BASELINE", help="a run's JSON; exit 1 if a ratio fell below it")
    parser.add_argument(
        "--tolerance", type=float, default=0.25, metavar="SHARE", help="how far a ratio may fall (%(default)s)"
    )


def baseline_of(file: Path, tolerance: float) -> dict[str, float]:
    """The ratios that a run wrote.

    Raises:
        ConfigError: no such file, or no ratios in it, or a tolerance outside [0, 1).
    """
    if not 0 <= tolerance < 1:
        raise ConfigError(f"--tolerance is a share of the baseline's ratio: 0 or more, below 1; got {tolerance:g}")
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; --gate takes the JSON that the same benchmark wrote before")
    try:
        ratios = json.loads(file.read_text())[RATIOS]
        return {str(name): float(ratio) for name, ratio in ratios.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f'{file}: holds no "{RATIOS}"; --gate takes the JSON that a benchmark wrote') from error


def failures(baseline: Mapping[str, float], ratios: Mapping[str, float], tolerance: float) -> list[str]:
    """One line for each ratio that fell by more than the tolerance (a share of the baseline's), or was not measured.

    Example:
        >>> failures({"a": 10.0, "b": 4.0}, {"a": 7.0, "c": 1.0}, 0.25)
        ['a: 7.00 x the reference, was 10.00: 30 % less', 'b: not measured, was 4.00 x the reference']
    """
    lines = []
    for name, was in baseline.items():
        if name not in ratios:
            lines.append(f"{name}: not measured, was {was:.2f} x the reference")
        elif ratios[name] < (1 - tolerance) * was:
            share = 100 * (1 - ratios[name] / was)
            lines.append(f"{name}: {ratios[name]:.2f} x the reference, was {was:.2f}: {share:.0f} % less")
    return lines


def judged(baseline: Mapping[str, float], ratios: Mapping[str, float], tolerance: float) -> int:
    """Tell what fell, and what the baseline does not know; the exit code."""
    found = failures(baseline, ratios, tolerance)
    unknown = sorted(set(ratios) - set(baseline))
    if unknown:
        print(f"gate: not in the baseline: {', '.join(unknown)}")
    if not found:
        print(f"gate: none of {len(baseline)} ratios fell by more than {100 * tolerance:g} %")
        return 0
    print(f"gate: {len(found)} of {len(baseline)} ratios fell by more than {100 * tolerance:g} % or are missing")
    _print_all(found)
    return 1


def _print_all(lines: Sequence[str]) -> None:
    for line in lines:
        print(f"  {line}")
