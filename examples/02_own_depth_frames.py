"""Your own depth frames and poses become a capture, the capture becomes a closed mesh.

    python examples/02_own_depth_frames.py

Replace `frames()` by whatever reads your sensor: depth in metres along the optical axis, 0 for no reading and for
everything but the object, and the pose of the world (z up, table at z = 0) as the camera sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture

import neuralrecon as nr
from neuralrecon.capture import Frame, Image, Sensor, SensorKind, write_plain
from neuralrecon.geometry import Camera, Rigid
from neuralrecon.label import Solid
from neuralrecon.simulate import builtin_mesh

OUT = Path("outputs/examples/02")
METRES_PER_UNIT = 1e-4  # what one step of the 16-bit files is worth
CAMERA = Camera(width=320, height=240, fx=400.0, fy=400.0, cx=160.0, cy=120.0)  # px; a pixel's centre is at +0.5


def frames() -> Iterator[tuple[np.ndarray, Rigid]]:
    """Depth maps (metres) and `cam_from_world` of a camera that goes around the built-in mug, in three heights."""
    solid = Solid.of(builtin_mesh("mug").mesh)
    for elevation_deg in (15.0, 40.0, 65.0):
        for azimuth_deg in range(0, 360, 30):
            cam_from_world = looking_at(solid.centre, azimuth_deg, elevation_deg, distance_m=0.5)
            yield cast(solid, cam_from_world), cam_from_world


def looking_at(target: np.ndarray, azimuth_deg: float, elevation_deg: float, distance_m: float) -> Rigid:
    """Camera axes: x right, y down, z towards the target."""
    azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
    away = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    z = -np.array(away)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    rotation = torch.from_numpy(np.stack([x, np.cross(z, x), z]))
    center = torch.from_numpy(target - distance_m * z)
    return Rigid(rotation=rotation, translation=-(rotation @ center))


def cast(solid: Solid, cam_from_world: Rigid) -> np.ndarray:
    """What an ideal depth camera reads: metres along its axis, 0 where it sees no object."""
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    pixels = torch.from_numpy(np.stack([u, v], axis=-1).reshape(-1, 2) + 0.5)
    in_cam = CAMERA.rays(pixels)
    length = in_cam.norm(dim=1)
    world_from_cam = cam_from_world.inverse()
    directions = world_from_cam.rotate(in_cam / length[:, None]).numpy()
    distance = solid.first_hit(np.broadcast_to(world_from_cam.translation.numpy(), directions.shape), directions)
    depth = np.where(np.isfinite(distance), distance, 0.0) / length.numpy()
    return depth.reshape(CAMERA.height, CAMERA.width)


def write_capture(folder: Path) -> Path:
    """Depth as 16-bit PNG files, and the `capture.json` that describes them."""
    (folder / "depth").mkdir(parents=True, exist_ok=True)
    sensor = Sensor(
        name="depth",
        kind=SensorKind.depth,
        camera=CAMERA,
        sensor_from_rig=Rigid.identity(),  # one moving camera: the rig is the camera, each frame has its pose
        metres_per_unit=METRES_PER_UNIT,
    )
    stops, images = [], []
    for number, (depth, cam_from_world) in enumerate(frames()):
        name, path = f"{number:03d}", folder / "depth" / f"{number:03d}.png"
        Picture.fromarray((depth / METRES_PER_UNIT).round().astype(np.uint16)).save(path)
        stops.append(Frame(name=name, rig_from_world=cam_from_world))
        images.append(Image(sensor="depth", frame=name, path=path))
    capture = nr.Capture(
        name="mug",
        root=folder,
        layout="plain",
        sensors=(sensor,),
        frames=tuple(stops),
        images=tuple(images),
        has_table=True,
        depth_is_masked=True,  # so the outline of each depth map is a silhouette
    )
    return write_plain(capture, folder)


def main() -> None:
    """Write the capture, read it back as any program would, fit, extract."""
    print(write_capture(OUT / "capture"))
    capture = nr.read_capture(OUT / "capture")
    scene = nr.Scene.from_capture(capture, nr.SceneConfig(hull_resolution=64))
    fit = nr.fit(scene, nr.FitConfig(steps=300, depth_rays=2048, occupancy_resolution=96))
    mesh = nr.extract_mesh(fit, nr.MeshConfig(voxel_mm=1.5))
    nr.write_mesh(mesh, OUT / "mesh.ply")
    print(f"{OUT / 'mesh.ply'}: {len(mesh.faces)} faces, closed: {mesh.is_watertight}")
    print(f"volume {mesh.volume * 1e6:.1f} cm3, of the mug itself {builtin_mesh('mug').mesh.volume * 1e6:.1f} cm3")


if __name__ == "__main__":
    main()
