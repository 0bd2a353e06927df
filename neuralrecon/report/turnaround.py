"""The mesh beside the photographs, seen by the same cameras; photographs held out beside what the fit shows there."""

from __future__ import annotations

import numpy as np
import trimesh
from jaxtyping import Float, UInt8
from trimesh.visual import ColorVisuals

from ..capture import Image, SensorKind, read_color, read_mask
from ..capture.pixels import camera_of
from ..evaluate.views import render_photograph
from ..scene.photographs import Photograph
from ..scene.scene import lights_from_world
from ..train import Fit
from .casting import Caster, Window, brightness, viewpoint
from .page import Markup, Section, picture, tag
from .pictures import data_uri, resized, with_alpha
from .run_files import Run
from .viewpoints import label_of, rounds, view_of

_SUPERSAMPLE = 2
_LONGEST_PX, _HELD_OUT_PX = 300, 200
_GREY = 0.82
_MARGIN_PX = 4
_AZIMUTHS_DEG, _ELEVATION_DEG = (35.0, 125.0, 215.0, 305.0), 25.0
_ROWS = ("photograph", "mesh, colours", "mesh, shaded", "normals")


def turnaround(run: Run, caster: Caster) -> Section:
    """Photograph, vertex colours, shading and normals for a few stops of a few cameras."""
    groups = [(group.name, [_column(run, caster, image) for image in group.images]) for group in rounds(run.capture)]
    shown = [(name, [column for column in columns if column]) for name, columns in groups]
    if not any(columns for _, columns in shown):
        body = tag("p", "The capture has no photographs that show the mesh; it is seen here from four sides.")
        return Section(id="views", title="Views", body=Markup(body + _alone(caster)))
    blocks = [tag("h3", "Camera ", name) + _grid(columns) for name, columns in shown if columns]
    note = "Cast by the same calibrated cameras. Normals are in the object's frame: red x, green y, blue z (up)."
    return Section(id="views", title="Views", body=Markup("".join(blocks) + tag("p", note, class_="note")))


def held_out(run: Run) -> Section:
    """The worst, the median and the best photograph held out, as the fit renders it."""
    section = {"id": "held-out", "title": "Held out"}
    views = run.summary.get("views")
    if not views:
        return Section(**section, absent="no photograph was held out from training.")
    if run.fit is None:
        return Section(**section, absent="the run's folder has no fit that can be read, so nothing is rendered.")
    scores = sorted(zip(views["views"], _held_out_images(run), strict=True), key=lambda pair: pair[0]["psnr_db"])
    chosen = {"worst": scores[0], "median": scores[len(scores) // 2], "best": scores[-1]}
    cells = []
    for which, (score, image) in chosen.items():
        photo, rendered = _photo_and_rendering(run, run.fit, image)
        told = f"{which}: {score['psnr_db']:.1f} dB, SSIM {score['ssim']:.3f}, "
        told += f"silhouette IoU {score['silhouette_iou']:.3f}"
        name = label_of(run.capture, image)
        pair = [picture(data_uri(photo), f"photograph {name}"), picture(data_uri(rendered), f"rendering of {name}")]
        cells.append(tag("div", tag("h3", name), tag("div", *pair, class_="pair"), tag("p", told, class_="note")))
    means = f"All {len(scores)}: PSNR {views['psnr_db']:.2f} dB, SSIM {views['ssim']:.3f}, silhouette IoU "
    note = tag(
        "p", means, f"{views['silhouette_iou']:.4f}. Left the photograph within its outline, right the rendering."
    )
    return Section(**section, body=Markup(note + tag("div", *cells, class_="cards")))


def preview(caster: Caster, side_px: int) -> UInt8[np.ndarray, "v u 4"]:
    """One picture of the mesh from a corner, with its colours if it has any."""
    return _shots(caster, _from_aside(caster, _AZIMUTHS_DEG[0], side_px))[0]


def colors_of(mesh: trimesh.Trimesh) -> Float[np.ndarray, "vertices 3"] | None:
    """The colours of a mesh's vertices in [0, 1]; None if it has none."""
    visual = mesh.visual
    if not isinstance(visual, ColorVisuals) or visual.kind != "vertex":
        return None
    return np.asarray(visual.vertex_colors)[:, :3] / 255


def _held_out_images(run: Run) -> list[Image]:
    every = int(run.settings["scene.hold_out_every"])
    outlined = [i for i in run.capture.images_of(SensorKind.color) if i.mask_path is not None]
    return outlined[every - 1 :: every]


def _column(run: Run, caster: Caster, image: Image) -> tuple[str, list[str]] | None:
    """The image's name and the pictures of `_ROWS`; None if it does not show the object."""
    view = view_of(run.capture, image)
    window = Window.around(caster.corners, view, _LONGEST_PX)
    if window is None:
        return None
    photo = resized(read_color(run.capture, image, window.box), window.width, window.height)
    return label_of(run.capture, image), [data_uri(photo), *map(data_uri, _shots(caster, (view, window)))]


def _shots(caster: Caster, place) -> list[UInt8[np.ndarray, "v u 4"]]:
    """In its colours (grey if it has none), shaded, and its normals."""
    view, window = place
    seen = caster.look(view, window.centres(_SUPERSAMPLE))
    normals = caster.values(seen, np.asarray(caster.mesh.vertex_normals))
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    shaded = np.repeat(_GREY * brightness(normals, view)[..., None], 3, axis=-1)
    colors, opacity = colors_of(caster.mesh), seen.hit.astype(np.float64)
    colored = shaded if colors is None else caster.values(seen, colors)
    return [with_alpha(shot, opacity, _SUPERSAMPLE) for shot in (colored, shaded, (normals + 1) / 2)]


def _from_aside(caster: Caster, azimuth_deg: float, side_px: int):
    view = viewpoint(
        caster.centre, caster.radius, azimuth_deg=azimuth_deg, elevation_deg=_ELEVATION_DEG, side_px=side_px
    )
    return view, Window.of(np.array([0, 0]), np.array([side_px, side_px]), side_px)


def _alone(caster: Caster) -> Markup:
    columns = [
        (f"{azimuth:.0f}°", ["", *map(data_uri, _shots(caster, _from_aside(caster, azimuth, _LONGEST_PX)))])
        for azimuth in _AZIMUTHS_DEG
    ]
    return _grid(columns)


def _grid(columns: list[tuple[str, list[str]]]) -> Markup:
    head = tag("tr", tag("th", ""), *(tag("th", name, scope="col") for name, _ in columns))
    rows = [
        tag(
            "tr",
            tag("th", row, scope="row"),
            *(tag("td", picture(uris[i], f"{row}, {name}") if uris[i] else "") for name, uris in columns),
        )
        for i, row in enumerate(_ROWS)
        if any(uris[i] for _, uris in columns)
    ]
    return tag("div", tag("table", head, *rows, class_="pictures"), class_="scrolls", tabindex="0")


def _photo_and_rendering(run: Run, fit: Fit, image: Image) -> tuple[UInt8[np.ndarray, "v u 3"], ...]:
    """Both at a small size, within the photograph's outline black around it, as the scores compare them."""
    mask, camera = read_mask(run.capture, image), camera_of(run.capture, image)
    v, u = np.nonzero(mask)
    factor = min(1.0, _HELD_OUT_PX / max(np.ptp(v) + 1, np.ptp(u) + 1))
    width, height = round(camera.width * factor), round(camera.height * factor)
    small = resized(mask.astype(np.uint8) * 255, width, height) >= 128
    photograph = Photograph.cropped(
        resized(read_color(run.capture, image), width, height),
        small,
        _MARGIN_PX,
        name=image.path.name,
        camera=camera.resized(width, height),
        cam_from_world=run.capture.sensor_from_world(image),
        rig_from_world=lights_from_world(run.capture.frame(image.frame)),
        sensor=[s.name for s in run.capture.sensors].index(image.sensor),
        stop=[f.name for f in run.capture.frames].index(image.frame),
    )
    colors, _ = render_photograph(fit, photograph)
    return photograph.rgb * photograph.inside[..., None], (colors * 255).round().astype(np.uint8)
