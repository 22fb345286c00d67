"""Checks the slices of one series against each other: copies, gaps, orientations, sizes.

Nothing is repaired here. A slice that repeats another's place is left out; all else is noted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import SliceGeometry, order_slices
from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.labels import Plane

#: Two planes nearer than this are one: a tenth of the thinnest gap that 3D sequences have (0.5 mm) would be
#: 0.05 mm, and scanners write positions to 0.001 mm or finer.
_SAME_PLANE_MM = 0.01
#: Two images in one plane show the same anatomy where their centres are nearer than this. Matrices of
#: another size share the centre up to the rounding of PixelSpacing (0.001 mm x 512 pixels).
_SAME_CENTRE_MM = 1.0
#: Gaps that differ by less than this part of their median are even: positions are rounded, and slices
#: that a person turned on the console are not placed better.
_EVEN_PART = 0.1
#: From this many median gaps on there is room for another slice, or a new block of an axial series begins.
_HOLE_GAPS = 1.5


@dataclass(frozen=True, eq=False)
class StackCheck:
    """What came of checking a series.

    Attributes:
        kept: indices of the slices that can be used, in the order given.
        rejects: (index, reason, message) of each slice that is left out.
        notes: (reason, message) of what is odd about the rest.
    """

    kept: tuple[int, ...]
    rejects: tuple[tuple[int, RejectReason, str], ...]
    notes: tuple[tuple[RejectReason, str], ...]


def check_stack(
    geometries: Sequence[SliceGeometry], instance_numbers: Sequence[int], *, plane: Plane
) -> StackCheck:
    """Checks the slices of one series.

    Args:
        geometries: where the slices lie.
        instance_numbers: their InstanceNumbers, 0 where absent.
        plane: what the series was taken for. Blocks of slices, each turned to its disc, are how axial
            series are made and odd in a sagittal one.

    Returns:
        What is kept, left out and noted.

    Raises:
        ValueError: there are not as many numbers as slices.
    """
    if len(geometries) != len(instance_numbers):
        raise ValueError(
            f"There must be an instance number for each slice. Received: {len(geometries)} slices, "
            f"{len(instance_numbers)} numbers."
        )
    groups = order_slices(geometries)
    copies = {index for group in groups for index in _find_copies(geometries, instance_numbers, group)}
    message = f"another slice of the series lies within {_SAME_PLANE_MM} mm of this one"
    rejects = tuple((index, RejectReason.DUPLICATE_POSITION, message) for index in sorted(copies))
    # Of each group the original stays, so no group is ever left empty.
    groups = [[index for index in group if index not in copies] for group in groups]
    kept = tuple(index for index in range(len(geometries)) if index not in copies)
    notes = (
        *_note_identity([geometries[each] for each in kept], [instance_numbers[each] for each in kept]),
        *_note_orientations(len(groups), plane),
        *_note_gaps(geometries, instance_numbers, groups, plane),
    )
    return StackCheck(kept, rejects, notes)


def median_gap_mm(geometries: Sequence[SliceGeometry]) -> float:
    """Returns the median distance between neighbouring slices along their normal, mm.

    Only neighbours of one orientation count, and copies (0 mm apart) do not. 0 where there are none.

    >>> stack = [SliceGeometry((x, 0, 0), (0, 1, 0), (0, 0, -1), 1.0, 1.0, 4, 4) for x in (4.5, 0, 9)]
    >>> median_gap_mm(stack)
    4.5
    """
    gaps = np.concatenate([[], *(_gaps_mm(geometries, group) for group in order_slices(geometries))])
    gaps = gaps[gaps > _SAME_PLANE_MM]
    return float(np.median(gaps)) if gaps.size else 0.0


def _gaps_mm(geometries: Sequence[SliceGeometry], group: Sequence[int]) -> NDArray[np.float64]:
    """Returns the distances between neighbours of an ordered orientation group, mm, [len(group) - 1]."""
    positions = np.array([geometries[index].position for index in group])
    return np.diff(positions @ geometries[group[0]].normal)


def _find_copies(
    geometries: Sequence[SliceGeometry], numbers: Sequence[int], group: Sequence[int]
) -> Iterator[int]:
    """Yields the slices of a group that repeat another's place; the lowest number is the original."""
    breaks = np.flatnonzero(_gaps_mm(geometries, group) > _SAME_PLANE_MM) + 1
    for same_plane in np.split(np.array(group), breaks):
        originals: list[int] = []
        for index in sorted(same_plane.tolist(), key=lambda each: (numbers[each], each)):
            shifts = (geometries[each].centre - geometries[index].centre for each in originals)
            if any(np.linalg.norm(shift) < _SAME_CENTRE_MM for shift in shifts):
                yield index
            else:
                originals.append(index)


def _note_identity(
    geometries: Sequence[SliceGeometry], numbers: Sequence[int]
) -> Iterator[tuple[RejectReason, str]]:
    repeated = sum(count > 1 for number, count in Counter(numbers).items() if number != 0)
    if repeated:
        message = f"{repeated} InstanceNumbers are those of several slices each"
        yield RejectReason.DUPLICATE_INSTANCE_NUMBER, message
    sizes = {(each.rows, each.columns) for each in geometries}
    if len(sizes) > 1:
        yield RejectReason.MIXED_SIZES, f"a series must have one matrix size. Received: {len(sizes)}"
    if len(geometries) == 1:
        yield RejectReason.SINGLE_SLICE, "a series of one slice"


def _note_orientations(num_orientations: int, plane: Plane) -> Iterator[tuple[RejectReason, str]]:
    if plane.is_sagittal and num_orientations > 1:
        message = f"a sagittal series must have one orientation. Received: {num_orientations}"
        yield RejectReason.MIXED_ORIENTATIONS, message


def _note_gaps(
    geometries: Sequence[SliceGeometry],
    numbers: Sequence[int],
    groups: Sequence[Sequence[int]],
    plane: Plane,
) -> Iterator[tuple[RejectReason, str]]:
    """Notes holes and unevenness, each once for the series."""
    missing = 0
    even = [1.0]
    for group in groups:
        gaps = _gaps_mm(geometries, group)
        # Slices in one plane that show different parts of it are neighbours of none.
        usual = _lower_median(gaps[gaps > _SAME_PLANE_MM])
        for gap, first, second in zip(gaps / usual, group, group[1:]):
            if gap > _HOLE_GAPS and _is_hole(gap, numbers[first], numbers[second], plane):
                missing += round(gap) - 1
            elif gap * usual > _SAME_PLANE_MM and (gap <= _HOLE_GAPS or plane.is_sagittal):
                even.append(gap)
    if missing:
        yield RejectReason.MISSING_SLICES, f"there is room for {missing} slices more between the slices"
    if max(max(even) - 1, 1 - min(even)) > _EVEN_PART:
        message = f"gaps must be even. Received: {min(even):.2f} to {max(even):.2f} times their median"
        yield RejectReason.UNEVEN_GAPS, message


def _lower_median(values: NDArray[np.float64]) -> float:
    """Of two gaps, one twice the other, the smaller is the usual one; 1 where there are none."""
    return float(np.quantile(values, 0.5, method="lower")) if values.size else 1.0


def _is_hole(gap_in_medians: float, first: int, second: int, plane: Plane) -> bool:
    """Whether slices are missing in a wide gap.

    Parallel blocks of an axial series, one for each disc, lie apart on purpose: their numbers run on.
    """
    multiple = round(gap_in_medians)
    is_whole = abs(gap_in_medians - multiple) <= _EVEN_PART * multiple
    if multiple < 2 or not is_whole:
        return False
    return plane.is_sagittal or abs(second - first) == multiple
