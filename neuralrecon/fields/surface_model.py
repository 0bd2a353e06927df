"""`SurfaceModel`: position to signed distance and gradient; position, normal and direction to colour."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ConfigError
from ..ops import N_SHADING, ColorNetwork, HashGrid, SdfNetwork, color_query, sdf_query, sdf_values, shading
from .sensors import SensorModel

_DOUBT_CELLS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldConfig:
    """Size of the model.

    Attributes:
        levels, log2_table_size, base_resolution, finest_resolution: the sdf's hash grid (see `HashGrid`).
        color_levels, color_log2_table_size, color_finest_resolution: the appearance's own hash grid, so that print
            does not have to go through the features that shape the surface.
        hidden: width of all hidden layers.
        mirrored: whether colours may depend on where the viewing direction is mirrored to.
    """

    levels: int = 12
    log2_table_size: int = 17
    base_resolution: int = 16
    finest_resolution: int = 512
    color_levels: int = 12
    color_log2_table_size: int = 17
    color_finest_resolution: int = 1024
    hidden: int = 64
    mirrored: bool = True

    def __post_init__(self) -> None:
        if not (1 <= self.levels <= 24 and 1 <= self.color_levels <= 24):
            raise ConfigError(f"levels and color_levels must be 1 to 24, got {self.levels} and {self.color_levels}")
        if not (10 <= self.log2_table_size <= 24 and 10 <= self.color_log2_table_size <= 24):
            raise ConfigError("log2_table_size and color_log2_table_size must be 10 to 24")

    @property
    def sdf_grid(self) -> HashGrid:
        return HashGrid(
            levels=self.levels,
            log2_table_size=self.log2_table_size,
            base_resolution=self.base_resolution,
            finest_resolution=self.finest_resolution,
        )

    @property
    def color_grid(self) -> HashGrid:
        return HashGrid(
            levels=self.color_levels,
            log2_table_size=self.color_log2_table_size,
            base_resolution=self.base_resolution,
            finest_resolution=self.color_finest_resolution,
        )


class SurfaceModel(nn.Module):
    """Hash-grid signed distance field with one hidden ReLU layer, and a colour network conditioned in the rig frame.

    With ReLU the gradient of the sdf is a plain product, so its own gradient needs no second pass through the encoding
    (it is `Jᵀ W1ᵀ (mask * w2)`). Everything is in the unit frame; the sdf is positive outside. A model is born on the
    device of the generator that draws its first weights.
    """

    def __init__(self, config: FieldConfig, n_sensors: int, n_stops: int, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        h = config.hidden
        self.sdf_table = nn.Parameter(_small(config.sdf_grid, generator))
        self.color_table = nn.Parameter(_small(config.color_grid, generator))
        self.sdf_hidden = _linear(3 + config.sdf_grid.n_features, h, generator)
        self.sdf_out = _linear(h, 1, generator)
        self.color_hidden = _linear(config.color_grid.n_features + N_SHADING, h, generator)
        self.color_middle = _linear(h, h, generator)
        self.color_out = _linear(h, 3, generator)
        self.doubt = nn.Parameter(torch.zeros(_DOUBT_CELLS, _DOUBT_CELLS, _DOUBT_CELLS, device=generator.device))
        self.sensors = SensorModel(n_sensors, n_stops, generator.device)

    def surface(
        self, points: Float[Tensor, "points 3"], active_levels: int | None = None
    ) -> tuple[Float[Tensor, "points"], Float[Tensor, "points 3"]]:
        """Signed distance and its gradient by position; both differentiable once with respect to the parameters."""
        return sdf_query(points, self._sdf_network, self.config.sdf_grid, active_levels)

    def sdf(self, points: Float[Tensor, "points 3"], active_levels: int | None = None) -> Float[Tensor, "points"]:
        """Signed distance only, without gradients, in blocks of bounded memory."""
        return sdf_values(points, self._sdf_network, self.config.sdf_grid, active_levels)

    @property
    def _sdf_network(self) -> SdfNetwork:
        return SdfNetwork(
            table=self.sdf_table,
            hidden_weight=self.sdf_hidden.weight,
            hidden_bias=self.sdf_hidden.bias,
            out_weight=self.sdf_out.weight[0],
            out_bias=self.sdf_out.bias[0],
        )

    def color(
        self,
        points: Float[Tensor, "samples 3"],
        normals: Float[Tensor, "samples 3"],
        directions: Float[Tensor, "samples 3"],
        rig_from_world: Float[Tensor, "samples 3 3"],
        displacement: Float[Tensor, "samples 3"] | None = None,
    ) -> Float[Tensor, "samples 3"]:
        """sRGB in [0, 1]. Normal and mirrored direction are seen from the room, where the lights stand still.

        Args:
            displacement: see `SensorModel.displacement`; lets the print tell the sensors where they are.
        """
        network = ColorNetwork(
            table=self.color_table,
            hidden_weight=self.color_hidden.weight,
            hidden_bias=self.color_hidden.bias,
            middle_weight=self.color_middle.weight,
            middle_bias=self.color_middle.bias,
            out_weight=self.color_out.weight,
            out_bias=self.color_out.bias,
        )
        moved = points if displacement is None else points + displacement
        shade = shading(normals, directions, rig_from_world)
        if not self.config.mirrored:
            shade = torch.cat([shade[:, :3], torch.zeros_like(shade[:, 3:])], dim=1)
        return color_query(moved, shade, network, self.config.color_grid)

    def color_doubt(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points"]:
        """How far colours at a place are beyond explanation: the logarithm of how many times the usual errors are.

        Not differentiated by the points; never negative (`Optimizer` sees to it).
        """
        at = (points.detach().clamp(0, 1) * 2 - 1).flip(-1)[None, None, None]
        found = torch.nn.functional.grid_sample(self.doubt[None, None], at, align_corners=False, padding_mode="border")
        return found[0, 0, 0, 0]


def _small(grid: HashGrid, generator: torch.Generator) -> Tensor:
    shape = grid.n_entries, grid.features_per_level
    return (torch.rand(shape, generator=generator, device=generator.device) * 2 - 1) * 1e-4


def _linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(n_in, n_out, device=generator.device)
    bound = math.sqrt(6 / n_in)
    with torch.no_grad():
        layer.weight.copy_((torch.rand(n_out, n_in, generator=generator, device=generator.device) * 2 - 1) * bound)
        layer.bias.zero_()
    return layer
