"""Small captures in the layouts of other programs, written without the package's own code, and when two are equal."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation
from tiny_captures import SIZES, object_mask, photograph, pose

from neuralrecon.capture import Capture
from neuralrecon.geometry import Rigid

SIZE = SIZES["N"]
# fx, fy, cx, cy with a pixel's centre at +0.5, as COLMAP and nerfstudio have it.
K = (45.0, 46.5, 18.25, 11.75)
N_VIEWS = 4


def raw_mm(view: int) -> np.ndarray:
    width, height = SIZE
    return (500 + view + np.arange(width * height).reshape(height, width)).astype(np.uint16)


def opencv_matrix() -> np.ndarray:
    return np.array([[K[0], 0, K[2] - 0.5], [0, K[1], K[3] - 0.5], [0, 0, 1]])


def save(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def project(points_in_world: np.ndarray, cam_from_world: np.ndarray) -> np.ndarray:
    """Pixels with centres at +0.5 of the undistorted camera K."""
    in_cam = points_in_world @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    return in_cam[:, :2] / in_cam[:, 2:] * K[:2] + K[2:]


def write_nerfstudio(root: Path) -> Path:
    """`transforms.json` with intrinsics at the top; cam_from_world of view i is pose(i)."""
    frames = []
    for i in range(N_VIEWS):
        save(root / f"images/frame_{i}.png", photograph(SIZE, i))
        save(root / f"masks/frame_{i}.png", object_mask(SIZE))
        save(root / f"depth/frame_{i}.png", raw_mm(i))
        world_from_opengl = np.linalg.inv(pose(i)) @ np.diag([1.0, -1, -1, 1])
        frames.append(
            {
                "file_path": f"./images/frame_{i}.png",
                "mask_path": f"masks/frame_{i}.png",
                "depth_file_path": f"depth/frame_{i}.png",
                "transform_matrix": world_from_opengl.tolist(),
                "colmap_im_id": i,
            }
        )
    top = {"w": SIZE[0], "h": float(SIZE[1]), "fl_x": K[0], "fl_y": K[1], "cx": K[2], "cy": K[3], "aabb_scale": 16}
    top |= {"k1": 0.02, "k2": -0.01, "p1": 0.001, "p2": -0.002, "camera_model": "OPENCV", "frames": frames}
    (root / "transforms.json").write_text(json.dumps(top), encoding="utf-8")
    return root


def write_bop_scene(root: Path) -> Path:
    """Two objects, 7 and 9, numbers from 3; cam_from_object of object 7 in image 3 + i is pose(i), in metres."""
    cameras, poses = {}, {}
    for i in range(N_VIEWS):
        n = 3 + i
        save(root / f"rgb/{n:06d}.png", photograph(SIZE, i))
        save(root / f"depth/{n:06d}.png", raw_mm(i))
        save(root / f"mask_visib/{n:06d}_000001.png", object_mask(SIZE))
        cameras[str(n)] = {"cam_K": opencv_matrix().flatten().tolist(), "depth_scale": 0.1}
        other = {"cam_R_m2c": np.eye(3).flatten().tolist(), "cam_t_m2c": [0, 0, 700.0], "obj_id": 9}
        wanted = {
            "cam_R_m2c": pose(i)[:3, :3].flatten().tolist(),
            "cam_t_m2c": (1000 * pose(i)[:3, 3]).tolist(),
            "obj_id": 7,
        }
        poses[str(n)] = [other, wanted]
    (root / "scene_camera.json").write_text(json.dumps(cameras), encoding="utf-8")
    (root / "scene_gt.json").write_text(json.dumps(poses), encoding="utf-8")
    return root


def write_middlebury(root: Path) -> Path:
    lines = [str(N_VIEWS)]
    for i in range(N_VIEWS):
        save(root / f"dino{i:04d}.png", photograph(SIZE, i))
        numbers = [*opencv_matrix().flatten(), *pose(i)[:3, :3].flatten(), *pose(i)[:3, 3]]
        lines.append(" ".join([f"dino{i:04d}.png", *(f"{x:.17g}" for x in numbers)]))
    (root / "dino_par.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def sparse_points() -> np.ndarray:
    """Points in front of the views of `write_photos_with_model`."""
    return np.random.default_rng(7).uniform(-0.1, 0.1, (12, 3))


def facing(view: int) -> np.ndarray:
    """cam_from_world of a camera 1.5 in front of the origin."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec([0.1 * view, 0.5 * view, 0.2]).as_matrix()
    matrix[:3, 3] = (0.02 * view, 0.01, 1.5)
    return matrix


def write_photos_with_model(root: Path) -> Path:
    """COLMAP's text files of before rigs (points seen in all views), and one photograph more than are posed."""
    for i in range(N_VIEWS + 1):
        save(root / f"images/view_{i}.png", photograph(SIZE, i))
    model = root / "sparse" / "0"
    model.mkdir(parents=True)
    cameras = [f"3 PINHOLE {SIZE[0]} {SIZE[1]} {' '.join(map(str, K))}"]
    (model / "cameras.txt").write_text("\n".join(cameras) + "\n", encoding="utf-8")
    points, images = sparse_points(), []
    for i in range(N_VIEWS):
        x, y, z, w = Rotation.from_matrix(facing(i)[:3, :3]).as_quat()
        images.append(" ".join(map(repr, map(float, (w, x, y, z, *facing(i)[:3, 3])))))
        images[-1] = f"{10 + i} {images[-1]} 3 view_{i}.png"
        pixels = project(points, facing(i))
        images.append(" ".join(f"{float(u)!r} {float(v)!r} {k + 1}" for k, (u, v) in enumerate(pixels)))
    (model / "images.txt").write_text("\n".join(images) + "\n", encoding="utf-8")
    tracks = " ".join(f"{10 + i} {{k}}" for i in range(N_VIEWS))
    lines = [
        f"{k + 1} {' '.join(repr(float(c)) for c in xyz)} {k} 2 3 0.25 {tracks.format(k=k)}"
        for k, xyz in enumerate(points)
    ]
    (model / "points3D.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def assert_equal_captures(a: Capture, b: Capture, atol: float = 1e-12) -> None:
    """Equal but for the layout, for how paths are spelled, and for the rounding of poses."""
    same = Rigid.identity()
    for mine, other in zip(a.sensors, b.sensors, strict=True):
        assert dataclasses.replace(mine, sensor_from_rig=same) == dataclasses.replace(other, sensor_from_rig=same)
        np.testing.assert_allclose(mine.sensor_from_rig.matrix(), other.sensor_from_rig.matrix(), rtol=0, atol=atol)
    for mine, other in zip(a.frames, b.frames, strict=True):
        assert (mine.name, mine.angle_deg) == (other.name, other.angle_deg)
        np.testing.assert_allclose(mine.rig_from_world.matrix(), other.rig_from_world.matrix(), rtol=0, atol=atol)
    assert _files(a) == _files(b)
    rest = {"root": Path(), "layout": "", "sensors": (), "frames": (), "images": (), "points_path": None}
    assert dataclasses.replace(a, **rest) == dataclasses.replace(b, **rest)


def _files(capture: Capture) -> list:
    return [capture.root.resolve()] + [
        dataclasses.replace(i, path=i.path.resolve(), mask_path=i.mask_path and i.mask_path.resolve())
        for i in capture.images
    ]


def assert_same_views(a: Capture, b: Capture, atol: float = 1e-12) -> None:
    """Image by image the same camera and the same pose, however these are grouped into sensors and frames."""
    for mine, other in zip(a.images, b.images, strict=True):
        for name in ("width", "height", "fx", "fy", "cx", "cy", "distortion"):
            values = [getattr(c.sensor(i.sensor).camera, name) for c, i in ((a, mine), (b, other))]
            np.testing.assert_allclose(values[0], values[1], rtol=1e-14, atol=0)
        assert a.sensor(mine.sensor).kind == b.sensor(other.sensor).kind
        np.testing.assert_allclose(
            a.sensor_from_world(mine).matrix(), b.sensor_from_world(other).matrix(), rtol=0, atol=atol
        )
