"""From model, rays and occupied cells to what a camera would see."""

from .occupancy import Occupancy as Occupancy
from .rendering import RaySamples as RaySamples
from .rendering import Rendering as Rendering
from .rendering import free_room as free_room
from .rendering import render as render
from .rendering import render_view as render_view
from .rendering import sample_rays as sample_rays
