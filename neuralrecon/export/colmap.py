"""The calibrated capture as a COLMAP project: a sparse model with rigs, images, masks."""

from __future__ import annotations

from pathlib import Path

from ..capture import Capture, SparsePoints
from .photographs import IMAGE_FOLDER, Images, gathered


def write_colmap_project(
    capture: Capture, folder: Path, points: SparsePoints | None = None, *, images: Images = Images.copy
) -> Path:
    """``sparse/0``, ``images/SENSOR/FRAME.jpg`` and ``masks/SENSOR/FRAME.jpg.png`` in an existing folder.

    Photographs of one stop have the same name in their sensors' folders, which is how COLMAP tells rigs; depth is left
    out. Observations of `points` are of the capture's photographs, in their order. Returns the model's folder.

    Raises:
        ExportError: no photograph, or a file cannot be linked.
        CaptureError: a mask cannot be read.
    """
    # pycolmap takes a while to load, and only this format needs it
    from ..capture.colmap import write_colmap

    there = gathered(capture, folder, images)
    return write_colmap(there, folder / "sparse" / "0", points, image_folder=IMAGE_FOLDER)
