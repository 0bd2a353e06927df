"""Turntable captures in, closed metric meshes and occupancy labels out.

    import neuralrecon as nr

    capture = nr.read_capture("data/bigbird/cheez_it")
    capture = nr.calibrate_capture(capture).capture   # if its calibration is rough
    scene = nr.Scene.from_capture(capture)
    fit = nr.fit(scene)
    mesh = nr.extract_mesh(fit)                 # trimesh.Trimesh, table frame, metres, closed
    labels = nr.label_occupancy(mesh, 100_000)

Names are loaded when they are first used, so that importing this costs nothing that is not needed.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

# Import does nothing, with this one exception: torch and Numba each keep a pool of OpenMP threads, and one that makes
# its threads spin while they wait takes the cores from the other (docs/labbook.md). It only works before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from .calibrate import CalibrateConfig as CalibrateConfig
    from .calibrate import Calibration as Calibration
    from .calibrate import calibrate_capture as calibrate_capture
    from .capture import Capture as Capture
    from .capture import read_capture as read_capture
    from .evaluate import evaluate_mesh as evaluate_mesh
    from .extract import MeshConfig as MeshConfig
    from .extract import extract_mesh as extract_mesh
    from .extract import write_mesh as write_mesh
    from .label import label_occupancy as label_occupancy
    from .label import write_labels as write_labels
    from .scene import Scene as Scene
    from .scene import SceneConfig as SceneConfig
    from .train import Fit as Fit
    from .train import FitConfig as FitConfig
    from .train import fit as fit
    from .train import load_fit as load_fit
    from .train import save_fit as save_fit

_HOMES = {
    "calibrate": ("CalibrateConfig", "Calibration", "calibrate_capture"),
    "capture": ("Capture", "read_capture"),
    "evaluate": ("evaluate_mesh",),
    "extract": ("MeshConfig", "extract_mesh", "write_mesh"),
    "label": ("label_occupancy", "write_labels"),
    "scene": ("Scene", "SceneConfig"),
    "train": ("Fit", "FitConfig", "fit", "load_fit", "save_fit"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
