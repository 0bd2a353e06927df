"""From a fit to a closed mesh in metres."""

from .mesh import MeshConfig as MeshConfig
from .mesh import extract_mesh as extract_mesh
from .mesh import glb_of as glb_of
from .mesh import simplify_mesh as simplify_mesh
from .mesh import write_mesh as write_mesh
