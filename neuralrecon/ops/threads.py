"""Numba's threads, as many as torch's."""

from __future__ import annotations

import os

import numba
import torch


def use_threads() -> int:
    """Give Numba torch's number of threads, so that one setting rules both; returns it."""
    most: int = numba.config.NUMBA_NUM_THREADS  # pyright: ignore
    threads = max(1, min(torch.get_num_threads(), os.cpu_count() or 1, most))
    numba.set_num_threads(threads)
    return threads
