"""Archives that nobody vouches for: what is refused, what is dropped, what comes through."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zlib
from pathlib import Path

import pytest
from loopback_server import add, noise, repacked, tgz, tree

from neuralrecon.download import LimitsConfig, unpack
from neuralrecon.download import unpack as unpack_function
from neuralrecon.errors import ArchiveError, DamagedArchiveError, DownloadError

GOOD = {"cup/N1_0.jpg": noise(3000), "cup/masks/N1_0_mask.pbm": noise(700, 1), "cup/NP1_0.h5": b""}
SMALL = LimitsConfig(files=20, unpacked_gb=0.001, spare_gb=0.0)


def member(name: str, content: bytes = b"x", **attributes: object) -> bytes:
    """The good files and one more."""
    return tgz(GOOD, lambda tar: add(tar, name, content, **attributes))


def link(name: str, kind: bytes, to: str = "") -> bytes:
    return member(name, b"", type=kind, linkname=to)


def through_a_link() -> bytes:
    def extra(tar: tarfile.TarFile) -> None:
        add(tar, "cup/away", type=tarfile.SYMTYPE, linkname="../..")
        add(tar, "cup/away/outside.txt", b"x")

    return tgz(GOOD, extra)


def sparse() -> bytes:
    """One terabyte in a few bytes, as GNU tar writes files with holes."""

    def extra(tar: tarfile.TarFile) -> None:
        headers = {"GNU.sparse.size": str(10**12), "GNU.sparse.numblocks": "0", "GNU.sparse.map": "0,0"}
        add(tar, "cup/huge", pax_headers=headers)

    return tgz(GOOD, extra)


def headers_of_a_gigabyte() -> bytes:
    """A long name of 1 GB, which the standard library would take into memory; the bytes need not follow."""

    def change(tar: bytearray) -> None:
        tar[:] = block("././@LongLink", 10**9, tarfile.GNUTYPE_LONGNAME)

    return repacked(change, tgz(GOOD))


def block(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.type = size, kind
    return header.tobuf(tarfile.GNU_FORMAT)


def negative_size() -> bytes:
    """A size of −1024 in base 256, which leads the reader back to where it was."""

    def change(tar: bytearray) -> None:
        header = bytearray(block("cup/back", 0))
        header[124:136] = b"\xff" * 10 + struct.pack(">h", -1024)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        tar[:0] = header

    return repacked(change, tgz(GOOD))


def unknown_kind() -> bytes:
    return repacked(lambda tar: tar.__setitem__(slice(0, 512), block("cup/x", 0, b"Z")), tgz({"cup/x": b""}))


def broken_checksum(archive: bytes) -> bytes:
    """The second header is unreadable, which the standard library takes for the end."""
    return repacked(lambda tar: tar.__setitem__(slice(512 * 7, 512 * 7 + 20), b"\xff" * 20), archive)


def chain_of_headers() -> bytes:
    """Thousands of headers that each belong to the next: a recursion in the standard library."""
    return repacked(lambda tar: tar.__setitem__(slice(0, 0), block("h", 0, tarfile.XGLTYPE) * 3000), tgz(GOOD))


TRUNCATED = tgz({f"cup/N1_{i}.jpg": noise(2000, i) for i in range(8)})

HOSTILE: dict[str, tuple[bytes, type[Exception], str]] = {
    "climbs out": (member("cup/../../outside.txt"), ArchiveError, r"climbs out of its folder by '\.\.'"),
    "climbs first": (member("../outside.txt"), ArchiveError, "climbs out"),
    "climbs as junk": (member("cup/._x/../../../outside.txt"), ArchiveError, "climbs out"),
    "absolute path": (member("/tmp/outside.txt"), ArchiveError, "is an absolute path"),
    "two slashes": (member("//host/outside.txt"), ArchiveError, "is an absolute path"),
    "backslashes": (member("cup\\..\\..\\outside.txt"), ArchiveError, "has a backslash in its name"),
    "drive": (member("C:/outside.txt"), ArchiveError, "has a colon in its name"),
    "stream": (member("cup/N1_0.jpg:hidden"), ArchiveError, "has a colon in its name"),
    "symbolic link": (link("cup/link", tarfile.SYMTYPE, "/etc/passwd"), ArchiveError, "symbolic link to '/etc/passwd'"),
    "symbolic link inside": (link("cup/link", tarfile.SYMTYPE, "N1_0.jpg"), ArchiveError, "is a symbolic link"),
    "hard link": (link("cup/link", tarfile.LNKTYPE, "cup/N1_0.jpg"), ArchiveError, "is a hard link to 'cup/N1_0.jpg'"),
    "hard link outside": (link("cup/link", tarfile.LNKTYPE, "../../x"), ArchiveError, "is a hard link"),
    "through a link": (through_a_link(), ArchiveError, "'cup/away' is a symbolic link"),
    "character device": (link("cup/null", tarfile.CHRTYPE), ArchiveError, "is a character device"),
    "block device": (link("cup/disk", tarfile.BLKTYPE), ArchiveError, "is a block device"),
    "pipe": (link("cup/pipe", tarfile.FIFOTYPE), ArchiveError, "is a pipe"),
    "sparse file": (sparse(), ArchiveError, "is a sparse file"),
    "unknown kind": (unknown_kind(), ArchiveError, "is of the unknown kind b'Z'"),
    "comes twice": (member("cup/N1_0.jpg"), ArchiveError, "'cup/N1_0.jpg' comes twice"),
    "twice by dots": (member("cup/./masks//N1_0_mask.pbm"), ArchiveError, "comes twice"),
    "case collision": (member("cup/n1_0.JPG"), ArchiveError, "are one name where case is ignored"),
    "case of a folder": (member("cup/Masks/x.pbm"), ArchiveError, "are one name where case is ignored"),
    "accents": (
        tgz({"cup/\u00e9.jpg": b"a", "cup/e\u0301.jpg": b"b"}), ArchiveError, "are one name where case is ignored",
    ),
    "file and folder": (member("cup/N1_0.jpg/x"), ArchiveError, "is a file and a folder"),
    "control characters": (member("cup/a\nb"), ArchiveError, "control characters"),
    "no UTF-8": (member("cup/\udcff.jpg"), ArchiveError, "no UTF-8"),
    "no name": (member("./"), ArchiveError, "has no name"),
    "long name": (member("cup/" + "a" * 300), ArchiveError, "more than 255 bytes"),
    "deep": (member("cup/" + "a/" * 40 + "b"), ArchiveError, "41 folders deep|42 folders deep"),
    "too many": (tgz({f"cup/{i}": b"" for i in range(21)}), ArchiveError, "more than 20 members; raise limits.files"),
    "too large": (member("cup/large", noise(1_100_000)), ArchiveError, "unpacks to more than 1000000 bytes"),
    "other folder": (tgz({"mug/N1_0.jpg": b"x"}), ArchiveError, "all is in the folder 'mug' instead of 'cup'"),
    "beside": (member("mug/N1_0.jpg"), ArchiveError, "'mug' lies beside the folder 'cup'"),
    "empty file": (b"", DamagedArchiveError, "is empty, want a gzip file"),
    "web page": (b"<!DOCTYPE html><html>", DamagedArchiveError, "starts with b'<!DOCTYPE html><html>', want a gzip"),
    "plain tar": (gzip.decompress(tgz(GOOD)), DamagedArchiveError, "want a gzip file"),
    "gzip of a page": (gzip.compress(b"<html>" * 200), DamagedArchiveError, "header near byte .* is unreadable"),
    "gzip of nothing": (gzip.compress(b""), DamagedArchiveError, "header near byte 0 is unreadable"),
    "no member": (tgz(), DamagedArchiveError, "holds no file"),
    "junk alone": (tgz({"cup/._N1_0.jpg": b"x"}), DamagedArchiveError, "holds no file"),
    "cut in a file": (TRUNCATED[: len(TRUNCATED) // 2], DamagedArchiveError, "is cut off at"),
    "cut in the sum": (TRUNCATED[:-4], DamagedArchiveError, "is cut off at"),
    "tar cut in a file": (
        repacked(lambda t: t.__delitem__(slice(2000, None)), TRUNCATED), DamagedArchiveError, "cut off",
    ),
    "tar cut between": (
        repacked(lambda t: t.__delitem__(slice(2560 * 3, None)), TRUNCATED), DamagedArchiveError, "no end's mark",
    ),
    "wrong sum": (TRUNCATED[:-8] + b"\0\0\0\0" + TRUNCATED[-4:], DamagedArchiveError, "damaged near byte"),
    "flipped bits": (
        TRUNCATED[:300] + b"\xff" * 99 + TRUNCATED[399:], DamagedArchiveError, "damaged|unreadable|cut off",
    ),
    "more behind": (TRUNCATED + b"more", DamagedArchiveError, "damaged near byte"),
    "header unreadable": (broken_checksum(tgz(GOOD)), DamagedArchiveError, "unreadable"),
    "header of a gigabyte": (headers_of_a_gigabyte(), DamagedArchiveError, "says that it has 10000"),
    "negative size": (negative_size(), DamagedArchiveError, "unreadable"),
    "chain of headers": (chain_of_headers(), DamagedArchiveError, "unreadable .RecursionError"),
}  # fmt: skip


@pytest.mark.parametrize(("archive", "kind", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archives_are_refused(archive: bytes, kind: type[Exception], words: str, tmp_path: Path) -> None:
    """Each by its own error that names the file, and nothing is written but into the folder that is thrown away."""
    path = tmp_path / "rgbd.tgz"
    path.write_bytes(archive)
    with pytest.raises(kind, match=words) as raised:
        unpack(path, tmp_path / "in" / "new", "cup", SMALL)
    assert type(raised.value) is kind
    assert str(path) in str(raised.value)
    assert {entry.name for entry in tmp_path.iterdir()} == {"rgbd.tgz", "in"}
    assert [entry.name for entry in (tmp_path / "in").iterdir()] == ["new"]
    assert not any(entry.is_symlink() for entry in tmp_path.rglob("*"))


def test_their_errors_say_what_to_do() -> None:
    """Every refusal has a wanted state and a thing to do; a canary that the list above is as long as promised."""
    assert len(HOSTILE) > 40


def test_a_bomb_ends_early(tmp_path: Path) -> None:
    """10 GB of zeros in 10 MB would be 1000 to 1; not a byte of the file is written, for its size is announced."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    piece = bytes(1 << 20)
    packed = packer.compress(block("cup/zeros", 400 << 20)) + b"".join(packer.compress(piece) for _ in range(400))
    (tmp_path / "bomb.tgz").write_bytes(packed + packer.flush())
    with pytest.raises(ArchiveError, match=r"looks like an archive made to fill disks; raise limits.ratio"):
        unpack(tmp_path / "bomb.tgz", tmp_path / "new", "cup", LimitsConfig(spare_gb=0.0))
    assert not tree(tmp_path / "new")


def test_a_bomb_of_headers_ends_early(tmp_path: Path) -> None:
    """Zeros after the end's mark, and headers without files, count too."""
    zeros = gzip.compress(gzip.decompress(tgz(GOOD)) + bytes(90_000_000), 1)
    (tmp_path / "zeros.tgz").write_bytes(zeros)
    with pytest.raises(ArchiveError, match="fill disks"):
        unpack(tmp_path / "zeros.tgz", tmp_path / "new", "cup", LimitsConfig(spare_gb=0.0))
    headers = gzip.compress(b"".join(block(f"cup/{i}", 0) for i in range(3)) + long_names(40) + bytes(1024), 1)
    (tmp_path / "headers.tgz").write_bytes(headers)
    with pytest.raises(ArchiveError, match="more headers than files"):
        unpack(tmp_path / "headers.tgz", tmp_path / "new2", "cup", LimitsConfig(files=50, spare_gb=0.0))


def long_names(count: int) -> bytes:
    """Files that have 100 kB of comment each."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for index in range(count):
            add(tar, f"cup/long{index}", pax_headers={"comment": "x" * 100_000})
    return out.getvalue()


def test_random_damage_never_escapes(tmp_path: Path) -> None:
    """300 archives with random bytes of their headers altered: each is unpacked or refused, by no other error."""
    plain = bytearray(gzip.decompress(tgz(GOOD, lambda tar: add(tar, "cup/" + "long/" * 25 + "x", b"y"))))
    headers = [at for at in range(0, len(plain), 512) if plain[at + 257 : at + 262] == b"ustar"]
    random_, n_refused = random.Random(1), 0
    for index in range(300):
        tar = bytearray(plain)
        at = random_.choice(headers)
        for _ in range(random_.randint(1, 4)):
            tar[at + random_.randrange(345)] = random_.choice(b"\0/.7\xff\x80" + bytes([random_.randrange(256)]))
        tar[at + 148 : at + 156] = b" " * 8
        tar[at + 148 : at + 156] = b"%06o\0 " % sum(tar[at : at + 512])
        path = tmp_path / "a.tgz"
        path.write_bytes(gzip.compress(bytes(tar), 1))
        try:
            unpack(path, tmp_path / "in" / str(index), "cup", SMALL)
        except ArchiveError:
            n_refused += 1
    assert 50 < n_refused < 300
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.tgz", "in"}
    assert not any(entry.is_symlink() for entry in tmp_path.rglob("*"))


def test_good_archives_come_through(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(tgz(GOOD))
    found = unpack(tmp_path / "a.tgz", tmp_path / "new", "cup")
    assert tree(found.folder) == {name.removeprefix("cup/"): content for name, content in GOOD.items()}
    assert (found.n_files, found.n_bytes, found.n_junk) == (3, 3700, 0)


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats_of_tar(format_: int, tmp_path: Path) -> None:
    """Names longer than a header's field, which each format writes in another way, and `./` before all."""
    names = {f"./cup/{'f' * 90}/{'g' * 90}.jpg": b"long", "./cup/short": noise(513)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=format_) as tar:
        add(tar, "./", type=tarfile.DIRTYPE)
        add(tar, "./cup/", type=tarfile.DIRTYPE)
        for name, content in names.items():
            add(tar, name, content)
    (tmp_path / "a.tgz").write_bytes(out.getvalue())
    found = unpack(tmp_path / "a.tgz", tmp_path / "new", "cup")
    assert tree(found.folder) == {name.removeprefix("./cup/"): content for name, content in names.items()}


def test_junk_is_dropped(tmp_path: Path) -> None:
    junk = {"._cup": b"x", "cup/._N1_0.jpg": noise(2000), "cup/.DS_Store": b"x", "__MACOSX/cup/._a": b"x"}
    (tmp_path / "a.tgz").write_bytes(tgz({**junk, **GOOD}))
    found = unpack(tmp_path / "a.tgz", tmp_path / "new", "cup")
    assert sorted(tree(tmp_path / "new")) == sorted(GOOD)
    assert found.n_junk == 4


def test_an_archive_without_a_top_folder(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(tgz({"N1_0.jpg": b"a", "masks/b": b"b"}))
    assert tree(unpack(tmp_path / "a.tgz", tmp_path / "new", "cup").folder) == {"N1_0.jpg": b"a", "masks/b": b"b"}


def test_modes_and_owners_are_not_taken_over(tmp_path: Path) -> None:
    """A file that nobody may read, or that runs as its owner, is an ordinary file afterwards."""
    extra = [("cup/none", 0o000), ("cup/setuid", 0o4777)]
    (tmp_path / "a.tgz").write_bytes(tgz(GOOD, lambda tar: [add(tar, n, b"x", mode=m, uid=12345) for n, m in extra]))
    folder = unpack(tmp_path / "a.tgz", tmp_path / "new", "cup").folder
    own = (folder / "N1_0.jpg").stat()
    for name, _ in extra:
        stat = (folder / name.removeprefix("cup/")).stat()
        assert (stat.st_mode, stat.st_uid) == (own.st_mode, own.st_uid)


def test_a_full_disk_is_told_before_the_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = __import__("sys").modules[unpack_function.__module__]
    monkeypatch.setattr(module, "free_bytes", lambda _: 2000)
    (tmp_path / "a.tgz").write_bytes(tgz(GOOD))
    with pytest.raises(DownloadError, match=r"N1_0.jpg has 3000 bytes, want 0 GB left on the disk") as raised:
        unpack(tmp_path / "a.tgz", tmp_path / "new", "cup", LimitsConfig(spare_gb=0.0))
    assert not isinstance(raised.value, ArchiveError)
    assert not tree(tmp_path / "new")


def test_it_can_be_stopped(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    calls = iter(range(100))

    def check() -> None:
        if next(calls) == 2:
            raise Stop

    (tmp_path / "a.tgz").write_bytes(tgz(GOOD))
    with pytest.raises(Stop):
        unpack(tmp_path / "a.tgz", tmp_path / "new", "cup", check=check)
