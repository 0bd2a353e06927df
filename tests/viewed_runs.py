"""A run's folder with a sphere in it, whose field, views and slices are known in closed form."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from neuralrecon.capture import Capture, read_capture
from neuralrecon.fields import FieldConfig, SurfaceModel
from neuralrecon.geometry import Box, Similarity
from neuralrecon.label import label_occupancy
from neuralrecon.render import Occupancy
from neuralrecon.scene.hull import unit_cube
from neuralrecon.train import Fit, FitConfig, save_fit
from neuralrecon.train.run_folder import RunFolder

CENTER = torch.tensor([0.006, -0.004, 0.05], dtype=torch.float64)  # of the session's simulated sphere
RADIUS = 0.05
SMALL = FieldConfig(levels=2, log2_table_size=10, color_levels=2, color_log2_table_size=10)


@dataclass(frozen=True)
class KnownModel:
    """A `SurfaceModel` whose sdf is that of a sphere; colours are the model's own."""

    inner: SurfaceModel
    unit_from_world: Similarity

    @property
    def sensors(self):
        return self.inner.sensors

    def sdf(self, points: Float[Tensor, "points 3"], _levels: int | None = None) -> Float[Tensor, "points"]:
        return self.surface(points)[0]

    def surface(
        self, points: Float[Tensor, "points 3"], _levels: int | None = None
    ) -> tuple[Float[Tensor, "points"], Float[Tensor, "points 3"]]:
        away = self.unit_from_world.inverse().apply(points.double()) - CENTER
        length = away.norm(dim=1, keepdim=True)
        return ((length[:, 0] - RADIUS) * self.unit_from_world.scale).float(), (away / length).float()

    def color(self, *asked) -> Float[Tensor, "samples 3"]:
        return self.inner.color(*asked)


def sphere_fit(capture: Capture) -> Fit:
    """A fit of the sphere on the table; sensors and stops are the capture's."""
    box = Box(low=(CENTER - RADIUS).float(), high=(CENTER + RADIUS).float())
    unit_from_world = unit_cube(box.padded(0.01))
    generator = torch.Generator().manual_seed(0)
    inner = SurfaceModel(SMALL, len(capture.sensors), len(capture.frames), generator)
    model = KnownModel(inner, unit_from_world)
    axis = (torch.arange(32) + 0.5) / 32
    centers = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    blur = 0.3e-3 * unit_from_world.scale
    occupancy = Occupancy.from_sdf(model.sdf(centers).reshape(32, 32, 32), 3 * blur)
    return Fit(
        name="sphere",
        model=model,  # type: ignore[arg-type]
        config=FitConfig(field=SMALL, steps=10, first_levels=2, occupancy_resolution=32),
        unit_from_world=unit_from_world,
        box=box,
        floor_m=0.0,
        is_metric=True,
        world_per_mm=1e-3,
        occupancy=occupancy,
        view_origins=torch.zeros(0, 3),
        view_rig_from_world=torch.zeros(0, 3, 3),
        blur=blur,
        step=10,
    )


def write_run(folder: Path, capture_folder: Path, *, finished: bool = True) -> Path:
    """What the viewer reads of a run: an untrained fit in the sphere's place, capture, mesh, labels and curves."""
    capture = read_capture(capture_folder)
    fit = sphere_fit(capture)
    inner = fit.model.inner  # type: ignore[union-attr]
    run = RunFolder.chosen(folder, "sphere", "seed: 0\n", overwrite=True)
    run.open()
    run.write_capture(capture)
    save_fit(replace(fit, model=inner), folder / "fit")
    rows = ["step,loss,eikonal,color,samples", "0,3.0,1.0,,10", "1,2.0,0.5,1.5,10", "2,1.0,0.25,0.75,10"]
    (folder / "fit" / "scalars.csv").write_text("\n".join(rows) + "\n")
    ball = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS)
    ball.apply_translation(CENTER.numpy())
    ball.export(folder / "mesh.ply")
    labels = replace(label_occupancy(ball, 600), observed=np.arange(600) % 3 > 0)
    labels.save(folder / "labels" / "labels.npz")
    if finished:
        told = {"name": "sphere", "capture": str(capture_folder), "verdict": {"status": "ok", "reasons": []}}
        (folder / "summary.json").write_text(json.dumps(told))
    return folder
