"""Object, turntable and room together at one stop: where rays end, what light is there. In the table frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import map_coordinates
from scipy.spatial import KDTree

from .prints import Sheet, table_sheet
from .room import DISC_THICKNESS_M, Room, sphere_directions
from .settings import Material
from .solid import SKIN_M, Hits, Solid

_N_LIGHTS = 384
_DISC_STEPS = 121
# what is dark behind an occluder still sends this part of the mean light: one bounce
_BOUNCE = 0.22
# light that passes a clear object's shadow
_GLASS_PASSES = 0.6
_DISC_MARGIN_M = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything that does not depend on the stop. The `sees_light` arrays hold, for vertices and for the nodes of a
    grid on the disc, cosine-weighted visibilities of evenly spread directions fixed to the table.
    """

    solid: Solid
    room: Room
    material: Material
    disc_print: Sheet
    disc_radius_m: float
    lights: Float[np.ndarray, "lights 3"]
    light_of_fine: ndarray
    object_facing: Float[np.ndarray, "vertices lights"]
    object_sees: Float[np.ndarray, "vertices lights"]
    disc_facing: Float[np.ndarray, "lights"]
    disc_sees: Float[np.ndarray, "nodes lights"]

    @staticmethod
    def build(solid: Solid, material: Material, seed: int) -> Stage:
        reach = float(np.hypot(solid.vertices[:, 0], solid.vertices[:, 1]).max())
        radius = max(0.17, reach + _DISC_MARGIN_M)
        lights = sphere_directions(_N_LIGHTS)
        _, light_of_fine = KDTree(lights).query(sphere_directions(8192))
        normals = solid.vertex_normals()
        facing = np.maximum(normals @ lights.T, 0)
        axis = np.linspace(-radius, radius, _DISC_STEPS)
        x, y = np.meshgrid(axis, axis)
        nodes = np.stack([x.ravel(), y.ravel(), np.full(x.size, SKIN_M)], axis=1)
        disc_facing = np.maximum(lights[:, 2], 0)
        return Stage(
            solid=solid,
            room=Room.build(seed, radius),
            material=material,
            disc_print=table_sheet(seed + 5),
            disc_radius_m=radius,
            lights=lights,
            light_of_fine=np.asarray(light_of_fine),
            object_facing=facing,
            object_sees=_visible(solid, solid.vertices + SKIN_M * 5 * normals, facing, lights),
            disc_facing=disc_facing,
            disc_sees=_visible(solid, nodes, np.broadcast_to(disc_facing, (len(nodes), _N_LIGHTS)), lights),
        )

    def at(self, angle_deg: float) -> Stop:
        """The table turned so that `table_from_rig` is a turn by `angle_deg` about z."""
        c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
        table_from_rig = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        light = self._light_from(table_from_rig)
        mean = light.mean()
        on_object = self._reaching(self.object_sees, self.object_facing, light, mean)
        on_disc = self._reaching(self.disc_sees, self.disc_facing[None], light, mean)
        if self.material == Material.glass:
            on_disc = _GLASS_PASSES + (1 - _GLASS_PASSES) * on_disc
        return Stop(
            stage=self,
            table_from_rig=table_from_rig,
            object_light=on_object.astype(np.float32),
            disc_light=on_disc.reshape(_DISC_STEPS, _DISC_STEPS).astype(np.float32),
        )

    def _light_from(self, table_from_rig: ndarray) -> ndarray:
        """Mean radiance of the room around each table-fixed direction; below the table, the table's own."""
        fine = sphere_directions(8192)
        radiance = self.room.radiance(np.broadcast_to([0.0, 0.0, 0.07], fine.shape), fine @ table_from_rig).mean(axis=1)
        count = np.bincount(self.light_of_fine, minlength=_N_LIGHTS)
        return np.bincount(self.light_of_fine, radiance, minlength=_N_LIGHTS) / np.maximum(count, 1)

    @staticmethod
    def _reaching(sees: ndarray, facing: ndarray, light: ndarray, mean: float) -> ndarray:
        """Share of the unshadowed light that arrives."""
        full = facing @ light.astype(np.float32)
        dark = (facing - sees).sum(axis=-1) * mean * _BOUNCE
        return np.clip((sees @ light.astype(np.float32) + dark) / np.maximum(full, 1e-6), 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The stage at one stop of the turntable. Shares of light are 1 where nothing casts a shadow."""

    stage: Stage
    table_from_rig: Float[np.ndarray, "3 3"]
    object_light: Float[np.ndarray, "vertices"]
    disc_light: Float[np.ndarray, "steps steps"]

    def object_diffuse(self, hits: Hits, footprint_m: float) -> Float[np.ndarray, "hits 3"]:
        """Radiance of the print under the room's light."""
        stage = self.stage
        light = stage.room.irradiance(hits.normals @ self.table_from_rig.astype(np.float32))
        share = stage.solid.at_vertices(hits, self.object_light)[:, None]
        return stage.solid.albedo(hits, footprint_m) * light * share / np.pi

    def surroundings(
        self, origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"], footprint_m: float
    ) -> Float[np.ndarray, "rays 3"]:
        """Radiance along rays that do not meet the object: disc, its rim, desk, room."""
        t, on_top, on_rim = self._disc(origins, directions)
        color = np.empty((len(origins), 3), dtype=np.float32)
        at = origins[on_top, :2] + directions[on_top, :2] * t[on_top, None]
        color[on_top] = self._disc_radiance(at, footprint_m)
        color[on_rim] = np.array([0.05, 0.05, 0.055])
        rest = ~(on_top | on_rim)
        color[rest] = self.stage.room.radiance(
            origins[rest] @ self.table_from_rig, directions[rest] @ self.table_from_rig
        )
        return color

    def surroundings_distance(
        self, origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"]
    ) -> Float[np.ndarray, "rays"]:
        """Way to the disc, its rim, the desk or a wall."""
        t, _, _ = self._disc(origins, directions)
        room = self.stage.room.distance(origins @ self.table_from_rig, directions @ self.table_from_rig)
        return np.minimum(t, room)

    def sees_disc(
        self, origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"]
    ) -> Bool[np.ndarray, "rays"]:
        """Which rays end on the disc's top if the object is not in the way."""
        return self._disc(origins, directions)[1]

    def _disc_radiance(self, at: ndarray, footprint_m: float) -> ndarray:
        stage = self.stage
        light = stage.room.irradiance(np.array([[0.0, 0.0, 1.0]], dtype=np.float32))
        node = (at + stage.disc_radius_m) / (2 * stage.disc_radius_m) * (_DISC_STEPS - 1)
        share = map_coordinates(self.disc_light, [node[:, 1], node[:, 0]], order=1, mode="nearest")
        ink = stage.disc_print.sample_metres(at, footprint_m)
        border = np.hypot(at[:, 0], at[:, 1]) > stage.disc_radius_m - 0.004
        return np.where(border[:, None], 0.06, ink) * share[:, None] * light / np.pi

    def _disc(self, origins: ndarray, directions: ndarray) -> tuple[ndarray, ndarray, ndarray]:
        """Distance to the disc (inf if missed), and which rays end on its top and on its rim."""
        radius = self.stage.disc_radius_m
        with np.errstate(divide="ignore", invalid="ignore"):
            # rays that leave the object's underside start a hair below the table
            top = np.where(directions[:, 2] < 0, -origins[:, 2] / directions[:, 2], np.inf)
            top = np.where(top > -10 * SKIN_M, np.maximum(top, 0), np.inf)
            at = origins[:, :2] + directions[:, :2] * top[:, None]
            on_top = (at**2).sum(axis=1) < radius**2
            top = np.where(on_top, top, np.inf)
            a = (directions[:, :2] ** 2).sum(axis=1)
            b = (origins[:, :2] * directions[:, :2]).sum(axis=1)
            c = (origins[:, :2] ** 2).sum(axis=1) - radius**2
            rim = (-b - np.sqrt(b * b - a * c)) / a
            height = origins[:, 2] + directions[:, 2] * rim
            on_rim = (rim > 0) & (height < 0) & (height > -DISC_THICKNESS_M) & ~on_top
        return np.where(on_rim, rim, top), on_top, on_rim


def _visible(solid: Solid, points: ndarray, facing: ndarray, lights: ndarray) -> ndarray:
    """`facing` with the directions that the object itself hides set to zero."""
    sees = np.array(facing, dtype=np.float32)
    for start in range(0, len(points), 4096):
        rows, columns = np.nonzero(sees[start : start + 4096] > 0)
        hidden = solid.blocked(points[start + rows], lights[columns])
        sees[start + rows[hidden], columns[hidden]] = 0
    return sees
