"""Real captures, of which the true shape is not known: judged by what was held out.

    python -m benchmarks.real depth-frames FOLDER [--out DIR]     masked depth frames, no photographs
    python -m benchmarks.real photos FOLDER [--out DIR]           photographs with masks (IDR's layout), no depth
    python -m benchmarks.real clear-frames FOLDER [--out DIR]     RGB-D frames with masks and poses, the object clear

See README.md here.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float

from neuralrecon.capture import Capture, read_capture
from neuralrecon.errors import NeuralReconError
from neuralrecon.evaluate import Closedness, closedness
from neuralrecon.evaluate.views import ViewScores, evaluate_views, render_photograph
from neuralrecon.extract import MeshConfig, extract_mesh, write_mesh
from neuralrecon.files import replacing
from neuralrecon.geometry import Rigid
from neuralrecon.label import Solid
from neuralrecon.scene import Scene, SceneConfig
from neuralrecon.scene.photographs import Photograph
from neuralrecon.train import Fit, FitConfig, fit
from neuralrecon.train.run_folder import Stages

from . import clear_frames as rgbd
from .depth_frames import points_of_file, split, to_plain
from .pictures import shaded, write_beside
from .report import table, write_json

_AROUND_PX = 16  # so far around a photograph's crop a mesh's silhouette may reach and still be counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """From depth readings to the mesh, in millimetres. `signed_median_mm` is positive where readings lie outside."""

    n_points: int
    median_mm: float
    mean_mm: float
    p90_mm: float
    signed_median_mm: float


def main(words: Sequence[str] | None = None) -> int:
    """0 if it ran to its end, 1 with one line on what is wrong."""
    args = _parser().parse_args(words)
    if args.out is None:
        args.out = Path("outputs/benchmarks") / args.folder.resolve().name
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("neuralrecon").setLevel(logging.INFO)
    try:
        args.benchmark(args)
    except NeuralReconError as error:
        print(f"{args.name}: {error}", file=sys.stderr)
        return 1
    return 0


def depth_frames(args: argparse.Namespace) -> None:
    """Fit all frames but every n-th, and say how far the readings of both kinds lie from the mesh."""
    stages = Stages()
    capture = to_plain(args.folder, args.out / "capture")
    training, held_out = split(capture, args.hold_out_every)
    mesh, _, _ = reconstruct(training, SceneConfig(), args, stages)
    files = {"held out": held_out, "training": [image.path.name for image in training.images]}
    for image in capture.images:
        if image.path.name in held_out:
            files[image.path.stem] = [image.path.name]
    solid = Solid.of(mesh)
    distances = {
        what: distances_to(solid, np.concatenate([points_of_file(args.folder, name) for name in names]))
        for what, names in files.items()
    }
    rows = [
        [
            what, d.n_points, f"{d.median_mm:.3f}", f"{d.mean_mm:.3f}", f"{d.p90_mm:.3f}", f"{d.signed_median_mm:+.3f}",
        ]
        for what, d in distances.items()
    ]  # fmt: skip
    print(table(["readings", "points", "median mm", "mean mm", "90 % mm", "signed median mm"], rows))
    closed = _tell(mesh)
    file = args.out / "depth_frames.json"
    print(write_json(file, settings=_settings(args), mesh=closed, distances=distances, stages=stages))


def photos(args: argparse.Namespace) -> None:
    """Fit all photographs but every n-th, and say how well the fit predicts those."""
    stages = Stages()
    capture = read_capture(args.folder)
    if args.metres_per_unit is not None:
        capture = in_metres(capture, args.metres_per_unit)
    _predict(capture, args, stages)


def clear_frames(args: argparse.Namespace) -> None:
    """Fit all frames but every n-th, and say how well the fit and the mesh predict the photographs of those."""
    stages = Stages()
    capture = rgbd.to_plain(args.folder, args.out / "capture")
    _predict(rgbd.without_depth(capture, args.hold_out_every), args, stages)


def reconstruct(
    capture: Capture, config: SceneConfig, args: argparse.Namespace, stages: Stages
) -> tuple[trimesh.Trimesh, Fit, Scene]:
    """Scene, fit and mesh by the library's defaults; mesh.ply goes to the out folder."""
    with stages.timed("scene"):
        scene = Scene.from_capture(capture, config)
    with stages.timed("fit"):
        result = fit(scene, fit_config(args.steps, args.rays), seed=args.seed)
    with stages.timed("mesh"):
        mesh = extract_mesh(result, MeshConfig(voxel_mm=args.voxel_mm))
    with replacing(args.out / "mesh.ply") as temporary:
        write_mesh(mesh, temporary)
    return mesh, result, scene


def fit_config(steps: int | None, rays: int | None) -> FitConfig:
    """The default, with other steps, or with other rays in the default's proportions; for trials."""
    config = FitConfig()
    if steps is not None:
        config = replace(config, steps=steps)
    if rays is None:
        return config
    parts = {name: getattr(config, name) for name in ("interior_rays", "edge_rays", "depth_rays")}
    return replace(config, **{name: max(1, n * rays // config.interior_rays) for name, n in parts.items()})


def distances_to(solid: Solid, points: Float[np.ndarray, "points 3"]) -> Distances:
    """From points (metres, the mesh's frame) to the closest ones on the surface."""
    signed = solid.signed_distance(points) * 1e3
    distance = np.abs(signed)
    return Distances(
        n_points=len(points),
        median_mm=float(np.median(distance)),
        mean_mm=float(distance.mean()),
        p90_mm=float(np.percentile(distance, 90)),
        signed_median_mm=float(np.median(signed)),
    )


def in_metres(capture: Capture, metres_per_unit: float) -> Capture:
    """The same capture with its world in metres, where its layout does not say what its unit is."""

    def scaled(rigid: Rigid) -> Rigid:
        return Rigid(rotation=rigid.rotation, translation=rigid.translation * metres_per_unit)

    bounds = capture.bounds and tuple(tuple(x * metres_per_unit for x in corner) for corner in capture.bounds)
    return replace(
        capture,
        sensors=tuple(replace(s, sensor_from_rig=scaled(s.sensor_from_rig)) for s in capture.sensors),
        frames=tuple(replace(f, rig_from_world=scaled(f.rig_from_world)) for f in capture.frames),
        bounds=bounds,
        is_metric=True,
    )


def picture_of(mesh: trimesh.Trimesh, result: Fit, scene: Scene, file: Path) -> Path:
    """The first photograph held out, its rendering, and the mesh from the same place."""
    photograph = scene.held_out[0]
    colors, _ = render_photograph(result, photograph)
    corner, shape = (photograph.crop.u0, photograph.crop.v0), photograph.inside.shape
    surface = shaded(mesh, photograph.camera, photograph.cam_from_world, corner, (shape[0], shape[1]))
    return write_beside(file, [photograph.rgb / 255, colors, surface])


def silhouette_iou(mesh: trimesh.Trimesh, photograph: Photograph) -> float:
    """Overlap of the mesh's silhouette, as the photograph's camera sees it, with the given one."""
    shape = (photograph.inside.shape[0] + 2 * _AROUND_PX, photograph.inside.shape[1] + 2 * _AROUND_PX)
    corner = (photograph.crop.u0 - _AROUND_PX, photograph.crop.v0 - _AROUND_PX)
    seen = shaded(mesh, photograph.camera, photograph.cam_from_world, corner, shape).any(axis=2)
    inside = np.pad(photograph.inside, _AROUND_PX)
    return float((seen & inside).sum() / (seen | inside).sum())


def _predict(capture: Capture, args: argparse.Namespace, stages: Stages) -> None:
    mesh, result, scene = reconstruct(capture, SceneConfig(hold_out_every=args.hold_out_every), args, stages)
    with stages.timed("views"):
        views = evaluate_views(result, scene)
        of_mesh = [silhouette_iou(mesh, photograph) for photograph in scene.held_out]
    mean = ViewScores(name="mean", psnr_db=views.psnr_db, ssim=views.ssim, silhouette_iou=views.silhouette_iou)
    rows = [
        [v.name, f"{v.psnr_db:.2f}", f"{v.ssim:.4f}", f"{v.silhouette_iou:.4f}", f"{iou:.4f}"]
        for v, iou in zip((*views.views, mean), (*of_mesh, np.mean(of_mesh)), strict=True)
    ]
    print(table(["held out", "PSNR dB", "SSIM", "silhouette IoU", "of the mesh"], rows))
    closed = _tell(mesh)
    print(picture_of(mesh, result, scene, args.out / "held_out.png"))
    file = args.out / f"{args.name.replace('-', '_')}.json"
    figures = {
        "mesh": closed,
        "extents_mm": (mesh.extents * 1e3).tolist(),
        "views": views,
        "mesh_silhouette_iou": of_mesh,
    }
    print(write_json(file, settings=_settings(args), stages=stages, **figures))


def _tell(mesh: trimesh.Trimesh) -> Closedness:
    report = closedness(mesh)
    closed = report.is_watertight and report.is_winding_consistent and report.volume_cm3 > 0
    extents = " x ".join(f"{length * 1e3:.1f}" for length in mesh.extents)
    print(
        f"mesh: {'closed' if closed else 'NOT CLOSED'}, {report.n_bodies} bodies, {report.n_faces} faces, "
        f"{report.volume_cm3:.1f} cm3, {extents} mm (if the world is in metres)"
    )
    return report


def _settings(args: argparse.Namespace) -> dict[str, object]:
    return {key: value for key, value in vars(args).items() if key != "benchmark"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="name", required=True)
    for name, benchmark in (("depth-frames", depth_frames), ("photos", photos), ("clear-frames", clear_frames)):
        command = commands.add_parser(name, description=benchmark.__doc__)
        command.set_defaults(benchmark=benchmark)
        command.add_argument("folder", type=Path)
        command.add_argument("--out", type=Path, help="folder for mesh and figures (outputs/benchmarks/FOLDER's name)")
        every = 5 if benchmark is clear_frames else 8
        command.add_argument("--hold-out-every", type=_two_or_more, default=every, help="(default %(default)s)")
        command.add_argument("--steps", type=int, help="of the fit, for a trial (default: FitConfig's)")
        command.add_argument("--rays", type=int, help="interior rays a step, for a trial (default: FitConfig's)")
        command.add_argument("--voxel-mm", type=float, default=MeshConfig().voxel_mm, help="(default %(default)s)")
        command.add_argument("--seed", type=int, default=0)
        if benchmark is photos:
            command.add_argument("--metres-per-unit", type=float, help="size of the layout's unit, such as 0.001 (DTU)")
    return parser


def _two_or_more(text: str) -> int:
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"must be 2 or more, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
