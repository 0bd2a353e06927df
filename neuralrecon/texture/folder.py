"""The texture of a run, in the run's folder: bake, write, compare with the photographs held out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trimesh

from ..evaluate.views import ViewReport, compare_views, render_photograph
from ..scene import Photograph, SurfaceKind
from ..train import Fit
from .files import TextureReport, write_texture_report, write_textured
from .picture import evaluate_texture
from .stage import TextureConfig, bake

_log = logging.getLogger(__name__)


def texture_run(
    mesh: trimesh.Trimesh,
    fit: Fit,
    photographs: tuple[Sequence[Photograph], Sequence[Photograph]],
    folder: Path,
    config: TextureConfig | None = None,
    *,
    surface: SurfaceKind = SurfaceKind.matte,
    field: ViewReport | None = None,
) -> TextureReport:
    """Write mesh_textured.glb, .obj, .mtl, .png and texture.json into `folder`.

    Args:
        photographs: those to bake from, and those held out, with which the result is compared.
        field: how the fit's own rendering compares with the latter, if that is known.

    Raises:
        ConfigError, EvidenceError, MeshError: as `bake` does.
    """
    kept, held_out = photographs
    textured = bake(mesh, fit, kept, config, surface=surface)
    file = write_textured(textured, folder)
    lit = bare = None
    if held_out:
        field = field or compare_views(held_out, partial(render_photograph, fit))
        lit, bare = (evaluate_texture(textured, fit, held_out, lit=lit) for lit in (True, False))
        _log.info(
            "texture: %d photographs held out: PSNR %.2f dB in the room's light, %.2f dB bare; the field's %.2f dB",
            len(held_out), lit.psnr_db, bare.psnr_db, field.psnr_db,
        )  # fmt: skip
    report = TextureReport(bake=textured.report, file=file, field=field if held_out else None, lit=lit, bare=bare)
    write_texture_report(textured, report, folder)
    return report
