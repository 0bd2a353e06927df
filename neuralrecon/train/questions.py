"""All points that one step asks the model about: one query serves photographs, depth and what nobody sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..fields import SensorModel, SurfaceModel
from ..geometry import Box
from ..ops.march import INSIDE
from ..render import Occupancy, RaySamples, render, sample_rays
from ..scene import ColorRays, DepthRays
from . import losses
from .depth_probes import DepthProbes
from .fit_types import FitConfig
from .patches import Crossings, Views, compare, patch_loss
from .schedule import BAND, Moment

_STEP = 1.5  # distance of samples, in blurs: less than the standard deviation (1.8) of the logistic density
_FREE_ROOM_MM = 60.0
_DEEP_ENOUGH_MM = 5.0  # beyond the band
_POINTS_BELOW, _DEEP_POINTS, _FREE_POINTS, _PAIRS, _TRIPLES = 1024, 1024, 1024, 2048, 1024
_NEAR_SURFACE_MM = 1.5  # of both ends of a triple
_CLEARANCE_MM = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """Where no ray comes: below `floor` (the table's height in unit lengths, 0 without one), and deep in the solid.

    And `free`, points within the silhouettes that rays of depth have passed.
    """

    floor: float
    deep_cells: Int[Tensor, "cells 3"]
    free: Float[Tensor, "free 3"]

    @staticmethod
    def of(room: Box, occupancy: Occupancy, free: Float[Tensor, "free 3"]) -> Unseen:
        """Below the room that cameras look into (see `free_room`), and in the cells inside; waits for a GPU."""
        return Unseen(floor=float(room.low[2]), deep_cells=(occupancy.cells == INSIDE).nonzero(), free=free)


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Points of the unit cube, in this order: known to be free, below the table, deep inside, beside some of those on
    photographs' rays (`beside_of` says which), as far before as beyond some (`across_of`; first all before, then all
    beyond), on photographs' rays, around readings.

    `deep_sdf` is what the model last said at the deep points. `seen` is None without photographs, `probes` without
    depth.
    """

    free: Float[Tensor, "free 3"]
    below: Float[Tensor, "below 3"]
    deep: Float[Tensor, "deep 3"]
    deep_sdf: Float[Tensor, "deep"]
    beside: Float[Tensor, "pairs 3"]
    beside_of: Int[Tensor, "pairs"]
    across: Float[Tensor, "twice_triples 3"]
    across_of: Int[Tensor, "triples"]
    seen: RaySamples | None
    probes: DepthProbes | None

    @staticmethod
    def draw(
        batch: tuple[ColorRays | None, DepthRays | None],
        config: FitConfig,
        sensors: SensorModel,
        occupancy: Occupancy,
        unseen: Unseen,
        room: Box,
        now: Moment,
        generator: torch.Generator,
    ) -> Questions:
        """Rays and readings from where the sensors are now thought to be.

        Args:
            room: see `free_room`.
            generator: of the model's device.
        """
        seen = probes = None
        if batch[0] is not None:
            rays = sensors.corrected_color(batch[0])
            jitter = torch.rand(len(rays.inside), generator=generator, device=generator.device)
            seen = sample_rays(rays, room, occupancy, _STEP * now.blur, jitter)
        if batch[1] is not None:
            unit = now.unit_per_mm
            corrected = sensors.corrected_depth(batch[1])
            probes = DepthProbes.place(
                corrected,
                occupancy,
                config.truncation_mm * unit,
                config.bending_mm * unit,
                _FREE_ROOM_MM * unit,
                generator,
            )
        n_below = _POINTS_BELOW if unseen.floor > 0 else 0
        below = torch.rand(n_below, 3, generator=generator, device=generator.device)
        below[:, 2] *= unseen.floor
        deep = _within(unseen.deep_cells, len(occupancy.cells), generator)
        free = unseen.free
        if len(free):
            free = free[torch.randint(len(free), (_FREE_POINTS,), generator=generator, device=generator.device)]
        beside_of, step = _some_seen(seen, _PAIRS, config.bending_mm * now.unit_per_mm, generator)
        across_of, half = _some_seen(
            seen, _TRIPLES if config.w_waves else 0, config.waves_mm * now.unit_per_mm, generator
        )
        points = below.new_zeros(0, 3) if seen is None else seen.points
        return Questions(
            free=free,
            below=below,
            deep=deep,
            deep_sdf=occupancy.look_up(deep),
            beside=points[beside_of] + step,
            beside_of=beside_of,
            across=torch.cat([points[across_of] - half, points[across_of] + half]),
            across_of=across_of,
            seen=seen,
            probes=probes,
        )

    @property
    def points(self) -> Float[Tensor, "points 3"]:
        parts = [
            self.free,
            self.below,
            self.deep,
            self.beside,
            self.across,
            *(part.points for part in (self.seen, self.probes) if part is not None),
        ]
        return torch.cat(parts)

    def displacement(self, sensors: SensorModel) -> Float[Tensor, "points 3"]:
        """How all points move with the sensors' corrections (see `SensorModel.displacement`)."""
        n_fixed = sum(map(len, (self.free, self.below, self.deep, self.beside, self.across)))
        parts = [self.below.new_zeros(n_fixed, 3)]
        if self.seen is not None:
            packed = self.seen.packed
            parts.append(sensors.displacement(self.seen.batch, packed.t_mids, packed.ray_indices))
        if self.probes is not None:
            r = self.probes.readings
            parts.append(sensors.displacement(r, r.distances - self.probes.before, reaches=True))
            parts.append(self.below.new_zeros(len(self.probes.points) - len(self.probes.before), 3))
        return torch.cat(parts)

    def terms(
        self,
        model: SurfaceModel,
        config: FitConfig,
        sdf: Float[Tensor, "points"],
        gradients: Float[Tensor, "points 3"],
        now: Moment,
        displacement: Float[Tensor, "points 3"] | None,
        views: Views | None,
        occupancy: Occupancy,
    ) -> dict[str, Tensor]:
        """The weighted loss terms, from what the model says at `points`."""
        n_seen = len(self.seen.points) if self.seen is not None else 0
        counts = [*map(len, (self.free, self.below, self.deep, self.beside, self.across)), n_seen]
        parts = [*counts, len(sdf) - sum(counts)]
        of_free, of_below, of_deep, of_beside, of_across, of_seen, of_probes = zip(
            sdf.split(parts), gradients.split(parts), strict=True
        )
        terms = {"eikonal": config.w_eikonal * losses.eikonal_loss(gradients)}
        if self.seen is not None:
            image = render(
                model,
                self.seen,
                *of_seen,
                inv_s=1 / now.blur,
                displacement=None if displacement is None else displacement.split(parts)[5],
            )
            batch = self.seen.batch
            errors = losses.color_errors(image.colors, image.opacity, batch.colors)
            doubt = model.color_doubt(self.seen.middles(image.weights))
            terms["color"] = config.w_color * losses.color_loss(errors, batch.inside)
            terms["doubt"] = losses.doubt_loss(errors, doubt, batch.inside)
            outlines = losses.silhouette_loss(image.opacity, batch.inside, config.silhouette_robustness)
            terms["silhouette"] = config.w_silhouette * outlines
            if views is not None and now.compares_patches:
                packed, n_rays = self.seen.packed, min(config.patch_rays, config.interior_rays)
                crossings = Crossings.find(packed, n_rays, *of_seen, self.seen.step)
                refines = displacement is not None
                alike = compare(views, batch, crossings, model.sensors, occupancy, refines=refines)
                terms["patches"] = config.w_patches * patch_loss(*alike, n_rays)
        if counts[3] and config.w_bending:
            bending = losses.bending_loss(of_seen[1].index_select(0, self.beside_of), of_beside[1])
            terms["bending_seen"] = config.w_bending * bending
        if counts[4]:
            before, beyond = of_across[1].chunk(2)
            near = (of_across[0].detach().abs() < _NEAR_SURFACE_MM * now.unit_per_mm).reshape(2, -1).all(dim=0)
            middle = of_seen[1].index_select(0, self.across_of)
            terms["waves"] = config.w_waves * losses.waves_loss(middle, before, beyond, near)
        if displacement is not None:
            terms["sensors"] = config.w_sensors * model.sensors.prior()
        if counts[0]:
            known = losses.known_free_loss(of_free[0] / now.unit_per_mm, _CLEARANCE_MM)
            terms["known_free"] = config.w_free * known
        if counts[1]:
            terms["below"] = config.w_below * losses.straight_down_loss(of_below[1])
        if counts[2]:
            last_mm, enough_mm = self.deep_sdf / now.unit_per_mm, BAND * now.blur / now.unit_per_mm + _DEEP_ENOUGH_MM
            terms["deep"] = config.w_deep * losses.deep_inside_loss(of_deep[0] / now.unit_per_mm, last_mm, enough_mm)
        if self.probes is not None:
            terms |= self.probes.terms(model.sensors, *of_probes, config, now)
        return terms


def _some_seen(
    seen: RaySamples | None, n: int, spread: float, generator: torch.Generator
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n 3"]]:
    """Numbers of `n` samples on photographs' rays, all of which are near the surface, and a normal step from each."""
    device = generator.device
    if seen is None or not len(seen.points):
        return torch.zeros(0, dtype=torch.long, device=device), torch.zeros(0, 3, device=device)
    of = torch.randint(len(seen.points), (n,), generator=generator, device=device)
    return of, spread * torch.randn(n, 3, generator=generator, device=device)


def _within(cells: Int[Tensor, "cells 3"], side: int, generator: torch.Generator) -> Float[Tensor, "deep 3"]:
    """Points drawn evenly from cells of a grid over the unit cube."""
    if len(cells) == 0:
        return torch.zeros(0, 3, device=cells.device)
    chosen = cells[torch.randint(len(cells), (_DEEP_POINTS,), generator=generator, device=cells.device)]
    return (chosen + torch.rand(_DEEP_POINTS, 3, generator=generator, device=cells.device)) / side
