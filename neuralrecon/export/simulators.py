"""A rigid body for simulators: URDF, and MuJoCo's own MJCF."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import trimesh
from trimesh.exchange.obj import export_obj

from ..files import replacing
from .body import RigidBody
from .visual import has_colors, vertex_colors

_MESH_FOLDER = "meshes"
_DIGITS = 9
_HEADER = "metres, z up"


def write_urdf(body: RigidBody, folder: Path) -> Path:
    """``NAME.urdf`` and ``meshes/*.obj`` in an existing folder; returns the URDF's path.

    One link whose frame is the mesh's, in metres; paths are relative to the file. The inertial frame lies in the centre
    of mass with the link's axes. Visual meshes have vertex colours, which not all programs show: the material is their
    mean. MuJoCo reads the file, too; for others its extension means nothing.
    """
    robot = ElementTree.Element("robot", name=body.name)
    extension = ElementTree.SubElement(robot, "mujoco")
    ElementTree.SubElement(extension, "compiler", strippath="false", discardvisual="false", fusestatic="false")
    link = ElementTree.SubElement(robot, "link", name=body.name)
    inertial = ElementTree.SubElement(link, "inertial")
    ElementTree.SubElement(inertial, "origin", xyz=_numbers(body.centre_m), rpy="0 0 0")
    ElementTree.SubElement(inertial, "mass", value=_numbers([body.mass_kg]))
    tensor = body.inertia_kg_m2
    entries = {f"i{a}{b}": _numbers([tensor[i, j]]) for i, a in enumerate("xyz") for j, b in enumerate("xyz") if j >= i}
    ElementTree.SubElement(inertial, "inertia", entries)
    visual, parts = _write_meshes(body, folder)
    material = ElementTree.SubElement(_geometry(link, "visual", visual), "material", name=f"{body.name}_mean")
    ElementTree.SubElement(material, "color", rgba=_numbers(mean_color(body.visual)))
    for part in parts:
        _geometry(link, "collision", part)
    return _write(robot, folder / f"{body.name}.urdf")


def write_mjcf(body: RigidBody, folder: Path) -> Path:
    """``NAME.xml``, a free body for MuJoCo, and ``scene.xml``, in which it stands on a plane; returns the former.

    The body's frame is the mesh's, in metres. Convex parts collide (group 3), the visual mesh is shown (group 2).
    """
    model = ElementTree.Element("mujoco", model=body.name)
    ElementTree.SubElement(model, "compiler", meshdir=".", angle="radian")
    asset = ElementTree.SubElement(model, "asset")
    visual, parts = _write_meshes(body, folder)
    for name, file in (("visual", visual), *((Path(part).stem, part) for part in parts)):
        ElementTree.SubElement(asset, "mesh", name=f"{body.name}_{name}", file=file)
    world = ElementTree.SubElement(model, "worldbody")
    frame = ElementTree.SubElement(world, "body", name=body.name)
    ElementTree.SubElement(frame, "freejoint")
    tensor = body.inertia_kg_m2
    full = [*tensor.diagonal(), tensor[0, 1], tensor[0, 2], tensor[1, 2]]
    inertial = {"pos": _numbers(body.centre_m), "mass": _numbers([body.mass_kg]), "fullinertia": _numbers(full)}
    ElementTree.SubElement(frame, "inertial", inertial)
    shown = {"rgba": _numbers(mean_color(body.visual)), "group": "2", "contype": "0", "conaffinity": "0"}
    ElementTree.SubElement(frame, "geom", {"type": "mesh", "mesh": f"{body.name}_visual", **shown})
    for part in parts:
        ElementTree.SubElement(frame, "geom", type="mesh", mesh=f"{body.name}_{Path(part).stem}", group="3")
    file = _write(model, folder / f"{body.name}.xml")
    _write_scene(body, folder, file)
    return file


def mean_color(mesh: trimesh.Trimesh) -> np.ndarray:
    """Red, green, blue (sRGB) and opacity, 0 to 1: the mean of the vertices' colours."""
    return np.append(vertex_colors(mesh).astype(np.float64).mean(axis=0) / 255, 1.0)


def _write_scene(body: RigidBody, folder: Path, model: Path) -> None:
    scene = ElementTree.Element("mujoco", model=f"{body.name}_scene")
    ElementTree.SubElement(scene, "include", file=model.name)
    world = ElementTree.SubElement(scene, "worldbody")
    ElementTree.SubElement(world, "light", pos="0 0 2", dir="0 0 -1")
    ElementTree.SubElement(world, "geom", name="floor", type="plane", size="1 1 0.1", rgba="0.7 0.7 0.7 1")
    _write(scene, folder / "scene.xml")


def _write_meshes(body: RigidBody, folder: Path) -> tuple[str, list[str]]:
    """Paths, relative to the folder, of the visual mesh and of the parts."""
    visual = _write_obj(body.visual, folder, "visual")
    return visual, [_write_obj(part, folder, f"part_{i:03d}") for i, part in enumerate(body.parts)]


def _write_obj(mesh: trimesh.Trimesh, folder: Path, name: str) -> str:
    text = export_obj(
        mesh,
        include_normals=False,
        include_color=has_colors(mesh),
        include_texture=False,
        digits=_DIGITS,
        header=_HEADER,
    )
    path = f"{_MESH_FOLDER}/{name}.obj"
    with replacing(folder / path) as temporary:
        temporary.write_text(text if isinstance(text, str) else text[0], encoding="utf-8")
    return path


def _geometry(link: ElementTree.Element, kind: str, file: str) -> ElementTree.Element:
    element = ElementTree.SubElement(link, kind)
    ElementTree.SubElement(element, "origin", xyz="0 0 0", rpy="0 0 0")
    geometry = ElementTree.SubElement(element, "geometry")
    ElementTree.SubElement(geometry, "mesh", filename=file, scale="1 1 1")
    return element


def _numbers(values) -> str:
    return " ".join(f"{float(value):.10g}" for value in values)


def _write(root: ElementTree.Element, file: Path) -> Path:
    tree = ElementTree.ElementTree(root)
    ElementTree.indent(tree)
    with replacing(file) as temporary:
        tree.write(temporary, encoding="utf-8", xml_declaration=True)
    return file
