"""Object files, sweeps, help texts: what the command line offers."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from neuralrecon.config import to_dataclass, writable_schema
from neuralrecon.errors import FitError
from neuralrecon.objects import configs_folder, object_names
from neuralrecon.objects.__main__ import cli as objects_cli
from neuralrecon.simulate import BUILTIN_MESHES
from neuralrecon.train import __main__ as train
from neuralrecon.train.run import RunConfig, RunSummary
from neuralrecon.usage import nearest


class Runs:
    """Stands in for `run`: keeps the settings that it was called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.configs: list[RunConfig] = []
        self.fail_on: str | None = None
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("NEURALRECON_DATA", raising=False)
        monkeypatch.setattr(train, "run", self)

    def __call__(self, config: RunConfig) -> RunSummary:
        if config.object.name == self.fail_on:
            raise FitError("the loss is not finite")
        self.configs.append(config)
        summary = object.__new__(RunSummary)
        object.__setattr__(summary, "report", None)
        object.__setattr__(summary, "views", None)
        return summary

    @property
    def objects(self) -> list[str]:
        return [config.object.name for config in self.configs]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    return Runs(monkeypatch, tmp_path)


def test_the_sets_are_there() -> None:
    """BigBIRD has 125 objects, and one short name beside; the published YCB list has 103 names, some sets of parts."""
    names = object_names()
    assert len([n for n in names if n.startswith("bigbird/")]) == 125 + 1
    assert len([n for n in names if n.startswith("ycb/")]) == 103
    assert {"demo/box", "demo/bottle", "demo/mug", "demo/figure"} <= set(names)


def test_every_object_file_fits_the_schema() -> None:
    """Each shipped file merges into the schema as composing does, names itself, its set and a folder of its own."""
    schema, folders = writable_schema(RunConfig), {}
    for name in object_names():
        content = OmegaConf.load(configs_folder() / "object" / f"{name}.yaml")
        if "object" not in content:
            content = OmegaConf.create({"object": content})
        config = to_dataclass(OmegaConf.merge(schema, content))
        assert config.object.name == name
        assert name.split("/")[0] == config.object.set == config.object.folder.split("/")[0]
        if config.object.set == "demo":
            assert config.simulate.mesh in BUILTIN_MESHES
        folders[name] = config.object.folder
    assert folders.pop("bigbird/cheez_it") == folders["bigbird/cheez_it_white_cheddar"]
    assert len(set(folders.values())) == len(folders)


def test_every_object_can_be_typed() -> None:
    """Names that start with a digit, or hold a dash, need no quotes."""
    for name in object_names():
        assert OverridesParser.create().parse_override(f"object={name}").value() == name


def test_every_set_composes(runs: Runs) -> None:
    """The first and the last of each set and all demos, by the sweep that a user would type."""
    names = object_names()
    per_set = [[n for n in names if n.startswith(f"{s}/")] for s in ("bigbird", "ycb")]
    some = [n for n in names if n.startswith("demo/")] + [n for of in per_set for n in (of[0], of[-1])]
    assert train.cli(["-m", f"object={','.join(some)}"]) == 0
    assert runs.objects == some


def test_the_short_name(runs: Runs) -> None:
    assert train.cli(["object=bigbird/cheez_it"]) == 0
    assert runs.configs[0].object.folder == "bigbird/cheez_it_white_cheddar"


def test_without_an_object_the_demo_runs(runs: Runs) -> None:
    assert train.cli([]) == 0
    assert runs.objects == ["demo/box"]
    assert runs.configs[0] == RunConfig(object=runs.configs[0].object)


def test_settings_arrive_typed(runs: Runs) -> None:
    words = ["capture=a/b", "sensors=[N1,NP3]", "scene.margin_mm=7", "formats=[obj,glb]", "object=demo/glass_mug"]
    assert train.cli(words) == 0
    config = runs.configs[0]
    assert config.capture == Path("a/b")
    assert config.sensors == ["N1", "NP3"]
    assert config.scene.margin_mm == 7.0
    assert [str(f) for f in config.formats] == ["obj", "glb"]
    assert (config.simulate.mesh, config.simulate.material) == ("mug", "glass")


def test_sweep(runs: Runs, tmp_path: Path) -> None:
    assert train.cli(["-m", "object=demo/box,demo/mug", "seed=0,1", "out=${object.name}-${seed}"]) == 0
    assert [(str(c.out), c.seed) for c in runs.configs] == [
        ("demo/box-0", 0), ("demo/box-1", 1), ("demo/mug-0", 0), ("demo/mug-1", 1),
    ]  # fmt: skip


def test_a_sweep_goes_on_after_a_failure(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.fail_on = "demo/bottle"
    assert train.cli(["-m", "object=demo/box,demo/bottle,demo/mug"]) == 1
    assert runs.objects == ["demo/box", "demo/mug"]
    err = capsys.readouterr().err
    assert "neuralrecon.train: the loss is not finite" in err
    assert "demo/bottle" in err
    assert "Traceback" not in err


def test_a_failure_is_status_1(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.fail_on = "demo/box"
    assert train.cli([]) == 1
    assert capsys.readouterr().err == "neuralrecon.train: the loss is not finite\n"


def test_own_object_files(runs: Runs, tmp_path: Path) -> None:
    own = tmp_path / "conf" / "object" / "mylab"
    own.mkdir(parents=True)
    (own / "cup.yaml").write_text("name: mylab/cup\nset: mylab\nfolder: cups/7\n")
    assert train.cli(["--config-dir", "conf", "object=mylab/cup"]) == 0
    assert train.cli(["--config-dir", "conf", "-m", "object=mylab/cup,demo/mug"]) == 0
    assert runs.objects == ["mylab/cup", "mylab/cup", "demo/mug"]


def test_settings_can_be_printed(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.cli(["--cfg", "job", "object=ycb/011_banana", "data=/d"]) == 0
    out = capsys.readouterr().out
    assert "folder: ycb/011_banana" in out
    assert "data: /d\n" in out
    assert not runs.configs


@pytest.mark.parametrize("command", ["train", "extract", "label", "evaluate", "simulate"])
def test_help_names_every_key_and_default(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from importlib import import_module

    cli = import_module(f"neuralrecon.{command}.__main__").cli
    assert cli(["--help"]) == 0
    out = capsys.readouterr().out
    keys = [line.strip().partition("=")[0] for line in out.splitlines() if line.startswith("  ") and line[2] != " "]
    for item in fields(cli.schema):
        assert any(key == item.name or key.startswith(f"{item.name}.") for key in keys), item.name
    assert f"python -m neuralrecon.{command} " in out


def test_help_tells_units_choices_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    train.cli(["--help"])
    out = capsys.readouterr().out
    assert "object=demo/box\n" in out
    assert "  scene.margin_mm=10.0\n      [mm]" in out
    assert "{matte|glossy|mirror|glass}" in out


def test_listing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert objects_cli([]) == 0
    assert capsys.readouterr().out.split() == object_names()
    assert objects_cli(["mustard"]) == 0
    assert capsys.readouterr().out == "ycb/006_mustard_bottle\n"
    monkeypatch.setenv("NEURALRECON_DATA", str(tmp_path))
    assert objects_cli(["--on-disk"]) == 2
    (tmp_path / "bigbird" / "cheez_it_white_cheddar").mkdir(parents=True)
    assert objects_cli(["--on-disk"]) == 0
    assert capsys.readouterr().out.split() == ["bigbird/cheez_it", "bigbird/cheez_it_white_cheddar"]
    assert objects_cli(["--ondisk"]) == 2


def test_configs_are_where_the_package_looks() -> None:
    assert (configs_folder() / "object" / "demo" / "box.yaml").is_file()


def test_nearest() -> None:
    assert nearest("voxel_m", ["mesh.voxel_mm", "seed"]) == "; did you mean mesh.voxel_mm?"
    assert nearest("sede", ["seed", "simulate.seed"]) == "; did you mean seed?"
    assert nearest("cheez_it", ["bigbird/cheez_it", "demo/box"]) == "; did you mean bigbird/cheez_it?"
    assert nearest("zzz", ["a", "b"]) == ""
