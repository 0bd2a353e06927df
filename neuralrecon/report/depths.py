"""How far depth readings lie from the mesh, image by image, and which were not believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ..capture import Image, SensorKind, read_depth
from ..label import read_depth_inliers
from ..label.depth_inliers import BELIEVED
from ..scene.parallel import in_parallel
from .casting import Caster, Window
from .charts import histogram
from .page import Markup, Section, picture, table, tag
from .pictures import data_uri, diverging, diverging_css, enlarged, swatch
from .run_files import Run
from .viewpoints import label_of, spread, view_of, worst_and_median

_MOST_VIEWS, _LONGEST_PX = 150, 400
_LEAST_READINGS = 30
_DOUBTED, _MISSING = (120, 96, 150), (70, 70, 74)
_LIMIT = 3.0  # mm, the end of the colours


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """One depth image around the mesh: depth read minus depth of the mesh, in the run's shown unit.

    nan where nothing was read or the ray misses the mesh; `believed` is all true where nothing tells.
    """

    image: Image
    off: Float[np.ndarray, "v u"]
    believed: Bool[np.ndarray, "v u"]
    on_mesh: Bool[np.ndarray, "v u"]

    @property
    def trusted(self) -> Float[np.ndarray, "n"]:
        return self.off[self.believed & np.isfinite(self.off)]

    @property
    def size(self) -> float:
        """The median of the believed readings' distances, 0 if there are too few to tell."""
        return float(np.median(np.abs(self.trusted))) if len(self.trusted) >= _LEAST_READINGS else 0.0


def depths(run: Run, caster: Caster) -> Section:
    """Bias and spread of each depth sensor against the mesh, a histogram, maps of the worst and the median image."""
    section = {"id": "depth", "title": "Depth"}
    images = run.capture.images_of(SensorKind.depth)
    if not images:
        return Section(**section, absent="the capture has no depth images.")
    looked_at = spread(images, _MOST_VIEWS)
    found = [r for r in in_parallel("depth compared", lambda i: residuals(run, caster, i), looked_at) if r is not None]
    if not any(len(r.trusted) for r in found):
        return Section(**section, absent="no depth reading on the mesh is believed.")
    unit = run.length.name
    ordered = sorted(found, key=lambda r: -r.size)
    chosen = worst_and_median(ordered)
    rows = [_row(s.name, [r for r in found if r.image.sensor == s.name], run) for s in run.capture.sensors]
    doubts = "" if run.inlier_folder else " No image of the run tells what is believed: all readings count."
    notes = tag(
        "p",
        f"Depth read minus depth of the mesh along the optical axis, {unit}; positive is behind the mesh. "
        f"{len(found)} of {len(images)} images, read where their rays meet the mesh.{doubts}",
        class_="note",
    )
    all_trusted = np.concatenate([r.trusted for r in found])
    key = tag(
        "p",
        tag("span", "in front ", tag("b", style=f"background:{diverging_css()}"), f" behind, ±{_LIMIT:g} {unit}"),
        *(swatch(color, words) for color, words in ((_DOUBTED, "not believed"), (_MISSING, "nothing read"))),
        class_="key",
    )
    maps = tag("div", *(_map(run, which, r) for which, r in chosen.items()), class_="cards wide")
    head = ["sensor", "median (bias)", "median distance", "95 % within", "believed %", "not believed %", "missing %"]
    told = table(head, [row for row in rows if row])
    return Section(**section, body=Markup(notes + told + histogram(all_trusted, _LIMIT, unit) + key + maps))


def residuals(run: Run, caster: Caster, image: Image) -> Residuals | None:
    """None if the image does not show the mesh."""
    view, depth = view_of(run.capture, image), np.asarray(read_depth(run.capture, image))
    window = Window.around(caster.corners, view, max(depth.shape))
    if window is None:
        return None
    u0, v0, u1, v1 = window.box
    seen, read = caster.look(view, window.centres()), depth[v0:v1, u0:u1].astype(np.float64)
    believed = np.ones(read.shape, dtype=bool)
    if run.inlier_folder is not None:
        believed = read_depth_inliers(run.inlier_folder, image, view.camera)[v0:v1, u0:u1] >= BELIEVED
    off = np.full(read.shape, np.nan)
    known = seen.hit & (read > 0)
    off[known] = (read[known] - seen.depth[known]) * run.length.per_world
    return Residuals(image=image, off=off, believed=believed, on_mesh=seen.hit)


def painted(found: Residuals, limit: float) -> UInt8[np.ndarray, "v u 4"]:
    """Signed residuals in colour, what was not believed or not read in colours of its own, nothing off the mesh."""
    shown = np.zeros((*found.off.shape, 4), dtype=np.uint8)
    known = np.isfinite(found.off)
    shown[..., :3] = diverging(np.where(known, found.off, 0), limit)
    shown[known & ~found.believed, :3], shown[~known, :3] = _DOUBTED, _MISSING
    shown[..., 3] = 255 * found.on_mesh
    return shown


def _row(name: str, found: Sequence[Residuals], run: Run) -> list[object] | None:
    n = sum(int(r.on_mesh.sum()) for r in found)
    if n == 0:
        return None
    trusted = np.concatenate([r.trusted for r in found])
    n_read = sum(int(np.isfinite(r.off).sum()) for r in found)
    if len(trusted):
        unit = run.length.name if run.capture.is_metric else "‰"
        values = (np.median(trusted), np.median(np.abs(trusted)), np.percentile(np.abs(trusted), 95))
        told = [f"{values[0]:+.2f} {unit}", *(f"{value:.2f} {unit}" for value in values[1:])]
    else:
        told = [None] * 3
    return [name, *told, *(f"{100 * part / n:.1f}" for part in (len(trusted), n_read - len(trusted), n - n_read))]


def _map(run: Run, which: str, found: Residuals) -> Markup:
    name, shown = label_of(run.capture, found.image), painted(found, _LIMIT)
    shown = enlarged(shown, _LONGEST_PX)
    words = f"{which}: {name}, median distance {found.size:.2f} {run.length.name}"
    return picture(data_uri(shown, lossless=True), f"depth residuals of {name}", words)
