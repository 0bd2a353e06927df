"""Readings of the mirrored table: an overhanging wall, whose mirrored rays are known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuralrecon.scene import VisualHull
from neuralrecon.scene.mirrored import of_mirrored_table
from neuralrecon.scene.readings import Readings

SIDE, UNIT_PER_MM, FLOOR = 64, 0.005, 0.1  # the cube is 200 mm wide
NORMAL = torch.tensor([0.8, 0.0, -0.6])  # of a wall that leans over the table
WALL = 0.5 * 0.8  # NORMAL . x on it, which is 3 mm in the hull: there rays are taken to meet it


@pytest.fixture
def hull() -> VisualHull:
    axis = (torch.arange(SIDE) + 0.5) / SIDE
    at = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return VisualHull(sdf=at @ NORMAL - WALL - 3 * UNIT_PER_MM)


def rays() -> tuple[Tensor, Tensor, Tensor]:
    """Cameras, directions, and how far it is to the wall; they meet it 20 to 60 mm above the table."""
    heights = torch.linspace(FLOOR + 0.1, FLOOR + 0.3, 40)
    walls = torch.stack([(WALL + 0.6 * heights) / 0.8, torch.linspace(0.3, 0.7, 40), heights], dim=1)
    origins = torch.tensor([2.5, 0.5, 1.2]).expand(40, 3)
    lengths = (walls - origins).norm(dim=1)
    return origins, (walls - origins) / lengths[:, None], lengths


def to_table(origins: Tensor, directions: Tensor, lengths: Tensor) -> Tensor:
    """The way from the wall to the table along the mirrored direction."""
    thrown = directions - 2 * (directions @ NORMAL)[:, None] * NORMAL
    return (origins[:, 2] + lengths * directions[:, 2] - FLOOR) / -thrown[:, 2]


def test_what_lies_as_far_as_the_mirrored_table_is_told_from_what_does_not(hull: VisualHull) -> None:
    origins, directions, lengths = rays()
    beyond = to_table(origins, directions, lengths)

    def told(off_mm: float | Tensor, share: float = 0.0) -> Tensor:
        points = origins + directions * (lengths + share * beyond + off_mm * UNIT_PER_MM)[:, None]
        return of_mirrored_table(points, origins, hull, FLOOR, UNIT_PER_MM)

    assert bool(told(0.0, 1.0).all())
    assert bool(told(3.0, 1.0).all())  # off by less than 4 mm
    assert not bool(told(0.0).any())  # on the wall
    assert not bool(told(-2.0).any())  # before it
    # further off than 4 mm and a third of the way
    assert not bool(told(6.0, 1.35).any())
    assert not bool(told(-6.0, 0.65).any())


def test_a_wall_that_throws_its_rays_up_mirrors_no_table(hull: VisualHull) -> None:
    """The same places of the wall, met at a grazing angle from below: their rays are thrown up."""
    origins, directions, lengths = rays()
    walls = origins + directions * lengths[:, None]
    up_the_wall = torch.tensor([0.6, 0.0, 0.8])
    rising = torch.nn.functional.normalize(up_the_wall - 0.2 * NORMAL, dim=0).expand(40, 3)
    thrown = rising - 2 * (rising @ NORMAL)[:, None] * NORMAL
    assert bool((thrown[:, 2] > 0.5).all())
    below = walls - 0.6 * rising
    for behind_mm in (5.0, 10.0, 20.0, 40.0):
        points = walls + behind_mm * UNIT_PER_MM * rising
        assert not bool(of_mirrored_table(points, below, hull, FLOOR, UNIT_PER_MM).any())


def test_what_is_not_believed_counts_nothing_and_tells_no_free_room() -> None:
    """Six cameras look along one line to places 40 mm apart: the nearer is passed by those who read the further."""
    n = 6
    origins = torch.tensor([[0.9, 0.5, 0.5]]).repeat(n, 1) + 0.002 * torch.arange(n)[:, None]
    points = torch.tensor([[0.3, 0.5, 0.5]]).repeat(n, 1)
    readings = Readings(
        points=points,
        frames=torch.arange(n, dtype=torch.int32),
        inlier=torch.full((n,), 0.9),
        free=torch.ones(100, 100, 100, dtype=torch.bool),
        origins=origins,
        rotations=torch.eye(3).repeat(n, 1, 1),
        sensors=torch.zeros(n, dtype=torch.long),
        stops=torch.zeros(n, dtype=torch.long),
    )
    none = readings.disbelieving(torch.zeros(n, dtype=torch.bool), UNIT_PER_MM)
    assert bool(none.free.any())
    assert torch.equal(none.inlier, readings.inlier)
    wrong = torch.arange(n) < 2  # four are left, and five must tell it
    less = readings.disbelieving(wrong, UNIT_PER_MM)
    assert torch.allclose(less.inlier, torch.where(wrong, 0.0, 0.9))
    assert not bool(less.free.any())
