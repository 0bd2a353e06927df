"""What differs from sensor to sensor: exposure and white balance, and small errors of the calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..geometry import Rays
from ..ops import ray_motion
from ..scene import ColorRays, DepthRays

_FIRST_SPREAD_MM, _LEAST_SPREAD_MM = 3.0, 0.4
_SPREAD_RATE = 0.05  # share of a step's readings in the running mean


class SensorModel(nn.Module):
    """Per-sensor parameters, learned with the surface.

    `log_gain` and `offset` act on sRGB. `pose` is a turn (radians) and a shift (unit lengths) of each sensor in its own
    frame, one for all stops, since sensors stand still; `reach` is added to what a depth sensor reads (unit lengths);
    `lens` is the logarithm of a focal length's error. `stop` is a turn about the axes of the world through `pivot`
    and a shift of the object at each stop. The last four are counted in standard deviations of the calibration's error,
    so that a prior is their square and one learning rate suits all; a standard deviation of zero keeps them at zero.
    """

    scales: Tensor
    stop_scales: Tensor
    pivot: Tensor
    spread_mm: Tensor

    def __init__(self, n_sensors: int, n_stops: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(n_sensors, 3, device=device))
        self.offset = nn.Parameter(torch.zeros(n_sensors, 3, device=device))
        self.pose = nn.Parameter(torch.zeros(n_sensors, 6, device=device))
        self.reach = nn.Parameter(torch.zeros(n_sensors, device=device))
        self.lens = nn.Parameter(torch.zeros(n_sensors, device=device))
        self.stop = nn.Parameter(torch.zeros(n_stops, 6, device=device))
        self.register_buffer("scales", torch.zeros(8, device=device))
        self.register_buffer("stop_scales", torch.zeros(6, device=device))
        self.register_buffer("pivot", torch.zeros(3, device=device))
        self.register_buffer("spread_mm", torch.full((n_sensors,), _FIRST_SPREAD_MM, device=device))

    def set_scales(self, turn: float, shift: float, reach: float, lens: float) -> None:
        """Standard deviations of the sensors' errors: radians, unit lengths (twice), share of the focal length."""
        scales = [turn] * 3 + [shift] * 3 + [reach, lens]
        self.scales.copy_(torch.tensor(scales, device=self.scales.device))

    def set_stop_scales(self, turn: Sequence[float], shift: float, pivot: Float[Tensor, "3"]) -> None:
        """Standard deviations of the stops' errors: radians about x, y and z through `pivot`, unit lengths."""
        scales = [*turn, shift, shift, shift]
        self.stop_scales.copy_(torch.tensor(scales, device=self.stop_scales.device))
        self.pivot.copy_(pivot)

    def prior(self) -> Tensor:
        """Minus twice the logarithm of the corrections' normal prior, up to a constant."""
        return sum((p.square().sum() for p in self.corrections()), self.scales.new_zeros(()))

    def corrections(self) -> list[nn.Parameter]:
        """What is counted in standard deviations."""
        return [self.pose, self.reach, self.lens, self.stop]

    def recorded(
        self, colors: Float[Tensor, "rays 3"], opacity: Float[Tensor, "rays"], sensors: Int[Tensor, "rays"]
    ) -> Float[Tensor, "rays 3"]:
        """What each sensor would record of premultiplied colours."""
        return colors * self.log_gain.index_select(0, sensors).exp() + opacity[:, None] * self.offset.index_select(
            0, sensors
        )

    @torch.no_grad()
    def learn_spread(
        self, off_mm: Float[Tensor, "readings"], inlier: Float[Tensor, "readings"], sensors: Int[Tensor, "readings"]
    ) -> None:
        """Let `spread_mm`, the standard deviation of each sensor's readings about the surface, follow a step's."""
        n = len(self.spread_mm)
        weight = inlier.new_zeros(n).index_add(0, sensors, inlier)
        square = inlier.new_zeros(n).index_add(0, sensors, inlier * off_mm.square())
        seen = (square + 1e-6) / (weight + 1e-6)
        rate = _SPREAD_RATE * (weight > 1).to(weight)
        self.spread_mm.copy_((self.spread_mm.square().lerp(seen, rate)).sqrt().clamp_min(_LEAST_SPREAD_MM))

    @torch.no_grad()
    def corrected_color(self, batch: ColorRays) -> ColorRays:
        """The rays from where sensors and object now are thought to be."""
        return replace(batch, rays=self._corrected(batch.rays, batch))

    @torch.no_grad()
    def corrected_depth(self, readings: DepthRays) -> DepthRays:
        """The readings from where sensors and object now are thought to be, as far as they now are thought to reach."""
        distances = readings.distances + self.reach[readings.sensors] * self.scales[6]
        return replace(readings, rays=self._corrected(readings.rays, readings), distances=distances)

    def displacement(
        self,
        batch: ColorRays | DepthRays,
        distances: Float[Tensor, "points"],
        of_ray: Int[Tensor, "points"] | None = None,
        *,
        reaches: bool = False,
    ) -> Float[Tensor, "points 3"]:
        """Zero in value; its derivative is that of points on corrected rays by the corrections.

        Added, times the field's gradient, to what the field says at the points, it gives the corrections the gradient
        that the field's query, which takes points as constants, does not carry. Point i is at `distances[i]` on ray
        `of_ray[i]` of the batch (without it, on ray i); if it `reaches`, it is a depth reading, which moves with the
        reach too.
        """
        directions, frames = batch.rays.directions, batch.world_from_cam
        turn, shift, lens = self._motion(frames, batch.sensors)
        object_turn, object_shift = self._object_motion(batch.stops)
        # a point at distance t moves by the first, and by t times the second
        shift = shift + object_shift + torch.linalg.cross(object_turn, batch.rays.origins - self.pivot)
        spread = torch.linalg.cross(turn + object_turn, directions) - lens * _lateral(directions, frames)
        if reaches:
            shift = shift + directions * (self.reach.index_select(0, batch.sensors) * self.scales[6])[:, None]
        if of_ray is None:
            of_ray = torch.arange(len(distances), device=distances.device)
        return ray_motion(shift, spread, distances, of_ray)

    @torch.no_grad()
    def corrected_axes(self, batch: ColorRays) -> Rays:
        """As `corrected_color`, but directions keep the length that the lens gives them.

        For a batch whose directions are a camera's three axes this is where the camera now is thought to be: the
        matrix with these columns takes x and y on its plane z = 1 (undistorted) to directions.
        """
        return self._moved(batch.rays, batch)

    def _corrected(self, rays: Rays, batch: ColorRays | DepthRays) -> Rays:
        moved = self._moved(rays, batch)
        return Rays(origins=moved.origins, directions=torch.nn.functional.normalize(moved.directions, dim=1))

    def _moved(self, rays: Rays, batch: ColorRays | DepthRays) -> Rays:
        """To first order: turns are a few hundredths of a degree."""
        turn, shift, lens = self._motion(batch.world_from_cam, batch.sensors)
        directions = rays.directions + torch.linalg.cross(turn, rays.directions)
        directions = directions - lens * _lateral(directions, batch.world_from_cam)
        origins = rays.origins + shift
        turn, shift = self._object_motion(batch.stops)
        origins = origins + shift + torch.linalg.cross(turn, origins - self.pivot)
        return Rays(origins=origins, directions=directions + torch.linalg.cross(turn, directions))

    def _motion(self, world_from_cam: Tensor, sensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # index_select, not [sensors]: the latter's backward adds in an order that is not always the same
        pose = (self.pose * self.scales[:6]).index_select(0, sensors)
        turn = (world_from_cam @ pose[:, :3, None])[..., 0]
        lens = self.lens.index_select(0, sensors)[:, None] * self.scales[7]
        return turn, (world_from_cam @ pose[:, 3:, None])[..., 0], lens

    def _object_motion(self, stops: Tensor) -> tuple[Tensor, Tensor]:
        """How the world, as a ray of this stop takes it to lie, moves."""
        motion = (self.stop * self.stop_scales).index_select(0, stops)
        return motion[:, :3], motion[:, 3:]


def _lateral(vectors: Tensor, world_from_cam: Tensor) -> Tensor:
    """What is square to the optical axis: this part of a ray shrinks as the focal length grows."""
    axis = world_from_cam[:, :, 2]
    return vectors - axis * (vectors * axis).sum(dim=1, keepdim=True)
