"""What a simulated capture is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..errors import ConfigError


class Material(StrEnum):
    """How the object's surface answers light. The print is seen on matte and glossy objects only."""

    matte = "matte"
    glossy = "glossy"
    mirror = "mirror"
    glass = "glass"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateConfig:
    """One object on the rig. Image heights follow from the widths by the real sensors' aspect ratios.

    `mesh` is a built-in name or the path of a mesh in metres, z up. The `sensor_*` and `focal_percent` amounts are the
    standard deviations (per axis) by which `calibration.h5` is wrong; `gt/calibration_exact.h5` is not.
    `depth_noise` and `color_noise` scale the sensors' noise; at `depth_noise=0` the depth is exact to its 0.1 mm unit:
    no quantisation, no dropouts. `mask_holes` is the fraction of the visible surface that the masks miss.
    `workers` (threads) changes the time only, not a byte of the result.
    """

    mesh: str = "box"
    material: Material = Material.matte
    n_stops: int = 20
    n_width: int = 534
    np_width: int = 320
    depth_width: int = 320
    supersample: int = 2
    scale: float = 1.0
    yaw_deg: float = 17.0
    offset_x_mm: float = 6.0
    offset_y_mm: float = -4.0
    lens_distortion: bool = True
    sensor_rotation_deg: float = 0.02
    sensor_translation_mm: float = 0.2
    focal_percent: float = 0.03
    depth_noise: float = 1.0
    color_noise: float = 1.0
    exposure_jitter: float = 0.01
    white_balance_jitter: float = 0.02
    jpeg_quality: int = 92
    mask_shift_px: float = 0.0
    mask_erode_px: int = 0
    mask_holes: float = 0.0
    seed: int = 0
    workers: int = 2

    def __post_init__(self) -> None:
        if self.n_stops < 1 or 360 % self.n_stops:
            raise ConfigError(
                f"n_stops={self.n_stops} gives no whole number of degrees per stop; use a divisor of 360 (12, 20, 120)"
            )
        for name, low, high in (
            ("n_width", 48, 4272),
            ("np_width", 40, 1280),
            ("depth_width", 40, 640),
            ("supersample", 1, 8),
            ("scale", 1e-4, 1e4),
            ("sensor_rotation_deg", 0, 10),
            ("sensor_translation_mm", 0, 100),
            ("focal_percent", 0, 10),
            ("depth_noise", 0, 10),
            ("color_noise", 0, 10),
            ("exposure_jitter", 0, 0.5),
            ("white_balance_jitter", 0, 0.5),
            ("jpeg_quality", 1, 100),
            ("mask_shift_px", 0, 50),
            ("mask_erode_px", 0, 50),
            ("mask_holes", 0, 0.9),
            ("seed", 0, 2**31 - 1),
            ("workers", 1, 64),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name}={value} is outside {low} … {high}")
