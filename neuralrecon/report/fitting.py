"""Calibration before and after, and the terms of the loss over the steps."""

from __future__ import annotations

from typing import Any

from ..errors import CaptureError
from ..files import read_json
from ..train.progress import SCALARS_FILE
from ..train.run_folder import CALIBRATION_FOLDER, FIT_FOLDER
from .charts import curve
from .page import Markup, Section, picture, table, tag
from .pictures import data_uri_of_file
from .run_files import Run, scalars_in

_CALIBRATION = {"id": "calibration", "title": "Calibration"}
_NOT_TERMS = ("step", "samples")


def calibration(run: Run) -> Section:
    """Residuals of each sensor before and after, how far it moved, and why it could not be refined."""
    folder = run.folder / CALIBRATION_FOLDER
    if run.summary["calibration"] == "given":
        return Section(**_CALIBRATION, absent="the capture's own calibration was taken as it is (calibration=given).")
    if not (folder / "report.json").is_file():
        return Section(**_CALIBRATION, absent="there is no report of the calibration in the run's folder.")
    try:
        told = read_json(folder / "report.json")
        kinds = {sensor.name: sensor.kind for sensor in run.capture.sensors}
        rows = [_row(sensor, "mm" if kinds.get(sensor["name"]) == "depth" else "px") for sensor in told["sensors"]]
        figures, warnings, method = dict(told["figures"]), list(told["warnings"]), told["method"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CaptureError(
            f"{folder / 'report.json'}: no readable report of a calibration ({error}); remove it and report again"
        ) from error
    head = ["sensor", "seen", "before", "after", "unit", "turned °", "± °", "shifted mm", "± mm", "focal %", "depth %"]
    how = {"rig": "The calibration that came with the capture, refined.", "photos": "Found from the photographs alone."}
    parts = [tag("p", how.get(method, method), " Residuals are medians.", class_="note"), table(head, rows)]
    reasons = [f"{sensor['name']}: {sensor['reason']}" for sensor in told["sensors"] if sensor["reason"]]
    parts += [tag("ul", *(tag("li", line) for line in [*reasons, *warnings]))] if reasons or warnings else []
    counted = ", ".join(f"{name.replace('_', ' ')} {value:.6g}" for name, value in figures.items() if value is not None)
    parts.append(tag("p", counted, class_="note"))
    if (folder / "rig.png").is_file():
        parts.append(picture(data_uri_of_file(folder / "rig.png", 1100), "the rig and its residuals"))
    return Section(**_CALIBRATION, body=Markup("".join(parts)))


def training(run: Run) -> Section:
    """Every term of the loss with its weight, and their sum first."""
    section = {"id": "training", "title": "Training"}
    scalars = scalars_in(run.folder / FIT_FOLDER / SCALARS_FILE)
    names = [name for name in scalars if name not in _NOT_TERMS]
    if not names or len(scalars["step"]) == 0:
        return Section(**section, absent=f"the fit has left no {FIT_FOLDER}/{SCALARS_FILE}.")
    curves = [curve(name.replace("_", " "), scalars["step"], scalars[name]) for name in names]
    note = (
        f"{len(scalars['step']):,} steps; each term has its weight in it. Median of stretches of steps with the band "
        "from 10 to 90 %; scales are logarithmic, and each curve has its own. A term that sets in later begins there."
    )
    return Section(**section, body=Markup(tag("p", note, class_="note") + tag("div", *curves, class_="charts")))


def _row(sensor: dict[str, Any], unit: str) -> list[object]:
    def number(key: str, digits: int, sign: str = "") -> str | None:
        return None if sensor[key] is None else f"{sensor[key]:{sign}.{digits}f}"

    digits = 2 if unit == "mm" else 3
    return [
        sensor["name"],
        f"{sensor['n_observations']:,}",
        number("residual_before", digits),
        number("residual_after", digits),
        unit,
        number("turned_deg", 3),
        number("turn_sigma_deg", 3),
        number("shifted_mm", 2),
        number("shift_sigma_mm", 2),
        number("focal_percent", 3, "+") if unit == "px" else None,
        number("depth_percent", 3, "+") if unit == "mm" else None,
    ]
