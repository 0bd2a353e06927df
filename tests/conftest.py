"""Captures that several test modules look at; made once a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from neuralrecon.simulate import SimulateConfig, simulate


def pytest_configure() -> None:
    """Without a GPU, Triton's kernels run in its interpreter; Triton looks at this when it is first imported."""
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def sphere_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sphere of radius 50 mm on the table at (6, -4) mm, six stops, small pictures, exactly calibrated."""
    config = SimulateConfig(
        mesh="sphere",
        n_stops=6,
        n_width=120,
        np_width=96,
        depth_width=96,
        supersample=1,
        sensor_rotation_deg=0.0,
        sensor_translation_mm=0.0,
        focal_percent=0.0,
    )
    return simulate(config, tmp_path_factory.mktemp("captures") / "sphere")
