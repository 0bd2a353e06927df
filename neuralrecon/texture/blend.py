"""Colours of texels from the photographs chosen for their faces, and from the field where no photograph looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..train import Fit
from .choice import Choice, score
from .eyes import Eye
from .light import Light

_ASKED = 3  # views whose field colours are compared
_FAR_OFF = 0.1  # sRGB by which a photograph may differ from the field's matte colour before it counts less
_BEYOND_THRESHOLD = 0.02  # of its score, what a view counts that is under the threshold
_FADE = 0.002  # of the usual best score, at which the photographs' colour is half the field's


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Points on the mesh to be coloured, in the unit frame, with the threshold of `Choice` and the face they lie on."""

    places: Float[Tensor, "points 3"]
    normals: Float[Tensor, "points 3"]
    thresholds: Float[Tensor, "points"]
    faces: Int[Tensor, "points"]

    def __getitem__(self, which: Tensor) -> Points:
        return Points(
            places=self.places[which],
            normals=self.normals[which],
            thresholds=self.thresholds[which],
            faces=self.faces[which],
        )


@torch.no_grad()
def matte_colors(fit: Fit, points: Points, choice: Choice, eyes: Sequence[Eye], light: Light) -> Float[Tensor, "n 3"]:
    """What the field shows without what depends on the view: its middle colour among the best views, unlit.

    A highlight is in few of them, so the median of each channel leaves it out. Faces that no photograph sees are asked
    about from where they would be seen best.
    """
    views = _best_views(fit, points, choice, eyes)
    rotations = torch.cat([torch.stack([_room(eye) for eye in eyes]), fit.view_rig_from_world.float()])
    origins = torch.cat([torch.stack([eye.origin for eye in eyes]), fit.view_origins.float()])
    shown = []
    for view in views.unbind(1):
        towards = normalize(points.places - origins[view], dim=1)
        seen = fit.model.color(points.places, points.normals, towards, rotations[view])
        in_room = (rotations[view] @ points.normals[:, :, None])[:, :, 0]
        shown.append(seen / light.factor(in_room))
    return torch.stack(shown).median(dim=0).values


@torch.no_grad()
def blended(
    fit: Fit,
    points: Points,
    choice: Choice,
    eyes: Sequence[Eye],
    light: Light,
    expected: Float[Tensor, "points 3"],
) -> tuple[Float[Tensor, "points 3"], Float[Tensor, "points"]]:
    """Unlit colours from the photographs, and in [0, 1] how far they are to be taken: 0 where no photograph looks.

    The mean of the photographs' colours, each as sensor and light leave it, weighted by what their score is above the
    face's threshold, and by how well they agree with what the field expects: w = s (1 + (off / far)^2)^-2.
    """
    sums, weights = expected.new_zeros(len(expected), 3), expected.new_zeros(len(expected))
    best = expected.new_zeros(len(expected))
    for eye, which in zip(eyes, _points_of_views(points, choice, len(eyes)), strict=True):
        part = points[which]
        pixels = eye.pixels(part.places)
        s = score(eye, part.places, part.normals, pixels)
        best[which] = torch.maximum(best[which], s)
        s = (s - part.thresholds).clamp_min(0) + _BEYOND_THRESHOLD * s
        colors = unlit(fit, eye, eye.colors(pixels), part.normals, light)
        off = (colors - expected[which]).square().sum(dim=1) / _FAR_OFF**2
        w = s / (1 + off).square()
        sums.index_add_(0, which, w[:, None] * colors)
        weights.index_add_(0, which, w)
    seen = best > 0
    usual = float(best[seen].median()) if bool(seen.any()) else 1.0
    return sums / weights.clamp_min(1e-30)[:, None], best / (best + _FADE * usual)


def unlit(
    fit: Fit, eye: Eye, recorded: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"], light: Light
) -> Float[Tensor, "points 3"]:
    """A photograph's colours without its sensor's gain and offset, and without the light on these normals."""
    sensor = eye.photograph.sensor
    gain, offset = fit.model.sensors.log_gain[sensor].detach().exp(), fit.model.sensors.offset[sensor].detach()
    return (recorded - offset) / gain / light.factor(normals @ _room(eye).T)


@torch.no_grad()
def found_light(fit: Fit, points: Points, eyes: Sequence[Eye]) -> Light:
    """From what the photographs show of these points."""
    places, colors, normals = [], [], []
    for eye in eyes:
        pixels = eye.pixels(points.places)
        seen = (score(eye, points.places, points.normals, pixels) > 0).nonzero()[:, 0]
        places.append(seen)
        colors.append(unlit(fit, eye, eye.colors(pixels[seen]), points.normals[seen], Light.constant()))
        normals.append(points.normals[seen] @ _room(eye).T)
    return Light.of_views(torch.cat(places), torch.cat(colors), torch.cat(normals))


def _best_views(fit: Fit, points: Points, choice: Choice, eyes: Sequence[Eye]) -> Int[Tensor, "points views"]:
    """Of each point's face; numbers beyond the photographs' are the fit's own views."""
    n = min(_ASKED, choice.views.shape[1])
    views, unseen = choice.views[points.faces, :n].clone(), (choice.scores[points.faces, 0] <= 0).nonzero()[:, 0]
    # views that see nothing of the face are no better than the best one
    worthless = choice.scores[points.faces, :n] <= 0
    views = torch.where(worthless, views[:, :1], views)
    own = torch.arange(n) % max(len(fit.view_origins), 1)
    for block in unseen.split(1 << 15):
        towards = normalize(points.places[block, None] - fit.view_origins[None], dim=2)
        facing = -(towards * points.normals[block, None]).sum(dim=2)
        views[block] = facing.topk(int(own.max()) + 1, dim=1).indices[:, own] + len(eyes)
    return views


def _points_of_views(points: Points, choice: Choice, n_eyes: int) -> Iterator[Int[Tensor, "some"]]:
    """Of each photograph, the points on faces that it was chosen for."""
    of_face = torch.argsort(points.faces)
    counts = torch.bincount(points.faces, minlength=len(choice.views))
    starts = torch.cumsum(counts, 0) - counts
    for i in range(n_eyes):
        faces = ((choice.views == i) & (choice.scores > 0)).any(dim=1).nonzero()[:, 0]
        yield of_face[_ranges(starts[faces], counts[faces])]


def _room(eye: Eye) -> Float[Tensor, "3 3"]:
    return eye.photograph.rig_from_world.float()


def _ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """All numbers of several ranges, one after the other."""
    total = int(counts.sum())
    shift = torch.repeat_interleave(starts - (torch.cumsum(counts, 0) - counts), counts)
    return torch.arange(total) + shift
