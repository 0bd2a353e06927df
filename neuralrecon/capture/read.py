"""One door for all layouts."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from ..errors import CaptureError
from .bigbird import looks_like_bigbird, read_bigbird
from .findings import listed
from .idr import idr_cameras, read_idr
from .plain import CAPTURE_FILE, read_plain
from .types import Capture


def read_capture(path: str | Path, *, allow_partial: bool = False) -> Capture:
    """A capture folder of any known layout; which one it took is in `Capture.layout`.

    ``capture.json`` makes it a plain folder, ``calibration.h5`` (or BigBIRD's file names) BigBIRD,
    ``cameras_sphere.npz`` or ``cameras.npz`` IDR/NeuS. What is merely absent is listed in `left_out`; with
    `allow_partial` what is broken is, too.

    Raises:
        CaptureError: no such folder, no known layout, or something in it is broken.
        CalibrationError: (a CaptureError) intrinsics or poses are.

    Example:
        >>> capture = read_capture("data/bigbird/cheez_it_white_cheddar")  # doctest: +SKIP
        >>> capture.layout, len(capture.images)  # doctest: +SKIP
        ('bigbird', 1800)
    """
    root = Path(path)
    if not root.is_dir():
        raise CaptureError(_no_folder(root))
    if (root / CAPTURE_FILE).exists():
        return read_plain(root, allow_partial=allow_partial)
    if looks_like_bigbird(root):
        return read_bigbird(root, allow_partial=allow_partial)
    if idr_cameras(root):
        return read_idr(root, allow_partial=allow_partial)
    names = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))
    raise CaptureError(
        f"{root}: no capture of a known layout: looked for {CAPTURE_FILE} (plain), calibration.h5 or N1_0.jpg "
        f"(BigBIRD, YCB) and cameras_sphere.npz or cameras.npz (IDR, NeuS); the folder has "
        f"{listed(names) or 'nothing in it'}; give the folder of one object"
    )


def _no_folder(path: Path) -> str:
    if path.exists():
        return f"{path}: is a file, want the folder that holds the capture; give {path.parent}"
    parent = next(p for p in path.absolute().parents if p.is_dir())
    if parent != path.absolute().parent:
        return f"{path}: no such folder; the nearest that exists is {parent}; check the path"
    siblings = sorted(p.name for p in parent.iterdir() if p.is_dir())
    near = get_close_matches(path.name, siblings, n=3, cutoff=0.4)
    return f"{path}: no such folder; {parent} has {listed(near or siblings) or 'no folders'}; check the name"
