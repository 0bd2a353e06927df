"""A rig that was knocked finds its calibration again, from the photographs of one object.

    python examples/04_calibrate_a_rig.py

The capture is simulated, so that what comes out can be compared with the exact calibration. Your own capture needs
texture on the object or on the turntable; `python -m neuralrecon.calibrate capture=DIR` does the same for it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import neuralrecon as nr
from neuralrecon.calibrate import table_of
from neuralrecon.capture import Sensor, SensorKind
from neuralrecon.geometry import Rigid
from neuralrecon.simulate import SimulateConfig, simulate

OUT = Path("outputs/examples/04")


def knocked(sensor: Sensor, rng: np.random.Generator) -> Sensor:
    """The sensor turned by about half a degree and shifted by about two millimetres."""
    turn = Rigid.about_axis("x", float(rng.normal(0, 0.4))) @ Rigid.about_axis("y", float(rng.normal(0, 0.4)))
    shift = Rigid(rotation=torch.eye(3, dtype=torch.float64), translation=torch.from_numpy(rng.normal(0, 0.0012, 3)))
    return replace(sensor, sensor_from_rig=shift @ turn @ sensor.sensor_from_rig)


def distances(capture: nr.Capture) -> np.ndarray:
    """Of every two colour cameras, in metres: that is the same wherever the rig stands."""
    colors = [s for s in capture.sensors if s.kind == SensorKind.color]
    centers = np.stack([s.sensor_from_rig.inverse().translation.numpy() for s in colors])
    return np.linalg.norm(centers[:, None] - centers[None, :], axis=2)[np.triu_indices(len(centers), 1)]


exact = SimulateConfig(n_stops=12, n_width=480, np_width=160, depth_width=160, supersample=1, sensor_rotation_deg=0,
                       sensor_translation_mm=0, focal_percent=0)  # fmt: skip
root = simulate(exact, OUT / "capture")
truth = nr.read_capture(root).restricted(sensors=["N2", "N3", "N4", "N5", "NP3_depth", "NP4_depth"])

rng = np.random.default_rng(0)
given = replace(truth, sensors=tuple(knocked(sensor, rng) for sensor in truth.sensors))

# The sigmas say how well the given calibration is known: poses roughly, lenses exactly (leave the latter out if yours
# are not). The folder keeps the result, and it is used again next time.
lenses = {"focal_percent": 0.0, "principal_percent": 0.0, "distortion": 0.0}
config = nr.CalibrateConfig(turn_deg=0.6, shift_mm=2.5, n_features=800, **lenses)
calibration = nr.calibrate_capture(given, config, folder=OUT / "calibration")
print(table_of(calibration))

for what, capture in (("given", given), ("calibrated", calibration.capture)):
    off_mm = 1e3 * np.abs(distances(capture) - distances(truth))
    print(f"{what}: distances between cameras are off by {np.median(off_mm):.2f} mm (median)")
print(f"{OUT / 'calibration' / 'rig.png'}: the rig; capture={OUT / 'calibration' / 'model'} trains on it")
