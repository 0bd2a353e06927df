"""Pictures of the pages for the docs: a finished run's report and a sweep's gallery, each as a small JPEG.

    python -m benchmarks report_pictures --run outputs/demo --sweep outputs/demos

Writes report.jpg, report_residuals.jpg and gallery.jpg, and prints what the report's page costs: its size, and seconds
until it has loaded and its 3D view is drawn.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from neuralrecon.files import replacing

from .browser import TIMEOUT_MS, browser, chromium

_MOST_BYTES = 200_000
_SIZE = {"width": 1240, "height": 1000}


def main(words: Sequence[str]) -> int:
    """0, or 2 if there is no browser."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks report_pictures", description=__doc__)
    parser.add_argument("--run", type=Path, help="output folder of a finished run")
    parser.add_argument("--sweep", type=Path, help="output folder of a sweep")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="where the pictures go")
    args = parser.parse_args(words)
    if chromium() is None:
        parser.error("no chromium and no google-chrome on the PATH; install one of them")
    with browser() as started:
        page = started.new_page(viewport=_SIZE)
        page.set_default_timeout(TIMEOUT_MS)
        if args.run:
            _report(page, args.run / "report.html", args.out)
        if args.sweep:
            page.goto((args.sweep / "results.html").resolve().as_uri())
            page.wait_for_load_state("networkidle")
            height = page.evaluate("document.body.getBoundingClientRect().height")
            page.set_viewport_size({**_SIZE, "height": min(_SIZE["height"], round(height))})
            _write(page.screenshot(timeout=TIMEOUT_MS), args.out / "gallery.jpg")
    return 0


def loaded(page: Any) -> tuple[float, float]:
    """Seconds from the start of the navigation to the load event, and to the 3D view's first frame."""
    load_ms, frame_ms = page.evaluate(
        "new Promise(done => { const look = () => {"
        " const frame = performance.getEntriesByName('first-frame')[0];"
        " const load = performance.getEntriesByType('navigation')[0].loadEventEnd;"
        " frame && load ? done([load, frame.startTime]) : setTimeout(look, 20) }; look(); })"
    )
    return load_ms / 1e3, frame_ms / 1e3


def _report(page: Any, file: Path, out: Path) -> None:
    page.goto(file.resolve().as_uri())
    load_s, frame_s = loaded(page)
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB, loaded after {load_s:.2f} s, 3D view after {frame_s:.2f} s")
    page.wait_for_timeout(500)
    _write(page.screenshot(timeout=TIMEOUT_MS), out / "report.jpg")
    page.evaluate("document.getElementById('silhouettes').scrollIntoView()")
    page.wait_for_timeout(200)
    _write(page.screenshot(timeout=TIMEOUT_MS), out / "report_residuals.jpg")


def _write(png: bytes, path: Path) -> None:
    """As a JPEG of at most 200 kB."""
    picture = Image.open(BytesIO(png)).convert("RGB")
    for quality in range(88, 30, -6):
        stream = BytesIO()
        picture.save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() <= _MOST_BYTES:
            break
    with replacing(path) as temporary:
        temporary.write_bytes(stream.getvalue())
    print(f"{path}: {stream.tell() / 1e3:.0f} kB")
