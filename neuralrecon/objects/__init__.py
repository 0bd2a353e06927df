"""The shipped object files: small YAML files that name an object of a data set and its folder under the data root."""

from __future__ import annotations

from pathlib import Path


def configs_folder() -> Path:
    """The folder with the shipped configuration files: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def object_names(configs: Path | None = None) -> list[str]:
    """The names that `object=` takes, such as "bigbird/cheez_it", sorted.

    Args:
        configs: a folder with `object/{set}/{name}.yaml` files; the shipped one by default.

    Example:
        >>> "demo/box" in object_names()
        True
    """
    folder = (configs or configs_folder()) / "object"
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
