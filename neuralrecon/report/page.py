"""HTML that is escaped by type: a text is put in as a text, only `Markup` stands as it is."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ASSETS = Path(__file__).parent / "assets"
_VOID = {"img", "br", "meta", "input", "link"}
_NO_NETWORK = "default-src 'none'; img-src {images}; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Markup(str):
    """HTML that may stand as it is."""

    __slots__ = ()


def put(value: object) -> Markup:
    """Anything as HTML: texts escaped, None as a dash, several things one after the other."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, list | tuple):
        return Markup("".join(put(item) for item in value))
    return Markup(html.escape("–" if value is None else str(value)))


def tag(name: str, /, *content: object, **attributes: object) -> Markup:
    """An element; a trailing underscore of an attribute's name is dropped, other ones become hyphens.

    Example:
        >>> tag("td", "a < b", class_="n")
        '<td class="n">a &lt; b</td>'
    """
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{told}>" if name in _VOID else f"<{name}{told}>{put(content)}</{name}>")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, first_is_text: bool = True) -> Markup:
    """A table whose columns, but for the first, are numbers and stand flush right."""
    kinds = ["t" if first_is_text and i == 0 else "n" for i in range(len(head))]
    body = [tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True))) for row in rows]
    heads = [tag("th", cell, class_=kind, scope="col") for cell, kind in zip(head, kinds, strict=True)]
    return tag(
        "div", tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *body)), class_="scrolls", tabindex="0"
    )


def picture(uri: str, alt: str, caption: object = None) -> Markup:
    """A picture, with words under it if there are any."""
    image = tag("img", src=uri, alt=alt, decoding="async")
    return tag("figure", image, *([] if caption is None else [tag("figcaption", caption)]))


def folded(title: object, *content: object) -> Markup:
    """What is shown when its title is clicked."""
    return tag("details", tag("summary", title), *content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page; what it shows, or why it is `absent`."""

    id: str
    title: str
    body: str = ""
    absent: str = ""

    def shown(self) -> Markup:
        body = tag("p", "Left out: ", self.absent, class_="absent") if self.absent else Markup(self.body)
        return tag("section", tag("h2", self.title), body, id=self.id)


def document(
    title: str, header: object, sections: Sequence[Section], *, assets: Sequence[str], images: str = "data:"
) -> str:
    """A whole page. `assets` are the names of our own style sheets and scripts, which it carries in itself.

    Args:
        images: where pictures may come from; everything else that a page could fetch is forbidden to it.
    """
    links = [tag("a", section.title, href=f"#{section.id}") for section in sections]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_NO_NETWORK.format(images=images)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        *(tag("style", Markup(_asset(name))) for name in assets if name.endswith(".css")),
    ]
    body = [
        tag("header", header),
        tag("nav", *links) if links else "",
        tag("main", *(section.shown() for section in sections)),
        *(tag("script", Markup(_asset(name))) for name in assets if name.endswith(".js")),
    ]
    return f"<!doctype html>\n{tag('html', tag('head', *head), tag('body', *body), lang='en')}\n"


def data_block(id: str, value: Any) -> Markup:
    """A value for a script to read, as JSON in which nothing can end the block."""
    told = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    return tag("script", Markup(told), type="application/json", id=id)


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
