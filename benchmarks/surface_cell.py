"""What one cell of the surface benchmark does, in a process of its own."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from neuralrecon.calibrate import calibrate_capture
from neuralrecon.capture import Capture, SensorKind, read_capture
from neuralrecon.errors import NeuralReconError
from neuralrecon.evaluate import closedness, evaluate_mesh
from neuralrecon.evaluate.stage import read_mesh
from neuralrecon.evaluate.views import evaluate_views
from neuralrecon.extract import MeshConfig, extract_mesh, write_mesh
from neuralrecon.label import Solid, depth_inliers, views_of
from neuralrecon.scene import Scene
from neuralrecon.simulate import simulate
from neuralrecon.train import Fit, fit
from neuralrecon.train.run import TRUTH_FILE
from neuralrecon.train.run_folder import Stages, plain

from .depth_truth import WRONG_M, bad_depth_share, depth_error
from .fits import fit_config
from .paired import auroc
from .surface_ablations import ABLATIONS
from .surface_baselines import ClassicalConfig, from_depth, hull_mesh
from .surface_cases import CAPTURE, Cell, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A cell and where its files are. `python` runs the methods that need Open3D; `mesh` is where the mesh is kept."""

    cell: Cell
    settings: Settings
    capture: Path
    python: str
    n_threads: int
    mesh: Path | None

    def as_json(self) -> str:
        return json.dumps(plain(asdict(self)))

    @staticmethod
    def from_json(text: str) -> Job:
        told = json.loads(text)
        settings = told["settings"]
        known = {"cell": Cell(**told["cell"]), "settings": Settings(**settings | {"fit": tuple(settings["fit"])})}
        known |= {"capture": Path(told["capture"]), "mesh": None if told["mesh"] is None else Path(told["mesh"])}
        return Job(**told | known)


def run_job(text: str) -> int:
    """Prints the outcome as a line of JSON; 1 with a line on what went wrong."""
    try:
        outcome = outcome_of(Job.from_json(text))
    except NeuralReconError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(plain(outcome)))
    return 0


def outcome_of(job: Job) -> dict[str, Any]:
    """Figures by their names in `Record`."""
    stages, cell = Stages(), job.cell
    if cell.method == CAPTURE:
        with stages.timed("simulate"):
            simulate(job.settings.simulate_config(cell, job.n_threads), job.capture)
    capture, truth = read_capture(job.capture), read_mesh(job.capture / TRUTH_FILE)
    if cell.method == CAPTURE:
        return {"bad_depth": bad_depth_share(capture, Solid.of(truth)), "seconds": stages.seconds}
    if job.settings.refines:
        with stages.timed("calibration"):
            capture = calibrate_capture(capture).capture
    mesh, told_of_fit = _mesh_of(job, capture, truth, stages)
    if job.mesh is not None:
        job.mesh.parent.mkdir(parents=True, exist_ok=True)
        write_mesh(mesh, job.mesh)
    with stages.timed("evaluation"):
        views = views_of(capture, kinds=(SensorKind.color,))
        report = evaluate_mesh(mesh, truth, job.settings.evaluate_config(), views=views, on_table=True)
    told = closedness(mesh)
    return {
        "scores": asdict(report.raw),
        "closed": told.is_watertight and told.is_winding_consistent and told.volume_cm3 > 0,
        **told_of_fit,
        "seconds": stages.seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
    }


def _mesh_of(
    job: Job, capture: Capture, truth: trimesh.Trimesh, stages: Stages
) -> tuple[trimesh.Trimesh, dict[str, float | None]]:
    """The method's mesh; of ours, how well it ranks depth readings and predicts photographs that are held out."""
    method = job.cell.method
    if method in ("tsdf", "poisson"):
        with stages.timed("mesh"):
            return from_depth(capture, method, ClassicalConfig(), job.python), {}
    if method == "hull":
        with stages.timed("mesh"):
            return hull_mesh(capture, ClassicalConfig()), {}
    with stages.timed("scene"):
        scene, config = Scene.from_capture(capture), fit_config(job.settings.fit)
        if method in ABLATIONS:
            scene, config = ABLATIONS[method](scene, config)
    with stages.timed("fit"):
        result = fit(scene, config, seed=job.cell.seed)
    with stages.timed("mesh"):
        mesh = extract_mesh(result, MeshConfig(voxel_mm=job.settings.voxel_mm, vertex_colors=False))
    with stages.timed("colours"):
        psnr_db = evaluate_views(result, scene).psnr_db if scene.held_out else None
    return mesh, {"depth_auroc": depth_auroc(capture, scene, mesh, result, Solid.of(truth)), "psnr_db": psnr_db}


def depth_auroc(capture: Capture, scene: Scene, mesh: trimesh.Trimesh, result: Fit, truth: Solid) -> float | None:
    """How well the readings' probability tells right from wrong, over all whose rays meet the true object.

    None where there is no right reading, or no wrong one.
    """
    probability, right = [], []
    for found in depth_inliers(capture, scene, mesh, result):
        error = depth_error(capture, found.image, truth)
        told = np.isfinite(error)
        probability.append(found.probability[told])
        right.append(error[told] <= WRONG_M)
    return auroc(np.concatenate(probability), np.concatenate(right)) if probability else None
