"""From a rough calibration, or from photographs alone, to metric poses with a report. Loads pycolmap."""

from .photos import PhotosConfig as PhotosConfig
from .report import table_of as table_of
from .stage import Method as Method
from .stage import calibrate_capture as calibrate_capture
from .types import CalibrateConfig as CalibrateConfig
from .types import Calibration as Calibration
from .types import SensorChange as SensorChange
from .types import Stops as Stops
