"""A rigid body as a USD stage. The only user of OpenUSD's Python package."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import trimesh

from ..capture.srgb import linear_of
from ..errors import ConfigError
from ..files import replacing
from .body import RigidBody
from .visual import vertex_colors

_MODULES = ("Gf", "Kind", "Sdf", "Usd", "UsdGeom", "UsdPhysics", "Vt")


def write_usd(body: RigidBody, folder: Path) -> Path:
    """``NAME.usdc`` in an existing folder: one rigid body, z up, in metres and kilograms; returns its path.

    ``/NAME`` is the default prim, with the mesh's frame, mass, centre of mass and principal moments. ``visual`` has
    ``displayColor`` at its vertices, in linear light as USD wants it. The convex parts below ``collision`` are guides:
    they collide, and are not drawn.

    Raises:
        ConfigError: usd-core is not installed.
    """
    pxr = _pxr()
    name = re.sub(r"\W", "_", body.name)
    name = name if not name[0].isdigit() else f"_{name}"
    file = folder / f"{body.name}.usdc"
    with replacing(file) as temporary:
        stage = pxr.Usd.Stage.CreateNew(str(temporary))
        pxr.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        pxr.UsdGeom.SetStageUpAxis(stage, pxr.UsdGeom.Tokens.z)
        pxr.UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
        root = pxr.UsdGeom.Xform.Define(stage, f"/{name}")
        stage.SetDefaultPrim(root.GetPrim())
        pxr.Usd.ModelAPI(root.GetPrim()).SetKind(pxr.Kind.Tokens.component)
        _give_mass(pxr, root.GetPrim(), body)
        visual = _define_mesh(pxr, stage, f"/{name}/visual", body.visual)
        _give_colors(pxr, visual, body.visual)
        pxr.UsdGeom.Scope.Define(stage, f"/{name}/collision")
        for i, part in enumerate(body.parts):
            collider = _define_mesh(pxr, stage, f"/{name}/collision/part_{i:03d}", part)
            collider.CreatePurposeAttr(pxr.UsdGeom.Tokens.guide)
            pxr.UsdPhysics.CollisionAPI.Apply(collider.GetPrim())
            api = pxr.UsdPhysics.MeshCollisionAPI.Apply(collider.GetPrim())
            api.CreateApproximationAttr(pxr.UsdPhysics.Tokens.convexHull)
        stage.GetRootLayer().Save()
        del stage  # its file may be renamed now
    return file


def _give_mass(pxr: Any, prim: Any, body: RigidBody) -> None:
    pxr.UsdPhysics.RigidBodyAPI.Apply(prim)
    mass = pxr.UsdPhysics.MassAPI.Apply(prim)
    moments, axes = body.principal()
    turned = pxr.Gf.Matrix3d(*axes.T.ravel().tolist())  # USD's vectors are rows
    mass.CreateMassAttr(body.mass_kg)
    mass.CreateCenterOfMassAttr(pxr.Gf.Vec3f(*body.centre_m.tolist()))
    mass.CreateDiagonalInertiaAttr(pxr.Gf.Vec3f(*moments.tolist()))
    mass.CreatePrincipalAxesAttr(pxr.Gf.Quatf(turned.ExtractRotation().GetQuat()))


def _define_mesh(pxr: Any, stage: Any, path: str, mesh: trimesh.Trimesh) -> Any:
    made = pxr.UsdGeom.Mesh.Define(stage, path)
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)
    made.CreatePointsAttr(pxr.Vt.Vec3fArray.FromNumpy(vertices))
    made.CreateFaceVertexIndicesAttr(pxr.Vt.IntArray.FromNumpy(faces.ravel()))
    made.CreateFaceVertexCountsAttr(pxr.Vt.IntArray.FromNumpy(np.full(len(faces), 3, np.int32)))
    made.CreateSubdivisionSchemeAttr(pxr.UsdGeom.Tokens.none)
    made.CreateExtentAttr(pxr.Vt.Vec3fArray.FromNumpy(np.stack([vertices.min(axis=0), vertices.max(axis=0)])))
    return made


def _give_colors(pxr: Any, made: Any, mesh: trimesh.Trimesh) -> None:
    """Normals and colours at the vertices."""
    normals = np.ascontiguousarray(mesh.vertex_normals, np.float32)
    made.CreateNormalsAttr(pxr.Vt.Vec3fArray.FromNumpy(normals))
    made.SetNormalsInterpolation(pxr.UsdGeom.Tokens.vertex)
    linear = linear_of(vertex_colors(mesh).astype(np.float64) / 255)
    colors = made.CreateDisplayColorPrimvar(pxr.UsdGeom.Tokens.vertex)
    colors.Set(pxr.Vt.Vec3fArray.FromNumpy(linear.astype(np.float32)))


def _pxr() -> Any:
    try:
        return SimpleNamespace(**{name: importlib.import_module(f"pxr.{name}") for name in _MODULES})
    except ImportError as error:
        raise ConfigError('USD needs OpenUSD\'s package: pip install -e ".[usd]"') from error
