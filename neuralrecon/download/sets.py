"""Which archives a data set's object has, and where servers keep them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..usage import nearest
from .settings import DownloadConfig

# the path of each part below a server's base address
_YCB = {
    "rgbd": "berkeley/{object}/{object}_berkeley_rgbd.tgz",
    "rgb_highres": "berkeley/{object}/{object}_berkeley_rgb_highres.tgz",
    "meshes": "berkeley/{object}/{object}_berkeley_meshes.tgz",
    "google_16k": "google/{object}_google_16k.tgz",
    "google_64k": "google/{object}_google_64k.tgz",
    "google_512k": "google/{object}_google_512k.tgz",
}
_BIGBIRD = {part: f"{{alias}}/export/{{object}}/{part}.tgz" for part in ("rgbd", "rgb_highres", "processed")}
_PARTS = {"ycb": _YCB, "bigbird": _BIGBIRD}
# published lists name it so, the server does not
_SPELLED = {"ycb/039_keys": "ycb/039_key"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One archive on a server: `folder`, such as "ycb/003_cracker_box", is also where it goes under the data root.

    `urls` are tried in their order; `size` in bytes is what the server announced, None while that is not known.
    """

    folder: str
    part: str
    urls: tuple[str, ...]
    size: int | None = None

    @property
    def key(self) -> str:
        return f"{self.folder}/{self.part}"

    @property
    def object(self) -> str:
        return self.folder.rpartition("/")[2]

    def packed(self, data: Path) -> Path:
        """Where the archive is kept, once it is whole, until it is unpacked."""
        return data / "archives" / self.folder / f"{self.part}.tgz"


def archives_of(folders: Sequence[str], config: DownloadConfig) -> list[Archive]:
    """The archives of these objects, each named by its folder under the data root; none twice.

    Raises:
        ConfigError: nothing is named, a data set is none of ours, or it has no such part.
    """
    if not folders:
        raise ConfigError("nothing to download: give an object, as in object=ycb/003_cracker_box")
    wanted = dict.fromkeys(_SPELLED.get(folder, folder) for folder in folders)
    return [_archive(folder, part, config) for folder in wanted for part in dict.fromkeys(config.parts)]


def _archive(folder: str, part: str, config: DownloadConfig) -> Archive:
    name, _, item = folder.partition("/")
    if name == "demo":
        raise ConfigError(f"{folder}: demo objects are simulated when they are first used; there is nothing to fetch")
    if name not in _PARTS or not item or "/" in item or item.startswith("."):
        raise ConfigError(f"{folder}: want a data set and an object, as in ycb/003_cracker_box or bigbird/detergent")
    paths = _PARTS[name]
    if part not in paths:
        raise ConfigError(f"{folder} has no part '{part}'{nearest(part, paths)}; {name} has {', '.join(paths)}")
    servers = {"ycb": config.ycb_servers, "bigbird": config.bigbird_servers}[name]
    aliases = config.bigbird_aliases if name == "bigbird" else [""]
    urls = (
        f"{server.rstrip('/')}/{paths[part].format(object=item, alias=alias)}"
        for server in servers
        for alias in aliases
    )
    return Archive(folder=folder, part=part, urls=tuple(urls))
