"""Servers that cut, stall, lie and change files: what is wanted comes whole, or is told and nothing is left half."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from loopback_server import (
    Fault,
    Handler,
    Served,
    Server,
    cut,
    drip,
    no_ranges,
    noise,
    sent,
    serving,
    stall,
    status,
    tgz,
    tree,
)  # fmt: skip
from rich.console import Console

from neuralrecon.download import DownloadConfig, HttpConfig, LimitsConfig, download
from neuralrecon.download import room as room_module
from neuralrecon.download import workers as workers_module
from neuralrecon.errors import DownloadError

CUP = "ycb/003_cup"
FILES = {"N1_0.jpg": noise(60_000), "masks/N1_0_mask.pbm": noise(500, 1)}
DEPTH = {"NP1_0.h5": noise(40_000, 2), "calibration.h5": noise(900, 3)}
ARCHIVE = tgz({f"003_cup/{name}": content for name, content in FILES.items()})
DEPTH_ARCHIVE = tgz({f"003_cup/{name}": content for name, content in DEPTH.items()})
OTHER_ARCHIVE = tgz({f"003_cup/{name}": content[::-1] for name, content in FILES.items()})
assert len(ARCHIVE) == len(OTHER_ARCHIVE)


@pytest.fixture(autouse=True)
def alone_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past any proxy, and without waiting for the disk: no power cut is part of these tests."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def config(server: Server, tmp_path: Path) -> DownloadConfig:
    """Patience of a third of a second, for one part of YCB."""
    return DownloadConfig(
        parts=["rgb_highres"],
        data=tmp_path / "data",
        ycb_servers=[server.url],
        bigbird_servers=[f"{server.url}/bigbird"],
        bigbird_aliases=["first", "second"],
        http=HttpConfig(stall_s=0.35, least_kb_per_second=1, retries=3, first_wait_s=0.001, longest_wait_s=0.004),
        limits=LimitsConfig(spare_gb=0.0),
    )


def left(data: Path) -> set[str]:
    """What is on the data root beside the finished folders and the lock file."""
    paths = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}
    ours = {p for p in paths if p.endswith("/.downloaded.json")} | {"archives/.in_use"}
    return {p for p in paths if p.startswith("archives/") or "/." in p} - ours


def check_whole(config: DownloadConfig) -> None:
    assert tree(config.data / CUP) == FILES
    assert left(config.data) == set()


def wrong_range(handler: Handler, data: bytes) -> None:
    """An answer for bytes that nobody asked for."""
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 7-{len(data) - 1}/{len(data)}")
    handler.send_header("Content-Length", str(len(data) - 7))
    handler.end_headers()
    handler.wfile.write(data[7:])


def longer_than_announced(handler: Handler, data: bytes) -> None:
    """The range's total is that of the file, the body goes on after it."""
    start = handler.start_of(data)
    handler.begin(206, start, len(data), len(data) - start + 50)
    handler.wfile.write(data[start:] + bytes(50))


def no_length(handler: Handler, data: bytes) -> None:
    handler.begin(200, 0, len(data), None)
    handler.wfile.write(data)


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> Fault:
    def fault(handler: Handler, data: bytes) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end)

    return fault


def hang_up(handler: Handler, data: bytes) -> None:
    """A reset connection, before any answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()


# what the server does, one request after the other, before it serves well
PASSING: dict[str, list[Fault]] = {
    "cut": [cut(20_000)],
    "cut again and again": [cut(9_000), cut(1), cut(30_000)],
    "cut before the body": [cut(0)],
    "stall": [stall(20_000)],
    "stall before the body": [stall(0)],
    "drip": [drip],
    "500": [status(500), status(502)],
    "503": [status(503, Retry_After="0")],
    "429": [status(429, Retry_After="1000")],
    "408": [status(408)],
    "cut, then 500": [cut(10_000), status(500)],
    "no ranges": [cut(20_000), no_ranges],
    "no ranges, cut": [cut(20_000), lambda handler, data: no_ranges(handler, data[:30_000]), no_ranges],
    "wrong range": [cut(20_000), wrong_range],
    "a range unasked for": [wrong_range],
    "longer range": [cut(20_000), longer_than_announced],
    "no length": [no_length],
    "chunked": [chunked(ARCHIVE[:1000], ARCHIVE[1000:])],
    "chunked, cut": [chunked(ARCHIVE[:1000], end=b"ff\r\nabc")],
    "no HTTP": [sent(b"SSH-2.0-OpenSSH_9.6\r\n")],
    "nothing": [sent(b"")],
    "half a header": [sent(b"HTTP/1.1 200 OK\r\nContent-Le")],
    "endless header": [sent(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000)],
    "reset": [hang_up],
    "range refused": [cut(20_000), status(416)],
    "length too long": [lambda handler, data: handler.whole(data, length=len(data) + 100)],
    "length is no number": [sent(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + ARCHIVE)],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING.keys())
def test_passing_faults(faults: list[Fault], server: Server, config: DownloadConfig) -> None:
    """The archive comes whole in the end, and nothing but it is left."""
    served = server.ycb("003_cup", "rgb_highres", ARCHIVE, faults=list(faults))
    assert download([CUP], config) == [config.data / CUP]
    assert not served.faults
    check_whole(config)


def test_what_is_there_is_not_asked_for_again(server: Server, config: DownloadConfig) -> None:
    server.ycb("003_cup", "rgb_highres", ARCHIVE, faults=[cut(20_000), cut(10_000)])
    download([CUP], config)
    ranges = [headers.get("range") for headers in server.gets()]
    assert ranges == [None, "bytes=20000-", "bytes=30000-"]
    assert [headers.get("if-range") for headers in server.gets()] == [None, '"one"', '"one"']


@pytest.mark.parametrize(
    ("etag", "modified", "asked"),
    [
        ('W/"weak"', "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 GMT"),
        (None, "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 GMT"),
        (None, None, None),
    ],
)
def test_the_version_that_is_gone_on_with(
    etag: str | None, modified: str | None, asked: str | None, server: Server, config: DownloadConfig
) -> None:
    """A weak ETag stands for no bytes; without any version the size must be the same."""
    server.ycb("003_cup", "rgb_highres", ARCHIVE, etag=etag, modified=modified, faults=[cut(20_000)])
    download([CUP], config)
    assert server.gets()[-1].get("if-range") == asked
    assert server.gets()[-1]["range"] == "bytes=20000-"
    check_whole(config)


def test_a_changed_file_is_not_spliced(server: Server, config: DownloadConfig) -> None:
    served = server.ycb("003_cup", "rgb_highres", OTHER_ARCHIVE)

    def cut_and_change(handler: Handler, data: bytes) -> None:
        cut(20_000)(handler, data)
        served.data, served.etag = ARCHIVE, '"two"'

    served.faults.append(cut_and_change)
    download([CUP], config)
    check_whole(config)


@pytest.mark.parametrize("etag", ['"two"', None])
def test_a_changed_file_whose_server_ignores_if_range(
    etag: str | None, server: Server, config: DownloadConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The other ETag in the answer tells; without one the splice is found when it is unpacked, and fetched anew."""
    served = server.ycb("003_cup", "rgb_highres", OTHER_ARCHIVE, etag='"one"' if etag else None)

    def cut_and_change(handler: Handler, data: bytes) -> None:
        cut(20_000)(handler, data)
        served.data, served.etag = ARCHIVE, etag

    def ignore(handler: Handler, data: bytes) -> None:
        handler.begin(206, 20_000, len(data), len(data) - 20_000)
        handler.wfile.write(data[20_000:])

    served.faults += [cut_and_change, ignore]
    download([CUP], config)
    check_whole(config)
    assert ("fetching it once more from the start" in caplog.text) == (etag is None)


def test_a_file_of_another_size_is_not_spliced(server: Server, config: DownloadConfig) -> None:
    served = server.ycb("003_cup", "rgb_highres", OTHER_ARCHIVE, etag=None)
    larger = tgz({f"003_cup/{name}": content for name, content in [*FILES.items(), ("x", b"x" * 9000)]})
    assert len(larger) > len(OTHER_ARCHIVE)

    def cut_and_change(handler: Handler, data: bytes) -> None:
        cut(20_000)(handler, data)
        served.data = larger

    served.faults.append(cut_and_change)
    download([CUP], config)
    assert tree(config.data / CUP) == FILES | {"x": b"x" * 9000}


# a fault that stays, and words of the error
LASTING: dict[str, tuple[Fault, str]] = {
    "404": (status(404), "status 404 Not Found"),
    "410": (status(410), "status 410 Gone"),
    "403": (status(403), "status 403 Forbidden"),
    "401": (status(401), "status 401"),
    "204": (status(204), "status 204, want 200 or 206"),
    "500": (status(500), "status 500 Internal Server Error, after 4 tries"),
    "stall": (stall(100), "the server went silent, after 4 tries"),
    "cut": (cut(0), "the connection was cut, 0 of [0-9]+ bytes came, after 4 tries"),
    "redirect to a file": (status(302, Location="file:///etc/passwd"), "status 302"),
    "redirect to ftp": (status(302, Location="ftp://127.0.0.1/x"), "no connection|status 302"),
    "redirects in a circle": (
        lambda handler, data: status(302, Location=handler.path)(handler, data), "status 302 Found",
    ),
    "length too short": (
        lambda handler, data: handler.whole(data, data[:30_000], 30_000), "is cut off at .* it must be fetched anew",
    ),
    "web page": (
        lambda handler, data: handler.whole(data, b"<html>Log in</html>", 19), "starts with b'<html>Log in</html>'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "words"), LASTING.values(), ids=LASTING.keys())
def test_lasting_faults(fault: Fault, words: str, server: Server, config: DownloadConfig) -> None:
    """They are told with the archive's name, no folder appears, other archives come, and a mended server is enough."""
    served = server.ycb("003_cup", "rgb_highres", ARCHIVE, always=fault)
    server.ycb("004_mug", "rgb_highres", tgz({"004_mug/N1_0.jpg": b"x"}))
    with pytest.raises(DownloadError, match=rf"^1 of 2 archives failed: .*{words}") as raised:
        download([CUP, "ycb/004_mug"], config)
    assert f"{CUP}/rgb_highres" in str(raised.value)
    assert not (config.data / CUP).exists()
    assert tree(config.data / "ycb/004_mug") == {"N1_0.jpg": b"x"}
    assert CUP not in (config.data / "download.lock.json").read_text()
    served.always = None
    download([CUP, "ycb/004_mug"], config)
    check_whole(config)
    assert len(server.gets("004_mug")) == 1


def test_a_server_without_ranges_that_always_cuts_is_given_up(server: Server, config: DownloadConfig) -> None:
    """Each try brings bytes, but none brings more than the one before."""

    def cut_from_the_start(handler: Handler, data: bytes) -> None:
        handler.begin(200, 0, len(data), len(data))
        handler.wfile.write(data[:30_000])

    server.ycb("003_cup", "rgb_highres", ARCHIVE, always=cut_from_the_start)
    with pytest.raises(DownloadError, match=r"30000 of [0-9]+ bytes came, after 4 tries"):
        download([CUP], config)
    assert len(server.gets()) == 4


def test_tries_that_bring_much_do_not_count(server: Server, config: DownloadConfig) -> None:
    """Nine cuts, with patience for three in a row."""
    content = noise(9_500_000)
    archive = tgz({"003_cup/N1_0.jpg": content})
    server.ycb("003_cup", "rgb_highres", archive, faults=[cut(1_010_000)] * 9)
    download([CUP], config)
    assert tree(config.data / CUP) == {"N1_0.jpg": content}
    assert sum(int(h["range"][6:-1]) for h in server.gets()[1:]) == 1_010_000 * 45


def test_pauses_double(server: Server, config: DownloadConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """1, 2, 4 s and so on up to the longest; a pause that the server names instead, up to the same."""
    pauses: list[float] = []
    monkeypatch.setattr("neuralrecon.download.progress.Progress.pause", lambda self, seconds: pauses.append(seconds))
    faults = [status(500)] * 5 + [status(503, Retry_After="3"), status(503, Retry_After="3000")]
    server.ycb("003_cup", "rgb_highres", ARCHIVE, faults=faults)
    download([CUP], replace(config, http=HttpConfig(retries=9, longest_wait_s=10.0)))
    assert pauses == [1, 2, 4, 8, 10, 10, 10]
    pauses.clear()
    server.ycb("004_mug", "rgb_highres", tgz({"004_mug/x": b"x"}), faults=[status(429, Retry_After="3")])
    download(["ycb/004_mug"], replace(config, http=HttpConfig(longest_wait_s=10.0)))
    assert pauses == [3]


def test_no_server_at_all(config: DownloadConfig) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            DownloadError, match=r"no connection: .*refused, after 4 tries.*set ycb_servers=\[ADDRESS\]"
        ):
            download([CUP], replace(config, ycb_servers=[nobody]))


def test_a_second_server_takes_over(server: Server, config: DownloadConfig) -> None:
    """After the first has failed for good; the half that the first gave is not spliced with the second's."""
    with serving() as first:
        first.ycb("003_cup", "rgb_highres", OTHER_ARCHIVE, faults=[cut(20_000)], always=status(500))
        server.ycb("003_cup", "rgb_highres", ARCHIVE)
        download([CUP], replace(config, ycb_servers=[first.url, server.url]))
    assert len(first.gets()) == 4
    assert [headers.get("range") for headers in server.gets()] == [None]
    check_whole(config)


def test_a_silent_host_is_not_asked_for_each_alias(server: Server, config: DownloadConfig) -> None:
    for alias in ("first", "second"):
        path = f"/bigbird/{alias}/export/detergent/rgbd.tgz"
        server.files[path] = Served(b"", always=status(500), head_faults=[status(500)])
    with pytest.raises(DownloadError, match="status 500"):
        download(["bigbird/detergent"], replace(config, parts=["rgbd"]))
    assert len(server.gets("first")) == 4
    assert not server.gets("second")


def test_a_dead_server_does_not_cost_its_retries_for_every_archive(server: Server, config: DownloadConfig) -> None:
    """The first archive takes four tries, the next one each; a server that comes back has its four again."""
    names = [f"{i:03d}_cup" for i in range(4)]
    for name in names:
        server.ycb(name, "rgb_highres", tgz({f"{name}/x": b"x"}), always=status(500), head_faults=[status(500)])
    server.ycb(names[2], "rgb_highres", tgz({f"{names[2]}/x": b"x"}))
    with pytest.raises(DownloadError, match=r"^3 of 4 .*, after 4 tries.*, after 1 try\).*, after 4 tries"):
        download([f"ycb/{name}" for name in names], replace(config, at_once=1))
    assert [len(server.gets(f"/{name}/")) for name in names] == [4, 1, 1, 4]


def test_bigbird_aliases_are_tried_in_turn(server: Server, config: DownloadConfig) -> None:
    server.files["/bigbird/second/export/detergent/rgbd.tgz"] = Served(tgz({"detergent/N1_0.jpg": b"x"}))
    download(["bigbird/detergent"], replace(config, parts=["rgbd"]))
    assert tree(config.data / "bigbird" / "detergent") == {"N1_0.jpg": b"x"}
    assert not server.gets("first")  # asked for headers alone


def test_servers_that_do_not_like_to_be_asked_for_headers(server: Server, config: DownloadConfig) -> None:
    for refusal in (status(405), status(403), status(500), sent(b"")):
        server.ycb("003_cup", "rgb_highres", ARCHIVE, head_faults=[refusal])
        download([CUP], replace(config, overwrite=True))
        check_whole(config)


def test_redirects_are_followed(server: Server, config: DownloadConfig) -> None:
    """Also for the second half, with its range."""
    away = status(302, Location="/there.tgz")
    server.ycb("003_cup", "rgb_highres", b"", always=away, head_faults=[away])
    server.files["/there.tgz"] = Served(ARCHIVE, faults=[cut(20_000), cut(20_000)])
    download([CUP], config)
    # before Python 3.13 the first fault is for the headers: the standard library makes a redirected HEAD a GET
    assert server.gets("there")[-1]["range"] in ("bytes=20000-", "bytes=40000-")
    check_whole(config)


def test_endless_and_oversized_archives(server: Server, config: DownloadConfig) -> None:
    """One that says how large it is is not begun; one that does not is ended at the bound. Neither is asked again."""
    small = replace(config, limits=LimitsConfig(archive_gb=5e-5, spare_gb=0.0))
    served = server.ycb("003_cup", "rgb_highres", ARCHIVE)
    with pytest.raises(DownloadError, match=rf"{len(ARCHIVE)} bytes, want 5e-05 GB at most; raise limits.archive_gb"):
        download([CUP], small)
    assert not any(size for size in sizes(config.data / "archives"))

    def endless(handler: Handler, data: bytes) -> None:
        handler.begin(200, 0, 0, None)
        while not handler.server.over.is_set():
            handler.wfile.write(bytes(10_000))

    served.always = endless
    with pytest.raises(DownloadError, match="more than 50000 bytes, want"):
        download([CUP], small)
    assert len(server.gets()) == 2
    assert max(sizes(config.data / "archives")) < 400_000


def sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*.part")]


def test_room_is_looked_for_first(server: Server, config: DownloadConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """All archives together; nothing is asked for but headers."""
    server.ycb("003_cup", "rgb_highres", ARCHIVE)
    server.ycb("003_cup", "rgbd", DEPTH_ARCHIVE)
    both = replace(config, parts=["rgbd", "rgb_highres"], limits=LimitsConfig(spare_gb=0.0001))
    needed = 3 * (len(ARCHIVE) + len(DEPTH_ARCHIVE)) + 100_000
    monkeypatch.setattr(room_module, "free_bytes", lambda _: needed - 1)
    with pytest.raises(DownloadError, match=r"2 archives: needs 0.0 GB .* free some, choose fewer"):
        download([CUP], both)
    assert not server.gets()
    monkeypatch.setattr(room_module, "free_bytes", lambda _: needed)
    download([CUP], both)
    assert tree(config.data / CUP) == FILES | DEPTH


def test_room_is_looked_for_again(server: Server, config: DownloadConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the server only says the size as it sends the archive."""
    server.ycb("003_cup", "rgb_highres", ARCHIVE, head_faults=[status(405)])
    monkeypatch.setattr(room_module, "free_bytes", lambda _: 50_000)
    with pytest.raises(DownloadError, match=r"ycb/003_cup/rgb_highres: needs 0.0 GB"):
        download([CUP], config)
    assert not sizes(config.data / "archives")


def test_a_disk_that_is_full_all_the_same(
    server: Server, config: DownloadConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came so far stays, and is gone on with when there is room."""
    server.ycb("003_cup", "rgb_highres", ARCHIVE, faults=[cut(20_000)])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("neuralrecon.download.progress.Progress.pause", full)
        with pytest.raises(DownloadError, match=r"rgb_highres: .*No space left on device; what was fetched is kept"):
            download([CUP], config)
    assert sizes(config.data / "archives") == [20_000]
    download([CUP], config)
    assert [headers.get("range") for headers in server.gets()] == [None, "bytes=20000-"]
    check_whole(config)


def test_several_at_once_and_no_more(server: Server, config: DownloadConfig) -> None:
    names = [f"{i:03d}_cup" for i in range(6)]
    for name in names:
        server.ycb(name, "rgb_highres", tgz({f"{name}/x": b"x"}), always=slow)
    download([f"ycb/{name}" for name in names], replace(config, at_once=3))
    assert server.most_at_once == 3
    server.most_at_once = 0
    download([f"ycb/{name}" for name in names], replace(config, at_once=1, overwrite=True))
    assert server.most_at_once == 1


def slow(handler: Handler, data: bytes) -> None:
    """Counted until before the answer: who has the answer may ask again while this thread still ends."""
    server = handler.server
    with server.noting:
        server.at_once += 1
        server.most_at_once = max(server.most_at_once, server.at_once)
    time.sleep(0.1)
    with server.noting:
        server.at_once -= 1
    handler.whole(data)


def test_progress_is_told(
    server: Server, config: DownloadConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, rate and time left, while one archive is still coming."""
    monkeypatch.setattr("neuralrecon.download.progress._SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(workers_module, "_SECONDS_BETWEEN_LOOKS", 0.02)
    content = noise(400_000)
    archive = tgz({"003_cup/x": content})

    def halting(handler: Handler, data: bytes) -> None:
        handler.whole(data, data[:200_000])
        for at in range(200_000, len(data), 50_000):
            handler.wfile.flush()
            time.sleep(0.05)
            handler.wfile.write(data[at : at + 50_000])

    server.ycb("003_cup", "rgb_highres", archive, faults=[halting])
    with caplog.at_level(logging.INFO, "neuralrecon"):
        download([CUP], config)
    assert "to fetch: 1 archives, 0.00 GB" in caplog.text
    lines = [record.getMessage() for record in caplog.records if "MB/s" in record.getMessage()]
    assert any(line.startswith("0 of 1 archives, 0.00 of 0.00 GB") and line.endswith("0 min left") for line in lines)


def test_bars_on_a_terminal(
    server: Server, config: DownloadConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One for each archive that is coming, one for all, and what is said above them, not in the log."""
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr("neuralrecon.download.progress.Console", lambda **_: terminal)
    monkeypatch.setattr(workers_module, "_SECONDS_BETWEEN_LOOKS", 0.02)

    def halting(handler: Handler, data: bytes) -> None:
        handler.whole(data, data[:30_000])
        handler.wfile.flush()
        time.sleep(0.3)
        handler.wfile.write(data[30_000:])

    server.ycb("003_cup", "rgb_highres", ARCHIVE, faults=[halting])
    with caplog.at_level(logging.INFO, "neuralrecon"):
        download([CUP], config)
    assert f"{CUP}/rgb_highres" in screen.getvalue()
    assert re.search(r"30.0/[0-9.]+ kB", screen.getvalue())
    assert f"{CUP}/rgb_highres: done\n" in screen.getvalue()
    assert "to fetch" in caplog.text
    assert "done" not in caplog.text
    check_whole(config)


PROGRAM = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
from neuralrecon.download import DownloadConfig, HttpConfig, LimitsConfig, download
download(["ycb/003_cup"], DownloadConfig(
    parts=["rgb_highres"], data=Path(sys.argv[1]), ycb_servers=[sys.argv[2]], limits=LimitsConfig(spare_gb=0.0),
    http=HttpConfig(stall_s=20.0),
))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_in_the_middle(number: signal.Signals, server: Server, config: DownloadConfig) -> None:
    """At once, also while it waits for a silent server; what came is gone on with."""
    server.ycb("003_cup", "rgb_highres", ARCHIVE, faults=[stall(20_000)])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(config.data), server.url], env=environment, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 20
        while sizes(config.data / "archives") != [20_000] and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        sent_at = time.monotonic()
        assert process.wait(15) != 0
        assert time.monotonic() - sent_at < 10
    assert not (config.data / CUP).exists()
    download([CUP], config)
    assert server.gets()[-1]["range"] == "bytes=20000-"
    check_whole(config)


def test_one_download_at_a_time(server: Server, config: DownloadConfig) -> None:
    server.ycb("003_cup", "rgb_highres", ARCHIVE)
    with workers_module.alone(config.data), pytest.raises(DownloadError, match="another download is at work there"):
        download([CUP], config)
    download([CUP], config)
    check_whole(config)


def test_what_another_thread_raises_comes_out(
    server: Server, config: DownloadConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the program's own is no failure of the archive."""
    server.ycb("003_cup", "rgb_highres", ARCHIVE)
    monkeypatch.setattr("neuralrecon.download.run.checksum", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        download([CUP], config)


def test_the_lock_file(server: Server, config: DownloadConfig) -> None:
    served = server.ycb("003_cup", "rgb_highres", ARCHIVE)
    download([CUP], config)
    path = config.data / "download.lock.json"
    entry = json.loads(path.read_text())["archives"][f"{CUP}/rgb_highres"]
    assert entry["url"] == f"{server.url}/berkeley/003_cup/003_cup_berkeley_rgb_highres.tgz"
    assert (entry["size"], entry["sha256"]) == (len(ARCHIVE), hashlib.sha256(ARCHIVE).hexdigest())

    elsewhere = replace(config, data=config.data.parent / "elsewhere")
    elsewhere.data.mkdir()
    (elsewhere.data / path.name).write_text(path.read_text())
    served.data = OTHER_ARCHIVE  # of the same size
    with pytest.raises(DownloadError, match=rf"got .* bytes with sha256 .*, want .* take its entry out of {path.name}"):
        download([CUP], elsewhere)
    assert not (elsewhere.data / CUP).exists()
    served.data = tgz({"003_cup/x": b"of another size"})
    n_before = len(server.gets())
    with pytest.raises(DownloadError, match=rf"got {len(served.data)} bytes, want {len(ARCHIVE)} bytes"):
        download([CUP], elsewhere)
    assert len(server.gets()) == n_before + 1
    assert not sizes(elsewhere.data)
    assert json.loads((elsewhere.data / path.name).read_text())["archives"][f"{CUP}/rgb_highres"] == entry
    served.data = ARCHIVE
    download([CUP], elsewhere)
    check_whole(elsewhere)


@pytest.mark.parametrize("text", ["", "[]", '{"archives": {"a": 3}}', '{"archives": {"a": {"url": 1}}}', "\x00"])
def test_a_broken_lock_file(text: str, server: Server, config: DownloadConfig) -> None:
    """It is told, not replaced."""
    config.data.mkdir()
    (config.data / "download.lock.json").write_text(text)
    with pytest.raises(DownloadError, match=r"download.lock.json: not readable as a lock file .* restore it"):
        download([CUP], config)
    assert (config.data / "download.lock.json").read_text() == text
    assert not server.asked
