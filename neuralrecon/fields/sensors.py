"""What differs from sensor to sensor: exposure and white balance, and small errors of the calibration."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..geometry import Rays
from ..scene import ColorRays, DepthRays


class SensorModel(nn.Module):
    """Per-sensor parameters, learned with the surface.

    `log_gain` and `offset` act on sRGB. `pose` is a turn (radians) and a shift (unit lengths) of each sensor in its own
    frame, one for all stops, since sensors stand still; `reach` is added to what a depth sensor reads (unit lengths).
    The last two are counted in standard deviations of the calibration's error (`scales`), so that a prior is their
    square and one learning rate suits all.
    """

    scales: Tensor

    def __init__(self, n_sensors: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(n_sensors, 3))
        self.offset = nn.Parameter(torch.zeros(n_sensors, 3))
        self.pose = nn.Parameter(torch.zeros(n_sensors, 6))
        self.reach = nn.Parameter(torch.zeros(n_sensors))
        self.register_buffer("scales", torch.zeros(7))

    def set_scales(self, turn: float, shift: float, reach: float) -> None:
        """Standard deviations: radians, unit lengths, unit lengths; zero keeps a correction at zero."""
        self.scales.copy_(torch.tensor([turn] * 3 + [shift] * 3 + [reach]))

    def prior(self) -> Tensor:
        """Minus twice the logarithm of the corrections' normal prior, up to a constant."""
        return self.pose.square().sum() + self.reach.square().sum()

    def recorded(
        self, colors: Float[Tensor, "rays 3"], opacity: Float[Tensor, "rays"], sensors: Int[Tensor, "rays"]
    ) -> Float[Tensor, "rays 3"]:
        """What each sensor would record of premultiplied colours."""
        return colors * self.log_gain.index_select(0, sensors).exp() + opacity[:, None] * self.offset.index_select(
            0, sensors
        )

    @torch.no_grad()
    def corrected_color(self, batch: ColorRays) -> ColorRays:
        """The rays from where the sensors now are thought to be."""
        turn, shift = self._motion(batch.world_from_cam, batch.sensors)
        return replace(batch, rays=_moved(batch.rays, turn, shift))

    @torch.no_grad()
    def corrected_depth(self, readings: DepthRays) -> DepthRays:
        """The readings from where the sensors now are thought to be, as far as they are now thought to reach."""
        turn, shift = self._motion(readings.world_from_cam, readings.sensors)
        distances = readings.distances + self.reach[readings.sensors] * self.scales[6]
        return replace(readings, rays=_moved(readings.rays, turn, shift), distances=distances)

    def displacement(
        self,
        points: Float[Tensor, "points 3"],
        origins: Float[Tensor, "points 3"],
        world_from_cam: Float[Tensor, "points 3 3"],
        sensors: Int[Tensor, "points"],
        *,
        along: Float[Tensor, "points 3"] | None = None,
    ) -> Float[Tensor, "points 3"]:
        """Zero in value; its derivative is that of points on corrected rays by the corrections.

        Added, times the field's gradient, to what the field says at `points`, it gives the corrections the gradient
        that the field's query, which takes points as constants, does not carry. `along` are the directions of depth
        readings, which move with the sensor's reach too.
        """
        turn, shift = self._motion(world_from_cam, sensors)
        moved = shift + torch.linalg.cross(turn, points - origins)
        if along is not None:
            moved = moved + along * (self.reach.index_select(0, sensors) * self.scales[6])[:, None]
        return moved - moved.detach()

    def _motion(self, world_from_cam: Tensor, sensors: Tensor) -> tuple[Tensor, Tensor]:
        # index_select, not [sensors]: the latter's backward adds in an order that is not always the same
        pose = (self.pose * self.scales[:6]).index_select(0, sensors)
        turn = (world_from_cam @ pose[:, :3, None])[..., 0]
        return turn, (world_from_cam @ pose[:, 3:, None])[..., 0]


def _moved(rays: Rays, turn: Tensor, shift: Tensor) -> Rays:
    """Turned about their origins (to first order: turns are a few hundredths of a degree) and shifted."""
    directions = rays.directions + torch.linalg.cross(turn, rays.directions)
    return Rays(origins=rays.origins + shift, directions=torch.nn.functional.normalize(directions, dim=1))
