"""Runs in the browser, finished ones and those that are being trained. Needs viser (the extra `view`)."""

from .settings import ViewConfig as ViewConfig
from .viewer import Viewer as Viewer
from .viewer import show as show
