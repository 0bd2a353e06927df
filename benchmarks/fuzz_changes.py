"""Changes of a file's bytes, of its words and of what its JSON says, drawn from a generator."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]

HEADER = 600
_WHOLE = (0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 24, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, 2**63)
_WORDS = (
    *("0", "-1", "1", "2", "255", "65536", "100000", "2147483648", "4294967295", "18446744073709551616", "9" * 400),
    *("1e308", "-1e308", "1e999", "nan", "inf", "-inf", "NaN", "1e-320", "0.0", "-0.0", "1_0", "٣", "²", "x", "", "%s"),
    *("..", "../../x", "/etc/passwd", "a\0b", "null", "true", "[]", "{}", "\ud800".encode("utf-8", "replace").decode()),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 10**6, 2**31, 2**63, 10**30, 1e300, -1e300, 1e-300, float("nan"), float("inf")),
    *("", "x", "0", "..", "../../x", "/dev/null", "a\0b", "\ud83d", "x" * 5000, [], {}, [[]], [0], [1, 2, 3], {"": 0}),
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def changed_bytes(data: bytes, rng: Random) -> bytes:
    """One change of any file."""
    return rng.choice(_OF_BYTES)(data, rng) if data else bytes(rng.randrange(256) for _ in range(rng.randrange(64)))


def _at(data: bytes, rng: Random) -> int:
    """A place, in half of the cases near the front, where headers are."""
    return rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), HEADER))


def flip(data: bytes, rng: Random) -> bytes:
    """A few bits, as bad memory and old disks do."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        out[_at(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def _number(data: bytes, rng: Random) -> bytes:
    """A whole number of 1 to 8 bytes, such as a length or a count, becomes another, often a huge one."""
    size, at = rng.choice((1, 2, 4, 4, 8, 8)), _at(data, rng)
    order = rng.choice(("little", "little", "big"))
    if rng.random() < 0.3:
        value = int.from_bytes(data[at : at + size], order) + rng.choice((-8, -2, -1, 1, 2, 8))
    else:
        value = rng.choice(_WHOLE) - rng.randrange(2)
    return data[:at] + (value % (1 << 8 * size)).to_bytes(size, order) + data[at + size :]


def _cut(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _without(data: bytes, rng: Random) -> bytes:
    at = _at(data, rng)
    return data[:at] + data[at + rng.randrange(1, 65) :]


def _twice(data: bytes, rng: Random) -> bytes:
    at = _at(data, rng)
    piece = data[at : at + rng.randrange(1, 257)]
    return data[:at] + piece * rng.choice((2, 2, 3, 40)) + data[at + len(piece) :]


def _zeroed(data: bytes, rng: Random) -> bytes:
    """A block that never reached the disk."""
    at, size = _at(data, rng), rng.choice((1, 8, 64, 512, 4096))
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def random_bytes(data: bytes, rng: Random) -> bytes:
    """A few bytes overwritten or put in."""
    at, piece = _at(data, rng), rng.randbytes(rng.randrange(1, 33))
    return data[:at] + piece + data[at + rng.choice((0, len(piece))) :]


def _longer(data: bytes, rng: Random) -> bytes:
    return data + rng.choice((bytes(rng.randrange(1, 5000)), rng.randbytes(rng.randrange(1, 200)), data))


def spliced(data: bytes, other: bytes, rng: Random) -> bytes:
    """The front of the one, the rest of the other."""
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


_OF_BYTES: tuple[Mutation, ...] = (
    *(flip, flip, flip, _number, _number, _number, _cut, _without, _twice, _zeroed, random_bytes, _longer),
)


def changed_text(data: bytes, rng: Random) -> bytes:
    """One change of what a text says; of JSON often one that leaves it JSON."""
    if data[:1] in b"{[" and rng.random() < 0.7:
        try:
            return changed_json(json.loads(data), rng)
        except (ValueError, RecursionError):
            pass  # an earlier change has made it none
    return rng.choice((other_number, other_number, _other_word, _lines))(data, rng)


def other_number(data: bytes, rng: Random) -> bytes:
    """A number becomes another word."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return data + rng.choice(_WORDS).encode()
    match = rng.choice(found if rng.random() < 0.5 else found[:8])
    return data[: match.start()] + rng.choice(_WORDS).encode() + data[match.end() :]


def _other_word(data: bytes, rng: Random) -> bytes:
    words = re.split(rb"(\s+)", data)
    words[rng.randrange(len(words))] = rng.choice((rng.choice(_WORDS).encode(), rng.choice(words)))
    return b"".join(words)


def _lines(data: bytes, rng: Random) -> bytes:
    """A line lost, twice, moved, or a million times longer."""
    lines = data.splitlines(keepends=True) or [b""]
    at = rng.randrange(len(lines))
    line = lines.pop(at)
    kept = rng.choice(([], [line, line], [b"\n"], [b"#", line], [b" ".join([line.strip()] * 50), b"\n"]))
    lines[at:at] = kept
    lines.insert(rng.randrange(len(lines) + 1), line if rng.random() < 0.3 else b"")
    return b"".join(lines)


def changed_json(value: Any, rng: Random) -> bytes:
    """One or two values, keys or lengths of lists are others."""
    places = _places(value)
    if not places:
        return json.dumps(rng.choice(_VALUES)).encode()
    for _ in range(rng.choice((1, 1, 2))):
        holder, key = rng.choice(places)
        with contextlib.suppress(KeyError, IndexError):  # the first change may have taken the second one's place away
            _change(holder, key, rng, places)
    text = json.dumps(value)
    if rng.random() < 0.01:
        text = text.replace(rng.choice(("{", "[")), "[" * 50_000, 1)
    return text.encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def _change(holder: Any, key: Any, rng: Random, places: list[tuple[Any, Any]]) -> None:
    draw = rng.random()
    if draw < 0.5:
        holder[key] = rng.choice(_VALUES)
    elif draw < 0.65:
        del holder[key]
    elif draw < 0.75 and isinstance(holder, dict):
        holder[rng.choice((str(key) + "x", "", "²", "1" * 5000, "-1", "0x1"))] = holder[key]
    elif draw < 0.85:
        other, other_key = rng.choice(places)
        holder[key] = deepcopy(other[other_key])
    elif isinstance(holder[key], int | float):
        holder[key] = rng.choice(
            (holder[key] * 1_000_000, -holder[key], holder[key] + 1, holder[key] * 2, str(holder[key]))
        )
    elif isinstance(holder, list):
        holder.extend([holder[key]] * rng.choice((1, 2, 100)))
