"""Many files at once: threads, for decoders and arrays work outside of Python's lock."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0
_MOST_THREADS = 8  # each holds one decoded image

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(what: str, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """The results in the items' order; the first failure in that order is raised, and what has not begun is dropped.

    Args:
        what: for the log, which tells the rate and the time left now and then, such as "photographs read".
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    started = last_line = time.monotonic()
    pool = ThreadPoolExecutor(min(cores, _MOST_THREADS))
    futures = [pool.submit(function, item) for item in items]
    try:
        for n, future in enumerate(futures, 1):
            yield future.result()
            now = time.monotonic()
            if now - last_line > _SECONDS_BETWEEN_LINES and n < len(items):
                last_line, rate = now, n / (now - started)
                log.info("%d of %d %s: %.1f/s, %.0f s left", n, len(items), what, rate, (len(items) - n) / rate)
    finally:
        pool.shutdown(cancel_futures=True)
    if len(items) > 1:
        log.info("%d %s in %.1f s", len(items), what, time.monotonic() - started)
