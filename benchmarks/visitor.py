"""Visitors of the viewer: one without a browser, which reads all that it is sent, and headless Chromium.

    python -m benchmarks.visitor URL light|browser        # until its standard input ends; says "there" when it is

Chromium draws with the CPU here. It has the lowest priority, as who trains on a machine rarely looks on from there.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

LIGHT, BROWSER = "light", "browser"
_LEAST_PRIORITY = 19
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def chromium() -> str | None:
    """The path of an installed Chromium."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def visiting(url: str, timeout_s: float = 60.0) -> Iterator[None]:
    """Be connected to the viewer at `url` during the block, with a camera half a metre below the world's origin."""
    import msgspec.msgpack
    import viser
    from viser._messages import ViewerCameraMessage
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    until = time.monotonic() + timeout_s
    while True:
        try:
            socket = connect(
                url.replace("http", "ws", 1),
                subprotocols=[Subprotocol(f"viser-v{viser.__version__}")],
                max_size=None,
                compression=None,
                ping_interval=None,
            )
            break
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    camera = ViewerCameraMessage(
        wxyz=(1.0, 0.0, 0.0, 0.0),
        position=(0.0, 0.0, -0.5),
        fov=0.8,
        near=0.01,
        far=100.0,
        image_height=300,
        image_width=400,
        look_at=(0.0, 0.0, 0.0),
        up_direction=(0.0, -1.0, 0.0),
    )

    def read() -> None:
        try:
            for _ in socket:
                pass
        except ConnectionClosed:
            pass

    with socket:
        socket.send(msgspec.msgpack.encode(camera.as_serializable_dict([])))
        reader = threading.Thread(target=read, name="visitor")
        reader.start()
        try:
            yield
        finally:
            socket.close()
            reader.join()


@contextmanager
def browsing(width: int = 960, height: int = 600) -> Iterator:
    """A page of headless Chromium, by playwright; every process of it has the lowest priority."""
    from playwright.sync_api import sync_playwright

    found = chromium()
    assert found is not None
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        wrapper = Path(folder) / "chromium"
        wrapper.write_text(f'#!/bin/sh\nexec nice -n {_LEAST_PRIORITY} "{found}" "$@"\n')
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        browser = playwright.chromium.launch(executable_path=str(wrapper), args=list(_FLAGS))
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(180_000)
            yield page
        finally:
            browser.close()


def main(words: Sequence[str]) -> int:
    """0 when the standard input has ended."""
    url, kind = words
    if hasattr(os, "nice"):
        os.nice(_LEAST_PRIORITY)
    if kind == LIGHT:
        with visiting(url):
            _stay()
    else:
        with browsing() as page:
            page.goto(url)
            _stay()
    return 0


def _stay() -> None:
    print("there", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
