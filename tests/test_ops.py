"""The ops: definitions against closed forms and finite differences, compiled twins against the definitions."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from neuralrecon.ops import (
    AdamSettings,
    ColorNetwork,
    HashGrid,
    SdfNetwork,
    adam_step,
    color_query,
    composite,
    hash_encode,
    hash_features,
    march,
    neus_alpha,
    ray_motion,
    sdf_query,
    sdf_values,
    shading,
    use_backend,
)
from neuralrecon.ops.march import BAND, INSIDE, OUTSIDE, Band

GRID = HashGrid(levels=5, log2_table_size=10, base_resolution=4, finest_resolution=40)  # dense and hashed levels


def _table(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(GRID.n_entries, 2, generator=generator, dtype=torch.float64).to(dtype)


def _points(n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)


def test_grid_has_dense_and_hashed_levels() -> None:
    assert [GRID.is_dense(level) for level in range(5)] == [True, True, False, False, False]
    assert GRID.resolutions[0] == 4
    assert GRID.resolutions[-1] == 40
    assert GRID.resolutions[1] == 7
    assert GRID.n_entries == 8 * 3**3 + 8 * 4**3 + 3 * 1024  # 5 and 8 vertices a side, in bricks of 2


def test_a_linear_function_on_a_dense_level_comes_back_exactly() -> None:
    grid = HashGrid(levels=1, log2_table_size=12, base_resolution=8, finest_resolution=8)
    axis = torch.arange(10, dtype=torch.float64) / 8  # one more than there are, so that bricks are whole
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")  # x runs fastest in a brick, and from brick to brick
    values = torch.stack([2 * x - 3 * y + 0.5 * z + 1, x], dim=-1)
    table = values.reshape(5, 2, 5, 2, 5, 2, 2).permute(0, 2, 4, 1, 3, 5, 6).reshape(-1, 2)
    points = _points(50)
    features, jacobian = hash_encode(points, table, grid)
    expected = 2 * points[:, 0] - 3 * points[:, 1] + 0.5 * points[:, 2] + 1
    assert torch.allclose(features[:, 0], expected, atol=1e-12)
    assert torch.allclose(jacobian[:, 0], torch.tensor([2.0, -3.0, 0.5], dtype=torch.float64).expand(50, 3), atol=1e-10)


def test_the_jacobian_is_the_derivative_of_the_features() -> None:
    points, table, h = _points(40), _table(), 1e-7
    _, jacobian = hash_encode(points, table, GRID)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = h
        difference = (hash_features(points + step, table, GRID) - hash_features(points - step, table, GRID)) / (2 * h)
        # a random point lies within h of a cell face with probability below 1e-4
        assert torch.allclose(difference, jacobian[..., axis], atol=1e-5)


def test_hash_encode_gradcheck() -> None:
    grid = HashGrid(levels=2, log2_table_size=4, base_resolution=2, finest_resolution=5)
    table = torch.randn(grid.n_entries, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert gradcheck(lambda t: hash_encode(_points(4), t, grid), table.requires_grad_())
    assert gradcheck(lambda t: hash_features(_points(4), t, grid, 1), table)
    assert gradcheck(lambda p: hash_features(p, table.detach(), grid), _points(4).requires_grad_())


@pytest.mark.parametrize("levels", [5, 3, 1])
def test_compiled_hash_encode_equals_its_definition(levels: int) -> None:
    points = torch.cat([_points(3000, torch.float32), torch.tensor([[0.0, 0, 0], [1, 1, 1], [-0.1, 0.5, 1.2]])])
    weights = torch.randn(len(points), 10, 4, generator=torch.Generator().manual_seed(3))
    results = []
    for backend in ("torch", "cpu"):
        table = _table(torch.float32).requires_grad_()
        with use_backend(backend):
            features, jacobian = hash_encode(points, table, GRID, levels)
            ((features * weights[..., 0]).sum() + (jacobian * weights[..., 1:]).sum()).backward()
        results.append((features.detach(), jacobian.detach(), table.grad))
    for defined, compiled in zip(*results, strict=True):
        # float32 sums of up to a few hundred terms, the Jacobian's with factors up to 40
        assert torch.allclose(compiled, defined, rtol=1e-4, atol=1e-5 * float(defined.abs().max()))


@pytest.mark.parametrize("n", [0, 1, 500, 5000])  # the last is put into Morton order
def test_compiled_features_alone_are_those_with_the_jacobian_and_so_are_their_derivatives(n: int) -> None:
    points = _points(n, torch.float32)
    weights = torch.randn(n, 10, generator=torch.Generator().manual_seed(3))
    table, table_too = _table(torch.float32).requires_grad_(), _table(torch.float32).requires_grad_()
    moved = points.clone().requires_grad_()
    features, jacobian = hash_encode(points, table, GRID)
    alone = hash_features(moved, table_too, GRID)
    assert torch.equal(alone, features)
    (features * weights).sum().backward()
    (alone * weights).sum().backward()
    by_point = (jacobian * weights[:, :, None]).sum(dim=1)
    assert torch.allclose(moved.grad, by_point, rtol=1e-4, atol=1e-3)  # sums of ten terms up to 100
    assert torch.allclose(table_too.grad, table.grad, rtol=1e-4, atol=1e-5 * float(table.grad.abs().max() if n else 1))


def _network(dtype: torch.dtype) -> SdfNetwork:
    generator = torch.Generator().manual_seed(4)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()  # noqa: E731
    return SdfNetwork(
        table=_table(dtype).requires_grad_(),
        hidden_weight=draw(16, 13),
        hidden_bias=draw(16),
        out_weight=draw(16),
        out_bias=draw(),
    )


def _leaves(network: SdfNetwork) -> list[torch.Tensor]:
    return [network.table, network.hidden_weight, network.hidden_bias, network.out_weight, network.out_bias]


def test_sdf_query_gradcheck_and_its_gradient_is_the_derivative() -> None:
    grid = HashGrid(levels=2, log2_table_size=4, base_resolution=2, finest_resolution=5)
    generator = torch.Generator().manual_seed(5)
    shapes = [(grid.n_entries, 2), (6, 7), (6,), (6,), ()]
    leaves = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    points = _points(5)

    def query(*values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        names = ("table", "hidden_weight", "hidden_bias", "out_weight", "out_bias")
        return sdf_query(points, SdfNetwork(**dict(zip(names, values, strict=True))), grid)

    assert gradcheck(query, leaves)
    network = _network(torch.float64)
    points, h = _points(30), 1e-7
    _, gradient = sdf_query(points, network, GRID)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = h
        ahead, behind = (sdf_query(points + s, network, GRID)[0] for s in (step, -step))
        assert torch.allclose((ahead - behind) / (2 * h), gradient[:, axis], atol=1e-4)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("n", [0, 1, 5000])
def test_sdf_values_are_those_of_the_query(backend: str, n: int) -> None:
    points, network = _points(n, torch.float32), _network(torch.float32)
    with use_backend(backend):
        values = sdf_values(points, network, GRID, 3)
        assert not values.requires_grad
        # the same sums of 16 products up to ten in another order
        assert torch.allclose(values, sdf_query(points, network, GRID, 3)[0], atol=1e-4)


def _color_leaves(grid: HashGrid, width: int, n_extras: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    n_in = grid.n_features + n_extras
    shapes = [(grid.n_entries, 2), (width, n_in), (width,), (width, width), (width,), (3, width), (3,)]
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) / s[-1] ** 0.5 for s in shapes]
    return [leaf.to(dtype).requires_grad_() for leaf in drawn]


def _color_network(leaves: list[torch.Tensor]) -> ColorNetwork:
    names = ("table", "hidden_weight", "hidden_bias", "middle_weight", "middle_bias", "out_weight", "out_bias")
    return ColorNetwork(**dict(zip(names, leaves, strict=True)))


def test_color_query_gradcheck() -> None:
    grid = HashGrid(levels=2, log2_table_size=4, base_resolution=2, finest_resolution=5)
    leaves = _color_leaves(grid, 5, 2, torch.float64)
    points, extras = _points(4).requires_grad_(), torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda p, e, *v: color_query(p, e, _color_network(list(v)), grid), [points, extras, *leaves])


@pytest.mark.parametrize(("n", "width"), [(0, 16), (1, 13), (700, 16), (5000, 13)])  # 13: not a whole block
def test_compiled_color_query_equals_its_definition(n: int, width: int) -> None:
    weights = torch.randn(n, 3, generator=torch.Generator().manual_seed(6))
    extras = torch.randn(n, 5, generator=torch.Generator().manual_seed(7))
    results = []
    for backend in ("torch", "cpu"):
        leaves = _color_leaves(GRID, width, 5, torch.float32)
        inputs = [
            (1.2 * _points(n, torch.float32) - 0.1).requires_grad_(),
            extras.clone().requires_grad_(),
        ]  # some outside
        with use_backend(backend):
            colors = color_query(*inputs, _color_network(leaves), GRID)
            (colors * weights).sum().backward()
        results.append([colors.detach(), *(leaf.grad for leaf in inputs + leaves)])
    for defined, compiled in zip(*results, strict=True):
        # float32 sums of up to n terms; a hidden unit within rounding of zero may be on in one and off in the other
        close = torch.isclose(compiled, defined, rtol=1e-3, atol=1e-5 * float(defined.abs().max()) if n else 1.0)
        assert close.float().mean() > 0.999 if n else True


@pytest.mark.parametrize("levels", [5, 2])
def test_compiled_sdf_query_equals_its_definition(levels: int) -> None:
    points = _points(2000, torch.float32)
    weights = torch.randn(2000, 4, generator=torch.Generator().manual_seed(6))
    results = []
    for backend in ("torch", "cpu"):
        network = _network(torch.float32)
        with use_backend(backend):
            sdf, gradient = sdf_query(points, network, GRID, levels)
            ((sdf * weights[:, 0]).sum() + (gradient * weights[:, 1:]).sum()).backward()
        results.append([sdf.detach(), gradient.detach(), *(leaf.grad for leaf in _leaves(network))])
    for defined, compiled in zip(*results, strict=True):
        assert torch.allclose(compiled, defined, rtol=1e-3, atol=2e-5 * float(defined.abs().max()))


def _packed(counts: list[int]) -> torch.Tensor:
    return torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()])


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_composite_of_a_constant_medium(backend: str) -> None:
    """With alpha = 1 - exp(-s) everywhere, weight i is exp(-s i) (1 - exp(-s)) and exp(-s n) of the light is left."""
    s, counts = 0.3, [0, 7, 3]
    alpha = torch.full((10,), 1 - torch.exp(torch.tensor(-s)).item())
    with use_backend(backend):
        weights, left = composite(alpha, _packed(counts))
    i = torch.cat([torch.arange(n) for n in counts])
    assert torch.allclose(weights, torch.exp(-s * i) * alpha, atol=1e-6)
    assert torch.allclose(left, torch.exp(-s * torch.tensor(counts)), atol=1e-6)


def test_composite_gradcheck_and_parity() -> None:
    starts = _packed([3, 0, 5, 1])
    alpha = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(7)) * 0.9
    assert gradcheck(lambda a: composite(a, starts), alpha.requires_grad_())
    starts = _packed([40] * 25)
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(8))
    results = []
    for backend in ("torch", "cpu"):
        a = (torch.rand(1000, generator=torch.Generator().manual_seed(9)) ** 4).clamp_max(1 - 1e-6).requires_grad_()
        with use_backend(backend):
            w, left = composite(a, starts)
            ((w * weights).sum() + left.sum()).backward()
        results.append((w.detach(), left.detach(), a.grad))
    for defined, compiled in zip(*results, strict=True):
        assert torch.allclose(compiled, defined, atol=1e-5)


def _band(side: int) -> torch.Tensor:
    """A ball of radius 0.3 whose shell, 0.05 to each side, is the band."""
    axis = (torch.arange(side) + 0.5) / side - 0.5
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    sdf = (x * x + y * y + z * z).sqrt() - 0.3
    cells = torch.full_like(sdf, OUTSIDE, dtype=torch.uint8)
    cells[sdf < 0.05] = BAND
    cells[sdf < -0.05] = INSIDE
    return Band(cells=cells, sdf=sdf, reach=0.04)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_march_finds_the_shell_and_stops_behind_it(backend: str) -> None:
    origin, direction = torch.tensor([[-1.0, 0.5, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]])
    with use_backend(backend):
        samples = march(origin, direction, torch.zeros(1), torch.full((1,), 3.0), _band(64), 0.004, torch.zeros(1))
    # the shell from x = 0.16 to 0.24 is at distances 1.16 to 1.24; between cells' centres the sdf is off by their
    # distance's square over 8 radii; nothing from the far side
    assert abs(float(samples.t_mids[0]) - 1.16) < 2 * (1 / 64) ** 2 / (8 * 0.3) + 0.004
    assert abs(float(samples.t_mids[-1]) - 1.24) < 2 * (1 / 64) ** 2 / (8 * 0.3) + 0.004
    assert torch.allclose(samples.t_mids.diff(), torch.tensor(0.004), atol=1e-6)


def test_compiled_march_equals_its_definition() -> None:
    generator = torch.Generator().manual_seed(10)
    n = 400
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1) * 2 + 0.5
    targets = torch.rand(n, 3, generator=generator)
    directions = torch.nn.functional.normalize(targets - origins, dim=1)
    near, far = torch.full((n,), 1.0), torch.full((n,), 3.0)
    jitter = torch.rand(n, generator=generator)
    found = []
    for backend in ("torch", "cpu"):
        with use_backend(backend):
            found.append(march(origins, directions, near, far, _band(48), 0.01, jitter))
    defined, compiled = found
    # a sample on a cell's face may fall to either side in float32: a handful in tens of thousands
    assert abs(len(defined.t_mids) - len(compiled.t_mids)) <= 5
    same = (defined.ray_starts.diff() == compiled.ray_starts.diff()).float().mean()
    assert same > 0.985
    assert len(defined.t_mids) > 3000


def test_a_misspelt_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="cuda_fast"), use_backend("cuda_fast"):
        pass


# ------------------------------------------------------------------------------------------------ opacity, shading


def _unit(n: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=1)


def test_shading_gradcheck() -> None:
    turns = torch.linalg.qr(torch.randn(6, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    assert gradcheck(lambda n: shading(n, _unit(6, 2), turns), _unit(6, 3).requires_grad_())


@pytest.mark.parametrize("n", [0, 1, 1000])
def test_compiled_shading_equals_its_definition(n: int) -> None:
    turns = torch.linalg.qr(torch.randn(n, 3, 3, generator=torch.Generator().manual_seed(1)))[0]
    weights = torch.randn(n, 13, generator=torch.Generator().manual_seed(4))
    results = []
    for backend in ("torch", "cpu"):
        normals = _unit(n, 3).float().requires_grad_()
        with use_backend(backend):
            shaded = shading(normals, _unit(n, 2).float(), turns)
            (shaded * weights).sum().backward()
        results.append((shaded.detach(), normals.grad))
    for defined, compiled in zip(*results, strict=True):
        assert torch.allclose(compiled, defined, atol=2e-5)  # sums of twelve products of numbers up to 3


def test_compiled_alpha_equals_its_definition_from_far_outside_to_deep_inside() -> None:
    generator = torch.Generator().manual_seed(9)
    first = torch.cat([torch.randn(2000, generator=generator) * s for s in (0.005, 0.02, 0.1)])  # up to 60 blurs
    second = first + torch.randn(6000, generator=generator) * 0.002
    results = []
    for backend, dtype in (("torch", torch.float64), ("cpu", torch.float32)):
        before, after = first.to(dtype).requires_grad_(), second.to(dtype).requires_grad_()
        with use_backend(backend):
            alpha = neus_alpha(before, after, 500.0)
            alpha.sum().backward()
        results.append((alpha.detach(), before.grad, after.grad))
    for defined, compiled, scale in zip(*results, (1.0, 500.0, 500.0), strict=True):
        # the argument of the exponential, up to 150, is good to 6e-8 of itself
        assert torch.allclose(compiled.double(), defined, atol=3e-5 * scale)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_ray_motion_has_no_value_and_the_derivative_of_moved_rays(backend: str) -> None:
    generator = torch.Generator().manual_seed(12)
    shift, spread = (torch.randn(40, 3, generator=generator).requires_grad_() for _ in range(2))
    of_ray = torch.randint(39, (500,), generator=generator).sort().values  # the last ray has no point
    distances, weights = torch.rand(500, generator=generator), torch.randn(500, 3, generator=generator)
    with use_backend(backend):
        moved = ray_motion(shift, spread, distances, of_ray)
        assert not moved.any()
        found = torch.autograd.grad((moved * weights).sum(), (shift, spread))
    plain = shift[of_ray] + distances[:, None] * spread[of_ray]
    for ours, expected in zip(found, torch.autograd.grad((plain * weights).sum(), (shift, spread)), strict=True):
        assert torch.allclose(ours, expected, atol=1e-5)  # sums of about a dozen numbers


# ------------------------------------------------------------------------------------------------------------ Adam


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_adam_step_is_torch_s_where_there_is_a_gradient_and_nothing_elsewhere(backend: str) -> None:
    generator = torch.Generator().manual_seed(11)
    table = torch.randn(1003, 2, generator=generator)  # no multiple of sixteen
    untouched = torch.rand(1003, 2, generator=generator) < 0.5
    ours, moments = table.clone(), (torch.zeros_like(table), torch.zeros_like(table))
    theirs = torch.nn.Parameter(table.clone())
    optimizer = torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99), eps=1e-15)
    with use_backend(backend):
        for step in range(1, 6):
            gradient = torch.randn(1003, 2, generator=generator).masked_fill(untouched, 0.0)
            theirs.grad = gradient.clone()
            optimizer.step()
            adam_step(ours, gradient, *moments, AdamSettings(rate=0.01, betas=(0.9, 0.99), eps=1e-15, step=step))
            assert not gradient.any()
    assert torch.equal(ours[untouched], table[untouched])
    assert not moments[1][untouched].any()
    assert torch.allclose(ours, theirs.detach(), rtol=1e-5, atol=1e-6)  # steps of 0.01, a few roundings each
