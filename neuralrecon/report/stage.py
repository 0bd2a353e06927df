"""From a run's folder to one page that holds everything there is to see of it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from ..files import replacing
from ..train.run_folder import PREVIEW_FILE, REPORT_FILE
from .casting import Caster
from .depths import depths
from .evidence import observed
from .fitting import calibration, training
from .overview import header, settings_and_log
from .page import document
from .run_files import Run
from .silhouettes import silhouettes
from .surface import Surface, view_3d
from .truth import against_truth
from .turnaround import held_out, preview, turnaround

_log = logging.getLogger(__name__)

_ASSETS = ("page.css", "viewer.js")
_PREVIEW_PX, _PREVIEW_GROUND = 320, (236, 236, 234)


def write_report(run: Run) -> Path:
    """Writes `report.html`, one file that asks nothing of a network, and `preview.jpg` into the run's folder.

    What a run has not (a truth, depth, photographs) leaves its section out with a line that says why.

    Raises:
        CaptureError: an image of the capture or a file of the run is missing or broken; the message names it.

    Example:
        >>> write_report(Run.read(Path("outputs/cup")))  # doctest: +SKIP
    """
    started = time.perf_counter()
    caster, surface = Caster.of(run.mesh), Surface.of(run)
    sections = [
        view_3d(run, surface),
        turnaround(run, caster),
        held_out(run),
        silhouettes(run, caster),
        depths(run, caster),
        against_truth(run, surface),
        observed(run),
        calibration(run),
        training(run),
        *settings_and_log(run),
    ]
    page = document(f"{run.summary['name']}: report", header(run), sections, assets=_ASSETS)
    path = run.folder / REPORT_FILE
    _write_preview(caster, run.folder / PREVIEW_FILE)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    _log.info("report: %.1f MB in %.1f s", path.stat().st_size / 1e6, time.perf_counter() - started)
    return path


def _write_preview(caster: Caster, path: Path) -> None:
    """On a light ground: a JPEG has no transparency."""
    shot = preview(caster, _PREVIEW_PX).astype(np.float64)
    opacity = shot[..., 3:] / 255
    flat = shot[..., :3] * opacity + np.array(_PREVIEW_GROUND) * (1 - opacity)
    with replacing(path) as temporary:
        Pillow.fromarray(flat.round().astype(np.uint8)).save(temporary, quality=85)
