"""Download objects of YCB and BigBIRD and unpack them to where `python -m neuralrecon.train object=…` looks for them.

object=NAME,NAME names them: `python -m neuralrecon.objects` lists the names, object=ycb/07* takes all that fit, and
object=all takes every object of both sets (hundreds of GB). Interrupted downloads go on when the same command is given
again; finished parts are not fetched again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from omegaconf import OmegaConf

from ..config import Command, part_of
from ..errors import ConfigError
from ..objects import configs_folder, object_names
from ..usage import as_list, nearest
from . import DownloadConfig, download

_SETS = ("ycb/", "bigbird/")


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadCommand(DownloadConfig):
    """Settings of the command.

    Attributes:
        objects: what to download; object=a,b is the same as objects=[a,b].
    """

    objects: list[str] = field(default_factory=list)


def main(config: DownloadCommand) -> float:
    """The number of objects."""
    folders = download(folders_of(config.objects), part_of(config, DownloadConfig))
    for folder in folders:
        print(folder)
    return float(len(folders))


def folders_of(words: Sequence[str]) -> list[str]:
    """The folders of the objects that names, patterns and "all" stand for.

    Raises:
        ConfigError: no object fits a word.
    """
    offered = [name for name in object_names() if name.startswith(_SETS)]
    folders: dict[str, None] = {}
    for word in words:
        pattern = "*" if word == "all" else word
        names = [name for name in offered if fnmatchcase(name, pattern)]
        if not names and word == "ycb/039_keys":
            names = ["ycb/039_key"]
        if not names:
            raise ConfigError(
                f"no object '{word}'{nearest(word, offered)} (python -m neuralrecon.objects lists them; "
                "demos are simulated, not downloaded)"
            )
        files = (configs_folder() / "object" / f"{name}.yaml" for name in names)
        folders |= dict.fromkeys(str(OmegaConf.load(file).folder) for file in files)
    return list(folders)


def as_lists(words: Sequence[str]) -> list[str]:
    """`object=a,b` as `objects=[a,b]`, and likewise for parts: several names are one download, no sweep."""
    return [as_list(word, {"object": "objects", "objects": "objects", "parts": "parts"}) for word in words]


command = Command(
    name="download",
    schema=DownloadCommand,
    main=main,
    about=__doc__ or "",
    examples=[
        ("object=ycb/003_cracker_box", "what a run needs of one object, into data/ycb/003_cracker_box"),
        ("object=ycb/025_mug,bigbird/detergent data=/data", "two, under another data root"),
        ("'object=ycb/06*' parts=rgbd,rgb_highres,google_16k", "all that fit, with Google's meshes"),
        ("object=bigbird/windex keep_archives=true at_once=1", "one archive at a time, kept after unpacking"),
    ],
)


def cli(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all is there, 1 something failed and the message names it, 2 the command line is wrong."""
    return command(as_lists(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(cli())
