"""A clear bottle, through which depth cameras look: which readings are believed, and what that is worth.

    python examples/05_clear_object.py

Prints which kind of surface the object was taken for and why, for each depth camera the shares of its pixels that have
no reading, a believed one and one that is not believed, and how well that tells right readings from wrong ones (the
capture is simulated, so that is known). Writes the mesh and one image of probabilities per depth image. About 35 s.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.stats import mannwhitneyu

import neuralrecon as nr
from neuralrecon.capture import Image, SensorKind, camera_of, read_depth
from neuralrecon.evaluate import EvaluateConfig, read_mesh
from neuralrecon.label import DepthInliers, Solid, depth_inliers, write_depth_inliers
from neuralrecon.scene import SurfaceKind
from neuralrecon.simulate import Material, SimulateConfig, simulate

OUT = Path("outputs/examples/05")
WRONG_M = 0.005  # a reading further than this from the true surface is called wrong


def off_truth(capture: nr.Capture, image: Image, truth: Solid) -> np.ndarray:
    """How far each reading [v, u] is from the first true surface on its ray, in metres; inf where there is none."""
    depth, camera = np.asarray(read_depth(capture, image)), camera_of(capture, image)
    v, u = np.mgrid[: camera.height, : camera.width]
    in_cam = camera.rays(torch.from_numpy(np.stack([u, v], axis=-1).reshape(-1, 2) + 0.5))
    length = in_cam.norm(dim=1, keepdim=True)
    world_from_cam = capture.sensor_from_world(image).inverse()
    directions = world_from_cam.rotate(in_cam / length).numpy()
    first = truth.first_hit(np.broadcast_to(world_from_cam.translation.numpy(), directions.shape), directions)
    return np.abs(depth - (first / length[:, 0].numpy()).reshape(depth.shape))


def auroc(found: list[DepthInliers], off_m: list[np.ndarray]) -> float:
    """How often a right reading on the object has a higher probability than a wrong one; 0.5 is chance."""
    shown = [f.on_object & f.was_read for f in found]
    values = np.concatenate([f.probability[on] for f, on in zip(found, shown, strict=True)])
    right = np.concatenate([off[on] < WRONG_M for off, on in zip(off_m, shown, strict=True)])
    larger = mannwhitneyu(values[right], values[~right]).statistic
    return float(larger / (right.sum() * (~right).sum()))


recording = SimulateConfig(
    mesh="bottle", material=Material.glass, n_stops=12, n_width=240, np_width=160, depth_width=160
)
root = simulate(recording, OUT / "capture")
capture = nr.read_capture(root)

# `auto` judges by missing and wrong depth and by highlights. SurfaceKind.clear says it by hand, as surface=clear does
# in the command.
scene = nr.Scene.from_capture(capture, nr.SceneConfig(hull_resolution=64), surface=SurfaceKind.auto)
print(f"taken for {scene.surface.kind}: {scene.surface.reason}")

fit = nr.fit(scene, nr.FitConfig(steps=350, interior_rays=512, edge_rays=256, occupancy_resolution=96))
mesh = nr.extract_mesh(fit, nr.MeshConfig(voxel_mm=1.5))
nr.write_mesh(mesh, OUT / "mesh.ply")

found = list(depth_inliers(capture, scene, mesh, fit))
print("sensor      missing  believed  not believed")
for sensor in write_depth_inliers(found, OUT / "depth_inliers"):
    print(f"{sensor.sensor:10}  {sensor.missing:7.1%}  {sensor.believed:8.1%}  {sensor.not_believed:12.1%}")

truth = read_mesh(root / "gt" / "gt_mesh.ply")
solid = Solid.of(truth)
off_m = [off_truth(capture, image, solid) for image in capture.images_of(SensorKind.depth)]
print(f"right readings before wrong ones: {auroc(found, off_m):.1%} of all pairs")
report = nr.evaluate_mesh(mesh, truth, EvaluateConfig(n_samples=20_000, with_alignment=False))
print(f"{OUT / 'mesh.ply'}: Chamfer {report.raw.chamfer_mm:.2f} mm, IoU {report.raw.iou:.3f}")
print(f"{OUT / 'depth_inliers'}: {len(found)} images, white is surely the object")
