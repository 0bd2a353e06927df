"""Who hands the objects out. They run in processes of ours, so that an engine only says where and when."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

from ..errors import ConfigError
from .attempt import Task, attempted
from .outcome import Outcome, Status, write_outcome
from .processes import TIME_TO_END_S, Processes
from .settings import Engine, SweepConfig

_STORE_BYTES = 100 * 2**20  # outcomes are small


def outcomes_of(tasks: Sequence[Task], config: SweepConfig) -> Iterator[Outcome]:
    """The outcomes as they come; closing the iterator ends what still runs.

    Raises:
        ConfigError: engine=ray without Ray.
    """
    if config.engine == Engine.ray:
        return _over_ray(tasks, config)
    return _in_processes(tasks, 1 if config.engine == Engine.serial else config.workers)


def _in_processes(tasks: Sequence[Task], at_once: int) -> Iterator[Outcome]:
    """A thread waits for each process; there is nothing to fork and no pool that a killed worker could break."""
    stop = threading.Event()
    with Processes() as processes, ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(attempted, task, processes, stop.is_set) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _over_ray(tasks: Sequence[Task], config: SweepConfig) -> Iterator[Outcome]:
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves objects beside any other program
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do by itself one day
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ConfigError("engine=ray needs Ray: pip install 'neuralrecon[sweep]', or take engine=processes") from error
    local: dict[str, Any] = {"num_cpus": config.workers * config.threads, "object_store_memory": _STORE_BYTES}
    before = signal.getsignal(signal.SIGTERM)
    ray.init(
        address=config.address or "local",
        include_dashboard=None if config.address else False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        **({} if config.address else local),
    )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray takes it over
    work = ray.remote(num_cpus=config.threads, num_gpus=config.gpus_each, max_retries=config.retries)(_attempted_there)
    waiting = {work.remote(task): task for task in tasks}
    try:
        while waiting:
            [done], _ = ray.wait(list(waiting), num_returns=1)
            task = waiting.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:
                yield _lost(task, error)
    finally:
        for left in waiting:
            ray.cancel(left)
        if waiting:  # a worker that is cancelled lets its object's process write a checkpoint
            ray.wait(list(waiting), num_returns=len(waiting), timeout=TIME_TO_END_S)
        ray.shutdown()


_processes_there = Processes()  # of this Ray worker, which ends with them


def _attempted_there(task: Task) -> Outcome:
    return attempted(task, _processes_there)


def _lost(task: Task, error: Exception) -> Outcome:
    """Of an object whose worker was lost in every try."""
    outcome = Outcome(
        name=task.job.name,
        status=Status.failed,
        reasons=(f"its Ray worker was lost, {task.retries + 1} times: {' '.join(str(error).split())[:300]}",),
        error=type(error).__name__,
    )
    outcome = replace(outcome, attempts=task.retries + 1, fingerprint=task.job.fingerprint)
    write_outcome(outcome, task.out)
    return outcome
