"""All objects in one table: results.csv, results.html and, where pyarrow is installed, results.parquet."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from ..files import replacing
from ..report import GalleryItem, gallery_page
from ..train.run_folder import PREVIEW_FILE, REPORT_FILE
from ..train.verdict import Figures
from .outcome import RUNS, Outcome, Status

CSV_FILE, HTML_FILE, PARQUET_FILE = "results.csv", "results.html", "results.parquet"
MISSING = "missing"
_FIGURES = [item.name for item in fields(Figures)]
COLUMNS = ["name", "status", "reasons", "stage", "error", *_FIGURES, "seconds", "attempts", "folder"]
# what the page shows of an object, in its order
_LABELS = {
    **{name: name.replace("_", " ").replace("iou", "IoU").replace("psnr db", "PSNR dB") for name in _FIGURES},
    "is_closed": "closed",
    "n_bodies": "bodies",
    **{name: name for name in ("seconds", "attempts", "stage", "error")},
}
Cell = str | float | bool | int | None


def write_results(names: Sequence[str], outcomes: Mapping[str, Outcome], out: Path) -> None:
    """One row for each name, `missing` where there is no outcome yet. Each file is whole at every moment."""
    rows = [_row(name, outcomes.get(name)) for name in sorted(names)]
    with replacing(out / CSV_FILE) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with replacing(out / HTML_FILE) as temporary:
        temporary.write_text(_page(rows, outcomes, out), encoding="utf-8")
    _write_parquet(rows, out / PARQUET_FILE)


def _row(name: str, outcome: Outcome | None) -> dict[str, Cell]:
    if outcome is None:
        empty: dict[str, Cell] = dict.fromkeys(COLUMNS)
        return {**empty, "name": name, "status": MISSING}
    told: dict[str, Cell] = {column: getattr(outcome, column) for column in COLUMNS if hasattr(outcome, column)}
    figures = {figure: outcome.figures.get(figure) for figure in _FIGURES}
    text = {"status": outcome.status.value, "reasons": "; ".join(outcome.reasons), "folder": f"{RUNS}/{name}"}
    return {column: (told | figures | text)[column] for column in COLUMNS}


def _page(rows: Sequence[Mapping[str, Cell]], outcomes: Mapping[str, Outcome], out: Path) -> str:
    return gallery_page(out.resolve().name, [_item(row, outcomes.get(str(row["name"])), out) for row in rows])


def _item(row: Mapping[str, Cell], outcome: Outcome | None, out: Path) -> GalleryItem:
    folder = str(row["folder"]) if row["folder"] else None

    def there(name: str) -> str | None:
        return f"{folder}/{name}" if folder and (out / folder / name).is_file() else None

    failed = outcome is not None and outcome.status == Status.failed
    return GalleryItem(
        name=str(row["name"]),
        status=str(row["status"]),
        reasons=outcome.reasons if outcome is not None else (),
        figures={label: row[column] for column, label in _LABELS.items()},
        folder=folder,
        # a failed object's folder may hold what an earlier run left
        picture=None if failed else there(PREVIEW_FILE),
        report=None if failed else there(REPORT_FILE),
    )


def _write_parquet(rows: Sequence[Mapping[str, Cell]], path: Path) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        return
    kinds = {
        name: pa.float64() for name in ("silhouette_iou", "psnr_db", "depth_residual_mm", "observed_share", "seconds")
    }
    kinds |= {"is_closed": pa.bool_(), "n_bodies": pa.int64(), "attempts": pa.int64()}
    schema = pa.schema([(column, kinds.get(column, pa.string())) for column in COLUMNS])
    with replacing(path) as temporary:
        parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema), temporary)
