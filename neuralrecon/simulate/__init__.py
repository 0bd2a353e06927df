"""A turntable rig in the computer: any mesh, four materials, written as a BigBIRD capture with ground truth."""

from .recording import simulate as simulate
from .settings import Material as Material
from .settings import SimulateConfig as SimulateConfig
from .shapes import BUILTIN_MESHES as BUILTIN_MESHES
from .shapes import TexturedMesh as TexturedMesh
from .shapes import builtin_mesh as builtin_mesh
