"""Captures on disk: one module a layout, one value (`Capture`) out, pixels one file at a time.

What reads and writes COLMAP models is in `neuralrecon.capture.colmap`, which loads pycolmap.
"""

from .bigbird import read_bigbird as read_bigbird
from .bop import read_bop as read_bop
from .bop import write_bop as write_bop
from .idr import read_idr as read_idr
from .idr import write_idr as write_idr
from .middlebury import read_middlebury as read_middlebury
from .pixels import camera_of as camera_of
from .pixels import read_color as read_color
from .pixels import read_depth as read_depth
from .pixels import read_mask as read_mask
from .plain import read_plain as read_plain
from .plain import write_plain as write_plain
from .points import read_points as read_points
from .read import has_known_layout as has_known_layout
from .read import looks_like_photos as looks_like_photos
from .read import read_capture as read_capture
from .transforms import read_transforms as read_transforms
from .transforms import write_transforms as write_transforms
from .types import Capture as Capture
from .types import Frame as Frame
from .types import Image as Image
from .types import Sensor as Sensor
from .types import SensorKind as SensorKind
from .types import SparsePoints as SparsePoints
