"""A COLMAP model or nerfstudio's transforms.json, whose unit nobody knows, becomes a mesh in metres.

    python examples/08_colmap_or_nerfstudio.py [FOLDER MILLIMETRES]

FOLDER holds `sparse/0`, `images/` and `masks/` (COLMAP), or `transforms.json` with a `mask_path` in every frame;
MILLIMETRES is the object's longest side, measured with a ruler. Without them the example simulates photographs and
writes them both ways, in a world of another unit. Prints what each reader finds and the mesh's size before and after,
and writes a `capture.json` in metres, which `python -m neuralrecon.train capture=…` takes. About 25 s.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image as Picture
from PIL import ImageOps

import neuralrecon as nr
from neuralrecon.capture import SensorKind, write_plain, write_transforms
from neuralrecon.capture.colmap import write_colmap
from neuralrecon.evaluate import EvaluateConfig, read_mesh
from neuralrecon.geometry import Rigid
from neuralrecon.simulate import SimulateConfig, simulate

OUT = Path("outputs/examples/08")
UNITS_PER_METRE = 7.3  # of the world that the example pretends not to know
# Whether the world's plane z = 0 is the table, z up. Neither format tells (`has_table` in a transforms.json is ours).
# Without it the underside, which nobody sees, sinks too low: here by 8 mm.
ON_TABLE = True


def scaled(capture: nr.Capture, by: float) -> nr.Capture:
    """The capture in a world whose lengths are so many times as large. Turns stay, and lenses know no lengths."""

    def longer(rigid: Rigid) -> Rigid:
        return replace(rigid, translation=rigid.translation * by)

    sensors = [replace(s, sensor_from_rig=longer(s.sensor_from_rig)) for s in capture.sensors]
    frames = [replace(f, rig_from_world=longer(f.rig_from_world)) for f in capture.frames]
    return replace(capture, sensors=tuple(sensors), frames=tuple(frames), bounds=None, points_path=None)


def moved(capture: nr.Capture, folder: Path) -> nr.Capture:
    """The photographs copied to `images/`, their masks (object white) to `masks/`, as COLMAP's users keep them."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    images = []
    for image in capture.images:
        photograph, mask = folder / "images" / image.path.name, folder / "masks" / f"{image.path.name}.png"
        photograph.write_bytes(image.path.read_bytes())
        with Picture.open(str(image.mask_path)) as opened:
            shown = opened.convert("L")
            (ImageOps.invert(shown) if image.object_is_black else shown).save(mask)
        images.append(replace(image, path=photograph, mask_path=mask, object_is_black=False))
    return replace(capture, root=folder, images=tuple(images))


def foreign() -> tuple[Path, Path, Path]:
    """A folder as COLMAP leaves it, one as nerfstudio does, and the true mesh."""
    recording = SimulateConfig(mesh="bottle", n_stops=10, n_width=240, np_width=64, depth_width=64)
    root = simulate(recording, OUT / "capture")
    known = nr.read_capture(root).restricted(sensors=["N1", "N2", "N3", "N4"])
    known = replace(scaled(known, UNITS_PER_METRE), is_metric=False, has_table=False)
    of_nerfstudio = moved(known, OUT / "nerfstudio")
    write_transforms(of_nerfstudio, OUT / "nerfstudio")
    of_colmap = moved(known, OUT / "colmap")
    bare = tuple(replace(image, mask_path=None) for image in of_colmap.images)  # a model names photographs only
    model = write_colmap(replace(of_colmap, root=OUT / "colmap" / "images", images=bare), OUT / "colmap/sparse/0")
    (model / "neuralrecon.json").unlink()  # what COLMAP would not have written
    return OUT / "colmap", OUT / "nerfstudio", root / "gt" / "gt_mesh.ply"


def described(capture: nr.Capture) -> str:
    """What the reader found, in a line."""
    n_masks = sum(image.mask_path is not None for image in capture.images_of(SensorKind.color))
    counts = f"{len(capture.images)} images, {n_masks} masks, {len(capture.sensors)} sensors"
    return f"{capture.root}: {capture.layout}, {counts}, metric: {capture.is_metric}, table: {capture.has_table}"


def main(folder: Path | None, longest_mm: float) -> None:
    """Fit in the world's own unit, measure, and say what the unit is."""
    truth = None
    if folder is None:
        folder, other, file = foreign()
        print(described(nr.read_capture(other)))
        truth = read_mesh(file)
        longest_mm = float(truth.extents.max()) * 1e3
    capture = nr.read_capture(folder)
    print(described(capture))
    capture = replace(capture, has_table=ON_TABLE)

    scene = nr.Scene.from_capture(capture, nr.SceneConfig(hull_resolution=64))
    fit = nr.fit(scene, nr.FitConfig(steps=300, interior_rays=512, edge_rays=256, occupancy_resolution=96))
    mesh = nr.extract_mesh(fit, nr.MeshConfig(voxel_mm=1.5))  # of an object that is taken to be 200 mm long
    metres_per_unit = longest_mm / 1e3 / float(mesh.extents.max())
    print(f"longest side {mesh.extents.max():.3f} units, so a unit is {metres_per_unit:.4f} m")

    mesh.apply_scale(metres_per_unit)
    mesh.metadata["unit"] = "m"
    nr.write_mesh(mesh, OUT / "mesh.ply")
    print(f"{OUT / 'mesh.ply'}: {' x '.join(f'{1e3 * side:.0f}' for side in mesh.extents)} mm")
    in_metres = replace(scaled(capture, metres_per_unit), is_metric=True)
    print(f"{write_plain(in_metres, capture.root)}: the capture in metres")
    if truth is not None:
        print(f"the true unit is {1 / UNITS_PER_METRE:.4f} m")
        report = nr.evaluate_mesh(mesh, truth, EvaluateConfig(n_samples=20_000, with_alignment=False))
        print(f"against the truth: Chamfer {report.raw.chamfer_mm:.2f} mm, IoU {report.raw.iou:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 2 else None, float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
