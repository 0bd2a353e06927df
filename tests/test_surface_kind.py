"""The kind of a surface: what is counted, outlines in closed form, and the judgement in all its branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.nn.functional import normalize

from neuralrecon.geometry import Camera, Rigid, Similarity
from neuralrecon.scene import Surface, SurfaceKind, VisualHull
from neuralrecon.scene.highlights import highlight_share
from neuralrecon.scene.photographs import Photograph, Pixels
from neuralrecon.scene.readings import Readings
from neuralrecon.scene.surface_kind import DepthSurvey, judged, outline_of, survey_depth

MIDDLE, RADIUS = torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64), 0.3


def directions(n: int) -> torch.Tensor:
    """A Fibonacci lattice on the sphere."""
    i = torch.arange(n, dtype=torch.float64) + 0.5
    z, phi = 1 - 2 * i / n, i * torch.pi * (3 - 5**0.5)
    return torch.stack([(1 - z * z).sqrt() * phi.cos(), (1 - z * z).sqrt() * phi.sin(), z], dim=1)


def looking_in(direction: torch.Tensor, distance: float, target: torch.Tensor = MIDDLE) -> Rigid:
    """cam_from_world of a camera that looks at `target` along `direction`."""
    up = torch.tensor([0.0, 0.0, 1.0] if abs(float(direction[2])) < 0.9 else [1.0, 0.0, 0.0], dtype=torch.float64)
    right = normalize(torch.linalg.cross(direction, up), dim=0)
    rotation = torch.stack([right, torch.linalg.cross(direction, right), direction])
    return Rigid(rotation=rotation, translation=-(rotation @ (target - distance * direction)))


def world_rays(camera: Camera, pose: Rigid) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre and unit directions [v, u]."""
    v, u = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
    rays = normalize(camera.rays(torch.stack([u, v], dim=-1).double() + 0.5), dim=-1)
    back = pose.inverse()
    return back.translation, back.rotate(rays)


# ---------------------------------------------------------------------------------------------------------- depth


def test_surveys_add_up() -> None:
    first, second = DepthSurvey(pixels=10, missing=2, elsewhere=1), DepthSurvey(pixels=30, missing=3, elsewhere=4)
    assert first + second == DepthSurvey(pixels=40, missing=5, elsewhere=5)
    assert first.bad == pytest.approx(0.3)
    assert (first + second).bad == pytest.approx(0.25)
    assert (DepthSurvey() + first) == first
    assert DepthSurvey().bad == 0.0


def test_pixels_on_the_object_are_counted_by_what_they_read() -> None:
    """Against a loop over the pixels; `kept` runs over readings only, in the order of rows."""
    rng = np.random.default_rng(0)
    depth = (rng.random((12, 17)) * (rng.random((12, 17)) > 0.4)).astype(np.float32)
    looks, of_object = rng.random((12, 17)) > 0.3, rng.random((12, 17)) > 0.5
    expected = DepthSurvey()
    for read, wanted, right in zip(depth.flat, looks.flat, of_object.flat, strict=True):
        if wanted:
            expected += DepthSurvey(pixels=1, missing=int(read == 0), elsewhere=int(read > 0 and not right))
    assert survey_depth(depth, torch.from_numpy(of_object[depth > 0]), looks) == expected
    assert min(expected.missing, expected.elsewhere) > 10


@pytest.mark.parametrize("at", [(0.0, 0.0), (0.11, -0.3)])
def test_the_outline_of_a_sphere_is_its_disc_less_two_pixels(at: tuple[float, float]) -> None:
    """The second runs out of the picture."""
    camera = Camera(width=160, height=120, fx=200.0, fy=200.0, cx=80.3, cy=60.7)
    pose = looking_in(directions(40)[9], 1.5)
    target = MIDDLE + pose.inverse().rotate(torch.tensor([*at, 0.0], dtype=torch.float64))
    spacing = (4 * np.pi * RADIUS**2 / 3000) ** 0.5
    found = outline_of((target + RADIUS * directions(3000)).float(), camera, pose, spacing)
    origin, rays = world_rays(camera, pose)
    to_target = target - origin
    across = torch.linalg.cross(rays, to_target.expand_as(rays)).norm(dim=-1)
    # by how many pixels a pixel's middle lies within the disc, along the shortest way, to a percent of the distance
    within = (((RADIUS - across) / to_target.norm()) * camera.fx).numpy()
    # erosion by crosses takes 2 px along the axes, 2 / sqrt(2) across them; a point's pixel reaches 0.71 px further
    assert not found[within < 2 / 2**0.5 - 2 * 0.71].any()
    # between points at most 1.5 spacings apart on the sphere, the picture of its rim is an arc's height further in:
    # (1.5 / 2 * 0.019)^2 / (2 r) of a metre, 0.05 px; the closing's crosses leave up to a pixel and a half
    # along the picture's edges, beyond which there are no points, gaps of up to 1 + 2.6 px stay open, and wear by 2
    v, u = np.mgrid[: camera.height, : camera.width]
    off_edges = np.minimum(np.minimum(u, 159 - u), np.minimum(v, 119 - v)) >= 6
    assert found[(within > 2 + 0.71 + 1.5) & off_edges].all()
    assert found.sum() > 1000


def test_what_no_image_shows_has_no_outline() -> None:
    camera = Camera(width=30, height=20, fx=50.0, fy=50.0, cx=15.0, cy=10.0)
    points = (MIDDLE + 0.1 * directions(100)).float()
    away = looking_in(directions(40)[9], -3.0)  # behind
    beside = looking_in(directions(40)[9], 3.0, MIDDLE + 10)
    for pose in (away, beside):
        assert outline_of(points, camera, pose, 0.01).sum() == 0


# ------------------------------------------------------------------------------------------------------ judgement


@pytest.mark.parametrize(
    ("missing", "elsewhere", "highlights", "kind"),
    [
        (50, 40, 0.0, "matte"),
        (50, 40, None, "matte"),
        (50, 40, 0.03, "glossy"),
        (50, 40, 0.2, "glossy"),
        (250, 250, 0.0, "matte"),  # a half is not more than a half
        (300, 240, 0.0, "clear"),
        (300, 240, None, "clear"),
        (540, 0, 0.03, "clear"),
        (0, 540, 0.2, "mirror"),
    ],
)
def test_the_kind_follows_from_bad_depth_and_highlights(
    missing: int, elsewhere: int, highlights: float | None, kind: str
) -> None:
    survey = DepthSurvey(pixels=1000, missing=missing, elsewhere=elsewhere)
    surface = judged(survey, highlights)
    assert surface.kind == SurfaceKind(kind)
    assert surface.survey == survey
    assert surface.is_opaque_and_rough == (kind in ("matte", "glossy"))
    assert f"{missing // 10} % of the depth on the object is missing, {elsewhere // 10} % is" in surface.reason
    told = "too few places" if highlights is None else f"{100 * highlights:.1f} % of the views"
    assert told in surface.reason


@pytest.mark.parametrize(("highlights", "kind"), [(None, "matte"), (0.005, "matte"), (0.2, "glossy")])
def test_without_depth_only_colours_speak(highlights: float | None, kind: str) -> None:
    surface = judged(DepthSurvey(pixels=499, missing=499), highlights)
    assert (surface.kind, surface.survey) == (SurfaceKind(kind), None)
    assert surface.reason.startswith("no depth to judge by; ")


def test_only_what_photographs_show_itself_is_compared() -> None:
    kinds = {kind for kind in SurfaceKind if Surface(kind=kind, reason="", survey=None).is_opaque_and_rough}
    assert kinds == {SurfaceKind.matte, SurfaceKind.glossy}


# ----------------------------------------------------------------------------------------------------- highlights

CAMERA = Camera(width=90, height=84, fx=170.0, fy=170.0, cx=44.0, cy=43.0)
TO_LIGHT = normalize(torch.tensor([0.3, -0.4, 1.0], dtype=torch.float64), dim=0)  # in the room
Light = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def lambertian(normals: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """A bright sky and a lamp."""
    return 0.25 + 0.1 * normals[..., 2] + 0.2 * (normals @ TO_LIGHT).clamp_min(0)


def spotted(degrees: float) -> Light:
    """And the lamp's picture, so many degrees wide to each side."""

    def light(normals: torch.Tensor, rays: torch.Tensor) -> torch.Tensor:
        away = rays - 2 * (rays * normals).sum(-1, keepdim=True) * normals
        return torch.where(away @ TO_LIGHT > np.cos(np.radians(degrees)), 1.0, lambertian(normals, rays))

    return light


def views() -> list[tuple[Rigid, torch.Tensor]]:
    """Poses above the object, and the rotations from world to room at their stops."""
    above = [d for d in directions(48) if 0.1 < d[2] < 0.9]
    turns = [Rotation.from_euler("z", 40 * i, degrees=True).as_matrix() for i in range(len(above))]
    return [(looking_in(-d, 1.6), torch.from_numpy(turn)) for d, turn in zip(above, turns, strict=True)]


def photographed(light: Light) -> Pixels:
    """A grey sphere with darker meridians, in a world that turns in the room."""
    photographs = []
    for i, (pose, room_from_world) in enumerate(views()):
        origin, rays = world_rays(CAMERA, pose)
        to_middle = MIDDLE - origin
        along = rays @ to_middle
        left = along**2 - to_middle.square().sum() + RADIUS**2
        normals = (rays * (along - left.clamp_min(0).sqrt())[..., None] - to_middle) / RADIUS
        albedo = 0.9 + 0.1 * torch.sin(6 * torch.atan2(normals[..., 1], normals[..., 0]))
        grey = light(normals @ room_from_world.T, rays @ room_from_world.T)
        grey = torch.where(grey < 1, albedo * grey, grey).clamp(0, 1) * 255
        rgb = grey.round().to(torch.uint8)[..., None].expand(*grey.shape, 3)
        photographs.append(
            Photograph.cropped(
                rgb.numpy(), (left > 0).numpy(), 4, name=f"{i}.png", camera=CAMERA, cam_from_world=pose,
                rig_from_world=room_from_world, sensor=0, stop=i,
            )
        )  # fmt: skip
    return Pixels.gather(photographs, Similarity(scale=1.0, translation=torch.zeros(3)), 3)


def hull() -> VisualHull:
    axis = (torch.arange(64) + 0.5) / 64
    centers = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return VisualHull(sdf=(centers - MIDDLE.float()).norm(dim=-1) - RADIUS)


def readings(n: int, n_sure: int) -> Readings:
    """Every reading is right; only some are known to be."""
    pose = looking_in(directions(40)[9], 1.5)
    points = (MIDDLE + RADIUS * directions(n))[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    found = Readings.gather([points], [pose], [0], [0], Similarity(scale=1.0, translation=torch.zeros(3)), 0.01)
    return replace(found, inlier=(torch.arange(n) < n_sure).float())


def expected_share(degrees: float) -> float:
    """Of views of evenly spread places, less than acos(0.35) off their normal, those that show the lamp."""
    shown = n = 0
    normals = directions(4000)
    for pose, room_from_world in views():
        rays = normalize(MIDDLE + RADIUS * normals - pose.inverse().translation, dim=1)
        facing = -(rays * normals).sum(dim=1)
        away = (rays + 2 * facing[:, None] * normals) @ room_from_world.T @ TO_LIGHT
        shown += int((away > np.cos(np.radians(degrees)))[facing > 0.35].sum())
        n += int((facing > 0.35).sum())
    return shown / n


def test_a_matte_sphere_has_no_highlights() -> None:
    share = highlight_share(photographed(lambertian), readings(4000, 4000), hull())
    assert share is not None
    assert share < 1e-3


@pytest.mark.parametrize("degrees", [12.0, 20.0])
def test_highlights_have_their_share_of_the_views(degrees: float) -> None:
    share = highlight_share(photographed(spotted(degrees)), readings(4000, 4000), hull())
    expected = expected_share(degrees)
    assert expected > 0.01  # what counts as glossy
    # a place that shows the lamp to some is thought brighter than it is, which hides no spot this bright; the rest are
    # pixels that a spot's rim divides
    assert share == pytest.approx(expected, rel=0.2)


def test_few_places_or_few_views_say_nothing() -> None:
    pixels = photographed(lambertian)
    assert highlight_share(pixels, readings(4000, 299), hull()) is None
    black = replace(pixels, bits=torch.zeros_like(pixels.bits))  # masks that hold nothing
    assert highlight_share(black, readings(4000, 4000), hull()) is None
