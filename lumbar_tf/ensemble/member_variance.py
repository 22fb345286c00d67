"""How far a family's members lie apart: what `intervals.py` applies, and its JSON. NumPy only."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import NUM_SEVERITIES

Floats = NDArray[np.float64]

#: Coefficients of a habit, over (1, mean of the members' centred log-probabilities).
HABIT_TERMS = 1 + NUM_SEVERITIES
#: Coefficients of the trend, over (1, t, t^2).
TREND_TERMS = 3


@dataclass(frozen=True)
class MemberVariance:
    """One family's, for each pattern of available sources; `spread_fitting.py` measures it.

    Attributes:
        habits: what a member says on average beside the mean of all, over (1, that mean), float64
            [num_patterns, num_members, 3, 4].
        trend: ln of one member's variance in log-odds as a polynomial of the answer's log-odds, float64
            [num_patterns, 3, 3], the constant first.
        bounds: log-odds between which the trend was measured, float64 [num_patterns, 3, 2].
        freedom: how many degrees of freedom the trend is worth beside a finding's own spread, float64
            [num_patterns, 3]; 0 where nothing was measured.
    """

    habits: Floats
    trend: Floats
    bounds: Floats
    freedom: Floats

    @staticmethod
    def empty(num_patterns: int, num_members: int) -> "MemberVariance":
        """Returns one that knows nothing: intervals come from each finding's own spread alone."""
        return MemberVariance(
            *(np.zeros(shape) for shape in variance_shapes(num_patterns, num_members).values())
        )

    def to_json(self) -> dict[str, Any]:
        """Returns lists by name."""
        return {each.name: getattr(self, each.name).tolist() for each in fields(self)}


def variance_shapes(num_patterns: int, num_members: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each attribute of `MemberVariance`, in their order."""
    return {
        "habits": (num_patterns, num_members, NUM_SEVERITIES, HABIT_TERMS),
        "trend": (num_patterns, NUM_SEVERITIES, TREND_TERMS),
        "bounds": (num_patterns, NUM_SEVERITIES, 2),
        "freedom": (num_patterns, NUM_SEVERITIES),
    }


def parse_member_variance(
    content: Mapping[str, Any], num_patterns: int, num_members: int, name: str
) -> MemberVariance:
    """Reads what `MemberVariance.to_json` gave.

    Raises:
        ValueError: a shape does not fit, or a number is not finite or negative where it counts.
        KeyError: a part is absent.
    """
    arrays = {}
    for part, shape in variance_shapes(num_patterns, num_members).items():
        array = np.array(content[part], np.float64)
        # An empty list of members loses its trailing axes in JSON.
        array = array.reshape(shape) if array.size == 0 and 0 in shape else array
        if array.shape != shape or not np.isfinite(array).all():
            raise ValueError(
                f"`{name}.{part}` must be finite, of shape {shape}. Received: shape {array.shape}."
            )
        arrays[part] = array
    if (arrays["freedom"] < 0).any():
        raise ValueError(f"`{name}.freedom` must not be negative. Received: {arrays['freedom'].min()}.")
    return MemberVariance(**arrays)
