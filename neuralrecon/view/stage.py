"""The 3D scene in the browser: cameras, hull, surface, labels, slice and table as viser's nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import trimesh
from jaxtyping import Float, Float32

from ..capture import Capture, Image
from ..extract import glb_of
from ..geometry import Box
from .eyes import field_of_view, pose_of
from .pictures import Picture
from .plane import Slice
from .points import POINT_COLORS, PointKind
from .surfaces import Drawn
from .thumbnails import is_depth

if TYPE_CHECKING:
    import viser

_COLOR_CAMERA, _DEPTH_CAMERA = (32, 99, 160), (203, 108, 29)
_HULL = (120, 160, 205)
_FRUSTUM_SHARE = 0.07  # of a camera's distance from the object


@dataclass(slots=True, kw_only=True)
class Stage:
    """What is drawn now. Everything is in the world frame, in its units; a node of the same name replaces the last."""

    server: viser.ViserServer
    frusta: dict[str, viser.CameraFrustumHandle] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)

    def clear(self) -> None:
        """Take everything away."""
        with self.server.atomic():
            for handle in [*self.frusta.values(), *self.parts.values()]:
                handle.remove()
            self.frusta.clear()
            self.parts.clear()

    def remove(self, name: str) -> None:
        """Take one part away, if it is there."""
        handle = self.parts.pop(name, None)
        if handle is not None:
            handle.remove()

    def show_cameras(
        self,
        capture: Capture,
        images: Mapping[str, Image],
        middle: Float[np.ndarray, "3"],
        clicked: Callable[[str], Any],
    ) -> None:
        """These images' cameras and no others; `clicked` gives what to do when the frustum of that name is clicked."""
        with self.server.atomic():
            for name, image in images.items():
                if name not in self.frusta:
                    self.frusta[name] = self._frustum(capture, image, middle)
                    self.frusta[name].on_click(clicked(name))
            for name, handle in self.frusta.items():
                if handle.visible != (name in images):
                    handle.visible = name in images

    def _frustum(self, capture: Capture, image: Image, middle: Float[np.ndarray, "3"]) -> viser.CameraFrustumHandle:
        wxyz, position = pose_of(capture.sensor_from_world(image))
        fov, aspect = field_of_view(capture.sensor(image.sensor).camera)
        away = float(np.linalg.norm(position - middle))
        return self.server.scene.add_camera_frustum(
            f"/cameras/{image.sensor}/{image.frame}",
            fov=fov,
            aspect=aspect,
            scale=_FRUSTUM_SHARE * away,
            thickness=0.0015 * away,
            color=_DEPTH_CAMERA if is_depth(capture, image) else _COLOR_CAMERA,
            wxyz=wxyz,
            position=position,
            cast_shadow=False,
            receive_shadow=False,
        )

    def put_picture(self, name: str, picture: Picture) -> None:
        """An image on its camera's frustum."""
        if name in self.frusta:
            self.frusta[name].image = picture

    def draw_table(self, box: Box, floor: float) -> None:
        """A grid on the table around the object: ten lines to its longest side."""
        longest = float(box.size.max())
        middle = ((box.low + box.high) / 2).tolist()
        self.parts["table"] = self.server.scene.add_grid(
            "/table",
            width=4 * longest,
            height=4 * longest,
            cell_size=longest / 10,
            section_size=longest / 2,
            cell_color=(222, 225, 229),
            section_color=(196, 200, 206),
            position=(middle[0], middle[1], floor),
            shadow_opacity=0.2,
        )

    def draw_hull(self, mesh: trimesh.Trimesh) -> None:
        """See-through, so that what is within shows."""
        self.parts["hull"] = self.server.scene.add_mesh_simple(
            "/hull",
            np.asarray(mesh.vertices),
            np.asarray(mesh.faces),
            color=_HULL,
            opacity=0.28,
            side="double",
            cast_shadow=False,
            receive_shadow=False,
        )

    def draw_surface(self, drawn: Drawn) -> None:
        """The object's surface, seen from both sides where it is cut open."""
        if len(drawn.faces) == 0:
            self.remove("surface")
            return
        mesh = trimesh.Trimesh(drawn.vertices, drawn.faces, vertex_colors=drawn.colors, process=False)
        self.parts["surface"] = self.server.scene.add_glb("/surface", glb_of(mesh, double_sided=True, y_up=False))

    def draw_points(self, kind: PointKind, points: Float32[np.ndarray, "points 3"], size: float) -> None:
        """Labels of one kind; `size` in world units."""
        if len(points) == 0:
            self.remove(kind)
            return
        self.parts[kind] = self.server.scene.add_point_cloud(
            f"/labels/{kind}",
            points,
            POINT_COLORS[kind],
            point_size=size,
            point_shape="circle",
            precision="float32",
        )

    def draw_slice(self, found: Slice, picture: Picture) -> None:
        """A picture of the slice where it lies."""
        self.parts["slice"] = self.server.scene.add_image(
            "/slice",
            picture,
            render_width=found.width_m,
            render_height=found.height_m,
            format="png",
            wxyz=found.wxyz,
            position=found.position,
            cast_shadow=False,
            receive_shadow=False,
        )


def image_name(image: Image) -> str:
    """By which a user knows an image: its sensor and stop."""
    return f"{image.sensor} at {image.frame}"
