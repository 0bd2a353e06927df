"""A finished run for other programs: pose estimation, simulators, radiance fields."""

from .body import BodyConfig as BodyConfig
from .body import RigidBody as RigidBody
from .body import rigid_body as rigid_body
from .bop import BopConfig as BopConfig
from .bop import write_bop_dataset as write_bop_dataset
from .colmap import write_colmap_project as write_colmap_project
from .nerfstudio import surface_points as surface_points
from .nerfstudio import write_nerfstudio as write_nerfstudio
from .photographs import Images as Images
from .simulators import write_mjcf as write_mjcf
from .simulators import write_urdf as write_urdf
from .stage import ExportConfig as ExportConfig
from .stage import Exported as Exported
from .stage import ExportFormat as ExportFormat
from .stage import export as export
from .usd import write_usd as write_usd
