"""Triton's kernels against the ops' definitions in float64: on a GPU where there is one, else under the interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from neuralrecon.errors import ConfigError
from neuralrecon.ops import (
    AdamSettings,
    Backend,
    HashGrid,
    Samples,
    SdfNetwork,
    adam_step,
    backends,
    composite,
    hash_encode,
    hash_features,
    march,
    sdf_query,
    use_backend,
)
from neuralrecon.ops.march import BAND, INSIDE, OUTSIDE, Band

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # conftest has set TRITON_INTERPRET for the latter
# Its resolutions are powers of two, so that points can lie on cells' faces exactly, in float32 as in float64.
GRID = HashGrid(levels=5, log2_table_size=10, base_resolution=4, finest_resolution=64)
ROUNDING = 2.0**-24
# At resolutions that are powers of two a point's place in its cell is exact. Then a corner's share takes up to eight
# roundings (three sides, two products, value, slope, sum), and there are eight corners. Relative to the largest value.
TOLERANCE = 8 * 8 * ROUNDING


def _draw(seed: int, *shape: int) -> Tensor:
    """Normal, in float32, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def _points(n: int) -> Tensor:
    """Uniform in the cube, after some on faces, edges and corners of cells and some outside."""
    special = torch.tensor(
        [[0, 0, 0], [1, 1, 1], [0.25, 0.5, 0.75], [0.125, 0.3, 1], [-0.1, 0.5, 1.2], [-3, -3, -3], [0.999, 7, 0.25]]
    )
    return torch.cat([special, torch.rand(n - 7, 3, generator=torch.Generator().manual_seed(2))]).to(DEVICE)


def _both(run: Callable[..., tuple[Tensor, ...]], *leaves: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of `run`, and gradients of a random combination of them, by the definition and by Triton."""
    results = []
    for backend, dtype in (("torch", torch.float64), ("triton", torch.float32)):
        given = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
        with use_backend(backend):
            outputs = run(*given)
            loss = sum((out * _draw(20 + i, *out.shape)).sum() for i, out in enumerate(outputs))
            gradients = torch.autograd.grad(loss, given, materialize_grads=True)  # pyright: ignore
        results.append([x.detach().double() for x in (*outputs, *gradients)])
    return results[0], results[1]


def _assert_close(defined: list[Tensor], found: list[Tensor], tolerance: float) -> None:
    for i, (want, got) in enumerate(zip(defined, found, strict=True)):
        assert got.shape == want.shape
        assert (got - want).abs().max() <= tolerance * want.abs().max(), f"output {i}"


def test_the_grid_has_dense_and_hashed_levels() -> None:
    assert [GRID.is_dense(level) for level in range(5)] == [True, True, False, False, False]
    assert GRID.resolutions == (4, 8, 16, 32, 64)


@pytest.mark.parametrize("levels", [5, 2])
def test_hash_encode(levels: int) -> None:
    points, table = _points(150), _draw(1, GRID.n_entries, 2)  # a block and a part of one
    defined, found = _both(lambda t: hash_encode(points.to(t.dtype), t, GRID, levels), table)
    _assert_close(defined, found, TOLERANCE)
    assert not found[0][:, 2 * levels :].any()
    assert not found[1][:, 2 * levels :].any()


@pytest.mark.parametrize("features_per_level", [1, 4])
def test_other_numbers_of_features(features_per_level: int) -> None:
    grid = HashGrid(
        levels=2, log2_table_size=9, base_resolution=4, finest_resolution=64, features_per_level=features_per_level
    )
    table = _draw(3, grid.n_entries, features_per_level)
    defined, found = _both(lambda t: hash_encode(_points(20).to(t.dtype), t, grid), table)
    _assert_close(defined, found, TOLERANCE)


def test_features_alone_which_have_derivatives_by_position_and_jacobian_alone() -> None:
    points, table = _points(40), _draw(1, GRID.n_entries, 2)
    with use_backend("triton"):
        assert torch.equal(hash_features(points, table, GRID), hash_encode(points, table, GRID)[0])
    _assert_close(*_both(lambda p, t: (hash_features(p, t, GRID, 4),), points, table), TOLERANCE)
    _assert_close(*_both(lambda p: (hash_features(p, table.to(p.dtype), GRID, 4),), points), TOLERANCE)
    _assert_close(*_both(lambda t: (hash_encode(points.to(t.dtype), t, GRID, 4)[1],), table), TOLERANCE)


def test_no_points_and_no_levels() -> None:
    table = _draw(1, GRID.n_entries, 2)
    for points, levels in ((_points(7)[:0], 5), (_points(7), 0)):
        given = table.clone().requires_grad_()
        with use_backend("triton"):
            features, jacobian = hash_encode(points, given, GRID, levels)
            alone = hash_features(points.clone().requires_grad_(), given, GRID, levels)
            (gradient,) = torch.autograd.grad(features.sum() + jacobian.sum() + alone.sum(), given)
        assert features.shape == (len(points), 10)
        assert jacobian.shape == (len(points), 10, 3)
        assert not any(x.any() for x in (features, jacobian, alone, gradient))


def _query(points: Tensor, levels: int) -> Callable[..., tuple[Tensor, ...]]:
    names = ("table", "hidden_weight", "hidden_bias", "out_weight", "out_bias")
    return lambda *leaves: sdf_query(
        points.to(leaves[0].dtype), SdfNetwork(**dict(zip(names, leaves, strict=True))), GRID, levels
    )


@pytest.mark.parametrize(("levels", "n"), [(5, 140), (2, 40), (0, 5), (5, 0)])
def test_sdf_query(levels: int, n: int) -> None:
    points = _points(140)[:n]
    shapes = [(GRID.n_entries, 2), (16, 13), (16,), (16,), ()]
    leaves = [_draw(4 + i, *shape) for i, shape in enumerate(shapes)]
    defined, found = _both(_query(points, levels), *leaves)
    if n == 0:
        assert not any(x.any() for x in found[2:])
        return
    # Sums over 13 inputs, 16 units and 140 points, of terms of either sign. A hidden unit that switches between float32
    # and float64 would show as a gross error: none does at these points.
    _assert_close(defined, found, 4 * TOLERANCE)


def test_adam_step() -> None:
    """Three steps; elements whose gradient is zero stay as they are, bit for bit."""
    results = []
    for backend, dtype in (("torch", torch.float64), ("triton", torch.float32)):
        parameter, mean, variance = (_draw(30 + i, 700, 2).to(dtype) for i in range(3))
        variance = variance.abs()
        started = [x.clone() for x in (parameter, mean, variance)]
        for step in range(1, 4):
            gradient = _draw(40 + step, 700, 2).to(dtype)
            gradient[::2] = 0.0
            with use_backend(backend):
                adam_step(
                    parameter,
                    gradient,
                    mean,
                    variance,
                    AdamSettings(rate=1e-2, betas=(0.9, 0.99), eps=1e-15, step=step),
                )
            assert not gradient.any()
        found = [parameter, mean, variance]
        assert all(torch.equal(a[::2], b[::2]) for a, b in zip(started, found, strict=True))
        results.append([x.double() for x in found])
    # about ten roundings a step, of numbers no larger than the largest
    _assert_close(*results, 3 * 10 * ROUNDING)


def _rays(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(10)
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1) * 2 + 0.5
    # half aim at the ball, the rest also past the cube
    targets = 0.5 + torch.randn(n, 3, generator=generator) * torch.where(torch.arange(n) % 2 == 0, 0.15, 0.8)[:, None]
    directions = torch.nn.functional.normalize(targets - origins, dim=1)
    near, far = torch.full((n,), 1.0), torch.full((n,), 3.0)
    far[:: n // 3] = 0.5  # ends before it begins
    jitter = torch.rand(n, generator=generator)
    return tuple(x.to(DEVICE) for x in (origins, directions, near, far, jitter))  # pyright: ignore


def _cells() -> Tensor:
    """A ball of radius 0.3 whose shell, 0.05 to each side, is the band; not a cube of cells."""
    axes = [(torch.arange(side) + 0.5) / side - 0.5 for side in (24, 32, 20)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    sdf = (x * x + y * y + z * z).sqrt() - 0.3
    cells = torch.full_like(sdf, OUTSIDE, dtype=torch.uint8)
    cells[sdf < 0.05] = BAND
    cells[sdf < -0.05] = INSIDE
    return cells.to(DEVICE)


def _whole(cells: Tensor) -> Band:
    """The band takes whole cells."""
    return Band(cells=cells, sdf=torch.zeros(cells.shape, device=cells.device), reach=1.0)


def _marched(backend: str, rays: tuple[Tensor, ...], band: Band, step: float) -> Samples:
    origins, directions, near, far, jitter = rays
    with use_backend(backend):
        return march(origins, directions, near, far, band, step, jitter)


@pytest.mark.parametrize("solid", [True, False])
def test_march_takes_exactly_the_definition_s_samples(solid: bool) -> None:
    """Both round alike, so not one sample may differ; 500 lattice points make four turns of the kernel's loop."""
    cells, rays = _cells(), _rays(36)
    if not solid:
        cells[cells == INSIDE] = OUTSIDE  # a shell: rays come out on its far side, too
    defined, found = (_marched(backend, rays, _whole(cells), 0.004) for backend in ("torch", "triton"))
    assert torch.equal(found.ray_starts, defined.ray_starts)
    assert torch.equal(found.ray_indices, defined.ray_indices)
    assert torch.equal(found.t_mids, defined.t_mids)
    assert found.ray_starts.dtype == found.ray_indices.dtype == torch.long
    counts = found.ray_starts.diff()
    assert (counts == 0).any()
    assert counts.max() > (20 if solid else 100)


@pytest.mark.parametrize("shape", [(24, 32, 20), (8, 1, 2)])
def test_march_keeps_what_is_within_reach(shape: tuple[int, int, int]) -> None:
    """The sdf between centres may differ by some roundings, and no sample is that near to the reach at these rays."""
    cells = torch.full(shape, BAND, dtype=torch.uint8, device=DEVICE)
    band, rays = Band(cells=cells, sdf=_draw(7, *shape), reach=0.3), _rays(12)
    defined, found = (_marched(backend, rays, band, 0.01) for backend in ("torch", "triton"))
    assert torch.equal(found.ray_starts, defined.ray_starts)
    assert torch.equal(found.t_mids, defined.t_mids)
    assert 0.1 < len(found.t_mids) / len(_marched("triton", rays, _whole(cells), 0.01).t_mids) < 0.7


def test_march_ends_behind_the_surface() -> None:
    """Straight through the ball's centre: the shell is at distances 1.15 to 1.25, and the far side is not seen."""
    one = torch.ones(1, device=DEVICE)
    ray = torch.tensor([[-1.0, 0.5, 0.5]], device=DEVICE), torch.tensor([[1.0, 0.0, 0.0]], device=DEVICE)
    samples = _marched("triton", (*ray, 0 * one, 3 * one, 0 * one), _whole(_cells()), 0.004)
    assert abs(float(samples.t_mids[0]) - 1.15) < 1 / 24 + 0.004
    assert abs(float(samples.t_mids[-1]) - 1.25) < 1 / 24 + 0.004


@pytest.mark.parametrize("band_before", [True, False])
def test_march_remembers_the_band_until_it_comes_upon_the_inside(band_before: bool) -> None:
    """Band, inside and the next band lie in different turns of the loop, which takes 8 of these cells a turn."""
    cells = torch.full((32, 1, 1), OUTSIDE, dtype=torch.uint8, device=DEVICE)
    cells[:4] = BAND if band_before else OUTSIDE
    cells[16] = INSIDE
    cells[24:26] = BAND
    one = torch.ones(1, device=DEVICE)
    ray = torch.tensor([[0.0, 0.5, 0.5]], device=DEVICE), torch.tensor([[1.0, 0.0, 0.0]], device=DEVICE)
    samples = _marched("triton", (*ray, 0 * one, one, 0.5 * one), _whole(cells), 1 / 512)
    first, count = (0, 4 * 16) if band_before else (24 * 16, 2 * 16)
    assert torch.equal(samples.t_mids.cpu(), (first + torch.arange(count) + 0.5) / 512)


def test_march_without_rays() -> None:
    samples = _marched("triton", tuple(x[:0] for x in _rays(3)), _whole(_cells()), 0.01)
    assert samples.ray_starts.tolist() == [0]
    assert len(samples.t_mids) == len(samples.ray_indices) == 0


def _packed(counts: list[int]) -> Tensor:
    return torch.nn.functional.pad(torch.tensor(counts, dtype=torch.long).cumsum(0), (1, 0)).to(DEVICE)


COUNTS = [40, 0, 1, 7, *([3] * 30), 0, 90]  # more rays than a block


def _alpha() -> Tensor:
    """Mostly small, one nearly opaque."""
    alpha = torch.rand(sum(COUNTS), generator=torch.Generator().manual_seed(9)) ** 4
    alpha[45] = 1 - 2.0**-20
    return alpha.clamp_max(0.999999).to(DEVICE)


def test_composite() -> None:
    starts = _packed(COUNTS)
    defined, found = _both(lambda a: composite(a, starts), _alpha())
    # light falls by one rounded product a sample, 90 at most, and is one factor of 3 in every output
    _assert_close(defined, found, 3 * 90 * ROUNDING)
    assert found[1][1] == 1
    assert found[1][-2] == 1


def test_composite_of_nothing() -> None:
    with use_backend("triton"):
        weights, left = composite(torch.zeros(0, device=DEVICE, requires_grad=True), _packed([0, 0]))
        left.sum().backward()
        assert left.tolist() == [1, 1]
        assert composite(torch.zeros(0, device=DEVICE), _packed([]))[1].shape == (0,)
    assert weights.shape == (0,)


def _stand_in() -> ModuleType:
    """nerfacc's function as its documentation describes it, by a loop."""

    def render_weight_from_alpha(alphas: Tensor, packed_info: Tensor) -> tuple[Tensor, Tensor]:
        rays = [alphas[start : start + count] for start, count in packed_info.tolist()]
        light = torch.cat([torch.cat([r.new_ones(1), (1 - r).cumprod(0)])[:-1] for r in rays])
        return light * alphas, light

    module = ModuleType("nerfacc")
    module.render_weight_from_alpha = render_weight_from_alpha  # pyright: ignore[reportAttributeAccessIssue]
    return module


def test_what_is_asked_of_nerfacc(monkeypatch: pytest.MonkeyPatch) -> None:
    from neuralrecon.ops.composite._nerfacc import composite_nerfacc
    from neuralrecon.ops.composite._torch import composite_torch

    monkeypatch.setitem(sys.modules, "nerfacc", _stand_in())
    alpha, starts = _alpha().double(), _packed(COUNTS)
    for found, defined in zip(composite_nerfacc(alpha, starts), composite_torch(alpha, starts), strict=True):
        assert torch.allclose(found, defined, rtol=1e-12, atol=0)


@pytest.mark.skipif(DEVICE == "cpu", reason="nerfacc's packed functions need CUDA")
def test_composite_by_nerfacc() -> None:
    pytest.importorskip("nerfacc")
    starts, alpha = _packed(COUNTS), _alpha().clamp_max(0.99)
    results = []
    for backend in ("torch", "nerfacc"):
        given = alpha.clone().requires_grad_()
        with use_backend(backend):
            weights, left = composite(given, starts)
        (gradient,) = torch.autograd.grad((weights * _draw(1, len(alpha))).sum() + left.sum(), given)
        results.append([weights.detach(), left.detach(), gradient])
    # its backward pass divides by 1 - alpha >= 0.01
    _assert_close(*results, tolerance=100 * 90 * ROUNDING)


def test_auto_takes_the_cpu_s_own_loops_and_the_gpu_s_kernels() -> None:
    assert backends.backend_for(torch.zeros(1)) == Backend.cpu
    assert backends.backend_for(torch.zeros(1, dtype=torch.float64)) == Backend.torch
    if DEVICE == "cuda":
        assert backends.backend_for(torch.zeros(1, device="cuda")) == Backend.triton
        assert backends.backend_for(torch.zeros(1, device="cuda", dtype=torch.float64)) == Backend.torch


def test_nerfacc_is_only_for_the_ops_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_require", lambda backend: None)
    with use_backend("nerfacc"):
        assert backends.backend_for(torch.zeros(1)) == Backend.cpu
        with pytest.raises(ConfigError, match="wanted torch"):
            backends.backend_for(torch.zeros(1), Backend.nerfacc)


def test_a_backend_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match=r"triton: torch sees no CUDA device.*auto"), use_backend("triton"):
        pass
    monkeypatch.setattr(backends, "_is_installed", lambda module: False)
    with pytest.raises(ConfigError, match=r"nerfacc: .*pip install nerfacc"), use_backend("nerfacc"):
        pass


def test_a_tensor_that_a_backend_cannot_take_is_refused() -> None:
    with use_backend("triton"), pytest.raises(ConfigError, match="float64 tensor on"):
        composite(torch.zeros(3, dtype=torch.float64, device=DEVICE), _packed([3]))


@pytest.mark.skipif(sys.platform != "linux", reason="Triton brings its assembler on Linux only")
def test_kernels_compile_for_gpus(tmp_path: Path) -> None:
    """No GPU is needed to compile for one, down to its machine code."""
    script = Path(__file__).with_name("compile_kernels.py")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    environment["PYTHONPATH"] = str(script.parent.parent)
    run = subprocess.run([sys.executable, script, "90"], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    kernels = json.loads(run.stdout)
    assert all(kernel["bytes"] > 0 for kernel in kernels.values())
    # what `march` relies on to count and to fill the same samples
    assert kernels["march count"]["fma"] == kernels["march fill"]["fma"] == 0
    assert kernels["encode"]["fma"] > 0  # the canary: they are found where they are allowed
    # what the encoding's block size is chosen for: one atomic for two features, few barriers
    assert kernels["encode backward"]["pairs"] == kernels["encode backward of product"]["pairs"] == 8
    assert kernels["encode"]["barriers"] < 10
