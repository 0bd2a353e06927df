"""A solid as convex parts, which is what simulators collide. The only user of CoACD."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import trimesh

from ..errors import ConfigError, ExportError
from .visual import simplified

_LEAST_SHARE = 1e-5


def convex_parts(
    mesh: trimesh.Trimesh, *, concavity: float, most_parts: int, n_faces: int, seed: int
) -> tuple[trimesh.Trimesh, ...]:
    """Convex bodies that together fill the solid (CoACD: Wei et al. 2022), in its frame; the largest comes first.

    Args:
        mesh: closed.
        concavity: how far the parts may lie off the solid, as CoACD measures it: relative to its size. Smaller gives
            more parts.
        most_parts: at most so many parts, whatever the concavity; one part is the convex hull, without CoACD.
        n_faces: the solid is simplified to about this many faces before; time grows with them.
        seed: of CoACD's search.

    Raises:
        ConfigError: CoACD is not installed.
        ExportError: nothing solid is left.
    """
    hulls = [mesh.convex_hull] if most_parts == 1 else _decomposed(mesh, concavity, most_parts, n_faces, seed)
    least = _LEAST_SHARE * float(mesh.volume)
    parts = sorted((h for h in hulls if h.volume > least), key=lambda h: -h.volume)
    if not parts:
        raise ExportError(f"no convex part of the mesh has a volume (of {mesh.volume:.3g} m3); choose other settings")
    return tuple(trimesh.Trimesh(h.vertices, h.faces, process=False) for h in parts)


def _decomposed(
    mesh: trimesh.Trimesh, concavity: float, most_parts: int, n_faces: int, seed: int
) -> list[trimesh.Trimesh]:
    coacd = _coacd()
    coacd.set_log_level("error")
    fewer = simplified(mesh, n_faces)
    found = coacd.run_coacd(
        coacd.Mesh(np.asarray(fewer.vertices, np.float64), np.asarray(fewer.faces, np.int32)),
        threshold=concavity,
        max_convex_hull=most_parts,
        seed=seed,
    )
    return [trimesh.convex.convex_hull(np.asarray(vertices)) for vertices, _ in found if len(vertices) > 3]


def _coacd() -> Any:
    try:
        return importlib.import_module("coacd")
    except ImportError as error:
        raise ConfigError(
            'convex parts need CoACD: pip install -e ".[sim]", or take body.most_parts=1, the convex hull'
        ) from error
