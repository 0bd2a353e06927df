"""A visitor of the viewer without a browser: it connects, says where its camera is, and reads what it is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec.msgpack
import viser
from viser import _messages
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol


@contextmanager
def visiting(url: str, timeout_s: float = 60.0) -> Iterator[None]:
    """Be connected to the viewer at `url` during the block."""
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
    with socket:
        camera = _messages.ViewerCameraMessage(
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
        socket.send(msgspec.msgpack.encode(camera.as_serializable_dict([])))

        def read() -> None:
            try:
                for _ in socket:
                    pass
            except ConnectionClosed:
                pass

        reader = threading.Thread(target=read, name="visitor")
        reader.start()
        try:
            yield
        finally:
            socket.close()
            reader.join()
