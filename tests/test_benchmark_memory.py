"""The benchmark of memory: processes of their own, the second one from the first one's cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.memory import main


def test_a_capture_is_prepared_twice(sphere_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "memory.json"
    assert main([str(sphere_folder), "--out", str(tmp_path), "--json", str(file), "--batches", "5"]) == 0
    [result] = json.loads(file.read_text())["results"]
    assert (result["n_photographs"], result["n_depth_maps"]) == (60, 30)
    assert result["first"]["cache_mb"] == result["again"]["cache_mb"] > 0
    for run in (result["first"], result["again"]):
        assert 100 < run["peak_mb"] < 3000
        assert 0 < run["batch_ms"] <= run["worst_batch_ms"]
    table = capsys.readouterr().out.splitlines()
    assert table[1].split()[:3] == ["sphere", "60", "30"]
    assert list(tmp_path.iterdir()) == [file]  # the cache goes away
