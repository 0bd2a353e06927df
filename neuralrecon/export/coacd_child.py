"""A process for CoACD: coacd_child.py SOLID.npz PARTS.npz SETTINGS. The only user of CoACD."""

from __future__ import annotations

import json
import sys

import numpy as np


def main(solid: str, parts: str, settings: str) -> None:
    """Writes the corners of each convex part; settings are those of `coacd.run_coacd` as JSON."""
    import coacd

    coacd.set_log_level("error")
    with np.load(solid) as arrays:
        mesh = coacd.Mesh(arrays["vertices"], arrays["faces"])
    found = coacd.run_coacd(mesh, **json.loads(settings))
    np.savez(parts, *[np.asarray(vertices) for vertices, _ in found])


if __name__ == "__main__":
    main(*sys.argv[1:])
