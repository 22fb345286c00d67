"""Consistency of the slices of one series: duplicates, gaps, orientations, sizes.

Nothing is repaired. A slice at the position of another one is rejected; every other finding is a note.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import SliceGeometry, order_slices
from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.labels import Plane

#: Two planes closer than this are the same plane: a tenth of the smallest gap of 3D sequences (0.5 mm) would
#: be 0.05 mm, and scanners write positions to 0.001 mm or finer.
SAME_PLANE_MM = 0.01
#: Two images in one plane show the same anatomy if their centres are closer than this. Matrices of different
#: size share the centre up to the rounding of PixelSpacing (0.001 mm x 512 pixels).
SAME_CENTRE_MM = 1.0
#: Gaps are even if they differ by less than this fraction of their median: positions are rounded, and slices
#: rotated on the console are not placed more precisely.
_EVEN_PART = 0.1
#: From this many median gaps on, a slice is missing or a new block of an axial series begins.
_HOLE_GAPS = 1.5


@dataclass(frozen=True, eq=False)
class StackCheck:
    """Result of checking a series.

    Attributes:
        kept: indices of the usable slices, in the given order.
        rejects: (index, reason, message) of each rejected slice.
        notes: (reason, message) of each irregularity of the others.
    """

    kept: tuple[int, ...]
    rejects: tuple[tuple[int, RejectReason, str], ...]
    notes: tuple[tuple[RejectReason, str], ...]


def check_stack(
    geometries: Sequence[SliceGeometry],
    instance_numbers: Sequence[int],
    *,
    plane: Plane,
    preference: Callable[[int], Any] = lambda index: index,
) -> StackCheck:
    """Checks the slices of one series.

    Args:
        geometries: geometries of the slices.
        instance_numbers: InstanceNumbers of the slices, 0 if absent. They are used for notes only.
        plane: plane that the series is used as. Blocks of slices, each tilted to its disc, are normal in
            axial series and irregular in sagittal ones.
        preference: sort key of a slice by its index, evaluated for slices at one position only: the slice
            with the smallest key is kept. By default the first one is kept.

    Returns:
        The kept and rejected slices, and the notes.

    Raises:
        ValueError: the numbers of geometries and instance numbers differ.
    """
    if len(geometries) != len(instance_numbers):
        raise ValueError(
            f"Each slice must have an instance number. Received: {len(geometries)} slices, "
            f"{len(instance_numbers)} numbers."
        )
    groups = order_slices(geometries)
    copies = {index for group in groups for index in _find_copies(geometries, group, preference)}
    message = f"another slice of the series is within {SAME_PLANE_MM} mm of this one"
    rejects = tuple((index, RejectReason.DUPLICATE_POSITION, message) for index in sorted(copies))
    # The original of each group is kept, so no group becomes empty.
    groups = [[index for index in group if index not in copies] for group in groups]
    kept = tuple(index for index in range(len(geometries)) if index not in copies)
    notes = (
        *_note_identity([geometries[index] for index in kept], [instance_numbers[index] for index in kept]),
        *_note_orientations(len(groups), plane),
        *_note_gaps(geometries, instance_numbers, groups, plane),
    )
    return StackCheck(kept, rejects, notes)


def median_gap_mm(geometries: Sequence[SliceGeometry]) -> float:
    """Returns the median distance between neighbouring slices along their normal, mm.

    Only neighbours of one orientation are counted, without duplicates (0 mm apart). 0 if there are none.

    >>> stack = [SliceGeometry((x, 0, 0), (0, 1, 0), (0, 0, -1), 1.0, 1.0, 4, 4) for x in (4.5, 0, 9)]
    >>> median_gap_mm(stack)
    4.5
    """
    gaps = np.concatenate([[], *(_gaps_mm(geometries, group) for group in order_slices(geometries))])
    gaps = gaps[gaps > SAME_PLANE_MM]
    return float(np.median(gaps)) if gaps.size else 0.0


def _gaps_mm(geometries: Sequence[SliceGeometry], group: Sequence[int]) -> NDArray[np.float64]:
    """Returns the distances between neighbours of an ordered orientation group, mm, [len(group) - 1]."""
    positions = np.array([geometries[index].position for index in group])
    return np.diff(positions @ geometries[group[0]].normal)


def _find_copies(
    geometries: Sequence[SliceGeometry], group: Sequence[int], preference: Callable[[int], Any]
) -> Iterator[int]:
    """Yields the slices of a group at the position of another that is preferred."""
    breaks = np.flatnonzero(_gaps_mm(geometries, group) > SAME_PLANE_MM) + 1
    for same_plane in np.split(np.array(group), breaks):
        originals: list[int] = []
        members = same_plane.tolist()
        for index in sorted(members, key=preference) if len(members) > 1 else members:
            shifts = (geometries[original].centre - geometries[index].centre for original in originals)
            if any(np.linalg.norm(shift) < SAME_CENTRE_MM for shift in shifts):
                yield index
            else:
                originals.append(index)


def _note_identity(
    geometries: Sequence[SliceGeometry], numbers: Sequence[int]
) -> Iterator[tuple[RejectReason, str]]:
    repeated = sum(count > 1 for number, count in Counter(numbers).items() if number != 0)
    if repeated:
        message = f"{repeated} InstanceNumbers occur in several slices"
        yield RejectReason.DUPLICATE_INSTANCE_NUMBER, message
    sizes = {(geometry.rows, geometry.columns) for geometry in geometries}
    if len(sizes) > 1:
        yield RejectReason.MIXED_SIZES, f"a series must have one matrix size. Received: {len(sizes)}"
    if len(geometries) == 1:
        yield RejectReason.SINGLE_SLICE, "the series has only one slice"


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
    """Yields notes about missing slices and uneven gaps, at most one each."""
    missing = 0
    even = [1.0]
    for group in groups:
        gaps = _gaps_mm(geometries, group)
        # Slices in one plane that show different parts of it are not neighbours.
        usual = _lower_median(gaps[gaps > SAME_PLANE_MM])
        for gap, first, second in zip(gaps / usual, group, group[1:]):
            if gap > _HOLE_GAPS and _is_hole(gap, numbers[first], numbers[second], plane):
                missing += round(gap) - 1
            elif gap * usual > SAME_PLANE_MM and (gap <= _HOLE_GAPS or plane.is_sagittal):
                even.append(gap)
    if missing:
        yield RejectReason.MISSING_SLICES, f"the gaps leave room for {missing} missing slices"
    if max(max(even) - 1, 1 - min(even)) > _EVEN_PART:
        message = f"gaps must be even. Received: {min(even):.2f} to {max(even):.2f} times their median"
        yield RejectReason.UNEVEN_GAPS, message


def _lower_median(values: NDArray[np.float64]) -> float:
    """Returns the lower median, so that the smaller of two gaps is the usual one; 1 without values."""
    return float(np.quantile(values, 0.5, method="lower")) if values.size else 1.0


def _is_hole(gap_in_medians: float, first: int, second: int, plane: Plane) -> bool:
    """Returns whether slices are missing in a wide gap.

    Parallel blocks of an axial series, one per disc, are separated on purpose and numbered consecutively.
    """
    multiple = round(gap_in_medians)
    is_whole = abs(gap_in_medians - multiple) <= _EVEN_PART * multiple
    if multiple < 2 or not is_whole:
        return False
    return plane.is_sagittal or abs(second - first) == multiple
