"""What speaks for the surface: shares by kind of evidence, and what was closed or never observed."""

from __future__ import annotations

import numpy as np

from ..label import Evidence
from .charts import stacked
from .page import Markup, Section, table, tag
from .pictures import hexadecimal, swatch
from .run_files import Run
from .surface import KINDS, ON_TABLE, kinds_of


def observed(run: Run) -> Section:
    """Shares of the surface's area; the 3D view shows the same by colours."""
    section = {"id": "observed", "title": "Observed"}
    if run.evidence is None:
        unscaled = "evidence is sought within stated millimetres, and this capture is unscaled."
        return Section(**section, absent="the run recorded no evidence." if run.capture.is_metric else unscaled)
    shares = area_shares(run)
    rows = [
        [tag("span", swatch(color, words), class_="swatch"), f"{100 * shares[kind]:.2f}"]
        for kind, (words, color) in KINDS.items()
        if shares[kind] > 0 or kind in (Evidence.none, ON_TABLE)
    ]
    bar = stacked([(hexadecimal(color), shares[kind]) for kind, (_, color) in KINDS.items()])
    note = (
        "Of the surface's area, by the first kind of evidence that speaks for it. What nothing speaks for is where the "
        "fit filled in: a wall that no sensor read, or the underside, which is closed flat at the table. The labels "
        "there are not marked as observed. In the 3D view: observed."
    )
    return Section(
        **section, body=Markup(tag("p", note, class_="note") + bar + table(["evidence", "share of area %"], rows))
    )


def area_shares(run: Run) -> dict[int, float]:
    """For each of `KINDS` the share of the mesh's area; a face counts a third to each of its vertices."""
    kinds, areas = kinds_of(run), np.asarray(run.mesh.area_faces)
    of_corners = kinds[np.asarray(run.mesh.faces)]
    return {kind: float((areas * (of_corners == kind).mean(axis=1)).sum() / areas.sum()) for kind in KINDS}
