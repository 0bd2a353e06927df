"""All objects of a sweep on one page: pictures, verdicts, figures; to sort, to filter, to read as cards or a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from .page import Markup, document, tag

_STATUSES = ("ok", "poor", "failed", "missing")
_ASSETS = ("page.css", "gallery.css", "gallery.js")
Value = str | float | bool | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryItem:
    """One object. `folder`, `picture` and `report` are paths from the page's own place, None for what is not there.

    `figures` are shown in their order, the same for all objects; `reasons` say why the status is what it is.
    """

    name: str
    status: str
    reasons: Sequence[str]
    figures: Mapping[str, Value]
    folder: str | None
    picture: str | None
    report: str | None


def gallery_page(title: str, items: Sequence[GalleryItem]) -> str:
    """The page; it loads the pictures beside it as they come into sight, and nothing else."""
    columns = list(dict.fromkeys(name for item in items for name in item.figures))
    counts = Counter(item.status for item in items)
    told = f"{len(items)} objects: " + ", ".join(f"{counts[status]} {status}" for status in _STATUSES)
    head = tag(
        "tr",
        *(tag("th", tag("button", name, type="button"), scope="col", aria_sort="none")
          for name in ("name", "status", "reasons", *columns)),
    )  # fmt: skip
    rows = [_row(item, columns) for item in items]
    header = [tag("h1", title), tag("p", told, id="told"), _controls(counts, columns)]
    body = tag("table", tag("thead", head), tag("tbody", *rows), id="objects", class_="cards-of")
    page = document(title, header, [], assets=_ASSETS, images="'self' file: data:")
    return page.replace("<main></main>", tag("main", body, tag("p", "", id="none", hidden="")), 1)


def _controls(counts: Counter[str], columns: Sequence[str]) -> Markup:
    chips = [
        tag(
            "button",
            f"{status} {counts[status]}",
            type="button",
            class_=status,
            data_status=status,
            aria_pressed="true",
        )
        for status in _STATUSES
        if counts[status]
    ]
    keys = [tag("option", name, value=i) for i, name in enumerate(["name", "status", "reasons", *columns])]
    return tag(
        "div",
        tag("input", type="search", id="words", placeholder="name or reason", aria_label="filter by name or reason"),
        tag("span", *chips, class_="chips", role="group", aria_label="filter by status"),
        tag("label", "sort by ", tag("select", *keys, id="key")),
        tag("button", "↑", type="button", id="way", aria_label="ascending"),
        tag("button", "as a table", type="button", id="form"),
        class_="buttons",
    )


def _row(item: GalleryItem, columns: Sequence[str]) -> Markup:
    picture = (
        tag("img", src=quote(item.picture), alt="", loading="lazy", width=160, height=160)
        if item.picture
        else tag("span", "no picture", class_="nothing")
    )
    name = tag("span", item.name, class_="name")
    target = item.report or item.folder
    if target:
        picture, name = tag("a", picture, href=quote(target), tabindex="-1"), tag("a", name, href=quote(target))
    cells = [
        tag("td", picture, name, class_="who", data_value=item.name),
        tag("td", tag("span", item.status, class_=f"status {item.status}"), data_value=item.status),
        tag("td", *(tag("span", reason, class_="reason") for reason in item.reasons), class_="why"),
        *(_cell(column, item.figures.get(column)) for column in columns),
    ]
    return tag("tr", *cells, data_status=item.status)


def _cell(column: str, value: Value) -> Markup:
    attributes = {"class_": "n", "data_name": column}
    if value is None or value == "":
        return tag("td", "", **attributes, data_value="")
    if isinstance(value, bool):
        return tag("td", "yes" if value else "no", **attributes, data_value=int(value))
    if isinstance(value, float):
        return tag("td", f"{value:.4g}", **attributes, data_value=repr(value))
    return tag("td", value, **attributes, data_value=value)
