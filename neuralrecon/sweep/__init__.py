"""Many objects, unattended: none of which can end the others, each with a verdict, all in one table."""

from .jobs import Job as Job
from .jobs import job_of as job_of
from .outcome import Outcome as Outcome
from .outcome import read_outcomes as read_outcomes
from .run import sweep as sweep
from .settings import Engine as Engine
from .settings import SweepConfig as SweepConfig
