"""PSNR in closed form, SSIM against scikit-image, silhouettes by counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from neuralrecon.evaluate import evaluate_image, psnr_db, silhouette_iou, ssim


def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    v, u = np.mgrid[:60, :80]
    photo = np.stack([np.sin(u / 5), np.cos(v / 7), np.sin((u + v) / 11)], axis=2) / 2 + 0.5
    return (photo + rng.normal(0, 0.05, photo.shape)).clip(0, 1), photo


def test_psnr_in_closed_form():
    photo = np.full((20, 30, 3), 0.5)
    assert psnr_db(photo + 0.1, photo) == pytest.approx(20.0)
    assert psnr_db(photo, photo) == math.inf
    half = photo.copy()
    half[:10] += 0.1
    top = np.zeros((20, 30), dtype=bool)
    top[:10] = True
    assert psnr_db(half, photo) == pytest.approx(20 + 10 * math.log10(2))
    assert psnr_db(half, photo, mask=top) == pytest.approx(20.0)
    assert psnr_db(half, photo, mask=~top) == math.inf


def test_ssim_is_scikit_images():
    rendered, photo = pictures()
    known, values = structural_similarity(
        rendered,
        photo,
        data_range=1.0,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert ssim(rendered, photo) == pytest.approx(known, abs=1e-12)
    mask = np.zeros(photo.shape[:2], dtype=bool)
    mask[20:35, 30:60] = True
    assert ssim(rendered, photo, mask=mask) == pytest.approx(values[mask].mean(), abs=1e-12)
    assert ssim(photo, photo) == pytest.approx(1.0)
    assert ssim(rendered.astype(np.float32), photo.astype(np.float32)) == pytest.approx(known, abs=1e-6)


def test_silhouettes_by_counting():
    a, b = np.zeros((10, 10), dtype=bool), np.zeros((10, 10), dtype=bool)
    a[:, :6], b[:, 3:] = True, True
    assert silhouette_iou(a, b) == pytest.approx(30 / 100)
    assert silhouette_iou(a, ~a) == 0.0
    assert silhouette_iou(a & ~a, b & ~b) == 1.0


def test_a_report_has_what_is_known():
    rendered, photo = pictures()
    outline = np.zeros(photo.shape[:2], dtype=bool)
    outline[10:50, 20:60] = True
    plain = evaluate_image(rendered, photo)
    assert (plain.object_psnr_db, plain.object_ssim, plain.silhouette_iou) == (None, None, None)
    known = evaluate_image(rendered, photo, silhouette=outline, photo_silhouette=outline)
    assert known.silhouette_iou == 1.0
    assert known.object_psnr_db == psnr_db(rendered, photo, mask=outline)
    empty = evaluate_image(rendered, photo, silhouette=outline, photo_silhouette=outline & ~outline)
    assert (empty.object_psnr_db, empty.silhouette_iou) == (None, 0.0)
