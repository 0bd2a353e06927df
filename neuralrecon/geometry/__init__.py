"""Transforms, cameras, rays and boxes: pure torch, no I/O.

Frames are named in every transform: ``target_from_source``. Lengths are metres unless the name says otherwise.
"""

from .camera import Camera as Camera
from .rays import Box as Box
from .rays import Rays as Rays
from .transforms import Rigid as Rigid
from .transforms import Similarity as Similarity
