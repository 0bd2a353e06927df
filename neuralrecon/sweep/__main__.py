"""Reconstruct many objects, in processes of their own, and keep one table of verdicts.

`run` takes object=NAME,NAME or patterns of names, captures=FOLDER,FOLDER or patterns, and the settings of
`python -m neuralrecon.train`, which hold for every object. Given again with the same `out` it does what is missing, and
what failed or is poor if settings or captures have changed since or the machine was at fault; force=true does all.
`status run=DIR` shows how far it is.
"""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from ..config import Command
from ..errors import ConfigError
from ..objects import object_names
from ..train.__main__ import cli as train
from ..train.run_config import RunConfig
from ..usage import as_list, described_keys, nearest
from . import Job, SweepConfig, job_of, sweep
from .jobs import names_of_captures
from .status import show

_LISTS = {"object": "objects", "objects": "objects", "capture": "captures", "captures": "captures"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusConfig:
    """Settings of `status`.

    Attributes:
        run: the folder of a sweep, its `out`.
        follow: go on until the sweep ends.
        at_most: rows that are shown.
    """

    run: Path
    follow: bool = True
    at_most: int = 40


def cli(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 every object has a mesh, 1 some failed, 2 the command line is wrong, 128 + n ended by signal n."""
    words = list(sys.argv[1:] if argv is None else argv)
    which, rest = (words[0], words[1:]) if words else ("", [])
    if which == "status":
        return status(rest if sys.stdout.isatty() else ["follow=false", *rest])
    if which in ("run", "-h", "--help"):
        own, others = _split([as_list(word, _LISTS) for word in (rest if which == "run" else words)])
        return replace(run, main=partial(_sweep, others))(own)
    sys.stderr.write(f"neuralrecon.sweep: wanted run or status, got '{which}'; --help tells more\n")
    return 2


def _sweep(words: list[str], config: SweepConfig) -> float:
    """The number of objects."""
    return float(len(sweep(list(_jobs(config, words)), config)))


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sweep's own words, and those of every run."""
    own_keys = {key for key, *_ in described_keys(SweepConfig, {})}
    own: list[str] = []
    others: list[str] = []
    for word in words:
        if (others and others[-1] in ("--config-dir", "-cd")) or word.startswith(("--config-dir", "-cd")):
            others.append(word)
        elif "=" not in word or word.startswith("-") or word.partition("=")[0] in own_keys:
            own.append(word)
        else:
            others.append(word)
    return own, others


def _jobs(config: SweepConfig, words: list[str]) -> Iterator[Job]:
    """One for each object and each capture, with its settings checked.

    Raises:
        ConfigError: a setting, an object or a capture is none.
    """
    [base] = train.settings(words)
    if base.out is not None or base.overwrite:
        raise ConfigError("overwrite is the sweep's own: force=true does everything anew")
    if base.viewer:
        raise ConfigError(f"viewer=true is for one run; python -m neuralrecon.view run={config.out} shows a sweep's")
    names = list(dict.fromkeys(name for word in config.objects for name in _objects(word)))
    if names:
        composed = train.settings(["-m", f"object={','.join(names)}", *words])
        for name, settings in zip(names, composed, strict=True):
            yield job_of(name, [*words, f"object={name}"], settings)
    folders = [folder for word in config.captures for folder in _captures(word)]
    for name, folder in zip(names_of_captures(folders), folders, strict=True):
        settings: RunConfig = replace(base, capture=folder)
        if name in names:
            raise ConfigError(f"captures: {folder} has the name of an object that is named too")
        yield job_of(name, [*words, f"capture={_quoted(folder)}"], settings)


def _objects(word: str) -> list[str]:
    if not set(word) & set("*?["):
        return [word]
    found = [name for name in object_names() if fnmatchcase(name, word)]
    if not found:
        raise ConfigError(f"no object fits '{word}'{nearest(word, object_names())}")
    return found


def _captures(word: str) -> list[Path]:
    if not set(word) & set("*?["):
        return [Path(word).absolute()]
    found = [Path(path).absolute() for path in sorted(glob.glob(word)) if Path(path).is_dir()]
    if not found:
        raise ConfigError(f"captures: no folder fits '{word}'")
    return found


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


run = Command(
    name="sweep",
    schema=SweepConfig,
    main=partial(_sweep, []),
    about=__doc__ or "",
    examples=[
        ("run object=demo/box,demo/mug out=outputs/demos", "two objects, one after the other"),
        (
            "run 'object=ycb/06*' out=outputs/ycb workers=4 fit.steps=2000",
            "four at a time, each with that setting",
        ),
        ("run captures='data/mine/*' out=outputs/mine engine=ray workers=2", "captures of one's own, over Ray"),
        ("run captures='data/mine/*' out=outputs/mine engine=ray address=auto gpus_each=1", "on a running cluster"),
        ("status run=outputs/mine", "a table that follows a sweep"),
    ],
)
status = Command(
    name="sweep_status",
    schema=StatusConfig,
    main=lambda config: show(config.run, follow=config.follow, at_most=config.at_most) or 0.0,
    about="Show what a sweep is at.",
    examples=[("status run=outputs/mine", "the folder of the sweep")],
)

if __name__ == "__main__":
    sys.exit(cli())
