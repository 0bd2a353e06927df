"""Archives of YCB and BigBIRD from their servers to unpacked captures, whole and checked."""

from .run import download as download
from .settings import DownloadConfig as DownloadConfig
from .settings import HttpConfig as HttpConfig
from .settings import LimitsConfig as LimitsConfig
from .unpack import unpack as unpack
