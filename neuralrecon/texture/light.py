"""How bright a place looks by which way its normal points in the room: what turns with the object is not its colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_DARKEST = 0.02
_ROUNDS = 4
_FAR_OFF = 0.15  # difference of colours beyond which a view counts less
_RIDGE = 1e-3  # per view, against directions that no view tells


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """The room's light on a matte surface, as a factor to its colour in sRGB for each unit normal in the room.

    log factor = m(n)^T b - mean, where m(n) = (x, y, z, x^2, y^2, xy, yz, zx). A quadratic form of the normal holds
    98 % of the irradiance of any distant light (Ramamoorthi and Hanrahan 2001); its logarithm stays linear in the
    unknowns, and sRGB's power law only scales it. `low` and `high` bound the logarithm to what was seen.

    Example:
        >>> Light.constant().factor(torch.tensor([[0.0, 0.0, 1.0]])).tolist()
        [[1.0, 1.0, 1.0]]
    """

    terms: Float[Tensor, "8 3"]
    mean: Float[Tensor, "3"]
    low: Float[Tensor, "3"]
    high: Float[Tensor, "3"]

    @staticmethod
    def constant() -> Light:
        """The same from all sides."""
        zero = torch.zeros(3)
        return Light(terms=torch.zeros(8, 3), mean=zero, low=zero, high=zero)

    @staticmethod
    def of_views(
        places: Int[Tensor, "views"], colors: Float[Tensor, "views 3"], normals_in_room: Float[Tensor, "views 3"]
    ) -> Light:
        """From the colours that each place shows in several views: what its own colour does not explain.

        Least squares of log colour = log of the place's own + m(n)^T b, by brightness (so that errors of colours count
        alike), with views that are far off (highlights, what is hidden) counting less from round to round.
        Without a turntable each normal stands still in the room: nothing is told, and the factor is 1.
        """
        if len(places) == 0:
            return Light.constant()
        logs, forms = colors.clamp_min(_DARKEST).log().double(), monomials(normals_in_room).double()
        channels = [_solved(places, logs[:, c], forms) for c in range(3)]
        terms = torch.stack(channels, dim=1)
        seen = forms @ terms
        mean = seen.mean(dim=0)
        low, high = ((bound - mean).float() for bound in (seen.amin(dim=0), seen.amax(dim=0)))
        return Light(terms=terms.float(), mean=mean.float(), low=low, high=high)

    def factor(self, normals_in_room: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """By what a colour is multiplied; its mean over what was seen is about 1."""
        logs = monomials(normals_in_room) @ self.terms - self.mean
        return torch.minimum(torch.maximum(logs, self.low), self.high).exp()


def monomials(normals: Float[Tensor, "points 3"]) -> Float[Tensor, "points 8"]:
    """Of degree one and two; z^2 is missing, for the squares add up to 1."""
    x, y, z = normals.unbind(1)
    return torch.stack([x, y, z, x * x, y * y, x * y, y * z, z * x], dim=1)


def _solved(places: Tensor, logs: Tensor, forms: Tensor) -> Float[Tensor, "8"]:
    """One channel's terms."""
    n = int(places.max()) + 1
    brightness = logs.exp()
    weights = brightness.square()
    terms = torch.zeros(8, dtype=torch.float64)
    for _ in range(_ROUNDS):
        a, y = (_without_mean(values, places, weights, n) for values in (forms, logs[:, None]))
        weighted = a * weights[:, None]
        ridge = _RIDGE * weights.sum() * torch.eye(8, dtype=torch.float64)
        terms = torch.linalg.solve(weighted.T @ a + ridge, weighted.T @ y[:, 0])
        off = brightness * (y[:, 0] - a @ terms).abs()
        weights = brightness.square() / (1 + (off / _FAR_OFF).square()).square()
    return terms


def _without_mean(values: Tensor, places: Tensor, weights: Tensor, n: int) -> Tensor:
    total = torch.zeros(n, dtype=values.dtype).index_add(0, places, weights)
    summed = torch.zeros(n, values.shape[1], dtype=values.dtype).index_add(0, places, values * weights[:, None])
    return values - (summed / total.clamp_min(1e-12)[:, None])[places]


def as_numbers(light: Light) -> dict[str, list]:
    """For a file: `terms` has a row for each of x, y, z, x^2, y^2, xy, yz, zx."""
    return {name: np.round(getattr(light, name).numpy(), 6).tolist() for name in ("terms", "mean", "low", "high")}
