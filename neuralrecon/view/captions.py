"""Words and curves of the panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import trimesh
from jaxtyping import Float, Float32

from ..capture import Capture, SensorKind
from ..train import Fit
from .plane import Slice
from .points import PointKind
from .runs import Run

if TYPE_CHECKING:
    import viser
    from viser import uplot

_HEIGHT_PX = 320
_LEAST_SHARE = 1e-3
_STROKES = ("#1f2937", "#2063a0", "#cb6c1d", "#2f8f4e", "#8e44ad", "#c0392b", "#0f9d9d", "#8a6d3b", "#d6539c",
            "#5f6b7a", "#9aa51f", "#3b4cc0", "#116466")  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Curves:
    """The chart that is there, and the names of its terms."""

    names: tuple[str, ...]
    handle: viser.GuiUplotHandle


def of_run(run: Run, fit: Fit | None, capture: Capture | None, summary: Mapping[str, Any]) -> str:
    """Name, state, size and verdict."""
    lines = [f"**{run.name}**: {_state(run, fit, summary)}"]
    if fit is not None:
        mm = [float(length) / fit.world_per_mm for length in fit.box.size]
        size = " × ".join(f"{length:.0f}" for length in mm)
        lines.append(f"Box {size} mm" if fit.is_metric else f"Box {size} (unscaled)")
    if capture is not None:
        n_photos, n_depths = (len(capture.images_of(kind)) for kind in (SensorKind.color, SensorKind.depth))
        lines.append(f"{n_photos} photographs, {n_depths} depth images, {len(capture.frames)} stops")
    if summary.get("surface"):
        lines.append(f"Surface: {summary['surface']}; calibration: {summary.get('calibration', 'given')}")
    return "<br>".join(lines)


def _state(run: Run, fit: Fit | None, summary: Mapping[str, Any]) -> str:
    if summary:
        verdict = summary.get("verdict") or {}
        reasons = "; ".join(verdict.get("reasons") or [])
        return f"finished, {verdict.get('status', 'without a verdict')}" + (f" ({reasons})" if reasons else "")
    if fit is None:
        return "being prepared; the first surface comes with the fit" if run.is_trained else "no fit yet"
    if fit.step >= fit.config.steps:
        return "fit is done, mesh and labels follow" if run.is_trained else "fit is done, the run was not finished"
    return f"{'training' if run.is_trained else 'broke off'}, step {fit.step} of {fit.config.steps}"


def of_mesh(mesh: trimesh.Trimesh, fit: Fit) -> str:
    """Faces and volume."""
    volume = abs(float(mesh.volume)) / fit.world_per_mm**3 / 1e3
    unit = "cm³" if fit.is_metric else "(unscaled)"
    return f"<sub>{len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces, {volume:,.1f} {unit}</sub>"


def of_points(points: Mapping[PointKind, Float32[np.ndarray, "points 3"]], n_labels: int) -> str:
    """How many points of each kind are there to be shown, and of how many they are a part."""
    told = ", ".join(f"{len(of_kind):,} {kind}" for kind, of_kind in points.items())
    return f"<sub>{told}; of {n_labels:,} labels</sub>"


def of_slice(found: Slice, most: float, every: float) -> str:
    """What the slice's colours mean."""
    low, high = found.sdf_mm.min(), found.sdf_mm.max()
    return (
        f"<sub>Blue −{most:g} mm (inside) to red +{most:g} mm (outside), lines every {every:g} mm, dark at zero. "
        f"Here the sdf is {low:.1f} to {high:.1f} mm; away from the surface it is no exact distance.</sub>"
    )


def drawn_curves(
    gui: viser.GuiApi, tab: viser.GuiTabHandle, known: Curves | None, curves: Mapping[str, Float[np.ndarray, "rows"]]
) -> Curves | None:
    """The chart with these curves: new data in the one that is there, or a new one if there are other terms."""
    names = tuple(name for name in curves if name != "step")
    data = _within_sight(curves) if names else ()
    if known is not None and known.names == names:
        known.handle.data = data
        return known
    if known is not None:
        known.handle.remove()
    if not names or len(curves["step"]) < 2:
        return None
    series: list[uplot.Series] = [{"label": "step"}]
    for number, name in enumerate(names):
        stroke = _STROKES[number % len(_STROKES)]
        series.append({"label": name, "stroke": stroke, "width": 2.5 if name == "loss" else 1.2, "spanGaps": False})
    with tab:
        handle = gui.add_uplot(
            data,
            tuple(series),
            title="Weighted loss terms by step (logarithmic)",
            scales={"x": {"time": False}, "y": {"distr": 3, "log": 10}},
            legend={"show": True},
            height=_HEIGHT_PX,
        )
    return Curves(names=names, handle=handle)


def _within_sight(curves: Mapping[str, Float[np.ndarray, "rows"]]) -> tuple[Float[np.ndarray, "rows"], ...]:
    """Steps, then the terms; nan where a term is less than a thousandth of the largest loss, or not there."""
    least = _LEAST_SHARE * float(np.nanmax(curves["loss"])) if "loss" in curves else 0.0
    return tuple(
        values if name == "step" else np.where(np.nan_to_num(values) > least, values, np.nan)
        for name, values in curves.items()
    )
