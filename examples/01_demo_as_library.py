"""From a simulated capture to a mesh and labels, with the stages called one by one.

    python examples/01_demo_as_library.py

Small images and a short fit, so that it takes under a minute; `python -m neuralrecon.train` is the real size.
"""

from __future__ import annotations

from pathlib import Path

import neuralrecon as nr
from neuralrecon.evaluate import EvaluateConfig, read_mesh
from neuralrecon.simulate import SimulateConfig, simulate

OUT = Path("outputs/examples/01")

# A bottle on the turntable: eight stops, fifteen sensors. The folder is kept and not made again.
root = simulate(SimulateConfig(mesh="bottle", n_stops=8, n_width=240, np_width=160, depth_width=160), OUT / "capture")
capture = nr.read_capture(root)
print(f"{root}: {len(capture.images)} images of {len(capture.sensors)} sensors, layout {capture.layout}")

# Evidence: crops, silhouettes, depth readings, the visual hull.
scene = nr.Scene.from_capture(capture, nr.SceneConfig(hull_resolution=64))
width, depth, height = (scene.box.size * 1e3).tolist()
print(f"the hull is {width:.0f} x {depth:.0f} x {height:.0f} mm")

config = nr.FitConfig(steps=250, interior_rays=512, edge_rays=256, depth_rays=2048, occupancy_resolution=96)
fit = nr.fit(scene, config, seed=0)

mesh = nr.extract_mesh(fit, nr.MeshConfig(voxel_mm=1.5))
nr.write_mesh(mesh, OUT / "mesh.ply")
print(f"{OUT / 'mesh.ply'}: {len(mesh.faces)} faces, {mesh.volume * 1e6:.1f} cm3, closed: {mesh.is_watertight}")

labels = nr.label_occupancy(mesh, 20_000)
file = labels.save(OUT / "labels.npz")
print(f"{file}: {len(labels.occupancy)} points, {labels.occupancy.mean():.1%} inside")

# A simulated capture brings its truth.
report = nr.evaluate_mesh(
    mesh, read_mesh(root / "gt" / "gt_mesh.ply"), EvaluateConfig(n_samples=20_000, with_alignment=False)
)
print(f"against the truth: IoU {report.raw.iou:.3f}, Chamfer {report.raw.chamfer_mm:.2f} mm")
