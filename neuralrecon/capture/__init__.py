"""Captures on disk: one module a layout, one value (`Capture`) out, pixels one file at a time."""

from .bigbird import read_bigbird as read_bigbird
from .idr import read_idr as read_idr
from .pixels import camera_of as camera_of
from .pixels import read_color as read_color
from .pixels import read_depth as read_depth
from .pixels import read_mask as read_mask
from .plain import read_plain as read_plain
from .plain import write_plain as write_plain
from .read import read_capture as read_capture
from .types import Capture as Capture
from .types import Frame as Frame
from .types import Image as Image
from .types import Sensor as Sensor
from .types import SensorKind as SensorKind
