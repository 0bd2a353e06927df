"""The stage function: a capture folder in BigBIRD's own layout, with ground truth."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

import h5py
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..capture.types import Sensor, SensorKind
from ..errors import ConfigError
from .depth import depth_view_of, measure_depth
from .masks import drawn_mask, hole_level
from .photo import develop, gains, take_picture, view_of
from .rig import build_rig, perturbed, write_calibration, write_poses, write_rig
from .settings import SimulateConfig
from .shapes import BUILTIN_MESHES, TexturedMesh
from .solid import Solid
from .stage import Stage, Stop
from .user_mesh import placed_mesh

_LOG = logging.getLogger(__name__)
_NOTE = (
    "rig.npz: K (exact), d (OpenCV k1 k2 p1 p2 k3), T = room from camera at any time = table from camera at angle 0, "
    "OpenCV axes; table from camera at angle A = Rz(+A) T"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    config: SimulateConfig
    folder: Path
    stage: Stage
    stops: dict[int, Stop]
    hole_level: float
    cancelled: threading.Event
    done: Callable[[], None]


def simulate(config: SimulateConfig, out: Path) -> Path:
    """Render an object on the rig into `out`, which appears only when it is whole; returns `out`.

    An `out` that already holds this very simulation is kept as it is.

    Raises:
        ConfigError: an unknown mesh, or an `out` that holds something else.
        MeshError: the mesh file cannot be used.

    Example:
        >>> simulate(SimulateConfig(mesh="mug", material=Material.glass), Path("captures/mug"))  # doctest: +SKIP
    """
    out = Path(out)
    settings = _settings(config)
    if _already_there(settings, out):
        return out
    textured = placed_mesh(config)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        folder.chmod(0o755)
        _write_capture(config, textured, folder, settings)
        folder.rename(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return out


def _settings(config: SimulateConfig) -> dict:
    """All that the result depends on."""
    settings = {key: value for key, value in asdict(config).items() if key != "workers"}
    if config.mesh not in BUILTIN_MESHES and Path(config.mesh).is_file():
        settings["mesh_sha256"] = hashlib.sha256(Path(config.mesh).read_bytes()).hexdigest()
    return settings


def _already_there(settings: dict, out: Path) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    params = out / "gt" / "params.json"
    try:
        found = json.loads(params.read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"out={out}: exists and is no simulated capture; name another folder or remove it") from None
    differing = [
        f"{k}={found.get(k)} (want {settings.get(k)})" for k in {**found, **settings} if found.get(k) != settings.get(k)
    ]
    if differing:
        raise ConfigError(
            f"out={out}: holds another simulation, {', '.join(sorted(differing))}; name another folder or remove it"
        )
    return True


def _write_capture(config: SimulateConfig, textured: TexturedMesh, folder: Path, settings: dict) -> None:
    for name in ("masks", "poses", "gt"):
        (folder / name).mkdir()
    angles = list(range(0, 360, 360 // config.n_stops))
    sensors = build_rig(config)
    write_calibration(folder / "calibration.h5", perturbed(sensors, config))
    write_calibration(folder / "gt" / "calibration_exact.h5", sensors)
    write_poses(folder / "poses", sensors, angles)
    write_rig(folder / "gt" / "rig.npz", sensors, angles)
    textured.mesh.export(folder / "gt" / "gt_mesh.ply")
    _write_params(folder / "gt" / "params.json", textured, settings)
    solid = Solid.build(textured)
    stage = Stage.build(solid, config.material, config.seed)
    with _progress(len(sensors) * len(angles), f"simulate {config.mesh}, {config.material}") as done:
        job = _Job(
            config=config,
            folder=folder,
            stage=stage,
            stops={angle: stage.at(float(angle)) for angle in angles},
            hole_level=hole_level(solid.vertices, config),
            cancelled=threading.Event(),
            done=done,
        )
        _run_sensors(job, sensors)


def _run_sensors(job: _Job, sensors: tuple[Sensor, ...]) -> None:
    with ThreadPoolExecutor(job.config.workers) as pool:
        try:
            tasks = [pool.submit(_run_sensor, job, sensor) for sensor in sensors]
            for task in as_completed(tasks):
                task.result()
        except BaseException:
            job.cancelled.set()
            pool.shutdown(cancel_futures=True)
            raise


def _run_sensor(job: _Job, sensor: Sensor) -> None:
    write = _depth_writer(job, sensor) if sensor.kind == SensorKind.depth else _photo_writer(job, sensor)
    for angle in job.stops:
        if job.cancelled.is_set():
            return
        write(angle)
        job.done()
    _LOG.info("simulated %s at %d stops", sensor.name, len(job.stops))


def _depth_writer(job: _Job, sensor: Sensor) -> Callable[[int], None]:
    any_stop = next(iter(job.stops.values()))
    view, seed = depth_view_of(sensor, any_stop), crc32(sensor.name.encode())

    def write(angle: int) -> None:
        rng = np.random.default_rng([job.config.seed, 8, seed, angle])
        raw = measure_depth(view, job.stops[angle], job.config.depth_noise, rng)
        with h5py.File(job.folder / f"{sensor.name.removesuffix('_depth')}_{angle}.h5", "w") as file:
            file.create_dataset("depth", data=raw, compression="gzip", compression_opts=2)

    return write


def _photo_writer(job: _Job, sensor: Sensor) -> Callable[[int], None]:
    any_stop = next(iter(job.stops.values()))
    view, seed = view_of(sensor, any_stop, job.config.supersample), crc32(sensor.name.encode())

    def write(angle: int) -> None:
        picture = take_picture(view, job.stops[angle])
        rng = np.random.default_rng([job.config.seed, 9, seed, angle])
        pixels = develop(picture.color, gains(job.stage, job.config, seed, angle), job.config.color_noise, rng)
        path = job.folder / f"{sensor.name}_{angle}.jpg"
        Image.fromarray(pixels).save(path, quality=job.config.jpeg_quality, subsampling=0)
        mask = drawn_mask(picture.coverage, picture.points, job.hole_level, job.config, seed)
        # BigBIRD draws the object black
        Image.fromarray(~mask).save(job.folder / "masks" / f"{sensor.name}_{angle}_mask.pbm")

    return write


def _write_params(path: Path, textured: TexturedMesh, settings: dict) -> None:
    params = {"settings": settings, "note": _NOTE, "warnings": []}
    if not textured.mesh.is_volume:
        warning = (
            f"{settings['mesh']} is no closed, consistently wound solid; gt_mesh.ply is written as it is: "
            "volumes, occupancies and light through glass mean little"
        )
        _LOG.warning(warning)
        params["warnings"].append(warning)
    path.write_text(json.dumps(params, indent=1) + "\n")


@contextmanager
def _progress(total: int, title: str) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, a log line elsewhere; yields what to call after each image."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        _LOG.info("%s: %d images", title, total)
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
