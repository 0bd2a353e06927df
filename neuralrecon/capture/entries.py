"""Strict reading of one JSON object: every value has its type, no key is unknown, every error says where."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import CaptureError

_MISSING: Any = object()
_LONGEST_KEY = 60


@dataclass(slots=True)
class Entry:
    """A JSON object and its place in the file, such as ``/data/mug/capture.json: sensors[2]``.

    Take what is wanted by name and type, then call `finish`. A default makes a key optional.
    """

    values: Mapping[str, Any]
    where: str
    taken: set[str] = field(default_factory=set)

    @staticmethod
    def of(value: Any, where: str) -> Entry:
        if not isinstance(value, dict):
            raise CaptureError(f"{where} is {_shown(value)}, want an object {{...}}; correct the file")
        return Entry(value, where)

    def text(self, key: str, default: Any = _MISSING) -> Any:
        return self._take(key, default, "a text that is not empty", lambda v: v != "" and _is_text(v))

    def flag(self, key: str, default: Any = _MISSING) -> Any:
        return self._take(key, default, "true or false", lambda v: isinstance(v, bool))

    def count(self, key: str, default: Any = _MISSING) -> Any:
        return self._take(key, default, "a whole number of 1 or more", lambda v: type(v) is int and v >= 1)

    def number(self, key: str, default: Any = _MISSING) -> Any:
        value = self._take(key, default, "a finite number", _is_number)
        return default if value is default else float(value)

    def numbers(self, key: str, n: int, default: Any = _MISSING) -> Any:
        value = self._take(key, default, f"a list of {n} finite numbers", lambda v: _is_vector(v, n))
        return default if value is default else tuple(float(x) for x in value)

    def matrix(self, key: str) -> list[list[float]]:
        return self._take(
            key,
            _MISSING,
            "a 4 x 4 matrix (list of rows) of finite numbers",
            lambda v: isinstance(v, list) and len(v) == 4 and all(_is_vector(row, 4) for row in v),
        )

    def texts(self, key: str, default: Any = _MISSING) -> Any:
        return self._take(
            key, default, "a list of texts", lambda v: isinstance(v, list) and all(_is_text(x) for x in v)
        )

    def entries(self, key: str) -> Iterator[Entry]:
        items = self._take(key, _MISSING, "a list that is not empty", lambda v: isinstance(v, list) and len(v) > 0)
        root = self.where.removesuffix(": the file")
        return (Entry.of(item, f"{root}: {key}[{i}]") for i, item in enumerate(items))

    def finish(self) -> None:
        """Refuse keys that nobody asked for: a mistyped optional key must not be silent."""
        for key in self.values.keys() - self.taken:
            near = get_close_matches(key[:_LONGEST_KEY], self.taken, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(self.taken))}"
            raise CaptureError(f"{self.where} has the unknown key {_shown(key)}; {hint}")

    def _take(self, key: str, default: Any, want: str, is_right: Any) -> Any:
        self.taken.add(key)
        value = self.values.get(key, default)
        if value is _MISSING:
            raise CaptureError(f"{self.where} has no {key!r}, want {want}; add it")
        if value is not default and not is_right(value):
            raise CaptureError(f"{self.where} has {key!r} = {_shown(value)}, want {want}; correct it")
        return value


def confined(text: str, root: Path, where: str) -> Path:
    """The path that a file names relative to `root`, which it must not leave.

    Raises:
        CaptureError: it is absolute, or leads out of `root`.
    """
    path = PurePosixPath(text)
    inside = not path.is_absolute() and ".." not in path.parts and "\0" not in text and "\\" not in text
    if not inside or not (root / path).resolve().is_relative_to(root.resolve()):
        raise CaptureError(f"{where} has the path {text!r}, want one relative to and inside of {root}; move the file")
    return root / path


def _is_text(value: Any) -> bool:
    """JSON can say half of a pair of surrogates, which no file's name and no screen takes."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def _is_vector(value: Any, n: int) -> bool:
    return isinstance(value, list) and len(value) == n and all(_is_number(x) for x in value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
