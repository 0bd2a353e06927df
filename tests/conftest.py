"""Captures that several test modules look at; made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuralrecon.simulate import SimulateConfig, simulate


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
