"""python -m benchmarks NAME …: speed, memory and quality; NAME --help tells more.

    micro        each op on each backend, against its torch definition
    step         training steps a second, by backend, and where their time goes
    object       seconds of a fit until its mesh is within 5 % of what it converges to; whether backends agree
    memory       preparing a capture's evidence: seconds, memory, batches
    captures     the whole command on captures whose truth is known
    calibration  simulated captures with disturbed calibrations
    real         real captures, judged by what was held out
    reliability  runs that are killed, sweeps with sabotaged objects, what Ray costs
    scale        what a whole data set costs, from finished runs
    surfaces     simulated shapes of four materials: ours, classical methods, ours with one part off
    texture      textured meshes of finished runs against the photographs held out
    exports      finished runs as other programs read them: inertia, convex parts, BOP outlines
    first_mesh   the README's first command in a new environment, until there is a mesh
    viewer       what a viewer beside a training costs
    fuzz         broken files of every kind, read by every reader: what crashes, how long, how much memory
    report_pictures  the docs' pictures of reports, and what a report's page costs to open

The README's picture is drawn by python -m benchmarks.overview.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

_MODULES = {
    "micro": "micro",
    "step": "step",
    "object": "objects",
    "memory": "memory",
    "captures": "captures",
    "calibration": "calibration",
    "real": "real",
    "reliability": "reliability",
    "scale": "scale",
    "surfaces": "surfaces",
    "texture": "texture",
    "exports": "exports",
    "first_mesh": "first_mesh",
    "viewer": "viewer",
    "fuzz": "fuzz",
    "report_pictures": "report_pictures",
}


def main(words: Sequence[str] | None = None) -> int:
    """The exit code of the benchmark that the first word names; 2 if there is none of that name."""
    name, *rest = [*(sys.argv[1:] if words is None else words)] or [""]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name not in _MODULES:
        print(f"benchmarks: no benchmark '{name}'\n\n{__doc__}", file=sys.stderr)
        return 2
    return import_module(f".{_MODULES[name]}", __package__).main(rest)


if __name__ == "__main__":
    sys.exit(main())
