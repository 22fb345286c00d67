"""Contradictions between a study's labels, level points and anatomy."""

from collections.abc import Mapping
from enum import Enum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import (
    FINDINGS,
    MISSING_LABEL,
    Condition,
    Finding,
    Level,
    Plane,
    Side,
    finding_index,
)


class Contradiction(Enum):
    """A kind of contradiction; the value is a code like those of `RejectReason`."""

    LABEL_WITHOUT_POINT = "label_without_point"
    POINT_WITHOUT_LABEL = "point_without_label"
    POINT_ON_OTHER_PLANE = "point_on_other_plane"
    SIDES_SWAPPED = "sides_swapped"
    LEVELS_OUT_OF_ORDER = "levels_out_of_order"

    @property
    def title(self) -> str:
        """Description for a reader."""
        return _TITLES[self]


_TITLES = {
    Contradiction.LABEL_WITHOUT_POINT: "Graded, but without a level point",
    Contradiction.POINT_WITHOUT_LABEL: "A level point without a grade",
    Contradiction.POINT_ON_OTHER_PLANE: "The point lies on a plane on which this finding is not annotated",
    Contradiction.SIDES_SWAPPED: "The left point lies to the right of the right point",
    Contradiction.LEVELS_OUT_OF_ORDER: "The canal point of a level lies below that of the next lower level",
}


def find_contradictions(
    labels: NDArray[np.int8] | None, points: NDArray[np.float32], planes: Mapping[int, Plane]
) -> tuple[tuple[Contradiction, str], ...]:
    """Compares a study's labels and points with each other and with anatomy.

    Args:
        labels: int8 [25], `MISSING_LABEL` if not graded; None if the study has no row in the label table.
        points: LPS mm, float32 [25, 3], NaN if absent. A study without any point has no contradictions.
        planes: plane of the slice that each point was placed on, by the finding's row.

    Returns:
        (contradiction, location), ordered by contradiction and finding.
    """
    is_placed = np.asarray(np.isfinite(points).all(axis=1))
    if not is_placed.any():
        return ()
    return (
        *_compare_with_labels(labels, is_placed),
        *_compare_planes(planes),
        *_compare_sides(points),
        *_compare_levels(points),
    )


def _compare_with_labels(
    labels: NDArray[np.int8] | None, is_placed: NDArray[np.bool_]
) -> list[tuple[Contradiction, str]]:
    if labels is None:
        return []
    is_graded = labels != MISSING_LABEL
    cases = (
        (Contradiction.LABEL_WITHOUT_POINT, is_graded & ~is_placed),
        (Contradiction.POINT_WITHOUT_LABEL, is_placed & ~is_graded),
    )
    return [(kind, FINDINGS[index].name) for kind, found in cases for index in np.flatnonzero(found)]


def _compare_planes(planes: Mapping[int, Plane]) -> list[tuple[Contradiction, str]]:
    return [
        (Contradiction.POINT_ON_OTHER_PLANE, f"{FINDINGS[index].name} is annotated on {plane.value}")
        for index, plane in sorted(planes.items())
        if plane is not FINDINGS[index].condition.family.spec.graded_on[0]
    ]


def _compare_sides(points: NDArray[np.float32]) -> list[tuple[Contradiction, str]]:
    found = []
    for index, finding in enumerate(FINDINGS):
        if finding.condition.side is Side.LEFT:
            right = finding_index(finding.mirrored.condition, finding.level)
            # LPS: +x is the patient's left. Comparisons with NaN are False.
            if points[index, 0] < points[right, 0]:
                by_mm = points[right, 0] - points[index, 0]
                found.append((Contradiction.SIDES_SWAPPED, f"{finding.name} by {by_mm:.1f} mm"))
    return found


def _compare_levels(points: NDArray[np.float32]) -> list[tuple[Contradiction, str]]:
    canal = Condition.SPINAL_CANAL_STENOSIS
    found = []
    for upper, lower in pairwise(Level):
        # LPS: +z is towards the head.
        by_mm = points[finding_index(canal, lower), 2] - points[finding_index(canal, upper), 2]
        if by_mm > 0:
            message = f"{Finding(canal, upper).name} by {by_mm:.1f} mm"
            found.append((Contradiction.LEVELS_OUT_OF_ORDER, message))
    return found
