"""Being asked to stop, and waiting until then."""

import time
from types import FrameType

_LOOK_EVERY_S = 0.2


class StopSignal:
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
