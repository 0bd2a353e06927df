"""All objects in one table: results.csv, results.html and, where pyarrow is installed, results.parquet."""

from __future__ import annotations

import csv
import html
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from ..files import replacing
from ..train.verdict import Figures
from .outcome import RUNS, Outcome, Status

CSV_FILE, HTML_FILE, PARQUET_FILE = "results.csv", "results.html", "results.parquet"
MISSING = "missing"
_FIGURES = [item.name for item in fields(Figures)]
COLUMNS = ["name", "status", "reasons", "stage", "error", *_FIGURES, "seconds", "attempts", "folder"]
Cell = str | float | bool | int | None
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Results</title><style>
body {{ font: 14px sans-serif; margin: 2em }} table {{ border-collapse: collapse }}
th, td {{ padding: .25em .7em; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top }}
th {{ cursor: pointer; position: sticky; top: 0; background: #fff }} td.n {{ text-align: right }}
.ok {{ color: #070 }} .poor {{ color: #950 }} .failed {{ color: #b00 }} .missing {{ color: #777 }}
</style></head><body><h1>{title}</h1><table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table><script>
for (const th of document.querySelectorAll("th")) th.onclick = () => {{
  const i = th.cellIndex, body = document.querySelector("tbody"), up = th.dataset.up !== "1";
  const key = row => row.cells[i].dataset.v ?? row.cells[i].textContent;
  const ahead = (a, b) => isNaN(a) || isNaN(b) ? (a > b) - (a < b) : a - b;
  const order = (a, b) => a === "" ? 1 : b === "" ? -1 : up ? ahead(a, b) : ahead(b, a);
  th.dataset.up = up ? "1" : "0";
  body.append(...[...body.rows].sort((a, b) => order(key(a), key(b))));
}};
</script></body></html>
"""


def write_results(names: Sequence[str], outcomes: Mapping[str, Outcome], out: Path) -> None:
    """One row for each name, `missing` where there is no outcome yet. Each file is whole at every moment."""
    rows = [_row(name, outcomes.get(name)) for name in sorted(names)]
    with replacing(out / CSV_FILE) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with replacing(out / HTML_FILE) as temporary:
        temporary.write_text(_page(rows))
    _write_parquet(rows, out / PARQUET_FILE)


def _row(name: str, outcome: Outcome | None) -> dict[str, Cell]:
    if outcome is None:
        empty: dict[str, Cell] = dict.fromkeys(COLUMNS)
        return {**empty, "name": name, "status": MISSING}
    told: dict[str, Cell] = {column: getattr(outcome, column) for column in COLUMNS if hasattr(outcome, column)}
    figures = {figure: outcome.figures.get(figure) for figure in _FIGURES}
    text = {"status": outcome.status.value, "reasons": "; ".join(outcome.reasons), "folder": f"{RUNS}/{name}"}
    return {column: (told | figures | text)[column] for column in COLUMNS}


def _page(rows: Sequence[Mapping[str, Cell]]) -> str:
    counts = {s: sum(row["status"] == s for row in rows) for s in [*(status.value for status in Status), MISSING]}
    return _PAGE.format(
        title=f"{len(rows)} objects: " + ", ".join(f"{n} {status}" for status, n in counts.items()),
        head="".join(f"<th>{column.replace('_', ' ')}</th>" for column in COLUMNS),
        rows="\n".join(f"<tr>{''.join(_cell(column, row[column]) for column in COLUMNS)}</tr>" for row in rows),
    )


def _cell(column: str, value: Cell) -> str:
    if isinstance(value, float):
        return f'<td class="n" data-v="{value!r}">{value:.4g}</td>'
    text = "" if value is None else html.escape(str(value))
    if column == "status":
        return f'<td class="{text}">{text}</td>'
    if column == "folder" and text:
        return f'<td><a href="{text}">{text}</a></td>'
    return f"<td>{text}</td>"


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
