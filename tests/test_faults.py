"""Disks that are full or broken, files cut off or unreadable, processes that are killed, memory that runs out."""

from __future__ import annotations

import ast
import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from benchmarks import fuzz_products as products
from benchmarks import fuzz_seeds as seeds
from benchmarks.fuzz import valid_files
from benchmarks.fuzz_targets import TARGETS, Target, forge_checksum
from benchmarks.fuzz_worker import Job, outcome, put
from neuralrecon import files
from neuralrecon.capture import read_capture, write_plain
from neuralrecon.download.lockfile import LockFile, Recorded
from neuralrecon.errors import CaptureError, FitError, NeuralReconError
from neuralrecon.evaluate import read_mesh
from neuralrecon.scene.crop_cache import CropFile, Source
from neuralrecon.scene.parallel import in_parallel
from neuralrecon.train import FitConfig, load_fit, save_fit
from neuralrecon.train.checkpoint import TrainingState, load_training
from neuralrecon.train.out_of_memory import telling_memory
from neuralrecon.train.progress import rows_before
from neuralrecon.train.run_folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "neuralrecon"

# -------------------------------------------------------------------------------------------------- disks that fail


def lock_file(folder: Path, value: int) -> None:
    (folder / "download.lock.json").unlink(missing_ok=True) if value == 0 else None
    LockFile(folder).record(str(value), Recorded(url="u" * 9000, size=value, sha256="0"))


def crops(folder: Path, value: int) -> None:
    sources = [Source(key="k" * 9000, state=(value,), box=(0, 0, 1, 1))]
    CropFile(path=folder / "crops-0.bin", sources=()).describe(sources)


WRITERS: dict[str, Callable[[Path, int], object]] = {
    "fit.safetensors": lambda folder, value: save_fit(replace(products.tiny_fit(), step=value), folder),
    "fit.previous.safetensors": lambda folder, value: save_fit(
        replace(products.tiny_fit(), step=value),
        folder,
        TrainingState(moments={}, generator=torch.zeros(1), seed=value),
    ),
    "labels.npz": lambda folder, value: files.write_npz(folder / "labels.npz", a=np.full(9000, value)),
    "capture.json": lambda folder, value: write_plain(
        replace(seeds.capture_in(folder / "files"), name=f"{value}" * 9000), folder / "files"
    ),
    "download.lock.json": lock_file,
    "summary.json": lambda folder, value: RunFolder(path=folder, settings="", goes_on=False).finish(
        {"value": f"{value}" * 9000}
    ),
    "crops-0.json": crops,
}


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken_disk(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@contextmanager
def disk_that_fails(at: str, fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At the write (no file may grow beyond 4 kB, whoever writes it), when it is flushed, or when it gets its name."""
    if at == "write":
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    else:
        with monkeypatch.context() as patched:
            patched.setattr(os, at, fault)
            yield


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
@pytest.mark.parametrize("fault", [no_space, broken_disk])
@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_failing_disk_leaves_the_file_before(
    name: str, at: str, fault: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told is an error of ours or the system's own, which every command shows in one line."""
    WRITERS[name](tmp_path, 0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with disk_that_fails(at, fault, monkeypatch), pytest.raises((FitError, OSError)) as caught:
        WRITERS[name](tmp_path, 1)
    assert not isinstance(caught.value, FitError) or "make room on the disk and give the same" in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    WRITERS[name](tmp_path, 1)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} != before


# ----------------------------------------------------------------------------------------------- files that are broken


def changed_files(target: Target, valid: dict[str, bytes]) -> Iterator[tuple[str, str, Callable[[Path], object]]]:
    """(file, how, what breaks it) for every file that the target's reader reads."""
    for name, content in valid.items():
        if name.startswith(target.kept or "\0"):
            continue
        yield name, "gone", Path.unlink
        for share in (0.0, 0.1, 0.5, 0.99):
            short = content[: int(share * len(content))]
            yield name, f"cut to {len(short)} of {len(content)}", lambda path, short=short: path.write_bytes(short)
        if sys.platform == "linux":
            yield name, "unreadable", unreadable


def unreadable(path: Path) -> None:
    """Reading gives EIO, as of a broken disk: nothing is mapped at the start of a process's memory."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_missing_cut_and_unreadable_files_are_told(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid, root = valid_files(target, tmp_path / "valid"), tmp_path / "root"
    told = 0
    for name, how, breaks in changed_files(target, valid):
        job = Job(target=target, valid=valid, others=[], seed=0, start=0, stop=1)
        for partial in (0, 1):  # of the layouts' readers
            put(root, valid)
            monkeypatch.chdir(root)
            breaks(root / name)
            found = outcome(job, root, {name: b""}, Random(partial))
            assert found in ("accepted", "refused"), (name, how, found)
            told += found == "refused"
            shutil.rmtree(root)
    assert told > 0 or target.name == "crops"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_whole_files_are_read(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary for the tests of broken ones, and for the fuzzer: nothing else is wrong with what they break."""
    valid = valid_files(target, tmp_path / "valid")
    for name, content in valid.items():
        root = tmp_path / f"root-{name.replace('/', '-')}"
        put(root, valid)
        monkeypatch.chdir(root)
        job = Job(target=target, valid=valid, others=[], seed=0, start=0, stop=1)
        found = outcome(job, root, {name: content}, Random(2))
        assert found == "accepted", (name, found)


def test_the_unreadable_file_is_unreadable(tmp_path: Path) -> None:
    """A canary for the test above."""
    if sys.platform != "linux":
        pytest.skip("needs /proc")
    (tmp_path / "a").write_bytes(b"a")
    unreadable(tmp_path / "a")
    with pytest.raises(OSError, match="Input/output error"):
        (tmp_path / "a").read_bytes()


def test_a_flipped_bit_in_a_checkpoint_is_told(tmp_path: Path) -> None:
    """Any bit of it: in the header, in the tensors, in the optimiser's state."""
    products.write_fit(tmp_path)
    path = tmp_path / "fit.safetensors"
    content = path.read_bytes()
    for i in Random(0).sample(range(8 * len(content)), 300):
        flipped = bytearray(content)
        flipped[i // 8] ^= 1 << i % 8
        path.write_bytes(flipped)
        with pytest.raises(FitError, match=r"fit\.safetensors: "):
            load_training(tmp_path)
    path.write_bytes(content)
    assert load_training(tmp_path)[0].step == 10


def test_a_checkpoint_that_claims_another_size_takes_no_memory(tmp_path: Path) -> None:
    """With a checksum that is right: tables of 2^24 entries a level would take 3 GB."""
    products.write_fit(tmp_path)
    path = tmp_path / "fit.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    claims = {
        rb"\"log2_table_size\": 10": rb"\"log2_table_size\": 24",
        rb"\"finest_resolution\": 8": rb"\"finest_resolution\": 9000",
        rb"\"n_stops\": 3": rb"\"n_stops\": 1000000000",
        rb"\"scale\": 5.0": rb"\"scale\": \"5\"",
        rb"\"step\": 10": rb"\"step\": -1.5",
        rb"\"w_color\": 0.5": rb"\"w_color\": NaN",
    }
    for old, new in claims.items():
        header = content[8 : 8 + size]
        assert old in header, old
        header = header.replace(old, new)
        path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
        forge_checksum(path)
        if old.startswith(rb"\"log2"):
            continue  # so small a grid is dense at every level: its size does not depend on it
        with pytest.raises(FitError, match="not a fit of ours, or damaged"):
            load_fit(tmp_path)


def test_damaged_curves_cost_their_damaged_lines_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "scalars.csv"
    file.write_text("step,loss,samples\n0,0.5,10\nx,,\n1,0.25,20\n2,0.2,30\n1,0.")
    with caplog.at_level("WARNING"):
        rows = rows_before(2, file)
    assert [row["loss"] for row in rows] == ["0.5", "0.25"]
    assert "2 damaged lines are left out" in caplog.text
    assert rows_before(2, tmp_path / "none.csv") == []
    file.write_bytes(b"\xff\xfe\0")
    assert rows_before(2, file) == []


# ----------------------------------------------------------------------------------------------- sizes that are claimed


def test_a_picture_that_claims_too_many_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    """8192 x 8192 px are read, a row more is not; no pixel of either is there."""
    seeds.write_plain_folder(tmp_path)
    png = tmp_path / "images/0.png"
    for height, words in ((8192, "is for|want|truncated|decoded|correct"), (8193, "has 8192 x 8193 px, want at most")):
        png.write_bytes(b"P5 8192 %d 255\n" % height + b"\0")
        with pytest.raises(CaptureError, match=words):
            read_capture(tmp_path)


def test_an_npz_member_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "bomb.npz"
    files.write_npz(path, a=np.zeros(3))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.npy", bytes(100_000_000))
    with pytest.raises(ValueError, match="b has 100000000 bytes"):
        files.read_npz(path)
    assert set(files.read_npz(path, lambda name: name == "a")) == {"a"}


def test_an_array_that_claims_more_than_its_member_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    files.write_npz(path, a=np.zeros(3))
    content = path.read_bytes()
    path.write_bytes(content)
    import io
    import zipfile

    with zipfile.ZipFile(path) as archive:
        member = archive.read("a.npy").replace(b"(3,), }" + b" " * 11, b"(300000000000,), }")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.npy", member)
    path.write_bytes(packed.getvalue())
    with pytest.raises(ValueError, match=r"a says that it has the shape \(300000000000,\)"):
        files.read_npz(path)


def test_json_that_is_nested_or_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        files.read_json(path)
    with path.open("wb") as file:
        file.truncate(33 * 2**20)
    with pytest.raises(ValueError, match="want at most"):
        files.read_json(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.ply", b"ply\nformat binary_little_endian 1.0\nelement vertex 4000000000\n", "4000000000 of b'vertex'"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex -1\nend_header\n", "-1 of b'vertex'"),
        ("a.glb", b'glTF\2\0\0\0\0\1\0\0\x22\0\0\0JSON{"accessors":[{"count":90000000}]}', "arrays of 90000000"),
        ("a.stl", bytes(80) + b"\xff\xff\xff\xff" + bytes(50), "not readable as a mesh|no triangles in it"),
        ("a.zip", b"PK\3\4", "of no format that is read"),
    ],
)
def test_meshes_that_claim_too_much_are_refused(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(NeuralReconError, match=words) as caught:
        read_mesh(path)
    assert str(path) in str(caught.value)


def test_a_mesh_reads_no_file_outside_its_folder(tmp_path: Path) -> None:
    """An OBJ names its material; one that leads out, or to a device without an end, is not opened."""
    folder = tmp_path / "mesh"
    folder.mkdir()
    (tmp_path / "secret.mtl").write_text("newmtl a\nKd 1 0 0\n")
    for name in ("../secret.mtl", "/dev/zero", str(tmp_path / "secret.mtl")):
        text = f"mtllib {name}\nusemtl a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
        (folder / "a.obj").write_text(text)
        assert len(read_mesh(folder / "a.obj").faces) == 1


def test_depth_that_lies_in_another_file_is_not_read(tmp_path: Path) -> None:
    import h5py

    seeds.write_bigbird_folder(tmp_path)
    (tmp_path / "NP1_0.h5").rename(tmp_path / "elsewhere.h5")
    with h5py.File(tmp_path / "NP1_0.h5", "w") as file:
        file["depth"] = h5py.ExternalLink("elsewhere.h5", "depth")
    with pytest.raises(CaptureError, match=r"NP1_0\.h5: no dataset 'depth'"):
        read_capture(tmp_path)
    with h5py.File(tmp_path / "NP1_0.h5", "w") as file:
        file.create_dataset("depth", (12, 16), np.uint16, external=[("elsewhere.h5", 0, 384)])
    with pytest.raises(CaptureError, match=r"NP1_0\.h5: no dataset 'depth'"):
        read_capture(tmp_path)


# ---------------------------------------------------------------------------------------------------- killed processes


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_hundred_interrupted_checkpoints_never_leave_an_unreadable_one(tmp_path: Path) -> None:
    """SIGKILL at a random moment of a loop of saves: the checkpoint that is there is whole, and none goes back."""
    command = [sys.executable, str(ROOT / "tests" / "interrupted_saves.py"), str(tmp_path), "100"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10  # of the kills hit a write


# -------------------------------------------------------------------------------------------------- memory, and clocks


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_memory_that_runs_out_in_a_fit_is_told_with_what_to_lower(error: Exception) -> None:
    @telling_memory
    def fit(scene: object, config: FitConfig) -> None:
        raise error

    with pytest.raises(FitError, match="ran out of") as caught:
        fit(None, FitConfig(interior_rays=1000))
    for word in ("fit.interior_rays=500", "fit.edge_rays=256", "fit.depth_rays=1536", "fit.field.log2_table_size=16"):
        assert word in str(caught.value)
    assert ("the GPU" in str(caught.value)) == isinstance(error, torch.cuda.OutOfMemoryError)


def test_a_real_allocator_that_has_no_more_is_recognised() -> None:
    @telling_memory
    def fit(config: FitConfig) -> torch.Tensor:
        return torch.empty(1 << 60, dtype=torch.uint8)

    with pytest.raises(FitError, match=r"ran out of memory .*fit\.interior_rays=320"):
        fit(FitConfig())


def test_other_errors_of_a_fit_stay_as_they_are() -> None:
    @telling_memory
    def fit(config: FitConfig) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit(FitConfig())


def test_where_memory_lacks_for_several_at_once_the_rest_is_read_one_by_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    inside, lock = [0], threading.Lock()

    def read(item: int) -> int:
        with lock:
            inside[0] += 1
        time.sleep(0.005)
        with lock:
            n_inside = inside[0]
            inside[0] -= 1
        if item > 4 and n_inside > 1:
            raise CaptureError("too large") from MemoryError()
        return 10 * item

    with caplog.at_level("WARNING"):
        assert list(in_parallel("pictures read", read, range(20))) == [10 * i for i in range(20)]
    assert "one by one from here" in caplog.text

    def never(item: int) -> int:
        raise CaptureError("too large") from MemoryError()

    with pytest.raises(CaptureError, match="too large"):
        list(in_parallel("pictures read", never, range(3)))


def test_only_names_of_folders_and_logs_ask_the_wall_clock() -> None:
    """So that a clock that jumps changes nothing else: durations are of clocks that cannot, files go by equal times."""
    asked = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "datetime.now", "date.today"):
                asked.add(path.relative_to(PACKAGE).as_posix())
    assert asked <= {"train/run_folder.py", "train/folder_lock.py"}  # the lock's note says since when, for people


def test_a_clock_that_stands_still_gives_no_two_runs_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    import neuralrecon.train.run_folder as module

    class Still(module.datetime):
        @classmethod
        def now(cls, tz: object = None) -> Still:
            return cls(1970, 1, 1)

    monkeypatch.setattr(module, "datetime", Still)
    paths = []
    for _ in range(3):
        folder = RunFolder.chosen(None, "demo/box", "seed: 0\n", overwrite=False)
        folder.open()
        paths.append(folder.path)
    assert len(set(paths)) == 3
