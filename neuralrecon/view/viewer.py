"""`show`: a viewer of runs in the browser, as a handle that can be stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from .jobs import Jobs
from .runs import Run, runs_of
from .server import opened_server, stop_server, url_of
from .settings import ViewConfig
from .worker import Worker


class Viewer:
    """A server at `url` and one thread that computes what its visitors see. Stop it when it is no longer needed.

    Use it in a `with` block, or call `stop`. It never writes into a run's folder, but for a note that asks the
    process which trains it for a snapshot.
    """

    def __init__(self, runs: Sequence[Run], config: ViewConfig) -> None:
        self.config, self._is_stopped = config, False
        self.server = opened_server(config.host, config.port, "neuralrecon")
        try:
            self._open(runs)
        except BaseException:
            stop_server(self.server)
            raise

    def _open(self, runs: Sequence[Run]) -> None:
        self.server.gui.configure_theme(control_width="large", show_logo=False, show_share_button=False)
        self.jobs = Jobs(runs, self.config, self.server)
        self.worker = Worker(
            self.jobs.table(),
            look=self.jobs.look,
            is_watched=lambda: bool(self.server.get_clients()),
            is_beside_training=lambda: self.jobs.shown.run.is_trained,
            tell=self.jobs.tell,
        )
        self.jobs.ask = self.worker.ask
        self.server.on_client_connect(self.jobs.show_client)
        self.worker.ask("object")
        self.worker.start()

    @property
    def url(self) -> str:
        """What to open in a browser."""
        return url_of(self.config.host, self.config.port)

    def wait_idle(self, timeout_s: float) -> bool:
        """Whether, within this time, all that was asked for is on the screen; it needs a visitor."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if self.worker.is_idle:
                return True
            time.sleep(0.02)
        return False

    def stop(self) -> None:
        """Close the port, end all connections and threads. A second call does nothing."""
        self.worker.stop()
        if not self._is_stopped:
            self._is_stopped = True
            stop_server(self.server)

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def show(run: Path | str | Sequence[Path | str], config: ViewConfig | None = None) -> Viewer:
    """Show a run, several, or all runs in a folder such as a sweep's, at http://127.0.0.1:8080 unless told otherwise.

    Runs that are being trained are followed. Nothing is computed before a browser is connected.

    Args:
        run: the folder of a run or of a sweep, or several of them.
        config: host, port and how finely is drawn.

    Raises:
        ConfigError: no such folder, no run with a fit in it, a port that is taken, or viser is not installed.

    Example:
        >>> viewer = show("outputs/cup")  # doctest: +SKIP
        >>> viewer.url  # doctest: +SKIP
        'http://127.0.0.1:8080'
        >>> viewer.stop()  # doctest: +SKIP
    """
    folders = [run] if isinstance(run, Path | str) else list(run)
    return Viewer(runs_of([Path(folder) for folder in folders]), config or ViewConfig())
