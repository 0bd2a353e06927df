"""Captures on disk: one module a layout, one value (`Capture`) out."""

from .types import Capture as Capture
from .types import Frame as Frame
from .types import Image as Image
from .types import Sensor as Sensor
from .types import SensorKind as SensorKind
