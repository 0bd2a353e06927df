"""A solid as convex parts, which is what simulators collide."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float

from ..errors import ConfigError, ExportError
from ..files import read_npz
from .visual import simplified

_log = logging.getLogger(__name__)
_VOXELS = 80  # along the longest side, where nothing else helps: parts become about one voxel thicker
_SCRIPT = Path(__file__).with_name("coacd_child.py")
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
        ExportError: CoACD cannot take the solid apart, or no part has a volume.
    """
    hulls = [mesh.convex_hull] if most_parts == 1 else _decomposed(mesh, concavity, most_parts, n_faces, seed)
    least = _LEAST_SHARE * float(mesh.volume)
    parts = sorted((h for h in hulls if h.volume > least), key=lambda h: -h.volume)
    if not parts:
        raise ExportError(f"no convex part of the mesh has a volume (of {mesh.volume:.3g} m3); choose other settings")
    filled = sum(float(h.volume) for h in parts) / float(mesh.volume)
    _log.info("convex parts: %d, together %.2f of the solid's volume", len(parts), filled)
    return tuple(trimesh.Trimesh(h.vertices, h.faces, process=False) for h in parts)


def _decomposed(
    mesh: trimesh.Trimesh, concavity: float, most_parts: int, n_faces: int, seed: int
) -> list[trimesh.Trimesh]:
    """By CoACD on the simplified solid; where its flaws end CoACD, with other faces; at last on a solid of voxels."""
    if importlib.util.find_spec("coacd") is None:
        raise ConfigError(
            'convex parts need CoACD: pip install -e ".[sim]", or take body.most_parts=1, the convex hull'
        )
    settings = {"threshold": concavity, "max_convex_hull": most_parts, "seed": seed}
    remeshed = {"preprocess_mode": "on", "preprocess_resolution": _VOXELS}
    for count, more in ((n_faces, {}), (3 * n_faces // 2, {}), (n_faces, remeshed)):
        try:
            found = _by_coacd(simplified(mesh, count), settings | more)
        except ExportError as error:
            if more:
                raise
            _log.info("convex parts from %d faces: %s; once more", count, error)
        else:
            # what stands out of the solid's box would keep it off the table
            low, high = mesh.bounds
            return [trimesh.convex.convex_hull(np.clip(points, low, high)) for points in found if len(points) > 3]
    raise AssertionError("the last attempt returns or raises")


def _by_coacd(mesh: trimesh.Trimesh, settings: dict[str, Any]) -> list[Float[np.ndarray, "corners 3"]]:
    """Corners of each part. CoACD runs in a process of its own: what it cannot do ends the process that it is in."""
    with TemporaryDirectory() as temporary:
        solid, parts = Path(temporary) / "solid.npz", Path(temporary) / "parts.npz"
        np.savez(solid, vertices=np.asarray(mesh.vertices, np.float64), faces=np.asarray(mesh.faces, np.int32))
        # -P: the script's own folder is no place to import from
        words = [sys.executable, "-P", str(_SCRIPT), str(solid), str(parts), json.dumps(settings)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0 or not parts.exists():
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise ExportError(
                f"CoACD ended with status {done.returncode} ({lines[-1].strip()}); take other body.part_faces, or "
                "body.most_parts=1, the convex hull"
            )
        return list(read_npz(parts).values())
