"""Evidence: what the pixels, silhouettes and depth of a capture say about one object, ready to draw rays from."""

from .batch import ColorRays as ColorRays
from .batch import DepthRays as DepthRays
from .hull import VisualHull as VisualHull
from .photographs import Photograph as Photograph
from .scene import Scene as Scene
from .scene import SceneConfig as SceneConfig
from .scene import read_photographs as read_photographs
from .surface_kind import Surface as Surface
from .surface_kind import SurfaceKind as SurfaceKind
