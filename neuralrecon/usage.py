"""Words for the command line: nearest valid names, and a help text made from a configuration dataclass."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from fnmatch import fnmatch
from typing import Any, get_args, get_type_hints

_UNITS = {"_m": "m", "_mm": "mm", "_deg": "degrees", "_px": "pixels", "_s": "s", "_mb": "MB"}


def nearest(word: str, names: Iterable[str], *, count: int = 3) -> str:
    """ "; did you mean a or b?" for the names closest to a mistyped word, or "" if none is close.

    A name also counts by the last part of its path, so that `cheez_it` finds `bigbird/cheez_it`.
    """
    by_tail: dict[str, list[str]] = {}
    for name in names:
        for key in {name, name.replace(".", "/").split("/")[-1]}:
            by_tail.setdefault(key, []).append(name)
    close = difflib.get_close_matches(word, by_tail, n=count, cutoff=0.6)
    tail = difflib.get_close_matches(word.replace(".", "/").split("/")[-1], by_tail, n=count, cutoff=0.8)
    found = list(dict.fromkeys(name for key in [*close, *tail] for name in by_tail[key]))[:count]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def help_text(
    *,
    name: str,
    schema: type,
    about: str,
    examples: Sequence[tuple[str, str]],
    groups: Mapping[str, str],
) -> str:
    """What `python -m neuralrecon.NAME --help` prints: purpose, examples, every key with its default and unit."""
    lines = [
        textwrap.dedent(about).strip(),
        "",
        f"Usage: python -m neuralrecon.{name} [key=value ...]",
        "",
        "Examples:",
    ]
    lines += [
        f"  python -m neuralrecon.{name} {arguments}".rstrip() + f"\n      {what}" for arguments, what in examples
    ]
    lines += ["", "Keys, with their defaults:"]
    told: set[str] = set()
    for key, default, note in described_keys(schema, groups):
        lines.append(f"  {key}={default}")
        if note and note not in told:
            told.add(note)
            lines += textwrap.wrap(note, 100, initial_indent="      ", subsequent_indent="      ")
    lines += [
        "",
        "-m key=a,b,c runs once for each value; --cfg job prints the settings and stops; --config-dir DIR adds a",
        "folder of your own object files (DIR/object/{set}/{name}.yaml). HYDRA_FULL_ERROR=1 shows tracebacks.",
    ]
    return "\n".join(lines)


def described_keys(schema: type, groups: Mapping[str, str], prefix: str = "") -> list[tuple[str, str, str]]:
    """(key, default as typed, description with unit and choices) of every setting, nested ones dotted."""
    hints, notes, rows = get_type_hints(schema), _notes(schema), []
    for item in fields(schema):
        key, hint, note = prefix + item.name, hints[item.name], notes.get(item.name, "")
        if key in groups:
            rows.append((key, groups[key], f"{note} `python -m neuralrecon.objects` lists the names.".strip()))
        elif isinstance(hint, type) and is_dataclass(hint):
            rows += described_keys(hint, groups, f"{key}.")
        else:
            rows.append((key, _as_typed(_default(item)), _with_unit(item.name, hint, note)))
    return rows


def _default(item: Any) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default


def _as_typed(value: Any) -> str:
    if value is MISSING:
        return "(needed)"
    if isinstance(value, list | tuple):
        return f"[{','.join(_as_typed(v) for v in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value.value if isinstance(value, Enum) else value)


def _with_unit(name: str, hint: Any, note: str) -> str:
    unit = next((u for suffix, u in sorted(_UNITS.items(), key=lambda i: -len(i[0])) if name.endswith(suffix)), "")
    choices = [str(m.value) for t in (hint, *get_args(hint)) if isinstance(t, type) and issubclass(t, Enum) for m in t]
    parts = [f"[{unit}]" if unit else "", f"{{{'|'.join(choices)}}}" if choices else "", note]
    return " ".join(part for part in parts if part)


def _notes(schema: type) -> dict[str, str]:
    """What the source says of each field: the comment beside or above it, else the docstring sentences that name it."""
    notes: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        if is_dataclass(cls):
            beside = _notes_of_source(textwrap.dedent(inspect.getsource(cls)))
            notes |= {name: note or _sentences_on(name, cls.__doc__ or "") for name, note in beside.items()}
    return notes


def _sentences_on(name: str, docstring: str) -> str:
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z`])", " ".join(docstring.split()))
    said = [s for s in sentences if any(fnmatch(name, word) for word in re.findall(r"`([\w*]+)`", s))]
    return " ".join(said)


def _notes_of_source(source: str) -> dict[str, str]:
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    rows, notes = source.splitlines(), {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            beside = rows[(node.end_lineno or node.lineno) - 1].partition("  # ")[2]
            notes[node.target.id] = beside.strip() or _comment_above(rows, node.lineno - 1)
    return notes


def _comment_above(rows: list[str], index: int) -> str:
    comment: list[str] = []
    while index > 0 and rows[index - 1].lstrip().startswith("#"):
        index -= 1
        comment.insert(0, rows[index].lstrip(" #"))
    return " ".join(comment)
