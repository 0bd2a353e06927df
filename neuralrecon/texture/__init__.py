"""Textured models: a run's mesh cut into charts, with a picture baked from the photographs."""

from .atlas import Atlas as Atlas
from .atlas import Texels as Texels
from .atlas import require_xatlas as require_xatlas
from .files import TextureReport as TextureReport
from .files import write_texture_report as write_texture_report
from .files import write_textured as write_textured
from .folder import texture_run as texture_run
from .light import Light as Light
from .picture import evaluate_texture as evaluate_texture
from .stage import BakeReport as BakeReport
from .stage import TextureConfig as TextureConfig
from .stage import TexturedMesh as TexturedMesh
from .stage import bake as bake
