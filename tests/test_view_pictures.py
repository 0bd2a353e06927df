"""The command that makes the viewer's pictures in the docs, in headless Chromium."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from viewed_runs import sphere_fit, write_run

from benchmarks import viewer_pictures
from benchmarks.visitor import chromium
from neuralrecon.capture import read_capture
from neuralrecon.view.runs import Run

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium is installed")
DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_pictures_of_the_docs_are_made_from_a_run(
    sphere_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command that docs/viewer.md names; it makes every picture that is shown there, and no two are alike."""
    capture = read_capture(sphere_folder)
    fit = sphere_fit(capture)
    monkeypatch.setattr(Run, "fit", lambda self: fit)
    monkeypatch.setattr(viewer_pictures, "_SETTLE_S", 1.0)
    monkeypatch.setattr(viewer_pictures, "_SIZE", (640, 360))
    run = write_run(tmp_path / "cup", sphere_folder)
    wanted = sorted(set(re.findall(r"images/viewer_(\w+)\.jpg", (DOCS / "viewer.md").read_text())))
    assert viewer_pictures.main([str(run), "--out", str(tmp_path), "--only", *wanted]) == 0
    pictures = []
    for name in wanted:
        with Image.open(tmp_path / f"viewer_{name}.jpg") as picture:
            assert picture.size == (640, 360)
            pictures.append(np.asarray(picture).astype(int))
    for i, one in enumerate(pictures):
        assert one.std() > 10
        assert all(np.abs(one - other).mean() > 0.1 for other in pictures[:i])
