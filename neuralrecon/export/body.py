"""A mesh as a rigid body: mass, centre of mass, inertia, and convex parts to collide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Float

from ..errors import ConfigError, ExportError
from .convex import convex_parts
from .folders import file_name
from .visual import simplified


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyConfig:
    """How a mesh becomes a rigid body.

    Attributes:
        density_kg_m3: of the whole solid, as if it were full of one material; water has 1000.
        mass_kg: what a scale says, in place of the density.
        visual_faces: the mesh that is shown is simplified to about this many faces; 0 keeps all.
        concavity: how far convex parts may lie off the solid, relative to its size; smaller gives more parts.
        most_parts: at most so many convex parts; 1 is the convex hull.
        part_faces: the solid is simplified to about this many faces before it is taken apart.
        seed: of the search for parts.
    """

    density_kg_m3: float = 1000.0
    mass_kg: float | None = None
    visual_faces: int = 50_000
    concavity: float = 0.05
    most_parts: int = 32
    part_faces: int = 3000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.density_kg_m3 <= 0 or (self.mass_kg is not None and self.mass_kg <= 0):
            raise ConfigError(f"a density or mass must be above 0, got {self.density_kg_m3} kg/m3, {self.mass_kg} kg")
        if not 0.01 <= self.concavity <= 1 or self.most_parts < 1:
            raise ConfigError(
                f"concavity must be 0.01 to 1 and most_parts 1 or more, got {self.concavity} and {self.most_parts}"
            )
        if self.visual_faces < 0 or self.part_faces < 100:
            raise ConfigError(
                f"visual_faces must be 0 (all) or more and part_faces 100 or more, got {self.visual_faces} and "
                f"{self.part_faces}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RigidBody:
    """A solid of even density in its own frame, in metres.

    `inertia_kg_m2` is about the centre of mass, along the axes of the frame: its off-diagonal entries are minus the
    products of inertia, as URDF, MuJoCo and USD have them. `parts` are convex. `visual` carries vertex colours if the
    mesh had some.
    """

    name: str
    visual: trimesh.Trimesh
    parts: tuple[trimesh.Trimesh, ...]
    mass_kg: float
    centre_m: Float[np.ndarray, "3"]
    inertia_kg_m2: Float[np.ndarray, "3 3"]

    def principal(self) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"]]:
        """Moments about the principal axes, smallest first, and the rotation whose columns are these axes."""
        moments, axes = np.linalg.eigh(self.inertia_kg_m2)
        axes[:, 2] *= np.sign(np.linalg.det(axes))
        return moments, axes


def rigid_body(mesh: trimesh.Trimesh, config: BodyConfig | None = None, *, name: str) -> RigidBody:
    """The rigid body that a closed mesh in metres bounds.

    Raises:
        ExportError: the mesh is not metric, not closed, or its volume is not above 0.
        ConfigError: CoACD is not installed.

    Example:
        >>> body = rigid_body(trimesh.creation.box((0.1, 0.2, 0.3)), BodyConfig(most_parts=1), name="brick")
        >>> round(body.mass_kg, 6), body.inertia_kg_m2.diagonal().round(6).tolist()
        (6.0, [0.065, 0.05, 0.025])
    """
    config = config or BodyConfig()
    require_metres(mesh, name)
    if not (mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0):
        raise ExportError(f"{name}: a mass needs a closed, outward-oriented mesh; extract it with neuralrecon.extract")
    mass_kg, centre, inertia = mass_properties(mesh, config.density_kg_m3, config.mass_kg)
    return RigidBody(
        name=file_name(name),
        visual=simplified(mesh, config.visual_faces),
        parts=convex_parts(
            mesh,
            concavity=config.concavity,
            most_parts=config.most_parts,
            n_faces=config.part_faces,
            seed=config.seed,
        ),
        mass_kg=mass_kg,
        centre_m=centre,
        inertia_kg_m2=inertia,
    )


def mass_properties(
    mesh: trimesh.Trimesh, density_kg_m3: float, mass_kg: float | None = None
) -> tuple[float, Float[np.ndarray, "3"], Float[np.ndarray, "3 3"]]:
    """Mass, centre of mass and inertia about it of a closed mesh of even density; `mass_kg` sets the density."""
    middle = mesh.bounds.mean(axis=0)
    # integrals of the volume lose digits far from the origin
    whole = trimesh.triangles.mass_properties(mesh.triangles - middle, density=1.0, skip_inertia=False)
    volume = float(whole["volume"])
    density = density_kg_m3 if mass_kg is None else mass_kg / volume
    inertia = np.asarray(whole["inertia"], np.float64)
    return volume * density, np.asarray(whole["center_mass"]) + middle, density * (inertia + inertia.T) / 2


def require_metres(mesh: trimesh.Trimesh, name: str) -> None:
    """Raises ExportError if the mesh's metadata say that it is unscaled."""
    if mesh.metadata.get("unit") == "unscaled":
        raise ExportError(unscaled(name))


def unscaled(name: str) -> str:
    """What is said of a run whose world has no unit."""
    return (
        f"{name}: the run is unscaled (its world is not in metres), and this format is in metres or millimetres; run "
        "again with a scale (photos.camera_distance_mm, photos.object_height_mm or photos.metres_per_unit), or export "
        "nerfstudio or colmap only"
    )
