"""The top of a report, the verdict with the key figures; and its end, the settings, timings and log."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from ..train.run_config import RunConfig
from ..train.run_folder import as_yaml
from .page import Markup, Section, folded, table, tag
from .run_files import Run, parsed_settings

_NO_DEFAULTS = ("object.", "capture", "data", "out")  # what a run is of, not how it is done


def header(run: Run) -> Markup:
    """Name, verdict with reasons, the figures that matter most, and what the run warns of."""
    summary, verdict = run.summary, run.summary["verdict"]
    tiles = [
        tag("div", tag("b", value), tag("span", name), class_="tile")
        for name, value in _figures(run)
        if value is not None
    ]
    reasons = [tag("li", reason) for reason in verdict["reasons"]]
    warnings = [tag("li", warning) for warning in summary["warnings"]]
    parts = [
        tag("h1", summary["name"], " ", tag("span", verdict["status"], class_=f"status {verdict['status']}")),
        tag("ul", *reasons, class_="reasons") if reasons else "",
        tag("div", *tiles, class_="tiles"),
        tag("p", f"Surface taken for {summary['surface']}: {summary['surface_reason']}.", class_="note"),
        tag("ul", *warnings, class_="warnings") if warnings else "",
    ]
    return Markup("".join(map(str, parts)))


def settings_and_log(run: Run) -> Iterator[Section]:
    """What was put in, what it cost, and everything that was said."""
    yield _capture(run)
    yield _cost(run)
    yield _settings(run)
    log = run.log
    body = folded(f"{len(log.splitlines())} lines", tag("pre", log))
    yield Section(id="log", title="Log", body=body, absent="" if log else "the run's folder has no log.")


def _figures(run: Run) -> Iterator[tuple[str, str | None]]:
    """(what it is, its value in words, None where the run does not know it)."""
    summary, figures = run.summary, run.summary["verdict"]["figures"]
    truth, mesh, size = summary["report"], summary["mesh"], summary["size_mm"]

    def number(value: float | None, digits: int, unit: str = "") -> str | None:
        return None if value is None else f"{value:.{digits}f}{unit}"

    if truth is not None:
        yield "Chamfer to the truth", number(truth["raw"]["chamfer_mm"], 3, " mm")
        yield "volume IoU", number(truth["raw"]["iou"], 4)
    yield "silhouette IoU, held out", number(figures["silhouette_iou"], 4)
    yield "PSNR, held out", number(figures["psnr_db"], 1, " dB")
    metric = summary["is_metric"]
    yield "depth residual", number(figures["depth_residual_mm"], 2, " mm") if metric else None
    yield (
        "of the surface observed",
        None if figures["observed_share"] is None else f"{100 * figures['observed_share']:.1f} %",
    )
    yield (
        "mesh",
        ("closed" if figures["is_closed"] else "not closed")
        + ("" if figures["n_bodies"] == 1 else f", {figures['n_bodies']} bodies"),
    )
    yield "size", None if size is None else " × ".join(f"{side:.1f}" for side in size) + " mm"
    yield "volume", number(mesh["volume_cm3"], 1, " cm³") if metric else None
    yield "unit", None if metric else "unscaled"
    yield "triangles", f"{mesh['n_faces']:,}"
    yield "calibration", summary["calibration"]
    yield "time", _duration(sum(summary["seconds"].values()))


def _capture(run: Run) -> Section:
    summary, capture = run.summary, run.capture
    counts = {s.name: sum(i.sensor == s.name for i in capture.images) for s in capture.sensors}
    rows = [
        ["folder", summary["capture"]],
        ["layout", capture.layout],
        ["images", f"{summary['n_images']} at {len(capture.frames)} stops or places"],
        ["sensors", ", ".join(f"{name} ({n})" for name, n in counts.items()) if len(counts) <= 40 else len(counts)],
        ["unit of the world", summary["unit"]],
    ]
    missing = [tag("li", line) for line in summary["left_out"]]
    lacks = (
        folded(f"{len(missing)} things it lacks or that were left out", tag("ul", *missing))
        if missing
        else tag("p", "Nothing of it was missing or left out.", class_="note")
    )
    return Section(id="capture", title="Capture", body=Markup(_facts(rows) + lacks))


def _cost(run: Run) -> Section:
    summary = run.summary
    seconds, memory = summary["seconds"], summary["peak_memory_mb"]
    longest = max(seconds.values(), default=1.0) or 1.0
    rows = [
        [
            stage,
            f"{s:.1f}",
            f"{memory.get(stage, math.nan):,.0f}",
            tag("span", tag("i", style=f"width:{100 * s / longest:.1f}%", class_="bar"), class_="track"),
        ]
        for stage, s in seconds.items()
    ]
    rows.append(["all", f"{sum(seconds.values()):.1f}", f"{max(memory.values(), default=math.nan):,.0f}", ""])
    told = table(["stage", "seconds", "most memory by its end, MB", ""], rows)
    note = tag("p", "Without this report, if the run wrote it: it was not finished then.", class_="note")
    versions = folded("versions", _facts(summary["versions"].items()))
    return Section(id="cost", title="Cost", body=Markup(told + note + versions))


def _settings(run: Run) -> Section:
    defaults = parsed_settings(as_yaml(RunConfig()))
    changed = [
        [key, _shown(value), _shown(defaults[key]) if key in defaults else None]
        for key, value in run.settings.items()
        if not key.startswith(_NO_DEFAULTS) and (key not in defaults or defaults[key] != value)
    ]
    differs = (
        table(["setting", "value", "default"], changed)
        if changed
        else tag("p", "Nothing differs from the defaults.", class_="note")
    )
    every = "\n".join(f"{key} = {_shown(value)}" for key, value in run.settings.items())
    body = differs + folded(f"all {len(run.settings)} settings", tag("pre", every))
    return Section(id="settings", title="Settings", body=Markup(body))


def _facts(rows) -> Markup:
    body = [tag("tr", tag("th", name, scope="row"), tag("td", value, class_="t")) for name, value in rows]
    return tag("div", tag("table", *body, class_="facts"), class_="scrolls")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
