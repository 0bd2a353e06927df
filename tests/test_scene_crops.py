"""Crops on disk: the same evidence as in memory, read once, found again, told when they do not fit."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from scipy.ndimage import binary_dilation

from neuralrecon.capture import Capture, Image, SensorKind, read_capture, read_color, read_mask
from neuralrecon.errors import CaptureError, ConfigError
from neuralrecon.scene import Scene, SceneConfig, crop_cache
from neuralrecon.scene.crop_cache import crops_on_disk
from neuralrecon.scene.crops import Crop, Store, crops_in_memory
from neuralrecon.scene.parallel import in_parallel
from neuralrecon.scene.spans import Spans, grown, runs

MARGIN = 8
CONFIG = SceneConfig(hull_resolution=64, hold_out_every=4)


@pytest.fixture
def capture(sphere_folder: Path, tmp_path: Path) -> Capture:
    """A copy whose files may be changed."""
    return read_capture(shutil.copytree(sphere_folder, tmp_path / "sphere"))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the photographs and masks that are decoded from now on."""
    names: list[str] = []

    def noting(function: Callable, name: Callable[[Image], Path | None]) -> Callable:
        def noted(capture: Capture, image: Image, *rest: object) -> np.ndarray:
            names.append(getattr(name(image), "name", ""))
            return function(capture, image, *rest)

        return noted

    monkeypatch.setattr(crop_cache, "read_color", noting(read_color, lambda image: image.path))
    monkeypatch.setattr(crop_cache, "read_mask", noting(read_mask, lambda image: image.mask_path))
    return names


def photographs(capture: Capture) -> tuple[Image, ...]:
    return capture.images_of(SensorKind.color)


def cached(capture: Capture, folder: Path, limit_gb: float = 1.0) -> tuple[Store, list[Crop]]:
    return crops_on_disk(capture, photographs(capture), MARGIN, folder, limit_gb)


def assert_same(found: tuple[Store, list[Crop]], expected: tuple[Store, list[Crop]]) -> None:
    assert found[1] == expected[1]
    assert np.array_equal(found[0].rgb, expected[0].rgb)
    assert np.array_equal(found[0].bits, expected[0].bits)


def in_memory(capture: Capture) -> tuple[Store, list[Crop]]:
    return crops_in_memory(capture, photographs(capture), MARGIN)


# ---------------------------------------------------------------------------------------------------------- crops


def test_a_crop_is_the_photograph_within_its_bounds(capture: Capture, tmp_path: Path) -> None:
    store, crops = cached(capture, tmp_path / "crops")
    for image, crop in zip(photographs(capture), crops, strict=True):
        rows, columns = slice(crop.v0, crop.v0 + crop.height), slice(crop.u0, crop.u0 + crop.width)
        mask = read_mask(capture, image)
        rgb = store.rgb[crop.first : crop.first + crop.n_pixels].reshape(crop.height, crop.width, 3)
        assert np.array_equal(rgb, read_color(capture, image)[rows, columns])
        bits = store.bits[crop.first_byte : crop.first_byte + crop.n_bytes]
        inside = np.unpackbits(bits)[: crop.n_pixels].reshape(crop.height, crop.width)
        assert np.array_equal(inside, mask[rows, columns])
        assert inside.sum() == mask.sum()
        touched = mask.copy()
        touched[rows, columns] = False
        assert not touched.any()
        assert mask[crop.v0 + MARGIN].any() or crop.v0 == 0


@pytest.mark.parametrize("downscale", [1, 2, 3, 4, 6])
def test_a_part_of_a_photograph_has_the_pixels_of_the_whole(sphere_folder: Path, downscale: int) -> None:
    small = read_capture(sphere_folder).restricted(downscale=downscale)
    image = photographs(small)[3]
    assert np.array_equal(read_color(small, image, (3, 2, 17, 13)), read_color(small, image)[2:13, 3:17])


def test_a_scene_from_disk_draws_what_one_in_memory_draws(capture: Capture, tmp_path: Path) -> None:
    held = Scene.from_capture(capture, CONFIG)
    for _ in range(2):  # from nothing, and from the cache
        mapped = Scene.from_capture(capture, CONFIG, folder=tmp_path / "crops")
        assert torch.equal(mapped.hull.sdf, held.hull.sdf)
        assert mapped.pixels is not None
        assert held.pixels is not None
        a, b = (s.draw(700, 300, torch.Generator().manual_seed(5)) for s in (held.pixels, mapped.pixels))
        for name in ("colors", "inside", "images", "sensors", "rig_from_world"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert torch.equal(a.rays.directions, b.rays.directions)
        for one, other in zip(held.held_out, mapped.held_out, strict=True):
            assert np.array_equal(one.rgb, other.rgb)
            assert np.array_equal(one.inside, other.inside)
            assert one.name == other.name
        assert isinstance(mapped.held_out[0].store.rgb.base, np.memmap)  # nothing was copied


# ---------------------------------------------------------------------------------------------------------- cache


def test_the_second_time_no_photograph_is_decoded(capture: Capture, tmp_path: Path, read: list[str]) -> None:
    first = cached(capture, tmp_path / "crops")
    assert len(read) == 2 * len(photographs(capture))
    read.clear()
    assert_same(cached(capture, tmp_path / "crops"), first)
    assert_same(first, in_memory(capture))
    assert read == []
    store, _ = first
    assert sum(file.stat().st_size for file in (tmp_path / "crops").glob("*.bin")) == store.rgb.size + store.bits.size


def test_a_run_that_broke_off_keeps_what_it_finished(
    capture: Capture, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = photographs(capture)[40]
    left = last.path.read_bytes()
    last.path.write_bytes(left[: len(left) // 2])
    for _ in range(2):  # breaking off again takes nothing away
        with pytest.raises(CaptureError, match=f"{last.path.name}: photograph is truncated"):
            cached(capture, tmp_path / "crops")
    last.path.write_bytes(left)
    read.clear()
    assert_same(cached(capture, tmp_path / "crops"), in_memory(capture))
    again = {name for name in read if name.endswith(".jpg")}
    assert last.path.name in again
    assert again.isdisjoint(image.path.name for image in photographs(capture)[:40])
    assert all(name.endswith(".jpg") or name.split("_mask")[0] + ".jpg" in again for name in read)


def test_damaged_crops_are_read_again(
    capture: Capture, tmp_path: Path, read: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "crops"
    expected, crops = cached(capture, folder)
    expected = Store(rgb=expected.rgb.copy(), bits=expected.bits.copy())
    [file] = folder.glob("*.bin")
    for at, name in (
        (3 * crops[7].first + 5, photographs(capture)[7].path.name),
        (3 * len(expected.rgb) + crops[9].first_byte, photographs(capture)[9].path.name),
    ):
        damaged = bytearray(file.read_bytes())
        damaged[at] ^= 1
        file.write_bytes(damaged)
        read.clear()
        assert_same(cached(capture, folder), (expected, crops))
        assert read[1:] == [name]
        assert f"the crop of {name} is damaged" in caplog.text


@pytest.mark.parametrize("harm", ["short", "gone", "garbage", "other version", "no description"])
def test_a_cache_that_is_no_use_is_made_anew(capture: Capture, tmp_path: Path, read: list[str], harm: str) -> None:
    folder = tmp_path / "crops"
    cached(capture, folder)
    [data], [description] = folder.glob("*.bin"), folder.glob("*.json")
    if harm == "short":
        os.truncate(data, data.stat().st_size - 1)
    elif harm == "gone":
        data.unlink()
    elif harm == "garbage":
        description.write_text('{"version": 1, "sources": [{"key": 3}]}')
    elif harm == "other version":
        description.write_text(json.dumps(json.loads(description.read_text()) | {"version": 99}))
    else:
        description.unlink()
    read.clear()
    assert_same(cached(capture, folder), in_memory(capture))
    assert len(read) == 2 * len(photographs(capture))
    assert len(list(folder.iterdir())) == 2


def test_a_touched_file_is_not_read_again_but_a_changed_one_is(
    capture: Capture, tmp_path: Path, read: list[str]
) -> None:
    folder = tmp_path / "crops"
    cached(capture, folder)
    touched, changed = photographs(capture)[2].path, photographs(capture)[11].path
    os.utime(touched, ns=(1, 1))
    shutil.copy(photographs(capture)[10].path, changed)
    read.clear()
    assert_same(cached(capture, folder), in_memory(capture))
    assert sorted(read) == sorted([changed.name, changed.stem + "_mask.pbm"])
    read.clear()
    cached(capture, folder)
    assert read == []


def test_another_outline_moves_the_crops_but_reads_one_photograph(
    capture: Capture, tmp_path: Path, read: list[str]
) -> None:
    folder = tmp_path / "crops"
    cached(capture, folder)
    [before] = folder.glob("*.bin")
    image = photographs(capture)[1]
    assert image.mask_path is not None
    mask = read_mask(capture, image)
    mask[np.flatnonzero(mask.any(axis=1))[0]] = False  # the top row
    PILImage.fromarray(mask != image.object_is_black).save(image.mask_path)
    read.clear()
    assert_same(cached(capture, folder), in_memory(capture))
    assert sorted(read) == sorted([image.path.name, image.mask_path.name])
    assert not before.exists()
    assert len(list(folder.iterdir())) == 2
    read.clear()
    few = replace(capture, images=tuple(i for i in capture.images if i != image))
    assert_same(cached(few, folder), in_memory(few))
    smaller = capture.restricted(downscale=2)
    assert read == []
    assert_same(cached(smaller, folder), in_memory(smaller))
    assert len(read) == 2 * len(photographs(capture))


def test_what_does_not_fit_is_told_before_anything_is_written(
    capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "crops"
    n = len(photographs(capture))
    needs = rf"crops: the crops of {n} photographs need 0\.000\d+ GB of disk, but cache_limit_gb=1e-05"
    with pytest.raises(ConfigError, match=needs):
        cached(capture, folder, limit_gb=1e-5)
    assert not folder.exists()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 8, 2))
    with pytest.raises(ConfigError, match=r"2e-09 GB are free; make room, or use downscale"):
        cached(capture, folder)
    assert not folder.exists()
    with pytest.raises(ConfigError, match="cache_limit_gb must be above 0"):
        SceneConfig(cache_limit_gb=0)


# ---------------------------------------------------------------------------------------------------------- spans


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_spans_are_the_list_of_their_pixels(share: float) -> None:
    rng = np.random.default_rng(int(100 * share))
    masks = [rng.random(shape) < share for shape in [(7, 9), (1, 1), (30, 41)]]
    starts = [5, 100, 1000]
    expected = np.concatenate([np.flatnonzero(mask) + start for mask, start in zip(masks, starts, strict=True)])
    spans = Spans.of([runs(mask) for mask in masks], starts)
    assert len(spans) == len(expected)
    assert np.array_equal(spans.at(torch.arange(len(expected))).numpy(), expected)
    if len(expected):
        chosen = torch.randint(len(expected), (500,), generator=torch.Generator().manual_seed(0))
        assert np.array_equal(spans.at(chosen).numpy(), expected[chosen.numpy()])


@pytest.mark.parametrize("steps", [0, 1, 6])
def test_growing_is_dilation_by_crosses(steps: int) -> None:
    mask = np.random.default_rng(1).random((40, 33)) < 0.01
    expected = binary_dilation(mask, iterations=steps) if steps else mask
    assert np.array_equal(grown(mask, steps), expected)


# ------------------------------------------------------------------------------------------------------- parallel


def test_results_come_in_order_and_progress_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("neuralrecon.scene.parallel._SECONDS_BETWEEN_LINES", 0.0)
    second = threading.Event()

    def slow_first(n: int) -> int:
        if n == 0:
            second.wait(0.2)  # on one core nobody sets it
        elif n == 1:
            second.set()
        return n * n

    assert list(in_parallel("pages read", slow_first, range(5))) == [0, 1, 4, 9, 16]
    assert "2 of 5 pages read: " in caplog.text
    assert "s left" in caplog.text
    assert "5 pages read in" in caplog.text


def test_the_first_failure_is_raised_and_the_rest_is_dropped() -> None:
    done: list[int] = []

    def failing(n: int) -> None:
        if n in (3, 5):
            raise CaptureError(f"page {n}")
        time.sleep(0.001)
        done.append(n)

    with pytest.raises(CaptureError, match="page 3"):
        list(in_parallel("pages read", failing, range(2000)))
    assert {0, 1, 2} <= set(done)
    assert len(done) < 1500
