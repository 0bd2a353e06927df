"""The web server: the one module that loads viser."""

from __future__ import annotations

import socket
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    import viser


def require_viser() -> None:
    """Raises ConfigError where viser is not installed."""
    if find_spec("viser") is None:
        raise ConfigError('the viewer needs viser, which is not installed: pip install -e ".[view]"')


def require_port(host: str, port: int) -> None:
    """That a server can listen there.

    Raises:
        ConfigError: the port is taken, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise ConfigError(f"host {host}: no address of this machine ({error.strerror}); give 127.0.0.1") from error
    except OSError as error:
        raise ConfigError(
            f"port {port} of {host} cannot be listened at ({error.strerror}); stop what uses it, or give another one"
        ) from error


def opened_server(host: str, port: int, label: str) -> viser.ViserServer:
    """A server that listens there and nowhere else; `stop_server` ends it.

    Raises:
        ConfigError: viser is not installed, or the port is taken.
    """
    require_viser()
    require_port(host, port)
    import viser

    with redirect_stdout(StringIO()):  # its banner: the address is told by who opens it
        server = viser.ViserServer(host=host, port=port, label=label, verbose=False)
    if server.get_port() != port:  # somebody was quicker, and viser has gone on to the next free one
        stop_server(server)
        raise ConfigError(f"port {port} of {host} was taken just now; stop what uses it, or give another one")
    return server


def stop_server(server: viser.ViserServer) -> None:
    """Close all connections and the port; its threads have ended when this returns."""
    with redirect_stdout(StringIO()):
        server.stop()
    server._thread_executor.shutdown(wait=True)


def url_of(host: str, port: int) -> str:
    """What to type into a browser; on all addresses, this machine's own."""
    shown = "localhost" if host in ("0.0.0.0", "::") else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
