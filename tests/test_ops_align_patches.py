"""Patches found again where a closed form says they are, and both spellings of the op alike."""

from __future__ import annotations

import math

import torch

from neuralrecon.ops import Patches, align_patches, sample_patches, use_backend

N_SAMPLES = 121


def waves(shift_u: float, shift_v: float) -> torch.Tensor:
    """A smooth photograph in closed form, moved by a known shift, with its exact derivatives."""
    v, u = torch.meshgrid(torch.arange(60) + 0.5 - shift_v, torch.arange(80) + 0.5 - shift_u, indexing="ij")
    a, b = 2 * math.pi / 17, 2 * math.pi / 13
    grey = torch.sin(a * u + 0.3 * v * b) + torch.cos(b * v)
    by_u = a * torch.cos(a * u + 0.3 * v * b)
    by_v = 0.3 * b * torch.cos(a * u + 0.3 * v * b) - b * torch.sin(b * v)
    return torch.stack([grey, by_u, by_v]).float()


def patches_at(n: int) -> Patches:
    g = torch.Generator().manual_seed(3)
    turn = torch.eye(2) + 0.2 * torch.randn(n, 2, 2, generator=g)
    center = torch.tensor([25.0, 20.0]) + torch.rand(n, 2, generator=g) * torch.tensor([30.0, 20.0])
    return Patches(center=center, by_step=turn, tilt=0.002 * torch.randn(n, 2, generator=g))


def normalised(values: torch.Tensor) -> torch.Tensor:
    centred = values - values.mean(dim=1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True)


def test_a_known_shift_is_found():
    patches = patches_at(40)
    templates, inside = sample_patches(waves(0, 0), patches, N_SAMPLES)
    assert inside.all()
    shifted = 3.0 * waves(0.7, -0.4) + torch.tensor([9.0, 0.0, 0.0])[:, None, None]  # gain and offset must not matter
    found = align_patches(shifted, patches, normalised(templates), 10)
    # bilinear reading of waves 13 px long is off by at most (2 pi / 13)^2 / 8 = 3 % of their height, and such a wave
    # climbs 48 % of its height a pixel at its steepest: 0.06 px
    torch.testing.assert_close(
        found.center - patches.center, torch.tensor([0.7, -0.4]).expand(40, 2), atol=0.06, rtol=0
    )
    assert (found.correlation > 0.999).all()
    assert (found.last_step < 1e-3).all()


def test_the_definition_and_the_compiled_loop_agree():
    patches = patches_at(40)
    templates = normalised(sample_patches(waves(0, 0), patches, N_SAMPLES)[0])
    image = waves(0.5, 0.3)
    fast = align_patches(image, patches, templates, 4)
    with use_backend("torch"):
        slow = align_patches(image, patches, templates, 4)
    torch.testing.assert_close(fast.center, slow.center, atol=1e-4, rtol=0)
    torch.testing.assert_close(fast.correlation, slow.correlation, atol=1e-5, rtol=0)
    assert torch.equal(fast.inside, slow.inside)


def test_patches_that_leave_the_photograph_are_told():
    patches = Patches(
        center=torch.tensor([[3.0, 30.0], [40.0, 30.0]]), by_step=torch.eye(2).expand(2, 2, 2), tilt=torch.zeros(2, 2)
    )
    templates = normalised(torch.randn(2, N_SAMPLES, generator=torch.Generator().manual_seed(1)))
    for backend in ("cpu", "torch"):
        with use_backend(backend):
            assert align_patches(waves(0, 0), patches, templates, 2).inside.tolist() == [False, True]


def test_the_tilt_is_that_of_a_pinhole():
    """A plane's points projected by a camera lie where centre, by_step and tilt say, to rounding."""
    from neuralrecon.geometry import Camera
    from neuralrecon.ops.align_patches import offsets

    camera = Camera(width=80, height=60, fx=90.0, fy=95.0, cx=40.0, cy=30.0)
    point = torch.tensor([0.05, -0.02, 0.8], dtype=torch.float64)
    tangents = torch.tensor([[0.003, 0.001, 0.004], [0.0, 0.003, -0.002]], dtype=torch.float64)
    steps = offsets(N_SAMPLES).double()
    exact = camera.project(point + steps @ tangents)
    xy = point[:2] / point[2]
    by_step = torch.tensor([90.0, 95.0])[:, None] * (tangents[:, :2] - tangents[:, 2:] * xy).t() / point[2]
    tilt = tangents[:, 2] / point[2]
    formed = camera.project(point) + steps @ by_step.t() / (1 + steps @ tilt)[:, None]
    torch.testing.assert_close(formed, exact, atol=1e-10, rtol=0)
