"""Ctrl-C between two steps. In: SIGINT. Out: a flag that a training loop reads when its state is whole."""

from __future__ import annotations

import signal
import threading


class Interruptible:
    """Context in which the first Ctrl-C only sets `asked`; a second one acts at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before = None

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, *_: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._before)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
