"""The README's picture: photographs, mesh and labels of a finished run, side by side in one small PNG.

    python -m benchmarks.overview --run outputs/demo

Needs the run's folder and the capture that it names. Mesh and points are drawn by ray casting: no display, no GPU.
"""

from __future__ import annotations

import argparse
import math
from io import BytesIO
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image as Picture
from PIL import ImageDraw
from trimesh.visual import ColorVisuals

from neuralrecon.capture import Capture, SensorKind, read_color, read_mask
from neuralrecon.evaluate import read_mesh
from neuralrecon.files import replacing
from neuralrecon.label import OccupancyLabels, Solid
from neuralrecon.train.run_folder import LABEL_FOLDER, MESH_FILE, used_capture

_LARGEST_BYTES = 300_000
_SUPERSAMPLE = 2
_WHITE, _INSIDE, _FREE, _UNSEEN = (255, 255, 255), (233, 121, 38), (120, 160, 205), (90, 90, 90)
_PLAIN_COLOR = np.array([0.72, 0.72, 0.74])
_N_POINTS, _POINT_PX = 9000, 1.6
_ELEVATION_DEG, _FOV_DEG = 24.0, 24.0
_TILES = 2


def main() -> None:
    """Draw the three panels and write them as one file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overview", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="output folder of a finished run")
    parser.add_argument("--out", type=Path, default=Path("docs/images/overview.png"), help="the PNG to write")
    parser.add_argument("--side", type=int, default=330, help="width and height of a panel in pixels")
    parser.add_argument("--azimuth", type=float, default=35.0, help="where mesh and labels are seen from, in degrees")
    args = parser.parse_args()
    mesh = read_mesh(args.run / MESH_FILE)
    labels = OccupancyLabels.load(args.run / LABEL_FOLDER / "labels.npz")
    view = Viewpoint.around(mesh, args.azimuth, args.side)
    panels = [
        photographs(used_capture(args.run), args.side),
        shaded(mesh, view),
        points(labels, view),
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    data = small_png(np.concatenate(panels, axis=1))
    with replacing(args.out) as temporary:
        temporary.write_bytes(data)
    print(f"{args.out}: {len(data) / 1e3:.0f} kB")


class Viewpoint:
    """A pinhole camera that looks at a mesh's middle from outside, z up."""

    def __init__(self, center: np.ndarray, axes: np.ndarray, focal_px: float, side: int) -> None:
        self.center, self.axes, self.focal_px, self.side = center, axes, focal_px, side

    @staticmethod
    def around(mesh: trimesh.Trimesh, azimuth_deg: float, side: int) -> Viewpoint:
        azimuth, elevation = math.radians(azimuth_deg), math.radians(_ELEVATION_DEG)
        flat = math.cos(elevation)
        z = -np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)])
        x = np.array([-z[1], z[0], 0.0]) / np.hypot(z[0], z[1])
        x = -x  # to the right, as y is down
        axes = np.stack([x, np.cross(z, x), z])
        middle, radius = mesh.bounds.mean(axis=0), 0.5 * float(np.linalg.norm(mesh.extents))
        distance = 1.08 * radius / math.sin(math.radians(_FOV_DEG / 2))
        focal_px = 0.5 * side / math.tan(math.radians(_FOV_DEG / 2))
        return Viewpoint(middle - distance * z, axes, focal_px, side)

    def rays(self, supersample: int) -> np.ndarray:
        """Unit directions in world, one for every sub-pixel, row by row."""
        n = self.side * supersample
        v, u = np.mgrid[:n, :n]
        xy = (np.stack([u, v], axis=-1).reshape(-1, 2) + 0.5 - n / 2) / (self.focal_px * supersample)
        directions = np.column_stack([xy, np.ones(len(xy))]) @ self.axes
        return directions / np.linalg.norm(directions, axis=1, keepdims=True)

    def project(self, in_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel coordinates and depth."""
        in_cam = (in_world - self.center) @ self.axes.T
        return in_cam[:, :2] / in_cam[:, 2:] * self.focal_px + self.side / 2, in_cam[:, 2]


def photographs(capture: Capture, side: int) -> np.ndarray:
    """Four photographs of the finest cameras, cropped to the object, from sensors and stops that are far apart."""
    images = [image for image in capture.images_of(SensorKind.color) if image.mask_path is not None]
    widest = max(capture.sensor(image.sensor).camera.width for image in images)
    images = [image for image in images if capture.sensor(image.sensor).camera.width == widest]
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, _TILES**2 + 2).round().astype(int)[1:-1]]
    tile = side // _TILES
    panel = np.full((side, side, 3), 255, np.uint8)
    for number, image in enumerate(chosen):
        crop = Picture.fromarray(_square_crop(read_color(capture, image), read_mask(capture, image)))
        row, column = divmod(number, _TILES)
        resized = np.asarray(crop.resize((tile - 4, tile - 4), Picture.Resampling.LANCZOS))
        panel[row * tile + 2 : (row + 1) * tile - 2, column * tile + 2 : (column + 1) * tile - 2] = resized
    return panel


def _square_crop(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A square around the mask with a margin; what lies beyond the image repeats its border."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    half = int(0.6 * max(np.ptp(rows), np.ptp(columns))) + 1
    v, u = (rows[0] + rows[-1]) // 2, (columns[0] + columns[-1]) // 2
    padded = np.pad(rgb, ((half, half), (half, half), (0, 0)), mode="edge")
    return padded[v : v + 2 * half, u : u + 2 * half]


def shaded(mesh: trimesh.Trimesh, view: Viewpoint) -> np.ndarray:
    """The mesh in its own colours on the upper left, bare on the lower right, lit from the camera's left shoulder."""
    solid, directions = Solid.of(mesh), view.rays(_SUPERSAMPLE)
    distance = solid.first_hit(np.broadcast_to(view.center, directions.shape), directions)
    hit = np.isfinite(distance)
    at = view.center + directions[hit] * distance[hit, None]
    _, face, place = solid.closest(at)
    corners = trimesh.triangles.points_to_barycentric(mesh.triangles[face], place)
    normals = np.einsum("pc,pcx->px", corners, mesh.vertex_normals[mesh.faces[face]])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    light = np.array([-0.45, -0.55, -0.7]) @ view.axes
    shade = 0.35 + 0.65 * np.clip(normals @ (light / np.linalg.norm(light)), 0, 1)
    n = view.side * _SUPERSAMPLE
    v, u = np.divmod(np.flatnonzero(hit), n)
    albedo = np.where((u + v < n)[:, None], _vertex_colors(mesh, face, corners), _PLAIN_COLOR)
    image = np.ones((n * n, 3))
    image[hit] = np.clip(albedo * shade[:, None] * 1.15, 0, 1)
    image = image.reshape(view.side, _SUPERSAMPLE, view.side, _SUPERSAMPLE, 3).mean(axis=(1, 3))
    return (image * 255).round().astype(np.uint8)


def _vertex_colors(mesh: trimesh.Trimesh, face: np.ndarray, corners: np.ndarray) -> np.ndarray:
    visual = mesh.visual
    if not isinstance(visual, ColorVisuals) or visual.kind != "vertex":
        return np.broadcast_to(_PLAIN_COLOR, (len(face), 3))
    colors = np.asarray(visual.vertex_colors)[:, :3] / 255
    return np.einsum("pc,pcx->px", corners, colors[mesh.faces[face]])


def points(labels: OccupancyLabels, view: Viewpoint) -> np.ndarray:
    """Uniform labels, far ones first: inside large and orange, free small and blue, free but never observed grey."""
    uniform = np.flatnonzero(~labels.near_surface)
    shown = np.random.default_rng(0).permutation(uniform)[:_N_POINTS]
    pixels, depth = view.project(labels.points_in_world[shown].astype(np.float64))
    observed = np.ones(len(shown), bool) if labels.observed is None else labels.observed[shown]
    n = view.side * _SUPERSAMPLE
    picture = Picture.new("RGB", (n, n), _WHITE)
    pen = ImageDraw.Draw(picture)
    for i in np.argsort(-depth):
        inside = labels.occupancy[shown[i]]
        color = _INSIDE if inside else _FREE if observed[i] else _UNSEEN
        radius = _SUPERSAMPLE * (_POINT_PX if inside else 0.6 * _POINT_PX)
        u, v = pixels[i] * _SUPERSAMPLE
        pen.ellipse((u - radius, v - radius, u + radius, v + radius), fill=color)
    return np.asarray(picture.resize((view.side, view.side), Picture.Resampling.BOX))


def small_png(rgb: np.ndarray) -> bytes:
    """A PNG of at most 300 kB: in full colour if that fits, else with ever fewer colours."""
    picture = Picture.fromarray(rgb)
    for count in (0, 256, 128, 64, 32):
        file = BytesIO()
        (picture.quantize(count) if count else picture).save(file, "PNG", optimize=True)
        if file.tell() <= _LARGEST_BYTES:
            break
    return file.getvalue()


if __name__ == "__main__":
    main()
