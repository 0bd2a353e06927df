"""The surface as the 3D view shows it: few enough triangles, each vertex with all that is known of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8
from scipy.spatial import KDTree

from ..extract.mesh import simplified
from ..label import Evidence, Solid
from .page import Markup, Section, data_block, tag
from .pictures import diverging, diverging_css, swatch
from .run_files import Run
from .turnaround import colors_of

_FACES = 80_000  # of 16-bit corners, at most 65,536 vertices: 1.7 MB in the page with four sets of colours
_TABLE_MM = 0.05
ON_TABLE = 5  # beyond the kinds of `Evidence`: closed at the table by a rule
KINDS: dict[int, tuple[str, tuple[int, int, int]]] = {
    Evidence.depth: ("depth readings", (58, 122, 214)),
    Evidence.colors: ("colours of photographs", (46, 160, 110)),
    Evidence.outlines: ("outlines", (236, 190, 60)),
    Evidence.some: ("evidence (kind not recorded)", (110, 140, 150)),
    ON_TABLE: ("closed at the table by rule", (150, 120, 190)),
    Evidence.none: ("nothing: never observed", (214, 70, 60)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """The simplified mesh in the world frame.

    `nearest` is, for each of its vertices, the nearest one of the run's mesh; `evidence` are keys of `KINDS`, `error`
    the signed distances from the truth in the run's shown unit, positive outside of it. Both may not be known.
    """

    mesh: trimesh.Trimesh
    nearest: Int[np.ndarray, "vertices"]
    evidence: UInt8[np.ndarray, "vertices"] | None
    error: Float[np.ndarray, "vertices"] | None
    limit: float

    @staticmethod
    def of(run: Run) -> Surface:
        """Quadric edge collapse down to 80,000 faces; colours and evidence are those of the nearest vertex."""
        vertices, faces = np.asarray(run.mesh.vertices, np.float64), np.asarray(run.mesh.faces)
        if len(faces) > _FACES:
            vertices, faces = simplified(vertices, faces, _FACES)
        mesh = trimesh.Trimesh(vertices, faces, process=False)
        nearest = np.asarray(KDTree(run.mesh.vertices).query(vertices)[1])
        error = None
        if run.truth is not None and run.summary.get("report"):
            error = Solid.of(run.truth).signed_distance(vertices) * run.length.per_world
        return Surface(
            mesh=mesh,
            nearest=nearest,
            evidence=None if run.evidence is None else kinds_of(run)[nearest],
            error=error,
            limit=1.0 if error is None else nice_limit(float(np.percentile(np.abs(error), 95))),
        )


def kinds_of(run: Run) -> UInt8[np.ndarray, "vertices"]:
    """Evidence of the run's vertices, with what was closed at the table told apart."""
    assert run.evidence is not None
    kinds = run.evidence.copy()
    if run.capture.has_table:
        on_table = np.abs(np.asarray(run.mesh.vertices)[:, 2]) < _TABLE_MM * 1e-3
        kinds[on_table & (kinds == Evidence.none)] = ON_TABLE
    return kinds


def nice_limit(value: float) -> float:
    """The next of 0.1, 0.2, 0.5, 1, 2, 5, …: ends of a scale that can be read."""
    power = 10.0 ** np.floor(np.log10(max(value, 1e-3)))
    return float(next(power * step for step in (1, 2, 5, 10) if power * step >= value))


def view_3d(run: Run, surface: Surface) -> Section:
    """The mesh to turn around, with switchable colours."""
    layers = list(_layers(run, surface))
    low, high = np.asarray(surface.mesh.bounds)
    quantised = np.round((np.asarray(surface.mesh.vertices) - low) / (high - low).max() * 65535).astype("<u2")
    told = {
        "low": low.tolist(),
        "high": high.tolist(),
        "positions": _base64(quantised),
        "normals": _base64(np.round(np.asarray(surface.mesh.vertex_normals) * 127).astype("i1")),
        "corners": _base64(_corners(surface)),
        "table": 0.0 if run.capture.has_table else None,
        "layers": [{"id": id, "colors": _base64(colors)} for id, _, colors, _ in layers],
    }
    buttons = [
        tag("button", title, type="button", data_layer=id, aria_pressed=str(i == 0).lower())
        for i, (id, title, _, _) in enumerate(layers)
    ]
    looks = [tag("button", name, type="button", data_look=name) for name in ("front", "side", "top", "below")]
    legends = [tag("p", legend, class_="key", data_legend=id, hidden="") for id, _, _, legend in layers if legend]
    n = len(surface.mesh.faces)
    note = f"{n:,} triangles of {len(run.mesh.faces):,}. Drag to turn, shift and drag to move, wheel to come closer; "
    missing = [] if surface.error is not None else ["Error: the capture has no ground truth."]
    missing += [] if surface.evidence is not None else ["Observed: the run recorded no evidence."]
    body = tag(
        "div",
        tag("div", *buttons, class_="buttons", role="group", aria_label="colours"),
        tag(
            "div", *looks, tag("label", tag("input", type="checkbox", id="lit", checked=""), " light"), class_="buttons"
        ),
        tag("canvas", "", id="view", tabindex="0", role="img", aria_label="the mesh in three dimensions"),
        tag("p", "", id="view-says", class_="absent", hidden=""),
        *legends,
        tag("p", note, "arrow keys and + − do the same. ", *missing, class_="note"),
        data_block("surface", told),
        id="viewer",
    )
    return Section(id="view-3d", title="3D view", body=body)


def _layers(run: Run, surface: Surface):
    """(id, title, RGB of each vertex, legend) of what can be shown."""
    colors, n = colors_of(run.mesh), len(surface.mesh.vertices)
    if colors is not None:
        yield "color", "colour", np.round(colors[surface.nearest] * 255).astype(np.uint8), None
    yield "grey", "shape", np.full((n, 3), 205, np.uint8), None
    normals = np.round((np.asarray(surface.mesh.vertex_normals) + 1) * 127.5).astype(np.uint8)
    yield "normals", "normals", normals, tag("span", "red x, green y, blue z (up), of the object's frame")
    if surface.error is not None:
        yield "error", "error", diverging(surface.error, surface.limit), error_key(run, surface.limit)
    if surface.evidence is not None:
        palette = np.zeros((max(KINDS) + 1, 3), np.uint8)
        for kind, (_, color) in KINDS.items():
            palette[kind] = color
        present = [KINDS[kind] for kind in KINDS if (surface.evidence == kind).any()]
        legend = [swatch(color, words) for words, color in present]
        yield "observed", "observed", palette[surface.evidence], Markup("".join(legend))


def error_key(run: Run, limit: float) -> Markup:
    """The scale of signed distances from the truth."""
    gradient = tag("b", style=f"background:{diverging_css()}")
    return tag("span", "inside of the truth ", gradient, f" outside, ±{limit:g} {run.length.name}")


def _corners(surface: Surface) -> np.ndarray:
    small = len(surface.mesh.vertices) <= 1 << 16
    return np.ascontiguousarray(surface.mesh.faces).astype("<u2" if small else "<u4")


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
