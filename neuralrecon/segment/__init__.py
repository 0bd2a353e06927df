"""Outlines of the object for captures that bring none, and how well outlines agree with each other."""

from .consistency import ViewConsistency as ViewConsistency
from .masks_from import MasksFrom as MasksFrom
from .masks_from import Outlined as Outlined
from .masks_from import outlined as outlined
from .report import SegmentReport as SegmentReport
from .report import read_report as read_report
from .stage import SegmentConfig as SegmentConfig
from .stage import segment as segment
