"""Where the mesh's outline and the given one differ, photograph by photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import binary_dilation

from ..capture import Image, SensorKind, read_color, read_mask
from ..scene.parallel import in_parallel
from .casting import Caster, Window
from .charts import strips
from .page import Markup, Section, picture, table, tag
from .pictures import data_uri, resized, swatch
from .run_files import Run
from .viewpoints import label_of, spread, view_of, worst_and_median

MOST_VIEWS = 150  # for the figures; more take longer and find little more
_COARSE_PX, _SHOWN_PX = 160, 420
FALSE_IN, FALSE_OUT = (230, 97, 1), (64, 120, 220)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """One photograph: pixels in both outlines, in the mesh's alone, in the given one alone."""

    image: Image
    both: int
    false_in: int
    false_out: int

    @property
    def iou(self) -> float:
        return self.both / max(self.both + self.false_in + self.false_out, 1)


def silhouettes(run: Run, caster: Caster) -> Section:
    """Overlap of the outlines for each sensor, and maps of the two worst and of the median photograph."""
    section = {"id": "silhouettes", "title": "Silhouettes"}
    outlined = [i for i in run.capture.images_of(SensorKind.color) if i.mask_path is not None]
    if not outlined:
        return Section(**section, absent="no photograph has an outline.")
    looked_at = spread(outlined, MOST_VIEWS)
    found = in_parallel("outlines compared", lambda i: overlap(run, caster, i), looked_at)
    overlaps = sorted((o for o in found if o is not None), key=lambda o: o.iou)
    if not overlaps:
        return Section(**section, absent="no photograph shows the mesh.")
    of_sensor = {s.name: [o for o in overlaps if o.image.sensor == s.name] for s in run.capture.sensors}
    rows = [_row(name, ours) for name, ours in of_sensor.items() if ours]
    note = tag(
        "p",
        f"IoU of the mesh's outline with the given one in {len(overlaps)} of {len(outlined)} photographs; each mark is "
        "one. Shares are of the given outline's area. Differences are drawn a pixel wider than they are.",
        class_="note",
    )
    head = ["sensor", "photographs", "median IoU", "worst IoU", "false in %", "false out %"]
    marks = strips({name: [o.iou for o in ours] for name, ours in of_sensor.items() if ours}, "IoU")
    chosen = worst_and_median(overlaps)
    maps = [_map(run, caster, which, chosen_overlap) for which, chosen_overlap in chosen.items()]
    key = tag(
        "p",
        swatch(FALSE_IN, "false in: the mesh covers it, the given outline does not"),
        swatch(FALSE_OUT, "false out: the given outline covers it, the mesh does not"),
        class_="key",
    )
    shown = tag("div", *maps, class_="cards wide")
    return Section(**section, body=Markup(note + marks + table(head, rows if len(rows) < 25 else []) + key + shown))


def overlap(run: Run, caster: Caster, image: Image) -> Overlap | None:
    """Counted on a grid of at most 160 pixels a side over both outlines; None if the image shows none of the mesh."""
    compared = _compared(run, caster, image, _COARSE_PX)
    if compared is None:
        return None
    _, cast, given = compared
    return Overlap(
        image=image,
        both=int((cast & given).sum()),
        false_in=int((cast & ~given).sum()),
        false_out=int((given & ~cast).sum()),
    )


def _compared(
    run: Run, caster: Caster, image: Image, longest_px: int
) -> tuple[Window, Bool[np.ndarray, "v u"], Bool[np.ndarray, "v u"]] | None:
    """The window around both outlines, the mesh's in it, the given one in it."""
    view, mask = view_of(run.capture, image), read_mask(run.capture, image)
    around = Window.around(caster.corners, view, longest_px)
    if around is None:
        return None
    v, u = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    low = np.minimum(around.low, [u[0], v[0]])
    high = np.maximum(around.high, [u[-1] + 1, v[-1] + 1])
    window = Window.of(low, high, longest_px)
    pixels = window.centres()
    column, row = np.floor(pixels).astype(int).transpose(2, 0, 1)
    return window, caster.look(view, pixels).hit, mask[row, column]


def _row(name: str, overlaps: Sequence[Overlap]) -> list[object]:
    area = sum(o.both + o.false_out for o in overlaps)
    shares = [100 * sum(counts) / area for counts in zip(*((o.false_in, o.false_out) for o in overlaps), strict=True)]
    ious = [o.iou for o in overlaps]
    return [
        name, len(ious), f"{np.median(ious):.4f}", f"{min(ious):.4f}", *(f"{share:.2f}" for share in shares),
    ]  # fmt: skip


def _map(run: Run, caster: Caster, which: str, found: Overlap) -> Markup:
    compared = _compared(run, caster, found.image, _SHOWN_PX)
    assert compared is not None  # it was looked at before
    window, cast, given = compared
    photo = resized(read_color(run.capture, found.image, window.box), window.width, window.height)
    name = label_of(run.capture, found.image)
    shown = painted(photo, cast, given)
    return picture(data_uri(shown), f"outlines of {name}", f"{which}: {name}, IoU {found.iou:.4f}")


def painted(
    photo: UInt8[np.ndarray, "v u 3"], cast: Bool[np.ndarray, "v u"], given: Bool[np.ndarray, "v u"]
) -> UInt8[np.ndarray, "v u 3"]:
    """The photograph in grey, pale off the object, with the two kinds of difference in colour, a pixel wider."""
    grey: Float[np.ndarray, "v u"] = photo.mean(axis=2)
    shown = np.repeat(np.where(given | cast, grey * 0.65 + 80, grey * 0.25 + 185)[..., None], 3, axis=-1)
    for difference, color in ((given & ~cast, FALSE_OUT), (cast & ~given, FALSE_IN)):
        shown[np.asarray(binary_dilation(difference), dtype=bool)] = color
    return shown.round().astype(np.uint8)
