"""The hot operations, each defined in torch and spelled faster where that pays. Above this package nobody asks which.

One folder an op: `__init__` is the contract, `_torch` the definition, `_cpu` Numba's loops, `_triton` kernels for GPUs,
`_nerfacc` another library behind the same contract.
"""

from .adam import AdamSettings as AdamSettings
from .adam import adam_step as adam_step
from .align_patches import Alignment as Alignment
from .align_patches import Patches as Patches
from .align_patches import align_patches as align_patches
from .align_patches import sample_patches as sample_patches
from .backends import Backend as Backend
from .backends import use_backend as use_backend
from .color_query import ColorNetwork as ColorNetwork
from .color_query import color_query as color_query
from .composite import composite as composite
from .hash_encode import HashGrid as HashGrid
from .hash_encode import hash_encode as hash_encode
from .hash_encode import hash_features as hash_features
from .march import Band as Band
from .march import Samples as Samples
from .march import march as march
from .neus_alpha import neus_alpha as neus_alpha
from .ray_motion import ray_motion as ray_motion
from .sdf_query import SdfNetwork as SdfNetwork
from .sdf_query import sdf_query as sdf_query
from .sdf_query import sdf_values as sdf_values
from .shading import N_SHADING as N_SHADING
from .shading import shading as shading
