"""A process that is killed while it saves checkpoints, again and again; what is left must be whole each time.

python interrupted_saves.py FOLDER N_KILLS: tells how many kills hit a write, and fails if a checkpoint is not as it was
saved, is older than one that was whole before, or if what killed processes leave piles up.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.fuzz_products import tiny_fit
from neuralrecon.fields import FieldConfig, SurfaceModel
from neuralrecon.train import Fit, load_fit, save_fit


def numbered(fit: Fit, step: int) -> Fit:
    """A fit that says in its tables, too, which one it is."""
    with torch.no_grad():
        fit.model.sdf_table.fill_(step)
        fit.model.color_table.fill_(step)
    return replace(fit, step=step)


def larger_fit() -> Fit:
    """Of some megabytes, so that writing takes a while."""
    fit = tiny_fit()
    field = FieldConfig(levels=6, log2_table_size=15, color_levels=6, color_log2_table_size=15, hidden=8)
    return replace(
        fit,
        config=replace(fit.config, field=field),
        model=SurfaceModel(field, 2, 3, torch.Generator().manual_seed(0)),
    )


def save_for_ever(fit: Fit, folder: Path, first: int) -> None:
    step = first
    while True:
        save_fit(numbered(fit, step), folder)
        step += 1


def main(folder: Path, n_kills: int) -> None:
    rng, fit, n_hits = random.Random(0), larger_fit(), 0
    save_fit(numbered(fit, 0), folder)
    started = time.perf_counter()
    save_fit(numbered(fit, 1), folder)
    takes, last = time.perf_counter() - started, 1
    for _ in range(n_kills):
        child = os.fork()
        if child == 0:
            save_for_ever(fit, folder, last + 1)
        time.sleep(rng.uniform(0, 3 * takes))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        rests = [path for path in folder.iterdir() if path.name != "fit.safetensors"]
        n_hits += bool(rests)
        assert len(rests) <= 1, rests
        found = load_fit(folder)
        assert found.step >= last, (found.step, last)
        assert bool((found.model.sdf_table == found.step).all()), found.step
        assert bool((found.model.color_table == found.step).all()), found.step
        last = found.step
    sys.stdout.write(f"{n_hits}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
