"""An object's folder has all of a part or none of it, at any moment; and the command around it all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from loopback_server import Server, noise, serving, status, tgz, tree

from neuralrecon.capture import read_capture
from neuralrecon.download import DownloadConfig, HttpConfig, LimitsConfig, download
from neuralrecon.download.__main__ import as_lists, cli, folders_of
from neuralrecon.download.place import place, recover
from neuralrecon.errors import ConfigError, DownloadError
from neuralrecon.objects import object_names

CRACKERS = "ycb/003_cracker_box"
COLOUR = {"N1_0.jpg": noise(5000), "masks/N1_0_mask.pbm": noise(100, 1), "calibration.h5": noise(900, 3)}
DEPTH = {"NP1_0.h5": noise(4000, 2), "calibration.h5": noise(900, 3), "poses/NP5_0_pose.h5": b"pose"}


def packed(files: dict[str, bytes], name: str = "003_cracker_box") -> bytes:
    return tgz({f"{name}/{path}": content for path, content in files.items()})


@pytest.fixture(autouse=True)
def alone_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past any proxy, and without waiting for the disk: no power cut is part of most of these tests."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def server() -> Iterator[Server]:
    """It has both parts of one object."""
    with serving() as server:
        server.ycb("003_cracker_box", "rgb_highres", packed(COLOUR))
        server.ycb("003_cracker_box", "rgbd", packed(DEPTH))
        yield server


@pytest.fixture
def config(server: Server, tmp_path: Path) -> DownloadConfig:
    return DownloadConfig(
        data=tmp_path / "data",
        ycb_servers=[server.url],
        http=HttpConfig(stall_s=5.0, retries=1, first_wait_s=0.001),
        limits=LimitsConfig(spare_gb=0.0),
    )


def rest(data: Path) -> set[str]:
    """What is on the data root beside the object's folder, the lock file and the file that keeps others off."""
    paths = (p.relative_to(data).as_posix() for p in data.rglob("*"))
    return {p for p in paths if not p.startswith(CRACKERS)} - {
        "ycb",
        "archives",
        "archives/.in_use",
        "download.lock.json",
    }


def test_parts_are_merged_into_one_folder(config: DownloadConfig) -> None:
    """A file that both parts have comes once, if it is the same."""
    assert download([CRACKERS], config) == [config.data / CRACKERS]
    assert tree(config.data / CRACKERS) == COLOUR | DEPTH
    assert rest(config.data) == set()


def test_finished_parts_are_not_asked_for_again(server: Server, config: DownloadConfig) -> None:
    download([CRACKERS], replace(config, parts=["rgbd"]))
    download([CRACKERS], config)
    assert len(server.gets("rgbd")) == 1
    n_before = len(server.asked)
    download([CRACKERS], config)
    assert len(server.asked) == n_before
    (config.data / CRACKERS / "N1_0.jpg").unlink()  # the user may do with it as she likes
    download([CRACKERS], config)
    assert len(server.asked) == n_before


def test_a_folder_that_was_deleted_comes_again(server: Server, config: DownloadConfig) -> None:
    download([CRACKERS], config)
    shutil.rmtree(config.data / CRACKERS)
    download([CRACKERS], config)
    assert tree(config.data / CRACKERS) == COLOUR | DEPTH
    assert len(server.gets()) == 4


def test_archives_are_kept_if_wanted(server: Server, config: DownloadConfig) -> None:
    """And used, in place of the server, when the folder must be made again."""
    keep = replace(config, keep_archives=True)
    download([CRACKERS], keep)
    archives = config.data / "archives" / CRACKERS
    assert tree(archives) == {
        "rgb_highres.tgz": packed_as_served(server, "rgb_highres"),
        "rgbd.tgz": packed_as_served(server, "rgbd"),
    }
    shutil.rmtree(config.data / CRACKERS)
    n_before = len(server.asked)
    download([CRACKERS], keep)
    assert tree(config.data / CRACKERS) == COLOUR | DEPTH
    assert len(server.asked) == n_before


def packed_as_served(server: Server, part: str) -> bytes:
    return server.files[f"/berkeley/003_cracker_box/003_cracker_box_berkeley_{part}.tgz"].data


def test_a_kept_archive_that_was_damaged_is_fetched_anew(server: Server, config: DownloadConfig) -> None:
    keep = replace(config, keep_archives=True, parts=["rgbd"])
    download([CRACKERS], keep)
    shutil.rmtree(config.data / CRACKERS)
    archive = config.data / "archives" / CRACKERS / "rgbd.tgz"
    archive.write_bytes(archive.read_bytes()[:-700] + bytes(700))
    download([CRACKERS], keep)
    assert tree(config.data / CRACKERS) == DEPTH
    assert archive.read_bytes() == packed_as_served(server, "rgbd")


def test_own_files_stay(config: DownloadConfig) -> None:
    """Also links, and folders that the archive has too."""
    folder = config.data / CRACKERS
    (folder / "masks").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "masks" / "mine.pbm").write_bytes(b"mine")
    (folder / "link").symlink_to("notes.txt")
    download([CRACKERS], config)
    assert tree(folder) == COLOUR | DEPTH | {"notes.txt": b"mine", "masks/mine.pbm": b"mine", "link": b"mine"}
    assert os.readlink(folder / "link") == "notes.txt"


@pytest.mark.parametrize("there", ["a file", "a folder", "a link"])
def test_files_that_differ_are_not_replaced(there: str, config: DownloadConfig) -> None:
    """Nothing of the part is placed; the archive stays, so that overwrite=true need not fetch it again."""
    folder = config.data / CRACKERS
    folder.mkdir(parents=True)
    path = folder / "N1_0.jpg"
    {"a file": lambda: path.write_bytes(b"mine"), "a folder": path.mkdir, "a link": lambda: path.symlink_to("x")}[
        there
    ]()
    with pytest.raises(DownloadError, match=r"^1 of 2 .*N1_0.jpg: is there already and differs .* overwrite=true"):
        download([CRACKERS], config)
    assert {name: content for name, content in tree(folder).items() if name != "N1_0.jpg"} == DEPTH
    assert there != "a file" or path.read_bytes() == b"mine"


def test_files_that_differ_are_replaced_on_demand(server: Server, config: DownloadConfig) -> None:
    folder = config.data / CRACKERS
    folder.mkdir(parents=True)
    (folder / "N1_0.jpg").write_bytes(b"mine")
    (folder / "notes.txt").write_bytes(b"mine")
    with pytest.raises(DownloadError):
        download([CRACKERS], config)
    download([CRACKERS], replace(config, overwrite=True))
    assert tree(folder) == COLOUR | DEPTH | {"notes.txt": b"mine"}
    assert len(server.gets("rgb_highres")) == 1


def test_a_folder_that_is_a_link(config: DownloadConfig, tmp_path: Path) -> None:
    """Objects may lie on another disk."""
    (tmp_path / "disk" / "crackers").mkdir(parents=True)
    (config.data / "ycb").mkdir(parents=True)
    (config.data / CRACKERS).symlink_to(tmp_path / "disk" / "crackers")
    download([CRACKERS], config)
    assert (config.data / CRACKERS).is_symlink()
    assert tree(tmp_path / "disk" / "crackers") == COLOUR | DEPTH
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["crackers"]


def test_a_disk_without_hard_links(config: DownloadConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    download([CRACKERS], config)
    assert tree(config.data / CRACKERS) == COLOUR | DEPTH


def test_a_broken_marker_is_told(config: DownloadConfig) -> None:
    (config.data / CRACKERS).mkdir(parents=True)
    (config.data / CRACKERS / ".downloaded.json").write_text("{")
    with pytest.raises(DownloadError, match=r"\.downloaded\.json: not readable .* delete it"):
        download([CRACKERS], config)


def test_a_hostile_archive_is_kept_packed(server: Server, config: DownloadConfig) -> None:
    """The other part comes; a second call refuses it again without fetching it, until it is deleted."""
    served = server.ycb("003_cracker_box", "rgbd", tgz({"003_cracker_box/N1_0.jpg": b"x", "../outside": b"x"}))
    for _ in range(2):
        with pytest.raises(
            DownloadError, match=r"^1 of 2 .*rgbd.tgz: member '../outside' climbs out .* delete .*rgbd.tgz"
        ):
            download([CRACKERS], config)
    assert tree(config.data / CRACKERS) == COLOUR
    assert rest(config.data) == {"archives/ycb", f"archives/{CRACKERS}", f"archives/{CRACKERS}/rgbd.tgz"}
    assert len(server.gets("rgbd")) == 1
    served.data = packed(DEPTH)
    (config.data / "archives" / CRACKERS / "rgbd.tgz").unlink()
    download([CRACKERS], config)
    assert tree(config.data / CRACKERS) == COLOUR | DEPTH


def test_bytes_are_on_the_disk_before_the_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and folder is flushed before the rename, and the name after it."""
    events: list[str] = []
    new = tmp_path / ".cup.rgbd.new"
    (new / "masks").mkdir(parents=True)
    (new / "masks" / "a").write_bytes(b"a")

    def note(handle: int) -> None:
        paths = (tmp_path, *tmp_path.rglob("*"))
        events.append(next(p.name for p in paths if p.stat().st_ino == os.fstat(handle).st_ino))

    monkeypatch.setattr(os, "fsync", note)
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda *paths: (events.append("rename"), rename(*paths)))
    place(new, tmp_path / "cup", "rgbd", {})
    own = f"..downloaded.{os.getpid()}.json"  # the marker's, while it is written
    assert events == [own, ".downloaded.json", "masks", "a", ".cup.rgbd.new", "rename", tmp_path.name]


# Killed before its k-th change of the disk, for every k: an audit hook sees opens, renames, links and removals. Each
# child is forked from one process, for starting Python each time would take minutes.
KILLED = """
import json, os, shutil, sys
from pathlib import Path
from neuralrecon.download import DownloadConfig, HttpConfig, LimitsConfig, download

os.fsync = lambda _: None
data, url = Path(sys.argv[1]), sys.argv[2]
CHANGES = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate"}

def run():
    download(["ycb/003_cracker_box"], DownloadConfig(
        data=data, ycb_servers=[url], at_once=1, limits=LimitsConfig(spare_gb=0.0),
    ))

def killed(at):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in CHANGES:
            seen += 1
            if seen == at:
                os._exit(9)
    sys.addaudithook(hook)
    run()

def forked(action):
    child = os.fork()
    if not child:
        try:
            action()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def names():
    return sorted(p.relative_to(data).as_posix() for p in data.rglob("*"))

at, status = 0, 9
while status == 9:
    at += 1
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    status = forked(lambda: killed(at))
    print(json.dumps([status, names(), forked(run), names()]))
"""


def test_killed_at_any_moment(server: Server, config: DownloadConfig) -> None:
    """The folder shows whole parts or nothing, a part that was there is not lost, and the next call makes it right."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    words = [sys.executable, "-c", KILLED, str(config.data), server.url]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert not done.stderr
    assert [status_ for status_, *_ in rounds] == [9] * (len(rounds) - 1) + [0]
    states = [state_of(after_kill) for _, after_kill, _, _ in rounds]
    assert list(dict.fromkeys(states)) == ["nothing", "depth", "depth beside", "all"]
    assert states == sorted(states, key=["nothing", "depth", "depth beside", "all"].index)
    for _, _, repaired, afterwards in rounds:
        assert repaired == 0
        assert state_of(afterwards) == "all"
        assert {n for n in afterwards if not n.startswith(CRACKERS)} == AROUND


FOLDERS, ALL = {"masks", "poses"}, {*COLOUR, *DEPTH, ".downloaded.json"}
AROUND = {"ycb", "archives", "archives/.in_use", "download.lock.json"}


def state_of(names: list[str]) -> str:
    """What a user sees of the object, by the paths below the data root; half a part is a KeyError."""

    def below(folder: str) -> frozenset[str]:
        return frozenset({n.removeprefix(f"{folder}/") for n in names if n.startswith(f"{folder}/")} - FOLDERS)

    depth = frozenset({*DEPTH, ".downloaded.json"})
    if below("ycb/.003_cracker_box.old") == depth and not below(CRACKERS):
        return "depth beside"
    return {frozenset(): "nothing", depth: "depth", frozenset(ALL): "all"}[below(CRACKERS)]


def test_what_a_killed_call_left_is_cleared(tmp_path: Path) -> None:
    """Half-unpacked folders go; a folder that lost its name gets it back."""
    (tmp_path / ".cup.rgbd.new").mkdir()
    (tmp_path / ".cup.old").mkdir()
    (tmp_path / ".cup.old" / "a").touch()
    (tmp_path / ".cup2.rgbd.new").mkdir()
    recover(tmp_path / "cup")
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [".cup2.rgbd.new", "cup", "cup/a"]
    (tmp_path / ".cup.old").mkdir()
    recover(tmp_path / "cup")
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [".cup2.rgbd.new", "cup", "cup/a"]


# the command


def run(config: DownloadConfig, *words: str) -> int:
    servers = [f"ycb_servers=['{config.ycb_servers[0]}']", f"bigbird_servers=['{config.ycb_servers[0]}']"]
    patience = ["http.retries=0", "http.stall_s=5", "limits.spare_gb=0"]
    return cli([*words, f"data={config.data}", *servers, *patience])


def test_the_command_downloads(config: DownloadConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, f"object={CRACKERS}") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == str(config.data / CRACKERS)
    assert f"{CRACKERS}/rgbd: done" in out
    assert not err
    assert tree(config.data / CRACKERS) == COLOUR | DEPTH


def test_the_command_tells_failures(server: Server, config: DownloadConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1, and one line that names each; the others have come."""
    server.ycb("025_mug", "rgbd", packed({"x": b"x"}, "025_mug"))
    server.ycb("025_mug", "rgb_highres", b"", always=status(500))
    assert run(config, f"object=ycb/025_mug,ycb/006_mustard_bottle,{CRACKERS}") == 1
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err.startswith("neuralrecon.download: 3 of 6 archives failed: ycb/025_mug/rgb_highres: no server gave")
    assert err.count("ycb/006_mustard_bottle/") >= 2
    assert len(re.findall("^failed: ", out, re.MULTILINE)) == 3
    assert tree(config.data / CRACKERS) == COLOUR | DEPTH
    assert tree(config.data / "ycb" / "025_mug") == {"x": b"x"}
    assert not (config.data / "ycb" / "006_mustard_bottle").exists()


WRONG = {
    "object": (["object=ycb/003_craker_box"], "no object 'ycb/003_craker_box'; did you mean ycb/003_cracker_box?"),
    "no object": ([], "nothing to download: give an object"),
    "empty object": (["object="], "nothing to download"),
    "demo": (["object=demo/box"], "demos are simulated, not downloaded"),
    "pattern": (["object=ycb/9*"], "no object 'ycb/9*'"),
    "part": ([f"object={CRACKERS}", "parts=rgdb"], "ycb/003_cracker_box has no part 'rgdb'; did you mean rgbd?"),
    "part of another set": (["object=bigbird/windex", "parts=google_16k"], "bigbird has rgbd, rgb_highres, processed"),
    "no parts": ([f"object={CRACKERS}", "parts=[]"], "parts is empty"),
    "key": ([f"object={CRACKERS}", "keep_archive=true"], "did you mean keep_archives?"),
    "at once": ([f"object={CRACKERS}", "at_once=0"], "at_once must be 1 or more"),
    "server": ([f"object={CRACKERS}", "ycb_servers=['ftp://x']"], "want an address that starts with http"),
    "patience": ([f"object={CRACKERS}", "http.stall_s=0"], "http.stall_s must be above 0"),
    "limits": ([f"object={CRACKERS}", "limits.ratio=0"], "files and ratio must be above 0"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_commands(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, one line, and nothing is written or asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEURALRECON_DATA", raising=False)
    assert cli(words) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert message in err
    assert not out
    assert not list(tmp_path.iterdir())


def test_names_of_objects() -> None:
    """Lists, patterns, all; short names lead to the same folder, and none comes twice."""
    assert folders_of(["bigbird/cheez_it", "bigbird/cheez_it_white_cheddar"]) == ["bigbird/cheez_it_white_cheddar"]
    assert folders_of(["ycb/00[34]*"]) == ["ycb/003_cracker_box", "ycb/004_sugar_box"]
    assert len(folders_of(["all"])) == len([n for n in object_names() if not n.startswith("demo/")]) - 1
    assert folders_of(["ycb/039_keys"]) == ["ycb/039_key"]
    assert as_lists(["object=a,b", "parts=[x, y]", "at_once=2"]) == [
        "objects=['a','b']",
        "parts=['x','y']",
        "at_once=2",
    ]


def test_names_in_a_program(config: DownloadConfig) -> None:
    for wrong in ("cup", "ycb", "ycb/", "ycb/../x", "ycb/..", "other/x", "demo/box", "/ycb/x"):
        with pytest.raises(ConfigError):
            download([wrong], config)
    assert not config.data.exists()


def test_the_default_servers() -> None:
    """As the data sets' own programs ask for them."""
    from neuralrecon.download.sets import archives_of

    both = archives_of(["ycb/039_keys", "bigbird/detergent"], DownloadConfig(parts=["rgbd"]))
    assert both[0].urls == (
        "https://ycb-benchmarks.s3.amazonaws.com/data/berkeley/039_key/039_key_berkeley_rgbd.tgz",
        "http://ycb-benchmarks.s3-website-us-east-1.amazonaws.com/data/berkeley/039_key/039_key_berkeley_rgbd.tgz",
    )
    assert both[1].urls == tuple(
        f"http://rll.berkeley.edu/bigbird/aliases/{alias}/export/detergent/rgbd.tgz"
        for alias in ("863afb5e73", "772151f9ac", "8b4888c959", "a47741b172")
    )


def test_a_run_finds_what_was_downloaded(server: Server, config: DownloadConfig, sphere_folder: Path) -> None:
    """A capture in BigBIRD's layout, split into the two archives as the servers do, reads as it did before."""
    files = {p.relative_to(sphere_folder).as_posix(): p.read_bytes() for p in sphere_folder.rglob("*") if p.is_file()}
    colour = {name: content for name, content in files.items() if Path(name).name.startswith("N") and "NP" not in name}
    both = {"calibration.h5": files["calibration.h5"]}
    depth = {name: content for name, content in files.items() if name not in colour and not name.startswith("gt/")}
    junk = {f"{Path(name).parent / '._'}{Path(name).name}": b"junk" for name in colour}
    server.ycb("003_cracker_box", "rgb_highres", packed({**junk, **colour, **both}))
    server.ycb("003_cracker_box", "rgbd", packed(depth))
    [folder] = download([CRACKERS], config)
    found, wanted = read_capture(folder), read_capture(sphere_folder)
    assert [(i.sensor, i.frame) for i in found.images] == [(i.sensor, i.frame) for i in wanted.images]
    assert [s.name for s in found.sensors] == [s.name for s in wanted.sensors]
    assert not [p for p in folder.rglob("._*")]


def test_a_run_names_the_download(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuralrecon.train.__main__ import cli as train

    monkeypatch.chdir(tmp_path)
    assert train([f"object={CRACKERS}", "data=here"]) == 2
    assert f"python -m neuralrecon.download object={CRACKERS} data=here fetches it" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["--help"]) == 0
    text = capsys.readouterr().out
    for word in (
        "object=ycb/003_cracker_box",
        "object=all",
        "keep_archives=false",
        "http.stall_s=30.0",
        "limits.ratio",
    ):
        assert word in text
