"""Threads that encode and write, and say how long they worked and how long they waited."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from msdm_engine.cores import cores
from msdm_engine.stage_clock import StageClock

_T = TypeVar("_T")

#: Encoding threads beyond it wait for the disk and not for a core.
MAX_WORKERS = 8


def default_workers() -> int:
    """One thread for each core, at most :data:`MAX_WORKERS`.

    Threads and not processes: OpenCV, hashing and the file system let Python's lock go, and nothing is pickled; in
    benchmarks/encoding.py two threads encoded as much as two processes.
    """
    return min(MAX_WORKERS, cores())


class Workers:
    """A fixed number of threads; what they wait for work is the stage's starved time.

    Args:
        count: threads.
        clock: of their stage.
    """

    def __init__(self, count: int, clock: StageClock) -> None:
        self._clock = clock
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = (
            queue.SimpleQueue()
        )
        self._threads = [
            threading.Thread(target=self._work, name=f"msdm-encode-{i}", daemon=True) for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., _T], *arguments: Any) -> Future[_T]:
        """Has a thread call the function; the future holds what it returned or raised."""
        future: Future[_T] = Future()
        self._tasks.put((future, function, arguments))
        return future

    def close(self) -> None:
        """Ends the threads; work that has begun is finished, the rest is dropped."""
        while True:
            try:
                self._tasks.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._clock.starved():
                task = self._tasks.get()
            if task is None:
                return
            future, function, arguments = task
            with self._clock.busy():
                try:
                    result = function(*arguments)
                except BaseException as error:  # noqa: BLE001 (whoever asks for the result gets it)
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del task, future, function, arguments  # a pair's pixels go when it is written, not with the next pair
