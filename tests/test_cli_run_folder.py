"""Output folders: what a run may replace, what it goes on from, and that files are whole."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml
from tiny_captures import write_plain_folder

from neuralrecon.capture import read_capture
from neuralrecon.errors import ConfigError, FitError
from neuralrecon.train.run_folder import (
    RunFolder,
    Stages,
    as_yaml,
    kept_log,
    origin_of,
    plain,
    require_run,
    used_capture,
)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def broken_off(out: Path, settings: str = "a: 1\n") -> RunFolder:
    folder = RunFolder.chosen(out, "cup", settings, overwrite=False)
    folder.open()
    (out / "fit").mkdir(exist_ok=True)
    (out / "fit" / "model").write_text("fitted")
    return folder


def test_a_fresh_folder_is_made_only_when_opened(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "cup"
    folder = RunFolder.chosen(out, "cup", "a: 1\n", overwrite=False)
    assert not out.exists()
    folder.open()
    assert files(out) == {"config.yaml"}


def test_dated_folders_never_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = []
    for _ in range(3):
        folder = RunFolder.chosen(None, "demo/box", "", overwrite=False)
        folder.open()
        paths.append(folder.path)
    assert len(set(paths)) == 3
    assert {path.parent for path in paths} == {Path("outputs/demo/box")}


def test_a_finished_run_is_kept(tmp_path: Path) -> None:
    broken_off(tmp_path / "o").finish({"name": "mine/cup", "capture": "data/cup"})
    assert origin_of(tmp_path / "o") == ("mine/cup", Path("data/cup"))
    with pytest.raises(ConfigError, match="finished run; add overwrite=true"):
        RunFolder.chosen(tmp_path / "o", "cup", "a: 1\n", overwrite=False)
    again = RunFolder.chosen(tmp_path / "o", "cup", "a: 1\n", overwrite=True)
    assert not again.goes_on
    assert "summary.json" in files(tmp_path / "o")
    again.open()
    assert files(tmp_path / "o") == {"config.yaml"}


def test_a_run_that_broke_off_goes_on_from_its_fit(tmp_path: Path) -> None:
    broken_off(tmp_path / "o")
    (tmp_path / "o" / "mesh.ply").write_text("of no use")
    again = RunFolder.chosen(tmp_path / "o", "cup", "a: 1\n", overwrite=False)
    assert again.goes_on
    again.open()
    assert files(tmp_path / "o") == {"config.yaml", "fit/model"}


def test_a_fit_of_other_settings_is_not_taken(tmp_path: Path) -> None:
    broken_off(tmp_path / "o")
    with pytest.raises(ConfigError, match="other settings"):
        RunFolder.chosen(tmp_path / "o", "cup", "a: 2\n", overwrite=False)
    assert not RunFolder.chosen(tmp_path / "o", "cup", "a: 2\n", overwrite=True).goes_on


@pytest.mark.parametrize("overwrite", [False, True])
def test_strangers_files_are_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(ConfigError, match="no run's"):
        RunFolder.chosen(tmp_path, "cup", "", overwrite=overwrite)
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder.chosen(tmp_path / "thesis.tex", "cup", "", overwrite=overwrite)
    assert files(tmp_path) == {"thesis.tex"}


def test_a_run_that_was_killed_at_its_first_or_while_clearing_does_not_block_its_folder(tmp_path: Path) -> None:
    """Nothing is there but the lock and half of config.yaml; then a finished run of which the settings are left."""
    for name in (".lock", ".config.123.yaml"):
        (tmp_path / name).write_text("a:")
    first = RunFolder.chosen(tmp_path, "cup", "a: 1\n", overwrite=False)
    first.open()
    assert files(tmp_path) == {".lock", "config.yaml"}
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "kept").write_text("")
    first.finish({})
    again = RunFolder.chosen(tmp_path, "cup", "a: 2\n", overwrite=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "write_text", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            again.open()
    assert files(tmp_path) == {".lock", "config.yaml", "crops/kept"}
    RunFolder.chosen(tmp_path, "cup", "a: 2\n", overwrite=True).open()
    assert (tmp_path / "config.yaml").read_text() == "a: 2\n"


def test_overwriting_leaves_what_is_not_the_runs(tmp_path: Path) -> None:
    broken_off(tmp_path).finish({})
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder.chosen(tmp_path, "cup", "", overwrite=True).open()
    assert files(tmp_path) == {"config.yaml", "notes.txt"}


def test_a_broken_write_leaves_the_old_file(tmp_path: Path) -> None:
    folder = broken_off(tmp_path)
    with pytest.raises(TypeError):
        folder.write_text("config.yaml", None)  # type: ignore[arg-type]
    assert (tmp_path / "config.yaml").read_text() == "a: 1\n"
    assert files(tmp_path) == {"config.yaml", "fit/model"}


def test_calibration_and_outlines_outlast_other_settings(tmp_path: Path) -> None:
    """They know themselves whether they still hold; a fit and a mesh do not."""
    folder = broken_off(tmp_path / "o")
    for name in ("calibration", "masks"):
        (folder.path / name).mkdir()
        (folder.path / name / "kept").touch()
    RunFolder.chosen(tmp_path / "o", "cup", "a: 2\n", overwrite=True).open()
    assert files(tmp_path / "o") == {"config.yaml", "calibration/kept", "masks/kept"}


def test_the_capture_comes_back_as_the_run_had_it(tmp_path: Path) -> None:
    """With masks from another folder than the images', its own root, and the digits of its poses."""
    given = read_capture(write_plain_folder(tmp_path / "data" / "mug"))
    mask = tmp_path / "o" / "masks" / "a.png"
    images = (replace(given.images[0], mask_path=mask, object_is_black=True), *given.images[1:])
    capture = replace(given, images=images, is_metric=False)
    folder = broken_off(tmp_path / "o")
    folder.write_capture(capture)
    folder.finish({"name": "mug", "capture": str(given.root)})
    again = used_capture(tmp_path / "o")
    assert (again.root, again.layout, again.is_metric) == (given.root.resolve(), "plain", False)
    assert [(i.path, i.mask_path, i.object_is_black) for i in again.images] == [
        (i.path, i.mask_path, i.object_is_black) for i in capture.images
    ]
    assert again.sensors[0].camera == given.sensors[0].camera
    (tmp_path / "o" / "capture_used.json").unlink()
    assert used_capture(tmp_path / "o").is_metric


def test_require_run_names_the_nearest_folder(tmp_path: Path) -> None:
    (tmp_path / "mustard").mkdir()
    with pytest.raises(ConfigError, match="did you mean mustard"):
        require_run(tmp_path / "mustrad")
    with pytest.raises(ConfigError, match=r"no mesh\.ply in it"):
        require_run(tmp_path / "mustard", "mesh.ply")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    sizes: list[float] = field(default_factory=lambda: [1.5, 2.0])
    note: str = 'a "b": c # d\n'
    none: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    path: Path = Path("a/b")
    inner: Inner = field(default_factory=Inner)
    rate: float = 1e-5
    use: bool = True
    many: list[float] = field(default_factory=lambda: [1e-7, -3e20, 12.5e-9, 0.1])
    text: str = "run 1e-05"
    empty: list[str] = field(default_factory=list)
    nan: float = float("nan")


def test_settings_are_yaml_that_another_reader_takes() -> None:
    assert yaml.safe_load(as_yaml(Outer())) == plain(Outer())
    assert json.loads(json.dumps(plain(Outer()), allow_nan=False)) == plain(Outer())
    assert plain(Outer())["nan"] is None


def test_stages_time_and_measure() -> None:
    stages = Stages()
    with stages.timed("work"):
        held = bytearray(200 * 2**20)
        held[:: 2**12] = b"x" * len(held[:: 2**12])
    assert stages.peak_memory_mb["work"] >= 200
    assert 0 <= stages.seconds["work"] < 60


def test_the_log_file_has_all_lines_and_the_end(tmp_path: Path) -> None:
    log = logging.getLogger("neuralrecon.scene")

    def run() -> None:
        with kept_log() as log_to:
            log.info("before the folder is there")
            log_to(tmp_path / "log.txt")
            log.info("after")
            raise FitError("the loss is not finite")

    with pytest.raises(FitError):
        run()
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "before the folder is there", "after", "ended: FitError('the loss is not finite')",
    ]  # fmt: skip
    with kept_log() as log_to:
        log_to(tmp_path / "log.txt")
        log.info("anew")
    assert (tmp_path / "log.txt").read_text().count("\n") == 1
    assert not logging.getLogger("neuralrecon").handlers
