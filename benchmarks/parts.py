"""Where the time of a training step goes, by the functions that a fit calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch

from neuralrecon.fields import SurfaceModel
from neuralrecon.render import Occupancy
from neuralrecon.train import questions
from neuralrecon.train.optimizer import Optimizer
from neuralrecon.train.questions import Questions

# an indented part is contained in the one above it
PARTS = (
    "draw",
    "  rays marched",
    "query",
    "render + losses",
    "  colour",
    "backward + optimiser",
    "  backward",
    "refresh",
    "rest",
)


@contextmanager
def timed_parts() -> Iterator[dict[str, float]]:
    """Seconds by part, added up over the block; clear the dict to begin again."""
    seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    places: list[tuple[str, Any, str]] = [
        ("draw", Questions, "draw"),
        ("  rays marched", questions, "sample_rays"),
        ("query", SurfaceModel, "surface"),
        ("render + losses", Questions, "terms"),
        ("  colour", SurfaceModel, "color"),
        ("backward + optimiser", Optimizer, "descend"),
        ("  backward", torch.Tensor, "backward"),
        ("refresh", Occupancy, "refreshed"),
    ]
    with ExitStack() as stack:
        for part, owner, name in places:
            is_static = isinstance(owner, type) and isinstance(vars(owner).get(name), staticmethod)
            timed = _timed(getattr(owner, name), part, seconds)
            stack.enter_context(patch.object(owner, name, staticmethod(timed) if is_static else timed))
        yield seconds


def _timed(function: Callable[..., Any], part: str, seconds: dict[str, float]) -> Callable[..., Any]:
    @wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        found = function(*args, **kwargs)
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - began
        return found

    return timed
