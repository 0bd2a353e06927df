"""The grid of the surface benchmark: shapes, materials, methods, seeds, and the settings that all cells share."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuralrecon.calibrate import CalibrateConfig
from neuralrecon.errors import ConfigError
from neuralrecon.evaluate import EvaluateConfig
from neuralrecon.extract import MeshConfig
from neuralrecon.scene import SceneConfig
from neuralrecon.simulate import BUILTIN_MESHES, Material, SimulateConfig
from neuralrecon.train.run_folder import plain

from .fits import fit_config
from .surface_ablations import ABLATIONS
from .surface_baselines import ClassicalConfig

OURS = "ours"
CLASSICAL = ("tsdf", "poisson", "hull")
METHODS = (OURS, *CLASSICAL, *ABLATIONS)
MATERIALS = tuple(str(material) for material in Material)
CAPTURE = "capture"  # the cell that simulates what the others of its shape, material and seed look at
SHAPES = tuple(name for name in BUILTIN_MESHES if name != "sphere")  # every cut of a sphere is a circle: too plain
WITH_CAVITY = ("mug",)
_SUFFIXES = (".obj", ".ply", ".stl", ".glb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One figure of the grid. `mesh` is a built-in name or a file; `method` is one of `METHODS`, or `CAPTURE`."""

    shape: str
    mesh: str
    has_cavity: bool
    material: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """The stem of its files."""
        return f"{self.shape}_{self.material}_{self.method}_s{self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all cells share. `fit` are settings of the fit, as in ``steps=500``; what is not here is the default.

    `refines` says whether the calibration, which is off, is refined before, as in a run; else the fit alone does that.
    """

    n_stops: int
    n_width: int
    np_width: int
    depth_width: int
    fit: tuple[str, ...]
    voxel_mm: float
    n_samples: int
    refines: bool = False

    def simulate_config(self, cell: Cell, n_threads: int = 1) -> SimulateConfig:
        """Errors of sensors and calibration are the simulator's defaults."""
        return SimulateConfig(
            mesh=cell.mesh,
            material=Material(cell.material),
            seed=cell.seed,
            n_stops=self.n_stops,
            n_width=self.n_width,
            np_width=self.np_width,
            depth_width=self.depth_width,
            workers=n_threads,
        )

    def evaluate_config(self) -> EvaluateConfig:
        """Without alignment: the table's frame is known."""
        return EvaluateConfig(n_samples=self.n_samples, with_alignment=False)

    def digest(self, cell: Cell) -> str:
        """Changes with whatever the cell's figures depend on but the code."""
        known = {"simulate": plain(self.simulate_config(cell))}
        if Path(cell.mesh).is_file():
            known["mesh"] = hashlib.sha256(Path(cell.mesh).read_bytes()).hexdigest()
        if cell.method != CAPTURE:
            known |= {"method": cell.method, "evaluate": plain(self.evaluate_config())}
        if cell.method != CAPTURE and self.refines:
            known["calibration"] = plain(CalibrateConfig())
        if cell.method in CLASSICAL:
            known["classical"] = plain(ClassicalConfig())
        elif cell.method != CAPTURE:
            parts = (fit_config(self.fit), SceneConfig(), MeshConfig(voxel_mm=self.voxel_mm))
            known["parts"] = [plain(part) for part in parts]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]


def shapes_of(names: Sequence[str], folder: Path | None) -> dict[str, str]:
    """The mesh of each shape: built-in ones of these names, and all meshes in a folder and the folders in it.

    A file is called by its stem, or by its folder's name if others have the same stem.

    Raises:
        ConfigError: an unknown name, a folder without meshes, two shapes of one name, or none at all.
    """
    for name in names:
        if name not in BUILTIN_MESHES:
            raise ConfigError(f"--shapes {name}: no built-in mesh; there are {', '.join(BUILTIN_MESHES)}")
    pairs = [(name, name) for name in names]
    if folder is not None:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not files:
            raise ConfigError(f"--meshes {folder}: no mesh in it; want files {', '.join(_SUFFIXES)} in metres, z up")
        stems = Counter(file.stem for file in files)
        pairs += [(file.stem if stems[file.stem] == 1 else file.parent.name, str(file)) for file in files]
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice or not pairs:
        said = f"two shapes are called {twice[0]}; rename one" if twice else "no shapes; give --shapes or --meshes"
        raise ConfigError(said)
    return dict(pairs)


def groups_of(
    shapes: dict[str, str],
    cavities: Sequence[str],
    materials: Sequence[str],
    methods: Sequence[str],
    n_seeds: int,
) -> list[list[Cell]]:
    """All cells, those that look at one capture together, the capture's own first."""
    return [
        [
            Cell(shape=shape, mesh=mesh, has_cavity=shape in cavities, material=material, method=method, seed=seed)
            for method in (CAPTURE, *methods)
        ]
        for seed in range(n_seeds)
        for shape, mesh in shapes.items()
        for material in materials
    ]
