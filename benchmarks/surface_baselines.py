"""The classical methods on a capture: depth maps for `classical.py`, and the visual hull of the masks."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from skimage.measure import marching_cubes
from torch import Tensor

from neuralrecon.capture import Capture, SensorKind
from neuralrecon.capture.pixels import camera_of, read_depth, read_mask
from neuralrecon.errors import ConfigError, EvidenceError
from neuralrecon.files import write_npz
from neuralrecon.geometry import Box, Similarity
from neuralrecon.scene.hull import carve, locate, unit_cube
from neuralrecon.scene.readings import points_of
from neuralrecon.scene.silhouettes import Silhouette

_SCRIPT = Path(__file__).with_name("classical.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicalConfig:
    """How the classical methods work, for all objects and materials.

    Attributes:
        voxel_mm: of the fused signed distances.
        truncation_voxels: how far around a reading the fused distances reach.
        least_weight: how many depth maps must have seen a voxel.
        poisson_depth: of the octree; 8 has 256 cells a side.
        margin_mm: depth further than this from the box around the hull is left out, as room.
        floor_mm: and depth lower than this above the table, as table.
        hull_cells: a side of the box around the hull.
        hull_tolerance_px: how far beyond an outline a point may lie.
    """

    voxel_mm: float = 1.5
    truncation_voxels: float = 6.0
    least_weight: float = 3.0
    poisson_depth: int = 8
    margin_mm: float = 10.0
    floor_mm: float = 3.0
    hull_cells: int = 128
    hull_tolerance_px: float = 0.0


def require_open3d(python: str) -> None:
    """That an interpreter has Open3D.

    Raises:
        ConfigError: it has not, or cannot be run.
    """
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('open3d') is None)"
    try:
        there = (
            importlib.util.find_spec("open3d") is not None
            if python == sys.executable
            else subprocess.run([python, "-c", look], capture_output=True).returncode == 0
        )
    except OSError as error:
        raise ConfigError(f"--python {python}: {error.strerror}; give an interpreter that has Open3D") from error
    if not there:
        raise ConfigError(
            f"{python} has no Open3D, which the methods tsdf and poisson need; pip install 'neuralrecon[benchmarks]', "
            "or name an interpreter that has it with --python, or leave them out of --methods"
        )


def from_depth(capture: Capture, method: str, config: ClassicalConfig, python: str) -> trimesh.Trimesh:
    """The mesh of `tsdf` or `poisson`, made by `classical.py` in a process of its own.

    Raises:
        EvidenceError: no surface came out.
    """
    box = locate(silhouettes_of(capture), 3.0, 0.0).padded(config.margin_mm * 1e-3)
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "frames.npz", Path(folder) / "mesh.npz"
        write_npz(source, method=np.array(method), **_frames(capture, box, config))
        done = subprocess.run([python, str(_SCRIPT), str(source), str(target)], capture_output=True, text=True)
        if done.returncode:
            plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr).strip()  # Open3D's messages are coloured
            raise EvidenceError(f"{method}: {plain.splitlines()[-1] if plain else f'ended with {done.returncode}'}")
        with np.load(target) as stored:
            vertices, faces = stored["vertices"], stored["faces"]
    if method == "poisson":  # its bulge under the table is pressed flat, for the table is known; no two vertices meet
        vertices[:, 2] = np.where(vertices[:, 2] < 0, 1e-3 * vertices[:, 2], vertices[:, 2])
    return trimesh.Trimesh(vertices, faces, process=False)


def _frames(capture: Capture, box: Box, config: ClassicalConfig) -> dict[str, np.ndarray | float]:
    """Depth maps with the object alone, matrices, poses. Simulated depth cameras have no distortion.

    Open3D reads the pixel that a voxel's projection falls into: its centres are at +0.5, as ours. With OpenCV's matrix
    everything would be half a pixel off.
    """
    depths, matrices, poses = [], [], []
    for image in capture.images_of(SensorKind.depth):
        depth, camera, pose = read_depth(capture, image), camera_of(capture, image), capture.sensor_from_world(image)
        points = points_of(depth, camera, pose)
        off = ((points < box.low) | (points > box.high)).any(dim=1) | (points[:, 2] < config.floor_mm * 1e-3)
        v, u = np.nonzero(depth)
        depth = depth.copy()
        depth[v[off.numpy()], u[off.numpy()]] = 0
        depths.append(depth)
        matrices.append([[camera.fx, 0.0, camera.cx], [0.0, camera.fy, camera.cy], [0.0, 0.0, 1.0]])
        poses.append(pose.matrix().numpy())
    return {
        "depths": np.stack(depths).astype(np.float32),
        "matrices": np.array(matrices),
        "poses": np.stack(poses).astype(np.float64),
        "voxel_m": config.voxel_mm * 1e-3,
        "truncation_voxels": config.truncation_voxels,
        "least_weight": config.least_weight,
        "poisson_depth": config.poisson_depth,
    }


def silhouettes_of(capture: Capture) -> list[Silhouette]:
    """The outlines of all masks."""
    return [
        Silhouette.from_mask(read_mask(capture, image), camera_of(capture, image), capture.sensor_from_world(image), 8)
        for image in capture.images_of(SensorKind.color)
        if image.mask_path is not None
    ]


def hull_mesh(capture: Capture, config: ClassicalConfig) -> trimesh.Trimesh:
    """The visual hull (Laurentini 1994), cut at the table, by marching cubes.

    The function is how far outside of the outline that leaves a point out furthest it projects, in metres; it is
    computed where it may change its sign, and has the right sign elsewhere.

    Raises:
        EvidenceError: the silhouettes leave nothing.
    """
    outlines = silhouettes_of(capture)
    cube = unit_cube(locate(outlines, 3.0, 0.0).padded(0.005))
    n, tolerance = config.hull_cells, config.hull_tolerance_px
    coarse, cell_m = n // 2, 2 / (n * cube.scale)
    # half a coarse cell's diagonal and half a pixel's: cells further than that from an outline are settled
    reach = 0.87 * cell_m * _px_per_metre(outlines, cube) + 0.71
    inner = _halved(carve(outlines, cube, coarse, tolerance - reach, cell_m))
    outer = _halved(carve(outlines, cube, coarse, tolerance + reach, -cell_m))
    values = torch.where(inner, -1.0, 1.0)
    index = (outer & ~inner).nonzero()
    points = cube.inverse().apply((index + 0.5) / n).float()
    outside_m, least_m = _outside_m(points, outlines, tolerance), 0.005 * cell_m
    # no vertex so near a grid point that several fall together
    values[tuple(index.t())] = torch.where(outside_m < 0, outside_m.clamp(max=-least_m), outside_m.clamp(min=least_m))
    return _closed(values, cube)


def _halved(cells: Tensor) -> Tensor:
    return cells.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)


def _px_per_metre(outlines: Sequence[Silhouette], cube: Similarity) -> float:
    middle = cube.inverse().apply(torch.full((1, 3), 0.5))
    return max(float(outline.look_up(middle)[1][0]) for outline in outlines)


def _outside_m(
    points: Float[Tensor, "points 3"], outlines: Sequence[Silhouette], tolerance_px: float
) -> Float[Tensor, "points"]:
    """The largest of the distances to the outlines, turned into metres at the point, and of the depth under z = 0."""
    furthest = -points[:, 2]
    for outline in outlines:
        in_cam = outline.cam_from_world.apply(points)
        corner = torch.tensor([outline.u0, outline.v0]) + 0.5
        at = (outline.camera.project(in_cam) - corner) / outline.stride
        size = torch.tensor(outline.distance_px.shape[::-1])
        on_crop = ((at >= 0) & (at <= size - 1)).all(dim=1)
        grid = (2 * at / (size - 1) - 1)[None, None]
        px = torch.nn.functional.grid_sample(outline.distance_px[None, None], grid, align_corners=True)[0, 0, 0]
        outside_m = (px - tolerance_px) * in_cam[:, 2] / outline.camera.fx
        furthest = torch.where(on_crop, torch.maximum(furthest, outside_m), furthest)
    return furthest


def _closed(values: Float[Tensor, "x y z"], cube: Similarity) -> trimesh.Trimesh:
    """The zero level as a closed mesh in the world, seen from outside."""
    n = values.shape[0]
    padded = np.pad(values.numpy(), 1, constant_values=1.0)
    if padded.min() >= 0:
        raise EvidenceError("hull: the silhouettes leave nothing")
    vertices, faces, _, _ = marching_cubes(padded, 0.0)
    in_unit = torch.from_numpy((vertices.astype(np.float64) - 0.5) / n)
    mesh = trimesh.Trimesh(cube.inverse().apply(in_unit).numpy(), faces, process=False)
    if mesh.volume < 0:
        mesh.invert()
    return mesh
