"""How a localizer's error is spread, level by level."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import FINDINGS, Level

Points = NDArray[np.float32]

#: Between these lie the shares of a level's points, mm; the last share is of what is farther. A disc and the
#: body below it are about 40 mm high, so that beyond 20 mm another level is the nearer one.
EDGES_MM = (2.0, 5.0, 10.0, 20.0)


@dataclass(frozen=True)
class LevelError:
    """Distances of predicted from annotated points at one level, all conditions pooled.

    Attributes:
        level: which.
        num_points: compared.
        median_mm: median distance; NaN without a point.
        ninetieth_mm: nine of ten points are as near; NaN without a point.
        shares: of the points up to each of `EDGES_MM`, and beyond the last; NaN without a point.
    """

    level: Level
    num_points: int
    median_mm: float
    ninetieth_mm: float
    shares: tuple[float, ...]


def measure_levels(
    predicted: Mapping[str, Points], annotated: Mapping[str, Points]
) -> tuple[LevelError, ...]:
    """Measures each level, L1/L2 first.

    Args:
        predicted: float32 [25, 3] by study, LPS mm, NaN where there is none.
        annotated: likewise; studies and points in only one of the two are left out.

    >>> found = measure_levels({"1": np.zeros((25, 3))}, {"1": np.full((25, 3), 3.0)})
    >>> found[0].num_points, round(found[0].median_mm, 2), found[0].shares
    (5, 5.2, (0.0, 0.0, 1.0, 0.0, 0.0))
    """
    studies = sorted(set(predicted) & set(annotated))
    distances = np.array(
        [np.linalg.norm(np.float64(predicted[each]) - annotated[each], axis=-1) for each in studies]
    ).reshape(-1, len(FINDINGS))
    return tuple(_measure(level, distances) for level in Level)


def _measure(level: Level, distances: NDArray[np.float64]) -> LevelError:
    columns = [row for row, finding in enumerate(FINDINGS) if finding.level is level]
    known = distances[:, columns]
    known = known[np.isfinite(known)]
    if not known.size:
        nothing = float("nan")
        return LevelError(level, 0, nothing, nothing, (nothing,) * (len(EDGES_MM) + 1))
    counts = np.bincount(np.searchsorted(EDGES_MM, known), minlength=len(EDGES_MM) + 1)
    return LevelError(
        level=level,
        num_points=int(known.size),
        median_mm=float(np.median(known)),
        ninetieth_mm=float(np.quantile(known, 0.9)),
        shares=tuple((counts / known.size).tolist()),
    )
