"""Adam on everything that is learned: lazily on the tables, of which a step touches little, as usual on the rest."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..fields import SurfaceModel
from ..ops import AdamSettings, HashGrid, adam_step
from ..ops.buffers import give_back
from .fit_types import FitConfig

_BETAS, _EPS = (0.9, 0.99), 1e-15
_RATE_SENSOR_COLORS, _RATE_CORRECTIONS, _RATE_DOUBT = 1e-3, 1e-2, 2e-2
_MOST_PUSH, _PUSH_RATE = 3.0, 0.05  # times the usual push; share of a step's in the running mean
_ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


class Optimizer:
    """`descend` takes one step; `moments` and `restore` carry the state across a checkpoint."""

    def __init__(self, model: SurfaceModel, config: FitConfig) -> None:
        self._tables = [model.sdf_table, model.color_table]
        whole = [(slice(0, model.config.color_grid.n_entries), 1.0)]
        self._parts = [parts_by_rate(model.config.sdf_grid, config.first_levels), whole]
        self._table_moments = [(torch.zeros_like(t), torch.zeros_like(t)) for t in self._tables]
        self._table_rate, self._n_steps = config.learning_rate_table, 0
        colors, corrections = [model.sensors.log_gain, model.sensors.offset], model.sensors.corrections()
        self._corrections, self._doubt = corrections, model.doubt
        known = {id(p) for p in [*self._tables, *colors, *corrections, model.doubt]}
        groups = [
            ([p for p in model.parameters() if id(p) not in known], config.learning_rate_network),
            (colors, _RATE_SENSOR_COLORS),
            (corrections, _RATE_CORRECTIONS),
            ([model.doubt], _RATE_DOUBT),
        ]
        self._rest = torch.optim.Adam(
            [{"params": parameters, "lr": rate} for parameters, rate in groups], betas=_BETAS, eps=_EPS, fused=True
        )
        self._base_rates = [rate for _, rate in groups]
        self._push = torch.zeros((), device=model.sdf_table.device)

    def damped(self, sdf: Float[Tensor, "points"]) -> Float[Tensor, "points"]:
        """The same values; a gradient that would move the whole surface at once comes back smaller.

        Where a step loses sight of the surface all rays push one way. That is a hundred times the usual gradient, and
        Adam, whose mean of squares follows slowly, goes on that way for ten steps of full length: further than the band
        in which rays are sampled. So the gradients' sum is held at three times its running mean.
        """
        if sdf.requires_grad:
            sdf.register_hook(self._held)
        return sdf

    def _held(self, gradient: Float[Tensor, "points"]) -> Float[Tensor, "points"]:
        push = gradient.sum().abs()
        weight = 1 - (1 - _PUSH_RATE) ** self._n_steps  # of all pushes so far in the running mean, which starts at 0
        factor = (_MOST_PUSH * self._push / weight / push).nan_to_num(1.0).clamp_max(1.0) if weight else 1.0
        self._push = torch.lerp(self._push, push * factor, _PUSH_RATE)
        return gradient * factor

    def descend(self, loss: Tensor, rate_factor: float) -> None:
        """One step against the gradient of `loss`, at `rate_factor` times the base rates."""
        self._rest.zero_grad(set_to_none=True)
        loss.backward()
        for correction in self._corrections:
            # rays follow them: they stay finite while a loss that is not has yet to be noticed
            if correction.grad is not None:
                correction.grad.nan_to_num_(0.0)
        for group, rate in zip(self._rest.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * rate_factor
        self._rest.step()
        with torch.no_grad():
            self._doubt.clamp_(min=0.0)
        self._n_steps += 1
        for table, (mean, variance), parts in zip(self._tables, self._table_moments, self._parts, strict=True):
            if table.grad is not None:  # without photographs nothing asks for colours
                for part, factor in parts:
                    rate = self._table_rate * rate_factor * factor
                    settings = AdamSettings(rate=rate, betas=_BETAS, eps=_EPS, step=self._n_steps)
                    adam_step(table[part], table.grad[part], mean[part], variance[part], settings)
                gradient, table.grad = table.grad, None
                give_back(gradient)

    def moments(self) -> dict[str, Tensor]:
        """The state, tensors by name."""
        tables = {
            f"table{i}.{name}": moment
            for i, pair in enumerate(self._table_moments)
            for name, moment in zip(_ADAM_STATE[1:], pair, strict=True)
        }
        rest = {
            f"{i}.{name}": self._rest.state[p][name]
            for i, p in enumerate(self._parameters())
            if p in self._rest.state
            for name in _ADAM_STATE
        }
        return {"n_steps": torch.tensor(self._n_steps, device="cpu"), "push": self._push, **tables, **rest}

    def restore(self, moments: dict[str, Tensor]) -> None:
        """Go on from what `moments` said, on whichever device."""
        self._n_steps = int(moments["n_steps"])
        self._push = moments["push"].to(self._push.device)
        for i, pair in enumerate(self._table_moments):
            for name, moment in zip(_ADAM_STATE[1:], pair, strict=True):
                moment.copy_(moments[f"table{i}.{name}"])
        for i, p in enumerate(self._parameters()):
            if f"{i}.step" in moments:  # the sensors' corrections have none before they are first refined
                self._rest.state[p] = {name: moments[f"{i}.{name}"].to(p.device) for name in _ADAM_STATE}

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self._rest.param_groups for p in group["params"]]


def parts_by_rate(grid: HashGrid, first_levels: int) -> list[tuple[slice, float]]:
    """The table's entries by level, with a factor on their rate: levels that come later learn in finer steps.

    Adam moves every entry by about its rate, however small its gradient. Between neighbouring entries that is a slope
    of rate / cell, so with the same rate for all a level that is switched on roughens the surface by more the finer it
    is. In proportion to its cells' size it changes slopes as much as the last of the first levels does.
    """
    offsets, cells = grid.offsets, grid.resolutions
    finer = [
        (slice(offsets[level], offsets[level + 1]), cells[first_levels - 1] / cells[level])
        for level in range(first_levels, grid.levels)
    ]
    return [(slice(0, offsets[first_levels]), 1.0), *finer]
