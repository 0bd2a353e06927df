from __future__ import annotations

import numpy as np
import pytest
import trimesh
from PIL import Image

from neuralrecon.errors import ConfigError, MeshError
from neuralrecon.simulate import BUILTIN_MESHES, SimulateConfig, builtin_mesh
from neuralrecon.simulate.prints import Sheet, solid_noise
from neuralrecon.simulate.shapes import rounded_box
from neuralrecon.simulate.solid import Solid
from neuralrecon.simulate.user_mesh import load_textured, placed_mesh

GENUS = {name: 0 for name in BUILTIN_MESHES} | {"mug": 1, "torus": 1}


@pytest.mark.parametrize("name", BUILTIN_MESHES)
def test_builtin_meshes_are_solids_of_tabletop_size(name: str) -> None:
    textured = builtin_mesh(name)
    mesh = textured.mesh
    assert mesh.is_volume
    assert mesh.body_count == 1
    assert mesh.euler_number == 2 - 2 * GENUS[name]
    assert mesh.bounds[0, 2] == pytest.approx(0, abs=1e-9)
    assert 0.035 < mesh.extents[2] < 0.25
    assert 0.08 <= mesh.extents.max() <= 0.25
    colors = textured.albedo(textured.corner_coordinates[:, 0], 0.0005)
    assert colors.min() >= 0
    assert colors.max() <= 1
    # a print: neighbouring places differ strongly
    assert colors.std(axis=0).max() > 0.08


def test_mug_is_open_and_its_wall_is_a_few_millimetres() -> None:
    mesh = builtin_mesh("mug").mesh
    inside = mesh.contains([[0, 0, 0.05], [0, 0.0387, 0.05], [0, 0, 0.003]])
    assert inside.tolist() == [False, True, True]
    hits, _, _ = mesh.ray.intersects_location([[0, -0.1, 0.05]], [[0, 1, 0]])
    walls = np.diff(np.sort(hits[:, 1]))[[0, 2]]
    assert walls == pytest.approx(0.0045, abs=2e-4)


@pytest.mark.parametrize("name", ["can", "vase", "wedge", "duck"])
def test_solids_have_no_cavity(name: str) -> None:
    """They fill most of their convex hull (the mug: a third of its own)."""
    mesh = builtin_mesh(name).mesh
    assert 0.7 < mesh.volume / mesh.convex_hull.volume <= 1


def test_wedge_is_the_slice_of_a_cylinder() -> None:
    """50 degrees of 100 mm radius and 60 mm height, less its rounded edges; its sides are flat and 50 degrees apart."""
    mesh = builtin_mesh("wedge").mesh
    full = np.radians(25) * 0.1**2 * 0.06
    assert 0.95 * full < mesh.volume < full
    for side in (1, -1):
        flat = np.array([-np.sin(np.radians(25)), side * np.cos(np.radians(25)), 0])
        area = mesh.area_faces[mesh.face_normals @ flat > 0.9999].sum()
        assert 0.088 * 0.044 < area < 0.1 * 0.06  # edges are rounded over 6 to 8 mm


def test_figure_has_thin_limbs() -> None:
    mesh = builtin_mesh("figure").mesh
    section = mesh.section(plane_origin=[0, 0, 0.03], plane_normal=[0, 0, 1])
    assert section is not None
    legs = section.discrete
    assert len(legs) == 2
    for leg in legs:
        assert np.ptp(leg, axis=0)[1] == pytest.approx(0.0095, abs=0.0015)


def test_rounded_box_has_the_volume_of_the_closed_form() -> None:
    a, b, c, r = 0.11, 0.06, 0.16, 0.01
    mesh = rounded_box((a, b, c), r)
    p, q, s = a - 2 * r, b - 2 * r, c - 2 * r
    volume = p * q * s + 2 * r * (p * q + q * s + s * p) + np.pi * r**2 * (p + q + s) + 4 / 3 * np.pi * r**3
    # each quarter circle is a chain of 8 chords: its sector loses about (pi / 16)^2 / 6 of it
    assert mesh.volume == pytest.approx(volume, rel=2e-3)
    assert mesh.volume < volume


def test_sheet_filters_to_its_mean_and_repeats() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((64, 64, 3))
    sheet = Sheet.from_image(image, 0.001)
    uv = (np.array([[5, 9], [63, 0]]) + 0.5) / 64
    assert sheet.sample(uv, 0.0) == pytest.approx(image[[9, 0], [5, 63]], abs=1e-6)
    assert sheet.sample(uv + 3, 0.0) == pytest.approx(sheet.sample(uv, 0.0), abs=1e-5)
    assert sheet.sample(uv, 0.002) != pytest.approx(sheet.sample(uv, 0.0), abs=0.05)
    assert sheet.levels[-1].mean(axis=(0, 1)) == pytest.approx(image.mean(axis=(0, 1)), abs=1e-5)


def test_solid_noise_interpolates_its_lattice() -> None:
    lattice = np.random.default_rng(1).random((8, 8, 8)).astype(np.float32)
    nodes = np.array([[1, 2, 3], [7, 0, 9]])
    assert solid_noise(nodes * 0.01 + 1e-9, lattice, 0.01) == pytest.approx(lattice[[1, 7], [2, 0], [3, 1]], abs=1e-5)


def test_image_texture_lands_where_the_file_says(tmp_path) -> None:
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32] = [255, 0, 0]
    texture[32:] = [0, 0, 255]
    Image.fromarray(texture).save(tmp_path / "print.png")
    (tmp_path / "print.mtl").write_text("newmtl print\nKd 1 1 1\nmap_Kd print.png\n")
    square = "v 0 0 0\nv 0.1 0 0\nv 0.1 0 0.1\nv 0 0 0.1\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    (tmp_path / "square.obj").write_text(f"mtllib print.mtl\nusemtl print\n{square}f 1/1 2/2 3/3\nf 1/1 3/3 4/4\n")
    solid = Solid.build(load_textured(tmp_path / "square.obj"))
    origins = np.array([[0.03, -0.2, 0.02], [0.03, -0.2, 0.08]])
    hits = solid.hit(origins, np.tile([0.0, 1.0, 0.0], (2, 1)))
    low, high = solid.albedo(hits, 0.0)
    assert low[2] > 0.8 > 0.1 > low[0]
    assert high[0] > 0.8 > 0.1 > high[2]


def test_vertex_colours_and_plain_meshes(tmp_path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.05)
    ball.export(tmp_path / "plain.ply")
    assert load_textured(tmp_path / "plain.ply").albedo(np.zeros((1, 3)), 0).tolist() == [[0.5, 0.5, 0.5]]
    ball.visual.vertex_colors = np.tile([188, 0, 0, 255], (len(ball.vertices), 1))
    ball.export(tmp_path / "red.ply")
    red = load_textured(tmp_path / "red.ply")
    # sRGB 188 is linear 0.503
    assert red.albedo(red.corner_coordinates[:, 0], 0)[0] == pytest.approx([0.503, 0.01, 0.01], abs=2e-3)


def test_placing_scales_turns_and_stands(tmp_path) -> None:
    trimesh.creation.box((100, 60, 40)).export(tmp_path / "mm.stl")
    config = SimulateConfig(mesh=str(tmp_path / "mm.stl"), scale=1e-3, yaw_deg=90, offset_x_mm=10, offset_y_mm=-5)
    placed = placed_mesh(config).mesh
    assert placed.bounds == pytest.approx(np.array([[-0.02, -0.055, 0], [0.04, 0.045, 0.04]]), abs=1e-7)
    assert placed.is_volume


def test_meshes_that_no_table_takes(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no such file.*box, bottle, mug"):
        placed_mesh(SimulateConfig(mesh="teapot"))
    with pytest.raises(ConfigError, match="no built-in mesh 'teapot'"):
        builtin_mesh("teapot")
    trimesh.creation.box((100, 60, 40)).export(tmp_path / "mm.stl")
    with pytest.raises(ConfigError, match=r"100 m across.*scale"):
        placed_mesh(SimulateConfig(mesh=str(tmp_path / "mm.stl")))
    trimesh.PointCloud([[0, 0, 0], [0, 0, 0.1]]).export(tmp_path / "points.ply")
    with pytest.raises(MeshError, match="no triangles"):
        placed_mesh(SimulateConfig(mesh=str(tmp_path / "points.ply")))
