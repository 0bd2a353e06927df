"""Charts as SVG in the page: curves, marks on a line, histograms, bars. They take the page's text colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from .page import Markup, tag

_BINS = 160
_WIDTH, _HEIGHT = 240, 122
_LEFT, _BOTTOM, _TOP = 44, 16, 18


def curve(title: str, steps: Float[np.ndarray, "steps"], values: Float[np.ndarray, "steps"]) -> Markup:
    """A loss over the steps, on a logarithmic scale if it is positive: medians of bins, with the 10 to 90 % band."""
    known = np.isfinite(values)
    steps, last_step, values = steps[known], float(steps[-1]), values[known]
    bins = np.array_split(np.arange(len(values)), min(_BINS, len(values)))
    low, middle, high = np.array([np.percentile(values[b], (10, 50, 90)) for b in bins]).T
    at = np.array([steps[b].mean() for b in bins])
    floor = max(float(middle.max()) * 1e-5, 1e-12)
    logarithmic = bool(values.max() > 0)
    low, middle, high = (np.log10(np.maximum(x, floor)) if logarithmic else x for x in (low, middle, high))
    bottom, top = _range(low, high, middle)
    x = _LEFT + at / max(last_step, 1) * (_WIDTH - _LEFT - 4)
    y_of = _scale(bottom, top)
    line = "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y_of(middle), strict=True))
    there = list(zip(x, y_of(high), strict=True))
    back = list(zip(x[::-1], y_of(low)[::-1], strict=True))
    band = "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in [*there, *back]) + "Z"
    return _svg(
        f"{title}: {values[-1]:.3g} at the end",
        _axis([(bottom, top)[i] for i in (0, 1)], y_of, logarithmic),
        tag("text", f"{last_step:.0f}", x=_WIDTH - 4, y=_HEIGHT - 3, class_="end"),
        tag("path", d=band, class_="band"),
        tag("path", d=line, class_="line"),
        tag("text", title, x=_LEFT, y=11, class_="name"),
    )


def strips(values: Mapping[str, Sequence[float]], unit: str, most_rows: int = 24) -> Markup:
    """A line for each name with a mark for each of its values; all in one line if there are more names than that."""
    rows = values if len(values) <= most_rows else {"all": [v for of_name in values.values() for v in of_name]}
    every = np.array([v for of_name in rows.values() for v in of_name])
    low, high = float(every.min()), float(every.max())
    low, high = low - 0.02 * (high - low or 1e-3), high + 0.02 * (high - low or 1e-3)
    left, right, pitch = 90, 640, 16
    parts = []
    for i, (name, of_name) in enumerate(rows.items()):
        y = 10 + i * pitch
        xs = left + (np.array(of_name) - low) / (high - low) * (right - left)
        parts += [tag("text", name, x=left - 8, y=y + 4, class_="end")]
        parts += [tag("line", x1=left, x2=right, y1=y, y2=y, class_="axis")]
        parts += [tag("path", d="".join(f"M{x:.1f},{y - 5}v10" for x in xs), class_="mark")]
    bottom = 10 + len(rows) * pitch + 8
    parts += [
        tag("text", f"{low:.4g}", x=left, y=bottom),
        tag("text", f"{high:.4g} {unit}", x=right, y=bottom, class_="end"),
    ]
    return tag(
        "svg", *parts, viewBox=f"0 0 660 {bottom + 4}", class_="chart broad", role="img", aria_label=f"{unit} of all"
    )


def histogram(values: Float[np.ndarray, "n"], limit: float, unit: str, n_bins: int = 81) -> Markup:
    """Of signed values from -limit to limit; what is beyond counts in the outermost bins."""
    counts, edges = np.histogram(np.clip(values, -limit, limit), bins=n_bins, range=(-limit, limit))
    width, height = 660, 150
    tall = counts / max(counts.max(), 1) * (height - 26)
    step = width / n_bins
    bars = "".join(
        f"M{i * step:.1f},{height - 18}v{-t:.1f}h{step - 1:.1f}v{t:.1f}z" for i, t in enumerate(tall) if t > 0
    )
    labels = [
        tag("text", f"≤ −{limit:.3g}", x=2, y=height - 4),
        tag("text", "0", x=width / 2, y=height - 4, class_="middle"),
        tag("text", f"≥ {limit:.3g} {unit}", x=width - 2, y=height - 4, class_="end"),
    ]
    zero = tag("line", x1=width / 2, x2=width / 2, y1=4, y2=height - 18, class_="axis")
    told = f"histogram of {len(values)} values, bins of {edges[1] - edges[0]:.3g} {unit}"
    return tag(
        "svg", tag("path", d=bars, class_="bars"), zero, *labels, viewBox=f"0 0 {width} {height}",
        class_="chart broad", role="img", aria_label=told,
    )  # fmt: skip


def stacked(shares: Sequence[tuple[str, float]]) -> Markup:
    """One bar of shares of a whole, each of a colour of a style sheet."""
    parts = [
        tag("i", style=f"width:{100 * share:.2f}%;background:{color}", title=f"{100 * share:.1f} %")
        for color, share in shares
        if share > 0
    ]
    return tag("div", *parts, class_="stacked")


def _range(low, high, middle) -> tuple[float, float]:
    bottom, top = float(np.percentile(low, 2)), float(max(np.percentile(high, 99), middle.max()))
    room = 0.05 * (top - bottom) or 0.1
    return bottom - room, top + room


def _scale(bottom: float, top: float):
    return lambda y: _TOP + (top - np.clip(y, bottom, top)) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)


def _axis(ends: Sequence[float], y_of, logarithmic: bool) -> list[Markup]:
    """Lines at the powers of ten, or at both ends where none lies between."""
    inside = [float(n) for n in range(int(np.ceil(ends[0])), int(np.floor(ends[1])) + 1)] if logarithmic else []
    marks = inside[:: max(1, len(inside) // 4)] if len(inside) > 1 else list(ends)
    lines = []
    for mark in marks:
        y = float(y_of(np.array(mark)))
        lines.append(tag("line", x1=_LEFT, x2=_WIDTH - 4, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="axis"))
        text = f"{10**mark:.0e}".replace("e-0", "e−").replace("e+0", "e") if logarithmic else f"{mark:.3g}"
        lines.append(tag("text", text, x=_LEFT - 4, y=f"{y + 3.5:.1f}", class_="end"))
    return lines


def _svg(told: str, *parts: object) -> Markup:
    return tag("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", class_="chart", role="img", aria_label=told)
