"""Many objects in a program of your own: a sweep, its table, and what becomes of an object that fails.

    python examples/06_sweep_and_table.py

Simulates two small captures and breaks a photograph of one. Prints the table: one object with a mesh, `poor` for so
short a fit misses thresholds that are told, and one `failed` with the file that is at fault. Given again, the sweep
leaves alone what is done. About 40 s. The command `python -m neuralrecon.sweep run captures=[…] out=…` does the same.
"""

from __future__ import annotations

import csv
from pathlib import Path

from neuralrecon.errors import SweepError
from neuralrecon.simulate import SimulateConfig, simulate
from neuralrecon.sweep import Job, SweepConfig, job_of, sweep
from neuralrecon.train.__main__ import cli as train

OUT = Path("outputs/examples/06")
# Words of `python -m neuralrecon.train`, for every object. The fit is short and its images small.
SETTINGS = [
    *("calibration=given", "fit.steps=300", "fit.interior_rays=384", "fit.edge_rays=192", "fit.depth_rays=1024"),
    *("fit.occupancy_resolution=96", "scene.hull_resolution=64", "mesh.voxel_mm=2", "label.n_points=2000"),
    *("label.layouts=[if_net]", "evaluate.with_alignment=false", "evaluate.n_samples=5000"),
]


def captures() -> list[Path]:
    """A can, and a bottle with a photograph that breaks off."""
    made = []
    for shape in ("can", "bottle"):
        recording = SimulateConfig(mesh=shape, n_stops=8, n_width=240, np_width=160, depth_width=160)
        made.append(simulate(recording, OUT / "captures" / shape))
    photograph = made[-1] / "N1_0.jpg"
    photograph.write_bytes(photograph.read_bytes()[:500])
    return made


def job(capture: Path) -> Job:
    """What the sweep does for a capture: the train command's words, checked here and not in an hour."""
    words = [f"capture={capture.absolute()}", *SETTINGS]
    [settings] = train.settings(words)
    return job_of(capture.name, words, settings)


def main() -> None:
    """Sweep, then read the table that it keeps."""
    jobs = [job(capture) for capture in captures()]
    try:
        sweep(jobs, SweepConfig(out=OUT / "sweep"))
    except SweepError as error:  # all is done, but some objects failed
        print(f"{error}\n")
    with (OUT / "sweep" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        psnr = f"{float(row['psnr_db']):.1f} dB" if row["psnr_db"] else "-"
        print(f"{row['name']:8} {row['status']:8} {psnr:>8}  {row['reasons']}")
    print(f"{OUT / 'sweep' / 'results.html'} shows the same, with all columns")


if __name__ == "__main__":
    main()
