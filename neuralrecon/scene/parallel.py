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

    Where memory does not suffice for several at once, the rest is done one by one, and so is what failed for it.

    Args:
        what: for the log, which tells the rate and the time left now and then, such as "photographs read".
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    started = last_line = time.monotonic()
    pool = ThreadPoolExecutor(min(cores, _MOST_THREADS))
    futures = [pool.submit(function, item) for item in items]
    try:
        for n, (item, future) in enumerate(zip(items, futures, strict=True), 1):
            try:
                result = function(item) if future.cancelled() else future.result()
            except Exception as error:
                if future.cancelled() or not _lacks_memory(error):
                    raise
                log.warning("%s: too little memory for several at once (%s); one by one from here", what, error)
                pool.shutdown(cancel_futures=True)
                result = function(item)
            yield result
            now = time.monotonic()
            if now - last_line > _SECONDS_BETWEEN_LINES and n < len(items):
                last_line, rate = now, n / (now - started)
                log.info("%d of %d %s: %.1f/s, %.0f s left", n, len(items), what, rate, (len(items) - n) / rate)
    finally:
        pool.shutdown(cancel_futures=True)
    if len(items) > 1:
        log.info("%d %s in %.1f s", len(items), what, time.monotonic() - started)


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether it, or what it came from, says so."""
    return error is not None and (isinstance(error, MemoryError) or _lacks_memory(error.__cause__))
