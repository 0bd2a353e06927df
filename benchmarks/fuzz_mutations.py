"""What disks, cut copies, foreign programs and attackers do to files, drawn from a generator.

Formats with checksums or lengths (PNG, zip, gzip, safetensors, GLB) are also changed inside of them, and wrapped again
so that the reader gets past the checksum to what is wrong.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from random import Random

from .fuzz_changes import (
    HEADER,
    Mutation,
    changed_bytes,
    changed_json,
    changed_text,
    flip,
    other_number,
    random_bytes,
    spliced,
)


def mutated(data: bytes, others: list[bytes], rng: Random) -> bytes:
    """The file with one to three changes; `others` are whole files of all kinds, to be taken for it or spliced in."""
    draw = rng.random()
    if draw < 0.02:
        return rng.choice(others)
    if draw < 0.06:
        return spliced(data, rng.choice(others), rng)
    inner = _inside(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = (inner if inner and rng.random() < 0.6 else _plain(data))(data, rng)
    return data


def _plain(data: bytes) -> Mutation:
    return _text_or_bytes if _looks_like_text(data) else changed_bytes


def _text_or_bytes(data: bytes, rng: Random) -> bytes:
    return (changed_text if rng.random() < 0.7 else changed_bytes)(data, rng)


def _looks_like_text(data: bytes) -> bool:
    return b"\0" not in data[:HEADER] and data[:HEADER].isascii()


def _inside(data: bytes) -> Mutation | None:
    """The change below checksums and lengths that the format, told by its first bytes, allows."""
    for magic, change in _CONTAINERS:
        if data.startswith(magic):
            return change
    length = int.from_bytes(data[:8], "little")
    return _safetensors if data[8:9] == b"{" and length < len(data) else None


def _png(data: bytes, rng: Random) -> bytes:
    """One chunk changed, its checksum right again; of pixels sometimes what is packed in them."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks:
        return changed_bytes(data, rng)
    index = rng.randrange(len(chunks)) if rng.random() < 0.5 else 0
    kind, body = chunks[index]
    if kind == b"IDAT" and rng.random() < 0.5:
        body = _repacked(body, rng)
    elif kind == b"IHDR" and len(body) == 13 and rng.random() < 0.5:
        size = struct.pack(">2I", rng.choice((0, 1, 8, 9000, 30_000, 2**31 - 1)), rng.choice((1, 8, 9000, 30_000)))
        body = size + body[8:]
    else:
        body = changed_bytes(body, rng)
    chunks[index] = (kind, body)
    if rng.random() < 0.2:
        chunks.insert(rng.randrange(len(chunks) + 1), rng.choice(chunks))
    return data[:8] + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )


def _repacked(body: bytes, rng: Random) -> bytes:
    try:
        return zlib.compress(changed_bytes(zlib.decompress(body), rng), 1)
    except zlib.error:
        return changed_bytes(body, rng)


def _zip(data: bytes, rng: Random) -> bytes:
    """One member changed (a .npy's header often), lost, or blown up."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, NotImplementedError, RuntimeError, ValueError):
        return changed_bytes(data, rng)
    if not members:
        return changed_bytes(data, rng)
    name = rng.choice(list(members))
    body = members.pop(name)
    draw, packing = rng.random(), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    if draw < 0.02:
        body, packing = body + bytes(150_000_000), zipfile.ZIP_DEFLATED
    elif draw < 0.4:
        body = other_number(body[:128], rng) + body[128:]
    elif draw < 0.9:
        body = changed_bytes(body, rng)
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
        return changed_bytes(data, rng)
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(_tar(inner, rng) if rng.random() < 0.7 else changed_bytes(inner, rng)) + packer.flush()


def _tar(data: bytes, rng: Random) -> bytes:
    """One header changed, its checksum right again."""
    heads = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not heads:
        return changed_bytes(data, rng)
    at = rng.choice(heads)
    head = bytearray((flip if rng.random() < 0.5 else random_bytes)(data[at : at + 345], rng)[:345].ljust(512, b"\0"))
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return data[:at] + bytes(head) + data[at + 512 :]


def _safetensors(data: bytes, rng: Random) -> bytes:
    """Its header as JSON, the description of what is in it, or a tensor's bytes."""
    size = int.from_bytes(data[:8], "little")
    head, rest = data[8 : 8 + size], data[8 + size :]
    if rng.random() < 0.15:
        return data[: 8 + size] + changed_bytes(rest, rng)
    try:
        told = json.loads(head)
        facts, *checksum = told.get("__metadata__", {}).get("facts", "").split("\n")
        if facts and rng.random() < 0.6:
            told["__metadata__"]["facts"] = "\n".join([changed_json(json.loads(facts), rng).decode(), *checksum])
            head = json.dumps(told).encode()
        else:
            head = changed_json(told, rng)
    except (ValueError, RecursionError, AttributeError, TypeError):
        head = changed_text(head, rng)
    return len(head).to_bytes(8, "little") + head + rest


def _glb(data: bytes, rng: Random) -> bytes:
    size = int.from_bytes(data[12:16], "little")
    head, rest = data[20 : 20 + size], data[20 + size :]
    head = changed_text(head.rstrip(b" \0"), rng)
    head += b" " * (-len(head) % 4)
    total = 20 + len(head) + len(rest)
    return data[:8] + struct.pack("<2I", total, len(head)) + data[16:20] + head + rest


def _jpeg(data: bytes, rng: Random) -> bytes:
    """The size in the frame's header."""
    at = next((i for i in range(len(data) - 9) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC1, 0xC2)), None)
    if at is None:
        return changed_bytes(data, rng)
    size = struct.pack(">2H", *(rng.choice((0, 1, 8, 16, 9000, 65_500)) for _ in range(2)))
    return data[: at + 5] + size + data[at + 9 :] if rng.random() < 0.4 else changed_bytes(data, rng)


_CONTAINERS: tuple[tuple[bytes, Mutation], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"PK\x03\x04", _zip),
    (b"\x1f\x8b", _gzip),
    (b"glTF", _glb),
    (b"\xff\xd8", _jpeg),
)
