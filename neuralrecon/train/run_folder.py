"""The output folder of a run: whose it is, its settings, its log, its timings."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from datetime import datetime
from enum import Enum
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from ..capture import Capture, read_capture
from ..capture.description import capture_of, described, read_description
from ..capture.entries import Entry
from ..errors import CaptureError, ConfigError, MachineError, NeuralReconError, OutOfMemory
from ..files import flush, read_json, replacing
from ..usage import nearest
from .folder_lock import LOCK_FILE, alone_in

CONFIG_FILE, SUMMARY_FILE, FAILURE_FILE, LOG_FILE = "config.yaml", "summary.json", "failure.json", "log.txt"
FIT_FOLDER, LABEL_FOLDER, INLIER_FOLDER, MESH_FILE = "fit", "labels", "depth_inliers", "mesh.ply"
EVIDENCE_FILE, REPORT_FILE, PREVIEW_FILE = "evidence.npz", "report.html", "preview.jpg"
TRUTH_FILE = Path("gt") / "gt_mesh.ply"  # in a simulated capture
# These know by themselves what they were made from, and are taken again by any run for which they are right.
CALIBRATION_FOLDER, MASK_FOLDER, CROP_FOLDER = "calibration", "masks", "crops"
CAPTURE_FILE = "capture_used.json"
# what a run writes, and what overwriting takes away
_OURS = (
    CONFIG_FILE,
    SUMMARY_FILE,
    FAILURE_FILE,
    LOG_FILE,
    CAPTURE_FILE,
    FIT_FOLDER,
    LABEL_FOLDER,
    INLIER_FOLDER,
    EVIDENCE_FILE,
    REPORT_FILE,
    PREVIEW_FILE,
    "mesh.*",
    "mesh_textured.*",
    "texture.json",
)
# what `replacing` leaves when it is killed
_HALF = re.compile(r"\..+\.\d+(\.\w+)?")
_OUR_HALF = re.compile(
    r"\.(config|summary|failure|capture_used|evidence|report|preview|mesh|mesh_textured|texture)\.\d+\.\w+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Where a run writes. `goes_on`: a run with the same settings broke off there, and its fit is of use."""

    path: Path
    settings: str
    goes_on: bool
    overwrite: bool = False

    @staticmethod
    def chosen(out: Path | None, name: str, settings: str, *, overwrite: bool) -> RunFolder:
        """`out`, or outputs/{name}/{date and time}. Nothing is written yet.

        Args:
            settings: the text of config.yaml; a folder with the same text and no summary is an unfinished run.
            overwrite: whether another run may be replaced.

        Raises:
            ConfigError: a finished run, a run with other settings, or files that are no run's.
        """
        if out is None:
            dated = Path("outputs") / name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
            path = next(p for p in [dated, *(Path(f"{dated}-{i}") for i in range(2, 10_000))] if not p.exists())
            return RunFolder(path=path, settings=settings, goes_on=False)
        if out.exists() and not out.is_dir():
            raise ConfigError(f"out={out} is a file; name a folder")
        if not out.exists() or all(_is_none(entry) for entry in out.iterdir()):
            return RunFolder(path=out, settings=settings, goes_on=False, overwrite=overwrite)
        if not (out / CONFIG_FILE).exists():
            raise ConfigError(f"out={out} has files in it that are no run's; name a new or empty folder")
        same = _is_text(out / CONFIG_FILE, settings)
        finished = (out / SUMMARY_FILE).exists()
        if not overwrite and (finished or not same):
            found = "a finished run" if finished else "a run with other settings"
            raise ConfigError(f"out={out} holds {found}; add overwrite=true to replace it, or name another folder")
        return RunFolder(path=out, settings=settings, goes_on=same and not finished, overwrite=overwrite)

    def open(self) -> None:
        """Make it ready: an earlier run's files go away, but for a fit that this one goes on from."""
        self.path.mkdir(parents=True, exist_ok=True)
        for half in _halves(self.path):
            half.unlink()
        for old in [entry for pattern in _OURS for entry in self.path.glob(pattern)]:
            # the settings stay until others replace them: a folder without any would be no run's
            if old.name != CONFIG_FILE and not (self.goes_on and old.name == FIT_FOLDER):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        self.write_text(CONFIG_FILE, self.settings)

    def write_text(self, name: str, text: str) -> None:
        with replacing(self.path / name) as temporary:
            temporary.write_text(text)

    def write_capture(self, capture: Capture) -> None:
        """The capture as the run has it, with its calibration and outlines: `used_capture` reads it."""
        masks = (i.mask_path for i in capture.images if i.mask_path is not None)
        files = [capture.root, *(i.path for i in capture.images), *masks]
        base = Path(os.path.commonpath([file.resolve() for file in files]))
        told = {
            "base": str(base),
            "root": str(capture.root.resolve()),
            "layout": capture.layout,
            "capture": [described(replace(capture, points_path=None), base)],
        }
        self.write_text(CAPTURE_FILE, json.dumps(told, indent=1) + "\n")

    def fail(self, error: Exception, stage: str) -> None:
        """Write failure.json: which error ended the run, in which stage, and whether it lay in what the user gave.

        `smaller` are the settings that need half the memory, if that ran out.
        """
        told = {
            "status": "failed",
            "stage": stage,
            "error": type(error).__name__,
            "message": " ".join(str(error).split()) or repr(error),
            "lies_in_input": isinstance(error, NeuralReconError) and not isinstance(error, MachineError),
            "smaller": list(error.smaller) if isinstance(error, OutOfMemory) else [],
            "at": datetime.now().isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # a full disk has no room for this either; the command's own message says it
            self.write_text(FAILURE_FILE, json.dumps(told, indent=2) + "\n")

    def finish(self, summary: Any) -> None:
        """Write summary.json, the sign that all is there, and on the disk: a power cut must not leave it alone."""
        for file in self.path.rglob("*"):
            if file.is_file():
                flush(file)
        self.write_text(SUMMARY_FILE, json.dumps(plain(summary), indent=2) + "\n")


def _is_none(entry: Path) -> bool:
    """Whether it is nothing of a run's yet: the lock, or half of what a run that was killed at once had begun."""
    return entry.name == LOCK_FILE or _OUR_HALF.fullmatch(entry.name) is not None


def _halves(folder: Path) -> list[Path]:
    """Files that a killed run was writing, each of them the temporary one of `replacing`."""
    ours = [folder / name for name in (FIT_FOLDER, CALIBRATION_FOLDER, MASK_FOLDER, CROP_FOLDER)]
    inside = [path for sub in ours for path in sub.rglob(".*") if _HALF.fullmatch(path.name)]
    return inside + [path for path in folder.glob(".*") if _OUR_HALF.fullmatch(path.name)]


@contextmanager
def held(folder: RunFolder, stages: Stages, log_to: Callable[[Path], None]) -> Iterator[Callable[[], RunFolder]]:
    """Give a function that opens the folder for this run alone, with its log; note in it why a run ends early.

    A run that fails before it opens the folder leaves failure.json there, too, unless it was called wrongly or a
    finished run is there.
    """
    opened: list[RunFolder] = []
    with ExitStack() as stack:

        def open_folder() -> RunFolder:
            folder.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone_in(folder.path))
            # another run may have come and gone since
            now = RunFolder.chosen(folder.path, "", folder.settings, overwrite=folder.overwrite)
            now.open()
            opened.append(now)
            log_to(now.path / LOG_FILE)
            return now

        try:
            yield open_folder
        except ConfigError:
            raise
        except Exception as error:
            if not opened and not (folder.path / SUMMARY_FILE).exists():
                with suppress(OSError, ConfigError):
                    open_folder()
            for now in opened:
                now.fail(error, stages.now)
            raise


def _is_text(file: Path, text: str) -> bool:
    """Whether the file holds this text; damaged ones do not."""
    try:
        return file.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def require_run(folder: Path, *needed: str) -> None:
    """That a folder is a run's and has these files.

    Raises:
        ConfigError: it is not, or has not.
    """
    if not folder.is_dir():
        parent = next(p for p in folder.absolute().parents if p.is_dir())
        near = nearest(folder.name, [p.name for p in parent.iterdir() if p.is_dir()])
        raise ConfigError(f"run={folder}: no such folder in {parent}{near}")
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        raise ConfigError(f"run={folder}: no {' and no '.join(missing)} in it; give the folder that a run wrote")


def origin_of(folder: Path) -> tuple[str, Path]:
    """Name and capture of the object that a finished run reconstructed."""
    require_run(folder, SUMMARY_FILE)
    try:
        summary = Entry.of(read_json(folder / SUMMARY_FILE), f"{folder / SUMMARY_FILE}: the file")
        return summary.text("name"), Path(summary.text("capture"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"run={folder}: {SUMMARY_FILE} is damaged ({error}); give the command of the run again with overwrite=true"
        ) from error


def used_capture(folder: Path) -> Capture:
    """The capture that a finished run reconstructed, calibrated and outlined as it was there.

    Raises:
        ConfigError: the folder is no finished run's.
        CaptureError: its capture is not described, or wrongly.
    """
    _, root = origin_of(folder)
    return described_capture(folder) if (folder / CAPTURE_FILE).exists() else read_capture(root)


def described_capture(folder: Path) -> Capture:
    """The capture that a run, finished or not, has described in its folder. No image file is looked at.

    Raises:
        CaptureError: its description is missing or damaged.
    """
    file = folder / CAPTURE_FILE
    told = read_description(file, "description of the run's capture")
    base, layout = Path(told.text("base")), told.text("layout")
    [entry, *others] = told.entries("capture")
    if others:
        raise CaptureError(f"{file}: describes {len(others) + 1} captures, want one; run again with overwrite=true")
    return replace(capture_of(entry, base, layout), root=Path(told.text("root")))


def plain(value: Any) -> Any:
    """A dataclass tree as what JSON knows: paths and enums as text, tuples as lists, None for what is not finite."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if value - value == 0 else None
    return str(value) if isinstance(value, Path) else value


def as_yaml(settings: Any, indent: str = "") -> str:
    """A settings dataclass as YAML: nested keys indented, values as JSON writes them."""
    lines = []
    for key, value in plain(settings).items() if not isinstance(settings, dict) else settings.items():
        nested = isinstance(value, dict) and value
        lines.append(f"{indent}{key}:" + ("" if nested else f" {_flow(value)}"))
        lines += [as_yaml(value, indent + "  ")] if nested else []
    return "\n".join(lines) + ("" if indent else "\n")


def _flow(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_flow(item) for item in value)}]"
    text = json.dumps(value)
    # YAML 1.1 takes 1e-05 for text and 1.0e-05 for a number
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text


@dataclass(slots=True)
class Stages:
    """Seconds of each stage, and the most memory in MB that the process had held by its end; which one runs `now`."""

    now: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        self.now, started = name, time.perf_counter()
        yield
        self.now = ""
        self.seconds[name] = round(time.perf_counter() - started, 2)
        unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
        self.peak_memory_mb[name] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


@contextmanager
def kept_log() -> Iterator[Callable[[Path], None]]:
    """Keep what the package logs; the function in hand names the file that it goes to, from the first line on."""
    logger = logging.getLogger(__package__.partition(".")[0] if __package__ else None)
    kept = MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)

    def to(path: Path) -> None:
        file = logging.FileHandler(path, mode="w")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        kept.setTarget(file)
        kept.flush()
        kept.flushLevel = logging.NOTSET  # from now on line by line: a kill leaves a log, too

    try:
        yield to
    except BaseException as error:
        trace = None if isinstance(error, NeuralReconError | KeyboardInterrupt) else sys.exc_info()
        kept.handle(logger.makeRecord(logger.name, logging.ERROR, __file__, 0, f"ended: {error!r}", (), trace))
        raise
    finally:
        kept.flush()
        if isinstance(kept.target, logging.FileHandler):
            kept.target.close()
        kept.close()
        logger.removeHandler(kept)
        logger.setLevel(level)
