"""Patches of planes in photographs whose pixels are known in closed form; derivatives against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from neuralrecon.geometry import Camera
from neuralrecon.ops import use_backend
from neuralrecon.ops.patch_ncc import Photographs, patch_ncc

SIZES = ((90, 70), (80, 75))
DISTORTION = (-0.08, 0.05, 4e-4, -3e-4, 0.01)
CORNER = (5, 3)
CAMERAS = tuple(
    Camera(width=100, height=80, fx=120.0 + i, fy=121.0, cx=49.3, cy=40.8, distortion=DISTORTION) for i in range(2)
)


def rotations() -> torch.Tensor:
    """World from camera, of two cameras that look along +z and 9 degrees aside."""
    c, s = math.cos(0.16), math.sin(0.16)
    return torch.stack([torch.eye(3), torch.tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]])])


def origins() -> torch.Tensor:
    return torch.tensor([[0.5, 0.5, -1.0], [0.75, 0.52, -0.95]])


def shade(points: torch.Tensor) -> torch.Tensor:
    """The print of the world, white = 1: smooth over several pixels."""
    return 0.5 + 0.25 * torch.sin(40 * points[..., 0] + 5 * points[..., 1]) + 0.2 * torch.cos(33 * points[..., 1])


def plane(uv: torch.Tensor, image: int) -> torch.Tensor:
    """Where the rays through pixels meet the plane z = 0.5 + 0.2 x."""
    rays = CAMERAS[image].rays(uv.double()) @ rotations()[image].double().T
    start, normal = origins()[image].double(), torch.tensor([-0.2, 0, 1], dtype=torch.float64)
    reach = (0.5 - start @ normal) / (rays @ normal)
    return start + rays * reach[..., None]


def photographs() -> Photographs:
    """Two crops of the plane's print; the silhouettes end at column 80 of the crop."""
    pixels, bits, firsts = [], [], []
    for image, (width, height) in enumerate(SIZES):
        v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        grey = shade(plane(torch.stack([u + CORNER[0], v + CORNER[1]], -1), image)) * 255
        firsts.append([sum(len(p) for p in pixels), sum(len(b) for b in bits)])
        # the three channels differ; their mean is what counts
        pixels.append(
            torch.stack([grey - 20, grey, grey + 20], -1).clamp(0, 255).round().to(torch.uint8).reshape(-1, 3)
        )
        inside = torch.nn.functional.pad((u < 80).reshape(-1), (0, -width * height % 8)).reshape(-1, 8)
        bits.append((inside * 2 ** torch.arange(7, -1, -1)).sum(1).to(torch.uint8))
    k = [[c.fx, c.fy, c.cx, c.cy, *c.distortion] for c in CAMERAS]
    return Photographs(
        rgb=torch.cat(pixels),
        bits=torch.cat(bits),
        firsts=torch.tensor(firsts),
        crops=torch.tensor([[*CORNER, *size] for size in SIZES]),
        intrinsics=torch.tensor(k),
        rotations=rotations(),
        origins=origins(),
    )


def normalised(values: torch.Tensor) -> torch.Tensor:
    centred = values - values.mean(dim=1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True)


def patches(*middles: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """5 x 5 points of the plane every other pixel of the first photograph (crop coordinates), and their true print."""
    step = 2.0 * torch.arange(-2, 3)
    offsets = torch.stack(torch.meshgrid(step, step, indexing="ij"), -1).reshape(-1, 2)
    points = plane(torch.tensor(middles)[:, None] + offsets + torch.tensor(CORNER), 0)
    return points.float(), normalised(shade(points)).float()


@pytest.fixture(params=["torch", "cpu"])
def backend(request: pytest.FixtureRequest):
    with use_backend(request.param):
        yield request.param


def test_a_patch_of_the_true_plane_looks_as_its_print(backend: str) -> None:
    points, templates = patches((30.0, 30.0), (45.0, 25.0), (50.0, 40.0))
    found = patch_ncc(points, torch.zeros(3, 2, 3), templates, torch.tensor([[0, 1]]).expand(3, 2), photographs())
    assert found.inside.all()
    # a pixel is 0.0125 wide: waves of 40 rad/unit lose at most (40 * 0.0125)^2 / 8 = 3 % of their height, all alike,
    # and rounding adds 0.3 of 255 to a contrast of 40
    assert (found.correlation > 0.999).all()
    spread = shade(points).std(dim=1, correction=0)
    torch.testing.assert_close(found.contrast, spread[:, None].expand(3, 2), atol=0.006, rtol=0.03)
    # half a wave aside it is its own opposite along x
    aside = patch_ncc(
        points, torch.tensor([math.pi / 40, 0, 0]).expand(3, 1, 3), templates, torch.tensor([[0]] * 3), photographs()
    )
    assert (aside.correlation < 0.9).all()


def test_what_is_out_of_sight_is_said(backend: str) -> None:
    behind = torch.tensor([0.0, 0.0, -3.0])
    points, templates = patches((30.0, 30.0), (78.0, 30.0), (3.0, 30.0), (30.0, 30.0), (30.0, 68.0), (30.0, 30.0))
    points[5] += behind
    images = torch.tensor([[0], [0], [0], [-1], [0], [0]])
    found = patch_ncc(points, torch.zeros(6, 1, 3), templates, images, photographs())
    # in sight, over the silhouette, over the crop, no photograph, below the crop, behind the camera
    assert found.inside[:, 0].tolist() == [True, False, False, False, False, False]
    assert (found.correlation[1:] == 0).all()
    assert (found.contrast[1:] == 0).all()


def test_gain_and_offset_do_not_matter_and_flat_patches_have_no_gradient(backend: str) -> None:
    points, templates = patches((30.0, 30.0))
    given, images = photographs(), torch.tensor([[0]])
    bright = patch_ncc(points, torch.zeros(1, 1, 3), templates, images, given)
    values = (given.rgb.float() * 0.5 + 40).round().to(torch.uint8)
    dull = Photographs(**{n: values if n == "rgb" else getattr(given, n) for n in Photographs.__slots__})
    torch.testing.assert_close(
        patch_ncc(points, torch.zeros(1, 1, 3), templates, images, dull).correlation,
        bright.correlation,
        atol=1e-3,
        rtol=0,
    )
    flat = Photographs(
        **{n: torch.full_like(given.rgb, 90) if n == "rgb" else getattr(given, n) for n in Photographs.__slots__}
    )
    points.requires_grad_()
    found = patch_ncc(points, torch.zeros(1, 1, 3), templates, images, flat)
    found.correlation.sum().backward()
    assert points.grad is not None
    assert found.correlation.abs().max() < 1e-3
    assert points.grad.abs().max() < 1e-3


def test_both_spellings_agree() -> None:
    points, templates = patches((30.0, 30.0), (45.0, 25.0), (50.0, 40.0), (78.0, 30.0))
    generator = torch.Generator().manual_seed(0)
    points = points + 0.01 * torch.randn(points.shape, generator=generator)
    shifts = 0.01 * torch.randn(4, 2, 3, generator=generator)
    images, weights = torch.tensor([[0, 1], [1, 0], [1, -1], [0, 1]]), torch.randn(4, 2, generator=generator)
    results = []
    for name in ("torch", "cpu"):
        p, s = points.clone().requires_grad_(), shifts.clone().requires_grad_()
        with use_backend(name):
            found = patch_ncc(p, s, templates, images, photographs())
        (found.correlation * weights).sum().backward()
        results.append((found.correlation, found.contrast, found.inside, p.grad, s.grad))
    slow, fast = results
    assert torch.equal(slow[2], fast[2])
    assert 3 <= int(slow[2].sum()) < 7
    # float32: pixels of 100 are good to 1e-5, grey values climb 0.1 a pixel
    for a, b, tolerance in zip(slow, fast, (1e-5, 1e-5, 0, 2e-3, 2e-3), strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=1e-3)


def test_the_definition_has_the_derivatives_of_finite_differences() -> None:
    points, templates = patches((30.3, 30.2), (45.1, 25.4))
    shifts = torch.tensor([[[0.001, 0.002, 0.001], [0.0, -0.001, 0.003]]]).expand(2, 2, 3)
    images, given = torch.tensor([[0, 1], [1, 0]]), photographs()

    def correlation(p: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return patch_ncc(p, s, templates.double(), images, given).correlation

    # bilinear: exact between pixels, where a step of 1e-7 stays
    torch.autograd.gradcheck(
        correlation,
        (points.double().requires_grad_(), shifts.double().requires_grad_()),
        eps=1e-7,
        atol=1e-4,
        rtol=1e-4,
    )
