"""Silhouettes that may be wrong: refined ones, ones found by prompts, and bad views by name."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image as Picture
from scipy.ndimage import binary_dilation, binary_erosion

from neuralrecon.capture import Capture, SensorKind, read_capture, read_mask
from neuralrecon.errors import ConfigError, EvidenceError
from neuralrecon.segment import MasksFrom, SegmentConfig, outlined, read_report
from neuralrecon.segment.given import agree, check_masks
from neuralrecon.segment.grabcut import depth_px
from neuralrecon.segment.pieces import filled
from neuralrecon.segment.refine import before_backdrop
from neuralrecon.simulate import Material, SimulateConfig, simulate

SENSORS = ["N1", "N2", "N3", "N4"]
TRUE_MASKS = SimulateConfig(
    mesh="bottle",
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


def photographs(config: SimulateConfig, folder: Path) -> Capture:
    return read_capture(simulate(config, folder)).restricted(sensors=SENSORS)


@pytest.fixture(scope="module")
def glass(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """A clear bottle with exact masks, 32 photographs."""
    config = replace(TRUE_MASKS, material=Material.glass)
    return photographs(config, tmp_path_factory.mktemp("masks") / "glass")


@pytest.fixture(scope="module")
def broken_glass(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """The same with a third of its surface missing in all masks, which are shifted and eroded, too."""
    config = replace(TRUE_MASKS, material=Material.glass, mask_holes=0.35, mask_shift_px=1.0, mask_erode_px=1)
    return photographs(config, tmp_path_factory.mktemp("masks") / "broken")


@pytest.fixture(scope="module")
def refined(broken_glass: Capture, tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Path]:
    """By `auto`, which has to see that these masks are wrong."""
    folder = tmp_path_factory.mktemp("refined") / "masks"
    found = outlined(broken_glass, MasksFrom.auto, SegmentConfig(), folder)
    assert found.masks == MasksFrom.refined
    assert "contradict" in found.warnings[0]
    assert found.capture.masks_are_found
    assert not broken_glass.masks_are_found
    return found.capture, folder


def scores(capture: Capture, truth: Capture) -> list[float]:
    """IoU of every mask with the true one."""
    true_of = {i.path.name: i for i in truth.images}
    pairs = [(read_mask(capture, i), read_mask(truth, true_of[i.path.name])) for i in capture.images if i.mask_path]
    return [float((a & b).sum() / (a | b).sum()) for a, b in pairs]


def offset_px(capture: Capture, truth: Capture) -> float:
    """Mean distance of the outlines from the true ones, positive outside."""
    true_of = {i.path.name: i for i in truth.images}
    gained, length = 0, 0
    for image in capture.images:
        mask, true = read_mask(capture, image), read_mask(truth, true_of[image.path.name])
        gained += int(mask.sum()) - int(true.sum())
        length += int((true & ~np.asarray(binary_erosion(true), bool)).sum())
    return gained / length


def test_refined_masks_of_glass_are_nearly_the_true_ones(broken_glass: Capture, refined, glass: Capture) -> None:
    """The bottle is 50 px wide and 150 high: a pixel all around is IoU 0.95."""
    capture, _ = refined
    assert all(i.mask_path is not None for i in capture.images)
    before, after = scores(broken_glass, glass), scores(capture, glass)
    assert np.mean(before) < 0.65
    assert np.mean(after) > 0.94
    assert min(after) > 0.9
    assert abs(offset_px(capture, glass)) < 0.7


def test_refined_masks_are_found_again(broken_glass: Capture, refined, monkeypatch: pytest.MonkeyPatch) -> None:
    capture, folder = refined
    monkeypatch.setattr("neuralrecon.segment.masks_from.before_backdrop", None)  # would fail if it were called
    again = outlined(broken_glass, MasksFrom.refined, SegmentConfig(), folder)
    assert again.capture.images == capture.images


def test_report_tells_of_every_view(refined) -> None:
    capture, folder = refined
    report = read_report(folder)
    assert len(report.views) == len(capture.images) == len(report.masks)
    assert all(v.kept for v in report.views)


def test_exact_masks_are_taken_as_they_are(glass: Capture, tmp_path: Path) -> None:
    found = outlined(glass, MasksFrom.auto, SegmentConfig(), tmp_path)
    assert found.masks == MasksFrom.given
    assert found.warnings == ()
    assert found.capture == glass


def test_refining_exact_masks_does_little(glass: Capture, tmp_path: Path) -> None:
    few = glass.restricted(sensors=["N2", "N4"])
    found = outlined(few, MasksFrom.refined, SegmentConfig(), tmp_path)
    assert np.mean(scores(found.capture, glass)) > 0.965
    assert abs(offset_px(found.capture, glass)) < 1


def test_what_lies_well_within_a_mask_stays(broken_glass: Capture, refined) -> None:
    """Further in than 2 px: 2 % of the object's size is less. The hull of the others may leave single pixels out."""
    capture, _ = refined
    n_deep, n_lost = 0, 0
    for before, after in zip(broken_glass.images, capture.images, strict=True):
        deep = depth_px(read_mask(broken_glass, before)) > 2
        n_deep += int(deep.sum())
        n_lost += int((deep & ~read_mask(capture, after)).sum())
    assert n_deep > 50_000
    assert n_lost < 1e-4 * n_deep


def test_photographs_without_a_first_guess_carve_nothing(glass: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bottle fills 3 % of the highest camera's photographs, 5 % or more of the others: a quarter has no guess."""
    monkeypatch.setattr("neuralrecon.segment.refine._LEAST_AREA", 0.045)
    settled = before_backdrop(glass, glass.images_of(SensorKind.color), from_given=True)
    true = [v.given for v in settled.views]
    found = [(o & t).sum() / (o | t).sum() for o, t in zip(settled.outlines, true, strict=True) if t is not None]
    assert len(found) == len(glass.images)
    assert min(found) > 0.9


def test_a_wrong_mask_is_named(glass: Capture, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One of 32 is upside down: the log and the file name it, `auto` leaves it out and `given` does not."""
    wrong = glass.images[7]
    file = tmp_path / "wrong.png"
    Picture.fromarray(read_mask(glass, wrong)[::-1].astype(np.uint8) * 255).save(file)
    images = tuple(replace(i, mask_path=file, object_is_black=False) if i is wrong else i for i in glass.images)
    capture = replace(glass, images=images)
    found = outlined(capture, MasksFrom.auto, SegmentConfig(), tmp_path / "masks")
    assert found.masks == MasksFrom.given
    assert [i.path for i in found.capture.images if i.mask_path is None] == [wrong.path]
    assert wrong.path.name in found.capture.left_out[-1]
    assert wrong.path.name in caplog.text
    bad = [v.image for v in read_report(tmp_path / "masks").views if not v.kept]
    assert bad == [f"{wrong.sensor}/{wrong.frame}/{wrong.path.name}"]
    assert outlined(capture, MasksFrom.given, SegmentConfig(), tmp_path / "masks").capture == capture


def test_masks_without_a_common_solid_agree_with_none(glass: Capture, tmp_path: Path) -> None:
    """Every second mask upside down: no half of them is right."""
    images = list(glass.images)
    for at in range(0, len(images), 2):
        file = tmp_path / f"{at}.png"
        Picture.fromarray(np.roll(read_mask(glass, images[at]), 60, axis=1).astype(np.uint8) * 255).save(file)
        images[at] = replace(images[at], mask_path=file, object_is_black=False)
    report = check_masks(replace(glass, images=tuple(images)), SegmentConfig(), tmp_path / "masks")
    assert not agree(report)


def test_refining_needs_masks(glass: Capture, tmp_path: Path) -> None:
    bare = replace(glass, images=tuple(replace(i, mask_path=None) for i in glass.images))
    with pytest.raises(EvidenceError, match="0 of 32 photographs have one; use masks=background"):
        outlined(bare, MasksFrom.refined, SegmentConfig(), tmp_path)


class Prompted:
    """Stands in for Segment Anything: knows the true outlines, and proposes three, a good one and two bad ones."""

    def __init__(self, truth: Capture) -> None:
        self.by_photograph = {}
        for image in truth.images_of(SensorKind.color):
            with Picture.open(image.path) as file:
                self.by_photograph[np.asarray(file.convert("RGB")).tobytes()] = read_mask(truth, image)

    def set_image(self, image: np.ndarray) -> None:
        self.mask = self.by_photograph[image.tobytes()]

    def predict(
        self, point_coords: np.ndarray, point_labels: np.ndarray, box: np.ndarray, multimask_output: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        columns, rows = point_coords.astype(int).T
        assert multimask_output
        assert self.mask[rows, columns].all(), "points are in the object"
        assert (point_labels == 1).all()
        v, u = np.nonzero(self.mask)
        assert box[0] - 2 <= u.min() <= u.max() <= box[2] + 2
        assert box[1] - 2 <= v.min() <= v.max() <= box[3] + 2
        masks = np.stack([binary_dilation(self.mask, iterations=6), self.mask, np.ones_like(self.mask)])
        return masks, np.array([0.9, 0.8, 0.99]), np.zeros((3, 8, 8))


def test_segment_anything_is_asked_where_the_object_is(glass: Capture, tmp_path: Path) -> None:
    """The best of its proposals is the one near the first outline, whatever its own score."""
    few = glass.restricted(every_nth_stop=3)  # too few for the backdrop: first outlines are by colours
    found = outlined(few, MasksFrom.sam, SegmentConfig(), tmp_path, predictor=Prompted(few))
    assert found.masks == MasksFrom.sam
    assert len(scores(found.capture, glass)) == len(few.images)
    assert min(scores(found.capture, glass)) > 0.999


def test_segment_anything_needs_weights_and_package(
    glass: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"none is named; .* set segment.sam_weights=FILE"):
        outlined(glass, MasksFrom.sam, SegmentConfig(), tmp_path)
    absent = SegmentConfig(sam_weights=tmp_path / "absent.pth")
    with pytest.raises(ConfigError, match=r"absent\.pth is no file"):
        outlined(glass, MasksFrom.sam, absent, tmp_path)
    with pytest.raises(ConfigError, match="got vit_x, want one of vit_b"):
        outlined(glass, MasksFrom.sam, replace(absent, sam_model="vit_x"), tmp_path)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    with pytest.raises(ConfigError, match=r"pip install 'neuralrecon\[sam\]'"):
        outlined(glass, MasksFrom.sam, SegmentConfig(sam_weights=weights), tmp_path)


def test_segment_anything_is_loaded_with_the_weights(
    glass: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Network:
        def to(self, device: str) -> Network:
            return self

    package = ModuleType("segment_anything")
    asked: list[str] = []

    def vit_b(checkpoint: str) -> Network:
        asked.append(checkpoint)
        return Network()

    package.sam_model_registry = {"vit_b": vit_b}  # type: ignore[attr-defined]
    package.SamPredictor = lambda network: Prompted(glass)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "segment_anything", package)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"")
    from neuralrecon.segment.sam import load_predictor

    assert isinstance(load_predictor(weights, "vit_b"), Prompted)
    assert asked == [str(weights)]


def test_narrow_gaps_are_filled() -> None:
    """A disc of radius 100 with a hole, a slit of 5 px (size 177: gaps to 17 px close), and a bite of 40 px."""
    v, u = np.indices((260, 260))
    disc = np.hypot(v - 130, u - 130) < 100
    cut = disc & ~(np.hypot(v - 130, u - 130) < 30) & ~((np.abs(u - 130) < 3) & (v < 110))
    bitten = cut & ~((np.abs(v - 130) < 20) & (u > 180))
    whole = filled(bitten)
    assert whole[130, 130]
    assert whole[60, 130]
    assert not whole[130, 225]
    # closing rounds off no outer edge: nothing of the mask is lost, and what is gained lies in the disc
    assert (whole | ~bitten).all()
    assert (whole & ~np.asarray(binary_dilation(disc), bool)).sum() == 0
    assert not filled(np.zeros((20, 20), bool)).any()
