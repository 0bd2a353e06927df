"""Labels of any closed mesh in metres, in the files of four programs for 3D shape completion.

    python examples/03_labels_of_a_mesh.py [MESH.ply]

Without a mesh it takes the built-in mug. `python -m neuralrecon.label mesh=MESH.ply` does the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import neuralrecon as nr
from neuralrecon.evaluate import read_mesh
from neuralrecon.label import LabelConfig, Sampling
from neuralrecon.simulate import builtin_mesh

OUT = Path("outputs/examples/03")

file = Path(sys.argv[1]) if len(sys.argv) > 1 else None
mesh = read_mesh(file) if file else builtin_mesh("mug").mesh
name = file.stem if file else "mug"

# In memory: half of the points all over the box, half of them about a millimetre from the surface.
labels = nr.label_occupancy(mesh, 20_000, sampling=Sampling.mixed, sigma_m=0.001)
near = labels.near_surface
print(f"uniform points: {labels.occupancy[~near].mean():.1%} inside")
print(f"near the surface: {labels.occupancy[near].mean():.1%} inside, {np.abs(labels.sdf_m[near]).mean() * 1e3:.2f} mm")

# On disk, as each consumer's loader reads them. `loc` and `scale` in every file lead back to metres.
summary = nr.write_labels(mesh, OUT, LabelConfig(n_points=20_000, n_points_deep_sdf=20_000), name=name)
print(f"{summary.n_files} files in {OUT}, inside or outside at {summary.points_per_second / 1e6:.2f} M points/s")
for path in sorted(OUT.rglob("*.npz")):
    with np.load(path) as arrays:
        print(f"  {path.relative_to(OUT)}: {', '.join(arrays.files)}")
