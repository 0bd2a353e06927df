"""List the objects that `object=` takes.

python -m neuralrecon.objects             every object file
python -m neuralrecon.objects mustard     those with a word in their name
python -m neuralrecon.objects --on-disk   those whose folder is there (under NEURALRECON_DATA, else ./data)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from . import configs_folder, object_names


def is_on_disk(name: str, data: Path) -> bool:
    """Whether the folder that an object file names is there."""
    entry = OmegaConf.load(configs_folder() / "object" / f"{name}.yaml")
    folder = OmegaConf.select(entry, "folder") or OmegaConf.select(entry, "object.folder")
    return (data / str(folder)).is_dir()


def cli(argv: Sequence[str] | None = None) -> int:
    """Print one name a line; exit status 2 for an unknown option or when nothing fits."""
    args = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(args):
        print(__doc__)
        return 0
    unknown = [arg for arg in args if arg.startswith("-") and arg != "--on-disk"]
    if unknown:
        print(f"neuralrecon.objects: no option {unknown[0]}; known are --on-disk and --help", file=sys.stderr)
        return 2
    words = [arg for arg in args if not arg.startswith("-")]
    names = [name for name in object_names() if all(word in name for word in words)]
    if "--on-disk" in args:
        data = Path(os.environ.get("NEURALRECON_DATA", "data"))
        names = [name for name in names if is_on_disk(name, data)]
    if not names:
        print(f"neuralrecon.objects: no object fits {' '.join(args)}", file=sys.stderr)
        return 2
    print("\n".join(names))
    return 0


if __name__ == "__main__":
    sys.exit(cli())
