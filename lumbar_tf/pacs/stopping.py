"""Being asked to stop, and waiting until then."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_LOOK_EVERY_S = 0.2
_TERMINATED = 128 + signal.SIGTERM  # as shells report it


class Stop:
    """Set once, by a signal.

    Not `threading.Event`: its lock may be held by the very thread that a signal's handler interrupts.

    Attributes:
        is_asked: whether the program was asked to stop.
    """

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.is_asked = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: the first asks, a second one ends the program where it is.

        Raises:
            KeyboardInterrupt: it is the second.
        """
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True

    def __call__(self) -> bool:
        """Returns `is_asked`: this is a `StopCheck`."""
        return self.is_asked

    def wait(self, seconds: float) -> None:
        """Waits, until it is asked at the longest."""
        end = time.monotonic() + seconds
        while not self.is_asked and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_EVERY_S))


@contextmanager
def end_on_sigterm() -> Iterator[None]:
    """Has SIGTERM end the program by SystemExit, so that what is to be removed at the end is removed."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
