"""What calibration is told and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..capture import Capture
from ..capture.types import SparsePoints
from ..errors import ConfigError


class Stops(StrEnum):
    """How stops may move: `axis` on one turntable axis, `free` each by itself, `fixed` not at all.

    `auto` is `axis` for a capture whose stops have angles, else `free`.
    """

    auto = "auto"
    axis = "axis"
    free = "free"
    fixed = "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateConfig:
    """How the calibration that a capture came with is refined.

    The sigmas say how well that calibration is known; what the photographs cannot tell stays as it was.

    Attributes:
        stops: how the stops may move.
        turn_deg: sigma of each sensor's orientation.
        shift_mm: sigma of each sensor's place.
        focal_percent: sigma of each colour sensor's focal length.
        principal_percent: sigma of its principal point, of the image's width.
        distortion: sigma of its k1; k2 gets twice that, p1 and p2 a tenth. 0 holds all of them.
        stop_deg: sigma of a stop's angle, or of its orientation if it is free.
        stop_mm: sigma of a free stop's place.
        depth_percent: sigma of the depth sensors' scale.
        longest_side_px: photographs are made this small for finding features.
        n_features: about how many features are sought in a photograph.
        n_partners: with how many others a photograph is matched.
        n_points: at most so many points are adjusted.
    """

    stops: Stops = Stops.auto
    turn_deg: float = 0.5
    shift_mm: float = 2.0
    focal_percent: float = 1.0
    principal_percent: float = 0.1
    distortion: float = 0.005
    stop_deg: float = 0.05
    stop_mm: float = 1.0
    depth_percent: float = 0.2
    longest_side_px: int = 1200
    n_features: int = 1500
    n_partners: int = 12
    n_points: int = 5000

    def __post_init__(self) -> None:
        for name in ("turn_deg", "shift_mm", "focal_percent", "principal_percent", "distortion", "stop_deg", "stop_mm"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 (held fixed) or more, got {getattr(self, name)}")
        for name, least in (("longest_side_px", 64), ("n_features", 16), ("n_partners", 2), ("n_points", 50)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorChange:
    """What calibration did to one sensor.

    Residuals are medians: pixels for a colour sensor, millimetres for a depth sensor, None without observations. The
    sigmas are one standard deviation of the result, `reason` says why a sensor could not be refined (empty if it was).
    """

    name: str
    n_observations: int
    residual_before: float | None
    residual_after: float | None
    turned_deg: float
    shifted_mm: float
    focal_percent: float
    depth_percent: float
    turn_sigma_deg: float
    shift_sigma_mm: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A calibrated capture, the points it was calibrated on, and the report.

    `method` is ``rig`` (refined from a calibration) or ``photos`` (from nothing). `warnings` are for the user to read;
    `figures` are what was counted and measured, by name, with units in the names.
    """

    capture: Capture
    points: SparsePoints
    method: str
    sensors: tuple[SensorChange, ...]
    figures: dict[str, float]
    warnings: tuple[str, ...]
