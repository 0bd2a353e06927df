"""Reconstruct an object: its capture becomes a closed metric mesh with labels, in one output folder.

Reads the capture, gathers the evidence, fits the surface, extracts the mesh, writes labels for 3D shape completion, and
compares with the truth if the capture has one. Without an object or a capture it makes and reconstructs a demo.
"""

from __future__ import annotations

import sys

from ..config import Command
from .run import RunConfig, run


def main(config: RunConfig) -> float:
    """The run's score; see `RunSummary.score`."""
    return run(config).score


cli = Command(
    name="train",
    schema=RunConfig,
    main=main,
    about=__doc__ or "",
    examples=[
        ("", "the built-in demo: a printed box, simulated on the spot"),
        ("object=bigbird/cheez_it data=/data", "the object in /data/bigbird/cheez_it_white_cheddar"),
        ("capture=data/mine/cup out=outputs/cup", "any capture folder, into a folder of your choice"),
        ("object=demo/mug sensors=[N1,N3,NP3] every_nth_stop=2", "part of a capture"),
        ("-m object=demo/box,demo/mug seed=0,1", "four runs, one after the other"),
    ],
    groups={"object": "demo/box"},
)

if __name__ == "__main__":
    sys.exit(cli())
