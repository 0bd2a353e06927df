"""What the outlines rest on, in a file beside them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import torch

from ..errors import CaptureError
from ..files import read_json, replacing
from ..geometry import Rigid
from .consistency import ViewConsistency

REPORT_FILE = "segment.json"

Corner = tuple[float, float, float]


class TableFrom(StrEnum):
    """How the table is known: the capture's own, a plane of points, the plane that the object rests on, or not."""

    given = "given"
    seen = "seen"
    resting = "resting"
    nothing = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentReport:
    """One segmentation. `settings` names what it was made from; `move` leads from the capture's world to the result's.

    `bounds` are the corners of a box around the object in the result's world. `masks` are the files of the outlines
    that were found, by photograph; `views` tells of every outline, given ones too, how well it agrees.
    """

    settings: str
    table: TableFrom
    move: Rigid | None
    bounds: tuple[Corner, Corner]
    masks: dict[str, str]
    views: tuple[ViewConsistency, ...]


def write_report(report: SegmentReport, folder: Path) -> Path:
    """`segment.json`, whole or not at all."""
    described = {
        "settings": report.settings,
        "table": report.table.value,
        "table_from_capture_world": None if report.move is None else report.move.matrix().tolist(),
        "bounds": report.bounds,
        "masks": report.masks,
        "views": [asdict(v) for v in report.views],
    }
    with replacing(folder / REPORT_FILE) as temporary:
        temporary.write_text(json.dumps(described, indent=1, allow_nan=False), encoding="utf-8")
    return folder / REPORT_FILE


def read_report(folder: str | Path) -> SegmentReport:
    """The report in the folder of masks.

    Raises:
        CaptureError: it is missing or broken.

    Example:
        >>> worst = min(read_report("outputs/mouse/masks").views, key=lambda view: view.iou)  # doctest: +SKIP
    """
    file = Path(folder) / REPORT_FILE
    try:
        described = read_json(file)
        move = described["table_from_capture_world"]
        low, high = described["bounds"]
        return SegmentReport(
            settings=described["settings"],
            table=TableFrom(described["table"]),
            move=None if move is None else Rigid.from_matrix(torch.tensor(move, dtype=torch.float64)),
            bounds=((low[0], low[1], low[2]), (high[0], high[1], high[2])),
            masks=described["masks"],
            views=tuple(ViewConsistency(**view) for view in described["views"]),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise CaptureError(
            f"{file}: no readable report of outlines ({error}); remove the file, or make it again"
        ) from error
