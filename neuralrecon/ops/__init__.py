"""The hot operations, each defined in torch and spelled faster where that pays. Above this package nobody asks which.

One folder an op: `__init__` is the contract, `_torch` the definition, `_cpu` Numba's loops.
"""

from .backends import Backend as Backend
from .backends import use_backend as use_backend
from .composite import composite as composite
from .hash_encode import HashGrid as HashGrid
from .hash_encode import hash_encode as hash_encode
from .march import Samples as Samples
from .march import march as march
