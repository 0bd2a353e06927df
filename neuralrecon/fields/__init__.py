"""The learned solid: where its surface is, and how it looks."""

from .sensors import SensorModel as SensorModel
from .surface_model import FieldConfig as FieldConfig
from .surface_model import SurfaceModel as SurfaceModel
