"""Every reader against broken files: none crashes; and the fuzzer sees what it is to see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from benchmarks.fuzz import valid_files
from benchmarks.fuzz_mutations import mutated
from benchmarks.fuzz_targets import TARGETS, Target
from benchmarks.fuzz_worker import Job, broken

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are bounded by what Linux has for that")

# A reader that does what no reader may, and one that does its work: what the fuzzer says of each.
MISBEHAVED = """
import os, signal, sys
from pathlib import Path
from neuralrecon.errors import CaptureError
from benchmarks.fuzz import Target, run
from benchmarks.fuzz_worker import Job, Limits

def refuses(root, changed, rng):
    raise CaptureError(f"{root / 'a.bin'}: is broken; restore it")

def names_nothing(root, changed, rng):
    raise CaptureError("is broken")

def raises(root, changed, rng):
    raise KeyError("x")

def takes_memory(root, changed, rng):
    b"x" * 80_000_000

def swallows(root, changed, rng):
    try:
        b"x" * 8_000_000_000
    except MemoryError as error:
        raise CaptureError(f"{root}: is broken") from error

def dies(root, changed, rng):
    os.kill(os.getpid(), signal.SIGSEGV)

def hangs(root, changed, rng):
    while True:
        pass

readers = (refuses, names_nothing, raises, takes_memory, swallows, dies, hangs)
jobs = [
    Job(target=Target(name=f.__name__, write=None, read=f), valid={"a.bin": b"abcdefgh"}, others=[b"x"], seed=0,
        start=0, stop=2)
    for f in readers
]
out = Path(sys.argv[1])
rows = run(jobs, 2, out / "scratch", out, limits=Limits(memory_mb=50, cpu_s=0.3))
for row in rows:
    assert (row.accepted, row.refused, row.crashed) == ((0, 2, 0) if row.reader == "refuses" else (0, 0, 2)), row
print((out / "crashes.jsonl").read_text())
"""


def python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_no_reader_crashes(tmp_path: Path) -> None:
    done = python("-m", "benchmarks", "fuzz", "--inputs", "4000", "--seed", "7", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "fuzz.json").read_text())
    rows = {row["reader"]: row for row in figures["rows"]}
    assert set(rows) == {target.name for target in TARGETS}
    assert sum(row["accepted"] + row["refused"] for row in rows.values()) >= 3990
    for name, row in rows.items():
        assert row["refused"] > 0 or name == "crops", name  # damaged descriptions of crops are told in the log
        assert row["accepted"] > 0, name
        assert row["most_mb"] < 1000, name
        assert row["slowest_s"] < 10, name


def test_the_fuzzer_sees_each_kind_of_crash(tmp_path: Path) -> None:
    """A canary for the test above."""
    (tmp_path / "scratch").mkdir()
    done = python("-c", MISBEHAVED, str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    reasons = {}
    for line in done.stdout.strip().splitlines():
        told = json.loads(line)
        reasons[told["reader"]] = told["reason"]
        assert (tmp_path / "crashes" / f"{told['reader']}-{told['input']}").is_dir()
    assert reasons["names_nothing"].startswith("names no file: CaptureError: is broken")
    assert reasons["raises"].startswith("KeyError at")
    assert reasons["takes_memory"].endswith("MB of memory")
    assert reasons["swallows"].startswith("out of memory, told as CaptureError")
    assert reasons["dies"].startswith("killed by SIGSEGV")
    assert reasons["hangs"].startswith("more than 0.3 s of the processor")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_an_input_is_a_function_of_its_number(target: Target, tmp_path: Path) -> None:
    valid = valid_files(target, tmp_path / "a")
    assert valid == valid_files(target, tmp_path / "b" / "c")
    job = Job(target=target, valid=valid, others=list(valid.values()), seed=1, start=0, stop=40)
    drawn = [{name: v for name, v in broken(job, i)[0].items() if isinstance(v, bytes)} for i in range(40)]
    again = [{name: v for name, v in broken(job, i)[0].items() if isinstance(v, bytes)} for i in range(40)]
    assert drawn == again
    assert (
        sum(files != {name: valid[name] for name in files} for files in drawn) >= 30
    )  # the rest happens to be as it was


def test_mutations_get_past_checksums(tmp_path: Path) -> None:
    """Most changed PNG files have right checksums, most changed zip files can be opened."""
    import io
    import zipfile

    from PIL import Image as PILImage

    picture, archive = io.BytesIO(), io.BytesIO()
    PILImage.new("RGB", (8, 8)).save(picture, "PNG")
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.npy", bytes(200))
    n_pictures = n_archives = 0
    for i in range(200):
        try:
            with PILImage.open(io.BytesIO(mutated(picture.getvalue(), [b"x"], Random(i)))) as image:
                image.verify()
                n_pictures += 1
        except Exception:  # what a decoder raises
            pass
        n_archives += zipfile.is_zipfile(io.BytesIO(mutated(archive.getvalue(), [b"x"], Random(i))))
    assert n_pictures > 40
    assert n_archives > 100
