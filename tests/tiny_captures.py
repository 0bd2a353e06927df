"""Small captures on disk with known contents, written without the package's own code."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

STOPS = (0, 30, 90, 180)
SIZES = {"N": (36, 24), "NP": (20, 16), "depth": (16, 12)}
DISTORTION = np.array([-0.05, 0.04, 0.0004, -0.0003, 0.01])
DEPTH_SCALE = 1.002


def pose(seed: int) -> np.ndarray:
    """A 4 x 4 rigid transform, another one for every seed."""
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    matrix[:3, 3] = rng.uniform(-1, 1, 3)
    return matrix


def intrinsics(size: tuple[int, int], seed: int) -> np.ndarray:
    """OpenCV's matrix (pixel centres at integers) with the principal point near the middle."""
    width, height = size
    return np.array([[1.3 * width + seed, 0, width / 2 - 0.2], [0, 1.31 * width + seed, height / 2 - 0.9], [0, 0, 1]])


def table_from_reference(stop: float) -> np.ndarray:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", stop, degrees=True).as_matrix()
    return turn @ pose(99)


def raw_depth(body: int, stop: int) -> np.ndarray:
    width, height = SIZES["depth"]
    raw = 7000 + 10 * body + stop + np.arange(width * height).reshape(height, width)
    raw[:2] = 0
    return raw.astype(np.uint16)


def object_mask(size: tuple[int, int]) -> np.ndarray:
    width, height = size
    v, u = np.mgrid[:height, :width]
    return (np.abs(u - width / 2) < width / 4) & (np.abs(v - height / 2) < height / 3)


def photograph(size: tuple[int, int], seed: int) -> np.ndarray:
    """A smooth ramp, which JPEG keeps within a few grey levels."""
    width, height = size
    v, u = np.mgrid[:height, :width]
    return np.stack([u * 200 / width, v * 200 / height, np.full_like(u, 20 * seed)], axis=-1).astype(np.uint8)


def write_arrays(file: Path, arrays: dict[str, np.ndarray]) -> None:
    with h5py.File(file, "w") as h:
        for key, values in arrays.items():
            h[key] = values


def calibration() -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for i in range(1, 6):
        for kind in ("N", "NP"):
            arrays[f"{kind}{i}_rgb_K"] = intrinsics(SIZES[kind], i)
            arrays[f"{kind}{i}_rgb_d"] = DISTORTION * i
            arrays[f"H_{kind}{i}_from_NP5"] = pose(i if kind == "N" else 10 + i)
        arrays[f"NP{i}_depth_K"] = intrinsics(SIZES["depth"], i)
        arrays[f"NP{i}_ir_K"] = 2 * intrinsics(SIZES["depth"], i)
        arrays[f"NP{i}_ir_depth_scale"] = np.array([DEPTH_SCALE])
        arrays[f"H_NP{i}_ir_from_NP5"] = pose(20 + i)
    arrays["H_NP5_from_NP5"] = np.eye(4)
    return arrays


def write_bigbird(root: Path, bodies: tuple[int, ...] = (1, 2, 3, 4, 5), stops: tuple[int, ...] = STOPS) -> Path:
    """BigBIRD's layout, whole unless `bodies` or `stops` are fewer."""
    (root / "masks").mkdir(parents=True)
    (root / "poses").mkdir()
    write_arrays(root / "calibration.h5", calibration())
    for stop in stops:
        write_arrays(
            root / "poses" / f"NP5_{stop}_pose.h5",
            {"H_table_from_reference_camera": table_from_reference(stop), "board_frame_offset": np.zeros(3)},
        )
        for i in bodies:
            write_arrays(root / f"NP{i}_{stop}.h5", {"depth": raw_depth(i, stop)})
            for kind in ("N", "NP"):
                size = SIZES[kind]
                Image.fromarray(photograph(size, i)).save(root / f"{kind}{i}_{stop}.jpg", quality=95)
                # In a PBM black is bit 1; Pillow shows it as False.
                Image.fromarray(~object_mask(size)).save(root / "masks" / f"{kind}{i}_{stop}_mask.pbm")
    return root


def write_idr(root: Path, n: int = 5, fraction: int = 2) -> Path:
    """IDR's layout: matrices for images `fraction` times larger than the files are."""
    (root / "image").mkdir(parents=True)
    (root / "mask").mkdir()
    size = SIZES["N"]
    scale = np.diag([50.0, 50.0, 50.0, 1.0])
    scale[:3, 3] = (10, 20, 600)
    arrays = {}
    for i in range(n):
        Image.fromarray(photograph(size, i)).save(root / "image" / f"{i:06d}.png")
        Image.fromarray(object_mask(size)).save(root / "mask" / f"{i:03d}.png")
        matrix = np.eye(4)
        matrix[:3] = -3.0 * idr_matrix(fraction) @ pose(i)[:3]
        arrays[f"world_mat_{i}"] = matrix
        arrays[f"scale_mat_{i}"] = scale
    np.savez(root / "cameras_sphere.npz", **arrays)
    return root


def idr_matrix(fraction: int) -> np.ndarray:
    width, height = SIZES["N"]
    return intrinsics((width * fraction, height * fraction), 0)


def write_plain_folder(root: Path) -> Path:
    """A colour and a depth sensor at two frames, described by `plain_description`."""
    root.mkdir(parents=True)
    for frame in (0, 1):
        Image.fromarray(photograph(SIZES["N"], frame)).save(root / f"color_{frame}.png")
        Image.fromarray(object_mask(SIZES["N"])).save(root / f"mask_{frame}.png")
        Image.fromarray(raw_depth(1, frame)).save(root / f"depth_{frame}.png")
    (root / "capture.json").write_text(json.dumps(plain_description()), encoding="utf-8")
    return root


def plain_description() -> dict:
    sensors = [
        {
            "name": name,
            "kind": kind,
            "width": size[0],
            "height": size[1],
            "K": [40.0, 41.0, size[0] / 2 + 0.25, size[1] / 2],
            "sensor_from_rig": pose(seed).tolist(),
        }
        for name, kind, size, seed in (("left", "color", SIZES["N"], 1), ("tof", "depth", SIZES["depth"], 2))
    ]
    sensors[0]["distortion"] = DISTORTION.tolist()
    sensors[1]["metres_per_unit"] = 0.001
    return {
        "version": 1,
        "name": "mug",
        "bounds": [[-0.1, -0.1, 0], [0.1, 0.1, 0.2]],
        "sensors": sensors,
        "frames": [{"name": f"{i:03d}", "angle_deg": 30.0 * i, "rig_from_world": pose(5 + i).tolist()} for i in (0, 1)],
        "images": [
            {"sensor": "left", "frame": f"{i:03d}", "path": f"color_{i}.png", "mask": f"mask_{i}.png"} for i in (0, 1)
        ]
        + [{"sensor": "tof", "frame": f"{i:03d}", "path": f"depth_{i}.png"} for i in (0, 1)],
    }
