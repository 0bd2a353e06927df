"""Settings of the viewer."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewConfig:
    """Where the viewer is to be seen, and how finely it draws.

    Attributes:
        host: the address to listen at; 127.0.0.1 is for this machine alone, 0.0.0.0 for whoever reaches it.
        port: the port to listen at.
        cells: voxels of the surface along the object's longest side, at first.
        picture_px: longest side of rendered pictures.
        most_points: label points that are drawn at most.
        thumbnail_px: longest side of the photographs on the cameras.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    cells: int = 96
    picture_px: int = 256
    most_points: int = 20_000
    thumbnail_px: int = 96

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigError("host is empty; give an address of this machine, such as 127.0.0.1")
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"port must be 1 to 65535, got {self.port}")
        if not 16 <= self.cells <= 512:
            raise ConfigError(f"cells must be 16 to 512, got {self.cells}")
        if not 32 <= self.picture_px <= 2048:
            raise ConfigError(f"picture_px must be 32 to 2048, got {self.picture_px}")
        if not 16 <= self.thumbnail_px <= 1024:
            raise ConfigError(f"thumbnail_px must be 16 to 1024, got {self.thumbnail_px}")
        if self.most_points < 1:
            raise ConfigError(f"most_points must be 1 or more, got {self.most_points}")
