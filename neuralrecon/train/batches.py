"""What each step looks at, drawn for several steps at once: most of the cost is per call, not per ray."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..scene import ColorRays, DepthRays, Scene
from ..scene.batch import moved, part_of
from .fit_types import FitConfig

_STEPS_AHEAD = 16


@dataclass(slots=True, kw_only=True)
class Batches:
    """The rays of any step, which depend on the scene, the configuration, the seed and the step alone.

    They are drawn on the host, where the photographs stay, and moved to `device` together.
    """

    scene: Scene
    config: FitConfig
    seed: int
    device: torch.device
    _deck: int = field(default=-1, init=False)
    _colors: ColorRays | None = field(default=None, init=False)
    _depths: DepthRays | None = field(default=None, init=False)

    def at(self, step: int) -> tuple[ColorRays | None, DepthRays | None]:
        """Rays through photographs and depth readings; None of what the capture has not."""
        deck, place = divmod(step, _STEPS_AHEAD)
        if deck != self._deck:
            self._draw(deck)
        n_colors, n_depths = self.config.interior_rays + self.config.edge_rays, self.config.depth_rays
        colors, depths = self._colors, self._depths
        return (
            None if colors is None else part_of(colors, slice(place * n_colors, (place + 1) * n_colors)),
            None if depths is None else part_of(depths, slice(place * n_depths, (place + 1) * n_depths)),
        )

    def _draw(self, deck: int) -> None:
        # a generator of its own for each deck, so that a fit can go on from any step
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + deck + 1)
        c, self._deck = self.config, deck
        if self.scene.pixels is not None:
            drawn = self.scene.pixels.draw(c.interior_rays, c.edge_rays, generator, _STEPS_AHEAD)
            self._colors = moved(drawn, self.device)
        if self.scene.readings is not None:
            readings = self.scene.readings.draw(c.depth_rays * _STEPS_AHEAD, generator)
            self._depths = moved(readings, self.device)
