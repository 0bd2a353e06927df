"""Pictures of the viewer for docs/viewer.md: a finished run in headless Chromium.

python -m benchmarks.viewer_pictures RUN [--out docs/images]
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from neuralrecon.files import replacing
from neuralrecon.view import ViewConfig, Viewer, show
from neuralrecon.view.panel import OWN_CAMERA, Cameras, Panel
from neuralrecon.view.points import PointKind
from neuralrecon.view.surfaces import Paint
from neuralrecon.view.viewpoints import Shows

from .visitor import browsing, chromium

_SIZE = (1180, 700)
_PATIENCE_S = 300.0
_SETTLE_S = 4.0  # a CPU draws
_MOST_BYTES = 200_000


def main(words: Sequence[str] | None = None) -> int:
    """0, or 1 without Chromium."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.viewer_pictures", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", nargs="+", choices=list(_SCENES), default=list(_SCENES))
    args = parser.parse_args(words)
    if chromium() is None:
        print("no chromium is installed", file=sys.stderr)
        return 1
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with show(args.run, ViewConfig(port=port, cells=160, picture_px=384)) as viewer, browsing(*_SIZE) as page:
        page.goto(viewer.url)
        _wait(viewer)
        _dismiss(page)
        for name in args.only:
            tab, arrange = _SCENES[name]
            _reset(viewer.jobs.panel)
            _look(viewer, 1.0)
            arrange(viewer)
            _wait(viewer)
            page.get_by_role("tab", name=tab).click()
            time.sleep(_SETTLE_S)
            print(_written(args.out / f"viewer_{name}.jpg", page.screenshot()))
    return 0


def _reset(panel: Panel) -> None:
    panel.cameras.value, panel.paint.value, panel.level_mm.value = Cameras.none, Paint.clay, 0.0
    panel.hull.value = panel.clips.value = panel.slice.value = False
    panel.surface.value = True
    panel.eye.value, panel.shows.value = OWN_CAMERA, Shows.color
    for box in panel.labels.values():
        box.value = False


def _rig(viewer: Viewer) -> None:
    viewer.jobs.panel.cameras.value, viewer.jobs.panel.paint.value = Cameras.one_stop, Paint.color
    _look(viewer, 4.0)


def _surface(viewer: Viewer) -> None:
    viewer.jobs.panel.paint.value = Paint.color


def _plane(viewer: Viewer) -> None:
    panel = viewer.jobs.panel
    panel.axis.value, panel.clips.value, panel.slice.value = "y", True, True
    panel.flipped.value = True


def _labels(viewer: Viewer) -> None:
    panel = viewer.jobs.panel
    panel.surface.value, panel.clips.value, panel.flipped.value = False, True, True
    panel.axis.value = "y"
    for kind in PointKind:
        panel.labels[kind].value = True


def _beside(shows: Shows) -> Callable[[Viewer], None]:
    def arrange(viewer: Viewer) -> None:
        panel = viewer.jobs.panel
        panel.paint.value = Paint.color
        photographs = [name for name in panel.eye.options if name.startswith(("N3", "camera0"))]
        panel.eye.value, panel.shows.value = (photographs or panel.eye.options)[-1], shows

    return arrange


_SCENES: dict[str, tuple[str, Callable[[Viewer], None]]] = {
    "rig": ("Scene", _rig),
    "surface": ("Surface", _surface),
    "plane": ("Plane", _plane),
    "labels": ("Scene", _labels),
    "view": ("View", _beside(Shows.color)),
    "normals": ("View", _beside(Shows.normal)),
    "depth": ("View", _beside(Shows.depth)),
    "inliers": ("View", _beside(Shows.inliers)),
    "curves": ("Curves", lambda viewer: None),
}


def _look(viewer: Viewer, times: float) -> None:
    """From where windows begin, so many times as far away; a little to the side, where no panel is."""
    initial = viewer.server.initial_camera
    away = initial.position - initial.look_at
    right = np.cross(-away, [0.0, 0.0, 1.0])
    aside = 0.22 * np.linalg.norm(away) * right / np.linalg.norm(right)
    for client in viewer.server.get_clients().values():
        with client.atomic():
            client.camera.position = initial.look_at + times * (away + aside)
            client.camera.look_at = initial.look_at + times * aside


def _wait(viewer: Viewer) -> None:
    until = time.monotonic() + _PATIENCE_S
    while not viewer.server.get_clients() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1.0)
    assert viewer.wait_idle(_PATIENCE_S), "the viewer did not come to rest"
    assert not viewer.jobs.panel.trouble.content, viewer.jobs.panel.trouble.content


def _dismiss(page: Any) -> None:
    """The browser's remark that no GPU draws."""
    remark = page.get_by_text("Software WebGL rendering detected")
    if remark.count():
        remark.locator("xpath=ancestor::*[.//button][1]").get_by_role("button").first.click()


def _written(file: Path, screenshot: bytes) -> Path:
    picture = Image.open(BytesIO(screenshot)).convert("RGB")
    for quality in range(88, 40, -6):
        data = BytesIO()
        picture.save(data, format="JPEG", quality=quality, optimize=True)
        if data.tell() <= _MOST_BYTES:
            break
    with replacing(file) as temporary:
        temporary.write_bytes(data.getvalue())
    return file


if __name__ == "__main__":
    sys.exit(main())
