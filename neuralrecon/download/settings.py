"""Settings of a download: what, from which servers, how patiently, within which bounds."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """How servers are asked.

    Attributes:
        stall_s: a connection that brings nothing for so long, or less than `least_kb_per_second`, is given up.
        least_kb_per_second: the least rate, over `stall_s`, that is waited for.
        retries: how often in a row an address is asked again after a fault; a try that brought 1 MB or more counts
            as none.
        first_wait_s: the pause before the first retry; it doubles each time. A server that names a pause gets it.
        longest_wait_s: no pause is longer.
    """

    stall_s: float = 30.0
    least_kb_per_second: float = 1.0
    retries: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0

    def __post_init__(self) -> None:
        if self.stall_s <= 0 or min(self.least_kb_per_second, self.retries, self.first_wait_s, self.longest_wait_s) < 0:
            raise ConfigError(
                f"http.stall_s must be above 0, least_kb_per_second, retries, first_wait_s and longest_wait_s 0 or "
                f"more; got {self.stall_s}, {self.least_kb_per_second}, {self.retries}, {self.first_wait_s} and "
                f"{self.longest_wait_s}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What an archive may be at most; sizes in units of 10^9 bytes. Real ones stay far below.

    Attributes:
        archive_gb: the largest archive that is fetched.
        unpacked_gb: the most that one archive may unpack to.
        files: the most members, folders and dropped junk included.
        ratio: the most that an archive may grow, as a multiple of its packed size.
        spare_gb: the room on the disk that is left free.
    """

    archive_gb: float = 20.0
    unpacked_gb: float = 40.0
    files: int = 50_000
    ratio: float = 30.0
    spare_gb: float = 1.0

    def __post_init__(self) -> None:
        if min(self.archive_gb, self.unpacked_gb, self.files, self.ratio) <= 0 or self.spare_gb < 0:
            raise ConfigError(
                f"limits.archive_gb, unpacked_gb, files and ratio must be above 0, limits.spare_gb 0 or more; got "
                f"{self.archive_gb}, {self.unpacked_gb}, {self.files}, {self.ratio} and {self.spare_gb}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadConfig:
    """What is fetched and from where.

    Attributes:
        parts: the archives of each object. YCB has rgbd, rgb_highres, meshes, google_16k, google_64k, google_512k;
            BigBIRD has rgbd, rgb_highres, processed. A run needs the first two.
        data: the data root, where bigbird/ and ycb/ are made; NEURALRECON_DATA if that is set.
        at_once: how many archives are fetched at the same time.
        keep_archives: keep each archive, in archives/ under the data root, after it is unpacked.
        overwrite: fetch finished parts anew, and replace files of an object's folder that differ from the archive's.
        ycb_servers: base addresses of YCB; the first that has an archive is taken.
        bigbird_servers: base addresses of BigBIRD, likewise.
        bigbird_aliases: the folders of BigBIRD's servers in which an object may be.
        http: how servers are asked.
        limits: what an archive may be at most.
    """

    parts: list[str] = field(default_factory=lambda: ["rgbd", "rgb_highres"])
    data: Path = field(default_factory=lambda: Path(os.environ.get("NEURALRECON_DATA", "data")))
    at_once: int = 3
    keep_archives: bool = False
    overwrite: bool = False
    ycb_servers: list[str] = field(
        default_factory=lambda: [
            "https://ycb-benchmarks.s3.amazonaws.com/data",
            "http://ycb-benchmarks.s3-website-us-east-1.amazonaws.com/data",
        ]
    )
    bigbird_servers: list[str] = field(default_factory=lambda: ["http://rll.berkeley.edu/bigbird/aliases"])
    bigbird_aliases: list[str] = field(default_factory=lambda: ["863afb5e73", "772151f9ac", "8b4888c959", "a47741b172"])
    http: HttpConfig = field(default_factory=HttpConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def __post_init__(self) -> None:
        if self.at_once < 1:
            raise ConfigError(f"at_once must be 1 or more, got {self.at_once}")
        if not self.parts:
            raise ConfigError("parts is empty; name some, as in parts=[rgbd,rgb_highres]")
        for server in [*self.ycb_servers, *self.bigbird_servers]:
            if not server.startswith(("http://", "https://")):
                raise ConfigError(f"server '{server}': want an address that starts with http:// or https://")
