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
from itertools import takewhile
from typing import Any, get_args, get_type_hints

_LEAST_LIKENESS, _NEXT_TO_BEST, _ONLY_THE_TAIL = 0.65, 0.08, 0.1
_UNITS = {"_m": "m", "_mm": "mm", "_deg": "degrees", "_px": "pixels", "_s": "s", "_mb": "MB"}


def nearest(word: str, names: Iterable[str], *, count: int = 3) -> str:
    """ "; did you mean a or b?" for the names closest to a mistyped word, or "" if none is close.

    A name also counts by the last part of its path, so that `cheez_it` finds `bigbird/cheez_it`.
    """
    scores = {name: _likeness(word, name) for name in names}
    least = max(_LEAST_LIKENESS, max(scores.values(), default=0) - _NEXT_TO_BEST)
    found = sorted((name for name, score in scores.items() if score >= least), key=lambda n: -scores[n])[:count]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _likeness(word: str, name: str) -> float:
    """1 for the same name, a little less for the same last part."""
    tail, tail_of_name = (text.replace(".", "/").rpartition("/")[2] for text in (word, name))
    whole = difflib.SequenceMatcher(None, word, name).ratio()
    return max(whole, difflib.SequenceMatcher(None, tail, tail_of_name).ratio() - _ONLY_THE_TAIL)


def as_list(word: str, keys: Mapping[str, str]) -> str:
    """`object=a,b` as `objects=['a','b']`: for keys that are lists, as typed and as the setting is called.

    Example:
        >>> as_list("object=a,b", {"object": "objects"})
        "objects=['a','b']"
    """
    key, equals, value = word.partition("=")
    if key not in keys or not equals:
        return word
    names = [name.strip().strip("'\"") for name in value.strip().removeprefix("[").removesuffix("]").split(",")]
    return f"{keys[key]}=[{','.join(repr(name) for name in names if name)}]"


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
    for key, default, unit, note in described_keys(schema, groups):
        lines.append(f"  {key}={default}")
        text = f"{unit} {'' if note in told else note}".strip()
        told.add(note)
        lines += textwrap.wrap(text, 100, initial_indent="      ", subsequent_indent="      ")
    lines += [
        "",
        "-m key=a,b,c runs once for each value; --cfg job prints the settings and stops; --config-dir DIR adds a",
        "folder of your own object files (DIR/object/{set}/{name}.yaml). HYDRA_FULL_ERROR=1 shows tracebacks.",
    ]
    return "\n".join(lines)


def described_keys(schema: type, groups: Mapping[str, str], prefix: str = "") -> list[tuple[str, str, str, str]]:
    """(key, default as typed, unit or choices, description) of every setting, nested ones dotted."""
    hints, notes, rows = get_type_hints(schema), _notes(schema), []
    for item in fields(schema):
        key, hint, note = prefix + item.name, hints[item.name], notes.get(item.name, "")
        if key in groups:
            rows.append((key, groups[key], "", f"{note} `python -m neuralrecon.objects` lists the names.".strip()))
        elif isinstance(hint, type) and is_dataclass(hint):
            rows += described_keys(hint, groups, f"{key}.")
        else:
            rows.append((key, _as_typed(_default(item)), _unit_or_choices(item.name, hint), note))
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


def _unit_or_choices(name: str, hint: Any) -> str:
    for suffix, unit in _UNITS.items():
        if name.endswith(suffix):
            return f"[{unit}]"
    choices = [str(m.value) for t in (hint, *get_args(hint)) if isinstance(t, type) and issubclass(t, Enum) for m in t]
    return f"{{{'|'.join(choices)}}}" if choices else ""


def _notes(schema: type) -> dict[str, str]:
    """What the source says of each field: the comment beside or above it, else the docstring sentences that name it."""
    notes: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        if is_dataclass(cls):
            beside = _notes_of_source(textwrap.dedent(inspect.getsource(cls)))
            notes |= {name: note or _sentences_on(name, cls.__doc__ or "") for name, note in beside.items()}
    return notes


def _sentences_on(name: str, docstring: str) -> str:
    """What the docstring lists under `Attributes:` for a field, else its sentences with the name in backticks."""
    rows = inspect.cleandoc(docstring).splitlines()
    for index, row in enumerate(rows):
        listed, _, text = row.strip().partition(": ")
        if text and any(fnmatch(name, word) for word in listed.split(", ")):
            depth = len(row) - len(row.lstrip())
            more = takewhile(lambda r, d=depth: r.strip() and len(r) - len(r.lstrip()) > d, rows[index + 1 :])
            return " ".join([text, *(r.strip() for r in more)])
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z`])", " ".join(rows))
    return " ".join(s for s in sentences if any(fnmatch(name, word) for word in re.findall(r"`([\w*]+)`", s)))


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
