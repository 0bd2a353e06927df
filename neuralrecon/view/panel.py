"""The controls beside the scene. What they say is read when a job runs; a change asks for the jobs it concerns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from .pictures import Picture
from .plane import AXES
from .points import PointKind
from .surfaces import Paint
from .viewpoints import Shows

if TYPE_CHECKING:
    import viser

Ask = Callable[..., None]
OWN_CAMERA = "this window's camera"
_DRAG_S = 0.12  # a slider that is being dragged asks when it has stood still for so long


class Cameras(StrEnum):
    """Which cameras are drawn."""

    none = "none"
    one_stop = "one stop (the rig)"
    all = "all"


class Source(StrEnum):
    """Where the surface comes from."""

    fit = "the fit's sdf"
    file = "mesh.ply of the run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Handles of all controls, in the order in which they are seen."""

    object: viser.GuiDropdownHandle[str]
    status: viser.GuiMarkdownHandle
    trouble: viser.GuiMarkdownHandle
    cameras: viser.GuiDropdownHandle[str]
    stop: viser.GuiSliderHandle[int]
    color_cameras: viser.GuiCheckboxHandle
    depth_cameras: viser.GuiCheckboxHandle
    pictures: viser.GuiCheckboxHandle
    hull: viser.GuiCheckboxHandle
    table: viser.GuiCheckboxHandle
    labels: dict[PointKind, viser.GuiCheckboxHandle]
    n_points: viser.GuiMarkdownHandle
    surface: viser.GuiCheckboxHandle
    source: viser.GuiDropdownHandle[str]
    paint: viser.GuiDropdownHandle[str]
    voxel_mm: viser.GuiSliderHandle[float]
    level_mm: viser.GuiSliderHandle[float]
    of_surface: viser.GuiMarkdownHandle
    axis: viser.GuiDropdownHandle[str]
    offset_mm: viser.GuiSliderHandle[float]
    clips: viser.GuiCheckboxHandle
    flipped: viser.GuiCheckboxHandle
    slice: viser.GuiCheckboxHandle
    range_mm: viser.GuiSliderHandle[float]
    of_slice: viser.GuiMarkdownHandle
    renders: viser.GuiCheckboxHandle
    eye: viser.GuiDropdownHandle[str]
    shows: viser.GuiDropdownHandle[str]
    picture_px: viser.GuiSliderHandle[int]
    go_there: viser.GuiButtonHandle
    picture: viser.GuiImageHandle
    of_picture: viser.GuiMarkdownHandle
    tab_of_curves: viser.GuiTabHandle

    @staticmethod
    def built(gui: viser.GuiApi, names: Sequence[str], picture_px: int, ask: Ask) -> Panel:
        """All controls, with `ask` called with the jobs that a change makes due."""
        found = _Controls(gui, ask)
        found.head(names)
        tabs = gui.add_tab_group()
        with tabs.add_tab("Scene"):
            found.scene()
        with tabs.add_tab("Surface"):
            found.surface()
        with tabs.add_tab("Plane"):
            found.plane()
        with tabs.add_tab("View"):
            found.view(picture_px)
        found.made["tab_of_curves"] = tabs.add_tab("Curves")
        return Panel(**found.made)

    @property
    def kinds_shown(self) -> list[PointKind]:
        return [kind for kind, box in self.labels.items() if box.value]


class _Controls:
    """Makes the controls one tab after the other."""

    def __init__(self, gui: viser.GuiApi, ask: Ask) -> None:
        self._gui, self._ask = gui, ask
        self.made: dict = {}

    def _keep(self, name: str, handle, *jobs: str, dragged: bool = False):
        self.made[name] = handle
        if jobs:
            handle.on_update(lambda _: self._ask(*jobs, after_s=_DRAG_S if dragged else 0.0))
        return handle

    def _slider(self, name: str, label: str, low: float, high: float, step: float, first: float, hint: str, *jobs: str):
        handle = self._gui.add_slider(label, min=low, max=high, step=step, initial_value=first, hint=hint)
        return self._keep(name, handle, *jobs, dragged=True)

    def _box(self, name: str, label: str, first: bool, hint: str, *jobs: str):
        return self._keep(name, self._gui.add_checkbox(label, first, hint=hint), *jobs)

    def _choice(self, name: str, label: str, options: Sequence[str], hint: str, *jobs: str):
        handle = self._gui.add_dropdown(label, tuple(str(o) for o in options), hint=hint)
        return self._keep(name, handle, *jobs)

    def _text(self, name: str, text: str = ""):
        return self._keep(name, self._gui.add_markdown(text))

    def head(self, names: Sequence[str]) -> None:
        self._choice("object", "Object", names, "Which run is shown", "object").visible = len(names) > 1
        self._text("status", "Reading …")
        self._text("trouble").visible = False

    def scene(self) -> None:
        hint = "Blue: photographs, orange: depth. A click on one goes there and shows it under View"
        self._choice("cameras", "Cameras", list(Cameras)[::-1], hint, "cameras").value = Cameras.one_stop
        self._slider("stop", "Stop", 0, 1, 1, 0, "Which stop of the turntable", "cameras")
        self._box("color_cameras", "Photographs", True, "Cameras that took photographs", "cameras")
        self._box("depth_cameras", "Depth", True, "Depth cameras", "cameras")
        self._box("pictures", "Pictures", True, "Images on the cameras", "cameras")
        self._box(
            "table", "Table", True, "A grid at the table's height: ten lines to the object's longest side", "table"
        )
        self._box("hull", "Visual hull", False, "Carved from at most 40 outlines, on 64 cells a side", "hull")
        self.made["labels"] = {
            kind: self._gui.add_checkbox(f"Labels: {kind}", False, hint=hint)
            for kind, hint in {
                PointKind.occupied: "Points that the run has labelled as inside",
                PointKind.free: "Points that the run has labelled as outside",
                PointKind.unobserved: "Points that no camera has seen as free or as surface",
            }.items()
        }
        for box in self.made["labels"].values():
            box.on_update(lambda _: self._ask("labels"))
        self._text("n_points")

    def surface(self) -> None:
        self._box("surface", "Surface", True, "Whether it is drawn", "surface")
        self._choice("source", "From", list(Source), "A level of the fit, or the file that the run wrote", "surface")
        self._choice("paint", "Painted", list(Paint), "Normals: x, y, z as red, green, blue", "surface")
        self._slider("voxel_mm", "Voxel mm", 0.1, 10, 0.1, 2, "Of the surface that is drawn", "surface")
        hint = "The sdf's level that is drawn: 0 is the surface, above it lies outside"
        self._slider("level_mm", "Iso level mm", -5, 5, 0.1, 0, hint, "surface")
        self._text("of_surface")

    def plane(self) -> None:
        both = ("surface", "slice", "labels")
        self._choice("axis", "Square to", AXES, "The axis of the world that the plane is square to", "plane")
        self._slider("offset_mm", "At mm", -100, 100, 0.5, 0, "Where along the axis", *both)
        self._box("clips", "Clip", False, "Cut away the surface and the labels beyond the plane", *both)
        self._box("flipped", "Other side", False, "Cut away what lies before the plane instead", *both)
        self._box("slice", "Slice of the sdf", False, "Blue inside, red outside, a line at zero", "slice")
        self._slider("range_mm", "Colours to mm", 1, 50, 1, 10, "Where the colours end", "slice")
        self._text("of_slice")

    def view(self, picture_px: int) -> None:
        self._box("renders", "Render", True, "Whether the view below is computed", "view")
        hint = "This window's camera, or one of the capture's, then beside what it took"
        self._choice("eye", "From", [OWN_CAMERA], hint, "view")
        self._choice("shows", "Shows", list(Shows), "What is rendered", "view")
        self._slider("picture_px", "Pixels", 32, 1024, 32, picture_px, "Of the picture's longer side", "view")
        self._keep("go_there", self._gui.add_button("Go to this camera", hint="Move this window's camera there"))
        self._keep("picture", self._gui.add_image(blank_picture(), format="png"))
        self._text("of_picture")


def blank_picture() -> Picture:
    """What is shown before the first view is rendered."""
    return np.full((48, 64, 3), 255, np.uint8)
