"""Textures of whole runs: the switch, the command, and that photographs held out have no part in them."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import EASY, SMALL

from benchmarks.texture import pictured
from neuralrecon.errors import EvidenceError
from neuralrecon.evaluate import closedness, read_mesh
from neuralrecon.texture import TextureConfig, texture_run
from neuralrecon.texture.__main__ import cli, photographs_of
from neuralrecon.train.__main__ import cli as train

HELD_OUT = 5  # every fifth photograph
NAMES = [f"mesh_textured.{suffix}" for suffix in ("glb", "png", "mtl", "obj")]


@pytest.fixture(scope="module")
def run(sphere_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on a copy of the sphere, with its texture."""
    root = tmp_path_factory.mktemp("textured")
    shutil.copytree(sphere_folder, root / "sphere")
    words = [f"capture={root / 'sphere'}", f"out={root / 'run'}", f"scene.hold_out_every={HELD_OUT}", "texture=true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralrecon.train.run.texture_run", partial(texture_run, config=TextureConfig(size=256)))
        assert train([*SMALL, *EASY, *words]) == 0
    return root / "run"


def picture(folder: Path) -> np.ndarray:
    return np.asarray(Image.open(folder / "mesh_textured.png"))


def test_a_run_leaves_a_textured_mesh_and_its_figures(run: Path) -> None:
    assert all((run / name).is_file() for name in NAMES)
    whole = closedness(read_mesh(run / "mesh_textured.glb"))
    assert whole.is_watertight
    assert whole.is_winding_consistent
    assert whole.n_bodies == 1
    told = json.loads((run / "texture.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    assert summary["texture"]["lit"] == told["lit"]
    assert told["field"] == summary["views"]
    assert [view["name"] for view in told["lit"]["views"]] == [view["name"] for view in told["field"]["views"]]
    assert summary["seconds"]["texture"] > 0
    assert np.shape(told["light"]["terms"]) == (8, 3)
    assert "dB in the room's light" in (run / "log.txt").read_text()


def test_the_benchmarks_picture_shows_photograph_field_and_textures(run: Path, tmp_path: Path) -> None:
    photograph = photographs_of(run)[1][0]
    file = pictured(run, TextureConfig(size=256), "N", tmp_path / "picture.png")
    photo, *others = np.split(np.pad(np.asarray(Image.open(file)), ((0, 0), (0, 4), (0, 0))) / 255, 4, axis=1)
    np.testing.assert_array_equal(photo[:, :-4], np.where(photograph.inside[..., None], photograph.rgb, 0) / 255)
    inside = np.pad(photograph.inside, ((0, 0), (0, 4)))
    for other in others:
        assert np.abs(other - photo)[inside].mean() < 0.4 * photo[inside].mean()  # a third is at the short fit's rim
    with pytest.raises(EvidenceError, match="no photograph of XX was held out"):
        pictured(run, TextureConfig(size=256), "XX", tmp_path / "none.png")


def test_photographs_held_out_have_no_part_in_the_picture(run: Path, tmp_path: Path) -> None:
    """Painted white they change no texel; another one painted white does."""
    capture = run.parent / "sphere"
    words = [f"run={run}", "size=256", "target_faces=0"]
    kept, held_out = photographs_of(run)
    assert len(held_out) == (len(kept) + len(held_out)) // HELD_OUT > 0
    assert cli([*words, f"out={tmp_path / 'before'}"]) == 0
    paint([capture / photograph.name for photograph in held_out])
    assert cli([*words, f"out={tmp_path / 'after'}"]) == 0
    np.testing.assert_array_equal(picture(tmp_path / "after"), picture(tmp_path / "before"))
    paint([capture / kept[0].name])
    assert cli([*words, f"out={tmp_path / 'other'}"]) == 0
    assert (picture(tmp_path / "other") != picture(tmp_path / "before")).any()


def paint(files: list[Path]) -> None:
    for file in files:
        with Image.open(file) as image:
            size = image.size
        Image.new("RGB", size, (255, 255, 255)).save(file)


def test_what_is_there_is_not_replaced_unasked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (run / name).read_bytes() for name in NAMES}
    assert cli([f"run={run}"]) == 2
    assert "overwrite=true" in capsys.readouterr().err
    assert {name: (run / name).read_bytes() for name in NAMES} == before
    assert cli([f"run={run.parent / 'sphere'}"]) == 2


def test_other_photographs_held_out_than_the_summary_says_are_an_error(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    settings = other / "config.yaml"
    settings.write_text(settings.read_text().replace(f"hold_out_every: {HELD_OUT}", "hold_out_every: 4"))
    assert cli([f"run={other}", f"out={tmp_path / 'out'}"]) == 2
    assert "held out" in capsys.readouterr().err
    for file, text in (("config.yaml", "scene: ["), ("config.yaml", "- scene"), ("summary.json", "{}")):
        (other / file).write_text(text)
        assert cli([f"run={other}", f"out={tmp_path / 'out'}"]) == 2
        assert "damaged" in capsys.readouterr().err
        shutil.copyfile(run / file, other / file)
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_told_before_anything_is_written(
    tmp_path: Path, sphere_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("neuralrecon.texture.atlas.find_spec", lambda name: None)
    assert train([f"capture={sphere_folder}", f"out={tmp_path / 'run'}", "texture=true"]) == 2
    assert 'pip install -e ".[texture]"' in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert cli([f"run={tmp_path / 'run'}"]) == 2
    assert "xatlas" in capsys.readouterr().err
