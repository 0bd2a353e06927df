"""What disks, cut copies, foreign programs and attackers do to files, drawn from a generator.

Formats with checksums or lengths (PNG, zip, gzip, safetensors, GLB) are also changed inside of them, and wrapped again
so that the reader gets past the checksum to what is wrong.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]

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
_HEADER = 600


def mutated(data: bytes, others: list[bytes], rng: Random) -> bytes:
    """The file with one to three changes; `others` are whole files of all kinds, to be taken for it or spliced in."""
    draw = rng.random()
    if draw < 0.02:
        return rng.choice(others)
    if draw < 0.06:
        return _spliced(data, rng.choice(others), rng)
    inner = _inside(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = (inner if inner and rng.random() < 0.6 else _plain(data))(data, rng)
    return data


def _plain(data: bytes) -> Mutation:
    return _text_or_bytes if _looks_like_text(data) else _bytes


def _text_or_bytes(data: bytes, rng: Random) -> bytes:
    return (_text if rng.random() < 0.7 else _bytes)(data, rng)


def _looks_like_text(data: bytes) -> bool:
    return b"\0" not in data[:_HEADER] and data[:_HEADER].isascii()


def _inside(data: bytes) -> Mutation | None:
    """The change below checksums and lengths that the format, told by its first bytes, allows."""
    for magic, change in _CONTAINERS:
        if data.startswith(magic):
            return change
    length = int.from_bytes(data[:8], "little")
    return _safetensors if data[8:9] == b"{" and length < len(data) else None


# ---------------------------------------------------------------------------------------------------------- any bytes


def _bytes(data: bytes, rng: Random) -> bytes:
    return rng.choice(_OF_BYTES)(data, rng) if data else bytes(rng.randrange(256) for _ in range(rng.randrange(64)))


def _at(data: bytes, rng: Random) -> int:
    """A place, in half of the cases near the front, where headers are."""
    return rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), _HEADER))


def _flip(data: bytes, rng: Random) -> bytes:
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


def _random(data: bytes, rng: Random) -> bytes:
    at, piece = _at(data, rng), rng.randbytes(rng.randrange(1, 33))
    return data[:at] + piece + data[at + rng.choice((0, len(piece))) :]


def _longer(data: bytes, rng: Random) -> bytes:
    return data + rng.choice((bytes(rng.randrange(1, 5000)), rng.randbytes(rng.randrange(1, 200)), data))


def _spliced(data: bytes, other: bytes, rng: Random) -> bytes:
    """The front of the one, the rest of the other."""
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


_OF_BYTES: tuple[Mutation, ...] = (
    *(_flip, _flip, _flip, _number, _number, _number, _cut, _without, _twice, _zeroed, _random, _longer),
)


# --------------------------------------------------------------------------------------------------------------- text


def _text(data: bytes, rng: Random) -> bytes:
    if data[:1] in b"{[" and rng.random() < 0.7:
        try:
            return _json(json.loads(data), rng)
        except (ValueError, RecursionError):
            pass  # an earlier change has made it none
    return rng.choice((_other_number, _other_number, _other_word, _lines))(data, rng)


def _other_number(data: bytes, rng: Random) -> bytes:
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


def _json(value: Any, rng: Random) -> bytes:
    places = _places(value)
    if not places:
        return json.dumps(rng.choice(_VALUES)).encode()
    for _ in range(rng.choice((1, 1, 2))):
        holder, key = rng.choice(places)
        try:
            _change(holder, key, rng, places)
        except (KeyError, IndexError):
            pass  # the first change took the second one's place away
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
        holder[key] = rng.choice((holder[key] * 1e6, -holder[key], holder[key] + 1, holder[key] * 2, str(holder[key])))
    elif isinstance(holder, list):
        holder.extend([holder[key]] * rng.choice((1, 2, 100)))


# --------------------------------------------------------------------------------------------------------- containers


def _png(data: bytes, rng: Random) -> bytes:
    """One chunk changed, its checksum right again; of pixels sometimes what is packed in them."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks:
        return _bytes(data, rng)
    index = rng.randrange(len(chunks)) if rng.random() < 0.5 else 0
    kind, body = chunks[index]
    if kind == b"IDAT" and rng.random() < 0.5:
        body = _repacked(body, rng)
    elif kind == b"IHDR" and len(body) == 13 and rng.random() < 0.5:
        size = struct.pack(">2I", rng.choice((0, 1, 8, 9000, 30_000, 2**31 - 1)), rng.choice((1, 8, 9000, 30_000)))
        body = size + body[8:]
    else:
        body = _bytes(body, rng)
    chunks[index] = (kind, body)
    if rng.random() < 0.2:
        chunks.insert(rng.randrange(len(chunks) + 1), rng.choice(chunks))
    return data[:8] + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )


def _repacked(body: bytes, rng: Random) -> bytes:
    try:
        return zlib.compress(_bytes(zlib.decompress(body), rng), 1)
    except zlib.error:
        return _bytes(body, rng)


def _zip(data: bytes, rng: Random) -> bytes:
    """One member changed (a .npy's header often), lost, or blown up."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, NotImplementedError, RuntimeError, ValueError):
        return _bytes(data, rng)
    if not members:
        return _bytes(data, rng)
    name = rng.choice(list(members))
    body = members.pop(name)
    draw, packing = rng.random(), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    if draw < 0.02:
        body, packing = body + bytes(150_000_000), zipfile.ZIP_DEFLATED
    elif draw < 0.4:
        body = _other_number(body[:128], rng) + body[128:]
    elif draw < 0.9:
        body = _bytes(body, rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing, compresslevel=1) as archive:
        for kept, content in members.items():
            archive.writestr(kept, content)
        if draw < 0.97:
            archive.writestr(name if draw < 0.92 else rng.choice(("x", f"../{name}", f"{name}.npy")), body)
    return out.getvalue()


def _gzip(data: bytes, rng: Random) -> bytes:
    unpacker = zlib.decompressobj(31)
    try:
        inner = unpacker.decompress(data, 1 << 22)
    except zlib.error:
        return _bytes(data, rng)
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(_tar(inner, rng) if rng.random() < 0.7 else _bytes(inner, rng)) + packer.flush()


def _tar(data: bytes, rng: Random) -> bytes:
    """One header changed, its checksum right again."""
    heads = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not heads:
        return _bytes(data, rng)
    at = rng.choice(heads)
    head = bytearray((_flip if rng.random() < 0.5 else _random)(data[at : at + 345], rng)[:345].ljust(512, b"\0"))
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return data[:at] + bytes(head) + data[at + 512 :]


def _safetensors(data: bytes, rng: Random) -> bytes:
    """Its header as JSON, the description of what is in it, or a tensor's bytes."""
    size = int.from_bytes(data[:8], "little")
    head, rest = data[8 : 8 + size], data[8 + size :]
    if rng.random() < 0.15:
        return data[: 8 + size] + _bytes(rest, rng)
    try:
        told = json.loads(head)
        facts = told.get("__metadata__", {}).get("facts")
        if facts and rng.random() < 0.6:
            told["__metadata__"]["facts"] = _json(json.loads(facts), rng).decode()
            head = json.dumps(told).encode()
        else:
            head = _json(told, rng)
    except (ValueError, RecursionError, AttributeError, TypeError):
        head = _text(head, rng)
    return len(head).to_bytes(8, "little") + head + rest


def _glb(data: bytes, rng: Random) -> bytes:
    size = int.from_bytes(data[12:16], "little")
    head, rest = data[20 : 20 + size], data[20 + size :]
    head = _text(head.rstrip(b" \0"), rng)
    head += b" " * (-len(head) % 4)
    total = 20 + len(head) + len(rest)
    return data[:8] + struct.pack("<2I", total, len(head)) + data[16:20] + head + rest


def _jpeg(data: bytes, rng: Random) -> bytes:
    """The size in the frame's header."""
    at = next((i for i in range(len(data) - 9) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC1, 0xC2)), None)
    if at is None:
        return _bytes(data, rng)
    size = struct.pack(">2H", *(rng.choice((0, 1, 8, 16, 9000, 65_500)) for _ in range(2)))
    return data[: at + 5] + size + data[at + 9 :] if rng.random() < 0.4 else _bytes(data, rng)


_CONTAINERS: tuple[tuple[bytes, Mutation], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"PK\x03\x04", _zip),
    (b"\x1f\x8b", _gzip),
    (b"glTF", _glb),
    (b"\xff\xd8", _jpeg),
)
