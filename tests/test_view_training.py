"""A viewer beside a training: the same bits with it and without, snapshots when asked for, a process that goes."""

from __future__ import annotations

import socket
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from small_runs import SMALL

from benchmarks import viewer as benchmark
from benchmarks.visitor import visiting
from neuralrecon.capture import read_capture
from neuralrecon.errors import FitError
from neuralrecon.fields import FieldConfig
from neuralrecon.scene import Scene, SceneConfig
from neuralrecon.train import FitConfig, fit, load_fit
from neuralrecon.train.__main__ import cli as train
from neuralrecon.train.checkpoint import load_snapshot
from neuralrecon.train.folder_lock import alone_in
from neuralrecon.train.run_folder import RunFolder
from neuralrecon.train.snapshots import CURVES_FILE, SNAPSHOT_FILE, WANTED_FILE, Snapshots, thinned
from neuralrecon.view.beside import viewer_beside
from neuralrecon.view.runs import Run

CONFIG = FitConfig(
    steps=8,
    interior_rays=64,
    edge_rays=32,
    depth_rays=128,
    occupancy_resolution=32,
    first_levels=2,
    field=FieldConfig(levels=3, log2_table_size=10, color_levels=3, color_log2_table_size=10),
)


@pytest.fixture(scope="module")
def scene(sphere_folder: Path) -> Scene:
    capture = read_capture(sphere_folder).restricted(sensors=["N1", "N3", "NP3", "NP3_depth"])
    return Scene.from_capture(capture, SceneConfig(hull_resolution=32))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(holds, seconds: float = 120.0) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.05)
    return holds()


def test_snapshots_change_no_bit_of_a_fit(scene: Scene, tmp_path: Path) -> None:
    """Asked for again after every step, as fast as they are given."""
    steps: list[int] = []
    snapshots = Snapshots(folder=tmp_path)

    def on_step(step: int, terms: dict[str, float]) -> None:
        snapshots.not_before = 0.0
        (tmp_path / WANTED_FILE).touch()
        if (tmp_path / SNAPSHOT_FILE).exists():
            steps.append(load_snapshot(tmp_path / SNAPSHOT_FILE).step)

    watched = fit(scene, CONFIG, snapshots=snapshots, on_step=on_step)
    alone = fit(scene, CONFIG)
    for name, tensor in alone.model.state_dict().items():
        assert torch.equal(tensor, watched.model.state_dict()[name]), name
    assert torch.equal(alone.occupancy.sdf, watched.occupancy.sdf)
    assert steps == list(range(1, CONFIG.steps))  # after step i the snapshot of the step before is there
    assert not list(tmp_path.iterdir())  # the fit is done: they have gone


def test_a_snapshot_is_the_fit_as_it_stands(scene: Scene, tmp_path: Path) -> None:
    """The one after step 4 of 8 is the checkpoint of that step; its curves have four rows."""
    snapshots = Snapshots(folder=tmp_path)
    kept: dict[str, torch.Tensor] = {}

    def on_step(step: int, terms: dict[str, float]) -> None:
        if step == 3:
            (tmp_path / WANTED_FILE).touch()
            snapshots.not_before = 0.0
        if step == 4:
            kept.update(load_snapshot(tmp_path / SNAPSHOT_FILE).model.state_dict())
            curves = Run(name="x", folder=tmp_path.parent).curves()
            assert curves["step"].tolist() == [0, 1, 2, 3]
            assert not (tmp_path / WANTED_FILE).exists()
            raise StopIteration

    tmp_path = tmp_path / "fit"
    tmp_path.mkdir()
    snapshots.folder = tmp_path
    with pytest.raises(StopIteration):
        fit(scene, CONFIG, snapshots=snapshots, on_step=on_step)
    other = tmp_path.parent / "other"
    stopped = pytest.raises(StopIteration)

    def end(step: int, terms: dict[str, float]) -> None:
        if step == 4:
            raise StopIteration

    with stopped:
        fit(scene, FitConfig(**{**_values(CONFIG), "checkpoint_every": 4}), folder=other, on_step=end)
    checkpoint = load_fit(other).model.state_dict()
    assert kept.keys() == checkpoint.keys()
    assert all(torch.equal(tensor, checkpoint[name]) for name, tensor in kept.items())


def _values(config: FitConfig) -> dict:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_the_newest_of_snapshot_and_checkpoint_is_shown(scene: Scene, tmp_path: Path) -> None:
    folder = tmp_path / "fit"
    fit(scene, CONFIG, folder=folder)
    run = Run(name="x", folder=tmp_path)
    found = run.fit()
    assert found is not None
    assert found.step == CONFIG.steps
    (folder / SNAPSHOT_FILE).write_bytes(b"half")
    (folder / CURVES_FILE).write_text("half")
    with pytest.raises(FitError, match="damaged"):
        run.fit()
    assert len(run.curves()["step"]) == CONFIG.steps  # the damaged file of curves is as if it were not there


def test_rows_are_thinned_evenly_and_the_last_one_stays() -> None:
    rows = thinned([{"step": float(step)} for step in range(1001)])
    assert len(rows) <= 401
    assert rows[0]["step"] == 0
    assert rows[-1]["step"] == 1000
    assert thinned([]) == []


def test_a_run_with_a_viewer_leaves_the_same_files(sphere_folder: Path, tmp_path: Path) -> None:
    """Fit, mesh, labels and settings, byte for byte; the viewer's process is gone when the run ends."""
    port = free_port()
    words = [f"capture={sphere_folder}", *SMALL]
    assert train([*words, f"out={tmp_path / 'plain'}"]) == 0
    assert train([*words, f"out={tmp_path / 'seen'}", "viewer=true", f"viewer_port={port}"]) == 0
    for name in ("fit/fit.safetensors", "fit/scalars.csv", "mesh.ply", "labels/labels.npz", "config.yaml"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "seen" / name).read_bytes(), name
    assert f"viewer: http://127.0.0.1:{port}" in (tmp_path / "seen" / "log.txt").read_text()
    assert not is_open(port)


def test_a_run_says_that_the_port_is_taken_and_writes_nothing(
    sphere_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        words = [f"capture={sphere_folder}", *SMALL, f"out={tmp_path / 'run'}", "viewer=true", f"viewer_port={port}"]
        assert train(words) == 2
    assert f"port {port}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_process_beside_a_training_shows_it_and_asks_for_snapshots(
    scene: Scene, sphere_folder: Path, tmp_path: Path
) -> None:
    """Before the fit begins there is only the capture; with a visitor, a snapshot is asked for, and the fit shown."""
    port = free_port()
    folder = RunFolder.chosen(tmp_path / "run", "run", "", overwrite=False)
    folder.open()
    folder.write_capture(read_capture(sphere_folder))
    fits = folder.path / "fit"
    fits.mkdir()
    with alone_in(folder.path), viewer_beside(True, "127.0.0.1", port) as show:
        show(folder.path)
        assert wait_until(lambda: is_open(port))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=60) as page:
            assert b"<html" in page.read().lower()
        assert not (fits / WANTED_FILE).exists()  # nobody watches
        with visiting(f"http://127.0.0.1:{port}"):
            assert wait_until((fits / WANTED_FILE).exists)
            # the fit goes on until one snapshot was taken: one asked for before its first step
            fit(scene, CONFIG, snapshots=Snapshots(folder=fits))
    assert not is_open(port)


def test_no_viewer_is_no_process() -> None:
    with viewer_beside(False, "no such host", 0) as show:
        show(Path("nowhere"))


def test_the_benchmark_compares_round_by_round() -> None:
    def fitted(seconds: float, value: float) -> benchmark.Fitted:
        return benchmark.Fitted(seconds=seconds, n_snapshots=1, tensors={"a": torch.tensor([value])})

    plain = [fitted(10.0, 1.0), fitted(20.0, 1.0)]
    case = benchmark.compared("viewer", [fitted(10.1, 1.0), fitted(20.8, 1.0)], plain)
    assert case.longer == (0.01, 0.04)
    assert case.same_bits
    assert not benchmark.compared("viewer", [fitted(10.1, 1.0), fitted(20.8, 1.5)], plain).same_bits
