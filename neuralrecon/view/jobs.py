"""What the viewer's thread does: each method brings one part of scene or panel up to date with run and controls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import trimesh
from jaxtyping import Float

from ..capture import Capture, Image
from ..errors import CaptureError, NeuralReconError
from ..label import OccupancyLabels, Solid
from ..train import Fit
from . import captions
from .eyes import field_of_view, free_eye, pose_of, rigid_of, viewer_camera
from .hull import hull_mesh
from .panel import OWN_CAMERA, Cameras, Panel, Source
from .pictures import signed_picture
from .plane import AXES, Plane, sliced
from .points import PointKind, points_by_kind
from .runs import Run
from .settings import ViewConfig
from .stage import Stage, image_name
from .surfaces import Paint, drawn, level_mesh, light_enough
from .thumbnails import is_depth, thumbnail
from .viewpoints import Shows, Subject, seen_beside, seen_from

if TYPE_CHECKING:
    import viser

_PICTURES_S = 0.3  # thumbnails are read for so long at a time
_SLICE_PX = 400
_LEFT = 0.02  # of a camera's distance from the object: so far from it a window has left its place
_SLICE_LINES_MM = 5.0
_ALL_OF_THE_FIT = ("surface", "slice", "view", "curves", "status")
_ALL = ("cameras", "table", "hull", "labels", *_ALL_OF_THE_FIT)


@dataclass(slots=True, kw_only=True)
class Loaded:
    """The object that is shown, with what was computed of it and may be used again."""

    run: Run
    stamp: tuple[float, ...] = ()
    fit: Fit | None = None
    capture: Capture | None = None
    images: dict[str, Image] = field(default_factory=dict)
    mesh: trimesh.Trimesh | None = None
    mesh_of: tuple = ()
    labels: OccupancyLabels | None = None
    subject: Subject | None = None
    pictured: set[str] = field(default_factory=set)


class Jobs:
    """All jobs, on the worker's thread but for `show_client`, which viser's threads call."""

    def __init__(self, runs: Sequence[Run], config: ViewConfig, server: viser.ViserServer) -> None:
        self.runs = {run.name: run for run in runs}
        self.config, self.server = config, server
        self.ask: Callable[..., None] = lambda *_, **__: None
        self.stage = Stage(server=server)
        self.panel = Panel.built(server.gui, list(self.runs), config.picture_px, lambda *a, **k: self.ask(*a, **k))
        self.panel.go_there.on_click(lambda event: self._go_there(event.client))
        self.shown = Loaded(run=runs[0])
        self.curves: captions.Curves | None = None
        self._looked_from: int | None = None
        self._standing_at: str | None = None  # the image at whose camera a window is: its frustum would be in the way
        self._troubles: dict[str, str] = {}
        self._is_placed = False

    def table(self) -> dict[str, Callable[[], None]]:
        """The jobs by name, the most urgent first."""
        return {
            "object": self.change_object,
            "fit": self.read_fit,
            "status": self.tell_status,
            "plane": self.fit_plane_to_axis,
            "cameras": self.show_cameras,
            "surface": self.draw_surface,
            "slice": self.draw_slice,
            "view": self.render_view,
            "table": self.draw_table,
            "labels": self.draw_labels,
            "curves": self.draw_curves,
            "hull": self.draw_hull,
            "pictures": self.put_pictures,
        }

    # the run

    def look(self) -> None:
        """Ask for the fit to be read again if it has changed, and for a newer one while it is trained."""
        run = self.shown.run
        if run.stamp != self.shown.stamp:
            self.ask("fit")
        elif run.is_trained:
            run.ask_for_snapshot()

    def change_object(self) -> None:
        """Another run: everything goes, and comes anew."""
        self.stage.clear()
        self._troubles.clear()
        self._tell_troubles()
        self.shown = Loaded(run=self.runs[self.panel.object.value])
        self.panel.picture_px.value = self.config.picture_px
        self.panel.level_mm.value = 0.0
        self.ask("fit")

    def read_fit(self) -> None:
        """What the run's folder holds now."""
        shown = self.shown
        is_first = shown.fit is None
        shown.stamp = shown.run.stamp
        if shown.capture is None:
            self._read_capture()
        shown.fit = shown.run.fit()
        shown.labels = None
        if shown.fit is None:
            self.ask("status", "curves")
            return
        readings = shown.subject.readings if shown.subject and shown.run.inlier_folder else {}
        shown.subject = Subject(run=shown.run, fit=shown.fit, capture=shown.capture, solid=None, readings=readings)
        shown.mesh_of = ()
        if is_first:
            self._fit_controls(shown.fit)
        self.ask(*(_ALL if is_first else _ALL_OF_THE_FIT), *(() if is_first or shown.run.is_trained else ("labels",)))

    def _read_capture(self) -> None:
        """Frusta for all images; a capture that is gone is no reason to show nothing."""
        shown = self.shown
        try:
            shown.capture = shown.run.capture()
        except (NeuralReconError, OSError) as error:
            self.tell("capture", str(error))
            return
        if shown.capture is None:
            return
        shown.images = {image_name(image): image for image in shown.capture.images}
        self.panel.eye.options = (OWN_CAMERA, *shown.images)
        n_stops = len(shown.capture.frames)
        self.panel.stop.max = max(1, n_stops - 1)
        self.panel.stop.value = min(self.panel.stop.value, n_stops - 1)
        self.panel.stop.visible = n_stops > 1
        self.ask("cameras")

    def _middle(self) -> Float[np.ndarray, "3"]:
        """Of the object, or of what the cameras look at before there is a fit."""
        fit, capture = self.shown.fit, self.shown.capture
        if fit is not None:
            return ((fit.box.low + fit.box.high) / 2).double().cpu().numpy()
        if capture is None or not capture.images:
            return np.zeros(3)
        poses = [capture.sensor_from_world(image).to(torch.float64).inverse() for image in capture.images]
        centers = torch.stack([pose.translation for pose in poses])
        axes = torch.stack([pose.rotation[:, 2] for pose in poses])
        across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
        system = across.sum(0) + 1e-9 * torch.eye(3, dtype=torch.float64)
        return torch.linalg.solve(system, (across @ centers[:, :, None]).sum(0)[:, 0]).numpy()

    def _fit_controls(self, fit: Fit) -> None:
        """Ranges that suit the object's size, and where new windows look from."""
        longest_mm = float(fit.box.size.max()) / fit.world_per_mm
        voxel = self.panel.voxel_mm
        step = _round_step(longest_mm / 512)
        voxel.step, voxel.min = step, _rounded(longest_mm / 512 + step / 2, step)
        voxel.max = _rounded(longest_mm / 16, step)
        voxel.value = _rounded(longest_mm / self.config.cells, step)
        self._range_offset(fit)
        longest = float(fit.box.size.max())
        middle = self._middle()
        camera = self.server.initial_camera
        camera.near, camera.far = longest / 100, longest * 500
        camera.position, camera.look_at = middle + longest * np.array([1.35, -1.35, 0.9]), middle
        camera.fov = np.radians(45)
        if not self._is_placed:
            self._is_placed = True
            for client in self.server.get_clients().values():
                self.show_client(client)

    def _range_offset(self, fit: Fit) -> None:
        axis = AXES.index(self.panel.axis.value)
        low, high = float(fit.box.low[axis]) / fit.world_per_mm, float(fit.box.high[axis]) / fit.world_per_mm
        offset = self.panel.offset_mm
        step = _round_step((high - low) / 100)
        offset.step, offset.min, offset.max = step, _rounded(low - 2 * step, step), _rounded(high + 2 * step, step)
        offset.value = _rounded((low + high) / 2, step)

    # scene

    def show_cameras(self) -> None:
        """Those that are chosen; their pictures follow."""
        capture = self.shown.capture
        if capture is None:
            return
        images = self._cameras_shown(capture)
        self.stage.show_cameras(capture, images, self._middle(), lambda name: partial(self._clicked, name))
        if self.panel.pictures.value:
            self.ask("pictures")
        else:
            for name in self.shown.pictured:
                self.stage.frusta[name].image = None
            self.shown.pictured.clear()

    def _cameras_shown(self, capture: Capture) -> dict[str, Image]:
        panel = self.panel
        if panel.cameras.value == Cameras.none:
            return {}
        stop = capture.frames[min(int(panel.stop.value), len(capture.frames) - 1)].name
        return {
            name: image
            for name, image in self.shown.images.items()
            if name != self._standing_at
            and (panel.cameras.value == Cameras.all or image.frame == stop)
            and (panel.depth_cameras.value if is_depth(capture, image) else panel.color_cameras.value)
        }

    def put_pictures(self) -> None:
        """Some of the pictures that are missing, and the next ones when it is this job's turn again."""
        capture, started = self.shown.capture, time.monotonic()
        if capture is None or not self.panel.pictures.value:
            return
        missing = {n: i for n, i in self._cameras_shown(capture).items() if n not in self.shown.pictured}
        for name, image in missing.items():
            if time.monotonic() - started > _PICTURES_S:
                self.ask("pictures")
                return
            self.shown.pictured.add(name)
            self.stage.put_picture(name, thumbnail(capture, image, self.config.thumbnail_px))

    def draw_table(self) -> None:
        """The grid at the table's height."""
        fit = self.shown.fit
        self.stage.remove("table")
        if fit is not None and fit.floor_m is not None and self.panel.table.value:
            self.stage.draw_table(fit.box, fit.floor_m)

    def draw_hull(self) -> None:
        """Carved when it is first asked for."""
        self.stage.remove("hull")
        if not self.panel.hull.value or self.shown.fit is None:
            return
        if self.shown.capture is None:
            raise CaptureError(f"{self.shown.run.folder}: no capture, so there are no outlines to carve a hull from")
        self.stage.draw_hull(hull_mesh(self.shown.fit, self.shown.capture))

    def draw_labels(self) -> None:
        """The kinds that are chosen, clipped as the surface is."""
        shown, wanted = self.shown, self.panel.kinds_shown
        for kind in PointKind:
            self.stage.remove(kind)
        self.panel.n_points.content = ""
        if not wanted or shown.fit is None:
            return
        shown.labels = shown.labels or shown.run.labels()
        if shown.labels is None:
            raise CaptureError(f"{shown.run.name}: the run has written no labels yet")
        found, plane = points_by_kind(shown.labels, self.config.most_points), self._clipping()
        size = float(shown.fit.box.size.max()) / 220
        for kind in wanted:
            points = found[kind] if plane is None else found[kind][plane.keeps(found[kind])]
            self.stage.draw_points(kind, points, size)
        self.panel.n_points.content = captions.of_points(found, len(shown.labels.occupancy))

    # surface and plane

    def draw_surface(self) -> None:
        """Extracted anew only if the fit, the voxel or the level has changed; else clipped and painted anew."""
        shown, panel = self.shown, self.panel
        if shown.fit is None or not panel.surface.value:
            self.stage.remove("surface")
            return
        mesh = self._mesh(shown.fit)
        self.stage.draw_surface(drawn(mesh, Paint(panel.paint.value), self._clipping()))
        panel.of_surface.content = captions.of_mesh(mesh, shown.fit)

    def _mesh(self, fit: Fit) -> trimesh.Trimesh:
        shown, panel = self.shown, self.panel
        of = (
            shown.stamp,
            panel.source.value,
            panel.voxel_mm.value,
            panel.level_mm.value,
            panel.paint.value == Paint.color,
        )
        if shown.mesh is not None and shown.mesh_of == of:
            return shown.mesh
        mesh = shown.run.mesh() if panel.source.value == Source.file else None
        if mesh is None and panel.source.value == Source.file:
            raise CaptureError(f"{shown.run.name}: the run has written no mesh yet; it is drawn from the fit")
        if mesh is None:
            colored = panel.paint.value == Paint.color
            mesh = level_mesh(fit, panel.voxel_mm.value, panel.level_mm.value, colored=colored)
        shown.mesh, shown.mesh_of = light_enough(mesh), of
        return shown.mesh

    def _plane(self) -> Plane:
        per_mm = self.shown.fit.world_per_mm if self.shown.fit is not None else 1e-3
        panel = self.panel
        return Plane(axis=panel.axis.value, offset_m=panel.offset_mm.value * per_mm, flipped=panel.flipped.value)

    def _clipping(self) -> Plane | None:
        return self._plane() if self.panel.clips.value else None

    def fit_plane_to_axis(self) -> None:
        """To the middle of the object along an axis that was just chosen."""
        if self.shown.fit is not None:
            self._range_offset(self.shown.fit)
            self.ask("surface", "slice", "labels")

    def draw_slice(self) -> None:
        """The sdf on the plane."""
        fit = self.shown.fit
        if fit is None or not self.panel.slice.value:
            self.stage.remove("slice")
            self.panel.of_slice.content = ""
            return
        found = sliced(fit, self._plane(), _SLICE_PX)
        most = float(self.panel.range_mm.value)
        self.stage.draw_slice(found, signed_picture(found.sdf_mm, most, _SLICE_LINES_MM))
        self.panel.of_slice.content = captions.of_slice(found, most, _SLICE_LINES_MM)

    # views

    def render_view(self) -> None:
        """From this window's camera or a chosen one."""
        shown, panel = self.shown, self.panel
        if shown.subject is None or shown.fit is None or not panel.renders.value:
            return
        shows, longest = Shows(panel.shows.value), int(panel.picture_px.value)
        subject = shown.subject
        if shows == Shows.inliers and subject.solid is None:
            subject.solid = Solid.of(self._mesh(shown.fit))
        image = shown.images.get(panel.eye.value)
        if image is not None and shown.capture is not None:
            seen = seen_beside(subject, shown.capture, image, shows, longest)
        else:
            client = self._watching()
            if client is None:
                return
            state = client.camera
            camera = viewer_camera(state.fov, state.aspect, longest)
            pose = rigid_of(state.wxyz, state.position)
            seen = seen_from(subject, free_eye(camera, pose, shown.capture, shown.fit), shows)
        panel.picture.image = seen.picture
        panel.of_picture.content = f"<sub>{seen.caption}</sub>"

    def _watching(self) -> viser.ClientHandle | None:
        """The window that was moved last, or any."""
        clients = self.server.get_clients()
        return clients.get(self._looked_from or -1, next(iter(clients.values()), None))

    def show_client(self, client: viser.ClientHandle) -> None:
        """A window that was just opened: let it look at the object, and render as its camera moves."""

        def moved(_: viser.CameraHandle) -> None:
            self._looked_from = client.client_id
            self._leave(client)
            if self.panel.eye.value == OWN_CAMERA:
                self.ask("view", after_s=0.2)

        client.camera.on_update(moved)
        if self._is_placed:
            initial = self.server.initial_camera
            with client.atomic():
                client.camera.position, client.camera.look_at = initial.position, initial.look_at
                client.camera.fov, client.camera.near, client.camera.far = initial.fov, initial.near, initial.far

    def _clicked(self, name: str, event: viser.SceneNodePointerEvent) -> None:
        self.panel.eye.value = name
        self._go(name, event.client)

    def _go_there(self, client: viser.ClientHandle | None) -> None:
        if client is not None and self.panel.eye.value in self.shown.images:
            self._go(self.panel.eye.value, client)

    def _leave(self, client: viser.ClientHandle) -> None:
        """Draw the frustum again in which the window's camera stood, once it has moved out of it."""
        capture, name = self.shown.capture, self._standing_at
        if capture is None or name not in self.shown.images:
            return
        _, position = pose_of(capture.sensor_from_world(self.shown.images[name]))
        if np.linalg.norm(client.camera.position - position) > _LEFT * np.linalg.norm(self._middle() - position):
            self._standing_at = None
            self.ask("cameras")

    def _go(self, name: str, client: viser.ClientHandle) -> None:
        """The window's camera to where an image was taken; it turns about the object's middle from there."""
        capture = self.shown.capture
        if capture is None:
            return
        image = self.shown.images[name]
        wxyz, position = pose_of(capture.sensor_from_world(image))
        axis = capture.sensor_from_world(image).to(torch.float64).rotation[2].numpy()
        with client.atomic():
            client.camera.position = position
            client.camera.wxyz = wxyz
            client.camera.look_at = position + axis * max(float((self._middle() - position) @ axis), 1e-3)
            client.camera.fov = field_of_view(capture.sensor(image.sensor).camera)[0]
        self._standing_at = name
        self.ask("cameras")

    # words

    def draw_curves(self) -> None:
        """The loss terms of all steps so far."""
        self.curves = captions.drawn_curves(
            self.server.gui, self.panel.tab_of_curves, self.curves, self.shown.run.curves()
        )

    def tell_status(self) -> None:
        """The run's state above all controls."""
        shown = self.shown
        self.panel.status.content = captions.of_run(shown.run, shown.fit, shown.capture, shown.run.summary())

    def tell(self, job: str, trouble: str | None) -> None:
        """What went wrong with a job, until it goes well."""
        if trouble is None and job not in self._troubles:
            return
        self._troubles.pop(job, None)
        if trouble is not None:
            self._troubles[job] = trouble
        self._tell_troubles()

    def _tell_troubles(self) -> None:
        self.panel.trouble.content = "\n\n".join(f"⚠ {text}" for text in self._troubles.values())
        self.panel.trouble.visible = bool(self._troubles)


def _round_step(length: float) -> float:
    """The power of ten below a length."""
    return 10.0 ** int(np.floor(np.log10(length)))


def _rounded(value: float, step: float) -> float:
    """To a multiple of a power of ten, as few digits as it takes."""
    return round(round(value / step) * step, 9)
