"""Worker processes. In: functions and arguments. Out: futures.

Processes are spawned, so nothing of the parent's threads and graphics contexts leaks into them, and they end with
their parent however it ends: normally, by Ctrl-C, by kill -9.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Future


class Workers:
    """A pool of `n` processes; use as a context manager. An exception in the block, also Ctrl-C, stops it at once."""

    def __init__(self, n: int) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        os.environ.setdefault("MUJOCO_GL", "egl")  # inherited, and read when a worker imports mujoco
        context = multiprocessing.get_context("spawn")
        self._before = set(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(n, context, initializer=_start, initargs=(os.getpid(),))

    def submit(self, function, *arguments) -> Future:
        """Run a module's function in a worker."""
        # A process that this starts inherits the mask: Ctrl-C leaves it alone while it still imports, see _start.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(function, *arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is not None:
            import multiprocessing

            for process in set(multiprocessing.active_children()) - self._before:
                process.terminate()
        self._pool.shutdown(wait=kind is None, cancel_futures=True)


def _start(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when it has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
