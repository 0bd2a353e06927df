"""The mesh against the truth, where there is one: figures, signed distances as pictures, how they are spread."""

from __future__ import annotations

import numpy as np

from .casting import Caster, Window, brightness, viewpoint
from .charts import histogram
from .page import Markup, Section, picture, table, tag
from .pictures import data_uri, diverging, with_alpha
from .run_files import Run
from .surface import Surface, error_key

_SUPERSAMPLE, _SIDE_PX = 2, 250
_LOOKS = (
    (35.0, 25.0, "from 35°"), (155.0, 25.0, "from 155°"), (275.0, 25.0, "from 275°"), (35.0, 80.0, "from above"),
    (35.0, -65.0, "from below"),
)  # fmt: skip
_ROWS = {
    "chamfer_mm": "Chamfer mm", "accuracy_mm": "accuracy mm (mesh to truth)",
    "completeness_mm": "completeness mm (truth to mesh)", "accuracy_median_mm": "accuracy, median mm",
    "completeness_median_mm": "completeness, median mm", "f_score_0_5mm": "F@0.5 mm", "f_score_1mm": "F@1 mm",
    "f_score_2mm": "F@2 mm", "normal_consistency": "normal consistency", "iou": "volume IoU",
}  # fmt: skip


def against_truth(run: Run, surface: Surface) -> Section:
    """What the evaluation found, with a map of signed distances."""
    section = {"id": "truth", "title": "Against the truth"}
    report = run.summary.get("report")
    if report is None:
        return Section(**section, absent="the capture has no ground truth.")
    kinds = ["raw"] + ["aligned"] * (report["aligned"] is not None)
    rows = [[title, *(f"{report[kind][key]:.4f}" for kind in kinds)] for key, title in _ROWS.items()]
    figures = table(["", *({"raw": "as it is", "aligned": "aligned"}[kind] for kind in kinds)], rows)
    told = (
        f"Volume {report['closedness']['volume_cm3']:.2f} cm³, of the truth {report['truth_volume_cm3']:.2f} cm³. "
        f"{100 * report['seen_share']:.1f} % of the truth's surface is seen and was asked for."
    )
    if report["aligned"] is not None:
        told += f" The alignment turned by {report['rotation_deg']:.3f}° and shifted by {report['shift_mm']:.3f} mm."
    parts = [figures, tag("p", told, class_="note")]
    if surface.error is None:
        parts.append(tag("p", "The truth is no longer in the capture's folder: no map of distances.", class_="absent"))
    else:
        parts += _maps(run, surface)
    return Section(**section, body=Markup("".join(parts)))


def _maps(run: Run, surface: Surface) -> list[Markup]:
    assert surface.error is not None
    caster = Caster.of(surface.mesh)
    pictures = [
        picture(_shot(caster, surface, azimuth, elevation), f"signed distances, {name}", name)
        for azimuth, elevation, name in _LOOKS
    ]
    words = f"Signed distances of the surface from the truth, {run.length.name}, by area:"
    areas = np.asarray(surface.mesh.area_faces)
    of_faces = surface.error[np.asarray(surface.mesh.faces)].mean(axis=1)
    # as many of each face as its area asks for: the histogram is of the surface, not of the triangles
    drawn = np.repeat(of_faces, np.round(areas / areas.sum() * 200_000).astype(int))
    return [
        tag("p", error_key(run, surface.limit), class_="key"),
        tag("div", *pictures, class_="cards small"),
        tag("p", words, class_="note"),
        histogram(drawn, surface.limit, run.length.name),
    ]


def _shot(caster: Caster, surface: Surface, azimuth_deg: float, elevation_deg: float) -> str:
    view = viewpoint(
        caster.centre, caster.radius, azimuth_deg=azimuth_deg, elevation_deg=elevation_deg, side_px=_SIDE_PX
    )
    window = Window.of(np.array([0, 0]), np.array([_SIDE_PX, _SIDE_PX]), _SIDE_PX)
    seen = caster.look(view, window.centres(_SUPERSAMPLE))
    normals = caster.values(seen, np.asarray(caster.mesh.vertex_normals))
    assert surface.error is not None
    off = caster.values(seen, surface.error[:, None])[..., 0]
    colors = diverging(off, surface.limit) / 255 * (0.45 + 0.55 * brightness(normals, view)[..., None])
    return data_uri(with_alpha(colors, seen.hit.astype(np.float64), _SUPERSAMPLE))
