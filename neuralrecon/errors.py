"""What callers may catch. Every message says what is wrong, what was found, what was wanted, and what to do."""

from __future__ import annotations


class NeuralReconError(ValueError):
    """Anything wrong with what the user gave us; the message is meant to be shown as it is."""


class CaptureError(NeuralReconError):
    """A capture on disk is broken or incomplete; the message names the file."""


class CalibrationError(CaptureError):
    """Intrinsics or poses are missing, unreadable or contradict each other."""


class EvidenceError(NeuralReconError):
    """The capture reads well but cannot tell where the object is (no masks and no depth, an empty hull)."""


class FitError(NeuralReconError):
    """Training cannot go on (a loss that is not finite, a checkpoint of another kind)."""


class MachineError(FitError):
    """Training cannot go on where it runs: memory or room on the disk lacks. The same command may do elsewhere."""


class OutOfMemory(MachineError):
    """Memory ran out in training. `smaller`: settings that ask for half of it, as words of the command line."""

    def __init__(self, message: str, smaller: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.smaller = smaller


class MeshError(NeuralReconError):
    """No closed solid can be made of the input."""


class ConfigError(NeuralReconError):
    """A setting that no run can be made of."""


class DownloadError(NeuralReconError):
    """A part of a data set could not be fetched, unpacked or put in its place; the message names it."""


class ArchiveError(DownloadError):
    """An archive holds what no archive of a data set may hold, or too much of it. It stays where it is, packed."""


class DamagedArchiveError(ArchiveError):
    """An archive is cut off, altered or no archive at all: it is of no use and must be fetched anew."""


class SweepError(NeuralReconError):
    """Some objects of a sweep have no mesh; the message names them, the sweep's results say why."""


class ExportError(NeuralReconError):
    """A run cannot be written as another program wants it, such as an unscaled one in metres."""
