"""Rigid bodies: closed forms, MuJoCo's and OpenUSD's own reading of the files, a fall onto a plane."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest
import shapely
import trimesh
from pxr import Gf, Usd, UsdGeom, UsdPhysics, UsdValidation

from neuralrecon.errors import ConfigError, ExportError
from neuralrecon.export import (
    BodyConfig,
    ExportFormat,
    RigidBody,
    export,
    rigid_body,
    write_mjcf,
    write_urdf,
    write_usd,
)
from neuralrecon.label import Solid
from neuralrecon.simulate import builtin_mesh

SIZE = np.array([0.06, 0.1, 0.2])
HULL = BodyConfig(most_parts=1)


def colored(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    rng = np.random.default_rng(0)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=rng.integers(0, 256, (len(mesh.vertices), 3)))
    return mesh


def turned_box() -> tuple[trimesh.Trimesh, np.ndarray]:
    """A box off the origin, turned about all axes, and where it is."""
    place = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])
    place[:3, 3] = (0.3, -0.2, 0.5)
    box = trimesh.creation.box(SIZE)
    box.apply_transform(place)
    return colored(box), place


def box_inertia(mass_kg: float, rotation: np.ndarray) -> np.ndarray:
    """The textbook's m/12 (b^2 + c^2), turned."""
    squares = SIZE**2
    return rotation @ np.diag(mass_kg / 12 * (squares.sum() - squares)) @ rotation.T


def loaded_body(file: Path, name: str) -> tuple[float, np.ndarray, np.ndarray]:
    """Mass, centre of mass, and the tensor in the body's axes, as MuJoCo has them."""
    model = mujoco.MjModel.from_xml_path(str(file))
    number = model.body(name).id
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.body_iquat[number])
    rotation = rotation.reshape(3, 3)
    tensor = rotation @ np.diag(model.body_inertia[number]) @ rotation.T
    return float(model.body_mass[number]), np.array(model.body_ipos[number]), tensor


@pytest.mark.parametrize("write", [write_urdf, write_mjcf])
def test_a_simulator_has_the_inertia_of_a_box(tmp_path: Path, write) -> None:
    """All entries of the tensor, signs included: the axes are turned, so none of them is 0. Exact but for rounding."""
    mesh, place = turned_box()
    body = rigid_body(mesh, BodyConfig(density_kg_m3=700, most_parts=1), name="a box!")
    moved = shutil.move(write(body, tmp_path).parent, tmp_path.with_name(f"{tmp_path.name} moved"))
    [file] = [*Path(moved).glob("a_box.urdf"), *Path(moved).glob("a_box.xml")]
    mass, centre, tensor = loaded_body(file, "a_box")
    want = box_inertia(700 * SIZE.prod(), place[:3, :3])
    assert mass == pytest.approx(700 * SIZE.prod(), rel=1e-8)
    np.testing.assert_allclose(centre, place[:3, 3], atol=1e-9)
    np.testing.assert_allclose(tensor, want, atol=1e-8 * np.abs(want).max())
    assert (np.abs(want) > 1e-3 * np.abs(want).max()).all()


def test_a_sphere_weighs_what_a_scale_says(tmp_path: Path) -> None:
    """An icosphere of 20480 faces in a ball of radius r: its volume is 0.1 % less, its moment 2/5 m r^2 too."""
    radius = 0.04
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    body = rigid_body(mesh, BodyConfig(mass_kg=0.25, most_parts=1), name="ball")
    mass, centre, tensor = loaded_body(write_urdf(body, tmp_path), "ball")
    assert mass == pytest.approx(0.25, rel=1e-8)
    np.testing.assert_allclose(centre, 0, atol=1e-9)
    np.testing.assert_allclose(tensor, np.eye(3) * 0.4 * 0.25 * radius**2, rtol=2e-3, atol=1e-9)


def test_a_hollow_body_keeps_its_inertia() -> None:
    """The mug's tensor against 400,000 points drawn inside of its box: a standard error of 0.4 % of each moment."""
    mesh = builtin_mesh("mug").mesh
    body = rigid_body(mesh, HULL, name="mug")
    rng = np.random.default_rng(0)
    low, size = mesh.bounds[0], mesh.extents
    points = low + size * rng.random((400_000, 3))
    inside = points[Solid.of(mesh).contains(points)]
    mass = 1000 * size.prod() * len(inside) / len(points)
    off = inside - inside.mean(axis=0)
    moments = mass / len(inside) * ((off**2).sum() * np.eye(3) - off.T @ off)
    assert body.mass_kg == pytest.approx(mass, rel=0.01)
    np.testing.assert_allclose(body.centre_m, inside.mean(axis=0), atol=3e-4)
    np.testing.assert_allclose(body.inertia_kg_m2, moments, atol=0.01 * moments.max())


def test_turned_principal_axes_give_the_tensor_back() -> None:
    mesh, _ = turned_box()
    body = rigid_body(mesh, HULL, name="box")
    moments, axes = body.principal()
    np.testing.assert_allclose(axes @ np.diag(moments) @ axes.T, body.inertia_kg_m2, atol=1e-15)
    assert np.linalg.det(axes) == pytest.approx(1)


def fallen(body: RigidBody, folder: Path, height_m: float, seconds: float = 2.0) -> tuple[np.ndarray, float]:
    """Place of the body's frame and its speed after a fall from a height onto the plane z = 0."""
    write_mjcf(body, folder)
    model = mujoco.MjModel.from_xml_path(str(folder / "scene.xml"))
    data = mujoco.MjData(model)
    data.qpos[2] += height_m
    while data.time < seconds:
        mujoco.mj_step(model, data)
    return np.array(data.qpos[:3]), float(np.linalg.norm(data.qvel[:3]))


_RIGHT_HALF = ((0.05, 0.0), (0.05, 0.06), (0.03, 0.06), (0.03, 0.02))
CHANNEL = (*_RIGHT_HALF, *((-x, y) for x, y in reversed(_RIGHT_HALF)))


def channel_mesh() -> trimesh.Trimesh:
    """A U on the table, 0.1 m wide and long, of three boxes: floor and walls 20 mm thick, walls 60 mm high."""
    mesh = trimesh.creation.extrude_polygon(shapely.Polygon(CHANNEL), 0.1)
    mesh.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    mesh.apply_translation([0, 0.05, 0])
    return colored(mesh)


@pytest.fixture(scope="module")
def channel() -> RigidBody:
    return rigid_body(channel_mesh(), name="channel")


def test_parts_are_convex_and_leave_a_channel_open(channel: RigidBody) -> None:
    """The cuts of this solid are exact: parts fill it, to what CoACD's hulls round (1 %), and nothing else."""
    assert 2 < len(channel.parts) <= 32
    for part in channel.parts:
        assert part.is_convex
        assert part.is_watertight
        assert part.volume > 0
    volume = 0.1 * (0.1 * 0.02 + 2 * 0.02 * 0.04)
    assert sum(part.volume for part in channel.parts) == pytest.approx(volume, rel=0.02)
    between_the_walls = np.array([[0.0, 0.0, 0.04], [0.02, 0.03, 0.03]])
    assert channel_mesh().convex_hull.contains(between_the_walls).all()
    assert not any(part.contains(between_the_walls).any() for part in channel.parts)


def test_a_channel_comes_to_rest_where_it_stood(tmp_path: Path, channel: RigidBody) -> None:
    """Its frame's origin is on the table. MuJoCo's contacts give in by less than 0.5 mm, as do the parts."""
    place, speed = fallen(channel, tmp_path, 0.02)
    np.testing.assert_allclose(place, 0, atol=1e-3)
    assert speed < 1e-3


def test_what_falls_into_a_channel_comes_to_rest_on_its_floor(tmp_path: Path, channel: RigidBody) -> None:
    """A ball of radius 10 mm, let go above the walls, rests at 30 mm; on the convex hull it would at 70 mm."""
    write_mjcf(channel, tmp_path)
    spec = mujoco.MjSpec.from_file(str(tmp_path / "scene.xml"))
    ball = spec.worldbody.add_body(name="ball", pos=[0.0, 0.0, 0.09])
    ball.add_freejoint()
    ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.01, 0, 0], mass=0.01)
    model = spec.compile()
    data = mujoco.MjData(model)
    while data.time < 1.5:
        mujoco.mj_step(model, data)
    assert data.body("ball").xpos[2] == pytest.approx(0.03, abs=1e-3)


def test_a_box_falls_and_stands(tmp_path: Path) -> None:
    box = trimesh.creation.box(SIZE)
    box.apply_translation([0, 0, SIZE[2] / 2])
    place, speed = fallen(rigid_body(box, name="box"), tmp_path, 0.02)
    np.testing.assert_allclose(place, 0, atol=5e-4)
    assert speed < 1e-3


def test_a_urdf_names_files_beside_it(tmp_path: Path, channel: RigidBody) -> None:
    root = ElementTree.parse(write_urdf(channel, tmp_path)).getroot()
    files = [element.attrib["filename"] for element in root.iter("mesh")]
    assert len(files) == 1 + len(channel.parts)
    for name in files:
        assert not Path(name).is_absolute()
        mesh = trimesh.load(tmp_path / name, force="mesh", process=False)
        assert mesh.is_watertight
    shown = trimesh.load(tmp_path / files[0], force="mesh", process=False)
    np.testing.assert_allclose(shown.vertices, channel.visual.vertices, atol=1e-8)
    np.testing.assert_array_equal(shown.visual.vertex_colors, channel.visual.visual.vertex_colors)


def test_usd_says_what_the_body_is(tmp_path: Path) -> None:
    """Mass, tensor, geometry and colours, by OpenUSD; and none of its validators has an error to tell."""
    mesh, _ = turned_box()
    body = rigid_body(mesh, HULL, name="2nd box")
    stage = Usd.Stage.Open(str(write_usd(body, tmp_path)))
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1.0
    assert UsdGeom.GetStageUpAxis(stage) == "Z"
    root = stage.GetDefaultPrim()
    assert root.HasAPI(UsdPhysics.RigidBodyAPI)
    mass = UsdPhysics.MassAPI(root)
    assert mass.GetMassAttr().Get() == pytest.approx(body.mass_kg, rel=1e-6)
    np.testing.assert_allclose(mass.GetCenterOfMassAttr().Get(), body.centre_m, rtol=1e-6)
    turn = Gf.Rotation(Gf.Quatd(mass.GetPrincipalAxesAttr().Get()))
    axes = np.stack([turn.TransformDir(Gf.Vec3d(*axis)) for axis in np.eye(3).tolist()], axis=1)
    tensor = axes @ np.diag(mass.GetDiagonalInertiaAttr().Get()) @ axes.T
    np.testing.assert_allclose(tensor, body.inertia_kg_m2, atol=1e-6 * body.inertia_kg_m2.max())
    visual = UsdGeom.Mesh(stage.GetPrimAtPath(f"{root.GetPath()}/visual"))
    np.testing.assert_allclose(visual.GetPointsAttr().Get(), mesh.vertices, rtol=1e-6)
    np.testing.assert_array_equal(np.array(visual.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3), mesh.faces)
    colors = np.array(visual.GetDisplayColorPrimvar().Get())
    # sRGB's curve is near a power of 2.2: within 0.01 of it everywhere
    np.testing.assert_allclose(colors, (np.array(mesh.visual.vertex_colors)[:, :3] / 255) ** 2.2, atol=0.01)
    colliders = [prim for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.CollisionAPI)]
    assert [UsdPhysics.MeshCollisionAPI(p).GetApproximationAttr().Get() for p in colliders] == ["convexHull"]
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    found = UsdValidation.ValidationContext(validators).Validate(stage)
    assert len(validators) > 5
    assert [error.GetMessage() for error in found] == []


def test_unscaled_meshes_and_open_ones_are_refused(tmp_path: Path) -> None:
    box = trimesh.creation.box(SIZE)
    box.metadata["unit"] = "unscaled"
    for wanted in (ExportFormat.urdf, ExportFormat.mjcf, ExportFormat.usd, ExportFormat.bop):
        with pytest.raises(ExportError, match=r"cup: the run is unscaled .*object_height_mm"):
            export(box, tmp_path / "out", [wanted], name="cup")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ExportError, match="a mass needs a closed"):
        rigid_body(trimesh.Trimesh(box.vertices, box.faces[1:]), HULL, name="cup")


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"density_kg_m3": 0}, "above 0"), ({"mass_kg": -1.0}, "above 0"), ({"concavity": 0.001}, "concavity must be")],
)
def test_settings_out_of_range(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BodyConfig(**settings)


def test_what_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = rigid_body(trimesh.creation.box(SIZE), HULL, name="box")
    for name in ("coacd", "pxr", "pxr.Usd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=re.escape('pip install -e ".[sim]"')):
        rigid_body(trimesh.creation.box(SIZE), name="box")
    with pytest.raises(ConfigError, match=re.escape('pip install -e ".[usd]"')):
        write_usd(body, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_coacd_that_ends_its_process_does_not_end_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "abort.py"
    script.write_text("import os, sys; sys.stderr.write('a flaw\\n'); sys.stderr.flush(); os.abort()")
    monkeypatch.setattr("neuralrecon.export.convex._SCRIPT", script)
    with pytest.raises(ExportError, match=r"CoACD ended with status -6 \(a flaw\)"):
        rigid_body(trimesh.creation.box(SIZE), name="box")


def test_a_folder_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = trimesh.creation.box(SIZE)
    [done] = export(box, tmp_path, [ExportFormat.urdf], name="box")
    assert sorted(p.name for p in done.folder.iterdir()) == ["box.urdf", "meshes"]
    with pytest.raises(ConfigError, match="overwrite=true"):
        export(box, tmp_path, [ExportFormat.urdf], name="box")
    before = (done.folder / "box.urdf").read_bytes()
    monkeypatch.setattr("neuralrecon.export.simulators._write", lambda *_: json.loads("not written"))
    with pytest.raises(json.JSONDecodeError):
        export(box, tmp_path, [ExportFormat.urdf], name="box", overwrite=True)
    assert (done.folder / "box.urdf").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["urdf"]
