"""The renderer and the depth sensor against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from neuralrecon.capture.types import Sensor
from neuralrecon.simulate import Material, SimulateConfig, TexturedMesh
from neuralrecon.simulate.depth import NOISE_PER_M, STEP_PER_M, depth_view_of, measure_depth
from neuralrecon.simulate.masks import drawn_mask, hole_level
from neuralrecon.simulate.materials import GLASS_INDEX, radiance, through_glass
from neuralrecon.simulate.photo import take_picture, view_of
from neuralrecon.simulate.rig import build_rig
from neuralrecon.simulate.room import Room, sphere_directions
from neuralrecon.simulate.solid import Solid
from neuralrecon.simulate.stage import Stage, Stop

RADIUS = 0.05
CENTRE = np.array([0.0, 0.0, RADIUS])


def ball(material: Material) -> Stage:
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=RADIUS)
    mesh.apply_translation(CENTRE)
    return Stage.build(Solid.build(TexturedMesh.plain(mesh, (0.5, 0.5, 0.5))), material, seed=0)


@pytest.fixture(scope="module")
def glossy_ball() -> Stage:
    return ball(Material.glossy)


def sensor(name: str, **settings) -> Sensor:
    return next(s for s in build_rig(SimulateConfig(**settings)) if s.name == name)


def rays_of(camera_sensor: Sensor) -> tuple[np.ndarray, np.ndarray]:
    """Origin in the rig frame and unit directions (v u 3) through the pixels' centres."""
    camera, rig_from_cam = camera_sensor.camera, camera_sensor.sensor_from_rig.inverse()
    u, v = torch.meshgrid(
        torch.arange(camera.width, dtype=torch.float64) + 0.5,
        torch.arange(camera.height, dtype=torch.float64) + 0.5,
        indexing="xy",
    )
    rays = rig_from_cam.rotate(camera.rays(torch.stack([u, v], dim=-1)))
    return rig_from_cam.translation.numpy(), (rays / rays.norm(dim=-1, keepdim=True)).numpy()


@pytest.mark.parametrize("name", ["N1", "N3", "NP5"])
def test_silhouette_of_a_ball_under_lens_distortion(glossy_ball: Stage, name: str) -> None:
    camera_sensor = sensor(name, n_width=267, np_width=320)
    assert any(camera_sensor.camera.distortion)
    stop = glossy_ball.at(0.0)
    picture = take_picture(view_of(camera_sensor, stop, 4), stop)
    mask = drawn_mask(picture.coverage, picture.points, 0.0, SimulateConfig(), 0)
    origin, rays = rays_of(camera_sensor)
    to_centre = CENTRE - origin
    distance = np.linalg.norm(to_centre)
    angle = np.arccos(np.clip(rays @ to_centre / distance, -1, 1))
    beyond_px = (angle - np.arcsin(RADIUS / distance)) * camera_sensor.camera.fx
    # half a pixel of rasterisation, 0.1 px for the distortion's stretch and the ball's 10 um facets
    assert mask[beyond_px < -0.6].all()
    assert not mask[beyond_px > 0.6].any()
    # the boundary's rounding averages out: the area is right to a tenth of a pixel around the rim
    inside = (beyond_px < 0).sum()
    assert abs(mask.sum() - inside) < 0.1 * 2 * np.sqrt(np.pi * inside) + 4


def test_masks_can_be_spoilt_by_stated_amounts(glossy_ball: Stage) -> None:
    stop = glossy_ball.at(0.0)
    picture = take_picture(view_of(sensor("N3", n_width=1068), stop, 3), stop)
    whole = drawn_mask(picture.coverage, picture.points, 0.0, SimulateConfig(), 3)
    config = SimulateConfig(mask_holes=0.3)
    holes = drawn_mask(picture.coverage, picture.points, hole_level(glossy_ball.solid.vertices, config), config, 3)
    assert not (holes & ~whole).any()
    # one side of the ball holds a few dozen noise cells
    assert 1 - holes.sum() / whole.sum() == pytest.approx(0.3, abs=0.15)
    moved = drawn_mask(picture.coverage, picture.points, 0.0, SimulateConfig(mask_shift_px=3.0), 3)
    centre = [np.mean(np.nonzero(mask), axis=1) for mask in (whole, moved)]
    assert np.linalg.norm(centre[1] - centre[0]) == pytest.approx(3.0, abs=0.1)
    eroded = drawn_mask(picture.coverage, picture.points, 0.0, SimulateConfig(mask_erode_px=2), 3)
    # erosion with a cross takes 2 px along the axes and 2 / sqrt(2) px along the diagonals from the radius
    radius = [np.sqrt(mask.sum() / np.pi) for mask in (whole, eroded)]
    assert 1.4 < radius[0] - radius[1] < 2.0


@pytest.mark.parametrize("per_side", [1, 2, 3, 4])
def test_outlines_are_neither_wide_nor_narrow_however_few_the_samples(glossy_ball: Stage, per_side: int) -> None:
    """Of five cameras, against the pixels whose middles see the sphere, in closed form. Taking all pixels that are half
    covered would widen two samples a side by 0.13 px."""
    stop, off = glossy_ball.at(0.0), []
    for i in range(1, 6):
        camera_sensor = sensor(f"N{i}", n_width=200)
        picture = take_picture(view_of(camera_sensor, stop, per_side), stop)
        mask = drawn_mask(picture.coverage, picture.points, 0.0, SimulateConfig(), 0)
        origin, rays = rays_of(camera_sensor)
        across = np.linalg.norm(np.cross(rays, CENTRE - origin), axis=-1)
        inside = int((across < RADIUS).sum())
        off.append((int(mask.sum()) - inside) / (2 * np.sqrt(np.pi * inside)))
    # about 800 pixels of the outlines, each rounded to 0.3 px at random
    assert abs(np.mean(off)) < 0.03


def box_stop(material: Material = Material.matte) -> Stop:
    mesh = trimesh.creation.box((0.16, 0.16, 0.1))
    mesh.apply_translation([0.03, 0.0, 0.05])
    return Stage.build(Solid.build(TexturedMesh.plain(mesh, (0.5, 0.5, 0.5))), material, seed=0).at(0.0)


def depth_truth(camera_sensor: Sensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth of planes z = 0.1 and z = 0; which pixels see the box's top well inside (1) or the disc (0), else -1."""
    origin, rays = rays_of(camera_sensor)
    axis = camera_sensor.sensor_from_rig.rotation[2].numpy()
    to_top, to_table = (0.1 - origin[2]) / rays[..., 2], -origin[2] / rays[..., 2]
    top, table = origin + rays * to_top[..., None], origin + rays * to_table[..., None]
    sees = np.full(to_top.shape, -1)
    on_disc = np.hypot(table[..., 0], table[..., 1]) < 0.15
    # beside the box, or on the cameras' side of it
    away = (table[..., 0] > 0.125) | (np.abs(table[..., 1]) > 0.125)
    sees[on_disc & away] = 0
    sees[(np.abs(top[..., :2] - [0.03, 0]) < 0.075).all(-1)] = 1
    return to_top * (rays @ axis), to_table * (rays @ axis), sees


@pytest.mark.parametrize("name", ["NP4_depth", "NP5_depth"])
def test_depth_without_noise_is_exact(name: str) -> None:
    depth_sensor, stop = sensor(name), box_stop()
    raw = measure_depth(depth_view_of(depth_sensor, stop), stop, 0.0, np.random.default_rng(0))
    z = raw * depth_sensor.metres_per_unit
    top, table, sees = depth_truth(depth_sensor)
    assert min((sees == 1).sum(), (sees == 0).sum()) > 300
    # half a unit of 0.1 mm, and single precision at 1 m
    assert np.abs(z - top)[sees == 1].max() < 0.5e-4 + 2e-6
    assert np.abs(z - table)[sees == 0].max() < 0.5e-4 + 2e-6


def test_depth_noise_has_the_stated_size_and_no_bias() -> None:
    depth_sensor, stop = sensor("NP5_depth", depth_width=640), box_stop()
    raw = measure_depth(depth_view_of(depth_sensor, stop), stop, 1.0, np.random.default_rng(0))
    z = raw * depth_sensor.metres_per_unit
    top, _, sees = depth_truth(depth_sensor)
    seen = (sees == 1) & (raw > 0)
    assert seen.sum() > 0.95 * (sees == 1).sum()
    error = (z - top)[seen]
    expected = np.sqrt(NOISE_PER_M**2 + STEP_PER_M**2 / 12) * np.mean(top[seen] ** 2)
    # the smooth part is correlated over about 4 pi 1.2^2 = 18 px
    n_free = seen.sum() / 18
    assert np.sqrt(np.mean(error**2)) == pytest.approx(expected, rel=5 / np.sqrt(2 * n_free) + 0.05)
    # dither of 0.44 steps leaves at most 0.7 % of a step as bias
    assert abs(error.mean()) < 5 * expected / np.sqrt(n_free) + 0.01 * STEP_PER_M
    steps = 1 / (raw[seen] * depth_sensor.metres_per_unit) / STEP_PER_M
    # raw units of 0.1 mm blur the steps of 2.2 mm
    assert np.abs(steps - np.round(steps)).max() < 0.03


def test_depth_has_holes_beside_the_object_but_few_on_it() -> None:
    depth_sensor, stop = sensor("NP3_depth"), box_stop()
    raw = measure_depth(depth_view_of(depth_sensor, stop), stop, 1.0, np.random.default_rng(0))
    clean = measure_depth(depth_view_of(depth_sensor, stop), stop, 0.0, np.random.default_rng(0))
    assert (clean == 0).sum() < (raw == 0).sum() < 0.1 * raw.size
    _, _, sees = depth_truth(depth_sensor)
    assert (raw[sees == 1] > 0).mean() > 0.97


@pytest.mark.parametrize("material", [Material.mirror, Material.glass])
def test_depth_fails_on_mirror_and_glass(material: Material) -> None:
    depth_sensor, stop = sensor("NP4_depth"), box_stop(material)
    raw = measure_depth(depth_view_of(depth_sensor, stop), stop, 0.0, np.random.default_rng(0))
    top, table, sees = depth_truth(depth_sensor)
    error = (raw * depth_sensor.metres_per_unit - top)[sees == 1]
    holes, true = (raw[sees == 1] == 0).mean(), (np.abs(error) < 1e-3).mean()
    assert 0.2 < holes < 0.7
    assert 0 < true < 0.4
    wrong = error[(raw[sees == 1] > 0) & (np.abs(error) > 1e-3)]
    assert (wrong > 0.01).mean() > 0.9
    # around it nothing changes
    assert np.abs(raw * depth_sensor.metres_per_unit - table)[sees == 0].max() < 0.6e-4


def test_lights_stand_still_while_the_table_turns(glossy_ball: Stage) -> None:
    camera_sensor = sensor("N3", n_width=400)
    stops = [glossy_ball.at(angle) for angle in (0.0, 72.0)]
    view = view_of(camera_sensor, stops[0], 2)
    first, second = (take_picture(view, stop) for stop in stops)
    top = (first.coverage == 1) & (first.points[..., 2] > 0.07)
    assert top.sum() > 300
    a, b = first.color[top], second.color[top]
    # facets and 384 light directions turn with the table: 2 % of the radiance
    assert np.abs(a - b).mean() < 0.02 * a.mean()
    assert a.max() > 2 * np.median(a)
    brightest = [np.argmax(np.where(top, picture.color.sum(-1), 0)) for picture in (first, second)]
    at = np.array(np.unravel_index(brightest, top.shape))
    assert np.abs(at[:, 0] - at[:, 1]).max() <= 1
    on_disc = (first.coverage == 0) & (first.color != second.color).any(-1)
    assert on_disc.sum() > 5000
    assert np.abs(first.color - second.color)[on_disc].mean() > 0.3 * first.color[on_disc].mean()


def test_the_print_turns_counter_to_the_camera() -> None:
    """A mark at 40 deg on the table is before the cameras at stop 40: their azimuth grows with the stop."""
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=RADIUS)
    mesh.apply_translation(CENTRE)
    spot = CENTRE + RADIUS * np.array([np.cos(np.radians(40)), np.sin(np.radians(40)), 0])

    def albedo(points: np.ndarray, _: float) -> np.ndarray:
        return np.where(np.linalg.norm(points - spot, axis=1)[:, None] < 0.015, 0.9, 0.02) * np.ones(3)

    stage = Stage.build(Solid.build(TexturedMesh.with_solid(mesh, albedo)), Material.matte, seed=0)
    stop = stage.at(40.0)
    camera_sensor = sensor("N1", n_width=534)
    picture = take_picture(view_of(camera_sensor, stop, 2), stop)
    total = np.where(picture.coverage == 1, picture.color.sum(-1), 0)
    bright = total > 0.5 * total.max()
    v, u = (x.mean() + 0.5 for x in np.nonzero(bright))
    in_rig = CENTRE + np.array([RADIUS, 0, 0])
    expected = camera_sensor.camera.project(camera_sensor.sensor_from_rig.apply(torch.from_numpy(in_rig)))
    assert (u, v) == pytest.approx(expected.tolist(), abs=1.5)


def test_mirror_ball_shows_the_room_in_the_reflected_direction() -> None:
    stop = ball(Material.mirror).at(0.0)
    origin, rays = rays_of(sensor("N2", n_width=534))
    rays = rays.reshape(-1, 3)
    across = rays @ (CENTRE - origin)
    gap = (CENTRE - origin) @ (CENTRE - origin) - across**2
    rays, across, gap = rays[gap < RADIUS**2], across[gap < RADIUS**2], gap[gap < RADIUS**2]
    points = origin + rays * (across - np.sqrt(RADIUS**2 - gap))[:, None]
    normals = (points - CENTRE) / RADIUS
    away = rays - 2 * (rays * normals).sum(1, keepdims=True) * normals
    up = away[:, 2] > 0.05
    assert up.sum() > 1000
    seen, hits = radiance(stop, np.broadcast_to(origin, rays[up].shape), rays[up], 0.001)
    assert len(hits.rays) == up.sum()
    expected = stop.stage.room.radiance(points[up], away[up]) * np.array([0.90, 0.91, 0.92])
    relative = np.abs(seen - expected).max(axis=1) / expected.mean(axis=1)
    # lamps have edges: a facet's 1 mrad of normal may cross one
    assert np.median(relative) < 0.01
    assert np.quantile(relative, 0.95) < 0.1


def slab(size: tuple[float, float, float], low: float) -> Solid:
    mesh = trimesh.creation.box(size)
    mesh.apply_translation([0, 0, low + size[2] / 2])
    return Solid.build(TexturedMesh.plain(mesh, (1, 1, 1)))


def test_glass_slab_shifts_a_ray_as_snell_says() -> None:
    thickness, theta = 0.04, np.radians(50)
    direction = np.array([[np.sin(theta), 0, -np.cos(theta)]])
    origin = np.array([[-0.1, 0.013, 0.2]])
    path = through_glass(slab((0.4, 0.4, thickness), 0.03), origin, direction)
    inside = np.arcsin(np.sin(theta) / GLASS_INDEX)
    entry = origin[0, 0] + np.tan(theta) * (0.2 - 0.07)
    assert path.directions == pytest.approx(direction, abs=1e-6)
    at = path.origins + path.directions * ((0.03 - path.origins[:, 2]) / path.directions[:, 2])[:, None]
    assert at[0] == pytest.approx([entry + thickness * np.tan(inside), 0.013, 0.03], abs=2e-6)
    s = (np.sin(theta - inside) / np.sin(theta + inside)) ** 2
    p = (np.tan(theta - inside) / np.tan(theta + inside)) ** 2
    length = thickness / np.cos(inside)
    left = (1 - (s + p) / 2) ** 2 * np.exp(-np.array([5.0, 1.5, 3.0]) * length)
    # the way inside starts a skin of 20 um late: 1e-4 of absorption
    assert path.weights[0] == pytest.approx(left, rel=2e-4)


def test_glass_reflects_totally_beyond_the_critical_angle() -> None:
    theta = np.radians(30)
    direction = np.array([[np.cos(theta), 0, np.sin(theta)]])
    path = through_glass(slab((0.1, 0.1, 0.05), 0.0), np.array([[-0.09, 0.001, 0.02]]), direction)
    # in through the side, off the top (70.5 deg from its normal, critical is 41.8), out of the other side
    assert path.directions == pytest.approx(np.array([[np.cos(theta), 0, -np.sin(theta)]]), abs=1e-5)
    assert path.origins[0, 0] == pytest.approx(0.05, abs=1e-4)


def test_glass_ball_bends_by_twice_the_refraction() -> None:
    solid = ball(Material.glass).solid
    offsets = np.array([0.0, 0.01, 0.02, 0.035])
    origins = np.stack([-0.2 + 0 * offsets, offsets, RADIUS + 0 * offsets], axis=1)
    path = through_glass(solid, origins, np.tile([1.0, 0, 0], (4, 1)))
    theta = np.arcsin(offsets / RADIUS)
    deviation = 2 * (theta - np.arcsin(offsets / RADIUS / GLASS_INDEX))
    # facets' smooth normals are good to about 1e-3
    assert path.directions[:, 0] == pytest.approx(np.cos(deviation), abs=3e-3)
    assert -path.directions[:, 1] == pytest.approx(np.sin(deviation), abs=3e-3)


def test_room_irradiance_agrees_with_integrating_the_room() -> None:
    room = Room.build(0, 0.17)
    light = sphere_directions(20000)
    seen = room.radiance(np.broadcast_to([0, 0, 0.07], light.shape), light)
    # second order leaves up to 9 % at a normal (Ramamoorthi and Hanrahan), mostly far less
    for normal in np.eye(3, dtype=np.float32):
        cosine = np.maximum(light @ normal, 0)[:, None]
        exact = (cosine * seen).mean(axis=0) * 4 * np.pi
        assert room.irradiance(normal[None])[0] == pytest.approx(exact, rel=0.09)


def test_object_shadows_the_table_near_it_only() -> None:
    stop = box_stop()
    axis = np.linspace(-1, 1, stop.disc_light.shape[0]) * stop.stage.disc_radius_m
    x, y = np.meshgrid(axis, axis)
    under = (np.abs(x - 0.03) < 0.06) & (np.abs(y) < 0.06)
    assert stop.disc_light[under].max() < 0.3
    assert stop.disc_light[(x < -0.15)].mean() > 0.75
    assert stop.disc_light.max() <= 1
