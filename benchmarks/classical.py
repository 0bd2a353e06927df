"""Classical surfaces from depth maps, by Open3D: TSDF fusion (Curless and Levoy 1996) and screened Poisson
reconstruction (Kazhdan and Hoppe 2013) of the fused points.

    PYTHON classical.py FRAMES.npz MESH.npz

Needs NumPy and Open3D only, and no module of this package, so that another interpreter can run it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

_BLOCKS = 20_000


def fused_grid(frames, voxel_m: float, truncation_voxels: float):
    """All depth maps averaged in a sparse grid of signed distances."""
    import open3d as o3d

    grid = o3d.t.geometry.VoxelBlockGrid(
        attr_names=("tsdf", "weight"),
        attr_dtypes=(o3d.core.float32, o3d.core.float32),
        attr_channels=((1,), (1,)),
        voxel_size=voxel_m,
        block_resolution=8,
        block_count=_BLOCKS,
    )
    for depth, matrix, pose in zip(frames["depths"], frames["matrices"], frames["poses"], strict=True):
        if not depth.any():
            continue
        # by the points: blocks of an image are looked for at every fourth pixel only
        points = o3d.t.geometry.PointCloud(o3d.core.Tensor(points_of(depth, matrix, pose)))
        blocks = grid.compute_unique_block_coordinates(points, truncation_voxels)
        image = o3d.t.geometry.Image(o3d.core.Tensor(np.ascontiguousarray(depth[..., None])))
        camera = (o3d.core.Tensor(matrix), o3d.core.Tensor(pose))
        grid.integrate(blocks, image, *camera, 1.0, 10.0, truncation_voxels)
    return grid


def points_of(depth: np.ndarray, matrix: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """All readings in the world, as 32 bit floats; pixels' centres at +0.5."""
    v, u = np.nonzero(depth)
    z = depth[v, u].astype(np.float64)
    in_cam = np.stack([u + 0.5, v + 0.5, np.ones(len(u))], axis=1) @ np.linalg.inv(matrix).T * z[:, None]
    return np.ascontiguousarray((in_cam - pose[:3, 3]) @ pose[:3, :3], dtype=np.float32)


def tsdf_mesh(grid, least_weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces where the averaged distance changes its sign."""
    mesh = grid.extract_triangle_mesh(least_weight)
    return mesh.vertex.positions.numpy(), mesh.triangle.indices.numpy()


def poisson_mesh(grid, least_weight: float, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """The closed surface that fits the fused points and their normals."""
    import open3d as o3d

    points = grid.extract_point_cloud(least_weight).to_legacy()
    if len(points.points) == 0:
        return np.zeros((0, 3)), np.zeros((0, 3))
    # a domain so wide that the bulge at the foot, where nothing was seen, closes within it
    mesh, _ = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(points, depth=depth, scale=1.6, n_threads=1)
    return np.asarray(mesh.vertices), np.asarray(mesh.triangles)


def main(words: list[str]) -> int:
    """0, or 1 with a line on what went wrong."""
    source, target = map(Path, words)
    with np.load(source) as stored:
        frames = dict(stored)
    grid = fused_grid(frames, float(frames["voxel_m"]), float(frames["truncation_voxels"]))
    least_weight = float(frames["least_weight"])
    if str(frames["method"]) == "poisson":
        vertices, faces = poisson_mesh(grid, least_weight, int(frames["poisson_depth"]))
    else:
        vertices, faces = tsdf_mesh(grid, least_weight)
    if len(faces) == 0:
        print(f"{frames['method']}: the depth maps leave no surface", file=sys.stderr)
        return 1
    np.savez(target, vertices=np.asarray(vertices, np.float64), faces=np.asarray(faces, np.int64))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
