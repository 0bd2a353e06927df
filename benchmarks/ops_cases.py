"""Each op as the benchmark calls it: inputs as a fit's, forward alone and with backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor

from neuralrecon.ops import (
    N_SHADING,
    AdamSettings,
    Backend,
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
    sdf_query,
    shading,
)
from neuralrecon.ops.buffers import give_back

from .inputs import GRIDS, RayInputs
from .timing import Call

_HIDDEN = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One op on one kind of input. `n` things of a `unit` pass through it in a call.

    `made` gives the call for a backend, which it is then run with; `peers` are calls of other libraries.
    """

    op: str
    inputs: str
    n: int
    unit: str
    made: Callable[[Backend], Call]
    peers: dict[str, Call]


def cases(n_points: int, device: torch.device) -> Iterator[Case]:
    """All of them, with about so many points."""
    rays = RayInputs.about(n_points, device)
    points = rays.points
    generator = torch.Generator().manual_seed(1)
    anywhere = torch.rand(points.shape, generator=generator).to(device)
    for name, grid in GRIDS.items():
        yield from _encoding(f"{name}, rays", points, grid, generator)
    yield from _encoding("14 x 2^18, uniform", anywhere, GRIDS["14 x 2^18"], generator)
    yield from _features("14 x 2^18, rays", points, GRIDS["14 x 2^18"], generator)
    for name, grid in GRIDS.items():
        yield from _sdf(f"{name}, rays", points, grid, generator)
    yield from _color("12 x 2^17, rays", points, GRIDS["12 x 2^17"], generator)
    yield from _along_rays(rays, generator)
    yield from _adam("14 x 2^18, rays", points, GRIDS["14 x 2^18"], generator)


def _encoding(inputs: str, points: Tensor, grid: HashGrid, generator: torch.Generator) -> Iterator[Case]:
    table = _table(grid, generator, points.device)
    shape = (len(points), grid.n_features)
    up = _random(shape, generator, points), _random((*shape, 3), generator, points)
    yield _case("hash_encode", inputs, points, lambda: hash_encode(points, table, grid))
    yield _case("hash_encode + backward", inputs, points, lambda: hash_encode(points, table, grid), up, [table])


def _features(inputs: str, points: Tensor, grid: HashGrid, generator: torch.Generator) -> Iterator[Case]:
    table = _table(grid, generator, points.device)
    up = _random((len(points), grid.n_features), generator, points)
    alone, trained = _tinycudann(points, grid, up)

    def forward() -> Tensor:
        return hash_features(points, table, grid)

    yield _case("hash_features", inputs, points, forward, peers=alone)
    yield _case("hash_features + backward", inputs, points, forward, (up,), [table], trained)


def _sdf(inputs: str, points: Tensor, grid: HashGrid, generator: torch.Generator) -> Iterator[Case]:
    n_in = 3 + grid.n_features
    network = SdfNetwork(
        table=_table(grid, generator, points.device),
        hidden_weight=_random((_HIDDEN, n_in), generator, points, learned=True),
        hidden_bias=_random((_HIDDEN,), generator, points, learned=True),
        out_weight=_random((_HIDDEN,), generator, points, learned=True),
        out_bias=_random((), generator, points, learned=True),
    )
    up = _random((len(points),), generator, points), _random((len(points), 3), generator, points)
    yield _case("sdf_query", inputs, points, lambda: sdf_query(points, network, grid))
    yield _case(
        "sdf_query + backward", inputs, points, lambda: sdf_query(points, network, grid), up, _parameters(network)
    )


def _color(inputs: str, points: Tensor, grid: HashGrid, generator: torch.Generator) -> Iterator[Case]:
    network = ColorNetwork(
        table=_table(grid, generator, points.device),
        hidden_weight=_random((_HIDDEN, grid.n_features + N_SHADING), generator, points, learned=True),
        hidden_bias=_random((_HIDDEN,), generator, points, learned=True),
        middle_weight=_random((_HIDDEN, _HIDDEN), generator, points, learned=True),
        middle_bias=_random((_HIDDEN,), generator, points, learned=True),
        out_weight=_random((3, _HIDDEN), generator, points, learned=True),
        out_bias=_random((3,), generator, points, learned=True),
    )
    moved = points.clone().requires_grad_()  # in a fit, the sensors' corrections learn by way of the points
    extras = _random((len(points), N_SHADING), generator, points, learned=True)
    up = (_random((len(points), 3), generator, points),)
    learned = [*_parameters(network), moved, extras]
    yield _case(
        "color_query + backward", inputs, points, lambda: color_query(moved, extras, network, grid), up, learned
    )


def _along_rays(rays: RayInputs, generator: torch.Generator) -> Iterator[Case]:
    packed, points, directions, normals = rays.samples, rays.points, rays.directions, rays.normals
    sdf = rays.band.look_up(points)
    slope = (normals * directions).sum(dim=1)
    inv_s, ends = 1.5 / rays.step, (sdf + 0.5 * rays.step * slope.relu(), sdf - 0.5 * rays.step * slope.relu())
    before, after = (end.detach().requires_grad_() for end in ends)
    alpha = neus_alpha(before, after, inv_s).detach().requires_grad_()
    of_sample, of_ray = _random((len(points),), generator, points), _random((len(rays.near),), generator, points)
    turns = torch.linalg.qr(_random((len(rays.near), 3, 3), generator, points))[0][packed.ray_indices]
    facing = normals.clone().requires_grad_()
    up = (_random((len(points), N_SHADING), generator, points),)
    yield _case("composite", "rays", points, lambda: composite(alpha, packed.ray_starts))
    yield _case(
        "composite + backward",
        "rays",
        points,
        lambda: composite(alpha, packed.ray_starts),
        (of_sample, of_ray),
        [alpha],
    )
    yield _case(
        "neus_alpha + backward",
        "rays",
        points,
        lambda: neus_alpha(before, after, inv_s),
        (of_sample,),
        [before, after],
    )
    yield _case("shading + backward", "rays", points, lambda: shading(facing, directions, turns), up, [facing])
    line = rays.rays
    yield _case(
        "march",
        "rays",
        points,
        lambda: march(line.origins, line.directions, rays.near, rays.far, rays.band, rays.step, rays.jitter),
    )


def _adam(inputs: str, points: Tensor, grid: HashGrid, generator: torch.Generator) -> Iterator[Case]:
    """With the gradient of one step; the copy of it that each call uses up is not timed."""
    table = _table(grid, generator, points.device)
    features = hash_features(points, table, grid)
    torch.autograd.backward([features], [_random(features.shape, generator, points)])
    assert table.grad is not None
    given, parameter = table.grad.clone(), table.detach().clone()
    gradient, mean, variance = given.clone(), torch.zeros_like(given), torch.zeros_like(given)
    settings = AdamSettings(rate=2e-3, betas=(0.9, 0.99), eps=1e-15, step=100)

    def made(backend: Backend) -> Call:
        return Call(
            run=lambda: adam_step(parameter, gradient, mean, variance, settings), reset=lambda: gradient.copy_(given)
        )

    yield Case(op="adam_step", inputs=inputs, n=len(parameter), unit="entries", made=made, peers={})


def _case(
    op: str,
    inputs: str,
    points: Tensor,
    forward: Callable[[], Tensor | tuple[Tensor, ...] | Any],
    upstream: Sequence[Tensor] = (),
    learned: Sequence[Tensor] = (),
    peers: dict[str, Call] | None = None,
) -> Case:
    """Without `upstream` gradients forward alone, and without keeping what a backward would need."""

    def with_backward() -> None:
        found = forward()
        torch.autograd.backward(found if isinstance(found, tuple) else (found,), upstream)

    def alone() -> None:
        with torch.no_grad():
            forward()

    def made(backend: Backend) -> Call:
        if not upstream:
            return Call(run=alone)
        return Call(run=with_backward, reset=lambda: _forget(learned, pooled=backend == Backend.cpu))

    return Case(op=op, inputs=inputs, n=len(points), unit="points", made=made, peers=peers or {})


def _forget(learned: Sequence[Tensor], pooled: bool) -> None:
    """Take the gradients away; a table's is zeroed and given back, as the optimiser does."""
    for tensor in learned:
        gradient, tensor.grad = tensor.grad, None
        if pooled and gradient is not None and gradient.shape[-1:] == (2,):
            give_back(gradient.zero_())


def _parameters(network: object) -> list[Tensor]:
    return [getattr(network, f.name) for f in fields(cast(Any, network))]


def _table(grid: HashGrid, generator: torch.Generator, device: torch.device) -> Tensor:
    values = torch.randn(grid.n_entries, grid.features_per_level, generator=generator) * 0.01
    return values.to(device).requires_grad_()


def _random(shape: Sequence[int], generator: torch.Generator, like: Tensor, learned: bool = False) -> Tensor:
    values = torch.randn(tuple(shape), generator=generator) * (0.2 if learned else 1.0)
    return values.to(like).requires_grad_(learned)


def _tinycudann(points: Tensor, grid: HashGrid, up: Tensor) -> tuple[dict[str, Call], dict[str, Call]]:
    """Its encoding at the same points, on a table of its own with as many entries a level; {} where it is not there."""
    if points.device.type != "cuda" or find_spec("tinycudann") is None:
        return {}, {}
    import tinycudann  # pyright: ignore

    growth = (grid.finest_resolution / grid.base_resolution) ** (1 / max(1, grid.levels - 1))
    encoding = tinycudann.Encoding(
        3,
        {
            "otype": "HashGrid",
            "n_levels": grid.levels,
            "n_features_per_level": grid.features_per_level,
            "log2_hashmap_size": grid.log2_table_size,
            "base_resolution": grid.base_resolution,
            "per_level_scale": growth,
        },
        dtype=torch.float32,
    )

    def alone() -> None:
        with torch.no_grad():
            encoding(points)

    def forget() -> None:
        encoding.params.grad = None

    trained = Call(run=lambda: encoding(points).backward(up), reset=forget)
    return {"tinycudann": Call(run=alone)}, {"tinycudann": trained}
