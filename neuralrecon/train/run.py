"""The whole way for one object, in one output folder: capture, evidence, fit, mesh, labels, evaluation."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh

from ..capture import Capture, read_capture
from ..errors import CaptureError, ConfigError
from ..evaluate import closedness, depth_residual_mm, evaluate_files
from ..evaluate.views import ViewReport, evaluate_views
from ..extract import extract_mesh, write_mesh
from ..files import replacing, write_npz
from ..label import Evidence, depth_inliers, evidence_kinds, write_depth_inliers, write_labels
from ..report import Run, write_report
from ..scene import Scene, read_photographs
from ..segment import MasksFrom, outlined, segment
from ..simulate import simulate
from ..texture import TextureReport, require_xatlas, texture_run
from ..view.beside import viewer_beside
from . import Fit, device_of, fit
from .checkpoint import has_fit, load_training
from .interrupts import Interrupts, interrupts
from .prepared import CalibrationFrom, Prepared, from_photos, is_from_photos, lacks_outlines, refined
from .run_config import MeshFormat as MeshFormat
from .run_config import ObjectConfig as ObjectConfig
from .run_config import RunConfig as RunConfig
from .run_folder import (
    CALIBRATION_FOLDER,
    CROP_FOLDER,
    EVIDENCE_FILE,
    FIT_FOLDER,
    INLIER_FOLDER,
    LABEL_FOLDER,
    MASK_FOLDER,
    MESH_FILE,
    RunFolder,
    Stages,
    as_yaml,
    held,
    kept_log,
    plain,
)
from .run_folder import (
    TRUTH_FILE as TRUTH_FILE,
)
from .snapshots import Snapshots
from .summary import RunSummary as RunSummary
from .summary import versions
from .verdict import Figures, Verdict, judged, observed_share

_log = logging.getLogger(__name__)

_DOWNLOADED_SETS = ("bigbird", "ycb")
_UNSCALED = "unscaled: the world is not in metres; mm and cm3 of mesh, labels and figures are none"


def run(config: RunConfig) -> RunSummary:
    """Reconstruct one object. All files are in the summary's folder, each whole; summary.json comes last.

    A run that broke off goes on from its fit's last checkpoint when the same command is given again.

    Raises:
        ConfigError: no such object or capture, or the output folder holds another run.
        NeuralReconError: a stage cannot go on; the message says why, and so does failure.json.
        StoppedError: a signal asked for the end; the fit has written a checkpoint.

    Example:
        >>> summary = run(RunConfig(capture=Path("data/mine/cup"), out=Path("outputs/cup")))  # doctest: +SKIP
        >>> summary.mesh.is_watertight  # doctest: +SKIP
        True
    """
    stages = Stages()
    device_of(config.device)  # before anything is written
    if config.texture:
        require_xatlas()
    name = config.object.name if config.capture is None else config.capture.resolve().stem
    folder = RunFolder.chosen(config.out, name, settings_of(config), overwrite=config.overwrite)
    with (
        kept_log() as log_to,
        interrupts() as asked,
        held(folder, stages, log_to) as open_folder,
        viewer_beside(config.viewer, config.viewer_host, config.viewer_port) as show,
    ):
        with stages.timed("capture"):
            path = _capture_folder(config)
            known = None if is_from_photos(path, config.calibration) else _capture(path, config)
        folder = open_folder()
        show(folder.path)
        prepared = _prepared(path, known, config, folder.path, stages)
        folder.write_capture(prepared.capture)
        with stages.timed("scene"):
            scene = Scene.from_capture(
                prepared.capture, config.scene, surface=config.surface, folder=folder.path / CROP_FOLDER
            )
        with stages.timed("fit"):
            result = _fit(scene, config, folder.path / FIT_FOLDER, asked)
        summary = replace(_products(result, scene, prepared, config, folder, stages), name=name)
        _log.info("%s: %s", name, "; ".join([summary.verdict.status, *summary.verdict.reasons]))
        if config.report:
            with stages.timed("report"):
                write_report(Run.of(folder.path, plain(summary), prepared.capture, result))
        folder.finish(summary)
        _log.info("%s: done in %.0f s; all is in %s", name, sum(stages.seconds.values()), folder.path)
        if not summary.is_metric:
            _log.warning(_UNSCALED)
        return summary


def _prepared(path: Path, known: Capture | None, config: RunConfig, folder: Path, stages: Stages) -> Prepared:
    """The capture with poses and outlines; photographs of the path if it is not known yet."""
    if known is None:
        with stages.timed("calibration"):
            prepared = from_photos(path, config.photos, folder / CALIBRATION_FOLDER)
        prepared = replace(prepared, capture=_restricted(prepared.capture, config))
    elif config.calibration == CalibrationFrom.given:
        prepared = Prepared(capture=known, calibration="given", warnings=())
    else:
        with stages.timed("calibration"):
            prepared = refined(known, config.calibration, config.calibrate, folder / CALIBRATION_FOLDER)
    if lacks_outlines(prepared.capture) and config.masks in (MasksFrom.auto, MasksFrom.given):
        with stages.timed("segmentation"):
            return replace(prepared, capture=segment(prepared.capture, config.segment, folder / MASK_FOLDER))
    with stages.timed("masks"):
        found = outlined(prepared.capture, config.masks, config.segment, folder / MASK_FOLDER)
    return replace(prepared, capture=found.capture, warnings=(*prepared.warnings, *found.warnings))


def settings_of(config: RunConfig) -> str:
    """The text of config.yaml, by which a run knows its own folder again."""
    unseen = RunConfig()  # whoever looks on changes nothing
    return as_yaml(
        replace(
            config,
            out=None,
            overwrite=False,
            viewer=unseen.viewer,
            viewer_host=unseen.viewer_host,
            viewer_port=unseen.viewer_port,
        )
    )


def _capture(path: Path, config: RunConfig) -> Capture:
    try:
        capture = read_capture(path, allow_partial=config.allow_partial)
    except CaptureError as error:
        if not path.is_dir():
            raise ConfigError(str(error)) from error  # a mistyped path is no broken capture
        raise
    for line in capture.left_out:
        _log.info("left out: %s", line)
    return _restricted(capture, config)


def _restricted(capture: Capture, config: RunConfig) -> Capture:
    sensors = config.sensors or None
    return capture.restricted(sensors=sensors, every_nth_stop=config.every_nth_stop, downscale=config.downscale)


def _capture_folder(config: RunConfig) -> Path:
    wanted = config.object
    if config.capture is not None:
        return config.capture
    if not wanted.name:
        raise ConfigError("nothing to reconstruct: give an object or a capture, as in capture=data/mine/cup")
    if wanted.set == "demo":
        return _demo_capture(config)
    folder = config.data / wanted.folder
    if not folder.is_dir():
        command = f"python -m neuralrecon.download object={wanted.name} data={config.data} fetches it"
        raise ConfigError(
            f"{wanted.name}: no folder {folder.absolute()}; "
            f"{command if wanted.set in _DOWNLOADED_SETS else 'unpack it there'}, or set data=DIR or "
            f"NEURALRECON_DATA to the folder that holds {wanted.folder}, or give capture=PATH"
        )
    return folder


def _demo_capture(config: RunConfig) -> Path:
    """The object's simulated capture, made once for each way of simulating it."""
    recipe = plain(config.simulate) | {"workers": None}  # these change the time only
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
    folder = config.data / f"{config.object.folder}-{digest}"
    if folder.is_dir():
        _log.info("%s: capture in %s", config.object.name, folder)
        return folder
    _log.info("%s: simulating its capture into %s", config.object.name, folder)
    return simulate(config.simulate, folder)


def _fit(scene: Scene, config: RunConfig, folder: Path, asked: Interrupts) -> Fit:
    """Train, or go on from what a run that broke off has left in the folder."""
    if has_fit(folder):
        left, training = load_training(folder)
        if training is None:
            _log.info("going on from the finished fit in %s", folder)
            return left.to(device_of(config.device))
    with asked.noted():
        return fit(
            scene,
            config.fit,
            seed=config.seed,
            device=config.device,
            folder=folder,
            interrupts=asked,
            snapshots=Snapshots(folder=folder),
        )


def _products(
    result: Fit, scene: Scene, prepared: Prepared, config: RunConfig, folder: RunFolder, stages: Stages
) -> RunSummary:
    """Mesh, labels and evaluation of a fit, in its folder."""
    capture = prepared.capture
    with stages.timed("mesh"):
        mesh = extract_mesh(result, config.mesh)
        for name in dict.fromkeys([MESH_FILE, *(f"mesh.{suffix}" for suffix in config.formats)]):
            with replacing(folder.path / name) as temporary:
                write_mesh(mesh, temporary)
    inlier_folder, depth = None, ()
    if scene.readings is not None:
        with stages.timed("depth"):
            inlier_folder = folder.path / INLIER_FOLDER
            depth = write_depth_inliers(depth_inliers(capture, scene, mesh, result), inlier_folder)
    with stages.timed("labels"):
        shown = result if scene.surface.is_opaque_and_rough else None
        evidence = None
        if capture.is_metric:
            kinds = evidence_kinds(mesh, capture, inlier_folder=inlier_folder, fit=shown)
            evidence = kinds != Evidence.none
            write_npz(folder.path / EVIDENCE_FILE, evidence=evidence, kind=kinds)
        labels = write_labels(
            mesh,
            folder.path / LABEL_FOLDER,
            config.label,
            name=(config.object.name if config.capture is None else capture.name).rpartition("/")[2],
            capture=capture,
            evidence=evidence,
            inlier_folder=inlier_folder,
            seed=config.seed,
        )
    truth = capture.root / TRUTH_FILE
    with stages.timed("evaluation"):
        file = folder.path / MESH_FILE
        report = evaluate_files(file, truth, config.evaluate, capture=capture) if truth.exists() else None
        views = evaluate_views(result, scene) if scene.held_out else None
        verdict = _verdict(mesh, scene, evidence, views, config)
    texture = _texture(mesh, result, scene, capture, config, folder, views, stages) if config.texture else None
    return RunSummary(
        name=capture.name,
        folder=folder.path,
        capture=capture.root.resolve(),
        n_images=len(capture.images),
        calibration=prepared.calibration,
        surface=scene.surface.kind.value,
        surface_reason=scene.surface.reason,
        depth=depth,
        unit="m" if capture.is_metric else "unscaled",
        is_metric=capture.is_metric,
        warnings=prepared.warnings if capture.is_metric else (*prepared.warnings, _UNSCALED),
        left_out=capture.left_out,
        verdict=verdict,
        mesh=closedness(mesh),
        size_mm=tuple(round(float(length) * 1e3, 2) for length in mesh.extents) if capture.is_metric else None,
        labels=labels,
        report=report,
        views=views,
        texture=texture,
        seconds=stages.seconds,
        peak_memory_mb=stages.peak_memory_mb,
        versions=versions(),
    )


def _texture(
    mesh: trimesh.Trimesh,
    result: Fit,
    scene: Scene,
    capture: Capture,
    config: RunConfig,
    folder: RunFolder,
    views: ViewReport | None,
    stages: Stages,
) -> TextureReport:
    with stages.timed("texture"):
        photographs = read_photographs(capture, config.scene, folder.path / CROP_FOLDER)
        return texture_run(mesh, result, photographs, folder.path, surface=scene.surface.kind, field=views)


def _verdict(
    mesh: trimesh.Trimesh, scene: Scene, evidence: np.ndarray | None, views: ViewReport | None, config: RunConfig
) -> Verdict:
    whole = closedness(mesh)
    figures = Figures(
        silhouette_iou=None if views is None else views.silhouette_iou,
        psnr_db=None if views is None else views.psnr_db,
        depth_residual_mm=depth_residual_mm(scene, mesh),
        is_closed=whole.is_watertight and whole.is_winding_consistent and whole.volume_cm3 > 0,
        n_bodies=whole.n_bodies,
        observed_share=None if evidence is None else observed_share(mesh, evidence),
    )
    return judged(figures, config.verdict)
