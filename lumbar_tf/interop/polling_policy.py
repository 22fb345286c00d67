"""How often the watch looks, and how long it waits."""

from dataclasses import dataclass

#: Nothing waits longer than this for its next attempt.
_MAX_WAIT_S = 1800.0
_MAX_DOUBLINGS = 16


@dataclass(frozen=True)
class PollingPolicy:
    """How often and how long.

    Attributes:
        every_s: seconds between rounds, and before the second attempt; doubles up to half an hour.
        settle_s: a study is complete when so long no image has come.
        attempts: of grading a study, and of storing its results, that may end in an error.
    """

    every_s: float = 30.0
    settle_s: float = 120.0
    attempts: int = 5

    def wait_s(self, failures: int) -> float:
        """Returns the seconds to wait after so many failures in a row."""
        return min(self.every_s * 2.0 ** min(max(failures - 1, 0), _MAX_DOUBLINGS), _MAX_WAIT_S)
