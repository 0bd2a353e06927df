"""The surface benchmark's tables, from the cells that are there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .paired import Interval, paired_difference, ratio_of_means
from .report import table
from .surface_ablations import ABLATIONS
from .surface_cases import CAPTURE, MATERIALS, METHODS, OURS
from .surface_grid import Record

Figure = Callable[[Record], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A title, columns, rows, and what they mean."""

    title: str
    header: tuple[str, ...]
    rows: list[list[object]]
    note: str

    def as_text(self) -> str:
        return f"{self.title}\n{table(self.header, self.rows)}\n{self.note}\n"

    def as_markdown(self) -> str:
        """With bars between the columns, numbers flush right."""
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        cells = [["-" if cell is None else str(cell).replace("|", "\\|") for cell in line] for line in lines]
        return "\n".join([f"## {self.title}", "", *(f"| {' | '.join(line)} |" for line in cells), "", self.note, ""])


def tables_of(records: Sequence[Record]) -> list[Table]:
    """Means, ratios, parts taken away, each shape, and what failed; those that have rows."""
    made = [means(records), ratios(records), without(records), shapes(records), failures(records)]
    return [found for found in made if found.rows]


def means(records: Sequence[Record]) -> Table:
    """Of every method on every material, over the shapes."""
    rows: list[list[object]] = []
    for method, material in _pairs(records):
        chosen = _of(records, method, material)
        solid = [r for r in chosen if not r.cell.has_cavity]
        n_good = sum(r.error is None for r in chosen)
        rows.append(
            [
                f"{method}, {material}" if method not in ABLATIONS else f"ours without {method}, {material}",
                f"{n_good}/{len(chosen)}",
                *(_digits(_mean(chosen, _score(name)), 3) for name in ("chamfer_mm", "f_score_0_5mm")),
                _digits(_mean(chosen, _score("iou")), 4),
                f"{sum(bool(r.closed) for r in chosen)}/{n_good}",
                _digits(_mean(solid, _score("chamfer_mm")), 3),
                _digits(_mean(solid, _score("iou")), 4),
                _digits(_mean(chosen, lambda r: r.depth_auroc), 3),
                _digits(_mean(chosen, lambda r: r.psnr_db), 2),
                _percent(_mean(_of(records, CAPTURE, material), lambda r: r.bad_depth)),
                _digits(_mean(chosen, lambda r: r.total_s), 0),
            ]
        )
    return Table(
        title="Means over the shapes",
        header=(
            "method, material", "done", "Chamfer mm", "F@0.5mm", "IoU", "closed", "Chamfer mm (no cavity)",
            "IoU (no cavity)", "AUROC", "PSNR dB", "bad depth", "s",
        ),
        rows=rows,
        note="Done: captures without failure; failed ones are in no mean. Rows with other captures are compared below, "
        "on those that both have. No cavity: without the shapes that have a deep one. AUROC: of the inlier probability "
        "of depth readings, where a fit gives one. PSNR: of photographs that are held out, over their silhouettes. Bad "
        "depth: of the depth pixels on the object, those without a reading or more than 5 mm off. s: the whole process "
        "with evaluation.",
    )  # fmt: skip


def ratios(records: Sequence[Record]) -> Table:
    """Of the mean Chamfer distance on each material to that on matte, and of the baselines' to ours."""

    def ratio(one: list[Record], other: list[Record]) -> float | None:
        return ratio_of_means(*(by_shape(r, _score("chamfer_mm")) for r in on_the_same_captures(one, other)))

    rows: list[list[object]] = []
    for method, material in _pairs(records):
        if method in ABLATIONS:
            continue
        mine, matte, ours = (_of(records, m, of) for m, of in ((method, material), (method, "matte"), (OURS, material)))
        to_matte = None if material == "matte" else ratio(mine, matte)
        to_ours = None if method == OURS else ratio(mine, ours)
        if to_matte is not None or to_ours is not None:
            rows.append([f"{method}, {material}", _digits(to_matte, 2), _digits(to_ours, 2)])
    return Table(
        title="Ratios of mean Chamfer distances",
        header=("method, material", "to its matte", "to ours"),
        rows=rows,
        note="Over the shapes and seeds that both have.",
    )


def without(records: Sequence[Record]) -> Table:
    """Ours with a part off against ours, on the same captures."""
    rows: list[list[object]] = []
    for method, material in _pairs(records):
        if method not in ABLATIONS:
            continue

        changed, ours = on_the_same_captures(_of(records, method, material), _of(records, OURS, material))

        def compared(figure: Figure, changed: list[Record] = changed, ours: list[Record] = ours) -> Interval | None:
            return paired_difference(by_shape(changed, figure), by_shape(ours, figure))

        times, psnr = compared(_log_chamfer), compared(lambda record: record.psnr_db)
        if times is not None:
            as_ratio = Interval(
                mean=math.exp(times.mean),
                low=None if times.low is None else math.exp(times.low),
                high=None if times.high is None else math.exp(times.high),
                n=times.n,
            )
            differences = (compared(_score("chamfer_mm")), compared(_score("iou")), psnr)
            changes = [_interval(as_ratio, sign=""), *(_interval(difference) for difference in differences)]
            verdicts = verdict(times), verdict(psnr, more_is_better=True)
            rows.append([f"{method}, {material}", times.n, len(changed), *changes, *verdicts])
    return Table(
        title="Ours with one part off, against ours",
        header=(
            *("part off, material", "shapes", "captures", "Chamfer, times", "Chamfer mm", "IoU", "PSNR dB"),
            *("the surface", "the colours"),
        ),
        rows=rows,
        note="On the captures that both have, paired over the shapes (seeds averaged first), with 95 % intervals by "
        "Student's t: the geometric mean of the ratios of Chamfer distances, since these span an order of magnitude, "
        "and means of differences. The part helps or hurts the surface where the interval of the ratio excludes 1, "
        "the colours where that of the PSNR excludes 0.",
    )


def verdict(change: Interval | None, *, more_is_better: bool = False) -> str:
    """What the part does, by the change that its absence makes."""
    if change is None or not change.excludes_zero:
        return "unclear"
    return "helps" if (change.mean > 0) != more_is_better else "hurts"


def _log_chamfer(record: Record) -> float | None:
    chamfer = _score("chamfer_mm")(record)
    return None if chamfer is None else math.log(chamfer)


def shapes(records: Sequence[Record]) -> Table:
    """The Chamfer distance of each shape and material by each method."""
    methods = [m for m in METHODS if any(r.cell.method == m for r in records)]
    places = dict.fromkeys((r.cell.shape, r.cell.material) for r in records if r.cell.method != CAPTURE)
    rows: list[list[object]] = []
    for shape, material in places:
        chosen = [r for r in records if (r.cell.shape, r.cell.material) == (shape, material)]
        row: list[object] = [f"{shape}, {material}" + (" (cavity)" if chosen[0].cell.has_cavity else "")]
        for method in methods:
            of = [r for r in chosen if r.cell.method == method]
            row.append("failed" if of and all(r.error for r in of) else _digits(_mean(of, _score("chamfer_mm")), 3))
        rows.append(row)
    return Table(
        title="Chamfer distance in mm of each shape",
        header=("shape, material", *(f"without {m}" if m in ABLATIONS else m for m in methods)),
        rows=rows,
        note="Mean over the seeds that are there.",
    )


def failures(records: Sequence[Record]) -> Table:
    """What failed and why; it is tried again by the next call."""
    failed = [r for r in records if r.error is not None]
    return Table(
        title="Failed",
        header=("cell", "why"),
        rows=[[r.cell.name, (r.error or "")[:200]] for r in failed],
        note="Tried again on the next call.",
    )


def on_the_same_captures(one: Sequence[Record], other: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Of both, those of shapes and seeds at which neither failed."""
    shared = {_capture(r) for r in one if r.error is None} & {_capture(r) for r in other if r.error is None}
    return [r for r in one if _capture(r) in shared], [r for r in other if _capture(r) in shared]


def by_shape(records: Sequence[Record], figure: Figure) -> dict[str, float]:
    """A figure by shape, averaged over the seeds; shapes without it, and cells that failed, are left out."""
    values: dict[str, list[float]] = {}
    for record in records:
        if record.error is None and (found := figure(record)) is not None:
            values.setdefault(record.cell.shape, []).append(found)
    return {shape: float(np.mean(of)) for shape, of in values.items()}


def _capture(record: Record) -> tuple[str, int]:
    """Shape and seed; the material is the caller's."""
    return record.cell.shape, record.cell.seed


def _of(records: Sequence[Record], method: str, material: str) -> list[Record]:
    return [r for r in records if (r.cell.method, r.cell.material) == (method, material)]


def _pairs(records: Sequence[Record]) -> list[tuple[str, str]]:
    there = {(r.cell.method, r.cell.material) for r in records}
    return [(method, material) for method in METHODS for material in MATERIALS if (method, material) in there]


def _score(name: str) -> Figure:
    return lambda record: None if record.scores is None else record.scores[name]


def _mean(records: Sequence[Record], figure: Figure) -> float | None:
    """Over the shapes."""
    values = by_shape(records, figure)
    return float(np.mean(list(values.values()))) if values else None


def _digits(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.0f} %"


def _interval(found: Interval | None, sign: str = "+") -> str | None:
    if found is None:
        return None
    if found.low is None:
        return f"{found.mean:{sign}.4f}"
    return f"{found.mean:{sign}.4f} [{found.low:{sign}.4f}, {found.high:{sign}.4f}]"
