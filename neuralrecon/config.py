"""Hydra at the door: turns a configuration dataclass and a function into a command line. Only `__main__` files use it.

Every command takes `key=value` words. What the user mistyped is told in one line on stderr and nothing is written.
Exit status: 0 done, 1 the run failed for a reason its message states, 2 the command line or a setting is wrong, 128 + n
ended by signal n.
"""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from .errors import ConfigError, NeuralReconError
from .objects import configs_folder
from .usage import help_text, nearest

Config = TypeVar("Config")
_USAGE, _FAILED, _INTERRUPTED = 2, 1, 130


@dataclass(frozen=True, kw_only=True)
class Command:
    """One `python -m neuralrecon.NAME`: call it with the words after that, get the exit status.

    Attributes:
        schema: the frozen dataclass that the words fill; its defaults are the command's.
        main: what runs with it; returns the one figure that optimising sweepers track.
        about: the first lines of the help text.
        examples: (words, what they do), shown in the help text.
        groups: config groups, such as `object`, with the file that is taken when none is named.

    Example:
        >>> cli = Command(name="train", schema=RunConfig, main=main, about=__doc__)  # doctest: +SKIP
        >>> sys.exit(cli())  # doctest: +SKIP
    """

    name: str
    schema: type
    main: Callable[[Any], float]
    about: str
    examples: Sequence[tuple[str, str]] = ()
    groups: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        words = list(sys.argv[1:] if argv is None else argv)
        if {"-h", "--help"} & set(words):
            text = help_text(
                name=self.name, schema=self.schema, about=self.about, examples=self.examples, groups=self.groups
            )
            sys.stdout.write(text + "\n")
            return 0
        try:
            return self._launch(words)
        except KeyboardInterrupt as error:  # by a signal that its status tells, or by Ctrl-C where none was taken over
            return self._told(str(error) or "interrupted", getattr(error, "status", _INTERRUPTED))
        except NeuralReconError as error:
            return self._told(error, _USAGE if isinstance(error, ConfigError) else _FAILED)
        except OSError as error:
            return self._told(error, _FAILED)

    def settings(self, words: Sequence[str]) -> list[Any]:
        """The settings that these words give, one value for each run that -m would make; nothing is run.

        Raises:
            ConfigError: a word is wrong.
        """
        return [to_dataclass(job) for job in self._jobs(_parsed_arguments(list(words)))]

    def _jobs(self, args: Namespace) -> list[DictConfig]:
        register(self.name, self.schema, self.groups)
        with _composer(self.name, args.config_dir) as loader:
            return _composed_jobs(self.name, self.schema, loader, args)

    def _told(self, error: BaseException | str, status: int) -> int:
        if isinstance(error, BaseException) and os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise error
        sys.stderr.write(f"neuralrecon.{self.name}: {' '.join(str(error).split())}\n")
        return status

    def _launch(self, words: list[str]) -> int:
        args = _parsed_arguments(words)
        jobs = self._jobs(args)
        if args.cfg == "job" and not args.package:
            sys.stdout.write(_as_yaml(jobs[0]))
        elif args.multirun or args.cfg or args.info or args.shell_completion:
            return self._through_hydra(words)
        else:
            self._run(jobs[0])
        return 0

    def _run(self, settings: DictConfig) -> float:
        """The main function, with the package's log on the screen."""
        logger, screen = logging.getLogger(__package__), logging.StreamHandler(sys.stdout)
        level = logger.level
        logger.addHandler(screen)
        logger.setLevel(logging.INFO)
        try:
            return self.main(to_dataclass(settings))
        finally:
            logger.removeHandler(screen)
            logger.setLevel(level)

    def _through_hydra(self, words: list[str]) -> int:
        task = hydra.main(config_path=str(configs_folder()), config_name=self.name, version_base="1.3")(self._job)
        argv, shown = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
        sys.argv, os.environ["HYDRA_FULL_ERROR"] = [argv[0], *words], "1"
        try:
            task()
        except NeuralReconError:
            return _FAILED  # its job has told why, in one line
        finally:
            sys.argv = argv
            os.environ.pop("HYDRA_FULL_ERROR")
            if shown is not None:
                os.environ["HYDRA_FULL_ERROR"] = shown
        return 0

    def _job(self, settings: DictConfig) -> float:
        try:
            return self._run(settings)
        except NeuralReconError as error:
            sys.stderr.write(f"neuralrecon.{self.name}: {' '.join(str(error).split())}\n")
            raise


def register(name: str, schema: type, groups: Mapping[str, str]) -> None:
    """Make `name` a config that hydra can compose: the schema, the groups' files, and nothing of hydra's own output."""
    store = ConfigStore.instance()
    store.store(name=f"{name}_schema", node=writable_schema(schema))
    defaults: list[Any] = [f"{name}_schema", *({group: choice} for group, choice in groups.items()), "_self_"]
    quiet = {
        "output_subdir": None,
        "job": {"name": name},
        "run": {"dir": "."},
        "sweep": {"dir": "outputs/sweeps/${now:%Y-%m-%d_%H-%M-%S}", "subdir": "."},
    }
    store.store(name=name, node={"defaults": [*defaults, {"override hydra/job_logging": "none"}], "hydra": quiet})


def to_dataclass(settings: DictConfig) -> Any:
    """The schema's dataclass with these settings; its `__post_init__` checks the ranges.

    Raises:
        ConfigError: a needed setting is missing, or out of its range.
    """
    try:
        return OmegaConf.to_object(settings)
    except MissingMandatoryValue as error:
        missing = ", ".join(str(key) for key in sorted(OmegaConf.missing_keys(settings)))
        raise ConfigError(f"{missing} must be given, as in {missing.split(', ')[0]}=…") from error
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_one_line(error)) from error


def part_of(config: Any, kind: type[Config]) -> Config:
    """The settings of a command that are a stage's own: those of the class that the command's schema extends."""
    return kind(**{item.name: getattr(config, item.name) for item in fields(cast(Any, kind))})


def _as_yaml(settings: DictConfig) -> str:
    """The settings as words would give them: paths and choices as text."""

    def as_text(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_text(item) for key, item in value.items()}
        return str(value) if isinstance(value, Path) else value

    return OmegaConf.to_yaml(as_text(OmegaConf.to_container(settings, resolve=True, enum_to_str=True)))


def writable_schema(schema: type) -> DictConfig:
    """The schema as a typed node without the read-only flags that frozen dataclasses set: files and words merge in."""

    def freed(node: DictConfig) -> DictConfig:
        OmegaConf.set_readonly(node, None)
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig):
                freed(child)
        return node

    return freed(OmegaConf.structured(schema))


def _parsed_arguments(words: list[str]) -> Namespace:
    from hydra._internal.utils import get_args_parser  # the options of hydra's own command line, which follows

    parser = get_args_parser()

    def refuse(message: str) -> None:
        options = [option for action in parser._actions for option in action.option_strings]
        wrong = next((w for w in words if w.startswith("-") and w.partition("=")[0] not in options), "")
        raise ConfigError(message + nearest(wrong, options))

    parser.error = refuse  # type: ignore[assignment]
    args = parser.parse_args(words)
    if args.config_dir and not Path(args.config_dir).is_dir():
        raise ConfigError(f"--config-dir {args.config_dir}: no such folder")
    return args


@contextmanager
def _composer(name: str, config_dir: str | None) -> Iterator[ConfigLoader]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(configs_folder()), job_name=name, version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        if config_dir:
            path = loader.get_search_path()  # the schemas' place is the last, hydra insists
            path.prepend("command-line", f"file://{Path(config_dir).resolve()}", SearchPathQuery(provider="schema"))
            loader = type(loader)(path)  # type: ignore[call-arg]
            GlobalHydra.instance().hydra.config_loader = loader  # type: ignore[union-attr]
        yield loader


def _composed_jobs(name: str, schema: type, loader: ConfigLoader, args: Namespace) -> list[DictConfig]:
    try:
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(args.overrides)
    except HydraException as error:
        raise ConfigError(_unreadable(args.overrides, loader)) from error
    keys = list(_keys(OmegaConf.structured(schema)))
    for override in overrides:
        _check(override, keys, loader, args.multirun)
    jobs = []
    for job in _expanded(overrides):
        try:
            settings = hydra.compose(name, job)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_one_line(error)) from error
        to_dataclass(settings)
        jobs.append(settings)
    _check_folders(jobs)
    return jobs


def _unreadable(words: list[str], loader: ConfigLoader) -> str:
    parser = OverridesParser.create(config_loader=loader)
    for word in words:
        try:
            parser.parse_override(word)
        except HydraException:
            if "=" not in word:
                return f"cannot read '{word}'; settings are written key=value"
            key, _, value = word.partition("=")
            return f"cannot read '{word}'; put an unusual value in quotes: \"{key}='{value}'\""
    return "cannot read the settings"


def _check(override: Override, keys: list[str], loader: ConfigLoader, multirun: bool) -> None:
    key = override.key_or_group
    if key.split("/")[0].split(".")[0] == "hydra":
        return
    word = override.input_line
    if override.is_sweep_override() and not multirun:
        raise ConfigError(f"'{word}' names several values; add -m to run once for each")
    if override.is_delete():
        raise ConfigError(f"'{word}' would take a setting away; give it a value instead")
    if not override.is_sweep_override() and override.value() == "":
        raise ConfigError(f"'{word}' has no value; write {key}=… or {key}=null")
    groups = [group for group in loader.list_groups("") if group != "hydra"]
    if key in groups:
        _check_choice(override, list(_choices(loader, key)))
    elif key not in keys:
        raise ConfigError(f"no setting '{key}'{nearest(key, [*keys, *groups])}")
    elif override.is_add():
        raise ConfigError(f"'{word}': write it without the +, the setting is there already")


def _check_choice(override: Override, names: list[str]) -> None:
    group = override.key_or_group
    values = list(override.sweep_iterator()) if override.is_discrete_sweep() else [override.value()]
    if not values:
        raise ConfigError(f"'{override.input_line}' fits nothing; name the values with commas: {group}=a,b,c")
    for value in values:
        for name in value if isinstance(value, list) else [value]:
            if str(name) not in names:
                raise ConfigError(
                    f"no {group} '{name}'{nearest(str(name), names)}" + " (python -m neuralrecon.objects lists them; "
                    "capture=PATH takes any folder)" * (group == "object")
                )


def _choices(loader: ConfigLoader, group: str) -> Iterator[str]:
    """The files of a config group in every folder on the search path, subfolders too."""

    def below(path: str) -> Iterator[str]:
        yield from (f"{path}/{name}" for name in loader.get_group_options(path, ObjectType.CONFIG))
        for folder in loader.list_groups(path):
            yield from below(f"{path}/{folder}")

    return (name.removeprefix(f"{group}/") for name in below(group))


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in node:
        child = node._get_node(key)
        yield f"{prefix}{key}"
        if isinstance(child, DictConfig) and not child._is_none():
            yield from _keys(child, f"{prefix}{key}.")


def _expanded(overrides: Sequence[Override]) -> list[list[str]]:
    """The words of each job of a sweep; ranges that only an optimiser can draw from are left to it."""
    jobs: list[list[str]] = [[]]
    for override in overrides:
        if not override.is_sweep_override():
            values = [override.input_line or ""]
        elif override.is_discrete_sweep():
            values = [f"{override.get_key_element()}={v}" for v in override.sweep_string_iterator()]
        else:
            continue
        jobs = [[*job, value] for job in jobs for value in values]
    return jobs


def _check_folders(jobs: list[DictConfig]) -> None:
    """Several jobs of a sweep must not write into one folder."""
    outs = [str(OmegaConf.select(job, "out")) for job in jobs if OmegaConf.select(job, "out") is not None]
    twice = next((out for out in outs if outs.count(out) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"{outs.count(twice)} runs would write into {twice}; name what differs: out='DIR/${{object.name}}'"
        )


def _one_line(error: Exception) -> str:
    """What a hydra, omegaconf or value error says, with the key it is about and without the rest."""
    told = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(told, "full_key", None)
    text = next((line.strip() for line in str(told).splitlines() if line.strip()), type(told).__name__)
    return f"{key}: {text}" if key and key not in text.split() else text
