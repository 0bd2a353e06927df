"""Outlines without any mask, from what differs from a turntable's backdrop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuralrecon.capture import Capture, SensorKind, read_capture, read_mask
from neuralrecon.errors import EvidenceError
from neuralrecon.segment import MasksFrom, SegmentConfig, outlined
from neuralrecon.segment.backdrop import found_axis, top_radius
from neuralrecon.segment.views import View
from neuralrecon.simulate import Material, SimulateConfig, simulate

SENSORS = ["N2", "N3", "N4"]


def photographs(material: Material, folder: Path) -> Capture:
    config = SimulateConfig(
        mesh="bottle",
        material=material,
        n_stops=8,
        n_width=400,
        scale=1.3,
        np_width=40,
        depth_width=40,
        supersample=1,
        sensor_rotation_deg=0.01,
        sensor_translation_mm=0.1,
        focal_percent=0.0,
    )
    return read_capture(simulate(config, folder)).restricted(sensors=SENSORS)


@pytest.fixture(scope="module")
def glass(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    return photographs(Material.glass, tmp_path_factory.mktemp("background") / "glass")


def ious(capture: Capture, truth: Capture) -> list[float]:
    pairs = [
        (read_mask(capture, a), read_mask(truth, b))
        for a, b in zip(capture.images, truth.images, strict=True)
        if a.mask_path is not None
    ]
    return [float((a & b).sum() / (a | b).sum()) for a, b in pairs]


@pytest.mark.parametrize("material", [Material.matte, Material.glass])
def test_outlines_without_any_mask(material: Material, glass: Capture, tmp_path: Path) -> None:
    """A bottle 50 px wide that stands near the axis, so that the room behind its middle never shows.

    The capture's exact masks are for comparison only. The matte one's shadow on the table may count as object.
    """
    truth = glass if material == Material.glass else photographs(material, tmp_path / "capture")
    bare = replace(truth, images=tuple(replace(i, mask_path=None) for i in truth.images))
    found = outlined(bare, MasksFrom.background, SegmentConfig(), tmp_path / "masks")
    assert found.masks == MasksFrom.background
    assert len(ious(found.capture, truth)) >= 0.9 * len(bare.images)
    assert np.mean(ious(found.capture, truth)) > 0.8


def test_axis_and_reach_of_the_turntable_are_found(glass: Capture) -> None:
    """The axis is the world's z; the top is a disc of 165 mm, which a pixel of 2 mm and ring of 2 mm blur."""
    views = [View.read(glass, image, 1) for image in glass.images_of(SensorKind.color)]
    axis = found_axis(views)
    assert np.abs(axis.xy).max() < 1e-9
    assert abs(top_radius(views, axis) - 0.165) < 0.006


def test_without_a_turntable_there_is_no_backdrop(glass: Capture, tmp_path: Path) -> None:
    loose = replace(glass, frames=tuple(replace(f, angle_deg=None) for f in glass.frames))
    with pytest.raises(EvidenceError, match="no turntable with fixed cameras"):
        outlined(loose, MasksFrom.background, SegmentConfig(), tmp_path)
    floating = replace(glass, has_table=False)
    with pytest.raises(EvidenceError, match="height of the turntable's top is not known"):
        outlined(floating, MasksFrom.background, SegmentConfig(), tmp_path)
    few = glass.restricted(every_nth_stop=3)
    with pytest.raises(EvidenceError, match="fewer than 5 stops"):
        outlined(few, MasksFrom.background, SegmentConfig(), tmp_path)
